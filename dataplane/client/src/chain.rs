//! Rows of buffers that stand for one run of bytes, and their checksums.

use std::ops::Range;

use ogive_buf::Buf;
use ogive_types::{BLOCK_BYTES, BlockSum, block_sum, block_sums};

/// Bytes in the row.
pub(crate) fn len(chain: &[Buf]) -> usize {
    chain.iter().map(|buf| buf.len()).sum()
}

/// The part `range` of the row, in bytes, without a copy.
pub(crate) fn slice(chain: &[Buf], range: Range<usize>) -> Vec<Buf> {
    let mut out = Vec::with_capacity(chain.len());
    let mut at = 0;
    for buf in chain {
        let (from, to) = (range.start.max(at), range.end.min(at + buf.len()));
        if from < to {
            out.push(buf.slice(from - at..to - at));
        }
        at += buf.len();
    }
    debug_assert_eq!(len(&out), range.len(), "the range lies inside the row");
    out
}

/// `bytes` of zeroes, from views of one buffer of zeroes.
pub(crate) fn zeroes(zero: &Buf, bytes: usize) -> Vec<Buf> {
    let mut out = Vec::with_capacity(bytes.div_ceil(zero.len()));
    let mut left = bytes;
    while left > 0 {
        let take = left.min(zero.len());
        out.push(zero.slice(0..take));
        left -= take;
    }
    out
}

/// Checksum of each block of the row, which is whole blocks long; blocks may span buffers.
pub(crate) fn sums(chain: &[Buf]) -> Vec<BlockSum> {
    if let [only] = chain {
        return block_sums(only);
    }
    let mut sums = Vec::with_capacity(len(chain) / BLOCK_BYTES);
    let mut block = [0u8; BLOCK_BYTES];
    let mut filled = 0;
    for buf in chain {
        let mut rest = &buf[..];
        while !rest.is_empty() {
            if filled == 0 && rest.len() >= BLOCK_BYTES {
                sums.push(block_sum(&rest[..BLOCK_BYTES]));
                rest = &rest[BLOCK_BYTES..];
                continue;
            }
            let take = rest.len().min(BLOCK_BYTES - filled);
            block[filled..filled + take].copy_from_slice(&rest[..take]);
            rest = &rest[take..];
            filled = (filled + take) % BLOCK_BYTES;
            if filled == 0 {
                sums.push(block_sum(&block));
            }
        }
    }
    assert_eq!(filled, 0, "whole blocks");
    sums
}

#[cfg(test)]
mod tests {
    use ogive_buf::Pool;

    use super::*;

    #[test]
    fn sums_do_not_depend_on_how_the_row_is_cut() {
        let pool = Pool::new(1 << 22);
        let mut buf = pool.alloc(4 * BLOCK_BYTES).unwrap();
        buf.iter_mut().enumerate().for_each(|(i, b)| *b = (i * 31 / 7) as u8);
        let whole = buf.freeze();
        let expected = block_sums(&whole);
        for cuts in [[1, 2, 3], [4096, 8192, 12288], [100, 4096, 4097], [5000, 5001, 16383]] {
            let ends = [0, cuts[0], cuts[1], cuts[2], whole.len()];
            let chain: Vec<Buf> = ends.windows(2).map(|w| whole.slice(w[0]..w[1])).collect();
            assert_eq!(sums(&chain), expected, "{cuts:?}");
            let part: Vec<u8> = slice(&chain, 50..9000).iter().flat_map(|b| b.to_vec()).collect();
            assert_eq!(part, &whole[50..9000]);
        }
    }

    #[test]
    fn zeroes_are_as_long_as_asked() {
        let zero = Pool::new(1 << 22).alloc_zeroed(8192).unwrap().freeze();
        for bytes in [0, 1, 8192, 8193, 100_000] {
            assert_eq!(len(&zeroes(&zero, bytes)), bytes);
        }
    }
}
