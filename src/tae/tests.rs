//! Tests over captures of a real server, and what they need.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::error::{Error, Result};

/// The unpacked captures, or a visible line and nothing.
fn real_data(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("EVERPACK_TEST_DATA_UNPACKED").map(PathBuf::from).filter(|path| path.is_dir());
    if found.is_none() {
        #[allow(clippy::print_stderr, reason = "a skipped test has to be seen")]
        {
            eprintln!("skipped {test}: EVERPACK_TEST_DATA_UNPACKED names no directory");
        }
    }
    found
}

/// What is known of every capture.
fn facts(data: &Path) -> serde_json::Value {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [data.join(""), here.join("../shared/data"), here.join("../../shared/data")];
    let found = places.iter().map(|place| place.join("FACTS.json")).find(|path| path.exists());
    serde_json::from_slice(&fs::read(found.expect("FACTS.json lies beside the captures")).unwrap()).unwrap()
}

/// The roots of all trees with their facts: name, directory, facts of the closure, facts of the structure.
struct Tree {
    name: String,
    root: PathBuf,
    closure: serde_json::Value,
    structure: serde_json::Value,
}

fn trees(data: &Path) -> Vec<Tree> {
    let facts = facts(data);
    let mut trees = Vec::new();
    for (name, fact) in facts["trees"].as_object().unwrap() {
        let (closure, structure) = (fact["closure_tree_alone"].clone(), fact["structure_check"].clone());
        trees.push(Tree { name: name.clone(), root: data.join(name).join("tae"), closure, structure });
    }
    for (name, fact) in facts["live_shared"].as_object().unwrap() {
        let root = data.join(name).join(fact["shared_dir"].as_str().unwrap());
        trees.push(Tree { name: name.clone(), root, closure: fact["closure"].clone(), structure: ().into() });
    }
    assert!(trees.len() > 30, "some captures are missing");
    trees
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(dir, &mut files);
    files.sort();
    files
}

fn class(path: &Path) -> FileClass {
    classify(path.to_str().unwrap().as_bytes())
}

/// The logical bytes of a file.
fn logical(path: &Path) -> Vec<u8> {
    let physical = fs::read(path).unwrap();
    if !looks_framed(&physical[..physical.len().min(FRAMING_PROBE_LEN)], physical.len() as u64) {
        return physical;
    }
    let (mut unframer, mut logical) = (Unframer::new(), Vec::new());
    unframer.feed(&physical, &mut logical).unwrap();
    unframer.finish(&mut logical).unwrap();
    logical
}

/// A directory as a tree; what `tae_list` names counts as being there, but cannot be opened.
struct DirectoryTree {
    root: PathBuf,
    listed: BTreeMap<TaeName, u64>,
}

impl DirectoryTree {
    fn open(root: &Path) -> Self {
        let list = root.join("tae_list");
        let list = if list.exists() { logical(&list) } else { Vec::new() };
        let listed = String::from_utf8(list).unwrap().lines().filter_map(|line| {
            let mut fields = line.split(',');
            let name = TaeName::parse(fields.next()?.as_bytes())?;
            Some((name, fields.next()?.parse().unwrap()))
        }).collect();
        Self { root: root.to_owned(), listed }
    }
}

impl TreeView for DirectoryTree {
    fn checkpoint_files(&self) -> Result<Vec<MetaName>> {
        let classes = files(&self.root.join("ckp")).into_iter().map(|path| class(&path));
        Ok(classes.filter_map(|class| if let FileClass::CheckpointMeta(name) = class { Some(name) } else { None }).collect())
    }

    fn open_checkpoint(&self, name: &MetaName) -> Result<Box<dyn ReadAt + '_>> {
        Ok(Box::new(logical(&self.root.join(name.to_string()))))
    }

    fn object_len(&self, name: &TaeName) -> Result<Option<u64>> {
        let path = self.root.join(name.to_string());
        if path.exists() { Ok(Some(logical(&path).len() as u64)) } else { Ok(self.listed.get(name).copied()) }
    }

    fn open_object(&self, name: &TaeName) -> Result<Option<Box<dyn ReadAt + '_>>> {
        let path = self.root.join(name.to_string());
        if !path.exists() {
            return Ok(None);
        }
        let physical = fs::read(&path).map_err(|error| Error::io("open", error))?;
        let framed = looks_framed(&physical[..physical.len().min(2048)], physical.len() as u64);
        Ok(Some(if framed { Box::new(Unframed::new(physical)?) } else { Box::new(physical) }))
    }
}

#[test]
fn closure_of_every_real_tree_is_as_known() {
    let Some(data) = real_data("closure") else { return };
    for tree in trees(&data) {
        let report = closure(&DirectoryTree::open(&tree.root)).unwrap();
        let fact = |name: &str| tree.closure[name].as_u64().unwrap();
        eprintln!("{} {} found {}/{} rows {}/{} nofile {}/{} tid {}/{} old {}/{} missing {:?}", tree.name, report.is_complete() == tree.closure["complete"].as_bool().unwrap(),
          report.found, fact("refs"), report.object_rows, fact("object_rows"), report.rows_without_file, fact("in_memory_rows"), report.missing_table_ids, fact("missing_table_id_objects"),
          report.superseded_missing, fact("irrelevant_old_index_missing"), report.missing.len());
        for d in report.damaged.iter().chain(&report.unfollowed) { eprintln!("   {d:?}"); }
    }
}

#[test]
fn every_real_object_tiles() {
    let Some(data) = real_data("tiles") else { return };
    let (mut n, mut bad) = (0, 0);
    for path in files(&data) {
        let class = class(&path);
        if class == FileClass::Other { continue; }
        n += 1;
        let bytes = logical(&path);
        match ObjectLayout::read(&bytes).unwrap() {
            Ok(layout) => {
               match class { FileClass::Object(name) => if !layout.belongs_to(&name) { eprintln!("{path:?} owner {:?}", layout.owner()) },
               _ => eprintln!("{path:?} {:?}", layout.owner()) }
            }
            Err(e) => { bad += 1; eprintln!("{path:?}: {e}"); }
        }
    }
    eprintln!("{n} {bad}");
}
