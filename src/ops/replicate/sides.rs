//! The two repositories: their indexes, our sessions in both, and whether either log went backwards since they last met.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::{ReplicateOptions, ReplicateReport};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::log_record::Purpose;
use crate::id::{EntryHash, ObjectName};
use crate::index::{Index, catch_up};
use crate::repo::{REFRESH_EVERY, Repository, Session, SessionRequest};

/// Origin and target of one run.
pub(super) struct Sides {
    pub(super) origin: Repository,
    pub(super) target: Repository,
    /// The origin's index.
    pub(super) from: Arc<Index>,
    /// The target's.
    pub(super) to: Arc<Index>,
    /// At the target; none in a dry run.
    pub(super) session: Option<Session>,
    /// At the origin, so that its packs stay; none if it cannot be written.
    pub(super) origin_session: Option<Session>,
    /// Packs of the origin that cannot be used, and why.
    avoid: BTreeMap<ObjectName, String>,
    /// Packs that the target's log calls live and its store does not have.
    absent: HashSet<ObjectName>,
    heard: Instant,
}

impl Sides {
    /// Registers on both sides and catches both indexes up.
    pub(super) async fn open(
        origin: &Repository,
        target: &Repository,
        options: &ReplicateOptions,
        report: &mut ReplicateReport,
    ) -> Result<Self> {
        origin.refresh().await?;
        target.refresh().await?;
        check_origin(origin, target, options, report).await?;
        check_target(origin, target, report).await?;
        let mut session = None;
        let mut origin_session = None;
        if !options.dry_run {
            let opened = Session::open(target, request()).await;
            session = Some(opened.context(|| format!("register at the target {}", target.location()))?);
            match Session::open(origin, request()).await {
                Ok(opened) => origin_session = Some(opened),
                Err(error) => report.remarks.push(format!(
                    "reading {} without a session, since it cannot be written: {error}",
                    origin.location()
                )),
            }
        }
        let mut open = async || {
            let (from, from_report) = origin.caught_up_index().await?;
            let (to, to_report) = target.caught_up_index().await?;
            for (name, error) in from_report.rebuilt.iter().chain(&to_report.rebuilt) {
                report
                    .remarks
                    .push(format!("{name} could not be read ({error}); its chunks were found through pack tables"));
            }
            let absent = target.leave_out_bad_packs(&to).await?;
            if !absent.is_empty() {
                let count = absent.len();
                report.remarks.push(format!(
                    "{count} packs are missing from {}: what the chosen backups need of them is sent again; run `everpack check` there",
                    target.location()
                ));
            }
            Ok((from, to, absent))
        };
        let opened = open().await;
        match opened {
            Ok((from, to, absent)) => Ok(Self {
                origin: origin.clone(),
                target: target.clone(),
                from,
                to,
                session,
                origin_session,
                avoid: BTreeMap::new(),
                absent,
                heard: Instant::now(),
            }),
            Err(error) => {
                close(session).await;
                close(origin_session).await;
                Err(error)
            }
        }
    }

    pub(super) fn session(&self) -> Result<&Session> {
        self.session.as_ref().ok_or_else(|| Error::invalid("a dry run writes nothing"))
    }

    /// Says from time to time that we are alive.
    pub(super) async fn beat(&mut self) -> Result<()> {
        if self.heard.elapsed() < REFRESH_EVERY {
            return Ok(());
        }
        if let Some(session) = &self.session {
            session.refresh().await?;
        }
        self.beat_at_origin().await;
        Ok(())
    }

    /// The target heard of us just now by what we said there.
    pub(super) async fn was_heard(&mut self) {
        if self.heard.elapsed() >= REFRESH_EVERY / 2 {
            self.beat_at_origin().await;
        }
    }

    async fn beat_at_origin(&mut self) {
        self.heard = Instant::now();
        if let Some(session) = &self.origin_session {
            // A refresh that fails costs patience: should our packs go, we look again.
            let _refreshed = session.refresh().await;
        }
    }

