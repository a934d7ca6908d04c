"""The work that the other sides of compare.py do, whatever their library."""

import time

PROMPT, GENERATE = 256, 64


def tokens(count: int, vocabulary: int) -> list[int]:
    return [((i * 2654435761) % 2**32 >> 7) % vocabulary for i in range(count)]


def rate(count: int, prepare, work) -> float:
    """Tokens per second, after a run that warms up."""
    prepare()
    work()
    prepare()
    start = time.monotonic()
    work()
    return count / (time.monotonic() - start)


def prompt_and_decode(depth: int, decode, back) -> list[dict]:
    """A prompt and decode after `depth` positions, in vaquita's form. `decode(first, count)` decodes so many tokens at
    once, and `back()` forgets what follows `depth`."""
    for first in range(0, depth, PROMPT):
        decode(first, min(PROMPT, depth - first))

    def one_by_one() -> None:
        for at in range(depth, depth + GENERATE):
            decode(at, 1)

    at = f" @ d{depth}" if depth else ""
    return [
        {"test": f"pp{PROMPT}{at}", "avg_ts": rate(PROMPT, back, lambda: decode(depth, PROMPT))},
        {"test": f"tg{GENERATE}{at}", "avg_ts": rate(GENERATE, back, one_by_one)},
    ]
