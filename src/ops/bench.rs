//! What this machine can do, measured in a few seconds, and what that predicts.
//!
//! The figures are of one core and of the functions that backup, restore and scrub run, on made-up MatrixOne objects; the disk is written with
//! fsync and read back after the page cache was asked to forget it. The predictions take the greater of what all cores and what
//! the disk need; they are for choosing hardware, no promise.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::codec::{CutParameters, Decoder, Encoder, Gear, Hint, Level, Lz4Walker, Segment, chunk_id};
use crate::error::{Context, Error, Result};
use crate::source::display_path;
use crate::tae::{DataExtent, ObjectLayout};
use crate::testing::tae_writer::{SplitMix, TaeOptions, TaeWriter, Vector, object_name};
use crate::units::MIB;

/// Each computation is repeated for so long.
const EACH: Duration = Duration::from_millis(450);
/// Written and read at most.
const DISK_BYTES: u64 = 512 * MIB;
/// Writing ends after this, whatever was written.
const DISK_TIME: Duration = Duration::from_millis(1500);
/// Average chunk, as `init` chooses it.
const AVERAGE: u32 = 32 << 10;
const BLOCK: usize = 1 << 20;

/// A rate that is to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Prediction {
    /// Logical bytes a second.
    pub rate: u64,
    /// What limits it: `processor` or `disk`.
    pub limit: &'static str,
}

/// What was measured. Rates are bytes a second.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BenchReport {
    /// Processors that can be used.
    pub cores: usize,
    /// BLAKE3, one core.
    pub hash: u64,
    /// Finding the borders of chunks, one core.
    pub cut: u64,
    /// Walking LZ4 blocks, one core, of stored bytes.
    pub walk: u64,
    /// Coding chunks, one core.
    pub encode: u64,
    /// Decoding chunks, one core, of what comes out.
    pub decode: u64,
    /// Writing to the disk, with fsync.
    pub disk_write: u64,
    /// Reading from the disk.
    pub disk_read: u64,
    /// How much of the page cache is in that.
    pub disk_read_remark: &'static str,
    /// Coded bytes for each plain one.
    pub stored_share: f64,
    /// From a source on this disk to a repository on it.
    pub first_backup: Prediction,
    /// From a repository on this disk to files on it.
    pub restore: Prediction,
    /// Of a repository on this disk.
    pub scrub: Prediction,
}

