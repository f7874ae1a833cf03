//! One file of a target: written in any order from many threads, sealed, then published.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FallocateFlags, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::{Attributes, Directory, Shared, Target, TargetMode, check_path, lock, path};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::source::beneath::open_beneath;
use crate::source::display_path;
use crate::source::read_full_at;
use crate::source::stat::{NodeKind, Stat};
use crate::units;

/// Smaller files are written at once; space for them is not asked for ahead.
const PREALLOCATE_MIN: u64 = 1 << 20;

/// Up to so many files are flushed one by one, which spares the rest of the file system; their descriptors are kept.
const FLUSH_SINGLY_MAX: usize = 8;

/// A file that is being written under its temporary name. Dropped, it stays there for a later restore to continue.
pub(crate) struct TargetFile {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    fd: OwnedFd,
    path: Vec<u8>,
    part: Vec<u8>,
    len: u64,
    resumed: bool,
}

/// A file that is written and has its attributes, but not yet its name.
pub(crate) struct SealedFile {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    path: Vec<u8>,
    part: Vec<u8>,
    /// Kept while few are sealed.
    fd: Option<OwnedFd>,
    durable: bool,
}

/// A file of the target as it is.
pub(crate) struct ExistingFile {
    shared: Arc<Shared>,
    fd: OwnedFd,
    path: Vec<u8>,
    stat: Stat,
}

impl Target {
    /// Starts a file of `len` bytes, with room for all of it unless `sparse`, under a temporary name beside `path`.
    ///
    /// If a restore that was killed left one of this length, that is continued ([`TargetFile::resumed`]). Fails with a
    /// full disk in its causes, and nothing left behind, if there is no room.
    pub(crate) fn create_file(&self, path: &[u8], len: u64, sparse: bool) -> Result<TargetFile> {
        check_path(path)?;
        let shared = Arc::clone(&self.shared);
        if i64::try_from(len).is_err() {
            return Err(Error::corrupt(format!("restore {}: no file has {len} bytes", display_path(path))));
        }
        let (directory, name) = shared.parent(path)?;
        let part = path::part_name(name);
        let (fd, resumed) =
            open_part(&directory.fd, &part, len).map_err(|error| shared.error("create", path, error))?;
        let file = TargetFile { shared, directory, fd, path: path.to_vec(), part, len, resumed };
        match allocate(&file.fd, len, sparse) {
            Ok(()) => Ok(file),
            Err(error) => {
                let error = file.write_error(len, error);
                file.discard()?;
                Err(error)
            }
        }
    }

    /// The regular file at a path, to be compared; none if there is no such file or it cannot be read.
    pub(crate) fn existing(&self, path: &[u8]) -> Result<Option<ExistingFile>> {
        check_path(path)?;
        let open = || -> io::Result<(OwnedFd, Stat)> {
            let fd = open_beneath(self.shared.root.as_fd(), path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
            let stat = Stat::of(fd.as_fd())?;
            Ok((fd, stat))
        };
        match open() {
            Ok((fd, stat)) if stat.kind == Some(NodeKind::File) => {
                Ok(Some(ExistingFile { shared: Arc::clone(&self.shared), fd, path: path.to_vec(), stat }))
            }
            Ok(_) => Ok(None),
            Err(error) => match Errno::from_io_error(&error) {
                // Gone, a link, a socket, not ours to read: it will be replaced.
                Some(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::ACCESS) => Ok(None),
                _ => Err(self.shared.error("open", path, error)),
            },
        }
    }

    /// Makes sealed files durable and gives them their names. Returns those that could not be renamed, and why.
    ///
    /// Many files cost one flush of the file system. If that fails, none is published, now or later.
    pub(crate) fn publish(&self, files: Vec<SealedFile>) -> Result<Vec<(Vec<u8>, Error)>> {
        self.shared.make_durable(&files)?;
        let mut failed = Vec::new();
        for file in files {
            let name = path::split(&file.path).1;
            match self.shared.rename(&file.directory, &file.part, name) {
                Ok(()) => {
                    lock(&self.shared.touched).add(&file.directory);
                    if path::is_part_name(name) {
                        lock(&self.shared.like_parts).insert(file.path.clone());
                    }
                }
                Err(error) => {
                    let error = self.shared.error("put in place", &file.path, error);
                    let path = file.path.clone();
                    file.discard()?;
                    failed.push((path, error));
                }
            }
        }
        Ok(failed)
    }
}

impl TargetFile {
    /// True if an earlier restore left this file. Its bytes are unknown: any of them may be right.
    pub(crate) fn resumed(&self) -> bool {
        self.resumed
    }

