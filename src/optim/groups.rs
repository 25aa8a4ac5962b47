//! The parameter groups: with and without weight decay in PLUTO's trainer, one of all parameters in the standard module.

use crate::{
    config::module::ModuleKind,
    graph::{Parameter, Parameters, Vector},
};

/// In PLUTO's trainer, weight decay applies to the weight matrices of linear layers, convolutions and attention; not to norms, embeddings, biases,
/// frequency tables, position tables, mode embeddings or the ego query.
pub fn decays(parameter: &Parameter) -> bool {
    let leaf = parameter.name.rsplit('.').next().unwrap_or_default();
    let embedding = parameter.name.ends_with("freqs.weight") || parameter.name.ends_with("emb.weight");
    !parameter.statistic && leaf.contains("weight") && !leaf.contains("bias") && !embedding && parameter.shape.len() > 1
}

/// The parts of the parameter buffer that decay, in order; neighbours are one part. Parameters with an `idle` prefix, which
/// no loss reaches, stay as they are.
pub fn decayed(parameters: &Parameters, kind: ModuleKind, idle: &[&str]) -> Vec<Vector> {
    let mut parts: Vec<Vector> = Vec::new();
    let decays = |p: &Parameter| !p.statistic && (kind == ModuleKind::Standard || decays(p));
    for p in parameters.iter().filter(|p| decays(p) && !idle.iter().any(|prefix| p.name.starts_with(prefix))) {
        match parts.last_mut() {
            Some(last) if last.range().end == p.offset => last.len += p.len(),
            _ => parts.push(Vector { offset: p.offset, len: p.len() }),
        }
    }
    parts
}
