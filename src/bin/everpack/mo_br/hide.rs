//! Secrets out of the process list.
//!
//! A password typed behind `--password` stands in the memory that `ps` and `/proc/PID/cmdline` show. It is overwritten there as soon as the words
//! were copied. For the moment before that, and in the shell's history, it was to be seen: the environment or a prompt never show it. Where the
//! system does not allow it, nothing happens.

use std::io::{Read, Seek, SeekFrom, Write};

/// Flags whose values are secrets.
const SECRET: [&str; 7] = [
    "password",
    "secret_access_key",
    "backup_secret_access_key",
    "restore_secret_access_key",
    "new_admin_password",
    "newaccountpwd",
    "access_key_secret",
];

/// Overwrites the values of secret flags in this process's own arguments.
pub(super) fn secrets() {
    // It is a courtesy: the password was given in the open, and a system that forbids this is no reason to stop.
    let _hidden = overwrite();
}

fn overwrite() -> std::io::Result<()> {
    let line = std::fs::read("/proc/self/cmdline")?;
    let ranges = secret_ranges(&line);
    if ranges.is_empty() {
        return Ok(());
    }
    let start = arguments_start()?;
    let mut memory = std::fs::OpenOptions::new().read(true).write(true).open("/proc/self/mem")?;
    // Only if this is where the words are.
    let mut there = vec![0; line.len()];
    memory.seek(SeekFrom::Start(start))?;
    memory.read_exact(&mut there)?;
    if there != line {
        return Ok(());
    }
    for range in ranges {
        memory.seek(SeekFrom::Start(start + range.start as u64))?;
        memory.write_all(&vec![b'x'; range.len()])?;
    }
    Ok(())
}

/// Where the arguments begin: the 48th field of `stat`, counted behind the name in parentheses.
fn arguments_start() -> std::io::Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = behind_name.split_whitespace().nth(48 - 3);
    field.and_then(|field| field.parse().ok()).ok_or_else(|| std::io::Error::other("no such field"))
}

/// The bytes of secret values in words that each end in a zero byte.
fn secret_ranges(line: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let (mut at, mut next_is_secret) = (0, false);
    for word in line.split(|byte| *byte == 0) {
        let text = String::from_utf8_lossy(word);
        let name = text.strip_prefix("--").unwrap_or("");
        let (name, value) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value.len())));
        let secret = SECRET.contains(&name);
        if next_is_secret {
            ranges.push(at..at + word.len());
        } else if let Some(len) = value.filter(|_| secret) {
            ranges.push(at + word.len() - len.min(word.len())..at + word.len());
        }
        next_is_secret = secret && value.is_none() && !next_is_secret;
        at += word.len() + 1;
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_of_secrets_are_found() {
        let line = b"mo_br\0backup\0--user\0root\0--password\0s3cret\0--secret_access_key=abc\0--path\0/x\0";
        let found: Vec<&[u8]> = secret_ranges(line).into_iter().map(|range| &line[range]).collect();
        assert_eq!(found, [&b"s3cret"[..], b"abc"]);
        assert!(secret_ranges(b"mo_br\0--password\0").is_empty());
        assert!(secret_ranges(b"").is_empty());
    }
}
