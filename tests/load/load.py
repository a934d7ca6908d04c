"""Loads a server and holds it to its promises. Usage: load.py VAQUITA MODEL [--seconds 300]
[--clients 100]. Prints figures; ends with 1 if a promise is broken. The figures of docs/server.md
are from here."""

import argparse
import asyncio
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True
from http_client import connect, head, request

BUDGET_MIB = 400
CHAT = "/v1/chat/completions"
problems = []


def check(holds, problem):
    if not holds:
        problems.append(problem)
        print("BROKEN:", problem, flush=True)


class Server:
    """`vaquita serve` with four slots and a memory budget."""

    def __init__(self, program, model, options=()):
        self.log = tempfile.TemporaryFile("w+")
        command = [program, "serve", model, "--listen", "127.0.0.1:0", "--slots", "4", *options]
        self.process = subprocess.Popen(command, stderr=self.log)
        self.address = None
        for _ in range(600):
            if found := re.search(r"http://(127\.0\.0\.1:\d+)", self.text()):
                self.address = found[1]
                return
            time.sleep(0.1)
        raise RuntimeError(self.text())

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def resident_mib(self, which="VmHWM"):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{which}:\s+(\d+) kB", status)[1]) / 1024


def question(draw, tokens):
    words = [draw.choice("stone river shell orange seven market".split()) for _ in range(draw.randrange(4, 40))]
    return {
        "messages": [{"role": "user", "content": " ".join(words)}],
        "max_tokens": tokens,
        "stream": True,
        "seed": draw.randrange(1 << 30),
    }


class Crowd:
    """Clients that ask, leave, or are told to come back."""

    def __init__(self):
        self.statuses, self.ratios, self.waits = Counter(), [], []
        self.tokens, self.refusals, self.left = 0, [], 0

    async def client(self, number, address, until):
        draw = random.Random(number)
        while time.monotonic() < until:
            leaves = draw.randrange(3) == 0
            body = question(draw, draw.choice([4, 16, 48]))
            begun = time.monotonic()
            answer = await request(address, CHAT, body, leave_after=draw.randrange(1, 12) if leaves else None)
            self.statuses[answer.status] += 1
            if answer.status in (429, 503):
                self.refusals.append(time.monotonic() - begun)
                check("retry-after" in answer.headers, f"{answer.status} without Retry-After")
                await asyncio.sleep(min(float(answer.headers.get("retry-after", 1)), 3) * draw.uniform(0.3, 1))
                continue
            check(answer.status == 200, f"status {answer.status}: {answer.body[:200]}")
            timings = next((e["timings"] for e in answer.events() if "timings" in e), None)
            if timings is None:
                self.left += 1
                continue
            self.tokens += timings["predicted_n"]
            if answer.first:
                explained = timings["queued_ms"] + timings["prompt_ms"]
                self.ratios.append((answer.first - answer.sent) * 1e3 / explained)
                self.waits.append(explained / 1e3)

    async def health(self, address, until):
        """Whether the server answers at once, whatever else it does."""
        times = []
        while time.monotonic() < until:
            begun = time.monotonic()
            check((await request(address, "/health")).status == 200, "/health under load")
            times.append(time.monotonic() - begun)
            await asyncio.sleep(0.1)
        return times


def percentile(values, share):
    return sorted(values)[int(share * (len(values) - 1))] if values else float("nan")


async def crowd(server, clients, seconds):
    until = time.monotonic() + seconds
    crowd = Crowd()
    tasks = [crowd.client(number, server.address, until) for number in range(clients)]
    *_, health = await asyncio.gather(*tasks, crowd.health(server.address, until))
    check(crowd.statuses[200] > 0, "nothing was answered")
    ratio = statistics.median(crowd.ratios)
    # A short run beside others says nothing about times.
    check(ratio <= 1.2 or seconds < 60, f"time to first token is {ratio:.2f} of what queue and prompt explain")
    print(f"{clients} clients, {seconds} s: {dict(crowd.statuses)}, {crowd.left} left in the middle")
    print(f"  {crowd.tokens / seconds:.1f} tokens/s; wait for the first: median {statistics.median(crowd.waits):.2f} s")
    print(f"  time to first token / (queue + prompt): median {ratio:.3f}, 90% {percentile(crowd.ratios, 0.9):.3f}")
    print(f"  refusals: 99% within {percentile(crowd.refusals, 0.99) * 1e3:.0f} ms; "
          f"/health: 99% within {percentile(health, 0.99) * 1e3:.0f} ms")


