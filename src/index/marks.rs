//! Marks: one bit for every location in the index, set if somebody needs the chunk. What prune decides by.
//!
//! A snapshot: runs never change, so what was marked stays marked while the index is folded on and merged. Ten million locations take a little
//! more than a megabyte. Ids are marked in sorted batches, so that a run is read from front to back, once for each batch.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::run::{Row, Run, RunRows, Sweep, decode_row};
use crate::error::Result;
use crate::id::ChunkId;
use crate::pack::Location;

/// Which locations are of chunks that are needed.
#[derive(Debug)]
pub(crate) struct Marks {
    /// Oldest first.
    runs: Vec<Arc<Run>>,
    bits: Vec<Vec<u64>>,
}

/// A chunk of the snapshot with everywhere it lies.
#[derive(Debug)]
pub(crate) struct MarkedChunk<'a> {
    pub(crate) id: ChunkId,
    pub(crate) is_needed: bool,
    /// By pack number, then offset.
    pub(crate) locations: &'a [Location],
}

/// What came of marking a batch.
#[derive(Debug, Default)]
pub(crate) struct Marked {
    /// Chunks that were not marked before, with everywhere they lie.
    pub(crate) new: Vec<(ChunkId, Vec<Location>)>,
    /// Distinct chunks that the snapshot does not know.
    pub(crate) unknown: Vec<ChunkId>,
}

impl Marks {
    pub(super) fn new(runs: Vec<Arc<Run>>) -> Self {
        let words = |run: &Arc<Run>| usize::try_from(run.info.rows.div_ceil(64)).expect("a run fits in memory as bits");
        let bits = runs.iter().map(|run| vec![0; words(run)]).collect();
        Self { runs, bits }
    }

    /// Marks chunks as needed; gives the number of distinct ones and those that are nowhere. Sorts `ids`.
    pub(crate) fn mark(&mut self, ids: &mut Vec<ChunkId>) -> Result<(u64, Vec<ChunkId>)> {
        let known = self.sweep(ids, |_, _, _, _| {})?;
        let unknown = ids.iter().zip(&known).filter(|(_, known)| !**known).map(|(id, _)| *id).collect();
        Ok((ids.len() as u64, unknown))
    }

    /// Marks chunks as needed, and tells which were not before.
    pub(crate) fn mark_more(&mut self, ids: &mut Vec<ChunkId>) -> Result<Marked> {
        let mut lying: Vec<(usize, Location, bool)> = Vec::new();
        let known = self.sweep(ids, |at, row, _, was_marked| lying.push((at, decode_row(row), was_marked)))?;
        lying.sort_by_key(|(at, location, _)| (*at, location.pack, location.offset));
        let mut marked = Marked {
            new: Vec::new(),
            unknown: ids.iter().zip(&known).filter(|(_, known)| !**known).map(|(id, _)| *id).collect(),
        };
        for of_one in lying.chunk_by(|a, b| a.0 == b.0) {
            // All locations of a chunk are marked together.
            if of_one.iter().all(|(_, _, was_marked)| !was_marked) {
                let locations = of_one.iter().map(|(_, location, _)| *location).collect();
                marked.new.push((ids[of_one[0].0], locations));
            }
        }
        Ok(marked)
    }

    /// Sorts the ids, and marks and shows every row of each: its place among the ids, the row, the run, and whether it was marked.
    fn sweep(&mut self, ids: &mut Vec<ChunkId>, mut visit: impl FnMut(usize, &Row, usize, bool)) -> Result<Vec<bool>> {
        ids.sort_unstable();
        ids.dedup();
        let mut known = vec![false; ids.len()];
        for (number, (run, bits)) in self.runs.iter().zip(&mut self.bits).enumerate() {
            let mut sweep = Sweep::new(run);
            for (at, id) in ids.iter().enumerate() {
                sweep.find_numbered(id, |row_number, row| {
                    let (word, bit) = (row_number / 64, 1 << (row_number % 64));
                    visit(at, row, number, bits[word] & bit != 0);
                    bits[word] |= bit;
                    known[at] = true;
                })?;
            }
        }
        Ok(known)
    }

    /// Shows every chunk of the snapshot once, by ascending id.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&MarkedChunk<'_>) -> Result<()>) -> Result<()> {
        let mut readers: Vec<(RunRows<'_>, usize)> = self.runs.iter().map(|run| (RunRows::new(run), 0)).collect();
        let mut heap = BinaryHeap::with_capacity(readers.len());
        for (at, (reader, _)) in readers.iter_mut().enumerate() {
            if let Some(row) = reader.next()? {
                heap.push(Reverse((*row, at)));
            }
        }
        let mut current: Option<(ChunkId, bool)> = None;
        let mut locations: Vec<Location> = Vec::new();
        while let Some(mut least) = heap.peek_mut() {
            let Reverse((row, at)) = &mut *least;
            let (reader, number) = &mut readers[*at];
            let is_marked = self.bits[*at][*number / 64] & (1 << (*number % 64)) != 0;
            let id = id_of(row);
            match &mut current {
                Some((last, is_needed)) if *last == id => *is_needed |= is_marked,
                last => {
                    if let Some((id, is_needed)) = last.take() {
                        visit(&MarkedChunk { id, is_needed, locations: &locations })?;
                    }
                    locations.clear();
                    *last = Some((id, is_marked));
                }
            }
            let location = decode_row(row);
            if locations.last() != Some(&location) {
                locations.push(location);
            }
            *number += 1;
            match reader.next()? {
                Some(next) => *row = *next,
                None => drop(std::collections::binary_heap::PeekMut::pop(least)),
            }
        }
        if let Some((id, is_needed)) = current {
            visit(&MarkedChunk { id, is_needed, locations: &locations })?;
        }
        Ok(())
    }
}

fn id_of(row: &Row) -> ChunkId {
    let mut id = [0; 32];
    id.copy_from_slice(&row[..32]);
    ChunkId::from_bytes(id)
}
