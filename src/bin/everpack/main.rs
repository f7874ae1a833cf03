//! The command line `everpack`.
//!
//! This program only asks and tells: it reads options, calls one verb of the library, and shows its report. What a command does is in the
//! library; how it looks is here. It uses the library's public surface and nothing else.
//!
//! - [`args`]: what is asked for; [`settings`]: the same from `everpack.toml`.
//! - [`commands`]: one file per command.
//! - [`terminal`]: progress; [`output`]: what goes to standard output; [`errors`]: what went wrong and what to do next.
//! - [`password`]: asked for on the terminal.
//! - [`mo_br`]: the command line of MatrixOne's own tool, for scripts that call it.
//! - [`signals`]: the first Ctrl-C stops cleanly, the second at once.

mod args;
mod commands;
mod errors;
mod metrics;
mod mo_br;
mod open;
mod output;
mod password;
mod settings;
mod signals;
mod terminal;

use std::process::ExitCode;

use everpack::error::{Error, ErrorKind, Result};

use crate::args::Cli;
use crate::commands::Context;
use crate::errors::Exit;
use crate::terminal::Progress;

/// Threads that wait for disks and networks; computing has threads of its own.
const RUNTIME_WORKERS: usize = 3;

fn main() -> ExitCode {
    raise_open_files();
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(words) = mo_br::called_as(&words) {
        return mo_br::run(words, None);
    }
    let cli = match settings::parse(words) {
        Ok(cli) => cli,
        Err(stop) => return stop.tell(),
    };
    if let args::Command::MoBr(args) = cli.command {
        // Its default is for everpack's own commands.
        let named = Some(cli.globals.repo).filter(|repo| repo != args::DEFAULT_REPO);
        return mo_br::run(args.words, named);
    }
    let context = Context::new(&cli.globals);
    let outcome = run(&context, cli);
    context.progress.close();
    errors::conclude(&context, outcome)
}

fn run(context: &Context, cli: Cli) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_WORKERS)
        .thread_name("everpack-io")
        .enable_all()
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Unavailable, "start the runtime", error))?;
    let outcome = runtime.block_on(async {
        signals::listen(&context.progress)?;
        let exit = commands::run(context, cli.command).await?;
        output::unread_is_fine(context.output.flush())?;
        Ok(exit)
    });
    // Whatever still runs in the background has nothing left to say.
    runtime.shutdown_background();
    outcome
}

/// A restore keeps many files open; the soft limit of most systems is from another time.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If it is refused, the old limit holds, and whoever meets it says so.
        let _refused = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// Shared by whatever shows progress.
pub(crate) type SharedProgress = std::sync::Arc<Progress>;
