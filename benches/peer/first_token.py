"""Measures the time from start to the first token beside llama.cpp, with the files in the page cache.

    python3 benches/peer/first_token.py [--threads 2] [--pairs 7] MODEL.gguf...

A model may be `OURS=THEIRS`, two files of the same weights. vaquita's time is that of the whole process `vaquita run`, from
its start to its end, with a prompt of about 16 tokens and one token of answer; llama.cpp's begins in a process that has
loaded its libraries, and ends with the first token. Both map the file. Prints medians of pairs in turns.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

from compare import HERE, ROOT, peer_python, run, timed

TEXT = "The capital of France is a city called Paris, which lies on the"


def read(path: str) -> None:
    """Brings a file into the page cache."""
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("models", nargs="+", metavar="MODEL.gguf")
    args = parser.parse_args()
    python, vaquita = peer_python(), os.environ.get("VAQUITA", ROOT / "target/release/vaquita")
    print("| model | MB | vaquita, s | llama.cpp, s | vaquita's share |\n|---|---|---|---|---|")
    for model in args.models:
        ours, _, theirs = model.partition("=")
        theirs = theirs or ours
        read(ours), read(theirs)
        times = []
        for _ in range(args.pairs):
            mine, _ = timed(vaquita, "run", ours, "--raw", "-t", args.threads, "-n", 1, "-p", TEXT)
            (row,) = json.loads(run(python, HERE / "llama.py", "first", theirs, args.threads, TEXT).splitlines()[-1])
            times.append((mine, row["seconds"]))
        mine, other = (statistics.median(column) for column in zip(*times))
        share = statistics.median(a / b for a, b in times)
        name, size = Path(ours).stem, os.path.getsize(ours) / 1e6
        print(f"| {name} | {size:.0f} | {mine:.3f} | {other:.3f} | {share:.2f} |")


if __name__ == "__main__":
    main()
