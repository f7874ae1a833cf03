//! Targets of MatrixOne's files: objects, checkpoints, names, framing.

use super::{Choices, accepted, len_u32, repair};
use crate::codec::Lz4Walker;
use crate::error::Result;
use crate::tae::{
    DataExtent, FileClass, Framer, Location, MetaName, ObjectLayout, ObjectStats, ReadAt, Severity, TaeName, Ts,
    Unframed, Unframer, Validation, Vector, classify, describe, list_extents, logical_len, looks_framed, physical_len,
    physical_offset, read_checkpoint_rows, read_index, read_object_rows, validate,
};

/// A table object: its layout tiles it, and everything else that is said of it agrees.
pub fn tae_object(bytes: &[u8]) -> bool {
    if let Some(vector) = accepted(Vector::parse(bytes)) {
        check_vector(&vector);
    }
    // Reading from memory does not fail: whatever else is wrong makes the file opaque bytes.
    let layout = ObjectLayout::read(&bytes).expect("memory can be read");
    let description = describe(&bytes, None).expect("memory can be read");
    let extents = list_extents(&bytes).expect("memory can be read");
    let decoded = validate(&bytes, Validation::Decode).expect("memory can be read");
    let mut walks = |extent: &DataExtent, stored: &[u8]| walk(extent, stored);
    let walked = validate(&bytes, Validation::Walk(&mut walks)).expect("memory can be read");
    let Ok(layout) = layout else {
        assert!(description.is_err() && extents.is_err() && decoded.is_err() && walked.is_err());
        return false;
    };
    check_layout(&layout, bytes.len());
    let description = description.expect("a layout can be described");
    assert_eq!((description.file_len, description.extents), (bytes.len() as u64, layout.extent_count() as u64));
    let extents = extents.expect("a layout has extents");
    let listed = extents.iter().map(|extent| (extent.extent().offset, extent.stored_len));
    let meta = layout.meta_extent();
    let laid = layout.data_extents().iter().chain(layout.filter_extents()).chain([&meta]);
    assert!(listed.eq(laid.map(|extent| (extent.offset, extent.stored_len))), "both list the same extents");
    let (decoded, walked) = (decoded.expect("a layout is validated"), walked.expect("a layout is validated"));
    assert_eq!((decoded.extents, decoded.lz4_extents), (walked.extents, walked.lz4_extents));
    // A walk looks less closely than decoding, so what it finds, decoding finds too.
    let found = |report: &crate::tae::ValidationReport| {
        let damage = report.findings.iter().filter(|finding| finding.severity == Severity::Damage);
        damage.count() as u64 + report.more_findings
    };
    assert!(found(&walked) <= found(&decoded), "walked: {walked:?}, decoded: {decoded:?}");
    true
}

fn walk(extent: &DataExtent, stored: &[u8]) -> Result<(), String> {
    let mut walker = Lz4Walker::new(extent.stored_len, extent.plain_len);
    walker.feed(stored);
    walker.finish().map_err(|fault| fault.to_string())
}

fn check_layout(layout: &ObjectLayout, len: usize) {
    let regions = [layout.header(), layout.data(), layout.filters(), layout.meta(), layout.footer()];
    let mut at = 0;
    for region in regions {
        assert_eq!(region.start, at, "regions tile the file");
        assert!(region.end >= region.start);
        at = region.end;
    }
    assert_eq!((at, layout.file_len()), (len as u64, len as u64));
    assert_eq!(layout.footer().end - layout.footer().start, 64);
    let tile = |extents: &[DataExtent], from: u64| {
        extents.iter().fold(from, |at, extent| {
            assert!(extent.offset == at && extent.stored_len > 0, "extents tile their region");
            extent.end()
        })
    };
    assert_eq!(tile(layout.data_extents(), layout.data().start), layout.data().end);
    assert_eq!(tile(layout.filter_extents(), layout.filters().start), layout.filters().end);
}

fn check_vector(vector: &Vector<'_>) {
    let rows = vector.rows();
    for row in (0..rows.min(100)).chain([rows.saturating_sub(1), rows, u32::MAX]) {
        if let Some(value) = accepted(vector.value(row)) {
            assert_eq!(value.is_none(), vector.is_null(row));
        }
        accepted(vector.fixed::<8>(row));
    }
}

/// What checkpoints name, out of each of their three kinds of objects.
pub fn tae_checkpoint(bytes: &[u8]) -> bool {
    let rows = accepted(read_checkpoint_rows(&bytes));
    for row in rows.iter().flatten() {
        assert!(row.index.iter().chain(&row.table_ids).all(|location| location.file_len() >= 64));
    }
    let index = accepted(read_index(&bytes));
    let mut objects = 0;
    let data = accepted(read_object_rows(&bytes, &mut |row| {
        objects += 1;
        assert!(row.file().is_none_or(|name| name == row.stats.name));
        Ok(())
    }));
    rows.is_some() || index.is_some() || data.is_some()
}

