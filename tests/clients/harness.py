"""lm-evaluation-harness against the server, and `vaquita eval protocol`, on the same local files: accuracies, exact
matches and log-likelihoods are equal. SERVER is the address of a server of the model MODEL; VAQUITA names the
program."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OPENAI_API_KEY", "none")

import lm_eval
from lm_eval.tasks import TaskManager

SERVER, MODEL, VAQUITA = os.environ["SERVER"], os.environ["MODEL"], os.environ["VAQUITA"]
# Texts begin with this token. The harness adds it where the tokenizer's own rules do, which those of this model don't.
BEGIN = json.loads((Path(MODEL) / "tokenizer_config.json").read_text("utf-8"))["bos_token"]["content"]
QUESTIONS = Path(__file__).resolve().parents[1] / "golden/protocol"
LETTERS = ["A", "B", "C", "D"]


def task(name: str, **more) -> dict:
    files = {"test": str(QUESTIONS / f"{name}.jsonl")}
    return {"task": f"own_{name}", "dataset_path": "json", "dataset_kwargs": {"data_files": files},
            "test_split": "test", "num_fewshot": 0, **more}


# MMLU as the harness has it: lm_eval/tasks/mmlu/default.
MMLU = task(
    "mmlu",
    output_type="multiple_choice",
    description="",
    doc_to_text=f"{BEGIN}The following are multiple choice questions (with answers) about {{{{subject}}}}.\n\n"
    "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
    doc_to_choice=LETTERS,
    doc_to_target="answer",
    metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
)


def gsm8k(text: str) -> dict:
    """GSM8K as the harness has it: lm_eval/tasks/gsm8k/gsm8k.yaml."""
    ignored = [",", "\\$", "(?s).*#### ", "\\.$"]
    first = {"function": "take_first"}
    return task(
        "gsm8k",
        output_type="generate_until",
        doc_to_text=text,
        doc_to_target="{{answer}}",
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True,
                      "ignore_punctuation": False, "regexes_to_ignore": ignored}],
        generation_kwargs={"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "temperature": 0.0},
        filter_list=[
            {"name": "strict-match",
             "filter": [{"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"}, first]},
            {"name": "flexible-extract",
             "filter": [{"function": "regex", "group_select": -1,
                         "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"}, first]},
        ],
    )


def harness(kind: str, path: str, config: dict, **more) -> dict:
    """What the harness finds with a model of this kind."""
    arguments = {"model": "reference", "base_url": SERVER + path, "num_concurrent": 3, "max_retries": 1,
                 "tokenizer_backend": "huggingface", "tokenizer": MODEL, "max_length": 2048,
                 "max_gen_toks": 256}
    return lm_eval.simple_evaluate(kind, model_args=arguments, tasks=[config], task_manager=TaskManager(),
                                   log_samples=True, bootstrap_iters=0, **more)


def ours(protocol: str, *options: str) -> tuple[dict, dict]:
    """Our result, and the kept answers by question."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "answers.jsonl"
        command = [VAQUITA, "eval", "protocol", protocol, MODEL, "--questions", str(QUESTIONS / f"{protocol}.jsonl"),
                   "--json", "--answers", str(kept), *options]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        answers = {row["question"]: row for row in map(json.loads, kept.read_text("utf-8").splitlines()[1:])}
    return json.loads(result), answers


def multiple_choice_by_likelihood():
    theirs = harness("local-completions", "/v1/completions", MMLU)
    found, answers = ours("mmlu")
    samples = theirs["samples"]["own_mmlu"]
    assert len(samples) == len(answers) == 30
    worst = 0
    for sample in samples:
        likelihoods = [float(response[0]) for response in sample["filtered_resps"]]
        pairs = zip(likelihoods, answers[sample["doc_id"]]["loglikelihoods"], strict=True)
        worst = max(worst, *(abs(a - b) for a, b in pairs))
    assert worst < 1e-6, worst
    result = theirs["results"]["own_mmlu"]
    assert found["accuracy"]["mean"] == result["acc,none"], (found, result)
    print(f"accuracy {result['acc,none']:.4f}, log-likelihoods within {worst:.1e}")


def same_matches(theirs: dict, found: dict, answers: dict):
    result, samples = theirs["results"]["own_gsm8k"], theirs["samples"]["own_gsm8k"]
    texts = {sample["doc_id"]: sample["resps"][0][0] for sample in samples}
    assert len(texts) == len(answers) == 12
    for question, text in texts.items():
        assert text.strip() == answers[question]["answer"].strip(), (text, answers[question])
    for name, rule in (("pass_at_1", "strict-match"), ("flexible", "flexible-extract")):
        assert abs(found[name]["mean"] - result[f"exact_match,{rule}"]) < 1e-12, (found, result)
    print(f"exact match {found['pass_at_1']['mean']:.4f} strict, {found['flexible']['mean']:.4f} flexible")


def calculations_continued():
    text = BEGIN + "Question: {{question}}\nAnswer:"
    theirs = harness("local-completions", "/v1/completions", gsm8k(text))
    same_matches(theirs, *ours("gsm8k"))


def calculations_in_a_conversation():
    theirs = harness("local-chat-completions", "/v1/chat/completions", gsm8k("{{question}}"), apply_chat_template=True)
    found, answers = ours("gsm8k", "--chat", "--prompt", "{question}")
    assert found["flexible"]["mean"] > 0.8, found
    same_matches(theirs, found, answers)


for check in (multiple_choice_by_likelihood, calculations_continued, calculations_in_a_conversation):
    print(f"{check.__name__}: ", end="", flush=True)
    check()
