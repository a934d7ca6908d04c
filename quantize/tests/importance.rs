//! What quantizing does with importances: errors go where they matter least.

use std::path::Path;

use vaquita_quantize::importance::Importance;
use vaquita_quantize::plan::{expert_layers, expert_specs};
use vaquita_quantize::sources::{self, Source};
use vaquita_quantize::{Allocation, Job, Material, Plan, Survey, Target, mixed, quantize};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{ExpertSpec, GgufWeights, Projection, Verify, Weights};
use vaquita_runtime::gguf::{Gguf, Metadata};

/// Even columns matter a hundred times as much as odd ones, and the first expert of a layer a hundred times as
/// much as the others.
struct Lopsided;

impl Importance for Lopsided {
    fn tensor(&self, _name: &str, cols: usize) -> Option<Vec<f32>> {
        Some((0..cols).map(|col| if col % 2 == 0 { 100.0 } else { 1.0 }).collect())
    }

    fn expert(&self, spec: &ExpertSpec, projection: Projection) -> Option<Vec<f32>> {
        let factor = if spec.expert.0 == 0 { 100.0 } else { 1.0 };
        let columns = self.tensor("", spec.shape(projection).1)?;
        Some(columns.into_iter().map(|one| one * factor).collect())
    }
}

fn source() -> Source {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut source = sources::open(&root.join("../calibration/reference")).unwrap();
    source.identity.calibration = Some("two lines".into());
    source
}

/// Squared errors in the even and in the odd columns of all experts of an e2 file.
fn errors(importance: Option<&dyn Importance>) -> [f64; 2] {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    let Source { weights, identity, .. } = &source();
    let (config, tokenizer) = (weights.config(), &Metadata::new());
    let plan = &Plan::uniform(config, BlockType::E2);
    let weights = weights.as_ref();
    let job = Job { weights, identity, tokenizer, importance, plan, out: &out };
    quantize(&job, &mut |_| {}).unwrap();
    let found = Gguf::open(&out).unwrap();
    assert_eq!(found.metadata().str("vaquita.calibration").unwrap(), Some("two lines"));

    let file = GgufWeights::open(&out, Verify::First).unwrap();
    let mut errors = [0.0; 2];
    for layer in expert_layers(config) {
        for spec in expert_specs(config, layer) {
            let (a, b) = (weights.expert(&spec).unwrap(), file.expert(&spec).unwrap());
            for (a, b) in [(a.gate, b.gate), (a.up, b.up), (a.down, b.down)] {
                for (at, (a, b)) in a.decode().iter().zip(b.decode()).enumerate() {
                    errors[at % 2] += f64::from(a - b) * f64::from(a - b);
                }
            }
        }
    }
    errors
}

#[test]
fn columns_that_matter_are_kept_better_at_the_others_cost() {
    let ([even, odd], [plain_even, plain_odd]) = (errors(Some(&Lopsided)), errors(None));
    assert!(even < 0.95 * plain_even, "{even} {plain_even}");
    assert!(odd > plain_odd, "{odd} {plain_odd}");
}

/// Knows nothing of the last layer, the MTP layer.
struct Partial;

impl Importance for Partial {
    fn tensor(&self, name: &str, cols: usize) -> Option<Vec<f32>> {
        Lopsided.tensor(name, cols)
    }

    fn expert(&self, spec: &ExpertSpec, projection: Projection) -> Option<Vec<f32>> {
        if spec.layer.0 == 4 { None } else { Lopsided.expert(spec, projection) }
    }

    fn reaches(&self, layer: Option<usize>) -> bool {
        layer != Some(4)
    }
}

#[test]
fn a_plan_per_tensor_gives_all_experts_of_a_layer_the_same() {
    let Source { weights, identity, .. } = &source();
    let (weights, tokenizer) = (weights.as_ref(), &Metadata::new());
    let material = Material { weights, identity, tokenizer, importance: Some(&Lopsided) };
    let survey = Survey::new(&material, &mut |_| {}).unwrap();
    let target = Target::BitsPerWeight(4.0);
    let types = |allocation| -> Vec<Vec<_>> {
        let plan = survey.plan(&material, target, allocation).unwrap();
        let layers = expert_layers(weights.config()).map(|layer| {
            let specs = expert_specs(weights.config(), layer);
            specs.map(|spec| plan.expert_types(layer, spec.expert).unwrap()).collect()
        });
        layers.collect()
    };
    let same = |layer: &Vec<_>| layer.iter().all(|one| *one == layer[0]);
    assert!(types(Allocation::PerTensor).iter().all(same));
    assert!(!types(Allocation::PerExpert).iter().all(same));
}

#[test]
fn a_curve_says_what_files_will_be() {
    let Source { weights, identity, .. } = &source();
    let (weights, tokenizer) = (weights.as_ref(), &Metadata::new());
    let material = Material { weights, identity, tokenizer, importance: None };
    let survey = Survey::new(&material, &mut |_| {}).unwrap();
    let curve = survey.curve(&material, 4).unwrap();
    assert_eq!(curve.len(), 4);
    assert_eq!(curve[0].predicted_error, 1.0);
    assert!(curve.windows(2).all(|pair| pair[1].predicted_error < pair[0].predicted_error));
    assert!(curve.windows(2).all(|pair| pair[1].file_bytes > pair[0].file_bytes));
    let target = Target::Bytes(curve[1].file_bytes);
    let plan = survey.plan(&material, target, Allocation::PerExpert).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = &folder.path().join("model.gguf");
    let job = Job { weights, identity, tokenizer, importance: None, plan: &plan, out };
    let report = quantize(&job, &mut |_| {}).unwrap();
    assert!(curve[1].file_bytes.abs_diff(report.file_bytes) <= 4096, "{report:?} {curve:?}");
}

#[test]
fn a_layer_that_no_text_reached_gets_fewer_bits() {
    let Source { weights, identity, .. } = &source();
    let (target, tokenizer) = (Target::BitsPerWeight(4.0), &Metadata::new());
    let config = weights.config();
    let last_layer = |importance: Option<&dyn Importance>| -> usize {
        let plan = {
            let weights = weights.as_ref();
            let material = Material { weights, identity, tokenizer, importance };
            mixed(&material, target, &mut |_| {})
        };
        let plan = plan.unwrap();
        let layer = expert_layers(config).last().unwrap();
        let types = expert_specs(config, layer).flat_map(|spec| {
            plan.expert_types(layer, spec.expert).unwrap().map(|ty| ty.code_bits().unwrap())
        });
        types.sum()
    };
    assert!(last_layer(Some(&Partial)) < last_layer(Some(&Lopsided)));
    assert_eq!(last_layer(Some(&Lopsided)), last_layer(None));
}