    /// Writes all of `bytes` at `offset`, which must lie within the file.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            let message = format!(
                "write {}: {} bytes at {offset} lie beyond its {} bytes",
                display_path(&self.path),
                bytes.len(),
                self.len
            );
            return Err(Error::corrupt(message));
        }
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::pwrite(&self.fd, &bytes[written..], offset + written as u64) {
                Ok(0) => return Err(self.write_error(bytes.len() as u64, io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.write_error((bytes.len() - written) as u64, error.into())),
            }
        }
        Ok(())
    }

    /// Fills `buf` from `offset`; short only at the end of the file.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        read_full_at(&self.fd, offset, buf).map_err(|error| self.shared.error("read back", &self.path, error))
    }

    /// Ends writing: sets the attributes. The file is published later, in a batch.
    pub(crate) fn seal(self, attributes: &Attributes) -> Result<SealedFile> {
        let shared = &self.shared;
        shared.set_attributes(&self.fd, attributes).map_err(|error| shared.error("finish", &self.path, error))?;
        // What a flush of the target's file system does not reach, or not reliably.
        let durable = self.directory.foreign || !shared.flush_reports;
        if durable {
            rustix::fs::fsync(&self.fd).map_err(|error| self.write_error(0, error.into()))?;
        }
        let keep = !durable && shared.sealed_open.fetch_add(1, Ordering::Relaxed) < FLUSH_SINGLY_MAX;
        if !durable && !keep {
            shared.sealed_open.fetch_sub(1, Ordering::Relaxed);
        }
        let fd = keep.then_some(self.fd);
        Ok(SealedFile { shared: self.shared, directory: self.directory, path: self.path, part: self.part, fd, durable })
    }

    /// Seals and publishes this one file.
    #[cfg(test)]
    pub(crate) fn publish(self, attributes: &Attributes) -> Result<()> {
        let target = Target { shared: Arc::clone(&self.shared) };
        let sealed = self.seal(attributes)?;
        match target.publish(vec![sealed])?.pop() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Gives the file up: nothing of it is left.
    pub(crate) fn discard(self) -> Result<()> {
        remove_part(&self.shared, &self.directory, &self.part, &self.path)
    }

    fn write_error(&self, wanted: u64, error: io::Error) -> Error {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let message = format!(
                "write {} in {}: no room for {} of its {}",
                display_path(&self.path),
                self.shared.location,
                units::bytes(wanted),
                units::bytes(self.len)
            );
            return Error::with_source(ErrorKind::Unavailable, message, error);
        }
        self.shared.error("write", &self.path, error)
    }
}

