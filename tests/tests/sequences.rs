//! Several sequences in one pass: each has the bits that it has alone, whatever its neighbours are
//! and do, and in whatever way the pass is computed.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vaquita_lcg::Lcg;
use vaquita_runtime::experts::PrefetchMode;
use vaquita_runtime::experts::policies::PolicyKind;
use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::cache::{CacheType, KvCache};
use vaquita_runtime::model::{Chunk, Compute, ExpertStore, Logits, Model, ModelError, Purpose};
use vaquita_runtime::threads::Pool;
use vaquita_tests::store::{
    Fault, Faulty, Setting, quantize_to, resident, streamed, streamed_through,
};
use vaquita_tests::variants::Checkpoint;
use vaquita_tests::{bits, golden, goldens, open_folder, reference};

/// Sequences, and the bits of their logits when each is computed alone, a token at a time.
struct Alone {
    sequences: Vec<Vec<u32>>,
    logits: Vec<(CacheType, Vec<Vec<u32>>)>,
    vocab_size: usize,
}

impl Alone {
    fn new(model: &Model, sequences: Vec<Vec<u32>>, caches: &[CacheType]) -> Self {
        let pool = Pool::new(1);
        let ctx = Compute::new(Tier::best(), &pool);
        let logits = |ty: CacheType, tokens: &Vec<u32>| -> Vec<u32> {
            let mut cache = KvCache::new(model.config(), ty);
            let mut logits = |token: &u32| {
                let tokens = std::slice::from_ref(token);
                bits(&model.forward(&ctx, tokens, &mut cache, Logits::Last).unwrap())
            };
            tokens.iter().flat_map(&mut logits).collect()
        };
        let of_type = |ty: &CacheType| (*ty, sequences.iter().map(|s| logits(*ty, s)).collect());
        let logits = caches.iter().map(of_type).collect();
        Self { sequences, logits, vocab_size: model.config().vocab_size }
    }

    /// The bits of some tokens' logits.
    fn rows(&self, ty: CacheType, sequence: usize, tokens: std::ops::Range<usize>) -> &[u32] {
        let (start, end) = (tokens.start * self.vocab_size, tokens.end * self.vocab_size);
        let (_, logits) = self.logits.iter().find(|(of, _)| *of == ty).expect("it was computed");
        &logits[sequence][start..end]
    }
}

/// The golden sequences and as many random ones.
fn sequences(folder: &Path, vocab_size: usize, len: usize) -> Vec<Vec<u32>> {
    let mut random = Lcg(11);
    let goldens = goldens(&folder.join("golden.safetensors")).into_iter().take(3);
    let mut all: Vec<Vec<u32>> =
        goldens.map(|golden| golden.tokens.into_iter().take(len).collect()).collect();
    for _ in 0..all.len() {
        all.push((0..len).map(|_| (random.bits() % vocab_size as u64) as u32).collect());
    }
    all
}

fn below(random: &mut Lcg, end: usize) -> usize {
    (random.bits() % end as u64) as usize
}

