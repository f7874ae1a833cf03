//! Names of MatrixOne's files: table objects, checkpoint files, garbage-collection files.
//!
//! A table object is named by 42 characters, a UUIDv7 and a number; the name says what the file holds for ever, except
//! that BACKUP writes objects of its own under numbers from 1000 and writes them anew each time. Checkpoint and
//! garbage-collection files carry a time range in the name, and the folder (`ckp`, `gc`) belongs to it.
//! Parsing is strict: a name is known or it is not, and what is known prints back as it was.

use std::fmt;

/// The name of a table object: `018f7a41-1881-7999-bbd6-858c3d4acc18_00000`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaeName {
    /// UUIDv7 of the segment.
    pub segment: [u8; 16],
    /// Number within the segment.
    pub num: u16,
}

/// Numbers from here on are given by BACKUP to objects it makes itself.
const FIRST_REWRITTEN: u16 = 1000;

impl TaeName {
    /// Length of a name in characters.
    pub const LEN: usize = 42;

    /// Reads a file name; `None` if it is not exactly that of a table object.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let (uuid, number) = name.split_at_checked(36)?;
        let (b'_', number) = number.split_first()? else { return None };
        if number.len() != 5 {
            return None;
        }
        let mut segment = [0; 16];
        let mut at = 0;
        for (i, byte) in segment.iter_mut().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                if uuid[at] != b'-' {
                    return None;
                }
                at += 1;
            }
            *byte = hex_digit(uuid[at])? << 4 | hex_digit(uuid[at + 1])?;
            at += 2;
        }
        let is_v7 = segment[6] >> 4 == 7 && segment[8] >> 6 == 0b10;
        let num = u16::try_from(decimal(number)?).ok()?;
        is_v7.then_some(Self { segment, num })
    }

    /// From the 18 bytes that stand for it inside objects.
    pub fn from_id(id: &[u8; 18]) -> Self {
        let mut segment = [0; 16];
        segment.copy_from_slice(&id[..16]);
        Self { segment, num: u16::from_le_bytes([id[16], id[17]]) }
    }

    /// The 18 bytes that stand for it inside objects.
    pub fn to_id(self) -> [u8; 18] {
        let mut id = [0; 18];
        id[..16].copy_from_slice(&self.segment);
        id[16..].copy_from_slice(&self.num.to_le_bytes());
        id
    }

    /// True if this name never stands for other bytes. BACKUP writes `_01000` and above anew each time.
    pub fn is_content_stable(&self) -> bool {
        self.num < FIRST_REWRITTEN
    }

    /// When the segment was named, in Unix milliseconds by the server's clock.
    pub fn created_ms(&self) -> u64 {
        self.segment[..6].iter().fold(0, |ms, &byte| ms << 8 | u64::from(byte))
    }
}

impl fmt::Display for TaeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.segment.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        write!(f, "_{:05}", self.num)
    }
}

impl fmt::Debug for TaeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for TaeName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A MatrixOne timestamp: `1739866101719036581-0`. Ordered by physical, then logical part.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ts {
    /// Unix nanoseconds.
    pub physical: i64,
    /// Counter within the nanosecond.
    pub logical: u32,
}

impl Ts {
    /// `0-0`: the beginning, and "not deleted".
    pub const ZERO: Self = Self { physical: 0, logical: 0 };
    /// Length as stored inside objects.
    pub const LEN: usize = 12;

    /// Reads `physical-logical`, decimal, without signs or leading zeros.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|&c| c == b'-')?;
        let (physical, logical) = (canonical(&text[..dash])?, canonical(&text[dash + 1..])?);
        Some(Self { physical: i64::try_from(physical).ok()?, logical: u32::try_from(logical).ok()? })
    }

    /// From the 12 bytes stored inside objects.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let [l0, l1, l2, l3, p @ ..] = bytes;
        Self { physical: i64::from_le_bytes(p), logical: u32::from_le_bytes([l0, l1, l2, l3]) }
    }

    /// True for `0-0`.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.physical, self.logical)
    }
}