impl SealedFile {
    /// Gives the file up: nothing of it is left.
    pub(crate) fn discard(self) -> Result<()> {
        remove_part(&self.shared, &self.directory, &self.part, &self.path)
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        if self.fd.is_some() {
            self.shared.sealed_open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl ExistingFile {
    pub(crate) fn len(&self) -> u64 {
        self.stat.size
    }

    pub(crate) fn attributes(&self) -> Attributes {
        Attributes { mode: self.stat.mode, uid: self.stat.uid, gid: self.stat.gid, mtime: self.stat.mtime() }
    }

    /// Fills `buf` from `offset`; short only at the end of the file.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        read_full_at(&self.fd, offset, buf).map_err(|error| self.shared.error("read", &self.path, error))
    }

    /// For a file whose content is right: sets the attributes that differ.
    pub(crate) fn update(&self, attributes: &Attributes) -> Result<()> {
        if self.attributes() != *attributes {
            let set = self.shared.set_attributes(&self.fd, attributes);
            set.and_then(|()| Ok(rustix::fs::fsync(&self.fd)?))
                .map_err(|error| self.shared.error("set the attributes of", &self.path, error))?;
        }
        Ok(())
    }
}

impl Shared {
    fn make_durable(&self, files: &[SealedFile]) -> Result<()> {
        let waiting = || files.iter().filter(|file| !file.durable);
        if waiting().next().is_none() {
            return Ok(());
        }
        if waiting().count() <= FLUSH_SINGLY_MAX && waiting().all(|file| file.fd.is_some()) {
            for file in waiting() {
                let Some(fd) = &file.fd else { continue };
                rustix::fs::fsync(fd).map_err(|error| self.error("flush", &file.path, error))?;
            }
            return Ok(());
        }
        self.flush()
    }

    /// Makes everything on the target's file system durable.
    ///
    /// Invariant: once this has failed it fails for ever, because nobody knows whose bytes were lost.
    pub(super) fn flush(&self) -> Result<()> {
        let mut failed = lock(&self.flush_failed);
        if *failed {
            let message = format!("flush {}: an earlier flush failed, so what was written is not safe", self.location);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        rustix::fs::syncfs(&self.root).map_err(|error| {
            *failed = true;
            Error::io(format!("flush {}", self.location), error.into())
        })
    }

    /// Gives a temporary its name, replacing a file or link, and an empty directory, but nothing in a new target.
    pub(super) fn rename(&self, directory: &Directory, part: &[u8], name: &[u8]) -> io::Result<()> {
        let fd = &directory.fd;
        if self.mode == TargetMode::New {
            match rustix::fs::renameat_with(fd, part, fd, name, RenameFlags::NOREPLACE) {
                // The file system cannot do that.
                Err(Errno::INVAL | Errno::NOSYS) => {}
                done => return Ok(done?),
            }
        }
        match rustix::fs::renameat(fd, part, fd, name) {
            Err(Errno::ISDIR) => {
                rustix::fs::unlinkat(fd, name, AtFlags::REMOVEDIR)?;
                Ok(rustix::fs::renameat(fd, part, fd, name)?)
            }
            done => Ok(done?),
        }
    }

    /// Owner first: changing it takes set-id bits away.
    pub(super) fn set_attributes(&self, fd: &OwnedFd, attributes: &Attributes) -> io::Result<()> {
        let owned = match owner(attributes) {
            Some((uid, gid)) => owner_result(rustix::fs::fchown(fd, Some(uid), Some(gid)))?,
            None => false,
        };
        let mut mode = attributes.mode & 0o7777;
        if !owned {
            self.owners_not_restored.fetch_add(1, Ordering::Relaxed);
            if mode & 0o6000 != 0 {
                // With another owner these bits would give away that owner's rights.
                mode &= 0o1777;
                self.set_id_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?;
        Ok(rustix::fs::futimens(fd, &times(attributes.mtime))?)
    }

    pub(super) fn set_link_attributes(
        &self,
        directory: &Directory,
        name: &[u8],
        attributes: &Attributes,
    ) -> io::Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let owned = match owner(attributes) {
            Some((uid, gid)) => owner_result(rustix::fs::chownat(&directory.fd, name, Some(uid), Some(gid), nofollow))?,
            None => false,
        };
        if !owned {
            self.owners_not_restored.fetch_add(1, Ordering::Relaxed);
        }
        Ok(rustix::fs::utimensat(&directory.fd, name, &times(attributes.mtime), nofollow)?)
    }
}

/// None for the ids that mean "leave it".
fn owner(attributes: &Attributes) -> Option<(Uid, Gid)> {
    if attributes.uid == u32::MAX || attributes.gid == u32::MAX {
        return None;
    }
    Some((Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid)))
}

/// False where the owner may not be set, or is unknown here (user namespaces, some network file systems).
fn owner_result(result: rustix::io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn times(mtime: Timestamp) -> Timestamps {
    const NANOS: i64 = 1_000_000_000;
    let mtime = mtime.as_nanos();
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.div_euclid(NANOS), tv_nsec: mtime.rem_euclid(NANOS) },
    }
}

/// Opens a temporary: that of an earlier restore if it can be trusted to be one, else a new one.
fn open_part(directory: &OwnedFd, part: &[u8], len: u64) -> io::Result<(OwnedFd, bool)> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let create = || rustix::fs::openat(directory, part, flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR);
    match create() {
        Err(Errno::EXIST) => {}
        done => return Ok((done?, false)),
    }
    if let Ok(fd) = rustix::fs::openat(directory, part, flags, Mode::empty()) {
        let stat = Stat::of(fd.as_fd())?;
        // Ours, and no second name of a file elsewhere.
        let ours = stat.uid == rustix::process::geteuid().as_raw() && stat.link_count == 1;
        if stat.kind == Some(NodeKind::File) && ours && stat.size == len {
            return Ok((fd, true));
        }
    }
    rustix::fs::unlinkat(directory, part, AtFlags::empty())?;
    Ok((create()?, false))
}

/// Gives a file its length, with blocks for all of it if asked.
fn allocate(fd: &OwnedFd, len: u64, sparse: bool) -> io::Result<()> {
    if !sparse && len >= PREALLOCATE_MIN {
        match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            done => return Ok(done?),
        }
    }
    Ok(rustix::fs::ftruncate(fd, len)?)
}

fn remove_part(shared: &Shared, directory: &Directory, part: &[u8], path: &[u8]) -> Result<()> {
    match rustix::fs::unlinkat(&directory.fd, part, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(shared.error("remove the unfinished", path, error)),
    }
}
