//! Walks an LZ4 block without decoding it.
//!
//! The walk proves that the block decodes to exactly its stated length, at the cost of reading tokens and offsets, and
//! tells for every chunk cut out of the block how many of its bytes finish a sequence begun before: the `skip` by which
//! the split of a chunk finds the first token. It takes the block in pieces of any size.
//!
//! A sequence: token, length bytes if its high nibble is 15, literals, two bytes of offset, length bytes if its low nibble
//! is 15. The last one ends after its literals.

use std::fmt;

/// Matches are this much longer than their nibble says.
const MATCH_LEN_MIN: u64 = 4;

/// A walk in progress.
#[derive(Clone, Debug)]
pub(crate) struct Lz4Walker {
    stored_len: u32,
    plain_len: u32,
    /// Bytes walked.
    walked: u32,
    /// What these decode to. Cannot overflow: a byte adds at most 255, and there are fewer than 2^32.
    plain: u64,
    state: State,
    fault: Option<Lz4Fault>,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug)]
enum State {
    Token,
    LiteralLength { token: u8, literals: u64 },
    Literals { token: u8, left: u64 },
    OffsetLow { token: u8 },
    OffsetHigh { token: u8, low: u8 },
    MatchLength,
}

/// Why a block is not what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lz4Fault {
    /// Where in the block.
    pub(crate) at: u32,
    /// What is wrong there.
    pub(crate) kind: Lz4FaultKind,
}

/// What can be wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lz4FaultKind {
    /// An offset is zero, or reaches before the start of the plain output.
    Offset {
        /// As stored.
        offset: u16,
        /// How much output there was to refer to.
        plain: u64,
    },
    /// Literals reach beyond the end of the block.
    Literals {
        /// How many are stated.
        stated: u64,
        /// How many bytes are left.
        left: u32,
    },
    /// The block does not end after a run of literals.
    End,
    /// More or fewer bytes were walked than the block has.
    StoredLen {
        /// What the block should have.
        stated: u32,
    },
    /// It decodes to another length than stated.
    PlainLen {
        /// What it decodes to.
        plain: u64,
        /// What it should decode to.
        stated: u32,
    },
}

impl fmt::Display for Lz4Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LZ4 block, byte {}: ", self.at)?;
        match self.kind {
            Lz4FaultKind::Offset { offset, plain } => write!(f, "offset {offset} with {plain} bytes before it"),
            Lz4FaultKind::Literals { stated, left } => write!(f, "{stated} literals where {left} bytes are left"),
            Lz4FaultKind::End => f.write_str("does not end with literals"),
            Lz4FaultKind::StoredLen { stated } => write!(f, "is not the end, the block has {stated} bytes"),
            Lz4FaultKind::PlainLen { plain, stated } => write!(f, "decodes to {plain} bytes instead of {stated}"),
        }
    }
}

impl std::error::Error for Lz4Fault {}

impl Lz4Walker {
    /// At the start of a block of `stored_len` bytes that should decode to `plain_len`.
    pub(crate) fn new(stored_len: u32, plain_len: u32) -> Self {
        Self { stored_len, plain_len, walked: 0, plain: 0, state: State::Token, fault: None }
    }

