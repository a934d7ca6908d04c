//! From checkpoints to files and back, and what happens when it goes wrong.

use std::fs;
use std::path::{Path, PathBuf};

use vaquita_quantize::sources::{self, Identity, Source};
use vaquita_quantize::{
    DenseTypes, Job, Material, Plan, PlanError, QuantizeError, Report, Target, mixed, quantize,
};
use vaquita_runtime::blocks::{BlockType, Matrix};
use vaquita_runtime::checkpoint::{
    Config, Expert, ExpertSpec, GgufWeights, Role, TensorSpec, Verify, Weights, WeightsError,
};
use vaquita_runtime::gguf::Metadata;

const REFERENCE: &str = "calibration/reference";
const GOLDEN: [&str; 4] = [
    "tests/golden/deepseek-v2-lite",
    "tests/golden/deepseek-v2",
    "tests/golden/deepseek-v3",
    "tests/golden/moonlight",
];

fn open(path: &str) -> Source {
    sources::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

fn tokenizer() -> Metadata {
    let mut tokenizer = Metadata::new();
    tokenizer.insert("tokenizer.ggml.model", "gpt2");
    tokenizer
}

fn write(source: &Source, plan: &Plan, out: &Path) -> Result<Report, QuantizeError> {
    let Source { weights, identity, .. } = source;
    let tokenizer = tokenizer();
    let job = Job {
        weights: weights.as_ref(),
        identity,
        tokenizer: &tokenizer,
        importance: None,
        plan,
        out,
    };
    quantize(&job, &mut |_| {})
}

fn plan_of(source: &Source, target: Target) -> Result<Plan, PlanError> {
    let Source { weights, identity, .. } = source;
    let tokenizer = tokenizer();
    let material =
        Material { weights: weights.as_ref(), identity, tokenizer: &tokenizer, importance: None };
    mixed(&material, target, &mut |_| {})
}

fn squared_distance(a: &Matrix, b: &Matrix) -> (f64, f64) {
    let (a, b) = (a.decode(), b.decode());
    assert_eq!(a.len(), b.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let distance = a.iter().zip(&b).map(|(a, b)| square(a - b)).sum();
    (distance, a.iter().map(|a| square(*a)).sum())
}

/// Squared error over energy, of everything but the experts and of the experts.
fn losses(source: &dyn Weights, file: &dyn Weights) -> [f64; 2] {
    let config = source.config();
    let mut sums = [(0.0, 0.0); 2];
    let mut add = |kind: usize, a: &Matrix, b: &Matrix| {
        let (distance, energy) = squared_distance(a, b);
        sums[kind].0 += distance;
        sums[kind].1 += energy;
    };
    for spec in config.family.tensors(config) {
        match (source.tensor(&spec).unwrap(), file.tensor(&spec).unwrap()) {
            (Some(a), Some(b)) => add(0, &a, &b),
            (a, b) => assert!(a.is_none() && b.is_none() && spec.optional, "{}", spec.name),
        }
    }
    for spec in experts(config) {
        let (a, b) = (source.expert(&spec).unwrap(), file.expert(&spec).unwrap());
        add(1, &a.gate, &b.gate);
        add(1, &a.up, &b.up);
        add(1, &a.down, &b.down);
    }
    sums.map(|(distance, energy)| distance / energy)
}

fn experts(config: &Config) -> Vec<ExpertSpec> {
    use vaquita_runtime::checkpoint::{ExpertId, LayerId};
    let layers = (0..config.num_layers_stored()).filter(|layer| config.is_moe(*layer));
    let count = config.moe.n_routed_experts;
    let ids = layers.flat_map(|layer| (0..count).map(move |expert| (layer, expert)));
    ids.map(|(l, e)| config.family.expert(config, LayerId(l), ExpertId(e))).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_golden_model_becomes_a_file_with_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    for path in GOLDEN {
        let source = open(path);
        for (ty, dense, experts) in [
            (BlockType::E4, 0.008, 0.008),
            (BlockType::E2, 0.008, 0.12),
            (BlockType::E8, 5e-5, 5e-5),
            (BlockType::F16, 1e-6, 1e-6),
        ] {
            let out = folder.path().join("model.gguf");
            let plan = Plan::uniform(source.weights.config(), ty);
            let report = write(&source, &plan, &out).unwrap();
            assert_eq!(report.file_bytes, fs::metadata(&out).unwrap().len());
            let file = GgufWeights::open(&out, Verify::Always).unwrap();
            assert!(file.is_expert_major());
            let [other_loss, expert_loss] = losses(source.weights.as_ref(), &file);
            assert!(other_loss <= dense, "{path} {ty}: {other_loss}");
            assert!(expert_loss <= experts, "{path} {ty}: {expert_loss}");
        }
    }
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn the_reference_model_reports_what_it_lost() {
    let folder = tempfile::tempdir().unwrap();
    let source = open(REFERENCE);
    let out = folder.path().join("model.gguf");
    let plan = Plan::uniform(source.weights.config(), BlockType::E4);
    let report = write(&source, &plan, &out).unwrap();
    let [_, expert_loss] =
        losses(source.weights.as_ref(), &GgufWeights::open(&out, Verify::First).unwrap());
    assert!(expert_loss < 0.006, "{expert_loss}");
    assert_eq!(report.expert_types.keys().collect::<Vec<_>>(), ["e4"]);
    assert!((4.25..4.75).contains(&report.expert_bits_per_weight), "{report:?}");
    // Embedding and output, one dense layer, three with experts, the MTP layer.
    assert_eq!(report.layers.len(), 6);
    assert!(report.layers.iter().all(|layer| layer.other_error < 0.008), "{report:?}");
    assert_eq!(report.layers[0].layer, None);
    // The output head is e8, and so is what attention caches.
    assert!(report.layers[0].other_error < 0.004, "{report:?}");
    assert_eq!(report.dense_types["e8"], 6);
    assert_eq!(report.layers.iter().filter(|layer| layer.expert_error.is_some()).count(), 4);
}

#[test]
fn the_file_says_how_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let source = open(GOLDEN[2]);
    let out = folder.path().join("model.gguf");
    write(&source, &Plan::uniform(source.weights.config(), BlockType::E3), &out).unwrap();
    let file = GgufWeights::open(&out, Verify::First).unwrap();
    let metadata = file.gguf().metadata();
    assert_eq!(file.gguf().alignment(), 4096);
    assert_eq!(metadata.str("vaquita.plan").unwrap(), Some("e3"));
    assert_eq!(metadata.str("vaquita.source.name").unwrap(), Some("deepseek-v3"));
    assert_eq!(metadata.u64("vaquita.source.bytes").unwrap(), Some(source.identity.bytes));
    assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), Some("gpt2"));
    assert_eq!(metadata.str("general.architecture").unwrap(), Some("deepseek2"));
    for tensor in file.gguf().tensors() {
        assert_eq!(tensor.offset % 4096, 0, "{}", tensor.name);
    }
}

