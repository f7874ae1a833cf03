//! The main job: back up, restore, the same again.

use crate::support::{Scene, assert_same, write};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_comes_back_as_it_was() {
    let scene = Scene::new().await;
    let source = scene.path("source");
    write(&source.join("a/b/c.txt"), b"hello");
    write(&source.join("a-b"), b"");
    write(&source.join("big"), &vec![7; 9 << 20]);
    std::os::unix::fs::symlink("a/b/c.txt", source.join("link")).unwrap();
    let first = scene.backup(&source).await;
    assert_eq!((first.totals.files, first.files_new, first.problem_count), (3, 3, 0));
    let report = scene.restore("latest", &scene.path("target")).await;
    assert_eq!((report.files, report.symlinks, report.damaged_count), (3, 1, 0));
    assert_same(&source, &scene.path("target"));

    let second = scene.backup(&source).await;
    assert_eq!(second.parent, Some(first.id));
    assert_eq!(second.chunks_new, 0, "{second:?}");
}
