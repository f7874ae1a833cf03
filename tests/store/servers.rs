//! Real servers that are known to lie, started where they are installed: on a free port, with a scratch directory, stopped at the end.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use everpack::store::{Folder, Store, StoreOptions};
use everpack::testing::data::skip;
use everpack::testing::s3::Server;
use tempfile::TempDir;

const BUCKET: &str = "everpack-test";
/// On a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs until this is dropped.
pub struct Started {
    pub server: Server,
    child: Child,
    /// Where it keeps what it is given.
    _scratch: TempDir,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn installed(test: &str, program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        skip(test, program, &format!("{program} is not on the path"));
    }
    found
}

/// Ports that were free a moment ago, no two alike.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn server(port: u16, access_key: &str, secret_key: &str) -> Server {
    let options = StoreOptions {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        allow_http: true,
        access_key: Some(access_key.to_owned()),
        secret_key: Some(secret_key.to_owned()),
        retries: 3,
        ..StoreOptions::default()
    };
    Server { bucket: BUCKET.to_owned(), options }
}

/// Starts the program and waits until its bucket can be listed.
async fn start(mut command: Command, scratch: TempDir, server: Server) -> Started {
    let log = std::fs::File::create(scratch.path().join("log")).unwrap();
    let errors = log.try_clone().unwrap();
    let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap();
    let mut started = Started { server, child, _scratch: scratch };
    let begun = Instant::now();
    loop {
        let store = Store::open(&started.server.url("start"), &started.server.options).unwrap();
        let Err(error) = store.list_sorted(Folder::Log).await else { return started };
        let ended = started.child.try_wait().unwrap();
        if ended.is_some() || begun.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(started._scratch.path().join("log")).unwrap_or_default();
            panic!("{command:?} does not answer ({error}; ended: {ended:?}):\n{log}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Looks first and writes later: keeps a create from overwriting, not two at once.
pub async fn s3s_fs(test: &str) -> Option<Started> {
    let program = installed(test, "s3s-fs")?;
    let scratch = TempDir::new().unwrap();
    let root = scratch.path().join("root");
    std::fs::create_dir_all(root.join(BUCKET)).unwrap();
    let [port] = free_ports();
    let (access_key, secret_key) = ("AKEVERPACKTEST", "SKEVERPACKTEST");
    let mut command = Command::new(program);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--access-key", access_key, "--secret-key", secret_key]).arg(&root);
    Some(start(command, scratch, server(port, access_key, secret_key)).await)
}

/// Ignores every condition.
pub async fn garage(test: &str) -> Option<Started> {
    let program = installed(test, "garage")?;
    let scratch = TempDir::new().unwrap();
    let config = scratch.path().join("garage.toml");
    let [api, rpc, admin] = free_ports();
    write_config(&config, scratch.path(), [api, rpc, admin]);
    // Keys have to look like its own.
    let (access_key, secret_key) = (format!("GK{}", "ab".repeat(12)), "cd".repeat(32));
    let mut command = Command::new(program);
    command.arg("-c").arg(&config).args(["server", "--single-node", "--default-bucket"]);
    command.env("GARAGE_DEFAULT_ACCESS_KEY", &access_key).env("GARAGE_DEFAULT_SECRET_KEY", &secret_key);
    command.env("GARAGE_DEFAULT_BUCKET", BUCKET);
    Some(start(command, scratch, server(api, &access_key, &secret_key)).await)
}

/// It refuses a configuration that others may read.
fn write_config(path: &Path, scratch: &Path, [api, rpc, admin]: [u16; 3]) {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch.display();
    let secret = "ef".repeat(32);
    let text = format!(
        r#"metadata_dir = "{scratch}/meta"
data_dir = "{scratch}/data"
db_engine = "lmdb"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secret}"
[s3_api]
s3_region = "us-east-1"
api_bind_addr = "127.0.0.1:{api}"
root_domain = ".s3.localhost"
[admin]
api_bind_addr = "127.0.0.1:{admin}"
admin_token = "x"
"#
    );
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
