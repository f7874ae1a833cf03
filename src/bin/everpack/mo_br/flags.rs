//! Words of a command line, by the rules of cobra and pflag that callers of `mo_br` rely on.
//!
//! A flag that is no boolean swallows the next word, whatever it looks like; a boolean takes a value only behind `=`; the last of several
//! counts; `--` ends the flags; flags and positionals may stand in any order, also before the command's name. Empty words are positionals.
//! Nothing is shortened or guessed. What is wrong is said in the words of those libraries, because scripts look for them.

use std::collections::BTreeMap;

use super::commands::{Command, Flag, Kind, ROOT};

/// A command line that was understood.
#[derive(Debug)]
pub(super) struct Line {
    /// The commands from the root to the one that runs.
    pub(super) path: Vec<&'static Command>,
    /// Flags by their own names, never by another spelling.
    values: BTreeMap<&'static str, String>,
    /// What is no flag.
    pub(super) words: Vec<String>,
    /// `-h` or `--help` was given.
    pub(super) help: bool,
}

/// Why nothing runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// There is no such command below this one.
    Command { message: String, below: String },
    /// A flag of this command is wrong.
    Flag { message: String, path: Vec<&'static str> },
}

impl Line {
    /// The command that runs.
    pub(super) fn command(&self) -> &'static Command {
        self.path.last().copied().unwrap_or(&ROOT)
    }

    /// What was given for a flag, or its default; `None` if that is nothing. An empty word is nothing: scripts pass `""` for what they leave out.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(find_flag(&self.path, name).is_some(), "no flag {name}");
        let default = || find_flag(&self.path, name).map_or("", |flag| flag.default);
        Some(self.values.get(name).map_or_else(default, String::as_str)).filter(|text| !text.is_empty())
    }

    /// What was given for a flag, without one pair of quotes around it: a script that quotes twice passes them on.
    pub(super) fn unquoted(&self, name: &str) -> Option<&str> {
        self.text(name).map(unquote).filter(|text| !text.is_empty())
    }

    /// True if the flag was given, be it as nothing.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// True if the boolean flag was given, and not as false.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| parse_bool(value) == Some(true))
    }

    /// The first positional that is not empty.
    pub(super) fn word(&self) -> Option<&str> {
        self.words.iter().map(String::as_str).find(|word| !word.is_empty())
    }
}

/// Takes one matching pair of quotes off.
pub(super) fn unquote(text: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}

/// Reads the words behind the program's name.
pub(super) fn parse(words: &[String]) -> Result<Line, Wrong> {
    let mut path: Vec<&'static Command> = vec![&ROOT];
    let mut rest: Vec<&str> = words.iter().map(String::as_str).collect();
    while let Some(at) = first_positional(&path, &rest) {
        let command = path.last().copied().unwrap_or(&ROOT);
        let Some(next) = command.commands.iter().find(|next| next.name == rest[at]) else { break };
        path.push(next);
        rest.remove(at);
    }
    let line = parse_flags(path, &rest)?;
    // Only the root refuses words that are no command; the others take any, as cobra has it.
    if let ([_], Some(word)) = (line.path.as_slice(), line.words.first())
        && !line.help
    {
        let message = format!("unknown command {word:?} for \"{}\"{}", ROOT.name, suggestions(word));
        return Err(Wrong::Command { message, below: ROOT.name.to_owned() });
    }
    Ok(line)
}

