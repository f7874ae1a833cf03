//! What time it is, by more than one clock.

use std::collections::HashMap;
use std::time::Duration;

use futures::stream::TryStreamExt;

use crate::clock::Timestamp;
use crate::error::{Context, Result};
use crate::format::log_state::LogState;
use crate::repo::Repository;
use crate::store::{Folder, StoredObject};

/// A difference that is worth a remark.
const WORTH_SAYING: Duration = Duration::from_secs(24 * 3600);

/// This machine's clock and the store's, read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    local: Timestamp,
    store: Option<Timestamp>,
}

impl Clocks {
    /// Asks both; the store is asked by an object that is written and removed.
    pub(super) async fn read(repository: &Repository) -> Result<Self> {
        let asked = repository.spend_ballast(async || repository.store_time().await);
        let store = asked.await.context(|| "ask the store for the time")?;
        Ok(Self { local: repository.environment().clock.now(), store })
    }

    /// This machine's clock alone, for who only looks.
    pub(super) fn local(repository: &Repository) -> Self {
        Self { local: repository.environment().clock.now(), store: None }
    }

    /// What both agree to be past: the time for whatever forgets more the later it is.
    pub(super) fn earlier(&self) -> Timestamp {
        self.store.map_or(self.local, |store| store.min(self.local))
    }

    /// The time for whatever keeps more the later it is.
    pub(super) fn later(&self) -> Timestamp {
        self.store.map_or(self.local, |store| store.max(self.local))
    }

    /// That one of them is wrong, if it is.
    pub(super) fn remark(&self) -> Option<String> {
        let store = self.store?;
        let apart = store.since(self.local).max(self.local.since(store));
        (apart > WORTH_SAYING).then(|| {
            format!(
                "this machine's clock says {}, the store's {}: one of them is wrong. The earlier one was used to forget, the later one to hold",
                self.local.to_local(),
                store.to_local()
            )
        })
    }
}

/// When the store wrote the log's entries: one listing, and what came since.
#[derive(Debug, Default)]
pub(super) struct EntryTimes {
    up_to: u64,
    times: HashMap<u64, Timestamp>,
}

impl EntryTimes {
    /// Learns of the entries up to the state's.
    pub(super) async fn catch_up(&mut self, repository: &Repository, state: &LogState) -> Result<()> {
        if self.up_to == 0 {
            let first = state.listed().first().map_or(state.head, |backup| backup.entry);
            self.up_to = first.saturating_sub(1);
        }
        if self.up_to >= state.head {
            return Ok(());
        }
        let mut listing = repository.store().list_from(Folder::Log, StoredObject::Log(self.up_to));
        while let Some(info) = listing.try_next().await.context(|| "learn when backups were committed")? {
            if let StoredObject::Log(number) = info.object() {
                self.times.insert(number, info.last_modified);
            }
        }
        self.up_to = state.head;
        Ok(())
    }

    /// When the store wrote this entry; nothing if it did not say.
    pub(super) fn of(&self, entry: u64) -> Option<Timestamp> {
        self.times.get(&entry).copied()
    }
}
