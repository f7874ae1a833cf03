//! What others say in the logs of both sides while a replication runs: forgotten, purged, pruned, quarantined, fenced.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{ReplicateOptions, ReplicateReport, Why, replicate};
use crate::clock::{ManualClock, Timestamp};
use crate::entropy::SeededEntropy;
use crate::error::{ErrorKind, Result};
use crate::format::fragment::Fragment;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::{ObjectHash, ObjectKind, ObjectName, SessionId};
use crate::ops::backup::{BackupOptions, backup};
use crate::ops::check::{CheckOptions, Severity, check};
use crate::pack::PackScan;
use crate::progress::{Event, Monitor, Phase, Silent};
use crate::repo::{Chunking, Environment, InitOptions, OpenOptions, Process, Repository, Rule};
use crate::source::{DirectoryOptions, DirectorySource};
use crate::store::{Store, StoreOptions, StoredObject};

fn environment() -> Environment {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    Environment {
        clock: Arc::new(ManualClock::new(Timestamp::from_nanos(4_000_000_000_000_000_000))),
        entropy: Arc::new(SeededEntropy::new(seed)),
        process: Process::current(),
        cache: None,
    }
}

/// An origin with a backup of some files, the source, and an empty member of the family.
struct Scene {
    source: tempfile::TempDir,
    origin: Store,
    target: Store,
}

impl Scene {
    async fn new() -> Self {
        let memory = || Store::open("memory:", &StoreOptions::default()).unwrap();
        let chunking = Chunking { cdc_least: 2 << 10, cdc_average: 8 << 10, cdc_most: 32 << 10, ..Chunking::default() };
        let options = InitOptions { chunking, pack_target: 64 << 10, ..InitOptions::default() };
        let scene = Self { source: tempfile::tempdir().unwrap(), origin: memory(), target: memory() };
        let origin = Repository::create(scene.origin.clone(), &options, environment()).await.unwrap();
        Repository::create_member(scene.target.clone(), &origin, false, environment()).await.unwrap();
        scene.write("one", 1);
        scene.back_up().await;
        scene
    }

    fn write(&self, name: &str, seed: u64) {
        let mut bytes = vec![0; 300_000];
        crate::entropy::Entropy::fill(&SeededEntropy::new(seed * 7919), &mut bytes).unwrap();
        std::fs::write(self.source.path().join(name), bytes).unwrap();
    }

    async fn back_up(&self) -> ObjectHash {
        let source = DirectorySource::open(self.source.path(), &DirectoryOptions::default()).unwrap();
        let repository = open(&self.origin).await;
        backup(&repository, Box::new(source), &BackupOptions::default(), Arc::new(Silent)).await.unwrap().id
    }

    async fn send_with(&self, options: &ReplicateOptions, monitor: Arc<dyn Monitor>) -> Result<ReplicateReport> {
        replicate(&open(&self.origin).await, &open(&self.target).await, options, monitor).await
    }

    async fn send(&self) -> ReplicateReport {
        self.send_with(&ReplicateOptions::default(), Arc::new(Silent)).await.unwrap()
    }

    async fn send_again(&self) -> ReplicateReport {
        let options = ReplicateOptions { again: true, ..ReplicateOptions::default() };
        self.send_with(&options, Arc::new(Silent)).await.unwrap()
    }

    fn listed(repository: &Repository) -> Vec<ObjectHash> {
        repository.backups().iter().map(|backup| backup.id).collect()
    }

    /// The target lists these backups and holds every byte of them.
    async fn assert_target_holds(&self, expected: &[ObjectHash]) {
        let target = open(&self.target).await;
        assert_eq!(Self::listed(&target), expected);
        assert_eq!(errors(&target).await, Vec::<String>::new());
    }
}

async fn errors(repository: &Repository) -> Vec<String> {
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = check(repository, &options, Arc::new(Silent)).await.unwrap();
    let errors = report.findings.into_iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| format!("{}: {}", finding.object, finding.what)).collect()
}

