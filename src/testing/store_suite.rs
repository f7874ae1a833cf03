//! The conformance suite of stores: what the layers above rely on, tried on a real store.
//!
//! Every kind of store passes it: local disk, memory, an S3 server, and each of them through an adapter. It wants a store
//! with nothing in it and leaves it so. A violated expectation panics, as in a test; trouble with the store is an error.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::error::{Error, ErrorKind, Result};
use crate::id::{ObjectHash, ObjectKind, ObjectName, SessionId};
use crate::store::adapter::{Faults, Faulty};
use crate::store::{Folder, ObjectPath, Put, Store, StoredObject, confirm_create_only, probe};

/// More than two pages of an S3 listing.
const PAGING_KEYS: u64 = 2500;
/// Requests at once where order does not matter.
const CONCURRENCY: usize = 16;
/// Writers in a race.
const RACERS: u8 = 16;

/// Runs everything. The store must be empty, safe for sharing, and nobody else's.
pub async fn run(store: &Store) -> Result<()> {
    run_without_races(store).await?;
    races_have_one_winner(store).await?;
    let abilities = probe(store).await?;
    assert!(abilities.is_safe_for_sharing() && abilities.is_usable(), "{abilities:?}");
    assert_left_empty(store).await
}

/// The same for a store on which several may win a race, but not two who come one after the other.
pub async fn run_without_races(store: &Store) -> Result<()> {
    run_without_conditions(store).await?;
    creating_is_exclusive(store).await?;
    lost_replies_are_not_lost_races(store).await?;
    assert_left_empty(store).await
}

/// The same for a store that ignores conditions: what is left is good enough for one writer at a time.
pub async fn run_without_conditions(store: &Store) -> Result<()> {
    assert!(store.list_sorted(Folder::Root).await?.is_empty(), "{} is not empty", store.display());
    objects_read_back(store).await?;
    ranges_read_back(store).await?;
    short_objects_are_corrupt(store).await?;
    missing_objects_are_said_to_be_missing(store).await?;
    folders_are_listed_apart(store).await?;
    long_listings_are_whole(store).await?;
    deleting_is_idempotent(store).await?;
    assert_left_empty(store).await
}

/// Nothing stays.
async fn assert_left_empty(store: &Store) -> Result<()> {
    let rest = store.list_sorted(Folder::Root).await?;
    assert!(rest.is_empty(), "the suite left {rest:?}");
    Ok(())
}

fn name(kind: ObjectKind, n: u8) -> ObjectName {
    ObjectName { kind, hash: ObjectHash::from_bytes([n; 32]), session: SessionId::from_bytes([7; 8]) }
}

fn bytes_of_len(len: usize) -> Bytes {
    // Neighbouring bytes and neighbouring pages differ.
    (0u32..).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).take(len).collect()
}

#[track_caller]
fn expect_kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.expect_err("this must fail");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

async fn objects_read_back(store: &Store) -> Result<()> {
    let body = bytes_of_len(3 << 20);
    let pack = name(ObjectKind::DataPack, 0xab);
    let parts = vec![body.slice(..10), Bytes::new(), body.slice(10..1 << 20), body.slice(1 << 20..)];
    store.put_new(pack, parts.clone()).await?;
    // A retry of the same write is harmless.
    store.put_new(pack, parts).await?;
    assert_eq!(store.get(pack).await?, body);
    assert_eq!(store.readonly().get_limited(&pack, body.len() as u64).await?, body);
    expect_kind(store.get_limited(pack, body.len() as u64 - 1).await, ErrorKind::Corrupt);
    let info = store.head(pack).await?.expect("just written");
    assert_eq!((info.object(), info.len), (StoredObject::Named(pack), body.len() as u64));
    assert!(info.last_modified.as_nanos() > 0);

    store.put_new(StoredObject::Config, Vec::new()).await?;
    assert_eq!(store.get(StoredObject::Config).await?, Bytes::new());
    assert_eq!(store.head(StoredObject::Config).await?.map(|info| info.len), Some(0));
    store.delete_many(vec![pack.into(), StoredObject::Config.into()]).await
}

