"""Counts the instructions per weight of each kernel on ARM processors, under emulation: where nothing can be timed, this
is what tells kernels apart.

    python3 benches/arm/count.py [--peer LLAMA_CPP]

Needs `gcc-aarch64-linux-gnu`, `g++-aarch64-linux-gnu`, `qemu-user-static` and Rust's aarch64-unknown-linux-gnu. With the
sources of llama.cpp (`pip download --no-deps --no-binary llama-cpp-python llama-cpp-python` has them in `vendor/llama.cpp`),
ggml's kernels are compiled for the same processors and counted in the same way. A count is the difference between a run
with three repetitions and one with one: beginning and end of the program drop out. Activations are quantized beforehand.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = "aarch64-unknown-linux-gnu"
ROWS, COLS = 16, 2048
PROMPT = 64
HEADS, WIDTH = 2, 128
STATES = ["delta", "kda", "ssd"]
TYPES = ["e2", "e3", "e4", "e8", "f16", "q2_k", "q3_k", "q4_0", "q4_k", "q6_k", "q8_0"]

# What the emulator calls the processor, what it is to gcc, and how ggml packs rows there (`ggml_repack_get_optimal_repack_type`).
CPUS = [
    ("cortex-a72", "-mcpu=cortex-a72", []),
    ("cortex-a76", "-mcpu=cortex-a76", ["q4_0_4x4", "q4_K_8x4", "q8_0_4x4"]),
    ("max", "-march=armv8.6-a", ["q4_0_4x8", "q4_K_8x8", "q8_0_4x8"]),
]
DOTS = ["q2_K", "q3_K", "q4_0", "q4_K", "q8_0"]


def run(*command: object, **options) -> str:
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def instructions(cpu: str, *command: object) -> int:
    """Instructions that a program executes: one line each in the emulator's log."""
    emulate = ["qemu-aarch64-static", "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu", "-d", "exec,nochain", ONE_BY_ONE]
    child = subprocess.Popen([*emulate, *map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    count = int(subprocess.check_output(["grep", "-c", "^Trace"], stdin=child.stderr))
    assert child.wait() == 0, command
    return count


def per_unit(cpu: str, program: Path, kernel: str, rows: int, cols: int, tokens: int, units: int) -> str:
    once, thrice = (instructions(cpu, program, kernel, rows, cols, tokens, n) for n in (1, 3))
    return f"{(thrice - once) / 2 / (units * tokens):.3f}"


def per_weight(cpu: str, program: Path, kernel: str, tokens: int) -> str:
    return per_unit(cpu, program, kernel, ROWS, COLS, tokens, ROWS * COLS)


def ours() -> Path:
    linker = {f"CARGO_TARGET_{TARGET.upper().replace('-', '_')}_LINKER": "aarch64-linux-gnu-gcc"}
    build = ["cargo", "build", "--profile", "release-lib", "--target", TARGET, "-p", "vaquita-benches", "--bin", "one-kernel"]
    run(*build, cwd=ROOT, env={**os.environ, **linker})
    metadata = json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1", cwd=ROOT))
    return Path(metadata["target_directory"]) / TARGET / "release-lib" / "one-kernel"


def theirs(llama: Path, flags: str, out: Path) -> Path:
    """ggml's kernels, without the rest of it: what they do not call is thrown away when linking."""
    ggml = llama / "ggml"
    cpu = ggml / "src" / "ggml-cpu"
    sources = [cpu / "quants.c", cpu / "arch/arm/quants.c", cpu / "repack.cpp", cpu / "arch/arm/repack.cpp"]
    objects = []
    for source in [*sources, Path(__file__).with_name("peer.cpp")]:
        compiler = "aarch64-linux-gnu-gcc" if source.suffix == ".c" else "aarch64-linux-gnu-g++"
        objects.append(out / (str(source.relative_to(source.parents[2])).replace("/", "-") + ".o"))
        folders = [f"-I{folder}" for folder in (ggml / "include", ggml / "src", cpu)]
        run(compiler, "-O3", "-DNDEBUG", flags, "-ffunction-sections", "-fdata-sections", *folders, "-c", source, "-o", objects[-1])
    program = out / "peer"
    run("aarch64-linux-gnu-g++", "-Wl,--gc-sections", *objects, "-o", program, "-lm")
    return program


def table(cpu: str, rows: list[tuple[str, Path, str]]) -> None:
    print(f"\n| {cpu} | decode | prompt of {PROMPT} |\n|---|---|---|")
    for name, program, kernel in rows:
        print(f"| {name} | {per_weight(cpu, program, kernel, 1)} | {per_weight(cpu, program, kernel, PROMPT)} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--peer", type=Path, metavar="LLAMA_CPP", help="a folder with the sources of llama.cpp")
    args = options.parse_args()
    program = ours()
    for cpu, flags, packed in CPUS:
        rows = [(f"`{ty}`", program, ty) for ty in TYPES]
        with tempfile.TemporaryDirectory() as folder:
            if args.peer:
                peer = theirs(args.peer.resolve(), flags, Path(folder))
                rows += [(f"ggml `{kernel}`", peer, kernel) for kernel in DOTS + packed]
            table(cpu, rows)
        print(f"\n| {cpu} | per element of a state and token |\n|---|---|")
        for kernel in STATES:
            print(f"| `{kernel}` | {per_unit(cpu, program, kernel, HEADS, WIDTH, 1, HEADS * WIDTH**2)} |", flush=True)


# Newer versions of the emulator have another name for it.
ONE_BY_ONE = "-one-insn-per-tb" if "-one-insn-per-tb" in run("qemu-aarch64-static", "--help") else "-singlestep"

if __name__ == "__main__":
    main()
