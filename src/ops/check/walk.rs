//! From the manifests to every chunk that they name. Each distinct segment and piece list is read once; of a segment little is remembered, of a
//! chunk nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt};

use super::faults::Faults;
use super::findings::{Finding, Findings, Severity, Touches, heal};
use super::touches::{Cause, TouchMap};
use super::{CheckReport, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::SegmentRef;
use crate::format::segment::{SegmentReader, decode_piece_list};
use crate::id::ChunkId;
use crate::index::Index;
use crate::progress::Monitor;
use crate::repo::{BackupInfo, Entry, EntryKind, Manifest, Piece, Pieces, Repository, Totals};
use crate::source::display_path;

/// Chunks looked up at once.
pub(super) const BATCH: usize = 65_536;
/// Segments read ahead.
pub(super) const AHEAD: usize = 4;
/// Missing chunks remembered; beyond, they are counted.
const MISSING_MOST: usize = 1 << 20;
/// Missing chunks named in a finding.
const NAMES_MOST: usize = 5;
/// Odd entries remembered by path, over all segments.
const ODD_MOST: usize = 10_000;

/// What is remembered of a segment.
#[derive(Debug)]
struct SegmentFacts {
    plain_len: u32,
    totals: Totals,
    first_key: Box<[u8]>,
    last_key: Box<[u8]>,
}

/// What a walk leaves behind.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Segments that cannot be read, with why, unless their pack is known to be damaged.
    unreadable: HashMap<ChunkId, String>,
    /// Segments in which an entry cannot be right: the entry's path and why.
    pub(super) odd: HashMap<ChunkId, Vec<(String, String)>>,
    odd_count: usize,
    /// Chunks that no live pack holds.
    pub(super) missing: HashSet<ChunkId>,
    missing_count: u64,
    /// Chunks that are shorter than an entry wants.
    short: HashSet<ChunkId>,
    /// The packs that hold what was walked, by number; `None` if that was everything.
    pub(super) needed: Option<HashSet<u32>>,
}

impl Walked {
    /// True if something was not found, which may be because the log moved on.
    pub(super) fn has_missing(&self) -> bool {
        self.missing_count > 0 || !self.unreadable.is_empty()
    }

    /// True if some file is touched.
    pub(super) fn loses_something(&self) -> bool {
        self.has_missing() || !self.odd.is_empty() || !self.short.is_empty()
    }

    /// Segments that cannot be read, with why.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = (&ChunkId, &String)> {
        self.unreadable.iter()
    }

    pub(super) fn is_unreadable(&self, segment: &ChunkId) -> bool {
        self.unreadable.contains_key(segment)
    }

    /// Turns everything into findings.
    pub(super) fn report(self, touches: &mut TouchMap, findings: &mut Findings) {
        let mut take = |cause: Cause| -> Touches { touches.remove(&cause).unwrap_or_default() };
        if self.missing_count > 0 {
            let mut names: Vec<_> = self.missing.iter().collect();
            names.sort_unstable();
            let object = match names.as_slice() {
                [one] => format!("chunk {one}"),
                _ => format!("{} chunks", self.missing_count),
            };
            let named: Vec<_> = names.iter().take(NAMES_MOST).map(|id| format!("chunk {id}")).collect();
            let more = if self.missing_count > named.len() as u64 { ", …" } else { "" };
            let what = format!("backups name them, no live pack holds them: {}{more}", named.join(", "));
            let finding = Finding::new(Severity::Error, object, what, heal::MISSING_CHUNK);
            findings.add_missing(finding.touching(take(Cause::Missing)));
        }
        if !self.short.is_empty() {
            let mut names: Vec<_> = self.short.iter().collect();
            names.sort_unstable();
            let named: Vec<_> = names.iter().take(NAMES_MOST).map(|id| format!("chunk {id}")).collect();
            let what = format!("shorter than the files that name them want: {}", named.join(", "));
            let finding = Finding::new(Severity::Error, format!("{} chunks", names.len()), what, heal::SEGMENT);
            findings.add(finding.touching(take(Cause::Short)));
        }
        let mut unreadable: Vec<_> = self.unreadable.into_iter().collect();
        unreadable.sort_unstable();
        for (id, why) in unreadable {
            let finding = Finding::new(Severity::Error, format!("manifest segment {id}"), why, heal::SEGMENT);
            findings.add(finding.touching(take(Cause::Segment(id))));
        }
        let mut odd: Vec<_> = self.odd.into_iter().collect();
        odd.sort_unstable_by_key(|(id, _)| *id);
        for (id, entries) in odd {
            let first = entries.first().map_or_else(String::new, |(path, why)| format!("{path}: {why}"));
            let what = format!(
                "{} cannot be right; the first is {first}",
                crate::units::plural(entries.len() as u64, "entry")
            );
            let finding = Finding::new(Severity::Error, format!("manifest segment {id}"), what, heal::SEGMENT);
            findings.add(finding.touching(take(Cause::Odd(id))));
        }
    }

    fn add_odd(&mut self, segment: ChunkId, path: String, why: String) {
        self.odd_count += 1;
        if self.odd_count <= ODD_MOST {
            self.odd.entry(segment).or_default().push((path, why));
        }
    }
}

