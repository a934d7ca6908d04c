//! Calls of tools in each family's format, rendered here and parsed back: whole, character by character, and cut at every
//! place; then what models get wrong.

use std::ops::ControlFlow;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use vaquita_runtime::app::{AppModel, ModelOptions};
use vaquita_runtime::session::constraint::end_tokens;
use vaquita_runtime::session::generate::{Event, GenerationOptions};
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::tools::offer::{ToolChoice, Tools};
use vaquita_runtime::session::tools::{Answer, Call, Format, ToolParser};
use vaquita_runtime::structured::{CallRule, Compiler};
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_tests::calls::{Meant, render};
use vaquita_tests::{reference, reference_file};

/// Tools that have the calls' arguments, with their types.
fn tools(calls: &[Meant]) -> Tools {
    let kind = |value: &Value| match value {
        Value::Null => json!({"type": ["string", "null"]}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(_) => json!({"anyOf": [{"type": "number"}, {"type": "null"}]}),
        Value::String(_) => json!({"type": "string"}),
        Value::Array(_) => json!({"type": "array"}),
        Value::Object(_) => json!({"type": "object"}),
    };
    let mut list: Vec<Value> = Vec::new();
    for call in calls {
        let properties: Map<String, Value> =
            call.arguments.iter().map(|(k, v)| (k.clone(), kind(v))).collect();
        let tool =
            json!({"name": call.name, "parameters": {"type": "object", "properties": properties}});
        if list.iter().all(|one| one["name"] != tool["name"]) {
            list.push(tool);
        }
    }
    Tools::from_json(&list.into()).unwrap()
}

fn parse<'a>(format: Format, tools: &Tools, pieces: impl IntoIterator<Item = &'a str>) -> Answer {
    let mut parser = ToolParser::of_text(format, tools.clone());
    let mut answer = Answer::default();
    for piece in pieces {
        parser.push(piece).iter().for_each(|event| answer.apply(event));
    }
    parser.finish().iter().for_each(|event| answer.apply(event));
    if format != Format::Kimi {
        answer.calls.iter_mut().for_each(|call| call.id.clear());
    }
    answer
}

/// The answer, which must not depend on how the text is cut.
fn parse_all_ways(format: Format, tools: &Tools, text: &str) -> Answer {
    let whole = parse(format, tools, [text]);
    let chars = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
    assert_eq!(parse(format, tools, chars), whole, "one character at a time: {text}");
    for (at, _) in text.char_indices() {
        assert_eq!(parse(format, tools, [&text[..at], &text[at..]]), whole, "cut at {at}: {text}");
    }
    whole
}

fn arguments(call: &Call) -> Value {
    serde_json::from_str(&call.arguments).expect(&call.arguments)
}

fn a_text() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "a",
        " b",
        "é語",
        "😀",
        "\"",
        "\\",
        "'",
        "{",
        "}",
        "[1]",
        "<",
        "</",
        "<tool",
        "</parameter",
        "42",
        "true",
        "null",
        "3.5",
        "New York, NY",
        "x = y;",
        "\n",
        "```",
        "|",
        "&lt;",
        ",",
        "</arg",
        "=",
        "()",
        "[TOOL",
        "\u{1F1E9}\u{1F1EA}",
    ]);
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

fn a_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000i32..1000).prop_map(|n| json!(f64::from(n) / 8.0)),
        // Numbers and words as texts.
        prop::sample::select(vec!["12", "-1.5e3", "true", "null", "", "{}", "[]"])
            .prop_map(Value::from),
        a_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((a_text(), inner), 0..3)
                .prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

