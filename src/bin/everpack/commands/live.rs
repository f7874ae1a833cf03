//! `backup matrixone://…`: a backup of a running MatrixOne.

use std::fmt::Write;
use std::path::PathBuf;

use everpack::error::{Context as _, Error, Result};
use everpack::matrixone::login::{Login, LoginSources, PASSWORD_VARIABLE, SCHEME, Secret, Tls};
use everpack::matrixone::sql::S3Target;
use everpack::ops::backup::BackupOptions;
use everpack::ops::live::{self, LiveOptions, LiveReport, Place, SkipBy, StageOptions, StageTarget};
use everpack::store::StoreOptions;
use everpack::units;

use super::Context;
use super::backup;
use crate::errors::Exit;
use crate::open::{keys_for_server, open_to_write};
use crate::output::{one_line, plural};

/// Where a server on this host writes unless it is told otherwise: large, and emptied by nobody while it is in use.
const STAGE_HERE: &str = "/var/tmp";

/// Options of a source that is a running MatrixOne.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Options for matrixone://")]
pub(crate) struct MatrixOneArgs {
    /// Where the cluster's SHARED storage can be read: a directory, or s3://bucket/prefix. What is new is then taken from there.
    #[arg(long, value_name = "PLACE")]
    shared: Option<String>,
    /// Where the server writes and we read: a directory, or s3://bucket/prefix [default: /var/tmp if the server is on this host].
    #[arg(long, value_name = "PLACE")]
    stage: Option<String>,
    /// What the server calls the directory of --stage, if not the same.
    #[arg(long, value_name = "DIR", requires = "stage")]
    stage_at_server: Option<String>,
    /// Have the server copy everything, whatever the repository holds.
    #[arg(long)]
    full: bool,
    /// Files that the server copies at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..512))]
    parallelism: u16,
    #[command(flatten)]
    login: LoginArgs,
}

/// How a server is logged in to.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Options for matrixone://")]
pub(crate) struct LoginArgs {
    /// A file whose first line is the password [default: EVERPACK_MO_PASSWORD, then the login file, then a question].
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// User, password, host and port in a section [client], as in ~/.my.cnf.
    #[arg(long, value_name = "FILE")]
    login_file: Option<PathBuf>,
    /// Speak to the server through TLS only.
    #[arg(long)]
    tls: bool,
    /// Trust these certificates instead of the public authorities.
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_ca: Option<PathBuf>,
}

/// True if the source is a server.
pub(crate) fn is_server(source: &std::ffi::OsStr) -> bool {
    source.to_str().is_some_and(|source| source.starts_with(SCHEME))
}

impl LoginArgs {
    /// Everything that a login needs, asked for on the terminal if it is nowhere else.
    pub(crate) fn login(&self, context: &Context, url: &str) -> Result<Login> {
        let sources = LoginSources {
            password_file: self.password_file.clone(),
            environment: std::env::var(PASSWORD_VARIABLE).ok().map(Secret::new),
            login_file: self.login_file.clone(),
            tls: if self.tls { Tls::Required { ca: self.tls_ca.clone() } } else { Tls::Off },
        };
        let watch = context.progress.watch();
        crate::password::find_login(url, &sources, &|| watch.cancelled())
    }
}

pub(crate) async fn run(
    context: &Context,
    url: &str,
    args: &MatrixOneArgs,
    options: BackupOptions,
    source: &backup::SourceArgs,
) -> Result<Exit> {
    let login = args.login.login(context, url)?;
    let bucket_options = source.store_options(&context.globals);
    let options = LiveOptions {
        shared: args.shared.as_deref().map(|shared| Place::parse(shared, &bucket_options)),
        stage: stage(args, &login, &bucket_options)?,
        parallelism: args.parallelism,
        kind: "full".to_owned(),
        full: args.full || options.force,
        facts: Vec::new(),
        login,
        backup: options,
    };
    let repository = open_to_write(context).await?;
    let monitor = context.progress.watch();
    let report = live::backup(&repository, &options, monitor).await?;
    context.progress.close();
    let complete = || format!("backup {} is complete, but", context.short(&report.backup.id));
    context.output.report(&report, || text(context, &report)).context(complete)?;
    if let Some(file) = &context.globals.metrics {
        backup::write_metrics(file, &repository.location(), &report.backup).context(complete)?;
    }
    Ok(backup::exit(&report.backup))
}

/// Where the server writes.
fn stage(args: &MatrixOneArgs, login: &Login, options: &StoreOptions) -> Result<StageOptions> {
    let is_here = matches!(login.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    let place = match &args.stage {
        Some(place) => place.clone(),
        None if is_here => STAGE_HERE.to_owned(),
        None => {
            let message = format!(
                "backup of {}: the server writes into a place that everpack reads; name it with --stage: a directory that both reach (a shared \
                 mount; --stage-at-server if the server calls it otherwise), or s3://bucket/prefix",
                login.place()
            );
            return Err(Error::invalid(message));
        }
    };
    let place = Place::parse(&place, options);
    let at_server = match &place {
        Place::Directory(path) => match &args.stage_at_server {
            Some(path) => StageTarget::Directory(path.clone()),
            None => StageTarget::directory(path)?,
        },
        Place::Bucket { url, options } => StageTarget::Bucket(bucket_target(url, options)?),
    };
    Ok(StageOptions { place, at_server })
}

/// The bucket in the server's words. Its keys go into the statement: there is no other way to tell them to a server.
fn bucket_target(url: &str, options: &StoreOptions) -> Result<S3Target> {
    let Some(rest) = url.strip_prefix("s3://") else {
        return Err(Error::invalid(format!("--stage {url}: a server writes to s3:// only")));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint =
        options.endpoint.clone().or_else(|| variable("AWS_ENDPOINT_URL")).or_else(|| variable("AWS_ENDPOINT"));
    let region = options.region.clone().or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let (access_key_id, secret_access_key) = keys_for_server(options);
    Ok(S3Target {
        endpoint: Some(endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"))),
        access_key_id,
        secret_access_key,
        bucket: bucket.to_owned(),
        filepath: prefix.to_owned(),
        region: Some(region),
        ..S3Target::default()
    })
}

fn text(context: &Context, report: &LiveReport) -> String {
    let mut text = backup::text(context, &report.backup);
    // Writing to a string cannot fail.
    let _ = write_text(&mut text, report);
    text
}

fn write_text(text: &mut String, report: &LiveReport) -> std::fmt::Result {
    let bytes = units::bytes;
    writeln!(text, "  MatrixOne {} at {}", one_line(&report.release), report.backup_ts)?;
    let server = units::duration(report.server_duration);
    let ours = units::duration(report.backup.duration.saturating_sub(report.server_duration));
    let copied = plural(report.server_files, "file");
    writeln!(
        text,
        "  the server took {server} and copied {copied}, {}; everpack took {ours}",
        bytes(report.server_bytes)
    )?;
    if report.objects_ahead > 0 {
        writeln!(text, "  {} from SHARED, {}", plural(report.objects_ahead, "object"), bytes(report.bytes_ahead))?;
    }
    match report.skip_by {
        SkipBy::Nothing => {}
        SkipBy::Timestamp => writeln!(text, "  the server copied what is newer than the last backup")?,
        _ => writeln!(text, "  the server was told to leave out {}", plural(report.objects_held, "object"))?,
    }
    if report.attempts > 1 {
        writeln!(text, "  it took {} attempts", report.attempts)?;
    }
    for name in &report.healed {
        writeln!(text, "  healed: {name}")?;
    }
    Ok(())
}
