//! `${...}`: other keys and OmegaConf's resolvers, put in as OmegaConf puts them in.

use super::{
    grammar::{end_of_interpolation, sequence, value},
    text::Allowance,
    tree::Value,
};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Interpolations inside one another, by text or by what they lead to.
const MAX_DEPTH: usize = 100;

/// What an interpolation can refer to besides the tree itself.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// Values of the keys that the tree leaves out.
    pub defaults: &'a Value,
    /// Chosen options of groups.
    pub choices: &'a BTreeMap<String, String>,
}

/// The tree with every interpolation replaced by its value.
///
/// # Errors
/// [`Error::Config`] with the key whose interpolation is malformed, refers to nothing, or to itself.
pub(super) fn resolve(tree: &Value, around: &Surroundings, allowance: Allowance) -> Result<Value> {
    let mut resolver = Resolver { root: tree, around, allowance, known: HashMap::new(), open: HashSet::new() };
    resolver.node(&mut vec![("", tree)], 0).map_err(|fault| match fault {
        Fault::Missing(key) => Error::config(key, "is '???', a value that must be given"),
        Fault::Wrong(key, reason) => Error::config(key, reason),
    })
}

/// A text that reads back as itself, with what looks like an interpolation escaped.
pub(super) fn escape(node: Value) -> Value {
    match node {
        Value::Text(text) if text.contains("${") => {
            let mut escaped = String::with_capacity(text.len() + 8);
            let mut slashes = 0;
            for (at, c) in text.char_indices() {
                if text[at..].starts_with("${") {
                    escaped.extend(std::iter::repeat_n('\\', slashes + 1));
                }
                slashes = if c == '\\' { slashes + 1 } else { 0 };
                escaped.push(c);
            }
            Value::Text(escaped)
        }
        Value::List(items) => Value::List(items.into_iter().map(escape).collect()),
        Value::Map(entries) => Value::Map(entries.into_iter().map(|(key, value)| (key, escape(value))).collect()),
        other => other,
    }
}

enum Fault {
    /// An interpolation leads to a value that must still be given; the key of that value.
    Missing(String),
    /// Key and reason.
    Wrong(String, String),
}

type Resolved<T> = std::result::Result<T, Fault>;
/// A node with all that it is in, from the root on, and their names.
type Place<'a> = Vec<(&'a str, &'a Value)>;

fn name(place: &Place) -> String {
    place[1..].iter().map(|(name, _)| *name).collect::<Vec<_>>().join(".")
}

fn wrong<T>(place: &Place, reason: impl Into<String>) -> Resolved<T> {
    Err(Fault::Wrong(name(place), reason.into()))
}

struct Resolver<'a> {
    root: &'a Value,
    around: &'a Surroundings<'a>,
    allowance: Allowance,
    /// Texts that were resolved, by their address in the tree.
    known: HashMap<*const Value, Value>,
    /// Nodes that are being resolved.
    open: HashSet<*const Value>,
}

impl<'a> Resolver<'a> {
    fn grow(&mut self, place: &Place, value: &Value) -> Resolved<()> {
        self.allowance.take_tree(value).or_else(|reason| wrong(place, reason))
    }

