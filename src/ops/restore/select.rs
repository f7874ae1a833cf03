//! Which entries are wanted: by path (a file, or all below a directory) and by glob.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};
use crate::format::manifest::SegmentRef;
use crate::repo::{Entry, EntryKind, Manifest};
use crate::source::display_path;

/// The wanted part of a backup; it notes what of it there was.
#[derive(Debug)]
pub(super) struct Selection {
    paths: Vec<Wanted>,
    globs: Option<GlobSet>,
    patterns: Vec<Wanted>,
}

/// One path or pattern that was asked for.
#[derive(Debug)]
struct Wanted {
    name: Vec<u8>,
    found: AtomicBool,
}

impl Wanted {
    fn new(name: Vec<u8>) -> Self {
        Self { name, found: AtomicBool::new(false) }
    }

    /// The same as `is`, noted.
    fn note(&self, is: bool) -> bool {
        if is {
            self.found.store(true, Ordering::Relaxed);
        }
        is
    }
}

impl Selection {
    pub(super) fn new(paths: &[Vec<u8>], globs: &[String]) -> Result<Self> {
        let trim = |path: &Vec<u8>| {
            let path = path.strip_prefix(b"./").unwrap_or(path);
            let path = path.strip_prefix(b"/").unwrap_or(path);
            path.strip_suffix(b"/").unwrap_or(path).to_vec()
        };
        let paths = paths.iter().map(trim).filter(|path| !path.is_empty() && path != b".").map(Wanted::new).collect();
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            let compiled = GlobBuilder::new(glob).literal_separator(false).build();
            set.add(compiled.map_err(|error| Error::invalid(format!("pattern {glob:?}: {error}")))?);
        }
        let patterns = globs.iter().map(|glob| Wanted::new(glob.clone().into_bytes())).collect();
        let globs = if globs.is_empty() {
            None
        } else {
            Some(set.build().map_err(|error| Error::invalid(format!("patterns: {error}")))?)
        };
        Ok(Self { paths, globs, patterns })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.paths.is_empty() && self.globs.is_none()
    }

    /// True if the entry is wanted itself. Directories on the way to a wanted file are made when it is.
    pub(super) fn wants(&self, entry: &Entry) -> bool {
        let is_at = |wanted: &Wanted| wanted.note(is_at_or_below(&entry.path, &wanted.name));
        // A path may lie below another one: each is asked.
        let by_path = self.paths.iter().fold(self.paths.is_empty(), |any, wanted| is_at(wanted) || any);
        by_path
            && match &self.globs {
                None => true,
                // A pattern asks for files; their directories come with them.
                Some(_) if entry.kind == EntryKind::Directory => false,
                Some(globs) => {
                    let path = Path::new(OsStr::from_bytes(&entry.path));
                    self.matches(globs, path)
                        | path.file_name().is_some_and(|name| self.matches(globs, Path::new(name)))
                }
            }
    }

    fn matches(&self, globs: &GlobSet, path: &Path) -> bool {
        let matching = globs.matches(path);
        matching.iter().for_each(|at| _ = self.patterns[*at].note(true));
        !matching.is_empty()
    }

    /// The paths and patterns that no entry so far was of.
    pub(super) fn not_found(&self) -> Vec<String> {
        let missing = self.paths.iter().chain(&self.patterns).filter(|wanted| !wanted.found.load(Ordering::Relaxed));
        missing.map(|wanted| display_path(&wanted.name)).collect()
    }

    /// The segments in which something wanted can stand.
    pub(super) fn segments(&self, manifest: &Manifest) -> Vec<SegmentRef> {
        if self.paths.is_empty() {
            return manifest.segments.clone();
        }
        let mut wanted = Vec::new();
        for (at, segment) in manifest.segments.iter().enumerate() {
            let next = manifest.segments.get(at + 1).map(|next| next.first_key.as_slice());
            let overlaps = |wanted: &Wanted| {
                let path = &wanted.name;
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
