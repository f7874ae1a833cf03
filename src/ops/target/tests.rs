//! Targets under attack, out of room, killed and continued.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use tempfile::TempDir;

const PLAIN: Attributes =
    Attributes { mode: 0o640, uid: u32::MAX, gid: u32::MAX, mtime: Timestamp::from_nanos(1_234_567_890_123_456_789) };

struct Place {
    temp: TempDir,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("outside")).unwrap();
        fs::write(temp.path().join("outside/file"), "untouched").unwrap();
        Self { temp }
    }

    fn root(&self) -> PathBuf {
        self.temp.path().join("target")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn open(&self, mode: TargetMode) -> Target {
        Target::create(&self.root(), mode).unwrap()
    }

    fn assert_nothing_outside(&self) {
        let names: Vec<_> =
            fs::read_dir(self.temp.path().join("outside")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read(self.temp.path().join("outside/file")).unwrap(), b"untouched");
    }

    fn parts(&self) -> usize {
        fs::read_dir(self.root())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().as_encoded_bytes().starts_with(b".everpack-"))
            .count()
    }
}

fn write(target: &Target, path: &[u8], bytes: &[u8]) -> Result<()> {
    let file = target.create_file(path, bytes.len() as u64, false)?;
    file.write_at(0, bytes)?;
    file.publish(&PLAIN)
}

fn me() -> Attributes {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Attributes { uid, gid, ..PLAIN }
}

#[test]
fn files_directories_and_links_are_restored_with_their_attributes() {
    let place = Place::new();
    let target = place.open(TargetMode::New);
    let readonly = Attributes { mode: 0o555, ..me() };
    target.make_directory_with(b"a", &readonly).unwrap();
    target.make_directory_with(b"a/b", &readonly).unwrap();
    let file = target.create_file(b"a/b/file", 3_000_000, false).unwrap();
    std::thread::scope(|scope| {
        for part in 0..3u8 {
            let file = &file;
            scope.spawn(move || file.write_at(u64::from(part) * 1_000_000, &vec![part; 1_000_000]).unwrap());
        }
    });
    let mut buf = [9; 4];
    assert_eq!(file.read_at(1_999_998, &mut buf).unwrap(), 4);
    assert_eq!(buf, [1, 1, 2, 2]);
    assert!(!place.at("a/b/file").exists());
    file.publish(&Attributes { mode: 0o4751, ..me() }).unwrap();
    target.make_symlink(b"a/link", b"../../outside", &me()).unwrap();
    write(&target, b"a/empty", b"").unwrap();
    assert!(target.free_bytes().unwrap() > 0);
    assert_eq!(target.finish().unwrap().set_id_dropped, 0);

    let metadata = fs::metadata(place.at("a/b/file")).unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o7777), (3_000_000, 0o4751));
    for path in ["a/b/file", "a/b", "a", "a/link"] {
        let metadata = fs::symlink_metadata(place.at(path)).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_234_567_890, 123_456_789), "{path}");
    }
    assert_eq!(fs::metadata(place.at("a")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::read_link(place.at("a/link")).unwrap(), PathBuf::from("../../outside"));
    assert_eq!(fs::metadata(place.at("a/empty")).unwrap().len(), 0);
    // A later restore writes into the directory that it left read-only.
    let target = place.open(TargetMode::Delta);
    write(&target, b"a/b/file", b"new").unwrap();
    target.finish().unwrap();
    assert_eq!(fs::read(place.at("a/b/file")).unwrap(), b"new");
    place.assert_nothing_outside();
}

