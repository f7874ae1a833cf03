//! Statements, as text: names and strings quoted, and refused where the server would do something else than was asked for.
//!
//! Pure: everything that a decision needs comes in, the release, the account that is logged in, and what SHOW told. Which statement belongs to
//! which command, and why some are refused, is told in docs/reference/sql.md.
//!
//! - [`identifier`], [`string`]: names and strings.
//! - BACKUP: [`BackupStatement`]; what a backup asks of the server besides: [`Control`].
//! - [`create_snapshot`], [`drop_snapshot`], [`restore_snapshot`], [`SnapshotRow`]: snapshots.
//! - [`create_pitr`], [`alter_pitr`], [`drop_pitr`], [`restore_pitr`], [`PitrRow`]: points in time.

mod backup;
mod control;
mod pitr;
mod quote;
mod snapshot;
pub(crate) mod token;

pub use backup::{BackupStatement, BackupTarget, MOST_PARALLELISM, S3Target};
pub use control::Control;
pub use pitr::{
    PitrFilter, PitrLevel, PitrObject, PitrRange, PitrRestore, PitrRow, SHOW_PITR, alter_pitr, create_pitr, drop_pitr,
    restore_pitr,
};
pub use quote::{fold, identifier, string};
pub use snapshot::{
    SHOW_SNAPSHOTS, SnapshotFilter, SnapshotLevel, SnapshotRestore, SnapshotRow, create_snapshot, drop_snapshot,
    restore_snapshot,
};

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::matrixone::client::Row;
use crate::matrixone::login::Secret;
use crate::matrixone::redact::Redaction;
use crate::matrixone::release::Release;

/// The account of a cluster's operators.
pub const SYS: &str = "sys";

/// Who asks, and whom.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The server's release; `None` if it does not tell.
    pub release: Option<Release>,
    /// The account that is logged in.
    pub account: &'a str,
}

impl Asker<'_> {
    fn is_sys(&self) -> bool {
        quote::same(self.account, SYS)
    }

    fn owns(&self, account: &str) -> bool {
        quote::same(self.account, account)
    }

    fn require_since(&self, since: Release, what: &str) -> Result<()> {
        match self.release {
            Some(release) if release < since => Err(Error::new(
                ErrorKind::Unsupported,
                format!("the server is MatrixOne {release}, and {what} came with {since}"),
            )),
            _ => Ok(()),
        }
    }
}

/// One statement to send.
#[derive(Clone, PartialEq, Eq)]
pub struct Step {
    /// The statement.
    pub sql: String,
    /// For a server that does not tell its release: what to send if it answers that the first one is no SQL of its (1064).
    pub otherwise: Option<String>,
    /// What is true once it is done, for the message if a later one fails.
    pub leaves: Option<String>,
}

impl Step {
    fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), otherwise: None, leaves: None }
    }
}

/// Without the secrets in it.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("sql", &Redaction::of(&self.sql).sql())
            .field("otherwise", &self.otherwise)
            .field("leaves", &self.leaves)
            .finish()
    }
}

/// A statement without its passwords and keys, for people and logs.
pub fn redacted(sql: &str) -> String {
    Redaction::of(sql).sql()
}

/// An account that a restore is to make.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// Its name.
    pub name: String,
    /// The name of its administrator.
    pub admin: String,
    /// The administrator's password.
    pub password: Secret,
}

impl NewAccount {
    fn create(&self) -> Result<Step> {
        if quote::same(&self.name, SYS) {
            return Err(Error::invalid(
                "the account sys is not new: a restore into it would write over the whole cluster's own account",
            ));
        }
        if self.admin.is_empty() || self.password.is_empty() {
            return Err(Error::invalid(format!(
                "a new account needs an administrator and a password: account {} has no {}",
                self.name,
                if self.admin.is_empty() { "administrator" } else { "password" }
            )));
        }
        let (name, admin) = (quote::account_name(&self.name)?, string(&self.admin)?);
        let password = string(self.password.reveal()).map_err(|_| {
            Error::invalid(format!("the password of the new account {} holds control characters", self.name))
        })?;
        let mut step = Step::new(format!("CREATE ACCOUNT {name} ADMIN_NAME {admin} IDENTIFIED BY {password}"));
        step.leaves = Some(format!("the account {} was made and stays; `DROP ACCOUNT {name}` removes it", self.name));
        Ok(step)
    }
}

/// The columns of a row of SHOW, by index: their names and order of case differ between releases.
fn columns<const N: usize>(row: Row, what: &str) -> Result<[String; N]> {
    let count = row.len();
    let texts: Vec<String> = row.into_iter().take(N).map(Option::unwrap_or_default).collect();
    texts.try_into().map_err(|_| {
        let message = format!("{what} has {count} columns, and {N} are known: this release of the server is not known");
        Error::new(ErrorKind::Unsupported, message)
    })
}
