//! What a store can do, found out by trying.
//!
//! Look-alikes of S3 differ exactly where it hurts: some accept a create-only write and overwrite, some keep the condition
//! between two who come in turn and break it for those who race, some return the wrong part of an object. A passing test
//! of two writers in turn proves nothing, hence the race. The answer is kept in `config`; because repositories get copied
//! to other stores, every writing session asks again with [`confirm_create_only`], which is one request.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::TryStreamExt;
use serde::Serialize;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::fail::{explain, is_refusal};
use super::layout::{Folder, ObjectPath, StoredObject};
use super::reader::StoreReader;
use super::writer::{Put, Store, is_conflict, pause};
use crate::error::{Error, ErrorKind, Result};
use crate::id::Token;

/// Writers in one race.
const RACERS: u8 = 32;
/// Races. A store that looks first and writes later fails nearly every one.
const ROUNDS: usize = 5;
/// How often a question without a clear answer is asked again.
const ATTEMPTS: u32 = 5;
/// What a probe writes is not longer than this.
const PROBE_LEN_MAX: u64 = 4096;

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StoreAbilities {
    /// A create of an existing object is refused.
    pub create_only: bool,
    /// Of writers who race to create one object, exactly one is told that it did, and the object is that writer's.
    pub create_race_safe: bool,
    /// Parts of an object can be read, and are the right ones.
    pub range_reads: bool,
    /// A listing can begin after a name.
    pub list_offset: bool,
    /// A listing shows what was just written and not what was just deleted.
    pub list_after_write: bool,
    /// Objects can be deleted, and deleting one that is not there is fine.
    pub delete: bool,
    /// How long a small write took.
    pub put_latency_ms: u64,
    /// How long a small read took.
    pub get_latency_ms: u64,
}

/// One ability in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ability {
    /// In one or two words.
    pub name: &'static str,
    /// True if the store has it.
    pub ok: bool,
    /// What that means.
    pub meaning: &'static str,
}

impl StoreAbilities {
    /// Every ability in words, with what follows from it.
    pub fn findings(&self) -> Vec<Ability> {
        let say = |name, ok, good, bad| Ability { name, ok, meaning: if ok { good } else { bad } };
        vec![
            say(
                "create-only writes",
                self.create_only,
                "a second write of one name is refused",
                "a second write of one name is accepted or not understood: writers would overwrite each other's log entries, \
                 so only one may write at a time (--single-writer)",
            ),
            say(
                "create races",
                self.create_race_safe,
                "of racing writers exactly one wins",
                "several racing writers are told that they won: only one may write at a time (--single-writer)",
            ),
            say(
                "range reads",
                self.range_reads,
                "parts of an object can be read",
                "parts of an object cannot be read correctly: this store cannot hold a repository",
            ),
            say(
                "listing from a name",
                self.list_offset,
                "a listing can begin after a name",
                "a listing always begins at the front: opening gets slower as the log grows",
            ),
            say(
                "listing after writing",
                self.list_after_write,
                "listings show what was just written",
                "listings lag behind writes: only one may write at a time (--single-writer)",
            ),
            say(
                "delete",
                self.delete,
                "objects can be deleted",
                "objects cannot be deleted, or not with these credentials: prune will not work here",
            ),
        ]
    }

    /// True if any number of writers may use the store at once.
    pub fn is_safe_for_sharing(&self) -> bool {
        self.create_only && self.create_race_safe && self.list_after_write
    }

    /// True if the store can hold a repository at all, be it for one writer.
    pub fn is_usable(&self) -> bool {
        self.range_reads
    }
}

