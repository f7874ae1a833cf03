//! Live: a backup of a running MatrixOne, complete by itself, for which the server copies only what the repository lacks.
//!
//! - [`ahead`]: objects that are taken straight from SHARED, where we can read it.
//! - [`stage`]: where the server writes, and what tells it what it need not copy.
//! - [`arrived`]: what came, verified, and followed to the last object.
//! - [`source`]: all of it as one tree.
//! - [`place`]: directories and prefixes of buckets, alike.
//!
//! The steps: log in; lock the cluster (its lineage in the log); take from SHARED what is new; have the server write the rest; verify; fetch what
//! it left out, or ask again; commit. A backup that a restored server would not start from, or not read whole, is never committed.
//!
//! Invariant: a name is told to the server as held only if the repository gives the object back for this very backup.
//!
//! Safe to run concurrently with: everything but another BACKUP of the same cluster, which the lock of the lineage keeps out as far as everpack
//! runs it, and the server's process list as far as others do. (Of two BACKUPs, the first to end takes the other's protection from garbage
//! collection away.)
//!
//! If we crash here: the server may copy on to the end; its root is removed by the next run. What was stored is found again.

mod ahead;
mod arrived;
mod place;
mod source;
mod stage;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use place::Place;
pub use stage::SkipBy;

use super::backup::{BackupOptions, BackupReport, Choice, Making};
use super::blocking;
use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::log_record::Purpose;
use crate::matrixone::client::{Client, ServerError};
use crate::matrixone::login::Login;
use crate::matrixone::release::Release;
use crate::matrixone::sql::{BackupStatement, S3Target};
use crate::matrixone::tree;
use crate::progress::{Event, Monitor, Phase};
use crate::repo::{Repository, Session, SessionRequest};
use crate::source::SourceDescription;
use crate::tae::{TaeName, Ts};
use arrived::{Arrived, Sides};
use source::LiveTree;

/// Facts of a manifest that a live backup writes.
pub mod facts {
    /// The moment that a restored server shows, `<physical>-<logical>`.
    pub const BACKUP_TS: &str = "matrixone-backup-ts";
    /// `full` or `incremental`: what was asked for. Every backup is complete.
    pub const TYPE: &str = "matrixone-type";
    /// The server's release.
    pub const RELEASE: &str = "matrixone-release";
    /// Which cluster.
    pub const CLUSTER: &str = "matrixone-cluster";
    /// Seconds that the server took.
    pub const SERVER_SECONDS: &str = "matrixone-server-seconds";
    /// Objects that the server left out and that came from SHARED.
    pub const HEALED: &str = "matrixone-healed";
}

/// How often the server is asked to copy before we give up.
const ATTEMPTS: u32 = 3;
/// How often it is looked whether somebody wants to stop.
const POLL: Duration = Duration::from_millis(200);
/// How long a killed statement may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// Names of healed or lacking objects that are told.
const NAMES_MOST: usize = 100;
/// More rounds of healing than any hole needs: an index object names data objects, and these name the rest.
const HEAL_ROUNDS: usize = 8;

/// Where the server writes.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// The place as we reach it.
    pub place: Place,
    /// The same place as the server is told of it.
    pub at_server: StageTarget,
}

/// A staging place in the server's words.
#[derive(Clone, Debug)]
pub enum StageTarget {
    /// A directory on the server's host.
    Directory(String),
    /// A prefix of a bucket, with the keys that the server is to use.
    Bucket(S3Target),
}

impl StageTarget {
    /// A directory that the server calls what we call it.
    pub fn directory(path: &Path) -> Result<Self> {
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let text = whole.to_str().map(|text| Self::Directory(text.to_owned()));
        text.ok_or_else(|| Error::invalid(format!("{}: a server takes only plain ASCII paths", whole.display())))
    }
}

/// How a live backup is made.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Who logs in where.
    pub login: Login,
    /// SHARED, if we can read it.
    pub shared: Option<Place>,
    /// Where the server writes.
    pub stage: StageOptions,
    /// Files that the server copies at once.
    pub parallelism: u16,
    /// Recorded as the type: `full` or `incremental`.
    pub kind: String,
    /// Have the server copy everything.
    pub full: bool,
    /// Facts to keep in the manifest besides ours.
    pub facts: Vec<(String, String)>,
    /// How the backup itself is made; the lineage is the cluster's unless it is named here.
    pub backup: BackupOptions,
}

