//! YAML (and with it JSON) to a tree.
//!
//! What a text can grow to is bounded by its size: aliases and merge keys are copies, and copies of copies have no end.

use super::{scalar::resolve, tree::Value};
use crate::error::{Error, Result};
use granit_parser::{Event, Parser, ScalarStyle, Tag, options};
use std::{borrow::Cow, collections::HashMap, mem::size_of};

/// Mappings and lists inside one another.
pub(super) const MAX_DEPTH: usize = 64;
/// Bytes that any text may make, small as it is.
const FREE_BYTES: usize = 1 << 18;

/// What a text, or several, may still make: four times their size and a little.
#[derive(Debug)]
pub(super) struct Allowance(usize);

impl Allowance {
    pub(super) fn of(bytes: usize) -> Self {
        Self(bytes.saturating_mul(4).saturating_add(FREE_BYTES))
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.0 = self.0.saturating_add(bytes.saturating_mul(4));
    }

    /// Takes what a node with `bytes` of text needs.
    pub(super) fn take(&mut self, bytes: usize) -> std::result::Result<(), String> {
        // Twice: what holds the nodes doubles as it grows.
        let need = 2 * size_of::<(String, Value)>() + bytes;
        self.0 = self.0.checked_sub(need).ok_or("it grows to more than four times its size")?;
        Ok(())
    }

    /// Takes what a copy of a tree needs.
    pub(super) fn take_tree(&mut self, node: &Value) -> std::result::Result<(), String> {
        match node {
            Value::Text(text) => self.take(text.len()),
            Value::List(items) => items.iter().try_fold((), |(), item| self.take_tree(item)).and_then(|()| self.take(0)),
            Value::Map(entries) => entries
                .iter()
                .try_for_each(|(key, value)| {
                    self.take(key.len())?;
                    self.take_tree(value)
                })
                .and_then(|()| self.take(0)),
            _ => self.take(0),
        }
    }
}

/// Reads a text. An empty text is an empty mapping.
///
/// # Errors
/// [`Error::Config`] with line and column of what cannot be read.
pub fn parse(text: &str) -> Result<Value> {
    match parse_yaml(text).map_err(|reason| Error::config("", reason))? {
        Value::Null => Ok(Value::Map(Vec::new())),
        tree @ Value::Map(_) => Ok(tree),
        other => Err(Error::config("", format!("the text must be a mapping of keys to values, not '{}'", other.brief()))),
    }
}

/// A mapping or list whose end has not been read, its anchor, and the key that waits for its value.
struct Open {
    node: Value,
    anchor: usize,
    key: Option<String>,
    /// Entries that `<<` brings in, which the mapping's own stand above.
    merged: Vec<(String, Value)>,
}

/// Builds one document from parse events.
struct Tree {
    open: Vec<Open>,
    anchors: HashMap<usize, Value>,
    allowance: Allowance,
    root: Option<Value>,
}

type Step = std::result::Result<(), String>;

/// The key under which a mapping takes in the entries of others.
const MERGE: &str = "<<";

impl Tree {
    fn start(&mut self, node: Value, anchor: usize) -> Step {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} mappings and lists inside one another"));
        }
        self.open.push(Open { node, anchor, key: None, merged: Vec::new() });
        Ok(())
    }

    fn end(&mut self) -> Step {
        let Some(mut done) = self.open.pop() else { return Ok(()) };
        if let Value::Map(entries) = &mut done.node {
            for (key, value) in done.merged {
                if entries.iter().all(|(own, _)| *own != key) {
                    entries.push((key, value));
                }
            }
        }
        self.add(done.node, done.anchor, false)
    }

    fn add(&mut self, node: Value, anchor: usize, plain: bool) -> Step {
        self.allowance.take(if let Value::Text(text) = &node { text.len() } else { 0 })?;
        if anchor != 0 {
            self.allowance.take_tree(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.node, parent.key.take(), node) {
            (Value::List(items), _, node) => items.push(node),
            (Value::Map(_), Some(key), node) if key == MERGE => merge(&mut parent.merged, node)?,
            (Value::Map(entries), Some(key), node) => entries.push((key, node)),
            (Value::Map(entries), None, key) => {
                let key = match key {
                    Value::Text(key) if key == MERGE && !plain => return Err("'<<' cannot be a quoted key".into()),
                    Value::Text(key) => key,
                    scalar @ (Value::Int(_) | Value::Bool(_) | Value::Float(_)) => scalar.to_string(),
                    other => return Err(format!("'{}' cannot be a key", other.brief())),
                };
                if entries.iter().any(|(known, _)| *known == key) {
                    return Err(format!("key '{key}' stands twice in one mapping"));
                }
                parent.key = Some(key);
            }
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, id: usize) -> Step {
        let node = self.anchors.get(&id).ok_or("an alias refers to what contains it")?;
        self.allowance.take_tree(node)?;
        let node = node.clone();
        self.add(node, 0, true)
    }
}

/// Adds the entries of a mapping, or of a list of mappings of which the first stands above the others.
fn merge(into: &mut Vec<(String, Value)>, node: Value) -> Step {
    match node {
        Value::Map(entries) => {
            for (key, value) in entries {
                if into.iter().all(|(own, _)| *own != key) {
                    into.push((key, value));
                }
            }
            Ok(())
        }
        Value::List(items) if items.iter().all(|item| matches!(item, Value::Map(_))) => {
            items.into_iter().try_for_each(|item| merge(into, item))
        }
        other => Err(format!("'<<' takes mappings, not '{}'", other.brief())),
    }
}

/// A scalar with its tag, if it has one.
fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> std::result::Result<Value, String> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { resolve(&text) } else { Value::Text(text.into_owned()) });
    };
    let is = |suffix| tag.is_yaml_core_schema_tag(suffix);
    let value = match resolve(&text) {
        _ if is("str") || tag.parts() == ("", "!") || tag.parts() == ("!", "") => Some(Value::Text(text.clone().into_owned())),
        Value::Int(value) if is("float") => Some(Value::Float(value as f64)),
        value @ Value::Int(_) if is("int") => Some(value),
        value @ Value::Float(_) if is("float") => Some(value),
        value @ Value::Bool(_) if is("bool") => Some(value),
        value @ Value::Null if is("null") => Some(value),
        _ => None,
    };
    value.ok_or_else(|| format!("'{}' cannot be what its tag says, or the tag is not known", Value::Text(text.into_owned()).brief()))
}

