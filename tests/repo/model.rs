//! Random lives of a source and its repository against plain copies kept beside: whatever was backed up, in whatever order, comes back.
//!
//! About 15 seconds; `EVERPACK_MODEL_RUNS=10` goes on ten times as long, `EVERPACK_MODEL_SEED=7` begins at the seed that a failure named.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use everpack::id::ObjectHash;
use everpack::ops::backup::BackupOptions;
use everpack::ops::restore::{Framing, RestoreOptions, TargetMode, restore};
use everpack::progress::Silent;
use everpack::repo::{OpenOptions, Repository};
use everpack::store::{Store, StoreOptions};
use everpack::tae::{Framer, Unframer, looks_framed};

use crate::made::{Dice, assert_scrubs, quick, scratch, small, whole};
use crate::support::{backup_of, environment};

const BUDGET: Duration = Duration::from_secs(15);
const STEPS: u64 = 25;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a path was when it was backed up.
#[derive(Clone, PartialEq, Eq)]
enum Kept {
    File(Arc<Vec<u8>>),
    Directory,
    Symlink(PathBuf),
}

type Copy = BTreeMap<Vec<u8>, Kept>;

fn copy_of(top: &Path) -> Copy {
    fn walk(top: &Path, at: &Path, copy: &mut Copy) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            if meta.is_symlink() {
                copy.insert(name, Kept::Symlink(std::fs::read_link(&path).unwrap()));
            } else if meta.is_dir() {
                copy.insert(name, Kept::Directory);
                walk(top, &path, copy);
            } else {
                copy.insert(name, Kept::File(Arc::new(std::fs::read(&path).unwrap())));
            }
        }
    }
    let mut copy = Copy::new();
    walk(top, top, &mut copy);
    copy
}

fn frame(logical: &[u8]) -> Vec<u8> {
    let (mut framer, mut framed) = (Framer::new(), Vec::new());
    framer.feed(logical, &mut framed);
    framer.finish(&mut framed);
    framed
}

/// What a file must be after a restore with this framing.
fn framed_as(stored: &[u8], framing: Framing) -> Vec<u8> {
    // Damaged framing is kept as it is.
    let logical = || {
        let (mut unframer, mut logical) = (Unframer::new(), Vec::new());
        let whole = unframer.feed(stored, &mut logical).is_ok() && unframer.finish(&mut logical).is_ok();
        whole.then_some(logical)
    };
    let looks_it = looks_framed(&stored[..stored.len().min(2048)], stored.len() as u64);
    let logical = looks_it.then(logical).flatten();
    match (framing, logical) {
        (Framing::AsStored, _) | (Framing::Raw, None) | (Framing::DiskCrc, Some(_)) => stored.to_vec(),
        (Framing::Raw, Some(logical)) => logical,
        (Framing::DiskCrc, None) => frame(stored),
    }
}

struct Life {
    seed: u64,
    dice: Dice,
    top: PathBuf,
    handles: Vec<Repository>,
    kept: Vec<(ObjectHash, Copy)>,
}

impl Life {
    async fn begin(seed: u64, top: &Path) -> Self {
        let store = Store::create_root(top.join("repo").to_str().unwrap(), &StoreOptions::default()).unwrap();
        let first = Repository::create(store, &small(), environment(Some(top.join("cache")))).await.unwrap();
        std::fs::create_dir_all(top.join("source")).unwrap();
        let mut life = Self { seed, dice: Dice(seed), top: top.to_path_buf(), handles: vec![first], kept: Vec::new() };
        let second = life.opened(false).await;
        life.handles.push(second);
        life
    }

