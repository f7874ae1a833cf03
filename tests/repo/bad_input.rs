//! What people and other programs hand us: places that are no repository, repositories of later releases, odd files, hostile paths, stores that lie.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use everpack::error::{Error, ErrorKind, Result};
use everpack::ops::backup::{BackupOptions, backup};
use everpack::ops::restore::{RestoreOptions, TargetMode, restore};
use everpack::progress::Silent;
use everpack::repo::{InitOptions, OpenOptions, Repository};
use everpack::source::{
    DirectoryOptions, DirectorySource, OpenFile, Skipped, Source, SourceDescription, SourceEntry, SourceFile,
};
use everpack::store::adapter::{Overwriter, Racy};
use everpack::store::{Store, StoreOptions, StoredObject};
use everpack::tae::Framer;
use everpack::testing::tae_writer::{TaeName, TaeOptions, TaeWriter, Vector, object_name};

use crate::made::{
    Made, Tree, assert_restores, back_up, entry_of, memory, objects_of, open, quick, seeded, small, store_of, tree_of,
    whole,
};
use crate::support::{Scene, assert_same, noise, tree, write};

async fn made_repository() -> Store {
    let store = memory();
    let repository = Repository::create(store.clone(), &small(), seeded(1).0).await.unwrap();
    back_up(&repository, "/data", &tree_of(1, 50_000)).await.unwrap();
    store
}

