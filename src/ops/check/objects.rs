//! Live packs against what the store lists, and stored packs that no fragment names.

use std::collections::BTreeMap;

use futures::TryStreamExt;

use super::CheckReport;
use super::faults::Faults;
use super::findings::{Finding, Findings, Severity, heal};
use crate::error::Result;
use crate::format::log_state::LogState;
use crate::id::{ObjectKind, ObjectName, SessionId};
use crate::index::Index;
use crate::repo::Repository;
use crate::store::StoredObject;
use crate::units;

/// Names given with a finding about many objects.
const NAMES_MOST: usize = 5;

/// Stored packs of one session that no fragment names.
#[derive(Debug, Default)]
struct Unnamed {
    count: u64,
    bytes: u64,
    first: Vec<String>,
}

/// Lists every pack once. Gives the live packs that are missing or of another size.
pub(super) async fn compare(
    repository: &Repository,
    index: &Index,
    state: &LogState,
    report: &mut CheckReport,
    findings: &mut Findings,
) -> Result<Faults> {
    let mut wanted = index.live_pack_numbers();
    let known = index.known_packs();
    let mut faults = Faults::default();
    let mut unnamed: BTreeMap<SessionId, Unnamed> = BTreeMap::new();
    report.packs = wanted.len() as u64;
    for kind in [ObjectKind::DataPack, ObjectKind::MetaPack] {
        let mut listing = repository.store().list(&StoredObject::pack_prefix(kind));
        while let Some(info) = listing.try_next().await? {
            let StoredObject::Named(name) = info.object else {
                let what = "is not an object of this repository, though it lies among them";
                findings.add(Finding::new(Severity::Note, info.object.path().to_string(), what, heal::STRAY));
                continue;
            };
            if let Some((number, size)) = wanted.remove(&name) {
                if size != info.size {
                    faults.add_resized(number, name, size, info.size);
                }
            } else if !known.contains(&name) && !state.retired.contains_key(&name) {
                let session = unnamed.entry(name.session).or_default();
                session.count += 1;
                session.bytes += info.size;
                if session.first.len() < NAMES_MOST {
                    session.first.push(name.to_string());
                }
            }
        }
    }
    for (name, (number, size)) in wanted {
        faults.add_missing(number, name, size);
    }
    for (session, packs) in unnamed {
        report_unnamed(session, &packs, state, findings);
    }
    report_quarantined(state, findings);
    Ok(faults)
}

fn report_unnamed(session: SessionId, packs: &Unnamed, state: &LogState, findings: &mut Findings) {
    let Unnamed { count, bytes, first } = packs;
    let more = if *count > first.len() as u64 { ", …" } else { "" };
    let which = format!("{count} packs ({}) that no index fragment names: {}{more}", units::bytes(*bytes), first.join(", "));
    let object = format!("session {session}");
    match state.sessions.get(&session) {
        Some(known) if known.over.is_none() => {
            let what = format!("{which}. The session is open: they are being written, or it was killed");
            findings.add(Finding::new(Severity::Note, object, what, heal::NONE));
        }
        Some(_) => {
            let what = format!("{which}. The session is over: they are left-overs that only take up space");
            findings.add(Finding::new(Severity::Note, object, what, heal::NONE));
        }
        None => {
            let what = format!("{which}. The log does not know the session: evidence of a lost log entry");
            findings.add_missing(Finding::new(Severity::Error, object, what, heal::LOST_ENTRY));
        }
    }
}

/// Damage that is known already.
fn report_quarantined(state: &LogState, findings: &mut Findings) {
    for (name, why) in &state.quarantined {
        let what = format!("quarantined ({why}): nothing relies on it");
        findings.add(Finding::new(Severity::Note, ObjectName::to_string(name), what, heal::NONE));
    }
}
