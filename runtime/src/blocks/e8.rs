//! e8: 8-bit integers. A group is eight runs of 32 bytes; byte `4r + i` of run `s` is row `r`'s
//! weight of column `4s + i`, between -127 and 127.

fn place(r: usize, k: usize) -> usize {
    k / 4 * 32 + r * 4 + k % 4
}

pub(super) fn get(group: &[u8], r: usize, k: usize) -> u8 {
    group[place(r, k)]
}

pub(super) fn put(group: &mut [u8], r: usize, k: usize, code: u8) {
    group[place(r, k)] = code;
}
