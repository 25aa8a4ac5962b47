//! Text to tree: YAML or JSON, and `key=value` overrides.
//!
//! Plain scalars are typed as OmegaConf types them (YAML 1.1 without dates, and floats may lack a point: `1e-3`).

use super::tree::Value;
use crate::error::{Error, Result};
use granit_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// Nodes that aliases may expand to: a guard against texts that grow without end.
const MAX_NODES: usize = 100_000;
/// Mappings and lists inside one another.
const MAX_DEPTH: usize = 64;

/// Reads a text; JSON is tried first where it looks like that. An empty text is an empty mapping.
///
/// # Errors
/// [`Error::Config`] with line and column of what cannot be read.
pub fn parse(text: &str) -> Result<Value> {
    if text.trim_start().starts_with('{')
        && let Ok(json) = serde_json::from_str::<serde_json::Value>(text)
    {
        return Ok(from_json(json));
    }
    match parse_yaml(text).map_err(|reason| Error::config("", reason))? {
        Value::Null => Ok(Value::Map(Vec::new())),
        tree @ Value::Map(_) => Ok(tree),
        other => Err(Error::config("", format!("the text must be a mapping of keys to values, not '{other}'"))),
    }
}

/// Splits `key=value` and reads the value as YAML; a value that is no YAML is taken as it stands.
///
/// # Errors
/// [`Error::Config`] without a key or an equals sign.
pub fn parse_override(text: &str) -> Result<(String, Value)> {
    let (key, value) = text.split_once('=').ok_or_else(|| Error::config("", format!("override '{text}' is not of the form key=value")))?;
    let key = key.trim();
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(Error::config(key, format!("override '{text}' does not name a key")));
    }
    Ok((key.to_owned(), parse_yaml(value).unwrap_or_else(|_| Value::Text(value.trim().to_owned()))))
}

fn from_json(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(value) => Value::Text(value),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(entries) => Value::Map(entries.into_iter().map(|(key, value)| (key, from_json(value))).collect()),
    }
}

/// A mapping or list whose end has not been read, its anchor, and the key that waits for its value.
struct Open {
    node: Value,
    anchor: usize,
    key: Option<String>,
}

/// Builds one document from parse events.
#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    /// Anchored nodes with their sizes.
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
    root: Option<Value>,
}

