//! Sets the log positions in a checkpoint file to zero, so that a restored server survives its restarts.
//!
//! BACKUP leaves the position of a global checkpoint as it was, but the log of a restored server begins anew near zero. The first checkpoint
//! that the restored server writes lists both, and the next start panics ("logic error, current lsn …"). With all positions zero it does not.
//! Only a copy that is restored is changed; what is archived stays what the server wrote.
//!
//! Only the cells of two columns change, so every other byte of a column stays, stale ones too. The column is compressed to the very length
//! that it had, and then nothing else in the file changes; where that cannot be, the file is laid out anew around it.
//! *Invariant*: what is given back was read again, and differs from the file in these positions alone. Whatever is not understood is refused.

use std::collections::BTreeMap;

use crate::error::{Context, Error, Result};

use super::checkpoint::{CheckpointRow, read_checkpoint_rows};
use super::meta::{BlockHeader, ColumnMeta, Extent, FileHeader, array_at};
use super::object::{ParsedObject, decode_lz4};
use super::reader::COLUMN_PLAIN_MAX;
use super::types::DataType;
use super::vector::Vector;

/// `checkpoint_lsn` and `truncate_lsn`, by position in the batch.
const LSN_COLUMNS: [u16; 2] = [6, 7];

/// The same checkpoint file with all log positions zero; `None` if they are zero, or if files of its release hold none.
///
/// `file` is its logical bytes. Fails with `Corrupt` on a file that is not understood in every part.
pub fn zero_lsns(file: &[u8]) -> Result<Option<Vec<u8>>> {
    let act = || "zero the log positions of a checkpoint file";
    let before = read_checkpoint_rows(&file).context(act)?;
    if before.iter().all(|row| row.checkpoint_lsn == 0 && row.truncate_lsn == 0) {
        return Ok(None);
    }
    let parsed = parse(file).context(act)?;
    let columns = zeroed_columns(file, &parsed).context(act)?;
    let after = match patched(file, &columns) {
        Some(patched) => patched,
        None => laid_out_anew(file, &parsed, &columns).context(act)?,
    };
    let rows = read_checkpoint_rows(&after).context(act)?;
    let expected: Vec<_> =
        before.into_iter().map(|row| CheckpointRow { checkpoint_lsn: 0, truncate_lsn: 0, ..row }).collect();
    if rows != expected || parse(&after).is_err() {
        return Err(Error::corrupt(format!("{}: it does not read back as it should", act())));
    }
    Ok(Some(after))
}

fn parse(file: &[u8]) -> Result<ParsedObject> {
    ParsedObject::read(&file)?.map_err(|not_tae| Error::corrupt(not_tae.to_string()))
}

/// A column as it is to be.
struct Zeroed {
    extent: Extent,
    plain: Vec<u8>,
}

/// The columns that hold log positions other than zero.
fn zeroed_columns(file: &[u8], parsed: &ParsedObject) -> Result<Vec<Zeroed>> {
    let mut columns = Vec::new();
    for block in parsed.meta.data().blocks() {
        let rows = block.header().rows();
        let stored = |column: &ColumnMeta<'_>| column.is_stored() && LSN_COLUMNS.contains(&column.idx());
        for column in block.columns().filter(stored) {
            let extent = column.extent();
            let place = format!("the column at {}", extent.offset);
            if column.type_oid() != DataType::UINT64.0 {
                return Err(Error::corrupt(format!("{place}: it holds no log positions")));
            }
            if column.zonemap() != [0; 64] {
                return Err(Error::corrupt(format!("{place}: it has a zonemap, which checkpoint files do not have")));
            }
            let mut plain = plain_of(file, extent).context(|| &place)?;
            let vector = Vector::parse(&plain).context(|| &place)?;
            if vector.data_type() != DataType::UINT64 || vector.rows() != rows {
                return Err(Error::corrupt(format!("{place}: it is not one number for each of {rows} rows")));
            }
            let cells = vector.cells_range();
            if plain[cells.clone()].iter().any(|byte| *byte != 0) {
                plain[cells].fill(0);
                columns.push(Zeroed { extent, plain });
            }
        }
    }
    Ok(columns)
}

