//! `restore` for MatrixOne: what a server starts from, and `BACKUP` trees.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use everpack::error::{Error, Result};
use everpack::matrixone::config::{ServiceKind, told};
use everpack::matrixone::release::Release;
use everpack::ops::restore::{DamagedFile, TargetMode};
use everpack::ops::start::{
    self, BucketReport, CheckpointChange, ExportOptions, ExportReport, StartOptions, StartReport,
};
use everpack::repo::{BackupInfo, Repository};
use everpack::store::Store;
use everpack::units;

use super::Context;
use super::backup::write_rest;
use crate::args::FramingArg;
use crate::errors::Exit;
use crate::open::store_options;
use crate::output::{one_line, plural};

/// What is restored other than files as they were.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "MatrixOne options")]
pub(crate) struct StartArgs {
    /// Write a data directory; DIR is the working directory of the server, which holds `mo-data`.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["target", "path", "glob", "force", "framing", "to_bucket", "as_backup_tree"])]
    matrixone: Option<PathBuf>,
    /// Write SHARED into the bucket prefix that the toml files name.
    #[arg(long, value_name = "URL", conflicts_with_all = ["target", "path", "glob", "force", "framing", "as_backup_tree"], requires = "hk_data")]
    to_bucket: Option<String>,
    /// With --to-bucket: write the ids to this file; it goes into LOCAL of the log service as `hk_data`.
    #[arg(long, value_name = "FILE", requires = "to_bucket")]
    hk_data: Option<PathBuf>,
    /// Write a BACKUP tree, whole by itself, that mo_br and MatrixOne's tools read.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["target", "path", "glob", "force", "delete"])]
    as_backup_tree: Option<PathBuf>,
    /// The server's launch.toml, a directory of toml files, or one service's file; may be given several times
    /// [default: those in the backup's config/].
    #[arg(long, value_name = "PATH")]
    mo_config: Vec<PathBuf>,
    /// Which tree, by its folder, if the backup holds several.
    #[arg(long, value_name = "FOLDER")]
    tree: Option<OsString>,
    /// Write checkpoint files as they are, log positions included; release 4.2 then panics at a later start.
    #[arg(long)]
    verbatim: bool,
    /// Leave out a global checkpoint whose objects BACKUP did not copy, and the list that names it.
    #[arg(long)]
    cure: bool,
    /// Allow places outside DIR, as the toml files name them.
    #[arg(long, requires = "matrixone")]
    outside: bool,
    /// The release of the server that is to start, to be warned if it does not read the backup.
    #[arg(long, value_name = "RELEASE", value_parser = parse_release)]
    target_release: Option<Release>,
}

/// What the other options say.
pub(crate) struct How {
    pub(crate) mode: TargetMode,
    pub(crate) delete: bool,
    pub(crate) fast: bool,
    pub(crate) framing: Option<FramingArg>,
}

impl StartArgs {
    pub(crate) fn is_asked_for(&self) -> bool {
        self.matrixone.is_some() || self.to_bucket.is_some() || self.as_backup_tree.is_some()
    }

    fn options(&self, context: &Context, how: &How) -> StartOptions {
        StartOptions {
            config: self.mo_config.clone(),
            tree: self.tree.clone().map(OsString::into_vec),
            verbatim: self.verbatim,
            cure: self.cure,
            outside: self.outside,
            target_release: self.target_release,
            mode: how.mode,
            delete_extra: how.delete,
            fast: how.fast,
            memory: context.globals.memory,
        }
    }
}

pub(crate) fn parse_release(text: &str) -> Result<Release, String> {
    Release::parse(text).ok_or_else(|| "expected a release such as v4.2.0".to_owned())
}

pub(crate) async fn run(
    context: &Context,
    repository: &Repository,
    backup: &BackupInfo,
    args: StartArgs,
    how: How,
) -> Result<Exit> {
    let options = args.options(context, &how);
    let monitor = context.progress.watch();
    let damaged = if let Some(directory) = &args.matrixone {
        let report = start::start(repository, backup, directory, &options, monitor).await?;
        context.progress.close();
        context.output.report(&report, || said(|text| write_start(text, context, &report)))?;
        report.damaged_count > 0
    } else if let (Some(url), Some(file)) = (&args.to_bucket, &args.hk_data) {
        let store = Store::open(url, &store_options(&context.globals))?;
        let report = start::to_bucket(repository, backup, &store, file, &options, monitor).await?;
        context.progress.close();
        context.output.report(&report, || said(|text| write_bucket(text, context, &report)))?;
        report.damaged_count > 0
    } else if let Some(directory) = &args.as_backup_tree {
        let framed = match how.framing {
            None | Some(FramingArg::Raw) => false,
            Some(FramingArg::DiskCrc) => true,
            Some(FramingArg::AsStored) => {
                return Err(Error::invalid("--as-backup-tree is written raw or, with --framing disk-crc, framed"));
            }
        };
        let StartOptions { tree, mode, fast, memory, .. } = options;
        let options = ExportOptions { tree, framed, mode, fast, memory };
        let report = start::export(repository, backup, directory, &options, monitor).await?;
        context.progress.close();
        context.output.report(&report, || said(|text| write_export(text, context, &report)))?;
        report.damaged_count > 0 || report.rows_missing > 0
    } else {
        return Err(Error::invalid("restore: no target is named"));
    };
    Ok(if damaged { Exit::Findings } else { Exit::Done })
}

fn said(write: impl FnOnce(&mut String) -> std::fmt::Result) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text);
    text
}

