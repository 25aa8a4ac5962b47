//! How each type of setting is read from a node of the tree and written back.

use super::{Accelerator, CheckpointSource, ClipAlgorithm, Devices, LoggingInterval, MatmulPrecision, Mode, Precision, tree::Value};
use std::path::PathBuf;

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// What is expected, for errors.
    const EXPECTED: &'static str;
    /// The whole group below the key belongs to the setting, whatever its names.
    const TREE: bool = false;
    /// The setting, unless the node has another type.
    fn read(node: &Value) -> Option<Self>;
    /// A node that reads back the same.
    fn write(&self) -> Value;
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(node: &Value) -> Option<Self> {
        if let Value::Bool(value) = node { Some(*value) } else { None }
    }
    fn write(&self) -> Value {
        Value::Bool(*self)
    }
}

impl Setting for usize {
    const EXPECTED: &'static str = "a whole number that is not negative";
    fn read(node: &Value) -> Option<Self> {
        if let Value::Int(value) = node { (*value).try_into().ok() } else { None }
    }
    fn write(&self) -> Value {
        Value::Int(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl Setting for u64 {
    const EXPECTED: &'static str = "a whole number that is not negative";
    fn read(node: &Value) -> Option<Self> {
        if let Value::Int(value) = node { (*value).try_into().ok() } else { None }
    }
    fn write(&self) -> Value {
        Value::Int(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl Setting for i64 {
    const EXPECTED: &'static str = "a whole number";
    fn read(node: &Value) -> Option<Self> {
        if let Value::Int(value) = node { Some(*value) } else { None }
    }
    fn write(&self) -> Value {
        Value::Int(*self)
    }
}

impl Setting for f64 {
    const EXPECTED: &'static str = "a number";
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) if value.is_finite() => Some(*value),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        Value::Float(*self)
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a text";
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::Text(value) => Some(value.clone()),
            Value::Int(value) => Some(value.to_string()),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        Value::Text(self.clone())
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path";
    fn read(node: &Value) -> Option<Self> {
        String::read(node).map(Self::from)
    }
    fn write(&self) -> Value {
        Value::Text(self.display().to_string())
    }
}

impl Setting for Option<String> {
    const EXPECTED: &'static str = "a text or null";
    fn read(node: &Value) -> Option<Self> {
        if matches!(node, Value::Null) { Some(None) } else { String::read(node).map(Some) }
    }
    fn write(&self) -> Value {
        self.clone().map_or(Value::Null, Value::Text)
    }
}

impl Setting for Option<bool> {
    const EXPECTED: &'static str = "true, false or null";
    fn read(node: &Value) -> Option<Self> {
        if matches!(node, Value::Null) { Some(None) } else { bool::read(node).map(Some) }
    }
    fn write(&self) -> Value {
        self.map_or(Value::Null, Value::Bool)
    }
}

impl Setting for Option<i64> {
    const EXPECTED: &'static str = "a whole number or null";
    fn read(node: &Value) -> Option<Self> {
        if matches!(node, Value::Null) { Some(None) } else { i64::read(node).map(Some) }
    }
    fn write(&self) -> Value {
        self.map_or(Value::Null, Value::Int)
    }
}

impl Setting for Option<usize> {
    const EXPECTED: &'static str = "a whole number that is not negative, or null";
    fn read(node: &Value) -> Option<Self> {
        if matches!(node, Value::Null) { Some(None) } else { usize::read(node).map(Some) }
    }
    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, Setting::write)
    }
}

impl Setting for Option<f64> {
    const EXPECTED: &'static str = "a number or null";
    fn read(node: &Value) -> Option<Self> {
        if matches!(node, Value::Null) { Some(None) } else { f64::read(node).map(Some) }
    }
    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, Setting::write)
    }
}

impl Setting for Vec<String> {
    const EXPECTED: &'static str = "a list of texts";
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::Null => Some(Vec::new()),
            Value::List(items) => items.iter().map(String::read).collect(),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        Value::List(self.iter().map(Setting::write).collect())
    }
}

