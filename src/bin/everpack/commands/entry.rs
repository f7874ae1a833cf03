//! Entries of backups as commands show them.

use everpack::clock::Timestamp;
use everpack::id::FileHash;
use everpack::repo::{Entry, EntryKind, FileFormat, Transform};
use everpack::source::display_path;

/// An entry in JSON. Bytes of the path that are not printable UTF-8 are written `\xNN`.
#[derive(serde::Serialize)]
pub(crate) struct EntryView {
    pub(crate) path: String,
    kind: EntryKind,
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<FileHash>,
    transform: Transform,
    format: FileFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_target: Option<String>,
}

impl From<&Entry> for EntryView {
    fn from(entry: &Entry) -> Self {
        Self {
            path: display_path(&entry.path),
            kind: entry.kind,
            size: entry.size,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            hash: (entry.kind == EntryKind::File).then_some(entry.hash),
            transform: entry.transform,
            format: entry.format,
            link_target: (entry.kind == EntryKind::Symlink).then(|| display_path(&entry.link_target)),
        }
    }
}

/// The name as `ls` shows it: a `/` behind a directory, `-> target` behind a link in a long line.
pub(crate) fn name(entry: &Entry) -> String {
    let mut name = display_path(&entry.path);
    if entry.kind == EntryKind::Directory {
        name.push('/');
    }
    name
}

/// `-rw-r-----  1000:1000     1.2 MiB  2026-11-21 04:26:52 +00:00  tae/x`.
pub(crate) fn long_line(entry: &Entry) -> String {
    let size = if entry.kind == EntryKind::File { everpack::units::bytes(entry.size) } else { "-".to_owned() };
    let owner = format!("{}:{}", entry.uid, entry.gid);
    let mut line = format!("{}  {owner:<11} {size:>9}  {}  {}", mode(entry), entry.mtime.to_local(), name(entry));
    if entry.kind == EntryKind::Symlink {
        line.push_str(" -> ");
        line.push_str(&display_path(&entry.link_target));
    }
    line
}

fn mode(entry: &Entry) -> String {
    let kind = match entry.kind {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
    };
    let mut text = String::with_capacity(10);
    text.push(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (entry.mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}
