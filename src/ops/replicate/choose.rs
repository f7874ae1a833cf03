//! Which backups: filters over what a repository lists, and what of the chosen ones the target may be sent.

use std::collections::HashMap;

use super::ReplicateOptions;
use super::sides::Sides;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{LineageId, ObjectHash};
use crate::repo::{BackupInfo, Repository};

/// Which of the listed backups; every filter that is given must let one pass. The default is all.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only these.
    pub backups: Vec<ObjectHash>,
    /// Only of lineages of these names.
    pub lineages: Vec<String>,
    /// Only with one of these tags.
    pub tags: Vec<String>,
    /// Only begun then or later.
    pub since: Option<Timestamp>,
    /// Of those that are left, the newest so many of each lineage.
    pub last: Option<usize>,
}

impl Selection {
    /// The chosen ones, in the order given: oldest first.
    pub(super) fn apply(&self, mut backups: Vec<BackupInfo>) -> Vec<BackupInfo> {
        backups.retain(|backup| {
            let summary = &backup.summary;
            (self.backups.is_empty() || self.backups.contains(&backup.id))
                && (self.lineages.is_empty() || self.lineages.contains(&summary.lineage_name))
                && (self.tags.is_empty() || summary.tags.iter().any(|tag| self.tags.contains(tag)))
                && self.since.is_none_or(|since| summary.started >= since)
        });
        if let Some(last) = self.last {
            let mut newer: HashMap<LineageId, usize> = HashMap::new();
            let mut kept: Vec<BackupInfo> = Vec::new();
            for backup in backups.into_iter().rev() {
                let count = newer.entry(backup.summary.lineage).or_default();
                *count += 1;
                if *count <= last {
                    kept.push(backup);
                }
            }
            kept.reverse();
            return kept;
        }
        backups
    }

    /// The same; fails if a backup asked for by its id is not listed.
    fn apply_to(&self, repository: &Repository) -> Result<Vec<BackupInfo>> {
        let listed = repository.backups();
        if let Some(unknown) = self.backups.iter().find(|id| !listed.iter().any(|backup| backup.id == **id)) {
            let message = format!("replicate backup {unknown}: {} does not list it", repository.location());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        Ok(self.apply(listed))
    }
}

/// Why a chosen backup was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The target had it once and forgot it; `--again` sends it.
    Forgotten,
    /// Part of it is damaged or missing at the origin.
    Damaged,
    /// Some of its packs are still to come, in other shards.
    Waiting,
    /// The origin forgot it while the run went on.
    Gone,
}

/// A chosen backup that was not sent.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Skipped {
    /// Its id.
    pub id: ObjectHash,
    /// Its lineage's name.
    pub lineage: String,
    /// Why.
    pub why: Why,
}

/// What is to be done about the chosen backups.
pub(super) struct Choice {
    /// To be sent, oldest first; where something is damaged at the target, also what it lists already.
    pub(super) wanted: Vec<BackupInfo>,
    /// So many are there.
    pub(super) present: u64,
    pub(super) skipped: Vec<Skipped>,
}

impl Choice {
    pub(super) fn make(sides: &Sides, options: &ReplicateOptions) -> Result<Self> {
        let state = sides.target.state();
        let suspect = sides.target_is_damaged();
        let mut choice = Self { wanted: Vec::new(), present: 0, skipped: Vec::new() };
        for backup in options.selection.apply_to(&sides.origin)? {
            let there = state.backups.get(&backup.id);
            if there.is_some_and(|there| there.forgotten.is_none()) {
                choice.present += 1;
                choice.wanted.extend(suspect.then_some(backup));
            } else if !options.again && (there.is_some() || state.purged.contains(&backup.id)) {
                let lineage = backup.summary.lineage_name.clone();
                choice.skipped.push(Skipped { id: backup.id, lineage, why: Why::Forgotten });
            } else {
                choice.wanted.push(backup);
            }
        }
        Ok(choice)
    }
}
