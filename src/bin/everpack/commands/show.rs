//! `show`: everything known of one backup.

use crate::standin::query;
use everpack::error::Result;
use everpack::repo::{BackupInfo, Manifest};
use everpack::source::display_path;
use everpack::units;

use super::Context;
use crate::errors::Exit;
use crate::open::open_repository;
use crate::output::{one_line, plural};

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
    let backup = repository.find_backup(&args.backup)?;
    if context.json {
        context.output.document(&query::show(&repository, &backup).await?)?;
    } else {
        let manifest = repository.manifest(&backup.id).await?;
        context.output.raw(text(&backup, &manifest).as_bytes())?;
    }
    Ok(Exit::Done)
}

fn text(backup: &BackupInfo, manifest: &Manifest) -> String {
    let show = |text: &str| display_path(text.as_bytes());
    let summary = &backup.summary;
    let totals = &summary.totals;
    let took = units::duration(summary.finished.since(summary.started));
    let mut lines = vec![
        format!("backup    {}", backup.id),
        format!("lineage   {}", show(&summary.lineage_name)),
        format!(
            "source    {} {} on {}",
            show(&summary.source_kind),
            show(&summary.source_location),
            show(&summary.host)
        ),
        format!("began     {}", summary.started.to_local()),
        format!("ended     {}, {took} later", summary.finished.to_local()),
        format!("parent    {}", manifest.parent.map_or_else(|| "none".to_owned(), |parent| parent.to_string())),
        format!("written   by {}, log entry {}", show(&manifest.tool), backup.entry),
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
            units::bytes(summary.read_bytes),
            units::bytes(summary.new_bytes),
            units::bytes(summary.stored_bytes)
        ),
        format!("segments  {}", units::count(manifest.segments.len() as u64)),
    ];
    if !summary.tags.is_empty() {
        let tags: Vec<String> = summary.tags.iter().map(|tag| show(tag)).collect();
        lines.push(format!("tags      {}", tags.join(" ")));
    }
    for (name, value) in &manifest.facts {
        lines.push(format!("{:<9} {}", one_line(name), show(value)));
    }
    if summary.partial {
        lines.push("PARTIAL: some files are missing or incomplete".to_owned());
    }
    lines.join("\n") + "\n"
}
