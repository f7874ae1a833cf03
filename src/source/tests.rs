//! Directory trees with everything in them that a file system allows.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;
use crate::error::ErrorKind;
use tempfile::TempDir;

fn open(path: &Path) -> DirectorySource {
    DirectorySource::open(path, &DirectoryOptions::default()).unwrap()
}

fn all(source: &mut dyn Source, max: usize) -> Vec<SourceEntry> {
    let mut entries = Vec::new();
    loop {
        let batch = source.next_batch(max).unwrap();
        assert!(batch.len() <= max);
        if batch.is_empty() {
            return entries;
        }
        entries.extend(batch);
    }
}

fn names(entries: &[SourceEntry]) -> Vec<String> {
    entries.iter().map(|entry| display_path(&entry.path)).collect()
}

/// The key by which a manifest sorts.
fn sort_key(entry: &SourceEntry) -> Vec<u8> {
    let mut key = entry.path.clone();
    if entry.kind == EntryKind::Directory {
        key.push(b'/');
    }
    key
}

fn tree(files: &[&str]) -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    for file in files {
        let path = temp.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !file.ends_with('/') {
            fs::write(path, file).unwrap();
        } else {
            fs::create_dir_all(path).unwrap();
        }
    }
    temp
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn entries_come_in_the_order_of_a_manifest_in_batches_of_any_size() {
    let temp = tree(&["a/x", "a/b/c", "a-b", "a.b", "a0", "a/b-c", "a/b.c", "B", "z/", "a!/y", "é"]);
    fs::write(temp.path().join(OsStr::from_bytes(b"a\xff")), "").unwrap();
    fs::write(temp.path().join(OsStr::from_bytes(b"a\x01\n")), "").unwrap();
    let expected = [
        "B",
        "a\\x01\\x0a",
        "a!",
        "a!/y",
        "a-b",
        "a.b",
        "a",
        "a/b-c",
        "a/b.c",
        "a/b",
        "a/b/c",
        "a/x",
        "a0",
        "a\\xff",
        "z",
        "é",
    ];
    for max in [1, 2, 3, 100] {
        let entries = all(&mut open(temp.path()), max);
        assert_eq!(names(&entries), expected, "batches of {max}");
        assert!(entries.is_sorted_by(|a, b| sort_key(a) < sort_key(b)));
    }
}

#[test]
fn an_entry_says_what_the_file_system_says() {
    let temp = tree(&["dir/file"]);
    let path = temp.path().join("dir/file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(&path, temp.path().join("dir/other")).unwrap();
    symlink("../nowhere", temp.path().join("link")).unwrap();
    let entries = all(&mut open(temp.path()), 10);
    assert_eq!(names(&entries), ["dir", "dir/file", "dir/other", "link"]);
    let metadata = fs::metadata(&path).unwrap();
    let file = &entries[1];
    assert_eq!((file.kind, file.size, file.mode, file.link_count), (EntryKind::File, 8, 0o4751, 2));
    assert_eq!((file.uid, file.gid), (metadata.uid(), metadata.gid()));
    assert_eq!(file.mtime.as_nanos(), metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec());
    assert_eq!(file.changed.as_nanos(), metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec());
    assert!(!file.sparse);
    assert_eq!((entries[0].kind, entries[0].size), (EntryKind::Directory, 0));
    assert_eq!((entries[3].kind, entries[3].size), (EntryKind::Symlink, 0));
    assert_eq!(entries[3].link_target, b"../nowhere");
}

#[test]
fn identity_stays_until_something_changes() {
    let temp = tree(&["file"]);
    let identity = || all(&mut open(temp.path()), 10)[0].identity;
    let first = identity();
    assert_eq!(identity(), first);
    // Same size, and the time set back: the change of the inode still shows.
    let path = temp.path().join("file");
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    loop {
        std::os::unix::fs::FileExt::write_all_at(&file, b"FILE", 0).unwrap();
        file.set_modified(mtime).unwrap();
        // The clock of the file system is coarse.
        if identity() != first {
            break;
        }
    }
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), mtime);
}

