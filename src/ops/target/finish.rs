//! The end of a restore: sweep, directory attributes, and the flush that makes names durable.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::path::{is_part_name, split};
use super::{Target, TargetMode, Touched, lock};
use crate::error::{Error, Result};
use crate::source::EntryKind;
use crate::source::beneath::open_beneath;
use crate::source::walk::{WalkOptions, Walker};

/// Names looked at in one go while sweeping.
const SWEEP_BATCH: usize = 4096;

/// What a restore could not do as asked, and what it swept.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct TargetReport {
    /// Files, directories and links that belong to whoever restored, because nobody else may give things away.
    pub(crate) owners_not_restored: u64,
    /// Of these, how many lost a set-user-id or set-group-id bit for that reason.
    pub(crate) set_id_dropped: u64,
    /// Temporary files of an earlier restore that were removed.
    pub(crate) stale_removed: u64,
}

impl Target {
    /// Ends the restore: removes temporaries of earlier ones, sets the attributes of directories, deepest first, and
    /// makes every name durable. Only after it may a restore be called done.
    ///
    /// All files must have been published, discarded or dropped.
    pub(crate) fn finish(self) -> Result<TargetReport> {
        let sweep = self.shared.mode != TargetMode::New;
        self.finish_swept(sweep)
    }

    /// The same for a directory that holds much else: nothing but what was written is looked at.
    pub(crate) fn finish_unswept(self) -> Result<TargetReport> {
        self.finish_swept(false)
    }

    fn finish_swept(self, sweep: bool) -> Result<TargetReport> {
        if Arc::strong_count(&self.shared) != 1 {
            let message = format!("finish the restore into {}: files are still being written", self.shared.location);
            return Err(Error::invalid(message));
        }
        lock(&self.shared.open).clear();
        let stale_removed = if sweep { self.sweep()? } else { 0 };
        self.finish_directories()?;
        Ok(TargetReport {
            owners_not_restored: self.shared.owners_not_restored.load(Ordering::Relaxed),
            set_id_dropped: self.shared.set_id_dropped.load(Ordering::Relaxed),
            stale_removed,
        })
    }

    /// A walk over the target, from a descriptor of its own (a shared one shares its place in the directory).
    pub(super) fn walk(&self) -> Result<Walker> {
        let open = || {
            let root = open_beneath(self.shared.root.as_fd(), b"", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            // What is mounted below is not part of what was restored.
            Walker::new(Arc::new(root), WalkOptions { one_file_system: true, ..WalkOptions::default() })
        };
        open().map_err(|error| Error::io(format!("list {}", self.shared.location), error))
    }

    fn sweep(&self) -> Result<u64> {
        let restored = std::mem::take(&mut *lock(&self.shared.like_parts));
        let mut walker = self.walk()?;
        let mut removed = 0;
        loop {
            let entries = walker.next_batch(SWEEP_BATCH)?;
            if entries.is_empty() {
                return Ok(removed);
            }
            for entry in entries {
                let name = split(&entry.path).1;
                if entry.kind == EntryKind::Directory || !is_part_name(name) || restored.contains(&entry.path) {
                    continue;
                }
                let Some((directory, name)) = self.shared.existing_parent(&entry.path)? else { continue };
                match rustix::fs::unlinkat(&directory.fd, name, AtFlags::empty()) {
                    Ok(()) => removed += 1,
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(self.shared.error("remove the stale", &entry.path, error)),
                }
                lock(&self.shared.touched).add(&directory);
            }
        }
    }

    fn finish_directories(&self) -> Result<()> {
        let shared = &self.shared;
        let mut attributes = std::mem::take(&mut *lock(&shared.directory_attributes));
        // A directory sorts before what is below it, so backwards the deepest come first: a mode that keeps us out of a
        // directory is set when nothing is left to do in it.
        attributes.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        let touched = std::mem::take(&mut *lock(&shared.touched));
        let everything = touched.everything || attributes.len() > Touched::DIRECTORIES_MAX;
        let flush = |path: &[u8], fd: &OwnedFd| {
            rustix::fs::fsync(fd).map_err(|error| shared.error("flush directory", path, error))
        };
        let alone = touched.directories.iter().filter(|_| !everything).chain(&touched.foreign);
        for path in alone {
            if attributes.binary_search_by(|(other, _)| path.cmp(other)).is_err() {
                let directory = shared.open_directory(path).map_err(|error| shared.error("open", path, error))?;
                flush(path, &directory.fd)?;
            }
        }
        for (path, attributes) in attributes {
            let directory = shared.open_directory(&path).map_err(|error| shared.error("open", &path, error))?;
            shared
                .set_attributes(&directory.fd, &attributes)
                .map_err(|error| shared.error("set the attributes of", &path, error))?;
            if directory.foreign || !everything {
                flush(&path, &directory.fd)?;
            }
        }
        if everything {
            shared.flush()?;
        }
        Ok(())
    }
}
