//! Is this the data directory of a MatrixOne server that runs right now?
//!
//! A plain copy of such a directory is not known to start (design §12). A server holds locks on files in `dn-data` and
//! `logservice-data`; they are asked for without taking any, so that nothing gets in the way of a server that starts.
//! Advice only: a server on another host, or in a container that shares no locks, is not seen.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::stat::{NodeKind, Stat};

/// Directories that only a server's own data directory has.
const SERVER_DIRECTORIES: [&str; 2] = ["dn-data", "logservice-data"];

/// Names looked at in search of locks.
const LOOK_MAX: usize = 20_000;

/// What the directory looks like.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Liveness {
    /// It is, holds, or lies in the data directory of a server, running or not.
    pub(crate) is_server_data: bool,
    /// A file that a running process holds locked.
    pub(crate) locked: Option<PathBuf>,
}

/// Looks at a directory, a `mo-data` in it and the directory above.
pub(crate) fn inspect(root: &Path) -> Liveness {
    let mut liveness = Liveness::default();
    let locks = kernel_locks();
    let above = root.parent().map(Path::to_path_buf);
    for base in [Some(root.to_path_buf()), Some(root.join("mo-data")), above].into_iter().flatten() {
        for name in SERVER_DIRECTORIES {
            let directory = base.join(name);
            if std::fs::symlink_metadata(&directory).is_ok_and(|metadata| metadata.is_dir()) {
                liveness.is_server_data = true;
                liveness.locked = liveness.locked.or_else(|| find_lock(directory, &locks));
            }
        }
    }
    liveness
}

/// A file by which a running server keeps others out of its data directory.
pub(crate) fn locked_file(data_dir: &Path) -> Option<PathBuf> {
    inspect(data_dir).locked
}

/// The first locked file below a directory whose name says that it is a lock.
fn find_lock(directory: PathBuf, locks: &HashSet<Lock>) -> Option<PathBuf> {
    let mut directories = vec![directory];
    let mut left = LOOK_MAX;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            left = left.checked_sub(1)?;
            let Ok(file_type) = entry.file_type() else { continue };
            let is_lock = entry.file_name().to_string_lossy().to_ascii_lowercase().contains("lock");
            if file_type.is_dir() {
                directories.push(entry.path());
            } else if file_type.is_file() && is_lock && is_locked(&entry.path(), locks) {
                return Some(entry.path());
            }
        }
    }
    None
}

/// Device (major, minor) and inode of a locked file.
type Lock = ((u32, u32), u64);

fn is_locked(path: &Path, locks: &HashSet<Lock>) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else { return false };
    let Ok(stat) = Stat::of(fd.as_fd()) else { return false };
    if stat.kind != Some(NodeKind::File) {
        return false;
    }
    locks.contains(&(stat.device, stat.inode))
        || matches!(fcntl_getlk(&fd, &Flock::from(FlockType::WriteLock)), Ok(Some(lock)) if lock.typ != FlockType::Unlocked)
}

/// The locks that the kernel shows us, of every kind.
fn kernel_locks() -> HashSet<Lock> {
    use std::io::{BufRead, BufReader};
    let Ok(file) = File::open("/proc/locks") else { return HashSet::new() };
    BufReader::new(file).lines().map_while(Result::ok).filter_map(|line| parse_lock(&line)).collect()
}

/// `1: FLOCK  ADVISORY  WRITE 708 00:2d:1234 0 EOF`; device numbers in hexadecimal digits.
fn parse_lock(line: &str) -> Option<Lock> {
    // A waiting lock is not held: it has an arrow in the second field.
    let field = line.split_whitespace().skip(1).take_while(|field| *field != "->").nth(4)?;
    let mut parts = field.split(':');
    let major = u32::from_str_radix(parts.next()?, 16).ok()?;
    let minor = u32::from_str_radix(parts.next()?, 16).ok()?;
    Some(((major, minor), parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        assert_eq!(parse_lock("1: FLOCK  ADVISORY  WRITE 708 00:2d:1234 0 EOF"), Some(((0, 0x2d), 1234)));
        assert_eq!(parse_lock("2: POSIX  ADVISORY  READ  5433 fe:10:99 128 128"), Some(((0xfe, 0x10), 99)));
        assert_eq!(parse_lock("2: -> POSIX  ADVISORY  READ  5433 fe:10:99 128 128"), None);
        assert_eq!(parse_lock("nonsense"), None);
    }

    #[test]
    fn a_server_directory_without_locks_is_not_live() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(inspect(temp.path()), Liveness::default());
        std::fs::create_dir_all(temp.path().join("mo-data/dn-data/id/tae")).unwrap();
        std::fs::write(temp.path().join("mo-data/dn-data/id/tae/TAE.lock"), "").unwrap();
        assert_eq!(inspect(temp.path()), Liveness { is_server_data: true, locked: None });
    }

    #[test]
    fn a_held_lock_is_seen_from_the_tree_and_from_a_part_of_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("mo-data/dn-data/id/TAE.lock");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::create_dir(temp.path().join("mo-data/shared")).unwrap();
        let file = File::create(&path).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        if kernel_locks().is_empty() {
            eprintln!("skipped: this system shows no locks");
            return;
        }
        for root in ["", "mo-data", "mo-data/shared"] {
            assert_eq!(inspect(&temp.path().join(root)).locked.as_ref(), Some(&path), "{root}");
        }
        drop(file);
        assert_eq!(inspect(temp.path()).locked, None);
    }
}