    async fn opened(&self, cache: bool) -> Repository {
        let store = Store::open(self.top.join("repo").to_str().unwrap(), &StoreOptions::default()).unwrap();
        let environment = environment(cache.then(|| self.top.join("cache")));
        let opened = Repository::open(store, OpenOptions::default(), environment).await;
        opened.unwrap_or_else(|error| panic!("seed {}: {}", self.seed, whole(&error)))
    }

    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.dice.below(count as u64)).unwrap()
    }

    /// Bytes of some kind: noise, text, zeros, alike ones, framed ones, nothing.
    fn content(&mut self) -> Vec<u8> {
        let len = [0, 1, 900, 2044, 5000, 30_000, 200_000][self.pick(7)] + self.pick(50);
        match self.dice.below(5) {
            0 => self.dice.noise(len),
            1 => (0..len / 8).flat_map(|n| format!("{:07},", n % 1000).into_bytes()).collect(),
            2 => vec![0; len],
            3 => Dice(self.dice.below(4)).noise(len),
            _ => frame(&Dice(self.dice.below(4)).noise(len)),
        }
    }

    fn some_path(&mut self) -> PathBuf {
        let depth = self.pick(3);
        let mut path = self.top.join("source");
        for _ in 0..depth {
            path.push(format!("d{}", self.pick(4)));
        }
        std::fs::create_dir_all(&path).unwrap();
        path.join(format!("f{}", self.pick(12)))
    }

    fn some_file(&mut self) -> Option<PathBuf> {
        let source = self.top.join("source");
        let files: Vec<_> = copy_of(&source)
            .into_iter()
            .filter(|(_, kept)| matches!(kept, Kept::File(_)))
            .map(|(path, _)| path)
            .collect();
        (!files.is_empty()).then(|| {
            let at = self.pick(files.len());
            source.join(std::ffi::OsStr::from_bytes(&files[at]))
        })
    }

    fn edit(&mut self) {
        for _ in 0..=self.pick(6) {
            let file = self.some_file();
            match (self.dice.below(8), file) {
                (0, Some(file)) => std::fs::remove_file(file).unwrap(),
                (1, Some(file)) => {
                    let to = self.some_path();
                    if to != file {
                        drop(std::fs::remove_file(&to));
                    }
                    #[allow(clippy::disallowed_methods, reason = "what users do to a source")]
                    std::fs::rename(file, to).unwrap();
                }
                (2, Some(file)) => {
                    // In the middle, same length, as a database does.
                    let len = std::fs::metadata(&file).unwrap().len();
                    let at = self.dice.below(len.max(1));
                    let open = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
                    open.write_all_at(&self.dice.noise(100), at).unwrap();
                }
                (3, Some(file)) => {
                    let more = self.content();
                    let mut bytes = std::fs::read(&file).unwrap();
                    bytes.extend(more);
                    std::fs::write(&file, bytes).unwrap();
                }
                (4, _) => {
                    let path = self.some_path();
                    drop(std::fs::remove_file(&path));
                    std::os::unix::fs::symlink(format!("to-{}", self.pick(9)), path).unwrap();
                }
                (5, _) => {
                    let directory = self.top.join("source").join(format!("d{}", self.pick(4)));
                    drop(std::fs::remove_dir_all(directory));
                }
                _ => {
                    let path = self.some_path();
                    drop(std::fs::remove_file(&path));
                    let content = self.content();
                    std::fs::write(path, content).unwrap();
                }
            }
        }
    }

    async fn back_up(&mut self) {
        let handle = self.pick(self.handles.len());
        let lineage = [None, Some("one"), Some("two")][self.pick(3)].map(str::to_owned);
        let options = BackupOptions { lineage, force: self.dice.below(6) == 0, ..quick() };
        let source = self.top.join("source");
        let copy = copy_of(&source);
        let report = backup_of(&self.handles[handle], &source, &options).await;
        let report = report.unwrap_or_else(|error| panic!("seed {}: {}", self.seed, whole(&error)));
        // An edit in the middle of a framed file is damage at the source, and no reason to leave the file out.
        assert!(!report.partial, "seed {}: {:?}", self.seed, report.problems);
        let files = copy.values().filter(|kept| matches!(kept, Kept::File(_))).count();
        assert_eq!(report.totals.files, files as u64, "seed {}", self.seed);
        self.kept.push((report.id, copy));
    }

    async fn restore_one(&mut self, at: usize, framing: Framing, into_rubble: bool) {
        let (id, copy) = &self.kept[at];
        let target = self.top.join("target");
        let mut options = RestoreOptions { framing, ..RestoreOptions::default() };
        if into_rubble {
            // Over another backup's files.
            options = RestoreOptions { mode: TargetMode::Delta, delete_extra: true, ..options };
        } else {
            drop(std::fs::remove_dir_all(&target));
        }
        let handle = usize::try_from(self.dice.below(self.handles.len() as u64)).unwrap();
        let repository = &self.handles[handle];
        repository.refresh().await.unwrap();
        let backup = repository.find_backup(&id.to_string()).unwrap();
        let report = restore(repository, &backup, &target, &options, Arc::new(Silent)).await;
        let report = report.unwrap_or_else(|error| panic!("seed {}: {}", self.seed, whole(&error)));
        assert_eq!(report.damaged_count, 0, "seed {}: {:?}", self.seed, report.damaged);
        let found = copy_of(&target);
        for (path, kept) in copy {
            let right = match kept {
                Kept::File(bytes) => Kept::File(Arc::new(framed_as(bytes, framing))),
                other => other.clone(),
            };
            let what = format!("seed {}: {} of {id}, {framing:?}", self.seed, path.escape_ascii());
            assert!(found.get(path) == Some(&right), "{what}");
        }
        assert_eq!(found.len(), copy.len(), "seed {}: more came than was there", self.seed);
    }

    async fn step(&mut self) {
        match self.dice.below(10) {
            0..4 => self.edit(),
            4..7 => self.back_up().await,
            7..9 if !self.kept.is_empty() => {
                let at = self.pick(self.kept.len());
                let framing = [Framing::AsStored, Framing::Raw, Framing::DiskCrc][self.pick(3)];
                let into_rubble = self.dice.below(3) == 0 && self.top.join("target").exists();
                self.restore_one(at, framing, into_rubble).await;
            }
            _ => {
                let at = self.pick(self.handles.len());
                let cache = self.dice.below(2) == 0;
                self.handles[at] = self.opened(cache).await;
            }
        }
    }

    /// From nothing but the repository, everything comes back.
    async fn end(mut self) {
        self.handles = vec![self.opened(false).await];
        let ids: Vec<_> = self.handles[0].backups().iter().map(|backup| backup.id).collect();
        assert!(self.kept.iter().map(|(id, _)| *id).eq(ids), "seed {}: the list is another", self.seed);
        for at in 0..self.kept.len() {
            self.restore_one(at, Framing::AsStored, false).await;
        }
        assert_scrubs(&self.handles[0], &format!("seed {}", self.seed)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_lives_come_back() {
    let begun = Instant::now();
    let budget = BUDGET * u32::try_from(setting("EVERPACK_MODEL_RUNS", 1)).unwrap();
    let mut seed = setting("EVERPACK_MODEL_SEED", 1);
    let mut lives = 0;
    while begun.elapsed() < budget || lives == 0 {
        let top = scratch();
        let mut life = Life::begin(seed, top.path()).await;
        for _ in 0..STEPS {
            life.step().await;
        }
        life.end().await;
        seed += 1;
        lives += 1;
    }
    eprintln!("{lives} lives of {STEPS} steps");
}
