//! Opening a path below a directory without ever leaving it.
//!
//! No component may be a symbolic link or `..`: neither a hostile manifest nor a link that somebody puts in the way
//! leads outside. `openat2` does that in one call; where it is missing (Linux before 5.6, some sandboxes) or the path is
//! too long for one call, the path is opened component by component.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// The kernel takes paths of up to 4095 bytes.
const ONE_CALL_MAX: usize = 4095;

/// How often to try again when a rename elsewhere disturbs the resolution.
const TRIES: usize = 16;

static OPENAT2_IS_MISSING: AtomicBool = AtomicBool::new(false);

/// Opens `path` below `root`; the empty path is `root` itself. The last component is not followed either.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let path = if path.is_empty() { b".".as_slice() } else { path };
    if path.len() <= ONE_CALL_MAX && !OPENAT2_IS_MISSING.load(Ordering::Relaxed) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        for _ in 0..TRIES {
            match openat2(root, path, flags, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS) => {
                    OPENAT2_IS_MISSING.store(true, Ordering::Relaxed);
                    break;
                }
                // A sandbox may refuse the call as such: the slow way knows whether the file is meant.
                Err(Errno::PERM) => break,
                done => return Ok(done?),
            }
        }
    }
    open_by_component(root, path, flags, mode)
}

fn open_by_component(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let (parents, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: Option<OwnedFd> = None;
    for component in parents.split(|byte| *byte == b'/').filter(|_| !parents.is_empty()) {
        let parent = at.as_ref().map_or(root, |fd| fd.as_fd());
        at = Some(openat(parent, inside(component)?, step, Mode::empty())?);
    }
    let parent = at.as_ref().map_or(root, |fd| fd.as_fd());
    let name = if path == b"." { path } else { inside(name)? };
    loop {
        match openat(parent, name, flags, mode) {
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// A component that stays where it is.
fn inside(component: &[u8]) -> io::Result<&[u8]> {
    match component {
        b"" | b"." | b".." => Err(Errno::XDEV.into()),
        component => Ok(component),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn both(root: &OwnedFd, path: &[u8]) -> [bool; 2] {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        [
            open_beneath(root.as_fd(), path, OFlags::RDONLY, Mode::empty()).is_ok(),
            open_by_component(root.as_fd(), path, flags, Mode::empty()).is_ok(),
        ]
    }

    #[test]
    fn neither_way_leaves_the_directory_or_follows_a_link() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), "x").unwrap();
        std::fs::write(temp.path().join("outside"), "x").unwrap();
        symlink("b", root.join("a/link")).unwrap();
        symlink("b/file", root.join("a/file-link")).unwrap();
        let fd = openat(rustix::fs::CWD, &root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert_eq!(both(&fd, b"a/b/file"), [true; 2]);
        assert_eq!(both(&fd, b"a"), [true; 2]);
        for path in
            [&b"../outside"[..], b"a/../../outside", b"a/link/file", b"a/file-link", b"/etc/passwd", b"a/b/none"]
        {
            assert_eq!(both(&fd, path), [false; 2], "{}", path.escape_ascii());
        }
        assert!(open_beneath(fd.as_fd(), b"", OFlags::RDONLY, Mode::empty()).is_ok());
    }

    #[test]
    fn a_path_longer_than_one_call_takes_is_opened() {
        let temp = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let root = openat(rustix::fs::CWD, temp.path(), flags, Mode::empty()).unwrap();
        let name = [b'n'; 200];
        let mut path = Vec::new();
        let mut at = root.try_clone().unwrap();
        for _ in 0..30 {
            rustix::fs::mkdirat(&at, &name[..], Mode::RWXU).unwrap();
            at = openat(&at, &name[..], flags, Mode::empty()).unwrap();
            path.extend_from_slice(&name);
            path.push(b'/');
        }
        path.pop();
        assert!(path.len() > ONE_CALL_MAX);
        assert!(open_beneath(root.as_fd(), &path, flags, Mode::empty()).is_ok());
    }
}
