//! Repair: what is lost comes back from what is whole here, from a replica, or from the source; and no crash makes anything worse.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use everpack::error::{ErrorKind, Result};
use everpack::id::ObjectHash;
use everpack::ops::check::{CheckOptions, CheckReport, Severity, check};
use everpack::ops::query::stats;
use everpack::ops::repair::{RepairOptions, RepairReport, SalvageOptions, SalvageReport, repair, repair_log, salvage};
use everpack::progress::Silent;
use everpack::repo::{OpenOptions, Repository};
use everpack::store::adapter::{Faults, Faulty};
use everpack::store::{Store, StoredObject};

use crate::made::{
    Dice, Objects, Tree, assert_restores, assert_scrubs, back_up, bring_back, memory, objects_of, open, seeded, small,
    store_of, tree_of, whole,
};

/// No two sessions may have one name.
fn next_seed() -> u64 {
    static SEED: AtomicU64 = AtomicU64::new(9_000_000);
    SEED.fetch_add(1, Ordering::Relaxed)
}

type Nights = Vec<(ObjectHash, Tree)>;

fn trees(count: u64) -> Vec<Tree> {
    let mut tree = tree_of(1, 250_000);
    let mut trees = Vec::new();
    for night in 0..count {
        tree.insert(format!("night/{night}").into_bytes(), Dice(night).noise(9000).into());
        trees.push(tree.clone());
    }
    trees
}

async fn fill(repository: &Repository, trees: &[Tree]) -> Nights {
    let mut nights = Vec::new();
    for tree in trees {
        nights.push((back_up(repository, "/data", tree).await.unwrap().id, tree.clone()));
    }
    nights
}

/// A repository with a few nights.
async fn subject(count: u64) -> (Store, Nights) {
    let store = memory();
    let repository = Repository::create(store.clone(), &small(), seeded(1).0).await.unwrap();
    let nights = fill(&repository, &trees(count)).await;
    (store, nights)
}

