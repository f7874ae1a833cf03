//! What checkpoints say: their entries, and the objects each entry names.
//!
//! A file of `ckp/` lists checkpoint *entries*, all that were known when it was written. An entry (version 13, release
//! 2.1 and later) points to an *index object*, whose rows name *data objects*, whose rows name the table objects. Entries
//! of older versions are read, but what they point to is not.

use std::collections::BTreeSet;

use crate::error::{Context, Error, Result};

use super::name::{TaeName, Ts};
use super::read_at::ReadAt;
use super::reader::{BlockColumns, ObjectReader};
use super::stats::{Location, ObjectStats};
use super::types::DataType;

/// The version of entries whose objects can be followed.
pub const CHECKPOINT_VERSION: u32 = 13;

/// Columns of a checkpoint file: 10 since release 4, 9 before, 5 in the oldest.
const FILE_WIDTH: usize = 10;
/// More entries than any checkpoint file has: real ones list tens. The same for all `table_ids` of a file: a column that is one constant
/// would otherwise ask for its whole value again with every row.
const ENTRIES_MAX: usize = 1 << 16;

/// What a checkpoint covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointKind {
    /// Everything until its end.
    Global,
    /// What happened between its start and end.
    Incremental,
    /// Made by BACKUP.
    Backup,
    /// Several made into one.
    Compacted,
    /// A number not known here.
    Unknown,
}

/// One entry of a checkpoint file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRow {
    /// Where it starts; `0-0` for one that covers all before.
    pub start: Ts,
    /// Where it ends.
    pub end: Ts,
    /// What it covers.
    pub kind: CheckpointKind,
    /// The column `entry_type`: true for all but global ones.
    pub incremental: bool,
    /// How the objects behind it are built.
    pub version: u32,
    /// The index object.
    pub index: Option<Location>,
    /// Position in the log at its end; BACKUP leaves that of global checkpoints as it is.
    pub checkpoint_lsn: u64,
    /// The log may be cut before this position.
    pub truncate_lsn: u64,
    /// Objects with the ids of changed tables, which no backup contains and nothing needs.
    pub table_ids: Vec<Location>,
}

/// Reads the entries of a file of `ckp/`.
pub fn read_checkpoint_rows(source: &dyn ReadAt) -> Result<Vec<CheckpointRow>> {
    let mut rows = Vec::new();
    let mut table_ids = 0;
    ObjectReader::open(source)?.for_each_block(FILE_WIDTH, &mut |block| {
        if rows.len() + block.rows as usize > ENTRIES_MAX {
            return Err(Error::corrupt(format!("checkpoint file: more than {ENTRIES_MAX} entries")));
        }
        for row in 0..block.rows {
            let entry = checkpoint_row(block, row).context(|| format!("checkpoint entry {row}"))?;
            table_ids += entry.table_ids.len();
            if table_ids > ENTRIES_MAX {
                return Err(Error::corrupt(format!("checkpoint file: more than {ENTRIES_MAX} table id objects")));
            }
            rows.push(entry);
        }
        Ok(())
    })?;
    Ok(rows)
}

