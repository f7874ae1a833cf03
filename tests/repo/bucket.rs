//! Repositories in a bucket, and buckets as sources, on a real S3 server.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use everpack::ops::backup::{BackupOptions, backup};
use everpack::ops::restore::{Framing, RestoreOptions, restore};
use everpack::progress::Silent;
use everpack::repo::{InitOptions, OpenOptions, Repository};
use everpack::source::{BucketOptions, BucketSource, StoreBucket};
use everpack::store::{ObjectPath, Store};
use everpack::testing::data::captures;
use everpack::testing::s3;

use crate::support::{Scene, assert_same, backup_of, environment, tree};

#[tokio::test(flavor = "multi_thread")]
async fn nights_restore_from_a_bucket() {
    let Some(server) = s3::server("nights_restore_from_a_bucket", "EVERPACK_TEST_S3") else { return };
    let Some(data) = captures("nights_restore_from_a_bucket") else { return };
    let scratch = tempfile::TempDir::new().unwrap();
    let url = server.url("nights");
    let store = Store::open(&url, &server.options).unwrap();
    let repository = Repository::create(store, &InitOptions::default(), environment(None)).await.unwrap();
    let nights = [
        "shop/full-1",
        "shop/full-2",
        "shop/full-3",
        "shop/full-4",
        "shop/full-5",
        "framed/fs-full-1",
        "framed/raw-full-1/x",
        "hole/hole",
    ];
    for night in nights {
        backup_of(&repository, &data.join(night), &BackupOptions::default()).await.unwrap();
    }
    // A new process, on another machine: only the bucket is left.
    let store = Store::open(&url, &server.options).unwrap();
    let repository = Repository::open(store, OpenOptions::default(), environment(None)).await.unwrap();
    let backups = repository.backups();
    assert_eq!(backups.len(), nights.len());
    for (night, backup) in nights.iter().zip(&backups) {
        let target = scratch.path().join("target");
        let report = restore(&repository, backup, &target, &RestoreOptions::default(), Arc::new(Silent)).await.unwrap();
        assert_eq!(report.damaged_count, 0, "{report:?}");
        assert_same(&data.join(night), &target);
        std::fs::remove_dir_all(&target).unwrap();
    }
    // Framing is a choice of the restore, wherever the repository is.
    let raw = scratch.path().join("raw");
    let options = RestoreOptions { framing: Framing::Raw, paths: vec![b"tae".to_vec()], ..RestoreOptions::default() };
    restore(&repository, &backups[5], &raw, &options, Arc::new(Silent)).await.unwrap();
    let (framed, raw) = (tree(&data.join("framed/fs-full-1/tae")), tree(&raw.join("tae")));
    assert_eq!(framed.len(), raw.len());
    assert!(framed.iter().any(|(path, node)| raw.get(path) != Some(node)));
}

async fn upload(store: &Store, top: &Path) {
    for path in tree(top).keys() {
        let name = std::str::from_utf8(path).unwrap();
        let file = top.join(name);
        if file.is_file() {
            let object = ObjectPath::parse(name).unwrap();
            store.put_new(object, vec![Bytes::from(std::fs::read(file).unwrap())]).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_prefix_is_backed_up_and_known_objects_are_not_read_again() {
    let test = "a_bucket_prefix_is_backed_up_and_known_objects_are_not_read_again";
    let Some(server) = s3::server(test, "EVERPACK_TEST_S3") else { return };
    let Some(data) = captures(test) else { return };
    let scene = Scene::new().await;
    let tree_path = data.join("hole/good-before");
    let source = Store::open(&server.url("source"), &server.options).unwrap();
    upload(&source, &tree_path).await;
    let run = async || {
        let access = Arc::new(StoreBucket::new(source.readonly()));
        let handle = tokio::runtime::Handle::current();
        let bucket = tokio::task::spawn_blocking(move || BucketSource::new(access, handle, BucketOptions::default()));
        let bucket = bucket.await.unwrap().unwrap();
        backup(&scene.repository, Box::new(bucket), &BackupOptions::default(), Arc::new(Silent)).await.unwrap()
    };
    let first = run().await;
    assert_eq!((first.problem_count, first.files_new), (0, first.totals.files));
    let second = run().await;
    // What is not a MatrixOne object may have been written within the clock's grain of the first run, and is read again.
    assert!(second.files_unchanged == first.totals.files && second.bytes_read < first.bytes_read / 2, "{second:?}");
    scene.restore("latest", &scene.path("target")).await;
    assert_same(&tree_path, &scene.path("target"));
    // The same cluster from its directory shares everything.
    let third = scene.backup(&tree_path).await;
    assert_eq!(third.bytes_new, 0, "{third:?}");
}
