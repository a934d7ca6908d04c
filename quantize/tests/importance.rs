//! What quantizing does with importances: errors go where they matter least.

use std::path::Path;

use vaquita_quantize::importance::Importance;
use vaquita_quantize::plan::{expert_layers, expert_specs};
use vaquita_quantize::sources::{self, Source};
use vaquita_quantize::{Job, Plan, Target, mixed, quantize};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::gguf::{Gguf, Metadata};
use vaquita_runtime::model::{ExpertSpec, GgufWeights, Projection, Verify, Weights};

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
    let Source { weights, identity } = &source();
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

#[test]
fn an_expert_that_does_the_work_gets_the_bits() {
    let Source { weights, identity } = &source();
    let target = Target::BitsPerWeight(5.0);
    let importance: Option<&dyn Importance> = Some(&Lopsided);
    let tokenizer = &Metadata::new();
    let plan =
        mixed(weights.as_ref(), identity, tokenizer, importance, target, &mut |_| {}).unwrap();
    let config = weights.config();
    for layer in expert_layers(config) {
        let bits: Vec<f64> = expert_specs(config, layer)
            .map(|spec| {
                let types = plan.expert_types(layer, spec.expert).unwrap();
                types.iter().map(|ty| ty.code_bits().unwrap_or(16) as f64).sum()
            })
            .collect();
        let mean = bits[1..].iter().sum::<f64>() / (bits.len() - 1) as f64;
        assert!(bits[0] > mean, "{bits:?}");
    }
}
