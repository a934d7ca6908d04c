"""Trains one small byte-level BPE per pre-tokenizer of the registry on a mixed text, and writes with it what the Python
`tokenizers` package makes of nasty texts: <out>/<name>.json = {"tokenizer": {...}, "cases": [{text, ids, plain}],
"decoded": [{ids, text}]}. `ids` recognises special tokens in the text, `plain` does not; `decoded` are tokens at random, so
that most end within characters. `llama-spm` and `mistral-spm` are trained by the `sentencepiece` package and made into merges
by `transformers`; "ggml" are the keys that a GGUF file has of them. `reference.json` has cases only, for the reference model's
tokenizer. `tiktoken.model` with `kimi-k2.json`, and `tokenizer.model`, are files of folders without a tokenizer.json. Needs
tokenizers, transformers, tiktoken, regex and sentencepiece. Usage: make_tokenizers.py OUT REFERENCE_TOKENIZER_JSON"""
import base64, io, json, random, sys
import sentencepiece, tiktoken
from tiktoken._educational import bpe_train
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel, Digits, Metaspace, Sequence, Split
from transformers.tokenization_utils_base import generate_merges

out, reference = sys.argv[1], sys.argv[2]
LETTERS = "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
LLAMA3 = CONTRACTIONS + "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" + TAIL
QWEN2 = CONTRACTIONS + "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" + TAIL
O200K = ("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" + CONTRACTIONS + "?"
         "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" + CONTRACTIONS + "?"
         "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
V3 = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
split = lambda *regexes: [Split(Regex(r), "isolated") for r in regexes]
plain, gpt2 = [ByteLevel(add_prefix_space=False, use_regex=False)], [ByteLevel(add_prefix_space=False, use_regex=True)]
# name: (pre-tokenizers, as the models' own tokenizer.json has them; NFC; ignore_merges)
MODELS = {
 "deepseek-v3": (split("\\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", V3) + plain, False, False),
 "deepseek-llm": (split("[\r\n]", LETTERS, "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", "\\s+$", CJK) + [Digits(True)] + plain, False, False),
 "deepseek-coder": (split("[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK) + [Digits(True)] + plain, False, False),
 "qwen2": (split(QWEN2) + plain, True, False),
 "deepseek-r1-qwen": (split(QWEN2) + plain, False, False),
 "llama-bpe": (split(LLAMA3) + plain, False, True),
 "chatglm-bpe": (split(LLAMA3) + plain, False, False),
 "gpt-4o": (split(O200K) + plain, False, False),
 "gpt-2": (gpt2, False, False),
 "olmo": (gpt2, True, False),
}
HAN = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]", "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
# As `pat_str` of Kimi's tokenization_kimi.py; Rust's regexes, which tiktoken has, know `&&`.
KIMI = ("[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?" + HAN[0] + "*" + HAN[1] + "+" + CONTRACTIONS + "?|[^\\r\\n\\p{L}\\p{N}]?" + HAN[0] + "+" + HAN[1] + "*" + CONTRACTIONS + "?"
        "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
QWEN35 = CONTRACTIONS + "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
TEKKEN = ("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
          "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
BAILING = "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
SEED = CONTRACTIONS + "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
MODELS |= {
 "smollm": ([Digits(True)] + gpt2, False, False),
 "command-r": ([Digits(True)] + gpt2, True, False),
 "qwen35": (split(QWEN35) + plain, True, False),
 "tekken": (split(TEKKEN) + plain, False, True),
 "bailingmoe": (split(BAILING) + plain, False, False),
 "seed-coder": (split(SEED) + plain, False, False),
}
# llama.cpp's own, which no model's file has.
MODELS["default"] = (split("[\\p{P}\\$\\+<=>\\^~\\|]+", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", "\\p{N}+", "[0-9][0-9][0-9]") + plain, False, False)

SPECIAL = ["<|bos|>", "<|eos|>", "<|user|>"]
TEXT = ["The quick brown fox doesn't jump over 12345 lazy dogs; they're LAZY, I'M sure.", "fn main() {\n\tlet x = [1, 2, 3];\n    println!(\"{:?}\", x);\n}\n\n",
 "Die Straße über den Fluß, façade, naïve, El Niño, Ελληνικά και Русский язык.", "中文分词是一个难题。日本語のひらがなとカタカナ、한국어 문장.", "السلام عليكم ورحمة الله 123 שלום עולם हिन्दी भाषा ไทย",
 "x = 3.14159e-10 * (y ** 2) / 1_000_000;  // comment", "😀😃 emoji 👩‍👩‍👧‍👦 🇩🇪 ✊🏽!!!", "  leading   and trailing   \r\n\r\n\t\ttabs  ", "camelCaseWord HTTPServer getURLFor snake_case kebab-case I'LL we'Ve"] * 4
CASES = ["", " ", "  ", "\n", "\r\n", "\t \n \t", "a", " a", "a ", "a\n\n\nb", "   a   b   ", "x\u00a0y\u3000z\u2028w\u0085v", "Hello, world!", "I'm you're we'LL they'D it'S don\u2019t 'ſ ŉ",
 "1234567890", "１２３ ٤٥٦ ½ Ⅷ ²³ 12a34 3.14", "0x7F 1e-9 1,000,000.00", "日本語とEnglish混ぜ123る。中文！", "한국어 텍스트입니다 가나다", "السلام عليكم ١٢٣", "שָׁלוֹם עוֹלָם", "हिन्दी में पाठ ำไทย", "e\u0301 \u00e9 A\u030a \u212b ﬁ ǅ ʰ",
 "😀👩‍👩‍👧‍👦🇩🇪✊🏽", "a\u200bb\u200dc\ufeffd\u00ad", "\U0001f600\U00020000\U0010ffff", "\x00\x01\x7f\x1b[0m", "...!!!???---***///", "(a)[b]{c}<d>", "$+<=>^~|`$$", "camelCase HTTPServer XMLHttpRequest iPhone ABCdefGHI", "ÀÉÎ Straße ΣΊΣΥΦΟΣ ДОМ дом",
 "fn f(x: &str) -> u32 {\n    x.len() as u32\n}\n", "if x:\n\treturn  y\r\n\r\n# end", "line\r\rmac\n\runix", "path/to/file.rs//\n/\nurl https://example.org/?a=1&b=2#c", "    \n    indented\n        more\n", "word" * 40, " " * 50 + "x" + "\t" * 9, "\n" * 20,
 "<|bos|>hi<|eos|>", "<|user|> <|user|>\n<|user", "<|bos", "|>bos<|", "a<|eos|>b <|eos|> c", "<think>hm</think>", "< think > <think", "<|bos|><|bos|><|eos|>", "Ġ Ċ ĉ Ā", "Kelvin K Å ſ ß", "ᏣᎳᎩ Ꭰ ᲐᲑ ა ⰀⰁ 𐐀𐐨 𞤀", "«quoted» “smart” ‘single’ 、。〈〉！？", "１＋１＝２ ＡＢＣ ａｂｃ", "x²+y²=z² ∑∫√ €£¥ ©®™ °"]

def cases(tokenizer, texts):
    result = []
    for text in texts:
        tokenizer.encode_special_tokens = False
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        result.append(dict(text=text, ids=ids, plain=tokenizer.encode(text, add_special_tokens=False).ids))
    tokenizer.encode_special_tokens = False
    return result

def decoded(tokenizer):
    dice = random.Random(7)
    samples = [[dice.randrange(tokenizer.get_vocab_size()) for _ in range(dice.randrange(1, 12))] for _ in range(30)]
    return [dict(ids=ids, text=tokenizer.decode(ids, skip_special_tokens=False)) for ids in samples]

def write(path, value):
    with open(path, "w") as file:
        file.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")

for name, (steps, nfc, ignore) in MODELS.items():
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore))
    if nfc: tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False, initial_alphabet=sorted(ByteLevel.alphabet()), special_tokens=SPECIAL)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ["<think>", "</think>"]])
    write(f"{out}/{name}.json", dict(tokenizer=json.loads(tokenizer.to_str()), cases=cases(tokenizer, CASES), decoded=decoded(tokenizer)))
# As in the tokenizer.json of Llama 2 and Mixtral 8x7B, and as in that of Mistral since its third version.
PREFIX = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
SPACES = {"llama-spm": (PREFIX, None), "mistral-spm": (None, Metaspace(replacement="▁", prepend_scheme="first", split=False))}
trained = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXT * 3), model_writer=trained, model_type="bpe", vocab_size=700, byte_fallback=True,
    character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["<think>", "</think>"], minloglevel=2)
