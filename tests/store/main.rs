//! Stores on a real S3 server, and on a real disk that is full.
//!
//! The server is named by `EVERPACK_TEST_S3_ENDPOINT`, `_ACCESS_KEY`, `_SECRET_KEY` and `_BUCKET`
//! (`tests/support/moto.sh start DIR` prints them); without these the tests say that they were skipped, unless
//! `EVERPACK_REQUIRE` contains `s3`. Servers known to lie may be named too, by the same four with `EVERPACK_TEST_S3_RACY` (look
//! first, write later) and `EVERPACK_TEST_S3_OVERWRITING` (ignores conditions) in front; the probe must find them out. Where `s3s-fs` or
//! `garage` is on the path, one is started for that. `EVERPACK_TEST_SMALL_DISK` names a directory on a file system of its own with less than
//! 64 MiB.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test speaks to people and may fail"
)]

mod servers;

use std::time::Instant;

use bytes::Bytes;
use everpack::error::ErrorKind;
use everpack::id::{ObjectHash, ObjectKind, ObjectName, SessionId};
use everpack::store::adapter::Recorder;
use everpack::store::{Folder, Store, StoreOptions, StoredObject, probe};
use everpack::testing::s3::{self, Server};
use everpack::testing::store_suite;

fn open(server: &Server, test: &str) -> Store {
    Store::open(&server.url(test), &server.options).unwrap()
}

fn server(test: &str) -> Option<Server> {
    s3::server(test, "EVERPACK_TEST_S3")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_server_keeps_the_contract() {
    let Some(server) = server("the store suite") else { return };
    let (store, recorder) = Recorder::around(&open(&server, "suite"));
    let started = Instant::now();
    store_suite::run(&store).await.unwrap();
    println!("suite: {:.1?}, {:?}", started.elapsed(), recorder.counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_server_passes_the_probe() {
    let Some(server) = server("the store suite") else { return };
    let started = Instant::now();
    let abilities = probe(&open(&server, "probe")).await.unwrap();
    println!("probe: {:.1?}, {abilities:?}", started.elapsed());
    assert!(abilities.is_safe_for_sharing() && abilities.is_usable(), "{abilities:?}");
    assert!(abilities.findings().iter().all(|ability| ability.ok));
}

#[tokio::test]
async fn packs_go_there_and_back() {
    let Some(server) = server("the store suite") else { return };
    let store = open(&server, "packs");
    let (hash, session) = (ObjectHash::from_bytes([3; 32]), SessionId::from_bytes([4; 8]));
    let pack = ObjectName { kind: ObjectKind::DataPack, hash, session };
    let part: Bytes = (0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    store.put_new(pack, vec![part.clone(); 32]).await.unwrap();
    let whole = store.get(pack).await.unwrap();
    assert_eq!(whole.len(), 32 << 20);
    assert!(whole.chunks(1 << 20).all(|chunk| chunk == part));
    store.delete(pack).await.unwrap();
}

#[tokio::test]
async fn wrong_credentials_are_told_and_not_shown() {
    let Some(server) = server("the store suite") else { return };
    let right = server.options.clone();
    let wrong_secret = StoreOptions { secret_key: Some("WRONGSECRET".to_owned()), ..right.clone() };
    let wrong_key = StoreOptions { access_key: Some("AKIAWRONGWRONGWRONG0".to_owned()), ..right };
    for options in [wrong_secret, wrong_key] {
        let store = Store::open(&server.url("wrong"), &options).unwrap();
        let failures = [
            store.get(StoredObject::Config).await.unwrap_err(),
            store.put_new(StoredObject::Config, vec![Bytes::from_static(b"x")]).await.unwrap_err(),
            store.create(StoredObject::Log(1), Bytes::from_static(b"x")).await.unwrap_err(),
            store.delete(StoredObject::Config).await.unwrap_err(),
            store.list_sorted(Folder::Log).await.unwrap_err(),
            probe(&store).await.unwrap_err(),
        ];
        for error in failures {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.message().contains("credentials"), "{error}");
            assert!(!format!("{error:?}").contains("WRONGSECRET"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_bucket_is_not_an_empty_store() {
    let Some(server) = server("the store suite") else { return };
    let store = Store::open("s3://everpack-no-such-bucket/x", &server.options).unwrap();
    for error in [
        store.get_if_there(StoredObject::Config, 100).await.unwrap_err(),
        store.put_new(StoredObject::Config, Vec::new()).await.unwrap_err(),
        store.create(StoredObject::Log(1), Bytes::from_static(b"x")).await.unwrap_err(),
        store.list_sorted(Folder::Log).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains("bucket does not exist"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_known_to_be_racy_is_found_out() {
    let Some(server) = s3::server("a server known to lie", "EVERPACK_TEST_S3_RACY") else { return };
    let abilities = probe(&open(&server, "racy")).await.unwrap();
    assert!(!abilities.create_race_safe && !abilities.is_safe_for_sharing(), "{abilities:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_known_to_overwrite_is_found_out() {
    let Some(server) = s3::server("a server known to lie", "EVERPACK_TEST_S3_OVERWRITING") else { return };
    let abilities = probe(&open(&server, "overwriting")).await.unwrap();
    assert!(!abilities.create_only && !abilities.is_safe_for_sharing(), "{abilities:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3s_fs_is_found_to_race() {
    let Some(started) = servers::s3s_fs("s3s_fs_is_found_to_race").await else { return };
    let abilities = probe(&open(&started.server, "probe")).await.unwrap();
    assert!(abilities.create_only && !abilities.create_race_safe, "{abilities:?}");
    assert!(!abilities.is_safe_for_sharing() && abilities.is_usable(), "{abilities:?}");
    store_suite::run_without_races(&open(&started.server, "suite")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garage_is_found_to_overwrite() {
    let Some(started) = servers::garage("garage_is_found_to_overwrite").await else { return };
    let abilities = probe(&open(&started.server, "probe")).await.unwrap();
    assert!(!abilities.create_only && !abilities.create_race_safe, "{abilities:?}");
    assert!(!abilities.is_safe_for_sharing() && abilities.is_usable(), "{abilities:?}");
    store_suite::run_without_conditions(&open(&started.server, "suite")).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_really_full_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = std::env::var_os("EVERPACK_TEST_SMALL_DISK") else {
        eprintln!("skipped: EVERPACK_TEST_SMALL_DISK names no small disk");
        return;
    };
    let dir = tempfile::tempdir_in(disk).unwrap();
    let store = Store::open(dir.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
    let session = SessionId::from_bytes([4; 8]);
    let pack = |n| ObjectName { kind: ObjectKind::DataPack, hash: ObjectHash::from_bytes([n; 32]), session };
    let body = Bytes::from(vec![7; 1 << 20]);
    let mut stored = 0;
    let error = loop {
        match store.put_new(pack(stored), vec![body.clone()]).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 64, "the disk is not small");
    };
    assert!(error.is_disk_full(), "{error:?}");
    assert!(error.message().contains("the disk is full"), "{error}");
    assert!(store.leftovers().await.unwrap().is_empty(), "a failed write cleans up");
    assert_eq!(store.list_sorted(Folder::Packs).await.unwrap().len(), usize::from(stored));
    store.delete(pack(0)).await.unwrap();
    store.put_new(pack(stored), vec![body]).await.unwrap();
}