#[test]
fn the_number_of_threads_does_not_show_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let source = open(GOLDEN[0]);
    let bytes = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let out = folder.path().join(format!("{threads}.gguf"));
        let plan = Plan::uniform(source.weights.config(), BlockType::E3);
        pool.install(|| write(&source, &plan, &out)).unwrap();
        fs::read(out).unwrap()
    });
    assert!(bytes[0] == bytes[1]);
}

#[test]
fn a_mixed_plan_comes_close_to_its_target_and_not_over() {
    let folder = tempfile::tempdir().unwrap();
    let source = open(REFERENCE);
    let Source { weights, .. } = &source;
    let mut last = f64::MAX;
    for target in [3.5, 4.0, 5.0, 7.5] {
        let wanted = Target::BitsPerWeight(target);
        let plan = plan_of(&source, wanted).unwrap();
        let out = folder.path().join("model.gguf");
        let report = write(&source, &plan, &out).unwrap();
        assert!(report.bits_per_weight <= target, "{report:?}");
        assert!(report.bits_per_weight > target - 0.01, "{report:?}");
        assert!(report.expert_types.len() > 1, "{report:?}");
        let file = GgufWeights::open(&out, Verify::First).unwrap();
        let [_, expert_loss] = losses(weights.as_ref(), &file);
        assert!(expert_loss < last, "{target}: {expert_loss}");
        last = expert_loss;
    }
}

#[test]
fn chosen_dense_types_are_written_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    let source = open(REFERENCE);
    let mut last = u64::MAX;
    for rest in [BlockType::E8, BlockType::E4, BlockType::E3, BlockType::E2] {
        let dense = DenseTypes { output: BlockType::E8, latent: BlockType::E4, rest };
        let plan = Plan::with_dense(source.weights.config(), BlockType::E4, dense);
        let report = write(&source, &plan, &out).unwrap();
        assert!(report.file_bytes < last);
        last = report.file_bytes;
        let file = GgufWeights::open(&out, Verify::First).unwrap();
        let name = format!("e4, trunk {rest}, attn_kv_a e4, output e8");
        assert_eq!(file.gguf().metadata().str("vaquita.plan").unwrap(), Some(name.as_str()));
        let config = source.weights.config();
        for spec in config.family.tensors(config) {
            let found = file.tensor(&spec).unwrap().map(|matrix| matrix.block_type());
            let expected = match spec.name.as_str() {
                "output.weight" => BlockType::E8,
                name if name.ends_with("attn_kv_a_mqa.weight") => BlockType::E4,
                _ if matches!(spec.role, Role::Vector | Role::Router) => BlockType::F32,
                _ => rest,
            };
            assert!(found.is_none_or(|found| found == expected), "{}", spec.name);
        }
    }
}

