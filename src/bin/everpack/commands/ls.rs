//! `ls`: what a backup holds.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use everpack::error::Result;
use everpack::ops::query;

use super::Context;
use super::entry::{EntryView, long_line, name};
use crate::errors::Exit;
use crate::open::{find_backup, open_repository};

const LONG_ABOUT: &str = "\
Shows what a backup holds at a path: a file, or what is in a directory. Paths are those of the source, without the source's own path; \
bytes that cannot be printed are shown as \\xNN. Nothing is restored for it.

  everpack ls latest
  everpack ls latest:shop tae/ckp -l
  everpack ls 41b7e0 -R | wc -l";

/// List the files of a backup.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct LsArgs {
    /// An id or its first digits, `latest`, or `latest:LINEAGE`.
    backup: String,
    /// A file or directory of the backup [default: its root].
    path: Option<OsString>,
    /// Also everything below.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Also mode, owner, size and time.
    #[arg(short, long)]
    long: bool,
}

pub(crate) async fn run(context: &Context, args: LsArgs) -> Result<Exit> {
    let repository = open_repository(&context.globals).await?;
    let backup = find_backup(&repository, &args.backup)?;
    let path = args.path.unwrap_or_default();
    let output = &context.output;
    if context.json {
        let mut list = output.list();
        let mut show = |entry: &_| list.push(&EntryView::from(entry));
        query::ls(&repository, &backup, path.as_bytes(), args.recursive, &mut show).await?;
        list.end()?;
    } else {
        let mut show = |entry: &_| output.line(&if args.long { long_line(entry) } else { name(entry) });
        query::ls(&repository, &backup, path.as_bytes(), args.recursive, &mut show).await?;
    }
    Ok(Exit::Done)
}
