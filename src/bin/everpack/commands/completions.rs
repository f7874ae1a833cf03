//! `completions`: what a shell needs to complete command lines.

use clap::CommandFactory;
use clap_complete::Shell;
use everpack::error::Result;

use super::Context;
use crate::args::Cli;
use crate::errors::Exit;

const LONG_ABOUT: &str = "\
Prints what a shell needs to complete everpack's command lines. Put it where your shell looks for completions.

  everpack completions bash > ~/.local/share/bash-completion/completions/everpack
  everpack completions zsh > ~/.zfunc/_everpack
  everpack completions fish > ~/.config/fish/completions/everpack.fish";

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(context: &Context, args: CompletionsArgs) -> Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "everpack", &mut text);
    context.output.raw(&text)?;
    Ok(Exit::Done)
}
