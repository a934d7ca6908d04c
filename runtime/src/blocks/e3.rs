//! e3: 3-bit codes. A group is the two low bits as in e2 (64 bytes), then 32 bytes of high bits:
//! bit `s` of byte `4r + i` belongs to row `r` and column `4s + i`.

use super::e2;

const HIGH: usize = 64;

pub(super) fn get(group: &[u8], r: usize, k: usize) -> u8 {
    let high = group[HIGH + r * 4 + k % 4] >> (k / 4) & 1;
    e2::get(group, r, k) | high << 2
}

pub(super) fn put(group: &mut [u8], r: usize, k: usize, code: u8) {
    e2::put(group, r, k, code);
    group[HIGH + r * 4 + k % 4] |= (code >> 2 & 1) << (k / 4);
}
