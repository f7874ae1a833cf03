//! The protocol of the log under many schedules: writers that back up, restore, take each other's sessions over and die at random requests, on one
//! store in memory. Thousands of small runs, each from a seed that a failure names.
//!
//! What must hold after every run: the log has no gap; what was called done is there; everything that is there comes back; nothing was committed
//! in the name of a session that was over; whoever comes next can write.
//!
//! `EVERPACK_MODEL_RUNS=10` runs ten times as long, `EVERPACK_MODEL_SEED=7` begins at seed 7.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[path = "../repo/made.rs"]
mod made;
mod upkeep;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use everpack::error::{Error, ErrorKind, Result};
use everpack::id::ObjectHash;
use everpack::ops::backup::{BackupOptions, BackupReport};
use everpack::ops::restore::{Framing, cat};
use everpack::repo::{BackupInfo, Environment, OpenOptions, Repository};
use everpack::store::Store;
use everpack::store::adapter::{Faults, Faulty};
use futures::future::join_all;
use made::{Dice, Tree, assert_scrubs, back_up_with, doomed, memory, quick, seeded, small, whole};

/// How long the runs go on.
const BUDGET: Duration = Duration::from_secs(30);
/// Worlds at once.
const THREADS: u64 = 12;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One small world.
struct Run {
    seed: u64,
    disk: Store,
    scratch: PathBuf,
    /// Every tree that somebody tried to back up, by its tag.
    tried: Mutex<BTreeMap<String, Tree>>,
    /// What was called done.
    done: Mutex<Vec<ObjectHash>>,
    counts: Mutex<Counts>,
}

/// What the runs met: a test that meets nothing tests nothing.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    done: u64,
    restored: u64,
    busy: u64,
    fenced: u64,
    crashed: u64,
}

impl Run {
    /// Surroundings with an index of their own, where writing costs nothing.
    fn environment(&self, dice: &mut Dice, gone: bool) -> Environment {
        let seed = dice.roll();
        let environment = if gone { doomed(seed) } else { seeded(seed).0 };
        Environment { cache: Some(self.scratch.join(format!("{seed:016x}"))), ..environment }
    }

    async fn writer(&self, mut dice: Dice) {
        for _ in 0..=dice.below(3) {
            let dies = dice.below(4) == 0;
            let faults = Faults {
                seed: dice.roll(),
                errors_per_mille: [0, 0, 15][usize::try_from(dice.below(3)).unwrap()],
                lost_replies_per_mille: [0, 40][usize::try_from(dice.below(2)).unwrap()],
                delay_max: Duration::from_micros(dice.below(3) * 1000),
                writes_max: dies.then(|| dice.below(9)),
                ..Faults::default()
            };
            let reliable = faults.errors_per_mille == 0 && faults.lost_replies_per_mille == 0 && !dies;
            let (store, faulty) = Faulty::around(&self.disk, faults);
            let gone = dies || dice.below(3) == 0;
            let environment = self.environment(&mut dice, gone);
            let outcome = match dice.below(4) {
                0 => self.restore_one(store, environment, &mut dice).await,
                _ => self.back_one_up(store, environment, &mut dice).await,
            };
            let mut counts = self.counts.lock().unwrap();
            counts.crashed += u64::from(faulty.has_crashed());
            if let Err(error) = outcome {
                self.judge(&error, reliable, &mut counts);
            }
        }
    }

    /// Nobody may be told of damage, and a store without faults fails nobody.
    fn judge(&self, error: &Error, reliable: bool, counts: &mut Counts) {
        let text = whole(error);
        match error.kind() {
            ErrorKind::Busy => {
                counts.busy += 1;
                counts.fenced += u64::from(text.contains("declared dead"));
            }
            ErrorKind::Unavailable if !reliable => {}
            _ => panic!("seed {}: {} {text}", self.seed, error.kind()),
        }
    }

    async fn back_one_up(&self, store: Store, environment: Environment, dice: &mut Dice) -> Result<()> {
        let tree = little_tree(dice);
        let tag = format!("{:016x}", dice.roll());
        self.tried.lock().unwrap().insert(tag.clone(), tree.clone());
        let options = BackupOptions {
            lineage: Some(format!("lineage {}", dice.below(2))),
            tags: vec![tag],
            takeover: dice.below(3) == 0,
            ..quick()
        };
        let repository = Repository::open(store, OpenOptions::default(), environment).await?;
        let report: BackupReport = back_up_with(&repository, "/data", &tree, &options).await?;
        self.done.lock().unwrap().push(report.id);
        self.counts.lock().unwrap().done += 1;
        Ok(())
    }

    async fn restore_one(&self, store: Store, environment: Environment, dice: &mut Dice) -> Result<()> {
        let repository = Repository::open(store, OpenOptions::default(), environment).await?;
        let backups = repository.backups();
        if backups.is_empty() {
            return Ok(());
        }
        let backup = &backups[usize::try_from(dice.below(backups.len() as u64)).unwrap()];
        self.compare(&repository, backup).await?;
        self.counts.lock().unwrap().restored += 1;
        Ok(())
    }

    /// Every file of a backup comes back as it was.
    async fn compare(&self, repository: &Repository, backup: &BackupInfo) -> Result<()> {
        let tree = self.tried.lock().unwrap()[&backup.summary.tags[0]].clone();
        assert_eq!(backup.summary.totals.files, tree.len() as u64, "seed {}", self.seed);
        for (path, content) in &tree {
            let mut found = Vec::new();
            cat(repository, backup, path, Framing::AsStored, &mut found).await?;
            assert!(found == **content, "seed {}: {} of {}", self.seed, path.escape_ascii(), backup.id);
        }
        Ok(())
    }

