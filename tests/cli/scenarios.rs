//! The main job from `init` to `restore`, and what goes wrong in it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::{Place, Ran, same_tree, text};

#[test]
fn two_backups_are_made_listed_and_restored() {
    let place = Place::with_repository();
    let first = place.json(&["backup", "source", "--tag", "one", "--lineage", "files"]);
    assert_eq!(first["files_new"], 3);
    assert_eq!(first["bytes_new"], 410_000);
    place.write("source/a/two.txt", &text(9, 50_000));
    std::fs::remove_file(place.path("source/b.bin")).unwrap();
    let report = place.run(&["backup", "source", "--lineage", "files"]).expect(0).out;
    assert!(report.contains("0 new, 1 changed, 1 unchanged, 1 removed"), "{report}");

    let list = place.run(&["list"]).expect(0).out;
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.starts_with("id            time"), "{list}");
    assert_eq!(place.json(&["list", "--tag", "one"]).as_array().unwrap().len(), 1);
    assert_eq!(place.json(&["list", "--lineage", "other"]).as_array().unwrap().len(), 0);

    let restored = place.run(&["restore", "latest:files", "out"]).expect(0).out;
    assert!(restored.starts_with("restored 2 files, 87.9 KiB; every byte verified"), "{restored}");
    assert!(same_tree(&place.path("source"), &place.path("out")));
    let id = first["id"].as_str().unwrap();
    place.run(&["restore", &id[..6], "old", "b.bin"]).expect(0);
    assert_eq!(std::fs::read(place.path("old/b.bin")).unwrap(), text(3, 300_000));
    let cat = place.run(&["cat", id, "a/two.txt"]).expect(0).out;
    assert_eq!(cat.as_bytes(), text(2, 70_000));
    let show = place.run(&["show", id]).expect(0).out;
    assert!(show.contains("lineage   files") && show.contains("tags      one"), "{show}");
}

#[test]
fn init_says_what_it_decided_and_never_twice() {
    let place = Place::new();
    let made = place.run(&["init", "--chunk-size", "64K"]).expect(0).out;
    assert!(made.starts_with("made repository ") && made.contains("64.0 KiB"), "{made}");
    place.run(&["init"]).expect_error(1, &["there is a repository already"]);
    let other = place.path("other").display().to_string();
    place.run(&["-r", &other, "init", "--encrypt"]).expect_error(1, &["--encrypt", "not in this release"]);
    assert!(!place.path("other/config").exists());
    for wrong in [["--chunk-size", "33K"], ["--chunk-size", "2M"], ["--pack-size", "1K"], ["--level", "20"]] {
        place.run(&["-r", &other, "init", wrong[0], wrong[1]]).expect_error(1, &[wrong[0], wrong[1]]);
    }
}

#[test]
fn what_is_not_there_is_said_in_two_lines() {
    let place = Place::new();
    let repo = place.path("repo").display().to_string();
    place.run(&["list"]).expect_error(1, &["init", &repo]);
    let place = Place::with_repository();
    place.run(&["restore", "latest", "out"]).expect_error(1, &["no backup"]);
    place.run(&["backup", "absent"]).expect_error(1, &["absent", "No such file"]);
    place.run(&["backup", "source"]).expect(0);
    place.run(&["show", "zz"]).expect_error(1, &["zz"]);
    place.run(&["show", "0000"]).expect_error(1, &["0000"]);
    place.run(&["cat", "latest", "nope"]).expect_error(1, &["nope"]);
    place.run(&["restore", "latest", "source"]).expect_error(1, &["not empty", "--delta"]);
    place.run(&["restore", "latest", "out", "--delete"]).expect_error(1, &["--delta"]);
    place.run(&["restore", "latest"]).expect_error(1, &["<TARGET>"]);
    place.run(&["frobnicate"]).expect_error(1, &["frobnicate"]);
    place.run(&["list", "-q", "-v"]).expect_error(1, &["--verbose"]);
    let bare = place.run(&[]).expect(1);
    assert!(bare.out.is_empty() && bare.err.contains("Usage: everpack"), "{bare:#?}");
}

