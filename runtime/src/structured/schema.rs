//! Reduces JSON schemas to the enforceable keywords, or rejects them with the path of the first
//! unenforceable keyword.
//!
//! Annotations and unknown keywords are removed, since by the standard they do not affect validity.
//! Targets of references move to `$defs` of the root under generated names, so that JSON pointers
//! of any form work, but only within the schema.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::StructuredError;
use super::limits::{BYTES, JSON_DEPTH, REPETITIONS, STRING_LENGTH, at_most, check_regex};

/// Keywords whose values are kept unchanged.
const PLAIN: [&str; 9] = [
    "type",
    "const",
    "enum",
    "required",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];
/// Keywords whose value is a number of items, properties or characters.
const COUNTS: [(&str, u64); 6] = [
    ("minItems", REPETITIONS),
    ("maxItems", REPETITIONS),
    ("minProperties", REPETITIONS),
    ("maxProperties", REPETITIONS),
    ("minLength", STRING_LENGTH),
    ("maxLength", STRING_LENGTH),
];
/// Keywords that hold a schema.
const SCHEMAS: [&str; 2] = ["additionalProperties", "additionalItems"];
/// Keywords that hold a list of schemas.
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords that hold a map from names to schemas.
const MAPS: [&str; 2] = ["properties", "patternProperties"];
/// Keywords of the standard's drafts that constrain a value in a way that cannot be enforced.
const REFUSED: [&str; 21] = [
    "not",
    "if",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
    "extends",
    "disallow",
    "divisibleBy",
    "contentSchema",
    "x-guidance",
    "$vocabulary",
    "$dynamicAnchor",
];
/// Pattern of the longest white space at one place: a line break and 16 blanks.
pub(super) const WHITESPACE: &str = r"(\n[ \t]{0,16}|[ \t]{1,16})";

/// Returns the reduced schema for the matcher. If `strict`, objects must require all of their
/// properties and have no others.
pub fn reduce(schema: &Value, strict: bool) -> Result<Value, StructuredError> {
    at_most("the length of the schema in bytes", schema.to_string().len(), BYTES)?;
    let mut reducer = Reducer { root: schema, strict, names: HashMap::new(), waiting: Vec::new() };
    let mut root = match reducer.schema(schema, "#", 0)? {
        Value::Object(root) => root,
        Value::Bool(false) => {
            return Err(refuse("#", "no value is valid under the schema `false`"));
        }
        _ => Map::new(),
    };
    let mut definitions = Map::new();
    while let Some(path) = reducer.waiting.pop() {
        let name = reducer.names[&path].clone();
        let target = reducer.find(&path)?;
        definitions.insert(name, reducer.schema(target, &path, 0)?);
    }
    if !definitions.is_empty() {
        root.insert("$defs".into(), definitions.into());
    }
    let options = json!({"whitespace_flexible": true, "whitespace_pattern": WHITESPACE});
    root.insert("x-guidance".into(), options);
    Ok(root.into())
}

fn refuse(path: &str, problem: impl Into<String>) -> StructuredError {
    StructuredError::Schema { path: path.into(), problem: problem.into() }
}

/// Appends a key to a path (RFC 6901).
fn below(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

struct Reducer<'a> {
    root: &'a Value,
    strict: bool,
    /// Names of reference targets by path.
    names: HashMap<String, String>,
    /// Reference targets that have not yet been reduced.
    waiting: Vec<String>,
}

