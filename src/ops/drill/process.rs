//! A server that was started here, and that does not outlive whoever started it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::progress::Monitor;

/// How often it is looked whether something happened.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A server that was asked to stop has so long.
const STOP_PATIENCE: Duration = Duration::from_secs(120);
/// Of a log, what is shown.
const TAIL_BYTES: usize = 64 << 10;
const TAIL_LINES: usize = 12;

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Asked to stop.
    Term,
    /// As by a power cut.
    Kill,
}

/// A running server. Dropped, it is killed.
pub(super) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts the binary in its working directory; what it says goes to `server.log` there.
    pub(super) fn start(binary: &Path, directory: &Path) -> Result<Self> {
        let act = || format!("start {}", binary.display());
        let log = directory.join("server.log");
        let out = File::options().create(true).append(true).open(&log).context(act)?;
        let err = out.try_clone().context(act)?;
        let child = Command::new(binary)
            .args(["-launch", "./etc/launch/launch.toml"])
            .current_dir(directory)
            // With it set the server's own S3 client does not start.
            .env_remove("AWS_CA_BUNDLE")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .context(act)?;
        Ok(Self { child, log })
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context(|| "look whether the server runs")
    }

    /// The last lines that it said.
    pub(super) fn tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        // A panic says why in its first line, and then where in hundreds.
        let is_last_word = |line: &&str| {
            line.starts_with("panic:") || line.contains("\"level\":\"PANIC\"") || line.contains("\"level\":\"FATAL\"")
        };
        let from = lines.iter().rposition(is_last_word);
        let from = from.unwrap_or(lines.len().saturating_sub(TAIL_LINES));
        let shorten = |line: &&str| line.chars().take(400).collect::<String>();
        lines[from..].iter().take(TAIL_LINES).map(shorten).collect::<Vec<_>>().join("\n")
    }

    /// Ends it, and waits until it is gone. One that does not stop when asked is killed, and that is an error.
    pub(super) async fn end(mut self, ending: Ending, monitor: &Arc<dyn Monitor>) -> Result<()> {
        self.signal(if ending == Ending::Term { Signal::TERM } else { Signal::KILL });
        let begun = Instant::now();
        while self.ended()?.is_none() {
            if begun.elapsed() > STOP_PATIENCE {
                let message = format!("stop the server: it still ran {} s after SIGTERM", STOP_PATIENCE.as_secs());
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            if monitor.cancelled() {
                return Err(super::stopped());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Whatever it started is of its group. If it is gone already, nobody is there to be told.
            let _gone =
                if signal == Signal::KILL { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            let _reaped = self.child.wait();
        }
    }
}
