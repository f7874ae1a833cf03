#![allow(missing_docs)]
use crate::error::{Error, ErrorKind, Result};
use crate::id::*;

fn b3(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
pub(crate) fn chunk_id(bytes: &[u8]) -> ChunkId {
    ChunkId::from_bytes(b3(bytes))
}
pub(crate) fn object_hash(bytes: &[u8]) -> ObjectHash {
    ObjectHash::from_bytes(b3(bytes))
}
pub(crate) fn entry_hash(bytes: &[u8]) -> EntryHash {
    EntryHash::from_bytes(b3(bytes))
}
pub(crate) fn lineage_id(name: &str) -> LineageId {
    let h = b3(name.as_bytes());
    let mut o = [0; 16];
    o.copy_from_slice(&h[..16]);
    LineageId::from_bytes(o)
}
#[derive(Debug)]
pub(crate) struct FileHasher(blake3::Hasher);
impl FileHasher {
    pub(crate) fn new() -> Self {
        Self(blake3::Hasher::new())
    }
    pub(crate) fn update(&mut self, b: &[u8]) {
        self.0.update(b);
    }
    pub(crate) fn finish(self) -> FileHash {
        FileHash::from_bytes(*self.0.finalize().as_bytes())
    }
}
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) len: u32,
    pub(crate) lz4: bool,
}
pub(crate) fn units(s: &[Segment]) -> impl Iterator<Item = u64> + '_ {
    let mut i = 0;
    std::iter::from_fn(move || {
        let f = s.get(i)?;
        i += 1;
        let mut n = u64::from(f.len);
        if f.len < 4096 {
            while let Some(x) = s.get(i) {
                if x.len >= 4096 {
                    break;
                }
                n += u64::from(x.len);
                i += 1;
            }
        }
        Some(n)
    })
}
#[derive(Debug, Clone)]
pub(crate) struct Hint {
    pub(crate) skip: u32,
    pub(crate) segments: Vec<Segment>,
}
#[derive(Clone, Debug)]
pub(crate) struct Gear([u64; 256]);
impl Gear {
    pub(crate) fn standard() -> Self {
        let mut x = 0u64;
        let mut t = [0; 256];
        for v in &mut t {
            x = x.wrapping_add(0x9e3779b97f4a7c15);
            let mut z = x;
            z = (z ^ z >> 30).wrapping_mul(0xbf58476d1ce4e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d049bb133111eb);
            *v = z ^ z >> 31;
        }
        Self(t)
    }
}
#[derive(Debug)]
pub(crate) enum Cutter {
    Gear(Gear, u32),
    Cdc(u32, u32, u32),
    Fixed(u32),
}
impl Cutter {
    pub(crate) fn gear(g: &Gear, avg: u32) -> Self {
        Self::Gear(g.clone(), avg)
    }
    pub(crate) fn fast_cdc(a: u32, b: u32, c: u32) -> Self {
        Self::Cdc(a, b, c)
    }
    pub(crate) fn fixed(a: u32) -> Self {
        Self::Fixed(a)
    }
    pub(crate) fn most(&self) -> usize {
        match self {
            Self::Gear(_, a) => *a as usize * 4,
            Self::Cdc(_, _, c) => *c as usize,
            Self::Fixed(a) => *a as usize,
        }
    }
    pub(crate) fn next_cut(&self, rest: &[u8]) -> usize {
        match self {
            Self::Fixed(a) => rest.len().min(*a as usize),
            Self::Cdc(a, b, c) => {
                let c = fastcdc::v2020::FastCDC::new(rest, *a as usize, *b as usize, *c as usize).next();
                c.map_or(rest.len(), |c| c.length)
            }
            Self::Gear(g, a) => {
                let k = a.trailing_zeros();
                let avg = *a as usize;
                let end = rest.len().min(avg * 4);
                let mut i = avg / 4;
                let hard = !0u64 << (64 - (k + 1));
                let easy = !0u64 << (64 - (k - 1));
                if i < end {
                    let mut h = 0u64;
                    for x in &rest[i - 64..i] {
                        h = (h << 1).wrapping_add(g.0[*x as usize]);
                    }
                    while i < end {
                        let m = if i < avg.min(end) { hard } else { easy };
                        h = (h << 1).wrapping_add(g.0[rest[i] as usize]);
                        i += 1;
                        if h & m == 0 {
                            return i;
                        }
                    }
                }
                end
            }
        }
    }
}
#[derive(Debug)]
pub(crate) struct Lz4Walker;
impl Lz4Walker {
    pub(crate) fn new(_: u32, _: u32) -> Self {
        Self
    }
    pub(crate) fn feed(&mut self, _: &[u8]) -> u32 {
        0
    }
    pub(crate) fn finish(self) -> std::result::Result<(), String> {
        Ok(())
    }
}
#[derive(Debug)]
pub(crate) struct Encoder(i32);
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) coding: u8,
    pub(crate) payload: Vec<u8>,
}
impl Encoder {
    pub(crate) fn new(l: i32) -> Result<Self> {
        Ok(Self(l))
    }
    pub(crate) fn encode(&mut self, plain: &[u8], _h: Option<&Hint>) -> Result<Encoded> {
        let z = zstd::bulk::compress(plain, self.0).map_err(|e| Error::io("zstd", e))?;
        Ok(if z.len() < plain.len() {
            Encoded { coding: 1, payload: z }
        } else {
            Encoded { coding: 0, payload: plain.to_vec() }
        })
    }
}
#[derive(Debug)]
pub(crate) struct Decoder;
impl Decoder {
    pub(crate) fn new() -> Self {
        Self
    }
    pub(crate) fn decode_into(&mut self, coding: u8, payload: &[u8], plain_len: u32, out: &mut Vec<u8>) -> Result<()> {
        match coding & 15 {
            0 => out.extend_from_slice(payload),
            1 => out.extend(
                zstd::bulk::decompress(payload, plain_len as usize)
                    .map_err(|e| Error::with_source(ErrorKind::Corrupt, "zstd", e))?,
            ),
            m => return Err(Error::new(ErrorKind::Unsupported, format!("method {m}"))),
        }
        Ok(())
    }
}