    async fn assert_sound(&self, dice: &mut Dice) {
        let options = OpenOptions { distrust_state: true, ..OpenOptions::default() };
        let environment = self.environment(dice, false);
        let repository = Repository::open(self.disk.clone(), options, environment).await;
        let repository = repository.unwrap_or_else(|error| panic!("seed {}: {}", self.seed, whole(&error)));
        let backups = repository.backups();
        for id in self.done.lock().unwrap().iter() {
            let times = backups.iter().filter(|backup| backup.id == *id).count();
            assert_eq!(times, 1, "seed {}: {id} was called done and is there {times} times", self.seed);
        }
        let mut tags: Vec<_> = backups.iter().map(|backup| &backup.summary.tags[0]).collect();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), backups.len(), "seed {}: a backup was committed twice", self.seed);
        for backup in &backups {
            let compared = self.compare(&repository, backup).await;
            compared.unwrap_or_else(|error| panic!("seed {}: {}: {}", self.seed, backup.id, whole(&error)));
        }
        // Also that no entry of a session that was over is in the log.
        assert_scrubs(&repository, &format!("seed {}", self.seed)).await;
    }

    /// Whatever was left open, the next writer gets in: the dead are fenced, the living taken over.
    async fn assert_goes_on(&self, dice: &mut Dice) {
        for lineage in 0..2 {
            let tree = little_tree(dice);
            let tag = format!("last {lineage}");
            self.tried.lock().unwrap().insert(tag.clone(), tree.clone());
            let options = BackupOptions {
                lineage: Some(format!("lineage {lineage}")),
                tags: vec![tag],
                takeover: true,
                ..quick()
            };
            let environment = self.environment(dice, false);
            let repository = Repository::open(self.disk.clone(), OpenOptions::default(), environment).await.unwrap();
            let report = back_up_with(&repository, "/data", &tree, &options).await;
            let report = report.unwrap_or_else(|error| panic!("seed {}: {}", self.seed, whole(&error)));
            self.done.lock().unwrap().push(report.id);
        }
    }
}

/// One to four files out of a few, so that writers store the same chunks at the same time.
fn little_tree(dice: &mut Dice) -> Tree {
    let mut tree = Tree::new();
    for _ in 0..=dice.below(4) {
        let content = dice.below(6);
        let len = [10, 3000, 9000, 40_000, 70_000, 0][usize::try_from(content).unwrap()];
        tree.insert(format!("file-{}", dice.below(5)).into_bytes(), Arc::new(Dice(content).noise(len)));
    }
    tree
}

async fn run(seed: u64, scratch: &Path) -> Counts {
    let mut dice = Dice(seed);
    let disk = memory();
    Repository::create(disk.clone(), &small(), seeded(dice.roll()).0).await.unwrap();
    let scratch = scratch.join(seed.to_string());
    let world = Run {
        seed,
        disk,
        scratch: scratch.clone(),
        tried: Mutex::default(),
        done: Mutex::default(),
        counts: Mutex::default(),
    };
    let writers = 2 + dice.below(3);
    join_all((0..writers).map(|_| world.writer(Dice(dice.roll())))).await;
    world.assert_sound(&mut dice).await;
    world.assert_goes_on(&mut dice).await;
    world.assert_sound(&mut dice).await;
    std::fs::remove_dir_all(&scratch).unwrap();
    world.counts.into_inner().unwrap()
}

/// Runs one seed after the other until the time is up; every `step`th is ours.
fn run_many(first: u64, step: u64, until: Instant, scratch: &Path) -> (u64, Counts) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut all = Counts::default();
    let mut runs = 0;
    while Instant::now() < until {
        let counts = runtime.block_on(run(first + runs * step, scratch));
        all.done += counts.done;
        all.restored += counts.restored;
        all.busy += counts.busy;
        all.fenced += counts.fenced;
        all.crashed += counts.crashed;
        runs += 1;
    }
    (runs, all)
}

#[test]
fn no_schedule_loses_a_backup() {
    let budget = BUDGET * u32::try_from(setting("EVERPACK_MODEL_RUNS", 1)).unwrap();
    let until = Instant::now() + budget;
    let scratch = made::scratch();
    let first = setting("EVERPACK_MODEL_SEED", 1);
    let outcomes: Vec<(u64, Counts)> = std::thread::scope(|scope| {
        let path = scratch.path();
        let threads: Vec<_> =
            (0..THREADS).map(|n| scope.spawn(move || run_many(first + n, THREADS, until, path))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |of: fn(&Counts) -> u64| outcomes.iter().map(|(_, counts)| of(counts)).sum::<u64>();
    let runs: u64 = outcomes.iter().map(|(runs, _)| runs).sum();
    let met = [
        sum(|counts| counts.done),
        sum(|counts| counts.restored),
        sum(|counts| counts.busy),
        sum(|counts| counts.fenced),
        sum(|counts| counts.crashed),
    ];
    eprintln!("{runs} runs: done, restored, busy, fenced, crashed {met:?}");
    assert!(met.iter().all(|count| *count > 0), "{runs} runs met too little: {met:?}");
}