    /// The value of the node at a place.
    fn node(&mut self, place: &mut Place<'a>, depth: usize) -> Resolved<Value> {
        let Some(&(_, node)) = place.last() else { return Ok(Value::Null) };
        match node {
            Value::Map(entries) => {
                let mut map = Vec::with_capacity(entries.len());
                for (key, child) in entries {
                    place.push((key, child));
                    map.push((key.clone(), self.node(place, depth)?));
                    place.pop();
                }
                Ok(Value::Map(map))
            }
            Value::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for item in items {
                    place.push(("", item));
                    list.push(self.node(place, depth)?);
                    place.pop();
                }
                Ok(Value::List(list))
            }
            Value::Text(text) if text.contains("${") => {
                let address = std::ptr::from_ref(node);
                if let Some(known) = self.known.get(&address) {
                    let known = known.clone();
                    self.grow(place, &known)?;
                    return Ok(known);
                }
                if !self.open.insert(address) {
                    return wrong(place, "refers to itself");
                }
                let value = match self.text(text, place, depth + 1) {
                    // As OmegaConf has it: what refers to a missing value is missing.
                    Err(Fault::Missing(_)) => Value::Text("???".into()),
                    other => other?,
                };
                self.open.remove(&address);
                self.known.insert(address, value.clone());
                Ok(value)
            }
            other => Ok(other.clone()),
        }
    }

    /// A text: one interpolation has its value's type, several and those within text make a text.
    fn text(&mut self, text: &str, place: &mut Place<'a>, depth: usize) -> Resolved<Value> {
        if depth > MAX_DEPTH {
            return wrong(place, format!("more than {MAX_DEPTH} interpolations inside one another"));
        }
        let mut result = String::new();
        let (mut at, mut slashes) = (0, 0_usize);
        while let Some(c) = text[at..].chars().next() {
            if !text[at..].starts_with("${") {
                slashes = if c == '\\' { slashes + 1 } else { 0 };
                result.push(c);
                at += c.len_utf8();
                continue;
            }
            // Backslashes before an interpolation escape one another, and the last of an odd number escapes it.
            result.truncate(result.len() - slashes.div_ceil(2));
            if slashes % 2 == 1 {
                result.push_str("${");
                (at, slashes) = (at + 2, 0);
                continue;
            }
            slashes = 0;
            let Some(end) = end_of_interpolation(text, at) else { return wrong(place, format!("'{}' has no end", &text[at..])) };
            let value = self.interpolation(&text[at + 2..end - 1], place, depth)?;
            if at == 0 && end == text.len() {
                return Ok(value);
            }
            let put = python_text(&value);
            self.allowance.take(put.len()).or_else(|reason| wrong(place, reason))?;
            result.push_str(&put);
            at = end;
        }
        let value = Value::Text(result);
        self.grow(place, &value)?;
        Ok(value)
    }

    /// What stands between `${` and `}`.
    fn interpolation(&mut self, body: &str, place: &mut Place<'a>, depth: usize) -> Resolved<Value> {
        let body = body.trim();
        match colon(body) {
            Some(at) => {
                let resolver = python_text(&self.text(&body[..at], place, depth + 1)?);
                let args = sequence(&body[at + 1..]).or_else(|reason| wrong(place, reason))?;
                let args = args.into_iter().map(|arg| self.argument(arg, place, depth)).collect::<Resolved<Vec<_>>>()?;
                self.function(&resolver, &args, &body[at + 1..], place, depth)
            }
            None => {
                let key = python_text(&self.text(body, place, depth + 1)?);
                match self.select(&key, place, depth)? {
                    Some(value) if value.is_missing() => Err(Fault::Missing(key)),
                    Some(value) => Ok(value),
                    None => wrong(place, format!("'${{{key}}}' refers to a key that does not exist")),
                }
            }
        }
    }

    fn argument(&mut self, value: Value, place: &mut Place<'a>, depth: usize) -> Resolved<Value> {
        match value {
            Value::Text(text) if text.contains("${") => self.text(&text, place, depth + 1),
            Value::List(items) => Ok(Value::List(items.into_iter().map(|x| self.argument(x, place, depth)).collect::<Resolved<_>>()?)),
            other => Ok(other),
        }
    }

    /// The node that a dotted key names, from the root or, with dots before it, from what the place is in.
    fn select(&mut self, key: &str, place: &mut Place<'a>, depth: usize) -> Resolved<Option<Value>> {
        let dots = key.len() - key.trim_start_matches('.').len();
        let mut found: Place<'a> = match dots {
            0 => vec![("", self.root)],
            dots if dots < place.len() => place[..place.len() - dots].to_vec(),
            _ => return wrong(place, format!("'{key}' goes up beyond the root")),
        };
        let path = key[dots..].replace('[', ".").replace(']', "");
        let mut rest = path.split('.').filter(|name| !name.is_empty()).peekable();
        while let Some(step) = rest.next() {
            let Some(&(_, node)) = found.last() else { return Ok(None) };
            let Some(child) = node.child(step) else {
                return Ok(if dots == 0 { self.around.defaults.get(&path).cloned() } else { None });
            };
            let known = match node {
                Value::Map(entries) => entries.iter().find(|(key, _)| key == step).map_or("", |(key, _)| key.as_str()),
                _ => "",
            };
            found.push((known, child));
            if rest.peek().is_some() && matches!(child, Value::Text(text) if text.contains("${")) {
                let value = self.node(&mut found, depth)?;
                return Ok(rest.try_fold(&value, |node, step| node.child(step)).cloned());
            }
        }
        if depth > MAX_DEPTH {
            return wrong(place, format!("more than {MAX_DEPTH} interpolations inside one another"));
        }
        let value = self.node(&mut found, depth)?;
        self.grow(place, &value)?;
        Ok(Some(value))
    }

    fn function(&mut self, resolver: &str, args: &[Value], raw: &str, place: &mut Place<'a>, depth: usize) -> Resolved<Value> {
        let count = |range: std::ops::RangeInclusive<usize>| {
            let reason = || format!("{resolver} takes {} to {} arguments, not {}", range.start(), range.end(), args.len());
            if range.contains(&args.len()) { Ok(()) } else { Err(Fault::Wrong(String::new(), reason())) }
        };
        let checked =
            |range| count(range).or_else(|fault| if let Fault::Wrong(_, reason) = fault { wrong(place, reason) } else { Err(fault) });
        match resolver {
            "oc.env" => {
                checked(1..=2)?;
                let variable = python_text(&args[0]);
                match (std::env::var(&variable), args.get(1)) {
                    (Ok(value), _) => Ok(Value::Text(value)),
                    (Err(_), Some(Value::Null)) => Ok(Value::Null),
                    (Err(_), Some(default)) => Ok(Value::Text(python_text(default))),
                    (Err(_), None) => wrong(place, format!("the environment variable '{variable}' is not set")),
                }
            }
            "oc.decode" => {
                checked(1..=1)?;
                match &args[0] {
                    Value::Text(text) => match value(text) {
                        Ok(value) => self.argument(value, place, depth),
                        Err(reason) => wrong(place, reason),
                    },
                    Value::Null => Ok(Value::Null),
                    other => wrong(place, format!("oc.decode takes a text, not {}", other.brief())),
                }
            }
            "oc.select" => {
                checked(1..=2)?;
                let found = self.select(&python_text(&args[0]), place, depth)?.filter(|value| !value.is_missing());
                Ok(found.or_else(|| args.get(1).cloned()).unwrap_or(Value::Null))
            }
            "oc.dict.keys" | "oc.dict.values" => {
                checked(1..=1)?;
                match self.select(&python_text(&args[0]), place, depth)? {
                    Some(Value::Map(entries)) if resolver == "oc.dict.keys" => {
                        Ok(Value::List(entries.into_iter().map(|(key, _)| Value::Text(key)).collect()))
                    }
                    Some(Value::Map(entries)) => Ok(Value::List(entries.into_iter().map(|(_, value)| value).collect())),
                    _ => wrong(place, format!("'{}' is no mapping", python_text(&args[0]))),
                }
            }
            "now" => {
                let format = python_text(&self.text(raw, place, depth + 1)?);
                super::clock::now(&format).or_else(|reason| wrong(place, reason))
            }
            "hydra" => {
                checked(1..=1)?;
                let key = python_text(&args[0]);
                match (key.as_str(), key.strip_prefix("runtime.choices.")) {
                    ("runtime.cwd", _) => Ok(Value::Text(std::env::current_dir().unwrap_or_default().display().to_string())),
                    (_, Some(group)) if self.around.choices.contains_key(group) => Ok(Value::Text(self.around.choices[group].clone())),
                    _ => wrong(place, format!("'hydra:{key}' is not known here; hydra:runtime.cwd and hydra:runtime.choices.GROUP are")),
                }
            }
            other => wrong(
                place,
                format!("resolver '{other}' is unknown; known are oc.env, oc.decode, oc.select, oc.dict.keys, oc.dict.values, now, hydra"),
            ),
        }
    }
}

/// Where the colon behind a resolver's name stands.
fn colon(body: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// A value within a text, as Python writes it.
fn python_text(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Float(x) if x.is_nan() => "nan".into(),
        Value::Float(x) if x.is_infinite() => if *x > 0.0 { "inf" } else { "-inf" }.into(),
        Value::Float(x) if *x != 0.0 && !(1e-4..1e16).contains(&x.abs()) => {
            let text = format!("{x:e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        Value::Float(x) => format!("{x:?}"),
        Value::Text(text) => text.clone(),
        Value::List(items) => format!("[{}]", items.iter().map(python_item).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("'{key}': {}", python_item(value))).collect::<Vec<_>>();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Int(x) => x.to_string(),
    }
}

fn python_item(value: &Value) -> String {
    if let Value::Text(text) = value { format!("'{text}'") } else { python_text(value) }
}
