//! Several writers of one repository: side by side, one after a dead one, one against another.

use everpack::error::ErrorKind;
use everpack::ops::backup::BackupOptions;

use crate::support::{Scene, assert_same, backup_of, noise, write};

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_at_once_are_both_there() {
    let scene = Scene::new().await;
    let (a, b) = (scene.path("a"), scene.path("b"));
    let shared = noise(1, 12 << 20);
    for (top, seed) in [(&a, 2), (&b, 3)] {
        write(&top.join("shared"), &shared);
        write(&top.join("own"), &noise(seed, 5 << 20));
    }
    let other = scene.reopen(false).await.unwrap();
    let options = BackupOptions::default();
    let (first, second) = tokio::join!(scene.try_backup(&a, &options), backup_of(&other, &b, &options));
    let (first, second) = (first.unwrap(), second.unwrap());
    let fresh = scene.reopen(true).await.unwrap();
    assert_eq!(fresh.backups().len(), 2);
    scene.repository.refresh().await.unwrap();
    for (id, source, target) in [(first.id, &a, "ra"), (second.id, &b, "rb")] {
        scene.restore(&id.to_string(), &scene.path(target)).await;
        assert_same(source, &scene.path(target));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lineage_has_one_writer() {
    let scene = Scene::new().await;
    let source = scene.path("source");
    write(&source.join("file"), &noise(1, 40 << 20));
    let options = BackupOptions { lineage: Some("one".to_owned()), ..BackupOptions::default() };
    let other = scene.reopen(false).await.unwrap();
    let (first, second) = tokio::join!(scene.try_backup(&source, &options), backup_of(&other, &source, &options));
    // Whoever registers first wins; if the winner was done before the loser began, both did.
    let busy = [&first, &second]
        .iter()
        .filter(|outcome| outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy))
        .count();
    let done = [&first, &second].iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(busy + done, 2, "{first:?} {second:?}");
    assert!(done >= 1);
    scene.repository.refresh().await.unwrap();
    assert_eq!(scene.repository.backups().len(), done);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_aborted_backup_stored_is_found_again() {
    let scene = Scene::new().await;
    let source = scene.path("source");
    write(&source.join("big"), &noise(5, 80 << 20));
    write(&source.join("zz/unreadable-later"), b"x");
    // A file that vanishes between listing and reading makes the backup incomplete, after the large file was stored.
    std::os::unix::fs::symlink("/nowhere", source.join("link")).unwrap();
    let vanishing = crate::support::Vanishing::new(&source, "zz/unreadable-later");
    let error = vanishing.backup(&scene.repository, &BackupOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("zz/unreadable-later"), "{error}");
    assert_eq!(scene.repository.backups().len(), 0);

    let report = scene.backup(&source).await;
    assert!(report.bytes_stored < 40 << 20, "two of three packs were published by the first run: {report:?}");
    scene.restore("latest", &scene.path("target")).await;
    assert_same(&source, &scene.path("target"));
}
