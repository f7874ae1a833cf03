//! Makes data directories like MatrixOne's, night by night, for the comparison with other backup tools.
//!
//! Equal options make equal bytes, names and modification times. `--night N` brings OUT/data to the state of night N in place,
//! touching only what changes; without it OUT/night-1, OUT/night-2, … become separate full trees. The tree is that of a SHARED
//! directory: objects in the root (`_01000` ones under the same name with other rows each night), `ckp/` and `gc/`.

mod objects;
mod plan;
mod rows;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use everpack::error::{Context, Error, Result};
use everpack::testing::tae_writer::{SplitMix, TaeOptions, TaeWriter, Vector, object_name};
use everpack::units;
use rayon::prelude::*;

use crate::objects::{Known, checkpoint_files, meta_place, object_bytes, stats_of};
use crate::plan::{Options, Spec, night_millis, objects_of_night};

#[derive(Parser)]
#[command(about = "Make MatrixOne-like data directories for benchmarks")]
struct Arguments {
    /// Directory to write below.
    out: PathBuf,
    /// Bytes of the first night.
    #[arg(long, default_value = "512M", value_parser = size)]
    size: u64,
    /// How many nights there are; only with separate trees.
    #[arg(long, default_value_t = 5)]
    nights: u32,
    /// Bring OUT/data to the state of this night, in place.
    #[arg(long)]
    night: Option<u32>,
    /// Share of new bytes each night.
    #[arg(long, default_value = "2%", value_parser = share)]
    new: u64,
    /// Share of bytes that the merge night rewrites.
    #[arg(long, default_value = "20%", value_parser = share)]
    merge: u64,
    /// The merge night; 0 for none. [default: the last of --nights]
    #[arg(long)]
    merge_night: Option<u32>,
    /// There is a merge every so many nights as well; 0 for none.
    #[arg(long, default_value_t = 0)]
    merge_every: u32,
    /// Nights drop as much as they add.
    #[arg(long)]
    steady: bool,
    /// Other seeds, other data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead of tables: this many objects of about a kilobyte, in one directory.
    #[arg(long)]
    objects: Option<u64>,
    /// Put a CRC-32C before every 2044 bytes, as MatrixOne's legacy DISK backend does.
    #[arg(long)]
    framed: bool,
}

fn size(text: &str) -> std::result::Result<u64, String> {
    units::parse_bytes(text).ok_or_else(|| format!("{text} is not a size; try 512M"))
}

/// In millionths.
fn share(text: &str) -> std::result::Result<u64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("{text} is not a share; try 2%"))?;
    if !(0.0..=100.0).contains(&number) {
        return Err(format!("{text} is not between 0% and 100%"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
    Ok((number * 10_000.0).round() as u64)
}

/// What was written.
#[derive(Clone, Copy, Default)]
struct Written {
    files: u64,
    bytes: u64,
}

impl std::iter::Sum for Written {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self { files: sum.files + one.files, bytes: sum.bytes + one.bytes })
    }
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let mut stdout = std::io::stdout();
    let result = run(&arguments, &mut |line| {
        // A closed pipe is no reason to stop halfway through a tree.
        let _closed = writeln!(stdout, "{line}");
    });
    let Err(error) = result else { return std::process::ExitCode::SUCCESS };
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let _closed = writeln!(std::io::stderr(), "field-data: {error}{cause}");
    std::process::ExitCode::FAILURE
}

fn run(arguments: &Arguments, say: &mut dyn FnMut(String)) -> Result<()> {
    let merge_night = arguments.merge_night.unwrap_or(arguments.nights);
    let options = Options {
        seed: arguments.seed,
        size: arguments.size,
        new_ppm: arguments.new,
        merge_ppm: arguments.merge,
        merge_night,
        merge_every: arguments.merge_every,
        steady: arguments.steady,
    };
    let nights: Vec<(u32, PathBuf)> = match arguments.night {
        Some(0) => return Err(Error::invalid("nights are counted from 1")),
        Some(night) => vec![(night, arguments.out.join("data"))],
        None => (1..=arguments.nights).map(|night| (night, arguments.out.join(format!("night-{night}")))).collect(),
    };
    let mut before: Option<PathBuf> = None;
    for (night, tree) in nights {
        let started = Instant::now();
        let tree = Tree { root: tree, before: before.take(), framed: arguments.framed };
        let written = match arguments.objects {
            Some(count) => tree.write_tiny(&options, night, count)?,
            None => tree.write_night(&options, night)?,
        };
        let elapsed = started.elapsed();
        say(format!(
            "{}: night {night}: {} files, {} written in {}, {}",
            tree.root.display(),
            written.files,
            units::bytes(written.bytes),
            units::duration(elapsed),
            units::rate(written.bytes, elapsed),
        ));
        before = Some(tree.root);
    }
    Ok(())
}

/// One directory of objects.
struct Tree {
    root: PathBuf,
    /// Last night's tree, to copy unchanged objects from.
    before: Option<PathBuf>,
    framed: bool,
}

