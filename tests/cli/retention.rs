//! `forget`, `unforget`, `hold`, `release` as a user runs them.

use serde_json::Value;

use crate::support::{Place, same_tree, text};

/// Three backups of one lineage, one of another; their ids.
fn place() -> (Place, Vec<String>) {
    let place = Place::with_repository();
    let mut ids = Vec::new();
    for (n, lineage, tag) in [(1, "shop", "a"), (2, "shop", "gold"), (3, "shop", "a"), (4, "web", "a")] {
        place.write("source/a/one.txt", &text(40 + n, 30_000));
        let made = place.json(&["backup", "source", "--lineage", lineage, "--tag", tag]);
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    (place, ids)
}

fn listed(place: &Place, args: &[&str]) -> Vec<String> {
    let list = place.json(&[&["list"], args].concat());
    list.as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn rules_forget_and_say_why_the_others_stay() {
    let (place, ids) = place();
    let rules = ["forget", "--keep-last", "1", "--keep-tag", "gold", "--keep-within", "1h", "--lineage", "shop"];
    let kept = place.run(&[&rules[..], &["--dry-run"]].concat()).expect(0).out;
    assert!(kept.ends_with("would forget 0 backups, kept 3\n"), "{kept}");
    let rules = ["forget", "--keep-yearly", "1", "--keep-tag", "gold"];
    let told = place.run(&[&rules[..], &["--dry-run"]].concat()).expect(0).out;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("id            time") && lines[0].ends_with("lineage          why"), "{told}");
    for (line, (id, what)) in
        lines[1..5].iter().zip(ids.iter().zip(["forget", "keep    tag gold", "keep    yearly 2", "keep    yearly 2"]))
    {
        assert!(line.starts_with(&id[..12]) && line.contains(what), "{line}");
    }
    assert_eq!(lines[5..], ["", "would forget 1 backup, kept 3"]);
    assert_eq!(listed(&place, &[]), ids, "a dry run changes nothing");

    let done = place.run(&[&rules[..], &["--reason", "the night's rules"]].concat()).expect(0).out;
    assert!(done.contains("forgot 1 backup, kept 3\n  nothing is freed yet: `everpack prune`"), "{done}");
    assert_eq!(listed(&place, &[]), ids[1..]);
    let again = place.run(&rules).expect(0).out;
    assert!(again.ends_with("forgot 0 backups, kept 3\n"), "{again}");
    assert_eq!(place.run(&[&["-q"], &rules[..]].concat()).expect(0).out, "");
    place.run(&["scrub"]).expect(0);
}

#[test]
fn forget_prints_one_document() {
    let (place, ids) = place();
    let report = place.json(&["forget", "--keep-last", "2", "--dry-run"]);
    assert_eq!((&report["dry_run"], &report["entry"]), (&Value::Bool(true), &Value::Null));
    assert_eq!((&report["forgotten"], &report["kept"], &report["doubtful"]), (&1.into(), &3.into(), &0.into()));
    let first = &report["decisions"][0];
    assert_eq!((&first["id"], &first["forget"]), (&ids[0].as_str().into(), &true.into()));
    assert_eq!(first["lineage_name"], "shop");
    assert_eq!(report["decisions"][1]["kept_by"], serde_json::json!(["last 2"]));
    let report = place.json(&["forget", &ids[0]]);
    assert!(report["entry"].as_u64().unwrap() > 8, "{report}");
}

#[test]
fn what_was_forgotten_is_shown_and_comes_back() {
    let (place, ids) = place();
    let id = &ids[0][..8];
    place.run(&["forget", id, "latest:web"]).expect(0);
    assert_eq!(listed(&place, &[]), ids[1..3]);
    assert_eq!(listed(&place, &["--forgotten"]), [ids[0].as_str(), ids[3].as_str()]);
    assert!(place.json(&["list", "--forgotten"])[0]["forgotten"].is_u64());
    let list = place.run(&["list", "--forgotten", "--lineage", "web"]).expect(0).out;
    assert!(list.contains("a forgotten by log entry "), "{list}");
    place.run(&["restore", id, "out"]).expect_error(1, &[id, "none of that id"]);
    let again = place.run(&["forget", id]).expect(0).out;
    assert!(again.starts_with("forgot 0 backups") && again.contains("forgotten already"), "{again}");
    let back = place.run(&["unforget", id, &ids[3]]).expect(0).out;
    assert!(
        back.starts_with(&format!("backup {} is back\n", &ids[0][..12])) && back.contains("all of them are stored"),
        "{back}"
    );
    let again = place.run(&["unforget", id]).expect(0).out;
    assert!(again.contains("is not forgotten"), "{again}");
    assert_eq!(listed(&place, &[]), ids);
    place.run(&["restore", "latest:web", "out"]).expect(0);
    assert!(same_tree(&place.path("source"), &place.path("out")));
    assert_eq!(place.json(&["unforget", id])["backups"], serde_json::json!([]));
    place.run(&["check"]).expect(0);
}

#[test]
fn a_hold_is_shown_and_respected_until_it_is_released() {
    let (place, ids) = place();
    let id = &ids[0][..8];
    let held = place.run(&["hold", id, "--until", "2199-12-31"]).expect(0).out;
    assert_eq!(held, format!("backup {} is held until 2199-12-31 23:59:59 +00:00\n", &ids[0][..12]));
    place.run(&["forget", id]).expect_error(1, &["held until 2199-12-31", "everpack release"]);
    let told = place.run(&["forget", "--keep-last", "1"]).expect(0).out;
    assert!(told.contains("keep    held until 2199-12-31 23:59:59 +00:00"), "{told}");
    assert!(place.run(&["list"]).expect(0).out.contains("a held until 2199-12-31"));
    assert!(place.run(&["show", id]).expect(0).out.contains("hold      held until 2199-12-31"));
    assert_eq!(place.json(&["list"])[0]["held_until"], "2199-12-31T23:59:59.000Z");
    place.run(&["hold", id, "--until", "90d"]).expect_error(1, &["which is longer", "everpack release"]);
    assert_eq!(place.json(&["release", id])["backups"][0], ids[0].as_str());
    assert!(place.run(&["release", id]).expect(0).out.contains("was not held"));
    place.run(&["hold", id, "--until", "2001-01-01"]).expect_error(1, &["2001-01-01", "past"]);
    place.run(&["hold", id, "--until", "soon"]).expect_error(1, &["soon", "2033-12-31"]);
    place.run(&["hold", id]).expect_error(1, &["--until"]);
    let document = place.json(&["hold", id, "--until", "1y"]);
    assert!(document["until"].as_str().unwrap() > "2026" && document["entry"].is_u64(), "{document}");
}

#[test]
fn nothing_is_forgotten_by_a_slip() {
    let (place, ids) = place();
    place.run(&["forget"]).expect_error(1, &["say what to keep", "--keep-daily"]);
    place.run(&["forget", "--lineage", "shop"]).expect_error(1, &["say what to keep"]);
    place.run(&["forget", "--keep-last", "0"]).expect_error(1, &["--keep-last", "from 1"]);
    place.run(&["forget", "--keep-within", "30m"]).expect_error(1, &["--keep-within", "30d"]);
    place.run(&["forget", "--keep-tag", "typo"]).expect_error(1, &["none of the 3 backups", "shop", "--keep-none"]);
    place.run(&["forget", "--keep-none"]).expect_error(1, &["--lineage"]);
    place.run(&["forget", &ids[0], "--keep-last", "2"]).expect_error(1, &["cannot be used with"]);
    place.run(&["forget", "0000"]).expect_error(1, &["0000", "--forgotten"]);
    place.run(&["unforget"]).expect_error(1, &["<BACKUP>"]);
    let told = place.run(&["forget", "--keep-last", "1", "--lineage", "typo"]).expect(0).out;
    assert!(told.contains("no backup of lineage \"typo\""), "{told}");
    assert_eq!(listed(&place, &[]), ids);
    place.run(&["forget", "--keep-none", "--lineage", "web"]).expect(0);
    assert_eq!(listed(&place, &[]), ids[..3]);
}

#[test]
fn rules_may_stand_in_the_settings_and_named_backups_go_beside_them() {
    let (place, ids) = place();
    place.write("everpack.toml", b"[forget]\nkeep-last = 2\nkeep-tag = ['gold']\ngroup-by = 'lineage'\n");
    let report = place.json(&["forget", "--dry-run"]);
    assert_eq!(report["forgotten"], 1);
    assert_eq!(report["decisions"][1]["kept_by"], serde_json::json!(["last 2", "tag gold"]));
    let report = place.json(&["forget", "--keep-last", "1", "--dry-run"]);
    assert_eq!(report["forgotten"], 1, "the line beats the file, the tag stays: {report}");
    place.run(&["forget", &ids[2]]).expect(0);
    assert_eq!(listed(&place, &[]), [&ids[0][..], &ids[1], &ids[3]]);
    place.write("everpack.toml", b"[forget]\nkeep-last = 0\n");
    place.run(&["forget"]).expect_error(1, &["everpack.toml", "keep-last"]);
}

/// Rules in the settings and ids beside them: what is given on the line goes first, and nothing else is loosened.
#[test]
fn a_setting_gives_way_only_to_what_excludes_it() {
    let (place, _) = place();
    place.write("everpack.toml", b"quiet = true\n[forget]\nkeep-last = 1\n");
    assert_eq!(place.run(&["forget"]).expect(0).out, "");
    assert_eq!(listed(&place, &[]).len(), 2);
}

#[test]
fn a_reader_may_try_rules() {
    if rustix::process::geteuid().is_root() {
        everpack::testing::data::skip("a_reader_may_try_rules", "user", "root can write everywhere");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let (place, _) = place();
    let mode = |mode| std::fs::set_permissions(place.path("repo"), std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let told = place.run(&["forget", "--keep-last", "1", "--dry-run"]);
    mode(0o755);
    assert!(told.expect(0).out.contains("only this machine's clock was used"));
}
