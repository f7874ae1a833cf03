//! TEMPORARY: names of ops::check and ops::query until they are in the library.
#![allow(dead_code, missing_docs, clippy::unused_async, reason = "temporary")]
pub(crate) mod check {
    use everpack::error::Result;
    use everpack::id::ObjectHash;
    use everpack::progress::Monitor;
    use everpack::repo::Repository;
    use std::sync::Arc;
    use std::time::Duration;
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) enum Sample {
        Share(f64),
        Bytes(u64),
    }
    pub(crate) struct CheckOptions {
        pub backups: Vec<ObjectHash>,
        pub read_data: bool,
        pub part: Option<(u32, u32)>,
        pub sample: Option<Sample>,
        pub time_limit: Option<Duration>,
        pub memory: u64,
    }
    #[derive(serde::Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum Severity {
        Note,
        Warning,
        Error,
    }
    #[derive(serde::Serialize)]
    pub(crate) struct Touched {
        pub backup: ObjectHash,
        pub path: String,
    }
    #[derive(serde::Serialize)]
    pub(crate) struct Finding {
        pub severity: Severity,
        pub object: String,
        pub what: String,
        pub touches: Vec<Touched>,
        pub touched_count: u64,
        pub heal: String,
    }
    #[derive(serde::Serialize, Default)]
    pub(crate) struct CheckReport {
        pub backups: u64,
        pub entries: u64,
        pub segments: u64,
        pub chunks: u64,
        pub packs: u64,
        pub packs_read: u64,
        pub bytes_read: u64,
        pub log_entries: u64,
        pub findings: Vec<Finding>,
        pub finding_count: u64,
        pub complete: bool,
        pub remarks: Vec<String>,
        pub duration: Duration,
    }
    impl CheckReport {
        pub(crate) fn worst(&self) -> Option<Severity> {
            self.findings.iter().map(|f| f.severity).max()
        }
    }
    pub(crate) async fn check(_r: &Repository, _o: &CheckOptions, _m: Arc<dyn Monitor>) -> Result<CheckReport> {
        Ok(CheckReport { complete: true, ..CheckReport::default() })
    }
}
pub(crate) mod query {
    use everpack::error::Result;
    use everpack::repo::{BackupInfo, Entry, Repository};
    #[derive(serde::Serialize)]
    pub(crate) struct Shown {}
    pub(crate) enum Difference {
        Added(Entry),
        Removed(Entry),
        Changed { before: Entry, after: Entry },
    }
    #[derive(serde::Serialize, Default)]
    pub(crate) struct Stats {
        pub backups: u64,
        pub logical_bytes: u64,
        pub stored_bytes: u64,
        pub chunks: u64,
        pub packs: u64,
        pub log_entries: u64,
        pub lineages: Vec<LineageStats>,
    }
    #[derive(serde::Serialize, Default)]
    pub(crate) struct LineageStats {
        pub name: String,
        pub backups: u64,
        pub logical_bytes: u64,
        pub stored_bytes: u64,
    }
    pub(crate) async fn show(_r: &Repository, _b: &BackupInfo) -> Result<Shown> {
        Ok(Shown {})
    }
    pub(crate) async fn ls(
        _r: &Repository,
        _b: &BackupInfo,
        _p: &[u8],
        _rec: bool,
        _f: &mut (dyn FnMut(&Entry) -> Result<()> + Send),
    ) -> Result<()> {
        Ok(())
    }
    pub(crate) async fn find(
        _r: &Repository,
        _p: &str,
        _b: &[BackupInfo],
        _f: &mut (dyn FnMut(&BackupInfo, &Entry) -> Result<()> + Send),
    ) -> Result<()> {
        Ok(())
    }
    pub(crate) async fn diff(
        _r: &Repository,
        _a: &BackupInfo,
        _b: &BackupInfo,
        _f: &mut (dyn FnMut(Difference) -> Result<()> + Send),
    ) -> Result<()> {
        Ok(())
    }
    pub(crate) async fn stats(_r: &Repository) -> Result<Stats> {
        Ok(Stats::default())
    }
}
