//! What entries do to the state. Pure: the rules of the log as one function of state and entry.
//!
//! Readers of any release fold alike: an entry of a session that is over or was never opened has no effect (it is damage, and reported),
//! an unknown optional record is skipped, an unknown mandatory one turns writing off.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::format::log_entry::LogEntry;
use crate::format::log_record::Record;
use crate::format::log_state::{BackupState, LogState, SessionState};
use crate::id::{EntryHash, ObjectHash, ObjectKind, ObjectName, SessionId};

/// The setting that makes backups look up every chunk of an entry before they take it over.
const MISSING_CHUNKS: &str = "missing-chunks";

/// No session: an operator's command.
pub(crate) const NO_SESSION: SessionId = SessionId::from_bytes([0; 8]);

impl LogState {
    /// The state before the first entry.
    pub(crate) fn empty(config_hash: EntryHash) -> Self {
        Self { head_hash: Some(config_hash), ..Self::default() }
    }

    /// Takes the next entry in. Fails if it is not the next one or does not follow from the last.
    ///
    /// Gives what is odd about it: things that no correct writer says, which therefore have no effect.
    pub(crate) fn apply(&mut self, entry: &LogEntry, hash: EntryHash) -> Result<Vec<String>> {
        self.check_follows(entry)?;
        self.head = entry.number;
        self.head_hash = Some(hash);
        let mut odd = Vec::new();
        if self.may_speak(entry) {
            for record in &entry.records {
                self.apply_record(entry, record, &mut odd);
            }
            if let Some(session) = self.sessions.get_mut(&entry.session) {
                session.last_seen = entry.number;
            }
        } else {
            odd.push(format!(
                "log entry {}: by session {}, which is not open: it has no effect",
                entry.number, entry.session
            ));
        }
        Ok(odd)
    }

    /// Fails unless this is the entry after the head, made by somebody who knew the head.
    pub(crate) fn check_follows(&self, entry: &LogEntry) -> Result<()> {
        // A hostile state may end at the last number there is.
        if self.head.checked_add(1) != Some(entry.number) {
            let message = format!("log entry {}: found where the entry behind {} belongs", entry.number, self.head);
            return Err(Error::corrupt(message));
        }
        if Some(entry.previous) != self.head_hash {
            let message = format!(
                "log entry {}: does not follow from entry {}: the log was altered, or mixed with another repository's",
                entry.number, self.head
            );
            return Err(Error::corrupt(message));
        }
        Ok(())
    }

    fn may_speak(&self, entry: &LogEntry) -> bool {
        if entry.session == NO_SESSION {
            return true;
        }
        match self.sessions.get(&entry.session) {
            Some(session) => session.over.is_none(),
            None => entry
                .records
                .iter()
                .any(|record| matches!(record, Record::SessionOpened(info) if info.session == entry.session)),
        }
    }

    fn apply_record(&mut self, entry: &LogEntry, record: &Record, odd: &mut Vec<String>) {
        let number = entry.number;
        match record {
            Record::SessionOpened(info) => {
                let state = SessionState {
                    opened: number,
                    last_seen: number,
                    over: None,
                    fenced: false,
                    info: Some(info.clone()),
                };
                if info.session != entry.session || self.sessions.contains_key(&info.session) {
                    odd.push(format!("log entry {number}: opens session {} in vain", info.session));
                } else {
                    self.sessions.insert(info.session, state);
                }
            }
            Record::SessionRefreshed | Record::Note { .. } => {}
            Record::FragmentsPublished { fragments } => self.publish(number, fragments),
            Record::BackupCommitted { manifest, fragments, summary } => {
                self.publish(number, fragments);
                let state = BackupState {
                    manifest: *manifest,
                    entry: number,
                    forgotten: None,
                    held_until: None,
                    summary: summary.clone(),
                };
                self.purged.remove(&manifest.hash);
                // Committed again, it is the same backup with its manifest in another place: a repair brought it back.
                self.backups.entry(manifest.hash).and_modify(|known| known.manifest = *manifest).or_insert(state);
            }
            Record::BackupsForgotten { backups, .. } => self.set_forgotten(backups, Some(number), odd, number),
            Record::BackupsUnforgotten { backups } => self.set_forgotten(backups, None, odd, number),
            Record::ObjectsRetired { objects, superseded, added } => self.retire(number, objects, superseded, added),
            Record::ObjectsDeleted { entry } => self.retired.retain(|_, retired_by| retired_by != entry),
            Record::PacksQuarantined { packs, why } => {
                self.quarantined.extend(packs.iter().map(|name| (*name, why.clone())));
            }
            Record::SessionClosed { session } => self.end_session(*session, number, false, odd),
            Record::SessionFenced { session, .. } => self.end_session(*session, number, true, odd),
            Record::Held { backup, until } => match self.backups.get_mut(backup) {
                Some(state) => state.held_until = Some(*until),
                None => odd.push(format!("log entry {number}: holds backup {backup}, which is not there")),
            },
            Record::Released { backup } => match self.backups.get_mut(backup) {
                Some(state) => state.held_until = None,
                None => odd.push(format!("log entry {number}: releases backup {backup}, which is not there")),
            },
            Record::StateCheckpointed { number, hash } => self.checkpoint = Some((*number, *hash)),
            Record::ConfigChanged { key, value } => {
                self.settings.insert(key.clone(), value.clone());
            }
            Record::ReplicaSynced { from, head, head_hash } => {
                self.replicas.insert(*from, (*head, *head_hash));
            }
            Record::Unknown { code, mandatory: true, .. } => drop(self.unknown_mandatory.insert(*code)),
            Record::Unknown { .. } => {}
        }
    }

