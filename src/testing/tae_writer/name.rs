//! Names of objects, and the random bytes that they and bloom filters are made of.

use std::fmt;

/// A MatrixOne object's name: a UUIDv7 segment and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaeName {
    pub(super) segment: [u8; 16],
    pub(super) num: u16,
}

impl TaeName {
    /// The same segment under another number; 1000 and above is what BACKUP calls the objects that it rewrites.
    #[must_use]
    pub fn with_num(self, num: u16) -> Self {
        Self { num, ..self }
    }

    /// The 18 bytes by which object metas and statistics name an object.
    pub fn object_id(self) -> [u8; 18] {
        let mut id = [0; 18];
        id[..16].copy_from_slice(&self.segment);
        id[16..].copy_from_slice(&self.num.to_le_bytes());
        id
    }

    /// The 60 bytes of a name inside statistics and locations: the id, then the text.
    pub fn long_form(self) -> [u8; 60] {
        let mut form = [0; 60];
        form[..18].copy_from_slice(&self.object_id());
        for (byte, c) in form[18..].iter_mut().zip(self.to_string().bytes()) {
            *byte = c;
        }
        form
    }

    /// Milliseconds since 1970 at which the segment was made.
    pub fn millis(self) -> u64 {
        self.segment[..6].iter().fold(0, |millis, &byte| millis << 8 | u64::from(byte))
    }
}

impl fmt::Display for TaeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.segment.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        write!(f, "_{:05}", self.num)
    }
}

/// A valid UUIDv7 name for an object made at `millis` (since 1970); equal arguments give equal names.
pub fn object_name(seed: u64, millis: u64, num: u16) -> TaeName {
    let mut segment = [0; 16];
    for (byte, shift) in segment.iter_mut().zip([40, 32, 24, 16, 8, 0]) {
        *byte = ((millis >> shift) & 0xFF) as u8;
    }
    let mut random = SplitMix(seed ^ millis.rotate_left(32));
    segment[6..14].copy_from_slice(&random.next().to_le_bytes());
    segment[14..].copy_from_slice(&random.next().to_le_bytes()[..2]);
    segment[6] = 0x70 | segment[6] & 0x0F;
    segment[8] = 0x80 | segment[8] & 0x3F;
    TaeName { segment, num }
}

/// A small random generator (splitmix64): deterministic on every machine.
#[derive(Clone, Copy, Debug)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next 64 bits.
    #[allow(clippy::should_implement_trait, reason = "endless, so an Option would only be noise")]
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number below `bound`, which is at least 1.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the high half of a product of two u64")
    }
}

/// Bytes that look like a block's binary fuse filter over `rows` keys: as long and as incompressible.
pub fn filter_bytes(seed: u64, rows: u32) -> Vec<u8> {
    let len = 24 + rows as usize * 9 / 7;
    let mut random = SplitMix(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
