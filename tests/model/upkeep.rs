//! Writers, prunes, restores, forgetting and fencing on one store, in every order that a seed can think of: one request at a time.
//!
//! What must hold: whatever was called done and was not forgotten is there and comes back, before and after a last prune; nobody who was not
//! declared dead fails; nobody waits for ever. With one rule of the log switched off, some order must break that.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use everpack::error::{Error, ErrorKind, Result};
use everpack::id::ObjectHash;
use everpack::ops::backup::{BackupOptions, backup};
use everpack::ops::check::{CheckOptions, Severity, check};
use everpack::ops::prune::{MaxUnused, PruneOptions, prune};
use everpack::ops::restore::{Framing, cat};
use everpack::progress::Silent;
use everpack::repo::{BackupInfo, OpenOptions, Repository, Rule};
use everpack::source::{OpenFile, Skipped, Source, SourceDescription, SourceEntry, SourceFile};
use everpack::store::Store;
use everpack::store::adapter::{Faults, Faulty, Turns};
use everpack::testing::log;
use futures::future::join_all;

use crate::made::{Dice, Made, Tree, back_up_with, doomed, memory, quick, seeded, small, whole};
use crate::setting;

/// How long the runs with all rules go on.
const BUDGET: Duration = Duration::from_secs(40);
/// A run takes some milliseconds.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Runs after which a rule that is switched off must have done harm.
const RUNS_MOST: u64 = 20_000;

/// What the runs met: a test that meets nothing tests nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    runs: u64,
    turns: u64,
    done: u64,
    restored: u64,
    retired: u64,
    deleted: u64,
    rewritten: u64,
    forgotten: u64,
    fenced: u64,
    busy: u64,
    crashed: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.all_mut().into_iter().zip(other.all()) {
            *sum += more;
        }
    }

    fn all(&self) -> [u64; 11] {
        [
            self.runs,
            self.turns,
            self.done,
            self.restored,
            self.retired,
            self.deleted,
            self.rewritten,
            self.forgotten,
            self.fenced,
            self.busy,
            self.crashed,
        ]
    }

    fn all_mut(&mut self) -> [&mut u64; 11] {
        [
            &mut self.runs,
            &mut self.turns,
            &mut self.done,
            &mut self.restored,
            &mut self.retired,
            &mut self.deleted,
            &mut self.rewritten,
            &mut self.forgotten,
            &mut self.fenced,
            &mut self.busy,
            &mut self.crashed,
        ]
    }
}

/// One small world.
struct World {
    disk: Store,
    without: Option<Rule>,
    lineages: u64,
    /// Every tree that somebody tried to back up, by its tag.
    tried: Mutex<BTreeMap<String, Tree>>,
    /// What was called done.
    done: Mutex<Vec<ObjectHash>>,
    forgotten: Mutex<HashSet<ObjectHash>>,
    counts: Mutex<Counts>,
    /// What must not be.
    harm: Mutex<Vec<String>>,
}

/// Somebody who does something, and how it may go wrong.
struct Cast {
    store: Store,
    dice: Dice,
    /// It dies on the way.
    dies: bool,
    /// Requests of it may fail.
    is_unlucky: bool,
}

impl World {
    async fn open(&self, cast: &mut Cast) -> Result<Repository> {
        let seed = cast.dice.roll();
        let environment = if cast.dies || cast.dice.below(3) == 0 { doomed(seed) } else { seeded(seed).0 };
        let options = OpenOptions { without: self.without, ..OpenOptions::default() };
        Repository::open(cast.store.clone(), options, environment).await
    }

    fn harm(&self, what: String) {
        self.harm.lock().unwrap().push(what);
    }

    fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.counts.lock().unwrap());
    }

    /// Nobody fails who was not declared dead, did not die, and whose store works.
    fn judge(&self, who: &str, cast: &Cast, error: &Error) {
        let text = whole(error);
        match error.kind() {
            ErrorKind::Busy if text.contains("its pack was retired and is gone") => self.harm(format!("{who}: {text}")),
            ErrorKind::Busy => self.count(|counts| {
                counts.busy += 1;
                counts.fenced += u64::from(text.contains("declared dead"));
            }),
            ErrorKind::Unavailable if cast.dies || cast.is_unlucky => {}
            // A session that was declared dead while it lived has no claim on what it reads.
            _ if self.was_fenced() => {}
            _ => self.harm(format!("{who}: {} {text}", error.kind())),
        }
    }

    fn was_fenced(&self) -> bool {
        self.counts.lock().unwrap().fenced > 0
    }

    /// Some files out of a few, or what somebody had and one file more: then most is taken over from the parent unread.
    fn new_tree(&self, dice: &mut Dice) -> Tree {
        let tried = self.tried.lock().unwrap();
        match tried.values().nth(usize::try_from(dice.below(tried.len() as u64 * 2 + 1)).unwrap()) {
            Some(tree) => {
                let mut tree = tree.clone();
                tree.insert(b"more".to_vec(), Arc::new(Dice(dice.roll()).noise(5000)));
                tree
            }
            None => little_tree(dice),
        }
    }

    async fn write(&self, mut cast: Cast) {
        let tag = format!("{:016x}", cast.dice.roll());
        let tree = self.new_tree(&mut cast.dice);
        self.tried.lock().unwrap().insert(tag.clone(), tree.clone());
        let options = BackupOptions {
            lineage: Some(format!("lineage {}", cast.dice.below(self.lineages))),
            tags: vec![tag],
            takeover: cast.dice.below(4) == 0,
            ..quick()
        };
        let outcome = match self.open(&mut cast).await {
            Ok(repository) => back_up_with(&repository, "/data", &tree, &options).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(report) => {
                self.done.lock().unwrap().push(report.id);
                self.count(|counts| counts.done += 1);
            }
            Err(error) => self.judge("a backup", &cast, &error),
        }
    }

    async fn prune(&self, mut cast: Cast) {
        let options = PruneOptions {
            max_unused: MaxUnused::Bytes(0),
            fence_after: Duration::from_secs(if cast.dice.below(4) == 0 { 0 } else { 3600 }),
            memory: 64 << 20,
            ..PruneOptions::default()
        };
        self.count(|counts| counts.fenced += u64::from(options.fence_after.is_zero()));
        let outcome = match self.open(&mut cast).await {
            Ok(repository) => prune(&repository, &options, Arc::new(Silent), |_| {}).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(report) => self.count(|counts| {
                counts.retired += report.objects_retired;
                counts.deleted += report.objects_deleted;
                counts.rewritten += u64::from(report.bytes_rewritten > 0);
            }),
            Err(error) => self.judge("a prune", &cast, &error),
        }
    }

    async fn restore(&self, mut cast: Cast) {
        let outcome = async {
            let repository = self.open(&mut cast).await?;
            let backups = repository.backups();
            if backups.is_empty() {
                return Ok(());
            }
            let backup = &backups[usize::try_from(cast.dice.below(backups.len() as u64)).unwrap()];
            self.compare(&repository, backup).await?;
            self.count(|counts| counts.restored += 1);
            Ok(())
        };
        let outcome: Result<()> = outcome.await;
        if let Err(error) = outcome {
            // What was forgotten and pruned before the restore began is gone.
            let forgotten = !self.forgotten.lock().unwrap().is_empty();
            if !(forgotten && error.kind() == ErrorKind::NotFound) {
                self.judge("a restore", &cast, &error);
            }
        }
    }

    async fn forget(&self, mut cast: Cast) {
        let outcome = async {
            let repository = self.open(&mut cast).await?;
            let backups = repository.backups();
            if let Some(backup) = backups.get(usize::try_from(cast.dice.below(backups.len().max(1) as u64)).unwrap()) {
                // Before it is said: if the answer is lost it may be so.
                self.forgotten.lock().unwrap().insert(backup.id);
                log::forget(&repository, backup.id).await?;
                self.count(|counts| counts.forgotten += 1);
            }
            Ok(())
        };
        let outcome: Result<()> = outcome.await;
        if let Err(error) = outcome {
            self.judge("forgetting", &cast, &error);
        }
    }

    async fn fence(&self, mut cast: Cast) {
        let outcome = async {
            let repository = self.open(&mut cast).await?;
            let open = log::open_sessions(&repository).await?;
            if let Some(session) = open.get(usize::try_from(cast.dice.below(open.len().max(1) as u64)).unwrap()) {
                self.count(|counts| counts.fenced += 1);
                log::fence(&repository, *session).await?;
            }
            Ok(())
        };
        let outcome: Result<()> = outcome.await;
        if let Err(error) = outcome {
            self.judge("fencing", &cast, &error);
        }
    }

    /// Every file of a backup comes back as it was.
    async fn compare(&self, repository: &Repository, backup: &BackupInfo) -> Result<()> {
        let tree = self.tried.lock().unwrap()[&backup.summary.tags[0]].clone();
        for (path, content) in &tree {
            let mut found = Vec::new();
            cat(repository, backup, path, Framing::AsStored, &mut found).await?;
            if found != **content {
                self.harm(format!("{} of {} is not what was backed up", path.escape_ascii(), backup.id));
            }
        }
        Ok(())
    }

    /// By somebody who keeps all rules and trusts nothing.
    async fn look_at_everything(&self, when: &str, seed: u64) -> Result<Repository> {
        let options = OpenOptions { distrust_state: true, ..OpenOptions::default() };
        let repository = Repository::open(self.disk.clone(), options, seeded(seed).0).await?;
        let backups = repository.backups();
        for id in self.done.lock().unwrap().iter() {
            let is_listed = backups.iter().any(|backup| backup.id == *id);
            if !is_listed && !self.forgotten.lock().unwrap().contains(id) {
                self.harm(format!("{when}: backup {id} was called done and is not there"));
            }
        }
        for backup in &backups {
            if let Err(error) = self.compare(&repository, backup).await {
                self.harm(format!("{when}: backup {} does not come back: {}", backup.id, whole(&error)));
            }
        }
        let options = CheckOptions { read_data: true, memory: 64 << 20, ..CheckOptions::default() };
        let report = check(&repository, &options, Arc::new(Silent)).await?;
        // That a rule was broken is told as well; the question here is what comes of it.
        let artifact = match self.without {
            Some(Rule::NamesCarrySession) => "evidence of a lost log entry",
            Some(Rule::FenceCheck) => "it has no effect",
            _ => "\0",
        };
        let wrong = report
            .findings
            .iter()
            .filter(|finding| finding.severity > Severity::Note && !finding.what.contains(artifact));
        let wrong: Vec<_> = wrong.map(|finding| format!("{}: {}", finding.object, finding.what)).collect();
        if !wrong.is_empty() {
            self.harm(format!("{when}: check finds {wrong:?}"));
        }
        Ok(repository)
    }

    /// Looks at everything, prunes with all rules, and looks again.
    async fn conclude(&self, seed: u64) -> Result<()> {
        let repository = self.look_at_everything("at the end", seed).await?;
        if !self.harm.lock().unwrap().is_empty() {
            return Ok(());
        }
        let options = PruneOptions {
            max_unused: MaxUnused::Bytes(0),
            fence_after: Duration::ZERO,
            memory: 64 << 20,
            ..PruneOptions::default()
        };
        let report = prune(&repository, &options, Arc::new(Silent), |_| {}).await?;
        if report.objects_waiting > 0 || !report.complete {
            self.harm(format!("the last prune left {} objects behind: {report:?}", report.objects_waiting));
        }
        self.look_at_everything("after the last prune", seed + 1).await?;
        Ok(())
    }
}