/// Runs a random schedule to the end of all sequences and compares every result.
fn schedule(model: &Model, alone: &Alone, seed: u64) {
    let random = &mut Lcg(seed);
    let tiers = Tier::available();
    let (ty, _) = alone.logits[below(random, alone.logits.len())];
    let mut sequences: Vec<(KvCache, AtomicBool)> = alone
        .sequences
        .iter()
        .map(|_| (KvCache::new(model.config(), ty), AtomicBool::new(false)))
        .collect();
    let done = |(at, (cache, _)): (usize, &(KvCache, AtomicBool))| {
        cache.len() == alone.sequences[at].len()
    };
    while !sequences.iter().enumerate().all(done) {
        let pool = Pool::new(1 + below(random, 4));
        let ctx = Compute::new(tiers[below(random, tiers.len())], &pool);
        let mut chunks = Vec::new();
        let mut expected = Vec::new();
        for (at, (cache, cancel)) in sequences.iter_mut().enumerate() {
            let (past, tokens) = (cache.len(), &alone.sequences[at]);
            let left = tokens.len() - past;
            if left == 0 || below(random, 3) == 0 {
                continue;
            }
            let len = if below(random, 2) == 0 { 1 } else { 1 + below(random, left) };
            let wanted = [Logits::Last, Logits::All][below(random, 2)];
            let mut chunk = Chunk::new(&tokens[past..past + len], cache, wanted);
            chunk.purpose = [chunk.purpose, Purpose::Passing, Purpose::Decode][below(random, 3)];
            let mut end = (at, past, Some((wanted, len)));
            let odd = below(random, 8);
            if odd == 0 {
                chunk.tokens = &[7, u32::MAX, 7];
            }
            cancel.store(odd == 1, Ordering::Relaxed);
            chunk.cancel = Some(cancel);
            if odd < 2 {
                end.2 = None;
            }
            // In any order.
            let place = below(random, chunks.len() + 1);
            chunks.insert(place, chunk);
            expected.insert(place, end);
        }
        if chunks.is_empty() {
            continue;
        }
        let stopped = AtomicBool::new(below(random, 10) == 0);
        let results = model.forward_batch(&ctx.cancelled_by(&stopped), &mut chunks);
        if stopped.into_inner() {
            assert!(matches!(results, Err(ModelError::Cancelled)), "seed {seed}");
            assert!(chunks.iter().zip(&expected).all(|(c, (_, past, _))| c.cache.len() == *past));
            continue;
        }
        for ((at, past, end), result) in expected.into_iter().zip(results.unwrap()) {
            let now = sequences[at].0.len();
            match (end, result) {
                (Some((wanted, len)), Ok(logits)) => {
                    let from = if wanted == Logits::Last { past + len - 1 } else { past };
                    let expected = alone.rows(ty, at, from..past + len);
                    assert!(bits(&logits) == expected, "seed {seed}: {at} at {past}, {len} tokens");
                    assert_eq!(now, past + len);
                }
                (None, Err(ModelError::Cancelled | ModelError::Token { .. })) => {
                    assert_eq!(now, past);
                }
                (end, result) => panic!("seed {seed}: {at} at {past}: {end:?} {result:?}"),
            }
            // Now and then a sequence goes back.
            if below(random, 12) == 0 {
                let to = below(random, now + 1);
                sequences[at].0.truncate(to);
            }
        }
    }
}

/// Random schedules over a file, resident and streamed.
fn schedules(folder: &Path, len: usize, count: u64) {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("model.gguf");
    quantize_to(folder, &file, None);
    let model = resident(&file);
    let vocab_size = model.config().vocab_size;
    let caches = [CacheType::F16, CacheType::Q8];
    let alone = Alone::new(&model, sequences(folder, vocab_size, len), &caches);
    for seed in 0..count {
        schedule(&model, &alone, seed);
    }
    let index = |budget| {
        let store = streamed(&file, Setting { budget, ..Setting::default() }).store;
        (store.index().least_bytes(), store.index().total_bytes())
    };
    let (least, total) = index(None);
    for seed in 0..count {
        let random = &mut Lcg(seed);
        let setting = Setting {
            budget: Some([least, 2 * least, total / 2][below(random, 3)].max(least)),
            policy: PolicyKind::ALL[below(random, PolicyKind::ALL.len())],
            lanes: 1 + below(random, 3),
            prefetch: [PrefetchMode::Off, PrefetchMode::On][below(random, 2)],
            ..Setting::default()
        };
        let streamed = streamed(&file, setting);
        schedule(&streamed.model, &alone, seed + 1000);
        let stats = streamed.store.stats().unwrap();
        assert!(stats.resident_bytes <= stats.limit_bytes, "{setting:?}: {stats:?}");
    }
}

#[test]
fn sequences_over_latents_have_the_bits_that_they_have_alone() {
    schedules(&golden("deepseek-v2-lite"), 24, 5);
    schedules(&golden("deepseek-v3"), 24, 5);
}

