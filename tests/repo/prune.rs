//! Prune: what it frees, what it leaves, and that nothing goes that anybody needs, whatever else happens at the same time.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use everpack::clock::Timestamp;
use everpack::error::{ErrorKind, Result};
use everpack::id::ObjectHash;
use everpack::ops::backup::{BackupOptions, backup};
use everpack::ops::prune::{MaxUnused, PruneAction, PruneOptions, PruneReport, prune};
use everpack::progress::Silent;
use everpack::repo::{InitOptions, OpenOptions, Repository};
use everpack::store::adapter::{Faults, Faulty, Overwriter};
use everpack::store::{Folder, ObjectPath, Store, StoreOptions, StoredObject};
use everpack::testing::log;

use crate::made::{
    Dice, Made, Tree, assert_restores, assert_scrubs, back_up, back_up_with, doomed, entry_of, memory, objects_of,
    open, quick, seeded, small, store_of, whole,
};

fn thorough() -> PruneOptions {
    PruneOptions { max_unused: MaxUnused::Bytes(0), memory: 64 << 20, ..PruneOptions::default() }
}

async fn prune_with(repository: &Repository, options: &PruneOptions) -> Result<PruneReport> {
    prune(repository, options, Arc::new(Silent), |_| {}).await
}

/// `count` files of 30 kB; file `n` is what `seed + n` makes of it.
fn files(seed: u64, count: u64) -> Tree {
    let file = |n| (format!("file-{n:03}").into_bytes(), Arc::new(Dice(seed * 1000 + n).noise(30_000)));
    (0..count).map(file).collect()
}

/// Half of the files of one, half of the other.
fn mixed(a: &Tree, b: &Tree) -> Tree {
    let mut mixed = a.clone();
    for (at, (name, other)) in b.iter().enumerate() {
        if at % 2 == 1 {
            mixed.insert(name.clone(), Arc::clone(other));
        }
    }
    mixed
}

fn disk_at(path: &Path) -> Store {
    Store::open(path.to_str().unwrap(), &StoreOptions::default()).unwrap()
}

async fn made(store: &Store) -> Repository {
    Repository::create(store.clone(), &small(), seeded(1).0).await.unwrap()
}

