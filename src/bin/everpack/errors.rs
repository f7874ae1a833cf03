//! What went wrong and what to do next, in two lines; and the exit codes.

use std::error::Error as _;
use std::process::ExitCode;

use clap::CommandFactory;
use everpack::error::{Error, ErrorKind, Result};

use crate::commands::Context;
use crate::output::{self, stdout_is_closed, to_stderr};

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// The answer is no: `probe` of a store that is not safe, `tae` of a file that is no object.
    Refused,
    /// Done, and something is damaged.
    Findings,
    /// Done without some files.
    Partial,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Findings => 2,
            Self::Partial => 3,
        }
    }
}

/// The exit code of an error.
fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Busy => 4,
        ErrorKind::WrongKey => 5,
        _ => 1,
    }
}

/// What to do next, by kind.
fn advice(error: &Error) -> &'static str {
    if error.is_disk_full() {
        return "Make room (outside the repository: never delete files in it) and run the same command again.";
    }
    match error.kind() {
        ErrorKind::Invalid => "Change the request; `--help` behind the command explains it with an example.",
        ErrorKind::NotFound => {
            "Check the name and the repository (-r or EVERPACK_REPO); `everpack list` shows the backups."
        }
        ErrorKind::Corrupt => {
            "`everpack check` tells what else is touched; `everpack repair` heals, `repair --from` with what a copy or a replica has."
        }
        ErrorKind::Unsupported => "Use a newer everpack, or another store; `everpack probe` tells what a store can do.",
        ErrorKind::Busy => "Wait for the other run and try again; if it is dead, `--takeover` ends its claim.",
        ErrorKind::Unavailable => "Check the disk, the network and the permissions, then run the same command again.",
        ErrorKind::WrongKey => "Use the key or passphrase that the repository was made with.",
        _ => "Run the same command again with -v.",
    }
}

/// The message and its causes, each said once, on one line.
pub(crate) fn message(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(at) = cause {
        let said = at.to_string();
        if !said.is_empty() && !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = at.source();
    }
    output::one_line(&text)
}

/// Prints how it ended, and gives the exit code.
pub(crate) fn conclude(context: &Context, outcome: Result<Exit>) -> ExitCode {
    // Whoever read our output has what it wanted; there is nobody to tell.
    if stdout_is_closed() {
        return ExitCode::SUCCESS;
    }
    let error = match outcome {
        Ok(exit) => return ExitCode::from(exit.code()),
        Err(error) => error,
    };
    let next = if context.progress.was_cancelled() {
        "It was stopped on request. Run the same command again to go on; nothing that was stored is sent twice."
    } else {
        advice(&error)
    };
    to_stderr(&format!("everpack: {}\n  {next}", message(&error)));
    ExitCode::from(code(error.kind()))
}

/// Prints help or version, or what is wrong with the command line.
pub(crate) fn tell_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A closed pipe behind `--help` is nobody's concern.
        let _closed = error.print();
        return ExitCode::SUCCESS;
    }
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    if matches!(error.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand) {
        to_stderr(crate::args::Cli::command().render_help().to_string().trim_end());
        return ExitCode::from(1);
    }
    to_stderr(&format!(
        "everpack: {}\n  `--help` behind the command explains it with an example.",
        usage_message(error)
    ));
    ExitCode::from(1)
}

/// Prints what is wrong with the settings file.
pub(crate) fn tell_settings(error: &Error) -> ExitCode {
    to_stderr(&format!("everpack: {}\n  Correct the file, or name another one by --config.", message(error)));
    ExitCode::from(1)
}

/// What is wrong with a command line, on one line.
pub(crate) fn usage_message(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let wanted: Vec<&str> =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information")).collect();
    let text = wanted.join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let io = std::io::Error::other("no route to host");
        let error = Error::io("read pack 3f9a", io).context("restore 41b7");
        assert_eq!(message(&error), "restore 41b7: read pack 3f9a: no route to host");
        let inner = Error::invalid("no route to host");
        let error = Error::with_source(ErrorKind::Busy, "read: no route to host", inner);
        assert_eq!(message(&error), "read: no route to host");
    }

    #[test]
    fn every_kind_has_its_code() {
        assert_eq!(code(ErrorKind::Busy), 4);
        assert_eq!(code(ErrorKind::WrongKey), 5);
        assert_eq!(code(ErrorKind::Corrupt), 1);
        assert_eq!(code(ErrorKind::NotFound), 1);
    }

    #[test]
    fn a_wrong_line_is_told_in_one() {
        let error = crate::args::Cli::command().try_get_matches_from(["everpack", "restore"]).unwrap_err();
        let message = usage_message(&error);
        assert!(message.contains("<BACKUP>") && !message.contains('\n'), "{message}");
    }
}
