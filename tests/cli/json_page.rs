//! docs/guide/json.md says what the commands print with `--json`; here it is held against what they print.
//!
//! A field that is printed and not on the page, one that the page promises and nobody prints, a null or an object where the page knows of none:
//! each is told with its command and its name. `bench` takes five seconds and is left out; of drills there is one whose server does not start.

use std::collections::BTreeMap;
use std::process::Command;

use everpack::testing::data;
use everpack::testing::tae_writer::{TaeOptions, TaeWriter, Vector, object_name};
use serde_json::{Map, Value, json};

use crate::recorded::{Answer, RecordedServer, Recording};
use crate::support::{Place, text};

const PAGE: &str = include_str!("../../docs/guide/json.md");
const FIELDS: &str = "| field | type | meaning |";
const EVENTS: &str = "| event | fields | meaning |";
/// By what a live backup recognises a cluster.
const MADE: &str = "select unix_timestamp(created_time) from mo_catalog.mo_account where account_id = 0";

/// What the page says: by heading, the first two cells of each row.
struct Page {
    tables: BTreeMap<&'static str, Vec<(&'static str, &'static str)>>,
    events: BTreeMap<&'static str, Vec<&'static str>>,
    phases: Vec<&'static str>,
}

/// A field of an object, as the page has it.
#[derive(Clone, Copy, Debug)]
struct Field {
    name: &'static str,
    /// It is not always there.
    optional: bool,
    /// The cell that says what it is; empty within braces, where only the name is said.
    kind: &'static str,
}

/// The names in backticks, and whether a `?` follows each.
fn names(cell: &'static str) -> Vec<(&'static str, bool)> {
    let parts: Vec<&str> = cell.split('`').collect();
    let behind = parts.iter().skip(2).step_by(2);
    parts.iter().skip(1).step_by(2).zip(behind).map(|(name, behind)| (*name, behind.starts_with('?'))).collect()
}

