//! `replicate`: chosen backups into another repository, or out of one; `--prove` compares the two.

use std::fmt::Write;

use everpack::clock::{Clock, SystemClock, Timestamp};
use everpack::error::{Context as _, Error, ErrorKind, Result};
use everpack::ops::replicate::{
    self, ProveReport, ReplicateOptions, ReplicateReport, Selection, Sent, SetProof, Side, Why,
};
use everpack::repo::Repository;
use everpack::store::{Store, StoreOptions};
use everpack::units;

use super::Context;
use crate::args::{parse_duration, parse_name, parse_size};
use crate::errors::Exit;
use crate::metrics::{self, gauge, gauge_f64};
use crate::open::{
    create_store, environment, find_backup, open_repository, open_store, store_options, warn_of_single_writer,
};
use crate::output::{one_line, plural};

const LONG_ABOUT: &str = "\
Brings another repository to hold the chosen backups (all by default): packs travel unchanged, verified in passing, and what arrived is \
never sent twice. An empty target becomes a member of the family, with an id, a log and a retention of its own. What it forgot is not \
sent again. May run beside backups, restores and prunes on both sides.

  everpack replicate s3://offsite/shop --endpoint https://s3.example.org    push
  everpack -r /replica replicate --from /backup/everpack --last 7           pull the newest week
  everpack replicate /mnt/usb/shop --prove                                  do both hold the same?";

/// Send backups to another repository.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
#[command(
    override_usage = "everpack replicate [OPTIONS] <TARGET> [BACKUP]...\n       everpack replicate [OPTIONS] --from <URL> [BACKUP]..."
)]
pub(crate) struct ReplicateArgs {
    /// The target (unless --from is given), then the backups: ids or their first digits, `latest`, `latest:LINEAGE`.
    #[arg(value_name = "TARGET] [BACKUP")]
    names: Vec<String>,
    /// Pull: the other repository is the origin, --repo the target.
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Only backups of this lineage; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    lineage: Vec<String>,
    /// Only backups with this tag; may be given several times.
    #[arg(long, value_name = "TAG", value_parser = parse_name)]
    tag: Vec<String>,
    /// Only backups begun since then: 2026-11-01, or 30d for thirty days ago.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Since>,
    /// Only the newest N of each lineage.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
    /// Also send what the target once had and forgot.
    #[arg(long)]
    again: bool,
    /// Go on although the origin's log is not the one that the target was filled from.
    #[arg(long)]
    accept_rollback: bool,
    /// Copy at most so many bytes a second, such as 50M.
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    limit_rate: Option<u64>,
    /// Packs on their way at once, as far as --memory allows.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    transfers: u16,
    /// Copy only this share of the packs, such as 1/4; whichever of the shards finds a backup complete commits it.
    #[arg(long, value_name = "I/N", value_parser = super::check::parse_part)]
    shard: Option<(u32, u32)>,
    /// Only tell what would be sent.
    #[arg(long, conflicts_with = "prove")]
    dry_run: bool,
    /// Copy nothing: compare both sides.
    #[arg(long)]
    prove: bool,
    /// Make an empty target even if its store cannot refuse a second create: one writer at a time, by your word.
    #[arg(long)]
    single_writer: bool,
    #[command(flatten)]
    other: OtherArgs,
}

/// How the bucket of the other repository is reached.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options for the other repository, where it differs from --repo")]
struct OtherArgs {
    /// The server of its bucket. Its keys: EVERPACK_OTHER_ACCESS_KEY_ID and EVERPACK_OTHER_SECRET_ACCESS_KEY.
    #[arg(long, value_name = "URL", env = "EVERPACK_OTHER_S3_ENDPOINT", hide_env_values = true)]
    other_endpoint: Option<String>,
    /// The region of its bucket.
    #[arg(long, value_name = "NAME", env = "EVERPACK_OTHER_S3_REGION", hide_env_values = true)]
    other_region: Option<String>,
    /// Speak to its server without TLS.
    #[arg(long, env = "EVERPACK_OTHER_S3_ALLOW_HTTP", hide_env_values = true)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    other_allow_http: bool,
    /// Put its bucket's name into the host name.
    #[arg(long, env = "EVERPACK_OTHER_S3_VIRTUAL_HOST", hide_env_values = true)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    other_virtual_host: bool,
}

