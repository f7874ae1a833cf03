//! Damage of every kind of object, done on disk, and what a check and a scrub say of it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{CheckOptions, CheckReport, Finding, Sample, Severity, check};
use crate::clock::{ManualClock, Timestamp};
use crate::entropy::SeededEntropy;
use crate::error::{ErrorKind, Result};
use crate::ops::backup::{BackupOptions, BackupReport, backup};
use crate::ops::restore::{RestoreOptions, restore};
use crate::progress::{Event, Monitor, Phase, Silent};
use crate::repo::{Environment, InitOptions, OpenOptions, Process, Repository};
use crate::source::{DirectoryOptions, DirectorySource};
use crate::store::{Store, StoreOptions};

/// A repository on disk, and a directory that is backed up into it.
struct Scene {
    root: tempfile::TempDir,
    clock: Arc<ManualClock>,
    seed: AtomicU64,
}

impl Scene {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_nanos(4_000_000_000_000_000_000)));
        let scene = Self { root: tempfile::tempdir().unwrap(), clock, seed: AtomicU64::new(1) };
        let options = InitOptions { pack_target: 1 << 20, ..InitOptions::default() };
        std::fs::create_dir(scene.path("repo")).unwrap();
        let store = scene.store().unwrap();
        Repository::create(store, &options, scene.environment()).await.unwrap();
        scene
    }

    /// With three directories of files backed up once: more than one data pack, one meta pack.
    async fn backed_up() -> Self {
        let scene = Self::new().await;
        for (directory, seed) in [("one", 1u64), ("two", 2), ("three", 3)] {
            scene.write(&format!("{directory}/large"), &noise(900_000, seed));
            scene.write(&format!("{directory}/small"), format!("the small file of {directory}").as_bytes());
        }
        scene.back_up().await;
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn environment(&self) -> Environment {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        Environment {
            clock: Arc::clone(&self.clock) as Arc<_>,
            entropy: Arc::new(SeededEntropy::new(seed)),
            process: Process::current(),
            cache: Some(self.path("cache")),
        }
    }

    fn store(&self) -> Result<Store> {
        Store::open(self.path("repo").to_str().unwrap(), &StoreOptions::default())
    }

    async fn open(&self) -> Result<Repository> {
        Repository::open(self.store()?, OpenOptions::default(), self.environment()).await
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path("source").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    async fn back_up(&self) -> BackupReport {
        self.clock.advance(Duration::from_secs(86_400));
        let repository = self.open().await.unwrap();
        let source = DirectorySource::open(&self.path("source"), &DirectoryOptions::default()).unwrap();
        backup(&repository, Box::new(source), &BackupOptions::default(), Arc::new(Silent)).await.unwrap()
    }

    async fn check_with(&self, options: CheckOptions) -> CheckReport {
        let repository = self.open().await.unwrap();
        check(&repository, &options, Arc::new(Silent)).await.unwrap()
    }

    async fn check(&self) -> CheckReport {
        self.check_with(CheckOptions::default()).await
    }

    async fn scrub(&self) -> CheckReport {
        self.check_with(CheckOptions { read_data: true, ..CheckOptions::default() }).await
    }

    /// The files below a folder of the repository, largest first.
    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("repo").join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort_by_key(|path| (std::cmp::Reverse(path.metadata().unwrap().len()), path.clone()));
        found
    }

    fn drop_cache(&self) {
        std::fs::remove_dir_all(self.path("cache")).unwrap();
    }
}

/// Bytes that do not compress, and differ by seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    crate::entropy::Entropy::fill(&SeededEntropy::new(seed.wrapping_mul(7919)), &mut bytes).unwrap();
    bytes
}

fn flip(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path, len: u64) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn len(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

/// The object's file name begins with its hash, which a finding names.
fn hash_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap()[..64].to_owned()
}

/// The one finding that is worse than a note.
fn only(report: &CheckReport) -> &Finding {
    let bad: Vec<_> = report.findings.iter().filter(|finding| finding.severity > Severity::Note).collect();
    assert_eq!(bad.len(), 1, "{:#?}", report.findings);
    bad[0]
}

fn about<'a>(report: &'a CheckReport, object: &str) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.object.contains(object));
    found.unwrap_or_else(|| panic!("nothing about {object}: {:#?}", report.findings))
}

