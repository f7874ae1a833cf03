//! Sessions: a writer's registration in the log.
//!
//! Rule *open-before-read*: a session is registered before it looks at what exists, so the state that it works from is the one its own entry
//! follows. The open session of a lineage is the lineage's lock. Fencing a dead one is a matter of patience, never of safety: a session that
//! was fenced while it lived learns so at its next append, and its unpublished packs are lost.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use super::{Repository, Rule};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::{Purpose, Record, SessionInfo};
use crate::format::log_state::{LogState, SessionState};
use crate::id::{LineageId, SessionId, Token};
use crate::log::{Append, CHECKPOINT_EVERY, NO_SESSION, Process};
use crate::store::{Holder, SingleWriter, Store, StoredObject};

/// A long session says that it is alive this often.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_secs(600);

/// A session that holds a lineage counts as dead after this long, unless the user says otherwise.
const FENCE_AFTER: Duration = Duration::from_secs(3600);

/// A session that nobody waits for counts as dead after this long: it holds back what prune may delete.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a session is opened for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionRequest {
    pub(crate) purpose: Purpose,
    /// Whose lock it takes; `None` for none.
    pub(crate) lineage: Option<LineageId>,
    /// A silent session of another host counts as dead after this long: whoever holds our lineage; for a prune, anybody.
    pub(crate) fence_after: Duration,
    /// Fence whoever holds the lineage, alive or not.
    pub(crate) takeover: bool,
}

impl SessionRequest {
    /// For work that takes no lineage's lock.
    pub(crate) fn for_work(purpose: Purpose) -> Self {
        Self { purpose, lineage: None, fence_after: FENCE_AFTER, takeover: false }
    }
}

/// An open session. Whoever drops it without `close` leaves it to be fenced.
#[derive(Debug)]
pub(crate) struct Session {
    repository: Repository,
    id: SessionId,
    /// On a store that cannot refuse a second create: the advisory lock.
    lock: Mutex<Option<SingleWriter>>,
}