impl Tree {
    fn start(&mut self, node: Value, anchor: usize) -> std::result::Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} mappings and lists inside one another"));
        }
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    fn end(&mut self) -> std::result::Result<(), String> {
        let Some(done) = self.open.pop() else { return Ok(()) };
        self.add(done.node, done.anchor)
    }

    fn add(&mut self, node: Value, anchor: usize) -> std::result::Result<(), String> {
        self.nodes += 1;
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), count(&node)));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.node, parent.key.take(), node) {
            (Value::List(items), _, node) => items.push(node),
            (Value::Map(entries), Some(key), node) => entries.push((key, node)),
            (Value::Map(entries), None, key) => {
                let key = match key {
                    Value::Text(key) => key,
                    scalar @ (Value::Int(_) | Value::Bool(_) | Value::Float(_)) => scalar.to_string(),
                    other => return Err(format!("'{other}' cannot be a key")),
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

    fn alias(&mut self, id: usize) -> std::result::Result<(), String> {
        let (node, size) = self.anchors.get(&id).cloned().ok_or("an alias refers to what contains it")?;
        self.nodes += size;
        if self.nodes > MAX_NODES {
            return Err(format!("aliases expand to more than {MAX_NODES} values"));
        }
        self.add(node, 0)
    }
}

fn count(node: &Value) -> usize {
    1 + match node {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|(_, value)| count(value)).sum(),
        _ => 0,
    }
}

/// One YAML document, or the reason why it is none.
fn parse_yaml(text: &str) -> std::result::Result<Value, String> {
    let mut tree = Tree::default();
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let done = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                tree.add(if plain { resolve(&text) } else { Value::Text(text.into_owned()) }, anchor)
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

/// The value of a plain scalar.
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let (sign, digits) = match text.as_bytes()[0] {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Value::Float(f64::from(sign) * f64::INFINITY);
    }
    match resolve_int(digits) {
        Some(value) => i64::try_from(i128::from(sign) * value).map_or_else(|_| Value::Text(text.to_owned()), Value::Int),
        None if is_float(digits) => {
            digits.replace('_', "").parse::<f64>().map_or_else(|_| Value::Text(text.to_owned()), |x| Value::Float(f64::from(sign) * x))
        }
        None => Value::Text(text.to_owned()),
    }
}

/// Decimal, `0b`, `0x`, octal with a leading 0, and base 60 with colons; underscores are ignored.
fn resolve_int(digits: &str) -> Option<i128> {
    let radix = |text: &str, radix: u32| {
        let text = text.replace('_', "");
        (!text.starts_with(['+', '-'])).then(|| i128::from_str_radix(&text, radix).ok()).flatten()
    };
    if let Some(binary) = digits.strip_prefix("0b") {
        return radix(binary, 2);
    }
    if let Some(hexadecimal) = digits.strip_prefix("0x") {
        return radix(hexadecimal, 16);
    }
    if digits == "0" {
        return Some(0);
    }
    if let Some(octal) = digits.strip_prefix('0') {
        return radix(octal, 8);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut parts = digits.split(':');
    let mut value = radix(parts.next()?, 10)?;
    for part in parts {
        if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        value = value.checked_mul(60)?.checked_add(part.parse::<i128>().ok().filter(|x| *x < 60)?)?;
    }
    Some(value)
}

/// Digits, a point or an exponent or both; underscores between.
fn is_float(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], Some(&digits[at + 1..])),
        None => (digits, None),
    };
    let exponent_good = exponent.is_none_or(|text| {
        let text = text.strip_prefix(['+', '-']).unwrap_or(text);
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
    });
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits_only = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let whole_good = if whole.is_empty() {
        fraction.is_some_and(|f| f.starts_with(|c: char| c.is_ascii_digit()))
    } else {
        whole.as_bytes()[0].is_ascii_digit()
    };
    exponent_good && whole_good && digits_only(whole) && fraction.is_none_or(digits_only) && (fraction.is_some() || exponent.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_typed_as_omegaconf_types_them() {
        let text = |s: &str| Value::Text(s.to_owned());
        for (plain, value) in [
            ("1e-3", Value::Float(1e-3)),
            ("1.0", Value::Float(1.0)),
            ("1", Value::Int(1)),
            ("yes", Value::Bool(true)),
            ("off", Value::Bool(false)),
            ("00:16:00:00", text("00:16:00:00")),
            ("1:30", Value::Int(90)),
            ("1e5", Value::Float(1e5)),
            ("0o10", text("0o10")),
            ("010", Value::Int(8)),
            ("1_000", Value::Int(1000)),
            (".5", Value::Float(0.5)),
            ("3.", Value::Float(3.0)),
            ("-2.5E+3", Value::Float(-2500.0)),
            ("-7", Value::Int(-7)),
            ("0x1F", Value::Int(31)),
            (".inf", Value::Float(f64::INFINITY)),
            ("-.inf", Value::Float(f64::NEG_INFINITY)),
            ("e5", text("e5")),
            (".", text(".")),
            ("-", text("-")),
            ("1.2.3", text("1.2.3")),
            ("08", text("08")),
            ("2024-01-01", text("2024-01-01")),
            ("99999999999999999999", text("99999999999999999999")),
            ("~", Value::Null),
        ] {
            assert_eq!(resolve(plain), value, "{plain}");
        }
    }

    #[test]
    fn texts_and_their_faults() {
        let tree = parse("a: {b: [1, 2.0, 'x']}\nc: &n {d: ~}\ne: *n # comment\n").unwrap();
        assert_eq!(tree.to_string(), r#"{"a": {"b": [1, 2.0, "x"]}, "c": {"d": null}, "e": {"d": null}}"#);
        assert_eq!(parse(&tree.to_yaml()).unwrap(), tree);
        assert_eq!(
            parse("{\"a\": 1, \"b\": 1.0, \"c\": \"\\ud83d\\ude00\"}").unwrap().to_string(),
            "{\"a\": 1, \"b\": 1.0, \"c\": \"😀\"}"
        );
        assert_eq!(parse("").unwrap(), Value::Map(Vec::new()));
        for (text, part) in [
            ("a: 1\na: 2\n", "stands twice"),
            ("[1, 2]", "must be a mapping"),
            ("a: [1, 2", "line"),
            ("a: 1\n---\nb: 2\n", "more than one document"),
            ("a: &x [*x]", "alias"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let bomb = (0..40).map(|i| format!("k{i}: &a{i} [*a{p}, *a{p}]\n", p = i - 1)).collect::<String>().replacen("*a-1, *a-1", "1", 1);
        assert!(parse(&bomb).unwrap_err().to_string().contains("aliases expand"));
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn overrides() {
        assert_eq!(parse_override("a.b=1e-3").unwrap(), ("a.b".to_owned(), Value::Float(1e-3)));
        assert_eq!(parse_override("a=x=y").unwrap().1, Value::Text("x=y".into()));
        assert_eq!(parse_override("a=").unwrap().1, Value::Null);
        assert_eq!(parse_override("a=[1, b]").unwrap().1.to_string(), "[1, \"b\"]");
        assert!(parse_override("nothing").is_err() && parse_override("=3").is_err() && parse_override("a..b=3").is_err());
    }
}
