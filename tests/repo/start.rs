//! Backups as something a MatrixOne server starts from: where everything lies, in which framing, what is refused, and the drill.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use everpack::error::{Error, ErrorKind, Result};
use everpack::matrixone::tree;
use everpack::ops::check::{CheckOptions, Finding, check};
use everpack::ops::drill::{DrillBackend, DrillOptions, DrillReport, drill};
use everpack::ops::restore::TargetMode;
use everpack::ops::start::{ExportOptions, StartOptions, StartReport, export, start, to_bucket};
use everpack::progress::Silent;
use everpack::repo::BackupInfo;
use everpack::store::{ObjectPath, Store, StoreOptions};
use everpack::tae::{FileClass, Unframer, classify, looks_framed, read_checkpoint_rows};
use everpack::testing::data::captures;
use everpack::testing::s3;

use crate::made::whole;
use crate::support::{Scene, write};

/// A capture in a repository, and the directories of a server that is to come.
struct Stage {
    scene: Scene,
    backup: BackupInfo,
    source: PathBuf,
}

impl Stage {
    async fn of(source: &Path) -> Self {
        let scene = Scene::new().await;
        let id = scene.backup(source).await.id;
        let backup = scene.repository.find_backup(&id.to_string()).unwrap();
        Self { scene, backup, source: source.to_owned() }
    }

    /// A copy that can be changed before it is backed up.
    async fn of_copy(source: &Path, change: impl FnOnce(&Path)) -> Self {
        let scratch = tempfile::TempDir::new().unwrap();
        let copy = scratch.path().join("tree");
        assert!(std::process::Command::new("cp").arg("-r").args([source, &copy]).status().unwrap().success());
        change(&copy);
        Self::of(&copy).await
    }

    fn server(&self) -> PathBuf {
        self.scene.path("mo")
    }

    async fn start(&self, options: &StartOptions) -> Result<StartReport> {
        start(&self.scene.repository, &self.backup, &self.server(), options, Arc::new(Silent)).await
    }

    async fn refused(&self, options: &StartOptions) -> Error {
        let error = self.start(options).await.expect_err("it is refused");
        assert!(!self.server().join("mo-data/shared").join("ckp").exists(), "nothing was written: {}", whole(&error));
        error
    }
}

fn is_framed(bytes: &[u8]) -> bool {
    looks_framed(&bytes[..bytes.len().min(2048)], bytes.len() as u64)
}

fn logical(bytes: Vec<u8>) -> Vec<u8> {
    if !is_framed(&bytes) {
        return bytes;
    }
    let (mut unframer, mut logical) = (Unframer::new(), Vec::new());
    unframer.feed(&bytes, &mut logical).unwrap();
    unframer.finish(&mut logical).unwrap();
    logical
}

