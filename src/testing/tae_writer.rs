//! Writes valid MatrixOne TAE objects, for tests and benchmarks.
//!
//! Blocks of column vectors go in; the bytes of one object come out: header, LZ4 extents column by column, bloom filter and
//! zonemap regions of the two slots, LZ4 object meta, footer. The regions tile the object exactly, in the order in which
//! MatrixOne writes them, and the footer ends in a process address as its footers do (the caller gives it).
//!
//! Not done here: MatrixOne's own LZ4 encoder (any valid block is a valid extent), bloom filters that can be queried, distinct
//! counts, and the objects of releases before 2.0. Names end in `_00000`…; CRC framing belongs to whoever stores the bytes.

use crate::error::{Error, Result};

pub use self::name::{SplitMix, TaeName, filter_bytes, object_name};
pub use self::vector::Vector;

mod name;
#[cfg(test)]
mod tests;
mod vector;

/// The header and the footer are this long.
const EDGE_LEN: usize = 64;
const BLOCK_HEADER_LEN: usize = 179;
const COLUMN_META_LEN: usize = 124;
const ZONE_MAP_LEN: usize = 64;
/// MatrixOne's writer refuses more than this, so every offset fits 32 bits.
const OBJECT_LEN_MAX: u64 = 3 << 30;
const NO_SORT_KEY: u16 = 0xFFFF;

const META_ENTRY: [u8; 4] = [1, 0, 3, 0];
const BLOOM_ENTRY: [u8; 4] = [3, 0, 2, 0];
const ZONE_MAP_ENTRY: [u8; 4] = [4, 0, 1, 0];

/// What an object is, besides its rows.
#[derive(Clone, Copy, Debug)]
pub struct TaeOptions {
    /// The name, which the object meta repeats unless there is a `tag`.
    pub name: TaeName,
    /// The 16-byte tag in place of the segment: `CheckPoint_MetaX`, `Disk_CleanerXXXX`, `Writer_ETLXXXXXX`.
    pub tag: Option<[u8; 16]>,
    /// The address that MatrixOne leaks into the footer.
    pub process_address: u64,
    /// Version of the table's schema.
    pub schema_version: u32,
    /// Written as it lay in memory, not yet sorted.
    pub appendable: bool,
    /// The column by which rows are sorted.
    pub sort_key: Option<u16>,
    /// How many of the last columns are not the table's own: row address and commit time.
    pub special_columns: u16,
}

impl TaeOptions {
    /// A plain object without a sort key.
    pub fn new(name: TaeName) -> Self {
        let process_address = 0xC0_0000_0000;
        Self {
            name,
            tag: None,
            process_address,
            schema_version: 0,
            appendable: false,
            sort_key: None,
            special_columns: 0,
        }
    }

    /// The object id in the meta: the name's, or the tag and number 0.
    fn object_id(&self) -> [u8; 18] {
        let Some(tag) = self.tag else { return self.name.object_id() };
        let mut id = [0; 18];
        id[..16].copy_from_slice(&tag);
        id
    }

    /// Checkpoint and GC files say nothing about rows and columns as a whole; what BACKUP rewrites does.
    fn is_special(&self) -> bool {
        self.tag.is_some_and(|tag| &tag != b"Writer_ETLXXXXXX")
    }
}

/// One finished object.
#[derive(Clone, Debug)]
pub struct TaeObject {
    /// The logical bytes of the file.
    pub bytes: Vec<u8>,
    /// The 154-byte statistics by which checkpoints name it.
    pub stats: [u8; 154],
}

/// A pointer into the object.
#[derive(Clone, Copy, Default)]
struct Extent {
    lz4: bool,
    offset: u32,
    stored_len: u32,
    plain_len: u32,
}

impl Extent {
    const LEN: usize = 13;

    fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = u8::from(self.lz4);
        bytes[1..5].copy_from_slice(&self.offset.to_le_bytes());
        bytes[5..9].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[9..].copy_from_slice(&self.plain_len.to_le_bytes());
        bytes
    }
}

