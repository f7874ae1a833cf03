//! The whole log read from its first entry, with everything that is wrong in it named. For `check`; everybody else stops at the first damage.

use std::collections::{BTreeMap, HashSet};

use futures::stream::{self, StreamExt, TryStreamExt};

use super::chain::{Chain, FETCH_AT_ONCE, gap, joined};
use crate::codec::{entry_hash, object_hash};
use crate::error::{ErrorKind, Result};
use crate::format::log_entry::LogEntry;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::{EntryHash, ObjectHash};
use crate::store::{Folder, StoredObject};

/// Something wrong in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogFault {
    /// An entry that is damaged, or does not follow from the one before.
    Damaged { number: u64, why: String },
    /// Entries that are not there, though later ones are.
    Missing { first: u64, last: u64 },
    /// Something said that no correct writer says; it has no effect.
    Odd(String),
    /// A state object whose bytes are not what its name says.
    BadState { object: StoredObject, why: String },
    /// A state object that says something else than the log, though an entry names it: it is believed.
    FalseState { object: StoredObject },
    /// A state object that no entry names: a writer stopped before it said so.
    UnnamedState { object: StoredObject },
    /// Something among the entries that is none.
    Stray { object: StoredObject },
}

/// What a reading of the whole log gave.
#[derive(Debug)]
pub(crate) struct Examined {
    /// Everything folded; `None` if some entry is damaged or missing.
    pub(crate) state: Option<LogState>,
    /// Entries that are there.
    pub(crate) entries: u64,
    pub(crate) faults: Vec<LogFault>,
    /// The hash of the entry asked for.
    pub(crate) watched: Option<EntryHash>,
}

/// A reading under way.
struct Reading {
    state: Option<LogState>,
    /// The entry read last and its hash, if it was whole.
    last: Option<(u64, EntryHash)>,
    faults: Vec<LogFault>,
    /// State objects that entries name.
    named: HashSet<(u64, ObjectHash)>,
}