/// Measures for about five seconds. Writes a file of up to 512 MiB below `dir` and removes it again.
pub fn bench(dir: &Path) -> Result<BenchReport> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (disk_write, disk_read, disk_read_remark) = measure_disk(dir)?;
    let sample = Sample::new()?;
    let hash = rate(sample.bytes.len(), || keep(chunk_id(&sample.bytes)));
    let cut = rate(sample.bytes.len(), || keep(sample.cut()));
    let walk = rate(sample.lz4_bytes(), || keep(sample.walk()));
    let chunks = sample.chunks();
    let mut encoder = Encoder::new(Level::default())?;
    let mut coded = Vec::new();
    let encode = rate(sample.data_len(), || {
        coded.clear();
        for (chunk, hint) in &chunks {
            let encoded = encoder.encode(chunk, Some(hint));
            coded.push((encoded.coding, encoded.payload.to_vec()));
        }
    });
    let mut decoder = Decoder::new()?;
    let (mut plain, mut failed) = (Vec::new(), None);
    let decode = rate(sample.data_len(), || {
        for ((chunk, _), (coding, payload)) in chunks.iter().zip(&coded) {
            let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            failed = decoder.decode_into(*coding, payload, len, &mut plain).err().or(failed.take());
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let coded: usize = coded.iter().map(|(_, payload)| payload.len()).sum();
    let stored_share = as_f64(coded as u64) / as_f64(sample.data_len() as u64).max(1.0);
    let machine = Machine { cores, disk_write, disk_read };
    let seconds = |rate: u64| 1.0 / as_f64(rate.max(1));
    // Every file is hashed by chunk and as a whole, cut and walked; what is new is coded, decoded back, hashed as a pack and written.
    let backing = 2.0 * seconds(hash) + seconds(cut) + seconds(walk) + seconds(encode) + seconds(decode);
    let backing = backing + stored_share * seconds(hash);
    let restoring = seconds(decode) + 2.0 * seconds(hash);
    let scrubbing = seconds(decode) + (1.0 + stored_share) * seconds(hash);
    Ok(BenchReport {
        cores,
        hash,
        cut,
        walk,
        encode,
        decode,
        disk_write,
        disk_read,
        disk_read_remark,
        stored_share,
        first_backup: machine.predict(backing, 1.0, stored_share),
        restore: machine.predict(restoring, stored_share, 1.0),
        scrub: machine.predict(scrubbing, stored_share, 0.0),
    })
}

#[allow(clippy::cast_precision_loss, reason = "rates for people")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates for people; casts saturate")]
fn as_u64(value: f64) -> u64 {
    value as u64
}

/// A result that counts although nobody wants it: otherwise the compiler leaves the work out.
fn keep<T>(result: T) {
    let _used = std::hint::black_box(result);
}

/// Repeats some work on `bytes` bytes for a while; bytes a second.
fn rate(bytes: usize, mut work: impl FnMut()) -> u64 {
    work();
    let begun = Instant::now();
    let mut rounds: u64 = 0;
    while begun.elapsed() < EACH {
        work();
        rounds += 1;
    }
    as_u64(as_f64(rounds * bytes as u64) / begun.elapsed().as_secs_f64())
}

struct Machine {
    cores: usize,
    disk_write: u64,
    disk_read: u64,
}

impl Machine {
    /// What a logical byte costs: seconds of one core, bytes read, bytes written.
    fn predict(&self, core_seconds: f64, read: f64, written: f64) -> Prediction {
        let computing = core_seconds / as_f64(self.cores as u64);
        let disk = read / as_f64(self.disk_read.max(1)) + written / as_f64(self.disk_write.max(1));
        let limit = if computing >= disk { "processor" } else { "disk" };
        Prediction { rate: as_u64(1.0 / computing.max(disk)), limit }
    }
}

/// A made-up object with its map.
struct Sample {
    bytes: Vec<u8>,
    layout: ObjectLayout,
    gear: Gear,
}

impl Sample {
    /// An orders table: keys, times, amounts, names, notes.
    fn new() -> Result<Self> {
        const ROWS: u64 = 8192;
        let mut random = SplitMix(17);
        let mut writer = TaeWriter::new(TaeOptions::new(object_name(17, 1_700_000_000_000, 0)));
        for block in 0..12u64 {
            let mut columns =
                [Vector::new(23)?, Vector::new(53)?, Vector::new(22)?, Vector::new(61)?, Vector::new(61)?];
            for row in 0..ROWS {
                let number = block * ROWS + row;
                columns[0].push_fixed(number.to_le_bytes());
                columns[1].push_fixed((63_800_000_000_000_000 + number * 1_000_003).to_le_bytes());
                let amount = u32::try_from(random.below(100_000)).unwrap_or(0);
                columns[2].push_fixed(amount.to_le_bytes());
                columns[3].push_bytes(format!("customer-{:05}", random.below(40_000)).as_bytes());
                columns[4].push_bytes(format!("order {number} of {:016x} by post", random.next()).as_bytes());
            }
            writer.push_block(&columns, Vec::new())?;
        }
        let bytes = writer.finish()?.bytes;
        let layout = ObjectLayout::read(&bytes)?;
        let layout = layout.map_err(|not_tae| Error::corrupt(format!("the made-up object: {not_tae}")))?;
        Ok(Self { bytes, layout, gear: Gear::new(CutParameters::new(AVERAGE)?) })
    }

    fn stored(&self, extent: &DataExtent) -> &[u8] {
        let start = usize::try_from(extent.offset).unwrap_or(usize::MAX);
        self.bytes.get(start..start + extent.stored_len as usize).unwrap_or_default()
    }

    fn data_len(&self) -> usize {
        self.layout.data_extents().iter().map(|extent| extent.stored_len as usize).sum()
    }

    fn lz4_bytes(&self) -> usize {
        self.layout.data_extents().iter().filter(|extent| extent.lz4).map(|extent| extent.stored_len as usize).sum()
    }

    fn cut(&self) -> usize {
        let (mut rest, mut cuts) = (self.bytes.as_slice(), 0);
        while !rest.is_empty() {
            rest = &rest[self.gear.next_cut(rest).clamp(1, rest.len())..];
            cuts += 1;
        }
        cuts
    }

    fn walk(&self) -> usize {
        let extents = self.layout.data_extents().iter().filter(|extent| extent.lz4);
        extents.filter(|extent| super::prove_lz4(extent, self.stored(extent)).is_ok()).count()
    }

    /// The chunks of all data extents, with what is known of LZ4 in them.
    fn chunks(&self) -> Vec<(&[u8], Hint)> {
        let mut chunks = Vec::new();
        for extent in self.layout.data_extents() {
            let mut walker = Lz4Walker::new(extent.stored_len, extent.plain_len);
            let mut rest = self.stored(extent);
            while !rest.is_empty() {
                let (chunk, behind) = rest.split_at(self.gear.next_cut(rest).clamp(1, rest.len()));
                let skip = walker.feed(chunk);
                let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
                chunks.push((chunk, Hint { skip, segments: vec![Segment { len, lz4: extent.lz4 }] }));
                rest = behind;
            }
        }
        chunks
    }
}

/// Removed again when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // The user sees a file called everpack-bench, should it stay.
        let _gone = std::fs::remove_file(&self.0);
    }
}

