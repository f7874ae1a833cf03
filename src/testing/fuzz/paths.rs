//! Targets of text that people and manifests give: where a restore writes, sizes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::accepted;
use crate::ops::target::check_path;
use crate::units;

/// No path that is taken leads out of the target, or names anything but a file below it.
pub fn restore_path(path: &[u8]) -> bool {
    let taken = accepted(check_path(path)).is_some();
    let root = Path::new("/target");
    let below = Path::new(OsStr::from_bytes(path));
    let components: Vec<_> = below.components().collect();
    let plain = components.iter().all(|part| matches!(part, Component::Normal(name) if name.len() <= 255));
    // `components` passes over `//`, `/./` and a `/` at the end: what is spelled so has another canonical form.
    let canonical = components.iter().map(|part| part.as_os_str().as_bytes()).collect::<Vec<_>>().join(&b'/') == path;
    let clean = plain && canonical && !path.is_empty() && !path.contains(&0) && path.len() <= 32 << 10;
    assert_eq!(taken, clean, "{}", path.escape_ascii());
    if taken {
        let joined = root.join(below);
        assert!(joined.starts_with(root) && joined.components().count() == 2 + components.len());
    }
    taken
}

/// Sizes as people write them; and whatever number the bytes are, written and read again.
pub fn parse_bytes(text: &[u8]) -> bool {
    if let Some(number) = text.first_chunk::<8>() {
        let number = u64::from_le_bytes(*number);
        assert_eq!(units::parse_bytes(&number.to_string()), Some(number));
        let shown = units::bytes(number);
        assert!(shown.len() <= 10, "{shown}");
        if number < 1 << 59 {
            let read = units::parse_bytes(&shown).unwrap_or_else(|| panic!("{shown} is not read"));
            assert!(read.abs_diff(number) <= number / 16, "{number} is shown as {shown}");
        }
        assert!(
            !units::count(number).is_empty() && !units::duration(std::time::Duration::from_nanos(number)).is_empty()
        );
    }
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let Some(count) = units::parse_bytes(text) else { return false };
    assert_eq!(units::parse_bytes(&format!(" {text} ")), Some(count), "blanks around it do not matter");
    assert_eq!(units::parse_bytes(&text.to_uppercase()), Some(count), "nor does case: {text:?}");
    true
}
