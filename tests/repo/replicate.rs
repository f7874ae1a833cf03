//! A second copy: pushed, pulled, interrupted, damaged, rolled back; and whether it can stand by itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use everpack::clock::{ManualClock, Timestamp};
use everpack::error::{ErrorKind, Result};
use everpack::id::ObjectHash;
use everpack::ops::backup::BackupOptions;
use everpack::ops::replicate::{ReplicateOptions, ReplicateReport, Selection, Why, prove, replicate};
use everpack::progress::{Event, Monitor, Silent};
use everpack::repo::{Environment, OpenOptions, Repository};
use everpack::store::adapter::{Faults, Faulty, Pace, Recorder, Request, Throttle};
use everpack::store::{ObjectPath, Store};
use everpack::testing::s3;

use crate::made::{
    Tree, assert_restores, assert_scrubs, back_up, back_up_with, doomed, memory, objects_of, open, quick, seeded,
    small, store_of, tree_of, whole,
};

/// Every process has its own randomness.
fn environment() -> Environment {
    static SEED: AtomicU64 = AtomicU64::new(5_000_000);
    seeded(SEED.fetch_add(1, Ordering::Relaxed)).0
}

/// A process that is gone when the next one comes.
fn mortal() -> Environment {
    static SEED: AtomicU64 = AtomicU64::new(6_000_000);
    doomed(SEED.fetch_add(1, Ordering::Relaxed))
}

async fn opened(store: &Store) -> Repository {
    Repository::open(store.clone(), OpenOptions::default(), environment()).await.unwrap()
}

/// A repository with these trees backed up one after the other.
async fn origin_of(trees: &[Tree]) -> (Store, Vec<ObjectHash>) {
    let store = memory();
    let clock = Arc::new(ManualClock::new(Timestamp::from_nanos(1_600_000_000_000_000_000)));
    let environment = Environment { clock: clock.clone(), ..environment() };
    let repository = Repository::create(store.clone(), &small(), environment).await.unwrap();
    let mut ids = Vec::new();
    for tree in trees {
        ids.push(back_up(&repository, "/data", tree).await.unwrap().id);
        clock.advance(Duration::from_secs(86_400));
    }
    (store, ids)
}

/// An empty member of the family.
async fn member(origin: &Store) -> Store {
    let store = memory();
    Repository::create_member(store.clone(), &opened(origin).await, false, environment()).await.unwrap();
    store
}

fn options() -> ReplicateOptions {
    ReplicateOptions { memory: 64 << 20, ..ReplicateOptions::default() }
}

/// What a new process does.
async fn send_with(origin: &Store, target: &Store, options: &ReplicateOptions) -> Result<ReplicateReport> {
    let origin = Repository::open(origin.clone(), OpenOptions::default(), mortal()).await?;
    let target = Repository::open(target.clone(), OpenOptions::default(), mortal()).await?;
    replicate(&origin, &target, options, Arc::new(Silent)).await
}

/// The same by a process that lives on: beside others.
async fn send_beside(origin: &Store, target: &Store, options: &ReplicateOptions) -> Result<ReplicateReport> {
    replicate(&opened(origin).await, &opened(target).await, options, Arc::new(Silent)).await
}

async fn send(origin: &Store, target: &Store) -> ReplicateReport {
    send_with(origin, target, &options()).await.unwrap_or_else(|error| panic!("{}", whole(&error)))
}

fn nights() -> Vec<Tree> {
    let first = tree_of(1, 300_000);
    let mut second = first.clone();
    second.extend(tree_of(2, 200_000));
    second.remove(b"small-1".as_slice());
    let mut third = second.clone();
    third.insert(b"late".to_vec(), tree_of(3, 150_000)[b"a/long".as_slice()].clone());
    vec![first, second, third]
}

