//! Nightly scripts and operators: a full backup, an incremental on it, lists that are cut apart, restores, deletions.

use crate::support::{Place, login, server, words};

/// What a nightly script cuts out of the list: the third field of the line with the id.
fn size_of(list: &str, id: &str) -> String {
    let line = list.lines().find(|line| line.contains(id)).unwrap();
    line.split('|').nth(2).unwrap().trim().to_owned()
}

/// The id behind `Backup ID`.
fn id_of(out: &str) -> String {
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("Backup ID"), "{out}");
    let id = lines.next().unwrap().strip_prefix("    ").unwrap().to_owned();
    assert_eq!((id.len(), id.as_bytes()[14], lines.next()), (36, b'7', None), "{out}");
    id
}

#[test]
fn a_nightly_script_runs_unchanged() {
    let Some(server) = server("a_nightly_script_runs_unchanged") else { return };
    let place = Place::new();
    let login = login(&server);
    let meta = place.text("mo_br.meta");
    let backups = place.text("backups");

    // The first night: full. Options that are not used are passed as empty words.
    let to = ["--backup_dir", "filesystem", "--path", &backups, "--parallelism", "4", "--meta_path", &meta, "", ""];
    let full = id_of(&place.run(&words(&login, &["backup"], &to)).expect(0).out);

    // The second: the script finds the id of the last full one in the catalogue, and asks the list for its path.
    let last = place.shell(&format!("grep full {meta} | tail -n 1 | cut -d, -f1 | tr -d '\\n'")).expect(0).out;
    assert_eq!(last, full);
    let listed = place.run(&["--meta_path", &meta, "list", &full]).expect(0).out;
    let fifth: Vec<&str> = listed.lines().skip_while(|line| !line.contains(&full)).take(5).collect();
    let path = fifth.last().unwrap().split('|').nth(3).unwrap_or("").trim().to_owned();
    let to = [
        "--backup_dir",
        "filesystem",
        "--path",
        &path,
        "--meta_path",
        &meta,
        "--backup_type",
        "incremental",
        "--base_id",
        &last,
    ];
    let incremental = id_of(&place.run(&words(&login, &["backup"], &to)).expect(0).out);
    let last = place.shell(&format!("grep incremental {meta} | tail -n 1 | cut -d, -f1 | tr -d '\\n'")).expect(0).out;
    assert_eq!(last, incremental);

    let list = place.run(&["list", "--meta_path", &meta]).expect(0).out;
    let header = list.lines().nth(1).unwrap();
    let columns: Vec<&str> = header.split('|').map(str::trim).filter(|name| !name.is_empty()).collect();
    assert_eq!(columns, ["ID", "SIZE", "PATH", "AT TIME", "DURATION", "COMPLETE TIME", "BACKUPTS", "BACKUPTYPE"]);
    for id in [&full, &incremental] {
        let size = size_of(&list, id);
        assert!(size.ends_with(" kB") || size.ends_with(" MB"), "{size}");
        let line = list.lines().skip_while(|line| !line.contains(id.as_str())).nth(1).unwrap();
        assert_eq!(line.split('|').nth(3).unwrap().trim(), backups, "{list}");
    }
    assert!(list.contains("+0800"), "{list}");

    // What else callers look at.
    for (kind, id) in [("full", &full), ("incremental", &incremental)] {
        let top = place.path(&format!("backups/{kind}-{id}"));
        assert!(top.join("backup_meta").is_file() && top.join("mo_meta").is_file(), "{}", top.display());
        assert_eq!(std::fs::metadata(top.join("mo_meta.sha256")).unwrap().len(), 32);
        assert_eq!(std::fs::metadata(place.path(&format!("backups/{id}.meta.sha256"))).unwrap().len(), 32);
        let line = std::fs::read_to_string(place.path(&format!("backups/{id}.meta"))).unwrap();
        assert!(line.starts_with(&format!("{id},")) && line.contains(kind), "{line}");
    }

    // The base goes; what was built on it is complete all the same.
    place.run(&["delete", &full, "--meta_path", &meta]).expect(0);
    let list = place.run(&["list", "--meta_path", &meta]).expect(0).out;
    assert!(!list.contains(&full) && list.contains(&incremental), "{list}");
    assert!(!place.path(&format!("backups/full-{full}")).exists());
    let checked = place.run(&["check", &incremental, "--meta_path", &meta]).expect(0).out;
    assert!(checked.contains("\n\nChecking the backup data...\n\ncheck: /backup_meta\ncheck: /mo_meta\ncheck: hakeeper/hk_data\ncheck: tae/tae_list\ncheck: tae/tae_sum\ncheck: config/"), "{checked}");
    let target = place.text("matrixone");
    let restored = place.run(&[
        "restore",
        &incremental,
        "--restore_dir",
        "filesystem",
        "--restore_path",
        &target,
        "--meta_path",
        &meta,
    ]);
    let restored = restored.expect(0).out;
    let begin = format!(
        "From:\n    BackupDir: filesystem\n    Path: {backups}\n\nTo\n    BackupDir: filesystem\n    Path: {target}\n\nTaePath\n    ./mo-data/"
    );
    assert!(restored.starts_with(&begin), "{restored}");
    assert!(restored.contains("\nCopy hakeeper file 1\n    hakeeper/hk_data => mo-data/local/hk_data\n"), "{restored}");
    assert!(place.path("matrixone/mo-data/local/hk_data").is_file());
}

