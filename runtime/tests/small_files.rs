//! Small files take little memory, whatever they ask for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use vaquita_runtime::tokenizer::Tokenizer;

/// Counts what is allocated.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it allocates as `System` does.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that opening a small tokenizer may take at most.
const MOST: usize = 8 << 20;

fn peak(json: &Value, texts: &[&str]) -> usize {
    let bytes = json.to_string().into_bytes();
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    if let Ok(tokenizer) = Tokenizer::from_json(&bytes) {
        for text in texts {
            let _ = tokenizer.encode(text, true);
        }
    }
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn a_small_tokenizer_takes_little_memory() {
    let vocab: Value =
        ('!'..='~').enumerate().map(|(id, c)| (c.to_string(), Value::from(id))).collect();
    let with = |vocab: &Value, regexes: &[&str]| {
        let split = |regex: &&str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"});
        let mut steps: Vec<Value> = regexes.iter().map(split).collect();
        steps.push(json!({"type": "ByteLevel", "use_regex": false}));
        json!({"model": {"type": "BPE", "vocab": vocab, "merges": []},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}})
    };
    let texts = ["some text with words, 123 and ümläuts 中文", "zz zz"];
    let sparse = json!({"a": 0, "b": 1_048_575});
    let many = r"[\p{L}\p{N}\p{P}\p{S}]{50}";
    let nested = r"((((\p{L}{5}){5}){5}){5})+";
    let words = (0..400).map(|i| format!("w{i}")).collect::<Vec<_>>().join("|");
    let looks = r"(?=\p{L}{200})(?!\p{N}{200})(?=[\p{L}\p{M}]{200})x";
    // Of the kind that published tokenizers have, under a name of nobody's.
    for regex in [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s",
        r"[!-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s",
    ] {
        let json = with(&vocab, &[regex]);
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes());
        assert!(tokenizer.is_ok(), "{:?}", tokenizer.err());
    }
    for (name, json) in [
        ("plain", with(&vocab, &[])),
        ("sparse", with(&sparse, &[])),
        ("counted", with(&vocab, &[many; 14])),
        ("nested", with(&vocab, &[nested; 14])),
        ("words", with(&vocab, &[words.as_str(); 14])),
        ("looks", with(&vocab, &[looks; 14])),
        ("nested looks", with(&vocab, &[r"(?:(?:\p{L}{20}(?!b)){9}){9}"; 14])),
        ("before a look", with(&vocab, &[r"\p{L}{500}(?!b)"; 14])),
        ("a little of each", with(&vocab, &[r"(?=\p{L}{10})x"; 14])),
        ("as much as is allowed", with(&vocab, &[r"(?=\p{L}{40})x"])),
        ("many looks", with(&vocab, &[r"(?=\p{L})".repeat(400).as_str()])),
        ("many looks of sets", with(&vocab, &[r"(?![\p{L}\p{N}])".repeat(220).as_str(); 14])),
        (
            "as many looks as are allowed",
            with(&vocab, &[r"(?=[\p{L}\p{N}\p{P}\p{S}])".repeat(48).as_str()]),
        ),
        ("looks of words", with(&vocab, &[r"(?=\w)(?i:\p{Lu})++".repeat(24).as_str()])),
        ("possessive", with(&vocab, &[r"\p{L}++".repeat(500).as_str()])),
        ("counted and possessive", with(&vocab, &[r"(?:\p{L}{400}x)++y"; 14])),
        ("atomic", with(&vocab, &[r"(?>\p{L}{40})".repeat(200).as_str()])),
        ("classes", with(&vocab, &[r"\p{L}+|\p{N}+|\p{P}+|\p{S}+|\p{M}+|\p{Han}+"; 14])),
    ] {
        let (size, found) = (json.to_string().len(), peak(&json, &texts));
        println!("{name}: {size} bytes, {} KiB", found >> 10);
        assert!(found < MOST, "{name}: {size} bytes, {} KiB", found >> 10);
    }
}
