//! Fills a pack record by record.

use bytes::Bytes;

use crate::buffers::Buffers;
use crate::codec::object_hash;
use crate::format::pack::{PackHeader, PackTrailer, RecordHeader, TableEntry, encode_table};
use crate::format::{Put, checksum};
use crate::id::{ChunkId, FamilyId, ObjectKind, ObjectName, SessionId};

/// A pack in the making.
#[derive(Debug)]
pub(crate) struct PackBuilder {
    kind: ObjectKind,
    family: FamilyId,
    target: usize,
    buffers: Buffers,
    stored: Vec<u8>,
    table: Vec<TableEntry>,
}

/// A complete pack, not stored yet.
#[derive(Clone, Debug)]
pub(crate) struct SealedPack {
    pub(crate) name: ObjectName,
    pub(crate) stored: Bytes,
    pub(crate) table: Vec<TableEntry>,
}

impl PackBuilder {
    /// `target` is the size in bytes at which the pack is full.
    pub(crate) fn new(kind: ObjectKind, family: FamilyId, target: usize) -> Self {
        Self::with_buffers(kind, family, target, Buffers::new(0))
    }

    /// The same, for one who makes many packs: the memory of those that are stored serves the next.
    pub(crate) fn with_buffers(kind: ObjectKind, family: FamilyId, target: usize, buffers: Buffers) -> Self {
        Self { kind, family, target, buffers, stored: Vec::new(), table: Vec::new() }
    }

    /// Bytes that the sealed pack would have.
    pub(crate) fn len(&self) -> usize {
        self.stored.len() + self.table.len() * TableEntry::LEN + PackTrailer::LEN
    }

    /// True when a record of `stored_len` bytes should go to the next pack.
    pub(crate) fn is_full_for(&self, stored_len: usize) -> bool {
        !self.table.is_empty() && self.len() + RecordHeader::LEN + stored_len + TableEntry::LEN > self.target
    }

    /// Appends a chunk.
    pub(crate) fn push(&mut self, id: ChunkId, plain_len: u32, coding: u8, payload: &[u8]) {
        if self.stored.is_empty() {
            // Room for all of it at once: growing would copy, and untouched pages cost nothing.
            self.stored = self.buffers.take(self.target as u64);
            self.stored.put(&PackHeader { kind: self.kind, family: self.family }.encode());
        }
        let stored_len = u32::try_from(payload.len()).expect("a coded chunk is at most a little longer than a chunk");
        let offset = u32::try_from(self.stored.len()).expect("packs are sealed far below 4 GiB");
        let record = RecordHeader { id, stored_len, plain_len, coding };
        self.stored.put(&record.encode());
        self.stored.put(payload);
        self.table.push(TableEntry { record, offset });
    }

    /// Closes the pack; the builder is empty afterwards. `None` if nothing was pushed.
    pub(crate) fn seal(&mut self) -> Option<UnnamedPack> {
        if self.table.is_empty() {
            return None;
        }
        let mut stored = std::mem::take(&mut self.stored);
        let table = std::mem::take(&mut self.table);
        let trailer_at = u32::try_from(stored.len()).expect("packs are sealed far below 4 GiB");
        let encoded = encode_table(&table);
        stored.put(&encoded);
        let trailer = PackTrailer {
            table_offset: trailer_at,
            count: u32::try_from(table.len()).expect("fewer records than bytes"),
            table_checksum: checksum(&encoded),
        };
        stored.put(&trailer.encode());
        Some(UnnamedPack { kind: self.kind, stored: self.buffers.lend(stored), table })
    }
}

/// A closed pack whose hash was not computed yet, so that it can be computed on another thread.
#[derive(Debug)]
pub(crate) struct UnnamedPack {
    kind: ObjectKind,
    stored: Bytes,
    table: Vec<TableEntry>,
}

impl UnnamedPack {
    /// Hashes the pack (about 0.25 s a GB on one core) and names it after hash and session.
    pub(crate) fn name(self, session: SessionId) -> SealedPack {
        let hash = object_hash(&self.stored);
        SealedPack { name: ObjectName { kind: self.kind, hash, session }, stored: self.stored, table: self.table }
    }
}
