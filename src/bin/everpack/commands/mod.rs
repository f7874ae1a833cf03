//! One file per command: its options, its help, the call of its verb, and how its report looks.

pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod entry;
pub(crate) mod find;
pub(crate) mod forget;
pub(crate) mod hold;
pub(crate) mod html;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod live;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod probe;
pub(crate) mod prune;
pub(crate) mod release;
pub(crate) mod repair;
pub(crate) mod replicate;
pub(crate) mod restore;
pub(crate) mod show;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod tae;
pub(crate) mod unforget;
pub(crate) mod verify;

use everpack::error::Result;

use crate::SharedProgress;
use crate::args::{Command, Globals};
use crate::errors::{Act, Doing, Exit};
use crate::output::{Output, stderr_is_terminal};
use crate::terminal::{Progress, Show};

/// What every command is given.
pub(crate) struct Context {
    pub(crate) globals: Globals,
    pub(crate) output: Output,
    pub(crate) progress: SharedProgress,
    pub(crate) json: bool,
}

impl Context {
    pub(crate) fn new(globals: &Globals) -> Self {
        let show = match globals {
            Globals { quiet: true, .. } => Show::Nothing,
            Globals { json: true, .. } => Show::Lines,
            _ if stderr_is_terminal() => Show::Bar,
            _ => Show::Warnings,
        };
        Self {
            globals: globals.clone(),
            output: Output::new(globals.json, globals.quiet),
            progress: Progress::new(show),
            json: globals.json,
        }
    }

    /// How many names are printed before the rest is only counted.
    pub(crate) fn names_max(&self) -> usize {
        if self.globals.verbose { usize::MAX } else { 20 }
    }

    /// An id as people want it.
    pub(crate) fn short(&self, id: &impl ToString) -> String {
        let id = id.to_string();
        if self.globals.verbose { id } else { id.chars().take(12).collect() }
    }
}

/// Runs a command.
pub(crate) async fn run(context: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Init(args) => init::run(context, args).await.doing(Act::Init),
        Command::Backup(args) => backup::run(context, args).await.doing(Act::Backup),
        Command::Import(args) => import::run(context, *args).await.doing(Act::Import),
        // Runs before a context is made.
        Command::MoBr(_) => Ok(Exit::Done),
        Command::List(args) => list::run(context, args).await,
        Command::Show(args) => show::run(context, args).await,
        Command::Ls(args) => ls::run(context, args).await,
        Command::Cat(args) => cat::run(context, args).await,
        Command::Find(args) => find::run(context, args).await,
        Command::Diff(args) => diff::run(context, args).await,
        Command::Restore(args) => restore::run(context, *args).await.doing(Act::Restore),
        Command::Verify(args) => verify::run(context, args).await.doing(Act::Verify),
        Command::Check(args) => check::run(context, args.backups, args.read, args.read_data).await,
        Command::Scrub(args) => check::run(context, args.backups, args.read, true).await,
        Command::Replicate(args) => replicate::run(context, *args).await,
        Command::Repair(args) => repair::run(context, args).await,
        Command::Forget(args) => forget::run(context, args).await,
        Command::Unforget(args) => unforget::run(context, args).await,
        Command::Hold(args) => hold::run(context, args).await,
        Command::Release(args) => release::run(context, args).await,
        Command::Prune(args) => prune::run(context, args).await,
        Command::Stats(args) => stats::run(context, args).await,
        Command::Tae(args) => tae::run(context, args).await.doing(Act::Read),
        Command::Probe(args) => probe::run(context, args).await,
        Command::Bench(args) => bench::run(context, args).await.doing(Act::Read),
        Command::Completions(args) => completions::run(context, args),
        Command::Man(args) => man::run(context, args).doing(Act::Write),
    }
}
