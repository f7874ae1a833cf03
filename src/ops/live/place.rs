//! A directory or a prefix of a bucket that files are listed in, read from and removed from, by name. SHARED and the staging root are such.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::source::{
    BucketOptions, BucketSource, DirectoryOptions, DirectorySource, Source, StoreBucket, display_path,
};
use crate::store::{Folder, ObjectPath, Store, StoreOptions};
use crate::tae::{ReadAt, logical};

/// Objects of a bucket up to this are read with one request.
const WHOLE_MOST: u64 = 8 << 20;

/// Where files lie.
#[derive(Clone, Debug)]
pub enum Place {
    /// A directory of this host.
    Directory(PathBuf),
    /// A prefix of a bucket, and how it is reached.
    Bucket {
        /// `s3://bucket/prefix`, without credentials.
        url: String,
        /// How it is reached.
        options: StoreOptions,
    },
}

impl Place {
    /// What people write: a path, or the URL of a bucket and a prefix.
    pub fn parse(text: &str, options: &StoreOptions) -> Self {
        match text.split_once("://") {
            Some(("s3" | "gs" | "az", _)) => {
                Self::Bucket { url: text.trim_end_matches('/').to_owned(), options: options.clone() }
            }
            Some(("file", path)) => Self::Directory(PathBuf::from(path)),
            _ => Self::Directory(PathBuf::from(text)),
        }
    }

