//! Is everything there that a restored server will ask for?
//!
//! A BACKUP that answered OK may lack files, and then the restored server does not start or loses a table. This follows
//! every entry of every checkpoint file in a tree to the last object.
//!
//! The rule follows the server's replay; on 33 captured trees it gives the verdict and the missing objects that are known:
//! * Entries are taken from *all* checkpoint files, each (start, end, index object) once.
//! * Let G be the greatest end of all global entries (`0-0` if there is none). An entry that ends before G is
//!   *superseded*: the server never opens its index, and old files still list entries whose objects are long collected.
//!   Of compacted entries only the newest counts.
//! * Every other entry demands its index object, the data objects that names, and the object of every row of those,
//!   deleted ones included, except rows without a file: extent of length 0, or appendable and not deleted.
//! * `table_id_location` objects are in no backup and are only counted.
//!
//! What is missing is a result, as is what is damaged or too old to be followed; only failing to read is an error.

use std::collections::{BTreeSet, HashMap};

use crate::error::{ErrorKind, Result};

use super::checkpoint::{
    CHECKPOINT_VERSION, CheckpointKind, CheckpointRow, read_checkpoint_rows, read_index, read_object_rows,
};
use super::name::{MetaName, TaeName, Ts};
use super::read_at::ReadAt;

/// The files of one tree: a BACKUP, a live SHARED, or a manifest with a repository behind it.
pub trait TreeView {
    /// Names of the files in `ckp/`. Files whose names do not parse are ignored by the server too.
    fn checkpoint_files(&self) -> Result<Vec<MetaName>>;

    /// Opens one of them.
    fn open_checkpoint(&self, name: &MetaName) -> Result<Box<dyn ReadAt + '_>>;

    /// The logical length of an object; `None` if it is not there.
    fn object_len(&self, name: &TaeName) -> Result<Option<u64>>;

    /// Opens an object for its logical bytes; `None` if its bytes are not there.
    fn open_object(&self, name: &TaeName) -> Result<Option<Box<dyn ReadAt + '_>>>;
}

/// What an object is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Index object of a checkpoint: without it the server does not start.
    CheckpointIndex,
    /// Data object of a checkpoint: without it the server does not start.
    CheckpointData,
    /// Object of this table: without it only that table is lost.
    Table(u64),
}

/// An object that is needed and not there, or there with another length.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MissingObject {
    /// Its name.
    pub name: TaeName,
    /// What it is needed for.
    pub need: Need,
    /// The length that is asked for.
    pub len: u64,
    /// The length it has; `None` if it is not there.
    pub found_len: Option<u64>,
}

/// Something that should be readable and is not.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Unreadable {
    /// Which file.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
}

/// What came of following the checkpoints of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ClosureReport {
    /// Checkpoint files read.
    pub checkpoint_files: u64,
    /// Different entries in them.
    pub entries: u64,
    /// Those that are superseded by a global or compacted checkpoint.
    pub superseded_entries: u64,
    /// Those of them whose index object is gone: harmless.
    pub superseded_missing: u64,
    /// End of the newest global checkpoint, `0-0` if there is none.
    pub newest_global: Ts,
    /// Different objects that are needed and there.
    pub found: u64,
    /// Rows of checkpoint data objects that were followed.
    pub object_rows: u64,
    /// Those of them without a file.
    pub rows_without_file: u64,
    /// Table-id objects that are not there: harmless.
    pub missing_table_ids: u64,
    /// What is needed and not there.
    pub missing: Vec<MissingObject>,
    /// Checkpoint files and objects that do not parse.
    pub damaged: Vec<Unreadable>,
    /// Entries of versions that cannot be followed here.
    pub unfollowed: Vec<Unreadable>,
}

impl ClosureReport {
    /// True if everything a restored server asks for is proved to be there.
    pub fn is_complete(&self) -> bool {
        self.checkpoint_files > 0 && self.missing.is_empty() && self.damaged.is_empty() && self.unfollowed.is_empty()
    }
}

/// Follows all checkpoints of a tree. Memory: about 40 bytes for each object named.
pub fn closure(files: &dyn TreeView) -> Result<ClosureReport> {
    let mut walk = Walk { files, report: ClosureReport::default(), seen: HashMap::new(), opened: BTreeSet::new() };
    let entries = walk.entries()?;
    let relevant = walk.relevant(entries)?;
    for entry in relevant {
        walk.follow(&entry)?;
    }
    walk.report.found = walk.seen.values().filter(|&&there| there).count() as u64;
    walk.report.missing.sort_by_key(|missing| (missing.need, missing.name));
    Ok(walk.report)
}

struct Walk<'a> {
    files: &'a dyn TreeView,
    report: ClosureReport,
    /// Every object asked for so far, and whether it was there.
    seen: HashMap<TaeName, bool>,
    /// Index and data objects that were opened or found missing.
    opened: BTreeSet<TaeName>,
}