async fn bytes_of(store: &Store, folder: Folder) -> u64 {
    store.list_sorted(folder).await.unwrap().iter().map(|info| info.len).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_of_what_everybody_needs_changes_nothing() {
    let store = memory();
    let repository = made(&store).await;
    let tree = files(1, 20);
    let id = back_up(&repository, "/data", &tree).await.unwrap().id;
    let before: BTreeSet<String> =
        objects_of(&store).await.into_keys().filter(|name| !name.starts_with("log")).collect();
    let report = prune_with(&repository, &PruneOptions::default()).await.unwrap();
    assert_eq!((report.objects_retired, report.objects_deleted, report.objects_waiting), (0, 0, 0), "{report:?}");
    assert!(report.complete && report.plans.len() == 1 && report.references > 20, "{report:?}");
    let after: BTreeSet<String> =
        objects_of(&store).await.into_keys().filter(|name| !name.starts_with("log")).collect();
    assert_eq!(before, after);
    assert_restores(&repository, id, &tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_forgotten_backups_need_goes() {
    let store = memory();
    let repository = made(&store).await;
    let (old, new) = (files(1, 20), files(2, 20));
    let old_id = back_up(&repository, "/data", &old).await.unwrap().id;
    let new_id = back_up(&repository, "/data", &new).await.unwrap().id;
    let before = bytes_of(&store, Folder::Packs).await;
    log::forget(&repository, old_id).await.unwrap();
    assert_eq!(bytes_of(&store, Folder::Packs).await, before, "forgetting frees nothing");

    let dry = prune_with(&repository, &PruneOptions { dry_run: true, ..thorough() }).await.unwrap();
    assert!(dry.dry_run && dry.objects_retired == 0, "{dry:?}");
    assert_eq!(bytes_of(&store, Folder::Packs).await, before);
    let report = prune_with(&repository, &thorough()).await.unwrap();
    assert_eq!(report.plans[0], dry.plans[0], "a dry run tells what the run does");
    assert!(report.plans[0].steps.iter().any(|step| step.action == PruneAction::Delete), "{report:?}");
    assert_eq!((report.backups_purged, report.objects_waiting), (1, 0), "{report:?}");
    let after = bytes_of(&store, Folder::Packs).await;
    assert!(after < before * 6 / 10, "{before} → {after}");
    assert_restores(&repository, new_id, &new).await;
    assert_scrubs(&repository, "after the prune").await;
    // Also for who has no cache and no memory of it.
    let again = open(&store, 9).await.unwrap();
    assert_restores(&again, new_id, &new).await;
    assert_scrubs(&again, "a fresh look").await;
    let second = prune_with(&again, &thorough()).await.unwrap();
    assert_eq!((second.objects_retired, second.objects_deleted), (0, 0), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_of_which_little_is_needed_are_written_anew_in_restore_order() {
    let store = memory();
    let repository = made(&store).await;
    let mut tree = files(0, 24);
    let mut forgotten = Vec::new();
    for night in 1..=12 {
        forgotten.push(back_up(&repository, "/data", &tree).await.unwrap().id);
        tree = mixed(&tree, &files(night, 24));
        if night % 2 == 0 {
            let first = tree.keys().next().unwrap().clone();
            tree.insert(first, Arc::new(Dice(night + 5000).noise(30_000)));
        }
    }
    let last = back_up(&repository, "/data", &tree).await.unwrap().id;
    for id in forgotten {
        log::forget(&repository, id).await.unwrap();
    }
    let report = prune_with(&repository, &thorough()).await.unwrap();
    assert!(report.bytes_rewritten > 0, "{report:?}");
    assert_restores(&repository, last, &tree).await;
    assert_scrubs(&repository, "rewritten").await;
    let stored = bytes_of(&store, Folder::Packs).await;
    let needed = 24 * 30_000;
    assert!(stored < needed + needed / 10, "{stored} bytes are stored for {needed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_backups_become_few_packs_and_fragments() {
    let store = memory();
    let repository = made(&store).await;
    let mut tree = Tree::new();
    let mut ids = Vec::new();
    for night in 0..30 {
        tree.insert(format!("night-{night:02}").into_bytes(), Arc::new(Dice(night).noise(5000)));
        ids.push((back_up(&repository, "/data", &tree).await.unwrap().id, tree.clone()));
    }
    let count = async |folder| store.list_sorted(folder).await.unwrap().len();
    assert_eq!((count(Folder::Packs).await, count(Folder::Index).await), (30, 30));
    let report = prune_with(&repository, &PruneOptions::default()).await.unwrap();
    assert!(report.complete, "{report:?}");
    assert!(count(Folder::Packs).await <= 4, "{} packs", count(Folder::Packs).await);
    assert!(count(Folder::Meta).await <= 8, "{} meta packs", count(Folder::Meta).await);
    assert!(count(Folder::Index).await <= 2, "{} fragments", count(Folder::Index).await);
    let fresh = open(&store, 3).await.unwrap();
    for (id, tree) in ids {
        assert_restores(&fresh, id, &tree).await;
    }
    assert_scrubs(&fresh, "merged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_run_left_goes_when_its_session_is_over() {
    let store = memory();
    let repository = made(&store).await;
    let kept = files(1, 5);
    let id = back_up(&repository, "/data", &kept).await.unwrap().id;
    let clean = objects_of(&store).await;
    for writes in 2..9 {
        let disk = store_of(&clean).await;
        let (dying, _faulty) = Faulty::around(&disk, Faults { writes_max: Some(writes), ..Faults::default() });
        let environment = doomed(writes);
        let repository = Repository::open(dying, OpenOptions::default(), environment).await.unwrap();
        back_up_with(&repository, "/other", &files(7, 20), &quick()).await.unwrap_err();
        // The prune fences who is gone, and sweeps up behind them.
        let repository = open(&disk, 50 + writes).await.unwrap();
        prune_with(&repository, &thorough()).await.unwrap();
        let report = prune_with(&repository, &thorough()).await.unwrap();
        assert_eq!((report.objects_retired, report.objects_waiting), (0, 0), "{writes}: {report:?}");
        let left = |name: &&String| !name.starts_with("log");
        let after = objects_of(&disk).await;
        let (before, after): (Vec<_>, Vec<_>) =
            (clean.keys().filter(left).collect(), after.keys().filter(left).collect());
        assert_eq!(before, after, "{writes}");
        assert_restores(&repository, id, &kept).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_running_session_may_read_stays_until_it_is_over() {
    let store = memory();
    let repository = made(&store).await;
    let old = back_up(&repository, "/data", &files(1, 20)).await.unwrap().id;
    let (dying, _faulty) = Faulty::around(&store, Faults { writes_max: Some(2), ..Faults::default() });
    // Another host's, so that nobody can tell that it is gone.
    let mut elsewhere = seeded(5).0;
    elsewhere.process.boot_id = "another host".to_owned();
    let other = Repository::open(dying, OpenOptions::default(), elsewhere).await.unwrap();
    back_up(&other, "/other", &files(2, 20)).await.unwrap_err();
    log::forget(&repository, old).await.unwrap();
    let report = prune_with(&repository, &thorough()).await.unwrap();
    assert!(report.objects_retired > 0 && report.objects_deleted == 0, "{report:?}");
    assert!(report.objects_waiting > 0 && report.waiting_for.len() == 1, "{report:?}");
    let fencing = PruneOptions { fence_after: Duration::ZERO, ..thorough() };
    let report = prune_with(&repository, &fencing).await.unwrap();
    assert!(report.objects_deleted > 0 && report.objects_waiting == 0, "{report:?}");
    assert_eq!(log::retired_objects(&repository).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_may_die_after_any_write() {
    let store = memory();
    let repository = made(&store).await;
    let mut tree = files(0, 16);
    let mut ids = Vec::new();
    for night in 1..=5 {
        ids.push((back_up(&repository, "/data", &tree).await.unwrap().id, tree.clone()));
        tree = mixed(&tree, &files(night, 16));
    }
    for (id, _) in ids.drain(..3) {
        log::forget(&repository, id).await.unwrap();
    }
    let made = objects_of(&store).await;
    for lost_reply in [false, true] {
        for writes in 0.. {
            let disk = store_of(&made).await;
            let faults = match lost_reply {
                false => Faults { writes_max: Some(writes), ..Faults::default() },
                true => Faults { lost_reply_at: Some(writes + 1), ..Faults::default() },
            };
            let (dying, faulty) = Faulty::around(&disk, faults);
            let died = match Repository::open(dying, OpenOptions::default(), doomed(writes)).await {
                Ok(repository) => prune_with(&repository, &thorough()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = &died {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{writes}: {}", whole(error));
            }
            let repository = open(&disk, 100 + writes).await.unwrap();
            assert_scrubs(&repository, &format!("{writes}")).await;
            for (id, tree) in &ids {
                assert_restores(&repository, *id, tree).await;
            }
            let goes_on = prune_with(&repository, &thorough()).await.unwrap();
            assert_eq!((goes_on.objects_waiting, goes_on.complete), (0, true), "{writes}: {goes_on:?}");
            assert_scrubs(&repository, &format!("{writes}, gone on")).await;
            for (id, tree) in &ids {
                assert_restores(&repository, *id, tree).await;
            }
            if died.is_ok() && faulty.failures() == 0 {
                assert!(writes > 8, "a prune makes some writes");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_ends_on_a_full_disk_and_frees_space() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk_at(directory.path());
    let repository = made(&store).await;
    let mut tree = files(0, 16);
    let mut forgotten: Vec<ObjectHash> = Vec::new();
    for night in 1..=4 {
        forgotten.push(back_up(&repository, "/data", &tree).await.unwrap().id);
        tree = mixed(&tree, &files(night, 16));
    }
    let last = back_up(&repository, "/data", &tree).await.unwrap().id;
    for id in forgotten {
        log::forget(&repository, id).await.unwrap();
    }
    let made = objects_of(&store).await;
    let before: u64 = made.iter().filter(|(name, _)| name.starts_with("packs/")).map(|(_, b)| b.len() as u64).sum();
    // Room for nothing, for some entries of the log, for some packs; and at the start there is the ballast.
    for room in [0, 4_000, 20_000, 70_000, 150_000, 400_000] {
        let directory = tempfile::tempdir().unwrap();
        let disk = disk_at(directory.path());
        for (path, bytes) in &made {
            disk.put_new(ObjectPath::parse(path).unwrap(), vec![bytes.clone()]).await.unwrap();
        }
        let (full, _faulty) = Faulty::around(&disk, Faults { full_after: Some(room), ..Faults::default() });
        let repository = Repository::open(full, OpenOptions::default(), seeded(room).0).await.unwrap();
        let report = prune_with(&repository, &thorough()).await.unwrap();
        assert!(report.objects_deleted > 0, "{room}: {report:?}");
        let after = bytes_of(&disk, Folder::Packs).await;
        assert!(after < before, "{room}: {before} → {after}");
        let repository = open(&disk, 8).await.unwrap();
        assert_restores(&repository, last, &tree).await;
        assert_scrubs(&repository, &format!("{room}")).await;
        let report = prune_with(&repository, &thorough()).await.unwrap();
        assert!(report.complete, "{room}: {report:?}");
        assert_restores(&repository, last, &tree).await;
        assert!(disk.exists(StoredObject::Ballast).await.unwrap(), "{room}: no ballast for the next time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_stops_a_prune_before_it_changes_anything() {
    let store = memory();
    let repository = made(&store).await;
    let id = back_up(&repository, "/data", &files(1, 10)).await.unwrap().id;
    back_up(&repository, "/data", &files(2, 10)).await.unwrap();
    log::forget(&repository, id).await.unwrap();
    let made = objects_of(&store).await;
    for folder in ["manifests/", "meta/", "index/"] {
        for name in made.keys().filter(|name| name.starts_with(folder)) {
            for flip in [false, true] {
                let mut objects = made.clone();
                if flip {
                    let mut bytes = objects[name].to_vec();
                    let at = bytes.len() / 2;
                    bytes[at] ^= 1;
                    objects.insert(name.clone(), bytes.into());
                } else {
                    objects.remove(name);
                }
                let disk = store_of(&objects).await;
                let repository = open(&disk, 4).await.unwrap();
                let outcome = prune_with(&repository, &thorough()).await;
                let after = objects_of(&disk).await;
                match outcome {
                    Err(error) => {
                        assert!(whole(&error).contains("nothing was changed"), "{name}: {}", whole(&error));
                        assert!(objects.keys().all(|name| after.contains_key(name)), "{name}");
                    }
                    // What only the forgotten backup needed may be damaged as it likes.
                    Ok(_) => {
                        let repository = open(&disk, 5).await.unwrap();
                        let latest = repository.find_backup("latest").unwrap();
                        assert_restores(&repository, latest.id, &files(2, 10)).await;
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_keeps_its_pack() {
    let store = memory();
    let repository = made(&store).await;
    let (one, two) = (files(1, 12), files(2, 12));
    let id = back_up(&repository, "/data", &one).await.unwrap().id;
    back_up(&repository, "/data", &mixed(&one, &two)).await.unwrap();
    log::forget(&repository, id).await.unwrap();
    let made = objects_of(&store).await;
    let mut kept = 0;
    for (name, bytes) in made.iter().filter(|(name, _)| name.starts_with("packs/")) {
        let mut objects = made.clone();
        let mut bytes = bytes.to_vec();
        for at in (200..bytes.len() - 2000).step_by(1000) {
            bytes[at] ^= 1;
        }
        objects.insert(name.clone(), bytes.into());
        let disk = store_of(&objects).await;
        let repository = open(&disk, 4).await.unwrap();
        let report = prune_with(&repository, &thorough()).await.unwrap();
        kept += usize::from(report.remarks.iter().any(|remark| remark.contains("could not be read")));
        let is_there = disk.list_sorted(Folder::Packs).await.unwrap().iter().any(|info| info.path.as_str() == name);
        if !is_there {
            let repository = open(&disk, 5).await.unwrap();
            let id = repository.find_backup("latest").unwrap().id;
            assert_restores(&repository, id, &mixed(&one, &two)).await;
        }
    }
    assert!(kept > 0, "no prune met the damage");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_backup_published_stays_until_the_next_one_of_its_lineage() {
    let store = memory();
    let repository = made(&store).await;
    let tree = files(3, 30);
    let mut files_there = tree.clone();
    files_there.remove(b"file-029".as_slice());
    // One file is listed and not there: the backup stops, and publishes what it stored so far.
    let entries = tree.iter().map(|(path, content)| entry_of(path, content)).collect();
    let source = Made::with_entries("/data", &files_there, entries);
    let options = BackupOptions { lineage: Some("one".to_owned()), ..quick() };
    backup(&repository, Box::new(source), &options, Arc::new(Silent)).await.unwrap_err();
    let published = bytes_of(&store, Folder::Packs).await;
    assert!(published > 400_000, "{published} bytes were published");
    let report = prune_with(&repository, &thorough()).await.unwrap();
    assert_eq!((report.objects_retired, bytes_of(&store, Folder::Packs).await), (0, published), "{report:?}");
    // Another lineage's backup changes nothing about that; the next of its own does.
    back_up(&repository, "/other", &files(4, 2)).await.unwrap();
    let report = prune_with(&repository, &thorough()).await.unwrap();
    assert!(bytes_of(&store, Folder::Packs).await >= published, "{report:?}");
    let few: Tree = tree.into_iter().take(3).collect();
    let id = back_up_with(&repository, "/data", &few, &options).await.unwrap().id;
    let report = prune_with(&repository, &thorough()).await.unwrap();
    assert!(bytes_of(&store, Folder::Packs).await < published / 2, "{report:?}");
    assert_restores(&repository, id, &few).await;
    assert_scrubs(&repository, "afterwards").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ten_years_loses_nothing() {
    const TEN_YEARS: i64 = 10 * 365 * 24 * 3600 * 1_000_000_000;
    let store = memory();
    let base = 1_700_000_000_000_000_000;
    Repository::create(store.clone(), &small(), seeded(1).0).await.unwrap();
    let mut tree = files(0, 16);
    let mut listed = Vec::new();
    for night in 1..=9u32 {
        let (environment, clock) = seeded(u64::from(night) + 20);
        clock.set(Timestamp::from_nanos(match night % 3 {
            0 => base + TEN_YEARS,
            1 => base,
            _ => base - TEN_YEARS,
        }));
        let repository = Repository::open(store.clone(), OpenOptions::default(), environment).await.unwrap();
        listed.push((back_up(&repository, "/data", &tree).await.unwrap().id, tree.clone()));
        if night > 3 {
            log::forget(&repository, listed.remove(0).0).await.unwrap();
        }
        let report = prune_with(&repository, &thorough()).await.unwrap();
        assert_eq!((report.objects_waiting, report.complete), (0, true), "{night}: {report:?}");
        for (id, tree) in &listed {
            assert_restores(&repository, *id, tree).await;
        }
        assert_scrubs(&repository, &format!("night {night}")).await;
        tree = mixed(&tree, &files(u64::from(night), 16));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_for_one_writer_is_pruned_as_well() {
    let store = memory();
    let options = InitOptions { single_writer: true, ..small() };
    let repository = Repository::create(Overwriter::around(&store), &options, seeded(1).0).await.unwrap();
    let (one, two) = (files(1, 12), files(2, 12));
    for night in 0..3 {
        let id = back_up(&repository, "/data", &one).await.unwrap().id;
        let tree = mixed(&one, &files(night + 3, 12));
        let last = back_up(&repository, "/data", &tree).await.unwrap().id;
        log::forget(&repository, id).await.unwrap();
        let report = prune_with(&repository, &thorough()).await.unwrap();
        assert!(report.objects_deleted > 0 && report.objects_waiting == 0, "{report:?}");
        assert_restores(&repository, last, &tree).await;
        log::forget(&repository, last).await.unwrap();
        back_up(&repository, "/data", &two).await.unwrap();
    }
    assert_scrubs(&repository, "one writer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_stops_and_the_next_run_goes_on() {
    let store = memory();
    let repository = made(&store).await;
    let (one, two) = (files(1, 40), files(2, 40));
    let id = back_up(&repository, "/data", &one).await.unwrap().id;
    let tree = mixed(&one, &two);
    let last = back_up(&repository, "/data", &tree).await.unwrap().id;
    log::forget(&repository, id).await.unwrap();
    let hurried = PruneOptions { time_limit: Some(Duration::ZERO), ..thorough() };
    let report = prune_with(&repository, &hurried).await.unwrap();
    assert!(!report.complete && report.bytes_rewritten == 0, "{report:?}");
    assert_scrubs(&repository, "hurried").await;
    let report = prune_with(&repository, &thorough()).await.unwrap();
    assert!(report.complete && report.bytes_rewritten > 0, "{report:?}");
    assert_restores(&repository, last, &tree).await;
}
