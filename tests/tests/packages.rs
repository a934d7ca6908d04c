//! A checkpoint with one matrix as a package of quantization writes it has the weights that the
//! package computes. `golden/quantized/make_packages.py` makes the files with the packages.

use std::collections::HashMap;
use std::fs;

use safetensors::tensor::{TensorView, serialize_to_file};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::blocks::{BlockType, Matrix};
use vaquita_runtime::checkpoint::{HfTensor, Weights};
use vaquita_tests::golden;

/// The matrix that packages wrote.
const BASE: &str = "model.layers.1.self_attn.o_proj";

fn floats(view: &TensorView<'_>) -> Vec<f32> {
    let ty = match view.dtype() {
        Dtype::BF16 => BlockType::BF16,
        Dtype::F16 => BlockType::F16,
        _ => BlockType::F32,
    };
    let (rows, cols) = (view.shape()[0], view.shape()[1]);
    Matrix::new(ty, rows, cols, view.data().to_vec().into()).unwrap().decode()
}

/// The weights of [`BASE`] in the golden checkpoint with the tensors of a form in their place.
fn read(form: &str, config: &str, tensors: Vec<(String, TensorView<'_>)>) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(golden("qwen3-moe/config.json")).unwrap();
    let mut json: Json = serde_json::from_str(&text).unwrap();
    json["quantization_config"] = serde_json::from_str(config).unwrap();
    fs::write(folder.path().join("config.json"), json.to_string()).unwrap();

    let name = format!("{BASE}.weight");
    let plain = fs::read(golden("qwen3-moe/model.safetensors")).unwrap();
    let plain = SafeTensors::deserialize(&plain).unwrap();
    let mut all: HashMap<String, TensorView<'_>> = plain.tensors().into_iter().collect();
    all.remove(&name).unwrap();
    let stored = tensors.into_iter().map(|(name, view)| (format!("{BASE}.{name}"), view));
    all.extend(stored);
    serialize_to_file(all, None, &folder.path().join("model.safetensors")).unwrap();

    let source = HfFolder::open(folder.path()).unwrap_or_else(|error| panic!("{form}: {error}"));
    let specs = source.config().family.tensors(source.config());
    let spec = specs.iter().find(|spec| matches!(&spec.hf, HfTensor::Whole(n) if *n == name));
    source.tensor(spec.unwrap()).unwrap().unwrap().decode()
}

/// Checks all forms of a package; returns how many these are.
fn check(package: &str) -> usize {
    let path = golden("quantized").join(format!("{package}.safetensors"));
    let bytes = fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let forms = header.metadata().as_ref().unwrap();
    for (form, config) in forms {
        let of_form = |(name, view): (String, _)| {
            let name = name.strip_prefix(&format!("{form}."))?.to_string();
            (name != "expected").then_some((name, view))
        };
        let found = read(form, config, file.tensors().into_iter().filter_map(of_form).collect());
        let expected = floats(&file.tensor(&format!("{form}.expected")).unwrap());
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // Zeros may differ in their sign: integers have one zero only.
            let same = found.to_bits() == expected.to_bits() || (*found == 0.0 && *expected == 0.0);
            assert!(same, "{package}, {form}: weight {i} is {found}, and {expected} there");
        }
    }
    forms.len()
}

#[test]
fn compressed_tensors_has_the_same_weights() {
    assert_eq!(check("compressed-tensors"), 11);
}

#[test]
fn modelopt_has_the_same_weights() {
    assert_eq!(check("modelopt"), 4);
}

#[test]
fn autoawq_has_the_same_weights() {
    assert_eq!(check("awq"), 2);
}

#[test]
fn gptqmodel_has_the_same_weights() {
    assert_eq!(check("gptq"), 3);
}
