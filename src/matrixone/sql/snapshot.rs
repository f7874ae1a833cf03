//! Snapshots that the server keeps: made, shown, dropped, restored.
//!
//! SHOW is sent bare and filtered here: with a WHERE the server neither promises the order nor spells the columns alike from release to release.

use crate::error::{Error, ErrorKind, Result};
use crate::matrixone::client::Row;
use crate::matrixone::release::Release;

use super::quote::{account_name, fold, identifier, object_name, same};
use super::{Asker, NewAccount, SYS, Step, columns};

/// The bare statement.
pub const SHOW_SNAPSHOTS: &str = "SHOW SNAPSHOTS";

/// The first release with snapshots.
const FIRST: Release = Release::new(1, 2, 0);

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotLevel {
    /// Everything.
    Cluster,
    /// One account.
    Account,
}

impl SnapshotLevel {
    /// Reads `cluster` or `account`.
    pub fn parse(text: &str) -> Result<Self> {
        match fold(text).as_str() {
            "cluster" => Ok(Self::Cluster),
            "account" => Ok(Self::Account),
            _ => Err(Error::invalid(format!("snapshot level {text:?}: it is `account` or `cluster`"))),
        }
    }
}

/// One row of SHOW SNAPSHOTS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Its name.
    pub name: String,
    /// When it was made, UTC: `YYYY-MM-DD HH:MM:SS[.fraction]`.
    pub timestamp: String,
    /// `cluster`, `account`, `database` or `table`.
    pub level: String,
    /// Empty for a cluster.
    pub account: String,
    /// Empty above a database.
    pub database: String,
    /// Empty above a table.
    pub table: String,
}

impl SnapshotRow {
    /// Reads the answer to [`SHOW_SNAPSHOTS`], newest first.
    pub fn read(rows: Vec<Row>) -> Result<Vec<Self>> {
        let read = |row| {
            let [name, timestamp, level, account, database, table] = columns(row, SHOW_SNAPSHOTS)?;
            Ok(Self { name, timestamp, level, account, database, table })
        };
        rows.into_iter().map(read).collect()
    }
}

/// Which rows to show.
#[derive(Clone, Debug, Default)]
pub struct SnapshotFilter {
    /// `sys`: those of the cluster; any other value has no effect.
    pub cluster: Option<String>,
    /// Of this account.
    pub account: Option<String>,
    /// Of this database.
    pub database: Option<String>,
    /// Of this table.
    pub table: Option<String>,
    /// With this name.
    pub name: Option<String>,
    /// Not before; UTC, as SHOW prints it; the day alone will do.
    pub begin: Option<String>,
    /// Not after.
    pub end: Option<String>,
}

impl SnapshotFilter {
    /// The rows that pass, in their order. Fails with `Invalid` on a time that is none.
    pub fn apply(&self, rows: Vec<SnapshotRow>) -> Result<Vec<SnapshotRow>> {
        let bound = |text: &Option<String>, flag: &str| match text {
            Some(text) => full_time(text).map(Some).ok_or_else(|| {
                Error::invalid(format!(
                    "{flag} {text:?}: write `2024-05-11 00:00:00` (UTC), with a fraction or without the time"
                ))
            }),
            None => Ok(None),
        };
        let (begin, end) = (bound(&self.begin, "--beginTs")?, bound(&self.end, "--endTs")?);
        let wants = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| same(wanted, is));
        let in_time = |row: &SnapshotRow| match (full_time(&row.timestamp), &begin, &end) {
            (_, None, None) => true,
            (Some(time), begin, end) => {
                begin.as_ref().is_none_or(|begin| time >= *begin) && end.as_ref().is_none_or(|end| time <= *end)
            }
            (None, ..) => false,
        };
        let keeps = |row: &SnapshotRow| {
            (!self.cluster.as_deref().is_some_and(|value| same(value, SYS)) || row.level == "cluster")
                && wants(&self.account, &row.account)
                && wants(&self.database, &row.database)
                && wants(&self.table, &row.table)
                && wants(&self.name, &row.name)
                && in_time(row)
        };
        Ok(rows.into_iter().filter(keeps).collect())
    }
}

/// `YYYY-MM-DD[ HH:MM:SS[.fraction]]` with all of its nine digits, so that text compares as time does.
fn full_time(text: &str) -> Option<String> {
    const ZERO: &str = "0000-00-00 00:00:00.000000000";
    let text = text.trim();
    if !matches!(text.len(), 10 | 19 | 21..=29) {
        return None;
    }
    let fits = text.bytes().zip(ZERO.bytes()).all(|(is, shape)| match shape {
        b'0' => is.is_ascii_digit(),
        shape => is == shape,
    });
    fits.then(|| format!("{text}{}", &ZERO[text.len()..]))
}

