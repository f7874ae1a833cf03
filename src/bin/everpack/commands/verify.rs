//! `verify --start`: a restore drill.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use everpack::error::{Context as _, Error, Result};
use everpack::matrixone::login::Secret;
use everpack::ops::drill::{self, DrillBackend, DrillLogin, DrillOptions, DrillReport};
use everpack::ops::start::StartOptions;
use everpack::units;

use super::Context;
use crate::args::parse_duration;
use crate::errors::Exit;
use crate::open::{find_backup, open_repository};
use crate::output::one_line;

const LONG_ABOUT: &str = "\
Proves that a backup starts: restores it to a scratch directory, starts a MatrixOne server on it on free loopback ports, runs your queries, \
compares tables with their counts, writes a table, forces a checkpoint, restarts the server by SIGTERM and by SIGKILL, asks again, and \
removes everything. What goes wrong is a finding (exit code 2). Without a server binary nothing is proved: it fails (exit code 1), unless \
--skip-without-server says that it need not.

  everpack verify latest:shop --start --mo-service /opt/matrixone/mo-service
  everpack verify latest:shop --start --query-file checks.sql --expect counts.json

The password of the restored cluster's users comes from --password-file or EVERPACK_MO_PASSWORD; else it is that of a new MatrixOne.";

const BINARY_VARIABLE: &str = "EVERPACK_MO_SERVICE";
const PASSWORD_VARIABLE: &str = "EVERPACK_MO_PASSWORD";

/// Prove that a MatrixOne server starts from a backup and answers.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct VerifyArgs {
    /// An id or its first digits, `latest`, or `latest:LINEAGE`.
    backup: String,
    /// Start a server on a restored copy.
    #[arg(long, required = true)]
    start: bool,
    /// The server's binary.
    #[arg(long, value_name = "FILE", env = BINARY_VARIABLE, hide_env_values = true)]
    mo_service: Option<PathBuf>,
    /// Where no binary is named, say that the drill was skipped, and end with exit code 0.
    #[arg(long)]
    skip_without_server: bool,
    /// Queries, each ending in `;` at the end of a line: their answers must be the same after every restart.
    #[arg(long, value_name = "FILE")]
    query_file: Option<PathBuf>,
    /// Counts of tables, as JSON: account, then `database.table`, then rows and sum, least and greatest CRC-32 of rows.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Restore below this directory [default: that of the system for temporary files].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// How the server keeps SHARED [default: as the backup's own did].
    #[arg(long, value_enum)]
    backend: Option<BackendArg>,
    /// User of account `sys`.
    #[arg(long, value_name = "NAME", default_value = "root")]
    user: String,
    /// User of the other accounts, to compare their tables.
    #[arg(long, value_name = "NAME", default_value = "admin")]
    tenant_user: String,
    /// A file whose first line is the password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// How long the server may take to answer after its start.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "3m")]
    patience: Duration,
    /// Which tree, by its folder, if the backup holds several.
    #[arg(long, value_name = "FOLDER")]
    tree: Option<OsString>,
    /// Leave out a global checkpoint whose objects BACKUP did not copy, and the list that names it.
    #[arg(long)]
    cure: bool,
    /// Leave log positions as they are, to see what becomes of it.
    #[arg(long)]
    verbatim: bool,
}

/// How SHARED is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BackendArg {
    /// Framed; every release knows it.
    Disk,
    /// Raw; since release 4.2.
    DiskV2,
    /// Raw, a bucket that is a directory; since release 2.0.
    DiskEndpoint,
}

impl From<BackendArg> for DrillBackend {
    fn from(arg: BackendArg) -> Self {
        match arg {
            BackendArg::Disk => Self::Disk,
            BackendArg::DiskV2 => Self::DiskV2,
            BackendArg::DiskEndpoint => Self::DiskEndpoint,
        }
    }
}

/// What is said where there is no server to start.
#[derive(serde::Serialize)]
struct Skipped {
    id: String,
    skipped: bool,
    why: String,
}

fn password(file: Option<&PathBuf>) -> Result<Option<Secret>> {
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).context(|| format!("read the password in {}", file.display()))?;
        return Ok(Some(Secret::new(text.lines().next().unwrap_or_default())));
    }
    match std::env::var(PASSWORD_VARIABLE) {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::invalid(format!("{PASSWORD_VARIABLE} is not UTF-8"))),
    }
}

pub(crate) async fn run(context: &Context, args: VerifyArgs) -> Result<Exit> {
    let repository = open_repository(&context.globals).await?;
    let backup = find_backup(&repository, &args.backup)?;
    let Some(binary) = args.mo_service else {
        let why = format!("no server to start: --mo-service or {BINARY_VARIABLE} names none");
        if !args.skip_without_server {
            let message = format!(
                "verify {}: {why}; nothing was proved (--skip-without-server: then that is no failure)",
                context.short(&backup.id)
            );
            return Err(Error::invalid(message));
        }
        let document = Skipped { id: backup.id.to_string(), skipped: true, why: why.clone() };
        context.output.report(&document, || format!("skipped: {why}\n"))?;
        return Ok(Exit::Done);
    };
    let mut login = DrillLogin { user: args.user, tenant_user: args.tenant_user, ..DrillLogin::default() };
    if let Some(password) = password(args.password_file.as_ref())? {
        login.password = password;
    }
    let options = DrillOptions {
        backend: args.backend.map(DrillBackend::from),
        login,
        query_file: args.query_file,
        expect: args.expect,
        patience: args.patience,
        start: StartOptions {
            tree: args.tree.map(OsString::into_vec),
            cure: args.cure,
            verbatim: args.verbatim,
            memory: context.globals.memory,
            ..StartOptions::default()
        },
        ..DrillOptions::new(binary, args.scratch.unwrap_or_else(std::env::temp_dir))
    };
    let monitor = context.progress.watch();
    let report = drill::drill(&repository, &backup, &options, monitor).await?;
    context.progress.close();
    context.output.report(&report, || text(context, &report))?;
    Ok(if report.ok { Exit::Done } else { Exit::Findings })
}

fn text(context: &Context, report: &DrillReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut text, context, report);
    text
}

fn write_text(text: &mut String, context: &Context, report: &DrillReport) -> std::fmt::Result {
    let verdict = if report.ok { "starts and answers" } else { "does NOT pass" };
    let took = units::duration(report.duration);
    writeln!(text, "backup {} {verdict}; took {took}", context.short(&report.id))?;
    if let Some(server) = &report.server {
        writeln!(text, "  on {}", one_line(server))?;
    }
    for step in &report.steps {
        let mark = if step.ok { "ok" } else { "FAILED" };
        let mut lines = step.message.lines();
        let first = one_line(lines.next().unwrap_or_default());
        writeln!(text, "  {mark:6} {}: {first} ({})", step.what, units::duration(step.duration))?;
        for line in lines {
            writeln!(text, "         {}", one_line(line))?;
        }
    }
    if let Some(tables) = &report.tables {
        for why in &tables.not_compared {
            writeln!(text, "note: tables not compared: {}", one_line(why))?;
        }
    }
    for remark in report.remarks.iter().filter(|remark| !context.progress.has_said(remark)) {
        writeln!(text, "note: {}", one_line(remark))?;
    }
    Ok(())
}
