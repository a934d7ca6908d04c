"""Measures vaquita beside llama.cpp, in one run on one machine: quantizing, reading a prompt, generating.

    python3 benches/peer/compare.py [--shape v2-lite] [--work FOLDER] [--layers 14] [--repetitions 5] [--threads 1,2]
        [--depths 0,4096] [--sequences 2,4] [--types iq2_xxs,iq3_s] [--ik CHECKOUT]

Takes llama.cpp as `.ci/peer --only-make` provides it, or a Python that VAQUITA_PEER names; makes a checkpoint in the
shape of DeepSeek-V2-Lite (14 layers: 15.6 GB, and as much again for a while) and quantizes it with both, or in the shape
of Qwen3.6-35B-A3B (`--shape qwen3.6`, 1.7 GB a layer), which `vaquita export` writes for llama.cpp in Q4_K; and prints
medians and ratios. Both sides do the same work with the same threads, turn by turn. The rate of plain reads
is measured between them, in the same run. `--types` adds files with random blocks of these types. `--ik` adds
ik_llama.cpp, from a checkout of it that is built in its folder `build`, for this processor (`cmake -B build
-DGGML_NATIVE=ON && cmake --build build --target llama`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import work

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


def peer_python() -> str:
    """The Python that has llama.cpp."""
    return run(ROOT / ".ci" / "peer", "--only-make").splitlines()[-1]


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def plain_reads(roofline: Path, threads: int) -> float:
    """Rate in GB/s at which memory is read."""
    first = run(roofline, threads, "none").splitlines()[0]
    return float(first.split(" at ")[1].split()[0])


def ik_program(checkout: Path, folder: Path) -> Path:
    """ik.c with the library of a checkout."""
    library, program = checkout / "build" / "src", folder / "ik"
    run("cc", "-O2", "-o", program, HERE / "ik.c", f"-I{checkout}/include", f"-I{checkout}/ggml/include",
        f"-L{library}", "-lllama", f"-Wl,-rpath,{library}", f"-Wl,-rpath-link,{checkout}/build/ggml/src")
    return program


def v2_lite(args: argparse.Namespace, python: str, _vaquita: Path) -> tuple[Path, Path, tuple[float, int] | None]:
    """The checkpoint, llama.cpp's file, and what quantizing that took where it was done."""
    checkpoint = args.work / f"shape-{args.layers}"
    if not (checkpoint / "model.safetensors.index.json").exists():
        run(python, HERE / "make_shape.py", checkpoint, args.layers)
    plain, peer, cost = args.work / "shape-bf16.gguf", args.work / "shape-q4_k.gguf", None
    if not peer.exists():
        if not plain.exists():
            run(python, HERE / "to_gguf.py", checkpoint, plain)
        cost = timed(python, HERE / "llama.py", "quantize", plain, peer, max(args.threads))
        plain.unlink()
    return checkpoint, peer, cost


def qwen36(args: argparse.Namespace, python: str, vaquita: Path) -> tuple[Path, Path, None]:
    checkpoint, peer = args.work / f"qwen36-{args.layers}", args.work / "shape-q4_k.gguf"
    if not (checkpoint / "model.safetensors").exists():
        run(python, HERE / "make_qwen36.py", checkpoint, args.layers)
    if not peer.exists():
        run(vaquita, "export", checkpoint, "-o", peer, "--type", "q4_k")
    return checkpoint, peer, None


