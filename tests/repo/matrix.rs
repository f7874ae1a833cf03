//! Every kind of damage to every kind of object under every command: is it found, is it named, is it healed where there is a second copy, and is
//! nothing made worse? The table in docs/damage.md is what this test makes; `EVERPACK_BLESS=1 cargo test --test repo matrix` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use everpack::error::{Error, ErrorKind, Result};
use everpack::id::ObjectHash;
use everpack::ops::check::{CheckOptions, CheckReport, Severity, check};
use everpack::ops::prune::{MaxUnused, PruneOptions, prune};
use everpack::ops::repair::{RepairOptions, repair, repair_log};
use everpack::ops::replicate::{ReplicateOptions, replicate};
use everpack::ops::restore::{RestoreOptions, restore};
use everpack::progress::Silent;
use everpack::repo::{Environment, OpenOptions, Repository};
use everpack::store::{ObjectPath, Store};
use everpack::testing::log;

use crate::made::{
    Dice, Objects, Tree, assert_tree, back_up, bring_back, memory, objects_of, open, scratch, seeded, small, store_of,
    whole,
};

const COMMANDS: [&str; 10] = [
    "list",
    "restore",
    "check",
    "scrub",
    "backup",
    "prune",
    "replicate",
    "repair",
    "repair from a replica",
    "repair from a copy",
];

/// A repository before anything happened to it.
struct Before {
    objects: Objects,
    replica: Objects,
    /// What is listed and what it holds.
    backups: BTreeMap<ObjectHash, Tree>,
    next: Tree,
    /// The object of each kind that is damaged.
    victims: Vec<(&'static str, String)>,
}

fn files(seed: u64, count: u64) -> Tree {
    let file = |n| (format!("file-{seed}-{n:03}").into_bytes(), Arc::new(Dice(seed * 1000 + n).noise(20_000)));
    (0..count).map(file).collect()
}

async fn before() -> Before {
    let store = memory();
    let repository = Repository::create(store.clone(), &small(), seeded(1).0).await.unwrap();
    let mut backups = BTreeMap::new();
    let first = files(1, 12);
    let old = back_up(&repository, "/data", &first).await.unwrap().id;
    // Little of it is only in the first, which is forgotten.
    let mut tree: Tree = first.into_iter().skip(2).collect();
    tree.extend(files(2, 6));
    backups.insert(back_up(&repository, "/data", &tree).await.unwrap().id, tree.clone());
    // Until a folded state is kept.
    for n in 0u64.. {
        let tree: Tree = [(b"one".to_vec(), Arc::new(Dice(n).noise(10)))].into();
        let id = back_up(&repository, "/other", &tree).await.unwrap().id;
        let is_folded = objects_of(&store).await.keys().any(|name| name.starts_with("log-state/"));
        if is_folded {
            backups.insert(id, tree);
            break;
        }
        log::forget(&repository, id).await.unwrap();
    }
    log::forget(&repository, old).await.unwrap();
    let options = CheckOptions { read_data: true, memory: 64 << 20, ..CheckOptions::default() };
    check(&repository, &options, Arc::new(Silent)).await.unwrap();
    let replica = memory();
    let target = Repository::create_member(replica.clone(), &repository, false, seeded(2).0).await.unwrap();
    replicate(&repository, &target, &ReplicateOptions::default(), Arc::new(Silent)).await.unwrap();
    // The newest again, so that `latest` is the one with many files.
    tree.insert(b"last".to_vec(), Arc::new(Dice(77).noise(9000)));
    let last = back_up(&repository, "/data", &tree).await.unwrap().id;
    backups.insert(last, tree.clone());
    replicate(&repository, &target, &ReplicateOptions::default(), Arc::new(Silent)).await.unwrap();
    let objects = objects_of(&store).await;
    let largest = |folder: &str| {
        let of_kind = objects.iter().filter(|(name, _)| name.starts_with(folder));
        of_kind.max_by_key(|(name, bytes)| (bytes.len(), (*name).clone())).unwrap().0.clone()
    };
    let entries: Vec<&String> = objects.keys().filter(|name| name.starts_with("log/")).collect();
    let victims = vec![
        ("config", "config".to_owned()),
        ("log entry", entries[entries.len() / 2].clone()),
        ("last log entry", (*entries.last().unwrap()).clone()),
        ("log state", objects.keys().rfind(|name| name.starts_with("log-state/")).unwrap().clone()),
        ("data pack", largest("packs/")),
        ("meta pack", largest("meta/")),
        ("index fragment", largest("index/")),
        ("manifest", objects.keys().find(|name| name.starts_with(&format!("manifests/{last}"))).unwrap().clone()),
        ("scrub ledger", largest("scrub/")),
    ];
    let mut next = tree;
    next.extend(files(5, 2));
    let mut before = Before { replica: objects_of(&replica).await, objects, backups, next, victims };
    // What lies in which pack is the threads' doing: the largest one in whose middle the newest backup has something.
    let mut packs: Vec<String> = before.objects.keys().filter(|name| name.starts_with("packs/")).cloned().collect();
    packs.sort_by_key(|name| std::cmp::Reverse(before.objects[name].len()));
    for pack in packs {
        let store = store_of(&damaged(&before, &pack, "flip")).await;
        let repository = open(&store, 3).await.unwrap();
        let latest = repository.find_backup("latest").unwrap();
        let target = tempfile::tempdir().unwrap();
        let target = target.path().join("target");
        let options = RestoreOptions { memory: 64 << 20, ..RestoreOptions::default() };
        let report = restore(&repository, &latest, &target, &options, Arc::new(Silent)).await.unwrap();
        if report.damaged_count > 0 {
            before.victims.iter_mut().find(|(kind, _)| *kind == "data pack").unwrap().1 = pack;
            return before;
        }
    }
    panic!("no pack has anything of the newest backup in its middle");
}

/// What is left of the objects after a damage.
fn damaged(before: &Before, victim: &str, damage: &str) -> Objects {
    let mut objects = before.objects.clone();
    match damage {
        "flip" => {
            let mut bytes = objects[victim].to_vec();
            let at = bytes.len() / 2;
            bytes[at] ^= 0x10;
            objects.insert(victim.to_owned(), bytes.into());
        }
        "truncate" => {
            let bytes = &objects[victim];
            let half = bytes.slice(..bytes.len() / 2);
            objects.insert(victim.to_owned(), half);
        }
        "delete" => drop(objects.remove(victim)),
        // An older copy of the log takes the place of the log: the newest backup was never made.
        _ => {
            let entries: Vec<String> = objects.keys().filter(|name| name.starts_with("log/")).cloned().collect();
            for name in entries.iter().rev().take(3) {
                objects.remove(name);
            }
        }
    }
    objects
}

/// One cell.
struct Cell<'a> {
    before: &'a Before,
    store: Store,
    environment: Environment,
    what: String,
}

