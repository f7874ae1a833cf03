//! The rows of a made-up shop: what stands in each column is a pure function of seed, table and row id.
//!
//! So a merge can write the same rows again into other objects. The mix is that of real data: sequences, skewed keys, decimals,
//! dates, a few repeated words, English-like text, JSON, and float vectors that hardly compress; LZ4 makes about a third of it.

use everpack::error::Result;
use everpack::testing::tae_writer::{SplitMix, Vector};

/// A table; each has columns of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Lineitems,
    Events,
    Log,
    Vectors,
    Docs,
    Accounts,
    Tombstones,
}

const WORDS: [&str; 64] = [
    "the ",
    "of ",
    "and ",
    "a ",
    "to ",
    "in ",
    "is ",
    "for ",
    "on ",
    "that ",
    "by ",
    "with ",
    "order ",
    "package ",
    "deposit ",
    "account ",
    "request ",
    "special ",
    "pending ",
    "regular ",
    "express ",
    "final ",
    "ironic ",
    "even ",
    "bold ",
    "quick ",
    "silent ",
    "careful ",
    "blithely ",
    "slyly ",
    "furiously ",
    "quietly ",
    "across ",
    "above ",
    "against ",
    "along ",
    "among ",
    "warehouse ",
    "shipment ",
    "customer ",
    "supplier ",
    "invoice ",
    "payment ",
    "delivery ",
    "return ",
    "discount ",
    "price ",
    "quantity ",
    "foxes ",
    "pinto beans ",
    "theodolites ",
    "instructions ",
    "dependencies ",
    "excuses ",
    "platelets ",
    "asymptotes ",
    "courts ",
    "dolphins ",
    "multipliers ",
    "sauternes ",
    "warthogs ",
    "frets ",
    "dinos ",
    "attainments ",
];
const MODES: [&str; 7] = ["AIR", "FOB", "MAIL", "RAIL", "SHIP", "TRUCK", "REG AIR"];
const ACTIONS: [&str; 8] = ["view", "view", "view", "click", "click", "add_to_cart", "checkout", "search"];
const LEVELS: [&str; 8] = ["INFO", "INFO", "INFO", "INFO", "DEBUG", "DEBUG", "WARN", "ERROR"];
const VECTOR_LEN: usize = 96;
/// 2026-11-20 in days since year 1, and in microseconds since year 1, as MatrixOne counts.
const DAY: i32 = 739_939;
const MICROS: i64 = 63_930_729_600_000_000;

impl Table {
    /// The tables that make up the data, and how many per cent of the bytes.
    pub(crate) const SHARES: [(Self, u64); 6] = [
        (Self::Lineitems, 32),
        (Self::Events, 24),
        (Self::Log, 20),
        (Self::Vectors, 8),
        (Self::Docs, 8),
        (Self::Accounts, 8),
    ];

    /// True if rows arrive anywhere in the key range, so that merges interleave them.
    pub(crate) fn is_sorted(self) -> bool {
        matches!(self, Self::Lineitems | Self::Events | Self::Accounts)
    }

    /// The column by which rows are sorted.
    pub(crate) fn sort_key(self) -> Option<u16> {
        (self != Self::Log).then_some(0)
    }

    pub(crate) fn number(self) -> u64 {
        272_500 + self as u64
    }

    /// Empty columns.
    pub(crate) fn columns(self) -> Result<Vec<Vector>> {
        let oids: &[u8] = match self {
            Self::Lineitems => &[23, 22, 22, 22, 32, 32, 32, 60, 50, 50, 61, 71],
            Self::Events => &[23, 53, 23, 61, 62, 71],
            Self::Log => &[53, 61, 61, 22, 61],
            Self::Vectors => &[23, 224, 61],
            Self::Docs => &[23, 61, 70],
            Self::Accounts => &[23, 63, 61, 61, 33, 31, 52, 10],
            Self::Tombstones => &[101, 23, 100],
        };
        oids.iter().map(|&oid| Vector::new(oid)).collect()
    }

    /// Appends the row `id`.
    pub(crate) fn push_row(self, columns: &mut [Vector], seed: u64, id: u64) {
        let mut random = SplitMix(seed ^ (self as u64) << 56 ^ id.wrapping_mul(0xD1B5_4A32_D192_ED03));
        match self {
            Self::Lineitems => push_lineitem(columns, &mut random, id),
            Self::Events => push_event(columns, &mut random, id),
            Self::Log => push_log(columns, &mut random, id),
            Self::Vectors => push_vector(columns, &mut random, id),
            Self::Docs => push_doc(columns, &mut random, id),
            Self::Accounts => push_account(columns, &mut random, id),
            Self::Tombstones => push_tombstone(columns, &mut random, id),
        }
    }
}

