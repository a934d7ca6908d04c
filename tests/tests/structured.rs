//! Structured output on real tokenizers and on the reference model: what a rule allows, refuses, and makes a model say.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};
use vaquita_runtime::session::constraint::{Constraint, Grammar, end_tokens};
use vaquita_runtime::session::generate::{GenerationOptions, StopReason, generate};
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::text::TextStream;
use vaquita_runtime::session::tools::offer::{ToolChoice, Tools};
use vaquita_runtime::session::tools::{Answer, Format, ToolParser};
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::structured::{CallRule, Compiler, Rule, StructuredError};
use vaquita_runtime::threads::Pool;
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_tests::{golden, open_folder, reference};

/// A tokenizer, the tokens that end its answers, and their grammars.
struct Subject {
    tokenizer: Arc<Tokenizer>,
    ends: Vec<u32>,
    compiler: Compiler,
}

impl Subject {
    fn new(name: &str, end: &str) -> Self {
        let file = std::fs::read(golden("tokenizer").join(name)).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        let tokenizer = Tokenizer::from_json(file["tokenizer"].to_string().as_bytes()).unwrap();
        let tokenizer = Arc::new(tokenizer);
        let ends = vec![tokenizer.token_to_id(end).unwrap()];
        let compiler = Compiler::new(&tokenizer, &ends).unwrap();
        Self { tokenizer, ends, compiler }
    }

    fn allows(&self, rule: &Rule, text: &str) -> bool {
        let grammar = self.compiler.compile(rule).unwrap();
        self.follow(&*grammar, &self.tokens(text))
    }

    /// Tokens of exactly `text`, the longest first: SentencePiece puts a blank before it.
    fn tokens(&self, text: &str) -> Vec<u32> {
        let mut rest = text.as_bytes();
        let mut tokens = Vec::new();
        while !rest.is_empty() {
            let text_of =
                |id: &u32| self.tokenizer.piece(*id).filter(|_| !self.tokenizer.is_special(*id));
            let fits =
                |id: &u32| text_of(id).is_some_and(|p| !p.is_empty() && rest.starts_with(&p));
            let all = (0..self.tokenizer.vocab_size() as u32).filter(fits);
            let token = all.max_by_key(|id| text_of(id).map(|p| p.len())).unwrap();
            rest = &rest[text_of(&token).unwrap().len()..];
            tokens.push(token);
        }
        tokens
    }

    /// Whether `tokens` and then an end are allowed, one after the other.
    fn follow(&self, grammar: &dyn Grammar, tokens: &[u32]) -> bool {
        let mut constraint = grammar.begin().unwrap();
        for token in tokens {
            if !self.allowed(&mut *constraint).contains(token) {
                eprintln!("{token} {:?} refused", self.tokenizer.piece(*token));
                return false;
            }
            constraint.accept(*token).unwrap();
        }
        self.allowed(&mut *constraint).contains(&self.ends[0])
    }

    fn allowed(&self, constraint: &mut dyn Constraint) -> Vec<u32> {
        let mut logits = vec![0.0; self.tokenizer.vocab_size() + 5];
        match constraint.mask(&mut logits) {
            Ok(()) => {}
            Err(_) => return Vec::new(),
        }
        // Rows of the model that no token has are banned where anything is.
        let banned = logits.contains(&f32::NEG_INFINITY);
        let beyond = &logits[self.tokenizer.vocab_size()..];
        assert!(!banned || beyond.iter().all(|x| *x == f32::NEG_INFINITY));
        (0..).zip(&logits).filter(|(_, x)| **x == 0.0).map(|(token, _)| token).collect()
    }
}

static BYTE_LEVEL: LazyLock<Subject> =
    LazyLock::new(|| Subject::new("deepseek-v3.json", "<|eos|>"));
static BYTE_FALLBACK: LazyLock<Subject> = LazyLock::new(|| Subject::new("llama-spm.json", "</s>"));

