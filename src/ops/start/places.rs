//! Where a server looks for its files, by the toml files of its cluster.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::contents::Tree;
use super::{StartOptions, in_the_way};
use crate::error::{Context, Error, Result};
use crate::id::ObjectHash;
use crate::matrixone::config::{Backend, ClusterConfig, ConfigFile, ServiceConfig, ServiceKind, parse, told};
use crate::ops::closure::Reader;
use crate::ops::restore::TargetMode;
use crate::repo::Entry;

/// No toml file is longer.
const CONFIG_MAX: u64 = 4 << 20;
/// Where a log service looks unless its file says otherwise.
const IDS_DEFAULT: &str = "hk_data";

/// A service, and where its file says that it keeps what.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ServicePlace {
    /// Which.
    pub service: ServiceKind,
    /// The file that says so.
    pub file: String,
    /// Table data, as the file says it.
    pub shared: Backend,
    /// What is its own.
    pub local: Backend,
}

/// A directory of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DirectoryPlace {
    pub(super) path: PathBuf,
    pub(super) framed: bool,
}

/// Where a log service looks for its ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdsPlace {
    /// The file.
    pub(super) path: PathBuf,
    pub(super) framed: bool,
    /// It lies in SHARED, among the objects.
    pub(super) in_shared: bool,
}

/// All that is known of a server's directories.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// The working directory of the server.
    pub(super) directory: PathBuf,
    pub(super) shared: DirectoryPlace,
    pub(super) ids: Vec<IdsPlace>,
    /// Of each service: locks, raft logs.
    pub(super) data_dirs: Vec<PathBuf>,
    /// Must be empty: what is in them belongs to another state.
    pub(super) empty: Vec<PathBuf>,
    pub(super) services: Vec<ServicePlace>,
    pub(super) commands: Vec<String>,
    pub(super) remarks: Vec<String>,
}

impl Places {
    pub(super) fn find(
        directory: &Path,
        tree: &Tree,
        reader: &Reader,
        options: &StartOptions,
        backup: &ObjectHash,
    ) -> Result<Self> {
        let directory = absolute(directory)?;
        let files = Files::read(&directory, tree, reader, options)?;
        let cluster = ClusterConfig { services: files.services.clone() };
        let within = Within { directory: &directory, outside: options.outside };
        let shared = match cluster.shared()? {
            Backend::Directory { path, framed } => {
                DirectoryPlace { path: within.place(path, "SHARED")?, framed: *framed }
            }
            bucket @ Backend::Bucket { .. } => {
                return Err(Error::invalid(format!(
                    "SHARED is the bucket {0}: `everpack restore BACKUP --to-bucket {0} --hk-data FILE` writes there",
                    told(bucket)
                )));
            }
            Backend::Memory => return Err(Error::invalid("SHARED is in memory: nothing can be restored into it")),
        };
        let ids = ids(&cluster, &within, &shared)?;
        let mut data_dirs = BTreeSet::new();
        let mut empty = BTreeSet::new();
        for service in &cluster.services {
            let data_dir = within.place(&service.data_dir, "data-dir")?;
            empty.extend(["logservice-data", "dn-data"].map(|name| data_dir.join(name)));
            data_dirs.insert(data_dir);
            if let Backend::Directory { path, .. } = &service.local {
                empty.insert(within.place(path, "LOCAL")?);
            }
            for cache in &service.caches {
                empty.insert(within.place(cache, "the cache of SHARED")?);
            }
        }
        for path in &empty {
            if path.starts_with(&shared.path) || shared.path.starts_with(path) {
                return Err(Error::invalid(format!(
                    "SHARED is {} and another place of the same server {}: they must not lie in each other",
                    shared.path.display(),
                    path.display()
                )));
            }
        }
        let services = cluster.services.iter().map(|service| {
            let ServiceConfig { kind, file, shared, local, .. } = service.clone();
            ServicePlace { service: kind, file, shared, local }
        });
        let mut commands = files.commands(&directory, backup, tree);
        commands.push(format!("cd {} && ./mo-service -launch {}", quoted(&directory), files.launch_to_start()));
        Ok(Self {
            services: services.collect(),
            shared,
            ids,
            data_dirs: data_dirs.into_iter().collect(),
            empty: empty.into_iter().collect(),
            commands,
            remarks: files.remarks,
            directory,
        })
    }