#[test]
fn sequences_over_keys_and_values_have_the_bits_that_they_have_alone() {
    schedules(&golden("qwen3-moe"), 24, 5);
    // Sliding windows and sinks.
    schedules(&golden("gpt-oss"), 24, 5);
    // Heads that differ by layer, per-layer embeddings, shared keys and values.
    schedules(&golden("gemma-4-26b"), 24, 5);
    schedules(&golden("gemma-4-e2b"), 24, 5);
}

#[test]
fn sequences_of_short_convolutions_have_the_bits_that_they_have_alone() {
    schedules(&golden("lfm2-moe"), 24, 5);
    schedules(&golden("qwen3.5-moe"), 24, 5);
    schedules(&golden("granite-4"), 24, 5);
    schedules(&golden("kimi-linear"), 6, 3);
}

#[test]
fn sequences_of_the_reference_model_have_the_bits_that_they_have_alone() {
    schedules(&reference(), 32, 2);
}

#[test]
fn numbers_that_overflow_end_their_own_sequence_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::golden("qwen3-moe");
    let hidden = checkpoint.config["hidden_size"].as_u64().unwrap() as usize;
    let (harmless, harmful) = ([1, 2, 3, 4], [1, 9, 3]);
    // One token has a feature that no other has, and that becomes infinite in the values.
    let embedding = checkpoint.tensors.get_mut("model.embed_tokens.weight").unwrap();
    embedding.values.chunks_exact_mut(hidden).for_each(|token| token[5] = 0.0);
    embedding.values[9 * hidden + 5] = 9.0;
    let values = checkpoint.tensors.get_mut("model.layers.0.self_attn.v_proj.weight").unwrap();
    values.values.chunks_exact_mut(hidden).for_each(|row| row[5] = 3e38);
    checkpoint.write(folder.path());
    let model = open_folder(folder.path());
    let pool = Pool::new(2);
    let ctx = Compute::new(Tier::best(), &pool);
    let new = || KvCache::new(model.config(), CacheType::F16);
    let expected = model.forward(&ctx, &harmless, &mut new(), Logits::All).unwrap();
    let alone = model.forward(&ctx, &harmful, &mut new(), Logits::Last).unwrap_err();
    assert!(alone.to_string().contains("layer 0: attention"), "{alone}");
    let mut caches = [new(), new(), new()];
    let [first, second, third] = &mut caches;
    let mut chunks = [
        Chunk::new(&harmless, first, Logits::All),
        Chunk::new(&harmful, second, Logits::Last),
        Chunk::new(&harmless, third, Logits::All),
    ];
    let results = model.forward_batch(&ctx, &mut chunks).unwrap();
    assert_eq!(bits(results[0].as_ref().unwrap()), bits(&expected));
    assert_eq!(results[1].as_ref().unwrap_err().to_string(), alone.to_string());
    assert_eq!(bits(results[2].as_ref().unwrap()), bits(&expected));
    assert_eq!(caches.map(|cache| cache.len()), [4, 0, 4]);
}

#[test]
fn an_expert_that_cannot_be_read_fails_the_pass_and_every_sequence_can_try_again() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("model.gguf");
    quantize_to(&golden("deepseek-v3"), &file, None);
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let streamed = streamed_through(&file, Setting::default(), |files| {
        Faulty::new(files, move |read| match fails.load(Ordering::Relaxed) && read % 5 == 0 {
            true => Fault::Error(ErrorKind::Other),
            false => Fault::None,
        })
    });
    let vocab_size = streamed.model.config().vocab_size;
    let tokens = sequences(&golden("deepseek-v3"), vocab_size, 12);
    let alone = Alone::new(&resident(&file), tokens, &[CacheType::F16]);
    let pool = Pool::new(2);
    let ctx = Compute::new(Tier::best(), &pool);
    let new = || KvCache::new(streamed.model.config(), CacheType::F16);
    let mut caches: Vec<KvCache> = alone.sequences.iter().map(|_| new()).collect();
    for (fails, tokens) in [(false, 0..5), (true, 5..12), (false, 5..12)] {
        failing.store(fails, Ordering::Relaxed);
        let mut chunks: Vec<Chunk> = caches
            .iter_mut()
            .zip(&alone.sequences)
            .map(|(cache, all)| Chunk::new(&all[tokens.clone()], cache, Logits::All))
            .collect();
        match streamed.model.forward_batch(&ctx, &mut chunks) {
            Err(error) => {
                assert!(fails, "{error}");
                assert!(caches.iter().all(|cache| cache.len() == 5));
            }
            Ok(results) => {
                assert!(!fails);
                for (at, result) in results.into_iter().enumerate() {
                    let expected = alone.rows(CacheType::F16, at, tokens.clone());
                    assert!(bits(&result.unwrap()) == expected);
                }
            }
        }
    }
}

