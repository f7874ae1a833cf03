//! Statements, as text: names and strings quoted, and refused where the server would do something else than was asked for.

pub(crate) mod token;
// STUB
#[derive(Clone, Debug)]
pub enum BackupTarget {
    Directory(String),
    DiskEndpoint { bucket: String, path: String },
    S3(S3Target),
}
#[derive(Clone, Debug, Default)]
pub struct S3Target {
    pub endpoint: String,
    pub access_key_id: String,
    pub secret_access_key: crate::matrixone::login::Secret,
    pub bucket: String,
    pub filepath: String,
    pub region: String,
    pub compression: Option<String>,
    pub role_arn: Option<String>,
    pub is_minio: bool,
}
#[derive(Clone, Debug)]
pub struct BackupStatement {
    pub label: String,
    pub target: BackupTarget,
    pub parallelism: u16,
    pub kind: String,
    pub since: Option<crate::tae::Ts>,
}
impl BackupStatement {
    pub fn sql(
        &self,
        _r: Option<crate::matrixone::release::Release>,
        _now: crate::clock::Timestamp,
    ) -> crate::error::Result<String> {
        let since = self.since.map(|ts| format!(" timestamp '{ts}'")).unwrap_or_default();
        Ok(match &self.target {
            BackupTarget::Directory(d) => format!(
                "backup '{}' filesystem '{d}' parallelism '{}' type '{}'{since}",
                self.label, self.parallelism, self.kind
            ),
            BackupTarget::DiskEndpoint { bucket, path } => format!(
                "backup '{}' s3option {{'endpoint'='disk','bucket'='{bucket}','filepath'='{path}','parallelism'='{}'}} type '{}'{since}",
                self.label, self.parallelism, self.kind
            ),
            BackupTarget::S3(t) => format!(
                "backup '{}' s3option {{'endpoint'='{}','region'='{}','access_key_id'='{}','secret_access_key'='{}','bucket'='{}','filepath'='{}','parallelism'='{}'}} type '{}'{since}",
                self.label,
                t.endpoint,
                t.region,
                t.access_key_id,
                t.secret_access_key.reveal(),
                t.bucket,
                t.filepath,
                self.parallelism,
                self.kind
            ),
        })
    }
    pub fn redacted(&self) -> String {
        "BACKUP".to_owned()
    }
}
