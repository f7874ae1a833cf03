//! What an id, or a place, stands for: a backup in a repository, or a tree that another tool wrote.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use everpack::error::{Context, Error, ErrorKind, Result};
use everpack::ops::import::{Tree, TreePlace};
use everpack::repo::{BackupInfo, InitOptions, OpenOptions, Repository};
use everpack::source::{BucketOptions, BucketSource, StoreBucket};
use everpack::store::{ObjectPath, Store, StoreOptions};
use everpack::tae::Ts;

use super::Env;
use super::flags::Line;
use super::meta::{Catalogue, MetaLine, Record};
use super::place::{Keys, Place};
use crate::open::{blocking, environment, store_options};

/// What the tool writes into the place of a backup, so that it is known by its directory.
pub(super) const BACKUP_META: &str = "backup_meta";
/// Bytes that a `backup_meta` of ours has at most.
const BACKUP_META_MOST: u64 = 1 << 16;

/// A backup.
pub(super) enum Found {
    /// In a repository.
    Stored { repository: Repository, backup: BackupInfo },
    /// As a server wrote it.
    Tree(FoundTree),
}

/// A tree as a server wrote it.
#[derive(Clone)]
pub(super) struct FoundTree {
    pub(super) place: Place,
    keys: Keys,
    virtual_host: bool,
}

/// What a backup in a repository is tagged with, so that it is found without the catalogue.
pub(super) fn tag_of(id: &str) -> String {
    format!("mo_br:{}", id.to_ascii_lowercase())
}

/// The id in a backup's tags.
pub(super) fn id_of(tags: &[String]) -> Option<&str> {
    tags.iter().find_map(|tag| tag.strip_prefix("mo_br:"))
}

impl Env {
    /// The path of the catalogue, if one is named.
    pub(super) fn meta_path(&self) -> Option<&str> {
        self.line.text("meta_path").or(self.settings.meta_path.as_deref())
    }

    /// The catalogue, to look at it.
    pub(super) fn catalogue(&self) -> Result<Catalogue> {
        let catalogue = Catalogue::read(self.meta_path())?;
        if catalogue.lacks_digest {
            self.note(&format!("{}: there is no .sha256 beside it; its content was not verified", catalogue.name()));
        }
        Ok(catalogue)
    }

    /// The repository that the settings name, and how it is reached.
    fn named_repository(&self) -> Option<(String, StoreOptions)> {
        Some((self.globals.repo.clone(), store_options(&self.globals))).filter(|(url, _)| !url.is_empty())
    }

