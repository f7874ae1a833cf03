//! Which paths a restore may write, and the temporary names beside them.
//!
//! Paths come from a manifest and are hostile until [`check_path`] has seen them.

use crate::error::{Error, Result};
use crate::id::to_hex;
use crate::source::display_path;

/// Longest file name that common file systems take.
const NAME_MAX: usize = 255;

/// Longer paths cannot have come from a file system that people use.
const PATH_MAX: usize = 32 << 10;

const PART_PREFIX: &[u8] = b".everpack-";
const PART_SUFFIX: &[u8] = b".part";
const PART_DIGITS: usize = 32;

/// Refuses what is not a plain relative path: absolute, empty, with `.`, `..`, NUL or names that are too long.
pub(crate) fn check_path(path: &[u8]) -> Result<()> {
    let refuse = |why: &str| Err(Error::corrupt(format!("restore {}: {why}", display_path(path))));
    if path.is_empty() {
        return refuse("the path is empty");
    }
    if path.len() > PATH_MAX {
        return refuse("the path is too long");
    }
    if path.contains(&0) {
        return refuse("the path has a NUL byte");
    }
    if path[0] == b'/' {
        return refuse("the path is absolute");
    }
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" => return refuse("the path has an empty component"),
            b"." | b".." => return refuse("the path has a '.' or '..'"),
            component if component.len() > NAME_MAX => return refuse("a name in the path is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// The directory and the name of a checked path; the directory of the root is empty.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Where a file lies until it is complete: in the same directory, the same at every run, and short whatever the name.
///
/// 128 bits of a hash of the name keep the temporaries of a directory apart.
pub(super) fn part_name(name: &[u8]) -> Vec<u8> {
    let hash = crate::codec::object_hash(name);
    let digits = to_hex(&hash.as_bytes()[..PART_DIGITS / 2]);
    [PART_PREFIX, digits.as_bytes(), PART_SUFFIX].concat()
}

/// True if a name can be one of ours.
pub(super) fn is_part_name(name: &[u8]) -> bool {
    let digits = name.strip_prefix(PART_PREFIX).and_then(|rest| rest.strip_suffix(PART_SUFFIX));
    digits.is_some_and(|digits| {
        digits.len() == PART_DIGITS && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_pass() {
        let long_name = [b'n'; 256];
        let long_path = b"abc/".repeat(10_000);
        let bad: [&[u8]; 14] = [
            b"", b"/", b"/a", b"..", b".", b"a/..", b"../a", b"a/../b", b"a//b", b"a/", b"a/./b", b"a\0b", &long_name,
            &long_path,
        ];
        for path in bad {
            assert!(check_path(path).is_err(), "{}", path.escape_ascii());
        }
        for path in [&b"a"[..], b"a/b", b"...", b"a/..b", b"\xff\n", b"a b", &long_name[..255]] {
            assert!(check_path(path).is_ok(), "{}", path.escape_ascii());
        }
    }

    #[test]
    fn temporary_names_are_short_stable_and_recognised() {
        let name = part_name(&[b'n'; 255]);
        assert_eq!(name, part_name(&[b'n'; 255]));
        assert_ne!(name, part_name(&[b'n'; 254]));
        assert!(name.len() < 64 && is_part_name(&name));
        for other in [&b".everpack-12.part"[..], b".everpack-.part", b"x.part", &name[1..], &name[..name.len() - 1]] {
            assert!(!is_part_name(other));
        }
    }
}
