//! Reads configuration values from `config.json`, within limits.

use serde_json::Value as Json;

use super::ConfigError;
use super::keys::{in_range, limits};

/// Reads `config.json`.
pub struct ConfigReader<'a>(pub &'a Json);

impl<'a> ConfigReader<'a> {
    /// The value of a key, unless null.
    pub fn get(&self, key: &str) -> Option<&'a Json> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| ConfigError::value(key, value, "a string"))
    }

    /// Checks that a key, if present, has the only supported value.
    pub fn expect(&self, key: &str, allowed: &str) -> Result<(), ConfigError> {
        match self.str(key)? {
            Some(found) if found != allowed => Err(ConfigError::value(key, found, allowed)),
            _ => Ok(()),
        }
    }

    /// Checks that a boolean, if present, has the only supported value.
    pub fn expect_bool(&self, key: &str, allowed: bool) -> Result<(), ConfigError> {
        match self.bool(key)? {
            Some(found) if found != allowed => Err(ConfigError::value(key, found, allowed)),
            _ => Ok(()),
        }
    }

    /// A size, or a default if it is absent.
    pub fn size_or(
        &self,
        key: &str,
        default: usize,
        range: [usize; 2],
    ) -> Result<usize, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        in_range(key, size, value, range)
    }

    /// A required size.
    pub fn size(&self, key: &str, range: [usize; 2]) -> Result<usize, ConfigError> {
        self.get(key).ok_or(ConfigError::Missing { key: key.into() })?;
        self.size_or(key, 0, range)
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f32>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        number.map(Some).ok_or_else(|| ConfigError::value(key, value, "a finite number"))
    }

    /// Checks that a number, if present, has the only supported value.
    pub fn expect_number(&self, key: &str, allowed: f32) -> Result<(), ConfigError> {
        match self.number(key)? {
            Some(found) if found != allowed => Err(ConfigError::value(key, found, allowed)),
            _ => Ok(()),
        }
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| ConfigError::value(key, value, "true or false"))
    }

    /// A list of strings.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let strings = value.as_array().and_then(|list| list.iter().map(Json::as_str).collect());
        strings.map(Some).ok_or_else(|| ConfigError::value(key, value, "a list of strings"))
    }

    /// Number of layers at the start without experts, from a list of all layers, a list of those
    /// layers, or a number.
    pub fn dense_layers(&self, key: &str) -> Result<usize, ConfigError> {
        if let Some(types) = self.strings("mlp_layer_types")? {
            let dense = types.iter().take_while(|ty| **ty == "dense").count();
            if types[dense..].iter().any(|ty| *ty != "sparse") {
                let (found, allowed) = (types.join(", "), "dense layers, then sparse ones");
                return Err(ConfigError::value("mlp_layer_types", found, allowed));
            }
            return Ok(dense);
        }
        if let Some(layers) = self.indices("mlp_only_layers", limits::LAYERS)?
            && !layers.is_empty()
        {
            if layers.iter().enumerate().any(|(i, layer)| i != *layer) {
                let found = format!("{layers:?}");
                return Err(ConfigError::value("mlp_only_layers", found, "the first layers"));
            }
            return Ok(layers.len());
        }
        self.size_or(key, 0, [0, limits::LAYERS])
    }

    /// A list of numbers below `end`.
    pub fn indices(&self, key: &str, end: usize) -> Result<Option<Vec<usize>>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let index = |value: &Json| value.as_u64().map(|i| i as usize).filter(|i| *i < end);
        let indices = value.as_array().and_then(|list| list.iter().map(index).collect());
        let allowed = || format!("a list of numbers below {end}");
        indices.map(Some).ok_or_else(|| ConfigError::value(key, value, allowed()))
    }

    /// One or several token ids.
    pub fn tokens(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let one = std::slice::from_ref(value);
        let ids = value.as_array().map_or(one, |ids| &ids[..]);
        let id = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let bad = || ConfigError::value(key, value, "a token or a list of tokens");
        ids.iter().map(|value| id(value).ok_or_else(bad)).collect()
    }
}
