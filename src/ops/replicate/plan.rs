//! Which packs of the origin hold what the target lacks, and which backups are whole at the target.
//!
//! Segment by segment, each distinct one once: its chunks are looked up at the target, what is not found there at the origin. Of a chunk
//! nothing is remembered; memory depends on the numbers of segments and packs. Segments of a backup that the target lists are whole there by
//! the invariant of its log and are not read (as a backup takes over its parent's entries), unless something there is damaged.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt};

use super::copy::Copier;
use super::sides::Sides;
use super::{blocking, stopped};
use crate::error::Result;
use crate::format::manifest::SegmentRef;
use crate::id::{ChunkId, LineageId, ObjectHash};
use crate::index::{Index, PackInfo};
use crate::progress::Monitor;
use crate::repo::{BackupInfo, Reach, Repository};

/// Segments read ahead: each is a small request.
const AHEAD: usize = 8;

/// Where a backup stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Every chunk of it is live at the target.
    Whole,
    /// Packs of the origin hold what is lacking.
    Coming,
    /// The origin does not list it any more.
    Gone,
    /// Something that it needs is nowhere.
    Lost(String),
}

/// What one look at both sides gave.
pub(super) struct Plan {
    /// Of each backup of the round.
    pub(super) fates: Vec<Fate>,
    /// Packs of the origin, by number, that hold what the target lacks.
    needed: BTreeSet<u32>,
    /// Packs of the target, by number, that look-ups answered from.
    pub(super) relied: HashSet<u32>,
    /// Backups of the target whose segments were taken for whole.
    pub(super) leaned: Vec<ObjectHash>,
}

impl Plan {
    /// Behind a backup that waits for other shards all wait, since backups are listed in the order in which they are committed.
    pub(super) fn keep_order(&mut self, mut waits: bool) {
        for fate in &mut self.fates {
            match fate {
                Fate::Coming => waits = true,
                Fate::Whole if waits => *fate = Fate::Coming,
                _ => {}
            }
        }
    }

    /// The packs that are still to be copied. One that was copied already and is needed again did not hold what the origin's index says, or
    /// does not count at the target: it is avoided from now on.
    pub(super) fn todo(&self, sides: &mut Sides, copier: &Copier, shard: Option<(u32, u32)>) -> Todo {
        let mut todo = Todo::default();
        for number in &self.needed {
            let Some(pack) = sides.from.pack(*number) else { continue };
            if shard.is_some_and(|(shard, shards)| shard_of(&pack.name.hash, shards) != shard) {
                continue;
            }
            if copier.has_sent(*number) {
                let why = "was copied, and the target still lacks chunks that the origin's index finds in it";
                sides.avoid(pack.name, why.to_owned());
                todo.avoided = true;
            } else {
                todo.packs.push((*number, pack));
            }
        }
        todo
    }
}

/// What a plan asks for.
#[derive(Debug, Default)]
pub(super) struct Todo {
    /// To be copied, with their numbers, oldest first.
    pub(super) packs: Vec<(u32, PackInfo)>,
    /// Some cannot be used: without them the plan is another one.
    pub(super) avoided: bool,
}

/// In which shard of so many a pack is, from 1.
pub(super) fn shard_of(hash: &ObjectHash, shards: u32) -> u32 {
    let (head, _) = hash.as_bytes().split_first_chunk::<4>().expect("a hash has 32 bytes");
    u32::from_le_bytes(*head) % shards + 1
}

/// What one segment needs.
#[derive(Debug, Default)]
struct Verdict {
    needed: BTreeSet<u32>,
    relied: HashSet<u32>,
    lost: Option<String>,
}

/// A segment's fate, for the backups that name it.
#[derive(Clone, Debug)]
enum Seen {
    Whole,
    Coming,
    Lost(String),
}

