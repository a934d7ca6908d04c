//! Variables of the chat template.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use vaquita_runtime::session::chat::{ChatError, variable};
use vaquita_runtime::session::prompt::{PromptError, Prompter};
use vaquita_runtime::session::thinking;

use crate::failure::{Failure, Result};
use crate::hints::in_words;

/// Options of the chat template.
#[derive(Args, Clone, Debug, Default)]
pub struct Template {
    /// Whether the model thinks before it answers, or how much: as far as its chat template knows
    /// it
    #[arg(long, value_name = "HOW")]
    think: Option<Think>,
    /// A variable of the chat template; the value is JSON, or else text; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    template_var: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Think {
    On,
    Off,
    Low,
    High,
}

impl From<Think> for thinking::Think {
    fn from(think: Think) -> Self {
        match think {
            Think::On => Self::On,
            Think::Off => Self::Off,
            Think::Low => Self::Low,
            Think::High => Self::High,
        }
    }
}

/// The variables for an amount of thinking, by its name.
pub fn think(name: &str, prompter: &Prompter) -> Result<Map<String, Value>> {
    let how = thinking::Think::ALL.into_iter().find(|one| one.name() == name);
    let how = how.ok_or_else(|| Failure::Usage("allowed: on, off, low, high".into()))?;
    let template = prompter.template().ok_or_else(|| in_words(&PromptError::NoTemplate));
    let variables = how.variables(template.map_err(Failure::Usage)?);
    variables.map_err(|error| Failure::Usage(in_words(&error)))
}

impl Template {
    /// The variables for a model's template.
    pub fn variables(&self, prompter: &Prompter) -> Result<Map<String, Value>> {
        let usage = |error: ChatError| Failure::Usage(in_words(&error));
        let mut variables = Map::new();
        if let (Some(think), Some(template)) = (self.think, prompter.template()) {
            let think = thinking::Think::from(think).variables(template);
            variables.extend(think.map_err(usage)?);
        }
        for text in &self.template_var {
            let (name, value) = variable(text).map_err(usage)?;
            variables.insert(name, value);
        }
        Ok(variables)
    }
}
