//! What operations ask of a store and of a source: as much as they need, however many files there are.

use std::sync::Arc;

use everpack::ops::backup::backup;
use everpack::ops::restore::{RestoreOptions, restore};
use everpack::progress::Silent;
use everpack::repo::{OpenOptions, Repository};
use everpack::store::Store;
use everpack::store::adapter::{Counts, Recorder, Request};

use crate::made::{Dice, Made, Tree, back_up, memory, quick, scratch, seeded, small, tree_of};

fn files(count: u64) -> Tree {
    let mut dice = Dice(count);
    (0..count).map(|n| (format!("d{}/f{n:06}", n % 7).into_bytes(), Arc::new(dice.noise(200)))).collect()
}

fn log_entries(requests: &[Request]) -> usize {
    let is_entry =
        |request: &&Request| matches!(request, Request::Put { path, create: true, .. } if path.starts_with("log/"));
    // Every writing session creates the newest entry once more, to be told that it exists.
    let paths: Vec<_> = requests.iter().filter(is_entry).collect();
    paths.len()
}

/// What an unchanged second backup asks for; a new process without caches makes it.
async fn unchanged(count: u64) -> (Vec<Request>, Counts) {
    let tree = files(count);
    let disk = memory();
    let repository = Repository::create(disk.clone(), &small(), seeded(1).0).await.unwrap();
    back_up(&repository, "/data", &tree).await.unwrap();

    let (store, recorder) = Recorder::around(&disk);
    let repository = Repository::open(store, OpenOptions::default(), seeded(2).0).await.unwrap();
    let source = Made::new("/data", &tree);
    let reader = source.handle();
    let report = backup(&repository, Box::new(source), &quick(), Arc::new(Silent)).await.unwrap();
    assert_eq!((reader.opened(), report.files_read, report.bytes_read), (0, 0, 0));
    assert_eq!((report.files_unchanged, report.chunks_new), (count, 0));
    recorder.take()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_backup_opens_no_file_and_asks_little() {
    let (few, counts) = unchanged(20).await;
    assert!(counts.requests() <= 24, "{} requests: {few:#?}", counts.requests());
    let created = log_entries(&few);
    assert_eq!(created, 3, "one to register, one to commit, one to learn that the store refuses a second: {few:#?}");
    assert_eq!(counts.puts, 1, "the manifest only: {few:#?}");
    assert_eq!(counts.deletes, 0);

    let (many, more) = unchanged(4000).await;
    let segments = |requests: &[Request]| {
        requests
            .iter()
            .filter(|request| matches!(request, Request::Get { path, .. } if path.starts_with("meta/")))
            .count()
    };
    // The parent's list is read segment by segment; nothing else grows.
    let (few_rest, many_rest) = (counts.requests() - segments(&few) as u64, more.requests() - segments(&many) as u64);
    assert_eq!(few_rest, many_rest, "{many:#?}");
    assert!(segments(&many) <= 20, "{} segments of 4000 files", segments(&many));
}

async fn opened(disk: &Store) -> (Repository, Arc<Recorder>) {
    let (store, recorder) = Recorder::around(disk);
    (Repository::open(store, OpenOptions::default(), seeded(9).0).await.unwrap(), recorder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_needs_only_the_log() {
    let disk = memory();
    let repository = Repository::create(disk.clone(), &small(), seeded(1).0).await.unwrap();
    for night in 0..40 {
        back_up(&repository, "/data", &tree_of(night % 3, 5000)).await.unwrap();
    }
    let (repository, recorder) = opened(&disk).await;
    assert_eq!(repository.backups().len(), 40);
    let (requests, counts) = recorder.take();
    for request in &requests {
        let path = match request {
            Request::Get { path, .. } | Request::Head { path } => path,
            Request::List { prefix, .. } => prefix,
            Request::Put { .. } | Request::Delete { .. } => panic!("a list writes: {request:?}"),
        };
        assert!(path == "config" || path.starts_with("log"), "{request:?}");
    }
    // 80 entries, 66 of them folded into a state object.
    assert!(counts.requests() < 30, "{} requests: {requests:#?}", counts.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_reads_every_byte_once() {
    let disk = memory();
    let repository = Repository::create(disk.clone(), &small(), seeded(1).0).await.unwrap();
    let mut tree = tree_of(1, 2_000_000);
    // Fewer files than a window holds.
    tree.extend(files(300));
    let report = back_up(&repository, "/data", &tree).await.unwrap();
    let (repository, recorder) = opened(&disk).await;
    recorder.take();
    let target = scratch();
    let backup = repository.find_backup("latest").unwrap();
    let options = RestoreOptions::default();
    restore(&repository, &backup, &target.path().join("t"), &options, Arc::new(Silent)).await.unwrap();
    let (requests, counts) = recorder.take();
    let allowed = report.bytes_stored + report.bytes_stored / 20 + 100_000;
    assert!(counts.bytes_got <= allowed, "{} bytes read of {}", counts.bytes_got, report.bytes_stored);
    let mut packs: Vec<_> = requests
        .iter()
        .filter_map(|request| match request {
            Request::Get { path, .. } if path.starts_with("packs/") => Some(path),
            _ => None,
        })
        .collect();
    let reads = packs.len();
    packs.sort();
    packs.dedup();
    assert!(packs.len() > 10, "{} packs", packs.len());
    assert_eq!(reads, packs.len(), "a pack of 64 KiB is one read");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pack_is_one_request() {
    let disk = memory();
    Repository::create(disk.clone(), &small(), seeded(1).0).await.unwrap();
    let (repository, recorder) = opened(&disk).await;
    recorder.take();
    let report = back_up(&repository, "/data", &tree_of(3, 3_000_000)).await.unwrap();
    let (requests, counts) = recorder.take();
    let packs =
        requests.iter().filter(|request| matches!(request, Request::Put { path, .. } if path.starts_with("packs/")));
    assert!(packs.count() as u64 <= report.bytes_stored / (50 << 10), "{counts:?}");
    assert_eq!(log_entries(&requests), 2, "nothing to confirm in an empty log: {requests:#?}");
    assert!(counts.bytes_put <= report.bytes_stored + report.bytes_stored / 20 + 20_000, "{counts:?}");
}