    /// Brings the target's index up to date, where `pending` are fragments of ours that its log does not name yet; with `origin_too` the
    /// origin's as well, because something there was not as its log said.
    pub(super) async fn catch_up(&mut self, pending: &[ObjectName], origin_too: bool) -> Result<()> {
        self.target.refresh().await?;
        catch_up(&self.to, self.target.store(), &self.target.state(), pending).await?;
        self.leave_out_absent();
        if origin_too {
            self.origin.refresh().await?;
            self.catch_up_origin().await?;
        }
        Ok(())
    }

    /// Brings the origin's index to the state last read.
    pub(super) async fn catch_up_origin(&mut self) -> Result<()> {
        let state = self.origin.state();
        catch_up(&self.from, self.origin.store(), &state, &[]).await?;
        // What is not live any more is no damage.
        let live = self.from.live_pack_numbers();
        self.avoid.retain(|name, _| live.contains_key(name));
        self.leave_out_avoided();
        Ok(())
    }

    fn leave_out_absent(&self) {
        if self.absent.is_empty() {
            return;
        }
        let state = self.target.state();
        self.to.set_live(|name| state.is_dead(name) || self.absent.contains(name));
    }

    fn leave_out_avoided(&self) {
        if self.avoid.is_empty() {
            return;
        }
        let state = self.origin.state();
        self.from.set_live(|name| state.is_dead(name) || self.avoid.contains_key(name));
    }

    /// From now on nothing is taken from this pack of the origin.
    pub(super) fn avoid(&mut self, name: ObjectName, why: String) {
        self.avoid.entry(name).or_insert(why);
        self.leave_out_avoided();
    }

    /// True if what the target's log promises cannot be taken for granted there.
    pub(super) fn target_is_damaged(&self) -> bool {
        !self.absent.is_empty() || !self.target.state().quarantined.is_empty()
    }

    pub(super) fn report_avoided(&self, report: &mut ReplicateReport) {
        for (name, why) in &self.avoid {
            report.find(
                format!("{name} of {}", self.origin.location()),
                why.clone(),
                "run `everpack check --read-data` and `everpack repair` at the origin",
            );
        }
    }

    /// Ends both sessions without a result. What fails here is fenced later.
    pub(super) async fn abandon(&mut self) {
        close(self.session.take()).await;
        close(self.origin_session.take()).await;
    }
}

async fn close(session: Option<Session>) {
    if let Some(session) = session {
        let _closed = session.close().await;
    }
}

fn request() -> SessionRequest {
    SessionRequest::for_work(Purpose::Replicate)
}

/// True if the repository's log holds this entry.
async fn holds(repository: &Repository, number: u64, hash: EntryHash) -> Result<bool> {
    if number == 0 {
        return Ok(true);
    }
    if number > repository.state().head {
        return Ok(false);
    }
    repository.chain().has_entry(number, hash).await
}

/// The target remembers an entry of the origin's log: a log without it is another one.
async fn check_origin(
    origin: &Repository,
    target: &Repository,
    options: &ReplicateOptions,
    report: &mut ReplicateReport,
) -> Result<()> {
    let Some((number, hash)) = target.state().replicas.get(&origin.id()).copied() else { return Ok(()) };
    if holds(origin, number, hash).await? {
        return Ok(());
    }
    let message = format!(
        "the log of the origin {} went backwards or was replaced: {} was filled from it up to entry {number} {hash}, and now it ends at {} \
         without that entry. Backups may be missing there that the replica still has",
        origin.location(),
        target.location(),
        origin.state().head
    );
    if options.accept_rollback || options.dry_run {
        report.remarks.push(message);
        return Ok(());
    }
    let message = format!(
        "replicate: {message}. Look at both with `everpack list` and `everpack replicate --prove`; --accept-rollback goes on with the \
         origin as it is now, and removes nothing"
    );
    Err(Error::new(ErrorKind::Corrupt, message))
}

/// The origin remembers an entry of the target's log.
async fn check_target(origin: &Repository, target: &Repository, report: &mut ReplicateReport) -> Result<()> {
    let Some((number, hash)) = origin.state().replicas.get(&target.id()).copied() else { return Ok(()) };
    if !holds(target, number, hash).await? {
        report.remarks.push(format!(
            "the log of the replica {} went backwards: it had entry {number} {hash}, and now it ends at {} without it. What the chosen \
             backups lack there is sent again; run `everpack check` there",
            target.location(),
            target.state().head
        ));
    }
    Ok(())
}
