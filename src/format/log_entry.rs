//! Log entries: the objects `log/00000000000000000001` and on. Page: docs/format/log.md.

use super::bytes::{Fields, Put, check_sum, checksum, put_magic, seal, take_magic};
use super::log_record::Record;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{EntryHash, SessionId, Token};

const MAGIC: [u8; 8] = *b"EVPKLOGE";
const VERSION: u16 = 1;
/// magic 8, version 2, flags 2, number 8, previous 32, token 16, body length 4, body checksum 4, checksum 4.
const HEADER_LEN: usize = 80;
/// Lists are long, records are few: this bounds what a hostile entry can make a reader allocate.
const RECORDS_MAX: usize = 65_536;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// 1 and up, without gaps.
    pub number: u64,
    /// BLAKE3 of the entry before; of `config` for the first.
    pub previous: EntryHash,
    /// By which a writer knows its own entry.
    pub token: Token,
    /// Who says this; zero for an operator's command without a session.
    pub session: SessionId,
    /// For people, never for safety.
    pub time: Timestamp,
    /// Which everpack wrote it.
    pub tool: String,
    /// What is said.
    pub records: Vec<Record>,
}

impl LogEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put(self.session.as_bytes());
        body.put_i64(self.time.as_nanos());
        body.put_text(&self.tool);
        body.put_count(self.records.len());
        self.records.iter().for_each(|record| record.encode(&mut body));

        let mut out = Vec::with_capacity(HEADER_LEN + body.len());
        put_magic(&mut out, MAGIC, VERSION, 0);
        out.put_u64(self.number);
        out.put(self.previous.as_bytes());
        out.put(self.token.as_bytes());
        out.put_count(body.len());
        out.put_u32(checksum(&body));
        seal(&mut out, 0);
        out.put(&body);
        out
    }

    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(stored);
        take_magic(&mut fields, "log entry", MAGIC, VERSION)?;
        let number = fields.u64("number")?;
        let previous = EntryHash::from_bytes(fields.array("previous hash")?);
        let token = Token::from_bytes(fields.array("token")?);
        let body_len = fields.u32("body length")? as usize;
        let body_checksum = fields.u32("body checksum")?;
        check_sum("log entry header", fields.u32("header checksum")?, &stored[..HEADER_LEN - 4])?;
        let body = fields.bytes("body", body_len)?;
        fields.end("log entry")?;
        check_sum("log entry body", body_checksum, body)?;
        if number == 0 {
            return Err(Error::corrupt("log entry: numbers begin at 1"));
        }
        let mut fields = Fields::new(body);
        let session = SessionId::from_bytes(fields.array("session")?);
        let time = Timestamp::from_nanos(fields.i64("time")?);
        let tool = fields.text("tool")?;
        let count = fields.count("record count", 8)?;
        if count > RECORDS_MAX {
            return Err(Error::corrupt(format!("log entry: {count} records, at most {RECORDS_MAX} are allowed")));
        }
        // Bytes behind the records are a later release's, and optional by definition.
        let records = (0..count).map(|_| Record::decode(&mut fields)).collect::<Result<_>>()?;
        Ok(Self { number, previous, token, session, time, tool, records })
    }
}