#[test]
fn what_is_no_file_is_counted_by_name() {
    let temp = tree(&["file", "sub/x"]);
    let mknod = |name: &str, kind| {
        rustix::fs::mknodat(rustix::fs::CWD, temp.path().join(name), kind, rustix::fs::Mode::RWXU, 0).unwrap();
    };
    mknod("sub/fifo", rustix::fs::FileType::Fifo);
    drop(std::os::unix::net::UnixListener::bind(temp.path().join("socket")).unwrap());
    let mut source = open(temp.path());
    assert_eq!(names(&all(&mut source, 10)), ["file", "sub", "sub/x"]);
    let skipped = source.skipped();
    assert_eq!(skipped.fifos.names, ["sub/fifo"]);
    assert_eq!(skipped.sockets, SkippedNames { count: 1, names: vec!["socket".to_owned()] });
    assert_eq!(skipped.failures(), 0);
}

#[test]
fn excluded_and_temporary_names_are_left_out() {
    let temp = tree(&["a/x.log", "a/keep", "b/deep/x", "c/b", "d/.tmp.12", "d/x.mofstemp", "x.log"]);
    let options = DirectoryOptions {
        exclude: vec!["*.log".to_owned(), "/b".to_owned()],
        skip_temporary: true,
        ..DirectoryOptions::default()
    };
    let mut source = DirectorySource::open(temp.path(), &options).unwrap();
    assert_eq!(names(&all(&mut source, 10)), ["a", "a/keep", "c", "c/b", "d"]);
    let skipped = source.skipped();
    assert_eq!(skipped.excluded.names, ["a/x.log", "b", "x.log"]);
    assert_eq!(skipped.temporary.names, ["d/.tmp.12", "d/x.mofstemp"]);
    let mut source = open(temp.path());
    assert!(names(&all(&mut source, 10)).contains(&"d/.tmp.12".to_owned()));
}

#[test]
fn a_single_file_is_one_entry_even_through_a_link() {
    let temp = tree(&["real/file", "real/other"]);
    symlink("real/file", temp.path().join("link")).unwrap();
    for path in ["real/file", "link"] {
        let mut source = open(&temp.path().join(path));
        let entries = all(&mut source, 10);
        assert_eq!(names(&entries), ["file"]);
        let mut buf = [0; 20];
        assert_eq!(source.reader().open(&entries[0]).unwrap().read_at(0, &mut buf).unwrap(), 9);
        let location = fs::canonicalize(temp.path().join("real/file")).unwrap();
        assert_eq!(source.describe().location, location.to_str().unwrap());
    }
    symlink("real", temp.path().join("directory-link")).unwrap();
    let mut source = open(&temp.path().join("directory-link"));
    assert_eq!(names(&all(&mut source, 10)), ["file", "other"]);
}

