//! `check` and `scrub`: is everything there, and is it what was written?

use std::fmt::Write;
use std::time::Duration;

use comfy_table::ContentArrangement;
use everpack::error::{Context as _, Result};
use everpack::ops::check::{self, CheckOptions, CheckReport, Finding, Sample, Severity};
use everpack::units;

use super::Context;
use super::backup::write_rest;
use crate::args::{parse_duration, parse_size};
use crate::errors::Exit;
use crate::metrics::{self, gauge, gauge_f64};
use crate::open::{find_backup, open_repository};
use crate::output::{LINE_MOST, one_line, plural, render, stdout_is_terminal, table, wrap};

const LONG_ABOUT: &str = "\
Checks the structure: that the log is whole, that every backup's list can be read, and that everything it names is in a stored object \
of the right size. With --read-data (or as `everpack scrub`) also that every stored byte is what was written.

What is wrong is a finding: what it touches, and how it heals (exit code 2). It may run beside backups and restores.

  everpack check                     after every night
  everpack check latest:shop         what one backup needs
  everpack check --read-data         everything, once a week or month";

const SCRUB_LONG_ABOUT: &str = "\
Reads and verifies every stored byte, after checking the structure: the same as `everpack check --read-data`. What was read when is \
written down in the repository, so that budgets add up over runs and hosts. What was found damaged is always read again first. A scrub \
that somebody stops ends with exit code 3.

  everpack scrub                                everything
  everpack scrub --for 2h                       what was read longest ago, as much as two hours allow
  everpack scrub --older-than 30d --for 2h      the same, but nothing twice a month
  everpack scrub --older-than 7d --shard 2/4    the second of four hosts that scrub side by side";

/// Check that everything is there; with --read-data also that it is what was written.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct CheckArgs {
    /// Only what these backups need: ids or their first digits, `latest`, `latest:LINEAGE`.
    #[arg(value_name = "BACKUP")]
    pub(crate) backups: Vec<String>,
    /// Also read and verify every stored byte.
    #[arg(long)]
    pub(crate) read_data: bool,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Read and verify every stored byte: check --read-data.
#[derive(Debug, clap::Args)]
#[command(long_about = SCRUB_LONG_ABOUT)]
pub(crate) struct ScrubArgs {
    /// Only what these backups need: ids or their first digits, `latest`, `latest:LINEAGE`.
    #[arg(value_name = "BACKUP")]
    pub(crate) backups: Vec<String>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// How much of the stored data is read.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    /// With --read-data: read only this part of the packs; the parts together are all of them.
    #[arg(long, value_name = "I/N", value_parser = parse_part, conflicts_with = "sample")]
    part: Option<(u32, u32)>,
    /// With --read-data: read only so much, chosen at random: 10% or 5G.
    #[arg(long, value_name = "SHARE", value_parser = parse_sample)]
    sample: Option<Sample>,
    /// With --read-data: read only packs whose last good read is longer ago, or that were never read.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// With --read-data: one of N hosts that read side by side, each other packs; from 1.
    #[arg(long, value_name = "I/N", value_parser = parse_part)]
    shard: Option<(u32, u32)>,
    /// Stop after so long, and say that it is not complete; what was read longest ago is read first.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    time_limit: Option<Duration>,
}

pub(crate) fn parse_part(text: &str) -> Result<(u32, u32), String> {
    let part = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    part.filter(|(part, parts)| (1..=*parts).contains(part)).ok_or_else(|| "expected a part such as 1/7".to_owned())
}

fn parse_sample(text: &str) -> Result<Sample, String> {
    let Some(share) = text.trim().strip_suffix('%') else { return parse_size(text).map(Sample::Bytes) };
    let share: Option<f64> = share.trim().parse().ok().filter(|share| *share > 0.0 && *share <= 100.0);
    share.map(|share| Sample::Share(share / 100.0)).ok_or_else(|| "expected a share such as 10% or 5G".to_owned())
}

pub(crate) async fn run(context: &Context, backups: Vec<String>, read: ReadArgs, read_data: bool) -> Result<Exit> {
    let repository = open_repository(&context.globals).await?;
    let backups = backups.iter().map(|spec| Ok(find_backup(&repository, spec)?.id)).collect::<Result<_>>()?;
    let options = CheckOptions {
        backups,
        read_data,
        part: read.part,
        sample: read.sample,
        older_than: read.older_than,
        shard: read.shard,
        time_limit: read.time_limit,
        memory: context.globals.memory,
        ..CheckOptions::default()
    };
    let monitor = context.progress.watch();
    let report = check::check(&repository, &options, monitor).await?;
    context.progress.close();
    context.output.report(&report, || text(context, &report, read_data))?;
    if let Some(file) = &context.globals.metrics {
        write_metrics(file, &repository.location(), &report).context(|| "the check is done, but")?;
    }
    let found = report.worst().is_some_and(|worst| worst != Severity::Note);
    // That the time of --for is over was asked for; that somebody stopped it was not.
    let stopped = !report.complete && context.progress.was_cancelled();
    Ok(match (found, stopped) {
        (true, _) => Exit::Findings,
        (false, true) => Exit::Partial,
        (false, false) => Exit::Done,
    })
}

