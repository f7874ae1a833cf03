//! What goes while an unforget makes its proof.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::unforget::Proof;
use super::{ForgetOptions, Which, forget, unforget};
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::error::ErrorKind;
use crate::format::log_record::Record;
use crate::format::log_state::LogState;
use crate::id::{ObjectHash, ObjectName};
use crate::ops::backup::{BackupOptions, backup};
use crate::progress::{Event, Monitor, Silent};
use crate::repo::{Environment, InitOptions, OpenOptions, Process, Repository};
use crate::source::{DirectoryOptions, DirectorySource};
use crate::store::{Store, StoreOptions};

fn environment() -> Environment {
    Environment {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        process: Process::current(),
        cache: None,
    }
}

async fn back_up(repository: &Repository, directory: &Path, content: &str) -> ObjectHash {
    std::fs::write(directory.join("file"), content.repeat(5000)).unwrap();
    let source = DirectorySource::open(directory, &DirectoryOptions::default()).unwrap();
    backup(repository, Box::new(source), &BackupOptions::default(), Arc::new(Silent)).await.unwrap().id
}

/// A repository with one forgotten backup and one that is listed.
async fn one_forgotten(directory: &Path) -> (Store, Repository, ObjectHash) {
    let store = Store::open("memory:", &StoreOptions::default()).unwrap();
    let repository = Repository::create(store.clone(), &InitOptions::default(), environment()).await.unwrap();
    let id = back_up(&repository, directory, "one").await;
    back_up(&repository, directory, "two").await;
    let options = ForgetOptions { which: Which::Named(vec![id]), reason: String::new(), dry_run: false };
    forget(&repository, &options).await.unwrap();
    (store, repository, id)
}

/// What a prune that reclaims the backup's own packs says.
async fn retire_packs_of(repository: &Repository, id: ObjectHash) {
    let say = async |state: &LogState| {
        let session = state.backups[&id].manifest.session;
        let index = repository.index().await?;
        let packs = index.live_packs().into_iter().map(|pack| pack.name);
        let objects: Vec<ObjectName> = packs.filter(|name| name.session == session).collect();
        let fragments = state.fragments.iter().map(|(_, name)| *name);
        let superseded = fragments.filter(|name| name.session == session).collect();
        Ok(vec![Record::ObjectsRetired { objects, superseded, added: Vec::new() }])
    };
    repository.say(say).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_outlives_new_packs_but_not_the_loss_of_any() {
    let directory = tempfile::tempdir().unwrap();
    let (_, repository, id) = one_forgotten(directory.path()).await;
    let proof = Proof::make(&repository, vec![id], &Silent).await.unwrap();
    let other = back_up(&repository, directory.path(), "three").await;
    assert!(proof.holds_for(&[id], &repository.state()));
    assert!(!proof.holds_for(&[other], &repository.state()), "of another backup it says nothing");
    retire_packs_of(&repository, other).await;
    assert!(!proof.holds_for(&[id], &repository.state()));
    // Nothing that it needs is gone: it is proved again, and comes back.
    assert_eq!(unforget(&repository, &[id], Arc::new(Silent)).await.unwrap().backups, [id]);
}

/// Reclaims the packs the first time something was proved.
struct PrunesMeanwhile {
    by: Repository,
    id: ObjectHash,
    done: AtomicBool,
}

impl Monitor for PrunesMeanwhile {
    fn event(&self, _event: Event) {}

    fn advance(&self, _bytes: u64, _new_bytes: u64, _items: u64) {
        if !self.done.swap(true, Ordering::SeqCst) {
            let retire = retire_packs_of(&self.by, self.id);
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(retire));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_go_during_the_proof_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (store, repository, id) = one_forgotten(directory.path()).await;
    let by = Repository::open(store.clone(), OpenOptions::default(), environment()).await.unwrap();
    let monitor = Arc::new(PrunesMeanwhile { by, id, done: AtomicBool::new(false) });
    let error = unforget(&repository, &[id], monitor.clone()).await.unwrap_err();
    assert!(monitor.done.load(Ordering::SeqCst));
    assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt), "{error}");
    let fresh = Repository::open(store, OpenOptions::default(), environment()).await.unwrap();
    assert!(fresh.forgotten().iter().any(|backup| backup.id == id), "still forgotten: {error}");
}
