//! The lists and sums that a `BACKUP` writes beside the data, and `mo_br`'s names around them.
//!
//! All bytes here are logical: whoever reads a file takes the checksum framing off first. Lists of releases up to 1.1.3 have fewer columns;
//! what they lack is `None`, or what it was then.

use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};
use crate::tae::{ReadAt, TaeName, Ts};

/// The list of everything in `tae/`, relative to the root of a tree.
pub const TAE_LIST: &str = "tae/tae_list";
/// The one line that sums a backup up.
pub const TAE_SUM: &str = "tae/tae_sum";
/// The last file a server writes, before its digest.
pub const MO_META: &str = "mo_meta";
/// Ids that the log service hands out next.
pub const HK_DATA: &str = "hakeeper/hk_data";
/// Objects that whoever asked for the backup promises to supply.
pub const FILE_LIST: &str = "tae/file_list";
/// What `mo_br` writes into a tree of its own.
pub const BACKUP_META: &str = "backup_meta";
/// Appended to the name of a file, the name of its raw SHA-256.
pub const SHA256_SUFFIX: &str = ".sha256";

/// Bytes hashed at a time.
const DIGEST_WINDOW: usize = 1 << 20;

/// True for what tells a server which objects it need not copy: `file_index_….idx` in the root of a tree, and `tae/file_list`. It is no part of the
/// backup, and would tell another server a lie.
pub(crate) fn is_request(path: &[u8]) -> bool {
    let is_index = path.starts_with(b"file_index_") && path.ends_with(b".idx") && !path.contains(&b'/');
    is_index || path == FILE_LIST.as_bytes()
}

/// One row of `tae_list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Relative to `tae/`: an object, `ckp/…` or `gc/…`.
    pub path: String,
    /// Logical bytes.
    pub size: u64,
    /// Of the logical bytes; `None` where the server does not say.
    pub sha256: Option<[u8; 32]>,
    /// True if the file belongs to this very tree; false if an earlier one holds it.
    pub copied: bool,
    /// When the object was created, or the time of the backup.
    pub ts: Option<Ts>,
}

impl ListedFile {
    /// The object's name, unless it is something else.
    pub fn object(&self) -> Option<TaeName> {
        TaeName::parse(self.path.as_bytes())
    }
}

/// Reads `tae_list`, row by row.
///
/// Fails with `Corrupt` on a row that is not one, and on a path that leads out of `tae/`. A row may stand twice.
pub fn list_rows(list: impl std::io::Read) -> impl Iterator<Item = Result<ListedFile>> {
    csv_rows(list).enumerate().map(|(at, record)| {
        let record = record.context(|| "tae_list")?;
        listed_file(&record).ok_or_else(|| {
            let row = at + 1;
            Error::corrupt(format!("tae_list: row {row} is not a path, a size, a SHA-256, a flag and a timestamp"))
        })
    })
}

/// Reads a whole `tae_list`.
pub fn parse_list(bytes: &[u8]) -> Result<Vec<ListedFile>> {
    list_rows(bytes).collect()
}

fn listed_file(record: &csv::ByteRecord) -> Option<ListedFile> {
    let text = |at: usize| std::str::from_utf8(record.get(at)?).ok();
    let path = text(0)?;
    let safe =
        !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let sha256 = match text(2)? {
        "" => None,
        hex => Some(digest_of_hex(hex)?),
    };
    let copied = match text(3) {
        Some("true") | None => true,
        Some("false") => false,
        Some(_) => return None,
    };
    let ts = match record.get(4) {
        Some(ts) => Some(Ts::parse(ts)?),
        None => None,
    };
    safe.then_some(ListedFile { path: path.to_owned(), size: text(1)?.parse().ok()?, sha256, copied, ts })
}

/// Writes a `tae_list`, as a server does.
pub fn write_list(rows: &[ListedFile]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    for row in rows {
        let sha256 = row.sha256.map(|digest| hex_of_digest(&digest)).unwrap_or_default();
        let ts = row.ts.map(|ts| ts.to_string()).unwrap_or_default();
        let record =
            [row.path.as_str(), &row.size.to_string(), &sha256, if row.copied { "true" } else { "false" }, &ts];
        writer.write_record(record).expect("writing to memory cannot fail");
    }
    writer.into_inner().expect("writing to memory cannot fail")
}

