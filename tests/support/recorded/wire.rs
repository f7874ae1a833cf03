//! Packets: what MatrixOne says of itself, how it checks a password, how it sends rows.

use std::io::{Error, ErrorKind, Result};

use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::net::TcpStream;

use super::answers::Answer;
use super::{Recording, account_of};

pub const COM_QUIT: u8 = 0x01;
pub const COM_INIT_DB: u8 = 0x02;
pub const COM_QUERY: u8 = 0x03;
pub const COM_PING: u8 = 0x0e;

const LONG_PASSWORD: u32 = 1;
const FOUND_ROWS: u32 = 1 << 1;
const CONNECT_WITH_DB: u32 = 1 << 3;
const LOCAL_FILES: u32 = 1 << 7;
const PROTOCOL_41: u32 = 1 << 9;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const MULTI_STATEMENTS: u32 = 1 << 16;
const MULTI_RESULTS: u32 = 1 << 17;
const PLUGIN_AUTH: u32 = 1 << 19;
const CONNECT_ATTRS: u32 = 1 << 20;
const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
const DEPRECATE_EOF: u32 = 1 << 24;

/// Neither TLS nor compression nor session tracking: as MatrixOne without `enableTls`.
const OFFERED: u32 = LONG_PASSWORD
    | FOUND_ROWS
    | CONNECT_WITH_DB
    | LOCAL_FILES
    | PROTOCOL_41
    | TRANSACTIONS
    | SECURE_CONNECTION
    | MULTI_STATEMENTS
    | MULTI_RESULTS
    | PLUGIN_AUTH
    | CONNECT_ATTRS
    | PLUGIN_AUTH_LENENC
    | DEPRECATE_EOF;

const AUTOCOMMIT: u16 = 2;
const NATIVE: &[u8] = b"mysql_native_password";
const PACKET_MOST: usize = 0xff_ffff;
/// Twenty bytes without a zero among them.
const SCRAMBLE: &[u8; 20] = b"recordedserver012345";

/// A connection in packets.
pub struct Wire {
    stream: BufWriter<TcpStream>,
    sequence: u8,
    client: u32,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream: BufWriter::new(stream), sequence: 0, client: 0 }
    }

    /// The next command; a new conversation begins.
    pub async fn command(&mut self) -> Result<Vec<u8>> {
        self.sequence = 0;
        self.read().await
    }

    /// Waits until the client says something, or goes away.
    pub async fn spoken(&self) {
        self.stream.get_ref().peek(&mut [0]).await.ok();
    }

    /// A packet, put together from as many as it was cut into.
    async fn read(&mut self) -> Result<Vec<u8>> {
        let mut packet = Vec::new();
        loop {
            let mut header = [0; 4];
            self.stream.read_exact(&mut header).await?;
            let len = usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
            if header[3] != self.sequence {
                return Err(Error::new(ErrorKind::InvalidData, "packet out of order"));
            }
            self.sequence = self.sequence.wrapping_add(1);
            let from = packet.len();
            packet.resize(from + len, 0);
            self.stream.read_exact(&mut packet[from..]).await?;
            if len < PACKET_MOST {
                return Ok(packet);
            }
        }
    }

    async fn write(&mut self, packet: &[u8]) -> Result<()> {
        let mut rest = packet;
        loop {
            let (part, tail) = rest.split_at(rest.len().min(PACKET_MOST));
            let len = u32::try_from(part.len()).expect("at most 16 MiB").to_le_bytes();
            self.stream.write_all(&[len[0], len[1], len[2], self.sequence]).await?;
            self.stream.write_all(part).await?;
            self.sequence = self.sequence.wrapping_add(1);
            rest = tail;
            if part.len() < PACKET_MOST {
                return Ok(());
            }
        }
    }

    pub async fn answer(&mut self, answer: &Answer) -> Result<()> {
        match answer {
            Answer::Done { affected } => self.write(&ok(0x00, *affected)).await?,
            Answer::Error { code, message } => self.write(&error(*code, message)).await?,
            Answer::Rows { columns, rows } => self.rows(columns, rows).await?,
            Answer::Cut | Answer::Dies => return Err(ErrorKind::ConnectionAborted.into()),
        }
        self.stream.flush().await
    }

    async fn rows(&mut self, columns: &[(String, u8)], rows: &[Vec<Option<String>>]) -> Result<()> {
        let mut count = Vec::new();
        put_number(&mut count, columns.len() as u64);
        self.write(&count).await?;
        for (name, kind) in columns {
            self.write(&column(name, *kind)).await?;
        }
        let no_eof = self.client & DEPRECATE_EOF != 0;
        if !no_eof {
            self.write(&eof()).await?;
        }
        for row in rows {
            let mut packet = Vec::new();
            for value in row {
                match value {
                    Some(text) => put_text(&mut packet, text.as_bytes()),
                    None => packet.push(0xfb),
                }
            }
            self.write(&packet).await?;
        }
        if no_eof { self.write(&ok(0xfe, 0)).await } else { self.write(&eof()).await }
    }
}

