//! Which files of which backups a damage touches: a second walk, made only where something is lost.
//!
//! Each distinct segment is read once; what is touched in it is then named for every backup that holds it.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};

use super::Structure;
use super::findings::{TOUCHES_MOST, Touches};
use super::walk::BATCH;
use crate::error::Result;
use crate::format::manifest::SegmentRef;
use crate::format::segment::{SegmentReader, decode_piece_list};
use crate::id::ChunkId;
use crate::repo::{Manifest, Pieces, Repository};
use crate::source::display_path;

/// What a file is touched by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Cause {
    /// A damaged pack, by its number in the index.
    Pack(u32),
    /// A chunk that no live pack holds.
    Missing,
    /// A chunk that is too short.
    Short,
    /// A segment that cannot be read.
    Segment(ChunkId),
    /// Its own entry, which cannot be right.
    Odd(ChunkId),
}

/// The touched files by cause.
pub(super) type TouchMap = HashMap<Cause, Touches>;

/// What is touched in one segment: per cause the first paths, and how many.
type SegmentTouches = HashMap<Cause, (Vec<String>, u64)>;

/// Names the touched files of all backups that were checked.
pub(super) async fn find(repository: &Repository, structure: &Structure) -> Result<TouchMap> {
    let mut touches = TouchMap::new();
    if !structure.faults.loses_something() && !structure.walked.loses_something() {
        return Ok(touches);
    }
    let mut segments: HashMap<ChunkId, Option<SegmentTouches>> = HashMap::new();
    for backup in &structure.backups {
        let manifest = match repository.manifest(&backup.id).await {
            Ok(manifest) => manifest,
            // A finding of its own.
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        for (at, segment) in manifest.segments.iter().enumerate() {
            let touched = match segments.entry(segment.chunk) {
                Slot::Occupied(known) => known.into_mut(),
                Slot::Vacant(slot) => slot.insert(read_touches(repository, structure, &manifest, at).await?),
            };
            for (cause, (paths, count)) in touched.iter().flatten() {
                let all = touches.entry(*cause).or_default();
                paths.iter().for_each(|path| all.add(backup.id, path));
                all.count += count - paths.len() as u64;
            }
        }
    }
    Ok(touches)
}

/// What is touched in one segment; `None` for nothing.
async fn read_touches(
    repository: &Repository,
    structure: &Structure,
    manifest: &Manifest,
    at: usize,
) -> Result<Option<SegmentTouches>> {
    let segment = &manifest.segments[at];
    let mut found = SegmentTouches::new();
    if let Some(odd) = structure.walked.odd.get(&segment.chunk) {
        odd.iter().for_each(|(path, _)| add(&mut found, Cause::Odd(segment.chunk), || path.clone()));
    }
    let whole_segment = cause_of(structure, &segment.chunk, 0)?
        .or_else(|| structure.walked.is_unreadable(&segment.chunk).then_some(Cause::Segment(segment.chunk)));
    if let Some(cause) = whole_segment {
        add(&mut found, cause, || describe(segment, manifest.segments.get(at + 1)));
    }
    match repository.read_chunk(&structure.index, &segment.chunk).await {
        Ok(plain) => read_entries(repository, structure, &plain, &mut found).await?,
        Err(error) if error.is_damage() => {}
        Err(error) => return Err(error),
    }
    Ok((!found.is_empty()).then_some(found))
}

fn add(found: &mut SegmentTouches, cause: Cause, path: impl FnOnce() -> String) {
    let (paths, count) = found.entry(cause).or_default();
    *count += 1;
    if paths.len() < TOUCHES_MOST {
        paths.push(path());
    }
}

fn describe(segment: &SegmentRef, next: Option<&SegmentRef>) -> String {
    let first = display_path(&segment.first_key);
    let end =
        next.map_or_else(|| "to the end".to_owned(), |next| format!("to before {}", display_path(&next.first_key)));
    format!("({} entries from {first} {end})", segment.entry_count)
}

/// Entries whose chunks are looked up together.
#[derive(Default)]
struct Batch {
    /// Chunk, how far into it the entry reaches, and which entry.
    wants: Vec<(ChunkId, u64, usize)>,
    paths: Vec<Vec<u8>>,
    /// What touches which entry.
    touched: BTreeSet<(usize, Cause)>,
}

impl Batch {
    fn look_up(&mut self, structure: &Structure) -> Result<()> {
        self.wants.sort_unstable();
        let ids: Vec<ChunkId> = self.wants.iter().map(|(id, ..)| *id).collect();
        let found = structure.index.lookup(&ids)?;
        for ((id, end, entry), location) in self.wants.drain(..).zip(found) {
            let cause = match location {
                None => Some(Cause::Missing),
                Some(location) if u64::from(location.plain_len) < end => Some(Cause::Short),
                Some(location) => structure.faults.lost_with(&structure.index, &id, &location)?.map(Cause::Pack),
            };
            self.touched.extend(cause.map(|cause| (entry, cause)));
        }
        Ok(())
    }

    /// Forgets the entries; the one that is being read goes on as the first.
    fn finish(&mut self, structure: &Structure, found: &mut SegmentTouches) -> Result<()> {
        self.look_up(structure)?;
        for (entry, cause) in std::mem::take(&mut self.touched) {
            add(found, cause, || display_path(&self.paths[entry]));
        }
        self.paths.clear();
        Ok(())
    }
}

async fn read_entries(
    repository: &Repository,
    structure: &Structure,
    plain: &[u8],
    found: &mut SegmentTouches,
) -> Result<()> {
    let Ok(entries) = SegmentReader::new(plain) else { return Ok(()) };
    let mut batch = Batch::default();
    for entry in entries {
        // Where a segment cannot be read further, the segment is the finding.
        let Ok(entry) = entry else { break };
        let number = batch.paths.len();
        let want = |batch: &mut Batch, piece: &crate::repo::Piece| {
            batch.wants.push((piece.chunk, u64::from(piece.offset) + u64::from(piece.len), number));
        };
        entry.pieces.as_slice().iter().for_each(|piece| want(&mut batch, piece));
        batch.paths.push(entry.path);
        if let Pieces::Lists(lists) = &entry.pieces {
            for list in lists {
                let Ok(plain) = repository.read_chunk(&structure.index, &list.chunk).await else { continue };
                let Ok(pieces) = decode_piece_list(&plain) else { continue };
                pieces.iter().for_each(|piece| want(&mut batch, piece));
                if batch.wants.len() >= BATCH {
                    batch.look_up(structure)?;
                }
            }
        }
        if batch.wants.len() >= BATCH {
            batch.finish(structure, found)?;
        }
    }
    batch.finish(structure, found)
}

/// What is wrong with one chunk.
fn cause_of(structure: &Structure, id: &ChunkId, end: u64) -> Result<Option<Cause>> {
    Ok(match structure.index.lookup(&[*id])?.into_iter().next().flatten() {
        None => Some(Cause::Missing),
        Some(location) if u64::from(location.plain_len) < end => Some(Cause::Short),
        Some(location) => structure.faults.lost_with(&structure.index, id, &location)?.map(Cause::Pack),
    })
}