/// What a live backup did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LiveReport {
    /// The backup.
    #[serde(flatten)]
    pub backup: BackupReport,
    /// Which cluster.
    pub cluster: String,
    /// The server's release, as it tells it.
    pub release: String,
    /// The moment that a restored server shows.
    pub backup_ts: String,
    /// What was asked for.
    pub kind: String,
    /// How the server was told what it need not copy.
    pub skip_by: SkipBy,
    /// Names that it was told.
    pub objects_held: u64,
    /// Objects that were taken straight from SHARED, and their bytes.
    pub objects_ahead: u64,
    /// Their bytes.
    pub bytes_ahead: u64,
    /// Files that the server copied.
    pub server_files: u64,
    /// Their bytes.
    pub server_bytes: u64,
    /// How long the server took for the attempt that came through, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub server_duration: Duration,
    /// How often it was asked.
    pub attempts: u32,
    /// Objects that it left out and that came from SHARED, at most a hundred of them.
    pub healed: Vec<String>,
    /// How many there were.
    pub healed_count: u64,
}

/// What somebody who stops a backup is told.
fn stopped() -> Error {
    let message = "stopped on request; nothing was committed, and what was stored is found by the next run";
    Error::new(ErrorKind::Unavailable, message)
}

/// Backs a running cluster up.
///
/// Fails with `Busy` if another backup of the cluster runs; with the server's own words if it refuses; and with the names of what is missing if
/// what it wrote is no backup that restores, and SHARED does not have it, after several attempts. Nothing is committed then.
pub async fn backup(repository: &Repository, options: &LiveOptions, monitor: Arc<dyn Monitor>) -> Result<LiveReport> {
    let begun = Instant::now();
    monitor.event(Event::Begin { phase: Phase::Opening, bytes: 0, items: 0 });
    let mut client = Client::connect(&options.login).await?;
    let outcome = with_client(repository, options, &monitor, &mut client).await;
    client.close().await;
    let mut report = outcome?;
    report.backup.duration = begun.elapsed();
    monitor.event(Event::End { phase: Phase::BackingUp });
    Ok(report)
}

async fn with_client(
    repository: &Repository,
    options: &LiveOptions,
    monitor: &Arc<dyn Monitor>,
    client: &mut Client,
) -> Result<LiveReport> {
    client.require_matrixone().await?;
    client.require_sys("BACKUP").await?;
    let mut warnings = Vec::new();
    let cluster = identify(client, &mut warnings).await?;
    refuse_second(client).await?;
    repository.refresh().await?;
    let own = format!("matrixone:{cluster}");
    let name = options.backup.lineage.clone().unwrap_or_else(|| own.clone());
    // A lineage of another name has another lock, and the cluster is one all the same.
    let guard = match name == own {
        true => None,
        false => Some(lock_cluster(repository, &own, &options.backup).await?),
    };
    let work = async {
        let making = Making::begin(repository, Choice::named(&name), &options.backup, monitor).await?;
        new_live(repository, options, monitor, client, cluster).run(client, making, warnings).await
    };
    let outcome = Session::while_alive(guard.as_ref(), work).await;
    if let Some(guard) = guard {
        // One that stays is fenced by the next run.
        let _closed = guard.close().await;
    }
    outcome
}

async fn lock_cluster(repository: &Repository, name: &str, options: &BackupOptions) -> Result<Session> {
    let request = SessionRequest {
        lineage: Some(crate::codec::lineage_id(name)),
        fence_after: options.fence_after,
        takeover: options.takeover,
        ..SessionRequest::for_work(Purpose::Backup)
    };
    Session::open(repository, request).await
}

fn new_live<'a>(
    repository: &Repository,
    options: &'a LiveOptions,
    monitor: &'a Arc<dyn Monitor>,
    client: &Client,
    cluster: String,
) -> Live<'a> {
    Live {
        options,
        monitor,
        clock: Arc::clone(&repository.environment().clock),
        runtime: tokio::runtime::Handle::current(),
        release: client.release(),
        version: client.version().to_owned(),
        stage: stage::Stage::new(&options.stage, &repository.config().family.to_string(), &cluster),
        cluster,
        healed: Vec::new(),
        objects_ahead: 0,
        bytes_ahead: 0,
    }
}