    /// Opens the repository for a new backup: the one that is named, else the place itself, which becomes one if it is none yet.
    pub(super) async fn repository_for(&self, place: &Place, keys: &Keys) -> Result<Repository> {
        if let Some((url, options)) = self.named_repository() {
            return open(self, &url, &options).await.map_err(|error| match error.kind() {
                ErrorKind::NotFound => error.context("the repository that mo_br.toml or EVERPACK_REPO names"),
                _ => error,
            });
        }
        let virtual_host = self.settings.virtual_host;
        let store = place.create(keys, virtual_host)?;
        match Repository::open(store.clone(), OpenOptions::default(), environment(&self.globals)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        self.note(&format!("{} becomes an everpack repository", store.display()));
        let made = Repository::create(store.clone(), &InitOptions::default(), environment(&self.globals)).await;
        match made {
            // Somebody else was first: theirs is as good.
            Err(error) if error.kind() == ErrorKind::Busy => {
                Repository::open(store, OpenOptions::default(), environment(&self.globals)).await
            }
            made => made,
        }
    }

    /// What the catalogue, or the repository, knows of an id.
    pub(super) async fn find(&self, id: &str, keys: &Keys) -> Result<(Option<MetaLine>, Found)> {
        let catalogue = self.catalogue()?;
        let line = catalogue.find(id).cloned();
        let found = match &line {
            Some(MetaLine::Ours(record)) if !record.backup.is_empty() => self.stored(id, record, keys).await?,
            Some(MetaLine::Ours(record)) => Found::Tree(self.tree(record.place.clone(), keys)),
            Some(MetaLine::Other(text)) => {
                let path = foreign_tree(id, text).ok_or_else(|| {
                    let message = format!(
                        "backup {id}: {} has a line of another tool, and the place it names is not known to hold a backup; name the \
                         directory by --backup_dir filesystem --backup_path",
                        catalogue.name()
                    );
                    Error::new(ErrorKind::NotFound, message)
                })?;
                Found::Tree(self.tree(Place::Filesystem(path), keys))
            }
            None => self.tagged(id, &catalogue.name()).await?,
        };
        Ok((line, found))
    }

    fn tree(&self, place: Place, keys: &Keys) -> FoundTree {
        FoundTree { place, keys: keys.clone(), virtual_host: self.settings.virtual_host }
    }

    /// A backup of ours: in the repository that is named now, the one named then, or its place.
    async fn stored(&self, id: &str, record: &Record, keys: &Keys) -> Result<Found> {
        let mut places: Vec<(String, StoreOptions)> = self.named_repository().into_iter().collect();
        if record.repository.is_empty() {
            places.push((record.place.url(), record.place.options(keys, self.settings.virtual_host)));
        } else {
            places.push((record.repository.clone(), store_options(&self.globals)));
        }
        let mut last = None;
        for (url, options) in places {
            let repository = match open(self, &url, &options).await {
                Ok(repository) => repository,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            let backups = repository.backups();
            let is_it = |backup: &&BackupInfo| {
                backup.id.to_string() == record.backup || backup.summary.tags.contains(&tag_of(id))
            };
            match backups.into_iter().rev().find(|backup| is_it(&backup)) {
                Some(backup) => return Ok(Found::Stored { repository, backup }),
                None => last = Some(not_in(id, &repository)),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::NotFound, format!("backup {id}: no repository is known"))))
    }

    /// A backup that the catalogue does not know.
    async fn tagged(&self, id: &str, catalogue: &str) -> Result<Found> {
        let unknown = || {
            Error::new(
                ErrorKind::NotFound,
                format!("backup {id}: it is not in {catalogue}; `mo_br list` shows what is"),
            )
        };
        let Some((url, options)) = self.named_repository() else { return Err(unknown()) };
        let repository = open(self, &url, &options).await?;
        let backup = repository.backups().into_iter().rev().find(|backup| backup.summary.tags.contains(&tag_of(id)));
        let backup = backup.ok_or_else(|| unknown().context(repository.location()))?;
        Ok(Found::Stored { repository, backup })
    }

    /// What lies in a place: a tree, a backup of ours, or a repository, whose newest backup is meant.
    pub(super) async fn find_in(&self, place: Place, keys: &Keys) -> Result<Found> {
        let store = place.open(keys, self.settings.virtual_host)?;
        let tree_list = ObjectPath::parse("tae/tae_list")?;
        if store.exists(tree_list).await? {
            return Ok(Found::Tree(self.tree(place, keys)));
        }
        let meta = store.get_if_there(ObjectPath::parse(BACKUP_META)?, BACKUP_META_MOST).await?;
        if let Some(meta) = meta.as_deref().and_then(BackupMeta::parse) {
            let parent = parent_of(&place);
            let record = Record {
                id: meta.id.clone(),
                size: 0,
                place: parent,
                begun: None,
                duration: None,
                finished: None,
                backup_ts: String::new(),
                kind: String::new(),
                repository: meta.repository,
                backup: meta.backup,
            };
            return self.stored(&meta.id, &record, keys).await;
        }
        if let Ok(repository) = Repository::open(store, OpenOptions::default(), environment(&self.globals)).await {
            let backups = repository.backups();
            let newest =
                backups.iter().rfind(|backup| id_of(&backup.summary.tags).is_some()).or(backups.last()).cloned();
            let backup = newest.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("{}: there is no backup in it yet", repository.location()))
            })?;
            self.note(&format!("{}: its newest backup, {}", repository.location(), backup.id));
            return Ok(Found::Stored { repository, backup });
        }
        // A directory of backups that went to another repository: the last that the catalogue knows of it.
        let wanted = place.clone().absolute();
        let catalogue = self.catalogue()?;
        let last = catalogue.lines.iter().rev().find_map(|line| match line {
            MetaLine::Ours(record) if record.place == wanted => Some(record.clone()),
            _ => None,
        });
        if let Some(record) = last.filter(|record| !record.backup.is_empty()) {
            return self.stored(&record.id, &record, keys).await;
        }
        if let Place::Filesystem(path) = &place
            && let Some(tree) = only_tree_below(path)?
        {
            return Ok(Found::Tree(self.tree(Place::Filesystem(tree), keys)));
        }
        let message = format!("{}: there is neither a backup in it nor a repository", place.url());
        Err(Error::new(ErrorKind::NotFound, message))
    }
}

