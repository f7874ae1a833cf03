//! What went wrong and what to do next, in two lines; and the exit codes.

use std::error::Error as _;
use std::process::ExitCode;

use everpack::error::{Error, ErrorKind, Result};

use crate::commands::Context;
use crate::output::{self, output_lost, reader_is_gone, to_stderr};

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

/// What was being done, as far as the advice depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Opening the repository.
    Open,
    /// Looking for a backup by its name.
    Find,
    /// Making a repository.
    Init,
    /// Storing a source as a backup.
    Backup,
    /// The same with trees.
    Import,
    /// Writing files of a backup into a target.
    Restore,
    /// The same into a scratch directory, for a server.
    Verify,
    /// Reading something that the command line names, and that is in no repository.
    Read,
    /// Writing a file that the command line names: metrics, a page, manual pages.
    Write,
}

/// Keeps what was being done in the chain of causes, where it is looked for and says nothing.
#[derive(Debug)]
struct During {
    act: Act,
    error: Error,
}

impl std::fmt::Display for During {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

impl std::error::Error for During {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Says what was being done when something failed, for the advice; the message stays as it is.
pub(crate) trait Doing {
    /// What was said nearer to the failure counts more.
    fn doing(self, act: Act) -> Self;
}

impl<T> Doing for Result<T> {
    fn doing(self, act: Act) -> Self {
        self.map_err(|error| {
            let message = error.message().to_owned();
            Error::with_source(error.kind(), message, During { act, error })
        })
    }
}

/// What the advice depends on.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: ErrorKind,
    act: Option<Act>,
    /// The system, the network or a store said no; without it the reason is ours.
    from_outside: bool,
}

impl Case {
    fn of(error: &Error) -> Self {
        let mut case = Self { kind: error.kind(), act: None, from_outside: false };
        let mut cause = error.source();
        while let Some(at) = cause {
            if let Some(During { act, .. }) = at.downcast_ref() {
                case.act = Some(*act);
            } else if !at.is::<Error>() {
                case.from_outside = true;
            }
            cause = at.source();
        }
        case
    }
}

/// What to do next: first what stands in the way whatever was being done, then by kind and act.
fn advice(error: &Error) -> &'static str {
    let case = Case::of(error);
    if output_lost(error).is_some() {
        return "Only standard output is at fault: make room where it goes, or send it elsewhere.";
    }
    if error.is_disk_full() {
        return match case.act {
            Some(Act::Restore) => {
                "Make room where the files go and run the same command again with --delta: it keeps what is whole."
            }
            Some(Act::Verify) => {
                "Make room there, or name a larger place by --scratch, and run the same command again."
            }
            Some(Act::Write) => "Make room there, or name another place.",
            _ => {
                "Make room and run the same command again. If it is the repository's disk: `everpack forget` and `everpack prune` give space \
                 back; never delete files in it."
            }
        };
    }
    match (case.kind, case.act) {
        (ErrorKind::Invalid, _) => "Change the request; `--help` behind the command explains it with an example.",
        (ErrorKind::NotFound, Some(Act::Open)) => {
            "Check where the repository is: -r, EVERPACK_REPO, or `repo` in everpack.toml."
        }
        (ErrorKind::NotFound, Some(Act::Init | Act::Read | Act::Backup | Act::Import | Act::Verify)) => {
            "Check the path that it names, from where you are now."
        }
        (ErrorKind::NotFound, Some(Act::Write)) => "Make the directory that it is to be in, or name another place.",
        (ErrorKind::NotFound, Some(Act::Restore)) => {
            "Check the name; `everpack ls -R BACKUP` shows what is in a backup."
        }
        (ErrorKind::NotFound, _) => {
            "Check the name and the repository (-r or EVERPACK_REPO); `everpack list` shows the backups."
        }
        (ErrorKind::Corrupt, Some(Act::Open)) => {
            "`everpack repair --from COPY` brings it back from a copy of this repository; without one, `everpack -r NEW repair --salvage \
             OLD` makes a new one of what is left."
        }
        (ErrorKind::Corrupt, _) => {
            "`everpack check` tells what else is touched; `everpack repair` heals, `repair --from` with what a copy or a replica has."
        }
        (ErrorKind::Unsupported, Some(Act::Init)) => "Use another store; `everpack probe` tells what one can do.",
        (ErrorKind::Unsupported, _) if case.from_outside => {
            "Use another store; `everpack probe` tells what this one can do."
        }
        (ErrorKind::Unsupported, _) => "Use a newer everpack, one that knows what this was written with.",
        (ErrorKind::Busy, Some(Act::Backup | Act::Import)) => {
            "Wait for the other run and try again; if it is dead, `--takeover` ends its claim."
        }
        (ErrorKind::Busy, _) => "Wait until the other one is done, or end it, and run the same command again.",
        (ErrorKind::Unavailable, Some(Act::Restore)) => {
            "Check the disk, the network and the permissions, then run the same command again with --delta: it keeps what is whole."
        }
        (ErrorKind::Unavailable, Some(Act::Backup | Act::Import)) if !case.from_outside => {
            "See to what it names: a file must be readable, and stay as it is while it is read. Then run the same command again."
        }
        (ErrorKind::Unavailable, _) => {
            "Check the disk, the network and the permissions, then run the same command again."
        }
        (ErrorKind::WrongKey, _) => "Use the key or passphrase that the repository was made with.",
        _ => "Run the same command again with -v.",
    }
}

