//! Names of tokens that end a turn. Many files state only one of several, or the one that ends a
//! text, or mark them as tokens that users may write.

use super::Tokenizer;

/// End-of-turn names of all families.
const NAMES: [&str; 28] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|EOT|>",
    "<|eot|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "</s>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
    "<｜end▁of▁sentence｜>",
    "<|role_end|>",
    "<|eos|>",
];
/// Names of tokens that begin a turn of another role than the assistant.
const BEGINNINGS: [&str; 3] = ["<|user|>", "<|observation|>", "<｜User｜>"];
/// Names that identify vocabularies in which `<|end|>` ends a message and more messages follow.
const IN_MESSAGES: [&str; 2] = ["<|return|>", "<|flush|>"];

/// Returns the ids of these tokens. A normal token counts only if its name cannot occur in text by
/// chance.
pub(super) fn by_name(tokenizer: &Tokenizer) -> Vec<u32> {
    let is_token = |name: &str, id: u32| {
        tokenizer.added.get(id).is_some() || name.starts_with("<|") || name.starts_with("<｜")
    };
    let in_messages = IN_MESSAGES.iter().any(|name| tokenizer.token_to_id(name).is_some());
    let names = NAMES.into_iter().filter(|name| !(in_messages && *name == "<|end|>"));
    let ids = names.chain(BEGINNINGS).filter_map(|name| {
        let id = tokenizer.token_to_id(name)?;
        is_token(name, id).then_some(id)
    });
    ids.collect()
}
