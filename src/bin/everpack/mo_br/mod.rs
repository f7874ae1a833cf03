//! The command line of MatrixOne's backup tool `mo_br`, in terms of everpack: for scripts that call it.
//!
//! - [`commands`]: the table of everything that can be typed. A new command or flag begins there.
//! - [`flags`]: words into a command and its flags, by cobra's rules; [`help`], [`completion`]: texts made from the table.
//! - [`settings`]: `mo_br.toml`; [`place`]: where backups lie; [`meta`]: the catalogue `mo_br.meta`.
//! - [`found`]: what an id, or a place, stands for: a backup in a repository, or a tree that another tool wrote.
//! - [`mod@backup`], [`list`], [`check`], [`delete`], [`restore`], [`upkeep`]: the commands about backups.
//! - [`server`]: logging in; [`snapshot`], [`pitr`]: what the server keeps itself.
//! - [`tables`], [`shapes`]: layouts to the blank; [`hide`]: secrets out of the process list.
//!
//! Everything that is stored goes through the library's verbs. Exit codes are 0 and 1, as callers expect; errors go to standard error.

mod backup;
mod check;
mod commands;
mod completion;
mod delete;
mod flags;
mod found;
mod help;
mod hide;
mod list;
mod meta;
mod pitr;
mod place;
mod restore;
mod server;
mod settings;
mod shapes;
mod snapshot;
mod tables;
mod upkeep;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use everpack::error::{Error, ErrorKind, Result};

use crate::args::Globals;
use crate::errors::message;
use crate::output::{Output, to_stderr, unread_is_fine};
use crate::terminal::{Progress, Show};
use crate::{SharedProgress, signals};
use commands::{Action, Command, ROOT};
use flags::{Line, Wrong};
use settings::Settings;

/// What this program is called where it stands in for the original.
const NAME: &str = "mo_br";

/// What every command is given.
struct Env {
    line: Line,
    settings: Settings,
    globals: Globals,
    output: Output,
    progress: SharedProgress,
}

impl Env {
    /// Text that was asked for, as it is. If nobody reads it, the work goes on, and its outcome counts.
    fn print(&self, text: &str) -> Result<()> {
        unread_is_fine(self.output.raw(text.as_bytes()))
    }

    /// Something worth knowing, to standard error or where `--log_file` says, unless `--log_level` leaves it out.
    fn note(&self, text: &str) {
        let quiet = matches!(self.line.text("log_level"), Some("fatal" | "panic" | "dpanic"));
        if !quiet {
            self.log(&format!("note: {}", crate::output::one_line(text)));
        }
    }

    /// What helps to find out what happened.
    fn debug(&self, text: &str) {
        if matches!(self.line.text("log_level"), Some("debug" | "info")) {
            self.log(&crate::output::one_line(text));
        }
    }

    fn log(&self, text: &str) {
        use std::io::Write;
        let file = self.line.text("log_file").filter(|file| *file != "console");
        let opened = file.and_then(|file| std::fs::OpenOptions::new().create(true).append(true).open(file).ok());
        if !opened.is_some_and(|mut file| writeln!(file, "{text}").is_ok()) {
            to_stderr(text);
        }
    }
}

/// The words behind `mo_br`, if that is what was called: by the program's own name, or as the first word behind it.
pub(crate) fn called_as(args: &[OsString]) -> Option<Vec<OsString>> {
    let program = args.first().map(std::path::Path::new).and_then(std::path::Path::file_name);
    if program == Some(OsStr::new(NAME)) {
        return Some(args[1..].to_vec());
    }
    (args.get(1).map(OsString::as_os_str) == Some(OsStr::new(NAME))).then(|| args[2..].to_vec())
}

/// Runs a command line. `repository` is what `everpack -r URL mo_br …` said.
pub(crate) fn run(words: Vec<OsString>, repository: Option<String>) -> ExitCode {
    let words: Result<Vec<String>, OsString> = words.into_iter().map(OsString::into_string).collect();
    let Ok(words) = words else {
        to_stderr("Error: a word of the command line is not UTF-8");
        return ExitCode::FAILURE;
    };
    hide::secrets();
    let outcome = match flags::parse(&words) {
        Err(wrong) => return tell(wrong),
        Ok(line) => start(line, repository),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            to_stderr(&format!("Error: {}", message(&error)));
            ExitCode::FAILURE
        }
    }
}

/// A wrong command line, as cobra tells it.
fn tell(wrong: Wrong) -> ExitCode {
    match wrong {
        Wrong::Command { message, below } => {
            to_stderr(&format!("Error: {message}\nRun '{below} --help' for usage."));
        }
        Wrong::Flag { message, path } => {
            let commands = path.iter().skip(1).fold(vec![&ROOT], |mut path: Vec<&'static Command>, name| {
                let below = path.last().and_then(|last| last.commands.iter().find(|below| below.name == *name));
                path.extend(below);
                path
            });
            to_stderr(&format!("Error: {message}\n{}", help::usage(&commands)));
        }
    }
    ExitCode::FAILURE
}

fn start(line: Line, repository: Option<String>) -> Result<()> {
    let output = Output::new(false, false);
    // What needs neither settings nor a runtime.
    let text = match line.command().action {
        _ if line.help => Some(help::help(&line.path)),
        Action::Help => Some(help::help(&line.path)),
        Action::HelpAbout => Some(help_about(&line)?),
        Action::Completion(shell) => Some(completion::script(shell)),
        _ => None,
    };
    if let Some(text) = text {
        return unread_is_fine(output.raw(text.as_bytes()).and_then(|()| output.flush()));
    }
    let settings = Settings::read(&line)?;
    let globals = settings.globals(repository)?;
    let env = Env { line, settings, globals, output, progress: Progress::new(Show::Nothing) };
    env.settings.unknown.iter().for_each(|key| env.note(&format!("mo_br.toml: `{key}` is no setting of everpack's")));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(crate::RUNTIME_WORKERS)
        .thread_name("everpack-io")
        .enable_all()
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Unavailable, "start the runtime", error))?;
    let outcome = runtime.block_on(async {
        signals::listen(&env.progress)?;
        run_command(&env).await
    });
    runtime.shutdown_background();
    // What was printed before an error counts all the same.
    unread_is_fine(env.output.flush()).and(outcome)
}

async fn run_command(env: &Env) -> Result<()> {
    match env.line.command().action {
        Action::Backup => backup::run(env).await,
        Action::Check => check::run(env).await,
        Action::Delete => delete::run(env).await,
        Action::List => list::run(env).await,
        Action::Merge => upkeep::merge(env).await,
        Action::Pitr(verb) => pitr::run(env, verb).await,
        Action::RepairIndex => upkeep::repair_index(env).await,
        Action::Restore => restore::run(env).await,
        Action::Snapshot(verb) => snapshot::run(env, verb).await,
        Action::Help | Action::HelpAbout | Action::Completion(_) => Ok(()),
    }
}

/// `mo_br help snapshot create`.
fn help_about(line: &Line) -> Result<String> {
    let mut path: Vec<&'static Command> = vec![&ROOT];
    for word in line.words.iter().filter(|word| !word.is_empty()) {
        let below = path.last().and_then(|command| command.commands.iter().find(|below| below.name == word.as_str()));
        let Some(below) = below else {
            // As cobra answers; it is no failure there either.
            let words = line.words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ");
            to_stderr(&format!("Unknown help topic [{words}]"));
            return Ok(help::usage(&[&ROOT]));
        };
        path.push(below);
    }
    Ok(help::help(&path))
}
