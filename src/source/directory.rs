//! A directory tree, or a single file, as a source.
//!
//! Files are read by positional reads, never mapped: a file that is cut off while it is mapped kills the process. Nothing
//! is followed but the root itself, which a user may name through a link.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, CWD, Mode, OFlags};

use super::beneath::open_beneath;
use super::exclude::Excludes;
use super::listing::Listing;
use super::stat::{NodeKind, Stat};
use super::walk::{Node, WalkOptions, Walker};
use super::{
    EntryKind, OpenFile, Skipped, Source, SourceDescription, SourceEntry, SourceFile, display_path, host_name, live,
};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// Files below this are read in one go; advice about them is not worth a call.
const ADVISE_MIN: u64 = 256 << 10;

/// How to list a directory.
#[derive(Clone, Debug, Default)]
pub struct DirectoryOptions {
    /// Glob patterns of names to leave out: at any depth, or from the root if they begin with `/`.
    pub exclude: Vec<String>,
    /// Do not enter directories on which another file system is mounted.
    pub one_file_system: bool,
    /// Leave out MatrixOne's temporary files (`.tmp.*`, `*.mofstemp`).
    pub skip_temporary: bool,
    /// A directory to leave out with all that it holds: the repository that is written to.
    pub repository: Option<PathBuf>,
    /// When the run began: younger files in a server's data directory are a sign that it runs.
    pub started: Option<Timestamp>,
}

/// Everything below a directory, or one file.
pub struct DirectorySource {
    description: SourceDescription,
    is_server_data: bool,
    started: Option<Timestamp>,
    young: u64,
    walker: Walker,
    reader: Arc<DirectoryReader>,
}

impl DirectorySource {
    /// Opens a directory or a single file; `path` itself may be a symbolic link.
    ///
    /// A single file is one entry with its name. Fails if the path cannot be read, or is neither.
    pub fn open(path: &Path, options: &DirectoryOptions) -> Result<Self> {
        let name = || format!("open source {}", display_path(path.as_os_str().as_bytes()));
        let canonical = std::fs::canonicalize(path).map_err(|error| Error::io(name(), error))?;
        let metadata = std::fs::symlink_metadata(&canonical).map_err(|error| Error::io(name(), error))?;
        let walk_options = WalkOptions {
            exclude: Excludes::new(&options.exclude)?,
            one_file_system: options.one_file_system,
            skip_temporary: options.skip_temporary,
            leave_out: options.repository.iter().filter_map(|path| node_of(path)).collect(),
        };
        if node_of(&canonical).is_some_and(|node| walk_options.leave_out.contains(&node)) {
            return Err(Error::invalid(format!("{}: it is the repository itself", name())));
        }
        let open = || -> io::Result<Option<(Arc<OwnedFd>, Walker)>> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = |path: &Path| rustix::fs::openat(CWD, path, flags, Mode::empty()).map(Arc::new);
            if metadata.is_dir() {
                let root = directory(&canonical)?;
                return Ok(Some((Arc::clone(&root), Walker::new(root, walk_options)?)));
            }
            let (true, Some(parent), Some(name)) = (metadata.is_file(), canonical.parent(), canonical.file_name())
            else {
                return Ok(None);
            };
            let root = directory(parent)?;
            let listing = Listing::single(name.as_bytes(), NodeKind::File)?;
            // What the user names is wanted, whatever it is called.
            let walker = Walker::with_listing(Arc::clone(&root), listing, WalkOptions::default())?;
            Ok(Some((root, walker)))
        };
        let Some((root, walker)) = open().map_err(|error| Error::io(name(), error))? else {
            return Err(Error::invalid(format!("{}: it is neither a directory nor a regular file", name())));
        };
        let (description, is_server_data) = describe(&canonical, metadata.is_dir());
        let location = if metadata.is_dir() { canonical.as_path() } else { canonical.parent().unwrap_or(&canonical) };
        let location = display_path(location.as_os_str().as_bytes());
        let reader = Arc::new(DirectoryReader { root, location, noatime_refused: AtomicBool::new(false) });
        Ok(Self { description, is_server_data, started: options.started, young: 0, walker, reader })
    }
}

/// Device and inode of a directory; `None` if there is none.
fn node_of(path: &Path) -> Option<Node> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
    let stat = Stat::of(fd.as_fd()).ok()?;
    Some((stat.device, stat.inode))
}

