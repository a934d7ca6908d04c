//! The checksum of POSIX `cksum`, which every board has: CRC-32 with the highest bit first,
//! followed by the length. It detects accidental damage; ssh protects against tampering.

use std::io::{self, Read};

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = ((i as u32) << 24, 0);
        while bit < 8 {
            crc = if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

pub(crate) struct Cksum(u32);

impl Cksum {
    fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .fold(self.0, |crc, byte| crc << 8 ^ TABLE[((crc >> 24) ^ u32::from(*byte)) as usize]);
    }

    /// Checksum of the next `bytes` bytes of a file; an error if there are fewer.
    pub fn of(file: &mut impl Read, bytes: u64) -> io::Result<u32> {
        let mut sum = Self(0);
        let (mut buffer, mut left) = (vec![0; 1 << 20], bytes);
        while left > 0 {
            let most = left.min(buffer.len() as u64) as usize;
            let read = file.read(&mut buffer[..most])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            sum.add(&buffer[..read]);
            left -= read as u64;
        }
        let mut length = bytes;
        while length > 0 {
            sum.add(&[length as u8]);
            length >>= 8;
        }
        Ok(!sum.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_tool() {
        // printf 123456789 | cksum; printf '' | cksum; head -c 1000 /dev/zero | cksum
        assert_eq!(Cksum::of(&mut &b"123456789"[..], 9).unwrap(), 930_766_865);
        assert_eq!(Cksum::of(&mut &b""[..], 0).unwrap(), 4_294_967_295);
        assert_eq!(Cksum::of(&mut &[0; 1000][..], 1000).unwrap(), ZEROS);
        assert!(Cksum::of(&mut &b"12"[..], 3).is_err());
    }

    const ZEROS: u32 = 2610763910;
}
