//! `show`: everything known of one backup.

use everpack::error::Result;
use everpack::ops::query::{self, Shown};
use everpack::source::display_path;
use everpack::units;

use super::Context;
use super::list::told_hold;
use crate::errors::Exit;
use crate::open::{find_backup, open_repository};
use crate::output::plural;

const LONG_ABOUT: &str = "\
Shows everything known of one backup: where it came from, when, what it holds, what it cost, its tags, and what the source said of \
itself.

  everpack show latest
  everpack show 41b7e0 --json";

/// Show everything known of one backup.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct ShowArgs {
    /// An id or its first digits, `latest`, or `latest:LINEAGE`.
    backup: String,
}

pub(crate) async fn run(context: &Context, args: ShowArgs) -> Result<Exit> {
    let repository = open_repository(&context.globals).await?;
    let backup = find_backup(&repository, &args.backup)?;
    let shown = query::show(&repository, &backup).await?;
    context.output.answer(&shown, || text(&shown))?;
    Ok(Exit::Done)
}

fn text(shown: &Shown) -> String {
    let show = |text: &str| display_path(text.as_bytes());
    let totals = &shown.totals;
    let took = units::duration(shown.finished.since(shown.started));
    let mut lines = vec![
        format!("backup    {}", shown.id),
        format!("lineage   {}", show(&shown.lineage_name)),
        format!("source    {} {} on {}", show(&shown.source_kind), show(&shown.source_location), show(&shown.host)),
        format!("began     {}", shown.started.to_local()),
        format!("ended     {}, {took} later", shown.finished.to_local()),
        format!("parent    {}", shown.parent.map_or_else(|| "none".to_owned(), |parent| parent.to_string())),
        format!("written   by {}, log entry {}", show(&shown.tool), shown.entry),
        format!(
            "holds     {}, {}, {}; {} ({} bytes)",
            plural(totals.files, "file"),
            plural(totals.directories, "directory"),
            plural(totals.symlinks, "link"),
            units::bytes(totals.bytes),
            units::count(totals.bytes)
        ),
        format!(
            "cost      read {}, new {}, stored {}",
            units::bytes(shown.read_bytes),
            units::bytes(shown.new_bytes),
            units::bytes(shown.stored_bytes)
        ),
        format!("list      in {}", plural(shown.segments, "segment")),
    ];
    if !shown.tags.is_empty() {
        let tags: Vec<String> = shown.tags.iter().map(|tag| show(tag)).collect();
        lines.push(format!("tags      {}", tags.join(" ")));
    }
    if let Some(until) = shown.held_until {
        let told = told_hold(until);
        lines.push(format!("hold      {told}"));
    }
    for (name, value) in &shown.facts {
        lines.push(format!("{:<9} {}", show(name), show(value)));
    }
    if shown.partial {
        lines.push("PARTIAL   files that could not be read are missing or incomplete; which, only that run of `everpack backup` said".to_owned());
    }
    lines.join("\n") + "\n"
}
