//! The advisory lock of a store that cannot create-only, and therefore cannot be shared.
//!
//! It keeps two careful operators apart, no more: on such a store nothing can be made certain. The lock is an object with
//! text for people. It is looked for, written, and read back; of two writers who race, the one who wrote last holds it and
//! the other notices, unless the store is slower than the [`PATIENCE`] between writing and reading back.

use std::time::Duration;

use bytes::Bytes;

use super::layout::StoredObject;
use super::writer::Store;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::Token;

/// What a lock says is at most so long, or it is not one.
const LOCK_LEN_MAX: u64 = 4096;
/// How long a racer is given to overwrite what we have just written.
const PATIENCE: Duration = Duration::from_millis(100);
const FIRST_LINE: &str = "everpack single-writer lock";

/// Who holds a lock, for people to find them, and for a process of the same host to see that they are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Host name.
    pub host: String,
    /// The kernel's boot id; empty if unknown.
    pub boot_id: String,
    /// The pid namespace; 0 if unknown.
    pub pid_namespace: u64,
    /// Process on that host.
    pub pid: u32,
    /// When that started, kernel ticks since boot; 0 if unknown.
    pub started: u64,
    /// When the lock was taken.
    pub since: Timestamp,
}

/// A held lock. Not released when dropped: a process that is killed cannot do that either.
#[derive(Debug)]
pub struct SingleWriter {
    store: Store,
    token: Token,
}

impl SingleWriter {
    /// Takes the lock, or refuses with `Busy` and names who holds it. `is_gone` says of a holder that it cannot hold anything any more.
    pub async fn acquire(
        store: &Store,
        holder: &Holder,
        token: Token,
        is_gone: impl Fn(&Holder) -> bool,
    ) -> Result<Self> {
        if let Some(bytes) = store.get_if_there(StoredObject::Lock, LOCK_LEN_MAX).await?
            && !decode(&bytes).is_some_and(|holder| is_gone(&holder))
        {
            return Err(busy(store, &bytes));
        }
        store.put_new(StoredObject::Lock, vec![encode(holder, token)]).await?;
        tokio::time::sleep(PATIENCE).await;
        let lock = Self { store: store.clone(), token };
        lock.check().await?;
        Ok(lock)
    }

    /// Still ours? `Busy` if somebody else has taken it or removed it.
    pub async fn check(&self) -> Result<()> {
        match self.store.get_if_there(StoredObject::Lock, LOCK_LEN_MAX).await? {
            Some(bytes) if token_of(&bytes) == Some(self.token) => Ok(()),
            Some(bytes) => Err(busy(&self.store, &bytes)),
            None => {
                let message =
                    format!("the single-writer lock of {} was removed while we held it", self.store.display());
                Err(Error::new(ErrorKind::Busy, message))
            }
        }
    }

