//! GGUF files in llama.cpp's ordinary layout, written by its own Python package, run like the checkpoint
//! they were made from. tests/golden/gguf/make_deepseek2.py makes them.

use std::sync::Arc;

use vaquita_runtime::kernels::Tier;
use vaquita_runtime::model::{GgufWeights, Model, Verify};
use vaquita_runtime::session::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::{golden, goldens, largest_error};

#[test]
fn a_split_file_with_stacked_experts_gives_the_checkpoints_logits() {
    let file = golden("gguf/deepseek-v3-00001-of-00002.gguf");
    let weights = GgufWeights::open(&file, Verify::First).unwrap();
    assert!(!weights.is_expert_major());
    let model = Arc::new(Model::load(Arc::new(weights)).unwrap());
    for sequence in goldens(&golden("deepseek-v3").join("golden.safetensors")) {
        let options = SessionOptions {
            cache: CacheType::F32,
            tier: Tier::best(),
            ..SessionOptions::default()
        };
        let mut session = Session::new(model.clone(), Arc::new(Pool::new(2)), options);
        let logits = session.feed_all(&sequence.tokens).unwrap();
        let error = largest_error(&logits, &sequence.logits);
        assert!(error <= 2e-3, "{error}");
    }
}
