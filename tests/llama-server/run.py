"""Runs llama.cpp's own server tests, unmodified, against `vaquita serve`, and compares the outcome of
each with expected.txt. Usage: run.py TESTS [pytest arguments], where TESTS is the folder
`tools/server/tests` of llama.cpp's sources and VAQUITA names the program."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import expectations

HERE = Path(__file__).resolve().parent
# Its files for servers of one text model. The others are about what is not offered: embeddings,
# adapters, images, several models, tools that run on the server, foreign clouds, sleep.
FILES = """basic chat_completion compat_anthropic compat_oai_responses completion ctx_shift ignore_eos
infill kv_keep_only_active metrics security slot_save speculative template tokenize tool_call"""
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR) (unit/\S+?::.+?)(?: - .*)?$")


def run(tests: Path, arguments: list[str]) -> dict[str, str]:
    """Outcome by test."""
    files = [f"unit/test_{name}.py" for name in FILES.split()]
    with tempfile.TemporaryDirectory(prefix="llama-server.") as models:
        # A draft model is fetched unless its file is there; vaquita drafts without one.
        (tests / "tmp").mkdir(exist_ok=True)
        (tests / "tmp").chmod(0o700)  # slots are saved there, which are private
        (tests / "tmp/stories15M-q4_0.gguf").touch()
        env = {
            **os.environ,
            "LLAMA_SERVER_BIN_PATH": str(HERE / "llama-server"),
            "VAQUITA_MODELS": models,
            "PYTHONPATH": str(HERE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_PROXY": "*",
        }
        command = [sys.executable, "-m", "pytest", "-p", "presets", "-p", "no:cacheprovider", "-m", "not slow"]
        command += ["-q", "-rA", "--tb=short", "--show-capture=no", *(arguments or files)]
        result = subprocess.run(command, cwd=tests, env=env, text=True, stdout=subprocess.PIPE)
    outcomes = {}
    for line in result.stdout.splitlines():
        if match := OUTCOME.match(line):
            outcomes[match[2]] = match[1]
    log = tests / "outcome.log"
    log.write_text(result.stdout)
    print(f"the whole output: {log}")
    return outcomes


def main() -> int:
    known = expectations.read()
    outcomes = run(Path(sys.argv[1]).resolve(), sys.argv[2:])
    passed, wrong, reasons = 0, [], []
    for name, outcome in sorted(outcomes.items()):
        kind, reason = expectations.lookup(name, known)
        passes = outcome == "PASSED"
        passed += passes
        if (kind, passes) not in (("pass", True), ("fail", False)):
            wrong.append(f"UNEXPECTED: {outcome} {name} ({kind})")
        elif not passes:
            reasons.append(f"{name}: {reason}")
    print(f"{passed} of {len(outcomes)} tests pass that need no certain model; the others:")
    print(*reasons, *wrong, sep="\n")
    return bool(wrong) or not outcomes


sys.exit(main())
