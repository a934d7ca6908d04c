//! Metadata: keys and typed values, in file order.

use std::collections::HashMap;

use super::GgufError;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A metadata array: elements of one type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    /// Nested arrays; an empty one has no element type.
    Array(Vec<Array>),
}

macro_rules! conversions {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value)
            }
        }

        impl From<Vec<$from>> for Value {
            fn from(values: Vec<$from>) -> Self {
                Self::Array(Array::$variant(values))
            }
        }
    )*};
}

conversions! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32,
    bool => Bool, String => String, u64 => U64, i64 => I64, f64 => F64,
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.into())
    }
}

impl Value {
    /// Name of the type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::F32(_) => "f32",
            Self::Bool(_) => "bool",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F64(_) => "f64",
        }
    }

    /// The value of any non-negative integer.
    fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(x) => Some(x.into()),
            Self::U16(x) => Some(x.into()),
            Self::U32(x) => Some(x.into()),
            Self::U64(x) => Some(x),
            Self::I8(x) => x.try_into().ok(),
            Self::I16(x) => x.try_into().ok(),
            Self::I32(x) => x.try_into().ok(),
            Self::I64(x) => x.try_into().ok(),
            _ => None,
        }
    }
}

/// Metadata entries in file order, with unique keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    by_key: HashMap<String, usize>,
}

impl Metadata {
    /// Empty metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).map(|&i| &self.entries[i].1)
    }

    /// Sets the value of a key; an existing key keeps its position.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.by_key.get(&key) {
            Some(&i) => self.entries[i].1 = value,
            None => {
                self.by_key.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.by_key.remove(key)?;
        let (_, value) = self.entries.remove(at);
        for i in self.by_key.values_mut().filter(|i| **i > at) {
            *i -= 1;
        }
        Some(value)
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Converts the value of a key with `take`; an error if the key is present but `take` returns
    /// `None`.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        take: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let found = value.type_name();
        let error = || GgufError::MetadataType { key: key.into(), found, expected };
        take(value).map(Some).ok_or_else(error)
    }

    /// A non-negative integer of any type.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// A non-negative integer that fits `usize`.
    pub fn usize(&self, key: &str) -> Result<Option<usize>, GgufError> {
        self.typed(key, "a non-negative integer", |value| value.as_u64()?.try_into().ok())
    }

    /// A non-negative integer that fits 32 bits.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "an integer of 32 bits", |value| value.as_u64()?.try_into().ok())
    }

    /// A token's id. Files state -1, signed or as its 32 bits, where there is no such token.
    pub fn token_id(&self, key: &str) -> Result<Option<u32>, GgufError> {
        match self.get(key) {
            Some(Value::I32(-1) | Value::I64(-1) | Value::U32(u32::MAX)) => Ok(None),
            _ => self.u32(key),
        }
    }

    /// A floating-point number.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a number", |value| match *value {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            ref other => other.as_u64().map(|x| x as f32),
        })
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(x) => Some(*x),
            _ => None,
        })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::String(x) => Some(x.as_str()),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(x)) => Some(x.as_slice()),
            _ => None,
        })
    }

    /// An array of bytes.
    pub fn bytes(&self, key: &str) -> Result<Option<&[u8]>, GgufError> {
        self.typed(key, "an array of u8", |value| match value {
            Value::Array(Array::U8(x)) => Some(x.as_slice()),
            _ => None,
        })
    }

    /// An array of f32.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>, GgufError> {
        self.typed(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(x)) => Some(x.as_slice()),
            _ => None,
        })
    }

    /// An array of u64.
    pub fn u64s(&self, key: &str) -> Result<Option<&[u64]>, GgufError> {
        self.typed(key, "an array of u64", |value| match value {
            Value::Array(Array::U64(x)) => Some(x.as_slice()),
            _ => None,
        })
    }

    /// An array of any integer type whose elements are non-negative and fit 32 bits.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        self.typed(key, "an array of non-negative integers of 32 bits", |value| match value {
            Value::Array(array) => array.to_u32s(),
            _ => None,
        })
    }
}

impl Array {
    fn to_u32s(&self) -> Option<Vec<u32>> {
        fn all<T: Copy + TryInto<u32>>(values: &[T]) -> Option<Vec<u32>> {
            values.iter().map(|&x| x.try_into().ok()).collect()
        }
        match self {
            Self::U8(x) => all(x),
            Self::I8(x) => all(x),
            Self::U16(x) => all(x),
            Self::I16(x) => all(x),
            Self::U32(x) => all(x),
            Self::I32(x) => all(x),
            Self::U64(x) => all(x),
            Self::I64(x) => all(x),
            _ => None,
        }
    }
}
