//! Meters that a program supplies: a closure, or a stated wattage.

use super::meter::{Meter, MeterError, Reading};

/// A meter that calls a closure, such as an application's own sensor. The closure's error states
/// why it cannot read.
pub struct Custom<F> {
    name: String,
    scope: String,
    read: F,
}

impl<F: FnMut() -> Result<Reading, String> + Send> Custom<F> {
    /// Creates a meter with a name, which covers `scope`.
    pub fn new(name: impl Into<String>, scope: impl Into<String>, read: F) -> Self {
        Self { name: name.into(), scope: scope.into(), read }
    }
}

impl<F: FnMut() -> Result<Reading, String> + Send> Meter for Custom<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn scope(&self) -> &str {
        &self.scope
    }

    fn read(&mut self) -> Result<Reading, MeterError> {
        let refused = |reason| MeterError::new(self.name.clone(), reason);
        match (self.read)().map_err(refused)? {
            Reading::Joules(value) | Reading::Watts(value) if !(0.0..1e9).contains(&value) => {
                Err(refused(format!("it says {value}; allowed: 0 or more, in joules or watts")))
            }
            reading => Ok(reading),
        }
    }
}

/// A constant wattage that was stated, not measured.
pub struct Assumed {
    watts: f64,
    scope: String,
}

impl Assumed {
    /// A constant power of `watts`; `None` if that is not a valid power.
    pub fn new(watts: f64) -> Option<Self> {
        let scope = format!("{watts} W while it computes, as stated");
        (watts > 0.0 && watts < 1e6).then_some(Self { watts, scope })
    }
}

impl Meter for Assumed {
    fn name(&self) -> &str {
        "stated wattage"
    }

    fn scope(&self) -> &str {
        &self.scope
    }

    fn read(&mut self) -> Result<Reading, MeterError> {
        Ok(Reading::Watts(self.watts))
    }

    fn is_estimate(&self) -> bool {
        true
    }
}
