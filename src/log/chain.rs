//! Reading and extending the chain of entries. The only place that touches `log/` and `log-state/`.
//!
//! Invariant: entry n+1 is created once, by one writer, who had folded entry n: creating it *is* the compare-and-swap. Entries are never
//! deleted, so the number of a lost entry cannot come back; a gap in the listing is damage, and nobody writes over it.
//!
//! If we crash between creating an entry and reading the reply, the entry counts: the next run folds it like anybody's.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::clock::Clock;
use crate::codec::{entry_hash, object_hash};
use crate::entropy::Entropy;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::log_entry::LogEntry;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::{EntryHash, ObjectHash, SessionId, Token};
use crate::store::{Folder, OBJECT_LEN_MAX, Put, Store, StoredObject, confirm_create_only};

/// Entries fetched at once.
pub(super) const FETCH_AT_ONCE: usize = 16;
/// A state object is written when the newest one is this many entries old.
pub(crate) const CHECKPOINT_EVERY: u64 = 64;

/// What came of an attempt to append.
#[derive(Debug)]
pub(crate) enum Append {
    /// The entry is in the log, and folded.
    Done,
    /// Another writer was first; its entry is folded. Check again whether what you want still holds.
    Lost,
}

/// The chain of log entries in one store.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    store: Store,
    config_hash: EntryHash,
}

