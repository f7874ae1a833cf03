//! `diff`: what changed from one backup to another.

use crate::standin::query::{self, Difference};
use everpack::error::Result;
use everpack::repo::Entry;
use everpack::units;

use super::Context;
use super::entry::{EntryView, name};
use crate::errors::Exit;
use crate::open::open_repository;

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
    change: &'static str,
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
    let (before, after) = (repository.find_backup(&args.before)?, repository.find_backup(&args.after)?);
    let output = &context.output;
    if context.json {
        let mut list = output.list()?;
        let mut show = |difference: Difference| list.push(&view(&difference));
        query::diff(&repository, &before, &after, &mut show).await?;
        list.end()?;
        return Ok(Exit::Done);
    }
    let mut counts = Counts::default();
    let mut show = |difference: Difference| {
        counts.add(&difference);
        output.line(&line(&difference))
    };
    query::diff(&repository, &before, &after, &mut show).await?;
    if !context.globals.quiet {
        let Counts { added, removed, changed } = counts;
        let count = units::count;
        output.line(&format!("{} added, {} removed, {} changed", count(added), count(removed), count(changed)))?;
    }
    Ok(Exit::Done)
}

fn view(difference: &Difference) -> View {
    let (change, before, after) = parts(difference);
    let path = before.or(after).map(|entry| EntryView::from(entry).path).unwrap_or_default();
    View { change, path, before: before.map(EntryView::from), after: after.map(EntryView::from) }
}

/// The word for it, and the entries.
fn parts(difference: &Difference) -> (&'static str, Option<&Entry>, Option<&Entry>) {
    match difference {
        Difference::Added(after) => ("added", None, Some(after)),
        Difference::Removed(before) => ("removed", Some(before), None),
        Difference::Changed { before, after } => ("changed", Some(before), Some(after)),
    }
}

impl Counts {
    fn add(&mut self, difference: &Difference) {
        match parts(difference) {
            (_, None, _) => self.added += 1,
            (_, _, None) => self.removed += 1,
            _ => self.changed += 1,
        }
    }
}

fn line(difference: &Difference) -> String {
    let size = |entry: &Entry| units::bytes(entry.size);
    match parts(difference) {
        (_, Some(before), Some(after)) if before.size == after.size => format!("~ {}  {}", name(after), size(after)),
        (_, Some(before), Some(after)) => format!("~ {}  {} → {}", name(after), size(before), size(after)),
        (_, None, Some(after)) => format!("+ {}  {}", name(after), size(after)),
        (_, Some(before), None) => format!("- {}  {}", name(before), size(before)),
        (_, None, None) => String::new(),
    }
}