/// Shakes hands and checks the password; the user's name, or `None` for whoever was turned away.
pub async fn login(wire: &mut Wire, id: u32, recording: &Recording) -> Result<Option<String>> {
    wire.write(&handshake(id, recording)).await?;
    wire.stream.flush().await?;
    let response = wire.read().await?;
    let client = Response::parse(&response).ok_or_else(|| Error::new(ErrorKind::InvalidData, "no login"))?;
    wire.client = client.capabilities & OFFERED;
    let proof = if client.plugin == NATIVE && !recording.switches_authentication {
        client.proof
    } else {
        let mut switch = vec![0xfe];
        switch.extend_from_slice(NATIVE);
        switch.push(0);
        switch.extend_from_slice(SCRAMBLE);
        switch.push(0);
        wire.write(&switch).await?;
        wire.stream.flush().await?;
        wire.read().await?
    };
    let refusal = match password_of(&client.user, recording) {
        Known::Password(password) if proof == proof_of(password) => None,
        Known::Password(_) => {
            let name = client.user.rsplit(['#', ':']).next().unwrap_or_default();
            Some(error(1045, &format!("Access denied for user {name}. internal error: check password failed")))
        }
        Known::NoUser(name) => Some(error(20101, &format!("internal error: there is no user {name}"))),
        Known::NoAccount(name) => Some(error(20101, &format!("internal error: there is no tenant {name}"))),
    };
    wire.write(refusal.as_deref().unwrap_or(&ok(0x00, 0))).await?;
    wire.stream.flush().await?;
    Ok(refusal.is_none().then_some(client.user))
}