#[test]
fn set_id_bits_go_with_the_owner() {
    let place = Place::new();
    let target = place.open(TargetMode::New);
    let file = target.create_file(b"file", 1, false).unwrap();
    file.publish(&Attributes { mode: 0o6755, ..PLAIN }).unwrap();
    let report = target.finish().unwrap();
    assert_eq!((report.owners_not_restored, report.set_id_dropped), (1, 1));
    assert_eq!(fs::metadata(place.at("file")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_batch_is_published_at_once() {
    let place = Place::new();
    let target = place.open(TargetMode::New);
    for count in [3, 200] {
        let sealed: Vec<SealedFile> = (0..count)
            .map(|number| {
                let file = target.create_file(format!("d{count}/{number}").as_bytes(), 1, false).unwrap();
                file.write_at(0, b"x").unwrap();
                file.seal(&PLAIN).unwrap()
            })
            .collect();
        assert!(!place.at(&format!("d{count}/0")).exists());
        assert!(target.publish(sealed).unwrap().is_empty());
        assert_eq!(fs::read_dir(place.at(&format!("d{count}"))).unwrap().count(), count);
    }
    // More directories than are flushed one by one.
    for number in 0..100 {
        target.make_directory_with(format!("many/{number}").as_bytes(), &me()).unwrap();
    }
    target.finish().unwrap();
    assert_eq!(fs::metadata(place.at("many/99")).unwrap().mtime(), 1_234_567_890);
}

#[test]
fn a_new_target_must_be_empty_and_is_ours_alone() {
    let place = Place::new();
    let target = Target::create(&place.at("deep/er"), TargetMode::New).unwrap();
    let busy = Target::create(&place.at("deep/er"), TargetMode::Delta).err().expect("one restore is at it");
    assert_eq!(busy.kind(), ErrorKind::Busy);
    drop(target);
    fs::create_dir(place.at("deep/er/lost+found")).unwrap();
    drop(Target::create(&place.at("deep/er"), TargetMode::New).unwrap());
    fs::write(place.at("deep/er/x"), "").unwrap();
    let error = Target::create(&place.at("deep/er"), TargetMode::New).err().expect("not empty");
    assert!(error.kind() == ErrorKind::Invalid && error.message().contains("holds x"), "{error}");
    drop(Target::create(&place.at("deep/er"), TargetMode::Force).unwrap());
    assert!(Target::create(&place.at("deep/er/x"), TargetMode::Force).is_err());
}

#[test]
fn hostile_paths_are_refused_by_every_call() {
    let place = Place::new();
    let target = place.open(TargetMode::New);
    for path in [&b"../outside/file"[..], b"/etc/x", b"a/../../outside/x", b"", b"a//b", b"."] {
        assert!(target.make_directory(path).is_err());
        assert!(target.make_symlink(path, b"x", &PLAIN).is_err());
        assert!(target.create_file(path, 0, false).is_err());
        assert!(target.existing(path).is_err());
        assert!(target.remove_extra(&ExtraPlan { paths: vec![path.to_vec()] }).is_err());
    }
    for link_target in [&b""[..], b"a\0b"] {
        assert!(target.make_symlink(b"link", link_target, &PLAIN).is_err());
    }
    assert!(target.create_file(b"huge", u64::MAX, false).is_err());
    let file = target.create_file(b"file", 4, false).unwrap();
    assert!(file.write_at(2, b"abc").is_err());
    assert!(file.write_at(u64::MAX, b"a").is_err());
    file.discard().unwrap();
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0);
    place.assert_nothing_outside();
}

#[test]
fn a_link_in_the_manifest_is_never_written_through() {
    for mode in [TargetMode::New, TargetMode::Delta] {
        let place = Place::new();
        let target = place.open(mode);
        target.make_symlink(b"link", b"../outside", &PLAIN).unwrap();
        assert!(write(&target, b"link/file", b"evil").is_err());
        assert!(target.make_directory(b"link").is_err());
        assert!(target.make_directory(b"link/sub").is_err());
        assert!(target.make_symlink(b"link/sub", b"x", &PLAIN).is_err());
        assert!(target.existing(b"link/file").unwrap().is_none());
        assert!(target.remove_extra(&ExtraPlan { paths: vec![b"link/file".to_vec()] }).is_err());
        place.assert_nothing_outside();
    }
}

#[test]
fn links_that_somebody_put_in_the_way_lead_nowhere() {
    for mode in [TargetMode::Delta, TargetMode::Force] {
        let place = Place::new();
        fs::create_dir(place.root()).unwrap();
        symlink("../outside", place.at("dir")).unwrap();
        symlink("../outside/file", place.at("final")).unwrap();
        let part = path::part_name(b"part");
        symlink("../outside/file", place.at(std::str::from_utf8(&part).unwrap())).unwrap();
        let part = path::part_name(b"hard");
        fs::hard_link(place.temp.path().join("outside/file"), place.at(std::str::from_utf8(&part).unwrap())).unwrap();
        let target = place.open(mode);
        // As the name of a file, and as its temporary: replaced.
        for path in [&b"final"[..], b"part", b"hard"] {
            let file = target.create_file(path, 9, false).unwrap();
            assert!(!file.resumed());
            file.write_at(0, b"restored!").unwrap();
            file.publish(&PLAIN).unwrap();
        }
        // As a directory above: refused, unless forced.
        let result = write(&target, b"dir/file", b"restored!");
        if mode == TargetMode::Force {
            result.unwrap();
            assert!(fs::symlink_metadata(place.at("dir")).unwrap().is_dir());
        } else {
            let error = result.unwrap_err();
            assert!(error.message().contains("symbolic link stands in its place"), "{error}");
        }
        target.finish().unwrap();
        for path in ["final", "part", "hard"] {
            assert!(fs::symlink_metadata(place.at(path)).unwrap().is_file());
            assert_eq!(fs::read(place.at(path)).unwrap(), b"restored!");
        }
        place.assert_nothing_outside();
    }
}

#[test]
fn a_link_that_appears_during_the_restore_is_not_followed() {
    let place = Place::new();
    let target = place.open(TargetMode::New);
    target.make_directory(b"a").unwrap();
    // Enough others for the open directory to be forgotten.
    for number in 0..2 * OPEN_DIRECTORIES {
        target.make_directory(format!("z{number}").as_bytes()).unwrap();
    }
    fs::remove_dir(place.at("a")).unwrap();
    symlink("../outside", place.at("a")).unwrap();
    assert!(write(&target, b"a/evil", b"x").is_err());
    symlink("../outside/file", place.at("b")).unwrap();
    assert!(write(&target, b"b", b"x").is_err(), "nothing is replaced in a new target");
    assert_eq!(place.parts(), 0);
    place.assert_nothing_outside();
}

#[test]
fn the_longest_names_fit() {
    let place = Place::new();
    let target = place.open(TargetMode::New);
    let name = [b'n'; 255];
    write(&target, &name, b"x").unwrap();
    let deep = [name.as_slice(); 20].join(&b'/');
    let deep = [b"d/", deep.as_slice()].concat();
    write(&target, &deep, b"deep").unwrap();
    let mut buf = [0; 4];
    target.existing(&deep).unwrap().expect("written just now").read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"deep");
    target.make_symlink(&[b's'; 255], b"x", &PLAIN).unwrap();
    write(&target, b"\xff\n\x01", b"x").unwrap();
    target.finish().unwrap();
}

#[test]
fn a_killed_restore_is_continued_and_its_leftovers_are_swept() {
    let place = Place::new();
    {
        let target = place.open(TargetMode::New);
        for path in [&b"continued"[..], b"other-size", b"abandoned"] {
            let file = target.create_file(path, 100, false).unwrap();
            file.write_at(10, b"kept").unwrap();
        }
        target.make_symlink(b"link", b"x", &PLAIN).unwrap();
    }
    assert_eq!(place.parts(), 3);
    let target = place.open(TargetMode::Delta);
    let file = target.create_file(b"continued", 100, false).unwrap();
    assert!(file.resumed());
    let mut buf = [0; 4];
    file.read_at(10, &mut buf).unwrap();
    assert_eq!(&buf, b"kept");
    file.publish(&PLAIN).unwrap();
    let file = target.create_file(b"other-size", 50, false).unwrap();
    assert!(!file.resumed());
    file.read_at(10, &mut buf).unwrap();
    assert_eq!(buf, [0; 4]);
    file.discard().unwrap();
    // A file of the backup that is called like a temporary is not swept.
    let like = path::part_name(b"something");
    write(&target, &like, b"content").unwrap();
    assert_eq!(target.finish().unwrap().stale_removed, 1);
    assert_eq!(fs::metadata(place.at("continued")).unwrap().len(), 100);
    assert_eq!(fs::read(place.at(std::str::from_utf8(&like).unwrap())).unwrap(), b"content");
    assert_eq!(place.parts(), 1);
}

#[test]
fn an_unfinished_file_keeps_the_target_from_being_done() {
    let place = Place::new();
    let target = place.open(TargetMode::New);
    let file = target.create_file(b"file", 1, false).unwrap();
    assert!(target.finish().is_err());
    drop(file);
}

#[test]
fn existing_files_are_compared_updated_and_replaced() {
    let place = Place::new();
    fs::create_dir_all(place.at("dir/empty")).unwrap();
    fs::create_dir_all(place.at("full/sub")).unwrap();
    fs::write(place.at("dir/file"), "old content").unwrap();
    fs::write(place.at("file-above"), "").unwrap();
    rustix::fs::mkfifoat(CWD, place.at("fifo"), Mode::RWXU).unwrap();
    let target = place.open(TargetMode::Delta);
    for path in [&b"none"[..], b"dir", b"fifo", b"file-above/x", b"none/x"] {
        assert!(target.existing(path).unwrap().is_none(), "{}", path.escape_ascii());
    }
    let existing = target.existing(b"dir/file").unwrap().expect("it is there");
    let mut buf = [0; 20];
    assert_eq!((existing.len(), existing.read_at(4, &mut buf).unwrap()), (11, 7));
    existing.update(&Attributes { mode: 0o600, ..me() }).unwrap();
    assert_eq!(existing.attributes().uid, me().uid);
    let metadata = fs::metadata(place.at("dir/file")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o600, 1_234_567_890));
    write(&target, b"dir/file", b"new").unwrap();
    // The old content stays readable to who has it open.
    assert_eq!(existing.read_at(0, &mut buf).unwrap(), 11);
    drop(existing);
    // A file where a directory belongs, and an empty directory where a file belongs, give way; a full one does not.
    write(&target, b"file-above/x", b"x").unwrap();
    write(&target, b"dir/empty", b"x").unwrap();
    let error = write(&target, b"full", b"x").unwrap_err();
    assert!(error.message().contains("put in place full"), "{error}");
    target.finish().unwrap();
    assert_eq!(fs::read(place.at("dir/file")).unwrap(), b"new");
    assert!(place.at("full/sub").is_dir());
    assert_eq!(place.parts(), 0);
}

