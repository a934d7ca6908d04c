//! Grammar of the arguments in Gemma 4's calls: objects whose keys have no quotes, and texts between
//! marks. Numbers, truth values and null are JSON, and as exact as their schemas. Members are in the
//! order of their names, as the template writes them.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::StructuredError;
use super::tools::{Writer, object};
use crate::session::tools::GEMMA_QUOTE;
use crate::session::tools::offer::Tool;

/// Rules of values without a schema. Numbers are short, so that all readers of JSON have them.
const ANY: &str = r#"gemma_any: gemma_text | gemma_number | "true" | "false" | "null" | gemma_object | gemma_list
gemma_number: /-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?/
gemma_key: /[A-Za-z_][A-Za-z0-9_]{0,63}/
gemma_member: gemma_key ":" gemma_any
gemma_object: "{}" | "{" gemma_member ("," gemma_member)* "}"
gemma_list: "[]" | "[" gemma_any ("," gemma_any)* "]"
"#;

/// A keyword that the format cannot enforce.
struct Refused(String);

impl Writer<'_> {
    /// Writes rules for a tool's arguments, with their brackets, and returns the name of the first.
    pub(super) fn gemma(&mut self, number: usize, tool: &Tool) -> Result<String, StructuredError> {
        let schema = object(tool)?;
        if !self.rules.contains(ANY) {
            let quote = self.lit(GEMMA_QUOTE);
            // Without a token for the mark, a text ends where one may begin.
            let text = match self.tokenizer.token_to_id(GEMMA_QUOTE) {
                Some(_) => "/(.|\\n)*/",
                None => "/([^<]|<+[^<|])*/",
            };
            // A String takes all.
            let _ = write!(self.rules, "gemma_text: {quote} {text} {quote}\n{ANY}");
        }
        let mut rules = Rules { writer: self, number, count: 0, definitions: BTreeMap::new() };
        match rules.of(&schema, &schema) {
            Ok(expression) => {
                let name = rules.name();
                let _ = writeln!(self.rules, "{name}: {expression}");
                Ok(name)
            }
            Err(_) if !tool.strict => Ok("gemma_object".into()),
            Err(Refused(keyword)) => {
                let problem = "cannot be enforced in this model's format of calls";
                let path = format!("#/{keyword}");
                Err(StructuredError::Schema { path, problem: problem.into() })
            }
        }
    }
}

/// Writes the rules of one tool.
struct Rules<'a, 'b> {
    writer: &'a mut Writer<'b>,
    number: usize,
    count: usize,
    /// Rules of the schemas that are referred to, by name.
    definitions: BTreeMap<String, String>,
}

impl Rules<'_, '_> {
    fn name(&mut self) -> String {
        self.count += 1;
        format!("gemma{}_{}", self.number, self.count)
    }

    fn rule(&mut self, name: &str, expression: &str) {
        let _ = writeln!(self.writer.rules, "{name}: {expression}"); // a String takes all
    }

    /// Returns an expression for the values of a reduced schema.
    fn of(&mut self, schema: &Value, root: &Value) -> Result<String, Refused> {
        let Some(map) = schema.as_object() else {
            return match schema {
                Value::Bool(false) => Err(Refused("false".into())),
                _ => Ok("gemma_any".into()),
            };
        };
        if let Some(name) = map.get("$ref").and_then(Value::as_str) {
            return self.referred(name, root);
        }
        if let Some(choices) = map.get("enum").and_then(Value::as_array) {
            return self.choices(choices);
        }
        if let Some(value) = map.get("const") {
            return self.choices(std::slice::from_ref(value));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(all) = map.get(key).and_then(Value::as_array) {
                only(map, &[key])?;
                let all =
                    all.iter().map(|one| self.of(one, root)).collect::<Result<Vec<_>, _>>()?;
                return Ok(format!("({})", all.join(" | ")));
            }
        }
        match &map.get("type") {
            None => only(map, &[]).map(|()| "gemma_any".into()),
            Some(Value::String(kind)) => self.typed(kind, map, root),
            Some(Value::Array(kinds)) => {
                let each = kinds.iter().filter_map(Value::as_str);
                // What belongs to another type is left out of the schema of this one.
                let all = each.map(|kind| {
                    let mut map = map.clone();
                    map.retain(|key, _| {
                        belongs(key, kind) || !KINDS.iter().any(|k| belongs(key, k))
                    });
                    self.typed(kind, &map, root)
                });
                Ok(format!("({})", all.collect::<Result<Vec<_>, _>>()?.join(" | ")))
            }
            Some(_) => Err(Refused("type".into())),
        }
    }

    fn typed(
        &mut self,
        kind: &str,
        map: &Map<String, Value>,
        root: &Value,
    ) -> Result<String, Refused> {
        match kind {
            "string" => only(map, &["type"]).map(|()| "gemma_text".into()),
            "object" => self.object(map, root),
            "array" => self.array(map, root),
            _ => {
                let mut scalar = map.clone();
                scalar.insert("type".into(), kind.into());
                scalar.retain(|key, _| !["$defs", "x-guidance"].contains(&key.as_str()));
                let name = self.name();
                self.rule(&name, &format!("%json {}", Value::from(scalar)));
                Ok(name)
            }
        }
    }

