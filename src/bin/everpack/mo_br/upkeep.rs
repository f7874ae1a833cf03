//! `repair_index`: the catalogue's missing lines out of the repository. `merge`: a backup and all it builds on as one full tree.

use std::path::{Path, PathBuf};

use everpack::clock::{Clock, SystemClock};
use everpack::error::{Error, ErrorKind, Result};
use everpack::ops::live::facts;
use everpack::ops::query;
use everpack::ops::restore::TargetMode;
use everpack::ops::start::{ExportOptions, export};
use everpack::repo::{BackupInfo, OpenOptions, Repository, Transform};
use uuid::Uuid;

use super::Env;
use super::backup::{is_place, write_small_files};
use super::found::{Found, given_id, id_of};
use super::list::record_of;
use super::meta::{Catalogue, MetaLine, Record};
use super::place::{BACKUP_TO, Keys, Place};
use super::restore;
use super::shapes;
use crate::open::environment;

/// Lines around a banner.
const RULE: &str = "========================================";

/// Writes the lines that the catalogue lacks: of every backup in the repository that `mo_br` made.
pub(super) async fn repair_index(env: &Env) -> Result<()> {
    let keys = Keys::given(&env.line, "");
    let place = Place::given(&env.line, BACKUP_TO)?.map(Place::absolute);
    let wanted = env.line.unquoted("backup_id").or(given_id(&env.line));
    let repository = repository(env, place.as_ref(), &keys).await?;
    let mut catalogue = Catalogue::lock(env.meta_path())?;
    let (mut known, mut written) = (0_u64, 0_u64);
    env.print(&format!("{RULE}\nRepair File Index\n{RULE}\n"))?;
    for backup in repository.backups() {
        let Some(id) = id_of(&backup.summary.tags) else { continue };
        if wanted.is_some_and(|wanted| !wanted.eq_ignore_ascii_case(id)) {
            continue;
        }
        let line = catalogue.find(id).cloned();
        let record = match &line {
            Some(MetaLine::Ours(record)) => record.clone(),
            // Another tool's line of that name is not ours to replace.
            Some(MetaLine::Other(_)) => continue,
            None => known_of(env, &repository, &backup, place.as_ref()).await?,
        };
        if let Err(error) = write_small_files(env, &repository, &backup, &record, &keys).await {
            env.note(&format!("the small files of {id} in {} could not be written: {error}", record.place.url()));
        }
        if line.is_some() {
            known += 1;
            continue;
        }
        env.print(&format!("Added:      {id} {}\n", record.kind))?;
        catalogue.add(record)?;
        written += 1;
    }
    if let Some(wanted) = wanted.filter(|_| known + written == 0) {
        let message = format!("backup {wanted}: it is not in the repository {}", repository.location());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    env.print(&format!("Meta file:  {}\nKnown:      {known}\nWritten:    {written}\n", catalogue.name()))
}

async fn repository(env: &Env, place: Option<&Place>, keys: &Keys) -> Result<Repository> {
    if !env.globals.repo.is_empty() {
        return crate::open::open_repository(&env.globals).await;
    }
    let place = place.ok_or_else(|| {
        Error::invalid("repair_index: name the place of the backups by --backup_dir and --path or --bucket, or a repository in mo_br.toml")
    })?;
    let store = place.open(keys, env.settings.virtual_host)?;
    Repository::open(store, OpenOptions::default(), environment(&env.globals)).await
}

/// A line out of what the repository knows.
async fn known_of(env: &Env, repository: &Repository, backup: &BackupInfo, place: Option<&Place>) -> Result<Record> {
    let shown = query::show(repository, backup).await?;
    let fact = |name: &str| shown.facts.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut record = record_of(env, repository, backup, fact(facts::BACKUP_TS).unwrap_or_default(), place.cloned());
    if fact(facts::TYPE) == Some("incremental") {
        "incremental".clone_into(&mut record.kind);
    }
    if is_place(&record.place, &repository.location()) {
        record.repository.clear();
    }
    Ok(record)
}

/// Writes a backup as one full tree, which every other tool takes, and enters it in the catalogue.
///
/// In a repository nothing needs to be merged: every backup is complete, and deleting those before it does it no harm.
pub(super) async fn merge(env: &Env) -> Result<()> {
    let begun = SystemClock.now();
    let id = given_id(&env.line)
        .ok_or_else(|| Error::invalid("merge: the ID of the backup is missing; `mo_br list` shows them"))?;
    let keys = Keys::given(&env.line, "");
    let target = env.line.unquoted("target_path").or(env.line.unquoted("path"));
    let target = target
        .map(PathBuf::from)
        .ok_or_else(|| Error::invalid("merge: --target_path is missing: the directory that gets the full backup"))?;
    let (line, found) = env.find(id, &keys).await?;
    let merged = Uuid::now_v7().to_string();
    let output =
        std::path::absolute(target.join(format!("full-{merged}"))).map_err(|error| Error::io("merge", error))?;
    let scratch = restore::Scratch::beside(&output)?;
    let (repository, backup) = match found {
        Found::Stored { repository, backup } => (repository, backup),
        Found::Tree(tree) => restore::import_for_now(env, &scratch, &tree).await?,
    };
    let options = ExportOptions {
        tree: None,
        framed: is_framed(&repository, &backup).await?,
        mode: TargetMode::New,
        fast: false,
        memory: env.globals.memory,
    };
    let exported = export(&repository, &backup, &output, &options, env.progress.watch()).await?;
    if let Some(damaged) = exported.damaged.first() {
        let message = format!(
            "merge {id}: {} files are damaged, first {}: {}",
            exported.damaged_count, damaged.path, damaged.message
        );
        return Err(Error::corrupt(message));
    }
    exported.remarks.iter().for_each(|remark| env.note(remark));
    let written = exported.files;
    let backup_ts = match &line {
        Some(MetaLine::Ours(record)) => record.backup_ts.clone(),
        _ => query::show(&repository, &backup)
            .await?
            .facts
            .into_iter()
            .find(|(name, _)| name == facts::BACKUP_TS)
            .map_or_else(String::new, |(_, ts)| ts),
    };
    drop(scratch);
    let finished = SystemClock.now();
    let duration = u64::try_from(finished.since(begun).as_nanos()).ok();
    let record = Record {
        id: merged.clone(),
        size: backup.summary.totals.bytes,
        place: Place::Filesystem(output.clone()),
        begun: Some(begun),
        duration,
        finished: Some(finished),
        backup_ts,
        kind: "full".to_owned(),
        repository: String::new(),
        // A tree in a directory, not in a repository.
        backup: String::new(),
    };
    Catalogue::lock(env.meta_path())?.add(record)?;
    env.print(&summary(&merged, &output, written, backup.summary.totals.bytes, duration.unwrap_or(0)))
}

/// True if the tree that was backed up had the framing of backend DISK: the full one gets it as well.
async fn is_framed(repository: &Repository, backup: &BackupInfo) -> Result<bool> {
    let mut framed = false;
    query::ls(repository, backup, b"tae", true, &mut |entry| {
        framed |= entry.path.ends_with(b"/tae_list") && entry.transform == Transform::DiskCrc;
        Ok(())
    })
    .await?;
    Ok(framed)
}

fn summary(id: &str, output: &Path, files: u64, bytes: u64, duration: u64) -> String {
    format!(
        "{RULE}\nBackup Merge Summary\n{RULE}\nMerged ID:    {id}\nOutput Path:  {}\nTotal Files:  {files}\nTotal Size:   {}\nCopied:       {files}\n\
         Skipped:      0\nDuration:     {}\n{RULE}\n",
        crate::output::one_line(&output.display().to_string()),
        shapes::size(bytes),
        shapes::duration(duration)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_is_summed_up_line_by_line() {
        let text = summary("i", Path::new("/b/full-i"), 3, 12_345_678, 1_500_000_000);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "Backup Merge Summary");
        assert_eq!(
            lines[3..10],
            [
                "Merged ID:    i",
                "Output Path:  /b/full-i",
                "Total Files:  3",
                "Total Size:   12 MB",
                "Copied:       3",
                "Skipped:      0",
                "Duration:     1.5s"
            ]
        );
    }
}
