//! The first SIGINT or SIGTERM asks the running command to stop at a safe point; the second ends the program at once.
//!
//! Ending at once is safe too: nothing is listed before it is durable, and no restored file has its name before it is whole. It only
//! leaves more for the next run to do again.

use std::sync::Arc;

use everpack::error::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::SharedProgress;

/// Starts listening.
pub(crate) fn listen(progress: &SharedProgress) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context(|| "listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context(|| "listen for SIGTERM")?;
    let progress = Arc::clone(progress);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if progress.cancel() {
                progress.close();
                std::process::exit(1);
            }
        }
    });
    Ok(())
}