/// One to three files out of a few, so that writers store the same chunks, and the same packs, at the same time.
fn little_tree(dice: &mut Dice) -> Tree {
    let mut tree = Tree::new();
    for _ in 0..=dice.below(3) {
        let content = dice.below(3);
        tree.insert(format!("file-{}", dice.below(3)).into_bytes(), Arc::new(Dice(content).noise(9000)));
    }
    tree
}

/// One run; what went wrong, if something did.
async fn run(seed: u64, without: Option<Rule>) -> (Counts, Vec<String>) {
    let mut dice = Dice(seed);
    let disk = memory();
    Repository::create(disk.clone(), &small(), seeded(dice.roll()).0).await.unwrap();
    let world = World {
        disk: disk.clone(),
        without,
        lineages: 1 + dice.below(2),
        tried: Mutex::default(),
        done: Mutex::default(),
        forgotten: Mutex::default(),
        counts: Mutex::default(),
        harm: Mutex::default(),
    };
    // Something to begin with: one or two backups, alike as often as not.
    for _ in 0..=dice.below(2) {
        let cast = Cast { store: disk.clone(), dice: Dice(dice.roll()), dies: false, is_unlucky: false };
        world.write(cast).await;
    }
    let turns = Turns::new(dice.roll());
    let mut acts: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    let mut roles = Vec::new();
    for actor in 0..3 + dice.below(4) {
        let (view, seat) = turns.seat(&disk, 1 << dice.below(6));
        let dies = dice.below(6) == 0;
        let is_unlucky = dice.below(6) == 0;
        let faults = Faults {
            seed: dice.roll(),
            writes_max: dies.then(|| dice.below(12)),
            lost_replies_per_mille: if is_unlucky { 60 } else { 0 },
            errors_per_mille: if is_unlucky { 10 } else { 0 },
            ..Faults::default()
        };
        let (store, faulty) = Faulty::around(&view, faults);
        let cast = Cast { store, dice: Dice(dice.roll()), dies, is_unlucky };
        // There is always a writer and a prune.
        let role = if actor < 2 { actor } else { dice.below(6) };
        roles.push(role);
        let world = &world;
        acts.push(Box::pin(async move {
            match role {
                0 | 5 => world.write(cast).await,
                1 => world.prune(cast).await,
                2 => world.forget(cast).await,
                3 => world.restore(cast).await,
                _ => world.fence(cast).await,
            }
            world.count(|counts| counts.crashed += u64::from(faulty.has_crashed()));
            drop(seat);
        }));
    }
    let mut all = std::pin::pin!(join_all(acts));
    if tokio::time::timeout(STUCK_AFTER, &mut all).await.is_err() {
        let harm = format!("somebody waits for ever: {roles:?} after {} turns: {turns:?}", turns.taken());
        return (*world.counts.lock().unwrap(), vec![harm]);
    }
    if let Err(error) = world.conclude(dice.roll()).await {
        world.harm(format!("at the end: {}", whole(&error)));
    }
    let counts = Counts { runs: 1, turns: turns.taken(), ..*world.counts.lock().unwrap() };
    let harm = std::mem::take(&mut *world.harm.lock().unwrap());
    (counts, harm)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A run that did harm: its seed, the how-manieth it was, and what.
type Harm = (u64, u64, Vec<String>);

/// Runs seeds until `stop` says so; gives what was met, and the first run that did harm.
fn run_until(first: u64, without: Option<Rule>, stop: impl Fn(u64, &Counts) -> bool + Sync) -> (Counts, Option<Harm>) {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get() as u64 * 2);
    let next = std::sync::atomic::AtomicU64::new(0);
    let outcome: Mutex<(Counts, Option<Harm>)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = runtime();
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let is_over = {
                        let outcome = outcome.lock().unwrap();
                        stop(at, &outcome.0) || outcome.1.is_some()
                    };
                    if is_over {
                        // What is stuck stays behind.
                        runtime.shutdown_background();
                        return;
                    }
                    let (counts, harm) = runtime.block_on(run(first + at, without));
                    if std::env::var_os("EVERPACK_MODEL_TELL").is_some() {
                        eprintln!("{} {counts:?} {harm:?}", first + at);
                    }
                    let mut outcome = outcome.lock().unwrap();
                    outcome.0.add(&counts);
                    if !harm.is_empty() && outcome.1.is_none() {
                        outcome.1 = Some((first + at, at + 1, harm));
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap()
}

#[test]
fn no_order_of_upkeep_loses_a_backup() {
    let budget = BUDGET * u32::try_from(setting("EVERPACK_MODEL_RUNS", 1)).unwrap();
    let begun = Instant::now();
    // Longer on a slow machine, until everything was met once.
    let stop = |_, counts: &Counts| {
        let met = counts.all().iter().all(|count| *count > 0);
        begun.elapsed() >= if met { budget } else { budget * 5 }
    };
    let (counts, harm) = run_until(setting("EVERPACK_MODEL_SEED", 1), None, stop);
    eprintln!("{counts:?}");
    if let Some((seed, _, harm)) = harm {
        panic!("EVERPACK_MODEL_SEED={seed} does harm: {harm:#?}");
    }
    assert!(counts.all().iter().all(|count| *count > 0), "the runs met too little: {counts:?}");
}

#[test]
fn the_documents_have_a_row_for_every_rule() {
    let page = include_str!("../../docs/concurrency.md");
    let (_, table) = page.split_once("| without | runs until harm |").unwrap();
    for rule in Rule::ALL {
        assert!(table.contains(&format!("\n| {} |", rule.name())), "{} is not in the table", rule.name());
    }
}

/// Two rules that random orders seldom come to have a test of their own below.
const DIRECTED: [Rule; 2] = [Rule::RevalidateParent, Rule::CloseBeforeWait];

#[test]
fn every_rule_switched_off_does_harm() {
    let first = setting("EVERPACK_MODEL_SEED", 1);
    let mut table = String::from("| without | runs until harm | what became of it |\n|---|---|---|\n");
    let mut harmless = Vec::new();
    for rule in Rule::ALL.into_iter().filter(|rule| !DIRECTED.contains(rule)) {
        let begun = Instant::now();
        let (_, harm) =
            run_until(first, Some(rule), |at, _| at >= RUNS_MOST || begun.elapsed() > Duration::from_secs(180));
        match harm {
            Some((_, runs, harm)) => {
                let first = harm.first().map_or("", String::as_str);
                table.push_str(&format!("| {} | {runs} | {first} |\n", rule.name()));
            }
            None => harmless.push(rule.name()),
        }
    }
    eprintln!("{table}");
    assert!(harmless.is_empty(), "switched off without harm, so the runs prove nothing of: {harmless:?}");
}

/// A source that lets something happen when a file of it is opened.
struct Interrupted<F> {
    made: Made,
    path: &'static [u8],
    act: Arc<Mutex<Option<F>>>,
}

impl<F: FnOnce() + Send + 'static> Source for Interrupted<F> {
    fn describe(&self) -> SourceDescription {
        self.made.describe()
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        self.made.next_batch(max)
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        Arc::new(InterruptedReader { made: self.made.reader(), path: self.path, act: Arc::clone(&self.act) })
    }

    fn skipped(&self) -> Skipped {
        self.made.skipped()
    }
}

