//! Reads packs, or parts of them, from untrusted bytes.

use std::ops::Range;

use crate::error::{Context, Error, Result};
use crate::format::pack::{PackHeader, PackTrailer, RecordHeader, TableEntry, decode_table};
use crate::id::{ChunkId, FamilyId};

/// Where a chunk lies in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The pack's number in the local index.
    pub(crate) pack: u32,
    /// Offset of the record header.
    pub(crate) offset: u32,
    /// Bytes of the payload.
    pub(crate) stored_len: u32,
    /// Bytes of the chunk.
    pub(crate) plain_len: u32,
    /// How the payload is coded.
    pub(crate) coding: u8,
}

impl Location {
    /// The record's bytes in the pack, header included.
    pub(crate) fn range(&self) -> Range<u64> {
        let start = u64::from(self.offset);
        start..start + RecordHeader::LEN as u64 + u64::from(self.stored_len)
    }
}

/// Splits a record into its header and payload; the header must be the one that the index promised.
pub(crate) fn read_record<'a>(id: ChunkId, location: &Location, record: &'a [u8]) -> Result<(RecordHeader, &'a [u8])> {
    let header = RecordHeader::decode(record).context(|| format!("chunk {id} at {}", location.offset))?;
    if header.id != id || header.stored_len != location.stored_len || header.plain_len != location.plain_len {
        let message = format!("chunk {id} at {}: the record there is of chunk {}", location.offset, header.id);
        return Err(Error::corrupt(message));
    }
    let payload = record.get(RecordHeader::LEN..RecordHeader::LEN + header.stored_len as usize);
    let payload = payload.ok_or_else(|| Error::corrupt(format!("chunk {id} at {}: cut short", location.offset)))?;
    Ok((header, payload))
}

/// The range of a pack of `size` bytes in which table and trailer lie, read off the trailer.
pub(crate) fn table_range(trailer: &[u8], size: u64) -> Result<Range<u64>> {
    let trailer = PackTrailer::decode(trailer, size)?;
    Ok(u64::from(trailer.table_offset)..size)
}

/// Reads the table from the end of a pack: `tail` is what `table_range` named.
pub(crate) fn parse_table(tail: &[u8], size: u64) -> Result<Vec<TableEntry>> {
    let Some((table, trailer)) = tail.split_last_chunk::<{ PackTrailer::LEN }>() else {
        return Err(Error::corrupt("pack: shorter than its trailer"));
    };
    decode_table(table, &PackTrailer::decode(trailer, size)?)
}

/// Every record of a damaged pack whose header is whole, with the offset of the header: found by its magic, whatever lies between.
///
/// That a payload is what its header says is for the caller to prove. One with a broken header is passed over; so is one that is cut short.
pub(crate) fn salvage(stored: &[u8]) -> Vec<TableEntry> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = stored.get(at..).filter(|rest| rest.len() >= RecordHeader::LEN) {
        if let Ok(record) = RecordHeader::decode(rest)
            && let Ok(offset) = u32::try_from(at)
        {
            let end = at + RecordHeader::LEN + record.stored_len as usize;
            if end <= stored.len() {
                found.push(TableEntry { record, offset });
                at = end;
                continue;
            }
        }
        at += 1;
    }
    found
}

/// A whole pack whose parts are consistent: header, trailer, table, and every record header.
#[derive(Debug)]
pub(crate) struct PackScan<'a> {
    stored: &'a [u8],
    table: Vec<TableEntry>,
}

impl<'a> PackScan<'a> {
    /// Checks everything but the chunks themselves.
    pub(crate) fn new(stored: &'a [u8], family: FamilyId) -> Result<Self> {
        let size = stored.len() as u64;
        let header = PackHeader::decode(stored)?;
        if header.family != family {
            return Err(Error::corrupt(format!("pack: of family {}, not of this repository's", header.family)));
        }
        let trailer = stored.last_chunk::<{ PackTrailer::LEN }>().ok_or_else(|| Error::corrupt("pack: too short"))?;
        let tail = table_range(trailer, size)?;
        let start = usize::try_from(tail.start).unwrap_or(usize::MAX);
        let table = parse_table(stored.get(start..).unwrap_or_default(), size)?;
        for entry in &table {
            let at = entry.offset as usize;
            let header = RecordHeader::decode(stored.get(at..).unwrap_or_default())
                .context(|| format!("record of chunk {} at {at}", entry.record.id))?;
            if header != entry.record {
                return Err(Error::corrupt(format!(
                    "record of chunk {} at {at}: table and header differ",
                    entry.record.id
                )));
            }
        }
        Ok(Self { stored, table })
    }

    /// The pack's own table.
    pub(crate) fn table(&self) -> &[TableEntry] {
        &self.table
    }

    /// Every record with its payload, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&RecordHeader, &'a [u8])> {
        self.table.iter().map(|entry| {
            let start = entry.offset as usize + RecordHeader::LEN;
            // The table was checked to tile the pack, so this range is inside.
            let payload = self.stored.get(start..start + entry.record.stored_len as usize).unwrap_or_default();
            (&entry.record, payload)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::chunk_id;
    use crate::id::{ObjectKind, SessionId};
    use crate::pack::PackBuilder;

    fn pack() -> (Vec<u8>, Vec<TableEntry>) {
        let mut builder = PackBuilder::new(ObjectKind::DataPack, FamilyId::from_bytes([1; 16]), 1 << 20);
        for n in 0..5u8 {
            let plain = vec![n; 100 + usize::from(n)];
            builder.push(chunk_id(&plain), u32::try_from(plain.len()).unwrap(), 0, &plain);
        }
        let sealed = builder.seal().unwrap().name(SessionId::from_bytes([2; 8]));
        (sealed.stored.to_vec(), sealed.table)
    }

    #[test]
    fn a_whole_pack_gives_all_its_records() {
        let (stored, table) = pack();
        assert_eq!(salvage(&stored), table);
    }

    #[test]
    fn every_record_with_a_whole_header_is_found_whatever_is_broken() {
        let (stored, table) = pack();
        for at in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[at] ^= 0x40;
            let in_header = |entry: &&TableEntry| (entry.offset as usize..entry.offset as usize + 52).contains(&at);
            let expected: Vec<_> = table.iter().filter(|entry| !in_header(entry)).copied().collect();
            assert_eq!(salvage(&damaged), expected, "byte {at}");
        }
    }

    #[test]
    fn of_a_pack_cut_short_or_without_a_beginning_the_rest_is_found() {
        let (stored, table) = pack();
        for len in 0..stored.len() {
            let whole = |entry: &&TableEntry| entry.end() <= len as u64;
            assert_eq!(salvage(&stored[..len]), table.iter().filter(whole).copied().collect::<Vec<_>>(), "{len} bytes");
        }
        assert_eq!(salvage(&stored[10..]).len(), 5, "moved by ten bytes");
    }
}
