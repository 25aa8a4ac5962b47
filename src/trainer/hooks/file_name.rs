//! File names of checkpoints from a template.

use super::Context;
use crate::{
    error::{Error, Result},
    metrics::MetricTable,
};

/// A template such as `{epoch}-{val/minFDE:.3f}`, which gives `epoch=3-val_minFDE=1.234`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    parts: Vec<Part>,
    /// Put `name=` before each value.
    named: bool,
}

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
    pub fn parse(template: &str, named: bool) -> Result<Self> {
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
        Ok(Self { parts, named })
    }

    /// The name of a checkpoint of this moment, without extension.
    pub fn fill(&self, context: &Context) -> String {
        self.text(context.state.epoch, context.state.step, &context.state.metrics)
    }

    /// `_` in a name also stands for `/`; a value that was not logged gives 0, as published.
    fn text(&self, epoch: usize, step: u64, metrics: &MetricTable) -> String {
        let flat = |name: &str| name.replace('/', "_");
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(words) => text.push_str(words),
                Part::Value { name, format } => {
                    if self.named {
                        text.push_str(&format!("{}=", flat(name)));
                    }
                    text.push_str(&match name.as_str() {
                        "epoch" => format.whole(epoch as u64),
                        "step" => format.whole(step),
                        _ => match metrics.0.iter().find(|(known, _)| flat(known) == flat(name)) {
                            Some((_, value)) => format.number(*value),
                            None => format.whole(0),
                        },
                    });
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

    fn whole(self, value: u64) -> String {
        match self {
            Self::Plain => value.to_string(),
            Self::Whole(width) => format!("{value:0width$}"),
            Self::Fixed(decimals) => format!("{:.decimals$}", value as f64),
        }
    }

    fn number(self, value: f64) -> String {
        match self {
            // Digits as Python writes them: 3.0, not 3.
            Self::Plain => format!("{value:?}"),
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
        let metrics = MetricTable(vec![("val/minFDE".into(), 1.23456), ("whole".into(), 3.0)]);
        for (template, name) in [
            ("{epoch}-{val/minFDE:.3f}", "epoch=3-val_minFDE=1.235"),
            ("{epoch:02d}-{val_minFDE:.1f}", "epoch=03-val_minFDE=1.2"),
            ("run{step}", "runstep=40"),
            ("{nothing:.2f}", "nothing=0.00"),
            ("{nothing}", "nothing=0"),
            ("{whole}-{step:05d}", "whole=3.0-step=00040"),
            ("a/b", "a_b"),
        ] {
            assert_eq!(FileName::parse(template, true).unwrap().text(3, 40, &metrics), name);
        }
        assert_eq!(FileName::parse("e{epoch:02d}_{val/minFDE:.2f}", false).unwrap().text(3, 40, &metrics), "e03_1.23");
        assert!(FileName::parse("{epoch", true).is_err() && FileName::parse("{epoch:x}", true).is_err());
    }
}
