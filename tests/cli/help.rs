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
    // mo_br explains itself in its own way.
    assert_eq!(listed.count(), COMMANDS.len() + 1, "a command is not in this test");
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
