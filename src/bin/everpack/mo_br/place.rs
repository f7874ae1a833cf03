//! Where a backup lies, as the flags say it: a directory, or a prefix of a bucket.

use std::path::PathBuf;

use everpack::error::{Error, Result};
use everpack::store::{Store, StoreOptions};

use super::flags::Line;
use super::settings::Settings;
use super::tables::Cell;

/// A place of backups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Filesystem(PathBuf),
    S3(S3Place),
}

/// A prefix of a bucket, without anything secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct S3Place {
    pub(super) endpoint: String,
    pub(super) bucket: String,
    pub(super) filepath: String,
    pub(super) region: String,
    pub(super) compression: String,
    pub(super) role_arn: String,
    pub(super) is_minio: bool,
}

/// Keys of a bucket; what is not set comes from the environment. Never printed.
#[derive(Clone, Default)]
pub(super) struct Keys {
    pub(super) id: Option<String>,
    pub(super) secret: Option<String>,
}

impl Keys {
    /// Those given by `--<prefix>access_key_id` and `--<prefix>secret_access_key`.
    pub(super) fn given(line: &Line, prefix: &str) -> Self {
        let given = |name: &str| line.unquoted(&format!("{prefix}{name}")).map(str::to_owned);
        Self { id: given("access_key_id"), secret: given("secret_access_key") }
    }
}

/// Which flags name a place: `--path` and `--endpoint`, or those with a prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// The flag that tells the kind.
    pub(super) kind: &'static str,
    /// The flag of the directory.
    pub(super) path: &'static str,
    /// In front of the flags of a bucket.
    pub(super) prefix: &'static str,
}

/// The flags of `backup`, `merge` and `repair_index`.
pub(super) const BACKUP_TO: Family = Family { kind: "backup_dir", path: "path", prefix: "" };
/// The flags of `check` and `restore` for where a backup comes from.
pub(super) const BACKUP_FROM: Family = Family { kind: "backup_dir", path: "backup_path", prefix: "backup_" };
/// The flags of `restore` for where it goes.
pub(super) const RESTORE_TO: Family = Family { kind: "restore_dir", path: "restore_path", prefix: "restore_" };

impl Place {
    /// The place that the flags name; `None` if they name none.
    pub(super) fn given(line: &Line, family: Family) -> Result<Option<Self>> {
        let flag = |name: &str| line.unquoted(&format!("{}{name}", family.prefix)).unwrap_or("").to_owned();
        let path = line.unquoted(family.path);
        match line.unquoted(family.kind).map(str::to_ascii_lowercase).as_deref() {
            None if path.is_none() => Ok(None),
            None | Some("filesystem") => {
                let path = path.ok_or_else(|| {
                    Error::invalid(format!("--{} filesystem needs --{}: a directory", family.kind, family.path))
                })?;
                Ok(Some(Self::Filesystem(PathBuf::from(path))))
            }
            Some("s3") => {
                let s3 = S3Place {
                    endpoint: flag("endpoint"),
                    bucket: flag("bucket"),
                    filepath: flag("filepath"),
                    region: flag("region"),
                    compression: flag("compression"),
                    role_arn: flag("role_arn"),
                    is_minio: line.is_set(&format!("{}is_minio", family.prefix)),
                };
                if s3.bucket.is_empty() {
                    return Err(Error::invalid(format!("--{} s3 needs --{}bucket", family.kind, family.prefix)));
                }
                Ok(Some(Self::S3(s3)))
            }
            Some(other) => {
                let message = format!("--{} {other:?}: a backup lies in `filesystem` or in `s3`", family.kind);
                Err(Error::invalid(message))
            }
        }
    }

    /// The place of a repository: a path, or `s3://bucket/prefix`, reached as the settings say.
    pub(super) fn of_location(location: &str, settings: &Settings) -> Self {
        let Some(rest) = location.strip_prefix("s3://") else { return Self::Filesystem(PathBuf::from(location)) };
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        Self::S3(S3Place {
            endpoint: settings.endpoint.clone().unwrap_or_default(),
            region: settings.region.clone().unwrap_or_default(),
            bucket: bucket.to_owned(),
            filepath: path.to_owned(),
            ..S3Place::default()
        })
    }

