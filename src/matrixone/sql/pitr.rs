//! Points in time that the server keeps: made, shown, changed, dropped, restored.
//!
//! Times go to the server as they were written: it reads them in the zone of its own process, which nobody here knows.

use crate::error::{Error, ErrorKind, Result};
use crate::matrixone::client::Row;
use crate::matrixone::release::Release;

use super::quote::{account_name, fold, identifier, object_name, same, string};
use super::{Asker, NewAccount, SYS, Step, columns};

/// The bare statement.
pub const SHOW_PITR: &str = "SHOW PITR";

/// The first release with points in time.
const FIRST: Release = Release::new(2, 0, 0);
/// The server's own.
const RESERVED: &str = "sys_mo_catalog_pitr";

/// One row of SHOW PITR; names that do not apply are `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PitrRow {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: String,
    /// When its range was changed.
    pub modified: String,
    /// `cluster`, `account`, `database` or `table`.
    pub level: String,
    /// The account.
    pub account: String,
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
    /// How far it reaches back.
    pub length: String,
    /// `h`, `d`, `mo` or `y`.
    pub unit: String,
}

impl PitrRow {
    /// Reads the answer to [`SHOW_PITR`], newest first.
    pub fn read(rows: Vec<Row>) -> Result<Vec<Self>> {
        let read = |row| {
            let [name, created, modified, level, account, database, table, length, unit] = columns(row, SHOW_PITR)?;
            Ok(Self { name, created, modified, level, account, database, table, length, unit })
        };
        rows.into_iter().map(read).collect()
    }
}

/// Which rows to show.
#[derive(Clone, Debug, Default)]
pub struct PitrFilter {
    /// `sys`: that of the cluster; any other value has no effect.
    pub cluster: Option<String>,
    /// Of this account, whatever the level.
    pub account: Option<String>,
    /// Of this database and its tables.
    pub database: Option<String>,
    /// Of this table.
    pub table: Option<String>,
    /// With this name.
    pub name: Option<String>,
}

impl PitrFilter {
    /// The rows that pass, in their order.
    pub fn apply(&self, rows: Vec<PitrRow>) -> Vec<PitrRow> {
        let wants = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| same(wanted, is));
        let keeps = |row: &PitrRow| {
            (!self.cluster.as_deref().is_some_and(|value| same(value, SYS)) || row.level == "cluster")
                && wants(&self.account, &row.account)
                && wants(&self.database, &row.database)
                && wants(&self.table, &row.table)
                && wants(&self.name, &row.name)
        };
        rows.into_iter().filter(keeps).collect()
    }
}

/// What a point in time is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PitrLevel {
    /// Everything.
    Cluster,
    /// One account.
    Account,
    /// One database.
    Database,
    /// One table.
    Table,
}

impl PitrLevel {
    /// Reads `cluster`, `account`, `database` or `table`.
    pub fn parse(text: &str) -> Result<Self> {
        match fold(text).as_str() {
            "cluster" => Ok(Self::Cluster),
            "account" => Ok(Self::Account),
            "database" => Ok(Self::Database),
            "table" => Ok(Self::Table),
            _ => Err(Error::invalid(format!("PITR level {text:?}: it is `cluster`, `account`, `database` or `table`"))),
        }
    }
}

/// How far back a point in time reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PitrRange(String);

impl PitrRange {
    /// 1 to 100 hours (`h`), days (`d`), months (`mo`) or years (`y`); blanks around the unit do not count, nor does its case.
    pub fn new(value: u32, unit: &str) -> Result<Self> {
        if !(1..=100).contains(&value) {
            return Err(Error::invalid(format!("PITR range {value}: it is 1 to 100")));
        }
        let unit = fold(unit.trim());
        if !matches!(unit.as_str(), "h" | "d" | "mo" | "y") {
            return Err(Error::invalid(format!("PITR unit {unit:?}: it is h, d, mo or y")));
        }
        Ok(Self(format!("RANGE {value} '{unit}'")))
    }
}

/// What a new point in time is to be of.
#[derive(Clone, Debug)]
pub struct PitrObject {
    /// How much.
    pub level: PitrLevel,
    /// The account; without one, the own.
    pub account: Option<String>,
    /// The database, from that level on.
    pub database: Option<String>,
    /// The table, at that level.
    pub table: Option<String>,
}

