//! `forget`: backups leave the list.

use std::fmt::Write;

use everpack::clock::Span;
use everpack::error::Result;
use everpack::ops::forget::{self, Decision, ForgetOptions, ForgetPolicy, ForgetReport, GroupBy, Policy, Which};
use everpack::source::display_path;
use everpack::units;

use super::Context;
use crate::args::parse_name;
use crate::errors::Exit;
use crate::open::{find_any_backups, open_to_write};
use crate::output::{one_line, plural, render, table};

const LONG_ABOUT: &str = "\
Takes backups out of the list: those that are named, or those that no rule keeps. A backup stays if any rule keeps it; each lineage is \
judged by itself. Nothing is freed (`everpack prune` does that), and until then `everpack unforget` brings them back.

Rules count only backups whose date fits the order in which they were made; what a wrong clock has dated stays, and the table says so. \
Periods are those of UTC, weeks begin on Monday.

  everpack forget --keep-daily 14 --keep-monthly 12 --dry-run
  everpack forget 41b7e0 --reason 'made by mistake'";

const RULES: &str = "Rules (what to keep)";
const SCOPE: &str = "What the rules are about";

/// Take backups out of the list: by name, or all that no rule keeps.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct ForgetArgs {
    /// Ids or their first digits, `latest`, `latest:LINEAGE`; or none, and rules.
    #[arg(value_name = "BACKUP")]
    #[arg(conflicts_with_all = [
        "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within", "keep_tag", "keep_none",
        "lineage", "tag", "group_by", "doubtful",
    ])]
    backups: Vec<String>,
    /// The last N backups.
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = RULES)]
    keep_last: Option<u32>,
    /// The newest of each of the last N hours that have a backup.
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = RULES)]
    keep_hourly: Option<u32>,
    /// The newest of each of the last N days that have one.
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = RULES)]
    keep_daily: Option<u32>,
    /// The newest of each of the last N weeks that have one.
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = RULES)]
    keep_weekly: Option<u32>,
    /// The newest of each of the last N months that have one.
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = RULES)]
    keep_monthly: Option<u32>,
    /// The newest of each of the last N years that have one.
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = RULES)]
    keep_yearly: Option<u32>,
    /// Whatever is at most so much older than the newest: 36h, 30d, 12w, 6mo, 1y.
    #[arg(long, value_name = "TIME", value_parser = parse_span, help_heading = RULES)]
    keep_within: Option<Span>,
    /// Whatever has this tag; may be given several times.
    #[arg(long, value_name = "TAG", value_parser = parse_name, help_heading = RULES)]
    keep_tag: Vec<String>,
    /// Go on where the rules keep nothing; without any rule, forget all that --lineage and --tag choose.
    #[arg(long, help_heading = RULES)]
    keep_none: bool,
    /// Only backups of this lineage; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = parse_name, help_heading = SCOPE)]
    lineage: Vec<String>,
    /// Only backups with this tag, or with one of several.
    #[arg(long, value_name = "TAG", value_parser = parse_name, help_heading = SCOPE)]
    tag: Vec<String>,
    /// Which backups count together.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "lineage", help_heading = SCOPE)]
    group_by: GroupByArg,
    /// Also forget backups whose date is doubtful, except the last ones, held ones and those with a tag to keep.
    #[arg(long, help_heading = SCOPE)]
    doubtful: bool,
    /// Why, for whoever reads the log.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Print what would go and what would stay, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum GroupByArg {
    /// The backups of a lineage.
    Lineage,
    /// The backups of a lineage that have the same tags.
    #[value(name = "lineage,tags")]
    LineageAndTags,
}

fn parse_count(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "expected a number from 1; to keep nothing by this rule, leave it out".to_owned())
}

fn parse_span(text: &str) -> Result<Span, String> {
    Span::parse(text).ok_or_else(|| "expected a time such as 36h, 30d, 12w, 6mo, 1y or 1y6mo".to_owned())
}

pub(crate) async fn run(context: &Context, args: ForgetArgs) -> Result<Exit> {
    let repository = open_to_write(context).await?;
    let which = if args.backups.is_empty() {
        let keep = Policy {
            last: args.keep_last,
            hourly: args.keep_hourly,
            daily: args.keep_daily,
            weekly: args.keep_weekly,
            monthly: args.keep_monthly,
            yearly: args.keep_yearly,
            within: args.keep_within,
            tags: args.keep_tag,
        };
        Which::ByPolicy(ForgetPolicy {
            keep,
            lineages: args.lineage,
            tags: args.tag,
            group_by: match args.group_by {
                GroupByArg::Lineage => GroupBy::Lineage,
                GroupByArg::LineageAndTags => GroupBy::LineageAndTags,
            },
            doubtful: args.doubtful,
            keep_none: args.keep_none,
        })
    } else {
        Which::Named(find_any_backups(&repository, &args.backups)?)
    };
    let listed = repository.backups().len() as u64;
    let named = matches!(which, Which::Named(_));
    let options = ForgetOptions { which, reason: args.reason, dry_run: args.dry_run };
    let report = forget::forget(&repository, &options).await?;
    let left = named.then(|| listed.saturating_sub(report.forgotten));
    if args.dry_run {
        context.output.answer(&report, || text(context, &report, left))?;
    } else {
        context.output.report(&report, || text(context, &report, left))?;
    }
    Ok(Exit::Done)
}

/// `left`: how many are in the list afterwards; `None` if rules judged, which have counted them.
fn text(context: &Context, report: &ForgetReport, left: Option<u64>) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut text, context, report, left);
    text
}

fn write_text(text: &mut String, context: &Context, report: &ForgetReport, left: Option<u64>) -> std::fmt::Result {
    if !report.decisions.is_empty() {
        writeln!(text, "{}", decision_table(context, &report.decisions))?;
    }
    let verb = if report.dry_run { "would forget" } else { "forgot" };
    let forgotten = plural(report.forgotten, "backup");
    match left {
        None => write!(text, "{verb} {forgotten}, kept {}", report.kept)?,
        Some(left) => write!(text, "{verb} {forgotten}, {} left in the list", units::count(left))?,
    }
    match report.doubtful {
        0 => writeln!(text)?,
        count => writeln!(text, "; the date of {count} is doubtful")?,
    }
    if report.forgotten > 0 && !report.dry_run {
        writeln!(
            text,
            "  nothing is freed yet: `everpack prune` does that; until then `everpack unforget` brings them back"
        )?;
    }
    report.remarks.iter().try_for_each(|remark| writeln!(text, "note: {}", one_line(remark)))
}

fn decision_table(context: &Context, decisions: &[Decision]) -> String {
    let mut table = table(&["id", "time", "lineage", "", "why"], &[]);
    for decision in decisions {
        let mut why: Vec<String> = decision.kept_by.iter().map(ToString::to_string).collect();
        if let Some(doubt) = decision.doubt.filter(|_| decision.forget) {
            why.push(format!("its date is doubtful: {doubt}"));
        }
        table.add_row(vec![
            context.short(&decision.id),
            decision.started.to_local(),
            display_path(decision.lineage_name.as_bytes()),
            if decision.forget { "forget" } else { "keep" }.to_owned(),
            one_line(&why.join(", ")),
        ]);
    }
    render(&table)
}
