//! Where everything lies in a TAE object: the map by which it is cut, checked and coded.
//!
//! `header 64 | data extents | filters: bloom and zonemap of each slot | object meta | footer 64`
//!
//! [`ObjectLayout::read`] finds all extents through the header and the object meta and demands that they tile the file
//! without gap or overlap. Whatever does not is [`NotTae`]: a value, not an error, since such a file is still backed up,
//! as opaque bytes. The last 64 bytes say nothing: the server writes a process address there. No checksums exist inside
//! objects; what proves them is that they tile and that every LZ4 block decodes to its stated length ([`mod@super::validate`]).

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use crate::error::{Error, Result};

use super::meta::{Extent, FileHeader, ObjectMeta};
use super::name::TaeName;
use super::read_at::ReadAt;

/// Largest object meta that is decoded. The real limit of a server (256 blocks, 4096 columns) is half of it.
const META_PLAIN_MAX: u32 = 256 << 20;

/// Why a file is not (or no longer) a TAE object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTae {
    /// What does not fit.
    pub reason: Cow<'static, str>,
    /// True if the file begins like an object and fails later: a damaged one, or one of a format not known here.
    pub begins_like_one: bool,
}

impl NotTae {
    pub(super) fn foreign(reason: &'static str) -> Self {
        Self { reason: reason.into(), begins_like_one: false }
    }

    pub(super) fn damaged(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), begins_like_one: true }
    }
}

impl fmt::Display for NotTae {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A stored region that is one LZ4 block or plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataExtent {
    /// Where it begins in the (logical) file.
    pub offset: u64,
    /// Length as stored; never 0.
    pub stored_len: u32,
    /// Length once decoded.
    pub plain_len: u32,
    /// True if it is one LZ4 block.
    pub lz4: bool,
}

impl DataExtent {
    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.stored_len)
    }
}

impl From<Extent> for DataExtent {
    fn from(extent: Extent) -> Self {
        Self {
            offset: u64::from(extent.offset),
            stored_len: extent.stored_len,
            plain_len: extent.plain_len,
            lz4: extent.is_lz4(),
        }
    }
}

/// Who an object says it belongs to, in the object id of its meta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// The object of this name.
    Object(TaeName),
    /// `CheckPoint_MetaX`: a file of `ckp/`.
    CheckpointMeta,
    /// `Disk_CleanerXXXX`: a file of `gc/`.
    DiskCleaner,
    /// `Query_ResultXXXX`.
    QueryResult,
    /// `Writer_ETLXXXXXX`: also the data objects that BACKUP rewrites.
    EtlWriter,
    /// `Writer_NormalXXX`.
    NormalWriter,
    /// `Writer_TmpXXXXXX`.
    TmpWriter,
}

impl Owner {
    fn from_id(id: &[u8; 18]) -> Self {
        match &id[..16] {
            b"CheckPoint_MetaX" => Self::CheckpointMeta,
            b"Disk_CleanerXXXX" => Self::DiskCleaner,
            b"Query_ResultXXXX" => Self::QueryResult,
            b"Writer_ETLXXXXXX" => Self::EtlWriter,
            b"Writer_NormalXXX" => Self::NormalWriter,
            b"Writer_TmpXXXXXX" => Self::TmpWriter,
            _ => Self::Object(TaeName::from_id(id)),
        }
    }
}

/// The map of one object. 24 bytes of memory for each extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLayout {
    len: u64,
    owner: Owner,
    data_extents: Vec<DataExtent>,
    filter_extents: Vec<DataExtent>,
    meta: DataExtent,
}

impl ObjectLayout {
    /// Reads the map of a file (logical bytes, see [`super::Unframed`]).
    ///
    /// A file that is no object costs one read of 64 bytes. Fails only when reading fails.
    pub fn read(source: &dyn ReadAt) -> Result<Result<Self, NotTae>> {
        Ok(ParsedObject::read(source)?.map(|parsed| parsed.layout))
    }

    /// Length of the whole file.
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// The first 64 bytes.
    pub fn header(&self) -> Range<u64> {
        0..FileHeader::LEN as u64
    }

    /// All column data.
    pub fn data(&self) -> Range<u64> {
        let start = FileHeader::LEN as u64;
        start..self.data_extents.last().map_or(start, DataExtent::end)
    }

    /// Bloom filters and zonemaps of all slots.
    pub fn filters(&self) -> Range<u64> {
        self.data().end..self.meta.offset
    }

    /// The object meta.
    pub fn meta(&self) -> Range<u64> {
        self.meta.offset..self.meta.end()
    }

    /// The last 64 bytes; they differ between identical writes.
    pub fn footer(&self) -> Range<u64> {
        self.meta.end()..self.len
    }

    /// The extents that tile [`Self::data`], in file order.
    pub fn data_extents(&self) -> &[DataExtent] {
        &self.data_extents
    }

    /// The extents that tile [`Self::filters`], in file order.
    pub fn filter_extents(&self) -> &[DataExtent] {
        &self.filter_extents
    }

    /// The one extent of the object meta.
    pub fn meta_extent(&self) -> DataExtent {
        self.meta
    }