/// Looks at every segment of the round's backups on both sides.
pub(super) async fn make(sides: &mut Sides, round: &[BackupInfo], monitor: &Arc<dyn Monitor>) -> Result<Plan> {
    let mut plan = Plan { fates: Vec::new(), needed: BTreeSet::new(), relied: HashSet::new(), leaned: Vec::new() };
    let mut seen: HashMap<ChunkId, Seen> = HashMap::new();
    lean(sides, round, &mut plan, &mut seen).await;

    // Of each backup its segments, or why they are not known.
    let mut lists: Vec<std::result::Result<Vec<ChunkId>, Fate>> = Vec::with_capacity(round.len());
    let mut segments: Vec<SegmentRef> = Vec::new();
    let mut chosen: HashSet<ChunkId> = HashSet::new();
    for backup in round {
        sides.beat().await?;
        let listed = sides.origin.state().is_listed(&backup.id);
        if !listed {
            lists.push(Err(Fate::Gone));
            continue;
        }
        match sides.origin.manifest(&backup.id).await {
            Ok(manifest) => {
                lists.push(Ok(manifest.segments.iter().map(|segment| segment.chunk).collect()));
                let is_new = |segment: &SegmentRef| !seen.contains_key(&segment.chunk) && chosen.insert(segment.chunk);
                segments.extend(manifest.segments.into_iter().filter(is_new));
            }
            Err(error) if error.is_damage() => lists.push(Err(Fate::Lost(error.to_string()))),
            Err(error) => return Err(error),
        }
    }

    let (origin, from, to) = (sides.origin.clone(), Arc::clone(&sides.from), Arc::clone(&sides.to));
    let judged = stream::iter(segments)
        .map(|segment| {
            let (origin, from, to) = (origin.clone(), Arc::clone(&from), Arc::clone(&to));
            async move {
                let chunk = segment.chunk;
                Ok((chunk, judge(origin, from, to, segment).await?))
            }
        })
        .buffer_unordered(AHEAD);
    let mut judged = std::pin::pin!(judged);
    while let Some(one) = judged.next().await {
        let (chunk, verdict): (ChunkId, Verdict) = one?;
        if monitor.cancelled() {
            return Err(stopped());
        }
        sides.beat().await?;
        let fate = match verdict.lost {
            Some(what) => Seen::Lost(what),
            None if verdict.needed.is_empty() => Seen::Whole,
            None => Seen::Coming,
        };
        plan.needed.extend(verdict.needed);
        plan.relied.extend(verdict.relied);
        seen.insert(chunk, fate);
    }
    plan.fates = lists.into_iter().map(|list| list.map_or_else(|fate| fate, |list| fate_of(&list, &seen))).collect();
    Ok(plan)
}

/// A backup is as whole as the least whole of its segments.
fn fate_of(segments: &[ChunkId], seen: &HashMap<ChunkId, Seen>) -> Fate {
    let mut fate = Fate::Whole;
    for segment in segments {
        match seen.get(segment) {
            Some(Seen::Whole) => {}
            Some(Seen::Coming) => fate = Fate::Coming,
            Some(Seen::Lost(what)) => return Fate::Lost(what.clone()),
            None => return Fate::Lost(format!("segment {segment} of its list was not looked at")),
        }
    }
    fate
}

/// Takes the segments of the target's newest backups of these lineages for whole. One that cannot be read is of no help, that is all.
async fn lean(sides: &Sides, round: &[BackupInfo], plan: &mut Plan, seen: &mut HashMap<ChunkId, Seen>) {
    if sides.target_is_damaged() {
        return;
    }
    let lineages: HashSet<LineageId> = round.iter().map(|backup| backup.summary.lineage).collect();
    let mut newest: HashMap<LineageId, ObjectHash> = HashMap::new();
    for backup in sides.target.backups() {
        if lineages.contains(&backup.summary.lineage) {
            newest.insert(backup.summary.lineage, backup.id);
        }
    }
    for id in newest.into_values() {
        if let Ok(manifest) = sides.target.manifest(&id).await {
            plan.leaned.push(id);
            seen.extend(manifest.segments.into_iter().map(|segment| (segment.chunk, Seen::Whole)));
        }
    }
}

