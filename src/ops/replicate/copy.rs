//! Packs across: one read, one write each, several on their way at once, as far as the memory allows.
//!
//! What arrives is compared with its name and its parts with each other; the copy bears the name of our session at the target. Fragments are
//! written anew from the packs' own tables and published at checkpoints, so that an interrupted run need not send them again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::pace::Pace;
use super::sides::Sides;
use super::{ReplicateOptions, ReplicateReport, blocking, stopped};
use crate::buffers::Buffers;
use crate::codec::object_hash;
use crate::error::{Error, ErrorKind, Result};
use crate::format::fragment::Fragment;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::format::pack::TableEntry;
use crate::id::{FamilyId, ObjectName, SessionId};
use crate::index::PackInfo;
use crate::pack::PackScan;
use crate::progress::Monitor;
use crate::store::{Store, StoredObject};

/// Fragments are published when this many bytes of packs are stored but unpublished,
const CHECKPOINT_BYTES: u64 = 2 << 30;
/// or this many chunks,
const CHECKPOINT_CHUNKS: usize = 150_000;
/// or after this long.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);
/// A fragment holds at most so many chunks, unless one pack alone has more,
const FRAGMENT_CHUNKS: usize = 1 << 18;
/// and so many packs.
const FRAGMENT_PACKS: usize = 65_000;
/// Packs that the origin may fail to give before it is taken to be gone.
const UNREADABLE_MOST: usize = 16;
/// So often we look whether a checkpoint is due or somebody wants us to stop.
const TICK: Duration = Duration::from_millis(500);

/// What a task brings back.
type Arrival = (u32, PackInfo, Result<Outcome>);

enum Outcome {
    Stored(ObjectName, Vec<TableEntry>),
    /// It is damaged, or not there.
    Damaged(String),
    /// The origin failed to give it, which may be the origin's fault.
    Unreadable(Error),
}

/// Copies packs, and knows which of them no published fragment names.
pub(super) struct Copier {
    pace: Option<Arc<Pace>>,
    transfers: usize,
    /// Bytes on their way at once.
    budget: u64,
    /// Packs (of the origin, by number) that are stored at the target.
    sent: HashSet<u32>,
    /// Stored packs that no stored fragment names.
    fragment: Fragment,
    unpublished_bytes: u64,
    unpublished_chunks: usize,
    last_checkpoint: Instant,
    /// Stored fragments that the log does not name.
    pending: Vec<ObjectName>,
    unreadable: usize,
    met_damage: bool,
    packs: u64,
    bytes: u64,
    chunks: u64,
}

impl Copier {
    pub(super) fn new(options: &ReplicateOptions) -> Self {
        Self {
            pace: options.limit_rate.map(|rate| Arc::new(Pace::new(rate))),
            transfers: options.transfers.max(1),
            budget: options.memory / 2,
            sent: HashSet::new(),
            fragment: Fragment::default(),
            unpublished_bytes: 0,
            unpublished_chunks: 0,
            last_checkpoint: Instant::now(),
            pending: Vec::new(),
            unreadable: 0,
            met_damage: false,
            packs: 0,
            bytes: 0,
            chunks: 0,
        }
    }

    /// Fragments of ours that are stored and in the index, and that the log does not name yet.
    pub(super) fn pending(&self) -> &[ObjectName] {
        &self.pending
    }

