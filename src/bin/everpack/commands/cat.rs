//! `cat`: one file of a backup to standard output.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use everpack::error::Result;
use everpack::ops::restore;

use super::Context;
use crate::args::FramingArg;
use crate::errors::Exit;
use crate::open::{find_backup, open_repository};
use crate::output::stdout_writer;

const LONG_ABOUT: &str = "\
Writes one file of a backup to standard output, bit for bit. Every chunk is verified before it is written, and the whole file at the \
end: exit code 0 means that all of it was right.

  everpack cat latest mo_meta
  everpack cat 41b7e0 tae/ckp/meta_0-0_1795235203197447057-0.ckp > meta.ckp";

/// Write one file of a backup to standard output.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct CatArgs {
    /// An id or its first digits, `latest`, or `latest:LINEAGE`.
    backup: String,
    /// The file's path in the backup.
    path: OsString,
    /// Put on or take off the checksum framing of MatrixOne's DISK backend.
    #[arg(long, value_enum, default_value_t)]
    framing: FramingArg,
}

pub(crate) async fn run(context: &Context, args: CatArgs) -> Result<Exit> {
    let repository = open_repository(&context.globals).await?;
    let backup = find_backup(&repository, &args.backup)?;
    let mut out = stdout_writer();
    let path = args.path.as_bytes();
    let path = path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")).unwrap_or(path);
    restore::cat(&repository, &backup, path, args.framing.into(), &mut out).await?;
    Ok(Exit::Done)
}