fn not_in(id: &str, repository: &Repository) -> Error {
    let message = format!(
        "backup {id}: it is not in the repository {}: it was forgotten, or the repository is another one. `everpack unforget` brings back what was \
         not pruned yet",
        repository.location()
    );
    Error::new(ErrorKind::NotFound, message)
}

async fn open(env: &Env, url: &str, options: &StoreOptions) -> Result<Repository> {
    let store = Store::open(url, options)
        .context(|| format!("open the repository {}", everpack::source::display_path(url.as_bytes())))?;
    Repository::open(store, OpenOptions::default(), environment(&env.globals)).await
}

/// The id that a command is about: a positional, or `--ID`.
pub(super) fn given_id(line: &Line) -> Option<&str> {
    line.word().or_else(|| if line.command().name == "list" { line.text("ID") } else { None })
}

fn parent_of(place: &Place) -> Place {
    match place {
        Place::Filesystem(path) => Place::Filesystem(path.parent().map_or_else(|| path.clone(), Path::to_path_buf)),
        Place::S3(s3) => {
            let mut s3 = s3.clone();
            let path = s3.filepath.trim_end_matches('/');
            s3.filepath = path.rsplit_once('/').map_or_else(String::new, |(parent, _)| parent.to_owned());
            Place::S3(s3)
        }
    }
}

/// The directory of a backup that a line of another tool names: the one that any of its fields leads to.
fn foreign_tree(id: &str, line: &str) -> Option<PathBuf> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line.as_bytes());
    let fields = reader.records().next()?.ok()?;
    let roots = fields.iter().filter(|field| field.starts_with('/')).map(PathBuf::from);
    let mut places = roots.flat_map(|root| {
        let below = [format!("full-{id}"), format!("incremental-{id}"), id.to_owned()].map(|name| root.join(name));
        below.into_iter().chain([root])
    });
    places.find(|place| TreePlace::is_tree(place))
}

/// The one tree in a directory of trees.
fn only_tree_below(path: &Path) -> Result<Option<PathBuf>> {
    let mut trees = trees_below(path);
    if trees.len() > 1 {
        let names: Vec<String> = trees.iter().map(|tree| tree.display().to_string()).collect();
        let message = format!("{}: there are several backups in it; name one of {}", path.display(), names.join(", "));
        return Err(Error::invalid(message));
    }
    Ok(trees.pop())
}

fn trees_below(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut trees: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| TreePlace::is_tree(path)).collect();
    trees.sort();
    trees
}

impl FoundTree {
    fn tree_place(&self) -> Result<TreePlace> {
        match &self.place {
            Place::Filesystem(path) => Ok(TreePlace::directory(path)),
            place @ Place::S3(_) => {
                let access = Arc::new(StoreBucket::new(place.open(&self.keys, self.virtual_host)?.readonly()));
                let handle = tokio::runtime::Handle::current();
                let list = move || {
                    let access = Arc::clone(&access);
                    Ok(Box::new(BucketSource::new(access, handle.clone(), BucketOptions::default())?)
                        as Box<dyn everpack::source::Source>)
                };
                Ok(TreePlace::new(place.url(), list))
            }
        }
    }