fn plain_of(file: &[u8], extent: Extent) -> Result<Vec<u8>> {
    if extent.plain_len > COLUMN_PLAIN_MAX {
        return Err(Error::corrupt(format!("{} bytes are too many", extent.plain_len)));
    }
    let stored = stored_of(file, extent);
    if !extent.is_lz4() {
        return Ok(stored.to_vec());
    }
    let mut plain = Vec::new();
    decode_lz4(stored, extent.plain_len, &mut plain).map_err(Error::corrupt)?;
    Ok(plain)
}

/// Parsing has proved that extents tile the file.
fn stored_of(file: &[u8], extent: Extent) -> &[u8] {
    &file[extent.offset as usize..extent.offset as usize + extent.stored_len as usize]
}

/// The file with every column in its old place, if each can be stored in its old length.
fn patched(file: &[u8], columns: &[Zeroed]) -> Option<Vec<u8>> {
    let mut patched = file.to_vec();
    for Zeroed { extent, plain } in columns {
        let len = extent.stored_len as usize;
        let stored =
            if extent.is_lz4() { Lz4Block::compress(plain).padded_to(len)?.encode(plain) } else { plain.clone() };
        patched.get_mut(extent.offset as usize..)?.get_mut(..len)?.copy_from_slice(&stored);
    }
    Some(patched)
}

/// The file with the columns at whatever length they have: all that follows moves, and every pointer with it.
fn laid_out_anew(file: &[u8], parsed: &ParsedObject, columns: &[Zeroed]) -> Result<Vec<u8>> {
    let layout = &parsed.layout;
    let replaced: BTreeMap<u64, &Zeroed> =
        columns.iter().map(|zeroed| (u64::from(zeroed.extent.offset), zeroed)).collect();
    let mut out = file[..FileHeader::LEN].to_vec();
    // Where each border between extents lies, and where it comes to lie.
    let mut moved = BTreeMap::from([(FileHeader::LEN as u64, FileHeader::LEN as u64)]);
    for extent in layout.data_extents().iter().chain(layout.filter_extents()) {
        match replaced.get(&extent.offset) {
            Some(zeroed) if extent.lz4 => out.extend(Lz4Block::compress(&zeroed.plain).encode(&zeroed.plain)),
            Some(zeroed) => out.extend_from_slice(&zeroed.plain),
            // Proved above: extents tile the file.
            None => out.extend_from_slice(stored_of(file, as_extent(extent)?)),
        }
        moved.insert(extent.end(), out.len() as u64);
    }
    let mut meta = plain_of(file, parsed.header.meta)?;
    for place in parsed.meta.extent_places() {
        let extent = Extent::from_bytes(&array_at(&meta, place));
        if extent.stored_len == 0 && !moved.contains_key(&u64::from(extent.offset)) {
            continue;
        }
        let (Some(start), Some(end)) = (moved.get(&u64::from(extent.offset)), moved.get(&extent.end())) else {
            return Err(Error::corrupt(format!("object meta: a pointer to {} leads between extents", extent.offset)));
        };
        let (start, len) = (to_u32(*start)?, to_u32(end - start)?);
        meta[place + 1..place + 5].copy_from_slice(&start.to_le_bytes());
        meta[place + 5..place + 9].copy_from_slice(&len.to_le_bytes());
    }
    let stored = if parsed.header.meta.is_lz4() { Lz4Block::compress(&meta).encode(&meta) } else { meta.clone() };
    let (offset, stored_len) = (to_u32(out.len() as u64)?, to_u32(stored.len() as u64)?);
    out[11..15].copy_from_slice(&offset.to_le_bytes());
    out[15..19].copy_from_slice(&stored_len.to_le_bytes());
    out.extend(stored);
    out.extend_from_slice(&file[file.len() - FileHeader::FOOTER_LEN..]);
    Ok(out)
}

fn as_extent(extent: &super::object::DataExtent) -> Result<Extent> {
    let offset = to_u32(extent.offset)?;
    let (stored_len, plain_len) = (extent.stored_len, extent.plain_len);
    Ok(Extent { algorithm: u8::from(extent.lz4), offset, stored_len, plain_len })
}

fn to_u32(len: u64) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::corrupt("it would become longer than 4 GiB"))
}

