//! What goes and what is written anew. Pure: from facts to a choice, without a look at clocks, stores or other processes.

use std::collections::HashSet;

use super::stored::Stored;
use super::usage::{KnownPack, Usage};
use super::{MaxUnused, PruneOptions};
use crate::format::log_state::LogState;
use crate::id::{ObjectKind, ObjectName, SessionId};

/// Memory for each chunk that is written anew in a round, and as much again for what else is in memory.
const BYTES_PER_MOVE: u64 = 512;
/// A pack smaller than this share of the target is small.
const SMALL_SHARE: u64 = 4;
/// So many small packs of one kind are put together.
const SMALL_MANY: usize = 12;

/// What a choice is made from.
pub(super) struct Facts<'a> {
    pub(super) usage: &'a Usage,
    pub(super) stored: &'a Stored,
    pub(super) state: &'a LogState,
    /// Our own session.
    pub(super) own: Option<SessionId>,
    pub(super) options: &'a PruneOptions,
    /// Bytes of a full pack.
    pub(super) pack_target: u64,
    /// Rule orphan-needs-dead-session is switched off.
    pub(super) any_orphan: bool,
}

/// Why a pack is written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Too much of it is unused.
    Unused,
    /// It is one of many small ones.
    Small,
}

/// What was chosen. Numbers are those of packs in the index.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Packs of which nothing is needed, or nothing that is not elsewhere.
    pub(super) dead: Vec<u32>,
    /// Packs whose needed chunks are written anew.
    pub(super) rewritten: Vec<(u32, Reason)>,
    /// Objects that nobody names and nobody will.
    pub(super) orphans: Vec<(ObjectName, u64)>,
    /// There is more to write anew than one round takes.
    pub(super) more: bool,
    /// Objects of sessions that the log does not know.
    strangers: u64,
    /// Unused bytes that stay.
    unused: u64,
    kept_packs: u64,
    kept_bytes: u64,
    /// Packs and bytes that stay because an interrupted backup may be continued.
    checkpoints: (u64, u64),
    running: (u64, u64),
}

/// What is done with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PruneAction {
    /// It goes.
    Delete,
    /// What is needed of it is written anew, then it goes.
    Rewrite,
    /// It stays.
    Keep,
}

/// A line of a plan.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// What is done.
    pub action: PruneAction,
    /// With what.
    pub what: &'static str,
    /// How many objects.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of them that backups need.
    pub needed_bytes: u64,
    /// Why.
    pub why: &'static str,
}

/// What a prune is going to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PrunePlan {
    /// What is done with what, and why.
    pub steps: Vec<Step>,
    /// Bytes of all packs before.
    pub bytes_before: u64,
    /// Bytes of all packs when everything that goes is deleted.
    pub bytes_after: u64,
    /// Bytes of those that no backup needs.
    pub unused_after: u64,
    /// Chunks that backups need and no live pack holds: `everpack check` names them.
    pub missing_chunks: u64,
    /// Objects of sessions that the log does not know: never deleted, a log entry may be lost.
    pub unknown_objects: u64,
}

/// Chooses.
pub(super) fn choose(facts: &Facts<'_>) -> Chosen {
    let mut chosen = Chosen::default();
    let mut candidates: Vec<u32> = Vec::new();
    for (number, pack) in (0u32..).zip(&facts.usage.packs) {
        if !pack.is_named || facts.state.retired.contains_key(&pack.info.name) {
            continue;
        }
        let session = pack.info.name.session;
        let is_running = facts.state.is_open(session) && facts.own != Some(session);
        if !pack.is_live {
            // Damaged as it is, it may hold the only copy of something; and what is missing may be in it.
            if facts.state.quarantined.contains_key(&pack.info.name) && !pack.used.is_last_hope && !is_running {
                chosen.dead.push(number);
            }
            continue;
        }
        let aside = if is_running {
            Some(&mut chosen.running)
        } else if facts.stored.kept_sessions.contains(&session) {
            Some(&mut chosen.checkpoints)
        } else {
            None
        };
        if let Some((count, bytes)) = aside {
            *count += 1;
            *bytes += pack.info.size;
        } else if pack.used.kept_chunks == 0 {
            chosen.dead.push(number);
        } else if facts.stored.absent.contains(&pack.info.name) {
            // Needed, and not there: nothing can be written anew out of it.
        } else {
            candidates.push(number);
        }
    }
    choose_rewritten(facts, candidates, &mut chosen);
    choose_orphans(facts, &mut chosen);
    chosen
}

