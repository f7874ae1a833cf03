//! `import`: trees that a server's BACKUP wrote, each as a complete backup.

use std::ffi::OsString;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use everpack::error::{Context as _, Result};
use everpack::ops::backup::BackupOptions;
use everpack::ops::import::{self, ImportOptions, ImportReport, TreePlace};
use everpack::source::{BucketOptions, BucketSource, Source, StoreBucket, display_path};
use everpack::store::{Store, StoreOptions};
use everpack::units;

use super::Context;
use super::backup::write_rest;
use crate::args::{parse_duration, parse_name};
use crate::errors::Exit;
use crate::metrics::{self, gauge, gauge_f64};
use crate::open::{open_to_write, store_options};
use crate::output::{one_line, plural};

const LONG_ABOUT: &str = "\
Brings trees that MatrixOne's BACKUP or mo_br wrote into the repository: a full one and the incremental ones that build on it, framed \
or raw, in any order. Each becomes a backup that is complete by itself, so any of them may be forgotten later without touching another.

Every file is compared with the digests in the tree first, and nothing is stored if a tree lacks something that neither another tree \
nor a backup in the repository has. Trees whose checkpoints miss objects are stored and named (exit code 2).

  everpack import /nights/full-1 /nights/incr-2 /nights/incr-3 --lineage shop
  everpack import s3://mo-backup/night --source-endpoint https://minio.internal:9000";

/// Store trees of MatrixOne's BACKUP, full and incremental, each as a complete backup.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct ImportArgs {
    /// Directories that hold `tae/` and `mo_meta`, or s3://bucket/prefix (gs://, az://).
    #[arg(required = true, value_name = "TREE")]
    trees: Vec<OsString>,
    /// The series they belong to [default: that of the newest backup with the same objects, else host and path of the first].
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    lineage: Option<String>,
    /// A word to keep with each backup; may be given several times.
    #[arg(long, value_name = "TAG", value_parser = parse_name)]
    tag: Vec<String>,
    /// Store only the newest tree; the others supply what it needs of them.
    #[arg(long)]
    only_newest: bool,
    /// Do not compare files with the digests in their tree before they are stored.
    #[arg(long)]
    skip_digests: bool,
    /// End the claim of another backup of this lineage; only if you know that it is dead.
    #[arg(long)]
    takeover: bool,
    /// Call a backup on another host dead that has said nothing for so long.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    fence_after: Duration,
    /// The server of trees that lie elsewhere than the repository.
    #[arg(long, value_name = "URL")]
    source_endpoint: Option<String>,
    /// Its region.
    #[arg(long, value_name = "NAME")]
    source_region: Option<String>,
    /// Speak to it without TLS.
    #[arg(long)]
    source_allow_http: bool,
}

pub(crate) async fn run(context: &Context, args: ImportArgs) -> Result<Exit> {
    let repository = open_to_write(context).await?;
    let places = args.trees.iter().map(|tree| place(context, &args, tree)).collect::<Result<Vec<_>>>()?;
    let backup = BackupOptions {
        lineage: args.lineage,
        tags: args.tag,
        memory: context.globals.memory,
        takeover: args.takeover,
        fence_after: args.fence_after,
        ..BackupOptions::default()
    };
    let options = ImportOptions { backup, skip_digests: args.skip_digests, only_newest: args.only_newest };
    let report = import::import(&repository, places, &options, context.progress.watch()).await?;
    context.progress.close();
    let complete = || "the import is complete, but";
    context.output.report(&report, || text(context, &report)).context(complete)?;
    if let Some(file) = &context.globals.metrics {
        write_metrics(file, &repository.location(), &report).context(complete)?;
    }
    let problems = report.trees.iter().any(|tree| tree.backup.problem_count > 0);
    Ok(if problems { Exit::Findings } else { Exit::Done })
}

fn place(context: &Context, args: &ImportArgs, tree: &OsString) -> Result<TreePlace> {
    let location = tree.to_string_lossy();
    if !["s3://", "gs://", "az://"].iter().any(|scheme| location.starts_with(scheme)) {
        return Ok(TreePlace::directory(
            location.strip_prefix("file://").map_or_else(|| tree.into(), std::path::PathBuf::from),
        ));
    }
    let own = args.source_endpoint.is_some() || args.source_region.is_some() || args.source_allow_http;
    let options = if own {
        StoreOptions {
            endpoint: args.source_endpoint.clone(),
            region: args.source_region.clone(),
            allow_http: args.source_allow_http,
            ..StoreOptions::default()
        }
    } else {
        store_options(&context.globals)
    };
    let access = Arc::new(StoreBucket::new(Store::open(&location, &options)?.readonly()));
    let handle = tokio::runtime::Handle::current();
    let list = move || {
        let access = Arc::clone(&access);
        Ok(Box::new(BucketSource::new(access, handle.clone(), BucketOptions::default())?) as Box<dyn Source>)
    };
    Ok(TreePlace::new(location.into_owned(), list))
}

fn text(context: &Context, report: &ImportReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut text, context, report);
    text
}

fn write_text(text: &mut String, context: &Context, report: &ImportReport) -> std::fmt::Result {
    for tree in &report.trees {
        let backup = &tree.backup;
        let (id, lineage) = (context.short(&backup.id), display_path(backup.lineage.as_bytes()));
        writeln!(text, "backup {id} of lineage {lineage}: {}", tree.tree)?;
        let ts = tree.backup_ts.map_or_else(|| "unknown".to_owned(), |ts| ts.to_string());
        let release = tree.release.as_deref().unwrap_or("an unknown release");
        writeln!(text, "  {} of {release}, timestamp {ts}", one_line(&tree.kind))?;
        let (files, size) = (plural(backup.totals.files, "file"), units::bytes(backup.totals.bytes));
        write!(
            text,
            "  {files}, {size}; new {}, stored {}",
            units::bytes(backup.bytes_new),
            units::bytes(backup.bytes_stored)
        )?;
        match (tree.from_trees, tree.from_repository) {
            (0, 0) => writeln!(text)?,
            (trees, repository) => writeln!(
                text,
                "; {} from earlier trees, {} from the repository",
                units::count(trees),
                units::count(repository)
            )?,
        }
        if backup.problem_count > 0 {
            writeln!(text, "  {}:", plural(backup.problem_count, "problem"))?;
            let names_max = context.names_max();
            for problem in backup.problems.iter().take(names_max) {
                writeln!(text, "    {}: {}", one_line(&problem.path), one_line(&problem.message))?;
            }
            write_rest(text, backup.problem_count, backup.problems.len().min(names_max))?;
        }
        for warning in backup.warnings.iter().filter(|warning| !context.progress.has_said(warning)) {
            writeln!(text, "  warning: {}", one_line(warning))?;
        }
    }
    writeln!(text, "imported {}, took {}", plural(report.trees.len() as u64, "tree"), units::duration(report.duration))
}

fn write_metrics(file: &std::path::Path, location: &str, report: &ImportReport) -> Result<()> {
    let sum = |of: fn(&import::ImportedTree) -> u64| report.trees.iter().map(of).sum::<u64>();
    let gauges = vec![
        gauge_f64("duration_seconds", "How long the last import took.", report.duration.as_secs_f64()),
        gauge("trees", "Trees imported.", report.trees.len() as u64),
        gauge("stored_bytes", "Bytes by which the repository grew.", sum(|tree| tree.backup.bytes_stored)),
        gauge("problems", "Files that are damaged or missing at their source.", sum(|tree| tree.backup.problem_count)),
    ];
    metrics::write(file, "import", &[("repository", location)], gauges)
}
