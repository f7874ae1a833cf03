//! `repair`: heals what check and scrub found.

use std::fmt::Write;

use comfy_table::ContentArrangement;
use everpack::error::{Error, ErrorKind, Result};
use everpack::ops::repair::{self, Healed, LogReport, RepairOptions, RepairReport, SalvageOptions, SalvageReport};
use everpack::repo::{Chunking, InitOptions, OpenOptions, Repository};
use everpack::source::display_path;
use everpack::store::Store;

use super::Context;
use super::backup::write_rest;
use super::check::finding_table;
use super::init::parse_chunk_size;
use crate::errors::{Act, Doing, Exit};
use crate::open::{create_store, environment, open_store, store_options, warn_of_single_writer};
use crate::output::{LINE_MOST, one_line, plural, render, stdout_is_terminal, table, wrap};

const LONG_ABOUT: &str = "\
Heals what check and scrub found: builds lost index fragments anew, saves whole chunks out of damaged packs, and fetches with --from \
what is whole in a replica or a copy. Damaged packs are taken out of use, never deleted. What stays lost is told with the files that it \
touches (exit code 2); the next backup stores again what the source still has.

  everpack repair --dry-run                  what would be healed
  everpack repair                            as far as this repository can heal itself
  everpack repair --from /offsite/everpack   with what a replica has
  everpack -r /new repair --salvage /ruins   a new repository out of packs without config, log or index";

/// Heal what check and scrub found, from a replica if there is one.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct RepairArgs {
    /// A replica of this repository, or a copy: a path or URL as for --repo.
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Change nothing: tell what would be healed.
    #[arg(long)]
    dry_run: bool,
    /// Read and verify every stored byte first; without it only what is known to be damaged, or looks so.
    #[arg(long)]
    read_data: bool,
    /// Make a new repository, at --repo, out of what is left of another: its packs, and its manifests if there are any.
    #[arg(long, value_name = "URL", conflicts_with_all = ["from", "dry_run", "read_data"])]
    salvage: Option<String>,
    /// With --salvage: the average chunk that the lost repository was made with, if it was not the default.
    #[arg(long, value_name = "SIZE", default_value = "32K", value_parser = parse_chunk_size)]
    #[arg(requires = "salvage")]
    chunk_size: u32,
}

pub(crate) async fn run(context: &Context, args: RepairArgs) -> Result<Exit> {
    let globals = &context.globals;
    if let Some(ruins) = &args.salvage {
        return salvage(context, ruins, args.chunk_size).await;
    }
    let store = open_store(globals)?;
    let from = args.from.as_deref().map(|url| open_from(context, url)).transpose()?;
    let log = match &from {
        Some(from) => repair::repair_log(&store, &from.readonly(), args.dry_run).await?,
        None => LogReport::default(),
    };
    if args.dry_run && !log.healed.is_empty() {
        // Nothing else can be looked at before the log is whole.
        let text = || format!("would be healed:\n{}nothing else can be looked at before\n", healed_table(&log.healed));
        context.output.report(&LogOnly { dry_run: true, healed: &log.healed, remarks: &log.remarks }, text)?;
        return Ok(Exit::Findings);
    }
    // State objects may be what is wrong: fold from the first entry.
    let options = OpenOptions { distrust_state: true, ..OpenOptions::default() };
    let opened = Repository::open(store, options, environment(globals)).await;
    let repository = match opened {
        Err(error) if error.kind() == ErrorKind::Corrupt && from.is_none() => {
            let message = "repair: the log cannot be folded; `everpack repair --from COPY`, with a copy of this repository, brings lost \
                           entries back";
            return Err(Error::with_source(ErrorKind::Corrupt, message, error)).doing(Act::Open);
        }
        opened => opened.doing(Act::Open)?,
    };
    warn_of_single_writer(context, &repository);
    let from = match from {
        Some(from) => Some(open_donor(context, &repository, from).await?),
        None => None,
    };
    let options = RepairOptions { dry_run: args.dry_run, read_data: args.read_data, memory: globals.memory };
    let mut report = repair::repair(&repository, from.as_ref(), &options, context.progress.watch()).await?;
    report.add_log(log);
    context.progress.close();
    context.output.report(&report, || text(context, &report))?;
    Ok(if report.remaining_count > 0 { Exit::Findings } else { Exit::Done })
}

async fn salvage(context: &Context, ruins: &str, chunk_size: u32) -> Result<Exit> {
    let globals = &context.globals;
    let ruins = Store::open(ruins, &store_options(globals))
        .map_err(|error| error.context(format!("open what is left, {}", display_path(ruins.as_bytes()))))
        .doing(Act::Read)?;
    let target = create_store(globals)?;
    let chunking = Chunking { tae_average: chunk_size, ..Chunking::default() };
    let init = InitOptions { chunking, ..InitOptions::default() };
    let options = SalvageOptions { init, memory: globals.memory };
    let monitor = context.progress.watch();
    let made = repair::salvage(&ruins.readonly(), target, &options, environment(globals), monitor).await;
    let (_, report) = made?;
    context.progress.close();
    context.output.report(&report, || salvage_text(context, &report))?;
    let whole = report.remaining_count == 0 && report.salvaged_broken == 0;
    Ok(if whole { Exit::Done } else { Exit::Findings })
}

