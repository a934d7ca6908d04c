//! A checkpoint with one matrix in each form opens, and the matrix has the weights that the method's
//! definition gives it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Value as Json, json};
use vaquita_runtime::blocks::{BlockType, Matrix};
use vaquita_runtime::checkpoint::{HfTensor, Weights};

use super::super::HfFolder;
use super::*;

/// The matrix that is stored in another form, and its shape.
const BASE: &str = "model.layers.1.self_attn.o_proj";
const SHAPE: [usize; 2] = [64, 128];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

fn compressed(format: &str) -> Json {
    json!({"quant_method": "compressed-tensors", "format": format, "config_groups": {}})
}

/// Forms of the golden file with their `quantization_config`.
fn forms() -> Vec<(&'static str, Json)> {
    let packed = || compressed("pack-quantized");
    let gptq = || json!({"quant_method": "gptq", "bits": 4, "group_size": 32});
    let awq = || json!({"quant_method": "awq", "bits": 4, "version": "gemm"});
    vec![
        ("int4-g32", packed()),
        ("int4-g128", packed()),
        ("int4-asymmetric", packed()),
        ("int4-act-order", packed()),
        ("int8-g128", packed()),
        ("fp8-channel", compressed("float-quantized")),
        ("fp8-tensor", compressed("float-quantized")),
        ("int8-channel", compressed("int-quantized")),
        ("fp8-32x32", json!({"quant_method": "fp8", "weight_block_size": [32, 32]})),
        ("nvfp4-compressed", compressed("nvfp4-pack-quantized")),
        ("nvfp4-modelopt", json!({"quant_method": "modelopt", "quant_algo": "NVFP4"})),
        ("mxfp4-compressed", compressed("mxfp4-pack-quantized")),
        ("mxfp4-deepseek", json!({"quant_method": "fp8"})),
        ("gptq-g32", gptq()),
        ("gptq-act-order", gptq()),
        ("awq-g128", awq()),
        ("awq-g32", json!({"quant_method": "auto-round", "packing_format": "auto_round:auto_awq"})),
        ("f64", Json::Null),
    ]
}

