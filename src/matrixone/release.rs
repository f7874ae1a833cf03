//! Which release a server is, and what that release can do.

use std::fmt;

/// A release of MatrixOne.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number.
    pub patch: u16,
}

impl Release {
    /// A release by its numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Finds the release in what a server calls itself: `8.0.30-MatrixOne-v4.2.0`, `v3.0.6-rc1`, `4.1.4`.
    ///
    /// `None` for nightly builds and other products, whose numbers mean something else.
    pub fn parse(version: &str) -> Option<Self> {
        let own = match version.find("MatrixOne-") {
            Some(at) => &version[at + "MatrixOne-".len()..],
            None if version.contains('-') && !version.starts_with('v') => return None,
            None => version,
        };
        let numbers = own.strip_prefix('v').unwrap_or(own);
        let mut numbers = numbers.split(['.', '-', '+', ' ']);
        let mut next = || numbers.next()?.parse().ok();
        Some(Self { major: next()?, minor: next()?, patch: next().unwrap_or(0) })
    }

    /// `BACKUP` takes TYPE and TIMESTAMP.
    pub fn has_incremental(self) -> bool {
        self >= Self::new(1, 2, 0)
    }

    /// `S3OPTION {'endpoint'='disk', …}` writes raw files into a directory, whatever the backend of SHARED is.
    pub fn has_disk_endpoint(self) -> bool {
        self >= Self::new(2, 0, 0)
    }

    /// Objects named in `tae/file_list` of the target are not copied.
    pub fn has_file_list(self) -> bool {
        self >= Self::new(2, 1, 0)
    }

    /// Objects named in a `file_index_<ts>.idx` in the root of the target are not copied.
    pub fn has_file_index(self) -> bool {
        self >= Self::new(3, 0, 6)
    }

    /// The server keeps garbage collection away while it copies.
    pub fn protects_from_gc(self) -> bool {
        self >= Self::new(3, 0, 5)
    }

    /// A `FILESYSTEM` target is framed only where SHARED is; before, always.
    pub fn target_follows_shared(self) -> bool {
        self >= Self::new(4, 2, 0)
    }

    /// Checkpoints can be followed to the objects that they name.
    pub fn has_known_checkpoints(self) -> bool {
        self >= Self::new(2, 1, 0)
    }

    /// `RESTORE … {SNAPSHOT = s}`; before, `RESTORE … FROM SNAPSHOT s`. No release takes both.
    pub fn has_snapshot_clause(self) -> bool {
        self >= Self::new(4, 0, 0)
    }

    /// `RESTORE ACCOUNT sys … TO ACCOUNT b` from a snapshot of the account writes over `sys` itself.
    pub fn ignores_new_account_of_sys(self) -> bool {
        self >= Self::new(2, 1, 0)
    }

    /// True if a server of this release reads what one of `other` wrote: the same major line, not older.
    pub fn reads(self, other: Self) -> bool {
        self >= other && self.major == other.major
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_tell_their_release() {
        let parse = |text| Release::parse(text).map(|release| release.to_string());
        assert_eq!(parse("8.0.30-MatrixOne-v4.2.0").as_deref(), Some("v4.2.0"));
        assert_eq!(parse("8.0.30-MatrixOne-v4.0.0-rc1").as_deref(), Some("v4.0.0"));
        assert_eq!(parse("8.0.30-MatrixOne-v2.1").as_deref(), Some("v2.1.0"));
        assert_eq!(parse("v3.0.6").as_deref(), Some("v3.0.6"));
        assert_eq!(parse("4.1.4").as_deref(), Some("v4.1.4"));
        for other in ["8.0.30-MatrixOne-", "8.0.30-MatrixOne-nightly-01ae8", "10.11.19-MariaDB-1", "", "v", "x.y.z"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn releases_know_what_they_can_do() {
        assert!(Release::new(3, 0, 6).has_file_index() && !Release::new(3, 0, 5).has_file_index());
        assert!(Release::new(2, 1, 0).has_file_list() && !Release::new(2, 0, 5).has_file_list());
        assert!(Release::new(4, 0, 0).has_snapshot_clause() && !Release::new(3, 0, 18).has_snapshot_clause());
        assert!(
            Release::new(4, 2, 0).reads(Release::new(4, 1, 4)) && !Release::new(4, 1, 4).reads(Release::new(4, 2, 0))
        );
        assert!(!Release::new(4, 2, 0).reads(Release::new(3, 0, 6)));
    }
}