/// CREATE PITR.
pub fn create_pitr(asker: &Asker<'_>, name: &str, object: &PitrObject, range: &PitrRange) -> Result<Vec<Step>> {
    asker.require_since(FIRST, "PITR")?;
    let name = pitr_name(name)?;
    refuse_misfit(object)?;
    let account = object.account.as_deref().unwrap_or(asker.account);
    let of = match object.level {
        PitrLevel::Cluster if !asker.is_sys() => {
            return Err(Error::invalid(format!(
                "a PITR of the cluster: sys alone may make it, and this is a login of {}",
                asker.account
            )));
        }
        PitrLevel::Cluster => "FOR CLUSTER ".to_owned(),
        PitrLevel::Account if asker.is_sys() => format!("FOR ACCOUNT {} ", account_name(account)?),
        // A tenant may not name itself here, only leave the name out.
        PitrLevel::Account if asker.owns(account) => String::new(),
        PitrLevel::Account => {
            return Err(Error::invalid(format!(
                "a PITR of account {account}: {} may make one of itself alone",
                asker.account
            )));
        }
        PitrLevel::Database | PitrLevel::Table if !asker.owns(account) => {
            return Err(Error::invalid(format!(
                "a PITR of a database of account {account}: the server would take the database of that name in {}, where this login belongs. \
                 Log in as {account}#…",
                asker.account
            )));
        }
        PitrLevel::Database => format!("FOR DATABASE {} ", named(&object.database)?),
        PitrLevel::Table => format!("FOR DATABASE {} TABLE {} ", named(&object.database)?, named(&object.table)?),
    };
    Ok(vec![Step::new(format!("CREATE PITR {name} {of}{}", range.0))])
}

/// ALTER PITR: another range.
pub fn alter_pitr(asker: &Asker<'_>, name: &str, range: &PitrRange) -> Result<Vec<Step>> {
    asker.require_since(FIRST, "PITR")?;
    Ok(vec![Step::new(format!("ALTER PITR {} {}", pitr_name(name)?, range.0))])
}

/// DROP PITR.
pub fn drop_pitr(asker: &Asker<'_>, name: &str) -> Result<Vec<Step>> {
    asker.require_since(FIRST, "PITR")?;
    Ok(vec![Step::new(format!("DROP PITR {}", pitr_name(name)?))])
}

fn pitr_name(name: &str) -> Result<String> {
    if same(name, RESERVED) {
        return Err(Error::invalid(format!("PITR {name}: the server keeps this name for itself")));
    }
    object_name("pitr", name)
}

fn named(name: &Option<String>) -> Result<String> {
    identifier(name.as_deref().unwrap_or_default())
}

/// Names that a level lacks, and names that it must not have.
fn refuse_misfit(object: &PitrObject) -> Result<()> {
    let (account, database, table) = (object.account.is_some(), object.database.is_some(), object.table.is_some());
    let wrong = match object.level {
        PitrLevel::Cluster if account || database || table => {
            "level cluster: neither account nor database nor table belong to it"
        }
        PitrLevel::Account if database || table => "level account: neither database nor table belong to it",
        PitrLevel::Database if !database => "level database: name the database",
        PitrLevel::Database if table => "level database: a table does not belong to it",
        PitrLevel::Table if !database || !table => "level table: name the database and the table",
        _ => return Ok(()),
    };
    Err(Error::invalid(format!("PITR of {wrong}")))
}

/// What is to be restored.
#[derive(Clone, Debug, Default)]
pub struct PitrRestore {
    /// The PITR.
    pub name: String,
    /// `YYYY-MM-DD HH:MM:SS[.fraction]`, in the zone of the server's process; it goes there as it is.
    pub timestamp: String,
    /// `sys`: the whole cluster.
    pub cluster: Option<String>,
    /// The account; without one, the own.
    pub account: Option<String>,
    /// A database alone.
    pub database: Option<String>,
    /// A table of it alone.
    pub table: Option<String>,
    /// Into an account that is made for it.
    pub new_account: Option<NewAccount>,
}

/// RESTORE from a point in time; `shown` is all that SHOW PITR told.
///
/// Refused wherever the server would restore another account than was named, or would fail after an account was made.
pub fn restore_pitr(asker: &Asker<'_>, wanted: &PitrRestore, shown: &[PitrRow]) -> Result<Vec<Step>> {
    asker.require_since(FIRST, "PITR")?;
    let from = format!("FROM PITR {} {}", pitr_name(&wanted.name)?, time(&wanted.timestamp)?);
    if wanted.table.is_some() && wanted.database.is_none() {
        return Err(Error::invalid("restore a table: name its database too"));
    }
    if let Some(cluster) = &wanted.cluster {
        return restore_cluster(asker, wanted, cluster, &from);
    }
    let row = shown.iter().find(|row| same(&row.name, &wanted.name)).ok_or_else(|| {
        let message = format!("no PITR {:?} of account {}: SHOW PITR does not list it", wanted.name, asker.account);
        Error::new(ErrorKind::NotFound, message)
    })?;
    if let Some(new) = &wanted.new_account {
        return restore_into_new(asker, wanted, new, row, &from);
    }
    let account = wanted.account.as_deref().unwrap_or(asker.account);
    if let Some(database) = &wanted.database {
        return restore_database(asker, wanted, (account, database), row, &from);
    }
    let name = account_name(account)?;
    let whole = match row.level.as_str() {
        "cluster" | "account" if !asker.owns(account) && !asker.is_sys() => {
            return Err(Error::invalid(format!(
                "restore account {account}: this is a login of {}, and the server would restore that one. Log in as {account}#…",
                asker.account
            )));
        }
        "cluster" if asker.is_sys() => format!("RESTORE ACCOUNT {name} {from} {name}"),
        "account" if !same(&row.account, account) => {
            return Err(Error::invalid(format!(
                "restore account {account}: PITR {} belongs to account {}, whose data would be written over it",
                row.name, row.account
            )));
        }
        "account" if asker.owns(account) => format!("RESTORE {from}"),
        "account" => format!("RESTORE ACCOUNT {name} {from}"),
        level => return Err(misfit(row, level, "a whole account")),
    };
    Ok(vec![Step::new(whole)])
}