fn salvage_text(context: &Context, report: &SalvageReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_salvage(&mut text, context, report);
    text
}

fn write_salvage(text: &mut String, context: &Context, report: &SalvageReport) -> std::fmt::Result {
    let (id, packs) = (report.id.to_string(), plural(report.packs, "pack"));
    writeln!(
        text,
        "made repository {} out of {packs}, and of what is whole in {} more",
        &id[..8],
        report.packs_damaged
    )?;
    writeln!(text, "  {} as they were, by their manifests", plural(report.backups.len() as u64, "backup"))?;
    if let Some(id) = &report.salvaged {
        let entries = plural(report.salvaged_entries, "entry");
        writeln!(text, "  backup {} of lineage `salvaged`: {entries} without a manifest", context.short(id))?;
        if report.salvaged_broken > 0 {
            writeln!(text, "  {} of them are not whole", report.salvaged_broken)?;
        }
    }
    writeln!(text, "  stored {}", everpack::units::bytes(report.bytes_stored))?;
    writeln!(text, "  took {}", everpack::units::duration(report.duration))?;
    let shown = report.remaining.len().min(context.names_max());
    if shown > 0 {
        write!(text, "\n{}", finding_table(context, &report.remaining[..shown]))?;
        write_rest(text, report.remaining_count, shown)?;
    }
    for remark in &report.remarks {
        writeln!(text, "note: {}", one_line(remark))?;
    }
    Ok(())
}

/// What is printed when only the log could be looked at.
#[derive(serde::Serialize)]
struct LogOnly<'a> {
    dry_run: bool,
    healed: &'a [Healed],
    remarks: &'a [String],
}

fn open_from(context: &Context, url: &str) -> Result<Store> {
    Store::open(url, &store_options(&context.globals))
        .map_err(|error| error.context(format!("open the replica {}", display_path(url.as_bytes()))))
        .doing(Act::Read)
}

/// Opens the replica. A copy with the same id must not share the cache: what this host has seen of one log says nothing of the other.
async fn open_donor(context: &Context, repository: &Repository, store: Store) -> Result<Repository> {
    let environment = environment(&context.globals);
    let donor = Repository::open(store.clone(), OpenOptions::default(), environment.clone()).await;
    let donor = donor.map_err(|error| error.context("repair from a replica"))?;
    if donor.id() != repository.id() {
        return Ok(donor);
    }
    let environment = everpack::repo::Environment { cache: None, ..environment };
    Repository::open(store, OpenOptions::default(), environment).await
}

fn text(context: &Context, report: &RepairReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut text, context, report);
    text
}

fn write_text(text: &mut String, context: &Context, report: &RepairReport) -> std::fmt::Result {
    let would = if report.dry_run { "would be " } else { "" };
    match (report.healed_count, report.remaining_count) {
        (0, 0) => writeln!(text, "nothing to repair")?,
        (healed, 0) => writeln!(text, "{} {would}healed, nothing remains", plural(healed, "object"))?,
        (healed, left) => writeln!(text, "{} {would}healed, {} remain", plural(healed, "object"), left)?,
    }
    if report.bytes_stored + report.bytes_fetched > 0 {
        let (stored, fetched) =
            (everpack::units::bytes(report.bytes_stored), everpack::units::bytes(report.bytes_fetched));
        writeln!(text, "  stored {stored}, {fetched} of it from the replica")?;
    }
    writeln!(text, "  took {}", everpack::units::duration(report.duration))?;
    let shown = report.healed.len().min(context.names_max());
    if shown > 0 {
        write!(text, "\n{}", healed_table(&report.healed[..shown]))?;
        write_rest(text, report.healed_count, shown)?;
    }
    let shown = report.remaining.len().min(context.names_max());
    if shown > 0 {
        write!(text, "\n{}", finding_table(context, &report.remaining[..shown]))?;
        write_rest(text, report.remaining_count, shown)?;
    }
    for remark in report.remarks.iter().filter(|remark| !context.progress.has_said(remark)) {
        writeln!(text, "note: {}", one_line(remark))?;
    }
    Ok(())
}

fn healed_table(healed: &[Healed]) -> String {
    if !stdout_is_terminal() {
        let paragraph = |one: &Healed| {
            let lines =
                [one_line(&one.object), format!("  {}", one_line(&one.what)), format!("  {}", one_line(&one.how))];
            lines.iter().map(|line| wrap(line, LINE_MOST, "    ") + "\n").collect::<String>()
        };
        return healed.iter().map(paragraph).collect();
    }
    let mut table = table(&["object", "what", "how"], &[]);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    for one in healed {
        table.add_row(vec![one_line(&one.object), one_line(&one.what), one_line(&one.how)]);
    }
    render(&table)
}
