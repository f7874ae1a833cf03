//! `backup`: a running server's state into the repository, and the small files that callers look at.
//!
//! Order: the backup is committed in the repository, then its small files are written to the place, then its line to the catalogue. If we crash
//! between, the backup stands, and `mo_br repair_index` writes what is missing.

use bytes::Bytes;
use everpack::clock::{Clock, SystemClock, Timestamp};
use everpack::error::{Context, Error, ErrorKind, Result};
use everpack::matrixone::client::Client;
use everpack::matrixone::login::Login;
use everpack::matrixone::sql::S3Target;
use everpack::matrixone::tree::{MO_META, SHA256_SUFFIX, sha256};
use everpack::ops::backup::BackupOptions;
use everpack::ops::live::{self, LiveOptions, StageOptions, StageTarget};
use everpack::ops::restore::{Framing, cat};
use everpack::repo::{BackupInfo, Repository};
use everpack::store::{ObjectPath, Put, Store};
use uuid::Uuid;

use super::Env;
use super::found::{BACKUP_META, BackupMeta, tag_of};
use super::meta::{Catalogue, MetaLine, Record};
use super::place::{BACKUP_TO, Keys, Place};
use super::server;
use crate::open::{keys_for_server, store_options};

/// What the server is asked for.
struct Request {
    login: Login,
    /// `full` or `incremental`: what the server writes down. Either way the backup is complete by itself.
    kind: &'static str,
    tags: Vec<String>,
    parallelism: Option<u16>,
    stage: StageOptions,
}

/// Files that the server copies at once unless somebody says otherwise.
const PARALLELISM: u16 = 4;

/// What came of it.
struct Made {
    backup: BackupInfo,
    /// The moment that a restored server shows.
    backup_ts: String,
}

pub(super) async fn run(env: &Env) -> Result<()> {
    let kind = kind(env)?;
    let keys = Keys::given(&env.line, "");
    // Before the server is asked for anything: what cannot be written down later is told now.
    let base = base(env, kind)?;
    let given =
        Place::given(&env.line, BACKUP_TO).or_else(|error| if base.is_some() { Ok(None) } else { Err(error) })?;
    let place = given.or_else(|| base.map(|base| base.place)).map(Place::absolute).ok_or_else(|| {
        Error::invalid("backup: where to is missing: --backup_dir filesystem --path DIR, or --backup_dir s3 --bucket …")
    })?;
    let parallelism = parallelism(env)?;
    let login = server::login(env)?;
    // Nobody there, or a wrong password: then no place becomes a repository.
    Client::connect(&login).await?.close().await;
    let repository = env.repository_for(&place, &keys).await?;
    let id = Uuid::now_v7().to_string();
    let stage = stage(env, &place, &keys)?;
    let request = Request { login, kind, tags: vec![tag_of(&id)], parallelism, stage };
    let begun = SystemClock.now();
    let made = run_backup(env, &repository, request).await?;
    let record = record(&repository, &made, &id, kind, place, begun, SystemClock.now());
    if let Err(error) = write_small_files(env, &repository, &made.backup, &record, &keys).await {
        env.note(&format!(
            "the backup is complete; its small files in {} could not be written: {error}",
            record.place.url()
        ));
    }
    let noted = Catalogue::lock(env.meta_path()).and_then(|mut catalogue| catalogue.add(record));
    env.print(&format!("Backup ID\n    {id}\n"))?;
    noted.context(|| {
        format!(
            "backup {id} is complete and in {}, but `mo_br repair_index` has to write its line",
            repository.location()
        )
    })
}

fn kind(env: &Env) -> Result<&'static str> {
    match env.line.unquoted("backup_type").map(str::to_ascii_lowercase).as_deref() {
        None | Some("full") => Ok("full"),
        Some("incremental") => Ok("incremental"),
        Some(other) => Err(Error::invalid(format!("--backup_type {other:?}: a backup is `full` or `incremental`"))),
    }
}

fn parallelism(env: &Env) -> Result<Option<u16>> {
    let Some(text) = env.line.unquoted("parallelism") else { return Ok(env.settings.parallelism) };
    let number = text.parse().ok().filter(|number| (1..=511).contains(number));
    number.map(Some).ok_or_else(|| Error::invalid(format!("--parallelism {text}: from 1 to 511 files at once")))
}

/// The backup that an incremental one names as its base. It is looked up and never sent to the server: what everpack holds already is not copied
/// again in either kind, and each is complete by itself.
fn base(env: &Env, kind: &str) -> Result<Option<Record>> {
    let base = env.line.unquoted("base_id").map(str::trim).filter(|base| !base.is_empty());
    let Some(base) = base.filter(|_| kind == "incremental") else {
        return if kind == "incremental" {
            Err(Error::invalid(
                "--backup_type incremental needs --base_id: the ID of the backup before; `mo_br list` shows them",
            ))
        } else {
            // Also the catalogue of a full backup is read before anything else: a damaged one is told now.
            env.catalogue().map(|_| None)
        };
    };
    if Uuid::parse_str(base).is_err() {
        let message = format!(
            "--base_id {base:?}: an ID looks like 018f7a41-1881-7999-bbd6-858c3d4acc18; `mo_br list` shows them"
        );
        return Err(Error::invalid(message));
    }
    let catalogue = env.catalogue()?;
    match catalogue.find(base) {
        Some(MetaLine::Ours(record)) => Ok(Some(record.clone())),
        // Another tool's: good enough to build on, since nothing of it is needed.
        Some(MetaLine::Other(_)) => Ok(None),
        None => {
            let message = format!(
                "--base_id {base}: there is no such backup in {}; `mo_br list` shows what there is, --meta_path names another file",
                catalogue.name()
            );
            Err(Error::new(ErrorKind::NotFound, message))
        }
    }
}