async fn open(store: &Store) -> Repository {
    Repository::open(store.clone(), OpenOptions::default(), environment()).await.unwrap()
}

async fn say(repository: &Repository, records: Vec<Record>) {
    repository.say(async |_: &LogState| Ok(records.clone())).await.unwrap();
}

async fn forget(store: &Store, backups: Vec<ObjectHash>) {
    say(&open(store).await, vec![Record::BackupsForgotten { backups, reason: "a test".to_owned() }]).await;
}

/// What a prune does with backups that were forgotten: their manifests and all packs are retired, and the packs deleted at once.
async fn purge(store: &Store, backups: &[ObjectHash]) {
    forget(store, backups.to_vec()).await;
    let repository = open(store).await;
    let state = repository.state();
    let mut objects: Vec<ObjectName> =
        repository.index().await.unwrap().live_packs().iter().map(|pack| pack.name).collect();
    objects.extend(backups.iter().map(|id| state.backups[id].manifest));
    let superseded: Vec<ObjectName> = state.fragments.iter().map(|(_, name)| *name).collect();
    say(&repository, vec![Record::ObjectsRetired { objects: objects.clone(), superseded, added: Vec::new() }]).await;
    for name in objects.into_iter().filter(|name| name.kind != ObjectKind::Manifest) {
        store.delete(StoredObject::Named(name)).await.unwrap();
    }
}

/// What a prune does with packs worth rewriting, all of them here: other names, the old ones gone, whoever still wants them.
async fn rewrite(store: &Store) {
    let repository = open(store).await;
    let session = SessionId::from_bytes(repository.environment().entropy.array().unwrap());
    let old = repository.index().await.unwrap().live_packs();
    let superseded: Vec<ObjectName> = repository.state().fragments.iter().map(|(_, name)| *name).collect();
    let mut fragment = Fragment::default();
    for pack in &old {
        let stored = store.get(StoredObject::Named(pack.name)).await.unwrap();
        let table = PackScan::new(&stored, repository.config().family).unwrap().table().to_vec();
        let name = ObjectName { session, ..pack.name };
        store.put_new(StoredObject::Named(name), vec![stored]).await.unwrap();
        fragment.push_pack(name, pack.size, &table).unwrap();
    }
    let stored = bytes::Bytes::from(fragment.encode());
    let hash = crate::codec::object_hash(&stored);
    let added = ObjectName { kind: ObjectKind::Fragment, hash, session };
    store.put_new(StoredObject::Named(added), vec![stored]).await.unwrap();
    let objects = old.iter().map(|pack| pack.name).collect();
    say(&repository, vec![Record::ObjectsRetired { objects, superseded, added: vec![added] }]).await;
    for pack in old {
        store.delete(StoredObject::Named(pack.name)).await.unwrap();
    }
}

/// Does something when a phase begins for the `nth` time.
struct When<F> {
    phase: Phase,
    nth: AtomicU64,
    then: Mutex<Option<F>>,
    runtime: tokio::runtime::Handle,
}

fn when<F: FnOnce(&tokio::runtime::Handle) + Send + 'static>(phase: Phase, nth: u64, then: F) -> Arc<dyn Monitor> {
    let runtime = tokio::runtime::Handle::current();
    Arc::new(When { phase, nth: AtomicU64::new(nth), then: Mutex::new(Some(then)), runtime })
}

impl<F: FnOnce(&tokio::runtime::Handle) + Send> Monitor for When<F> {
    fn event(&self, event: Event) {
        if let Event::Begin { phase, .. } = event
            && phase == self.phase
            && self.nth.fetch_sub(1, Ordering::SeqCst) == 1
            && let Some(then) = self.then.lock().unwrap().take()
        {
            // On a thread of its own: this one belongs to the runtime.
            std::thread::scope(|scope| scope.spawn(|| then(&self.runtime)).join().unwrap());
        }
    }