fn a_call() -> impl Strategy<Value = Meant> {
    let name = prop::sample::select(vec![
        "get_weather",
        "f",
        "math.factorial",
        "spotify-play",
        "Calendar_create_event2",
    ]);
    let argument =
        (prop::sample::select(vec!["city", "n", "unit_2", "eventDetails", "q"]), a_value());
    (name, prop::collection::vec(argument, 0..4)).prop_map(|(name, arguments)| Meant {
        name: name.into(),
        arguments: arguments.into_iter().map(|(key, value)| (key.into(), value)).collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn calls_come_back_as_they_were_meant(
        format in prop::sample::select(Format::ALL.to_vec()),
        mut calls in prop::collection::vec(a_call(), 1..4),
        said in prop::sample::select(vec!["", "I will look.", "a < b\n\n<tool", "It is {1}: <|", "\u{e9}<｜"]),
    ) {
        // Two calls of one tool have one schema: keep their arguments the same kind by keeping the first alone.
        let mut seen = Vec::new();
        calls.retain(|call| !seen.contains(&call.name) && { seen.push(call.name.clone()); true });
        // A bare object is a call only at the start of the answer.
        let said = if matches!(format, Format::Llama3 | Format::Generic) { "" } else { said };
        // Between tags, white space at a value's ends is not kept by every format, and a value can hold anything but its end.
        let text = format!("{said}{}", render(format, &calls));
        let tools = tools(&calls);
        let answer = parse_all_ways(format, &tools, &text);
        prop_assert_eq!(answer.text.trim_end(), said.trim_end());
        prop_assert_eq!(&answer.warnings, &Vec::<&str>::new());
        prop_assert_eq!(answer.calls.len(), calls.len());
        for (found, meant) in answer.calls.iter().zip(&calls) {
            prop_assert!(found.complete);
            prop_assert_eq!(&found.name, &meant.name);
            prop_assert_eq!(arguments(found), Value::from(meant.arguments.clone()), "{}", text);
        }
    }

    /// Half an answer is no error, and what it holds so far does not depend on cuts.
    #[test]
    fn answers_that_break_off_are_read_as_far_as_they_go(
        format in prop::sample::select(Format::ALL.to_vec()),
        call in a_call(),
        part in 0.0f64..1.0,
    ) {
        let text = render(format, std::slice::from_ref(&call));
        let mut end = (text.len() as f64 * part) as usize;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let answer = parse_all_ways(format, &tools(std::slice::from_ref(&call)), &text[..end]);
        prop_assert!(answer.calls.len() <= 1);
        if let Some(found) = answer.calls.first() {
            prop_assert_eq!(&found.name, &call.name);
        }
    }

    /// Text that only looks like calls comes out as it is, but for white space around what may be one.
    #[test]
    fn text_without_a_call_is_text(format in prop::sample::select(Format::ALL.to_vec()), words in prop::collection::vec(a_text(), 0..6)) {
        let text = format!("So: {}", words.join(" "));
        let answer = parse_all_ways(format, &Tools::default(), &text);
        prop_assert_eq!(answer.text, text);
        prop_assert!(answer.calls.is_empty() && answer.warnings.is_empty());
    }
}

fn no_tools() -> Tools {
    Tools::default()
}

#[test]
fn a_malformed_call_becomes_text_and_nothing_is_lost() {
    for (format, text) in [
        (
            Format::Hermes,
            "Look: <tool_call>\n{\"name\": \"f\", \"arguments\": {oops}}\n</tool_call> done",
        ),
        (Format::Hermes, "<tool_call>\nprint(1)\n</tool_call>"),
        (Format::Hermes, "<tool_call>\n{\"arguments\": {}}\n</tool_call>"),
        (Format::DeepSeekV3, "<｜tool▁calls▁begin｜>nothing here"),
        (Format::DeepSeekV31, "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}} and so on"),
        (
            Format::Kimi,
            "<|tool_calls_section_begin|><|tool_call_begin|>a b:0<|tool_call_argument_begin|>{}<|tool_call_end|>",
        ),
        (Format::Glm, "<tool_call>f\n<arg_key>a</arg_key>\n<arg_key>b</arg_key></tool_call>"),
        (Format::QwenCoder, "<tool_call>\n<function=f>\nhello\n</function>\n</tool_call>"),
        (
            Format::MiniMax,
            "<minimax:tool_call>\n<invoke name=\"f\">\ntext</invoke>\n</minimax:tool_call>",
        ),
        (Format::Lfm2, "<|tool_call_start|>[f(1, 2)]<|tool_call_end|>"),
        (Format::Gemma4, "<|tool_call>f{a:1}<tool_call|>"),
        (Format::Gemma4, "<|tool_call>call:f{a:bare}<tool_call|>"),
        (Format::Gemma4, "<|tool_call>call:f{a:[1 2]}<tool_call|>"),
        (Format::Gemma4, "<|tool_call>call:f{a:1}, and so on"),
        (Format::Llama3, "{\"name\": \"unheard_of\", \"parameters\": {}}"),
        (Format::Llama3, "{\"city\": \"Paris\"}"),
        (Format::MistralNemo, "[TOOL_CALLS] none"),
        (
            Format::Harmony,
            "<|start|>assistant<|channel|>commentary to=functions.f<|message|>not JSON",
        ),
        (
            Format::DeepSeekV32,
            "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\ntext</｜DSML｜invoke>",
        ),
    ] {
        let tools = Tools::from_json(&json!([{"name": "f"}])).unwrap();
        let answer = parse_all_ways(format, &tools, text);
        assert_eq!(answer.text, text, "{format:?}");
        assert!(answer.calls.is_empty() && !answer.warnings.is_empty(), "{format:?} {answer:?}");
    }
}

/// A long call is not read again at each piece, so that its end may come only with the answer's.
#[test]
fn what_follows_a_long_call_does_not_depend_on_cuts() {
    let arguments = json!({"x": "word ".repeat(300)});
    let name = "long".to_string();
    let calls = [Meant { name, arguments: arguments.as_object().unwrap().clone() }];
    for format in Format::ALL {
        for after in ["", "\n", " \n\n", "Done.\n", "\n\nDone. \n", "<|im_end|>\n"] {
            let text = render(format, &calls) + after;
            let answer = parse_all_ways(format, &tools(&calls), &text);
            assert_eq!(answer.calls.len(), 1, "{format:?} {after:?}");
            // White space between the two belongs to neither.
            assert!(answer.text.ends_with(after.trim_start()), "{format:?} {after:?}");
        }
    }
}

#[test]
fn calls_before_a_malformed_one_stand() {
    let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\noops\n</tool_call>";
    let answer = parse_all_ways(Format::Hermes, &no_tools(), text);
    assert_eq!(answer.calls.len(), 1);
    assert_eq!(answer.text, "\n<tool_call>\noops\n</tool_call>");
}

#[test]
fn line_breaks_within_texts_are_made_json() {
    let text =
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"code\": \"a\n\tb\"}}\n</tool_call>";
    let answer = parse_all_ways(Format::Hermes, &no_tools(), text);
    assert_eq!(arguments(&answer.calls[0]), json!({"code": "a\n\tb"}));
}

#[test]
fn keys_come_in_any_order_and_objects_may_be_quoted() {
    for text in [
        "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>",
        "<tool_call>{\"type\": \"function\", \"name\": \"f\", \"parameters\": \"{\\\"a\\\": 1}\"}</tool_call>",
    ] {
        let answer = parse_all_ways(Format::Hermes, &no_tools(), text);
        assert_eq!(arguments(&answer.calls[0]), json!({"a": 1}));
    }
    let nothing =
        parse_all_ways(Format::Hermes, &no_tools(), "<tool_call>{\"name\": \"f\"}</tool_call>");
    assert_eq!(arguments(&nothing.calls[0]), json!({}));
}

#[test]
fn a_value_may_hold_its_own_end_marker() {
    let text = "<tool_call>\n<function=write>\n<parameter=text>\na\n</parameter>\nb\n</parameter>\n</function>\n</tool_call>";
    let answer = parse_all_ways(Format::QwenCoder, &no_tools(), text);
    assert_eq!(arguments(&answer.calls[0]), json!({"text": "a\n</parameter>\nb"}));
}

#[test]
fn values_between_tags_are_typed_by_the_schema() {
    let text = "<tool_call>f<arg_key>zip</arg_key><arg_value>01234</arg_value><arg_key>n</arg_key><arg_value>5</arg_value><arg_key>any</arg_key><arg_value>null</arg_value></tool_call>";
    let schema = json!([{"name": "f", "parameters": {"properties": {
        "zip": {"type": "string"}, "n": {"type": "integer"}, "any": {"type": ["string", "null"]},
    }}}]);
    let typed = parse_all_ways(Format::Glm, &Tools::from_json(&schema).unwrap(), text);
    assert_eq!(arguments(&typed.calls[0]), json!({"zip": "01234", "n": 5, "any": null}));
}

#[test]
fn a_call_without_arguments_is_found() {
    for text in ["<tool_call>f\n</tool_call>", "<tool_call>f</tool_call>"] {
        let answer = parse_all_ways(Format::Glm, &no_tools(), text);
        assert_eq!(
            (answer.calls[0].name.as_str(), answer.calls[0].arguments.as_str()),
            ("f", "{}")
        );
    }
}

#[test]
fn kimis_identifiers_are_kept_and_all_others_differ() {
    let calls = [
        Meant { name: "f".into(), arguments: Map::new() },
        Meant { name: "g".into(), arguments: Map::new() },
    ];
    let kimi = parse(Format::Kimi, &no_tools(), [render(Format::Kimi, &calls).as_str()]);
    assert_eq!(
        kimi.calls.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(),
        ["functions.f:0", "functions.g:1"]
    );
    let mut ids = std::collections::HashSet::new();
    for (format, len) in [(Format::Hermes, 29), (Format::Mistral, 9)] {
        for _ in 0..100 {
            let mut parser = ToolParser::of_text(format, no_tools());
            let mut answer = Answer::default();
            parser.push(&render(format, &calls)).iter().for_each(|event| answer.apply(event));
            for call in answer.calls {
                assert_eq!(call.id.len(), len);
                assert!(ids.insert(call.id));
            }
        }
    }
}

#[test]
fn distilled_models_write_markers_in_other_forms() {
    let text = "<｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜>f\n```json\n{\"a\": 1}\n```<｜tool_call_end｜><｜tool_calls_end｜>";
    let answer = parse_all_ways(Format::DeepSeekV3, &no_tools(), text);
    assert_eq!(arguments(&answer.calls[0]), json!({"a": 1}));
    assert_eq!(answer.text, "");
}

#[test]
fn gpt_oss_writes_the_recipient_in_two_places() {
    for text in [
        "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}",
        " to=functions.f<|channel|>commentary json<|message|>{\"a\": 1}",
        "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{\"a\": 1}<|call|>",
    ] {
        let answer = parse_all_ways(Format::Harmony, &no_tools(), text);
        assert_eq!(
            (answer.calls[0].name.as_str(), arguments(&answer.calls[0])),
            ("f", json!({"a": 1}))
        );
    }
}

#[test]
fn python_literals_are_understood() {
    let text = "<|tool_call_start|>[f(a='it\\'s', b=[1, .5, -2e3,], c={'k': (True, None)}, d=\"\"\"x\ny\"\"\", e=1_000, g='\\u00e9\\ud83d\\ude00')]<|tool_call_end|>";
    let answer = parse_all_ways(Format::Lfm2, &no_tools(), text);
    let expected = json!({"a": "it's", "b": [1, 0.5, -2e3], "c": {"k": [true, null]}, "d": "x\ny", "e": 1000, "g": "é😀"});
    assert_eq!(arguments(&answer.calls[0]), expected);
}

#[test]
fn gemmas_values_are_read_with_pythons_words_and_quoted_keys() {
    let text = "<|tool_call>call:f{a: <|\"|>x \"y\"\n{}<|\"|>, b:[1,-2.5e3,None],c:{k:True,<|\"|>two words<|\"|>:null},d:[],e:{}}<tool_call|>\n<|tool_call>call:now{}<tool_call|>";
    let answer = parse_all_ways(Format::Gemma4, &no_tools(), text);
    let expected = json!({"a": "x \"y\"\n{}", "b": [1, -2.5e3, null], "c": {"k": true, "two words": null}, "d": [], "e": {}});
    assert_eq!(arguments(&answer.calls[0]), expected);
    assert_eq!((answer.calls[1].name.as_str(), arguments(&answer.calls[1])), ("now", json!({})));
    assert_eq!(answer.text, "");
}

#[test]
fn llamas_other_forms_are_understood() {
    let tools = Tools::from_json(&json!([{"name": "f"}, {"name": "brave_search"}])).unwrap();
    for (text, name) in [
        ("<function=f>{\"q\": \"x\"}</function>", "f"),
        ("<|python_tag|>{\"name\": \"f\", \"parameters\": {\"q\": \"x\"}}", "f"),
        ("<|python_tag|>brave_search.call(q=\"x\")", "brave_search"),
        ("Let me. <function=f>{\"q\": \"x\"}</function>", "f"),
    ] {
        let answer = parse_all_ways(Format::Llama3, &tools, text);
        assert_eq!(
            (answer.calls[0].name.as_str(), arguments(&answer.calls[0])),
            (name, json!({"q": "x"}))
        );
    }
}

#[test]
fn a_format_is_known_by_its_template() {
    for (template, format) in [
        (
            "{{'<｜tool▁call▁begin｜>' + type + '<｜tool▁sep｜>' + name + '\\n```json'}}",
            Format::DeepSeekV3,
        ),
        ("{{'<｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>'}}", Format::DeepSeekV31),
        ("<｜DSML｜function_calls>", Format::DeepSeekV32),
        ("<｜DSML｜tool_calls>", Format::DeepSeekV4),
        ("<tool_call>\n{\"name\": ...}", Format::Hermes),
        ("<tool_call>\n<function=name>\n<parameter=p>", Format::QwenCoder),
        ("<tool_call>{name}<arg_key>", Format::Glm),
        ("<minimax:tool_call>\n<invoke name=\"name\">", Format::MiniMax),
        ("<|tool_calls_section_begin|><|tool_call_begin|>", Format::Kimi),
        ("<|start|>assistant<|channel|>commentary to=", Format::Harmony),
        ("{{- '<|tool_call>call:' + function['name'] + '{' -}}<|channel>", Format::Gemma4),
        ("<|tool_call_start|>", Format::Lfm2),
        ("<|python_tag|>", Format::Llama3),
        ("[TOOL_CALLS][", Format::MistralNemo),
        ("[TOOL_CALLS]name[ARGS]", Format::Mistral),
        ("{{ message.content }}", Format::Generic),
    ] {
        assert_eq!(Format::of_template(template), format);
    }
}

/// The reference model is made to call a tool; the call goes into the conversation, and back into the prompt to the byte.
#[test]
fn a_conversation_holds_calls_and_their_results() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    reference_file(&file);
    let model = AppModel::open(&file, &ModelOptions::default()).unwrap();
    let mut conversation = model.conversation().unwrap();
    let parameters = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 10, "maximum": 99}}, "required": ["n"]});
    conversation.set_tools(&json!([{"type": "function", "function": {"name": "double", "parameters": parameters}}]).to_string()).unwrap();
    let calls = conversation.calls().unwrap();
    assert_eq!(calls.format, Format::DeepSeekV3);
    let tokenizer = Tokenizer::from_folder(&reference()).unwrap();
    let compiler = Compiler::new(&tokenizer, &end_tokens(&tokenizer, &[])).unwrap();
    let rule = CallRule {
        format: calls.format,
        tools: &calls.tools,
        choice: &ToolChoice::Required,
        parallel: false,
    };
    let options = GenerationOptions {
        sampling: SamplingOptions { temperature: 0.8, seed: 3, ..SamplingOptions::default() },
        max_tokens: Some(400),
        grammar: compiler.compile_calls(&rule, &tokenizer).unwrap(),
        calls: Some(Arc::new(calls)),
        ..GenerationOptions::default()
    };
    let mut heard = Answer::default();
    let turn = conversation
        .answer(Some("What is 12 + 30?"), &options, &mut |event| {
            if let Event::Call(event) = event {
                heard.apply(event);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let [call] = &turn.generation.calls[..] else { panic!("{:?}", turn.generation) };
    assert_eq!(heard.calls, turn.generation.calls);
    assert_eq!(call.name, "double");
    assert!((10..=99).contains(&arguments(call)["n"].as_i64().unwrap()));
    assert!(
        turn.generation.raw.starts_with("<｜tool▁calls▁begin｜>")
            && turn.generation.answer.is_empty()
    );
    let said = conversation.messages().last().unwrap();
    assert_eq!(said.tool_calls.as_ref().unwrap()[0]["id"], call.id.as_str());

    assert!(conversation.add_tool_result("call_none", "84").is_err());
    conversation.add_tool_result(&call.id, "84").unwrap();
    let free = GenerationOptions {
        max_tokens: Some(4),
        sampling: SamplingOptions::greedy(),
        ..GenerationOptions::default()
    };
    let next = conversation.answer(None, &free, &mut |_| ControlFlow::Continue(())).unwrap();
    // All that stood before the reasoning, which the template leaves out, is not read again.
    assert!(
        next.generation.cached_tokens > 0
            && next.generation.prompt_tokens > next.generation.cached_tokens
    );
}

#[test]
fn a_long_call_is_read_in_time() {
    let value = "a\\n".repeat(200_000);
    let text = format!(
        "<tool_call>{{\"name\": \"f\", \"arguments\": {{\"x\": \"{value}\"}}}}</tool_call>"
    );
    let pieces: Vec<&str> =
        text.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).unwrap()).collect();
    let answer = parse(Format::Hermes, &no_tools(), pieces);
    assert_eq!(answer.calls[0].arguments.len(), value.len() + 9);
}