pieces = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
count = pieces.get_piece_size()
vocab = {pieces.id_to_piece(i): i for i in range(count)}
scores = {pieces.id_to_piece(i): pieces.get_score(i) for i in range(count)}
special = lambda i: pieces.is_control(i) or pieces.is_unknown(i)
kind = lambda i: 2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else 4 if pieces.id_to_piece(i) in ("<think>", "</think>") else 1
ggml = dict(tokens=list(vocab), scores=list(scores.values()), token_type=[kind(i) for i in range(count)])
for name, (normalizer, step) in SPACES.items():
    merges = generate_merges(vocab, scores)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer: tokenizer.normalizer = normalizer
    if step: tokenizer.pre_tokenizer = step
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(pieces.id_to_piece(i), normalized=False) for i in range(count) if special(i)])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ["<think>", "</think>"]])
    write(f"{out}/{name}.json", dict(tokenizer=json.loads(tokenizer.to_str()), cases=cases(tokenizer, CASES + ["<s>hi</s> a<unk>", "a <think> b</think> c"]), ggml=ggml))

# tokenizer.model as it is, with what transformers' LlamaTokenizer makes of it: the cases of llama-spm.
with open(f"{out}/tokenizer.model", "wb") as file:
    file.write(trained.getvalue())

# tiktoken.model as Kimi ships it, and what tiktoken makes of texts. Trained with a simpler split: `regex` does not know `&&`.
TRAINING = "\\p{Han}+|\\s?\\p{L}+|\\p{N}{1,3}|[^\\s\\p{L}\\p{N}]+|\\s+"
ranks = bpe_train("\n".join(TEXT), 600, TRAINING)
with open(f"{out}/tiktoken.model", "wb") as file:
    file.writelines(base64.b64encode(token) + b" " + str(rank).encode() + b"\n" for token, rank in ranks.items())
named = {"[BOS]": 600, "[EOS]": 601, "<|im_end|>": 602, "<|im_user|>": 603}
encoding = tiktoken.Encoding("kimi", pat_str=KIMI, mergeable_ranks=ranks, special_tokens=named | {f"<|reserved_token_{i}|>": i for i in range(604, 856)})
write(f"{out}/kimi-k2.json", dict(named=named, cases=[dict(text=t, ids=encoding.encode(t, allowed_special="all"), plain=encoding.encode(t, disallowed_special=())) for t in CASES + ["[BOS]hi[EOS] <|im_end|>", "<|reserved_token_700|>"]]))

tokenizer = Tokenizer.from_file(reference)
R = ["<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"]
write(f"{out}/reference.json", dict(cases=cases(tokenizer, CASES + [R[0] + R[1] + "2+2?" + R[2] + "<think>\n4</think>4" + R[3], "<｜User", "｜User｜>", " ".join(R), "<｜User｜><｜User｜>x"])))
