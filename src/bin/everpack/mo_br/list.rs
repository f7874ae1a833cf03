//! `list`: what backups there are; `list ID`: one of them, and whether its files are there.

use everpack::error::{Error, ErrorKind, Result};
use everpack::ops::check::{CheckOptions, CheckReport, Severity, check};
use everpack::ops::query;
use everpack::repo::{BackupInfo, EntryKind, Repository};
use everpack::store::ObjectPath;

use super::Env;
use super::found::{BACKUP_META, Found, Guess, given_id, id_of};
use super::meta::{MetaLine, Record};
use super::place::{Keys, Place};
use super::shapes;
use super::tables::{Cell, bordered};
use crate::output::one_line;

/// Columns of the list.
const HEADER: [&str; 8] = ["ID", "SIZE", "PATH", "AT TIME", "DURATION", "COMPLETE TIME", "BACKUPTS", "BACKUPTYPE"];

pub(super) async fn run(env: &Env) -> Result<()> {
    let Some(id) = given_id(&env.line) else {
        let catalogue = env.catalogue()?;
        let rows: Vec<Vec<Cell>> = catalogue.lines.iter().map(row).collect();
        return env.print(&bordered(&HEADER, &rows));
    };
    if env.line.is_set("not_check_data") {
        let catalogue = env.catalogue()?;
        let line = catalogue.find(id).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("backup {id}: it is not in {}; `mo_br list` shows what is", catalogue.name()),
            )
        })?;
        return env.print(&bordered(&HEADER, &[row(line)]));
    }
    let keys = Keys::given(&env.line, "");
    let (line, found) = env.find(id, &keys).await?;
    env.print(&table_of(env, line.as_ref(), &found))?;
    env.print("\nChecking the backup data(currently,no checksum)...\n\n")?;
    match found {
        Found::Stored { repository, backup } => {
            let small = small_file(env, line.as_ref(), &keys).await;
            check_stored(env, &repository, &backup, false, small).await
        }
        Found::Tree(tree) => {
            let (tree, earlier) = tree.open().await?;
            let mut files: Vec<String> = tree.files().map(|file| everpack::source::display_path(&file.path)).collect();
            files.extend(tree.list().iter().map(|row| format!("tae/{}", row.path)));
            let missing = |path: &str| tree_lacks(&tree, &earlier, path);
            tell(env, in_order(files), |path| missing(path).then(|| "it is not there".to_owned()))
        }
    }
}

fn tree_lacks(tree: &everpack::ops::import::Tree, earlier: &[everpack::ops::import::Tree], path: &str) -> bool {
    !std::iter::once(tree).chain(earlier).any(|tree| tree.holds(path.as_bytes()))
}

/// The table of one backup.
pub(super) fn table_of(env: &Env, line: Option<&MetaLine>, found: &Found) -> String {
    let row = match (line, found) {
        (Some(line), _) => row(line),
        (None, Found::Stored { repository, backup }) => record_row(&record_of(env, repository, backup, "", None)),
        (None, Found::Tree(tree)) => record_row(&Record {
            id: String::new(),
            size: 0,
            place: tree.place.clone(),
            begun: None,
            duration: None,
            finished: None,
            backup_ts: String::new(),
            kind: String::new(),
            repository: String::new(),
            backup: String::new(),
        }),
    };
    bordered(&HEADER, &[row])
}

/// A line of the catalogue for a backup in a repository. `place` is where callers look; by default the repository itself.
pub(super) fn record_of(
    env: &Env,
    repository: &Repository,
    backup: &BackupInfo,
    backup_ts: &str,
    place: Option<Place>,
) -> Record {
    let summary = &backup.summary;
    let location = repository.location();
    let place = place.unwrap_or_else(|| Place::of_location(&location, &env.settings));
    Record {
        id: id_of(&summary.tags).unwrap_or_default().to_owned(),
        size: summary.totals.bytes,
        begun: Some(summary.started),
        duration: u64::try_from(summary.finished.since(summary.started).as_nanos()).ok(),
        finished: Some(summary.finished),
        backup_ts: backup_ts.to_owned(),
        kind: "full".to_owned(),
        repository: if place.url() == location { String::new() } else { location },
        backup: backup.id.to_string(),
        place,
    }
}

fn row(line: &MetaLine) -> Vec<Cell> {
    match line {
        MetaLine::Ours(record) => record_row(record),
        MetaLine::Other(text) => {
            let guess = Guess::of(text);
            let path = if guess.path.is_empty() {
                String::new()
            } else {
                format!("BackupDir: filesystem  Path: {}", guess.path)
            };
            let cells = [line.id(), "", &path, "", "", "", &guess.backup_ts, &guess.kind];
            cells.into_iter().map(|cell| Cell::from(one_line(cell))).collect()
        }
    }
}

