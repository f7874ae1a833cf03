//! The object `config`: what a repository is, decided once at `init` and never rewritten. Page: docs/format/config.md.

use super::bytes::{Fields, Put, check_sum, checksum, put_magic, seal, take_magic};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{FamilyId, RepositoryId};

const MAGIC: [u8; 8] = *b"EVPKCONF";
const VERSION: u16 = 1;
/// magic 8, version 2, flags 2, body length 4, checksum 4.
const HEADER_LEN: usize = 20;

/// The mandatory features that this release knows, by name.
pub(crate) const KNOWN_FEATURES: &[&str] = &[];

/// What the store said of itself at `init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize)]
pub struct StoreFacts {
    /// A second create of one name is refused.
    pub create_only: bool,
    /// Of racing creates exactly one wins.
    pub create_race_safe: bool,
    /// Ranges can be read.
    pub range_reads: bool,
    /// Listings can begin after a name.
    pub list_offset: bool,
    /// Opened for one writer at a time, by the user's word.
    pub single_writer: bool,
}

impl StoreFacts {
    fn to_bits(self) -> u32 {
        u32::from(self.create_only)
            | u32::from(self.create_race_safe) << 1
            | u32::from(self.range_reads) << 2
            | u32::from(self.list_offset) << 3
            | u32::from(self.single_writer) << 4
    }

    fn from_bits(bits: u32) -> Self {
        Self {
            create_only: bits & 1 != 0,
            create_race_safe: bits & 2 != 0,
            range_reads: bits & 4 != 0,
            list_offset: bits & 8 != 0,
            single_writer: bits & 16 != 0,
        }
    }
}

/// How files are cut and coded. Part of what makes two repositories one family: changing it loses deduplication with older chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Chunking {
    /// Average chunk of TAE regions, bytes, a power of two.
    pub tae_average: u32,
    /// Least chunk of other files, bytes.
    pub cdc_least: u32,
    /// Average chunk of other files, bytes.
    pub cdc_average: u32,
    /// Greatest chunk of other files, bytes.
    pub cdc_most: u32,
    /// Fixed chunk of InnoDB files, bytes.
    pub page: u32,
}

impl Default for Chunking {
    fn default() -> Self {
        Self { tae_average: 32 << 10, cdc_least: 256 << 10, cdc_average: 1 << 20, cdc_most: 4 << 20, page: 64 << 10 }
    }
}

impl Chunking {
    /// The largest chunk that these parameters can cut, and that a reader allows.
    pub const MOST: u32 = 16 << 20;

    fn check(&self) -> Result<()> {
        let tae = self.tae_average.is_power_of_two() && (4 << 10..=4 << 20).contains(&self.tae_average);
        // What FastCDC can do: beyond, its table of masks ends.
        let cdc = (64..=1 << 20).contains(&self.cdc_least)
            && (256..=4 << 20).contains(&self.cdc_average)
            && (1024..=Self::MOST).contains(&self.cdc_most)
            && self.cdc_least.is_multiple_of(2)
            && self.cdc_most.is_multiple_of(2)
            && self.cdc_least <= self.cdc_average
            && self.cdc_average <= self.cdc_most;
        let page = (4 << 10..=Self::MOST).contains(&self.page);
        if tae && cdc && page {
            return Ok(());
        }
        Err(Error::corrupt(format!("config: chunking parameters {self:?} are out of range")))
    }
}

/// The object `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) repository: RepositoryId,
    pub(crate) family: FamilyId,
    pub(crate) created: Timestamp,
    /// A reader that does not know one of these refuses, by name.
    pub(crate) mandatory_features: Vec<String>,
    /// A reader may ignore these.
    pub(crate) optional_features: Vec<String>,
    pub(crate) chunking: Chunking,
    /// Bytes at which a pack is sealed.
    pub(crate) pack_target: u32,
    /// zstd level of what is not split.
    pub(crate) level: i32,
    pub(crate) store: StoreFacts,
    pub(crate) tool: String,
}

impl Config {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put(self.repository.as_bytes());
        body.put(self.family.as_bytes());
        body.put_i64(self.created.as_nanos());
        let Chunking { tae_average, cdc_least, cdc_average, cdc_most, page } = self.chunking;
        for value in [tae_average, cdc_least, cdc_average, cdc_most, page, self.pack_target] {
            body.put_u32(value);
        }
        body.put(&self.level.to_le_bytes());
        body.put_u32(self.store.to_bits());
        for list in [&self.mandatory_features, &self.optional_features] {
            body.put_count(list.len());
            list.iter().for_each(|name| body.put_text(name));
        }
        body.put_text(&self.tool);

        let mut out = Vec::with_capacity(HEADER_LEN + body.len() + 4);
        put_magic(&mut out, MAGIC, VERSION, 0);
        out.put_count(body.len());
        seal(&mut out, 0);
        out.put(&body);
        let sum = checksum(&body);
        out.put_u32(sum);
        out
    }

    /// Refuses what this release cannot read, by name.
    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(stored);
        take_magic(&mut fields, "config", MAGIC, VERSION)?;
        let body_len = fields.u32("body length")? as usize;
        check_sum("config header", fields.u32("header checksum")?, &stored[..HEADER_LEN - 4])?;
        let body = fields.bytes("body", body_len)?;
        check_sum("config body", fields.u32("body checksum")?, body)?;
        fields.end("config")?;
        Self::decode_body(&mut Fields::new(body))
    }

    fn decode_body(fields: &mut Fields<'_>) -> Result<Self> {
        let repository = RepositoryId::from_bytes(fields.array("repository id")?);
        let family = FamilyId::from_bytes(fields.array("family id")?);
        let created = Timestamp::from_nanos(fields.i64("created")?);
        let chunking = Chunking {
            tae_average: fields.u32("TAE average")?,
            cdc_least: fields.u32("least chunk")?,
            cdc_average: fields.u32("average chunk")?,
            cdc_most: fields.u32("greatest chunk")?,
            page: fields.u32("page")?,
        };
        let pack_target = fields.u32("pack target")?;
        let level = i32::from_le_bytes(fields.array("level")?);
        let store = StoreFacts::from_bits(fields.u32("store facts")?);
        let mut features = |field| -> Result<Vec<String>> {
            let count = fields.count(field, 4)?;
            (0..count).map(|_| fields.text(field)).collect()
        };
        let mandatory_features = features("mandatory features")?;
        if let Some(unknown) = mandatory_features.iter().find(|name| !KNOWN_FEATURES.contains(&name.as_str())) {
            let message =
                format!("config: the repository uses the feature {unknown:?}, which this everpack does not have");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let optional_features = features("optional features")?;
        let tool = fields.text("tool")?;
        // Bytes behind the known ones are a later release's, and optional by definition.
        chunking.check()?;
        if !(1 << 16..=1 << 30).contains(&pack_target) || !(-7..=22).contains(&level) {
            return Err(Error::corrupt(format!("config: pack target {pack_target} or level {level} is out of range")));
        }
        Ok(Self {
            repository,
            family,
            created,
            mandatory_features,
            optional_features,
            chunking,
            pack_target,
            level,
            store,
            tool,
        })
    }
}
