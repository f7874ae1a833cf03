//! The entry after which nobody uses what goes.
//!
//! Rule *revalidate-retire*: the plan was made for an older state of the log. Just before the entry, in the state that it follows: backups that
//! were committed or came back since may need a chunk of a pack that goes, then that pack stays; and where another prune retired
//! something, or a pack was found damaged, the plan is given up.
//!
//! Rule *close-before-wait*: the same entry closes our session, so two prunes never wait for each other.

use std::collections::HashSet;

use super::fragments::Merged;
use super::usage::KnownPack;
use super::{Job, Planned, PruneReport};
use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::ObjectName;
use crate::index::catch_up;
use crate::repo::{Rule, Session, Sunk};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Retired,
    /// The plan was overtaken; nothing was changed.
    Stale,
}

/// How much an entry retires.
#[derive(Clone, Copy, Debug, Default)]
struct Retired {
    objects: u64,
    bytes: u64,
    manifests: u64,
}

/// What is going to be said.
struct Sentence<'a> {
    job: &'a Job<'a>,
    planned: Planned,
    sunk: &'a Sunk,
    merged: Merged,
    gone: HashSet<u32>,
}

/// Retires.
pub(super) async fn run(
    job: &Job<'_>,
    session: &Session,
    planned: Planned,
    sunk: Sunk,
    merged: Merged,
    report: &mut PruneReport,
) -> Result<Outcome> {
    let gone = planned.chosen.gone();
    let mut sentence = Sentence { job, planned, sunk: &sunk, merged, gone };
    let mut is_stale = false;
    let mut retired = Retired::default();
    let said = job
        .repository
        .spend_ballast(async || {
            session
                .say(async |state| {
                    is_stale = !sentence.revalidate(state).await?;
                    if is_stale {
                        return Err(Error::new(ErrorKind::Busy, "prune: another prune was faster"));
                    }
                    let (record, counts) = sentence.record(state);
                    retired = counts;
                    let mut records = vec![record];
                    if job.repository.keeps(Rule::CloseBeforeWait) {
                        records.extend(session.closing_records(state).await?);
                    }
                    Ok(records)
                })
                .await
        })
        .await;
    match said {
        Ok(()) => {
            report.objects_retired += retired.objects;
            report.bytes_retired += retired.bytes;
            report.backups_purged += retired.manifests;
            Ok(Outcome::Retired)
        }
        Err(_) if is_stale => {
            sunk.discard(job.repository).await;
            Ok(Outcome::Stale)
        }
        // Whether the entry is there is not known if no answer came: what it may name stays.
        Err(error) => Err(error),
    }
}

impl Sentence<'_> {
    /// Makes what goes right for this state; false if it cannot be.
    async fn revalidate(&mut self, state: &LogState) -> Result<bool> {
        let repository = self.job.repository;
        if !repository.keeps(Rule::RevalidateRetire) {
            return Ok(true);
        }
        if self.planned.usage.is_overtaken_by(state) {
            return Ok(false);
        }
        // What new backups stored themselves is found by an index that knows it; the marks know what was there before.
        let index = repository.opened_index().await?;
        catch_up(&index, repository.store(), state, &[]).await?;
        let needed = self.planned.usage.mark_newly_listed(repository, state).await?;
        let packs = &self.planned.usage.packs;
        let moved: HashSet<_> =
            self.sunk.fragments.iter().flat_map(|(_, fragment)| &fragment.entries).map(|entry| entry.id).collect();
        for (id, locations) in needed.new {
            let is_good = |number: u32| packs.get(number as usize).is_some_and(KnownPack::is_good);
            let stays = locations.iter().any(|at| is_good(at.pack) && !self.gone.contains(&at.pack));
            if !stays && !moved.contains(&id) {
                // All its packs: which of them is the best one is for the next prune to say.
                for at in locations {
                    self.gone.remove(&at.pack);
                }
            }
        }
        Ok(true)
    }

    /// Manifests of backups that were forgotten, and still are.
    fn manifests(&self, state: &LogState) -> Vec<ObjectName> {
        let keeps = self.job.repository.keeps(Rule::RevalidateRetire);
        let is_forgotten = |name: &&ObjectName| {
            state
                .backups
                .get(&name.hash)
                .is_some_and(|backup| backup.manifest == **name && (backup.forgotten.is_some() || !keeps))
        };
        self.planned.usage.forgotten().iter().filter(is_forgotten).copied().collect()
    }

    /// What is said in this state, and how much that is.
    fn record(&mut self, state: &LogState) -> (Record, Retired) {
        // A fragment that names a pack which stays after all, stays.
        let planned_gone = self.planned.chosen.gone();
        let gone = &self.gone;
        let stays = |number: &u32| planned_gone.contains(number) && !gone.contains(number);
        self.merged.superseded.retain(|(_, packs)| !packs.iter().any(stays));
        let superseded: Vec<ObjectName> = self.merged.superseded.iter().map(|(name, _)| *name).collect();
        let added =
            self.sunk.fragments.iter().map(|(name, _)| *name).chain(self.merged.added.iter().copied()).collect();

        let packs = self.gone.iter().map(|number| self.planned.usage.packs[*number as usize].info);
        let packs = packs.map(|info| (info.name, info.size));
        let (mut objects, sizes): (Vec<ObjectName>, Vec<u64>) =
            packs.chain(self.planned.chosen.orphans.iter().copied()).unzip();
        objects.sort_unstable();
        let manifests = self.manifests(state);
        let retired = Retired {
            objects: (objects.len() + manifests.len() + superseded.len()) as u64,
            bytes: sizes.iter().sum(),
            manifests: manifests.len() as u64,
        };
        objects.extend(manifests);
        (Record::ObjectsRetired { objects, superseded, added }, retired)
    }
}
