//! Captures of a real MatrixOne server: every night comes back bit for bit, raw and framed; framed and raw captures share their chunks.

use std::path::{Path, PathBuf};

use everpack::ops::restore::{Framing, RestoreOptions};
use everpack::tae::{Unframer, looks_framed};
use everpack::testing::data::{captures, facts};

use crate::support::{Node, Scene, assert_same, tree};

/// Every captured tree, in the order in which they were made.
pub fn trees(data: &Path) -> Vec<PathBuf> {
    let facts = facts(data);
    let trees = facts["trees"].as_object().unwrap().keys();
    let live = facts["live_shared"].as_object().unwrap().keys();
    trees.chain(live).map(|name| data.join(name)).filter(|path| path.is_dir()).collect()
}

/// The logical bytes of a file, taken out of their framing by the reader that works on a stream, where they are in one.
pub fn unframed(stored: Vec<u8>) -> Vec<u8> {
    if !looks_framed(&stored[..stored.len().min(2048)], stored.len() as u64) {
        return stored;
    }
    let mut unframer = Unframer::new();
    let mut logical = Vec::new();
    unframer.feed(&stored, &mut logical).unwrap();
    unframer.finish(&mut logical).unwrap();
    logical
}

/// What is known of a tree alone: does a server restored from it find all that its checkpoints name?
fn is_complete(data: &Path, tree: &Path) -> bool {
    let name = tree.strip_prefix(data).unwrap().to_str().unwrap();
    let facts = facts(data);
    let fact = &facts["trees"][name]["closure_tree_alone"]["complete"];
    let live = &facts["live_shared"][name]["closure"]["complete"];
    fact.as_bool().or(live.as_bool()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_can_never_start_is_told() {
    let Some(data) = captures("a_backup_that_can_never_start_is_told") else { return };
    let scene = Scene::new().await;
    let report = scene.backup(&data.join("hole/hole")).await;
    let fatal = report.problems.iter().filter(|problem| problem.message.contains("does not start")).count();
    assert!(fatal > 0 && !report.partial, "{:?}", report.problems);
    let report = scene.backup(&data.join("hole/good-after")).await;
    assert_eq!(report.problem_count, 0, "{:?}", report.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_night_comes_back_bit_for_bit() {
    let Some(data) = captures("every_night_comes_back_bit_for_bit") else { return };
    let scene = Scene::new().await;
    let trees = trees(data);
    assert!(trees.len() >= 30, "{} trees", trees.len());
    let mut ids = Vec::new();
    for source in &trees {
        let report = scene.backup(source).await;
        assert!(!report.partial, "{}: {:?}", source.display(), report.problems);
        assert!(report.warnings.is_empty(), "{}: {:?}", source.display(), report.warnings);
        let complete = is_complete(data, source);
        assert_eq!(report.problem_count == 0, complete, "{}: {:?}", source.display(), report.problems);
        ids.push(report.id);
    }
    // From a fresh process without any cache: nothing but the repository is needed.
    let repository = scene.reopen(false).await.unwrap();
    for (source, id) in trees.iter().zip(ids) {
        let target = scene.path("target");
        let backup = repository.find_backup(&id.to_string()).unwrap();
        let options = RestoreOptions::default();
        let silent = std::sync::Arc::new(everpack::progress::Silent);
        let report = everpack::ops::restore::restore(&repository, &backup, &target, &options, silent).await.unwrap();
        assert_eq!(report.damaged_count, 0);
        assert_same(source, &target);
        std::fs::remove_dir_all(&target).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nights_at_other_paths_find_their_parent() {
    let Some(data) = captures("nights_at_other_paths_find_their_parent") else { return };
    let scene = Scene::new().await;
    let mut last = None;
    for night in 1..=5 {
        let report = scene.backup(&data.join(format!("shop/full-{night}"))).await;
        assert_eq!(report.parent, last, "night {night}");
        if night > 1 {
            assert!(report.files_unchanged > 100, "night {night}: {report:?}");
            assert!(report.bytes_read < report.totals.bytes / 3, "night {night} opened what it knew: {report:?}");
        }
        last = Some(report.id);
    }
    // Another cluster is no parent.
    let report = scene.backup(&data.join("framed/fs-full-1")).await;
    assert_eq!(report.parent, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn framed_and_raw_captures_of_one_cluster_share_their_chunks() {
    let Some(data) = captures("framed_and_raw_captures_of_one_cluster_share_their_chunks") else { return };
    let scene = Scene::new().await;
    let framed = data.join("framed/fs-full-1");
    let raw = data.join("framed/raw-full-1/x");
    let first = scene.backup(&framed).await;
    let second = scene.backup(&raw).await;
    assert_eq!(second.parent, Some(first.id));
    assert!(second.bytes_new * 10 < first.bytes_new, "{} new after {}", second.bytes_new, first.bytes_new);
    scene.restore(&second.id.to_string(), &scene.path("raw")).await;
    assert_same(&raw, &scene.path("raw"));
    scene.restore(&first.id.to_string(), &scene.path("framed")).await;
    assert_same(&framed, &scene.path("framed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_framed_night_restores_raw_and_a_raw_one_framed() {
    let Some(data) = captures("a_framed_night_restores_raw_and_a_raw_one_framed") else { return };
    let scene = Scene::new().await;
    let framed = data.join("framed/fs-full-2");
    let backup = scene.backup(&framed).await.id.to_string();
    let raw = scene.path("raw");
    let options = RestoreOptions { framing: Framing::Raw, ..RestoreOptions::default() };
    scene.try_restore(&backup, &raw, &options).await.unwrap();
    for (path, node) in tree(&framed) {
        let Node::File(..) = node else { continue };
        let name = std::str::from_utf8(&path).unwrap();
        let expected = unframed(std::fs::read(framed.join(name)).unwrap());
        assert!(std::fs::read(raw.join(name)).unwrap() == expected, "{name}");
    }

    // The raw tree, backed up by itself and framed on restore, gives the framed objects again.
    let raw_backup = scene.backup(&raw).await.id.to_string();
    let again = scene.path("again");
    let options = RestoreOptions {
        framing: Framing::DiskCrc,
        paths: vec![b"tae".to_vec(), b"hakeeper".to_vec()],
        ..RestoreOptions::default()
    };
    scene.try_restore(&raw_backup, &again, &options).await.unwrap();
    assert_same(&framed.join("tae"), &again.join("tae"));
    assert_same(&framed.join("hakeeper"), &again.join("hakeeper"));
}
