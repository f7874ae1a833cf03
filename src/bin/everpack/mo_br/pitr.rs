//! `pitr`: points in time that the server can go back to.

use everpack::error::{Error, Result};
use everpack::matrixone::client::Client;
use everpack::matrixone::sql::{
    Asker, PitrFilter, PitrLevel, PitrObject, PitrRange, PitrRestore, PitrRow, SHOW_PITR, alter_pitr, create_pitr,
    drop_pitr, restore_pitr,
};

use super::Env;
use super::commands::Verb;
use super::server::{connect, required};
use super::snapshot::{ask, new_account, owned};
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
    if verb == Verb::Show {
        return show(env).await;
    }
    let name = required(env, "pname", "pitr name")?.to_owned();
    match verb {
        Verb::Show => show(env).await,
        Verb::Create => {
            let object = PitrObject {
                level: PitrLevel::parse(required(env, "level", "pitr level")?)?,
                account: owned(env, "account"),
                database: owned(env, "database"),
                table: owned(env, "table"),
            };
            let range = range(env)?;
            ask(env, async |_, asker| create_pitr(asker, &name, &object, &range)).await
        }
        Verb::Alter => {
            let range = range(env)?;
            ask(env, async |_, asker| alter_pitr(asker, &name, &range)).await
        }
        Verb::Drop => ask(env, async |_, asker| drop_pitr(asker, &name)).await,
        Verb::Restore => {
            let wanted = PitrRestore {
                name,
                timestamp: required(env, "timestamp", "timestamp")?.to_owned(),
                cluster: owned(env, "cluster"),
                account: owned(env, "account"),
                database: owned(env, "database"),
                table: owned(env, "table"),
                new_account: new_account(env)?,
            };
            let decide = async |client: &mut Client, asker: &Asker<'_>| {
                let shown = PitrRow::read(client.query(SHOW_PITR).await?)?;
                restore_pitr(asker, &wanted, &shown)
            };
            ask(env, decide).await
        }
    }
}

fn range(env: &Env) -> Result<PitrRange> {
    let text = required(env, "rangevalue", "range value")?;
    let value = text.parse().map_err(|_| Error::invalid(format!("--rangevalue {text}: it is 1 to 100")))?;
    PitrRange::new(value, env.line.text("rangeunit").unwrap_or("d"))
}

async fn show(env: &Env) -> Result<()> {
    let filter = PitrFilter {
        cluster: owned(env, "cluster"),
        account: owned(env, "account"),
        database: owned(env, "database"),
        table: owned(env, "table"),
        name: owned(env, "pname"),
    };
    let mut client = connect(env).await?;
    let shown = client.query(SHOW_PITR).await.and_then(PitrRow::read);
    client.close().await;
    let cells = |row: PitrRow| {
        vec![row.name, row.created, row.modified, row.level, row.account, row.database, row.table, row.length, row.unit]
    };
    let rows: Vec<Vec<String>> = filter.apply(shown?).into_iter().map(cells).collect();
    env.print(&padded(&HEADER, &rows))
}
