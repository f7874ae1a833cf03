//! Backups of a running server: a killed, faulty or lying server never leaves a backup that does not restore.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use everpack::clock::SystemClock;
use everpack::entropy::SystemEntropy;
use everpack::error::{Error, ErrorKind, Result};
use everpack::matrixone::login::Login;
use everpack::matrixone::tree;
use everpack::ops::backup::BackupOptions;
use everpack::ops::check::{CheckOptions, check};
use everpack::ops::live::{self, LiveOptions, LiveReport, Place, SkipBy, StageOptions, StageTarget};
use everpack::ops::restore::{RestoreOptions, restore};
use everpack::progress::{Event, Monitor, Silent};
use everpack::repo::{Environment, InitOptions, Process, Repository};
use everpack::store::{Store, StoreOptions};
use everpack::tae::{TaeName, Unframer, looks_framed};

use crate::recorded::{Answer, Fault, RecordedServer, Recording, Shared, TreeSource};

const MADE: &str = "select unix_timestamp(created_time) from mo_catalog.mo_account where account_id = 0";

/// A repository, a staging directory, and what nights look like.
struct Site {
    repository: Repository,
    scratch: tempfile::TempDir,
    nights: Vec<PathBuf>,
}

fn recording(test: &str) -> Option<Recording> {
    let mut recording = Recording::captured(test)?;
    recording.answers.push((MADE.to_owned(), Answer::rows(&["made"], &[&["1795235194"]])));
    Some(recording)
}

impl Site {
    async fn new(recording: &Recording) -> Self {
        let store = Store::open("memory:", &StoreOptions::default()).unwrap();
        let environment = Environment {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            process: Process::current(),
            cache: None,
        };
        let repository = Repository::create(store, &InitOptions::default(), environment).await.unwrap();
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join("stage")).unwrap();
        let nights = recording.nights.iter().map(|night| night.root.clone()).collect();
        Self { repository, scratch, nights }
    }

    fn stage(&self) -> PathBuf {
        self.scratch.path().join("stage")
    }

    fn options(&self, login: Login) -> LiveOptions {
        LiveOptions {
            login,
            shared: None,
            stage: StageOptions {
                place: Place::Directory(self.stage()),
                at_server: StageTarget::Directory(self.stage().to_str().unwrap().to_owned()),
            },
            parallelism: 2,
            kind: "full".to_owned(),
            full: false,
            facts: Vec::new(),
            backup: BackupOptions { memory: 64 << 20, ..BackupOptions::default() },
        }
    }

    async fn back_up(&self, server: &RecordedServer) -> Result<LiveReport> {
        self.back_up_with(self.options(server.login())).await
    }

    async fn back_up_with(&self, options: LiveOptions) -> Result<LiveReport> {
        live::backup(&self.repository, &options, Arc::new(Silent)).await
    }

    /// Nothing is left where the server wrote.
    fn assert_swept(&self) {
        let left: Vec<_> = std::fs::read_dir(self.stage()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// The backup holds everything that the server lists, as it lies in the captured tree.
    async fn assert_restores(&self, report: &LiveReport, night: &Path, what: &str) {
        let target = self.scratch.path().join("restored");
        let _absent = std::fs::remove_dir_all(&target);
        let backup = self.repository.find_backup(&report.backup.id.to_string()).unwrap();
        let options = RestoreOptions::default();
        let done = restore(&self.repository, &backup, &target, &options, Arc::new(Silent)).await.unwrap();
        assert_eq!(done.damaged_count, 0, "{what}: {:?}", done.damaged);
        let (restored, expected) = (objects(&target), objects(night));
        assert!(restored.len() > 100, "{what}: {}", restored.len());
        for (path, bytes) in &expected {
            let found = restored.get(path).unwrap_or_else(|| panic!("{what}: {path} is not in the backup"));
            assert!(found == bytes, "{what}: {path} differs");
        }
        for path in restored.keys().filter(|path| path.starts_with("tae/") && !path.starts_with("tae/tae_")) {
            assert!(expected.contains_key(path), "{what}: {path} is too much");
        }
        let options = CheckOptions { read_data: true, ..CheckOptions::default() };
        let checked = check(&self.repository, &options, Arc::new(Silent)).await.unwrap();
        assert!(checked.findings.is_empty(), "{what}: {:?}", checked.findings);
    }
}

/// Path → logical bytes of what a restored server needs: `tae/` without its lists, `hakeeper/hk_data`.
fn objects(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.join("tae"), root.join("hakeeper")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let is_list =
                name.ends_with(".sha256") || name.starts_with("tae/tae_") || name.starts_with("tae/file_list");
            if !is_list {
                found.insert(name, logical(&path));
            }
        }
    }
    found
}

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

