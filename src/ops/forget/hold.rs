//! Holds: a backup that nothing may forget until a time.
//!
//! A hold only grows by `hold`; whoever wants less releases it first. It binds every forget that is decided after it in the log.

use super::clocks::Clocks;
use super::decide::not_there;
use crate::clock::{Span, Timestamp};
use crate::error::{Error, Result};
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::ObjectHash;
use crate::repo::Repository;

/// How long something is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// To this time.
    Time(Timestamp),
    /// So long from now.
    For(Span),
}

/// What is held now.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HoldReport {
    /// Which backups.
    pub backups: Vec<ObjectHash>,
    /// Until when.
    pub until: Timestamp,
    /// The log entry that says so; none if all of them were held until then already.
    pub entry: Option<u64>,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
}

/// What is not held any more.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ReleaseReport {
    /// Which backups were held and are not now.
    pub backups: Vec<ObjectHash>,
    /// The log entry that says so; none if none was held.
    pub entry: Option<u64>,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
}

/// Holds backups: all of them or, after an error, none.
///
/// Fails for a backup that is forgotten, for a time that is past, and for one before the end of a hold that is there.
pub async fn hold(repository: &Repository, backups: &[ObjectHash], until: Until) -> Result<HoldReport> {
    let clocks = Clocks::read(repository).await?;
    let until = match until {
        Until::Time(time) => time,
        // If one of the clocks is wrong, the hold is too long rather than too short.
        Until::For(span) => clocks.later().plus(&span).ok_or_else(|| {
            Error::invalid(format!("hold for {span}: that is beyond the year 2262, the end of what can be stored"))
        })?,
    };
    if until <= clocks.earlier() {
        return Err(Error::invalid(format!("hold until {}: that is past", until.to_local())));
    }
    let mut remarks = Vec::new();
    let mut entry = None;
    let say = async |state: &LogState| {
        remarks = clocks.remark().into_iter().collect();
        let records = hold_records(state, backups, until, &mut remarks)?;
        entry = (!records.is_empty()).then_some(state.head + 1);
        Ok(records)
    };
    repository.say(say).await?;
    Ok(HoldReport { backups: backups.to_vec(), until, entry, remarks })
}

fn hold_records(
    state: &LogState,
    backups: &[ObjectHash],
    until: Timestamp,
    remarks: &mut Vec<String>,
) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for id in backups {
        let backup = state.backups.get(id).ok_or_else(|| not_there(state, "hold", id))?;
        if let Some(entry) = backup.forgotten {
            let message = format!(
                "hold backup {id}: it was forgotten by log entry {entry}; nothing was held. `everpack unforget {id}` brings it back first"
            );
            return Err(Error::invalid(message));
        }
        match backup.held_until {
            Some(held) if held > until => {
                let message = format!(
                    "hold backup {id}: it is held until {}, which is longer; nothing was held. `everpack release {id}` ends that first",
                    held.to_local()
                );
                return Err(Error::invalid(message));
            }
            Some(held) if held == until => remarks.push(format!("backup {id} was held until then already")),
            _ => {
                let record = Record::Held { backup: *id, until };
                if !records.contains(&record) {
                    records.push(record);
                }
            }
        }
    }
    Ok(records)
}

/// Ends holds.
pub async fn release(repository: &Repository, backups: &[ObjectHash]) -> Result<ReleaseReport> {
    let mut report = ReleaseReport { backups: Vec::new(), entry: None, remarks: Vec::new() };
    let say = async |state: &LogState| {
        report = ReleaseReport { backups: Vec::new(), entry: None, remarks: Vec::new() };
        for id in backups {
            let backup = state.backups.get(id).ok_or_else(|| not_there(state, "release", id))?;
            match backup.held_until {
                Some(_) if !report.backups.contains(id) => report.backups.push(*id),
                Some(_) => {}
                None => report.remarks.push(format!("backup {id} was not held")),
            }
        }
        report.entry = (!report.backups.is_empty()).then_some(state.head + 1);
        Ok(report.backups.iter().map(|id| Record::Released { backup: *id }).collect())
    };
    repository.say(say).await?;
    Ok(report)
}
