//! The two parameter groups: with and without weight decay.

use crate::graph::{Parameter, Parameters, Vector};

/// Weight decay applies to the weight matrices of linear layers, convolutions and attention; not to norms, embeddings, biases,
/// frequency tables, position tables, mode embeddings or the ego query.
pub fn decays(parameter: &Parameter) -> bool {
    let leaf = parameter.name.rsplit('.').next().unwrap_or_default();
    let embedding = parameter.name.ends_with("freqs.weight") || parameter.name.ends_with("emb.weight");
    !parameter.statistic && leaf.contains("weight") && !leaf.contains("bias") && !embedding && parameter.shape.len() > 1
}

/// The parts of the parameter buffer that decay, in order; neighbours are one part.
pub fn decayed(parameters: &Parameters) -> Vec<Vector> {
    let mut parts: Vec<Vector> = Vec::new();
    for p in parameters.iter().filter(|p| decays(p)) {
        match parts.last_mut() {
            Some(last) if last.range().end == p.offset => last.len += p.len(),
            _ => parts.push(Vector { offset: p.offset, len: p.len() }),
        }
    }
    parts
}