/// Finds out what a store can do, in about 400 small requests, most of them at once. Cleans up behind itself.
///
/// Fails if the store cannot be written or read at all. If we are killed here, a few objects stay under `probe/`.
pub async fn probe(store: &Store) -> Result<StoreAbilities> {
    let mut used = Vec::new();
    let abilities = run(store, &mut used).await;
    // Whatever came of it. If deleting does not work, the answer says so.
    let cleaned = store.delete_many(used).await;
    match (abilities, cleaned) {
        (Ok(abilities), Ok(())) => Ok(abilities),
        (Ok(abilities), Err(_)) => Ok(StoreAbilities { delete: false, ..abilities }),
        (Err(error), _) => Err(error.context(format!("probe {}", store.display()))),
    }
}

async fn run(store: &Store, used: &mut Vec<ObjectPath>) -> Result<StoreAbilities> {
    let path = new_path(used)?;
    let pattern: Bytes = (0..=255u8).cycle().take(1000).collect();
    let started = Instant::now();
    store.put_new(&path, vec![pattern.clone()]).await?;
    let put_latency_ms = millis(started);
    let started = Instant::now();
    if store.get_limited(&path, PROBE_LEN_MAX).await? != pattern {
        return Err(Error::corrupt(format!("{path} does not read back as it was written")));
    }
    let get_latency_ms = millis(started);

    let range_reads = reads_ranges(store, &path, &pattern).await;
    let list_offset = lists_from(store, used).await?;
    let create_only = creates_only(store, used).await?;
    let mut create_race_safe = create_only;
    for _ in 0..ROUNDS {
        create_race_safe = create_race_safe && survives_race(store, &new_path(used)?).await?;
    }
    let (listed, delete) = deletes(store, used).await?;
    Ok(StoreAbilities {
        create_only,
        create_race_safe,
        range_reads,
        list_offset: list_offset.0,
        list_after_write: list_offset.1 && listed,
        delete,
        put_latency_ms,
        get_latency_ms,
    })
}

/// A fresh name, remembered for cleaning up.
fn new_path(used: &mut Vec<ObjectPath>) -> Result<ObjectPath> {
    let path = StoredObject::Probe(random_token()?).path();
    used.push(path.clone());
    Ok(path)
}

fn random_token() -> Result<Token> {
    let mut bytes = [0; Token::LEN];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(ErrorKind::Unavailable, format!("the system gives no random bytes: {error}")))?;
    Ok(Token::from_bytes(bytes))
}

fn millis(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn reads_ranges(store: &StoreReader, path: &ObjectPath, pattern: &Bytes) -> bool {
    let one = store.get_range(path, 100..300).await;
    let several = store.get_ranges(path, &[900..1000, 0..1, 100..300]).await;
    let expected = [pattern.slice(900..1000), pattern.slice(0..1), pattern.slice(100..300)];
    one.is_ok_and(|bytes| bytes == pattern[100..300]) && several.is_ok_and(|found| found == expected)
}

/// Whether a listing begins after a name, and whether it shows what was just written.
async fn lists_from(store: &Store, used: &mut Vec<ObjectPath>) -> Result<(bool, bool)> {
    let mut paths = Vec::new();
    for _ in 0..3 {
        let path = new_path(used)?;
        store.put_new(&path, vec![Bytes::from_static(b"list")]).await?;
        paths.push(path);
    }
    paths.sort();
    let prefix = ObjectPath::from(Folder::Probe);
    // The raw listing, because ours makes up for servers that ignore the offset.
    let listing = store.inner.objects.list_with_offset(Some(prefix.as_path()), paths[1].as_path());
    let listed: Vec<_> = match listing.try_collect::<Vec<_>>().await {
        Ok(listed) => listed.into_iter().map(|meta| ObjectPath::from_path(meta.location)).collect(),
        Err(error) if is_refusal(&error) => Vec::new(),
        Err(error) => return Err(explain("list", prefix.as_str(), store.display(), error)),
    };
    let from_name = listed.contains(&paths[2]) && !listed.contains(&paths[1]) && !listed.contains(&paths[0]);
    let all = list_probes(store).await?;
    Ok((from_name, paths.iter().all(|path| all.contains(path))))
}

async fn list_probes(store: &StoreReader) -> Result<Vec<ObjectPath>> {
    store.list(Folder::Probe).map_ok(|info| info.path).try_collect().await
}

/// Two writers in turn, with different bytes.
async fn creates_only(store: &Store, used: &mut Vec<ObjectPath>) -> Result<bool> {
    let path = new_path(used)?;
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    match store.create(&path, first.clone()).await {
        Ok(Put::Created) => {}
        // A name made of 16 random bytes was free.
        Ok(Put::AlreadyThere(_)) => return Ok(false),
        Err(error) => return cannot(error),
    }
    match store.create(&path, second).await {
        Ok(put) => {
            Ok(put == Put::AlreadyThere(first.clone()) && store.get_limited(&path, PROBE_LEN_MAX).await? == first)
        }
        Err(error) => cannot(error),
    }
}

/// Plain writes work, so a create that fails because of what it asks for is a `no`; a lost connection is not.
fn cannot(error: Error) -> Result<bool> {
    let is_no = error.kind() == ErrorKind::Unsupported || error_is_about_links(&error);
    if is_no { Ok(false) } else { Err(error) }
}

/// On disk a create is a hard link, which some file systems do not have.
fn error_is_about_links(error: &Error) -> bool {
    let mut at = std::error::Error::source(error);
    while let Some(cause) = at {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{PermissionDenied, Unsupported};
            return matches!(io.kind(), PermissionDenied | Unsupported);
        }
        at = cause.source();
    }
    false
}

