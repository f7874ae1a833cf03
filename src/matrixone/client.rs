//! One connection to a server: statements go out as text, rows come back as text.
//!
//! The one home of `mysql_async`, with everything of it turned off that MatrixOne answers with an error or that would act behind our back:
//! no pool (it resets connections, which the server refuses), no prepared statements, no query for settings, no hop to a local socket (it
//! may be another server's), no default database, no time-out on statements (a RESTORE or BACKUP may take hours; keep-alive probes notice a
//! host that is gone). Dropping a [`Client`] closes the connection, and the server then gives up what runs on it, sooner or later.
//!
//! What a server says may repeat the statement: passwords and keys that stand in it are taken out of every error ([`redact`](super::redact)).
//!
//! Not done here: which statements to send ([`super::sql`]); asking for passwords ([`super::login`]).

use std::fmt;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, IoError, OptsBuilder, SslOpts, Value};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::matrixone::login::{Login, Tls};
use crate::matrixone::redact::Redaction;
use crate::matrixone::release::Release;
use crate::matrixone::sql::{Asker, Control, PitrRow, SHOW_PITR, SHOW_SNAPSHOTS, SnapshotRow, Step};

/// The values of a row, by column; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// How long a server may take to answer a login.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may be silent before the operating system probes it.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// What MatrixOne takes in one statement unless it is told otherwise.
const PACKET_MOST: usize = 64 << 20;
/// The library closes nothing by it: it only ages connections in pools.
const WAIT_SECONDS: usize = 86_400;

/// What a server itself said when it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// 1045, 1064, 20101, …
    pub code: u16,
    /// Its text, without secrets.
    pub message: String,
}

impl ServerError {
    /// Wrong user or password, a suspended account, or an address that may not log in.
    pub const ACCESS_DENIED: u16 = 1045;
    /// A statement that the release does not know.
    pub const SYNTAX: u16 = 1064;
    /// MatrixOne's internal errors, missing privileges and unknown accounts among them.
    pub const INTERNAL: u16 = 20101;

    /// What the server said, if that is the cause of an error.
    pub fn of(error: &Error) -> Option<&Self> {
        let mut at: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
        while let Some(cause) = at {
            if let Some(found) = cause.downcast_ref::<Self>() {
                return Some(found);
            }
            at = cause.source();
        }
        None
    }