impl Session {
    /// Registers, and thereby brings the repository's state up to the entry that did.
    pub(crate) async fn open(repository: &Repository, request: SessionRequest) -> Result<Self> {
        let environment = repository.environment();
        let lock = if repository.config().store.single_writer {
            Some(repository.lock_store(request.takeover).await?)
        } else {
            None
        };
        let mut state = LogState::clone(&repository.state());
        repository.chain().advance(&mut state).await?;
        repository.set_state(state.clone());
        repository.opened_index().await?;
        if lock.is_none() {
            repository.chain().confirm_create_only(&state).await?;
        }
        let mut heard = Heard::default();
        loop {
            let id = SessionId::from_bytes(environment.entropy.array()?);
            // A name that was used has no say any more.
            if state.sessions.contains_key(&id) {
                continue;
            }
            let mut records = repository.fence_the_dead(&state, &request, &mut heard).await?;
            records.insert(0, Record::SessionOpened(repository.describe_session(id, &request)));
            let appended =
                repository.chain().append(&mut state, id, records, &*environment.clock, &*environment.entropy);
            let appended = appended.await?;
            repository.set_state(state.clone());
            if matches!(appended, Append::Done) {
                return Ok(Self { repository: repository.clone(), id, lock: Mutex::new(lock) });
            }
        }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// What the names of our objects end in (rule names-carry-session).
    pub(crate) fn suffix(&self) -> SessionId {
        if self.repository.keeps(Rule::NamesCarrySession) { self.id } else { SessionId::from_bytes([1; 8]) }
    }

    /// Appends in the name of the session. `decide` sees the state that the entry will follow and says what may be said; it is asked again
    /// whenever another writer was first.
    pub(crate) async fn say<F>(&self, mut decide: F) -> Result<()>
    where
        F: AsyncFnMut(&LogState) -> Result<Vec<Record>>,
    {
        let environment = self.repository.environment();
        let mut state = LogState::clone(&self.repository.state());
        self.repository.chain().advance(&mut state).await?;
        loop {
            // Rule fence-check.
            if !state.is_open(self.id) && self.repository.keeps(Rule::FenceCheck) {
                return Err(self.fenced(&state));
            }
            if let Some(lock) = &*self.lock.lock().await {
                lock.check().await?;
            }
            self.repository.set_state(state.clone());
            let records = decide(&state).await?;
            let chain = self.repository.chain();
            let appended =
                chain.append(&mut state, self.id, records, &*environment.clock, &*environment.entropy).await?;
            self.repository.set_state(state.clone());
            if matches!(appended, Append::Done) {
                return Ok(());
            }
        }
    }

    fn fenced(&self, state: &LogState) -> Error {
        let by = state.sessions.get(&self.id).and_then(|session| session.over);
        let entry = by.map_or_else(String::new, |entry| format!(" by log entry {entry}"));
        let message = format!(
            "session {}: was declared dead{entry} while it ran (a takeover, or silence for too long); nothing was committed, run it again",
            self.id
        );
        Error::new(ErrorKind::Busy, message)
    }

    /// The records that end the session, with a state object where one is due.
    pub(crate) async fn closing_records(&self, state: &LogState) -> Result<Vec<Record>> {
        let mut records = vec![Record::SessionClosed { session: self.id }];
        let last = state.checkpoint.map_or(0, |(number, _)| number);
        if state.head >= last + CHECKPOINT_EVERY {
            match self.repository.chain().store_state(state).await {
                Ok(named) => records.push(named),
                // Only a hint, and the entry itself may be what frees space.
                Err(error) if error.is_disk_full() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// Says that the session is alive.
    pub(crate) async fn refresh(&self) -> Result<()> {
        self.say(async |_: &LogState| Ok(vec![Record::SessionRefreshed])).await
    }

    /// Does the work, and says from time to time that the session, if there is one, is alive.
    pub(crate) async fn while_alive<T>(session: Option<&Self>, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(REFRESH_EVERY, &mut work).await {
                Ok(done) => return done,
                Err(_) => {
                    if let Some(session) = session {
                        // A refresh that fails costs patience, not the work.
                        let _refreshed = session.refresh().await;
                    }
                }
            }
        }
    }

    /// Ends the session without a result.
    pub(crate) async fn close(self) -> Result<()> {
        let closed = self.say_closed().await;
        self.unlock().await;
        closed
    }

    /// The same, so that it can be tried again; the advisory lock stays.
    pub(crate) async fn say_closed(&self) -> Result<()> {
        self.say(async |state: &LogState| self.closing_records(state).await).await
    }

    /// Gives the advisory lock back, if there is one.
    pub(crate) async fn unlock(&self) {
        if let Some(lock) = self.lock.lock().await.take() {
            // A lock that stays is named by the next run, which may take it over.
            let _released = lock.release().await;
        }
    }
}

impl Repository {
    /// Appends in nobody's name: an operator's command, which relies on nothing that could go. `decide` sees the state that the entry will
    /// follow, and is asked again whenever another writer was first; no records, no entry. On a full disk the ballast makes room: what
    /// operators say is what frees space.
    pub(crate) async fn say<F>(&self, mut decide: F) -> Result<()>
    where
        F: AsyncFnMut(&LogState) -> Result<Vec<Record>>,
    {
        self.spend_ballast(async || self.say_as_is(&mut decide).await).await
    }

    async fn say_as_is<F>(&self, decide: &mut F) -> Result<()>
    where
        F: AsyncFnMut(&LogState) -> Result<Vec<Record>>,
    {
        let environment = self.environment();
        let lock = if self.config().store.single_writer { Some(self.lock_store(false).await?) } else { None };
        let outcome = async {
            let mut state = LogState::clone(&self.state());
            self.chain().advance(&mut state).await?;
            self.opened_index().await?;
            if lock.is_none() {
                self.chain().confirm_create_only(&state).await?;
            }
            loop {
                self.set_state(state.clone());
                let records = decide(&state).await?;
                if records.is_empty() {
                    return Ok(());
                }
                let appended =
                    self.chain().append(&mut state, NO_SESSION, records, &*environment.clock, &*environment.entropy);
                let appended = appended.await?;
                self.set_state(state.clone());
                if matches!(appended, Append::Done) {
                    return Ok(());
                }
            }
        };
        let outcome = outcome.await;
        if let Some(lock) = lock {
            // A lock that stays is named by the next run, which may take it over.
            let _released = lock.release().await;
        }
        outcome
    }

    /// Takes the advisory lock of a store that cannot be shared.
    async fn lock_store(&self, takeover: bool) -> Result<SingleWriter> {
        let process = &self.environment().process;
        let holder = Holder {
            host: process.host.clone(),
            boot_id: process.boot_id.clone(),
            pid_namespace: process.pid_namespace,
            pid: process.pid,
            started: process.started,
            since: self.environment().clock.now(),
        };
        let store: &Store = self.store();
        if takeover {
            SingleWriter::remove(store).await?;
        }
        let is_gone = |holder: &Holder| {
            process.knows_to_be_gone(&Process {
                host: holder.host.clone(),
                boot_id: holder.boot_id.clone(),
                pid_namespace: holder.pid_namespace,
                pid: holder.pid,
                started: holder.started,
            })
        };
        SingleWriter::acquire(store, &holder, Token::from_bytes(self.environment().entropy.array()?), is_gone).await
    }

    fn describe_session(&self, session: SessionId, request: &SessionRequest) -> SessionInfo {
        let process = &self.environment().process;
        SessionInfo {
            session,
            purpose: request.purpose,
            lineage: request.lineage.unwrap_or(LineageId::from_bytes([0; 16])),
            host: process.host.clone(),
            boot_id: process.boot_id.clone(),
            pid_namespace: process.pid_namespace,
            pid: process.pid,
            pid_started: process.started,
        }
    }

    /// Fences sessions that are gone; fails with `Busy` if the lineage is held by one that is not.
    async fn fence_the_dead(
        &self,
        state: &LogState,
        request: &SessionRequest,
        heard: &mut Heard,
    ) -> Result<Vec<Record>> {
        let process = &self.environment().process;
        let silent = state.open_sessions().filter(|(_, session)| match &session.info {
            Some(info) => !process.knows_to_be_gone(&Process::of_session(info)),
            None => false,
        });
        heard.learn(self, silent.map(|(_, session)| session.last_seen)).await?;
        let mut records = Vec::new();
        for (id, session) in state.open_sessions() {
            let Some(info) = &session.info else { continue };
            let holds_ours = request.lineage.is_some_and(|lineage| lineage == info.lineage);
            if self.environment().process.knows_to_be_gone(&Process::of_session(info)) {
                let why = format!("process {} of host {} is gone", info.pid, info.host);
                records.push(Record::SessionFenced { session: id, why });
            } else if holds_ours && request.takeover {
                let why =
                    format!("taken over by process {} of host {}", std::process::id(), self.environment().process.host);
                records.push(Record::SessionFenced { session: id, why });
            } else {
                let silent = heard.silent_for(session);
                let is_waited_for = holds_ours || request.purpose == Purpose::Prune;
                let patience =
                    if is_waited_for { request.fence_after } else { FORGOTTEN_AFTER.max(request.fence_after) };
                if silent < patience {
                    if holds_ours {
                        return Err(busy(info, silent, patience));
                    }
                    continue;
                }
                let why = format!("silent for {}", crate::units::duration(silent));
                records.push(Record::SessionFenced { session: id, why });
            }
        }
        Ok(records)
    }

    /// Now, by the store's own clock; nothing if the store does not show what was just written.
    pub(crate) async fn store_time(&self) -> Result<Option<Timestamp>> {
        // What is written now bears the time of the store's clock.
        let probe = StoredObject::Probe(Token::from_bytes(self.environment().entropy.array()?));
        self.store().put_new(&probe, vec![Bytes::from_static(b"what time is it?")]).await?;
        let written = self.store().head(&probe).await?;
        // Whoever may not delete may ask all the same; an object that stays is empty talk.
        let _stays = self.store().delete(&probe).await;
        Ok(written.map(|written| written.last_modified))
    }
}

/// Requests at once when we ask how long others have been silent.
const ASK_AT_ONCE: usize = 16;

/// When entries of the log were written and what time it is now, by the store's own clock. Asked once: while many hosts begin at the same
/// minute, whoever asks again in every round is overtaken in every round.
#[derive(Debug, Default)]
struct Heard {
    now: Option<Timestamp>,
    entries: HashMap<u64, Timestamp>,
}

impl Heard {
    /// Asks what is not known yet of these entries.
    async fn learn(&mut self, repository: &Repository, entries: impl Iterator<Item = u64>) -> Result<()> {
        let unknown: BTreeSet<u64> = entries.filter(|entry| !self.entries.contains_key(entry)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let ask = |entry: u64| async move {
            Ok::<_, Error>((entry, repository.store().head(StoredObject::Log(entry)).await?))
        };
        let mut found = futures::stream::iter(unknown).map(ask).buffered(ASK_AT_ONCE);
        while let Some((entry, info)) = found.try_next().await? {
            self.entries.extend(info.map(|info| (entry, info.last_modified)));
        }
        drop(found);
        if self.now.is_none() {
            self.now = repository.store_time().await?;
        }
        Ok(())
    }

    /// How long ago the session's newest entry was written; no time at all if that is not known.
    fn silent_for(&self, session: &SessionState) -> Duration {
        match (self.now, self.entries.get(&session.last_seen)) {
            (Some(now), Some(then)) => now.since(*then),
            _ => Duration::ZERO,
        }
    }
}

fn busy(info: &SessionInfo, silent: Duration, fence_after: Duration) -> Error {
    let message = format!(
        "another backup of the same lineage is running (session {}, process {} on {}, last heard of {} ago); wait for it, or --takeover if it \
         is dead (it counts as dead after {})",
        info.session,
        info.pid,
        info.host,
        crate::units::duration(silent),
        crate::units::duration(fence_after)
    );
    Error::new(ErrorKind::Busy, message)
}