/// One YAML document, or the reason why it is none.
pub(super) fn parse_yaml(text: &str) -> std::result::Result<Value, String> {
    let mut tree = Tree { open: Vec::new(), anchors: HashMap::new(), allowance: Allowance::of(text.len()), root: None };
    let mut documents = 0;
    let options = options! { emit_comments: false, block_scalar_eof_without_line_feed: true };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let done = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                scalar(text, style, tag.as_deref()).and_then(|value| tree.add(value, anchor, plain))
            }
            Event::SequenceStart(_, anchor, _) => tree.start(Value::List(Vec::new()), anchor),
            Event::MappingStart(_, anchor, _) => tree.start(Value::Map(Vec::new()), anchor),
            Event::SequenceEnd | Event::MappingEnd => tree.end(),
            Event::Alias(id) => tree.alias(id),
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 { Err("more than one document".to_owned()) } else { Ok(()) }
            }
            _ => Ok(()),
        };
        done.map_err(|reason| format!("{reason} (line {}, column {})", span.start.line(), span.start.col() + 1))?;
    }
    Ok(tree.root.unwrap_or(Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_their_faults() {
        let tree = parse("a: {b: [1, 2.0, 'x']}\nc: &n {d: ~}\ne: *n # comment\nf: {<<: *n, g: 1}\nh: !!str 5\ni: !!float 5").unwrap();
        let flow = r#"{"a": {"b": [1, 2.0, "x"]}, "c": {"d": null}, "e": {"d": null}, "f": {"g": 1, "d": null}, "h": "5", "i": 5.0}"#;
        assert_eq!(tree.to_string(), flow);
        assert_eq!(parse(&tree.to_yaml()).unwrap(), tree);
        assert_eq!(
            parse("{\n\t\"a\": 1,\n\t\"b\": 1.0, \"c\": \"\\ud83d\\ude00\\/\"\n}").unwrap().to_string(),
            "{\"a\": 1, \"b\": 1.0, \"c\": \"😀/\"}"
        );
        let odd = Value::Map(vec![("yes".into(), Value::Text("\u{7f}\u{85}\u{feff}\n\t\"\\".into())), ("a: b".into(), Value::Null)]);
        assert_eq!(parse(&odd.to_yaml()).unwrap(), odd);
        assert_eq!(parse("").unwrap(), Value::Map(Vec::new()));
        for (text, part) in [
            ("a: 1\na: 2\n", "stands twice"),
            ("[1, 2]", "must be a mapping"),
            ("a: [1, 2", "line"),
            ("a: 1\n---\nb: 2\n", "more than one document"),
            ("a: &x [*x]", "alias"),
            ("a: !foo 3", "tag"),
            ("a: !!int x", "tag"),
            ("a: {<<: 3}", "mappings"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let bomb = (0..40).map(|i| format!("k{i}: &a{i} [*a{p}, *a{p}]\n", p = i - 1)).collect::<String>().replacen("*a-1, *a-1", "1", 1);
        assert!(parse(&bomb).unwrap_err().to_string().contains("four times its size"));
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        assert!(parse(&deep).is_err());
    }
}
