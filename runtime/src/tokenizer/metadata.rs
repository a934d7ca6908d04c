//! Reads a tokenizer from GGUF metadata, and writes the metadata of a tokenizer.

use std::borrow::Cow;
use std::collections::HashSet;

use tokenizers::AddedToken;

use super::alphabet::Alphabet;
use super::bpe::Ranking;
use super::definition::{self, Added, Definition, Merge, Model};
use super::sentencepiece::{self, Order};
use super::{Tokenizer, TokenizerError, limits, pre_tokenizers, ranked};
use crate::gguf::Metadata;

/// Key of a complete tokenizer.json.
const HUGGINGFACE: &str = "tokenizer.huggingface.json";
const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const PREFIX_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const TEMPLATE: &str = "tokenizer.chat_template";
/// Key of the end-of-turn tokens from the checkpoint's generation_config.json.
const ENDS: &str = "vaquita.end_token_ids";

/// Values of `tokenizer.ggml.token_type`.
mod kind {
    pub const NORMAL: u32 = 1;
    pub const UNKNOWN: u32 = 2;
    pub const CONTROL: u32 = 3;
    pub const USER_DEFINED: u32 = 4;
    pub const UNUSED: u32 = 5;
    pub const BYTE: u32 = 6;
}

pub(super) fn read(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
    let (mut tokenizer, add_bos) = match metadata.str(HUGGINGFACE)? {
        Some(json) => (Tokenizer::from_json(json.as_bytes())?, false),
        None => {
            let (definition, add_bos, note) = definition(metadata)?;
            let tokenizer = Tokenizer::from_definition(definition)?;
            (Tokenizer { note, ..tokenizer }, add_bos)
        }
    };
    tokenizer.end_with(metadata.u32s(ENDS)?.unwrap_or_default());
    tokenizer.bos = id(metadata, BOS, &tokenizer)?;
    tokenizer.eos = id(metadata, EOS, &tokenizer)?;
    tokenizer.add_bos = metadata.bool(ADD_BOS)?.unwrap_or(add_bos) && tokenizer.bos.is_some();
    let template = metadata.str(TEMPLATE)?;
    if let Some(template) = template.filter(|t| t.len() as u64 > limits::TEMPLATE_BYTES) {
        let allowed = format!("at most {} bytes", limits::TEMPLATE_BYTES);
        return Err(TokenizerError::value(TEMPLATE, format!("{} bytes", template.len()), allowed));
    }
    tokenizer.chat_template = template.map(str::to_string);
    Ok(tokenizer)
}

fn id(
    metadata: &Metadata,
    key: &str,
    tokenizer: &Tokenizer,
) -> Result<Option<u32>, TokenizerError> {
    let id = metadata.token_id(key)?;
    match id.filter(|id| *id as usize >= tokenizer.vocab_size) {
        Some(id) => {
            let allowed = format!("below {}", tokenizer.vocab_size);
            Err(TokenizerError::value(key, id.to_string(), allowed))
        }
        None => Ok(id),
    }
}

/// Returns the tokenizer.json equivalent to llama.cpp's keys, whether BOS is added if they do not
/// state it, and a note for the user.
fn definition(
    metadata: &Metadata,
) -> Result<(Definition<'_>, bool, Option<String>), TokenizerError> {
    // llama.cpp's mark of a file without a tokenizer.
    let model = metadata.str(MODEL)?.filter(|model| *model != "no_vocab");
    let model = model.ok_or(TokenizerError::Absent)?;
    match model {
        "gpt2" => {
            let pre = metadata.str(PRE)?;
            // llama.cpp does the same with files from before May 2024.
            let note = pre.is_none().then(|| {
                format!("{PRE} is missing, so texts are cut in llama.cpp's default way: convert the file again")
            });
            let pre = pre.unwrap_or("default");
            let entry = pre_tokenizers::by_name(pre).ok_or_else(|| {
                TokenizerError::value(PRE, format!("{pre:?}"), pre_tokenizers::names())
            })?;
            Ok((byte_level(metadata, entry)?, entry.add_bos, note))
        }
        "llama" => Ok((sentence_piece(metadata, false)?, true, None)),
        "gemma4" => Ok((sentence_piece(metadata, true)?, true, None)),
        other => {
            let allowed = format!("gpt2, llama, gemma4, or any with {HUGGINGFACE}");
            Err(TokenizerError::value(MODEL, format!("{other:?}"), allowed))
        }
    }
}

