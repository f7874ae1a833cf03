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

/// Columns of the bar, with its ends.
const BAR_COLUMNS: usize = 18;
/// If the terminal does not say.
const COLUMNS: usize = 80;

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
            bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        // The last column stays free: some terminals go on to the next line with it.
        bar.set_message(self.text(phase, state.begun.elapsed(), columns().saturating_sub(1)));
        bar.tick();
    }

    /// `backing up [====>          ]  30%  1.2 of 4.0 GiB, 310 MiB/s, 9s left, new 120 MiB, reused 1.1 GiB, 1,204 files`.
    ///
    /// In a narrow terminal whole parts are missing, the last first; percentage and bar are there if there is room for them as well.
    fn text(&self, phase: Phase, elapsed: Duration, columns: usize) -> String {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (bytes, total, new) = (get(&self.counts.bytes), get(&self.counts.total_bytes), get(&self.counts.new_bytes));
        let items = get(&self.counts.items);
        if bytes == 0 && items == 0 {
            return fit(&phase.to_string(), &[units::duration(elapsed)], columns).0;
        }
        let mut parts = vec![so_far(bytes, total), units::rate(bytes, elapsed)];
        parts.extend(time_left(bytes, total, elapsed).map(|left| format!("{} left", units::duration(left))));
        if phase == Phase::BackingUp {
            parts.push(format!("new {}", units::bytes(new)));
            parts.push(format!("reused {}", units::bytes(bytes.saturating_sub(new))));
        }
        let word =
            if matches!(phase, Phase::Checking | Phase::Scrubbing | Phase::Replicating) { "object" } else { "file" };
        parts.push(plural(items, word));
        let begin = phase.to_string();
        let mut shown = (begin.clone(), false);
        for begin in beginnings(&begin, bytes, total) {
            shown = fit(&begin, &parts, columns);
            if shown.1 {
                break;
            }
        }
        shown.0
    }
}

/// What stands before the figures, the longest first; the last one is the phase alone.
fn beginnings(phase: &str, bytes: u64, total: u64) -> Vec<String> {
    let mut beginnings = Vec::new();
    if total > 0 {
        let done = bytes.min(total);
        let percent = u128::from(done) * 100 / u128::from(total);
        beginnings.push(format!("{phase} {} {percent:>3}% ", drawn(done, total)));
        beginnings.push(format!("{phase} {percent:>3}% "));
    }
    beginnings.push(phase.to_owned());
    beginnings
}

/// `[=====>          ]`.
fn drawn(done: u64, total: u64) -> String {
    let room = BAR_COLUMNS - 2;
    let filled = u128::from(done) * room as u128 / u128::from(total.max(1));
    let filled = usize::try_from(filled).unwrap_or(room).min(room);
    let head = if filled < room { ">" } else { "" };
    format!("[{:<room$}]", format!("{}{head}", "=".repeat(filled)))
}

/// As many of the parts as there are columns for, but always the first; and whether all of them are there.
fn fit(begin: &str, parts: &[String], columns: usize) -> (String, bool) {
    let mut text = begin.to_owned();
    for (at, part) in parts.iter().enumerate() {
        let between = if at == 0 { " " } else { ", " };
        if at > 0 && text.chars().count() + between.len() + part.chars().count() > columns {
            return (text, false);
        }
        text.push_str(between);
        text.push_str(part);
    }
    let fits = text.chars().count() <= columns;
    (text, fits)
}

/// `1.2 of 4.0 GiB`, `900 MiB of 4.0 GiB`; without a total `1.2 GiB`.
fn so_far(bytes: u64, total: u64) -> String {
    let done = units::bytes(bytes);
    if total == 0 {
        return done;
    }
    let total = units::bytes(total.max(bytes));
    match (done.split_once(' '), total.split_once(' ')) {
        (Some((number, unit)), Some((_, of))) if unit == of => format!("{number} of {total}"),
        _ => format!("{done} of {total}"),
    }
}

/// How wide the terminal is now.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(COLUMNS)
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
        let text = progress.text(Phase::BackingUp, Duration::from_secs(1), 100);
        assert_eq!(text, "backing up 3.0 MiB, 3.0 MiB/s, new 1.0 MiB, reused 2.0 MiB, 2 files");
    }

    #[test]
    fn whole_parts_are_dropped_until_it_fits() {
        let progress = Progress::new(Show::Nothing);
        progress.event(Event::Begin { phase: Phase::BackingUp, bytes: 0, items: 0 });
        progress.set_total(6 << 20, 4);
        progress.advance(3 << 20, 1 << 20, 2);
        let at = |columns| progress.text(Phase::BackingUp, Duration::from_secs(1), columns);
        let figures = "3.0 of 6.0 MiB, 3.0 MiB/s, 1.0s left, new 1.0 MiB, reused 2.0 MiB, 2 files";
        assert_eq!(at(120), format!("backing up [========>       ]  50%  {figures}"));
        assert_eq!(at(99), format!("backing up  50%  {figures}"));
        assert_eq!(at(86), format!("backing up {figures}"));
        assert_eq!(at(79), "backing up 3.0 of 6.0 MiB, 3.0 MiB/s, 1.0s left, new 1.0 MiB, reused 2.0 MiB");
        assert_eq!(at(39), "backing up 3.0 of 6.0 MiB, 3.0 MiB/s");
        assert_eq!(at(10), "backing up 3.0 of 6.0 MiB", "the first part is always there");
        for columns in 30..130 {
            assert!(at(columns).chars().count() <= columns, "{columns}: {}", at(columns));
        }
    }

    #[test]
    fn a_bar_is_full_at_the_end_only() {
        assert_eq!(drawn(0, 4), "[>               ]");
        assert_eq!(drawn(2, 4), "[========>       ]");
        assert_eq!(drawn(4, 4), "[================]");
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