    /// `filesystem` or `s3`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Filesystem(_) => "filesystem",
            Self::S3(_) => "s3",
        }
    }

    /// A place as a store is named.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Filesystem(path) => path.to_string_lossy().into_owned(),
            Self::S3(s3) => {
                let path = s3.filepath.trim_matches('/');
                let slash = if path.is_empty() { "" } else { "/" };
                format!("s3://{}{slash}{path}", s3.bucket)
            }
        }
    }

    /// The same place, relative paths made absolute: the catalogue outlives this process and its working directory.
    pub(super) fn absolute(self) -> Self {
        match self {
            Self::Filesystem(path) => Self::Filesystem(std::path::absolute(&path).unwrap_or(path)),
            s3 @ Self::S3(_) => s3,
        }
    }

    /// How its store is reached.
    pub(super) fn options(&self, keys: &Keys, virtual_host: bool) -> StoreOptions {
        let Self::S3(s3) = self else { return StoreOptions::default() };
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let endpoint = some(&s3.endpoint).map(|endpoint| match endpoint.contains("://") {
            true => endpoint,
            false if s3.is_minio => format!("http://{endpoint}"),
            false => format!("https://{endpoint}"),
        });
        StoreOptions {
            // Whoever writes http:// into a flag has asked for it.
            allow_http: endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://")),
            endpoint,
            region: some(&s3.region),
            virtual_host,
            access_key: keys.id.clone(),
            secret_key: keys.secret.clone(),
            ..StoreOptions::default()
        }
    }

    /// Opens the place to write into it; a directory is made if there is none.
    pub(super) fn create(&self, keys: &Keys, virtual_host: bool) -> Result<Store> {
        Store::create_root(&self.url(), &self.options(keys, virtual_host))
    }

    /// Opens the place.
    pub(super) fn open(&self, keys: &Keys, virtual_host: bool) -> Result<Store> {
        Store::open(&self.url(), &self.options(keys, virtual_host))
    }

    /// As the list shows it. The path of a bucket is the fifth line of its cell, where scripts look for it.
    pub(super) fn cell(&self) -> Cell {
        match self {
            Self::Filesystem(path) => {
                Cell::Flow(crate::output::one_line(&format!("BackupDir: filesystem  Path: {}", path.display())))
            }
            Self::S3(s3) => Cell::Lines(
                ["BackupDir: s3  Endpoint:", &s3.endpoint, &format!("Bucket: {}", s3.bucket), "Path:", &s3.filepath]
                    .map(crate::output::one_line)
                    .to_vec(),
            ),
        }
    }

    /// As `restore` shows it: indented lines.
    pub(super) fn lines(&self) -> String {
        let one_line = crate::output::one_line;
        match self {
            Self::Filesystem(path) => {
                format!("    BackupDir: filesystem\n    Path: {}\n", one_line(&path.display().to_string()))
            }
            Self::S3(s3) => format!(
                "    BackupDir: s3\n    Endpoint: {}\n    Bucket: {}\n    Path: {}\n",
                one_line(&s3.endpoint),
                one_line(&s3.bucket),
                one_line(&s3.filepath)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(words: &str) -> Result<Option<Place>> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let line = super::super::flags::parse(&words).expect("the line is right");
        let family = if words[0] == "restore" { RESTORE_TO } else { BACKUP_TO };
        Place::given(&line, family)
    }

    #[test]
    fn flags_name_a_place() {
        let some = |words: &str| place(words).unwrap().unwrap();
        assert_eq!(some("backup --backup_dir filesystem --path /b"), Place::Filesystem("/b".into()));
        assert_eq!(some("restore --restore_path \"/b\""), Place::Filesystem("/b".into()));
        let s3 = some("backup --backup_dir s3 --bucket b --filepath /x/y/ --endpoint http://h:9000 --is_minio");
        assert_eq!(s3.url(), "s3://b/x/y");
        let options = s3.options(&Keys::default(), false);
        assert!(options.allow_http && options.endpoint.as_deref() == Some("http://h:9000"));
        let bare = some("backup --backup_dir s3 --bucket b --endpoint s3.example.com");
        assert_eq!(bare.options(&Keys::default(), false).endpoint.as_deref(), Some("https://s3.example.com"));
        assert_eq!(bare.url(), "s3://b");
        assert!(place("backup --host h").unwrap().is_none());
    }

    #[test]
    fn half_a_place_is_refused() {
        for (words, word) in [
            ("backup --backup_dir s3", "--bucket"),
            ("backup --backup_dir filesystem", "--path"),
            ("backup --backup_dir nfs --path /x", "nfs"),
            ("restore --restore_dir s3 --restore_region r", "--restore_bucket"),
        ] {
            let error = place(words).unwrap_err();
            assert!(error.message().contains(word), "{words}: {error}");
        }
    }
}
