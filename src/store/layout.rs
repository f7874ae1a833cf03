//! Where objects lie: the only place that builds and parses object paths.
//!
//! ```text
//! config                              log/<number, 20 digits>             log-state/<number, 20 digits>-<hash>
//! packs/<aa>/<hash>-<session>         meta/<aa>/<hash>-<session>          index/<hash>-<session>
//! manifests/<hash>-<session>          parity/<hash>-<session>             scrub/<hash>-<session>
//! keys/<slot>                         probe/<token>                       lock                ballast
//! ```
//!
//! `<aa>` is the first byte of the hash, so that no directory grows without bound. Hashes have 64 lower-case hex digits,
//! sessions 16. Every path is shorter than [`PATH_LEN_MAX`], because some S3 servers refuse long keys. Parsing is strict:
//! a path that these functions would not have built is [`StoredObject::Unknown`].

use std::fmt;

use object_store::path::Path;

use crate::error::{Error, Result};
use crate::id::{ObjectHash, ObjectKind, ObjectName, SessionId, Token};

/// No path of a stored object is as long as this, in bytes.
pub const PATH_LEN_MAX: usize = 110;

/// Digits of a log number; enough for every `u64`, so that names sort as numbers do.
const NUMBER_LEN: usize = 20;

/// The name of a key slot: 1 to 64 lower-case letters, digits and dashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeySlot(String);

impl KeySlot {
    /// Checks the name.
    pub fn new(name: &str) -> Result<Self> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !(1..=64).contains(&name.len()) || !name.bytes().all(allowed) {
            let shown: String = name.chars().take(80).collect();
            return Err(Error::invalid(format!(
                "key slot {shown:?}: need 1 to 64 lower-case letters, digits and dashes"
            )));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an object of a repository is, as its path says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoredObject {
    /// Parameters of the repository, written once.
    Config,
    /// A log entry.
    Log(u64),
    /// The log folded up to entry `n`.
    LogState {
        /// The last entry folded in.
        n: u64,
        /// BLAKE3 of the object itself.
        hash: ObjectHash,
    },
    /// A pack, a fragment, a manifest: anything named by hash and session.
    Named(ObjectName),
    /// A wrapped key.
    Key(KeySlot),
    /// Written by the probe and removed by it.
    Probe(Token),
    /// The advisory lock of a store that cannot be shared.
    Lock,
    /// Given up on a full disk, so that the log entry that frees space can be written.
    Ballast,
    /// What an interrupted write left on a local disk: the path it was meant for, `#`, and a number.
    Leftover(String),
    /// Not one of ours.
    Unknown(String),
}

impl StoredObject {
    /// What lies at `path`. Never fails: what is not ours is `Unknown`.
    pub fn parse(path: &ObjectPath) -> Self {
        let text = path.as_str();
        Self::parse_known(text).unwrap_or_else(|| match leftover_target(text) {
            Some(_) => Self::Leftover(text.to_owned()),
            None => Self::Unknown(text.to_owned()),
        })
    }

    fn parse_known(text: &str) -> Option<Self> {
        let Some((folder, rest)) = text.split_once('/') else {
            return match text {
                "config" => Some(Self::Config),
                "lock" => Some(Self::Lock),
                "ballast" => Some(Self::Ballast),
                _ => None,
            };
        };
        match folder {
            "log" => parse_number(rest).map(Self::Log),
            "log-state" => {
                let (n, hash) = rest.split_once('-')?;
                Some(Self::LogState { n: parse_number(n)?, hash: ObjectHash::from_hex(hash)? })
            }
            "packs" => parse_sharded(ObjectKind::DataPack, rest),
            "meta" => parse_sharded(ObjectKind::MetaPack, rest),
            "index" => parse_named(ObjectKind::Fragment, rest),
            "manifests" => parse_named(ObjectKind::Manifest, rest),
            "parity" => parse_named(ObjectKind::Parity, rest),
            "scrub" => parse_named(ObjectKind::Scrub, rest),
            "keys" => KeySlot::new(rest).ok().map(Self::Key),
            "probe" => Token::from_hex(rest).map(Self::Probe),
            _ => None,
        }
    }

    /// Where it lies.
    pub fn path(&self) -> ObjectPath {
        ObjectPath::from(self)
    }

    /// The session that wrote it, if its name says so. A leftover belongs to the session of the path it was meant for.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Named(name) => Some(name.session),
            Self::Leftover(text) => Self::parse_known(leftover_target(text)?)?.session(),
            _ => None,
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Config => "config".to_owned(),
            Self::Lock => "lock".to_owned(),
            Self::Ballast => "ballast".to_owned(),
            Self::Log(n) => format!("log/{n:0NUMBER_LEN$}"),
            Self::LogState { n, hash } => format!("log-state/{n:0NUMBER_LEN$}-{hash}"),
            Self::Named(name) => named_text(name),
            Self::Key(slot) => format!("keys/{slot}"),
            Self::Probe(token) => format!("probe/{token}"),
            Self::Leftover(text) | Self::Unknown(text) => text.clone(),
        }
    }
}

