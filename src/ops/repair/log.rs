//! `config` and log entries out of a plain copy of the repository. Nothing else has them: a replica has a log of its own.
//!
//! An entry is proved by the one behind it, which holds its hash; `config` by entry 1. What cannot be proved is not brought back. So the end of
//! a log that was cut off stays off: entries beyond the last one that is here may be those of a copy that went its own way.
//!
//! If we crash here: fewer entries are missing. Each is written whole, and is the one that was there.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Healed, describe};
use crate::codec::entry_hash;
use crate::error::{Error, ErrorKind, Result};
use crate::format::config::Config;
use crate::format::log_entry::LogEntry;
use crate::id::EntryHash;
use crate::store::{Folder, Put, Store, StoreReader, StoredObject};

/// Entries fetched at once.
const FETCH_AT_ONCE: usize = 16;
/// Bytes of an entry before its body.
const HEADER_LEN: usize = 80;

/// What was healed in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// What was put right; in a dry run, that would be.
    pub healed: Vec<Healed>,
    /// What could not be, and why.
    pub remarks: Vec<String>,
}

/// What a whole entry says of itself and the one before.
#[derive(Clone, Copy)]
struct Link {
    hash: EntryHash,
    previous: EntryHash,
}

/// Brings `config` and lost or damaged log entries back from a copy of the same repository. Does nothing if the copy is of another one.
pub async fn repair_log(store: &Store, copy: &StoreReader, dry_run: bool) -> Result<LogReport> {
    let mut report = LogReport::default();
    let theirs = copy.get(StoredObject::Config).await.map_err(|error| error.context("read the copy's config"))?;
    let their_config = Config::decode(&theirs).map_err(|error| error.context("read the copy's config"))?;
    let ours = get(store, StoredObject::Config).await?;
    let our_config = ours.as_ref().map(|stored| Config::decode(stored));
    match &our_config {
        // A replica: its log is another.
        Some(Ok(config)) if config.repository != their_config.repository => return Ok(report),
        Some(Err(error)) if error.kind() == ErrorKind::Unsupported => return Ok(report),
        _ => {}
    }
    let links = read_links(store).await?;
    let first = match links.first().copied().flatten() {
        Some(first) => Some(first),
        None => read_link(copy, 1).await?,
    };
    if !matches!(our_config, Some(Ok(_))) {
        let proved = first.is_some_and(|first| first.previous == entry_hash(&theirs));
        // Where the first entry is lost here too, that of the copy must be proved by those that are left.
        let proved = proved && (links.first().copied().flatten().is_some() || joins(copy, &links, first).await?);
        if proved {
            let what = ours.as_ref().map_or("missing", |_| "damaged");
            put(store, StoredObject::Config, theirs, ours.is_some(), dry_run).await?;
            report.add("config", what, "brought back from the copy; entry 1 proves it");
        } else {
            report.remarks.push("config: no log entry proves that the copy's is the right one".to_owned());
        }
    }
    heal_entries(store, copy, links, dry_run, &mut report).await?;
    Ok(report)
}

impl LogReport {
    fn add(&mut self, object: impl Into<String>, what: impl Into<String>, how: impl Into<String>) {
        self.healed.push(Healed { object: object.into(), what: what.into(), how: how.into() });
    }
}

