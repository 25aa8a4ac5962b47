//! Ego and agents to tokens.

use super::{ego_state, history_encoder, layers::embedding};
use crate::{
    config::ModelConfig,
    data::batch::{Index, Input, symbol},
    error::Result,
    graph::{Builder, RowMap, Rows, Scope, TensorId},
};

/// -> `[B, D]` of the egos unless they are among the histories, then `[histories, D]`.
pub fn record(b: &mut Builder, p: &Scope, config: &ModelConfig) -> Result<Vec<TensorId>> {
    b.enter(p.name());
    let mut tokens = Vec::with_capacity(2);
    if !config.use_ego_history {
        let scenarios = Rows::of(symbol::SCENARIOS);
        let ego = ego_state::record(b, &p.at("ego_state_emb"), config)?; // [B, D]
        tokens.push(with_category(b, p, ego, Index::EgoCategory, scenarios)?);
    }
    let histories = Rows::of(symbol::HISTORIES);
    let steps = config.history_steps - 1;
    let history = b.input("history", Input::History as usize, histories.times(steps), config.history_channel); // [histories * (T - 1), 9]
    let x = history_encoder::record(b, &p.at("history_encoder"), history, config)?; // [histories, D]
    tokens.push(with_category(b, p, x, Index::HistoryCategory, histories)?);
    b.leave();
    Ok(tokens)
}

/// x `[n, D]` plus the embedding of its category.
fn with_category(b: &mut Builder, p: &Scope, x: TensorId, index: Index, rows: Rows) -> Result<TensorId> {
    let category = embedding(b, &p.at("type_emb"), index as usize, rows)?; // [n, D]
    b.add(x, category, RowMap::Same)
}