impl fmt::Display for StoredObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

fn named_text(name: &ObjectName) -> String {
    let ObjectName { kind, hash, session } = name;
    let folder = Folder::of(*kind).name();
    match kind {
        ObjectKind::DataPack | ObjectKind::MetaPack => {
            format!("{folder}/{:02x}/{hash}-{session}", hash.as_bytes()[0])
        }
        ObjectKind::Fragment | ObjectKind::Manifest | ObjectKind::Parity | ObjectKind::Scrub => {
            format!("{folder}/{hash}-{session}")
        }
    }
}

fn parse_number(text: &str) -> Option<u64> {
    let digits = text.len() == NUMBER_LEN && text.bytes().all(|c| c.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn parse_sharded(kind: ObjectKind, rest: &str) -> Option<StoredObject> {
    let (shard, name) = rest.split_once('/')?;
    if shard.len() == 2 && name.starts_with(shard) { parse_named(kind, name) } else { None }
}

fn parse_named(kind: ObjectKind, name: &str) -> Option<StoredObject> {
    let (hash, session) = name.split_once('-')?;
    let hash = ObjectHash::from_hex(hash)?;
    let session = SessionId::from_hex(session)?;
    Some(StoredObject::Named(ObjectName { kind, hash, session }))
}

/// The path that a leftover was meant for: `name#1` → `name`.
pub(crate) fn leftover_target(text: &str) -> Option<&str> {
    let (target, number) = text.rsplit_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
    (is_number && !target.is_empty() && !target.ends_with('/')).then_some(target)
}

/// A part of a repository that can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Folder {
    /// Everything.
    Root,
    /// Log entries.
    Log,
    /// Folded states of the log.
    LogState,
    /// Data packs.
    Packs,
    /// Meta packs.
    Meta,
    /// Index fragments.
    Index,
    /// Manifests.
    Manifests,
    /// Wrapped keys.
    Keys,
    /// Parity groups.
    Parity,
    /// The scrub ledger.
    Scrub,
    /// What a probe left if it was killed.
    Probe,
}

impl Folder {
    /// Where objects of this kind lie.
    pub fn of(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::DataPack => Self::Packs,
            ObjectKind::MetaPack => Self::Meta,
            ObjectKind::Fragment => Self::Index,
            ObjectKind::Manifest => Self::Manifests,
            ObjectKind::Parity => Self::Parity,
            ObjectKind::Scrub => Self::Scrub,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Log => "log",
            Self::LogState => "log-state",
            Self::Packs => "packs",
            Self::Meta => "meta",
            Self::Index => "index",
            Self::Manifests => "manifests",
            Self::Keys => "keys",
            Self::Parity => "parity",
            Self::Scrub => "scrub",
            Self::Probe => "probe",
        }
    }
}

/// A path below the root of a store, always valid: no empty, `.` or `..` parts.
///
/// What the verbs of a store take. Made from a [`StoredObject`], an [`ObjectName`] or a [`Folder`]; `parse` is for stores
/// that are not repositories, as a bucket to back up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath(Path);