/// What tells this cluster from others, for as long as it lives: the moment when its account `sys` was made.
async fn identify(client: &mut Client, warnings: &mut Vec<String>) -> Result<String> {
    const MADE: &str = "select unix_timestamp(created_time) from mo_catalog.mo_account where account_id = 0";
    match client.value(MADE).await {
        Ok(Some(made)) => {
            Ok(crate::codec::lineage_id(&format!("matrixone cluster of {made}")).to_string()[..16].to_owned())
        }
        Ok(None) => Ok(client.login().place()),
        Err(error) if ServerError::of(&error).is_some() => {
            let place = client.login().place();
            warnings.push(format!(
                "{} may not read mo_catalog.mo_account, so the cluster is known by its address {place}: at another address it counts as another one",
                client.login().shown_user()
            ));
            Ok(place)
        }
        Err(error) => Err(error),
    }
}

/// Refuses while anybody else has this server run a BACKUP.
async fn refuse_second(client: &mut Client) -> Result<()> {
    // A user who may not look at other connections sees none; the lock in the log stands all the same.
    let Ok(rows) = client.query("show processlist").await else { return Ok(()) };
    let is_backup = |value: &Option<String>| {
        value.as_deref().is_some_and(|text| {
            let text = text.trim_start();
            text.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("backup "))
        })
    };
    if rows.iter().any(|row| row.iter().any(is_backup)) {
        let message = "the server runs another BACKUP (SHOW PROCESSLIST names it). Two at once take each other's protection from garbage \
                       collection away, so wait for it, or stop it";
        return Err(Error::new(ErrorKind::Busy, message));
    }
    Ok(())
}

/// Names of objects that the repository gives back, in order: a million of them, or none where the server is to copy everything.
type Held = Arc<Vec<TaeName>>;

/// One run.
struct Live<'a> {
    options: &'a LiveOptions,
    monitor: &'a Arc<dyn Monitor>,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
    release: Option<Release>,
    version: String,
    cluster: String,
    stage: stage::Stage<'a>,
    healed: Vec<TaeName>,
    objects_ahead: u64,
    bytes_ahead: u64,
}

/// An attempt that came through.
struct Staged {
    place: Place,
    arrived: Arc<Arrived>,
    server_duration: Duration,
}

