//! `tae`: shows one MatrixOne object; needs no repository.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use everpack::clock::Timestamp;
use everpack::error::{Error, ErrorKind, Result};
use everpack::ops::prove_lz4;
use everpack::source::display_path;
use everpack::tae::{
    Bounds, ExtentContent, ExtentDescription, FRAMING_PROBE_LEN, Finding, NotTae, ObjectDescription, ReadAt, Severity,
    TaeName, Unframed, Validation, ValidationReport, describe, list_extents, logical_len, looks_framed, validate,
};
use everpack::units;

use super::Context;
use crate::args::ValidateArg;
use crate::errors::Exit;
use crate::open::blocking;
use crate::output::{one_line, plural, render, table};

const LONG_ABOUT: &str = "\
Shows what a MatrixOne object holds: its kind, rows, blocks and columns with their types, sizes, nulls and bounds, and whether its \
blocks are sound. A file with the checksum framing of the DISK backend is recognised. Objects bear no table name; the columns tell.

Exit code 2 means that the object is damaged, 1 that the file is no object.

  everpack tae /nights/2026-11-21/tae/018f7a2c-aaaa-7bbb-8ccc-0123456789ab_00000
  everpack tae FILE --extents --validate decode";

/// Show one MatrixOne object.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct TaeArgs {
    /// The file.
    file: PathBuf,
    /// Also list every extent: where it lies, its lengths, what it is.
    #[arg(long)]
    extents: bool,
    /// How its blocks are proved to be sound.
    #[arg(long, value_enum, value_name = "HOW", default_value = "walk")]
    validate: ValidateArg,
}

/// An open file, read at any offset.
struct Opened {
    file: File,
    len: u64,
}

impl ReadAt for Opened {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let message = || format!("read {} bytes at {offset}", buffer.len());
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(Error::corrupt(format!("{}: only {} bytes are there", message(), self.len)));
        }
        let message = message();
        self.file.read_exact_at(buffer, offset).map_err(|error| Error::io(message, error))
    }
}

/// All that is known of the file.
#[derive(serde::Serialize)]
struct Shown {
    file: String,
    /// Bytes on disk.
    size: u64,
    framing: &'static str,
    /// Why it cannot be read as an object although it begins like one.
    damage: Option<String>,
    object: Option<ObjectDescription>,
    validation: Option<ValidationReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extents: Option<Vec<ExtentDescription>>,
}

impl Shown {
    fn findings(&self) -> impl Iterator<Item = &Finding> {
        let meta = self.object.iter().flat_map(|object| &object.findings);
        meta.chain(self.validation.iter().flat_map(|validation| &validation.findings))
    }

    fn is_damaged(&self) -> bool {
        self.damage.is_some() || self.findings().any(|finding| finding.severity == Severity::Damage)
    }
}

pub(crate) async fn run(context: &Context, args: TaeArgs) -> Result<Exit> {
    let shown = blocking(move || look(&args)).await?;
    context.output.answer(&shown, || text(&shown))?;
    Ok(if shown.is_damaged() { Exit::Findings } else { Exit::Done })
}

fn look(args: &TaeArgs) -> Result<Shown> {
    let name = display_path(args.file.as_os_str().as_encoded_bytes());
    let opened = open(&args.file, &name)?;
    let mut first = [0; FRAMING_PROBE_LEN];
    let first = &mut first[..usize::try_from(opened.len).map_or(FRAMING_PROBE_LEN, |len| len.min(FRAMING_PROBE_LEN))];
    opened.read_exact_at(0, first).map_err(|error| error.context(format!("tae {name}")))?;
    let framed = logical_len(opened.len).is_some() && looks_framed(first, opened.len);
    let framing = if framed { "disk-crc" } else { "none" };
    let size = opened.len;
    let mut shown = Shown { file: name, size, framing, damage: None, object: None, validation: None, extents: None };
    let looked =
        if framed { inspect(&Unframed::new(opened)?, args, &mut shown) } else { inspect(&opened, args, &mut shown) };
    match looked {
        Ok(Ok(())) => Ok(shown),
        Ok(Err(not_tae)) if not_tae.begins_like_one => {
            shown.damage = Some(format!("begins like a TAE object, but: {not_tae}"));
            Ok(shown)
        }
        Ok(Err(not_tae)) => {
            let message = format!("tae {}: it is not a TAE object: {not_tae}", shown.file);
            Err(Error::invalid(message))
        }
        // A block whose checksum is wrong, for one.
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            shown.damage = Some(error.to_string());
            Ok(shown)
        }
        Err(error) => Err(error.context(format!("tae {}", shown.file))),
    }
}

fn open(path: &Path, name: &str) -> Result<Opened> {
    let message = || format!("tae {name}");
    let file = File::open(path).map_err(|error| Error::io(message(), error))?;
    let metadata = file.metadata().map_err(|error| Error::io(message(), error))?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!("tae {name}: it is not a regular file")));
    }
    Ok(Opened { file, len: metadata.len() })
}

fn inspect(source: &dyn ReadAt, args: &TaeArgs, shown: &mut Shown) -> Result<Result<(), NotTae>> {
    let name = args.file.file_name().and_then(|name| TaeName::parse(name.as_encoded_bytes()));
    match describe(source, name.as_ref())? {
        Ok(object) => shown.object = Some(object),
        Err(not_tae) => return Ok(Err(not_tae)),
    }
    if args.extents
        && let Ok(extents) = list_extents(source)?
    {
        shown.extents = Some(extents);
    }
    let validated = match args.validate {
        ValidateArg::Walk => validate(source, Validation::Walk(&mut prove_lz4))?,
        ValidateArg::Decode => validate(source, Validation::Decode)?,
    };
    Ok(validated.map(|report| shown.validation = Some(report)))
}

