//! Questions to a repository with two backups of one directory, and to one with a list cut into many segments.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Change, Difference, diff, find, ls, show, stats};
use crate::clock::{ManualClock, Timestamp};
use crate::entropy::SeededEntropy;
use crate::error::ErrorKind;
use crate::ops::backup::{BackupOptions, backup};
use crate::progress::Silent;
use crate::repo::{BackupInfo, EntryKind, Environment, InitOptions, Process, Repository};
use crate::source::{DirectoryOptions, DirectorySource};
use crate::store::{Store, StoreOptions};

struct Scene {
    root: tempfile::TempDir,
    clock: Arc<ManualClock>,
    repository: Repository,
}

impl Scene {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_nanos(4_000_000_000_000_000_000)));
        let environment = Environment {
            clock: Arc::clone(&clock) as Arc<_>,
            entropy: Arc::new(SeededEntropy::new(1)),
            process: Process::current(),
            cache: None,
        };
        let store = Store::open("memory:", &StoreOptions::default()).unwrap();
        let repository = Repository::create(store, &InitOptions::default(), environment).await.unwrap();
        Self { root: tempfile::tempdir().unwrap(), clock, repository }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    async fn back_up(&self) -> BackupInfo {
        self.clock.advance(Duration::from_secs(86_400));
        let source = DirectorySource::open(self.root.path(), &DirectoryOptions::default()).unwrap();
        let options = BackupOptions { tags: vec!["tagged".to_owned()], ..BackupOptions::default() };
        let report = backup(&self.repository, Box::new(source), &options, Arc::new(Silent)).await.unwrap();
        self.repository.find_backup(&report.id.to_string()).unwrap()
    }

    async fn ls(&self, backup: &BackupInfo, path: &str, recursive: bool) -> Vec<String> {
        let mut shown = Vec::new();
        let mut emit = |entry: &crate::repo::Entry| {
            let slash = if entry.kind == EntryKind::Directory { "/" } else { "" };
            shown.push(format!("{}{slash}", String::from_utf8_lossy(&entry.path)));
            Ok(())
        };
        ls(&self.repository, backup, path.as_bytes(), recursive, &mut emit).await.unwrap();
        shown
    }

    async fn diff(&self, a: &BackupInfo, b: &BackupInfo) -> Vec<(Change, String, i128)> {
        let mut found = Vec::new();
        let mut emit = |difference: Difference| {
            let path = String::from_utf8_lossy(difference.path()).into_owned();
            found.push((difference.change, path, difference.growth()));
        };
        diff(&self.repository, a, b, &mut emit).await.unwrap();
        found.sort_by(|a, b| a.1.cmp(&b.1));
        found
    }

    async fn find(&self, pattern: &str, backups: &[BackupInfo]) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        let mut emit = |backup: &BackupInfo, entry: &crate::repo::Entry| {
            found.push((backup.entry, String::from_utf8_lossy(&entry.path).into_owned()));
        };
        find(&self.repository, pattern, backups, &mut emit).await.unwrap();
        found
    }
}

