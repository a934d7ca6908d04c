"""Measures vaquita beside llama.cpp, in one run on one machine: quantizing, reading a prompt, generating.

    python3 benches/peer/compare.py [--work FOLDER] [--layers 14] [--repetitions 5] [--threads 2]

Installs `llama-cpp-python` from PyPI (it builds llama.cpp from source: a compiler, cmake and about 15 minutes), makes a
checkpoint in the shape of DeepSeek-V2-Lite (14 layers: 15.6 GB, and as much again for a while), quantizes it with both,
and prints medians and ratios. Both sides do the same work with the same threads, turn by turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run(*command: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def timed(*command: object) -> tuple[float, int]:
    """Seconds, and the peak resident bytes, of a command."""
    start = time.monotonic()
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, command
    return time.monotonic() - start, usage.ru_maxrss * 1024


def environment(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    try:
        run(python, "-c", "import llama_cpp, gguf, numpy")
    except subprocess.CalledProcessError:
        run(python, "-m", "pip", "install", "-q", "llama-cpp-python", "gguf", "numpy")
    return python


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, default=ROOT / "target" / "peer")
    options.add_argument("--venv", type=Path, default=HERE / ".venv")
    options.add_argument("--layers", type=int, default=14)
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--low-bits", type=float, default=2.5, help="bits per weight of the experts' low-bit plan")
    args = options.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    run("cargo", "build", "--release", "--manifest-path", ROOT / "Cargo.toml")
    target = Path(json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1",
                                 "--manifest-path", ROOT / "Cargo.toml"))["target_directory"])
    vaquita = target / "release" / "vaquita"
    python = environment(args.venv)

    checkpoint = args.work / f"shape-{args.layers}"
    if not (checkpoint / "model.safetensors.index.json").exists():
        run(python, HERE / "make_shape.py", checkpoint, args.layers)
    plain, peer = args.work / "shape-bf16.gguf", args.work / "shape-q4_k.gguf"
    peer_seconds = None
    if not peer.exists():
        if not plain.exists():
            run(python, HERE / "to_gguf.py", checkpoint, plain)
        peer_seconds = timed(python, HERE / "llama.py", "quantize", plain, peer, args.threads)
        plain.unlink()
    ours = {"e4": args.work / "shape-e4.gguf", "low": args.work / "shape-low.gguf"}
    our_seconds = timed(vaquita, "quantize", checkpoint, "-o", ours["e4"], "--threads", args.threads)
    if not ours["low"].exists():
        run(vaquita, "quantize", checkpoint, "-o", ours["low"], "--plan", "mixed",
            "--target-bpw", args.low_bits, "--threads", args.threads)

    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(args.repetitions):
        for name, command in {
            "llama.cpp Q4_K": (python, HERE / "llama.py", "bench", peer, args.threads),
            "vaquita Q4_K": (vaquita, "bench", peer, "-r", 1, "-o", "json", "--threads", args.threads),
            "vaquita e4": (vaquita, "bench", ours["e4"], "-r", 1, "-o", "json", "--threads", args.threads),
            "vaquita low": (vaquita, "bench", ours["low"], "-r", 1, "-o", "json", "--threads", args.threads),
        }.items():
            for row in json.loads(run(*command)):
                rates.setdefault((name, row["test"]), []).append(row["avg_ts"])

    print(f"threads {args.threads}, {args.repetitions} repetitions, medians; {time.strftime('%Y-%m-%d')}")
    bits = {name: json.loads(run(vaquita, "inspect", path, "--json"))["bits_per_weight"] for name, path in
            {"llama.cpp Q4_K": peer, "vaquita Q4_K": peer, "vaquita e4": ours["e4"], "vaquita low": ours["low"]}.items()}
    for test in ("pp256", "tg64"):
        base = statistics.median(rates["llama.cpp Q4_K", test])
        for name, value in bits.items():
            rate = statistics.median(rates[name, test])
            print(f"{test:>6}  {name:<15} {value:5.2f} bits/weight  {rate:8.2f} tokens/s  {rate / base:5.2f}x")
    print(f"quantize vaquita e4      {our_seconds[0]:7.1f} s  peak {our_seconds[1] / 2**30:.2f} GiB")
    if peer_seconds:
        ratio = peer_seconds[0] / our_seconds[0]
        print(f"quantize llama.cpp Q4_K  {peer_seconds[0]:7.1f} s  peak {peer_seconds[1] / 2**30:.2f} GiB  ({ratio:.2f}x our time)")


if __name__ == "__main__":
    sys.exit(main())