    fn advance(&self, _: u64, _: u64, _: u64) {}
}

/// Declares every open session of the repository dead.
fn fence_when(store: &Store, phase: Phase, nth: u64) -> Arc<dyn Monitor> {
    let store = store.clone();
    when(phase, nth, move |runtime| {
        runtime.block_on(async {
            let repository = open(&store).await;
            let fence = async |state: &LogState| {
                let dead = |session| Record::SessionFenced { session, why: "a test".to_owned() };
                Ok(state.open_sessions().map(|(session, _)| dead(session)).collect())
            };
            repository.say(fence).await.unwrap();
        });
    })
}

async fn copy_of(store: &Store) -> Store {
    let copy = Store::open("memory:", &StoreOptions::default()).unwrap();
    for info in store.list_sorted(crate::store::Folder::Root).await.unwrap() {
        copy.put_new(&info.path, vec![store.get(&info.path).await.unwrap()]).await.unwrap();
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_forgot_is_sent_again_only_if_asked() {
    let scene = Scene::new().await;
    scene.write("two", 2);
    let second = scene.back_up().await;
    let first = Scene::listed(&open(&scene.origin).await)[0];
    scene.send().await;
    forget(&scene.target, vec![first]).await;
    let report = scene.send().await;
    assert_eq!(report.skipped.iter().map(|one| (one.id, one.why)).collect::<Vec<_>>(), [(first, Why::Forgotten)]);
    assert!(report.complete && report.present == 1 && report.sent.is_empty(), "{report:#?}");
    scene.assert_target_holds(&[second]).await;
    let report = scene.send_again().await;
    assert_eq!((report.sent.len(), report.packs), (1, 0), "everything of it was still there");
    scene.assert_target_holds(&[first, second]).await;

    // The same when nothing of them is left.
    purge(&scene.target, &[first, second]).await;
    let report = scene.send().await;
    assert!(report.sent.is_empty() && report.skipped.len() == 2, "{report:#?}");
    let report = scene.send_again().await;
    assert!(report.sent.len() == 2 && report.packs > 5, "{report:#?}");
    scene.assert_target_holds(&[first, second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_a_prune_of_the_origin_takes_away_are_found_under_their_new_names() {
    let scene = Scene::new().await;
    let origin = scene.origin.clone();
    let monitor = when(Phase::Replicating, 1, move |runtime| runtime.block_on(rewrite(&origin)));
    let report = scene.send_with(&ReplicateOptions::default(), monitor).await.unwrap();
    assert!(report.complete && report.findings.is_empty() && report.sent.len() == 1, "{report:#?}");
    scene.assert_target_holds(&Scene::listed(&open(&scene.origin).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_the_origin_forgets_and_prunes_meanwhile_is_no_damage() {
    let scene = Scene::new().await;
    let ids = Scene::listed(&open(&scene.origin).await);
    let origin = scene.origin.clone();
    let monitor = when(Phase::Replicating, 1, move |runtime| runtime.block_on(purge(&origin, &ids)));
    let report = scene.send_with(&ReplicateOptions::default(), monitor).await.unwrap();
    assert!(report.sent.is_empty() && report.findings.is_empty(), "{report:#?}");
    assert_eq!(report.skipped.iter().map(|one| one.why).collect::<Vec<_>>(), [Why::Gone]);
    scene.assert_target_holds(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_prunes_while_we_rely_on_it_is_sent_after_all() {
    let scene = Scene::new().await;
    scene.send().await;
    let first = Scene::listed(&open(&scene.target).await);
    std::fs::write(scene.source.path().join("small"), "more").unwrap();
    let second = scene.back_up().await;
    let store = scene.target.clone();
    let monitor = when(Phase::Planning, 1, move |runtime| runtime.block_on(purge(&store, &first)));
    let report = scene.send_with(&ReplicateOptions::default(), monitor).await.unwrap();
    // The first one is gone there, which is not our business.
    assert!(report.complete && report.sent.len() == 1 && report.packs > 4, "{report:#?}");
    scene.assert_target_holds(&[second]).await;
}

/// Replicates to copies of the target, each time with another rule switched off, while somebody purges these backups and every pack there.
/// Tells of each whether the target then lists a backup that is not whole.
async fn is_broken_without(scene: &Scene, purged: &[ObjectHash], rules: &[Option<Rule>]) -> Vec<bool> {
    let mut broken = Vec::new();
    for rule in rules {
        let store = copy_of(&scene.target).await;
        let (theirs, gone) = (store.clone(), purged.to_vec());
        let monitor = when(Phase::Planning, 1, move |runtime| runtime.block_on(purge(&theirs, &gone)));
        let options = OpenOptions { without: *rule, ..OpenOptions::default() };
        let target = Repository::open(store.clone(), options, environment()).await.unwrap();
        let origin = open(&scene.origin).await;
        let report = replicate(&origin, &target, &ReplicateOptions::default(), monitor).await.unwrap();
        assert_eq!(report.sent.len(), 1, "{report:#?}");
        broken.push(!errors(&open(&store).await).await.is_empty());
    }
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_taken_for_whole_are_looked_at_again_before_the_commit() {
    let scene = Scene::new().await;
    scene.send().await;
    let first = Scene::listed(&open(&scene.target).await);
    // The same content once more: another manifest, the same segments.
    scene.back_up().await;
    let rules = [None, Some(Rule::RevalidateCommit), Some(Rule::RevalidateParent)];
    assert_eq!(is_broken_without(&scene, &first, &rules).await, [false, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_relied_on_are_looked_at_again_before_the_commit() {
    let scene = Scene::new().await;
    // Everything arrived and was published in a run that was declared dead before its commit.
    let options = ReplicateOptions { shard: Some((1, 1)), ..ReplicateOptions::default() };
    let error = scene.send_with(&options, fence_when(&scene.target, Phase::Planning, 2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let rules = [None, Some(Rule::RevalidateParent), Some(Rule::RevalidateCommit)];
    assert_eq!(is_broken_without(&scene, &[], &rules).await, [false, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_declared_dead_commits_nothing() {
    let scene = Scene::new().await;
    let ids = Scene::listed(&open(&scene.origin).await);
    for phase in [Phase::Planning, Phase::Replicating] {
        let monitor = fence_when(&scene.target, phase, 1);
        let error = scene.send_with(&ReplicateOptions::default(), monitor).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        scene.assert_target_holds(&[]).await;
    }
    assert_eq!(scene.send().await.sent.len(), 1);
    scene.assert_target_holds(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_quarantined_at_the_target_is_sent_again() {
    let scene = Scene::new().await;
    scene.send().await;
    let ids = Scene::listed(&open(&scene.origin).await);
    let target = open(&scene.target).await;
    let packs: Vec<ObjectName> = target.index().await.unwrap().live_packs().iter().map(|pack| pack.name).collect();
    let count = packs.len() as u64;
    say(&target, vec![Record::PacksQuarantined { packs, why: "a test".to_owned() }]).await;
    let report = scene.send().await;
    assert_eq!((report.sent.len(), report.present, report.packs), (0, 1, count), "made whole: {report:#?}");
    scene.assert_target_holds(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_logs_remember_how_far_the_other_was() {
    let scene = Scene::new().await;
    scene.send().await;
    let (origin, target) = (open(&scene.origin).await, open(&scene.target).await);
    let (here, there) = (origin.state(), target.state());
    assert_eq!(here.open_sessions().count() + there.open_sessions().count(), 0, "both sessions are closed");
    let (number, hash) = there.replicas[&origin.id()];
    assert!(origin.chain().has_entry(number, hash).await.unwrap());
    let (number, hash) = here.replicas[&target.id()];
    assert_eq!((number, Some(hash)), (there.head, there.head_hash));
}
