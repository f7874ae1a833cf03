//! Sources and surroundings made up by tests: trees in memory, processes that are gone, small chunks and packs, copies of whole stores.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use everpack::clock::{ManualClock, Timestamp};
use everpack::entropy::SeededEntropy;
use everpack::error::{Error, ErrorKind, Result};
use everpack::id::{ObjectHash, SourceIdentity};
use everpack::ops::backup::{BackupOptions, BackupReport, backup};
use everpack::ops::check::{CheckOptions, Severity, check};
use everpack::ops::restore::{RestoreOptions, RestoreReport, restore};
use everpack::progress::Silent;
use everpack::repo::{BackupInfo, Chunking, Environment, InitOptions, OpenOptions, Process, Repository};
use everpack::source::{EntryKind, OpenFile, Skipped, Source, SourceDescription, SourceEntry, SourceFile};
use everpack::store::{Folder, ObjectPath, Store, StoreOptions};
use tempfile::TempDir;

/// Path → content.
pub type Tree = BTreeMap<Vec<u8>, Arc<Vec<u8>>>;

/// SplitMix64: the tests' own randomness.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// Bytes that do not compress.
    pub fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.roll().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// A few files: one long, some short, one empty, two alike.
pub fn tree_of(seed: u64, long: usize) -> Tree {
    let mut dice = Dice(seed);
    let alike = Arc::new(dice.noise(9000));
    let mut tree = Tree::new();
    tree.insert(b"a/long".to_vec(), Arc::new(dice.noise(long)));
    tree.insert(b"a/twin".to_vec(), Arc::clone(&alike));
    tree.insert(b"b/twin".to_vec(), alike);
    tree.insert(b"b/zeros".to_vec(), Arc::new(vec![0; 100_000]));
    tree.insert(b"empty".to_vec(), Arc::default());
    for n in 0..5 {
        tree.insert(format!("small-{n}").into_bytes(), Arc::new(dice.noise(100 + n * 700)));
    }
    tree
}

/// Several chunks a file, several chunks a pack, several packs a backup.
pub fn small() -> InitOptions {
    let chunking =
        Chunking { tae_average: 4 << 10, cdc_least: 2 << 10, cdc_average: 8 << 10, cdc_most: 32 << 10, page: 4 << 10 };
    InitOptions { chunking, pack_target: 64 << 10, ..InitOptions::default() }
}

/// Surroundings that are the same at every run, with a clock of its own.
pub fn seeded(seed: u64) -> (Environment, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_nanos(1_700_000_000_000_000_000)));
    let entropy = Arc::new(SeededEntropy::new(seed));
    let environment = Environment { clock: clock.clone(), entropy, process: Process::current(), cache: None };
    (environment, clock)
}

/// The same for a process that is gone: whoever comes next may fence its sessions at once.
pub fn doomed(seed: u64) -> Environment {
    let mut environment = seeded(seed).0;
    environment.process.started += 1;
    environment
}

pub fn memory() -> Store {
    Store::open("memory:", &StoreOptions::default()).unwrap()
}

pub async fn open(store: &Store, seed: u64) -> Result<Repository> {
    Repository::open(store.clone(), OpenOptions::default(), seeded(seed).0).await
}

/// Every object of a store.
pub type Objects = BTreeMap<String, Bytes>;

pub async fn objects_of(store: &Store) -> Objects {
    let mut objects = Objects::new();
    for info in store.list_sorted(Folder::Root).await.unwrap() {
        objects.insert(info.path.to_string(), store.get(&info.path).await.unwrap());
    }
    objects
}

/// A store in memory with these objects.
pub async fn store_of(objects: &Objects) -> Store {
    let store = memory();
    for (path, bytes) in objects {
        store.put_new(ObjectPath::parse(path).unwrap(), vec![bytes.clone()]).await.unwrap();
    }
    store
}

/// A tree in memory as a source.
pub struct Made {
    location: String,
    entries: std::vec::IntoIter<SourceEntry>,
    reader: Arc<MadeReader>,
}

/// What a [`Made`] source reads from, and how often it was opened.
pub struct MadeReader {
    files: Tree,
    opened: AtomicU64,
}

