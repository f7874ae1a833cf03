//! Config and log: the truth that everything else is held against.

use super::CheckReport;
use super::findings::{Finding, Findings, Severity, heal};
use crate::codec::entry_hash;
use crate::error::Result;
use crate::format::config::Config;
use crate::format::log_state::LogState;
use crate::id::EntryHash;
use crate::log::{LogFault, says_the_same};
use crate::repo::Repository;
use crate::store::StoredObject;

/// Reads config and log anew, and compares with what the repository was opened with. `seen` is what this host saw of the log before.
pub(super) async fn check(
    repository: &Repository,
    seen: Option<(u64, EntryHash)>,
    report: &mut CheckReport,
    findings: &mut Findings,
) -> Result<()> {
    check_config(repository, findings).await?;
    let watch = seen.map(|(number, _)| number);
    let examined = repository.chain().examine(watch).await?;
    report.log_entries = examined.entries;
    for fault in examined.faults {
        findings.add(finding_of(fault));
    }
    let Some(whole) = examined.state else { return Ok(()) };
    check_seen(repository, seen, whole.head, examined.watched, findings);
    compare_with_opened(repository, whole, findings).await
}

async fn check_config(repository: &Repository, findings: &mut Findings) -> Result<()> {
    let what = match repository.store().get(&StoredObject::Config).await {
        Ok(stored) => match Config::decode(&stored) {
            Ok(_) if entry_hash(&stored) == repository.chain().config_hash() => return Ok(()),
            Ok(_) => "it changed since the repository was opened".to_owned(),
            Err(error) => error.to_string(),
        },
        Err(error) if error.is_damage() => error.to_string(),
        Err(error) => return Err(error),
    };
    findings.add(Finding::new(Severity::Error, "config", what, heal::CONFIG));
    Ok(())
}

fn finding_of(fault: LogFault) -> Finding {
    let entry = |number: u64| format!("log entry {number}");
    match fault {
        LogFault::Damaged { number, why } => Finding::new(Severity::Error, entry(number), why, heal::LOG_ENTRY),
        LogFault::Missing { first, last } => {
            let object = if first == last { entry(first) } else { format!("log entries {first} to {last}") };
            Finding::new(Severity::Error, object, "missing, though later ones are there", heal::LOG_ENTRY)
        }
        LogFault::Odd(what) => Finding::new(Severity::Warning, "log", what, heal::NONE),
        LogFault::BadState { object, why } => Finding::new(Severity::Warning, name(&object), why, heal::STATE),
        LogFault::FalseState { object } => {
            let what = "says something else than the log that it sums up";
            Finding::new(Severity::Error, name(&object), what, heal::STATE)
        }
        LogFault::UnnamedState { object } => {
            let what = "no log entry names it: a writer stopped before it did; nobody believes it";
            Finding::new(Severity::Note, name(&object), what, heal::NONE)
        }
        LogFault::Stray { object } => {
            Finding::new(Severity::Note, name(&object), "is no log entry, though it lies among them", heal::STRAY)
        }
    }
}

fn name(object: &StoredObject) -> String {
    match object {
        StoredObject::LogState { n, hash } => format!("log state {n}-{hash}"),
        object => object.to_string(),
    }
}

/// A log that is shorter than it was, or another one, was cut off or replaced.
fn check_seen(
    repository: &Repository,
    seen: Option<(u64, EntryHash)>,
    head: u64,
    watched: Option<EntryHash>,
    findings: &mut Findings,
) {
    let Some((number, hash)) = seen.filter(|(number, _)| *number > 0) else { return };
    let what = if number > head {
        format!(
            "ends at entry {head}, but this host has seen entry {number}: it was cut off, or an older copy took its place"
        )
    } else if watched != Some(hash) {
        format!("entry {number} is not the one that this host has seen: the log was replaced")
    } else {
        return;
    };
    let cache = repository.environment().cache.as_ref().map(|cache| cache.join(repository.id().to_string()));
    let cache = cache.map_or_else(|| "this host's cache".to_owned(), |cache| cache.display().to_string());
    let heal = format!(
        "`everpack repair --from COPY` brings the missing entries back from a copy of this repository; if an older copy was put there on purpose, delete {cache}"
    );
    findings.add(Finding::new(Severity::Error, "log", what, &heal));
}

/// What was opened through a state object must be what the whole log says.
async fn compare_with_opened(repository: &Repository, mut whole: LogState, findings: &mut Findings) -> Result<()> {
    let mut opened = LogState::clone(&repository.state());
    // Others may be writing: both are brought to the same entry. What is damaged on the way is named already.
    for _ in 0..8 {
        if opened.head == whole.head {
            break;
        }
        let behind = if opened.head < whole.head { &mut opened } else { &mut whole };
        match repository.chain().advance(behind).await {
            Ok(_) => {}
            Err(error) if error.is_damage() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    if opened.head == whole.head && !says_the_same(&opened, &whole) {
        let what = "the state that the repository was opened with is not what the log says from its first entry";
        let heal = "delete the objects below `log-state/`: everything is then folded from the first entry";
        findings.add(Finding::new(Severity::Error, "log state", what, heal));
    }
    Ok(())
}
