//! Rearranges tensors from a checkpoint's order to the network's. The functions move elements of
//! `width` bytes, or rows of bytes, without interpreting them.

use vaquita_runtime::checkpoint::{Axis, KvB, Picked};

/// Rows and columns of `kv_b_proj` in a checkpoint.
pub(super) fn kv_b_shape(kv_b: &KvB) -> [usize; 2] {
    [kv_b.heads * (kv_b.nope + kv_b.v), kv_b.rank]
}

/// The key half of `kv_b_proj`, transposed: per head `[rank, nope]`.
pub(super) fn kv_b_key(kv_b: &KvB, bytes: &[u8], width: usize) -> Vec<u8> {
    let head = (kv_b.nope + kv_b.v) * kv_b.rank * width;
    let keys = kv_b.nope * kv_b.rank * width;
    let heads = bytes.chunks_exact(head);
    heads.flat_map(|head| transposed(&head[..keys], [kv_b.nope, kv_b.rank], width)).collect()
}

/// The value half of `kv_b_proj`: per head `[v, rank]`.
pub(super) fn kv_b_value(kv_b: &KvB, bytes: &[u8], width: usize) -> Vec<u8> {
    let head = (kv_b.nope + kv_b.v) * kv_b.rank * width;
    let keys = kv_b.nope * kv_b.rank * width;
    bytes.chunks_exact(head).flat_map(|head| &head[keys..]).copied().collect()
}

/// Transposes a matrix with that many rows and columns.
pub(super) fn transposed(bytes: &[u8], [rows, cols]: [usize; 2], width: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for col in 0..cols {
        for row in 0..rows {
            out.extend_from_slice(&bytes[(row * cols + col) * width..][..width]);
        }
    }
    out
}

/// Interleaves the first and the second half of the rows of each head of `head` rows.
pub(super) fn paired(bytes: &[u8], head: usize, row_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(head * row_bytes) {
        let (low, high) = head.split_at(head.len() / 2);
        for (a, b) in low.chunks_exact(row_bytes).zip(high.chunks_exact(row_bytes)) {
            out.extend_from_slice(a);
            out.extend_from_slice(b);
        }
    }
    out
}

/// Every second piece of `piece` bytes, starting with piece `first`.
pub(super) fn every_second(bytes: &[u8], first: usize, piece: usize) -> Vec<u8> {
    bytes.chunks_exact(piece).skip(first).step_by(2).flatten().copied().collect()
}

/// A selection of rows, or columns, of a matrix with that many columns of `width` bytes.
pub(super) fn picked(bytes: &[u8], picked: &Picked, cols: usize, width: usize) -> Vec<u8> {
    let take = |of: &[u8], piece: usize| -> Vec<u8> {
        let ranges = picked.ranges.iter();
        ranges.flat_map(|range| &of[range.start * piece..range.end * piece]).copied().collect()
    };
    match picked.axis {
        Axis::Rows => take(bytes, cols * width),
        Axis::Columns => {
            bytes.chunks_exact(cols * width).flat_map(|row| take(row, width)).collect()
        }
    }
}

/// Numbers in another order; as they are if `order` is empty.
pub(super) fn in_order(numbers: Vec<f32>, order: &[usize]) -> Vec<f32> {
    match order {
        [] => numbers,
        order => order.iter().map(|i| numbers[*i]).collect(),
    }
}

/// MXFP4 in ggml's order (scale first, then bytes that contain elements 16 apart), from gpt-oss's
/// checkpoints, where blocks of 16 bytes are separate from their scales and bytes contain
/// neighbours.
pub(super) fn mxfp4(blocks: &[u8], scales: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(scales.len() * 17);
    for (block, scale) in blocks.as_chunks::<16>().0.iter().zip(scales) {
        let code = |i: usize| block[i / 2] >> (4 * (i % 2)) & 15;
        out.push(*scale);
        out.extend((0..16).map(|i| code(i) | code(i + 16) << 4));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_transposed_per_head_and_values_are_copied() {
        let kv_b = KvB { heads: 2, nope: 2, v: 1, rank: 3 };
        let bytes: Vec<u8> = (0..18).collect();
        assert_eq!(kv_b_shape(&kv_b), [6, 3]);
        assert_eq!(kv_b_key(&kv_b, &bytes, 1), [0, 3, 1, 4, 2, 5, 9, 12, 10, 13, 11, 14]);
        assert_eq!(kv_b_value(&kv_b, &bytes, 1), [6, 7, 8, 15, 16, 17]);
    }

    #[test]
    fn halves_of_heads_become_neighbours() {
        let bytes: Vec<u8> = (0..16).collect();
        let expected = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
        assert_eq!(paired(&bytes, 4, 2), expected);
        assert_eq!(every_second(&bytes, 1, 4), [4, 5, 6, 7, 12, 13, 14, 15]);
    }

    #[test]
    fn mxfp4_keeps_its_scales_and_the_order_of_its_numbers() {
        let block: Vec<u8> = (0..16).map(|i| (2 * i % 16) | (((2 * i + 1) % 16) << 4)).collect();
        let ggml = mxfp4(&block, &[127]);
        let ty = vaquita_runtime::blocks::BlockType::Mxfp4;
        let matrix = vaquita_runtime::blocks::Matrix::new(ty, 1, 32, ggml.into()).unwrap();
        let positive = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let code = |i: usize| if i % 16 < 8 { positive[i % 8] } else { -positive[i % 8] };
        assert_eq!(matrix.decode(), (0..32).map(code).collect::<Vec<f32>>());
    }
}
