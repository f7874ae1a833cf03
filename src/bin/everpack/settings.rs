//! Options from `everpack.toml`: keys are the long option names, a table per command.
//!
//! The command line is read twice. The first time tells which command is meant, which options are given there or in the environment, and where
//! the file is. Then the file's settings for what is *not* given are added as if they had been typed, and the line is read again: so a
//! setting obeys the same rules as the option, and precedence is command line, environment, file.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, FromArgMatches};
use everpack::error::{Context, Error, Result};
use everpack::source::display_path;
use toml::{Table, Value};

use crate::args::{Cli, command};
use crate::errors;

/// Options that make no sense in a file.
const NOT_IN_FILE: [&str; 3] = ["config", "help", "version"];

/// Why nothing runs.
pub(crate) enum Stop {
    /// Help, version, or a wrong command line.
    Usage(clap::Error),
    /// Something is wrong with the settings file.
    Settings(Error),
}

impl Stop {
    /// Prints it.
    pub(crate) fn tell(self) -> ExitCode {
        match self {
            Self::Usage(error) => errors::tell_usage(&error),
            Self::Settings(error) => errors::tell_settings(&error),
        }
    }
}

/// Reads the command line, environment and settings file.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Stop> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let command = command();
    let given = command.clone().try_get_matches_from(&args).map_err(Stop::Usage)?;
    if let Some(file) = find_file(&given).map_err(Stop::Settings)? {
        let name = display_path(file.as_os_str().as_encoded_bytes());
        let more = read_file(&file).and_then(|table| from_table(&command, &given, &table));
        let more = more.context(|| format!("read settings from {name}")).map_err(Stop::Settings)?;
        let at = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
        args.splice(at..at, more);
        let read = command.try_get_matches_from(&args);
        let read = read.map_err(|error| {
            let message = format!("read settings from {name}: {}", errors::usage_message(&error));
            Stop::Settings(Error::invalid(message))
        })?;
        return Cli::from_arg_matches(&read).map_err(Stop::Usage);
    }
    Cli::from_arg_matches(&given).map_err(Stop::Usage)
}

/// The settings file: one that is named must be there, others may be.
fn find_file(given: &ArgMatches) -> Result<Option<PathBuf>> {
    if let Some(named) = innermost(given).get_one::<PathBuf>("config") {
        return Ok(Some(named.clone()));
    }
    let mut places = vec![PathBuf::from("everpack.toml")];
    if let Some(directory) = user_directory("XDG_CONFIG_HOME", ".config") {
        places.push(directory.join("everpack").join("everpack.toml"));
        places.push(directory.join("everpack.toml"));
    }
    Ok(places.into_iter().find(|place| place.is_file()))
}

/// A directory of the user, by the variable of the XDG conventions or below the home directory.
pub(crate) fn user_directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(below_home)))
}

fn read_file(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("open it", error))?;
    text.parse::<Table>().map_err(|error| {
        let error = error.to_string();
        let words: Vec<&str> = error.split_whitespace().collect();
        Error::invalid(words.join(" "))
    })
}

/// The matches of the command that was named, which also hold the global options.
fn innermost(given: &ArgMatches) -> &ArgMatches {
    given.subcommand().map_or(given, |(_, command)| command)
}

/// The settings as arguments: those of every command, then those of the one that runs.
fn from_table(command: &clap::Command, given: &ArgMatches, table: &Table) -> Result<Vec<OsString>> {
    let running = given.subcommand_name();
    let mut typed = Vec::new();
    // What a command's own table says counts more than what stands above all tables.
    let own = running.and_then(|name| table.get(name)).and_then(Value::as_table);
    for (key, value) in table {
        if let Some(subcommand) = command.find_subcommand(key) {
            let Value::Table(settings) = value else {
                return Err(Error::invalid(format!("`{key}` is a command: write its settings as a table, `[{key}]`")));
            };
            for (key, value) in settings {
                let found = find_arg(subcommand, key).or_else(|| find_arg(command, key));
                let arg = found.ok_or_else(|| unknown(&format!("{}.{key}", subcommand.get_name())))?;
                let arguments = arguments(arg, key, value)?;
                let is_meant = running == Some(subcommand.get_name());
                if is_meant && !is_given(given, arg) && !is_excluded(given, subcommand, arg) {
                    typed.extend(arguments);
                }
            }
        } else {
            let arg = find_arg(command, key).ok_or_else(|| unknown(key))?;
            let arguments = arguments(arg, key, value)?;
            if !is_given(given, arg) && own.is_none_or(|own| !own.contains_key(key)) {
                typed.extend(arguments);
            }
        }
    }
    Ok(typed)
}

