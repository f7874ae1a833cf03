//! Live packs against what the store lists, and stored objects that the log does not name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use futures::TryStreamExt;

use super::CheckReport;
use super::faults::Faults;
use super::findings::{Finding, Findings, Severity, heal};
use crate::error::Result;
use crate::format::log_state::LogState;
use crate::id::{ObjectKind, ObjectName, SessionId};
use crate::index::Index;
use crate::repo::Repository;
use crate::store::{Folder, Leftover, ObjectPath, StoredObject};
use crate::units;

/// Names given with a finding about many objects.
const NAMES_MOST: usize = 5;

/// Some objects, counted, the first by name.
#[derive(Debug, Default)]
struct Objects {
    count: u64,
    bytes: u64,
    first: Vec<String>,
}

impl Objects {
    fn add(&mut self, len: u64, name: impl FnOnce() -> String) {
        self.count += 1;
        self.bytes += len;
        if self.first.len() < NAMES_MOST {
            self.first.push(name());
        }
    }

    fn describe(&self) -> String {
        let more = if self.count > self.first.len() as u64 { ", …" } else { "" };
        let objects = units::plural(self.count, "object");
        format!("{objects} ({}): {}{more}", units::bytes(self.bytes), self.first.join(", "))
    }
}

/// What the log says is, or may be, in the store.
struct Expected<'a> {
    /// Live packs that were not listed yet: number and size.
    wanted: HashMap<ObjectName, (u32, u64)>,
    packs: HashSet<ObjectName>,
    fragments: HashSet<ObjectName>,
    state: &'a LogState,
}

impl Expected<'_> {
    fn names(&self, name: &ObjectName) -> bool {
        if self.state.retired.contains_key(name) {
            return true;
        }
        match name.kind {
            ObjectKind::DataPack | ObjectKind::MetaPack => self.packs.contains(name),
            ObjectKind::Fragment => self.fragments.contains(name),
            ObjectKind::Manifest => self.state.backups.get(&name.hash).is_some_and(|backup| backup.manifest == *name),
            // A later release's.
            ObjectKind::Parity | ObjectKind::Scrub => true,
        }
    }
}

/// Lists packs, fragments and manifests once. Gives the live packs that are missing or of another size.
pub(super) async fn compare(
    repository: &Repository,
    index: &Index,
    state: &LogState,
    report: &mut CheckReport,
    findings: &mut Findings,
) -> Result<Faults> {
    let mut expected = Expected {
        wanted: index.live_pack_numbers(),
        packs: index.known_packs(),
        fragments: state.fragments.iter().map(|(_, name)| *name).collect(),
        state,
    };
    report.packs = expected.wanted.len() as u64;
    let mut faults = Faults::default();
    let mut unnamed: BTreeMap<SessionId, Objects> = BTreeMap::new();
    let mut strays = Objects::default();
    for kind in [ObjectKind::DataPack, ObjectKind::MetaPack, ObjectKind::Fragment, ObjectKind::Manifest] {
        let mut listing = repository.store().list(Folder::of(kind));
        while let Some(info) = listing.try_next().await? {
            let StoredObject::Named(name) = info.object() else {
                strays.add(info.len, || info.path.to_string());
                continue;
            };
            match expected.wanted.remove(&name) {
                Some((number, size)) if size != info.len => faults.add_resized(number, name, size, info.len),
                Some(_) => {}
                None if expected.names(&name) => {}
                None => unnamed.entry(name.session).or_default().add(info.len, || name.to_string()),
            }
        }
    }
    for (name, (number, size)) in expected.wanted {
        faults.add_missing(number, name, size);
    }
    let mut newer = LogState::clone(state);
    if unnamed.keys().any(|session| !state.sessions.contains_key(session)) {
        // Rule open-before-read: whatever was listed, its session is in the log by now.
        match repository.chain().advance(&mut newer).await {
            // What is wrong with the log is a finding of its own.
            Err(error) if !error.is_damage() => return Err(error),
            _ => {}
        }
    }
    for (session, objects) in unnamed {
        report_unnamed(session, &objects, &newer, findings);
    }
    if strays.count > 0 {
        let what = format!("not of this repository, though they lie in it: {}", strays.describe());
        findings.add(Finding::new(Severity::Note, "stray objects", what, heal::STRAY));
    }
    report_leftovers(repository, findings).await?;
    for (name, why) in &state.quarantined {
        let what = format!("quarantined ({why}): nothing relies on it");
        findings.add(Finding::new(Severity::Note, ObjectName::to_string(name), what, heal::NONE));
    }
    Ok(faults)
}

fn report_unnamed(session: SessionId, objects: &Objects, state: &LogState, findings: &mut Findings) {
    let which = format!("the log does not name {}", objects.describe());
    let object = format!("session {session}");
    match state.sessions.get(&session) {
        Some(known) if known.over.is_none() => {
            let what = format!("{which}. The session is open: they are being written, or it was killed");
            findings.add(Finding::new(Severity::Note, object, what, heal::NONE));
        }
        Some(_) => {
            let what = format!("{which}. The session is over: they only take up space");
            findings.add(Finding::new(Severity::Note, object, what, heal::NONE));
        }
        None => {
            let what = format!("{which}. Nor does it know the session: evidence of a lost log entry");
            findings.add_missing(Finding::new(Severity::Error, object, what, heal::LOST_ENTRY));
        }
    }
}

/// What interrupted writes left on a local disk. The files are named as they are: the object of the same name is another one, and whole.
async fn report_leftovers(repository: &Repository, findings: &mut Findings) -> Result<()> {
    let found = repository.store().leftovers().await?;
    let Some(root) = repository.store().local_path().filter(|_| !found.is_empty()).map(Path::to_path_buf) else {
        return Ok(());
    };
    let leftovers = crate::ops::blocking(move || Ok(name_leftovers(&root, &found))).await?;
    let what = format!("begun and never finished: {}", leftovers.describe());
    findings.add(Finding::new(Severity::Note, "left-overs of interrupted writes", what, heal::LEFTOVER));
    Ok(())
}

fn name_leftovers(root: &Path, found: &[Leftover]) -> Objects {
    let mut leftovers = Objects::default();
    let mut named = HashSet::new();
    for leftover in found {
        let object = ObjectPath::from(leftover.object.clone()).to_string();
        leftovers.add(leftover.len, || {
            // Several may be of one object: each has a number of its own.
            let file = files_of(root, &object).into_iter().find(|file| named.insert(file.clone()));
            file.unwrap_or_else(|| format!("{object}#… (gone now)"))
        });
    }
    leftovers
}

/// The files beside an object that are called like it, with `#` and a number behind.
fn files_of(root: &Path, object: &str) -> Vec<String> {
    let (folder, name) = object.rsplit_once('/').unwrap_or(("", object));
    // What cannot be listed any more has no names.
    let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_of = |file: &String| file.strip_prefix(name).is_some_and(|rest| rest.starts_with('#'));
    let mut files: Vec<String> =
        names.filter(is_of).map(|file| Path::new(folder).join(file)).map(|file| file.display().to_string()).collect();
    files.sort();
    files
}
