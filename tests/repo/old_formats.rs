//! Repositories of released formats, kept under `tests/data`: this release reads them, writes into them, and cuts files as they were cut.
//!
//! One folder for each: `repository/` is what lies in the store, `backups.txt` what has to come back. `EVERPACK_BLESS=1 cargo test --test repo
//! old_formats` makes the newest one if it is not there; one that is there is never written again. Made twice, it has the same backups in the same
//! entries of the log; the order of chunks in a pack is the threads', and a scrub's times are the store's. The same checks are made of a
//! repository that a later minor release could have written: everything that may grow has grown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use everpack::clock::{ManualClock, Timestamp};
use everpack::entropy::SeededEntropy;
use everpack::error::ErrorKind;
use everpack::id::ObjectHash;
use everpack::ops::backup::{BackupOptions, BackupReport, backup};
use everpack::ops::check::{CheckOptions, CheckReport, Severity, check};
use everpack::ops::forget::{ForgetOptions, Until, Which, forget, hold, release, unforget};
use everpack::ops::prune::{MaxUnused, PruneOptions, prune};
use everpack::ops::repair::{RepairOptions, repair};
use everpack::ops::replicate::{ReplicateOptions, replicate};
use everpack::ops::restore::{RestoreOptions, restore};
use everpack::progress::Silent;
use everpack::repo::{BackupInfo, Chunking, Environment, InitOptions, OpenOptions, Process, Repository};
use everpack::source::{EntryKind, SourceEntry};
use everpack::store::adapter::Recorder;
use everpack::store::{Folder, ObjectPath, Store, StoreOptions};
use everpack::tae::Framer;
use everpack::testing::later::{NewRecords, grown, inventory};
use everpack::testing::log;
use everpack::testing::tae_writer::{TaeOptions, TaeWriter, Vector, object_name};

use crate::made::{Dice, Made, Objects, Tree, entry_of, memory, objects_of, quick, scratch, store_of, whole};
use crate::support::{backup_of, environment};

/// Every folder under `tests/data`. The last one is what this release writes.
const FORMATS: [&str; 1] = ["format-1"];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn newest() -> &'static str {
    FORMATS[FORMATS.len() - 1]
}

// What is kept.

/// The objects below a folder, and what `backups.txt` says.
fn kept(format: &str) -> (Objects, String) {
    let top = data().join(format).join("repository");
    let mut objects = Objects::new();
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned();
                objects.insert(name, std::fs::read(&path).unwrap().into());
            }
        }
    }
    (objects, std::fs::read_to_string(data().join(format).join("backups.txt")).unwrap())
}

