//! Every coding on real objects of MatrixOne. What the files mean is not this module's business, so each is taken once for
//! opaque bytes and once for one LZ4 block, which it is not: both must come back exactly.

#![allow(clippy::cast_possible_truncation, reason = "test data are short")]

use std::path::{Path, PathBuf};

use super::*;
use crate::testing::data::captures;

/// Enough for every shape of object, and over in seconds.
const BYTES_MAX: usize = 24 << 20;

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

#[test]
fn real_objects_come_back_whatever_is_believed_of_them() {
    let Some(data) = captures("real_objects_come_back_whatever_is_believed_of_them") else { return };
    let mut paths = Vec::new();
    files(&data.join("shop/full-1/tae"), &mut paths);
    paths.sort();
    let cutters = [
        Cutter::Gear(Gear::new(CutParameters::default())),
        Cutter::FastCdc(FastCdc::new(FastCdcParameters::default())),
        Cutter::Fixed(64 << 10),
    ];
    let (mut encoder, mut decoder) = (Encoder::new(Level::default()).unwrap(), Decoder::new().unwrap());
    let (mut hint, mut plain, mut bytes_read, mut methods) = (Hint::default(), Vec::new(), 0, [0; 3]);
    for (path, cutter) in paths.iter().zip(cutters.iter().cycle()) {
        let file = std::fs::read(path).unwrap();
        bytes_read += file.len();
        let mut walker = Lz4Walker::new(file.len() as u32, 0);
        let mut rest = &file[..];
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(cutter.next_cut(rest));
            let skip = walker.feed(chunk);
            for lz4 in [false, true] {
                hint.skip = skip;
                hint.segments = vec![Segment { len: chunk.len() as u32, lz4 }];
                let encoded = encoder.encode(chunk, Some(&hint));
                methods[usize::from(encoded.coding & 15)] += 1;
                decoder.decode_into(encoded.coding, encoded.payload, chunk.len() as u32, &mut plain).unwrap();
                assert!(plain == chunk, "{}, chunk of {}, lz4 {lz4}", path.display(), chunk.len());
            }
            rest = behind;
        }
        assert!(walker.finish().is_err(), "{} is no LZ4 block", path.display());
        if bytes_read > BYTES_MAX {
            break;
        }
    }
    assert!(bytes_read > 1 << 20 && methods[1] > 0 && methods[2] > 0, "{bytes_read} bytes, {methods:?}");
}