impl Live<'_> {
    async fn run(mut self, client: &mut Client, mut making: Making, mut warnings: Vec<String>) -> Result<LiveReport> {
        match self.prepare(&mut making, &mut warnings).await {
            Ok(held) => self.ask_and_commit(client, making, held, warnings).await,
            Err(error) => {
                making.give_up().await;
                Err(error)
            }
        }
    }

    /// Removes what dead runs left, and takes what is new from SHARED. Gives what the server need not copy.
    async fn prepare(&mut self, making: &mut Making, warnings: &mut Vec<String>) -> Result<Held> {
        let (_, stay) = self.stage.sweep().await.context(|| "look at the staging place")?;
        warnings.extend(stay.into_iter().map(|why| format!("what an earlier run left stays: {why}")));
        if self.options.full {
            return Ok(Held::default());
        }
        let mut held = Arc::new(making.held_by_parent(ahead::FOLDER).await);
        if let Some(shared) = &self.options.shared {
            let (place, runtime) = (shared.clone(), self.runtime.clone());
            let opened = blocking(move || {
                let wanted = ahead::live_objects(&place, &runtime)?;
                let Some(shared) = place.source(&runtime)? else {
                    let message = format!("SHARED {}: there is no such directory", place.display());
                    return Err(Error::new(ErrorKind::NotFound, message));
                };
                Ok((wanted, shared))
            });
            let (wanted, shared) = making.while_alive(opened).await?;
            if wanted.is_empty() {
                warnings.push(format!(
                    "no checkpoint was found in {}: it does not look like SHARED, so the server copies everything that is new",
                    self.options.shared.as_ref().map(Place::display).unwrap_or_default()
                ));
            }
            let objects = ahead::SharedObjects { shared, wanted, held: Arc::clone(&held) };
            let totals = making.store_ahead(Box::new(objects)).await?;
            (self.objects_ahead, self.bytes_ahead) = (totals.files, totals.bytes);
            let all = Arc::make_mut(&mut held);
            all.extend(making.held_ahead(ahead::FOLDER).await);
            all.sort_unstable();
        }
        Ok(held)
    }

    async fn ask_and_commit(
        &mut self,
        client: &mut Client,
        making: Making,
        held: Held,
        warnings: Vec<String>,
    ) -> Result<LiveReport> {
        let base = making.parent_fact(facts::BACKUP_TS).and_then(|ts| Ts::parse(ts.as_bytes()));
        let skip_by = match self.options.full {
            true => SkipBy::Nothing,
            false => stage::SkipBy::of(self.release, !held.is_empty(), base.is_some()),
        };
        let mut attempts = 0;
        let staged = loop {
            attempts += 1;
            let attempt = format!("{}-{attempts}", making.token());
            let asked = self.ask(client, &making, &attempt, skip_by, &held, base);
            match making.while_alive(asked).await {
                Ok(staged) => break staged,
                Err(failed) if failed.again && attempts < ATTEMPTS && !self.monitor.cancelled() => {
                    let message =
                        format!("attempt {attempts} of {ATTEMPTS}: {}; the server is asked again", failed.error);
                    self.monitor.event(Event::Warning { message });
                }
                Err(failed) => {
                    making.give_up().await;
                    return Err(match attempts {
                        1 => failed.error,
                        _ => failed.error.context(format!("after {attempts} attempts")),
                    });
                }
            }
        };
        let report = self.commit(making, &staged, skip_by, held.len() as u64, attempts, warnings).await;
        if let Err(error) = staged.place.remove().await {
            let message = format!("{error}; the next backup removes it");
            self.monitor.event(Event::Warning { message });
        }
        report
    }

    /// One attempt: the server writes, and what it wrote is verified and made whole. Its root is removed if that fails.
    async fn ask(
        &mut self,
        client: &mut Client,
        making: &Making,
        attempt: &str,
        skip_by: SkipBy,
        held: &Held,
        base: Option<Ts>,
    ) -> Result<Staged, Failed> {
        let index_ts = base.unwrap_or(Ts { physical: self.clock.now().as_nanos(), logical: 0 });
        let prepared = self.stage.prepare(attempt, self.release, skip_by, held, index_ts).await;
        let (place, target) = prepared.map_err(Failed::for_good)?;
        let statement = BackupStatement {
            label: "everpack".to_owned(),
            target,
            parallelism: self.options.parallelism,
            kind: self.options.kind.clone(),
            since: base.filter(|_| skip_by == SkipBy::Timestamp),
        };
        let outcome = async {
            let begun = Instant::now();
            self.have_it_written(client, &statement).await?;
            let server_duration = begun.elapsed();
            let arrived = self.verify(making, &place, held).await?;
            Ok((arrived, server_duration))
        };
        match outcome.await {
            Ok((arrived, server_duration)) => Ok(Staged { place, arrived: Arc::new(arrived), server_duration }),
            Err(failed) => {
                // What stays is removed by the next run.
                let _removed = place.remove().await;
                Err(failed)
            }
        }
    }

    /// Sends the statement and waits; stops the server if we are to stop.
    async fn have_it_written(&self, client: &mut Client, statement: &BackupStatement) -> Result<(), Failed> {
        let sql = statement.sql(self.release, self.clock.now()).map_err(Failed::for_good)?;
        self.monitor.event(Event::Begin { phase: Phase::Server, bytes: 0, items: 0 });
        let login = client.login().clone();
        let id = client.id();
        let mut running = std::pin::pin!(client.run(&sql));
        let answer = loop {
            tokio::select! {
                answer = &mut running => break answer,
                () = tokio::time::sleep(POLL) => {
                    if self.monitor.cancelled() {
                        let killed = Client::kill(&login, id).await;
                        // The statement ends at once where the server took the word; else the lost connection ends it, sooner or later.
                        let _ended = tokio::time::timeout(KILL_PATIENCE, &mut running).await;
                        let mut error = stopped();
                        if let Err(why) = killed {
                            error = error.context(format!("the server may go on for a while, it could not be told to stop ({why})"));
                        }
                        return Err(Failed::for_good(error));
                    }
                }
            }
        };
        answer.map_err(|error| classify_failure(error.context(format!("have the server run {}", statement.redacted()))))
    }

    /// Looks at everything that came, fetches what is missing where SHARED has it, and follows every checkpoint.
    async fn verify(&mut self, making: &Making, place: &Place, held: &Held) -> Result<Arrived, Failed> {
        self.monitor.event(Event::Begin { phase: Phase::Checking, bytes: 0, items: 0 });
        let (stage, shared, held) = (place.clone(), self.options.shared.clone(), Arc::clone(held));
        let (runtime, reader, monitor) = (self.runtime.clone(), making.reader(), Arc::clone(self.monitor));
        let done = tokio::task::spawn_blocking(move || {
            let mut arrived = arrived::read(&stage, &runtime, &held, &*monitor).map_err(Failed::maybe)?;
            let mut healed = Vec::new();
            for _round in 0..HEAL_ROUNDS {
                let sides = Sides { stage: &stage, shared: shared.as_ref(), repository: &reader, runtime: &runtime };
                let gaps = arrived.gaps(&sides).map_err(Failed::maybe)?;
                if gaps.is_empty() {
                    return Ok((arrived, healed));
                }
                let mut lacking = Vec::new();
                for gap in gaps {
                    match find_in_shared(shared.as_ref(), &runtime, &gap).map_err(Failed::maybe)? {
                        true => {
                            arrived.found_in_shared(gap.name, gap.size);
                            healed.push(gap.name);
                        }
                        false => lacking.push(gap),
                    }
                }
                if !lacking.is_empty() {
                    return Err(Failed::maybe(hole(&lacking, shared.as_ref())));
                }
            }
            Err(Failed::maybe(arrived::incomplete(
                "the checkpoints of the backup name ever new objects that are missing",
            )))
        });
        let (arrived, healed) = done.await.map_err(|error| {
            Failed::for_good(Error::new(ErrorKind::Unavailable, format!("the verifier: {error}")))
        })??;
        self.healed = healed;
        Ok(arrived)
    }

    async fn commit(
        &self,
        making: Making,
        staged: &Staged,
        skip_by: SkipBy,
        objects_held: u64,
        attempts: u32,
        mut warnings: Vec<String>,
    ) -> Result<LiveReport> {
        let Staged { place, arrived, server_duration } = staged;
        let backup_ts = arrived.sum.ts.map(|ts| ts.to_string()).unwrap_or_default();
        let built =
            tree::release_of_meta(&arrived.meta).map_or_else(|| self.version.clone(), |release| release.to_string());
        if !self.healed.is_empty() {
            warnings.push(format!(
                "the server said OK and left out {} objects that a restored server needs; they were fetched from SHARED",
                self.healed.len()
            ));
        }
        if self.options.shared.is_none() && objects_held == 0 {
            warnings.extend(where_shared_is(arrived, place, &self.runtime).await);
        }
        let mut facts = vec![
            (facts::BACKUP_TS.to_owned(), backup_ts.clone()),
            (facts::TYPE.to_owned(), self.options.kind.clone()),
            (facts::RELEASE.to_owned(), built.clone()),
            (facts::CLUSTER.to_owned(), self.cluster.clone()),
            (facts::SERVER_SECONDS.to_owned(), format!("{:.3}", server_duration.as_secs_f64())),
        ];
        if !self.healed.is_empty() {
            facts.push((facts::HEALED.to_owned(), self.healed.len().to_string()));
        }
        facts.extend(self.options.facts.iter().cloned());
        facts.sort();
        let login = &self.options.login;
        let description = SourceDescription {
            kind: "matrixone",
            location: format!("{}{}", crate::matrixone::login::SCHEME, login.place()),
            host: login.host.clone(),
            facts,
            warnings,
        };
        let (stage, shared) = (place.clone(), self.options.shared.clone());
        let (runtime, all) = (self.runtime.clone(), Arc::clone(arrived));
        let composed = blocking(move || LiveTree::new(description, &stage, shared.as_ref(), &runtime, &all)).await;
        let tree = match composed {
            Ok(tree) => tree,
            Err(error) => {
                making.give_up().await;
                return Err(error);
            }
        };
        let report = making.commit(Box::new(tree)).await?;
        Ok(LiveReport {
            backup: report,
            cluster: self.cluster.clone(),
            release: built,
            backup_ts,
            kind: self.options.kind.clone(),
            skip_by,
            objects_held,
            objects_ahead: self.objects_ahead,
            bytes_ahead: self.bytes_ahead,
            server_files: arrived.files_copied,
            server_bytes: arrived.bytes_copied,
            server_duration: *server_duration,
            attempts,
            healed: self.healed.iter().take(NAMES_MOST).map(ToString::to_string).collect(),
            healed_count: self.healed.len() as u64,
        })
    }
}

