//! Do both sides hold the same? Compared by roots over backups and over the chunks that they reach, without moving data.
//!
//! Retention differs per repository and each prunes by itself, so packs may differ while the backups are the same: the root over packs is
//! for information. What one side forgot itself is no difference.
//!
//! Safe to run concurrently with: everything. No difference is reported before a refresh shows that neither log has moved.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choose::Selection;
use super::roots::Roots;
use super::{Sent, blocking, check_family, stopped};
use crate::error::Result;
use crate::format::log_state::LogState;
use crate::id::{ChunkId, ObjectHash, RepositoryId};
use crate::index::Index;
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{BackupInfo, Reach, Repository};

/// Both sides are read again when a log moved on while something differed; at most so often.
const ATTEMPTS: usize = 4;
/// Chunks that are missing, by name.
const MISSING_NAMES: usize = 100;

/// A set on both sides.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SetProof {
    /// The roots are the same.
    pub equal: bool,
    /// How many at the origin.
    pub origin_count: u64,
    /// How many at the target.
    pub target_count: u64,
    /// Root of the origin's.
    pub origin_root: ObjectHash,
    /// Root of the target's.
    pub target_root: ObjectHash,
    /// First bytes of ids under which the two differ.
    pub differing: Vec<u8>,
}

impl SetProof {
    fn of(origin: &Roots, target: &Roots) -> Self {
        let (origin_root, target_root) = (origin.root(), target.root());
        Self {
            equal: origin_root == target_root,
            origin_count: origin.count(),
            target_count: target.count(),
            origin_root,
            target_root,
            differing: origin.differing(target),
        }
    }
}

/// Which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Where the backups come from.
    Origin,
    /// Where they go.
    Target,
}

/// Something that a side ought to hold and does not.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Missing {
    /// Where it is missing.
    pub side: Side,
    /// The first backup that needs it.
    pub backup: ObjectHash,
    /// What.
    pub what: String,
}

/// What a proof found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ProveReport {
    /// The origin.
    pub origin: RepositoryId,
    /// The place of it.
    pub origin_location: String,
    /// The target.
    pub target: RepositoryId,
    /// The place of it.
    pub target_location: String,
    /// Both hold the same backups, and each has every chunk of them.
    pub equal: bool,
    /// Ids of the chosen backups.
    pub backups: SetProof,
    /// Chunks of the backups that both list, each as often as their distinct segments and piece lists name it.
    pub chunks: SetProof,
    /// Hashes of live packs: each side prunes by itself, so they may differ.
    pub packs: SetProof,
    /// Chosen backups that only the origin lists.
    pub only_origin: Vec<Sent>,
    /// Chosen backups that only the target lists, and that the origin never had.
    pub only_target: Vec<Sent>,
    /// Chosen backups that the target had and forgot: no difference.
    pub forgotten: u64,
    /// Chunks and lists that are missing on a side; at most a hundred.
    pub missing: Vec<Missing>,
    /// How many there were.
    pub missing_count: u64,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// Compares the chosen backups of two repositories of one family.
pub async fn prove(
    origin: &Repository,
    target: &Repository,
    selection: &Selection,
    monitor: Arc<dyn Monitor>,
) -> Result<ProveReport> {
    let begun = Instant::now();
    check_family(origin, target)?;
    monitor.event(Event::Begin { phase: Phase::Opening, bytes: 0, items: 0 });
    origin.refresh().await?;
    target.refresh().await?;
    let mut attempt = 1;
    loop {
        let heads = (origin.state().head, target.state().head);
        let mut report = compare(origin, target, selection, &monitor).await?;
        if report.equal || attempt == ATTEMPTS {
            report.duration = begun.elapsed();
            return Ok(report);
        }
        attempt += 1;
        origin.refresh().await?;
        target.refresh().await?;
        if heads == (origin.state().head, target.state().head) {
            report.duration = begun.elapsed();
            return Ok(report);
        }
    }
}

async fn compare(
    origin: &Repository,
    target: &Repository,
    selection: &Selection,
    monitor: &Arc<dyn Monitor>,
) -> Result<ProveReport> {
    let indexes = [open(origin).await?, open(target).await?];
    let sets = Sets::of(origin, target, selection);
    let expected = Roots::of(sets.expected.iter().map(|backup| backup.id.as_bytes()));
    let common: Vec<&BackupInfo> = sets.expected.iter().filter(|backup| lists(&target.state(), &backup.id)).collect();
    let there = common.iter().copied().chain(&sets.strangers).map(|backup| backup.id.as_bytes());
    let backups = SetProof::of(&expected, &Roots::of(there));

    let items = common.iter().map(|backup| backup.summary.totals.files).sum();
    monitor.event(Event::Begin { phase: Phase::Checking, bytes: 0, items });
    let mut walk = Walk::new(indexes.clone());
    for backup in &common {
        if monitor.cancelled() {
            return Err(stopped());
        }
        walk.visit(origin, target, &backup.id).await?;
        monitor.advance(0, 0, backup.summary.totals.files);
    }
    monitor.event(Event::End { phase: Phase::Checking });
    let chunks = SetProof::of(&walk.roots[0], &walk.roots[1]);
    let packs = indexes.each_ref().map(|index| pack_roots(index));
    let name = |backup: &BackupInfo| Sent { id: backup.id, lineage: backup.summary.lineage_name.clone() };
    let only_origin = sets.expected.iter().filter(|backup| !lists(&target.state(), &backup.id)).map(name).collect();
    Ok(ProveReport {
        origin: origin.id(),
        origin_location: origin.location(),
        target: target.id(),
        target_location: target.location(),
        equal: backups.equal && chunks.equal && walk.missing_count == 0,
        backups,
        chunks,
        packs: SetProof::of(&packs[0], &packs[1]),
        only_origin,
        only_target: sets.strangers.iter().map(name).collect(),
        forgotten: sets.forgotten,
        missing: walk.missing,
        missing_count: walk.missing_count,
        duration: Duration::ZERO,
    })
}

