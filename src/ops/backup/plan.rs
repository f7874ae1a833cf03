//! The planner: source entries and parent entries, merged in order; and the threads around it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::assemble::{Assembled, Assembler};
use super::code::Coder;
use super::read::{FileOutcome, FileReader};
use super::{BackupOptions, code};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ObjectHash, SourceIdentity};
use crate::index::Index;
use crate::manifest::order;
use crate::progress::{Event, Monitor, Phase};
use crate::repo::Finished;
use crate::repo::{Entry, EntryKind, EntryStream, FileFormat, Manifest, Pieces, Repository, Totals, Transform, Writer};
use crate::source::{Skipped, Source, SourceEntry, display_path};
use crate::tae::{FileClass, classify, physical_len};

/// Entries asked of the source at once.
const BATCH: usize = 1024;
/// Batches and files between planner and assembler.
const AHEAD: usize = 256;
/// A file must have been left alone for this long before the parent looked at it, to be believed unchanged.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(2);
/// Problems kept by name.
const PROBLEMS: usize = 1000;

/// A file that could not be backed up as it should.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Problem {
    /// Which.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
    /// True if the file is missing from the backup, or stored as it was read while it changed; false if it is stored, bit for bit, but damaged at
    /// the source.
    pub incomplete: bool,
}

/// What the planner needs.
pub(super) struct Job {
    pub(super) repository: Repository,
    pub(super) index: Arc<Index>,
    pub(super) parent: Option<(ObjectHash, Manifest)>,
    /// What this very backup stored before, in the order of paths: its entries are taken over like a parent's.
    pub(super) ahead: Vec<Manifest>,
    /// Paths of that which are not taken over.
    pub(super) spoiled: std::collections::HashSet<Vec<u8>>,
    pub(super) options: BackupOptions,
    pub(super) monitor: Arc<dyn Monitor>,
    /// Some packs that the log calls live are damaged or missing.
    pub(super) distrust: bool,
}

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) files_new: u64,
    pub(super) files_changed: u64,
    pub(super) files_unchanged: u64,
    pub(super) files_removed: u64,
    pub(super) files_read: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_new: u64,
}

/// What the threads leave behind.
pub(super) struct Outcome {
    pub(super) totals: Totals,
    pub(super) segments: Vec<crate::format::manifest::SegmentRef>,
    pub(super) counts: Counts,
    pub(super) partial: bool,
    pub(super) problems: Vec<Problem>,
    pub(super) problem_count: u64,
    pub(super) skipped: Skipped,
    pub(super) stored: (Finished, std::collections::HashSet<u32>),
    /// Entries of the parent were taken over.
    pub(super) took_over: bool,
    /// How many files were taken over from what this backup stored ahead.
    pub(super) from_ahead: u64,
}

/// What goes from the planner to the assembler, in order.
pub(super) enum Item {
    /// Entries that need no reading.
    Ready(Vec<Entry>),
    /// A file that a reader works on; the parent's entry tells new from changed.
    File { outcome: Receiver<Result<FileOutcome>>, before: Option<ObjectIdentity> },
}

/// As much of the parent's entry as tells whether a file that was read again has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct ObjectIdentity {
    pub(super) hash: crate::id::FileHash,
}

/// One file for a reader.
pub(super) struct ReadJob {
    pub(super) entry: SourceEntry,
    pub(super) reply: SyncSender<Result<FileOutcome>>,
}