struct InterruptedReader<F> {
    made: Arc<dyn OpenFile>,
    path: &'static [u8],
    act: Arc<Mutex<Option<F>>>,
}

impl<F: FnOnce() + Send + 'static> OpenFile for InterruptedReader<F> {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        if entry.path == self.path
            && let Some(act) = self.act.lock().unwrap().take()
        {
            act();
        }
        self.made.open(entry)
    }
}

/// A backup takes its files over from a parent that is forgotten and pruned before it commits. Gives what went wrong.
async fn a_parent_goes(without: Option<Rule>) -> Vec<String> {
    let disk = memory();
    let repository = Repository::create(disk.clone(), &small(), seeded(1).0).await.unwrap();
    let world = World {
        disk: disk.clone(),
        without,
        lineages: 1,
        tried: Mutex::default(),
        done: Mutex::default(),
        forgotten: Mutex::default(),
        counts: Mutex::default(),
        harm: Mutex::default(),
    };
    let options = |tag: &str| BackupOptions { lineage: Some("one".to_owned()), tags: vec![tag.to_owned()], ..quick() };
    let mut tree: Tree = [(b"file".to_vec(), Arc::new(Dice(1).noise(200_000)))].into();
    world.tried.lock().unwrap().insert("parent".to_owned(), tree.clone());
    let parent = back_up_with(&repository, "/data", &tree, &options("parent")).await.unwrap().id;
    world.forgotten.lock().unwrap().insert(parent);

    tree.insert(b"more".to_vec(), Arc::new(Dice(2).noise(5000)));
    world.tried.lock().unwrap().insert("child".to_owned(), tree.clone());
    let meanwhile = disk.clone();
    let act = move || {
        let goes = async {
            let repository = Repository::open(meanwhile, OpenOptions::default(), seeded(5).0).await.unwrap();
            log::forget(&repository, parent).await.unwrap();
            let options = PruneOptions { max_unused: MaxUnused::Bytes(0), memory: 64 << 20, ..PruneOptions::default() };
            let report = prune(&repository, &options, Arc::new(Silent), |_| {}).await.unwrap();
            assert!(report.objects_retired > 0 && report.objects_waiting > 0, "{report:?}");
        };
        runtime().block_on(goes);
    };
    let source = Interrupted { made: Made::new("/data", &tree), path: b"more", act: Arc::new(Mutex::new(Some(act))) };
    let open = OpenOptions { without, ..OpenOptions::default() };
    let repository = Repository::open(disk, open, seeded(3).0).await.unwrap();
    match backup(&repository, Box::new(source), &options("child"), Arc::new(Silent)).await {
        Ok(report) => {
            assert_eq!((report.files_unchanged, report.files_new), (1, 1), "the file is taken over unread");
            world.done.lock().unwrap().push(report.id);
        }
        Err(error) => world.harm(whole(&error)),
    }
    if let Err(error) = world.conclude(9).await {
        world.harm(whole(&error));
    }
    world.harm.into_inner().unwrap()
}