/// One column of one block, compressed; `extent.offset` is known only in `finish`.
struct StoredColumn {
    oid: u8,
    null_count: u32,
    zone_map: [u8; ZONE_MAP_LEN],
    bytes: Vec<u8>,
    extent: Extent,
}

struct StoredBlock {
    rows: u32,
    columns: Vec<StoredColumn>,
    filter: Vec<u8>,
}

/// Collects blocks and lays them out as one object. Holds about twice the stored bytes.
pub struct TaeWriter {
    options: TaeOptions,
    blocks: Vec<StoredBlock>,
    stored_len: u64,
    plain_len: u64,
    payload: Vec<u8>,
    lz4: Lz4,
}

/// An LZ4 encoder that keeps its tables and its output buffer.
struct Lz4 {
    small: lz4_flex::block::CompressTable,
    large: lz4_flex::block::CompressTable,
    buffer: Vec<u8>,
}

impl Lz4 {
    fn new() -> Self {
        use lz4_flex::block::CompressTable;
        Self { small: CompressTable::small(), large: CompressTable::large(), buffer: Vec::new() }
    }

    fn compress(&mut self, plain: &[u8]) -> Result<Vec<u8>> {
        let bound = lz4_flex::block::get_maximum_output_size(plain.len());
        if self.buffer.len() < bound {
            self.buffer.resize(bound, 0);
        }
        let table = if plain.len() < usize::from(u16::MAX) { &mut self.small } else { &mut self.large };
        let len = lz4_flex::block::compress_into_with_table(plain, &mut self.buffer, table)
            .map_err(|error| Error::with_source(crate::error::ErrorKind::Invalid, "compress an extent", error))?;
        Ok(self.buffer[..len].to_vec())
    }
}

impl TaeWriter {
    /// A writer of one object.
    pub fn new(options: TaeOptions) -> Self {
        Self { options, blocks: Vec::new(), stored_len: 0, plain_len: 0, payload: Vec::new(), lz4: Lz4::new() }
    }

    /// Adds a block. All its columns have the same number of rows; MatrixOne has at most 8192 in a block. `filter` is the
    /// block's bloom filter, empty for tables without a key. Fails if the object becomes larger than MatrixOne allows.
    pub fn push_block(&mut self, columns: &[Vector], filter: Vec<u8>) -> Result<()> {
        let rows = columns.first().map_or(0, Vector::rows);
        if columns.iter().any(|column| column.rows() != rows) {
            return Err(Error::invalid(format!("write {}: columns of a block differ in rows", self.options.name)));
        }
        if self.blocks.len() >= usize::from(u16::MAX) || columns.len() >= usize::from(u16::MAX) {
            return Err(Error::invalid(format!("write {}: too many blocks or columns", self.options.name)));
        }
        let special = self.options.is_special();
        let mut stored = Vec::with_capacity(columns.len());
        for column in columns {
            self.payload.clear();
            column.encode_into(&mut self.payload)?;
            let bytes = self.lz4.compress(&self.payload)?;
            self.stored_len += bytes.len() as u64 + COLUMN_META_LEN as u64 * 2 + ZONE_MAP_LEN as u64;
            self.plain_len += self.payload.len() as u64;
            self.check_len()?;
            let plain_len = len_u32(self.payload.len())?;
            let extent = Extent { lz4: true, offset: 0, stored_len: len_u32(bytes.len())?, plain_len };
            let zone_map = if special { [0; ZONE_MAP_LEN] } else { column.zone_map() };
            stored.push(StoredColumn { oid: column.oid(), null_count: column.null_count(), zone_map, bytes, extent });
        }
        self.stored_len += filter.len() as u64;
        self.check_len()?;
        self.blocks.push(StoredBlock { rows, columns: stored, filter });
        Ok(())
    }

