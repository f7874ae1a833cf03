use super::*;
use crate::tae::real_data::{checkpoint_files, logical, real_data};
use crate::tae::sample::Sample;
use crate::tae::vector::tests::encode;
use crate::tae::{CheckpointKind, ObjectLayout};

/// A checkpoint file with one block for each list of positions; `None` for a column that is one constant.
fn checkpoint(blocks: &[Option<Vec<u64>>], width: usize) -> Vec<u8> {
    let mut id = [0; 18];
    id[..16].copy_from_slice(b"CheckPoint_MetaX");
    let block = |lsns: &Option<Vec<u64>>| {
        let rows = lsns.as_ref().map_or(3, |lsns| u32::try_from(lsns.len()).unwrap());
        let count = rows as usize;
        let ts =
            |from: u8| -> Vec<u8> { (0..count).flat_map(|row| [from + u8::try_from(row % 9).unwrap(); 12]).collect() };
        let cells: Vec<u8> = lsns.iter().flatten().flat_map(|lsn| lsn.to_le_bytes()).collect();
        let lsn = match lsns {
            Some(_) => encode(0, 28, rows, &cells, &[], &[]),
            None => encode(1, 28, rows, &77u64.to_le_bytes(), &[], &[]),
        };
        let mut columns = vec![
            (100, encode(0, 100, rows, &ts(1), &[], &[])),
            (100, encode(0, 100, rows, &ts(2), &[], &[])),
            (61, encode(0, 61, rows, &vec![0; 24 * count], &[], &[])),
            (10, encode(0, 10, rows, &vec![1; count], &[], &[])),
            (27, encode(0, 27, rows, &[13, 0, 0, 0].repeat(count), &[], &[])),
            (61, encode(0, 61, rows, &vec![0; 24 * count], &[], &[])),
            (28, lsn),
            (28, encode(0, 28, rows, &vec![0; 8 * count], &[], &[])),
            (20, encode(0, 20, rows, &vec![1; count], &[], &[])),
        ];
        columns.truncate(width);
        (rows, columns)
    };
    Sample { id, blocks: blocks.iter().map(block).collect() }.build()
}

fn lsns(file: &[u8]) -> Vec<u64> {
    read_checkpoint_rows(&file).unwrap().iter().map(|row| row.checkpoint_lsn).collect()
}

#[test]
fn positions_become_zero_and_nothing_else_changes() {
    let file = checkpoint(&[Some(vec![29, 0, 221, 1 << 60]), None, Some((1..500).collect())], 9);
    assert_eq!(&lsns(&file)[..7], [29, 0, 221, 1 << 60, 77, 77, 77]);
    let zeroed = zero_lsns(&file).unwrap().unwrap();
    assert!(lsns(&zeroed).iter().all(|lsn| *lsn == 0));
    assert_eq!(zero_lsns(&zeroed).unwrap(), None, "a second time there is nothing to do");
}

#[test]
fn files_without_positions_are_left_alone() {
    assert_eq!(zero_lsns(&checkpoint(&[Some(vec![5, 6])], 5)).unwrap(), None);
    assert_eq!(zero_lsns(&checkpoint(&[Some(vec![0, 0])], 9)).unwrap(), None);
    let error = zero_lsns(b"no checkpoint file").unwrap_err();
    assert!(error.message().contains("log positions"), "{error}");
}

#[test]
fn a_file_that_is_laid_out_anew_reads_the_same() {
    let file = checkpoint(&[Some((1..500).collect()), None, Some(vec![9])], 9);
    let parsed = parse(&file).unwrap();
    let columns = zeroed_columns(&file, &parsed).unwrap();
    let anew = laid_out_anew(&file, &parsed, &columns).unwrap();
    assert_ne!(anew.len(), file.len(), "the columns became shorter");
    assert!(ObjectLayout::read(&anew).unwrap().is_ok());
    let (mut before, after) = (read_checkpoint_rows(&file).unwrap(), read_checkpoint_rows(&anew).unwrap());
    before.iter_mut().for_each(|row| row.checkpoint_lsn = 0);
    assert_eq!(before, after);
    assert_eq!(anew[anew.len() - 64..], file[file.len() - 64..], "the footer");
}

#[test]
fn blocks_are_padded_to_any_length_between_the_shortest_and_the_longest() {
    for plain in [vec![0; 46], [&[2u8, 0, 2, 0, 0, 28][..], &[0; 90]].concat(), (0..200u8).collect(), vec![7; 3000]] {
        let shortest = Lz4Block::compress(&plain);
        assert_eq!(shortest.encode(&plain).len(), shortest.len());
        let mut reached = 0;
        let all_literals = 1 + more_lengths(plain.len()) + plain.len();
        for len in shortest.len()..=all_literals {
            let Some(block) = Lz4Block::compress(&plain).padded_to(len) else { continue };
            let stored = block.encode(&plain);
            assert_eq!(stored.len(), len);
            let mut back = Vec::new();
            decode_lz4(&stored, u32::try_from(plain.len()).unwrap(), &mut back).unwrap();
            assert_eq!(back, plain);
            reached += 1;
        }
        assert!(reached * 10 >= (all_literals + 1 - shortest.len()) * 8, "{reached}");
    }
}

/// Whatever is flipped: an error, nothing to do, or a file that reads the same but for its positions. Never a panic.
#[test]
fn a_damaged_file_is_refused_or_zeroed_rightly() {
    let file = checkpoint(&[Some(vec![29, 3, 221]), None], 9);
    for at in 0..file.len() {
        for bits in [0x01, 0x80, 0xff] {
            let mut damaged = file.clone();
            damaged[at] ^= bits;
            let Ok(Some(zeroed)) = zero_lsns(&damaged) else { continue };
            let mut expected = read_checkpoint_rows(&damaged).unwrap();
            expected.iter_mut().for_each(|row| (row.checkpoint_lsn, row.truncate_lsn) = (0, 0));
            assert_eq!(read_checkpoint_rows(&zeroed).unwrap(), expected, "byte {at}");
        }
    }
    for len in 0..file.len() {
        assert!(zero_lsns(&file[..len]).is_err(), "{len}");
    }
}

#[test]
fn every_real_checkpoint_file_is_zeroed_in_place() {
    let Some(data) = real_data("log positions") else { return };
    let (mut changed, mut same_len, mut globals) = (0, 0, 0);
    for path in checkpoint_files(&data) {
        let file = logical(&path);
        let rows = read_checkpoint_rows(&file).unwrap();
        globals += rows.iter().filter(|row| row.kind == CheckpointKind::Global && row.checkpoint_lsn > 0).count();
        let Some(zeroed) = zero_lsns(&file).unwrap() else {
            assert!(rows.iter().all(|row| row.checkpoint_lsn == 0), "{}", path.display());
            continue;
        };
        changed += 1;
        same_len += usize::from(zeroed.len() == file.len());
        // The way around for files that cannot keep their length gives the same rows.
        let parsed = parse(&file).unwrap();
        let anew = laid_out_anew(&file, &parsed, &zeroed_columns(&file, &parsed).unwrap()).unwrap();
        assert_eq!(read_checkpoint_rows(&anew).unwrap(), read_checkpoint_rows(&zeroed).unwrap(), "{}", path.display());
    }
    assert!(changed > 30 && globals > 10, "{changed} files, {globals} rows");
    assert_eq!(same_len, changed, "nothing else in them changed");
}
