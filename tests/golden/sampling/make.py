#!/usr/bin/env python3
"""Makes cases.json: logits after penalties, log-probabilities and tokens that filters keep, computed from the definitions in
docs/sampling.md, in double precision and in the most direct way. Needs Python 3.9 alone: python3 make.py > cases.json"""

import json
import math
import random

VOCABULARY = 12


def penalized(logits, history, o):
    logits = list(logits)
    for token, bias in o["logit_bias"]:
        logits[token] += bias
    recent = history[max(0, len(history) - o["repetition_window"]):]
    for token in set(recent):
        count = recent.count(token)
        x = logits[token]
        x = x / o["repetition_penalty"] if x > 0 else x * o["repetition_penalty"]
        logits[token] = x - count * o["frequency_penalty"] - o["presence_penalty"]
    return dry(logits, history, o)


def dry(logits, history, o):
    window = o["dry_window"] or len(history)
    tokens = history[max(0, len(history) - window):]
    length = {}
    for last in range(len(tokens) - 1):
        n = 0
        while n <= last and tokens[last - n] == tokens[len(tokens) - 1 - n]:
            n += 1
        if n >= o["dry_allowed_length"]:
            follower = tokens[last + 1]
            length[follower] = max(n, length.get(follower, 0))
    for token, n in length.items():
        logits[token] -= o["dry_multiplier"] * o["dry_base"] ** (n - o["dry_allowed_length"])
    return logits


def logprobs(logits):
    best = max(logits)
    norm = best + math.log(sum(math.exp(x - best) for x in logits))
    return [x - norm for x in logits]


def kept(logits, o):
    """Tokens that temperature, top-k, top-p, min-p and a certain XTC leave."""
    weight = {t: math.exp((x - max(logits)) / o["temperature"]) for t, x in enumerate(logits)}
    order = sorted(weight, key=lambda t: (-weight[t], t))
    order = order[:o["top_k"] or None]
    total, reached, some = sum(weight[t] for t in order), [], 0.0
    for t in order:
        reached.append(t)
        some += weight[t]
        if o["top_p"] < 1 and some >= o["top_p"] * total:
            break
    order = [t for t in reached if weight[t] >= o["min_p"] * weight[reached[0]]]
    if o["xtc_probability"] == 1 and o["xtc_threshold"] <= 0.5:
        p = {t: math.exp(logits[t]) for t in order}
        top = [t for t in order if p[t] >= o["xtc_threshold"] * sum(p.values())]
        order = [t for t in order if t not in top[:-1]]
    return sorted(order)


def case(rng):
    pick = rng.choice
    o = {
        "temperature": pick([0.5, 1.0, 1.5]),
        "top_k": pick([0, 0, 5]),
        "top_p": pick([1.0, 0.9, 0.7]),
        "min_p": pick([0.0, 0.05]),
        "xtc_probability": pick([0.0, 1.0]),
        "xtc_threshold": pick([0.05, 0.1, 0.2, 0.6]),
        "repetition_penalty": pick([1.0, 1.25]),
        "presence_penalty": pick([0.0, 0.5, -0.25]),
        "frequency_penalty": pick([0.0, 0.75]),
        "repetition_window": pick([4, 64]),
        "dry_multiplier": pick([0.0, 0.5]),
        "dry_base": 1.75,
        "dry_allowed_length": pick([1, 2]),
        "dry_window": pick([0, 6]),
        "logit_bias": pick([[], [[1, 2.5], [3, -1.0]]]),
    }
    logits = [rng.randrange(-40, 40) / 8 for _ in range(VOCABULARY)]
    # Few kinds of tokens, so that they repeat.
    history = [rng.randrange(4) for _ in range(rng.randrange(16))]
    after = penalized(logits, history, o)
    return {"options": o, "logits": logits, "history": history, "penalized": after,
            "logprobs": logprobs(logits), "kept": kept(after, o)}


def main():
    rng = random.Random(1)
    print("[\n" + ",\n".join(json.dumps(case(rng)) for _ in range(60)) + "\n]")


main()