    /// Gives it back. A lock that is no longer ours is left alone.
    pub async fn release(self) -> Result<()> {
        match self.check().await {
            Ok(()) => self.store.delete(StoredObject::Lock).await,
            Err(error) if error.kind() == ErrorKind::Busy => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes whatever lock is there, for an operator who knows that its holder is gone; returns what it said.
    pub async fn remove(store: &Store) -> Result<Option<String>> {
        let Some(bytes) = store.get_if_there(StoredObject::Lock, LOCK_LEN_MAX).await? else { return Ok(None) };
        store.delete(StoredObject::Lock).await?;
        Ok(Some(describe(&bytes)))
    }
}

fn encode(holder: &Holder, token: Token) -> Bytes {
    let Holder { host, boot_id, pid_namespace, pid, started, since } = holder;
    let line = |text: &str| text.chars().filter(|c| !c.is_control()).take(255).collect::<String>();
    let (host, boot_id, since) = (line(host), line(boot_id), since.to_rfc3339());
    format!(
        "{FIRST_LINE}\ntoken {token}\nhost {host}\npid {pid}\nsince {since}\nboot {boot_id}\npid-namespace {pid_namespace}\nstarted {started}\n"
    )
    .into()
}

/// Who holds it; `None` for a lock that does not say so fully.
fn decode(bytes: &[u8]) -> Option<Holder> {
    Some(Holder {
        host: field(bytes, "host")?.to_owned(),
        boot_id: field(bytes, "boot")?.to_owned(),
        pid_namespace: field(bytes, "pid-namespace")?.parse().ok()?,
        pid: field(bytes, "pid")?.parse().ok()?,
        started: field(bytes, "started")?.parse().ok()?,
        since: Timestamp::parse(field(bytes, "since")?)?,
    })
}

fn busy(store: &Store, bytes: &[u8]) -> Error {
    let message = format!(
        "{} is for one writer at a time and locked by {}; if that is dead, `everpack backup --takeover` takes the lock",
        store.display(),
        describe(bytes)
    );
    Error::new(ErrorKind::Busy, message)
}

fn field<'a>(bytes: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    (lines.next()? == FIRST_LINE).then_some(())?;
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

fn token_of(bytes: &[u8]) -> Option<Token> {
    Token::from_hex(field(bytes, "token")?)
}

/// Whatever the lock says, made harmless for a terminal.
fn describe(bytes: &[u8]) -> String {
    let text = match (field(bytes, "host"), field(bytes, "pid"), field(bytes, "since")) {
        (Some(host), Some(pid), Some(since)) => format!("process {pid} on {host} since {since}"),
        _ => format!("somebody unknown: {}", String::from_utf8_lossy(bytes)),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    fn holder(pid: u32) -> Holder {
        Holder {
            host: "db1".to_owned(),
            boot_id: "8d2f".to_owned(),
            pid_namespace: 4026531836,
            pid,
            started: 77,
            since: Timestamp::from_nanos(1_715_745_404_915_000_000),
        }
    }

    async fn acquire(store: &Store, pid: u32, byte: u8) -> Result<SingleWriter> {
        SingleWriter::acquire(store, &holder(pid), token(byte), |_| false).await
    }

    fn token(byte: u8) -> Token {
        Token::from_bytes([byte; 16])
    }

    #[tokio::test]
    async fn the_second_writer_is_told_who_is_first() {
        let store = Store::open("memory:", &StoreOptions::default()).unwrap();
        let lock = acquire(&store, 7, 1).await.unwrap();
        let error = acquire(&store, 8, 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.message().contains("locked by process 7 on db1 since 2024-05-15T03:56:44.915Z"), "{error}");
        lock.check().await.unwrap();
        lock.release().await.unwrap();
        acquire(&store, 8, 2).await.unwrap();
    }

    #[tokio::test]
    async fn a_lock_of_one_who_is_gone_is_taken_and_a_lock_that_does_not_say_whose_it_is_is_not() {
        let store = Store::open("memory:", &StoreOptions::default()).unwrap();
        let _dead = acquire(&store, 7, 1).await.unwrap();
        let gone = |found: &Holder| *found == holder(7);
        let lock = SingleWriter::acquire(&store, &holder(8), token(2), gone).await.unwrap();
        assert_eq!(
            SingleWriter::acquire(&store, &holder(9), token(3), gone).await.unwrap_err().kind(),
            ErrorKind::Busy
        );
        lock.release().await.unwrap();
        let nameless = Bytes::from(format!("{FIRST_LINE}\ntoken {}\nhost db1\npid 7\n", token(1)));
        store.put_new(StoredObject::Lock, vec![nameless]).await.unwrap();
        assert!(SingleWriter::acquire(&store, &holder(8), token(2), |_| true).await.is_err());
    }

    #[tokio::test]
    async fn of_racers_at_most_one_gets_it() {
        let store = Store::open("memory:", &StoreOptions::default()).unwrap();
        let racers = (0..8).map(|n| {
            let store = store.clone();
            async move { acquire(&store, u32::from(n), n).await.is_ok() }
        });
        let won = futures::future::join_all(racers).await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1);
    }

    #[tokio::test]
    async fn a_lock_taken_over_is_noticed_and_left_alone() {
        let store = Store::open("memory:", &StoreOptions::default()).unwrap();
        let lost = acquire(&store, 7, 1).await.unwrap();
        assert!(SingleWriter::remove(&store).await.unwrap().unwrap().contains("process 7"));
        assert_eq!(lost.check().await.unwrap_err().kind(), ErrorKind::Busy);
        let _held = acquire(&store, 8, 2).await.unwrap();
        lost.release().await.unwrap();
        assert!(store.exists(StoredObject::Lock).await.unwrap());
    }

    #[test]
    fn a_hostile_lock_cannot_write_to_the_terminal() {
        let text = describe(b"\x1b[2J\x07 surprise \xff");
        assert!(text.contains("surprise") && !text.chars().any(char::is_control), "{text:?}");
        assert_eq!(token_of(b"everpack single-writer lock\ntoken 12"), None);
    }
}