/// What `tae_sum` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSum {
    /// `YYYY-MM-DD HH:MM:SS`, UTC.
    pub time: String,
    /// Logical bytes of all rows of the list, those of earlier trees included.
    pub bytes: u64,
    /// The moment that a restored server shows; the next incremental backup begins here. `None` up to release 1.1.3.
    pub ts: Option<Ts>,
    /// What the statement said after TYPE: `full`, `incremental`, or anything.
    pub kind: String,
}

/// Reads `tae_sum`.
pub fn parse_sum(bytes: &[u8]) -> Result<BackupSum> {
    let wrong = || Error::corrupt("tae_sum: it is not a time, a size, a timestamp and a type");
    let record = csv_rows(bytes).next().ok_or_else(wrong)?.context(|| "tae_sum")?;
    let text = |at: usize| record.get(at).and_then(|field| std::str::from_utf8(field).ok());
    let ts = match record.get(2) {
        Some(ts) => Some(Ts::parse(ts).ok_or_else(wrong)?),
        None => None,
    };
    Ok(BackupSum {
        time: text(0).ok_or_else(wrong)?.to_owned(),
        bytes: text(1).and_then(|size| size.parse().ok()).ok_or_else(wrong)?,
        ts,
        kind: text(3).unwrap_or("full").to_owned(),
    })
}

/// Writes a `tae_sum`, as a server does.
pub fn write_sum(sum: &BackupSum) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    let ts = sum.ts.map(|ts| ts.to_string()).unwrap_or_default();
    let record = [sum.time.as_str(), &sum.bytes.to_string(), &ts, &sum.kind];
    writer.write_record(record).expect("writing to memory cannot fail");
    writer.into_inner().expect("writing to memory cannot fail")
}

/// One row of `mo_meta`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaRow {
    /// `version`, `buildinfo` or `launchconfig`.
    pub kind: String,
    /// The version, the build, or whose configuration: `launch`, `log`, `dn`, `cn`, `proxy`.
    pub subject: String,
    /// The file in `config/`.
    pub file: String,
}

/// Reads `mo_meta`.
pub fn parse_meta(bytes: &[u8]) -> Result<Vec<MetaRow>> {
    let row = |record: Result<csv::ByteRecord>| {
        let record = record.context(|| "mo_meta")?;
        let text =
            |at: usize| record.get(at).map(|field| String::from_utf8_lossy(field).into_owned()).unwrap_or_default();
        Ok(MetaRow { kind: text(0), subject: text(1), file: text(2) })
    };
    csv_rows(bytes).map(row).collect()
}

/// The release that `mo_meta` tells.
pub fn release_of_meta(rows: &[MetaRow]) -> Option<super::release::Release> {
    let build = rows.iter().find(|row| row.kind == "buildinfo")?;
    let version = build.subject.split('|').find_map(|part| part.trim().strip_prefix("Version:"))?;
    super::release::Release::parse(version.trim())
}

fn csv_rows(bytes: impl std::io::Read) -> impl Iterator<Item = Result<csv::ByteRecord>> {
    let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    reader.into_byte_records().map(|record| {
        record.map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => match error.downcast::<Error>() {
                Ok(own) => own,
                Err(error) => Error::io("read", error),
            },
            _ => Error::corrupt("it is no list of comma-separated values"),
        })
    })
}

/// What lies in `hk_data`: the ids that are handed out next. Without it a restored server hands out ids that tables already have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextIds {
    /// The next id of anything without a key of its own.
    pub next: u64,
    /// The keys that have one.
    pub keys: usize,
}

/// Reads `hk_data`, a protobuf message; fails with `Corrupt` if it is none.
pub fn parse_next_ids(bytes: &[u8]) -> Result<NextIds> {
    let mut ids = NextIds::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let tag = varint(&mut rest).ok_or_else(broken_ids)?;
        match (tag >> 3, tag & 7) {
            (field, 0) => {
                let value = varint(&mut rest).ok_or_else(broken_ids)?;
                if field == 1 {
                    ids.next = value;
                }
            }
            (field, 2) => {
                let len = varint(&mut rest).and_then(|len| usize::try_from(len).ok()).ok_or_else(broken_ids)?;
                rest = rest.get(len..).ok_or_else(broken_ids)?;
                ids.keys += usize::from(field == 2);
            }
            _ => return Err(broken_ids()),
        }
    }
    Ok(ids)
}