impl OtherArgs {
    /// What is said of the other repository; if nothing is, as for --repo. Its keys may differ either way.
    fn options(&self, context: &Context) -> StoreOptions {
        let own = self.other_endpoint.is_some()
            || self.other_region.is_some()
            || self.other_allow_http
            || self.other_virtual_host;
        let mut options = if own {
            StoreOptions {
                endpoint: self.other_endpoint.clone(),
                region: self.other_region.clone(),
                allow_http: self.other_allow_http,
                virtual_host: self.other_virtual_host,
                ..StoreOptions::default()
            }
        } else {
            store_options(&context.globals)
        };
        let secret = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        options.access_key = secret("EVERPACK_OTHER_ACCESS_KEY_ID");
        options.secret_key = secret("EVERPACK_OTHER_SECRET_ACCESS_KEY");
        options.session_token = secret("EVERPACK_OTHER_SESSION_TOKEN");
        options
    }
}

/// A point in time, or how long ago.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Since {
    Time(Timestamp),
    Ago(std::time::Duration),
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(Since::Ago(ago));
    }
    let time = Timestamp::parse(text).map(Since::Time);
    time.ok_or_else(|| "expected a date such as 2026-11-01, or 30d for thirty days ago".to_owned())
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let size = text.trim().strip_suffix("/s").unwrap_or(text);
    parse_size(size).ok().filter(|rate| *rate > 0).ok_or_else(|| "expected bytes a second such as 50M".to_owned())
}

/// The two repositories.
struct Pair {
    origin: Repository,
    target: Repository,
    /// The target was made for this run.
    made: bool,
}

pub(crate) async fn run(context: &Context, args: ReplicateArgs) -> Result<Exit> {
    let mut names = args.names.iter();
    let pushed_to = match &args.from {
        Some(_) => None,
        None => Some(
            names
                .next()
                .ok_or_else(|| Error::invalid("replicate: where to? Name the target, or the origin by --from"))?,
        ),
    };
    let may_make = !args.prove;
    let pair = match (&args.from, pushed_to) {
        (None, Some(target)) => push(context, &args, target, may_make).await?,
        (from, _) => pull(context, &args, from.as_deref().unwrap_or_default(), may_make).await?,
    };
    warn_of_single_writer(context, &pair.target);
    let selection = Selection {
        backups: names.map(|spec| Ok(find_backup(&pair.origin, spec)?.id)).collect::<Result<_>>()?,
        lineages: args.lineage.clone(),
        tags: args.tag.clone(),
        since: args.since.map(|since| match since {
            Since::Time(time) => time,
            Since::Ago(ago) => SystemClock.now().before(ago),
        }),
        last: args.last.map(|last| last as usize),
    };
    if args.prove {
        return run_prove(context, &pair, &selection).await;
    }
    let options = ReplicateOptions {
        selection,
        again: args.again,
        accept_rollback: args.accept_rollback,
        limit_rate: args.limit_rate,
        transfers: usize::from(args.transfers),
        shard: args.shard,
        dry_run: args.dry_run,
        memory: context.globals.memory,
    };
    let monitor = context.progress.watch();
    let report = replicate::replicate(&pair.origin, &pair.target, &options, monitor).await?;
    context.progress.close();
    context.output.report(&report, || text(context, &report, pair.made))?;
    if let Some(file) = &context.globals.metrics {
        write_metrics(file, &report).context(|| "the replication is done, but")?;
    }
    Ok(if report.finding_count > 0 { Exit::Findings } else { Exit::Done })
}

