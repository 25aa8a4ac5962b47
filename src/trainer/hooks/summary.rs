//! The model's parts with their numbers of parameters, as a table.

use super::{Context, Hook};
use crate::{
    error::Result,
    graph::Scalar,
    trainer::{host::LogLevel, session::Session},
};

/// Logs the table when training begins.
pub struct Summary;

impl Hook for Summary {
    fn name(&self) -> &'static str {
        "model_summary"
    }

    fn fit_start(&mut self, context: &mut Context) -> Result<()> {
        let depth = context.config.callbacks.model_summary.max_depth;
        context.run.log(LogLevel::Info, &table(context.module.session(), depth));
        Ok(())
    }
}

/// One line for each part of the model down to `depth` levels (-1: all), then the sums.
pub fn table(session: &Session, depth: i64) -> String {
    let depth = usize::try_from(depth).unwrap_or(usize::MAX);
    let mut parts: Vec<(&str, usize)> = Vec::new();
    for p in session.parameters().iter().filter(|p| !p.statistic) {
        // A part is what a dot follows; a parameter by itself at the top is one as well.
        let ends = p.name.match_indices('.').map(|(at, _)| at);
        let ends = if p.name.contains('.') { ends.take(depth).collect() } else { vec![p.name.len()] };
        for end in ends {
            let part = &p.name[..end];
            match parts.iter_mut().find(|(name, _)| *name == part) {
                Some((_, count)) => *count += p.len(),
                None => parts.push((part, p.len())),
            }
        }
    }
    let (total, frozen) = (session.parameters().len(), session.frozen_len());
    let bytes = match session.batch_options(false).scalar {
        Scalar::F32 => 4,
        Scalar::F64 => 8,
    };
    let width = parts.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("non-trainable parameters".len());
    let mut text = format!("{:width$} | parameters\n{:-<width$}-+-----------\n", "part", "");
    for (name, count) in &parts {
        text.push_str(&format!("{name:width$} | {:>10}\n", short(*count)));
    }
    text.push_str(&format!("{:-<width$}-+-----------\n", ""));
    text.push_str(&format!("{:width$} | {:>10}\n", "trainable parameters", short(total - frozen)));
    text.push_str(&format!("{:width$} | {:>10}\n", "non-trainable parameters", short(frozen)));
    text.push_str(&format!("{:width$} | {:>7.1} MB\n", "their size", (total * bytes) as f64 / 1e6));
    text
}

/// A number with at most four digits and its magnitude.
fn short(count: usize) -> String {
    match count {
        0..1_000 => format!("{count}  "),
        1_000..1_000_000 => format!("{:.1} K", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", count as f64 / 1e6),
        _ => format!("{:.1} B", count as f64 / 1e9),
    }
}