    fn object(&mut self, map: &Map<String, Value>, root: &Value) -> Result<String, Refused> {
        only(map, &["type", "properties", "required", "additionalProperties"])?;
        let none = Map::new();
        let properties = map.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let required = map.get("required").and_then(Value::as_array);
        let is_required = |key: &str| required.is_some_and(|all| all.iter().any(|one| one == key));
        if required.is_some_and(|all| {
            all.iter().any(|one| one.as_str().is_none_or(|key| !properties.contains_key(key)))
        }) {
            return Err(Refused("required".into()));
        }
        if properties.is_empty() {
            return Ok(match map.get("additionalProperties") {
                Some(Value::Bool(false)) => "\"{}\"".into(),
                None | Some(Value::Bool(true)) => "gemma_object".into(),
                Some(_) => return Err(Refused("additionalProperties".into())),
            });
        }
        let mut keys: Vec<&String> = properties.keys().collect();
        keys.sort_by_key(|key| key.to_lowercase());
        let mut parts = Vec::new();
        for key in keys {
            if key.is_empty() || key.contains([':', '{', '}', '[', ']', ',', '\n', '<']) {
                return Err(Refused(format!("properties/{key}")));
            }
            let (value, name) = (self.of(&properties[key], root)?, self.name());
            self.rule(&name, &format!("{} {value}", Value::from(format!("{key}:"))));
            parts.push((name, is_required(key)));
        }
        // `first_i` and `rest_i` are the members from the i-th on, as the first ones and after others.
        let base = self.name();
        for (at, (name, required)) in parts.iter().enumerate() {
            let or = |other: String| if *required { String::new() } else { format!(" | {other}") };
            let next = at + 1;
            self.rule(
                &format!("{base}_first{at}"),
                &format!("{name} {base}_rest{next}{}", or(format!("{base}_first{next}"))),
            );
            self.rule(
                &format!("{base}_rest{at}"),
                &format!("\",\" {name} {base}_rest{next}{}", or(format!("{base}_rest{next}"))),
            );
        }
        for end in ["first", "rest"] {
            self.rule(&format!("{base}_{end}{}", parts.len()), "\"\"");
        }
        Ok(format!("\"{{\" {base}_first0 \"}}\""))
    }

    fn array(&mut self, map: &Map<String, Value>, root: &Value) -> Result<String, Refused> {
        only(map, &["type", "items", "minItems", "maxItems"])?;
        let item = match map.get("items") {
            Some(items) => self.of(items, root)?,
            None => "gemma_any".into(),
        };
        let name = self.name();
        self.rule(&name, &item);
        let count = |key: &str| map.get(key).and_then(Value::as_u64);
        let (least, most) = (count("minItems").unwrap_or(0), count("maxItems"));
        if most.is_some_and(|most| most < least) {
            return Err(Refused("maxItems".into()));
        }
        let more = match most {
            Some(most) => format!("{{{},{}}}", least.saturating_sub(1), most.saturating_sub(1)),
            None if least > 1 => format!("{{{},}}", least - 1),
            None => "*".into(),
        };
        let full = match most {
            Some(0) => return Ok("\"[]\"".into()),
            Some(1) => format!("\"[\" {name} \"]\""),
            _ => format!("\"[\" {name} (\",\" {name}){more} \"]\""),
        };
        Ok(if least == 0 { format!("(\"[]\" | {full})") } else { format!("({full})") })
    }

    /// Returns the rule of a schema below `$defs`.
    fn referred(&mut self, path: &str, root: &Value) -> Result<String, Refused> {
        if path == "#" {
            return Err(Refused("$ref".into()));
        }
        if let Some(rule) = self.definitions.get(path) {
            return Ok(rule.clone());
        }
        let target = path.strip_prefix('#').and_then(|path| root.pointer(path));
        let target = target.ok_or_else(|| Refused("$ref".into()))?;
        let rule = self.name();
        self.definitions.insert(path.into(), rule.clone());
        let expression = self.of(target, root)?;
        self.rule(&rule, &expression);
        Ok(rule)
    }

    fn choices(&self, values: &[Value]) -> Result<String, Refused> {
        let all = values.iter().map(|value| self.literal(value)).collect::<Result<Vec<_>, _>>()?;
        Ok(format!("({})", all.join(" | ")))
    }

    fn literal(&self, value: &Value) -> Result<String, Refused> {
        match value {
            Value::String(text) if text.contains(GEMMA_QUOTE) => Err(Refused("enum".into())),
            Value::String(text) => {
                Ok(self.writer.lit(&format!("{GEMMA_QUOTE}{text}{GEMMA_QUOTE}")))
            }
            Value::Object(_) | Value::Array(_) => Err(Refused("enum".into())),
            scalar => Ok(json!(scalar.to_string()).to_string()),
        }
    }
}

const KINDS: [&str; 4] = ["string", "object", "array", "number"];

/// Whether a keyword constrains values of one type alone, and of that one.
fn belongs(keyword: &str, kind: &str) -> bool {
    let of: &[&str] = match kind {
        "string" => &["minLength", "maxLength", "pattern", "format"],
        "object" => &[
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "minProperties",
            "maxProperties",
        ],
        "array" => &["items", "prefixItems", "additionalItems", "minItems", "maxItems"],
        "number" | "integer" => {
            &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]
        }
        _ => &[],
    };
    of.contains(&keyword)
}

/// Refuses keywords other than `known`.
fn only(map: &Map<String, Value>, known: &[&str]) -> Result<(), Refused> {
    let ours = ["$defs", "x-guidance"];
    let is_known = |key: &&String| known.contains(&key.as_str()) || ours.contains(&key.as_str());
    match map.keys().find(|key| !is_known(key)) {
        Some(key) => Err(Refused(key.clone())),
        None => Ok(()),
    }
}
