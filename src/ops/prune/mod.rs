//! Prune: gives back the space of what no backup needs.
//!
//! - [`usage`]: which chunks the backups need, and how much of each pack that is.
//! - [`stored`]: what the store holds that nobody names.
//! - [`plan`]: what goes, what is written anew, and why. Pure.
//! - [`rewrite`]: the chunks of packs that are written anew, in the order in which the newest backup is restored.
//! - [`fragments`]: which index fragments go or are merged.
//! - [`retire`]: the log entry after which nobody uses these objects, proved against the state that it follows.
//! - [`sweep`]: deletes what was retired, once nobody can be reading it.
//!
//! Invariant: whatever becomes of this process, every chunk of every backup that is listed lies in a live pack that exists. The proof is made
//! for the very state that the retiring entry follows (rule *revalidate-retire*), and objects go only when every session that was open
//! before is over (rule *wait-for-sessions*).
//!
//! Safe to run concurrently with: everything, also with other prunes.
//!
//! If we crash here: before the retiring entry, packs that no entry names and that the next prune sweeps; after it, retired objects, which the
//! next prune deletes.

mod fragments;
mod plan;
mod retire;
mod rewrite;
mod stored;
mod sweep;
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use plan::{PruneAction, PrunePlan, Step};

use crate::error::{Error, ErrorKind, Result};
use crate::format::log_record::Purpose;
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{Repository, Rule, Session, SessionRequest};
use crate::units::MIB;

/// How much of what stays may be unused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxUnused {
    /// This share of all stored bytes, 0 to 1.
    Share(f64),
    /// So many bytes.
    Bytes(u64),
    /// Any amount: nothing is written anew, only packs that are wholly unused go.
    Unlimited,
}

/// How a prune is done.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Plan only; nothing is written.
    pub dry_run: bool,
    /// How much of what stays may be unused.
    pub max_unused: MaxUnused,
    /// Write at most so many bytes of packs anew.
    pub max_repack: Option<u64>,
    /// Begin nothing long after so long.
    pub time_limit: Option<Duration>,
    /// A session that is silent for so long, by the store's clock, is declared dead: it would hold back what may be deleted.
    pub fence_after: Duration,
    /// Wait at most so long for running sessions to end, so that what was retired can be deleted in this run.
    pub wait: Duration,
    /// Bytes of memory to stay below.
    pub memory: u64,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            max_unused: MaxUnused::Share(0.05),
            max_repack: None,
            time_limit: None,
            fence_after: Duration::from_secs(3600),
            wait: Duration::ZERO,
            memory: 256 * MIB,
        }
    }
}

impl PruneOptions {
    fn validate(&self) -> Result<()> {
        if let MaxUnused::Share(share) = self.max_unused
            && !(0.0..=1.0).contains(&share)
        {
            return Err(Error::invalid("prune: the share that may be unused must be between 0 % and 100 %"));
        }
        Ok(())
    }
}

/// What a prune did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct PruneReport {
    /// Nothing was written.
    pub dry_run: bool,
    /// What was planned, a plan for each round; one unless there was more to write anew than fits into memory.
    pub plans: Vec<PrunePlan>,
    /// Chunks that the backups were found to name; one that many name may count more than once.
    pub references: u64,
    /// Backups that are gone for good.
    pub backups_purged: u64,
    /// Objects that nobody uses any more from now on.
    pub objects_retired: u64,
    /// Bytes of them.
    pub bytes_retired: u64,
    /// Bytes of packs that were written anew.
    pub bytes_rewritten: u64,
    /// Objects that are gone from the store, also those that earlier runs retired.
    pub objects_deleted: u64,
    /// Bytes of them, as far as they are known.
    pub bytes_deleted: u64,
    /// Retired objects that are still there, because a session that may be reading them is open.
    pub objects_waiting: u64,
    /// Who they wait for.
    pub waiting_for: Vec<String>,
    /// Everything that was planned was done; false if the time was up, the disk full, or on request.
    pub complete: bool,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// Rounds of one run: each writes at most so many chunks anew as fit into memory.
const ROUNDS_MOST: usize = 1000;
/// How often a plan is made anew because another prune was faster.
const STALE_MOST: usize = 5;

/// What a round came to.
enum Round {
    /// Nothing is left to do.
    Done,
    /// More can be written anew.
    More,
    /// Another prune retired something meanwhile: the plan was given up, nothing was changed.
    Stale,
}

/// Gives back the space of what no backup needs. `on_plan` is shown every plan before it is carried out.
///
/// Fails without a change if the list of a backup cannot be read (what it needs is then unknown), or if an index fragment is damaged.
pub async fn prune(
    repository: &Repository,
    options: &PruneOptions,
    monitor: Arc<dyn Monitor>,
    mut on_plan: impl FnMut(&PrunePlan),
) -> Result<PruneReport> {
    let begun = Instant::now();
    options.validate()?;
    let mut report = PruneReport { dry_run: options.dry_run, complete: true, ..PruneReport::default() };
    monitor.event(Event::Begin { phase: Phase::Opening, bytes: 0, items: 0 });
    let job = Job { repository, options, monitor: &monitor, deadline: deadline(begun, options.time_limit) };
    if options.dry_run {
        repository.refresh().await?;
        let planned = job.plan(None, &mut report).await?;
        on_plan(&planned.plan);
        report.plans.push(planned.plan);
    } else {
        job.run(&mut report, &mut on_plan).await?;
    }
    report.duration = begun.elapsed();
    Ok(report)
}

fn deadline(begun: Instant, limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| begun.checked_add(limit))
}