/// The word of a link to another table.
fn link(cell: &'static str) -> Option<&'static str> {
    let (_, link) = cell.split_once('[')?;
    link.split_once("](#").map(|(word, _)| word)
}

impl Page {
    fn read() -> Self {
        let mut page = Self { tables: BTreeMap::new(), events: BTreeMap::new(), phases: Vec::new() };
        let (mut heading, mut header) = ("", "");
        for line in PAGE.lines() {
            if let Some(title) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
                heading = title;
            } else if let Some(phases) = line.strip_prefix("Phases: ") {
                page.phases = names(phases).into_iter().map(|(name, _)| name).collect();
            }
            if !line.starts_with('|') {
                header = "";
                continue;
            }
            if header.is_empty() {
                header = line;
                continue;
            }
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 5, "three cells: {line}");
            match header {
                _ if cells[1].starts_with("---") => {}
                FIELDS => page.tables.entry(heading).or_default().push((cells[1], cells[2])),
                EVENTS => {
                    let fields = names(cells[2]).into_iter().map(|(name, _)| name).collect();
                    page.events.insert(names(cells[1])[0].0, fields);
                }
                _ => panic!("a table of another kind: {header}"),
            }
        }
        page
    }

    /// The fields of an object, by the heading of its table.
    fn fields(&self, heading: &str) -> Vec<Field> {
        let rows = self.tables.get(heading).unwrap_or_else(|| panic!("the page has no table under {heading:?}"));
        let mut fields = Vec::new();
        for &(cell, kind) in rows {
            if let Some(all) = link(cell) {
                fields.extend(self.fields(all));
                continue;
            }
            let elsewhere = kind.strip_prefix("as in ").and_then(link).map(|heading| self.fields(heading));
            for (name, optional) in names(cell) {
                fields.push(match &elsewhere {
                    None => Field { name, optional, kind },
                    Some(known) => {
                        let same = known.iter().find(|field| field.name == name);
                        *same.unwrap_or_else(|| panic!("{heading}: `{name}` is not in the table it refers to"))
                    }
                });
            }
        }
        fields
    }

    /// What the page says of the objects in a field: within braces, or by a link.
    fn inside(&self, kind: &'static str) -> Option<Vec<Field>> {
        if let Some((_, inner)) = kind.split_once('{') {
            let (inner, _) = inner.split_once('}').unwrap_or_else(|| panic!("an open brace: {kind}"));
            return Some(names(inner).into_iter().map(|(name, optional)| Field { name, optional, kind: "" }).collect());
        }
        link(kind).map(|heading| self.fields(heading))
    }

    /// What is wrong with a document, or with the page.
    fn compare(&self, command: &str, heading: &str, document: &Value) -> Vec<String> {
        let fields = self.fields(heading);
        let mut wrong = Vec::new();
        for object in objects(document) {
            self.compare_object(command, "", object, &fields, &mut wrong);
        }
        wrong.sort();
        wrong.dedup();
        wrong
    }

    fn compare_object(
        &self,
        command: &str,
        above: &str,
        object: &Map<String, Value>,
        fields: &[Field],
        wrong: &mut Vec<String>,
    ) {
        for (name, value) in object {
            match fields.iter().find(|field| field.name == name) {
                Some(field) => self.compare_value(command, &format!("{above}{name}"), value, field.kind, wrong),
                None => wrong.push(format!("{command}: it prints `{above}{name}`, and the page does not name it")),
            }
        }
        for field in fields.iter().filter(|field| !field.optional && !object.contains_key(field.name)) {
            wrong.push(format!("{command}: the page names `{above}{}`, and it is not printed", field.name));
        }
    }

    fn compare_value(&self, command: &str, at: &str, value: &Value, kind: &'static str, wrong: &mut Vec<String>) {
        if !kind.is_empty() && !fits(value, kind) {
            wrong.push(format!("{command}: `{at}` is {value}, and the page says: {kind}"));
            return;
        }
        let found = objects(value);
        if found.is_empty() {
            return;
        }
        let Some(fields) = self.inside(kind) else {
            wrong.push(format!("{command}: `{at}` holds objects, and the page does not say what is in them"));
            return;
        };
        for object in found {
            self.compare_object(command, &format!("{at}."), object, &fields, wrong);
        }
    }

    /// The lines of progress that `command` has written.
    fn compare_progress(&self, command: &str, err: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let lines = err.lines().filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok());
        for line in lines {
            let event = line.get("event").and_then(Value::as_str).unwrap_or_default();
            let Some(fields) = self.events.get(event) else {
                wrong.push(format!("{command}: the page does not know the event {event:?}"));
                continue;
            };
            let mut printed: Vec<&str> = line.keys().map(String::as_str).filter(|name| *name != "event").collect();
            let mut named = fields.clone();
            printed.sort_unstable();
            named.sort_unstable();
            if printed != named {
                wrong.push(format!("{command}: the event {event:?} has {printed:?}, and the page says {named:?}"));
            }
            let phase = line.get("phase").and_then(Value::as_str);
            if let Some(phase) = phase.filter(|phase| !self.phases.contains(phase)) {
                wrong.push(format!("{command}: the page does not know the phase {phase:?}"));
            }
        }
        wrong
    }
}

/// The objects that a value is, or that are in its lists.
fn objects(value: &Value) -> Vec<&Map<String, Value>> {
    match value {
        Value::Object(object) => vec![object],
        Value::Array(items) => items.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    }
}

/// Whether a value is what the page calls it. Of an object only what is in it is compared.
fn fits(value: &Value, kind: &str) -> bool {
    let is_any = |words: &[&str]| words.iter().any(|word| kind.contains(word));
    match value {
        Value::Null => kind.ends_with("or null"),
        Value::Bool(_) => kind == "bool",
        Value::Number(_) => is_any(&["count", "bytes", "number", "seconds"]),
        Value::String(_) => !kind.starts_with("list of") && is_any(&["id", "digits", "text", "time"]),
        Value::Array(_) => kind.starts_with("list of"),
        Value::Object(_) => !kind.starts_with("list of"),
    }
}