fn pack(facts: &Facts<'_>, number: u32) -> KnownPack {
    facts.usage.packs[number as usize]
}

fn unused(pack: &KnownPack) -> u64 {
    pack.info.size.saturating_sub(pack.used.kept_bytes)
}

fn choose_rewritten(facts: &Facts<'_>, mut candidates: Vec<u32>, chosen: &mut Chosen) {
    let bytes: u64 = candidates.iter().map(|number| pack(facts, *number).info.size).sum();
    let mut rest: u64 = candidates.iter().map(|number| unused(&pack(facts, *number))).sum();
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share need not be exact, and is between 0 and 1"
    )]
    let allowed = match facts.options.max_unused {
        MaxUnused::Share(share) => (bytes as f64 * share) as u64,
        MaxUnused::Bytes(bytes) => bytes,
        MaxUnused::Unlimited => u64::MAX,
    };
    let mut room = facts.options.max_repack.unwrap_or(u64::MAX);
    let mut chunks = 0;
    // Those first of which most is unused: they give the most space for the least writing.
    candidates.sort_by_cached_key(|number| {
        let pack = pack(facts, *number);
        let share = u128::from(unused(&pack)) * 1_000_000 / u128::from(pack.info.size.max(1));
        (std::cmp::Reverse(share), *number)
    });
    let mut taken: HashSet<u32> = HashSet::new();
    let mut take = |number: u32, reason: Reason, chosen: &mut Chosen| -> bool {
        let used = pack(facts, number).used;
        if used.kept_bytes > room {
            return false;
        }
        if chunks > 0 && chunks + used.kept_chunks > facts.options.memory / BYTES_PER_MOVE {
            chosen.more = true;
            return false;
        }
        chunks += used.kept_chunks;
        room -= used.kept_bytes;
        chosen.rewritten.push((number, reason));
        true
    };
    for number in &candidates {
        let least = unused_least(facts);
        let unused = unused(&pack(facts, *number));
        if rest <= allowed || unused <= least {
            continue;
        }
        if take(*number, Reason::Unused, chosen) {
            taken.insert(*number);
            rest -= unused;
        }
    }
    if facts.options.max_unused != MaxUnused::Unlimited {
        for kind in [ObjectKind::DataPack, ObjectKind::MetaPack] {
            let is_small = |number: &&u32| {
                let pack = pack(facts, **number);
                pack.info.name.kind == kind && pack.info.size < facts.pack_target / SMALL_SHARE
            };
            let small: Vec<u32> =
                candidates.iter().filter(|number| !taken.contains(*number)).filter(is_small).copied().collect();
            if small.len() >= SMALL_MANY {
                for number in small {
                    if take(number, Reason::Small, chosen) {
                        taken.insert(number);
                        rest -= unused(&pack(facts, number));
                    }
                }
            }
        }
    }
    chosen.unused = rest;
    for number in candidates.iter().filter(|number| !taken.contains(*number)) {
        chosen.kept_packs += 1;
        chosen.kept_bytes += pack(facts, *number).info.size;
    }
}

/// Header and trailer, and a little: not worth writing a pack anew for.
fn unused_least(facts: &Facts<'_>) -> u64 {
    facts.pack_target / 1000 + 128
}

fn choose_orphans(facts: &Facts<'_>, chosen: &mut Chosen) {
    for (name, size) in &facts.stored.unnamed {
        match facts.state.sessions.get(&name.session) {
            None => chosen.strangers += 1,
            // What is missing may be in one of them.
            Some(_) if facts.usage.missing() > 0 => {}
            Some(session) if session.over.is_some() || (facts.any_orphan && facts.own != Some(name.session)) => {
                chosen.orphans.push((*name, *size));
            }
            Some(_) => {}
        }
    }
}

