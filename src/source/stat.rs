//! What the operating system knows about a file, in one shape on every architecture.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};

use super::{EntryKind, SourceEntry, SourceIdentity};
use crate::clock::Timestamp;

/// Seconds and nanoseconds as the file system has them; not cut to what a [`Timestamp`] holds.
type FileTime = (i64, u32);

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    Device,
}

impl NodeKind {
    /// None where the file system does not say.
    pub(crate) fn of(file_type: FileType) -> Option<Self> {
        match file_type {
            FileType::RegularFile => Some(Self::File),
            FileType::Directory => Some(Self::Directory),
            FileType::Symlink => Some(Self::Symlink),
            FileType::Fifo => Some(Self::Fifo),
            FileType::Socket => Some(Self::Socket),
            FileType::CharacterDevice | FileType::BlockDevice => Some(Self::Device),
            FileType::Unknown => None,
        }
    }
}

/// The state of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// None for what is neither file, directory, link, pipe, socket nor device.
    pub(crate) kind: Option<NodeKind>,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) inode: u64,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) link_count: u64,
    blocks: u64,
    mtime: FileTime,
    ctime: FileTime,
}

impl Stat {
    /// Of a name in an open directory; a link is not followed.
    pub(crate) fn at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(Self::new(&rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS)?))
    }

    /// Of an open file.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        const EMPTY: &CStr = c"";
        Ok(Self::new(&rustix::fs::statx(fd, EMPTY, AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?))
    }

    fn new(statx: &Statx) -> Self {
        let mode = u32::from(statx.stx_mode);
        Self {
            kind: NodeKind::of(FileType::from_raw_mode(mode)),
            size: statx.stx_size,
            mode: mode & 0o7777,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            inode: statx.stx_ino,
            device: (statx.stx_dev_major, statx.stx_dev_minor),
            link_count: u64::from(statx.stx_nlink),
            blocks: statx.stx_blocks,
            mtime: (statx.stx_mtime.tv_sec, statx.stx_mtime.tv_nsec),
            ctime: (statx.stx_ctime.tv_sec, statx.stx_ctime.tv_nsec),
        }
    }

    pub(crate) fn mtime(&self) -> Timestamp {
        timestamp(self.mtime)
    }

    /// The later of mtime and ctime.
    pub(crate) fn changed(&self) -> Timestamp {
        timestamp(self.mtime.max(self.ctime))
    }

    /// Changes whenever content may have changed: ctime cannot be set back by a program.
    pub(crate) fn identity(&self) -> SourceIdentity {
        crate::codec::identity(&[
            b"directory",
            &self.size.to_le_bytes(),
            &self.mtime.0.to_le_bytes(),
            &self.mtime.1.to_le_bytes(),
            &self.ctime.0.to_le_bytes(),
            &self.ctime.1.to_le_bytes(),
            &self.inode.to_le_bytes(),
        ])
    }

    pub(crate) fn into_entry(self, path: Vec<u8>, kind: EntryKind, link_target: Vec<u8>) -> SourceEntry {
        let is_file = kind == EntryKind::File;
        SourceEntry {
            path,
            kind,
            size: if is_file { self.size } else { 0 },
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime(),
            changed: self.changed(),
            link_target,
            identity: self.identity(),
            sparse: is_file && self.blocks.saturating_mul(512) < self.size,
            link_count: self.link_count,
        }
    }
}

fn timestamp((seconds, nanos): FileTime) -> Timestamp {
    Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos)))
}
