//! Stores as a whole: the conformance suite on those that need no server, and what disks do that servers do not.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;

use super::adapter::{Faults, Faulty, Pace, Recorder, Request, Throttle};
use super::*;
use crate::error::ErrorKind;
use crate::id::{ObjectHash, ObjectKind, ObjectName, SessionId};
use crate::testing::store_suite;

fn memory() -> Store {
    Store::open("memory:", &StoreOptions::default()).unwrap()
}

fn local() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
    (dir, store)
}

fn pack(n: u8) -> ObjectName {
    let (hash, session) = (ObjectHash::from_bytes([n; 32]), SessionId::from_bytes([7; 8]));
    ObjectName { kind: ObjectKind::DataPack, hash, session }
}

fn body(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    store_suite::run(&memory()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_disk_keeps_the_contract() {
    let (_dir, store) = local();
    store_suite::run(&store).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adapters_that_do_no_harm_keep_the_contract() {
    let (store, _recorder) = Recorder::around(&memory());
    let (store, _faulty) = Faulty::around(&store, Faults { delay_max: Duration::from_micros(50), ..Faults::default() });
    store_suite::run(&Throttle::around(&store, Pace::default())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_keeps_the_contract_and_its_neighbours() {
    let objects = std::sync::Arc::new(object_store::memory::InMemory::new());
    let whole = Store::from_object_store(objects.clone(), "whole");
    whole.put_new(ObjectPath::parse("repos/ab/config").unwrap(), body("neighbour")).await.unwrap();
    let prefixed = object_store::prefix::PrefixStore::new(objects, "repos/a");
    store_suite::run(&Store::from_object_store(std::sync::Arc::new(prefixed), "prefixed")).await.unwrap();
    assert_eq!(whole.list_sorted(Folder::Root).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_disk_is_told_apart_and_leaves_nothing() {
    let (_dir, store) = local();
    let (full, _faulty) = Faulty::around(&store, Faults { full_after: Some(100), ..Faults::default() });
    full.put_new(pack(1), vec![Bytes::from(vec![0; 90])]).await.unwrap();
    let error = full.put_new(pack(2), vec![Bytes::from(vec![0; 20])]).await.unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert!(error.message().contains("the disk is full") && error.message().contains("packs/02/"), "{error}");
    let error = full.create(StoredObject::Log(1), Bytes::from(vec![0; 20])).await.unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    full.put_new(pack(3), vec![Bytes::from(vec![0; 10])]).await.unwrap();
    assert_eq!(store.list_sorted(Folder::Root).await.unwrap().len(), 2);
}

#[tokio::test]
async fn after_a_crash_only_the_first_writes_are_there() {
    let store = memory();
    let (crashing, faulty) = Faulty::around(&store, Faults { writes_max: Some(3), ..Faults::default() });
    for n in 1..=3 {
        assert_eq!(crashing.create(StoredObject::Log(n), Bytes::from_static(b"x")).await.unwrap(), Put::Created);
    }
    assert!(!faulty.has_crashed());
    let error = crashing.create(StoredObject::Log(4), Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("cannot tell"), "{error}");
    assert!(faulty.has_crashed());
    assert!(crashing.delete(StoredObject::Log(1)).await.is_err());
    assert!(crashing.get(StoredObject::Log(1)).await.is_err(), "a crashed process reads nothing");
    assert!(crashing.list(Folder::Log).try_collect::<Vec<_>>().await.is_err());
    assert_eq!(store.list_sorted(Folder::Log).await.unwrap().len(), 3);
}

#[tokio::test]
async fn faults_follow_their_seed() {
    async fn failed(seed: u64) -> Vec<u64> {
        let faults = Faults { seed, errors_per_mille: 300, ..Faults::default() };
        let (store, _faulty) = Faulty::around(&memory(), faults);
        let mut failed = Vec::new();
        for n in 0..100 {
            if store.put_new(StoredObject::Log(n), body("x")).await.is_err() {
                failed.push(n);
            }
        }
        failed
    }
    let first = failed(1).await;
    assert!((10..60).contains(&first.len()), "{first:?}");
    assert_eq!(first, failed(1).await);
    assert_ne!(first, failed(2).await);
}

#[tokio::test]
async fn creates_survive_a_store_that_often_fails() {
    for seed in 0..20 {
        let store = memory();
        let faults = Faults { seed, errors_per_mille: 100, lost_replies_per_mille: 200, ..Faults::default() };
        let (faulty, _) = Faulty::around(&store, faults);
        for n in 0..20 {
            let (object, bytes) = (StoredObject::Log(n), Bytes::from(format!("token {n}")));
            match faulty.create(&object, bytes.clone()).await {
                Ok(put) => {
                    assert_eq!(put, Put::Created, "seed {seed}: nobody else was there");
                    assert_eq!(store.get(&object).await.unwrap(), bytes);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}"),
            }
        }
    }
}

#[tokio::test]
async fn requests_are_recorded() {
    let (store, recorder) = Recorder::around(&memory());
    store.put_new(pack(1), body("0123456789")).await.unwrap();
    store.create(StoredObject::Log(1), Bytes::from_static(b"x")).await.unwrap();
    store.get_range(pack(1), 2..5).await.unwrap();
    store.get_ranges(pack(1), &[0..1, 4..6]).await.unwrap();
    store.exists(pack(2)).await.unwrap();
    store.delete(pack(1)).await.unwrap();
    let path = ObjectPath::from(pack(1)).to_string();
    let (requests, counts) = recorder.take();
    assert_eq!(requests[0], Request::Put { path: path.clone(), len: 10, create: false });
    assert_eq!(requests[2], Request::Get { path: path.clone(), ranges: 1 });
    let expected = adapter::Counts {
        puts: 1,
        creates: 1,
        gets: 2,
        heads: 1,
        deletes: 1,
        lists: 0,
        bytes_put: 11,
        bytes_got: 3 + 6, // two near ranges in one request
    };
    assert_eq!(counts, expected);
    assert_eq!(recorder.counts().requests(), 0);
}

#[tokio::test]
async fn a_throttled_store_is_slow_by_request_and_by_byte() {
    let pace = Pace { latency: Duration::from_millis(20), bytes_per_second: 1_000_000 };
    let store = Throttle::around(&memory(), pace);
    let started = Instant::now();
    store.put_new(pack(1), vec![Bytes::from(vec![0; 50_000])]).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(70));
    let started = Instant::now();
    let store = &store;
    futures::future::try_join_all((0..8).map(|_| store.get(pack(1)))).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(70));
    assert!(started.elapsed() < Duration::from_millis(8 * 70), "requests side by side do not add up");
}

#[tokio::test]
async fn leftovers_are_hidden_found_and_removed() {
    let (dir, store) = local();
    store.put_new(pack(1), body("whole")).await.unwrap();
    let path = ObjectPath::from(pack(1)).to_string();
    std::fs::write(dir.path().join(format!("{path}#1")), b"half").unwrap();
    std::fs::create_dir(dir.path().join("log")).unwrap();
    std::fs::write(dir.path().join("log/00000000000000000001#12"), b"").unwrap();
    std::fs::write(dir.path().join("notes#1"), b"not ours").unwrap();

    assert_eq!(store.list_sorted(Folder::Packs).await.unwrap().len(), 1);
    let mut leftovers = store.leftovers().await.unwrap();
    leftovers.sort_by_key(|leftover| leftover.len);
    let objects: Vec<_> = leftovers.iter().map(|leftover| leftover.object.clone()).collect();
    assert_eq!(objects, [StoredObject::Log(1), StoredObject::Named(pack(1))]);
    assert!(leftovers.iter().all(|leftover| leftover.last_modified.as_nanos() > 0));
    // A writer of the same name is not in the way of what another left.
    store.put_new(pack(1), body("whole")).await.unwrap();
    for leftover in leftovers {
        store.delete_leftover(leftover.clone()).await.unwrap();
        store.delete_leftover(leftover).await.unwrap();
    }
    assert!(store.leftovers().await.unwrap().is_empty());
    assert!(dir.path().join("notes#1").exists());
    assert_eq!(store.get(pack(1)).await.unwrap(), "whole");
    assert!(memory().leftovers().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_disk_that_may_not_be_written_says_so() {
    let (dir, store) = local();
    store.put_new(StoredObject::Config, body("x")).await.unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    let result = store.put_new(StoredObject::Log(1), body("x")).await;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    match result {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.message().contains("owner and mode"), "{error}");
        }
        // The superuser may write everywhere.
        Ok(()) => assert!(store.exists(StoredObject::Log(1)).await.unwrap()),
    }
}

#[tokio::test]
async fn a_root_that_vanished_is_not_made_anew() {
    let (dir, store) = local();
    let root = dir.path().to_path_buf();
    drop(dir);
    let error = store.put_new(pack(1), body("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!root.exists());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let options = StoreOptions {
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        allow_http: true,
        access_key: Some("AK".to_owned()),
        secret_key: Some("SECRETKEY".to_owned()),
        retries: 0,
        ..StoreOptions::default()
    };
    let store = Store::open("s3://bucket/prefix", &options).unwrap();
    let error = store.get(StoredObject::Config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().starts_with("read config in s3://bucket/prefix: "), "{error}");
    assert!(!format!("{error:?}").contains("SECRETKEY"));
    let error = store.create(StoredObject::Log(1), Bytes::from_static(b"x")).await.unwrap_err();
    assert!(error.message().contains("cannot tell whether it was written"), "{error}");
}
