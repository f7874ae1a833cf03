//! The toml files of a cluster: where each service keeps its files, and in which framing.
//!
//! Nothing is assumed of places: release 4.2 ships examples in which TN and CN keep SHARED in `./mo-data/shared2` without framing, while the log
//! service, whose file says nothing, keeps its LOCAL in `./mo-data/local` framed. What a file leaves out has the server's own default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::error::{Context, Error, Result};

/// What a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// Keeps the log and hands out ids.
    Log,
    /// Writes transactions.
    Tn,
    /// Answers SQL.
    Cn,
    /// Spreads connections; it has no data.
    Proxy,
}

impl std::fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::Tn => "tn",
            Self::Cn => "cn",
            Self::Proxy => "proxy",
        })
    }
}

/// Where a file service keeps its files.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Backend {
    /// A directory. `framed`: with a checksum before every 2044 bytes.
    Directory {
        /// As the file says it; relative to the working directory of the server.
        path: PathBuf,
        /// The backend is `DISK`, which frames.
        framed: bool,
    },
    /// A bucket.
    Bucket {
        /// Its name.
        bucket: String,
        /// What stands before every key.
        prefix: String,
        /// The server.
        endpoint: String,
    },
    /// Nothing on disk.
    Memory,
}

/// One service, as its file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// What it is.
    pub kind: ServiceKind,
    /// Which file said so, for messages.
    pub file: String,
    /// Its working files: raft logs, locks, scratch.
    pub data_dir: PathBuf,
    /// Table data.
    pub shared: Backend,
    /// True if the file says where SHARED is, and does not leave it to the default.
    pub shared_is_said: bool,
    /// What belongs to this service alone.
    pub local: Backend,
    /// Directories of caches.
    pub caches: Vec<PathBuf>,
    /// Where a log service looks for the ids to begin with, if it says so: `SERVICE:path`, a path in LOCAL, or absolute.
    pub restore_file: Option<String>,
}

/// What `launch.toml` starts, as it says it.
pub type Launch = Vec<String>;

/// A toml file of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigFile {
    /// One service.
    Service(Box<ServiceConfig>),
    /// A list of others.
    Launch(Launch),
    /// Something else.
    Other,
}

/// Reads a toml file. Fails with `Invalid`: files of a cluster are edited by people.
pub fn parse(file: &str, text: &str) -> Result<ConfigFile> {
    let act = || format!("read {file}");
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| Error::invalid(format!("{}: it is no toml: {}", act(), error.message())))?;
    let launch: Launch =
        ["logservices", "tnservices", "dnservices", "cnservices", "proxy-services", "python-udf-services"]
            .iter()
            .filter_map(|key| table.get(*key)?.as_array())
            .flatten()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect();
    if !launch.is_empty() {
        return Ok(ConfigFile::Launch(launch));
    }
    let kind = match text_of(&table, "service-type").map(str::to_ascii_uppercase).as_deref() {
        Some("LOG") => ServiceKind::Log,
        Some("TN" | "DN") => ServiceKind::Tn,
        Some("CN") => ServiceKind::Cn,
        Some("PROXY") => ServiceKind::Proxy,
        _ => return Ok(ConfigFile::Other),
    };
    service(kind, file, &table).context(act).map(|service| ConfigFile::Service(Box::new(service)))
}

fn service(kind: ServiceKind, file: &str, table: &Table) -> Result<ServiceConfig> {
    let data_dir = PathBuf::from(text_of(table, "data-dir").filter(|dir| !dir.is_empty()).unwrap_or("./mo-data"));
    let mut services: BTreeMap<String, &Table> = BTreeMap::new();
    for entry in tables_of(table, "fileservice") {
        let name = text_of(entry, "name").unwrap_or_default().to_ascii_uppercase();
        // Before release 1.0 SHARED was called S3.
        let name = if name == "S3" { "SHARED".to_owned() } else { name };
        if services.insert(name.clone(), entry).is_some() {
            return Err(Error::invalid(format!("two fileservice sections are named {name}")));
        }
    }
    let backend = |name: &str, folder: &str| match services.get(name) {
        Some(entry) => backend_of(entry, &data_dir.join(folder)).context(|| format!("fileservice {name}")),
        None => Ok(Backend::Directory { path: data_dir.join(folder), framed: true }),
    };
    let cache_of = |entry: &&Table| {
        let cache = entry.get("cache")?.as_table()?;
        text_of(cache, "disk-path").filter(|path| !path.is_empty()).map(PathBuf::from)
    };
    let mut caches: Vec<PathBuf> = services.values().filter_map(cache_of).collect();
    for entry in services.values().filter(|entry| is_bucket(entry)) {
        let directory =
            text_of(entry, "data-dir").filter(|dir| !dir.is_empty()).map_or(data_dir.join("shared"), PathBuf::from);
        let mut name = directory.into_os_string();
        name.push("-cache");
        caches.push(PathBuf::from(name));
    }
    // The server's reader takes keys in any case, and both spellings of these are in use.
    let restore = below(table, &["logservice", "BootstrapConfig", "restore"]);
    let restore_file =
        restore.and_then(|at| at.get("file-path")).and_then(Value::as_str).filter(|path| !path.is_empty());
    Ok(ServiceConfig {
        kind,
        file: file.to_owned(),
        shared: backend("SHARED", "shared")?,
        shared_is_said: services.contains_key("SHARED"),
        local: backend("LOCAL", "local")?,
        caches,
        restore_file: restore_file.map(str::to_owned),
        data_dir,
    })
}