#[test]
fn a_target_in_bytes_is_kept_too() {
    let folder = tempfile::tempdir().unwrap();
    let source = open(GOLDEN[2]);
    let Source { weights, .. } = &source;
    let out = folder.path().join("model.gguf");
    let e3 = write(&source, &Plan::uniform(weights.config(), BlockType::E3), &out).unwrap();
    let target = Target::Bytes(e3.file_bytes + 5000);
    let plan = plan_of(&source, target).unwrap();
    let report = write(&source, &plan, &out).unwrap();
    assert!(report.file_bytes <= e3.file_bytes + 5000);
}

#[test]
fn a_target_out_of_reach_names_what_is_within() {
    let source = open(GOLDEN[2]);
    let target = Target::BitsPerWeight(0.5);
    let error = plan_of(&source, target).unwrap_err();
    assert!(matches!(error, PlanError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("0.5 bits per weight cannot be reached"), "{error}");
}

/// A source whose last expert has a weight that is not a number.
struct Poisoned(Source);

impl Weights for Poisoned {
    fn config(&self) -> &Config {
        self.0.weights.config()
    }

    fn tensor(&self, spec: &TensorSpec) -> Result<Option<Matrix>, WeightsError> {
        self.0.weights.tensor(spec)
    }

    fn expert(&self, spec: &ExpertSpec) -> Result<Expert, WeightsError> {
        let mut expert = self.0.weights.expert(spec)?;
        if experts(self.config()).last().is_some_and(|last| last.hf == spec.hf) {
            let mut values = expert.down.decode();
            values[5] = f32::INFINITY;
            expert.down =
                Matrix::from_f32(expert.down.rows(), expert.down.cols(), &values).unwrap();
        }
        Ok(expert)
    }

    fn check(&self) -> Result<(), WeightsError> {
        self.0.weights.check()
    }
}

#[test]
fn a_weight_that_is_no_number_is_named_and_no_file_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    fs::write(&out, "an older file").unwrap();
    let weights = Poisoned(open(GOLDEN[2]));
    let plan = Plan::uniform(weights.config(), BlockType::E4);
    let tokenizer = tokenizer();
    let job = Job {
        weights: &weights,
        identity: &Identity::default(),
        tokenizer: &tokenizer,
        importance: None,
        plan: &plan,
        out: &out,
    };
    let error = quantize(&job, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("down_proj.weight: row 0, column 5 is inf"), "{error}");
    assert_eq!(files(folder.path()), std::slice::from_ref(&out));
    assert_eq!(fs::read_to_string(out).unwrap(), "an older file");
}

#[test]
fn a_source_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let original = open(GOLDEN[2]);
    let out = folder.path().join("model.gguf");
    write(&original, &Plan::uniform(original.weights.config(), BlockType::F16), &out).unwrap();
    let before = fs::read(&out).unwrap();
    let source = sources::open(&out).unwrap();
    let plan = Plan::uniform(source.weights.config(), BlockType::E4);
    let error = write(&source, &plan, &out).unwrap_err();
    assert!(matches!(error, QuantizeError::OverSource { .. }), "{error}");
    assert!(before == fs::read(&out).unwrap());
    // Under another name it works: a file of ours is a source too.
    write(&source, &plan, &folder.path().join("other.gguf")).unwrap();
}

#[test]
fn a_folder_that_takes_no_file_is_named() {
    let source = open(GOLDEN[2]);
    let plan = Plan::uniform(source.weights.config(), BlockType::E4);
    let folder = tempfile::tempdir().unwrap();
    let error = write(&source, &plan, &folder.path().join("nowhere/model.gguf")).unwrap_err();
    assert!(matches!(error, QuantizeError::Create { .. }), "{error}");
    assert!(error.to_string().contains("nowhere/model.gguf"), "{error}");
    let error = write(&source, &plan, folder.path()).unwrap_err();
    assert!(matches!(error, QuantizeError::Create { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(folder.path().join("probe"), "").is_ok() {
        vaquita_skips::skipped("this user may write to read-only folders");
        return;
    }
    let source = open(GOLDEN[2]);
    let plan = Plan::uniform(source.weights.config(), BlockType::E4);
    let error = write(&source, &plan, &folder.path().join("model.gguf")).unwrap_err();
    assert!(matches!(error, QuantizeError::Create { .. }), "{error}");
}
