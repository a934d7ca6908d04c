"""Writes what the `tokenizers` package from PyPI makes of nasty text (pip install tokenizers):

- reference.json: texts and token ids with the reference model's tokenizer;
- NAME.json: for each of ggml's pre-tokenizers, a small tokenizer trained with its expressions, ggml's keys for
  it, and the ids of the same texts.

The expressions are written here as the checkpoints' tokenizer.json files have them. runtime/tests/tokenizer.rs
compares."""

import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
REFERENCE = HERE.parents[2] / "calibration" / "reference"

TEXTS = [
    "",
    " ",
    "a",
    "Hello, world!",
    "  two spaces, then\ttabs\t\tand   three   ",
    "line one\nline two\r\nline three\n\n\n  indented\n",
    "12345678901234567890 3.14159 1,000,000 ٣٤٥ ½ Ⅷ",
    "It's we'll THEY'RE i'd 'S ’s don't",
    "Ali has 22 cups. 22+30: 2+0=2, write 2.",
    "def f(x):\n    return x**2  # comment\n\n\nclass A:\n\tpass",
    "ما هي عاصمة فرنسا؟ باريس. مَرْحَبًا",
    "法国的首都是什么？巴黎。 日本語のテキスト、カタカナ 한국어",
    "Ünïcödé ñandú ǅ ﬁ Ⓐ ₿ ™ — “quotes” …",
    "🐋🐋 👩‍👩‍👧‍👦 🇩🇿 ❤️ emoji",
    "e\u0301 combining \u200b zero width \ufeff bom \u00a0 nbsp \u3000 wide",
    "<｜User｜>723 * 8 = ?<｜Assistant｜><think>\n</think>",
    "<｜User｜ > <think <|endoftext|> </s> [INST]",
    "\u0000\u0001\u007f control",
    "https://example.org/path?query=1&b=%20#frag C:\\dir\\file.txt",
    "x" * 40 + "!" * 12 + " " * 17 + "\n" * 5 + "9" * 10,
    "mixedCASEwords HTTPServer iPhone snake_case kebab-case αβγ ДДД 漢字kana混じり123",
]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PRE = {
    "deepseek-v3": [
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
    ],
    "deepseek-coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"],
    "qwen2": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST],
    "llama-bpe": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST],
    "gpt-4o": [
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "gpt-2": [GPT2],
}
SPECIAL = ["<|begin|>", "<|end|>"]


def corpus() -> list[str]:
    words = " ".join(TEXTS).split(" ")
    shuffle = random.Random(5)
    lines = TEXTS * 2
    for _ in range(200):
        lines.append(" ".join(shuffle.choices(words, k=12)))
    return lines


def small(name: str, expressions: list[str]) -> dict:
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    splits = [pre_tokenizers.Split(Regex(one), "isolated") for one in expressions]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [text for text, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    return {
        "pre": name,
        "tokens": tokens,
        "token_type": [3 if text in SPECIAL else 1 for text in tokens],
        "merges": [" ".join(pair) for pair in model["merges"]],
        "cases": [[text, tokenizer.encode(text, add_special_tokens=False).ids] for text in TEXTS],
    }


def write(name: str, value: dict) -> None:
    (HERE / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n")


def main() -> None:
    reference = Tokenizer.from_file(str(REFERENCE / "tokenizer.json"))
    cases = [[text, reference.encode(text, add_special_tokens=False).ids] for text in TEXTS]
    write("reference", {"cases": cases})
    for name, expressions in PRE.items():
        write(name, small(name, expressions))


if __name__ == "__main__":
    main()