    /// The log names them now.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
        self.unpublished_bytes = 0;
        self.unpublished_chunks = 0;
        self.last_checkpoint = Instant::now();
    }

    /// True if the last copying met a pack that it could not use.
    pub(super) fn met_damage(&self) -> bool {
        self.met_damage
    }

    pub(super) fn has_sent(&self, number: u32) -> bool {
        self.sent.contains(&number)
    }

    /// For a dry run: what would be copied.
    pub(super) fn count(&mut self, todo: &[(u32, PackInfo)]) {
        for (number, pack) in todo {
            // Rounds may need the same pack.
            if self.sent.insert(*number) {
                self.packs += 1;
                self.bytes += pack.size;
            }
        }
    }

    pub(super) fn report(&self, report: &mut ReplicateReport) {
        report.packs = self.packs;
        report.bytes = self.bytes;
        report.chunks = self.chunks;
    }

    /// Copies packs. What cannot be used at the origin is avoided from now on; that is no error.
    pub(super) async fn copy(
        &mut self,
        sides: &mut Sides,
        todo: Vec<(u32, PackInfo)>,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<()> {
        self.met_damage = false;
        self.last_checkpoint = Instant::now();
        let carrier = Arc::new(Carrier {
            origin: sides.origin.store().clone(),
            target: sides.target.store().clone(),
            family: sides.origin.config().family,
            session: sides.session()?.suffix(),
            pace: self.pace.clone(),
            buffers: Buffers::new(self.budget),
            monitor: Arc::clone(monitor),
        });
        let mut todo = VecDeque::from(todo);
        let mut tasks: JoinSet<Arrival> = JoinSet::new();
        let mut on_their_way: u64 = 0;
        let mut failure: Option<Error> = None;
        loop {
            while failure.is_none()
                && tasks.len() < self.transfers
                && let Some((number, pack)) = todo.front().copied()
                && (tasks.is_empty() || on_their_way + pack.size <= self.budget)
            {
                todo.pop_front();
                on_their_way += pack.size;
                let carrier = Arc::clone(&carrier);
                tasks.spawn(async move { (number, pack, carrier.carry(&pack).await) });
            }
            if tasks.is_empty() {
                break;
            }
            // Awake from time to time even when nothing arrives: a session on a slow line must not look dead.
            if let Ok(Some(done)) = tokio::time::timeout(TICK, tasks.join_next()).await {
                let arrival = done.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()));
                let taken = match arrival {
                    Ok((number, pack, outcome)) => {
                        on_their_way -= pack.size;
                        self.take(sides, number, &pack, outcome, monitor).await
                    }
                    Err(error) => Err(error),
                };
                failure = failure.or(taken.err());
            }
            if failure.is_none() {
                failure = self.look_around(sides, monitor).await.err();
            }
        }
        match failure {
            Some(error) => Err(error),
            None => self.store_fragment(sides).await,
        }
    }

    async fn look_around(&mut self, sides: &mut Sides, monitor: &Arc<dyn Monitor>) -> Result<()> {
        if monitor.cancelled() {
            return Err(stopped());
        }
        let due = self.unpublished_bytes >= CHECKPOINT_BYTES
            || self.unpublished_chunks >= CHECKPOINT_CHUNKS
            || (self.last_checkpoint.elapsed() >= CHECKPOINT_EVERY && self.unpublished_bytes > 0);
        if due { self.publish(sides).await } else { sides.beat().await }
    }

    async fn take(
        &mut self,
        sides: &mut Sides,
        number: u32,
        pack: &PackInfo,
        outcome: Result<Outcome>,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<()> {
        match outcome? {
            Outcome::Stored(name, table) => {
                let is_full = self.fragment.entries.len() + table.len() > FRAGMENT_CHUNKS
                    || self.fragment.packs.len() >= FRAGMENT_PACKS;
                if is_full {
                    self.store_fragment(sides).await?;
                }
                self.fragment.push_pack(name, pack.size, &table)?;
                self.sent.insert(number);
                self.unpublished_bytes += pack.size;
                self.unpublished_chunks += table.len();
                self.packs += 1;
                self.bytes += pack.size;
                self.chunks += table.len() as u64;
                monitor.advance(pack.size, pack.size, 1);
            }
            Outcome::Damaged(what) => {
                self.met_damage = true;
                sides.avoid(pack.name, what);
            }
            Outcome::Unreadable(error) => {
                self.unreadable += 1;
                if self.unreadable > UNREADABLE_MOST {
                    let before = format!("replicate: {UNREADABLE_MOST} packs before could not be read either");
                    return Err(error.context(before));
                }
                self.met_damage = true;
                let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
                sides.avoid(pack.name, format!("{error}{cause}"));
            }
        }
        Ok(())
    }

    /// Stores the fragment of the packs that arrived, and puts it into the target's index.
    async fn store_fragment(&mut self, sides: &Sides) -> Result<()> {
        if self.fragment.packs.is_empty() {
            return Ok(());
        }
        let name = sides.target.store_fragment(sides.session()?, &mut self.fragment).await?;
        let fragment = std::mem::take(&mut self.fragment);
        self.pending.push(name);
        let index = Arc::clone(&sides.to);
        blocking(move || index.insert(&[(name, fragment)])).await
    }

    /// A checkpoint: whatever happens from here on, what arrived so far is found by the next run.
    pub(super) async fn publish(&mut self, sides: &mut Sides) -> Result<()> {
        self.store_fragment(sides).await?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let fragments = self.pending.clone();
        let published = async |_: &LogState| Ok(vec![Record::FragmentsPublished { fragments: fragments.clone() }]);
        sides.session()?.say(published).await?;
        self.forget_pending();
        sides.was_heard().await;
        Ok(())
    }
}

/// Carries single packs.
struct Carrier {
    origin: Store,
    target: Store,
    family: FamilyId,
    session: SessionId,
    pace: Option<Arc<Pace>>,
    buffers: Buffers,
    monitor: Arc<dyn Monitor>,
}

impl Carrier {
    /// Fails only if the target cannot take it, or on request.
    async fn carry(&self, pack: &PackInfo) -> Result<Outcome> {
        if let Some(pace) = &self.pace
            && !pace.wait(pack.size, &*self.monitor).await
        {
            return Err(stopped());
        }
        let buffer = self.buffers.take(pack.size);
        let stored = match self.origin.get_into(StoredObject::Named(pack.name), pack.size, buffer).await {
            Ok(stored) => self.buffers.lend(stored),
            Err(error) if error.is_damage() => return Ok(Outcome::Damaged(error.to_string())),
            Err(error) => return Ok(Outcome::Unreadable(error)),
        };
        let (name, family, bytes) = (pack.name, self.family, stored.clone());
        let table = match blocking(move || verify(&name, family, &bytes)).await {
            Ok(table) => table,
            Err(error) if error.is_damage() => return Ok(Outcome::Damaged(error.to_string())),
            Err(error) => return Err(error),
        };
        let copy = ObjectName { session: self.session, ..pack.name };
        self.target.put_new(StoredObject::Named(copy), vec![stored]).await?;
        Ok(Outcome::Stored(copy, table))
    }
}

/// Proves that these are the bytes that the pack's writer stored, and gives its table.
fn verify(name: &ObjectName, family: FamilyId, stored: &[u8]) -> Result<Vec<TableEntry>> {
    if object_hash(stored) != name.hash {
        return Err(Error::corrupt("its bytes are not those of its name"));
    }
    let scan = PackScan::new(stored, family)?;
    Ok(scan.table().to_vec())
}
