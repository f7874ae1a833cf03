//! What an object is and what it holds, for people and tools: `everpack tae FILE`.

use crate::error::Result;

use super::meta::{BlockHeader, Slot};
use super::name::TaeName;
use super::object::{NotTae, ObjectLayout, Owner, ParsedObject};
use super::parts::{self, ExtentContent, ExtentDescription};
use super::read_at::ReadAt;
use super::reader::column_types;
use super::types::DataType;
use super::validate::{Finding, Severity};
use super::zonemap::{Bounds, bounds};

/// What an object is for, as far as its content tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// Rows of a table.
    TableData,
    /// Deletions of rows of a table.
    Tombstone,
    /// A list of checkpoints, `ckp/`.
    CheckpointMeta,
    /// The index object of a checkpoint.
    CheckpointIndex,
    /// A data object of a checkpoint.
    CheckpointData,
    /// Ids of the tables that changed, kept beside a checkpoint.
    TableIds,
    /// A window of garbage collection, `gc/gc_*`.
    GcMeta,
    /// Objects known to garbage collection.
    GcData,
    /// What SQL snapshots hold on to, `gc/snap_*`.
    SnapshotMeta,
    /// Accounts and their tables, `gc/acct_*`.
    AccountMeta,
    /// A query result.
    QueryResult,
    /// Temporary.
    Temporary,
    /// Without rows, or of a shape not known here.
    Unknown,
}

/// One column of an object.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ColumnDescription {
    /// Sequence number: stays with a column for the life of its table.
    pub seqnum: u16,
    /// Position in the written rows, which is the order in the file.
    pub idx: u16,
    /// Type.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// True for row address, commit time and the like, which the server adds.
    pub is_special: bool,
    /// True if the rows are sorted by it.
    pub is_sort_key: bool,
    /// Blocks that have it.
    pub blocks: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// Bytes once decoded.
    pub plain_bytes: u64,
    /// Null values.
    pub null_count: u64,
    /// Different values, estimated by the server; 0 if it did not.
    pub distinct_count: u32,
    /// Least and greatest value.
    pub bounds: Option<Bounds>,
}

/// One block of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BlockDescription {
    /// Its number.
    pub sequence: u16,
    /// Its rows.
    pub rows: u32,
}

/// What is known of an object from its meta alone.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ObjectDescription {
    /// What it is for.
    pub kind: ObjectKind,
    /// Whose content it says it is.
    pub owner: Owner,
    /// Unix milliseconds at which its name was made, if it has one.
    pub created_ms: Option<u64>,
    /// Length of the (logical) file.
    pub file_len: u64,
    /// Version of the table's schema.
    pub schema_version: u32,
    /// True if it was written row by row, in order of time.
    pub is_appendable: bool,
    /// Rows in all blocks.
    pub rows: u64,
    /// Blocks in order.
    pub blocks: Vec<BlockDescription>,
    /// Columns by sequence number.
    pub columns: Vec<ColumnDescription>,
    /// Slots; more than two only in checkpoints of old releases.
    pub slots: u64,
    /// Extents of every kind.
    pub extents: u64,
    /// Column data as stored.
    pub data_bytes: u64,
    /// Column data once decoded.
    pub data_plain_bytes: u64,
    /// Plain bytes of column data for each stored one.
    pub ratio: Option<f64>,
    /// Bloom filters as stored.
    pub bloom_bytes: u64,
    /// Zonemaps as stored.
    pub zonemap_bytes: u64,
    /// Object meta as stored.
    pub meta_bytes: u64,
    /// Object meta once decoded.
    pub meta_plain_bytes: u64,
    /// What is not as it should be, as far as the meta tells; [`mod@super::validate`] looks at the rest.
    pub findings: Vec<Finding>,
}

/// Describes an object from its header and meta. `name` is the name it lies under, if it has an object's name.
pub fn describe(source: &dyn ReadAt, name: Option<&TaeName>) -> Result<Result<ObjectDescription, NotTae>> {
    Ok(ParsedObject::read(source)?.map(|parsed| description(&parsed, name)))
}

/// All extents of an object in file order, with what each is for.
pub fn list_extents(source: &dyn ReadAt) -> Result<Result<Vec<ExtentDescription>, NotTae>> {
    Ok(ParsedObject::read(source)?.map(|parsed| parts::all(&parsed)))
}

fn description(parsed: &ParsedObject, name: Option<&TaeName>) -> ObjectDescription {
    let ParsedObject { header, meta, layout } = parsed;
    let data = meta.data();
    let blocks: Vec<_> = (data.blocks().map(|block| block.header()))
        .map(|block| BlockDescription { sequence: block.sequence(), rows: block.rows() })
        .collect();
    let mut description = ObjectDescription {
        kind: kind(layout.owner(), &column_types(meta)),
        owner: layout.owner(),
        created_ms: match (name, layout.owner()) {
            (Some(name), _) => Some(name.created_ms()),
            (None, Owner::Object(name)) => Some(name.created_ms()),
            _ => None,
        },
        file_len: layout.file_len(),
        schema_version: header.schema_version,
        is_appendable: data.header().is_appendable(),
        rows: blocks.iter().map(|block| u64::from(block.rows)).sum(),
        blocks,
        columns: columns(&data),
        slots: meta.slots().len() as u64,
        extents: layout.extent_count() as u64,
        data_bytes: 0,
        data_plain_bytes: 0,
        ratio: None,
        bloom_bytes: 0,
        zonemap_bytes: 0,
        meta_bytes: header.meta.stored_len.into(),
        meta_plain_bytes: meta.plain_len() as u64,
        findings: findings(&data.header(), layout, name),
    };
    for part in parts::all(parsed) {
        match part.content {
            ExtentContent::Column { .. } => {
                description.data_bytes += u64::from(part.stored_len);
                description.data_plain_bytes += u64::from(part.plain_len);
            }
            ExtentContent::Bloom => description.bloom_bytes += u64::from(part.stored_len),
            ExtentContent::Zonemap => description.zonemap_bytes += u64::from(part.stored_len),
            ExtentContent::Meta => {}
        }
    }
    description.ratio = ratio(description.data_plain_bytes, description.data_bytes);
    if matches!(layout.owner(), Owner::Object(_)) && u64::from(data.header().rows()) != description.rows {
        description.findings.push(Finding {
            severity: Severity::Damage,
            place: "object meta".to_owned(),
            what: format!("its header has {} rows, its blocks {}", data.header().rows(), description.rows),
        });
    }
    description
}

