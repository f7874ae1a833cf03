//! Which of command line, environment and file wins, and what a wrong file says.

use crate::support::Place;

#[test]
fn the_command_line_beats_the_environment_beats_the_file() {
    let place = Place::new();
    let at = |name: &str| place.path(name).display().to_string();
    place.write("everpack.toml", format!("repo = '{}'\n[init]\npack-size = '4M'", at("by-file")).as_bytes());
    let mut command = place.command(&["init", "--json"]);
    let made = command.env_remove("EVERPACK_REPO").output().unwrap();
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(made["pack_size"], 4 << 20);
    assert!(place.path("by-file/config").exists());
    place.run(&["init"]).expect(0);
    assert!(place.path("repo/config").exists(), "the environment names it");
    let other = at("by-line");
    let made = place.json(&["init", "-r", &other, "--pack-size", "8M"]);
    assert_eq!(made["pack_size"], 8 << 20);
    assert!(place.path("by-line/config").exists());
}

#[test]
fn tags_and_flags_come_from_a_commands_table() {
    let place = Place::with_repository();
    place.write("settings.toml", b"quiet = true\n[backup]\ntag = ['nightly', 'shop']\nexclude = ['*.bin']\n");
    let ran = place.run(&["--config", "settings.toml", "backup", "source"]).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "quiet");
    let list = place.json(&["list"]);
    assert_eq!(list[0]["tags"], serde_json::json!(["nightly", "shop"]));
    assert_eq!(list[0]["totals"]["files"], 2);
}

#[test]
fn a_wrong_file_is_refused_by_name() {
    let place = Place::new();
    for (file, words) in [
        ("memroy = '1G'", ["bad.toml", "memroy"]),
        ("memory = 'lots'", ["bad.toml", "lots"]),
        ("memory = ", ["bad.toml", "expected"]),
        ("[backup]\nlevel = 3", ["bad.toml", "backup.level"]),
    ] {
        place.write("bad.toml", file.as_bytes());
        place.run(&["--config", "bad.toml", "list"]).expect_error(1, &words);
    }
    place.run(&["--config", "absent.toml", "list"]).expect_error(1, &["absent.toml"]);
    place.run(&["--config", "absent.toml", "list", "--help"]).expect(0);
}
