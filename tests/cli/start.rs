//! `restore` for MatrixOne, and `verify`, as far as they go without a tree.

use crate::support::Place;

#[test]
fn without_a_server_a_drill_fails_unless_it_may_be_skipped() {
    let place = Place::with_repository();
    place.run(&["backup", "source"]).expect(0);
    let ran = place.run(&["verify", "latest", "--start"]);
    assert!(ran.out.is_empty(), "{ran:?}");
    ran.expect_error(1, &["no server to start", "--mo-service", "nothing was proved", "--skip-without-server"]);
    let ran = place.run(&["verify", "latest", "--start", "--skip-without-server"]).expect(0);
    assert!(ran.out.starts_with("skipped: no server to start") && ran.err.is_empty(), "{ran:?}");
    let document = place.json(&["verify", "latest", "--start", "--skip-without-server"]);
    assert_eq!(document["skipped"], true);
    assert!(document["why"].as_str().unwrap().contains("--mo-service"));
    place.run(&["verify", "latest"]).expect_error(1, &["--start"]);
    place.run(&["verify", "latest", "--start", "--mo-service", "absent"]).expect_error(1, &["find the server absent"]);
}

#[test]
fn a_backup_that_is_no_tree_is_no_data_directory() {
    let place = Place::with_repository();
    place.run(&["backup", "source"]).expect(0);
    for target in
        [&["--matrixone", "mo"][..], &["--as-backup-tree", "tree"], &["--to-bucket", "s3://b/p", "--hk-data", "f"]]
    {
        let ran = place
            .run(&[&["restore", "latest"][..], target, &["--endpoint", "http://127.0.0.1:1", "--allow-http"]].concat());
        ran.expect_error(1, &["holds no MatrixOne data"]);
    }
    assert!(!place.path("mo").exists() && !place.path("tree").exists() && !place.path("f").exists());
}

#[test]
fn targets_exclude_each_other() {
    let place = Place::with_repository();
    place.run(&["backup", "source"]).expect(0);
    place.run(&["restore", "latest"]).expect_error(1, &["<TARGET>"]);
    place.run(&["restore", "latest", "target", "--matrixone", "mo"]).expect_error(1, &["cannot be used with"]);
    place.run(&["restore", "latest", "--to-bucket", "s3://b/p"]).expect_error(1, &["--hk-data"]);
    place.run(&["restore", "latest", "--matrixone", "mo", "--target-release", "new"]).expect_error(1, &["v4.2.0"]);
    place.run(&["restore", "latest", "--matrixone", "mo", "--delete"]).expect_error(1, &["--delta"]);
}
