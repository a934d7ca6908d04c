//! Cuts `kv_b_proj` of MLA into the two halves that the absorbed form needs.
//!
//! A checkpoint stacks, per head, `qk_nope_head_dim` rows that make keys and `v_head_dim` rows that make values,
//! each `kv_lora_rank` wide. The functions move numbers of `width` bytes and do not look at them.

/// Shape of `kv_b_proj`.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvB {
    /// Heads.
    pub heads: usize,
    /// Rows of keys per head.
    pub nope: usize,
    /// Rows of values per head.
    pub v: usize,
    /// Columns.
    pub rank: usize,
}

impl KvB {
    /// Rows and columns in the checkpoint.
    pub fn shape(&self) -> [usize; 2] {
        [self.heads * (self.nope + self.v), self.rank]
    }

    /// The key half, transposed: per head `[rank, nope]`.
    pub fn key(&self, bytes: &[u8], width: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.heads * self.rank * self.nope * width);
        for head in 0..self.heads {
            let first = head * (self.nope + self.v);
            for col in 0..self.rank {
                for row in first..first + self.nope {
                    out.extend_from_slice(&bytes[(row * self.rank + col) * width..][..width]);
                }
            }
        }
        out
    }

    /// The value half: per head `[v, rank]`.
    pub fn value(&self, bytes: &[u8], width: usize) -> Vec<u8> {
        let row = self.rank * width;
        let mut out = Vec::with_capacity(self.heads * self.v * row);
        for head in 0..self.heads {
            let first = head * (self.nope + self.v) + self.nope;
            out.extend_from_slice(&bytes[first * row..][..self.v * row]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_transposed_per_head_and_values_are_copied() {
        let kv_b = KvB { heads: 2, nope: 2, v: 1, rank: 3 };
        let bytes: Vec<u8> = (0..18).collect();
        assert_eq!(kv_b.shape(), [6, 3]);
        assert_eq!(kv_b.key(&bytes, 1), [0, 3, 1, 4, 2, 5, 9, 12, 10, 13, 11, 14]);
        assert_eq!(kv_b.value(&bytes, 1), [6, 7, 8, 15, 16, 17]);
    }
}
