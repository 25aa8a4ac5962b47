//! A configuration as a tree of values, before it has types: what text and overrides make, and what is read and echoed.

use std::fmt;

/// A node of the tree. Integers and floats are kept apart: `1` and `1.0` mean different things for some keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true`, `yes`, `on` and their opposites.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a point or an exponent.
    Float(f64),
    /// Anything else.
    Text(String),
    /// A sequence.
    List(Vec<Value>),
    /// A mapping, in the order of the text.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The node at a dotted path.
    pub fn get(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, name| match node {
            Self::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        })
    }

    /// Puts a node at a dotted path; makes the mappings on the way, and replaces what is not one.
    pub fn set(&mut self, path: &str, value: Self) {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        if !matches!(self, Self::Map(_)) {
            *self = Self::Map(Vec::new());
        }
        let Self::Map(entries) = self else { return };
        let index = entries.iter().position(|(key, _)| key == name).unwrap_or_else(|| {
            entries.push((name.to_owned(), Self::Null));
            entries.len() - 1
        });
        match rest {
            Some(rest) => entries[index].1.set(rest, value),
            None => entries[index].1 = value,
        }
    }

    /// Every node that is not a mapping, with its dotted path. An empty mapping says nothing and is left out.
    pub fn leaves(self) -> Vec<(String, Self)> {
        fn walk(path: &str, node: Value, into: &mut Vec<(String, Value)>) {
            match node {
                Value::Map(entries) => {
                    for (key, value) in entries {
                        walk(&if path.is_empty() { key } else { format!("{path}.{key}") }, value, into);
                    }
                }
                leaf => into.push((path.to_owned(), leaf)),
            }
        }
        let mut leaves = Vec::new();
        walk("", self, &mut leaves);
        leaves
    }

    /// The tree as block-style YAML that reads back as the same tree.
    pub fn to_yaml(&self) -> String {
        fn write(node: &Value, depth: usize, text: &mut String) {
            let Value::Map(entries) = node else { return };
            for (key, value) in entries {
                text.push_str(&format!("{:indent$}{key}:", "", indent = 2 * depth));
                if matches!(value, Value::Map(inner) if !inner.is_empty()) {
                    text.push('\n');
                    write(value, depth + 1, text);
                } else {
                    text.push_str(&format!(" {value}\n"));
                }
            }
        }
        let mut text = String::new();
        write(self, 0, &mut text);
        text
    }
}

/// Flow-style YAML, on one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) if value.is_nan() => f.write_str(".nan"),
            Self::Float(value) if value.is_infinite() => f.write_str(if *value > 0.0 { ".inf" } else { "-.inf" }),
            // Debug keeps the point or the exponent that marks a float, and the shortest digits that read back the same.
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => f.write_str(&serde_json::to_string(value).map_err(|_| fmt::Error)?),
            Self::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Map(entries) => {
                f.write_str("{")?;
                for (i, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{}: {value}", if i == 0 { "" } else { ", " }, serde_json::to_string(key).map_err(|_| fmt::Error)?)?;
                }
                f.write_str("}")
            }
        }
    }
}