fn record_row(record: &Record) -> Vec<Cell> {
    let time = |time: Option<everpack::clock::Timestamp>| time.map_or_else(String::new, shapes::time);
    vec![
        one_line(&record.id).into(),
        shapes::size(record.size).into(),
        record.place.cell(),
        time(record.begun).into(),
        record.duration.map_or_else(String::new, shapes::duration).into(),
        time(record.finished).into(),
        one_line(&record.backup_ts).into(),
        one_line(&record.kind).into(),
    ]
}

/// The names of a backup's files, as `check:` lines have them: the lists first, then configuration, then data.
pub(super) fn in_order(mut files: Vec<String>) -> Vec<String> {
    const FIRST: [&str; 5] = ["backup_meta", "mo_meta", "hakeeper/hk_data", "tae/tae_list", "tae/tae_sum"];
    files.retain(|path| !path.ends_with(".sha256"));
    let rank = |path: &String| {
        let first = FIRST.iter().position(|first| first == path);
        first.unwrap_or(FIRST.len() + usize::from(!path.starts_with("config/")))
    };
    files.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    files.dedup();
    files
}

/// The first two have a slash in front, nobody knows why.
pub(super) fn shown(path: &str) -> String {
    match path {
        "backup_meta" | "mo_meta" => format!("/{path}"),
        path => one_line(path),
    }
}

/// Prints a `check:` line for every file, and fails if something is wrong with one.
pub(super) fn tell(env: &Env, files: Vec<String>, problem: impl Fn(&str) -> Option<String>) -> Result<()> {
    let mut wrong = Vec::new();
    for path in files {
        match problem(&path) {
            None => env.print(&format!("check: {}\n", shown(&path)))?,
            Some(why) => {
                env.print(&format!("check: {} FAILED: {}\n", shown(&path), one_line(&why)))?;
                wrong.push(format!("{}: {why}", shown(&path)));
            }
        }
    }
    damaged(&wrong)
}

/// Fails if anything is wrong.
pub(super) fn damaged(wrong: &[String]) -> Result<()> {
    let Some(first) = wrong.first() else { return Ok(()) };
    let message =
        format!("the backup is damaged: {} wrong, first {first}", crate::output::plural(wrong.len() as u64, "file"));
    Err(Error::new(ErrorKind::Corrupt, message))
}

/// Checks a backup in a repository and prints its files; with `read` every stored byte of it is read and verified.
pub(super) async fn check_stored(
    env: &Env,
    repository: &Repository,
    backup: &BackupInfo,
    read: bool,
    small: Option<String>,
) -> Result<()> {
    let options = CheckOptions {
        backups: vec![backup.id],
        read_data: read,
        // What one backup needs is no statement about the repository.
        ledger: false,
        memory: env.globals.memory,
        ..CheckOptions::default()
    };
    let report = check(repository, &options, env.progress.watch()).await?;
    let mut files: Vec<String> = small.into_iter().collect();
    let listed = query::ls(repository, backup, b"", true, &mut |entry| {
        if entry.kind == EntryKind::File {
            files.push(everpack::source::display_path(&entry.path));
        }
        Ok(())
    })
    .await;
    let touched = |path: &str| {
        let finding = report.findings.iter().find(|finding| finding.touches.iter().any(|touched| touched.path == path));
        finding.map(|finding| finding.what.clone())
    };
    if listed.is_ok() {
        tell(env, in_order(files), touched)?;
    }
    whole(&report)?;
    listed
}

/// The file by which a backup is known in its place, if it is there; else it is told how it comes back. Nothing depends on it.
pub(super) async fn small_file(env: &Env, line: Option<&MetaLine>, keys: &Keys) -> Option<String> {
    let Some(MetaLine::Ours(record)) = line else { return None };
    let there = async {
        let path = ObjectPath::parse(&format!("{}-{}/{BACKUP_META}", record.kind, record.id))?;
        record.place.open(keys, env.settings.virtual_host)?.exists(path).await
    };
    if there.await.unwrap_or(false) {
        return Some(BACKUP_META.to_owned());
    }
    env.note(&format!(
        "{}: {}-{}/{BACKUP_META} is not there; `mo_br repair_index` writes it anew",
        record.place.url(),
        record.kind,
        record.id
    ));
    None
}

/// Fails if a check found that something is lost.
fn whole(report: &CheckReport) -> Result<()> {
    let worst = report.findings.iter().find(|finding| finding.severity == Severity::Error);
    let Some(finding) = worst else { return Ok(()) };
    let message = format!("the backup is damaged: {}: {}; {}", finding.object, finding.what, finding.heal);
    Err(Error::new(ErrorKind::Corrupt, message))
}
