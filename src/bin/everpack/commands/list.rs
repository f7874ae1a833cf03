//! `list`: the backups of a repository.

use everpack::clock::{Clock, SystemClock, Timestamp};
use everpack::error::Result;
use everpack::progress::{Event, Monitor};
use everpack::repo::BackupInfo;
use everpack::source::display_path;
use everpack::units;

use super::Context;
use crate::args::parse_name;
use crate::errors::Exit;
use crate::open::open_repository;
use crate::output::{render, table};

const LONG_ABOUT: &str = "\
Shows the backups of the repository, oldest first: id, when it began, lineage (the series it belongs to), files, their size, how much \
of it was new, and how much was stored for it after compression.

Each one restores by itself. Name it by the first digits of its id (at least four), or by `latest` or `latest:LINEAGE`.

  everpack list --lineage shop --tag nightly
  everpack list --forgotten          what `everpack unforget` may bring back";

/// List the backups.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct ListArgs {
    /// Only backups of this lineage.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    lineage: Option<String>,
    /// Only backups with this tag.
    #[arg(long, value_name = "TAG", value_parser = parse_name)]
    tag: Option<String>,
    /// The backups that were forgotten and not yet pruned, instead.
    #[arg(long)]
    forgotten: bool,
}

pub(crate) async fn run(context: &Context, args: ListArgs) -> Result<Exit> {
    let repository = open_repository(&context.globals).await?;
    if let Err(error) = repository.confirm_not_rolled_back().await {
        // What is there is listed all the same; what is not, nobody here can list.
        let message = error.to_string();
        context.progress.event(Event::Warning { message });
    }
    let mut backups = if args.forgotten { repository.forgotten() } else { repository.backups() };
    backups.retain(|backup| {
        let summary = &backup.summary;
        args.lineage.as_ref().is_none_or(|lineage| &summary.lineage_name == lineage)
            && args.tag.as_ref().is_none_or(|tag| summary.tags.contains(tag))
    });
    context.output.answer(&backups, || text(context, &backups))?;
    Ok(Exit::Done)
}

fn text(context: &Context, backups: &[BackupInfo]) -> String {
    if backups.is_empty() {
        return if context.globals.quiet { String::new() } else { "no backups\n".to_owned() };
    }
    let mut table = table(&["id", "time", "lineage", "files", "size", "new", "stored", ""], &[3, 4, 5, 6]);
    for backup in backups {
        let summary = &backup.summary;
        let mut remarks: Vec<String> = summary.tags.iter().map(|tag| display_path(tag.as_bytes())).collect();
        if summary.partial {
            remarks.insert(0, "PARTIAL".to_owned());
        }
        remarks.extend(backup.held_until.map(told_hold));
        remarks.extend(backup.forgotten.map(|entry| format!("forgotten by log entry {entry}")));
        table.add_row(vec![
            context.short(&backup.id),
            summary.started.to_local(),
            display_path(summary.lineage_name.as_bytes()),
            units::count(summary.totals.files),
            units::bytes(summary.totals.bytes),
            units::bytes(summary.new_bytes),
            units::bytes(summary.stored_bytes),
            remarks.join(" "),
        ]);
    }
    render(&table)
}

/// `held until …`; a hold that is over says so.
pub(crate) fn told_hold(until: Timestamp) -> String {
    let is_over = until <= SystemClock.now();
    format!("{} until {}", if is_over { "was held" } else { "held" }, until.to_local())
}