impl Cell<'_> {
    async fn open(&self) -> Result<Repository> {
        Repository::open(self.store.clone(), OpenOptions::default(), self.environment.clone()).await
    }

    async fn run(&self, command: &str) -> Result<String> {
        match command {
            "list" => {
                let listed = self.open().await?.backups().len();
                Ok(if listed == self.before.backups.len() { "whole" } else { "fewer" }.to_owned())
            }
            "restore" => self.restore().await,
            "check" | "scrub" => {
                let report = self.check(command == "scrub").await?;
                let finds = report.finding_count > 0 || !report.remarks.is_empty();
                Ok(if finds { "finds it" } else { "does not see it" }.to_owned())
            }
            "backup" => {
                back_up(&self.open().await?, "/data", &self.before.next).await?;
                Ok(if self.is_sound().await { "done, heals it" } else { "done" }.to_owned())
            }
            "prune" => {
                let options =
                    PruneOptions { max_unused: MaxUnused::Bytes(0), memory: 64 << 20, ..PruneOptions::default() };
                prune(&self.open().await?, &options, Arc::new(Silent), |_| {}).await?;
                Ok("done".to_owned())
            }
            "replicate" => {
                let target = memory();
                let origin = self.open().await?;
                let target = Repository::create_member(target, &origin, false, seeded(31).0).await?;
                let report = replicate(&origin, &target, &ReplicateOptions::default(), Arc::new(Silent)).await?;
                for backup in target.backups() {
                    let (report, found) = bring_back(&target, &backup).await;
                    assert_eq!(report?.damaged_count, 0, "{}: what was sent is whole", self.what);
                    assert_tree(&self.before.backups[&backup.id], &found, &self.what);
                }
                let all = report.sent.len() == self.before.backups.len();
                Ok(if all && report.finding_count == 0 { "all sent" } else { "the rest sent" }.to_owned())
            }
            _ => self.repair(command).await,
        }
    }

    async fn restore(&self) -> Result<String> {
        let repository = self.open().await?;
        let (mut lost, mut refused) = (0, None);
        for backup in repository.backups() {
            let (report, found) = bring_back(&repository, &backup).await;
            match report {
                Ok(report) if report.damaged_count > 0 => lost += report.damaged_count,
                Ok(_) => assert_tree(&self.before.backups[&backup.id], &found, &self.what),
                Err(error) => refused = Some(error),
            }
            for (path, content) in found {
                assert!(self.before.backups[&backup.id][&path] == content, "{}: a file looks complete", self.what);
            }
        }
        match (lost, refused) {
            (_, Some(error)) => Err(error),
            (0, None) if repository.backups().len() == self.before.backups.len() => Ok("whole".to_owned()),
            (0, None) => Ok("fewer".to_owned()),
            _ => Ok("names files".to_owned()),
        }
    }

    async fn check(&self, read_data: bool) -> Result<CheckReport> {
        let options = CheckOptions { read_data, memory: 64 << 20, ..CheckOptions::default() };
        check(&self.open().await?, &options, Arc::new(Silent)).await
    }

    async fn repair(&self, command: &str) -> Result<String> {
        let from = match command {
            "repair from a replica" => Some(store_of(&self.before.replica).await),
            "repair from a copy" => Some(store_of(&self.before.objects).await),
            _ => None,
        };
        let mut healed = 0;
        if let Some(from) = &from {
            healed += repair_log(&self.store, from, false).await?.healed.len() as u64;
        }
        let from = match from {
            Some(from) => Some(open(&from, 41).await?),
            None => None,
        };
        let options = RepairOptions { read_data: true, memory: 64 << 20, ..RepairOptions::default() };
        let report = repair(&self.open().await?, from.as_ref(), &options, Arc::new(Silent)).await?;
        Ok(match (self.is_sound().await, healed + report.healed_count) {
            (true, 0) => "nothing to do",
            (true, _) => "heals it",
            (false, 0) => "cannot",
            (false, _) => "heals in part",
        }
        .to_owned())
    }

    /// Everything that was listed is, comes back, and a scrub finds nothing but notes.
    async fn is_sound(&self) -> bool {
        let Ok(repository) = open(&self.store, 51).await else { return false };
        let listed = repository.backups();
        if !self.before.backups.keys().all(|id| listed.iter().any(|backup| backup.id == *id)) {
            return false;
        }
        for backup in listed.iter().filter(|backup| self.before.backups.contains_key(&backup.id)) {
            let (report, found) = bring_back(&repository, backup).await;
            if !report.is_ok_and(|report| report.damaged_count == 0) || found != self.before.backups[&backup.id] {
                return false;
            }
        }
        let report = self.check(true).await;
        report.is_ok_and(|report| report.findings.iter().all(|finding| finding.severity == Severity::Note))
    }

    /// With the lost object back in its place everything is as it was: nobody made it worse.
    async fn assert_not_worse(&self) {
        let now = objects_of(&self.store).await;
        for (name, bytes) in &self.before.objects {
            if now.get(name) != Some(bytes) {
                let path = ObjectPath::parse(name).unwrap();
                self.store.put_new(path, vec![Bytes::clone(bytes)]).await.unwrap();
            }
        }
        let options = OpenOptions { distrust_state: true, ..OpenOptions::default() };
        let repository = Repository::open(self.store.clone(), options, seeded(61).0).await;
        let repository = repository.unwrap_or_else(|error| panic!("{}: {}", self.what, whole(&error)));
        for (id, tree) in &self.before.backups {
            let backup = repository.find_backup(&id.to_string());
            let backup = backup.unwrap_or_else(|error| panic!("{}: {}", self.what, whole(&error)));
            let (report, found) = bring_back(&repository, &backup).await;
            let report = report.unwrap_or_else(|error| panic!("{}: {}", self.what, whole(&error)));
            assert_eq!(report.damaged_count, 0, "{}", self.what);
            assert_tree(tree, &found, &self.what);
        }
    }
}