fn broken_ids() -> Error {
    Error::corrupt("hk_data: it is not the message that a log service writes")
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// SHA-256 of a file of any size; `advance` is told of the bytes as they are read.
pub(crate) fn digest_of(file: &dyn ReadAt, advance: &mut dyn FnMut(u64)) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; usize::try_from(file.len()).unwrap_or(usize::MAX).min(DIGEST_WINDOW)];
    let mut at = 0;
    while at < file.len() {
        let len = usize::try_from(file.len() - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(at, &mut buffer[..len])?;
        hash.update(&buffer[..len]);
        at += len as u64;
        advance(len as u64);
    }
    Ok(hash.finalize().into())
}

/// SHA-256, as a server writes it beside its lists.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lower-case hexadecimal digits.
pub fn hex_of_digest(digest: &[u8; 32]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The digest that 64 hexadecimal digits spell.
pub fn digest_of_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "01a1fc5b-95b0-75b5-8bd6-99e818bbccfd_00000,915,30c02cb4694ffc29c561b091eb875122cb46fba75aa93234ca8f01cfd2da3d84,true,1795235222960374816-0\n\
        ckp/meta_0-0_17-0.ckp,3021,,false,17-1\n";

    #[test]
    fn lists_come_back() {
        let rows = parse_list(LIST.as_bytes()).unwrap();
        assert_eq!(rows.len(), 2);
        assert!(rows[0].copied && rows[0].sha256.is_some() && rows[0].object().is_some());
        assert!(!rows[1].copied && rows[1].sha256.is_none() && rows[1].object().is_none());
        assert_eq!(write_list(&rows), LIST.as_bytes());
    }

    #[test]
    fn old_lists_have_three_columns() {
        let rows = parse_list(b"a_00000,7,\n").unwrap();
        assert_eq!((rows[0].copied, rows[0].ts), (true, None));
    }

    #[test]
    fn rows_that_are_none_are_refused() {
        for row in [
            "../x,1,,true,1-1",
            "/x,1,,true,1-1",
            "x,y,,true,1-1",
            "x,1,abc,true,1-1",
            "x,1,,maybe,1-1",
            "x,1,,true,z",
            "x",
            ",1,,",
        ] {
            let error = parse_list(row.as_bytes()).unwrap_err();
            assert!(error.message().contains("row 1"), "{row}: {error}");
        }
    }

    #[test]
    fn sums_are_read() {
        let sum = parse_sum(b"2026-11-21 04:27:10,4616076,1795235230619707089-1,full\n").unwrap();
        assert_eq!(
            (sum.bytes, sum.kind.as_str(), sum.ts.unwrap().to_string().as_str()),
            (4_616_076, "full", "1795235230619707089-1")
        );
        assert_eq!(parse_sum(b"2023-01-01 00:00:00,12\n").unwrap().ts, None);
        for wrong in ["", "x", "x,y", "x,1,2"] {
            assert!(parse_sum(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn builds_tell_their_release() {
        let meta = b"version,0823,\nbuildinfo,GoVersion: go version go1.26|BranchName: HEAD|CommitID: 01ae8eca8|BuildTime: 17|Version: v4.2.0,\n";
        let release = release_of_meta(&parse_meta(meta).unwrap());
        assert_eq!(release.unwrap().to_string(), "v4.2.0");
    }

    #[test]
    fn next_ids_are_read() {
        let bytes = b"\x08\xf4\xd3\x10\x12\x0e\x0a\x09index_key\x10\xac\x02";
        assert_eq!(parse_next_ids(bytes).unwrap(), NextIds { next: 272_884, keys: 1 });
        for len in 1..bytes.len() {
            // A message may end after any field; nothing else may be believed.
            let _either = parse_next_ids(&bytes[..len]);
        }
        assert!(parse_next_ids(b"\x12\xff").is_err() && parse_next_ids(b"not a message").is_err());
    }
}
