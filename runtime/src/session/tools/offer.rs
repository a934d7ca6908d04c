//! The tools offered to a model, and whether it must call one.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};

/// Maximum number of tools in one offer.
pub const MAX_TOOLS: usize = 512;
/// Maximum length of a name in bytes.
pub const MAX_NAME: usize = 128;

/// Reason why an offer is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The offer has an unexpected shape.
    #[error("{path}: {problem}")]
    Shape {
        /// Path of the invalid part, such as `tools[0].function.name`.
        path: String,
        /// Description of the problem.
        problem: String,
    },
    /// `tool_choice` names a tool that is not offered.
    #[error("tool_choice names `{name}`, which is not among the tools")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A call is required, but there are no tools to call.
    #[error("tool_choice requires a call, but there are no tools")]
    Nothing,
}

fn wrong(path: impl Into<String>, problem: impl Into<String>) -> OfferError {
    OfferError::Shape { path: path.into(), problem: problem.into() }
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Name of the function.
    pub name: String,
    /// JSON schema of the arguments, an object.
    pub parameters: Value,
    /// Whether the arguments must be valid under the schema.
    pub strict: bool,
}

/// The tools of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tools {
    list: Arc<[Tool]>,
}

impl Tools {
    /// Parses OpenAI's list: `{"type": "function", "function": {"name", "parameters", "strict"}}`,
    /// or the same without the inner object, as in the Responses API. Tools of other types run on
    /// OpenAI's servers and are ignored.
    pub fn from_json(json: &Value) -> Result<Self, OfferError> {
        let list = json.as_array().ok_or_else(|| wrong("tools", "it is not a list"))?;
        if list.len() > MAX_TOOLS {
            return Err(wrong(
                "tools",
                format!("{} tools; at most {MAX_TOOLS} are allowed", list.len()),
            ));
        }
        let mut names = HashSet::new();
        let mut tools = Vec::new();
        for (i, tool) in list.iter().enumerate() {
            let path = format!("tools[{i}]");
            if tool["type"].as_str().is_some_and(|kind| kind != "function") {
                continue;
            }
            let (function, path) = match tool.get("function") {
                Some(function) => (function, format!("{path}.function")),
                None => (tool, path),
            };
            let name = function["name"].as_str().unwrap_or_default();
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
                let problem =
                    format!("a name has 1 to {MAX_NAME} letters, digits, `_`, `-` and `.`");
                return Err(wrong(format!("{path}.name"), problem));
            }
            if !names.insert(name) {
                return Err(wrong(format!("{path}.name"), format!("`{name}` is there twice")));
            }
            let parameters = match function.get("parameters") {
                None | Some(Value::Null) => Value::Object(Map::new()),
                Some(schema @ Value::Object(_)) => schema.clone(),
                Some(_) => return Err(wrong(format!("{path}.parameters"), "it is not a schema")),
            };
            let strict = function["strict"].as_bool().unwrap_or(false);
            tools.push(Tool { name: name.into(), parameters, strict });
        }
        Ok(Self { list: tools.into() })
    }

    /// Iterates over all tools.
    pub fn iter(&self) -> impl Iterator<Item = &Tool> {
        self.list.iter()
    }

    /// Returns the tool of this name.
    pub fn get(&self, name: &str) -> Option<&Tool> {
        self.list.iter().find(|tool| tool.name == name)
    }

    /// Whether there are no tools.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Schema of an argument.
    pub(super) fn argument(&self, tool: &str, argument: &str) -> Option<&Value> {
        self.get(tool)?.parameters.get("properties")?.get(argument)
    }

    /// Tools that `choice` allows.
    pub fn chosen(&self, choice: &ToolChoice) -> Result<Self, OfferError> {
        let names: &[String] = match choice {
            ToolChoice::None => return Ok(Self::default()),
            ToolChoice::Named(name) => std::slice::from_ref(name),
            ToolChoice::Allowed { names, .. } => names,
            ToolChoice::Auto => return Ok(self.clone()),
            ToolChoice::Required if self.is_empty() => return Err(OfferError::Nothing),
            ToolChoice::Required => return Ok(self.clone()),
        };
        let found = |name: &String| {
            self.get(name).cloned().ok_or_else(|| OfferError::Unknown { name: name.clone() })
        };
        Ok(Self { list: names.iter().map(found).collect::<Result<_, _>>()? })
    }
}