/// Where the first word is that is neither a flag nor swallowed by one.
fn first_positional(path: &[&'static Command], words: &[&str]) -> Option<usize> {
    let mut at = 0;
    while at < words.len() {
        let word = words[at];
        if word == "--" {
            return None;
        }
        let swallows = match word.strip_prefix("--") {
            Some(name) => !name.contains('=') && !takes_no_word(path, name),
            None => word.len() == 2 && word.starts_with('-') && word != "-h",
        };
        if swallows {
            at += 2;
        } else if word.is_empty() || word.starts_with('-') {
            at += 1;
        } else {
            return Some(at);
        }
    }
    None
}

/// Before the command is known, a flag that nobody knows yet counts as one with a value; booleans of any command are known by their name.
fn takes_no_word(path: &[&'static Command], name: &str) -> bool {
    name == "help"
        || find_flag(path, name).map_or_else(|| is_boolean_anywhere(&ROOT, name), |flag| flag.kind == Kind::Bool)
}

fn is_boolean_anywhere(command: &Command, name: &str) -> bool {
    let own = command.flags().find(|flag| flag.is_called(name));
    own.is_some_and(|flag| flag.kind == Kind::Bool)
        || command.commands.iter().any(|below| is_boolean_anywhere(below, name))
}

/// The flag of that name which the command has, or inherits from the root.
pub(super) fn find_flag(path: &[&'static Command], name: &str) -> Option<&'static Flag> {
    let own = path.last().into_iter().flat_map(|command| command.flags());
    own.chain(ROOT.flags()).find(|flag| flag.is_called(name))
}

fn parse_flags(path: Vec<&'static Command>, words: &[&str]) -> Result<Line, Wrong> {
    let names: Vec<&'static str> = path.iter().map(|command| command.name).collect();
    let wrong = |message: String| Wrong::Flag { message, path: names.clone() };
    let mut line = Line { path, values: BTreeMap::new(), words: Vec::new(), help: false };
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        if word.len() < 2 || !word.starts_with('-') {
            line.words.push(word.to_owned());
        } else if word == "--" {
            line.words.extend(words.by_ref().map(str::to_owned));
        } else if let Some(long) = word.strip_prefix("--") {
            if long.starts_with(['-', '=']) {
                return Err(wrong(format!("bad flag syntax: {word}")));
            }
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            if name == "help" {
                line.help |= value.and_then(parse_bool).unwrap_or(true);
                continue;
            }
            let flag = find_flag(&line.path, name).ok_or_else(|| wrong(format!("unknown flag: --{name}")))?;
            let value = match (value, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true",
                (None, _) => words.next().ok_or_else(|| wrong(format!("flag needs an argument: --{name}")))?,
            };
            check(flag, name, value).map_err(wrong)?;
            line.values.insert(flag.name, value.to_owned());
        } else {
            parse_short(&mut line, word).map_err(wrong)?;
        }
    }
    Ok(line)
}

/// There is one short flag, `-h`.
fn parse_short(line: &mut Line, word: &str) -> Result<(), String> {
    for c in word.chars().skip(1) {
        if c != 'h' {
            return Err(format!("unknown shorthand flag: {c:?} in {word}"));
        }
        line.help = true;
    }
    Ok(())
}

fn check(flag: &Flag, name: &str, value: &str) -> Result<(), String> {
    let wrong = |parser: &str, why: &str| {
        Err(format!("invalid argument {value:?} for \"--{name}\" flag: strconv.{parser}: parsing {value:?}: {why}"))
    };
    match flag.kind {
        Kind::Text => Ok(()),
        Kind::Bool if parse_bool(value).is_some() => Ok(()),
        Kind::Bool => wrong("ParseBool", "invalid syntax"),
        // Nothing given is what scripts pass for what they leave out.
        Kind::Number if value.is_empty() => Ok(()),
        Kind::Number => match unquote(value).parse::<u32>() {
            Ok(_) => Ok(()),
            Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => {
                wrong("ParseInt", "value out of range")
            }
            Err(_) => wrong("ParseInt", "invalid syntax"),
        },
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Commands that are spelt much like the word.
fn suggestions(word: &str) -> String {
    let near = |command: &&Command| {
        distance(&word.to_lowercase(), command.name) <= 2 || command.name.starts_with(&word.to_lowercase())
    };
    let near: Vec<&str> = ROOT.commands.iter().filter(near).map(|command| command.name).collect();
    if word.is_empty() || near.is_empty() {
        return String::new();
    }
    near.iter().fold("\n\nDid you mean this?\n".to_owned(), |text, name| format!("{text}\t{name}\n"))
}

/// Letters to change, add or take away between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, c) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, d) in b.iter().enumerate() {
            let change = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[path = "flags_tests.rs"]
mod tests;
