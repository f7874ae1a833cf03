//! Snapshots and points in time: what is sent, and how it looks.

use crate::support::{Place, login, server, words};

#[test]
fn snapshots_are_made_shown_restored_and_dropped() {
    let Some(server) = server("snapshots_are_made_shown_restored_and_dropped") else { return };
    let place = Place::new();
    let login = login(&server);
    let silent = |words: &[&str]| {
        let ran = place.run(words).expect(0);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "{words:?}");
    };
    let line = |verb: &str, back: &[&str]| {
        let line = words(&login, &["snapshot", verb], back);
        silent(&line);
    };
    line("create", &["--level", "cluster", "--sname", "sn_cluster"]);
    line("create", &["--level", "account", "--account", "a1", "--sname", "sn_acc"]);
    line("restore", &["--sname", "sn_acc", "--account", "a1"]);
    line("restore", &["--sname", "sn_acc_sys", "--account", "sys", "--db", "shop"]);
    line("restore", &["--sname", "sn_tab", "--account", "sys", "--db", "shop", "--table", "orders"]);
    line("restore", &["--sname", "sc2"]);
    line("drop", &["--sname", "sn_tab3"]);
    let asked: Vec<String> = server.statements().iter().map(|sql| sql.replace('`', "").to_lowercase()).collect();
    let wanted = [
        "create snapshot sn_cluster for cluster",
        "create snapshot sn_acc for account a1",
        "restore account a1 {snapshot = sn_acc}",
        "restore database sys.shop {snapshot = sn_acc_sys}",
        "restore table sys.shop.orders {snapshot = sn_tab}",
        "restore cluster {snapshot = sc2}",
        "drop snapshot sn_tab3",
    ];
    assert_eq!(asked, wanted);

    let shown = place.run(&words(&login, &["snapshot", "show"], &["--cluster", "sys"])).expect(0).out;
    let mut lines = shown.lines();
    let header = lines.next().unwrap();
    assert!(header.starts_with("SNAPSHOT NAME\t") && header.ends_with("\tTABLE NAME "), "{header:?}");
    let row: Vec<&str> = lines.next().unwrap().split('\t').map(str::trim).collect();
    assert_eq!((row[2], row.len()), ("cluster", 7), "each of six cells ends in a TAB: {row:?}");
    let none = place.run(&words(&login, &["snapshot", "show"], &["--sname", "nobody"])).expect(0).out;
    assert_eq!(none, "SNAPSHOT NAME\tTIMESTAMP\tSNAPSHOT LEVEL\tACCOUNT NAME\tDATABASE NAME\tTABLE NAME \n");
}

#[test]
fn points_in_time_are_made_shown_changed_and_dropped() {
    let Some(server) = server("points_in_time_are_made_shown_changed_and_dropped") else { return };
    let place = Place::new();
    let login = login(&server);
    let line = |verb: &str, back: &[&str]| {
        let ran = place.run(&words(&login, &["pitr", verb], back)).expect(0);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "{verb} {back:?}");
    };
    line("create", &["--pname", "p_cluster", "--level", "cluster", "--rangevalue", "1", "--rangeunit", "h "]);
    line("create", &["--pname", "p_acc", "--level", "account", "--account", "a1", "--rangevalue", "2"]);
    line(
        "create",
        &[
            "--pname",
            "p_db",
            "--level",
            "database",
            "--account",
            "sys",
            "--database",
            "shop",
            "--rangevalue=10",
            "--rangeunit=d",
        ],
    );
    line("alter", &["--pname", "p_db", "--rangevalue", "5", "--rangeunit", "d"]);
    let shown = place.run(&words(&login, &["pitr", "show"], &["--database", "shop"])).expect(0).out;
    let header = shown.lines().next().unwrap();
    assert!(header.starts_with("PITR NAME\t") && header.ends_with("\tPITR LENGTH\tPITR UNIT "), "{header:?}");
    line("drop", &["--pname", "p_db"]);
    let asked: Vec<String> = server.statements().iter().map(|sql| sql.replace('`', "").to_lowercase()).collect();
    assert_eq!(
        asked[..4],
        [
            "create pitr p_cluster for cluster range 1 'h'",
            "create pitr p_acc for account a1 range 2 'd'",
            "create pitr p_db for database shop range 10 'd'",
            "alter pitr p_db range 5 'd'",
        ]
    );
}

#[test]
fn what_the_server_says_is_passed_on_and_what_it_would_do_silently_is_refused() {
    let Some(server) = server("what_the_server_says_is_passed_on") else { return };
    let place = Place::new();
    let login = login(&server);
    let wrong = |front: &[&str], back: &[&str], said: &[&str]| {
        place.run(&words(&login, front, back)).expect_error(said);
    };
    wrong(&["snapshot", "drop"], &["--sname", "nosuch"], &["snapshot nosuch does not exist"]);
    wrong(&["pitr", "drop"], &["--pname", "nosuch"], &["pitr nosuch does not exist"]);
    // Never sent.
    let before = server.statements().len();
    wrong(&["snapshot", "restore"], &["--db", "--sname", "sp11"], &["snapshot name should not be empty"]);
    wrong(&["pitr", "create"], &["--pname", "p", "--level", "cluster", "--rangevalue", "101"], &["1 to 100"]);
    wrong(&["pitr", "create"], &["--pname", "p", "--level", "galaxy", "--rangevalue", "1"], &["galaxy"]);
    wrong(&["snapshot", "show"], &["--beginTs", "yesterday"], &["yesterday"]);
    assert_eq!(server.statements().len(), before);
    // `sys` into a new account writes over sys itself: only SHOW is asked.
    let new = [
        "--account",
        "sys",
        "--sname",
        "sn_acc_sys",
        "--newaccount",
        "b",
        "--newaccountadmin",
        "x",
        "--newaccountpwd",
        "y",
    ];
    wrong(&["snapshot", "restore"], &new, &["sys"]);
    let asked = server.statements();
    assert!(asked[before..].iter().all(|sql| sql.to_lowercase().starts_with("show")), "{asked:?}");
}