#[test]
fn what_the_backup_lacks_is_listed_and_removed_by_plan() {
    let place = Place::new();
    for dir in ["keep", "gone/sub", "implied/deep", "pipes"] {
        fs::create_dir_all(place.at(dir)).unwrap();
    }
    for file in ["keep/a", "keep/b", "gone/sub/x", "gone/y", "implied/deep/z", "implied/w", "a-file"] {
        fs::write(place.at(file), "").unwrap();
    }
    rustix::fs::mkfifoat(CWD, place.at("pipes/fifo"), Mode::RWXU).unwrap();
    symlink("../outside", place.at("link")).unwrap();
    let target = place.open(TargetMode::Delta);
    let expected = ["keep/", "keep/a", "keep/missing", "implied/deep/z"];
    let mut expected: Vec<Vec<u8>> = expected.iter().map(|path| path.as_bytes().to_vec()).collect();
    expected.sort();
    let plan = target.plan_extra(&mut expected.into_iter().map(Ok)).unwrap();
    let extra: Vec<_> = plan.paths.iter().map(|path| std::str::from_utf8(path).unwrap()).collect();
    assert_eq!(
        extra,
        ["a-file", "gone/", "gone/sub/", "gone/sub/x", "gone/y", "implied/w", "keep/b", "link", "pipes/"]
    );
    assert_eq!(target.remove_extra(&plan).unwrap(), [b"pipes/"]);
    target.finish().unwrap();
    let left: Vec<bool> = ["keep/a", "implied/deep/z", "gone", "keep/b", "link", "implied/w", "pipes/fifo"]
        .iter()
        .map(|path| fs::symlink_metadata(place.at(path)).is_ok())
        .collect();
    assert_eq!(left, [true, true, false, false, false, false, true]);
    place.assert_nothing_outside();
}

