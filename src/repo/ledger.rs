//! The scrub ledger: which packs were read when, and what came of it (docs/format/scrub.md).
//!
//! A set of facts spread over parts, each written by one scrub. The union is what is known, the newest fact of a pack counts. Nothing relies on
//! it: without it packs are read once more than needed. So a damaged part is dropped and told, never an error.
//!
//! If we crash here: a merged part may lie beside the parts it was made of. They say the same.
//!
//! Safe to run concurrently with: everything, other merges too: each retires only what its own merged part repeats.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};

use super::Repository;
use super::session::Session;
use crate::clock::Timestamp;
use crate::codec::object_hash;
use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::format::scrub::{ScrubFact, ScrubPart, ScrubResult};
use crate::id::{ObjectKind, ObjectName};
use crate::index::PackInfo;
use crate::store::{Folder, StoredObject};

/// Parts fetched at once.
const FETCH_AT_ONCE: usize = 8;
/// More parts than this, of sessions that are over, are merged into one.
const PARTS_MOST: usize = 16;
/// What counts as read of late.
const RECENT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is known of all packs that were ever read.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    facts: HashMap<ObjectName, ScrubFact>,
    /// The parts that were read.
    pub(crate) parts: Vec<ObjectName>,
    /// The parts that could not be, with why.
    pub(crate) dropped: Vec<(ObjectName, Error)>,
}

impl Ledger {
    /// Takes facts in; of two about a pack the newer one counts, of two as old the worse one.
    pub(crate) fn add(&mut self, facts: &[ScrubFact]) {
        for fact in facts {
            let known = self.facts.entry(fact.pack).or_insert(*fact);
            let worse = fact.time == known.time && known.result == ScrubResult::Whole;
            if fact.time > known.time || worse {
                *known = *fact;
            }
        }
    }

    /// What came of the last reading.
    pub(crate) fn fact(&self, pack: &ObjectName) -> Option<&ScrubFact> {
        self.facts.get(pack)
    }

    /// When the pack was last read and found whole; `None` if it never was, or was damaged since.
    pub(crate) fn read_at(&self, pack: &ObjectName) -> Option<Timestamp> {
        self.fact(pack).filter(|fact| fact.result == ScrubResult::Whole).map(|fact| fact.time)
    }

    /// True if the last reading found the pack damaged or missing.
    pub(crate) fn is_damaged(&self, pack: &ObjectName) -> bool {
        self.fact(pack).is_some_and(|fact| fact.result != ScrubResult::Whole)
    }

    /// How old the readings of these packs are.
    pub(crate) fn age(&self, packs: &[PackInfo], now: Timestamp) -> ScrubAge {
        let mut age = ScrubAge::default();
        let mut recent: u64 = 0;
        for pack in packs {
            age.packs += 1;
            age.bytes += pack.size;
            match (self.read_at(&pack.name), self.is_damaged(&pack.name)) {
                (Some(read), _) => {
                    age.oldest_read = Some(age.oldest_read.map_or(read, |oldest| oldest.min(read)));
                    recent += if now.since(read) <= RECENT { pack.size } else { 0 };
                }
                (None, true) => age.damaged += 1,
                (None, false) => {
                    age.never_read += 1;
                    age.never_read_bytes += pack.size;
                }
            }
        }
        age.oldest_age = age.oldest_read.map(|read| now.since(read).as_secs());
        #[allow(clippy::cast_precision_loss, reason = "shown to people")]
        let share = if age.bytes == 0 { 1.0 } else { recent as f64 / age.bytes as f64 };
        age.recent_share = share;
        age
    }
}

/// How long ago the live packs were read and found whole, by the scrub ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct ScrubAge {
    /// Live packs.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packs that no scrub ever read.
    pub never_read: u64,
    /// Bytes of them.
    pub never_read_bytes: u64,
    /// Packs that the last reading found damaged or missing.
    pub damaged: u64,
    /// When the pack was read that was read longest ago; `None` if none ever was.
    pub oldest_read: Option<Timestamp>,
    /// How long ago that was, seconds.
    pub oldest_age: Option<u64>,
    /// Share of the bytes that was read within the last 30 days, 0 to 1.
    pub recent_share: f64,
}

impl ScrubAge {
    /// In words: `every pack was read within the last 12 days`.
    pub fn describe(&self) -> String {
        let days = |seconds: u64| match seconds.div_ceil(24 * 3600) {
            0 | 1 => "day".to_owned(),
            days => format!("{days} days"),
        };
        let damaged = if self.damaged > 0 { format!("; found damaged: {}", self.damaged) } else { String::new() };
        let said = match (self.packs, self.never_read, self.oldest_age) {
            (0, ..) => "there is no pack".to_owned(),
            (packs, never, _) if packs == never => "no pack was ever read".to_owned(),
            (_, 0, Some(oldest)) if self.damaged == 0 => {
                format!("every pack was read within the last {}", days(oldest))
            }
            (packs, never, _) => {
                let share = (self.recent_share * 100.0).floor();
                format!("never read: {never} of {packs} packs; {share} % of the bytes were read within 30 days")
            }
        };
        said + &damaged
    }
}

