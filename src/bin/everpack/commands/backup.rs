//! `backup`: stores a source as a new backup.

use std::ffi::OsString;
use std::fmt::Write;
use std::time::Duration;

use everpack::error::{Context as _, Result};
use everpack::ops::backup::{self, BackupOptions, BackupReport};
use everpack::source::{Skipped, display_path};
use everpack::store::StoreOptions;
use everpack::units;

use super::live::MatrixOneArgs;
use super::{Context, live};
use crate::args::{Globals, ValidateArg, parse_duration, parse_name};
use crate::errors::Exit;
use crate::metrics::{self, gauge, gauge_f64};
use crate::open::{count_source, open_source, open_to_write, store_options};
use crate::output::{one_line, plural};

const LONG_ABOUT: &str = "\
Stores a directory, a file or a prefix of a bucket as a new backup. What the repository has already is not stored again, and what the \
last backup of the same lineage knows to be unchanged is not even read. The backup is listed only after everything it needs is \
durable and was decoded back once.

For MatrixOne, back up what its BACKUP statement wrote; another path each night is fine, the series is found by the object names. \
Objects that are damaged at the source are stored as they are and named (exit code 2).

  everpack backup /nights/2026-11-21 --lineage shop --tag nightly
  everpack backup s3://mo-backup/night --source-endpoint https://minio.internal:9000
  everpack backup matrixone://dump@10.0.0.5:6001 --stage /mnt/stage --shared /mnt/mo-data/shared";

/// Store a directory or a bucket as a new backup.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The series it belongs to [default: that of the newest backup with the same objects, else host and path].
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    lineage: Option<String>,
    /// A word to keep with the backup; may be given several times.
    #[arg(long, value_name = "TAG", value_parser = parse_name)]
    tag: Vec<String>,
    /// Make the backup although some files cannot be read; they are named (exit code 3).
    #[arg(long)]
    allow_partial: bool,
    /// Read every file, whatever the last backup knows.
    #[arg(long)]
    force: bool,
    /// How MatrixOne objects are proved to be sound while they are read.
    #[arg(long, value_enum, value_name = "HOW", default_value = "walk")]
    validate: ValidateArg,
    /// End the claim of another backup of this lineage; only if you know that it is dead.
    #[arg(long)]
    takeover: bool,
    /// Call a backup on another host dead that has said nothing for so long.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    fence_after: Duration,
    /// Files read at once [default: by the number of processors].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    readers: usize,
    #[command(flatten)]
    matrixone: MatrixOneArgs,
}

/// What is backed up, and how it is reached.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// A directory, a file, s3://bucket/prefix (gs://, az://), or matrixone://user@host:port.
    pub(crate) source: OsString,
    /// Leave out names that match; from the root if it begins with `/`, else at any depth. May be given several times.
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Do not enter directories on which another file system is mounted.
    #[arg(long)]
    pub(crate) one_file_system: bool,
    /// The server of a source that lies elsewhere than the repository.
    #[arg(long, value_name = "URL")]
    pub(crate) source_endpoint: Option<String>,
    /// Its region.
    #[arg(long, value_name = "NAME")]
    pub(crate) source_region: Option<String>,
    /// Speak to it without TLS.
    #[arg(long)]
    pub(crate) source_allow_http: bool,
}

impl SourceArgs {
    /// How a bucket that is not the repository's is reached; what is not said of it is as for the repository.
    pub(crate) fn store_options(&self, globals: &Globals) -> StoreOptions {
        if self.source_endpoint.is_none() && self.source_region.is_none() && !self.source_allow_http {
            return store_options(globals);
        }
        StoreOptions {
            endpoint: self.source_endpoint.clone(),
            region: self.source_region.clone(),
            allow_http: self.source_allow_http,
            ..StoreOptions::default()
        }
    }
}

pub(crate) async fn run(context: &Context, args: BackupArgs) -> Result<Exit> {
    let options = BackupOptions {
        lineage: args.lineage,
        tags: args.tag,
        allow_partial: args.allow_partial,
        force: args.force,
        validate_decode: args.validate == ValidateArg::Decode,
        memory: context.globals.memory,
        readers: args.readers,
        takeover: args.takeover,
        fence_after: args.fence_after,
    };
    if let Some(url) = args.source.source.to_str().filter(|_| live::is_server(&args.source.source)) {
        return live::run(context, url, &args.matrixone, options, &args.source).await;
    }
    let repository = open_to_write(context).await?;
    let source = open_source(&context.globals, &args.source).await?;
    let monitor = context.progress.watch();
    if context.progress.wants_total() && source.describe().kind == "directory" {
        count_source(&context.globals, &context.progress, &args.source);
    }
    let report = backup::backup(&repository, source, &options, monitor).await?;
    context.progress.close();
    let complete = || format!("backup {} is complete, but", context.short(&report.id));
    context.output.report(&report, || text(context, &report)).context(complete)?;
    if let Some(file) = &context.globals.metrics {
        write_metrics(file, &repository.location(), &report).context(complete)?;
    }
    Ok(exit(&report))
}

