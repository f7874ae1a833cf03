//! From a place as people write it to a store: a path, `file://`, `s3://`, `gs://`, `az://`, `memory:`.
//!
//! Credentials come from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`) or from [`StoreOptions`], never from the URL: URLs
//! end up in shell histories, logs and repositories. Unencrypted HTTP has to be asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig, StaticCredentialProvider};
use url::Url;

use super::local::{LocalDisk, create_root};
use super::writer::Store;
use crate::error::{Error, ErrorKind, Result};

/// How to reach a store. What is not set comes from the environment, then from the provider's defaults.
#[derive(Clone)]
pub struct StoreOptions {
    /// Base URL of an S3-compatible server, without the bucket.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Allow an endpoint that is not encrypted.
    pub allow_http: bool,
    /// Name the bucket in the host name; otherwise in the path, which every server understands.
    pub virtual_host: bool,
    /// S3 access key; the secret goes with it.
    pub access_key: Option<String>,
    /// S3 secret key.
    pub secret_key: Option<String>,
    /// S3 session token, for temporary keys.
    pub session_token: Option<String>,
    /// For connecting.
    pub connect_timeout: Duration,
    /// For one request with its whole body. A pack must get through in this time on a slow line.
    pub request_timeout: Duration,
    /// How often a failed request is sent again.
    pub retries: usize,
    /// And for how long.
    pub retry_timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            allow_http: false,
            virtual_host: false,
            access_key: None,
            secret_key: None,
            session_token: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(180),
            retries: 10,
            retry_timeout: Duration::from_secs(180),
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "…");
        f.debug_struct("StoreOptions")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("allow_http", &self.allow_http)
            .field("virtual_host", &self.virtual_host)
            .field("access_key", &hidden(&self.access_key))
            .field("secret_key", &hidden(&self.secret_key))
            .field("session_token", &hidden(&self.session_token))
            .finish_non_exhaustive()
    }
}

impl StoreOptions {
    /// Settings of the HTTP client, as every provider's builder takes them: key and text.
    fn client_settings(&self) -> Vec<(ClientConfigKey, String)> {
        let millis = |duration: Duration| format!("{}ms", duration.as_millis().max(1));
        let mut settings = vec![
            (ClientConfigKey::ConnectTimeout, millis(self.connect_timeout)),
            (ClientConfigKey::Timeout, millis(self.request_timeout)),
            (ClientConfigKey::UserAgent, concat!("everpack/", env!("CARGO_PKG_VERSION")).to_owned()),
        ];
        if self.allow_http {
            settings.push((ClientConfigKey::AllowHttp, "true".to_owned()));
        }
        settings
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig { max_retries: self.retries, retry_timeout: self.retry_timeout, ..RetryConfig::default() }
    }
}

impl Store {
    /// Opens a place. A local directory must exist; of a bucket nothing is asked yet.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self> {
        match Place::parse(url)? {
            Place::Local(path) => open_local(&path),
            Place::Memory(name) => Ok(open_memory(&name)),
            Place::Remote(url) => open_remote(&url, options),
        }
    }

    /// The same, but makes a local directory if there is none, durably.
    pub fn create_root(url: &str, options: &StoreOptions) -> Result<Self> {
        if let Place::Local(path) = Place::parse(url)? {
            create_root(&path).map_err(|error| Error::io(format!("make directory {}", path.display()), error))?;
        }
        Self::open(url, options)
    }
}

enum Place {
    Local(PathBuf),
    Memory(String),
    Remote(Url),
}

impl Place {
    fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid("the place of a store is empty"));
        }
        if let Some(name) = text.strip_prefix("memory:") {
            return Ok(Self::Memory(name.to_owned()));
        }
        if !text.contains("://") {
            return Ok(Self::Local(PathBuf::from(text)));
        }
        // Not shown in errors from here on, until it is known that it holds no credentials.
        let url = Url::parse(text).map_err(|error| {
            Error::with_source(ErrorKind::Invalid, "the place of a store is not a valid URL", error)
        })?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            let message = format!(
                "a {}:// URL of a store has only a bucket and a path; give credentials by options or environment",
                url.scheme()
            );
            return Err(Error::invalid(message));
        }
        match url.scheme() {
            "file" => match url.to_file_path() {
                Ok(path) => Ok(Self::Local(path)),
                Err(()) => Err(Error::invalid(format!("{url} names another host; file:// needs three slashes"))),
            },
            "s3" | "gs" | "az" if url.host_str().is_none_or(str::is_empty) => {
                Err(Error::invalid(format!("{url} names no bucket")))
            }
            "s3" | "gs" | "az" => Ok(Self::Remote(url)),
            _ => Err(Error::invalid(format!("{url}: stores are a path, file://, s3://, gs://, az:// or memory:"))),
        }
    }
}

