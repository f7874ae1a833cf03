//! Every example of the manual, and every refusal.

use proptest::prelude::*;

use super::super::token::{Token, tokens};
use super::*;
use crate::matrixone::login::Secret;

const V4: Release = Release::new(4, 2, 0);
const V3: Release = Release::new(3, 0, 18);

fn asker(release: Release, account: &str) -> Asker<'_> {
    Asker { release: Some(release), account }
}

fn row(name: &str, timestamp: &str, level: &str, account: &str) -> SnapshotRow {
    let (name, timestamp, level, account) = (name.into(), timestamp.into(), level.into(), account.into());
    SnapshotRow { name, timestamp, level, account, database: String::new(), table: String::new() }
}

fn wanted(name: &str, account: Option<&str>, database: Option<&str>, table: Option<&str>) -> SnapshotRestore {
    let own = |text: Option<&str>| text.map(str::to_owned);
    SnapshotRestore {
        name: name.into(),
        account: own(account),
        database: own(database),
        table: own(table),
        new_account: None,
    }
}

fn new_account(name: &str) -> Option<NewAccount> {
    Some(NewAccount { name: name.into(), admin: "admin".into(), password: Secret::new("hunter2") })
}

fn only(steps: Result<Vec<Step>>) -> String {
    let steps = steps.unwrap();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].otherwise, None);
    steps[0].sql.clone()
}

#[test]
fn the_manuals_examples_of_create_and_drop() {
    let create = |account: &'static str, name, level: &str, of| {
        only(create_snapshot(&asker(V4, account), name, SnapshotLevel::parse(level).unwrap(), of))
    };
    assert_eq!(create("sys", "cluster_sp1", "cluster", None), "CREATE SNAPSHOT `cluster_sp1` FOR CLUSTER");
    assert_eq!(create("sys", "snapshot_01", "account", Some("sys")), "CREATE SNAPSHOT `snapshot_01` FOR ACCOUNT `sys`");
    assert_eq!(create("sys", "sp_03", "account", Some("sys")), "CREATE SNAPSHOT `sp_03` FOR ACCOUNT `sys`");
    assert_eq!(
        create("sys", "snapshot_02", "account", Some("acc1")),
        "CREATE SNAPSHOT `snapshot_02` FOR ACCOUNT `acc1`"
    );
    assert_eq!(
        create("acc1", "snapshot_03", "account", Some("acc1")),
        "CREATE SNAPSHOT `snapshot_03` FOR ACCOUNT `acc1`"
    );
    assert_eq!(create("acc1", "s", "account", None), "CREATE SNAPSHOT `s` FOR ACCOUNT `acc1`");
    assert_eq!(only(drop_snapshot(&asker(V3, "sys"), "snapshot_01")), "DROP SNAPSHOT `snapshot_01`");
    assert_eq!(only(drop_snapshot(&asker(V3, "acc1"), "snapshot_03")), "DROP SNAPSHOT `snapshot_03`");
    assert!(SnapshotLevel::parse("database").is_err());
}

#[test]
fn the_manuals_examples_of_restore_in_both_syntaxes() {
    let table = wanted("sp_01", Some("sys"), Some("snapshot_read"), Some("test_snapshot_read"));
    let database = wanted("sp_02", Some("sys"), Some("snapshot_read"), None);
    let account = wanted("sp_03", Some("sys"), None, None);
    let cluster = wanted("cluster_sp1", None, None, None);
    let unnamed = wanted("s", None, Some("d.x"), None);
    for (wanted, new, old) in [
        (
            table,
            "RESTORE TABLE `sys`.`snapshot_read`.`test_snapshot_read` {SNAPSHOT = `sp_01`}",
            "RESTORE ACCOUNT `sys` DATABASE `snapshot_read` TABLE `test_snapshot_read` FROM SNAPSHOT `sp_01`",
        ),
        (
            database,
            "RESTORE DATABASE `sys`.`snapshot_read` {SNAPSHOT = `sp_02`}",
            "RESTORE ACCOUNT `sys` DATABASE `snapshot_read` FROM SNAPSHOT `sp_02`",
        ),
        (account, "RESTORE ACCOUNT `sys` {SNAPSHOT = `sp_03`}", "RESTORE ACCOUNT `sys` FROM SNAPSHOT `sp_03`"),
        (cluster, "RESTORE CLUSTER {SNAPSHOT = `cluster_sp1`}", "RESTORE CLUSTER FROM SNAPSHOT `cluster_sp1`"),
        // Without an account: the own one, which the old syntax needs.
        (
            unnamed,
            "RESTORE DATABASE `sys`.`d.x` {SNAPSHOT = `s`}",
            "RESTORE ACCOUNT `sys` DATABASE `d.x` FROM SNAPSHOT `s`",
        ),
    ] {
        assert_eq!(only(restore_snapshot(&asker(V4, "sys"), &wanted, &[])), new);
        assert_eq!(only(restore_snapshot(&asker(Release::new(4, 0, 0), "sys"), &wanted, &[])), new);
        assert_eq!(only(restore_snapshot(&asker(V3, "sys"), &wanted, &[])), old);
        let unknown = Asker { release: None, account: "sys" };
        let steps = restore_snapshot(&unknown, &wanted, &[]).unwrap();
        assert_eq!((steps[0].sql.as_str(), steps[0].otherwise.as_deref()), (new, Some(old)));
    }
}

