//! The index against a plain map, and against files that are not what they were.

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

use super::db::Index;
use crate::format::fragment::Fragment;
use crate::id::{ChunkId, ObjectHash, ObjectKind, ObjectName, RepositoryId};
use crate::pack::Location;
use crate::testing::scale::{REPOSITORY, SESSION, chunk, fragment};

/// Fragments and what an index of them must say.
struct Truth {
    fragments: Vec<(ObjectName, Fragment)>,
    first: BTreeMap<ChunkId, (ObjectName, u32)>,
}

fn named(fragment: Fragment, seed: u64) -> (ObjectName, Fragment) {
    let hash = ObjectHash::from_bytes(*chunk(seed | 1 << 60).as_bytes());
    (ObjectName { kind: ObjectKind::Fragment, hash, session: SESSION }, fragment)
}

impl Truth {
    /// Fragments that overlap: each begins in the middle of the one before.
    fn new(count: u64, chunks: u64) -> Self {
        let part = |at: u64| named(sorted(fragment(at * chunks / 2, at * chunks / 2 + chunks)), at);
        let fragments: Vec<_> = (0..count).map(part).collect();
        let mut first = BTreeMap::new();
        for (_, fragment) in &fragments {
            for entry in &fragment.entries {
                let pack = fragment.packs[usize::from(entry.pack)].name;
                first.entry(entry.id).or_insert((pack, entry.offset));
            }
        }
        Self { fragments, first }
    }

    /// Folds what is missing, as a catch-up does.
    fn fold(&self, index: &Index) {
        for part in &self.fragments {
            if !index.has_fragment(&part.0) {
                index.insert(std::slice::from_ref(part)).unwrap();
            }
        }
        index.set_live(|_| false);
        index.settle(None).unwrap();
    }

    /// The wrong answers of the index, or the error that it gave instead of one.
    fn check(&self, index: &Index) -> crate::error::Result<()> {
        let ids: Vec<ChunkId> = self.first.keys().copied().collect();
        let found = index.lookup(&ids)?;
        for (id, location) in ids.iter().zip(&found) {
            let location = location.unwrap_or_else(|| panic!("{id} is not found"));
            assert_eq!((index.pack(location.pack).unwrap().name, location.offset), self.first[id]);
        }
        Ok(())
    }
}

fn sorted(mut fragment: Fragment) -> Fragment {
    fragment.encode();
    fragment
}

fn open(directory: &Path) -> Index {
    Index::open(Some(directory), REPOSITORY).unwrap()
}

#[test]
fn it_says_what_the_fragments_say() {
    let directory = TempDir::new().unwrap();
    let truth = Truth::new(40, 1500);
    let index = open(directory.path());
    truth.fold(&index);
    truth.check(&index).unwrap();
    assert_eq!(index.lookup(&[chunk(1 << 40), chunk(3), chunk(3)]).unwrap()[0], None);
    drop(index);
    let index = open(directory.path());
    assert_eq!(index.fragments().len(), 40);
    index.set_live(|_| false);
    truth.check(&index).unwrap();
    // Chunk 800 stands in the fragments 0 and 1, the earlier one counts.
    let all = index.locations(&chunk(800)).unwrap();
    let packs: Vec<_> = all.iter().map(|location| index.pack(location.pack).unwrap().name).collect();
    assert_eq!(packs, [truth.fragments[0].1.packs[0].name, truth.fragments[1].1.packs[0].name]);
}

#[test]
fn a_location_in_a_dead_pack_gives_way_to_the_next() {
    let truth = Truth::new(2, 1000);
    let index = Index::open(None, REPOSITORY).unwrap();
    truth.fold(&index);
    let (first, second) = (truth.fragments[0].1.packs[0].name, truth.fragments[1].1.packs[0].name);
    let pack_of = |location: Option<Location>| location.map(|location| index.pack(location.pack).unwrap().name);
    let look = || pack_of(index.lookup(&[chunk(700)]).unwrap()[0]);
    assert_eq!(look(), Some(first));
    index.set_live(|name| *name == first);
    assert_eq!(look(), Some(second));
    index.set_live(|_| true);
    assert_eq!(look(), None);
    let there = index.last_resort(&chunk(700), |name| *name == second).unwrap();
    assert_eq!(pack_of(there), Some(second));
}

#[test]
fn rows_of_packs_that_are_gone_leave_at_the_next_merge() {
    let truth = Truth::new(2, 9000);
    let index = Index::open(None, REPOSITORY).unwrap();
    truth.fold(&index);
    assert_eq!(index.location_count(), 18000);
    index.remove_fragments(&[truth.fragments[0].0]).unwrap();
    index.set_live(|_| false);
    index.insert(&[named(sorted(fragment(1_000_000, 1_010_000)), 77)]).unwrap();
    index.settle(None).unwrap();
    assert_eq!(index.location_count(), 19000);
    assert_eq!(index.lookup(&[chunk(3)]).unwrap(), [None]);
    assert!(index.lookup(&[chunk(5000)]).unwrap()[0].is_some());
}

#[test]
fn the_second_to_open_it_gets_one_of_its_own() {
    let directory = TempDir::new().unwrap();
    let truth = Truth::new(3, 500);
    let first = open(directory.path());
    truth.fold(&first);
    let second = open(directory.path());
    assert_eq!((first.is_private(), second.is_private()), (false, true));
    assert_eq!(second.fragments(), []);
    truth.fold(&second);
    truth.check(&second).unwrap();
    drop(second);
    truth.check(&first).unwrap();
    drop(first);
    let third = open(directory.path());
    assert!(!third.is_private());
    assert_eq!(third.fragments().len(), 3);
}

