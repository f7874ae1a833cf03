//! The scrub ledger: budgets add up, progress survives, damage is remembered, and none of it is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use everpack::ops::check::{CheckOptions, CheckReport, Sample, Severity, check};
use everpack::ops::query::stats;
use everpack::ops::repair::{RepairOptions, repair};
use everpack::progress::{Event, Monitor, Silent};
use everpack::repo::{OpenOptions, Repository};
use everpack::store::adapter::{Faults, Faulty};
use everpack::store::{Folder, ObjectPath, Store};

use crate::made::{Tree, assert_scrubs, back_up, doomed, memory, objects_of, open, seeded, small, tree_of};

async fn subject() -> (Store, Tree) {
    let store = memory();
    let repository = Repository::create(store.clone(), &small(), seeded(1).0).await.unwrap();
    let tree = tree_of(1, 400_000);
    back_up(&repository, "/data", &tree).await.unwrap();
    (store, tree)
}

fn scrub_all() -> CheckOptions {
    CheckOptions { read_data: true, memory: 64 << 20, ..CheckOptions::default() }
}

/// No two sessions may have one name.
fn next_seed() -> u64 {
    static SEED: AtomicU64 = AtomicU64::new(5_000_000);
    SEED.fetch_add(1, Ordering::Relaxed)
}

async fn run(store: &Store, options: CheckOptions) -> CheckReport {
    check(&open(store, next_seed()).await.unwrap(), &options, Arc::new(Silent)).await.unwrap()
}

async fn parts(store: &Store) -> Vec<String> {
    store.list_sorted(Folder::Scrub).await.unwrap().into_iter().map(|info| info.path.to_string()).collect()
}

async fn replace(store: &Store, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = ObjectPath::parse(path).unwrap();
    let mut bytes = store.get(&path).await.unwrap().to_vec();
    change(&mut bytes);
    store.put_new(&path, vec![Bytes::from(bytes)]).await.unwrap();
}