/// Names: what is known prints back as it was.
pub fn tae_names(bytes: &[u8]) -> bool {
    if let Some(id) = bytes.first_chunk::<18>() {
        assert_eq!(TaeName::from_id(id).to_id(), *id);
    }
    if let Some(stored) = bytes.first_chunk::<{ Ts::LEN }>() {
        let ts = Ts::from_bytes(*stored);
        let again = Ts::parse(ts.to_string().as_bytes());
        assert_eq!(again, (ts.physical >= 0).then_some(ts), "{ts}");
    }
    accepted(Location::parse(&bytes[..bytes.len().min(Location::LEN)]));
    accepted(ObjectStats::parse(&bytes[..bytes.len().min(ObjectStats::LEN)]));
    if let Some(ts) = Ts::parse(bytes) {
        assert_eq!(ts.to_string().as_bytes(), bytes);
    }
    let printed = match classify(bytes) {
        FileClass::Object(name) => name.to_string(),
        FileClass::CheckpointMeta(name) | FileClass::GcMeta(name) => {
            let text = name.to_string();
            let (folder, file) = text.split_once('/').expect("the folder belongs to the name");
            assert_eq!(MetaName::parse(folder.as_bytes(), file.as_bytes()), Some(name));
            text
        }
        FileClass::Other => {
            assert_eq!(TaeName::parse(bytes), None);
            return Ts::parse(bytes).is_some();
        }
    };
    let before = bytes.strip_suffix(printed.as_bytes()).expect("a path ends in the name that it was known by");
    assert!(before.is_empty() || before.ends_with(b"/"), "a name is a whole component");
    true
}

/// Framing taken off in any pieces is the same, framing put on comes off, and every range reads right.
pub fn framing(bytes: &[u8]) -> bool {
    let mut choices = Choices(bytes);
    let cuts: Vec<usize> = (0..4).map(|_| usize::try_from(choices.u32() % 5000).expect("below 5000")).collect();
    let body = choices.0;
    let whole = unframe(body, &[]);
    assert_eq!(unframe(body, &cuts), whole, "in pieces");
    let probe = &body[..body.len().min(2048)];
    let looks = looks_framed(probe, body.len() as u64);
    assert!(whole.is_none() || looks != body.is_empty(), "what unframes looks framed");

    let mut repaired = body.to_vec();
    repair::framing(&mut repaired);
    let taken = unframe(&repaired, &cuts);
    assert_eq!(taken.as_ref().map(|logical| logical.len() as u64), logical_len(body.len() as u64));
    if let Some(logical) = &taken {
        assert_eq!(frame(logical, &cuts), repaired, "framing goes both ways");
    }
    let framed = frame(body, &cuts);
    assert_eq!(framed.len() as u64, physical_len(body.len() as u64));
    assert_eq!(unframe(&framed, &cuts).as_deref(), Some(body));
    read_range(&framed, body, cuts[0] * 7, cuts[1] * 3);
    taken.is_some()
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut choices = Choices(bytes);
    let mut pieces: Vec<_> = cuts.iter().map(|&len| choices.bytes(len)).collect();
    pieces.push(choices.0);
    pieces
}

fn unframe(physical: &[u8], cuts: &[usize]) -> Option<Vec<u8>> {
    let (mut unframer, mut logical) = (Unframer::new(), Vec::new());
    for piece in pieces(physical, cuts) {
        accepted(unframer.feed(piece, &mut logical))?;
    }
    let len = accepted(unframer.finish(&mut logical))?;
    assert_eq!(len, logical.len() as u64);
    Some(logical)
}

fn frame(logical: &[u8], cuts: &[usize]) -> Vec<u8> {
    let (mut framer, mut physical) = (Framer::new(), Vec::new());
    for piece in pieces(logical, cuts) {
        framer.feed(piece, &mut physical);
    }
    framer.finish(&mut physical);
    physical
}

fn read_range(framed: &[u8], logical: &[u8], from: usize, len: usize) {
    let unframed = Unframed::new(framed).expect("framed here");
    assert_eq!(unframed.len(), logical.len() as u64);
    let mut buffer = vec![0; len];
    let read = unframed.read_exact_at(from as u64, &mut buffer);
    match logical.get(from..from + len) {
        Some(expected) => {
            read.expect("it is there");
            assert_eq!(buffer, expected);
            if let Some(&first) = expected.first() {
                let at = usize::try_from(physical_offset(from as u64)).expect("below the length");
                assert_eq!(framed[at], first, "where a byte lies");
            }
        }
        None => assert!(read.is_err(), "{from}+{len} of {}", len_u32(logical.len())),
    }
}