async fn get(store: &StoreReader, object: StoredObject) -> Result<Option<Bytes>> {
    match store.get(&object).await {
        Ok(stored) => Ok(Some(stored)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Create-only where there is nothing; over damaged bytes only with those that the chain proves to have been there.
async fn put(store: &Store, object: StoredObject, stored: Bytes, over: bool, dry_run: bool) -> Result<()> {
    if dry_run {
        return Ok(());
    }
    if over {
        return store.put_new(&object, vec![stored]).await;
    }
    match store.create(&object, stored).await? {
        Put::Created => Ok(()),
        Put::AlreadyThere(_) => {
            let message = format!("bring {object} back: somebody else wrote there just now; run the repair again");
            Err(Error::new(ErrorKind::Busy, message))
        }
    }
}

async fn read_link(store: &StoreReader, number: u64) -> Result<Option<Link>> {
    let stored = match store.get(StoredObject::Log(number)).await {
        Ok(stored) => stored,
        Err(error) if error.is_damage() => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(link_of(number, &stored))
}

fn link_of(number: u64, stored: &Bytes) -> Option<Link> {
    let entry = LogEntry::decode(stored).ok().filter(|entry| entry.number == number)?;
    Some(Link { hash: entry_hash(stored), previous: entry.previous })
}

/// The entries from the first to the last that is there; `None` for one that is lost or damaged.
async fn read_links(store: &StoreReader) -> Result<Vec<Option<Link>>> {
    let mut head = 0;
    let mut listing = store.list(Folder::Log);
    while let Some(info) = listing.try_next().await? {
        if let StoredObject::Log(number) = info.object() {
            head = head.max(number);
        }
    }
    stream::iter(1..=head).map(|number| read_link(store, number)).buffered(FETCH_AT_ONCE).try_collect().await
}

/// True if the copy's entries lead from its first one to the first whole one here.
async fn joins(copy: &StoreReader, links: &[Option<Link>], first: Option<Link>) -> Result<bool> {
    let mut at = first;
    for (number, ours) in (2u64..).zip(links.iter().skip(1)) {
        let Some(before) = at else { return Ok(false) };
        if let Some(ours) = ours {
            return Ok(ours.previous == before.hash);
        }
        at = read_link(copy, number).await?.filter(|link| link.previous == before.hash);
    }
    Ok(false)
}

/// Goes down from the last entry: each one says which bytes belong before it.
async fn heal_entries(
    store: &Store,
    copy: &StoreReader,
    links: Vec<Option<Link>>,
    dry_run: bool,
    report: &mut LogReport,
) -> Result<()> {
    let head = links.len() as u64;
    let mut expected: Option<EntryHash> = None;
    for (number, ours) in (1..=head).rev().zip(links.into_iter().rev()) {
        let wanted = match (ours, expected) {
            (Some(link), Some(hash)) if link.hash != hash => Some(hash),
            (Some(link), _) => {
                expected = Some(link.previous);
                continue;
            }
            (None, expected) => expected,
        };
        let object = StoredObject::Log(number);
        let here = get(store, object.clone()).await?;
        let theirs = match copy.get(&object).await {
            Ok(stored) => stored,
            Err(error) if error.is_damage() => {
                report.remarks.push(format!("log entry {number}: the copy's is {}", describe(&error)));
                return Ok(());
            }
            Err(error) => return Err(error.context("read the copy")),
        };
        let proved = match (wanted, &here) {
            (Some(hash), _) => entry_hash(&theirs) == hash,
            // The last entry has none behind it: what is left of it must be that of the copy.
            (None, Some(here)) if number == head => is_rest_of(here, &theirs),
            (None, _) => false,
        };
        let Some(link) = link_of(number, &theirs).filter(|_| proved) else {
            report.remarks.push(format!("log entry {number}: nothing proves that the copy's is the right one"));
            return Ok(());
        };
        let what = here.as_ref().map_or("missing", |_| "damaged");
        put(store, object, theirs, here.is_some(), dry_run).await?;
        report.add(format!("log entry {number}"), what, "brought back from the copy; the chain proves it");
        expected = Some(link.previous);
    }
    if read_link(copy, head + 1).await?.is_some() {
        report.remarks.push(format!(
            "the copy's log goes on behind entry {head}, where this one ends: if the log was cut off, restore it from the copy by hand"
        ));
    }
    Ok(())
}

/// True if the damaged bytes share the header, which holds the body's checksum, or the whole body.
fn is_rest_of(damaged: &[u8], whole: &[u8]) -> bool {
    let same = |range: fn(&[u8]) -> Option<&[u8]>| range(damaged).is_some() && range(damaged) == range(whole);
    same(|bytes| bytes.get(..HEADER_LEN)) || same(|bytes| bytes.get(HEADER_LEN..).filter(|body| !body.is_empty()))
}