    /// Number of extents of every kind.
    pub fn extent_count(&self) -> usize {
        self.data_extents.len() + self.filter_extents.len() + 1
    }

    /// Whose content this is.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// True if the content may stand under this name.
    ///
    /// The data objects that BACKUP rewrites (`_01000` and above) bear their writer's tag in place of the name.
    pub fn belongs_to(&self, name: &TaeName) -> bool {
        match self.owner {
            Owner::Object(owner) => owner == *name,
            Owner::EtlWriter => !name.is_content_stable(),
            _ => false,
        }
    }
}

/// An object's map together with its meta, for those who describe and validate.
#[derive(Debug)]
pub(super) struct ParsedObject {
    pub(super) header: FileHeader,
    pub(super) meta: ObjectMeta,
    pub(super) layout: ObjectLayout,
}

/// What ends parsing early.
enum Stop {
    Failed(Error),
    NotTae(NotTae),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<NotTae> for Stop {
    fn from(not_tae: NotTae) -> Self {
        Self::NotTae(not_tae)
    }
}

impl ParsedObject {
    pub(super) fn read(source: &dyn ReadAt) -> Result<Result<Self, NotTae>> {
        match Self::read_or_stop(source) {
            Ok(parsed) => Ok(Ok(parsed)),
            Err(Stop::NotTae(not_tae)) => Ok(Err(not_tae)),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    fn read_or_stop(source: &dyn ReadAt) -> Result<Self, Stop> {
        let len = source.len();
        if len < (FileHeader::LEN + FileHeader::FOOTER_LEN) as u64 {
            return Err(NotTae::foreign("the file is shorter than the header and footer of an object").into());
        }
        let mut header = [0; FileHeader::LEN];
        source.read_exact_at(0, &mut header)?;
        let header = FileHeader::parse(&header, len)?;
        let meta = ObjectMeta::parse(read_meta(source, header.meta)?)?;
        let layout = tile(&meta, header.meta, len)?;
        Ok(Self { header, meta, layout })
    }
}

fn read_meta(source: &dyn ReadAt, extent: Extent) -> Result<Vec<u8>, Stop> {
    if extent.plain_len > META_PLAIN_MAX || extent.stored_len > META_PLAIN_MAX {
        let message = format!("object meta: {} bytes are more than any object has", extent.plain_len);
        return Err(NotTae::damaged(message).into());
    }
    let mut stored = vec![0; extent.stored_len as usize];
    source.read_exact_at(u64::from(extent.offset), &mut stored)?;
    if !extent.is_lz4() {
        return Ok(stored);
    }
    let mut plain = Vec::new();
    decode_lz4(&stored, extent.plain_len, &mut plain).map_err(|why| NotTae::damaged(format!("object meta: {why}")))?;
    Ok(plain)
}

/// Decodes one LZ4 block, which must give exactly `plain_len` bytes, into `plain`, whose content is replaced.
pub(super) fn decode_lz4(stored: &[u8], plain_len: u32, plain: &mut Vec<u8>) -> Result<(), String> {
    // A byte of LZ4 stands for at most 255: this keeps a few hostile bytes from asking for gigabytes.
    if u64::from(plain_len) > stored.len() as u64 * 255 {
        return Err(format!("{} bytes of LZ4 cannot hold {plain_len}", stored.len()));
    }
    plain.clear();
    plain.resize(plain_len as usize, 0);
    match lz4_flex::block::decompress_into(stored, plain) {
        Ok(len) if len == plain.len() => Ok(()),
        Ok(len) => Err(format!("LZ4 decodes to {len} bytes, not {plain_len}")),
        Err(error) => Err(format!("LZ4 does not decode: {error}")),
    }
}

/// Collects all extents and proves that they tile the file.
fn tile(meta: &ObjectMeta, meta_extent: Extent, len: u64) -> Result<ObjectLayout, NotTae> {
    let mut data_extents = Vec::new();
    let mut filter_extents = Vec::with_capacity(meta.slots().len() * 2);
    for slot in meta.slots() {
        for column in slot.blocks().flat_map(|block| block.columns()).filter(|column| column.is_stored()) {
            data_extents.push(DataExtent::from(column.extent().checked("column data")?));
        }
        for extent in [slot.header().bloom(), slot.header().zonemap()] {
            if extent.stored_len != 0 {
                filter_extents.push(DataExtent::from(extent.checked("filters")?));
            }
        }
    }
    data_extents.sort_unstable_by_key(|extent| extent.offset);
    data_extents.shrink_to_fit();
    let mut at = FileHeader::LEN as u64;
    let meta_extent = DataExtent::from(meta_extent);
    for extent in data_extents.iter().chain(&filter_extents).chain([&meta_extent]) {
        if extent.offset != at {
            let found = extent.offset;
            let what = if found > at { "gap" } else { "overlap" };
            return Err(NotTae::damaged(format!("{what}: an extent begins at {found}, the one before ends at {at}")));
        }
        at = extent.end();
    }
    let owner = Owner::from_id(&meta.data().header().object_id());
    Ok(ObjectLayout { len, owner, data_extents, filter_extents, meta: meta_extent })
}
