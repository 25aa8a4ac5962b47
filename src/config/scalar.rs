//! What a plain scalar of YAML is, as OmegaConf's loader decides it: YAML 1.1 without dates, and floats may lack a point (`1e-3`).

use super::tree::Value;

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
    if let Some(value) = base_60(digits).filter(|_| digits.contains('.')) {
        return Value::Float(f64::from(sign) * value);
    }
    match resolve_int(digits) {
        Some(value) => i64::try_from(i128::from(sign) * value).map_or_else(|_| Value::Text(text.to_owned()), Value::Int),
        None if is_float(digits, sign < 0 || text.starts_with('+')) => {
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
    if digits.starts_with('0') {
        return radix(digits, 8);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut parts = digits.split(':');
    let mut value = radix(parts.next()?, 10)?;
    for part in parts {
        value = value.checked_mul(60)?.checked_add(sixtieth(part)?)?;
    }
    Some(value)
}

/// One or two digits below 60.
fn sixtieth(part: &str) -> Option<i128> {
    (matches!(part.len(), 1 | 2) && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok().filter(|x| *x < 60))?
}

/// A number in base 60 with colons and a point, `1:30.5`.
fn base_60(digits: &str) -> Option<f64> {
    let (whole, fraction) = digits.split_once('.')?;
    let (first, rest) = whole.split_once(':')?;
    let decimal = |text: &str| {
        (text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b == b'_'))
            .then(|| text.replace('_', "").parse::<f64>().ok())
            .flatten()
    };
    let mut parts: Vec<&str> = rest.split(':').collect();
    let last = parts.pop()?;
    let mut value = decimal(first)?;
    for part in parts {
        value = value * 60.0 + sixtieth(part)? as f64;
    }
    if !fraction.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return None;
    }
    sixtieth(last)?;
    Some(value * 60.0 + format!("{last}.{}", fraction.replace('_', "")).parse::<f64>().ok()?)
}

/// Digits, a point or an exponent or both; underscores between. One that starts with a point has no sign, and its exponent has one.
fn is_float(digits: &str, signed: bool) -> bool {
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], Some(&digits[at + 1..])),
        None => (digits, None),
    };
    let exponent_sign = exponent.is_none_or(|text| text.starts_with(['+', '-']));
    let exponent_good = exponent.is_none_or(|text| {
        let text = text.strip_prefix(['+', '-']).unwrap_or(text);
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
    });
    let loose = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let begun = |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && loose(text);
    let grouped = |text: &str| text.split('_').all(|part| !part.is_empty() && loose(part));
    exponent_good
        && match mantissa.split_once('.') {
            Some(("", fraction)) => !signed && begun(fraction) && exponent_sign,
            Some((whole, fraction)) => (grouped(whole) || (begun(whole) && exponent_sign)) && loose(fraction),
            None => grouped(mantissa) && exponent.is_some(),
        }
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
            ("1:30.5", Value::Float(90.5)),
            ("1e5", Value::Float(1e5)),
            ("0o10", text("0o10")),
            ("010", Value::Int(8)),
            ("1_000", Value::Int(1000)),
            (".5", Value::Float(0.5)),
            ("-.5", text("-.5")),
            (".5e3", text(".5e3")),
            (".5e+3", Value::Float(500.0)),
            ("1__0.5", Value::Float(10.5)),
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
}