impl MadeReader {
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Made {
    pub fn new(location: &str, tree: &Tree) -> Self {
        let entries: Vec<_> = tree.iter().map(|(path, content)| entry_of(path, content)).collect();
        Self::with_entries(location, tree, entries)
    }

    /// Entries as given, right or wrong.
    pub fn with_entries(location: &str, tree: &Tree, entries: Vec<SourceEntry>) -> Self {
        let reader = Arc::new(MadeReader { files: tree.clone(), opened: AtomicU64::new(0) });
        Self { location: location.to_owned(), entries: entries.into_iter(), reader }
    }

    pub fn handle(&self) -> Arc<MadeReader> {
        Arc::clone(&self.reader)
    }
}

/// A file that was left alone for long.
pub fn entry_of(path: &[u8], content: &[u8]) -> SourceEntry {
    let hash = blake3::hash(content);
    let mut identity = [0; SourceIdentity::LEN];
    identity.copy_from_slice(&hash.as_bytes()[..SourceIdentity::LEN]);
    SourceEntry {
        path: path.to_vec(),
        kind: EntryKind::File,
        size: content.len() as u64,
        mode: 0o644,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        mtime: Timestamp::from_nanos(1_000_000_000),
        changed: Timestamp::from_nanos(1_000_000_000),
        link_target: Vec::new(),
        identity: SourceIdentity::from_bytes(identity),
        sparse: false,
        link_count: 1,
    }
}

impl Source for Made {
    fn describe(&self) -> SourceDescription {
        let (location, host) = (self.location.clone(), "test".to_owned());
        SourceDescription { kind: "directory", location, host, ..SourceDescription::default() }
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        Ok(self.entries.by_ref().take(max).collect())
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        Arc::clone(&self.reader) as Arc<dyn OpenFile>
    }

    fn skipped(&self) -> Skipped {
        Skipped::default()
    }
}

impl OpenFile for MadeReader {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        match self.files.get(&entry.path) {
            Some(content) => Ok(Box::new(MadeFile(Arc::clone(content)))),
            None => Err(Error::new(ErrorKind::NotFound, "it is not there")),
        }
    }
}

struct MadeFile(Arc<Vec<u8>>);

impl SourceFile for MadeFile {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn verify_unchanged(&self) -> Result<bool> {
        Ok(true)
    }
}

pub async fn back_up(repository: &Repository, location: &str, tree: &Tree) -> Result<BackupReport> {
    back_up_with(repository, location, tree, &quick()).await
}

pub async fn back_up_with(
    repository: &Repository,
    location: &str,
    tree: &Tree,
    options: &BackupOptions,
) -> Result<BackupReport> {
    backup(repository, Box::new(Made::new(location, tree)), options, Arc::new(Silent)).await
}

/// Little memory, few threads.
pub fn quick() -> BackupOptions {
    BackupOptions { readers: 2, memory: 64 << 20, ..BackupOptions::default() }
}

/// A directory that costs no disk, where there is one.
pub fn scratch() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// Restores a backup and reads back what came; after an error too, something may have come.
pub async fn bring_back(repository: &Repository, backup: &BackupInfo) -> (Result<RestoreReport>, Tree) {
    let scratch = scratch();
    let target = scratch.path().join("target");
    let report = restore(repository, backup, &target, &RestoreOptions::default(), Arc::new(Silent)).await;
    let mut found = Tree::new();
    read_tree(&target, &target, &mut found);
    (report, found)
}

fn read_tree(top: &Path, at: &Path, tree: &mut Tree) {
    use std::os::unix::ffi::OsStrExt;
    let Ok(listing) = std::fs::read_dir(at) else { return };
    for entry in listing {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_tree(top, &path, tree);
        } else {
            let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
            tree.insert(name, Arc::new(std::fs::read(&path).unwrap()));
        }
    }
}

/// The backup with this id comes back bit for bit.
pub async fn assert_restores(repository: &Repository, id: ObjectHash, expected: &Tree) {
    let backup = repository.find_backup(&id.to_string()).unwrap();
    let (report, found) = bring_back(repository, &backup).await;
    let report = report.unwrap();
    assert_eq!(report.damaged_count, 0, "{:?}", report.damaged);
    assert_tree(expected, &found, &id.to_string());
}

/// A scrub finds nothing wrong. What a dead process left and nobody names is no damage, but a note.
pub async fn assert_scrubs(repository: &Repository, what: &str) {
    let options = CheckOptions { read_data: true, memory: 64 << 20, ..CheckOptions::default() };
    let report = check(repository, &options, Arc::new(Silent)).await.unwrap();
    let wrong: Vec<_> = report.findings.iter().filter(|finding| finding.severity > Severity::Note).collect();
    assert!(wrong.is_empty() && report.complete, "{what}: {wrong:#?}");
}

pub fn assert_tree(expected: &Tree, found: &Tree, what: &str) {
    let names = |tree: &Tree| tree.keys().map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>();
    assert_eq!(names(expected), names(found), "{what}");
    for (path, content) in expected {
        assert!(found[path] == *content, "{what}: {} is not what was backed up", path.escape_ascii());
    }
}

/// A message with its causes.
pub fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(below) = cause {
        text = format!("{text}: {below}");
        cause = below.source();
    }
    text
}