/// Its vocabulary has DeepSeek's markers as control tokens.
static REFERENCE: LazyLock<Subject> = LazyLock::new(|| {
    let tokenizer = Arc::new(Tokenizer::from_folder(&reference()).unwrap());
    let ends = end_tokens(&tokenizer, &[]);
    let compiler = Compiler::new(&tokenizer, &ends).unwrap();
    Subject { tokenizer, ends, compiler }
});

fn both() -> [&'static Subject; 2] {
    [&BYTE_LEVEL, &BYTE_FALLBACK]
}

fn schema(schema: Value) -> Rule {
    Rule::JsonSchema { schema, strict: false }
}

#[test]
fn a_schema_allows_what_is_valid_and_nothing_else() {
    let rule = schema(json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "ages": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "kind": {"enum": ["a\"b", null, 1.5]},
        },
        "required": ["name", "ages"],
    }));
    for subject in both() {
        for good in [
            r#"{"name":"é語","ages":[0,12]}"#,
            "{\n  \"name\": \"\",\n  \"ages\": [\n    7\n  ],\n  \"kind\": \"a\\\"b\"\n}",
            r#"{"name": "a", "ages": [1], "kind": null, "more": {"x": [true]}}"#,
        ] {
            assert!(subject.allows(&rule, good), "{good}");
        }
        for bad in [
            r#"{"name":"abcdef","ages":[0]}"#,
            r#"{"name":"a","ages":[]}"#,
            r#"{"name":"a","ages":[-1]}"#,
            r#"{"name":"a"}"#,
            r#"{"name":"a","ages":[1],"kind":2}"#,
            r#"{"name":"a","ages":[1]} x"#,
            "",
            // White space is bounded.
            "{\n\n\"name\":\"a\",\"ages\":[1]}",
            "{                    \"name\":\"a\",\"ages\":[1]}",
        ] {
            assert!(!subject.allows(&rule, bad), "{bad}");
        }
    }
}

