//! Backups that were forgotten and whose manifest is still there: they may come back, if every chunk of them is still live.

use super::{BackupInfo, Repository};
use crate::error::{Error, ErrorKind, Result};

impl Repository {
    /// The forgotten backups that were not pruned, oldest commit first. Whether one can come back shows only when it is tried.
    pub fn forgotten(&self) -> Vec<BackupInfo> {
        let state = self.state();
        let forgotten = state.backups.values().filter(|backup| backup.forgotten.is_some());
        let mut forgotten: Vec<_> = forgotten.map(BackupInfo::from).collect();
        forgotten.sort_by_key(|backup| (backup.entry, backup.id));
        forgotten
    }

    /// A backup, forgotten or not, by id or by a unique prefix of one; `latest` means what is listed.
    pub fn find_any_backup(&self, spec: &str) -> Result<BackupInfo> {
        if spec.starts_with("latest") {
            return self.find_backup(spec);
        }
        let mut all = self.backups();
        all.extend(self.forgotten());
        if let Some(found) = pick(&all, spec)? {
            return Ok(found.clone());
        }
        let prefix = spec.to_ascii_lowercase();
        let purged = self.state().purged.iter().find(|id| id.to_string().starts_with(&prefix)).copied();
        let message = match purged {
            Some(id) => format!("backup {id}: it was forgotten and pruned; it cannot come back"),
            None => format!(
                "backup {spec:?}: there is none of that id; `everpack list` shows what there is, `everpack list --forgotten` the forgotten ones"
            ),
        };
        Err(Error::new(ErrorKind::NotFound, message))
    }
}

/// The one backup whose id begins so.
pub(super) fn pick<'a>(backups: &'a [BackupInfo], spec: &str) -> Result<Option<&'a BackupInfo>> {
    let prefix = spec.to_ascii_lowercase();
    if prefix.len() < 4 || !prefix.bytes().all(|c| c.is_ascii_hexdigit()) {
        let message = format!("backup {spec:?}: give `latest`, an id, or at least four hexadecimal digits of one");
        return Err(Error::invalid(message));
    }
    let mut found = backups.iter().filter(|backup| backup.id.to_string().starts_with(&prefix));
    match (found.next(), found.next()) {
        (Some(a), Some(b)) => {
            let message = format!("backup {spec:?}: fits more than one ({} and {}); give more digits", a.id, b.id);
            Err(Error::invalid(message))
        }
        (one, _) => Ok(one),
    }
}