/// A walk under way.
struct Walk<'a> {
    repository: &'a Repository,
    index: &'a Arc<Index>,
    faults: &'a Faults,
    segments: HashMap<ChunkId, Option<SegmentFacts>>,
    /// Piece lists read, with the bytes that they stand for.
    lists: HashMap<ChunkId, u64>,
    /// Chunks to look up: how far into each somebody reaches.
    batch: Vec<(ChunkId, u64)>,
    looked_up: u64,
    walked: Walked,
}

/// Walks the backups.
pub(super) async fn walk(
    repository: &Repository,
    index: &Arc<Index>,
    backups: &[BackupInfo],
    faults: &Faults,
    monitor: &Arc<dyn Monitor>,
    report: &mut CheckReport,
    findings: &mut Findings,
) -> Result<Walked> {
    let only_some = backups.len() < repository.backups().len();
    let mut walk = Walk {
        repository,
        index,
        faults,
        segments: HashMap::new(),
        lists: HashMap::new(),
        batch: Vec::new(),
        looked_up: 0,
        walked: Walked { needed: only_some.then(HashSet::new), ..Walked::default() },
    };
    report.entries = 0;
    for backup in backups {
        let manifest = match repository.manifest(&backup.id).await {
            Ok(manifest) => manifest,
            Err(error) if error.is_damage() => {
                findings.add_missing(bad_manifest(repository, backup, &error));
                continue;
            }
            Err(error) => return Err(error),
        };
        walk.read_new_segments(&manifest, monitor.as_ref()).await?;
        report.entries += manifest.segments.iter().map(|segment| u64::from(segment.entry_count)).sum::<u64>();
        walk.check_manifest(backup, &manifest, findings);
    }
    walk.look_up().await?;
    report.backups = backups.len() as u64;
    report.segments = walk.segments.len() as u64;
    report.chunks = walk.looked_up;
    Ok(walk.walked)
}

fn bad_manifest(repository: &Repository, backup: &BackupInfo, error: &Error) -> Finding {
    let state = repository.state();
    let name =
        state.backups.get(&backup.id).map_or_else(|| backup.id.to_string(), |backup| backup.manifest.to_string());
    let what = if error.kind() == ErrorKind::NotFound { "missing".to_owned() } else { error.to_string() };
    let mut touches = Touches::default();
    touches.add(backup.id, "(the whole backup)");
    Finding::new(Severity::Error, name, what, heal::MANIFEST).touching(touches)
}

