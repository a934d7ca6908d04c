//! Files of every family: a file made from a checkpoint runs like the checkpoint, resident and
//! streamed, whole and token by token, and almost like it at eight bits.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{ExpertId, LayerId, Weights};
use vaquita_runtime::experts::PrefetchMode;
use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::cache::{CacheType, LayerCache};
use vaquita_runtime::model::layerwise::Layerwise;
use vaquita_runtime::model::observer::{ExpertInputs, Observer};
use vaquita_runtime::model::{Compute, ExpertStore, Model, Resident};
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::store::{Setting, streamed};
use vaquita_tests::{
    FAMILIES, bits, golden, goldens, largest_error, mean_divergence, open_folder, quantized,
};

fn session(model: &Arc<Model>, cache: CacheType, tier: Tier, chunk: usize) -> Session {
    let options = SessionOptions { cache, tier, prefill_chunk: chunk, ..SessionOptions::default() };
    Session::new(model.clone(), Arc::new(Pool::new(2)), options)
}

/// Logits after each token, in single precision.
fn logits(model: &Arc<Model>, tokens: &[u32], chunk: usize) -> Vec<f32> {
    session(model, CacheType::F32, Tier::best(), chunk).feed_all(tokens).unwrap()
}

/// A file with the checkpoint's own weights.
fn unquantized(name: &str, folder: &TempDir) -> (std::path::PathBuf, Arc<Model>) {
    let file = folder.path().join(format!("{name}.gguf"));
    let model = quantized(&golden(name), &file, BlockType::F32, None);
    (file, model)
}

fn streams(file: &Path, model: &Arc<Model>, tokens: &[u32], expected: &[f32]) {
    for prefetch in [PrefetchMode::Off, PrefetchMode::On] {
        let streamed = streamed(file, Setting { prefetch, ..Setting::default() });
        for chunk in [1, 7, tokens.len()] {
            let found = logits(&streamed.model, tokens, chunk);
            assert!(bits(&found) == bits(expected), "{} {prefetch:?}", file.display());
        }
        let stats = streamed.store.stats().unwrap();
        assert!(stats.bytes_read > 0 && stats.resident_bytes <= stats.limit_bytes);
    }
    assert!(bits(&logits(model, tokens, 3)) == bits(expected));
}

#[test]
fn every_family_runs_from_a_file_resident_and_streamed_as_transformers_does() {
    let folder = tempfile::tempdir().unwrap();
    for name in FAMILIES {
        let (file, model) = unquantized(name, &folder);
        for sequence in goldens(&golden(name).join("golden.safetensors")) {
            let found = logits(&model, &sequence.tokens, sequence.tokens.len());
            let error = largest_error(&found, &sequence.logits);
            // Gemma's logits have a standard deviation of 8.
            let tolerance = if name.starts_with("gemma") { 1e-2 } else { 2e-3 };
            assert!(error <= tolerance, "{name}: {error}");
            if model.config().moe.n_routed_experts > 0 {
                streams(&file, &model, &sequence.tokens, &found);
            }
        }
    }
}

/// Records the experts that a token visits.
#[derive(Default)]
struct Visited(Mutex<Vec<(LayerId, ExpertId)>>);

impl Observer for Visited {
    fn matrix(&self, _: &str, _: usize, _: &[f32]) {}

    fn expert(&self, layer: LayerId, expert: ExpertId, _: &ExpertInputs) {
        self.0.lock().unwrap().push((layer, expert));
    }
}

/// A token's logits and the experts it visits.
type Routed = (Vec<f32>, Vec<(LayerId, ExpertId)>);

/// Tokens one by one.
fn routed(model: &Arc<Model>, tokens: &[u32]) -> Vec<Routed> {
    let visited = Arc::new(Visited::default());
    let mut session = session(model, CacheType::F32, Tier::best(), 1);
    session.observe(visited.clone());
    let mut step = |token: &u32| {
        let logits = session.feed(&[*token]).unwrap();
        let mut experts = std::mem::take(&mut *visited.0.lock().unwrap());
        experts.sort_unstable();
        (logits, experts)
    };
    tokens.iter().map(&mut step).collect()
}

/// Random routers are often nearly indifferent, and then the smallest error routes a token to
/// another expert, which changes all later tokens. Trained routers are decided (the reference model
/// diverges by 2e-5). So only the tokens before the first with different routing are compared.
#[test]
fn eight_bits_are_nearly_full_precision_in_every_family() {
    let folder = tempfile::tempdir().unwrap();
    for name in FAMILIES {
        let full = open_folder(&golden(name));
        let file = folder.path().join(format!("{name}-e8.gguf"));
        let e8 = quantized(&golden(name), &file, BlockType::E8, None);
        let (mut sum, mut tokens) = (0.0, 0);
        for sequence in goldens(&golden(name).join("golden.safetensors")) {
            let [p, q] = [&full, &e8].map(|model| routed(model, &sequence.tokens));
            let both = p.iter().zip(&q).take_while(|((_, went), (_, goes))| went == goes);
            for ((p, _), (q, _)) in both {
                sum += mean_divergence(q, p, p.len());
                tokens += 1;
            }
        }
        let mean = sum / f64::from(tokens);
        let limit = match name {
            "deepseek-v2" => 4e-3, // whose experts weigh 16 times as much
            // whose heads are their embeddings: logits seven times as wide
            _ if name.starts_with("gemma") => 2e-2,
            "ernie-4.5" | "lfm2-moe" | "smollm3" => 2e-2,
            // where the error of a state stays
            "granite-4" | "granite-4-dense" | "kimi-linear" | "ling-3" => 2e-2,
            "qwen3-next" | "qwen3.5" | "qwen3.5-moe" => 2e-2,
            _ => 2e-3,
        };
        assert!(mean <= limit, "{name}: {mean}");
    }
}

