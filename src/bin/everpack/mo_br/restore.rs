//! `restore`: a backup into a data directory that a server starts on.

use std::path::{Path, PathBuf};
use std::time::Instant;

use everpack::error::{Context, Error, ErrorKind, Result};
use everpack::matrixone::tree::HK_DATA;
use everpack::ops::import::{ImportOptions, import};
use everpack::ops::query;
use everpack::ops::restore::DamagedFile;
use everpack::ops::start::{self, StartOptions};
use everpack::repo::{BackupInfo, EntryKind, InitOptions, Repository};
use everpack::source::display_path;
use everpack::store::{Store, StoreOptions};

use super::Env;
use super::found::{Found, FoundTree, given_id};
use super::meta::MetaLine;
use super::place::{BACKUP_FROM, Keys, Place, RESTORE_TO};
use super::shapes;
use crate::open::environment;

/// Where everything went.
struct Placed {
    /// SHARED, within the restored directory: `mo-data/shared`.
    tae_path: String,
    /// The log service's file, relative to the target.
    hk_data: String,
    /// Files below `tae/`, in order.
    tae: Vec<String>,
    /// What the user has to know.
    remarks: Vec<String>,
}

pub(super) async fn run(env: &Env) -> Result<()> {
    let target = Place::given(&env.line, RESTORE_TO)?.ok_or_else(|| {
        Error::invalid("restore: where to is missing: --restore_dir filesystem --restore_path DIR, or --restore_dir s3 --restore_bucket …")
    })?;
    let keys = Keys::given(&env.line, "backup_");
    let (from, found) = match given_id(&env.line) {
        Some(id) => {
            let (line, found) = env.find(id, &keys).await?;
            let place = match line {
                Some(MetaLine::Ours(record)) => Some(record.place),
                _ => None,
            };
            (place, found)
        }
        None => {
            let place = Place::given(&env.line, BACKUP_FROM)?.ok_or_else(|| {
                Error::invalid(
                    "restore: name a backup by its ID, or a place by --backup_dir and --backup_path or --backup_bucket",
                )
            })?;
            (Some(place.clone()), env.find_in(place, &keys).await?)
        }
    };
    let from = from.unwrap_or_else(|| match &found {
        Found::Stored { repository, .. } => Place::of_location(&repository.location(), &env.settings),
        Found::Tree(tree) => tree.place.clone(),
    });
    env.print(&format!("From:\n{}\nTo\n{}\n", from.lines(), target.lines()))?;
    let begun = Instant::now();
    let placed = match &found {
        Found::Stored { repository, backup } => run_restore(env, repository, backup, &target).await?,
        Found::Tree(tree) => {
            let scratch = Scratch::for_target(&target)?;
            let (repository, backup) = import_for_now(env, &scratch, tree).await?;
            run_restore(env, &repository, &backup, &target).await?
        }
    };
    let parallelism = env.line.unquoted("parallelism").unwrap_or("1").to_owned();
    env.print(&told(&placed, &target, &parallelism, nanos(begun)))?;
    placed.remarks.iter().for_each(|remark| env.note(remark));
    Ok(())
}

fn nanos(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What the original says while it copies.
fn told(placed: &Placed, target: &Place, parallelism: &str, cost: u64) -> String {
    let shared = &placed.tae_path;
    let total = placed.tae.len();
    let path = if shared.contains(':') || shared.starts_with('/') { shared.clone() } else { format!("./{shared}") };
    let one = shapes::duration(cost / u64::try_from(total.max(1)).unwrap_or(1));
    let mut text = format!(
        "TaePath\n    {path}\nrestore tae file path {path}, parallelism {parallelism},  parallel count num: {parallelism}\n\
         restore file num: 1, total file num: {total}, cost : {one}\n"
    );
    for (at, name) in placed.tae.iter().enumerate() {
        let name = crate::output::one_line(name);
        text.push_str(&format!("Copy tae file {}\n    {name} => {shared}/{name}\n", at + 1));
    }
    let hk = &placed.hk_data;
    let target = match target {
        Place::Filesystem(path) => format!("{}/{hk}", path.display().to_string().trim_end_matches('/')),
        Place::S3(_) => hk.clone(),
    };
    text.push_str(&format!(
        "restore end file num: {total}, cost: {}\nCopy hakeeper file 1\n    {HK_DATA} => {hk}\nHakeeper file path in the restore directory\n    {}\n",
        shapes::duration(cost),
        crate::output::one_line(&target)
    ));
    text
}

/// Places the files of a backup where a server looks for them.
async fn run_restore(env: &Env, repository: &Repository, backup: &BackupInfo, target: &Place) -> Result<Placed> {
    let config = env.line.unquoted("dn_config_path").map(PathBuf::from);
    let options = StartOptions {
        config: config.into_iter().collect(),
        // The original brings a backup with a hole back as it is, and the server does not start: the cure is told in a remark.
        cure: true,
        memory: env.globals.memory,
        ..StartOptions::default()
    };
    let monitor = env.progress.watch();
    match target {
        Place::Filesystem(root) => {
            std::fs::create_dir_all(root).context(|| format!("make {}", root.display()))?;
            let report = start::start(repository, backup, root, &options, monitor).await?;
            require_whole(report.damaged_count, &report.damaged)?;
            let place = |what: &str| {
                report.places.iter().find(|place| place.what == what).map(|place| PathBuf::from(&place.path))
            };
            let shared = place("SHARED").unwrap_or_else(|| root.join("mo-data/shared"));
            let tae = files_below(&shared).context(|| format!("list {}", shared.display()))?;
            Ok(Placed {
                tae_path: relative(root, &shared),
                hk_data: place("hk_data")
                    .map_or_else(|| "mo-data/local/hk_data".to_owned(), |path| relative(root, &path)),
                tae,
                remarks: report.remarks,
            })
        }
        Place::S3(_) => {
            let keys = Keys::given(&env.line, "restore_");
            let store = target.create(&keys, env.settings.virtual_host)?;
            let hk_data = PathBuf::from("hk_data");
            let report = start::to_bucket(repository, backup, &store, &hk_data, &options, monitor).await?;
            require_whole(report.damaged_count, &report.damaged)?;
            let mut remarks = report.remarks;
            remarks.push(format!("put {} into LOCAL of every log service before the start", report.hk_data));
            Ok(Placed {
                tae_path: report.bucket,
                hk_data: report.hk_data,
                tae: names(repository, backup).await?,
                remarks,
            })
        }
    }
}

/// Objects and metadata of a backup, as they are called in SHARED.
async fn names(repository: &Repository, backup: &BackupInfo) -> Result<Vec<String>> {
    let mut names = Vec::new();
    query::ls(repository, backup, b"tae", true, &mut |entry| {
        let path = display_path(&entry.path);
        let name = path.strip_prefix("tae/").unwrap_or(&path);
        if entry.kind == EntryKind::File && !name.starts_with("tae_") {
            names.push(name.to_owned());
        }
        Ok(())
    })
    .await?;
    Ok(names)
}

/// A path as a restored directory names it, `./mo-data/shared`.
fn relative(root: &Path, path: &Path) -> String {
    let canonical = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    match canonical(path).strip_prefix(canonical(root)) {
        Ok(below) => below.display().to_string(),
        Err(_) => path.display().to_string(),
    }
}

fn require_whole(count: u64, damaged: &[DamagedFile]) -> Result<()> {
    let Some(first) = damaged.first() else { return Ok(()) };
    let message = format!(
        "{} of the backup are damaged and were not restored, first {}: {}; `everpack repair` may heal it, an older backup may be whole",
        crate::output::plural(count, "file"),
        first.path,
        first.message
    );
    Err(Error::new(ErrorKind::Corrupt, message))
}

/// Relative names of all files, sorted.
fn files_below(top: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        for entry in std::fs::read_dir(top.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                todo.push(path);
            } else {
                names.push(display_path(path.as_os_str().as_encoded_bytes()));
            }
        }
    }
    names.sort();
    Ok(names)
}

