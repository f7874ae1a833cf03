//! From options to open things: the store, the repository, what is backed up.

use std::path::PathBuf;
use std::sync::Arc;

use everpack::clock::{Clock, SystemClock};
use everpack::entropy::SystemEntropy;
use everpack::error::{Error, ErrorKind, Result};
use everpack::id::ObjectHash;
use everpack::matrixone::login::Secret;
use everpack::progress::{Event, Monitor};
use everpack::repo::{BackupInfo, Environment, OpenOptions, Process, Repository};
use everpack::source::{
    BucketOptions, BucketSource, DirectoryOptions, DirectorySource, EntryKind, Source, StoreBucket, display_path,
};
use everpack::store::{Folder, Store, StoreOptions};
use futures::TryStreamExt;

use crate::SharedProgress;
use crate::args::{Globals, StoreArgs};
use crate::commands::Context;
use crate::commands::backup::SourceArgs;
use crate::errors::{Act, Doing};
use crate::settings::user_directory;

/// How the repository's store is reached.
pub(crate) fn store_options(globals: &Globals) -> StoreOptions {
    let StoreArgs { endpoint, region, allow_http, virtual_host } = globals.store.clone();
    StoreOptions { endpoint, region, allow_http, virtual_host, ..StoreOptions::default() }
}

/// Opens the place of the repository, whether there is one in it or not.
pub(crate) fn open_store(globals: &Globals) -> Result<Store> {
    let opened = match Store::open(&globals.repo, &store_options(globals)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let repo = display_path(globals.repo.as_bytes());
            let message = format!("open the repository {repo}: there is none; `everpack init -r {repo}` makes one");
            Err(Error::new(ErrorKind::NotFound, message))
        }
        opened => opened,
    };
    opened.doing(Act::Open)
}

/// The same, but makes the directory if there is none.
pub(crate) fn create_store(globals: &Globals) -> Result<Store> {
    Store::create_root(&globals.repo, &store_options(globals))
}

/// Opens the repository.
pub(crate) async fn open_repository(globals: &Globals) -> Result<Repository> {
    let store = open_store(globals)?;
    Repository::open(store, OpenOptions::default(), environment(globals)).await.doing(Act::Open)
}

/// A backup by id, by the first digits of one, or `latest`.
pub(crate) fn find_backup(repository: &Repository, spec: &str) -> Result<BackupInfo> {
    repository.find_backup(spec).doing(Act::Find)
}

/// The same for several, forgotten ones included.
pub(crate) fn find_any_backups(repository: &Repository, specs: &[String]) -> Result<Vec<ObjectHash>> {
    let found = specs.iter().map(|spec| Ok(repository.find_any_backup(spec)?.id));
    found.collect::<Result<_>>().doing(Act::Find)
}

/// Opens the repository for a command that writes, and says so if nothing but care keeps two of them apart.
pub(crate) async fn open_to_write(context: &Context) -> Result<Repository> {
    let repository = open_repository(&context.globals).await?;
    warn_of_single_writer(context, &repository);
    Ok(repository)
}

/// Says it if nothing but care keeps two writers of this repository apart.
pub(crate) fn warn_of_single_writer(context: &Context, repository: &Repository) {
    if repository.store_facts().single_writer {
        let message = format!(
            "{} is on a store that cannot keep two writers apart (--single-writer): make sure that nobody else writes now",
            display_path(context.globals.repo.as_bytes())
        );
        context.progress.event(Event::Warning { message });
    }
}

/// The real world.
pub(crate) fn environment(globals: &Globals) -> Environment {
    Environment {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        process: Process::current(),
        cache: cache_directory(globals),
    }
}

/// Where the local index is kept; `None` for nowhere.
fn cache_directory(globals: &Globals) -> Option<PathBuf> {
    match &globals.cache {
        Some(none) if none.as_os_str() == "none" => None,
        Some(directory) => Some(directory.clone()),
        None => user_directory("XDG_CACHE_HOME", ".cache").map(|directory| directory.join("everpack")),
    }
}

/// Opens what is to be backed up: a directory or file, or a prefix of a bucket.
pub(crate) async fn open_source(globals: &Globals, args: &SourceArgs) -> Result<Box<dyn Source>> {
    let location = args.source.to_string_lossy();
    if location.starts_with("s3://") || location.starts_with("gs://") || location.starts_with("az://") {
        return open_bucket(globals, args, &location).await;
    }
    let path = location.strip_prefix("file://").map_or_else(|| PathBuf::from(&args.source), PathBuf::from);
    let options = directory_options(globals, args);
    // Listing the first directory may take a while on a slow disk.
    blocking(move || Ok(Box::new(DirectorySource::open(&path, &options)?) as Box<dyn Source>)).await
}

fn directory_options(globals: &Globals, args: &SourceArgs) -> DirectoryOptions {
    let repository = globals.repo.strip_prefix("file://").unwrap_or(&globals.repo);
    DirectoryOptions {
        repository: (!repository.contains("://")).then(|| PathBuf::from(repository)),
        exclude: args.exclude.clone(),
        one_file_system: args.one_file_system,
        skip_temporary: false,
        started: Some(SystemClock.now()),
    }
}

/// Lists the source a second time beside the backup and tells progress what to expect. Ends by itself once nobody looks any more.
pub(crate) fn count_source(globals: &Globals, progress: &SharedProgress, args: &SourceArgs) {
    let path = PathBuf::from(&args.source);
    let options = directory_options(globals, args);
    let progress = Arc::clone(progress);
    let counter = std::thread::Builder::new().name("everpack-count".to_owned());
    let counting = move || {
        let Ok(mut source) = DirectorySource::open(&path, &options) else { return };
        let (mut bytes, mut items) = (0, 0);
        while !progress.is_closed() {
            match source.next_batch(4096) {
                Ok(batch) if !batch.is_empty() => {
                    let files = batch.iter().filter(|entry| entry.kind == EntryKind::File);
                    (bytes, items) = files.fold((bytes, items), |(bytes, items), file| (bytes + file.size, items + 1));
                }
                Ok(_) => return progress.set_total(bytes, items),
                // The backup itself meets it too, and says so.
                Err(_) => return,
            }
        }
    };
    // Without it there is no estimate, and nothing else is missing.
    let _started = counter.spawn(counting);
}

/// Runs something slow and synchronous away from the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::with_source(ErrorKind::Unavailable, "a worker thread ended early", error))?
}

/// The keys that a server is given in a statement: those of the options, else those of the environment.
pub(crate) fn keys_for_server(options: &StoreOptions) -> (Option<String>, Option<Secret>) {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let id = options.access_key.clone().or_else(|| variable("AWS_ACCESS_KEY_ID"));
    let secret = options.secret_key.clone().or_else(|| variable("AWS_SECRET_ACCESS_KEY"));
    (id, secret.map(Secret::new))
}

/// A prefix of a bucket as a source; what is not said of it is as for the repository.
async fn open_bucket(globals: &Globals, args: &SourceArgs, location: &str) -> Result<Box<dyn Source>> {
    let options = args.store_options(globals);
    let store = Store::open(location, &options)?.readonly();
    if store.list(Folder::Root).try_next().await?.is_none() {
        // A directory that is not there is refused; a prefix that was mistyped cannot be told from an empty one.
        let message = format!("list {}: there is nothing below this prefix", store.display());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let access = Arc::new(StoreBucket::new(store));
    let handle = tokio::runtime::Handle::current();
    blocking(move || Ok(Box::new(BucketSource::new(access, handle, BucketOptions::default())?) as Box<dyn Source>))
        .await
}
