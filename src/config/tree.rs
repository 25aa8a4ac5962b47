//! A configuration as a tree of values, before it has types: what text and overrides make, and what is read and echoed.

use super::scalar::resolve;
use std::fmt::{self, Write as _};

/// How a value is written that somebody still has to give.
const MISSING: &str = "???";
/// Characters of a value that an error shows.
const BRIEF: usize = 120;

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
        path.split('.').try_fold(self, Self::child)
    }

    /// The entry of a mapping, or of a list by its index.
    pub fn child(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            Self::List(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Takes out the node at a dotted path.
    pub fn remove(&mut self, path: &str) -> Option<Self> {
        let Self::Map(entries) = self else { return None };
        match path.split_once('.') {
            Some((name, rest)) => entries.iter_mut().find(|(key, _)| key == name)?.1.remove(rest),
            None => entries.iter().position(|(key, _)| key == path).map(|index| entries.remove(index).1),
        }
    }

    /// Lays another tree over this one: mappings are joined, anything else replaces what was there, but a value that is still to
    /// be given (`???`) replaces none.
    pub fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Map(entries), Self::Map(others)) => {
                for (key, value) in others {
                    match entries.iter_mut().find(|(own, _)| *own == key) {
                        Some((_, own)) => own.merge(value),
                        None => entries.push((key, value)),
                    }
                }
            }
            (own, other) if !other.is_missing() => *own = other,
            _ => {}
        }
    }

    /// A value that somebody still has to give: `???`.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Text(text) if text == MISSING)
    }

    /// The beginning of the value, for errors.
    pub fn brief(&self) -> String {
        let mut brief = Brief(String::new());
        // It ends early where there is more.
        if write!(brief, "{self}").is_err() {
            brief.0.push_str("...");
        }
        brief.0
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

    /// Hands on every node that is not a mapping, with its dotted path. An empty mapping says nothing and is left out.
    ///
    /// # Errors
    /// The first of `visit`.
    pub fn each_leaf<E>(self, visit: &mut impl FnMut(&str, Self) -> Result<(), E>) -> Result<(), E> {
        fn walk<E>(path: &mut String, node: Value, visit: &mut impl FnMut(&str, Value) -> Result<(), E>) -> Result<(), E> {
            let Value::Map(entries) = node else { return visit(path, node) };
            let length = path.len();
            for (key, value) in entries {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(&key);
                walk(path, value, visit)?;
                path.truncate(length);
            }
            Ok(())
        }
        walk(&mut String::new(), self, visit)
    }

    /// Every node that is not a mapping, with its dotted path.
    pub fn leaves(self) -> Vec<(String, Self)> {
        let mut leaves = Vec::new();
        let collected: Result<(), std::convert::Infallible> = self.each_leaf(&mut |path, value| {
            leaves.push((path.to_owned(), value));
            Ok(())
        });
        collected.map_or_else(|never| match never {}, |()| leaves)
    }

    /// The tree as block-style YAML that reads back as the same tree.
    pub fn to_yaml(&self) -> String {
        fn write(node: &Value, depth: usize, text: &mut String) {
            let Value::Map(entries) = node else { return };
            for (key, value) in entries {
                text.push_str(&format!("{:indent$}{}:", "", Key(key), indent = 2 * depth));
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
            Self::Text(value) => quote(f, value),
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
                    f.write_str(if i == 0 { "" } else { ", " })?;
                    quote(f, key)?;
                    write!(f, ": {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

/// A text in double quotes, as YAML and JSON read it; what cannot be printed is escaped.
fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                write!(f, "\\u{:04x}", u32::from(c))?;
            }
            _ => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// A key of a block mapping, in quotes where it would not read back as the same text.
struct Key<'a>(&'a str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.0.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && self.0.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
            && matches!(resolve(self.0), Value::Text(_));
        if plain { f.write_str(self.0) } else { quote(f, self.0) }
    }
}

/// Takes the first characters and refuses the others.
struct Brief(String);

impl fmt::Write for Brief {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = BRIEF.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        Err(fmt::Error)
    }
}
