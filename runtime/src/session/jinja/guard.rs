//! Bounds on the values of a template: how deep they nest, how large they are when they are written out, and how long
//! all of it takes. Texts are counted by the engine's fuel.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::syntax::{HELD, LISTED};

/// Lists and mappings within each other.
const MAX_DEPTH: usize = 64;
/// Bytes of a value with everything in it written out, each item at [`ITEM_BYTES`] more.
const MAX_BYTES: usize = 16 << 20;
const ITEM_BYTES: usize = 32;
/// Items that one fuel lets through.
const ITEMS_PER_FUEL: usize = 4;
/// All that rendering may take.
const MAX_TIME: Duration = Duration::from_secs(5);

/// A value's size with everything in it written out.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    bytes: usize,
    depth: usize,
}

/// Checks values while a template is rendered.
pub(super) struct Guard {
    started: Instant,
    /// Lists that the template was given, by address: they do not change and are not walked again.
    given: HashMap<usize, Size>,
    given_bytes: usize,
}

impl Guard {
    /// For a template that is given `variables`, which must live as long.
    pub(super) fn new(variables: &Value) -> Self {
        let mut this = Self { started: Instant::now(), given: HashMap::new(), given_bytes: 0 };
        this.given_bytes = this.note(variables, 0).bytes;
        this
    }

    /// Bytes of the variables.
    pub(super) fn given_bytes(&self) -> usize {
        self.given_bytes
    }

    /// Puts the checks in place.
    pub(super) fn install(self, environment: &mut Environment) {
        let held = move |state: &State, value: Value| {
            let value = listed(state, value)?;
            self.check(state, &value).map(|()| value)
        };
        environment.add_filter(HELD, held);
        environment.add_filter(LISTED, listed);
    }

    /// Notes the sizes of all lists in a value. What nests deeper than is allowed is left to be walked.
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

/// What a value consists of; nothing for texts, numbers and functions.
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

/// Where a list lies.
fn address(value: &Value) -> Option<usize> {
    value.downcast_object_ref::<Vec<Value>>().map(|list| std::ptr::from_ref(list).addr())
}

/// Namespaces are the values that change, and so could come to hold themselves.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// A value that is computed lazily (a slice, a sum of lists, `map`) as a list: chains of such values nest where lists do
/// not.
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