#[test]
fn any_object_is_an_object() {
    for subject in both() {
        assert!(subject.allows(&Rule::JsonObject, r#"{"a": [1, {"b": "é\n"}]}"#));
        assert!(!subject.allows(&Rule::JsonObject, "[1]"));
    }
}

#[test]
fn a_gbnf_grammar_allows_every_sentence_of_it() {
    // "if" may be two letters, too: a lexer that takes the longest terminal would refuse "ify".
    let grammar = "root ::= \"if\" \"x\" | [a-z] [a-z] \"y\" | list\nlist ::= \"[\" (item (\",\" item)*)? \"]\"\nitem ::= [0-9]{1,3} | [^0-9,\\]é]+ | list";
    let rule = Rule::Gbnf(grammar.into());
    for subject in both() {
        for good in ["ifx", "ify", "aby", "[]", "[1,22,[a b,語]]"] {
            assert!(subject.allows(&rule, good), "{good}");
        }
        for bad in ["if", "abx", "[1234]", "[é]", "[1,]"] {
            assert!(!subject.allows(&rule, bad), "{bad}");
        }
    }
}

#[test]
fn lark_regular_expressions_and_choices_hold_the_whole_answer() {
    let lark = Rule::Lark("start: \"x=\" NUMBER\nNUMBER: /[0-9]+/".into());
    let regex = Rule::Regex(r"(\d{3}-)?\d{4}/[a-z]".into());
    let choice = Rule::Choice(["a", "ab", "c/d\n", "é*"].map(String::from).into());
    for subject in both() {
        assert!(subject.allows(&lark, "x=12") && !subject.allows(&lark, "x="));
        assert!(subject.allows(&regex, "123-4567/a") && !subject.allows(&regex, "123-4567/ab"));
        for good in ["a", "ab", "c/d\n", "é*"] {
            assert!(subject.allows(&choice, good), "{good}");
        }
        assert!(!subject.allows(&choice, "abc") && !subject.allows(&choice, "e*"));
    }
}

#[test]
fn control_tokens_are_never_allowed_but_for_an_end() {
    let anything = Rule::Regex(r"(?s:.)*".into());
    for subject in both() {
        let grammar = subject.compiler.compile(&anything).unwrap();
        let allowed = subject.allowed(&mut *grammar.begin().unwrap());
        let control = allowed.iter().filter(|token| subject.tokenizer.is_special(**token));
        assert_eq!(control.copied().collect::<Vec<_>>(), subject.ends);
        assert!(allowed.len() > subject.tokenizer.vocab_size() / 2);
        for text in ["start: <|endoftext|>", "start: <[0-9]>", "start: <[*]>"] {
            let refused = subject.compiler.compile(&Rule::Lark(text.into()));
            assert!(matches!(refused, Err(StructuredError::Grammar { .. })), "{text}");
        }
    }
}

#[test]
fn rules_that_cannot_be_enforced_are_refused_before_any_token() {
    let compile = |rule: Rule| match BYTE_LEVEL.compiler.compile(&rule) {
        Ok(_) => panic!("{rule:?}"),
        Err(error) => error.to_string(),
    };
    let unique = compile(schema(json!({"properties": {"a": {"uniqueItems": true}}})));
    assert!(unique.starts_with("#/properties/a/uniqueItems: "), "{unique}");
    for rule in [
        schema(json!({"oneOf": [{"type": "integer"}, {"type": "number"}]})),
        schema(json!({"type": "string", "format": "no-such-format"})),
        schema(json!({"type": "no-such-type"})),
        schema(json!({"type": "integer", "minimum": 3, "maximum": 2})),
        schema(json!({"type": "object", "properties": {"a": false}, "required": ["a"]})),
        schema(json!({"pattern": "(?<=a)b"})),
        schema(json!(false)),
        schema(json!(3)),
        Rule::Lark("start: nothing".into()),
        Rule::Regex("a(".into()),
        Rule::Choice(vec![]),
        Rule::Regex(format!("{}a{}", "(".repeat(3000), ")".repeat(3000))),
        Rule::Gbnf(format!("root ::= {}", "(".repeat(60_000))),
    ] {
        compile(rule);
    }
}

/// Inputs that crashed or hung other servers.
#[test]
fn hostile_rules_end_in_time() {
    let nested =
        |depth: usize| (0..depth).fold(json!({}), |inner, _| json!({"properties": {"a": inner}}));
    for rule in [
        schema(json!({"pattern": "((a{0,1000}){0,1000}){0,1000}"})),
        schema(json!({"pattern": "(a|a)*(a|a)*(a|a)*b"})),
        schema(json!({"maxLength": 1_000_000, "minLength": 999_999})),
        schema(
            json!({"items": {"items": {"items": {"minItems": 9999}, "minItems": 9999}, "minItems": 9999}}),
        ),
        schema(json!({"description": "é".repeat(150), "$ref": "#"})),
        schema(json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]})),
        schema(json!({"const": "é".repeat(150), "enum": ["é".repeat(99), 1]})),
        schema(json!({"type": ["é".repeat(150)]})),
        schema(json!({"minimum": "é".repeat(150)})),
        schema(json!({"multipleOf": 0.000_001, "minimum": 1e300})),
        schema(
            json!({"multipleOf": 0.000_123, "allOf": [{"multipleOf": 999_983}, {"multipleOf": 0.777_777}]}),
        ),
        schema(nested(60)),
        Rule::Gbnf("root ::= (\"a\"{0,9999}){0,9999}".into()),
        Rule::Gbnf("root ::= root | \"a\" root \"b\" | \"\"".into()),
        Rule::Gbnf("root ::= x x x x x x x x\nx ::= y y y y y y y y\ny ::= [^x]*".into()),
        Rule::Lark("start: start start | \"a\" | \"\"".into()),
    ] {
        // Whether it compiles does not matter; that it comes back does.
        if let Ok(grammar) = BYTE_LEVEL.compiler.compile(&rule) {
            let mut constraint = grammar.begin().unwrap();
            let mut logits = vec![0.0; BYTE_LEVEL.tokenizer.vocab_size()];
            let _ = constraint.mask(&mut logits);
        }
    }
}

