//! A repository: everything under one root, opened.
//!
//! - [`ballast`]: room for an entry of the log on a full disk.
//! - [`create`]: `init` and `open`.
//! - [`session`]: registration in the log, the lock of a lineage, fencing.
//! - [`writer`]: new chunks into packs, packs into fragments, fragments into the log.
//! - [`sink`]: stored chunks into packs of another session.
//! - [`chunks`]: chunks out of packs, verified, with every spare location tried.
//! - [`entries`]: the entries of a backup, streamed.
//! - [`ledger`]: which packs were read and verified when.
//! - [`forgotten`]: the backups that were forgotten and are still there.
//! - [`reach`]: every chunk that backups name, streamed.
//! - [`rules`]: the rules of the log by name, for the tests that switch one off.
//! - [`commit`]: the proof that everything a backup names is live, and the entry that makes it exist.
//!
//! The nouns below (log, pack, index, manifest) do not know each other; they meet here. Verbs are in `ops`.

mod ballast;
mod chunks;
mod commit;
mod create;
mod entries;
mod forgotten;
mod ledger;
mod reach;
mod rules;
mod session;
mod sink;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

pub(crate) use chunks::{ChunkCache, decode_verified};
pub(crate) use commit::Commit;
pub use create::{InitOptions, OpenOptions};
pub(crate) use entries::{EntryStream, pieces_of};
pub use ledger::ScrubAge;
pub(crate) use ledger::{Ledger, StoreClock};
pub(crate) use reach::Reach;
#[doc(hidden)]
pub use rules::Rule;
pub(crate) use session::{REFRESH_EVERY, Session, SessionRequest};
pub(crate) use sink::{FRAGMENT_ENTRIES, FRAGMENT_PACKS, PackSink, Sunk};
pub(crate) use writer::{CodedChunk, Finished, Writer, WriterTotals};

pub use crate::format::config::{Chunking, StoreFacts};
pub use crate::format::log_record::BackupSummary;
pub use crate::format::log_state::BackupState;
pub use crate::format::manifest::{Manifest, Totals};
pub use crate::format::segment::{Entry, EntryKind, FileFormat, Piece, Pieces, Transform};
pub use crate::log::Process;

use crate::clock::{Clock, Timestamp};
use crate::codec::object_hash;
use crate::entropy::Entropy;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::config::Config;
use crate::format::log_state::LogState;
use crate::id::{ObjectHash, ObjectName, RepositoryId};
use crate::index::{CatchUp, Index, catch_up};
use crate::log::Chain;
use crate::store::{Store, StoredObject};

/// What a repository takes from its surroundings, so that tests can give it others.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Who we are.
    pub process: Process,
    /// Where caches go; `None` keeps nothing on this host.
    pub cache: Option<PathBuf>,
}

/// An open repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    config: Config,
    chain: Chain,
    environment: Environment,
    /// For tests: the one rule of the log that is not kept.
    without: Option<Rule>,
    /// For tests: checkpoints of a backup that come sooner.
    checkpoint_bytes: Option<u64>,
    state: RwLock<Arc<LogState>>,
    index: tokio::sync::Mutex<Option<Arc<Index>>>,
}

/// A backup as `list` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BackupInfo {
    /// Its id.
    pub id: ObjectHash,
    /// The log entry that committed it: later backups have greater ones, whatever the clocks say.
    pub entry: u64,
    /// The log entry that forgot it.
    pub forgotten: Option<u64>,
    /// It cannot be forgotten until then; a time that is past holds nothing.
    pub held_until: Option<Timestamp>,
    /// The rest.
    #[serde(flatten)]
    pub summary: BackupSummary,
}

impl From<&BackupState> for BackupInfo {
    fn from(state: &BackupState) -> Self {
        let BackupState { manifest, entry, forgotten, held_until, summary } = state;
        let (entry, forgotten, held_until) = (*entry, *forgotten, *held_until);
        Self { id: manifest.hash, entry, forgotten, held_until, summary: summary.clone() }
    }
}

impl Repository {
    /// The repository's id.
    pub fn id(&self) -> RepositoryId {
        self.inner.config.repository
    }

    /// How its files are cut.
    pub fn chunking(&self) -> Chunking {
        self.inner.config.chunking
    }

    /// What its store was found to be able to do at `init`.
    pub fn store_facts(&self) -> StoreFacts {
        self.inner.config.store
    }

    /// Where it is, without credentials.
    pub fn location(&self) -> String {
        self.inner.store.display().to_string()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn chain(&self) -> &Chain {
        &self.inner.chain
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.inner.environment
    }

    /// True but in tests that show what a rule is for.
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.inner.without != Some(rule)
    }

    /// The bytes of stored packs at which a backup publishes them; for tests another number than the writer's own.
    pub(crate) fn checkpoint_bytes(&self) -> Option<u64> {
        self.inner.checkpoint_bytes
    }

