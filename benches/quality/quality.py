"""Mean KL divergence from the unquantized model at true bits per weight: ours beside llama.cpp's types.

    python3 benches/quality/quality.py [--work FOLDER] [--threads 2] [--svg docs/quality.svg]

Quantizes the reference model in calibration/reference with both, from the same source and with the same statistics of
the same calibration text, and compares the logits over the held-out text, token for token. Both sides leave out the
MTP layer and the tokenizer, so that bits per weight are those of the same weights. Prints the tables of
docs/measurements-quality.md and draws the chart. Installs `llama-cpp-python`, `gguf` and `numpy` from PyPI into a virtual
environment (llama.cpp is built from source: a compiler, cmake and about 15 minutes); then it takes some 10 minutes.
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "peer"))
TARGETS = [2.6, 2.77, 2.9, 3.0, 3.13, 3.25, 3.5, 4.0, 4.25, 4.5, 5.0]
UNIFORM = ["e2", "e3", "e4", "e8"]


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
    return done.stdout


def safetensors(path: Path) -> dict:
    import numpy as np

    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    dtypes = {"F32": np.float32, "F64": np.float64, "U64": np.uint64}
    tensors = {}
    for name, info in header.items():
        if name != "__metadata__":
            start, end = (8 + length + at for at in info["data_offsets"])
            tensors[name] = np.frombuffer(data[start:end], dtypes[info["dtype"]]).reshape(info["shape"])
    return tensors


def log_softmax(logits):
    import numpy as np

    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def compare(reference: list, logits) -> dict:
    """Divergence from the reference's log-probabilities; `logits` gives those of a document by its number."""
    import numpy as np

    divergences, same = [], 0
    for at, theirs in enumerate(reference):
        ours = log_softmax(logits(at))
        divergences.append((np.exp(theirs) * (theirs - ours)).sum(axis=-1).clip(0))
        same += (ours.argmax(axis=-1) == theirs.argmax(axis=-1)).sum()
    all_tokens = np.concatenate(divergences)
    return {
        "kld": all_tokens.mean(),
        "error": all_tokens.std(ddof=1) / len(all_tokens) ** 0.5,
        "p99": np.quantile(all_tokens, 0.99),
        "same_top": same / len(all_tokens),
        "tokens": len(all_tokens),
    }


class Ours:
    """The program, the source and its calibration, in a folder of work."""

    def __init__(self, work: Path, threads: int):
        self.work, self.threads = work, threads
        run("cargo", "build", "--release", "--manifest-path", ROOT / "Cargo.toml")
        target = json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1",
                                "--manifest-path", ROOT / "Cargo.toml"))["target_directory"]
        # A copy: a build meanwhile changes nothing.
        self.program = Path(shutil.copy(Path(target) / "release" / "vaquita", work))
        self.source = work / "reference"
        self.bare = work / "reference-bare"  # without tokenizer
        for folder in (self.source, self.bare):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
                if folder == self.source or not name.startswith("tokenizer"):
                    (folder / name).symlink_to(ROOT / "calibration" / "reference" / name)
            config = json.loads((ROOT / "calibration" / "reference" / "config.json").read_text())
            config["num_nextn_predict_layers"] = 0
            (folder / "config.json").write_text(json.dumps(config))
        self.calibration = work / "reference.calibration"
        text = ROOT / "calibration" / "reference" / "calibration.jsonl"
        run(self.program, "calibrate", self.source, "--text", text, "-o", self.calibration, "--threads", threads)

    def documents(self) -> list[list[int]]:
        """The held-out texts as tokens, each after the begin-of-sentence token."""
        lines = (ROOT / "calibration" / "reference" / "heldout.jsonl").read_text().splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        return [json.loads(run(self.program, "tokenize", self.source, text, "--json"))["ids"] for text in texts]

    def quantize(self, out: Path, *options: object) -> float:
        """Writes a file and gives its bits per weight."""
        report = json.loads(run(self.program, "quantize", self.bare, "-o", out, "--calibration", self.calibration,
                                "--json", "--threads", self.threads, *options))
        return report["bits_per_weight"]

    def logits(self, model: Path, tokens: list[int]):
        out = self.work / "logits.safetensors"
        ids = ",".join(str(token) for token in tokens)
        run(self.program, "eval", "logits", model, "--tokens", ids, "-o", out, "--threads", self.threads)
        return safetensors(out)["logits"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, default=ROOT / "target" / "quality")
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--limit", type=int, help="only the first documents")
    options.add_argument("--svg", type=Path)
    args = options.parse_args()
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        from compare import peer_python

        python = peer_python()
        os.execv(python, [python, *sys.argv])
    import chart
    import theirs

    args.work.mkdir(parents=True, exist_ok=True)
    ours = Ours(args.work, args.threads)
    documents = ours.documents()[: args.limit]
    inputs = [document[:-1] for document in documents]
    reference = [log_softmax(ours.logits(ours.source, tokens)) for tokens in inputs]
    rows = []

    def add(side: str, name: str, bits: float, logits, types: str = "") -> None:
        rows.append({"side": side, "name": name, "bits": bits, "types": types, **compare(reference, logits)})
        row = rows[-1]
        print(f"{side:<10} {name:<22} {bits:6.3f} bits/weight  KLD {row['kld']:.6f} ± {row['error']:.6f}  "
              f"p99 {row['p99']:.5f}  same top {row['same_top']:.2%}  {types}", flush=True)

    file = args.work / "ours.gguf"
    plans = [(f"--type {ty}", ("--type", ty)) for ty in UNIFORM]
    plans += [(f"mixed {bits}", ("--plan", "mixed", "--target-bpw", bits)) for bits in TARGETS]
    for name, plan in plans:
        try:
            bits = ours.quantize(file, *plan)
        except RuntimeError as error:
            print(f"vaquita    {name}: {str(error).strip().splitlines()[-1]}")
            continue
        add("vaquita", name, bits, lambda at: ours.logits(file, inputs[at]))

    plain = args.work / "reference.gguf"
    run(sys.executable, HERE.parent / "peer" / "to_gguf.py", ours.source, plain)
    weights = json.loads(run(ours.program, "inspect", plain, "--json"))["parameters"]
    matrix = theirs.importance_matrix(safetensors(ours.calibration), plain)
    model = theirs.Model(plain, args.threads)
    add("llama.cpp", "unquantized", 8 * plain.stat().st_size / weights, lambda at: model.logits(inputs[at]))
    model.close()
    for name, ftype in theirs.TYPES.items():
        out = args.work / f"theirs-{name}.gguf"
        theirs.quantize(plain, out, ftype, matrix, args.threads)
        model = theirs.Model(out, args.threads)
        add("llama.cpp", name, 8 * out.stat().st_size / weights, lambda at: model.logits(inputs[at]), theirs.types_of(out))
        model.close()

    rows.sort(key=lambda row: row["bits"])
    print(f"\n{rows[0]['tokens']} tokens, {time.strftime('%Y-%m-%d')}\n")
    print("| | file, bits per weight | mean KLD | 99th percentile | same top token |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['side']} {row['name']} | {row['bits']:.3f} | {row['kld']:.6f} ± {row['error']:.6f} "
              f"| {row['p99']:.5f} | {row['same_top']:.2%} |")
    if args.svg:
        args.svg.write_text(chart.draw(rows))


if __name__ == "__main__":
    sys.exit(main())
