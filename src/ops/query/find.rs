//! Which backups hold a name, in which versions.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use futures::StreamExt;
use futures::stream;
use globset::{GlobBuilder, GlobMatcher};

use crate::codec::FileHasher;
use crate::error::{Context, Error, Result};
use crate::id::{ChunkId, FileHash};
use crate::ops::listed_manifest;
use crate::repo::{BackupInfo, Entry, EntryKind, Repository};

/// Segments read ahead.
const AHEAD: usize = 3;

/// Looks for entries whose whole path or last name fits the pattern (`*` also takes slashes). Each version (content, kind, link target) of a
/// path is given once, with the first of the backups that holds it.
///
/// A region that does not change between backups is read once.
pub async fn find(
    repository: &Repository,
    pattern: &str,
    backups: &[BackupInfo],
    emit: &mut dyn FnMut(&BackupInfo, &Entry),
) -> Result<()> {
    let glob = GlobBuilder::new(pattern).literal_separator(false).build();
    let matcher = glob.map_err(|error| Error::invalid(format!("pattern {pattern:?}: {error}")))?.compile_matcher();
    let index = repository.index().await?;
    let mut read: HashSet<ChunkId> = HashSet::new();
    let mut versions: HashSet<FileHash> = HashSet::new();
    for backup in backups {
        let manifest = listed_manifest(repository, &backup.id).await?;
        let new: Vec<_> = manifest.segments.into_iter().filter(|segment| read.insert(segment.chunk)).collect();
        let index = &index;
        let mut segments = stream::iter(new)
            .map(|segment| async move { repository.read_segment(index, &segment).await })
            .buffered(AHEAD);
        while let Some(entries) = segments.next().await {
            let entries = entries.context(|| format!("find in backup {}", backup.id))?;
            for entry in entries.iter().filter(|entry| fits(&matcher, &entry.path)) {
                if versions.insert(version_of(entry)) {
                    emit(backup, entry);
                }
            }
        }
    }
    Ok(())
}

fn fits(matcher: &GlobMatcher, path: &[u8]) -> bool {
    let path = Path::new(OsStr::from_bytes(path));
    matcher.is_match(path) || path.file_name().is_some_and(|name| matcher.is_match(Path::new(name)))
}

/// Equal for entries of one path and equal content.
fn version_of(entry: &Entry) -> FileHash {
    let kind = match entry.kind {
        EntryKind::File => 1,
        EntryKind::Directory => 2,
        EntryKind::Symlink => 3,
    };
    let mut hasher = FileHasher::new();
    hasher.update(&[kind]);
    hasher.update(entry.hash.as_bytes());
    hasher.update(&(entry.path.len() as u64).to_le_bytes());
    hasher.update(&entry.path);
    hasher.update(&entry.link_target);
    hasher.finish()
}