#[test]
fn every_tier_chunk_and_precision_of_the_cache_has_one_answer_in_every_family() {
    let folder = tempfile::tempdir().unwrap();
    for name in FAMILIES {
        let file = folder.path().join(format!("{name}-e4.gguf"));
        let model = quantized(&golden(name), &file, BlockType::E4, None);
        let tokens = &goldens(&golden(name).join("golden.safetensors"))[0].tokens;
        let scalar = Tier::from_name("scalar").unwrap();
        let expected = session(&model, CacheType::F16, scalar, 5).feed_all(tokens).unwrap();
        for tier in Tier::available() {
            for chunk in [1, 64] {
                let found = session(&model, CacheType::F16, tier, chunk).feed_all(tokens).unwrap();
                assert!(bits(&found) == bits(&expected), "{name} {} {chunk}", tier.name());
            }
        }
    }
}

#[test]
fn a_sequence_can_be_taken_back_and_goes_on_as_if_nothing_had_been() {
    let folder = tempfile::tempdir().unwrap();
    for name in
        ["lfm2-moe", "gpt-oss", "gemma-4-e2b", "granite-4", "deepseek-v3", "qwen3.5-moe", "ling-3"]
    {
        let (_, model) = unquantized(name, &folder);
        let vocabulary = model.config().vocab_size as u32;
        let tokens: Vec<u32> = (0..400).map(|i| (i * 31 + 7) % vocabulary).collect();
        let mut whole = session(&model, CacheType::F16, Tier::best(), 50);
        let expected = whole.feed(&tokens).unwrap();
        for back in [1, 30, 250, 399] {
            let mut session = session(&model, CacheType::F16, Tier::best(), 50);
            session.feed(&tokens).unwrap();
            let kept = session.truncate(tokens.len() - back);
            // A state goes back to the start of the last chunk, a convolution to the start.
            let has_state = ["granite-4", "qwen3.5-moe", "ling-3"].contains(&name);
            let start = if has_state && back == 30 { 350 } else { 0 };
            let keeps_all = name != "lfm2-moe" && !has_state;
            assert!(kept == tokens.len() - back || (kept == start && !keeps_all), "{name} {kept}");
            assert!(kept > 0 || back > 30, "{name}: what is near can be taken back");
            assert!(bits(&session.feed(&tokens[kept..]).unwrap()) == bits(&expected), "{name}");
        }
    }
}

#[test]
fn a_saved_sequence_of_any_family_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session");
    for name in [
        "lfm2-moe",
        "gpt-oss",
        "gemma-4-e2b",
        "granite-4",
        "deepseek-v3",
        "qwen3.5-moe",
        "kimi-linear",
        "ling-3",
    ] {
        let (_, model) = unquantized(name, &folder);
        let vocabulary = model.config().vocab_size as u32;
        let tokens: Vec<u32> = (0..310).map(|i| (i * 31 + 7) % vocabulary).collect();
        let mut first = session(&model, CacheType::F16, Tier::best(), 50);
        first.feed(&tokens[..300]).unwrap();
        first.save(&path, 1, b"note").unwrap();
        let mut second = session(&model, CacheType::F16, Tier::best(), 50);
        assert_eq!(second.restore(&path, 1).unwrap(), b"note");
        let [expected, found] = [first, second].map(|mut s| s.feed(&tokens[300..]).unwrap());
        assert!(bits(&found) == bits(&expected), "{name}");
    }
}

/// Records the inputs of the output head.
#[derive(Default)]
struct Heads(Mutex<Vec<f32>>);

impl Observer for Heads {
    fn matrix(&self, name: &str, _: usize, inputs: &[f32]) {
        if name == "output.weight" {
            self.0.lock().unwrap().extend(inputs);
        }
    }

    fn expert(&self, _: LayerId, _: ExpertId, _: &ExpertInputs) {}
}

#[test]
fn layer_by_layer_a_model_has_the_bits_that_it_has_as_a_whole() {
    for name in ["gemma-4-26b", "gemma-4-e2b", "granite-4", "lfm2-moe"] {
        let weights: Arc<dyn Weights> = Arc::new(HfFolder::open(golden(name)).unwrap());
        let tokens = goldens(&golden(name).join("golden.safetensors")).swap_remove(0).tokens;
        let whole = Arc::new(Heads::default());
        let model = Arc::new(Model::load(weights.clone()).unwrap());
        let mut session = session(&model, CacheType::F32, Tier::best(), 64);
        session.observe(whole.clone());
        session.feed_all(&tokens).unwrap();

        let layers = Layerwise::new(weights.clone(), Arc::new(Resident::new(weights))).unwrap();
        let (config, pool, heads) = (layers.config(), Pool::new(2), Heads::default());
        let ctx = Compute::new(Tier::best(), &pool);
        let cache = |layer| LayerCache::new(config, layer, CacheType::F32);
        let mut caches: Vec<LayerCache> = (0..config.num_hidden_layers).map(cache).collect();
        let mut x = layers.embed(&tokens).unwrap();
        let inputs = layers.inputs(&ctx, &tokens).unwrap();
        for id in 0..config.num_hidden_layers {
            let layer = layers.layer(LayerId(id)).unwrap();
            for (i, x) in x.chunks_mut(7 * config.hidden_size).enumerate() {
                layer.mix(&ctx, x, &mut caches[config.cache_layer(id)], 7 * i).unwrap();
            }
            layer.feed_forward(&ctx, &inputs, &mut x).unwrap();
        }
        layers.show_output(&ctx.watched_by(&heads), &x).unwrap();
        assert!(bits(&heads.0.lock().unwrap()) == bits(&whole.0.lock().unwrap()), "{name}");
    }
}