/// Tokens by treatment.
#[derive(Default)]
struct Tokens<'a> {
    vocab: Vec<(Cow<'a, str>, u32)>,
    added: Vec<Added>,
    unknown: Option<(Cow<'a, str>, u32)>,
}

impl<'a> Tokens<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self, TokenizerError> {
        let tokens = metadata.strings(TOKENS)?.ok_or(TokenizerError::Missing { key: TOKENS })?;
        let kinds = metadata.u32s(TOKEN_TYPE)?.unwrap_or_else(|| vec![kind::NORMAL; tokens.len()]);
        check_count(TOKENS, tokens.len(), limits::TOKENS)?;
        check_as_many(TOKEN_TYPE, kinds.len(), tokens.len())?;
        let mut this = Self::default();
        let mut lossy = HashSet::new();
        for (id, (token, kind)) in (0u32..).zip(tokens.iter().zip(kinds)) {
            match kind {
                // llama.cpp tolerates empty tokens too; they do not occur in text.
                _ if token.is_empty() => this.vocab.push((format!("[EMPTY_{id}]").into(), id)),
                // Bytes that are not UTF-8: their replacement texts may collide.
                _ if token.contains(char::REPLACEMENT_CHARACTER) && !lossy.insert(token) => {
                    this.vocab.push((format!("[BYTES_{id}]").into(), id));
                }
                kind::UNKNOWN | kind::CONTROL | kind::USER_DEFINED => {
                    if kind == kind::UNKNOWN {
                        this.unknown.get_or_insert((token.into(), id));
                    }
                    let token = AddedToken::from(token.clone(), kind != kind::USER_DEFINED);
                    this.added.push(Added { id, token: token.normalized(false) });
                }
                0 | kind::NORMAL | kind::UNUSED | kind::BYTE => {
                    this.vocab.push((token.into(), id));
                }
                other => {
                    let what = format!("{TOKEN_TYPE}[{id}]");
                    return Err(TokenizerError::value(what, other.to_string(), "0 to 6"));
                }
            }
        }
        Ok(this)
    }
}

fn check_count(key: &str, found: usize, limit: usize) -> Result<(), TokenizerError> {
    if found <= limit {
        return Ok(());
    }
    let allowed = format!("at most {limit} elements");
    Err(TokenizerError::value(key, format!("{found} elements"), allowed))
}

fn check_as_many(key: &str, found: usize, tokens: usize) -> Result<(), TokenizerError> {
    if found == tokens {
        return Ok(());
    }
    let allowed = format!("{tokens} elements, as many as {TOKENS}");
    Err(TokenizerError::value(key, format!("{found} elements"), allowed))
}

/// Reads SentencePiece BPE, used by Llama 2 and Mixtral, or with merges instead of scores by
/// Gemma 4.
fn sentence_piece(metadata: &Metadata, merges: bool) -> Result<Definition<'_>, TokenizerError> {
    let Tokens { vocab, added, unknown } = Tokens::read(metadata)?;
    let order = match merges {
        true => Order::Merges(read_merges(metadata)?),
        false => {
            let scores = metadata.f32s(SCORES)?.ok_or(TokenizerError::Missing { key: SCORES })?;
            check_as_many(SCORES, scores.len(), vocab.len() + added.len())?;
            Order::Scores(scores.into())
        }
    };
    let prefix_space = metadata.bool(PREFIX_SPACE)?.unwrap_or(!merges);
    sentencepiece::definition(sentencepiece::Keys { vocab, added, order, unknown, prefix_space })
}

fn read_merges(metadata: &Metadata) -> Result<Vec<Merge<'_>>, TokenizerError> {
    let merges = metadata.strings(MERGES)?.ok_or(TokenizerError::Missing { key: MERGES })?;
    check_count(MERGES, merges.len(), limits::MERGES)?;
    merges.iter().map(|merge| Merge::parse(merge)).collect()
}

/// Reads byte-level BPE.
fn byte_level<'a>(
    metadata: &'a Metadata,
    entry: &pre_tokenizers::Entry,
) -> Result<Definition<'a>, TokenizerError> {
    let Tokens { vocab, added, .. } = Tokens::read(metadata)?;
    // llama.cpp needs no merges if ids are ranks.
    let by_rank = std::ptr::eq(entry, pre_tokenizers::KIMI) && metadata.get(MERGES).is_none();
    let merges = if by_rank { ranked::merges(&vocab)? } else { read_merges(metadata)? };
    Ok(Definition {
        version: "1.0".into(),
        added_tokens: added,
        steps: ranked::steps(entry),
        model: Model {
            kind: Some("BPE".into()),
            ignore_merges: entry.ignore_merges,
            vocab: definition::Tokens(vocab),
            merges,
            ..Model::default()
        },
    })
}

