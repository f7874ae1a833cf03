//! The repository in numbers. Needs the log and the local index, no manifest.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{LineageId, ObjectHash, ObjectKind, RepositoryId};
use crate::index::sizes;
use crate::repo::{Repository, ScrubAge};

/// The repository in numbers.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stats {
    /// Which repository.
    pub repository: RepositoryId,
    /// Where it is, without credentials.
    pub location: String,
    /// Listed backups.
    pub backups: u64,
    /// Backups that were forgotten and whose manifest is still there.
    pub forgotten: u64,
    /// Lineages of listed backups, by name.
    pub lineages: Vec<LineageStats>,
    /// Logical bytes of all listed backups together.
    pub logical_bytes: u64,
    /// Chunks that the local index knows.
    pub chunks: u64,
    /// Live packs of file chunks.
    pub data_packs: PackStats,
    /// Live packs of lists of entries.
    pub meta_packs: PackStats,
    /// Bytes of all live packs.
    pub stored_bytes: u64,
    /// Logical bytes per stored byte; 0 if nothing is stored.
    pub ratio: f64,
    /// Live index fragments.
    pub fragments: u64,
    /// Log entries.
    pub log_entries: u64,
    /// Sessions that are not over.
    pub open_sessions: u64,
    /// Objects that are retired and wait to be deleted.
    pub retired_objects: u64,
    /// Packs that are known to be damaged.
    pub quarantined_packs: u64,
    /// How long ago the live packs were read and verified.
    pub scrub: ScrubAge,
}

/// Packs of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PackStats {
    /// How many.
    pub count: u64,
    /// Bytes of the stored objects.
    pub bytes: u64,
}

/// The backups of one lineage.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LineageStats {
    /// Its id.
    pub id: LineageId,
    /// Its name.
    pub name: String,
    /// Listed backups of it.
    pub backups: u64,
    /// The newest of them.
    pub newest: ObjectHash,
    /// When reading for the newest began.
    pub newest_started: Timestamp,
    /// Logical bytes of the newest.
    pub newest_bytes: u64,
    /// Files of the newest.
    pub newest_files: u64,
    /// Bytes that were stored for all of them.
    pub stored_bytes: u64,
}

/// Counts.
pub async fn stats(repository: &Repository) -> Result<Stats> {
    repository.refresh().await?;
    let index = repository.index().await?;
    let state = repository.state();
    let listed = state.listed();
    let mut lineages: BTreeMap<LineageId, LineageStats> = BTreeMap::new();
    // Oldest first, so the last one that is written down is the newest.
    for backup in &listed {
        let summary = &backup.summary;
        let earlier = lineages.get(&summary.lineage);
        let stats = LineageStats {
            id: summary.lineage,
            name: summary.lineage_name.clone(),
            backups: earlier.map_or(0, |earlier| earlier.backups) + 1,
            newest: backup.manifest.hash,
            newest_started: summary.started,
            newest_bytes: summary.totals.bytes,
            newest_files: summary.totals.files,
            stored_bytes: earlier.map_or(0, |earlier| earlier.stored_bytes).saturating_add(summary.stored_bytes),
        };
        lineages.insert(summary.lineage, stats);
    }
    let mut lineages: Vec<LineageStats> = lineages.into_values().collect();
    lineages.sort_by(|a, b| a.name.cmp(&b.name));
    let live = index.live_packs();
    let scrub = repository.ledger().await?.age(&live, repository.environment().clock.now());
    let sizes = sizes(&live);
    let of_kind = |kind| {
        sizes.get(&kind).map_or(PackStats::default(), |(count, bytes)| PackStats { count: *count, bytes: *bytes })
    };
    let (data_packs, meta_packs) = (of_kind(ObjectKind::DataPack), of_kind(ObjectKind::MetaPack));
    let logical_bytes = listed.iter().fold(0u64, |sum, backup| sum.saturating_add(backup.summary.totals.bytes));
    let stored_bytes = data_packs.bytes.saturating_add(meta_packs.bytes);
    #[allow(clippy::cast_precision_loss, reason = "shown to people")]
    let ratio = if stored_bytes == 0 { 0.0 } else { logical_bytes as f64 / stored_bytes as f64 };
    Ok(Stats {
        repository: repository.id(),
        location: repository.location(),
        backups: listed.len() as u64,
        forgotten: state.backups.values().filter(|backup| backup.forgotten.is_some()).count() as u64,
        lineages,
        logical_bytes,
        chunks: index.location_count(),
        data_packs,
        meta_packs,
        stored_bytes,
        ratio,
        fragments: state.fragments.len() as u64,
        log_entries: state.head,
        open_sessions: state.open_sessions().count() as u64,
        retired_objects: state.retired.len() as u64,
        quarantined_packs: state.quarantined.len() as u64,
        scrub,
    })
}
