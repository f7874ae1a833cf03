//! Forget: backups leave the list. Unforget: they come back. Hold and release: a backup that nothing may forget until a time.
//!
//! - [`believe`]: whose date the rules believe.
//! - [`policy`]: what the rules keep of a group.
//! - [`mod@decide`]: what goes, against one state of the log.
//! - [`mod@hold`], [`mod@unforget`]: the other verbs.
//! - [`clocks`]: what time it is.
//!
//! Forgetting frees nothing; `prune` does. Each verb is one entry of the log, decided against the very state that the entry follows: whoever
//! held, forgot or pruned meanwhile is respected. If we crash here: the entry is there or it is not.
//!
//! Safe to run concurrently with: everything. A backup that is running relies on its parent until its commit, and notices there that it was
//! forgotten (rule *revalidate-parent*).

mod believe;
mod clocks;
mod decide;
mod hold;
mod policy;
#[cfg(test)]
mod tests;
mod unforget;
#[cfg(test)]
mod unforget_tests;

pub use believe::Doubt;
pub use hold::{HoldReport, ReleaseReport, Until, hold, release};
pub use policy::{Policy, Reason};
pub use unforget::{UnforgetReport, unforget};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::format::log_record::Record;
use crate::format::log_state::{BackupState, LogState};
use crate::id::ObjectHash;
use crate::repo::Repository;
use clocks::{Clocks, EntryTimes};
use decide::Decided;

/// Backups named in one record; more make more records of the same entry.
const IDS_MAX: usize = 65_536;
/// A reason is a line, not a letter.
const REASON_LEN_MAX: usize = 1000;

/// Which backups count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// Those of a lineage.
    #[default]
    Lineage,
    /// Those of a lineage with the same tags.
    LineageAndTags,
}

/// Rules, and what they are about.
#[derive(Clone, Debug, Default)]
pub struct ForgetPolicy {
    /// What stays.
    pub keep: Policy,
    /// Only these lineages; empty for all.
    pub lineages: Vec<String>,
    /// Only backups with one of these tags; empty for all.
    pub tags: Vec<String>,
    /// Which backups count together.
    pub group_by: GroupBy,
    /// Backups whose date is doubtful go as well, unless they are held, tagged, or among the last in the log.
    pub doubtful: bool,
    /// It may happen that nothing of a group is left.
    pub keep_none: bool,
}

impl ForgetPolicy {
    fn validate(&self) -> Result<()> {
        if self.keep.is_empty() && !self.keep_none {
            return Err(Error::invalid(
                "forget: name backups, or say what to keep, for example --keep-daily 14 --keep-monthly 12",
            ));
        }
        if self.keep.counts().any(|count| count == 0) {
            return Err(Error::invalid("forget: a rule that keeps 0 backups keeps nothing: leave it out"));
        }
        if self.keep_none && self.lineages.is_empty() && self.tags.is_empty() {
            return Err(Error::invalid(
                "forget: --keep-none goes with --lineage or --tag: it does not empty a repository",
            ));
        }
        Ok(())
    }
}

/// What is to be forgotten.
#[derive(Clone, Debug)]
pub enum Which {
    /// These backups.
    Named(Vec<ObjectHash>),
    /// What the rules do not keep.
    ByPolicy(ForgetPolicy),
}

/// How it is done.
#[derive(Clone, Debug)]
pub struct ForgetOptions {
    /// What.
    pub which: Which,
    /// Kept in the log, for people.
    pub reason: String,
    /// Only tell.
    pub dry_run: bool,
}

/// What becomes of one backup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Decision {
    /// Which.
    pub id: ObjectHash,
    /// The log entry that committed it.
    pub entry: u64,
    /// When it says that it began.
    pub started: Timestamp,
    /// Its lineage's name.
    pub lineage_name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// It goes.
    pub forget: bool,
    /// Why it stays.
    pub kept_by: Vec<Reason>,
    /// Why its date is not believed, if rules were asked and do not believe it.
    pub doubt: Option<Doubt>,
}

impl Decision {
    fn new(backup: &BackupState, forget: bool) -> Self {
        let BackupState { manifest, entry, summary, .. } = backup;
        Self {
            id: manifest.hash,
            entry: *entry,
            started: summary.started,
            lineage_name: summary.lineage_name.clone(),
            tags: summary.tags.clone(),
            forget,
            kept_by: Vec::new(),
            doubt: None,
        }
    }
}

/// What was, or with a dry run would be, forgotten.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ForgetReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Each backup that was looked at, by lineage, in the order of the log.
    pub decisions: Vec<Decision>,
    /// How many stay.
    pub kept: u64,
    /// How many go.
    pub forgotten: u64,
    /// How many have a date that is not believed.
    pub doubtful: u64,
    /// The log entry that forgot them.
    pub entry: Option<u64>,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
}

/// Forgets backups: named ones, or what a policy does not keep. All of them or, after an error, none.
///
/// Rules believe a backup's own date only where log and store do not contradict it (docs/decisions/0008-dates-in-retention.md).
pub async fn forget(repository: &Repository, options: &ForgetOptions) -> Result<ForgetReport> {
    if let Which::ByPolicy(policy) = &options.which {
        policy.validate()?;
    }
    if options.reason.len() > REASON_LEN_MAX {
        return Err(Error::invalid(format!("forget: the reason is longer than {REASON_LEN_MAX} bytes")));
    }
    repository.refresh().await?;
    let mut remarks = Vec::new();
    let clocks = match Clocks::read(repository).await {
        Err(error) if options.dry_run => {
            remarks.push(format!("the store did not tell the time ({error}); only this machine's clock was used"));
            Clocks::local(repository)
        }
        clocks => clocks?,
    };
    remarks.extend(clocks.remark());
    let mut times = EntryTimes::default();
    let mut decided = Decided::default();
    let mut entry = None;
    if options.dry_run {
        decided = decide(repository, &repository.state(), options, &clocks, &mut times).await?;
    } else {
        let say = async |state: &LogState| {
            decided = decide(repository, state, options, &clocks, &mut times).await?;
            let records = records(&decided, &options.reason);
            entry = (!records.is_empty()).then_some(state.head + 1);
            Ok(records)
        };
        repository.say(say).await?;
    }
    let Decided { decisions, remarks: more } = decided;
    remarks.extend(more);
    let count = |wanted: fn(&Decision) -> bool| decisions.iter().filter(|decision| wanted(decision)).count() as u64;
    Ok(ForgetReport {
        dry_run: options.dry_run,
        kept: count(|decision| !decision.forget),
        forgotten: count(|decision| decision.forget),
        doubtful: count(|decision| decision.doubt.is_some()),
        decisions,
        entry,
        remarks,
    })
}

async fn decide(
    repository: &Repository,
    state: &LogState,
    options: &ForgetOptions,
    clocks: &Clocks,
    times: &mut EntryTimes,
) -> Result<Decided> {
    match &options.which {
        Which::Named(ids) => decide::by_name(state, ids, clocks.earlier()),
        Which::ByPolicy(policy) => {
            times.catch_up(repository, state).await?;
            decide::by_policy(state, policy, |entry| times.of(entry), clocks.earlier())
        }
    }
}

fn records(decided: &Decided, reason: &str) -> Vec<Record> {
    let ids: Vec<ObjectHash> =
        decided.decisions.iter().filter(|decision| decision.forget).map(|decision| decision.id).collect();
    let record = |ids: &[ObjectHash]| Record::BackupsForgotten { backups: ids.to_vec(), reason: reason.to_owned() };
    ids.chunks(IDS_MAX).map(record).collect()
}