    /// True if this user may not do what was asked for.
    pub fn is_privilege(&self) -> bool {
        self.message.contains("do not have privilege")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

impl std::error::Error for ServerError {}

/// One connection.
pub struct Client {
    connection: Conn,
    login: Login,
    version: String,
    account: Option<String>,
    is_broken: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("place", &self.login.place())
            .field("id", &self.id())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects and logs in.
    ///
    /// Any server that speaks the protocol will do; [`Self::require_matrixone`] is another question. Every failure says what to do about it.
    pub async fn connect(login: &Login) -> Result<Self> {
        let act = || format!("connect to {} as {}", login.place(), login.shown_user());
        if login.user.is_empty() {
            return Err(Error::invalid("no user to log in as").context(act()));
        }
        let options = options(login).context(act)?;
        let connection = match tokio::time::timeout(CONNECT_PATIENCE, Conn::new(options)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(login_error(login, error).context(act())),
            Err(_) => {
                let message = format!(
                    "no answer within {} s. Is this the port of a MatrixOne server's SQL (6001 unless configured), and does a firewall let us through?",
                    CONNECT_PATIENCE.as_secs()
                );
                return Err(Error::new(ErrorKind::Unavailable, message).context(act()));
            }
        };
        let mut client =
            Self { connection, login: login.clone(), version: String::new(), account: None, is_broken: false };
        // The library does not show the handshake, and behind a proxy that would be the proxy's: the server itself is asked.
        let version = client.value("select version()").await.context(act)?;
        client.version = version.unwrap_or_default();
        Ok(client)
    }

    /// The release; `None` if the server is no MatrixOne, or a build without a number.
    pub fn release(&self) -> Option<Release> {
        if self.version.contains("MatrixOne") { Release::parse(&self.version) } else { None }
    }

    /// What the server calls itself: `8.0.30-MatrixOne-v4.2.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The number of the connection, which KILL takes.
    pub fn id(&self) -> u32 {
        self.connection.id()
    }

    /// Who is logged in, and where.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Runs a statement and reads all of its rows.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.refuse_if_broken(sql)?;
        // The first byte of a packet is the command.
        if sql.len() >= PACKET_MOST {
            let message = format!(
                "ask {} to {}: the statement has {} bytes, and a server takes less than {PACKET_MOST}",
                self.login.place(),
                Redaction::of(sql).shown(),
                sql.len()
            );
            return Err(Error::invalid(message));
        }
        // A future that is dropped halfway leaves an answer on the wire that the next statement would take for its own.
        self.is_broken = true;
        let answer = rows_of(&mut self.connection, sql).await;
        match answer {
            Ok(rows) => {
                self.is_broken = false;
                Ok(rows)
            }
            Err(error) => {
                self.is_broken = error.is_fatal();
                Err(self.statement_error(sql, error))
            }
        }
    }

    /// Runs a statement that answers nothing but that it is done.
    pub async fn run(&mut self, sql: &str) -> Result<()> {
        self.query(sql).await.map(drop)
    }

    /// Runs the first statement, and the second if the server does not know the first one's syntax (1064).
    ///
    /// Such an answer comes before anything is done, so trying is safe. For servers that do not tell their release.
    pub async fn run_either(&mut self, first: &str, second: &str) -> Result<()> {
        match self.run(first).await {
            Err(error) if ServerError::of(&error).is_some_and(|said| said.code == ServerError::SYNTAX) => {
                self.run(second).await
            }
            answer => answer,
        }
    }

    /// Runs statements one after the other, and stops at the first that fails.
    ///
    /// What earlier ones left behind stands in the error: nothing is taken back.
    pub async fn run_steps(&mut self, steps: &[Step]) -> Result<()> {
        let mut left = Vec::new();
        for step in steps {
            let answer = match &step.otherwise {
                Some(otherwise) => self.run_either(&step.sql, otherwise).await,
                None => self.run(&step.sql).await,
            };
            if left.is_empty() {
                answer?;
            } else {
                answer.context(|| left.join("; "))?;
            }
            left.extend(step.leaves.clone());
        }
        Ok(())
    }

    /// Asks for a checkpoint or for protection, and makes sure that the server says OK.
    pub async fn control(&mut self, control: &Control) -> Result<()> {
        let rows = self.query(&control.sql()?).await?;
        control.check(&rows).context(|| format!("ask {}", self.login.place()))
    }

    /// Who asks, for the functions that make statements.
    pub async fn asker(&mut self) -> Result<Asker<'_>> {
        self.account().await?;
        Ok(Asker { release: self.release(), account: self.account.as_deref().unwrap_or_default() })
    }

    /// The snapshots that this account can see, newest first.
    pub async fn snapshots(&mut self) -> Result<Vec<SnapshotRow>> {
        SnapshotRow::read(self.query(SHOW_SNAPSHOTS).await?)
    }

    /// The points in time that this account made, newest first.
    pub async fn pitrs(&mut self) -> Result<Vec<PitrRow>> {
        PitrRow::read(self.query(SHOW_PITR).await?)
    }

