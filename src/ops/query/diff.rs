//! What differs between two backups: their sorted lists, merged. A segment that both have at the same place is not read.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::error::{Context, Result};
use crate::format::manifest::SegmentRef;
use crate::index::Index;
use crate::manifest::order;
use crate::ops::listed_manifest;
use crate::repo::{BackupInfo, Entry, EntryKind, Repository};

/// How an entry differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only the second backup has it.
    Added,
    /// Only the first backup has it.
    Removed,
    /// Its content, or where a link points.
    Content,
    /// A file became a link, or the other way. (A file that became a directory was removed, and a directory added.)
    Kind,
    /// Only mode, owner or time.
    Metadata,
}

/// One entry that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// How.
    pub change: Change,
    /// The entry in the first backup.
    pub before: Option<Entry>,
    /// The entry in the second backup.
    pub after: Option<Entry>,
}

impl Difference {
    /// Its path.
    pub fn path(&self) -> &[u8] {
        let entry = self.after.as_ref().or(self.before.as_ref());
        entry.map_or(&[], |entry| entry.path.as_slice())
    }

    /// By how many bytes the second is larger.
    pub fn growth(&self) -> i128 {
        let size = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| i128::from(entry.size));
        size(&self.after) - size(&self.before)
    }
}

/// Gives every entry that differs, in the order of the lists.
pub async fn diff(
    repository: &Repository,
    a: &BackupInfo,
    b: &BackupInfo,
    emit: &mut dyn FnMut(Difference),
) -> Result<()> {
    let index = repository.index().await?;
    let mut a = Cursor::open(repository, &index, a).await?;
    let mut b = Cursor::open(repository, &index, b).await?;
    loop {
        if a.entries.is_empty() && b.entries.is_empty() && a.next_segment() == b.next_segment() {
            // The same segment, or the end of both.
            if a.segments.pop_front().is_none() {
                return Ok(());
            }
            b.segments.pop_front();
            continue;
        }
        a.fill().await?;
        b.fill().await?;
        match order_of(a.entries.front(), b.entries.front()) {
            Ordering::Less => {
                let before = a.entries.pop_front();
                emit(Difference { change: Change::Removed, before, after: None });
            }
            Ordering::Greater => {
                let after = b.entries.pop_front();
                emit(Difference { change: Change::Added, before: None, after });
            }
            Ordering::Equal => {
                let (Some(before), Some(after)) = (a.entries.pop_front(), b.entries.pop_front()) else { continue };
                if let Some(change) = change_of(&before, &after) {
                    emit(Difference { change, before: Some(before), after: Some(after) });
                }
            }
        }
    }
}

/// The end of a list comes after everything.
fn order_of(a: Option<&Entry>, b: Option<&Entry>) -> Ordering {
    let is_directory = |entry: &Entry| entry.kind == EntryKind::Directory;
    match (a, b) {
        (Some(a), Some(b)) => order::compare(&a.path, is_directory(a), &b.path, is_directory(b)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

fn change_of(a: &Entry, b: &Entry) -> Option<Change> {
    if a.kind != b.kind {
        Some(Change::Kind)
    } else if (a.size, a.hash, &a.link_target) != (b.size, b.hash, &b.link_target) {
        Some(Change::Content)
    } else if (a.mode, a.uid, a.gid, a.mtime) != (b.mode, b.uid, b.gid, b.mtime) {
        Some(Change::Metadata)
    } else {
        None
    }
}

/// A place in the list of a backup.
struct Cursor<'a> {
    repository: &'a Repository,
    index: &'a Index,
    backup: &'a BackupInfo,
    segments: VecDeque<SegmentRef>,
    entries: VecDeque<Entry>,
}

impl<'a> Cursor<'a> {
    async fn open(repository: &'a Repository, index: &'a Index, backup: &'a BackupInfo) -> Result<Self> {
        let manifest = listed_manifest(repository, &backup.id).await?;
        Ok(Self { repository, index, backup, segments: manifest.segments.into(), entries: VecDeque::new() })
    }

    fn next_segment(&self) -> Option<crate::id::ChunkId> {
        self.segments.front().map(|segment| segment.chunk)
    }

    /// Reads on until there is an entry, or the end.
    async fn fill(&mut self) -> Result<()> {
        while self.entries.is_empty() {
            let Some(segment) = self.segments.pop_front() else { return Ok(()) };
            let read = self.repository.read_segment(self.index, &segment).await;
            self.entries = read.context(|| format!("compare backup {}", self.backup.id))?.into();
        }
        Ok(())
    }
}