/// The repository alone, read from its first entry: these backups and no others, each bit for bit.
async fn assert_holds(store: &Store, expected: &[(ObjectHash, &Tree)], what: &str) {
    let options = OpenOptions { distrust_state: true, ..OpenOptions::default() };
    let repository = Repository::open(store.clone(), options, environment()).await.unwrap();
    let listed: Vec<_> = repository.backups().iter().map(|backup| backup.id).collect();
    assert_eq!(listed, expected.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{what}");
    for (id, tree) in expected {
        assert_restores(&repository, *id, tree).await;
    }
    assert_scrubs(&repository, what).await;
}

fn pairs<'a>(ids: &[ObjectHash], trees: &'a [Tree]) -> Vec<(ObjectHash, &'a Tree)> {
    ids.iter().copied().zip(trees).collect()
}

async fn packs_of(store: &Store) -> Vec<String> {
    let is_pack = |path: &String| path.starts_with("packs/") || path.starts_with("meta/");
    objects_of(store).await.into_keys().filter(is_pack).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_stands_by_itself_when_the_origin_is_gone() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees).await;
    let target = member(&origin).await;
    let report = send(&origin, &target).await;
    assert_eq!(report.sent.iter().map(|sent| sent.id).collect::<Vec<_>>(), ids, "oldest first");
    assert!(report.complete && report.findings.is_empty() && report.remarks.is_empty(), "{report:?}");
    assert_eq!(report.packs, packs_of(&origin).await.len() as u64);
    for info in origin.list_sorted(everpack::store::Folder::Root).await.unwrap() {
        origin.delete(&info.path).await.unwrap();
    }
    assert_holds(&target, &pairs(&ids, &trees), "the replica").await;
    // And it goes on as a repository of its own.
    let repository = opened(&target).await;
    let mut next = trees[2].clone();
    next.insert(b"more".to_vec(), Arc::new(vec![7; 50_000]));
    let report = back_up(&repository, "/data", &next).await.unwrap();
    assert_eq!(report.files_unchanged, trees[2].len() as u64);
    assert_restores(&repository, report.id, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_not_sent_again() {
    let trees = nights();
    let (origin, mut ids) = origin_of(&trees[..2]).await;
    let target = member(&origin).await;
    send(&origin, &target).await;
    let before = packs_of(&target).await;
    let again = send(&origin, &target).await;
    assert_eq!((again.sent.len(), again.present, again.packs, again.bytes), (0, 2, 0, 0), "{again:?}");
    assert_eq!(packs_of(&target).await, before);

    ids.push(back_up(&opened(&origin).await, "/data", &trees[2]).await.unwrap().id);
    let dry = send_with(&origin, &target, &ReplicateOptions { dry_run: true, ..options() }).await.unwrap();
    assert_eq!((dry.sent.len(), dry.present), (1, 2));
    assert_eq!(packs_of(&target).await, before, "a dry run writes nothing");
    let third = send(&origin, &target).await;
    assert_eq!((third.sent.len(), third.present), (1, 2));
    assert_eq!((third.packs, third.bytes), (dry.packs, dry.bytes), "what the dry run said");
    assert!(third.bytes < 300_000, "only what is new: {third:?}");
    assert_holds(&target, &pairs(&ids, &trees), "after an increment").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pack_is_read_once_and_written_once() {
    let trees = nights();
    let (origin, _) = origin_of(&trees).await;
    let target = member(&origin).await;
    let (from, read) = Recorder::around(&origin);
    let (to, written) = Recorder::around(&target);
    let report = send(&from, &to).await;
    let whole_reads: Vec<String> = read
        .take()
        .0
        .into_iter()
        .filter_map(|request| match request {
            Request::Get { path, ranges: 0 } if path.starts_with("packs/") || path.starts_with("meta/") => Some(path),
            _ => None,
        })
        .collect();
    assert_eq!(whole_reads.len() as u64, report.packs);
    assert_eq!(whole_reads.iter().collect::<BTreeSet<_>>().len(), whole_reads.len(), "no pack twice");
    let (requests, counts) = written.take();
    let puts = |folder: &str, requests: &[Request]| {
        requests
            .iter()
            .filter(|request| matches!(request, Request::Put { path, .. } if path.starts_with(folder)))
            .count()
    };
    assert_eq!((puts("packs/", &requests) + puts("meta/", &requests)) as u64, report.packs);
    assert_eq!((puts("index/", &requests), puts("manifests/", &requests), puts("log/", &requests)), (1, 3, 3));
    assert_eq!(counts.deletes, 0);
    // An increment of nothing asks little.
    send(&from, &to).await;
    let (requests, counts) = written.take();
    assert!(counts.requests() < 25, "{} requests: {requests:#?}", counts.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_may_die_after_any_write_and_the_next_one_goes_on() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees[..2]).await;
    let expected = pairs(&ids, &trees);
    let total = {
        let target = member(&origin).await;
        let (store, faulty) = Faulty::around(&target, Faults::default());
        send(&origin, &store).await;
        faulty.writes()
    };
    assert!(total > 15, "only {total} writes: nothing is tested");
    let mut outcomes = BTreeSet::new();
    for writes in 0..=total {
        let target = member(&origin).await;
        let (store, _) = Faulty::around(&target, Faults { writes_max: Some(writes), ..Faults::default() });
        let died = send_with(&origin, &store, &options()).await;
        assert!(died.is_err() || writes == total, "{writes} writes of {total} were enough");
        // Listed means whole, at any time.
        let listed = opened(&target).await.backups().len();
        assert_holds(&target, &expected[..listed], &format!("after {writes} writes")).await;
        outcomes.insert(listed);
        let report = send(&origin, &target).await;
        assert_eq!(report.sent.len() + listed, 2, "after {writes} writes");
        assert_holds(&target, &expected, &format!("after {writes} writes and another run")).await;
    }
    assert_eq!(outcomes, BTreeSet::from([0, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_failed_need_not_be_repeated_from_the_start() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees).await;
    let target = member(&origin).await;
    let all = packs_of(&origin).await.len() as u64;
    // The disk fills up; then there is room again.
    let (store, faulty) = Faulty::around(&target, Faults { full_after: Some(400_000), ..Faults::default() });
    let error = send_with(&origin, &store, &options()).await.unwrap_err();
    assert!(error.is_disk_full(), "{}", whole(&error));
    assert_holds(&target, &[], "a full disk").await;
    faulty.heal();
    send(&origin, &store).await;
    assert_holds(&target, &pairs(&ids, &trees), "with room again").await;

    // Stopped on request: what arrived by then is found.
    let target = member(&origin).await;
    let (from, to) = (opened(&origin).await, opened(&target).await);
    let monitor = Arc::new(StopAfter { packs: AtomicU64::new(0), at: all / 2 });
    let slowly = ReplicateOptions { transfers: 1, ..options() };
    let error = replicate(&from, &to, &slowly, monitor).await.unwrap_err();
    assert!(error.to_string().contains("stopped on request"), "{error}");
    let rest = send(&origin, &target).await;
    assert!(rest.packs < all && rest.packs > 0, "{} of {all} packs were sent again", rest.packs);
    assert_holds(&target, &pairs(&ids, &trees), "after a stop").await;
}

struct StopAfter {
    packs: AtomicU64,
    at: u64,
}

impl Monitor for StopAfter {
    fn event(&self, _: Event) {}

    fn advance(&self, _: u64, _: u64, items: u64) {
        self.packs.fetch_add(items, Ordering::SeqCst);
    }

    fn cancelled(&self) -> bool {
        self.packs.load(Ordering::SeqCst) >= self.at
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_is_not_a_lost_replica() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees[..2]).await;
    for lost in 1..40 {
        let target = member(&origin).await;
        let (store, faulty) = Faulty::around(&target, Faults { lost_reply_at: Some(lost), ..Faults::default() });
        if send_with(&origin, &store, &options()).await.is_err() {
            send(&origin, &store).await;
        }
        assert_holds(&target, &pairs(&ids, &trees), &format!("reply {lost} was lost")).await;
        if faulty.failures() == 0 {
            assert!(lost > 15, "only {lost} writes");
            return;
        }
    }
    panic!("more than forty writes");
}

async fn put(store: &Store, path: &str, bytes: Bytes) {
    store.put_new(ObjectPath::parse(path).unwrap(), vec![bytes]).await.unwrap();
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Bytes::from(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_at_the_origin_keeps_back_only_what_needs_it() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees[..1]).await;
    let first = packs_of(&origin).await;
    let repository = opened(&origin).await;
    let apart = Tree::from([(b"apart".to_vec(), tree_of(9, 200_000)[b"a/long".as_slice()].clone())]);
    let options_apart = BackupOptions { lineage: Some("apart".to_owned()), ..quick() };
    let second = back_up_with(&repository, "/apart", &apart, &options_apart).await.unwrap().id;
    let objects = objects_of(&origin).await;
    for (path, bytes) in objects.iter().filter(|(path, _)| path.starts_with("packs/")) {
        for damage in [Some(flipped(bytes)), Some(bytes.slice(..bytes.len() - 9)), None] {
            let mut broken = objects.clone();
            match &damage {
                Some(bytes) => drop(broken.insert(path.clone(), bytes.clone())),
                None => drop(broken.remove(path)),
            }
            let broken = store_of(&broken).await;
            let target = member(&broken).await;
            let report = send(&broken, &target).await;
            let (lost, kept, tree) = match first.contains(path) {
                true => (ids[0], second, &apart),
                false => (second, ids[0], &trees[0]),
            };
            assert_eq!(report.skipped.iter().map(|one| (one.id, one.why)).collect::<Vec<_>>(), [(lost, Why::Damaged)]);
            assert!(!report.complete && report.finding_count == 2, "{report:#?}");
            let hash = path.rsplit('/').next().unwrap().split('-').next().unwrap();
            assert!(report.findings.iter().any(|finding| finding.object.contains(hash)), "{report:#?}");
            assert!(report.findings.iter().any(|finding| finding.object.contains(&lost.to_string())), "{report:#?}");
            assert_holds(&target, &[(kept, tree)], path).await;

            // Healed, it arrives.
            put(&broken, path, bytes.clone()).await;
            let report = send(&broken, &target).await;
            assert_eq!((report.sent.len(), report.present, report.finding_count), (1, 1, 0), "{report:#?}");
            assert_eq!(report.packs, 1, "the rest was there");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_list_keeps_back_its_backup_and_no_other() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees).await;
    let objects = objects_of(&origin).await;
    let path = objects.keys().find(|path| path.starts_with(&format!("manifests/{}", ids[1]))).unwrap();
    let mut broken = objects.clone();
    broken.insert(path.clone(), flipped(&objects[path]));
    let broken = store_of(&broken).await;
    let target = member(&broken).await;
    let report = send(&broken, &target).await;
    assert_eq!((report.sent.len(), report.finding_count), (2, 1), "{report:#?}");
    assert_holds(&target, &[(ids[0], &trees[0]), (ids[2], &trees[2])], "without the second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_copy_takes_the_place_of_a_damaged_pack() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees[..1]).await;
    let objects = objects_of(&origin).await;
    let path = objects.keys().find(|path| path.starts_with("packs/")).unwrap();
    // While the pack is away, a backup stores what it held once more; then it comes back, damaged.
    origin.delete(ObjectPath::parse(path).unwrap()).await.unwrap();
    let repository = opened(&origin).await;
    let second =
        back_up_with(&repository, "/data", &trees[0], &BackupOptions { force: true, ..quick() }).await.unwrap();
    assert!(second.chunks_new > 0);
    put(&origin, path, flipped(&objects[path])).await;
    let target = member(&origin).await;
    let report = send(&origin, &target).await;
    assert!(report.complete && report.sent.len() == 2, "{report:#?}");
    assert_eq!(report.finding_count, 1, "the damaged pack is named: {report:#?}");
    assert_holds(&target, &[(ids[0], &trees[0]), (second.id, &trees[0])], "through the spare").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_at_the_replica_is_sent_again() {
    let trees = nights();
    let (origin, mut ids) = origin_of(&trees[..1]).await;
    let target = member(&origin).await;
    send(&origin, &target).await;
    for path in packs_of(&target).await.into_iter().filter(|path| path.starts_with("packs/")) {
        target.delete(ObjectPath::parse(&path).unwrap()).await.unwrap();
    }
    ids.push(back_up(&opened(&origin).await, "/data", &trees[1]).await.unwrap().id);
    let report = send(&origin, &target).await;
    assert!(report.remarks.iter().any(|remark| remark.contains("missing")), "{report:#?}");
    assert_eq!((report.sent.len(), report.present), (1, 1));
    let repository = opened(&target).await;
    for (id, tree) in pairs(&ids, &trees) {
        assert_restores(&repository, id, tree).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose() {
    let store = memory();
    let (environment, clock) = seeded(77);
    let origin = Repository::create(store.clone(), &small(), environment).await.unwrap();
    let mut ids = Vec::new();
    let mut times = Vec::new();
    for n in 0..6u64 {
        let lineage = if n % 2 == 0 { "shop" } else { "web" };
        let tags = if n >= 4 { vec!["keep".to_owned()] } else { Vec::new() };
        let options = BackupOptions { lineage: Some(lineage.to_owned()), tags, ..quick() };
        times.push(everpack::clock::Clock::now(&*clock));
        ids.push(back_up_with(&origin, "/data", &tree_of(n, 20_000), &options).await.unwrap().id);
        clock.advance(Duration::from_secs(86_400));
    }
    let chosen = async |selection: Selection| {
        let target = member(&store).await;
        let report = send_with(&store, &target, &ReplicateOptions { selection, ..options() }).await.unwrap();
        let sent: Vec<usize> =
            report.sent.iter().map(|sent| ids.iter().position(|id| *id == sent.id).unwrap()).collect();
        assert_eq!(opened(&target).await.backups().len(), sent.len());
        sent
    };
    let all = Selection::default;
    assert_eq!(chosen(all()).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(chosen(Selection { lineages: vec!["web".to_owned()], ..all() }).await, [1, 3, 5]);
    assert_eq!(chosen(Selection { tags: vec!["keep".to_owned()], ..all() }).await, [4, 5]);
    assert_eq!(chosen(Selection { last: Some(2), ..all() }).await, [2, 3, 4, 5]);
    assert_eq!(chosen(Selection { since: Some(times[3]), ..all() }).await, [3, 4, 5]);
    assert_eq!(chosen(Selection { backups: vec![ids[4], ids[0]], ..all() }).await, [0, 4]);
    assert_eq!(chosen(Selection { lineages: vec!["shop".to_owned()], last: Some(1), ..all() }).await, [4]);
    let unknown = Selection { backups: vec![ObjectHash::from_bytes([9; 32])], ..all() };
    let target = member(&store).await;
    let error = send_with(&store, &target, &ReplicateOptions { selection: unknown, ..options() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_lists_its_backups_in_the_order_of_the_origin() {
    // The clock stands still, goes back and forth: eight backups whose ids and times are in any order.
    let store = memory();
    let (environment, clock) = seeded(78);
    let origin = Repository::create(store.clone(), &small(), environment).await.unwrap();
    let mut ids = Vec::new();
    for (n, hour) in [5, 5, 3, 9, 10, 11, 2, 12].into_iter().enumerate() {
        clock.set(Timestamp::from_nanos(1_700_000_000_000_000_000 + hour * 3_600_000_000_000));
        ids.push(back_up(&origin, "/data", &tree_of(n as u64, 5000)).await.unwrap().id);
    }
    let target = member(&store).await;
    send(&store, &target).await;
    let listed: Vec<_> = opened(&target).await.backups().iter().map(|backup| backup.id).collect();
    assert_eq!(listed, ids);

    // What comes late is listed last, and that is told.
    let target = member(&store).await;
    let newest = Selection { last: Some(1), ..Selection::default() };
    send_with(&store, &target, &ReplicateOptions { selection: newest, ..options() }).await.unwrap();
    let report = send(&store, &target).await;
    assert!(report.remarks.iter().any(|remark| remark.contains("arrived after newer ones")), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_side_by_side_make_one_replica() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees).await;
    let target = member(&origin).await;
    let shard = |n| ReplicateOptions { shard: Some((n, 3)), ..options() };
    // One alone has not everything.
    let first = send_with(&origin, &target, &shard(1)).await.unwrap();
    assert_eq!(first.sent.len(), 0);
    assert!(!first.complete && first.skipped.iter().all(|one| one.why == Why::Waiting), "{first:#?}");
    assert_holds(&target, &[], "after one shard").await;
    let (one, two, three) = (shard(1), shard(2), shard(3));
    let (one, two, three) = tokio::join!(
        send_beside(&origin, &target, &one),
        send_beside(&origin, &target, &two),
        send_beside(&origin, &target, &three)
    );
    let reports = [one.unwrap(), two.unwrap(), three.unwrap()];
    assert_eq!(reports[0].packs, 0, "its share was there");
    assert!(reports.iter().any(|report| report.complete), "whoever was last finds everything: {reports:#?}");
    assert_eq!(packs_of(&target).await.len(), packs_of(&origin).await.len(), "no pack came twice");
    assert_holds(&target, &pairs(&ids, &trees), "all shards").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_senders_and_a_backup_at_once_do_not_disturb_each_other() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees).await;
    let target = member(&origin).await;
    let own = tree_of(50, 200_000);
    let there = opened(&target).await;
    let here = opened(&origin).await;
    let options = options();
    let (one, two, three, four) = tokio::join!(
        send_beside(&origin, &target, &options),
        send_beside(&origin, &target, &options),
        back_up(&there, "/elsewhere", &own),
        back_up(&here, "/more", &own),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    let (own_id, more) = (three.unwrap().id, four.unwrap().id);
    assert!(one.complete && two.complete);
    let repository = opened(&target).await;
    for (id, tree) in pairs(&ids, &trees).into_iter().chain([(own_id, &own)]) {
        assert_restores(&repository, id, tree).await;
    }
    assert_scrubs(&repository, "the busy replica").await;
    send(&origin, &target).await;
    assert_restores(&opened(&target).await, more, &own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_went_backwards_is_refused_until_accepted() {
    let trees = nights();
    let (origin, mut ids) = origin_of(&trees[..1]).await;
    let before = objects_of(&origin).await;
    ids.push(back_up(&opened(&origin).await, "/data", &trees[1]).await.unwrap().id);
    let target = member(&origin).await;
    send(&origin, &target).await;
    // The origin's disk is brought back from an old copy, and another history begins.
    let origin = store_of(&before).await;
    let third = back_up(&opened(&origin).await, "/data", &trees[2]).await.unwrap().id;
    let error = send_with(&origin, &target, &options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("went backwards") && error.to_string().contains("--accept-rollback"), "{error}");
    assert_holds(&target, &pairs(&ids, &trees), "refused, and nothing changed").await;
    let accepted = ReplicateOptions { accept_rollback: true, ..options() };
    let report = send_with(&origin, &target, &accepted).await.unwrap();
    assert_eq!((report.sent.len(), report.present), (1, 1));
    assert!(report.remarks.iter().any(|remark| remark.contains("went backwards")), "{report:#?}");
    ids.push(third);
    assert_holds(&target, &pairs(&ids, &trees), "accepted, and nothing removed").await;
    // Accepted once, it is the origin from then on.
    assert!(send(&origin, &target).await.remarks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_went_backwards_is_told_and_filled_again() {
    let trees = nights();
    let (origin, mut ids) = origin_of(&trees[..1]).await;
    let target = member(&origin).await;
    send(&origin, &target).await;
    let before = objects_of(&target).await;
    for tree in &trees[1..] {
        ids.push(back_up(&opened(&origin).await, "/data", tree).await.unwrap().id);
    }
    send(&origin, &target).await;
    let target = store_of(&before).await;
    let report = send(&origin, &target).await;
    assert!(report.remarks.iter().any(|remark| remark.contains("went backwards")), "{report:#?}");
    assert_eq!((report.sent.len(), report.present), (2, 1));
    assert_holds(&target, &pairs(&ids, &trees), "filled again").await;
    assert!(send(&origin, &target).await.remarks.is_empty(), "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_of_the_family_are_filled() {
    let trees = nights();
    let (origin, _) = origin_of(&trees[..1]).await;
    let (stranger, _) = origin_of(&trees[1..2]).await;
    let error = send_with(&origin, &stranger, &options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("family") && error.to_string().contains("empty place"), "{error}");
    let copy = store_of(&objects_of(&origin).await).await;
    let error = send_with(&origin, &copy, &options()).await.unwrap_err();
    assert!(error.to_string().contains("plain copy"), "{error}");
    let error = Repository::create_member(stranger.clone(), &opened(&origin).await, false, environment()).await;
    assert!(error.unwrap_err().to_string().contains("left as it is"));
    for wrong in [
        ReplicateOptions { shard: Some((0, 3)), ..options() },
        ReplicateOptions { shard: Some((4, 3)), ..options() },
        ReplicateOptions { transfers: 0, ..options() },
        ReplicateOptions { limit_rate: Some(0), ..options() },
    ] {
        assert_eq!(send_with(&origin, &copy, &wrong).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_cannot_be_written_is_read_all_the_same() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees).await;
    let target = member(&origin).await;
    let before = objects_of(&origin).await;
    let (readonly, _) = Faulty::around(&origin, Faults { full_after: Some(0), ..Faults::default() });
    let report = send(&readonly, &target).await;
    assert!(report.remarks.iter().any(|remark| remark.contains("without a session")), "{report:#?}");
    assert!(report.complete);
    assert!(objects_of(&origin).await == before, "nothing was written there");
    assert_holds(&target, &pairs(&ids, &trees), "from a read-only origin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_a_replication_too() {
    let trees = nights();
    let (first, mut ids) = origin_of(&trees[..1]).await;
    let second = member(&first).await;
    send(&first, &second).await;
    ids.push(back_up(&opened(&second).await, "/data", &trees[1]).await.unwrap().id);
    let report = send(&second, &first).await;
    assert_eq!((report.sent.len(), report.present), (1, 1));
    ids.push(back_up(&opened(&first).await, "/data", &trees[2]).await.unwrap().id);
    send(&first, &second).await;
    for store in [&first, &second] {
        assert_holds(store, &pairs(&ids, &trees), "both ways").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_tells_equal_from_unequal() {
    let trees = nights();
    let (origin, mut ids) = origin_of(&trees[..2]).await;
    let target = member(&origin).await;
    send(&origin, &target).await;
    let compare = async |origin: &Store, target: &Store, selection: &Selection| {
        prove(&opened(origin).await, &opened(target).await, selection, Arc::new(Silent)).await.unwrap()
    };
    let all = Selection::default();
    let proof = compare(&origin, &target, &all).await;
    assert!(proof.equal && proof.backups.equal && proof.chunks.equal && proof.packs.equal, "{proof:#?}");
    assert!(proof.backups.origin_count == 2 && proof.chunks.origin_count > 50, "{proof:#?}");
    let same = compare(&target, &origin, &all).await;
    assert_eq!(same.chunks.origin_root, proof.chunks.origin_root, "a root says the same from either side");

    // A backup more at the origin; a backup more at the target.
    ids.push(back_up(&opened(&origin).await, "/data", &trees[2]).await.unwrap().id);
    let proof = compare(&origin, &target, &all).await;
    assert!(!proof.equal && proof.chunks.equal && !proof.packs.equal);
    assert_eq!(proof.only_origin.iter().map(|one| one.id).collect::<Vec<_>>(), [ids[2]]);
    assert_eq!(proof.backups.differing, [ids[2].as_bytes()[0]]);
    let selection = Selection { backups: ids[..2].to_vec(), ..all.clone() };
    assert!(compare(&origin, &target, &selection).await.equal, "of the chosen ones");
    send(&origin, &target).await;
    let own = back_up(&opened(&target).await, "/own", &tree_of(8, 30_000)).await.unwrap().id;
    let proof = compare(&origin, &target, &all).await;
    assert!(!proof.equal && proof.only_origin.is_empty());
    assert_eq!(proof.only_target.iter().map(|one| one.id).collect::<Vec<_>>(), [own]);

    // A pack that is gone.
    let (origin, _) = origin_of(&trees[..2]).await;
    let target = member(&origin).await;
    send(&origin, &target).await;
    let packs = packs_of(&target).await;
    let lost = packs.iter().find(|path| path.starts_with("packs/")).unwrap();
    target.delete(ObjectPath::parse(lost).unwrap()).await.unwrap();
    let proof = compare(&origin, &target, &all).await;
    assert!(!proof.equal && proof.backups.equal && !proof.chunks.equal, "{proof:#?}");
    assert!(proof.chunks.target_count < proof.chunks.origin_count && !proof.chunks.differing.is_empty());
    assert!(proof.missing_count > 0 && proof.missing.iter().all(|one| one.what.starts_with("chunk ")), "{proof:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_kept() {
    let (origin, _) = origin_of(&nights()[..2]).await;
    let target = member(&origin).await;
    let begun = Instant::now();
    let limited = ReplicateOptions { limit_rate: Some(400_000), ..options() };
    let report = send_with(&origin, &target, &limited).await.unwrap();
    // The last pack need not have had its time.
    let least = Duration::from_secs_f64((report.bytes - (70 << 10)) as f64 / 400_000.0);
    assert!(begun.elapsed() >= least, "{} bytes in {:?}", report.bytes, begun.elapsed());
    assert!(least > Duration::from_millis(800), "too little to measure: {} bytes", report.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_distant_store_is_kept_busy() {
    let (origin, _) = origin_of(&nights()).await;
    let far = async |transfers: usize| {
        let target = member(&origin).await;
        let pace = Pace { latency: Duration::from_millis(50), bytes_per_second: 1 << 20 };
        let store = Throttle::around(&target, pace);
        let begun = Instant::now();
        let report = send_with(&origin, &store, &ReplicateOptions { transfers, ..options() }).await.unwrap();
        (begun.elapsed(), report.packs)
    };
    // The waiting is made up, the work is not: on a machine that does something else as well, one of a few tries is quick enough.
    let mut tries = Vec::new();
    while tries.len() < 4 {
        let ((alone, packs), (together, _)) = (far(1).await, far(8).await);
        assert!(packs > 12, "{packs} packs");
        tries.push((alone, together));
        if together * 2 < alone {
            return;
        }
    }
    panic!("one at a time and eight at once took {tries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_filled_and_emptied() {
    let Some(server) = s3::server("buckets_are_filled_and_emptied", "EVERPACK_TEST_S3") else { return };
    let trees = nights();
    let (origin, ids) = origin_of(&trees).await;
    let bucket = Store::open(&server.url("replica"), &server.options).unwrap();
    Repository::create_member(bucket.clone(), &opened(&origin).await, false, environment()).await.unwrap();
    send(&origin, &bucket).await;
    assert_holds(&bucket, &pairs(&ids, &trees), "in a bucket").await;
    // From bucket to bucket, and back to memory.
    let other = Store::open(&server.url("second"), &server.options).unwrap();
    Repository::create_member(other.clone(), &opened(&bucket).await, false, environment()).await.unwrap();
    send(&bucket, &other).await;
    let back = member(&other).await;
    send(&other, &back).await;
    assert_holds(&back, &pairs(&ids, &trees), "back from a bucket").await;
    let proof = prove(&opened(&origin).await, &opened(&other).await, &Selection::default(), Arc::new(Silent)).await;
    assert!(proof.unwrap().equal);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_of_a_host_serves_both_sides() {
    let trees = nights();
    let (origin, ids) = origin_of(&trees[..2]).await;
    let target = member(&origin).await;
    let cache = crate::made::scratch();
    let cached = async |store: &Store| {
        let environment = Environment { cache: Some(cache.path().to_owned()), ..environment() };
        Repository::open(store.clone(), OpenOptions::default(), environment).await.unwrap()
    };
    for _ in 0..2 {
        let (from, to) = (cached(&origin).await, cached(&target).await);
        replicate(&from, &to, &options(), Arc::new(Silent)).await.unwrap();
    }
    assert_holds(&target, &pairs(&ids, &trees), "with caches").await;
    assert_eq!(open(&target, 4_000_000).await.unwrap().id(), opened(&target).await.id());
}
