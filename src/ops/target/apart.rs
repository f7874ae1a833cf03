//! A restore never writes where the repository is: not into it, and not above it, where it could remove it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::source::display_path;

/// Refuses a directory that is, holds or lies in the repository's own. By device and inode: links and bind mounts lead there too.
pub(crate) fn keep_apart(repository: Option<&Path>, dir: &Path) -> Result<()> {
    let Some(repository) = repository else { return Ok(()) };
    let Some((repository_node, above_repository)) = nodes(repository) else { return Ok(()) };
    // Of a directory that is not there yet, the nearest one above tells where it will be.
    let Ok(absolute) = std::path::absolute(dir) else { return Ok(()) };
    let Some(existing) = absolute.ancestors().find(|path| path.exists()) else { return Ok(()) };
    let Some((node, above)) = nodes(existing) else { return Ok(()) };
    let relation = if node == repository_node || above.contains(&repository_node) {
        "it lies in the repository"
    } else if existing == absolute && above_repository.contains(&node) {
        "the repository lies in it"
    } else {
        return Ok(());
    };
    use std::os::unix::ffi::OsStrExt;
    let name = |path: &Path| display_path(path.as_os_str().as_bytes());
    Err(Error::invalid(format!("restore into {}: {relation}, {}; name another directory", name(dir), name(repository))))
}

type Node = (u64, u64);

/// Device and inode of a directory, and of all above it.
fn nodes(path: &Path) -> Option<(Node, Vec<Node>)> {
    let canonical: PathBuf = path.canonicalize().ok()?;
    let node = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    Some((node(&canonical)?, canonical.ancestors().skip(1).filter_map(node).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_and_what_is_above_and_below_it_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::create_dir_all(at("outer/repo/packs")).unwrap();
        std::fs::create_dir_all(at("outer/beside")).unwrap();
        std::os::unix::fs::symlink(at("outer"), at("link")).unwrap();
        let repo = at("outer/repo");
        for refused in ["outer/repo", "outer/repo/packs", "outer/repo/new/deep", "outer", "link/repo", "link", "."] {
            let error = keep_apart(Some(&repo), &at(refused)).unwrap_err();
            assert!(error.message().contains("repository"), "{refused}: {error}");
        }
        for fine in ["outer/beside", "outer/new", "new/deep", "outer/repo-2"] {
            keep_apart(Some(&repo), &at(fine)).unwrap();
        }
        keep_apart(None, &repo).unwrap();
    }
}
