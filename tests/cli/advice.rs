//! What an error says to do next, and exit codes where the output is lost or somebody stops the work.

use std::process::Stdio;

use crate::support::{Place, Ran, flip_middle, same_tree, text};

/// A second line that says this and not that.
#[track_caller]
fn advised(ran: Ran, says: &[&str], never: &[&str]) {
    let ran = ran.expect_error(1, &[]);
    let advice = ran.err.lines().nth(1).unwrap();
    for word in says {
        assert!(advice.contains(word), "no {word:?} in {advice:?}: {}", ran.err);
    }
    for word in never {
        assert!(!advice.contains(word), "{word:?} in {advice:?}: {}", ran.err);
    }
}

fn with_backup() -> Place {
    let place = Place::with_repository();
    place.run(&["backup", "source", "--lineage", "files"]).expect(0);
    place
}

/// `everpack check | true` in a cron job must not turn damage into success.
#[test]
fn a_closed_pipe_does_not_hide_the_outcome() {
    let place = with_backup();
    place.run_unread(&["list"]).expect(0);
    place.run_unread(&["check", "--json"]).expect(0);
    for pack in place.objects("packs") {
        flip_middle(&pack);
    }
    assert_eq!(place.run_unread(&["check", "--read-data"]).expect(2).err, "");
    place.run_unread(&["--json", "scrub"]).expect(2);
    assert_eq!(place.run_unread(&["restore", "latest", "out"]).expect(2).err, "");
    assert!(place.path("out").exists());
    place.run_unread(&["list", "-r", "absent"]).expect_error(1, &["absent"]);
    place.run_unread(&["ls", "latest", "absent"]).expect_error(1, &["absent"]);
    place.run_unread(&["mo_br", "frobnicate"]).expect(1);
}

#[test]
fn a_full_standard_output_does_not_hide_a_backup() {
    let place = Place::with_repository();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::from(place.command(&["backup", "source"]).stdout(Stdio::from(full)).output().unwrap());
    let listed = place.json(&["list"]);
    let id = listed[0]["id"].as_str().expect("it was committed");
    let ran = ran.expect_error(1, &[&id[..12], "is complete, but", "standard output"]);
    assert!(!ran.err.contains("repository"), "the repository is not full: {}", ran.err);
}

#[test]
fn what_is_not_on_this_machine_is_not_looked_for_in_the_repository() {
    let place = with_backup();
    for line in [
        &["backup", "nosuch"][..],
        &["tae", "nosuch"],
        &["man", "--dir", "nosuch"],
        &["stats", "--html", "nosuch/page.html"],
        &["backup", "source", "--metrics", "nosuch/x.prom"],
        &["repair", "--from", "nosuch"],
        &["import", "nosuch"],
    ] {
        advised(place.run(line), &[], &["everpack list", "EVERPACK_REPO"]);
    }
    advised(place.run(&["show", "0000"]), &["everpack list"], &[]);
    advised(place.run(&["list", "-r", "nosuch"]), &["EVERPACK_REPO"], &["everpack list"]);
}

#[test]
fn damage_is_not_taken_for_a_wrong_name() {
    let place = with_backup();
    let manifest = place.objects("manifests").remove(0);
    let stored = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    for line in [&["restore", "latest", "out"][..], &["ls", "latest"], &["cat", "latest", "b.bin"], &["show", "latest"]]
    {
        advised(place.run(line), &["everpack check", "repair --from"], &["Check the name"]);
    }
    assert!(!place.path("out").exists());
    std::fs::write(&manifest, stored).unwrap();

    let config = place.path("repo/config");
    let whole = std::fs::read(&config).unwrap();
    flip_middle(&config);
    advised(place.run(&["list"]), &["repair --from COPY", "repair --salvage OLD"], &[]);
    std::fs::write(&config, whole).unwrap();
    flip_middle(place.objects("log").last().unwrap());
    advised(place.run(&["restore", "latest", "out"]), &["repair --from COPY", "repair --salvage OLD"], &["--delta"]);
}

#[test]
fn a_restore_that_was_stopped_goes_on_as_it_says() {
    let place = Place::new();
    place.run(&["init", "--pack-size", "1M"]).expect(0);
    for file in 0..40 {
        place.write(&format!("source/more/{file}"), &text(100 + file, 4 << 20));
    }
    place.run(&["backup", "source"]).expect(0);
    let ran = place.run_stopped_at("\"restoring\"", &["restore", "latest", "out"]).expect(1);
    assert!(ran.err.contains("--delta") && !ran.err.contains("sent twice"), "{}", ran.err);
    place.run(&["restore", "latest", "out", "--delta"]).expect(0);
    assert!(same_tree(&place.path("source"), &place.path("out")));

    let ran = place.run_stopped_at("\"scrubbing\"", &["scrub"]).expect(3);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["complete"], false);
    place.run(&["scrub"]).expect(0);
}

