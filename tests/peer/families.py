"""Each golden architecture in llama.cpp and in vaquita, from the same files: exported by vaquita, quantized by llama.cpp.

    python families.py VAQUITA GOLDENS REFERENCE SCRATCH [NAME...]

Prints a line per file with the KL divergence of vaquita's logits from llama.cpp's, and fails where its mean is above 1e-6 in F32
or 1e-3 in another type; above 5e-3 where states carry the differences of one token to all that follow.
Both quantize activations, each in its own way, and the routers of random checkpoints are so undecided that the least difference
sends tokens to other experts, which says nothing about arithmetic. So the choice of experts is compared in F32, and in the
quantized files every token visits all of them, weighted by the router as ever. The reference model is trained, and compared as
it is; its rows are wide enough for the K types, where llama.cpp takes others for the tiny ones. Needs llama-cpp-python, gguf,
numpy and safetensors."""

import ctypes
import subprocess
import sys
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np
from safetensors.numpy import load_file

# llama.cpp's numbers of file types.
TYPES = {
    "Q4_0": 2, "Q8_0": 7, "Q2_K": 10, "Q4_K": 14, "Q5_K": 16, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30,
}
F32_LIMIT, LIMIT, STATES_LIMIT = 1e-6, 1e-3, 5e-3
STATES = ["granite-4", "granite-4-dense", "kimi-linear", "ling-3", "qwen3-next", "qwen3.5", "qwen3.5-moe"]
# Checkpoints in another form of a family whose quantized files are compared already.
OTHER_FORMS = ["qwen3.5-moe-fp8"]
# Whose gelu or state is in half precision there, which sends a token to another expert in F32, too.
F32_LIMITS = {"gemma-4-26b": 1e-4, "granite-4": 1e-5}

# Where llama.cpp (llama-cpp-python 0.3.36) computes something else, and what makes the file one in which both do the same.
GROUPS = "llama.cpp does not limit softmax routing to groups: the choice of experts is not compared"
LAYERS = "llama.cpp takes queries without a low rank from models of 27 layers only: the last layer is repeated"
YARN = "llama.cpp rounds the ends of YaRN's ramp: so do we where the file says so"
SCALE = "llama.cpp scales scores by the size of heads: the rest is a factor of the queries' norm"
DIFFERS = {"deepseek-v2": GROUPS, "deepseek-v2-lite": LAYERS, "moonlight": LAYERS, "gpt-oss": YARN, "gemma-3": SCALE}


