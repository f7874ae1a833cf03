//! Window after window: while one is read, decoded and written, the one before is verified, flushed and published.
//!
//! The processor does the former and the disk waits for the latter, so neither waits for the other. Never more than one window is being
//! published: that bounds open files and what a crash leaves under temporary names.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::fetch::Fetcher;
use super::publish::{self, Published};
use super::window::Planner;
use super::{Job, RestoreOptions, RestoreReport};
use crate::error::{Error, ErrorKind, Result};
use crate::index::Index;
use crate::ops::target::Target;
use crate::progress::Monitor;
use crate::repo::{Entry, Repository, pieces_of};
use crate::source::display_path;

pub(super) struct Pipeline {
    repository: Repository,
    index: Arc<Index>,
    target: Arc<Target>,
    options: RestoreOptions,
    monitor: Arc<dyn Monitor>,
    planner: Planner,
    fetcher: Fetcher,
    /// The window before this one.
    publishing: Option<JoinHandle<Result<Published>>>,
}

impl Pipeline {
    pub(super) fn new(job: &Job<'_>) -> Result<Self> {
        let Job { repository, index, target, options, monitor, .. } = *job;
        Ok(Self {
            repository: repository.clone(),
            index: Arc::clone(index),
            target: Arc::clone(target),
            options: options.clone(),
            monitor: Arc::clone(monitor),
            planner: Planner::new(Arc::clone(target), options.clone()),
            fetcher: Fetcher::new(repository, index, options.memory, Arc::clone(monitor))?,
            publishing: None,
        })
    }

    /// Adds a file, run of pieces by run of pieces; works the window off whenever it is full.
    pub(super) async fn add(&mut self, entry: Entry, report: &mut RestoreReport) -> Result<()> {
        let pieces = entry.pieces.clone();
        let path = entry.path.clone();
        let Some(file) = self.planner.begin_file(entry, report)? else { return Ok(()) };
        let (repository, index) = (self.repository.clone(), Arc::clone(&self.index));
        let mut runs = pieces_of(&repository, &index, &pieces);
        while let Some(run) = futures::StreamExt::next(&mut runs).await {
            let run = match run {
                Ok(run) => run,
                Err(error) if error.is_damage() => {
                    file.fail(error.to_string());
                    break;
                }
                Err(error) => return Err(error.context(format!("restore {}", display_path(&path)))),
            };
            self.planner.add_pieces(&file, &run)?;
            if self.planner.is_full() {
                // The file itself may go on in the next window: it is published with the window that holds its last piece.
                self.work_off(report).await?;
            }
        }
        self.planner.end_file(file);
        if self.planner.is_full() { self.work_off(report).await } else { Ok(()) }
    }

    /// Works off what is left. Whatever came of the restore so far, nothing is being published afterwards.
    pub(super) async fn finish(mut self, so_far: Result<()>, report: &mut RestoreReport) -> Result<()> {
        let outcome = match so_far {
            Ok(()) => self.work_off(report).await,
            failed => failed,
        };
        let settled = self.settle(report).await;
        report.bytes_kept += self.planner.kept();
        outcome.and(settled)
    }

    /// Reads and writes what was planned since the last time, and has the complete files published.
    async fn work_off(&mut self, report: &mut RestoreReport) -> Result<()> {
        let Some(window) = self.planner.take_window() else { return Ok(()) };
        let fetched = self.fetcher.run(window, report).await;
        let settled = self.settle(report).await;
        let complete = fetched?;
        if let Err(error) = settled {
            publish::discard(complete);
            return Err(error);
        }
        let (target, monitor, fast) = (Arc::clone(&self.target), Arc::clone(&self.monitor), self.options.fast);
        let publish = move || publish::publish(complete, &target, fast, &*monitor);
        self.publishing = Some(tokio::task::spawn_blocking(publish));
        Ok(())
    }

    /// Waits until the window before this one is published.
    async fn settle(&mut self, report: &mut RestoreReport) -> Result<()> {
        let Some(publishing) = self.publishing.take() else { return Ok(()) };
        let ended =
            |error| Error::with_source(ErrorKind::Unavailable, "a thread that publishes files ended early", error);
        let Published { files, damaged } = publishing.await.map_err(ended)??;
        report.files += files;
        for (path, why) in damaged {
            report.add_damaged(&path, why);
        }
        Ok(())
    }
}
