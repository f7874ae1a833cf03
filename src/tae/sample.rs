//! Builds small objects from the format's description, byte by byte and independently of the parser.

use super::name::TaeName;

/// One column of one block of an object to build: type, content of the extent.
pub(super) type SampleColumn = (u8, Vec<u8>);

/// Rows and columns of the blocks of an object, and whose it is.
pub(super) struct Sample {
    pub(super) id: [u8; 18],
    pub(super) blocks: Vec<(u32, Vec<SampleColumn>)>,
}

impl Sample {
    pub(super) fn named(name: &TaeName, blocks: Vec<(u32, Vec<SampleColumn>)>) -> Self {
        Self { id: name.to_id(), blocks }
    }

    /// The bytes of the file.
    pub(super) fn build(&self) -> Vec<u8> {
        let width = self.blocks.iter().map(|(_, columns)| columns.len()).max().unwrap_or(0);
        let mut file = vec![0; 64];
        let mut extents = vec![vec![[0; 13]; width]; self.blocks.len()];
        let places = (0..width).flat_map(|idx| (0..self.blocks.len()).map(move |block| (block, idx)));
        for (block, idx) in places {
            if let Some((_, content)) = self.blocks[block].1.get(idx) {
                extents[block][idx] = push_lz4(&mut file, content);
            }
        }
        let mut bloom = vec![3, 0, 2, 0];
        push_index(&mut bloom, &vec![(0, 0); self.blocks.len() + 1]);
        let mut zonemap = vec![4, 0, 1, 0];
        push_index(&mut zonemap, &vec![(0, 0); self.blocks.len()]);
        let filters0 = [push_raw(&mut file, &bloom), push_lz4(&mut file, &zonemap)];
        let filters1 = [
            push_raw(&mut file, &[3, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            push_lz4(&mut file, &[4, 0, 1, 0, 0, 0, 0, 0]),
        ];
        let meta = push_lz4(&mut file, &self.meta(width, &extents, filters0, filters1));
        file[..8].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        file[8..10].copy_from_slice(&1u16.to_le_bytes());
        file[10..23].copy_from_slice(&meta);
        file[23..27].copy_from_slice(&7u32.to_le_bytes());
        let mut footer = [0; 64];
        footer[48..56].copy_from_slice(&[0x40, 0x31, 0x82, 0x04, 0xc0, 0, 0, 0]);
        footer[56] = 13;
        file.extend_from_slice(&footer);
        file
    }

    fn meta(
        &self,
        width: usize,
        extents: &[Vec<[u8; 13]>],
        filters0: [[u8; 13]; 2],
        filters1: [[u8; 13]; 2],
    ) -> Vec<u8> {
        let rows = self.blocks.iter().map(|(rows, _)| rows).sum();
        let mut slot0 = header(self.id, self.blocks.len(), rows, width, filters0);
        // The type stays 0 at object level, as in real objects.
        slot0.extend((0..width).flat_map(|seqnum| column(0, seqnum, [0; 13])));
        let blocks: Vec<_> = (self.blocks.iter().enumerate())
            .map(|(number, (rows, columns))| {
                let mut block = header([0; 18], number, *rows, columns.len(), [[0; 13]; 2]);
                for (seqnum, (oid, _)) in columns.iter().enumerate() {
                    block.extend(column(*oid, seqnum, extents[number][seqnum]));
                }
                block
            })
            .collect();
        let mut at = slot0.len() + 4 + 8 * blocks.len();
        let mut index = Vec::new();
        for block in &blocks {
            index.push((at, block.len()));
            at += block.len();
        }
        push_index(&mut slot0, &index);
        slot0.extend(blocks.concat());
        let mut slot1 = header(self.id, 0, 0, 0, filters1);
        push_index(&mut slot1, &[]);

        let mut meta = vec![1, 0, 3, 0];
        meta.extend_from_slice(&u16::try_from(self.blocks.len()).unwrap().to_le_bytes());
        meta.extend_from_slice(&34u32.to_le_bytes());
        meta.resize(4 + 34, 0);
        meta.extend(slot0);
        meta.extend(slot1);
        meta
    }
}

fn header(id: [u8; 18], sequence: usize, rows: u32, columns: usize, filters: [[u8; 13]; 2]) -> Vec<u8> {
    let columns = u16::try_from(columns).unwrap().to_le_bytes();
    let mut bytes = vec![0; 179];
    bytes[16..34].copy_from_slice(&id);
    bytes[34..36].copy_from_slice(&u16::try_from(sequence).unwrap().to_le_bytes());
    bytes[36..40].copy_from_slice(&rows.to_le_bytes());
    bytes[40..42].copy_from_slice(&columns);
    bytes[55..68].copy_from_slice(&filters[0]);
    bytes[72..85].copy_from_slice(&filters[1]);
    bytes[140..142].copy_from_slice(&columns);
    bytes[142] = columns[0].saturating_sub(1);
    bytes[147..149].copy_from_slice(&[0xff; 2]);
    bytes
}

fn column(oid: u8, idx: usize, extent: [u8; 13]) -> Vec<u8> {
    let mut bytes = vec![0; 124];
    bytes[0] = oid;
    bytes[1..3].copy_from_slice(&u16::try_from(idx).unwrap().to_le_bytes());
    bytes[11..24].copy_from_slice(&extent);
    bytes
}

fn push_index(bytes: &mut Vec<u8>, entries: &[(usize, usize)]) {
    bytes.extend_from_slice(&u32::try_from(entries.len()).unwrap().to_le_bytes());
    for (offset, len) in entries {
        bytes.extend_from_slice(&u32::try_from(*offset).unwrap().to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(*len).unwrap().to_le_bytes());
    }
}

fn push_raw(file: &mut Vec<u8>, content: &[u8]) -> [u8; 13] {
    let extent = extent(0, file.len(), content.len(), content.len());
    file.extend_from_slice(content);
    extent
}

fn push_lz4(file: &mut Vec<u8>, content: &[u8]) -> [u8; 13] {
    let stored = lz4_flex::block::compress(content);
    let extent = extent(1, file.len(), stored.len(), content.len());
    file.extend_from_slice(&stored);
    extent
}

fn extent(algorithm: u8, offset: usize, stored_len: usize, plain_len: usize) -> [u8; 13] {
    let mut bytes = [algorithm; 13];
    for (field, value) in bytes[1..].chunks_exact_mut(4).zip([offset, stored_len, plain_len]) {
        field.copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
    }
    bytes
}
