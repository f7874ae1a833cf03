//! The catalogue: what is written is read, what others wrote stays, and damage is told.

use super::*;

fn record(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        size: 12_345,
        place: Place::Filesystem("/backup/\"a\", b".into()),
        begun: Some(Timestamp::from_nanos(1_715_745_404_915_410_001)),
        duration: Some(1_700_945_333),
        finished: Some(Timestamp::from_nanos(1_715_745_406_615_410_001)),
        backup_ts: "1715745404915410000-1".to_owned(),
        kind: "full".to_owned(),
        repository: String::new(),
        backup: "ab".repeat(32),
    }
}

fn in_s3(id: &str) -> Record {
    let s3 = S3Place {
        endpoint: "http://127.0.0.1:9000".to_owned(),
        bucket: "b".to_owned(),
        filepath: "/backup1".to_owned(),
        is_minio: true,
        ..S3Place::default()
    };
    Record { place: Place::S3(s3), kind: "incremental".to_owned(), repository: "s3://r/x".to_owned(), ..record(id) }
}

#[test]
fn lines_come_back() {
    for record in
        [record("a"), in_s3("b"), Record { begun: None, duration: None, backup: String::new(), ..record("c") }]
    {
        let line = record.to_line();
        assert!(line.starts_with(&format!("{},", record.id)) && !line.contains('\n'), "{line}");
        assert_eq!(MetaLine::parse(&line), MetaLine::Ours(record));
    }
}

#[test]
fn the_catalogue_and_its_digest_change_together() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("deep/x.meta");
    let name = path.to_str().unwrap();
    assert!(Catalogue::read(Some(name)).unwrap().lines.is_empty());
    Catalogue::lock(Some(name)).unwrap().add(record("a")).unwrap();
    Catalogue::lock(Some(name)).unwrap().add(in_s3("b")).unwrap();
    let text = std::fs::read(&path).unwrap();
    let digest = std::fs::read_to_string(scratch.path().join("deep/x.meta.sha256")).unwrap();
    assert_eq!((digest.len(), digest), (64, hex_of_digest(&sha256(&text))));
    let mut catalogue = Catalogue::lock(Some(name)).unwrap();
    assert_eq!(catalogue.find("B").map(MetaLine::id), Some("b"));
    catalogue.remove("a").unwrap();
    drop(catalogue);
    assert_eq!(Catalogue::read(Some(name)).unwrap().lines, [MetaLine::Ours(in_s3("b"))]);
    let names = std::fs::read_dir(scratch.path().join("deep")).unwrap().count();
    assert_eq!(names, 2, "nothing is left beside the two");
}

#[test]
fn lines_of_others_are_kept_byte_for_byte() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("mo_br.meta");
    let foreign =
        "25536ff0-126f-11ef-9902-26dd28356ef3, \"odd\",x,,full,\"unfinished\n81531c5a-1284-11ef-9ba3-26dd28356ef3;;\n";
    std::fs::write(&path, foreign).unwrap();
    let mut catalogue = Catalogue::lock(scratch.path().to_str()).unwrap();
    assert!(catalogue.lacks_digest);
    assert!(catalogue.find("25536ff0-126f-11ef-9902-26dd28356ef3").is_some());
    catalogue.add(record("a")).unwrap();
    drop(catalogue);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("{foreign}{}\n", record("a").to_line()));
}

#[test]
fn a_wrong_digest_is_told_with_what_to_do() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("mo_br.meta");
    let name = path.to_str();
    Catalogue::lock(name).unwrap().add(record("a")).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for len in [0, 10, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        let error = Catalogue::read(name).unwrap_err();
        assert!(error.message().contains("sha256sum") && error.message().contains("repair_index"), "{error}");
    }
    std::fs::write(&path, &whole).unwrap();
    std::fs::write(scratch.path().join("mo_br.meta.sha256"), "0".repeat(64)).unwrap();
    assert_eq!(Catalogue::read(name).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn an_interrupted_change_is_finished() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("mo_br.meta");
    let name = path.to_str();
    Catalogue::lock(name).unwrap().add(record("a")).unwrap();
    let old = std::fs::read(&path).unwrap();
    Catalogue::lock(name).unwrap().add(record("b")).unwrap();
    // Killed between the two names: the digest is the new one, the catalogue waits beside the old one.
    std::fs::copy(&path, waiting(&path)).unwrap();
    std::fs::write(&path, old).unwrap();
    assert_eq!(Catalogue::read(name).unwrap().lines.len(), 2);
    assert!(!waiting(&path).exists());
}
