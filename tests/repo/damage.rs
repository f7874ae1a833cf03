//! Damage of every sort to every kind of object, met by every operation: the right bytes or an error that names the object, never wrong bytes,
//! never a file that looks complete and is not.

use std::collections::BTreeMap;

use bytes::Bytes;
use everpack::error::Result;
use everpack::id::ObjectHash;
use everpack::repo::{BackupInfo, Environment, OpenOptions, Repository};
use everpack::store::Store;

use crate::made::{
    Dice, Objects, Tree, assert_restores, back_up, bring_back, memory, objects_of, open, scratch, seeded, small,
    store_of, tree_of, whole,
};

/// A repository long enough to have a state object, with what each of its backups holds.
struct Subject {
    objects: Objects,
    trees: Vec<(ObjectHash, Tree)>,
    /// The source as it is when the damage is met: the newest tree and one file more.
    source: Tree,
}

const NIGHTS: usize = 36;

async fn subject(seed: u64) -> Subject {
    let store = memory();
    let (mut environment, clock) = seeded(seed);
    // Its process is gone: what it left open may be fenced.
    environment.process.started += 1;
    let repository = Repository::create(store.clone(), &small(), environment).await.unwrap();
    let mut tree = Tree::new();
    let mut trees = Vec::new();
    for night in 0..NIGHTS {
        match night {
            34 => tree = tree_of(seed, 200_000),
            35 => tree.extend([(b"late".to_vec(), tree_of(seed + 1, 70_000)[b"a/long".as_slice()].clone())]),
            _ => drop(tree.insert(format!("night-{night}").into_bytes(), Dice(night as u64).noise(3000).into())),
        }
        let report = back_up(&repository, "/data", &tree).await.unwrap();
        trees.push((report.id, tree.clone()));
        clock.advance(std::time::Duration::from_secs(3600));
    }
    let mut source = tree;
    source.insert(b"new".to_vec(), tree_of(seed + 2, 40_000)[b"a/long".as_slice()].clone());
    Subject { objects: objects_of(&store).await, trees, source }
}

/// The objects whose path begins so, by path.
fn paths_of(objects: &Objects, folder: &str) -> Vec<String> {
    objects.keys().filter(|path| path.starts_with(folder)).cloned().collect()
}

fn log_path(number: u64) -> String {
    format!("log/{number:020}")
}

/// Everything done to one object: what was done → the bytes it has then, if it is there.
fn damages(bytes: &Bytes, foreign: &Bytes) -> BTreeMap<String, Option<Bytes>> {
    let mut damages = BTreeMap::new();
    let len = bytes.len();
    for at in [0, 8, 13, len / 4, len / 2, len * 3 / 4, len - 2, len - 1] {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 0x10;
        damages.insert(format!("byte {at} of {len} flipped"), Some(flipped.into()));
    }
    for left in [0, 7, len / 2, len - 1] {
        damages.insert(format!("cut to {left} of {len}"), Some(bytes.slice(..left)));
    }
    let longer = [bytes.as_ref(), b"more"].concat();
    damages.insert("grown".to_owned(), Some(longer.into()));
    damages.insert("deleted".to_owned(), None);
    if foreign != bytes {
        damages.insert("exchanged".to_owned(), Some(foreign.clone()));
    }
    damages
}

/// What an error must say so that its reader finds the object.
fn assert_names(text: &str, path: &str, what: &str) {
    let name = path.rsplit('/').next().unwrap().split('-').next().unwrap();
    let short = name.trim_start_matches('0');
    // An entry is missed by the next one, and a `config` that is another's by the first entry.
    let follows = short.parse::<u64>().ok().filter(|_| path.starts_with("log/")).map(|number| (number + 1).to_string());
    let named = [Some(short.to_owned()), follows].into_iter().flatten().any(|name| text.contains(&name))
        || (path == "config" && text.contains("log entry 1:"));
    assert!(named, "{what}: the error does not name {path}: {text}");
}

