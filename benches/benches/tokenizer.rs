//! Opening a tokenizer and encoding a text, with a vocabulary as large as DeepSeek-V3's.
//!
//! `cargo bench -p vaquita-benches --bench tokenizer`

use std::collections::HashSet;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use vaquita_lcg::Lcg;
use vaquita_runtime::gguf::Metadata;
use vaquita_runtime::tokenizer::Tokenizer;

const TOKENS: usize = 131_072;
/// Bytes of the longest token.
const LONGEST: usize = 16;
const TEXT_BYTES: usize = 64 << 10;

/// Letters, and tokens of two earlier ones, of which the first are the likeliest, as in a trained
/// vocabulary.
fn vocabulary(letters: Vec<String>) -> (Vec<String>, Vec<[String; 2]>) {
    let mut random = Lcg(1);
    let mut known: HashSet<String> = letters.iter().cloned().collect();
    let (mut tokens, mut merges) = (letters, Vec::new());
    while tokens.len() < TOKENS {
        let mut half = || {
            let below = random.below(tokens.len()) + 1;
            tokens[random.below(below)].clone()
        };
        let (a, b) = (half(), half());
        let token = format!("{a}{b}");
        if token.len() <= LONGEST && known.insert(token.clone()) {
            tokens.push(token);
            merges.push([a, b]);
        }
    }
    (tokens, merges)
}

/// A byte-level tokenizer.json.
fn byte_level() -> String {
    let printable = (b'!'..=b'~').map(char::from).chain('¡'..='¬').chain('®'..='ÿ');
    let letters = printable.chain('Ā'..='Ń').map(String::from).collect();
    let (tokens, merges) = vocabulary(letters);
    let vocab: serde_json::Map<_, _> =
        tokens.into_iter().zip(0u32..).map(|(token, id)| (token, id.into())).collect();
    json!({
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
    .to_string()
}

/// ggml's keys of a SentencePiece vocabulary with scores.
fn scored() -> Metadata {
    let letters = ('!'..='~').chain(['▁']).map(String::from);
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let (tokens, _) = vocabulary(letters.chain(bytes).collect());
    let mut metadata = Metadata::new();
    metadata.insert("tokenizer.ggml.model", "llama");
    metadata
        .insert("tokenizer.ggml.scores", (0..TOKENS).map(|id| -(id as f32)).collect::<Vec<_>>());
    metadata.insert("tokenizer.ggml.tokens", tokens);
    metadata
}

fn tokenizer(c: &mut Criterion) {
    let json = byte_level();
    let by_merges = Tokenizer::from_json(json.as_bytes()).expect("it is a tokenizer.json");
    let mut keys = Metadata::new();
    by_merges.write_metadata(&mut keys);
    keys.remove("tokenizer.huggingface.json");
    let scored = scored();
    let by_scores = Tokenizer::from_metadata(&scored).expect("they are ggml's keys");

    let mut open = c.benchmark_group("open");
    open.sample_size(10);
    open.bench_function("tokenizer.json", |b| b.iter(|| Tokenizer::from_json(json.as_bytes())));
    open.bench_function("merges", |b| b.iter(|| Tokenizer::from_metadata(&keys)));
    open.bench_function("scores", |b| b.iter(|| Tokenizer::from_metadata(&scored)));
    open.finish();

    let mut random = Lcg(2);
    let letter = |_| char::from(b"etaoin shrdlu cmfwyp"[random.below(20)]);
    let text: String = (0..TEXT_BYTES).map(letter).collect();
    let mut encode = c.benchmark_group("encode");
    encode.sample_size(10).throughput(Throughput::Bytes(TEXT_BYTES as u64));
    encode.bench_function("merges", |b| b.iter(|| by_merges.encode(&text, false)));
    encode.bench_function("scores", |b| b.iter(|| by_scores.encode(&text, false)));
    encode.finish();
}

criterion_group!(benches, tokenizer);
criterion_main!(benches);
