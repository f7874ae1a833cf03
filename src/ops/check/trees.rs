//! Does a server start from the MatrixOne trees that backups hold?
//!
//! Every byte of such a backup can be what was written, and still a server may not start from it: then it is the BACKUP that left something out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::findings::{Finding, Findings, Touches, heal};
use super::{CheckOptions, CheckReport, Severity, Structure};
use crate::ops::closure::holes;
use crate::progress::Monitor;
use crate::repo::{BackupInfo, Repository};

/// Follows the checkpoints of the backups that were named; else of the newest of each lineage, since each backup was followed when it was made.
pub(super) async fn find_holes(
    repository: &Repository,
    structure: &Structure,
    options: &CheckOptions,
    findings: &mut Findings,
    report: &mut CheckReport,
    monitor: &Arc<dyn Monitor>,
) {
    let newest = || {
        let lineages = structure.backups.iter().map(|backup| (backup.summary.lineage, backup));
        lineages.collect::<BTreeMap<_, &BackupInfo>>().into_values().collect()
    };
    let chosen: Vec<&BackupInfo> =
        if options.backups.is_empty() { newest() } else { structure.backups.iter().collect() };
    for backup in chosen {
        if monitor.cancelled() {
            return;
        }
        match holes(repository, &structure.index, &backup.id).await {
            Ok(holes) => {
                for hole in holes {
                    let mut touches = Touches::default();
                    touches.add(backup.id, &hole.path);
                    findings
                        .add(Finding::new(Severity::Warning, hole.path, hole.message, heal::HOLE).touching(touches));
                }
            }
            // What cannot be read is a finding of its own already.
            Err(error) if error.is_damage() => {}
            Err(error) => report
                .remarks
                .push(format!("whether a server starts from backup {} could not be found out: {error}", backup.id)),
        }
    }
}