/// How a backup ended.
pub(crate) fn exit(report: &BackupReport) -> Exit {
    if report.partial {
        Exit::Partial
    } else if report.problem_count > 0 {
        Exit::Findings
    } else {
        Exit::Done
    }
}

/// What is told to people.
pub(crate) fn text(context: &Context, report: &BackupReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut text, context, report);
    text
}

fn write_text(text: &mut String, context: &Context, report: &BackupReport) -> std::fmt::Result {
    let bytes = units::bytes;
    let count = units::count;
    let lineage = display_path(report.lineage.as_bytes());
    let partial = if report.partial { "PARTIAL " } else { "" };
    writeln!(text, "{partial}backup {} of lineage {lineage}", context.short(&report.id))?;
    let (files, size) = (plural(report.totals.files, "file"), bytes(report.totals.bytes));
    writeln!(text, "  {files}, {size}; new {}, stored {}", bytes(report.bytes_new), bytes(report.bytes_stored))?;
    writeln!(
        text,
        "  {} new, {} changed, {} unchanged, {} removed",
        count(report.files_new),
        count(report.files_changed),
        count(report.files_unchanged),
        count(report.files_removed),
    )?;
    write!(
        text,
        "  read {} of {}, reused {}",
        bytes(report.bytes_read),
        plural(report.files_read, "file"),
        bytes(report.bytes_reused)
    )?;
    if report.bytes_stored > 0 && report.bytes_new > 0 {
        write!(text, ", stored 1 byte for {:.2} new ones", ratio(report.bytes_new, report.bytes_stored))?;
    }
    let rate = units::rate(report.totals.bytes, report.duration);
    writeln!(text, "\n  took {}, {rate}", units::duration(report.duration))?;
    write_skipped(text, &report.skipped)?;
    let names_max = context.names_max();
    if report.problem_count > 0 {
        writeln!(text, "{}:", plural(report.problem_count, "problem"))?;
        for problem in report.problems.iter().take(names_max) {
            let what = if problem.incomplete { "" } else { " (stored as it is)" };
            writeln!(text, "  {}: {}{what}", one_line(&problem.path), one_line(&problem.message))?;
        }
        write_rest(text, report.problem_count, report.problems.len().min(names_max))?;
    }
    for warning in report.warnings.iter().filter(|warning| !context.progress.has_said(warning)) {
        writeln!(text, "warning: {}", one_line(warning))?;
    }
    Ok(())
}

/// `  and 12 more`.
pub(crate) fn write_rest(text: &mut String, count: u64, named: usize) -> std::fmt::Result {
    match count.saturating_sub(named as u64) {
        0 => Ok(()),
        rest => writeln!(text, "  and {} more (-v names more of them)", units::count(rest)),
    }
}

fn write_skipped(text: &mut String, skipped: &Skipped) -> std::fmt::Result {
    let kinds = [
        (&skipped.sockets, "socket"),
        (&skipped.fifos, "pipe"),
        (&skipped.devices, "device"),
        (&skipped.excluded, "excluded name"),
        (&skipped.repository, "repository (this one)"),
        (&skipped.temporary, "temporary file"),
        (&skipped.vanished, "vanished file"),
        (&skipped.other_file_system, "mounted file system"),
        (&skipped.directory_markers, "directory marker"),
    ];
    let left_out: Vec<String> =
        kinds.iter().filter(|(names, _)| names.count > 0).map(|(names, word)| plural(names.count, word)).collect();
    if left_out.is_empty() { Ok(()) } else { writeln!(text, "  left out: {}", left_out.join(", ")) }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(new: u64, stored: u64) -> f64 {
    new as f64 / stored as f64
}

pub(crate) fn write_metrics(file: &std::path::Path, location: &str, report: &BackupReport) -> Result<()> {
    let gauges = vec![
        gauge_f64("duration_seconds", "How long the last backup took.", report.duration.as_secs_f64()),
        gauge("files", "Files in the last backup.", report.totals.files),
        gauge("bytes", "Logical bytes of the last backup.", report.totals.bytes),
        gauge("files_new", "Files that the backup before does not have.", report.files_new),
        gauge("files_changed", "Files that the backup before has with other content.", report.files_changed),
        gauge("files_unchanged", "Files with the content of the backup before.", report.files_unchanged),
        gauge("files_removed", "Files of the backup before that are gone.", report.files_removed),
        gauge("read_bytes", "Bytes read from the source.", report.bytes_read),
        gauge("new_bytes", "Logical bytes that no earlier backup had.", report.bytes_new),
        gauge("reused_bytes", "Logical bytes that the repository had.", report.bytes_reused),
        gauge("stored_bytes", "Bytes by which the repository grew.", report.bytes_stored),
        gauge("problems", "Files that could not be read, or are damaged at the source.", report.problem_count),
        gauge("partial", "1 if files are missing.", u64::from(report.partial)),
    ];
    metrics::write(file, "backup", &[("repository", location), ("lineage", &report.lineage)], gauges)
}
