//! Every example of the manual, and every refusal.

use proptest::prelude::*;

use super::super::token::{Token, tokens};
use super::*;
use crate::matrixone::login::Secret;

fn asker(account: &str) -> Asker<'_> {
    Asker { release: Some(Release::new(4, 2, 0)), account }
}

fn own(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

fn object(level: &str, account: Option<&str>, database: Option<&str>, table: Option<&str>) -> PitrObject {
    PitrObject {
        level: PitrLevel::parse(level).unwrap(),
        account: own(account),
        database: own(database),
        table: own(table),
    }
}

fn range(value: u32, unit: &str) -> PitrRange {
    PitrRange::new(value, unit).unwrap()
}

fn only(steps: Result<Vec<Step>>) -> String {
    let steps = steps.unwrap();
    assert_eq!(steps.len(), 1);
    steps[0].sql.clone()
}

fn row(name: &str, level: &str, account: &str, database: &str, table: &str) -> PitrRow {
    PitrRow {
        name: name.into(),
        created: "2024-10-28 17:22:26".into(),
        modified: "2024-10-28 17:22:26".into(),
        level: level.into(),
        account: account.into(),
        database: database.into(),
        table: table.into(),
        length: "10".into(),
        unit: "h".into(),
    }
}

const T: &str = "2024-08-08 15:42:20.249966";

fn wanted(name: &str, account: Option<&str>, database: Option<&str>, table: Option<&str>) -> PitrRestore {
    PitrRestore {
        name: name.into(),
        timestamp: T.into(),
        account: own(account),
        database: own(database),
        table: own(table),
        ..PitrRestore::default()
    }
}

fn into_new(name: &str, account: Option<&str>, new: &str) -> PitrRestore {
    let new_account = Some(NewAccount { name: new.into(), admin: "admin".into(), password: Secret::new("hunter2") });
    PitrRestore { new_account, ..wanted(name, account, None, None) }
}

fn rows() -> Vec<PitrRow> {
    vec![
        row("pitr01", "cluster", "*", "*", "*"),
        row("pitr100", "account", "sys", "*", "*"),
        row("pitr101", "database", "sys", "abc", "*"),
        row("pitr102", "table", "sys", "abc", "test"),
        row("pitr300", "account", "acc01", "*", "*"),
    ]
}

fn tenant_rows() -> Vec<PitrRow> {
    vec![
        row("pitr200", "account", "acc01", "*", "*"),
        row("pitr201", "database", "acc01", "abc", "*"),
        row("pitr202", "table", "acc01", "abc", "test"),
    ]
}

#[test]
fn the_manuals_examples_of_create_alter_and_drop() {
    for (account, name, object, range, sql) in [
        (
            "sys",
            "pitr01",
            object("cluster", None, None, None),
            range(1, "h"),
            "CREATE PITR `pitr01` FOR CLUSTER RANGE 1 'h'",
        ),
        (
            "sys",
            "pitr1",
            object("cluster", None, None, None),
            range(1, "d "),
            "CREATE PITR `pitr1` FOR CLUSTER RANGE 1 'd'",
        ),
        (
            "sys",
            "pitr02",
            object("account", Some("sys"), None, None),
            range(1, "h"),
            "CREATE PITR `pitr02` FOR ACCOUNT `sys` RANGE 1 'h'",
        ),
        (
            "sys",
            "pitr015",
            object("account", Some("acc01"), None, None),
            range(1, "h"),
            "CREATE PITR `pitr015` FOR ACCOUNT `acc01` RANGE 1 'h'",
        ),
        (
            "sys",
            "pitr016",
            object("account", Some("acc02"), None, None),
            range(1, "MO"),
            "CREATE PITR `pitr016` FOR ACCOUNT `acc02` RANGE 1 'mo'",
        ),
        (
            "sys",
            "pitr300",
            object("account", Some("acc01"), None, None),
            range(1, "y"),
            "CREATE PITR `pitr300` FOR ACCOUNT `acc01` RANGE 1 'y'",
        ),
        (
            "acc01",
            "pitr200",
            object("account", Some("acc01"), None, None),
            range(1, "h"),
            "CREATE PITR `pitr200` RANGE 1 'h'",
        ),
        (
            "acc1",
            "pitr2",
            object("account", Some("ACC1"), None, None),
            range(10, "h"),
            "CREATE PITR `pitr2` RANGE 10 'h'",
        ),
        ("acc2", "pitr3", object("account", None, None, None), range(10, "h"), "CREATE PITR `pitr3` RANGE 10 'h'"),
        (
            "sys",
            "pitr011",
            object("database", Some("sys"), Some("abc"), None),
            range(100, "d"),
            "CREATE PITR `pitr011` FOR DATABASE `abc` RANGE 100 'd'",
        ),
        (
            "acc01",
            "pitr201",
            object("database", Some("acc01"), Some("abc"), None),
            range(1, "d"),
            "CREATE PITR `pitr201` FOR DATABASE `abc` RANGE 1 'd'",
        ),
        (
            "sys",
            "pitr012",
            object("table", None, Some("abc"), Some("test")),
            range(1, "d"),
            "CREATE PITR `pitr012` FOR DATABASE `abc` TABLE `test` RANGE 1 'd'",
        ),
        (
            "acc01",
            "pitr202",
            object("table", Some("acc01"), Some("abc"), Some("test")),
            range(1, "d"),
            "CREATE PITR `pitr202` FOR DATABASE `abc` TABLE `test` RANGE 1 'd'",
        ),
    ] {
        assert_eq!(only(create_pitr(&asker(account), name, &object, &range)), sql);
    }
    assert_eq!(only(alter_pitr(&asker("sys"), "pitr01", &range(10, "d"))), "ALTER PITR `pitr01` RANGE 10 'd'");
    assert_eq!(only(drop_pitr(&asker("sys"), "pitr01")), "DROP PITR `pitr01`");
}

#[test]
fn the_manuals_examples_of_restore() {
    let cluster = PitrRestore { cluster: Some("sys".into()), ..wanted("pitr01", None, None, None) };
    assert_eq!(
        only(restore_pitr(&asker("sys"), &cluster, &rows())),
        format!("RESTORE CLUSTER FROM PITR `pitr01` '{T}'")
    );
    for (account, wanted, says) in [
        ("sys", wanted("pitr100", Some("sys"), None, None), "RESTORE FROM PITR `pitr100`"),
        ("sys", wanted("pitr100", None, None, None), "RESTORE FROM PITR `pitr100`"),
        ("sys", wanted("pitr100", Some("sys"), Some("abc"), None), "RESTORE DATABASE `abc` FROM PITR `pitr100`"),
        (
            "sys",
            wanted("pitr100", Some("sys"), Some("abc"), Some("test")),
            "RESTORE DATABASE `abc` TABLE `test` FROM PITR `pitr100`",
        ),
        (
            "sys",
            wanted("pitr101", None, Some("ABC"), Some("other")),
            "RESTORE DATABASE `ABC` TABLE `other` FROM PITR `pitr101`",
        ),
        (
            "sys",
            wanted("pitr102", None, Some("abc"), Some("test")),
            "RESTORE DATABASE `abc` TABLE `test` FROM PITR `pitr102`",
        ),
        ("sys", wanted("pitr300", Some("acc01"), None, None), "RESTORE ACCOUNT `acc01` FROM PITR `pitr300`"),
        ("acc01", wanted("pitr200", Some("acc01"), None, None), "RESTORE FROM PITR `pitr200`"),
        ("acc01", wanted("pitr201", Some("acc01"), Some("abc"), None), "RESTORE DATABASE `abc` FROM PITR `pitr201`"),
        (
            "acc01",
            wanted("pitr202", None, Some("abc"), Some("test")),
            "RESTORE DATABASE `abc` TABLE `test` FROM PITR `pitr202`",
        ),
    ] {
        let shown = if account == "sys" { rows() } else { tenant_rows() };
        assert_eq!(only(restore_pitr(&asker(account), &wanted, &shown)), format!("{says} '{T}'"));
    }
}

#[test]
fn one_account_comes_out_of_a_pitr_of_the_cluster() {
    for account in ["acc01", "sys"] {
        let sql = only(restore_pitr(&asker("sys"), &wanted("pitr01", Some(account), None, None), &rows()));
        assert_eq!(sql, format!("RESTORE ACCOUNT `{account}` FROM PITR `pitr01` '{T}' `{account}`"));
    }
}

#[test]
fn a_new_account_is_made_first() {
    for (wanted, restore) in [
        // The manual names the new account twice; the source is the PITR's own then.
        (into_new("pitr300", Some("acc03"), "acc03"), "RESTORE ACCOUNT `acc03` FROM PITR `pitr300`"),
        (into_new("pitr300", Some("acc01"), "acc03"), "RESTORE ACCOUNT `acc03` FROM PITR `pitr300`"),
        (into_new("pitr300", None, "acc03"), "RESTORE ACCOUNT `acc03` FROM PITR `pitr300`"),
    ] {
        let steps = restore_pitr(&asker("sys"), &wanted, &rows()).unwrap();
        assert_eq!(steps[0].sql, "CREATE ACCOUNT `acc03` ADMIN_NAME 'admin' IDENTIFIED BY 'hunter2'");
        assert_eq!(steps[1].sql, format!("{restore} '{T}'"));
    }
    let steps = restore_pitr(&asker("sys"), &into_new("pitr01", Some("acc01"), "acc03"), &rows()).unwrap();
    assert_eq!(steps[1].sql, format!("RESTORE ACCOUNT `acc03` FROM PITR `pitr01` '{T}' `acc01`"));
}

#[test]
fn a_pitr_that_cannot_be_made_is_refused() {
    for (account, object, says) in [
        ("acc1", object("cluster", None, None, None), "sys alone"),
        ("acc1", object("account", Some("acc2"), None, None), "of itself alone"),
        ("sys", object("database", Some("acc1"), Some("d"), None), "Log in as acc1#"),
        ("acc1", object("table", Some("sys"), Some("d"), Some("t")), "Log in as sys#"),
        ("sys", object("cluster", Some("sys"), None, None), "belong to it"),
        ("sys", object("account", None, Some("d"), None), "belong to it"),
        ("sys", object("database", None, None, None), "name the database"),
        ("sys", object("database", None, Some("d"), Some("t")), "does not belong"),
        ("sys", object("table", None, Some("d"), None), "name the database and the table"),
        ("sys", object("account", Some("a`b"), None, None), "letters, digits"),
    ] {
        let error = create_pitr(&asker(account), "p", &object, &range(1, "h")).unwrap_err();
        assert!(error.to_string().contains(says), "{object:?}: {error}");
    }
    for (value, unit) in [(0, "d"), (101, "d"), (1, "w"), (1, ""), (1, "d'")] {
        assert!(PitrRange::new(value, unit).is_err(), "{value} {unit}");
    }
    let cluster = object("cluster", None, None, None);
    for name in ["", "a b", "a'b", "SYS_mo_catalog_pitr"] {
        assert!(create_pitr(&asker("sys"), name, &cluster, &range(1, "h")).is_err(), "{name}");
        assert!(alter_pitr(&asker("sys"), name, &range(1, "h")).is_err() && drop_pitr(&asker("sys"), name).is_err());
    }
    let old = Asker { release: Some(Release::new(1, 2, 4)), account: "sys" };
    assert_eq!(drop_pitr(&old, "p").unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(PitrLevel::parse("server").is_err());
}

#[test]
fn a_restore_of_something_else_is_refused() {
    let with_cluster = |cluster: &str, wanted: PitrRestore| PitrRestore { cluster: Some(cluster.into()), ..wanted };
    for (account, wanted, says) in [
        // The short form would restore whoever is logged in.
        ("acc01", wanted("pitr200", Some("acc02"), None, None), "Log in as acc02#"),
        ("acc01", wanted("pitr200", Some("sys"), Some("abc"), None), "Log in as sys#"),
        ("sys", wanted("pitr300", Some("acc01"), Some("abc"), None), "Log in as acc01#"),
        // Data of one account over another.
        ("sys", wanted("pitr300", Some("acc02"), None, None), "belongs to account acc01"),
        ("sys", wanted("pitr300", None, None, None), "belongs to account acc01"),
        ("sys", wanted("pitr100", Some("acc01"), None, None), "belongs to account sys"),
        // Levels.
        ("sys", wanted("pitr01", None, Some("abc"), None), "level cluster"),
        ("sys", wanted("pitr101", None, None, None), "level database (sys.abc)"),
        ("sys", wanted("pitr101", None, Some("xyz"), None), "this database"),
        ("sys", wanted("pitr102", None, Some("abc"), None), "this database"),
        ("sys", wanted("pitr102", None, Some("abc"), Some("other")), "this table"),
        ("sys", wanted("pitr100", None, None, Some("test")), "name its database"),
        ("sys", wanted("nosuch", None, None, None), "SHOW PITR does not list it"),
        ("sys", PitrRestore { timestamp: " ".into(), ..wanted("pitr100", None, None, None) }, "time to restore"),
        // New accounts.
        ("acc01", into_new("pitr200", Some("acc01"), "acc03"), "sys alone"),
        ("sys", into_new("pitr300", Some("acc02"), "acc03"), "belongs to account acc01"),
        ("sys", into_new("pitr300", None, "acc01"), "the account itself"),
        ("sys", into_new("pitr01", None, "acc03"), "name the account"),
        ("sys", into_new("pitr01", Some("acc03"), "acc03"), "name the account"),
        ("sys", into_new("pitr100", None, "acc03"), "does not do that"),
        ("sys", into_new("pitr01", Some("sys"), "acc03"), "does not do that"),
        ("sys", into_new("pitr101", None, "acc03"), "level database"),
        ("sys", into_new("pitr300", None, "sys"), "sys is not new"),
        (
            "sys",
            PitrRestore { database: Some("abc".into()), ..into_new("pitr300", None, "acc03") },
            "whole account alone",
        ),
        // The cluster.
        ("acc01", with_cluster("sys", wanted("pitr200", None, None, None)), "sys alone"),
        ("sys", with_cluster("other", wanted("pitr01", None, None, None)), "named `sys`"),
        ("sys", with_cluster("sys", wanted("pitr01", Some("acc01"), None, None)), "no account"),
    ] {
        let shown = if account == "sys" { rows() } else { tenant_rows() };
        let error = restore_pitr(&asker(account), &wanted, &shown).unwrap_err();
        assert!(error.to_string().contains(says), "{account} {wanted:?}: {error}");
        assert!(!error.to_string().contains("hunter2"));
    }
}

#[test]
fn rows_are_read_by_their_place_and_filtered_here() {
    let text = |values: [&str; 9]| values.map(|value| Some(value.to_owned())).to_vec();
    let read = PitrRow::read(vec![text(["p", "c", "m", "table", "sys", "shop", "orders", "1", "y"])]).unwrap();
    assert_eq!((read[0].length.as_str(), read[0].unit.as_str(), read[0].table.as_str()), ("1", "y", "orders"));
    assert!(PitrRow::read(vec![vec![None; 8]]).is_err());

    let names = |filter: PitrFilter| filter.apply(rows()).into_iter().map(|row| row.name).collect::<Vec<_>>().join(" ");
    let none = PitrFilter::default;
    assert_eq!(names(none()), "pitr01 pitr100 pitr101 pitr102 pitr300");
    assert_eq!(names(PitrFilter { cluster: own(Some("sys")), ..none() }), "pitr01");
    assert_eq!(names(PitrFilter { account: own(Some("sys")), ..none() }), "pitr100 pitr101 pitr102");
    assert_eq!(names(PitrFilter { database: own(Some("Abc")), ..none() }), "pitr101 pitr102");
    assert_eq!(
        names(PitrFilter { account: own(Some("sys")), database: own(Some("abc")), table: own(Some("test")), ..none() }),
        "pitr102"
    );
    assert_eq!(names(PitrFilter { name: own(Some("pitr300")), ..none() }), "pitr300");
}

proptest! {
    #[test]
    fn no_name_and_no_time_breaks_out_of_its_place(
        database in "[`'\"\\\\a-c.; -]{1,10}|\\PC{1,10}",
        table in "\\PC{1,10}",
        time in "[`'\"\\\\0-9:; -]{0,10}[0-9]",
    ) {
        let wanted = PitrRestore { timestamp: time.clone(), ..wanted("pitr100", None, Some(&database), Some(&table)) };
        let statement = only(restore_pitr(&asker("sys"), &wanted, &rows()));
        let found: Vec<Token> = tokens(&statement);
        let names: Vec<&Token> = found.iter().filter(|token| matches!(token, Token::Name(_))).collect();
        let expected = [database, table, "pitr100".to_owned()].map(Token::Name);
        prop_assert_eq!(names, expected.iter().collect::<Vec<_>>());
        let Some(Token::Text { value, span }) = found.last() else { return Err(TestCaseError::fail("no time")) };
        prop_assert_eq!((value.as_str(), span.end), (time.as_str(), statement.len()));
    }
}