    /// Directories that are written.
    pub(super) fn all_directories(&self) -> Vec<PathBuf> {
        let ids = self.ids.iter().filter_map(|ids| ids.path.parent().map(Path::to_owned));
        ids.chain([self.shared.path.clone()]).collect()
    }

    /// Directories that are a server's alone.
    pub(super) fn watched(&self) -> Vec<PathBuf> {
        self.data_dirs.iter().chain(&self.empty).chain([&self.shared.path]).cloned().collect()
    }

    /// Refuses if something is where the restore writes, or where a restored server must find nothing.
    pub(super) fn refuse_if_filled(&self, mode: TargetMode) -> Result<()> {
        for path in &self.empty {
            let ours = |name: &Path| mode != TargetMode::New && self.ids.iter().any(|ids| ids.path == name);
            let entries = match std::fs::read_dir(path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io(format!("list {}", path.display()), error)),
            };
            for entry in entries {
                let entry = entry.context(|| format!("list {}", path.display()))?;
                if !ours(&entry.path()) {
                    return Err(in_the_way("directory", path));
                }
            }
        }
        if let Some(there) = self.ids.iter().find(|ids| mode == TargetMode::New && ids.path.exists()) {
            return Err(Error::invalid(format!("{} is there already: move it away", there.path.display())));
        }
        let is_filled = || std::fs::read_dir(&self.shared.path).is_ok_and(|mut entries| entries.next().is_some());
        if mode == TargetMode::New && is_filled() {
            let message = format!(
                "SHARED, directory {}, is not empty: stop the server and move it away; --delta goes on with a restore that was stopped",
                self.shared.path.display()
            );
            return Err(Error::invalid(message));
        }
        Ok(())
    }
}

/// The services that the backup's own toml files describe.
pub(super) fn cluster_of(tree: &Tree, reader: &Reader) -> Result<ClusterConfig> {
    let mut files = Files::default();
    files.add_backup(&read_configs(&tree.config_entries(), reader)?)?;
    Ok(ClusterConfig { services: files.services })
}

/// The framing of the log service's LOCAL, by the toml files; that of the server's default if there are none.
pub(super) async fn log_framing(tree: &Tree, reader: &Arc<Reader>, options: &StartOptions) -> Result<bool> {
    let configs = match options.config.is_empty() {
        true => {
            let entries: Vec<_> = tree.config_entries();
            let reader = Arc::clone(reader);
            crate::ops::blocking(move || read_configs(&entries, &reader)).await?
        }
        false => Vec::new(),
    };
    let mut files = Files::default();
    files.add_backup(&configs)?;
    let here = absolute(Path::new("."))?;
    for path in &options.config {
        files.add(&here, path)?;
    }
    let of_log = files.services.iter().find(|service| service.kind == ServiceKind::Log);
    Ok(of_log.is_none_or(|service| !matches!(service.local, Backend::Directory { framed: false, .. })))
}

/// Keeps places within the working directory.
struct Within<'a> {
    directory: &'a Path,
    outside: bool,
}

impl Within<'_> {
    fn place(&self, path: &Path, what: &str) -> Result<PathBuf> {
        let joined = tidy(&self.directory.join(path))?;
        if !self.outside && !joined.starts_with(self.directory) {
            return Err(Error::invalid(format!(
                "{what} is {}, outside {}: --outside allows that, or name toml files that say another place (--mo-config; --dn_config_path of mo_br)",
                joined.display(),
                self.directory.display()
            )));
        }
        Ok(joined)
    }
}

/// Without `.` and `..`, by name alone.
fn tidy(path: &Path) -> Result<PathBuf> {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if !tidy.pop() => {
                return Err(Error::invalid(format!("{}: it leads above the root", path.display())));
            }
            Component::ParentDir => {}
            part => tidy.push(part),
        }
    }
    Ok(tidy)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    // A directory that is there is known by its true name, so that what is said of it elsewhere compares.
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(_) => tidy(&std::path::absolute(path).context(|| format!("find {}", path.display()))?),
    }
}