async fn ranges_read_back(store: &Store) -> Result<()> {
    let body = bytes_of_len(5 << 20);
    let pack = name(ObjectKind::MetaPack, 1);
    store.put_new(pack, vec![body.clone()]).await?;
    let at = |range: &Range<u64>| {
        let bound = |n: u64| usize::try_from(n).expect("small");
        body.slice(bound(range.start)..bound(range.end))
    };
    let len = body.len() as u64;
    // Out of order, overlapping, touching, far apart, equal, empty, and the whole.
    let ranges = [len - 5..len, 0..1, 100..200, 150..300, 300..301, 0..1, 77..77, 2 << 20..3 << 20, 0..len];
    let found = store.get_ranges(pack, &ranges).await?;
    assert_eq!(found.len(), ranges.len());
    for (range, bytes) in ranges.iter().zip(&found) {
        assert_eq!(*bytes, at(range), "{range:?} of many");
        assert_eq!(store.get_range(pack, range.clone()).await?, at(range), "{range:?}");
    }
    assert!(store.get_ranges(pack, &[]).await?.is_empty());
    store.delete(pack).await
}

/// As a pack that was cut off, read at the places where the index says that chunks are.
async fn short_objects_are_corrupt(store: &Store) -> Result<()> {
    let pack = name(ObjectKind::DataPack, 2);
    store.put_new(pack, vec![bytes_of_len(1000)]).await?;
    for range in [900..1001, 1000..1001, 5000..6000] {
        let error = expect_kind(store.get_range(pack, range.clone()).await, ErrorKind::Corrupt);
        assert!(error.message().contains("packs/02/"), "{error}");
        expect_kind(store.get_ranges(pack, &[0..10, range.clone()]).await, ErrorKind::Corrupt);
    }
    // Joined with a good neighbour, the end of the good one is where the object ends.
    expect_kind(store.get_ranges(pack, &[0..1000, 1100..1200, 1300..1400]).await, ErrorKind::Corrupt);
    #[allow(clippy::reversed_empty_ranges, reason = "what a hostile index may say")]
    let backwards = 10..5;
    expect_kind(store.get_range(pack, backwards).await, ErrorKind::Corrupt);
    expect_kind(store.get_range(pack, 0..u64::MAX).await, ErrorKind::Corrupt);
    store.delete(pack).await
}

async fn missing_objects_are_said_to_be_missing(store: &Store) -> Result<()> {
    let pack = name(ObjectKind::DataPack, 3);
    let error = expect_kind(store.get(pack).await, ErrorKind::NotFound);
    assert!(error.message().contains("packs/03/") && error.message().contains(store.display()), "{error}");
    expect_kind(store.get_range(pack, 0..10).await, ErrorKind::NotFound);
    expect_kind(store.get_ranges(pack, &[0..10, 20..30]).await, ErrorKind::NotFound);
    assert_eq!(store.get_if_there(pack, 10).await?, None);
    assert_eq!(store.head(pack).await?, None);
    assert!(!store.exists(pack).await?);
    assert!(store.list_sorted(Folder::Packs).await?.is_empty());
    Ok(())
}

async fn folders_are_listed_apart(store: &Store) -> Result<()> {
    let hash = crate::id::ObjectHash::from_bytes([9; 32]);
    let objects = [
        StoredObject::Config,
        StoredObject::Log(1),
        StoredObject::Log(2),
        StoredObject::LogState { n: 1, hash },
        StoredObject::Named(name(ObjectKind::DataPack, 1)),
        StoredObject::Named(name(ObjectKind::DataPack, 0xff)),
        StoredObject::Named(name(ObjectKind::Manifest, 1)),
    ];
    for object in &objects {
        store.put_new(object, vec![Bytes::from_static(b"x")]).await?;
    }
    let listed = async |prefix: Folder| -> Result<Vec<StoredObject>> {
        Ok(store.list_sorted(prefix).await?.iter().map(|info| info.object()).collect())
    };
    assert_eq!(listed(Folder::Log).await?, objects[1..3]);
    assert_eq!(listed(Folder::LogState).await?, objects[3..4]);
    assert_eq!(listed(Folder::Packs).await?, objects[4..6]);
    assert_eq!(listed(Folder::Manifests).await?, objects[6..7]);
    assert!(listed(Folder::Index).await?.is_empty());
    assert_eq!(listed(Folder::Root).await?.len(), objects.len());
    store.delete_many(objects.iter().map(ObjectPath::from).collect()).await?;
    assert!(listed(Folder::Root).await?.is_empty());
    Ok(())
}

