//! Streaming experts does not change answers: logits are bit-identical to those of the model with
//! all experts resident, for any policy, number of lanes, budget and prefetch mode.

use std::path::Path;

use vaquita_runtime::checkpoint::LayerId;
use vaquita_runtime::experts::PrefetchMode;
use vaquita_runtime::experts::policies::PolicyKind;
use vaquita_runtime::model::ExpertStore;
use vaquita_tests::store::{Setting, quantize_to, resident, run, streamed};
use vaquita_tests::{golden, goldens, reference};

fn tokens_of(folder: &Path, count: usize) -> Vec<u32> {
    let sequence = goldens(&folder.join("golden.safetensors")).swap_remove(0);
    sequence.tokens.into_iter().take(count).collect()
}

/// Compares all relevant settings on one file.
fn same_bits(file: &Path, tokens: &[u32], prompt: usize) {
    let expected = run(&resident(file), tokens, prompt);
    let least = streamed(file, Setting::default()).store.index().least_bytes();
    let total = streamed(file, Setting::default()).store.index().total_bytes();
    for budget in [least, least * 3 / 2, total / 2, total] {
        for policy in PolicyKind::ALL {
            for (lanes, prefetch) in [
                (1, PrefetchMode::Off),
                (1, PrefetchMode::On),
                (4, PrefetchMode::On),
                (3, PrefetchMode::Auto),
            ] {
                let budget = Some(budget.max(least));
                let setting = Setting { budget, policy, lanes, prefetch, ..Setting::default() };
                let streamed = streamed(file, setting);
                assert!(run(&streamed.model, tokens, prompt) == expected, "{setting:?}");
                let stats = streamed.store.stats().unwrap();
                assert!(stats.resident_bytes <= stats.limit_bytes, "{setting:?}: {stats:?}");
                assert!(stats.bytes_read > 0 && stats.hits < stats.uses);
            }
        }
    }
}

#[test]
fn goldens_give_the_same_bits_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    for name in ["deepseek-v2-lite", "deepseek-v3"] {
        quantize_to(&golden(name), &file, None);
        same_bits(&file, &tokens_of(&golden(name), 16), 10);
    }
}

#[test]
fn experts_of_several_types_give_the_same_bits_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    quantize_to(&reference(), &file, Some(4.6));
    let tokens = tokens_of(&reference(), 40);
    let expected = run(&resident(&file), &tokens, 30);
    for policy in PolicyKind::ALL {
        let setting = Setting { policy, prefetch: PrefetchMode::On, ..Setting::default() };
        let streamed = streamed(&file, setting);
        assert!(run(&streamed.model, &tokens, 30) == expected, "{setting:?}");
    }
}

#[test]
fn a_split_file_with_stacked_experts_gives_the_same_bits_streamed() {
    let file = golden("gguf/deepseek-v3-00001-of-00002.gguf");
    let tokens = tokens_of(&golden("deepseek-v3"), 16);
    let expected = run(&resident(&file), &tokens, 10);
    for direct in [false, true] {
        let streamed = streamed(&file, Setting { direct, ..Setting::default() });
        assert!(run(&streamed.model, &tokens, 10) == expected, "direct: {direct}");
    }
}

#[test]
fn the_reference_model_gives_the_same_bits_streamed_and_reads_each_expert_once_per_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    quantize_to(&reference(), &file, None);
    let tokens = tokens_of(&reference(), 60);
    let expected = run(&resident(&file), &tokens, 50);
    let streamed = streamed(&file, Setting::default());
    assert!(run(&streamed.model, &tokens, 50) == expected);

    let whole = tokens.len();
    let mut session = vaquita_tests::store::session(&streamed.model, whole);
    let before = streamed.store.stats().unwrap();
    session.feed(&tokens).unwrap();
    let stats = streamed.store.stats().unwrap().since(&before);
    let largest = streamed.store.index().total_bytes() as u64;
    assert!(stats.bytes_read <= largest, "{} of {largest}", stats.bytes_read);
    let experts = streamed.model.config().moe.n_routed_experts as u64;
    let layers = streamed.model.config().num_hidden_layers as u64;
    assert!(stats.uses <= experts * layers, "{stats:?}");
}

#[test]
fn several_sessions_share_a_store_that_holds_one_layer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    quantize_to(&golden("deepseek-v3"), &file, None);
    let tokens = tokens_of(&golden("deepseek-v3"), 16);
    let expected = run(&resident(&file), &tokens, 10);
    let streamed = streamed(&file, Setting { prefetch: PrefetchMode::On, ..Setting::default() });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert!(run(&streamed.model, &tokens, 10) == expected);
                }
            });
        }
    });
}

#[test]
fn a_warm_start_reads_the_most_popular_experts_and_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    quantize_to(&golden("deepseek-v3"), &file, None);
    let tokens = tokens_of(&golden("deepseek-v3"), 16);
    let expected = run(&resident(&file), &tokens, 10);
    let least = streamed(&file, Setting::default()).store.index().least_bytes();
    let streamed = streamed(&file, Setting { budget: Some(2 * least), ..Setting::default() });
    let shape = streamed.store.index().shape;
    // In every layer, the first expert is the most popular, then the second, and so on.
    let share = |at: usize| 1.0 - (at % shape.experts) as f32 / shape.experts as f32;
    let shares: Vec<f32> = (0..shape.len()).map(share).collect();
    streamed.store.warm(&shares);
    let since = std::time::Instant::now();
    let fits = 2 * least / streamed.store.index().largest_bytes();
    while streamed.store.stats().unwrap().resident < fits as u64 {
        assert!(since.elapsed().as_secs() < 30, "{:?}", streamed.store.stats());
        std::thread::yield_now();
    }
    for layer in (0..shape.layers).map(LayerId) {
        let here = streamed.store.resident(layer).unwrap();
        // If an expert is resident, so are all more popular ones.
        assert!(here.windows(2).all(|pair| pair[0] >= pair[1]), "{layer:?}: {here:?}");
    }
    assert!(run(&streamed.model, &tokens, 10) == expected);
}