impl<'a> Reducer<'a> {
    fn schema(
        &mut self,
        schema: &Value,
        path: &str,
        depth: usize,
    ) -> Result<Value, StructuredError> {
        at_most("the depth of the schema", depth, JSON_DEPTH)?;
        let object = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(object) => object,
            _ => return Err(refuse(path, "a schema is an object, `true` or `false`")),
        };
        let mut reduced = Map::new();
        for (keyword, value) in object {
            let at = below(path, keyword);
            // Up to draft 7, keywords beside a reference are ignored.
            if keyword != "$ref" && object.contains_key("$ref") && self.is_old() {
                continue;
            }
            if let Some(value) = self.keyword(keyword, value, &at, depth)? {
                reduced.insert(keyword.clone(), value);
            }
        }
        if self.strict {
            self.make_strict(&mut reduced, path)?;
        }
        Ok(reduced.into())
    }

    /// Reduces the value of a keyword; `None` if the keyword does not constrain.
    fn keyword(
        &mut self,
        keyword: &str,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<Option<Value>, StructuredError> {
        let harmless = keyword == "uniqueItems" && value == &Value::Bool(false);
        if REFUSED.contains(&keyword) && !harmless {
            let problem =
                format!("`{keyword}` cannot be enforced; remove it, and check answers for it");
            return Err(refuse(at, problem));
        }
        if PLAIN.contains(&keyword) {
            check_plain(keyword, value, at)?;
            return Ok(Some(value.clone()));
        }
        if let Some((_, most)) = COUNTS.iter().find(|(name, _)| *name == keyword) {
            // The standard allows 2.0 as an integer.
            let whole =
                value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=*most as f64).contains(x));
            let count =
                whole.ok_or_else(|| refuse(at, format!("it is {value}; allowed: 0 to {most}")))?;
            return Ok(Some((count as u64).into()));
        }
        if SCHEMAS.contains(&keyword) || (keyword == "items" && !value.is_array()) {
            return self.schema(value, at, depth + 1).map(Some);
        }
        if LISTS.contains(&keyword) || keyword == "items" {
            let list = value.as_array().ok_or_else(|| refuse(at, "it is not a list of schemas"))?;
            let one = |(i, schema)| self.schema(schema, &format!("{at}/{i}"), depth + 1);
            return list
                .iter()
                .enumerate()
                .map(one)
                .collect::<Result<Vec<_>, _>>()
                .map(|l| Some(l.into()));
        }
        if MAPS.contains(&keyword) {
            let map =
                value.as_object().ok_or_else(|| refuse(at, "it does not hold schemas by name"))?;
            let mut schemas = Map::new();
            for (name, schema) in map {
                if keyword == "patternProperties" {
                    check_regex(name)?;
                }
                schemas.insert(name.clone(), self.schema(schema, &below(at, name), depth + 1)?);
            }
            return Ok(Some(schemas.into()));
        }
        match keyword {
            "$ref" => self.reference(value, at).map(Some),
            "pattern" => {
                let pattern = value.as_str().ok_or_else(|| refuse(at, "it is not a text"))?;
                check_regex(pattern).map_err(|error| refuse(at, error.to_string()))?;
                Ok(Some(value.clone()))
            }
            "format" => Ok(Some(value.clone())),
            _ => Ok(None),
        }
    }

    fn is_old(&self) -> bool {
        let draft = self.root.get("$schema").and_then(Value::as_str).unwrap_or_default();
        ["draft-03", "draft-04", "draft-06", "draft-07"].iter().any(|old| draft.contains(old))
    }

    fn reference(&mut self, value: &Value, at: &str) -> Result<Value, StructuredError> {
        let target = value.as_str().ok_or_else(|| refuse(at, "it is not a text"))?;
        if target == "#" {
            return Ok("#".into());
        }
        if !target.starts_with("#/") {
            let problem =
                format!("`{target}` is elsewhere; refer to a part of this schema as `#/...`");
            return Err(refuse(at, problem));
        }
        let path = percent_decoded(target);
        self.find(&path)
            .map_err(|_| refuse(at, format!("there is no `{target}` in the schema")))?;
        let next = format!("d{}", self.names.len());
        let name = self.names.entry(path.clone()).or_insert_with(|| {
            self.waiting.push(path);
            next
        });
        Ok(format!("#/$defs/{name}").into())
    }

    fn find(&self, path: &str) -> Result<&'a Value, StructuredError> {
        let target = path.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        target.ok_or_else(|| refuse(path, "there is no such part of the schema"))
    }

    /// Enforces OpenAI's rules for `strict`.
    fn make_strict(
        &self,
        schema: &mut Map<String, Value>,
        path: &str,
    ) -> Result<(), StructuredError> {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return Ok(());
        };
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |name: &String| required.is_some_and(|r| r.iter().any(|one| one == name));
        if let Some(name) = properties.keys().find(|name| !is_required(name)) {
            let problem = format!("`strict` wants every property in `required`; `{name}` is not");
            return Err(refuse(&below(path, "properties"), problem));
        }
        match schema.get("additionalProperties") {
            None | Some(Value::Bool(false)) => {}
            Some(_) => {
                let at = below(path, "additionalProperties");
                return Err(refuse(&at, "`strict` wants it to be `false`"));
            }
        }
        schema.insert("additionalProperties".into(), false.into());
        Ok(())
    }
}

