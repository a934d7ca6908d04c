//! One number that is none, anywhere in a model, ends the run with an error, the same on every
//! instruction set, or changes not one bit of the answer.

use std::path::Path;
use std::sync::Arc;

use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::bits;
use vaquita_tests::variants::{Checkpoint, GgufFile};

/// Few, so that many files are tried; all experts of the goldens are visited.
const TOKENS: [u32; 12] = [5, 301, 17, 44, 9, 250, 81, 3, 120, 77, 6, 199];

/// Logits, or why there are none.
fn logits(path: &Path, cache: CacheType, tier: Tier) -> Result<Vec<f32>, String> {
    let weights = GgufWeights::open(path, Verify::First).expect("the file opens");
    let model = Model::load(Arc::new(weights)).map_err(|error| error.to_string())?;
    let options = SessionOptions { cache, tier, prefill_chunk: 5, ..SessionOptions::default() };
    let mut session = Session::new(Arc::new(model), Arc::new(Pool::new(1)), options);
    session.feed_all(&TOKENS).map_err(|error| error.to_string())
}

/// Runs a damaged file on all tiers; returns whether it was refused.
fn refused(path: &Path, cache: CacheType, sound: &[f32], what: &str) -> bool {
    let runs: Vec<_> =
        Tier::available().into_iter().map(|tier| logits(path, cache, tier)).collect();
    for run in &runs {
        match (run, &runs[0]) {
            (Ok(logits), _) => assert!(bits(logits) == bits(sound), "{what} changes the answer"),
            (Err(error), first) => {
                assert!(error.contains("damaged"), "{what}: {error}");
                assert_eq!(first.as_ref().err(), Some(error), "{what}");
            }
        }
    }
    runs[0].is_err()
}

#[test]
fn a_number_that_is_none_in_any_tensor_is_refused_or_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for name in ["deepseek-v3", "gpt-oss", "lfm2-moe", "qwen2-moe", "r1-distill-llama"] {
        Checkpoint::golden(name).write_gguf(&path);
        let mut file = GgufFile::read(&path);
        for (cache, bad) in [
            (CacheType::F32, f32::NAN),
            (CacheType::Q8, f32::INFINITY),
            (CacheType::F16, f32::NEG_INFINITY),
        ] {
            file.write(&path);
            let sound = logits(&path, cache, Tier::best()).unwrap();
            for i in 0..file.tensors.len() {
                let tensor = file.tensors[i].0.clone();
                // In a row that each token uses, where there is one.
                let at = match tensor.as_str() {
                    "token_embd.weight" => TOKENS[3] as usize * 64 + 7,
                    _ => file.tensors[i].2.len() / 2 + 7,
                };
                let at = at % file.tensors[i].2.len();
                let kept = std::mem::replace(&mut file.tensors[i].2[at], bad);
                file.write(&path);
                let what = format!("{name}: {bad} in {tensor}");
                let refused = refused(&path, cache, &sound, &what);
                let visited = !tensor.contains("_exps");
                assert!(refused || !visited, "{what} was not noticed");
                file.tensors[i].2[at] = kept;
            }
        }
    }
}

/// Tensors of DeepSeek-V3, one of each role in the network.
const PLACES: [&str; 14] = [
    "token_embd.weight",
    "blk.1.attn_norm.weight",
    "blk.1.attn_q_a.weight",
    "blk.1.attn_q_a_norm.weight",
    "blk.1.attn_kv_a_norm.weight",
    "blk.1.attn_output.weight",
    "blk.1.ffn_norm.weight",
    "blk.0.ffn_down.weight",
    "blk.1.ffn_gate_inp.weight",
    "blk.1.exp_probs_b.bias",
    "blk.1.ffn_down_exps.weight",
    "blk.1.ffn_down_shexp.weight",
    "output_norm.weight",
    "output.weight",
];

/// 28 damaged files: one NaN or one infinity at each place.
#[test]
fn twenty_eight_of_twenty_eight_damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    Checkpoint::golden("deepseek-v3").write_gguf(&path);
    let sound = logits(&path, CacheType::F32, Tier::best()).unwrap();
    let mut file = GgufFile::read(&path);
    let mut refusals = 0;
    for place in PLACES {
        let i = file.tensors.iter().position(|(name, ..)| name == place).expect("it is there");
        let len = file.tensors[i].2.len();
        // One number of each expert in turn, since a token visits a few of them.
        let experts = if place.contains("_exps") { file.tensors[i].1[2] as usize } else { 1 };
        for bad in [f32::NAN, f32::INFINITY] {
            let mut tried = |expert: &usize| {
                let at = match place {
                    "token_embd.weight" => TOKENS[3] as usize * 64 + 7,
                    _ => (len / experts) * expert + len / experts / 2,
                };
                let kept = std::mem::replace(&mut file.tensors[i].2[at], bad);
                file.write(&path);
                file.tensors[i].2[at] = kept;
                refused(&path, CacheType::F32, &sound, &format!("{bad} in {place}"))
            };
            let experts: Vec<usize> = (0..experts).collect();
            let visited = experts.iter().map(&mut tried);
            refusals += usize::from(visited.fold(false, |any, refused| any | refused));
        }
    }
    assert_eq!(refusals, 28);
}

#[test]
fn a_vector_with_a_number_that_is_none_is_named() {
    let mut checkpoint = Checkpoint::golden("deepseek-v3");
    let name = "model.layers.1.self_attn.kv_a_layernorm.weight";
    checkpoint.tensors.get_mut(name).unwrap().values[3] = f32::NAN;
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write(folder.path());
    let weights = HfFolder::open(folder.path()).unwrap();
    let error = Model::load(Arc::new(weights)).unwrap_err().to_string();
    assert!(error.starts_with("tensor blk.1.attn_kv_a_norm.weight gives a number"), "{error}");
}

#[test]
fn logits_that_are_all_equal_are_refused() {
    let mut checkpoint = Checkpoint::golden("r1-distill-llama");
    checkpoint.tensors.get_mut("lm_head.weight").unwrap().values.fill(0.0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    checkpoint.write_gguf(&path);
    let error = logits(&path, CacheType::F32, Tier::best()).unwrap_err();
    assert!(error.contains("all logits are equal to the last bit"), "{error}");
}
