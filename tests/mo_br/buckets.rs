//! The same in a bucket; skipped, said aloud, where no S3 server is named.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use everpack::store::{ObjectPath, Store};
use everpack::testing::data::captures;
use everpack::testing::s3::{Server, server};

use crate::support::{Place, Ran, ran};

const ID: &str = "018f7a41-1881-7999-bbd6-858c3d4acc18";

/// The flags that name a prefix, in one of the families.
fn flags(server: &Server, family: &str, prefix: &str) -> Vec<String> {
    let value = |text: &Option<String>| text.clone().unwrap();
    let options = &server.options;
    let kind = if family == "restore_" { "--restore_dir" } else { "--backup_dir" };
    let flag = |name: &str, value: String| [format!("--{family}{name}"), value];
    let mut flags = vec![kind.to_owned(), "s3".to_owned(), format!("--{family}is_minio")];
    flags.extend(flag("endpoint", value(&options.endpoint)));
    flags.extend(flag("access_key_id", value(&options.access_key)));
    flags.extend(flag("secret_access_key", value(&options.secret_key)));
    flags.extend(flag("bucket", format!("\"{}\"", server.bucket)));
    flags.extend(flag("filepath", format!("/{prefix}")));
    flags.extend(flag("region", "us-east-1".to_owned()));
    flags
}

fn upload(store: &Store, top: &Path, prefix: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut todo = vec![top.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                todo.push(entry.path());
                continue;
            }
            let name = format!("{prefix}/{}", entry.path().strip_prefix(top).unwrap().display());
            let bytes = Bytes::from(std::fs::read(entry.path()).unwrap());
            runtime.block_on(store.put_new(ObjectPath::parse(&name).unwrap(), vec![bytes])).unwrap();
        }
    }
}

/// everpack with a repository in the bucket.
fn everpack(place: &Place, server: &Server, repository: &str, words: &[&str]) -> Ran {
    let mut command = place.command(env!("CARGO_BIN_EXE_everpack"), words);
    command
        .env("EVERPACK_REPO", repository)
        .env("EVERPACK_S3_ENDPOINT", server.options.endpoint.as_ref().unwrap())
        .env("EVERPACK_S3_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", server.options.access_key.as_ref().unwrap())
        .env("AWS_SECRET_ACCESS_KEY", server.options.secret_key.as_ref().unwrap());
    ran(command)
}

#[test]
fn trees_and_repositories_in_a_bucket_are_as_good_as_on_a_disk() {
    let test = "trees_and_repositories_in_a_bucket_are_as_good_as_on_a_disk";
    let (Some(data), Some(server)) = (captures(test), server(test, "EVERPACK_TEST_S3")) else { return };
    let place = Place::new();
    let top = server.url("mo_br");
    let top = top.strip_prefix(&format!("s3://{}/", server.bucket)).unwrap().to_owned();
    let store = Arc::new(Store::open(&format!("s3://{}", server.bucket), &server.options).unwrap());
    upload(&store, &data.join("framed/raw-full-1/x"), &format!("{top}/tree"));

    // A tree that a server wrote into a bucket: checked and restored as it is.
    let from = flags(&server, "backup_", &format!("{top}/tree"));
    let from: Vec<&str> = from.iter().map(String::as_str).collect();
    let checked = place.run(&[&["check"], &from[..]].concat()).expect(0).out;
    assert!(checked.starts_with("check: /mo_meta\ncheck: hakeeper/hk_data\n"), "{checked}");
    let to = ["--restore_dir", "filesystem", "--restore_path", "target"];
    let restored = place.run(&[&["restore"], &from[..], &to].concat()).expect(0).out;
    assert!(restored.starts_with("From:\n    BackupDir: s3\n"), "{restored}");
    assert!(place.path("target/mo-data").is_dir());

    // Imported into a repository in the bucket, found by the flags that name it.
    let repository = format!("s3://{}/{top}/repo", server.bucket);
    everpack(&place, &server, &repository, &["init"]).expect(0);
    let tree = format!("s3://{}/{top}/tree", server.bucket);
    everpack(&place, &server, &repository, &["import", &tree, "--tag", &format!("mo_br:{ID}")]).expect(0);
    let to = flags(&server, "", &format!("{top}/repo"));
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    place.run(&[&["repair_index"], &to[..]].concat()).expect(0);
    let list = place.run(&["list"]).expect(0).out;
    // Scripts look for the path in the fifth line of the cell.
    let fifth = list.lines().skip_while(|line| !line.contains(ID)).nth(4).unwrap();
    assert_eq!(fifth.split('|').nth(3).unwrap().trim(), format!("/{top}/repo"), "{list}");
    let meta = std::fs::read_to_string(place.path("mo_br.meta")).unwrap();
    for secret in [&server.options.access_key, &server.options.secret_key] {
        assert!(!meta.contains(secret.as_ref().unwrap()), "{meta}");
    }
    let keys = [
        "--access_key_id",
        server.options.access_key.as_ref().unwrap(),
        "--secret_access_key",
        server.options.secret_key.as_ref().unwrap(),
    ];
    let listed = place.run(&[&["list", ID], &keys[..]].concat()).expect(0).out;
    assert!(listed.contains("\ncheck: /backup_meta\ncheck: /mo_meta\n"), "{listed}");
    let target = flags(&server, "restore_", &format!("{top}/shared"));
    let target: Vec<&str> = target.iter().map(String::as_str).collect();
    place.run(&[&["restore", ID], &keys[..], &target[..]].concat()).expect(0);
    place.run(&[&["delete", ID], &keys[..]].concat()).expect(0);
    assert!(place.run(&["list"]).expect(0).out.lines().count() == 4);
}
