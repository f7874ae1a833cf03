//! `man`: manual pages.

use std::path::PathBuf;

use everpack::error::{Context as _, Result};
use everpack::source::display_path;

use super::Context;
use crate::args;
use crate::errors::Exit;

const LONG_ABOUT: &str = "\
Writes manual pages: everpack.1 and one per command, everpack-backup.1 and so on. Without --dir the main page goes to standard output.

  everpack man --dir /usr/local/share/man/man1
  everpack man | man -l -";

/// Write manual pages.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct ManArgs {
    /// The directory to write them to; it must be there.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, wanted: ManArgs) -> Result<Exit> {
    let command = args::command();
    let Some(directory) = wanted.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).context(|| "write the manual page")?;
        context.output.raw(&page)?;
        return Ok(Exit::Done);
    };
    let written = clap_mangen::generate_to(command, &directory);
    written.context(|| format!("write manual pages to {}", display_path(directory.as_os_str().as_encoded_bytes())))?;
    Ok(Exit::Done)
}