/// Restores: every file that came is right, every one that did not is named. True if all came.
async fn restores_or_says(repository: &Repository, backup: &BackupInfo, tree: &Tree, path: &str, what: &str) -> bool {
    let (report, found) = bring_back(repository, backup).await;
    for (name, content) in &found {
        assert!(tree.get(name).is_some_and(|right| right == content), "{what}: wrong bytes in {}", name.escape_ascii());
    }
    match report {
        Err(error) => {
            assert_names(&whole(&error), path, what);
            false
        }
        Ok(report) => {
            assert_eq!(report.files, found.len() as u64, "{what}");
            let lost_list = report.damaged.iter().any(|damaged| damaged.path.starts_with('('));
            for name in tree.keys().filter(|name| !found.contains_key(*name)) {
                let name = name.escape_ascii().to_string();
                let said = lost_list || report.damaged.iter().any(|damaged| damaged.path == name);
                assert!(said, "{what}: {name} did not come and nobody said so");
            }
            if report.damaged_count > 0 {
                assert_names(&report.damaged[0].message, path, what);
            }
            assert_eq!(report.damaged_count == 0, found.len() == tree.len(), "{what}: {:?}", report.damaged);
            report.damaged_count == 0
        }
    }
}

/// What came of one damage.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Met {
    opens: bool,
    newest_whole: bool,
    oldest_whole: bool,
    backed_up: bool,
    /// The backup made after the damage comes back whole.
    next_whole: bool,
}

