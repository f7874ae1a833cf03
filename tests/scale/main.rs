//! Sizes: memory stays within its budget however large a repository is (design.md, budgets). Times are printed, not asserted.
//!
//! A binary of its own, so that the process's memory is that of what is measured. By default a fifth of the full size; `EVERPACK_SCALE=full`
//! runs ten million chunks and a million files.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::await_holding_lock,
    reason = "a test: it speaks, may fail, and runs one scenario at a time"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use everpack::clock::SystemClock;
use everpack::entropy::SystemEntropy;
use everpack::ops::backup::{BackupOptions, BackupReport, backup};
use everpack::ops::prune::{PruneOptions, prune};
use everpack::progress::Silent;
use everpack::repo::{Environment, InitOptions, Process, Repository};
use everpack::store::{Store, StoreOptions};
use everpack::testing::scale::{ScaleIndex, anonymous_memory};
use everpack::testing::scale_source::{SyntheticKind, SyntheticSource};
use everpack::testing::{log, scale_repository};
use tempfile::TempDir;

const MEMORY_MOST: u64 = 256 << 20;
/// Catalogue included.
const BYTES_PER_CHUNK_MOST: u64 = 80;

/// One scenario at a time: they share the process whose memory is measured.
static ALONE: Mutex<()> = Mutex::new(());

fn is_full() -> bool {
    let full = std::env::var("EVERPACK_SCALE").is_ok_and(|scale| scale == "full");
    if !full {
        println!("a fifth of the full size; EVERPACK_SCALE=full runs all of it");
    }
    full
}

/// Watches the memory of this process.
struct Watch {
    peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn start() -> Self {
        let (peak, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (to, until) = (Arc::clone(&peak), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Acquire) {
                to.fetch_max(anonymous_memory(), Ordering::AcqRel);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { peak, over, thread }
    }

    fn finish(self) -> u64 {
        self.over.store(true, Ordering::Release);
        self.thread.join().unwrap();
        let peak = self.peak.load(Ordering::Acquire);
        assert!(peak > 1 << 20, "the memory was not measured");
        peak
    }
}

fn per_second(count: u64, took: Duration) -> u64 {
    u64::try_from(u128::from(count) * 1_000_000 / took.as_micros().max(1)).unwrap_or(u64::MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_of_millions_of_chunks_needs_little_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let chunks = if is_full() { 10_000_000 } else { 2_000_000 };
    let scratch = TempDir::new().unwrap();
    let mut scale = ScaleIndex::create(scratch.path()).await.unwrap();
    scale.publish(chunks, 150_000).await.unwrap();

    let watch = Watch::start();
    let (entries, took) = scale.catch_up().await.unwrap();
    assert_eq!(entries, chunks);
    println!("{chunks} chunks: caught up in {took:.1?}, {} entries/s", per_second(entries, took));
    for _ in 0..3 {
        scale.publish(100_000, 100_000).await.unwrap();
        let (entries, took) = scale.catch_up().await.unwrap();
        assert_eq!(entries, 100_000);
        println!("100000 more: caught up in {took:.1?}, {} entries/s", per_second(entries, took));
    }
    for size in [100, 1000, 100_000] {
        let (found, took) = scale.look_up(200_000 / size, size).unwrap();
        assert_eq!(found, 100_000);
        println!("looked up in batches of {size}: {} chunks/s, half of them new", per_second(200_000, took));
    }
    let peak = watch.finish();
    let (bytes, chunks) = (scale.disk_bytes(), chunks + 300_000);
    println!("peak RssAnon {} MiB; {:.1} bytes per chunk on disk", peak >> 20, bytes as f64 / chunks as f64);
    assert!(peak <= MEMORY_MOST, "{} MiB", peak >> 20);
    assert!(bytes <= chunks * BYTES_PER_CHUNK_MOST, "{bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_of_millions_of_chunks_needs_little_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let chunks = if is_full() { 10_000_000 } else { 2_000_000 };
    let scratch = TempDir::new().unwrap();
    let place = scratch.path().join("repository").display().to_string();
    let environment = Environment {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        process: Process::current(),
        cache: Some(scratch.path().join("cache")),
    };
    let store = Store::create_root(&place, &StoreOptions::default()).unwrap();
    let repository = Repository::create(store, &InitOptions::default(), environment).await.unwrap();
    scale_repository::fill(&repository, chunks, 100).await.unwrap();
    let first = repository.backups()[0].id;
    log::forget(&repository, first).await.unwrap();

    let watch = Watch::start();
    let options = PruneOptions { dry_run: true, ..PruneOptions::default() };
    let report = prune(&repository, &options, Arc::new(Silent), |_| {}).await.unwrap();
    let peak = watch.finish();
    let plan = &report.plans[0];
    println!(
        "{chunks} chunks in {} packs: {} references marked and a plan made in {:.1?}, {} references/s; peak RssAnon {} MiB",
        chunks / 100,
        report.references,
        report.duration,
        per_second(report.references, report.duration),
        peak >> 20
    );
    assert_eq!(plan.missing_chunks, 0, "{plan:?}");
    assert!(report.references >= chunks * 3 / 4 && plan.bytes_after < plan.bytes_before, "{plan:?}");
    assert!(peak <= MEMORY_MOST, "{} MiB", peak >> 20);
}

async fn back_up(repository: &Repository, source: SyntheticSource) -> BackupReport {
    let begun = Instant::now();
    let watch = Watch::start();
    let report = backup(repository, Box::new(source), &BackupOptions::default(), Arc::new(Silent)).await.unwrap();
    let peak = watch.finish();
    println!(
        "{} files, {} new, {} changed, {} read: {:.2?}, {} bytes stored, peak RssAnon {} MiB",
        report.totals.files,
        report.files_new,
        report.files_changed,
        report.files_read,
        begun.elapsed(),
        report.bytes_stored,
        peak >> 20
    );
    assert!(peak <= MEMORY_MOST, "{} MiB", peak >> 20);
    report
}

async fn nights(kind: SyntheticKind) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let count = if is_full() { 1_000_000 } else { 200_000 };
    let scratch = TempDir::new().unwrap();
    let store =
        Store::create_root(scratch.path().join("repo").to_str().unwrap(), &everpack::store::StoreOptions::default())
            .unwrap();
    let environment = Environment {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        process: Process::current(),
        cache: Some(scratch.path().join("cache")),
    };
    let repository = Repository::create(store, &InitOptions::default(), environment).await.unwrap();

    let first = back_up(&repository, SyntheticSource::new(kind, count)).await;
    assert_eq!((first.totals.files, first.files_new), (count, count));

    let same = back_up(&repository, SyntheticSource::new(kind, count)).await;
    assert_eq!((same.files_unchanged, same.files_read, same.parent), (count, 0, Some(first.id)));
    assert_eq!((same.bytes_stored, same.chunks_new), (0, 0), "an unchanged night stores nothing but its root");

    // One file in ten thousand is another.
    let every = 10_000;
    let changed = back_up(&repository, SyntheticSource::changed(kind, count, every)).await;
    let news = count / every;
    assert_eq!((changed.files_new, changed.files_removed, changed.files_read), (news, news, news));
    assert!(changed.bytes_stored < first.bytes_stored / 4, "{changed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_of_unchanged_objects_is_cheap() {
    nights(SyntheticKind::Objects).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_of_unchanged_files_is_cheap() {
    nights(SyntheticKind::Files).await;
}
