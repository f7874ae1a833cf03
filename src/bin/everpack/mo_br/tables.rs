//! The two layouts of tables that `mo_br` prints, to the blank: scripts cut columns out of them.
//!
//! - [`bordered`]: lines around it, cells centred and re-flowed at 30 columns. For `list` and `check`.
//! - [`padded`]: no lines, columns padded and ended by a TAB. For `show`.

use std::fmt::Write;

/// Cells are broken into lines of this width, unless a word is longer.
const REFLOW_AT: usize = 30;
/// What a line that is too long costs when a cell is broken.
const TOO_LONG: usize = 100_000;

/// What stands in a cell of a bordered table.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    /// One paragraph, broken where it reads best.
    Flow(String),
    /// These lines.
    Lines(Vec<String>),
}

impl Cell {
    fn lines(&self) -> (Vec<String>, usize) {
        match self {
            Self::Flow(text) => reflow(text),
            Self::Lines(lines) => {
                let width = lines.iter().map(|line| width(line)).max().unwrap_or(0);
                (lines.clone(), width)
            }
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Flow(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Flow(text)
    }
}

/// Columns that text takes: wide East Asian characters take two.
fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    match u32::from(c) {
        0..=0x1f | 0x7f..=0x9f | 0x300..=0x36f | 0x200b..=0x200f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Breaks a paragraph into lines of least raggedness; gives them, and the width that the column needs at least.
fn reflow(text: &str) -> (Vec<String>, usize) {
    let raw = text.lines().map(width).max().unwrap_or(0).min(REFLOW_AT);
    let text = text.replace(['\n', '\r'], " ");
    let words: Vec<&str> = text.split(' ').collect();
    // A paragraph of thousands of words is no cell of ours: one line, as the search below is quadratic.
    if words.len() > 512 {
        return (vec![text.clone()], width(&text));
    }
    let lines = break_words(&words, words.iter().map(|word| width(word)).max().unwrap_or(0).max(raw));
    let widest = lines.iter().map(|line| width(line)).max().unwrap_or(0);
    (lines, widest.max(raw))
}

fn break_words(words: &[&str], limit: usize) -> Vec<String> {
    let count = words.len();
    let widths: Vec<usize> = words.iter().map(|word| width(word)).collect();
    let mut cost = vec![usize::MAX; count + 1];
    let mut next = vec![count; count + 1];
    cost[count] = 0;
    for first in (0..count).rev() {
        if widths[first..].iter().sum::<usize>() + (count - first - 1) <= limit {
            (cost[first], next[first]) = (0, count);
            continue;
        }
        let mut len = 0;
        for end in first + 1..count {
            len += widths[end - 1] + usize::from(end > first + 1);
            let ragged = limit.abs_diff(len);
            let penalty = if len > limit { TOO_LONG } else { 0 };
            let total = (ragged * ragged).saturating_add(penalty).saturating_add(cost[end]);
            if total < cost[first] {
                (cost[first], next[first]) = (total, end);
            }
        }
    }
    let mut lines = Vec::new();
    let mut at = 0;
    while at < count {
        lines.push(words[at..next[at]].join(" "));
        at = next[at];
    }
    lines
}

/// A table with lines around it and below its header.
pub(super) fn bordered(header: &[&str], rows: &[Vec<Cell>]) -> String {
    let header: Vec<(Vec<String>, usize)> = header.iter().map(|name| (vec![(*name).to_owned()], width(name))).collect();
    let rows: Vec<Vec<(Vec<String>, usize)>> = rows.iter().map(|row| row.iter().map(Cell::lines).collect()).collect();
    let mut widths = vec![0; header.len()];
    for row in std::iter::once(&header).chain(&rows) {
        widths.iter_mut().zip(row).for_each(|(widest, (_, width))| *widest = (*widest).max(*width));
    }
    let mut border: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect();
    border.push_str("+\n");
    let mut text = border.clone();
    push_row(&mut text, &header, &widths);
    text.push_str(&border);
    rows.iter().for_each(|row| push_row(&mut text, row, &widths));
    text.push_str(&border);
    text
}

fn push_row(text: &mut String, cells: &[(Vec<String>, usize)], widths: &[usize]) {
    let height = cells.iter().map(|(lines, _)| lines.len()).max().unwrap_or(0);
    for at in 0..height {
        for (column, width) in widths.iter().enumerate() {
            let line = cells.get(column).and_then(|(lines, _)| lines.get(at)).map_or("", String::as_str);
            text.push_str("| ");
            push_centred(text, line, *width);
            text.push(' ');
        }
        text.push_str("|\n");
    }
}

fn push_centred(text: &mut String, line: &str, columns: usize) {
    let gap = columns.saturating_sub(width(line));
    let left = gap / 2;
    // Writing to a string cannot fail.
    let _ = write!(text, "{:left$}{line}{:right$}", "", "", right = gap - left);
}

/// A table without lines: centred header, cells padded and each ended by a TAB.
pub(super) fn padded(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|name| width(name)).collect();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| crate::output::one_line(cell)).collect()).collect();
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(widest, cell)| *widest = (*widest).max(width(cell)));
    }
    let mut text = String::new();
    for (at, (name, width)) in header.iter().zip(&widths).enumerate() {
        if at > 0 {
            text.push('\t');
        }
        push_centred(&mut text, name, *width);
    }
    text.push_str(" \n");
    for row in &rows {
        for (cell, columns) in row.iter().zip(&widths) {
            let pad = " ".repeat(columns.saturating_sub(width(cell)));
            if is_number(cell) {
                text.push_str(&pad);
                text.push_str(cell);
            } else {
                text.push_str(cell);
                text.push_str(&pad);
            }
            text.push('\t');
        }
        text.push('\n');
    }
    text
}

/// Numbers stand at the right.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix(['-', '+']).unwrap_or(cell);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let decimal = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    decimal(whole) && fraction.is_none_or(decimal)
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