async fn a_data_pack(store: &Store) -> String {
    store.list_sorted(Folder::Packs).await.unwrap()[0].path.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_add_up_until_nothing_is_left_to_read() {
    let (store, _) = subject().await;
    let old = || CheckOptions { older_than: Some(Duration::from_secs(3600)), ..scrub_all() };
    let before = stats(&open(&store, next_seed()).await.unwrap()).await.unwrap().scrub;
    assert!(before.packs > 4 && before.never_read == before.packs, "{before:?}");
    assert_eq!(before.describe(), "no pack was ever read");

    let first = run(&store, CheckOptions { sample: Some(Sample::Bytes(100_000)), ..scrub_all() }).await;
    let age = first.scrub.unwrap();
    assert!(first.packs_read > 0 && first.packs_read < first.packs);
    assert_eq!(age.never_read, first.packs - first.packs_read);
    assert!(age.describe().starts_with("never read: "), "{}", age.describe());

    let mut read = first.packs_read;
    for shard in 1..=3 {
        let report = run(&store, CheckOptions { shard: Some((shard, 3)), ..old() }).await;
        assert!(report.complete);
        read += report.packs_read;
    }
    assert_eq!(read, first.packs, "each pack was read once");
    let report = run(&store, old()).await;
    assert_eq!((report.packs_read, report.complete), (0, true));
    let age = stats(&open(&store, next_seed()).await.unwrap()).await.unwrap().scrub;
    assert_eq!((age.never_read, age.packs), (0, first.packs));
    assert!((age.recent_share - 1.0).abs() < 1e-9);
    assert_eq!(age.describe(), "every pack was read within the last day");
}

/// Asks to stop once some packs were read.
#[derive(Default)]
struct StopsAfter(AtomicU64);

impl Monitor for StopsAfter {
    fn event(&self, _event: Event) {}

    fn advance(&self, bytes: u64, _new_bytes: u64, _items: u64) {
        self.0.fetch_add(u64::from(bytes > 0), Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 3
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_that_is_stopped_keeps_what_it_read() {
    let (store, _) = subject().await;
    let repository = open(&store, next_seed()).await.unwrap();
    back_up(&repository, "/long", &tree_of(7, 2_000_000)).await.unwrap();
    let report = check(&repository, &scrub_all(), Arc::new(StopsAfter::default())).await.unwrap();
    assert!(!report.complete && report.packs_read >= 3 && report.packs_read < report.packs);
    let rest = run(&store, CheckOptions { older_than: Some(Duration::from_secs(3600)), ..scrub_all() }).await;
    assert_eq!(report.packs_read + rest.packs_read, report.packs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_may_die_after_any_write_and_keeps_what_it_wrote_down() {
    let (healthy, _) = subject().await;
    let objects = objects_of(&healthy).await;
    let often = || CheckOptions { ledger_part: 1, ..scrub_all() };
    let mut outcomes = std::collections::BTreeSet::new();
    for writes in 0..40 {
        let disk = crate::made::store_of(&objects).await;
        let (store, faulty) = Faulty::around(&disk, Faults { writes_max: Some(writes), ..Faults::default() });
        let repository = Repository::open(store, OpenOptions::default(), doomed(77)).await.unwrap();
        let lived = check(&repository, &often(), Arc::new(Silent)).await;
        let written = parts(&disk).await.len() as u64;
        let age = stats(&open(&disk, next_seed()).await.unwrap()).await.unwrap().scrub;
        outcomes.insert(age.never_read);
        assert_eq!(age.never_read == age.packs, written == 0, "after {writes} writes");
        let rest = run(&disk, CheckOptions { older_than: Some(Duration::from_secs(3600)), ..often() }).await;
        assert_eq!(rest.findings, [], "after {writes} writes");
        assert_eq!(rest.packs_read, age.never_read, "after {writes} writes");
        if lived.is_ok() && !faulty.has_crashed() {
            assert_eq!(age.never_read, 0);
            assert!(outcomes.len() > 2, "{outcomes:?}");
            return;
        }
    }
    panic!("40 writes do not do: {outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_remembered_told_by_a_check_and_read_again_first() {
    let (store, tree) = subject().await;
    let pack = a_data_pack(&store).await;
    replace(&store, &pack, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    })
    .await;
    assert_eq!(run(&store, CheckOptions::default()).await.findings, [], "its size is right");
    let found = run(&store, scrub_all()).await;
    assert_eq!(found.worst(), Some(Severity::Error));
    assert!(found.findings[0].heal.contains("everpack repair --from"), "{:?}", found.findings);

    // A check that reads no data tells it too.
    let told = run(&store, CheckOptions::default()).await;
    let finding = &told.findings[0];
    assert_eq!((told.finding_count, finding.severity), (1, Severity::Error));
    assert!(finding.what.starts_with("found damaged on 20") && finding.touched_count > 0, "{finding:?}");
    let hash = pack.rsplit('/').next().unwrap().split('-').next().unwrap();
    assert!(finding.object.contains(hash));
    // A scrub of what is old reads it again, and so does a part that it is not in.
    let again = run(&store, CheckOptions { older_than: Some(Duration::from_secs(3600)), ..scrub_all() }).await;
    assert_eq!((again.packs_read, again.finding_count), (1, 1));
    for part in 1..=2 {
        let again = run(&store, CheckOptions { part: Some((part, 2)), ..scrub_all() }).await;
        assert_eq!(again.finding_count, 1);
    }
    assert_eq!(run(&store, CheckOptions::default()).await.scrub, None);
    let age = stats(&open(&store, next_seed()).await.unwrap()).await.unwrap().scrub;
    assert!(age.damaged == 1 && age.describe().ends_with("; found damaged: 1"), "{}", age.describe());

    // The next backup of the source does not rely on it, and stores again what it held: every backup is whole again.
    let report = back_up(&open(&store, next_seed()).await.unwrap(), "/data", &tree).await.unwrap();
    assert!(report.bytes_stored > 0, "{report:?}");
    let healed = run(&store, scrub_all()).await;
    assert_eq!((healed.finding_count, healed.worst()), (1, Some(Severity::Warning)), "{:?}", healed.findings);

    // Put right by hand, it is whole for the next scrub.
    replace(&store, &pack, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    })
    .await;
    assert_eq!(run(&store, scrub_all()).await.findings, []);
    assert_eq!(run(&store, CheckOptions::default()).await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_parts_become_one_and_facts_of_dead_packs_go() {
    let (store, _) = subject().await;
    let mut most = 0;
    for _ in 0..40 {
        run(&store, CheckOptions { sample: Some(Sample::Bytes(1)), ..scrub_all() }).await;
        let repository = open(&store, next_seed()).await.unwrap();
        let retired = stats(&repository).await.unwrap().retired_objects;
        most = most.max(parts(&store).await.len() as u64 - retired);
    }
    assert!((16..=18).contains(&most), "{most} parts count at once");
    let repository = open(&store, next_seed()).await.unwrap();
    let stats = stats(&repository).await.unwrap();
    assert!(stats.retired_objects >= 16, "{}", stats.retired_objects);
    assert_eq!(stats.open_sessions, 0);
    // Forty draws of one pack come to nearly all of them, and the merges forgot none.
    let old = run(&store, CheckOptions { older_than: Some(Duration::from_secs(3600)), ..scrub_all() }).await;
    assert_eq!(old.packs_read, stats.scrub.never_read);
    assert!(stats.scrub.never_read < stats.scrub.packs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_part_is_dropped_with_a_note_and_its_packs_count_as_not_read() {
    let (store, _) = subject().await;
    run(&store, scrub_all()).await;
    let part = parts(&store).await.remove(0);
    for damage in [0usize, 30] {
        replace(&store, &part, |bytes| bytes[damage] ^= 4).await;
        let report = run(&store, CheckOptions::default()).await;
        assert_eq!(report.findings.len(), 1);
        assert_eq!(report.findings[0].severity, Severity::Note);
        assert!(report.findings[0].object.starts_with("scrub ledger"), "{:?}", report.findings);
        let age = stats(&open(&store, next_seed()).await.unwrap()).await.unwrap().scrub;
        assert_eq!(age.never_read, age.packs);
        replace(&store, &part, |bytes| bytes[damage] ^= 4).await;
    }
    let age = stats(&open(&store, next_seed()).await.unwrap()).await.unwrap().scrub;
    assert_eq!(age.never_read, 0);
    replace(&store, &part, |bytes| bytes.truncate(40)).await;
    let repository = open(&store, next_seed()).await.unwrap();
    let repaired = repair(&repository, None, &RepairOptions::default(), Arc::new(Silent)).await.unwrap();
    assert_eq!((repaired.healed_count, repaired.remaining_count), (1, 0), "{repaired:#?}");
    assert_eq!(run(&store, CheckOptions::default()).await.findings, []);
    let report = run(&store, CheckOptions { older_than: Some(Duration::from_secs(3600)), ..scrub_all() }).await;
    assert_eq!(report.packs_read, report.packs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_cannot_be_written_is_scrubbed_without_ledger() {
    let (store, _) = subject().await;
    let before = objects_of(&store).await;
    let (full, _) = Faulty::around(&store, Faults { full_after: Some(0), ..Faults::default() });
    let repository = Repository::open(full, OpenOptions::default(), seeded(next_seed()).0).await.unwrap();
    let report = check(&repository, &scrub_all(), Arc::new(Silent)).await.unwrap();
    assert_eq!((report.packs_read, report.findings.as_slice()), (report.packs, &[][..]));
    assert!(report.remarks.iter().any(|remark| remark.contains("without ledger")), "{:?}", report.remarks);
    assert_eq!(objects_of(&store).await, before);
    let report = run(&store, CheckOptions { ledger: false, ..scrub_all() }).await;
    assert_eq!((report.packs_read, report.remarks.len()), (report.packs, 0));
    assert_eq!(objects_of(&store).await, before, "nothing is written where no ledger is wanted");
    assert_scrubs(&open(&store, next_seed()).await.unwrap(), "a scrub").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_of_one_backup_reads_what_that_backup_needs() {
    let (store, _) = subject().await;
    let report = back_up(&open(&store, next_seed()).await.unwrap(), "/other", &tree_of(9, 30_000)).await.unwrap();
    let all = run(&store, scrub_all()).await;
    let one = run(&store, CheckOptions { backups: vec![report.id], ..scrub_all() }).await;
    assert!(one.packs_read > 0 && one.packs_read < all.packs_read, "{} of {}", one.packs_read, all.packs_read);
}
