//! `find`: which backups have a file, in which versions.

use crate::standin::query;
use everpack::error::Result;
use everpack::id::ObjectHash;
use everpack::repo::{BackupInfo, Entry, EntryKind};
use everpack::units;

use super::Context;
use super::entry::{EntryView, name};
use crate::errors::Exit;
use crate::open::open_repository;

const LONG_ABOUT: &str = "\
Looks for files by a pattern, in all backups or in those of --backup: which of them have it, and in which versions. A pattern matches \
the name or the whole path; `*` also crosses `/`. Versions are told apart by the digits behind the size: equal digits, equal content.

  everpack find '*.ckp'
  everpack find '*01a1fc5b-2aac-734c*' --backup latest";

/// Find which backups have a file.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct FindArgs {
    /// A glob.
    pattern: String,
    /// Look in this backup only; may be given several times.
    #[arg(long, value_name = "BACKUP")]
    backup: Vec<String>,
}

/// A hit in JSON.
#[derive(serde::Serialize)]
struct Hit {
    backup: ObjectHash,
    #[serde(flatten)]
    entry: EntryView,
}

pub(crate) async fn run(context: &Context, args: FindArgs) -> Result<Exit> {
    let repository = open_repository(&context.globals).await?;
    let backups = match args.backup.as_slice() {
        [] => repository.backups(),
        specs => specs.iter().map(|spec| repository.find_backup(spec)).collect::<Result<_>>()?,
    };
    let output = &context.output;
    if context.json {
        let mut list = output.list()?;
        let mut show = |backup: &BackupInfo, entry: &Entry| list.push(&Hit { backup: backup.id, entry: entry.into() });
        query::find(&repository, &args.pattern, &backups, &mut show).await?;
        list.end()?;
        return Ok(Exit::Done);
    }
    let mut show = |backup: &BackupInfo, entry: &Entry| {
        let id = context.short(&backup.id);
        let time = backup.summary.started.to_local();
        let size = units::bytes(entry.size);
        output.line(&format!("{id}  {time}  {size:>9}  {:<7}  {}", version(entry), name(entry)))
    };
    query::find(&repository, &args.pattern, &backups, &mut show).await?;
    Ok(Exit::Done)
}

/// The first digits of the content's hash; nothing for what has none.
fn version(entry: &Entry) -> String {
    if entry.kind == EntryKind::File { entry.hash.to_string()[..7].to_owned() } else { String::new() }
}