    /// Takes in the fragments that are not known yet, in one pass over those that are, however many come at once.
    fn publish(&mut self, number: u64, fragments: &[ObjectName]) {
        let mut names = fragments.to_vec();
        names.sort_unstable();
        names.dedup();
        let mut known = vec![false; names.len()];
        for (_, name) in &self.fragments {
            if let Ok(at) = names.binary_search(name) {
                known[at] = true;
            }
        }
        for name in fragments {
            if let Ok(at) = names.binary_search(name)
                && !std::mem::replace(&mut known[at], true)
            {
                self.fragments.push((number, *name));
            }
        }
    }

    fn set_forgotten(&mut self, backups: &[ObjectHash], forgotten: Option<u64>, odd: &mut Vec<String>, number: u64) {
        for id in backups {
            match self.backups.get_mut(id) {
                Some(state) => state.forgotten = forgotten,
                None => odd.push(format!("log entry {number}: speaks of backup {id}, which is not there")),
            }
        }
    }

    fn retire(&mut self, number: u64, objects: &[ObjectName], superseded: &[ObjectName], added: &[ObjectName]) {
        let gone: BTreeSet<_> = superseded.iter().copied().collect();
        let place = self.fragments.iter().position(|(_, name)| gone.contains(name)).unwrap_or(self.fragments.len());
        self.fragments.splice(place..place, added.iter().map(|name| (number, *name)));
        self.fragments.retain(|(_, name)| !gone.contains(name));
        for name in objects.iter().chain(superseded) {
            self.retired.insert(*name, number);
            self.quarantined.remove(name);
            // A manifest that was replaced by another copy of the same goes without its backup.
            let is_current = self.backups.get(&name.hash).is_none_or(|backup| backup.manifest == *name);
            if name.kind == ObjectKind::Manifest && is_current {
                self.backups.remove(&name.hash);
                self.purged.insert(name.hash);
            }
        }
    }

    fn end_session(&mut self, session: SessionId, number: u64, fenced: bool, odd: &mut Vec<String>) {
        match self.sessions.get_mut(&session) {
            Some(state) if state.over.is_none() => {
                state.over = Some(number);
                state.fenced = fenced;
                state.info = None;
            }
            _ => odd.push(format!("log entry {number}: ends session {session}, which is not open")),
        }
    }

    /// True if some chunk that a backup names may be held by no live pack: a repair could not bring it back.
    pub(crate) fn may_miss_chunks(&self) -> bool {
        self.settings.get(MISSING_CHUNKS).is_some_and(|value| value != "no")
    }

    /// The record that says so, or that it is over; `None` if the log says it already.
    pub(crate) fn note_missing_chunks(&self, missing: bool) -> Option<Record> {
        let value = if missing { "yes" } else { "no" };
        (self.may_miss_chunks() != missing)
            .then(|| Record::ConfigChanged { key: MISSING_CHUNKS.to_owned(), value: value.to_owned() })
    }

