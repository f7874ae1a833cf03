//! Help texts are part of the product: they are committed in `help/` and compared. After a change on purpose:
//! `EVERPACK_BLESS=1 cargo test --test cli help`, then read the difference.

use std::path::Path;

use crate::support::Place;

const COMMANDS: &[&str] = &[
    "init",
    "backup",
    "import",
    "list",
    "show",
    "ls",
    "cat",
    "find",
    "diff",
    "restore",
    "verify",
    "check",
    "scrub",
    "repair",
    "forget",
    "unforget",
    "hold",
    "release",
    "prune",
    "replicate",
    "stats",
    "tae",
    "probe",
    "bench",
    "completions",
    "man",
];

fn compare(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help").join(format!("{name}.txt"));
    if std::env::var_os("EVERPACK_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert!(committed == text, "the help of {name} changed; now it is:\n{text}");
}

#[test]
fn help_texts_are_the_committed_ones() {
    let place = Place::new();
    compare("everpack", &place.run(&["--help"]).expect(0).out);
    for command in COMMANDS {
        compare(command, &place.run(&[command, "--help"]).expect(0).out);
    }
}

#[test]
fn every_command_is_explained_with_an_example() {
    let place = Place::new();
    let overview = place.run(&["--help"]).expect(0).out;
    for command in COMMANDS {
        assert!(overview.contains(&format!("\n  {command} ")), "{command} is not in the overview");
        let help = place.run(&[command, "--help"]).expect(0).out;
        let before_usage = help.split("Usage:").next().unwrap();
        assert!(
            before_usage.contains(&format!("\n  everpack {command}")) || before_usage.contains("\n  everpack -r"),
            "{help}"
        );
        let lines = before_usage.lines().count();
        assert!((3..=14).contains(&lines), "{command}: {lines} lines");
    }
    let listed = overview.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // mo_br explains itself in its own way, and help is what this is.
    assert_eq!(listed.count(), COMMANDS.len() + 2, "a command is not in this test");
}

/// What everybody types first.
#[test]
fn help_is_a_command_too() {
    let place = Place::new();
    assert_eq!(place.run(&["help"]).expect(0).out, place.run(&["--help"]).expect(0).out);
    assert_eq!(place.run(&["help", "backup"]).expect(0).out, place.run(&["backup", "--help"]).expect(0).out);
    place.run(&["help", "frobnicate"]).expect_error(1, &["frobnicate"]);
}

/// What needs no repository does not explain how a bucket is reached, and takes the options all the same.
#[test]
fn store_options_are_shown_where_there_is_a_store() {
    let place = Place::new();
    for command in ["tae", "bench", "completions", "man"] {
        let help = place.run(&[command, "--help"]).expect(0).out;
        assert!(!help.contains("--endpoint") && !help.contains("Store options"), "{help}");
    }
    assert!(place.run(&["list", "--help"]).expect(0).out.contains("--endpoint"));
    place.run(&["man", "--endpoint", "http://127.0.0.1:1"]).expect(0);
    place.run(&["--region", "here", "completions", "bash", "--allow-http"]).expect(0);
}

#[test]
fn completions_and_manual_pages_are_made() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let completions = place.run(&["completions", shell]).expect(0).out;
        assert!(completions.contains("one-file-system"), "{shell}");
    }
    std::fs::create_dir(place.path("man")).unwrap();
    place.run(&["man", "--dir", "man"]).expect(0);
    for page in ["everpack.1", "everpack-backup.1", "everpack-man.1"] {
        assert!(std::fs::read_to_string(place.path("man").join(page)).unwrap().contains(".TH"), "{page}");
    }
    assert!(place.run(&["man"]).expect(0).out.contains(".TH"));
    place.run(&["man", "--dir", "absent"]).expect_error(1, &["absent"]);
}
