"""Makes verdicts.json, verdicts that a judge could have given, and win_rates.json, the win rates of
them: those of scikit-learn without AlpacaEval's penalty, and those of alpaca_eval 0.6.6 itself, whose
downloads (difficulties, versions of the baseline) are replaced by those here.
Needs numpy, pandas, patsy, scikit-learn and the file glm_winrate.py of alpaca_eval. Usage:
make_verdicts.py GLM_WINRATE"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).resolve().parent
COUNT = 200


def verdicts() -> list[dict]:
    """Longer outputs win more often, and difficult instructions less."""
    draw = np.random.default_rng(5)
    rows = []
    for index in range(COUNT):
        lengths = draw.integers(1, 60, 2)
        difficulty = round(float(draw.normal()), 3)
        logit = 0.3 + 1.2 * np.tanh((lengths[1] - lengths[0]) / 24) - 0.5 * difficulty
        preference = 1 + (draw.random() < 1 / (1 + np.exp(-logit)))
        preference = {7: 1.5, 8: 0.0}.get(index % 50, float(preference))
        # A judge that gives probabilities.
        preference = 1 + round(float(draw.random()), 2) if index % 50 == 9 else preference
        rows.append({"index": index, "output_1": "é" * int(lengths[0]), "output_2": "w" * int(lengths[1]),
                     "generator_1": "baseline", "generator_2": "model", "preference": preference,
                     "instruction_difficulty": difficulty})
    return rows


def anchors(rows: list[dict]) -> list[dict]:
    """Two versions of the baseline, one brief and one long."""
    draw = np.random.default_rng(6)
    found = []
    for sign in (-1, 1):
        for row in rows:
            delta = round(float(sign * abs(draw.normal())), 3)
            wins = 1 / (1 + np.exp(1.2 * np.tanh(delta)))
            found.append({"index": row["index"], "preference": round(float(wins), 3), "std_delta_len": delta,
                          "instruction_difficulty": row["instruction_difficulty"], "not_gamed_baseline": False})
    return found


def features(rows: list[dict], found: list[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    delta = np.array([len(row["output_1"]) - len(row["output_2"]) for row in rows], float)
    delta /= delta.std(ddof=1)
    difficulty = np.array([row["instruction_difficulty"] for row in rows + found])
    wins = np.array([1.5 if row["preference"] == 0 else row["preference"] for row in rows]) - 1
    wins = np.concatenate([wins, [row["preference"] for row in found]])
    delta = np.concatenate([delta, [row["std_delta_len"] for row in found]])
    model = np.arange(len(delta)) < len(rows)
    x = np.column_stack([np.tanh(delta), difficulty, model.astype(float)])
    return x, wins, np.where(model, 1.0, 0.1), model


def unpenalized(rows: list[dict], found: list[dict], columns: list[int]) -> float:
    x, wins, weight, model = features(rows, found)
    x = x[:, columns]
    fit = LogisticRegression(C=1e4, fit_intercept=False, tol=1e-12, max_iter=10000)
    both = np.concatenate([np.ones(len(wins)), np.zeros(len(wins))])
    fit.fit(np.vstack([x, x]), both, np.concatenate([weight * wins, weight * (1 - wins)]))
    even = x[model].copy()
    even[:, 0] = 0
    return float(fit.predict_proba(even)[:, 1].mean())


def alpaca_eval(path: str, rows: list[dict], found: list[dict]) -> float:
    package = types.ModuleType("alpaca_eval")
    package.__path__ = []
    package.constants = types.SimpleNamespace(DATASETS_TOKEN=None, DATASETS_FORCE_DOWNLOAD=False, DEFAULT_CACHE_DIR=None)
    package.types = types.SimpleNamespace(AnyLoadableDF=object)
    package.utils = types.SimpleNamespace(convert_to_dataframe=pd.DataFrame)
    metrics = types.ModuleType("alpaca_eval.metrics")
    metrics.__path__ = []
    winrate = types.ModuleType("alpaca_eval.metrics.winrate")
    winrate.get_winrate = lambda annotations: {"win_rate": 50.0}
    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = lambda **_: "anchors.csv"
    modules = [package, metrics, winrate, hub]
    sys.modules.update({module.__name__: module for module in modules})
    table = pd.DataFrame(found).assign(model="baseline")
    pd.read_csv = lambda *_, **__: table
    spec = importlib.util.spec_from_file_location("alpaca_eval.metrics.glm_winrate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.get_length_controlled_winrate(pd.DataFrame(rows), save_weights_dir=None)
    return found["length_controlled_winrate"] / 100


def main() -> None:
    rows = verdicts()
    found = anchors(rows)
    plain = np.array([1.5 if row["preference"] == 0 else row["preference"] for row in rows]) - 1
    rates = {
        "win_rate": float(plain.mean()),
        "win_rate_se": float(plain.std(ddof=1) / np.sqrt(len(plain))),
        "without_anchors": unpenalized(rows, [], [0, 1, 2]),
        "without_difficulty": unpenalized(rows, [], [0, 2]),
        "with_anchors": unpenalized(rows, found, [0, 1, 2]),
        "alpaca_eval": alpaca_eval(sys.argv[1], rows, found),
    }
    (HERE / "verdicts.json").write_text(json.dumps(rows, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in found)
    (HERE / "anchors.jsonl").write_text(lines, "utf-8")
    (HERE / "win_rates.json").write_text(json.dumps(rates, indent=1) + "\n", "utf-8")
    print(rates)


main()
