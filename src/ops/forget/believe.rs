//! Whose date is believed. Pure. The reasons are in docs/decisions/0008-dates-in-retention.md.
//!
//! A backup says itself when it began, so a wrong clock or a hostile client can say anything. What nobody can choose is the place in the log,
//! and that the store wrote the commit's entry when it did, or later, if the repository was copied since.
//!
//! Invariant: whether a date is believed depends on nothing but backups before it that are believed themselves. So one whose date is not believed
//! changes nothing for any other.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::{ObjectHash, SessionId};

/// Clocks that differ by less than this count as the same.
pub(super) const TOLERANCE: Duration = Duration::from_secs(3600);

/// What the rules look at in a backup.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: ObjectHash,
    pub(super) entry: u64,
    /// Who wrote it.
    pub(super) session: SessionId,
    /// What it says itself.
    pub(super) started: Timestamp,
    /// When the store wrote the entry that committed it.
    pub(super) committed: Option<Timestamp>,
    pub(super) partial: bool,
    pub(super) tags: Vec<String>,
    pub(super) held_until: Option<Timestamp>,
}

/// Why a backup's date is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The store does not tell when its log entry was written.
    NoStoreTime,
    /// It says to have begun after the store wrote its log entry.
    AfterItsEntry(Timestamp),
    /// It says to have begun in the future.
    InTheFuture,
    /// It says to have begun before a backup that came before it.
    BeforeAnEarlierOne(Timestamp),
}

impl Doubt {
    pub(super) fn text(self, show: fn(Timestamp) -> String) -> String {
        match self {
            Self::NoStoreTime => "the store does not tell when it was committed".to_owned(),
            Self::AfterItsEntry(time) => format!("later than its own commit at {}", show(time)),
            Self::InTheFuture => "in the future".to_owned(),
            Self::BeforeAnEarlierOne(time) => format!("earlier than that of a backup made before it, {}", show(time)),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Timestamp::to_local))
    }
}

impl serde::Serialize for Doubt {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text(Timestamp::to_rfc3339))
    }
}

/// Puts a group in the order in which it was made: that of the log; what one session committed without another in between (a replication
/// brings many at once), by its own dates.
pub(super) fn in_order(group: Vec<Candidate>) -> Vec<Candidate> {
    let mut group = group;
    group.sort_by_key(|backup| (backup.entry, backup.started, backup.id));
    let mut ordered = Vec::with_capacity(group.len());
    let mut rest = VecDeque::from(group);
    while let Some(first) = rest.pop_front() {
        let mut run = vec![first];
        while let Some(next) = rest.pop_front_if(|next| next.session == run[0].session) {
            run.push(next);
        }
        run.sort_by_key(|backup| (backup.started, backup.entry, backup.id));
        ordered.append(&mut run);
    }
    ordered
}

/// For each backup of a group in order: what speaks against its date.
pub(super) fn doubts(group: &[Candidate], now: Timestamp) -> Vec<Option<Doubt>> {
    let mut last: Option<Timestamp> = None;
    let is_after = |time: Timestamp, bound: Timestamp| time.since(bound) > TOLERANCE;
    let doubt_of = |backup: &Candidate| {
        let doubt = match (backup.committed, last) {
            (None, _) => Some(Doubt::NoStoreTime),
            (Some(committed), _) if is_after(backup.started, committed) => Some(Doubt::AfterItsEntry(committed)),
            _ if is_after(backup.started, now) => Some(Doubt::InTheFuture),
            (_, Some(last)) if backup.started < last => Some(Doubt::BeforeAnEarlierOne(last)),
            _ => None,
        };
        if doubt.is_none() {
            last = Some(backup.started);
        }
        doubt
    };
    group.iter().map(doubt_of).collect()
}