fn find_arg<'a>(command: &'a clap::Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(key) && !NOT_IN_FILE.contains(&key))
}

fn unknown(key: &str) -> Error {
    Error::invalid(format!("`{key}` is neither a long option nor a command with a table of its own"))
}

/// True if the command line or the environment says something about it.
fn is_given(given: &ArgMatches, arg: &Arg) -> bool {
    let source = innermost(given).value_source(arg.get_id().as_str());
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// True if the command line or the environment says something that cannot stand beside it: `forget 41b7` beside rules in the file.
fn is_excluded(given: &ArgMatches, command: &clap::Command, arg: &Arg) -> bool {
    let excludes = |other: &Arg| command.get_arg_conflicts_with(other).iter().any(|one| one.get_id() == arg.get_id());
    command.get_arguments().any(|other| is_given(given, other) && excludes(other))
}

/// One setting as it would be typed.
fn arguments(arg: &Arg, key: &str, value: &Value) -> Result<Vec<OsString>> {
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    let wrong = |wanted: &str| Err(Error::invalid(format!("`{key}` wants {wanted}, not {value}")));
    match (is_flag, value) {
        (true, Value::Boolean(true)) => Ok(vec![format!("--{key}").into()]),
        (true, Value::Boolean(false)) => Ok(Vec::new()),
        (true, _) => wrong("true or false"),
        (false, Value::Array(values)) if matches!(arg.get_action(), ArgAction::Append) => {
            values.iter().map(|value| typed(key, value)).collect()
        }
        (false, Value::Array(_)) => wrong("one value"),
        (false, value) => Ok(vec![typed(key, value)?]),
    }
}

fn typed(key: &str, value: &Value) -> Result<OsString> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        _ => return Err(Error::invalid(format!("`{key}` wants a text or a number, not {value}"))),
    };
    let mut argument = OsString::from(format!("--{key}="));
    argument.push(OsStr::new(&text));
    Ok(argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line and a file give together.
    fn typed_by(line: &[&str], file: &str) -> Result<Vec<String>> {
        let command = command();
        let given = command.clone().try_get_matches_from(line).expect("the line is right");
        let typed = from_table(&command, &given, &file.parse().expect("valid TOML"))?;
        Ok(typed.into_iter().map(|arg| arg.into_string().unwrap()).collect())
    }

    #[test]
    fn the_command_line_wins_and_tables_are_for_their_command() {
        let file = "memory = '1G'\nquiet = true\n[backup]\ntag = ['a', 'b']\nforce = false\n[restore]\nfast = true";
        let backup = ["everpack", "backup", "/x"];
        assert_eq!(typed_by(&backup, file).unwrap(), ["--tag=a", "--tag=b", "--memory=1G", "--quiet"]);
        let line = ["everpack", "backup", "/x", "--tag", "c", "--memory", "2G"];
        assert_eq!(typed_by(&line, file).unwrap(), ["--quiet"]);
        let line = ["everpack", "restore", "latest", "/x", "-q"];
        assert_eq!(typed_by(&line, file).unwrap(), ["--memory=1G", "--fast"]);
    }

    #[test]
    fn a_commands_own_table_beats_the_top() {
        let file = "memory = '1G'\n[backup]\nmemory = '2G'";
        assert_eq!(typed_by(&["everpack", "backup", "/x"], file).unwrap(), ["--memory=2G"]);
        assert_eq!(typed_by(&["everpack", "list"], file).unwrap(), ["--memory=1G"]);
    }

    #[test]
    fn a_setting_gives_way_to_what_excludes_it() {
        let file = "quiet = true\n[forget]\nkeep-last = 2\nkeep-tag = ['gold']\nreason = 'monthly'";
        assert_eq!(typed_by(&["everpack", "forget", "41b7"], file).unwrap(), ["--reason=monthly", "--quiet"]);
        let all = ["--keep-last=2", "--keep-tag=gold", "--reason=monthly", "--quiet"];
        assert_eq!(typed_by(&["everpack", "forget"], file).unwrap(), all);
        assert_eq!(typed_by(&["everpack", "forget", "--keep-last", "3"], file).unwrap(), all[1..]);
    }

    #[test]
    fn what_no_option_is_called_is_refused_by_name() {
        for (file, word) in [
            ("memroy = '1G'", "memroy"),
            ("config = 'x'", "config"),
            ("[restore]\ntag = 'x'", "restore.tag"),
            ("backup = true", "table"),
            ("json = 'yes'", "true or false"),
            ("repo = ['a', 'b']", "one value"),
            ("memory = 1979-05-27", "a text or a number"),
        ] {
            let error = typed_by(&["everpack", "list"], file).unwrap_err();
            assert!(error.message().contains(word), "{file}: {error}");
        }
    }
}