fn checkpoint_row(block: &BlockColumns, row: u32) -> Result<CheckpointRow> {
    let ts = |idx| Ok::<_, Error>(Ts::from_bytes(block.column(idx, DataType::TS)?.fixed(row)?));
    let lsn = |idx| match block.has(idx) {
        true => Ok::<_, Error>(u64::from_le_bytes(block.column(idx, DataType::UINT64)?.fixed(row)?)),
        false => Ok(0),
    };
    let incremental = block.column(3, DataType::BOOL)?.fixed::<1>(row)? != [0];
    let kind = match block.has(8) {
        true => match block.column(8, DataType::INT8)?.fixed::<1>(row)? {
            [0] => CheckpointKind::Global,
            [1] => CheckpointKind::Incremental,
            [2] => CheckpointKind::Backup,
            [3] => CheckpointKind::Compacted,
            _ => CheckpointKind::Unknown,
        },
        false if incremental => CheckpointKind::Incremental,
        false => CheckpointKind::Global,
    };
    let index = block.column(2, DataType::VARCHAR)?.value(row)?.unwrap_or_default();
    let table_ids = match block.has(9) {
        true => locations(block.column(9, DataType::VARCHAR)?.value(row)?.unwrap_or_default())?,
        false => Vec::new(),
    };
    Ok(CheckpointRow {
        start: ts(0)?,
        end: ts(1)?,
        kind,
        incremental,
        version: u32::from_le_bytes(block.column(4, DataType::UINT32)?.fixed(row)?),
        index: if index.is_empty() { None } else { Some(Location::parse(index)?) },
        checkpoint_lsn: lsn(6)?,
        truncate_lsn: lsn(7)?,
        table_ids,
    })
}

/// Locations one behind the other.
fn locations(bytes: &[u8]) -> Result<Vec<Location>> {
    bytes.chunks(Location::LEN).map(Location::parse).collect()
}

/// Reads an index object: the data objects that it names, each once.
pub fn read_index(source: &dyn ReadAt) -> Result<Vec<ObjectStats>> {
    const STATS: usize = 4;
    let mut seen = BTreeSet::new();
    let mut objects = Vec::new();
    ObjectReader::open(source)?.for_each_block(STATS + 1, &mut |block| {
        let stats = block.column(STATS, DataType::CHAR)?;
        for row in 0..block.rows {
            let stats = ObjectStats::parse(stats.value(row)?.unwrap_or_default())?;
            if seen.insert(stats.name) {
                objects.push(stats);
            }
        }
        Ok(())
    })?;
    Ok(objects)
}

/// One object of a table, as a checkpoint data object names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRow {
    /// The tenant.
    pub account: u32,
    /// The database.
    pub database: u64,
    /// The table.
    pub table: u64,
    /// True for a tombstone, which holds deletions.
    pub is_tombstone: bool,
    /// The object.
    pub stats: ObjectStats,
    /// Since when it belongs to the table.
    pub created: Ts,
    /// Since when it does no longer; `0-0` if it still does.
    pub deleted: Ts,
}

impl ObjectRow {
    /// The file this row demands. Rows are in memory only, without a file, as long as the object is appended to.
    pub fn file(&self) -> Option<TaeName> {
        let in_memory = self.stats.is_appendable() && self.deleted.is_zero();
        (self.stats.has_file() && !in_memory).then_some(self.stats.name)
    }
}

/// Reads a checkpoint data object and hands each row to `visit`. Memory: one block at a time.
pub fn read_object_rows(source: &dyn ReadAt, visit: &mut dyn FnMut(ObjectRow) -> Result<()>) -> Result<()> {
    const WIDTH: usize = 7;
    ObjectReader::open(source)?.for_each_block(WIDTH, &mut |block| {
        let account = block.column(0, DataType::UINT32)?;
        let database = block.column(1, DataType::UINT64)?;
        let table = block.column(2, DataType::UINT64)?;
        let object_type = block.column(3, DataType::INT8)?;
        let stats = block.column(4, DataType::CHAR)?;
        let created = block.column(5, DataType::TS)?;
        let deleted = block.column(6, DataType::TS)?;
        for row in 0..block.rows {
            visit(ObjectRow {
                account: u32::from_le_bytes(account.fixed(row)?),
                database: u64::from_le_bytes(database.fixed(row)?),
                table: u64::from_le_bytes(table.fixed(row)?),
                is_tombstone: object_type.fixed::<1>(row)? == [2],
                stats: ObjectStats::parse(stats.value(row)?.unwrap_or_default())?,
                created: Ts::from_bytes(created.fixed(row)?),
                deleted: Ts::from_bytes(deleted.fixed(row)?),
            })?;
        }
        Ok(())
    })
}
