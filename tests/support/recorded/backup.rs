//! Plays BACKUP: places a captured tree where the statement says, as the release that is played would write it.
//!
//! What a `file_index_*.idx` in the root or `tae/file_list` names is not copied, and `tae_list` says so; TIMESTAMP leaves out what is older;
//! a file system target is framed where the release frames it. Known difference to a real server: whether an object that was created before
//! TIMESTAMP was deleted after it does not stand in `tae_list`, so such objects are left out here and copied again there.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use everpack::matrixone::release::Release;
use everpack::matrixone::tree::{self, ListedFile};
use everpack::tae::{Framer, Ts, Unframer, looks_framed};

use super::tokens::Piece;
use super::{Answer, Fault, Shared, State, TreeSource, lock};

/// A statement, taken apart.
#[derive(Default)]
struct Statement {
    target: PathBuf,
    is_disk_endpoint: bool,
    kind: String,
    since: Option<Ts>,
}

pub fn play(state: &State, account: &str, pieces: &[Piece], killed: &AtomicBool) -> Answer {
    if account != "sys" {
        return Answer::error(20101, "internal error: do not have privilege to execute the statement");
    }
    let release = state.release().unwrap_or(Release::new(4, 2, 0));
    let statement = match Statement::read(pieces, release) {
        Ok(statement) => statement,
        Err(answer) => {
            if matches!(&answer, Answer::Error { code: 1064, .. }) {
                lock(&state.unknown).push(format!("a BACKUP that no server of {release} understands: {pieces:?}"));
            }
            return answer;
        }
    };
    let fault = state.take_fault();
    if let Some(Fault::Refuses { code, message }) = &fault {
        return Answer::error(*code, message);
    }
    let Some(night) = state.next_night() else {
        lock(&state.unknown).push("a BACKUP, and the recording has no nights".to_owned());
        return Answer::error(20101, "internal error: nothing to play");
    };
    let is_framed =
        !statement.is_disk_endpoint && (!release.target_follows_shared() || state.recording.shared == Shared::Framed);
    let copy = Copy { statement, release, is_framed, fault, killed };
    match copy.run(night) {
        Ok(()) => {
            if copy.fault.is_none() {
                *lock(&state.night) += 1;
            }
            Answer::Done { affected: 0 }
        }
        Err(Ended::With(answer)) => answer,
        Err(Ended::Dead) => {
            state.is_dead.store(true, Ordering::SeqCst);
            Answer::Cut
        }
    }
}

impl Statement {
    fn read(pieces: &[Piece], release: Release) -> Result<Self, Answer> {
        let wrong = || Answer::error(1064, "SQL parser error: You have an error in your SQL syntax; check the manual");
        let mut statement = Self::default();
        let [_, Piece::Text(_), kind, rest @ ..] = pieces else { return Err(wrong()) };
        let mut rest = if kind.is_word("filesystem") {
            let [Piece::Text(dir), word, Piece::Text(parallelism), rest @ ..] = rest else { return Err(wrong()) };
            if !word.is_word("parallelism") {
                return Err(wrong());
            }
            number(parallelism)?;
            good_path(dir)?;
            statement.target = PathBuf::from(dir);
            rest
        } else if kind.is_word("s3option") {
            let end = rest.iter().position(|piece| *piece == Piece::Sign('}')).ok_or_else(wrong)?;
            let [Piece::Sign('{'), inner @ ..] = &rest[..end] else { return Err(wrong()) };
            statement.read_options(inner)?;
            &rest[end + 1..]
        } else {
            return Err(wrong());
        };
        if let [word, Piece::Text(kind), tail @ ..] = rest
            && word.is_word("type")
            && release.has_incremental()
        {
            statement.kind.clone_from(kind);
            rest = tail;
        }
        if let [word, Piece::Text(ts), tail @ ..] = rest
            && word.is_word("timestamp")
            && release.has_incremental()
        {
            if !ts.is_empty() {
                let panic = || {
                    Answer::error(
                        20101,
                        "internal error: panic format of ts must be physical-logical: \ntypes.StringToTS",
                    )
                };
                statement.since = Some(Ts::parse(ts.as_bytes()).ok_or_else(panic)?);
            }
            rest = tail;
        }
        if rest.is_empty() || rest == [Piece::Sign(';')] { Ok(statement) } else { Err(wrong()) }
    }