/// The golden checkpoint with [`BASE`] in a form, after `edit` of that form's tensors.
fn checkpoint(
    form: &str,
    method: &Json,
    edit: impl FnOnce(&mut HashMap<String, TensorView<'_>>),
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(golden("qwen3-moe/config.json")).unwrap();
    let mut config: Json = serde_json::from_str(&text).unwrap();
    config["quantization_config"] = method.clone();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();

    let [plain, quantized] = ["qwen3-moe/model.safetensors", "quantized/quantized.safetensors"]
        .map(|name| fs::read(golden(name)).unwrap());
    let plain = SafeTensors::deserialize(&plain).unwrap();
    let quantized = SafeTensors::deserialize(&quantized).unwrap();
    let mut stored = HashMap::new();
    for (name, view) in quantized.tensors() {
        if let Some(rest) = name.strip_prefix(&format!("{form}."))
            && rest != "expected"
        {
            stored.insert(format!("{BASE}.{rest}"), view);
        }
    }
    assert!(!stored.is_empty(), "{form}");
    edit(&mut stored);
    let rest = plain.tensors().into_iter().filter(|(name, _)| *name != format!("{BASE}.weight"));
    let all: Vec<_> = rest.chain(stored).collect();
    serialize_to_file(all, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

/// The weights that a form stands for.
fn expected(form: &str) -> Vec<f32> {
    let bytes = fs::read(golden("quantized/quantized.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(&format!("{form}.expected")).unwrap();
    let bytes = view.data().to_vec().into();
    let stored = Stored { path: Path::new(""), dtype: view.dtype(), shape: view.shape(), bytes };
    scales::to_f32(&stored, form).unwrap()
}

fn assert_same(found: &[f32], form: &str) {
    let expected = expected(form);
    assert_eq!(found.len(), expected.len(), "{form}");
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        // Zeros may differ in their sign: integers have one zero only.
        let same = found.to_bits() == expected.to_bits() || (*found == 0.0 && *expected == 0.0);
        assert!(same, "{form}: weight {i} is {found}, and {expected} by definition");
    }
}

#[test]
fn every_form_has_the_weights_of_its_definition() {
    for (form, method) in forms() {
        let folder = checkpoint(form, &method, |_| {});
        let source =
            HfFolder::open(folder.path()).unwrap_or_else(|error| panic!("{form}: {error}"));
        let config = source.config();
        let name = format!("{BASE}.weight");
        let specs = config.family.tensors(config);
        let spec = specs.iter().find(|spec| matches!(&spec.hf, HfTensor::Whole(n) if *n == name));
        let matrix = source.tensor(spec.unwrap()).unwrap().unwrap();
        assert_same(&matrix.decode(), form);
    }
}

#[test]
fn mxfp4_becomes_blocks_without_loss_where_blocks_are_wanted() {
    for form in ["mxfp4-compressed", "mxfp4-deepseek"] {
        let folder = checkpoint(form, &json!({"quant_method": "fp8"}), |_| {});
        let shards = Shards::open(folder.path()).unwrap();
        let method = Method::of(&json!({})).unwrap();
        let name = format!("{BASE}.weight");
        let found = find(&shards, &method, folder.path(), &name, SHAPE).unwrap().unwrap();
        let (ty, bytes) = found.read(true);
        assert_eq!(ty, BlockType::Mxfp4);
        let matrix = Matrix::new(ty, SHAPE[0], SHAPE[1], bytes.into()).unwrap();
        assert_same(&matrix.decode(), form);
    }
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    for (form, method) in forms() {
        let folder = checkpoint(form, &method, |_| {});
        let bytes = fs::read(folder.path().join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let names: Vec<String> = file.names().into_iter().map(String::from).collect();
        for name in names.iter().filter(|name| name.starts_with(&format!("{BASE}."))) {
            // Optional, or not used.
            let optional = ["weight_shape", "g_idx", "input_scale", "weight_zero_point"];
            if !optional.iter().any(|ending| name.ends_with(ending)) {
                let folder = checkpoint(form, &method, |stored| drop(stored.remove(name)));
                let error = HfFolder::open(folder.path()).err().map(|error| error.to_string());
                let error = error.unwrap_or_else(|| panic!("{form} opens without {name}"));
                assert!(error.contains(BASE), "{form}: {error}");
            }
            if name.ends_with("weight_shape") || name.ends_with("input_scale") {
                continue;
            }
            // Of another length.
            static ZEROS: [u8; 8 * 67] = [0; 8 * 67];
            let folder = checkpoint(form, &method, |stored| {
                let dtype = stored[name].dtype();
                let len = 67 * dtype.bitsize() / 8;
                stored
                    .insert(name.clone(), TensorView::new(dtype, vec![67], &ZEROS[..len]).unwrap());
            });
            let error = HfFolder::open(folder.path()).err().map(|error| error.to_string());
            assert!(error.is_some(), "{form} opens with 67 numbers in {name}");
        }
    }
}

#[test]
fn groups_beyond_the_scales_are_refused() {
    let method = json!({"quant_method": "gptq", "bits": 4});
    // The form has four groups, and this is the fifth.
    static BEYOND: [u8; 4 * 128] = [4; 4 * 128];
    let folder = checkpoint("gptq-g32", &method, |stored| {
        let view = TensorView::new(Dtype::I32, vec![128], &BEYOND).unwrap();
        stored.insert(format!("{BASE}.g_idx"), view);
    });
    assert!(HfFolder::open(folder.path()).err().unwrap().to_string().contains("g_idx"));
}

#[test]
fn other_methods_are_refused_by_their_names() {
    for (method, name) in [
        (json!({"quant_method": "bitsandbytes"}), "bitsandbytes"),
        (json!({"quant_method": "hqq"}), "hqq"),
        (compressed("marlin-24"), "marlin-24"),
        (json!({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}), "W4A8_AWQ"),
        (json!({"quant_method": "awq", "version": "gemv"}), "gemv"),
        (json!({"quant_method": "gptq", "checkpoint_format": "marlin"}), "marlin"),
        (
            json!({"quant_method": "auto-round", "packing_format": "auto_round:exllamav2"}),
            "exllamav2",
        ),
    ] {
        let error = Method::of(&json!({"quantization_config": method})).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