    /// Walks the next bytes of the block; tells how many of them finish a sequence begun before.
    ///
    /// That is 0 when they begin with a sequence, and all of them when none ends here. After a fault it is 0, and
    /// [`finish`](Self::finish) tells.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> u32 {
        let left = self.stored_len - self.walked;
        let len = match u32::try_from(bytes.len()) {
            Ok(len) if len <= left => len,
            _ => {
                self.fail(self.stored_len, Lz4FaultKind::StoredLen { stated: self.stored_len });
                return 0;
            }
        };
        if self.fault.is_some() {
            return 0;
        }
        let skip = match self.state {
            State::Token => 0,
            _ => self.walk_bytes(bytes, 0),
        };
        let mut at = skip;
        while at < bytes.len() && self.fault.is_none() {
            at = self.walk_sequences(bytes, at);
            at = self.walk_bytes(bytes, at);
        }
        self.walked += len;
        // Never more than `len`, which is a u32.
        u32::try_from(skip).unwrap_or(len)
    }

    /// The verdict on the whole block.
    pub(crate) fn finish(mut self) -> Result<(), Lz4Fault> {
        if self.walked != self.stored_len {
            self.fail(self.walked, Lz4FaultKind::StoredLen { stated: self.stored_len });
        }
        if !matches!(self.state, State::OffsetLow { .. }) {
            self.fail(self.walked, Lz4FaultKind::End);
        }
        if self.plain != u64::from(self.plain_len) {
            self.fail(self.walked, Lz4FaultKind::PlainLen { plain: self.plain, stated: self.plain_len });
        }
        self.fault.map_or(Ok(()), Err)
    }

    /// Walks whole sequences from a token on, as far as they lie within `bytes` and are sound. Returns where the first
    /// other one begins.
    fn walk_sequences(&mut self, bytes: &[u8], mut at: usize) -> usize {
        let mut plain = self.plain;
        while let Some(sequence) = Sequence::read(bytes, at) {
            let before = plain + sequence.literals;
            // An offset of zero wraps around to the largest number.
            if u64::from(sequence.offset).wrapping_sub(1) >= before {
                break;
            }
            plain = before + sequence.matched;
            at = sequence.end;
        }
        self.plain = plain;
        at
    }

    /// Walks byte by byte, until a sequence ends, the bytes do, or something is wrong. Returns where it stopped.
    fn walk_bytes(&mut self, bytes: &[u8], mut at: usize) -> usize {
        while self.fault.is_none()
            && let Some(&byte) = bytes.get(at)
        {
            if let State::Literals { token, left } = self.state {
                let here = left.min((bytes.len() - at) as u64);
                at += usize::try_from(here).unwrap_or(usize::MAX);
                self.state = if here == left {
                    State::OffsetLow { token }
                } else {
                    State::Literals { token, left: left - here }
                };
                continue;
            }
            at += 1;
            // Both fit: `feed` has checked that the bytes lie within the block.
            let next = self.walked + u32::try_from(at).unwrap_or(0);
            if self.take(byte, next) {
                break;
            }
        }
        at
    }

    /// Takes a byte that is no literal; `next` is where the block goes on. True if a sequence ends here.
    fn take(&mut self, byte: u8, next: u32) -> bool {
        match self.state {
            State::Token => match byte >> 4 {
                15 => self.state = State::LiteralLength { token: byte, literals: 15 },
                literals => self.begin_literals(byte, u64::from(literals), next),
            },
            State::LiteralLength { token, literals } => {
                let literals = literals + u64::from(byte);
                match byte {
                    255 => self.state = State::LiteralLength { token, literals },
                    _ => self.begin_literals(token, literals, next),
                }
            }
            State::Literals { .. } => {}
            State::OffsetLow { token } => self.state = State::OffsetHigh { token, low: byte },
            State::OffsetHigh { token, low } => {
                let offset = u16::from_le_bytes([low, byte]);
                if offset == 0 || u64::from(offset) > self.plain {
                    self.fail(next - 2, Lz4FaultKind::Offset { offset, plain: self.plain });
                }
                self.plain += MATCH_LEN_MIN + u64::from(token & 15);
                self.state = if token & 15 == 15 { State::MatchLength } else { State::Token };
                return token & 15 != 15;
            }
            State::MatchLength => {
                self.plain += u64::from(byte);
                if byte != 255 {
                    self.state = State::Token;
                    return true;
                }
            }
        }
        false
    }

    fn begin_literals(&mut self, token: u8, literals: u64, next: u32) {
        let left = self.stored_len - next;
        if literals > u64::from(left) {
            self.fail(next, Lz4FaultKind::Literals { stated: literals, left });
        }
        self.plain += literals;
        self.state = if literals == 0 { State::OffsetLow { token } } else { State::Literals { token, left: literals } };
    }

    /// Remembers the first fault.
    fn fail(&mut self, at: u32, kind: Lz4FaultKind) {
        self.fault.get_or_insert(Lz4Fault { at, kind });
    }
}

/// A sequence with a match, whole.
struct Sequence {
    literals: u64,
    offset: u16,
    matched: u64,
    /// Where the next one begins.
    end: usize,
}

impl Sequence {
    /// The sequence at `at`, if it has a match and lies within `bytes`.
    #[inline]
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let token = *bytes.get(at)?;
        let mut at = at + 1;
        let mut literals = u64::from(token >> 4);
        if literals == 15 {
            literals += lengths(bytes, &mut at)?;
        }
        at = at.checked_add(usize::try_from(literals).ok()?)?;
        let offset = u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
        at += 2;
        let mut matched = MATCH_LEN_MIN + u64::from(token & 15);
        if token & 15 == 15 {
            matched += lengths(bytes, &mut at)?;
        }
        Some(Self { literals, offset, matched, end: at })
    }
}

/// The sum of the length bytes at `at`; goes on behind them.
fn lengths(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut sum = 0;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        sum += u64::from(byte);
        if byte != 255 {
            return Some(sum);
        }
    }
}

#[cfg(test)]
mod tests;