fn keep(format: &str, objects: &Objects, backups: &str) {
    let top = data().join(format);
    for (path, bytes) in objects {
        let path = top.join("repository").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(top.join("backups.txt"), backups).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kept_repository_is_forgotten() {
    let bless = std::env::var_os("EVERPACK_BLESS").is_some();
    if bless && !data().join(newest()).exists() {
        let lived = life().await;
        keep(newest(), &lived.objects, &lived.backups);
    } else if bless {
        println!("{} is kept as it is: what a release wrote is not made anew", newest());
    }
    let found: BTreeSet<String> = std::fs::read_dir(data())
        .unwrap_or_else(|error| panic!("{}: {error}; EVERPACK_BLESS=1 makes what is missing", data().display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, FORMATS.map(str::to_owned).into(), "every folder under tests/data is tested, and is there");
    for format in FORMATS {
        let (objects, _) = kept(format);
        let size: usize = objects.values().map(bytes::Bytes::len).sum();
        assert!(size < 200_000, "{format} has {size} bytes");
    }
}

// The life of a repository, so that there is something of everything in it.

/// What a life leaves.
struct Lived {
    objects: Objects,
    /// What has to come back, as `described` writes it.
    backups: String,
    /// The newest source, and whose it is.
    newest: (Tree, Vec<SourceEntry>),
}

/// Small chunks: a file of eight megabytes of zeros has more than 8192 of them, so it gets piece lists.
fn tiny() -> InitOptions {
    let chunking = Chunking { tae_average: 4 << 10, cdc_least: 64, cdc_average: 256, cdc_most: 1 << 10, page: 4 << 10 };
    InitOptions { chunking, pack_target: 64 << 10, ..InitOptions::default() }
}

fn object(seed: u64) -> (String, Vec<u8>) {
    let name = object_name(seed, 1_700_000_000_000 + seed, 0);
    let mut writer = TaeWriter::new(TaeOptions::new(name));
    let mut column = Vector::new(23).unwrap();
    for row in 0..1500i64 {
        column.push_fixed((row * 7 + row % 13).to_le_bytes());
    }
    writer.push_block(&[column], Vec::new()).unwrap();
    (name.to_string(), writer.finish().unwrap().bytes)
}

fn framed(logical: &[u8]) -> Vec<u8> {
    let mut physical = Vec::new();
    let mut framer = Framer::new();
    framer.feed(logical, &mut physical);
    framer.finish(&mut physical);
    physical
}

/// The head of an InnoDB tablespace, and pages that are alike.
fn tablespace() -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    bytes[25] = 8;
    bytes[34..42].copy_from_slice(&[0, 0, 0, 5, 0, 0, 0, 5]);
    bytes[9000..9005].copy_from_slice(b"a row");
    bytes
}

fn text(lines: u64) -> Vec<u8> {
    (0..lines).flat_map(|n| format!("line {n}: what is written twice is stored once\n").into_bytes()).collect()
}

fn base() -> Tree {
    let (raw_name, raw) = object(1);
    let (framed_name, logical) = object(2);
    let mut tree = Tree::new();
    let mut add = |path: &str, bytes: Vec<u8>| tree.insert(path.as_bytes().to_vec(), Arc::new(bytes));
    add("docs/readme.txt", text(60));
    add("empty", Vec::new());
    add("noise", Dice(1).noise(2000));
    add("sql/table.ibd", tablespace());
    add(&format!("tae/{raw_name}"), raw);
    add(&format!("tae/{framed_name}"), framed(&logical));
    add("twin-a", Dice(2).noise(900));
    add("twin-b", Dice(2).noise(900));
    add("zeros", vec![0; 8_400_000]);
    tree
}

/// A directory and a link beside the files.
fn entries(tree: &Tree) -> Vec<SourceEntry> {
    let of = |path: &[u8], content: &[u8]| SourceEntry { uid: 1000, gid: 100, ..entry_of(path, content) };
    let file = |(path, content): (&Vec<u8>, &Arc<Vec<u8>>)| {
        let mode = if path == b"noise" { 0o600 } else { 0o644 };
        SourceEntry { mode, sparse: path == b"zeros", ..of(path, content) }
    };
    let mut entries: Vec<SourceEntry> = tree.iter().map(file).collect();
    for folder in ["docs", "sql", "tae"] {
        entries.push(SourceEntry { kind: EntryKind::Directory, mode: 0o755, size: 0, ..of(folder.as_bytes(), b"") });
    }
    let target = b"readme.txt".to_vec();
    let link = SourceEntry { kind: EntryKind::Symlink, mode: 0o777, link_target: target, ..of(b"docs/link", b"link") };
    entries.push(SourceEntry { size: 0, ..link });
    let key = |entry: &SourceEntry| {
        let slash: &[u8] = if entry.kind == EntryKind::Directory { b"/" } else { b"" };
        [&entry.path, slash].concat()
    };
    entries.sort_by_key(key);
    entries
}

/// A repository in memory that lives through nights.
struct Living {
    disk: Store,
    repository: Repository,
    clock: Arc<ManualClock>,
    /// What each backup was made from, said as a restored tree is.
    sources: BTreeMap<ObjectHash, String>,
}

/// Surroundings that are the same on every machine.
fn frozen(seed: u64, clock: &Arc<ManualClock>) -> Environment {
    let process = Process { host: "museum".into(), boot_id: "boot".into(), pid_namespace: 0, pid: 7, started: 70 };
    Environment { clock: clock.clone(), entropy: Arc::new(SeededEntropy::new(seed)), process, cache: None }
}

impl Living {
    async fn begin() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_nanos(1_700_000_000_000_000_000)));
        let disk = memory();
        Repository::create(disk.clone(), &tiny(), frozen(1, &clock)).await.unwrap();
        // What is stored is published at once, as it is every few minutes in a backup that takes long.
        let options = OpenOptions { checkpoint_bytes: Some(1), ..OpenOptions::default() };
        let repository = Repository::open(disk.clone(), options, frozen(2, &clock)).await.unwrap();
        Self { disk, repository, clock, sources: BTreeMap::new() }
    }

    fn day(&self) {
        self.clock.advance(Duration::from_secs(24 * 3600));
    }

    async fn night(&mut self, lineage: &str, tags: &[&str], tree: &Tree) -> BackupReport {
        self.day();
        let entries = entries(tree);
        let report = back_up_entries(&self.repository, lineage, tags, tree, entries.clone()).await;
        assert!(report.problem_count == 0 && !report.partial, "{report:?}");
        self.sources.insert(report.id, source_lines(tree, &entries));
        report
    }

    async fn forget(&self, ids: &[ObjectHash]) {
        let options =
            ForgetOptions { which: Which::Named(ids.to_vec()), reason: "it is old".to_owned(), dry_run: false };
        forget(&self.repository, &options).await.unwrap();
    }

    async fn prune(&self) {
        let options = PruneOptions { max_unused: MaxUnused::Bytes(0), memory: 64 << 20, ..PruneOptions::default() };
        let report = prune(&self.repository, &options, Arc::new(Silent), |_| {}).await.unwrap();
        assert!(report.complete && report.objects_retired > 0 && report.objects_waiting == 0, "{report:?}");
    }

    async fn head(&self) -> usize {
        self.disk.list_sorted(Folder::Log).await.unwrap().len()
    }
}