fn touch(path: &Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_lists_its_children_or_all_below() {
    let scene = Scene::new().await;
    scene.write("a/b/deep", "1");
    scene.write("a/top", "2");
    scene.write("a-b", "3");
    scene.write("z", "4");
    let backup = scene.back_up().await;
    assert_eq!(scene.ls(&backup, "", false).await, ["a-b", "a/", "z"]);
    assert_eq!(scene.ls(&backup, "./a/", false).await, ["a/b/", "a/top"]);
    assert_eq!(scene.ls(&backup, "a", true).await, ["a/b/", "a/b/deep", "a/top"]);
    assert_eq!(scene.ls(&backup, "/a/top", false).await, ["a/top"]);
    assert_eq!(scene.ls(&backup, "", true).await, ["a-b", "a/", "a/b/", "a/b/deep", "a/top", "z"]);
    let missing = ls(&scene.repository, &backup, b"a/no", false, &mut |_| Ok(())).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn directories_that_a_bucket_does_not_have_are_shown_once() {
    let mut lister = super::ls::Lister::new(b"", false);
    let mut shown = Vec::new();
    for path in ["a-b", "a/b/one", "a/b/two", "a/c", "z"] {
        let entry = crate::repo::Entry { kind: EntryKind::File, ..super::ls::synthetic(path.as_bytes()) };
        let mut emit = |entry: &crate::repo::Entry| {
            shown.push((String::from_utf8_lossy(&entry.path).into_owned(), entry.kind));
            Ok(())
        };
        lister.take(&entry, &mut emit).unwrap();
    }
    let file = |name: &str| (name.to_owned(), EntryKind::File);
    assert_eq!(shown, [file("a-b"), ("a".to_owned(), EntryKind::Directory), file("z")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_told_apart() {
    let scene = Scene::new().await;
    for name in ["same", "grown", "gone", "touched", "turned"] {
        scene.write(name, "text");
    }
    touch(&scene.root.path().join("touched"), 1_000_000);
    let first = scene.back_up().await;
    scene.write("grown", "more text");
    scene.write("new", "12345");
    touch(&scene.root.path().join("touched"), 2_000_000);
    std::fs::remove_file(scene.root.path().join("gone")).unwrap();
    std::fs::remove_file(scene.root.path().join("turned")).unwrap();
    std::os::unix::fs::symlink("same", scene.root.path().join("turned")).unwrap();
    let second = scene.back_up().await;
    let change = |change, path: &str, growth| (change, path.to_owned(), growth);
    assert_eq!(
        scene.diff(&first, &second).await,
        [
            change(Change::Removed, "gone", -4),
            change(Change::Content, "grown", 5),
            change(Change::Added, "new", 5),
            change(Change::Metadata, "touched", 0),
            change(Change::Kind, "turned", -4),
        ]
    );
    assert_eq!(scene.diff(&second, &second).await, []);
    assert_eq!(scene.diff(&second, &first).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_are_compared_and_listed_across_segments() {
    let scene = Scene::new().await;
    for number in 0..5000 {
        scene.write(&format!("{}/{number:05}", number % 7), "");
    }
    let first = scene.back_up().await;
    assert!(show(&scene.repository, &first).await.unwrap().segments > 1);
    scene.write("3/00500x", "new");
    std::fs::remove_file(scene.root.path().join("6/04997")).unwrap();
    let second = scene.back_up().await;
    let differences = scene.diff(&first, &second).await;
    let paths: Vec<_> = differences.iter().filter(|found| found.0 != Change::Metadata).map(|found| &found.1).collect();
    assert_eq!(paths, ["3/00500x", "6/04997"]);
    assert_eq!(scene.ls(&second, "", false).await, ["0/", "1/", "2/", "3/", "4/", "5/", "6/"]);
    assert_eq!(scene.ls(&first, "6", false).await.len(), (0..5000).filter(|number| number % 7 == 6).count());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_is_found_once() {
    let scene = Scene::new().await;
    scene.write("sub/config.toml", "one");
    scene.write("other.txt", "x");
    let first = scene.back_up().await;
    let second = scene.back_up().await;
    scene.write("sub/config.toml", "another");
    let third = scene.back_up().await;
    let all = scene.repository.backups();
    let path = || "sub/config.toml".to_owned();
    assert_eq!(scene.find("config.*", &all).await, [(first.entry, path()), (third.entry, path())]);
    assert_eq!(scene.find("sub/*.toml", std::slice::from_ref(&second)).await, [(second.entry, path())]);
    assert_eq!(scene.find("*.none", &all).await, []);
    let wrong = find(&scene.repository, "[", &all, &mut |_, _| {}).await;
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_and_the_repository_are_described() {
    let scene = Scene::new().await;
    assert_eq!(stats(&scene.repository).await.unwrap().ratio, 0.0);
    scene.write("one", "12345");
    let first = scene.back_up().await;
    scene.write("two", "123");
    let second = scene.back_up().await;
    let shown = show(&scene.repository, &second).await.unwrap();
    assert_eq!((shown.id, shown.parent, shown.entry), (second.id, Some(first.id), second.entry));
    assert_eq!((shown.totals.files, shown.totals.bytes, shown.segments), (2, 8, 1));
    assert_eq!((shown.source_kind.as_str(), shown.tags.as_slice()), ("directory", &["tagged".to_owned()][..]));
    let stats = stats(&scene.repository).await.unwrap();
    assert_eq!((stats.backups, stats.forgotten, stats.logical_bytes, stats.log_entries), (2, 0, 13, 4));
    assert_eq!((stats.data_packs.count, stats.meta_packs.count, stats.fragments, stats.open_sessions), (2, 2, 2, 0));
    assert_eq!(stats.chunks, 4);
    assert_eq!(stats.stored_bytes, stats.data_packs.bytes + stats.meta_packs.bytes);
    let [lineage] = stats.lineages.as_slice() else { panic!("one lineage") };
    assert_eq!((lineage.backups, lineage.newest, lineage.newest_bytes), (2, second.id, 8));
}
