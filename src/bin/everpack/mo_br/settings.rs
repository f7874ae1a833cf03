//! `mo_br.toml`: which repository, how it is reached, and what flags are otherwise told at every call.
//!
//! Precedence: flags, environment, file. A missing file is an empty one. Keys that are not known are left alone and told: the original may have
//! some of its own.

use std::path::PathBuf;

use everpack::error::{Context, Error, Result};
use everpack::source::display_path;
use toml::{Table, Value};

use super::flags::Line;
use crate::args::{Globals, StoreArgs, parse_size};

/// What the file and the environment say.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Where backups go; the place that the flags name if there is none.
    pub(super) repository: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) allow_http: bool,
    pub(super) virtual_host: bool,
    memory: Option<String>,
    cache: Option<PathBuf>,
    pub(super) meta_path: Option<String>,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) user: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) parallelism: Option<u16>,
    /// Where the server's SHARED can be read.
    pub(super) shared: Option<String>,
    /// Where the server can write for us.
    pub(super) stage: Option<String>,
    /// The series of backups.
    pub(super) lineage: Option<String>,
    /// Keys that are none of ours.
    pub(super) unknown: Vec<String>,
}

impl Settings {
    /// Reads the file that `--config` names, and the environment.
    pub(super) fn read(line: &Line) -> Result<Self> {
        let file = PathBuf::from(line.text("config").unwrap_or("./mo_br.toml"));
        let name = || format!("read settings from {}", display_path(file.as_os_str().as_encoded_bytes()));
        let mut settings = match std::fs::read_to_string(&file) {
            Ok(text) => Self::parse(&text).context(name)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(Error::io(name(), error)),
        };
        settings.apply_environment(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        Ok(settings)
    }

    fn parse(text: &str) -> Result<Self> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let words: Vec<String> = error.to_string().split_whitespace().map(str::to_owned).collect();
            Error::invalid(words.join(" "))
        })?;
        let mut settings = Self::default();
        for (key, value) in &table {
            match key.as_str() {
                "repository" => settings.repository = Some(words(key, value)?),
                "endpoint" => settings.endpoint = Some(words(key, value)?),
                "region" => settings.region = Some(words(key, value)?),
                "allow_http" => settings.allow_http = flag(key, value)?,
                "virtual_host" => settings.virtual_host = flag(key, value)?,
                "memory" => settings.memory = Some(words(key, value)?),
                "cache" => settings.cache = Some(words(key, value)?.into()),
                "meta_path" => settings.meta_path = Some(words(key, value)?),
                "host" => settings.host = Some(words(key, value)?),
                "port" => settings.port = Some(number(key, value)?),
                "user" => settings.user = Some(words(key, value)?),
                "password_file" => settings.password_file = Some(words(key, value)?.into()),
                "parallelism" => settings.parallelism = Some(number(key, value)?),
                "shared" => settings.shared = Some(words(key, value)?),
                "stage" => settings.stage = Some(words(key, value)?),
                "lineage" => settings.lineage = Some(words(key, value)?),
                "password" => {
                    let message = "`password` does not belong into this file: name a file of mode 0600 by `password_file`, or use \
                        EVERPACK_MO_PASSWORD";
                    return Err(Error::invalid(message));
                }
                other => settings.unknown.push(other.to_owned()),
            }
        }
        Ok(settings)
    }

    fn apply_environment(&mut self, value: impl Fn(&str) -> Option<String>) {
        let is_true = |text: &str| matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on");
        self.repository = value("EVERPACK_REPO").or(self.repository.take());
        self.endpoint = value("EVERPACK_S3_ENDPOINT").or(self.endpoint.take());
        self.region = value("EVERPACK_S3_REGION").or(self.region.take());
        self.allow_http = value("EVERPACK_S3_ALLOW_HTTP").map_or(self.allow_http, |text| is_true(&text));
        self.virtual_host = value("EVERPACK_S3_VIRTUAL_HOST").map_or(self.virtual_host, |text| is_true(&text));
        self.memory = value("EVERPACK_MEMORY").or(self.memory.take());
        self.cache = value("EVERPACK_CACHE").map(PathBuf::from).or(self.cache.take());
    }

    /// The options that everpack's own commands take. An empty repository stands for none.
    pub(super) fn globals(&self, repository: Option<String>) -> Result<Globals> {
        let memory = self.memory.as_deref().unwrap_or("256M");
        let memory = parse_size(memory).map_err(|why| Error::invalid(format!("memory {memory:?}: {why}")))?;
        Ok(Globals {
            repo: repository.or_else(|| self.repository.clone()).unwrap_or_default(),
            json: false,
            quiet: true,
            verbose: false,
            memory: memory.max(64 << 20),
            cache: self.cache.clone(),
            metrics: None,
            config: None,
            store: StoreArgs {
                endpoint: self.endpoint.clone(),
                region: self.region.clone(),
                allow_http: self.allow_http,
                virtual_host: self.virtual_host,
            },
        })
    }
}

fn words(key: &str, value: &Value) -> Result<String> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| Error::invalid(format!("`{key}` wants a text, not {value}")))
}

fn flag(key: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| Error::invalid(format!("`{key}` wants true or false, not {value}")))
}

fn number(key: &str, value: &Value) -> Result<u16> {
    let number = value.as_integer().and_then(|number| u16::try_from(number).ok());
    number.ok_or_else(|| Error::invalid(format!("`{key}` wants a number up to 65535, not {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_beats_the_file() {
        let mut settings = Settings::parse("repository = '/a'\nregion = 'r'\nport = 6001\nbackup_threads = 3").unwrap();
        assert_eq!(settings.unknown, ["backup_threads"]);
        settings.apply_environment(|name| (name == "EVERPACK_REPO").then(|| "/b".to_owned()));
        let globals = settings.globals(None).unwrap();
        assert_eq!((globals.repo.as_str(), globals.store.region.as_deref()), ("/b", Some("r")));
        assert_eq!(settings.globals(Some("/c".to_owned())).unwrap().repo, "/c");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (file, word) in [
            ("repository = 3", "repository"),
            ("port = 70000", "port"),
            ("allow_http = 'yes'", "allow_http"),
            ("password = 'secret'", "password_file"),
            ("repository =", "TOML"),
        ] {
            let error = Settings::parse(file).unwrap_err();
            assert!(error.message().contains(word) && !error.message().contains("secret"), "{file}: {error}");
        }
    }
}