#[test]
fn what_is_not_in_the_backup_is_named() {
    let place = with_backup();
    let ran = place.run(&["restore", "latest", "some", "a/one.txt", "b/*x", "nosuch"]).expect(3);
    assert!(ran.out.starts_with("restored 1 file, "), "{}", ran.out);
    for name in ["b/*x", "nosuch"] {
        assert!(ran.out.contains(&format!("note: the backup holds nothing at {name}")), "{}", ran.out);
    }
    assert!(!ran.out.contains("nothing at a/one.txt"), "{}", ran.out);
    let ran = place.run(&["--json", "restore", "latest", "more", "--glob", "*.txt", "--glob", "*.ckp"]).expect(3);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&report["files"], report["remarks"].as_array().unwrap().len()), (&2.into(), 1), "{report}");
    // Both of these are there, one below the other.
    place.run(&["restore", "latest", "nested", "a", "a/one.txt"]).expect(0);
    place.run(&["restore", "latest", "none", "nosuch"]).expect_error(1, &["nosuch"]);
    place.run(&["restore", "latest", "none", "--glob", "*.ckp"]).expect_error(1, &["*.ckp"]);
    assert!(!place.path("none").exists(), "nothing was made");
}

#[test]
fn a_damaged_list_of_files_is_told_at_its_size() {
    let place = with_backup();
    for pack in place.objects("meta") {
        flip_middle(&pack);
    }
    let ran = place.run(&["restore", "latest", "out"]).expect(2).out;
    assert!(ran.starts_with("restored 0 files, 0 B\n"), "{ran}");
    assert!(ran.contains("NOT restored, because damaged: 4 entries of the list of files\n"), "{ran}");
    assert!(ran.contains("4 entries, from a/ to the end: "), "{ran}");
    let ran = place.run(&["--json", "restore", "latest", "again"]).expect(2).out;
    let report: serde_json::Value = serde_json::from_str(&ran).unwrap();
    assert_eq!(report["damaged_count"], 4, "{report}");
}

#[test]
fn half_written_files_are_named_as_they_are() {
    let place = with_backup();
    let entry = place.objects("log").remove(0);
    let half = format!("{}#1", entry.file_name().unwrap().to_str().unwrap());
    std::fs::write(entry.with_file_name(&half), b"half").unwrap();
    let found = place.run(&["check"]).expect(0).out;
    assert!(found.contains(&format!("log/{half}")) && found.contains("everpack prune"), "{found}");
    assert!(found.contains("1 object ("), "{found}");
    assert!(found.lines().all(|line| line.chars().count() <= 100), "{found}");
}

#[test]
fn findings_in_a_mail_have_short_lines() {
    let place = with_backup();
    for pack in place.objects("packs") {
        flip_middle(&pack);
    }
    let found = place.run(&["scrub"]).expect(2).out;
    assert!(found.contains("ERROR  ") && found.contains("  heals by: "), "{found}");
    assert!(found.lines().all(|line| line.chars().count() <= 100), "{found}");
    let left = place.run(&["repair"]).expect(2).out;
    assert!(left.lines().all(|line| line.chars().count() <= 100), "{left}");
}

#[test]
fn wrong_lines_are_told_in_full_sentences() {
    let place = with_backup();
    let ran = place.run(&["list", "--lineag"]).expect_error(1, &["found; tip: a similar argument"]);
    assert!(ran.err.lines().next().unwrap().ends_with('\''), "{}", ran.err);
    for line in
        [&["backup", "source", "--lineage="][..], &["backup", "source", "--tag", ""], &["list", "--lineage", " "]]
    {
        place.run(line).expect_error(1, &[]);
    }
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 1);
    assert_eq!(place.run(&["--json", "ls", "latest", "nosuch"]).out, "", "no half of a document");
    assert_eq!(place.run(&["--json", "find", "nosuch"]).expect(0).out, "[]\n");
    place.run(&["init", "-r", "other", "--encrypt"]).expect_error(1, &["--encrypt", "--help"]);
}

#[test]
fn what_stays_is_counted_where_backups_are_named() {
    let place = with_backup();
    place.run(&["backup", "source", "--lineage", "other"]).expect(0);
    let forgot = place.run(&["forget", "latest:other"]).expect(0).out;
    assert!(forgot.contains("forgot 1 backup, 1 left in the list\n"), "{forgot}");
}
