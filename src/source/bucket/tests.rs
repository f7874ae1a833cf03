//! A bucket that is a map: order, names, ranges and changes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use futures::stream;
use tokio::runtime::Runtime;

/// Bytes, etag and time of an object.
type FakeObject = (Vec<u8>, Option<String>, i64);

struct Fake {
    objects: Mutex<BTreeMap<String, FakeObject>>,
    /// The order of the listing; that of the map if empty.
    order: Vec<String>,
    in_order: bool,
    requests: Mutex<Vec<Range<u64>>>,
    short: bool,
}

impl Fake {
    fn new(objects: &[(&str, &[u8])]) -> Self {
        let objects = objects.iter().map(|(key, bytes)| {
            let etag = format!("\"{}\"", blake3::hash(bytes));
            ((*key).to_owned(), (bytes.to_vec(), Some(etag), 1_500_000_000_123_000_000))
        });
        Self {
            objects: Mutex::new(objects.collect()),
            order: Vec::new(),
            in_order: true,
            requests: Mutex::default(),
            short: false,
        }
    }

    fn object(&self, key: &str) -> Option<(BucketObject, Vec<u8>)> {
        let objects = self.objects.lock().unwrap();
        let (bytes, etag, time) = objects.get(key)?;
        let object = BucketObject {
            key: key.to_owned(),
            size: bytes.len() as u64,
            last_modified: Timestamp::from_nanos(*time),
            etag: etag.clone(),
        };
        Some((object, bytes.clone()))
    }
}

#[async_trait]
impl BucketAccess for Fake {
    fn location(&self) -> String {
        "s3://bucket/prefix".to_owned()
    }

    fn lists_in_order(&self) -> bool {
        self.in_order
    }

