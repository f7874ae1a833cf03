//! The object meta: which blocks and columns an object has, and where their bytes lie.
//!
//! The header of a file points to one compressed extent that holds it: a short head, then one *slot meta* after another,
//! each a header, column metas, an index of block metas, and the block metas. [`ObjectMeta::parse`] walks all of it once
//! and proves every length; the views handed out afterwards cannot reach outside. Layout: MatrixOne's `objectio`,
//! versions 2 and 3 (release 1.0 and later).

use std::ops::Range;

use super::object::NotTae;

/// A pointer to bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How the bytes are stored: 0 as they are, 1 as one LZ4 block.
    pub algorithm: u8,
    /// Where they begin in the (logical) file.
    pub offset: u32,
    /// Length as stored.
    pub stored_len: u32,
    /// Length once decoded.
    pub plain_len: u32,
}

impl Extent {
    /// Length of an extent as stored.
    pub const LEN: usize = 13;

    /// From its stored bytes.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self {
            algorithm: bytes[0],
            offset: u32_at(bytes, 1),
            stored_len: u32_at(bytes, 5),
            plain_len: u32_at(bytes, 9),
        }
    }

    /// True if it is one LZ4 block.
    pub fn is_lz4(&self) -> bool {
        self.algorithm == 1
    }

    /// The byte after the last.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.stored_len)
    }

    /// Refuses what no writer produces.
    pub(super) fn checked(self, what: &str) -> Result<Self, NotTae> {
        match self.algorithm {
            0 if self.stored_len != self.plain_len => {
                Err(NotTae::damaged(format!("{what}: {} stored bytes stand for {}", self.stored_len, self.plain_len)))
            }
            0 | 1 => Ok(self),
            other => Err(NotTae::damaged(format!("{what}: compression {other} is not known"))),
        }
    }
}

/// The first 64 bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileHeader {
    pub(super) meta: Extent,
    pub(super) schema_version: u32,
}

impl FileHeader {
    pub(super) const LEN: usize = 64;
    pub(super) const FOOTER_LEN: usize = 64;
    const MAGIC: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    const VERSION: u16 = 1;

    /// Reads the header of a file of `file_len` bytes.
    pub(super) fn parse(bytes: &[u8; Self::LEN], file_len: u64) -> Result<Self, NotTae> {
        if bytes[..8] != Self::MAGIC {
            return Err(NotTae::foreign("the file does not begin with the magic number of an object"));
        }
        let version = u16_at(bytes, 8);
        if version != Self::VERSION {
            return Err(NotTae::damaged(format!("header: version {version} is not known")));
        }
        let meta = extent_at(bytes, 10).checked("header: object meta")?;
        if meta.offset < 64 || meta.end() + Self::FOOTER_LEN as u64 != file_len {
            return Err(NotTae::damaged(format!(
                "header: object meta at {}+{} and a footer of 64 bytes do not end at the file's {file_len} bytes",
                meta.offset, meta.stored_len
            )));
        }
        Ok(Self { meta, schema_version: u32_at(bytes, 23) })
    }
}

/// The type and version in front of every extent's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryHeader {
    pub(super) kind: u16,
    pub(super) version: u16,
}

impl EntryHeader {
    pub(super) const LEN: usize = 4;
    pub(super) const META: u16 = 1;
    pub(super) const COLUMN: u16 = 2;
    pub(super) const BLOOM: u16 = 3;
    pub(super) const ZONEMAP: u16 = 4;

    /// Splits it off the content of an extent.
    pub(super) fn split(content: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = content.split_first_chunk::<{ Self::LEN }>()?;
        Some((Self { kind: u16_at(head, 0), version: u16_at(head, 2) }, rest))
    }
}

const HEAD_LEN: usize = 34;
const SUB_ENTRY_LEN: usize = 8;
const INDEX_ENTRY_LEN: usize = 8;

/// A decoded object meta whose structure has been verified.
#[derive(Debug)]
pub(super) struct ObjectMeta {
    decoded: Vec<u8>,
    slots: Vec<Range<usize>>,
}

