//! Proves the bytes of an object, extent by extent.
//!
//! Objects carry no checksums. What can be proved is that every LZ4 extent is a block of exactly its stated length, and,
//! with decoding, that its content begins with the right type and that column data are well-formed vectors with as many
//! rows as their block. What is found is a list, not an error.

use crate::error::Result;

use super::meta::EntryHeader;
use super::object::{DataExtent, NotTae, Owner, ParsedObject, decode_lz4};
use super::parts::{self, ExtentContent, ExtentDescription};
use super::read_at::ReadAt;
use super::reader::COLUMN_PLAIN_MAX;
use super::vector::Vector;

/// More findings of one object than this are only counted.
const FINDINGS_MAX: usize = 100;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Unusual, harmless as far as is known.
    Note,
    /// The server will not be able to read this.
    Damage,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where in the object.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

/// Proves one LZ4 extent from its stored bytes, or says what is wrong with it.
pub type ProveExtent<'a> = dyn FnMut(&DataExtent, &[u8]) -> Result<(), String> + 'a;

/// How deep to look.
pub enum Validation<'a> {
    /// Hand every LZ4 extent and its stored bytes to a function that proves it without decoding.
    Walk(&'a mut ProveExtent<'a>),
    /// Decode every extent and look at its content.
    Decode,
}

/// What validating an object gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ValidationReport {
    /// Extents looked at, the object meta included.
    pub extents: u64,
    /// Those of them that are LZ4 blocks.
    pub lz4_extents: u64,
    /// What is wrong; at most a hundred.
    pub findings: Vec<Finding>,
    /// More of the same kind.
    pub more_findings: u64,
}

/// Reads all of an object once, in file order, and proves its extents. Fails only when reading fails.
///
/// Memory: the largest extent, and its content when decoding.
pub fn validate(source: &dyn ReadAt, mut how: Validation<'_>) -> Result<Result<ValidationReport, NotTae>> {
    let parsed = match ParsedObject::read(source)? {
        Ok(parsed) => parsed,
        Err(not_tae) => return Ok(Err(not_tae)),
    };
    let mut report = ValidationReport::default();
    let mut stored = Vec::new();
    let mut plain = Vec::new();
    for part in parts::all(&parsed) {
        report.extents += 1;
        report.lz4_extents += u64::from(part.lz4);
        // Parsing has decoded it.
        if part.content == ExtentContent::Meta {
            continue;
        }
        stored.resize(part.stored_len as usize, 0);
        source.read_exact_at(part.offset.into(), &mut stored)?;
        let proved = match &mut how {
            Validation::Walk(walk) if part.lz4 => walk(&part.extent(), &stored),
            Validation::Walk(_) => check_entry(&part, &stored),
            Validation::Decode if part.plain_len > COLUMN_PLAIN_MAX && may_hold(&part) => {
                report.note(Severity::Note, part.place(), format!("{} bytes are not decoded", part.plain_len));
                continue;
            }
            Validation::Decode if part.lz4 => decode_lz4(&stored, part.plain_len, &mut plain)
                .and_then(|()| check_content(&part, &plain, parsed.layout.owner())),
            Validation::Decode => check_content(&part, &stored, parsed.layout.owner()),
        };
        if let Err(what) = proved {
            report.note(Severity::Damage, part.place(), what);
        }
    }
    Ok(Ok(report))
}

impl ValidationReport {
    fn note(&mut self, severity: Severity, place: String, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { severity, place, what });
        } else {
            self.more_findings += 1;
        }
    }
}

/// False if the stored bytes are too few for the content, whatever they are: that is damage, which decoding tells at once.
fn may_hold(part: &ExtentDescription) -> bool {
    u64::from(part.plain_len) <= u64::from(part.stored_len) * 255
}

/// Compares the type and version in front of an extent's content with what the extent is for.
fn check_entry(part: &ExtentDescription, content: &[u8]) -> Result<(), String> {
    let Some((EntryHeader { kind, version }, _)) = EntryHeader::split(content) else {
        return Err(format!("{} bytes lack a type and version", content.len()));
    };
    let (wanted, newest) = match part.content {
        ExtentContent::Column { .. } => (EntryHeader::COLUMN, 2),
        ExtentContent::Bloom => (EntryHeader::BLOOM, 2),
        ExtentContent::Zonemap => (EntryHeader::ZONEMAP, 1),
        ExtentContent::Meta => (EntryHeader::META, 3),
    };
    if kind != wanted || !(1..=newest).contains(&version) {
        return Err(format!("has type {kind} version {version}, expected type {wanted} up to version {newest}"));
    }
    Ok(())
}

fn check_content(part: &ExtentDescription, content: &[u8], owner: Owner) -> Result<(), String> {
    check_entry(part, content)?;
    let ExtentContent::Column { data_type, rows, .. } = part.content else { return Ok(()) };
    let vector = Vector::parse(content).map_err(|error| error.message().to_owned())?;
    if vector.data_type() != data_type {
        return Err(format!("holds {}, its meta says {data_type}", vector.data_type()));
    }
    // Snapshot metadata have columns shorter than their block.
    let may_be_short = owner == Owner::DiskCleaner && vector.rows() < rows;
    if vector.rows() != rows && !may_be_short {
        return Err(format!("has {} rows, its block {rows}", vector.rows()));
    }
    vector.check_cells().map_err(|error| error.message().to_owned())
}
