//! Parts of the scrub ledger: which packs were read when, and what came of it. Page: docs/format/scrub.md.

use super::bytes::{Fields, Put, check_flags, check_sum, checksum, put_magic, seal, take_magic};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ObjectHash, ObjectKind, ObjectName, SessionId};

const MAGIC: [u8; 8] = *b"EVPKSCRB";
const VERSION: u16 = 1;
/// magic 8, version 2, flags 2, facts 4, body checksum 4, checksum 4.
const HEADER_LEN: usize = 24;
const FACT_LEN: usize = 60;

/// What reading a pack gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ScrubResult {
    /// Every byte is what was written.
    Whole,
    /// Some byte is not.
    Damaged,
    /// It is not there.
    Missing,
}

impl ScrubResult {
    fn code(self) -> u8 {
        match self {
            Self::Whole => 1,
            Self::Damaged => 2,
            Self::Missing => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self> {
        match code {
            1 => Ok(Self::Whole),
            2 => Ok(Self::Damaged),
            3 => Ok(Self::Missing),
            _ => Err(Error::new(ErrorKind::Unsupported, format!("scrub ledger: result {code} is not known"))),
        }
    }
}

/// One pack, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScrubFact {
    /// The stored object: another copy of the same bytes has facts of its own.
    pub(crate) pack: ObjectName,
    /// Bytes that the pack should have.
    pub(crate) size: u64,
    /// When it was read.
    pub(crate) time: Timestamp,
    pub(crate) result: ScrubResult,
}

/// One stored part of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct ScrubPart {
    /// Ascending by pack, each pack once.
    pub(crate) facts: Vec<ScrubFact>,
}

impl ScrubPart {
    /// Sorts the facts, keeps the newest of each pack, and writes everything down.
    pub(crate) fn encode(&mut self) -> Vec<u8> {
        self.facts.sort_by_key(|fact| (fact.pack, std::cmp::Reverse(fact.time)));
        self.facts.dedup_by_key(|fact| fact.pack);
        let mut body = Vec::with_capacity(self.facts.len() * FACT_LEN);
        for ScrubFact { pack, size, time, result } in &self.facts {
            body.put_u8(pack.kind.code());
            body.put_u8(result.code());
            body.put_u16(0);
            body.put(pack.hash.as_bytes());
            body.put(pack.session.as_bytes());
            body.put_u64(*size);
            body.put_i64(time.as_nanos());
        }
        let mut out = Vec::with_capacity(HEADER_LEN + body.len());
        put_magic(&mut out, MAGIC, VERSION, 0);
        out.put_count(self.facts.len());
        out.put_u32(checksum(&body));
        seal(&mut out, 0);
        out.put(&body);
        out
    }

    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(stored);
        take_magic(&mut fields, "scrub ledger", MAGIC, VERSION)?;
        let count = fields.u32("fact count")? as usize;
        let body_checksum = fields.u32("body checksum")?;
        check_sum("scrub ledger header", fields.u32("header checksum")?, &stored[..HEADER_LEN - 4])?;
        let body = fields.rest();
        // Bytes behind the known ones are a later release's, and optional by definition.
        if count as u64 * FACT_LEN as u64 > body.len() as u64 {
            return Err(Error::corrupt(format!("scrub ledger: {} bytes do not hold {count} facts", body.len())));
        }
        check_sum("scrub ledger body", body_checksum, body)?;
        let mut facts: Vec<ScrubFact> = Vec::with_capacity(count);
        for _ in 0..count {
            let fact = decode_fact(&mut fields)?;
            if facts.last().is_some_and(|last| last.pack >= fact.pack) {
                return Err(Error::corrupt("scrub ledger: packs are not sorted"));
            }
            facts.push(fact);
        }
        Ok(Self { facts })
    }
}

fn decode_fact(fields: &mut Fields<'_>) -> Result<ScrubFact> {
    let kind = ObjectKind::from_code(fields.u8("pack kind")?)?;
    let result = ScrubResult::from_code(fields.u8("result")?)?;
    check_flags("scrub ledger", fields.u16("fact flags")?)?;
    let hash = ObjectHash::from_bytes(fields.array("pack hash")?);
    let session = SessionId::from_bytes(fields.array("pack session")?);
    let size = fields.u64("pack size")?;
    let time = Timestamp::from_nanos(fields.i64("time")?);
    if !matches!(kind, ObjectKind::DataPack | ObjectKind::MetaPack) {
        return Err(Error::corrupt(format!("scrub ledger: a {} is not a pack", kind.word())));
    }
    Ok(ScrubFact { pack: ObjectName { kind, hash, session }, size, time, result })
}
