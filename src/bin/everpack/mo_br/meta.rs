//! The catalogue `mo_br.meta`, and its digest beside it.
//!
//! CSV, one line a backup, oldest first, the id in front: callers cut the id out of the last line, and carry a whole line to another host. A
//! line of ours has all the fields of [`Record`]; whatever else stands in the file is somebody else's and is kept byte for byte. No secret
//! is ever written.
//!
//! The digest (`mo_br.meta.sha256`, 64 hexadecimal digits, no line end) is verified whenever the file is read and renewed with it.
//! If we crash here: both files are written beside and made durable before either gets its name, the digest first; if the digest already is the
//! new one and the catalogue still the old one, the next run puts the waiting catalogue in place.
//!
//! Safe to run concurrently with: itself; a change holds a lock on the directory from reading to writing.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use everpack::clock::Timestamp;
use everpack::error::{Context, Error, ErrorKind, Result};
use everpack::matrixone::tree::{hex_of_digest, sha256};
use everpack::source::display_path;

use super::place::{Place, S3Place};

/// Where the catalogue is if nobody says otherwise.
const DEFAULT_NAME: &str = "mo_br.meta";
/// What a line of ours says of itself, in the field behind the type.
const MARK: &str = "everpack1";
/// Fields of a line of ours.
const FIELDS: usize = 19;
/// A catalogue of a million backups is smaller.
const BYTES_MOST: u64 = 512 << 20;

/// A backup in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) size: u64,
    pub(super) place: Place,
    pub(super) begun: Option<Timestamp>,
    /// Nanoseconds.
    pub(super) duration: Option<u64>,
    pub(super) finished: Option<Timestamp>,
    /// `<physical>-<logical>`; empty if it is not known.
    pub(super) backup_ts: String,
    /// `full` or `incremental`.
    pub(super) kind: String,
    /// The repository, if it is not the place itself.
    pub(super) repository: String,
    /// The backup's id in the repository; empty for what is not in one.
    pub(super) backup: String,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nearly all lines are ours")]
pub(super) enum MetaLine {
    Ours(Record),
    /// Somebody else's, as it is; never empty.
    Other(String),
}

impl MetaLine {
    fn parse(line: &str) -> Self {
        Record::parse(line).map_or_else(|| Self::Other(line.to_owned()), Self::Ours)
    }

    /// The first field.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Ours(record) => &record.id,
            Self::Other(line) => line.split(',').next().unwrap_or("").trim_matches('"'),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Ours(record) => record.to_line(),
            Self::Other(line) => line.clone(),
        }
    }
}

impl Record {
    /// The line without its end.
    pub(super) fn to_line(&self) -> String {
        let time = |time: &Option<Timestamp>| time.map_or_else(String::new, precise);
        let none = S3Place::default();
        let (path, s3) = match &self.place {
            Place::Filesystem(path) => (path.to_string_lossy().into_owned(), &none),
            Place::S3(s3) => (String::new(), s3),
        };
        let fields: [&str; FIELDS] = [
            &self.id,
            &self.size.to_string(),
            self.place.kind(),
            &path,
            &s3.endpoint,
            &s3.bucket,
            &s3.filepath,
            &s3.region,
            &s3.compression,
            &s3.role_arn,
            if s3.is_minio { "true" } else { "false" },
            &time(&self.begun),
            &self.duration.map_or_else(String::new, |nanos| nanos.to_string()),
            &time(&self.finished),
            &self.backup_ts,
            &self.kind,
            MARK,
            &self.repository,
            &self.backup,
        ];
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        // A line end inside a field would break a line in two; no place or name may have one.
        let fields = fields.map(crate::output::one_line);
        let line = writer.write_record(&fields).ok().and_then(|()| writer.into_inner().ok()).unwrap_or_default();
        String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line.as_bytes());
        let fields = reader.records().next()?.ok()?;
        let field = |at: usize| fields.get(at).unwrap_or("").to_owned();
        let time = |at: usize| Timestamp::parse(fields.get(at)?);
        // Fields behind the known ones are a later release's.
        if fields.len() < FIELDS || field(16) != MARK || field(0).is_empty() {
            return None;
        }
        let place = match field(2).as_str() {
            "filesystem" => Place::Filesystem(PathBuf::from(field(3))),
            "s3" => Place::S3(S3Place {
                endpoint: field(4),
                bucket: field(5),
                filepath: field(6),
                region: field(7),
                compression: field(8),
                role_arn: field(9),
                is_minio: field(10) == "true",
            }),
            _ => return None,
        };
        Some(Self {
            id: field(0),
            size: field(1).parse().ok()?,
            place,
            begun: time(11),
            duration: field(12).parse().ok(),
            finished: time(13),
            backup_ts: field(14),
            kind: field(15),
            repository: field(17),
            backup: field(18),
        })
    }
}

/// UTC to the nanosecond.
fn precise(time: Timestamp) -> String {
    let nanos = time.as_nanos();
    let whole = Timestamp::from_nanos(nanos - nanos.rem_euclid(1_000_000_000)).to_rfc3339();
    let seconds = whole.get(..19).unwrap_or(&whole);
    format!("{seconds}.{:09}Z", nanos.rem_euclid(1_000_000_000))
}

/// A catalogue that was read.
#[derive(Debug)]
pub(super) struct Catalogue {
    path: PathBuf,
    pub(super) lines: Vec<MetaLine>,
    /// There is a catalogue, and nobody wrote a digest of it.
    pub(super) lacks_digest: bool,
    /// Held by whoever changes it.
    _lock: Option<File>,
}