impl fmt::Debug for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Ts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a file in `ckp/` or `gc/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetaKind {
    /// `ckp/meta_*.ckp`: a list of checkpoints.
    Checkpoint,
    /// `ckp/meta_*.cpt`: a compacted checkpoint.
    CompactedCheckpoint,
    /// `gc/gc_*.ckp`: a window of garbage collection.
    Gc,
    /// `gc/snap_*.snap`: what SQL snapshots hold on to.
    Snapshot,
    /// `gc/acct_*.acct`: accounts and their tables.
    Account,
}

impl MetaKind {
    const ALL: [Self; 5] = [Self::Checkpoint, Self::CompactedCheckpoint, Self::Gc, Self::Snapshot, Self::Account];

    /// Folder, first part of the name, extension.
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Checkpoint => ("ckp", "meta", "ckp"),
            Self::CompactedCheckpoint => ("ckp", "meta", "cpt"),
            Self::Gc => ("gc", "gc", "ckp"),
            Self::Snapshot => ("gc", "snap", "snap"),
            Self::Account => ("gc", "acct", "acct"),
        }
    }
}

/// The name of a file in `ckp/` or `gc/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetaName {
    /// What it is.
    pub kind: MetaKind,
    /// Where its time range starts; `0-0` for one that starts from a global checkpoint.
    pub start: Ts,
    /// Where its time range ends.
    pub end: Ts,
}

impl MetaName {
    /// Reads a folder name and a file name: `ckp`, `meta_0-0_1739866101719036581-0.ckp`.
    pub fn parse(folder: &[u8], name: &[u8]) -> Option<Self> {
        let (stem, extension) = split_once(name, b'.')?;
        let (prefix, range) = split_once(stem, b'_')?;
        let (start, end) = split_once(range, b'_')?;
        let kind = MetaKind::ALL.into_iter().find(|kind| {
            let (a, b, c) = kind.parts();
            folder == a.as_bytes() && prefix == b.as_bytes() && extension == c.as_bytes()
        })?;
        Some(Self { kind, start: Ts::parse(start)?, end: Ts::parse(end)? })
    }
}

impl fmt::Display for MetaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (folder, prefix, extension) = self.kind.parts();
        write!(f, "{folder}/{prefix}_{}_{}.{extension}", self.start, self.end)
    }
}

impl serde::Serialize for MetaName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a file is, judged by its path alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileClass {
    /// A table object, or one that checkpoints and garbage collection keep beside them.
    Object(TaeName),
    /// A file of `ckp/`.
    CheckpointMeta(MetaName),
    /// A file of `gc/`.
    GcMeta(MetaName),
    /// Anything else.
    Other,
}

/// Judges a path by its last one or two components, whatever lies before them.
pub fn classify(path: &[u8]) -> FileClass {
    let mut parts = path.rsplit(|&c| c == b'/');
    let name = parts.next().unwrap_or_default();
    if let Some(name) = TaeName::parse(name) {
        return FileClass::Object(name);
    }
    match parts.next().and_then(|folder| MetaName::parse(folder, name)) {
        Some(name) => match name.kind {
            MetaKind::Checkpoint | MetaKind::CompactedCheckpoint => FileClass::CheckpointMeta(name),
            MetaKind::Gc | MetaKind::Snapshot | MetaKind::Account => FileClass::GcMeta(name),
        },
        None => FileClass::Other,
    }
}

fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&c| c == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Decimal digits without sign or leading zeros.
fn canonical(text: &[u8]) -> Option<u64> {
    if text.len() > 1 && text[0] == b'0' {
        return None;
    }
    decimal(text)
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &c| {
        let digit = c.is_ascii_digit().then(|| u64::from(c - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn hex_digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"018f7a41-1881-7999-bbd6-858c3d4acc18_00000";

    #[test]
    fn object_names_go_both_ways() {
        let name = TaeName::parse(NAME).unwrap();
        assert_eq!(name.to_string().as_bytes(), NAME);
        assert_eq!(name.created_ms(), 0x018f_7a41_1881);
        assert_eq!(TaeName::from_id(&name.to_id()), name);
        assert!(name.is_content_stable());
        assert!(TaeName::parse(b"018f7a41-1881-7999-bbd6-858c3d4acc18_00999").unwrap().is_content_stable());
        assert!(!TaeName::parse(b"018f7a41-1881-7999-bbd6-858c3d4acc18_01000").unwrap().is_content_stable());
    }

    #[test]
    fn object_names_are_strict() {
        for bad in [
            "",
            "018f7a41-1881-7999-bbd6-858c3d4acc18",
            "018f7a41-1881-7999-bbd6-858c3d4acc18_",
            "018f7a41-1881-7999-bbd6-858c3d4acc18_0000",
            "018f7a41-1881-7999-bbd6-858c3d4acc18_000000",
            "018f7a41-1881-7999-bbd6-858c3d4acc18_65536",
            "018f7a41-1881-7999-bbd6-858c3d4acc18_+0000",
            "018F7a41-1881-7999-bbd6-858c3d4acc18_00000",
            "018f7a41-1881-4999-bbd6-858c3d4acc18_00000",
            "018f7a41-1881-7999-cbd6-858c3d4acc18_00000",
            "018f7a41a1881-7999-bbd6-858c3d4acc18_00000",
            "018f7a41-1881-7999-bbd6-858c3d4acc18-00000",
            "018f7a41-1881-7999-bbd6-858c3d4acc18_00000 ",
        ] {
            assert_eq!(TaeName::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn timestamps_are_ordered_and_canonical() {
        let ts = |text: &str| Ts::parse(text.as_bytes());
        assert_eq!(ts("1739866101719036581-7").unwrap().to_string(), "1739866101719036581-7");
        assert!(ts("2-0") < ts("2-1") && ts("2-9") < ts("10-0"));
        assert_eq!(ts("0-0"), Some(Ts::ZERO));
        for bad in ["", "-", "1", "1-", "-1", "1-1-1", "01-0", "1-00", "9223372036854775808-0", "1-4294967296", "+1-0"]
        {
            assert_eq!(ts(bad), None, "{bad}");
        }
        let mut bytes = [0; 12];
        bytes[0] = 3;
        bytes[4] = 9;
        assert_eq!(Ts::from_bytes(bytes), Ts { physical: 9, logical: 3 });
    }

    #[test]
    fn paths_are_judged_by_their_end() {
        let object = TaeName::parse(NAME).unwrap();
        for prefix in ["", "tae/", "mo-data/shared2/", "/"] {
            let path = [prefix.as_bytes(), NAME].concat();
            assert_eq!(classify(&path), FileClass::Object(object));
        }
        for text in ["ckp/meta_0-0_1739866101719036581-0.ckp", "ckp/meta_1-1_2-0.cpt"] {
            let FileClass::CheckpointMeta(name) = classify(format!("tae/{text}").as_bytes()) else { panic!("{text}") };
            assert_eq!(name.to_string(), text);
        }
        for text in ["gc/gc_1-0_2-0.ckp", "gc/snap_1-0_2-0.snap", "gc/acct_1-0_2-0.acct"] {
            let FileClass::GcMeta(name) = classify(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(name.to_string(), text);
        }
        for text in [
            "",
            "meta_0-0_1-0.ckp",
            "gc/meta_0-0_1-0.ckp",
            "ckp/gc_0-0_1-0.ckp",
            "ckp/meta_0-0_1-0.ckp.tmp",
            "ckp/meta_0-0_1-0_2-0.ckp",
            "ckp/meta_0-0.ckp",
            "tae/tae_list",
            "ckp/",
        ] {
            assert_eq!(classify(text.as_bytes()), FileClass::Other, "{text}");
        }
    }
}
