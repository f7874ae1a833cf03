//! BACKUP as the recorded server plays it: what a real one was seen to leave behind.

use std::path::Path;
use std::time::Duration;

use everpack::error::Error;
use everpack::matrixone::client::{Client, ServerError};
use everpack::matrixone::login::Secret;
use everpack::matrixone::sql::{
    self, Control, NewAccount, PitrLevel, PitrObject, PitrRange, PitrRestore, SnapshotFilter, SnapshotLevel,
    SnapshotRestore,
};
use everpack::matrixone::tree::{self, ListedFile};
use everpack::tae::{Framer, Ts, Unframer, looks_framed};

use crate::recorded::{Answer, Fault, RecordedServer, Recording, Shared};

fn logical(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if !looks_framed(&bytes[..bytes.len().min(2048)], bytes.len() as u64) {
        return bytes;
    }
    let (mut content, mut unframer) = (Vec::new(), Unframer::new());
    unframer.feed(&bytes, &mut content).unwrap();
    unframer.finish(&mut content).unwrap();
    content
}

fn framed(content: &[u8]) -> Vec<u8> {
    let (mut physical, mut framer) = (Vec::new(), Framer::new());
    framer.feed(content, &mut physical);
    framer.finish(&mut physical);
    physical
}

fn rows(root: &Path) -> Vec<ListedFile> {
    let list = logical(&root.join(tree::TAE_LIST));
    assert_eq!(logical(&root.join("tae/tae_list.sha256")), tree::sha256(&list));
    tree::parse_list(&list).unwrap()
}

/// Every row that says so is there, and says the truth.
fn verify(root: &Path) -> (usize, usize) {
    let meta = std::fs::read(root.join(tree::MO_META)).unwrap();
    assert_eq!(std::fs::read(root.join("mo_meta.sha256")).unwrap(), tree::sha256(&meta));
    assert_eq!(logical(&root.join("hakeeper/hk_data.sha256")), tree::sha256(&logical(&root.join(tree::HK_DATA))));
    let (mut here, mut elsewhere) = (0, 0);
    for row in rows(root) {
        let path = root.join("tae").join(&row.path);
        if !row.copied {
            assert!(!path.exists() && row.sha256.is_none());
            elsewhere += 1;
        } else if let Some(sha256) = row.sha256 {
            let content = logical(&path);
            assert_eq!((content.len() as u64, tree::sha256(&content)), (row.size, sha256), "{}", row.path);
            here += 1;
        }
    }
    (here, elsewhere)
}

fn stable_objects(root: &Path) -> Vec<String> {
    let objects = rows(root).into_iter().filter(|row| row.object().is_some_and(|name| name.is_content_stable()));
    objects.map(|row| row.path).collect()
}

async fn backup(server: &RecordedServer, sql: &str) -> Result<(), Error> {
    let mut client = Client::connect(&server.login()).await.unwrap();
    client.run(sql).await
}

fn filesystem(root: &Path) -> String {
    format!("backup 'night' filesystem '{}' parallelism '2' type 'full'", root.display())
}

#[tokio::test]
async fn nights_are_placed_one_after_the_other() {
    let Some(recording) = Recording::captured("nights are placed") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let server = RecordedServer::start(recording).await;
    let (first, second) = (scratch.path().join("1"), scratch.path().join("2"));
    backup(&server, &filesystem(&first)).await.unwrap();
    backup(&server, &filesystem(&second)).await.unwrap();
    assert_eq!(verify(&first).1, 0);
    let sum = |root: &Path| tree::parse_sum(&logical(&root.join(tree::TAE_SUM))).unwrap();
    assert!(sum(&first).ts < sum(&second).ts);
    assert_eq!(sum(&first).kind, "full");
    assert_eq!(server.statements().len(), 2);
    // A target that is not fresh is refused, as 20406.
    let error = backup(&server, &filesystem(&first)).await.unwrap_err();
    assert_eq!(ServerError::of(&error).unwrap().code, 20406);
}

