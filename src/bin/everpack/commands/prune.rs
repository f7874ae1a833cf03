//! `prune`: gives back the space of what no backup needs.

use std::fmt::Write;
use std::time::Duration;

use everpack::error::{Context as _, Result};
use everpack::ops::prune::{self, MaxUnused, PruneAction, PruneOptions, PrunePlan, PruneReport};
use everpack::units;

use super::Context;
use crate::args::{parse_duration, parse_size};
use crate::errors::Exit;
use crate::metrics::{self, gauge, gauge_f64};
use crate::open::open_to_write;
use crate::output::{one_line, plural, render, table};

const LONG_ABOUT: &str = "\
Gives back the space of what no backup needs: packs of which nothing is needed go, packs of which little is needed are written anew \
without the rest. The plan is printed first. It may run beside backups, restores and other prunes, and may be killed at any time.

What goes is deleted once nobody can be reading it: at the end of this run, or by the next one.

  everpack forget --keep-daily 30    first: which backups go
  everpack prune --dry-run           what it would do, and why
  everpack prune --for 1h            at night, for an hour at most";

/// Give back the space of what no backup needs.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct PruneArgs {
    /// Print the plan and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// How much of what stays may be unused: a share (5%), a size (10G), or `unlimited` to write nothing anew.
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = parse_max_unused)]
    max_unused: MaxUnused,
    /// Write at most so much anew in this run.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_repack: Option<u64>,
    /// Stop after so long; the next run goes on.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    time_limit: Option<Duration>,
    /// Declare sessions dead that were silent for so long; they hold back what can be deleted.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    fence_after: Duration,
    /// Wait at most so long for running backups and restores, so that everything is deleted in this run.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    wait: Duration,
}

fn parse_max_unused(text: &str) -> Result<MaxUnused, String> {
    if text.trim() == "unlimited" {
        return Ok(MaxUnused::Unlimited);
    }
    let wrong = || "expected a share such as 5%, a size such as 10G, or `unlimited`".to_owned();
    let Some(share) = text.trim().strip_suffix('%') else {
        return parse_size(text).map(MaxUnused::Bytes).map_err(|_| wrong());
    };
    let share: Option<f64> = share.trim().parse().ok().filter(|share| (0.0..=100.0).contains(share));
    share.map(|share| MaxUnused::Share(share / 100.0)).ok_or_else(wrong)
}

pub(crate) async fn run(context: &Context, args: PruneArgs) -> Result<Exit> {
    let repository = open_to_write(context).await?;
    let options = PruneOptions {
        dry_run: args.dry_run,
        max_unused: args.max_unused,
        max_repack: args.max_repack,
        time_limit: args.time_limit,
        fence_after: args.fence_after,
        wait: args.wait,
        memory: context.globals.memory,
    };
    let monitor = context.progress.watch();
    let show = |plan: &PrunePlan| {
        if !context.json && !context.globals.quiet {
            // What cannot be printed here cannot be printed at the end either, and is an error there.
            let _printed = context.output.raw(plan_text(plan).as_bytes()).and_then(|()| context.output.flush());
        }
    };
    let report = prune::prune(&repository, &options, monitor, show).await?;
    context.progress.close();
    context.output.report(&report, || text(context, &report))?;
    if let Some(file) = &context.globals.metrics {
        write_metrics(file, &repository.location(), &report).context(|| "the prune is done, but")?;
    }
    let missing = report.plans.iter().any(|plan| plan.missing_chunks > 0 || plan.unknown_objects > 0);
    Ok(if missing { Exit::Findings } else { Exit::Done })
}

fn plan_text(plan: &PrunePlan) -> String {
    let mut steps = table(&["do", "what", "size", "needed of it", "why"], &[2, 3]);
    for step in &plan.steps {
        let action = match step.action {
            PruneAction::Delete => "delete",
            PruneAction::Rewrite => "rewrite",
            PruneAction::Keep => "keep",
        };
        let needed = if step.bytes == 0 { String::new() } else { units::bytes(step.needed_bytes) };
        let size = if step.bytes == 0 { String::new() } else { units::bytes(step.bytes) };
        steps.add_row(vec![action.to_owned(), what(step.objects, step.what), size, needed, step.why.to_owned()]);
    }
    let mut text = String::new();
    if plan.steps.is_empty() {
        text.push_str("nothing is stored yet\n");
    } else {
        text.push_str(&render(&steps));
    }
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "packs take {} now and {} afterwards, {} of that unused",
        units::bytes(plan.bytes_before),
        units::bytes(plan.bytes_after),
        units::bytes(plan.unused_after)
    );
    text
}

