//! The assembler: entries in order into segments, segments into the manifest's list.

use std::sync::mpsc::Receiver;

use super::code::Coder;
use super::plan::{Counts, Item, Job, Problem, Stop, problem_limit, stopped};
use super::read::FileOutcome;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::SegmentRef;
use crate::manifest::{FinishedSegment, SegmentCutter};
use crate::repo::{Entry, EntryKind, Totals};

/// What the assembler leaves behind.
pub(super) struct Assembled {
    pub(super) totals: Totals,
    pub(super) segments: Vec<SegmentRef>,
    pub(super) counts: Counts,
    pub(super) problems: Vec<Problem>,
    pub(super) problem_count: u64,
    /// Some file is missing or was read while it changed.
    pub(super) incomplete: bool,
}

pub(super) struct Assembler<'a> {
    coder: &'a Coder,
    job: &'a Job,
    stop: &'a Stop,
    cutter: SegmentCutter,
    done: Assembled,
}

impl<'a> Assembler<'a> {
    pub(super) fn new(coder: &'a Coder, job: &'a Job, stop: &'a Stop) -> Self {
        let done = Assembled {
            totals: Totals::default(),
            segments: Vec::new(),
            counts: Counts::default(),
            problems: Vec::new(),
            problem_count: 0,
            incomplete: false,
        };
        Self { coder, job, stop, cutter: SegmentCutter::default(), done }
    }

    /// Takes everything that the planner sends. Stops all at the first error that is not one file's own.
    pub(super) fn run(mut self, items: &Receiver<Item>) -> Option<Assembled> {
        match self.take_all(items) {
            Ok(()) => Some(self.done),
            Err(error) => {
                self.stop.fail(error);
                None
            }
        }
    }

    fn take_all(&mut self, items: &Receiver<Item>) -> Result<()> {
        while let Ok(item) = items.recv() {
            match item {
                Item::Ready(entries) => {
                    for entry in entries {
                        self.done.counts.files_unchanged += u64::from(entry.kind == EntryKind::File);
                        self.push(&entry)?;
                    }
                }
                Item::File { outcome, before } => {
                    let gone = || Error::new(ErrorKind::Unavailable, "a reader ended early");
                    let outcome = outcome.recv().map_err(|_| gone())??;
                    self.take_file(outcome, before.map(|before| before.hash))?;
                }
            }
        }
        if let Some(segment) = self.cutter.finish() {
            self.store(segment)?;
        }
        Ok(())
    }

    fn take_file(&mut self, outcome: FileOutcome, before: Option<crate::id::FileHash>) -> Result<()> {
        for problem in outcome.problems {
            self.done.incomplete |= problem.incomplete;
            self.done.problem_count += 1;
            if self.done.problems.len() < problem_limit() {
                self.done.problems.push(problem);
            }
        }
        let Some(entry) = outcome.entry else { return Ok(()) };
        let counts = &mut self.done.counts;
        counts.files_read += 1;
        match before {
            None => counts.files_new += 1,
            Some(hash) if hash == entry.hash => counts.files_unchanged += 1,
            Some(_) => counts.files_changed += 1,
        }
        self.push(&entry)
    }

    fn push(&mut self, entry: &Entry) -> Result<()> {
        let totals = &mut self.done.totals;
        match entry.kind {
            EntryKind::File => totals.files += 1,
            EntryKind::Directory => totals.directories += 1,
            EntryKind::Symlink => totals.symlinks += 1,
        }
        totals.bytes += entry.size;
        match self.cutter.push(entry)? {
            Some(segment) => self.store(segment),
            None => Ok(()),
        }
    }

    fn store(&mut self, segment: FinishedSegment) -> Result<()> {
        let FinishedSegment { plain, entry_count, first_key } = segment;
        if self.job.monitor.cancelled() {
            return Err(stopped());
        }
        let chunk = self.coder.store_meta(&plain)?;
        let plain_len = u32::try_from(plain.len()).map_err(|_| {
            Error::invalid(format!("a segment of {} bytes: one path or list is too large", plain.len()))
        })?;
        self.done.segments.push(SegmentRef { chunk, plain_len, entry_count, first_key });
        Ok(())
    }
}
