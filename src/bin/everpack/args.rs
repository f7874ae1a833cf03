//! What can be asked for: the global options and the list of commands. The options of a command are in its file.
//!
//! Value types that several commands share are parsed here, so that a wrong one is refused before anything is opened.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Arg, Args, CommandFactory, Parser, Subcommand};
use everpack::ops::restore::Framing;
use everpack::units::{MIB, parse_bytes};

use crate::commands::{
    backup, bench, cat, check, completions, diff, find, forget, hold, import, init, list, ls, man, probe, prune,
    release, repair, replicate, restore, show, stats, tae, unforget, verify,
};

const LONG_ABOUT: &str = "\
everpack keeps backups of MatrixOne (and of any other files) in a repository: a directory or a bucket. Every piece of data is \
stored once, so a nightly backup costs what is new; every backup restores by itself.

  export EVERPACK_REPO=/backup/everpack
  everpack init                          make the repository, once
  everpack backup matrixone://root@db    store a running MatrixOne, or any directory
  everpack list                          see what there is
  everpack restore latest /restore/here  get it back
  everpack check --read-data             prove that everything stored can be read
  everpack forget --keep-daily 30        keep what you need; `everpack prune` gives the rest of the space back
  everpack replicate s3://offsite/copy   have a second copy, which heals the first";

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 done with findings (damage), 3 done in part, 4 busy, 5 wrong key.
Options may also be set in everpack.toml (keys are the long option names, a table per command) and in the environment.
`everpack COMMAND --help` (or `everpack help COMMAND`) explains a command with an example.";

/// The repository if nobody names one.
pub(crate) const DEFAULT_REPO: &str = "./everpack-repo";

/// A deduplicating backup store for MatrixOne and other files.
#[derive(Debug, Parser)]
#[command(name = "everpack", version, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
#[command(max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Commands that need no repository: how one is reached is taken there as everywhere, and not explained.
const WITHOUT_REPOSITORY: [&str; 4] = ["tae", "bench", "completions", "man"];
const STORE_OPTIONS: &str = "Store options";

/// The command line, as it is read and explained.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command();
    let store = command.get_arguments().filter(|arg| arg.get_help_heading() == Some(STORE_OPTIONS));
    let hidden: Vec<Arg> = store.map(|arg| arg.clone().hide(true)).collect();
    WITHOUT_REPOSITORY
        .iter()
        .fold(command, |command, name| command.mut_subcommand(name, |own| own.args(hidden.clone())))
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The repository: a path, file://, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.
    #[arg(short, long, global = true, value_name = "URL", env = "EVERPACK_REPO", hide_env_values = true)]
    #[arg(default_value = DEFAULT_REPO)]
    pub(crate) repo: String,
    /// Print one JSON document; progress becomes JSON lines on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print errors and what was asked for, nothing else.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print more: full ids, and every name where otherwise only the first are named.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Memory to stay below, at least 64M.
    #[arg(long, global = true, value_name = "SIZE", env = "EVERPACK_MEMORY", hide_env_values = true)]
    #[arg(default_value = "256M", value_parser = parse_memory)]
    pub(crate) memory: u64,
    /// Where the local index is kept (`none` keeps nothing) [default: `everpack` in the user's cache directory].
    #[arg(long, global = true, value_name = "DIR", env = "EVERPACK_CACHE", hide_env_values = true)]
    pub(crate) cache: Option<PathBuf>,
    /// Write a Prometheus text file at the end of backup, restore and check.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,
    /// Read settings from this file [default: ./everpack.toml, then everpack/everpack.toml in the user's configuration directory].
    #[arg(long, global = true, value_name = "FILE", env = "EVERPACK_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// How a bucket is reached.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = STORE_OPTIONS)]
pub(crate) struct StoreArgs {
    /// The server of a bucket that is not the cloud's own.
    #[arg(long, global = true, value_name = "URL", env = "EVERPACK_S3_ENDPOINT", hide_env_values = true)]
    pub(crate) endpoint: Option<String>,
    /// The region of the bucket.
    #[arg(long, global = true, value_name = "NAME", env = "EVERPACK_S3_REGION", hide_env_values = true)]
    pub(crate) region: Option<String>,
    /// Speak to the server without TLS; in your own network only.
    #[arg(long, global = true, env = "EVERPACK_S3_ALLOW_HTTP", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(crate) allow_http: bool,
    /// Put the bucket's name into the host name instead of the path.
    #[arg(long, global = true, env = "EVERPACK_S3_VIRTUAL_HOST", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(crate) virtual_host: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::InitArgs),
    Backup(backup::BackupArgs),
    Import(Box<import::ImportArgs>),
    List(list::ListArgs),
    Show(show::ShowArgs),
    Ls(ls::LsArgs),
    Cat(cat::CatArgs),
    Find(find::FindArgs),
    Diff(diff::DiffArgs),
    Restore(Box<restore::RestoreArgs>),
    Verify(verify::VerifyArgs),
    Check(check::CheckArgs),
    Scrub(check::ScrubArgs),
    Repair(repair::RepairArgs),
    Forget(forget::ForgetArgs),
    Unforget(unforget::UnforgetArgs),
    Hold(hold::HoldArgs),
    Release(release::ReleaseArgs),
    Prune(prune::PruneArgs),
    Replicate(Box<replicate::ReplicateArgs>),
    Stats(stats::StatsArgs),
    Tae(tae::TaeArgs),
    Probe(probe::ProbeArgs),
    Bench(bench::BenchArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    #[command(name = "mo_br", disable_help_flag = true)]
    MoBr(MoBrArgs),
}

/// Behave as MatrixOne's mo_br; also by calling everpack by that name.
#[derive(Debug, Args)]
pub(crate) struct MoBrArgs {
    /// What is typed behind mo_br; `everpack mo_br --help` explains it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
    pub(crate) words: Vec<std::ffi::OsString>,
}

/// What a file is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FramingArg {
    /// As it was at the source.
    #[default]
    AsStored,
    /// Without the checksum framing of MatrixOne's DISK backend.
    Raw,
    /// With that framing.
    DiskCrc,
}

impl From<FramingArg> for Framing {
    fn from(arg: FramingArg) -> Self {
        match arg {
            FramingArg::AsStored => Self::AsStored,
            FramingArg::Raw => Self::Raw,
            FramingArg::DiskCrc => Self::DiskCrc,
        }
    }
}

/// How closely a MatrixOne object is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ValidateArg {
    /// Prove every LZ4 block by walking its sequences.
    Walk,
    /// Decode every block and look at its content.
    Decode,
}

/// `64K`, `1.5G`, `200`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "expected a size such as 64K, 32M or 1.5G".to_owned())
}

/// The name of a lineage, or a tag.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("a name cannot be empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if size < 64 * MIB { Err("at least 64M are needed".to_owned()) } else { Ok(size) }
}

/// `90s`, `15m`, `2h`, `1d`, `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration such as 90s, 15m, 2h or 1h30m".to_owned();
    let mut seconds: u64 = 0;
    let mut number = String::new();
    for c in text.trim().chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit: u64 = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(wrong()),
        };
        let count: u64 = number.parse().map_err(|_| wrong())?;
        number.clear();
        seconds = count.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(wrong)?;
    }
    if !number.is_empty() || text.trim().is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn durations_are_read_and_nonsense_is_refused() {
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "2", "h", "2h5", "1y", "-1s", "99999999999999999999s", "999999999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn too_little_memory_is_refused() {
        assert_eq!(parse_memory("64M"), Ok(64 << 20));
        assert!(parse_memory("63M").is_err());
        assert!(parse_memory("lots").is_err());
    }
}