/// `-r` is the origin.
async fn push(context: &Context, args: &ReplicateArgs, target: &str, may_make: bool) -> Result<Pair> {
    let origin = open_repository(&context.globals).await?;
    let options = args.other.options(context);
    let open = || Store::open(target, &options);
    let make = || Store::create_root(target, &options);
    let (target, made) = open_or_make(context, args, &origin, may_make, open, make).await?;
    Ok(Pair { origin, target, made })
}

/// `-r` is the target.
async fn pull(context: &Context, args: &ReplicateArgs, from: &str, may_make: bool) -> Result<Pair> {
    let store = Store::open(from, &args.other.options(context)).context(|| format!("open the origin {from}"))?;
    let origin = Repository::open(store, everpack::repo::OpenOptions::default(), environment(&context.globals)).await?;
    let open = || open_store(&context.globals);
    let make = || create_store(&context.globals);
    let (target, made) = open_or_make(context, args, &origin, may_make, open, make).await?;
    Ok(Pair { origin, target, made })
}

/// The target, made as a member of the origin's family if there is none. A dry run compares with an empty one in memory.
async fn open_or_make(
    context: &Context,
    args: &ReplicateArgs,
    origin: &Repository,
    may_make: bool,
    open: impl FnOnce() -> Result<Store>,
    make: impl FnOnce() -> Result<Store>,
) -> Result<(Repository, bool)> {
    let opened = async {
        Repository::open(open()?, everpack::repo::OpenOptions::default(), environment(&context.globals)).await
    };
    let missing = match opened.await {
        Err(error) if error.kind() == ErrorKind::NotFound && may_make => error,
        opened => return Ok((opened?, false)),
    };
    let store = if args.dry_run { Store::open("memory:", &StoreOptions::default())? } else { make()? };
    let made = Repository::create_member(store, origin, args.single_writer, environment(&context.globals)).await;
    Ok((made.context(|| format!("{missing}; make the replica"))?, true))
}

fn text(context: &Context, report: &ReplicateReport, made: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut text, context, report, made);
    text
}

fn write_text(text: &mut String, context: &Context, report: &ReplicateReport, made: bool) -> std::fmt::Result {
    let sent = plural(report.sent.len() as u64, "backup");
    match (report.dry_run, made) {
        (true, true) => writeln!(text, "would make a replica there and send {sent}")?,
        (true, false) => writeln!(text, "would send {sent} to {}", report.target_location)?,
        (false, _) => writeln!(text, "sent {sent} to {}", report.target_location)?,
    }
    if made && !report.dry_run {
        writeln!(text, "  made repository {} there, a replica", context.short(&report.target))?;
    }
    if report.present > 0 {
        writeln!(text, "  there already: {}", plural(report.present, "backup"))?;
    }
    if report.dry_run {
        writeln!(text, "  {}, {}", plural(report.packs, "pack"), units::bytes(report.bytes))?;
    } else {
        let chunks = plural(report.chunks, "chunk");
        writeln!(text, "  copied {}, {}, {chunks}", plural(report.packs, "pack"), units::bytes(report.bytes))?;
        writeln!(text, "  took {}, {}", units::duration(report.duration), units::rate(report.bytes, report.duration))?;
    }
    for (why, what) in [
        (Why::Forgotten, "forgotten at the target; --again sends what it forgot"),
        (Why::Waiting, "not complete yet: packs of other shards are still to come"),
        (Why::Gone, "forgotten at the origin meanwhile"),
        (Why::Damaged, "NOT sent, because damaged at the origin"),
    ] {
        let skipped: Vec<_> = report.skipped.iter().filter(|skipped| skipped.why == why).collect();
        if !skipped.is_empty() {
            writeln!(text, "  {}: {what}", plural(skipped.len() as u64, "backup"))?;
        }
    }
    for finding in report.findings.iter().take(context.names_max()) {
        writeln!(text, "finding: {}: {}; {}", one_line(&finding.object), one_line(&finding.what), finding.heal)?;
    }
    super::backup::write_rest(text, report.finding_count, report.findings.len().min(context.names_max()))?;
    for remark in report.remarks.iter().filter(|remark| !context.progress.has_said(remark)) {
        writeln!(text, "note: {}", one_line(remark))?;
    }
    Ok(())
}