    fn check_len(&self) -> Result<()> {
        if self.stored_len > OBJECT_LEN_MAX || self.plain_len > u64::from(u32::MAX) {
            return Err(Error::invalid(format!("write {}: more than an object can hold", self.options.name)));
        }
        Ok(())
    }

    /// Lays everything out.
    pub fn finish(mut self) -> Result<TaeObject> {
        let capacity = usize::try_from(self.stored_len).unwrap_or(0) + 4096;
        let mut out = Vec::with_capacity(capacity);
        out.resize(EDGE_LEN, 0);
        self.place_data(&mut out)?;

        let bloom = place_raw(&mut out, &self.bloom_region()?)?;
        let zone_maps = self.place_lz4(&mut out, &self.zone_map_region()?)?;
        let empty_bloom = place_raw(&mut out, &[&BLOOM_ENTRY[..], &[1, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0]].concat())?;
        let empty_zone_maps = self.place_lz4(&mut out, &[&ZONE_MAP_ENTRY[..], &[0; 4]].concat())?;

        let meta_offset = len_u32(out.len())?;
        let mut plain = Vec::new();
        plain.extend_from_slice(&META_ENTRY);
        plain.extend_from_slice(&self.meta_header());
        self.slot_meta(&mut plain, meta_offset, bloom, zone_maps)?;
        self.empty_slot_meta(&mut plain, meta_offset, empty_bloom, empty_zone_maps);
        let meta = self.place_lz4(&mut out, &plain)?;

        out.extend_from_slice(&[0; 48]);
        out.extend_from_slice(&self.options.process_address.to_le_bytes());
        out.extend_from_slice(&13u64.to_le_bytes());
        out[..8].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
        out[8..10].copy_from_slice(&1u16.to_le_bytes());
        out[10..10 + Extent::LEN].copy_from_slice(&meta.encode());
        out[23..27].copy_from_slice(&self.options.schema_version.to_le_bytes());
        let stats = self.stats(meta, len_u32(out.len())?);
        Ok(TaeObject { bytes: out, stats })
    }

    /// Writes the extents column by column, and remembers where.
    fn place_data(&mut self, out: &mut Vec<u8>) -> Result<()> {
        for position in 0..self.column_count() {
            for block in &mut self.blocks {
                let Some(column) = block.columns.get_mut(position) else { continue };
                column.extent.offset = len_u32(out.len())?;
                out.extend_from_slice(&column.bytes);
                column.bytes = Vec::new();
            }
        }
        Ok(())
    }

    fn place_lz4(&mut self, out: &mut Vec<u8>, plain: &[u8]) -> Result<Extent> {
        let bytes = self.lz4.compress(plain)?;
        let extent = Extent {
            lz4: true,
            offset: len_u32(out.len())?,
            stored_len: len_u32(bytes.len())?,
            plain_len: len_u32(plain.len())?,
        };
        out.extend_from_slice(&bytes);
        Ok(extent)
    }

    fn column_count(&self) -> usize {
        self.blocks.iter().map(|block| block.columns.len()).max().unwrap_or(0)
    }

    fn rows(&self) -> u32 {
        self.blocks.iter().map(|block| block.rows).fold(0, u32::saturating_add)
    }

    fn block_count(&self) -> u16 {
        u16::try_from(self.blocks.len()).expect("push_block refuses more")
    }

    fn bloom_region(&self) -> Result<Vec<u8>> {
        let lens = self.blocks.iter().map(|block| block.filter.len()).chain([0]);
        let mut region = BLOOM_ENTRY.to_vec();
        block_index(&mut region, self.blocks.len() + 1, 0, lens)?;
        for block in &self.blocks {
            region.extend_from_slice(&block.filter);
        }
        Ok(region)
    }