impl super::meta::ObjectMeta {
    /// Where pointers stand in the decoded meta, all of [`Extent::LEN`] bytes.
    fn extent_places(&self) -> Vec<usize> {
        let mut places = Vec::new();
        for (range, slot) in self.slot_ranges().zip(self.slots()) {
            let mut part = |at: usize, columns: usize| {
                places.extend([at + 42, at + 55, at + 72]);
                places.extend((0..columns).map(|column| at + BlockHeader::LEN + ColumnMeta::LEN * column + 11));
                at + BlockHeader::LEN + ColumnMeta::LEN * columns
            };
            let mut at = part(range.start, slot.header().meta_column_count());
            at += 4 + 8 * slot.header().block_count();
            for block in slot.blocks() {
                at = part(at, block.header().meta_column_count());
            }
        }
        places
    }
}

/// One LZ4 block as what it is made of. The last sequence has no match.
struct Lz4Block {
    sequences: Vec<Sequence>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Sequence {
    literals: usize,
    offset: u16,
    /// Bytes copied, 4 or more; 0 in the last one.
    matched: usize,
}

/// How many bytes of length follow a nibble of 15.
fn more_lengths(len: usize) -> usize {
    len.checked_sub(15).map_or(0, |rest| rest / 255 + 1)
}

impl Lz4Block {
    const MATCH_MIN: usize = 4;

    /// As short as the encoder makes it.
    fn compress(plain: &[u8]) -> Self {
        let stored = lz4_flex::block::compress(plain);
        let mut sequences = Vec::new();
        let mut at = 0;
        let length = |at: &mut usize, nibble: u8| {
            let mut len = usize::from(nibble);
            if nibble == 15 {
                loop {
                    let more = stored[*at];
                    *at += 1;
                    len += usize::from(more);
                    if more != 255 {
                        break;
                    }
                }
            }
            len
        };
        while at < stored.len() {
            let token = stored[at];
            at += 1;
            let literals = length(&mut at, token >> 4);
            at += literals;
            if at >= stored.len() {
                sequences.push(Sequence { literals, offset: 0, matched: 0 });
                break;
            }
            let offset = u16::from_le_bytes([stored[at], stored[at + 1]]);
            at += 2;
            let matched = length(&mut at, token & 15) + Self::MATCH_MIN;
            sequences.push(Sequence { literals, offset, matched });
        }
        Self { sequences }
    }

    fn len(&self) -> usize {
        let len = |sequence: &Sequence| {
            let matched = sequence.matched.checked_sub(Self::MATCH_MIN).map_or(0, |rest| 2 + more_lengths(rest));
            1 + more_lengths(sequence.literals) + sequence.literals + matched
        };
        self.sequences.iter().map(len).sum()
    }

    /// The same content in a block of exactly this length: matches are cut short and their bytes spelled out.
    fn padded_to(mut self, len: usize) -> Option<Self> {
        // From the back, where a byte more changes least; what goes too far is left as it was.
        for at in (0..self.sequences.len().saturating_sub(1)).rev() {
            while self.len() < len {
                let before = self.sequences.clone();
                let matched = self.sequences[at].matched;
                if matched > Self::MATCH_MIN {
                    self.sequences[at].matched -= 1;
                    self.sequences[at + 1].literals += 1;
                } else {
                    let gone = self.sequences.remove(at);
                    self.sequences[at].literals += gone.literals + gone.matched;
                }
                let too_long = self.len() > len;
                if too_long {
                    self.sequences = before;
                }
                if too_long || matched <= Self::MATCH_MIN {
                    break;
                }
            }
        }
        (self.len() == len).then_some(self)
    }

    fn encode(&self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        let mut at = 0;
        let more = |out: &mut Vec<u8>, len: usize| {
            if let Some(rest) = len.checked_sub(15) {
                out.resize(out.len() + rest / 255, 255);
                out.push(u8::try_from(rest % 255).unwrap_or(0));
            }
        };
        let nibble = |len: usize| u8::try_from(len.min(15)).unwrap_or(15);
        for sequence in &self.sequences {
            let matched = sequence.matched.saturating_sub(Self::MATCH_MIN);
            out.push(nibble(sequence.literals) << 4 | nibble(matched));
            more(&mut out, sequence.literals);
            out.extend_from_slice(&plain[at..at + sequence.literals]);
            at += sequence.literals + sequence.matched;
            if sequence.matched > 0 {
                out.extend_from_slice(&sequence.offset.to_le_bytes());
                more(&mut out, matched);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