fn ids(cluster: &ClusterConfig, within: &Within<'_>, shared: &DirectoryPlace) -> Result<Vec<IdsPlace>> {
    let mut places: Vec<IdsPlace> = Vec::new();
    for service in cluster.of(ServiceKind::Log) {
        let said = service.restore_file.as_deref().unwrap_or(IDS_DEFAULT);
        let act = || format!("{}: the ids go to {said:?}", service.file);
        let local = || match &service.local {
            Backend::Directory { path, framed } => {
                Ok(DirectoryPlace { path: within.place(path, "LOCAL of the log service")?, framed: *framed })
            }
            other => Err(Error::invalid(format!("{}, and LOCAL is no directory but {}", act(), told(other)))),
        };
        let (base, path, in_shared) = match said.rsplit_once(':') {
            // An absolute path is read as it is, since release 4.2.
            _ if said.starts_with('/') => (DirectoryPlace { path: PathBuf::new(), framed: false }, said, false),
            None => (local()?, said, false),
            Some((name, path)) if name.eq_ignore_ascii_case("LOCAL") => (local()?, path.trim_start_matches('/'), false),
            Some((name, path)) if name.eq_ignore_ascii_case("SHARED") => {
                (shared.clone(), path.trim_start_matches('/'), true)
            }
            Some(_) => return Err(Error::invalid(format!("{}: only LOCAL and SHARED are known here", act()))),
        };
        let path = within.place(&base.path.join(path), "hk_data")?;
        if !path.starts_with(&base.path) {
            return Err(Error::invalid(format!("{}, which leads out of its file service", act())));
        }
        let place = IdsPlace { path, framed: base.framed, in_shared };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if places.is_empty() {
        return Err(Error::invalid(
            "none of the toml files is that of a log service, which has to be given the ids (hk_data), and there is none in the backup: name its file, too (--mo-config; --dn_config_path of mo_br)",
        ));
    }
    Ok(places)
}

/// The toml files that a server copied: their names and what stands in them.
fn read_configs(entries: &[(String, Entry)], reader: &Reader) -> Result<Vec<(String, String)>> {
    let mut configs = Vec::new();
    for (name, entry) in entries {
        if let Ok(text) = String::from_utf8(reader.read_all(entry, CONFIG_MAX)?) {
            configs.push((name.clone(), text));
        }
    }
    Ok(configs)
}

/// The toml files of the cluster.
#[derive(Default)]
struct Files {
    services: Vec<ServiceConfig>,
    /// Launch file as a server in the working directory is given it, if it lies on this machine.
    launch: Option<PathBuf>,
    /// Files in the backup, and where a server in the working directory looks for them.
    to_bring_back: Vec<(String, String)>,
    remarks: Vec<String>,
}

impl Files {
    fn read(directory: &Path, tree: &Tree, reader: &Reader, options: &StartOptions) -> Result<Self> {
        let mut files = Self::default();
        if options.config.is_empty() {
            files.add_backup(&read_configs(&tree.config_entries(), reader)?)?;
        }
        for path in &options.config {
            files.add(directory, path)?;
        }
        let lacks_log = !files.services.iter().any(|service| service.kind == ServiceKind::Log);
        if lacks_log && !options.config.is_empty() {
            files.add_log_of_backup(&read_configs(&tree.config_entries(), reader)?)?;
        }
        if files.services.is_empty() {
            let place = if options.config.is_empty() { "the backup's config/" } else { "the files named" };
            return Err(Error::invalid(format!(
                "no toml file of a service is in {place}: where SHARED is and how it is framed is not known; name the server's launch.toml, its \
                 directory, or single files (--mo-config; --dn_config_path of mo_br)"
            )));
        }
        Ok(files)
    }

    fn add(&mut self, directory: &Path, path: &Path) -> Result<()> {
        if path.is_dir() { self.read_directory(directory, path) } else { self.read_file(directory, path) }
    }

    fn add_backup(&mut self, configs: &[(String, String)]) -> Result<()> {
        let mut launched = Vec::new();
        for (name, text) in configs {
            match parse(&format!("config/{name}"), text)? {
                ConfigFile::Service(service) => self.services.push(*service),
                ConfigFile::Launch(launch) => launched = launch,
                ConfigFile::Other => {}
            }
        }
        let base_name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        for (name, _) in configs {
            let Some((base, _)) = name.rsplit_once('_') else { continue };
            let folder =
                launched.first().and_then(|path| path.rsplit_once('/')).map_or("etc/launch", |(folder, _)| folder);
            let place = launched.iter().find(|path| base_name(path) == base);
            let place = place.cloned().unwrap_or_else(|| format!("{folder}/{base}"));
            self.to_bring_back.push((format!("config/{name}"), place.trim_start_matches("./").to_owned()));
        }
        Ok(())
    }

    /// Where only a data node's file is named, as mo_br does, the log service is that of the backup, on the SHARED of the file named.
    fn add_log_of_backup(&mut self, configs: &[(String, String)]) -> Result<()> {
        let Some(shared) = self.services.first().map(|service| service.shared.clone()) else { return Ok(()) };
        for (name, text) in configs {
            if let ConfigFile::Service(mut service) = parse(&format!("config/{name}"), text)?
                && service.kind == ServiceKind::Log
            {
                self.remarks.push(format!(
                    "no toml file of a log service was named: the place of the ids is that of config/{name} in the backup"
                ));
                service.shared = shared.clone();
                service.caches.clear();
                self.services.push(*service);
            }
        }
        Ok(())
    }

    fn read_directory(&mut self, directory: &Path, path: &Path) -> Result<()> {
        let act = || format!("list {}", path.display());
        let mut names: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(path).context(act)? {
            names.push(entry.context(act)?.path());
        }
        names.retain(|name| name.extension().is_some_and(|extension| extension == "toml"));
        names.sort();
        for name in names {
            let text = text_of(&name)?;
            match parse(&name.display().to_string(), &text)? {
                ConfigFile::Service(service) => self.services.push(*service),
                ConfigFile::Launch(_) => self.launch = Some(shown(directory, &name)),
                ConfigFile::Other => {}
            }
        }
        Ok(())
    }

    fn read_file(&mut self, directory: &Path, path: &Path) -> Result<()> {
        let text = text_of(path)?;
        match parse(&path.display().to_string(), &text)? {
            ConfigFile::Service(service) => self.services.push(*service),
            ConfigFile::Other => {
                let message = format!("{}: it is neither a launch file nor that of a service", path.display());
                return Err(Error::invalid(message));
            }
            ConfigFile::Launch(launched) => {
                self.launch = Some(shown(directory, path));
                for named in launched {
                    // As the server finds it, else beside the launch file.
                    let name = Path::new(&named).file_name().unwrap_or_default();
                    let beside = path.parent().unwrap_or(Path::new("")).join(name);
                    let places = [directory.join(&named), beside];
                    let place = places.iter().find(|place| place.is_file()).ok_or_else(|| {
                        Error::invalid(format!(
                            "{} names {named}, which is neither below {} nor beside it",
                            path.display(),
                            directory.display()
                        ))
                    })?;
                    if let ConfigFile::Service(service) = parse(&place.display().to_string(), &text_of(place)?)? {
                        self.services.push(*service);
                    }
                }
            }
        }
        Ok(())
    }

    /// How files that are only in the backup get to where a server looks for them.
    fn commands(&self, directory: &Path, backup: &ObjectHash, tree: &Tree) -> Vec<String> {
        let backup = backup.to_string();
        let root = crate::source::display_path(&tree.root);
        let absent = self.to_bring_back.iter().filter(|(_, place)| !directory.join(place).exists());
        let mut commands = Vec::new();
        let mut folders = BTreeSet::new();
        for (name, place) in absent {
            let place = directory.join(place);
            if let Some(folder) =
                place.parent().filter(|folder| !folder.exists() && folders.insert(folder.to_path_buf()))
            {
                commands.push(format!("mkdir -p {}", quoted(folder)));
            }
            commands.push(format!(
                "everpack cat {} {} > {}",
                &backup[..12],
                quoted(Path::new(&format!("{root}{name}"))),
                quoted(&place)
            ));
        }
        commands
    }

    fn launch_to_start(&self) -> String {
        let brought = self.to_bring_back.iter().find(|(name, _)| name.starts_with("config/launch"));
        match (&self.launch, brought) {
            (Some(launch), _) => quoted(launch),
            (None, Some((_, place))) => format!("./{place}"),
            (None, None) => "./etc/launch/launch.toml".to_owned(),
        }
    }
}

/// A path as a server in the directory is given it.
fn shown(directory: &Path, path: &Path) -> PathBuf {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.strip_prefix(directory).map_or(path.clone(), |below| Path::new(".").join(below))
}

fn text_of(path: &Path) -> Result<String> {
    let act = || format!("read {}", path.display());
    let metadata = std::fs::metadata(path).context(act)?;
    if metadata.len() > CONFIG_MAX {
        return Err(Error::invalid(format!("{}: it is too long to be a toml file of a service", act())));
    }
    std::fs::read_to_string(path).context(act)
}

/// As a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