    /// The tree, and those beside it that hold what it needs of earlier ones.
    pub(super) async fn places(&self) -> Result<(TreePlace, Vec<TreePlace>)> {
        let (_, earlier) = self.open().await?;
        let earlier = earlier.iter().map(|tree| TreePlace::directory(tree.name())).collect();
        Ok((self.tree_place()?, earlier))
    }

    /// Opens the tree; where its list names what it does not hold, also the trees in the same directory that are older.
    pub(super) async fn open(&self) -> Result<(Tree, Vec<Tree>)> {
        let place = self.tree_place()?;
        let beside = match &self.place {
            Place::Filesystem(path) => {
                let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                let beside = path.parent().map(trees_below).unwrap_or_default();
                beside.into_iter().filter(|other| *other != path).collect()
            }
            Place::S3(_) => Vec::new(),
        };
        blocking(move || {
            let tree = Tree::open(place)?;
            if !tree.needs_earlier() {
                return Ok((tree, Vec::new()));
            }
            // A tree beside it that cannot be opened is no reason to fail: another may have what is needed.
            let opened = beside.into_iter().filter_map(|path| Tree::open(TreePlace::directory(path)).ok());
            let mut earlier: Vec<Tree> = opened.filter(|other| other.sum().ts < tree.sum().ts).collect();
            earlier.sort_by_key(|tree| tree.sum().ts);
            Ok((tree, earlier))
        })
        .await
    }
}

/// `backup_meta` of a backup of ours: lines of a name, a comma, a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BackupMeta {
    pub(super) id: String,
    pub(super) repository: String,
    pub(super) backup: String,
}

impl BackupMeta {
    /// The file.
    pub(super) fn to_text(&self) -> String {
        let Self { id, repository, backup } = self;
        let build = env!("CARGO_PKG_VERSION");
        let repository = crate::output::one_line(repository);
        format!("ID,{id}\nVersion,0823\nBuildinfo,everpack {build}\nRepository,{repository}\nBackup,{backup}\n")
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(','));
            line.map(str::to_owned)
        };
        Some(Self { id: value("ID")?, repository: value("Repository")?, backup: value("Backup")? })
    }
}

/// What a line of another tool tells, as far as its fields can be recognised.
#[derive(Debug, Default)]
pub(super) struct Guess {
    pub(super) path: String,
    pub(super) backup_ts: String,
    pub(super) kind: String,
}

impl Guess {
    pub(super) fn of(line: &str) -> Self {
        let mut guess = Self::default();
        for field in line.split(',').map(|field| field.trim().trim_matches('"')).skip(1) {
            let slot = match field {
                "full" | "incremental" => &mut guess.kind,
                path if path.starts_with('/') => &mut guess.path,
                ts if Ts::parse(ts.as_bytes()).is_some_and(|ts| ts.physical > 1_000_000_000_000_000) => {
                    &mut guess.backup_ts
                }
                _ => continue,
            };
            if slot.is_empty() {
                field.clone_into(slot);
            }
        }
        guess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_meta_comes_back() {
        let meta = BackupMeta { id: "i".to_owned(), repository: String::new(), backup: "b".to_owned() };
        assert_eq!(BackupMeta::parse(meta.to_text().as_bytes()), Some(meta));
        assert_eq!(BackupMeta::parse(b"\xff"), None);
    }

    #[test]
    fn fields_of_other_tools_are_recognised() {
        let guess = Guess::of(
            "25536ff0-126f-11ef-9902-26dd28356ef3,12,filesystem,/b/x,2024-05-15,\"1715745404915410000-1\",full",
        );
        assert_eq!(
            (guess.path.as_str(), guess.backup_ts.as_str(), guess.kind.as_str()),
            ("/b/x", "1715745404915410000-1", "full")
        );
    }

    #[test]
    fn ids_are_found_in_tags() {
        assert_eq!(id_of(&["nightly".to_owned(), tag_of("ABC")]), Some("abc"));
        assert_eq!(id_of(&[]), None);
    }
}