/// True if SHARED has the object, with the length that is asked for.
fn find_in_shared(shared: Option<&Place>, runtime: &tokio::runtime::Handle, gap: &arrived::Gap) -> Result<bool> {
    let Some(shared) = shared else { return Ok(false) };
    let stored = shared.open(runtime, &gap.name.to_string())?;
    Ok(stored.is_some_and(|file| source::fits(file.len(), gap.size)))
}

/// What the server left out, for people.
fn hole(lacking: &[arrived::Gap], shared: Option<&Place>) -> Error {
    let names: Vec<String> = lacking.iter().take(3).map(|gap| format!("{} ({})", gap.name, gap.why)).collect();
    let rest = if lacking.len() > 3 { format!(" and {} more", lacking.len() - 3) } else { String::new() };
    let advice = match shared {
        Some(shared) => format!("{} does not have them either", shared.display()),
        None => "with --shared, everpack fetches what the server leaves out".to_owned(),
    };
    let message = format!(
        "the server says OK, but {} objects of the backup are missing: {}{rest}; it is not kept. {advice}",
        lacking.len(),
        names.join(", ")
    );
    Error::new(ErrorKind::Unavailable, message)
}

/// Tells where SHARED is, by the configuration that came with the backup: who reads it directly spares the server the copying.
async fn where_shared_is(arrived: &Arrived, place: &Place, runtime: &tokio::runtime::Handle) -> Option<String> {
    let row = arrived.meta.iter().find(|row| matches!(row.subject.as_str(), "dn" | "tn"))?;
    let (name, place, runtime) = (format!("config/{}", row.file), place.clone(), runtime.clone());
    let text = blocking(move || place.read(&runtime, &name, 1 << 20)).await.ok()??;
    let config: toml::Table = String::from_utf8(text).ok()?.parse().ok()?;
    let services = config.get("fileservice")?.as_array()?;
    let shared = services.iter().find(|service| {
        service.get("name").and_then(|name| name.as_str()).is_some_and(|name| name.eq_ignore_ascii_case("shared"))
    })?;
    let text = |key: &str| shared.get(key).and_then(|value| value.as_str());
    let directory = text("data-dir")?;
    Some(format!(
        "the server keeps SHARED in {directory} (backend {}): with --shared and its path as seen from here, everpack reads new objects there and \
         the server has next to nothing to copy",
        text("backend").unwrap_or("DISK")
    ))
}

