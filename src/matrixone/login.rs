//! Who logs in to a server, where, and with which password.
//!
//! A user string goes to the server as it is (`root`, `acc1#root`, `acc1:root:role`, `root?label`): only the server knows what it means. A
//! password is never part of a URL, where the process list and every log would show it; it comes from a file, the environment, a login
//! file or a terminal. [`Secret`] holds it: nothing prints one, and its memory is wiped when it goes.
//!
//! Not done here: asking on a terminal; that is the program's.

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroize;

use crate::error::{Error, Result};

/// The port of MatrixOne's SQL.
pub const DEFAULT_PORT: u16 = 6001;
/// Where a URL of a server begins.
pub const SCHEME: &str = "matrixone://";
/// The variable of the environment that holds a password.
pub const PASSWORD_VARIABLE: &str = "EVERPACK_MO_PASSWORD";

/// More bytes than any file with a password has.
const LOGIN_FILE_MOST: u64 = 1 << 20;

/// Text that nothing prints and that is wiped when it is dropped.
///
/// The protocol's library keeps a copy for as long as a connection lives.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether a connection is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// In the clear: what a server does unless `enableTls` is set.
    #[default]
    Off,
    /// Encrypted, or not at all; the server's certificate must be good for the host.
    Required {
        /// Certificates (PEM) to trust instead of the public authorities.
        ca: Option<PathBuf>,
    },
}

/// Everything that a connection needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Name or address.
    pub host: String,
    /// Port of SQL.
    pub port: u16,
    /// As the server reads it: `root`, `acc1#root`, `acc1:root`.
    pub user: String,
    /// The user's password; may be empty.
    pub password: Secret,
    /// Encrypted or not.
    pub tls: Tls,
}

impl Login {
    /// Reads `matrixone://user@host:port`, without a password.
    ///
    /// The user may hold `#`, `:` and `?`, percent-encoded or not; the port may be left out. Fails with `Invalid` on anything that is not
    /// such a URL, and on one that seems to hold a password: its text is not repeated then.
    pub fn parse_url(url: &str) -> Result<Self> {
        let parts = UrlParts::parse(url)?;
        let user = parts.user.ok_or_else(|| no_user(url))?;
        let (host, port) = (parts.host, parts.port.unwrap_or(DEFAULT_PORT));
        Ok(Self { host, port, user, password: Secret::default(), tls: Tls::Off })
    }

    /// Reads a URL and looks for what it lacks: the password, in this order, in a password file, the environment and a login file; the
    /// user and the port in a login file too.
    ///
    /// The password may stay unknown: then [`FoundLogin::has_password`] is false, and somebody has to be asked.
    pub fn find(url: &str, sources: &LoginSources) -> Result<FoundLogin> {
        let parts = UrlParts::parse(url)?;
        let mut warnings = Vec::new();
        let mut read = |path: &Path| read_private(path, &mut warnings);
        let file = match &sources.login_file {
            Some(path) => parse_login_file(&read(path)?, path)?,
            None => LoginFile::default(),
        };
        let password = match (&sources.password_file, &sources.environment) {
            (Some(path), _) => Some(first_line(&read(path)?, path)?),
            (None, Some(secret)) => Some(secret.clone()),
            (None, None) => file.password,
        };
        let login = Self {
            host: parts.host,
            port: parts.port.or(file.port).unwrap_or(DEFAULT_PORT),
            user: parts.user.or(file.user).ok_or_else(|| no_user(url))?,
            password: password.clone().unwrap_or_default(),
            tls: sources.tls.clone(),
        };
        Ok(FoundLogin { login, has_password: password.is_some(), warnings })
    }

    /// `host:port`, as people read it.
    pub fn place(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The user without what may be a password that was written behind a colon.
    pub fn shown_user(&self) -> String {
        match self.user.split_once(':') {
            Some((before, _)) => format!("{before}:…"),
            None => self.user.clone(),
        }
    }

    /// The account that the user string names; `sys` if it names none.
    pub fn account(&self) -> &str {
        let user = self.user.split('?').next().unwrap_or_default();
        match user.find(['#', ':']) {
            Some(at) => &user[..at],
            None => "sys",
        }
    }
}

/// Where [`Login::find`] looks.
#[derive(Clone, Debug, Default)]
pub struct LoginSources {
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// What [`PASSWORD_VARIABLE`] holds.
    pub environment: Option<Secret>,
    /// A file like `~/.my.cnf`: `user`, `password`, `host` and `port` in its section `[client]`.
    pub login_file: Option<PathBuf>,
    /// Encrypted or not.
    pub tls: Tls,
}

/// What [`Login::find`] found.
#[derive(Clone, Debug)]
pub struct FoundLogin {
    /// The login; its password is empty if none was found.
    pub login: Login,
    /// False if nobody told a password: ask.
    pub has_password: bool,
    /// What should be told to the user: files with a password that others can read.
    pub warnings: Vec<String>,
}

/// What a login file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginFile {
    /// `user`.
    pub user: Option<String>,
    /// `password`.
    pub password: Option<Secret>,
    /// `host`.
    pub host: Option<String>,
    /// `port`.
    pub port: Option<u16>,
}

