"""The page as `vaquita serve` sends it, with the reference model: served.py PROGRAM MODEL [--browser PROGRAM] [--only NAME].

The model is at temperature 0, so that its answers are known.
"""

import argparse
import json
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager

from playwright.sync_api import expect

import visit as visiting
from visit import answer, test, visit

QUESTION = "723 * 8 = ?"


def fetch(path):
    with urllib.request.urlopen(visiting.options.address + path, timeout=30) as response:
        return response.read().decode()


def metric(name):
    """Sum of a metric over its labels."""
    lines = re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", fetch("metrics"), re.M)
    assert lines, f"no metric {name}"
    return sum(float(value) for value in lines)


def until(holds):
    """Waits for what a metric says; fails after half a minute."""
    deadline = time.time() + 30
    while not holds():
        assert time.time() < deadline, fetch("metrics")
        time.sleep(0.05)


def settle(page, **values):
    """Changes settings in their dialog."""
    page.locator("#open-settings").click()
    for name, value in values.items():
        page.locator(f"#field-{name}").fill(value)
    page.locator("dialog button.main").click()
    expect(page.locator("dialog")).to_have_count(0)


def opened(v):
    page = v.open()
    settle(page, temperature="0")
    return page


@contextmanager
def slowly():
    """The server runs for a millisecond of every hundred, so that answers last as long as on a small board."""
    server, over = visiting.options.server, threading.Event()

    def hold():
        while not over.wait(0.001):
            server.send_signal(signal.SIGSTOP)
            over.wait(0.099)
            server.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def answered_again(v, page):
    """Asks for another answer, and waits first for its start: until then nothing is being written."""
    answer(page).get_by_role("button", name="Answer again").click()
    expect(answer(page).locator(".branches")).to_contain_text("2 of 2")
    expect(answer(page).locator(".answer")).to_have_text("5784", timeout=60_000)
    v.wait()


def thoughts(page):
    """Unfolds the reasoning, which is drawn once it is open, and reads it."""
    answer(page).locator(".reasoning summary").click()
    prose = answer(page).locator(".reasoning .prose")
    expect(prose).not_to_be_empty()
    return prose.inner_text()


@test
def questions_are_answered():
    with visit(address=visiting.options.address) as v:
        page = opened(v)
        streams = []
        page.on("request", lambda request: streams.append(request.headers.get("x-conversation-id")))
        v.ask(QUESTION)
        expect(answer(page).locator(".answer")).to_have_text("5784")
        expect(answer(page).locator(".reasoning summary")).to_contain_text("Thought for")
        # The figures are those of the API: the stream is still kept.
        (stream,) = filter(None, streams)
        lines = fetch(f"v1/stream?conv_id={stream}&from=0").splitlines()
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        usage = next(chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage"))
        timings = next(chunk["timings"] for chunk in reversed(chunks) if chunk.get("timings"))
        line = answer(page).locator(".cost summary").inner_text()
        assert f"{usage['completion_tokens']} tokens" in line, line
        if timings["energy"] == "unmeasured":
            assert "energy unmeasured" in line, line
        else:
            assert "J per token" in line, line
        assert any(chunk.get("prompt_progress") for chunk in chunks)

        # Temperature 0 gives the same answer again, as a branch.
        answered_again(v, page)
        assert f"{usage['completion_tokens']} tokens" in answer(page).locator(".cost summary").inner_text()

        # Another question is another branch.
        page.locator(".message.user").hover()
        page.get_by_role("button", name="Edit the question").click()
        page.keyboard.press("Control+A")
        page.keyboard.type("17 + 25 = ?")
        page.keyboard.press("Enter")
        v.wait()
        expect(page.locator(".message.user .branches")).to_contain_text("2 of 2")
        expect(answer(page).locator(".answer")).to_have_text("42")


@test
def a_stop_reaches_the_engine():
    with visit(address=visiting.options.address) as v:
        page = opened(v)
        # An answer of a thousand tokens.
        settle(page, schema=json.dumps({"type": "array", "items": {"const": 7}, "minItems": 500}))
        before = metric("vaquita_cancelled_total")
        with slowly():
            v.ask("9182 * 7364 = ?", wait=False)
            expect(page.locator("#stop")).to_be_visible()
            # A stop that overtakes its question ends it before the engine has it.
            until(lambda: metric("vaquita_requests_running") == 1)
            page.keyboard.press("Escape")
            v.wait()
        expect(answer(page).locator(".failure span")).to_have_text("Stopped.")
        until(lambda: metric("vaquita_cancelled_total") > before)
        until(lambda: metric("vaquita_requests_running") == 0)


@test
def a_reload_in_mid_answer_goes_on():
    with visit(address=visiting.options.address) as v:
        page = opened(v)
        with slowly():
            v.ask(QUESTION, wait=False)
            expect(page.locator("#conversations .writing")).to_have_count(1)
            until(lambda: metric("vaquita_requests_running") > 0)  # there is no stream before
            page.reload()
        expect(answer(page).locator(".answer")).to_have_text("5784", timeout=60_000)
        v.wait()
        whole = answer(page).locator(".cost summary").inner_text()
        thought = thoughts(page)
        answered_again(v, page)
        again = thoughts(page)
        assert again == thought, (again, thought)
        tokens = re.compile(r"\d+ tokens\b(?!/)")
        line = answer(page).locator(".cost summary").inner_text()
        assert tokens.search(line)[0] == tokens.search(whole)[0], (line, whole)


@test
def answers_follow_a_schema():
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"], "additionalProperties": False}
    with visit(address=visiting.options.address) as v:
        page = opened(v)
        settle(page, schema=json.dumps(schema))
        v.ask(QUESTION)
        value = json.loads(answer(page).locator(".code pre").inner_text())
        assert list(value) == ["answer"] and isinstance(value["answer"], int)


@test
def the_page_counts_tokens_and_knows_the_context():
    with visit(address=visiting.options.address, locale="ar") as v:
        page = opened(v)
        page.set_input_files("#files", [{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"12 + 30 = ?"}])
        expect(page.locator("#attached small")).not_to_contain_text("B")
        v.ask(QUESTION)
        answer(page).locator(".cost summary").click()
        expect(answer(page).locator(".cost dl")).to_contain_text("2,048")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--only", default="", help="tests whose name contains this")
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options.address = f"http://localhost:{port}/"
    server = subprocess.Popen([options.program, "serve", options.model, "--listen", f"127.0.0.1:{port}"])
    options.server = server
    try:
        visiting.run(options)
    finally:
        server.terminate()
        server.wait(timeout=60)


if __name__ == "__main__":
    main()
