//! `snapshot`: SQL snapshots that the server keeps.

use everpack::error::{Error, Result};
use everpack::matrixone::client::Client;
use everpack::matrixone::login::Secret;
use everpack::matrixone::sql::{
    Asker, NewAccount, SHOW_SNAPSHOTS, SnapshotFilter, SnapshotLevel, SnapshotRestore, SnapshotRow, Step,
    create_snapshot, drop_snapshot, restore_snapshot,
};

use super::Env;
use super::commands::Verb;
use super::server::{connect, required};
use super::tables::padded;

/// Columns of `snapshot show`.
const HEADER: [&str; 6] =
    ["SNAPSHOT NAME", "TIMESTAMP", "SNAPSHOT LEVEL", "ACCOUNT NAME", "DATABASE NAME", "TABLE NAME"];

pub(super) async fn run(env: &Env, verb: Verb) -> Result<()> {
    match verb {
        Verb::Alter | Verb::Show => show(env).await,
        Verb::Create => {
            let name = required(env, "sname", "snapshot name")?.to_owned();
            let level = SnapshotLevel::parse(required(env, "level", "snapshot level")?)?;
            let account = owned(env, "account");
            ask(env, async |_, asker| create_snapshot(asker, &name, level, account.as_deref())).await
        }
        Verb::Drop => {
            let name = required(env, "sname", "snapshot name")?.to_owned();
            ask(env, async |_, asker| drop_snapshot(asker, &name)).await
        }
        Verb::Restore => {
            let wanted = SnapshotRestore {
                name: required(env, "sname", "snapshot name")?.to_owned(),
                account: owned(env, "account"),
                database: owned(env, "db"),
                table: owned(env, "table"),
                new_account: new_account(env)?,
            };
            let decide = async |client: &mut Client, asker: &Asker<'_>| {
                let shown = if wanted.needs_rows() { rows(client).await? } else { Vec::new() };
                restore_snapshot(asker, &wanted, &shown)
            };
            ask(env, decide).await
        }
    }
}

/// What the server has, filtered here: with a WHERE it may answer in another order.
async fn show(env: &Env) -> Result<()> {
    let filter = SnapshotFilter {
        cluster: owned(env, "cluster"),
        account: owned(env, "account"),
        database: owned(env, "db"),
        table: owned(env, "table"),
        name: owned(env, "sname"),
        begin: owned(env, "beginTs"),
        end: owned(env, "endTs"),
    };
    // A wrong time is told before anybody is asked.
    filter.apply(Vec::new())?;
    let mut client = connect(env).await?;
    let shown = rows(&mut client).await;
    client.close().await;
    let cells = |row: SnapshotRow| vec![row.name, row.timestamp, row.level, row.account, row.database, row.table];
    let rows: Vec<Vec<String>> = filter.apply(shown?)?.into_iter().map(cells).collect();
    env.print(&padded(&HEADER, &rows))
}

async fn rows(client: &mut Client) -> Result<Vec<SnapshotRow>> {
    SnapshotRow::read(client.query(SHOW_SNAPSHOTS).await?)
}

/// What a flag says.
pub(super) fn owned(env: &Env, flag: &str) -> Option<String> {
    env.line.text(flag).map(str::to_owned)
}

/// The account that a restore is to make.
pub(super) fn new_account(env: &Env) -> Result<Option<NewAccount>> {
    let Some(name) = owned(env, "new_account") else {
        let lone = ["new_admin_name", "new_admin_password"].into_iter().find(|flag| env.line.text(flag).is_some());
        return match lone {
            Some(flag) => {
                Err(Error::invalid(format!("--{flag} goes with --new_account: the account that is to be made")))
            }
            None => Ok(None),
        };
    };
    let admin = owned(env, "new_admin_name").unwrap_or_default();
    let password = Secret::new(env.line.text("new_admin_password").unwrap_or_default());
    Ok(Some(NewAccount { name, admin, password }))
}

/// Logs in, lets `decide` say what to send, and sends it, one statement after the other.
pub(super) async fn ask<F>(env: &Env, decide: F) -> Result<()>
where
    F: AsyncFnOnce(&mut Client, &Asker<'_>) -> Result<Vec<Step>>,
{
    let mut client = connect(env).await?;
    let outcome = async {
        let account = client.account().await?;
        let asker = Asker { release: client.release(), account: &account };
        let steps = decide(&mut client, &asker).await?;
        let mut left: Option<&str> = None;
        for step in &steps {
            env.debug(&everpack::matrixone::sql::redacted(&step.sql));
            let sent = match &step.otherwise {
                Some(otherwise) => client.run_either(&step.sql, otherwise).await,
                None => client.run(&step.sql).await,
            };
            sent.map_err(|error| match left {
                Some(left) => error.context(left),
                None => error,
            })?;
            left = step.leaves.as_deref().or(left);
        }
        Ok(())
    };
    let outcome = outcome.await;
    client.close().await;
    outcome
}
