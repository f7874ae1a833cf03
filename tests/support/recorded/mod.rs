//! A recorded server: speaks the MySQL protocol as MatrixOne does, answers statements from the captured transcripts, and plays BACKUP by
//! placing captured trees where the statement says.
//!
//! ```ignore
//! let Some(recording) = Recording::captured("the test's name") else { return };
//! let server = RecordedServer::start(recording).await;
//! let client = Client::connect(&server.login()).await.unwrap();
//! ```
//!
//! A statement that no transcript knows is answered with an error and fails the test when the server is dropped. It runs in threads of its own,
//! so tests that block (a program that is waited for) can use it as well ([`RecordedServer::start_now`]).

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "a test uses what it needs of this")]

mod answers;
mod backup;
mod tokens;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use everpack::matrixone::login::{Login, Secret, Tls};
use everpack::matrixone::release::Release;
use everpack::testing::data;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub use self::answers::Answer;
pub use self::tokens::pieces;

/// A captured tree, whole: a night that BACKUP can play.
#[derive(Clone, Debug)]
pub struct TreeSource {
    /// The root of the tree, framed or raw.
    pub root: PathBuf,
}

impl TreeSource {
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

/// What goes wrong with one BACKUP.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An object is neither copied nor listed, and the server says OK: what releases before 4.2 do when it vanishes under them.
    VanishedObject,
    /// An object is listed as copied and is not there.
    MissingObject,
    /// An object's SHA-256 in `tae_list` is not its own.
    WrongSha,
    /// The server dies in the middle of the copy: a part of the tree, no `mo_meta`, the connection cut, nobody answers until [`RecordedServer::revive`].
    Killed,
    /// The connection is cut in the middle; the server lives, and stops copying.
    Cut,
    /// The server refuses before it writes anything.
    Refuses { code: u16, message: String },
    /// The server takes so long for each file.
    Slow(Duration),
    /// The disk of the target is full in the middle of the copy.
    DiskFull,
    /// `hakeeper/` is not written.
    MissingHkData,
}

/// How the cluster keeps SHARED.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shared {
    /// DISK-V2, or S3.
    #[default]
    Raw,
    /// The legacy DISK with its checksums.
    Framed,
}

/// What a server is to be.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What it calls itself.
    pub release: String,
    pub user: String,
    pub password: String,
    /// More users: `a1:admin`, and their passwords.
    pub others: Vec<(String, String)>,
    /// Transcripts that answer, the first one first.
    pub transcripts: Vec<PathBuf>,
    /// Answers beside the transcripts; they come before them.
    pub answers: Vec<(String, Answer)>,
    /// What the BACKUPs play, one after the other; the last one again and again.
    pub nights: Vec<TreeSource>,
    pub shared: Shared,
    /// What goes wrong with the first BACKUPs, in their order.
    pub faults: Vec<Option<Fault>>,
    /// Another method of login is named first, as behind some proxies.
    pub switches_authentication: bool,
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            release: "8.0.30-MatrixOne-v4.2.0".to_owned(),
            user: "root".to_owned(),
            password: "111".to_owned(),
            others: Vec::new(),
            transcripts: Vec::new(),
            answers: Vec::new(),
            nights: Vec::new(),
            shared: Shared::default(),
            faults: Vec::new(),
            switches_authentication: false,
        }
    }
}

impl Recording {
    /// The captured server: all transcripts, the five nights of the shop; `None`, said aloud, where the captures are absent.
    pub fn captured(test: &str) -> Option<Self> {
        let captures = data::captures(test)?;
        let sql = data::transcripts(test)?;
        let names = [
            "00-basic",
            "12-moctl",
            "20-snapshot",
            "21-tenant",
            "22-pitr",
            "23-restore-cluster",
            "30-backup-errors",
            "34-sys-nonadmin",
        ];
        Some(Self {
            others: vec![("a1:admin".to_owned(), "111".to_owned()), ("bk".to_owned(), "111".to_owned())],
            transcripts: names.iter().map(|name| sql.join(format!("{name}.jsonl"))).collect(),
            nights: (1..=5).map(|night| TreeSource::at(captures.join(format!("shop/full-{night}")))).collect(),
            ..Self::default()
        })
    }
}

