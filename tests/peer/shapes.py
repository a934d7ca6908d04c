"""A random model with the real dimensions of Qwen3.6-35B-A3B, four layers and 16 experts, in llama.cpp and in vaquita: heads,
states and rows as wide as published ones, which those of the goldens are not.

    python shapes.py VAQUITA SCRATCH

Prints the KL divergence of the logits of the same file in F32, and of one that llama.cpp quantizes, which every token takes
through all experts. Takes 5 GB on disk and 4 GB of memory. Needs what families.py needs."""

import ctypes
import subprocess
import sys
from pathlib import Path

import llama_cpp as llama
import numpy as np
from families import F32_LIMIT, STATES_LIMIT, TYPES, divergences, ours, quantize, quiet, rewrite, theirs

LAYERS, EXPERTS, VOCABULARY, TOKENS = 4, 16, 2048, 48


def main() -> None:
    vaquita, scratch = sys.argv[1], Path(sys.argv[2])
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    folder, exported, every, q4_k = (scratch / name for name in ("qwen3.6", "f32.gguf", "all.gguf", "q4_k.gguf"))
    make = Path(__file__).parents[2] / "benches/peer/make_qwen36.py"
    subprocess.run([sys.executable, make, folder, str(LAYERS), str(EXPERTS), str(VOCABULARY)], check=True)
    export = [vaquita, "export", str(folder), "-o", str(exported), "--type", "f32"]
    subprocess.run(export, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (folder / "model.safetensors").unlink()
    tokens = np.random.default_rng(1).integers(2, VOCABULARY, TOKENS).tolist()
    failed = []
    for kind, file, limit in (("F32", exported, F32_LIMIT), ("Q4_K", q4_k, STATES_LIMIT)):
        if kind == "Q4_K":
            rewrite(exported, every, "qwen3.6", all_experts=True)
            exported.unlink()
            quantize(every, q4_k, TYPES[kind])
            every.unlink()
        each = divergences(ours(vaquita, file, tokens, scratch), theirs(file, tokens))
        print(f"Qwen3.6-35B-A3B's dimensions {kind}: mean {each.mean():.1e}, largest {each.max():.1e}", flush=True)
        if not each.mean() <= limit:
            failed.append(kind)
    if failed:
        sys.exit(f"too far apart: {failed}")


if __name__ == "__main__":
    main()