enum Known<'a> {
    Password(&'a str),
    NoUser(&'a str),
    NoAccount(&'a str),
}

fn password_of<'a>(user: &'a str, recording: &'a Recording) -> Known<'a> {
    let plain = |user: &str| user.split('?').next().unwrap_or_default().replace('#', ":");
    let own = (&recording.user, &recording.password);
    let all = || std::iter::once(own).chain(recording.others.iter().map(|(user, password)| (user, password)));
    let wanted = plain(user);
    let wanted_here = wanted.strip_prefix("sys:").unwrap_or(&wanted).to_owned();
    if let Some((_, password)) = all().find(|(known, _)| [&wanted, &wanted_here].contains(&&plain(known))) {
        return Known::Password(password);
    }
    let account = account_of(user);
    if account == "sys" || all().any(|(known, _)| account_of(known) == account) {
        Known::NoUser(user.rsplit(['#', ':']).next().unwrap_or_default())
    } else {
        Known::NoAccount(account)
    }
}

/// `SHA1(password) XOR SHA1(scramble + SHA1(SHA1(password)))`; nothing for no password.
fn proof_of(password: &str) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = Sha1::digest(password);
    let twice = Sha1::digest(once);
    let mask = Sha1::new().chain_update(SCRAMBLE).chain_update(twice).finalize();
    once.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
}

struct Response {
    capabilities: u32,
    user: String,
    proof: Vec<u8>,
    plugin: Vec<u8>,
}

impl Response {
    fn parse(packet: &[u8]) -> Option<Self> {
        let capabilities = u32::from_le_bytes(*packet.first_chunk()?);
        let rest = packet.get(32..)?;
        let (user, rest) = until_zero(rest)?;
        let (&len, rest) = rest.split_first()?;
        let (proof, rest) = rest.split_at_checked(usize::from(len))?;
        let rest = if capabilities & CONNECT_WITH_DB != 0 { until_zero(rest)?.1 } else { rest };
        let plugin = if capabilities & PLUGIN_AUTH != 0 { until_zero(rest)?.0.to_vec() } else { NATIVE.to_vec() };
        Some(Self { capabilities, user: String::from_utf8(user.to_vec()).ok()?, proof: proof.to_vec(), plugin })
    }
}

fn until_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn handshake(id: u32, recording: &Recording) -> Vec<u8> {
    let plugin: &[u8] = if recording.switches_authentication { b"caching_sha2_password" } else { NATIVE };
    let offered = OFFERED.to_le_bytes();
    let mut packet = vec![10];
    packet.extend_from_slice(recording.release.as_bytes());
    packet.push(0);
    packet.extend_from_slice(&id.to_le_bytes());
    packet.extend_from_slice(&SCRAMBLE[..8]);
    packet.push(0);
    packet.extend_from_slice(&offered[..2]);
    packet.push(0xff);
    packet.extend_from_slice(&AUTOCOMMIT.to_le_bytes());
    packet.extend_from_slice(&offered[2..]);
    packet.push(21);
    packet.extend_from_slice(&[0; 10]);
    packet.extend_from_slice(&SCRAMBLE[8..]);
    packet.push(0);
    packet.extend_from_slice(plugin);
    packet.push(0);
    packet
}

fn ok(header: u8, affected: u64) -> Vec<u8> {
    let mut packet = vec![header];
    put_number(&mut packet, affected);
    packet.push(0);
    packet.extend_from_slice(&AUTOCOMMIT.to_le_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet
}

fn eof() -> Vec<u8> {
    let mut packet = vec![0xfe, 0, 0];
    packet.extend_from_slice(&AUTOCOMMIT.to_le_bytes());
    packet
}

fn error(code: u16, message: &str) -> Vec<u8> {
    let mut packet = vec![0xff];
    packet.extend_from_slice(&code.to_le_bytes());
    packet.extend_from_slice(b"#HY000");
    packet.extend_from_slice(message.as_bytes());
    packet
}

fn column(name: &str, kind: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    for text in ["def", "", "", "", name, name] {
        put_text(&mut packet, text.as_bytes());
    }
    packet.push(12);
    packet.extend_from_slice(&45_u16.to_le_bytes());
    packet.extend_from_slice(&0_u32.to_le_bytes());
    packet.push(kind);
    packet.extend_from_slice(&[0, 0, 0, 0, 0]);
    packet
}

fn put_text(packet: &mut Vec<u8>, text: &[u8]) {
    put_number(packet, text.len() as u64);
    packet.extend_from_slice(text);
}

fn put_number(packet: &mut Vec<u8>, number: u64) {
    let bytes = number.to_le_bytes();
    match number {
        0..=250 => packet.push(bytes[0]),
        251..=0xffff => {
            packet.push(0xfc);
            packet.extend_from_slice(&bytes[..2]);
        }
        0x1_0000..=0xff_ffff => {
            packet.push(0xfd);
            packet.extend_from_slice(&bytes[..3]);
        }
        _ => {
            packet.push(0xfe);
            packet.extend_from_slice(&bytes);
        }
    }
}
