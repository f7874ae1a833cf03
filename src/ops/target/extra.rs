//! What a target holds beyond the backup: listed first, removed only by a plan that was shown.

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::path::{is_part_name, split};
use super::{Target, check_path, lock};
use crate::error::Result;
use crate::source::EntryKind;

const BATCH: usize = 4096;

/// Files, links and directories of the target that the backup does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtraPlan {
    /// In path order; directories end in `/`.
    pub(crate) paths: Vec<Vec<u8>>,
}

impl Target {
    /// Compares the target with the sort keys of a backup (paths in order, directories ending in `/`).
    ///
    /// Directories above an expected path are expected too. Sockets, pipes and devices, what is mounted below the target
    /// and our own temporaries are never extra.
    pub(crate) fn plan_extra(&self, expected: &mut dyn Iterator<Item = Result<Vec<u8>>>) -> Result<ExtraPlan> {
        let mut walker = self.walk()?;
        let mut plan = ExtraPlan::default();
        let mut next = expected.next().transpose()?;
        loop {
            let entries = walker.next_batch(BATCH)?;
            if entries.is_empty() {
                return Ok(plan);
            }
            for entry in entries {
                let is_directory = entry.kind == EntryKind::Directory;
                let mut key = entry.path;
                if is_directory {
                    key.push(b'/');
                }
                while next.as_ref().is_some_and(|next| *next < key) {
                    next = expected.next().transpose()?;
                }
                let wanted = next.as_ref().is_some_and(|next| *next == key || is_directory && next.starts_with(&key));
                if !wanted && !is_part_name(split(&key).1) {
                    plan.paths.push(key);
                }
            }
        }
    }

    /// Removes what was planned, the deepest first. Returns what is still there because it is not empty.
    pub(crate) fn remove_extra(&self, plan: &ExtraPlan) -> Result<Vec<Vec<u8>>> {
        let mut kept = Vec::new();
        for key in plan.paths.iter().rev() {
            let (path, flags) = match key.strip_suffix(b"/") {
                Some(path) => (path, AtFlags::REMOVEDIR),
                None => (key.as_slice(), AtFlags::empty()),
            };
            check_path(path)?;
            let Some((directory, name)) = self.shared.existing_parent(path)? else { continue };
            match rustix::fs::unlinkat(&directory.fd, name, flags) {
                Ok(()) => {
                    // Nothing may be written through a descriptor of a directory that is gone.
                    lock(&self.shared.open).retain(|directory| directory.path != path);
                    let mut touched = lock(&self.shared.touched);
                    touched.forget(path);
                    touched.add(&directory);
                }
                Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => kept.push(key.clone()),
                Err(error) => return Err(self.shared.error("remove", path, error)),
            }
        }
        Ok(kept)
    }
}