pub(super) fn write(tokenizer: &Tokenizer, metadata: &mut Metadata) {
    for key in [PRE, MERGES, SCORES, PREFIX_SPACE, BOS, EOS, ENDS, TEMPLATE, HUGGINGFACE] {
        metadata.remove(key);
    }
    let merges = tokenizer.merges();
    let (tokens, kinds) = tokens(tokenizer);
    match tokenizer.alphabet {
        Alphabet::ByteLevel => {
            metadata.insert(MODEL, "gpt2");
            metadata.insert(PRE, recognised(tokenizer));
            let merges = merges.iter().flatten().map(|Merge(a, b)| format!("{a} {b}"));
            metadata.insert(MERGES, merges.collect::<Vec<_>>());
        }
        Alphabet::ByteFallback => {
            metadata.insert(MODEL, "llama");
            let scores = match &tokenizer.model.ranking {
                Ranking::Scores(scores) => {
                    let mut scores = scores.clone();
                    scores.resize(tokens.len(), 0.0);
                    scores
                }
                Ranking::Merges(_) => {
                    sentencepiece::scores(&tokens, merges.as_deref().unwrap_or_default())
                }
            };
            metadata.insert(SCORES, scores);
            let prefix_space = sentencepiece::has_prefix_space(&tokenizer.steps);
            metadata.insert(PREFIX_SPACE, prefix_space);
        }
    }
    metadata.insert(TOKENS, tokens);
    metadata.insert(TOKEN_TYPE, kinds);
    for (key, id) in [(BOS, tokenizer.bos), (EOS, tokenizer.eos)] {
        if let Some(id) = id {
            metadata.insert(key, id);
        }
    }
    metadata.insert(ADD_BOS, tokenizer.add_bos);
    if !tokenizer.named_ends.is_empty() {
        metadata.insert(ENDS, tokenizer.named_ends.clone());
    }
    if let Some(template) = &tokenizer.chat_template {
        metadata.insert(TEMPLATE, template.as_str());
    }
    // Serializing a map with string keys cannot fail.
    if let Some(merges) = merges
        && let Ok(json) = serde_json::to_string(&tokenizer.definition(merges))
    {
        metadata.insert(HUGGINGFACE, json);
    }
}

/// Returns the name of the pre-tokenizer in the registry, or `default` if none matches.
fn recognised(tokenizer: &Tokenizer) -> &'static str {
    let normalizer = tokenizer.steps.normalizer.as_ref();
    let nfc = normalizer.is_some_and(|normalizer| normalizer["type"] == "NFC");
    let regexes = tokenizer.pre_tokenizer.regexes();
    regexes
        .and_then(|regexes| pre_tokenizers::recognise(&regexes, tokenizer.model.ignore_merges, nfc))
        .and_then(|entry| entry.names.first())
        .unwrap_or(&"default")
}

/// Returns texts and types of all ids. Ids without a token get a text that no input contains.
fn tokens(tokenizer: &Tokenizer) -> (Vec<String>, Vec<i32>) {
    let mut slots: Vec<Option<(String, u32)>> = vec![None; tokenizer.vocab_size];
    let byte_fallback = tokenizer.alphabet == Alphabet::ByteFallback;
    let unk = tokenizer.model.unknown_text();
    let normal = tokenizer.model.vocabulary.iter().map(|(token, id)| {
        let kind = match token {
            token if Some(token) == unk => kind::UNKNOWN,
            token if byte_fallback && token.starts_with("<0x") && token.len() == 6 => kind::BYTE,
            _ => kind::NORMAL,
        };
        (id, token.to_string(), kind)
    });
    let added = tokenizer.added.iter().map(|(id, token)| {
        let unknown = Some(token.content.as_str()) == unk;
        let kind = match token.special {
            true if unknown => kind::UNKNOWN,
            true => kind::CONTROL,
            false => kind::USER_DEFINED,
        };
        (id, token.content.clone(), kind)
    });
    for (id, token, kind) in normal.chain(added) {
        if let Some(slot) = slots.get_mut(id as usize) {
            *slot = Some((token, kind));
        }
    }
    let taken: HashSet<String> = slots.iter().flatten().map(|(token, _)| token.clone()).collect();
    let padding = |id: usize| {
        let mut token = format!("[PAD{id}]");
        while taken.contains(&token) {
            token.push('_');
        }
        (token, kind::UNUSED)
    };
    let filled =
        slots.into_iter().enumerate().map(|(id, slot)| slot.unwrap_or_else(|| padding(id)));
    filled.map(|(token, kind)| (token, kind as i32)).unzip()
}