    /// The place as people know it.
    pub fn display(&self) -> String {
        match self {
            Self::Directory(path) => display_path(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())),
            Self::Bucket { url, .. } => url.clone(),
        }
    }

    /// A place below this one.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        match self {
            Self::Directory(path) => Self::Directory(path.join(name)),
            Self::Bucket { url, options } => Self::Bucket { url: format!("{url}/{name}"), options: options.clone() },
        }
    }

    /// Everything in it, as a source; `None` if there is no such directory. Blocks: not for threads of the runtime.
    pub(super) fn source(&self, runtime: &Handle) -> Result<Option<Box<dyn Source>>> {
        match self {
            Self::Directory(path) if !path.is_dir() => Ok(None),
            Self::Directory(path) => {
                Ok(Some(Box::new(DirectorySource::open(path, &DirectoryOptions::default())?) as Box<dyn Source>))
            }
            Self::Bucket { .. } => {
                let access = std::sync::Arc::new(StoreBucket::new(self.store()?.readonly()));
                Ok(Some(Box::new(BucketSource::new(access, runtime.clone(), BucketOptions::default())?)))
            }
        }
    }

    /// The store of a bucket.
    fn store(&self) -> Result<Store> {
        match self {
            Self::Directory(path) => Store::open(&path.to_string_lossy(), &StoreOptions::default()),
            Self::Bucket { url, options } => Store::open(url, options),
        }
    }

    /// Opens a file for its bytes as they are stored; `None` if it is not there. Blocks.
    pub(super) fn open(&self, runtime: &Handle, name: &str) -> Result<Option<Box<dyn ReadAt>>> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(name);
                let file = match File::open(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                        let message = format!(
                            "read {}: permission denied; a server writes its files for its own user only (mode 0600): run everpack as that \
                             user or as root, or stage in a bucket",
                            path.display()
                        );
                        return Err(Error::with_source(ErrorKind::Unavailable, message, error));
                    }
                    Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
                };
                let metadata = file.metadata().map_err(|error| Error::io(format!("read {}", path.display()), error))?;
                if !metadata.is_file() {
                    return Err(Error::invalid(format!("read {}: it is not a file", path.display())));
                }
                Ok(Some(Box::new(LocalFile { file, len: metadata.len(), path })))
            }
            Self::Bucket { .. } => {
                let store = self.store()?;
                let path = ObjectPath::parse(name)?;
                let Some(info) = runtime.block_on(store.head(&path))? else { return Ok(None) };
                if info.len <= WHOLE_MOST {
                    return Ok(Some(Box::new(runtime.block_on(store.get_limited(&path, WHOLE_MOST))?)));
                }
                Ok(Some(Box::new(BucketFile { store, path, len: info.len, runtime: runtime.clone() })))
            }
        }
    }

    /// Opens a file for its logical bytes: framing, where there is any, is verified and taken off. Blocks.
    pub(super) fn open_logical(&self, runtime: &Handle, name: &str) -> Result<Option<Box<dyn ReadAt>>> {
        let Some(file) = self.open(runtime, name)? else { return Ok(None) };
        logical(file).map(Some)
    }

    /// A whole small file, logical bytes. Blocks.
    pub(super) fn read(&self, runtime: &Handle, name: &str, len_max: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_logical(runtime, name)? else { return Ok(None) };
        file.read_all(len_max).map(Some).context(|| format!("read {name} in {}", self.display()))
    }

    /// Writes a new small file; a directory is made where it needs one.
    pub(super) async fn write(&self, name: &str, bytes: Bytes) -> Result<()> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(name);
                let written = tokio::task::spawn_blocking(move || {
                    if let Some(parent) = path.parent() {
                        std::fs::create_dir_all(parent)?;
                    }
                    std::fs::write(&path, &bytes)?;
                    open_to_all(&path, 0o644)
                });
                let written = written.await.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
                written.map_err(|error| Error::io(format!("write {name} in {}", self.display()), error))
            }
            Self::Bucket { .. } => self.store()?.put_new(&ObjectPath::parse(name)?, vec![bytes]).await,
        }
    }

    /// Makes the place, with rights for the user of the server, who is somebody else. Fails if it is there.
    pub(super) async fn create(&self) -> Result<()> {
        let Self::Directory(path) = self else { return Ok(()) };
        let made = std::fs::create_dir(path).and_then(|()| open_to_all(path, 0o1777));
        made.map_err(|error| {
            Error::io(format!("make the staging directory {}", path.display()), error)
                .context("--stage must name a directory that everpack can write to")
        })
    }

    /// Removes everything in it, and itself.
    pub(super) async fn remove(&self) -> Result<()> {
        match self {
            Self::Directory(path) => {
                let path = path.clone();
                let removed = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        Err(Error::io(format!("remove the staging directory {}", path.display()), error))
                    }
                    _ => Ok(()),
                });
                removed.await.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?
            }
            Self::Bucket { .. } => {
                let store = self.store()?;
                let objects = store.list_sorted(Folder::Root).await?;
                store.delete_many(objects.into_iter().map(|info| info.path).collect()).await
            }
        }
    }

    /// Names of the places right below this one that begin with `prefix`.
    pub(super) async fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = std::collections::BTreeSet::new();
        match self {
            Self::Directory(path) => {
                let entries = std::fs::read_dir(path);
                let entries = entries.map_err(|error| Error::io(format!("list {}", path.display()), error))?;
                names.extend(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()));
            }
            Self::Bucket { .. } => {
                use futures::TryStreamExt;
                let store = self.store()?;
                // The prefix may hold a whole repository beside: only what follows the name is listed, and buckets list in order.
                let mut objects = store.list_from(Folder::Root, ObjectPath::parse(prefix)?);
                while let Some(info) = objects.try_next().await? {
                    let path = info.path.as_str();
                    if !path.starts_with(prefix) {
                        break;
                    }
                    names.extend(path.split_once('/').map(|(first, _)| first.to_owned()));
                }
            }
        }
        Ok(names.into_iter().filter(|name| name.starts_with(prefix)).collect())
    }
}

fn open_to_all(path: &std::path::Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

struct LocalFile {
    file: File,
    len: u64,
    path: PathBuf,
}

impl ReadAt for LocalFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| Error::io(format!("read {} at {offset}", self.path.display()), error))
    }
}

struct BucketFile {
    store: Store,
    path: ObjectPath,
    len: u64,
    runtime: Handle,
}

impl ReadAt for BucketFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.len {
            return Err(Error::corrupt(format!(
                "read {} bytes at {offset}: only {} are there",
                buffer.len(),
                self.len
            )));
        }
        if !buffer.is_empty() {
            let bytes = self.runtime.block_on(self.store.get_range(&self.path, offset..end))?;
            buffer.copy_from_slice(&bytes);
        }
        Ok(())
    }
}
