//! Which names the user does not want: glob patterns over relative paths.
//!
//! A pattern matches at any depth; one that begins with `/` only from the root of the source; one that ends in `/` only
//! directories. `*` and `?` stay within a component, `**` does not. An excluded directory is not entered.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, ErrorKind, Result};

/// Compiled exclude patterns.
pub(crate) struct Excludes {
    all: GlobSet,
    directories: GlobSet,
}

impl Excludes {
    /// None if there is nothing to exclude.
    pub(crate) fn new(patterns: &[String]) -> Result<Option<Self>> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let (mut all, mut directories) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let bad = |source| Error::with_source(ErrorKind::Invalid, format!("exclude {pattern:?}"), source);
            let text = pattern.trim_end_matches('/');
            let glob = match text.strip_prefix('/') {
                Some(anchored) => anchored.to_owned(),
                None => format!("**/{text}"),
            };
            if text.trim_start_matches('/').is_empty() {
                return Err(Error::invalid(format!("exclude {pattern:?}: the pattern names nothing")));
            }
            let glob = GlobBuilder::new(&glob).literal_separator(true).backslash_escape(true).build().map_err(bad)?;
            let set = if pattern.ends_with('/') { &mut directories } else { &mut all };
            set.add(glob);
        }
        let bad = |source| Error::with_source(ErrorKind::Invalid, "exclude patterns", source);
        Ok(Some(Self { all: all.build().map_err(bad)?, directories: directories.build().map_err(bad)? }))
    }

    pub(crate) fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        self.all.is_match(path) || is_directory && self.directories.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(pattern: &str) -> Excludes {
        Excludes::new(&[pattern.to_owned()]).unwrap().unwrap()
    }

    #[test]
    fn patterns_match_at_any_depth_unless_anchored() {
        assert!(excludes("*.log").matches(b"a/b/x.log", false));
        assert!(excludes("*.log").matches(b"x.log", false));
        assert!(!excludes("*.log").matches(b"x.log/y", false));
        assert!(excludes("/a/*").matches(b"a/b", false));
        assert!(!excludes("/a/*").matches(b"c/a/b", false));
        assert!(!excludes("/a/*").matches(b"a/b/c", false));
        assert!(excludes("b/c").matches(b"a/b/c", false));
        assert!(excludes("a/**/c").matches(b"a/b/b/c", false));
        assert!(excludes("etl/").matches(b"a/etl", true));
        assert!(!excludes("etl/").matches(b"a/etl", false));
        assert!(excludes("*.x").matches(b"a/\xff.x", false));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        for pattern in ["a[", "/", ""] {
            let error = Excludes::new(&[pattern.to_owned()]).err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains(&format!("{pattern:?}")), "{error}");
        }
        assert!(Excludes::new(&[]).unwrap().is_none());
    }
}
