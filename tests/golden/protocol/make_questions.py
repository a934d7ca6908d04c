"""Makes question files in the formats of published data sets from questions that the reference model
knows: aime.jsonl, math.jsonl, mmlu.jsonl, gsm8k.jsonl and alpaca.jsonl. Run in this folder."""

import json
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS = [json.loads(line) for line in (HERE / "../../../calibration/reference/eval.jsonl").open(encoding="utf-8")]


def of(task: str, count: int) -> list[dict]:
    return [row for row in ROWS if row["task"] == task][:count]


def write(name: str, rows: list[dict]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (HERE / name).write_text("".join(lines), encoding="utf-8")


def boxed(row: dict, form: str) -> dict:
    solution = f"Digit by digit. The answer is $\\boxed{{{form}}}$."
    return {"problem": row["question"], "solution": solution, "level": "Level 1", "type": row["task"]}


def math() -> list[dict]:
    """Right answers in other forms than the model's."""
    rows = [boxed(row, f"\\frac{{{2 * int(row['answer'])}}}{{2}}") for row in of("add", 4)]
    rows += [boxed(row, f"{int(row['answer']):,}") for row in of("mul", 4)]
    rows += [boxed(row, row["answer"].replace(" ", "\\text{ ") + "}") for row in of("unit", 4)]
    return rows


def choice(row: dict) -> dict:
    question, *choices = row["question"].split("\n")
    choices = [line.split(". ", 1)[1] for line in choices]
    subject = re.search(r"is an? (\w+)", question)[1]
    return {"question": question, "subject": subject, "choices": choices, "answer": "ABCD".index(row["answer"])}


def calculation(row: dict) -> dict:
    number = re.search(r"\d+", row["answer"])[0]
    return {"question": row["question"], "answer": f"Digit by digit.\n#### {number}"}


numbers = of("add", 4) + of("sub", 4) + of("mul", 4)
aime = [{"id": i, "problem": row["question"], "answer": row["answer"]} for i, row in enumerate(numbers)]
write("aime.jsonl", aime)
write("math.jsonl", math())
write("mmlu.jsonl", [choice(row) for row in of("choice", 30)])
write("gsm8k.jsonl", [calculation(row) for row in of("word", 6) + of("share", 6)])
write("alpaca.jsonl", [{"dataset": "own", "instruction": row["question"]} for row in of("story", 3) + of("capital", 3)])
