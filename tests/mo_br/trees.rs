//! Trees that another tool wrote: listed, checked, restored as they are, and imported in chains.

use std::path::Path;

use everpack::testing::data::captures;

use crate::support::{Place, Ran, same_tree};

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(copied.success());
}

fn check(place: &Place, tree: &Path) -> Ran {
    place.run(&["check", "--backup_dir", "filesystem", "--backup_path", tree.to_str().unwrap()])
}

#[test]
fn whole_trees_are_checked_file_by_file() {
    let Some(data) = captures("whole_trees_are_checked_file_by_file") else { return };
    let place = Place::new();
    for tree in [
        "framed/fs-full-1",
        "framed/fs-incr-3",
        "framed/fs-idx-3",
        "framed/raw-full-2/x",
        "shop/full-1",
        "hole/good-after",
    ] {
        let out = check(&place, &data.join(tree)).expect(0).out;
        let begin = "check: /mo_meta\ncheck: hakeeper/hk_data\ncheck: tae/tae_list\ncheck: tae/tae_sum\ncheck: config/";
        assert!(out.starts_with(begin) && !out.contains("FAILED"), "{tree}: {out}");
        assert!(out.contains("check: tae/ckp/meta_"), "{tree}");
    }
}

#[test]
fn a_hole_and_a_lost_base_and_flipped_bytes_are_told() {
    let Some(data) = captures("a_hole_and_a_lost_base_and_flipped_bytes_are_told") else { return };
    let place = Place::new();
    check(&place, &data.join("hole/hole")).expect_error(&["does not start"]);
    // Alone, an incremental tree lacks its base.
    copy(&data.join("framed/fs-incr-3"), &place.path("alone"));
    check(&place, &place.path("alone")).expect_error(&["neither this backup nor an earlier one"]);
    // One byte of one object, one of a list's digest.
    copy(&data.join("framed/raw-full-1/x"), &place.path("flipped"));
    let object = std::fs::read_dir(place.path("flipped/tae")).unwrap().map(|entry| entry.unwrap().path());
    let object = object.filter(|path| path.to_str().unwrap().ends_with("_00000")).min().unwrap();
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let name = object.file_name().unwrap().to_str().unwrap();
    let ran = check(&place, &place.path("flipped")).expect_error(&[name, "SHA-256"]);
    assert!(ran.out.contains(&format!("check: tae/{name} FAILED: its SHA-256 is")), "{}", ran.out);
    // The same with an output that nobody reads: damage is no success for that.
    let words = ["check", "--backup_dir", "filesystem", "--backup_path", &place.text("flipped")];
    let mut child = place.command("./mo_br", &words).spawn().unwrap();
    drop(child.stdout.take());
    let unread = child.wait_with_output().unwrap();
    assert_eq!(unread.status.code(), Some(1));
    assert!(String::from_utf8(unread.stderr).unwrap().contains("SHA-256"));
    std::fs::remove_file(place.path("flipped/mo_meta")).unwrap();
    check(&place, &place.path("flipped")).expect_error(&["did not finish"]);
}

#[test]
fn an_incremental_tree_is_restored_with_what_lies_beside_it() {
    let Some(data) = captures("an_incremental_tree_is_restored_with_what_lies_beside_it") else { return };
    let place = Place::new();
    let target = place.text("matrixone");
    let tree = data.join("framed/fs-incr-3");
    let words = [
        "restore",
        "--backup_dir",
        "filesystem",
        "--path",
        tree.to_str().unwrap(),
        "--restore_dir",
        "filesystem",
        "--restore_path",
        &target,
    ];
    let out = place.run(&words).expect(0).out;
    let shared = place.path("matrixone/mo-data/shared");
    // The same objects as the live directory had at that moment, byte for byte: the names tell.
    let live = data.join("framed/shared-3/mo-data/shared");
    let mut same = 0;
    for entry in std::fs::read_dir(&shared).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        assert!(entry.path().is_dir() || out.contains(&format!("{name} => mo-data/shared/{name}\n")), "{name}");
        if name.len() == 42 && name.ends_with("_00000") && live.join(&name).is_file() {
            assert_eq!(std::fs::read(entry.path()).unwrap(), std::fs::read(live.join(&name)).unwrap(), "{name}");
            same += 1;
        }
    }
    assert!(same > 100, "{same}");
    let left: Vec<_> =
        std::fs::read_dir(place.path("matrixone")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mo-data"], "the scratch repository is gone");
    // Not over it.
    place.run(&words).expect_error(&["not empty"]);
}

