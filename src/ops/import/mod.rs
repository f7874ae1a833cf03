//! Import: trees that a server's `BACKUP` (or `mo_br`) wrote, into a repository.
//!
//! - [`tree`]: one tree: its files, and what its lists say of them.
//! - [`mod@verify`]: every file of a tree against its digests and its list.
//! - [`compose`]: a tree together with the earlier ones that hold the rest of it, as one source.
//! - [`whole`]: do its checkpoints find everything?
//!
//! An incremental tree names every file that a restored server needs (`tae_list`), but holds only the new ones; the others are in the trees before
//! it. Imported, each tree becomes a backup that is complete by itself, so any of them may be forgotten in any order. Only table objects are ever
//! taken from an earlier tree, or from a backup in the repository: their names never stand for other bytes. Checkpoints, garbage-collection files
//! and objects numbered from 1000 belong to the tree that has them.
//!
//! Not done here: asking a server for anything; changing a file (the archive keeps the bytes that the server's digests are about).
//!
//! If we crash here: backups of the trees imported so far stand; what was stored of the next one is found by the next run.

mod compose;
mod tree;
mod verify;
mod whole;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use tree::{Tree, TreePlace};
pub use verify::{FileState, verify};
pub use whole::holes;

use super::backup::{self, BackupOptions, BackupReport};
use super::blocking;
use crate::error::{Context, Result};
use crate::progress::Monitor;
use crate::repo::Repository;
use crate::tae::Ts;

/// How trees are imported.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// How each backup is made. Without a lineage, all belong to the one of the first.
    pub backup: BackupOptions,
    /// Do not compare files with the digests in their tree's lists before they are stored.
    pub skip_digests: bool,
    /// Store only the newest tree; the others only supply what it needs of them.
    pub only_newest: bool,
}

/// One tree that was imported.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ImportedTree {
    /// Where it lies.
    pub tree: String,
    /// The moment that a restored server shows.
    pub backup_ts: Option<Ts>,
    /// What the server's statement called it: `full`, `incremental`, or anything.
    pub kind: String,
    /// The release that wrote it.
    pub release: Option<String>,
    /// Objects that came from earlier trees.
    pub from_trees: u64,
    /// Objects that came from backups in the repository.
    pub from_repository: u64,
    /// The backup that was made of it.
    pub backup: BackupReport,
}

/// What an import did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ImportReport {
    /// The trees in the order in which they were imported: by their timestamps.
    pub trees: Vec<ImportedTree>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// Imports trees, the oldest first, whatever their order.
///
/// Before anything is stored every tree is opened, and it is made sure that each finds all its files: in itself, in the trees before it, or in a
/// backup in the repository. Fails with `NotFound` if one does not, naming what is missing.
pub async fn import(
    repository: &Repository,
    places: Vec<TreePlace>,
    options: &ImportOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<ImportReport> {
    let begun = Instant::now();
    let trees = blocking(move || places.into_iter().map(Tree::open).collect::<Result<Vec<_>>>()).await?;
    let trees = Arc::new(in_order(trees));
    let first = if options.only_newest { trees.len().saturating_sub(1) } else { 0 };
    let mut plans = Vec::with_capacity(trees.len());
    for at in first..trees.len() {
        plans.push((at, compose::plan(repository, &trees, at).await?));
    }
    if !options.skip_digests {
        let (trees, monitor) = (Arc::clone(&trees), Arc::clone(&monitor));
        blocking(move || trees.iter().try_for_each(|tree| require_sound(tree, &*monitor))).await?;
    }
    let mut report = ImportReport { trees: Vec::new(), duration: Duration::ZERO };
    let mut lineage = options.backup.lineage.clone();
    for (at, plan) in plans {
        let tree = &trees[at];
        let (from_trees, from_repository) = plan.counts();
        let source = compose::source(repository, Arc::clone(&trees), at, plan).await?;
        let options = BackupOptions { lineage: lineage.clone(), ..options.backup.clone() };
        let backup = backup::backup(repository, Box::new(source), &options, Arc::clone(&monitor)).await;
        let backup = backup.context(|| format!("import {}", tree.name()))?;
        lineage.get_or_insert_with(|| backup.lineage.clone());
        report.trees.push(ImportedTree {
            tree: tree.name().to_owned(),
            backup_ts: tree.sum().ts,
            kind: tree.sum().kind.clone(),
            release: tree.release().map(|release| release.to_string()),
            from_trees,
            from_repository,
            backup,
        });
    }
    report.duration = begun.elapsed();
    Ok(report)
}

/// By timestamp; trees of releases that did not write one stay in front, in the order given.
fn in_order(mut trees: Vec<Tree>) -> Vec<Tree> {
    trees.sort_by_key(|tree| tree.sum().ts);
    trees
}

/// Fails with the first file that is not what its tree says.
fn require_sound(tree: &Tree, monitor: &dyn Monitor) -> Result<()> {
    let mut first = None;
    verify(tree, monitor, &mut |state: &FileState| {
        if let Some(problem) = state.problem.as_ref().filter(|_| first.is_none()) {
            first = Some(format!("{}: {problem}", state.path));
        }
    })?;
    match first {
        None => Ok(()),
        Some(first) => Err(crate::error::Error::corrupt(format!(
            "import {}: {first}. Nothing of it was imported; copy the tree again from where it was written",
            tree.name()
        ))),
    }
}
