//! The root object of one backup. Page: docs/format/manifest.md.
//!
//! Like a segment it keeps names apart from the rest, so that an encrypted repository can seal them under another key.

use super::bytes::{Fields, Put, check_sum, checksum, put_magic, seal, take_magic};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{ChunkId, LineageId, ObjectHash};

const MAGIC: [u8; 8] = *b"EVPKMANI";
const VERSION: u16 = 1;
/// magic 8, version 2, flags 2, body length 4, names length 4, body checksum 4, names checksum 4, checksum 4.
const HEADER_LEN: usize = 32;

/// What a backup holds, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Logical bytes of all files.
    pub bytes: u64,
}

impl Totals {
    /// The four counts as a manifest and a summary store them.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        [self.files, self.directories, self.symlinks, self.bytes].into_iter().for_each(|count| out.put_u64(count));
    }

    pub(super) fn take(fields: &mut Fields<'_>) -> Result<Self> {
        Ok(Self {
            files: fields.u64("file count")?,
            directories: fields.u64("directory count")?,
            symlinks: fields.u64("link count")?,
            bytes: fields.u64("byte count")?,
        })
    }
}

/// One segment of the list of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRef {
    /// The chunk that holds it.
    pub chunk: ChunkId,
    /// Its plain length, bytes.
    pub plain_len: u32,
    /// Entries in it.
    pub entry_count: u32,
    /// The first entry's sort key: its path, with a `/` behind a directory's.
    pub first_key: Vec<u8>,
}

/// The root object of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose next backup looks here for what it already has.
    pub lineage: LineageId,
    /// The lineage's name, for people.
    pub lineage_name: String,
    /// The backup whose entries were taken over where nothing had changed.
    pub parent: Option<ObjectHash>,
    /// When reading of the source began.
    pub started: Timestamp,
    /// When the last byte was read.
    pub finished: Timestamp,
    /// Some files could not be read and are missing or incomplete.
    pub partial: bool,
    /// The source kind: `directory`, `bucket`, ….
    pub source_kind: String,
    /// Where the source was, without credentials.
    pub source_location: String,
    /// The host that ran the backup.
    pub host: String,
    /// Which everpack wrote it.
    pub tool: String,
    /// The user's tags.
    pub tags: Vec<String>,
    /// What the source says of itself (`release`, `backup-ts`, `warning`, …).
    pub facts: Vec<(String, String)>,
    /// What it holds.
    pub totals: Totals,
    /// The list of entries.
    pub segments: Vec<SegmentRef>,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put(self.lineage.as_bytes());
        body.put(self.parent.as_ref().map_or(&[0; 32][..], |hash| hash.as_bytes()));
        body.put_i64(self.started.as_nanos());
        body.put_i64(self.finished.as_nanos());
        body.put_u32(u32::from(self.partial));
        self.totals.put(&mut body);
        for text in [&self.lineage_name, &self.source_kind, &self.source_location, &self.host, &self.tool] {
            body.put_text(text);
        }
        body.put_count(self.tags.len());
        self.tags.iter().for_each(|tag| body.put_text(tag));
        body.put_count(self.facts.len());
        for (key, value) in &self.facts {
            body.put_text(key);
            body.put_text(value);
        }
        body.put_count(self.segments.len());
        for segment in &self.segments {
            body.put(segment.chunk.as_bytes());
            body.put_u32(segment.plain_len);
            body.put_u32(segment.entry_count);
        }
        let mut names = Vec::new();
        self.segments.iter().for_each(|segment| names.put_blob(&segment.first_key));
        let mut out = Vec::with_capacity(HEADER_LEN + body.len() + names.len());
        put_magic(&mut out, MAGIC, VERSION, 0);
        out.put_count(body.len());
        out.put_count(names.len());
        out.put_u32(checksum(&body));
        out.put_u32(checksum(&names));
        seal(&mut out, 0);
        out.put(&body);
        out.put(&names);
        out
    }

    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(stored);
        take_magic(&mut fields, "manifest", MAGIC, VERSION)?;
        let body_len = fields.u32("body length")? as usize;
        let names_len = fields.u32("names length")? as usize;
        let body_checksum = fields.u32("body checksum")?;
        let names_checksum = fields.u32("names checksum")?;
        check_sum("manifest header", fields.u32("header checksum")?, &stored[..HEADER_LEN - 4])?;
        let body = fields.bytes("body", body_len)?;
        let names = fields.bytes("names", names_len)?;
        fields.end("manifest")?;
        check_sum("manifest body", body_checksum, body)?;
        check_sum("manifest names", names_checksum, names)?;
        // Bytes behind the known ones of either are a later release's, and optional by definition.
        Self::decode_body(&mut Fields::new(body), &mut Fields::new(names))
    }

    fn decode_body(fields: &mut Fields<'_>, names: &mut Fields<'_>) -> Result<Self> {
        let lineage = LineageId::from_bytes(fields.array("lineage")?);
        let parent: [u8; 32] = fields.array("parent")?;
        let started = Timestamp::from_nanos(fields.i64("started")?);
        let finished = Timestamp::from_nanos(fields.i64("finished")?);
        let flags = fields.u32("backup flags")?;
        let totals = Totals::take(fields)?;
        let lineage_name = fields.text("lineage name")?;
        let source_kind = fields.text("source kind")?;
        let source_location = fields.text("source location")?;
        let host = fields.text("host")?;
        let tool = fields.text("tool")?;
        let tags = fields.count("tag count", 4)?;
        let tags = (0..tags).map(|_| fields.text("tag")).collect::<Result<_>>()?;
        let facts = fields.count("fact count", 8)?;
        let facts = (0..facts).map(|_| Ok((fields.text("fact name")?, fields.text("fact")?))).collect::<Result<_>>()?;
        let segments = decode_segments(fields, names)?;
        Ok(Self {
            lineage,
            lineage_name,
            parent: (parent != [0; 32]).then(|| ObjectHash::from_bytes(parent)),
            started,
            finished,
            partial: flags & 1 != 0,
            source_kind,
            source_location,
            host,
            tool,
            tags,
            facts,
            totals,
            segments,
        })
    }
}

fn decode_segments(fields: &mut Fields<'_>, names: &mut Fields<'_>) -> Result<Vec<SegmentRef>> {
    let count = fields.count("segment count", 40)?;
    let mut segments: Vec<SegmentRef> = Vec::with_capacity(count);
    for _ in 0..count {
        let segment = SegmentRef {
            chunk: ChunkId::from_bytes(fields.array("segment chunk")?),
            plain_len: fields.u32("segment length")?,
            entry_count: fields.u32("segment entries")?,
            first_key: names.blob("segment key")?.to_vec(),
        };
        if segments.last().is_some_and(|last| last.first_key >= segment.first_key) {
            return Err(Error::corrupt("manifest: segments are not sorted"));
        }
        segments.push(segment);
    }
    Ok(segments)
}
