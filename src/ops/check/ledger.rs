//! What a scrub remembers: facts about packs, written down as it goes, so that a killed scrub keeps its progress.
//!
//! The scrub's session stays open meanwhile, so that packs do not vanish under it. A repository that cannot be written is read without either,
//! and the report says so.

use std::time::{Duration, Instant};

use super::CheckReport;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::format::log_record::Purpose;
use crate::format::scrub::{ScrubFact, ScrubResult};
use crate::id::ObjectName;
use crate::index::{Index, PackInfo};
use crate::repo::{Ledger, REFRESH_EVERY, Repository, Session, SessionRequest, StoreClock};

/// Facts are written down at least this often while packs are read.
const PART_EVERY: Duration = Duration::from_secs(300);

/// Keeps the ledger of one scrub.
pub(super) struct Keeper {
    repository: Repository,
    session: Option<Session>,
    clock: StoreClock,
    /// What was known before, and what was learned since.
    pub(super) ledger: Ledger,
    /// Learned and not written down yet.
    pending: Vec<ScrubFact>,
    pending_bytes: u64,
    part_bytes: u64,
    last_part: Instant,
    last_heard: Instant,
}

impl Keeper {
    /// Registers and reads what is known. `writes`: facts are to be written down.
    pub(super) async fn open(
        repository: &Repository,
        writes: bool,
        part_bytes: u64,
        report: &mut CheckReport,
    ) -> Result<Self> {
        let session = if writes { open_session(repository, report).await } else { None };
        let clock = match &session {
            Some(session) => repository.clock_of(session).await,
            None => Ok(StoreClock::at(repository.environment().clock.now())),
        };
        let now = Instant::now();
        let mut keeper = Self {
            repository: repository.clone(),
            session,
            clock: StoreClock::at(repository.environment().clock.now()),
            ledger: Ledger::default(),
            pending: Vec::new(),
            pending_bytes: 0,
            part_bytes,
            last_part: now,
            last_heard: now,
        };
        let read = async {
            keeper.clock = clock?;
            keeper.ledger = repository.ledger().await?;
            Ok(())
        };
        match read.await {
            Ok(()) => Ok(keeper),
            Err(error) => {
                keeper.abandon().await;
                Err(error)
            }
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Remembers what came of reading a pack just now.
    pub(super) fn note(&mut self, pack: &PackInfo, result: ScrubResult) {
        let fact = ScrubFact { pack: pack.name, size: pack.size, time: self.now(), result };
        self.ledger.add(&[fact]);
        self.pending.push(fact);
        self.pending_bytes += pack.size;
    }

    /// Writes down what was learned if that is much, or long ago; says from time to time that the session is alive.
    pub(super) async fn tend(&mut self, report: &mut CheckReport) {
        if self.pending_bytes >= self.part_bytes || self.last_part.elapsed() >= PART_EVERY {
            self.write_part(report).await;
        }
        if self.last_heard.elapsed() >= REFRESH_EVERY
            && let Some(session) = &self.session
        {
            // A refresh that fails costs patience, not the scrub.
            let _refreshed = session.refresh().await;
            self.last_heard = Instant::now();
        }
    }

    async fn write_part(&mut self, report: &mut CheckReport) {
        let facts = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.last_part = Instant::now();
        let Some(session) = &self.session else { return };
        if let Err(error) = self.repository.store_ledger_part(session, &facts).await {
            report.remarks.push(format!(
                "what came of {} packs could not be written down, so they count as not read: {error}",
                facts.len()
            ));
        }
    }

    /// Writes down the rest, merges old parts where they are many, and ends the session.
    pub(super) async fn finish(mut self, index: &Index, report: &mut CheckReport) {
        self.write_part(report).await;
        let Some(session) = self.session.take() else { return };
        let live = index.live_pack_numbers();
        let closed = self.repository.close_ledger_session(session, |name: &ObjectName| live.contains_key(name));
        if let Err(error) = closed.await {
            // A session that cannot be closed is fenced by the next writer of this host.
            report.remarks.push(format!("the scrub's session could not be ended: {error}"));
        }
    }

    /// Ends the session after a failure; what was learned is kept.
    pub(super) async fn abandon(mut self) {
        if let Some(session) = self.session.take() {
            let _kept = self.repository.store_ledger_part(&session, &self.pending).await;
            let _closed = session.close().await;
        }
    }
}

/// Registers, so that no prune deletes what is about to be read.
async fn open_session(repository: &Repository, report: &mut CheckReport) -> Option<Session> {
    if repository.config().store.single_writer {
        // Its lock would keep backups out for as long as the scrub takes.
        report.remarks.push("only one may write to this store, so the scrub kept no ledger".to_owned());
        return None;
    }
    let request = SessionRequest::for_work(Purpose::Scrub);
    match Session::open(repository, request).await {
        Ok(session) => Some(session),
        Err(error) => {
            let message = format!("scrubbed without ledger, since the repository cannot be written: {error}");
            report.remarks.push(message);
            None
        }
    }
}
