//! Forget, unforget, hold, release on whole repositories: beside each other, with wrong clocks, killed at every write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use everpack::clock::{ManualClock, Timestamp};
use everpack::error::{Error, ErrorKind, Result};
use everpack::id::ObjectHash;
use everpack::ops::backup::BackupOptions;
use everpack::ops::forget::{
    ForgetOptions, ForgetPolicy, ForgetReport, Policy, Until, Which, forget, hold, release, unforget,
};
use everpack::progress::Silent;
use everpack::repo::{OpenOptions, Repository};
use everpack::store::adapter::{Faults, Faulty};
use everpack::store::{ObjectPath, Store, StoreOptions, StoredObject};

use crate::made::{
    Tree, assert_restores, assert_scrubs, back_up, back_up_with, memory, open, quick, seeded, small, tree_of, whole,
};

const DAY: i64 = 24 * 3_600_000_000_000;

/// A repository of some nights, one a day before the present.
struct Nights {
    disk: Store,
    repository: Repository,
    clock: Arc<ManualClock>,
    trees: Vec<Tree>,
    ids: Vec<ObjectHash>,
}

impl Nights {
    async fn of(count: u64) -> Self {
        let disk = memory();
        let (environment, clock) = seeded(1);
        let repository = Repository::create(disk.clone(), &small(), environment).await.unwrap();
        let mut nights = Self { disk, repository, clock, trees: Vec::new(), ids: Vec::new() };
        for n in 0..count {
            nights.night(n).await;
        }
        nights
    }

    /// Another backup, a day after the last by its clock.
    async fn night(&mut self, n: u64) -> ObjectHash {
        self.clock.advance(Duration::from_nanos(DAY.unsigned_abs()));
        let tree = tree_of(100 + n, 20_000);
        let report = back_up(&self.repository, "/data", &tree).await.unwrap();
        self.trees.push(tree);
        self.ids.push(report.id);
        report.id
    }

    fn listed(&self) -> Vec<ObjectHash> {
        ids(&self.repository)
    }

    /// Everything that is listed restores, and nothing is damaged.
    async fn assert_sound(&self) {
        for (id, tree) in self.ids.iter().zip(&self.trees) {
            if self.listed().contains(id) {
                assert_restores(&self.repository, *id, tree).await;
            }
        }
        assert_scrubs(&self.repository, "at the end").await;
    }
}

fn ids(repository: &Repository) -> Vec<ObjectHash> {
    repository.backups().into_iter().map(|backup| backup.id).collect()
}

fn named(ids: &[ObjectHash]) -> ForgetOptions {
    ForgetOptions { which: Which::Named(ids.to_vec()), reason: "a test".to_owned(), dry_run: false }
}

fn keeping(keep: Policy) -> ForgetOptions {
    let which = Which::ByPolicy(ForgetPolicy { keep, ..ForgetPolicy::default() });
    ForgetOptions { which, reason: String::new(), dry_run: false }
}

fn last(count: u32) -> Policy {
    Policy { last: Some(count), ..Policy::default() }
}

async fn forget_named(repository: &Repository, id: ObjectHash) -> Result<ForgetReport> {
    forget(repository, &named(&[id])).await
}

async fn hold_for(repository: &Repository, id: ObjectHash, span: &str) -> Result<()> {
    let span = everpack::clock::Span::parse(span).unwrap();
    hold(repository, &[id], Until::For(span)).await.map(drop)
}

