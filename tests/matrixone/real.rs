//! Against a real server: `EVERPACK_TEST_MO_SERVICE` names its binary. Loads, churns, backs up night after night, restores each night, starts a server
//! on it, and compares every answer with the one of that night; after a checkpoint, a restart and a kill again. Visible skip otherwise.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use everpack::clock::SystemClock;
use everpack::entropy::SystemEntropy;
use everpack::matrixone::client::{Client, Row};
use everpack::matrixone::login::Secret;
use everpack::matrixone::sql::S3Target;
use everpack::ops::backup::BackupOptions;
use everpack::ops::drill::{DrillBackend, DrillOptions, FreshServer, drill};
use everpack::ops::live::{self, LiveOptions, LiveReport, Place, StageOptions, StageTarget};
use everpack::progress::Silent;
use everpack::repo::{Environment, InitOptions, Process, Repository};
use everpack::store::{Store, StoreOptions};

const PATIENCE: Duration = Duration::from_secs(240);

fn binary(test: &str) -> Option<PathBuf> {
    let binary = std::env::var_os("EVERPACK_TEST_MO_SERVICE").map(PathBuf::from);
    if binary.is_none() {
        eprintln!("SKIPPED {test}: EVERPACK_TEST_MO_SERVICE names no server");
    }
    binary
}

const QUERIES: [&str; 4] = [
    "select count(*), sum(id), sum(crc32(note)), sum(total) from shop.orders",
    "select count(*), sum(id), sum(crc32(t)) from shop.log",
    "select c, count(*), sum(total) from shop.orders group by c order by c limit 20",
    "select count(*) from mo_catalog.mo_tables where reldatabase = 'shop'",
];

async fn answers(client: &mut Client) -> Vec<Vec<Row>> {
    let mut answers = Vec::new();
    for query in QUERIES {
        answers.push(client.query(query).await.unwrap());
    }
    answers
}

/// A bucket of the test's own, as everpack and as the server reach it.
fn bucket(test: &str) -> Option<StageOptions> {
    let server = everpack::testing::s3::server(test, "EVERPACK_TEST_S3")?;
    let url = server.url("stage");
    let prefix = url.rsplit('/').next().unwrap().to_owned();
    let place = Place::Bucket { url, options: server.options.clone() };
    let target = S3Target {
        endpoint: server.options.endpoint.clone(),
        access_key_id: server.options.access_key.clone(),
        secret_access_key: server.options.secret_key.clone().map(Secret::new),
        bucket: server.bucket.clone(),
        filepath: prefix,
        region: Some(server.options.region.clone().unwrap_or_else(|| "us-east-1".to_owned())),
        ..S3Target::default()
    };
    Some(StageOptions { place, at_server: StageTarget::Bucket(target) })
}

/// A day: new rows, changed rows, rows that go, and every second day a new table and a merge by flush.
async fn churn(client: &mut Client, day: u64) {
    client.run("create database if not exists shop").await.unwrap();
    let orders =
        "create table if not exists shop.orders (id bigint primary key, c int, note varchar(200), total decimal(15,2))";
    client.run(orders).await.unwrap();
    client
        .run("create table if not exists shop.log (id bigint auto_increment primary key, t varchar(200))")
        .await
        .unwrap();
    for block in 0..8 {
        let base = day * 1_000_000 + block * 1000;
        let rows: Vec<String> =
            (base..base + 1000).map(|id| format!("({id}, {}, 'note {}', {}.5)", id % 977, id * 7, id % 5003)).collect();
        client.run(&format!("insert into shop.orders values {}", rows.join(","))).await.unwrap();
        let rows: Vec<String> = (base..base + 300).map(|id| format!("('line {id} of day {day}')")).collect();
        client.run(&format!("insert into shop.log (t) values {}", rows.join(","))).await.unwrap();
    }
    client.run(&format!("update shop.orders set total = total + 1 where id % 97 = {}", day % 97)).await.unwrap();
    client.run(&format!("delete from shop.orders where id % 101 = {}", day % 101)).await.unwrap();
    if day.is_multiple_of(2) {
        client.run(&format!("create table shop.extra_{day} (a int, b varchar(20))")).await.unwrap();
        client.run(&format!("insert into shop.extra_{day} values (1, 'x'), (2, 'y')")).await.unwrap();
    }
    for table in ["shop.orders", "shop.log"] {
        client.run(&format!("select mo_ctl('dn','flush','{table}')")).await.unwrap();
    }
    if day.is_multiple_of(3) {
        client.run("select mo_ctl('dn','checkpoint','')").await.unwrap();
    }
}

