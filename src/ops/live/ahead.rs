//! Objects that are taken straight from SHARED, before the server is asked to copy anything.
//!
//! Only what a checkpoint names is taken: a name that no checkpoint knows yet may be deleted and written anew with other content. So the
//! checkpoints of SHARED are read first. A server writes on meanwhile, and collects garbage: a file that is gone is no failure, the server
//! copies what we do not get here.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::place::Place;
use crate::error::Result;
use crate::source::{OpenFile, Skipped, Source, SourceDescription, SourceEntry, SourceFile};
use crate::tae::{
    CHECKPOINT_VERSION, FileClass, ReadAt, TaeName, classify, read_checkpoint_rows, read_index, read_object_rows,
};

/// Where a manifest keeps the files of SHARED.
pub(super) const FOLDER: &[u8] = b"tae/";

/// Objects that the checkpoints of a SHARED name and whose names tell their content, in order. Blocks.
///
/// What cannot be read is passed over: it names nothing that could be taken then.
pub(super) fn live_objects(shared: &Place, runtime: &Handle) -> Result<Vec<TaeName>> {
    let mut names = Vec::new();
    let mut indexes = Vec::new();
    let Some(mut files) = shared.below("ckp").source(runtime)? else { return Ok(names) };
    loop {
        let batch = files.next_batch(1024)?;
        if batch.is_empty() {
            break;
        }
        for entry in batch {
            let path = [b"ckp/", entry.path.as_slice()].concat();
            let (FileClass::CheckpointMeta(_), Ok(path)) = (classify(&path), String::from_utf8(path)) else { continue };
            let Ok(Some(file)) = shared.open_logical(runtime, &path) else { continue };
            let rows = read_checkpoint_rows(&file).unwrap_or_default();
            indexes.extend(
                rows.iter().filter(|row| row.version == CHECKPOINT_VERSION).filter_map(|row| Some(row.index?.name)),
            );
        }
    }
    names.extend_from_slice(&indexes);
    for index in unique(indexes) {
        let data = open(shared, runtime, &index).and_then(|file| read_index(&file).ok()).unwrap_or_default();
        for stats in data {
            names.push(stats.name);
            let Some(file) = open(shared, runtime, &stats.name) else { continue };
            // What was named before the damage is named all the same.
            let _read = read_object_rows(&file, &mut |row| {
                names.extend(row.file());
                Ok(())
            });
        }
        names = unique(names);
    }
    names.retain(TaeName::is_content_stable);
    Ok(names)
}

fn open(shared: &Place, runtime: &Handle, name: &TaeName) -> Option<Box<dyn ReadAt>> {
    shared.open_logical(runtime, &name.to_string()).ok().flatten()
}

fn unique(mut names: Vec<TaeName>) -> Vec<TaeName> {
    names.sort_unstable();
    names.dedup();
    names
}

/// The objects of a SHARED that are wanted and not held, under the paths that a manifest gives them.
pub(super) struct SharedObjects {
    pub(super) shared: Box<dyn Source>,
    pub(super) wanted: Vec<TaeName>,
    pub(super) held: Arc<Vec<TaeName>>,
}

impl SharedObjects {
    fn takes(&self, path: &[u8]) -> bool {
        TaeName::parse(path)
            .is_some_and(|name| self.wanted.binary_search(&name).is_ok() && self.held.binary_search(&name).is_err())
    }
}

impl Source for SharedObjects {
    fn describe(&self) -> SourceDescription {
        self.shared.describe()
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        loop {
            let batch = self.shared.next_batch(max)?;
            if batch.is_empty() {
                return Ok(batch);
            }
            let taken: Vec<SourceEntry> = batch
                .into_iter()
                .filter(|entry| self.takes(&entry.path))
                .map(|entry| SourceEntry { path: [FOLDER, &entry.path].concat(), ..entry })
                .collect();
            if !taken.is_empty() {
                return Ok(taken);
            }
        }
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        Arc::new(Below(self.shared.reader()))
    }

    fn skipped(&self) -> Skipped {
        // A running server writes and deletes; what we do not see here it copies.
        Skipped::default()
    }
}

struct Below(Arc<dyn OpenFile>);

impl OpenFile for Below {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        let path = entry.path.strip_prefix(FOLDER).unwrap_or(&entry.path).to_vec();
        self.0.open(&SourceEntry { path, ..entry.clone() })
    }
}
