//! A directory with the program in it, called `mo_br`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::recorded::{Answer, RecordedServer, Recording};

/// By what a live backup recognises a cluster.
const MADE: &str = "select unix_timestamp(created_time) from mo_catalog.mo_account where account_id = 0";

/// Where a test works.
pub struct Place {
    directory: tempfile::TempDir,
}

/// What one run gave.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The same, if it exited with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The same, if it failed as cobra's programs do, with these words.
    #[track_caller]
    pub fn expect_error(self, words: &[&str]) -> Self {
        assert_eq!(self.code, 1, "{self:#?}");
        assert!(self.err.contains("Error: "), "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_everpack"), directory.path().join("mo_br")).unwrap();
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as text, for a command line.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("TZ", "Asia/Shanghai")
            .env("EVERPACK_CACHE", self.path("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `./mo_br …`.
    pub fn run(&self, words: &[&str]) -> Ran {
        ran(self.command("./mo_br", words))
    }

    /// `everpack …`, on a repository.
    pub fn everpack(&self, repository: &str, words: &[&str]) -> Ran {
        let mut command = self.command(env!("CARGO_BIN_EXE_everpack"), words);
        command.env("EVERPACK_REPO", self.path(repository));
        ran(command)
    }

    /// What a shell makes of a script.
    pub fn shell(&self, script: &str) -> Ran {
        ran(self.command("sh", &["-euc", script]))
    }
}

pub fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A server that plays the captured nights; `None`, said aloud, where the captures are absent.
pub fn server(test: &str) -> Option<RecordedServer> {
    server_of(test, |_| {})
}

/// The same, changed before it starts.
pub fn server_of(test: &str, change: impl FnOnce(&mut Recording)) -> Option<RecordedServer> {
    let mut recording = Recording::captured(test)?;
    recording.answers.push((MADE.to_owned(), Answer::rows(&["made"], &[&["1795235000.1"]])));
    recording.answers.push(("show processlist".to_owned(), Answer::rows(&["info"], &[])));
    change(&mut recording);
    Some(RecordedServer::start_now(recording))
}

/// `--host … --port … --user … --password …` of a server.
pub fn login(server: &RecordedServer) -> Vec<String> {
    ["--host", "127.0.0.1", "--port", &server.port().to_string(), "--user", "root", "--password", "111"]
        .map(str::to_owned)
        .to_vec()
}

/// Words of several kinds as one line.
pub fn words<'a>(login: &'a [String], front: &[&'a str], back: &[&'a str]) -> Vec<&'a str> {
    front.iter().copied().chain(login.iter().map(String::as_str)).chain(back.iter().copied()).collect()
}

/// True if two trees hold the same files with the same bytes.
pub fn same_tree(a: &Path, b: &Path) -> bool {
    Command::new("diff").arg("-r").args([a, b]).stdout(Stdio::null()).status().unwrap().success()
}
