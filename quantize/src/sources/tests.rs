//! Valid folders, and all ways in which a folder can be invalid.

use std::fs;
use std::path::{Path, PathBuf};

use vaquita_runtime::checkpoint::Projection;
use vaquita_runtime::checkpoint::config::AttentionConfig;
use vaquita_runtime::checkpoint::{ExpertId, LayerId, WeightsError};

use super::*;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A copy of a small checkpoint to damage.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(repository("tests/golden/deepseek-v3").join(file), folder.path().join(file))
            .unwrap();
    }
    folder
}

/// Replaces the single file by an index whose every tensor is in `shard`, plus what `edit` adds.
fn write_index(folder: &Path, shard: &str, extra: &[(&str, &str)]) {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut map = serde_json::Map::new();
    for name in tensors.names() {
        map.insert(name.to_string(), shard.into());
    }
    for (name, shard) in extra {
        map.insert(name.to_string(), (*shard).into());
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn error_of(folder: &Path) -> SourceError {
    HfFolder::open(folder).err().expect("the folder is damaged")
}

#[test]
fn every_golden_checkpoint_opens_and_gives_all_its_tensors() {
    for name in ["deepseek-v2-lite", "deepseek-v2", "deepseek-v3", "moonlight"] {
        let folder = HfFolder::open(repository("tests/golden").join(name)).unwrap();
        let config = folder.config();
        for spec in config.family.tensors(config) {
            let Some(matrix) = folder.tensor(&spec).unwrap() else {
                assert!(spec.optional, "{}", spec.name);
                continue;
            };
            assert_eq!((matrix.rows(), matrix.cols()), (spec.rows, spec.cols), "{}", spec.name);
        }
    }
}

#[test]
fn fp8_weights_have_the_checkpoints_scale() {
    let folder = HfFolder::open(repository("calibration/reference")).unwrap();
    let config = folder.config();
    let spec = config.family.expert(config, LayerId(1), ExpertId(3));
    let expert = folder.expert(&spec).unwrap();
    let weights = expert.gate.decode();
    let largest = weights.iter().fold(0f32, |most, weight| most.max(weight.abs()));
    assert!((0.01..10.0).contains(&largest), "{largest}");
    // The scales map the largest weight of a block to 448, so this is one of the values.
    let stored = fs::read(repository("calibration/reference/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&stored).unwrap();
    let scales =
        tensors.tensor(&format!("{}_scale_inv", spec.projection_name(Projection::Gate))).unwrap();
    let scale = f32::from_le_bytes(scales.data()[..4].try_into().unwrap());
    let top = weights.iter().map(|weight| weight.abs() / scale).fold(0f32, f32::max);
    assert!(top <= 448.0 * 2.0, "{top}");
}

#[test]
fn the_halves_of_kv_b_hold_all_of_its_weights() {
    let folder = HfFolder::open(repository("tests/golden/deepseek-v3")).unwrap();
    let config = folder.config();
    let specs = config.family.tensors(config);
    let sum = |suffix: &str| -> f64 {
        let spec = specs.iter().find(|spec| spec.name.ends_with(suffix)).unwrap();
        let matrix = folder.tensor(spec).unwrap().unwrap();
        matrix.decode().iter().map(|weight| f64::from(*weight)).sum()
    };
    let stored = fs::read(repository("tests/golden/deepseek-v3/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&stored).unwrap();
    let whole = tensors.tensor("model.layers.0.self_attn.kv_b_proj.weight").unwrap();
    let AttentionConfig::Mla(mla) = &config.attention else { panic!("V3 has MLA") };
    let rows = mla.num_attention_heads * (mla.qk_nope_head_dim + mla.v_head_dim);
    assert_eq!(whole.shape(), [rows, mla.kv_lora_rank]);
    let bytes = whole.data().to_vec().into();
    let ty = match whole.dtype() {
        safetensors::Dtype::F32 => vaquita_runtime::blocks::BlockType::F32,
        _ => vaquita_runtime::blocks::BlockType::BF16,
    };
    let whole = vaquita_runtime::blocks::Matrix::new(ty, rows, mla.kv_lora_rank, bytes).unwrap();
    let expected: f64 = whole.decode().iter().map(|weight| f64::from(*weight)).sum();
    assert!((sum("attn_k_b.weight") + sum("attn_v_b.weight") - expected).abs() < 1e-3);
}

#[test]
fn an_index_with_its_shard_is_read() {
    let folder = copy();
    write_index(folder.path(), "model.safetensors", &[]);
    HfFolder::open(folder.path()).unwrap();
}

#[test]
fn a_missing_shard_is_named() {
    let folder = copy();
    write_index(folder.path(), "model-00001-of-00002.safetensors", &[]);
    let error = error_of(folder.path());
    assert!(matches!(error, SourceError::MissingShard { .. }), "{error}");
    assert!(error.to_string().contains("model-00001-of-00002.safetensors is missing"), "{error}");
}

#[test]
fn a_truncated_shard_is_named() {
    for keep in [0, 4, 100, 900_000] {
        let folder = copy();
        let path = folder.path().join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..keep]).unwrap();
        let error = error_of(folder.path());
        assert!(matches!(error, SourceError::Shard { .. }), "{error}");
        assert!(error.to_string().contains("model.safetensors is not a whole"), "{error}");
    }
}

#[test]
fn a_tensor_that_its_shard_lacks_is_named() {
    let folder = copy();
    write_index(folder.path(), "model.safetensors", &[("model.ghost", "model.safetensors")]);
    let error = error_of(folder.path());
    assert!(error.to_string().contains("lacks tensor model.ghost"), "{error}");
}

#[test]
fn a_shard_outside_the_folder_is_refused() {
    for shard in ["../model.safetensors", "/etc/passwd", "a/../../b", ""] {
        let folder = copy();
        write_index(folder.path(), "model.safetensors", &[("x", shard)]);
        let error = error_of(folder.path());
        assert!(matches!(error, SourceError::OutsideFolder { .. }), "{shard}: {error}");
    }
}

#[test]
fn a_folder_without_weights_or_config_says_so() {
    let folder = copy();
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(matches!(error_of(folder.path()), SourceError::NoWeights { .. }));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(error_of(folder.path()).to_string().contains("config.json"));
}

/// Rewrites the safetensors header; offsets must stay as they are.
fn edit_header(folder: &Path, edit: impl Fn(&str) -> String) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = edit(std::str::from_utf8(&bytes[8..8 + len]).unwrap());
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&bytes[8 + len..]);
    fs::write(path, out).unwrap();
}

#[test]
fn a_wrong_shape_names_tensor_and_both_shapes() {
    let folder = copy();
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let width = config["moe_intermediate_size"].as_u64().unwrap();
    config["moe_intermediate_size"] = (width * 2).into();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let error = error_of(folder.path());
    assert!(matches!(error, SourceError::Weights(WeightsError::Shape { .. })), "{error}");
    assert!(error.to_string().contains("the configuration says"), "{error}");
}

#[test]
fn a_missing_tensor_and_an_unknown_type_are_named() {
    let folder = copy();
    edit_header(folder.path(), |header| header.replace("model.norm.weight", "model.morn.weight"));
    assert!(error_of(folder.path()).to_string().contains("tensor model.norm.weight is missing"));

    let folder = copy();
    edit_header(folder.path(), |header| {
        header.replace("\"F32\"", "\"I32\"").replace("\"BF16\"", "\"I16\"")
    });
    let error = error_of(folder.path());
    assert!(matches!(error, SourceError::Weights(WeightsError::Type { .. })), "{error}");
    assert!(error.to_string().contains("has type I"), "{error}");
}

#[test]
fn block_sizes_that_make_no_sense_are_refused() {
    let folder = copy();
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["quantization_config"] = serde_json::json!({ "weight_block_size": [0, 128] });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let error = error_of(folder.path());
    assert!(error.to_string().contains("weight_block_size is [0,128]"), "{error}");
}

#[test]
fn the_identity_changes_with_any_weight() {
    let folder = copy();
    let before = HfFolder::open(folder.path()).unwrap().identity().unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for (at, in_ends) in [(bytes.len() - 1, true), (bytes.len() / 2, bytes.len() <= 1 << 17)] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let after = HfFolder::open(folder.path()).unwrap().identity().unwrap();
        assert_eq!(before.bytes, after.bytes);
        assert_ne!(before.fingerprint, after.fingerprint);
        assert!(!after.is(&before.fingerprint));
        // Fingerprints of earlier versions cover the ends only.
        assert_eq!(after.is(&before.ends), !in_ends);
    }
}