fn check_plain(keyword: &str, value: &Value, at: &str) -> Result<(), StructuredError> {
    match keyword {
        "enum" if value.as_array().is_none_or(Vec::is_empty) => {
            Err(refuse(at, "it is not a list of at least one value"))
        }
        "const" | "enum" => {
            let deepest = depth(value);
            at_most("the depth of a value in the schema", deepest, JSON_DEPTH)
                .map_err(|error| refuse(at, error.to_string()))
        }
        // Larger and smaller values would need automata of enormous size.
        "multipleOf" if !value.as_f64().is_some_and(|x| (1e-6..=1e6).contains(&x)) => {
            Err(refuse(at, format!("it is {value}; allowed: 0.000001 to 1000000")))
        }
        _ => Ok(()),
    }
}

/// Depth of a value, which was parsed with a depth limit.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(items) => 1 + items.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Decodes the URI escapes in a reference's pointer.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => (bytes, rest) = ([&bytes[..], &[byte]].concat(), &tail[2..]),
            None => (bytes, rest) = ([&bytes[..], &[*first]].concat(), tail),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(schema: Value) -> String {
        reduce(&schema, false).unwrap_err().to_string()
    }

    #[test]
    fn a_keyword_that_cannot_be_enforced_is_named_with_its_path() {
        let schema = json!({"properties": {"a/b": {"items": {"not": {"type": "null"}}}}});
        assert!(
            refused(schema).starts_with("#/properties/a~1b/items/not: `not` cannot be enforced")
        );
        let schema = json!({"anyOf": [true, {"if": true}]});
        assert!(refused(schema).starts_with("#/anyOf/1/if: "));
        let schema = json!({"x-guidance": {"lenient": true}});
        assert!(refused(schema).starts_with("#/x-guidance: "));
    }

    #[test]
    fn annotations_and_unknown_keywords_do_not_constrain() {
        let schema = json!({"title": "a", "x-order": 1, "uniqueItems": false, "type": "string"});
        let reduced = reduce(&schema, false).unwrap();
        let keys: Vec<_> = reduced.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["type", "x-guidance"]);
    }

    #[test]
    fn references_point_to_definitions() {
        let schema = json!({
            "$ref": "#/components/a~1b%25",
            "components": {"a/b%": {"properties": {"c": {"$ref": "#/components/a~1b%25"}, "d": {"$ref": "#"}}}},
        });
        let reduced = reduce(&schema, false).unwrap();
        assert_eq!(reduced["$ref"], "#/$defs/d0");
        assert_eq!(reduced["$defs"]["d0"]["properties"]["c"]["$ref"], "#/$defs/d0");
        assert_eq!(reduced["$defs"]["d0"]["properties"]["d"]["$ref"], "#");
        assert!(refused(json!({"$ref": "#/nothing"})).contains("there is no `#/nothing`"));
        assert!(refused(json!({"$ref": "https://example.com/a"})).contains("is elsewhere"));
    }

    #[test]
    fn before_draft_2019_a_reference_stands_alone() {
        let schema = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "properties": {"a": {"$ref": "#", "not": true}},
        });
        assert_eq!(reduce(&schema, false).unwrap()["properties"]["a"], json!({"$ref": "#"}));
    }

    #[test]
    fn strict_wants_all_properties_and_no_others() {
        let strict = |schema| reduce(&schema, true);
        let object = json!({"properties": {"a": {}}, "required": ["a"]});
        assert_eq!(strict(object).unwrap()["additionalProperties"], false);
        let optional = strict(json!({"properties": {"a": {}}})).unwrap_err().to_string();
        assert!(optional.starts_with("#/properties: ") && optional.contains("`a`"), "{optional}");
        let open = json!({"properties": {}, "additionalProperties": {}});
        assert!(strict(open).unwrap_err().to_string().starts_with("#/additionalProperties: "));
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(refused(json!({"minItems": 1e9})).contains("allowed: 0 to 10000"));
        assert!(refused(json!({"pattern": "(".repeat(200)})).contains("depth"));
        assert!(refused(json!({"pattern": "a".repeat(5000)})).starts_with("#/pattern: "));
        assert!(refused(json!({"multipleOf": 0})).starts_with("#/multipleOf: "));
        assert!(refused(json!({"title": "a".repeat(300 << 10)})).contains("bytes"));
        let deep = (0..100).fold(json!(true), |inner, _| json!({"items": inner}));
        assert!(refused(deep).contains("depth"));
    }
}
