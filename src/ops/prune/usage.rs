//! What the backups need: every chunk that a listed backup names is marked in a snapshot of the index, and each pack is told how much of it
//! that is.
//!
//! Memory: one bit for each location, a few bytes for each pack, one id for each segment, and a batch of ids.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::Job;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::log_state::LogState;
use crate::format::pack::{RecordHeader, TableEntry};
use crate::id::{ChunkId, ObjectHash, ObjectName};
use crate::index::{Index, Marked, Marks, PackInfo};
use crate::pack::Location;
use crate::progress::{Event, Phase};
use crate::repo::{Ledger, REFRESH_EVERY, Reach, Repository, Session};

/// Ids marked at once: 32 MiB of them.
const BATCH: usize = 1 << 20;

/// How much of a pack is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PackUse {
    /// Bytes of records that are kept, with their place in the table.
    pub(super) kept_bytes: u64,
    pub(super) kept_chunks: u64,
    /// Bytes of records that are kept elsewhere as well.
    pub(super) spare_bytes: u64,
    /// It does not count, but holds a needed chunk that no live pack holds: damaged as it is, it may be the only copy.
    pub(super) is_last_hope: bool,
}

/// A pack of the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownPack {
    pub(super) info: PackInfo,
    /// Its locations count.
    pub(super) is_live: bool,
    /// A folded fragment names it.
    pub(super) is_named: bool,
    /// The last scrub found it damaged: a copy in it is no reason to let another go.
    pub(super) is_suspect: bool,
    pub(super) used: PackUse,
}

impl KnownPack {
    /// True if what lies in it may be relied on.
    pub(super) fn is_good(&self) -> bool {
        self.is_live && !self.is_suspect
    }
}

/// What the backups need, as found at one state of the log.
pub(super) struct Usage {
    marks: Marks,
    reach: Reach,
    /// Every pack that the index knows, by its number.
    pub(super) packs: Vec<KnownPack>,
    /// Live fragments with the numbers of their packs.
    pub(super) fragments: HashMap<ObjectName, Vec<u32>>,
    /// The backups that were listed.
    listed: HashSet<ObjectHash>,
    /// Their manifests, oldest first.
    pub(super) order: Vec<ObjectHash>,
    /// Manifests of forgotten backups.
    forgotten: Vec<ObjectName>,
    references: u64,
    missing: HashSet<ChunkId>,
    missing_count: u64,
    retired: HashSet<ObjectName>,
    quarantined: HashSet<ObjectName>,
}

/// Missing chunks remembered.
const MISSING_MOST: usize = 1 << 16;

impl Usage {
    /// Marks what the listed backups of `state` need, and adds it up.
    pub(super) async fn find(
        job: &Job<'_>,
        session: Option<&Session>,
        index: &Arc<Index>,
        state: &LogState,
    ) -> Result<Self> {
        let mut usage = Self {
            marks: index.marks(),
            reach: Reach::new(job.repository, index),
            packs: Vec::new(),
            fragments: index.fragment_packs(),
            listed: HashSet::new(),
            order: state.listed().iter().map(|backup| backup.manifest.hash).collect(),
            forgotten: state
                .backups
                .values()
                .filter(|backup| backup.forgotten.is_some())
                .map(|backup| backup.manifest)
                .collect(),
            references: 0,
            missing: HashSet::new(),
            missing_count: 0,
            retired: state.retired.keys().copied().collect(),
            quarantined: state.quarantined.keys().copied().collect(),
        };
        let items = usage.order.len() as u64;
        job.monitor.event(Event::Begin { phase: Phase::Planning, bytes: 0, items });
        let mut heard = Instant::now();
        let mut batch = Vec::with_capacity(BATCH);
        for id in usage.order.clone() {
            if job.monitor.cancelled() {
                return Err(Error::new(ErrorKind::Unavailable, "prune: stopped on request; nothing was changed"));
            }
            usage.mark_backup(job.repository, &id, &mut batch).await?;
            job.monitor.advance(0, 0, 1);
            if let Some(session) = session
                && heard.elapsed() >= REFRESH_EVERY
            {
                session.refresh().await?;
                heard = Instant::now();
            }
        }
        usage.mark_batch(&mut batch)?;
        drop(batch);
        usage.add_up(index, &job.repository.ledger().await?)?;
        job.monitor.event(Event::End { phase: Phase::Planning });
        Ok(usage)
    }

    async fn mark_backup(&mut self, repository: &Repository, id: &ObjectHash, batch: &mut Vec<ChunkId>) -> Result<()> {
        let unreadable = || {
            format!(
                "prune: what backup {id} needs cannot be read; nothing was changed; `everpack check` tells what is damaged, \
                 `everpack repair` heals it, or `everpack forget {id}` gives the backup up"
            )
        };
        let manifest = repository.manifest(id).await.context(unreadable)?;
        self.listed.insert(*id);
        let (marks, references) = (&mut self.marks, &mut self.references);
        let mut unknown = Vec::new();
        let visit = async |ids: &mut Vec<ChunkId>| {
            batch.append(ids);
            if batch.len() >= BATCH {
                let (count, nowhere) = marks.mark(batch)?;
                *references += count;
                unknown.extend(nowhere);
                batch.clear();
            }
            Ok(())
        };
        self.reach.visit(&manifest, visit).await.context(unreadable)?;
        self.note_missing(&unknown);
        Ok(())
    }

