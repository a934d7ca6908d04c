//! Limits on the values of a template: nesting depth, size when written out, and total time. Text
//! is accounted for by the engine's fuel.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::syntax::{HELD, LISTED};

/// Maximum nesting depth of lists and mappings.
const MAX_DEPTH: usize = 64;
/// Maximum size in bytes of a value written out with everything in it; each item counts
/// [`ITEM_BYTES`] more.
const MAX_BYTES: usize = 16 << 20;
const ITEM_BYTES: usize = 32;
/// Items per unit of fuel.
const ITEMS_PER_FUEL: usize = 4;
/// Maximum time for rendering.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Size of a value written out with everything in it.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    bytes: usize,
    depth: usize,
}

/// Checks values during the rendering of a template.
pub(super) struct Guard {
    started: Instant,
    /// Lists given to the template, by address; they are immutable and are not walked again.
    given: HashMap<usize, Size>,
    given_bytes: usize,
}

impl Guard {
    /// Creates a guard for a template that receives `variables`, which must live as long as the
    /// guard.
    pub(super) fn new(variables: &Value) -> Self {
        let mut this = Self { started: Instant::now(), given: HashMap::new(), given_bytes: 0 };
        this.given_bytes = this.note(variables, 0).bytes;
        this
    }

    /// Size of the variables in bytes.
    pub(super) fn given_bytes(&self) -> usize {
        self.given_bytes
    }

    /// Installs the checks.
    pub(super) fn install(self, environment: &mut Environment) {
        let held = move |state: &State, value: Value| {
            let value = listed(state, value)?;
            self.check(state, &value).map(|()| value)
        };
        environment.add_filter(HELD, held);
        environment.add_filter(LISTED, listed);
    }

    /// Records the sizes of all lists in a value. Lists nested deeper than the limit are not
    /// recorded, so that checks walk them.
    fn note(&mut self, value: &Value, depth: usize) -> Size {
        let mut size = Size { bytes: ITEM_BYTES + value.as_str().map_or(0, str::len), depth: 0 };
        if depth > MAX_DEPTH {
            return size;
        }
        for part in parts(value) {
            let part = self.note(&part, depth + 1);
            size.bytes = size.bytes.saturating_add(part.bytes);
            size.depth = size.depth.max(part.depth + 1);
        }
        if let Some(address) = address(value) {
            self.given.insert(address, size);
        }
        size
    }

    fn check(&self, state: &State, value: &Value) -> Result<(), Error> {
        if self.started.elapsed() > MAX_TIME {
            return Err(refuse(format!("it takes more than {MAX_TIME:?}")));
        }
        let mut bytes = 0usize;
        let mut items = 0usize;
        let mut levels = vec![parts(value)];
        while let Some(level) = levels.last_mut() {
            let Some(part) = level.next() else {
                levels.pop();
                continue;
            };
            items += 1;
            if items.is_multiple_of(ITEMS_PER_FUEL) {
                state.consume_fuel(1)?;
            }
            let known = address(&part).and_then(|address| self.given.get(&address));
            let depth = levels.len() + known.map_or(0, |size| size.depth);
            let size = known.map_or(part.as_str().map_or(0, str::len), |size| size.bytes);
            bytes = bytes.saturating_add(size + ITEM_BYTES);
            if bytes > MAX_BYTES {
                return Err(refuse(format!("a value is larger than {MAX_BYTES} bytes")));
            }
            if known.is_none() && part.as_object().is_some() {
                if is_namespace(&part) {
                    return Err(refuse("a namespace is kept in a value".into()));
                }
                levels.push(parts(&part));
            }
            if depth > MAX_DEPTH || levels.len() > MAX_DEPTH {
                return Err(refuse(format!("a value nests more than {MAX_DEPTH} deep")));
            }
        }
        Ok(())
    }
}

fn refuse(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Parts of a value; empty for texts, numbers and functions.
fn parts(value: &Value) -> Box<dyn Iterator<Item = Value>> {
    let object = value.as_object();
    match value.kind() {
        ValueKind::Map => match object.and_then(|object| object.try_iter_pairs()) {
            Some(pairs) => Box::new(pairs.flat_map(|(key, value)| [key, value])),
            None => Box::new(std::iter::empty()),
        },
        ValueKind::Seq | ValueKind::Iterable => match object.and_then(|object| object.try_iter()) {
            Some(items) => Box::new(items),
            None => Box::new(std::iter::empty()),
        },
        _ => Box::new(std::iter::empty()),
    }
}

/// Memory address of a list.
fn address(value: &Value) -> Option<usize> {
    value.downcast_object_ref::<Vec<Value>>().map(|list| std::ptr::from_ref(list).addr())
}

/// Whether a value is a namespace. Namespaces are the mutable values, so they could come to contain
/// themselves.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// Converts a lazily computed value (a slice, a sum of lists, `map`) to a list: chains of such
/// values nest, whereas lists do not.
fn listed(state: &State, value: Value) -> Result<Value, Error> {
    if value.kind() != ValueKind::Iterable {
        return Ok(value);
    }
    let mut list = Vec::new();
    for item in value.try_iter()?.checked() {
        if list.len().is_multiple_of(ITEMS_PER_FUEL) {
            state.consume_fuel(1)?;
        }
        list.push(item?);
    }
    Ok(Value::from(list))
}