/// Why an attempt did not come through.
struct Failed {
    error: Error,
    /// Another attempt may.
    again: bool,
}

impl Failed {
    fn for_good(error: Error) -> Self {
        Self { error, again: false }
    }

    /// What may have been a moment's bad luck: something vanished, or a checkpoint came in between.
    fn maybe(error: Error) -> Self {
        let again = !matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported)
            && error.message() != stopped().message();
        Self { error, again }
    }
}

/// A server's refusal: its text says whether it is worth another attempt.
fn classify_failure(error: Error) -> Failed {
    let Some(said) = ServerError::of(&error) else {
        // The connection is gone, or the statement cannot be sent.
        return Failed::for_good(error);
    };
    let text = said.message.to_ascii_lowercase();
    let advice = if text.contains("no space left") {
        Some("the server's disk, or the staging place, is full: free some space, or stage elsewhere")
    } else if text.contains("permission denied") {
        Some("the server's user cannot write to the staging place")
    } else if text.contains("do not have privilege") {
        Some("log in as a user of the account sys that may run BACKUP")
    } else {
        None
    };
    // An object vanished under the server's hands: garbage collection ran.
    let again = said.code == 20405 || text.contains("is not found") || text.contains("context deadline exceeded");
    match advice {
        Some(advice) => Failed::for_good(error.context(advice)),
        None => Failed { error, again },
    }
}
