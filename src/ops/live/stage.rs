//! The staging root: a fresh place for each attempt, which the server writes to and we read from.
//!
//! Its name says whose it is: the repository's family, the cluster, and the attempt. Whoever holds the lock of a cluster's lineage may remove
//! every other root of that cluster and repository: the run that made it is dead.
//!
//! If we crash here: a root stays, and the next backup of the cluster removes it.

use std::fmt::Write;

use bytes::Bytes;

use super::place::Place;
use super::{StageOptions, StageTarget};
use crate::error::{Error, Result};
use crate::matrixone::release::Release;
use crate::matrixone::sql::{BackupTarget, S3Target};
use crate::matrixone::tree;
use crate::tae::{Framer, TaeName, Ts};

/// Every staging root begins with this.
const PREFIX: &str = "everpack-stage-";

/// How a server is told what it need not copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipBy {
    /// A `file_index` in the root names what we hold.
    FileIndex,
    /// A `tae/file_list` does.
    FileList,
    /// Only what is newer than the parent.
    Timestamp,
    /// Not at all: it copies everything.
    Nothing,
}

impl SkipBy {
    /// What a release understands best; a build without a number is taken for the newest.
    pub(super) fn of(release: Option<Release>, anything_held: bool, parent_has_ts: bool) -> Self {
        let can = |ability: fn(Release) -> bool| release.is_none_or(ability);
        match anything_held {
            true if can(Release::has_file_index) => Self::FileIndex,
            true if can(Release::has_file_list) => Self::FileList,
            true if parent_has_ts && can(Release::has_incremental) => Self::Timestamp,
            _ => Self::Nothing,
        }
    }
}

/// The roots of one cluster and repository.
pub(super) struct Stage<'a> {
    pub(super) options: &'a StageOptions,
    /// `everpack-stage-<family>-<cluster>-`.
    pub(super) prefix: String,
}

impl<'a> Stage<'a> {
    pub(super) fn new(options: &'a StageOptions, family: &str, cluster: &str) -> Self {
        let short = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).take(12).collect::<String>();
        Self { options, prefix: format!("{PREFIX}{}-{}-", short(family), short(cluster)) }
    }

    /// Removes the roots of runs that are dead. Gives how many there were; one that cannot be removed is named.
    pub(super) async fn sweep(&self) -> Result<(usize, Vec<String>)> {
        let (mut removed, mut stay) = (0, Vec::new());
        for name in self.options.place.names(&self.prefix).await? {
            match self.options.place.below(&name).remove().await {
                Ok(()) => removed += 1,
                Err(error) => stay.push(error.to_string()),
            }
        }
        Ok((removed, stay))
    }

    /// Makes a root and puts into it what the server need not copy.
    pub(super) async fn prepare(
        &self,
        attempt: &str,
        release: Option<Release>,
        skip_by: SkipBy,
        held: &[TaeName],
        base: Ts,
    ) -> Result<(Place, BackupTarget)> {
        let name = format!("{}{attempt}", self.prefix);
        let place = self.options.place.below(&name);
        place.create().await?;
        let target = self.target(&name, release)?;
        // Where the server reads through the file service of a framed SHARED, it reads framed lists.
        let is_framed = matches!(target, BackupTarget::Directory(_));
        let bytes = |text: String| if is_framed { framed(text.as_bytes()) } else { Bytes::from(text) };
        match skip_by {
            SkipBy::FileIndex => place.write(&format!("file_index_{base}.idx"), bytes(lines(held, true))).await?,
            SkipBy::FileList => place.write(tree::FILE_LIST, bytes(lines(held, false))).await?,
            SkipBy::Timestamp | SkipBy::Nothing => {}
        }
        Ok((place, target))
    }

    /// The root, in the words of the statement.
    fn target(&self, name: &str, release: Option<Release>) -> Result<BackupTarget> {
        match &self.options.at_server {
            StageTarget::Directory(path) => {
                let path = path.trim_end_matches('/');
                if release.is_none_or(Release::has_disk_endpoint) {
                    // Raw files, whatever SHARED is: nothing has to be unframed.
                    return Ok(BackupTarget::DiskEndpoint { bucket: path.to_owned(), path: name.to_owned() });
                }
                Ok(BackupTarget::Directory(format!("{path}/{name}")))
            }
            StageTarget::Bucket(target) => {
                let filepath = match target.filepath.trim_matches('/') {
                    "" => name.to_owned(),
                    prefix => format!("{prefix}/{name}"),
                };
                if filepath.is_empty() {
                    return Err(Error::invalid("the staging prefix is empty"));
                }
                Ok(BackupTarget::S3(S3Target { filepath, ..target.clone() }))
            }
        }
    }
}

fn lines(names: &[TaeName], ends_each: bool) -> String {
    let mut text = String::with_capacity(names.len() * 43);
    for (at, name) in names.iter().enumerate() {
        if at > 0 && !ends_each {
            text.push('\n');
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{name}");
        if ends_each {
            text.push('\n');
        }
    }
    text
}

fn framed(bytes: &[u8]) -> Bytes {
    let mut framer = Framer::new();
    let mut physical = Vec::new();
    framer.feed(bytes, &mut physical);
    framer.finish(&mut physical);
    physical.into()
}