fn text_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(at) = cause {
        text.push_str(": ");
        text.push_str(&at.to_string());
        cause = at.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn every_night_of_every_release_is_complete_and_the_server_copies_little() {
    let Some(recording) = recording("every night of every release") else { return };
    for (release, shared, expected) in [
        ("8.0.30-MatrixOne-v4.2.0", Shared::Raw, SkipBy::FileIndex),
        ("8.0.30-MatrixOne-v4.1.4", Shared::Framed, SkipBy::FileIndex),
        ("8.0.30-MatrixOne-v3.0.5", Shared::Raw, SkipBy::FileList),
        ("8.0.30-MatrixOne-v2.0.3", Shared::Raw, SkipBy::Timestamp),
        ("8.0.30-MatrixOne-v1.2.3", Shared::Framed, SkipBy::Timestamp),
        ("8.0.30-MatrixOne-v1.1.3", Shared::Framed, SkipBy::Nothing),
        ("8.0.30-MatrixOne-nightly-01ae8eca8", Shared::Raw, SkipBy::FileIndex),
    ] {
        let site = Site::new(&recording).await;
        let server =
            RecordedServer::start(Recording { release: release.to_owned(), shared, ..recording.clone() }).await;
        let mut reports = Vec::new();
        // All nights where the newest way is gone, two of them by the others.
        let nights = if release.ends_with("v4.2.0") { 5 } else { 2 };
        for (night, root) in site.nights.iter().take(nights).enumerate() {
            let report = site.back_up(&server).await.unwrap_or_else(|error| panic!("{release}: {}", text_of(&error)));
            let what = format!("{release}, night {night}");
            assert_eq!((report.attempts, report.healed_count), (1, 0), "{what}");
            site.assert_restores(&report, root, &what).await;
            site.assert_swept();
            reports.push(report);
        }
        assert_eq!(reports[0].skip_by, SkipBy::Nothing, "{release}");
        assert!(reports[1..].iter().all(|report| report.skip_by == expected), "{release}");
        if expected != SkipBy::Nothing {
            assert!(reports[1].server_bytes * 3 < reports[0].server_bytes * 2, "{release}: {reports:#?}");
        }
        // The first backup does not need the others, nor they it.
        site.assert_restores(&reports[0], &site.nights[0], release).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_leaves_out_comes_from_shared_or_is_asked_for_again_or_refused() {
    let Some(recording) = recording("what the server leaves out") else { return };
    for fault in [Fault::MissingObject, Fault::VanishedObject] {
        let site = Site::new(&recording).await;
        let server = RecordedServer::start(recording.clone()).await;
        server.next_fault(fault.clone());
        server.set_night(0);
        let mut options = site.options(server.login());
        // The captured tree is as good as SHARED here: its objects lie under their names.
        options.shared = Some(Place::Directory(site.nights[0].join("tae")));
        options.full = true;
        let report = site.back_up_with(options).await.unwrap();
        assert_eq!((report.attempts, report.healed_count), (1, 1), "{fault:?}: {report:#?}");
        site.assert_restores(&report, &site.nights[0], "healed").await;

        server.next_fault(fault.clone());
        server.set_night(0);
        let report = site.back_up_with(LiveOptions { full: true, ..site.options(server.login()) }).await.unwrap();
        assert_eq!((report.attempts, report.healed_count), (2, 0), "{fault:?}");

        let before = site.repository.backups().len();
        server.set_night(0);
        for _ in 0..3 {
            server.next_fault(fault.clone());
        }
        let error = site.back_up_with(LiveOptions { full: true, ..site.options(server.login()) }).await.unwrap_err();
        let text = text_of(&error);
        assert!(text.contains("missing") && text.contains("after 3 attempts") && text.contains("--shared"), "{text}");
        assert_eq!(site.repository.backups().len(), before);
        site.assert_swept();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hole_of_a_racing_global_checkpoint_is_healed_or_refused() {
    let (Some(recording), Some(data)) = (recording("the hole"), everpack::testing::data::captures("the hole")) else {
        return;
    };
    let set = data.join("hole");
    let recording = Recording { nights: vec![TreeSource::at(set.join("hole"))], ..recording };
    let site = Site::new(&recording).await;
    let server = RecordedServer::start(recording.clone()).await;
    let error = site.back_up(&server).await.unwrap_err();
    let text = text_of(&error);
    assert!(text.contains("would not start without it"), "{text}");
    assert!(site.repository.backups().is_empty());
    site.assert_swept();

    let shared = Some(Place::Directory(set.join("missing")));
    let report = site.back_up_with(LiveOptions { shared, ..site.options(server.login()) }).await.unwrap();
    assert!(report.healed_count >= 2, "{report:#?}");
    let target = site.scratch.path().join("healed");
    let backup = site.repository.find_backup("latest").unwrap();
    restore(&site.repository, &backup, &target, &RestoreOptions::default(), Arc::new(Silent)).await.unwrap();
    for name in &report.healed {
        let (restored, original) = (target.join("tae").join(name), set.join("missing").join(name));
        assert!(std::fs::read(restored).unwrap() == std::fs::read(original).unwrap(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_leave_no_backup_and_the_next_run_is_as_if_nothing_had_been() {
    let Some(recording) = recording("faults leave no backup") else { return };
    let site = Site::new(&recording).await;
    let mut server = RecordedServer::start(recording.clone()).await;
    site.back_up(&server).await.unwrap();
    for (fault, expected) in [
        (
            Fault::Refuses {
                code: 20101,
                message: "internal error: do not have privilege to execute the statement".into(),
            },
            "log in as",
        ),
        (Fault::DiskFull, "full"),
        (Fault::Cut, "connection"),
        (Fault::Killed, "connection"),
    ] {
        server.set_night(1);
        server.next_fault(fault.clone());
        let error = site.back_up(&server).await.unwrap_err();
        let text = text_of(&error);
        assert!(text.contains(expected), "{fault:?}: {text}");
        assert!(!text.contains("111"), "{text}");
        assert_eq!(site.repository.backups().len(), 1, "{fault:?}");
        if matches!(fault, Fault::Killed) {
            server.revive();
        }
    }
    // What arrives damaged is not believed, and asked for again.
    for fault in [Fault::WrongSha, Fault::MissingHkData] {
        server.set_night(1);
        server.next_fault(fault.clone());
        let report = site.back_up(&server).await.unwrap();
        assert_eq!(report.attempts, 2, "{fault:?}");
        site.assert_restores(&report, &site.nights[1], "after a fault").await;
    }
    site.assert_swept();
}

/// Asks to stop once the server writes.
#[derive(Default)]
struct Impatient(AtomicBool);

impl Monitor for Impatient {
    fn event(&self, event: Event) {
        if matches!(event, Event::Begin { phase: everpack::progress::Phase::Server, .. }) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    fn advance(&self, _bytes: u64, _new_bytes: u64, _items: u64) {}
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_stopped_stops_the_server_too() {
    let Some(recording) = recording("a backup that is stopped") else { return };
    let site = Site::new(&recording).await;
    let server = RecordedServer::start(recording).await;
    server.next_fault(Fault::Slow(Duration::from_millis(200)));
    let begun = std::time::Instant::now();
    let options = site.options(server.login());
    let error = live::backup(&site.repository, &options, Arc::new(Impatient::default())).await.unwrap_err();
    assert!(text_of(&error).contains("stopped on request"), "{}", text_of(&error));
    assert!(begun.elapsed() < Duration::from_secs(20), "the server was waited for");
    assert!(server.all_statements().iter().any(|sql| sql.to_lowercase().starts_with("kill query")));
    site.assert_swept();
    assert!(site.repository.backups().is_empty());
    server.set_night(0);
    site.back_up(&server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cluster_has_one_backup_at_a_time() {
    let Some(recording) = recording("one cluster has one backup") else { return };
    let site = Site::new(&recording).await;
    let server = RecordedServer::start(recording).await;
    server.next_fault(Fault::Slow(Duration::from_millis(30)));
    let first = site.back_up(&server);
    let second = async {
        while !server.statements().iter().any(|sql| sql.to_lowercase().starts_with("backup")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        site.back_up(&server).await
    };
    // Another name for the lineage is no way around the lock.
    let third = async {
        while !server.statements().iter().any(|sql| sql.to_lowercase().starts_with("backup")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut options = site.options(server.login());
        options.backup.lineage = Some("another name".to_owned());
        site.back_up_with(options).await
    };
    let (first, second, third) = tokio::join!(first, second, third);
    first.unwrap();
    for error in [second.unwrap_err(), third.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Busy, "{}", text_of(&error));
    }
    site.back_up(&server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_run_left_goes_and_what_is_others_stays() {
    let Some(recording) = recording("what a dead run left") else { return };
    let site = Site::new(&recording).await;
    let server = RecordedServer::start(recording).await;
    server.next_fault(Fault::Slow(Duration::from_millis(50)));
    let options = site.options(server.login());
    let is_writing = async {
        loop {
            let made = std::fs::read_dir(site.stage()).unwrap().next();
            if let Some(root) = made.map(|entry| entry.unwrap().path()).filter(|root| root.join("tae").exists()) {
                break root;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Dropped in the middle: as if the process were gone, but for its lock.
    let root = tokio::select! {
        done = live::backup(&site.repository, &options, Arc::new(Silent)) => panic!("{done:?}"),
        root = is_writing => root,
    };
    assert!(root.exists());
    let others = site.stage().join("everpack-stage-000000000000-000000000000-x-1");
    std::fs::create_dir(&others).unwrap();
    let mut options = site.options(server.login());
    options.backup.takeover = true;
    server.set_night(0);
    site.back_up_with(options).await.unwrap();
    assert!(!root.exists() && others.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_taken_from_shared_before_the_server_is_asked() {
    let Some(recording) = recording("objects are taken from shared") else { return };
    let site = Site::new(&recording).await;
    let shared = site.scratch.path().join("shared");
    std::fs::create_dir_all(shared.join("udf/sys")).unwrap();
    std::fs::create_dir_all(shared.join("ckp")).unwrap();
    std::fs::write(shared.join("udf/sys/f.py"), "def f(): pass").unwrap();
    // SHARED as it is shortly before: the objects of the night, its checkpoints, and garbage that no checkpoint names.
    let night = site.nights[0].join("tae");
    for entry in std::fs::read_dir(&night).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if TaeName::parse(name.as_bytes()).is_some() {
            std::fs::copy(&path, shared.join(&name)).unwrap();
        }
    }
    for entry in std::fs::read_dir(night.join("ckp")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, shared.join("ckp").join(path.file_name().unwrap())).unwrap();
    }
    let garbage = "018f0000-0000-7000-8000-000000000000_00000";
    std::fs::write(shared.join(garbage), "written, and not yet named").unwrap();

    let server = RecordedServer::start(recording).await;
    let options = LiveOptions { shared: Some(Place::Directory(shared)), ..site.options(server.login()) };
    let report = site.back_up_with(options.clone()).await.unwrap();
    assert!(report.objects_ahead > 100 && report.skip_by == SkipBy::FileIndex, "{report:#?}");
    assert!(report.server_bytes * 4 < report.bytes_ahead, "{report:#?}");
    site.assert_restores(&report, &site.nights[0], "from SHARED").await;
    let udf = site.scratch.path().join("restored/udf/sys/f.py");
    assert_eq!(std::fs::read_to_string(udf).unwrap(), "def f(): pass");
    assert!(!site.scratch.path().join("restored/tae").join(garbage).exists());

    let report = site.back_up_with(options).await.unwrap();
    assert_eq!(report.objects_ahead, 0);
    site.assert_restores(&report, &site.nights[1], "the night after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_back_up_is_told_why() {
    let Some(mut recording) = recording("who may not back up") else { return };
    recording.others.push(("a1#admin".to_owned(), "111".to_owned()));
    let site = Site::new(&recording).await;
    let server = RecordedServer::start(recording).await;
    let error = site.back_up_with(site.options(server.login_as("a1#admin", "111"))).await.unwrap_err();
    assert!(text_of(&error).contains("account sys alone"), "{}", text_of(&error));
    let error = site.back_up_with(site.options(server.login_as("root", "wrong"))).await.unwrap_err();
    assert!(text_of(&error).contains("password is wrong"), "{}", text_of(&error));
    // The server writes where we do not look.
    let mut options = site.options(server.login());
    let elsewhere = site.scratch.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    options.stage.at_server = StageTarget::Directory(elsewhere.to_str().unwrap().to_owned());
    let error = site.back_up_with(options).await.unwrap_err();
    assert!(text_of(&error).contains("--stage-at-server"), "{}", text_of(&error));
    site.assert_swept();
    assert!(site.repository.backups().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_says_what_it_is() {
    let Some(recording) = recording("a backup says what it is") else { return };
    let site = Site::new(&recording).await;
    let server = RecordedServer::start(recording).await;
    let report = site.back_up(&server).await.unwrap();
    let backup = site.repository.find_backup("latest").unwrap();
    let manifest = site.repository.manifest(&backup.id).await.unwrap();
    let fact = |key: &str| manifest.facts.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let sum = tree::parse_sum(&logical(&site.nights[0].join(tree::TAE_SUM))).unwrap();
    assert_eq!(fact(live::facts::BACKUP_TS), sum.ts.map(|ts| ts.to_string()));
    assert_eq!(fact(live::facts::RELEASE).as_deref(), Some("v4.2.0"));
    assert_eq!(fact(live::facts::CLUSTER).as_deref(), Some(report.cluster.as_str()));
    assert_eq!(manifest.source_kind, "matrixone");
    assert!(manifest.lineage_name.starts_with("matrixone:") && !format!("{manifest:?}").contains("111\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_the_list_has_wrong_is_settled_by_the_digest() {
    let Some(mut recording) = recording("a size that the list has wrong") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let night = scratch.path().join("night");
    let copied =
        std::process::Command::new("cp").arg("-r").arg(&recording.nights[0].root).arg(&night).status().unwrap();
    assert!(copied.success());
    // A real server was seen to list an object of garbage collection with the size of the file that names it.
    let mut rows = tree::parse_list(&logical(&night.join(tree::TAE_LIST))).unwrap();
    let wrong = rows.iter_mut().find(|row| row.sha256.is_some() && row.object().is_some() && row.size > 1000).unwrap();
    wrong.size = 606;
    let list = tree::write_list(&rows);
    std::fs::write(night.join("tae/tae_list.sha256"), tree::sha256(&list)).unwrap();
    std::fs::write(night.join(tree::TAE_LIST), list).unwrap();
    recording.nights = vec![TreeSource::at(night.clone())];
    let site = Site::new(&recording).await;
    let server = RecordedServer::start(recording).await;
    let report = site.back_up(&server).await.unwrap();
    assert_eq!(report.attempts, 1);
    site.assert_restores(&report, &night, "a wrong size").await;
}
