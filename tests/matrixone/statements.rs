//! Every statement of ours against a real server: `EVERPACK_TEST_MO_SERVICE` names its binary. Visible skip otherwise.

use std::path::Path;
use std::time::Duration;

use everpack::clock::{Clock, SystemClock};
use everpack::error::Result;
use everpack::matrixone::client::{Client, ServerError};
use everpack::matrixone::login::{Login, Secret};
use everpack::matrixone::sql::{
    self, BackupStatement, BackupTarget, Control, NewAccount, PitrLevel, PitrObject, PitrRange, PitrRestore,
    SnapshotLevel, SnapshotRestore, Step,
};
use everpack::matrixone::tree;
use everpack::ops::drill::{DrillBackend, FreshServer};
use everpack::tae::Ts;
use everpack::testing::data;

const PATIENCE: Duration = Duration::from_secs(240);

/// One of our own, which may be thrown away; its root has the password that a new server gives it.
struct Server {
    server: FreshServer,
}

impl Server {
    fn login(&self, user: &str, password: &str) -> Login {
        let port = self.server.login().port;
        let login = Login::parse_url(&format!("matrixone://{user}@127.0.0.1:{port}")).unwrap();
        Login { password: Secret::new(password), ..login }
    }

    async fn root(&self) -> Client {
        Client::connect(&self.login("root", "111")).await.unwrap()
    }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn new_account(name: &str) -> Option<NewAccount> {
    Some(NewAccount { name: name.into(), admin: "adm'in".into(), password: Secret::new("it's \\ \"a\" secret") })
}

async fn rows(client: &mut Client, table: &str) -> String {
    client.value(&format!("select count(*) from {table}")).await.unwrap().unwrap()
}

/// Sends what a function made of who asks.
async fn send(client: &mut Client, make: impl FnOnce(&sql::Asker<'_>) -> Result<Vec<Step>>) -> Result<()> {
    let steps = make(&client.asker().await?)?;
    client.run_steps(&steps).await
}

async fn prepare(client: &mut Client) {
    for sql in [
        "create database ep_shop",
        "create table ep_shop.orders(id int primary key)",
        "insert into ep_shop.orders values (1),(2),(3)",
        "create account `ep-1` admin_name 'admin' identified by '111'",
    ] {
        client.run(sql).await.unwrap();
    }
}

#[tokio::test]
async fn a_real_server_understands_every_statement() {
    let Some(binary) = std::env::var_os("EVERPACK_TEST_MO_SERVICE") else {
        data::skip("statements at a real server", "matrixone", "EVERPACK_TEST_MO_SERVICE names no server");
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let started = FreshServer::start(Path::new(&binary), scratch.path(), DrillBackend::DiskEndpoint, PATIENCE).await;
    let server = Server { server: started.unwrap() };
    logins(&server).await;
    let mut client = server.root().await;
    client.require_matrixone().await.unwrap();
    client.require_sys("this").await.unwrap();
    prepare(&mut client).await;
    snapshots(&mut client).await;
    points_in_time(&mut client).await;
    tenants(&server).await;
    backups(&server, &mut client).await;
}

async fn logins(server: &Server) {
    for (user, password, code, says) in [
        ("root", "wrong", 1045, "the password is wrong"),
        ("nobody-here#root", "111", 20101, "no account nobody-here"),
        ("sys#nobody", "111", 20101, "no such user"),
    ] {
        let error = Client::connect(&server.login(user, password)).await.unwrap_err();
        assert_eq!(ServerError::of(&error).unwrap().code, code, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    for user in ["root", "sys%3Aroot", "sys#root", "sys:root:moadmin", "root?everpack=test"] {
        let mut client = Client::connect(&server.login(user, "111")).await.unwrap();
        assert_eq!(client.account().await.unwrap(), "sys", "{user}");
        client.close().await;
    }
}

async fn snapshots(client: &mut Client) {
    send(client, |asker| sql::create_snapshot(asker, "ep_cluster", SnapshotLevel::Cluster, None)).await.unwrap();
    send(client, |asker| sql::create_snapshot(asker, "EP-sys", SnapshotLevel::Account, None)).await.unwrap();
    send(client, |asker| sql::create_snapshot(asker, "ep_1", SnapshotLevel::Account, Some("ep-1"))).await.unwrap();
    let shown = client.snapshots().await.unwrap();
    let names: Vec<&str> = shown.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["ep_1", "ep-sys", "ep_cluster"]);

    let wanted = |name: &str, account: Option<&str>, database: Option<&str>, table: Option<&str>| SnapshotRestore {
        name: name.into(),
        account: account.and_then(text),
        database: database.and_then(text),
        table: table.and_then(text),
        new_account: None,
    };
    for wanted in [
        wanted("EP-sys", None, Some("ep_shop"), Some("orders")),
        wanted("EP-sys", Some("sys"), Some("EP_SHOP"), None),
        wanted("EP-sys", Some("sys"), None, None),
        wanted("ep_cluster", None, None, None),
    ] {
        client.run("delete from ep_shop.orders where id > 1").await.unwrap();
        send(client, |asker| sql::restore_snapshot(asker, &wanted, &shown)).await.unwrap();
        assert_eq!(rows(client, "ep_shop.orders").await, "3", "{wanted:?}");
    }
    // As asked for: an account of its own, whatever quotes its administrator and password hold.
    let copy = SnapshotRestore { new_account: new_account("ep-2"), ..wanted("ep_1", Some("ep-1"), None, None) };
    send(client, |asker| sql::restore_snapshot(asker, &copy, &shown)).await.unwrap();
    let accounts = client.query("show accounts").await.unwrap();
    assert!(accounts.iter().any(|row| row[0].as_deref() == Some("ep-2")));
    // What would write over sys is refused here, and not left to the server.
    let over_sys = SnapshotRestore { new_account: new_account("ep-4"), ..wanted("EP-sys", Some("sys"), None, None) };
    send(client, |asker| sql::restore_snapshot(asker, &over_sys, &shown)).await.unwrap_err();
    let error = send(client, |asker| sql::drop_snapshot(asker, "nosuch")).await.unwrap_err();
    assert!(ServerError::of(&error).unwrap().message.contains("snapshot nosuch does not exist"));
}

async fn points_in_time(client: &mut Client) {
    let object = |level, account: Option<&str>, database: Option<&str>, table: Option<&str>| PitrObject {
        level,
        account: account.and_then(text),
        database: database.and_then(text),
        table: table.and_then(text),
    };
    for (name, object) in [
        ("p_cluster", object(PitrLevel::Cluster, None, None, None)),
        ("p_sys", object(PitrLevel::Account, Some("sys"), None, None)),
        ("p_1", object(PitrLevel::Account, Some("ep-1"), None, None)),
        ("p_db", object(PitrLevel::Database, None, Some("ep_shop"), None)),
        ("p_tab", object(PitrLevel::Table, Some("sys"), Some("ep_shop"), Some("orders"))),
    ] {
        send(client, |asker| sql::create_pitr(asker, name, &object, &PitrRange::new(1, "d ").unwrap())).await.unwrap();
    }
    send(client, |asker| sql::alter_pitr(asker, "p_db", &PitrRange::new(2, "MO").unwrap())).await.unwrap();
    // A time behind the making of them all, and before now, by the server's own clock; the server counts whole seconds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let timestamp = client.value("select now()").await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let shown = client.pitrs().await.unwrap();
    let db = shown.iter().find(|row| row.name == "p_db").unwrap();
    assert_eq!((db.length.as_str(), db.unit.as_str(), db.table.as_str()), ("2", "mo", "*"));

    let wanted = |name: &str, account: Option<&str>, database: Option<&str>, table: Option<&str>| PitrRestore {
        name: name.into(),
        timestamp: timestamp.clone(),
        account: account.and_then(text),
        database: database.and_then(text),
        table: table.and_then(text),
        ..PitrRestore::default()
    };
    let is_of_sys = |wanted: &PitrRestore| wanted.account.as_deref() != Some("ep-1");
    for wanted in [
        wanted("p_tab", None, Some("ep_shop"), Some("orders")),
        wanted("p_db", None, Some("ep_shop"), Some("orders")),
        wanted("p_db", Some("sys"), Some("ep_shop"), None),
        wanted("p_sys", None, Some("ep_shop"), None),
        wanted("p_sys", None, None, None),
        wanted("p_1", Some("ep-1"), None, None),
        wanted("p_cluster", Some("ep-1"), None, None),
        wanted("p_cluster", Some("sys"), None, None),
        PitrRestore { cluster: text("sys"), ..wanted("p_cluster", None, None, None) },
    ] {
        client.run("delete from ep_shop.orders where id > 1").await.unwrap();
        send(client, |asker| sql::restore_pitr(asker, &wanted, &shown)).await.unwrap();
        let expected = if is_of_sys(&wanted) { "3" } else { "1" };
        assert_eq!(rows(client, "ep_shop.orders").await, expected, "{wanted:?}");
        client.run("delete from ep_shop.orders").await.unwrap();
        client.run("insert into ep_shop.orders values (1),(2),(3)").await.unwrap();
    }
    for wanted in [
        PitrRestore { new_account: new_account("ep-3"), ..wanted("p_1", Some("ep-3"), None, None) },
        PitrRestore { new_account: new_account("ep-4"), ..wanted("p_cluster", Some("ep-1"), None, None) },
    ] {
        send(client, |asker| sql::restore_pitr(asker, &wanted, &shown)).await.unwrap();
    }
    // Times are the server's to judge.
    let garbage = PitrRestore { timestamp: "it's late".into(), ..wanted("p_db", None, Some("ep_shop"), None) };
    let error = send(client, |asker| sql::restore_pitr(asker, &garbage, &shown)).await.unwrap_err();
    assert!(ServerError::of(&error).unwrap().message.contains("parsing time"), "{error}");
    for name in ["p_cluster", "p_sys", "p_1", "p_db", "p_tab"] {
        send(client, |asker| sql::drop_pitr(asker, name)).await.unwrap();
    }
}

async fn tenants(server: &Server) {
    let mut tenant = Client::connect(&server.login("ep-1#admin", "111")).await.unwrap();
    assert_eq!(tenant.account().await.unwrap(), "ep-1");
    let itself = PitrObject { level: PitrLevel::Account, account: text("EP-1"), database: None, table: None };
    send(&mut tenant, |asker| sql::create_pitr(asker, "p", &itself, &PitrRange::new(1, "h").unwrap())).await.unwrap();
    send(&mut tenant, |asker| sql::create_snapshot(asker, "s", SnapshotLevel::Account, Some("ep-1"))).await.unwrap();
    send(&mut tenant, |asker| sql::create_snapshot(asker, "c", SnapshotLevel::Cluster, None)).await.unwrap_err();
    let shown = tenant.snapshots().await.unwrap();
    let wanted = SnapshotRestore { name: "s".into(), account: text("ep-1"), ..SnapshotRestore::default() };
    send(&mut tenant, |asker| sql::restore_snapshot(asker, &wanted, &shown)).await.unwrap();
    send(&mut tenant, |asker| sql::drop_snapshot(asker, "s")).await.unwrap();
    send(&mut tenant, |asker| sql::drop_pitr(asker, "p")).await.unwrap();
    tenant.require_sys("BACKUP").await.unwrap_err();
    let error = tenant.control(&Control::Checkpoint).await.unwrap_err();
    assert!(ServerError::of(&error).unwrap().is_privilege(), "{error}");
}

async fn backups(server: &Server, client: &mut Client) {
    let scratch = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    let here = scratch.path().display();
    let statement = |target, since| BackupStatement {
        label: "it's a \\ label".into(),
        target,
        parallelism: 2,
        kind: "full".into(),
        since,
    };
    let directory = statement(BackupTarget::Directory(format!("{here}/it's@=(1)!*.-_")), None);
    let disk = statement(BackupTarget::DiskEndpoint { bucket: format!("{here}/disk"), path: "x/y".into() }, None);
    client.control(&Control::Checkpoint).await.unwrap();
    client.control(&Control::GlobalCheckpoint).await.unwrap();
    client.control(&Control::Protect(Ts { physical: now.as_nanos(), logical: 0 })).await.unwrap();
    client.control(&Control::Unprotect).await.unwrap();
    for statement in [&directory, &disk] {
        client.run(&statement.sql(client.release(), now).unwrap()).await.unwrap();
    }
    let sum = std::fs::read(scratch.path().join("disk/x/y").join(tree::TAE_SUM)).unwrap();
    let since = tree::parse_sum(&sum).unwrap().ts;
    let next = statement(BackupTarget::DiskEndpoint { bucket: format!("{here}/next"), path: "x".into() }, since);
    client.run(&next.sql(client.release(), SystemClock.now()).unwrap()).await.unwrap();
    let list = tree::parse_list(&std::fs::read(scratch.path().join("next/x").join(tree::TAE_LIST)).unwrap()).unwrap();
    assert!(list.iter().any(|row| !row.copied), "nothing was left out");
    let again = client.run(&disk.sql(client.release(), now).unwrap()).await.unwrap_err();
    assert_eq!(ServerError::of(&again).unwrap().code, 20406, "{again}");

    // A statement that is killed ends, and its connection lives.
    let mut other = server.root().await;
    let id = other.id();
    let running = tokio::spawn(async move {
        let answer = other.run("select sleep(60)").await;
        (answer, other)
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    Client::kill(&server.login("root", "111"), id).await.unwrap();
    let (answer, mut other) = tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap();
    answer.unwrap_err();
    assert_eq!(other.value("select 1").await.unwrap().as_deref(), Some("1"));
}