/// What to do after a stop on request.
fn advice_when_stopped(error: &Error) -> &'static str {
    match Case::of(error).act {
        Some(Act::Restore) => {
            "It was stopped on request. Run the same command again with --delta to go on: what is whole is kept."
        }
        Some(Act::Backup | Act::Import) => {
            "It was stopped on request. Run the same command again to go on; nothing that was stored is sent twice."
        }
        _ => "It was stopped on request. Run the same command again to go on.",
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
    let error = match outcome {
        Ok(exit) => return ExitCode::from(exit.code()),
        // There is nobody to tell.
        Err(error) if reader_is_gone(&error) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    let next = if context.progress.was_cancelled() { advice_when_stopped(&error) } else { advice(&error) };
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
        to_stderr(crate::args::command().render_help().to_string().trim_end());
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
    let wanted = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let text = wanted.fold(String::new(), |mut text, line| {
        let between = if text.is_empty() {
            ""
        } else if line.starts_with("tip:") {
            "; "
        } else {
            " "
        };
        text.push_str(between);
        text.push_str(line);
        text
    });
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
    fn the_advice_depends_on_what_was_being_done() {
        let failed = |kind, act| Err::<(), _>(Error::new(kind, "x")).doing(act).unwrap_err();
        assert!(advice(&failed(ErrorKind::Busy, Act::Backup)).contains("--takeover"));
        assert!(!advice(&failed(ErrorKind::Busy, Act::Restore)).contains("--takeover"));
        assert!(advice(&failed(ErrorKind::Corrupt, Act::Open)).contains("--salvage"));
        assert!(advice(&failed(ErrorKind::NotFound, Act::Find)).contains("everpack list"));
        assert!(!advice(&failed(ErrorKind::NotFound, Act::Read)).contains("everpack list"));
        assert!(!advice(&failed(ErrorKind::Unsupported, Act::Open)).contains("probe"));
        assert!(!advice(&failed(ErrorKind::Unavailable, Act::Backup)).contains("network"));
        let io = |kind| Error::io("read", std::io::Error::from(kind));
        let refused = Err::<(), _>(io(std::io::ErrorKind::PermissionDenied)).doing(Act::Backup);
        assert!(advice(&refused.unwrap_err()).contains("permissions"));
        let full = |act| Err::<(), _>(io(std::io::ErrorKind::StorageFull)).doing(act).unwrap_err();
        assert!(advice(&full(Act::Restore)).contains("--delta"));
        assert!(advice(&full(Act::Backup)).contains("everpack prune"));
    }

    #[test]
    fn what_was_nearer_counts_and_nothing_is_said_of_it() {
        let found = Err::<(), _>(Error::io("read it", std::io::Error::from(std::io::ErrorKind::NotFound)));
        let error = found.doing(Act::Open).map_err(|error| error.context("list")).doing(Act::Restore).unwrap_err();
        assert_eq!(Case::of(&error).act, Some(Act::Open));
        assert_eq!(message(&error), "list: read it: entity not found");
    }

    #[test]
    fn a_tip_is_set_off() {
        let error = crate::args::command().try_get_matches_from(["everpack", "list", "--lineag"]).unwrap_err();
        let message = usage_message(&error);
        assert!(message.contains("found; tip: ") && !message.contains('\n'), "{message}");
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
        let error = crate::args::command().try_get_matches_from(["everpack", "restore"]).unwrap_err();
        let message = usage_message(&error);
        assert!(message.contains("<BACKUP>") && !message.contains('\n'), "{message}");
    }
}
