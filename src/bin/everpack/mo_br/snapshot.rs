//! `snapshot`: SQL snapshots that the server keeps.

use everpack::error::{Error, ErrorKind, Result};

use super::Env;
use super::commands::Verb;
use super::server::connect;
use super::tables::padded;

/// Columns of `snapshot show`.
const HEADER: [&str; 6] = ["SNAPSHOT NAME", "TIMESTAMP", "SNAPSHOT LEVEL", "ACCOUNT NAME", "DATABASE NAME", "TABLE NAME"];

pub(super) async fn run(env: &Env, verb: Verb) -> Result<()> {
    match verb {
        Verb::Show => show(env).await,
        _ => Err(Error::new(ErrorKind::Unsupported, "snapshot")),
    }
}

/// Asks for all and filters here: with a WHERE the server may answer in another order.
async fn show(env: &Env) -> Result<()> {
    let filter = Filter::given(env)?;
    let mut client = connect(env).await?;
    let rows = client.query("SHOW SNAPSHOTS").await;
    client.close().await;
    let rows: Vec<Vec<String>> = rows?.into_iter().map(|row| cells(row, HEADER.len())).filter(|row| filter.keeps(row)).collect();
    env.print(&padded(&HEADER, &rows))
}

/// A row as text, as wide as the table.
pub(super) fn cells(row: Vec<Option<String>>, columns: usize) -> Vec<String> {
    let mut cells: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
    cells.resize(columns, String::new());
    cells
}

/// What is to be seen.
#[derive(Debug, Default)]
struct Filter {
    /// Column and value.
    equal: Vec<(usize, String)>,
    begin: Option<String>,
    end: Option<String>,
}

impl Filter {
    fn given(env: &Env) -> Result<Self> {
        let line = &env.line;
        let mut equal = Vec::new();
        for (column, flag) in [(0, "sname"), (3, "account"), (4, "db"), (5, "table")] {
            // The server folds names to lower case.
            equal.extend(line.text(flag).map(|value| (column, value.to_lowercase())));
        }
        if line.text("cluster") == Some("sys") {
            equal.push((2, "cluster".to_owned()));
        }
        let time = |flag: &str| line.text(flag).map(|text| time_key(text).ok_or_else(|| wrong_time(flag, text))).transpose();
        Ok(Self { equal, begin: time("beginTs")?, end: time("endTs")? })
    }

    fn keeps(&self, row: &[String]) -> bool {
        let same = |(column, value): &(usize, String)| row.get(*column).is_some_and(|cell| cell.to_lowercase() == *value);
        let time = row.get(1).and_then(|time| time_key(time));
        let within = |bound: &Option<String>, fits: fn(&String, &String) -> bool| match (bound, &time) {
            (Some(bound), Some(time)) => fits(time, bound),
            (Some(_), None) => false,
            (None, _) => true,
        };
        self.equal.iter().all(same) && within(&self.begin, |time, begin| time >= begin) && within(&self.end, |time, end| time <= end)
    }
}

fn wrong_time(flag: &str, text: &str) -> Error {
    Error::invalid(format!("--{flag} {text:?}: a time is written 2024-05-11 00:00:00, in UTC as `snapshot show` prints it; a date alone is its midnight"))
}

/// Text that compares as the time does: `2024-05-10 02:06:08.01635` with all digits.
fn time_key(text: &str) -> Option<String> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole = if whole.len() == 10 { format!("{whole} 00:00:00") } else { whole.to_owned() };
    let shape = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        10 => byte == b' ',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    };
    let fits = whole.len() == 19 && whole.bytes().enumerate().all(shape);
    let digits = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    (fits && digits).then(|| format!("{whole}.{fraction:0<9}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, time: &str, level: &str, account: &str) -> Vec<String> {
        [name, time, level, account, "", ""].map(str::to_owned).to_vec()
    }

    #[test]
    fn times_compare_whatever_their_fraction() {
        let filter = Filter {
            equal: vec![(3, "acc1".to_owned())],
            begin: time_key("2024-05-11"),
            end: time_key("2024-05-11 02:29:30.5"),
        };
        assert!(filter.keeps(&row("a", "2024-05-11 02:29:30.499999", "account", "acc1")));
        assert!(filter.keeps(&row("a", "2024-05-11 02:29:30.5", "account", "ACC1")));
        assert!(!filter.keeps(&row("a", "2024-05-11 02:29:30.500001", "account", "acc1")));
        assert!(!filter.keeps(&row("a", "2024-05-10 23:59:59", "account", "acc1")));
        assert!(!filter.keeps(&row("a", "2024-05-11 01:00:00", "account", "sys")));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in ["", "2024", "2024-05-11T00:00:00", "2024-05-11 00:00", "2024-05-11 00:00:00.x", "2024-05-11 17:30: 00"] {
            assert_eq!(time_key(text), None, "{text}");
        }
    }
}