impl ObjectMeta {
    /// Walks the decoded meta; everything must be in its place and nothing may be left over.
    pub(super) fn parse(decoded: Vec<u8>) -> Result<Self, NotTae> {
        let body_at = EntryHeader::LEN;
        let Some((entry, body)) = EntryHeader::split(&decoded) else {
            return Err(NotTae::damaged("object meta: shorter than its type and version"));
        };
        if entry.kind != EntryHeader::META || !matches!(entry.version, 2 | 3) {
            let EntryHeader { kind, version } = entry;
            return Err(NotTae::damaged(format!("object meta: type {kind} version {version} is not known")));
        }
        if body.len() < HEAD_LEN {
            return Err(NotTae::damaged("object meta: its head is cut short"));
        }
        let sub_count = usize::from(u16_at(body, 32));
        let mut at = HEAD_LEN + SUB_ENTRY_LEN * sub_count;
        // Not reserved for `sub_count`, which is believed only slot by slot.
        let mut slots = Vec::with_capacity(2);
        for number in 0..2 + sub_count {
            let slot = body.get(at..).unwrap_or_default();
            let len =
                verified_slot_len(slot).map_err(|why| NotTae::damaged(format!("slot {number} at {at}: {why}")))?;
            check_pointer(body, number, at)?;
            slots.push(body_at + at..body_at + at + len);
            at += len;
        }
        if at != body.len() {
            let rest = body.len() - at;
            return Err(NotTae::damaged(format!("object meta: {rest} bytes are left over behind its slots")));
        }
        Ok(Self { decoded, slots })
    }

    pub(super) fn plain_len(&self) -> usize {
        self.decoded.len()
    }

    pub(super) fn slots(&self) -> impl ExactSizeIterator<Item = Slot<'_>> {
        self.slots.iter().map(|range| Slot { bytes: &self.decoded[range.clone()] })
    }

    /// Where each slot lies in the decoded meta.
    pub(super) fn slot_ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.slots.iter().cloned()
    }

    /// The slot that holds table data; there is always one.
    pub(super) fn data(&self) -> Slot<'_> {
        Slot { bytes: &self.decoded[self.slots[0].clone()] }
    }
}

/// Compares the pointer to a slot in the head with where the slot is. Writers leave pointers to empty slots zero.
fn check_pointer(body: &[u8], number: usize, at: usize) -> Result<(), NotTae> {
    let (block_count, pointer) = match number {
        0 => (1, u32_at(body, 2)),
        1 => (u16_at(body, 6), u32_at(body, 8)),
        sub => {
            let entry = HEAD_LEN + SUB_ENTRY_LEN * (sub - 2);
            (u16_at(body, entry + 2), u32_at(body, entry + 4))
        }
    };
    if block_count != 0 && usize::try_from(pointer) != Ok(at) {
        return Err(NotTae::damaged(format!("slot {number}: is at {at}, the head says {pointer}")));
    }
    Ok(())
}

/// Length of the slot meta at the front of `bytes`, after proving that all of it is there and in order.
fn verified_slot_len(bytes: &[u8]) -> Result<usize, String> {
    let mut at = header_and_columns_len(bytes).ok_or("it is cut short")?;
    let block_count = usize::from(u16_at(bytes, 34));
    let index = bytes.get(at..at + 4 + INDEX_ENTRY_LEN * block_count).ok_or("its block index is cut short")?;
    let index_count = u32_at(index, 0);
    if usize::try_from(index_count) != Ok(block_count) {
        return Err(format!("its header has {block_count} blocks, its index {index_count}"));
    }
    at += index.len();
    for (number, entry) in index[4..].chunks_exact(INDEX_ENTRY_LEN).enumerate() {
        let (offset, len) = (u32_at(entry, 0), u32_at(entry, 4));
        let block_len = header_and_columns_len(&bytes[at..]).ok_or_else(|| format!("block {number} is cut short"))?;
        if usize::try_from(offset) != Ok(at) || usize::try_from(len) != Ok(block_len) {
            return Err(format!("block {number} is at {at}+{block_len}, the index says {offset}+{len}"));
        }
        at += block_len;
    }
    Ok(at)
}

/// Length of a header and its column metas at the front of `bytes`, if they are there.
fn header_and_columns_len(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<{ BlockHeader::LEN }>()?;
    let len = BlockHeader::LEN + ColumnMeta::LEN * usize::from(u16_at(header, 140));
    (bytes.len() >= len).then_some(len)
}

/// The meta of one slot. Invariant: `verified_slot_len(bytes) == bytes.len()`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    bytes: &'a [u8],
}

