//! The one error type of the library.
//!
//! A kind answers "what can I do about it", the message names the act and the object, and the cause stays in `source`.
//! Nothing here prints: the binary joins message, causes and advice (one table, kind → what to do next).
//! Damage that a check finds is a report, not an error.

use std::fmt;

/// What the reader of an error can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is wrong: an option, a path, a name.
    Invalid,
    /// The thing asked for is not there.
    NotFound,
    /// Stored bytes are not what was written.
    Corrupt,
    /// Written by a newer release, or uses a feature that this one does not have.
    Unsupported,
    /// Somebody else is at it; try again later.
    Busy,
    /// The disk, the network or a permission stands in the way.
    Unavailable,
    /// The key or passphrase does not fit.
    WrongKey,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not found",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::WrongKey => "wrong key",
        })
    }
}

/// The result of everything fallible here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, to which object.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A new error; `message` names the act and the object ("read pack 3f9a…: trailer is 12 bytes short").
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// The same, with the cause below it.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: Some(source.into()) }))
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Says what was being done when this happened: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// An `Invalid` error.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// A `Corrupt` error.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// An `Unavailable` error for a failed operating system call; a missing file keeps its kind.
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Unavailable,
        };
        Self::with_source(kind, message, source)
    }

    /// True for what a damaged or absent object says, as against a store that cannot be reached. A flipped version or flag reads as something that
    /// a later release wrote, so that counts as well: whoever has another copy tries it.
    pub fn is_damage(&self) -> bool {
        matches!(self.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Unsupported)
    }

    /// True if some cause below is a full disk or an exceeded quota.
    pub fn is_disk_full(&self) -> bool {
        let mut at: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(self);
        while let Some(error) = at {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                use std::io::ErrorKind::{QuotaExceeded, StorageFull};
                if matches!(io.kind(), StorageFull | QuotaExceeded) {
                    return true;
                }
            }
            at = error.source();
        }
        false
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Adds what was being done to an error that passes by.
pub trait Context<T> {
    /// `describe` is called only on failure.
    fn context<D: fmt::Display>(self, describe: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, describe: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.context(describe()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context<D: fmt::Display>(self, describe: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::io(describe().to_string(), error))
    }
}
