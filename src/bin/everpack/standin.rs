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
    use everpack::clock::Timestamp;
    use everpack::error::Result;
    use everpack::id::ObjectHash;
    use everpack::repo::{BackupInfo, Entry, Repository, Totals};
    #[derive(serde::Serialize)]
    pub(crate) struct Shown {
        pub id: ObjectHash,
        pub entry: u64,
        pub held_until: Option<Timestamp>,
        pub lineage_name: String,
        pub parent: Option<ObjectHash>,
        pub started: Timestamp,
        pub finished: Timestamp,
        pub partial: bool,
        pub source_kind: String,
        pub source_location: String,
        pub host: String,
        pub tool: String,
        pub tags: Vec<String>,
        pub facts: Vec<(String, String)>,
        pub totals: Totals,
        pub segments: u64,
        pub read_bytes: u64,
        pub new_bytes: u64,
        pub stored_bytes: u64,
    }
    #[derive(serde::Serialize, Clone, Copy, PartialEq, Eq)]
    #[serde(rename_all = "kebab-case")]
    pub(crate) enum Change {
        Added,
        Removed,
        Content,
        Kind,
        Metadata,
    }
    pub(crate) struct Difference {
        pub change: Change,
        pub before: Option<Entry>,
        pub after: Option<Entry>,
    }
    impl Difference {
        pub(crate) fn path(&self) -> &[u8] {
            self.after.as_ref().or(self.before.as_ref()).map_or(&[], |e| e.path.as_slice())
        }
    }
    #[derive(serde::Serialize, Default, Clone, Copy)]
    pub(crate) struct PackStats {
        pub count: u64,
        pub bytes: u64,
    }
    #[derive(serde::Serialize, Default)]
    pub(crate) struct Stats {
        pub location: String,
        pub backups: u64,
        pub forgotten: u64,
        pub lineages: Vec<LineageStats>,
        pub logical_bytes: u64,
        pub chunks: u64,
        pub data_packs: PackStats,
        pub meta_packs: PackStats,
        pub stored_bytes: u64,
        pub ratio: f64,
        pub fragments: u64,
        pub log_entries: u64,
        pub open_sessions: u64,
        pub retired_objects: u64,
        pub quarantined_packs: u64,
    }
    #[derive(serde::Serialize)]
    pub(crate) struct LineageStats {
        pub name: String,
        pub backups: u64,
        pub newest: ObjectHash,
        pub newest_started: Timestamp,
        pub newest_bytes: u64,
        pub newest_files: u64,
        pub stored_bytes: u64,
    }
    pub(crate) async fn show(r: &Repository, b: &BackupInfo) -> Result<Shown> {
        let m = r.manifest(&b.id).await?;
        let s = &b.summary;
        Ok(Shown {
            id: b.id,
            entry: b.entry,
            held_until: None,
            lineage_name: m.lineage_name,
            parent: m.parent,
            started: m.started,
            finished: m.finished,
            partial: m.partial,
            source_kind: m.source_kind,
            source_location: m.source_location,
            host: m.host,
            tool: m.tool,
            tags: m.tags,
            facts: m.facts,
            totals: m.totals,
            segments: m.segments.len() as u64,
            read_bytes: s.read_bytes,
            new_bytes: s.new_bytes,
            stored_bytes: s.stored_bytes,
        })
    }
    pub(crate) async fn ls(
        _r: &Repository,
        _b: &BackupInfo,
        _p: &[u8],
        _rec: bool,
        _f: &mut dyn FnMut(&Entry) -> Result<()>,
    ) -> Result<()> {
        Ok(())
    }
    pub(crate) async fn find(
        _r: &Repository,
        _p: &str,
        _b: &[BackupInfo],
        _f: &mut dyn FnMut(&BackupInfo, &Entry),
    ) -> Result<()> {
        Ok(())
    }
    pub(crate) async fn diff(
        _r: &Repository,
        _a: &BackupInfo,
        _b: &BackupInfo,
        _f: &mut dyn FnMut(Difference),
    ) -> Result<()> {
        Ok(())
    }
    pub(crate) async fn stats(_r: &Repository) -> Result<Stats> {
        Ok(Stats::default())
    }
}