#[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(plain: u64, stored: u64) -> Option<f64> {
    (stored > 0).then(|| plain as f64 / stored as f64)
}

/// Adds up the columns of all blocks.
fn columns(data: &Slot<'_>) -> Vec<ColumnDescription> {
    let header = data.header();
    let mut columns: Vec<Option<ColumnDescription>> = Vec::new();
    for block in data.blocks() {
        for (seqnum, column) in (0u16..).zip(block.columns()) {
            let place = usize::from(seqnum);
            if columns.len() <= place {
                columns.resize(place + 1, None);
            }
            if column.type_oid() == 0 {
                continue;
            }
            let sum = columns[place].get_or_insert_with(|| ColumnDescription {
                seqnum,
                idx: column.idx(),
                data_type: DataType(column.type_oid()),
                is_special: seqnum > header.seqnum_max(),
                is_sort_key: header.sort_key() == Some(seqnum),
                blocks: 0,
                stored_bytes: 0,
                plain_bytes: 0,
                null_count: 0,
                distinct_count: 0,
                bounds: None,
            });
            sum.blocks += 1;
            sum.stored_bytes += u64::from(column.extent().stored_len);
            sum.plain_bytes += u64::from(column.extent().plain_len);
            sum.null_count += u64::from(column.null_count());
            if header.block_count() == 1 {
                sum.bounds = bounds(&column.zonemap());
                sum.distinct_count = column.ndv();
            }
        }
    }
    for (whole, sum) in data.columns().zip(&mut columns) {
        if let Some(sum) = sum {
            sum.bounds = bounds(&whole.zonemap()).or(sum.bounds.take());
            sum.distinct_count = sum.distinct_count.max(whole.ndv());
        }
    }
    columns.into_iter().flatten().collect()
}

fn findings(header: &BlockHeader<'_>, layout: &ObjectLayout, name: Option<&TaeName>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(name) = name
        && !layout.belongs_to(name)
    {
        let what = match layout.owner() {
            Owner::Object(owner) => format!("the content is that of {owner}, the file is named {name}"),
            other => format!("the content is marked {other:?}, the file is named {name}"),
        };
        findings.push(Finding { severity: Severity::Damage, place: "object meta".to_owned(), what });
    }
    if let Some(seqnum) = header.sort_key()
        && usize::from(seqnum) >= header.meta_column_count()
        && header.block_count() > 0
    {
        let what = format!("the sort key is column {seqnum}, there are {}", header.meta_column_count());
        findings.push(Finding { severity: Severity::Note, place: "object meta".to_owned(), what });
    }
    findings
}

/// Judges by the writer's tag, then by the types of the columns: no table has a row address in front or a `ts` inside.
fn kind(owner: Owner, columns: &[DataType]) -> ObjectKind {
    let mut types = [0; 8];
    for (oid, column) in types.iter_mut().zip(columns) {
        // Releases differ in which of the two they use.
        *oid = if *column == DataType::CHAR { DataType::VARCHAR.0 } else { column.0 };
    }
    match (owner, columns.len(), types) {
        (Owner::CheckpointMeta, ..) => ObjectKind::CheckpointMeta,
        (Owner::DiskCleaner, 1, [61, ..]) => ObjectKind::GcMeta,
        (Owner::DiskCleaner, 5, [61, 100, 100, 61, 28, ..]) => ObjectKind::SnapshotMeta,
        (Owner::DiskCleaner, 6, [27, 28, 28, 100, 100, 61, ..]) => ObjectKind::AccountMeta,
        (Owner::DiskCleaner, ..) => ObjectKind::Unknown,
        (Owner::QueryResult, ..) => ObjectKind::QueryResult,
        (Owner::TmpWriter, ..) => ObjectKind::Temporary,
        (_, 0, _) => ObjectKind::Unknown,
        (_, 8, [27, 28, 28, 20, 61, 100, 100, 61]) => ObjectKind::CheckpointData,
        (_, 5, [28, 20, 101, 101, 61, ..]) => ObjectKind::CheckpointIndex,
        (_, 5, [27, 28, 28, 100, 100, ..]) => ObjectKind::TableIds,
        (_, 5, [61, 100, 100, 28, 28, ..]) => ObjectKind::GcData,
        (_, 2.., [101, ..]) => ObjectKind::Tombstone,
        _ => ObjectKind::TableData,
    }
}