impl Walk<'_> {
    async fn read_new_segments(&mut self, manifest: &Manifest, monitor: &dyn Monitor) -> Result<()> {
        let mut new = Vec::new();
        for segment in &manifest.segments {
            if let std::collections::hash_map::Entry::Vacant(slot) = self.segments.entry(segment.chunk) {
                slot.insert(None);
                new.push(segment.clone());
            } else {
                monitor.advance(0, 0, u64::from(segment.entry_count));
            }
        }
        let (repository, index) = (self.repository, self.index);
        let mut read = stream::iter(new)
            .map(|segment| async move {
                let plain = repository.read_chunk(index, &segment.chunk).await;
                (segment, plain)
            })
            .buffered(AHEAD);
        while let Some((segment, plain)) = read.next().await {
            if monitor.cancelled() {
                return Err(Error::new(ErrorKind::Unavailable, "check: stopped on request"));
            }
            self.batch.push((segment.chunk, u64::from(segment.plain_len)));
            let facts = match plain {
                Ok(plain) => self.read_segment(&segment, &plain).await,
                Err(error) => Err(error),
            };
            match facts {
                Ok(facts) => drop(self.segments.insert(segment.chunk, Some(facts))),
                Err(error) if error.is_damage() => self.note_unreadable(&segment, &error)?,
                Err(error) => return Err(error),
            }
            monitor.advance(0, 0, u64::from(segment.entry_count));
        }
        Ok(())
    }

    /// What is lost with a pack is that pack's finding.
    fn note_unreadable(&mut self, segment: &SegmentRef, error: &Error) -> Result<()> {
        let known = match self.index.lookup(&[segment.chunk])?.first() {
            Some(Some(location)) => self.faults.has(location.pack),
            _ => true,
        };
        if !known {
            self.walked.unreadable.insert(segment.chunk, error.to_string());
        }
        Ok(())
    }

    async fn read_segment(&mut self, segment: &SegmentRef, plain: &[u8]) -> Result<SegmentFacts> {
        let mut totals = Totals::default();
        let mut first_key: Option<Box<[u8]>> = None;
        let mut last: Option<Entry> = None;
        for entry in SegmentReader::new(plain)? {
            let entry = entry?;
            first_key.get_or_insert_with(|| entry.sort_key().collect());
            match entry.kind {
                EntryKind::File => totals.files += 1,
                EntryKind::Directory => totals.directories += 1,
                EntryKind::Symlink => totals.symlinks += 1,
            }
            totals.bytes = totals.bytes.saturating_add(entry.size);
            if let Err(error) = self.take_entry(&entry).await? {
                self.walked.add_odd(segment.chunk, display_path(&entry.path), error);
            }
            last = Some(entry);
        }
        Ok(SegmentFacts {
            plain_len: u32::try_from(plain.len()).unwrap_or(u32::MAX),
            totals,
            first_key: first_key.unwrap_or_default(),
            last_key: last.iter().flat_map(Entry::sort_key).collect(),
        })
    }

    /// Notes the chunks of an entry; the inner error is what cannot be right about it.
    async fn take_entry(&mut self, entry: &Entry) -> Result<std::result::Result<(), String>> {
        if let Err(error) = entry.check() {
            // Its chunks are looked up all the same.
            self.take_pieces(entry.pieces.as_slice()).await?;
            return Ok(Err(error.to_string()));
        }
        self.take_pieces(entry.pieces.as_slice()).await?;
        let Pieces::Lists(lists) = &entry.pieces else { return Ok(Ok(())) };
        let mut bytes: u64 = 0;
        for list in lists {
            match self.take_list(list).await {
                Ok(sum) => bytes = bytes.saturating_add(sum),
                // A list in a damaged pack, or in none, is a finding of that.
                Err(error) if error.is_damage() => {
                    return Ok(match self.index.lookup(&[list.chunk])?.first() {
                        Some(Some(location)) if !self.faults.has(location.pack) => Err(error.to_string()),
                        _ => Ok(()),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(if bytes == entry.size {
            Ok(())
        } else {
            Err(format!("its pieces have {bytes} bytes, its size is {}", entry.size))
        })
    }

    /// Gives the bytes that the list stands for.
    async fn take_list(&mut self, list: &Piece) -> Result<u64> {
        if let Some(bytes) = self.lists.get(&list.chunk) {
            return Ok(*bytes);
        }
        let plain = self.repository.read_chunk(self.index, &list.chunk).await?;
        if plain.len() as u64 != u64::from(list.len) {
            return Err(Error::corrupt(format!("piece list {}: of another length than the entry says", list.chunk)));
        }
        let pieces = decode_piece_list(&plain)?;
        let bytes = pieces.iter().map(|piece| u64::from(piece.len)).sum();
        self.take_pieces(&pieces).await?;
        self.lists.insert(list.chunk, bytes);
        Ok(bytes)
    }

    async fn take_pieces(&mut self, pieces: &[Piece]) -> Result<()> {
        for piece in pieces {
            self.batch.push((piece.chunk, u64::from(piece.offset) + u64::from(piece.len)));
            if self.batch.len() >= BATCH {
                self.look_up().await?;
            }
        }
        Ok(())
    }

    /// Looks the batch up, and forgets it.
    async fn look_up(&mut self) -> Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        let index = Arc::clone(self.index);
        let found = blocking(move || {
            batch.sort_unstable();
            // Of one chunk the farthest reach stands last.
            batch.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    kept.1 = next.1;
                }
                same
            });
            let ids: Vec<ChunkId> = batch.iter().map(|(id, _)| *id).collect();
            let found = index.lookup(&ids)?;
            let bad = batch.iter().zip(&found).filter_map(|((id, end), location)| match location {
                None => Some((*id, true)),
                Some(location) => (u64::from(location.plain_len) < *end).then_some((*id, false)),
            });
            let bad = bad.collect::<Vec<_>>();
            let packs: HashSet<u32> = found.iter().flatten().map(|location| location.pack).collect();
            Ok((batch.len() as u64, bad, packs, batch))
        });
        let (count, bad, packs, mut batch) = found.await?;
        if let Some(needed) = &mut self.walked.needed {
            needed.extend(packs);
        }
        batch.clear();
        self.batch = batch;
        self.looked_up += count;
        for (id, is_missing) in bad {
            if !is_missing {
                self.walked.short.insert(id);
            } else if self.walked.missing.len() < MISSING_MOST {
                self.walked.missing_count += u64::from(self.walked.missing.insert(id));
            } else {
                self.walked.missing_count += u64::from(!self.walked.missing.contains(&id));
            }
        }
        Ok(())
    }

    /// What a manifest says of its segments, and of itself, must be so.
    fn check_manifest(&self, backup: &BackupInfo, manifest: &Manifest, findings: &mut Findings) {
        let mut totals = Totals::default();
        let mut complete = true;
        let mut odd = Vec::new();
        for (at, segment) in manifest.segments.iter().enumerate() {
            let Some(Some(facts)) = self.segments.get(&segment.chunk) else {
                complete = false;
                continue;
            };
            let Totals { files, directories, symlinks, bytes } = facts.totals;
            totals.files += files;
            totals.directories += directories;
            totals.symlinks += symlinks;
            totals.bytes = totals.bytes.saturating_add(bytes);
            let next = manifest.segments.get(at + 1).map(|next| next.first_key.as_slice());
            if u64::from(segment.entry_count) != files + directories + symlinks || segment.plain_len != facts.plain_len
            {
                odd.push(format!("segment {} is of another length than it says", segment.chunk));
            }
            if *segment.first_key != *facts.first_key || next.is_some_and(|next| *facts.last_key >= *next) {
                odd.push(format!("segment {} does not stand where it belongs", segment.chunk));
            }
        }
        if complete && totals != manifest.totals {
            odd.push("its totals are not those of its entries".to_owned());
        }
        if manifest.totals != backup.summary.totals || manifest.lineage != backup.summary.lineage {
            odd.push("the log sums it up otherwise".to_owned());
        }
        if let Some(first) = odd.first() {
            let what = format!("{first} ({} such)", odd.len());
            let mut touches = Touches::default();
            touches.add(backup.id, "(the list of files)");
            let object = format!("backup {}", backup.id);
            findings.add(Finding::new(Severity::Error, object, what, heal::MANIFEST).touching(touches));
        }
    }
}