#[test]
fn that_of_another_repository_is_thrown_away() {
    let directory = TempDir::new().unwrap();
    Truth::new(3, 500).fold(&open(directory.path()));
    let index = Index::open(Some(directory.path()), RepositoryId::from_bytes([8; 16])).unwrap();
    assert_eq!((index.is_private(), index.fragments().len(), index.location_count()), (false, 0, 0));
}

#[test]
fn what_a_crash_left_is_folded_again() {
    let (directory, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let truth = Truth::new(6, 3000);
    let index = open(directory.path());
    for part in &truth.fragments[..3] {
        index.insert(std::slice::from_ref(part)).unwrap();
    }
    index.settle(None).unwrap();
    for part in &truth.fragments[3..] {
        index.insert(std::slice::from_ref(part)).unwrap();
    }
    // As a killed process leaves it.
    copy_files(directory.path(), copy.path());
    drop(index);
    let index = open(copy.path());
    assert_eq!(index.fragments().len(), 3, "what was settled is kept");
    truth.fold(&index);
    truth.check(&index).unwrap();
}

#[test]
fn a_cache_removed_while_it_is_used_is_no_trouble() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().join("cache");
    let truth = Truth::new(6, 3000);
    let index = open(&place);
    for part in &truth.fragments[..3] {
        index.insert(std::slice::from_ref(part)).unwrap();
    }
    std::fs::remove_dir_all(&place).unwrap();
    truth.fold(&index);
    index.settle(None).unwrap();
    truth.check(&index).unwrap();
    drop(index);
    assert!(!survives(&place, &truth), "it is built anew");
    assert!(survives(&place, &truth), "and kept then");
}

fn copy_files(from: &Path, to: &Path) {
    for file in std::fs::read_dir(to).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Opens what is there, folds, and compares. Gives false if that took throwing the index away.
fn survives(directory: &Path, truth: &Truth) -> bool {
    let index = open(directory);
    assert!(!index.is_private());
    let kept = index.fragments().len() == truth.fragments.len();
    truth.fold(&index);
    truth.check(&index).unwrap();
    kept
}

/// Flips a byte at many places of each file, cuts each file off at many places, and removes it.
fn damage_everything(from: &Path, truth: &Truth, places: u64) -> (u64, u64) {
    let scratch = TempDir::new().unwrap();
    let (mut kept, mut thrown_away) = (0, 0);
    let names: Vec<_> = std::fs::read_dir(from).unwrap().map(|file| file.unwrap().file_name()).collect();
    for name in names.into_iter().filter(|name| name != "lock") {
        let bytes = std::fs::read(from.join(&name)).unwrap();
        let len = bytes.len() as u64;
        for at in (0..places).map(|n| n * len / places).chain(0..len.min(places)) {
            for is_cut in [false, true] {
                let mut bytes = bytes.clone();
                let at = usize::try_from(at).unwrap();
                if is_cut {
                    bytes.truncate(at);
                } else if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 0x41;
                }
                copy_files(from, scratch.path());
                std::fs::write(scratch.path().join(&name), bytes).unwrap();
                if survives(scratch.path(), truth) { kept += 1 } else { thrown_away += 1 }
            }
        }
        copy_files(from, scratch.path());
        std::fs::remove_file(scratch.path().join(&name)).unwrap();
        survives(scratch.path(), truth);
    }
    (kept, thrown_away)
}

#[test]
fn damage_to_a_closed_index_is_noticed_and_costs_a_rebuild() {
    let directory = TempDir::new().unwrap();
    let truth = Truth::new(2, 1000);
    truth.fold(&open(directory.path()));
    let (kept, thrown_away) = damage_everything(directory.path(), &truth, 12);
    assert!(kept == 0 && thrown_away > 100, "kept {kept}, thrown away {thrown_away}");
}

#[test]
fn damage_to_an_index_that_was_not_closed_is_survived() {
    let (directory, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let truth = Truth::new(2, 1000);
    let index = open(directory.path());
    truth.fold(&index);
    copy_files(directory.path(), copy.path());
    drop(index);
    let (kept, thrown_away) = damage_everything(copy.path(), &truth, 24);
    assert!(kept > 0 && thrown_away > 0, "kept {kept}, thrown away {thrown_away}");
}

#[test]
fn a_run_damaged_while_open_gives_an_error_and_is_gone_the_next_time() {
    use std::os::unix::fs::FileExt;
    let directory = TempDir::new().unwrap();
    let truth = Truth::new(2, 20_000);
    let index = open(directory.path());
    truth.fold(&index);
    let files = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
    let run = files.into_iter().find(|path| path.to_string_lossy().contains("run-")).unwrap();
    std::fs::File::options().write(true).open(run).unwrap().write_all_at(b"damage", 100_000).unwrap();
    let error = truth.check(&index).unwrap_err();
    assert!(error.to_string().contains("thrown away"), "{error}");
    assert!(index.is_damaged());
    drop(index);
    assert!(!survives(directory.path(), &truth), "it is built anew");
    assert!(survives(directory.path(), &truth), "and kept then");
}
