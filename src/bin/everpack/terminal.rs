//! Progress: a bar when standard error is a terminal, JSON lines with `--json`, nothing otherwise.
//!
//! The library calls [`Monitor`] from many threads and often, so that it only counts; one thread of ours draws, ten times a second, or
//! writes a line at most every half second.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everpack::progress::{Event, Monitor, Phase};
use everpack::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{one_line, plural, to_stderr};

/// A JSON line at most this often.
const LINE_EVERY: Duration = Duration::from_millis(500);
/// The bar is drawn this often.
const DRAW_EVERY: Duration = Duration::from_millis(100);

const WITH_TOTAL: &str = "{prefix} {bar:16} {percent:>3}%  {wide_msg}";
const WITHOUT_TOTAL: &str = "{prefix} {spinner}  {wide_msg}";

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// Not at all, and no warnings either.
    Nothing,
    /// Warnings only.
    Warnings,
    /// A bar that is gone at the end.
    Bar,
    /// JSON lines.
    Lines,
}

/// What the running phase has done.
#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    new_bytes: AtomicU64,
    items: AtomicU64,
    total_bytes: AtomicU64,
    total_items: AtomicU64,
}

#[derive(Debug)]
struct State {
    phase: Option<Phase>,
    begun: Instant,
    bar: Option<ProgressBar>,
    said: HashSet<String>,
    drawer: Option<JoinHandle<()>>,
    closed: bool,
}

/// What is known of the running phase, in one JSON line.
#[derive(serde::Serialize)]
struct Line {
    event: &'static str,
    phase: Phase,
    bytes: u64,
    total_bytes: u64,
    items: u64,
    total_items: u64,
    new_bytes: u64,
    seconds: f64,
}

/// Shows how far a command is, and is told when it shall stop.
#[derive(Debug)]
pub(crate) struct Progress {
    show: Show,
    counts: Counts,
    state: Mutex<State>,
    wake: Condvar,
    /// A command runs that looks at `cancelled`.
    watched: AtomicBool,
    cancelled: AtomicBool,
}

impl Progress {
    pub(crate) fn new(show: Show) -> Arc<Self> {
        let state =
            State { phase: None, begun: Instant::now(), bar: None, said: HashSet::new(), drawer: None, closed: false };
        Arc::new(Self {
            show,
            counts: Counts::default(),
            state: Mutex::new(state),
            wake: Condvar::new(),
            watched: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As a monitor for a long command; from here on a first signal only asks to stop.
    pub(crate) fn watch(self: &Arc<Self>) -> Arc<dyn Monitor> {
        self.watched.store(true, Ordering::Relaxed);
        if matches!(self.show, Show::Bar | Show::Lines) {
            let mut state = self.state();
            if state.drawer.is_none() && !state.closed {
                let progress = Arc::clone(self);
                let drawer = std::thread::Builder::new().name("everpack-progress".to_owned());
                // Without the thread there is no progress to see, and the work goes on.
                state.drawer = drawer.spawn(move || progress.draw_until_closed()).ok();
            }
        }
        Arc::clone(self) as Arc<dyn Monitor>
    }

    /// True if somebody looks at a bar, so that a total is worth finding out.
    pub(crate) fn wants_total(&self) -> bool {
        self.show == Show::Bar
    }

    /// A total that was found out beside the running phase.
    pub(crate) fn set_total(&self, bytes: u64, items: u64) {
        self.counts.total_bytes.store(bytes, Ordering::Relaxed);
        self.counts.total_items.store(items, Ordering::Relaxed);
    }

    /// Asks to stop. True if it was asked before, or if nothing runs that would notice.
    pub(crate) fn cancel(&self) -> bool {
        if self.cancelled.swap(true, Ordering::Relaxed) || !self.watched.load(Ordering::Relaxed) {
            return true;
        }
        self.say("stopping at a safe point; once more to stop at once");
        false
    }

    /// True once it was asked to stop.
    pub(crate) fn was_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// True if this warning was shown while the command ran.
    pub(crate) fn has_said(&self, message: &str) -> bool {
        self.state().said.contains(message)
    }

    /// A remark on standard error, above the bar if there is one.
    fn say(&self, message: &str) {
        match self.show {
            Show::Nothing => {}
            Show::Lines => to_stderr(&serde_json::json!({"event": "warning", "message": message}).to_string()),
            Show::Warnings => to_stderr(&format!("everpack: {}", one_line(message))),
            Show::Bar => match &self.state().bar {
                Some(bar) => bar.suspend(|| to_stderr(&format!("everpack: {}", one_line(message)))),
                None => to_stderr(&format!("everpack: {}", one_line(message))),
            },
        }
    }

    /// True once nothing is shown any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Takes the bar away; nothing is shown afterwards.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let drawer = state.drawer.take();
        drop(state);
        self.wake.notify_all();
        if let Some(drawer) = drawer
            && drawer.thread().id() != std::thread::current().id()
        {
            // A drawer that panicked has drawn enough.
            let _ended = drawer.join();
        }
        if let Some(bar) = self.state().bar.take() {
            bar.finish_and_clear();
        }
    }

    fn draw_until_closed(&self) {
        let every = if self.show == Show::Lines { LINE_EVERY } else { DRAW_EVERY };
        let mut state = self.state();
        while !state.closed {
            state = self.wake.wait_timeout(state, every).unwrap_or_else(PoisonError::into_inner).0;
            if state.closed {
                break;
            }
            match self.show {
                Show::Lines => self.write_line(&state),
                _ => self.draw(&mut state),
            }
        }
    }

    fn write_line(&self, state: &State) {
        let Some(phase) = state.phase else { return };
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let line = Line {
            event: "progress",
            phase,
            bytes: get(&self.counts.bytes),
            total_bytes: get(&self.counts.total_bytes),
            items: get(&self.counts.items),
            total_items: get(&self.counts.total_items),
            new_bytes: get(&self.counts.new_bytes),
            seconds: (state.begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        };
        if let Ok(line) = serde_json::to_string(&line) {
            to_stderr(&line);
        }
    }

    fn draw(&self, state: &mut State) {
        let Some(phase) = state.phase else { return };
        let bar = state.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style(WITHOUT_TOTAL));
            bar
        });
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (bytes, total) = (get(&self.counts.bytes), get(&self.counts.total_bytes));
        if total > 0 && bar.length().is_none() {
            bar.set_style(style(WITH_TOTAL));
        }
        if total > 0 {
            bar.set_length(total.max(bytes));
        }
        bar.set_prefix(phase.to_string());
        bar.set_position(bytes);
        bar.set_message(self.text(phase, state.begun.elapsed()));
        bar.tick();
    }

