//! Unforget: forgotten backups come back into the list, after the proof that everything they name is still live.
//!
//! The proof holds for the state of the log that it was made against. It is made again, against the state that the entry follows, if any pack
//! or fragment went in between; what a pruner retires after our entry, it weighs against that entry (rule *revalidate-retire*).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decide::not_there;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::{ChunkId, ObjectHash, ObjectName};
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{Reach, Repository};

/// What came back.
#[derive(Clone, Debug, serde::Serialize)]
pub struct UnforgetReport {
    /// Which backups.
    pub backups: Vec<ObjectHash>,
    /// Chunks that were looked up to prove it; one that many files name may count more than once.
    pub chunks: u64,
    /// The log entry that brought them back; none if none was forgotten.
    pub entry: Option<u64>,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
}

/// How often the proof is begun anew because others changed the log while it failed.
const TRIES: u32 = 5;

/// Brings forgotten backups back: all of them or, after an error, none. Fails if anything that they name is gone.
pub async fn unforget(
    repository: &Repository,
    backups: &[ObjectHash],
    monitor: Arc<dyn Monitor>,
) -> Result<UnforgetReport> {
    monitor.event(Event::Begin { phase: Phase::Planning, bytes: 0, items: 0 });
    let mut tries = 0;
    let outcome = loop {
        tries += 1;
        repository.refresh().await?;
        let outcome = attempt(repository, backups, &*monitor).await;
        let Err(error) = &outcome else { break outcome };
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) || tries == TRIES {
            break outcome;
        }
        // What is missing may have been moved by a prune meanwhile: only a log that stands still is believed.
        let head = repository.state().head;
        repository.refresh().await?;
        if repository.state().head == head {
            break outcome;
        }
    };
    monitor.event(Event::End { phase: Phase::Planning });
    outcome
}

async fn attempt(repository: &Repository, backups: &[ObjectHash], monitor: &dyn Monitor) -> Result<UnforgetReport> {
    let (wanted, _) = choose(&repository.state(), backups)?;
    // The long part is done before, so that the entry's own moment is short.
    let mut proof = Proof::make(repository, wanted, monitor).await?;
    let mut remarks = Vec::new();
    let mut entry = None;
    let say = async |state: &LogState| {
        let (wanted, said) = choose(state, backups)?;
        remarks = said;
        if !proof.holds_for(&wanted, state) {
            proof = Proof::make(repository, wanted.clone(), monitor).await?;
        }
        entry = (!wanted.is_empty()).then_some(state.head + 1);
        proof.backups = wanted.clone();
        Ok(if wanted.is_empty() { Vec::new() } else { vec![Record::BackupsUnforgotten { backups: wanted }] })
    };
    repository.say(say).await?;
    Ok(UnforgetReport { backups: proof.backups, chunks: proof.chunks, entry, remarks })
}

/// Which of the backups are forgotten, and what is to be said of the others.
fn choose(state: &LogState, backups: &[ObjectHash]) -> Result<(Vec<ObjectHash>, Vec<String>)> {
    let (mut wanted, mut remarks) = (Vec::new(), Vec::new());
    for id in backups {
        let backup = state.backups.get(id).ok_or_else(|| not_there(state, "unforget", id))?;
        if backup.forgotten.is_none() {
            remarks.push(format!("backup {id} is not forgotten"));
        } else if !wanted.contains(id) {
            wanted.push(*id);
        }
    }
    Ok((wanted, remarks))
}

/// Every chunk that some backups name was in a live pack.
#[derive(Debug)]
pub(super) struct Proof {
    backups: Vec<ObjectHash>,
    chunks: u64,
    // What decides which packs are live.
    fragments: Vec<(u64, ObjectName)>,
    retired: BTreeMap<ObjectName, u64>,
    quarantined: BTreeMap<ObjectName, String>,
}

impl Proof {
    /// Looks every chunk up in the state last read.
    pub(super) async fn make(repository: &Repository, backups: Vec<ObjectHash>, monitor: &dyn Monitor) -> Result<Self> {
        let state = repository.state();
        let mut chunks = 0;
        if !backups.is_empty() {
            let index = repository.index().await?;
            let mut reach = Reach::new(repository, &index);
            for id in &backups {
                let (mut lost, mut first) = (0_u64, None);
                let look = async |ids: &mut Vec<ChunkId>| {
                    if monitor.cancelled() {
                        return Err(Error::new(ErrorKind::Unavailable, "stopped on request; nothing was changed"));
                    }
                    let found = index.lookup(ids)?;
                    for (id, _) in ids.iter().zip(found).filter(|(_, location)| location.is_none()) {
                        lost += 1;
                        first.get_or_insert(*id);
                    }
                    chunks += ids.len() as u64;
                    monitor.advance(0, 0, ids.len() as u64);
                    Ok(())
                };
                let walked = async { reach.visit(&repository.manifest(id).await?, look).await };
                walked.await.context(|| format!("prove that backup {id} can come back"))?;
                if let Some(first) = first {
                    return Err(gone(id, lost, &first));
                }
            }
        }
        let (fragments, retired) = (state.fragments.clone(), state.retired.clone());
        Ok(Self { backups, chunks, fragments, retired, quarantined: state.quarantined.clone() })
    }

    /// True if it says the same of these backups in this state: packs may have come since, none may have gone.
    pub(super) fn holds_for(&self, backups: &[ObjectHash], state: &LogState) -> bool {
        backups.iter().all(|id| self.backups.contains(id))
            && state.fragments.starts_with(&self.fragments)
            && state.retired == self.retired
            && state.quarantined == self.quarantined
    }
}

fn gone(id: &ObjectHash, lost: u64, first: &ChunkId) -> Error {
    let message = format!(
        "unforget backup {id}: {lost} of the chunks it names are in no live pack any more, the first is {first}: they were pruned, or their \
         packs are quarantined. It cannot come back whole; nothing was changed"
    );
    Error::new(ErrorKind::NotFound, message)
}