/// The parts of a URL that are there.
struct UrlParts {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

impl UrlParts {
    fn parse(url: &str) -> Result<Self> {
        let Some(rest) = url.strip_prefix(SCHEME) else {
            return Err(Error::invalid(format!("a server is named as {SCHEME}user@host:port")));
        };
        // A user may hold anything but `@`; a host never does, so the last one divides.
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if let Some(user) = user {
            refuse_password(user)?;
        }
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.contains(['/', '?', '#']) {
            return Err(Error::invalid(format!(
                "{SCHEME}…@{place}: behind the port there is nothing; a `#` or `?` of the user stands before the @"
            )));
        }
        let (host, port) = split_place(place)?;
        let user = user.map(decode_percent).transpose()?;
        if user.as_deref().is_some_and(|user| user.is_empty() || user.chars().any(char::is_control)) {
            return Err(Error::invalid(format!("{SCHEME}…@{place}: the user is empty or holds control characters")));
        }
        Ok(Self { user, host, port })
    }
}

fn no_user(url: &str) -> Error {
    let place = url.strip_prefix(SCHEME).unwrap_or_default();
    Error::invalid(format!("{SCHEME}{place}: no user: write {SCHEME}user@{place}, or `user` into the login file"))
}

fn split_place(place: &str) -> Result<(String, Option<u16>)> {
    let wrong = |why: &str| Error::invalid(format!("{SCHEME}…@{place}: {why}"));
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| wrong("the address has no ]"))?;
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err(wrong("behind the address comes a colon and the port")),
            }
        }
        None => match place.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(wrong("an IPv6 address stands in [ ]")),
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() || host.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(wrong("the host is missing"));
    }
    let port =
        port.map(|port| parse_port(port).ok_or_else(|| wrong("the port is a number from 1 to 65535"))).transpose()?;
    Ok((host.to_owned(), port))
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port != 0)
}

/// Refuses what people write who are used to `user:password@`.
///
/// `acc1:root` is an account and its user, so not every colon gives a password away: `root:…` and `dump:…` do, since these are users and
/// hardly ever accounts, and so does a colon behind a `#`, which already stands between account and user.
fn refuse_password(user: &str) -> Result<()> {
    let before_label = user.split('?').next().unwrap_or_default();
    let Some((before, after)) = before_label.split_once(':') else { return Ok(()) };
    let is_user = ["root", "dump"].iter().any(|name| before.eq_ignore_ascii_case(name));
    if is_user || before.contains('#') || after.is_empty() {
        return Err(Error::invalid(format!(
            "{SCHEME}{before}:…@…: this looks like a password in the URL, where everybody on this machine can read it. Leave it out and put it \
             into a file (--password-file) or into {PASSWORD_VARIABLE}. If {before} is an account, write `{before}#user`"
        )));
    }
    Ok(())
}

fn decode_percent(text: &str) -> Result<String> {
    let wrong = || {
        Error::invalid("the user in the URL: a % is followed by two hexadecimal digits of UTF-8 (%25 is a % itself)")
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let digits =
            std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        bytes.push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(wrong)?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Reads a small file and notes if others can read it too.
fn read_private(path: &Path, warnings: &mut Vec<String>) -> Result<String> {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    let failed = |error| Error::io(format!("read the password from {shown}"), error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o077 != 0 && metadata.is_file() {
        warnings.push(format!("{shown} holds a password and others can read it: `chmod 600 {shown}`"));
    }
    let mut bytes = Vec::new();
    file.take(LOGIN_FILE_MOST).read_to_end(&mut bytes).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| {
        let mut bytes = error.into_bytes();
        bytes.zeroize();
        Error::invalid(format!("read the password from {shown}: it is not UTF-8 text"))
    })
}

fn first_line(text: &str, path: &Path) -> Result<Secret> {
    let line = text.split('\n').next().unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(Error::invalid(format!("{}: its first line has to be the password, and is empty", path.display())));
    }
    Ok(Secret::new(line))
}

/// Reads a login file, as the clients of MySQL do: `[client]` alone counts, `#` and `;` begin a comment, a value may stand in quotes, and
/// a backslash in it escapes.
pub fn parse_login_file(text: &str, path: &Path) -> Result<LoginFile> {
    let mut found = LoginFile::default();
    let mut is_client = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';', '!']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            is_client = section.split(']').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("client"));
            continue;
        }
        if !is_client {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let key = key.trim();
        // The `#` of `acc1#root` would end a value as MySQL reads it, and log in as somebody else.
        let value = option_value(value, key == "user");
        match key {
            "user" => found.user = Some(value),
            "password" => found.password = Some(Secret::new(value)),
            "host" => found.host = Some(value),
            "port" => {
                let wrong = || {
                    Error::invalid(format!("{}, line {}: the port is a number from 1 to 65535", path.display(), at + 1))
                };
                found.port = Some(parse_port(&value).ok_or_else(wrong)?);
            }
            _ => {}
        }
    }
    Ok(found)
}

fn option_value(text: &str, keeps_hash: bool) -> String {
    let text = text.trim();
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let mut value = String::new();
    let mut chars = text.chars().skip(usize::from(quote.is_some()));
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(quote)) if c == quote => return value,
            ('#', None) if !keeps_hash || value.ends_with([' ', '\t']) => break,
            ('\\', _) => match chars.next() {
                Some('b') => value.push('\u{8}'),
                Some('t') => value.push('\t'),
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('s') => value.push(' '),
                Some(other @ ('\\' | '"' | '\'')) => value.push(other),
                Some(other) => value.extend(['\\', other]),
                None => value.push('\\'),
            },
            (c, _) => value.push(c),
        }
    }
    if quote.is_none() {
        value.truncate(value.trim_end().len());
    }
    value
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