/// Asks the server for a backup and stores it.
async fn run_backup(env: &Env, repository: &Repository, request: Request) -> Result<Made> {
    let Request { login, kind, tags, parallelism, stage } = request;
    let shared = env.settings.shared.as_deref().map(|shared| live::Place::parse(shared, &store_options(&env.globals)));
    let backup = BackupOptions {
        lineage: env.settings.lineage.clone(),
        tags,
        memory: env.globals.memory,
        ..BackupOptions::default()
    };
    let options = LiveOptions {
        login,
        shared,
        stage,
        parallelism: parallelism.unwrap_or(PARALLELISM),
        kind: kind.to_owned(),
        full: false,
        facts: Vec::new(),
        backup,
    };
    let report = live::backup(repository, &options, env.progress.watch()).await?;
    report.backup.warnings.iter().for_each(|warning| env.note(warning));
    report.backup.problems.iter().for_each(|problem| env.note(&format!("{}: {}", problem.path, problem.message)));
    env.debug(&format!(
        "MatrixOne {}: the server copied {} files in {:.1} s, {} objects were left out, {} came from SHARED",
        report.release,
        report.server_files,
        report.server_duration.as_secs_f64(),
        report.objects_held,
        report.objects_ahead
    ));
    let backup = repository.find_backup(&report.backup.id.to_string())?;
    Ok(Made { backup, backup_ts: report.backup_ts })
}

/// Where the server writes for us: what mo_br.toml says, else the place of the backup, which the original had the server write into as well.
fn stage(env: &Env, place: &Place, keys: &Keys) -> Result<StageOptions> {
    if let Some(stage) = &env.settings.stage {
        let place = live::Place::parse(stage, &store_options(&env.globals));
        return match &place {
            live::Place::Directory(path) => Ok(StageOptions { at_server: StageTarget::directory(path)?, place }),
            live::Place::Bucket { .. } => Err(Error::invalid(
                "stage in mo_br.toml: it is a directory that the server and everpack reach; a bucket is staged in by --backup_dir s3",
            )),
        };
    }
    match place {
        Place::Filesystem(path) => {
            // Made here, so that both of us may write into it.
            std::fs::create_dir_all(path).context(|| format!("make {}", path.display()))?;
            Ok(StageOptions { place: live::Place::Directory(path.clone()), at_server: StageTarget::directory(path)? })
        }
        Place::S3(s3) => {
            let options = place.options(keys, env.settings.virtual_host);
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let (access_key_id, secret_access_key) = keys_for_server(&options);
            let target = S3Target {
                endpoint: options.endpoint.clone(),
                access_key_id,
                secret_access_key,
                bucket: s3.bucket.clone(),
                filepath: s3.filepath.trim_matches('/').to_owned(),
                region: some(&s3.region),
                role_arn: some(&s3.role_arn),
                is_minio: s3.is_minio,
                ..S3Target::default()
            };
            let place = live::Place::Bucket { url: place.url(), options };
            Ok(StageOptions { place, at_server: StageTarget::Bucket(target) })
        }
    }
}

fn record(
    repository: &Repository,
    made: &Made,
    id: &str,
    kind: &str,
    place: Place,
    begun: Timestamp,
    finished: Timestamp,
) -> Record {
    let location = repository.location();
    Record {
        id: id.to_owned(),
        size: made.backup.summary.totals.bytes,
        begun: Some(begun),
        duration: u64::try_from(finished.since(begun).as_nanos()).ok(),
        finished: Some(finished),
        backup_ts: made.backup_ts.clone(),
        kind: kind.to_owned(),
        repository: if is_place(&place, &location) { String::new() } else { location },
        backup: made.backup.id.to_string(),
        place,
    }
}

/// True if the repository is the place itself.
pub(super) fn is_place(place: &Place, location: &str) -> bool {
    let canonical = |path: &std::path::Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    match place {
        Place::Filesystem(path) => canonical(path) == canonical(std::path::Path::new(location)),
        Place::S3(_) => place.url() == location.trim_end_matches('/'),
    }
}

/// What callers look at: a directory named after the backup, and its line in a file of its own.
pub(super) async fn write_small_files(
    env: &Env,
    repository: &Repository,
    backup: &BackupInfo,
    record: &Record,
    keys: &Keys,
) -> Result<()> {
    let store = record.place.create(keys, env.settings.virtual_host)?;
    let top = format!("{}-{}", record.kind, record.id);
    let meta = BackupMeta { id: record.id.clone(), repository: repository.location(), backup: record.backup.clone() };
    put(&store, &format!("{top}/{BACKUP_META}"), meta.to_text().into_bytes()).await?;
    for name in [MO_META.to_owned(), format!("{MO_META}{SHA256_SUFFIX}")] {
        let mut bytes = Vec::new();
        match cat(repository, backup, name.as_bytes(), Framing::Raw, &mut bytes).await {
            Ok(_) => put(&store, &format!("{top}/{name}"), bytes).await?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let line = format!("{}\n", record.to_line()).into_bytes();
    let digest = sha256(&line).to_vec();
    put(&store, &format!("{}.meta", record.id), line).await?;
    put(&store, &format!("{}.meta{SHA256_SUFFIX}", record.id), digest).await
}

async fn put(store: &Store, path: &str, bytes: Vec<u8>) -> Result<()> {
    match store.create(ObjectPath::parse(path)?, Bytes::from(bytes)).await? {
        Put::Created | Put::AlreadyThere(_) => Ok(()),
    }
}