    /// The backups that `list` shows, oldest commit first. A replication commits several in one entry: these by their times.
    pub(crate) fn listed(&self) -> Vec<&BackupState> {
        let mut listed: Vec<_> = self.backups.values().filter(|backup| backup.forgotten.is_none()).collect();
        listed.sort_by_key(|backup| (backup.entry, backup.summary.started, backup.manifest.hash));
        listed
    }

    /// True if `list` shows this backup.
    pub(crate) fn is_listed(&self, backup: &ObjectHash) -> bool {
        self.backups.get(backup).is_some_and(|backup| backup.forgotten.is_none())
    }

    /// True if nobody may rely on this pack any more: it is retired, or known to be damaged.
    pub(crate) fn is_dead(&self, pack: &ObjectName) -> bool {
        self.retired.contains_key(pack) || self.quarantined.contains_key(pack)
    }

    /// True if this session was opened and has been closed or fenced since.
    pub(crate) fn is_over(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.over.is_some())
    }

    /// The sessions that are not over, with their names.
    pub(crate) fn open_sessions(&self) -> impl Iterator<Item = (SessionId, &SessionState)> {
        self.sessions.iter().filter(|(_, session)| session.over.is_none()).map(|(id, session)| (*id, session))
    }

    /// True if this session may still write.
    pub(crate) fn is_open(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.over.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u8) -> ObjectName {
        ObjectName { kind: ObjectKind::Fragment, hash: ObjectHash::from_bytes([n; 32]), session: NO_SESSION }
    }

    fn manifest(session: u8) -> ObjectName {
        let (hash, session) = (ObjectHash::from_bytes([7; 32]), SessionId::from_bytes([session; 8]));
        ObjectName { kind: ObjectKind::Manifest, hash, session }
    }

    fn commit(state: &mut LogState, manifest: ObjectName) {
        let summary = crate::format::log_record::BackupSummary {
            lineage: crate::id::LineageId::from_bytes([1; 16]),
            lineage_name: String::new(),
            started: crate::clock::Timestamp::default(),
            finished: crate::clock::Timestamp::default(),
            partial: false,
            totals: crate::format::manifest::Totals::default(),
            read_bytes: 0,
            new_bytes: 0,
            stored_bytes: 0,
            source_kind: String::new(),
            source_location: String::new(),
            host: String::new(),
            tags: Vec::new(),
        };
        say(state, Record::BackupCommitted { manifest, fragments: Vec::new(), summary });
    }

    fn say(state: &mut LogState, record: Record) {
        let entry = LogEntry {
            number: state.head + 1,
            previous: state.head_hash.unwrap(),
            token: crate::id::Token::from_bytes([0; 16]),
            session: NO_SESSION,
            time: crate::clock::Timestamp::default(),
            tool: String::new(),
            records: vec![record],
        };
        let hash = EntryHash::from_bytes([u8::try_from(entry.number).unwrap(); 32]);
        assert_eq!(state.apply(&entry, hash).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_second_commit_moves_the_manifest_and_nothing_else() {
        let mut state = LogState::empty(EntryHash::from_bytes([1; 32]));
        let id = manifest(1).hash;
        commit(&mut state, manifest(1));
        say(&mut state, Record::Held { backup: id, until: crate::clock::Timestamp::from_nanos(9) });
        say(&mut state, Record::BackupsForgotten { backups: vec![id], reason: String::new() });
        let before = state.backups[&id].clone();
        commit(&mut state, manifest(2));
        assert_eq!(state.backups[&id], BackupState { manifest: manifest(2), ..before.clone() });
        assert_eq!((before.entry, before.forgotten), (1, Some(3)));

        // The copy that it replaced goes alone, the one in force takes its backup with it.
        let retired = |name| Record::ObjectsRetired { objects: vec![name], superseded: Vec::new(), added: Vec::new() };
        say(&mut state, retired(manifest(1)));
        assert!(state.backups.contains_key(&id) && state.purged.is_empty());
        say(&mut state, retired(manifest(2)));
        assert!(!state.backups.contains_key(&id) && state.purged.contains(&id));
    }

    #[test]
    fn a_fragment_counts_from_the_first_entry_that_names_it() {
        let mut state = LogState::empty(EntryHash::from_bytes([1; 32]));
        state.publish(1, &[name(9), name(3), name(9)]);
        state.publish(2, &[name(4), name(3), name(1), name(4)]);
        assert_eq!(state.fragments, [(1, name(9)), (1, name(3)), (2, name(4)), (2, name(1))]);
    }
}
