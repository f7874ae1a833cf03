//! Making a repository, and opening one.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use super::{Environment, Inner, Repository};
use crate::codec::entry_hash;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::config::{Chunking, Config, StoreFacts};
use crate::id::{FamilyId, RepositoryId};
use crate::log::Chain;
use crate::store::{Folder, Put, Store, StoredObject, probe};

/// How a repository is made.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// How files are cut; cannot be changed later.
    pub chunking: Chunking,
    /// Bytes at which a pack is sealed.
    pub pack_target: u32,
    /// zstd level of what is not split.
    pub level: i32,
    /// Accept a store that cannot refuse a second create: one writer at a time, by the user's word.
    pub single_writer: bool,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { chunking: Chunking::default(), pack_target: 32 << 20, level: 1, single_writer: false }
    }
}

/// How a repository is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Fold the log from its first entry, whatever state objects say.
    pub distrust_state: bool,
    /// For tests: a rule of the log that is not kept, to show what it is for.
    #[doc(hidden)]
    pub without: Option<super::Rule>,
    /// For tests: what a backup stored is published as soon as it is so many bytes of packs, so that small ones have checkpoints too.
    #[doc(hidden)]
    pub checkpoint_bytes: Option<u64>,
}

impl Repository {
    /// Makes a repository in an empty place. Probes the store first and refuses one that cannot be shared, unless told otherwise.
    ///
    /// If we crash here: either there is no `config`, and `create` can be repeated, or there is one and the repository is complete:
    /// the first log entry is written by whoever opens it next.
    pub async fn create(store: Store, options: &InitOptions, environment: Environment) -> Result<Self> {
        Self::create_in_family(store, options, None, environment).await
    }

    /// The same, as a replica of `origin`: of its family, cutting and packing as it does, so that packs travel between the two unchanged.
    pub async fn create_member(
        store: Store,
        origin: &Self,
        single_writer: bool,
        environment: Environment,
    ) -> Result<Self> {
        let Config { family, chunking, pack_target, level, .. } = *origin.config();
        let options = InitOptions { chunking, pack_target, level, single_writer };
        Self::create_in_family(store, &options, Some(family), environment).await
    }

    /// The same, in a family that is there already; `None` founds one.
    pub(crate) async fn create_in_family(
        store: Store,
        options: &InitOptions,
        family: Option<FamilyId>,
        environment: Environment,
    ) -> Result<Self> {
        if store.head(StoredObject::Config).await?.is_some() {
            let message = format!("{}: there is a repository already; it was left as it is", store.display());
            return Err(Error::invalid(message));
        }
        refuse_foreign(&store).await?;
        let abilities = probe(&store).await.context(|| format!("probe {}", store.display()))?;
        if let Some(root) = store.local_path() {
            // Empty, unless somebody probes at the same time.
            let _stays = std::fs::remove_dir(root.join("probe"));
        }
        let lacks = abilities.findings().into_iter().filter(|ability| !ability.ok).map(|ability| ability.meaning);
        let lacks = lacks.collect::<Vec<_>>().join("; ");
        if !abilities.is_usable() || (!abilities.is_safe_for_sharing() && !options.single_writer) {
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {lacks}", store.display())));
        }
        let config = Config {
            repository: RepositoryId::from_bytes(environment.entropy.array()?),
            family: match family {
                Some(family) => family,
                None => FamilyId::from_bytes(environment.entropy.array()?),
            },
            created: environment.clock.now(),
            mandatory_features: Vec::new(),
            optional_features: Vec::new(),
            chunking: options.chunking,
            pack_target: options.pack_target,
            level: options.level,
            store: StoreFacts {
                create_only: abilities.create_only,
                create_race_safe: abilities.create_race_safe,
                range_reads: abilities.range_reads,
                list_offset: abilities.list_offset,
                single_writer: options.single_writer,
            },
            tool: crate::TOOL.to_owned(),
        };
        let stored = Bytes::from(config.encode());
        // What is written must be readable before it counts: parameters out of range are refused here.
        Config::decode(&stored).map_err(|error| Error::invalid(error.message().to_owned()))?;
        match store.create(StoredObject::Config, stored).await? {
            Put::Created => {
                let repository = Self::open(store, OpenOptions::default(), environment).await?;
                repository.keep_ballast().await;
                Ok(repository)
            }
            Put::AlreadyThere(_) => {
                let message = format!(
                    "{}: somebody else made a repository there just now; it was left as it is",
                    store.display()
                );
                Err(Error::new(ErrorKind::Busy, message))
            }
        }
    }

    /// Opens a repository: reads its config and folds its log.
    pub async fn open(store: Store, options: OpenOptions, environment: Environment) -> Result<Self> {
        let stored = match store.get(StoredObject::Config).await {
            Ok(stored) => stored,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(no_repository(&store).await),
            Err(error) => return Err(error.context(format!("open the repository {}", store.display()))),
        };
        let config =
            Config::decode(&stored).context(|| format!("open the repository {}: read config", store.display()))?;
        let chain = Chain::new(store.clone(), entry_hash(&stored));
        let state = if options.distrust_state { chain.load_whole().await?.0 } else { chain.load().await? };
        let inner = Inner {
            store,
            config,
            chain,
            environment,
            without: options.without,
            checkpoint_bytes: options.checkpoint_bytes,
            state: std::sync::RwLock::new(Arc::new(state)),
            index: tokio::sync::Mutex::new(None),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// A repository does not mix with other people's files: `check` could not tell them from damage, and a tree that is itself to be backed up
/// must not be taken for a place to back up to.
async fn refuse_foreign(store: &Store) -> Result<()> {
    let mut listing = store.list(Folder::Root).take(FOREIGN_LOOKED_AT);
    while let Some(info) = futures::TryStreamExt::try_next(&mut listing).await? {
        if let StoredObject::Unknown(path) = info.object() {
            let message =
                format!("{}: it is not empty (it holds {path}); name an empty or a new place", store.display());
            return Err(Error::invalid(message));
        }
    }
    Ok(())
}

/// So many objects are looked at before a place is believed to hold nothing foreign.
const FOREIGN_LOOKED_AT: usize = 1000;

/// There is no config: nothing at all, half an `init`, or a repository that lost it?
async fn no_repository(store: &Store) -> Error {
    let log = futures::TryStreamExt::try_next(&mut store.list(Folder::Log)).await;
    match log {
        Ok(Some(_)) => Error::corrupt(format!(
            "open the repository {}: `config` is missing, but there is a log: `everpack repair --from COPY` brings it back from a copy of this repository",
            store.display()
        )),
        Ok(None) => Error::new(
            ErrorKind::NotFound,
            format!(
                "open the repository {}: there is none; `everpack init -r {}` makes one",
                store.display(),
                store.display()
            ),
        ),
        Err(error) => error.context(format!("open the repository {}", store.display())),
    }
}
