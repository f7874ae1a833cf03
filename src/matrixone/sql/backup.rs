//! The BACKUP statement.
//!
//! A server believes what it is told: a timestamp in the future copies nothing and says OK, a malformed one panics, a relative directory lies
//! wherever the server was started, parallelism 0 means as much as the machine has. All of that is refused before anything is sent.

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::matrixone::login::Secret;
use crate::matrixone::release::Release;
use crate::tae::Ts;

use super::quote::string;
use super::redacted;

/// From here on a server takes as many threads as it likes.
pub const MOST_PARALLELISM: u16 = 511;

/// The first release whose BACKUP everpack can write: before, PARALLELISM was no part of it.
const FIRST: Release = Release::new(1, 1, 3);

/// Where the server is to write.
#[derive(Clone, Debug)]
pub enum BackupTarget {
    /// A directory on the host of the CN that runs the statement, framed as the release frames it.
    Directory(String),
    /// The same, through the S3 endpoint `disk`: always raw.
    DiskEndpoint {
        /// A directory, absolute.
        bucket: String,
        /// Below it; may be empty.
        path: String,
    },
    /// A bucket.
    S3(S3Target),
}

/// A bucket that the server writes to, with its own credentials.
#[derive(Clone, Debug, Default)]
pub struct S3Target {
    /// `http://host:port`; without one, the server's default.
    pub endpoint: Option<String>,
    /// The public half of the key; without one, the server looks around itself.
    pub access_key_id: Option<String>,
    /// The secret half.
    pub secret_access_key: Option<Secret>,
    /// The bucket.
    pub bucket: String,
    /// The prefix.
    pub filepath: String,
    /// The region.
    pub region: Option<String>,
    /// Parsed by the server and not used.
    pub compression: Option<String>,
    /// The role to take.
    pub role_arn: Option<String>,
    /// The server speaks to it as to MinIO.
    pub is_minio: bool,
}

/// One BACKUP.
#[derive(Clone, Debug)]
pub struct BackupStatement {
    /// Anything: the server does not use it.
    pub label: String,
    /// Where to.
    pub target: BackupTarget,
    /// Files at once, 1 to [`MOST_PARALLELISM`].
    pub parallelism: u16,
    /// What `tae_sum` will call it: `full`, `incremental`; may be empty.
    pub kind: String,
    /// Copy only what is younger than this, the time of an earlier backup.
    pub since: Option<Ts>,
}

impl BackupStatement {
    /// The statement for a server of this release, at this time of day.
    ///
    /// Fails with `Invalid` on a path, a number or a timestamp that the server would refuse or misunderstand, and with `Unsupported` if the
    /// release cannot do it.
    pub fn sql(&self, release: Option<Release>, now: Timestamp) -> Result<String> {
        self.refuse_missing_abilities(release)?;
        if !(1..=MOST_PARALLELISM).contains(&self.parallelism) {
            return Err(Error::invalid(format!(
                "BACKUP with parallelism {}: say 1 to {MOST_PARALLELISM}; with 0 or more the server takes up to 512 threads, and their memory",
                self.parallelism
            )));
        }
        let mut sql = format!("BACKUP {} {}", string(&self.label)?, self.target_sql()?);
        if !self.kind.is_empty() && release.is_none_or(Release::has_incremental) {
            sql.push_str(&format!(" TYPE {}", string(&self.kind)?));
        }
        if let Some(since) = self.since {
            refuse_odd_time(since, now)?;
            sql.push_str(&format!(" TIMESTAMP '{since}'"));
        }
        Ok(sql)
    }

    /// The statement for people and logs, without its keys and whatever the release can do.
    pub fn redacted(&self) -> String {
        // The time of day only decides whether it is sent; what cannot be written at all is told by `sql`.
        match self.sql(None, Timestamp::from_nanos(i64::MAX)) {
            Ok(sql) => redacted(&sql),
            Err(error) => format!("BACKUP (not sent: {error})"),
        }
    }

    fn refuse_missing_abilities(&self, release: Option<Release>) -> Result<()> {
        let Some(release) = release else { return Ok(()) };
        let lacks = |what: &str, since: &str| {
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("the server is MatrixOne {release}, and {what} came with {since}"),
            ))
        };
        if release < FIRST {
            return lacks("the BACKUP that everpack can drive", "v1.1.3");
        }
        if self.since.is_some() && !release.has_incremental() {
            return lacks("BACKUP since a timestamp", "v1.2.0");
        }
        if matches!(self.target, BackupTarget::DiskEndpoint { .. }) && !release.has_disk_endpoint() {
            return lacks("BACKUP to a directory through the endpoint disk", "v2.0.0");
        }
        Ok(())
    }

    fn target_sql(&self) -> Result<String> {
        let parallelism = self.parallelism.to_string();
        match &self.target {
            BackupTarget::Directory(directory) => {
                let directory = string(absolute(directory)?)?;
                Ok(format!("FILESYSTEM {directory} PARALLELISM '{parallelism}'"))
            }
            BackupTarget::DiskEndpoint { bucket, path } => options(&[
                ("endpoint", Some("disk")),
                ("bucket", Some(absolute(bucket)?)),
                ("filepath", Some(path_below(path)?)),
                ("parallelism", Some(&parallelism)),
            ]),
            BackupTarget::S3(target) => target.sql(&parallelism),
        }
    }
}

