//! What a restored server is asked, and whether it answers as it should.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Monitoring;
use crate::error::{Context, Error, Result};
use crate::matrixone::client::{Client, Row};
use crate::matrixone::login::{Login, Secret, Tls};

/// account → `database.table` → rows, and sum, least and greatest of the checksums of rows.
pub(super) type Expected = BTreeMap<String, BTreeMap<String, [serde_json::Number; 4]>>;

/// Who asks.
#[derive(Clone, Debug)]
pub struct DrillLogin {
    /// User of account `sys`.
    pub user: String,
    /// User of every other account whose tables are compared.
    pub tenant_user: String,
    /// Password of both.
    pub password: Secret,
}

impl Default for DrillLogin {
    fn default() -> Self {
        // What a new MatrixOne has.
        Self { user: "root".to_owned(), tenant_user: "admin".to_owned(), password: Secret::new("111") }
    }
}

impl DrillLogin {
    pub(super) fn of(&self, account: &str, port: u16) -> Login {
        let user = if account == "sys" { self.user.clone() } else { format!("{account}#{}", self.tenant_user) };
        Login { host: "127.0.0.1".to_owned(), port, user, password: self.password.clone(), tls: Tls::Off }
    }
}

/// Reads an expect file.
pub(super) fn parse_expected(text: &str) -> Result<Expected> {
    serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("it is not account → table → [rows, sum, least, greatest]: {error}")))
}

/// Statements of a file: each ends with `;` at the end of a line; lines that begin with `--` are remarks.
pub(super) fn parse_queries(text: &str) -> Vec<String> {
    let mut queries = Vec::new();
    let mut query = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("--")) {
        query.push_str(line);
        query.push('\n');
        if line.trim_end().ends_with(';') {
            queries.push(std::mem::take(&mut query));
        }
    }
    queries.push(query);
    let trim = |query: String| query.trim().trim_end_matches(';').trim().to_owned();
    queries.into_iter().map(trim).filter(|query| !query.is_empty()).collect()
}

/// A table that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TableDifference {
    /// `account: database.table`.
    pub table: String,
    /// What was found instead.
    pub what: String,
}

/// What comparing gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TableComparison {
    /// Tables that are as expected.
    pub same: u64,
    /// Those that are not.
    pub different: Vec<TableDifference>,
    /// Accounts that could not be logged in to, and why.
    pub not_compared: Vec<String>,
}

/// Compares every table with what was counted when the backup was made.
pub(super) async fn compare(
    login: &DrillLogin,
    port: u16,
    expected: &Expected,
    watch: &Monitoring,
) -> Result<TableComparison> {
    let mut comparison = TableComparison::default();
    for (account, tables) in expected {
        let mut client = match watch.until(Client::connect(&login.of(account, port))).await {
            Ok(client) => client,
            Err(error) if account != "sys" && !watch.is_stopped() => {
                comparison.not_compared.push(format!("{account}: {error}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        for (name, expected) in tables {
            let found = match watch.until(count(&mut client, name)).await {
                Ok(found) => found,
                Err(error) if watch.is_stopped() => return Err(error),
                Err(error) => error.to_string(),
            };
            let wanted = expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            if found == wanted {
                comparison.same += 1;
            } else {
                let what = format!("{found} instead of {wanted}");
                comparison.different.push(TableDifference { table: format!("{account}: {name}"), what });
            }
        }
        client.close().await;
    }
    Ok(comparison)
}

/// Rows, and sum, least and greatest of their checksums.
async fn count(client: &mut Client, table: &str) -> Result<String> {
    let (database, name) =
        table.split_once('.').ok_or_else(|| Error::invalid(format!("{table:?} is not database.table")))?;
    let place = format!("{}.{}", ticked(database), ticked(name));
    let columns = client.query(&format!("show columns from {place}")).await?;
    let column = |row: &Row| {
        let name = ticked(row.first()?.as_deref()?);
        let kind = row.get(1)?.as_deref()?.to_ascii_lowercase();
        // As they are counted: bytes and vectors in digits.
        let is_bytes = kind.contains("blob") || kind.starts_with("vec");
        Some(if is_bytes { format!("ifnull(hex({name}),'~')") } else { format!("ifnull(cast({name} as char),'~')") })
    };
    let columns: Vec<String> = columns.iter().filter_map(column).collect();
    if columns.is_empty() {
        return Err(Error::invalid(format!("{table} has no columns")));
    }
    let sum = format!("crc32(concat_ws('|',{}))", columns.join(","));
    let rows = client.query(&format!("select count(*),sum({sum}),min({sum}),max({sum}) from {place}")).await?;
    let row = rows.into_iter().next().unwrap_or_default();
    // Of an empty table there is no sum; it is counted as zero.
    Ok(row.into_iter().map(|value| value.unwrap_or_else(|| "0".to_owned())).collect::<Vec<_>>().join(" "))
}

fn ticked(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Answers to queries as text, to be compared with the same after a restart.
pub(super) async fn answers(client: &mut Client, queries: &[String]) -> Vec<Result<Vec<Row>, String>> {
    let mut answers = Vec::new();
    for query in queries {
        answers.push(client.query(query).await.map_err(|error| error.to_string()));
    }
    answers
}

/// A table of the drill's own: what was written must survive every restart, and its id must be new.
pub(super) struct Writes;

impl Writes {
    const DATABASE: &'static str = "everpack_drill";
    const ROWS: u32 = 1000;

    pub(super) async fn make(client: &mut Client) -> Result<()> {
        let act = || "write into the restored server";
        let database = Self::DATABASE;
        let ids = "select rel_id from mo_catalog.mo_tables";
        let before = client.query(ids).await.context(act)?;
        client.run(&format!("create database {database}")).await.context(act)?;
        client.run(&format!("create table {database}.t (a int primary key, b varchar(100))")).await.context(act)?;
        let rows: Vec<String> = (0..Self::ROWS).map(|row| format!("({row},'row {row}')")).collect();
        client.run(&format!("insert into {database}.t values {}", rows.join(","))).await.context(act)?;
        let own = format!("{ids} where reldatabase = '{database}' and relname = 't'");
        let own = client.value(&own).await.context(act)?;
        if own.is_none() || before.iter().any(|row| row.first() == Some(&own)) {
            let message = "a new table was given an id that another table has: the server did not take hk_data over";
            return Err(Error::corrupt(message));
        }
        Ok(())
    }

    /// What is wrong with it.
    pub(super) async fn check(client: &mut Client) -> Result<Option<String>> {
        let counted = client.value(&format!("select count(*) from {}.t", Self::DATABASE)).await?;
        let wanted = Self::ROWS.to_string();
        Ok((counted.as_deref() != Some(wanted.as_str()))
            .then(|| format!("{} rows were written and {} are there", wanted, counted.unwrap_or_default())))
    }
}

/// Between two tries to connect.
pub(super) const RETRY_EVERY: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_told_apart() {
        let text = "-- counts\nselect 1;\nselect ';',\n  2;\n\n;\nselect 3";
        assert_eq!(parse_queries(text), ["select 1", "select ';',\n  2", "select 3"]);
        assert!(parse_queries("\n-- nothing\n").is_empty());
    }

    #[test]
    fn expect_files_are_read_and_nonsense_is_refused() {
        let expected = parse_expected(r#"{"sys": {"app.notes": [417, 894369605914, 12758852, 4289683932]}}"#).unwrap();
        assert_eq!(expected["sys"]["app.notes"][1].to_string(), "894369605914");
        assert!(parse_expected("[]").is_err() && parse_expected(r#"{"sys": {"a.b": [1]}}"#).is_err());
    }
}