#[test]
fn rolling_back_restores_the_mask() {
    let rule = schema(json!({"type": "array", "items": {"enum": ["abc", "abd", 12]}}));
    for subject in both() {
        let grammar = subject.compiler.compile(&rule).unwrap();
        let mut constraint = grammar.begin().unwrap();
        let tokens = subject.tokens("[\"abc\", 12]");
        let mut masks = vec![subject.allowed(&mut *constraint)];
        for token in &tokens {
            constraint.accept(*token).unwrap();
            masks.push(subject.allowed(&mut *constraint));
        }
        constraint.accept(subject.ends[0]).unwrap();
        constraint.rollback(1).unwrap();
        for back in (0..tokens.len()).rev() {
            constraint.rollback(1).unwrap();
            assert_eq!(subject.allowed(&mut *constraint), masks[back]);
        }
        assert!(constraint.rollback(1).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any walk through allowed tokens is valid JSON of the schema's shape, and never gets stuck.
    #[test]
    fn every_walk_gives_a_valid_answer(choices in prop::collection::vec(any::<u32>(), 60), level: bool) {
        let subject: &Subject = if level { &BYTE_LEVEL } else { &BYTE_FALLBACK };
        let rule = schema(json!({
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": ["integer", "null"]}, "c": {"type": "array", "items": {"type": "boolean"}}},
            "required": ["a", "b", "c"],
            "additionalProperties": false,
        }));
        let grammar = subject.compiler.compile(&rule).unwrap();
        let mut constraint = grammar.begin().unwrap();
        let mut tokens = Vec::new();
        let mut ended = false;
        for step in 0..400 {
            let allowed = subject.allowed(&mut *constraint);
            prop_assert!(!allowed.is_empty(), "stuck after {:?}", subject.tokenizer.decode(&tokens));
            // At random, then by the shortest way: the tokens that close what is open are short.
            let token = match choices.get(step) {
                Some(choice) => allowed[*choice as usize % allowed.len()],
                None => {
                    let piece = |token: &u32| subject.tokenizer.piece(*token).unwrap_or_default();
                    let closes = |token: &&u32| ["\"", "}", "]"].iter().any(|end| piece(token) == end.as_bytes());
                    let end = allowed.iter().find(|token| subject.ends.contains(token));
                    *end.or(allowed.iter().find(closes)).unwrap_or(&allowed[0])
                }
            };
            if subject.ends.contains(&token) {
                ended = true;
                break;
            }
            constraint.accept(token).unwrap();
            tokens.push(token);
        }
        if ended {
            let bytes: Vec<u8> = tokens.iter().filter_map(|t| subject.tokenizer.piece(*t)).flatten().collect();
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            prop_assert_eq!(keys, ["a", "b", "c"]);
            prop_assert!(value["a"].is_string() && value["c"].is_array());
            prop_assert!(value["b"].is_null() || value["b"].is_number());
        }
    }
}

/// A text that a schema asks for may look like the end of reasoning.
#[test]
fn tags_within_a_constrained_answer_are_text() {
    let model = open_folder(&reference());
    let tokenizer = &REFERENCE.tokenizer;
    let rule = schema(json!({"const": {"a": "x</think>y<think>z"}}));
    for reasoning_open in [false, true] {
        let end = if reasoning_open { "" } else { "\n</think>\n\n" };
        let prompt = format!("<｜User｜>What is 12 + 30?<｜Assistant｜><think>\n{end}");
        let options = GenerationOptions {
            sampling: SamplingOptions::greedy(),
            max_tokens: Some(300),
            reasoning_open,
            grammar: Some(REFERENCE.compiler.compile(&rule).unwrap()),
            ..GenerationOptions::default()
        };
        let prompt = tokenizer.encode(&prompt, true).unwrap();
        let mut session =
            Session::new(model.clone(), Arc::new(Pool::new(2)), SessionOptions::default());
        let answer =
            generate(
                &mut session,
                tokenizer,
                &prompt,
                &options,
                &mut |_| ControlFlow::Continue(()),
            )
            .unwrap();
        assert_eq!(answer.stop, StopReason::EndOfSentence);
        assert_eq!(
            serde_json::from_str::<Value>(&answer.answer).unwrap()["a"],
            "x</think>y<think>z"
        );
        assert_eq!(answer.reasoning.is_empty(), !reasoning_open);
    }
}

/// Two tools, one with typed arguments of every kind, one with none.
fn tools() -> Tools {
    let place = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "unit": {"type": "string", "enum": ["C", "F"]},
            "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        },
        "required": ["city", "unit"],
    });
    let json = json!([{"name": "get_weather", "parameters": place}, {"name": "now"}]);
    Tools::from_json(&json).unwrap()
}