fn is_bucket(entry: &Table) -> bool {
    matches!(backend_name(entry).as_str(), "S3" | "MINIO") && !ends_on_disk(entry)
}

fn backend_name(entry: &Table) -> String {
    text_of(entry, "backend").unwrap_or_default().to_ascii_uppercase()
}

/// `endpoint = "disk"`: a bucket that is a directory.
fn ends_on_disk(entry: &Table) -> bool {
    let s3 = entry.get("s3").and_then(Value::as_table);
    s3.and_then(|s3| text_of(s3, "endpoint")).is_some_and(|endpoint| endpoint.eq_ignore_ascii_case("disk"))
}

fn backend_of(entry: &Table, default: &Path) -> Result<Backend> {
    let path =
        text_of(entry, "data-dir").filter(|dir| !dir.is_empty()).map_or_else(|| default.to_owned(), PathBuf::from);
    let s3 = entry.get("s3").and_then(Value::as_table);
    let said = |key: &str| s3.and_then(|s3| text_of(s3, key)).unwrap_or_default().to_owned();
    match backend_name(entry).as_str() {
        "DISK" | "" => Ok(Backend::Directory { path, framed: true }),
        "DISK-V2" | "DISK-ETL" | "DISK-TMP" => Ok(Backend::Directory { path, framed: false }),
        "MEM" => Ok(Backend::Memory),
        "S3" | "MINIO" if ends_on_disk(entry) => {
            if said("bucket").is_empty() {
                return Err(Error::invalid("endpoint \"disk\" without a bucket, which names its directory"));
            }
            Ok(Backend::Directory {
                path: Path::new(&said("bucket")).join(said("key-prefix").trim_matches('/')),
                framed: false,
            })
        }
        "S3" | "MINIO" => {
            let (bucket, prefix, endpoint) = (said("bucket"), said("key-prefix"), said("endpoint"));
            Ok(Backend::Bucket { bucket, prefix: prefix.trim_matches('/').to_owned(), endpoint })
        }
        other => {
            Err(Error::invalid(format!("backend {other:?} is not known here: DISK, DISK-V2, S3, MINIO and MEM are")))
        }
    }
}

fn below<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Table> {
    let mut at = table;
    for wanted in keys {
        at = at.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted))?.1.as_table()?;
    }
    Some(at)
}

fn text_of<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    table.get(key)?.as_str()
}

fn tables_of<'a>(table: &'a Table, key: &str) -> impl Iterator<Item = &'a Table> {
    table.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

/// Files of a whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Its services.
    pub services: Vec<ServiceConfig>,
}

impl ClusterConfig {
    /// The services of one kind.
    pub fn of(&self, kind: ServiceKind) -> impl Iterator<Item = &ServiceConfig> {
        self.services.iter().filter(move |service| service.kind == kind)
    }

    /// Where table data lies. All TN and CN services must say the same; what a log service says of it, nobody reads.
    pub fn shared(&self) -> Result<&Backend> {
        let mut saying = self.of(ServiceKind::Tn).chain(self.of(ServiceKind::Cn));
        let Some(first) = saying.next() else {
            return Err(Error::invalid(
                "none of the toml files is that of a TN or CN service, which say where SHARED is",
            ));
        };
        if let Some(other) = saying.find(|other| normal(&other.shared) != normal(&first.shared)) {
            return Err(Error::invalid(format!(
                "{} and {} differ in where SHARED is: {} and {}; correct them, the server would not find its data either",
                first.file,
                other.file,
                told(&first.shared),
                told(&other.shared)
            )));
        }
        Ok(&first.shared)
    }
}

/// `./mo-data/shared` and `mo-data/shared` are one place.
fn normal(backend: &Backend) -> Backend {
    match backend {
        Backend::Directory { path, framed } => Backend::Directory {
            path: path.components().filter(|part| *part != std::path::Component::CurDir).collect(),
            framed: *framed,
        },
        other => other.clone(),
    }
}

