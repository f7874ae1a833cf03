//! A run: chunk locations sorted by id, in one file that never changes.
//!
//! The file holds rows of 49 bytes in blocks of 64, and behind them a fence for each block: the first eight bytes of its first id, and its
//! checksum. How many rows there are, and the checksum of the fences, stand in the catalogue ([`super::catalogue`]). So every byte that is
//! believed was verified, whatever became of the file, and nothing in it can make a reader stumble. In memory are the fences only: 12 bytes
//! for 64 rows.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use crate::error::{Context, Error, Result};
use crate::format::checksum;
use crate::format::fragment::FragmentEntry;
use crate::id::ChunkId;
use crate::pack::Location;

/// Id 32, pack 4 (big-endian, so that rows sort by it), offset 4, stored length 4, plain length 4, coding 1.
pub(super) const ROW_LEN: usize = 49;
const BLOCK_ROWS: usize = 64;
const BLOCK_LEN: usize = ROW_LEN * BLOCK_ROWS;
const FENCE_LEN: usize = 12;
/// Blocks read at once when a run is read from end to end.
const BLOCKS_AHEAD: usize = 32;

/// One location of one chunk, as bytes that sort by id, then pack.
pub(super) type Row = [u8; ROW_LEN];

pub(super) fn encode_row(entry: &FragmentEntry, pack: u32) -> Row {
    let mut row = [0; ROW_LEN];
    row[..32].copy_from_slice(entry.id.as_bytes());
    row[32..36].copy_from_slice(&pack.swap_bytes().to_le_bytes());
    row[36..40].copy_from_slice(&entry.offset.to_le_bytes());
    row[40..44].copy_from_slice(&entry.stored_len.to_le_bytes());
    row[44..48].copy_from_slice(&entry.plain_len.to_le_bytes());
    row[48] = entry.coding;
    row
}

pub(super) fn decode_row(row: &Row) -> Location {
    let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
    Location { pack: pack_of(row), offset: word(36), stored_len: word(40), plain_len: word(44), coding: row[48] }
}

pub(super) fn pack_of(row: &Row) -> u32 {
    u32::from_le_bytes([row[35], row[34], row[33], row[32]])
}

/// The first eight bytes of an id, as a number that sorts like them.
fn prefix(id: &[u8]) -> u64 {
    id.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What the catalogue keeps of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunInfo {
    pub(super) number: u32,
    pub(super) rows: u64,
    /// Of the fences, and through them of everything.
    pub(super) checksum: u32,
}

/// An open run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) info: RunInfo,
    file: File,
    /// Prefix of the first id of each block.
    firsts: Vec<u64>,
    checksums: Vec<u32>,
}

impl Run {
    /// Opens a run and verifies its fences; `whole` verifies every row.
    pub(super) fn open(file: File, info: RunInfo, whole: bool) -> Result<Self> {
        let blocks = info.rows.div_ceil(BLOCK_ROWS as u64);
        let fences_at = info.rows.checked_mul(ROW_LEN as u64);
        let len = fences_at.and_then(|at| at.checked_add(blocks.checked_mul(FENCE_LEN as u64)?));
        let found = file.metadata().map_err(|error| unreadable(info.number, error))?.len();
        let (Some(fences_at), true) = (fences_at, len == Some(found)) else {
            return Err(Error::corrupt(format!("index run {}: {found} bytes are not its length", info.number)));
        };
        let mut fences = vec![0; usize::try_from(found - fences_at).map_err(|_| damaged(info.number))?];
        file.read_exact_at(&mut fences, fences_at).map_err(|error| unreadable(info.number, error))?;
        if checksum(&fences) != info.checksum {
            return Err(damaged(info.number));
        }
        let mut run = Self { info, file, firsts: Vec::new(), checksums: Vec::new() };
        run.firsts.reserve_exact(fences.len() / FENCE_LEN);
        run.checksums.reserve_exact(fences.len() / FENCE_LEN);
        for fence in fences.chunks_exact(FENCE_LEN) {
            run.firsts.push(prefix(fence));
            run.checksums.push(u32::from_le_bytes([fence[8], fence[9], fence[10], fence[11]]));
        }
        if whole {
            let mut rows = RunRows::new(&run);
            while rows.next()?.is_some() {}
        }
        Ok(run)
    }

    /// Makes it outlive a crash of the machine.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| unreadable(self.info.number, error))
    }

    /// Reads `count` blocks from `block`, verified.
    fn read_blocks(&self, block: usize, count: usize, buffer: &mut Vec<u8>) -> Result<()> {
        let start = block as u64 * BLOCK_LEN as u64;
        let end = (start + (count as u64) * BLOCK_LEN as u64).min(self.info.rows * ROW_LEN as u64);
        buffer.resize(usize::try_from(end - start).map_err(|_| damaged(self.info.number))?, 0);
        self.file.read_exact_at(buffer, start).map_err(|error| unreadable(self.info.number, error))?;
        for (at, bytes) in buffer.chunks(BLOCK_LEN).enumerate() {
            if checksum(bytes) != self.checksums[block + at] {
                return Err(damaged(self.info.number));
            }
        }
        Ok(())
    }
}

