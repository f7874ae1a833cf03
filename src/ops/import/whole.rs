//! Do the checkpoints of a tree find everything, in it and in the trees before it?

use std::collections::BTreeMap;

use super::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::source::SourceEntry;
use crate::tae::{FileClass, MetaName, Need, ReadAt, TaeName, TreeView, classify, closure, logical_len};

/// What a server restored from the tree would miss, one line each, together with the trees in `earlier`. Empty if nothing.
///
/// A server may answer OK to a BACKUP and leave out what a restored one asks for first; no digest tells that.
pub fn holes(tree: &Tree, earlier: &[Tree]) -> Result<Vec<String>> {
    let report = closure(&View::new(tree, earlier))?;
    let missing = report.missing.iter().map(|missing| {
        let what = match missing.need {
            Need::CheckpointIndex | Need::CheckpointData => {
                "a server restored from this tree does not start".to_owned()
            }
            Need::Table(table) => format!("table {table} cannot be read after a restore"),
        };
        let state = if missing.found_len.is_some() { "has another length" } else { "is missing" };
        format!("tae/{}: a checkpoint needs it and it {state}: {what}", missing.name)
    });
    let damaged = report
        .damaged
        .iter()
        .map(|damaged| format!("tae/{}: it cannot be read as a checkpoint: {}", damaged.file, damaged.why));
    Ok(missing.chain(damaged).collect())
}

struct View<'a> {
    checkpoints: BTreeMap<MetaName, (&'a Tree, &'a SourceEntry)>,
    objects: BTreeMap<TaeName, (&'a Tree, &'a SourceEntry)>,
}

impl<'a> View<'a> {
    fn new(tree: &'a Tree, earlier: &'a [Tree]) -> Self {
        let mut view = Self { checkpoints: BTreeMap::new(), objects: BTreeMap::new() };
        for entry in tree.files() {
            match classify(&entry.path) {
                FileClass::CheckpointMeta(name) => drop(view.checkpoints.insert(name, (tree, entry))),
                FileClass::Object(name) => drop(view.objects.insert(name, (tree, entry))),
                _ => {}
            }
        }
        // Only what the tree's own list names may come from elsewhere.
        for name in tree.list().iter().filter_map(|row| row.object()).filter(TaeName::is_content_stable) {
            if view.objects.contains_key(&name) {
                continue;
            }
            let path = format!("tae/{name}").into_bytes();
            let found = earlier.iter().rev().find_map(|tree| Some((tree, tree.find(&path)?)));
            found.map(|found| view.objects.insert(name, found));
        }
        view
    }
}

impl TreeView for View<'_> {
    fn checkpoint_files(&self) -> Result<Vec<MetaName>> {
        Ok(self.checkpoints.keys().copied().collect())
    }

    fn open_checkpoint(&self, name: &MetaName) -> Result<Box<dyn ReadAt + '_>> {
        let (tree, entry) = self
            .checkpoints
            .get(name)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("checkpoint file {name}: not in the tree")))?;
        tree.open_logical(entry).map(|file| file as Box<dyn ReadAt + '_>)
    }

    fn object_len(&self, name: &TaeName) -> Result<Option<u64>> {
        let Some((tree, entry)) = self.objects.get(name) else { return Ok(None) };
        // Whether an object is framed shows in its first bytes; those of a raw one are always the same.
        let file = tree.reader().open(entry)?;
        let mut first = [0; 8];
        let read = file.read_at(0, &mut first)?;
        let raw = read == first.len() && first == [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        Ok(if raw { Some(entry.size) } else { logical_len(entry.size).or(Some(entry.size)) })
    }

    fn open_object(&self, name: &TaeName) -> Result<Option<Box<dyn ReadAt + '_>>> {
        let Some((tree, entry)) = self.objects.get(name) else { return Ok(None) };
        Ok(Some(tree.open_logical(entry)?))
    }
}
