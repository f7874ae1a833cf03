//! What a store said, as an error of ours: the kind that tells what to do, the act, the object and the store in the message.
//!
//! Nothing here can show a credential: stores are named by their display URL, and `object_store` keeps keys out of its texts.

use std::error::Error as StdError;
use std::io;

use object_store::Error as StoreError;

use crate::error::{Error, ErrorKind};

const NOT_ALLOWED: &str = "permission denied; the credentials are wrong or do not allow this";
const NOT_KNOWN: &str = "the store does not accept the credentials";

/// Turns `error` into ours; `act` is a verb ("read", "write"), `object` its path, `place` the display of the store.
pub(super) fn explain(act: &str, object: &str, place: &str, error: StoreError) -> Error {
    let subject = if object.is_empty() { format!("{act} {place}") } else { format!("{act} {object} in {place}") };
    let text = error.to_string();
    let fail = |kind, why: &str, error| Error::with_source(kind, format!("{subject}: {why}"), error);
    match error {
        // A bucket that is missing is not an object that is missing: whoever asks whether an object is there must not be
        // told that it is not.
        _ if text.contains("NoSuchBucket") || text.contains("ContainerNotFound") => {
            fail(ErrorKind::Unavailable, "the bucket does not exist", error)
        }
        StoreError::NotFound { .. } => fail(ErrorKind::NotFound, "not there", error),
        StoreError::PermissionDenied { .. } => fail(ErrorKind::Unavailable, NOT_ALLOWED, error),
        StoreError::Unauthenticated { .. } => fail(ErrorKind::Unavailable, NOT_KNOWN, error),
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
            fail(ErrorKind::Unsupported, "the store cannot do this", error)
        }
        StoreError::InvalidPath { .. } => fail(ErrorKind::Invalid, "there is an object with an unusable name", error),
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => {
            fail(ErrorKind::Unavailable, "the store refused a condition", error)
        }
        _ => explain_generic(&subject, &text, error),
    }
}

/// The rest has to be told apart by what lies below it, or by its text: the type with the HTTP status is not public.
fn explain_generic(subject: &str, text: &str, error: StoreError) -> Error {
    let fail = |kind, why: &str, error| Error::with_source(kind, format!("{subject}: {why}"), error);
    if has_status(text, 501) {
        return fail(ErrorKind::Unsupported, "the store cannot do this", error);
    }
    if has_status(text, 507) || text.contains("StorageFull") || text.contains("QuotaExceeded") {
        // Kept as an I/O error, so that `is_disk_full` sees it.
        let full = io::Error::new(io::ErrorKind::StorageFull, error);
        return Error::with_source(ErrorKind::Unavailable, format!("{subject}: the store is full"), full);
    }
    let why = match io_kind(&error) {
        // Listings report every status as a generic error.
        None if has_status(text, 403) => NOT_ALLOWED,
        None if has_status(text, 401) => NOT_KNOWN,
        Some(io::ErrorKind::StorageFull) => "the disk is full",
        Some(io::ErrorKind::QuotaExceeded) => "the disk quota is used up",
        Some(io::ErrorKind::PermissionDenied) => "permission denied; check owner and mode",
        Some(io::ErrorKind::ReadOnlyFilesystem) => "the file system is read-only",
        _ if text.contains("LOCATION") => "the store sent us elsewhere; the region is probably wrong",
        _ if text.contains("169.254.") => "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        _ => "the store did not do it",
    };
    fail(ErrorKind::Unavailable, why, error)
}

/// True if the operation was refused for good: nothing happened, and trying again would not help.
pub(super) fn is_refusal(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::NotFound { .. }
            | StoreError::PermissionDenied { .. }
            | StoreError::Unauthenticated { .. }
            | StoreError::NotImplemented { .. }
            | StoreError::NotSupported { .. }
            | StoreError::InvalidPath { .. }
            | StoreError::UnknownConfigurationKey { .. }
    ) || has_status(&error.to_string(), 501)
}

fn has_status(text: &str, status: u16) -> bool {
    text.contains(&format!("status code: {status}"))
}

fn io_kind(error: &StoreError) -> Option<io::ErrorKind> {
    let mut at: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = at {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        at = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> StoreError {
        StoreError::Generic { store: "test", source: source.into() }
    }

    #[test]
    fn errors_name_act_object_and_place() {
        let error = StoreError::NotFound { path: "x".into(), source: "gone".into() };
        let error = explain("read", "config", "s3://bucket/repo", error);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.message(), "read config in s3://bucket/repo: not there");
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let error = StoreError::NotFound { path: "x".into(), source: "<Code>NoSuchBucket</Code>".into() };
        assert_eq!(explain("read", "config", "s3://b", error).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn full_disks_and_full_stores_are_told_apart_from_the_rest() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(explain("write", "x", "/repo", generic(full)).is_disk_full());
        let text = "Server returned non-2xx status code: 507 Insufficient Storage: ";
        assert!(explain("write", "x", "s3://b", generic(text)).is_disk_full());
        let other = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = explain("write", "x", "/repo", generic(other));
        assert!(!error.is_disk_full());
        assert!(error.message().contains("owner and mode"), "{error}");
    }

    #[test]
    fn what_a_server_does_not_implement_is_unsupported() {
        let text = "Server returned non-2xx status code: 501 Not Implemented: ";
        assert!(is_refusal(&generic(text)));
        assert_eq!(explain("create", "x", "s3://b", generic(text)).kind(), ErrorKind::Unsupported);
    }
}
