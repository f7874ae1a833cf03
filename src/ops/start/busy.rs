//! Does a server run on these directories? Whatever speaks for it refuses: restoring under a running server destroys both.
//!
//! Seen are processes of this host that we may look at: one whose working directory is the server's and that is called `mo-service`, one that has
//! a file open below the places, and locks on the files by which a server keeps others out. A server on another host is not seen.

use std::path::{Path, PathBuf};

use super::places::Places;
use crate::error::{Error, ErrorKind, Result};
use crate::source::locked_file;

/// Refuses with `Busy` if a process uses the places.
pub(super) fn refuse_if_used(places: &Places) -> Result<()> {
    let busy = |what: String| Err(Error::new(ErrorKind::Busy, format!("{what}: stop the server first")));
    for base in &places.data_dirs {
        if let Some(lock) = locked_file(base) {
            return busy(format!("a running process holds {} locked", lock.display()));
        }
    }
    let canonical = |path: &PathBuf| path.canonicalize().ok();
    let watched: Vec<PathBuf> = places.watched().iter().filter_map(canonical).collect();
    let home = canonical(&places.directory);
    match user(Path::new("/proc"), home.as_deref(), &watched) {
        Some(User { pid, how }) => busy(format!("process {pid} {how}")),
        None => Ok(()),
    }
}

/// A process that is in the way.
struct User {
    pid: u32,
    how: String,
}

fn user(proc: &Path, home: Option<&Path>, watched: &[PathBuf]) -> Option<User> {
    let own = std::process::id();
    let processes = std::fs::read_dir(proc).ok()?.flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == own {
            continue;
        }
        let at = process.path();
        let is_server =
            std::fs::read_to_string(at.join("comm")).is_ok_and(|name| name.trim_end().starts_with("mo-service"));
        let works_here = || std::fs::read_link(at.join("cwd")).ok().as_deref() == home;
        if is_server && home.is_some() && works_here() {
            return Some(User { pid, how: "is a mo-service with this working directory".to_owned() });
        }
        // What we may not look at belongs to somebody else; a server of theirs holds its locks.
        for open in std::fs::read_dir(at.join("fd")).into_iter().flatten().flatten() {
            let Ok(file) = std::fs::read_link(open.path()) else { continue };
            // A shell or another program that merely stands in the directory has no file of it open.
            if watched.iter().any(|place| file != *place && file.starts_with(place)) {
                return Some(User { pid, how: format!("has {} open", file.display()) });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_open_file_is_seen_and_a_bystander_is_not() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().canonicalize().unwrap();
        let data = top.join("mo-data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("object"), b"x").unwrap();
        let watched = vec![data.clone()];
        let bystander = std::process::Command::new("sleep").arg("100").current_dir(&data).spawn().unwrap();
        assert!(user(Path::new("/proc"), Some(&top), &watched).is_none(), "it only stands there");
        let stdin = std::fs::File::open(data.join("object")).unwrap();
        let reader = std::process::Command::new("sleep").arg("100").stdin(stdin).spawn().unwrap();
        let found = user(Path::new("/proc"), Some(&top), &watched).expect("it has a file open");
        assert_eq!(found.pid, reader.id());
        for mut process in [bystander, reader] {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        assert!(user(Path::new("/proc"), Some(&top), &watched).is_none(), "they are gone");
    }
}
