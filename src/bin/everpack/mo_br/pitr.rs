//! `pitr`: the server's points in time to go back to.

use everpack::error::{Error, ErrorKind, Result};

use super::Env;
use super::commands::Verb;
use super::server::connect;
use super::snapshot::cells;
use super::tables::padded;

/// Columns of `pitr show`.
const HEADER: [&str; 9] = [
    "PITR NAME",
    "CREATED TIME",
    "MODIFIED TIME",
    "PITR LEVEL",
    "ACCOUNT NAME",
    "DATABASE NAME",
    "TABLE NAME",
    "PITR LENGTH",
    "PITR UNIT",
];

pub(super) async fn run(env: &Env, verb: Verb) -> Result<()> {
    match verb {
        Verb::Show => show(env).await,
        _ => Err(Error::new(ErrorKind::Unsupported, "pitr")),
    }
}

async fn show(env: &Env) -> Result<()> {
    let line = &env.line;
    let mut wanted: Vec<(usize, String)> = Vec::new();
    for (column, flag) in [(0, "pname"), (4, "account"), (5, "database"), (6, "table")] {
        wanted.extend(line.text(flag).map(|value| (column, value.to_lowercase())));
    }
    if line.text("cluster") == Some("sys") {
        wanted.push((3, "cluster".to_owned()));
    }
    let mut client = connect(env).await?;
    let rows = client.query("SHOW PITR").await;
    client.close().await;
    let keeps = |row: &Vec<String>| wanted.iter().all(|(column, value)| row[*column].to_lowercase() == *value);
    let rows: Vec<Vec<String>> = rows?.into_iter().map(|row| cells(row, HEADER.len())).filter(keeps).collect();
    env.print(&padded(&HEADER, &rows))
}
