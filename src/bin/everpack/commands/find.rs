//! `find`: which versions of a file there are, and since which backup.

use everpack::error::Result;
use everpack::id::ObjectHash;
use everpack::ops::query;
use everpack::repo::{BackupInfo, Entry, EntryKind};
use everpack::units;

use super::Context;
use super::entry::{EntryView, name};
use crate::errors::Exit;
use crate::open::{find_backup, open_repository};
use crate::output::FirstError;

const LONG_ABOUT: &str = "\
Looks for files by a pattern, in all backups or in those of --backup. Each version of a path is shown once, with the first backup that \
has it; the digits behind the size tell contents apart. A pattern matches the name or the whole path; `*` also crosses `/`.

  everpack find '*.ckp'
  everpack find '*01a1fc5b-2aac-734c*' --backup latest";

/// Find files in all backups.
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
        specs => specs.iter().map(|spec| find_backup(&repository, spec)).collect::<Result<_>>()?,
    };
    let output = &context.output;
    let mut shown = FirstError::default();
    if context.json {
        let mut list = output.list();
        let mut show = |backup: &BackupInfo, entry: &Entry| {
            shown.then(|| list.push(&Hit { backup: backup.id, entry: entry.into() }));
        };
        query::find(&repository, &args.pattern, &backups, &mut show).await?;
        shown.into_result()?;
        list.end()?;
        return Ok(Exit::Done);
    }
    let mut show = |backup: &BackupInfo, entry: &Entry| {
        let id = context.short(&backup.id);
        let time = backup.summary.started.to_local();
        let size = units::bytes(entry.size);
        shown.then(|| output.line(&format!("{id}  {time}  {size:>9}  {:<7}  {}", version(entry), name(entry))));
    };
    query::find(&repository, &args.pattern, &backups, &mut show).await?;
    shown.into_result()?;
    Ok(Exit::Done)
}

/// The first digits of the content's hash; nothing for what has none.
fn version(entry: &Entry) -> String {
    if entry.kind == EntryKind::File { entry.hash.to_string()[..7].to_owned() } else { String::new() }
}
