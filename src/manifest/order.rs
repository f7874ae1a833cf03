//! The one order of entries: path bytes, a directory counted as `name/`. So a directory stands before what is in it, and everything in it
//! stands together.

use std::cmp::Ordering;

/// Compares two paths, each with the word whether it is a directory. No path ends in `/`.
pub(crate) fn compare(a: &[u8], a_is_directory: bool, b: &[u8], b_is_directory: bool) -> Ordering {
    let common = a.len().min(b.len());
    match a[..common].cmp(&b[..common]) {
        Ordering::Equal => {}
        decided => return decided,
    }
    let next = |path: &[u8], is_directory: bool| match path.get(common) {
        Some(byte) => Some(*byte),
        None => is_directory.then_some(b'/'),
    };
    match (next(a, a_is_directory), next(b, b_is_directory)) {
        // Both go on after a common part only where one is `x/` as a directory and the other `x/…` as a path below it.
        (Some(x), Some(y)) if x == y => a.len().cmp(&b.len()),
        (x, y) => x.cmp(&y),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(path: &[u8], is_directory: bool) -> Vec<u8> {
        let mut key = path.to_vec();
        if is_directory {
            key.push(b'/');
        }
        key
    }

    #[test]
    fn a_directory_sorts_as_if_it_ended_in_a_slash() {
        assert_eq!(compare(b"a", true, b"a-b", false), Ordering::Greater);
        assert_eq!(compare(b"a", false, b"a-b", false), Ordering::Less);
        assert_eq!(compare(b"a", true, b"a/b", false), Ordering::Less);
        assert_eq!(compare(b"a", true, b"a", true), Ordering::Equal);
        assert_eq!(compare(b"a", false, b"a", true), Ordering::Less);
        assert_eq!(compare(b"a0", false, b"a", true), Ordering::Greater);
    }

    proptest! {
        #[test]
        fn it_is_the_order_of_the_keys(a in "[ab/.0]{0,4}[ab.0]", a_dir: bool, b in "[ab/.0]{0,4}[ab.0]", b_dir: bool) {
            let expected = key(a.as_bytes(), a_dir).cmp(&key(b.as_bytes(), b_dir));
            prop_assert_eq!(compare(a.as_bytes(), a_dir, b.as_bytes(), b_dir), expected);
        }
    }
}
