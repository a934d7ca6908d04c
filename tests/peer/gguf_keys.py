"""Leaves out one metadata key of each golden's GGUF file after the other and records what llama.cpp makes of the file.

    python gguf_keys.py VAQUITA GOLDENS SCRATCH [NAME...]

Writes GOLDENS/keys/NAME.gguf.json: a few logits of the whole file, and for each key `same` where they stay so without it,
`error` where llama.cpp does not load or run the file, or else the logits. Needs what families.py needs."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np
from families import quiet, theirs
from safetensors.numpy import load_file

# What has nothing to do with the network; tokenizers have tests of their own.
OTHERS = ("general.", "GGUF.", "tokenizer.", "vaquita.source", "vaquita.parameters")


def without(reader: gguf.GGUFReader, left_out: str, out: Path) -> None:
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name in (left_out, "general.architecture") or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def apart(path: Path, tokens: list[int]) -> np.ndarray | None:
    """The logits, by a process that may abort."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        try:
            logits = theirs(path, tokens)
            if logits is not None:
                with os.fdopen(writing, "wb") as pipe:
                    pipe.write(logits.astype(np.float32).tobytes())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    return np.frombuffer(found, np.float32).reshape(len(tokens), -1) if found else None


def main() -> None:
    vaquita, goldens, scratch = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    names = sorted(path.parent.name for path in goldens.glob("*/golden.safetensors"))
    for name in sys.argv[4:] or names:
        tokens = load_file(goldens / name / "golden.safetensors")["input_ids"][0].tolist()
        whole, changed = scratch / f"{name}.gguf", scratch / f"{name}-changed.gguf"
        subprocess.run([vaquita, "export", str(goldens / name), "-o", str(whole), "--type", "f32"], check=True, capture_output=True)
        reader = gguf.GGUFReader(whole)
        expected = apart(whole, tokens)
        record = {"positions": [], "ids": [], "logits": [], "without": {}}
        if expected is not None:
            count, vocabulary = expected.shape
            record["positions"] = [count // 2, count - 1]
            record["ids"] = [(37 * i + 11) % vocabulary for i in range(5)]

        def some(logits):
            return [round(float(logits[p, i]), 4) for p in record["positions"] for i in record["ids"]]

        record["logits"] = [] if expected is None else some(expected)
        for field in reader.fields.values():
            if field.name.startswith(OTHERS):
                continue
            without(reader, field.name, changed)
            found = apart(changed, tokens)
            if found is None or not np.isfinite(found).all():
                outcome = "error"
            elif np.abs(found - expected).max() < 1e-5:
                outcome = "same"
            else:
                outcome = some(found)
            record["without"][field.name] = outcome
        whole.unlink()
        changed.unlink()
        lines = [f'"{key}": {json.dumps(record[key], separators=(",", ":"))}' for key in ("positions", "ids", "logits")]
        keys = ",\n".join(f'"{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in record["without"].items())
        (goldens / "keys" / f"{name}.gguf.json").write_text("{\n" + ",\n".join(lines) + ',\n"without": {\n' + keys + "\n}\n}\n")
        kinds = [value if isinstance(value, str) else "logits" for value in record["without"].values()]
        print(name, {kind: kinds.count(kind) for kind in ("same", "error", "logits")}, "" if record["logits"] else "does not load", flush=True)


if __name__ == "__main__":
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    main()