    fn mark_batch(&mut self, batch: &mut Vec<ChunkId>) -> Result<()> {
        let (count, unknown) = self.marks.mark(batch)?;
        self.references += count;
        self.note_missing(&unknown);
        batch.clear();
        Ok(())
    }

    fn note_missing(&mut self, ids: &[ChunkId]) {
        for id in ids {
            if self.missing.len() < MISSING_MOST {
                self.missing_count += u64::from(self.missing.insert(*id));
            } else {
                self.missing_count += u64::from(!self.missing.contains(id));
            }
        }
    }

    /// Decides for each needed chunk in which pack it is kept, and adds up.
    fn add_up(&mut self, index: &Index, ledger: &Ledger) -> Result<()> {
        let named: HashSet<u32> = self.fragments.values().flatten().copied().collect();
        let known = index.all_packs().into_iter().zip(0u32..);
        self.packs = known
            .map(|((info, is_live), number)| KnownPack {
                info,
                is_live,
                is_named: named.contains(&number),
                is_suspect: ledger.is_damaged(&info.name),
                used: PackUse::default(),
            })
            .collect();
        let packs = &mut self.packs;
        let mut lost = 0;
        self.marks.for_each(|chunk| {
            if !chunk.is_needed {
                return Ok(());
            }
            let known = |location: &&Location, good: bool| {
                packs.get(location.pack as usize).is_some_and(|pack| if good { pack.is_good() } else { pack.is_live })
            };
            let mut locations = chunk.locations.iter();
            let kept = locations.clone().find(|at| known(at, true)).or_else(|| locations.find(|at| known(at, false)));
            let is_kept = kept.is_some();
            for location in chunk.locations {
                let Some(pack) = packs.get_mut(location.pack as usize).filter(|pack| pack.is_live) else { continue };
                if kept == Some(location) {
                    pack.used.kept_bytes += weight(location);
                    pack.used.kept_chunks += 1;
                } else {
                    pack.used.spare_bytes += weight(location);
                }
            }
            if !is_kept {
                lost += 1;
                for location in chunk.locations {
                    if let Some(pack) = packs.get_mut(location.pack as usize) {
                        pack.used.is_last_hope = true;
                    }
                }
            }
            Ok(())
        })?;
        self.missing_count += lost;
        Ok(())
    }

    /// Every needed chunk that lies in live packs of `gone` and in no other good pack, with one of these locations; by ascending id.
    pub(super) fn only_in(&self, gone: &HashSet<u32>) -> Result<Vec<(ChunkId, Location)>> {
        let mut found = Vec::new();
        let pack = |location: &Location| self.packs.get(location.pack as usize);
        self.marks.for_each(|chunk| {
            let stays = |at: &Location| pack(at).is_some_and(KnownPack::is_good) && !gone.contains(&at.pack);
            if chunk.is_needed && !chunk.locations.iter().any(stays) {
                let goes = |at: &&Location| gone.contains(&at.pack);
                let good = chunk.locations.iter().filter(goes).find(|at| pack(at).is_some_and(KnownPack::is_good));
                let live = chunk.locations.iter().filter(goes).find(|at| pack(at).is_some_and(|pack| pack.is_live));
                found.extend(good.or(live).map(|location| (chunk.id, *location)));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Marks what backups need that were not listed when this was found; gives the chunks that were not needed then.
    pub(super) async fn mark_newly_listed(&mut self, repository: &Repository, state: &LogState) -> Result<Marked> {
        let mut all = Marked::default();
        for backup in state.listed() {
            let id = backup.manifest.hash;
            if !self.listed.insert(id) {
                continue;
            }
            let manifest = repository.manifest(&id).await?;
            let marks = &mut self.marks;
            let visit = async |ids: &mut Vec<ChunkId>| {
                let marked = marks.mark_more(ids)?;
                all.new.extend(marked.new);
                all.unknown.extend(marked.unknown);
                Ok(())
            };
            self.reach.visit(&manifest, visit).await?;
        }
        Ok(all)
    }

    /// True if what others retired or quarantined since makes the plan worthless.
    pub(super) fn is_overtaken_by(&self, state: &LogState) -> bool {
        state.retired.keys().any(|name| !self.retired.contains(name))
            || state.quarantined.keys().any(|name| !self.quarantined.contains(name))
            || {
                let live: HashSet<&ObjectName> = state.fragments.iter().map(|(_, name)| name).collect();
                self.fragments.keys().any(|name| !live.contains(name))
            }
    }

    /// Manifests of backups that were forgotten.
    pub(super) fn forgotten(&self) -> &[ObjectName] {
        &self.forgotten
    }

    /// Chunks named, those that several backups name in different segments more than once.
    pub(super) fn references(&self) -> u64 {
        self.references
    }

    /// Needed chunks that no live pack holds.
    pub(super) fn missing(&self) -> u64 {
        self.missing_count
    }
}

/// What a location takes of its pack.
pub(super) fn weight(location: &Location) -> u64 {
    u64::from(location.stored_len) + (RecordHeader::LEN + TableEntry::LEN) as u64
}