#[test]
fn quiet_prints_what_was_asked_for_only() {
    let place = Place::with_repository();
    let ran = place.run(&["-q", "backup", "source"]).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    let ran = place.run(&["-q", "restore", "latest", "out"]).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    assert!(!place.run(&["-q", "list"]).expect(0).out.is_empty());
    place.run(&["-q", "list", "-r", "absent"]).expect_error(1, &["absent"]);
}

#[test]
fn json_is_one_document_and_progress_is_json_lines() {
    let place = Place::with_repository();
    let ran = place.run(&["--json", "backup", "source"]).expect(0);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["totals"]["bytes"], 410_000);
    let events: Vec<serde_json::Value> = ran.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["event"] == "begin" && event["phase"] == "backing-up"), "{events:?}");
    assert!(events.iter().any(|event| event["event"] == "end"), "{events:?}");
    let ran = place.run(&["backup", "source"]).expect(0);
    assert_eq!(ran.err, "", "no progress without a terminal");
}

#[test]
fn files_that_cannot_be_read_make_it_partial_if_allowed() {
    if rustix::process::geteuid().is_root() {
        let why = "root can read every file";
        everpack::testing::data::skip("files_that_cannot_be_read_make_it_partial_if_allowed", "user", why);
        return;
    }
    let place = Place::with_repository();
    let file = place.path("source/b.bin");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o0)).unwrap();
    place.run(&["backup", "source"]).expect_error(1, &["b.bin", "--allow-partial"]);
    let ran = place.run(&["backup", "source", "--allow-partial"]).expect(3);
    assert!(ran.out.contains("PARTIAL") && ran.out.contains("b.bin"), "{ran:#?}");
    assert!(place.run(&["list"]).expect(0).out.contains("PARTIAL"));
    assert!(place.run(&["show", "latest"]).expect(0).out.contains("PARTIAL   files that could not be read"));
    let restored = place.run(&["restore", "latest", "out"]).expect(0).out;
    assert!(restored.contains("note: the backup is PARTIAL"), "{restored}");
    let restored = place.json(&["restore", "latest", "again"]);
    assert!(restored["remarks"][0].as_str().unwrap().contains("PARTIAL"), "{restored}");
}

#[test]
fn metrics_are_written_whole() {
    let place = Place::with_repository();
    place.run(&["--metrics", "everpack.prom", "backup", "source", "--lineage", "files"]).expect(0);
    let metrics = std::fs::read_to_string(place.path("everpack.prom")).unwrap();
    for line in ["# TYPE everpack_backup_files gauge", "lineage=\"files\"} 3", "everpack_backup_end_time_seconds{"] {
        assert!(metrics.contains(line), "no {line:?} in {metrics}");
    }
    place
        .run(&["--metrics", "absent/x.prom", "backup", "source"])
        .expect_error(1, &["is complete, but", "absent/x.prom"]);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let place = Place::with_repository();
    place.write("source/large.bin", &text(5, 3 << 20));
    place.run(&["backup", "source"]).expect(0);
    let mut child = place.command(&["cat", "latest", "large.bin"]).spawn().unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    // The pipe is closed here, with megabytes to come.
    let ran = Ran::from(child.wait_with_output().unwrap()).expect(0);
    assert_eq!(ran.err, "");
}

#[test]
fn a_full_standard_output_is_an_error() {
    let place = Place::with_repository();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::from(place.command(&["list"]).stdout(Stdio::from(full)).output().unwrap());
    ran.expect_error(1, &["standard output"]);
}

#[test]
fn names_that_cannot_be_printed_are_escaped_and_taken() {
    let place = Place::with_repository();
    let name = std::ffi::OsStr::from_bytes(b"evil\x1b[31m\xff\n");
    std::fs::write(place.path("source").join(name), b"content").unwrap();
    place.run(&["backup", "source"]).expect(0);
    let ran = place.command(&["cat", "latest"]).arg(name).output().unwrap();
    assert_eq!(ran.stdout, b"content");
    let mut missing = place.command(&["cat", "latest"]);
    let missing = Ran::from(missing.arg(std::ffi::OsStr::from_bytes(b"no\x1b\n")).output().unwrap());
    missing.expect_error(1, &["\\x1b\\x0a"]);
}

