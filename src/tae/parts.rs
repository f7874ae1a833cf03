//! Every extent of an object with what it is for: what is listed, and what is validated.

use super::meta::Extent;
use super::object::{DataExtent, ParsedObject};
use super::types::DataType;

/// What the bytes of an extent are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ExtentContent {
    /// A column of a block.
    Column {
        /// Number of the block within its slot.
        block: u16,
        /// Sequence number of the column.
        seqnum: u16,
        /// Type of the column.
        #[serde(rename = "type")]
        data_type: DataType,
        /// Rows of the block.
        rows: u32,
    },
    /// Bloom filters of all blocks of a slot.
    Bloom,
    /// Zonemaps of all blocks of a slot.
    Zonemap,
    /// The object meta.
    Meta,
}

/// One extent of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ExtentDescription {
    /// Where it begins in the (logical) file.
    pub offset: u32,
    /// Length as stored.
    pub stored_len: u32,
    /// Length once decoded.
    pub plain_len: u32,
    /// True if it is one LZ4 block.
    pub lz4: bool,
    /// The slot: 0 for rows, 1 always empty since release 2, more in checkpoints of old releases.
    pub slot: u16,
    /// What it is.
    pub content: ExtentContent,
}

impl ExtentDescription {
    fn new(extent: Extent, slot: u16, content: ExtentContent) -> Self {
        let Extent { offset, stored_len, plain_len, .. } = extent;
        Self { offset, stored_len, plain_len, lz4: extent.is_lz4(), slot, content }
    }

    /// Where it lies, without what it is.
    pub fn extent(&self) -> DataExtent {
        let Self { offset, stored_len, plain_len, lz4, .. } = *self;
        DataExtent { offset: offset.into(), stored_len, plain_len, lz4 }
    }

    /// What it is, for people.
    pub(super) fn place(&self) -> String {
        let at = self.offset;
        match self.content {
            ExtentContent::Column { block, seqnum, data_type, .. } => {
                format!("block {block}, column {seqnum} ({data_type}), offset {at}")
            }
            ExtentContent::Bloom => format!("bloom filters of slot {}, offset {at}", self.slot),
            ExtentContent::Zonemap => format!("zonemaps of slot {}, offset {at}", self.slot),
            ExtentContent::Meta => format!("object meta, offset {at}"),
        }
    }
}

/// All extents of an object in file order.
pub(super) fn all(parsed: &ParsedObject) -> Vec<ExtentDescription> {
    let mut parts = Vec::with_capacity(parsed.layout.extent_count());
    for (number, slot) in (0u16..).zip(parsed.meta.slots()) {
        for (block_number, block) in (0u16..).zip(slot.blocks()) {
            let rows = block.header().rows();
            for (seqnum, column) in (0u16..).zip(block.columns()).filter(|(_, column)| column.is_stored()) {
                let data_type = DataType(column.type_oid());
                let content = ExtentContent::Column { block: block_number, seqnum, data_type, rows };
                parts.push(ExtentDescription::new(column.extent(), number, content));
            }
        }
        let header = slot.header();
        for (extent, content) in [(header.bloom(), ExtentContent::Bloom), (header.zonemap(), ExtentContent::Zonemap)] {
            if extent.stored_len != 0 {
                parts.push(ExtentDescription::new(extent, number, content));
            }
        }
    }
    parts.push(ExtentDescription::new(parsed.header.meta, 0, ExtentContent::Meta));
    parts.sort_unstable_by_key(|part| part.offset);
    parts
}
