//! Where a password comes from when nobody gave one: the terminal, without showing it.

use std::io::{BufRead, IsTerminal, Write};

use everpack::error::{Error, ErrorKind, Result};
use everpack::matrixone::login::{Login, LoginSources, PASSWORD_VARIABLE, Secret};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// Finds a login, and asks for the password if it is nowhere.
pub(crate) fn find_login(url: &str, sources: &LoginSources) -> Result<Login> {
    let found = Login::find(url, sources)?;
    for warning in &found.warnings {
        crate::output::to_stderr(&format!("warning: {warning}\n"));
    }
    let mut login = found.login;
    if !found.has_password {
        login.password = ask(&format!("Password of {} at {}: ", login.shown_user(), login.place()))?;
    }
    Ok(login)
}

/// Asks on the terminal; what is typed is not shown.
pub(crate) fn ask(question: &str) -> Result<Secret> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Error::invalid(format!(
            "no password: put it into a file (--password-file), into {PASSWORD_VARIABLE}, or into a login file (--login-file); an empty file is an empty password"
        )));
    }
    let failed = |error| Error::io("ask for a password", error);
    let before = tcgetattr(&input).map_err(|error| failed(error.into()))?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    crate::output::to_stderr(question);
    tcsetattr(&input, OptionalActions::Flush, &hidden).map_err(|error| failed(error.into()))?;
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    // Whatever came: the terminal must show again what is typed.
    let _shown = tcsetattr(&input, OptionalActions::Flush, &before);
    crate::output::to_stderr("\n");
    let _ = std::io::stderr().flush();
    if read.map_err(failed)? == 0 {
        return Err(Error::new(ErrorKind::Invalid, "no password was given"));
    }
    let secret = Secret::new(line.trim_end_matches(['\r', '\n']));
    // What the line held is overwritten by what the next allocation puts there, no sooner: `Secret` wipes only its own copy.
    drop(line);
    Ok(secret)
}