/// Reads the progress of a `--json backup` until it has registered and reads its source; gives the rest of it.
fn wait_until_it_backs_up(child: &mut std::process::Child) -> BufReader<std::process::ChildStderr> {
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("backing-up") {
        line.clear();
        assert!(err.read_line(&mut line).unwrap() > 0, "it ended before it began");
    }
    err
}

/// A first signal stops at a safe point: nothing is listed, and the same command goes on from what was stored.
#[test]
fn a_signal_stops_cleanly() {
    let place = Place::with_repository();
    for file in 0..40 {
        place.write(&format!("source/more/{file}"), &text(100 + file, 4 << 20));
    }
    let mut child = place.command(&["--json", "backup", "source"]).spawn().unwrap();
    let mut err = wait_until_it_backs_up(&mut child);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let mut rest = String::new();
    err.read_to_string(&mut rest).unwrap();
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(1), "{rest}");
    assert!(rest.contains("stopped on request"), "{rest}");
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 0);
    place.run(&["backup", "source"]).expect(0);
}

#[test]
fn a_running_backup_of_the_same_lineage_is_busy() {
    let place = Place::with_repository();
    for file in 0..40 {
        place.write(&format!("source/more/{file}"), &text(200 + file, 4 << 20));
    }
    let mut child = place.command(&["--json", "backup", "source"]).spawn().unwrap();
    // Kept open: the child still writes to it.
    let _err = wait_until_it_backs_up(&mut child);
    let second = place.run(&["backup", "source"]);
    child.kill().unwrap();
    child.wait().unwrap();
    second.expect_error(4, &["--takeover"]);
    // The dead one is noticed: same host, and its process is gone.
    place.run(&["backup", "source", "--exclude", "more"]).expect(0);
}

/// Files anywhere below a directory that is being filled by another process.
fn files_below(top: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(top) else { return 0 };
    let count = |entry: std::fs::DirEntry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 };
    entries.flatten().map(count).sum()
}

/// `kill -9` as soon as `there` holds `count` files, or at the process's own end.
fn kill_when(mut child: std::process::Child, there: &std::path::Path, count: usize) {
    while files_below(there) < count && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    // A process that has ended by itself cannot be killed: then it was faster, and what follows must hold all the same.
    let _killed = child.kill();
    child.wait().unwrap();
}

/// Killed at any moment: what is listed is whole, the next run goes on, and a check finds nothing.
#[test]
fn kill_nine_in_the_middle_of_backups_and_restores_loses_nothing() {
    let place = Place::new();
    place.run(&["init", "--pack-size", "1M"]).expect(0);
    for file in 0..60 {
        place.write(&format!("source/{file}"), &text(300 + file, 1 << 20));
    }
    for packs in [0, 1, 5, 12] {
        kill_when(place.command(&["backup", "source"]).spawn().unwrap(), &place.path("repo/packs"), packs);
        place.run(&["check", "--read-data"]).expect(0);
    }
    place.run(&["backup", "source"]).expect(0);
    place.run(&["scrub"]).expect(0);
    for files in [0, 1, 10, 30] {
        let target = place.path("target");
        let restore = place.command(&["restore", "latest", "target", "--delta"]).spawn().unwrap();
        kill_when(restore, &target, files);
        for entry in std::fs::read_dir(&target).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !name.to_string_lossy().starts_with('.') {
                let expected = std::fs::read(place.path("source").join(&name)).unwrap();
                assert!(std::fs::read(entry.path()).unwrap() == expected, "{name:?} looks complete and is not");
            }
        }
    }
    place.run(&["restore", "latest", "target", "--delta"]).expect(0);
    assert!(same_tree(&place.path("source"), &place.path("target")));
    place.run(&["check", "--read-data"]).expect(0);
}