fn push_lineitem(columns: &mut [Vector], random: &mut SplitMix, id: u64) {
    let (bits, more) = (random.next(), random.next());
    let quantity = 1 + small(bits, 50);
    let part = small(bits >> 8, 2000).min(small(bits >> 24, 2000));
    let price = i64::from(quantity) * (90_000 + i64::from(part) * 37) / 10;
    let day = DAY + i32::try_from(id / 6000 % 2500).unwrap_or(0) + small(more, 3);
    columns[0].push_fixed(key(id / 4).to_le_bytes());
    columns[1].push_fixed(i32::try_from(id % 4 + 1).unwrap_or(1).to_le_bytes());
    columns[2].push_fixed(part.to_le_bytes());
    columns[3].push_fixed(small(bits >> 40, 50).to_le_bytes());
    columns[4].push_fixed(price.to_le_bytes());
    columns[5].push_fixed(i64::from(small(more >> 8, 11)).to_le_bytes());
    columns[6].push_fixed(i64::from(small(more >> 16, 9)).to_le_bytes());
    columns[7].push_bytes(if more & 0x70_0000 == 0 { b"R" } else { b"N" });
    columns[8].push_fixed(day.to_le_bytes());
    columns[9].push_fixed((day + 1 + small(more >> 32, 30)).to_le_bytes());
    columns[10].push_bytes(pick(&MODES, more >> 40).as_bytes());
    let words = (bits >> 56) & 7;
    columns[11].push_with(|text| push_words(text, random, 3 + words));
}

fn push_event(columns: &mut [Vector], random: &mut SplitMix, id: u64) {
    let bits = random.next();
    let micros = MICROS + key(id) * 1_700_000 + key(bits % 1_000_000);
    let user = bits % 5000 * (bits >> 32 & 7) / 7;
    let action = pick(&ACTIONS, bits >> 13);
    columns[0].push_fixed(key(id).to_le_bytes());
    columns[1].push_fixed((micros - micros % 1000).to_le_bytes());
    columns[2].push_fixed(key(user).to_le_bytes());
    columns[3].push_bytes(action.as_bytes());
    columns[4].push_with(|json| {
        json.extend_from_slice(b"{\"action\": \"");
        json.extend_from_slice(action.as_bytes());
        json.extend_from_slice(b"\", \"device\": {\"os\": \"");
        json.extend_from_slice(pick(&["android", "ios", "linux", "windows"], bits >> 20).as_bytes());
        json.extend_from_slice(b"\", \"version\": \"4.");
        push_number(json, bits >> 24 & 7);
        json.extend_from_slice(b"\"}, \"page\": \"/products/");
        push_number(json, 1000 + (bits >> 30) % 3000);
        json.extend_from_slice(b"\", \"session\": \"");
        push_hex(json, bits, 12);
        json.extend_from_slice(b"\", \"ms\": ");
        push_number(json, bits >> 44 & 1023);
        json.push(b'}');
    });
    if bits >> 61 == 0 {
        columns[5].push_null();
    } else {
        columns[5].push_with(|text| push_words(text, random, 4 + (bits >> 52 & 7)));
    }
}

fn push_log(columns: &mut [Vector], random: &mut SplitMix, id: u64) {
    let bits = random.next();
    let micros = MICROS + key(id) * 211_000 + key(bits % 100_000);
    let status = if bits & 0xF0 == 0 { 500 } else { 200 };
    columns[0].push_fixed(micros.to_le_bytes());
    columns[1].push_bytes(pick(&LEVELS, bits >> 8).as_bytes());
    columns[2].push_with(|host| {
        host.extend_from_slice(b"node-");
        push_number(host, bits >> 12 & 15);
    });
    columns[3].push_fixed(i32::from(i16::try_from(status).unwrap_or(0)).to_le_bytes());
    columns[4].push_with(|line| {
        line.extend_from_slice(pick(&["GET", "GET", "POST", "PUT"], bits >> 16).as_bytes());
        line.extend_from_slice(
            pick(&[" /api/v1/orders/", " /api/v1/items/", " /api/v2/users/"], bits >> 18).as_bytes(),
        );
        push_number(line, bits >> 20 & 0xFFFF);
        line.extend_from_slice(b" done in ");
        push_number(line, bits >> 36 & 0x3FF);
        line.extend_from_slice(b" us, request ");
        push_hex(line, bits >> 40, 6);
        line.extend_from_slice(b", status ");
        push_number(line, status);
        line.push(b' ');
        push_words(line, random, bits >> 58 & 3);
    });
}