#[test]
fn a_new_account_is_made_first() {
    let wanted = SnapshotRestore { new_account: new_account("acc2"), ..wanted("sp", Some("acc1"), None, None) };
    let steps = restore_snapshot(&asker(V4, "sys"), &wanted, &[]).unwrap();
    let sql: Vec<&str> = steps.iter().map(|step| step.sql.as_str()).collect();
    assert_eq!(
        sql,
        [
            "CREATE ACCOUNT `acc2` ADMIN_NAME 'admin' IDENTIFIED BY 'hunter2'",
            "RESTORE ACCOUNT `acc1` {SNAPSHOT = `sp`} TO ACCOUNT `acc2`"
        ]
    );
    assert!(steps[0].leaves.as_ref().unwrap().contains("acc2"));
    assert!(!format!("{steps:?}").contains("hunter2"), "{steps:?}");
    let old = restore_snapshot(&asker(V3, "sys"), &wanted, &[]).unwrap();
    assert_eq!(old[1].sql, "RESTORE ACCOUNT `acc1` FROM SNAPSHOT `sp` TO ACCOUNT `acc2`");
}

#[test]
fn the_manuals_own_example_that_would_write_over_sys_is_refused() {
    let wanted = SnapshotRestore { new_account: new_account("acc2"), ..wanted("sp_03", Some("SYS"), None, None) };
    let of_account = [row("sp_03", "2024-05-11 02:29:23", "account", "sys")];
    let of_cluster = [row("SP_03", "2024-05-11 02:29:23", "cluster", "")];
    for release in [Some(V4), Some(V3), Some(Release::new(2, 1, 0)), None] {
        let asker = Asker { release, account: "sys" };
        let refused = restore_snapshot(&asker, &wanted, &of_account).unwrap_err();
        assert!(refused.to_string().contains("write over sys"), "{refused}");
        assert_eq!(restore_snapshot(&asker, &wanted, &[]).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(restore_snapshot(&asker, &wanted, &of_cluster).unwrap().len(), 2);
    }
    // Older servers do what they are asked for.
    assert_eq!(restore_snapshot(&asker(Release::new(2, 0, 5), "sys"), &wanted, &[]).unwrap().len(), 2);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let with = |wanted: SnapshotRestore, name: &str| SnapshotRestore { new_account: new_account(name), ..wanted };
    let plain = NewAccount { name: "b".into(), admin: String::new(), password: Secret::new("x") };
    let cases = [
        (with(wanted("s", Some("a"), Some("d"), None), "b"), "sys", "whole account alone"),
        (with(wanted("s", Some("a"), Some("d"), Some("t")), "b"), "sys", "whole account alone"),
        (with(wanted("s", Some("a"), None, None), "b"), "a", "sys alone"),
        (with(wanted("s", None, None, None), "b"), "sys", "name the account"),
        (with(wanted("s", Some("a"), None, None), "A"), "sys", "the account itself"),
        (with(wanted("s", Some("a"), None, None), "Sys"), "sys", "sys is not new"),
        (with(wanted("s", Some("a"), None, None), "b'; drop"), "sys", "letters, digits"),
        (SnapshotRestore { new_account: Some(plain), ..wanted("s", Some("a"), None, None) }, "sys", "no administrator"),
        (wanted("s", Some("a"), None, Some("t")), "sys", "name its database"),
        (wanted("", Some("a"), None, None), "sys", "snapshot name should not be empty"),
        (wanted("a b", Some("a"), None, None), "sys", "no blanks"),
        (wanted("s", Some("a"), Some("d\0"), None), "sys", "control"),
        (wanted("s", Some("a.b"), None, None), "sys", "letters, digits"),
    ];
    for (wanted, account, says) in cases {
        let error = restore_snapshot(&asker(V4, account), &wanted, &[]).unwrap_err();
        assert!(error.to_string().contains(says), "{wanted:?}: {error}");
        assert!(!error.to_string().contains("hunter2"));
    }
    let old = create_snapshot(&asker(Release::new(1, 1, 3), "sys"), "s", SnapshotLevel::Cluster, None).unwrap_err();
    assert_eq!(old.kind(), ErrorKind::Unsupported);
}

#[test]
fn rows_are_read_by_their_place() {
    let text = |values: &[&str]| values.iter().map(|value| Some((*value).to_owned())).collect::<Row>();
    let rows = SnapshotRow::read(vec![
        text(&["sn_tab", "2026-11-21 04:30:42.538298086", "table", "sys", "shop", "orders"]),
        text(&["c", "2026-11-21 04:30:41", "cluster", "", "", "", "a column of later releases"]),
    ])
    .unwrap();
    assert_eq!(
        (rows[0].table.as_str(), rows[0].database.as_str(), rows[1].level.as_str()),
        ("orders", "shop", "cluster")
    );
    assert_eq!(SnapshotRow::read(vec![text(&["a", "b"])]).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn rows_are_filtered_here() {
    let mut table = row("t1", "2024-05-11 02:29:23.07401", "table", "acc1");
    (table.database, table.table) = ("db1".into(), "t".into());
    let rows = vec![
        row("c1", "2024-05-12 00:00:00", "cluster", ""),
        table,
        row("s1", "2024-05-11 00:00:00", "account", "acc1"),
        row("s0", "2024-05-10 02:06:08.01635", "account", "sys"),
    ];
    let names = |filter: SnapshotFilter| {
        let rows = filter.apply(rows.clone()).unwrap();
        rows.into_iter().map(|row| row.name).collect::<Vec<_>>().join(" ")
    };
    let own = |text: &str| Some(text.to_owned());
    let none = SnapshotFilter::default;
    assert_eq!(names(none()), "c1 t1 s1 s0");
    assert_eq!(names(SnapshotFilter { cluster: own("sys"), ..none() }), "c1");
    assert_eq!(names(SnapshotFilter { cluster: own("other"), ..none() }), "c1 t1 s1 s0");
    assert_eq!(names(SnapshotFilter { account: own("ACC1"), ..none() }), "t1 s1");
    assert_eq!(names(SnapshotFilter { account: own("acc1"), begin: own("2024-05-11 00:00:00"), ..none() }), "t1 s1");
    assert_eq!(names(SnapshotFilter { begin: own("2024-05-11 02:29:23.07401"), ..none() }), "c1 t1");
    assert_eq!(names(SnapshotFilter { begin: own("2024-05-11 02:29:23.074011"), ..none() }), "c1");
    assert_eq!(names(SnapshotFilter { begin: own("2024-05-11"), end: own("2024-05-11 23:59:59"), ..none() }), "t1 s1");
    assert_eq!(names(SnapshotFilter { end: own("2024-05-10 02:06:08.016350000"), ..none() }), "s0");
    assert_eq!(names(SnapshotFilter { database: own("db1"), table: own("t"), name: own("t1"), ..none() }), "t1");
    for wrong in ["", "yesterday", "2024-5-1", "2024-05-11T00:00:00", "2024-05-11 00:00", "2024-05-11 00:00:00."] {
        let filter = SnapshotFilter { begin: own(wrong), ..none() };
        assert!(filter.apply(rows.clone()).unwrap_err().to_string().contains("--beginTs"), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_name_breaks_out_of_its_place(database in "[`'\"\\\\{}=a-c.; -]{1,10}|\\PC{1,10}", table in "\\PC{1,10}") {
        for release in [V4, V3] {
            let wanted = wanted("s", Some("a"), Some(&database), Some(&table));
            let statement = only(restore_snapshot(&asker(release, "sys"), &wanted, &[]));
            let names: Vec<Token> = tokens(&statement).into_iter().filter(|token| matches!(token, Token::Name(_))).collect();
            let expected = ["a", &database, &table, "s"].map(|name| Token::Name(name.to_owned()));
            prop_assert_eq!(names, expected.to_vec());
        }
    }

    #[test]
    fn no_password_breaks_out_of_its_place(admin in "\\PC{1,10}", password in "[`'\"\\\\a-c; ]{1,10}|\\PC{1,10}") {
        let new = NewAccount { name: "b".into(), admin: admin.clone(), password: Secret::new(&*password) };
        let wanted = SnapshotRestore { new_account: Some(new), ..wanted("s", Some("a"), None, None) };
        let steps = restore_snapshot(&asker(V4, "sys"), &wanted, &[]).unwrap();
        let texts: Vec<String> = tokens(&steps[0].sql)
            .into_iter()
            .filter_map(|token| match token {
                Token::Text { value, .. } => Some(value),
                _ => None,
            })
            .collect();
        prop_assert_eq!(texts, [admin, password]);
    }
}
