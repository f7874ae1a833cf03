//! Proves LZ4 extents of MatrixOne objects for [`crate::tae::validate`]: `tae` knows where they lie, `codec` how to walk them.

use crate::codec::Lz4Walker;
use crate::tae::DataExtent;

/// Walks the sequences of an extent's LZ4 block: proves, without decoding it, that it decodes to exactly its stated length.
pub fn prove_lz4(extent: &DataExtent, stored: &[u8]) -> Result<(), String> {
    let mut walker = Lz4Walker::new(extent.stored_len, extent.plain_len);
    let _skip = walker.feed(stored);
    walker.finish().map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_proved_and_a_wrong_one_is_not() {
        // One literal run: token 0x50, five bytes.
        let stored = *b"\x50hello";
        let extent = DataExtent { offset: 64, stored_len: 6, plain_len: 5, lz4: true };
        assert_eq!(prove_lz4(&extent, &stored), Ok(()));
        assert!(prove_lz4(&DataExtent { plain_len: 6, ..extent }, &stored).is_err());
        assert!(prove_lz4(&extent, &stored[..5]).is_err());
        assert!(prove_lz4(&extent, b"\x50hello!").is_err());
    }
}