async fn bring_back(repository: &Repository, id: ObjectHash) -> Result<u64> {
    unforget(repository, &[id], Arc::new(Silent)).await.map(|report| report.chunks)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_leaves_the_list_and_comes_back_bit_for_bit() {
    let nights = Nights::of(3).await;
    let repository = &nights.repository;
    let id = nights.ids[1];
    let report = forget_named(repository, id).await.unwrap();
    assert_eq!((report.forgotten, report.kept), (1, 0));
    assert_eq!(nights.listed(), [nights.ids[0], nights.ids[2]]);
    assert_eq!(repository.find_backup(&id.to_string()).unwrap_err().kind(), ErrorKind::NotFound);
    let forgotten = repository.forgotten();
    assert_eq!((forgotten[0].id, forgotten[0].forgotten), (id, report.entry));
    assert_eq!(repository.find_any_backup(&id.to_string()[..8]).unwrap().id, id);

    let again = forget_named(repository, id).await.unwrap();
    assert!(again.forgotten == 0 && again.entry.is_none(), "{again:?}");
    assert!(again.remarks.iter().any(|remark| remark.contains("forgotten already")), "{again:?}");

    assert!(bring_back(repository, id).await.unwrap() > 5);
    assert_eq!(nights.listed(), nights.ids);
    let again = unforget(repository, &[id], Arc::new(Silent)).await.unwrap();
    assert!(again.entry.is_none() && again.remarks[0].contains("not forgotten"), "{again:?}");
    let fresh = open(&nights.disk, 9).await.unwrap();
    assert_eq!(ids(&fresh), nights.ids);
    nights.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_backup_is_nobodys_parent() {
    let nights = Nights::of(2).await;
    forget_named(&nights.repository, nights.ids[1]).await.unwrap();
    let report = back_up(&nights.repository, "/data", &nights.trees[1]).await.unwrap();
    assert_eq!(report.parent, Some(nights.ids[0]));
    nights.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_the_same_and_changes_nothing() {
    let nights = Nights::of(5).await;
    let before = crate::made::objects_of(&nights.disk).await;
    let mut options = keeping(last(2));
    options.dry_run = true;
    let told = forget(&nights.repository, &options).await.unwrap();
    assert_eq!(crate::made::objects_of(&nights.disk).await, before);
    options.dry_run = false;
    let done = forget(&nights.repository, &options).await.unwrap();
    assert_eq!(told.decisions, done.decisions);
    // Who cannot write may ask all the same, and is told what that is worth.
    let (full, _) = Faulty::around(&nights.disk, Faults { full_after: Some(0), ..Faults::default() });
    let asked =
        forget(&open_later(full, 60).await, &ForgetOptions { dry_run: true, ..keeping(last(1)) }).await.unwrap();
    assert_eq!((asked.forgotten, asked.kept), (1, 1));
    assert!(asked.remarks[0].contains("only this machine's clock was used"), "{asked:?}");
    assert_eq!((told.entry, done.forgotten), (None, 3));
    assert_eq!(nights.listed(), nights.ids[3..]);
    let idle = forget(&nights.repository, &options).await.unwrap();
    assert_eq!((idle.forgotten, idle.entry), (0, None));
    nights.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_backup_stays_until_it_is_released() {
    let nights = Nights::of(4).await;
    let (repository, id) = (&nights.repository, nights.ids[0]);
    hold_for(repository, id, "30d").await.unwrap();
    let error = forget_named(repository, id).await.unwrap_err();
    assert!(error.message().contains("held until") && error.message().contains("everpack release"), "{error}");
    let error = forget(repository, &named(&[nights.ids[1], id])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(nights.listed(), nights.ids, "all or none");
    let report = forget(repository, &keeping(last(1))).await.unwrap();
    assert_eq!(report.forgotten, 2);
    assert_eq!(nights.listed(), [id, nights.ids[3]]);

    // Longer, not shorter.
    hold_for(repository, id, "60d").await.unwrap();
    let error = hold_for(repository, id, "20d").await.unwrap_err();
    assert!(error.message().contains("everpack release"), "{error}");
    let error = hold(repository, &[id], Until::Time(Timestamp::from_nanos(0))).await.unwrap_err();
    assert!(error.message().contains("past"), "{error}");
    let error = hold_for(repository, nights.ids[1], "1d").await.unwrap_err();
    assert!(error.message().contains("everpack unforget"), "{error}");

    assert_eq!(release(repository, &[id]).await.unwrap().backups, [id]);
    let again = release(repository, &[id]).await.unwrap();
    assert!(again.backups.is_empty() && again.entry.is_none() && again.remarks[0].contains("not held"), "{again:?}");
    forget_named(repository, id).await.unwrap();
    nights.assert_sound().await;
}

/// A hold is over when both clocks say so: neither this machine's alone nor the store's.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_by_both_clocks() {
    let nights = Nights::of(2).await;
    let (repository, id) = (&nights.repository, nights.ids[0]);
    let begun = everpack::clock::Clock::now(&*nights.clock);
    // The store's clock is years ahead of this one: the hold counts from the later.
    hold_for(repository, id, "1d").await.unwrap();
    let until = repository.find_backup(&id.to_string()).unwrap().held_until.unwrap();
    assert!(until.since(begun) > Duration::from_secs(2 * 365 * 24 * 3600), "{until:?}");
    release(repository, &[id]).await.unwrap();
    let end = Timestamp::from_nanos(begun.as_nanos() + 10 * DAY);
    hold(repository, &[id], Until::Time(end)).await.unwrap();
    assert!(forget_named(repository, id).await.is_err(), "past for the store, not for us");
    nights.clock.set(Timestamp::from_nanos(end.as_nanos() + 1));
    forget_named(repository, id).await.unwrap();
    // Ahead of the store by a century: a hold to a day that the store has not seen stands.
    let (store_now, id) = (repository.backups()[0].clone(), nights.ids[1]);
    let soon = Timestamp::from_nanos(store_now.summary.started.as_nanos() + 20 * 365 * DAY);
    hold(repository, &[id], Until::Time(soon)).await.unwrap();
    nights.clock.set(Timestamp::from_nanos(soon.as_nanos() + 365 * DAY));
    let error = forget_named(repository, id).await.unwrap_err();
    assert!(error.message().contains("held until"), "{error}");
    let report = forget(repository, &ForgetOptions { dry_run: true, ..keeping(last(1)) }).await.unwrap();
    assert!(report.remarks.iter().any(|remark| remark.contains("one of them is wrong")), "{report:?}");
}

/// A client adds backups dated next year and one dated long ago, and a rule runs every night: the honest ones stay as if nothing had been.
#[tokio::test(flavor = "multi_thread")]
async fn backups_dated_wrong_push_no_good_one_out() {
    let mut nights = Nights::of(6).await;
    let honest = nights.ids.clone();
    let present = everpack::clock::Clock::now(&*nights.clock);
    let mut wrong = Vec::new();
    for (n, years) in [(20, 5), (21, 6), (22, 7), (23, -30)] {
        nights.clock.set(Timestamp::from_nanos(present.as_nanos() + years * 365 * DAY));
        wrong.push(nights.night(n).await);
    }
    nights.clock.set(present);
    let policy =
        Policy { daily: Some(3), within: everpack::clock::Span::parse("2d"), last: Some(2), ..Policy::default() };
    let report = forget(&nights.repository, &keeping(policy)).await.unwrap();
    assert_eq!((report.forgotten, report.doubtful), (3, 4), "{report:#?}");
    let expected: Vec<_> = honest[3..].iter().chain(&wrong).copied().collect();
    assert_eq!(nights.listed(), expected);
    // They go when they are named.
    forget(&nights.repository, &named(&wrong)).await.unwrap();
    assert_eq!(nights.listed(), honest[3..]);
    nights.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doubtful_ones_go_when_that_is_said() {
    let mut nights = Nights::of(2).await;
    nights.clock.set(Timestamp::from_nanos(0));
    let old = nights.night(7).await;
    nights.clock.set(Timestamp::from_nanos(1_700_000_000_000_000_000 + 9 * DAY));
    nights.night(8).await;
    let mut options = keeping(last(1));
    if let Which::ByPolicy(policy) = &mut options.which {
        policy.doubtful = true;
    }
    let report = forget(&nights.repository, &options).await.unwrap();
    assert_eq!((report.forgotten, report.doubtful), (3, 1), "{report:#?}");
    assert!(!nights.listed().contains(&old));
    assert_eq!(nights.listed(), nights.ids[3..]);
}

/// Whoever comes second sees what the first said: a hold is never forgotten over, and a forgotten backup is not held.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_and_a_forget_at_once_agree() {
    let mut outcomes = [0; 2];
    for seed in 0..30 {
        let nights = Nights::of(2).await;
        let id = nights.ids[0];
        let slow = |n| Faults { seed: seed * 10 + n, delay_max: Duration::from_millis(2), ..Faults::default() };
        let (for_hold, _) = Faulty::around(&nights.disk, slow(1));
        let (for_forget, _) = Faulty::around(&nights.disk, slow(2));
        let holder = open(&for_hold, 500 + seed).await.unwrap();
        let forgetter = open_later(for_forget, 900 + seed).await;
        let by_rule = keeping(last(1));
        let by_name = named(&[id]);
        let options = if seed % 2 == 0 { &by_rule } else { &by_name };
        let (held, forgotten) = tokio::join!(hold_for(&holder, id, "9y"), forget(&forgetter, options));
        let fresh = open(&nights.disk, 7).await.unwrap();
        let is_listed = ids(&fresh).contains(&id);
        assert_eq!(held.is_ok(), is_listed, "seed {seed}: {held:?} {forgotten:?}");
        let backup = fresh.find_any_backup(&id.to_string()).unwrap();
        assert_eq!(backup.held_until.is_some(), is_listed, "seed {seed}");
        outcomes[usize::from(is_listed)] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 0), "only one of them ever won: {outcomes:?}");
}

/// What the four commands do, one after the other, on the first backup; gives how many were done.
async fn commands(repository: &Repository, id: ObjectHash) -> (u32, Option<Error>) {
    for step in 0..5 {
        let outcome = match step {
            0 => hold_for(repository, id, "5y").await,
            1 => release(repository, &[id]).await.map(drop),
            2 => forget_named(repository, id).await.map(drop),
            3 => bring_back(repository, id).await.map(drop),
            _ => forget(repository, &keeping(last(1))).await.map(drop),
        };
        if let Err(error) = outcome {
            return (step, Some(error));
        }
    }
    (5, None)
}

/// Where the first backup stands: the number of commands that were done.
fn stages_of(repository: &Repository, id: ObjectHash) -> Vec<u32> {
    let backup = repository.find_any_backup(&id.to_string()).unwrap();
    match (backup.held_until.is_some(), backup.forgotten.is_some(), ids(repository).len()) {
        (true, false, 3) => vec![1],
        (false, false, 3) => vec![0, 2, 4],
        (false, true, 2) => vec![3],
        (false, true, 1) => vec![5],
        other => panic!("no command leaves {other:?}"),
    }
}

/// Opens it some days after the last night.
async fn open_later(store: Store, seed: u64) -> Repository {
    let (environment, clock) = seeded(seed);
    clock.advance(Duration::from_nanos(30 * DAY.unsigned_abs()));
    Repository::open(store, OpenOptions::default(), environment).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_may_die_at_any_write() {
    let nights = Nights::of(3).await;
    let objects = crate::made::objects_of(&nights.disk).await;
    let (store, faulty) = Faulty::around(&crate::made::store_of(&objects).await, Faults::default());
    let done = commands(&open_later(store, 30).await, nights.ids[0]).await;
    assert!(done.1.is_none(), "{done:?}");
    let total = faulty.writes();
    assert!(total >= 15, "only {total} writes: nothing is tested");
    let mut met = std::collections::BTreeSet::new();
    for writes in 0..=total {
        let disk = crate::made::store_of(&objects).await;
        let (store, faulty) = Faulty::around(&disk, Faults { writes_max: Some(writes), ..Faults::default() });
        let (done, error) = commands(&open_later(store, 31).await, nights.ids[0]).await;
        assert!(error.is_none() || faulty.has_crashed(), "after {writes}: {error:?}");
        let fresh = open(&disk, 32).await.unwrap();
        let stages = stages_of(&fresh, nights.ids[0]);
        assert!(stages.contains(&done) || stages.contains(&(done + 1)), "after {writes}: {done} done, at {stages:?}");
        met.insert(done);
        // Whoever comes next goes on, and what is listed is whole.
        let after = ids(&fresh);
        for (id, tree) in nights.ids.iter().zip(&nights.trees).filter(|(id, _)| after.contains(id)) {
            assert_restores(&fresh, *id, tree).await;
        }
        back_up(&fresh, "/data", &nights.trees[0]).await.unwrap();
    }
    assert_eq!(met.len(), 6, "not every stage was met: {met:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_of_any_write_changes_nothing_twice() {
    let nights = Nights::of(3).await;
    let objects = crate::made::objects_of(&nights.disk).await;
    let (store, faulty) = Faulty::around(&crate::made::store_of(&objects).await, Faults::default());
    commands(&open_later(store, 30).await, nights.ids[0]).await;
    for lost in 1..=faulty.writes() {
        let disk = crate::made::store_of(&objects).await;
        let (store, faulty) = Faulty::around(&disk, Faults { lost_reply_at: Some(lost), ..Faults::default() });
        let repository = open_later(store, 31).await;
        let (done, error) = commands(&repository, nights.ids[0]).await;
        let stages = stages_of(&open(&disk, 32).await.unwrap(), nights.ids[0]);
        assert!(stages.contains(&done) || stages.contains(&(done + 1)), "reply {lost}: {done} done, at {stages:?}");
        if let Some(error) = error {
            assert_eq!(faulty.failures(), 1, "reply {lost}: {}", whole(&error));
            // The command that failed can be given again, whether it was done or not.
            commands_from(&repository, nights.ids[0], done).await;
        }
        assert_eq!(stages_of(&open(&disk, 33).await.unwrap(), nights.ids[0]), [5], "reply {lost}");
    }
}

async fn commands_from(repository: &Repository, id: ObjectHash, first: u32) {
    for step in first..5 {
        match step {
            0 => hold_for(repository, id, "6y").await.unwrap(),
            1 => drop(release(repository, &[id]).await.unwrap()),
            2 => drop(forget_named(repository, id).await.unwrap()),
            3 => drop(bring_back(repository, id).await.unwrap()),
            _ => drop(forget(repository, &keeping(last(1))).await.unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_says_so_and_changes_nothing() {
    let nights = Nights::of(3).await;
    let objects = crate::made::objects_of(&nights.disk).await;
    let mut said = 0;
    for room in [0, 10, 20, 60, 150] {
        let disk = crate::made::store_of(&objects).await;
        let faults = Faults { full_after: Some(room), ..Faults::default() };
        let (store, faulty) = Faulty::around(&disk, faults);
        let repository = open_later(store, 40).await;
        let Err(error) = forget(&repository, &keeping(last(1))).await else { continue };
        assert!(error.is_disk_full(), "{room} bytes: {}", whole(&error));
        assert_eq!(ids(&open(&disk, 41).await.unwrap()), nights.ids);
        said += 1;
        faulty.heal();
        forget(&repository, &keeping(last(1))).await.unwrap();
        assert_eq!(ids(&open(&disk, 42).await.unwrap()), nights.ids[2..]);
    }
    assert!(said >= 4, "{said}");
}

/// Forgetting is what frees space, so it must be possible without any.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_with_ballast_lets_operators_speak() {
    let nights = Nights::of(3).await;
    let directory = tempfile::tempdir().unwrap();
    let disk = Store::create_root(directory.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
    for (path, bytes) in &crate::made::objects_of(&nights.disk).await {
        disk.put_new(ObjectPath::parse(path).unwrap(), vec![bytes.clone()]).await.unwrap();
    }
    disk.put_new(StoredObject::Ballast, vec![Bytes::from(vec![7; 1 << 20])]).await.unwrap();
    let (full, _faulty) = Faulty::around(&disk, Faults { full_after: Some(0), ..Faults::default() });
    forget(&open_later(full, 40).await, &keeping(last(1))).await.unwrap();
    assert_eq!(ids(&open(&disk, 41).await.unwrap()), nights.ids[2..]);
    assert!(!disk.exists(StoredObject::Ballast).await.unwrap(), "the ballast was what made room");
}

/// What is gone does not come back, and nothing is changed by the attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_a_chunk_gone_does_not_come_back() {
    let nights = Nights::of(2).await;
    let id = nights.ids[1];
    forget_named(&nights.repository, id).await.unwrap();
    // The last fragment holds what only this backup has. Without it, and with its packs gone, the chunks are nowhere.
    let mut objects = crate::made::objects_of(&nights.disk).await;
    let session = {
        let manifest = objects.keys().find(|path| path.starts_with(&format!("manifests/{id}"))).unwrap();
        manifest.rsplit_once('-').unwrap().1.to_owned()
    };
    objects.retain(|path, _| !(path.starts_with("packs/") && path.ends_with(&session)));
    objects.retain(|path, _| !(path.starts_with("index/") && path.ends_with(&session)));
    let disk = crate::made::store_of(&objects).await;
    let repository = open(&disk, 50).await.unwrap();
    let error = bring_back(&repository, id).await.unwrap_err();
    assert!(whole(&error).contains("cannot come back whole") && error.message().contains(&id.to_string()), "{error}");
    assert_eq!(ids(&open(&disk, 51).await.unwrap()), [nights.ids[0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_not_there_are_named_and_nothing_is_done() {
    let nights = Nights::of(1).await;
    let absent = ObjectHash::from_bytes([9; 32]);
    let repository = &nights.repository;
    for error in [
        forget(repository, &named(&[nights.ids[0], absent])).await.map(drop).unwrap_err(),
        bring_back(repository, absent).await.map(drop).unwrap_err(),
        hold_for(repository, absent, "1d").await.unwrap_err(),
        release(repository, &[nights.ids[0], absent]).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains(&absent.to_string()), "{error}");
    }
    assert_eq!(nights.listed(), nights.ids);
    let long = ForgetOptions { reason: "x".repeat(1001), ..named(&nights.ids) };
    assert_eq!(forget(repository, &long).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// Lineages by name: one that is ended goes as a whole, the others stay.
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_lineage_goes_as_a_whole() {
    let nights = Nights::of(2).await;
    let options = BackupOptions { lineage: Some("old".to_owned()), ..quick() };
    for n in 0..2 {
        back_up_with(&nights.repository, "/old", &tree_of(70 + n, 9000), &options).await.unwrap();
    }
    let policy = ForgetPolicy { lineages: vec!["old".to_owned()], keep_none: true, ..ForgetPolicy::default() };
    let options = ForgetOptions { which: Which::ByPolicy(policy), ..named(&[]) };
    let report = forget(&nights.repository, &options).await.unwrap();
    assert_eq!(report.forgotten, 2, "{report:#?}");
    assert_eq!(nights.listed(), nights.ids);
}
