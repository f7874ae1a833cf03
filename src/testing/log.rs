//! Says in the log what operators say, for tests of the protocol: the shortest way, without what a command asks first.

use crate::error::Result;
use crate::format::log_record::{Purpose, Record};
use crate::format::log_state::LogState;
use crate::id::{ObjectHash, SessionId};
use crate::repo::{Repository, Session, SessionRequest};

/// Forgets a backup if it is listed; true if it was.
pub async fn forget(repository: &Repository, id: ObjectHash) -> Result<bool> {
    let mut was_listed = false;
    let say = async |state: &LogState| {
        was_listed = state.is_listed(&id);
        let record = Record::BackupsForgotten { backups: vec![id], reason: "a test".to_owned() };
        Ok(if was_listed { vec![record] } else { Vec::new() })
    };
    repository.say(say).await?;
    Ok(was_listed)
}

/// Sessions that are not over.
pub async fn open_sessions(repository: &Repository) -> Result<Vec<SessionId>> {
    repository.refresh().await?;
    Ok(repository.state().open_sessions().map(|(id, _)| id).collect())
}

/// Declares a session dead if it is open, alive or not.
pub async fn fence(repository: &Repository, session: SessionId) -> Result<()> {
    let say = async |state: &LogState| {
        let record = Record::SessionFenced { session, why: "a test".to_owned() };
        Ok(if state.is_open(session) { vec![record] } else { Vec::new() })
    };
    repository.say(say).await
}

/// Objects that are retired and not known to be deleted.
pub async fn retired_objects(repository: &Repository) -> Result<usize> {
    repository.refresh().await?;
    Ok(repository.state().retired.len())
}

/// Opens a session and leaves it open, as a process does that dies.
pub async fn leave_open(repository: &Repository) -> Result<SessionId> {
    Ok(Session::open(repository, SessionRequest::for_work(Purpose::Restore)).await?.id())
}

/// Says that a session is alive and leaves a remark, as long work and a person would.
pub async fn refresh_and_note(repository: &Repository, text: &str) -> Result<()> {
    let session = Session::open(repository, SessionRequest::for_work(Purpose::Scrub)).await?;
    session.refresh().await?;
    session.say(async |_: &LogState| Ok(vec![Record::Note { text: text.to_owned() }])).await?;
    session.close().await
}