fn framing(framed: bool) -> &'static str {
    if framed { "framed (DISK)" } else { "raw" }
}

pub(crate) fn write_start(text: &mut String, context: &Context, report: &StartReport) -> std::fmt::Result {
    let bytes = report.bytes_written + report.bytes_kept;
    writeln!(text, "restored {} for a server in {}", context.short(&report.id), one_line(&report.directory))?;
    write_moment(text, report.backup_ts, report.release.as_deref(), report.kind.as_deref())?;
    writeln!(
        text,
        "  {}, {}; took {}",
        plural(report.files, "file"),
        units::bytes(bytes),
        units::duration(report.duration)
    )?;
    for place in &report.places {
        let (path, files) = (one_line(&place.path), plural(place.files, "file"));
        writeln!(text, "  {:8}{path}, {}, {files}", place.what, framing(place.framed))?;
    }
    for service in &report.services {
        let (kind, file) = (service.service.to_string(), one_line(&service.file));
        let local = one_line(&told(&service.local));
        match service.service {
            ServiceKind::Tn | ServiceKind::Cn => {
                writeln!(text, "  {kind:8}{file}: SHARED {}, LOCAL {local}", one_line(&told(&service.shared)))?;
            }
            _ => writeln!(text, "  {kind:8}{file}: LOCAL {local}")?,
        }
    }
    write_changes(text, context, &report.zeroed, &report.left_out)?;
    write_damage(text, context, &report.damaged, report.damaged_count)?;
    write_remarks(text, context, &report.remarks)?;
    if report.damaged_count == 0 {
        writeln!(text, "start it:")?;
        for command in &report.commands {
            writeln!(text, "  {command}")?;
        }
        writeln!(text, "`RESTORED` beside hk_data then says that the server took the ids over.")?;
    }
    Ok(())
}

fn write_bucket(text: &mut String, context: &Context, report: &BucketReport) -> std::fmt::Result {
    writeln!(text, "restored {} to {}", context.short(&report.id), one_line(&report.bucket))?;
    write_moment(text, report.backup_ts, report.release.as_deref(), None)?;
    let (files, bytes) = (plural(report.files, "object"), units::bytes(report.bytes_written + report.bytes_kept));
    writeln!(text, "  {files}, {bytes}; took {}", units::duration(report.duration))?;
    writeln!(text, "  hk_data {}, {}", one_line(&report.hk_data), framing(report.hk_data_framed))?;
    write_changes(text, context, &report.zeroed, &report.left_out)?;
    write_damage(text, context, &report.damaged, report.damaged_count)?;
    write_remarks(text, context, &report.remarks)
}

fn write_export(text: &mut String, context: &Context, report: &ExportReport) -> std::fmt::Result {
    let (id, directory) = (context.short(&report.id), one_line(&report.directory));
    writeln!(text, "restored {id} as a BACKUP tree into {directory}, {}", framing(report.framed))?;
    let (files, bytes) = (plural(report.files, "file"), units::bytes(report.bytes_written + report.bytes_kept));
    writeln!(text, "  {files}, {bytes}; took {}", units::duration(report.duration))?;
    if report.rows_made_own > 0 {
        writeln!(text, "  {} of earlier trees are in it now", plural(report.rows_made_own, "file"))?;
    }
    if report.rows_missing > 0 {
        writeln!(
            text,
            "NOT whole by itself: {} of its list are not in the backup",
            plural(report.rows_missing, "file")
        )?;
        let names_max = context.names_max();
        for name in report.missing.iter().take(names_max) {
            writeln!(text, "  {}", one_line(name))?;
        }
        write_rest(text, report.rows_missing, report.missing.len().min(names_max))?;
    }
    write_damage(text, context, &report.damaged, report.damaged_count)?;
    write_remarks(text, context, &report.remarks)
}

fn write_moment(
    text: &mut String,
    ts: Option<everpack::tae::Ts>,
    release: Option<&str>,
    kind: Option<&str>,
) -> std::fmt::Result {
    let ts = ts.map(|ts| format!("as of {ts}"));
    let release = release.map(|release| format!("written by {}", one_line(release)));
    let parts: Vec<String> = ts.into_iter().chain(release).chain(kind.map(one_line)).collect();
    if parts.is_empty() { Ok(()) } else { writeln!(text, "  {}", parts.join(", ")) }
}

fn write_changes(
    text: &mut String,
    context: &Context,
    zeroed: &[CheckpointChange],
    left_out: &[String],
) -> std::fmt::Result {
    for file in left_out {
        writeln!(text, "LEFT OUT {}", one_line(file))?;
    }
    if context.globals.verbose {
        for change in zeroed {
            writeln!(text, "  log positions zeroed in {}", one_line(&change.file))?;
        }
    }
    Ok(())
}

fn write_damage(text: &mut String, context: &Context, damaged: &[DamagedFile], count: u64) -> std::fmt::Result {
    if count == 0 {
        return Ok(());
    }
    writeln!(text, "NOT restored, because damaged: {}", plural(count, "file"))?;
    let names_max = context.names_max();
    for file in damaged.iter().take(names_max) {
        writeln!(text, "  {}: {}", one_line(&file.path), one_line(&file.message))?;
    }
    write_rest(text, count, damaged.len().min(names_max))
}

fn write_remarks(text: &mut String, context: &Context, remarks: &[String]) -> std::fmt::Result {
    for remark in remarks.iter().filter(|remark| !context.progress.has_said(remark)) {
        writeln!(text, "note: {}", one_line(remark))?;
    }
    Ok(())
}