impl<'a> Walk<'a> {
    /// All entries of all files, each once.
    fn entries(&mut self) -> Result<Vec<CheckpointRow>> {
        let mut names = self.files.checkpoint_files()?;
        names.sort();
        let mut known = BTreeSet::new();
        let mut entries = Vec::new();
        for name in names {
            self.report.checkpoint_files += 1;
            let rows = self.files.open_checkpoint(&name).and_then(|file| read_checkpoint_rows(&file));
            for row in self.or_damaged(&name, rows)?.unwrap_or_default() {
                if known.insert((row.start, row.end, row.index.map(|index| index.name))) {
                    entries.push(row);
                }
            }
        }
        self.report.entries = entries.len() as u64;
        Ok(entries)
    }

    /// Those that a server opens; counts the others.
    fn relevant(&mut self, entries: Vec<CheckpointRow>) -> Result<Vec<CheckpointRow>> {
        let newest = |kind| entries.iter().filter(|row| row.kind == kind).map(|row| row.end).max();
        let newest_global = newest(CheckpointKind::Global).unwrap_or_default();
        let newest_compacted = newest(CheckpointKind::Compacted).unwrap_or_default();
        self.report.newest_global = newest_global;
        let mut relevant = Vec::new();
        for entry in entries {
            let is_relevant = match entry.kind {
                CheckpointKind::Compacted => entry.end == newest_compacted,
                _ => entry.end >= newest_global,
            };
            if is_relevant {
                relevant.push(entry);
                continue;
            }
            self.report.superseded_entries += 1;
            if let Some(index) = entry.index
                && self.files.object_len(&index.name)?.is_none()
            {
                self.report.superseded_missing += 1;
            }
        }
        Ok(relevant)
    }

    fn follow(&mut self, entry: &CheckpointRow) -> Result<()> {
        let describe = || format!("checkpoint {}..{}", entry.start, entry.end);
        for table_ids in &entry.table_ids {
            if self.files.object_len(&table_ids.name)?.is_none() {
                self.report.missing_table_ids += 1;
            }
        }
        if entry.version != CHECKPOINT_VERSION {
            let why = format!("version {} is not followed, only {CHECKPOINT_VERSION}", entry.version);
            self.report.unfollowed.push(Unreadable { file: describe(), why });
            return Ok(());
        }
        let Some(index) = entry.index else {
            self.report.damaged.push(Unreadable { file: describe(), why: "it has no index object".to_owned() });
            return Ok(());
        };
        let Some(file) = self.open_once(&index.name, Need::CheckpointIndex, index.file_len())? else { return Ok(()) };
        let data_objects = read_index(&file);
        for stats in self.or_damaged(&index.name, data_objects)?.unwrap_or_default() {
            if let Some(file) = self.open_once(&stats.name, Need::CheckpointData, stats.file_len())? {
                self.follow_data(&stats.name, &file)?;
            }
        }
        Ok(())
    }

    fn follow_data(&mut self, name: &TaeName, file: &dyn ReadAt) -> Result<()> {
        // Failing to look an object up is not damage of the file that names it.
        let mut look_up = Ok(());
        let read = read_object_rows(file, &mut |row| {
            self.report.object_rows += 1;
            if row.file().is_none() {
                self.report.rows_without_file += 1;
            } else if look_up.is_ok() {
                look_up = self.is_there(&row.stats.name, Need::Table(row.table), row.stats.file_len()).map(drop);
            }
            Ok(())
        });
        look_up?;
        self.or_damaged(name, read).map(drop)
    }

    /// Opens an object the first time it is asked for; notes it as missing if it is not there.
    fn open_once(&mut self, name: &TaeName, need: Need, len: u64) -> Result<Option<Box<dyn ReadAt + 'a>>> {
        if !self.opened.insert(*name) || !self.is_there(name, need, len)? {
            return Ok(None);
        }
        let files = self.files;
        let file = files.open_object(name)?;
        if file.is_none() {
            self.seen.insert(*name, false);
            self.report.missing.push(MissingObject { name: *name, need, len, found_len: None });
        }
        Ok(file)
    }

    fn is_there(&mut self, name: &TaeName, need: Need, len: u64) -> Result<bool> {
        if let Some(&there) = self.seen.get(name) {
            return Ok(there);
        }
        let found_len = self.files.object_len(name)?;
        let there = found_len == Some(len);
        self.seen.insert(*name, there);
        if !there {
            self.report.missing.push(MissingObject { name: *name, need, len, found_len });
        }
        Ok(there)
    }

    /// A file that does not parse is noted; one that cannot be read ends the walk.
    fn or_damaged<T>(&mut self, file: &impl std::fmt::Display, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let why = error.message().to_owned();
                self.report.damaged.push(Unreadable { file: file.to_string(), why });
                Ok(None)
            }
            Err(error) => Err(error.context(file)),
        }
    }
}
