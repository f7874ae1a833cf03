//! The entries of a backup, as directories. Backups of buckets hold no directories: those above a file are shown as if they did.

use super::normal;
use crate::clock::Timestamp;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::manifest::SegmentRef;
use crate::id::{FileHash, SourceIdentity};
use crate::ops::listed_manifest;
use crate::repo::{BackupInfo, Entry, EntryKind, FileFormat, Manifest, Pieces, Repository, Transform};
use crate::source::display_path;

/// Shows what is in a directory (`""` is the root), or a file itself, in the order of the list. With `recursive` everything below.
///
/// Fails with `NotFound` if the backup has nothing of that path, and with whatever `emit` fails with.
pub async fn ls(
    repository: &Repository,
    backup: &BackupInfo,
    path: &[u8],
    recursive: bool,
    emit: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let path = normal(path);
    let manifest = listed_manifest(repository, &backup.id).await?;
    let index = repository.index().await?;
    let mut lister = Lister::new(path, recursive);
    for (at, segment) in manifest.segments.iter().enumerate() {
        if lister.may_hold(&manifest, at) {
            let entries = read(repository, &index, segment, backup).await?;
            for entry in &entries {
                lister.take(entry, emit)?;
            }
        }
    }
    if lister.found {
        return Ok(());
    }
    let message = format!(
        "list {}: backup {} has nothing of that path; `everpack ls -R` shows all",
        display_path(path),
        backup.id
    );
    Err(Error::new(ErrorKind::NotFound, message))
}

async fn read(
    repository: &Repository,
    index: &crate::index::Index,
    segment: &SegmentRef,
    backup: &BackupInfo,
) -> Result<Vec<Entry>> {
    repository.read_segment(index, segment).await.context(|| format!("list backup {}", backup.id))
}

/// Picks what is shown.
pub(super) struct Lister<'a> {
    path: &'a [u8],
    recursive: bool,
    /// The child directory that was shown last; everything in it stands behind it.
    shown: Option<Vec<u8>>,
    found: bool,
}

impl<'a> Lister<'a> {
    pub(super) fn new(path: &'a [u8], recursive: bool) -> Self {
        Self { path, recursive, shown: None, found: path.is_empty() }
    }

    /// True if something wanted can stand in a segment.
    fn may_hold(&self, manifest: &Manifest, at: usize) -> bool {
        let first = manifest.segments[at].first_key.as_slice();
        let next = manifest.segments.get(at + 1).map(|next| next.first_key.as_slice());
        if !self.path.is_empty() {
            // Everything below `path` lies between it and `path` + "0" (the byte after '/').
            let end = [self.path, b"0"].concat();
            if first > end.as_slice() || next.is_some_and(|next| next < self.path) {
                return false;
            }
        }
        // A segment that lies as a whole in a child directory that was shown already.
        let inside = |key: &[u8]| {
            self.shown.as_ref().is_some_and(|shown| {
                key.strip_prefix(shown.as_slice()).is_some_and(|rest| rest.len() > 1 && rest[0] == b'/')
            })
        };
        self.recursive || !(inside(first) && next.is_some_and(inside))
    }

    pub(super) fn take(&mut self, entry: &Entry, emit: &mut dyn FnMut(&Entry) -> Result<()>) -> Result<()> {
        let below = match entry.path.strip_prefix(self.path) {
            Some(rest) if self.path.is_empty() => rest,
            Some([]) => {
                self.found = true;
                return if entry.kind == EntryKind::Directory { Ok(()) } else { emit(entry) };
            }
            Some([b'/', rest @ ..]) => rest,
            _ => return Ok(()),
        };
        if below.is_empty() {
            return Ok(());
        }
        self.found = true;
        if self.recursive {
            return emit(entry);
        }
        let child_len = below.iter().position(|byte| *byte == b'/');
        let child = &entry.path[..entry.path.len() - below.len() + child_len.unwrap_or(below.len())];
        if self.shown.as_deref() == Some(child) {
            return Ok(());
        }
        if child_len.is_some() {
            self.shown = Some(child.to_vec());
            return emit(&synthetic(child));
        }
        if entry.kind == EntryKind::Directory {
            self.shown = Some(child.to_vec());
        }
        emit(entry)
    }
}

/// A directory that the backup holds no entry of.
pub(super) fn synthetic(path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        kind: EntryKind::Directory,
        transform: Transform::None,
        format: FileFormat::Opaque,
        stable: false,
        sparse: false,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        size: 0,
        hash: FileHash::from_bytes([0; 32]),
        identity: SourceIdentity::UNKNOWN,
        link_target: Vec::new(),
        pieces: Pieces::NONE,
        extension: Vec::new(),
    }
}