/// A server that runs until it is dropped.
pub struct RecordedServer {
    state: Arc<State>,
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

/// What all connections share.
struct State {
    recording: Recording,
    answers: Mutex<answers::Answers>,
    statements: Mutex<Vec<String>>,
    unknown: Mutex<Vec<String>>,
    faults: Mutex<VecDeque<Option<Fault>>>,
    night: Mutex<usize>,
    next_id: AtomicU32,
    /// Connections at work, and whether somebody killed their statement.
    at_work: Mutex<BTreeMap<u32, Arc<AtomicBool>>>,
    /// True while nobody is to be let in.
    is_dead: AtomicBool,
    forgives: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl RecordedServer {
    pub async fn start(recording: Recording) -> Self {
        Self::start_now(recording)
    }

    /// The same for tests without a runtime.
    pub fn start_now(recording: Recording) -> Self {
        let answers = answers::Answers::load(&recording.transcripts, &recording.answers);
        let state = Arc::new(State {
            faults: Mutex::new(recording.faults.iter().cloned().collect()),
            recording,
            answers: Mutex::new(answers),
            statements: Mutex::default(),
            unknown: Mutex::default(),
            night: Mutex::new(0),
            next_id: AtomicU32::new(1),
            at_work: Mutex::default(),
            is_dead: AtomicBool::new(false),
            forgives: AtomicBool::new(false),
        });
        let mut server = Self { state, address: SocketAddr::from(([127, 0, 0, 1], 0)), running: None };
        server.listen();
        server
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The login of the recording's user.
    pub fn login(&self) -> Login {
        self.login_as(&self.state.recording.user, &self.state.recording.password)
    }

    pub fn login_as(&self, user: &str, password: &str) -> Login {
        Login {
            host: "127.0.0.1".to_owned(),
            port: self.port(),
            user: user.to_owned(),
            password: Secret::new(password),
            tls: Tls::Off,
        }
    }

    /// `matrixone://user@127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("matrixone://{}@127.0.0.1:{}", self.state.recording.user, self.port())
    }

    /// What was asked for, in order, without the questions by which a client learns where it is.
    pub fn statements(&self) -> Vec<String> {
        self.all_statements().into_iter().filter(|sql| answers::identity_question(sql).is_none()).collect()
    }

    pub fn all_statements(&self) -> Vec<String> {
        lock(&self.state.statements).clone()
    }

    /// Statements that nobody knew how to answer.
    pub fn unknown(&self) -> Vec<String> {
        lock(&self.state.unknown).clone()
    }

    /// Statements nobody knows are what this test is about.
    pub fn forgive_unknown(&self) {
        self.state.forgives.store(true, Ordering::SeqCst);
    }

    /// Adds an answer; the newest counts.
    pub fn answer(&self, sql: &str, answer: Answer) {
        lock(&self.state.answers).add(sql, answer);
    }

    /// What goes wrong with the next BACKUP that has no fault yet.
    pub fn next_fault(&self, fault: Fault) {
        lock(&self.state.faults).push_back(Some(fault));
    }

    /// Which night the next BACKUP plays.
    pub fn set_night(&self, night: usize) {
        *lock(&self.state.night) = night;
    }

    /// Goes away as a server does that is stopped: nothing listens, connections are cut. Statements at work are given up.
    pub fn stop(&mut self) {
        for killed in lock(&self.state.at_work).values() {
            killed.store(true, Ordering::SeqCst);
        }
        if let Some(running) = self.running.take() {
            running.stop.send_replace(true);
            let ended = running.thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the recorded server's thread panicked");
        }
    }

    /// Comes back on the same port, after [`Self::stop`] or a fault that killed it.
    pub fn revive(&mut self) {
        self.stop();
        self.state.is_dead.store(false, Ordering::SeqCst);
        self.listen();
    }

    fn listen(&mut self) {
        let listener = std::net::TcpListener::bind(self.address).expect("a port on the loopback");
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let state = Arc::clone(&self.state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { accept(TcpListener::from_std(listener).unwrap(), state, stopped).await });
        });
        self.running = Some(Running { stop, thread });
    }
}

impl Drop for RecordedServer {
    fn drop(&mut self) {
        self.stop();
        let unknown = self.unknown();
        if !std::thread::panicking() && !self.state.forgives.load(Ordering::SeqCst) {
            assert!(unknown.is_empty(), "statements that the recorded server does not know: {unknown:#?}");
        }
    }
}

/// Lets in whoever comes until the server is stopped or dies.
async fn accept(listener: TcpListener, state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let mut connections = tokio::task::JoinSet::new();
    let mut listener = Some(listener);
    loop {
        let incoming = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = incoming => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(serve(stream, Arc::clone(&state)));
            }
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {
                if state.is_dead.load(Ordering::SeqCst) {
                    // A dead process holds neither port nor connections.
                    listener = None;
                    connections.abort_all();
                }
            }
        }
    }
    connections.shutdown().await;
}

