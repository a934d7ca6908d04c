//! The packed 6-bit scales and minima of Q4_K and Q5_K.

/// Scale and minimum of group `index`, from the 12 bytes that hold eight of each.
#[inline(always)]
pub(super) fn scale_and_min(bytes: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        (bytes[index] & 63, bytes[index + 4] & 63)
    } else {
        let (low, scale, min) = (bytes[index + 4], bytes[index - 4] >> 6, bytes[index] >> 6);
        (low & 15 | scale << 4, low >> 4 | min << 4)
    }
}