/// The store's own clock, as far as it tells: the time that it gave to an entry of ours, and what went by since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreClock {
    base: Timestamp,
    since: Instant,
}

impl StoreClock {
    pub(crate) fn at(base: Timestamp) -> Self {
        Self { base, since: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.since.elapsed().as_nanos()).unwrap_or(i64::MAX);
        Timestamp::from_nanos(self.base.as_nanos().saturating_add(passed))
    }
}

impl Repository {
    /// Everything that scrubs wrote down. What cannot be read is dropped, with why.
    pub(crate) async fn ledger(&self) -> Result<Ledger> {
        let names = self.ledger_parts().await?;
        let mut ledger = Ledger::default();
        let mut fetched =
            stream::iter(names).map(|name| async move { (name, self.read_part(&name).await) }).buffered(FETCH_AT_ONCE);
        while let Some((name, part)) = fetched.next().await {
            match part {
                Ok(part) => {
                    ledger.add(&part.facts);
                    ledger.parts.push(name);
                }
                // Merged and deleted since the listing: the merged part says the same.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                    ledger.dropped.push((name, error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ledger)
    }

    /// The parts that are not retired.
    async fn ledger_parts(&self) -> Result<Vec<ObjectName>> {
        let state = self.state();
        let mut names = Vec::new();
        let mut listing = self.store().list(Folder::Scrub);
        while let Some(info) = listing.try_next().await? {
            if let StoredObject::Named(name) = info.object()
                && !state.retired.contains_key(&name)
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    async fn read_part(&self, name: &ObjectName) -> Result<ScrubPart> {
        ScrubPart::decode(&self.get_named(name).await?)
    }

    /// Writes facts down under the session's name.
    pub(crate) async fn store_ledger_part(&self, session: &Session, facts: &[ScrubFact]) -> Result<()> {
        if facts.is_empty() {
            return Ok(());
        }
        let stored = Bytes::from(ScrubPart { facts: facts.to_vec() }.encode());
        let name = ObjectName { kind: ObjectKind::Scrub, hash: object_hash(&stored), session: session.suffix() };
        self.store().put_new(StoredObject::Named(name), vec![stored]).await
    }

    /// Merges parts of sessions that are over where there are many, and closes the session by the same entry that retires them. Facts of packs
    /// that `is_live` does not know are left out.
    pub(crate) async fn close_ledger_session(
        &self,
        session: Session,
        is_live: impl Fn(&ObjectName) -> bool,
    ) -> Result<()> {
        let merged = self.merge_parts(&session, is_live).await;
        let retired = merged.as_ref().ok().cloned().unwrap_or_default();
        let closed = session
            .say(async |state: &LogState| {
                let mut records = Vec::new();
                let objects: Vec<_> =
                    retired.iter().filter(|name| !state.retired.contains_key(name)).copied().collect();
                if !objects.is_empty() {
                    records.push(Record::ObjectsRetired { objects, superseded: Vec::new(), added: Vec::new() });
                }
                records.extend(session.closing_records(state).await?);
                Ok(records)
            })
            .await;
        session.unlock().await;
        closed?;
        merged.map(|_| ())
    }

    /// Stores the merged part; gives what it makes superfluous.
    async fn merge_parts(&self, session: &Session, is_live: impl Fn(&ObjectName) -> bool) -> Result<Vec<ObjectName>> {
        let state = self.state();
        let parts = self.ledger_parts().await?.into_iter().filter(|name| state.is_over(name.session)).count();
        if parts <= PARTS_MOST {
            return Ok(Vec::new());
        }
        let ledger = self.ledger().await?;
        let damaged = self.damaged_ledger_parts().await?;
        let old: Vec<_> = ledger.parts.iter().filter(|name| state.is_over(name.session)).copied().collect();
        if old.len() <= PARTS_MOST {
            return Ok(damaged);
        }
        let facts: Vec<_> = ledger.facts.values().filter(|fact| is_live(&fact.pack)).copied().collect();
        self.store_ledger_part(session, &facts).await?;
        Ok(old.into_iter().chain(damaged).collect())
    }

    /// Parts of sessions that are over that are not what their names say. A later version's part is not ours to judge.
    pub(crate) async fn damaged_ledger_parts(&self) -> Result<Vec<ObjectName>> {
        let state = self.state();
        let dropped = self.ledger().await?.dropped.into_iter();
        let damaged = dropped.filter(|(name, error)| error.kind() == ErrorKind::Corrupt && state.is_over(name.session));
        Ok(damaged.map(|(name, _)| name).collect())
    }

    /// The store's clock when the session began; our own if the store does not tell.
    pub(crate) async fn clock_of(&self, session: &Session) -> Result<StoreClock> {
        let opened = self.state().sessions.get(&session.id()).map(|session| session.opened);
        let told = match opened {
            Some(entry) => self.store().head(StoredObject::Log(entry)).await?.map(|info| info.last_modified),
            None => None,
        };
        let told = told.filter(|time| time.as_nanos() > 0);
        Ok(StoreClock::at(told.unwrap_or_else(|| self.environment().clock.now())))
    }
}
