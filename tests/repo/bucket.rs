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

use crate::made::scratch;
use crate::real_data::{trees, unframed};
use crate::support::{Node, Scene, assert_same, backup_of, environment, tree};

/// Every captured night: backed up into one repository, and back from there as it was and without its framing.
#[tokio::test(flavor = "multi_thread")]
async fn nights_restore_from_a_bucket() {
    let Some(server) = s3::server("nights_restore_from_a_bucket", "EVERPACK_TEST_S3") else { return };
    let Some(data) = captures("nights_restore_from_a_bucket") else { return };
    let nights = trees(data);
    assert!(nights.len() >= 30, "{} trees", nights.len());
    let scratch = scratch();
    let url = server.url("nights");
    let store = Store::open(&url, &server.options).unwrap();
    let repository = Repository::create(store, &InitOptions::default(), environment(None)).await.unwrap();
    let mut ids = Vec::new();
    for night in &nights {
        let report = backup_of(&repository, night, &BackupOptions::default()).await.unwrap();
        assert!(!report.partial, "{}: {:?}", night.display(), report.problems);
        ids.push(report.id);
    }
    // A new process, on another machine: only the bucket is left.
    let store = Store::open(&url, &server.options).unwrap();
    let repository = Repository::open(store, OpenOptions::default(), environment(None)).await.unwrap();
    let found: Vec<_> = repository.backups().iter().map(|backup| backup.id).collect();
    assert_eq!(found, ids);
    let mut unframed = 0;
    for (night, id) in nights.iter().zip(&ids) {
        let backup = repository.find_backup(&id.to_string()).unwrap();
        let target = scratch.path().join("target");
        for framing in [Framing::AsStored, Framing::Raw] {
            let options = RestoreOptions { framing, ..RestoreOptions::default() };
            let report = restore(&repository, &backup, &target, &options, Arc::new(Silent)).await.unwrap();
            assert_eq!(report.damaged_count, 0, "{}: {report:?}", night.display());
            match framing {
                Framing::Raw => unframed += assert_raw(night, &target),
                _ => assert_same(night, &target),
            }
            std::fs::remove_dir_all(&target).unwrap();
        }
    }
    assert!(unframed > 1000, "{unframed} framed files: nothing was tested");
}

/// The restored tree has the source's logical bytes. Gives how many files had a framing.
fn assert_raw(source: &Path, found: &Path) -> u64 {
    let (expected, nodes) = (tree(source), tree(found));
    assert_eq!(expected.len(), nodes.len(), "{}", source.display());
    let mut framed = 0;
    for (path, node) in &expected {
        let name = std::str::from_utf8(path).unwrap();
        if let Node::File(_, len) = node {
            let logical = unframed(std::fs::read(source.join(name)).unwrap());
            framed += u64::from(logical.len() as u64 != *len);
            assert!(std::fs::read(found.join(name)).unwrap() == logical, "{}: {name}", source.display());
        } else {
            assert_eq!(nodes.get(path), Some(node), "{}: {name}", source.display());
        }
    }
    framed
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
