//! Compact encoding of runs of 128-bit sums. Sums of one matrix end in the same number of zero bits
//! and begin with many sign bits, which are cut off. Each sum takes at least a byte, so that a file
//! expands to at most sixteen times its size.

use std::io::{self, Read, Write};

/// Number of sums that share a width.
const RUN: usize = 4096;

/// Writes sums: for each run the number of cut-off zero bits, the bytes per sum, and the sums,
/// little-endian.
pub(super) fn write(out: &mut impl Write, sums: &[i128]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for run in sums.chunks(RUN) {
        let any = run.iter().fold(0, |any, sum| any | sum);
        let shift = if any == 0 { 0 } else { any.trailing_zeros() };
        let wide = run.iter().map(|sum| 128 - (sum ^ (sum >> 127)).leading_zeros() + 1).max();
        let width = (wide.unwrap_or(1) - shift).div_ceil(8);
        bytes.clear();
        bytes.extend([shift as u8, width as u8]);
        for sum in run {
            bytes.extend(&(sum >> shift).to_le_bytes()[..width as usize]);
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Reads `count` sums.
pub(super) fn read(from: &mut impl Read, count: usize) -> io::Result<Vec<i128>> {
    let mut sums = Vec::with_capacity(count);
    let mut bytes = vec![0; RUN * size_of::<i128>()];
    while sums.len() < count {
        let run = RUN.min(count - sums.len());
        let mut head = [0; 2];
        from.read_exact(&mut head)?;
        let [shift, width] = head.map(u32::from);
        if shift > 127 || !(1..=16).contains(&width) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let width = width as usize;
        let bytes = &mut bytes[..run * width];
        from.read_exact(bytes)?;
        for bytes in bytes.chunks_exact(width) {
            let sign = if bytes[width - 1] & 0x80 == 0 { 0 } else { 0xff };
            let mut whole = [sign; 16];
            whole[..width].copy_from_slice(bytes);
            sums.push(i128::from_le_bytes(whole) << shift);
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_come_back_and_take_what_they_need() {
        let of = |shift: u32, n: i128| -> Vec<i128> { (-n..n).map(|i| i << shift).collect() };
        let cases = [
            (vec![], 0),
            (vec![0; 5000], 5004),
            (of(40, 100), 2 + 200),
            (of(3, 30_000), 60_000 * 2 + 15 * 2),
            (vec![i128::MAX, i128::MIN, 0, 1, -1], 2 + 5 * 16),
            (vec![i128::MIN], 2 + 1),
        ];
        for (sums, most) in cases {
            let mut bytes = Vec::new();
            write(&mut bytes, &sums).unwrap();
            assert!(bytes.len() <= most, "{} of {most}", bytes.len());
            assert_eq!(read(&mut &bytes[..], sums.len()).unwrap(), sums);
            for len in 0..bytes.len().min(10) {
                assert!(read(&mut &bytes[..len], sums.len()).is_err());
            }
        }
        assert!(read(&mut &[128u8, 1, 1][..], 1).is_err());
        assert!(read(&mut &[0u8, 17, 1][..], 1).is_err());
        assert!(read(&mut &[0u8, 0, 1][..], 1).is_err());
    }
}
