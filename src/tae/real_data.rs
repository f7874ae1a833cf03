//! Captures of a real server: every object, every tree, compared with what is known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::reader::{BlockColumns, ObjectReader};
use super::tests::{layout, read_all, with_mutated_meta};
use super::*;
use crate::error::{Error, Result};

/// The unpacked captures, or a visible line and nothing.
pub(super) fn real_data(test: &str) -> Option<PathBuf> {
    crate::testing::data::captures(test).map(Path::to_owned)
}

/// One capture, and what is known of it.
struct Tree {
    name: String,
    root: PathBuf,
    closure: serde_json::Value,
    structure: serde_json::Value,
}

fn trees(data: &Path) -> Vec<Tree> {
    let facts = crate::testing::data::facts(data);
    let mut trees = Vec::new();
    for (name, fact) in facts["trees"].as_object().unwrap() {
        let (closure, structure) = (fact["closure_tree_alone"].clone(), fact["structure_check"].clone());
        trees.push(Tree { name: name.clone(), root: data.join(name).join("tae"), closure, structure });
    }
    for (name, fact) in facts["live_shared"].as_object().unwrap() {
        let root = data.join(name).join(fact["shared_dir"].as_str().unwrap());
        trees.push(Tree { name: name.clone(), root, closure: fact["closure"].clone(), structure: ().into() });
    }
    assert_eq!(trees.len(), 33, "some captures are missing");
    trees
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn class(path: &Path) -> FileClass {
    classify(path.to_str().unwrap().as_bytes())
}

fn is_framed(physical: &[u8]) -> bool {
    looks_framed(&physical[..physical.len().min(FRAMING_PROBE_LEN)], physical.len() as u64)
}

/// Every file of every `ckp/`.
pub(super) fn checkpoint_files(data: &Path) -> Vec<PathBuf> {
    let files = trees(data).into_iter().flat_map(|tree| files(&tree.root.join("ckp")));
    files.filter(|path| matches!(class(path), FileClass::CheckpointMeta(_))).collect()
}

/// The logical bytes of a file.
pub(super) fn logical(path: &Path) -> Vec<u8> {
    let physical = fs::read(path).unwrap();
    if !is_framed(&physical) {
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
        let listed = |line: &str| {
            let mut fields = line.split(',');
            Some((TaeName::parse(fields.next()?.as_bytes())?, fields.next()?.parse().unwrap()))
        };
        Self { root: root.to_owned(), listed: String::from_utf8(list).unwrap().lines().filter_map(listed).collect() }
    }
}

impl TreeView for DirectoryTree {
    fn checkpoint_files(&self) -> Result<Vec<MetaName>> {
        let name = |path: PathBuf| match class(&path) {
            FileClass::CheckpointMeta(name) => Some(name),
            _ => None,
        };
        Ok(files(&self.root.join("ckp")).into_iter().filter_map(name).collect())
    }

    fn open_checkpoint(&self, name: &MetaName) -> Result<Box<dyn ReadAt + '_>> {
        Ok(Box::new(logical(&self.root.join(name.to_string()))))
    }

    fn object_len(&self, name: &TaeName) -> Result<Option<u64>> {
        let path = self.root.join(name.to_string());
        Ok(if path.exists() { Some(logical(&path).len() as u64) } else { self.listed.get(name).copied() })
    }

    fn open_object(&self, name: &TaeName) -> Result<Option<Box<dyn ReadAt + '_>>> {
        match fs::read(self.root.join(name.to_string())) {
            Ok(physical) if is_framed(&physical) => Ok(Some(Box::new(Unframed::new(physical)?))),
            Ok(physical) => Ok(Some(Box::new(physical))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("open {name}"), error)),
        }
    }
}

#[test]
fn closure_of_every_real_tree_is_as_known() {
    let Some(data) = real_data("closure") else { return };
    for Tree { name, root, closure: facts, .. } in trees(&data) {
        let report = closure(&DirectoryTree::open(&root)).unwrap();
        let fact = |field: &str| facts[field].as_u64().unwrap();
        assert_eq!(report.is_complete(), facts["complete"].as_bool().unwrap(), "{name}: {report:?}");
        assert_eq!(report.found + report.missing.len() as u64, fact("refs"), "{name}");
        assert_eq!(report.object_rows - report.rows_without_file, fact("object_rows"), "{name}");
        assert_eq!(report.missing_table_ids, fact("missing_table_id_objects"), "{name}");
        assert_eq!(report.superseded_missing, fact("irrelevant_old_index_missing"), "{name}");
        assert_eq!(report.newest_global.to_string(), facts["end_of_newest_global_checkpoint"], "{name}");
        let missing: BTreeSet<_> = report.missing.iter().map(|missing| format!("{} (index)", missing.name)).collect();
        let known = facts["missing"].as_array().into_iter().flatten();
        let known: BTreeSet<_> = known.map(|text| text.as_str().unwrap().to_owned()).collect();
        assert_eq!(missing, known, "{name}");
        assert!(report.missing.iter().all(|missing| missing.need == Need::CheckpointIndex));
    }
}