/// A walk through what `constraint` allows, that ends as soon as it may after `steps` random choices.
fn walk(
    subject: &Subject,
    constraint: &mut dyn Constraint,
    mut random: u64,
    steps: usize,
) -> Vec<u32> {
    let mut tokens = Vec::new();
    for step in 0..600 {
        let allowed = subject.allowed(constraint);
        assert!(!allowed.is_empty(), "stuck after {:?}", subject.tokenizer.decode(&tokens));
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let at_random = allowed[(random >> 33) as usize % allowed.len()];
        let piece = |token: &u32| subject.tokenizer.piece(*token).unwrap_or_default();
        let is = |texts: &[&str]| {
            allowed.iter().copied().find(|t| texts.iter().any(|text| piece(t) == text.as_bytes()))
        };
        let end = allowed.iter().copied().find(|token| subject.ends.contains(token));
        // Tokens that close what is open, a character at a time.
        let close = || is(&["\"", "}", "]", "</", "<", "/", ";", ")", "|", ">"]);
        let token = if step < steps { at_random } else { end.or_else(close).unwrap_or(at_random) };
        if subject.ends.contains(&token) {
            return tokens;
        }
        constraint.accept(token).unwrap();
        tokens.push(token);
    }
    Vec::new()
}

/// Whatever the grammar of a format lets a model write is read back as calls of these tools.
#[test]
fn constrained_calls_are_always_read() {
    let tools = tools();
    let mut read = 0;
    for subject in [&*BYTE_LEVEL, &*REFERENCE] {
        for format in Format::ALL {
            let rule =
                CallRule { format, tools: &tools, choice: &ToolChoice::Required, parallel: true };
            let grammar =
                subject.compiler.compile_calls(&rule, &subject.tokenizer).unwrap().unwrap();
            for seed in 0..8 {
                let tokens = walk(subject, &mut *grammar.begin().unwrap(), seed, 4 * seed as usize);
                if tokens.is_empty() {
                    continue; // a text that never closed
                }
                let mut parser = ToolParser::new(format, tools.clone(), &subject.tokenizer);
                let mut answer = Answer::default();
                let mut stream = TextStream::default();
                for token in &tokens {
                    let piece = subject.tokenizer.piece(*token).unwrap();
                    let marker = parser.piece(*token, &String::from_utf8_lossy(&piece));
                    let text = marker.unwrap_or_else(|| stream.push(&piece));
                    parser.push(&text).iter().for_each(|event| answer.apply(event));
                }
                parser.finish().iter().for_each(|event| answer.apply(event));
                let text = subject.tokenizer.decode(&tokens);
                assert!(
                    answer.text.is_empty() && answer.warnings.is_empty(),
                    "{format:?} {text:?} {answer:?}"
                );
                assert!(!answer.calls.is_empty(), "{format:?} {text:?}");
                for call in &answer.calls {
                    assert!(
                        call.complete && tools.get(&call.name).is_some(),
                        "{format:?} {text:?}"
                    );
                    let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
                    if call.name == "get_weather" {
                        assert!(
                            ["C", "F"].contains(&arguments["unit"].as_str().unwrap()),
                            "{text:?}"
                        );
                        assert!(
                            arguments["days"].is_null()
                                || (1..=9).contains(&arguments["days"].as_i64().unwrap())
                        );
                    }
                }
                read += 1;
            }
        }
    }
    assert!(read > 120, "{read}");
}

