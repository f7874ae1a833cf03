//! What goes and what stays, decided against one state of the log. Pure.

use std::collections::BTreeMap;

use super::believe::{Candidate, doubts, in_order};
use super::policy::judge;
use super::{Decision, ForgetPolicy, GroupBy};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::format::log_state::{BackupState, LogState};
use crate::id::ObjectHash;

/// What was decided.
#[derive(Debug, Default)]
pub(super) struct Decided {
    pub(super) decisions: Vec<Decision>,
    pub(super) remarks: Vec<String>,
}

/// Decides about backups that the user named.
pub(super) fn by_name(state: &LogState, ids: &[ObjectHash], now: Timestamp) -> Result<Decided> {
    let mut decided = Decided::default();
    for id in ids {
        let Some(backup) = state.backups.get(id) else {
            return Err(not_there(state, "forget", id));
        };
        if let Some(entry) = backup.forgotten {
            decided.remarks.push(format!("backup {id} is forgotten already, by log entry {entry}"));
            continue;
        }
        if let Some(until) = backup.held_until.filter(|until| *until > now) {
            let message = format!(
                "forget backup {id}: it is held until {}; nothing was forgotten. `everpack release {id}` ends the hold",
                until.to_local()
            );
            return Err(Error::invalid(message));
        }
        if !decided.decisions.iter().any(|decision| decision.id == *id) {
            decided.decisions.push(Decision::new(backup, true));
        }
    }
    Ok(decided)
}

/// Decides by rules; `committed` tells when the store wrote an entry.
pub(super) fn by_policy(
    state: &LogState,
    policy: &ForgetPolicy,
    committed: impl Fn(u64) -> Option<Timestamp>,
    now: Timestamp,
) -> Result<Decided> {
    let mut decided = Decided::default();
    for wanted in &policy.lineages {
        if !state.backups.values().any(|backup| backup.forgotten.is_none() && backup.summary.lineage_name == *wanted) {
            decided.remarks.push(format!("no backup of lineage {wanted:?}; `everpack list` shows what there is"));
        }
    }
    for group in groups(state, policy) {
        let candidates = group.iter().map(|backup| candidate(backup, &committed)).collect();
        let candidates = in_order(candidates);
        let doubts = doubts(&candidates, now);
        let reasons = judge(&policy.keep, &candidates, &doubts, !policy.doubtful, now);
        if !policy.keep_none && reasons.iter().all(Vec::is_empty) {
            return Err(would_keep_nothing(&group));
        }
        for ((candidate, doubt), reasons) in candidates.iter().zip(doubts).zip(reasons) {
            let Some(backup) = state.backups.get(&candidate.id) else { continue };
            let decision = Decision::new(backup, reasons.is_empty());
            decided.decisions.push(Decision { kept_by: reasons, doubt, ..decision });
        }
    }
    Ok(decided)
}

/// The listed backups that the policy is about, by lineage and tags, in the order of the lineages' names.
fn groups<'a>(state: &'a LogState, policy: &ForgetPolicy) -> Vec<Vec<&'a BackupState>> {
    let mut groups: BTreeMap<_, Vec<&BackupState>> = BTreeMap::new();
    for backup in state.listed() {
        let summary = &backup.summary;
        let is_meant = (policy.lineages.is_empty() || policy.lineages.contains(&summary.lineage_name))
            && (policy.tags.is_empty() || policy.tags.iter().any(|tag| summary.tags.contains(tag)));
        if !is_meant {
            continue;
        }
        let mut tags = match policy.group_by {
            GroupBy::Lineage => Vec::new(),
            GroupBy::LineageAndTags => summary.tags.clone(),
        };
        tags.sort_unstable();
        tags.dedup();
        // The id is what the lock of a lineage and its parents go by.
        groups.entry((summary.lineage_name.clone(), summary.lineage, tags)).or_default().push(backup);
    }
    groups.into_values().collect()
}

fn candidate(backup: &BackupState, committed: impl Fn(u64) -> Option<Timestamp>) -> Candidate {
    Candidate {
        id: backup.manifest.hash,
        entry: backup.entry,
        session: backup.manifest.session,
        started: backup.summary.started,
        committed: committed(backup.entry),
        partial: backup.summary.partial,
        tags: backup.summary.tags.clone(),
        held_until: backup.held_until,
    }
}

fn would_keep_nothing(group: &[&BackupState]) -> Error {
    let lineage = group.first().map_or("", |backup| backup.summary.lineage_name.as_str());
    let message = format!(
        "forget by rules: they keep none of the {} backups chosen of lineage {lineage:?}; nothing was forgotten. If that is meant, say \
         --keep-none",
        group.len()
    );
    Error::invalid(message)
}

/// The backup is not in the state: pruned, or never there.
pub(super) fn not_there(state: &LogState, act: &str, id: &ObjectHash) -> Error {
    let why = match state.purged.contains(id) {
        true => "it was forgotten and pruned: it is gone for good",
        false => "the log does not know it; `everpack list` shows what there is",
    };
    Error::new(ErrorKind::NotFound, format!("{act} backup {id}: {why}"))
}
