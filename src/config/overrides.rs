//! Overrides in Hydra's grammar: `key=value`, `+key=value`, `++key=value`, `~key`, `~key=value`.

use super::{grammar, text::MAX_DEPTH, tree::Value};
use crate::error::{Error, Result};

/// What an override does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// `key=value`.
    Set,
    /// `+key=value`: only where nothing stands yet.
    Add,
    /// `++key=value`: wherever.
    Force,
    /// `~key`.
    Delete,
}

/// One override.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// What it does.
    pub change: Change,
    /// Dotted path, or a group with slashes.
    pub key: String,
    /// Behind an `@`.
    pub package: Option<String>,
    /// None only for a deletion without a value.
    pub value: Option<Value>,
}

impl Override {
    /// Reads an override.
    ///
    /// # Errors
    /// [`Error::Config`] without a key or an equals sign, or with a value that cannot be read.
    pub fn parse(text: &str) -> Result<Self> {
        let shape = || Error::config("", format!("override '{text}' is not of the form key=value, +key=value, ++key=value or ~key"));
        let (change, rest) = match text.trim() {
            rest if rest.starts_with("++") => (Change::Force, &rest[2..]),
            rest if rest.starts_with('+') => (Change::Add, &rest[1..]),
            rest if rest.starts_with('~') => (Change::Delete, &rest[1..]),
            rest => (Change::Set, rest),
        };
        let (key, value) = match rest.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None if change == Change::Delete => (rest, None),
            None => return Err(shape()),
        };
        let (key, package) = key.trim().split_once('@').map_or((key.trim(), None), |(key, package)| (key, Some(package.to_owned())));
        if key.is_empty() || key.split(['.', '/']).any(str::is_empty) || key.split('.').count() > MAX_DEPTH {
            return Err(Error::config(key, format!("override '{text}' does not name a key")));
        }
        let value = value.map(|value| match value.trim() {
            "" => Ok(Value::Text(String::new())),
            value => grammar::value(value).map_err(|reason| Error::config(key, format!("override '{text}': {reason}"))),
        });
        Ok(Self { change, key: key.to_owned(), package, value: value.transpose()? })
    }

    /// Carries it out on a tree in which the field stands under `key`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is something to be added to, or nothing to be deleted.
    pub fn apply(self, key: &str, tree: &mut Value) -> Result<()> {
        let there = tree.get(key).filter(|node| **node != Value::Null && !node.is_missing());
        match (self.change, self.value) {
            (Change::Delete, value) => match tree.get(key) {
                None => return Err(Error::config(key, "cannot be deleted: it does not stand there")),
                Some(node) if value.as_ref().is_some_and(|value| value != node) => {
                    return Err(Error::config(key, format!("is not deleted, since it is {}", node.brief())));
                }
                Some(_) => {
                    tree.remove(key);
                }
            },
            (Change::Add, Some(value)) if there.is_some() && !matches!(value, Value::Map(_) | Value::List(_)) => {
                return Err(Error::config(key, "cannot be added: it stands there already; leave out the '+' or write '++'"));
            }
            (_, Some(value)) => put(tree, key, value),
            (_, None) => {}
        }
        Ok(())
    }
}

/// Sets a node; a mapping joins the one that is there.
fn put(tree: &mut Value, path: &str, value: Value) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    if let Value::List(items) = tree
        && let Some(item) = name.parse::<usize>().ok().and_then(|index| items.get_mut(index))
    {
        return match rest {
            Some(rest) => put(item, rest, value),
            None => *item = value,
        };
    }
    if !matches!(tree, Value::Map(_)) {
        *tree = Value::Map(Vec::new());
    }
    let Value::Map(entries) = tree else { return };
    let index = entries.iter().position(|(key, _)| key == name).unwrap_or_else(|| {
        entries.push((name.to_owned(), Value::Null));
        entries.len() - 1
    });
    let entry = &mut entries[index].1;
    match (rest, value) {
        (Some(rest), value) => put(entry, rest, value),
        (None, value @ Value::Map(_)) if matches!(entry, Value::Map(_)) => entry.merge(value),
        (None, value) => *entry = value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Change, String, String) {
        let one = Override::parse(text).unwrap();
        (one.change, one.key, one.value.map_or("-".into(), |value| value.to_string()))
    }

    #[test]
    fn overrides_are_read_as_hydra_reads_them() {
        for (text, change, key, value) in [
            ("a.b=1e-3", Change::Set, "a.b", "0.001"),
            ("a=1_000", Change::Set, "a", "1000"),
            ("a=010", Change::Set, "a", "\"010\""),
            ("a=yes", Change::Set, "a", "\"yes\""),
            ("a=TRUE", Change::Set, "a", "true"),
            ("a=", Change::Set, "a", "\"\""),
            ("a='1, b'", Change::Set, "a", "\"1, b\""),
            (r"a='it\'s'", Change::Set, "a", "\"it's\""),
            ("a=[1, b, [c], {d: 2.}]", Change::Set, "a", r#"[1, "b", ["c"], {"d": 2.0}]"#),
            ("+a={b: null, c: 'x'}", Change::Add, "a", r#"{"b": null, "c": "x"}"#),
            ("++a=00:16:00:00", Change::Force, "a", "\"00:16:00:00\""),
            ("~a.b", Change::Delete, "a.b", "-"),
            ("~a=1", Change::Delete, "a", "1"),
            (r"a=epoch\=3\,x", Change::Set, "a", "\"epoch=3,x\""),
            ("a=epoch=3.ckpt", Change::Set, "a", "\"epoch=3.ckpt\""),
            ("a=x ${b} y", Change::Set, "a", "\"x ${b} y\""),
        ] {
            assert_eq!(parsed(text), (change, key.to_owned(), value.to_owned()), "{text}");
        }
        for text in ["nothing", "=3", "a..b=3", "a=1,2", "a=[1", "a='x", "a={b}", "a=b]"] {
            assert!(Override::parse(text).is_err(), "{text}");
        }
    }
}
