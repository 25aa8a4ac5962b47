//! Values as Hydra's overrides and the arguments of OmegaConf's resolvers write them: `3`, `1e-3`, `true`, `'a text'`, `[1, b]`,
//! `{a: 1}`. YAML's `yes`, `on` and `010` are texts here.

use super::{text::MAX_DEPTH, tree::Value};

type Parsed<T> = Result<T, String>;

/// Reads one value that ends at the end of the text.
///
/// # Errors
/// What cannot be read.
pub(super) fn value(text: &str) -> Parsed<Value> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.element("", 0)?;
    if reader.at == text.len() { Ok(value) } else { Err(format!("'{}' is left over", &text[reader.at..])) }
}

/// Reads values with commas between them.
///
/// # Errors
/// What cannot be read.
pub(super) fn sequence(text: &str) -> Parsed<Vec<Value>> {
    let mut reader = Reader { text, at: 0 };
    let mut items = Vec::new();
    if text.trim().is_empty() {
        return Ok(items);
    }
    loop {
        items.push(reader.element(",", 0)?);
        if !reader.take(',') {
            break;
        }
    }
    if reader.at == text.len() { Ok(items) } else { Err(format!("'{}' is left over", &text[reader.at..])) }
}

/// The end of an interpolation that starts at `start` (with `${`): just behind its brace.
pub(super) fn end_of_interpolation(text: &str, start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut bytes = text.bytes().enumerate().skip(start);
    while let Some((at, byte)) = bytes.next() {
        match (quote, byte) {
            (_, b'\\') => {
                bytes.next();
            }
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    fn take(&mut self, c: char) -> bool {
        let taken = self.rest().starts_with(c);
        self.at += if taken { c.len_utf8() } else { 0 };
        taken
    }

    fn element(&mut self, ends: &str, depth: usize) -> Parsed<Value> {
        if depth >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} lists and mappings inside one another"));
        }
        self.spaces();
        let value = match self.rest().chars().next() {
            Some('[') => self.list(depth)?,
            Some('{') => self.map(depth)?,
            Some(quote @ ('\'' | '"')) => self.quoted(quote)?,
            _ => return self.primitive(ends),
        };
        self.spaces();
        Ok(value)
    }

    fn list(&mut self, depth: usize) -> Parsed<Value> {
        self.at += 1;
        let mut items = Vec::new();
        self.spaces();
        if self.take(']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.element(",]", depth + 1)?);
            if self.take(']') {
                return Ok(Value::List(items));
            }
            if !self.take(',') {
                return Err("a list without its ']'".into());
            }
        }
    }

    fn map(&mut self, depth: usize) -> Parsed<Value> {
        self.at += 1;
        let mut map = Value::Map(Vec::new());
        self.spaces();
        if self.take('}') {
            return Ok(map);
        }
        loop {
            self.spaces();
            let key = match self.primitive(":,}")? {
                Value::Text(key) => key,
                other => other.to_string(),
            };
            if !self.take(':') {
                return Err(format!("key '{key}' without its ':'"));
            }
            let value = self.element(",}", depth + 1)?;
            let Value::Map(entries) = &mut map else { return Ok(map) };
            entries.retain(|(known, _)| *known != key);
            entries.push((key, value));
            if self.take('}') {
                return Ok(map);
            }
            if !self.take(',') {
                return Err("a mapping without its '}'".into());
            }
        }
    }

    /// Backslashes before a quote escape; others stand for themselves.
    fn quoted(&mut self, quote: char) -> Parsed<Value> {
        let body = &self.rest()[1..];
        let mut text = String::new();
        let mut slashes = 0;
        for (at, c) in body.char_indices() {
            if c == '\\' {
                slashes += 1;
                continue;
            }
            let kept = if c == quote { slashes / 2 } else { slashes };
            text.extend(std::iter::repeat_n('\\', kept));
            if c == quote && slashes % 2 == 0 {
                self.at += 1 + at + 1;
                return Ok(Value::Text(text));
            }
            text.push(c);
            slashes = 0;
        }
        Err(format!("a text without its closing {quote}"))
    }

    fn primitive(&mut self, ends: &str) -> Parsed<Value> {
        let (mut text, mut plain) = (String::new(), true);
        // How far the text goes without the spaces at its end, of which an escaped one is none.
        let mut length = 0;
        while let Some(c) = self.rest().chars().next() {
            if self.rest().starts_with("${") {
                let end = end_of_interpolation(self.text, self.at).ok_or("an interpolation without its '}'")?;
                text.push_str(&self.text[self.at..end]);
                (self.at, plain, length) = (end, false, text.len());
                continue;
            }
            if ends.contains(c) {
                break;
            }
            self.at += c.len_utf8();
            match (c, self.rest().chars().next()) {
                ('\\', Some(next)) if "\\()[]{}:=, \t".contains(next) => {
                    text.push(next);
                    self.at += 1;
                    (plain, length) = (false, text.len());
                }
                ('[' | ']' | '{' | '}' | '(' | ')' | '\'' | '"' | ',', _) => return Err(format!("'{c}' needs quotes or a backslash")),
                _ => {
                    text.push(c);
                    if !matches!(c, ' ' | '\t') {
                        length = text.len();
                    }
                }
            }
        }
        text.truncate(length);
        Ok(if plain { typed(text) } else { Value::Text(text) })
    }
}

/// The type of an unquoted text.
fn typed(text: String) -> Value {
    match text.to_ascii_lowercase().as_str() {
        "null" => return Value::Null,
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        "nan" | "+nan" | "-nan" => return Value::Float(f64::NAN),
        "inf" | "+inf" => return Value::Float(f64::INFINITY),
        "-inf" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let grouped = |text: &str| text.split('_').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let whole = |text: &str| text == "0" || (grouped(text) && !text.starts_with('0'));
    let number = || text.replace('_', "");
    if whole(digits) {
        return number().parse().map_or(Value::Text(text), Value::Int);
    }
    let (mantissa, exponent) = digits.split_once(['e', 'E']).map_or((digits, None), |(m, e)| (m, Some(e)));
    let exponent_good = exponent.is_none_or(|e| grouped(e.strip_prefix(['+', '-']).unwrap_or(e)));
    let mantissa_good = match mantissa.split_once('.') {
        Some((a, "")) => whole(a),
        Some((a, b)) => (a.is_empty() || whole(a)) && grouped(b),
        None => whole(mantissa) && exponent.is_some(),
    };
    if exponent_good && mantissa_good {
        return number().parse().map_or(Value::Text(text), Value::Float);
    }
    Value::Text(text)
}
