//! `tiktoken.model`, used by Kimi and Moonlight: tokens as bytes with their ranks.
//!
//! A word that is a token becomes that token. In any other word, the two neighbours that form the
//! token of the lowest rank are joined, repeatedly. Any two tokens that concatenate to a third are
//! therefore a merge with the rank of the third.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use base64::decode;
use serde_json::json;
use tokenizers::AddedToken;

use super::alphabet::byte_to_char;
use super::definition::{Added, Definition, Merge, Model, Steps, Tokens, shown};
use super::pre_tokenizers::Entry;
use super::{TokenizerError, limits};

/// Number of ids after the ranks that are reserved for control tokens.
const RESERVED: u32 = 256;

/// Returns the tokenizer.json for a file of lines `base64 rank` and the control tokens that the
/// folder names.
pub(super) fn definition(
    file: &[u8],
    named: Vec<Added>,
    entry: &Entry,
) -> Result<Definition<'static>, TokenizerError> {
    let mut tokens: Vec<(Vec<u8>, u32)> = Vec::new();
    for (number, line) in file.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let entry = parse(line).ok_or_else(|| {
            let what = format!("line {} of tiktoken.model", number + 1);
            let found = shown(&String::from_utf8_lossy(&line[..line.len().min(80)]));
            TokenizerError::value(what, found, "a token in base64, a space and its rank")
        })?;
        if tokens.len() >= limits::TOKENS {
            let allowed = format!("at most {} tokens", limits::TOKENS);
            return Err(TokenizerError::value("tiktoken.model", "more", allowed));
        }
        tokens.push(entry);
    }
    let first_free = tokens.iter().map(|(_, rank)| rank.saturating_add(1)).max().unwrap_or(0);
    let written = |token: &[u8]| token.iter().map(|byte| byte_to_char(*byte)).collect::<String>();
    let vocab: Vec<_> = tokens.iter().map(|(token, rank)| (written(token).into(), *rank)).collect();
    Ok(Definition {
        version: "1.0".into(),
        added_tokens: with_reserved(named, first_free),
        steps: steps(entry),
        model: Model {
            kind: Some("BPE".into()),
            ignore_merges: true,
            merges: merges(&vocab)?,
            vocab: Tokens(vocab),
            ..Model::default()
        },
    })
}

fn parse(line: &[u8]) -> Option<(Vec<u8>, u32)> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let rank = std::str::from_utf8(&line[space + 1..]).ok()?.trim().parse().ok()?;
    let token = decode(&line[..space]).ok()?;
    (!token.is_empty()).then_some((token, rank))
}

/// Adds placeholders to the control tokens, so that all reserved ids after the ranks are used.
fn with_reserved(mut named: Vec<Added>, first_free: u32) -> Vec<Added> {
    let taken: HashSet<u32> = named.iter().map(|added| added.id).collect();
    let free = (first_free..first_free.saturating_add(RESERVED)).filter(|id| !taken.contains(id));
    named.extend(free.map(|id| Added {
        id,
        token: AddedToken::from(format!("<|reserved_token_{id}|>"), true).normalized(false),
    }));
    named
}

/// Returns the steps of byte-level BPE with a registered pre-tokenizer.
pub(super) fn steps(entry: &Entry) -> Steps {
    let split = |regex: &&str| {
        let pattern = json!({"Regex": regex});
        json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false})
    };
    let mut parts: Vec<_> = entry.regexes.iter().map(split).collect();
    let mut bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
    bytes["trim_offsets"] = false.into();
    parts.push(bytes.clone());
    Steps {
        normalizer: entry.nfc.then(|| json!({"type": "NFC"})),
        pre_tokenizer: Some(json!({"type": "Sequence", "pretokenizers": parts})),
        post_processor: None,
        decoder: Some(bytes),
    }
}

/// Returns every pair of tokens that concatenates to a third, by the rank of the third, which is
/// its id.
pub(super) fn merges(vocab: &[(Cow<'_, str>, u32)]) -> Result<Vec<Merge<'static>>, TokenizerError> {
    let ranks: HashMap<&str, u32> = vocab.iter().map(|(token, id)| (&**token, *id)).collect();
    let mut made: Vec<(u32, (u32, u32), &str, &str)> = Vec::new();
    for (token, rank) in vocab {
        if token.len() > 2 * limits::PIECE_BYTES {
            let found = format!("a token of {} bytes", token.len());
            let allowed = format!("at most {} where merges follow from ranks", limits::PIECE_BYTES);
            return Err(TokenizerError::value(format!("id {rank}"), found, allowed));
        }
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let halves =
            cuts.filter_map(|(a, b)| Some((*rank, (*ranks.get(a)?, *ranks.get(b)?), a, b)));
        made.extend(halves);
        if made.len() > limits::MERGES {
            let allowed = format!("at most {}", limits::MERGES);
            return Err(TokenizerError::value("the number of merges", "more", allowed));
        }
    }
    made.sort_unstable();
    let owned = |text: &str| Cow::Owned(text.to_string());
    Ok(made.into_iter().map(|(_, _, a, b)| Merge(owned(a), owned(b))).collect())
}
