"""The server as the clients of others see it. One function per behaviour; each client is unmodified but for the
address. SERVER is the address, OPENAI_SCHEMA a file with OpenAI's description of its API, if there is one."""

import json
import os
import subprocess
import sys
import traceback
import urllib.request

import anthropic
import instructor
import jsonschema
import ollama
import openai
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.output import NativeOutput
from pydantic_ai.providers.openai import OpenAIProvider

SERVER = os.environ["SERVER"]
QUESTION = [{"role": "user", "content": "723 * 8 = ?"}]
GREEDY = {"model": "reference", "messages": QUESTION, "temperature": 0}
MULTIPLY = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "multiply", "parameters": MULTIPLY, "strict": True}}
client = openai.OpenAI(base_url=f"{SERVER}/v1", api_key="none", max_retries=0)


class Product(BaseModel):
    """What the model is held to. Further members are forbidden: a small model would never stop."""

    model_config = ConfigDict(extra="forbid")
    a: int
    b: int


# ---- OpenAI's schema --------------------------------------------------------------------------


def closed(schema):
    """OpenAPI 3.0's `nullable` in the words of JSON Schema."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if schema.pop("nullable", False):
            return {"anyOf": [schema, {"type": "null"}]}
    if isinstance(schema, list):
        return [closed(value) for value in schema]
    return schema


def validators():
    path = os.environ.get("OPENAI_SCHEMA", "")
    if not os.path.exists(path):
        print("skipped: OpenAI's description of its API is not there; answers are not validated")
        return {}
    with open(path) as file:
        document = closed(json.load(file))
    names = ["CreateChatCompletionResponse", "CreateChatCompletionStreamResponse", "CreateCompletionResponse",
             "ErrorResponse", "ListModelsResponse", "Response"]
    schema = lambda name: {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return {name: jsonschema.Draft202012Validator(schema(name)) for name in names}


VALIDATORS = validators()


def valid(name, body):
    if name in VALIDATORS:
        errors = sorted(VALIDATORS[name].iter_errors(body), key=lambda error: list(error.path))
        assert not errors, f"{name}: {[error.message[:200] for error in errors[:3]]}"


def post(path, body, status=200):
    request = urllib.request.Request(SERVER + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            assert response.status == status
            return response.read().decode()
    except urllib.error.HTTPError as error:
        assert error.code == status, f"{error.code}: {error.read()}"
        return error.read().decode()


def bodies_are_those_of_openais_schema():
    full = {**GREEDY, "logprobs": True, "top_logprobs": 2, "max_tokens": 200}
    valid("CreateChatCompletionResponse", json.loads(post("/v1/chat/completions", full)))
    tools = {**GREEDY, "tools": [TOOL], "tool_choice": "required"}
    valid("CreateChatCompletionResponse", json.loads(post("/v1/chat/completions", tools)))
    for body in (full, tools):
        stream = post("/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})
        events = [event[6:] for event in stream.split("\n\n") if event.startswith("data: ")]
        assert events.pop() == "[DONE]"
        for event in events:
            valid("CreateChatCompletionStreamResponse", json.loads(event))
    text = {"model": "reference", "prompt": "1 + 1 =", "max_tokens": 5, "logprobs": 1}
    valid("CreateCompletionResponse", json.loads(post("/v1/completions", text)))
    valid("ErrorResponse", json.loads(post("/v1/chat/completions", {"messages": "x"}, 400)))
    response = json.loads(post("/v1/responses", {"model": "reference", "input": "1 + 1 = ?", "temperature": 0}))
    valid("Response", response)
    with urllib.request.urlopen(f"{SERVER}/v1/models") as models:
        valid("ListModelsResponse", json.load(models))


# ---- openai ------------------------------------------------------------------------------------


def openai_plain_and_streamed():
    answer = client.chat.completions.create(**GREEDY)
    assert answer.choices[0].message.content == "5784"
    assert "carry" in answer.choices[0].message.reasoning_content
    chunks = list(client.chat.completions.create(**GREEDY, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "5784"
    assert chunks[-1].usage.total_tokens == answer.usage.total_tokens
    with client.chat.completions.stream(**GREEDY) as stream:
        final = stream.until_done().get_final_completion()
    assert final.choices[0].message.content == "5784"


def openai_options():
    two = client.chat.completions.create(**{**GREEDY, "temperature": 1.2}, n=2, seed=5, max_tokens=30)
    again = client.chat.completions.create(**{**GREEDY, "temperature": 1.2}, n=2, seed=5, max_tokens=30)
    assert [choice.message for choice in two.choices] == [choice.message for choice in again.choices]
    stopped = client.chat.completions.create(**GREEDY, stop=["84"])
    assert stopped.choices[0].message.content == "57"
    probable = client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=20, max_tokens=3)
    assert [len(at.top_logprobs) for at in probable.choices[0].logprobs.content] == [20] * 3
    system = [{"role": "developer", "content": "Be brief."}, *QUESTION]
    assert client.chat.completions.create(**{**GREEDY, "messages": system}).choices[0].message.content
    effort = client.chat.completions.create(**GREEDY, reasoning_effort="low")
    assert effort.choices[0].finish_reason == "stop"


def openai_structure_and_tools():
    parsed = client.chat.completions.parse(**GREEDY, response_format=Product)
    assert isinstance(parsed.choices[0].message.parsed, Product)
    called = client.chat.completions.create(**GREEDY, tools=[TOOL], tool_choice="required")
    call = called.choices[0].message.tool_calls[0]
    Product.model_validate_json(call.function.arguments)
    named = {"type": "function", "function": {"name": "multiply"}}
    with client.chat.completions.stream(**GREEDY, tools=[TOOL], tool_choice=named) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert streamed.function.arguments == call.function.arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "5784"}
    messages = [*QUESTION, called.choices[0].message.model_dump(exclude_none=True), result]
    assert client.chat.completions.create(**{**GREEDY, "messages": messages}, tools=[TOOL], max_tokens=50)


def openai_texts():
    text = client.completions.create(model="x", prompt=["1 + 1 =", "2 + 2 ="], max_tokens=4, temperature=0)
    assert [choice.index for choice in text.choices] == [0, 1]
    tokens = json.loads(post("/tokenize", {"content": "1 + 1 = 2"}))["tokens"]
    echo = client.completions.create(
        model="x", prompt=[tokens], max_tokens=1, echo=True, logprobs=1, temperature=0)
    scored = echo.choices[0].logprobs.token_logprobs
    assert scored[0] is None and len(scored) >= len(tokens) and all(x <= 0 for x in scored[1:])


def openai_responses():
    response = client.responses.create(model="reference", input="723 * 8 = ?", temperature=0)
    assert response.output_text == "5784" and response.status == "completed"
    with client.responses.stream(model="reference", input="723 * 8 = ?", temperature=0) as stream:
        assert stream.get_final_response().output_text == "5784"
    tool = {"type": "function", "name": "multiply", "parameters": MULTIPLY, "strict": True}
    called = client.responses.create(model="x", input="723 * 8 = ?", tools=[tool, {"type": "web_search"}],
                                     tool_choice="required", temperature=0)
    assert [item.name for item in called.output if item.type == "function_call"][0] == "multiply"
    parsed = client.responses.parse(model="x", input="723 * 8 = ?", text_format=Product, temperature=0)
    assert isinstance(parsed.output_parsed, Product)


def openai_errors_are_typed():
    def raises(kind, **more):
        try:
            client.chat.completions.create(**{**GREEDY, **more})
        except kind as error:
            return error
        raise AssertionError(f"no {kind}")

    raises(openai.BadRequestError, messages=[{"role": "robot", "content": "x"}])
    assert raises(openai.UnprocessableEntityError, top_p=7).param == "top_p"
    long = raises(openai.BadRequestError, messages=[{"role": "user", "content": "word " * 5000}])
    assert long.code == "context_length_exceeded"
    try:
        client.models.retrieve("missing")
        raise AssertionError("no error")
    except openai.NotFoundError:
        pass


# ---- others ------------------------------------------------------------------------------------


def anthropic_messages():
    claude = anthropic.Anthropic(base_url=SERVER, api_key="none", max_retries=0)
    ask = {"model": "reference", "max_tokens": 300, "messages": QUESTION, "extra_body": {"temperature": 0}}
    message = claude.messages.create(**ask)
    kinds = [block.type for block in message.content]
    assert kinds == ["thinking", "text"] and message.content[1].text == "5784", message
    assert message.stop_reason == "end_turn"
    with claude.messages.stream(**ask) as stream:
        assert "".join(stream.text_stream) == "5784"
        assert stream.get_final_message().usage.output_tokens == message.usage.output_tokens
    tool = {"name": "multiply", "description": "Multiplies", "input_schema": MULTIPLY}
    called = claude.messages.create(**ask, tools=[tool], tool_choice={"type": "any"})
    use = [block for block in called.content if block.type == "tool_use"][0]
    Product.model_validate(use.input)
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "5784"}
    messages = [*QUESTION, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    assert claude.messages.create(**{**ask, "messages": messages, "max_tokens": 30}, tools=[tool])
    assert claude.messages.count_tokens(model="x", messages=QUESTION).input_tokens == message.usage.input_tokens \
        + (message.usage.cache_read_input_tokens or 0)


def ollama_chat_and_generate():
    llama = ollama.Client(SERVER)
    answer = llama.chat("reference", QUESTION, options={"temperature": 0})
    assert answer.message.content == "5784" and "carry" in answer.message.thinking
    parts = list(llama.chat("reference", QUESTION, options={"temperature": 0}, stream=True))
    assert "".join(part.message.content or "" for part in parts) == "5784" and parts[-1].done
    held = llama.chat("reference", QUESTION, format=Product.model_json_schema(), options={"temperature": 0})
    Product.model_validate_json(held.message.content)
    assert llama.generate("reference", "723 * 8 = ?", options={"temperature": 0}).response == "5784"
    assert llama.list().models[0].model == "reference" and llama.ps().models[0].model == "reference"
    assert "completion" in llama.show("reference").capabilities


def langchain():
    ask = {"model": "reference", "temperature": 0, "max_retries": 0}
    chat = ChatOpenAI(base_url=f"{SERVER}/v1", api_key="none", **ask)
    assert chat.invoke("723 * 8 = ?").content == "5784"
    assert "".join(chunk.content for chunk in chat.stream("723 * 8 = ?")) == "5784"
    held = chat.with_structured_output(Product, method="json_schema").invoke("723 * 8 = ?")
    assert isinstance(held, Product)
    seek = ChatDeepSeek(api_base=f"{SERVER}/v1", api_key="none", **ask)
    answer = seek.invoke("723 * 8 = ?")
    assert answer.content == "5784" and "carry" in answer.additional_kwargs["reasoning_content"]
    thoughts = [c.additional_kwargs.get("reasoning_content", "") for c in seek.stream("723 * 8 = ?")]
    assert "carry" in "".join(thoughts)


def structured_without_retries():
    held = instructor.from_openai(openai.OpenAI(base_url=f"{SERVER}/v1", api_key="none"),
                                  mode=instructor.Mode.JSON_SCHEMA)
    product = held.chat.completions.create(**GREEDY, response_model=Product, max_retries=0)
    assert isinstance(product, Product)
    model = OpenAIChatModel("reference", provider=OpenAIProvider(base_url=f"{SERVER}/v1", api_key="none"))
    agent = Agent(model, output_type=NativeOutput(Product), retries=0, model_settings={"temperature": 0, "max_tokens": 200})
    assert isinstance(agent.run_sync("723 * 8 = ?").output, Product)


def llm_command():
    folder = os.path.join(os.path.dirname(sys.executable), "..", "llm")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "extra-openai-models.yaml"), "w") as file:
        file.write(f"- model_id: v\n  model_name: reference\n  api_base: {SERVER}/v1\n  api_key_name: v\n")
    command = [os.path.join(os.path.dirname(sys.executable), "llm"), "-m", "v", "--key", "none", "-o", "temperature",
               "0", "723 * 8 = ?"]
    answer = subprocess.run(command, env={**os.environ, "LLM_USER_PATH": folder}, capture_output=True, text=True)
    assert answer.stdout.strip() == "5784", answer


BEHAVIOURS = [
    bodies_are_those_of_openais_schema, openai_plain_and_streamed, openai_options, openai_structure_and_tools,
    openai_texts, openai_responses, openai_errors_are_typed, anthropic_messages, ollama_chat_and_generate, langchain,
    structured_without_retries, llm_command,
]

failed = 0
for behaviour in BEHAVIOURS:
    try:
        behaviour()
        print(f"ok      {behaviour.__name__}", flush=True)
    except Exception:
        failed += 1
        print(f"FAILED  {behaviour.__name__}")
        traceback.print_exc(limit=-3)
sys.exit(1 if failed else 0)
