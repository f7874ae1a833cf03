//! `completions`: what a shell needs to complete command lines.

use clap_complete::Shell;
use everpack::error::Result;

use super::Context;
use crate::args;
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

pub(crate) fn run(context: &Context, wanted: CompletionsArgs) -> Result<Exit> {
    let mut text = Vec::new();
    // `help COMMAND` would bring every command a second time.
    let mut command = args::command().disable_help_subcommand(true);
    clap_complete::generate(wanted.shell, &mut command, "everpack", &mut text);
    context.output.raw(&text)?;
    Ok(Exit::Done)
}