impl<'a> Slot<'a> {
    pub(super) fn header(&self) -> BlockHeader<'a> {
        BlockHeader(self.bytes)
    }

    pub(super) fn columns(&self) -> impl ExactSizeIterator<Item = ColumnMeta<'a>> + use<'a> {
        columns(self.bytes)
    }

    /// Blocks in order.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Block<'a>> + use<'a> {
        let index_at = BlockHeader::LEN + ColumnMeta::LEN * self.header().meta_column_count();
        let mut rest = self.header().block_count();
        let mut bytes = &self.bytes[index_at + 4 + INDEX_ENTRY_LEN * rest..];
        std::iter::from_fn(move || {
            rest = rest.checked_sub(1)?;
            let (block, tail) = bytes.split_at(header_and_columns_len(bytes)?);
            bytes = tail;
            Some(Block { bytes: block })
        })
    }
}

/// The meta of one block of a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    pub(super) fn header(&self) -> BlockHeader<'a> {
        BlockHeader(self.bytes)
    }

    /// All columns by sequence number, absent ones included.
    pub(super) fn columns(&self) -> impl ExactSizeIterator<Item = ColumnMeta<'a>> + use<'a> {
        columns(self.bytes)
    }
}

fn columns(bytes: &[u8]) -> impl ExactSizeIterator<Item = ColumnMeta<'_>> {
    let count = BlockHeader(bytes).meta_column_count();
    bytes[BlockHeader::LEN..][..ColumnMeta::LEN * count].chunks_exact(ColumnMeta::LEN).map(ColumnMeta)
}

/// The header of a slot or block. Invariant: at least [`Self::LEN`] bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockHeader<'a>(&'a [u8]);

impl BlockHeader<'_> {
    pub(super) const LEN: usize = 179;

    /// Object id of a slot: a file's name, or the tag of a special writer. Zero for a block.
    pub(super) fn object_id(self) -> [u8; 18] {
        array_at(self.0, 16)
    }

    /// A slot's number of blocks.
    pub(super) fn block_count(self) -> usize {
        usize::from(self.sequence())
    }

    /// A block's number; for a slot its number of blocks.
    pub(super) fn sequence(self) -> u16 {
        u16_at(self.0, 34)
    }

    pub(super) fn rows(self) -> u32 {
        u32_at(self.0, 36)
    }

    pub(super) fn bloom(self) -> Extent {
        extent_at(self.0, 55)
    }

    pub(super) fn zonemap(self) -> Extent {
        extent_at(self.0, 72)
    }

    pub(super) fn meta_column_count(self) -> usize {
        usize::from(u16_at(self.0, 140))
    }

    /// Greatest sequence number of an ordinary column; special columns come after it.
    pub(super) fn seqnum_max(self) -> u16 {
        u16_at(self.0, 142)
    }

    pub(super) fn is_appendable(self) -> bool {
        self.0[146] != 0
    }

    pub(super) fn sort_key(self) -> Option<u16> {
        Some(u16_at(self.0, 147)).filter(|&seqnum| seqnum != u16::MAX)
    }
}

/// What is known of one column of a block or slot. Invariant: exactly [`Self::LEN`] bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColumnMeta<'a>(&'a [u8]);

impl ColumnMeta<'_> {
    pub(super) const LEN: usize = 124;

    /// Type; 0 if the column is absent.
    pub(super) fn type_oid(self) -> u8 {
        self.0[0]
    }

    /// Position in the written batch, which is the order in the file.
    pub(super) fn idx(self) -> u16 {
        u16_at(self.0, 1)
    }

    pub(super) fn ndv(self) -> u32 {
        u32_at(self.0, 3)
    }

    pub(super) fn null_count(self) -> u32 {
        u32_at(self.0, 7)
    }

    pub(super) fn extent(self) -> Extent {
        extent_at(self.0, 11)
    }

    /// True if the column has bytes in the file.
    pub(super) fn is_stored(self) -> bool {
        self.type_oid() != 0 && self.extent().stored_len != 0
    }

    pub(super) fn zonemap(self) -> [u8; 64] {
        array_at(self.0, 28)
    }
}

/// The caller has proved that the bytes are there.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// The caller has proved that the bytes are there.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

/// The caller has proved that the bytes are there.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn extent_at(bytes: &[u8], at: usize) -> Extent {
    Extent::from_bytes(&array_at(bytes, at))
}