/// Many writers at once: one is told that it created the object, all others are shown its bytes, and they stay there.
async fn survives_race(store: &Store, path: &ObjectPath) -> Result<bool> {
    let mut racers = JoinSet::new();
    // All at one line: on a busy machine the first would otherwise be through before the last is born.
    let line = Arc::new(Barrier::new(RACERS.into()));
    for n in 0..RACERS {
        let (store, path, line) = (store.clone(), path.clone(), line.clone());
        racers.spawn(async move {
            line.wait().await;
            let bytes = Bytes::from(format!("racer {n}"));
            let put = store.create(&path, bytes.clone()).await?;
            Ok::<_, Error>((bytes, put))
        });
    }
    let mut winners = Vec::new();
    let mut seen = Vec::new();
    while let Some(racer) = racers.join_next().await {
        let racer = racer.map_err(|error| Error::with_source(ErrorKind::Unavailable, "a racer was stopped", error))?;
        match racer? {
            (bytes, Put::Created) => winners.push(bytes),
            (_, Put::AlreadyThere(bytes)) => seen.push(bytes),
        }
    }
    let last = store.get_limited(path, PROBE_LEN_MAX).await?;
    Ok(winners.len() == 1 && winners[0] == last && seen.iter().all(|bytes| *bytes == last))
}

/// Whether listings follow deletes, and whether deletes work, also of what is gone.
async fn deletes(store: &Store, used: &mut Vec<ObjectPath>) -> Result<(bool, bool)> {
    let path = new_path(used)?;
    store.put_new(&path, vec![Bytes::from_static(b"delete")]).await?;
    let was_listed = list_probes(store).await?.contains(&path);
    if store.delete(&path).await.is_err() || store.exists(&path).await? {
        return Ok((was_listed, false));
    }
    let is_listed = list_probes(store).await?.contains(&path);
    let again = store.delete(&path).await.is_ok();
    Ok((was_listed && !is_listed, again))
}

