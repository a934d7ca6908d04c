//! How text is cut before BPE: `tokenizer.ggml.pre` names, and the regular expressions they stand for, as in
//! the checkpoints they come from and in llama.cpp.

use serde_json::{Value as Json, json};

/// One way to cut.
#[derive(Debug)]
pub struct PreTokenizer {
    /// Its names; the first is the one that is written.
    names: &'static [&'static str],
    /// Each cuts what the ones before have left whole.
    regexes: &'static [&'static str],
    /// A piece that is a token is not merged from smaller ones.
    pub(super) ignores_merges: bool,
    /// llama.cpp begins texts with the begin-of-sentence token where a file does not say.
    pub(super) adds_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const DEEPSEEK_V3: &str = concat!(
    r#"[!"\#$%\&'()*+,\-./:;<=>?@\[\\\]^_`{|}\~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"#,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const CJK: &str = r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
/// The cased letters of Unicode 11.
const CASED: &str = concat!(
    r"\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-",
    r"\u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-",
    r"\u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-",
    r"\u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}",
    r"\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-",
    r"\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}",
    r"\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-",
    r"\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}",
    r"\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}",
    r"\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}",
    r"\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-",
    r"\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}",
    r"\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}",
    r"\u{1e900}-\u{1e943}]+",
);

/// Every one that is known.
static PRE_TOKENIZERS: [PreTokenizer; 7] = [
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense"],
        regexes: &[
            r"\p{N}{1,3}",
            r"[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            DEEPSEEK_V3,
        ],
        ignores_merges: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        regexes: &[
            r"[\r\n]",
            CASED,
            r"\s?[!-/:-\~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+",
            r"\s+$",
            CJK,
            r"\p{N}+",
        ],
        ignores_merges: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        regexes: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"],
        ignores_merges: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        regexes: &[QWEN2],
        ignores_merges: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "lfm2", "glm4", "chatglm-bpe"],
        regexes: &[LLAMA3],
        ignores_merges: true,
        adds_bos: true,
    },
    PreTokenizer {
        names: &["gpt-4o", "o200k"],
        regexes: &[O200K],
        ignores_merges: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["gpt-2", "olmo", "default"],
        regexes: &[GPT2],
        ignores_merges: false,
        adds_bos: false,
    },
];

/// The one of that name.
pub fn find(name: &str) -> Option<&'static PreTokenizer> {
    PRE_TOKENIZERS.iter().find(|one| one.names.contains(&name))
}

/// All names, for messages.
pub fn names() -> String {
    let names: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|one| one.names).copied().collect();
    names.join(", ")
}

impl PreTokenizer {
    /// As a `tokenizer.json` writes it.
    pub(super) fn json(&self) -> Json {
        let split = |regex: &&str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let mut steps: Vec<Json> = self.regexes.iter().map(split).collect();
        steps.push(json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
        }));
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

/// The name for what a `tokenizer.json` does; `default` where no name fits.
pub(super) fn recognise(json: &Json) -> &'static str {
    let pre = json.get("pre_tokenizer");
    let steps = pre.and_then(|pre| pre.get("pretokenizers")?.as_array());
    let regexes: Vec<String> = match steps {
        Some(steps) => {
            let regex = |step: &Json| step.pointer("/pattern/Regex")?.as_str().map(plain);
            steps.iter().filter_map(regex).collect()
        }
        // GPT-2's expression is ByteLevel's own.
        None => match pre.and_then(|pre| pre.get("use_regex")?.as_bool()) {
            Some(true) => vec![plain(GPT2)],
            _ => Vec::new(),
        },
    };
    let same = |one: &&PreTokenizer| {
        one.regexes.iter().map(|regex| plain(regex)).eq(regexes.iter().cloned())
    };
    PRE_TOKENIZERS.iter().find(same).map_or("default", |one| one.names[0])
}

/// A regular expression without what can be written in two ways: escapes of characters that need none, and
/// escapes for the characters they name.
fn plain(regex: &str) -> String {
    let mut out = String::new();
    let mut rest = regex.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('u') => {
                let digits: String =
                    rest.by_ref().skip_while(|c| *c == '{').take_while(|c| *c != '}').collect();
                let code = u32::from_str_radix(&digits, 16).ok();
                out.extend(code.and_then(char::from_u32));
            }
            Some(c @ ('"' | '#' | '&' | '~' | '\'')) => out.push(c),
            Some(c) => out.extend(['\\', c]),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_of_one_pre_tokenizer() {
        let mut all: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|one| one.names).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(names().contains("deepseek-v3"));
    }

    #[test]
    fn every_one_is_recognised_from_its_json() {
        for one in &PRE_TOKENIZERS {
            assert_eq!(recognise(&json!({"pre_tokenizer": one.json()})), one.names[0]);
        }
        let own = json!({"pre_tokenizer": {"type": "ByteLevel", "use_regex": true}});
        assert_eq!(recognise(&own), "gpt-2");
        assert_eq!(recognise(&json!({})), "default");
    }
}
