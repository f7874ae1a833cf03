//! Which entries are wanted: by path (a file, or all below a directory) and by glob.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};
use crate::format::manifest::SegmentRef;
use crate::repo::{Entry, EntryKind, Manifest};

/// The wanted part of a backup.
#[derive(Debug)]
pub(super) struct Selection {
    paths: Vec<Vec<u8>>,
    globs: Option<GlobSet>,
}

impl Selection {
    pub(super) fn new(paths: &[Vec<u8>], globs: &[String]) -> Result<Self> {
        let trim = |path: &Vec<u8>| {
            let path = path.strip_prefix(b"./").unwrap_or(path);
            let path = path.strip_prefix(b"/").unwrap_or(path);
            path.strip_suffix(b"/").unwrap_or(path).to_vec()
        };
        let paths: Vec<_> = paths.iter().map(trim).filter(|path| !path.is_empty() && path != b".").collect();
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            let compiled = GlobBuilder::new(glob).literal_separator(false).build();
            set.add(compiled.map_err(|error| Error::invalid(format!("pattern {glob:?}: {error}")))?);
        }
        let globs = if globs.is_empty() {
            None
        } else {
            Some(set.build().map_err(|error| Error::invalid(format!("patterns: {error}")))?)
        };
        Ok(Self { paths, globs })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.paths.is_empty() && self.globs.is_none()
    }

    /// True if the entry is wanted itself. Directories on the way to a wanted file are made when it is.
    pub(super) fn wants(&self, entry: &Entry) -> bool {
        let by_path = self.paths.is_empty() || self.paths.iter().any(|path| is_at_or_below(&entry.path, path));
        let by_glob = match &self.globs {
            None => true,
            // A pattern asks for files; their directories come with them.
            Some(_) if entry.kind == EntryKind::Directory => false,
            Some(globs) => {
                use std::os::unix::ffi::OsStrExt;
                let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&entry.path));
                globs.is_match(path) || path.file_name().is_some_and(|name| globs.is_match(std::path::Path::new(name)))
            }
        };
        by_path && by_glob
    }

    /// The segments in which something wanted can stand.
    pub(super) fn segments(&self, manifest: &Manifest) -> Vec<SegmentRef> {
        if self.paths.is_empty() {
            return manifest.segments.clone();
        }
        let mut wanted = Vec::new();
        for (at, segment) in manifest.segments.iter().enumerate() {
            let next = manifest.segments.get(at + 1).map(|next| next.first_key.as_slice());
            let overlaps = |path: &Vec<u8>| {
                // Everything below `path` lies between it and `path` + "0" (the byte after '/').
                let mut end = path.clone();
                end.push(b'0');
                segment.first_key.as_slice() <= end.as_slice() && next.is_none_or(|next| next >= path.as_slice())
            };
            if self.paths.iter().any(overlaps) {
                wanted.push(segment.clone());
            }
        }
        wanted
    }
}

fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_selects_itself_and_what_is_below() {
        assert!(is_at_or_below(b"a/b", b"a"));
        assert!(is_at_or_below(b"a", b"a"));
        assert!(!is_at_or_below(b"ab", b"a"));
        let all = Selection::new(&[b"./".to_vec(), b".".to_vec()], &[]).unwrap();
        assert!(all.is_everything());
        assert!(Selection::new(&[], &["[".to_owned()]).is_err());
    }
}
