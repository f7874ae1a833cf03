//! A tree as a server wrote it: `tae/`, `hakeeper/`, `config/`, `mo_meta`, framed or raw, in a directory or a bucket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::matrixone::release::Release;
use crate::matrixone::tree::{
    BackupSum, HK_DATA, ListedFile, MO_META, SHA256_SUFFIX, TAE_LIST, TAE_SUM, parse_list, parse_meta, parse_sum,
    release_of_meta,
};
use crate::source::{
    DirectoryOptions, DirectorySource, EntryKind, OpenFile, Source, SourceDescription, SourceEntry, display_path,
};
use crate::tae::{ReadAt, logical};

/// More bytes than any list has: a row takes about a hundred.
const LIST_MOST: u64 = 1 << 30;

type OpenSource = dyn Fn() -> Result<Box<dyn Source>> + Send + Sync;

/// Where a tree lies. It can be listed as often as it takes.
pub struct TreePlace {
    name: String,
    open: Arc<OpenSource>,
}

impl TreePlace {
    /// A place that is called `name` and listed by `open`.
    pub fn new(name: impl Into<String>, open: impl Fn() -> Result<Box<dyn Source>> + Send + Sync + 'static) -> Self {
        Self { name: name.into(), open: Arc::new(open) }
    }

    /// A directory.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        let path: PathBuf = path.into();
        let name = display_path(path.as_os_str().as_encoded_bytes());
        Self::new(name, move || Ok(Box::new(DirectorySource::open(&path, &DirectoryOptions::default())?)))
    }

    /// True if a directory looks like a tree: whether it is a good one is another question.
    pub fn is_tree(path: &Path) -> bool {
        path.join(TAE_LIST).is_file()
    }
}

impl std::fmt::Debug for TreePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TreePlace({})", self.name)
    }
}

/// A tree that was opened: its files are listed, its lists are read.
pub struct Tree {
    name: String,
    description: SourceDescription,
    /// In the order of a source.
    entries: Vec<SourceEntry>,
    reader: Arc<dyn OpenFile>,
    list: Vec<ListedFile>,
    sum: BackupSum,
    release: Option<Release>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tree({}, {} files, {} rows)", self.name, self.entries.len(), self.list.len())
    }
}

impl Tree {
    /// Opens a tree and reads its lists.
    ///
    /// Fails with `NotFound` where there is no tree, and where the server did not finish one: `mo_meta` is what it writes last. Memory: some
    /// 400 bytes a file.
    pub fn open(place: TreePlace) -> Result<Self> {
        let name = place.name;
        let act = || format!("open the tree {name}");
        let mut source = (place.open)().context(act)?;
        let mut entries = Vec::new();
        loop {
            let batch = source.next_batch(4096).context(act)?;
            if batch.is_empty() {
                break;
            }
            entries.extend(batch);
        }
        let skipped = source.skipped();
        if skipped.failures() > 0 {
            let first = skipped.unreadable.names.iter().chain(&skipped.unsafe_names.names).next();
            let message = format!(
                "{}: {} of its files cannot be read, first {}",
                act(),
                skipped.failures(),
                first.map_or("", String::as_str)
            );
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let mut tree = Self {
            description: source.describe(),
            reader: source.reader(),
            entries,
            list: Vec::new(),
            sum: BackupSum { time: String::new(), bytes: 0, ts: None, kind: String::new() },
            release: None,
            name,
        };
        tree.read_lists().context(|| format!("open the tree {}", tree.name))?;
        Ok(tree)
    }

    fn read_lists(&mut self) -> Result<()> {
        if self.find(TAE_LIST.as_bytes()).is_none() {
            let message =
                format!("there is no {TAE_LIST}: it is not what a BACKUP wrote, or a server is still writing it");
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let finished =
            [MO_META.to_owned(), format!("{MO_META}{SHA256_SUFFIX}"), HK_DATA.to_owned(), TAE_SUM.to_owned()];
        if let Some(missing) = finished.iter().find(|path| self.find(path.as_bytes()).is_none()) {
            let message = format!(
                "{missing} is not there: the server's BACKUP did not finish, so this tree cannot be restored; take another"
            );
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        self.list = parse_list(&self.read(TAE_LIST.as_bytes(), LIST_MOST)?)?;
        self.sum = parse_sum(&self.read(TAE_SUM.as_bytes(), 1 << 20)?)?;
        self.release = release_of_meta(&parse_meta(&self.read(MO_META.as_bytes(), 1 << 20)?)?);
        Ok(())
    }

    /// Where it lies, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything that a restored server needs of `tae/`, whether this tree holds it or an earlier one.
    pub fn list(&self) -> &[ListedFile] {
        &self.list
    }

    /// When it was made and what it restores to.
    pub fn sum(&self) -> &BackupSum {
        &self.sum
    }

    /// The release that wrote it, if it says.
    pub fn release(&self) -> Option<Release> {
        self.release
    }

    /// Its own files, in order, relative to its root.
    pub fn files(&self) -> impl Iterator<Item = &SourceEntry> {
        self.entries.iter().filter(|entry| entry.kind == EntryKind::File)
    }

    pub(super) fn entries(&self) -> &[SourceEntry] {
        &self.entries
    }

    pub(super) fn description(&self) -> &SourceDescription {
        &self.description
    }

    pub(super) fn reader(&self) -> &Arc<dyn OpenFile> {
        &self.reader
    }

    /// One of its own files.
    pub(super) fn find(&self, path: &[u8]) -> Option<&SourceEntry> {
        let at = self.entries.binary_search_by(|entry| {
            crate::manifest::order::compare(&entry.path, entry.kind == EntryKind::Directory, path, false)
        });
        at.ok().map(|at| &self.entries[at]).filter(|entry| entry.kind == EntryKind::File)
    }

    /// True if its list names objects that it does not hold itself: without earlier trees it cannot be restored.
    pub fn needs_earlier(&self) -> bool {
        self.list.iter().any(|row| !self.holds(&[b"tae/", row.path.as_bytes()].concat()))
    }

    /// True if it has this file itself.
    pub fn holds(&self, path: &[u8]) -> bool {
        self.find(path).is_some()
    }

    /// The logical bytes of one of its own small files.
    pub fn read(&self, path: &[u8], len_max: u64) -> Result<Vec<u8>> {
        let name = || format!("read {}", display_path(path));
        let entry =
            self.find(path).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{}: it is not there", name())))?;
        self.open_logical(entry).and_then(|file| file.read_all(len_max)).context(name)
    }

    /// Opens one of its own files for its logical bytes, framed or not.
    pub(super) fn open_logical(&self, entry: &SourceEntry) -> Result<Box<dyn ReadAt>> {
        logical(self.reader.open(entry)?)
    }
}
