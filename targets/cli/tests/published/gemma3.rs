//! Gemma 3 270M continues texts.

use serde_json::json;

use crate::commands::{json as json_of, tokens, vaquita};
use crate::fetch::GEMMA_3;

/// Texts that any language model of this size knows by heart.
const CONTINUATIONS: [(&str, &str); 4] = [
    ("1, 2, 3, 4, 5, 6, 7,", " 8, 9, 10,"),
    ("Monday, Tuesday, Wednesday,", " Thursday, Friday, Saturday, Sunday"),
    ("To be, or not to be,", " that is the question."),
    (
        "We hold these truths to be self-evident, that all men are",
        " created equal, that they are endowed by their creator with certain",
    ),
];

#[test]
fn gemma_3_continues_texts_as_it_is_published() {
    let Some(model) = GEMMA_3.file() else { return };
    let text = "Hello, world! It's 12345 days.";
    let ids = [
        2, 9259, 236764, 1902, 236888, 1030, 236789, 236751, 236743, 236770, 236778, 236800,
        236812, 236810, 2668, 236761,
    ];
    assert_eq!(tokens(&model, text), json!(ids));
    for (prompt, continuation) in CONTINUATIONS {
        let run = ["run", "--raw", "--temp", "0", "-n", "12", "--json", "-p", prompt];
        let found = json_of(&vaquita(&model, &run));
        let text = found["text"].as_str().unwrap();
        assert!(text.starts_with(continuation), "{prompt}: {text}");
    }
}
