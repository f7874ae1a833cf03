//! `diff`: what changed from one backup to another.

use everpack::error::Result;
use everpack::ops::query::{self, Change, Difference};
use everpack::repo::Entry;
use everpack::source::display_path;
use everpack::units;

use super::Context;
use super::entry::{EntryView, name};
use crate::errors::Exit;
use crate::open::{find_backup, open_repository};
use crate::output::FirstError;

const LONG_ABOUT: &str = "\
Shows what the second backup has that the first has not (+), lacks (-), and has with other content or attributes (~), with sizes. Only \
lists are compared: no file is read.

  everpack diff 41b7e0 latest";

/// Show what changed between two backups.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct DiffArgs {
    /// The earlier backup: an id or its first digits, `latest`, or `latest:LINEAGE`.
    #[arg(value_name = "BACKUP")]
    before: String,
    /// The later one.
    #[arg(value_name = "BACKUP")]
    after: String,
}

/// A difference in JSON.
#[derive(serde::Serialize)]
struct View {
    change: Change,
    path: String,
    before: Option<EntryView>,
    after: Option<EntryView>,
}

#[derive(Default)]
struct Counts {
    added: u64,
    removed: u64,
    changed: u64,
}

pub(crate) async fn run(context: &Context, args: DiffArgs) -> Result<Exit> {
    let repository = open_repository(&context.globals).await?;
    let (before, after) = (find_backup(&repository, &args.before)?, find_backup(&repository, &args.after)?);
    let output = &context.output;
    let mut shown = FirstError::default();
    if context.json {
        let mut list = output.list();
        let mut show = |difference: Difference| shown.then(|| list.push(&view(&difference)));
        query::diff(&repository, &before, &after, &mut show).await?;
        shown.into_result()?;
        list.end()?;
        return Ok(Exit::Done);
    }
    let mut counts = Counts::default();
    let mut show = |difference: Difference| {
        counts.add(difference.change);
        shown.then(|| output.line(&line(&difference)));
    };
    query::diff(&repository, &before, &after, &mut show).await?;
    shown.into_result()?;
    if !context.globals.quiet {
        let Counts { added, removed, changed } = counts;
        let count = units::count;
        output.line(&format!("{} added, {} removed, {} changed", count(added), count(removed), count(changed)))?;
    }
    Ok(Exit::Done)
}

fn view(difference: &Difference) -> View {
    View {
        change: difference.change,
        path: display_path(difference.path()),
        before: difference.before.as_ref().map(EntryView::from),
        after: difference.after.as_ref().map(EntryView::from),
    }
}

impl Counts {
    fn add(&mut self, change: Change) {
        match change {
            Change::Added => self.added += 1,
            Change::Removed => self.removed += 1,
            Change::Content | Change::Kind | Change::Metadata => self.changed += 1,
        }
    }
}

fn line(difference: &Difference) -> String {
    let size = |entry: &Entry| units::bytes(entry.size);
    let named = difference.after.as_ref().or(difference.before.as_ref());
    let path = named.map(name).unwrap_or_default();
    let remark = match difference.change {
        Change::Kind => " (another kind)",
        Change::Metadata => " (only mode, owner or time)",
        _ => "",
    };
    match (&difference.before, &difference.after) {
        (Some(before), Some(after)) if before.size == after.size => format!("~ {path}  {}{remark}", size(after)),
        (Some(before), Some(after)) => format!("~ {path}  {} -> {}{remark}", size(before), size(after)),
        (None, Some(after)) => format!("+ {path}  {}", size(after)),
        (Some(before), None) => format!("- {path}  {}", size(before)),
        (None, None) => path,
    }
}