#[tokio::test]
async fn what_an_index_or_a_list_names_is_not_copied() {
    let Some(recording) = Recording::captured("what an index names") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let server = RecordedServer::start(recording.clone()).await;
    let first = scratch.path().join("first");
    backup(&server, &filesystem(&first)).await.unwrap();
    let names = stable_objects(&first).join("\n");

    let indexed = scratch.path().join("indexed");
    std::fs::create_dir(&indexed).unwrap();
    std::fs::write(indexed.join("file_index_17-1.idx"), &names).unwrap();
    backup(&server, &filesystem(&indexed)).await.unwrap();
    let (here, elsewhere) = verify(&indexed);
    assert!(here > 0 && elsewhere > 100, "{here} {elsewhere}");

    let listed = scratch.path().join("listed");
    std::fs::create_dir_all(listed.join("tae")).unwrap();
    std::fs::write(listed.join("tae/file_list"), &names).unwrap();
    server.set_night(1);
    backup(&server, &filesystem(&listed)).await.unwrap();
    let supplied = rows(&listed).into_iter().filter(|row| row.copied && !listed.join("tae").join(&row.path).exists());
    assert_eq!(supplied.inspect(|row| assert!(row.sha256.is_none())).count(), elsewhere);

    // Releases that know neither copy everything.
    let old = RecordedServer::start(Recording { release: "8.0.30-MatrixOne-v2.0.3".into(), ..recording }).await;
    let ignored = scratch.path().join("ignored");
    std::fs::create_dir(&ignored).unwrap();
    std::fs::write(ignored.join("file_index_17-1.idx"), &names).unwrap();
    backup(&old, &filesystem(&ignored)).await.unwrap();
    assert_eq!(verify(&ignored).1, 0);
    let meta = std::fs::read_to_string(ignored.join(tree::MO_META)).unwrap();
    assert!(meta.contains("Version: v2.0.3"));
}

#[tokio::test]
async fn framed_targets_want_framed_lists() {
    let Some(recording) = Recording::captured("framed targets") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let server = RecordedServer::start(Recording { shared: Shared::Framed, ..recording }).await;
    let first = scratch.path().join("first");
    backup(&server, &filesystem(&first)).await.unwrap();
    let list = std::fs::read(first.join(tree::TAE_LIST)).unwrap();
    assert!(looks_framed(&list[..2048], list.len() as u64));
    assert_eq!(std::fs::metadata(first.join("tae/tae_list.sha256")).unwrap().len(), 36);
    verify(&first);

    let names = stable_objects(&first).join("\n");
    for (name, bytes, skips) in [("raw", names.clone().into_bytes(), false), ("framed", framed(names.as_bytes()), true)]
    {
        let root = scratch.path().join(name);
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("file_index_17-1.idx"), bytes).unwrap();
        server.set_night(1);
        backup(&server, &filesystem(&root)).await.unwrap();
        assert_eq!(verify(&root).1 > 0, skips, "{name}");
    }
    let root = scratch.path().join("list");
    std::fs::create_dir_all(root.join("tae")).unwrap();
    std::fs::write(root.join("tae/file_list"), &names).unwrap();
    let error = backup(&server, &filesystem(&root)).await.unwrap_err();
    assert!(ServerError::of(&error).unwrap().message.contains("checksum not match"));

    // The endpoint `disk` is raw whatever SHARED is.
    let bucket = scratch.path().join("bucket");
    let sql = format!(
        "backup 'x' s3option {{'endpoint'='disk','bucket'='{}','filepath'='/x/y'}} type 'full'",
        bucket.display()
    );
    backup(&server, &sql).await.unwrap();
    let list = std::fs::read(bucket.join("x/y").join(tree::TAE_LIST)).unwrap();
    assert!(!looks_framed(&list[..2048], list.len() as u64));
}

