//! `restore`: files out of a backup.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use everpack::error::{Context as _, Result};
use everpack::ops::restore::{self, RestoreOptions, RestoreReport, TargetMode};
use everpack::units;

use super::Context;
use super::backup::write_rest;
use super::start::{self, How, StartArgs};
use crate::args::FramingArg;
use crate::errors::Exit;
use crate::metrics::{self, gauge, gauge_f64};
use crate::open::{find_backup, open_repository};
use crate::output::{one_line, plural};

const LONG_ABOUT: &str = "\
Writes the files of a backup into a target directory: all of them, or what the paths and patterns select. Every byte is verified, and \
a file has its name only once it is whole and durable. A damaged one is named and left out (exit code 2), a path that is not in the \
backup is named (exit code 3); everything else is restored.

The target must be new or empty, or --delta or --force is given; --delta goes on after a stop.

For MatrixOne it writes what a server starts from: --matrixone, --to-bucket, --as-backup-tree.

  everpack restore latest:shop /restore/night
  everpack restore 41b7e0 /restore/config config etc/launch.toml
  everpack restore latest:shop --matrixone /data/mo
  everpack restore latest:shop --to-bucket s3://mo/shared --hk-data ./hk_data";

/// Restore files of a backup into a directory.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct RestoreArgs {
    /// An id or its first digits, `latest`, or `latest:LINEAGE`.
    backup: String,
    /// The directory to write to; it is made if it is not there.
    #[arg(required_unless_present_any = ["matrixone", "to_bucket", "as_backup_tree"])]
    target: Option<PathBuf>,
    /// Only these files, and what is below these directories.
    path: Vec<OsString>,
    /// Only files that match, by name or by whole path; `*` also crosses `/`. May be given several times.
    #[arg(long, value_name = "GLOB")]
    glob: Vec<String>,
    /// Put on or take off the checksum framing of MatrixOne's DISK backend [default: as-stored; with --as-backup-tree: raw].
    #[arg(long, value_enum)]
    framing: Option<FramingArg>,
    /// The target holds an earlier state: compare, and write what differs.
    #[arg(long, conflicts_with = "force")]
    delta: bool,
    /// The target may hold anything; what is in the way is replaced.
    #[arg(long)]
    force: bool,
    /// With --delta or --force: remove what the backup does not have.
    #[arg(long)]
    delete: bool,
    /// Do not read files back to verify them as a whole; every chunk is verified all the same.
    #[arg(long)]
    fast: bool,
    #[command(flatten)]
    start: StartArgs,
}

pub(crate) async fn run(context: &Context, args: RestoreArgs) -> Result<Exit> {
    let mode = match (args.delta, args.force) {
        (true, _) => TargetMode::Delta,
        (_, true) => TargetMode::Force,
        _ => TargetMode::New,
    };
    if args.delete && mode == TargetMode::New {
        let message = "restore with --delete: it removes what the backup does not have, so it needs --delta or --force";
        return Err(everpack::error::Error::invalid(message));
    }
    let repository = open_repository(&context.globals).await?;
    let backup = find_backup(&repository, &args.backup)?;
    let Some(target) = args.target.filter(|_| !args.start.is_asked_for()) else {
        let how = How { mode, delete: args.delete, fast: args.fast, framing: args.framing };
        return start::run(context, &repository, &backup, args.start, how).await;
    };
    let options = RestoreOptions {
        paths: args.path.into_iter().map(OsString::into_vec).collect(),
        globs: args.glob,
        framing: args.framing.unwrap_or_default().into(),
        mode,
        delete_extra: args.delete,
        fast: args.fast,
        memory: context.globals.memory,
    };
    let monitor = context.progress.watch();
    let report = restore::restore(&repository, &backup, &target, &options, monitor).await?;
    context.progress.close();
    let done = || "the restore is done, but";
    context.output.report(&report, || text(context, &report, options.fast)).context(done)?;
    if let Some(file) = &context.globals.metrics {
        write_metrics(file, &repository.location(), &report).context(done)?;
    }
    Ok(match (report.damaged_count, report.not_found.len()) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::Partial,
        _ => Exit::Findings,
    })
}

fn text(context: &Context, report: &RestoreReport, fast: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut text, context, report, fast);
    text
}

fn write_text(text: &mut String, context: &Context, report: &RestoreReport, fast: bool) -> std::fmt::Result {
    let bytes = report.bytes_written + report.bytes_kept;
    let verified = match (report.files, fast) {
        (0, _) => "",
        (_, true) => "; every chunk verified",
        (_, false) => "; every byte verified",
    };
    writeln!(text, "restored {}, {}{verified}", plural(report.files, "file"), units::bytes(bytes))?;
    write!(text, "  {}, {}", plural(report.directories, "directory"), plural(report.symlinks, "link"))?;
    write!(text, "; wrote {}", units::bytes(report.bytes_written))?;
    if report.bytes_kept > 0 {
        write!(text, ", kept {}", units::bytes(report.bytes_kept))?;
    }
    writeln!(text, ", read {} from the repository", units::bytes(report.bytes_read))?;
    writeln!(text, "  took {}, {}", units::duration(report.duration), units::rate(bytes, report.duration))?;
    if report.damaged_count > 0 {
        let names_max = context.names_max();
        let files = report.damaged_count - report.entries_lost;
        let entries = format!("{} of the list of files", plural(report.entries_lost, "entry"));
        let what = match (files, report.entries_lost) {
            (files, 0) => plural(files, "file"),
            (0, _) => entries,
            (files, _) => format!("{} and {entries}", plural(files, "file")),
        };
        writeln!(text, "NOT restored, because damaged: {what}")?;
        for file in report.damaged.iter().take(names_max) {
            writeln!(text, "  {}: {}", one_line(&file.path), one_line(&file.message))?;
        }
        write_rest(text, files + report.parts_lost, report.damaged.len().min(names_max))?;
    }
    for remark in report.remarks.iter().filter(|remark| !context.progress.has_said(remark)) {
        writeln!(text, "note: {}", one_line(remark))?;
    }
    Ok(())
}

fn write_metrics(file: &std::path::Path, location: &str, report: &RestoreReport) -> Result<()> {
    let gauges = vec![
        gauge_f64("duration_seconds", "How long the last restore took.", report.duration.as_secs_f64()),
        gauge("files", "Files restored.", report.files),
        gauge("written_bytes", "Bytes written.", report.bytes_written),
        gauge("kept_bytes", "Bytes that were there already.", report.bytes_kept),
        gauge("read_bytes", "Bytes read from the repository.", report.bytes_read),
        gauge("damaged_files", "Files that could not be restored.", report.damaged_count),
    ];
    metrics::write(file, "restore", &[("repository", location)], gauges)
}
