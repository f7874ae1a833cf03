//! The toml files of a small server of our own: log, TN and CN in one process, on loopback ports that nobody uses.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use super::DrillBackend;
use crate::entropy::Entropy;
use crate::error::{Context, Error, ErrorKind, Result};

/// Ports of one server: those of the log service and SQL, then a range for TN and one for CN.
const PORTS: u16 = 64;
/// Below the range from which systems give ports to whoever asks for any.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 32_000;
const ATTEMPTS: u32 = 50;
/// A path of a socket may be no longer.
const SOCKET_PATH_MAX: usize = 100;

/// What the server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    base: u16,
}

impl Ports {
    /// Finds a run of free ports. Somebody may take one before the server does; then it does not start, and says so.
    pub(super) fn find(entropy: &dyn Entropy) -> Result<Self> {
        let runs = u64::from((LAST_PORT - FIRST_PORT) / PORTS);
        for _ in 0..ATTEMPTS {
            let mut random = [0; 8];
            entropy.fill(&mut random)?;
            let run = u16::try_from(u64::from_le_bytes(random) % runs).unwrap_or(0);
            let base = FIRST_PORT + run * PORTS;
            let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
            if (base..base + PORTS).all(is_free) {
                return Ok(Self { base });
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "no run of free ports was found between 20000 and 32000"))
    }

    /// Where SQL is spoken.
    pub(super) fn sql(self) -> u16 {
        self.base + 3
    }
}

/// Writes `etc/launch/*.toml` below the working directory.
pub(super) fn write(directory: &Path, ports: Ports, backend: DrillBackend) -> Result<()> {
    let folder = directory.join("etc/launch");
    std::fs::create_dir_all(&folder).context(|| format!("make directory {}", folder.display()))?;
    let put = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).context(|| format!("write {}", path.display()))
    };
    let services = file_services(directory, backend);
    let Ports { base } = ports;
    let (log_port, gossip_port) = (base + 1, base + 2);
    let keeper = format!("[hakeeper-client]\nservice-addresses = [\"127.0.0.1:{log_port}\"]\n");
    put(
        "log.toml",
        format!(
            "service-type = \"LOG\"\ndata-dir = \"./mo-data\"\n{services}\n[logservice]\nservice-host = \"127.0.0.1\"\nraft-port = {base}\n\
             logservice-port = {log_port}\ngossip-port = {gossip_port}\ngossip-seed-addresses = [\"127.0.0.1:{gossip_port}\"]\n\n\
             [logservice.BootstrapConfig.restore]\nfile-path = \"hk_data\"\n\n{keeper}\n{COMMON}"
        ),
    )?;
    put(
        "tn.toml",
        format!(
            "service-type = \"TN\"\ndata-dir = \"./mo-data\"\n{services}\n{keeper}\n[tn]\nuuid = \"dd4dccb4-4d3c-41f8-b482-5251dc7a41bf\"\n\
             port-base = {}\nservice-host = \"127.0.0.1\"\n\n{COMMON}",
            base + 8
        ),
    )?;
    put(
        "cn.toml",
        format!(
            "service-type = \"CN\"\ndata-dir = \"./mo-data\"\n{services}\n{keeper}\n[cn]\nuuid = \"dd1dccb4-4d3c-41f8-b482-5251dc7a41bf\"\n\
             port-base = {}\nservice-host = \"127.0.0.1\"\n\n[cn.frontend]\nhost = \"127.0.0.1\"\nport = {}\nunix-socket = {}\n\n{COMMON}",
            base + 36,
            ports.sql(),
            quoted(&socket(directory))
        ),
    )?;
    put(
        "launch.toml",
        "logservices = [\"./etc/launch/log.toml\"]\ntnservices = [\"./etc/launch/tn.toml\"]\ncnservices = [\"./etc/launch/cn.toml\"]\n"
            .to_owned(),
    )
}

const COMMON: &str = "[log]\nlevel = \"info\"\n\n[malloc]\ncheck-fraction = 65536\n\n[observability]\nhost = \"127.0.0.1\"\n\
     disableMetric = true\ndisableTrace = true\ndisable-metric = true\ndisable-trace = true\nenable-metric-to-prom = false\n";

fn socket(directory: &Path) -> String {
    let socket = directory.join("mysql.sock").display().to_string();
    if socket.len() <= SOCKET_PATH_MAX { socket } else { "./mysql.sock".to_owned() }
}

fn file_services(directory: &Path, backend: DrillBackend) -> String {
    let cache = |size: &str| format!("[fileservice.cache]\nmemory-capacity = \"{size}\"\n");
    let section = |name: &str, kind: &str, dir: &str, size: &str| {
        format!("\n[[fileservice]]\nname = \"{name}\"\nbackend = \"{kind}\"\ndata-dir = \"{dir}\"\n{}", cache(size))
    };
    match backend {
        DrillBackend::Disk => {
            section("LOCAL", "DISK", "./mo-data/local", "32MB")
                + &section("SHARED", "DISK", "./mo-data/shared", "256MB")
        }
        DrillBackend::DiskV2 => {
            section("LOCAL", "DISK-V2", "./mo-data/local2", "32MB")
                + &section("SHARED", "DISK-V2", "./mo-data/shared2", "256MB")
        }
        DrillBackend::DiskEndpoint => {
            let bucket = directory.join("mo-data/shared2").display().to_string();
            let shared = format!(
                "\n[[fileservice]]\nname = \"SHARED\"\nbackend = \"S3\"\n[fileservice.s3]\nendpoint = \"disk\"\nbucket = {}\n{}",
                quoted(&bucket),
                cache("256MB")
            );
            section("LOCAL", "DISK", "./mo-data/local", "32MB") + &shared
        }
    }
}

/// As a toml string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::matrixone::config::{Backend, ConfigFile, parse};

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let directory = tempfile::tempdir().unwrap();
        for (backend, framed) in
            [(DrillBackend::Disk, true), (DrillBackend::DiskV2, false), (DrillBackend::DiskEndpoint, false)]
        {
            let ports = Ports::find(&SystemEntropy).unwrap();
            write(directory.path(), ports, backend).unwrap();
            for name in ["log", "tn", "cn"] {
                let text = std::fs::read_to_string(directory.path().join(format!("etc/launch/{name}.toml"))).unwrap();
                let ConfigFile::Service(service) = parse(name, &text).unwrap() else { panic!("{name}") };
                let Backend::Directory { framed: found, .. } = service.shared else { panic!("{name}") };
                assert_eq!(found, framed, "{name}");
            }
            let launch = std::fs::read_to_string(directory.path().join("etc/launch/launch.toml")).unwrap();
            let ConfigFile::Launch(launch) = parse("launch", &launch).unwrap() else { panic!("launch") };
            assert!(launch.iter().all(|file| directory.path().join(file).is_file()));
        }
    }
}
