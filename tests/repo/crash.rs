//! Processes that die, replies that are lost, disks that are full: at every write, no backup is lost, none is doubled, and the next one works.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use everpack::error::{ErrorKind, Result};
use everpack::id::{ChunkId, ObjectHash};
use everpack::repo::{OpenOptions, Repository};
use everpack::store::adapter::{Faults, Faulty};
use everpack::store::{Store, StoredObject};
use everpack::testing::fragments::live_fragments;

use crate::made::{
    Tree, assert_restores, assert_scrubs, back_up, back_up_with, bring_back, doomed, memory, objects_of, open, quick,
    seeded, small, store_of, tree_of, whole,
};

/// What one process does before it dies: an `init`, two backups, a restore. Remembers what it was told is safe.
async fn a_life(store: &Store, trees: &[Tree], safe: &mut Vec<ObjectHash>) -> Result<()> {
    let repository = Repository::create(store.clone(), &small(), doomed(1)).await?;
    for tree in trees {
        safe.push(back_up(&repository, "/data", tree).await?.id);
    }
    bring_back(&repository, &repository.find_backup("latest")?).await.0?;
    Ok(())
}

fn nights() -> Vec<Tree> {
    let first = tree_of(1, 150_000);
    let mut second = first.clone();
    second.extend(tree_of(2, 90_000));
    second.remove(b"small-1".as_slice());
    vec![first, second]
}

/// The log has no gap, and every backup of it restores. Gives how many there are.
async fn assert_sound(store: &Store, trees: &[Tree], safe: &[ObjectHash]) -> usize {
    // Restores open sessions, and no two may have one name.
    static SEED: AtomicU64 = AtomicU64::new(1_000_000);
    let environment = seeded(SEED.fetch_add(1, Ordering::Relaxed)).0;
    let repository =
        Repository::open(store.clone(), OpenOptions { distrust_state: true, ..OpenOptions::default() }, environment)
            .await
            .unwrap();
    let backups = repository.backups();
    for id in safe {
        assert!(backups.iter().any(|backup| backup.id == *id), "backup {id} was called done and is not there");
    }
    assert!(backups.len() <= trees.len(), "{} backups of {} trees", backups.len(), trees.len());
    for (backup, tree) in backups.iter().zip(trees) {
        assert_restores(&repository, backup.id, tree).await;
    }
    assert_scrubs(&repository, "a scrub").await;
    backups.len()
}

