//! Requests of several actors in an order that a seed decides: one at a time, and only when every actor has said what it wants next.
//!
//! An actor is a process with a view of the store of its own. It asks for something, or it ends; in between it computes. So there is always
//! somebody to choose from, and a run with the same seed takes (nearly) the same turns: within one actor, threads may still race.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use object_store::Result;
use tokio::sync::oneshot;

use super::{Layer, Request, Store, around};

/// Whose turn it is.
pub struct Turns {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    seed: u64,
    drawn: u64,
    actors: Vec<Actor>,
    /// Turns taken.
    taken: u64,
}

#[derive(Debug, Default)]
struct Actor {
    is_done: bool,
    /// How often it comes to its turn, against the others.
    weight: u64,
    waiting: VecDeque<oneshot::Sender<()>>,
}

/// An actor; when it is dropped, nobody waits for it any more.
#[derive(Debug)]
pub struct Seat {
    turns: Arc<Turns>,
    actor: usize,
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table();
        let waiting = table.actors.iter().map(|actor| if actor.is_done { -1 } else { actor.waiting.len() as i64 });
        f.debug_struct("Turns").field("waiting", &waiting.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Turns {
    /// Nobody takes part yet.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { table: Mutex::new(Table { seed, ..Table::default() }) })
    }

    /// One more actor, with its view of the store; `weight` says how fast it is against the others. All must be seated before the first asks
    /// for something.
    pub fn seat(self: &Arc<Self>, store: &Store, weight: u64) -> (Store, Seat) {
        let mut table = self.table();
        let actor = table.actors.len();
        table.actors.push(Actor { weight: weight.max(1), ..Actor::default() });
        let layer = View { turns: Arc::clone(self), actor };
        (around(store, layer).0, Seat { turns: Arc::clone(self), actor })
    }

    /// Turns taken so far.
    pub fn taken(&self) -> u64 {
        self.table().taken
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Lets somebody go, if everybody has said what they want.
    fn choose(&mut self) {
        loop {
            let present: Vec<usize> = (0..self.actors.len()).filter(|actor| !self.actors[*actor].is_done).collect();
            // Whoever stopped waiting wants nothing any more.
            for actor in &present {
                self.actors[*actor].waiting.retain(|turn| !turn.is_closed());
            }
            if present.is_empty() || present.iter().any(|actor| self.actors[*actor].waiting.is_empty()) {
                return;
            }
            // SplitMix64.
            self.drawn += 1;
            let mut z = self.seed.wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let mut at = (z >> 1) % present.iter().map(|actor| self.actors[*actor].weight).sum::<u64>();
            let mut chosen = present[0];
            for actor in present {
                chosen = actor;
                match at.checked_sub(self.actors[actor].weight) {
                    Some(rest) => at = rest,
                    None => break,
                }
            }
            let turn = self.actors[chosen].waiting.pop_front();
            // Somebody who asked for several things at once may come to this one only after another: so on, until somebody has to compute.
            self.taken += u64::from(turn.is_some_and(|turn| turn.send(()).is_ok()));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.turns.table();
        table.actors[self.actor].is_done = true;
        // What it still asked for is let go.
        table.actors[self.actor].waiting.clear();
        table.choose();
    }
}

/// What an actor sees.
#[derive(Debug)]
struct View {
    turns: Arc<Turns>,
    actor: usize,
}

#[async_trait]
impl Layer for View {
    async fn before(&self, _request: &Request) -> Result<()> {
        let turn = {
            let mut table = self.turns.table();
            if table.actors[self.actor].is_done {
                return Ok(());
            }
            let (send, turn) = oneshot::channel();
            table.actors[self.actor].waiting.push_back(send);
            table.choose();
            turn
        };
        // An error means that the actor has left its seat.
        let _taken = turn.await;
        Ok(())
    }
}