/// Path → bytes as they lie there.
fn files(top: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(top: &Path, at: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(top, &path, files);
            } else {
                let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(top, top, &mut files);
    files
}

/// What SHARED is to hold of a tree, as logical bytes.
fn wanted(tree: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut wanted = files(&tree.join("tae"));
    let is_data = |name: &str| !matches!(classify(name.as_bytes()), FileClass::Other);
    wanted.retain(|name, _| is_data(name));
    wanted.into_iter().map(|(name, bytes)| (name, logical(bytes))).collect()
}

/// SHARED holds the tree and nothing else, all of it framed or all raw, and no checkpoint has a log position.
fn assert_shared(shared: &BTreeMap<String, Vec<u8>>, tree: &Path, framed: bool) {
    let wanted = wanted(tree);
    assert_eq!(shared.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (name, bytes) in shared {
        assert_eq!(is_framed(bytes), framed, "{name}");
        let (found, wanted) = (logical(bytes.clone()), &wanted[name]);
        if matches!(classify(name.as_bytes()), FileClass::CheckpointMeta(_)) {
            let mut rows = read_checkpoint_rows(wanted).unwrap();
            rows.iter_mut().for_each(|row| (row.checkpoint_lsn, row.truncate_lsn) = (0, 0));
            assert_eq!(read_checkpoint_rows(&found).unwrap(), rows, "{name}");
        } else {
            assert!(found == *wanted, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_lies_where_the_toml_files_of_the_backup_say() {
    let Some(data) = captures("everything_lies_where_the_toml_files_of_the_backup_say") else { return };
    let trees = [
        ("framed/fs-full-3", "mo-data/shared", true),
        ("framed/raw-full-3/x", "mo-data/shared", true),
        ("shop/full-3", "mo-data/shared2", false),
        ("hole/good-after", "mo-data/shared2", false),
    ];
    for (name, shared, framed) in trees {
        let stage = Stage::of(&data.join(name)).await;
        let report = stage.start(&StartOptions::default()).await.unwrap();
        assert_eq!((report.damaged_count, report.release.as_deref()), (0, Some("v4.2.0")), "{name}");
        assert!(!report.zeroed.is_empty(), "{name}");
        let mo_data = stage.server().join("mo-data");
        assert_shared(&files(&stage.server().join(shared)), &stage.source, framed);
        // The log service's file says nothing of LOCAL: its default is framed, whatever the others do.
        let ids = files(&mo_data.join("local"));
        assert_eq!(ids.keys().collect::<Vec<_>>(), ["hk_data"], "{name}");
        let source = logical(std::fs::read(stage.source.join("hakeeper/hk_data")).unwrap());
        assert!(is_framed(&ids["hk_data"]) && logical(ids["hk_data"].clone()) == source, "{name}");
        let mut places: Vec<_> = std::fs::read_dir(&mo_data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        places.sort();
        assert_eq!(places, ["local", shared.rsplit('/').next().unwrap()], "{name}: nothing else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_in_a_folder_of_a_larger_backup_is_found_and_verbatim_changes_nothing() {
    let test = "a_tree_in_a_folder_of_a_larger_backup_is_found_and_verbatim_changes_nothing";
    let Some(data) = captures(test) else { return };
    let stage = Stage::of_copy(&data.join("framed/raw-full-3"), |top| {
        assert!(
            std::process::Command::new("cp").arg("-r").args([top.join("x"), top.join("y")]).status().unwrap().success()
        );
    })
    .await;
    let error = stage.refused(&StartOptions::default()).await;
    assert!(whole(&error).contains("--tree: x, y"), "{}", whole(&error));
    let options = StartOptions { tree: Some(b"y/".to_vec()), verbatim: true, ..StartOptions::default() };
    let report = stage.start(&options).await.unwrap();
    assert!(
        report.verbatim && report.zeroed.is_empty() && report.remarks.iter().any(|remark| remark.contains("panics"))
    );
    let shared = files(&stage.server().join("mo-data/shared"));
    let shared: BTreeMap<_, _> = shared.into_iter().map(|(name, bytes)| (name, logical(bytes))).collect();
    assert!(shared == wanted(&data.join("framed/raw-full-3/x")));
}

#[tokio::test(flavor = "multi_thread")]
async fn toml_files_given_by_hand_win() {
    let Some(data) = captures("toml_files_given_by_hand_win") else { return };
    let stage = Stage::of(&data.join("framed/fs-full-1")).await;
    let etc = stage.server().join("etc/launch");
    let raw = "[[fileservice]]\nname = \"SHARED\"\nbackend = \"DISK-V2\"\ndata-dir = \"./elsewhere\"\n";
    write(&etc.join("tn.toml"), format!("service-type = \"TN\"\n{raw}").as_bytes());
    write(&etc.join("cn.toml"), format!("service-type = \"CN\"\n{raw}").as_bytes());
    let log = "service-type = \"LOG\"\n[[fileservice]]\nname = \"LOCAL\"\nbackend = \"DISK-V2\"\ndata-dir = \"./ids\"\n\
               [logservice.BootstrapConfig.restore]\nfile-path = \"LOCAL:sub/begin\"\n";
    write(&etc.join("log.toml"), log.as_bytes());
    let launch = "logservices = [\"./etc/launch/log.toml\"]\ntnservices = [\"./etc/launch/tn.toml\"]\ncnservices = [\"./etc/launch/cn.toml\"]\n";
    write(&etc.join("launch.toml"), launch.as_bytes());
    let options = StartOptions { config: vec![etc.join("launch.toml")], ..StartOptions::default() };
    let report = stage.start(&options).await.unwrap();
    assert_shared(&files(&stage.server().join("elsewhere")), &stage.source, false);
    let ids = std::fs::read(stage.server().join("ids/sub/begin")).unwrap();
    assert_eq!(ids, logical(std::fs::read(stage.source.join("hakeeper/hk_data")).unwrap()));
    assert!(report.commands.last().unwrap().ends_with("-launch ./etc/launch/launch.toml"), "{:?}", report.commands);

    // The same by directory, and by single files.
    for config in [vec![etc.clone()], ["log", "tn", "cn"].map(|name| etc.join(format!("{name}.toml"))).to_vec()] {
        std::fs::remove_dir_all(stage.server().join("elsewhere")).unwrap();
        std::fs::remove_dir_all(stage.server().join("ids")).unwrap();
        stage.start(&StartOptions { config, ..StartOptions::default() }).await.unwrap();
        assert!(stage.server().join("elsewhere/ckp").is_dir());
    }

    // A data node's file alone, as mo_br names it: the log service is that of the backup.
    std::fs::remove_dir_all(stage.server().join("elsewhere")).unwrap();
    std::fs::remove_dir_all(stage.server().join("ids")).unwrap();
    let options = StartOptions { config: vec![etc.join("tn.toml")], ..StartOptions::default() };
    let report = stage.start(&options).await.unwrap();
    assert!(report.remarks.iter().any(|remark| remark.contains("log service was named")), "{:?}", report.remarks);
    assert!(stage.server().join("elsewhere/ckp").is_dir() && stage.server().join("mo-data/local/hk_data").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_become_a_server_is_refused_with_the_reason() {
    let Some(data) = captures("what_cannot_become_a_server_is_refused_with_the_reason") else { return };
    let tree = data.join("framed/fs-full-1");
    let cases: [(&str, &[&str]); 3] = [
        ("hakeeper/hk_data", &["hk_data", "ids that others already have"]),
        ("mo_meta", &["mo_meta", "not finished"]),
        ("tae/tae_list", &["tae_list", "not finished"]),
    ];
    for (gone, words) in cases {
        let stage = Stage::of_copy(&tree, |tree| std::fs::remove_file(tree.join(gone)).unwrap()).await;
        let text = whole(&stage.refused(&StartOptions::default()).await);
        assert!(words.iter().all(|word| text.contains(word)), "{gone}: {text}");
    }
    let broken =
        Stage::of_copy(&tree, |tree| std::fs::write(tree.join("hakeeper/hk_data"), b"\xff\xff\xff").unwrap()).await;
    assert_eq!(broken.refused(&StartOptions::default()).await.kind(), ErrorKind::Corrupt);

    // What an incremental tree builds on is not in it.
    let stage = Stage::of(&data.join("framed/fs-incr-2")).await;
    let text = whole(&stage.refused(&StartOptions::default()).await);
    assert!(text.contains("141 of the 248") && text.contains("01a1fc5b-8da0-7b1b-9e3c-f10ddcac0455_00000"), "{text}");

    // A copy of a data directory has no ids.
    let stage = Stage::of(&data.join("framed/shared-3")).await;
    let text = whole(&stage.refused(&StartOptions::default()).await);
    assert!(text.contains("copy of a data directory"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_are_used_filled_outside_or_a_bucket_are_refused() {
    let Some(data) = captures("places_that_are_used_filled_outside_or_a_bucket_are_refused") else { return };
    let stage = Stage::of(&data.join("framed/fs-full-1")).await;
    let with = |text: &str| {
        let path = stage.scene.path("service.toml");
        write(&path, text.as_bytes());
        let log = stage.scene.path("log.toml");
        write(&log, b"service-type = \"LOG\"\n");
        StartOptions { config: vec![path, log], ..StartOptions::default() }
    };
    let bucket = "service-type = \"TN\"\n[[fileservice]]\nname = \"SHARED\"\nbackend = \"S3\"\n[fileservice.s3]\nbucket = \"b\"\nkey-prefix = \"p\"\n";
    let text = whole(&stage.refused(&with(bucket)).await);
    assert!(text.contains("--to-bucket s3://b/p"), "{text}");
    let outside = stage.scene.path("outside");
    let shared =
        format!("[[fileservice]]\nname = \"SHARED\"\nbackend = \"DISK\"\ndata-dir = \"{}\"\n", outside.display());
    let options = with(&format!("service-type = \"TN\"\n{shared}"));
    let text = whole(&stage.refused(&options).await);
    assert!(text.contains("--outside"), "{text}");
    let text = whole(&stage.refused(&StartOptions { config: options.config[..1].to_vec(), ..options.clone() }).await);
    assert!(text.contains("log service") || text.contains("--outside"), "{text}");
    stage.start(&StartOptions { outside: true, ..options }).await.unwrap();
    assert_shared(&files(&outside), &stage.source, true);
    std::fs::remove_dir_all(stage.server()).unwrap();

    for filled in
        ["mo-data/shared/object", "mo-data/local/tnservice/x", "mo-data/logservice-data/x/log", "mo-data/dn-data/x"]
    {
        write(&stage.server().join(filled), b"x");
        let error = stage.start(&StartOptions::default()).await.unwrap_err();
        assert!(whole(&error).contains("not empty"), "{filled}: {}", whole(&error));
        std::fs::remove_dir_all(stage.server()).unwrap();
    }
    // A process that has a file open below: a server that runs.
    let log = stage.server().join("mo-data/logservice-data/x/log");
    write(&log, b"x");
    let stdin = std::fs::File::open(&log).unwrap();
    let mut process = std::process::Command::new("sleep").arg("600").stdin(stdin).spawn().unwrap();
    let error = stage.start(&StartOptions::default()).await.unwrap_err();
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", whole(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_named_and_cured_on_request() {
    let Some(data) = captures("a_hole_is_named_and_cured_on_request") else { return };
    let stage = Stage::of(&data.join("hole/hole")).await;
    let found = check(&stage.scene.repository, &CheckOptions::default(), Arc::new(Silent)).await.unwrap();
    let named = |finding: &Finding| finding.object.contains("01a1fc5c-8420-7187-928f-ba6548475bc9_00000");
    let finding = found.findings.iter().find(|finding| named(finding)).expect("check names the hole");
    assert!(finding.what.contains("does not start") && finding.what.contains("--cure"), "{finding:?}");
    let text = whole(&stage.refused(&StartOptions::default()).await);
    for word in ["--cure", "01a1fc5c-8420-7187-928f-ba6548475bc9_00000", "ckp/meta_0-0_1795235283484972738-1.ckp"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    let report = stage.start(&StartOptions { cure: true, ..StartOptions::default() }).await.unwrap();
    let left_out =
        ["ckp/meta_0-0_1795235283484972738-1.ckp", "ckp/meta_1795235283484972738-1_1795235283994719325-0.ckp"];
    assert_eq!(report.left_out, left_out);
    let shared = files(&stage.server().join("mo-data/shared2"));
    assert!(left_out.iter().all(|name| !shared.contains_key(*name)));
    assert_eq!(shared.keys().filter(|name| name.starts_with("ckp/")).count(), 8);

    // With the objects that the server still had there is nothing to cure.
    let healed = Stage::of_copy(&data.join("hole/hole"), |tree| {
        for entry in std::fs::read_dir(data.join("hole/missing")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, tree.join("tae").join(path.file_name().unwrap())).unwrap();
        }
    })
    .await;
    let found = check(&healed.scene.repository, &CheckOptions::default(), Arc::new(Silent)).await.unwrap();
    assert_eq!(found.finding_count, 0, "{:?}", found.findings);
    let report = healed.start(&StartOptions { cure: true, ..StartOptions::default() }).await.unwrap();
    assert!(report.left_out.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_goes_on_and_never_mixes_states() {
    let Some(data) = captures("a_restore_goes_on_and_never_mixes_states") else { return };
    let stage = Stage::of(&data.join("framed/fs-full-1")).await;
    stage.start(&StartOptions::default()).await.unwrap();
    let shared = stage.server().join("mo-data/shared");
    let object = files(&shared).into_keys().next().unwrap();
    std::fs::remove_file(shared.join(&object)).unwrap();
    let delta = StartOptions { mode: TargetMode::Delta, ..StartOptions::default() };
    let report = stage.start(&delta).await.unwrap();
    assert!(report.bytes_kept > report.bytes_written, "{report:?}");
    assert_shared(&files(&shared), &stage.source, true);

    write(&shared.join("ckp/meta_0-0_9-0.ckp"), b"another state");
    let error = stage.start(&delta).await.unwrap_err();
    assert!(whole(&error).contains("--delete"), "{}", whole(&error));
    stage.start(&StartOptions { delete_extra: true, ..delta }).await.unwrap();
    assert_shared(&files(&shared), &stage.source, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_does_not_read_the_backup_is_warned_of() {
    let Some(data) = captures("a_release_that_does_not_read_the_backup_is_warned_of") else { return };
    let stage = Stage::of(&data.join("framed/fs-full-1")).await;
    let target_release = everpack::matrixone::release::Release::parse("v4.1.4");
    let report = stage.start(&StartOptions { target_release, ..StartOptions::default() }).await.unwrap();
    assert!(report.remarks.iter().any(|remark| remark.contains("v4.1.4 does not read")), "{:?}", report.remarks);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_becomes_a_whole_tree() {
    let Some(data) = captures("a_chain_becomes_a_whole_tree") else { return };
    // The base's objects lie beside the incremental's, as a repository holds them after an import.
    let base = data.join("framed/fs-full-1/tae");
    let stage = Stage::of_copy(&data.join("framed/fs-incr-2"), |tree| {
        let listed = logical(std::fs::read(tree.join("tae/tae_list")).unwrap());
        for row in tree::parse_list(&listed).unwrap().iter().filter(|row| !row.copied) {
            std::fs::copy(base.join(&row.path), tree.join("tae").join(&row.path)).unwrap();
        }
    })
    .await;
    for framed in [false, true] {
        let target = stage.scene.path(if framed { "framed" } else { "raw" });
        let options = ExportOptions { tree: None, framed, mode: TargetMode::New, fast: false, memory: 64 << 20 };
        let silent = Arc::new(Silent);
        let report = export(&stage.scene.repository, &stage.backup, &target, &options, silent).await.unwrap();
        assert_eq!((report.rows_made_own, report.rows_missing, report.damaged_count), (141, 0, 0));
        let files = files(&target);
        for (name, bytes) in &files {
            let in_tae = name.starts_with("tae/") || name.starts_with("hakeeper/");
            assert_eq!(is_framed(bytes), framed && in_tae, "{name}");
        }
        let rows = tree::parse_list(&logical(files["tae/tae_list"].clone())).unwrap();
        assert!(rows.iter().all(|row| row.copied) && rows.len() == 248);
        for row in rows {
            let bytes = logical(files[&format!("tae/{}", row.path)].clone());
            assert_eq!(bytes.len() as u64, row.size, "{}", row.path);
            assert!(row.sha256.is_none_or(|digest| digest == tree::sha256(&bytes)), "{}", row.path);
        }
        for name in ["tae/tae_list", "tae/tae_sum", "hakeeper/hk_data", "mo_meta"] {
            let digest = logical(files[&format!("{name}.sha256")].clone());
            assert_eq!(digest, tree::sha256(&logical(files[name].clone())), "{name}");
        }
        assert_eq!(tree::parse_sum(&logical(files["tae/tae_sum"].clone())).unwrap().kind, "full");
        // What was written is a tree that restores by itself.
        let again = Stage::of(&target).await;
        again.start(&StartOptions::default()).await.unwrap();
    }
    // A tree that lacks its base stays what it is, and says so.
    let alone = Stage::of(&data.join("framed/fs-incr-2")).await;
    let options = ExportOptions { tree: None, framed: false, mode: TargetMode::New, fast: false, memory: 64 << 20 };
    let target = alone.scene.path("alone");
    let report = export(&alone.scene.repository, &alone.backup, &target, &options, Arc::new(Silent)).await.unwrap();
    assert_eq!((report.rows_made_own, report.rows_missing), (0, 141));
    let source = logical(std::fs::read(data.join("framed/fs-incr-2/tae/tae_list")).unwrap());
    assert_eq!(std::fs::read(target.join("tae/tae_list")).unwrap(), source);
}

async fn objects(store: &Store) -> BTreeMap<String, Vec<u8>> {
    let mut objects = BTreeMap::new();
    for object in store.list_sorted(everpack::store::Folder::Root).await.unwrap() {
        objects.insert(object.path.to_string(), store.get(&object.path).await.unwrap().to_vec());
    }
    objects
}

async fn into_bucket(stage: &Stage, store: &Store) {
    let ids = stage.scene.path("ids/hk_data");
    let into = async |options: &StartOptions| {
        to_bucket(&stage.scene.repository, &stage.backup, store, &ids, options, Arc::new(Silent)).await
    };
    let report = into(&StartOptions::default()).await.unwrap();
    assert!(report.damaged_count == 0 && report.hk_data_framed && !report.zeroed.is_empty(), "{report:?}");
    assert_shared(&objects(store).await, &stage.source, false);
    let source = logical(std::fs::read(stage.source.join("hakeeper/hk_data")).unwrap());
    let found = std::fs::read(&ids).unwrap();
    assert!(is_framed(&found) && logical(found) == source);

    assert!(into(&StartOptions::default()).await.is_err(), "neither the file nor the prefix is new");
    std::fs::remove_file(&ids).unwrap();
    let error = into(&StartOptions::default()).await.unwrap_err();
    assert!(whole(&error).contains("not empty"), "{}", whole(&error));
    let delta = StartOptions { mode: TargetMode::Delta, ..StartOptions::default() };
    let report = into(&delta).await.unwrap();
    assert!(report.bytes_kept > report.bytes_written, "{report:?}");
    let stray = ObjectPath::parse("ckp/meta_0-0_9-0.ckp").unwrap();
    store.put_new(stray, vec!["another state".into()]).await.unwrap();
    let error = into(&delta).await.unwrap_err();
    assert!(whole(&error).contains("--delete"), "{}", whole(&error));
    into(&StartOptions { delete_extra: true, ..delta }).await.unwrap();
    assert_shared(&objects(store).await, &stage.source, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_gets_the_tree_raw_and_the_ids_stay_here() {
    let Some(data) = captures("a_bucket_gets_the_tree_raw_and_the_ids_stay_here") else { return };
    let stage = Stage::of(&data.join("framed/fs-full-2")).await;
    into_bucket(&stage, &Store::open("memory:", &StoreOptions::default()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_bucket_gets_the_tree_raw_and_the_ids_stay_here() {
    let test = "a_real_bucket_gets_the_tree_raw_and_the_ids_stay_here";
    let Some(server) = s3::server(test, "EVERPACK_TEST_S3") else { return };
    let Some(data) = captures(test) else { return };
    let stage = Stage::of(&data.join("shop/full-2")).await;
    into_bucket(&stage, &Store::open(&server.url("to-bucket"), &server.options).unwrap()).await;
}

/// A drill with the stand-in for a server.
async fn drilled(data: &Path, mode: &str, change: impl FnOnce(&mut DrillOptions)) -> (DrillReport, Stage) {
    let stage = Stage::of(&data.join("framed/fs-full-1")).await;
    let binary = stage.scene.path("mo-service");
    let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake-mo-service.py");
    std::fs::write(&binary, format!("#!/bin/sh\nexec python3 '{}' {mode} \"$@\"\n", fake.display())).unwrap();
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    let scratch = stage.scene.path("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let queries = stage.scene.path("queries.sql");
    std::fs::write(&queries, "select count(*) from shop.orders;\n").unwrap();
    let expect = stage.scene.path("expect.json");
    std::fs::write(&expect, r#"{"sys": {"shop.orders": [7, 70, 1, 20]}}"#).unwrap();
    let mut options = DrillOptions::new(binary, &scratch);
    options.query_file = Some(queries);
    options.expect = Some(expect);
    change(&mut options);
    let report = drill(&stage.scene.repository, &stage.backup, &options, Arc::new(Silent)).await.unwrap();
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "the scratch directory is empty again");
    (report, stage)
}

fn failed(report: &DrillReport) -> Vec<&str> {
    assert!(!report.ok);
    report.steps.iter().filter(|step| !step.ok).map(|step| step.what.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_starts_asks_and_restarts() {
    let Some(data) = captures("a_drill_starts_asks_and_restarts") else { return };
    let (report, _stage) = drilled(data, "good", |_| {}).await;
    assert!(report.ok, "{report:#?}");
    assert_eq!((report.backend, report.steps.len()), (DrillBackend::Disk, 13), "{report:#?}");
    assert!(report.queries.iter().all(|query| query.same && query.rows == [[Some("7".to_owned())]]));
    assert_eq!(report.tables.unwrap().same, 1);
    let (report, _stage) = drilled(data, "good", |options| options.backend = Some(DrillBackend::DiskV2)).await;
    assert!(report.ok, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_tells_what_a_server_does_wrong() {
    let Some(data) = captures("a_drill_tells_what_a_server_does_wrong") else { return };
    let (report, _stage) = drilled(data, "panics", |_| {}).await;
    assert_eq!(failed(&report), ["start again"]);
    assert!(report.steps.last().unwrap().message.contains("current lsn 221"), "{report:#?}");
    let (report, _stage) = drilled(data, "forgets", |_| {}).await;
    assert_eq!(failed(&report), ["ask again", "ask once more"]);
    let (report, _stage) = drilled(data, "lies", |_| {}).await;
    assert_eq!(failed(&report), ["ask again", "ask once more"]);
    let (report, _stage) = drilled(data, "mute", |options| options.patience = Duration::from_secs(1)).await;
    assert_eq!(failed(&report), ["start"]);
    let (report, _stage) = drilled(data, "dies", |_| {}).await;
    assert_eq!(failed(&report).last(), Some(&"stay"), "{report:#?}");
    let (report, stage) = drilled(data, "good", |options| {
        let expect = options.expect.clone().unwrap();
        std::fs::write(expect, r#"{"sys": {"shop.orders": [8, 70, 1, 20]}}"#).unwrap();
    })
    .await;
    assert!(!report.ok && report.tables.unwrap().different[0].what.contains("7 70 1 20 instead of 8 70 1 20"));
    let mut options = DrillOptions::new("/does/not/exist", stage.scene.path("scratch"));
    options.patience = Duration::from_secs(1);
    let error = drill(&stage.scene.repository, &stage.backup, &options, Arc::new(Silent)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
