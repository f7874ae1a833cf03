//! Where a restore writes: a directory that it never leaves.
//!
//! Every path is checked, and every step is taken relative to the open target without following a link, so neither a
//! hostile manifest nor a link in the way leads outside. A file is written under a temporary name beside its own
//! ([`TargetFile`]), sealed with its attributes ([`SealedFile`]) and, once its bytes are durable, renamed; directories are
//! flushed and given their attributes at the end ([`Target::finish`]).
//!
//! If we crash anywhere: no file has its final name before its content is durable; what is left under temporary names is
//! continued or replaced by the next restore with `--delta` or `--force`, and swept at its end.
//! Safe to run concurrently with: readers of the target. A second restore into the same target is refused.

mod apart;
mod extra;
mod file;
mod finish;
mod path;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::source::beneath::open_beneath;
use crate::source::display_path;
use crate::source::stat::{NodeKind, Stat};

pub(crate) use apart::keep_apart;
#[cfg(test)]
pub(crate) use extra::ExtraPlan;
pub(crate) use file::{ExistingFile, SealedFile, TargetFile};
pub(crate) use path::check_path;

/// Directories kept open: a manifest comes in path order, so a few are enough.
const OPEN_DIRECTORIES: usize = 16;

/// What may be in the target before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetMode {
    /// Nothing: it is new or empty.
    New,
    /// An earlier state, of which files are replaced. A link in the place of a directory is refused: it may be wanted.
    Delta,
    /// Anything. A link in the place of a directory is replaced by the directory.
    Force,
}

/// What a restored file or directory gets beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits (07777).
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
}

/// A directory to restore into.
pub(crate) struct Target {
    shared: Arc<Shared>,
}

/// What a target and its files share.
struct Shared {
    root: Arc<OwnedFd>,
    /// For messages.
    location: String,
    mode: TargetMode,
    device: (u32, u32),
    /// Since Linux 5.8 a flush of the file system reports failed writes; before, every file is flushed by itself.
    flush_reports: bool,
    /// Serialises flushes of the file system: an error is reported to one of them only. True once one has failed.
    flush_failed: Mutex<bool>,
    open: Mutex<VecDeque<Arc<Directory>>>,
    touched: Mutex<Touched>,
    directory_attributes: Mutex<Vec<(Vec<u8>, Attributes)>>,
    /// Restored files whose names look like our temporaries.
    like_parts: Mutex<BTreeSet<Vec<u8>>>,
    sealed_open: AtomicUsize,
    owners_not_restored: AtomicU64,
    set_id_dropped: AtomicU64,
}

/// An open directory of the target.
struct Directory {
    path: Vec<u8>,
    fd: OwnedFd,
    /// On another file system than the target's root.
    foreign: bool,
}

/// What must be flushed at the end.
#[derive(Default)]
struct Touched {
    /// Directories, unless they are many.
    directories: BTreeSet<Vec<u8>>,
    /// Those on other file systems, which a flush of the target's does not reach.
    foreign: BTreeSet<Vec<u8>>,
    /// Too many for one by one: the whole file system.
    everything: bool,
}

impl Touched {
    /// Beyond so many directories one flush of the file system is cheaper.
    const DIRECTORIES_MAX: usize = 64;

    /// A directory that is no longer there.
    fn forget(&mut self, path: &[u8]) {
        self.directories.remove(path);
        self.foreign.remove(path);
    }

    fn add(&mut self, directory: &Directory) {
        let set = if directory.foreign { &mut self.foreign } else { &mut self.directories };
        if !set.contains(&directory.path) {
            set.insert(directory.path.clone());
        }
        if self.directories.len() > Self::DIRECTORIES_MAX {
            self.everything = true;
            self.directories.clear();
        }
    }
}