/// One connection, from the handshake to the end.
async fn serve(stream: TcpStream, state: Arc<State>) {
    let id = state.next_id.fetch_add(1, Ordering::SeqCst);
    stream.set_nodelay(true).ok();
    let mut wire = wire::Wire::new(stream);
    // Whatever fails here is a client that went away.
    let Ok(Some(user)) = wire::login(&mut wire, id, &state.recording).await else { return };
    let killed = Arc::new(AtomicBool::new(false));
    lock(&state.at_work).insert(id, Arc::clone(&killed));
    drop(converse(&mut wire, &state, &user, &killed).await);
    lock(&state.at_work).remove(&id);
}

async fn converse(
    wire: &mut wire::Wire,
    state: &Arc<State>,
    user: &str,
    killed: &Arc<AtomicBool>,
) -> std::io::Result<()> {
    loop {
        let command = wire.command().await?;
        let Some((&kind, body)) = command.split_first() else { return Ok(()) };
        let answer = match kind {
            wire::COM_QUIT => return Ok(()),
            wire::COM_PING | wire::COM_INIT_DB => Answer::Done { affected: 0 },
            wire::COM_QUERY => {
                let sql = String::from_utf8_lossy(body).into_owned();
                lock(&state.statements).push(sql.clone());
                killed.store(false, Ordering::SeqCst);
                let (state, user, killed) = (Arc::clone(state), user.to_owned(), Arc::clone(killed));
                // BACKUP copies files: not on the thread that must hear a KILL meanwhile.
                let flag = Arc::clone(&killed);
                let mut work = tokio::task::spawn_blocking(move || answer(&state, &user, &sql, &flag));
                let done = tokio::select! {
                    done = &mut work => done,
                    // Nobody speaks before the answer, so this is a client that hangs up.
                    () = wire.spoken() => {
                        killed.store(true, Ordering::SeqCst);
                        work.await
                    }
                };
                done.map_err(std::io::Error::other)?
            }
            // Prepared statements, resets and changes of user are errors, as MatrixOne answers the latter two; who sends them has to learn it.
            other => {
                lock(&state.unknown).push(format!("command {other:#04x}"));
                Answer::error(20101, &format!("internal error: unsupported command. {other:#x}"))
            }
        };
        match answer {
            Answer::Cut => return Ok(()),
            answer => wire.answer(&answer).await?,
        }
    }
}

fn answer(state: &State, user: &str, sql: &str, killed: &AtomicBool) -> Answer {
    let account = account_of(user);
    if let Some(question) = answers::identity_question(sql) {
        return answers::identity(question, &state.recording.release, account);
    }
    let pieces = pieces(sql);
    if pieces.first().is_some_and(|first| first.is_word("backup")) {
        if let Some(answer) = lock(&state.answers).find(&pieces, user, true) {
            return answer;
        }
        return backup::play(state, account, &pieces, killed);
    }
    if let Some(id) = answers::kill_target(&pieces) {
        return match lock(&state.at_work).get(&id) {
            Some(flag) => {
                flag.store(true, Ordering::SeqCst);
                Answer::Done { affected: 0 }
            }
            None => Answer::error(20101, &format!("internal error: Unknown connection id {id}")),
        };
    }
    if let Some(checker) = answers::checker(&pieces) {
        if account == "sys" && !checker {
            // What a real one does with a timestamp that is none: the process is gone.
            state.is_dead.store(true, Ordering::SeqCst);
            return Answer::Cut;
        }
        if account == "sys" {
            return answers::control_done("DiskCleaner");
        }
    }
    let known = lock(&state.answers).find(&pieces, user, false);
    match known {
        Some(Answer::Dies) => {
            state.is_dead.store(true, Ordering::SeqCst);
            Answer::Cut
        }
        Some(answer) => answer,
        None => {
            lock(&state.unknown).push(sql.to_owned());
            Answer::error(1064, "SQL parser error: the recorded server does not know this statement")
        }
    }
}

/// The account of a user as MatrixOne reads it.
fn account_of(user: &str) -> &str {
    let user = user.split('?').next().unwrap_or_default();
    user.find(['#', ':']).map_or("sys", |at| &user[..at])
}

impl State {
    fn release(&self) -> Option<Release> {
        Release::parse(&self.recording.release)
    }

    fn next_night(&self) -> Option<&TreeSource> {
        let night = *lock(&self.night);
        self.recording.nights.get(night).or(self.recording.nights.last())
    }

    fn take_fault(&self) -> Option<Fault> {
        lock(&self.faults).pop_front().flatten()
    }
}
