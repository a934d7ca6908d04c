//! e4: 4-bit codes. A group is four runs of 32 bytes; byte `4r + i` of run `j` holds row `r`'s
//! codes of column `8j + i` (low half) and `8j + 4 + i` (high half).

fn place(r: usize, k: usize) -> (usize, usize) {
    (k / 8 * 32 + r * 4 + k % 4, k / 4 % 2 * 4)
}

pub(super) fn get(group: &[u8], r: usize, k: usize) -> u8 {
    let (byte, shift) = place(r, k);
    group[byte] >> shift & 15
}

pub(super) fn put(group: &mut [u8], r: usize, k: usize, code: u8) {
    let (byte, shift) = place(r, k);
    group[byte] |= (code & 15) << shift;
}