async fn run_prove(context: &Context, pair: &Pair, selection: &Selection) -> Result<Exit> {
    let monitor = context.progress.watch();
    let report = replicate::prove(&pair.origin, &pair.target, selection, monitor).await?;
    context.progress.close();
    context.output.report(&report, || proof_text(context, &report))?;
    Ok(if report.equal { Exit::Done } else { Exit::Findings })
}

fn proof_text(context: &Context, report: &ProveReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_proof(&mut text, context, report);
    text
}

fn write_proof(text: &mut String, context: &Context, report: &ProveReport) -> std::fmt::Result {
    let verdict = if report.equal { "equal" } else { "NOT equal" };
    writeln!(text, "{verdict}: {} and {}", report.origin_location, report.target_location)?;
    let line = |text: &mut String, name: &str, proof: &SetProof, differs: &str| {
        let root = context.short(&proof.origin_root);
        if proof.equal {
            return writeln!(text, "  {name:8} {} on both sides, root {root}", units::count(proof.origin_count));
        }
        let (ours, theirs) = (units::count(proof.origin_count), units::count(proof.target_count));
        let there = context.short(&proof.target_root);
        writeln!(text, "  {name:8} {ours} here, {theirs} there, roots {root} and {there}{differs}")
    };
    line(text, "backups", &report.backups, ": they differ")?;
    line(text, "chunks", &report.chunks, ": they differ")?;
    line(text, "packs", &report.packs, " (each side prunes by itself)")?;
    if report.forgotten > 0 {
        writeln!(text, "  {} that the target forgot: not compared", plural(report.forgotten, "backup"))?;
    }
    for (sent, side) in [(&report.only_origin, "the origin"), (&report.only_target, "the target")] {
        for Sent { id, lineage } in sent.iter().take(context.names_max()) {
            writeln!(text, "only at {side}: {} of {}", context.short(id), one_line(lineage))?;
        }
        super::backup::write_rest(text, sent.len() as u64, sent.len().min(context.names_max()))?;
    }
    for missing in report.missing.iter().take(context.names_max()) {
        let side = match missing.side {
            Side::Origin => "the origin",
            Side::Target => "the target",
        };
        writeln!(text, "missing at {side}: {} of backup {}", one_line(&missing.what), context.short(&missing.backup))?;
    }
    super::backup::write_rest(text, report.missing_count, report.missing.len().min(context.names_max()))
}

fn write_metrics(file: &std::path::Path, report: &ReplicateReport) -> Result<()> {
    let gauges = vec![
        gauge_f64("duration_seconds", "How long the last replication took.", report.duration.as_secs_f64()),
        gauge("sent_backups", "Backups sent.", report.sent.len() as u64),
        gauge("copied_packs", "Packs copied.", report.packs),
        gauge("copied_bytes", "Bytes of them.", report.bytes),
        gauge("findings", "What was found damaged.", report.finding_count),
        gauge("complete", "1 if the target holds every chosen backup.", u64::from(report.complete)),
    ];
    let labels = [("origin", report.origin_location.as_str()), ("target", report.target_location.as_str())];
    metrics::write(file, "replicate", &labels, gauges)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_and_rates_are_read_and_nonsense_is_refused() {
        assert_eq!(parse_since("30d"), Ok(Since::Ago(Duration::from_secs(30 * 86400))));
        let noon = Timestamp::from_nanos(1_795_262_400_000_000_000);
        assert_eq!(parse_since("2026-11-21T12:00:00Z"), Ok(Since::Time(noon)));
        assert!(matches!(parse_since("2026-11-21"), Ok(Since::Time(_))));
        for wrong in ["", "tomorrow", "2026-13-01", "30"] {
            assert!(parse_since(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_rate("50M"), Ok(50 << 20));
        assert_eq!(parse_rate("50M/s"), Ok(50 << 20));
        for wrong in ["0", "fast", ""] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
