//! The proof that a backup starts: restore it to a scratch directory, start a server on it, ask, write, restart it twice, ask again.
//!
//! - [`launch`]: toml files of a small server on free loopback ports.
//! - [`process`]: the server; it never outlives the drill.
//! - [`ask`]: queries, counts of tables, a table of the drill's own.
//!
//! A server that does not start or answers wrongly is a finding in the report and no error. Nothing outside the scratch directory is written, and
//! that is removed at the end, whatever happened.
//!
//! If we are killed: the scratch directory stays, and the server runs on in it; both are named by the report's first event.

mod ask;
mod launch;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use ask::{DrillLogin, TableComparison, TableDifference};

use self::ask::{Writes, answers, compare, parse_expected, parse_queries};
use self::launch::Ports;
use self::process::{Ending, LOOK_EVERY, Server};
use super::start::{self, StartOptions, StartReport};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::{ObjectHash, to_hex};
use crate::matrixone::client::{Client, Row};
use crate::progress::{Event, Monitor};
use crate::repo::{BackupInfo, Repository};
use crate::units::MIB;

/// How SHARED is kept by the server of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillBackend {
    /// Framed; every release knows it.
    Disk,
    /// Raw; since release 4.2.
    DiskV2,
    /// Raw, as a bucket that is a directory; since release 2.0.
    DiskEndpoint,
}

/// How a drill is done.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// The server.
    pub binary: PathBuf,
    /// Below it the scratch directory is made.
    pub scratch: PathBuf,
    /// `None`: as the backup's own server kept it.
    pub backend: Option<DrillBackend>,
    /// Who asks.
    pub login: DrillLogin,
    /// A file of queries, whose answers must be the same after every restart.
    pub query_file: Option<PathBuf>,
    /// Counts of tables, taken when the backup was made.
    pub expect: Option<PathBuf>,
    /// How long the server may take to answer.
    pub patience: Duration,
    /// Which tree, whether to cure, whether to leave log positions alone.
    pub start: StartOptions,
}

impl DrillOptions {
    /// A drill with this server below this directory, and nothing but the drill's own questions.
    pub fn new(binary: impl Into<PathBuf>, scratch: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            scratch: scratch.into(),
            backend: None,
            login: DrillLogin::default(),
            query_file: None,
            expect: None,
            patience: Duration::from_secs(180),
            start: StartOptions { memory: 256 * MIB, ..StartOptions::default() },
        }
    }
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DrillStep {
    /// What.
    pub what: String,
    /// Whether it went as it should.
    pub ok: bool,
    /// What came of it.
    pub message: String,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// A query of the user and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DrillQuery {
    /// As asked.
    pub query: String,
    /// The first answer; empty if it failed.
    pub rows: Vec<Row>,
    /// Why it failed.
    pub error: Option<String>,
    /// True if every later answer was the same.
    pub same: bool,
}

/// What a drill showed.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DrillReport {
    /// Of which backup.
    pub id: ObjectHash,
    /// True if everything went as it should.
    pub ok: bool,
    /// What the server called itself.
    pub server: Option<String>,
    /// How SHARED was kept.
    pub backend: DrillBackend,
    /// What was done, in order.
    pub steps: Vec<DrillStep>,
    /// The user's queries.
    pub queries: Vec<DrillQuery>,
    /// Tables compared with their counts, after the last restart.
    pub tables: Option<TableComparison>,
    /// What was restored.
    pub restored: Option<StartReport>,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// How long it took, seconds.
    #[serde(serialize_with = "crate::ops::seconds")]
    pub duration: Duration,
}

/// Stops waiting when the user wants to stop.
pub(super) struct Monitoring {
    monitor: Arc<dyn Monitor>,
}

impl Monitoring {
    fn is_stopped(&self) -> bool {
        self.monitor.cancelled()
    }

    /// Does something that takes its time, unless it is stopped.
    async fn until<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(LOOK_EVERY, &mut work).await {
                Ok(done) => return done,
                Err(_) if self.is_stopped() => return Err(stopped()),
                Err(_) => {}
            }
        }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "stopped on request; the server was stopped and what was restored is removed")
}