    /// The state of the log as last read.
    pub(crate) fn state(&self) -> Arc<LogState> {
        Arc::clone(&self.inner.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_state(&self, state: LogState) {
        *self.inner.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    /// Reads what others appended to the log since.
    pub async fn refresh(&self) -> Result<()> {
        let mut state = LogState::clone(&self.state());
        self.chain().advance(&mut state).await?;
        self.set_state(state);
        Ok(())
    }

    /// Fails if this host has seen more of the log than is there now: the repository was rolled back, or cut off.
    pub async fn confirm_not_rolled_back(&self) -> Result<()> {
        self.opened_index().await.map(drop)
    }

    /// The committed, unforgotten backups, oldest first.
    pub fn backups(&self) -> Vec<BackupInfo> {
        self.state().listed().into_iter().map(BackupInfo::from).collect()
    }

    /// A backup by id, by a unique prefix of one, or `latest` (of all, or of a lineage as `latest:NAME`).
    pub fn find_backup(&self, spec: &str) -> Result<BackupInfo> {
        let backups = self.backups();
        if backups.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("{}: there is no backup in it yet", self.location())));
        }
        if let Some(rest) = spec.strip_prefix("latest") {
            let lineage = rest.strip_prefix(':');
            if rest.is_empty() || lineage.is_some() {
                let wanted = |backup: &&BackupInfo| lineage.is_none_or(|name| backup.summary.lineage_name == name);
                return backups.iter().rfind(wanted).cloned().ok_or_else(|| {
                    Error::new(
                        ErrorKind::NotFound,
                        format!("backup {spec:?}: no backup of that lineage; `everpack list` shows them"),
                    )
                });
            }
        }
        forgotten::pick(&backups, spec)?.cloned().ok_or_else(|| {
            let message = format!("backup {spec:?}: there is none of that id; `everpack list` shows what there is");
            Error::new(ErrorKind::NotFound, message)
        })
    }

    /// Reads the root object of a backup, verified by its name.
    pub async fn manifest(&self, id: &ObjectHash) -> Result<Manifest> {
        let state = self.state();
        let Some(backup) = state.backups.get(id) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "backup {id}: the log does not know it: it was never here, or was forgotten and pruned meanwhile"
                ),
            ));
        };
        let stored = self.get_named(&backup.manifest).await?;
        Manifest::decode(&stored).context(|| format!("read {}", backup.manifest))
    }

    /// Reads an object, verified by its name.
    pub(crate) async fn get_named(&self, name: &ObjectName) -> Result<Bytes> {
        let stored = self.store().get(StoredObject::Named(*name)).await?;
        if object_hash(&stored) != name.hash {
            return Err(Error::corrupt(format!("read {name}: the bytes are not those of its name")));
        }
        Ok(stored)
    }

    /// Compares the log with the newest entry that this host has seen of it before.
    async fn check_not_rolled_back(&self, index: &Index) -> Result<()> {
        let Some((number, hash)) = index.seen()? else { return Ok(()) };
        // Another process of this host may have seen more since we read the log, while we waited for the index: look again first.
        if number > self.state().head {
            self.refresh().await?;
        }
        let state = self.state();
        let same = match number.cmp(&state.head) {
            std::cmp::Ordering::Equal => state.head_hash == Some(hash),
            std::cmp::Ordering::Less => self.chain().has_entry(number, hash).await?,
            std::cmp::Ordering::Greater => false,
        };
        if same {
            return Ok(());
        }
        let message = format!(
            "{}: its log went backwards: this host has seen entry {number} {hash}, and now the log ends at {} without it. Backups may be \
             missing. If the repository was restored from an older copy on purpose, delete this host's cache of it ({}) and run again",
            self.location(),
            state.head,
            self.environment()
                .cache
                .as_ref()
                .map_or_else(String::new, |cache| cache.join(self.id().to_string()).display().to_string()),
        );
        Err(Error::corrupt(message))
    }

    /// The local index as it is. Fails if the log is behind what this host has seen of it: whoever writes asks before the first entry.
    pub(crate) async fn opened_index(&self) -> Result<Arc<Index>> {
        self.index_in(&mut *self.inner.index.lock().await).await
    }

    async fn index_in(&self, slot: &mut Option<Arc<Index>>) -> Result<Arc<Index>> {
        if let Some(index) = slot {
            return Ok(Arc::clone(index));
        }
        let index = self.open_index().await?;
        if !self.keeps(Rule::SkipRetired) {
            index.count_retired();
        }
        self.check_not_rolled_back(&index).await?;
        Ok(Arc::clone(slot.insert(index)))
    }

    /// The local index, caught up to the state last read.
    pub(crate) async fn index(&self) -> Result<Arc<Index>> {
        self.caught_up_index().await.map(|(index, _)| index)
    }

    /// The same, with what came up.
    pub(crate) async fn caught_up_index(&self) -> Result<(Arc<Index>, CatchUp)> {
        let mut slot = self.inner.index.lock().await;
        let index = self.index_in(&mut slot).await?;
        // What a backup met counts until somebody looks anew.
        index.stop_counting_damaged(false);
        let report = catch_up(&index, self.store(), &self.state(), &[]).await?;
        Ok((index, report))
    }

    /// The same for who reports a log that went backwards instead of stopping at it.
    pub(crate) async fn index_of_any_log(&self) -> Result<(Arc<Index>, CatchUp)> {
        let index = self.inner.index.lock().await.clone();
        let index = match index {
            Some(index) => index,
            None => self.open_index().await?,
        };
        let report = catch_up(&index, self.store(), &self.state(), &[]).await?;
        Ok((index, report))
    }

    async fn open_index(&self) -> Result<Arc<Index>> {
        let directory = self.environment().cache.as_ref().map(|cache| cache.join(self.id().to_string()));
        let id = self.id();
        let index = tokio::task::spawn_blocking(move || Index::open(directory.as_deref(), id));
        Ok(Arc::new(index.await.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))??))
    }
}
