//! Unquantized checkpoints, compared with the logits of Hugging Face transformers in float32.

use std::sync::Arc;

use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::{golden, goldens, largest_error, open_folder, reference};

fn full_precision() -> SessionOptions {
    SessionOptions { cache: CacheType::F32, ..SessionOptions::default() }
}

fn matches_transformers(name: &str) {
    matches_within(name, 2e-3);
}

fn matches_within(name: &str, tolerance: f32) {
    let model = open_folder(&golden(name));
    let pool = Arc::new(Pool::new(2));
    let sequences = goldens(&golden(name).join("golden.safetensors"));
    assert_eq!(sequences.len(), 2);
    for sequence in sequences {
        let mut whole = Session::new(model.clone(), pool.clone(), full_precision());
        let logits = whole.feed_all(&sequence.tokens).unwrap();
        let error = largest_error(&logits, &sequence.logits);
        assert!(error <= tolerance, "{name}, whole prompt: {error}");

        let mut stepwise = Session::new(model.clone(), pool.clone(), full_precision());
        let one_by_one: Vec<f32> =
            sequence.tokens.iter().flat_map(|&token| stepwise.feed(&[token]).unwrap()).collect();
        let error = largest_error(&one_by_one, &sequence.logits);
        assert!(error <= tolerance, "{name}, token by token: {error}");
    }
}

#[test]
fn deepseek_v2_lite_has_the_logits_of_transformers() {
    matches_transformers("deepseek-v2-lite");
}

#[test]
fn deepseek_v2_has_the_logits_of_transformers() {
    matches_transformers("deepseek-v2");
}

#[test]
fn deepseek_v3_has_the_logits_of_transformers() {
    matches_transformers("deepseek-v3");
}

#[test]
fn moonlight_has_the_logits_of_transformers() {
    matches_transformers("moonlight");
}

#[test]
fn glm_4_7_flash_has_the_logits_of_transformers() {
    matches_transformers("glm-4.7-flash");
}

#[test]
fn an_r1_distill_of_qwen_has_the_logits_of_transformers() {
    matches_transformers("r1-distill-qwen");
}

#[test]
fn an_r1_distill_of_llama_has_the_logits_of_transformers() {
    matches_transformers("r1-distill-llama");
}

#[test]
fn qwen2_moe_has_the_logits_of_transformers() {
    matches_transformers("qwen2-moe");
}

#[test]
fn qwen3_has_the_logits_of_transformers() {
    matches_transformers("qwen3");
}

#[test]
fn qwen3_moe_has_the_logits_of_transformers() {
    matches_transformers("qwen3-moe");
}

#[test]
fn olmoe_has_the_logits_of_transformers() {
    matches_transformers("olmoe");
}

/// Its heads are wider than the model divided by their number, as those of Mistral Nemo.
#[test]
fn mistral_has_the_logits_of_transformers() {
    matches_transformers("mistral");
}

#[test]
fn mixtral_has_the_logits_of_transformers() {
    matches_transformers("mixtral");
}

#[test]
fn lfm2_moe_has_the_logits_of_transformers() {
    matches_transformers("lfm2-moe");
}

#[test]
fn kimi_linear_has_the_logits_of_transformers() {
    matches_transformers("kimi-linear");
}

#[test]
fn ling_3_has_the_logits_of_transformers() {
    matches_transformers("ling-3");
}

#[test]
fn gpt_oss_has_the_logits_of_transformers() {
    matches_transformers("gpt-oss");
}

#[test]
fn ernie_4_5_has_the_logits_of_transformers() {
    matches_transformers("ernie-4.5");
}

/// Its logits are as wide as 8 in the standard deviation.
#[test]
fn gemma_3_has_the_logits_of_transformers() {
    matches_within("gemma-3", 1e-2);
}

#[test]
fn gemma_4_with_experts_has_the_logits_of_transformers() {
    matches_within("gemma-4-moe", 1e-2);
    // Other heads and keys as values in global layers, scales, and a limit on the logits.
    matches_within("gemma-4-26b", 1e-2);
}

#[test]
fn gemma_4_with_per_layer_embeddings_has_the_logits_of_transformers() {
    matches_within("gemma-4-e", 1e-2);
    // Other heads in global layers, wider layers that share keys and values.
    matches_within("gemma-4-e2b", 1e-2);
}

#[test]
fn glm_4_5_has_the_logits_of_transformers() {
    matches_transformers("glm-4.5");
}

/// As transformers saves it in FP8: experts of a layer in two tensors, with scales of 32 x 32 blocks.
#[test]
fn qwen3_5_moe_in_fp8_has_the_logits_of_transformers() {
    matches_transformers("qwen3.5-moe-fp8");
}

#[test]
fn granite_3_has_the_logits_of_transformers() {
    matches_transformers("granite-3");
    matches_transformers("granite-3-moe");
    // Of granite-speech, with a feed-forward for all tokens beside the experts.
    matches_transformers("granite-3-moe-shared");
}

#[test]
fn granite_4_has_the_logits_of_transformers() {
    matches_transformers("granite-4");
    // Without experts, with positions, multipliers, and two groups.
    matches_transformers("granite-4-dense");
}

#[test]
fn laguna_has_the_logits_of_transformers() {
    matches_transformers("laguna");
}

#[test]
fn minimax_m2_has_the_logits_of_transformers() {
    matches_transformers("minimax-m2");
}

#[test]
fn qwen3_next_has_the_logits_of_transformers() {
    matches_transformers("qwen3-next");
}

#[test]
fn qwen3_5_has_the_logits_of_transformers() {
    matches_transformers("qwen3.5");
}

#[test]
fn qwen3_5_moe_has_the_logits_of_transformers() {
    matches_transformers("qwen3.5-moe");
}

#[test]
fn smollm3_has_the_logits_of_transformers() {
    matches_transformers("smollm3");
}

#[test]
fn the_reference_model_has_the_logits_of_transformers() {
    let model = open_folder(&reference());
    let pool = Arc::new(Pool::new(2));
    for sequence in goldens(&reference().join("golden.safetensors")) {
        let mut session = Session::new(model.clone(), pool.clone(), full_precision());
        let logits = session.feed_all(&sequence.tokens).unwrap();
        let error = largest_error(&logits, &sequence.logits);
        assert!(error <= 5e-3, "{error}");
    }
}

#[test]
fn a_checkpoint_gives_the_same_bits_on_every_tier() {
    let model = open_folder(&golden("deepseek-v3"));
    let tokens = &goldens(&golden("deepseek-v3").join("golden.safetensors"))[0].tokens;
    let logits = |tier| {
        let options = SessionOptions { tier, ..full_precision() };
        let mut session = Session::new(model.clone(), Arc::new(Pool::new(2)), options);
        vaquita_tests::bits(&session.feed_all(tokens).unwrap())
    };
    let expected = logits(Tier::from_name("scalar").unwrap());
    for tier in Tier::available() {
        assert_eq!(logits(tier), expected, "{}", tier.name());
    }
}