/// The scratch directory; removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make(repository: &Repository, below: &Path) -> Result<Self> {
        let mut random = [0; 8];
        repository.environment().entropy.fill(&mut random)?;
        let path = below.join(format!("everpack-drill-{}", to_hex(&random)));
        std::fs::create_dir(&path).context(|| format!("make the scratch directory {}", path.display()))?;
        let path = path.canonicalize().context(|| format!("find {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is found by its name.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// The running drill.
struct Drill<'a> {
    options: &'a DrillOptions,
    watch: Monitoring,
    directory: PathBuf,
    port: u16,
    queries: Vec<String>,
    first: Vec<Result<Vec<Row>, String>>,
    expected: Option<ask::Expected>,
    report: DrillReport,
}

/// Restores, starts, asks, writes, restarts by SIGTERM and by SIGKILL, asks again, and removes everything.
///
/// Fails if the backup cannot be restored for a server at all, if a file named by the options cannot be read, or on request.
pub async fn drill(
    repository: &Repository,
    backup: &BackupInfo,
    options: &DrillOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<DrillReport> {
    let begun = Instant::now();
    let read = |path: &PathBuf| std::fs::read_to_string(path).context(|| format!("read {}", path.display()));
    let queries = options.query_file.as_ref().map(read).transpose()?.map(|text| parse_queries(&text));
    let expected = match &options.expect {
        Some(path) => Some(parse_expected(&read(path)?).context(|| format!("read {}", path.display()))?),
        None => None,
    };
    let binary = options.binary.canonicalize().context(|| format!("find the server {}", options.binary.display()))?;
    let backend = match options.backend {
        Some(backend) => backend,
        None => usual_backend(repository, backup, &options.start, &monitor).await?,
    };
    let scratch = Scratch::make(repository, &options.scratch)?;
    monitor.event(Event::Warning { message: format!("the drill runs in {}", scratch.0.display()) });
    let ports = Ports::find(repository.environment().entropy.as_ref())?;
    launch::write(&scratch.0, ports, backend)?;
    let start_options =
        StartOptions { config: vec![scratch.0.join("etc/launch/launch.toml")], ..options.start.clone() };
    let restored = start::start(repository, backup, &scratch.0, &start_options, Arc::clone(&monitor)).await?;
    let report = DrillReport {
        id: backup.id,
        ok: true,
        server: None,
        backend,
        steps: Vec::new(),
        queries: Vec::new(),
        tables: None,
        restored: None,
        remarks: Vec::new(),
        duration: Duration::ZERO,
    };
    let mut drill = Drill {
        options,
        watch: Monitoring { monitor: Arc::clone(&monitor) },
        directory: scratch.0.clone(),
        port: ports.sql(),
        queries: queries.unwrap_or_default(),
        first: Vec::new(),
        expected,
        report,
    };
    drill.step(
        "restore",
        restored.duration,
        match restored.damaged_count {
            0 => Ok(format!("{} files", restored.files)),
            count => Err(format!("{count} files are damaged and were left out")),
        },
    );
    let outcome = drill.run(&binary).await;
    if drill.watch.is_stopped() {
        return Err(stopped());
    }
    let Drill { mut report, .. } = drill;
    if let Err(error) = outcome {
        report.ok = false;
        report.remarks.push(error.to_string());
    }
    report.remarks.extend(restored.remarks.iter().cloned());
    report.restored = Some(restored);
    report.duration = begun.elapsed();
    Ok(report)
}

/// As the server that wrote the backup kept its files; raw ones as its release can.
async fn usual_backend(
    repository: &Repository,
    backup: &BackupInfo,
    options: &StartOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<DrillBackend> {
    let written = start::written_as(repository, backup, options, monitor).await?;
    Ok(match written {
        (true, _) => DrillBackend::Disk,
        (false, Some(release)) if release.target_follows_shared() => DrillBackend::DiskV2,
        // What every release since 2.0 knows; a build without a number may be any.
        (false, _) => DrillBackend::DiskEndpoint,
    })
}

impl Drill<'_> {
    /// Notes a step; false if it went wrong.
    fn step(&mut self, what: &str, duration: Duration, outcome: Result<String, String>) -> bool {
        let (ok, message) = match outcome {
            Ok(message) => (true, message),
            Err(message) => (false, message),
        };
        self.report.ok &= ok;
        self.report.steps.push(DrillStep { what: what.to_owned(), ok, message, duration });
        ok
    }

    async fn run(&mut self, binary: &Path) -> Result<()> {
        let Some(mut server) = self.start("start", binary).await? else { return Ok(()) };
        // Before the first questions: what they answer includes the drill's own database, then and later.
        self.write().await?;
        if !self.asked("ask", &mut server).await? {
            return Ok(());
        }
        self.checkpoint("force a checkpoint").await?;
        self.end(server, "stop (SIGTERM)", Ending::Term).await?;
        let Some(mut server) = self.start("start again", binary).await? else { return Ok(()) };
        if !self.asked("ask again", &mut server).await? {
            return Ok(());
        }
        self.checkpoint("force another checkpoint").await?;
        self.end(server, "kill (SIGKILL)", Ending::Kill).await?;
        let Some(mut server) = self.start("start after the kill", binary).await? else { return Ok(()) };
        if !self.asked("ask once more", &mut server).await? {
            return Ok(());
        }
        // The copy goes, so nothing is lost with a quick end.
        self.end(server, "stop", Ending::Kill).await
    }

    /// Asks; false if the server did not survive it.
    async fn asked(&mut self, what: &str, server: &mut Server) -> Result<bool> {
        let asked = self.ask(what).await;
        if let Some(status) = server.ended()? {
            let message = format!("the server ended by itself ({status})\n{}", server.tail());
            self.step("stay", Duration::ZERO, Err(message));
            return Ok(false);
        }
        asked.map(|()| true)
    }

    /// Starts the server and waits until it answers; `None` if it never does.
    async fn start(&mut self, what: &str, binary: &Path) -> Result<Option<Server>> {
        let begun = Instant::now();
        let mut server = Server::start(binary, &self.directory)?;
        let login = self.options.login.of("sys", self.port);
        let why = loop {
            if self.watch.is_stopped() {
                return Err(stopped());
            }
            if let Some(status) = server.ended()? {
                break format!("the server ended ({status})");
            }
            let asked = self.watch.until(async {
                let mut client = Client::connect(&login).await?;
                client.query("select count(*) from mo_catalog.mo_tables").await?;
                let version = client.version().to_owned();
                client.close().await;
                Ok(version)
            });
            match asked.await {
                Ok(version) => {
                    self.report.server = Some(version);
                    self.step(what, begun.elapsed(), Ok("it answers".to_owned()));
                    return Ok(Some(server));
                }
                Err(error) if begun.elapsed() > self.options.patience => {
                    break format!("it did not answer within {} s: {error}", self.options.patience.as_secs());
                }
                Err(_) => tokio::time::sleep(ask::RETRY_EVERY).await,
            }
        };
        let tail = server.tail();
        self.step(what, begun.elapsed(), Err(format!("{why}\n{tail}")));
        Ok(None)
    }

    async fn connect(&self) -> Result<Client> {
        self.watch.until(Client::connect(&self.options.login.of("sys", self.port))).await
    }

    /// The user's queries, the tables that are counted, and the drill's own table.
    async fn ask(&mut self, what: &str) -> Result<()> {
        let begun = Instant::now();
        let mut client = self.connect().await?;
        let given = self.watch.until(async { Ok(answers(&mut client, &self.queries).await) }).await?;
        let mut wrong = Vec::new();
        if self.first.is_empty() {
            let queries = self.queries.iter().zip(&given).map(|(query, answer)| DrillQuery {
                query: query.clone(),
                rows: answer.clone().unwrap_or_default(),
                error: answer.clone().err(),
                same: true,
            });
            self.report.queries = queries.collect();
            wrong.extend(given.iter().filter_map(|answer| answer.clone().err()));
            self.first = given;
        } else {
            for ((asked, first), now) in self.report.queries.iter_mut().zip(&self.first).zip(&given) {
                if first != now {
                    asked.same = false;
                    wrong.push(format!("{:?} is answered otherwise than before the restart", asked.query));
                }
            }
        }
        if self.report.steps.iter().any(|step| step.what == "write" && step.ok)
            && let Some(why) = self.watch.until(Writes::check(&mut client)).await?
        {
            wrong.push(why);
        }
        client.close().await;
        let mut said = vec![format!("{} queries", self.queries.len())];
        if let Some(expected) = &self.expected {
            let comparison = compare(&self.options.login, self.port, expected, &self.watch).await?;
            said.push(format!("{} tables as counted", comparison.same));
            wrong.extend(comparison.different.iter().map(|table| format!("{}: {}", table.table, table.what)));
            self.report.tables = Some(comparison);
        }
        let outcome = if wrong.is_empty() { Ok(said.join(", ")) } else { Err(wrong.join("\n")) };
        self.step(what, begun.elapsed(), outcome);
        Ok(())
    }

    async fn write(&mut self) -> Result<()> {
        let begun = Instant::now();
        let made = match self.connect().await {
            Ok(mut client) => {
                let made = self.watch.until(Writes::make(&mut client)).await;
                client.close().await;
                made
            }
            Err(error) => Err(error),
        };
        let outcome = made.map(|()| "a table with new rows".to_owned()).map_err(|error| error.to_string());
        self.step("write", begun.elapsed(), outcome);
        Ok(())
    }

    async fn checkpoint(&mut self, what: &str) -> Result<()> {
        let begun = Instant::now();
        let mut client = self.connect().await?;
        let answer = self.watch.until(client.value("select mo_ctl('dn','checkpoint','')")).await;
        client.close().await;
        let outcome = match answer {
            Ok(Some(text)) if text.contains("OK") => Ok("OK".to_owned()),
            Ok(other) => Err(format!("the server said {:?}", other.unwrap_or_default())),
            Err(error) => Err(error.to_string()),
        };
        self.step(what, begun.elapsed(), outcome);
        Ok(())
    }

    async fn end(&mut self, server: Server, what: &str, ending: Ending) -> Result<()> {
        let begun = Instant::now();
        let ended = server.end(ending, &self.watch.monitor).await;
        if self.watch.is_stopped() {
            return Err(stopped());
        }
        self.step(what, begun.elapsed(), ended.map(|asked| said(asked).to_owned()).map_err(|error| error.to_string()));
        Ok(())
    }
}

fn said(stopped_when_asked: bool) -> &'static str {
    if stopped_when_asked { "it ended" } else { "it did not end when asked, and was killed" }
}

/// A server on new data, for tests. Dropped, it is killed.
#[doc(hidden)]
pub struct FreshServer {
    _server: Server,
    port: u16,
}

#[doc(hidden)]
impl FreshServer {
    /// Starts one in an empty directory and waits until it answers.
    pub async fn start(binary: &Path, directory: &Path, backend: DrillBackend, patience: Duration) -> Result<Self> {
        let ports = Ports::find(&crate::entropy::SystemEntropy)?;
        launch::write(directory, ports, backend)?;
        let mut server = Server::start(binary, directory)?;
        let begun = Instant::now();
        let fresh = |server| Self { _server: server, port: ports.sql() };
        while begun.elapsed() < patience {
            if server.ended()?.is_some() {
                break;
            }
            let login = DrillLogin::default().of("sys", ports.sql());
            if let Ok(mut client) = Client::connect(&login).await
                && client.query("select count(*) from mo_catalog.mo_tables").await.is_ok()
            {
                client.close().await;
                return Ok(fresh(server));
            }
            tokio::time::sleep(ask::RETRY_EVERY).await;
        }
        Err(Error::new(ErrorKind::Unavailable, format!("the server does not answer: {}", server.tail())))
    }

    /// Who asks it.
    pub fn login(&self) -> crate::matrixone::login::Login {
        DrillLogin::default().of("sys", self.port)
    }
}
