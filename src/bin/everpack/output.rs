//! What goes to standard output: tables and text for people, one JSON document for programs. And lines on standard error.

use std::io::{BufWriter, IsTerminal, Stdout, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use comfy_table::{CellAlignment, Table, presets};
use everpack::error::{Error, Result};
pub(crate) use everpack::units::plural;
use serde::Serialize;

/// Why standard output could not be written. It stays in the chain of causes, so that whoever ends the program knows whose fault it was.
#[derive(Debug)]
struct OutputLost(std::io::Error);

impl std::fmt::Display for OutputLost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for OutputLost {}

/// What went wrong with standard output, if that is what the error is about.
pub(crate) fn output_lost(error: &Error) -> Option<std::io::ErrorKind> {
    let mut cause = std::error::Error::source(error);
    while let Some(at) = cause {
        if let Some(lost) = at.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(OutputLost(error)) = lost.downcast_ref()
        {
            return Some(error.kind());
        }
        cause = at.source();
    }
    None
}

/// True if standard output is a pipe that nobody reads any more: whoever read it has what it wanted.
pub(crate) fn reader_is_gone(error: &Error) -> bool {
    output_lost(error) == Some(std::io::ErrorKind::BrokenPipe)
}

/// The same, but that nobody reads the output is no failure: what the command did counts, and its exit code.
pub(crate) fn unread_is_fine(written: Result<()>) -> Result<()> {
    written.or_else(|error| if reader_is_gone(&error) { Ok(()) } else { Err(error) })
}

/// Standard output, buffered.
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    out: Mutex<BufWriter<Watched>>,
}

/// Standard output whose errors are known as its own.
struct Watched(Stdout);

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(own)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().map_err(own)
    }
}

fn own(error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), OutputLost(error))
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

    /// A report: what a command says of what it did. The document always comes, the text unless quiet. It is written at once, so that an
    /// error tells of the report and not of what came before it.
    pub(crate) fn report<T: Serialize>(&self, document: &T, text: impl FnOnce() -> String) -> Result<()> {
        if self.quiet && !self.json { Ok(()) } else { self.answer(document, text) }
    }

    /// What was asked for: as a document or as text, quiet or not.
    pub(crate) fn answer<T: Serialize>(&self, document: &T, text: impl FnOnce() -> String) -> Result<()> {
        let written = if self.json { self.document(document) } else { self.raw(text().as_bytes()) };
        unread_is_fine(written.and_then(|()| self.flush()))
    }

    /// One JSON document.
    fn document<T: Serialize>(&self, document: &T) -> Result<()> {
        let mut out = self.lock();
        let written = serde_json::to_writer_pretty(&mut *out, document);
        written.map_err(std::io::Error::from).and_then(|()| out.write_all(b"\n")).map_err(failed)
    }

    /// A document that is one long list. Nothing is written before its first element, or its end: a command that fails first leaves no
    /// half of a document.
    pub(crate) fn list(&self) -> List<'_> {
        List { output: self, first: true }
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
        self.output.raw(if self.first { b"[\n  " } else { b",\n  " })?;
        self.first = false;
        self.output.raw(text.as_bytes())
    }

    pub(crate) fn end(self) -> Result<()> {
        self.output.raw(if self.first { b"[]\n" } else { b"\n]\n" })
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

/// Text in lines of at most so many characters, the second and later ones indented. A longer word has a line of its own.
pub(crate) fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut wrapped = String::new();
    let mut at = 0;
    for (number, word) in text.split(' ').enumerate() {
        let len = word.chars().count();
        if at > 0 && at + 1 + len > width {
            wrapped.push('\n');
            wrapped.push_str(indent);
            at = indent.len();
        } else if number > 0 {
            wrapped.push(' ');
            at += 1;
        }
        wrapped.push_str(word);
        at += len;
    }
    wrapped
}

/// A mail or a file: lines should not be longer.
pub(crate) const LINE_MOST: usize = 100;

/// True if tables are as wide as the terminal that shows them.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
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
    fn long_text_is_wrapped_between_words() {
        assert_eq!(wrap("one two three", 20, "  "), "one two three");
        assert_eq!(wrap("one two three", 8, "  "), "one two\n  three");
        assert_eq!(wrap("a-very-long-word b", 5, "  "), "a-very-long-word\n  b");
        assert_eq!(wrap("  set in", 20, "  "), "  set in");
        assert_eq!(wrap("", 5, "  "), "");
    }
}