/// Bytes a second written and read, and how honest the reading is.
fn measure_disk(dir: &Path) -> Result<(u64, u64, &'static str)> {
    let name = || format!("measure the disk of {}", display_path(dir.as_os_str().as_encoded_bytes()));
    let scratch = Scratch(dir.join(format!("everpack-bench-{}.tmp", std::process::id())));
    let mut file = File::create_new(&scratch.0).context(name)?;
    let mut block = vec![0; BLOCK];
    let mut random = SplitMix(3);
    for word in block.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    let begun = Instant::now();
    let mut written: u64 = 0;
    while written < DISK_BYTES && begun.elapsed() < DISK_TIME {
        // No two blocks are equal, whatever the disk does with equal ones.
        block[..8].copy_from_slice(&written.to_le_bytes());
        file.write_all(&block).context(name)?;
        written += block.len() as u64;
    }
    file.sync_all().context(name)?;
    let write = as_u64(as_f64(written) / begun.elapsed().as_secs_f64());
    let dropped = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).is_ok();
    drop(file);
    let mut file = File::open(&scratch.0).context(name)?;
    let begun = Instant::now();
    let mut read: u64 = 0;
    while begun.elapsed() < DISK_TIME {
        let len = file.read(&mut block).context(name)?;
        if len == 0 {
            break;
        }
        read += len as u64;
    }
    let rate = as_u64(as_f64(read) / begun.elapsed().as_secs_f64().max(1e-6));
    let remark = if dropped { "page cache asked to forget" } else { "from the page cache" };
    Ok((write, rate, remark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_what_a_backup_meets() {
        let sample = Sample::new().unwrap();
        assert!(sample.bytes.len() > 2 << 20, "{}", sample.bytes.len());
        let chunks = sample.chunks();
        assert_eq!(chunks.iter().map(|(chunk, _)| chunk.len()).sum::<usize>(), sample.data_len());
        assert_eq!(sample.walk(), sample.layout.data_extents().iter().filter(|extent| extent.lz4).count());
    }

    #[test]
    fn the_slower_of_processor_and_disk_decides() {
        let machine = Machine { cores: 2, disk_write: 100, disk_read: 200 };
        assert_eq!(machine.predict(0.1, 1.0, 0.0), Prediction { rate: 20, limit: "processor" });
        assert_eq!(machine.predict(0.001, 1.0, 0.5), Prediction { rate: 100, limit: "disk" });
    }

    #[test]
    fn nothing_is_left_on_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let (write, read, _) = measure_disk(directory.path()).unwrap();
        assert!(write > 0 && read > 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(measure_disk(&directory.path().join("absent")).is_err());
    }
}