/// Says to all threads that it is over.
#[derive(Debug, Default)]
pub(super) struct Stop {
    stopped: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Stop {
    /// The first error counts; those that follow are its consequences.
    pub(super) fn fail(&self, error: Error) {
        if error.message() != STOPPED {
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        self.stopped.store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn take(&self) -> Option<Error> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Runs the whole pipeline; returns when everything is stored, or nothing more will be.
pub(super) fn run(
    runtime: &tokio::runtime::Handle,
    job: Job,
    mut source: Box<dyn Source>,
    writer: Writer,
) -> Result<Outcome> {
    let stop = Arc::new(Stop::default());
    let writer = Arc::new(writer);
    let coder =
        Arc::new(Coder::new(&job.repository, Arc::clone(&writer), job.options.memory, Arc::clone(&job.monitor))?);
    let opener = source.reader();
    let (items, from_planner) = sync_channel::<Item>(AHEAD);
    let (jobs, for_readers) = sync_channel::<ReadJob>(code::worker_count() * 4);
    let for_readers = Arc::new(Mutex::new(for_readers));
    let readers = if job.options.readers == 0 { code::worker_count().clamp(2, 8) } else { job.options.readers };

    job.monitor.event(Event::Begin { phase: Phase::BackingUp, bytes: 0, items: 0 });
    let assembled = std::thread::scope(|scope| {
        for _ in 0..readers {
            let reader = match FileReader::new(Arc::clone(&opener), Arc::clone(&coder), &job, Arc::clone(&stop)) {
                Ok(reader) => reader,
                Err(error) => {
                    stop.fail(error);
                    break;
                }
            };
            let for_readers = Arc::clone(&for_readers);
            scope.spawn(move || read_all(reader, &for_readers));
        }
        let assembler = scope.spawn(|| {
            let assembled = Assembler::new(&coder, &job, &stop).run(&from_planner);
            // The planner must not wait for somebody who has left.
            drop(from_planner);
            assembled
        });
        let mut planner =
            Planner { runtime, job: &job, items, jobs, stop: &stop, took_over: false, from_ahead: 0, removed: 0 };
        let planned = planner.run(source.as_mut());
        let (took_over, from_ahead, removed) = (planner.took_over, planner.from_ahead, planner.removed);
        drop(planner);
        if let Err(error) = planned {
            stop.fail(error);
        }
        let assembled = assembler.join().unwrap_or_else(|_| {
            stop.fail(Error::new(ErrorKind::Unavailable, "the assembler panicked"));
            None
        });
        assembled.map(|assembled| (assembled, took_over, from_ahead, removed))
    });
    let skipped = source.skipped();
    let bytes_new = coder.new_bytes();
    let bytes_read = coder.read_bytes();
    // Whoever stopped early left groups behind on the workers, which hold the coder and its writer.
    coder.wait_until_idle();
    drop(coder);
    let writer = Arc::into_inner(writer).ok_or_else(|| Error::new(ErrorKind::Unavailable, "a reader still runs"))?;
    let (assembled, took_over, from_ahead, removed) = match (assembled, stop.take()) {
        (Some(done), None) => done,
        (_, first) => {
            // What the packing thread met is the cause of what the others saw.
            return Err(writer.abandon().or(first).unwrap_or_else(stopped));
        }
    };
    let mut outcome = finish(assembled, skipped, &job.options, writer)?;
    outcome.took_over = took_over;
    outcome.from_ahead = from_ahead;
    outcome.counts.files_removed = removed;
    outcome.counts.bytes_new = bytes_new;
    outcome.counts.bytes_read = bytes_read;
    Ok(outcome)
}

/// Files named in the error that refuses an incomplete backup.
const NAMED_MOST: usize = 10;

/// Refuses an incomplete backup unless it is wanted, and waits for the last pack.
fn finish(assembled: Assembled, skipped: Skipped, options: &BackupOptions, writer: Writer) -> Result<Outcome> {
    let Assembled { totals, segments, counts, mut problems, mut problem_count, incomplete } = assembled;
    let missing = skipped.failures() + skipped.vanished.count;
    problem_count += missing;
    let lists = [
        (&skipped.unreadable, "could not be looked at"),
        (&skipped.unsafe_names, "its name is not safe as a path"),
        (&skipped.vanished, "vanished while the source was listed"),
    ];
    for (list, why) in lists {
        let name = |name: &String| Problem { path: name.clone(), message: why.to_owned(), incomplete: true };
        problems.extend(list.names.iter().map(name));
    }
    let partial = incomplete || missing > 0;
    if partial && !options.allow_partial {
        if let Some(error) = writer.abandon() {
            return Err(error);
        }
        let named: Vec<String> = problems
            .iter()
            .filter(|problem| problem.incomplete)
            .take(NAMED_MOST)
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect();
        let rest = problem_count.saturating_sub(named.len() as u64);
        let rest = if rest == 0 { String::new() } else { format!("; and {rest} more") };
        let count = crate::units::plural(problem_count, "file");
        let message = format!(
            "{count} could not be backed up, and nothing was committed (--allow-partial makes a backup without them): {}{rest}",
            named.join("; ")
        );
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let stored = writer.finish()?;
    Ok(Outcome {
        totals,
        segments,
        counts,
        partial,
        problems,
        problem_count,
        skipped,
        stored,
        took_over: false,
        from_ahead: 0,
    })
}

fn read_all(mut reader: FileReader, jobs: &Mutex<Receiver<ReadJob>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(ReadJob { entry, reply }) = job else { return };
        // If nobody waits for the outcome, the run is over.
        let _sent = reply.send(reader.read(entry));
    }
}

struct Planner<'a> {
    runtime: &'a tokio::runtime::Handle,
    job: &'a Job,
    items: SyncSender<Item>,
    jobs: SyncSender<ReadJob>,
    stop: &'a Stop,
    took_over: bool,
    from_ahead: u64,
    removed: u64,
}

impl Planner<'_> {
    fn run(&mut self, source: &mut dyn Source) -> Result<()> {
        let job = self.job;
        let mut parent = ParentCursor::new(self.runtime, job, job.parent.as_ref().map(|(_, manifest)| manifest));
        let mut ahead: Vec<_> =
            job.ahead.iter().map(|manifest| ParentCursor::new(self.runtime, job, Some(manifest))).collect();
        let mut ready = Vec::new();
        loop {
            let batch = source.next_batch(BATCH)?;
            if batch.is_empty() {
                break;
            }
            'entries: for entry in batch {
                self.check_stop()?;
                let before = parent.advance_to(&entry, &mut self.removed)?;
                for ahead in &mut ahead {
                    let stored = ahead.advance_to(&entry, &mut 0)?;
                    if let Some(taken) = stored.and_then(|stored| self.take_ahead(&entry, stored).transpose()) {
                        ready.push(taken?);
                        continue 'entries;
                    }
                }
                match self.decide(entry, before)? {
                    Decision::Ready(entry) => ready.push(entry),
                    Decision::Read { entry, before } => {
                        self.send(Item::Ready(std::mem::take(&mut ready)))?;
                        let (reply, outcome) = sync_channel(1);
                        self.send(Item::File { outcome, before })?;
                        self.jobs.send(ReadJob { entry, reply }).map_err(|_| stopped())?;
                    }
                }
            }
            self.send(Item::Ready(std::mem::take(&mut ready)))?;
        }
        parent.drain(&mut self.removed)
    }

    fn send(&self, item: Item) -> Result<()> {
        if matches!(&item, Item::Ready(entries) if entries.is_empty()) {
            return Ok(());
        }
        self.items.send(item).map_err(|_| stopped())
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.is_set() {
            return Err(stopped());
        }
        if self.job.monitor.cancelled() {
            let message = "stopped on request; nothing was committed, and what was stored is found by the next run";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    /// What was stored ahead under this path, if it is this file.
    fn take_ahead(&mut self, source: &SourceEntry, stored: Entry) -> Result<Option<Entry>> {
        let is_spoiled = self.job.spoiled.contains(&source.path);
        if source.kind != EntryKind::File || stored.kind != EntryKind::File || is_spoiled {
            return Ok(None);
        }
        let entry = self.take_over(source, &stored)?;
        if let Some(entry) = &entry {
            self.from_ahead += 1;
            self.job.monitor.advance(entry.size, 0, 1);
        }
        Ok(entry)
    }

    fn decide(&mut self, source: SourceEntry, before: Option<Entry>) -> Result<Decision> {
        if source.kind != EntryKind::File {
            // What a later release knows of a directory or link goes on with it.
            let same = before.filter(|before| !self.job.options.force && self.is_same(&source, before));
            let extension = same.map(|before| before.extension);
            return Ok(Decision::Ready(Entry { extension: extension.unwrap_or_default(), ..plain_entry(source) }));
        }
        let before = before.filter(|before| before.kind == EntryKind::File);
        if let Some(before) = &before
            && !self.job.options.force
            && let Some(entry) = self.take_over(&source, before)?
        {
            self.took_over = true;
            self.job.monitor.advance(entry.size, 0, 1);
            return Ok(Decision::Ready(entry));
        }
        let before = before.map(|before| ObjectIdentity { hash: before.hash });
        Ok(Decision::Read { entry: source, before })
    }

    /// The parent's entry for this file, if its content must be the same.
    fn take_over(&self, source: &SourceEntry, before: &Entry) -> Result<Option<Entry>> {
        let stable = is_stable(source);
        let transform = if stable && before.stable && source.size == before.size {
            Transform::None
        } else if stable && before.stable && source.size == physical_len(before.size) {
            Transform::DiskCrc
        } else if !stable && self.is_same(source, before) {
            before.transform
        } else {
            return Ok(None);
        };
        if self.job.distrust && !self.is_whole(before)? {
            return Ok(None);
        }
        let mut entry = Entry { mode: source.mode, uid: source.uid, gid: source.gid, transform, ..before.clone() };
        if !stable {
            entry.mtime = source.mtime;
        }
        Ok(Some(entry))
    }

    /// True if nothing happened to this file, directory or link since the parent looked at it.
    fn is_same(&self, source: &SourceEntry, before: &Entry) -> bool {
        let Some((_, parent)) = &self.job.parent else { return false };
        let is_known = before.identity == source.identity && before.identity != SourceIdentity::UNKNOWN;
        is_known && before.kind == source.kind && parent.started.since(source.changed) > SETTLED
    }

    /// True if every chunk of the entry is in a pack that is there.
    fn is_whole(&self, entry: &Entry) -> Result<bool> {
        let mut runs = crate::repo::pieces_of(&self.job.repository, &self.job.index, &entry.pieces);
        while let Some(run) = self.runtime.block_on(futures::StreamExt::next(&mut runs)) {
            let Ok(run) = run else { return Ok(false) };
            let ids: Vec<_> = run.iter().map(|piece| piece.chunk).collect();
            let found = self.job.index.lookup(&ids)?;
            if found.iter().any(Option::is_none) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

enum Decision {
    Ready(Entry),
    Read { entry: SourceEntry, before: Option<ObjectIdentity> },
}

/// What threads say that stop because another one did; never shown.
const STOPPED: &str = "the backup stopped";

pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, STOPPED)
}

/// True if the name alone tells the content.
pub(super) fn is_stable(entry: &SourceEntry) -> bool {
    matches!(classify(&entry.path), FileClass::Object(name) if name.is_content_stable())
}

/// An entry without content.
fn plain_entry(source: SourceEntry) -> Entry {
    Entry {
        path: source.path,
        kind: source.kind,
        transform: Transform::None,
        format: FileFormat::Opaque,
        stable: false,
        sparse: false,
        mode: source.mode,
        uid: source.uid,
        gid: source.gid,
        mtime: source.mtime,
        size: 0,
        hash: crate::id::FileHash::from_bytes([0; 32]),
        identity: source.identity,
        link_target: source.link_target,
        pieces: Pieces::NONE,
        extension: Vec::new(),
    }
}

/// Walks the parent's entries beside the source's.
struct ParentCursor<'a> {
    runtime: &'a tokio::runtime::Handle,
    stream: Option<EntryStream>,
    segment: std::vec::IntoIter<Entry>,
    next: Option<Entry>,
    job: &'a Job,
}

impl<'a> ParentCursor<'a> {
    fn new(runtime: &'a tokio::runtime::Handle, job: &'a Job, manifest: Option<&Manifest>) -> Self {
        let stream = manifest.map(|manifest| EntryStream::new(&job.repository, &job.index, manifest));
        Self { runtime, stream, segment: Vec::new().into_iter(), next: None, job }
    }

    fn peek(&mut self) -> Option<&Entry> {
        while self.next.is_none() {
            if let Some(entry) = self.segment.next() {
                self.next = Some(entry);
                break;
            }
            let stream = self.stream.as_mut()?;
            match self.runtime.block_on(stream.next()) {
                Some(Ok(segment)) => self.segment = segment.into_iter(),
                None => self.stream = None,
                Some(Err(error)) => {
                    // A damaged segment costs reading its files again, not the backup.
                    let message =
                        format!("a part of the parent backup cannot be read ({error}): its files are read again");
                    self.job.monitor.event(Event::Warning { message });
                }
            }
        }
        self.next.as_ref()
    }

    /// The parent's entry of the same path, if there is one; counts files passed over as removed.
    fn advance_to(&mut self, entry: &SourceEntry, removed: &mut u64) -> Result<Option<Entry>> {
        let is_directory = entry.kind == EntryKind::Directory;
        loop {
            let Some(next) = self.peek() else { return Ok(None) };
            match order::compare(&next.path, next.kind == EntryKind::Directory, &entry.path, is_directory) {
                std::cmp::Ordering::Less => {
                    *removed += u64::from(next.kind == EntryKind::File);
                    self.next = None;
                }
                std::cmp::Ordering::Equal => return Ok(self.next.take()),
                std::cmp::Ordering::Greater => return Ok(None),
            }
        }
    }

    fn drain(&mut self, removed: &mut u64) -> Result<()> {
        while let Some(next) = self.peek() {
            *removed += u64::from(next.kind == EntryKind::File);
            self.next = None;
        }
        Ok(())
    }
}

/// Names a file in a problem.
pub(super) fn problem(path: &[u8], message: impl Into<String>, incomplete: bool) -> Problem {
    Problem { path: display_path(path), message: message.into(), incomplete }
}

/// At most so many problems are kept by name.
pub(super) const fn problem_limit() -> usize {
    PROBLEMS
}