#[test]
fn backups_are_searched_compared_and_counted() {
    let place = Place::with_repository();
    let first = place.json(&["backup", "source", "--lineage", "files"]);
    place.write("source/a/two.txt", &text(9, 50_000));
    place.write("source/new.txt", b"new");
    std::fs::remove_file(place.path("source/b.bin")).unwrap();
    place.run(&["backup", "source", "--lineage", "files"]).expect(0);
    let id = first["id"].as_str().unwrap();
    assert_eq!(place.run(&["ls", "latest"]).expect(0).out, "a/\nnew.txt\n");
    assert_eq!(place.run(&["ls", id, "-R"]).expect(0).out, "a/\na/one.txt\na/two.txt\nb.bin\n");
    assert!(place.run(&["ls", id, "a", "-l"]).expect(0).out.contains("-rw"));
    place.run(&["ls", id, "absent"]).expect_error(1, &["absent"]);
    assert_eq!(place.json(&["find", "*.txt"]).as_array().unwrap().len(), 4, "one.txt, two.txt twice, new.txt");
    let diff = place.run(&["diff", id, "latest"]).expect(0).out;
    for line in ["~ a/two.txt  68.4 KiB -> 48.8 KiB", "- b.bin  293 KiB", "+ new.txt  3 B", "1 added, 1 removed, "] {
        assert!(diff.contains(line), "no {line:?} in {diff}");
    }
    let stats = place.json(&["stats", "--html", "page.html"]);
    assert_eq!((&stats["backups"], &stats["lineages"][0]["backups"]), (&2.into(), &2.into()));
    assert!(std::fs::read_to_string(place.path("page.html")).unwrap().contains("</html>"));
    assert!(place.run(&["probe"]).expect(0).out.contains("for any number of writers"));
}