/// Creates an existing object again with the bytes it has, and must be told that it exists.
///
/// For every writing session, because a repository may have been copied to a store that was never probed. Harmless where
/// it fails: the store then overwrote the object with its own bytes.
pub async fn confirm_create_only(store: &Store, object: impl Into<ObjectPath>, bytes: Bytes) -> Result<()> {
    let path = object.into();
    let mut attempt = 0;
    loop {
        let error = match store.create_once(&path, bytes.clone()).await? {
            Ok(()) => {
                let message = format!(
                    "{} overwrites what exists ({path}): it cannot be shared by several writers",
                    store.display()
                );
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            Err(error) => error,
        };
        if is_conflict(&error) {
            match store.get_if_there(&path, bytes.len() as u64).await? {
                Some(found) if found == bytes => return Ok(()),
                Some(_) => {
                    let message = format!("{path} in {} is not what it was a moment ago", store.display());
                    return Err(Error::corrupt(message));
                }
                None => {}
            }
        }
        attempt += 1;
        if is_refusal(&error) || attempt >= ATTEMPTS {
            return Err(explain("create again", path.as_str(), store.display(), error));
        }
        tokio::time::sleep(pause(attempt)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;
    use crate::store::adapter::{Faults, Faulty, Overwriter, Racy, Recorder};

    fn memory() -> Store {
        Store::open("memory:", &StoreOptions::default()).unwrap()
    }

    fn local() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
        (dir, store)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn good_stores_pass_and_are_left_clean() {
        let (_dir, local) = local();
        for store in [memory(), local] {
            let (store, recorder) = Recorder::around(&store);
            let abilities = probe(&store).await.unwrap();
            assert!(abilities.is_safe_for_sharing() && abilities.is_usable(), "{}: {abilities:?}", store.display());
            assert!(abilities.findings().iter().all(|ability| ability.ok));
            assert!(list_probes(&store).await.unwrap().is_empty());
            assert!(store.leftovers().await.unwrap().is_empty());
            let requests = recorder.counts().requests();
            assert!(requests < 450, "the probe made {requests} requests");
        }
    }

    #[tokio::test]
    async fn a_store_that_overwrites_is_caught() {
        let (_dir, local) = local();
        for store in [memory(), local] {
            let abilities = probe(&Overwriter::around(&store)).await.unwrap();
            assert!(!abilities.create_only && !abilities.is_safe_for_sharing() && abilities.is_usable());
            assert!(abilities.findings()[0].meaning.contains("--single-writer"));
        }
    }

    #[tokio::test]
    async fn a_store_that_looks_first_is_caught_by_the_race_alone() {
        let (_dir, local) = local();
        for store in [memory(), local] {
            let abilities = probe(&Racy::around(&store)).await.unwrap();
            assert!(abilities.create_only, "two in turn see nothing");
            assert!(!abilities.create_race_safe && !abilities.is_safe_for_sharing());
        }
    }

    #[tokio::test]
    async fn lost_replies_do_not_look_like_lost_races() {
        let faults = Faults { seed: 7, lost_replies_per_mille: 100, ..Faults::default() };
        for seed in 0..10 {
            let (store, faulty) = Faulty::around(&memory(), Faults { seed, ..faults.clone() });
            // Plain puts do fail here, and then the probe fails; when it answers, it answers right.
            match probe(&store).await {
                Ok(abilities) => assert!(abilities.is_safe_for_sharing(), "seed {seed}: {abilities:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}: {error}"),
            }
            assert!(faulty.failures() > 0);
        }
    }

    #[tokio::test]
    async fn sessions_notice_when_the_store_no_longer_creates_only() {
        let store = memory();
        let head = StoredObject::Log(1);
        let bytes = Bytes::from_static(b"token 1");
        assert_eq!(store.create(&head, bytes.clone()).await.unwrap(), Put::Created);
        let (store, recorder) = Recorder::around(&store);
        confirm_create_only(&store, &head, bytes.clone()).await.unwrap();
        assert_eq!(recorder.counts().creates, 1);
        let error = confirm_create_only(&Overwriter::around(&store), &head, bytes.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = confirm_create_only(&store, &head, Bytes::from_static(b"token 2")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(store.get(&head).await.unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_store_that_is_down_gives_no_answer() {
        let (store, _faulty) = Faulty::around(&memory(), Faults { errors_per_mille: 1000, ..Faults::default() });
        assert_eq!(probe(&store).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
