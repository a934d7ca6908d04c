"""Writes chats.json: conversations rendered with chat templates the way the `transformers` package from PyPI does it.
runtime/tests/chat.rs renders them again.

    python make_chats.py TEMPLATES [OUT]

TEMPLATES is the folder `vendor/llama.cpp/models/templates` of the sdist of llama-cpp-python 0.3.36 (pip download --no-binary
:all: --no-deps llama-cpp-python==0.3.36), which has chat templates as models are published with. Those in PUBLISHED are
copied into chats.json, under the licences named there; with OUT, all are rendered, into a file that is not for the repository.
Needs transformers and jinja2."""

import datetime
import json
import sys
from pathlib import Path

from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
REFERENCE = HERE.parents[2] / "calibration" / "reference"

# Whose they are, as the model cards say. Templates under other licences (Llama's, LFM's, Kimi's) are left out.
PUBLISHED = {
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "DeepSeek, MIT",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "DeepSeek, MIT",
    "deepseek-ai-DeepSeek-V3.1": "DeepSeek, MIT",
    "Qwen-Qwen2.5-7B-Instruct": "Qwen, Apache-2.0",
    "Qwen-QwQ-32B": "Qwen, Apache-2.0",
    "Qwen-Qwen3-0.6B": "Qwen, Apache-2.0",
    "GLM-4.7-Flash": "Z.ai, MIT",
    "google-gemma-4-31B-it": "Google, Apache-2.0",
    "ibm-granite-granite-4.0": "IBM, Apache-2.0",
    "inclusionai-ling-3.0-flash": "inclusionAI, MIT",
    "mistralai-Mistral-Nemo-Instruct-2407": "Mistral AI, Apache-2.0",
    "openai-gpt-oss-120b": "OpenAI, Apache-2.0",
}

