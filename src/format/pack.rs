//! Packs: header · records · table · trailer. Page: docs/format/pack.md.
//!
//! A record's header makes its chunk salvageable without table or index; the table makes a pack readable without reading its records.

use super::bytes::{Fields, Put, check_flags, check_sum, check_version, put_magic, seal, take_magic};
use super::config::Chunking;
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
        check_sum("pack header", fields.u32("header checksum")?, &stored[..Self::LEN - 4])?;
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
    /// The longest payload that a reader takes: what is stored raw, and some room for a coding that adds a little.
    pub(crate) const STORED_LEN_MAX: u32 = Chunking::MOST + 4096;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut out = Vec::with_capacity(Self::LEN);
        out.put(&RECORD_MAGIC);
        out.put_u32(self.stored_len);
        out.put_u8(0);
        out.put_u8(self.coding);
        out.put_u16(0);
        out.put_u32(self.plain_len);
        out.put(self.id.as_bytes());
        seal(&mut out, 0);
        out.try_into().expect("4 + 4 + 1 + 1 + 2 + 4 + 32 + 4 bytes were put")
    }

    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(stored);
        if fields.array("record magic")? != RECORD_MAGIC {
            return Err(Error::corrupt("record header: does not begin with its magic"));
        }
        let stored_len = fields.u32("stored length")?;
        // A sealed header is longer and has its checksum elsewhere, so the flags come first.
        check_flags("record header", u16::from(fields.u8("flags")?))?;
        let coding = fields.u8("coding")?;
        fields.u16("reserved")?;
        let plain_len = fields.u32("plain length")?;
        let id = ChunkId::from_bytes(fields.array("chunk id")?);
        check_sum("record header", fields.u32("record checksum")?, &stored[..Self::LEN - 4])?;
        let record = Self { id, stored_len, plain_len, coding };
        record.check("record header")?;
        Ok(record)
    }

    /// Refuses lengths that would make a reader allocate without bound.
    pub(super) fn check(&self, what: &str) -> Result<()> {
        let Self { stored_len, plain_len, .. } = *self;
        if plain_len <= Chunking::MOST && stored_len <= Self::STORED_LEN_MAX {
            return Ok(());
        }
        Err(Error::corrupt(format!("{what}: a chunk of {plain_len} bytes in {stored_len} is too long")))
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
        out.put_u8(0);
        out.put_u16(0);
    }
    out
}

/// Reads a table; the records must stand one after the other between header and table.
pub(crate) fn decode_table(stored: &[u8], trailer: &PackTrailer) -> Result<Vec<TableEntry>> {
    if stored.len() as u64 != u64::from(trailer.count) * TableEntry::LEN as u64 {
        return Err(Error::corrupt(format!("pack table: {} bytes for {} records", stored.len(), trailer.count)));
    }
    check_sum("pack table", trailer.table_checksum, stored)?;
    let mut fields = Fields::new(stored);
    let mut entries = Vec::with_capacity(trailer.count as usize);
    let mut end = PackHeader::LEN as u64;
    for _ in 0..trailer.count {
        let id = ChunkId::from_bytes(fields.array("chunk id")?);
        let offset = fields.u32("offset")?;
        let stored_len = fields.u32("stored length")?;
        let plain_len = fields.u32("plain length")?;
        let coding = fields.u8("coding")?;
        check_flags("pack table", u16::from(fields.u8("flags")?))?;
        fields.u16("reserved")?;
        let entry = TableEntry { record: RecordHeader { id, stored_len, plain_len, coding }, offset };
        if u64::from(offset) != end {
            return Err(Error::corrupt(format!("pack table: a record at {offset}, the one before ends at {end}")));
        }
        entry.record.check("pack table")?;
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
    pub(crate) const LEN: usize = 28;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.put_u32(self.table_offset);
        out.put_u32(self.count);
        out.put_u32(self.table_checksum);
        // Whoever reads a pack from its end never sees the header, so version and flags stand here too.
        out.put_u16(VERSION);
        out.put_u16(0);
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
        let version = fields.u16("version")?;
        let flags = fields.u16("flags")?;
        let sum = fields.u32("trailer checksum")?;
        if fields.array("trailer magic")? != TRAILER_MAGIC {
            return Err(Error::corrupt("pack trailer: does not end with its magic"));
        }
        fields.end("pack trailer")?;
        check_version("pack trailer", version, VERSION)?;
        check_flags("pack trailer", flags)?;
        check_sum("pack trailer", sum, &stored[..16])?;
        let table = u64::from(trailer.count) * TableEntry::LEN as u64;
        if u64::from(trailer.table_offset) + table + Self::LEN as u64 != pack_len {
            return Err(Error::corrupt(format!("pack trailer: does not fit a pack of {pack_len} bytes")));
        }
        Ok(trailer)
    }
}
