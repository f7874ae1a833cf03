//! `hold`: nothing may forget a backup until a time.

use everpack::clock::{Span, Timestamp};
use everpack::error::Result;
use everpack::ops::forget::{self, HoldReport, Until};

use super::Context;
use crate::errors::Exit;
use crate::open::{find_any_backups, open_to_write};
use crate::output::one_line;

const LONG_ABOUT: &str = "\
Keeps backups from being forgotten, by name or by rule, until a time. After it they are as any others. A hold can be made longer; to \
make it shorter, release it first.

  everpack hold 41b7e0 --until 2033-12-31
  everpack hold latest:shop --until 90d";

/// Keep backups from being forgotten until a time.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct HoldArgs {
    /// Ids or their first digits, `latest`, or `latest:LINEAGE`.
    #[arg(value_name = "BACKUP", required = true)]
    backups: Vec<String>,
    /// A day (to its end, in the zone of this machine), a time with zone (2033-12-31T18:00:00Z), or from now: 90d, 6mo, 7y.
    #[arg(long, value_name = "DATE", value_parser = parse_until)]
    until: Until,
}

fn parse_until(text: &str) -> Result<Until, String> {
    let time = Timestamp::parse_until(text).map(Until::Time);
    time.or_else(|| Span::parse(text).map(Until::For))
        .ok_or_else(|| "expected 2033-12-31, 2033-12-31T18:00:00Z, or from now 90d, 12w, 6mo, 7y".to_owned())
}

pub(crate) async fn run(context: &Context, args: HoldArgs) -> Result<Exit> {
    let repository = open_to_write(context).await?;
    let backups = find_any_backups(&repository, &args.backups)?;
    let report = forget::hold(&repository, &backups, args.until).await?;
    context.output.report(&report, || text(context, &report))?;
    Ok(Exit::Done)
}

fn text(context: &Context, report: &HoldReport) -> String {
    let held = |id| format!("backup {} is held until {}", context.short(id), report.until.to_local());
    let mut lines: Vec<String> = report.backups.iter().map(held).collect();
    lines.extend(report.remarks.iter().map(|remark| format!("note: {}", one_line(remark))));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_times_or_spans() {
        assert_eq!(parse_until("90d"), Ok(Until::For(Span::days(90))));
        assert!(matches!(parse_until("2033-12-31"), Ok(Until::Time(_))));
        for wrong in ["", "soon", "5m", "2033", "2033-12"] {
            assert!(parse_until(wrong).is_err(), "{wrong}");
        }
    }
}
