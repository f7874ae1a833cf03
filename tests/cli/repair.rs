//! Scrub by budget, and repair, as people run them.

use std::path::PathBuf;

use crate::support::{Place, same_tree};

fn flip_middle(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn objects(place: &Place, folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![place.path(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn scrubs_with_a_budget_add_up_and_stats_tell_their_age() {
    let place = Place::with_repository();
    place.run(&["backup", "source"]).expect(0);
    let stats = place.run(&["stats"]).expect(0).out;
    assert!(stats.contains("scrub          no pack was ever read"), "{stats}");
    let scrub = place.run(&["scrub", "--for", "1h", "--shard", "1/1"]).expect(0).out;
    assert!(scrub.contains("every pack was read within the last day"), "{scrub}");
    let again = place.json(&["scrub", "--older-than", "1d"]);
    assert_eq!((again["packs_read"].as_u64(), again["complete"].as_bool()), (Some(0), Some(true)));
    assert_eq!(again["scrub"]["never_read"], 0);
    assert!(place.run(&["stats"]).expect(0).out.contains("every pack was read within the last day"));
    place.run(&["stats", "--html", "page.html"]).expect(0);
    let page = std::fs::read_to_string(place.path("page.html")).unwrap();
    assert!(page.contains("every pack was read within the last day"));
    place.run(&["check", "--older-than", "1d"]).expect_error(1, &["--read-data"]);
    place.run(&["scrub", "--shard", "3/2"]).expect_error(1, &["3/2"]);
    place.run(&["scrub", "--older-than", "soon"]).expect_error(1, &["soon"]);
}

#[test]
fn damage_is_found_repaired_from_a_copy_and_gone() {
    let place = Place::with_repository();
    place.run(&["backup", "source"]).expect(0);
    place.run(&["repair"]).expect(0);
    copy(&place.path("repo"), &place.path("copy"));
    flip_middle(&objects(&place, "repo/packs")[0]);
    let found = place.run(&["scrub"]).expect(2).out;
    assert!(found.contains("ERROR") && found.contains("everpack") && found.contains("repair"), "{found}");
    place.run(&["check"]).expect(2);
    let dry = place.run(&["repair", "--from", "copy", "--dry-run"]).expect(0).out;
    assert!(dry.contains("1 object would be healed"), "{dry}");
    place.run(&["check"]).expect(2);
    let done = place.json(&["repair", "--from", "copy"]);
    assert_eq!((done["healed_count"].as_u64(), done["remaining_count"].as_u64()), (Some(1), Some(0)), "{done}");
    place.run(&["scrub"]).expect(0);
    place.run(&["restore", "latest", "out"]).expect(0);
    assert!(same_tree(&place.path("source"), &place.path("out")));
    let nothing = place.run(&["repair", "--read-data"]).expect(0).out;
    assert!(nothing.starts_with("nothing to repair"), "{nothing}");
}

#[test]
fn without_a_copy_the_next_backup_heals_what_a_repair_could_not() {
    let place = Place::with_repository();
    place.run(&["backup", "source"]).expect(0);
    for pack in objects(&place, "repo/packs") {
        flip_middle(&pack);
    }
    let left = place.run(&["repair", "--read-data"]).expect(2).out;
    assert!(left.contains("healed") && left.contains("remain"), "{left}");
    place.run(&["backup", "source"]).expect(0);
    place.run(&["scrub"]).expect(0);
    place.run(&["restore", "latest", "out"]).expect(0);
    assert!(same_tree(&place.path("source"), &place.path("out")));
}

#[test]
fn a_lost_log_entry_and_config_come_back_from_a_copy() {
    let place = Place::with_repository();
    place.run(&["backup", "source"]).expect(0);
    place.run(&["backup", "source"]).expect(0);
    copy(&place.path("repo"), &place.path("copy"));
    std::fs::remove_file(objects(&place, "repo/log")[1].clone()).unwrap();
    std::fs::remove_file(place.path("repo/config")).unwrap();
    place.run(&["list"]).expect(1);
    place.run(&["repair"]).expect(1);
    let dry = place.run(&["repair", "--from", "copy", "--dry-run"]).expect(2).out;
    assert!(dry.contains("log entry 2") && dry.contains("config"), "{dry}");
    place.run(&["list"]).expect(1);
    let healed = place.run(&["repair", "--from", "copy"]).expect(0).out;
    assert!(healed.contains("2 objects healed, nothing remains"), "{healed}");
    place.run(&["scrub"]).expect(0);
}

#[test]
fn ruins_become_a_repository() {
    let place = Place::with_repository();
    let id = place.json(&["backup", "source"])["id"].as_str().unwrap().to_owned();
    for folder in ["packs", "meta", "manifests"] {
        copy(&place.path(&format!("repo/{folder}")), &place.path(&format!("ruins/{folder}")));
    }
    let made = place.run(&["-r", "new", "repair", "--salvage", "ruins"]).expect(0).out;
    assert!(made.starts_with("made repository ") && made.contains("1 backup as they were"), "{made}");
    place.run(&["-r", "new", "restore", &id, "out"]).expect(0);
    assert!(same_tree(&place.path("source"), &place.path("out")));
    place.run(&["-r", "new", "scrub"]).expect(0);
    place.run(&["-r", "new", "repair", "--salvage", "ruins"]).expect_error(1, &["there is a repository already"]);
    place.run(&["-r", "x", "repair", "--salvage", "ruins", "--dry-run"]).expect_error(1, &["--salvage"]);
}
