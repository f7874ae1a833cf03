//! What is backed up: entries in path order with a cheap identity, and bytes on demand.
//!
//! A [`Source`] lists [`SourceEntry`]s in the order of a manifest, so that the parent backup can be read beside it and
//! merged; what is unchanged is never opened. Bytes come from [`OpenFile`], which several reader threads share.
//! Whatever a source leaves out (sockets, excluded names, unreadable directories) is counted and named in [`Skipped`]:
//! whether that makes a backup partial is decided above.
//!
//! Not done here: understanding what a file holds, cutting, comparing with a parent.

pub(crate) mod beneath;
mod bucket;
mod directory;
mod exclude;
mod listing;
mod live;
mod peek;
pub(crate) mod stat;
mod store_bucket;
#[cfg(test)]
mod tests;
pub(crate) mod walk;

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
pub use crate::format::segment::EntryKind;
pub use crate::id::SourceIdentity;
use crate::tae::ReadAt;
pub(crate) use peek::Peeked;

pub use bucket::{BucketAccess, BucketObject, BucketOptions, BucketSource};
pub(crate) use directory::read_full_at;
pub use directory::{DirectoryOptions, DirectorySource};
pub(crate) use live::locked_file;
pub use store_bucket::StoreBucket;

/// One file, directory or symbolic link of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEntry {
    /// Relative, separated by `/`, without leading slash and without `.` or `..`; not necessarily UTF-8.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes as stored at the source; 0 unless a file.
    pub size: u64,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// The later of the last change of the content and that of the inode.
    pub changed: Timestamp,
    /// Where a symbolic link points to; empty otherwise.
    pub link_target: Vec<u8>,
    /// Equal identities of one path mean equal content.
    pub identity: SourceIdentity,
    /// Occupies fewer blocks than its size needs.
    pub sparse: bool,
    /// Number of names of this file.
    pub link_count: u64,
}

/// Where a source is and what was noticed about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SourceDescription {
    /// `directory` or `bucket`.
    pub kind: &'static str,
    /// Absolute canonical path, or URL without credentials.
    pub location: String,
    /// The host that reads it.
    pub host: String,
    /// Name and value of what is worth keeping in the manifest.
    pub facts: Vec<(String, String)>,
    /// Remarks for people.
    pub warnings: Vec<String>,
}

/// A count, with the first few names as text for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SkippedNames {
    /// How many.
    pub count: u64,
    /// The first [`SkippedNames::NAMES_MAX`] of them, with the cause where there is one.
    pub names: Vec<String>,
}

impl SkippedNames {
    /// So many names are kept.
    pub const NAMES_MAX: usize = 100;

    pub(crate) fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.names.len() < Self::NAMES_MAX {
            self.names.push(name());
        }
    }
}

/// What a source has left out so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Sockets.
    pub sockets: SkippedNames,
    /// Named pipes.
    pub fifos: SkippedNames,
    /// Character and block devices.
    pub devices: SkippedNames,
    /// Names that an exclude pattern matched; a directory counts once.
    pub excluded: SkippedNames,
    /// The repository that the backup goes to, where it lies in the source.
    pub repository: SkippedNames,
    /// Temporary files of MatrixOne, when asked to leave them out.
    pub temporary: SkippedNames,
    /// Failures: directories and files that could not be looked at, with the cause.
    pub unreadable: SkippedNames,
    /// Gone, or turned into something else, between being listed and being looked at.
    pub vanished: SkippedNames,
    /// Directories on which another file system is mounted; the directory itself is an entry.
    pub other_file_system: SkippedNames,
    /// Failures: names that are not safe as paths, and objects below a name that is an object itself.
    pub unsafe_names: SkippedNames,
    /// Empty objects whose key ends in `/`, as consoles create them.
    pub directory_markers: SkippedNames,
}

impl Skipped {
    /// Things that belong into a backup of this source and could not be had.
    pub fn failures(&self) -> u64 {
        self.unreadable.count + self.unsafe_names.count
    }
}

/// Something that can be backed up.
pub trait Source: Send {
    /// Where it is. Warnings can grow while it is listed.
    fn describe(&self) -> SourceDescription;

    /// The next entries, at most `max` and at least one; none at the end.
    ///
    /// Over all batches sorted by path bytes, where a directory sorts as `name/`.
    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>>;

    /// A handle that reads files; independent of the listing.
    fn reader(&self) -> Arc<dyn OpenFile>;

    /// What was left out so far.
    fn skipped(&self) -> Skipped;
}

/// Opens files of a source, from any thread.
pub trait OpenFile: Send + Sync {
    /// Opens a listed file. `NotFound` if it is gone, `Busy` if it is no longer what was listed.
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>>;

    /// The file as it is now, if what was listed can change: to be opened in its place. `NotFound` if it is gone, `Busy` if it is no file any
    /// more.
    fn look(&self, entry: &SourceEntry) -> Result<SourceEntry> {
        Ok(entry.clone())
    }
}

/// An open file of a source.
#[allow(clippy::len_without_is_empty, reason = "a file is not a collection")]
pub trait SourceFile: Send + Sync {
    /// Its size when it was opened.
    fn len(&self) -> u64;

    /// Fills `buf` from `offset`; short only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// True if the file is still what it was when it was opened.
    fn verify_unchanged(&self) -> Result<bool>;
}

impl ReadAt for dyn SourceFile + '_ {
    fn len(&self) -> u64 {
        SourceFile::len(self)
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.read_at(offset, buffer)?;
        if read == buffer.len() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, format!("the file ends at {}, while it was read", offset + read as u64)))
    }
}

/// Something that never changes, as an open file of a source: an object that is written once, a file in the repository.
pub(crate) struct Unchanging<R>(pub(crate) R);

impl<R: ReadAt> SourceFile for Unchanging<R> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let rest = self.0.len().saturating_sub(offset);
        let len = buf.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        self.0.read_exact_at(offset, &mut buf[..len])?;
        Ok(len)
    }

    fn verify_unchanged(&self) -> Result<bool> {
        Ok(true)
    }
}

/// A path as people can read it on one line: what is not printable UTF-8 as `\xNN`, a backslash as `\\`.
pub fn display_path(path: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(path.len());
    let escape = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    };
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                // Also the marks that reorder what a terminal shows.
                c if c.is_control()
                    || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                c => text.push(c),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

/// The name of this host.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
