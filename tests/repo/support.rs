//! What the scenarios share: a repository in a temporary directory, trees to back up, trees to compare.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use everpack::clock::SystemClock;
use everpack::entropy::SystemEntropy;
use everpack::error::{Error, ErrorKind, Result};
use everpack::ops::backup::{BackupOptions, BackupReport, backup};
use everpack::ops::restore::{RestoreOptions, RestoreReport, restore};
use everpack::progress::Silent;
use everpack::repo::{Environment, InitOptions, OpenOptions, Process, Repository};
use everpack::source::{
    DirectoryOptions, DirectorySource, OpenFile, Skipped, Source, SourceDescription, SourceEntry, SourceFile,
};
use everpack::store::{Store, StoreOptions};
use tempfile::TempDir;

/// A scratch directory with a repository in it.
pub struct Scene {
    pub scratch: TempDir,
    pub repository: Repository,
}

pub fn environment(cache: Option<PathBuf>) -> Environment {
    Environment { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy), process: Process::current(), cache }
}

impl Scene {
    pub async fn new() -> Self {
        Self::with(InitOptions::default()).await
    }

    pub async fn with(options: InitOptions) -> Self {
        let scratch = TempDir::new().unwrap();
        let store =
            Store::create_root(scratch.path().join("repo").to_str().unwrap(), &StoreOptions::default()).unwrap();
        let repository =
            Repository::create(store, &options, environment(Some(scratch.path().join("cache")))).await.unwrap();
        Self { scratch, repository }
    }

    /// Opens the same repository anew, with or without its cache.
    pub async fn reopen(&self, cache: bool) -> Result<Repository> {
        let store = Store::open(self.path("repo").to_str().unwrap(), &StoreOptions::default()).unwrap();
        Repository::open(store, OpenOptions::default(), environment(cache.then(|| self.path("cache")))).await
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub async fn backup(&self, source: &Path) -> BackupReport {
        self.try_backup(source, &BackupOptions::default()).await.unwrap()
    }

    pub async fn try_backup(&self, source: &Path, options: &BackupOptions) -> Result<BackupReport> {
        backup_of(&self.repository, source, options).await
    }

    pub async fn restore(&self, spec: &str, target: &Path) -> RestoreReport {
        self.try_restore(spec, target, &RestoreOptions::default()).await.unwrap()
    }

    pub async fn try_restore(&self, spec: &str, target: &Path, options: &RestoreOptions) -> Result<RestoreReport> {
        let backup = self.repository.find_backup(spec)?;
        restore(&self.repository, &backup, target, options, Arc::new(Silent)).await
    }
}

pub async fn backup_of(repository: &Repository, source: &Path, options: &BackupOptions) -> Result<BackupReport> {
    let source = DirectorySource::open(source, &DirectoryOptions::default())?;
    backup(repository, Box::new(source), options, Arc::new(Silent)).await
}

/// Everything in a directory: path → what it is and holds.
pub fn tree(top: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut nodes = BTreeMap::new();
    walk(top, top, &mut nodes);
    nodes
}

#[derive(Debug, PartialEq, Eq)]
pub enum Node {
    File(blake3_like::Digest, u64),
    Directory,
    Symlink(PathBuf),
}

/// Content as a value that compares.
pub mod blake3_like {
    pub type Digest = u64;

    /// FNV-1a is enough to compare test files of one run.
    pub fn digest(bytes: &[u8]) -> Digest {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

fn walk(top: &Path, at: &Path, nodes: &mut BTreeMap<Vec<u8>, Node>) {
    for entry in std::fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_symlink() {
            nodes.insert(name, Node::Symlink(std::fs::read_link(&path).unwrap()));
        } else if meta.is_dir() {
            nodes.insert(name, Node::Directory);
            walk(top, &path, nodes);
        } else if meta.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            nodes.insert(name, Node::File(blake3_like::digest(&bytes), bytes.len() as u64));
        }
    }
}

/// Panics with the first difference.
pub fn assert_same(expected: &Path, found: &Path) {
    let (expected, found) = (tree(expected), tree(found));
    for (path, node) in &expected {
        assert_eq!(found.get(path), Some(node), "{}", String::from_utf8_lossy(path));
    }
    assert_eq!(expected.len(), found.len(), "more in the restored tree than in the source");
}

/// Writes a file and the directories above it.
pub fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ z >> 31).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A directory from which one file is gone when it is opened.
pub struct Vanishing {
    source: DirectorySource,
    name: Vec<u8>,
}

impl Vanishing {
    pub fn new(top: &Path, name: &str) -> Self {
        let source = DirectorySource::open(top, &DirectoryOptions::default()).unwrap();
        Self { source, name: name.as_bytes().to_vec() }
    }

    pub async fn backup(self, repository: &Repository, options: &BackupOptions) -> Result<BackupReport> {
        backup(repository, Box::new(self), options, Arc::new(Silent)).await
    }
}

struct VanishingOpener {
    opener: Arc<dyn OpenFile>,
    name: Vec<u8>,
}

impl OpenFile for VanishingOpener {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        if entry.path == self.name {
            return Err(Error::new(ErrorKind::NotFound, "open it: it vanished"));
        }
        self.opener.open(entry)
    }
}

impl Source for Vanishing {
    fn describe(&self) -> SourceDescription {
        self.source.describe()
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        self.source.next_batch(max)
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        Arc::new(VanishingOpener { opener: self.source.reader(), name: self.name.clone() })
    }

    fn skipped(&self) -> Skipped {
        self.source.skipped()
    }
}
