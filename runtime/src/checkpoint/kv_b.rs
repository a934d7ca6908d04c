//! MLA's `kv_b_proj` in GGUF files from before spring 2025: whole, as in a checkpoint. The absorbed
//! form needs its halves (see [`HfTensor::KvBKey`](super::HfTensor::KvBKey)), which are extracted
//! here.

use crate::blocks::{Matrix, MatrixError};

use super::{HfTensor, KvB, TensorSpec};

/// Specification of the whole `kv_b_proj`, if `spec` is one of its halves.
pub(super) fn whole(spec: &TensorSpec) -> Option<(TensorSpec, &KvB)> {
    let (HfTensor::KvBKey(_, kv_b) | HfTensor::KvBValue(_, kv_b)) = &spec.hf else { return None };
    let name = spec.name.replace("attn_k_b", "attn_kv_b").replace("attn_v_b", "attn_kv_b");
    let (rows, cols) = (kv_b.heads * (kv_b.nope + kv_b.v), kv_b.rank);
    Some((TensorSpec { name, rows, cols, ..spec.clone() }, kv_b))
}

/// Extracts one half. Values keep their type; keys become F32, since they are transposed.
pub(super) fn half(spec: &TensorSpec, whole: &Matrix, kv_b: &KvB) -> Result<Matrix, MatrixError> {
    let head = kv_b.nope + kv_b.v;
    if let HfTensor::KvBKey(..) = spec.hf {
        let mut keys = vec![0.0; spec.rows * spec.cols];
        let mut row = vec![0.0; kv_b.rank];
        for (number, keys) in keys.chunks_exact_mut(kv_b.rank * kv_b.nope).enumerate() {
            for i in 0..kv_b.nope {
                whole.decode_row(number * head + i, &mut row);
                for (keys, weight) in keys.chunks_exact_mut(kv_b.nope).zip(&row) {
                    keys[i] = *weight;
                }
            }
        }
        return Matrix::from_f32(spec.rows, spec.cols, &keys);
    }
    let row_bytes = whole.data().len() / whole.rows();
    let heads = whole.data().chunks_exact(head * row_bytes);
    let values: Vec<u8> = heads.flat_map(|head| &head[kv_b.nope * row_bytes..]).copied().collect();
    Matrix::new(whole.block_type(), spec.rows, spec.cols, values.into())
}
