//! Where an index keeps its files: in its directory, locked, or nowhere that has a name.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, ErrorKind, Result};

const LOCK: &str = "lock";
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The place of one index's files. Files in a private one are gone when they are closed.
#[derive(Debug)]
pub(super) enum Home {
    /// A directory that is ours until the lock is dropped.
    Kept { directory: PathBuf, _lock: File },
    /// Files without names, in the first of these places that can have them, or in memory.
    Private { places: Vec<PathBuf> },
}

impl Home {
    /// `None` if another process has the directory, or it cannot be written.
    pub(super) fn keep(directory: &Path) -> Option<Self> {
        std::fs::create_dir_all(directory).ok()?;
        let path = directory.join(LOCK);
        let lock = File::options().write(true).create(true).truncate(false).open(path).ok()?;
        for attempt in 1.. {
            match lock.try_lock() {
                Ok(()) => break,
                // A lock just given up lives on in a child that another thread forked, until the child executes its program.
                Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
            }
        }
        Some(Self::Kept { directory: directory.to_path_buf(), _lock: lock })
    }

    pub(super) fn private(directory: Option<&Path>) -> Self {
        let places = [directory.map(Path::to_path_buf), Some(std::env::temp_dir()), Some(PathBuf::from("/var/tmp"))];
        Self::Private { places: places.into_iter().flatten().collect() }
    }

    /// Files without names, in memory.
    pub(super) fn memory() -> Self {
        Self::Private { places: Vec::new() }
    }

    /// ` in DIRECTORY`, for people.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Kept { directory, .. } => format!(" in {}", directory.display()),
            Self::Private { .. } => String::new(),
        }
    }

    pub(super) fn is_private(&self) -> bool {
        matches!(self, Self::Private { .. })
    }

    /// The path of a file; `None` in a private place.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Kept { directory, .. } => Some(directory.join(name)),
            Self::Private { .. } => None,
        }
    }

    /// An empty file to write and read.
    pub(super) fn create_file(&self, name: &str) -> Result<File> {
        let failed = |error: std::io::Error| {
            Error::with_source(ErrorKind::Unavailable, format!("create {name} of the local index: {error}"), error)
        };
        match self {
            Self::Kept { directory, .. } => {
                let mut options = File::options();
                options.read(true).write(true).create(true).truncate(true);
                let path = directory.join(name);
                let made = options.open(&path).or_else(|error| match error.kind() {
                    // Somebody removed the cache under us, which anybody may: what is open goes on, and the next run builds anew.
                    std::io::ErrorKind::NotFound => {
                        std::fs::create_dir_all(directory)?;
                        options.open(&path)
                    }
                    _ => Err(error),
                });
                made.map_err(failed)
            }
            Self::Private { places } => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                for place in places {
                    if let Ok(fd) = rustix::fs::open(place, flags, Mode::RUSR | Mode::WUSR) {
                        return Ok(File::from(fd));
                    }
                }
                let fd = rustix::fs::memfd_create("everpack-index", rustix::fs::MemfdFlags::CLOEXEC);
                fd.map(File::from).map_err(|error| failed(error.into()))
            }
        }
    }

    /// Opens a file of a kept place.
    pub(super) fn open_file(&self, name: &str) -> Result<File> {
        let path =
            self.path(name).ok_or_else(|| Error::corrupt(format!("{name}: a private index has no files yet")))?;
        File::open(path).map_err(|error| Error::with_source(ErrorKind::Corrupt, format!("open {name}: {error}"), error))
    }

    /// Removes files that `is_wanted` does not want. What cannot be removed is in nobody's way but the disk's.
    pub(super) fn remove_except(&self, is_wanted: impl Fn(&str) -> bool) {
        let Self::Kept { directory, .. } = self else { return };
        let Ok(files) = std::fs::read_dir(directory) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            if name != LOCK && !name.to_str().is_some_and(&is_wanted) {
                let _gone = std::fs::remove_file(file.path());
            }
        }
    }
}