/// Data behind these locks is valid at every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    /// Opens or creates the directory and keeps other restores out of it.
    ///
    /// `Invalid` if it must be empty and is not, `Busy` if another restore writes there. `dir` itself may be reached
    /// through links.
    pub(crate) fn create(dir: &Path, mode: TargetMode) -> Result<Self> {
        let location = display_path(dir.as_os_str().as_bytes());
        let name = || format!("restore into {location}");
        create_durably(dir).map_err(|error| Error::io(name(), error))?;
        let open = || -> io::Result<(OwnedFd, Stat)> {
            let fd = rustix::fs::openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let stat = Stat::of(fd.as_fd())?;
            Ok((fd, stat))
        };
        let (root, stat) = open().map_err(|error| Error::io(name(), error))?;
        // Where the file system knows no locks, two restores at once are the user's care.
        if matches!(rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK)) {
            return Err(Error::new(ErrorKind::Busy, format!("{}: another restore is writing there", name())));
        }
        if mode == TargetMode::New
            && let Some(found) = first_name(&root).map_err(|error| Error::io(name(), error))?
        {
            let found = display_path(&found);
            return Err(Error::invalid(format!(
                "{}: the directory is not empty (it holds {found}); name a new one, or continue with --delta, or \
                 replace with --force",
                name()
            )));
        }
        let shared = Shared {
            root: Arc::new(root),
            location,
            mode,
            device: stat.device,
            flush_reports: flush_reports_errors(&rustix::system::uname().release().to_string_lossy()),
            flush_failed: Mutex::default(),
            open: Mutex::default(),
            touched: Mutex::default(),
            directory_attributes: Mutex::default(),
            like_parts: Mutex::default(),
            sealed_open: AtomicUsize::new(0),
            owners_not_restored: AtomicU64::new(0),
            set_id_dropped: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Bytes that can still be written, as far as the file system knows.
    pub(crate) fn free_bytes(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.shared.root)
            .map_err(|error| Error::io(format!("ask for the free space of {}", self.shared.location), error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Makes a directory, and those above it. It is ours alone until [`Target::finish`] gives it its attributes.
    pub(crate) fn make_directory(&self, path: &[u8]) -> Result<()> {
        check_path(path)?;
        self.shared.directory(path).map(drop)
    }

    /// Makes a directory whose attributes are set at the end, when nothing changes them any more.
    ///
    /// Costs about 100 bytes of memory a directory until then.
    pub(crate) fn make_directory_with(&self, path: &[u8], attributes: &Attributes) -> Result<()> {
        self.make_directory(path)?;
        lock(&self.shared.directory_attributes).push((path.to_vec(), *attributes));
        Ok(())
    }

    /// Makes a symbolic link; what it points to is never looked at.
    pub(crate) fn make_symlink(&self, path: &[u8], link_target: &[u8], attributes: &Attributes) -> Result<()> {
        check_path(path)?;
        let shared = &self.shared;
        if link_target.is_empty() || link_target.contains(&0) {
            return Err(Error::corrupt(format!("restore {}: the link points to no valid path", display_path(path))));
        }
        let (directory, name) = shared.parent(path)?;
        let part = path::part_name(name);
        let make = || -> io::Result<()> {
            match rustix::fs::symlinkat(link_target, &directory.fd, part.as_slice()) {
                Err(Errno::EXIST) => {
                    rustix::fs::unlinkat(&directory.fd, part.as_slice(), AtFlags::empty())?;
                    rustix::fs::symlinkat(link_target, &directory.fd, part.as_slice())?;
                }
                done => done?,
            }
            shared.set_link_attributes(&directory, &part, attributes)?;
            shared.rename(&directory, &part, name)
        };
        make().map_err(|error| {
            drop(rustix::fs::unlinkat(&directory.fd, part.as_slice(), AtFlags::empty()).map_err(io::Error::from));
            shared.error("link", path, error)
        })?;
        lock(&shared.touched).add(&directory);
        Ok(())
    }
}

impl Shared {
    fn error(&self, act: &str, path: &[u8], error: impl Into<io::Error>) -> Error {
        Error::io(format!("{act} {} in {}", display_path(path), self.location), error.into())
    }

    /// The open directory of a checked path, and its name there. Directories that are missing are made.
    fn parent<'a>(&self, path: &'a [u8]) -> Result<(Arc<Directory>, &'a [u8])> {
        let (parent, name) = path::split(path);
        Ok((self.directory(parent)?, name))
    }

    /// An open directory; made if it is missing, with those above it.
    fn directory(&self, path: &[u8]) -> Result<Arc<Directory>> {
        if let Some(directory) = self.cached(path) {
            return Ok(directory);
        }
        match self.open_directory(path) {
            Ok(directory) => return Ok(self.keep(directory)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.is_empty() => {}
                _ => return Err(self.error("open directory", path, error)),
            },
        }
        let mut above = self.open_directory(b"").map_err(|error| self.error("open directory", b"", error))?;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        for end in ends.chain([path.len()]) {
            above = self.make_one(&above, &path[..end])?;
        }
        Ok(self.keep(above))
    }

    /// The open directory of a checked path if it is there.
    fn existing_parent<'a>(&self, path: &'a [u8]) -> Result<Option<(Arc<Directory>, &'a [u8])>> {
        let (parent, name) = path::split(path);
        if let Some(directory) = self.cached(parent) {
            return Ok(Some((directory, name)));
        }
        match self.open_directory(parent) {
            Ok(directory) => Ok(Some((self.keep(directory), name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("open directory", parent, error)),
        }
    }

    fn cached(&self, path: &[u8]) -> Option<Arc<Directory>> {
        lock(&self.open).iter().find(|directory| directory.path == path).cloned()
    }

    fn keep(&self, directory: Directory) -> Arc<Directory> {
        let directory = Arc::new(directory);
        let mut open = lock(&self.open);
        if open.len() == OPEN_DIRECTORIES {
            open.pop_back();
        }
        open.push_front(Arc::clone(&directory));
        directory
    }

    fn open_directory(&self, path: &[u8]) -> io::Result<Directory> {
        let fd = open_beneath(self.root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        self.directory_of(path, fd)
    }

    fn directory_of(&self, path: &[u8], fd: OwnedFd) -> io::Result<Directory> {
        let stat = Stat::of(fd.as_fd())?;
        if stat.mode & 0o300 != 0o300 && !path.is_empty() {
            // Left by an earlier restore with the mode of the backup. If it is not ours to change, writing will say so.
            let _ = rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.mode | 0o700));
        }
        Ok(Directory { path: path.to_vec(), fd, foreign: stat.device != self.device })
    }

    /// Makes, or opens, one directory below an open one.
    fn make_one(&self, above: &Directory, path: &[u8]) -> Result<Directory> {
        let name = path::split(path).1;
        let make = || match rustix::fs::mkdirat(&above.fd, name, Mode::RWXU) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(io::Error::from(error)),
        };
        let open = || open_beneath(above.fd.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let fail = |error: io::Error| self.error("make directory", path, error);
        let mut made = make().map_err(fail)?;
        if !made && matches!(Stat::at(above.fd.as_fd(), name), Ok(stat) if stat.kind != Some(NodeKind::Directory)) {
            self.clear_the_way(above, name, path)?;
            made = make().map_err(fail)?;
        }
        if made {
            lock(&self.touched).add(above);
        }
        open().and_then(|fd| self.directory_of(path, fd)).map_err(fail)
    }

    /// Removes what stands where a directory belongs, if the mode allows that.
    fn clear_the_way(&self, above: &Directory, name: &[u8], path: &[u8]) -> Result<()> {
        let stat = Stat::at(above.fd.as_fd(), name).map_err(|error| self.error("make directory", path, error))?;
        let is_link = stat.kind == Some(NodeKind::Symlink);
        let allowed = match self.mode {
            TargetMode::New => false,
            TargetMode::Delta => !is_link,
            TargetMode::Force => true,
        };
        if !allowed {
            let what = if is_link { "symbolic link" } else { "file" };
            return Err(Error::invalid(format!(
                "make directory {} in {}: a {what} stands in its place; remove it first, or restore with --force",
                display_path(path),
                self.location
            )));
        }
        rustix::fs::unlinkat(&above.fd, name, AtFlags::empty())
            .map_err(|error| self.error("make directory", path, error))
    }
}

/// Makes a directory and those above it, each durable before the next.
fn create_durably(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.into_iter().rev() {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => done?,
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// A name in a directory, if it has one that counts.
fn first_name(root: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let fd = open_beneath(root.as_fd(), b"", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    for entry in rustix::fs::Dir::new(fd)? {
        let entry = entry?;
        // Every fresh ext4 has a `lost+found`.
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b".." | b"lost+found") {
            return Ok(Some(name.to_vec()));
        }
    }
    Ok(None)
}

/// `5.8` and later, as in `6.1.0-18-amd64`.
fn flush_reports_errors(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 8)
}