impl S3Target {
    fn sql(&self, parallelism: &str) -> Result<String> {
        if self.endpoint.as_deref().is_some_and(|endpoint| endpoint.eq_ignore_ascii_case("disk")) {
            return Err(Error::invalid("the endpoint `disk` is a directory of the server's host, no object store"));
        }
        // The server's MinIO client panics on shorter ones.
        if self.bucket.chars().count() < 3 {
            return Err(Error::invalid(format!(
                "bucket {:?}: the name of a bucket has at least 3 characters",
                self.bucket
            )));
        }
        let secret = self.secret_access_key.as_ref().map(Secret::reveal);
        options(&[
            ("endpoint", self.endpoint.as_deref()),
            ("access_key_id", self.access_key_id.as_deref()),
            ("secret_access_key", secret),
            ("bucket", Some(&self.bucket)),
            ("filepath", Some(path_below(&self.filepath)?)),
            ("region", self.region.as_deref()),
            ("compression", self.compression.as_deref()),
            ("role_arn", self.role_arn.as_deref()),
            ("is_minio", self.is_minio.then_some("true")),
            ("parallelism", Some(parallelism)),
        ])
    }
}

fn options(options: &[(&str, Option<&str>)]) -> Result<String> {
    let mut parts = Vec::with_capacity(options.len());
    for (key, value) in options {
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        // The server writes the values into one line of CSV and splits it again. The value may be a key: it is not shown.
        if value.contains('"') || value.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "S3 option {key}: the server takes no double quotes and control characters there"
            )));
        }
        parts.push(format!("'{key}'={}", string(value)?));
    }
    Ok(format!("S3OPTION {{{}}}", parts.join(",")))
}

/// A directory of the server's host.
fn absolute(path: &str) -> Result<&str> {
    if !path.starts_with('/') || path.trim_matches('/').is_empty() {
        return Err(Error::invalid(format!(
            "directory {path:?}: name it from the root on, and not the root itself; the server would look for it wherever it was started"
        )));
    }
    good_path(path)
}

fn path_below(path: &str) -> Result<&str> {
    good_path(path)
}

/// What MatrixOne's file services take as a path, non-ASCII left out: some releases refuse it.
fn good_path(path: &str) -> Result<&str> {
    let good = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()@/=".contains(c);
    if let Some(bad) = path.chars().find(|&c| !good(c)) {
        return Err(Error::invalid(format!(
            "path {path:?}: the server takes no {bad:?} in a path: use letters, digits and ! - _ . * ' ( ) @ / ="
        )));
    }
    if path.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(Error::invalid(format!("path {path:?}: write it without `.` and `..`")));
    }
    Ok(path)
}

