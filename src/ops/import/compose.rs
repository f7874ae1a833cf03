//! A tree together with what it needs of earlier ones, as one source.
//!
//! Invariant: an entry that is not of the tree itself is a table object with a number below 1000, at `tae/<name>`, of the length that the tree's
//! list says. Such a name stands for the same bytes wherever it is found.

use std::collections::HashMap;
use std::sync::Arc;

use super::tree::Tree;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::manifest::order;
use crate::matrixone::tree::is_request;
use crate::ops::blocking;
use crate::ops::closure::{Reader, StoredFile};
use crate::ops::live::facts;
use crate::repo::{Entry, EntryKind, EntryStream, Repository};
use crate::source::{OpenFile, Skipped, Source, SourceDescription, SourceEntry, SourceFile, Unchanging};
use crate::tae::{FileClass, TaeName, classify, physical_len};

/// Missing names told.
const NAMES: usize = 3;

/// Where an object of an earlier tree is.
#[derive(Clone, Debug)]
enum Origin {
    /// In this tree of the chain.
    Tree { tree: usize, entry: SourceEntry },
    /// In a backup in the repository.
    Stored(Box<Entry>),
}

/// Where everything comes from that a tree does not hold itself.
#[derive(Debug, Default)]
pub(super) struct Plan {
    origins: HashMap<TaeName, Origin>,
}

impl Plan {
    /// Objects from earlier trees, and from the repository.
    pub(super) fn counts(&self) -> (u64, u64) {
        let stored = self.origins.values().filter(|origin| matches!(origin, Origin::Stored(_))).count();
        ((self.origins.len() - stored) as u64, stored as u64)
    }
}

/// Finds everything that tree number `at` lists and does not hold: in the trees before it, the newest first, then in the repository.
pub(super) async fn plan(repository: &Repository, trees: &Arc<Vec<Tree>>, at: usize) -> Result<Plan> {
    let shared = Arc::clone(trees);
    let (mut plan, mut missing) = blocking(move || from_trees(&shared, at)).await?;
    if !missing.is_empty() {
        from_repository(repository, &mut plan, &mut missing).await?;
    }
    if missing.is_empty() {
        return Ok(plan);
    }
    let tree = &trees[at];
    let mut names: Vec<String> = missing.keys().map(ToString::to_string).collect();
    names.sort();
    let oldest = tree.list().iter().filter(|row| row.object().is_some_and(|name| missing.contains_key(&name)));
    let oldest = oldest.filter_map(|row| row.ts).max().map_or_else(String::new, |ts| format!(", the newest of {ts}"));
    let rest = names.len().saturating_sub(NAMES);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let message = format!(
        "import {}: it builds on an earlier backup that is neither among the trees nor in the repository: {} objects are missing{oldest} ({}{more}). \
         Name the trees it builds on as well: the full one and every incremental one between",
        tree.name(),
        names.len(),
        names[..names.len().min(NAMES)].join(", "),
    );
    Err(Error::new(ErrorKind::NotFound, message))
}