impl Catalogue {
    /// Reads the catalogue to look at it. None at all is an empty one.
    pub(super) fn read(path: Option<&str>) -> Result<Self> {
        Self::load(path, false)
    }

    /// Reads it to change it: nobody else changes it until this value is gone.
    pub(super) fn lock(path: Option<&str>) -> Result<Self> {
        Self::load(path, true)
    }

    fn load(path: Option<&str>, change: bool) -> Result<Self> {
        let path = file_of(path);
        let name = || format!("read {}", display(&path));
        let directory = directory_of(&path);
        let lock = if change { Some(lock_directory(&directory)?) } else { None };
        let Some(bytes) = read_if_there(&path).context(name)? else {
            return Ok(Self { path, lines: Vec::new(), lacks_digest: false, _lock: lock });
        };
        let stated = read_if_there(&digest_of(&path)).context(|| format!("read {}", display(&digest_of(&path))))?;
        let lacks_digest = stated.is_none();
        let bytes = match stated {
            None => bytes,
            Some(stated) => verified(&path, bytes, &stated)?,
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::corrupt(format!("{}: it is not text; {}", name(), what_to_do(&path))))?;
        let lines = text.lines().filter(|line| !line.trim().is_empty()).map(MetaLine::parse).collect();
        Ok(Self { path, lines, lacks_digest, _lock: lock })
    }

    /// The file, for messages.
    pub(super) fn name(&self) -> String {
        display(&self.path)
    }

    /// The line of a backup.
    pub(super) fn find(&self, id: &str) -> Option<&MetaLine> {
        self.lines.iter().rfind(|line| line.id().eq_ignore_ascii_case(id))
    }

    /// Adds a line and makes it durable.
    pub(super) fn add(&mut self, record: Record) -> Result<()> {
        self.lines.push(MetaLine::Ours(record));
        self.save()
    }

    /// Takes the lines of a backup out, durably.
    pub(super) fn remove(&mut self, id: &str) -> Result<()> {
        self.lines.retain(|line| !line.id().eq_ignore_ascii_case(id));
        self.save()
    }

    fn save(&self) -> Result<()> {
        let text: String = self.lines.iter().map(|line| format!("{}\n", line.to_text())).collect();
        let digest = hex_of_digest(&sha256(text.as_bytes()));
        let write = || -> std::io::Result<()> {
            write_durably(&waiting(&self.path), text.as_bytes())?;
            write_durably(&waiting(&digest_of(&self.path)), digest.as_bytes())?;
            publish(&digest_of(&self.path))?;
            publish(&self.path)
        };
        write().map_err(|error| Error::io(format!("write {}", self.name()), error))
    }
}

/// The bytes, if they are what the digest says; or those that an interrupted change left waiting.
fn verified(path: &Path, bytes: Vec<u8>, stated: &[u8]) -> Result<Vec<u8>> {
    let stated = String::from_utf8_lossy(stated);
    // `sha256sum` writes a name behind the digits; nobody is harmed by that.
    let stated = stated.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
    if hex_of_digest(&sha256(&bytes)) == stated {
        return Ok(bytes);
    }
    let fits = |bytes: &Vec<u8>| hex_of_digest(&sha256(bytes)) == stated;
    if let Some(newer) = read_if_there(&waiting(path))?.filter(fits) {
        publish(path).context(|| format!("finish the interrupted change of {}", display(path)))?;
        return Ok(newer);
    }
    let message = format!(
        "{}: its SHA-256 is not the one in {}: something else changed it, or it is damaged; {}",
        display(path),
        display(&digest_of(path)),
        what_to_do(path)
    );
    Err(Error::corrupt(message))
}

fn what_to_do(path: &Path) -> String {
    format!(
        "bring both files back from a copy, or move them away and let `mo_br repair_index` write them anew from the repository; if the content \
         is right as it is, run: sha256sum {0} | awk '{{printf $1}}' > {0}.sha256",
        display(path)
    )
}

fn display(path: &Path) -> String {
    display_path(path.as_os_str().as_encoded_bytes())
}

/// The file that `--meta_path` means.
fn file_of(path: Option<&str>) -> PathBuf {
    let path = PathBuf::from(path.unwrap_or(DEFAULT_NAME));
    if path.is_dir() { path.join(DEFAULT_NAME) } else { path }
}

fn directory_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn digest_of(path: &Path) -> PathBuf {
    with_suffix(path, ".sha256")
}

/// Where a new content waits for its name.
fn waiting(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

fn lock_directory(directory: &Path) -> Result<File> {
    let name = || format!("lock {} for a change of the meta file", display(directory));
    std::fs::create_dir_all(directory).context(name)?;
    let file = File::open(directory).context(name)?;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            // A file system without locks: whoever runs two at once there is on their own, as with the original.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOLCK) => return Ok(file),
            Err(error) => return Err(Error::io(name(), error.into())),
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > BYTES_MOST => {
            return Err(Error::new(ErrorKind::Corrupt, format!("{}: it is no catalogue of backups", display(path))));
        }
        _ => {}
    }
    std::fs::read(path).map(Some).context(|| display(path))
}

fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives what waits its name, durably.
fn publish(path: &Path) -> std::io::Result<()> {
    rustix::fs::rename(waiting(path), path)?;
    File::open(directory_of(path))?.sync_all()
}

#[cfg(test)]
#[path = "meta_tests.rs"]
mod tests;