impl Chain {
    /// Reads every entry and every state object. `watch` is a number whose entry's hash is wanted.
    pub(crate) async fn examine(&self, watch: Option<u64>) -> Result<Examined> {
        let (numbers, mut faults) = self.list_entries().await?;
        let mut hints = self.list_states().await?;
        let entries = numbers.len() as u64;
        let mut reading = Reading {
            state: Some(LogState::empty(self.config_hash())),
            last: None,
            faults: Vec::new(),
            named: HashSet::new(),
        };
        let mut watched = None;
        let mut expected = 1;
        let mut fetched = stream::iter(numbers)
            .map(|number| async move { (number, self.fetch(number).await) })
            .buffered(FETCH_AT_ONCE);
        while let Some((number, stored)) = fetched.next().await {
            if number > expected {
                reading.faults.push(LogFault::Missing { first: expected, last: number - 1 });
                (reading.state, reading.last) = (None, None);
            }
            expected = number.saturating_add(1);
            match stored {
                Ok(stored) => {
                    reading.take(number, &stored);
                    if watch == Some(number) {
                        watched = Some(entry_hash(&stored));
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                    reading.damaged(number, error.to_string());
                }
                Err(error) => return Err(error),
            }
            for hash in hints.remove(&number).unwrap_or_default() {
                self.compare_state(number, hash, &mut reading).await?;
            }
        }
        let state = reading.state.take().filter(|state| state.head == expected - 1);
        for (number, hashes) in hints {
            for hash in hashes {
                self.compare_state(number, hash, &mut reading).await?;
            }
        }
        drop(fetched);
        let Reading { faults: found, named, .. } = reading;
        faults.extend(found);
        // Only now is it known what later entries name.
        faults.retain(|fault| match fault {
            LogFault::UnnamedState { object: StoredObject::LogState { n, hash } } => !named.contains(&(*n, *hash)),
            _ => true,
        });
        Ok(Examined { state, entries, faults, watched })
    }

    async fn list_entries(&self) -> Result<(Vec<u64>, Vec<LogFault>)> {
        let (numbers, faults) = self.list_entries_once().await?;
        if gap(0, &numbers).is_none() {
            return Ok((numbers, faults));
        }
        let (again, faults) = self.list_entries_once().await?;
        Ok((joined(numbers, again), faults))
    }

    async fn list_entries_once(&self) -> Result<(Vec<u64>, Vec<LogFault>)> {
        let (mut numbers, mut faults) = (Vec::new(), Vec::new());
        let mut listing = self.store().list(Folder::Log);
        while let Some(info) = listing.try_next().await? {
            match info.object() {
                StoredObject::Log(number) if number > 0 => numbers.push(number),
                object => faults.push(LogFault::Stray { object }),
            }
        }
        numbers.sort_unstable();
        Ok((numbers, faults))
    }

    async fn list_states(&self) -> Result<BTreeMap<u64, Vec<ObjectHash>>> {
        let mut hints: BTreeMap<u64, Vec<ObjectHash>> = BTreeMap::new();
        let mut listing = self.store().list(Folder::LogState);
        while let Some(info) = listing.try_next().await? {
            if let StoredObject::LogState { n, hash } = info.object() {
                hints.entry(n).or_default().push(hash);
            }
        }
        Ok(hints)
    }

    /// Compares a state object with the fold, which stands at the same entry if it stands at all.
    async fn compare_state(&self, number: u64, hash: ObjectHash, reading: &mut Reading) -> Result<()> {
        let object = StoredObject::LogState { n: number, hash };
        let stored = match self.store().get(&object).await {
            Ok(stored) => stored,
            // Anybody may delete one.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if object_hash(&stored) != hash {
            let why = "the bytes are not those of its name".to_owned();
            reading.faults.push(LogFault::BadState { object, why });
            return Ok(());
        }
        let decoded = match LogState::decode(&stored) {
            Ok(decoded) => decoded,
            Err(error) => {
                reading.faults.push(LogFault::BadState { object, why: error.to_string() });
                return Ok(());
            }
        };
        let differs = match &reading.state {
            Some(state) => !says_the_same(&decoded, state),
            None => decoded.head != number,
        };
        if differs {
            reading.faults.push(LogFault::FalseState { object: object.clone() });
        }
        reading.faults.push(LogFault::UnnamedState { object });
        Ok(())
    }
}

/// True if two states agree in everything that the log says.
pub(crate) fn says_the_same(a: &LogState, b: &LogState) -> bool {
    // Which state object is the newest is known only to who read the entries after it.
    let plain = |state: &LogState| LogState { checkpoint: None, ..state.clone() };
    plain(a) == plain(b)
}

impl Reading {
    fn damaged(&mut self, number: u64, why: String) {
        self.faults.push(LogFault::Damaged { number, why });
        (self.state, self.last) = (None, None);
    }

    fn take(&mut self, number: u64, stored: &[u8]) {
        let entry = match LogEntry::decode(stored) {
            Ok(entry) => entry,
            Err(error) => return self.damaged(number, error.to_string()),
        };
        if entry.number != number {
            return self.damaged(number, format!("it is entry {}, in the place of another", entry.number));
        }
        let hash = entry_hash(stored);
        match self.state.as_mut().map(|state| state.apply(&entry, hash)) {
            Some(Ok(odd)) => self.faults.extend(odd.into_iter().map(LogFault::Odd)),
            Some(Err(error)) => {
                self.damaged(number, error.to_string());
            }
            None => {
                if self.last.is_some_and(|(last, last_hash)| last + 1 == number && last_hash != entry.previous) {
                    self.damaged(number, format!("does not follow from entry {}", number - 1));
                }
            }
        }
        self.last = Some((number, hash));
        self.named.extend(entry.records.iter().filter_map(|record| match record {
            Record::StateCheckpointed { number, hash } => Some((*number, *hash)),
            _ => None,
        }));
    }
}