/// `3 packs`, `1 manifest`, `1 fragment or manifest`.
fn what(count: u64, many: &str) -> String {
    let singular =
        || many.split(" and ").map(|word| word.strip_suffix('s').unwrap_or(word)).collect::<Vec<_>>().join(" or ");
    let named = if count == 1 { singular() } else { many.to_owned() };
    format!("{} {named}", units::count(count))
}

fn text(context: &Context, report: &PruneReport) -> String {
    let mut text = String::new();
    let _ = write_text(&mut text, context, report);
    text
}

fn write_text(text: &mut String, context: &Context, report: &PruneReport) -> std::fmt::Result {
    if report.dry_run {
        writeln!(text, "nothing was changed (--dry-run)")?;
    } else {
        writeln!(
            text,
            "retired {} ({}), wrote {} anew, deleted {} ({})",
            plural(report.objects_retired, "object"),
            units::bytes(report.bytes_retired),
            units::bytes(report.bytes_rewritten),
            plural(report.objects_deleted, "object"),
            units::bytes(report.bytes_deleted)
        )?;
    }
    if report.backups_purged > 0 {
        writeln!(text, "  {} gone for good", plural(report.backups_purged, "forgotten backup"))?;
    }
    if report.objects_waiting > 0 {
        writeln!(
            text,
            "  {} deleted by a later prune: {} may be reading them",
            plural(report.objects_waiting, "object"),
            report.waiting_for.join(", ")
        )?;
    }
    writeln!(text, "  took {}", units::duration(report.duration))?;
    if let Some(plan) = report.plans.last() {
        if plan.missing_chunks > 0 {
            let chunks = plural(plan.missing_chunks, "chunk");
            writeln!(text, "{chunks} that backups need are in no live pack: `everpack check` names them")?;
        }
        if plan.unknown_objects > 0 {
            let objects = plural(plan.unknown_objects, "object");
            writeln!(text, "{objects} of sessions that the log does not know were left alone: `everpack check`")?;
        }
    }
    for remark in report.remarks.iter().filter(|remark| !context.progress.has_said(remark)) {
        writeln!(text, "note: {}", one_line(remark))?;
    }
    Ok(())
}

fn write_metrics(file: &std::path::Path, location: &str, report: &PruneReport) -> Result<()> {
    let gauges = vec![
        gauge_f64("duration_seconds", "How long the last prune took.", report.duration.as_secs_f64()),
        gauge("retired_bytes", "Bytes of objects that nobody uses any more.", report.bytes_retired),
        gauge("rewritten_bytes", "Bytes of packs that were written anew.", report.bytes_rewritten),
        gauge("deleted_bytes", "Bytes that were given back.", report.bytes_deleted),
        gauge("waiting_objects", "Objects that a later prune deletes.", report.objects_waiting),
        gauge("stored_bytes", "Bytes of all packs afterwards.", report.plans.last().map_or(0, |plan| plan.bytes_after)),
        gauge("complete", "1 if everything that was planned was done.", u64::from(report.complete)),
    ];
    metrics::write(file, "prune", &[("repository", location)], gauges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_many() {
        assert_eq!(what(1, "packs"), "1 pack");
        assert_eq!(what(1, "fragments and manifests"), "1 fragment or manifest");
        assert_eq!(what(1200, "fragments and manifests"), "1,200 fragments and manifests");
    }

    #[test]
    fn how_much_may_be_unused_is_read_and_nonsense_is_refused() {
        assert_eq!(parse_max_unused("5%"), Ok(MaxUnused::Share(0.05)));
        assert_eq!(parse_max_unused("0"), Ok(MaxUnused::Bytes(0)));
        assert_eq!(parse_max_unused("10G"), Ok(MaxUnused::Bytes(10 << 30)));
        assert_eq!(parse_max_unused("unlimited"), Ok(MaxUnused::Unlimited));
        for wrong in ["101%", "-1%", "NaN%", "%", "much"] {
            assert!(parse_max_unused(wrong).is_err(), "{wrong}");
        }
    }
}