fn restore_cluster(asker: &Asker<'_>, wanted: &PitrRestore, cluster: &str, from: &str) -> Result<Vec<Step>> {
    if !same(cluster, SYS) {
        return Err(Error::invalid(format!("--cluster {cluster}: a cluster is named `sys`")));
    }
    if wanted.account.is_some() || wanted.database.is_some() || wanted.new_account.is_some() {
        return Err(Error::invalid("restore the cluster: no account, database or table goes with it"));
    }
    if !asker.is_sys() {
        return Err(Error::invalid(format!(
            "restore the cluster: sys alone may do that, and this is a login of {}",
            asker.account
        )));
    }
    Ok(vec![Step::new(format!("RESTORE CLUSTER {from}"))])
}

fn restore_database(
    asker: &Asker<'_>,
    wanted: &PitrRestore,
    (account, database): (&str, &str),
    row: &PitrRow,
    from: &str,
) -> Result<Vec<Step>> {
    if !asker.owns(account) {
        return Err(Error::invalid(format!(
            "restore a database of account {account}: the server would take the one in {}, where this login belongs. Log in as {account}#…",
            asker.account
        )));
    }
    let fits = match row.level.as_str() {
        "account" => same(&row.account, account),
        "database" => same(&row.database, database),
        "table" => {
            same(&row.database, database) && wanted.table.as_deref().is_some_and(|table| same(table, &row.table))
        }
        _ => false,
    };
    if !fits {
        let what = if wanted.table.is_some() { "this table" } else { "this database" };
        return Err(misfit(row, &row.level, what));
    }
    let database = identifier(database)?;
    let table = wanted.table.as_deref().map(identifier).transpose()?;
    let table = table.map(|table| format!(" TABLE {table}")).unwrap_or_default();
    Ok(vec![Step::new(format!("RESTORE DATABASE {database}{table} {from}"))])
}

/// In the manual's examples the account named beside the new one is now the source, now the new one itself.
fn restore_into_new(
    asker: &Asker<'_>,
    wanted: &PitrRestore,
    new: &NewAccount,
    row: &PitrRow,
    from: &str,
) -> Result<Vec<Step>> {
    if wanted.database.is_some() {
        return Err(Error::invalid(
            "restore into a new account: that goes with a whole account alone; leave out the database and the table",
        ));
    }
    if !asker.is_sys() {
        return Err(Error::invalid(format!(
            "restore into a new account: sys alone may make one, and this is a login of {}",
            asker.account
        )));
    }
    let source = wanted.account.as_deref().filter(|account| !same(account, &new.name));
    let (source, tail) = match (row.level.as_str(), source) {
        ("account", Some(source)) if !same(source, &row.account) => {
            return Err(Error::invalid(format!(
                "restore account {source} into {}: PITR {} belongs to account {}",
                new.name, row.name, row.account
            )));
        }
        ("account", _) => (row.account.as_str(), String::new()),
        ("cluster", Some(source)) => (source, format!(" {}", account_name(source)?)),
        ("cluster", None) => {
            return Err(Error::invalid(format!(
                "restore into the new account {}: PITR {} is of the whole cluster: name the account that the new one is to be a copy of",
                new.name, row.name
            )));
        }
        (level, _) => return Err(misfit(row, level, "a whole account")),
    };
    if same(source, SYS) {
        return Err(Error::invalid(format!(
            "restore sys into the new account {}: the server does not do that",
            new.name
        )));
    }
    if same(source, &new.name) {
        return Err(Error::invalid(format!(
            "restore into a new account: {source} is the account itself; leave out the new one to restore it in place"
        )));
    }
    let restore = Step::new(format!("RESTORE ACCOUNT {} {from}{tail}", account_name(&new.name)?));
    Ok(vec![new.create()?, restore])
}

fn misfit(row: &PitrRow, level: &str, what: &str) -> Error {
    let of = [&row.account, &row.database, &row.table].map(String::as_str);
    let of: Vec<&str> = of.into_iter().filter(|name| !matches!(*name, "*" | "")).collect();
    let of = if of.is_empty() { String::new() } else { format!(" ({})", of.join(".")) };
    Error::invalid(format!("PITR {} is of level {level}{of}: {what} cannot be restored from it", row.name))
}

fn time(text: &str) -> Result<String> {
    if text.trim().is_empty() {
        return Err(Error::invalid(
            "the time to restore is missing: `2024-08-08 15:42:20`, as the server's own clock shows it",
        ));
    }
    string(text)
}

#[cfg(test)]
#[path = "pitr_tests.rs"]
mod tests;
