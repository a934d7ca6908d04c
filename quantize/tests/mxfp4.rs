//! gpt-oss's checkpoints keep experts in MXFP4. They are read as such, and four bits hold them exactly.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use vaquita_quantize::sources::{self, HfFolder};
use vaquita_quantize::{Job, Plan, quantize};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{
    Expert, ExpertId, GgufWeights, LayerId, Verify, Weights, WeightsError,
};
use vaquita_runtime::gguf::Metadata;

const VALUES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/gpt-oss")
}

/// Codes and scales that nothing has chosen: any are as good as others.
fn codes(seed: usize, count: usize) -> Vec<u8> {
    (0..count).map(|i| ((i * 2_654_435_761 + seed * 97) >> 7) as u8).collect()
}

/// The golden checkpoint with experts in MXFP4, and with the same experts in BF16.
fn checkpoints(mxfp4: &Path, plain: &Path) {
    let bytes = std::fs::read(golden().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut packed: HashMap<String, (Dtype, Vec<usize>, Vec<u8>)> = HashMap::new();
    let mut unpacked = HashMap::new();
    for (name, tensor) in file.tensors() {
        let whole = (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec());
        if !name.ends_with("experts.gate_up_proj") && !name.ends_with("experts.down_proj") {
            packed.insert(name.clone(), whole.clone());
            unpacked.insert(name, whole);
            continue;
        }
        let &[experts, inputs, outputs] = tensor.shape() else { panic!("{name} is a stack") };
        let groups = inputs / 32;
        let blocks = codes(name.len(), experts * outputs * groups * 16);
        let scales: Vec<u8> =
            codes(outputs, experts * outputs * groups).iter().map(|x| 118 + x % 5).collect();
        let mut weights = vec![0u8; experts * inputs * outputs * 2];
        for (at, scale) in scales.iter().enumerate() {
            let (row, group) = (at / groups, at % groups);
            let (expert, output) = (row / outputs, row % outputs);
            for i in 0..32 {
                let code = blocks[at * 16 + i / 2] >> (4 * (i % 2)) & 15;
                let magnitude = VALUES[usize::from(code & 7)] * f32::from(*scale - 118 + 1).exp2();
                let weight = if code < 8 { magnitude } else { -magnitude } / 1024.0;
                let to = (expert * inputs + group * 32 + i) * outputs + output;
                weights[to * 2..][..2].copy_from_slice(&bf16::from_f32(weight).to_le_bytes());
            }
        }
        packed.insert(
            format!("{name}_blocks"),
            (Dtype::U8, vec![experts, outputs, groups, 16], blocks),
        );
        packed
            .insert(format!("{name}_scales"), (Dtype::U8, vec![experts, outputs, groups], scales));
        unpacked.insert(name, (Dtype::BF16, vec![experts, inputs, outputs], weights));
    }
    for (folder, tensors) in [(mxfp4, packed), (plain, unpacked)] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::copy(golden().join("config.json"), folder.join("config.json")).unwrap();
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    }
}

/// All weights of an expert.
fn decoded(expert: Result<Expert, WeightsError>) -> Vec<f32> {
    let Expert { gate, up, down } = expert.unwrap();
    [gate, up, down].iter().flat_map(|matrix| matrix.decode()).collect()
}

#[test]
fn experts_in_mxfp4_are_read_as_they_are_and_repacked_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (mxfp4, plain) = (folder.path().join("mxfp4"), folder.path().join("plain"));
    checkpoints(&mxfp4, &plain);
    let (packed, unpacked) = (HfFolder::open(&mxfp4).unwrap(), HfFolder::open(&plain).unwrap());

    let out = folder.path().join("e4.gguf");
    let source = sources::open(&mxfp4).unwrap();
    let weights = source.weights.as_ref();
    let plan = Plan::uniform(weights.config(), BlockType::E4);
    let (identity, tokenizer) = (&source.identity, &Metadata::new());
    let job = Job { weights, identity, tokenizer, importance: None, plan: &plan, out: &out };
    quantize(&job, &mut |_| {}).unwrap();
    let e4 = GgufWeights::open(&out, Verify::First).unwrap();

    let config = packed.config();
    for layer in (0..config.num_hidden_layers).map(LayerId) {
        for expert in (0..config.moe.n_routed_experts).map(ExpertId) {
            let spec = config.family.expert(config, layer, expert);
            let read = packed.expert(&spec);
            assert_eq!(read.as_ref().unwrap().gate.block_type(), BlockType::Mxfp4);
            let expected = decoded(unpacked.expert(&spec));
            assert_eq!(decoded(read), expected, "{layer:?} {expert:?}");
            assert_eq!(decoded(e4.expert(&spec)), expected, "{layer:?} {expert:?} in e4");
        }
    }
}

#[test]
fn scales_that_are_missing_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mxfp4, plain) = (folder.path().join("mxfp4"), folder.path().join("plain"));
    checkpoints(&mxfp4, &plain);
    let path = mxfp4.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let gone = "model.layers.1.mlp.experts.down_proj_scales";
    let rest = file.tensors().into_iter().filter(|(name, _)| name != gone);
    safetensors::serialize_to_file(rest, None, &path).unwrap();
    let error = HfFolder::open(&mxfp4).err().unwrap().to_string();
    assert!(error.contains(gone), "{error}");
}