#[tokio::test]
async fn a_timestamp_leaves_out_what_is_older() {
    let Some(recording) = Recording::captured("a timestamp") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let server = RecordedServer::start(recording).await;
    let (first, second) = (scratch.path().join("1"), scratch.path().join("2"));
    backup(&server, &filesystem(&first)).await.unwrap();
    let ts = tree::parse_sum(&logical(&first.join(tree::TAE_SUM))).unwrap().ts.unwrap();
    backup(&server, &format!("{} timestamp '{ts}'", filesystem(&second))).await.unwrap();
    let (here, elsewhere) = verify(&second);
    assert!(here > 10 && elsewhere > 50, "{here} {elsewhere}");
    let error =
        backup(&server, &format!("{} timestamp 'garbage'", filesystem(&scratch.path().join("3")))).await.unwrap_err();
    assert!(ServerError::of(&error).unwrap().message.contains("panic format of ts"));
}

#[tokio::test]
async fn faults_are_what_they_say() {
    let Some(recording) = Recording::captured("faults") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let mut server = RecordedServer::start(recording).await;
    let whole = scratch.path().join("whole");
    backup(&server, &filesystem(&whole)).await.unwrap();
    let row_count = rows(&whole).len();
    let missing =
        |root: &Path| rows(root).iter().filter(|row| row.copied && !root.join("tae").join(&row.path).exists()).count();

    let play = async |server: &RecordedServer, name: &str, fault| {
        server.set_night(0);
        server.next_fault(fault);
        let root = scratch.path().join(name);
        (backup(server, &filesystem(&root)).await, root)
    };
    let (done, root) = play(&server, "vanished", Fault::VanishedObject).await;
    done.unwrap();
    assert_eq!((rows(&root).len(), missing(&root)), (row_count - 1, 0));
    let (done, root) = play(&server, "missing", Fault::MissingObject).await;
    done.unwrap();
    assert_eq!((rows(&root).len(), missing(&root)), (row_count, 1));
    let (done, root) = play(&server, "sha", Fault::WrongSha).await;
    done.unwrap();
    let wrong = rows(&root).into_iter().filter(|row| row.sha256.is_some_and(|sha256| sha256 == [0x5a; 32]));
    assert_eq!(wrong.count(), 1);
    let (done, root) = play(&server, "ids", Fault::MissingHkData).await;
    done.unwrap();
    assert!(!root.join(tree::HK_DATA).exists() && root.join(tree::MO_META).exists());
    for (name, fault, code) in [
        ("refused", Fault::Refuses { code: 20101, message: "internal error: no".into() }, 20101),
        ("full", Fault::DiskFull, 1105),
    ] {
        let (done, root) = play(&server, name, fault).await;
        assert_eq!(ServerError::of(&done.unwrap_err()).unwrap().code, code);
        assert!(!root.join(tree::MO_META).exists());
    }
    let (done, root) = play(&server, "cut", Fault::Cut).await;
    assert!(ServerError::of(&done.unwrap_err()).is_none());
    assert!(root.join("tae").exists() && !root.join(tree::MO_META).exists());
    Client::connect(&server.login()).await.unwrap().close().await;
    let (done, root) = play(&server, "killed", Fault::Killed).await;
    assert!(ServerError::of(&done.unwrap_err()).is_none());
    assert!(root.join("tae").exists() && !root.join(tree::MO_META).exists());
    Client::connect(&server.login()).await.unwrap_err();
    server.revive();
    let (done, _) = play(&server, "slow", Fault::Slow(Duration::from_millis(1))).await;
    done.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_backup_can_be_killed() {
    let Some(mut recording) = Recording::captured("a slow backup") else { return };
    let scratch = tempfile::tempdir().unwrap();
    recording.faults = vec![Some(Fault::Slow(Duration::from_millis(100)))];
    let server = RecordedServer::start(recording).await;
    let root = scratch.path().join("slow");
    let mut client = Client::connect(&server.login()).await.unwrap();
    let (id, sql) = (client.id(), filesystem(&root));
    let running = tokio::spawn(async move { client.run(&sql).await });
    while !root.join("tae").exists() {
        tokio::task::yield_now().await;
    }
    Client::kill(&server.login(), id).await.unwrap();
    let error = running.await.unwrap().unwrap_err();
    let said = ServerError::of(&error).unwrap();
    assert_eq!((said.code, said.message.as_str()), (1105, "context canceled"));
    assert!(!root.join(tree::MO_META).exists());
}

#[tokio::test]
async fn transcripts_answer_in_the_order_of_their_story() {
    let Some(recording) = Recording::captured("transcripts answer") else { return };
    let server = RecordedServer::start(recording).await;
    let mut client = Client::connect(&server.login()).await.unwrap();
    let error = client.run("DROP SNAPSHOT `nosuch`").await.unwrap_err();
    assert_eq!(ServerError::of(&error).unwrap().message, "internal error: snapshot nosuch does not exist");
    client.run("CREATE PITR `p_db` FOR DATABASE `shop` RANGE 10 'd'").await.unwrap();
    let rows = client.query("SHOW PITR").await.unwrap();
    assert!(rows.iter().any(|row| row[0].as_deref() == Some("p_db") && row[7].as_deref() == Some("10")));
    client.run("RESTORE TABLE `shop`.`orders` {SNAPSHOT = `sn_tab`}").await.unwrap();
    // The tenant was told something else.
    let mut tenant = Client::connect(&server.login_as("a1#admin", "111")).await.unwrap();
    let error = tenant.run("create snapshot a1c for cluster").await.unwrap_err();
    assert!(ServerError::of(&error).unwrap().message.contains("only sys tenant"));

    // A malformed checker kills a real server.
    let error = client.run("select mo_ctl('dn','DiskCleaner','add_checker.backup.garbage')").await.unwrap_err();
    assert!(ServerError::of(&error).is_none());
    Client::connect(&server.login()).await.unwrap_err();
}

#[tokio::test]
#[should_panic(expected = "does not know")]
async fn statements_that_nobody_knows_fail_a_test() {
    let server = RecordedServer::start(Recording::default()).await;
    let mut client = Client::connect(&server.login()).await.unwrap();
    client.run("select 17").await.unwrap_err();
}

#[tokio::test]
async fn what_backup_asks_besides_is_answered() {
    let Some(recording) = Recording::captured("mo_ctl") else { return };
    let server = RecordedServer::start(recording).await;
    let mut client = Client::connect(&server.login()).await.unwrap();
    let ts = Ts::parse(b"1795235280963135674-1").unwrap();
    for control in [Control::Checkpoint, Control::GlobalCheckpoint, Control::Protect(ts), Control::Unprotect] {
        client.control(&control).await.unwrap();
    }
    let mut bystander = Client::connect(&server.login_as("bk", "111")).await.unwrap();
    let error = bystander.control(&Control::Checkpoint).await.unwrap_err();
    assert!(ServerError::of(&error).unwrap().is_privilege(), "{error}");
    assert_eq!(server.statements().len(), 5);
}

/// A real server's story, told again by our own statements.
#[tokio::test]
async fn snapshots_and_points_in_time_are_asked_for_as_a_real_server_understood() {
    let Some(recording) = Recording::captured("snapshots and PITR") else { return };
    let server = RecordedServer::start(recording).await;
    let mut client = Client::connect(&server.login()).await.unwrap();
    let asker = client.asker().await.unwrap();
    let account = |name: &str| sql::create_snapshot(&asker, name, SnapshotLevel::Account, Some("a1")).unwrap();
    let mut steps = sql::create_snapshot(&asker, "sn_cluster", SnapshotLevel::Cluster, None).unwrap();
    steps.extend(account("sn_acc"));
    client.run_steps(&steps).await.unwrap();
    let snapshots = client.snapshots().await.unwrap();
    assert_eq!(snapshots.last().unwrap().name, "sn_cluster");
    let of_account = SnapshotFilter { account: Some("a1".into()), ..SnapshotFilter::default() };
    let rows = of_account.apply(snapshots.clone()).unwrap();
    assert!(rows.len() == 1 && rows[0].name == "sn_acc" && rows[0].timestamp == "2026-11-21 04:33:38.262682212");

    let asker = client.asker().await.unwrap();
    let wanted = SnapshotRestore { name: "nosuch".into(), ..SnapshotRestore::default() };
    let steps = sql::restore_snapshot(&asker, &wanted, &snapshots).unwrap();
    let error = client.run_steps(&steps).await.unwrap_err();
    assert!(ServerError::of(&error).unwrap().message.contains("find 0 snapshot records"), "{error}");

    let asker = client.asker().await.unwrap();
    let range = |value, unit| PitrRange::new(value, unit).unwrap();
    let object = |level, account: Option<&str>, database: Option<&str>| PitrObject {
        level,
        account: account.map(str::to_owned),
        database: database.map(str::to_owned),
        table: None,
    };
    let mut steps =
        sql::create_pitr(&asker, "p_cluster", &object(PitrLevel::Cluster, None, None), &range(1, "h")).unwrap();
    steps.extend(
        sql::create_pitr(&asker, "p_acc", &object(PitrLevel::Account, Some("a1"), None), &range(2, "d")).unwrap(),
    );
    steps.extend(
        sql::create_pitr(&asker, "p_db", &object(PitrLevel::Database, None, Some("shop")), &range(10, "d")).unwrap(),
    );
    client.run_steps(&steps).await.unwrap();
    let pitrs = client.pitrs().await.unwrap();
    let cluster = pitrs.iter().find(|row| row.name == "p_cluster").unwrap();
    assert_eq!((cluster.level.as_str(), cluster.account.as_str(), cluster.length.as_str()), ("cluster", "*", "1"));
    let restore = |name: &str, account: Option<&str>, database: Option<&str>| PitrRestore {
        name: name.into(),
        timestamp: "2026-11-21 04:33:48".into(),
        account: account.map(str::to_owned),
        database: database.map(str::to_owned),
        ..PitrRestore::default()
    };
    for wanted in [
        restore("p_db", None, Some("shop")),
        restore("p_acc", Some("a1"), None),
        restore("p_self", None, None),
        PitrRestore { cluster: Some("sys".into()), ..restore("p_cluster", None, None) },
    ] {
        let asker = client.asker().await.unwrap();
        let steps = sql::restore_pitr(&asker, &wanted, &pitrs).unwrap();
        client.run_steps(&steps).await.unwrap();
    }
    let asker = client.asker().await.unwrap();
    let steps =
        [sql::alter_pitr(&asker, "p_db", &range(5, "d")), sql::drop_pitr(&asker, "p_tab")].map(Result::unwrap).concat();
    client.run_steps(&steps).await.unwrap();
    assert_eq!(server.unknown(), Vec::<String>::new());
}

#[tokio::test]
async fn what_an_earlier_statement_left_is_told_when_a_later_one_fails() {
    let server = RecordedServer::start(Recording::default()).await;
    server.answer("create account b admin_name 'adm' identified by 'hunter2'", Answer::Done { affected: 0 });
    server.answer("restore account a {snapshot = s} to account b", Answer::error(20101, "internal error: no"));
    let mut client = Client::connect(&server.login()).await.unwrap();
    let new = NewAccount { name: "b".into(), admin: "adm".into(), password: Secret::new("hunter2") };
    let wanted = SnapshotRestore {
        name: "s".into(),
        account: Some("a".into()),
        new_account: Some(new),
        ..SnapshotRestore::default()
    };
    let asker = client.asker().await.unwrap();
    let steps = sql::restore_snapshot(&asker, &wanted, &[]).unwrap();
    let error = client.run_steps(&steps).await.unwrap_err();
    assert!(error.to_string().contains("the account b was made and stays"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert_eq!(ServerError::of(&error).unwrap().code, 20101);
}
