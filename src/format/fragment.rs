//! Index fragments: which chunks the packs of one session hold. Page: docs/format/fragment.md.

use super::bytes::{Fields, Put, check_flags, check_sum, checksum, put_magic, seal, take_magic};
use super::pack::{PackHeader, RecordHeader, TableEntry};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectHash, ObjectKind, ObjectName, SessionId};

const MAGIC: [u8; 8] = *b"EVPKINDX";
const VERSION: u16 = 1;
/// magic 8, version 2, flags 2, packs 4, entries 4, body checksum 4, checksum 4.
const HEADER_LEN: usize = 28;
const PACK_LEN: usize = 52;
const ENTRY_LEN: usize = 48;

/// A pack as a fragment names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentPack {
    pub(crate) name: ObjectName,
    /// Bytes of the stored object.
    pub(crate) size: u64,
}

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentEntry {
    pub(crate) id: ChunkId,
    /// Position in the fragment's list of packs.
    pub(crate) pack: u16,
    /// Offset of the record header.
    pub(crate) offset: u32,
    pub(crate) stored_len: u32,
    pub(crate) plain_len: u32,
    pub(crate) coding: u8,
}

impl FragmentEntry {
    fn sort_key(&self) -> (ChunkId, u16, u32) {
        (self.id, self.pack, self.offset)
    }

    /// The record must lie inside its pack and be of a length that a reader takes.
    fn check(&self, packs: &[FragmentPack]) -> Result<()> {
        let Self { id, stored_len, plain_len, coding, .. } = *self;
        RecordHeader { id, stored_len, plain_len, coding }.check("index fragment")?;
        let Some(pack) = packs.get(usize::from(self.pack)) else {
            let message = format!("index fragment: an entry names pack {} of {}", self.pack, packs.len());
            return Err(Error::corrupt(message));
        };
        let end = u64::from(self.offset) + RecordHeader::LEN as u64 + u64::from(stored_len);
        if (self.offset as usize) < PackHeader::LEN || end > pack.size {
            let message = format!("index fragment: a record at {} does not lie in its {}", self.offset, pack.name);
            return Err(Error::corrupt(message));
        }
        Ok(())
    }
}

/// The whole fragment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Fragment {
    /// At most 65 535.
    pub(crate) packs: Vec<FragmentPack>,
    /// Sorted by chunk id, then pack, then offset.
    pub(crate) entries: Vec<FragmentEntry>,
}

impl Fragment {
    /// Names a pack and all its records. Fails if there are 65 535 packs already.
    pub(crate) fn push_pack(&mut self, name: ObjectName, size: u64, table: &[TableEntry]) -> Result<()> {
        let pack = u16::try_from(self.packs.len()).ok().filter(|pack| *pack < u16::MAX);
        let pack = pack.ok_or_else(|| Error::invalid("index fragment: more than 65535 packs"))?;
        self.packs.push(FragmentPack { name, size });
        self.entries.extend(table.iter().map(|TableEntry { record, offset }| FragmentEntry {
            id: record.id,
            pack,
            offset: *offset,
            stored_len: record.stored_len,
            plain_len: record.plain_len,
            coding: record.coding,
        }));
        Ok(())
    }

    /// Sorts the entries and writes everything down.
    pub(crate) fn encode(&mut self) -> Vec<u8> {
        self.entries.sort_unstable_by_key(FragmentEntry::sort_key);
        let body_len = self.packs.len() * PACK_LEN + self.entries.len() * ENTRY_LEN;
        let mut body = Vec::with_capacity(body_len);
        for FragmentPack { name, size } in &self.packs {
            body.put_u32(u32::from(name.kind.code()));
            body.put_u64(*size);
            body.put(name.hash.as_bytes());
            body.put(name.session.as_bytes());
        }
        for entry in &self.entries {
            body.put(entry.id.as_bytes());
            body.put_u16(entry.pack);
            body.put_u8(entry.coding);
            body.put_u8(0);
            body.put_u32(entry.offset);
            body.put_u32(entry.stored_len);
            body.put_u32(entry.plain_len);
        }
        let mut out = Vec::with_capacity(HEADER_LEN + body_len);
        put_magic(&mut out, MAGIC, VERSION, 0);
        out.put_count(self.packs.len());
        out.put_count(self.entries.len());
        out.put_u32(checksum(&body));
        seal(&mut out, 0);
        out.put(&body);
        out
    }

    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(stored);
        take_magic(&mut fields, "index fragment", MAGIC, VERSION)?;
        let pack_count = fields.u32("pack count")? as usize;
        let entry_count = fields.u32("entry count")? as usize;
        let body_checksum = fields.u32("body checksum")?;
        check_sum("index fragment header", fields.u32("header checksum")?, &stored[..HEADER_LEN - 4])?;
        let body = fields.rest();
        let need = pack_count as u64 * PACK_LEN as u64 + entry_count as u64 * ENTRY_LEN as u64;
        // Bytes behind the known ones are a later release's, and optional by definition.
        if pack_count > usize::from(u16::MAX) || need > body.len() as u64 {
            return Err(Error::corrupt(format!(
                "index fragment: {} bytes do not hold {pack_count} packs and {entry_count} entries",
                body.len()
            )));
        }
        check_sum("index fragment body", body_checksum, body)?;
        let packs: Vec<FragmentPack> = (0..pack_count).map(|_| decode_pack(&mut fields)).collect::<Result<Vec<_>>>()?;
        let mut entries: Vec<FragmentEntry> = Vec::with_capacity(entry_count);
        for _ in 0..entry_count {
            let entry = decode_entry(&mut fields)?;
            entry.check(&packs)?;
            if entries.last().is_some_and(|last| last.sort_key() >= entry.sort_key()) {
                return Err(Error::corrupt("index fragment: entries are not sorted"));
            }
            entries.push(entry);
        }
        Ok(Self { packs, entries })
    }
}

fn decode_pack(fields: &mut Fields<'_>) -> Result<FragmentPack> {
    let code = fields.u32("pack kind")?;
    let kind = ObjectKind::from_code(u8::try_from(code).unwrap_or(0))?;
    let size = fields.u64("pack size")?;
    let hash = ObjectHash::from_bytes(fields.array("pack hash")?);
    let session = SessionId::from_bytes(fields.array("pack session")?);
    if !matches!(kind, ObjectKind::DataPack | ObjectKind::MetaPack) {
        return Err(Error::corrupt(format!("index fragment: a {} is not a pack", kind.word())));
    }
    Ok(FragmentPack { name: ObjectName { kind, hash, session }, size })
}

fn decode_entry(fields: &mut Fields<'_>) -> Result<FragmentEntry> {
    let id = ChunkId::from_bytes(fields.array("chunk id")?);
    let pack = fields.u16("pack number")?;
    let coding = fields.u8("coding")?;
    check_flags("index fragment", u16::from(fields.u8("entry flags")?))?;
    Ok(FragmentEntry {
        id,
        pack,
        coding,
        offset: fields.u32("offset")?,
        stored_len: fields.u32("stored length")?,
        plain_len: fields.u32("plain length")?,
    })
}