    /// The first value of the first row; `None` if there is none, or NULL.
    pub async fn value(&mut self, sql: &str) -> Result<Option<String>> {
        let rows = self.query(sql).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// The account that this connection works in: `sys` for the operators of a cluster.
    pub async fn account(&mut self) -> Result<String> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let account = self.value("select current_account_name()").await?;
        let account = account.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("{} does not tell the account we work in", self.login.place()))
        })?;
        self.account = Some(account.clone());
        Ok(account)
    }

    /// Fails unless the server is a MatrixOne.
    pub async fn require_matrixone(&mut self) -> Result<()> {
        // The version's prefix and suffix can be configured; the comment cannot.
        if self.version.contains("MatrixOne") {
            return Ok(());
        }
        let comment = self.value("select @@version_comment").await.unwrap_or_default().unwrap_or_default();
        if comment.contains("MatrixOne") {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} is not a MatrixOne server: it calls itself {:?}. Name the port of MatrixOne's SQL, 6001 unless configured",
            self.login.place(),
            self.version
        )))
    }

    /// Fails unless this connection works in the account `sys`, which alone may do what concerns a whole cluster.
    pub async fn require_sys(&mut self, what: &str) -> Result<()> {
        let account = self.account().await?;
        if account == "sys" {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{what} is for the account sys alone, and {} belongs to {account}: log in as a user of sys, such as `root`",
            self.login.shown_user()
        )))
    }

    /// Stops the statement that another connection of this login runs; the connection stays.
    pub async fn kill(login: &Login, id: u32) -> Result<()> {
        let mut client = Self::connect(login).await.context(|| format!("stop the statement of connection {id}"))?;
        let answer = client.run(&format!("kill query {id}")).await;
        client.close().await;
        answer
    }

    /// Says goodbye. Never fails: there is nothing left that could be lost.
    pub async fn close(self) {
        if !self.is_broken {
            // A server that went away first is as good as one that was told.
            drop(self.connection.disconnect().await);
        }
    }

    fn refuse_if_broken(&self, sql: &str) -> Result<()> {
        if !self.is_broken {
            return Ok(());
        }
        let message = format!(
            "ask {} to {}: the connection is lost; connect anew",
            self.login.place(),
            Redaction::of(sql).shown()
        );
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    fn statement_error(&self, sql: &str, error: mysql_async::Error) -> Error {
        let redaction = Redaction::of(sql);
        let act = format!("ask {} to {}", self.login.place(), redaction.shown());
        match error {
            mysql_async::Error::Server(said) => {
                let said = ServerError { code: said.code, message: redaction.clean(&said.message) };
                Error::with_source(kind_of(&said), act, said)
            }
            error => {
                let message = format!(
                    "{act}: the connection was lost before an answer came. The server or the network went away, or somebody killed the \
                     connection; whether the statement was done is not known"
                );
                Error::with_source(ErrorKind::Unavailable, message, redaction.clean(&error.to_string()))
            }
        }
    }
}

async fn rows_of(connection: &mut Conn, sql: &str) -> std::result::Result<Vec<Row>, mysql_async::Error> {
    let mut answer = connection.query_iter(sql).await?;
    let rows: Vec<mysql_async::Row> = answer.collect().await?;
    answer.drop_result().await?;
    Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text_of).collect()).collect())
}

/// The text protocol sends nothing but bytes and NULL.
fn text_of(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }),
        other => Some(other.as_sql(false)),
    }
}

fn options(login: &Login) -> Result<OptsBuilder> {
    let tls = match &login.tls {
        Tls::Off => None,
        Tls::Required { ca: None } => Some(SslOpts::default()),
        Tls::Required { ca: Some(ca) } => {
            let certificates = std::fs::read(ca)
                .map_err(|error| Error::io(format!("read the authority's certificate {}", ca.display()), error))?;
            Some(SslOpts::default().with_disable_built_in_roots(true).with_root_certs(vec![certificates.into()]))
        }
    };
    let password = (!login.password.is_empty()).then(|| login.password.reveal().to_owned());
    let options = OptsBuilder::default()
        .ip_or_hostname(login.host.clone())
        .tcp_port(login.port)
        .user(Some(login.user.clone()))
        .pass(password)
        .db_name(None::<String>)
        .prefer_socket(false)
        .max_allowed_packet(Some(PACKET_MOST))
        .wait_timeout(Some(WAIT_SECONDS))
        .tcp_keepalive(Some(KEEP_ALIVE))
        .stmt_cache_size(0)
        .ssl_opts(tls);
    Ok(options)
}

fn kind_of(said: &ServerError) -> ErrorKind {
    match said.code {
        1049 | 1146 | 20405 => ErrorKind::NotFound,
        ServerError::ACCESS_DENIED => ErrorKind::Unavailable,
        _ if said.is_privilege() => ErrorKind::Unavailable,
        // An interrupted statement and plain errors of the server's surroundings (its disk, its object store).
        1105 | 1317 | 20400..=20404 => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    }
}