fn open_local(path: &Path) -> Result<Store> {
    let act = || format!("open {}", path.display());
    let root = path.canonicalize().map_err(|error| Error::io(act(), error))?;
    if !root.is_dir() {
        return Err(Error::invalid(format!("open {}: not a directory", path.display())));
    }
    let objects = LocalFileSystem::new_with_prefix(&root)
        .map_err(|error| Error::with_source(ErrorKind::Unavailable, act(), error))?
        .with_fsync(true);
    let display = root.display().to_string();
    Ok(Store::new(Arc::new(objects), display, Some(LocalDisk::new(root))))
}

/// `memory:` is a store of its own each time; `memory:NAME` is one store for the whole process.
fn open_memory(name: &str) -> Store {
    static NAMED: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
    let objects = match name {
        "" => Arc::default(),
        name => {
            let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(named.entry(name.to_owned()).or_default())
        }
    };
    Store::new(objects, format!("memory:{name}"), None)
}

fn open_remote(url: &Url, options: &StoreOptions) -> Result<Store> {
    let bucket = url.host_str().unwrap_or_default();
    let result = match url.scheme() {
        "s3" => build_s3(bucket, options)?,
        "gs" => build_gs(bucket, options)?,
        _ => build_az(bucket, options)?,
    };
    let invalid = |error: object_store::Error| {
        Error::with_source(ErrorKind::Invalid, format!("open {url}: its settings are not usable"), error)
    };
    let objects = result.map_err(invalid)?;
    let prefix = object_store::path::Path::from_url_path(url.path()).map_err(|error| invalid(error.into()))?;
    let objects: Arc<dyn ObjectStore> =
        if prefix.is_root() { objects } else { Arc::new(PrefixStore::new(objects, prefix)) };
    Ok(Store::new(objects, url.as_str().trim_end_matches('/').to_owned(), None))
}

type Built = object_store::Result<Arc<dyn ObjectStore>>;

fn build_s3(bucket: &str, options: &StoreOptions) -> Result<Built> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(options.retry())
        .with_unsigned_payload(false)
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    for (key, value) in options.client_settings() {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if options.virtual_host {
        builder = builder.with_virtual_hosted_style_request(true);
    }
    match (&options.access_key, &options.secret_key) {
        (None, None) => {}
        (Some(key_id), Some(secret_key)) => {
            // As a whole, so that no session token of the environment is mixed in.
            let (key_id, secret_key) = (key_id.clone(), secret_key.clone());
            let credential = AwsCredential { key_id, secret_key, token: options.session_token.clone() };
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
        }
        _ => return Err(Error::invalid("an S3 access key and its secret key go together; one of them is missing")),
    }
    let from_env = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let endpoint = options.endpoint.clone().or_else(|| from_env.iter().find_map(|key| builder.get_config_value(key)));
    if let Some(endpoint) = endpoint {
        let may_http = options.allow_http
            || is_true(builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)));
        let host_for = options.virtual_host.then_some(bucket);
        let endpoint = check_endpoint(&endpoint, may_http, host_for)?;
        builder = builder
            .with_config(AmazonS3ConfigKey::S3Endpoint, endpoint)
            // Deletes in bulk are the part of S3 that look-alikes get wrong; single ones run many at a time.
            .with_disable_bulk_delete(true);
    }
    Ok(builder.build().map(|objects| Arc::new(objects) as Arc<dyn ObjectStore>))
}

fn build_gs(bucket: &str, options: &StoreOptions) -> Result<Built> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(options.retry());
    for (key, value) in options.client_settings() {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(&check_endpoint(endpoint, options.allow_http, None)?);
    }
    Ok(builder.build().map(|objects| Arc::new(objects) as Arc<dyn ObjectStore>))
}

fn build_az(container: &str, options: &StoreOptions) -> Result<Built> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(container).with_retry(options.retry());
    for (key, value) in options.client_settings() {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(check_endpoint(endpoint, options.allow_http, None)?);
    }
    Ok(builder.build().map(|objects| Arc::new(objects) as Arc<dyn ObjectStore>))
}

fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y"))
}

/// The endpoint as the client wants it: with the bucket in its host name if asked, without a slash at the end.
fn check_endpoint(text: &str, may_http: bool, host_for: Option<&str>) -> Result<String> {
    // The text is not shown before it is known to hold no credentials.
    let mut url = Url::parse(text)
        .map_err(|error| Error::with_source(ErrorKind::Invalid, "the endpoint is not a valid URL", error))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(Error::invalid("the endpoint has only scheme, host, port and path; give credentials apart"));
    }
    match url.scheme() {
        "https" => {}
        "http" if may_http => {}
        "http" => {
            let message = format!("the endpoint {url} is not encrypted; --allow-http if that is meant");
            return Err(Error::invalid(message));
        }
        _ => return Err(Error::invalid(format!("the endpoint {url} is neither https:// nor http://"))),
    }
    if let Some(bucket) = host_for {
        let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
        url.set_host(Some(&host)).map_err(|error| {
            let message = format!("the endpoint {text} cannot take the bucket in its host name");
            Error::with_source(ErrorKind::Invalid, message, error)
        })?;
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(url: &str, options: &StoreOptions) -> Error {
        Store::open(url, options).expect_err(url)
    }

    #[test]
    fn places_that_make_no_sense_are_refused_without_showing_secrets() {
        let options = StoreOptions::default();
        for url in ["", "ftp://x/y", "s3://", "s3:///x", "file://host/x", "s3://b/x?y=SECRET", "s3://AK:SECRET@b/x"] {
            let error = refuse(url, &options);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {error}");
            assert!(!error.message().contains("SECRET"), "{error}");
        }
        assert_eq!(refuse("/does/not/exist", &options).kind(), ErrorKind::NotFound);
        assert_eq!(refuse("/dev/null", &options).kind(), ErrorKind::Invalid);
    }

    #[test]
    fn unencrypted_endpoints_have_to_be_asked_for() {
        let mut options = StoreOptions {
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            access_key: Some("AK".to_owned()),
            secret_key: Some("SECRET".to_owned()),
            ..StoreOptions::default()
        };
        let error = refuse("s3://bucket/prefix", &options);
        assert!(error.message().contains("not encrypted"), "{error}");
        options.allow_http = true;
        let store = Store::open("s3://bucket/prefix/", &options).unwrap();
        assert_eq!(store.display(), "s3://bucket/prefix");
        assert!(store.local_path().is_none());
        assert!(!format!("{options:?} {store:?}").contains("SECRET"));
        options.secret_key = None;
        assert!(refuse("s3://bucket", &options).message().contains("go together"));
    }

    #[test]
    fn endpoints_can_take_the_bucket_in_the_host() {
        assert_eq!(check_endpoint("https://s3.example/", false, None).unwrap(), "https://s3.example");
        assert_eq!(check_endpoint("https://s3.example:9/x", false, Some("b")).unwrap(), "https://b.s3.example:9/x");
        assert!(check_endpoint("https://127.0.0.1:9", false, Some("b")).is_err());
        for text in ["example.com:80", "https://AK:SECRET@s3.example", "nonsense"] {
            let error = check_endpoint(text, true, None).unwrap_err();
            assert!(!error.message().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn local_roots_are_opened_by_path_and_url_and_made_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("my repo#1");
        let options = StoreOptions::default();
        assert_eq!(refuse(root.to_str().unwrap(), &options).kind(), ErrorKind::NotFound);
        let made = Store::create_root(root.to_str().unwrap(), &options).unwrap();
        let url = Url::from_file_path(&root).unwrap();
        let opened = Store::open(url.as_str(), &options).unwrap();
        assert_eq!(made.local_path(), opened.local_path());
        assert_eq!(opened.local_path(), Some(&*root.canonicalize().unwrap()));
    }

    #[tokio::test]
    async fn named_memory_is_shared_and_unnamed_is_not() {
        let options = StoreOptions::default();
        let open = |url| Store::open(url, &options).unwrap();
        let path = super::super::ObjectPath::parse("x").unwrap();
        open("memory:open-test").put_new(&path, vec!["1".into()]).await.unwrap();
        assert!(open("memory:open-test").exists(&path).await.unwrap());
        open("memory:").put_new(&path, vec!["1".into()]).await.unwrap();
        assert!(!open("memory:").exists(&path).await.unwrap());
    }
}