#[tokio::test]
async fn a_place_without_repository_names_init() {
    let error = open(&memory(), 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("everpack init"), "{error}");

    let scratch = tempfile::TempDir::new().unwrap();
    let error = Store::open(scratch.path().join("nowhere").to_str().unwrap(), &StoreOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.message().contains("nowhere"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_init_leaves_the_first_alone() {
    let store = made_repository().await;
    let before = objects_of(&store).await;
    let error = Repository::create(store.clone(), &small(), seeded(2).0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("there is a repository already"), "{error}");
    assert!(objects_of(&store).await == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_repository_says_which_half() {
    let store = made_repository().await;
    store.delete(StoredObject::Config).await.unwrap();
    let error = open(&store, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("`config` is missing, but there is a log"), "{error}");

    // An init that was killed after its last write: complete, and empty.
    let store = memory();
    Repository::create(store.clone(), &small(), seeded(1).0).await.unwrap();
    assert!(objects_of(&store).await.keys().all(|path| path == "config"));
    let repository = open(&store, 2).await.unwrap();
    let tree = tree_of(2, 10_000);
    let report = back_up(&repository, "/data", &tree).await.unwrap();
    assert_restores(&repository, report.id, &tree).await;
}

/// A stored object changed by hand, with the checksums that belong to it. The header ends with its own.
fn resealed(stored: &Bytes, header_len: usize, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = stored.to_vec();
    change(&mut bytes);
    let sum = crc32c::crc32c(&bytes[..header_len - 4]);
    bytes[header_len - 4..header_len].copy_from_slice(&sum.to_le_bytes());
    bytes.into()
}

const CONFIG_HEADER: usize = 20;
const ENTRY_HEADER: usize = 80;

async fn open_with(path: &str, bytes: Bytes) -> Result<Repository> {
    let mut objects = objects_of(&made_repository().await).await;
    objects.insert(path.to_owned(), bytes);
    open(&store_of(&objects).await, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn later_versions_and_encryption_are_refused_by_name() {
    let objects = objects_of(&made_repository().await).await;
    for (path, header) in [("config", CONFIG_HEADER), ("log/00000000000000000002", ENTRY_HEADER)] {
        let later = resealed(&objects[path], header, |bytes| bytes[8] = 2);
        let error = open_with(path, later).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.message().contains("version 2"), "{error}");

        let sealed = resealed(&objects[path], header, |bytes| bytes[10] = 1);
        let error = open_with(path, sealed).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.message().contains("encryption"), "{error}");
    }
}

/// Replaces the mandatory features of a config by this one.
fn config_with_feature(stored: &Bytes, feature: &str) -> Bytes {
    let body_end = stored.len() - 4;
    let mut body = stored[CONFIG_HEADER..body_end].to_vec();
    let len = u32::try_from(feature.len()).unwrap().to_le_bytes();
    let list = [1u32.to_le_bytes().as_slice(), &len, feature.as_bytes()].concat();
    assert_eq!(body[72..76], [0; 4], "the list of mandatory features is empty");
    body.splice(72..76, list);
    let header = resealed(&stored.slice(..CONFIG_HEADER), CONFIG_HEADER, |bytes| {
        bytes[12..16].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    });
    [header.as_ref(), &body, &crc32c::crc32c(&body).to_le_bytes()].concat().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn features_that_are_not_known_are_refused_by_name() {
    let objects = objects_of(&made_repository().await).await;
    for feature in ["encryption", "time travel"] {
        let error = open_with("config", config_with_feature(&objects["config"], feature)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.message().contains(feature), "{error}");
    }
}

/// An entry that follows `previous`, by an operator, with one record.
fn entry_after(number: u64, previous: &Bytes, record: &[u8]) -> Bytes {
    let mut body = vec![0; 16];
    body.extend_from_slice(&4u32.to_le_bytes());
    body.extend_from_slice(b"test");
    body.extend_from_slice(&1u32.to_le_bytes());
    body.extend_from_slice(record);
    let mut entry = b"EVPKLOGE\x01\0\0\0".to_vec();
    entry.extend_from_slice(&number.to_le_bytes());
    entry.extend_from_slice(blake3::hash(previous).as_bytes());
    entry.extend_from_slice(&[7; 16]);
    entry.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    entry.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    let sum = crc32c::crc32c(&entry);
    entry.extend_from_slice(&sum.to_le_bytes());
    [entry, body].concat().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_not_known_may_be_read_past_but_not_written_after() {
    let objects = objects_of(&made_repository().await).await;
    for (mandatory, may_write) in [(0u8, true), (1, false)] {
        // Kind 999, flags, length 3.
        let record = [0xe7, 3, mandatory, 0, 3, 0, 0, 0, b'x', b'y', b'z'];
        let mut objects = objects.clone();
        let entry = entry_after(3, &objects["log/00000000000000000002"], &record);
        objects.insert("log/00000000000000000003".to_owned(), entry);
        let store = store_of(&objects).await;
        let repository = open(&store, 3).await.unwrap();
        let first = repository.find_backup("latest").unwrap();
        assert_restores(&repository, first.id, &tree_of(1, 50_000)).await;
        let outcome = back_up(&repository, "/data", &tree_of(2, 1000)).await;
        assert_eq!(outcome.is_ok(), may_write, "{outcome:?}");
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.message().contains("999"), "{error}");
            let numbers = objects_of(&store).await.keys().filter(|path| path.starts_with("log/")).count();
            assert_eq!(numbers, 3, "nothing was written");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_links_and_special_files() {
    let scene = Scene::with(small()).await;
    let source = scene.path("source");
    let odd: [&[u8]; 7] =
        [b"not-\xff-utf8", b"new\nline", b" blank ", b"back\\slash", b"-r", b"\xf0\x9f\xa6\x80", b"..."];
    for (n, name) in odd.iter().enumerate() {
        write(&source.join("names").join(Path::new(std::ffi::OsStr::from_bytes(name))), &noise(n as u64, 5000 * n));
    }
    for (link, target) in [("broken", "/nowhere"), ("up", "../../.."), ("self", "self"), ("dir", "names")] {
        std::os::unix::fs::symlink(target, source.join(link)).unwrap();
    }
    let before = crate::support::tree(&source);
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    for pipe in ["fifo-1", "fifo-2"] {
        let made = std::process::Command::new("mkfifo").arg(source.join(pipe)).status();
        assert!(made.unwrap().success());
    }
    let report = scene.backup(&source).await;
    assert_eq!((report.skipped.sockets.count, report.skipped.fifos.count), (1, 2), "{:?}", report.skipped);
    assert!(!report.partial && report.problem_count == 0, "{report:?}");
    scene.restore("latest", &scene.path("target")).await;
    assert!(crate::support::tree(&scene.path("target")) == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_stay_holes_and_nothing_stays_nothing() {
    let scene = Scene::with(small()).await;
    let source = scene.path("source");
    write(&source.join("empty"), b"");
    std::fs::create_dir_all(source.join("empty-directory")).unwrap();
    let sparse = std::fs::File::create(source.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 20 << 20).unwrap();
    sparse.set_len(60 << 20).unwrap();
    sparse.sync_all().unwrap();
    let before = std::fs::metadata(source.join("sparse")).unwrap().blocks();
    assert!(before < 1000, "this file system has no holes");
    let report = scene.backup(&source).await;
    assert!(report.bytes_stored < 100_000, "{report:?}");
    scene.restore("latest", &scene.path("target")).await;
    assert_same(&source, &scene.path("target"));
    let after = std::fs::metadata(scene.path("target/sparse")).unwrap();
    assert!(after.blocks() < 1000, "{} blocks of a file with {before}", after.blocks());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_more_than_4_gib_keeps_its_offsets() {
    let scene = Scene::new().await;
    let source = scene.path("source");
    std::fs::create_dir_all(&source).unwrap();
    let len = (4 << 30) + 12_345_678;
    let marks = [(0u64, noise(1, 5000)), ((4 << 30) - 2000, noise(2, 9000)), (len - 777, noise(3, 777))];
    let large = std::fs::File::create(source.join("large")).unwrap();
    large.set_len(len).unwrap();
    for (at, bytes) in &marks {
        std::os::unix::fs::FileExt::write_all_at(&large, bytes, *at).unwrap();
    }
    large.sync_all().unwrap();
    let report = scene.backup(&source).await;
    assert_eq!(report.totals.bytes, len);
    // Without reading it back: the marks are read below, and every chunk is verified all the same.
    let options = RestoreOptions { fast: true, ..RestoreOptions::default() };
    scene.try_restore("latest", &scene.path("target"), &options).await.unwrap();
    let restored = std::fs::File::open(scene.path("target/large")).unwrap();
    let meta = restored.metadata().unwrap();
    assert_eq!(meta.len(), len);
    assert!(meta.blocks() < 100_000, "{} blocks", meta.blocks());
    for (at, bytes) in &marks {
        let mut found = vec![0; bytes.len()];
        std::os::unix::fs::FileExt::read_exact_at(&restored, &mut found, *at).unwrap();
        assert!(found == *bytes, "at {at}");
    }
}

/// A source whose file changes so many times while it is read.
struct Changing {
    made: Made,
    times: u64,
}

struct ChangingOpener {
    opener: Arc<dyn OpenFile>,
    left: Arc<AtomicU64>,
}

struct ChangingFile {
    file: Box<dyn SourceFile>,
    left: Arc<AtomicU64>,
}

impl Source for Changing {
    fn describe(&self) -> SourceDescription {
        self.made.describe()
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        self.made.next_batch(max)
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        Arc::new(ChangingOpener { opener: self.made.reader(), left: Arc::new(AtomicU64::new(self.times)) })
    }

    fn skipped(&self) -> Skipped {
        self.made.skipped()
    }
}

impl OpenFile for ChangingOpener {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        let file = self.opener.open(entry)?;
        if entry.path != b"changing" {
            return Ok(file);
        }
        Ok(Box::new(ChangingFile { file, left: Arc::clone(&self.left) }))
    }
}

impl SourceFile for ChangingFile {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buf)
    }

    fn verify_unchanged(&self) -> Result<bool> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(1)));
        Ok(left == Ok(0))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_is_read_again_and_named_if_it_never_stops() {
    let repository = Repository::create(memory(), &small(), seeded(1).0).await.unwrap();
    let mut tree = tree_of(1, 30_000);
    tree.insert(b"changing".to_vec(), Arc::new(noise(1, 100_000)));
    let changing = |times| Box::new(Changing { made: Made::new("/data", &tree), times });
    let calm = backup(&repository, changing(2), &quick(), Arc::new(Silent)).await.unwrap();
    assert!(!calm.partial && calm.problem_count == 0, "{calm:?}");
    assert_restores(&repository, calm.id, &tree).await;

    let force = BackupOptions { force: true, ..quick() };
    let error = backup(&repository, changing(99), &force, Arc::new(Silent)).await.unwrap_err();
    assert!(error.message().contains("changing") && error.message().contains("--allow-partial"), "{error}");
    assert_eq!(repository.backups().len(), 1);
    let partial = BackupOptions { allow_partial: true, ..force };
    let report = backup(&repository, changing(99), &partial, Arc::new(Silent)).await.unwrap();
    assert!(report.partial && report.problems[0].path == "changing", "{report:?}");
    assert!(repository.find_backup("latest").unwrap().summary.partial);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_not_empty_is_left_alone() {
    let scene = Scene::with(small()).await;
    write(&scene.path("source/a"), b"new");
    scene.backup(&scene.path("source")).await;
    write(&scene.path("target/a"), b"precious");
    let error = scene.try_restore("latest", &scene.path("target"), &RestoreOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("target"), "{error}");
    assert_eq!(std::fs::read(scene.path("target/a")).unwrap(), b"precious");
    assert_eq!(crate::support::tree(&scene.path("target")).len(), 1);
}

/// A backup whose source gave these paths, made by whoever wants to write outside a target.
async fn hostile_backup(paths: &[&[u8]]) -> (Repository, Result<everpack::ops::backup::BackupReport>) {
    let repository = Repository::create(memory(), &small(), seeded(1).0).await.unwrap();
    let content = b"owned".to_vec();
    let tree: Tree = paths.iter().map(|path| (path.to_vec(), Arc::new(content.clone()))).collect();
    let entries = paths.iter().map(|path| entry_of(path, &content)).collect();
    let source = Made::with_entries("/data", &tree, entries);
    let outcome = backup(&repository, Box::new(source), &quick(), Arc::new(Silent)).await;
    (repository, outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_outside_the_target() {
    let absolute = format!("{}/everpack-escaped", std::env::temp_dir().display());
    let hostile: [&[u8]; 7] =
        [b"../escaped", absolute.as_bytes(), b"a/../../escaped", b"a/./b", b"a//b", b"..", b"nul\0byte"];
    for path in hostile {
        let (repository, outcome) = hostile_backup(&[path]).await;
        let what = path.escape_ascii();
        let outer = tempfile::TempDir::new().unwrap();
        let refused = match outcome {
            Err(error) => error.to_string(),
            Ok(_) => {
                let backup = repository.find_backup("latest").unwrap();
                let target = outer.path().join("target");
                let options = RestoreOptions::default();
                match restore(&repository, &backup, &target, &options, Arc::new(Silent)).await {
                    Err(error) => whole(&error),
                    Ok(report) => {
                        assert_eq!((report.files, report.damaged_count), (0, 1), "{what}");
                        report.damaged[0].message.clone()
                    }
                }
            }
        };
        assert!(refused.contains("path"), "{what}: {refused}");
        let outside: Vec<_> =
            std::fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(outside.iter().all(|name| name == "target"), "{what}: {outside:?}");
        assert!(!Path::new(&absolute).exists(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_the_backup_is_no_way_out_of_the_target() {
    let scene = Scene::with(small()).await;
    let outer = scene.path("outer");
    std::fs::create_dir_all(&outer).unwrap();
    let repository = Repository::create(memory(), &small(), seeded(1).0).await.unwrap();
    let content = b"owned".to_vec();
    let mut link = entry_of(b"way", b"");
    link.kind = everpack::source::EntryKind::Symlink;
    link.link_target = outer.as_os_str().as_bytes().to_vec();
    let tree: Tree = [(b"way/out".to_vec(), Arc::new(content.clone()))].into();
    let entries = vec![link, entry_of(b"way/out", &content)];
    let source = Made::with_entries("/data", &tree, entries);
    if backup(&repository, Box::new(source), &quick(), Arc::new(Silent)).await.is_ok() {
        let latest = repository.find_backup("latest").unwrap();
        let target = scene.path("target");
        let report = restore(&repository, &latest, &target, &RestoreOptions::default(), Arc::new(Silent)).await;
        assert!(report.is_err() || report.as_ref().is_ok_and(|report| report.damaged_count > 0), "{report:?}");
    }
    assert_eq!(std::fs::read_dir(&outer).unwrap().count(), 0, "something was written through the link");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lies_is_refused_unless_it_is_for_one_writer() {
    type Liar = fn(&Store) -> Store;
    for (name, liar) in [("overwriter", Overwriter::around as Liar), ("racy", Racy::around)] {
        let disk = memory();
        let error = Repository::create(liar(&disk), &small(), seeded(1).0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
        assert!(objects_of(&disk).await.is_empty(), "{name}: a refused place is left as it was");

        let options = InitOptions { single_writer: true, ..small() };
        let repository = Repository::create(liar(&disk), &options, seeded(1).0).await.unwrap();
        assert!(repository.store_facts().single_writer);
        let tree = tree_of(1, 40_000);
        let report = back_up(&repository, "/data", &tree).await.unwrap();
        assert_restores(&repository, report.id, &tree).await;
        assert!(!disk.exists(StoredObject::Lock).await.unwrap(), "{name}: the lock was given back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_copied_to_a_store_that_overwrites_is_not_written() {
    let store = store_of(&objects_of(&made_repository().await).await).await;
    let before = objects_of(&store).await;
    let liar = Overwriter::around(&store);
    let repository = Repository::open(liar, OpenOptions::default(), seeded(2).0).await.unwrap();
    let error: Error = back_up(&repository, "/data", &tree_of(2, 1000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(objects_of(&store).await == before);
}

/// A valid MatrixOne object.
fn object(name: TaeName) -> Vec<u8> {
    let mut writer = TaeWriter::new(TaeOptions::new(name));
    let mut column = Vector::new(23).unwrap();
    for row in 0..8000i64 {
        column.push_fixed((row * row % 977).to_le_bytes());
    }
    writer.push_block(&[column], Vec::new()).unwrap();
    writer.finish().unwrap().bytes
}

fn framed(logical: &[u8]) -> Vec<u8> {
    let mut physical = Vec::new();
    let mut framer = Framer::new();
    framer.feed(logical, &mut physical);
    framer.finish(&mut physical);
    physical
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_damaged_once_is_read_again_every_night_until_it_is_whole() {
    // An object's name tells its content, and nobody opens what the night before had; but what was damaged the night before is not what the
    // name tells.
    let scene = Scene::new().await;
    let source = scene.path("source");
    let names = [object_name(1, 1_700_000_000_000, 0), object_name(2, 1_700_000_000_001, 0)];
    let paths = names.map(|name| source.join("tae").join(name.to_string()));
    let whole = [object(names[0]), framed(&object(names[1]))];
    for (path, bytes) in paths.iter().zip(&whole) {
        let mut damaged = bytes.clone();
        damaged[3000..3040].fill(0xff);
        write(path, &damaged);
    }
    let first = scene.backup(&source).await;
    assert_eq!((first.problem_count, first.partial), (2, false), "{first:?}");
    // Whatever the file says of its times, the damage is told again.
    let second = scene.backup(&source).await;
    assert_eq!((second.problem_count, second.files_unchanged), (2, 2), "{second:?}");
    assert_eq!(second.bytes_new, 0, "{second:?}");

    // The next copy of the same names is whole.
    for (path, bytes) in paths.iter().zip(&whole) {
        std::fs::remove_file(path).unwrap();
        write(path, bytes);
    }
    let third = scene.backup(&source).await;
    assert_eq!((third.problem_count, third.files_changed), (0, 2), "{third:?}");
    scene.restore("latest", &scene.path("restored")).await;
    assert_same(&source, &scene.path("restored"));

    let fourth = scene.backup(&source).await;
    assert_eq!((fourth.files_unchanged, fourth.bytes_read), (2, 0), "whole again, they are known by name: {fourth:?}");
}

/// A directory whose file grows by a byte whenever it is opened, so many times.
struct Growing {
    inner: DirectorySource,
    file: PathBuf,
    times: Arc<AtomicU64>,
}

struct GrowingOpener {
    inner: Arc<dyn OpenFile>,
    file: PathBuf,
    times: Arc<AtomicU64>,
}

impl Source for Growing {
    fn describe(&self) -> SourceDescription {
        self.inner.describe()
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        self.inner.next_batch(max)
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        let inner = self.inner.reader();
        Arc::new(GrowingOpener { inner, file: self.file.clone(), times: Arc::clone(&self.times) })
    }

    fn skipped(&self) -> Skipped {
        self.inner.skipped()
    }
}

impl OpenFile for GrowingOpener {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        let left = self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            use std::io::Write;
            std::fs::OpenOptions::new().append(true).open(&self.file).unwrap().write_all(b"x").unwrap();
        }
        self.inner.open(entry)
    }

    fn look(&self, entry: &SourceEntry) -> Result<SourceEntry> {
        self.inner.look(entry)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_since_it_was_listed_is_backed_up_as_it_is_now() {
    // The second try once compared with the listing as well, and so could never succeed.
    let scene = Scene::with(small()).await;
    let source = scene.path("source");
    write(&source.join("log"), &noise(3, 50_000));
    let growing = |times| {
        let inner = DirectorySource::open(&source, &DirectoryOptions::default()).unwrap();
        Box::new(Growing { inner, file: source.join("log"), times: Arc::new(AtomicU64::new(times)) })
    };
    let report = backup(&scene.repository, growing(2), &BackupOptions::default(), Arc::new(Silent)).await.unwrap();
    assert_eq!((report.problem_count, report.partial, report.totals.bytes), (0, false, 50_002), "{report:?}");
    scene.restore("latest", &scene.path("restored")).await;
    assert_same(&source, &scene.path("restored"));

    let error = backup(&scene.repository, growing(99), &BackupOptions::default(), Arc::new(Silent)).await.unwrap_err();
    assert!(error.message().contains("log"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_its_own_source_is_left_out_and_none_is_restored_over() {
    let scene = Scene::with(small()).await;
    write(&scene.path("a"), b"content");
    // The index changes while the backup runs.
    let exclude = vec!["/cache".to_owned()];
    let options = DirectoryOptions { repository: Some(scene.path("repo")), exclude, ..DirectoryOptions::default() };
    for _night in 0..2 {
        let source = DirectorySource::open(scene.scratch.path(), &options).unwrap();
        let report = backup(&scene.repository, Box::new(source), &BackupOptions::default(), Arc::new(Silent)).await;
        assert_eq!(report.unwrap().skipped.repository.names, ["repo"]);
    }
    let error = DirectorySource::open(&scene.path("repo"), &options).err().unwrap();
    assert!(error.message().contains("the repository itself"), "{error}");

    let before = tree(&scene.path("repo"));
    let options = RestoreOptions { mode: TargetMode::Force, delete_extra: true, ..RestoreOptions::default() };
    for target in [scene.path("repo"), scene.scratch.path().to_path_buf(), scene.path("repo/packs/new")] {
        let error = scene.try_restore("latest", &target, &options).await.unwrap_err();
        assert!(error.message().contains("repository"), "{error}");
    }
    assert_eq!(tree(&scene.path("repo")), before, "nothing of it was touched");
}