    fn read_options(&mut self, pieces: &[Piece]) -> Result<(), Answer> {
        let mut options = BTreeMap::new();
        for option in pieces.split(|piece| *piece == Piece::Sign(',')) {
            let [Piece::Text(key), Piece::Sign('='), Piece::Text(value)] = option else {
                return Err(Answer::error(
                    1064,
                    "SQL parser error: You have an error in your SQL syntax; check the manual",
                ));
            };
            options.insert(key.to_lowercase(), value.as_str());
        }
        let known = [
            "endpoint",
            "region",
            "access_key_id",
            "secret_access_key",
            "bucket",
            "filepath",
            "role_arn",
            "is_minio",
            "parallelism",
            "format",
            "jsondata",
            "compression",
            "provider",
            "external_id",
        ];
        if let Some(key) = options.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(Answer::error(20300, &format!("invalid configuration: the keyword '{key}' is not support")));
        }
        if let Some(parallelism) = options.get("parallelism")
            && number(parallelism).is_err()
        {
            return Err(Answer::error(
                20300,
                &format!("invalid configuration: the parallelism '{parallelism}' is invalid"),
            ));
        }
        if options.get("endpoint") != Some(&"disk") {
            return Err(Answer::error(
                1105,
                "operation error S3: HeadObject, the recorded server plays the endpoint disk alone",
            ));
        }
        let path = options.get("filepath").copied().unwrap_or_default();
        good_path(path)?;
        self.is_disk_endpoint = true;
        self.target = Path::new(options.get("bucket").copied().unwrap_or_default()).join(path.trim_start_matches('/'));
        Ok(())
    }
}

fn number(text: &str) -> Result<u16, Answer> {
    text.parse().map_err(|_| Answer::error(1105, &format!("strconv.ParseUint: parsing \"{text}\": invalid syntax")))
}

fn good_path(path: &str) -> Result<(), Answer> {
    if let Some((service, _)) = path.rsplit_once(':') {
        return Err(Answer::error(20422, &format!("service {service} not found")));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()@/=".contains(c);
    if path.chars().all(good) { Ok(()) } else { Err(Answer::error(20411, &format!("invalid file path {path}/_"))) }
}

/// How a copy ended before its end.
enum Ended {
    With(Answer),
    Dead,
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::With(Answer::error(1105, &error.to_string()))
    }
}

struct Copy<'a> {
    statement: Statement,
    release: Release,
    is_framed: bool,
    fault: Option<Fault>,
    killed: &'a AtomicBool,
}

/// What the target names as not to be copied.
#[derive(Default)]
struct Named {
    /// In a `file_index`: an earlier tree has it.
    elsewhere: HashSet<String>,
    /// In `tae/file_list`: whoever asked supplies it.
    supplied: HashSet<String>,
}