    fn list(&self) -> BoxStream<'static, Result<BucketObject>> {
        let keys: Vec<String> = match self.order.is_empty() {
            true => self.objects.lock().unwrap().keys().cloned().collect(),
            false => self.order.clone(),
        };
        let objects: Vec<_> = keys.iter().map(|key| Ok(self.object(key).unwrap().0)).collect();
        stream::iter(objects).boxed()
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<(BucketObject, Bytes)> {
        self.requests.lock().unwrap().push(range.clone());
        let (mut object, bytes) = self.object(key).ok_or_else(|| Error::new(ErrorKind::NotFound, "gone"))?;
        // As HTTP has it.
        object.last_modified = Timestamp::from_nanos(object.last_modified.as_nanos() / 1_000_000_000 * 1_000_000_000);
        let end = if self.short { range.end - 1 } else { range.end };
        let range = usize::try_from(range.start).unwrap()..usize::try_from(end).unwrap();
        Ok((object, Bytes::from(bytes).slice(range)))
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

fn source(runtime: &Runtime, fake: &Arc<Fake>, range_len: u64) -> BucketSource {
    let options = BucketOptions { range_len, read_ahead: 2 };
    BucketSource::with_ranges(Arc::clone(fake) as _, runtime.handle().clone(), options).unwrap()
}

fn all(source: &mut BucketSource) -> Result<Vec<SourceEntry>> {
    let mut entries = Vec::new();
    loop {
        let batch = source.next_batch(2)?;
        if batch.is_empty() {
            return Ok(entries);
        }
        entries.extend(batch);
    }
}

fn paths(entries: &[SourceEntry]) -> Vec<&str> {
    entries.iter().map(|entry| std::str::from_utf8(&entry.path).unwrap()).collect()
}

#[test]
fn keys_that_are_no_paths_are_left_out_by_name() {
    let keys = ["../x", "/y", "a", "a-b", "a/b", "a/b/c", "b//c", "c/../d", "d/", "e/", "f/g", "f/./h", "f0"];
    let objects: Vec<(&str, &[u8])> =
        keys.iter().map(|key| (*key, if *key == "d/" { b"".as_slice() } else { b"x" })).collect();
    let runtime = runtime();
    let fake = Arc::new(Fake::new(&objects));
    let mut source = source(&runtime, &fake, 8);
    assert_eq!(paths(&all(&mut source).unwrap()), ["a", "a-b", "f/g", "f0"]);
    let skipped = source.skipped();
    assert_eq!(skipped.directory_markers.names, ["d/"]);
    let below = ["a/b: a is an object itself", "a/b/c: a is an object itself"];
    let names = ["../x", "/y", below[0], below[1], "b//c", "c/../d", "e/", "f/./h"];
    assert_eq!(skipped.unsafe_names.names, names);
    assert_eq!(skipped.failures(), 8);
}

#[test]
fn a_store_out_of_order_is_sorted_if_it_says_so_and_refused_if_not() {
    let runtime = runtime();
    let mut fake = Fake::new(&[("a", b"1"), ("b", b"2"), ("c", b"3")]);
    fake.order = ["b", "a", "c"].map(str::to_owned).to_vec();
    fake.in_order = false;
    let mut fake = Arc::new(fake);
    assert_eq!(paths(&all(&mut source(&runtime, &fake, 8)).unwrap()), ["a", "b", "c"]);
    Arc::get_mut(&mut fake).expect("the source is gone").in_order = true;
    let error = all(&mut source(&runtime, &fake, 8)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("a after b"), "{error}");
}

#[test]
fn a_file_is_read_in_ranges_each_asked_for_once() {
    let runtime = runtime();
    let content: Vec<u8> = (0..100u8).collect();
    let fake = Arc::new(Fake::new(&[("file", &content), ("empty", b"")]));
    let mut source = source(&runtime, &fake, 8);
    let entries = all(&mut source).unwrap();
    let file = source.reader().open(&entries[1]).unwrap();
    assert_eq!(file.len(), 100);
    let mut read = Vec::new();
    let mut buf = [0; 11];
    loop {
        let count = file.read_at(read.len() as u64, &mut buf).unwrap();
        read.extend_from_slice(&buf[..count]);
        if count < buf.len() {
            break;
        }
    }
    assert_eq!(read, content);
    assert!(file.verify_unchanged().unwrap());
    let mut requests = fake.requests.lock().unwrap().clone();
    requests.sort_by_key(|range| range.start);
    let expected: Vec<Range<u64>> = (0..13).map(|block| block * 8..(block * 8 + 8).min(100)).collect();
    assert_eq!(requests, expected);
    // Anywhere, in any order, and beyond the end.
    for (offset, len) in [(50, 30), (3, 4), (99, 11), (100, 5), (u64::MAX, 5)] {
        let mut buf = vec![0; len];
        let count = file.read_at(offset, &mut buf).unwrap();
        let start = usize::try_from(offset).unwrap_or(100).min(100);
        assert_eq!(buf[..count], content[start..(start + len).min(100)]);
    }
    let empty = source.reader().open(&entries[0]).unwrap();
    assert_eq!(empty.read_at(0, &mut buf).unwrap(), 0);
}

#[test]
fn another_version_of_an_object_is_not_read() {
    let runtime = runtime();
    let fake = Arc::new(Fake::new(&[("a", b"12345678abcdefgh"), ("b", b"12345678abcdefgh"), ("c", b"x")]));
    fake.objects.lock().unwrap().get_mut("b").unwrap().1 = None;
    let mut source = source(&runtime, &fake, 8);
    let entries = all(&mut source).unwrap();
    let mut buf = [0; 8];
    // With the name of its content, and without: then the time tells.
    for entry in &entries[..2] {
        let file = source.reader().open(entry).unwrap();
        assert_eq!(file.read_at(0, &mut buf).unwrap(), 8);
    }
    for object in fake.objects.lock().unwrap().values_mut() {
        object.1 = object.1.as_ref().map(|etag| etag.replace('"', "#"));
        object.2 += 2_000_000_000;
    }
    for entry in &entries[..2] {
        let file = source.reader().open(entry).unwrap();
        let error = file.read_at(8, &mut buf).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    }
    fake.objects.lock().unwrap().remove("c");
    let error = source.reader().open(&entries[2]).unwrap().read_at(0, &mut buf).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_short_reply_is_an_error() {
    let runtime = runtime();
    let mut fake = Fake::new(&[("a", b"12345678")]);
    fake.short = true;
    let fake = Arc::new(fake);
    let mut source = source(&runtime, &fake, 8);
    let entries = all(&mut source).unwrap();
    let error = source.reader().open(&entries[0]).unwrap().read_at(0, &mut [0; 8]).unwrap_err();
    assert!(error.message().contains("7 of 8 bytes"), "{error}");
}

#[test]
fn identity_follows_content() {
    let object = |key: &str, etag: &str, size, time| BucketObject {
        key: key.to_owned(),
        size,
        last_modified: Timestamp::from_nanos(time),
        etag: Some(etag.to_owned()),
    };
    let identity = object("k", "e", 1, 1).identity();
    assert_eq!(identity, object("k", "e", 1, 1).identity());
    for other in [object("k2", "e", 1, 1), object("k", "f", 1, 1), object("k", "e", 2, 1), object("k", "e", 1, 2)] {
        assert_ne!(identity, other.identity());
    }
}