fn text(context: &Context, report: &CheckReport, read_data: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut text, context, report, read_data);
    text
}

fn write_text(text: &mut String, context: &Context, report: &CheckReport, read_data: bool) -> std::fmt::Result {
    let findings = match report.finding_count {
        0 => "no findings".to_owned(),
        count => plural(count, "finding"),
    };
    writeln!(text, "{}, {}: {findings}", plural(report.backups, "backup"), plural(report.packs, "pack"))?;
    writeln!(
        text,
        "  {} and {} of {}",
        plural(report.log_entries, "log entry"),
        plural(report.segments, "segment"),
        plural(report.entries, "entry"),
    )?;
    if read_data {
        let rate = units::rate(report.bytes_read, report.duration);
        let bytes = units::bytes(report.bytes_read);
        writeln!(text, "  read {}, {bytes}, {rate}", plural(report.packs_read, "pack"))?;
    }
    if let Some(scrub) = &report.scrub {
        writeln!(text, "  {}", scrub.describe())?;
    }
    writeln!(text, "  took {}", units::duration(report.duration))?;
    if !report.complete {
        writeln!(text, "NOT complete: it was stopped before everything was looked at")?;
    }
    if !report.findings.is_empty() {
        let names_max = context.names_max();
        write!(text, "\n{}", finding_table(context, &report.findings[..report.findings.len().min(names_max)]))?;
        write_rest(text, report.finding_count, report.findings.len().min(names_max))?;
    }
    for remark in report.remarks.iter().filter(|remark| !context.progress.has_said(remark)) {
        writeln!(text, "note: {}", one_line(remark))?;
    }
    Ok(())
}

/// A table as wide as the terminal; elsewhere (a mail, a file) paragraphs, in which names stay in one piece.
pub(crate) fn finding_table(context: &Context, findings: &[Finding]) -> String {
    if !stdout_is_terminal() {
        return findings.iter().map(|finding| paragraph(context, finding)).collect();
    }
    let mut table = table(&["severity", "object", "what", "touches", "heals by"], &[]);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    for finding in findings {
        table.add_row(vec![
            severity(finding).to_owned(),
            one_line(&finding.object),
            one_line(&finding.what),
            touched(context, finding),
            one_line(&finding.heal),
        ]);
    }
    render(&table)
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Error => "ERROR",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn paragraph(context: &Context, finding: &Finding) -> String {
    let lines = [
        format!("{}  {}", severity(finding), one_line(&finding.object)),
        format!("  {}", one_line(&finding.what)),
        format!("  touches {}", touched(context, finding)),
        format!("  heals by: {}", one_line(&finding.heal)),
    ];
    lines.iter().map(|line| wrap(line, LINE_MOST, "    ") + "\n").collect()
}

/// `3 files, first tae/x of 41b7e09a5c22`.
fn touched(context: &Context, finding: &Finding) -> String {
    let Some(first) = finding.touches.first() else { return "nothing".to_owned() };
    let backup = context.short(&first.backup);
    let place = if first.path.is_empty() { format!("backup {backup}") } else { format!("{} of {backup}", first.path) };
    match finding.touched_count {
        0 | 1 => one_line(&place),
        count => format!("{}, first {}", plural(count, "file"), one_line(&place)),
    }
}

fn write_metrics(file: &std::path::Path, location: &str, report: &CheckReport) -> Result<()> {
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let mut gauges = vec![
        gauge_f64("duration_seconds", "How long the last check took.", report.duration.as_secs_f64()),
        gauge("backups", "Backups checked.", report.backups),
        gauge("packs", "Packs compared.", report.packs),
        gauge("packs_read", "Packs read whole.", report.packs_read),
        gauge("read_bytes", "Bytes read.", report.bytes_read),
        gauge("findings", "What was found, of any severity.", report.finding_count),
        gauge("errors", "Findings by which data is lost unless healed.", count(Severity::Error)),
        gauge("complete", "1 if everything asked for was looked at.", u64::from(report.complete)),
    ];
    if let Some(scrub) = &report.scrub {
        gauges.push(gauge("packs_never_read", "Packs that no scrub ever read.", scrub.never_read));
        gauges.push(gauge(
            "oldest_read_age_seconds",
            "How long ago the pack was read that was read longest ago.",
            scrub.oldest_age.unwrap_or(0),
        ));
        gauges.push(gauge_f64(
            "read_share_30d",
            "Share of the bytes that was read within 30 days.",
            scrub.recent_share,
        ));
    }
    metrics::write(file, "check", &[("repository", location)], gauges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_samples_are_read_and_nonsense_is_refused() {
        assert_eq!(parse_part("1/7"), Ok((1, 7)));
        for wrong in ["0/7", "8/7", "1", "a/b", "1/0"] {
            assert!(parse_part(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_sample("10%"), Ok(Sample::Share(0.1)));
        assert_eq!(parse_sample("5G"), Ok(Sample::Bytes(5 << 30)));
        for wrong in ["0%", "101%", "NaN%", "%", "x"] {
            assert!(parse_sample(wrong).is_err(), "{wrong}");
        }
    }
}