impl Copy<'_> {
    fn run(&self, night: &TreeSource) -> Result<(), Ended> {
        let list = logical(&std::fs::read(night.root.join(tree::TAE_LIST))?);
        let rows = tree::parse_list(&list).expect("a captured tree has a good list");
        for name in files_in(&night.root.join("config"))? {
            self.write_raw(&format!("config/{name}"), &std::fs::read(night.root.join("config").join(&name))?)?;
        }
        let named = self.named()?;
        let rows = self.copy_rows(night, rows, &named)?;
        self.write_summed(tree::TAE_LIST, &tree::write_list(&rows))?;
        let sum = logical(&std::fs::read(night.root.join(tree::TAE_SUM))?);
        self.write_summed(tree::TAE_SUM, &self.sum_with_kind(&sum))?;
        if !matches!(self.fault, Some(Fault::MissingHkData)) {
            let ids = logical(&std::fs::read(night.root.join(tree::HK_DATA))?);
            self.write_summed(tree::HK_DATA, &ids)?;
        }
        let meta = String::from_utf8(std::fs::read(night.root.join(tree::MO_META))?).expect("mo_meta is text");
        let meta = meta.replace("Version: v4.2.0", &format!("Version: {}", self.release)).into_bytes();
        self.write_raw(tree::MO_META, &meta)?;
        self.write_raw("mo_meta.sha256", &tree::sha256(&meta))
    }

    /// Copies what belongs into this tree; the rows as this run has to write them.
    fn copy_rows(&self, night: &TreeSource, rows: Vec<ListedFile>, named: &Named) -> Result<Vec<ListedFile>, Ended> {
        let mut kept = Vec::with_capacity(rows.len());
        let mut wanted = Vec::new();
        for mut row in rows {
            let skippable = row.sha256.is_some() && row.object().is_some_and(|name| name.is_content_stable());
            let is_old = match (self.statement.since, row.ts) {
                (Some(since), Some(ts)) => !ts.is_zero() && ts < since,
                _ => false,
            };
            if skippable && named.supplied.contains(&row.path) {
                row.sha256 = None;
            } else if skippable && (named.elsewhere.contains(&row.path) || is_old) {
                (row.sha256, row.copied) = (None, false);
            } else if row.copied {
                wanted.push(kept.len());
            }
            kept.push(row);
        }
        let hit = self.victim(&kept, &wanted);
        let half = wanted.len() / 2;
        for (done, &at) in wanted.iter().enumerate() {
            self.pause(done >= half, night)?;
            if Some(at) == hit && matches!(self.fault, Some(Fault::VanishedObject | Fault::MissingObject)) {
                continue;
            }
            let name = format!("tae/{}", kept[at].path);
            let content = logical(&std::fs::read(night.root.join(&name))?);
            self.write_tae(&name, &content)?;
        }
        if let Some(at) = hit {
            match self.fault {
                Some(Fault::WrongSha) => kept[at].sha256 = Some([0x5a; 32]),
                Some(Fault::VanishedObject) => drop(kept.remove(at)),
                _ => {}
            }
        }
        Ok(kept)
    }

    /// The object that a fault is about: the largest one that is copied, which no table can do without.
    fn victim(&self, rows: &[ListedFile], wanted: &[usize]) -> Option<usize> {
        let hits = matches!(self.fault, Some(Fault::VanishedObject | Fault::MissingObject | Fault::WrongSha));
        let objects = wanted
            .iter()
            .copied()
            .filter(|&at| rows[at].sha256.is_some() && rows[at].object().is_some_and(|name| name.is_content_stable()));
        objects.max_by_key(|&at| rows[at].size).filter(|_| hits)
    }

    /// What happens between two files.
    fn pause(&self, is_late: bool, night: &TreeSource) -> Result<(), Ended> {
        if let Some(Fault::Slow(time)) = &self.fault {
            let mut left = *time;
            while !left.is_zero() && !self.killed.load(Ordering::SeqCst) {
                let step = left.min(Duration::from_millis(5));
                std::thread::sleep(step);
                left -= step;
            }
        }
        if self.killed.load(Ordering::SeqCst) {
            return Err(Ended::With(Answer::error(1105, "context canceled")));
        }
        match (&self.fault, is_late) {
            (Some(Fault::Killed), true) => Err(Ended::Dead),
            (Some(Fault::Cut), true) => Err(Ended::With(Answer::Cut)),
            (Some(Fault::DiskFull), true) => {
                let path = self.statement.target.join("tae").join(night.root.file_name().unwrap_or_default());
                Err(Ended::With(Answer::error(1105, &format!("write {}: no space left on device", path.display()))))
            }
            _ => Ok(()),
        }
    }

    /// Reads the lists of names in the target. Of a bad index nobody hears; a bad list ends the backup.
    fn named(&self) -> Result<Named, Ended> {
        let mut named = Named::default();
        if self.release.has_file_index()
            && let Some(bytes) = self.newest_index()?
            && let Some(content) = self.read_input(&bytes)
        {
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(content.as_slice());
            // One wrong row, and the whole index is as good as none.
            if let Ok(records) = reader.records().collect::<Result<Vec<_>, _>>() {
                named.elsewhere = records.iter().filter_map(|record| record.get(0).map(str::to_owned)).collect();
            }
        }
        let tae = self.statement.target.join("tae");
        if self.release.has_file_list() && tae.is_dir() {
            let mut entries: Vec<_> =
                std::fs::read_dir(&tae)?.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
            entries.sort();
            if entries.first().is_some_and(|name| name == "file_list") {
                let bytes = std::fs::read(tae.join("file_list"))?;
                let content = self.read_input(&bytes);
                let content =
                    content.ok_or_else(|| Ended::With(Answer::error(20101, "internal error: checksum not match")))?;
                named.supplied = String::from_utf8_lossy(&content).split('\n').map(str::to_owned).collect();
            }
        }
        Ok(named)
    }

    /// The index of the greatest timestamp; before 4.2 they are compared as text.
    fn newest_index(&self) -> Result<Option<Vec<u8>>, Ended> {
        if !self.statement.target.is_dir() {
            return Ok(None);
        }
        let files = files_in(&self.statement.target)?;
        let stamped = files.into_iter().filter_map(|name| {
            let ts = name.strip_prefix("file_index_")?.strip_suffix(".idx")?.to_owned();
            Some((ts, name))
        });
        let newest = if self.release.target_follows_shared() {
            stamped.filter_map(|(ts, name)| Some((Ts::parse(ts.as_bytes())?, name))).max().map(|(_, name)| name)
        } else {
            stamped.max().map(|(_, name)| name)
        };
        newest.map(|name| std::fs::read(self.statement.target.join(name)).map_err(Ended::from)).transpose()
    }

    /// An input file, read by the file service of the target: with checksums there, as it is elsewhere.
    fn read_input(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.is_framed {
            return Some(bytes.to_vec());
        }
        let mut content = Vec::new();
        let mut unframer = Unframer::new();
        unframer.feed(bytes, &mut content).ok()?;
        unframer.finish(&mut content).ok()?;
        Some(content)
    }

    fn sum_with_kind(&self, sum: &[u8]) -> Vec<u8> {
        let mut record =
            csv::ReaderBuilder::new().has_headers(false).from_reader(sum).records().next().unwrap().unwrap();
        let fields: Vec<String> =
            record.iter().take(3).map(str::to_owned).chain([self.statement.kind.clone()]).collect();
        record.clear();
        fields.iter().for_each(|field| record.push_field(field));
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        writer.write_record(&record).unwrap();
        writer.into_inner().unwrap()
    }

    fn write_summed(&self, name: &str, content: &[u8]) -> Result<(), Ended> {
        self.write_tae(name, content)?;
        self.write_tae(&format!("{name}{}", tree::SHA256_SUFFIX), &tree::sha256(content))
    }

    fn write_tae(&self, name: &str, content: &[u8]) -> Result<(), Ended> {
        if !self.is_framed {
            return self.write_raw(name, content);
        }
        let mut physical = Vec::new();
        let mut framer = Framer::new();
        framer.feed(content, &mut physical);
        framer.finish(&mut physical);
        self.write_raw(name, &physical)
    }

    /// A new file, readable by the server's user alone.
    fn write_raw(&self, name: &str, bytes: &[u8]) -> Result<(), Ended> {
        let path = self.statement.target.join(name);
        std::fs::create_dir_all(path.parent().expect("a file lies in a directory"))?;
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => Ok(file.write_all(bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Ended::With(Answer::error(20406, &format!("file {name} already exists"))))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Logical bytes, whatever the captured tree is.
fn logical(bytes: &[u8]) -> Vec<u8> {
    let first = &bytes[..bytes.len().min(2048)];
    if !looks_framed(first, bytes.len() as u64) {
        return bytes.to_vec();
    }
    let mut content = Vec::new();
    let mut unframer = Unframer::new();
    unframer.feed(bytes, &mut content).expect("a captured file is whole");
    unframer.finish(&mut content).expect("a captured file is whole");
    content
}

fn files_in(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
