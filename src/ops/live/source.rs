//! A backup of a running server as a source: what it copied, what the repository holds already, and what came from SHARED, under one tree.

use std::collections::HashMap;
use std::iter::Peekable;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::ahead::FOLDER;
use super::arrived::{Arrived, Object, Origin};
use super::place::Place;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::SourceIdentity;
use crate::manifest::order;
use crate::matrixone::tree;
use crate::source::{
    EntryKind, OpenFile, Skipped, Source, SourceDescription, SourceEntry, SourceFile, Unchanging, display_path,
};
use crate::tae::{TaeName, physical_len};

/// Where a manifest keeps what `BACKUP` forgets.
const UDF: &str = "udf";

/// The composed tree, in the order of a manifest.
pub(super) struct LiveTree {
    description: SourceDescription,
    staged: Box<dyn Source>,
    next_staged: std::collections::VecDeque<SourceEntry>,
    /// What the repository has: made one by one, as there may be a million.
    held: Peekable<Box<dyn Iterator<Item = SourceEntry> + Send>>,
    /// What is read from SHARED: little.
    shared: Peekable<std::vec::IntoIter<SourceEntry>>,
    reader: Arc<LiveReader>,
}

fn held_path(name: &TaeName) -> Vec<u8> {
    [FOLDER, name.to_string().as_bytes()].concat()
}

/// An entry of which only the name and the size are known; MatrixOne keeps its files to itself.
fn file(path: Vec<u8>, size: u64) -> SourceEntry {
    SourceEntry {
        path,
        kind: EntryKind::File,
        size,
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        changed: Timestamp::default(),
        link_target: Vec::new(),
        identity: SourceIdentity::UNKNOWN,
        sparse: false,
        link_count: 1,
    }
}

impl LiveTree {
    /// Composes the tree of what arrived. Blocks.
    pub(super) fn new(
        description: SourceDescription,
        stage: &Place,
        shared: Option<&Place>,
        runtime: &Handle,
        arrived: &Arc<Arrived>,
    ) -> Result<Self> {
        let staged = stage
            .source(runtime)?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{}: the staging root is gone", stage.display())))?;
        let mut extra = Vec::new();
        let mut names = HashMap::new();
        if let Some(shared) = shared {
            for object in arrived.objects.iter().filter(|object| object.origin == Origin::Shared) {
                let name = object.name.to_string();
                let Some(stored) = shared.open(runtime, &name)? else { continue };
                let path = held_path(&object.name);
                names.insert(path.clone(), name);
                extra.push(file(path, stored.len()));
            }
            add_udf(shared, runtime, &mut extra, &mut names)?;
        }
        extra.sort_by(compare);
        let arrived = Arc::clone(arrived);
        // In the order of names, which is that of paths.
        let held = (0..arrived.objects.len()).filter_map(move |at| {
            let Object { name, size, origin } = arrived.objects[at];
            (origin == Origin::Repository).then(|| file(held_path(&name), size))
        });
        let reader = LiveReader { staged: staged.reader(), shared: shared.cloned(), names, runtime: runtime.clone() };
        Ok(Self {
            description,
            staged,
            next_staged: std::collections::VecDeque::new(),
            held: (Box::new(held) as Box<dyn Iterator<Item = SourceEntry> + Send>).peekable(),
            shared: extra.into_iter().peekable(),
            reader: Arc::new(reader),
        })
    }

    fn fill(&mut self) -> Result<()> {
        while self.next_staged.is_empty() {
            let batch = self.staged.next_batch(1024)?;
            if batch.is_empty() {
                break;
            }
            self.next_staged.extend(batch.into_iter().filter(|entry| belongs(&entry.path)));
        }
        Ok(())
    }
}

fn compare(a: &SourceEntry, b: &SourceEntry) -> std::cmp::Ordering {
    let is_directory = |entry: &SourceEntry| entry.kind == EntryKind::Directory;
    order::compare(&a.path, is_directory(a), &b.path, is_directory(b))
}

/// The lists that we put there ourselves, and what an interrupted write left, are no part of the backup.
fn belongs(path: &[u8]) -> bool {
    !tree::is_request(path) && !path.ends_with(b".mofstemp")
}

/// Programs of user-defined functions: `BACKUP` leaves them out, and the catalogue goes on naming them.
fn add_udf(
    shared: &Place,
    runtime: &Handle,
    extra: &mut Vec<SourceEntry>,
    names: &mut HashMap<Vec<u8>, String>,
) -> Result<()> {
    let Some(mut files) = shared.below(UDF).source(runtime)? else { return Ok(()) };
    let mut any = false;
    loop {
        let batch = files.next_batch(1024)?;
        if batch.is_empty() {
            break;
        }
        for mut entry in batch {
            any = true;
            entry.path = [UDF.as_bytes(), b"/", &entry.path].concat();
            if entry.kind == EntryKind::File
                && let Ok(name) = String::from_utf8(entry.path.clone())
            {
                names.insert(entry.path.clone(), name);
            }
            extra.push(entry);
        }
    }
    if any {
        extra.push(SourceEntry { kind: EntryKind::Directory, mode: 0o755, ..file(UDF.as_bytes().to_vec(), 0) });
    }
    Ok(())
}

impl Source for LiveTree {
    fn describe(&self) -> SourceDescription {
        self.description.clone()
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        let mut batch = Vec::new();
        while batch.len() < max.max(1) {
            self.fill()?;
            let heads = [self.next_staged.front(), self.held.peek(), self.shared.peek()];
            let first = heads.iter().flatten().copied().min_by(|a, b| compare(a, b));
            let Some(first) = first else { break };
            let from = heads.iter().position(|head| head.is_some_and(|head| std::ptr::eq(head, first)));
            let next = match from {
                Some(0) => self.next_staged.pop_front(),
                Some(1) => self.held.next(),
                _ => self.shared.next(),
            };
            batch.extend(next);
        }
        Ok(batch)
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        Arc::clone(&self.reader) as Arc<dyn OpenFile>
    }

    fn skipped(&self) -> Skipped {
        self.staged.skipped()
    }
}

struct LiveReader {
    staged: Arc<dyn OpenFile>,
    shared: Option<Place>,
    /// Path in the manifest → name in SHARED.
    names: HashMap<Vec<u8>, String>,
    runtime: Handle,
}

impl OpenFile for LiveReader {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        let is_held = entry.identity == SourceIdentity::UNKNOWN;
        let Some(name) = self.names.get(&entry.path) else {
            if is_held {
                let message = format!(
                    "read {}: the server was told that the repository has it, and the repository cannot give it back; `everpack check` says \
                     why, and `--full` has the server copy everything",
                    display_path(&entry.path)
                );
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            return self.staged.open(entry);
        };
        let shared = self.shared.as_ref().and_then(|shared| shared.open(&self.runtime, name).transpose());
        match shared {
            // Objects are written once; so are the programs of functions.
            Some(file) => Ok(Box::new(Unchanging(file?))),
            None => {
                let message = format!("read {name} in SHARED: it is gone; run the backup again");
                Err(Error::new(ErrorKind::NotFound, message))
            }
        }
    }
}

/// True if a stored file of so many bytes can hold so many logical ones.
pub(super) fn fits(stored: u64, logical: u64) -> bool {
    stored == logical || stored == physical_len(logical)
}