impl Chosen {
    /// True if nothing goes.
    pub(super) fn is_empty(&self) -> bool {
        self.dead.is_empty() && self.rewritten.is_empty() && self.orphans.is_empty()
    }

    /// All packs that go.
    pub(super) fn gone(&self) -> HashSet<u32> {
        self.dead.iter().copied().chain(self.rewritten.iter().map(|(number, _)| *number)).collect()
    }

    /// For people.
    pub(super) fn describe(&self, usage: &Usage, stored: &Stored) -> PrunePlan {
        let pack = |number: &u32| usage.packs[*number as usize];
        let sum = |numbers: &[u32]| -> (u64, u64, u64) {
            let (mut bytes, mut needed) = (0, 0);
            for number in numbers {
                bytes += pack(number).info.size;
                needed += pack(number).used.kept_bytes;
            }
            (numbers.len() as u64, bytes, needed)
        };
        let mut steps = Vec::new();
        let mut add = |action, what, why, (objects, bytes, needed_bytes): (u64, u64, u64)| {
            if objects > 0 {
                steps.push(Step { action, what, objects, bytes, needed_bytes, why });
            }
        };
        let (spare, dead): (Vec<u32>, Vec<u32>) =
            self.dead.iter().copied().partition(|number| pack(number).used.spare_bytes > 0);
        add(PruneAction::Delete, "packs", "no backup needs anything in them", sum(&dead));
        add(PruneAction::Delete, "packs", "what is needed of them lies in other packs as well", sum(&spare));
        let rewritten = |wanted: Reason| -> Vec<u32> {
            self.rewritten.iter().filter(|(_, reason)| *reason == wanted).map(|(number, _)| *number).collect()
        };
        let unused = rewritten(Reason::Unused);
        add(PruneAction::Rewrite, "packs", "too much of them is unused", sum(&unused));
        let small = rewritten(Reason::Small);
        add(PruneAction::Rewrite, "packs", "many small ones become few large ones", sum(&small));
        let orphans = |is_pack: bool| {
            let wanted =
                |name: &ObjectName| matches!(name.kind, ObjectKind::DataPack | ObjectKind::MetaPack) == is_pack;
            let found = self.orphans.iter().filter(|(name, _)| wanted(name));
            found.fold((0, 0, 0), |(count, sum, _), (_, size)| (count + 1, sum + size, 0))
        };
        add(PruneAction::Delete, "packs", "left behind by interrupted runs", orphans(true));
        add(PruneAction::Delete, "fragments and manifests", "left behind by interrupted runs", orphans(false));
        let purged = usage.forgotten().len() as u64;
        add(PruneAction::Delete, "manifests", "of forgotten backups", (purged, 0, 0));
        add(PruneAction::Keep, "packs", "a running session stored them", (self.running.0, self.running.1, 0));
        let checkpoints = (self.checkpoints.0, self.checkpoints.1, 0);
        add(PruneAction::Keep, "packs", "an interrupted run of the last week may go on with them", checkpoints);
        let kept = (self.kept_packs, self.kept_bytes, self.kept_bytes.saturating_sub(self.unused));
        add(PruneAction::Keep, "packs", "backups need them", kept);
        let live: u64 = usage.packs.iter().filter(|pack| pack.is_live).map(|pack| pack.info.size).sum();
        let before = live + orphans(true).1;
        let moved: u64 = self.rewritten.iter().map(|(number, _)| pack(number).used.kept_bytes).sum();
        let gone: u64 = self.gone().iter().map(pack).filter(|pack| pack.is_live).map(|p| p.info.size).sum();
        let strays = stored.unnamed.len() as u64;
        PrunePlan {
            steps,
            bytes_before: before,
            bytes_after: (live - gone).saturating_add(moved),
            unused_after: self.unused,
            missing_chunks: usage.missing(),
            unknown_objects: self.strangers.min(strays),
        }
    }
}
