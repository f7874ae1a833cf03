//! The pieces of a segment, and the piece lists of very large files. Page: docs/format/manifest.md.
//!
//! They are read without any name, which is what whoever maintains an encrypted repository can do.

use super::bytes::{Fields, Put, check_flags, check_version};
use super::segment::{Piece, Pieces};
use crate::error::{Error, Result};
use crate::id::ChunkId;

const LIST_MAGIC: [u8; 4] = *b"EvPl";
pub(super) const VERSION: u16 = 1;
const PIECE_LEN: usize = 40;
/// Bit of a piece count: the pieces are piece lists. It stands with the pieces, since whoever maintains a repository must see it.
pub(super) const COUNT_LISTS: u32 = 1 << 31;

/// The pieces of a segment, which can be read without the names.
#[derive(Debug, Default)]
pub(super) struct PieceStreams<'a> {
    counts: Fields<'a>,
    chunks: Fields<'a>,
    offsets: Fields<'a>,
    lens: Fields<'a>,
}

impl<'a> PieceStreams<'a> {
    pub(super) fn new(entries: u32, stored: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::new(stored);
        let count_bytes = usize::try_from(u64::from(entries) * 4).unwrap_or(usize::MAX);
        let counts = Fields::new(fields.bytes("piece counts", count_bytes)?);
        let rest = fields.rest();
        if !rest.len().is_multiple_of(PIECE_LEN) {
            let message = format!("manifest segment: {} bytes are no whole number of pieces", rest.len());
            return Err(Error::corrupt(message));
        }
        let total = rest.len() / PIECE_LEN;
        let (chunks, rest) = rest.split_at(total * 32);
        let (offsets, lens) = rest.split_at(total * 4);
        Ok(Self { counts, chunks: Fields::new(chunks), offsets: Fields::new(offsets), lens: Fields::new(lens) })
    }

    /// How many pieces the next entry has, and whether they are lists.
    pub(super) fn take_count(&mut self) -> Result<(usize, bool)> {
        let stored = self.counts.u32("piece count")?;
        let count = (stored & !COUNT_LISTS) as usize;
        if count > self.chunks.rest().len() / 32 {
            return Err(Error::corrupt(format!("manifest segment: an entry of {count} pieces, fewer are left")));
        }
        Ok((count, stored & COUNT_LISTS != 0))
    }

    pub(super) fn take_piece(&mut self) -> Result<Piece> {
        Ok(Piece {
            chunk: ChunkId::from_bytes(self.chunks.array("piece chunk")?),
            offset: self.offsets.u32("piece offset")?,
            len: self.lens.u32("piece length")?,
        })
    }

    pub(super) fn take_entry(&mut self) -> Result<Pieces> {
        let (count, lists) = self.take_count()?;
        let mut pieces = Vec::with_capacity(count);
        for _ in 0..count {
            pieces.push(self.take_piece()?);
        }
        Ok(if lists { Pieces::Lists(pieces) } else { Pieces::Direct(pieces) })
    }

    pub(super) fn check_end(&self) -> Result<()> {
        self.chunks.end("manifest segment pieces")
    }
}

/// Writes a piece list.
pub(crate) fn encode_piece_list(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + pieces.len() * PIECE_LEN);
    out.put(&LIST_MAGIC);
    out.put_u16(VERSION);
    out.put_u16(0);
    out.put_count(pieces.len());
    pieces.iter().for_each(|piece| out.put(piece.chunk.as_bytes()));
    pieces.iter().for_each(|piece| out.put_u32(piece.offset));
    pieces.iter().for_each(|piece| out.put_u32(piece.len));
    out
}

/// Reads a piece list.
pub(crate) fn decode_piece_list(plain: &[u8]) -> Result<Vec<Piece>> {
    let mut fields = Fields::new(plain);
    take_head(&mut fields, "piece list", LIST_MAGIC)?;
    let count = fields.count("piece count", PIECE_LEN)?;
    let mut pieces = PieceStreams {
        counts: Fields::default(),
        chunks: Fields::new(fields.bytes("chunks", count * 32)?),
        offsets: Fields::new(fields.bytes("offsets", count * 4)?),
        lens: Fields::new(fields.bytes("lengths", count * 4)?),
    };
    fields.end("piece list")?;
    (0..count).map(|_| pieces.take_piece()).collect()
}

/// Checks what segments and piece lists begin with.
pub(super) fn take_head(fields: &mut Fields<'_>, what: &str, magic: [u8; 4]) -> Result<()> {
    if fields.array("magic")? != magic {
        return Err(Error::corrupt(format!("{what}: does not begin with its magic")));
    }
    check_version(what, fields.u16("version")?, VERSION)?;
    check_flags(what, fields.u16("flags")?)
}