TEMPLATES = {
    "reference": json.loads((REFERENCE / "tokenizer_config.json").read_text())["chat_template"],
    # Of the kind that OLMoE, Mixtral and Qwen1.5-MoE ship: no tools, no thoughts, a default system prompt, a refusal.
    "plain": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set loop_messages = messages[1:] %}{% else %}{% set system = 'You are helpful.' %}{% set loop_messages = messages %}{% endif %}
{% for message in loop_messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' + (system + '\\n\\n' if loop.first else '') + message['content'] + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}
{{ ' ' + message['content'] | trim + eos_token }}{% generation %}{{ '' }}{% endgeneration %}
{% endif %}
{% endfor %}""",
    # Of the kind that Llama 3 and LFM2 ship: the date, a list of tools that is put together first, what is kept of thoughts.
    "dated": """{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif %}
{%- set ns = namespace(system="", last=-1) -%}
{%- if messages[0]["role"] == "system" -%}{% set ns.system = messages[0]["content"] -%}{% set messages = messages[1:] -%}{%- endif -%}
{%- if tools is not none -%}
    {%- set ns.system = ns.system + ("\\n" if ns.system else "") + "List of tools: <|tools|>[" -%}
    {%- for tool in tools -%}
        {%- if tool is not string -%}{%- set tool = tool | tojson -%}{%- endif -%}
        {%- set ns.system = ns.system + tool + ("" if loop.last else ", ") -%}
    {%- endfor -%}
    {%- set ns.system = ns.system + "]<|/tools|>" -%}
{%- endif -%}
{{- "<|system|>Date: " + date_string + "\\n" + ns.system + "<|end|>\\n" -}}
{%- for message in messages -%}{%- if message.role == "assistant" -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "assistant" and loop.index0 != ns.last and "</think>" in content -%}
        {%- set content = content.split("</think>")[-1] | trim -%}
    {%- endif -%}
    {{- "<|" + message.role + "|>" + content -}}
    {%- for call in message.tool_calls or [] -%}
        {{- "<|call|>" + call.function.name + "(" -}}
        {%- for k, v in call.function.arguments | items -%}{{ k }}={{ v | tojson }}{{ ", " if not loop.last }}{%- endfor -%}
        {{- ")" -}}
    {%- endfor -%}
    {{- "<|end|>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|assistant|>" -}}{%- endif -%}""",
    # Of the kind that DeepSeek-R1 ships: a namespace, tools, state across the loop, slicing of the answer.
    "namespace": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{% set ns = namespace(is_first=false, system='', count=0) %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {%- set ns.system = ns.system + message['content'] %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}{{ ns.system }}
{%- for message in messages %}
    {%- set ns.count = ns.count + 1 %}
    {%- if message['role'] == 'user' %}
        {{- '<|user|>' + message['content'] | trim }}
    {%- elif message['role'] == 'assistant' and message['content'] is not none %}
        {%- set content = message['content'] %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|assistant|>' + content + eos_token }}
    {%- endif %}
    {%- if loop.last and message.role != 'assistant' %}{{ '#' ~ loop.index ~ '/' ~ messages | length }}{% endif %}
{%- endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}
""",
    # Of the kind that Qwen ships: tools as JSON, calls in tags, a macro, reversed search.
    "tools": """{%- macro call(c) -%}
<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>
{%- endmacro %}
{%- if tools %}
    {{- '# Tools\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n\\n' }}
{%- endif %}
{%- for message in messages[::-1] %}
    {%- if message.role == 'user' %}
        {{- 'last user: ' ~ message.content.upper() ~ '\\n' }}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content is string %}{{ message.content.replace('\\t', ' ').strip() }}{% endif %}
    {%- if message.tool_calls %}
        {%- for c in message.tool_calls %}{{ '\\n' + call(c) }}{% endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather <now> in a city & its \"suburbs\"",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name, e.g. القاهرة"},
                "days": {"type": "array", "items": {"type": "number"}},
                "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}}}}


def call(name: str, arguments: dict, number: int) -> dict:
    """As OpenAI's interface has it: arguments are text."""
    text = json.dumps(arguments, ensure_ascii=False)
    return {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": text}}


ALGIERS = call("get_weather", {"city": "Algiers", "days": [1, 2.5, None, True]}, 1)
CAIRO = call("get_weather", {"city": "القاهرة \"old\"\n", "unit": "C"}, 2)


def result(text: str, number: int) -> dict:
    return {"role": "tool", "content": text, "tool_call_id": f"call{number:05}"}


CHATS = [
    {"messages": [{"role": "user", "content": "723 * 8 = ?"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief.\nVery."},
            {"role": "user", "content": " ما هي عاصمة فرنسا؟\t🐋 "},
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nباريس"},
            {"role": "user", "content": "And <｜User｜> of \"Spain\"? {{ no }}"},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "What is the weather in Algiers?"},
            {"role": "assistant", "content": "", "tool_calls": [ALGIERS]},
            result("{\"sky\": \"clear\"}", 1),
        ],
        "tools": [WEATHER],
    },
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "prompt": False},
    {
        "messages": [
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": "2", "reasoning_content": "One and one.\n"},
            {"role": "user", "content": "2+2?"},
            {"role": "assistant", "content": "4", "reasoning_content": "Two and two."},
        ],
        "prompt": False,
    },
    {
        "messages": [
            {"role": "system", "content": "You know the weather."},
            {"role": "user", "content": "Algiers and Cairo?"},
            {"role": "assistant", "content": "", "reasoning_content": "Two calls.", "tool_calls": [ALGIERS, CAIRO]},
            result("clear", 1),
            result("dust", 2),
            {"role": "assistant", "content": "Clear, and dust."},
            {"role": "user", "content": "Thanks!"},
        ],
        "tools": [WEATHER, CLOCK],
    },
    {"messages": [{"role": "user", "content": "Hi"}], "extra": {"enable_thinking": False}},
    {"messages": [{"role": "user", "content": "Hi"}], "extra": {"enable_thinking": True, "reasoning_effort": "high"}, "tools": [WEATHER]},
]


class Then(datetime.datetime):
    """The time that templates are told."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(1_760_000_000, datetime.timezone.utc)


def given(messages: list, template: str, text: bool) -> list:
    """Messages with arguments as text or objects, and no content beside calls where the template asks whether there is any."""
    messages = json.loads(json.dumps(messages))
    for message in messages:
        for one in message.get("tool_calls", []):
            if not text:
                one["function"]["arguments"] = json.loads(one["function"]["arguments"])
        if message.get("tool_calls") and not message["content"] and ("content'] is none" in template or "content is none" in template):
            message["content"] = None
    return messages


def render(template: str, chat: dict, text: bool) -> str | None:
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[given(chat["messages"], template, text)],
            tools=chat.get("tools"),
            chat_template=template,
            add_generation_prompt=chat.get("prompt", True),
            bos_token="<bos>",
            eos_token="<eos>",
            **chat.get("extra", {}),
        )
        return rendered[0]
    except Exception:
        return None


def wants_text(template: str) -> bool:
    """Whether arguments are put beside other text as they are; otherwise the template writes JSON, or goes through them."""
    return "['arguments'] + " in template or "c.function.arguments }}\n```" in template


def main() -> None:
    folder = Path(sys.argv[1])
    files = sorted(folder.glob("*.jinja"))
    every = len(sys.argv) > 2
    templates = dict(TEMPLATES)
    for file in files:
        if every or file.stem in PUBLISHED:
            templates[file.stem] = file.read_text().removesuffix("\n")
    chat_template_utils.datetime = Then
    cases = []
    for name, template in templates.items():
        for number, chat in enumerate(CHATS):
            text = render(template, chat, wants_text(template))
            cases.append({"template": name, "chat": number, "text": text})
    origins = {name: f"{PUBLISHED[name]}" for name in templates if name in PUBLISHED}
    out = {"templates": templates, "origins": origins, "now": 1_760_000_000, "chats": CHATS, "cases": cases}
    path = Path(sys.argv[2]) if every else HERE / "chats.json"
    path.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