impl ObjectPath {
    /// From text with `/` between the parts.
    pub fn parse(text: &str) -> Result<Self> {
        match Path::parse(text) {
            Ok(path) => Ok(Self(path)),
            Err(error) => {
                let message = format!("{text:?} is not a valid object path");
                Err(Error::with_source(crate::error::ErrorKind::Invalid, message, error))
            }
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// True of the root.
    pub fn is_root(&self) -> bool {
        self.as_str().is_empty()
    }

    pub(super) fn from_path(path: Path) -> Self {
        Self(path)
    }

    pub(super) fn as_path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&StoredObject> for ObjectPath {
    fn from(object: &StoredObject) -> Self {
        let text = object.to_text();
        // What we build is valid as it stands; an `Unknown` made up by a caller is encoded until it is.
        Self(Path::parse(&text).unwrap_or_else(|_| Path::from(text)))
    }
}

impl From<StoredObject> for ObjectPath {
    fn from(object: StoredObject) -> Self {
        Self::from(&object)
    }
}

impl From<&ObjectName> for ObjectPath {
    fn from(name: &ObjectName) -> Self {
        Self(Path::from(named_text(name)))
    }
}

impl From<ObjectName> for ObjectPath {
    fn from(name: ObjectName) -> Self {
        Self::from(&name)
    }
}

impl From<Folder> for ObjectPath {
    fn from(folder: Folder) -> Self {
        Self(Path::from(folder.name()))
    }
}

impl From<&ObjectPath> for ObjectPath {
    fn from(path: &ObjectPath) -> Self {
        path.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    const SESSION: &str = "0123456789abcdef";

    fn named(kind: ObjectKind) -> StoredObject {
        let hash = ObjectHash::from_hex(HASH).unwrap();
        let session = SessionId::from_hex(SESSION).unwrap();
        StoredObject::Named(ObjectName { kind, hash, session })
    }

    fn every_object() -> Vec<(StoredObject, String)> {
        let id = format!("{HASH}-{SESSION}");
        let token = Token::from_bytes([0xc3; 16]);
        vec![
            (StoredObject::Config, "config".to_owned()),
            (StoredObject::Lock, "lock".to_owned()),
            (StoredObject::Ballast, "ballast".to_owned()),
            (StoredObject::Log(1), "log/00000000000000000001".to_owned()),
            (StoredObject::Log(u64::MAX), "log/18446744073709551615".to_owned()),
            (
                StoredObject::LogState { n: 64, hash: ObjectHash::from_hex(HASH).unwrap() },
                format!("log-state/00000000000000000064-{HASH}"),
            ),
            (named(ObjectKind::DataPack), format!("packs/af/{id}")),
            (named(ObjectKind::MetaPack), format!("meta/af/{id}")),
            (named(ObjectKind::Fragment), format!("index/{id}")),
            (named(ObjectKind::Manifest), format!("manifests/{id}")),
            (named(ObjectKind::Parity), format!("parity/{id}")),
            (named(ObjectKind::Scrub), format!("scrub/{id}")),
            (StoredObject::Key(KeySlot::new(&"k".repeat(64)).unwrap()), format!("keys/{}", "k".repeat(64))),
            (StoredObject::Probe(token), format!("probe/{}", "c3".repeat(16))),
            (StoredObject::Leftover(format!("packs/af/{id}#17")), format!("packs/af/{id}#17")),
        ]
    }

    #[test]
    fn paths_are_as_documented_and_parse_back() {
        for (object, text) in every_object() {
            let path = ObjectPath::from(&object);
            assert_eq!(path.as_str(), text);
            assert_eq!(StoredObject::parse(&path), object, "{text}");
        }
    }

    #[test]
    fn no_path_is_long() {
        for (_, text) in every_object() {
            assert!(text.len() < PATH_LEN_MAX, "{text} has {} bytes", text.len());
        }
    }

    #[test]
    fn what_we_would_not_have_built_is_unknown() {
        let upper = HASH.to_uppercase();
        for text in [
            "confi".to_owned(),
            "config/config".to_owned(),
            "log/1".to_owned(),
            "log/0000000000000000000+".to_owned(),
            "log/99999999999999999999".to_owned(),
            "log/00000000000000000001/x".to_owned(),
            format!("log-state/64-{HASH}"),
            format!("packs/{HASH}-{SESSION}"),
            format!("packs/ae/{HASH}-{SESSION}"),
            format!("packs/af/{HASH}"),
            format!("packs/af/{HASH}-{SESSION}0"),
            format!("packs/a/{HASH}-{SESSION}"),
            format!("index/{upper}-{SESSION}"),
            "keys/../../etc".to_owned(),
            "keys/Öl".to_owned(),
            "keys/".to_owned() + &"k".repeat(65),
            "probe/12".to_owned(),
            "other/thing".to_owned(),
            "#1".to_owned(),
            "packs/#1".to_owned(),
            "name#x1".to_owned(),
            "name#".to_owned(),
        ] {
            let parsed = StoredObject::parse(&ObjectPath(Path::from(text.as_str())));
            assert!(matches!(parsed, StoredObject::Unknown(_)), "{text}: {parsed:?}");
        }
    }

    #[test]
    fn a_leftover_tells_whose_it_is() {
        let leftover = StoredObject::Leftover(format!("packs/af/{HASH}-{SESSION}#2"));
        assert_eq!(leftover.session(), SessionId::from_hex(SESSION));
        assert_eq!(StoredObject::Leftover("log/00000000000000000001#1".to_owned()).session(), None);
        assert_eq!(leftover_target("log/00000000000000000001#1"), Some("log/00000000000000000001"));
    }

    #[test]
    fn paths_cannot_climb_out() {
        for text in ["../x", "a/../b", "a/./b", "a//b"] {
            assert_eq!(ObjectPath::parse(text).unwrap_err().kind(), crate::error::ErrorKind::Invalid, "{text}");
        }
        assert_eq!(ObjectPath::parse("shared/obj#1x").unwrap().as_str(), "shared/obj#1x");
        let climbing = ObjectPath::from(StoredObject::Unknown("../../etc/passwd".to_owned()));
        assert!(!climbing.as_str().split('/').any(|part| part == ".."), "{climbing}");
    }
}
