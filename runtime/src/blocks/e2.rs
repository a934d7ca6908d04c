//! e2: 2-bit codes. A group is two runs of 32 bytes; byte `4r + i` of run `j` holds, at bits `2s`,
//! the code of row `r` and column `16j + 4s + i`.

fn place(r: usize, k: usize) -> (usize, usize) {
    (k / 16 * 32 + r * 4 + k % 4, k / 4 % 4 * 2)
}

pub(super) fn get(group: &[u8], r: usize, k: usize) -> u8 {
    let (byte, shift) = place(r, k);
    group[byte] >> shift & 3
}

pub(super) fn put(group: &mut [u8], r: usize, k: usize, code: u8) {
    let (byte, shift) = place(r, k);
    group[byte] |= (code & 3) << shift;
}