fn describe(canonical: &Path, is_directory: bool) -> (SourceDescription, bool) {
    let liveness = if is_directory { live::inspect(canonical) } else { live::Liveness::default() };
    let mut facts = Vec::new();
    let mut warnings = Vec::new();
    if liveness.is_server_data {
        facts.push(("layout".to_owned(), "mo-data".to_owned()));
    }
    if let Some(locked) = liveness.locked {
        warnings.push(format!(
            "a MatrixOne server is running on this directory (it holds {}): a plain copy of it is not known to start; \
             back up through the server, or stop it first",
            display_path(locked.as_os_str().as_bytes())
        ));
    }
    let location = display_path(canonical.as_os_str().as_bytes());
    let description = SourceDescription { kind: "directory", location, host: host_name(), facts, warnings };
    (description, liveness.is_server_data)
}

impl Source for DirectorySource {
    fn describe(&self) -> SourceDescription {
        let mut description = self.description.clone();
        if self.young > 0 {
            description.warnings.push(format!(
                "{} files of this MatrixOne data directory changed after the backup began: a server seems to be running \
                 on it, and a plain copy is not known to start",
                self.young
            ));
        }
        description
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        let entries = self.walker.next_batch(max)?;
        if let Some(started) = self.started.filter(|_| self.is_server_data) {
            let young = entries.iter().filter(|entry| entry.kind == EntryKind::File && entry.changed >= started);
            self.young += young.count() as u64;
        }
        Ok(entries)
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        Arc::clone(&self.reader) as Arc<dyn OpenFile>
    }

    fn skipped(&self) -> Skipped {
        self.walker.skipped().clone()
    }
}

struct DirectoryReader {
    root: Arc<OwnedFd>,
    /// Path of `root`, for messages.
    location: String,
    /// Only the owner of a file may ask for this; asked once too often costs three calls a file.
    noatime_refused: AtomicBool,
}

impl DirectoryReader {
    fn open_file(&self, path: &[u8]) -> io::Result<OwnedFd> {
        // A pipe that took the file's place must not block us.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        if !self.noatime_refused.load(Ordering::Relaxed) {
            match open_beneath(self.root.as_fd(), path, flags | OFlags::NOATIME, Mode::empty()) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                done => return done,
            }
            let fd = open_beneath(self.root.as_fd(), path, flags, Mode::empty())?;
            self.noatime_refused.store(true, Ordering::Relaxed);
            return Ok(fd);
        }
        open_beneath(self.root.as_fd(), path, flags, Mode::empty())
    }
}

impl OpenFile for DirectoryReader {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        let name = format!("{}/{}", self.location, display_path(&entry.path));
        if entry.kind != EntryKind::File {
            return Err(Error::invalid(format!("open {name}: it is not a file")));
        }
        let open = || -> io::Result<(OwnedFd, Stat)> {
            let fd = self.open_file(&entry.path)?;
            let stat = Stat::of(fd.as_fd())?;
            Ok((fd, stat))
        };
        let (fd, stat) = open().map_err(|error| Error::io(format!("open {name}"), error))?;
        if stat.kind != Some(NodeKind::File) || stat.identity() != entry.identity {
            return Err(Error::new(ErrorKind::Busy, format!("open {name}: it has changed since it was listed")));
        }
        if stat.size >= ADVISE_MIN {
            // Advice: without it the file is only read more slowly.
            let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Sequential);
        }
        Ok(Box::new(DirectoryFile { fd, stat, name }))
    }

    fn look(&self, entry: &SourceEntry) -> Result<SourceEntry> {
        let name = format!("{}/{}", self.location, display_path(&entry.path));
        let stat = self.open_file(&entry.path).and_then(|fd| Stat::of(fd.as_fd()));
        let stat = stat.map_err(|error| Error::io(format!("look at {name} again"), error))?;
        if stat.kind != Some(NodeKind::File) {
            return Err(Error::new(ErrorKind::Busy, format!("look at {name} again: it is no file any more")));
        }
        Ok(stat.into_entry(entry.path.clone(), EntryKind::File, Vec::new()))
    }
}

struct DirectoryFile {
    fd: OwnedFd,
    stat: Stat,
    name: String,
}

impl SourceFile for DirectoryFile {
    fn len(&self) -> u64 {
        self.stat.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        read_full_at(&self.fd, offset, buf).map_err(|error| Error::io(format!("read {} at {offset}", self.name), error))
    }

    fn verify_unchanged(&self) -> Result<bool> {
        let now =
            Stat::of(self.fd.as_fd()).map_err(|error| Error::io(format!("look at {} again", self.name), error))?;
        Ok(now.identity() == self.stat.identity())
    }
}

/// Fills `buf` from `offset`; short only at the end of the file.
pub(crate) fn read_full_at(fd: &OwnedFd, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        let Some(at) = offset.checked_add(filled as u64) else { break };
        match rustix::io::pread(fd, &mut buf[filled..], at) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}
