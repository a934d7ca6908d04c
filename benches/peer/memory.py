"""Decodes with less memory than the model takes, beside llama.cpp's mmap, each in a memory cgroup of its own.

    python3 benches/peer/memory.py OURS.gguf THEIRS.gguf [--limit 3GB] [--tokens 24] [--repetitions 3] [--threads 2]
        [--prompt 512]

With `--prompt`, ours reads a prompt first. Both files come from compare.py (`shape-e4.gguf`, `shape-q4_k.gguf`). Needs root, for the cgroup (v1 or v2). The peak is the cgroup's own counter: page cache included. The page cache is
emptied before each run, and the sides take turns.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from compare import peer_python

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}


class Cgroup:
    """A memory cgroup for one command."""

    def __init__(self, limit: int):
        one = Path("/sys/fs/cgroup/memory")
        self.root = (one if one.exists() else Path("/sys/fs/cgroup")) / f"vaquita-bench-{os.getpid()}"
        self.files = (("memory.limit_in_bytes", "memory.max_usage_in_bytes") if one.exists()
                      else ("memory.max", "memory.peak"))
        self.limit = limit

    def run(self, command: list[str]) -> tuple[str, int]:
        """What it printed, and the most memory that it took."""
        self.root.mkdir()
        try:
            (self.root / self.files[0]).write_text(str(self.limit))
            enter = lambda: (self.root / "cgroup.procs").write_text(str(os.getpid()))
            done = subprocess.run(command, preexec_fn=enter, stdout=subprocess.PIPE, text=True, check=True)
            return done.stdout, int((self.root / self.files[1]).read_text())
        finally:
            self.root.rmdir()


def size(text: str) -> int:
    number, unit = re.fullmatch(r"([\d.]+)\s*([A-Za-z]+)", text).groups()
    return int(float(number) * UNITS[unit.upper()])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("ours", type=Path)
    options.add_argument("theirs", type=Path, nargs="?")
    options.add_argument("--limit", type=size, default=size("3GB"))
    options.add_argument("--tokens", type=int, default=24, help="tokens that llama.cpp decodes; ours are 200")
    options.add_argument("--prompt", type=int, default=0, help="tokens of the prompt that ours reads first")
    options.add_argument("--repetitions", type=int, default=3)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    args = options.parse_args()

    build = ["cargo", "build", "--release", "--manifest-path", str(ROOT / "Cargo.toml"), "-p", "vaquita-benches",
             "--bin", "streaming", "--message-format", "json"]
    lines = subprocess.run(build, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    streaming = next(found for line in lines if (found := json.loads(line).get("executable")))
    cgroup = Cgroup(args.limit)
    rates: dict[str, list[float]] = {"vaquita": [], "llama.cpp": []}
    for _ in range(args.repetitions):
        empty_page_cache()
        text, peak = cgroup.run([streaming, str(args.ours), "--memory", str(args.limit), "--threads", str(args.threads),
                                 "--prompt", str(args.prompt)])
        rates["vaquita"].append(float(re.search(r"decode: .* ([\d.]+) tok/s", text)[1]))
        print(text[text.index("prompt:" if args.prompt else "decode:"):].strip())
        print(f"  cgroup peak {peak / 1e6:.0f} of {args.limit / 1e6:.0f} MB", flush=True)
        if args.theirs:
            empty_page_cache()
            command = [peer_python(), str(HERE / "llama.py"), "decode", str(args.theirs),
                       str(args.threads), str(args.tokens)]
            text, peak = cgroup.run(command)
            rates["llama.cpp"].append(json.loads(text)[0]["avg_ts"])
            print(f"llama.cpp: {rates['llama.cpp'][-1]:.2f} tok/s, cgroup peak {peak / 1e6:.0f} MB", flush=True)
    ours = statistics.median(rates["vaquita"])
    print(f"median: vaquita {ours:.2f} tok/s", end="")
    if args.theirs:
        theirs = statistics.median(rates["llama.cpp"])
        print(f", llama.cpp {theirs:.2f} tok/s: {ours / theirs:.1f}x", end="")
    print()


def empty_page_cache() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


if __name__ == "__main__":
    sys.exit(main())