/// The index, without packs that the store does not have.
async fn open(repository: &Repository) -> Result<Arc<Index>> {
    let (index, _) = repository.caught_up_index().await?;
    repository.leave_out_bad_packs(&index).await?;
    Ok(index)
}

fn lists(state: &LogState, id: &ObjectHash) -> bool {
    state.backups.get(id).is_some_and(|backup| backup.forgotten.is_none())
}

/// True if the repository lists it, or once did.
fn knows(state: &LogState, id: &ObjectHash) -> bool {
    state.backups.contains_key(id) || state.purged.contains(id)
}

struct Sets {
    /// What the target ought to list.
    expected: Vec<BackupInfo>,
    /// What only the target ever had.
    strangers: Vec<BackupInfo>,
    /// What the target dropped.
    forgotten: u64,
}

impl Sets {
    fn of(origin: &Repository, target: &Repository, selection: &Selection) -> Self {
        let (ours, theirs) = (origin.state(), target.state());
        let mut expected = selection.apply(origin.backups());
        let chosen = expected.len();
        expected.retain(|backup| lists(&theirs, &backup.id) || !knows(&theirs, &backup.id));
        let mut strangers = selection.apply(target.backups());
        strangers.retain(|backup| !knows(&ours, &backup.id));
        Self { forgotten: (chosen - expected.len()) as u64, expected, strangers }
    }
}

fn pack_roots(index: &Index) -> Roots {
    let hashes: HashSet<ObjectHash> = index.live_packs().into_iter().map(|pack| pack.name.hash).collect();
    Roots::of(hashes.iter().map(ObjectHash::as_bytes))
}

/// Looks every chunk of the common backups up on both sides. Lists are read at the origin: their ids prove them.
struct Walk {
    indexes: [Arc<Index>; 2],
    roots: [Roots; 2],
    missing: Vec<Missing>,
    missing_count: u64,
    reach: Option<Reach>,
}

impl Walk {
    fn new(indexes: [Arc<Index>; 2]) -> Self {
        Self { indexes, roots: [Roots::new(), Roots::new()], missing: Vec::new(), missing_count: 0, reach: None }
    }

    fn miss(&mut self, side: Side, backup: &ObjectHash, what: String) {
        self.missing_count += 1;
        if self.missing.len() < MISSING_NAMES {
            self.missing.push(Missing { side, backup: *backup, what });
        }
    }

    async fn visit(&mut self, origin: &Repository, target: &Repository, id: &ObjectHash) -> Result<()> {
        let mut manifests = Vec::new();
        for (side, repository) in [(Side::Origin, origin), (Side::Target, target)] {
            match repository.manifest(id).await {
                Ok(manifest) => manifests.push(manifest),
                Err(error) if error.is_damage() => self.miss(side, id, error.to_string()),
                Err(error) => return Err(error),
            }
        }
        // Both were verified by the id: either will do.
        let Some(manifest) = manifests.pop() else { return Ok(()) };
        let mut reach = self.reach.take().unwrap_or_else(|| Reach::new(origin, &self.indexes[0]));
        let walked = reach
            .visit(&manifest, async |ids: &mut Vec<ChunkId>| {
                let ids = std::mem::take(ids);
                let indexes = self.indexes.clone();
                let (ids, found) = blocking(move || {
                    let found = [indexes[0].lookup(&ids)?, indexes[1].lookup(&ids)?];
                    Ok((ids, found))
                })
                .await?;
                for (at, side) in [Side::Origin, Side::Target].into_iter().enumerate() {
                    for (chunk, location) in ids.iter().zip(&found[at]) {
                        match location {
                            Some(_) => self.roots[at].add(chunk.as_bytes()),
                            None => self.miss(side, id, format!("chunk {chunk}")),
                        }
                    }
                }
                Ok(())
            })
            .await;
        match walked {
            Ok(()) => self.reach = Some(reach),
            // What stands behind it was not compared, and the next backup that shares it is looked at anew.
            Err(error) if error.is_damage() => self.miss(Side::Origin, id, error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