impl Tree {
    fn write_night(&self, options: &Options, night: u32) -> Result<Written> {
        for dir in [self.root.clone(), self.root.join("ckp"), self.root.join("gc")] {
            fs::create_dir_all(&dir).context(|| format!("create {}", dir.display()))?;
        }
        let specs = objects_of_night(options, night)?;
        let mut largest_first: Vec<&Spec> = specs.iter().collect();
        largest_first.sort_by_key(|spec| std::cmp::Reverse(spec.runs.iter().map(|run| run.count).sum::<u64>()));
        let written: Written = largest_first
            .into_par_iter()
            .with_max_len(1)
            .map(|spec| self.write_object(options, spec))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .sum();

        let (mut old, mut new) = (Vec::new(), Vec::new());
        for spec in &specs {
            if spec.night == night { &mut new } else { &mut old }.push(self.known(spec)?);
        }
        let files = checkpoint_files(options, night, &old, &new)?;
        let mut wanted: HashSet<PathBuf> = specs.iter().map(|spec| self.root.join(spec.name.to_string())).collect();
        let mut meta = Written::default();
        for file in &files {
            let path = self.root.join(&file.path);
            meta = [meta, self.put(&path, &file.bytes, night_millis(night))?].into_iter().sum();
            wanted.insert(path);
        }
        self.remove_others(&wanted)?;
        Ok([written, meta].into_iter().sum())
    }

    fn write_object(&self, options: &Options, spec: &Spec) -> Result<Written> {
        let name = spec.name.to_string();
        let path = self.root.join(&name);
        let millis = if spec.synthesized { night_millis(spec.night) } else { spec.name.millis() };
        if !spec.synthesized && path.exists() {
            return Ok(Written::default());
        }
        if let Some(before) = self.before.as_ref().map(|before| before.join(&name)).filter(|path| path.exists())
            && !spec.synthesized
        {
            let bytes = fs::copy(&before, &path).context(|| format!("copy {}", before.display()))?;
            set_times(&path, millis)?;
            return Ok(Written { files: 1, bytes });
        }
        self.put(&path, &object_bytes(spec, options.seed)?.bytes, millis)
    }

    fn put(&self, path: &Path, bytes: &[u8], millis: u64) -> Result<Written> {
        let framed;
        let bytes = if self.framed {
            framed = frame(bytes);
            &framed
        } else {
            bytes
        };
        let describe = || format!("write {}", path.display());
        // A new file each time, as MatrixOne does: never the old one changed in place.
        if path.exists() {
            fs::remove_file(path).context(describe)?;
        }
        fs::write(path, bytes).context(describe)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context(describe)?;
        set_times(path, millis)?;
        Ok(Written { files: 1, bytes: bytes.len() as u64 })
    }

    /// Statistics of an object as it lies there.
    fn known(&self, spec: &Spec) -> Result<Known> {
        let path = self.root.join(spec.name.to_string());
        let describe = || format!("read {}", path.display());
        let file = File::open(&path).context(describe)?;
        let stored_len = file.metadata().context(describe)?.len();
        let read = |offset: u64, len: usize| -> Result<Vec<u8>> {
            let mut bytes = vec![0; len];
            if !self.framed {
                file.read_exact_at(&mut bytes, offset).context(describe)?;
                return Ok(bytes);
            }
            for (i, byte) in (0u64..).zip(&mut bytes) {
                let at = (offset + i) / 2044 * 2048 + 4 + (offset + i) % 2044;
                file.read_exact_at(std::slice::from_mut(byte), at).context(describe)?;
            }
            Ok(bytes)
        };
        let header: [u8; 64] = read(0, 64)?.try_into().map_err(|_| Error::corrupt(describe()))?;
        let (meta_at, meta_len) = meta_place(&header);
        let len = if self.framed { stored_len - 4 * stored_len.div_ceil(2048) } else { stored_len };
        Ok(Known {
            stats: stats_of(spec.name, len, &header, &read(meta_at, meta_len)?)?,
            table: spec.table.number(),
            tombstone: spec.table == rows::Table::Tombstones,
            millis: spec.name.millis(),
        })
    }

    fn remove_others(&self, wanted: &HashSet<PathBuf>) -> Result<()> {
        for dir in [self.root.clone(), self.root.join("ckp"), self.root.join("gc")] {
            for entry in fs::read_dir(&dir).context(|| format!("list {}", dir.display()))? {
                let path = entry.context(|| format!("list {}", dir.display()))?.path();
                if path.is_file() && !wanted.contains(&path) {
                    fs::remove_file(&path).context(|| format!("remove {}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    /// `count` tiny objects; each night after the first adds its share.
    fn write_tiny(&self, options: &Options, night: u32, count: u64) -> Result<Written> {
        fs::create_dir_all(&self.root).context(|| format!("create {}", self.root.display()))?;
        let added = count.div_ceil(1_000_000 / options.new_ppm.max(1)) * u64::from(night - 1);
        let numbers: Vec<u64> = (0..count + added).collect();
        numbers
            .into_par_iter()
            .with_min_len(64)
            .map(|number| {
                let millis = 1_700_000_000_000 + number * 97;
                let name = object_name(options.seed ^ number, millis, 0);
                let path = self.root.join(name.to_string());
                if path.exists() {
                    return Ok(Written::default());
                }
                let mut random = SplitMix(options.seed ^ number << 20);
                let mut columns = [Vector::new(23)?, Vector::new(61)?];
                for _ in 0..10 + random.below(40) {
                    columns[0].push_fixed(random.next().to_le_bytes());
                    columns[1].push_bytes(&random.next().to_le_bytes()[..6]);
                }
                let mut writer = TaeWriter::new(TaeOptions::new(name));
                writer.push_block(&columns, Vec::new())?;
                self.put(&path, &writer.finish()?.bytes, millis)
            })
            .try_reduce(Written::default, |a, b| Ok([a, b].into_iter().sum()))
    }
}

fn set_times(path: &Path, millis: u64) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let file = File::options().write(true).open(path);
    file.and_then(|file| file.set_modified(time)).context(|| format!("set the time of {}", path.display()))
}

/// The bytes as the legacy DISK backend stores them.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(bytes.len() + bytes.len() / 500 + 8);
    for content in bytes.chunks(2044) {
        framed.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
        framed.extend_from_slice(content);
    }
    framed
}