/// What every step of a run is given.
struct Job<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    monitor: &'a Arc<dyn Monitor>,
    deadline: Option<Instant>,
}

/// A plan with what is needed to carry it out and to prove it again.
struct Planned {
    plan: PrunePlan,
    usage: usage::Usage,
    stored: stored::Stored,
    chosen: plan::Chosen,
}

impl Job<'_> {
    fn must_stop(&self) -> bool {
        self.monitor.cancelled() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    async fn run(&self, report: &mut PruneReport, on_plan: &mut impl FnMut(&PrunePlan)) -> Result<()> {
        let mut stale = 0;
        for round in 1.. {
            let session = self.repository.spend_ballast(async || self.open_session().await).await?;
            if round == 1 {
                // What earlier runs retired makes room for this one.
                sweep::retired(self.repository, Some(&session), report).await?;
            }
            let outcome = self.round(&session, report, on_plan).await;
            // The retiring entry closed the session, unless there was none.
            let is_open = self.repository.state().is_open(session.id());
            let session = if is_open && self.closes_late(&outcome) {
                Some(session)
            } else {
                if is_open {
                    let closed = self.repository.spend_ballast(async || session.say_closed().await).await;
                    if outcome.is_ok() {
                        closed?;
                    }
                }
                session.unlock().await;
                None
            };
            match outcome? {
                Round::Stale if stale < STALE_MOST => stale += 1,
                Round::Stale => {
                    let message = "prune: other prunes run here and were faster every time; nothing was changed, run it again later";
                    return Err(Error::new(ErrorKind::Busy, message));
                }
                Round::More if round < ROUNDS_MOST && !self.must_stop() => {
                    sweep::retired(self.repository, None, report).await?;
                }
                more => {
                    if matches!(more, Round::More) {
                        report.complete = false;
                        report.remarks.push("the time was up: the next prune goes on".to_owned());
                    }
                    self.finish(session, report).await?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// True where rule close-before-wait is switched off: the session that retired stays open while it waits.
    fn closes_late(&self, outcome: &Result<Round>) -> bool {
        !self.repository.keeps(Rule::CloseBeforeWait) && matches!(outcome, Ok(Round::Done))
    }

    async fn open_session(&self) -> Result<Session> {
        let fence_after = self.options.fence_after;
        let request = SessionRequest { fence_after, ..SessionRequest::for_work(Purpose::Prune) };
        Session::open(self.repository, request).await
    }

    /// Deletes what can be deleted, and sweeps up behind everybody who stopped in the middle of something.
    async fn finish(&self, session: Option<Session>, report: &mut PruneReport) -> Result<()> {
        let begun = Instant::now();
        let own = session.as_ref().map(Session::id);
        while sweep::must_wait(self.repository, own) && begun.elapsed() < self.options.wait && !self.must_stop() {
            tokio::time::sleep(sweep::POLL).await;
            self.repository.refresh().await?;
        }
        sweep::retired(self.repository, session.as_ref(), report).await?;
        if let Some(session) = session {
            session.close().await?;
        }
        sweep::litter(self.repository, report).await?;
        self.repository.keep_ballast().await;
        Ok(())
    }

    /// Marks and plans. With a session, so that nothing that we look at can go.
    async fn plan(&self, session: Option<&Session>, report: &mut PruneReport) -> Result<Planned> {
        let (index, caught_up) = self.repository.caught_up_index().await?;
        if let Some((name, error)) = caught_up.rebuilt.first() {
            let message = format!(
                "prune: {name} cannot be read, so what its packs hold is known only as far as they can be read; nothing was changed; \
                 `everpack repair` writes it anew"
            );
            return Err(Error::corrupt(message).context(error.to_string()));
        }
        let state = self.repository.state();
        let usage = usage::Usage::find(self, session, &index, &state).await?;
        report.references = usage.references();
        let stored = stored::Stored::find(self.repository, &index, &state).await?;
        let chosen = plan::choose(&plan::Facts {
            usage: &usage,
            stored: &stored,
            state: &state,
            own: session.map(Session::id),
            options: self.options,
            pack_target: u64::from(self.repository.config().pack_target),
            any_orphan: !self.repository.keeps(Rule::OrphanNeedsDeadSession),
        });
        let plan = chosen.describe(&usage, &stored);
        if !stored.absent.is_empty() {
            report.remarks.push(format!(
                "{} packs are missing from the store, or cut short: `everpack check` tells what they touch",
                stored.absent.len()
            ));
        }
        Ok(Planned { plan, usage, stored, chosen })
    }

    async fn round(
        &self,
        session: &Session,
        report: &mut PruneReport,
        on_plan: &mut impl FnMut(&PrunePlan),
    ) -> Result<Round> {
        let mut planned = self.plan(Some(session), report).await?;
        on_plan(&planned.plan);
        report.plans.push(planned.plan.clone());
        if self.monitor.cancelled() {
            return Err(Error::new(ErrorKind::Unavailable, "prune: stopped on request; nothing was changed"));
        }
        let rewritten = rewrite::run(self, session, &mut planned, report).await?;
        let merged = fragments::merge(self, session, &planned, report).await?;
        if planned.chosen.is_empty() && merged.is_empty() && planned.usage.forgotten().is_empty() {
            rewritten.discard(self.repository).await;
            return Ok(Round::Done);
        }
        let more = planned.chosen.more && report.complete;
        let outcome = retire::run(self, session, planned, rewritten, merged, report).await?;
        Ok(match outcome {
            retire::Outcome::Retired if more => Round::More,
            retire::Outcome::Retired => Round::Done,
            retire::Outcome::Stale => Round::Stale,
        })
    }
}
