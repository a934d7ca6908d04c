//! Registry of pre-tokenizers: `tokenizer.ggml.pre` states their names, tokenizer.json their
//! regexes.
//!
//! Regexes split a text one after the other: the matches of one, and the text between them, are the
//! input pieces of the next.

/// GPT-2's regex, also used by `ByteLevel` with `use_regex`.
pub(super) const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Regex of Llama 3 and GLM-4, essentially GPT-4's: groups of up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Regex of Qwen 2: single digits.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Regex of GPT-4o (o200k): words split by case.
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Words in DeepSeek LLM: the cased letters that its tokenizer.json lists.
const DEEPSEEK_LLM_LETTERS: &str = "\\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\
    \u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\
    \u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\
    \u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\
    \u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\
    \u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\
    \u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\
    \u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\
    \u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\
    \u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\
    \u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\
    \u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\
    \u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+";

/// Chinese and, as DeepSeek's files write it, the other scripts up to Hangul.
const DEEPSEEK_CJK: &str = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";

/// Chinese and kana.
const DEEPSEEK_V3_CJK: &str = "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";

/// ASCII punctuation, full-width punctuation, quotes, and the ideographic space, comma and full
/// stop.
const DEEPSEEK_LLM_MARKS: &str =
    "\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+";

/// Words in DeepSeek V3.
const DEEPSEEK_V3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// Regex of Kimi and Moonlight: like o200k, but Chinese is separate. `tiktoken.model` does not
/// contain it.
const KIMI_K2: &str = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Regex of Qwen 3.5: combining marks belong to words.
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Regex of Mistral since Nemo: words split by case, no contractions, single digits.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Regex of Ling: one line break at a time.
const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

/// Regex of Seed-Coder and Seed-OSS: line breaks are separate from punctuation.
const SEED: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A pre-tokenizer.
#[derive(Debug)]
pub(super) struct Entry {
    /// Names; the first is used for writing.
    pub names: &'static [&'static str],
    /// Regexes that split the text, in order.
    pub regexes: &'static [&'static str],
    /// Whether a word that is a token becomes that token regardless of the merges.
    pub ignore_merges: bool,
    /// Whether text is first normalized to NFC.
    pub nfc: bool,
    /// Whether BOS is added if the file does not state it.
    pub add_bos: bool,
}

const PLAIN: Entry =
    Entry { names: &[], regexes: &[], ignore_merges: false, nfc: false, add_bos: false };

/// Entry of Kimi and Moonlight.
pub(super) static KIMI: &Entry = &REGISTRY[KIMI_AT];
const KIMI_AT: usize = 11;

/// All known pre-tokenizers with all of llama.cpp's names for them (`src/llama-vocab.cpp`). If
/// entries have equal regexes, the first match is recognised. Names are omitted whose models split
/// texts in a way that is defined only in code (afmoe, superbpe, exaone-moe, gemma4, whitespace,
/// ...).
pub(super) static REGISTRY: [Entry; 18] = [
    Entry {
        names: &["deepseek-v3", "deepseek-v3.1", "hunyuan-dense", "joyai-llm", "hy_v4"],
        regexes: &[r"\p{N}{1,3}", DEEPSEEK_V3_CJK, DEEPSEEK_V3],
        ..PLAIN
    },
    Entry {
        names: &["deepseek-llm"],
        // The last one is `Digits` in tokenizer.json, so that no merge joins digits.
        regexes: &[
            r"[\r\n]",
            DEEPSEEK_LLM_LETTERS,
            DEEPSEEK_LLM_MARKS,
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}",
        ],
        ..PLAIN
    },
    Entry {
        names: &["deepseek-coder"],
        regexes: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"],
        ..PLAIN
    },
    Entry { names: &["qwen2", "megrez", "stablelm2"], regexes: &[QWEN2], nfc: true, ..PLAIN },
    Entry {
        names: &["deepseek-r1-qwen", "kormo", "f2llmv2", "hunyuan", "solar-open", "grok-2"],
        regexes: &[QWEN2],
        ..PLAIN
    },
    Entry {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "lfm2",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "jina-v5-nano",
        ],
        regexes: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Entry { names: &["chatglm-bpe", "glm4", "dbrx", "smaug-bpe"], regexes: &[LLAMA3], ..PLAIN },
    Entry {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        regexes: &[O200K],
        ..PLAIN
    },
    Entry {
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
        ],
        regexes: &[GPT2],
        ..PLAIN
    },
    Entry { names: &["olmo", "mpt"], regexes: &[GPT2], nfc: true, ..PLAIN },
    Entry {
        names: &["default"],
        regexes: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        ..PLAIN
    },
    Entry { names: &["kimi-k2"], regexes: &[KIMI_K2], ignore_merges: true, ..PLAIN },
    Entry {
        names: &["smollm", "starcoder", "refact", "codeshell", "minerva-7b", "mellum2"],
        // `Digits` in tokenizer.json.
        regexes: &[r"\p{N}", GPT2],
        ..PLAIN
    },
    Entry { names: &["command-r", "exaone"], regexes: &[r"\p{N}", GPT2], nfc: true, ..PLAIN },
    Entry { names: &["qwen35"], regexes: &[QWEN35], nfc: true, ..PLAIN },
    Entry { names: &["tekken"], regexes: &[TEKKEN], ignore_merges: true, add_bos: true, ..PLAIN },
    Entry { names: &["bailingmoe", "bailingmoe2", "llada-moe"], regexes: &[BAILING], ..PLAIN },
    Entry { names: &["seed-coder"], regexes: &[SEED], ..PLAIN },
];

/// Returns the entry with a name.
pub(super) fn by_name(name: &str) -> Option<&'static Entry> {
    REGISTRY.iter().find(|entry| entry.names.contains(&name))
}

/// Lists all names, for messages.
pub(super) fn names() -> String {
    let names: Vec<_> = REGISTRY.iter().flat_map(|entry| entry.names).copied().collect();
    names.join(", ")
}

/// Returns the entry that is equivalent to the regexes of a tokenizer.json.
pub(super) fn recognise(
    regexes: &[&str],
    ignore_merges: bool,
    nfc: bool,
) -> Option<&'static Entry> {
    let same = |entry: &&Entry| {
        entry.regexes.iter().map(|r| r.to_string()).eq(regexes.iter().map(|r| spelled(r)))
    };
    let exact = |entry: &&Entry| entry.ignore_merges == ignore_merges && entry.nfc == nfc;
    REGISTRY.iter().filter(same).find(exact).or_else(|| REGISTRY.iter().find(same))
}

/// Whether a regex is in the registry, and thus known to be safe.
pub(super) fn is_known_regex(regex: &str) -> bool {
    let regex = spelled(regex);
    REGISTRY.iter().any(|entry| entry.regexes.contains(&regex.as_str()))
}

/// Converts a regex to the registry's spelling: files may or may not escape line breaks and quotes.
fn spelled(regex: &str) -> String {
    regex.replace('\r', r"\r").replace('\n', r"\n").replace(r#"\""#, r#"""#)
}