#[test]
fn a_sparse_file_takes_no_room_and_another_takes_all() {
    let place = Place::new();
    let target = place.open(TargetMode::New);
    for (path, sparse) in [("sparse", true), ("full", false)] {
        target.create_file(path.as_bytes(), 8 << 20, sparse).unwrap().publish(&PLAIN).unwrap();
    }
    target.finish().unwrap();
    let blocks = |path: &str| fs::metadata(place.at(path)).unwrap().blocks();
    assert_eq!(fs::metadata(place.at("sparse")).unwrap().len(), 8 << 20);
    assert!(blocks("sparse") * 512 < 1 << 20);
    assert!(blocks("full") * 512 >= 8 << 20);
}

/// A small file system of its own, gone at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, said visibly, where nothing can be mounted.
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&path).stderr(std::process::Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        eprintln!("skipped: a tmpfs cannot be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_that_looks_complete() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(place.root()) else { return };
    let target = place.open(TargetMode::New);
    let error = target.create_file(b"big", 8 << 20, false).err().expect("no room");
    assert!(error.is_disk_full(), "{error}");
    assert!(error.message().contains("big") && error.message().contains("8.0 MiB"), "{error}");
    assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 0);
    // Not asked for ahead: it shows while writing.
    let file = target.create_file(b"sparse", 8 << 20, true).unwrap();
    let error = (0..8).find_map(|mib| file.write_at(mib << 20, &vec![1; 1 << 20]).err()).expect("no room");
    assert!(error.is_disk_full() && error.message().contains("sparse"), "{error}");
    file.discard().unwrap();
    write(&target, b"small", b"fits again").unwrap();
    target.finish().unwrap();
    let names: Vec<_> = fs::read_dir(&disk.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["small"]);
}