/// An error tells what it is about.
fn refusal(what: &str, error: &Error) -> String {
    let text = whole(error);
    assert!(
        matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Unsupported),
        "{what}: {} {text}",
        error.kind()
    );
    let named =
        ["log", "config", "pack", "manifest", "chunk", "index", "backup"].iter().any(|word| text.contains(word));
    assert!(named, "{what}: {text}");
    "refuses".to_owned()
}

/// True if the damage leaves a log that is whole, only shorter.
fn is_shorter(what: &str, damage: &str) -> bool {
    damage == "roll back" || (damage == "delete" && what.contains("last log entry"))
}

async fn cell(before: &Before, victim: &str, damage: &str, command: &str, what: String) -> String {
    let scratch = scratch();
    let mut environment = seeded(21).0;
    let store = store_of(&before.objects).await;
    let is_shorter = is_shorter(&what, damage);
    if is_shorter {
        // A log that is merely shorter is told by who has seen it longer.
        environment.cache = Some(scratch.path().to_path_buf());
        let repository = Repository::open(store.clone(), OpenOptions::default(), environment.clone()).await.unwrap();
        let latest = repository.find_backup("latest").unwrap();
        bring_back(&repository, &latest).await.0.unwrap();
    }
    let left = damaged(before, victim, damage);
    for info in store.list_sorted(everpack::store::Folder::Root).await.unwrap() {
        match left.get(info.path.as_str()) {
            Some(bytes) => store.put_new(&info.path, vec![bytes.clone()]).await.unwrap(),
            None => store.delete(&info.path).await.unwrap(),
        }
    }
    let cell = Cell { before, store, environment, what };
    let outcome = match cell.run(command).await {
        Ok(outcome) => outcome,
        Err(error) => refusal(&cell.what, &error),
    };
    cell.assert_not_worse().await;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_found_named_healed_and_never_made_worse() {
    let before = before().await;
    let mut table =
        format!("| object | damage | {} |\n|---|---|{}\n", COMMANDS.join(" | "), "---|".repeat(COMMANDS.len()));
    let mut rows: Vec<(&str, &str, &str)> = Vec::new();
    for (kind, victim) in &before.victims {
        rows.extend(["flip", "truncate", "delete"].map(|damage| (*kind, victim.as_str(), damage)));
    }
    rows.push(("log", "", "roll back"));
    for (kind, victim, damage) in rows {
        let _ = write!(table, "| {kind} | {damage} |");
        for command in COMMANDS {
            let what = format!("{command} with {kind}: {damage}");
            let outcome = cell(&before, victim, damage, command, what.clone()).await;
            // Whoever reads everything sees everything, but for what nobody need have.
            let is_dispensable = ["log state", "scrub ledger"].contains(&kind) && damage == "delete";
            assert!(
                command != "scrub" || is_dispensable || ["finds it", "refuses"].contains(&outcome.as_str()),
                "{what}: {outcome}"
            );
            // What a second copy exists of, comes back.
            let is_in_log = ["config", "log entry", "last log entry", "log"].contains(&kind);
            let has_copy = command == "repair from a copy" && !is_shorter(&what, damage)
                || command == "repair from a replica" && !is_in_log;
            assert!(!has_copy || ["heals it", "nothing to do"].contains(&outcome.as_str()), "{what}: {outcome}");
            let _ = write!(table, " {outcome} |");
        }
        table.push('\n');
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/damage.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (head, rest) = text.split_once("<!-- table -->\n").unwrap();
    let (_, tail) = rest.split_once("<!-- end -->\n").unwrap();
    let expected = format!("{head}<!-- table -->\n{table}<!-- end -->\n{tail}");
    if std::env::var_os("EVERPACK_BLESS").is_some() {
        std::fs::write(&page, &expected).unwrap();
    }
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text == expected, "docs/damage.md is not what the commands do; now it is:\n{table}");
}