impl Setting for [f64; 7] {
    const EXPECTED: &'static str = "a list of 7 numbers";
    fn read(node: &Value) -> Option<Self> {
        let Value::List(items) = node else { return None };
        items.iter().map(f64::read).collect::<Option<Vec<_>>>()?.try_into().ok()
    }
    fn write(&self) -> Value {
        Value::List(self.iter().map(Setting::write).collect())
    }
}

impl Setting for Precision {
    const EXPECTED: &'static str = "32 or 64, or 16-mixed or bf16-mixed, which need a GPU";
    fn read(node: &Value) -> Option<Self> {
        match String::read(node)?.as_str() {
            "32" | "32-true" => Some(Self::Single),
            "64" | "64-true" => Some(Self::Double),
            "16" | "16-mixed" => Some(Self::HalfMixed),
            "bf16" | "bf16-mixed" => Some(Self::BrainMixed),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        match self {
            Self::Single => Value::Int(32),
            Self::Double => Value::Int(64),
            Self::HalfMixed => Value::Text("16-mixed".into()),
            Self::BrainMixed => Value::Text("bf16-mixed".into()),
        }
    }
}

impl Setting for Devices {
    const EXPECTED: &'static str = "-1, auto, a number of devices or a list of their numbers";
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::Null | Value::Int(-1) => Some(Self::All),
            Value::Int(count) => usize::try_from(*count).ok().filter(|count| *count > 0).map(Self::Count),
            Value::List(items) => items.iter().map(usize::read).collect::<Option<Vec<_>>>().map(Self::These),
            Value::Text(text) if matches!(text.as_str(), "auto" | "-1") => Some(Self::All),
            Value::Text(text) if text.contains(',') => {
                let numbers = text.split(',').map(str::trim).filter(|number| !number.is_empty());
                numbers.map(|number| number.parse().ok()).collect::<Option<Vec<_>>>().map(Self::These)
            }
            Value::Text(text) => text.parse().ok().filter(|count| *count > 0).map(Self::Count),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        match self {
            Self::All => Value::Int(-1),
            Self::Count(count) => count.write(),
            Self::These(numbers) => Value::List(numbers.iter().map(Setting::write).collect()),
        }
    }
}

impl Devices {
    /// True if it asks for one device, or for all that there are.
    pub(super) fn is_one(&self) -> bool {
        match self {
            Self::All => true,
            Self::Count(count) => *count == 1,
            Self::These(numbers) => numbers.len() == 1,
        }
    }
}

/// Settings that are one word of a few.
macro_rules! words {
    ($type:ident, $expected:literal, $($variant:ident = $word:literal $(| $other:literal)*),+) => {
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;
            fn read(node: &Value) -> Option<Self> {
                let Value::Text(word) = node else { return None };
                match word.as_str() {
                    $($word $(| $other)* => Some(Self::$variant),)+
                    _ => None,
                }
            }
            fn write(&self) -> Value {
                Value::Text(match self { $(Self::$variant => $word),+ }.into())
            }
        }
    };
}

pub(super) use words;

words!(Accelerator, "auto, cpu or gpu", Auto = "auto", Cpu = "cpu", Gpu = "gpu" | "cuda");
words!(MatmulPrecision, "highest, high or medium", Highest = "highest", High = "high", Medium = "medium");
words!(Mode, "min or max", Min = "min", Max = "max");
words!(ClipAlgorithm, "norm or value", Norm = "norm", Value = "value");
words!(LoggingInterval, "epoch or step", Epoch = "epoch", Step = "step");

impl Setting for CheckpointSource {
    const EXPECTED: &'static str = "last, best, a path or null";
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::Null => Some(Self::None),
            Value::Text(text) => Some(text.as_str().into()),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Last => Value::Text("last".into()),
            Self::Best => Value::Text("best".into()),
            Self::Path(path) => Value::Text(path.display().to_string()),
        }
    }
}
