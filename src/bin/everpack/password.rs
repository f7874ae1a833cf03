//! Asks for a password on the terminal, without showing it.
//!
//! The terminal itself is asked, not standard input: that may be a file or a pipe. While it is asked, keys come one by one and make no signals,
//! so whatever ends the question, the terminal is as it was: Ctrl-C ends it, and so does a request to stop that comes another way.

use std::fs::File;
use std::io::{Read, Write};

use everpack::error::{Context, Error, ErrorKind, Result};
use everpack::matrixone::login::{Login, LoginSources, PASSWORD_VARIABLE, Secret};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// The controlling terminal.
const TERMINAL: &str = "/dev/tty";
/// After so many tenths of a second without a key, somebody may have asked us to stop.
const PATIENCE: u8 = 2;
/// More bytes than any password has.
const MOST: usize = 4096;

/// Finds a login, and asks for the password if it is nowhere.
pub(crate) fn find_login(url: &str, sources: &LoginSources, is_cancelled: &dyn Fn() -> bool) -> Result<Login> {
    let found = Login::find(url, sources)?;
    for warning in &found.warnings {
        crate::output::to_stderr(&format!("warning: {warning}"));
    }
    let mut login = found.login;
    if !found.has_password {
        let question = format!("Password of {} at {}: ", login.shown_user(), login.place());
        login.password = ask(&question, is_cancelled)?.ok_or_else(|| {
            Error::invalid(format!(
                "no password for {} at {}: put it into a file (--password-file), into {PASSWORD_VARIABLE}, or into a login file (--login-file); \
                 an empty one is an empty password",
                login.shown_user(),
                login.place()
            ))
        })?;
    }
    Ok(login)
}

/// Asks; `None` if there is no terminal to ask on.
pub(crate) fn ask(question: &str, is_cancelled: &dyn Fn() -> bool) -> Result<Option<Secret>> {
    let Ok(terminal) = File::options().read(true).write(true).open(TERMINAL) else { return Ok(None) };
    ask_on(&terminal, question, is_cancelled).map(Some)
}

/// A terminal whose keys come one by one, unseen.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> Result<Self> {
        let before = tcgetattr(terminal).map_err(std::io::Error::from).context(|| "ask on the terminal")?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        quiet.special_codes[SpecialCodeIndex::VMIN] = 0;
        quiet.special_codes[SpecialCodeIndex::VTIME] = PATIENCE;
        tcsetattr(terminal, OptionalActions::Flush, &quiet)
            .map_err(std::io::Error::from)
            .context(|| "ask on the terminal")?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nobody is left to tell if a terminal is gone.
        tcsetattr(self.terminal, OptionalActions::Flush, &self.before).ok();
    }
}

fn ask_on(mut terminal: &File, question: &str, is_cancelled: &dyn Fn() -> bool) -> Result<Secret> {
    let stopped = || Error::new(ErrorKind::Unavailable, "ask for the password: stopped");
    let quiet = Quiet::new(terminal)?;
    terminal.write_all(question.as_bytes()).context(|| "ask on the terminal")?;
    // Never moved to a longer place, which would leave a copy behind.
    let mut typed = zeroize::Zeroizing::new(Vec::with_capacity(MOST));
    loop {
        let mut key = [0];
        let count = terminal.read(&mut key).context(|| "ask on the terminal")?;
        match key[0] {
            _ if is_cancelled() => return Err(stopped()),
            _ if count == 0 => {}
            b'\r' | b'\n' => break,
            3 | 4 => return Err(stopped()),
            8 | 127 => {
                // A whole character, of however many bytes.
                while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            21 => typed.clear(),
            byte if typed.len() < MOST => typed.push(byte),
            _ => return Err(Error::invalid(format!("ask for the password: it is longer than {MOST} bytes"))),
        }
    }
    drop(quiet);
    terminal.write_all(b"\n").context(|| "ask on the terminal")?;
    let text =
        std::str::from_utf8(&typed).map_err(|_| Error::invalid("ask for the password: what was typed is not UTF-8"))?;
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// Both ends of a terminal.
    fn terminal() -> (File, File) {
        let ours: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        (File::from(ours), theirs)
    }

    /// Types after the question is there, and tells what was answered and what the terminal showed.
    fn typed(keys: &[u8]) -> (Result<String>, String) {
        let (mut ours, theirs) = terminal();
        let before = tcgetattr(&theirs).unwrap().local_modes;
        let keys = keys.to_vec();
        let person = std::thread::spawn(move || {
            let mut shown = Vec::new();
            let mut byte = [0];
            while !shown.ends_with(b"? ") {
                assert_eq!(ours.read(&mut byte).unwrap(), 1);
                shown.push(byte[0]);
            }
            ours.write_all(&keys).unwrap();
            (ours, shown)
        });
        let answer = ask_on(&theirs, "password of root? ", &|| false).map(|secret| secret.reveal().to_owned());
        assert_eq!(tcgetattr(&theirs).unwrap().local_modes, before);
        let (mut ours, mut shown) = person.join().unwrap();
        (&theirs).write_all(b"$").unwrap();
        let mut byte = [0];
        while !shown.ends_with(b"$") {
            assert_eq!(ours.read(&mut byte).unwrap(), 1);
            shown.push(byte[0]);
        }
        (answer, String::from_utf8(shown).unwrap())
    }

    #[test]
    fn what_is_typed_is_not_shown() {
        let (answer, shown) = typed("hunter2\r".as_bytes());
        assert_eq!(answer.unwrap(), "hunter2");
        assert!(!shown.contains("hunter"), "{shown:?}");
        assert_eq!(typed("wrong\u{15}hux\u{7f}ü\u{7f}nter 2\n".as_bytes()).0.unwrap(), "hunter 2");
    }

    #[test]
    fn a_question_can_be_left() {
        for key in [3, 4] {
            assert!(typed(&[b'x', key]).0.is_err());
        }
        let (_ours, theirs) = terminal();
        assert!(ask_on(&theirs, "? ", &|| true).unwrap_err().to_string().contains("stopped"));
    }
}
