"""Writes chats.json: conversations rendered with chat templates the way the `transformers` package from PyPI does it
(pip install transformers jinja2). runtime/tests/chat.rs renders them again."""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).parent
REFERENCE = HERE.parents[2] / "calibration" / "reference"

TEMPLATES = {
    "reference": json.loads((REFERENCE / "tokenizer_config.json").read_text())["chat_template"],
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
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Algiers", "days": [1, 2.5, None, True]}}}

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
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "{\"sky\": \"clear\"}"},
        ],
        "tools": [WEATHER],
    },
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "prompt": False},
]


def main() -> None:
    cases = []
    for name, template in TEMPLATES.items():
        for chat in CHATS:
            prompt = chat.get("prompt", True)
            rendered, _ = render_jinja_template(
                conversations=[chat["messages"]],
                tools=chat.get("tools"),
                chat_template=template,
                add_generation_prompt=prompt,
                bos_token="<bos>",
                eos_token="<eos>",
            )
            case = {"template": name, "messages": chat["messages"], "tools": chat.get("tools")}
            cases.append({**case, "prompt": prompt, "text": rendered[0]})
    out = {"templates": TEMPLATES, "cases": cases}
    (HERE / "chats.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
