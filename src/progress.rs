//! How a long operation tells its caller where it is. The library never prints; the binary draws bars or writes JSON lines.

use std::fmt;

/// What is being counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Phase {
    /// Folding the log and catching the local index up.
    Opening,
    /// A server copies what it was asked for.
    Server,
    /// Reading a source and storing what is new.
    BackingUp,
    /// Reading manifests and looking chunks up.
    Planning,
    /// Fetching, verifying and writing files.
    Restoring,
    /// Checking structure.
    Checking,
    /// Reading and hashing stored bytes.
    Scrubbing,
    /// Copying packs to another repository.
    Replicating,
    /// Healing what is damaged.
    Repairing,
    /// Writing what is needed of packs anew.
    Repacking,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Server => "waiting for the server",
            Self::BackingUp => "backing up",
            Self::Planning => "planning",
            Self::Restoring => "restoring",
            Self::Checking => "checking",
            Self::Scrubbing => "scrubbing",
            Self::Replicating => "replicating",
            Self::Repairing => "repairing",
            Self::Repacking => "repacking",
        })
    }
}

/// Something worth a line, as it happens.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A phase begins; totals are zero where they are not known yet.
    Begin {
        /// Which.
        phase: Phase,
        /// Bytes to do, 0 if unknown.
        bytes: u64,
        /// Items (files, packs, …) to do, 0 if unknown.
        items: u64,
    },
    /// The totals of the running phase became known, or grew.
    Total {
        /// Bytes to do.
        bytes: u64,
        /// Items to do.
        items: u64,
    },
    /// A phase ends.
    End {
        /// Which.
        phase: Phase,
    },
    /// A remark for people: what was noticed and what it means.
    Warning {
        /// The text.
        message: String,
    },
}

/// Receives progress. Called from many threads, often: implementations must be quick.
pub trait Monitor: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event);

    /// The running phase did `bytes` and `items` more. `new_bytes` of these had to be stored or written anew.
    fn advance(&self, bytes: u64, new_bytes: u64, items: u64);

    /// True once the caller wants the operation to stop; it then stops cleanly at the next safe point.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn event(&self, _event: Event) {}
    fn advance(&self, _bytes: u64, _new_bytes: u64, _items: u64) {}
}