/// Looks every chunk of one segment up. A walk of its own: what another segment shares with it counts for both.
async fn judge(origin: Repository, from: Arc<Index>, to: Arc<Index>, segment: SegmentRef) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut reach = Reach::new(&origin, &from);
    let look = async |ids: &mut Vec<ChunkId>| {
        let ids = std::mem::take(ids);
        let (from, to) = (Arc::clone(&from), Arc::clone(&to));
        let found = blocking(move || look_up(ids, &from, &to)).await?;
        verdict.needed.extend(found.needed);
        verdict.relied.extend(found.relied);
        if verdict.lost.is_none() {
            verdict.lost = found.lost;
        }
        Ok(())
    };
    match reach.visit_segments(std::slice::from_ref(&segment), look).await {
        Ok(()) => {}
        // What it names is then unknown.
        Err(error) if error.is_damage() => verdict.lost = Some(error.to_string()),
        Err(error) => return Err(error),
    }
    Ok(verdict)
}

/// Looks a batch up at the target, and what is not there at the origin.
fn look_up(mut ids: Vec<ChunkId>, from: &Index, to: &Index) -> Result<Verdict> {
    ids.sort_unstable();
    ids.dedup();
    let mut verdict = Verdict::default();
    let mut lacking = Vec::new();
    for (id, location) in ids.iter().zip(to.lookup(&ids)?) {
        match location {
            Some(location) => drop(verdict.relied.insert(location.pack)),
            None => lacking.push(*id),
        }
    }
    for (id, location) in lacking.iter().zip(from.lookup(&lacking)?) {
        match location {
            Some(location) => drop(verdict.needed.insert(location.pack)),
            None => {
                verdict.lost = Some(format!("chunk {id} is in no pack of the origin that can be used"));
            }
        }
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pack_is_in_exactly_one_shard() {
        for n in 0..200u8 {
            let hash = ObjectHash::from_bytes([n; 32]);
            for shards in [1, 2, 7] {
                assert!((1..=shards).contains(&shard_of(&hash, shards)));
            }
        }
        let spread: HashSet<u32> = (0..200u8).map(|n| shard_of(&ObjectHash::from_bytes([n; 32]), 7)).collect();
        assert_eq!(spread.len(), 7);
    }

    #[test]
    fn no_backup_is_committed_before_an_older_one_that_waits() {
        let lost = || Fate::Lost("gone".to_owned());
        let fates = vec![Fate::Whole, lost(), Fate::Whole, Fate::Coming, Fate::Whole, Fate::Gone];
        let (needed, relied) = (BTreeSet::new(), HashSet::new());
        let mut plan = Plan { fates: fates.clone(), needed, relied, leaned: Vec::new() };
        plan.keep_order(false);
        assert_eq!(plan.fates, [Fate::Whole, lost(), Fate::Whole, Fate::Coming, Fate::Coming, Fate::Gone]);
        plan.fates = fates;
        plan.keep_order(true);
        assert_eq!(plan.fates, [Fate::Coming, lost(), Fate::Coming, Fate::Coming, Fate::Coming, Fate::Gone]);
    }

    #[test]
    fn a_backup_is_as_whole_as_its_worst_segment() {
        let id = |n: u8| ChunkId::from_bytes([n; 32]);
        let seen = HashMap::from([(id(1), Seen::Whole), (id(2), Seen::Coming), (id(3), Seen::Lost("gone".to_owned()))]);
        assert_eq!(fate_of(&[], &seen), Fate::Whole);
        assert_eq!(fate_of(&[id(1)], &seen), Fate::Whole);
        assert_eq!(fate_of(&[id(2), id(1)], &seen), Fate::Coming);
        assert_eq!(fate_of(&[id(2), id(3)], &seen), Fate::Lost("gone".to_owned()));
        assert!(matches!(fate_of(&[id(4)], &seen), Fate::Lost(_)), "what nobody looked at is not whole");
    }
}
