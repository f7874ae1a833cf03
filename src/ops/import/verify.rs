//! Every file of a tree against its digest beside it and its row in `tae_list`.

use std::collections::HashMap;

use rayon::prelude::*;

use super::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::matrixone::tree::{
    BACKUP_META, HK_DATA, ListedFile, MO_META, SHA256_SUFFIX, TAE_LIST, TAE_SUM, digest_of, hex_of_digest,
};
use crate::progress::Monitor;
use crate::source::{SourceEntry, display_path};
use crate::tae::{ReadAt, is_framed, logical};

/// Files looked at side by side before any of them is told.
const BATCH: usize = 64;

/// What came of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Relative to the tree, as people can read it.
    pub path: String,
    /// What is wrong with it; `None` if it is what the tree says.
    pub problem: Option<String>,
}

/// Reads every file of a tree and compares: with the digest in the file beside it, and with length and digest in `tae_list`. Files that the list
/// calls copied and that are not there are told by [`super::holes`] or an import, which know the earlier trees.
///
/// Tells them in the order in which `mo_br check` names them. Damage is told, not an error; fails if it is cancelled.
pub fn verify(tree: &Tree, monitor: &dyn Monitor, tell: &mut dyn FnMut(&FileState)) -> Result<()> {
    let rows: HashMap<&str, &ListedFile> = tree.list().iter().map(|row| (row.path.as_str(), row)).collect();
    let files = in_order(tree);
    for batch in files.chunks(BATCH) {
        if monitor.cancelled() {
            return Err(Error::new(ErrorKind::Unavailable, "stopped on request"));
        }
        let states: Vec<FileState> = batch.par_iter().map(|entry| look(tree, entry, &rows, monitor)).collect();
        states.iter().for_each(&mut *tell);
    }
    Ok(())
}

/// The lists first, then the configuration, then the data; digests are not files of their own.
fn in_order(tree: &Tree) -> Vec<&SourceEntry> {
    const FIRST: [&str; 5] = [BACKUP_META, MO_META, HK_DATA, TAE_LIST, TAE_SUM];
    let rank = |entry: &SourceEntry| {
        let first = FIRST.iter().position(|path| path.as_bytes() == entry.path);
        first.unwrap_or(FIRST.len() + usize::from(!entry.path.starts_with(b"config/")))
    };
    let mut files: Vec<&SourceEntry> =
        tree.files().filter(|entry| !entry.path.ends_with(SHA256_SUFFIX.as_bytes())).collect();
    files.sort_by_key(|entry| rank(entry));
    files
}

fn look(tree: &Tree, entry: &SourceEntry, rows: &HashMap<&str, &ListedFile>, monitor: &dyn Monitor) -> FileState {
    let path = display_path(&entry.path);
    let problem = compare(tree, entry, rows, monitor).unwrap_or_else(|error| {
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        Some(format!("it cannot be read: {error}{cause}"))
    });
    FileState { path, problem }
}

fn compare(
    tree: &Tree,
    entry: &SourceEntry,
    rows: &HashMap<&str, &ListedFile>,
    monitor: &dyn Monitor,
) -> Result<Option<String>> {
    let beside = [&entry.path, SHA256_SUFFIX.as_bytes()].concat();
    let beside = match tree.find(&beside) {
        Some(_) => Some(tree.read(&beside, 4096)?),
        None => None,
    };
    let row = entry.path.strip_prefix(b"tae/").and_then(|path| rows.get(std::str::from_utf8(path).ok()?)).copied();
    let wants_digest = beside.is_some() || row.is_some_and(|row| row.sha256.is_some());
    let (len, digest) = read_through(tree, entry, wants_digest, monitor)?;
    // Real servers list objects of garbage collection with the size of the file that names them: where there is a digest, it decides.
    if let Some(row) = row.filter(|row| row.size != len && row.sha256.is_none()) {
        return Ok(Some(format!("it has {len} bytes, and tae_list says {}", row.size)));
    }
    if let (Some(stated), Some(digest)) = (row.and_then(|row| row.sha256), digest)
        && stated != digest
    {
        let digest = hex_of_digest(&digest);
        return Ok(Some(format!("its SHA-256 is {digest}, and tae_list says {}", hex_of_digest(&stated))));
    }
    if let (Some(stated), Some(digest)) = (beside, digest)
        && stated != digest
    {
        return Ok(Some(format!(
            "its SHA-256 is {}, which is not the one in the file beside it",
            hex_of_digest(&digest)
        )));
    }
    Ok(None)
}

/// The logical length, and the digest of the logical bytes if it is wanted. Framing is verified block by block either way.
fn read_through(
    tree: &Tree,
    entry: &SourceEntry,
    wants_digest: bool,
    monitor: &dyn Monitor,
) -> Result<(u64, Option<[u8; 32]>)> {
    let file = tree.reader().open(entry)?;
    if !wants_digest && !is_framed(&file)? {
        return Ok((ReadAt::len(&file), None));
    }
    let file = logical(file)?;
    let digest = digest_of(&file, &mut |bytes| monitor.advance(bytes, 0, 0))?;
    Ok((file.len(), wants_digest.then_some(digest)))
}