/// A timestamp that no backup can have.
fn refuse_odd_time(since: Ts, now: Timestamp) -> Result<()> {
    if since.physical <= 0 {
        return Err(Error::invalid(format!("BACKUP since {since}: that is the time of no backup")));
    }
    if since.physical > now.as_nanos() {
        return Err(Error::invalid(format!(
            "BACKUP since {since}, {}, which is in the future ({} now): the server would copy nothing and say that all is well. Is a clock wrong?",
            Timestamp::from_nanos(since.physical).to_rfc3339(),
            now.to_rfc3339()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_795_235_300_000_000_000);

    fn full(target: BackupTarget) -> BackupStatement {
        BackupStatement { label: "night".into(), target, parallelism: 2, kind: "full".into(), since: None }
    }

    fn directory(path: &str) -> BackupStatement {
        full(BackupTarget::Directory(path.into()))
    }

    fn on(statement: &BackupStatement, release: Release) -> Result<String> {
        statement.sql(Some(release), NOW)
    }

    #[test]
    fn the_forms_of_the_statement() {
        assert_eq!(
            directory("/data/backup/full-1").sql(None, NOW).unwrap(),
            "BACKUP 'night' FILESYSTEM '/data/backup/full-1' PARALLELISM '2' TYPE 'full'"
        );
        assert_eq!(
            directory("/it's").sql(None, NOW).unwrap(),
            "BACKUP 'night' FILESYSTEM '/it''s' PARALLELISM '2' TYPE 'full'"
        );
        let since = Ts::parse(b"1795235212287238068-1");
        let incremental = BackupStatement { kind: "incremental".into(), since, ..directory("/b") };
        assert_eq!(
            on(&incremental, Release::new(4, 2, 0)).unwrap(),
            "BACKUP 'night' FILESYSTEM '/b' PARALLELISM '2' TYPE 'incremental' TIMESTAMP '1795235212287238068-1'"
        );
        let disk = full(BackupTarget::DiskEndpoint { bucket: "/data/backup/d18".into(), path: "x/y".into() });
        assert_eq!(
            on(&disk, Release::new(2, 0, 0)).unwrap(),
            "BACKUP 'night' S3OPTION {'endpoint'='disk','bucket'='/data/backup/d18','filepath'='x/y','parallelism'='2'} TYPE 'full'"
        );
        assert_eq!(on(&directory("/b"), FIRST).unwrap(), "BACKUP 'night' FILESYSTEM '/b' PARALLELISM '2'");
    }

    #[test]
    fn keys_stay_out_of_sight() {
        let target = S3Target {
            endpoint: Some("http://127.0.0.1:5556".into()),
            access_key_id: Some("AKTEST".into()),
            secret_access_key: Some(Secret::new("hun'ter\\2")),
            bucket: "bk1".into(),
            filepath: "night1".into(),
            region: Some("us-east-1".into()),
            is_minio: true,
            ..S3Target::default()
        };
        let statement = full(BackupTarget::S3(target));
        assert_eq!(
            statement.sql(None, NOW).unwrap(),
            "BACKUP 'night' S3OPTION {'endpoint'='http://127.0.0.1:5556','access_key_id'='AKTEST','secret_access_key'='hun''ter\\\\2',\
             'bucket'='bk1','filepath'='night1','region'='us-east-1','is_minio'='true','parallelism'='2'} TYPE 'full'"
        );
        let shown = statement.redacted();
        assert!(shown.contains("'secret_access_key'='***'") && !shown.contains("ter"), "{shown}");
        assert!(!format!("{statement:?}").contains("ter\\"), "{statement:?}");
    }

    #[test]
    fn what_the_server_would_misunderstand_is_not_sent() {
        let since = |text: &str| BackupStatement { since: Ts::parse(text.as_bytes()), ..directory("/b") };
        for (statement, says) in [
            (since("8995231771104901455-1"), "in the future"),
            (since("1795235300000000001-0"), "in the future"),
            (since("0-1"), "no backup"),
            (BackupStatement { since: Some(Ts { physical: -1, logical: 0 }), ..directory("/b") }, "no backup"),
            (BackupStatement { parallelism: 0, ..directory("/b") }, "say 1 to 511"),
            (BackupStatement { parallelism: 512, ..directory("/b") }, "say 1 to 511"),
            (directory("relative/dir"), "from the root on"),
            (directory(""), "from the root on"),
            (directory("/"), "from the root on"),
            (directory("/with blank"), "takes no ' '"),
            (directory("/a:b"), "takes no ':'"),
            (directory("/a,b"), "takes no ','"),
            (directory("/a#b"), "takes no '#'"),
            (directory("/a+b"), "takes no '+'"),
            (directory("/ü"), "takes no 'ü'"),
            (directory("/a\\b"), "takes no"),
            (directory("/a/../b"), "without `.`"),
            (BackupStatement { kind: "a\nb".into(), ..directory("/b") }, "control"),
            (full(BackupTarget::DiskEndpoint { bucket: "rel".into(), path: "x".into() }), "from the root on"),
            (full(BackupTarget::DiskEndpoint { bucket: "/b".into(), path: "x y".into() }), "takes no ' '"),
            (full(BackupTarget::S3(S3Target { bucket: "ab".into(), ..S3Target::default() })), "at least 3"),
            (
                full(BackupTarget::S3(S3Target {
                    endpoint: Some("DISK".into()),
                    bucket: "abc".into(),
                    ..S3Target::default()
                })),
                "no object store",
            ),
            (
                full(BackupTarget::S3(S3Target {
                    region: Some("a\"b".into()),
                    bucket: "abc".into(),
                    ..S3Target::default()
                })),
                "double quotes",
            ),
        ] {
            let error = statement.sql(None, NOW).unwrap_err();
            assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(says), "{statement:?}: {error}");
        }
        assert!(since("1795235300000000000-0").sql(None, NOW).is_ok());
    }

    #[test]
    fn releases_lack_what_they_lack() {
        let since = BackupStatement { since: Ts::parse(b"17-1"), ..directory("/b") };
        assert!(on(&since, Release::new(1, 1, 3)).unwrap_err().to_string().contains("came with v1.2.0"));
        assert!(on(&directory("/b"), Release::new(1, 1, 2)).unwrap_err().to_string().contains("came with v1.1.3"));
        let disk = full(BackupTarget::DiskEndpoint { bucket: "/b".into(), path: "x".into() });
        assert_eq!(on(&disk, Release::new(1, 2, 4)).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
