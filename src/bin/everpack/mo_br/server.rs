//! Logging in to the server that the flags name.

use std::io::IsTerminal;

use everpack::error::{Error, ErrorKind, Result};
use everpack::matrixone::client::Client;
use everpack::matrixone::login::{DEFAULT_PORT, Login, PASSWORD_VARIABLE, Secret, Tls};

use super::Env;

/// Who logs in where: flags, then the environment, then `mo_br.toml`; the password at last from the terminal.
pub(super) fn login(env: &Env) -> Result<Login> {
    let (line, settings) = (&env.line, &env.settings);
    let host = line.text("host").map(str::to_owned).or_else(|| settings.host.clone());
    let host = host.ok_or_else(|| Error::invalid("--host is missing: the server's name or address"))?;
    let port = match line.unquoted("port") {
        None => settings.port.unwrap_or(DEFAULT_PORT),
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            Error::invalid(format!(
                "--port {port}: a port is a number from 1 to 65535; MatrixOne's is 6001 unless configured"
            ))
        })?,
    };
    let user = line.text("user").map(str::to_owned).or_else(|| settings.user.clone());
    let user =
        user.ok_or_else(|| Error::invalid("--user is missing: for example `root`, or `acc1#admin` of a tenant"))?;
    let password = password(env, &user)?;
    Ok(Login { host, port, user, password, tls: Tls::Off })
}

fn password(env: &Env, user: &str) -> Result<Secret> {
    if env.line.is_given("password") {
        return Ok(Secret::new(env.line.text("password").unwrap_or_default()));
    }
    if let Ok(password) = std::env::var(PASSWORD_VARIABLE) {
        return Ok(Secret::new(password));
    }
    if let Some(file) = &env.settings.password_file {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Error::io(format!("read the password from {}", file.display()), error))?;
        return Ok(Secret::new(text.lines().next().unwrap_or_default()));
    }
    if std::io::stdin().is_terminal() {
        let watch = env.progress.watch();
        let question = format!("Password of {}: ", crate::output::one_line(user));
        if let Some(password) = crate::password::ask(&question, &|| watch.cancelled())? {
            return Ok(password);
        }
    }
    let message = format!(
        "no password for {user}: set {PASSWORD_VARIABLE}, name a `password_file` in mo_br.toml, or give --password"
    );
    Err(Error::invalid(message))
}

/// Connects to the server.
pub(super) async fn connect(env: &Env) -> Result<Client> {
    let login = login(env)?;
    let client = Client::connect(&login).await?;
    env.debug(&format!("connected to {}: {}", login.place(), client.version()));
    Ok(client)
}

/// A flag that has to be there.
pub(super) fn required<'a>(env: &'a Env, name: &str, what: &str) -> Result<&'a str> {
    env.line.text(name).ok_or_else(|| Error::new(ErrorKind::Invalid, format!("{what} should not be empty")))
}
