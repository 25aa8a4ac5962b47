//! File names of checkpoints from a template.

use crate::{
    error::{Error, Result},
    metrics::MetricTable,
};

/// A template such as `{epoch}-{val/minFDE:.3f}`, which gives `epoch=3-val_minFDE=1.234`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value { name: String, format: Format },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// As short as it can be.
    Plain,
    /// Whole, with leading zeros up to a width.
    Whole(usize),
    /// With this many decimals.
    Fixed(usize),
}

impl FileName {
    /// Reads a template: `{name}`, `{name:02d}` or `{name:.3f}` among text.
    ///
    /// # Errors
    /// [`Error::Config`] for another format, or a brace without its mate.
    pub fn parse(template: &str) -> Result<Self> {
        let fail = |reason: String| Error::config("lightning.trainer.checkpoint.filename", reason);
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').map(|i| open + i).ok_or_else(|| fail(format!("'{{' without '}}' in '{template}'")))?;
            parts.push(Part::Text(rest[..open].to_owned()));
            let (name, format) = rest[open + 1..close].split_once(':').unwrap_or((&rest[open + 1..close], ""));
            let format = Format::parse(format).ok_or_else(|| fail(format!("format '{format}' is none of '', '03d', '.3f'")))?;
            parts.push(Part::Value { name: name.to_owned(), format });
            rest = &rest[close + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The name without extension. `_` in a name also stands for `/`; a value that was not logged gives 0, as published.
    pub fn fill(&self, epoch: usize, step: u64, metrics: &MetricTable) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(words) => text.push_str(words),
                Part::Value { name, format } => {
                    let flat = |name: &str| name.replace('/', "_");
                    let value = match name.as_str() {
                        "epoch" => epoch as f64,
                        "step" => step as f64,
                        _ => metrics.0.iter().find(|(known, _)| flat(known) == flat(name)).map_or(0.0, |(_, value)| *value),
                    };
                    text.push_str(&format!("{}={}", flat(name), format.apply(value)));
                }
            }
        }
        text.replace(['/', '\\'], "_")
    }
}

impl Format {
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Plain);
        }
        if let Some(digits) = text.strip_prefix('.').and_then(|rest| rest.strip_suffix('f')) {
            return digits.parse().ok().filter(|n| *n <= 20).map(Self::Fixed);
        }
        let width = text.strip_suffix('d')?;
        if width.is_empty() { Some(Self::Whole(0)) } else { width.parse().ok().filter(|n| *n <= 20).map(Self::Whole) }
    }

    fn apply(self, value: f64) -> String {
        match self {
            Self::Plain => format!("{value}"),
            Self::Whole(width) => format!("{:0width$}", value.round()),
            Self::Fixed(decimals) => format!("{value:.decimals$}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_templates() {
        let metrics = MetricTable(vec![("val/minFDE".into(), 1.23456)]);
        for (template, name) in [
            ("{epoch}-{val/minFDE:.3f}", "epoch=3-val_minFDE=1.235"),
            ("{epoch:02d}-{val_minFDE:.1f}", "epoch=03-val_minFDE=1.2"),
            ("run{step}", "runstep=40"),
            ("{nothing:.2f}", "nothing=0.00"),
            ("a/b", "a_b"),
        ] {
            assert_eq!(FileName::parse(template).unwrap().fill(3, 40, &metrics), name);
        }
        assert!(FileName::parse("{epoch").is_err() && FileName::parse("{epoch:x}").is_err());
    }
}