fn text(shown: &Shown) -> String {
    let mut lines = vec![shown.file.clone()];
    let framing = if shown.framing == "none" { "" } else { ", with disk framing" };
    lines.push(format!("  size     {}{framing}", size(shown.size)));
    if let Some(object) = &shown.object {
        lines.extend(facts(object));
    }
    if let Some(validation) = &shown.validation {
        let (extents, lz4) = (plural(validation.extents, "extent"), validation.lz4_extents);
        lines.push(format!("  proved   {extents}, {} of them LZ4", units::count(lz4)));
    }
    let mut text = lines.join("\n") + "\n";
    if let Some(object) = &shown.object {
        text.push('\n');
        text.push_str(&columns(object));
    }
    if let Some(extents) = &shown.extents {
        text.push('\n');
        text.push_str(&extent_table(extents));
    }
    text.push_str(&damage(shown));
    text
}

fn damage(shown: &Shown) -> String {
    let mut text = String::new();
    for finding in shown.findings() {
        let word = if finding.severity == Severity::Damage { "DAMAGED" } else { "note" };
        text.push_str(&format!("{word}: {}: {}\n", one_line(&finding.place), one_line(&finding.what)));
    }
    if let Some(more) = shown.validation.as_ref().map(|report| report.more_findings).filter(|more| *more > 0) {
        text.push_str(&format!("and {} more of the same kind\n", units::count(more)));
    }
    if let Some(damage) = &shown.damage {
        text.push_str(&format!("DAMAGED: {}\n", one_line(damage)));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// `1.2 MiB (1,234,567 bytes)`.
fn size(bytes: u64) -> String {
    format!("{} ({} bytes)", units::bytes(bytes), units::count(bytes))
}

fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(serde_json::Value::Object(fields)) => {
            let fields = fields.iter().map(|(key, value)| match value.as_str() {
                Some(value) => format!("{key} {value}"),
                None => format!("{key} {value}"),
            });
            fields.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

fn facts(object: &ObjectDescription) -> Vec<String> {
    let mut lines = vec![format!("  kind     {}", word(&object.kind))];
    lines.push(format!("  owner    {}", word(&object.owner)));
    if let Some(created) = object.created_ms.and_then(|ms| i64::try_from(ms).ok()) {
        lines.push(format!("  created  {}", Timestamp::from_nanos(created.saturating_mul(1_000_000)).to_local()));
    }
    let blocks = object.blocks.len() as u64;
    lines.push(format!("  rows     {} in {}", units::count(object.rows), plural(blocks, "block")));
    let appendable = if object.is_appendable { ", appendable" } else { "" };
    lines.push(format!("  schema   version {}{appendable}", object.schema_version));
    let ratio = object.ratio.map_or_else(String::new, |ratio| format!(", {ratio:.2} to 1"));
    lines.push(format!(
        "  data     {} stored, {} decoded{ratio}",
        units::bytes(object.data_bytes),
        units::bytes(object.data_plain_bytes)
    ));
    lines.push(format!(
        "  filters  {} of bloom filters, {} of zonemaps",
        units::bytes(object.bloom_bytes),
        units::bytes(object.zonemap_bytes)
    ));
    lines.push(format!(
        "  meta     {} stored, {} decoded; {}, {}",
        units::bytes(object.meta_bytes),
        units::bytes(object.meta_plain_bytes),
        plural(object.slots, "slot"),
        plural(object.extents, "extent"),
    ));
    lines
}

fn columns(object: &ObjectDescription) -> String {
    let header = ["column", "type", "stored", "decoded", "nulls", "distinct", "least", "greatest", ""];
    let mut table = table(&header, &[0, 2, 3, 4, 5]);
    for column in &object.columns {
        let (least, greatest) = column.bounds.as_ref().map_or_else(Default::default, shown_bounds);
        let mut marks = Vec::new();
        if column.is_sort_key {
            marks.push("sort key");
        }
        if column.is_special {
            marks.push("of the server");
        }
        let distinct =
            if column.distinct_count == 0 { "-".to_owned() } else { units::count(column.distinct_count.into()) };
        table.add_row(vec![
            column.seqnum.to_string(),
            column.data_type.to_string(),
            units::bytes(column.stored_bytes),
            units::bytes(column.plain_bytes),
            units::count(column.null_count),
            distinct,
            least,
            greatest,
            marks.join(", "),
        ]);
    }
    render(&table)
}

/// What users stored, escaped; `…` behind what was cut.
fn shown_bounds(bounds: &Bounds) -> (String, String) {
    let cut = if bounds.cut { "…" } else { "" };
    let show = |value: &str| format!("{}{cut}", display_path(value.as_bytes()));
    (show(&bounds.min), show(&bounds.max))
}

fn extent_table(extents: &[ExtentDescription]) -> String {
    let mut table = table(&["offset", "stored", "decoded", "coding", "slot", "what"], &[0, 1, 2, 4]);
    for extent in extents {
        let what = match extent.content {
            ExtentContent::Column { block, seqnum, data_type, rows } => {
                format!("block {block}, column {seqnum} ({data_type}), {}", plural(rows.into(), "row"))
            }
            ExtentContent::Bloom => "bloom filters".to_owned(),
            ExtentContent::Zonemap => "zonemaps".to_owned(),
            ExtentContent::Meta => "object meta".to_owned(),
        };
        table.add_row(vec![
            extent.offset.to_string(),
            extent.stored_len.to_string(),
            extent.plain_len.to_string(),
            if extent.lz4 { "lz4" } else { "plain" }.to_owned(),
            extent.slot.to_string(),
            what,
        ]);
    }
    render(&table)
}