def rewrite(source: Path, out: Path, name: str, all_experts: bool) -> None:
    """A copy of a file with what `DIFFERS` says, and with all experts visited where asked."""
    reader = gguf.GGUFReader(source)
    known = lambda key: reader.fields[key].contents() if key in reader.fields else None
    arch = known("general.architecture")
    changed = {}
    if all_experts and known(f"{arch}.expert_count"):
        used, count = known(f"{arch}.expert_used_count"), known(f"{arch}.expert_count")
        changed[f"{arch}.expert_used_count"] = count
        if arch == "deepseek2":  # the only one of which llama.cpp scales the experts: as much comes from all as from the chosen
            changed[f"{arch}.expert_weights_scale"] = known(f"{arch}.expert_weights_scale") * used / count
        changed[f"{arch}.expert_group_count"] = changed[f"{arch}.expert_group_used_count"] = 1
    if DIFFERS.get(name) == YARN:
        changed["vaquita.rope.truncate"] = True
    query_factor = 1.0
    if DIFFERS.get(name) == SCALE:
        usual = known(f"{arch}.attention.key_length") ** -0.5
        query_factor = known("vaquita.attention.score_scale") / usual
        changed["vaquita.attention.score_scale"] = usual
    layers = known(f"{arch}.block_count")
    repeats = 27 - layers if DIFFERS.get(name) == LAYERS else 0
    changed[f"{arch}.block_count"] = layers + repeats
    writer = gguf.GGUFWriter(out, arch)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            value, kind = changed.get(field.name, field.contents()), field.types[0]
            if field.name == "vaquita.layer_types":
                value = value + [value[-1]] * repeats
            writer.add_key_value(field.name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        factor = query_factor if "attn_q_norm" in tensor.name else 1.0
        writer.add_tensor(tensor.name, tensor.data * np.float32(factor))
        last = f"blk.{layers - 1}."
        # What repeated layers add is small, or errors would add up over them.
        small = 0.1 if "attn_output" in tensor.name or "ffn_down" in tensor.name else 1.0
        for layer in range(layers, layers + repeats) if tensor.name.startswith(last) else []:
            writer.add_tensor(tensor.name.replace(last, f"blk.{layer}."), tensor.data * np.float32(small))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@llama.llama_log_callback
def quiet(_level, _text, _data):
    pass


def quantize(source: Path, out: Path, ftype: int) -> None:
    params = llama.llama_model_quantize_default_params()
    params.nthread, params.ftype = 2, ftype
    assert llama.llama_model_quantize(bytes(source), bytes(out), ctypes.byref(params)) == 0, out


def theirs(path: Path, tokens: list[int]) -> np.ndarray | None:
    """Logits after each token; None where llama.cpp does not load the file."""
    model = llama.llama_model_load_from_file(bytes(path), llama.llama_model_default_params())
    if not model:
        return None
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 512, 512, 512
    params.n_threads = params.n_threads_batch = 1  # more threads wait for each other in so small a model
    params.type_k = params.type_v = 0  # F32
    context = llama.llama_init_from_model(model, params)
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, i, 1, 0
        batch.logits[i] = 1
    assert llama.llama_decode(context, batch) == 0
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    rows = [np.ctypeslib.as_array(llama.llama_get_logits_ith(context, i), (vocabulary,)).copy() for i in range(len(tokens))]
    llama.llama_free(context)
    llama.llama_model_free(model)
    return np.stack(rows)


def ours(vaquita: str, path: Path, tokens: list[int], scratch: Path) -> np.ndarray:
    out = scratch / "logits.safetensors"
    ids = ",".join(map(str, tokens))
    subprocess.run([vaquita, "eval", "logits", str(path), "--tokens", ids, "-o", str(out)], check=True)
    return load_file(out)["logits"]


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def divergences(logits: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Of each token, of logits brought to the same spread."""
    spread = max(reference.std(), 1.0)
    p, q = log_softmax(logits / spread), log_softmax(reference / spread)
    return (np.exp(q) * (q - p)).sum(-1)


def main() -> None:
    vaquita, scratch = sys.argv[1], Path(sys.argv[4])
    checkpoints = {p.parent.name: p.parent for p in sorted(Path(sys.argv[2]).glob("*/golden.safetensors"))}
    checkpoints["reference"] = Path(sys.argv[3])
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    failed = []
    for name in sys.argv[5:] or checkpoints:
        if name in DIFFERS:
            print(f"{name}: {DIFFERS[name]}")
        golden = load_file(checkpoints[name] / "golden.safetensors")
        tokens = golden["input_ids.0" if name == "reference" else "input_ids"].reshape(-1)[:64].tolist()
        exported, chosen, every = (scratch / f"{name}{kind}.gguf" for kind in ["", "-chosen", "-all"])
        subprocess.run([vaquita, "export", str(checkpoints[name]), "-o", str(exported), "--type", "f32"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rewrite(exported, chosen, name, all_experts=DIFFERS.get(name) == GROUPS)
        rewrite(exported, every, name, all_experts=name != "reference")
        files = {"F32": chosen}
        for ty, ftype in TYPES.items() if name not in OTHER_FORMS else []:
            files[ty] = scratch / f"{name}-{ty}.gguf"
            quantize(every, files[ty], ftype)
        for ty, path in files.items():
            reference = theirs(path, tokens)
            if reference is None:
                print(f"{name} {ty}: llama.cpp does not load it")
                failed.append((name, ty))
                continue
            each = divergences(ours(vaquita, path, tokens, scratch), reference)
            print(f"{name} {ty}: mean {each.mean():.1e}, largest {each.max():.1e}", flush=True)
            limit = F32_LIMITS.get(name, F32_LIMIT) if ty == "F32" else STATES_LIMIT if name in STATES else LIMIT
            if not each.mean() <= limit:
                failed.append((name, ty))
            path.unlink()
    if failed:
        sys.exit(f"too far apart: {failed}")


if __name__ == "__main__":
    main()