async def hostile(server):
    """Nested and large bodies: refused each, with few bytes kept."""
    address = server.address
    deep = b'{"messages":' + b"[" * 60_000 + b"]" * 60_000 + b"}"
    check((await request(address, CHAT, deep)).status == 400, "60,000 nested arrays")
    groups = {"messages": [{"role": "user", "content": "x"}], "grammar": "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000}
    check((await request(address, CHAT, groups)).status == 400, "60,000 nested groups of a grammar")
    large = b'{"messages":[{"role":"user","content":"' + b"a" * ((4 << 20) - 60) + b'"}]}'
    statuses = Counter(a.status for a in await asyncio.gather(*[request(address, CHAT, large) for _ in range(32)]))
    check(set(statuses) <= {400, 503}, f"32 bodies of 4 MiB: {statuses}")
    try:
        status = (await request(address, CHAT, large + b" " * 100_000)).status
    except ConnectionError:  # refused before it was read
        status = 413
    check(status == 413, f"a body above the limit: {status}")
    print(f"32 bodies of 4 MiB: {dict(statuses)}")


async def slow_writers(server, count):
    """Connections that send a byte now and then are closed in time."""
    begun = time.monotonic()

    async def one(text):
        reader, writer = await connect(server.address)
        writer.write(text)
        try:
            return await asyncio.wait_for(reader.read(4096), 20)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    body = head("POST", CHAT, server.address, 1000) + b'{"mess'
    texts = [b"GET / HT" if number % 2 else body for number in range(count)]
    answers = await asyncio.gather(*[one(text) for text in texts])
    took = time.monotonic() - begun
    check(took < 15, f"slow writers were kept for {took:.0f} s")
    print(f"{count} slow writers: closed within {took:.1f} s, {sum(b'408' in a for a in answers)} with 408")


def slowhttptest(server, seconds):
    """The tool that people test for slowloris with: the server stays reachable."""
    if not shutil.which("slowhttptest"):
        return print("skipped: slowhttptest is not installed")
    url = f"http://{server.address}"
    kinds = {"headers": ["-H", "-u", url], "body": ["-B", "-u", url + CHAT], "read": ["-X", "-u", url + "/"]}
    for kind, options in kinds.items():
        command = ["slowhttptest", "-c", "200", "-r", "100", "-l", str(seconds), "-p", "3", *options]
        tool = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        worst, answered, tried = 0.0, 0, 0
        while tool.poll() is None:
            begun, tried = time.monotonic(), tried + 1
            try:
                answered += asyncio.run(asyncio.wait_for(request(server.address, "/health"), 5)).status == 200
            except (OSError, TimeoutError, IndexError):
                pass
            worst = max(worst, time.monotonic() - begun)
            time.sleep(0.2)
        print(f"slowhttptest {kind}: {answered} of {tried} health checks answered, the slowest in {worst * 1e3:.0f} ms")
        check(answered > 0, f"slowhttptest {kind}: the server was not reachable")
        check(server.process.poll() is None, f"slowhttptest {kind}: the server ended")


async def terminate(server):
    """SIGTERM: every stream ends with an event, and nothing more is accepted."""
    draw = random.Random(0)
    streams = [asyncio.create_task(request(server.address, CHAT, question(draw, 4000))) for _ in range(8)]
    await asyncio.sleep(1)
    server.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    answers = await asyncio.gather(*streams, return_exceptions=True)
    code = await asyncio.to_thread(server.process.wait, 30)
    for answer in answers:
        check(not isinstance(answer, Exception), f"a stream broke off: {answer!r}")
        if not isinstance(answer, Exception) and answer.status == 200:
            last = answer.events()[-1]
            ended = "error" in last or last["choices"][0]["finish_reason"]
            check(ended, f"a stream ended with {last}")
    check(code == 0, f"the server ended with {code}")
    print(f"SIGTERM: {len(answers)} streams ended, the program after {time.monotonic() - begun:.1f} s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=100)
    args = parser.parse_args()
    options = ["--memory", f"{BUDGET_MIB}MiB", "--context", "512", "--grace", "2"]
    options += ["--head-timeout", "3", "--body-timeout", "5"]
    server = Server(args.program, args.model, options)
    try:
        asyncio.run(crowd(server, args.clients, args.seconds))
        asyncio.run(hostile(server))
        asyncio.run(slow_writers(server, 100))
        slowhttptest(server, min(20, max(3, int(args.seconds / 10))))
        asyncio.run(crowd(server, 4, min(args.seconds, 5)))
        memory = server.resident_mib()
        check(memory <= BUDGET_MIB, f"{memory:.0f} MiB of memory")
        print(f"memory: {memory:.0f} MiB at most, of {BUDGET_MIB}")
        asyncio.run(terminate(server))
    finally:
        if server.process.poll() is None:
            server.process.kill()
        if problems or "panicked" in server.text():
            print(server.text()[-3000:])
            problems.append("see the log")
    print("problems:", len(problems))
    sys.exit(bool(problems))


main()