#[test]
fn a_parent_that_goes_takes_nothing_with_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(a_parent_goes(None)), Vec::<String>::new());
    let harm = runtime.block_on(a_parent_goes(Some(Rule::RevalidateParent)));
    assert!(!harm.is_empty(), "the rule is for nothing");
    eprintln!("| revalidate-parent | 1 | {} |", harm[0]);
}

/// Two prunes that both wait until they may delete. True if they ended before they lost patience.
async fn two_prunes_end(without: Option<Rule>, patience: Duration) -> bool {
    let disk = memory();
    let repository = Repository::create(disk.clone(), &small(), seeded(1).0).await.unwrap();
    let mut dice = Dice(7);
    for night in 0..2 {
        let tree: Tree = [(b"file".to_vec(), Arc::new(dice.noise(200_000)))].into();
        let report = back_up_with(&repository, &format!("/data{night}"), &tree, &quick()).await.unwrap();
        log::forget(&repository, report.id).await.unwrap();
    }
    let turns = Turns::new(3);
    let acts = (0..2).map(|n| {
        let (store, seat) = turns.seat(&disk, 1);
        async move {
            let options = OpenOptions { without, ..OpenOptions::default() };
            let repository = Repository::open(store, options, seeded(10 + n).0).await.unwrap();
            let options = PruneOptions { wait: patience, memory: 64 << 20, ..PruneOptions::default() };
            let report = prune(&repository, &options, Arc::new(Silent), |_| {}).await;
            drop(seat);
            report.is_ok_and(|report| report.objects_waiting == 0)
        }
    });
    join_all(acts).await.into_iter().all(|ended| ended)
}

#[test]
fn two_prunes_never_wait_for_each_other() {
    assert!(runtime().block_on(two_prunes_end(None, Duration::from_secs(60))));
    assert!(
        !runtime().block_on(two_prunes_end(Some(Rule::CloseBeforeWait), Duration::from_secs(2))),
        "the rule is for nothing"
    );
}
