//! The graph of a training step, for tests that run backends themselves.

use training_engine::{
    config::{ModelConfig, ObjectiveConfig},
    graph::{Builder, Graph, Mode, Parameters, autodiff},
    model, objectives,
};

/// Losses and their gradients, as a session records them.
pub fn training(config: &ModelConfig, options: &ObjectiveConfig, parameters: &Parameters, cost_map_size: usize) -> Graph {
    let mut b = Builder::new(Mode::Train);
    let outputs = model::record(&mut b, parameters, config).unwrap();
    let losses = objectives::record(&mut b, &outputs, parameters, config, options, cost_map_size).unwrap();
    losses.iter().filter_map(|(name, loss)| Some((name, (*loss)?))).for_each(|(name, loss)| b.result(name, loss));
    let loss = losses.last().and_then(|(_, loss)| *loss).expect("a loss");
    let mut graph = b.finish();
    autodiff::differentiate(&mut graph, loss, parameters, &objectives::idle(options, config)).unwrap();
    graph
}