async fn back_up_entries(
    repository: &Repository,
    lineage: &str,
    tags: &[&str],
    tree: &Tree,
    entries: Vec<SourceEntry>,
) -> BackupReport {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    // One reader: files are stored in one order, as far as that is in our hands.
    let options = BackupOptions { lineage: Some(lineage.to_owned()), tags, readers: 1, ..quick() };
    let source = Made::with_entries("/srv/museum", tree, entries);
    backup(repository, Box::new(source), &options, Arc::new(Silent)).await.unwrap_or_else(|e| panic!("{}", whole(&e)))
}

/// Every kind of record and of object that a release writes, and as little as possible of each.
async fn life() -> Lived {
    let mut living = Living::begin().await;
    let repository = living.repository.clone();
    let mut tree = base();
    let first = living.night("shop", &["first", "kept"], &tree).await.id;
    let hundred_years = Timestamp::from_nanos(4_102_444_800_000_000_000);
    hold(&repository, &[first], Until::Time(hundred_years)).await.unwrap();

    // A backup that finds a file gone: it commits nothing, what it stored is published; and one that may leave files out.
    let mut more = tree.clone();
    more.insert(b"docs/second.txt".to_vec(), Arc::new(Dice(3).noise(1500)));
    let mut gone = entries(&more);
    gone.push(SourceEntry { uid: 1000, gid: 100, ..entry_of(b"zz-gone", b"gone") });
    let options = BackupOptions { lineage: Some("shop".to_owned()), readers: 1, ..quick() };
    let source = || Box::new(Made::with_entries("/srv/museum", &more, gone.clone()));
    backup(&repository, source(), &options, Arc::new(Silent)).await.unwrap_err();
    let options = BackupOptions { allow_partial: true, tags: vec!["partial".to_owned()], ..options };
    let partial = backup(&repository, source(), &options, Arc::new(Silent)).await.unwrap();
    assert!(partial.partial, "{partial:?}");
    living.sources.insert(partial.id, source_lines(&more, &entries(&more)));

    // Another lineage with a night that is held for a while.
    let mut wiki = Tree::new();
    wiki.insert(b"page".to_vec(), Arc::new(text(40)));
    let page = living.night("wiki", &[], &wiki).await.id;
    hold(&repository, &[page], Until::Time(hundred_years)).await.unwrap();
    release(&repository, &[page]).await.unwrap();

    // A pack is damaged, found, taken out of use, and healed by the next night; by then nothing is missed any more.
    let mut nights = vec![living.night("shop", &[], &more).await.id];
    living.damage_a_pack().await;
    assert!(scrub(&repository).await.findings.iter().any(|finding| finding.severity > Severity::Note));
    repair(&repository, None, &RepairOptions::default(), Arc::new(Silent)).await.unwrap();
    nights.push(living.night("shop", &["healed"], &more).await.id);
    let report = repair(&repository, None, &RepairOptions::default(), Arc::new(Silent)).await.unwrap();
    assert_eq!(report.remaining_count, 0, "{report:#?}");

    // A process that died, one that took long, and a replica.
    let dead = log::leave_open(&repository).await.unwrap();
    log::fence(&repository, dead).await.unwrap();
    log::refresh_and_note(&repository, "kept for those who come later").await.unwrap();
    let member = Repository::create_member(memory(), &repository, false, frozen(3, &living.clock)).await.unwrap();
    replicate(&repository, &member, &ReplicateOptions::default(), Arc::new(Silent)).await.unwrap();

    // Nights until the log is long enough for a state object; most of them go, and one comes back.
    let mut n = 0;
    while living.disk.list_sorted(Folder::LogState).await.unwrap().is_empty() {
        more.insert(b"tonight".to_vec(), Arc::new(Dice(100 + n).noise(200)));
        nights.push(living.night("shop", &[], &more).await.id);
        n += 1;
        assert!(n < 40, "no state object after {} entries", living.head().await);
    }
    living.forget(&nights).await;
    let back = [nights[1], nights[nights.len() - 1]];
    unforget(&repository, &back, Arc::new(Silent)).await.unwrap();
    living.prune().await;

    // What comes behind the state object: a night, one that is forgotten and still there, and a scrub.
    tree = more;
    tree.insert(b"docs/third.txt".to_vec(), Arc::new(text(25)));
    let last = living.night("shop", &["last"], &tree).await.id;
    living.forget(&[page]).await;
    let report = scrub(&repository).await;
    assert!(report.findings.iter().all(|finding| finding.severity == Severity::Note), "{:#?}", report.findings);
    repository.refresh().await.unwrap();
    assert_eq!(repository.find_backup("latest").unwrap().id, last);

    let lines = |backup: &BackupInfo| headline(backup) + &living.sources[&backup.id];
    let backups: String = repository.backups().iter().chain(&repository.forgotten()).map(lines).collect();
    let entries = entries(&tree);
    Lived { objects: objects_of(&living.disk).await, backups, newest: (tree, entries) }
}

