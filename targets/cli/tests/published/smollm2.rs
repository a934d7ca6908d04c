//! SmolLM2-135M-Instruct answers a question.

use serde_json::json;

use crate::commands::{json as json_of, tokens, vaquita};
use crate::fetch::SMOLLM2;

#[test]
fn smollm2_runs_as_it_is_published() {
    let Some(model) = SMOLLM2.file() else { return };
    // As the `tokenizers` package gives them for its vocabulary, with single digits and GPT-2's
    // words.
    let golden = [
        (
            "Hello, world! It's 12345 days.",
            json!([19556, 28, 905, 17, 657, 506, 216, 33, 34, 35, 36, 37, 2009, 30]),
        ),
        (
            "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n",
            json!([1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198]),
        ),
        (
            "Ελληνικά 日本語 naïve  \n\n\tif x == 10:\n    return y",
            json!([
                153, 239, 17162, 17162, 25723, 11517, 12001, 21118, 26112, 17097, 241, 115, 40993,
                179, 120, 248, 15486, 46494, 256, 1116, 197, 342, 1792, 1758, 216, 33, 32, 42, 472,
                1003, 329
            ]),
        ),
    ];
    for (text, ids) in golden {
        assert_eq!(tokens(&model, text), ids, "{text:?}");
    }
    let ask = [
        "run",
        "--system",
        "You are a helpful assistant.",
        "-p",
        "What is the capital of Germany?",
        "--temp",
        "0",
        "-n",
        "40",
        "--json",
    ];
    let answer = json_of(&vaquita(&model, &ask));
    assert_eq!(
        (&answer["text"], &answer["stop"]),
        (&"The capital of Germany is Berlin.".into(), &"end_of_sentence".into())
    );
}