#[test]
fn files_on_another_file_system_below_the_target_are_flushed_too() {
    let place = Place::new();
    let Some(_disk) = SmallDisk::mount(place.at("mounted")) else { return };
    let target = place.open(TargetMode::Delta);
    let file = target.create_file(b"mounted/file", 1, false).unwrap();
    assert!(target.publish(vec![file.seal(&PLAIN).unwrap()]).unwrap().is_empty());
    {
        let touched = lock(&target.shared.touched);
        assert_eq!(touched.foreign.iter().collect::<Vec<_>>(), [b"mounted"]);
        assert!(touched.directories.is_empty());
    }
    // What is mounted below is nobody's extra.
    let plan = target.plan_extra(&mut [Ok(b"mounted/".to_vec())].into_iter()).unwrap();
    assert_eq!(plan, ExtraPlan::default());
    target.finish().unwrap();
    assert!(place.at("mounted/file").exists());
}

#[test]
fn an_unwritable_target_is_an_error() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: everything is writable to root");
        return;
    }
    let place = Place::new();
    fs::create_dir(place.root()).unwrap();
    fs::set_permissions(place.root(), fs::Permissions::from_mode(0o500)).unwrap();
    let target = place.open(TargetMode::New);
    let error = write(&target, b"file", b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn kernels_that_report_failed_flushes_are_known() {
    for (release, reports) in
        [("5.8.0", true), ("6.1.0-18-amd64", true), ("5.7.19", false), ("4.18.0-553.el8", false), ("", false)]
    {
        assert_eq!(flush_reports_errors(release), reports, "{release}");
    }
}