    fn zone_map_region(&self) -> Result<Vec<u8>> {
        let lens = self.blocks.iter().map(|block| block.columns.len() * ZONE_MAP_LEN);
        let mut region = ZONE_MAP_ENTRY.to_vec();
        block_index(&mut region, self.blocks.len(), 0, lens)?;
        for column in self.blocks.iter().flat_map(|block| &block.columns) {
            region.extend_from_slice(&column.zone_map);
        }
        Ok(region)
    }

    /// Points to the first slot; since 2.0 the tombstone slot is not pointed to, it just follows.
    fn meta_header(&self) -> [u8; 34] {
        let mut header = [0; 34];
        header[..2].copy_from_slice(&self.block_count().to_le_bytes());
        header[2..6].copy_from_slice(&34u32.to_le_bytes());
        header
    }

    fn slot_meta(&self, plain: &mut Vec<u8>, meta_offset: u32, bloom: Extent, zone_maps: Extent) -> Result<()> {
        let columns = self.column_count();
        let block_len = |block: &StoredBlock| BLOCK_HEADER_LEN + COLUMN_META_LEN * block.columns.len();
        let index_at = BLOCK_HEADER_LEN + COLUMN_META_LEN * columns;
        let slot_len = index_at + 4 + 8 * self.blocks.len() + self.blocks.iter().map(block_len).sum::<usize>();

        let mut header = self.slot_header(columns, meta_offset, len_u32(slot_len)?, bloom, zone_maps);
        header[34..36].copy_from_slice(&self.block_count().to_le_bytes());
        plain.extend_from_slice(&header);
        for position in 0..columns {
            plain.extend_from_slice(&self.column_run(position));
        }
        block_index(plain, self.blocks.len(), index_at, self.blocks.iter().map(block_len))?;
        for (number, block) in (0u16..).zip(&self.blocks) {
            let mut header = [0; BLOCK_HEADER_LEN];
            header[34..36].copy_from_slice(&number.to_le_bytes());
            header[36..40].copy_from_slice(&block.rows.to_le_bytes());
            self.put_column_counts(&mut header, block.columns.len());
            plain.extend_from_slice(&header);
            for (idx, column) in (0u16..).zip(&block.columns) {
                plain.extend_from_slice(&column_meta(
                    column.oid,
                    idx,
                    column.null_count,
                    column.extent,
                    &column.zone_map,
                ));
            }
        }
        Ok(())
    }

    /// The tombstone slot: no blocks, but its regions are written all the same.
    fn empty_slot_meta(&self, plain: &mut Vec<u8>, meta_offset: u32, bloom: Extent, zone_maps: Extent) {
        let mut header = self.slot_header(0, meta_offset, 183, bloom, zone_maps);
        header[144..146].copy_from_slice(&self.block_count().to_le_bytes());
        plain.extend_from_slice(&header);
        plain.extend_from_slice(&[0; 4]);
    }

    fn slot_header(
        &self,
        columns: usize,
        meta_offset: u32,
        slot_len: u32,
        bloom: Extent,
        zone_maps: Extent,
    ) -> [u8; BLOCK_HEADER_LEN] {
        let mut header = [0; BLOCK_HEADER_LEN];
        header[16..34].copy_from_slice(&self.options.object_id());
        let rows = if self.options.is_special() { 0 } else { self.rows() };
        header[36..40].copy_from_slice(&rows.to_le_bytes());
        let meta = Extent { lz4: false, offset: meta_offset, stored_len: 0, plain_len: slot_len };
        header[42..55].copy_from_slice(&meta.encode());
        header[55..68].copy_from_slice(&bloom.encode());
        header[72..85].copy_from_slice(&zone_maps.encode());
        self.put_column_counts(&mut header, columns);
        header[146] = u8::from(self.options.appendable);
        header[147..149].copy_from_slice(&self.options.sort_key.unwrap_or(NO_SORT_KEY).to_le_bytes());
        header
    }

