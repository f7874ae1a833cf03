//! State objects. The log says the same, so what is wrong with one is healed by deleting it and keeping a fresh one.

use super::RepairReport;
use crate::error::{Error, Result};
use crate::log::LogFault;
use crate::repo::Repository;
use crate::store::StoredObject;

/// Reads the log from its first entry, believes only that, and deletes state objects that are wrong. True if there were any.
pub(super) async fn heal(repository: &Repository, writes: bool, report: &mut RepairReport) -> Result<bool> {
    let examined = repository.chain().examine(None).await?;
    let Some(state) = examined.state else { return Err(damaged_log(repository, &examined.faults)) };
    // The repository may have been opened through a state object that says something else.
    let fresh = if writes { state.head >= repository.state().head } else { true };
    if fresh {
        repository.set_state(state);
    }
    let mut any = false;
    for fault in examined.faults {
        let (object, what) = match fault {
            LogFault::BadState { object, why } => (object, why),
            LogFault::FalseState { object } => (object, "says something else than the log that it sums up".to_owned()),
            LogFault::UnnamedState { object } => (object, "no log entry names it".to_owned()),
            LogFault::Odd(what) => {
                report.remarks.push(what);
                continue;
            }
            LogFault::Damaged { .. } | LogFault::Missing { .. } | LogFault::Stray { .. } => continue,
        };
        if writes {
            repository.store().delete(&object).await?;
        }
        any = true;
        report.add(name(&object), what, "deleted; the log says the same, and a fresh one is kept");
    }
    Ok(any)
}

fn name(object: &StoredObject) -> String {
    match object {
        StoredObject::LogState { n, hash } => format!("log state {n}-{hash}"),
        object => object.to_string(),
    }
}

fn damaged_log(repository: &Repository, faults: &[LogFault]) -> Error {
    let first = faults.iter().find_map(|fault| match fault {
        LogFault::Damaged { number, why } => Some(format!("entry {number}: {why}")),
        LogFault::Missing { first, last } => Some(format!("entries {first} to {last} are missing")),
        _ => None,
    });
    let first = first.unwrap_or_else(|| "it cannot be folded".to_owned());
    Error::corrupt(format!(
        "repair {}: the log is damaged ({first}), and nothing may be written over that; a copy of this repository that has the entries \
         heals it: `everpack repair --from COPY`",
        repository.location()
    ))
}