/// Finds rows by ids that ascend: a block is read once for all of its ids.
pub(super) struct Sweep<'a> {
    run: &'a Run,
    /// The block in the buffer.
    loaded: Option<usize>,
    buffer: Vec<u8>,
    /// No id to come stands in a block before this one.
    from: usize,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        Self { run, loaded: None, buffer: Vec::new(), from: 0 }
    }

    /// Shows every row of an id, which must not be less than the one before.
    pub(super) fn find(&mut self, id: &ChunkId, mut visit: impl FnMut(&Row)) -> Result<()> {
        self.find_numbered(id, |_, row| visit(row))
    }

    /// The same, each row with its number in the run.
    pub(super) fn find_numbered(&mut self, id: &ChunkId, mut visit: impl FnMut(usize, &Row)) -> Result<()> {
        let firsts = &self.run.firsts;
        let wanted = prefix(id.as_bytes());
        // The last block that begins before it; equal prefixes may begin in its middle.
        let before = firsts[self.from..].partition_point(|first| *first < wanted);
        self.from = (self.from + before).saturating_sub(1).max(self.from);
        for (block, _) in firsts.iter().enumerate().skip(self.from).take_while(|(_, first)| **first <= wanted) {
            if self.loaded != Some(block) {
                self.loaded = None;
                self.run.read_blocks(block, 1, &mut self.buffer)?;
                self.loaded = Some(block);
            }
            let (rows, _) = self.buffer.as_chunks::<ROW_LEN>();
            let start = rows.partition_point(|row| row[..32] < id.as_bytes()[..]);
            for (at, row) in rows.iter().enumerate().skip(start) {
                if row[..32] != id.as_bytes()[..] {
                    return Ok(());
                }
                visit(block * BLOCK_ROWS + at, row);
            }
        }
        Ok(())
    }
}

/// All rows of a run, in order.
pub(super) struct RunRows<'a> {
    run: &'a Run,
    block: usize,
    buffer: Vec<u8>,
    at: usize,
}

impl<'a> RunRows<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        Self { run, block: 0, buffer: Vec::new(), at: 0 }
    }

    pub(super) fn next(&mut self) -> Result<Option<&Row>> {
        if self.at == self.buffer.len() / ROW_LEN {
            let count = BLOCKS_AHEAD.min(self.run.firsts.len() - self.block);
            if count == 0 {
                return Ok(None);
            }
            self.run.read_blocks(self.block, count, &mut self.buffer)?;
            self.block += count;
            self.at = 0;
        }
        let (rows, _) = self.buffer.as_chunks::<ROW_LEN>();
        self.at += 1;
        Ok(rows.get(self.at - 1))
    }
}

/// Writes a run. Rows come in order; one that comes twice is kept once.
pub(super) struct RunWriter {
    number: u32,
    file: BufWriter<File>,
    rows: u64,
    block: Vec<u8>,
    last: Option<Row>,
    fences: Vec<u8>,
}

impl RunWriter {
    /// Into an empty file.
    pub(super) fn new(file: File, number: u32) -> Self {
        let file = BufWriter::with_capacity(1 << 18, file);
        Self { number, file, rows: 0, block: Vec::with_capacity(BLOCK_LEN), last: None, fences: Vec::new() }
    }

    pub(super) fn push(&mut self, row: &Row) -> Result<()> {
        if self.last.as_ref() == Some(row) {
            return Ok(());
        }
        debug_assert!(self.last.is_none_or(|last| last < *row), "rows come in order");
        self.last = Some(*row);
        self.rows += 1;
        self.block.extend_from_slice(row);
        if self.block.len() == BLOCK_LEN { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<()> {
        self.fences.extend_from_slice(&self.block[..8]);
        self.fences.extend_from_slice(&checksum(&self.block).to_le_bytes());
        self.file.write_all(&self.block).map_err(|error| unwritable(self.number, error))?;
        self.block.clear();
        Ok(())
    }

    /// Completes the run and opens it.
    pub(super) fn finish(mut self) -> Result<Run> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        self.file.write_all(&self.fences).map_err(|error| unwritable(self.number, error))?;
        let file = self.file.into_inner().map_err(|error| unwritable(self.number, error.into_error()))?;
        let info = RunInfo { number: self.number, rows: self.rows, checksum: checksum(&self.fences) };
        Run::open(file, info, false).context(|| "look at what was just written")
    }
}

/// Merges runs into one; leaves out the rows of packs that are gone.
pub(super) fn merge(runs: &[std::sync::Arc<Run>], mut out: RunWriter, is_gone: impl Fn(u32) -> bool) -> Result<Run> {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    let mut readers: Vec<RunRows<'_>> = runs.iter().map(|run| RunRows::new(run)).collect();
    let mut heap = BinaryHeap::with_capacity(readers.len());
    for (at, reader) in readers.iter_mut().enumerate() {
        if let Some(row) = reader.next()? {
            heap.push(Reverse((*row, at)));
        }
    }
    while let Some(mut least) = heap.peek_mut() {
        let Reverse((row, at)) = &mut *least;
        if !is_gone(pack_of(row)) {
            out.push(row)?;
        }
        match readers[*at].next()? {
            Some(next) => *row = *next,
            None => drop(std::collections::binary_heap::PeekMut::pop(least)),
        }
    }
    out.finish()
}

fn damaged(number: u32) -> Error {
    Error::corrupt(format!("index run {number}: its bytes are not those that were written"))
}

fn unreadable(number: u32, error: std::io::Error) -> Error {
    Error::with_source(crate::error::ErrorKind::Corrupt, format!("read index run {number}: {error}"), error)
}

fn unwritable(number: u32, error: std::io::Error) -> Error {
    Error::with_source(crate::error::ErrorKind::Unavailable, format!("write index run {number}: {error}"), error)
}
