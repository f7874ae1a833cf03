//! A night of a cluster of many objects, one in a hundred of them new: what everpack itself costs beside the server. Times are printed, memory is asserted.
//!
//! `EVERPACK_SCALE=full` takes a million objects, otherwise thirty thousand. The binary is a process of its own, so that its memory is what is measured.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use everpack::clock::SystemClock;
use everpack::entropy::SystemEntropy;
use everpack::matrixone::tree::{self, TAE_LIST};
use everpack::ops::backup::{BackupOptions, backup};
use everpack::progress::Silent;
use everpack::repo::{Environment, InitOptions, Process, Repository};
use everpack::store::{Store, StoreOptions};
use everpack::testing::scale_source::{FILE_LEN, SyntheticKind, SyntheticSource};

use crate::recorded::{Answer, RecordedServer, Recording, TreeSource};

/// Bytes of an object.
const LEN: usize = 64;
const MEMORY_MOST: u64 = 256 << 20;
const MADE: &str = "select unix_timestamp(created_time) from mo_catalog.mo_account where account_id = 0";

/// A night: what a small one has, and so many objects more, of which only the last ones are new.
fn make_night(small: &Path, night: &Path, held: u64, new: u64) {
    let copied = Command::new("cp").args(["-r", "--"]).arg(small).arg(night).status().unwrap();
    assert!(copied.success());
    let list = night.join(TAE_LIST);
    let mut rows = std::io::BufWriter::new(std::fs::File::options().append(true).open(&list).unwrap());
    for number in 1..=held + new {
        let name = SyntheticSource::object_name(number);
        let content = [u8::try_from(number % 251).unwrap(); LEN];
        // The digest of what is held is never read: the server leaves the file out.
        let digest = if number > held { tree::sha256(&content) } else { [0; 32] };
        writeln!(rows, "{name},{FILE_LEN},{},true,1795235222960374816-0", tree::hex_of_digest(&digest)).unwrap();
        if number > held {
            std::fs::write(night.join("tae").join(&name), content).unwrap();
        }
    }
    rows.flush().unwrap();
    let digest = tree::sha256(&std::fs::read(&list).unwrap());
    std::fs::write(night.join("tae/tae_list.sha256"), digest).unwrap();
}

fn anonymous_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_of_many_objects_costs_little_beside_the_server() {
    assert_eq!(LEN as u64, FILE_LEN);
    let Some(mut recording) = Recording::captured("a night of many objects") else { return };
    let full = std::env::var("EVERPACK_SCALE").is_ok_and(|scale| scale == "full");
    let held: u64 = if full { 1_000_000 } else { 30_000 };
    let new = held / 100;
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (repo, stage, cache) = (path("repo"), path("stage"), path("cache"));
    std::fs::create_dir(&stage).unwrap();
    let environment = Environment {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        process: Process::current(),
        cache: Some(cache.clone()),
    };
    let store = Store::create_root(repo.to_str().unwrap(), &StoreOptions::default()).unwrap();
    let repository = Repository::create(store, &InitOptions::default(), environment).await.unwrap();
    let objects = SyntheticSource::new(SyntheticKind::Objects, held).below("tae");
    let options = BackupOptions { lineage: Some("large".to_owned()), ..BackupOptions::default() };
    backup(&repository, Box::new(objects), &options, Arc::new(Silent)).await.unwrap();
    drop(repository);

    make_night(&recording.nights[0].root, &path("night"), held, new);
    recording.nights = vec![TreeSource::at(path("night"))];
    recording.answers.push((MADE.to_owned(), Answer::rows(&["made"], &[&["1795235194"]])));
    let server = RecordedServer::start(recording).await;
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_everpack"))
        .args(["--json", "-r"])
        .arg(&repo)
        .arg("--cache")
        .arg(&cache)
        .args(["backup", "--lineage", "large", "--stage"])
        .arg(&stage)
        .arg(server.url())
        .env("EVERPACK_MO_PASSWORD", "111")
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(path("said")).unwrap())
        .spawn()
        .unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(anonymous_memory(child.id()));
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = begun.elapsed();
    let out = child.wait_with_output().unwrap();
    let said = std::fs::read_to_string(path("said")).unwrap();
    assert!(out.status.success() || out.status.code() == Some(2), "{:?}: {said}", out.status);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let server_seconds = report["server_duration"].as_f64().unwrap();
    println!(
        "{held} objects held, {new} new: {:.1} s, of which the server {server_seconds:.1} s; peak RssAnon {} MiB; {report}",
        took.as_secs_f64(),
        peak >> 20
    );
    assert_eq!(report["objects_held"].as_u64(), Some(held), "{report}");
    assert!(report["files_unchanged"].as_u64() >= Some(held), "{report}");
    assert!(peak > 1 << 20 && peak <= MEMORY_MOST, "{} MiB", peak >> 20);
}
