//! Where segments and piece lists end. Part of the repository format (docs/format/manifest.md): another rule reads the same, but finds less
//! of the last night again.

use crate::codec::chunk_id;
use crate::error::Result;
use crate::format::segment::{Entry, Piece, SegmentBuilder};

/// A segment ends only behind at least this many entries,
const SEGMENT_ENTRIES_LEAST: u32 = 256;
/// where the hash of the path has these bits clear (one path in 1024),
const SEGMENT_MASK: u32 = 0x3ff;
/// and at the latest behind this many entries
const SEGMENT_ENTRIES_MOST: u32 = 4096;
/// or this many bytes.
const SEGMENT_BYTES_MOST: usize = 4 << 20;

/// Files of more pieces than this keep them in piece lists.
pub(crate) const PIECES_DIRECT_MAX: usize = 8192;
const LIST_PIECES_LEAST: usize = 1024;
const LIST_MASK: u32 = 0xfff;
const LIST_PIECES_MOST: usize = 16384;

/// Cuts a sorted list of entries into segments.
#[derive(Debug, Default)]
pub(crate) struct SegmentCutter {
    builder: SegmentBuilder,
    first_key: Vec<u8>,
}

/// A segment, not stored yet.
#[derive(Debug)]
pub(crate) struct FinishedSegment {
    pub(crate) plain: Vec<u8>,
    pub(crate) entry_count: u32,
    pub(crate) first_key: Vec<u8>,
}

impl SegmentCutter {
    /// Takes the next entry; gives a segment when one is complete.
    pub(crate) fn push(&mut self, entry: &Entry) -> Result<Option<FinishedSegment>> {
        if self.builder.entry_count() == 0 {
            self.first_key = entry.sort_key().collect();
        }
        self.builder.push(entry)?;
        let count = self.builder.entry_count();
        let full = count >= SEGMENT_ENTRIES_MOST || self.builder.len() >= SEGMENT_BYTES_MOST;
        let border = count >= SEGMENT_ENTRIES_LEAST && chunk_id(&entry.path).prefix() & SEGMENT_MASK == 0;
        Ok(if full || border { self.finish() } else { None })
    }

    /// The last segment, if anything is left.
    pub(crate) fn finish(&mut self) -> Option<FinishedSegment> {
        let entry_count = self.builder.entry_count();
        (entry_count > 0).then(|| FinishedSegment {
            plain: self.builder.finish(),
            entry_count,
            first_key: std::mem::take(&mut self.first_key),
        })
    }
}

/// Cuts the pieces of a very large file into lists.
#[derive(Debug, Default)]
pub(crate) struct PieceListCutter {
    pieces: Vec<Piece>,
}

impl PieceListCutter {
    /// Takes the next piece; gives a list when one is complete.
    pub(crate) fn push(&mut self, piece: Piece) -> Option<Vec<Piece>> {
        self.pieces.push(piece);
        let count = self.pieces.len();
        let border = count >= LIST_PIECES_LEAST && piece.chunk.prefix() & LIST_MASK == 0;
        (border || count >= LIST_PIECES_MOST).then(|| std::mem::take(&mut self.pieces))
    }

    /// The last list, if anything is left.
    pub(crate) fn finish(self) -> Option<Vec<Piece>> {
        (!self.pieces.is_empty()).then_some(self.pieces)
    }
}