async fn long_listings_are_whole(store: &Store) -> Result<()> {
    let body = Bytes::from_static(b"entry");
    let puts = futures::stream::iter((1..=PAGING_KEYS).map(StoredObject::Log).collect::<Vec<_>>())
        .map(|entry| store.put_new(entry, vec![body.clone()]));
    puts.buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await?;

    let expected = |from: u64| (from..=PAGING_KEYS).map(StoredObject::Log).collect::<Vec<_>>();
    let listed = store.list_sorted(Folder::Log).await?;
    assert_eq!(listed.iter().map(|info| info.object()).collect::<Vec<_>>(), expected(1));
    assert!(listed.iter().all(|info| info.len == body.len() as u64));
    for after in [0, 1, 999, 1000, 1001, PAGING_KEYS - 1, PAGING_KEYS] {
        let mut paths: Vec<ObjectPath> =
            store.list_from(Folder::Log, StoredObject::Log(after)).map_ok(|info| info.path).try_collect().await?;
        paths.sort();
        assert_eq!(paths.iter().map(StoredObject::parse).collect::<Vec<_>>(), expected(after + 1), "after {after}");
    }
    store.delete_many(listed.into_iter().map(|info| info.path).collect()).await?;
    assert!(store.list_sorted(Folder::Log).await?.is_empty());
    Ok(())
}

async fn creating_is_exclusive(store: &Store) -> Result<()> {
    let entry = StoredObject::Log(1);
    let (first, second) = (Bytes::from_static(b"token 1"), Bytes::from_static(b"token 2, longer"));
    assert_eq!(store.create(&entry, first.clone()).await?, Put::Created);
    assert_eq!(store.create(&entry, second.clone()).await?, Put::AlreadyThere(first.clone()));
    assert_eq!(store.get(&entry).await?, first);
    // Our own bytes again: the reply was lost, and we ask once more.
    assert_eq!(store.create(&entry, first.clone()).await?, Put::Created);
    confirm_create_only(store, &entry, first).await?;
    expect_kind(confirm_create_only(store, &entry, second.clone()).await, ErrorKind::Corrupt);
    store.delete(&entry).await?;
    assert_eq!(store.create(&entry, second).await?, Put::Created);
    store.delete(&entry).await
}

async fn races_have_one_winner(store: &Store) -> Result<()> {
    for n in 1..=5 {
        let entry = StoredObject::Log(n);
        let racers = (0..RACERS).map(|racer| {
            let (store, entry) = (store.clone(), entry.clone());
            tokio::spawn(async move {
                let bytes = Bytes::from(format!("token of racer {racer}"));
                store.create(&entry, bytes.clone()).await.map(|put| (bytes, put))
            })
        });
        let mut winners = Vec::new();
        let mut seen = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            match racer.await.expect("no racer panics")? {
                (bytes, Put::Created) => winners.push(bytes),
                (_, Put::AlreadyThere(bytes)) => seen.push(bytes),
            }
        }
        assert_eq!(winners.len(), 1, "winners of round {n}");
        assert_eq!(store.get(&entry).await?, winners[0]);
        assert!(seen.iter().all(|bytes| *bytes == winners[0]));
        store.delete(&entry).await?;
    }
    Ok(())
}

/// Not on a local disk, where an error is the disk's own and must not be explained away.
async fn lost_replies_are_not_lost_races(store: &Store) -> Result<()> {
    if store.local_path().is_some() {
        return Ok(());
    }
    let faults = Faults { lost_replies_per_mille: 1000, ..Faults::default() };
    let (lossy, faulty) = Faulty::around(store, faults);
    let entry = StoredObject::Log(1);
    let (ours, theirs) = (Bytes::from_static(b"ours"), Bytes::from_static(b"theirs"));
    assert_eq!(lossy.create(&entry, ours.clone()).await?, Put::Created);
    assert_eq!(lossy.create(&entry, theirs).await?, Put::AlreadyThere(ours));
    assert_eq!(faulty.failures(), 1);
    store.delete(&entry).await
}

async fn deleting_is_idempotent(store: &Store) -> Result<()> {
    let pack = name(ObjectKind::DataPack, 5);
    store.delete(pack).await?;
    store.put_new(pack, vec![Bytes::from_static(b"x")]).await?;
    store.delete(pack).await?;
    store.delete(pack).await?;
    assert!(!store.exists(pack).await?);
    let objects: Vec<ObjectPath> = (0..30).map(|n| name(ObjectKind::DataPack, n).into()).collect();
    for object in objects.iter().step_by(3) {
        store.put_new(object, vec![Bytes::from_static(b"x")]).await?;
    }
    store.delete_many(objects.clone()).await?;
    store.delete_many(objects).await?;
    store.delete_many(Vec::new()).await?;
    assert!(store.list_sorted(Folder::Packs).await?.is_empty());
    Ok(())
}
