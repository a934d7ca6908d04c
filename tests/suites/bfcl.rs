//! The Berkeley function-calling leaderboard's calls: each question's true calls are written in every format and read back,
//! whole, cut in two at every byte, and byte by byte. Its questions that no tool answers must have no calls.

use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};
use vaquita_runtime::session::text::TextStream;
use vaquita_runtime::session::tools::offer::Tools;
use vaquita_runtime::session::tools::{Answer, Format, ToolParser};
use vaquita_tests::calls::{Meant, render};

use crate::published::Published;

/// Files whose answers are lists of calls: 2,351 in all.
const ANSWERED: [&str; 8] = [
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
];
const IRRELEVANT: [&str; 2] = ["irrelevance", "live_irrelevance"];
/// Failures of a format that are printed.
const MOST_PRINTED: usize = 3;

/// A question's tools and the calls that answer it.
struct Question {
    id: String,
    tools: Tools,
    calls: Vec<Meant>,
}

/// Runs the suite on bfcl_eval's `data` folder, and returns whether all calls come back.
pub fn run(data: &Path) -> bool {
    let questions: Vec<Question> = ANSWERED.iter().flat_map(|name| answered(data, name)).collect();
    println!("{} questions with calls", questions.len());
    let mut right = true;
    for format in Format::ALL {
        right &= all_equal(&format!("{format:?}"), format, &questions, |calls| {
            Some(render(format, calls))
        });
    }
    for template in Published::all() {
        right &=
            all_equal(&template.name, template.format, &questions, |calls| template.render(calls));
    }
    let texts: Vec<String> = IRRELEVANT.iter().flat_map(|name| texts(data, name)).collect();
    for format in Format::ALL {
        let is_text = |text: &&String| {
            let answer = read(format, &Tools::default(), [text.as_bytes()]);
            answer.calls.is_empty() && answer.text == **text
        };
        // One text is the description of a tool, which in these formats is a call.
        let bare = matches!(format, Format::Llama3 | Format::Generic);
        let is_call = |text: &String| {
            let json = serde_json::from_str::<Value>(text);
            bare && json
                .is_ok_and(|json| json["name"].is_string() && json["parameters"].is_object())
        };
        let wrong: Vec<_> = texts.iter().filter(|text| !is_text(text) && !is_call(text)).collect();
        right &= wrong.is_empty();
        println!(
            "{format:?}: {} of {} texts without calls are read as something else",
            wrong.len(),
            texts.len()
        );
        wrong.iter().take(MOST_PRINTED).for_each(|text| println!("{text}"));
    }
    right
}

/// Reads every question's calls back from the text that `write` makes of them; `None` is a refusal of the template.
fn all_equal(
    name: &str,
    format: Format,
    questions: &[Question],
    write: impl Fn(&[Meant]) -> Option<String>,
) -> bool {
    let start = Instant::now();
    let (mut equal, mut refused, mut wrong, mut cuts) = (0, 0, 0, 0);
    for question in questions {
        let Some(text) = write(&question.calls) else {
            refused += 1;
            continue;
        };
        match read_back(format, question, &text) {
            Ok(read) => (equal, cuts) = (equal + 1, cuts + read),
            Err(problem) => {
                wrong += 1;
                if wrong <= MOST_PRINTED {
                    println!("{name}, {}: {problem}\n{text}", question.id);
                }
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{name}: {equal} equal, {wrong} wrong, {refused} refused, {cuts} cuts, {seconds:.0} s"
    );
    wrong == 0
}

/// The number of ways in which `text` was cut and gave the question's calls.
fn read_back(format: Format, question: &Question, text: &str) -> Result<usize, String> {
    let bytes = text.as_bytes();
    let whole = read(format, &question.tools, [bytes]);
    if !whole.warnings.is_empty() {
        return Err(format!("{:?}", whole.warnings));
    }
    if whole.calls.len() != question.calls.len() {
        return Err(format!("{} of {} calls", whole.calls.len(), question.calls.len()));
    }
    for (found, meant) in whole.calls.iter().zip(&question.calls) {
        let arguments = serde_json::from_str::<Value>(&found.arguments);
        let same = arguments.is_ok_and(|found| same(&found, &meant.arguments.clone().into()));
        if !found.complete || found.name != meant.name || !same {
            return Err(format!("{found:?} for {}({:?})", meant.name, meant.arguments));
        }
    }
    for at in 1..bytes.len() {
        if read(format, &question.tools, [&bytes[..at], &bytes[at..]]) != whole {
            return Err(format!("cut at byte {at}"));
        }
    }
    match read(format, &question.tools, bytes.chunks(1)) == whole {
        true => Ok(bytes.len() + 1),
        false => Err("byte by byte".into()),
    }
}

fn read<'a>(format: Format, tools: &Tools, pieces: impl IntoIterator<Item = &'a [u8]>) -> Answer {
    let mut parser = ToolParser::of_text(format, tools.clone());
    let (mut text, mut answer) = (TextStream::default(), Answer::default());
    for piece in pieces {
        parser.push(&text.push(piece)).iter().for_each(|event| answer.apply(event));
    }
    parser.push(&text.flush()).iter().for_each(|event| answer.apply(event));
    parser.finish().iter().for_each(|event| answer.apply(event));
    answer.calls.iter_mut().for_each(|call| call.id.clear());
    answer
}

/// Equality of JSON values: `1` and `1.0` are one number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let equal = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| same(a, b));
            a.len() == b.len() && a.iter().all(equal)
        }
        (a, b) => a == b,
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn answered(data: &Path, name: &str) -> Vec<Question> {
    let file = format!("BFCL_v4_{name}.json");
    let answers = lines(&data.join("possible_answer").join(&file));
    let questions = lines(&data.join(file));
    assert_eq!(questions.len(), answers.len(), "{name}");
    questions
        .iter()
        .zip(&answers)
        .map(|(question, answer)| read_question(question, answer))
        .collect()
}

