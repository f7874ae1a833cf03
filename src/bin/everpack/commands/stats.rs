//! `stats`: what the repository holds, and what it saves.

use std::path::PathBuf;

use everpack::clock::{Clock, SystemClock};
use everpack::error::{Context as _, Result};
use everpack::ops::query::{self, PackStats, Stats};
use everpack::source::display_path;
use everpack::units;

use super::{Context, html};
use crate::errors::{Act, Doing, Exit};
use crate::open::open_repository;
use crate::output::{render, table};

const LONG_ABOUT: &str = "\
Shows what the repository holds in all: backups, their logical bytes, what is stored for them and how much that saves, chunks, packs, \
log entries; and the same for each lineage. With --html also a page of its own, with charts of growth, for a browser.

  everpack stats
  everpack stats --html /var/www/backups.html";

/// Show totals of the repository.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct StatsArgs {
    /// Also write a page for a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, args: StatsArgs) -> Result<Exit> {
    let repository = open_repository(&context.globals).await?;
    let stats = query::stats(&repository).await?;
    if let Some(file) = &args.html {
        let made = format!("written {} by everpack {}", SystemClock.now().to_local(), env!("CARGO_PKG_VERSION"));
        let page = html::page(&repository.location(), &made, &facts(&stats), &repository.backups());
        std::fs::write(file, page)
            .context(|| format!("write {}", display_path(file.as_os_str().as_encoded_bytes())))
            .doing(Act::Write)?;
    }
    context.output.answer(&stats, || text(context, &stats))?;
    Ok(Exit::Done)
}

/// The totals, as name and value.
fn facts(stats: &Stats) -> Vec<(String, String)> {
    let packs = |packs: PackStats| format!("{} ({})", units::count(packs.count), units::bytes(packs.bytes));
    let mut facts = vec![
        ("backups", units::count(stats.backups)),
        ("logical bytes", units::bytes(stats.logical_bytes)),
        ("stored bytes", units::bytes(stats.stored_bytes)),
        ("ratio", format!("{:.2} to 1", stats.ratio)),
        ("chunks", units::count(stats.chunks)),
        ("data packs", packs(stats.data_packs)),
        ("meta packs", packs(stats.meta_packs)),
        ("fragments", units::count(stats.fragments)),
        ("log entries", units::count(stats.log_entries)),
    ];
    if stats.scrub.packs > 0 {
        facts.push(("scrub", stats.scrub.describe()));
    }
    // What is usually none is worth a line only if it is not.
    for (name, count) in [
        ("open sessions", stats.open_sessions),
        ("forgotten", stats.forgotten),
        ("retired", stats.retired_objects),
        ("quarantined", stats.quarantined_packs),
    ] {
        if count > 0 {
            facts.push((name, units::count(count)));
        }
    }
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn text(context: &Context, stats: &Stats) -> String {
    let mut text = String::new();
    for (name, value) in facts(stats) {
        text.push_str(&format!("{name:<14} {value}\n"));
    }
    if stats.lineages.is_empty() {
        return text;
    }
    let mut table = table(&["lineage", "backups", "stored", "newest", "time", "files", "size"], &[1, 2, 5, 6]);
    for lineage in &stats.lineages {
        table.add_row(vec![
            display_path(lineage.name.as_bytes()),
            units::count(lineage.backups),
            units::bytes(lineage.stored_bytes),
            context.short(&lineage.newest),
            lineage.newest_started.to_local(),
            units::count(lineage.newest_files),
            units::bytes(lineage.newest_bytes),
        ]);
    }
    format!("{text}\n{}", render(&table))
}