    /// Columns in the batch, columns in the meta, greatest sequence number of the table's own: here all are dense.
    fn put_column_counts(&self, header: &mut [u8; BLOCK_HEADER_LEN], columns: usize) {
        let columns = u16::try_from(columns).expect("push_block refuses more");
        let greatest = columns.saturating_sub(self.options.special_columns).saturating_sub(1);
        header[40..42].copy_from_slice(&columns.to_le_bytes());
        header[140..142].copy_from_slice(&columns.to_le_bytes());
        header[142..144].copy_from_slice(&greatest.to_le_bytes());
    }

    /// The column meta of a column over all blocks; special objects have none.
    fn column_run(&self, position: usize) -> [u8; COLUMN_META_LEN] {
        let mut columns = self.blocks.iter().filter_map(|block| block.columns.get(position));
        let Some(first) = columns.next() else { return [0; COLUMN_META_LEN] };
        if self.options.is_special() {
            return [0; COLUMN_META_LEN];
        }
        let mut run = first.extent;
        let mut null_count = first.null_count;
        let mut zone_map = first.zone_map;
        for column in columns {
            run.stored_len = run.stored_len.saturating_add(column.extent.stored_len);
            run.plain_len = run.plain_len.saturating_add(column.extent.plain_len);
            null_count = null_count.saturating_add(column.null_count);
            zone_map = vector::merge_zone_maps(first.oid, &zone_map, &column.zone_map);
        }
        column_meta(0, 0, null_count, run, &zone_map)
    }

    fn stats(&self, meta: Extent, object_len: u32) -> [u8; 154] {
        let mut stats = [0; 154];
        stats[..60].copy_from_slice(&self.options.name.long_form());
        stats[60..73].copy_from_slice(&meta.encode());
        stats[73..77].copy_from_slice(&self.rows().to_le_bytes());
        stats[77..81].copy_from_slice(&u32::from(self.block_count()).to_le_bytes());
        if let Some(sort_key) = self.options.sort_key {
            stats[81..145].copy_from_slice(&self.column_run(usize::from(sort_key))[28..92]);
        }
        stats[145..149].copy_from_slice(&object_len.to_le_bytes());
        let plain_len = u32::try_from(self.plain_len).expect("push_block refuses more");
        stats[149..153].copy_from_slice(&plain_len.to_le_bytes());
        let sorted = self.options.sort_key.is_some() && !self.options.appendable;
        stats[153] = u8::from(self.options.appendable) | u8::from(sorted) << 1;
        stats
    }
}

fn place_raw(out: &mut Vec<u8>, plain: &[u8]) -> Result<Extent> {
    let len = len_u32(plain.len())?;
    let extent = Extent { lz4: false, offset: len_u32(out.len())?, stored_len: len, plain_len: len };
    out.extend_from_slice(plain);
    Ok(extent)
}

fn column_meta(
    oid: u8,
    idx: u16,
    null_count: u32,
    extent: Extent,
    zone_map: &[u8; ZONE_MAP_LEN],
) -> [u8; COLUMN_META_LEN] {
    let mut meta = [0; COLUMN_META_LEN];
    meta[0] = oid;
    meta[1..3].copy_from_slice(&idx.to_le_bytes());
    meta[7..11].copy_from_slice(&null_count.to_le_bytes());
    meta[11..24].copy_from_slice(&extent.encode());
    meta[28..92].copy_from_slice(zone_map);
    meta
}

/// A count and that many (offset, length); offsets count from `base` bytes before the index.
fn block_index(out: &mut Vec<u8>, count: usize, base: usize, lens: impl Iterator<Item = usize>) -> Result<()> {
    out.extend_from_slice(&len_u32(count)?.to_le_bytes());
    let mut at = base + 4 + 8 * count;
    for len in lens {
        out.extend_from_slice(&len_u32(at)?.to_le_bytes());
        out.extend_from_slice(&len_u32(len)?.to_le_bytes());
        at += len;
    }
    Ok(())
}

fn len_u32(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::invalid("write a TAE object: longer than 4 GiB"))
}
