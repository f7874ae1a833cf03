//! Everything known of one backup.

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{LineageId, ObjectHash, SessionId};
use crate::ops::listed_manifest;
use crate::repo::{BackupInfo, Manifest, Repository, Totals};

/// One backup.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Shown {
    /// Its id.
    pub id: ObjectHash,
    /// The log entry that committed it.
    pub entry: u64,
    /// The session that wrote it.
    pub session: SessionId,
    /// Cannot be forgotten until then.
    pub held_until: Option<Timestamp>,
    /// Whose backup.
    pub lineage: LineageId,
    /// The lineage's name.
    pub lineage_name: String,
    /// The backup whose entries were taken over where nothing had changed.
    pub parent: Option<ObjectHash>,
    /// When reading began.
    pub started: Timestamp,
    /// When the last byte was read.
    pub finished: Timestamp,
    /// Some files could not be read and are missing or incomplete.
    pub partial: bool,
    /// `directory`, `bucket`, ….
    pub source_kind: String,
    /// Where from, without credentials.
    pub source_location: String,
    /// The host that ran it.
    pub host: String,
    /// Which everpack wrote it.
    pub tool: String,
    /// The user's tags.
    pub tags: Vec<String>,
    /// What the source says of itself.
    pub facts: Vec<(String, String)>,
    /// What it holds.
    pub totals: Totals,
    /// Parts of its list of entries.
    pub segments: u64,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Logical bytes of chunks that no earlier backup had.
    pub new_bytes: u64,
    /// Bytes that were stored for it.
    pub stored_bytes: u64,
}

/// Reads what is known of a backup.
pub async fn show(repository: &Repository, backup: &BackupInfo) -> Result<Shown> {
    let manifest: Manifest = listed_manifest(repository, &backup.id).await?;
    let state = repository.state();
    let known = state.backups.get(&backup.id).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("show backup {}: the log does not know it", backup.id))
    })?;
    Ok(Shown {
        id: backup.id,
        entry: known.entry,
        session: known.manifest.session,
        held_until: known.held_until,
        lineage: manifest.lineage,
        lineage_name: manifest.lineage_name,
        parent: manifest.parent,
        started: manifest.started,
        finished: manifest.finished,
        partial: manifest.partial,
        source_kind: manifest.source_kind,
        source_location: manifest.source_location,
        host: manifest.host,
        tool: manifest.tool,
        tags: manifest.tags,
        facts: manifest.facts,
        totals: manifest.totals,
        segments: manifest.segments.len() as u64,
        read_bytes: known.summary.read_bytes,
        new_bytes: known.summary.new_bytes,
        stored_bytes: known.summary.stored_bytes,
    })
}
