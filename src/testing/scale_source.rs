//! A source of any number of files that are nowhere: named, sized and filled by their numbers.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::source::{EntryKind, OpenFile, Skipped, Source, SourceDescription, SourceEntry, SourceFile, SourceIdentity};

/// What the files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntheticKind {
    /// Objects of MatrixOne, whose names fix their content.
    Objects,
    /// Files known by size and times.
    Files,
}

/// Files in one directory; each holds a few bytes of its own.
#[derive(Clone, Debug)]
pub struct SyntheticSource {
    kind: SyntheticKind,
    count: u64,
    next: u64,
    /// Of these many files the last one is another than in the source without.
    changed_every: Option<u64>,
    folder: &'static str,
}

impl SyntheticSource {
    /// `count` files.
    pub fn new(kind: SyntheticKind, count: u64) -> Self {
        Self { kind, count, next: 0, changed_every: None, folder: "shared" }
    }

    /// The same, with every so-manieth file replaced by another.
    pub fn changed(kind: SyntheticKind, count: u64, every: u64) -> Self {
        Self { changed_every: Some(every), ..Self::new(kind, count) }
    }

    /// The same in a folder of this name.
    #[must_use]
    pub fn below(self, folder: &'static str) -> Self {
        Self { folder, ..self }
    }

    /// The name of the object of this number, from 1.
    pub fn object_name(number: u64) -> String {
        let stamp = number * 2;
        format!("{:08x}-{:04x}-7000-8000-{:012x}_00000", stamp >> 16, stamp & 0xffff, stamp)
    }

    fn entry(&self, number: u64) -> SourceEntry {
        // Entry 0 is the directory.
        let is_directory = number == 0;
        let is_changed = self.changed_every.is_some_and(|every| number % every == every - 1);
        let stamp = number * 2 + u64::from(is_changed);
        let path = match (is_directory, self.kind) {
            (true, _) => self.folder.to_owned(),
            (false, SyntheticKind::Objects) => {
                format!("{}/{:08x}-{:04x}-7000-8000-{:012x}_00000", self.folder, stamp >> 16, stamp & 0xffff, stamp)
            }
            (false, SyntheticKind::Files) => format!("{}/file-{stamp:012}", self.folder),
        };
        let mut identity = [0; SourceIdentity::LEN];
        identity[..8].copy_from_slice(&stamp.to_le_bytes());
        let time = Timestamp::from_nanos(1_700_000_000_000_000_000);
        SourceEntry {
            path: path.into_bytes(),
            kind: if is_directory { EntryKind::Directory } else { EntryKind::File },
            size: if is_directory { 0 } else { FILE_LEN },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: time,
            changed: time,
            link_target: Vec::new(),
            identity: SourceIdentity::from_bytes(identity),
            sparse: false,
            link_count: 1,
        }
    }
}

/// Bytes of every file.
pub const FILE_LEN: u64 = 64;

impl Source for SyntheticSource {
    fn describe(&self) -> SourceDescription {
        SourceDescription {
            kind: "synthetic",
            location: "nowhere".to_owned(),
            host: "here".to_owned(),
            ..SourceDescription::default()
        }
    }

    fn next_batch(&mut self, max: usize) -> Result<Vec<SourceEntry>> {
        let end = (self.next + max as u64).min(self.count + 1);
        let batch = (self.next..end).map(|number| self.entry(number)).collect();
        self.next = end;
        Ok(batch)
    }

    fn reader(&self) -> Arc<dyn OpenFile> {
        Arc::new(SyntheticFiles)
    }

    fn skipped(&self) -> Skipped {
        Skipped::default()
    }
}

struct SyntheticFiles;

impl OpenFile for SyntheticFiles {
    fn open(&self, entry: &SourceEntry) -> Result<Box<dyn SourceFile>> {
        if entry.kind != EntryKind::File {
            return Err(Error::invalid("only files are opened"));
        }
        let mut content = entry.path.clone();
        content.resize(64, b'.');
        Ok(Box::new(SyntheticFile(content)))
    }
}

struct SyntheticFile(Vec<u8>);

impl SourceFile for SyntheticFile {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or(&[]);
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn verify_unchanged(&self) -> Result<bool> {
        Ok(true)
    }
}