/// The user's messages of each question of a file.
fn texts(data: &Path, name: &str) -> Vec<String> {
    let all = lines(&data.join(format!("BFCL_v4_{name}.json")));
    let last = |question: &Value| {
        question["question"][0].as_array()?.last()?["content"].as_str().map(String::from)
    };
    all.iter().filter_map(last).collect()
}

fn read_question(question: &Value, answer: &Value) -> Question {
    let id = question["id"].as_str().expect("a question has an identifier").to_string();
    assert_eq!(answer["id"], *id);
    let mut tools: Vec<Value> = question["function"].as_array().expect("tools").clone();
    tools.iter_mut().for_each(|tool| to_json_schema(&mut tool["parameters"]));
    let mut calls = Vec::new();
    for call in answer["ground_truth"].as_array().expect("calls") {
        let (name, truth) = call.as_object().and_then(|call| call.iter().next()).expect("a call");
        let tool = tools.iter_mut().find(|tool| tool["name"] == **name).expect("its tool");
        let properties = &mut tool["parameters"]["properties"];
        let mut arguments = Map::new();
        for (key, acceptable) in truth.as_object().expect("arguments") {
            let Some(value) = first(acceptable, &properties[key]) else { continue };
            allow(&mut properties[key], &value);
            arguments.insert(key.clone(), value);
        }
        calls.push(Meant { name: name.clone(), arguments });
    }
    let tools = Tools::from_json(&tools.into()).unwrap_or_else(|error| panic!("{id}: {error}"));
    Question { id, tools, calls }
}

/// Gives BFCL's types, which are Python's, the names of JSON Schema.
fn to_json_schema(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(kind) = members.get("type").and_then(Value::as_str) {
                match kind {
                    "dict" => drop(members.insert("type".into(), json!("object"))),
                    "float" => drop(members.insert("type".into(), json!("number"))),
                    "tuple" => drop(members.insert("type".into(), json!("array"))),
                    "any" => drop(members.remove("type")),
                    _ => {}
                }
            }
            members.values_mut().for_each(to_json_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(to_json_schema),
        _ => {}
    }
}

/// The first of the acceptable values that has the schema's type, or else the first; `None` if the argument may be left out,
/// which an empty text stands for, and has no other value. Members of objects have lists of acceptable values themselves.
fn first(acceptable: &Value, schema: &Value) -> Option<Value> {
    let all = acceptable.as_array()?;
    let given = || all.iter().filter(|value| *value != "");
    let value = given().find(|value| fits(value, schema)).or_else(|| given().next())?;
    Some(chosen(value, schema))
}

fn chosen(value: &Value, schema: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let member = |(key, acceptable): (&String, &Value)| {
                Some((key.clone(), first(acceptable, &schema["properties"][key])?))
            };
            Value::Object(members.iter().filter_map(member).collect())
        }
        Value::Array(items) => items.iter().map(|item| chosen(item, &schema["items"])).collect(),
        scalar => scalar.clone(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn fits(value: &Value, schema: &Value) -> bool {
    match (schema["type"].as_str(), type_of(value)) {
        (None, _) | (Some("number"), "integer") => true,
        (Some(declared), found) => declared == found,
    }
}

/// Adds the type of `value` to a schema of other types: some of BFCL's answers do not have their tool's types.
fn allow(schema: &mut Value, value: &Value) {
    if schema.is_object() && !fits(value, schema) {
        schema["type"] = json!([schema["type"], type_of(value)]);
    }
}