#[test]
fn damage_is_found_and_named() {
    let place = Place::with_repository();
    place.run(&["backup", "source"]).expect(0);
    assert!(place.run(&["check"]).expect(0).out.contains("no findings"));
    assert!(place.run(&["scrub", "--part", "1/1"]).expect(0).out.contains("no findings"));
    let folder = std::fs::read_dir(place.path("repo/packs")).unwrap().next().unwrap().unwrap().path();
    let pack = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[5000] ^= 1;
    std::fs::set_permissions(&pack, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    place.run(&["check"]).expect(0);
    let found = place.run(&["check", "--read-data"]).expect(2).out;
    assert!(found.contains("1 finding\n") && found.contains("ERROR"), "{found}");
    let restored = place.run(&["restore", "latest", "out"]).expect(2).out;
    assert!(restored.contains("NOT restored, because damaged: 1 file"), "{restored}");
}

#[test]
fn a_file_that_is_no_object_is_named() {
    let place = Place::with_repository();
    place.run(&["tae", "source/b.bin"]).expect_error(1, &["b.bin", "not a TAE object"]);
    place.run(&["tae", "source"]).expect_error(1, &["not a regular file"]);
    place.write("empty", b"");
    place.run(&["tae", "empty"]).expect_error(1, &["not a TAE object"]);
}

#[test]
fn an_object_is_shown_and_damage_is_found() {
    use everpack::testing::tae_writer::{TaeOptions, TaeWriter, Vector, object_name};
    let place = Place::new();
    let mut writer = TaeWriter::new(TaeOptions::new(object_name(7, 1_700_000_000_000, 0)));
    let mut columns = [Vector::new(23).unwrap(), Vector::new(61).unwrap()];
    for row in 0..500u64 {
        columns[0].push_fixed(row.to_le_bytes());
        columns[1].push_bytes(format!("customer number {row} of all customers").as_bytes());
    }
    writer.push_block(&columns, Vec::new()).unwrap();
    let mut bytes = writer.finish().unwrap().bytes;
    place.write("object", &bytes);
    let shown = place.run(&["tae", "object", "--extents"]).expect(0).out;
    assert!(
        shown.contains("rows     500 in 1 block") && shown.contains("int64") && shown.contains("object meta"),
        "{shown}"
    );
    let document = place.json(&["tae", "object", "--validate", "decode"]);
    assert_eq!(document["object"]["rows"], 500);
    assert_eq!(document["framing"], "none");
    // The second half of the first column: offsets that reach before its start.
    let at = 64 + usize::try_from(document["object"]["columns"][0]["stored_bytes"].as_u64().unwrap()).unwrap() / 2;
    bytes[at..at + 40].fill(0xff);
    place.write("object", &bytes);
    let damaged = place.run(&["tae", "object"]).expect(2).out;
    assert!(damaged.contains("DAMAGED: block 0, column 0"), "{damaged}");
}

#[test]
fn a_machine_is_measured() {
    let place = Place::new();
    let report = place.json(&["bench", "--dir", "."]);
    for figure in ["hash", "cut", "walk", "encode", "decode", "disk_write", "disk_read"] {
        assert!(report[figure].as_u64().unwrap() > 0, "{figure}: {report}");
    }
    assert!(report["first_backup"]["rate"].as_u64().unwrap() > 0);
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_replica_is_pushed_pulled_and_proved() {
    let place = Place::with_repository();
    let first = place.json(&["backup", "source", "--lineage", "files", "--tag", "keep"]);
    let id = first["id"].as_str().unwrap();
    let replica = place.path("replica").display().to_string();

    let dry = place.run(&["replicate", &replica, "--dry-run"]).expect(0).out;
    assert!(dry.starts_with("would make a replica there and send 1 backup"), "{dry}");
    assert!(!place.path("replica").exists());
    place.run(&["replicate", &replica, "--prove"]).expect_error(1, &["replica"]);
    let pushed = place.run(&["replicate", &replica]).expect(0).out;
    assert!(pushed.starts_with("sent 1 backup to ") && pushed.contains("made repository "), "{pushed}");
    let again = place.json(&["replicate", &replica]);
    assert_eq!((&again["present"], &again["packs"]), (&1.into(), &0.into()));
    let proof = place.run(&["replicate", &replica, "--prove"]).expect(0).out;
    assert!(proof.starts_with("equal: ") && proof.contains("chunks"), "{proof}");

    place.write("source/more", &text(7, 200_000));
    place.run(&["backup", "source", "--lineage", "files"]).expect(0);
    let proof = place.run(&["replicate", &replica, "--prove"]).expect(2).out;
    assert!(proof.starts_with("NOT equal: ") && proof.contains("only at the origin: "), "{proof}");
    let repo = place.path("repo").display().to_string();
    let tagged = place.json(&["-r", &replica, "replicate", "--from", &repo, "--tag", "keep"]);
    assert_eq!((tagged["sent"].as_array().unwrap().len(), &tagged["present"]), (0, &1.into()));
    let pulled = place.json(&["-r", &replica, "replicate", "--from", &repo, "latest:files", "--since", "1d"]);
    assert_eq!(pulled["sent"].as_array().unwrap().len(), 1);
    assert_eq!(place.json(&["replicate", &replica, "--prove"])["equal"], true);

    // The origin is gone.
    std::fs::remove_dir_all(&repo).unwrap();
    place.run(&["-r", &replica, "restore", "latest", "out"]).expect(0);
    assert!(same_tree(&place.path("source"), &place.path("out")));
    place.run(&["-r", &replica, "restore", id, "old"]).expect(0);
    place.run(&["-r", &replica, "scrub"]).expect(0);
}

#[test]
fn replicate_says_what_it_cannot_do() {
    let place = Place::with_repository();
    place.run(&["backup", "source"]).expect(0);
    place.run(&["replicate"]).expect_error(1, &["where to", "--from"]);
    place.run(&["replicate", "--from", "absent"]).expect_error(1, &["absent"]);
    let repo = place.path("repo").display().to_string();
    place.run(&["replicate", &repo]).expect_error(1, &["plain copy"]);
    let other = place.path("other").display().to_string();
    place.run(&["-r", &other, "init"]).expect(0);
    place.run(&["replicate", &other]).expect_error(1, &["family", "empty place"]);
    place.run(&["replicate", &other, "abcd"]).expect_error(1, &["abcd"]);
    for wrong in [["--shard", "3/2"], ["--limit-rate", "0"], ["--since", "soon"], ["--last", "0"]] {
        place.run(&["replicate", &other, wrong[0], wrong[1]]).expect_error(1, &[wrong[0], wrong[1]]);
    }

    // A damaged pack is a finding, and whoever watches a number learns of it.
    let packs = std::fs::read_dir(place.path("repo/packs")).unwrap();
    let pack =
        packs.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap()).next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let replica = place.path("replica").display().to_string();
    let ran = place.run(&["replicate", &replica, "--metrics", "m.prom"]).expect(2);
    assert!(ran.out.contains("NOT sent") && ran.out.contains("finding: pack "), "{ran:#?}");
    let metrics = std::fs::read_to_string(place.path("m.prom")).unwrap();
    assert!(
        metrics.contains("everpack_replicate_findings") && metrics.contains("everpack_replicate_complete"),
        "{metrics}"
    );
}
