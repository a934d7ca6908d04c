"""Writes calls.json: conversations with calls of tools, rendered by transformers with the templates of chats.json exactly as
they are given: content that is null, empty or text beside the calls, arguments that are text or an object. What
transformers refuses, and where it writes Python's None into the prompt, is left out. runtime/tests/chat.rs renders them again.

    python make_calls.py

Needs transformers and jinja2."""

import json
from pathlib import Path

from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
TEMPLATES = {
    name: template
    for name, template in json.loads((HERE / "chats.json").read_text())["templates"].items()
    if name.startswith(("deepseek-ai", "Qwen", "openai", "mistralai", "GLM", "inclusionai", "google", "ibm"))
}
ARGUMENTS = {"city": "Algiers", "days": [1, 2.5, None, True]}


def chat(content, as_text: bool, calls: int, answered: bool) -> list:
    arguments = json.dumps(ARGUMENTS) if as_text else ARGUMENTS
    one = lambda n: {"id": f"call{n:05}", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": content, "tool_calls": [one(n) for n in range(calls)]},
    ]
    messages += [{"role": "tool", "content": f"sky {n}", "tool_call_id": f"call{n:05}"} for n in range(calls)]
    if answered:
        messages += [{"role": "assistant", "content": "Clear."}, {"role": "user", "content": "Thanks!"}]
    return messages


def main() -> None:
    cases = []
    for name, template in TEMPLATES.items():
        for content in (None, "", "Let me look."):
            for as_text in (True, False):
                for calls, answered in ((1, False), (2, True)):
                    messages = chat(content, as_text, calls, answered)
                    try:
                        rendered, _ = chat_template_utils.render_jinja_template(
                            conversations=[messages], chat_template=template, add_generation_prompt=True, bos_token="<bos>", eos_token="<eos>"
                        )
                    except Exception:
                        continue
                    text = rendered[0]
                    # A text of JSON that is written as JSON once more is no more what the model was taught than None.
                    as_it_is = '{{"city' in text  # in Gemma 4's, which wants an object
                    if not as_it_is and "None" not in text.replace("None,", "") and "null\n" not in text and '\\"city' not in text and "strftime" not in template:
                        cases.append({"template": name, "messages": messages, "text": text})
    (HERE / "calls.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")
    for name in TEMPLATES:
        print(name, sum(case["template"] == name for case in cases))


if __name__ == "__main__":
    main()
