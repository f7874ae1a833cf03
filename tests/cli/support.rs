//! A directory of its own for every test, and everpack run in it without anything of the user's.

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