fn touched(finding: &Finding) -> Vec<&str> {
    finding.touches.iter().map(|touched| touched.path.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_repository_is_clean() {
    let scene = Scene::new().await;
    let report = scene.scrub().await;
    assert_eq!((report.findings.as_slice(), report.worst(), report.complete), (&[][..], None, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_repository_is_clean_and_counted() {
    let scene = Scene::backed_up().await;
    scene.write("one/another", b"a second night");
    scene.back_up().await;
    let report = scene.scrub().await;
    assert_eq!(report.findings, []);
    let packs = scene.objects("packs").len() + scene.objects("meta").len();
    assert_eq!((report.backups, report.log_entries, report.segments), (2, 5, 2));
    assert_eq!((report.packs, report.packs_read), (packs as u64, packs as u64));
    let bytes: u64 = scene.objects("packs").iter().chain(&scene.objects("meta")).map(|path| len(path)).sum();
    assert_eq!(report.bytes_read, bytes);
    assert_eq!(report.entries, 9 + 10);
    assert!(report.chunks > 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_data_pack_touches_its_files_and_the_next_backup_heals_them() {
    let scene = Scene::backed_up().await;
    let pack = scene.objects("packs").remove(0);
    std::fs::remove_file(&pack).unwrap();
    let report = scene.check().await;
    let finding = only(&report);
    assert_eq!(finding.severity, Severity::Error);
    assert!(finding.object.contains(&hash_of(&pack)), "{finding:?}");
    assert!(finding.what.contains("missing") && finding.heal.contains("everpack backup"), "{finding:?}");
    assert!(touched(finding).iter().any(|path| path.ends_with("/large")), "{finding:?}");
    assert_eq!(finding.touched_count, finding.touches.len() as u64);

    // What the finding says heals it does.
    let healed = scene.back_up().await;
    assert!(healed.bytes_stored > 0);
    let report = scene.scrub().await;
    assert_eq!(only(&report).severity, Severity::Warning, "{:#?}", report.findings);
    assert_eq!(only(&report).touched_count, 0);
    // Once: the night after finds everything in place.
    assert_eq!(scene.back_up().await.bytes_new, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_pack_is_found_by_its_size_and_a_scrub_tells_what_is_left_of_it() {
    let scene = Scene::backed_up().await;
    let pack = scene.objects("packs").remove(0);
    truncate(&pack, len(&pack) - 100);
    let report = scene.check().await;
    assert!(only(&report).object.contains(&hash_of(&pack)));
    assert!(only(&report).what.contains("should have"), "{:?}", only(&report));
    assert!(only(&report).touched_count > 0);
    // Only trailer and table are cut: each chunk is where the index says.
    let report = scene.scrub().await;
    let finding = only(&report);
    assert_eq!((finding.severity, finding.touched_count), (Severity::Warning, 0), "{finding:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_chunk_is_found_by_a_scrub_and_touches_one_file() {
    let scene = Scene::backed_up().await;
    let pack = scene.objects("packs").remove(0);
    flip(&pack, len(&pack) / 2);
    assert_eq!(scene.check().await.findings, [], "the structure is whole");
    let report = scene.scrub().await;
    let finding = only(&report);
    assert_eq!(finding.severity, Severity::Error);
    assert!(finding.object.contains(&hash_of(&pack)) && finding.what.contains("1 chunks are lost"), "{finding:?}");
    assert_eq!(finding.touched_count, 1, "{finding:?}");
    assert!(finding.touches[0].path.ends_with("/large"));
    assert!(finding.heal.contains("everpack backup"), "{finding:?}");

    // The backup knows of the damage through the ledger, and stores again what the pack held.
    assert!(scene.back_up().await.bytes_stored > 0);
    let report = scene.scrub().await;
    assert_eq!(only(&report).severity, Severity::Warning, "{:#?}", report.findings);
    let repository = scene.open().await.unwrap();
    let info = repository.find_backup("latest").unwrap();
    let target = scene.path("target");
    let restored = restore(&repository, &info, &target, &RestoreOptions::default(), Arc::new(Silent)).await.unwrap();
    assert_eq!((restored.damaged_count, restored.files), (0, 6));
    assert_eq!(std::fs::read(target.join("two/large")).unwrap(), noise(900_000, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_header_byte_loses_nothing() {
    let scene = Scene::backed_up().await;
    let pack = scene.objects("packs").remove(0);
    flip(&pack, 20);
    let report = scene.scrub().await;
    let finding = only(&report);
    assert_eq!((finding.severity, finding.touched_count), (Severity::Warning, 0), "{finding:?}");
    assert!(finding.what.contains("every chunk in it is whole"), "{finding:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_record_header_loses_its_chunk_only() {
    let scene = Scene::backed_up().await;
    let pack = scene.objects("packs").remove(0);
    flip(&pack, 36 + 20);
    let report = scene.scrub().await;
    assert!(only(&report).what.contains("1 chunks are lost"), "{:?}", only(&report));
    assert_eq!(only(&report).touched_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_meta_pack_touches_the_list_of_files() {
    for damage in ["delete", "flip", "truncate"] {
        let scene = Scene::backed_up().await;
        let pack = scene.objects("meta").remove(0);
        match damage {
            "delete" => std::fs::remove_file(&pack).unwrap(),
            "flip" => flip(&pack, 36 + 52 + 40),
            _ => truncate(&pack, 50),
        }
        let report = scene.check().await;
        assert_eq!(report.worst(), Some(Severity::Error), "{damage}");
        let finding = report.findings.iter().find(|finding| finding.touched_count > 0).unwrap();
        assert!(finding.touches[0].path.contains("entries from"), "{damage}: {finding:?}");
        let report = scene.scrub().await;
        let finding = about(&report, &hash_of(&pack));
        assert_eq!((finding.severity, finding.touched_count), (Severity::Error, 1), "{damage}: {finding:?}");
        // What the findings say heals it does: the backup meets the damage and stores its list anew.
        let healed = scene.back_up().await;
        let only_newest = CheckOptions { backups: vec![healed.id], ..CheckOptions::default() };
        let report = scene.check_with(only_newest).await;
        assert_eq!(report.findings.iter().map(|finding| finding.touched_count).sum::<u64>(), 0, "{damage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_fragment_is_named_and_its_chunks_are_found_all_the_same() {
    for damage in ["delete", "flip", "truncate"] {
        for drop_cache in [false, true] {
            let scene = Scene::backed_up().await;
            let fragment = scene.objects("index").remove(0);
            match damage {
                "delete" => std::fs::remove_file(&fragment).unwrap(),
                "flip" => flip(&fragment, 200),
                _ => truncate(&fragment, 60),
            }
            if drop_cache {
                scene.drop_cache();
            }
            let report = scene.scrub().await;
            let finding = only(&report);
            assert_eq!((finding.severity, finding.touched_count), (Severity::Warning, 0), "{damage}: {finding:?}");
            assert!(finding.object.contains(&hash_of(&fragment)), "{damage}: {finding:?}");
            assert!(finding.heal.contains("everpack repair"), "{finding:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_nothing_holds_any_more_are_missing() {
    let scene = Scene::backed_up().await;
    let fragment = scene.objects("index").remove(0);
    std::fs::remove_file(fragment).unwrap();
    for pack in scene.objects("packs") {
        std::fs::remove_file(pack).unwrap();
    }
    scene.drop_cache();
    let report = scene.check().await;
    let finding = about(&report, "chunks");
    assert_eq!((finding.severity, finding.touched_count), (Severity::Error, 6), "{:#?}", report.findings);
    assert!(finding.what.contains("chunk ") && finding.heal.contains("everpack backup"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_manifest_touches_the_whole_backup() {
    for damage in ["delete", "flip", "truncate"] {
        let scene = Scene::backed_up().await;
        let manifest = scene.objects("manifests").remove(0);
        match damage {
            "delete" => std::fs::remove_file(&manifest).unwrap(),
            "flip" => flip(&manifest, 60),
            _ => truncate(&manifest, 60),
        }
        let report = scene.check().await;
        let finding = only(&report);
        assert_eq!(finding.severity, Severity::Error);
        assert!(finding.object.contains(&hash_of(&manifest)), "{damage}: {finding:?}");
        assert_eq!(touched(finding), ["(the whole backup)"]);
        assert!(finding.heal.contains("everpack backup"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_entry_is_named_while_a_state_object_still_opens_the_repository() {
    let scene = Scene::backed_up().await;
    // So many that a state object is kept.
    for _ in 0..33 {
        scene.back_up().await;
    }
    assert_eq!(scene.objects("log-state").len(), 1);
    assert_eq!(scene.check().await.findings, []);
    let entry = |number: u32| scene.path("repo").join(format!("log/{number:020}"));

    let kept = std::fs::read(entry(7)).unwrap();
    flip(&entry(7), 100);
    let report = scene.check().await;
    assert_eq!((only(&report).object.as_str(), only(&report).severity), ("log entry 7", Severity::Error));
    assert!(only(&report).heal.contains("repair"));
    std::fs::write(entry(7), kept).unwrap();
    assert_eq!(scene.check().await.findings, []);

    std::fs::remove_file(entry(9)).unwrap();
    let report = scene.check().await;
    assert_eq!(only(&report).object, "log entry 9");
    assert!(only(&report).what.contains("missing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_object_is_a_warning() {
    for damage in ["flip", "truncate"] {
        let scene = Scene::backed_up().await;
        for _ in 0..33 {
            scene.back_up().await;
        }
        let state = scene.objects("log-state").remove(0);
        if damage == "flip" {
            flip(&state, 300)
        } else {
            truncate(&state, 30)
        }
        let report = scene.check().await;
        let finding = only(&report);
        assert_eq!(finding.severity, Severity::Warning);
        let name = state.file_name().unwrap().to_str().unwrap().trim_start_matches('0');
        assert!(finding.object.contains(name), "{finding:?}");
        assert!(finding.heal.contains("everpack repair"));
        std::fs::remove_file(&state).unwrap();
        assert_eq!(scene.check().await.findings, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_off_is_noticed_every_time() {
    let scene = Scene::backed_up().await;
    scene.back_up().await;
    let logs = scene.path("repo/log");
    std::fs::remove_file(logs.join(format!("{:020}", 4))).unwrap();
    for _ in 0..2 {
        let report = scene.check().await;
        let finding = only(&report);
        assert_eq!((finding.object.as_str(), finding.severity), ("log", Severity::Error));
        assert!(finding.what.contains("ends at entry 3"), "{finding:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_config_is_found() {
    let scene = Scene::backed_up().await;
    let repository = scene.open().await.unwrap();
    flip(&scene.path("repo/config"), 60);
    let report = check(&repository, &CheckOptions::default(), Arc::new(Silent)).await.unwrap();
    assert_eq!((only(&report).object.as_str(), only(&report).severity), ("config", Severity::Error));
    assert_eq!(scene.open().await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_nobody_names_are_told_apart_by_their_session() {
    let scene = Scene::backed_up().await;
    let pack = scene.objects("packs").remove(0);
    let name = pack.file_name().unwrap().to_str().unwrap();
    // Another hash of the same session: a left-over. Another session: a lost log entry.
    let hash = hash_of(&pack);
    let other_hash = format!("{}{}", &hash[..62], if hash.ends_with("00") { "11" } else { "00" });
    std::fs::copy(&pack, pack.with_file_name(format!("{other_hash}{}", &name[64..]))).unwrap();
    std::fs::copy(&pack, pack.with_file_name(format!("{hash}-00000000000000aa"))).unwrap();
    std::fs::write(pack.with_file_name("notes.txt"), b"mine").unwrap();
    std::fs::write(pack.with_file_name(format!("{name}#1")), b"half").unwrap();
    let report = scene.check().await;
    let lost = about(&report, "00000000000000aa");
    assert_eq!(lost.severity, Severity::Error);
    assert!(lost.what.contains("lost log entry") && lost.what.contains(&hash), "{lost:?}");
    let over = about(&report, &name[65..]);
    assert_eq!(over.severity, Severity::Note);
    assert!(over.what.contains("is over") && over.what.contains(&other_hash), "{over:?}");
    let stray = about(&report, "stray");
    assert!(stray.severity == Severity::Note && stray.what.contains("notes.txt"), "{stray:?}");
    let leftover = about(&report, "left-overs");
    assert!(leftover.severity == Severity::Note && leftover.what.contains(&format!("{name}#1")), "{leftover:?}");
    assert!(leftover.heal.contains("everpack prune"), "{leftover:?}");
    assert_eq!(report.findings.len(), 4, "{:#?}", report.findings);
    assert_eq!(report.findings[0].severity, Severity::Error, "the worst first");
}

/// Remembers phases, and which packs were read by their sizes.
#[derive(Default)]
struct Watch {
    phases: Mutex<Vec<Phase>>,
    packs: Mutex<Vec<u64>>,
}

impl Monitor for Watch {
    fn event(&self, event: Event) {
        if let Event::Begin { phase, .. } = event {
            self.phases.lock().unwrap().push(phase);
        }
    }

    fn advance(&self, bytes: u64, _new_bytes: u64, _items: u64) {
        if bytes > 0 {
            self.packs.lock().unwrap().push(bytes);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_scrub_are_all_packs_each_once() {
    let scene = Scene::backed_up().await;
    // Packs of different sizes, so that a size tells which it was.
    for night in 4..12 {
        scene.write(&format!("{night}"), &noise(1000 * usize::try_from(night).unwrap(), night));
        scene.back_up().await;
    }
    let mut sizes: Vec<u64> =
        scene.objects("packs").iter().chain(&scene.objects("meta")).map(|path| len(path)).collect();
    sizes.sort_unstable();
    assert!(sizes.iter().collect::<HashSet<_>>().len() > 12);
    let watch = Arc::new(Watch::default());
    let repository = scene.open().await.unwrap();
    let mut in_parts = Vec::new();
    for part in 1..=3 {
        let options = CheckOptions { read_data: true, part: Some((part, 3)), ..CheckOptions::default() };
        let report = check(&repository, &options, Arc::clone(&watch) as Arc<_>).await.unwrap();
        assert_eq!((report.findings.as_slice(), report.complete), (&[][..], true));
        in_parts.push(report.packs_read);
    }
    let mut read = watch.packs.lock().unwrap().clone();
    read.sort_unstable();
    assert_eq!(read, sizes);
    assert!(in_parts.iter().all(|count| *count > 0), "{in_parts:?}");
    assert_eq!(watch.phases.lock().unwrap()[..3], [Phase::Opening, Phase::Checking, Phase::Scrubbing]);
    let wrong = CheckOptions { read_data: true, part: Some((4, 3)), ..CheckOptions::default() };
    assert_eq!(check(&repository, &wrong, Arc::new(Silent)).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_can_be_a_sample_and_stops_when_the_time_is_up() {
    let scene = Scene::backed_up().await;
    let scrub = CheckOptions { read_data: true, ..CheckOptions::default() };
    let all = scene.scrub().await.packs_read;
    let report = scene.check_with(CheckOptions { sample: Some(Sample::Bytes(1)), ..scrub.clone() }).await;
    assert_eq!((report.packs_read, report.complete), (1, true));
    let report = scene.check_with(CheckOptions { sample: Some(Sample::Share(1.0)), ..scrub.clone() }).await;
    assert_eq!(report.packs_read, all);
    let report = scene.check_with(CheckOptions { time_limit: Some(Duration::ZERO), ..scrub }).await;
    assert_eq!((report.packs_read, report.complete), (0, false));
    assert!(report.remarks[0].contains("the time was up"));
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_backups_only_are_checked_and_an_unknown_one_is_an_error() {
    let scene = Scene::backed_up().await;
    let first = scene.open().await.unwrap().backups()[0].id;
    std::fs::remove_file(scene.path("source/one/large")).unwrap();
    let second = scene.back_up().await.id;
    let manifest = scene.objects("manifests").into_iter().find(|path| hash_of(path) == first.to_string()).unwrap();
    std::fs::remove_file(manifest).unwrap();
    let report = scene.check_with(CheckOptions { backups: vec![second], ..CheckOptions::default() }).await;
    assert_eq!((report.findings.as_slice(), report.backups), (&[][..], 1));
    let repository = scene.open().await.unwrap();
    let unknown = crate::id::ObjectHash::from_bytes([9; 32]);
    let options = CheckOptions { backups: vec![unknown], ..CheckOptions::default() };
    assert_eq!(check(&repository, &options, Arc::new(Silent)).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Prints how fast a scrub is; run it by hand with EVERPACK_TEST_DATA_UNPACKED.
#[tokio::test(flavor = "multi_thread")]
async fn real_data_scrubs_clean() {
    let Some(data) = std::env::var_os("EVERPACK_TEST_DATA_UNPACKED") else {
        eprintln!("skipped: EVERPACK_TEST_DATA_UNPACKED is not set");
        return;
    };
    let scene = Scene::new().await;
    let repository = scene.open().await.unwrap();
    let data = PathBuf::from(data).join("shop/full-1");
    let source = DirectorySource::open(&data, &DirectoryOptions::default()).unwrap();
    let backed_up = backup(&repository, Box::new(source), &BackupOptions::default(), Arc::new(Silent)).await.unwrap();
    let report = check(&repository, &CheckOptions::default(), Arc::new(Silent)).await.unwrap();
    assert_eq!(report.findings, []);
    let structure = report.duration;
    let report = scene.scrub().await;
    assert_eq!((report.findings.as_slice(), report.entries > 0), (&[][..], true));
    eprintln!(
        "{} logical, {} stored: structure {structure:?}, scrub {:?}",
        crate::units::bytes(backed_up.totals.bytes),
        crate::units::bytes(report.bytes_read),
        report.duration
    );
}