/// A backend in words.
pub fn told(backend: &Backend) -> String {
    match backend {
        Backend::Directory { path, framed: true } => format!("{} (DISK, framed)", path.display()),
        Backend::Directory { path, framed: false } => format!("{} (raw)", path.display()),
        Backend::Bucket { bucket, prefix, .. } => format!("s3://{bucket}/{prefix}"),
        Backend::Memory => "memory".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service_of(text: &str) -> ServiceConfig {
        match parse("x.toml", text).unwrap() {
            ConfigFile::Service(service) => *service,
            other => panic!("{other:?}"),
        }
    }

    fn directory(path: &str, framed: bool) -> Backend {
        Backend::Directory { path: PathBuf::from(path), framed }
    }

    #[test]
    fn what_a_file_leaves_out_is_framed_below_the_data_directory() {
        let log = service_of("service-type = \"LOG\"\ndata-dir = \"./data\"\n");
        assert_eq!((log.kind, &log.local), (ServiceKind::Log, &directory("./data/local", true)));
        assert!(!log.shared_is_said);
        let bare = service_of("service-type = \"DN\"\n");
        assert_eq!((bare.kind, &bare.shared), (ServiceKind::Tn, &directory("./mo-data/shared", true)));
    }

    #[test]
    fn sections_say_where_and_how() {
        let tn = service_of(
            "service-type = \"TN\"\n[[fileservice]]\nname = \"SHARED\"\nbackend = \"DISK-V2\"\ndata-dir = \"./mo-data/shared2\"\n\
             [[fileservice]]\nname = \"LOCAL\"\nbackend = \"S3\"\n[fileservice.s3]\nendpoint = \"disk\"\nbucket = \"/abs/dir\"\nkey-prefix = \"x\"\n",
        );
        assert_eq!(tn.shared, directory("./mo-data/shared2", false));
        assert_eq!(tn.local, directory("/abs/dir/x", false));
        let cn = service_of(
            "service-type = \"CN\"\n[[fileservice]]\nname = \"S3\"\nbackend = \"MINIO\"\n[fileservice.s3]\nbucket = \"b\"\nkey-prefix = \"/p/q/\"\n\
             [fileservice.cache]\ndisk-path = \"/cache\"\n",
        );
        assert_eq!(cn.shared, Backend::Bucket { bucket: "b".into(), prefix: "p/q".into(), endpoint: String::new() });
        assert_eq!(cn.caches, [PathBuf::from("/cache"), PathBuf::from("./mo-data/shared-cache")]);
        let log =
            service_of("service-type = \"LOG\"\n[logservice.BootstrapConfig.Restore]\nfile-path = \"LOCAL:ids\"\n");
        assert_eq!(log.restore_file.as_deref(), Some("LOCAL:ids"));
    }

    #[test]
    fn services_that_disagree_are_refused() {
        let one = service_of("service-type = \"TN\"\ndata-dir = \"./mo-data\"\n");
        let same = service_of("service-type = \"CN\"\ndata-dir = \"mo-data\"\n");
        let other = service_of("service-type = \"CN\"\ndata-dir = \"./elsewhere\"\n");
        let log = service_of("service-type = \"LOG\"\ndata-dir = \"./third\"\n");
        let cluster = ClusterConfig { services: vec![log, one.clone(), same] };
        assert_eq!(cluster.shared().unwrap(), &one.shared);
        let error = ClusterConfig { services: vec![one, other] }.shared().unwrap_err();
        assert!(error.message().contains("elsewhere"), "{error}");
        assert!(ClusterConfig::default().shared().is_err());
    }

    #[test]
    fn nonsense_is_refused_and_other_files_are_passed_over() {
        assert!(parse("x", "= 3").is_err());
        assert!(
            parse("x", "service-type = \"TN\"\n[[fileservice]]\nname = \"SHARED\"\nbackend = \"FLOPPY\"\n").is_err()
        );
        let twice = "service-type = \"TN\"\n[[fileservice]]\nname = \"SHARED\"\n[[fileservice]]\nname = \"S3\"\n";
        assert!(parse("x", twice).unwrap_err().message().contains("two"));
        assert_eq!(parse("x", "a = 1").unwrap(), ConfigFile::Other);
        let launch = parse("x", "logservices = [\"./etc/log.toml\"]\ntnservices = [\"./etc/tn.toml\"]\n").unwrap();
        assert_eq!(launch, ConfigFile::Launch(vec!["./etc/log.toml".to_owned(), "./etc/tn.toml".to_owned()]));
    }
}