impl Living {
    /// Flips a bit in the middle of the longest data pack.
    async fn damage_a_pack(&self) {
        let packs = self.disk.list_sorted(Folder::Packs).await.unwrap();
        let pack = packs.iter().max_by_key(|pack| pack.len).unwrap();
        let mut bytes = self.disk.get(&pack.path).await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        self.disk.put_new(&pack.path, vec![bytes.into()]).await.unwrap();
    }
}

async fn scrub(repository: &Repository) -> CheckReport {
    let options = CheckOptions { read_data: true, memory: 64 << 20, ..CheckOptions::default() };
    let report = check(repository, &options, Arc::new(Silent)).await.unwrap();
    assert!(report.complete && report.packs_read == report.packs, "{report:#?}");
    report
}

// What a backup says of itself and what comes back, in words.

fn headline(backup: &BackupInfo) -> String {
    let BackupInfo { id, entry, forgotten, held_until, summary } = backup;
    let forgotten = forgotten.map_or_else(String::new, |entry| format!(", forgotten by entry {entry}"));
    let held = held_until.map_or_else(String::new, |until| format!(", held until {}", until.to_rfc3339()));
    let partial = if summary.partial { ", partial" } else { "" };
    let totals = summary.totals;
    format!(
        "backup {id} of {:?}, entry {entry}, {}, {} files, {} directories, {} links, {} bytes, tags {:?}{partial}{held}{forgotten}\n",
        summary.lineage_name,
        summary.finished.to_rfc3339(),
        totals.files,
        totals.directories,
        totals.symlinks,
        totals.bytes,
        summary.tags,
    )
}

fn file_line(path: &str, mode: u32, mtime: i64, content: &[u8]) -> String {
    format!("  {path}: file {mode:o}, {} bytes, {mtime}, {}\n", content.len(), blake3::hash(content))
}

fn source_lines(tree: &Tree, entries: &[SourceEntry]) -> String {
    let mut lines: BTreeMap<&[u8], String> = BTreeMap::new();
    for entry in entries {
        let path = std::str::from_utf8(&entry.path).unwrap();
        let mtime = entry.mtime.as_nanos();
        let line = match entry.kind {
            EntryKind::File => file_line(path, entry.mode, mtime, &tree[&entry.path]),
            EntryKind::Directory => format!("  {path}: directory {:o}, {mtime}\n", entry.mode),
            EntryKind::Symlink => format!("  {path}: link to {}\n", std::str::from_utf8(&entry.link_target).unwrap()),
        };
        lines.insert(&entry.path, line);
    }
    lines.into_values().collect()
}