/// Runs a command, which exits with `code`, and holds what it prints against the table under `heading`.
#[track_caller]
fn held(place: &Place, heading: &str, args: &[&str], code: i32) -> Value {
    let ran = place.run(&[&["--json"][..], args].concat()).expect(code);
    let document: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{args:?}: {error}: {ran:#?}"));
    let (page, command) = (Page::read(), args.join(" "));
    let mut wrong = page.compare(&command, heading, &document);
    wrong.extend(page.compare_progress(&command, &ran.err));
    assert!(wrong.is_empty(), "docs/guide/json.md, under {heading:?}:\n  {}", wrong.join("\n  "));
    document
}

fn copy(place: &Place, from: &str, to: &str) {
    let status = Command::new("cp").arg("-r").args([place.path(from), place.path(to)]).status().unwrap();
    assert!(status.success(), "cp -r {from} {to}");
}

#[test]
fn every_command_is_on_the_page() {
    let page = Page::read();
    let (intro, _) = PAGE.split_once("\n## ").unwrap();
    let without: Vec<&str> = names(intro).into_iter().map(|(name, _)| name).collect();
    let help = Place::new().run(&["-h"]).expect(0).out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What stands further right is the rest of a line.
    let commands = commands.filter(|line| !line.starts_with("   "));
    let commands = commands.filter_map(|line| line.split_whitespace().next());
    // It has no document.
    let commands: Vec<&str> = commands.filter(|command| *command != "help").collect();
    assert!(commands.len() > 20, "{help}");
    for command in commands {
        let has_table = page.tables.keys().any(|heading| heading.split(", ").any(|word| word == command));
        assert!(has_table || without.contains(&command), "docs/guide/json.md does not say what `{command}` prints");
    }
    // Every reference leads somewhere.
    for heading in page.tables.keys() {
        for field in page.fields(heading) {
            page.inside(field.kind);
        }
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let page = Page::read();
    let right = json!({"backups": ["ab"], "entry": null, "remarks": []});
    assert!(page.compare("release", "release", &right).is_empty());
    for (wrong, words) in [
        (json!({"backups": [], "entry": 1, "remarks": [], "more": 1}), "prints `more`"),
        (json!({"backups": [], "remarks": []}), "names `entry`"),
        (json!({"backups": null, "entry": 1, "remarks": []}), "`backups` is null"),
        (json!({"backups": [], "entry": "1", "remarks": []}), "`entry` is \"1\""),
        (json!({"backups": [{"id": "ab"}], "entry": 1, "remarks": []}), "`backups` holds objects"),
    ] {
        let told = page.compare("release", "release", &wrong);
        assert!(told.len() == 1 && told[0].starts_with("release: ") && told[0].contains(words), "{words}: {told:?}");
    }
    let found = json!([{"backup": "ab", "path": "p"}]);
    let finding =
        json!({"severity": "note", "object": "", "what": "", "touches": found, "touched_count": 1, "heal": ""});
    assert!(page.compare("check", "finding", &finding).is_empty());
    let mut less = finding;
    less["touches"][0] = json!({"backup": "ab"});
    assert_eq!(
        page.compare("check", "finding", &less),
        ["check: the page names `touches.path`, and it is not printed"]
    );
}

#[test]
fn backups_are_made_and_looked_at_as_the_page_says() {
    let place = Place::new();
    held(&place, "init", &["init"], 0);
    held(&place, "probe", &["probe"], 0);
    place.write("source/a/one.txt", &text(1, 40_000));
    place.write("source/b.bin", &text(3, 300_000));
    std::os::unix::fs::symlink("b.bin", place.path("source/link")).unwrap();
    let backup = ["backup", "source", "--lineage", "files", "--tag", "one", "--exclude", "*.tmp"];
    place.write("source/x.tmp", b"");
    let first = held(&place, "backup", &backup, 0);
    let first = first["id"].as_str().unwrap();
    place.write("source/a/one.txt", &text(2, 50_000));
    place.write("source/new.txt", b"new");
    std::fs::remove_file(place.path("source/b.bin")).unwrap();
    held(&place, "backup", &backup, 0);
    held(&place, "list", &["list"], 0);
    held(&place, "show", &["show", "latest"], 0);
    let listed = held(&place, "ls", &["ls", first, "-R"], 0);
    assert_eq!(listed.as_array().unwrap().len(), 4, "a directory, two files, a link: {listed}");
    held(&place, "find", &["find", "*"], 0);
    held(&place, "diff", &["diff", first, "latest"], 0);
    held(&place, "stats", &["stats"], 0);
    held(&place, "check, scrub", &["check"], 0);
    held(&place, "check, scrub", &["scrub"], 0);
    held(&place, "stats", &["stats"], 0);
    held(&place, "restore", &["restore", "latest", "out"], 0);
    held(&place, "verify without a server", &["verify", "latest", "--start", "--skip-without-server"], 0);
    held(&place, "repair", &["repair"], 0);
    place.run(&["scrub"]).expect(0);
}

#[test]
fn backups_go_and_come_back_as_the_page_says() {
    let place = Place::with_repository();
    let first = place.json(&["backup", "source", "--lineage", "files", "--tag", "one"]);
    let first = first["id"].as_str().unwrap();
    place.write("source/b.bin", &text(4, 300_000));
    place.run(&["backup", "source", "--lineage", "files"]).expect(0);
    held(&place, "hold", &["hold", first, "--until", "90d"], 0);
    held(&place, "list", &["list"], 0);
    held(&place, "forget", &["forget", "--keep-last", "1", "--dry-run"], 0);
    held(&place, "release", &["release", first], 0);
    held(&place, "release", &["release", first], 0);
    held(&place, "forget", &["forget", "--keep-last", "1"], 0);
    held(&place, "list", &["list", "--forgotten"], 0);
    held(&place, "unforget", &["unforget", first], 0);
    held(&place, "forget", &["forget", first], 0);
    held(&place, "prune", &["prune", "--dry-run"], 0);
    held(&place, "prune", &["prune"], 0);
    place.run(&["scrub"]).expect(0);
}

#[test]
fn replicas_are_filled_and_proved_as_the_page_says() {
    let place = Place::with_repository();
    for lineage in ["files", "others"] {
        place.run(&["backup", "source", "--lineage", lineage]).expect(0);
    }
    held(&place, "replicate", &["replicate", "replica", "--dry-run"], 0);
    held(&place, "replicate", &["replicate", "replica"], 0);
    held(&place, "replicate --prove", &["replicate", "replica", "--prove"], 0);
    place.run(&["-r", "replica", "forget", "latest:others"]).expect(0);
    let skipped = held(&place, "replicate", &["replicate", "replica"], 0);
    assert_eq!(skipped["skipped"][0]["why"], "forgotten");
    place.write("source/b.bin", &text(5, 300_000));
    place.run(&["backup", "source", "--lineage", "files"]).expect(0);
    let differs = held(&place, "replicate --prove", &["replicate", "replica", "--prove"], 2);
    assert_eq!(differs["only_origin"].as_array().unwrap().len(), 1);
    std::fs::remove_dir_all(place.path("repo/packs")).unwrap();
    let damaged = held(&place, "replicate", &["replicate", "replica"], 2);
    assert_eq!(damaged["skipped"][1]["why"], "damaged");
    assert!(damaged["finding_count"].as_u64().unwrap() > 0);
    let damaged = held(&place, "replicate --prove", &["replicate", "replica", "--prove"], 2);
    assert!(damaged["missing_count"].as_u64().unwrap() > 0);
}

#[test]
fn damage_is_found_and_healed_as_the_page_says() {
    let place = Place::with_repository();
    place.run(&["backup", "source"]).expect(0);
    copy(&place, "repo", "copy");
    std::fs::remove_dir_all(place.path("repo/packs")).unwrap();
    let found = held(&place, "check, scrub", &["check"], 2);
    assert!(found["findings"][0]["touched_count"].as_u64().unwrap() > 0);
    held(&place, "check, scrub", &["scrub"], 2);
    let damaged = held(&place, "restore", &["restore", "latest", "out"], 2);
    assert_eq!(damaged["damaged_count"], 3);
    let remaining = held(&place, "repair", &["repair", "--dry-run"], 2);
    assert!(remaining["remaining_count"].as_u64().unwrap() > 0);
    let healed = held(&place, "repair", &["repair", "--from", "copy"], 0);
    assert!(healed["healed_count"].as_u64().unwrap() > 0);

    std::fs::remove_file(place.path("repo/log/00000000000000000001")).unwrap();
    let log = held(&place, "repair --dry-run of a damaged log", &["repair", "--from", "copy", "--dry-run"], 2);
    assert_eq!(log["healed"].as_array().unwrap().len(), 1);

    std::fs::create_dir(place.path("ruins")).unwrap();
    for folder in ["packs", "meta"] {
        copy(&place, &format!("copy/{folder}"), "ruins");
    }
    let salvaged = held(&place, "repair --salvage", &["-r", "new", "repair", "--salvage", "ruins"], 0);
    assert!(salvaged["salvaged"].is_string(), "{salvaged}");
}

#[test]
fn an_object_is_shown_as_the_page_says() {
    let place = Place::new();
    let mut writer = TaeWriter::new(TaeOptions::new(object_name(7, 1_700_000_000_000, 0)));
    let mut column = Vector::new(23).unwrap();
    (0..500u64).for_each(|row| column.push_fixed(row.to_le_bytes()));
    writer.push_block(&[column], Vec::new()).unwrap();
    let bytes = writer.finish().unwrap().bytes;
    place.write("object", &bytes);
    held(&place, "tae", &["tae", "object"], 0);
    held(&place, "tae", &["tae", "object", "--extents", "--validate", "decode"], 0);
    place.write("cut", &bytes[..bytes.len() - 100]);
    let cut = held(&place, "tae", &["tae", "cut"], 2);
    assert!(cut["damage"].is_string() && cut["object"].is_null(), "{cut}");
    let mut flipped = bytes;
    flipped[100..140].fill(0xff);
    place.write("flipped", &flipped);
    let damaged = held(&place, "tae", &["tae", "flipped"], 2);
    assert!(!damaged["validation"]["findings"].as_array().unwrap().is_empty(), "{damaged}");
}

#[test]
fn trees_come_and_go_as_the_page_says() {
    let Some(captures) = data::captures("trees_come_and_go_as_the_page_says") else { return };
    let tree = |name: &str| captures.join(name).display().to_string();
    let place = Place::with_repository();
    let (full, incremental) = (tree("framed/fs-full-1"), tree("framed/fs-incr-2"));
    held(&place, "import", &["import", &full, &incremental], 0);
    held(&place, "show", &["show", "latest"], 0);
    held(&place, "restore --matrixone", &["restore", "latest", "--matrixone", "mo"], 0);
    held(&place, "restore --as-backup-tree", &["restore", "latest", "--as-backup-tree", "tree"], 0);
    let bucket = ["restore", "latest", "--to-bucket", "memory:", "--hk-data", "hk_data"];
    held(&place, "restore --to-bucket", &bucket, 0);
    let drill = ["verify", "latest", "--start", "--mo-service", "/bin/true", "--scratch", "."];
    let drill = held(&place, "verify", &drill, 2);
    assert!(drill["ok"] == false && drill["restored"].is_object(), "{drill}");
    let hole = held(&place, "backup", &["backup", &tree("hole/hole")], 2);
    assert_eq!(hole["problem_count"], 1);
}

#[test]
fn a_live_backup_is_told_as_the_page_says() {
    let Some(mut recording) = Recording::captured("a_live_backup_is_told_as_the_page_says") else { return };
    recording.answers.push((MADE.to_owned(), Answer::rows(&["made"], &[&["1795235000.1"]])));
    recording.answers.push(("show processlist".to_owned(), Answer::rows(&["info"], &[])));
    let server = RecordedServer::start_now(recording);
    let place = Place::with_repository();
    place.write("password", b"111\n");
    std::fs::create_dir(place.path("stage")).unwrap();
    let (url, stage) = (server.url(), place.path("stage").display().to_string());
    let args = ["backup", &url, "--password-file", "password", "--stage", &stage];
    for _night in 0..2 {
        held(&place, "backup of matrixone://", &args, 0);
    }
}