/// A repository that is gone when this value is: to bring a tree, and what it needs of earlier ones, through the same verification as everything
/// else.
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn for_target(target: &Place) -> Result<Self> {
        match target {
            Place::Filesystem(path) => Self::beside(&path.join("mo-data")),
            Place::S3(_) => Self::beside(&std::env::temp_dir().join("mo_br")),
        }
    }

    /// In the same directory, thus on the same disk.
    pub(super) fn beside(path: &Path) -> Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let path = directory.join(format!(".everpack-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path).context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If it cannot be removed, its name tells whose it is.
        let _kept = std::fs::remove_dir_all(&self.path);
    }
}

/// Stores a tree in a repository that is thrown away afterwards.
pub(super) async fn import_for_now(env: &Env, scratch: &Scratch, tree: &FoundTree) -> Result<(Repository, BackupInfo)> {
    let (place, mut places) = tree.places().await?;
    places.push(place);
    let store = Store::create_root(&scratch.path.to_string_lossy(), &StoreOptions::default())?;
    let mut surroundings = environment(&env.globals);
    surroundings.cache = None;
    let repository = Repository::create(store, &InitOptions::default(), surroundings).await?;
    let mut options = ImportOptions { only_newest: true, ..ImportOptions::default() };
    options.backup.memory = env.globals.memory;
    let report = import(&repository, places, &options, env.progress.watch()).await?;
    let imported = report.trees.last().ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no tree"))?;
    imported.backup.problems.iter().for_each(|problem| env.note(&format!("{}: {}", problem.path, problem.message)));
    let backup = repository.find_backup(&imported.backup.id.to_string())?;
    Ok((repository, backup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_is_told_as_documented() {
        let placed = Placed {
            tae_path: "mo-data/shared".to_owned(),
            hk_data: "mo-data/local/hk_data".to_owned(),
            tae: vec!["018f7a41-1881-7999-bbd6-858c3d4acc18_00000".to_owned(), "ckp/x".to_owned()],
            remarks: Vec::new(),
        };
        let target = Place::Filesystem("/opt/matrixone".into());
        let from = Place::Filesystem("/Users/admin/soft/backuppath/syncback1".into());
        let text =
            format!("From:\n{}\nTo\n{}\n{}", from.lines(), target.lines(), told(&placed, &target, "1", 250_145_126));
        let golden = "\
From:
    BackupDir: filesystem
    Path: /Users/admin/soft/backuppath/syncback1

To
    BackupDir: filesystem
    Path: /opt/matrixone

TaePath
    ./mo-data/shared
restore tae file path ./mo-data/shared, parallelism 1,  parallel count num: 1
restore file num: 1, total file num: 2, cost : 125.072563ms
Copy tae file 1
    018f7a41-1881-7999-bbd6-858c3d4acc18_00000 => mo-data/shared/018f7a41-1881-7999-bbd6-858c3d4acc18_00000
Copy tae file 2
    ckp/x => mo-data/shared/ckp/x
restore end file num: 2, cost: 250.145126ms
Copy hakeeper file 1
    hakeeper/hk_data => mo-data/local/hk_data
Hakeeper file path in the restore directory
    /opt/matrixone/mo-data/local/hk_data
";
        assert_eq!(text, golden);
    }
}