async fn writes_of_a_life(trees: &[Tree]) -> u64 {
    let (store, faulty) = Faulty::around(&memory(), Faults::default());
    a_life(&store, trees, &mut Vec::new()).await.unwrap();
    faulty.writes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_die_after_any_write() {
    let trees = nights();
    let third = tree_of(3, 120_000);
    let total = writes_of_a_life(&trees).await;
    assert!(total > 20, "only {total} writes: nothing is tested");
    let mut outcomes = [0; 3];
    for writes in 0..=total {
        let disk = memory();
        let (store, faulty) = Faulty::around(&disk, Faults { writes_max: Some(writes), ..Faults::default() });
        let mut safe = Vec::new();
        let lived = a_life(&store, &trees, &mut safe).await;
        assert!(lived.is_ok() || faulty.has_crashed(), "after {writes} writes: {}", whole(&lived.unwrap_err()));

        if !disk.exists(StoredObject::Config).await.unwrap() {
            let error = open(&disk, 2).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "after {writes} writes: {error}");
            Repository::create(disk.clone(), &small(), seeded(2).0).await.unwrap();
        }
        let committed = assert_sound(&disk, &trees, &safe).await;
        assert!(committed <= safe.len() + 1, "after {writes} writes");
        outcomes[committed] += 1;

        // The dead process may hold the lineage: the next backup fences it and does not wait.
        let repository = open(&disk, 3).await.unwrap();
        let report = back_up(&repository, "/data", &third).await.unwrap_or_else(|error| panic!("{writes}: {error}"));
        let expected: Vec<Tree> = trees[..committed].iter().chain([&third]).cloned().collect();
        assert_eq!(assert_sound(&disk, &expected, &[report.id]).await, committed + 1);
    }
    assert!(outcomes.iter().all(|count| *count > 0), "not every stage was met: {outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_is_not_a_lost_backup() {
    let trees = nights();
    let total = writes_of_a_life(&trees).await;
    for lost in 1..=total {
        let disk = memory();
        let (store, faulty) = Faulty::around(&disk, Faults { lost_reply_at: Some(lost), ..Faults::default() });
        let repository = match Repository::create(store.clone(), &small(), doomed(1)).await {
            Ok(repository) => repository,
            // Nobody knows whether it is there: ask again.
            Err(_) => match Repository::open(store.clone(), OpenOptions::default(), doomed(2)).await {
                Ok(repository) => repository,
                Err(_) => Repository::create(store.clone(), &small(), doomed(3)).await.unwrap(),
            },
        };
        let mut safe = Vec::new();
        for tree in &trees {
            let report = match back_up(&repository, "/data", tree).await {
                Ok(report) => report,
                Err(_) => back_up(&repository, "/data", tree).await.unwrap_or_else(|error| {
                    panic!("reply {lost} was lost, and the next run failed: {}", whole(&error))
                }),
            };
            safe.push(report.id);
        }
        bring_back(&repository, &repository.find_backup("latest").unwrap()).await.0.unwrap();
        assert_eq!(assert_sound(&disk, &trees, &safe).await, trees.len(), "reply {lost}");
        assert!(faulty.failures() <= 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_says_so_and_commits_nothing() {
    let tree = tree_of(4, 400_000);
    for room in [0, 100, 3000, 70_000, 150_000, 300_000, 420_000] {
        let disk = memory();
        Repository::create(disk.clone(), &small(), seeded(1).0).await.unwrap();
        let (store, faulty) = Faulty::around(&disk, Faults { full_after: Some(room), ..Faults::default() });
        let repository = Repository::open(store, OpenOptions::default(), doomed(2)).await.unwrap();
        let error = back_up(&repository, "/data", &tree).await.unwrap_err();
        assert!(error.is_disk_full(), "{room} bytes: {}", whole(&error));
        let text = whole(&error);
        assert!(text.contains("full") || text.contains("no storage space"), "{text}");
        assert_eq!(open(&disk, 3).await.unwrap().backups().len(), 0);

        faulty.heal();
        let next = open(&disk, 4).await.unwrap();
        let report = back_up(&next, "/data", &tree).await.unwrap();
        assert_sound(&disk, std::slice::from_ref(&tree), &[report.id]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_that_fails_now_and_then_loses_nothing() {
    for seed in 0..24 {
        let disk = memory();
        Repository::create(disk.clone(), &small(), seeded(seed).0).await.unwrap();
        let faults = Faults {
            seed,
            errors_per_mille: 40,
            lost_replies_per_mille: 40,
            delay_max: Duration::from_millis(2),
            ..Faults::default()
        };
        let (store, faulty) = Faulty::around(&disk, faults);
        let mut trees = Vec::new();
        let mut safe = Vec::new();
        for night in 0..4 {
            let tree = tree_of(seed * 10 + night, 60_000);
            let before = open(&disk, 5).await.unwrap().backups().len();
            let run = async {
                let environment = doomed(seed * 100 + night);
                let repository = Repository::open(store.clone(), OpenOptions::default(), environment).await?;
                back_up_with(&repository, "/data", &tree, &quick()).await
            };
            let done = run.await;
            let after = open(&disk, 6).await.unwrap().backups().len();
            assert!(after <= before + 1 && (done.is_err() || after == before + 1), "seed {seed}");
            if after > before {
                trees.push(tree);
            }
            safe.extend(done.ok().map(|report| report.id));
        }
        assert_sound(&disk, &trees, &safe).await;
        faulty.heal();
        let repository = open(&disk, 7).await.unwrap();
        trees.push(tree_of(seed, 50_000));
        safe.push(back_up(&repository, "/data", &trees[trees.len() - 1]).await.unwrap().id);
        assert_eq!(assert_sound(&disk, &trees, &safe).await, trees.len(), "seed {seed}");
    }
}

/// A backup of this process publishes every pack as soon as it is stored.
async fn open_with_checkpoints(store: &Store, seed: u64) -> Result<Repository> {
    let options = OpenOptions { checkpoint_bytes: Some(1), ..OpenOptions::default() };
    Repository::open(store.clone(), options, doomed(seed)).await
}

/// The chunks that the log's fragments name, by what a reader with no memory finds.
async fn published(store: &Store) -> BTreeMap<ChunkId, u32> {
    let repository = open(store, 900_000).await.unwrap();
    live_fragments(&repository).await.unwrap().into_iter().flat_map(|(_, chunks)| chunks).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_first_backup_published_is_not_sent_again() {
    // Packs are published between two files, so there are some, each about a pack.
    let mut tree = tree_of(6, 70_000);
    for n in 0..8 {
        tree.insert(format!("c/{n}").into_bytes(), tree_of(60 + n, 70_000)[b"a/long".as_slice()].clone());
    }
    let empty = memory();
    Repository::create(empty.clone(), &small(), seeded(1).0).await.unwrap();
    let empty = objects_of(&empty).await;

    // Undisturbed: what there is to send, and how many writes that takes.
    let disk = store_of(&empty).await;
    let (store, faulty) = Faulty::around(&disk, Faults::default());
    let repository = open_with_checkpoints(&store, 2).await.unwrap();
    let whole_report = back_up(&repository, "/data", &tree).await.unwrap();
    let all = published(&disk).await;
    assert_eq!(whole_report.chunks_new, all.len() as u64);
    let fragments = live_fragments(&repository).await.unwrap().len();
    assert!(fragments > 4, "{fragments} fragments: there was no checkpoint before the commit");

    let (mut resumed, mut most_saved) = (0, 0);
    for writes in 0..=faulty.writes() {
        let disk = store_of(&empty).await;
        let (store, faulty) = Faulty::around(&disk, Faults { writes_max: Some(writes), ..Faults::default() });
        let repository = open_with_checkpoints(&store, 2).await.unwrap();
        let died = back_up(&repository, "/data", &tree).await;
        // Threads take turns as they like: a run with fewer checkpoints needs fewer writes.
        assert!(died.is_ok() || faulty.has_crashed(), "after {writes} writes: {}", whole(&died.unwrap_err()));

        let before = published(&disk).await;
        let was_committed = !open(&disk, 3).await.unwrap().backups().is_empty();
        let repository = open(&disk, 4).await.unwrap();
        let report = back_up(&repository, "/data", &tree).await.unwrap_or_else(|error| panic!("{writes}: {error}"));
        let fragments = live_fragments(&repository).await.unwrap();
        let mut sent = 0;
        let mut named: BTreeMap<ChunkId, u64> = BTreeMap::new();
        for (id, _) in fragments.iter().flat_map(|(_, chunks)| chunks) {
            *named.entry(*id).or_default() += 1;
            sent += u64::from(!before.contains_key(id));
        }
        let twice = named.values().filter(|times| **times > 1).count();
        assert_eq!(twice, 0, "after {writes} writes: {twice} chunks that a checkpoint names were stored again");
        assert_eq!(report.chunks_new, sent, "after {writes} writes");
        // The segments of both backups are the same, so all that there is was sent once.
        assert_eq!(named.len(), all.len(), "after {writes} writes");
        let saved: u64 = before.values().map(|len| u64::from(*len)).sum();
        if was_committed {
            assert_eq!(report.chunks_new, 0, "after {writes} writes");
        } else if !before.is_empty() {
            assert!(report.bytes_stored < whole_report.bytes_stored, "after {writes} writes: {report:?}");
            resumed += 1;
            most_saved = most_saved.max(saved);
        }

        let trees = if was_committed { vec![tree.clone(), tree.clone()] } else { vec![tree.clone()] };
        assert_sound(&disk, &trees, &[report.id]).await;
    }
    let everything: u64 = all.values().map(|len| u64::from(*len)).sum();
    assert!(resumed > 4 && most_saved * 2 > everything, "{resumed} runs resumed, at best from {most_saved} bytes");
}