fn restored_lines(top: &Path) -> String {
    let mut lines = BTreeMap::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let at = entry.unwrap().path();
            let path = at.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            let meta = std::fs::symlink_metadata(&at).unwrap();
            let (mode, mtime) = (meta.mode() & 0o7777, meta.mtime() * 1_000_000_000 + meta.mtime_nsec());
            let line = if meta.is_symlink() {
                let target = std::fs::read_link(&at).unwrap();
                format!("  {path}: link to {}\n", std::str::from_utf8(target.as_os_str().as_bytes()).unwrap())
            } else if meta.is_dir() {
                folders.push(at);
                format!("  {path}: directory {mode:o}, {mtime}\n")
            } else {
                file_line(&path, mode, mtime, &std::fs::read(&at).unwrap())
            };
            lines.insert(path.into_bytes(), line);
        }
    }
    lines.into_values().collect()
}

async fn restored(repository: &Repository, backup: &BackupInfo, target: &Path) -> String {
    let report = restore(repository, backup, target, &RestoreOptions::default(), Arc::new(Silent)).await.unwrap();
    assert_eq!(report.damaged_count, 0, "{:?}", report.damaged);
    restored_lines(target)
}

// What is asked of every one of them.

async fn open(store: &Store) -> Repository {
    Repository::open(store.clone(), OpenOptions::default(), environment(None)).await.unwrap()
}

/// It is listed, checked with nothing found, and every backup comes back; whether its state object is believed or not.
async fn assert_reads(objects: &Objects, backups: &str, what: &str) {
    let mut said = Vec::new();
    for distrust_state in [false, true] {
        let store = store_of(objects).await;
        let (store, recorder) = Recorder::around(&store);
        let options = OpenOptions { distrust_state, ..OpenOptions::default() };
        let repository = Repository::open(store, options, environment(None)).await.unwrap();
        let entries = objects.keys().filter(|path| path.starts_with("log/")).count() as u64;
        let gets = recorder.counts().gets;
        assert_eq!(gets > entries, distrust_state, "{what}: {gets} objects read to open a log of {entries} entries");

        let scratch = scratch();
        let mut found = String::new();
        for backup in repository.backups() {
            let _ = write!(found, "{}", headline(&backup));
            found += &restored(&repository, &backup, &scratch.path().join(backup.id.to_string())).await;
        }
        let forgotten: String = repository.forgotten().iter().map(headline).collect();
        let listed: String = expected_of(backups, false);
        assert_eq!(found, listed, "{what}");
        assert_eq!(forgotten, heads(&expected_of(backups, true)), "{what}");

        let report = scrub(&repository).await;
        assert_eq!(report.findings, [], "{what}");
        assert!(report.backups > 2 && report.packs > 2 && report.chunks > 30, "{what}: {report:#?}");
        said.push((report.backups, report.entries, report.chunks, report.packs));
    }
    assert_eq!(said[0], said[1], "{what}");
}

/// The part of the text about listed, or about forgotten backups.
fn expected_of(backups: &str, forgotten: bool) -> String {
    let mut wanted = false;
    let mut lines = String::new();
    for line in backups.lines() {
        if line.starts_with("backup ") {
            wanted = line.contains(", forgotten by entry") == forgotten;
        }
        if wanted {
            lines += line;
            lines += "\n";
        }
    }
    lines
}

fn heads(text: &str) -> String {
    text.lines().filter(|line| line.starts_with("backup ")).map(|line| format!("{line}\n")).collect()
}

