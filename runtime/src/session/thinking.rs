//! Whether and how much a model thinks, under the variable names of different templates.

use serde_json::{Map, Value as Json};

use super::chat::{ChatError, ChatTemplate};

/// Amount of thinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Think {
    /// The model thinks as much as it chooses.
    On,
    /// The model does not think.
    Off,
    /// The model thinks a little.
    Low,
    /// The model thinks a lot.
    High,
}

impl Think {
    /// All values, in the order in which messages name them.
    pub const ALL: [Self; 4] = [Self::On, Self::Off, Self::Low, Self::High];

    /// Name of the value.
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Low => "low",
            Self::High => "high",
        }
    }

    /// Template variables that select this amount. An error names the values that the template
    /// supports.
    pub fn variables(self, template: &ChatTemplate) -> Result<Map<String, Json>, ChatError> {
        let asked = template.variables()?;
        let known: Vec<_> = SWITCHES.iter().filter(|(name, _)| asked.contains(*name)).collect();
        let found = known.iter().find_map(|(name, value)| Some((*name, value(self)?)));
        if let Some((name, value)) = found {
            return Ok(Map::from_iter([(name.to_string(), value)]));
        }
        let allowed = |think: &Self| known.iter().any(|(_, value)| value(*think).is_some());
        let names: Vec<_> = Self::ALL.into_iter().filter(allowed).map(Self::name).collect();
        Err(ChatError::Think { found: self.name(), allowed: names.join(", ") })
    }
}

/// A template variable, and its value for an amount of thinking; `None` if it cannot express that
/// amount.
type Switch = (&'static str, fn(Think) -> Option<Json>);

/// Variables of all families. The first variable that a template reads and that can express the
/// amount is set.
const SWITCHES: [Switch; 5] = [
    // Qwen, GLM, Nemotron, SmolLM
    ("enable_thinking", on_or_off),
    // DeepSeek-V3.1, Granite, Kimi
    ("thinking", on_or_off),
    // gpt-oss, which always thinks
    ("reasoning_effort", |think| match think {
        Think::On => Some("medium".into()),
        Think::Off => None,
        Think::Low | Think::High => Some(think.name().into()),
    }),
    // Seed-OSS: tokens
    ("thinking_budget", |think| match think {
        Think::On => Some((-1).into()),
        Think::Off => Some(0.into()),
        Think::Low => Some(512.into()),
        Think::High => Some(16_384.into()),
    }),
    // Cohere
    ("reasoning", on_or_off),
];

fn on_or_off(think: Think) -> Option<Json> {
    match think {
        Think::On => Some(true.into()),
        Think::Off => Some(false.into()),
        Think::Low | Think::High => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_template_is_told_in_its_own_words() {
        let set = |source: &str, think: Think| {
            let template = ChatTemplate::new(source).unwrap();
            think.variables(&template).map(Json::Object).map_err(|error| error.to_string())
        };
        let qwen = "{% if enable_thinking is defined and enable_thinking is false %}a{% endif %}";
        assert_eq!(set(qwen, Think::Off), Ok(json!({"enable_thinking": false})));
        assert_eq!(set(qwen, Think::On), Ok(json!({"enable_thinking": true})));
        let error = set(qwen, Think::Low).unwrap_err();
        assert!(error.contains("low") && error.contains("on, off"), "{error}");
        let harmony = "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}\
            {% endif %}{{ reasoning_effort }}{{ message.thinking }}";
        assert_eq!(set(harmony, Think::High), Ok(json!({"reasoning_effort": "high"})));
        assert!(set(harmony, Think::Off).unwrap_err().contains("on, low, high"));
        let deepseek = "{% if not thinking is defined %}{% set thinking = false %}{% endif %}";
        assert_eq!(set(deepseek, Think::On), Ok(json!({"thinking": true})));
        let seed = "{{ thinking_budget }}";
        assert_eq!(set(seed, Think::Off), Ok(json!({"thinking_budget": 0})));
        let none = set("{{ messages[0].content }}", Think::Off).unwrap_err();
        assert!(none.contains("no switch"), "{none}");
    }
}