/// What the tree lists, does not hold, and no tree before it holds: name and length.
fn from_trees(trees: &[Tree], at: usize) -> Result<(Plan, HashMap<TaeName, u64>)> {
    let tree = &trees[at];
    let mut plan = Plan::default();
    let mut missing = HashMap::new();
    let mut path = Vec::new();
    for row in tree.list() {
        path.clear();
        path.extend_from_slice(b"tae/");
        path.extend_from_slice(row.path.as_bytes());
        if tree.find(&path).is_some() {
            continue;
        }
        let Some(name) = row.object().filter(TaeName::is_content_stable) else {
            let message = format!(
                "import {}: tae/{} is not there, and no other tree may supply it: the tree was copied in part, or damaged",
                tree.name(),
                row.path
            );
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let fits = |entry: &&SourceEntry| entry.size == row.size || entry.size == physical_len(row.size);
        let earlier = (0..at).rev().find_map(|earlier| {
            let entry = trees[earlier].find(&path).filter(fits)?;
            Some(Origin::Tree { tree: earlier, entry: entry.clone() })
        });
        match earlier {
            Some(origin) => drop(plan.origins.insert(name, origin)),
            None => drop(missing.insert(name, row.size)),
        }
    }
    Ok((plan, missing))
}

/// Looks for the rest in the backups of the repository, the newest first.
async fn from_repository(repository: &Repository, plan: &mut Plan, missing: &mut HashMap<TaeName, u64>) -> Result<()> {
    repository.refresh().await?;
    let backups = repository.backups();
    if backups.is_empty() {
        return Ok(());
    }
    let index = repository.index().await?;
    for backup in backups.iter().rev() {
        let manifest = repository.manifest(&backup.id).await?;
        let mut entries = EntryStream::new(repository, &index, &manifest);
        while let Some(segment) = entries.next().await {
            for entry in segment.context(|| format!("look for objects in backup {}", backup.id))? {
                let FileClass::Object(name) = classify(&entry.path) else { continue };
                if entry.kind == EntryKind::File && missing.get(&name) == Some(&entry.size) {
                    missing.remove(&name);
                    plan.origins.insert(name, Origin::Stored(Box::new(entry)));
                }
            }
        }
        if missing.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Tree number `at` as a complete source.
pub(super) async fn source(
    repository: &Repository,
    trees: Arc<Vec<Tree>>,
    at: usize,
    plan: Plan,
) -> Result<ComposedSource> {
    let stored = match plan.counts() {
        (_, 0) => None,
        _ => Some(Arc::new(Reader::new(repository, &repository.index().await?, Vec::new()))),
    };
    blocking(move || Ok(ComposedSource::new(trees, at, plan, stored))).await
}

/// A tree and what it needs of earlier ones.
pub(super) struct ComposedSource {
    description: SourceDescription,
    entries: std::vec::IntoIter<SourceEntry>,
    skipped: Skipped,
    reader: Arc<ComposedReader>,
}

struct ComposedReader {
    trees: Arc<Vec<Tree>>,
    at: usize,
    origins: HashMap<TaeName, Origin>,
    stored: Option<Arc<Reader>>,
}

impl ComposedSource {
    fn new(trees: Arc<Vec<Tree>>, at: usize, plan: Plan, stored: Option<Arc<Reader>>) -> Self {
        let tree = &trees[at];
        let mut skipped = Skipped::default();
        let (asked, own): (Vec<_>, Vec<_>) = tree.entries().iter().cloned().partition(|entry| is_request(&entry.path));
        asked.iter().for_each(|entry| skipped.excluded.add(|| crate::source::display_path(&entry.path)));
        let example = own.iter().find(|entry| entry.kind == EntryKind::File).cloned();
        let mut entries = own;
        for (name, origin) in &plan.origins {
            let path = format!("tae/{name}").into_bytes();
            entries.extend(match origin {
                Origin::Tree { entry, .. } => Some(SourceEntry { path, ..entry.clone() }),
                Origin::Stored(entry) => example.as_ref().map(|example| SourceEntry {
                    path,
                    size: entry.size,
                    mtime: entry.mtime,
                    changed: entry.mtime,
                    identity: entry.identity,
                    sparse: false,
                    link_count: 1,
                    ..example.clone()
                }),
            });
        }
        let is_directory = |entry: &SourceEntry| entry.kind == EntryKind::Directory;
        entries.sort_by(|a, b| order::compare(&a.path, is_directory(a), &b.path, is_directory(b)));
        let description = describe(tree);
        let reader = Arc::new(ComposedReader { trees: Arc::clone(&trees), at, origins: plan.origins, stored });
        Self { description, entries: entries.into_iter(), skipped, reader }
    }
}

fn describe(tree: &Tree) -> SourceDescription {
    let mut description = tree.description().clone();
    description.kind = "backup-tree";
    let sum = tree.sum();
    let mut fact = |name: &str, value: String| description.facts.push((name.to_owned(), value));
    fact(facts::TYPE, sum.kind.clone());
    fact("matrixone-backup-time", sum.time.clone());
    if let Some(ts) = sum.ts {
        fact(facts::BACKUP_TS, ts.to_string());
    }
    if let Some(release) = tree.release() {
        fact(facts::RELEASE, release.to_string());
    }
    description
}

impl Source for ComposedSource {
    fn describe(&self) -> SourceDescription {
        self.description.clone()
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        Ok(self.entries.by_ref().take(max).collect())
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        Arc::clone(&self.reader) as Arc<dyn OpenFile>
    }

    fn skipped(&self) -> Skipped {
        self.skipped.clone()
    }
}

impl OpenFile for ComposedReader {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        let name = match classify(&entry.path) {
            FileClass::Object(name) => Some(name),
            _ => None,
        };
        match name.and_then(|name| self.origins.get(&name)) {
            None => self.trees[self.at].reader().open(entry),
            Some(Origin::Tree { tree, entry }) => self.trees[*tree].reader().open(entry),
            Some(Origin::Stored(entry)) => {
                let stored = self
                    .stored
                    .as_ref()
                    .ok_or_else(|| Error::new(ErrorKind::NotFound, "no repository to read from"))?;
                Ok(Box::new(Unchanging(StoredFile::open(Arc::clone(stored), entry)?)))
            }
        }
    }
}