    /// `1.2 GiB of 4.0 GiB, 310 MiB/s, 9s left, 1,204 files, new 120 MiB, reused 1.1 GiB`.
    fn text(&self, phase: Phase, elapsed: Duration) -> String {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (bytes, total, new) = (get(&self.counts.bytes), get(&self.counts.total_bytes), get(&self.counts.new_bytes));
        let items = get(&self.counts.items);
        if bytes == 0 && items == 0 {
            return units::duration(elapsed);
        }
        let mut text = units::bytes(bytes);
        if total > 0 {
            text.push_str(&format!(" of {}", units::bytes(total.max(bytes))));
        }
        text.push_str(&format!(", {}", units::rate(bytes, elapsed)));
        if let Some(left) = time_left(bytes, total, elapsed) {
            text.push_str(&format!(", {} left", units::duration(left)));
        }
        let word =
            if matches!(phase, Phase::Checking | Phase::Scrubbing | Phase::Replicating) { "object" } else { "file" };
        text.push_str(&format!(", {}", plural(items, word)));
        if phase == Phase::BackingUp {
            let reused = bytes.saturating_sub(new);
            text.push_str(&format!(", new {}, reused {}", units::bytes(new), units::bytes(reused)));
        }
        text
    }
}

/// Told only once it means something.
fn time_left(bytes: u64, total: u64, elapsed: Duration) -> Option<Duration> {
    if total <= bytes || bytes == 0 || elapsed < Duration::from_secs(1) {
        return None;
    }
    #[allow(clippy::cast_precision_loss, reason = "shown to people")]
    let seconds = elapsed.as_secs_f64() * (total - bytes) as f64 / bytes as f64;
    Duration::try_from_secs_f64(seconds.ceil()).ok()
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

impl Monitor for Progress {
    fn event(&self, event: Event) {
        match &event {
            Event::Begin { phase, bytes, items } => {
                let mut state = self.state();
                // A total that was found out already stays.
                if *bytes > 0 || state.phase.is_some_and(|before| before != Phase::Opening) {
                    self.set_total(*bytes, *items);
                }
                for count in [&self.counts.bytes, &self.counts.new_bytes, &self.counts.items] {
                    count.store(0, Ordering::Relaxed);
                }
                state.phase = Some(*phase);
                state.begun = Instant::now();
            }
            Event::Total { bytes, items } => self.set_total(*bytes, *items),
            Event::Warning { message } => {
                self.say(message);
                self.state().said.insert(message.clone());
                return;
            }
            _ => {}
        }
        if self.show == Show::Lines
            && let Ok(line) = serde_json::to_string(&event)
        {
            to_stderr(&line);
        }
    }

    fn advance(&self, bytes: u64, new_bytes: u64, items: u64) {
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counts.new_bytes.fetch_add(new_bytes, Ordering::Relaxed);
        self.counts.items.fetch_add(items, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.was_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_when_it_means_something() {
        let second = Duration::from_secs(1);
        assert_eq!(time_left(100, 400, second), Some(3 * second));
        assert_eq!(time_left(100, 0, second), None);
        assert_eq!(time_left(100, 400, Duration::from_millis(900)), None);
        assert_eq!(time_left(400, 400, second), None);
    }

    #[test]
    fn a_phase_begins_at_nothing_and_says_what_is_new() {
        let progress = Progress::new(Show::Nothing);
        progress.advance(5, 5, 1);
        progress.event(Event::Begin { phase: Phase::BackingUp, bytes: 0, items: 0 });
        progress.advance(3 << 20, 1 << 20, 2);
        let text = progress.text(Phase::BackingUp, Duration::from_secs(1));
        assert_eq!(text, "3.0 MiB, 3.0 MiB/s, 2 files, new 1.0 MiB, reused 2.0 MiB");
        progress.set_total(6 << 20, 4);
        let text = progress.text(Phase::BackingUp, Duration::from_secs(1));
        assert_eq!(text, "3.0 MiB of 6.0 MiB, 3.0 MiB/s, 1.0s left, 2 files, new 1.0 MiB, reused 2.0 MiB");
    }

    #[test]
    fn the_second_signal_does_not_wait() {
        let progress = Progress::new(Show::Nothing);
        let monitor = progress.watch();
        assert!(!progress.cancel());
        assert!(monitor.cancelled());
        assert!(progress.cancel());
        assert!(Progress::new(Show::Nothing).cancel(), "nobody would notice");
    }
}
