//! A directory of its own for every test, and everpack run in it without anything of the user's.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where a test works.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

/// What one run gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    /// With a repository, and a source of a few files.
    pub(crate) fn with_repository() -> Self {
        let place = Self::new();
        place.write("source/a/one.txt", &text(1, 40_000));
        place.write("source/a/two.txt", &text(2, 70_000));
        place.write("source/b.bin", &text(3, 300_000));
        place.run(&["init"]).expect(0);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a file has a directory")).expect("make its directory");
        std::fs::write(path, bytes).expect("write it");
    }

    /// everpack with a repository at `repo`, ready to run.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_everpack"));
        command
            .args(args)
            .current_dir(self.directory.path())
            .env_clear()
            .env("HOME", self.path("home"))
            .env("TZ", "UTC")
            .env("EVERPACK_REPO", self.path("repo"))
            .env("EVERPACK_CACHE", self.path("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().expect("everpack starts"))
    }

    /// Runs it with a standard output that nobody reads.
    pub(crate) fn run_unread(&self, args: &[&str]) -> Ran {
        let mut child = self.command(args).spawn().expect("everpack starts");
        drop(child.stdout.take());
        Ran::from(child.wait_with_output().expect("everpack ends"))
    }

    /// Runs it with `--json`, and asks it to stop when its progress has a line with this word.
    pub(crate) fn run_stopped_at(&self, word: &str, args: &[&str]) -> Ran {
        let mut child = self.command(&[&["--json"], args].concat()).spawn().expect("everpack starts");
        let mut progress = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut err = String::new();
        let mut seen = 0;
        while !err[seen..].contains(word) {
            seen = err.len();
            assert!(progress.read_line(&mut err).expect("progress") > 0, "it ended before {word}: {err}");
        }
        let child_id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(child_id, rustix::process::Signal::TERM).expect("it still runs");
        progress.read_to_string(&mut err).expect("the rest");
        let ran = Ran::from(child.wait_with_output().expect("everpack ends"));
        Ran { err, ..ran }
    }

    /// Every object of the repository below a folder of it.
    pub(crate) fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("repo").join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }

    /// Runs it, with `--json`, and reads the document.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let ran = self.run(&[&["--json"], args].concat()).expect(0);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{args:?}: {error}\n{}", ran.out))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            err: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        }
    }
}

impl Ran {
    /// The same, if it exited with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The same, if it failed in two lines: what and why, then what to do.
    #[track_caller]
    pub(crate) fn expect_error(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        let lines: Vec<&str> = self.err.lines().collect();
        assert_eq!(lines.len(), 2, "{self:#?}");
        assert!(lines[0].starts_with("everpack: ") && lines[1].starts_with("  "), "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }
}

/// Changes one byte in the middle of a file.
pub(crate) fn flip_middle(path: &Path) {
    let mut bytes = std::fs::read(path).expect("read it");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(path).expect("it may be read-only");
    std::fs::write(path, bytes).expect("write it");
}

/// Bytes that look like text and do not repeat.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + u8::try_from(state % 23).expect("below 23")
    };
    (0..len).map(|_| next()).collect()
}

/// True if two trees hold the same files with the same bytes.
pub(crate) fn same_tree(a: &Path, b: &Path) -> bool {
    let status = Command::new("diff").arg("-r").args([a, b]).status().expect("diff runs");
    status.success()
}