/// A tree of which one object has other bytes, or is not there.
struct Changed<'a>(&'a DirectoryTree, TaeName, Option<Vec<u8>>);

impl TreeView for Changed<'_> {
    fn checkpoint_files(&self) -> Result<Vec<MetaName>> {
        self.0.checkpoint_files()
    }

    fn open_checkpoint(&self, name: &MetaName) -> Result<Box<dyn ReadAt + '_>> {
        self.0.open_checkpoint(name)
    }

    fn object_len(&self, name: &TaeName) -> Result<Option<u64>> {
        if *name == self.1 { Ok(self.2.as_ref().map(|bytes| bytes.len() as u64)) } else { self.0.object_len(name) }
    }

    fn open_object(&self, name: &TaeName) -> Result<Option<Box<dyn ReadAt + '_>>> {
        if *name != self.1 {
            return self.0.open_object(name);
        }
        Ok(self.2.as_deref().map(|bytes| Box::new(bytes) as Box<dyn ReadAt>))
    }
}

#[test]
fn damage_of_a_real_index_object_is_found() {
    let Some(data) = real_data("damaged index") else { return };
    let tree = DirectoryTree::open(&data.join("hole/good-before/tae"));
    let index = TaeName::parse(b"01a1fc5c-7f2d-7bbb-b472-8b2086bc56dd_00000").unwrap();
    let bytes = logical(&tree.root.join(index.to_string()));
    let mut damaged = bytes.clone();
    damaged[64..100].fill(0xf0);
    let report = closure(&Changed(&tree, index, Some(damaged))).unwrap();
    assert!(!report.is_complete() && report.missing.is_empty());
    assert_eq!(report.damaged[0].file, index.to_string());
    let report = closure(&Changed(&tree, index, Some(bytes[1..].to_vec()))).unwrap();
    assert_eq!(report.missing[0].found_len, Some(bytes.len() as u64 - 1));
    assert_eq!(report.missing[0].need, Need::CheckpointIndex);
    assert!(closure(&Changed(&tree, index, Some(bytes))).unwrap().is_complete());
}

#[test]
fn every_needed_object_of_a_real_tree_is_missed() {
    let Some(data) = real_data("missed objects") else { return };
    let root = data.join("hole/good-before/tae");
    let tree = DirectoryTree { listed: BTreeMap::new(), ..DirectoryTree::open(&root) };
    let whole = closure(&tree).unwrap();
    assert!(whole.is_complete());
    let mut harmless = 0;
    for path in files(&root) {
        let FileClass::Object(name) = class(&path) else { continue };
        let report = closure(&Changed(&tree, name, None)).unwrap();
        if report.is_complete() {
            harmless += 1;
        } else {
            assert_eq!(report.missing[0].name, name);
            assert_eq!(report.missing[0].len, logical(&path).len() as u64);
        }
    }
    assert_eq!(harmless, 2, "as many as are known to be unreferenced");
}

#[test]
fn every_real_object_tiles_and_decodes() {
    let Some(data) = real_data("objects") else { return };
    let mut checked = 0;
    let mut kinds = BTreeSet::new();
    for path in files(&data) {
        let class = class(&path);
        if class == FileClass::Other {
            continue;
        }
        checked += 1;
        let bytes = logical(&path);
        let layout = layout(&bytes).unwrap_or_else(|not_tae| panic!("{}: {not_tae}", path.display()));
        let name = match class {
            FileClass::Object(name) => Some(name),
            _ => None,
        };
        match (class, layout.owner()) {
            (FileClass::Object(name), _) => assert!(layout.belongs_to(&name), "{}", path.display()),
            (FileClass::CheckpointMeta(_), Owner::CheckpointMeta) | (FileClass::GcMeta(_), Owner::DiskCleaner) => {}
            (_, owner) => panic!("{}: {owner:?}", path.display()),
        }
        let description = describe(&bytes, name.as_ref()).unwrap().unwrap();
        assert!(description.findings.is_empty(), "{}: {:?}", path.display(), description.findings);
        kinds.insert(format!("{:?}", description.kind));
        let report = validate(&bytes, Validation::Decode).unwrap().unwrap();
        assert!(report.findings.is_empty(), "{}: {:?}", path.display(), report.findings);
        assert_eq!(report.extents, layout.extent_count() as u64);
    }
    assert!(checked > 7000, "{checked}");
    let known = [
        "AccountMeta",
        "CheckpointData",
        "CheckpointIndex",
        "CheckpointMeta",
        "GcData",
        "GcMeta",
        "SnapshotMeta",
        "TableData",
        "TableIds",
        "Tombstone",
    ];
    assert_eq!(kinds, known.map(str::to_owned).into());
}