#[test]
fn a_choice_of_tools_is_kept() {
    let (tools, format) = (tools(), Format::DeepSeekV3);
    let compile = |choice: &ToolChoice| {
        let rule = CallRule { format, tools: &tools, choice, parallel: false };
        REFERENCE.compiler.compile_calls(&rule, &REFERENCE.tokenizer)
    };
    assert!(compile(&ToolChoice::None).unwrap().is_none());
    assert!(compile(&ToolChoice::Named("other".into())).is_err());
    let begin = REFERENCE.tokenizer.token_to_id("<｜tool▁calls▁begin｜>").unwrap();
    let required = compile(&ToolChoice::Named("now".into())).unwrap().unwrap();
    assert_eq!(REFERENCE.allowed(&mut *required.begin().unwrap()), [begin]);
    let call = walk(&REFERENCE, &mut *required.begin().unwrap(), 1, 0);
    let text = REFERENCE.tokenizer.decode(&call);
    assert!(
        text.starts_with(
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{"
        ),
        "{text}"
    );
    assert_eq!(text.matches("<｜tool▁call▁end｜>").count(), 1);
    // Free text, and from the marker on a call.
    let auto = compile(&ToolChoice::Auto).unwrap().unwrap();
    let mut constraint = auto.begin().unwrap();
    let words = REFERENCE.tokens("Let me look. ");
    for token in &words {
        assert!(REFERENCE.allowed(&mut *constraint).len() > 1000);
        constraint.accept(*token).unwrap();
    }
    constraint.accept(begin).unwrap();
    assert!(REFERENCE.allowed(&mut *constraint).len() < 3);
    constraint.rollback(1).unwrap();
    assert!(REFERENCE.allowed(&mut *constraint).len() > 1000);
}

/// The reference model, hot, with and without reasoning.
#[test]
fn a_model_answers_in_json_after_it_has_thought() {
    let model = open_folder(&reference());
    let tokenizer = Arc::new(Tokenizer::from_folder(&reference()).unwrap());
    let ends = end_tokens(&tokenizer, &model.config().eos_token_ids);
    let compiler = Compiler::new(&tokenizer, &ends).unwrap();
    let rule = schema(json!({
        "type": "object",
        "properties": {"result": {"type": "integer", "minimum": 0, "maximum": 999}, "sure": {"type": "boolean"}},
        "required": ["result", "sure"],
        "additionalProperties": false,
    }));
    let grammar = compiler.compile(&rule).unwrap();
    let pool = Arc::new(Pool::new(2));
    let mut thoughts = 0;
    for (seed, reasoning_open) in [(1, false), (2, false), (3, true), (4, true), (5, true)] {
        let prompt = match reasoning_open {
            true => "<｜User｜>What is 12 + 30?<｜Assistant｜><think>\n",
            false => "<｜User｜>What is 12 + 30?<｜Assistant｜><think>\n\n</think>\n\n",
        };
        let prompt = tokenizer.encode(prompt, true).unwrap();
        let options = GenerationOptions {
            sampling: SamplingOptions {
                temperature: 1.5,
                seed,
                presence_penalty: 0.5,
                ..SamplingOptions::default()
            },
            max_tokens: Some(300),
            reasoning_open,
            grammar: Some(grammar.clone()),
            logprobs: Some(2),
            ..GenerationOptions::default()
        };
        let mut session = Session::new(model.clone(), pool.clone(), SessionOptions::default());
        let answer = generate(&mut session, &tokenizer, &prompt, &options, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        thoughts += answer.reasoning.len();
        assert_eq!(answer.logprobs.len(), answer.tokens.len());
        assert!(
            answer
                .logprobs
                .iter()
                .all(|l| l.top.len() == 2 && l.picked.logprob <= l.top[0].logprob)
        );
        match answer.stop {
            StopReason::EndOfSentence => {
                let value: Value = serde_json::from_str(&answer.answer).expect(&answer.answer);
                assert!(value["result"].as_u64().unwrap() < 1000 && value["sure"].is_boolean());
            }
            // It thinks on.
            stop => assert_eq!((stop, answer.answer.as_str()), (StopReason::Length, "")),
        }
    }
    assert!(thoughts > 0);
}