fn push_vector(columns: &mut [Vector], random: &mut SplitMix, id: u64) {
    columns[0].push_fixed(key(id).to_le_bytes());
    columns[1].push_with(|vector| {
        for _ in 0..VECTOR_LEN / 2 {
            // Two floats with 23 random bits each, in (-1, 1).
            let bits = random.next();
            for half in [bits & 0x007F_FFFF, (bits >> 32) & 0x007F_FFFF] {
                #[allow(clippy::cast_possible_truncation, reason = "23 bits")]
                let float = f32::from_bits(0x3F80_0000 | half as u32) * 2.0 - 3.0;
                vector.extend_from_slice(&float.to_le_bytes());
            }
        }
    });
    columns[2].push_bytes(pick(&WORDS, random.next()).as_bytes());
}

fn push_doc(columns: &mut [Vector], random: &mut SplitMix, id: u64) {
    let bits = random.next();
    columns[0].push_fixed(key(id).to_le_bytes());
    columns[1].push_with(|name| {
        name.extend_from_slice(b"doc-");
        push_number(name, id);
        name.extend_from_slice(pick(&[".html", ".pdf", ".png"], bits).as_bytes());
    });
    columns[2].push_with(|doc| {
        push_words(doc, random, 40 + (bits >> 8 & 127));
        for _ in 0..32 + (bits >> 16 & 63) {
            doc.extend_from_slice(&random.next().to_le_bytes());
        }
    });
}

fn push_account(columns: &mut [Vector], random: &mut SplitMix, id: u64) {
    let (bits, more) = (random.next(), random.next());
    columns[0].push_fixed(key(id).to_le_bytes());
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&bits.to_le_bytes());
    uuid[8..].copy_from_slice(&more.to_le_bytes());
    columns[1].push_fixed(uuid);
    columns[2].push_with(|name| {
        name.extend_from_slice(b"Customer#");
        push_number(name, 100_000_000 + id);
    });
    if bits & 0xF == 0 {
        columns[3].push_null();
    } else {
        columns[3].push_with(|address| {
            push_number(address, bits >> 8 & 255);
            address.push(b' ');
            push_words(address, random, 2 + (bits >> 16 & 3));
        });
    }
    columns[4].push_fixed(i128::from(more % 10_000_000).to_le_bytes());
    columns[5].push_fixed((f64::from(small(bits >> 24, 1000)) / 8.0).to_le_bytes());
    columns[6].push_fixed((MICROS + key(id) * 60_000_000).to_le_bytes());
    columns[7].push_fixed([u8::from(bits >> 60 != 0)]);
}

fn push_tombstone(columns: &mut [Vector], random: &mut SplitMix, id: u64) {
    let mut row = [0; 24];
    row[..16].copy_from_slice(&[7; 16]);
    row[18..20].copy_from_slice(&(id / 8192).to_le_bytes()[..2]);
    row[20..].copy_from_slice(&(id % 8192).to_le_bytes()[..4]);
    columns[0].push_fixed(row);
    columns[1].push_fixed(key(id * 3 + (random.next() & 1)).to_le_bytes());
    let mut time = [0; 12];
    time[4..].copy_from_slice(&(1_750_000_000_000_000_000i64 + key(id / 500) * 1_000_000).to_le_bytes());
    columns[2].push_fixed(time);
}

/// A number below `bound` from the low bits; a little uneven, which nobody notices.
fn small(bits: u64, bound: i32) -> i32 {
    ((bits & 0xFFFF) as i32 * bound) >> 16
}

fn key(number: u64) -> i64 {
    number.cast_signed()
}

fn pick<'a>(words: &[&'a str], bits: u64) -> &'a str {
    words[(bits & 0xFF) as usize % words.len()]
}

/// Words, the frequent ones first in the list.
fn push_words(text: &mut Vec<u8>, random: &mut SplitMix, count: u64) {
    let mut bits = 0;
    for i in 0..count {
        if i % 5 == 0 {
            bits = random.next();
        }
        let word = if bits & 0xC0 == 0 { bits & 63 & bits >> 8 } else { bits & 63 & (bits >> 8 | 0x2A) };
        text.extend_from_slice(WORDS[(word & 63) as usize].as_bytes());
        bits >>= 12;
    }
}

fn push_number(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[at..]);
}

fn push_hex(text: &mut Vec<u8>, mut bits: u64, digits: u32) {
    for _ in 0..digits {
        text.push(b"0123456789abcdef"[(bits & 15) as usize]);
        bits >>= 4;
    }
}