async fn repository() -> Repository {
    let store = Store::open("memory:", &StoreOptions::default()).unwrap();
    let environment = Environment {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        process: Process::current(),
        cache: None,
    };
    Repository::create(store, &InitOptions::default(), environment).await.unwrap()
}

struct Night {
    report: LiveReport,
    answers: Vec<Vec<Row>>,
}

async fn nights(binary: &Path, backend: DrillBackend, shared_folder: &str, bucket: Option<StageOptions>) {
    let scratch = tempfile::tempdir().unwrap();
    let (data, stage) = (scratch.path().join("server"), scratch.path().join("stage"));
    std::fs::create_dir(&data).unwrap();
    std::fs::create_dir(&stage).unwrap();
    let server = FreshServer::start(binary, &data, backend, PATIENCE).await.unwrap();
    let repository = repository().await;
    let mut nights = Vec::new();
    for day in 1..=5 {
        let mut client = Client::connect(&server.login()).await.unwrap();
        churn(&mut client, day).await;
        let answers = answers(&mut client).await;
        client.close().await;
        // The first night the server copies everything, later ones with and without SHARED in reach.
        let shared = (day >= 3).then(|| Place::Directory(data.join("mo-data").join(shared_folder)));
        let options = LiveOptions {
            login: server.login(),
            shared,
            // Where there is a bucket, every second night is staged in it.
            stage: match &bucket {
                Some(bucket) if day.is_multiple_of(2) => bucket.clone(),
                _ => StageOptions {
                    place: Place::Directory(stage.clone()),
                    at_server: StageTarget::directory(&stage).unwrap(),
                },
            },
            parallelism: 2,
            kind: "full".to_owned(),
            full: false,
            facts: Vec::new(),
            backup: BackupOptions::default(),
        };
        let report = live::backup(&repository, &options, Arc::new(Silent)).await.unwrap();
        println!("{backend:?}, night {day}: {report:?}");
        assert_eq!(std::fs::read_dir(&stage).unwrap().count(), 0);
        nights.push(Night { report, answers });
    }
    let first = &nights[0].report;
    for night in &nights[1..] {
        assert!(night.report.server_bytes < night.report.backup.totals.bytes, "{:?}", night.report);
        assert!(night.report.objects_held > 0, "{:?}", night.report);
    }
    assert!(nights.iter().any(|night| night.report.objects_ahead > 0), "SHARED gave nothing ahead");
    assert_eq!(first.objects_held, 0);
    drop(server);

    let queries = scratch.path().join("queries.sql");
    std::fs::write(&queries, QUERIES.map(|query| format!("{query};\n")).concat()).unwrap();
    // The first ones, the last, and one in the middle, on both kinds of SHARED.
    for (at, backend) in [(0, backend), (1, backend), (2, DrillBackend::Disk), (4, backend)] {
        let night = &nights[at];
        let backup = repository.find_backup(&night.report.backup.id.to_string()).unwrap();
        let mut options = DrillOptions::new(binary, scratch.path());
        options.query_file = Some(queries.clone());
        options.backend = Some(backend);
        options.patience = PATIENCE;
        let drilled = drill(&repository, &backup, &options, Arc::new(Silent)).await.unwrap();
        assert!(drilled.ok, "night {at} on {backend:?}: {drilled:#?}");
        for (query, expected) in drilled.queries.iter().zip(&night.answers) {
            assert!(query.same && query.rows == *expected, "night {at}: {query:#?}, expected {expected:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nights_of_a_raw_cluster_start_and_answer_as_they_did() {
    let Some(binary) = binary("nights of a raw cluster") else { return };
    nights(&binary, DrillBackend::DiskEndpoint, "shared2", bucket("nights staged in a bucket")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nights_of_a_framed_cluster_start_and_answer_as_they_did() {
    let Some(binary) = binary("nights of a framed cluster") else { return };
    nights(&binary, DrillBackend::Disk, "shared", None).await;
}
