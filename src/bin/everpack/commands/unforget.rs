//! `unforget`: forgotten backups come back.

use everpack::error::Result;
use everpack::ops::forget::{self, UnforgetReport};

use super::Context;
use crate::errors::Exit;
use crate::open::{find_any_backups, open_to_write};
use crate::output::{one_line, plural};

const LONG_ABOUT: &str = "\
Brings forgotten backups back into the list, after proving that everything they name is still stored. That is certain until a prune ran \
after they were forgotten; if anything is gone, nothing is changed.

  everpack list --forgotten
  everpack unforget 41b7e0";

/// Bring forgotten backups back.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct UnforgetArgs {
    /// Ids or their first digits; `everpack list --forgotten` shows them.
    #[arg(value_name = "BACKUP", required = true)]
    backups: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: UnforgetArgs) -> Result<Exit> {
    let repository = open_to_write(context).await?;
    let backups = find_any_backups(&repository, &args.backups)?;
    let report = forget::unforget(&repository, &backups, context.progress.watch()).await?;
    context.progress.close();
    context.output.report(&report, || text(context, &report))?;
    Ok(Exit::Done)
}

fn text(context: &Context, report: &UnforgetReport) -> String {
    let mut lines = Vec::new();
    for id in &report.backups {
        lines.push(format!("backup {} is back", context.short(id)));
    }
    if !report.backups.is_empty() {
        lines.push(format!("  {} looked up, all of them are stored", plural(report.chunks, "chunk")));
    }
    lines.extend(report.remarks.iter().map(|remark| format!("note: {}", one_line(remark))));
    lines.join("\n") + "\n"
}
