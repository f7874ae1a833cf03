//! What goes wrong, and what is said then: nothing is half done, and nothing malformed reaches the server.

use crate::recorded::Fault;
use crate::support::{Place, login, server, server_of, words};

#[test]
fn the_program_explains_itself_by_any_name() {
    let place = Place::new();
    let help = place.run(&["--help"]).expect(0).out;
    assert!(
        help.starts_with(
            "the backup and restore tool for the matrixone\n\nUsage:\n  mo_br [flags]\n  mo_br [command]\n"
        ),
        "{help}"
    );
    assert_eq!(place.run(&[]).expect(0).out, help);
    assert_eq!(place.run(&["help"]).expect(0).out, help);
    assert_eq!(place.everpack("repo", &["mo_br", "--help"]).expect(0).out, help);
    let about = place.run(&["help", "snapshot", "create"]).expect(0).out;
    assert_eq!(place.run(&["snapshot", "create", "-h"]).expect(0).out, about);
    assert!(about.contains("Usage:\n  mo_br snapshot create [flags]\n"), "{about}");
    for shell in ["bash", "fish", "powershell", "zsh"] {
        assert!(place.run(&["completion", shell]).expect(0).out.contains("mo_br"), "{shell}");
    }
    place.shell("./mo_br completion bash > c && bash -n c").expect(0);
}

#[test]
fn a_wrong_line_is_told_as_cobra_tells_it() {
    let place = Place::new();
    let ran =
        place.run(&["list", "--x"]).expect_error(&["Error: unknown flag: --x\nUsage:\n  mo_br list [ID] [flags]\n"]);
    assert_eq!(ran.out, "");
    place.run(&["lisst"]).expect_error(&[
        "Error: unknown command \"lisst\" for \"mo_br\"\n\nDid you mean this?\n\tlist\n",
        "Run 'mo_br --help' for usage.",
    ]);
    place.run(&["backup", "--path"]).expect_error(&["Error: flag needs an argument: --path"]);
    place.run(&["restore"]).expect_error(&["--restore_path"]);
    place.run(&["check"]).expect_error(&["--backup_path"]);
    place.run(&["delete"]).expect_error(&["ID"]);
    place.run(&["backup", "--host", "h", "--backup_dir", "nfs"]).expect_error(&["nfs"]);
}

#[test]
fn nothing_wrong_reaches_the_server() {
    let Some(server) = server("nothing_wrong_reaches_the_server") else { return };
    let place = Place::new();
    let login = login(&server);
    let wrong = |back: &[&str], said: &[&str]| {
        let to = ["--backup_dir", "filesystem", "--path", "b"];
        place.run(&words(&login, &["backup"], &[&to, back].concat())).expect_error(said);
    };
    wrong(&["--backup_type", "incremental"], &["--base_id"]);
    wrong(&["--backup_type", "incremental", "--base_id", " xxx"], &["xxx", "mo_br list"]);
    wrong(&["--backup_type", "incremental", "--base_id", "018f7a41-1881-7999-bbd6-858c3d4acc18"], &["no such backup"]);
    wrong(&["--backup_type", "differential"], &["differential"]);
    wrong(&["--parallelism", "0"], &["1 to 511"]);
    std::fs::write(place.path("mo_br.meta"), "x,y\n").unwrap();
    std::fs::write(place.path("mo_br.meta.sha256"), "0".repeat(64)).unwrap();
    wrong(&[], &["mo_br.meta", "SHA-256", "repair_index"]);
    place.run(&["list"]).expect_error(&["SHA-256"]);
    assert!(server.all_statements().is_empty(), "{:?}", server.all_statements());
    assert!(!place.path("b").exists());
}

#[test]
fn a_faulty_server_never_yields_a_listed_backup() {
    let faults = [
        Fault::Killed,
        Fault::DiskFull,
        Fault::MissingHkData,
        Fault::Refuses { code: 20101, message: "internal error: not now".to_owned() },
    ];
    for fault in faults {
        let name = format!("{fault:?}");
        let Some(server) = server_of("a_faulty_server_never_yields_a_listed_backup", |recording| {
            recording.faults = vec![Some(fault.clone()); 5];
        }) else {
            return;
        };
        server.forgive_unknown();
        let place = Place::new();
        let login = login(&server);
        let ran = place.run(&words(&login, &["backup"], &["--backup_dir", "filesystem", "--path", "b"]));
        assert_eq!(ran.code, 1, "{name}: {ran:#?}");
        assert!(!ran.out.contains("Backup ID"), "{name}: {ran:#?}");
        let list = place.run(&["list"]).expect(0).out;
        assert_eq!(list.lines().count(), 4, "{name}: {list}");
    }
}
