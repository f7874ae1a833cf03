//! Which lineage a source belongs to, and which backup is the parent.
//!
//! Nights of one cluster lie at another path each time (`BACKUP` trees), so the path alone does not tell. MatrixOne's object names do: they
//! are UUIDs and never change content. The newest backup that holds one of the source's objects is of the same cluster.

use crate::codec::lineage_id;
use crate::error::Result;
use crate::id::{LineageId, ObjectHash};
use crate::repo::{BackupInfo, Entry, Manifest, Repository};
use crate::source::{Peeked, Source, SourceEntry};
use crate::tae::{FileClass, classify};

/// Entries looked at to recognise a cluster.
const PEEK: usize = 4096;
/// Objects compared.
const OBJECTS: usize = 64;

/// The lineage of a backup to be.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) id: LineageId,
    pub(crate) name: String,
}

impl Choice {
    pub(crate) fn named(name: &str) -> Self {
        Self { id: lineage_id(name), name: name.to_owned() }
    }
}

/// Chooses: the user's word, the lineage of this very location, the lineage that shares objects, or a new one.
pub(super) async fn choose(
    repository: &Repository,
    source: Box<dyn Source>,
    wanted: Option<&str>,
) -> Result<(Box<dyn Source>, Choice)> {
    if let Some(name) = wanted {
        return Ok((source, Choice::named(name)));
    }
    let describe = source.describe();
    let own = Choice::named(&format!("{}:{}", describe.host, describe.location));
    let backups = repository.backups();
    if backups.is_empty() || backups.iter().any(|backup| backup.summary.lineage == own.id) {
        return Ok((source, own));
    }
    let (source, first) = tokio::task::spawn_blocking(move || Peeked::new(source, PEEK))
        .await
        .map_err(|error| crate::error::Error::new(crate::error::ErrorKind::Unavailable, error.to_string()))??;
    let objects: Vec<&SourceEntry> = first.iter().filter(|entry| is_stable_object(&entry.path)).take(OBJECTS).collect();
    if !objects.is_empty() {
        for candidate in newest_of_each_lineage(&backups) {
            // A candidate that cannot be read is no parent; `check` will say why.
            if let Ok(true) = shares_objects(repository, &candidate.id, &objects).await {
                return Ok((Box::new(source), Choice::named(&candidate.summary.lineage_name)));
            }
        }
    }
    Ok((Box::new(source), own))
}

fn is_stable_object(path: &[u8]) -> bool {
    matches!(classify(path), FileClass::Object(name) if name.is_content_stable())
}

fn newest_of_each_lineage(backups: &[BackupInfo]) -> Vec<&BackupInfo> {
    let mut newest: Vec<&BackupInfo> = Vec::new();
    for backup in backups.iter().rev() {
        if !newest.iter().any(|known| known.summary.lineage == backup.summary.lineage) {
            newest.push(backup);
        }
    }
    newest
}

/// True if the backup holds an object of the same name. Paths may differ above the name.
async fn shares_objects(repository: &Repository, id: &ObjectHash, objects: &[&SourceEntry]) -> Result<bool> {
    let manifest = repository.manifest(id).await?;
    let index = repository.index().await?;
    for at in candidate_segments(&manifest, objects) {
        let entries = repository.read_segment(&index, &manifest.segments[at]).await?;
        let has = |entry: &Entry| objects.iter().any(|object| file_name(&object.path) == file_name(&entry.path));
        if entries.iter().any(has) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The segments in which the objects would stand at the same paths; the first and a middle one in case they moved.
fn candidate_segments(manifest: &Manifest, objects: &[&SourceEntry]) -> Vec<usize> {
    let segments = &manifest.segments;
    let mut candidates: Vec<usize> = objects
        .iter()
        .filter_map(|object| segments.partition_point(|segment| segment.first_key <= object.path).checked_sub(1))
        .chain([0, segments.len() / 2])
        .filter(|at| *at < segments.len())
        .collect();
    candidates.sort_unstable();
    candidates.dedup();
    candidates.truncate(6);
    candidates
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// The newest backup of a lineage, with its manifest.
pub(super) async fn parent_of(repository: &Repository, lineage: LineageId) -> Result<Option<(ObjectHash, Manifest)>> {
    let backups = repository.backups();
    let Some(parent) = backups.iter().rfind(|backup| backup.summary.lineage == lineage) else { return Ok(None) };
    Ok(Some((parent.id, repository.manifest(&parent.id).await?)))
}
