//! `release`: ends holds.

use everpack::error::Result;
use everpack::ops::forget::{self, ReleaseReport};

use super::Context;
use crate::errors::Exit;
use crate::open::{find_any_backups, open_to_write};
use crate::output::one_line;

const LONG_ABOUT: &str = "\
Ends the hold of backups: from now on they may be forgotten, by name or by rule. `everpack list` shows which are held.

  everpack release 41b7e0";

/// End the hold of backups.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct ReleaseArgs {
    /// Ids or their first digits, `latest`, or `latest:LINEAGE`.
    #[arg(value_name = "BACKUP", required = true)]
    backups: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: ReleaseArgs) -> Result<Exit> {
    let repository = open_to_write(context).await?;
    let backups = find_any_backups(&repository, &args.backups)?;
    let report = forget::release(&repository, &backups).await?;
    context.output.report(&report, || text(context, &report))?;
    Ok(Exit::Done)
}

fn text(context: &Context, report: &ReleaseReport) -> String {
    let mut lines: Vec<String> =
        report.backups.iter().map(|id| format!("backup {} is not held any more", context.short(id))).collect();
    lines.extend(report.remarks.iter().map(|remark| format!("note: {}", one_line(remark))));
    lines.join("\n") + "\n"
}