/// CREATE SNAPSHOT; without an account, of the own one.
pub fn create_snapshot(
    asker: &Asker<'_>,
    name: &str,
    level: SnapshotLevel,
    account: Option<&str>,
) -> Result<Vec<Step>> {
    asker.require_since(FIRST, "snapshots")?;
    let name = object_name("snapshot", name)?;
    Ok(vec![Step::new(match level {
        SnapshotLevel::Cluster => format!("CREATE SNAPSHOT {name} FOR CLUSTER"),
        SnapshotLevel::Account => {
            format!("CREATE SNAPSHOT {name} FOR ACCOUNT {}", account_name(account.unwrap_or(asker.account))?)
        }
    })])
}

/// DROP SNAPSHOT.
pub fn drop_snapshot(asker: &Asker<'_>, name: &str) -> Result<Vec<Step>> {
    asker.require_since(FIRST, "snapshots")?;
    Ok(vec![Step::new(format!("DROP SNAPSHOT {}", object_name("snapshot", name)?))])
}

/// What is to be restored from a snapshot.
#[derive(Clone, Debug, Default)]
pub struct SnapshotRestore {
    /// The snapshot.
    pub name: String,
    /// The account; without one and without a database, the whole cluster.
    pub account: Option<String>,
    /// A database alone.
    pub database: Option<String>,
    /// A table of it alone.
    pub table: Option<String>,
    /// Into an account that is made for it.
    pub new_account: Option<NewAccount>,
}

impl SnapshotRestore {
    /// True if [`restore_snapshot`] needs to know what SHOW SNAPSHOTS tells.
    pub fn needs_rows(&self) -> bool {
        self.new_account.is_some()
    }
}

/// RESTORE from a snapshot; `shown` is all that SHOW SNAPSHOTS told.
///
/// A release that is not known gets both syntaxes: no release takes both, and the wrong one is refused before anything is done.
pub fn restore_snapshot(asker: &Asker<'_>, wanted: &SnapshotRestore, shown: &[SnapshotRow]) -> Result<Vec<Step>> {
    asker.require_since(FIRST, "snapshots")?;
    let name = object_name("snapshot", &wanted.name)?;
    if wanted.table.is_some() && wanted.database.is_none() {
        return Err(Error::invalid("restore a table: name its database too"));
    }
    let mut steps = Vec::new();
    if let Some(new) = &wanted.new_account {
        refuse_new_account(asker, wanted, new, shown)?;
        steps.push(new.create()?);
    }
    let own = wanted.database.as_ref().map(|_| asker.account);
    let account = wanted.account.as_deref().or(own).map(account_name).transpose()?;
    let database = wanted.database.as_deref().map(identifier).transpose()?;
    let table = wanted.table.as_deref().map(identifier).transpose()?;
    let target = wanted.new_account.as_ref().map(|new| account_name(&new.name)).transpose()?;
    let to = target.map(|target| format!(" TO ACCOUNT {target}")).unwrap_or_default();

    let (new_what, old_what) = match (&account, &database, &table) {
        (None, ..) => ("CLUSTER".to_owned(), "CLUSTER".to_owned()),
        (Some(a), None, _) => (format!("ACCOUNT {a}"), format!("ACCOUNT {a}")),
        (Some(a), Some(d), None) => (format!("DATABASE {a}.{d}"), format!("ACCOUNT {a} DATABASE {d}")),
        (Some(a), Some(d), Some(t)) => (format!("TABLE {a}.{d}.{t}"), format!("ACCOUNT {a} DATABASE {d} TABLE {t}")),
    };
    let new = format!("RESTORE {new_what} {{SNAPSHOT = {name}}}{to}");
    let old = format!("RESTORE {old_what} FROM SNAPSHOT {name}{to}");
    steps.push(match asker.release {
        Some(release) if release.has_snapshot_clause() => Step::new(new),
        Some(_) => Step::new(old),
        None => Step { otherwise: Some(old), ..Step::new(new) },
    });
    Ok(steps)
}

/// A new account is made by sys, from a whole account, and never from sys itself where the server would then write over sys.
fn refuse_new_account(
    asker: &Asker<'_>,
    wanted: &SnapshotRestore,
    new: &NewAccount,
    shown: &[SnapshotRow],
) -> Result<()> {
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
    let Some(account) = &wanted.account else {
        return Err(Error::invalid(format!(
            "restore into the new account {}: name the account that it is to be a copy of",
            new.name
        )));
    };
    if same(account, &new.name) {
        return Err(Error::invalid(format!(
            "restore into a new account: {account} is the account itself; leave out the new one to restore it in place"
        )));
    }
    let overwrites_sys = asker.release.is_none_or(Release::ignores_new_account_of_sys);
    if !same(account, SYS) || !overwrites_sys {
        return Ok(());
    }
    match shown.iter().find(|row| same(&row.name, &wanted.name)) {
        Some(row) if row.level == "cluster" => Ok(()),
        Some(_) => Err(Error::invalid(format!(
            "restore sys into the new account {}: from a snapshot of the account sys this server would ignore the new account and write over sys \
             itself. Use a snapshot of the cluster",
            new.name
        ))),
        None => Err(Error::new(
            ErrorKind::NotFound,
            format!("no snapshot {:?}: SHOW SNAPSHOTS does not list it", wanted.name),
        )),
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
