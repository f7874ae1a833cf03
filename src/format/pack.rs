//! Packs: header · records · table · trailer. Page: docs/format/pack.md.
//!
//! A record's header makes its chunk salvageable without table or index; the table makes a pack readable without reading its records.

use super::bytes::{FLAG_SEALED, Fields, Put, checksum, put_magic, seal, take_magic};
use crate::error::{Error, Result};
use crate::id::{ChunkId, FamilyId, ObjectKind};

const MAGIC: [u8; 8] = *b"EVPKPACK";
const VERSION: u16 = 1;
const RECORD_MAGIC: [u8; 4] = *b"EvRc";
const TRAILER_MAGIC: [u8; 8] = *b"EVPKTAIL";

/// The first bytes of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackHeader {
    /// `DataPack` or `MetaPack`.
    pub(crate) kind: ObjectKind,
    pub(crate) family: FamilyId,
}

impl PackHeader {
    pub(crate) const LEN: usize = 36;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        put_magic(&mut out, MAGIC, VERSION, 0);
        out.put_u32(u32::from(self.kind.code()));
        out.put(self.family.as_bytes());
        seal(&mut out, 0);
        out
    }

    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(stored);
        take_magic(&mut fields, "pack", MAGIC, VERSION)?;
        let code = fields.u32("kind")?;
        let family = FamilyId::from_bytes(fields.array("family id")?);
        if fields.u32("header checksum")? != checksum(&stored[..Self::LEN - 4]) {
            return Err(Error::corrupt("pack header: checksum does not match"));
        }
        let kind = ObjectKind::from_code(u8::try_from(code).unwrap_or(0))?;
        if !matches!(kind, ObjectKind::DataPack | ObjectKind::MetaPack) {
            return Err(Error::corrupt(format!("pack header: a {} is not a pack", kind.word())));
        }
        Ok(Self { kind, family })
    }
}

/// What stands before a chunk's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) id: ChunkId,
    /// Bytes of the payload that follows.
    pub(crate) stored_len: u32,
    /// Bytes of the chunk.
    pub(crate) plain_len: u32,
    /// How the payload is coded: method in the low four bits (`codec::coding`).
    pub(crate) coding: u8,
}

impl RecordHeader {
    pub(crate) const LEN: usize = 52;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut out = Vec::with_capacity(Self::LEN);
        out.put(&RECORD_MAGIC);
        out.put_u32(self.stored_len);
        out.put_u32(self.plain_len);
        out.put_u8(self.coding);
        out.put_u8(0);
        out.put_u16(0);
        out.put(self.id.as_bytes());
        seal(&mut out, 0);
        out.try_into().expect("4 + 4 + 4 + 1 + 1 + 2 + 32 + 4 bytes were put")
    }

    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(stored);
        if fields.array("record magic")? != RECORD_MAGIC {
            return Err(Error::corrupt("record header: does not begin with its magic"));
        }
        let stored_len = fields.u32("stored length")?;
        let plain_len = fields.u32("plain length")?;
        let coding = fields.u8("coding")?;
        let flags = fields.u8("flags")?;
        fields.u16("reserved")?;
        let id = ChunkId::from_bytes(fields.array("chunk id")?);
        if fields.u32("record checksum")? != checksum(&stored[..Self::LEN - 4]) {
            return Err(Error::corrupt("record header: checksum does not match"));
        }
        if u16::from(flags) & FLAG_SEALED != 0 {
            return Err(Error::new(crate::error::ErrorKind::Unsupported, "record header: encrypted"));
        }
        Ok(Self { id, stored_len, plain_len, coding })
    }
}

/// One record in the table: its header and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableEntry {
    pub(crate) record: RecordHeader,
    /// Offset of the record header in the pack.
    pub(crate) offset: u32,
}

impl TableEntry {
    pub(crate) const LEN: usize = 48;

    /// Offset just after the record.
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + RecordHeader::LEN as u64 + u64::from(self.record.stored_len)
    }
}

/// The table of all records, in the order in which they stand.
pub(crate) fn encode_table(entries: &[TableEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * TableEntry::LEN);
    for TableEntry { record, offset } in entries {
        out.put(record.id.as_bytes());
        out.put_u32(*offset);
        out.put_u32(record.stored_len);
        out.put_u32(record.plain_len);
        out.put_u8(record.coding);
        out.put(&[0; 3]);
    }
    out
}

/// Reads a table; the records must stand one after the other between header and table.
pub(crate) fn decode_table(stored: &[u8], trailer: &PackTrailer) -> Result<Vec<TableEntry>> {
    if stored.len() != trailer.count as usize * TableEntry::LEN {
        return Err(Error::corrupt(format!("pack table: {} bytes for {} records", stored.len(), trailer.count)));
    }
    if checksum(stored) != trailer.table_checksum {
        return Err(Error::corrupt("pack table: checksum does not match"));
    }
    let mut fields = Fields::new(stored);
    let mut entries = Vec::with_capacity(trailer.count as usize);
    let mut end = PackHeader::LEN as u64;
    for _ in 0..trailer.count {
        let id = ChunkId::from_bytes(fields.array("chunk id")?);
        let offset = fields.u32("offset")?;
        let stored_len = fields.u32("stored length")?;
        let plain_len = fields.u32("plain length")?;
        let coding = fields.u8("coding")?;
        fields.array::<3>("reserved")?;
        let entry = TableEntry { record: RecordHeader { id, stored_len, plain_len, coding }, offset };
        if u64::from(offset) != end {
            return Err(Error::corrupt(format!("pack table: a record at {offset}, the one before ends at {end}")));
        }
        end = entry.end();
        entries.push(entry);
    }
    if end != u64::from(trailer.table_offset) {
        return Err(Error::corrupt(format!("pack table: the records end at {end}, the table begins elsewhere")));
    }
    Ok(entries)
}

/// The last bytes of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackTrailer {
    pub(crate) table_offset: u32,
    pub(crate) count: u32,
    pub(crate) table_checksum: u32,
}

impl PackTrailer {
    pub(crate) const LEN: usize = 24;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.put_u32(self.table_offset);
        out.put_u32(self.count);
        out.put_u32(self.table_checksum);
        seal(&mut out, 0);
        out.put(&TRAILER_MAGIC);
        out
    }

    /// Reads the trailer of a pack of `pack_len` bytes; table and trailer must fill its end exactly.
    pub(crate) fn decode(stored: &[u8], pack_len: u64) -> Result<Self> {
        let mut fields = Fields::new(stored);
        let trailer = Self {
            table_offset: fields.u32("table offset")?,
            count: fields.u32("record count")?,
            table_checksum: fields.u32("table checksum")?,
        };
        let sum = fields.u32("trailer checksum")?;
        if fields.array("trailer magic")? != TRAILER_MAGIC {
            return Err(Error::corrupt("pack trailer: does not end with its magic"));
        }
        fields.end("pack trailer")?;
        if sum != checksum(&stored[..12]) {
            return Err(Error::corrupt("pack trailer: checksum does not match"));
        }
        let table = u64::from(trailer.count) * TableEntry::LEN as u64;
        if u64::from(trailer.table_offset) + table + Self::LEN as u64 != pack_len {
            return Err(Error::corrupt(format!("pack trailer: does not fit a pack of {pack_len} bytes")));
        }
        Ok(trailer)
    }
}