#[test]
fn a_chain_is_imported_and_its_base_may_go() {
    let Some(data) = captures("a_chain_is_imported_and_its_base_may_go") else { return };
    let place = Place::new();
    place.everpack("repo", &["init"]).expect(0);
    let tree = |name: &str| data.join("framed").join(name).to_str().unwrap().to_owned();
    // In any order.
    let words = ["--json", "import", &tree("fs-incr-3"), &tree("fs-full-1"), &tree("fs-incr-2"), "--lineage", "shop"];
    let report: serde_json::Value = serde_json::from_str(&place.everpack("repo", &words).expect(0).out).unwrap();
    let trees = report["trees"].as_array().unwrap();
    let kinds: Vec<&str> = trees.iter().map(|tree| tree["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["full", "incremental", "incremental"]);
    assert!(trees[1]["from_trees"].as_u64().unwrap() > 0 && trees[0]["from_trees"] == 0);
    assert!(trees.iter().all(|tree| tree["backup"]["problem_count"] == 0 && tree["backup"]["partial"] == false));
    let id = |at: usize| trees[at]["backup"]["id"].as_str().unwrap();
    let shown: serde_json::Value =
        serde_json::from_str(&place.everpack("repo", &["--json", "show", id(2)]).expect(0).out).unwrap();
    assert!(shown["facts"].to_string().contains("1795235252500203251-1"), "{}", shown["facts"]);

    place.everpack("repo", &["forget", id(0), id(1)]).expect(0);
    place.everpack("repo", &["prune", "--max-unused", "0"]).expect(0);
    place.everpack("repo", &["check", "--read-data"]).expect(0);
    // The third night alone, complete: every row of its list is there, of the right bytes.
    place.everpack("repo", &["restore", id(2), &place.text("night")]).expect(0);
    check(&place, &place.path("night")).expect(0);
    for name in ["config", "hakeeper", "mo_meta", "tae/ckp", "tae/tae_list"] {
        assert!(same_tree(&data.join("framed/fs-incr-3").join(name), &place.path("night").join(name)), "{name}");
    }

    // A later one finds its base in the repository.
    let raw = data.join("framed/raw-full-3/x").to_str().unwrap().to_owned();
    place.everpack("repo", &["import", &raw]).expect(0);
}

#[test]
fn an_incremental_tree_finds_its_base_in_the_repository() {
    let Some(data) = captures("an_incremental_tree_finds_its_base_in_the_repository") else { return };
    let place = Place::new();
    place.everpack("repo", &["init"]).expect(0);
    let tree = |name: &str| data.join("framed").join(name).to_str().unwrap().to_owned();
    let refused = place.everpack("repo", &["import", &tree("fs-incr-2")]).expect(1);
    assert!(
        refused.err.contains("fs-incr-2") && refused.err.contains("builds on an earlier backup"),
        "{}",
        refused.err
    );
    assert!(place.everpack("repo", &["list"]).expect(0).out.lines().count() < 2, "nothing was stored as a backup");
    place.everpack("repo", &["import", &tree("fs-full-1")]).expect(0);
    let report = place.everpack("repo", &["--json", "import", &tree("fs-incr-2")]).expect(0).out;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["trees"][0]["from_repository"].as_u64().unwrap() > 0, "{report}");
    // Trees that were told what not to copy, and lists of what the asker promised.
    let report = place
        .everpack("repo", &["--json", "import", &tree("fs-idx-3"), &tree("fs-flist-3"), &tree("fs-full-2")])
        .expect(0)
        .out;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["trees"].as_array().unwrap().len(), 3);
    for tree in report["trees"].as_array().unwrap() {
        assert_eq!(tree["backup"]["problem_count"], 0, "{tree}");
    }
    place.everpack("repo", &["check", "--read-data"]).expect(0);
}

#[test]
fn damage_in_a_tree_stops_an_import_before_anything_is_stored() {
    let Some(data) = captures("damage_in_a_tree_stops_an_import_before_anything_is_stored") else { return };
    let place = Place::new();
    place.everpack("repo", &["init"]).expect(0);
    copy(&data.join("framed/fs-full-1"), &place.path("tree"));
    let list = place.path("tree/tae/tae_sum.sha256");
    let mut bytes = std::fs::read(&list).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&list, bytes).unwrap();
    let refused = place.everpack("repo", &["import", &place.text("tree")]).expect(1);
    assert!(refused.err.contains("tae_sum"), "{}", refused.err);
    std::fs::remove_file(place.path("tree/hakeeper/hk_data")).unwrap();
    let refused = place.everpack("repo", &["import", &place.text("tree")]).expect(1);
    assert!(refused.err.contains("hk_data"), "{}", refused.err);
    let refused = place.everpack("repo", &["import", &place.text("repo")]).expect(1);
    assert!(refused.err.contains("tae_list"), "{}", refused.err);
}

#[test]
fn a_line_of_another_tool_leads_to_its_tree() {
    let Some(data) = captures("a_line_of_another_tool_leads_to_its_tree") else { return };
    let place = Place::new();
    let id = "25536ff0-126f-11ef-9902-26dd28356ef3";
    std::fs::create_dir(place.path("b")).unwrap();
    copy(&data.join("framed/fs-full-1"), &place.path(&format!("b/full-{id}")));
    let line = format!("{id},586,filesystem,{},,,2024-05-15 11:56:44,1715745404915410000-1,full\n", place.text("b"));
    std::fs::write(place.path("mo_br.meta"), &line).unwrap();
    let list = place.run(&["list"]).expect(0).out;
    assert!(list.contains(id) && list.contains("1715745404915410000-1") && list.contains("full"), "{list}");
    let listed = place.run(&["list", id]).expect(0).out;
    assert!(listed.contains("\n\nChecking the backup data(currently,no checksum)...\n\ncheck: /mo_meta\n"), "{listed}");
    place.run(&["check", id]).expect(0);
    place.run(&["restore", id, "--restore_dir", "filesystem", "--restore_path", &place.text("matrixone")]).expect(0);
    // Later ones may build on it: everpack does not remove what it did not write.
    place.run(&["delete", id]).expect_error(&["another tool"]);
    place.run(&["delete", id, "--not_delete_data"]).expect(0);
    assert!(place.path(&format!("b/full-{id}/mo_meta")).is_file());
    assert_eq!(std::fs::read_to_string(place.path("mo_br.meta")).unwrap(), "");
}