impl Chain {
    pub(crate) fn new(store: Store, config_hash: EntryHash) -> Self {
        Self { store, config_hash }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// What the first entry follows.
    pub(crate) fn config_hash(&self) -> EntryHash {
        self.config_hash
    }

    /// Folds the log, beginning at the newest state object that a later entry names.
    pub(crate) async fn load(&self) -> Result<LogState> {
        let mut hints: Vec<(u64, ObjectHash)> = Vec::new();
        let mut listing = self.store.list(Folder::LogState);
        while let Some(info) = listing.try_next().await? {
            if let StoredObject::LogState { n, hash } = info.object() {
                hints.push((n, hash));
            }
        }
        hints.sort_unstable();
        while let Some((number, hash)) = hints.pop() {
            if let Some(state) = self.load_from(number, hash).await? {
                return Ok(state);
            }
        }
        self.load_whole().await.map(|(state, _)| state)
    }

    /// Folds from the first entry, with everything odd that was met.
    pub(crate) async fn load_whole(&self) -> Result<(LogState, Vec<String>)> {
        let mut state = LogState::empty(self.config_hash);
        let odd = self.advance(&mut state).await?;
        Ok((state, odd))
    }

    /// Begins at a state object; `None` if it is not what a later entry says it is.
    async fn load_from(&self, number: u64, hash: ObjectHash) -> Result<Option<LogState>> {
        let object = StoredObject::LogState { n: number, hash };
        let stored = match self.store.get(&object).await {
            Ok(stored) => stored,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // A damaged or foreign hint is no reason to stop: the log itself is the truth, and `check` reports the hint.
        if object_hash(&stored) != hash {
            return Ok(None);
        }
        let Ok(mut state) = LogState::decode(&stored) else { return Ok(None) };
        if state.head != number {
            return Ok(None);
        }
        // The state says nothing of `config`; entry 1 does.
        self.check_config().await?;
        state.checkpoint = None;
        match self.advance(&mut state).await {
            // The log may be another than the one that was folded here, rolled back and written on: fold it from further back.
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(None),
            advanced => advanced?,
        };
        Ok((state.checkpoint == Some((number, hash)) || self.is_named(number, hash, state.head).await?)
            .then_some(state))
    }

    /// Entry 1 follows from `config`: under a log that is believed from a later state, `config` could have been exchanged. An entry 1 that cannot
    /// be read is no reason to stop here: `check` names it.
    async fn check_config(&self) -> Result<()> {
        let stored = match self.fetch(1).await {
            Err(error) if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => return Err(error),
            stored => stored,
        };
        match stored.and_then(|stored| LogEntry::decode(&stored)) {
            Ok(first) => LogState::empty(self.config_hash).check_follows(&first),
            Err(_) => Ok(()),
        }
    }

    /// True if an entry after `number` names this state object.
    async fn is_named(&self, number: u64, hash: ObjectHash, head: u64) -> Result<bool> {
        for at in number + 1..=head.min(number + CHECKPOINT_EVERY) {
            let entry = LogEntry::decode(&self.fetch(at).await?)?;
            let wanted = Record::StateCheckpointed { number, hash };
            if entry.records.contains(&wanted) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes in every entry after the state's head.
    pub(crate) async fn advance(&self, state: &mut LogState) -> Result<Vec<String>> {
        let mut numbers = self.numbers_after(state.head).await?;
        if gap(state.head, &numbers).is_some() {
            numbers = joined(numbers, self.numbers_after(state.head).await?);
        }
        if let Some((expected, found)) = gap(state.head, &numbers) {
            let message = format!(
                "read the log of {}: entry {expected} is missing, entry {found} is there: the log is damaged, nothing may be written",
                self.store.display()
            );
            return Err(Error::corrupt(message));
        }
        let mut odd = Vec::new();
        let mut entries = stream::iter(numbers).map(|number| self.fetch(number)).buffered(FETCH_AT_ONCE);
        while let Some(stored) = entries.try_next().await? {
            odd.extend(take(state, &stored)?);
        }
        Ok(odd)
    }

    async fn numbers_after(&self, after: u64) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        let mut listing = self.store.list_from(Folder::Log, StoredObject::Log(after));
        while let Some(info) = listing.try_next().await? {
            match info.object() {
                StoredObject::Log(number) if number > after => numbers.push(number),
                _ => {}
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// True if the entry of this number has this hash.
    pub(crate) async fn has_entry(&self, number: u64, hash: EntryHash) -> Result<bool> {
        Ok(entry_hash(&self.fetch(number).await?) == hash)
    }

    pub(super) async fn fetch(&self, number: u64) -> Result<Bytes> {
        self.store.get(StoredObject::Log(number)).await
    }

    /// Creates the entry that follows `state`. The caller checked against exactly this state that `records` may be said.
    pub(crate) async fn append(
        &self,
        state: &mut LogState,
        session: SessionId,
        records: Vec<Record>,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<Append> {
        if let Some(code) = state.unknown_mandatory.first() {
            let message = format!(
                "append to the log of {}: it holds records of kind {code} that this everpack does not know: it may read, not write",
                self.store.display()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let entry = LogEntry {
            number: state.head + 1,
            previous: state.head_hash.unwrap_or(self.config_hash),
            token: Token::from_bytes(entropy.array()?),
            session,
            time: clock.now(),
            tool: crate::TOOL.to_owned(),
            records,
        };
        let stored = Bytes::from(entry.encode());
        let object = StoredObject::Log(entry.number);
        match self.store.create(&object, stored.clone()).await? {
            Put::Created => {
                take(state, &stored)?;
                Ok(Append::Done)
            }
            Put::AlreadyThere(theirs) => {
                take(state, &theirs)?;
                self.follow(state).await?;
                Ok(Append::Lost)
            }
        }
    }

    /// Takes in what came behind the head just now: entry after entry, until there is none. Where writers race, that is one small request; a
    /// listing takes as long as ten of them, and whoever lists in every round is overtaken in every round.
    async fn follow(&self, state: &mut LogState) -> Result<()> {
        while let Some(stored) = self.store.get_if_there(StoredObject::Log(state.head + 1), OBJECT_LEN_MAX).await? {
            take(state, &stored)?;
        }
        Ok(())
    }

    /// Keeps the state in an object, and gives the record that makes it believed.
    pub(crate) async fn store_state(&self, state: &LogState) -> Result<Record> {
        let stored = Bytes::from(state.encode());
        let hash = object_hash(&stored);
        self.store.put_new(StoredObject::LogState { n: state.head, hash }, vec![stored]).await?;
        Ok(Record::StateCheckpointed { number: state.head, hash })
    }

    /// Creates the newest entry once more and must be told that it exists: the store may have been copied to one that overwrites.
    pub(crate) async fn confirm_create_only(&self, state: &LogState) -> Result<()> {
        if state.head == 0 {
            return Ok(());
        }
        let stored = self.fetch(state.head).await?;
        confirm_create_only(&self.store, StoredObject::Log(state.head), stored).await
    }
}

/// Verifies an entry against the chain and folds it.
fn take(state: &mut LogState, stored: &[u8]) -> Result<Vec<String>> {
    let entry = LogEntry::decode(stored).context(|| format!("read log entry {}", state.head + 1))?;
    state.apply(&entry, entry_hash(stored))
}

/// The first entry that is not listed although a later one is: (it, the later one).
pub(super) fn gap(after: u64, numbers: &[u64]) -> Option<(u64, u64)> {
    let found = (after + 1..).zip(numbers).find(|(expected, found)| expected != *found);
    found.map(|(expected, found)| (expected, *found))
}

/// What is there, by a listing that shows a gap and a second one that began when the first had ended.
///
/// A directory is not listed in one moment: of two entries created meanwhile, a listing may show the later one alone. Whatever entry
/// the first listing shows, those before it were there when the second began, so the second shows them. What only the second shows may
/// have gaps of its own, and is left for the next time.
pub(super) fn joined(first: Vec<u64>, second: Vec<u64>) -> Vec<u64> {
    let newest = first.last().copied().unwrap_or(0);
    let both: BTreeSet<u64> = first.into_iter().chain(second.into_iter().filter(|number| *number <= newest)).collect();
    both.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_created_while_the_directory_was_listed_is_no_gap() {
        // 8 and 9 came while the first listing was under way, 11 and 12 during the second.
        let (first, second) = (vec![6, 7, 9], vec![6, 7, 8, 9, 10, 12]);
        assert_eq!(gap(5, &first), Some((8, 9)));
        let numbers = joined(first, second);
        assert_eq!(numbers, [6, 7, 8, 9]);
        assert_eq!(gap(5, &numbers), None);
    }

    #[test]
    fn an_entry_that_no_listing_shows_is_missing() {
        let numbers = joined(vec![6, 7, 9], vec![6, 7, 9, 10]);
        assert_eq!(gap(5, &numbers), Some((8, 9)));
        assert_eq!(gap(5, &[7]), Some((6, 7)));
        assert_eq!(gap(5, &[]), None);
    }
}
