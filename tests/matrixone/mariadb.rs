//! The client against a real server of the same protocol: MariaDB, where it is installed (`mariadbd`, `mariadb-install-db`).

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use everpack::error::{ErrorKind, Result};
use everpack::matrixone::client::{Client, ServerError};
use everpack::matrixone::login::{Login, Secret, Tls};
use everpack::testing::data;
use tempfile::TempDir;

/// A server of our own, on the loopback, with its data in a scratch directory.
struct MariaDb {
    scratch: TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
}

const USERS: &str = "CREATE USER IF NOT EXISTS 'acc1#root'@'%' IDENTIFIED BY 'hunter2';\n\
    GRANT ALL ON *.* TO 'acc1#root'@'%';\n\
    CREATE USER IF NOT EXISTS 'open'@'%';\n\
    CREATE USER IF NOT EXISTS 'careful'@'%' IDENTIFIED BY 'hunter2' REQUIRE SSL;\n";

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    places.map(|place: PathBuf| place.join(name)).find(|program| program.is_file())
}

fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl MariaDb {
    /// `None`, said aloud, where MariaDB is not installed.
    async fn start(test: &str, options: impl Fn(&Path) -> Vec<String>) -> Option<Self> {
        let Some(install) = program("mariadb-install-db").filter(|_| program("mariadbd").is_some()) else {
            data::skip(test, "mariadb", "mariadbd is not installed (Debian: mariadb-server-core, mariadb-client-core)");
            return None;
        };
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let mut command = Command::new(install);
        command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        command.arg(format!("--datadir={}", data.display())).args(Self::as_root());
        // A server that starts removes every temporary table that it finds there, also those of another one.
        command.env("TMPDIR", scratch.path());
        run(command);
        std::fs::write(scratch.path().join("users.sql"), USERS).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = options(scratch.path());
        let mut server = Self { scratch, port, options, process: None };
        server.run().await;
        Some(server)
    }

    /// It refuses to run as root unless it is told to.
    fn as_root() -> Option<&'static str> {
        rustix::process::geteuid().is_root().then_some("--user=root")
    }

    async fn run(&mut self) {
        let here = self.scratch.path();
        let mut command = Command::new(program("mariadbd").unwrap());
        command.arg("--no-defaults").args(Self::as_root()).env("TMPDIR", here);
        for (option, file) in [
            ("datadir", "data"),
            ("socket", "socket"),
            ("pid-file", "pid"),
            ("log-error", "log"),
            ("init-file", "users.sql"),
        ] {
            command.arg(format!("--{option}={}", here.join(file).display()));
        }
        command.args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--max-allowed-packet=64M"]);
        command.args(["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"]);
        command.arg(format!("--port={}", self.port)).args(&self.options);
        self.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let log = || std::fs::read_to_string(here.join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "mariadbd does not start: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    fn login(&self, user: &str, password: &str) -> Login {
        let password = Secret::new(password);
        Login { host: "127.0.0.1".into(), port: self.port, user: user.into(), password, tls: Tls::Off }
    }

    async fn connect(&self) -> Client {
        Client::connect(&self.login("acc1#root", "hunter2")).await.unwrap()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test]
async fn logins_statements_and_restarts() {
    let Some(mut server) = MariaDb::start("logins at MariaDB", |_| Vec::new()).await else { return };
    let mut client = server.connect().await;
    assert!(client.version().contains("MariaDB"), "{}", client.version());
    assert_eq!(client.release(), None);
    let error = client.require_matrixone().await.unwrap_err();
    assert!(error.to_string().contains("is not a MatrixOne server"), "{error}");

    let rows = client.query("select 17, null, 'it''s', 1.5, x'ff00'").await.unwrap();
    assert_eq!(rows[0][..4], [Some("17".into()), None, Some("it's".into()), Some("1.5".into())]);
    let error = client.run("selec 1").await.unwrap_err();
    assert_eq!(ServerError::of(&error).unwrap().code, ServerError::SYNTAX);
    client.run_either("restore cluster {snapshot = `s`}", "do 1").await.unwrap();
    // What was quoted for MatrixOne is read back by another parser too.
    let text = "it's \\ \"a\" `b` -- c";
    let sql = format!(
        "select {} as {}",
        everpack::matrixone::sql::string(text).unwrap(),
        everpack::matrixone::sql::identifier("a`b").unwrap()
    );
    assert_eq!(client.value(&sql).await.unwrap().as_deref(), Some(text));

    for (user, password) in [("acc1#root", "hunter3"), ("acc1#root", ""), ("nobody", "hunter2")] {
        let error = Client::connect(&server.login(user, password)).await.unwrap_err();
        assert_eq!(ServerError::of(&error).unwrap().code, ServerError::ACCESS_DENIED);
        assert!(
            error.to_string().contains("the password is wrong") && !error.to_string().contains("hunter"),
            "{error}"
        );
    }
    Client::connect(&server.login("open", "")).await.unwrap().close().await;

    // Longer than one packet of the protocol.
    let len = (16 << 20) + 17;
    let sql = format!("select length('{}')", "x".repeat(len));
    assert_eq!(client.value(&sql).await.unwrap(), Some(len.to_string()));
    let answer = client.value(&format!("select repeat('y', {len})")).await.unwrap().unwrap();
    assert_eq!(answer.len(), len);

    server.kill();
    let error = client.run("do 1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("connection was lost"), "{error}");
    let error = Client::connect(&server.login("acc1#root", "hunter2")).await.unwrap_err();
    assert!(error.to_string().contains("nothing listens there"), "{error}");
    server.run().await;
    server.connect().await.run("do 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_killed_and_connections_are_cut() {
    let Some(server) = MariaDb::start("kills at MariaDB", |_| Vec::new()).await else { return };
    let login = server.login("acc1#root", "hunter2");
    let mut observer = server.connect().await;
    for (how, lives) in [("query", true), ("connection", false)] {
        let mut client = server.connect().await;
        let id = client.id();
        let running = tokio::spawn(async move {
            let answer = client.run("select sleep(600)").await;
            (answer, client)
        });
        let sleeping = format!(
            "select count(*) from information_schema.processlist where id = {id} and info like 'select sleep%'"
        );
        while observer.value(&sleeping).await.unwrap().as_deref() != Some("1") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if lives {
            Client::kill(&login, id).await.unwrap();
        } else {
            observer.run(&format!("kill {how} {id}")).await.unwrap();
        }
        let (answer, mut client): (Result<()>, Client) = running.await.unwrap();
        // MariaDB's sleep ends early without an error; whatever it says, it ended.
        if lives {
            drop(answer);
            client.run("do 1").await.unwrap();
        } else {
            answer.unwrap_err();
            client.run("do 1").await.unwrap_err();
        }
    }
    // A server forgets a client that went away in the middle of a statement.
    let mut client = server.connect().await;
    let id = client.id();
    tokio::time::timeout(Duration::from_millis(200), client.run("select sleep(600)")).await.unwrap_err();
    drop(client);
    let there = format!("select count(*) from information_schema.processlist where id = {id}");
    let begun = Instant::now();
    while observer.value(&there).await.unwrap().as_deref() != Some("0") {
        assert!(begun.elapsed() < Duration::from_secs(60), "the connection stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An authority, and a certificate of it for 127.0.0.1.
fn make_certificates(openssl: &Path, directory: &Path) {
    let file = |name: &str| directory.join(name).display().to_string();
    let openssl = |args: &[&str]| {
        let mut command = Command::new(openssl);
        command.args(args);
        run(command);
    };
    for name in ["ca", "other"] {
        let (key, certificate, subject) =
            (file(&format!("{name}.key")), file(&format!("{name}.pem")), format!("/CN={name}"));
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            &key,
            "-out",
            &certificate,
            "-subj",
            &subject,
        ]);
    }
    openssl(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        &file("key"),
        "-out",
        &file("request"),
        "-subj",
        "/CN=server",
    ]);
    std::fs::write(directory.join("extensions"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        &file("request"),
        "-CA",
        &file("ca.pem"),
        "-CAkey",
        &file("ca.key"),
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &file("extensions"),
        "-out",
        &file("certificate"),
    ]);
}

#[tokio::test]
async fn encrypted_connections_are_made_demanded_and_missed() {
    let Some(openssl) = program("openssl") else {
        data::skip("TLS at MariaDB", "mariadb", "openssl is not installed");
        return;
    };
    let with_tls = |here: &Path| {
        make_certificates(&openssl, here);
        let file = |name: &str| here.join(name).display().to_string();
        vec![
            format!("--ssl-ca={}", file("ca.pem")),
            format!("--ssl-cert={}", file("certificate")),
            format!("--ssl-key={}", file("key")),
        ]
    };
    let Some(server) = MariaDb::start("TLS at MariaDB", with_tls).await else { return };
    let required = |ca: Option<&str>| Tls::Required { ca: ca.map(|name| server.scratch.path().join(name)) };
    let login = |user: &str, tls: Tls| Login { tls, ..server.login(user, "hunter2") };

    let mut client = Client::connect(&login("careful", required(Some("ca.pem")))).await.unwrap();
    let rows = client.query("show status like 'Ssl_cipher'").await.unwrap();
    assert!(rows[0][1].as_deref().is_some_and(|cipher| !cipher.is_empty()), "{rows:?}");
    // Certificates of another authority, or of nobody, prove nothing; a file that is none is named.
    for ca in [Some("other.pem"), None] {
        let error = Client::connect(&login("careful", required(ca))).await.unwrap_err();
        assert!(error.to_string().contains("does not prove"), "{error}: {error:?}");
    }
    let error = Client::connect(&login("careful", required(Some("absent.pem")))).await.unwrap_err();
    assert!(error.to_string().contains("absent.pem"), "{error}: {error:?}");
    // A user of whom it is demanded, and a server that demands it of all.
    let error = Client::connect(&login("careful", Tls::Off)).await.unwrap_err();
    assert_eq!(ServerError::of(&error).unwrap().code, ServerError::ACCESS_DENIED);
    server.connect().await.run("set global require_secure_transport = on").await.unwrap();
    let error = Client::connect(&login("acc1#root", Tls::Off)).await.unwrap_err();
    assert!(error.to_string().contains("takes encrypted connections only"), "{error}: {error:?}");
    Client::connect(&login("acc1#root", required(Some("ca.pem")))).await.unwrap().close().await;

    let Some(plain) = MariaDb::start("TLS at MariaDB", |_| vec!["--skip-ssl".into()]).await else { return };
    let without = Login { tls: Tls::Required { ca: None }, ..plain.login("acc1#root", "hunter2") };
    let error = Client::connect(&without).await.unwrap_err();
    assert!(error.to_string().contains("does not offer it"), "{error}: {error:?}");
}
