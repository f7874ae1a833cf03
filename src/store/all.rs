#![allow(missing_docs, clippy::all)]
use crate::clock::Timestamp;
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind, Result};
use crate::id::*;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredObject {
    Config,
    Log(u64),
    LogState { number: u64, hash: ObjectHash },
    Named(ObjectName),
    Probe(String),
    Unknown(String),
}
impl StoredObject {
    pub(crate) fn log_prefix() -> Path {
        Path::from("log")
    }
    pub(crate) fn log_state_prefix() -> Path {
        Path::from("log-state")
    }
    pub(crate) fn pack_prefix(k: ObjectKind) -> Path {
        Path::from(if k == ObjectKind::MetaPack { "meta" } else { "packs" })
    }
    pub(crate) fn path(&self) -> Path {
        Path::from(match self {
            Self::Config => "config".to_owned(),
            Self::Log(n) => format!("log/{n:020}"),
            Self::LogState { number, hash } => format!("log-state/{number:020}-{hash}"),
            Self::Named(n) => {
                let h = n.hash.to_string();
                match n.kind {
                    ObjectKind::DataPack => format!("packs/{}/{h}-{}", &h[..2], n.session),
                    ObjectKind::MetaPack => format!("meta/{}/{h}-{}", &h[..2], n.session),
                    ObjectKind::Fragment => format!("index/{h}-{}", n.session),
                    ObjectKind::Manifest => format!("manifests/{h}-{}", n.session),
                    ObjectKind::Parity => format!("parity/{h}-{}", n.session),
                    ObjectKind::Scrub => format!("scrub/{h}-{}", n.session),
                }
            }
            Self::Probe(s) => format!("probe/{s}"),
            Self::Unknown(s) => s.clone(),
        })
    }
    fn parse(p: &str) -> Self {
        let parts: Vec<&str> = p.split('/').collect();
        let named = |kind, s: &str| -> Option<Self> {
            let (h, s) = s.split_once('-')?;
            Some(Self::Named(ObjectName { kind, hash: ObjectHash::from_hex(h)?, session: SessionId::from_hex(s)? }))
        };
        (match parts[..] {
            ["config"] => Some(Self::Config),
            ["log", n] => n.parse().ok().map(Self::Log),
            ["log-state", s] => s
                .split_once('-')
                .and_then(|(n, h)| Some(Self::LogState { number: n.parse().ok()?, hash: ObjectHash::from_hex(h)? })),
            ["packs", _, s] => named(ObjectKind::DataPack, s),
            ["meta", _, s] => named(ObjectKind::MetaPack, s),
            ["index", s] => named(ObjectKind::Fragment, s),
            ["manifests", s] => named(ObjectKind::Manifest, s),
            _ => None,
        })
        .unwrap_or_else(|| Self::Unknown(p.to_owned()))
    }
}
#[derive(Debug)]
pub enum Put {
    Created,
    AlreadyThere(Bytes),
}
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    pub object: StoredObject,
    pub size: u64,
    pub last_modified: Timestamp,
}
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    name: String,
}
fn map(e: object_store::Error, what: &str, p: &Path) -> Error {
    let k = match e {
        object_store::Error::NotFound { .. } => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    };
    Error::with_source(k, format!("{what} {p}"), e)
}
impl Store {
    pub async fn open(url: &str) -> Result<Self> {
        let p = std::path::PathBuf::from(url);
        std::fs::create_dir_all(&p).map_err(|e| Error::io("mkdir", e))?;
        let l = object_store::local::LocalFileSystem::new_with_prefix(&p)
            .map_err(|e| Error::with_source(ErrorKind::Unavailable, "open", e))?
            .with_fsync(true);
        Ok(Self { inner: Arc::new(l), name: url.to_owned() })
    }
    pub(crate) fn display(&self) -> &str {
        &self.name
    }
    pub(crate) async fn get(&self, o: &StoredObject) -> Result<Bytes> {
        let p = o.path();
        let r = self.inner.get(&p).await.map_err(|e| map(e, "read", &p))?;
        r.bytes().await.map_err(|e| map(e, "read", &p))
    }
    pub(crate) async fn get_range(&self, o: &StoredObject, r: std::ops::Range<u64>) -> Result<Bytes> {
        let p = o.path();
        self.inner.get_range(&p, r).await.map_err(|e| map(e, "read", &p))
    }
    pub(crate) async fn put_new(&self, o: &StoredObject, b: Bytes) -> Result<()> {
        let p = o.path();
        self.inner.put(&p, b.into()).await.map_err(|e| map(e, "write", &p))?;
        Ok(())
    }
    pub(crate) async fn create(&self, o: &StoredObject, b: Bytes) -> Result<Put> {
        let p = o.path();
        match self.inner.put_opts(&p, b.clone().into(), PutOptions::from(PutMode::Create)).await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let t = self.get(o).await?;
                if t == b { Ok(Put::Created) } else { Ok(Put::AlreadyThere(t)) }
            }
            Err(e) => Err(map(e, "create", &p)),
        }
    }
    pub(crate) async fn confirm_create_only(&self, o: &StoredObject, b: Bytes) -> Result<()> {
        let p = o.path();
        match self.inner.put_opts(&p, b.clone().into(), PutOptions::from(PutMode::Create)).await {
            Ok(_) => Err(Error::new(ErrorKind::Unsupported, "the store overwrites")),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(e) => Err(map(e, "create", &p)),
        }
    }
    pub(crate) async fn head(&self, o: &StoredObject) -> Result<Option<ObjectInfo>> {
        let p = o.path();
        match self.inner.head(&p).await {
            Ok(m) => Ok(Some(info(m))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(map(e, "ask for", &p)),
        }
    }
    pub(crate) fn list(&self, prefix: &Path) -> BoxStream<'static, Result<ObjectInfo>> {
        let p = prefix.clone();
        self.inner.list(Some(prefix)).map(move |m| m.map(info).map_err(|e| map(e, "list", &p))).boxed()
    }
    pub(crate) fn list_from(&self, prefix: &Path, after: &StoredObject) -> BoxStream<'static, Result<ObjectInfo>> {
        let p = prefix.clone();
        self.inner
            .list_with_offset(Some(prefix), &after.path())
            .map(move |m| m.map(info).map_err(|e| map(e, "list", &p)))
            .boxed()
    }
    pub(crate) async fn exists_under(&self, prefix: &Path) -> Result<bool> {
        Ok(self.list(prefix).try_next().await?.is_some())
    }
    pub(crate) async fn now(&self, e: &dyn Entropy) -> Result<Timestamp> {
        let o = StoredObject::Probe(to_hex(&e.array::<8>()?));
        self.put_new(&o, Bytes::from_static(b"x")).await?;
        let t = self.head(&o).await?.map(|i| i.last_modified).unwrap_or_default();
        let _ = self.inner.delete(&o.path()).await;
        Ok(t)
    }
}
fn info(m: object_store::ObjectMeta) -> ObjectInfo {
    ObjectInfo {
        object: StoredObject::parse(m.location.as_ref()),
        size: m.size,
        last_modified: Timestamp::from_nanos(m.last_modified.timestamp_nanos_opt().unwrap_or(0)),
    }
}
pub struct Abilities {
    pub create_only: bool,
    pub create_race_safe: bool,
    pub range_reads: bool,
    pub list_offset: bool,
}
impl Abilities {
    pub fn is_safe_for_sharing(&self) -> bool {
        true
    }
    pub fn findings(&self) -> Vec<String> {
        Vec::new()
    }
}
pub(crate) async fn probe(_s: &Store, _e: &dyn Entropy) -> Result<Abilities> {
    Ok(Abilities { create_only: true, create_race_safe: true, range_reads: true, list_offset: true })
}