/// A copy on a local disk takes a backup that shares every chunk, a forget and a prune, and is whole afterwards.
async fn assert_writes(objects: &Objects, backups: &str, what: &str) {
    let scratch = scratch();
    let place = scratch.path().join("repository");
    let store = Store::create_root(place.to_str().unwrap(), &StoreOptions::default()).unwrap();
    for (path, bytes) in objects {
        store.put_new(&ObjectPath::parse(path).unwrap(), vec![bytes.clone()]).await.unwrap();
    }
    let repository = open(&store).await;
    let latest = repository.find_backup("latest").unwrap();
    let source = scratch.path().join("source");
    let lines = restored(&repository, &latest, &source).await;

    // Read anew and cut anew: if a chunk of it is new, files are not cut as they were, or chunks are not named as they were.
    let options = BackupOptions { lineage: Some("shop".to_owned()), force: true, ..BackupOptions::default() };
    let report = backup_of(&repository, &source, &options).await.unwrap();
    assert!(report.bytes_new == 0 && report.files_read > 8 && report.problem_count == 0, "{what}: {report:?}");
    assert_eq!(report.parent, Some(latest.id), "{what}");
    std::fs::write(source.join("new"), b"something new").unwrap();
    let report = backup_of(&repository, &source, &options).await.unwrap();
    assert_eq!(report.bytes_new, 13, "{what}: {report:?}");
    let newest = restored_lines(&source);
    assert!(newest.len() > lines.len());

    let held: Vec<BackupInfo> = repository.backups().into_iter().filter(|backup| backup.held_until.is_some()).collect();
    assert_eq!(held.len(), 1, "{what}");
    let which = Which::Named(vec![held[0].id]);
    let refused = forget(&repository, &ForgetOptions { which, reason: String::new(), dry_run: false }).await;
    let refused = refused.map(|report| report.forgotten);
    assert!(matches!(refused, Err(_) | Ok(0)), "{what}: what is held was forgotten: {refused:?}");
    let gone: Vec<ObjectHash> = repository.backups().iter().map(|backup| backup.id).collect();
    let gone: Vec<ObjectHash> = gone.into_iter().filter(|id| *id != held[0].id && *id != report.id).collect();
    forget(&repository, &ForgetOptions { which: Which::Named(gone), reason: String::new(), dry_run: false })
        .await
        .unwrap();
    let options = PruneOptions { max_unused: MaxUnused::Bytes(0), memory: 64 << 20, ..PruneOptions::default() };
    let pruned = prune(&repository, &options, Arc::new(Silent), |_| {}).await.unwrap();
    assert!(pruned.objects_deleted > 0 && pruned.objects_waiting == 0, "{what}: {pruned:?}");

    let repository = open(&store).await;
    let left: Vec<ObjectHash> = repository.backups().iter().map(|backup| backup.id).collect();
    assert_eq!(left, [held[0].id, report.id], "{what}");
    let first = restored(&repository, &held[0], &scratch.path().join("first")).await;
    assert!(backups.contains(&(headline(&held[0]) + &first)), "{what}: {first}");
    let second = repository.find_backup("latest").unwrap();
    assert_eq!(restored(&repository, &second, &scratch.path().join("second")).await, newest, "{what}");
    let report = scrub(&repository).await;
    assert_eq!(report.findings, [], "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_repositories_are_read() {
    for format in FORMATS {
        let (objects, backups) = kept(format);
        assert_reads(&objects, &backups, format).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_repositories_are_written() {
    for format in FORMATS {
        let (objects, backups) = kept(format);
        assert_writes(&objects, &backups, format).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kept_repository_has_something_of_everything() {
    let found = inventory(&kept("format-1").0).unwrap();
    assert_eq!(found.records, (1..=17).collect(), "kinds of records");
    assert_eq!(found.methods, [0, 1, 2].into(), "methods of coding");
    assert_eq!(found.formats, [0, 1, 2].into(), "formats of files");
    assert_eq!(found.entries, [1, 2, 3].into(), "kinds of entries");
    assert!(found.framed > 0 && found.long_files > 0, "{found:?}");
    let folders: Vec<&str> = found.objects.keys().map(String::as_str).collect();
    assert_eq!(folders, ["config", "index", "log", "log-state", "manifests", "meta", "packs", "scrub"]);
    assert!(found.objects["manifests"] > 4 && found.objects["index"] > 2, "{found:?}");
}

/// What would be kept if it were made today: read and written like what was kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_this_release_writes_could_be_kept() {
    let lived = life().await;
    assert_reads(&lived.objects, &lived.backups, "today's").await;
    assert_writes(&lived.objects, &lived.backups, "today's").await;
    // The same things happened to it as to the newest that is kept.
    let (objects, backups) = kept(newest());
    let (kept, today) = (inventory(&objects).unwrap(), inventory(&lived.objects).unwrap());
    assert_eq!((kept.records, kept.methods, kept.formats), (today.records, today.methods, today.formats));
    let contents = |text: &str| text.lines().filter(|line| line.starts_with(' ')).collect::<Vec<_>>().join("\n");
    assert_eq!(contents(&backups), contents(&lived.backups));
}

// A later minor release.

/// The text with the backups under their new names.
fn renamed(backups: &str, names: &BTreeMap<ObjectHash, ObjectHash>) -> String {
    names.iter().fold(backups.to_owned(), |text, (old, new)| text.replace(&old.to_string(), &new.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_minor_release_is_read_and_may_be_written() {
    for format in FORMATS {
        let (objects, backups) = kept(format);
        let later = grown(&objects, NewRecords::Optional).unwrap();
        let folders: Vec<&str> = later.grown.keys().map(String::as_str).collect();
        assert_eq!(folders, ["config", "index", "log", "log-state", "manifests", "meta", "scrub"], "{format}");
        let same = objects.iter().filter(|(path, bytes)| later.objects.get(*path) == Some(bytes));
        let same: BTreeSet<&str> = same.map(|(path, _)| path.split('/').next().unwrap()).collect();
        assert_eq!(same, ["packs"].into(), "{format}: only data packs are as they were");
        let names: BTreeSet<ObjectHash> = later.backups.values().copied().collect();
        assert!(names.len() == later.backups.len() && later.backups.keys().all(|old| !names.contains(old)));

        let what = format!("{format}, grown");
        let backups = renamed(&backups, &later.backups);
        assert_reads(&later.objects, &backups, &what).await;
        assert_writes(&later.objects, &backups, &what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_release_knows_of_an_entry_is_kept_with_it() {
    let lived = life().await;
    let later = grown(&lived.objects, NewRecords::Optional).unwrap();
    let store = store_of(&later.objects).await;
    let repository = open(&store).await;
    let (tree, entries) = lived.newest;
    let before = inventory(&objects_of(&store).await).unwrap();
    let report = back_up_entries(&repository, "shop", &[], &tree, entries).await;
    // Nobody opened a file, and the list is the one that is there, with extensions and formats that we do not know: of directories and links too.
    assert_eq!((report.files_read, report.chunks_new, report.bytes_stored), (0, 0, 0), "{report:?}");
    let after = inventory(&objects_of(&store).await).unwrap();
    assert_eq!(after.objects["meta"], before.objects["meta"]);
    assert!(after.formats.contains(&9), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_release_with_mandatory_records_is_read_and_not_written() {
    for format in FORMATS {
        let (objects, backups) = kept(format);
        let later = grown(&objects, NewRecords::Mandatory).unwrap();
        let backups = renamed(&backups, &later.backups);
        // The record is in the first entry: with the state object believed, only that tells of it.
        assert_reads(&later.objects, &backups, &format!("{format}, grown")).await;
        for distrust_state in [false, true] {
            let store = store_of(&later.objects).await;
            let options = OpenOptions { distrust_state, ..OpenOptions::default() };
            let repository = Repository::open(store.clone(), options, environment(None)).await.unwrap();
            let tree = Tree::from([(b"new".to_vec(), Arc::new(b"new".to_vec()))]);
            let ids: Vec<ObjectHash> = repository.backups().iter().map(|backup| backup.id).collect();
            let forgotten = repository.forgotten()[0].id;
            let named =
                ForgetOptions { which: Which::Named(ids[1..2].to_vec()), reason: String::new(), dry_run: false };
            let refused = [
                crate::made::back_up(&repository, "/data", &tree).await.map(drop),
                forget(&repository, &named).await.map(drop),
                unforget(&repository, &[forgotten], Arc::new(Silent)).await.map(drop),
                hold(&repository, &ids[1..2], Until::Time(Timestamp::from_nanos(i64::MAX))).await.map(drop),
                prune(&repository, &PruneOptions::default(), Arc::new(Silent), |_| {}).await.map(drop),
                repair(&repository, None, &RepairOptions::default(), Arc::new(Silent)).await.map(drop),
            ];
            for (n, outcome) in refused.into_iter().enumerate() {
                let error = outcome.expect_err("nothing may be written");
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{n}: {}", whole(&error));
                assert!(whole(&error).contains("1000"), "{n}: {}", whole(&error));
            }
            assert!(objects_of(&store).await == later.objects, "{format}: something was written");
        }
    }
}