/// Every operation meets the damage; `lost` of the newest entries of the log are gone.
async fn meet(subject: &Subject, objects: &Objects, path: &str, lost: usize, what: &str) -> Met {
    let mut met = Met::default();
    let store = store_of(objects).await;
    let repository = match open(&store, 40).await {
        Ok(repository) => repository,
        Err(error) => {
            assert_names(&whole(&error), path, what);
            return met;
        }
    };
    met.opens = true;
    let listed = repository.backups();
    let expected = &subject.trees[..subject.trees.len() - lost];
    let ids = |backups: &[BackupInfo]| backups.iter().map(|backup| backup.id).collect::<Vec<_>>();
    assert_eq!(ids(&listed), expected.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{what}");
    let (newest, oldest) = (expected.len() - 1, 3);
    let tree = |at: usize| &expected[at].1;
    met.newest_whole = restores_or_says(&repository, &listed[newest], tree(newest), path, what).await;
    met.oldest_whole = restores_or_says(&repository, &listed[oldest], tree(oldest), path, what).await;

    // The backup comes upon a repository that nobody has touched since.
    let store = store_of(objects).await;
    let repository = open(&store, 41).await.unwrap();
    match back_up(&repository, "/data", &subject.source).await {
        Err(error) => assert_names(&whole(&error), path, what),
        Ok(report) => {
            met.backed_up = true;
            let fresh = open(&store, 42).await.unwrap();
            let backup = fresh.find_backup(&report.id.to_string()).unwrap();
            met.next_whole = restores_or_says(&fresh, &backup, &subject.source, path, what).await;
        }
    }
    met
}

/// All damages to these objects; `judge` says what must have come of each.
async fn each_damage(seed: u64, paths: impl Fn(&Subject) -> Vec<String>, judge: impl Fn(&str, Met)) {
    let subject = subject(seed).await;
    let other = self::subject(seed + 50).await;
    for path in paths(&subject) {
        let folder = &path[..path.find('/').map_or(path.len(), |at| at + 1)];
        let foreign = match other.objects.get(&path) {
            Some(same_path) => same_path.clone(),
            None => other.objects[&paths_of(&other.objects, folder)[0]].clone(),
        };
        for (damage, bytes) in damages(&subject.objects[&path], &foreign) {
            let mut objects = subject.objects.clone();
            match bytes {
                Some(bytes) => drop(objects.insert(path.clone(), bytes)),
                None => drop(objects.remove(&path)),
            }
            let what = format!("{path}: {damage}");
            let lost_entry = damage == "deleted" && path == log_path(NIGHTS as u64 * 2);
            judge(&what, meet(&subject, &objects, &path, usize::from(lost_entry), &what).await);
        }
    }
}

/// The objects of a folder that the session of another object wrote.
fn of_session(subject: &Subject, folder: &str, path: &str) -> Vec<String> {
    let session = path.rsplit('-').next().unwrap();
    paths_of(&subject.objects, folder).into_iter().filter(|path| path.ends_with(session)).collect()
}

/// The manifest of a backup, counted from the newest.
fn manifest_of(subject: &Subject, from_newest: usize) -> String {
    let id = subject.trees[NIGHTS - from_newest].0;
    paths_of(&subject.objects, &format!("manifests/{id}")).remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_config_is_refused() {
    each_damage(100, |_| vec!["config".to_owned()], |what, met| assert!(!met.opens, "{what}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_refused_or_shorter() {
    let numbers = [1, 30, 66, 71, 72];
    each_damage(
        110,
        |_| numbers.iter().map(|number| log_path(*number)).collect(),
        |what, met| {
            // What lies before the state object is not read again, but the first entry vouches for `config`; the last is missed by nobody.
            let first = what.starts_with(&log_path(1)) && !what.ends_with("exchanged");
            let unread = first || what.starts_with(&log_path(30));
            let last = what.starts_with(&log_path(72)) && what.ends_with("deleted");
            assert_eq!(met.opens, unread || last, "{what}");
            assert!(!met.opens || met.newest_whole && met.oldest_whole, "{what}");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_object_is_ignored() {
    let all = Met { opens: true, newest_whole: true, oldest_whole: true, backed_up: true, next_whole: true };
    each_damage(120, |subject| paths_of(&subject.objects, "log-state/"), |what, met| assert_eq!(met, all, "{what}"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_fragment_is_rebuilt_from_pack_tables() {
    let all = Met { opens: true, newest_whole: true, oldest_whole: true, backed_up: true, next_whole: true };
    let some = |subject: &Subject| {
        let paths = paths_of(&subject.objects, "index/");
        [0, paths.len() / 2, paths.len() - 1].map(|at| paths[at].clone()).to_vec()
    };
    each_damage(130, some, |what, met| assert_eq!(met, all, "{what}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_manifest_costs_its_backup_only() {
    let expected = Met { opens: true, newest_whole: false, oldest_whole: true, backed_up: true, next_whole: true };
    each_damage(140, |subject| vec![manifest_of(subject, 1)], |what, met| assert_eq!(met, expected, "{what}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_meta_pack_is_stored_again_by_the_next_backup() {
    let newest = |subject: &Subject| of_session(subject, "meta/", &manifest_of(subject, 1));
    each_damage(150, newest, |what, met| {
        assert!(met.opens && met.oldest_whole && met.backed_up, "{what}: {met:?}");
        assert!(met.next_whole, "{what}: {met:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_data_pack_costs_its_files_and_is_healed_if_it_is_cut_or_gone() {
    let newest = |subject: &Subject| {
        let paths = of_session(subject, "packs/", &manifest_of(subject, 2));
        paths.into_iter().take(2).collect()
    };
    each_damage(160, newest, |what, met| {
        assert!(met.opens && met.oldest_whole && met.backed_up, "{what}: {met:?}");
        let resized = ["cut", "grown", "deleted"].iter().any(|damage| what.contains(damage));
        assert!(!resized || met.next_whole, "{what}: {met:?}");
        let cut = what.contains("deleted") || what.contains("cut to 0") || what.contains("cut to 7");
        assert!(!cut || !met.newest_whole, "{what}: nothing was lost, so nothing was tested");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_entries_that_changed_places_are_noticed() {
    let subject = subject(170).await;
    for (a, b) in [(67, 68), (70, 72), (66, 72)] {
        let mut objects = subject.objects.clone();
        objects.insert(log_path(a), subject.objects[&log_path(b)].clone());
        objects.insert(log_path(b), subject.objects[&log_path(a)].clone());
        let error = open(&store_of(&objects).await, 1).await.unwrap_err();
        assert!(whole(&error).contains("log entry"), "{error}");
    }
    // Before the state object only a whole fold looks.
    let mut objects = subject.objects.clone();
    objects.insert(log_path(5), subject.objects[&log_path(6)].clone());
    objects.insert(log_path(6), subject.objects[&log_path(5)].clone());
    let options = OpenOptions { distrust_state: true, ..OpenOptions::default() };
    let error = Repository::open(store_of(&objects).await, options, seeded(1).0).await.unwrap_err();
    assert!(whole(&error).contains("log entry"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_rolled_back_is_a_shorter_log() {
    let subject = subject(180).await;
    for gone in [2u64, 4, 10, 40] {
        let mut objects = subject.objects.clone();
        for number in NIGHTS as u64 * 2 - gone + 1..=NIGHTS as u64 * 2 {
            objects.remove(&log_path(number)).unwrap();
        }
        let lost = usize::try_from(gone / 2).unwrap();
        let met = meet(&subject, &objects, "log/", lost, &format!("{gone} entries rolled back")).await;
        let all = Met { opens: true, newest_whole: true, oldest_whole: true, backed_up: true, next_whole: true };
        assert_eq!(met, all, "{gone} entries rolled back");
    }
}

async fn open_cached(store: &Store, cache: &std::path::Path, seed: u64) -> Result<Repository> {
    let environment = Environment { cache: Some(cache.to_path_buf()), ..seeded(seed).0 };
    Repository::open(store.clone(), OpenOptions::default(), environment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_seen_a_later_log_notices_a_rollback() {
    for gone in [2u64, 6, 40] {
        let subject = subject(190).await;
        let cache = scratch();
        let store = store_of(&subject.objects).await;
        let seen = open_cached(&store, cache.path(), 1).await.unwrap();
        let (id, tree) = subject.trees.last().unwrap();
        assert_restores(&seen, *id, tree).await;
        drop(seen);
        let later = objects_of(&store).await;

        let mut objects = later.clone();
        let logs = paths_of(&later, "log/");
        for path in &logs[logs.len() - usize::try_from(gone).unwrap()..] {
            objects.remove(path).unwrap();
        }
        // Others wrote on in the rolled back log, beyond what was there.
        let rolled_back = store_of(&objects).await;
        for writes in [0, 30] {
            let other = open(&rolled_back, 2).await.unwrap();
            for n in 0..writes {
                back_up(&other, "/other", &tree_of(n, 100)).await.unwrap();
            }
            let repository = open_cached(&rolled_back, cache.path(), 3).await.unwrap();
            let heads = paths_of(&objects_of(&rolled_back).await, "log/").len();
            for attempt in 0..2 {
                let error = back_up(&repository, "/data", &subject.source).await.unwrap_err();
                assert!(error.message().contains("went backwards"), "{attempt}: {error}");
                let first = repository.backups()[0].clone();
                let error = bring_back(&repository, &first).await.0.unwrap_err();
                assert!(error.message().contains("went backwards"), "{attempt}: {error}");
            }
            let after = paths_of(&objects_of(&rolled_back).await, "log/").len();
            assert_eq!(after, heads, "a log known to have gone backwards was written to");
        }
    }
}

/// Many processes of one host share a cache. One that read the log, and then waited for another one's index, finds in it an entry
/// that it did not read: the log went on, not backwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grew_while_the_index_was_waited_for_did_not_go_backwards() {
    let subject = subject(200).await;
    let cache = scratch();
    let store = store_of(&subject.objects).await;
    let slow = open_cached(&store, cache.path(), 1).await.unwrap();
    let quick = open_cached(&store, cache.path(), 2).await.unwrap();
    back_up(&quick, "/other", &tree_of(1, 100)).await.unwrap();
    drop(quick);
    let (id, tree) = subject.trees.last().unwrap();
    assert_restores(&slow, *id, tree).await;
    assert_eq!(slow.backups().len(), subject.trees.len() + 1, "what was seen meanwhile counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_anywhere_in_a_record_header_costs_its_files_and_nothing_else() {
    let store = memory();
    let repository = Repository::create(store.clone(), &small(), seeded(1).0).await.unwrap();
    let tree = tree_of(1, 60_000);
    back_up(&repository, "/data", &tree).await.unwrap();
    let made = objects_of(&store).await;
    let name = made.keys().find(|name| name.starts_with("packs/")).unwrap();
    let mut named = 0;
    // The header of the pack, and of its first record.
    for at in 0..36 + 52 {
        let mut objects = made.clone();
        let mut bytes = objects[name].to_vec();
        bytes[at] ^= 1;
        objects.insert(name.clone(), bytes.into());
        let repository = open(&store_of(&objects).await, 2).await.unwrap();
        let (report, found) = bring_back(&repository, &repository.find_backup("latest").unwrap()).await;
        let report = report.unwrap_or_else(|error| panic!("{at}: {}", whole(&error)));
        assert_eq!(found.len() as u64 + report.damaged_count, tree.len() as u64, "{at}: {:?}", report.damaged);
        assert!(found.iter().all(|(path, content)| tree[path] == *content), "{at}");
        named += u64::from(report.damaged_count > 0);
    }
    assert!(named > 40, "{named} flips were met");
}