#[test]
fn extent_counts_of_every_real_tree_are_as_known() {
    let Some(data) = real_data("extent counts") else { return };
    for Tree { name, root, structure, .. } in trees(&data).into_iter().filter(|tree| tree.structure.is_object()) {
        let (mut extents, mut lz4) = (0, 0);
        for path in files(&root).into_iter().filter(|path| class(path) != FileClass::Other) {
            let layout = layout(&logical(&path)).unwrap();
            extents += layout.extent_count() as u64;
            lz4 += layout.data_extents().iter().chain(layout.filter_extents()).filter(|e| e.lz4).count() as u64;
            lz4 += u64::from(layout.meta_extent().lz4);
        }
        assert_eq!(extents, structure["extents"].as_u64().unwrap(), "{name}");
        assert_eq!(lz4, structure["lz4_extents"].as_u64().unwrap(), "{name}");
    }
}

#[test]
fn framed_captures_hold_the_bytes_of_raw_ones() {
    let Some(data) = real_data("framed captures") else { return };
    let (framed, raw) = (data.join("framed/fs-full-1/tae"), data.join("framed/raw-full-1/x/tae"));
    let mut compared = 0;
    for path in files(&framed).into_iter().filter(|path| !path.ends_with("tae_list")) {
        let physical = fs::read(&path).unwrap();
        assert!(is_framed(&physical), "{}", path.display());
        let bytes = logical(&path);
        let (mut framer, mut again) = (Framer::new(), Vec::new());
        framer.feed(&bytes, &mut again);
        framer.finish(&mut again);
        assert_eq!(again, physical, "{}", path.display());
        let FileClass::Object(name) = class(&path) else { continue };
        let other = raw.join(name.to_string());
        if name.is_content_stable() && other.exists() {
            let other = fs::read(&other).unwrap();
            assert!(!is_framed(&other));
            assert_eq!(bytes, other, "{name}");
            compared += 1;
        }
    }
    assert!(compared > 140, "{compared}");
}

#[test]
fn mutated_real_objects_never_panic() {
    let Some(data) = real_data("mutated objects") else { return };
    let root = data.join("live/full-1/tae");
    let mut chosen = BTreeMap::new();
    for path in files(&root).into_iter().filter(|path| class(path) != FileClass::Other) {
        let bytes = logical(&path);
        let kind = describe(&bytes, None).unwrap().unwrap().kind;
        if bytes.len() < 20_000 {
            chosen.entry(format!("{kind:?}")).or_insert(bytes);
        }
    }
    assert!(chosen.len() >= 7);
    // A fixed sequence: a failure repeats.
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for bytes in chosen.values() {
        for _ in 0..300 {
            let mut mutated = bytes.clone();
            for _ in 0..=random(3) {
                let at = random(mutated.len());
                mutated[at] = u8::try_from(random(256)).unwrap();
            }
            read_all(&mutated);
            read_all(&bytes[..random(bytes.len())]);
            read_all(&with_mutated_meta(bytes, |plain| {
                let at = random(plain.len());
                plain[at] = u8::try_from(random(256)).unwrap();
            }));
        }
    }
}

#[test]
fn real_checkpoint_rows_are_read() {
    let Some(data) = real_data("checkpoint rows") else { return };
    let path = data.join("hole/hole/tae/ckp/meta_1795235283484972738-1_1795235283994719325-0.ckp");
    let rows = read_checkpoint_rows(&logical(&path)).unwrap();
    let newest = rows.iter().max_by_key(|row| row.end).unwrap();
    assert_eq!(newest.kind, CheckpointKind::Backup);
    assert_eq!(newest.version, CHECKPOINT_VERSION);
    assert!(newest.incremental && newest.table_ids.is_empty());
    assert_eq!(newest.index.unwrap().name.to_string(), "01a1fc5c-8493-7d33-9f2a-18f6c8088066_00000");
    let global = rows.iter().find(|row| row.kind == CheckpointKind::Global).unwrap();
    assert_eq!((global.start, global.end.to_string().as_str()), (Ts::ZERO, "1795235283484972738-1"));
    assert!(global.checkpoint_lsn > 0, "BACKUP leaves it as it is");
    assert_eq!(global.table_ids.len(), 1);
}

#[test]
fn real_gc_metadata_names_gc_objects() {
    let Some(data) = real_data("gc metadata") else { return };
    let root = data.join("live/full-1/tae");
    let gc = root.join("gc/gc_1795235484760591974-1_1795235484760591974-2.ckp");
    let bytes = logical(&gc);
    let reader = ObjectReader::open(&bytes).unwrap();
    let mut named = Vec::new();
    let mut visit = |block: &BlockColumns| {
        let stats = block.column(0, DataType::VARCHAR)?;
        for row in 0..block.rows {
            named.push(ObjectStats::parse(stats.value(row)?.unwrap())?);
        }
        Ok(())
    };
    reader.for_each_block(1, &mut visit).unwrap();
    assert!(!named.is_empty());
    for stats in named {
        let object = logical(&root.join(stats.name.to_string()));
        assert_eq!(object.len() as u64, stats.file_len());
        assert_eq!(describe(&object, Some(&stats.name)).unwrap().unwrap().kind, ObjectKind::GcData);
    }
}