/// Whether the model may, must or must not call a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model calls no tool.
    None,
    /// The model may call a tool.
    #[default]
    Auto,
    /// The model must call a tool.
    Required,
    /// The model must call this tool.
    Named(String),
    /// The model may call one of these tools, or must if `required`.
    Allowed {
        /// Names of the tools.
        names: Vec<String>,
        /// Whether a call is required.
        required: bool,
    },
}

impl ToolChoice {
    /// Parses `"none"`, `"auto"`, `"required"`, `{"type": "function", "function": {"name"}}`,
    /// `{"type": "function", "name"}` or
    /// `{"type": "allowed_tools", "allowed_tools": {"mode", "tools"}}`, and also Anthropic's
    /// `{"type": "any"}`, `{"type": "tool", "name"}`, `{"type": "auto"}` and `{"type": "none"}`.
    pub fn from_json(json: &Value) -> Result<Self, OfferError> {
        let name_in = |value: &Value| {
            let name = value["function"]["name"].as_str().or(value["name"].as_str());
            name.map(String::from).ok_or_else(|| wrong("tool_choice", "it names no function"))
        };
        let kind = json.as_str().or(json["type"].as_str()).unwrap_or_default();
        match kind {
            "none" => Ok(Self::None),
            "auto" => Ok(Self::Auto),
            "required" | "any" => Ok(Self::Required),
            "function" | "tool" => name_in(json).map(Self::Named),
            "allowed_tools" => {
                let inner = json.get("allowed_tools").unwrap_or(json);
                let names = inner["tools"].as_array().map_or(&[][..], Vec::as_slice);
                let names = names.iter().map(name_in).collect::<Result<_, _>>()?;
                Ok(Self::Allowed { names, required: inner["mode"] == "required" })
            }
            _ => Err(wrong(
                "tool_choice",
                "allowed: none, auto, required, a function or allowed_tools",
            )),
        }
    }

    /// Whether a call is required.
    pub fn is_required(&self) -> bool {
        matches!(self, Self::Required | Self::Named(_) | Self::Allowed { required: true, .. })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn offers_of_both_interfaces_are_read() {
        let json = json!([
            {"type": "function", "function": {"name": "a", "parameters": {"type": "object"}, "strict": true}},
            {"type": "function", "name": "b"},
            {"type": "web_search"},
        ]);
        let tools = Tools::from_json(&json).unwrap();
        assert_eq!(
            tools.iter().map(|t| (t.name.as_str(), t.strict)).collect::<Vec<_>>(),
            [("a", true), ("b", false)]
        );
    }

    #[test]
    fn a_bad_offer_is_refused_with_its_place() {
        for (json, place) in [
            (json!({}), "tools: "),
            (json!([{"type": "function", "function": {"name": ""}}]), "tools[0].function.name: "),
            (json!([{"name": "a b"}]), "tools[0].name: "),
            (json!([{"name": "a"}, {"name": "a"}]), "tools[1].name: `a` is there twice"),
            (json!([{"name": "a", "parameters": []}]), "tools[0].parameters: "),
        ] {
            let error = Tools::from_json(&json).unwrap_err().to_string();
            assert!(error.starts_with(place), "{error}");
        }
    }

    #[test]
    fn every_form_of_choice_is_read() {
        let read = |json| ToolChoice::from_json(&json).unwrap();
        assert_eq!(read(json!("auto")), ToolChoice::Auto);
        assert_eq!(read(json!({"type": "any"})), ToolChoice::Required);
        let named = ToolChoice::Named("f".into());
        assert_eq!(read(json!({"type": "function", "function": {"name": "f"}})), named);
        assert_eq!(read(json!({"type": "tool", "name": "f"})), named);
        let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]}});
        assert_eq!(read(allowed), ToolChoice::Allowed { names: vec!["f".into()], required: true });
        assert!(ToolChoice::from_json(&json!("sometimes")).is_err());
        assert!(ToolChoice::from_json(&json!({"type": "function"})).is_err());
    }

    #[test]
    fn a_choice_narrows_the_offer() {
        let tools = Tools::from_json(&json!([{"name": "a"}, {"name": "b"}])).unwrap();
        let names = |choice| {
            tools.chosen(&choice).map(|t| t.iter().map(|t| t.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(ToolChoice::Named("b".into())).unwrap(), ["b"]);
        assert_eq!(names(ToolChoice::None).unwrap(), [""; 0]);
        assert_eq!(
            names(ToolChoice::Named("c".into())),
            Err(OfferError::Unknown { name: "c".into() })
        );
        assert_eq!(Tools::default().chosen(&ToolChoice::Required), Err(OfferError::Nothing));
    }
}
