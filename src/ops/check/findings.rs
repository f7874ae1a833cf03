//! Findings: what is wrong with what, whom it touches, and what heals it.

use super::CheckReport;
use crate::id::ObjectHash;

/// Findings kept.
const FINDINGS_MOST: usize = 1000;
/// Touched files kept with a finding.
pub(super) const TOUCHES_MOST: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing is wrong: something to know of.
    Note,
    /// Something is damaged, but nothing is lost with it.
    Warning,
    /// Something is lost, or may be.
    Error,
}

/// A file that a damage touches.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Touched {
    /// In which backup.
    pub backup: ObjectHash,
    /// Which file, as people can read it; in parentheses what is not one file.
    pub path: String,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// With what.
    pub object: String,
    /// What.
    pub what: String,
    /// Files that cannot be restored whole because of it, at most a hundred.
    pub touches: Vec<Touched>,
    /// How many there are.
    pub touched_count: u64,
    /// What heals it.
    pub heal: String,
}

impl Finding {
    pub(super) fn new(severity: Severity, object: impl Into<String>, what: impl Into<String>, heal: &str) -> Self {
        Self {
            severity,
            object: object.into(),
            what: what.into(),
            touches: Vec::new(),
            touched_count: 0,
            heal: heal.to_owned(),
        }
    }

    #[must_use]
    pub(super) fn touching(mut self, touches: Touches) -> Self {
        self.touches = touches.files;
        self.touched_count = touches.count;
        self
    }
}

/// The files that one damage touches.
#[derive(Clone, Debug, Default)]
pub(super) struct Touches {
    pub(super) files: Vec<Touched>,
    pub(super) count: u64,
}

impl Touches {
    pub(super) fn add(&mut self, backup: ObjectHash, path: &str) {
        self.count += 1;
        if self.files.len() < TOUCHES_MOST {
            self.files.push(Touched { backup, path: path.to_owned() });
        }
    }
}

/// All findings so far; the worst are kept.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    count: u64,
    missing: bool,
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.count += 1;
        if self.kept.len() < FINDINGS_MOST {
            self.kept.push(finding);
        } else if let Some(mild) = self.kept.iter_mut().rfind(|kept| kept.severity < finding.severity) {
            *mild = finding;
        }
    }

    /// Adds one that may be only because the log moved on.
    pub(super) fn add_missing(&mut self, finding: Finding) {
        self.missing = true;
        self.add(finding);
    }

    pub(super) fn has_missing(&self) -> bool {
        self.missing
    }

    pub(super) fn append(&mut self, other: Self) {
        let dropped = other.count - other.kept.len() as u64;
        other.kept.into_iter().for_each(|finding| self.add(finding));
        self.count += dropped;
    }

    pub(super) fn finish(mut self, report: &mut CheckReport) {
        self.kept.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        report.findings = self.kept;
        report.finding_count = self.count;
    }
}

/// Advice that several findings give.
pub(super) mod heal {
    pub(in super::super) const CONFIG: &str =
        "`everpack repair --from COPY` brings `config` back from a copy of this repository";
    pub(in super::super) const LOG_ENTRY: &str = "`everpack repair --from COPY` brings the entry back from a copy of this repository; until \
         then nothing can be written safely";
    pub(in super::super) const STATE: &str = "`everpack repair` replaces it: the log says the same";
    pub(in super::super) const NONE: &str = "nothing need be done";
    pub(in super::super) const LEDGER: &str =
        "nothing need be done: its packs count as not read; `everpack repair` takes it out of use";
    pub(in super::super) const FRAGMENT: &str =
        "`everpack repair` builds it anew from the tables of its packs; until then its chunks are found through them";
    pub(in super::super) const MANIFEST: &str = "`everpack repair --from REPLICA` fetches it; without a replica, the next `everpack backup` of \
         this source makes a whole backup again";
    pub(in super::super) const MISSING_PACK: &str = "`everpack repair --from REPLICA` fetches it; without a replica, the next `everpack backup` of \
         these sources stores again what they still have";
    pub(in super::super) const DAMAGED_PACK: &str = "`everpack repair --from REPLICA` fetches a good one; without a replica, `everpack repair` saves \
         its whole chunks, and the next `everpack backup` of these sources stores again what they still have of the others";
    pub(in super::super) const SPARED_PACK: &str = "nothing is lost; `everpack repair` takes it out of use";
    pub(in super::super) const MISSING_CHUNK: &str = "`everpack repair --from REPLICA` fetches them; without a replica, the next `everpack \
         backup` of these sources stores again what they still have";
    pub(in super::super) const SEGMENT: &str = "`everpack repair --from REPLICA` fetches it; without a replica, `everpack backup` of the source \
         stores its list of files anew: that heals the backups from then on";
    pub(in super::super) const HOLE: &str = "back up a tree that has it; to restore this one for a server, `everpack restore --matrixone` says what can be done";
    pub(in super::super) const STRAY: &str = "delete the stray object if you know what it is; everpack ignores it";
    pub(in super::super) const LEFTOVER: &str =
        "nothing need be done: `everpack prune` removes these files (not the objects of that name without `#`)";
    pub(in super::super) const LOST_ENTRY: &str = "look for later log entries in a copy of the repository and bring them back; the packs \
         are never deleted until then";
}