#[test]
fn a_source_that_is_not_there_or_no_file_is_an_error() {
    let temp = tree(&["x"]);
    let error = |name: &str| {
        let path = temp.path().join(name);
        DirectorySource::open(&path, &DirectoryOptions::default()).err().expect("refused")
    };
    assert_eq!(error("none").kind(), ErrorKind::NotFound);
    rustix::fs::mkfifoat(rustix::fs::CWD, temp.path().join("fifo"), rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(error("fifo").kind(), ErrorKind::Invalid);
}

#[test]
fn what_vanishes_between_listing_and_looking_is_counted() {
    let temp = tree(&["a", "b/x", "c", "d", "e/x"]);
    let mut source = open(temp.path());
    assert_eq!(names(&source.next_batch(1).unwrap()), ["a"]);
    fs::remove_dir_all(temp.path().join("b")).unwrap();
    fs::remove_file(temp.path().join("c")).unwrap();
    fs::remove_file(temp.path().join("d")).unwrap();
    fs::create_dir(temp.path().join("d")).unwrap();
    fs::remove_dir_all(temp.path().join("e")).unwrap();
    symlink("/etc", temp.path().join("e")).unwrap();
    assert_eq!(all(&mut source, 1), []);
    assert_eq!(source.skipped().vanished.names, ["b", "c", "d", "e"]);
    assert_eq!(source.skipped().failures(), 0);
}

#[test]
fn an_unreadable_directory_is_an_entry_and_a_named_failure() {
    if is_root() {
        eprintln!("skipped: everything is readable to root");
        return;
    }
    let temp = tree(&["a", "b/x", "c"]);
    fs::set_permissions(temp.path().join("b"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut source = open(temp.path());
    assert_eq!(names(&all(&mut source, 10)), ["a", "b", "c"]);
    let unreadable = source.skipped().unreadable;
    assert_eq!(unreadable.count, 1);
    assert!(unreadable.names[0].starts_with("b: Permission denied"), "{unreadable:?}");
    fs::set_permissions(temp.path().join("b"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_sparse_file_is_recognised() {
    let temp = tree(&["full"]);
    let file = fs::File::create(temp.path().join("hole")).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", (64 << 20) - 3).unwrap();
    let entries = all(&mut open(temp.path()), 10);
    assert_eq!(entries.iter().map(|entry| entry.sparse).collect::<Vec<_>>(), [false, true]);
    assert_eq!(entries[1].size, 64 << 20);
}

#[test]
fn a_file_is_read_at_any_place_and_a_change_is_noticed() {
    let temp = tree(&["sub/file"]);
    let path = temp.path().join("sub/file");
    let content: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    fs::write(&path, &content).unwrap();
    let mut source = open(temp.path());
    let entries = all(&mut source, 10);
    let reader = source.reader();
    let file = reader.open(&entries[1]).unwrap();
    assert_eq!(file.len(), 1_000_000);
    let mut buf = vec![0; 600_000];
    assert_eq!(file.read_at(300_000, &mut buf).unwrap(), 600_000);
    assert_eq!(buf, content[300_000..900_000]);
    assert_eq!(file.read_at(999_999, &mut buf).unwrap(), 1);
    assert_eq!(file.read_at(1_000_000, &mut buf).unwrap(), 0);
    assert_eq!(file.read_at(u64::MAX, &mut buf).unwrap_or(0), 0);
    assert!(file.verify_unchanged().unwrap());
    fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    assert_eq!(file.read_at(0, &mut buf).unwrap(), 10);
    assert!(!file.verify_unchanged().unwrap());
    let error = reader.open(&entries[1]).err().expect("it has changed");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.message().contains("sub/file"), "{error}");
    fs::remove_file(&path).unwrap();
    assert_eq!(reader.open(&entries[1]).err().expect("it is gone").kind(), ErrorKind::NotFound);
    assert_eq!(reader.open(&entries[0]).err().expect("a directory").kind(), ErrorKind::Invalid);
}

#[test]
fn a_link_or_pipe_in_the_place_of_a_file_is_not_opened() {
    let temp = tree(&["outside/file", "root/a/file", "root/b"]);
    let root = temp.path().join("root");
    let mut source = open(&root);
    let entries = all(&mut source, 10);
    assert_eq!(names(&entries), ["a", "a/file", "b"]);
    #[allow(clippy::disallowed_methods, reason = "what an attacker does")]
    fs::rename(root.join("a"), temp.path().join("moved")).unwrap();
    symlink("../outside", root.join("a")).unwrap();
    assert!(source.reader().open(&entries[1]).is_err());
    fs::remove_file(root.join("b")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("b"), rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(source.reader().open(&entries[2]).err().expect("a pipe").kind(), ErrorKind::Busy);
}

#[test]
fn a_tree_deeper_than_descriptors_are_kept_is_walked_and_left_again() {
    let temp = tempfile::tempdir().unwrap();
    let mut path = temp.path().to_path_buf();
    let mut expected = Vec::new();
    for level in 0..100 {
        path.push("d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("z"), "").unwrap();
        expected.push(format!("{}d", "d/".repeat(level)));
    }
    for level in (1..=100).rev() {
        expected.push(format!("{}z", "d/".repeat(level)));
    }
    for max in [1, 7, 1000] {
        assert_eq!(names(&all(&mut open(temp.path()), max)), expected, "batches of {max}");
    }
}

#[test]
fn a_running_server_is_noticed() {
    let temp = tree(&["mo-data/dn-data/id/TAE.lock", "mo-data/shared/object"]);
    let options = DirectoryOptions { started: Some(Timestamp::from_nanos(0)), ..DirectoryOptions::default() };
    let mut source = DirectorySource::open(temp.path(), &options).unwrap();
    let description = source.describe();
    assert_eq!(description.facts, [("layout".to_owned(), "mo-data".to_owned())]);
    assert_eq!(description.warnings, Vec::<String>::new());
    all(&mut source, 10);
    assert!(source.describe().warnings[0].starts_with("2 files"), "{:?}", source.describe());
    let lock = fs::File::open(temp.path().join("mo-data/dn-data/id/TAE.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    if fs::read_to_string("/proc/locks").is_ok_and(|locks| !locks.is_empty()) {
        let warnings = open(temp.path()).describe().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("TAE.lock"), "{warnings:?}");
    } else {
        eprintln!("skipped: this system shows no locks");
    }
}

#[test]
fn paths_are_shown_on_one_line_and_unmistakably() {
    assert_eq!(display_path("a/b é.txt".as_bytes()), "a/b é.txt");
    assert_eq!(display_path(b"a\xff\xc3b\n\\"), "a\\xff\\xc3b\\x0a\\\\");
    assert_eq!(display_path("\u{1b}[31m\u{202e}".as_bytes()), "\\x1b[31m\\xe2\\x80\\xae");
}

#[test]
fn identities_tell_their_parts_apart() {
    assert_eq!(crate::codec::identity(&[b"ab", b"c"]), crate::codec::identity(&[b"ab", b"c"]));
    assert_ne!(crate::codec::identity(&[b"ab", b"c"]), crate::codec::identity(&[b"a", b"bc"]));
    assert_ne!(crate::codec::identity(&[b"ab"]), crate::codec::identity(&[b"ab", b""]));
}

/// Every path below a directory, by the standard library.
fn reference(root: &Path, at: &Path, found: &mut BTreeMap<Vec<u8>, u64>) {
    for entry in fs::read_dir(at).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mut key = path.strip_prefix(root).unwrap().to_path_buf().into_os_string().into_vec();
        if metadata.is_dir() {
            key.push(b'/');
            reference(root, &path, found);
        }
        found.insert(key, if metadata.is_file() { metadata.len() } else { 0 });
    }
}

#[test]
fn real_trees_are_listed_completely() {
    let Some(root) = crate::testing::data::captures("real_trees_are_listed_completely") else { return };
    let mut expected = BTreeMap::new();
    reference(root, root, &mut expected);
    let entries = all(&mut open(root), 500);
    let found: Vec<(Vec<u8>, u64)> = entries.iter().map(|entry| (sort_key(entry), entry.size)).collect();
    assert!(found.len() > 1000);
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
}

/// Anonymous memory of this process in KiB.
fn anonymous_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A measurement, not a check: `EVERPACK_TEST_MILLION=DIR` names a flat directory of 10^6 files.
#[test]
fn a_million_files_in_one_directory() {
    let Some(root) = std::env::var_os("EVERPACK_TEST_MILLION") else {
        eprintln!("skipped: EVERPACK_TEST_MILLION is not set");
        return;
    };
    let before = anonymous_kib();
    let start = Instant::now();
    let mut source = open(Path::new(&root));
    let listed = start.elapsed();
    let (mut count, mut peak) = (0, 0);
    loop {
        let batch = source.next_batch(4096).unwrap();
        if batch.is_empty() {
            break;
        }
        count += batch.len();
        peak = peak.max(anonymous_kib().saturating_sub(before));
    }
    eprintln!("{count} entries: {listed:?} to list and sort, {:?} in all, {peak} KiB anonymous", start.elapsed());
    assert!(peak < 120 << 10);
}
