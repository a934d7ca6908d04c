"""Writes a small GGUF file that stands in for the models of llama.cpp's server tests: Llama's
architecture with random weights, and a SentencePiece vocabulary of 515 pieces. It never ends a text
by itself and writes whole characters only, so that a test that counts tokens or looks for text finds
them."""

import random
import struct
from pathlib import Path

SPACE = "\u2581"
SPECIAL = ["<unk>", "<s>", "</s>"]
FIM = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
UNKNOWN, CONTROL, BYTE, NORMAL = 2, 3, 6, 1
HIDDEN, HEADS, MLP, LAYERS, CONTEXT = 64, 4, 128, 2, 32768
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The most frequent merges of English text, most frequent first; `_` is the space.
MERGES = """
    _t _a he _o er _the re _s _i _. es nd _w at _c en ts _f _of _b _m in _and on _p it or ed _,
    _e _th ro _l _to _in _n _re _on _d as ion ith an _is al _that _co ac _with ar _A le am ad
    ing ut st ver el _an _h od _fi _are _g _T qu ot _it ce _for mp un ec _wh ay ken _by ic se
    _st _token _one et _pro _The _its um s, ll _mod _ex ur is _r ow im ig _model _as _or _me
    _not ck _M _C ter per ent _k ore ure ul _D _be _u igh her ate ach _file ers _at _read its id
    ation _ro _G ep ame iv ence ol ag _exper ex _se s. _v _lay rom _con _run _tim md tion ain
    _so _from iz il pp sw eigh ack _answ iB
"""


def pieces(words: list[str]) -> list[str]:
    """Letters, frequent merges, then pieces up to each of `words`."""
    found = sorted([chr(c) for c in range(33, 127)] + [SPACE])
    found += MERGES.replace("_", SPACE).split()
    for word in words:
        found += [word[:end] for end in range(2, len(word) + 1) if word[:end] not in found]
    return found


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(item) -> bytes:
    """A value of GGUF's metadata with its type."""
    match item:
        case bool():
            return struct.pack("<I?", 7, item)
        case int():
            return struct.pack("<II", 4, item)
        case float():
            return struct.pack("<If", 6, item)
        case str():
            return struct.pack("<I", 8) + string(item)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(string, item))
        case [float(), *_]:
            return struct.pack("<IIQ", 9, 6, len(item)) + struct.pack(f"<{len(item)}f", *item)
        case _:
            return struct.pack("<IIQ", 9, 5, len(item)) + struct.pack(f"<{len(item)}i", *item)


def metadata(template: str, normal: list[str]) -> dict:
    tokens = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)] + normal + FIM
    kinds = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(normal) + [CONTROL] * 3
    return {
        "general.architecture": "llama",
        "general.name": "stand-in",
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": MLP,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HIDDEN // HEADS,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(rank) for rank in range(len(normal))] + [0.0] * 3,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": template,
    }


def tensors(vocabulary: int, normal: int) -> dict[str, tuple[list[int], bytes]]:
    draw = random.Random(1)

    def matrix(rows: int, columns: int, scale: float, first=None) -> bytes:
        """Random rows; `first` gives the first column."""
        data = []
        for row in range(rows):
            line = [draw.gauss(0.0, scale) for _ in range(columns)]
            if first is not None:
                line[0] = first(row)
            data += line
        return struct.pack(f"<{len(data)}f", *data)

    def same(number: float, count: int) -> bytes:
        return struct.pack(f"<{count}f", *[number] * count)

    def text(row: int) -> float:
        return 0.0 if 259 <= row < 259 + normal else -100.0

    narrow, wide = HIDDEN**-0.5, MLP**-0.5
    # The first number of a token's vector is 1 and no layer writes to it, so that the output can tell
    # by it which tokens never to pick: those that are not text.
    found = {
        "token_embd.weight": ([HIDDEN, vocabulary], matrix(vocabulary, HIDDEN, 1.0, lambda row: 1.0)),
        "output_norm.weight": ([HIDDEN], same(1.0, HIDDEN)),
        "output.weight": ([HIDDEN, vocabulary], matrix(vocabulary, HIDDEN, 0.25, text)),
    }
    for layer in range(LAYERS):
        for name in ["attn_norm", "ffn_norm"]:
            found[f"blk.{layer}.{name}.weight"] = ([HIDDEN], same(1.0, HIDDEN))
        for name in ["attn_q", "attn_k", "attn_v"]:
            found[f"blk.{layer}.{name}.weight"] = ([HIDDEN, HIDDEN], matrix(HIDDEN, HIDDEN, narrow))
        output = same(0.0, HIDDEN) + matrix(HIDDEN - 1, HIDDEN, narrow)
        found[f"blk.{layer}.attn_output.weight"] = ([HIDDEN, HIDDEN], output)
        for name in ["ffn_gate", "ffn_up"]:
            found[f"blk.{layer}.{name}.weight"] = ([HIDDEN, MLP], matrix(MLP, HIDDEN, narrow))
        down = same(0.0, MLP) + matrix(HIDDEN - 1, MLP, wide)
        found[f"blk.{layer}.ffn_down.weight"] = ([MLP, HIDDEN], down)
    return found


def write(path: Path, template: str = CHATML, words: list[str] = []) -> None:
    """Writes the model with a chat template; `words` are further pieces of the vocabulary."""
    normal = pieces(words)
    keys = metadata(template, normal)
    all_tensors = tensors(len(keys["tokenizer.ggml.tokens"]), len(normal))
    header = b"GGUF" + struct.pack("<IQQ", 3, len(all_tensors), len(keys))
    header += b"".join(string(key) + value(item) for key, item in keys.items())
    offset, data = 0, b""
    for name, (shape, numbers) in all_tensors.items():
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        header += string(name) + dimensions + struct.pack("<IQ", 0, offset)
        padded = numbers + bytes(-len(numbers) % 32)
        offset, data = offset + len(padded), data + padded
    path.write_bytes(header + bytes(-len(header) % 32) + data)
