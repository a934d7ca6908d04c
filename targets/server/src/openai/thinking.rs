//! Whether the model thinks: DeepSeek's `thinking`, OpenAI's `reasoning_effort`, and variables of
//! the template.

use serde::Deserialize;
use serde_json::{Map, Value};
use vaquita_runtime::session::thinking::Think;

use crate::error::{ApiError, Result};

/// DeepSeek's switch.
#[derive(Deserialize)]
pub(crate) struct Thinking {
    #[serde(rename = "type")]
    kind: String,
}

/// Variables that the conversation sets.
const GIVEN: [&str; 5] = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"];

/// Reads both switches, which must agree.
pub(crate) fn think(thinking: Option<&Thinking>, effort: Option<&str>) -> Result<Option<Think>> {
    let switch = match thinking.map(|thinking| thinking.kind.as_str()) {
        None => None,
        Some("enabled" | "adaptive" | "auto") => Some(true),
        Some("disabled") => Some(false),
        Some(_) => {
            let message = "thinking.type: allowed: enabled, disabled";
            return Err(ApiError::field("thinking.type", message));
        }
    };
    let effort = match effort {
        None => None,
        Some("none") => Some(Think::Off),
        Some("minimal" | "low") => Some(Think::Low),
        Some("medium") => Some(Think::On),
        Some("high" | "xhigh" | "max" | "ultra") => Some(Think::High),
        Some(_) => {
            let message = "reasoning_effort: allowed: none, minimal, low, medium, high, xhigh, max";
            return Err(ApiError::field("reasoning_effort", message));
        }
    };
    match (switch, effort) {
        (Some(switch), Some(effort)) if switch != (effort != Think::Off) => {
            let message = "thinking and reasoning_effort contradict each other";
            Err(ApiError::field("thinking", message))
        }
        (_, Some(effort)) => Ok(Some(effort)),
        (Some(true), None) => Ok(Some(Think::On)),
        (Some(false), None) => Ok(Some(Think::Off)),
        (None, None) => Ok(None),
    }
}

/// Checks variables for the template.
pub(crate) fn variables(kwargs: Option<Map<String, Value>>) -> Result<Map<String, Value>> {
    let variables = kwargs.unwrap_or_default();
    match variables.keys().find(|name| GIVEN.contains(&name.as_str())) {
        None => Ok(variables),
        Some(name) => {
            let message = format!("chat_template_kwargs.{name}: the conversation sets it");
            Err(ApiError::field(format!("chat_template_kwargs.{name}"), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_agree_or_are_refused() {
        let on = Thinking { kind: "enabled".into() };
        let off = Thinking { kind: "disabled".into() };
        assert_eq!(think(Some(&on), None).unwrap(), Some(Think::On));
        assert_eq!(think(Some(&on), Some("max")).unwrap(), Some(Think::High));
        assert_eq!(think(Some(&off), Some("none")).unwrap(), Some(Think::Off));
        assert_eq!(think(None, Some("minimal")).unwrap(), Some(Think::Low));
        assert!(think(Some(&off), Some("low")).is_err());
        assert!(think(Some(&on), Some("none")).is_err());
        assert!(think(None, Some("some")).is_err());
    }
}
