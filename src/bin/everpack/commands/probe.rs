//! `probe`: what a store can do, found out by trying.

use everpack::error::Result;
use everpack::source::display_path;
use everpack::store::{Ability, StoreAbilities, probe};

use super::Context;
use crate::args::Globals;
use crate::errors::Exit;
use crate::open::open_store;
use crate::output::{one_line, render, table};

const LONG_ABOUT: &str = "\
Tries what a repository needs of a store: that a second create of one name is refused, that of many creates at once exactly one wins, \
ranges, listings, deletes, and how long a request takes. It writes a few small objects below a prefix of its own and removes them.

Exit code 0 means that any number of writers may use the store at once. Look-alikes of S3 differ exactly there.

  everpack probe /backup
  everpack probe s3://backups/shop --endpoint https://s3.example.org";

/// Find out what a store can do.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct ProbeArgs {
    /// The store, as for --repo [default: the repository's].
    url: Option<String>,
}

/// What came out.
#[derive(serde::Serialize)]
struct Probed {
    location: String,
    /// The place that was asked about, if it is not there yet: the directory above it was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_for: Option<String>,
    safe_for_sharing: bool,
    usable: bool,
    #[serde(flatten)]
    abilities: StoreAbilities,
    findings: Vec<Ability>,
}

pub(crate) async fn run(context: &Context, args: ProbeArgs) -> Result<Exit> {
    let globals = match args.url {
        Some(repo) => Globals { repo, ..context.globals.clone() },
        None => context.globals.clone(),
    };
    let (globals, stands_for) = existing(globals);
    let store = open_store(&globals)?;
    let abilities = probe(&store).await?;
    if let Some(root) = store.local_path() {
        // Ours, unless somebody probes at the same time; then it is not empty and stays.
        let _stays = std::fs::remove_dir(root.join("probe"));
    }
    let probed = Probed {
        location: store.display().to_string(),
        stands_for,
        safe_for_sharing: abilities.is_safe_for_sharing(),
        usable: abilities.is_usable(),
        abilities,
        findings: abilities.findings(),
    };
    context.output.answer(&probed, || text(&probed))?;
    Ok(if probed.safe_for_sharing && probed.usable { Exit::Done } else { Exit::Refused })
}

/// A directory that is not there yet will be on the file system of the nearest one above it.
fn existing(globals: Globals) -> (Globals, Option<String>) {
    let asked = globals.repo.strip_prefix("file://").unwrap_or(&globals.repo);
    if asked.contains("://") || asked.starts_with("memory:") {
        return (globals, None);
    }
    let Ok(path) = std::path::absolute(asked) else { return (globals, None) };
    match path.ancestors().find(|above| above.exists()) {
        Some(above) if above != path => {
            let stands_for = Some(display_path(asked.as_bytes()));
            (Globals { repo: above.to_string_lossy().into_owned(), ..globals }, stands_for)
        }
        _ => (globals, None),
    }
}

fn text(probed: &Probed) -> String {
    let verdict = match (probed.usable, probed.safe_for_sharing) {
        (true, true) => "can hold a repository, for any number of writers",
        (true, false) => "can hold a repository, but is NOT safe for more than one writer at a time",
        (false, _) => "can NOT hold a repository",
    };
    let mut table = table(&["", "ability", "what it means"], &[]);
    for ability in &probed.findings {
        table.add_row(vec![if ability.ok { "yes" } else { "NO" }, ability.name, ability.meaning]);
    }
    let instead = match &probed.stands_for {
        Some(asked) => format!("{} is not there yet; the directory above it was tried.\n", one_line(asked)),
        None => String::new(),
    };
    format!(
        "{instead}{} {verdict}\n\n{}\na small write took {} ms, a small read {} ms\n",
        probed.location,
        render(&table),
        probed.abilities.put_latency_ms,
        probed.abilities.get_latency_ms
    )
}