/// A repository of its own in the family of another: the same `config` with another repository id, made by the offset table of its page.
async fn family_member(store: &Store) -> Store {
    let config = store.get(StoredObject::Config).await.unwrap();
    let mut bytes = config.to_vec();
    bytes[20..36].copy_from_slice(&[0xab; 16]);
    let end = bytes.len() - 4;
    let sum = crc32c::crc32c(&bytes[20..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    let member = memory();
    member.put_new(StoredObject::Config, vec![bytes.into()]).await.unwrap();
    member
}

/// A replica that has the same content in packs of its own.
async fn replica(store: &Store, nights: &Nights) -> Store {
    let member = family_member(store).await;
    let repository = open(&member, next_seed()).await.unwrap();
    assert_ne!(repository.id(), open(store, next_seed()).await.unwrap().id());
    let trees: Vec<Tree> = nights.iter().map(|(_, tree)| tree.clone()).collect();
    let ids: Vec<_> = fill(&repository, &trees).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, nights.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "the clock stands, so backups are the same");
    member
}

fn paths_of(objects: &Objects, folders: &[&str]) -> Vec<String> {
    objects.keys().filter(|path| folders.iter().any(|folder| path.starts_with(folder))).cloned().collect()
}

async fn run(store: &Store, from: Option<&Store>, options: RepairOptions) -> Result<RepairReport> {
    let distrust = OpenOptions { distrust_state: true, ..OpenOptions::default() };
    let repository = Repository::open(store.clone(), distrust, seeded(next_seed()).0).await?;
    let from = match from {
        Some(from) => Some(open(from, next_seed()).await?),
        None => None,
    };
    repair(&repository, from.as_ref(), &options, Arc::new(Silent)).await
}

async fn repaired(store: &Store, from: Option<&Store>) -> RepairReport {
    run(store, from, RepairOptions::default()).await.unwrap()
}

fn reading() -> RepairOptions {
    RepairOptions { read_data: true, ..RepairOptions::default() }
}

async fn looked(store: &Store, read_data: bool) -> CheckReport {
    let options = CheckOptions { read_data, ledger: false, ..CheckOptions::default() };
    check(&open(store, next_seed()).await.unwrap(), &options, Arc::new(Silent)).await.unwrap()
}

async fn assert_whole(store: &Store, nights: &Nights, what: &str) {
    let repository = open(store, next_seed()).await.unwrap();
    let listed: Vec<_> = repository.backups().iter().map(|backup| backup.id).collect();
    assert_eq!(listed, nights.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{what}");
    for (id, tree) in nights {
        assert_restores(&repository, *id, tree).await;
    }
    assert_scrubs(&repository, what).await;
}

fn flip(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x20;
    bytes.into()
}

fn wrong(report: &CheckReport) -> usize {
    report.findings.iter().filter(|finding| finding.severity > Severity::Note).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_repository_has_nothing_to_repair() {
    let (store, nights) = subject(2).await;
    let report = run(&store, None, reading()).await.unwrap();
    assert_eq!((report.healed_count, report.remaining_count, report.bytes_stored), (0, 0, 0), "{report:#?}");
    assert_whole(&store, &nights, "after a repair of nothing").await;
    assert_eq!(stats(&open(&store, next_seed()).await.unwrap()).await.unwrap().open_sessions, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_lost_its_index_its_states_and_every_cache_comes_back_whole() {
    let (store, nights) = subject(40).await;
    let mut objects = objects_of(&store).await;
    assert!(!paths_of(&objects, &["log-state/"]).is_empty(), "nothing is tested");
    for path in paths_of(&objects, &["index/", "log-state/"]) {
        objects.remove(&path);
    }
    // A plain restore does without.
    let bare = store_of(&objects).await;
    let repository = open(&bare, next_seed()).await.unwrap();
    for at in [0, 20, 39] {
        assert_restores(&repository, nights[at].0, &nights[at].1).await;
    }

    let store = store_of(&objects).await;
    assert_eq!(wrong(&looked(&store, false).await), 40, "every fragment is missing");
    let report = repaired(&store, None).await;
    assert_eq!((report.healed_count, report.remaining_count), (40, 0), "{report:#?}");
    let after = objects_of(&store).await;
    assert_eq!(paths_of(&after, &["log-state/"]).len(), 1, "a fresh state object");
    assert_eq!(wrong(&looked(&store, true).await), 0);
    let newest = nights[30..].to_vec();
    let repository = open(&store, next_seed()).await.unwrap();
    for (id, tree) in &newest {
        assert_restores(&repository, *id, tree).await;
    }
    assert_eq!(repaired(&store, None).await.healed_count, 0, "a second repair has nothing to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_state_objects_are_replaced() {
    let (store, nights) = subject(40).await;
    let objects = objects_of(&store).await;
    let state = paths_of(&objects, &["log-state/"]).pop().unwrap();
    let mut damaged = objects.clone();
    damaged.insert(state.clone(), flip(&objects[&state], 60));
    let store = store_of(&damaged).await;
    assert_eq!(wrong(&looked(&store, false).await), 1);
    let report = repaired(&store, None).await;
    assert_eq!((report.healed_count, report.remaining_count), (1, 0), "{report:#?}");
    assert!(report.healed[0].object.starts_with("log state"));
    let after = objects_of(&store).await;
    assert!(!after.contains_key(&state) && paths_of(&after, &["log-state/"]).len() == 1);
    assert_eq!(looked(&store, false).await.findings, []);
    let repository = open(&store, next_seed()).await.unwrap();
    assert_restores(&repository, nights[39].0, &nights[39].1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_ten_lost_packs_come_back_from_a_replica() {
    let (store, nights) = subject(6).await;
    let objects = objects_of(&store).await;
    let member = replica(&store, &nights).await;
    let copy = store_of(&objects).await;
    // The third replica holds the origin's packs as they are, under names of its own.
    let mut same_packs = objects_of(&member).await;
    for path in paths_of(&objects, &["packs/", "meta/"]) {
        let renamed = format!("{}-{}", path.split('-').next().unwrap(), "00000000000000aa");
        same_packs.insert(renamed, objects[&path].clone());
    }
    let same_packs = store_of(&same_packs).await;
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let mut damaged = objects.clone();
        let mut packs = paths_of(&objects, &["packs/", "meta/"]);
        for n in 0..10 {
            let at = usize::try_from(dice.below(packs.len() as u64)).unwrap();
            let pack = packs.remove(at);
            match n % 3 {
                0 => drop(damaged.insert(pack.clone(), flip(&objects[&pack], objects[&pack].len() / 2))),
                1 => drop(damaged.insert(pack.clone(), objects[&pack].slice(..objects[&pack].len() / 3))),
                _ => drop(damaged.remove(&pack)),
            }
        }
        for (name, donor) in [("own packs", &member), ("a copy", &copy), ("the same packs", &same_packs)] {
            let what = format!("seed {seed}, {name}");
            let store = store_of(&damaged).await;
            let report = run(&store, Some(donor), reading()).await.unwrap();
            assert_eq!(report.remaining_count, 0, "{what}: {:#?}", report.remaining);
            assert!(report.healed_count >= 10 && report.bytes_fetched > 0, "{what}: {report:#?}");
            assert_whole(&store, &nights, &what).await;
            // Nothing was deleted, and nothing is left to do.
            let after = objects_of(&store).await;
            assert!(damaged.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "{what}");
            let again = run(&store, None, reading()).await.unwrap();
            assert_eq!((again.healed_count, again.remaining_count), (0, 0), "{what}: {again:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_replica_whole_chunks_are_saved_and_the_next_backup_heals_the_rest() {
    let (store, mut nights) = subject(3).await;
    let objects = objects_of(&store).await;
    let mut damaged = objects.clone();
    let packs: Vec<_> =
        paths_of(&objects, &["packs/"]).into_iter().filter(|pack| objects[pack].len() > 30_000).collect();
    for pack in &packs[..3] {
        damaged.insert(pack.clone(), flip(&objects[pack], objects[pack].len() / 2));
    }
    let store = store_of(&damaged).await;
    let report = run(&store, None, reading()).await.unwrap();
    assert_eq!(report.healed_count, 3, "{report:#?}");
    assert!(report.chunks_saved > 3, "{report:#?}");
    // One finding for all missing chunks, with the files that they touch.
    assert!(report.remaining_count >= 1, "{report:#?}");
    let finding = &report.remaining[0];
    assert!(finding.touched_count >= 3 && finding.heal.contains("everpack backup"), "{finding:#?}");
    let state = stats(&open(&store, next_seed()).await.unwrap()).await.unwrap();
    assert_eq!(state.quarantined_packs, 3);
    // Files that were not hit are whole, the others are named and not left looking complete.
    let repository = open(&store, next_seed()).await.unwrap();
    let oldest = repository.find_backup(&nights[0].0.to_string()).unwrap();
    let (restored, found) = bring_back(&repository, &oldest).await;
    let restored = restored.unwrap();
    assert!(restored.damaged_count > 0 && restored.files > 0);
    assert!(found.iter().all(|(path, bytes)| nights[0].1[path] == *bytes));

    // The source still has everything: its next backup makes all of them whole.
    let tree = nights[2].1.clone();
    let report = back_up(&open(&store, next_seed()).await.unwrap(), "/data", &tree).await.unwrap();
    assert!(report.bytes_stored > 0, "{report:?}");
    nights.push((report.id, tree));
    assert_whole(&store, &nights, "after the next backup").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_pack_stays_in_the_log_until_nothing_is_lost_with_it() {
    let (store, mut nights) = subject(3).await;
    let objects = objects_of(&store).await;
    let pack = paths_of(&objects, &["packs/"]).into_iter().max_by_key(|pack| objects[pack].len()).unwrap();
    let mut damaged = objects.clone();
    damaged.remove(&pack);
    let store = store_of(&damaged).await;
    let report = repaired(&store, None).await;
    assert_eq!((report.healed_count, report.remaining_count), (0, 1), "{report:#?}");
    assert!(report.remaining[0].what.contains("missing"), "{report:#?}");
    // It comes back with its disk, and all is well.
    let mut back = objects_of(&store).await;
    back.insert(pack.clone(), objects[&pack].clone());
    assert_whole(&store_of(&back).await, &nights, "with the pack back").await;

    // Or the next backup stores it again; then the lost one is taken out of use.
    let tree = nights[2].1.clone();
    nights.push((back_up(&open(&store, next_seed()).await.unwrap(), "/data", &tree).await.unwrap().id, tree));
    let report = repaired(&store, None).await;
    assert_eq!((report.healed_count, report.remaining_count), (1, 0), "{report:#?}");
    assert_whole(&store, &nights, "after the next backup").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_was_quarantined_gives_back_what_is_whole_in_it_when_it_is_whole_again() {
    let (store, nights) = subject(2).await;
    let objects = objects_of(&store).await;
    let pack = paths_of(&objects, &["packs/"]).into_iter().max_by_key(|pack| objects[pack].len()).unwrap();
    let mut damaged = objects.clone();
    damaged.insert(pack.clone(), flip(&objects[&pack], objects[&pack].len() / 2));
    let store = store_of(&damaged).await;
    assert!(run(&store, None, reading()).await.unwrap().remaining_count > 0);
    let mut back = objects_of(&store).await;
    back.insert(pack.clone(), objects[&pack].clone());
    let store = store_of(&back).await;
    let report = repaired(&store, None).await;
    assert_eq!((report.healed_count, report.remaining_count), (1, 0), "{report:#?}");
    assert_whole(&store, &nights, "with the good bytes in place").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_whole_again_is_believed_again() {
    let (store, nights) = subject(2).await;
    let objects = objects_of(&store).await;
    let pack = paths_of(&objects, &["packs/"]).remove(0);
    let mut damaged = objects.clone();
    damaged.insert(pack.clone(), flip(&objects[&pack], objects[&pack].len() / 2));
    let store = store_of(&damaged).await;
    let scrub = CheckOptions { read_data: true, ..CheckOptions::default() };
    check(&open(&store, next_seed()).await.unwrap(), &scrub, Arc::new(Silent)).await.unwrap();
    let mut back = objects_of(&store).await;
    back.insert(pack.clone(), objects[&pack].clone());
    let store = store_of(&back).await;
    assert_eq!(wrong(&looked(&store, false).await), 1, "the ledger remembers");
    let report = repaired(&store, None).await;
    assert_eq!((report.healed_count, report.remaining_count), (1, 0), "{report:#?}");
    assert_eq!(stats(&open(&store, next_seed()).await.unwrap()).await.unwrap().quarantined_packs, 0);
    assert_whole(&store, &nights, "believed again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_manifests_come_back_under_a_new_name_with_their_place_in_the_log() {
    let (store, nights) = subject(4).await;
    let objects = objects_of(&store).await;
    let member = replica(&store, &nights).await;
    let entries: Vec<_> =
        open(&store, next_seed()).await.unwrap().backups().iter().map(|backup| backup.entry).collect();
    let mut damaged = objects.clone();
    for (n, path) in paths_of(&objects, &["manifests/"]).into_iter().enumerate().take(3) {
        match n {
            0 => drop(damaged.remove(&path)),
            1 => drop(damaged.insert(path.clone(), flip(&objects[&path], 50))),
            _ => drop(damaged.insert(path.clone(), objects[&path].slice(..20))),
        }
    }
    let store = store_of(&damaged).await;
    let without = repaired(&store, None).await;
    assert_eq!((without.healed_count, without.remaining_count), (0, 3), "{without:#?}");
    assert!(without.remaining[0].heal.contains("everpack repair --from"));
    let report = repaired(&store, Some(&member)).await;
    assert_eq!((report.healed_count, report.remaining_count), (3, 0), "{report:#?}");
    assert_whole(&store, &nights, "after the repair").await;
    for distrust_state in [false, true] {
        let options = OpenOptions { distrust_state, ..OpenOptions::default() };
        let repository = Repository::open(store.clone(), options, seeded(next_seed()).0).await.unwrap();
        let after: Vec<_> = repository.backups().iter().map(|backup| backup.entry).collect();
        assert_eq!(after, entries, "each keeps its place");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn config_and_log_entries_come_back_from_a_copy_where_the_chain_proves_them() {
    let (store, nights) = subject(4).await;
    let objects = objects_of(&store).await;
    let logs = paths_of(&objects, &["log/"]);
    let last = logs.len() - 1;
    let copy = store_of(&objects).await;
    let heal = async |damaged: &Objects, dry: bool| {
        let store = store_of(damaged).await;
        let report = repair_log(&store, &copy.readonly(), dry).await.unwrap();
        (store, report)
    };
    let all = |change: &dyn Fn(&mut Objects)| {
        let mut damaged = objects.clone();
        change(&mut damaged);
        damaged
    };
    // Lost or damaged, one or many, the first one and `config` with it.
    let cases = [
        all(&|objects| drop(objects.remove("config"))),
        all(&|objects| drop(objects.insert("config".to_owned(), Bytes::from_static(b"EVPK")))),
        all(&|objects| drop(objects.remove(&logs[0]))),
        all(&|objects| {
            for path in &logs[..last] {
                objects.remove(path);
            }
            objects.remove("config");
        }),
        all(&|objects| drop(objects.insert(logs[2].clone(), flip(&objects[&logs[2]], 100)))),
        all(&|objects| {
            objects.insert(logs[3].clone(), Bytes::new());
            objects.remove(&logs[4]);
        }),
        all(&|objects| drop(objects.insert(logs[last].clone(), flip(&objects[&logs[last]], 100)))),
    ];
    for (n, damaged) in cases.iter().enumerate() {
        let (untouched, report) = heal(damaged, true).await;
        assert!(!report.healed.is_empty(), "case {n}");
        assert_eq!(objects_of(&untouched).await, *damaged, "case {n}: a dry run changes nothing");
        let (healed, report) = heal(damaged, false).await;
        assert!(!report.healed.is_empty() && report.remarks.is_empty(), "case {n}: {report:?}");
        assert_eq!(objects_of(&healed).await, objects, "case {n}");
        assert_whole(&healed, &nights, &format!("case {n}")).await;
    }
    // The end of the log that was cut off: nothing here proves it.
    let cut = all(&|objects| drop(objects.remove(&logs[last])));
    let (store, report) = heal(&cut, false).await;
    assert!(report.healed.is_empty() && report.remarks[0].contains("goes on"), "{report:?}");
    assert_eq!(objects_of(&store).await, cut);
    // A copy that says something else than the chain is not believed.
    let lying = all(&|objects| drop(objects.insert(logs[2].clone(), objects[&logs[3]].clone())));
    let lost = all(&|objects| drop(objects.remove(&logs[2])));
    let store = store_of(&lost).await;
    let report = repair_log(&store, &store_of(&lying).await.readonly(), false).await.unwrap();
    assert!(report.healed.is_empty() && report.remarks[0].contains("nothing proves"), "{report:?}");
    assert_eq!(objects_of(&store).await, lost);
    // A replica has another log.
    let member = replica(&copy, &nights).await;
    assert_eq!(repair_log(&store, &member.readonly(), false).await.unwrap(), Default::default());
    let error = run(&store, Some(&copy), RepairOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_the_same_and_changes_nothing() {
    let (store, nights) = subject(3).await;
    let member = replica(&store, &nights).await;
    let damaged = wounded(&objects_of(&store).await);
    let store = store_of(&damaged).await;
    let theirs = objects_of(&member).await;
    let dry = run(&store, Some(&member), RepairOptions { dry_run: true, ..reading() }).await.unwrap();
    assert_eq!(objects_of(&store).await, damaged);
    assert_eq!(objects_of(&member).await, theirs);
    let done = run(&store, Some(&member), reading()).await.unwrap();
    assert!(dry.dry_run && !done.dry_run);
    let objects =
        |report: &RepairReport| report.healed.iter().map(|healed| healed.object.clone()).collect::<BTreeSet<_>>();
    assert!(objects(&dry).is_subset(&objects(&done)), "{:#?}\n{:#?}", dry.healed, done.healed);
    assert!(dry.healed_count >= 4, "{dry:#?}");
    assert_eq!(done.remaining_count, 0, "{done:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_family_is_refused() {
    let (store, _) = subject(1).await;
    let (other, _) = (memory(), ());
    Repository::create(other.clone(), &small(), seeded(next_seed()).0).await.unwrap();
    let error = run(&store, Some(&other), RepairOptions::default()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.message().contains("family"), "{error}");
}

/// Some of everything is lost or damaged.
fn wounded(objects: &Objects) -> Objects {
    let mut damaged = objects.clone();
    let packs = paths_of(objects, &["packs/"]);
    let large: Vec<_> = packs.iter().filter(|pack| objects[*pack].len() > 30_000).collect();
    damaged.insert(large[0].clone(), flip(&objects[large[0]], objects[large[0]].len() / 2));
    damaged.remove(large[1]);
    let meta = paths_of(objects, &["meta/"]);
    damaged.insert(meta[0].clone(), flip(&objects[&meta[0]], 120));
    damaged.remove(&paths_of(objects, &["index/"])[1]);
    damaged.remove(&paths_of(objects, &["manifests/"])[0]);
    damaged
}

/// After whatever happened to a repair: nothing that was whole is worse, and the next repair heals everything.
async fn assert_heals(disk: &Store, member: &Store, nights: &Nights, before: &Objects, what: &str) {
    let after = objects_of(disk).await;
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "{what}: an object was changed or lost");
    let report = run(disk, Some(member), reading()).await.unwrap_or_else(|error| panic!("{what}: {}", whole(&error)));
    assert_eq!(report.remaining_count, 0, "{what}: {:#?}", report.remaining);
    assert_whole(disk, nights, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_may_die_after_any_write() {
    let (store, nights) = subject(3).await;
    let member = replica(&store, &nights).await;
    let damaged = wounded(&objects_of(&store).await);
    for writes in 0.. {
        let disk = store_of(&damaged).await;
        let (store, faulty) = Faulty::around(&disk, Faults { writes_max: Some(writes), ..Faults::default() });
        let lived = run(&store, Some(&member), reading()).await;
        assert_heals(&disk, &member, &nights, &damaged, &format!("died after {writes} writes")).await;
        if lived.is_ok() && !faulty.has_crashed() {
            assert!(writes > 8, "only {writes} writes: nothing is tested");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_bears_lost_replies_and_a_full_disk() {
    let (store, nights) = subject(3).await;
    let member = replica(&store, &nights).await;
    let damaged = wounded(&objects_of(&store).await);
    let (counted, faulty) = Faulty::around(&store_of(&damaged).await, Faults::default());
    run(&counted, Some(&member), reading()).await.unwrap();
    let total = faulty.writes();
    for lost in 1..=total {
        let disk = store_of(&damaged).await;
        let (store, _) = Faulty::around(&disk, Faults { lost_reply_at: Some(lost), ..Faults::default() });
        let _either_way = run(&store, Some(&member), reading()).await;
        assert_heals(&disk, &member, &nights, &damaged, &format!("reply {lost} was lost")).await;
    }
    for room in [0, 1000, 20_000, 70_000, 120_000] {
        let disk = store_of(&damaged).await;
        let (store, _) = Faulty::around(&disk, Faults { full_after: Some(room), ..Faults::default() });
        let error = run(&store, Some(&member), reading()).await.err();
        assert!(error.is_none_or(|error| error.is_disk_full()), "{room} bytes");
        assert_heals(&disk, &member, &nights, &damaged, &format!("full after {room} bytes")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_go_on_while_a_repair_runs() {
    for seed in 0..6 {
        let (store, mut nights) = subject(3).await;
        let member = replica(&store, &nights).await;
        let store = store_of(&wounded(&objects_of(&store).await)).await;
        let tree = tree_of(seed + 50, 100_000);
        let backing = async {
            let repository = open(&store, next_seed()).await.unwrap();
            back_up(&repository, "/other", &tree).await.unwrap().id
        };
        let repairing = run(&store, Some(&member), reading());
        let (id, report) = tokio::join!(backing, repairing);
        report.unwrap();
        nights.push((id, tree.clone()));
        assert_eq!(repaired(&store, Some(&member)).await.remaining_count, 0);
        assert_whole(&store, &nights, &format!("seed {seed}")).await;
    }
}

async fn salvaged(ruins: &Objects) -> (Store, SalvageReport) {
    let target = memory_at("salvaged");
    let ruins = store_of(ruins).await;
    // The ruins are only read.
    let before = objects_of(&ruins).await;
    let options = SalvageOptions { init: small(), ..SalvageOptions::default() };
    let environment = seeded(next_seed()).0;
    let made = salvage(&ruins.readonly(), target.clone(), &options, environment, Arc::new(Silent)).await;
    let (_, report) = made.unwrap();
    assert_eq!(objects_of(&ruins).await, before);
    (target, report)
}

/// A store in memory that is called something else than the others.
fn memory_at(name: &str) -> Store {
    Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), name)
}

fn only(objects: &Objects, folders: &[&str]) -> Objects {
    paths_of(objects, folders).into_iter().map(|path| (path.clone(), objects[&path].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_packs_and_manifests_alone_every_backup_comes_back_as_it_was() {
    let (store, nights) = subject(4).await;
    let objects = objects_of(&store).await;
    let (target, report) = salvaged(&only(&objects, &["packs/", "meta/", "manifests/"])).await;
    assert_eq!((report.backups.len(), report.salvaged, report.remaining_count), (4, None, 0), "{report:#?}");
    let repository = open(&target, next_seed()).await.unwrap();
    assert_ne!(repository.id(), open(&store, next_seed()).await.unwrap().id());
    for (id, tree) in &nights {
        assert_restores(&repository, *id, tree).await;
    }
    assert_scrubs(&repository, "the salvaged repository").await;
    // It is of the same family: the old one's packs still fit, and the next backup finds what is there.
    let more = back_up(&repository, "/data", &nights[3].1).await.unwrap();
    assert_eq!(more.bytes_new, 0, "{more:?}");
    assert_eq!(repaired(&target, Some(&store)).await.remaining_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_packs_alone_every_version_of_every_file_comes_back_in_one_backup() {
    let store = memory();
    let (environment, clock) = seeded(1);
    let repository = Repository::create(store.clone(), &small(), environment).await.unwrap();
    let mut tree = tree_of(1, 100_000);
    back_up(&repository, "/data", &tree).await.unwrap();
    let older = tree.insert(b"small-3".to_vec(), Dice(77).noise(5000).into()).unwrap();
    tree.remove(b"small-4".as_slice());
    clock.advance(std::time::Duration::from_secs(3600));
    back_up(&repository, "/data", &tree).await.unwrap();
    let objects = objects_of(&store).await;
    let (target, report) = salvaged(&only(&objects, &["packs/", "meta/"])).await;
    assert_eq!((report.backups.len(), report.remaining_count, report.salvaged_broken), (0, 0, 0), "{report:#?}");
    let id = report.salvaged.unwrap();
    let repository = open(&target, next_seed()).await.unwrap();
    let backup = repository.find_backup("latest:salvaged").unwrap();
    assert!(backup.id == id && backup.summary.partial);
    let (restored, found) = bring_back(&repository, &backup).await;
    assert_eq!(restored.unwrap().damaged_count, 0);
    assert_eq!(found.len(), tree.len() + 2, "the removed file, and the older version of another");
    for (path, content) in &tree {
        let versions = [path.clone(), [path.as_slice(), b".salvaged-2"].concat()];
        assert!(versions.iter().any(|name| found.get(name) == Some(content)), "{}", path.escape_ascii());
    }
    let versions: Vec<_> =
        found.iter().filter(|(path, _)| path.starts_with(b"small-3")).map(|(_, bytes)| bytes).collect();
    assert!(versions.len() == 2 && versions.contains(&&older), "both versions");
    assert_scrubs(&repository, "the salvaged repository").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_damaged_ruins_everything_whole_comes_back_and_the_rest_is_named() {
    let (store, nights) = subject(3).await;
    let mut ruins = only(&objects_of(&store).await, &["packs/", "meta/", "manifests/"]);
    let packs: Vec<_> = paths_of(&ruins, &["packs/"]).into_iter().filter(|pack| ruins[pack].len() > 30_000).collect();
    ruins.insert(packs[0].clone(), flip(&ruins[&packs[0]], ruins[&packs[0]].len() / 2));
    ruins.insert(packs[1].clone(), ruins[&packs[1]].slice(..ruins[&packs[1]].len() / 2));
    let manifest = paths_of(&ruins, &["manifests/"]).remove(0);
    ruins.insert(manifest.clone(), flip(&ruins[&manifest], 70));
    let (target, report) = salvaged(&ruins).await;
    assert_eq!((report.packs_damaged, report.backups.len()), (2, 2), "{report:#?}");
    assert!(report.remaining_count > 0 && report.remaining[0].touched_count > 0, "{report:#?}");
    let repository = open(&target, next_seed()).await.unwrap();
    for backup in repository.backups().iter().filter(|backup| report.backups.contains(&backup.id)) {
        let (restored, found) = bring_back(&repository, backup).await;
        assert!(restored.unwrap().files > 0);
        let tree = &nights.iter().find(|(id, _)| *id == backup.id).unwrap().1;
        assert!(found.iter().all(|(path, bytes)| tree[path] == *bytes));
    }
    // The source still has it all: what its backup would take over is looked up, and what is missing stored again.
    let next = back_up(&repository, "/data", &nights[2].1).await.unwrap();
    assert!(next.bytes_new > 0, "{next:?}");
    assert_restores(&open(&target, next_seed()).await.unwrap(), next.id, &nights[2].1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn salvage_refuses_what_cannot_be_meant() {
    let (store, _) = subject(1).await;
    let objects = objects_of(&store).await;
    let try_it = async |ruins: &Store, target: &Store| {
        let environment = seeded(next_seed()).0;
        let options = SalvageOptions::default();
        salvage(&ruins.readonly(), target.clone(), &options, environment, Arc::new(Silent)).await.map(drop).unwrap_err()
    };
    let empty = try_it(&memory(), &memory_at("elsewhere")).await;
    assert!(empty.kind() == ErrorKind::NotFound && empty.message().contains("no packs"), "{empty}");
    let ruins = store_of(&only(&objects, &["packs/", "meta/"])).await;
    assert_eq!(try_it(&ruins, &ruins).await.kind(), ErrorKind::Invalid);
    let taken = memory_at("taken");
    Repository::create(taken.clone(), &small(), seeded(next_seed()).0).await.unwrap();
    assert!(try_it(&ruins, &taken).await.message().contains("there is a repository already"));
}
