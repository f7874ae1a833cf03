//! What goes to standard output: tables and text for people, one JSON document for programs. And lines on standard error.

use std::io::{BufWriter, IsTerminal, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use comfy_table::{CellAlignment, Table, presets};
use everpack::error::{Error, Result};
use serde::Serialize;

/// Whoever read our output has gone; the program ends quietly then.
static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// True once standard output is a pipe that nobody reads any more.
pub(crate) fn stdout_is_closed() -> bool {
    STDOUT_CLOSED.load(Ordering::Relaxed)
}

/// Standard output, buffered.
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    out: Mutex<BufWriter<Watched>>,
}

/// Standard output that remembers when it was closed.
struct Watched(Stdout);

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).inspect_err(note)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().inspect_err(note)
    }
}

fn note(error: &std::io::Error) {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        STDOUT_CLOSED.store(true, Ordering::Relaxed);
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("write to standard output", error)
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, out: Mutex::new(BufWriter::with_capacity(64 << 10, Watched(std::io::stdout()))) }
    }

    fn lock(&self) -> MutexGuard<'_, BufWriter<Watched>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line that was asked for.
    pub(crate) fn line(&self, line: &str) -> Result<()> {
        writeln!(self.lock(), "{line}").map_err(failed)
    }

    /// Text as it is.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<()> {
        self.lock().write_all(bytes).map_err(failed)
    }

    /// A report: what a command says of what it did. The document always comes, the text unless quiet.
    pub(crate) fn report<T: Serialize>(&self, document: &T, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            return self.document(document);
        }
        if self.quiet {
            return Ok(());
        }
        self.raw(text().as_bytes())
    }

    /// What was asked for: as a document or as text, quiet or not.
    pub(crate) fn answer<T: Serialize>(&self, document: &T, text: impl FnOnce() -> String) -> Result<()> {
        if self.json { self.document(document) } else { self.raw(text().as_bytes()) }
    }

    /// One JSON document.
    pub(crate) fn document<T: Serialize>(&self, document: &T) -> Result<()> {
        let mut out = self.lock();
        let written = serde_json::to_writer_pretty(&mut *out, document);
        written.map_err(std::io::Error::from).and_then(|()| out.write_all(b"\n")).map_err(failed)
    }

    /// Begins a document that is one long list.
    pub(crate) fn list(&self) -> Result<List<'_>> {
        self.raw(b"[")?;
        Ok(List { output: self, first: true })
    }

    /// Writes out what is buffered.
    pub(crate) fn flush(&self) -> Result<()> {
        self.lock().flush().map_err(failed)
    }
}

/// A JSON list, written element by element.
pub(crate) struct List<'a> {
    output: &'a Output,
    first: bool,
}

impl List<'_> {
    pub(crate) fn push<T: Serialize>(&mut self, element: &T) -> Result<()> {
        let text = serde_json::to_string(element).map_err(|error| failed(error.into()))?;
        self.output.raw(if self.first { b"\n  " } else { b",\n  " })?;
        self.first = false;
        self.output.raw(text.as_bytes())
    }

    pub(crate) fn end(self) -> Result<()> {
        self.output.raw(if self.first { b"]\n" } else { b"\n]\n" })
    }
}

/// The first error of a row of calls; nothing is done after it.
#[derive(Debug, Default)]
pub(crate) struct FirstError(Option<Error>);

impl FirstError {
    /// Does the next thing, unless one failed before.
    pub(crate) fn then(&mut self, next: impl FnOnce() -> Result<()>) {
        if self.0.is_none() {
            self.0 = next().err();
        }
    }

    /// How it went.
    pub(crate) fn into_result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// A writer that keeps standard output's errors known; for `cat`.
pub(crate) fn stdout_writer() -> impl Write + Send {
    BufWriter::with_capacity(256 << 10, Watched(std::io::stdout()))
}

/// Lines on standard error. If they cannot be written, there is nobody to tell.
pub(crate) fn to_stderr(text: &str) {
    let mut err = std::io::stderr().lock();
    let _lost = writeln!(err, "{text}");
}

/// A table without lines: columns of numbers are right-aligned.
pub(crate) fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A table as text, without blanks at the ends of lines.
pub(crate) fn render(table: &Table) -> String {
    let mut text: String = table.lines().fold(String::new(), |mut text, line| {
        text.push_str(line.trim_end());
        text.push('\n');
        text
    });
    if text.is_empty() {
        text.push('\n');
    }
    text
}

/// Text of unknown origin on one line: line ends and other control characters are escaped.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

/// `1 file`, `2 files`.
pub(crate) fn plural(count: u64, one: &str) -> String {
    let number = everpack::units::count(count);
    match (count, one.strip_suffix('y')) {
        (1, _) => format!("{number} {one}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ => format!("{number} {one}s"),
    }
}

/// True if progress bars make sense.
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_on_its_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
    }

    #[test]
    fn tables_are_aligned_and_end_without_blanks() {
        let mut table = table(&["id", "size"], &[1]);
        table.add_row(vec!["a", "1"]);
        table.add_row(vec!["bbbb", "1000"]);
        assert_eq!(render(&table), "id    size\na        1\nbbbb  1000\n");
    }

    #[test]
    fn counts_have_their_words() {
        assert_eq!(plural(1, "file"), "1 file");
        assert_eq!(plural(1200, "file"), "1,200 files");
        assert_eq!(plural(0, "directory"), "0 directories");
        assert_eq!(plural(2, "log entry"), "2 log entries");
    }
}