#[test]
fn an_operator_carries_the_line_of_a_backup_to_another_host() {
    let Some(server) = server("an_operator_carries_the_line_of_a_backup_to_another_host") else { return };
    let place = Place::new();
    let port = server.port();
    let backups = place.text("backups");
    // All flags with `=`; then the catalogue is printed, and the id is what stands before the first comma of the last line.
    let script = format!(
        "./mo_br backup --host=127.0.0.1 --port={port} --user=root --password=111 --backup_dir=filesystem --path={backups} --meta_path=meta \
         && cat meta"
    );
    let out = place.shell(&script).expect(0).out;
    let line = out.lines().last().unwrap();
    let id = line.split(',').next().unwrap();
    assert!(out.starts_with(&format!("Backup ID\n    {id}\n")), "{out}");

    // Elsewhere: the line is written again, its digest made by other tools.
    let script = format!(
        "mkdir new && cd new && echo '{line}' > mo_br.meta && sha256sum mo_br.meta | awk '{{printf $1}}' > mo_br.meta.sha256 \
         && ../mo_br restore {id} --restore_dir=filesystem --restore_path=../target"
    );
    place.shell(&script).expect(0);
    assert!(place.path("target/mo-data").is_dir());
}

#[test]
fn a_repository_of_its_own_takes_all_bytes() {
    let Some(server) = server("a_repository_of_its_own_takes_all_bytes") else { return };
    let place = Place::new();
    place.everpack("repo", &["init"]).expect(0);
    std::fs::write(place.path("mo_br.toml"), format!("repository = '{}'\n", place.text("repo"))).unwrap();
    let login = login(&server);
    let backups = place.text("backups");
    let id = id_of(
        &place.run(&words(&login, &["backup"], &["--backup_dir", "filesystem", "--path", &backups])).expect(0).out,
    );
    let mut names: Vec<String> =
        std::fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(
        names,
        [format!("{id}.meta"), format!("{id}.meta.sha256"), format!("full-{id}")],
        "nothing else is left there"
    );
    let listed = place.everpack("repo", &["list"]).expect(0).out;
    assert!(listed.contains(&format!("mo_br:{id}")) || listed.lines().count() >= 2, "{listed}");

    // Without the catalogue the backup is found by its id, and by its directory; the catalogue comes back from the repository.
    for name in ["mo_br.meta", "mo_br.meta.sha256"] {
        std::fs::remove_file(place.path(name)).unwrap();
    }
    place.run(&["list", &id]).expect(0);
    place.run(&["check", "--backup_dir", "filesystem", "--backup_path", &format!("{backups}/full-{id}")]).expect(0);
    let repaired = place.run(&["repair_index", "--backup_dir", "filesystem", "--path", &backups]).expect(0).out;
    assert!(repaired.contains("Repair File Index") && repaired.contains(&id), "{repaired}");
    let list = place.run(&["list"]).expect(0).out;
    assert!(list.contains(&id) && list.contains("full"), "{list}");
    let digest = std::fs::read_to_string(place.path("mo_br.meta.sha256")).unwrap();
    assert_eq!(digest.len(), 64);

    // Merging writes a tree that stands alone.
    let merged = place.run(&["merge", &id, "--target_path", &place.text("merged")]).expect(0).out;
    assert!(merged.contains("Backup Merge Summary") && merged.contains("Output Path:"), "{merged}");
    let path = merged.lines().find_map(|line| line.strip_prefix("Output Path:")).unwrap().trim();
    place.run(&["check", "--backup_dir", "filesystem", "--backup_path", path]).expect(0);

    // The line goes, the data stays; then all goes.
    place.run(&["delete", &id, "--not_delete_data"]).expect(0);
    place.run(&["check", &id]).expect(0);
    place.run(&["repair_index", "--path", &backups]).expect(0);
    place.run(&["delete", &id]).expect(0);
    place.run(&["list", &id]).expect_error(&[&id]);
}

#[test]
fn a_password_is_nowhere() {
    let Some(server) = crate::support::server_of("a_password_is_nowhere", |recording| {
        recording.password = "s3cr3t-pass".to_owned();
    }) else {
        return;
    };
    let place = Place::new();
    let port = server.port().to_string();
    let backups = place.text("backups");
    let mut words = vec!["backup", "--host", "127.0.0.1", "--port", &port, "--user", "root"];
    let to = ["--backup_dir", "filesystem", "--path", &backups, "--log_level", "debug"];
    // From the environment, and wrong on the command line.
    words.extend(to);
    let mut command = place.command("./mo_br", &words);
    command.env("EVERPACK_MO_PASSWORD", "s3cr3t-pass");
    let good = crate::support::ran(command).expect(0);
    words.extend(["--password", "another-s3cr3t"]);
    let bad = place.run(&words).expect_error(&["password"]);
    for ran in [good, bad] {
        assert!(!ran.out.contains("s3cr3t") && !ran.err.contains("s3cr3t"), "{ran:#?}");
    }
    let found = place.shell("grep -rl s3cr3t . --exclude-dir=home || true").expect(0).out;
    assert!(found.is_empty(), "{found}");
}

#[test]
fn the_process_list_shows_no_password() {
    let Some(server) = crate::support::server_of("the_process_list_shows_no_password", |recording| {
        recording.faults = vec![Some(crate::recorded::Fault::Slow(std::time::Duration::from_millis(20)))];
    }) else {
        return;
    };
    let place = Place::new();
    let login = login(&server);
    let to = ["--backup_dir", "filesystem", "--path", "b", "--password=111"];
    let mut child = place.command("./mo_br", &words(&login, &["backup"], &to)).spawn().unwrap();
    let line = format!("/proc/{}/cmdline", child.id());
    // Seen for a moment at the most: until the program has read its words.
    let mut hidden = false;
    while child.try_wait().unwrap().is_none() {
        let line = std::fs::read(&line).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        hidden |=
            words.contains(&&b"xxx"[..]) && words.contains(&&b"--password=xxx"[..]) && !words.contains(&&b"111"[..]);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(hidden);
}