SHAPES = {"v2-lite": v2_lite, "qwen3.6": qwen36}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--shape", choices=SHAPES, default="v2-lite")
    options.add_argument("--work", type=Path, default=ROOT / "target" / "peer")
    options.add_argument("--layers", type=int, default=14)
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--threads", type=numbers, default=[os.cpu_count()], help="1,2")
    options.add_argument("--depths", type=numbers, default=[0], help="positions before prompt and decode: 0,4096")
    options.add_argument("--sequences", type=numbers, default=[], help="also decode in so many sequences, at depth 0: 2,4")
    options.add_argument("--types", type=lambda text: text.split(","), default=[], help="more files of these types of blocks")
    options.add_argument("--ik", type=Path, help="a checkout of ik_llama.cpp that is built, to measure it as well")
    options.add_argument("--low-bits", type=float, default=2.5, help="bits per weight of the experts' low-bit plan")
    args = options.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    run("cargo", "build", "--release", "--workspace", "--all-targets", "--manifest-path", ROOT / "Cargo.toml")
    target = Path(json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1",
                                 "--manifest-path", ROOT / "Cargo.toml"))["target_directory"])
    vaquita = target / "release" / "vaquita"
    python = peer_python()

    most = max(args.threads)
    checkpoint, peer, peer_seconds = SHAPES[args.shape](args, python, vaquita)
    ours = {"e4": args.work / "shape-e4.gguf", "low": args.work / "shape-low.gguf"}
    our_seconds = timed(vaquita, "quantize", checkpoint, "-o", ours["e4"], "--threads", most)
    if not ours["low"].exists():
        run(vaquita, "quantize", checkpoint, "-o", ours["low"], "--plan", "mixed",
            "--target-bpw", args.low_bits, "--threads", most)

    files = {"llama.cpp Q4_K": peer, "vaquita Q4_K": peer, "vaquita e4": ours["e4"], "vaquita low": ours["low"]}
    if args.ik:
        files["ik_llama.cpp Q4_K"] = peer
        ik = ik_program(args.ik.resolve(), args.work)
    for ty in args.types:
        path = args.work / f"shape-{ty}.gguf"
        if not path.exists():
            run(python, HERE / "retype.py", peer, path, ty)
        files |= {f"llama.cpp {ty}": path, f"vaquita {ty}": path}
    bits = {name: json.loads(run(vaquita, "inspect", path, "--json"))["bits_per_weight"] for name, path in files.items()}
    for threads in args.threads:
        rates: dict[str, dict[str, list[float]]] = {}
        reads: list[float] = []
        for _ in range(args.repetitions):
            for depth in args.depths:
                several = args.sequences if depth == 0 else []
                reads.append(plain_reads(target / "release" / "roofline", threads))
                for name, path in files.items():
                    if name.startswith("llama.cpp"):
                        commands = [(python, HERE / "llama.py", "bench", path, threads, depth, *several)]
                    elif name.startswith("ik_llama.cpp"):
                        commands = [(ik, path, threads, depth, work.PROMPT, work.GENERATE)]
                    else:
                        bench = (vaquita, "bench", path, "-r", 1, "-o", "json", "--threads", threads)
                        commands = [(*bench, "-d", depth), *((*bench, "-p", 0, "-n", 64, "--sequences", k) for k in several)]
                    found: dict[str, float] = {}
                    for command in commands:
                        for row in json.loads(run(*command)):
                            found.setdefault(row["test"], row["avg_ts"])
                    for test, value in found.items():
                        rates.setdefault(test, {}).setdefault(name, []).append(value)
        print(f"\nthreads {threads}, {args.repetitions} repetitions, medians; plain reads {statistics.median(reads):.1f} GB/s; "
              f"{time.strftime('%Y-%m-%d')}")
        for test, of_test in rates.items():
            for name, values in of_test.items():
                rate = statistics.median(values)
                same = f"llama.cpp {name.split()[1]}"
                base = statistics.median(of_test.get(same) or of_test["llama.cpp Q4_K"])
                print(f"{test:>15}  {name:<18} {bits[name]:5.2f} bits/weight  {rate:8.2f} tokens/s  {rate / base:5.2f}x")
    print(f"quantize vaquita e4      {our_seconds[0]:7.1f} s  peak {our_seconds[1] / 2**30:.2f} GiB")
    if peer_seconds:
        ratio = peer_seconds[0] / our_seconds[0]
        print(f"quantize llama.cpp Q4_K  {peer_seconds[0]:7.1f} s  peak {peer_seconds[1] / 2**30:.2f} GiB  ({ratio:.2f}x our time)")


if __name__ == "__main__":
    sys.exit(main())