#[test]
fn each_expert_is_fetched_once_per_step() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("model.gguf");
    quantize_to(&reference(), &file, None);
    let streamed = streamed(&file, Setting::default());
    let tokens = sequences(&reference(), streamed.model.config().vocab_size, 8);
    let pool = Pool::new(1);
    let ctx = Compute::new(Tier::best(), &pool);
    let new = || KvCache::new(streamed.model.config(), CacheType::F16);
    // The same sequence eight times needs the experts of one.
    let uses = |count: usize| {
        let mut caches: Vec<KvCache> = (0..count).map(|_| new()).collect();
        let chunk = |cache| Chunk::new(&tokens[0], cache, Logits::Last);
        let mut chunks: Vec<Chunk> = caches.iter_mut().map(chunk).collect();
        let before = streamed.store.stats().unwrap();
        streamed.model.forward_batch(&ctx, &mut chunks).unwrap();
        streamed.store.stats().unwrap().since(&before).uses
    };
    assert_eq!(uses(8), uses(1));
    assert_eq!(streamed.store.tokens_at_once(), Some(1));
    let least = streamed.store.index().least_bytes();
    streamed.store.set_budget(4 * least - 1).unwrap();
    assert_eq!(streamed.store.tokens_at_once(), Some(3));
    assert_eq!(resident(&file).experts().tokens_at_once(), None);
}

#[test]
fn a_prompt_that_passes_through_leaves_the_experts_of_running_sequences_in_memory() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("model.gguf");
    quantize_to(&reference(), &file, None);
    let pool = Pool::new(1);
    let ctx = Compute::new(Tier::best(), &pool);
    let misses = |policy, purpose| {
        let cycle = streamed(&file, Setting::default()).store.index().cycle_bytes();
        let setting = Setting { budget: Some(cycle), policy, lanes: 1, ..Setting::default() };
        let streamed = streamed(&file, setting);
        let config = streamed.model.config();
        let tokens = sequences(&reference(), config.vocab_size, 40);
        let new = || KvCache::new(config, CacheType::F16);
        let (mut running, mut joining) = (new(), new());
        // The same token at the same position needs the same experts.
        for _ in 0..8 {
            streamed.model.forward(&ctx, &tokens[0][..1], &mut running, Logits::Last).unwrap();
            running.truncate(0);
        }
        let mut chunks = [
            Chunk::new(&tokens[0][..1], &mut running, Logits::Last),
            Chunk { purpose, ..Chunk::new(&tokens[1], &mut joining, Logits::Last) },
        ];
        streamed.model.forward_batch(&ctx, &mut chunks).unwrap();
        running.truncate(0);
        let before = streamed.store.stats().unwrap();
        streamed.model.forward(&ctx, &tokens[0][..1], &mut running, Logits::Last).unwrap();
        let stats = streamed.store.stats().unwrap().since(&before);
        (stats.uses - stats.hits, stats.uses)
    };
    for policy in PolicyKind::ALL {
        let (without, uses) = misses(policy, Purpose::Prompt);
        let (with, _) = misses(policy, Purpose::Passing);
        assert!(3 * with <= uses && with < without, "{policy:?}: {with}, {without} of {uses}");
    }
}