/// Why a login failed, and what to do about it.
fn login_error(login: &Login, error: mysql_async::Error) -> Error {
    use ErrorKind::{Invalid, Unavailable, Unsupported};
    let not_a_server = "what listens there does not speak the MySQL protocol: name the port of MatrixOne's SQL, 6001 unless configured";
    let no_proof = "TLS: the server's certificate does not prove that it is this host: name its authority's certificate, and the host as it \
                    stands in the certificate";
    match error {
        mysql_async::Error::Server(said) => {
            let said = ServerError { code: said.code, message: said.message };
            Error::with_source(Unavailable, refusal(login, &said), said)
        }
        mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => Error::new(
            Unsupported,
            "TLS is asked for and the server does not offer it: set enableTls and its certificate in the configuration of its CN, or connect without TLS",
        ),
        mysql_async::Error::Driver(DriverError::UnknownAuthPlugin { name }) => Error::new(
            Unsupported,
            format!(
                "the server wants the password by the method {name:?}, which everpack does not have; MatrixOne uses mysql_native_password"
            ),
        ),
        mysql_async::Error::Driver(DriverError::CleartextPluginDisabled | DriverError::MysqlOldPasswordDisabled) => {
            Error::new(
                Unsupported,
                "the server wants the password in the clear, and does not get it; MatrixOne uses mysql_native_password",
            )
        }
        mysql_async::Error::Driver(DriverError::ConnectionClosed) => Error::new(
            Unavailable,
            "it closed the connection before the login was done: it may be starting, stopping, or full",
        ),
        mysql_async::Error::Driver(other) => Error::with_source(Invalid, not_a_server, other),
        mysql_async::Error::Io(IoError::Tls(cause)) => Error::with_source(Unavailable, no_proof, cause),
        // The handshake of TLS fails as any reading from a connection does.
        mysql_async::Error::Io(IoError::Io(cause))
            if login.tls != Tls::Off && matches!(cause.kind(), std::io::ErrorKind::InvalidData) =>
        {
            Error::with_source(Unavailable, no_proof, cause)
        }
        mysql_async::Error::Io(IoError::Io(cause)) => {
            use std::io::ErrorKind as Io;
            let (kind, message) = match cause.kind() {
                Io::ConnectionRefused => {
                    (Unavailable, "nothing listens there: is MatrixOne running, and is this its host and port?")
                }
                Io::TimedOut | Io::HostUnreachable | Io::NetworkUnreachable => {
                    (Unavailable, "the host does not answer")
                }
                Io::UnexpectedEof | Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe => (
                    Unavailable,
                    "it closed the connection before the login was done: it may be starting, stopping, or full",
                ),
                Io::Other | Io::InvalidData if !is_resolution(&cause) => (Invalid, not_a_server),
                _ => (Unavailable, "the host cannot be reached"),
            };
            Error::with_source(kind, message, cause)
        }
        other => Error::with_source(Invalid, not_a_server, other),
    }
}

fn is_resolution(cause: &std::io::Error) -> bool {
    cause.to_string().contains("lookup")
}

/// What a server's refusal to let us in means.
fn refusal(login: &Login, said: &ServerError) -> String {
    let user = login.shown_user();
    let text = &said.message;
    if said.code == ServerError::ACCESS_DENIED && text.to_ascii_lowercase().contains("ssl") || is_tls_demand(said) {
        "the server takes encrypted connections only: connect with TLS".to_owned()
    } else if said.code == ServerError::ACCESS_DENIED {
        // MariaDB says no more than this to whoever comes without TLS where it is demanded.
        let tls = if login.tls == Tls::Off { ", or a server that takes encrypted connections only" } else { "" };
        format!(
            "the password is wrong, or {user} may not log in (a suspended account, or an address that is not allowed{tls}). The password comes from \
             --password-file, {} or a login file",
            super::login::PASSWORD_VARIABLE
        )
    } else if text.contains("there is no tenant") {
        format!(
            "there is no account {}: a user is written `account#user`, and as `user` alone in the account sys",
            login.account()
        )
    } else if text.contains("there is no user") {
        format!("there is no such user in the account {}", login.account())
    } else {
        "the server refused the login".to_owned()
    }
}

/// What MySQL says to whoever comes without TLS where it is demanded.
fn is_tls_demand(said: &ServerError) -> bool {
    said.code == 3159
        || said.message.contains("insecure transport")
        || said.message.contains("require_secure_transport")
}
