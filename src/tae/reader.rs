//! Reads columns of an object, block by block, by their position in the written batch.

use crate::error::{Error, Result};

use super::meta::{Extent, ObjectMeta};
use super::object::{ParsedObject, decode_lz4};
use super::read_at::ReadAt;
use super::types::DataType;
use super::vector::Vector;

/// Largest column of one block that is decoded: far above what 8192 rows of metadata take.
pub(super) const COLUMN_PLAIN_MAX: u32 = 1 << 30;

/// Most rows of a block of metadata; servers write 8192. Bounds the work that a few hostile bytes can ask for.
const BLOCK_ROWS_MAX: u32 = 1 << 16;

/// An object whose rows are wanted.
pub(super) struct ObjectReader<'a> {
    source: &'a dyn ReadAt,
    meta: ObjectMeta,
}

/// The decoded columns of one block, by position.
pub(super) struct BlockColumns {
    pub(super) rows: u32,
    columns: Vec<Option<(DataType, Vec<u8>)>>,
}

impl<'a> ObjectReader<'a> {
    /// Opens an object that has to be one: here a file that does not parse is an error.
    pub(super) fn open(source: &'a dyn ReadAt) -> Result<Self> {
        let parsed = ParsedObject::read(source)?.map_err(|not_tae| Error::corrupt(not_tae.to_string()))?;
        Ok(Self { source, meta: parsed.meta })
    }

    /// Decodes the first `width` columns of each block in turn and hands them to `visit`. Memory: one block at a time.
    pub(super) fn for_each_block(
        &self,
        width: usize,
        visit: &mut dyn FnMut(&BlockColumns) -> Result<()>,
    ) -> Result<()> {
        let mut stored = Vec::new();
        for block in self.meta.data().blocks() {
            let rows = block.header().rows();
            if rows > BLOCK_ROWS_MAX {
                return Err(Error::corrupt(format!("a block of metadata says it has {rows} rows")));
            }
            let mut columns = Vec::new();
            columns.resize_with(width, || None);
            for column in block.columns().filter(|column| column.is_stored()) {
                if let Some(place) = columns.get_mut(usize::from(column.idx())) {
                    let mut plain = Vec::new();
                    read_extent(self.source, column.extent(), &mut stored, &mut plain)?;
                    *place = Some((DataType(column.type_oid()), plain));
                }
            }
            visit(&BlockColumns { rows, columns })?;
        }
        Ok(())
    }
}

impl BlockColumns {
    /// The column at a position, which must be there, of this type and with a value for every row.
    pub(super) fn column(&self, idx: usize, data_type: DataType) -> Result<Vector<'_>> {
        let Some((found, content)) = self.columns.get(idx).and_then(Option::as_ref) else {
            return Err(Error::corrupt(format!("column {idx} is absent")));
        };
        let vector = Vector::parse(content).map_err(|error| error.context(format!("column {idx}")))?;
        // Both name a type of text, and releases differ in which they use.
        let text = |t: DataType| t == DataType::CHAR || t == DataType::VARCHAR;
        let fits = |t: DataType| t == data_type || (text(t) && text(data_type));
        if !fits(*found) || !fits(vector.data_type()) || vector.rows() != self.rows {
            return Err(Error::corrupt(format!(
                "column {idx}: {} rows of {} ({found} by its meta), expected {} of {data_type}",
                vector.rows(),
                vector.data_type(),
                self.rows
            )));
        }
        Ok(vector)
    }

    /// True if the block has a column at this position.
    pub(super) fn has(&self, idx: usize) -> bool {
        self.columns.get(idx).is_some_and(Option::is_some)
    }
}

/// Types of the columns of an object's first block, by position.
pub(super) fn column_types(meta: &ObjectMeta) -> Vec<DataType> {
    let Some(block) = meta.data().blocks().next() else { return Vec::new() };
    let mut columns: Vec<_> = block
        .columns()
        .filter(|column| column.type_oid() != 0)
        .map(|column| (column.idx(), DataType(column.type_oid())))
        .collect();
    columns.sort_by_key(|(idx, _)| *idx);
    columns.into_iter().map(|(_, data_type)| data_type).collect()
}

/// Reads and decodes one extent; both buffers are reused.
fn read_extent(source: &dyn ReadAt, extent: Extent, stored: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<()> {
    if extent.plain_len > COLUMN_PLAIN_MAX {
        let len = extent.plain_len;
        return Err(Error::corrupt(format!("column data at {}: {len} bytes are too many", extent.offset)));
    }
    stored.resize(extent.stored_len as usize, 0);
    source.read_exact_at(u64::from(extent.offset), stored)?;
    if extent.is_lz4() {
        decode_lz4(stored, extent.plain_len, plain)
            .map_err(|why| Error::corrupt(format!("column data at {}: {why}", extent.offset)))
    } else {
        plain.clear();
        plain.extend_from_slice(stored);
        Ok(())
    }
}
