//! Frozen parameters stay as they are, and the others are trained as if nothing were frozen.

use super::*;
use training_engine::{
    optim,
    trainer::session::{Clip, Rule, Update},
};

const PATTERNS: [&str; 3] = ["map_encoder", "agent_encoder.*", "planning_decoder.decoder_blocks.0.norm*"];

fn update(weight_decay: f64, clip: Option<Clip>) -> Update {
    let rule = Rule::AdamW { beta: optim::BETA, epsilon: optim::EPSILON };
    Update { rule, learning_rate: 1e-3, weight_decay, count: 1, scale: 1.0, clip }
}

#[test]
fn frozen_parameters_get_no_step_and_no_weight_decay() {
    let case = case();
    let mut session = Session::new(&case.model, &case.objectives, Scalar::F64, 1, 0).unwrap();
    session.freeze(&PATTERNS.map(str::to_owned)).unwrap();
    let read = |session: &Session| [Buffer::Parameters, Buffer::Statistics].map(|buffer| session.read(buffer).unwrap());
    let before = read(&session);
    let batch = batch(&case, &session);
    let mut losses = Vec::new();
    for step in 0..3 {
        losses.push(session.train(&batch, step).unwrap().loss);
        assert!(session.update(&update(0.1, Some(Clip::Norm(5.0)))).unwrap().applied);
    }
    assert!(losses[2] < losses[0], "{losses:?}");
    let after = read(&session);
    let frozen = |name: &str| {
        name.starts_with("map_encoder.") || name.starts_with("agent_encoder.") || name.starts_with("planning_decoder.decoder_blocks.0.norm")
    };
    let mut count = 0;
    for p in session.parameters().iter() {
        let place = usize::from(p.statistic);
        let same = before[place][p.range()] == after[place][p.range()];
        // A norm takes the mean, so that the bias before it has no gradient at all; where the norm is of moments that is not even rounding noise.
        let idle = p.name.ends_with("first_mlp.0.bias");
        assert_eq!(same, frozen(&p.name) || idle, "{}", p.name);
        count += if frozen(&p.name) && !p.statistic { p.len() } else { 0 };
    }
    assert_eq!(session.frozen_len(), count);
}

#[test]
fn the_gradients_of_the_others_are_those_without_freezing() {
    let case = case();
    // Without batch norms among the frozen, which would use other statistics.
    let patterns = ["agent_encoder", "pos_emb", "encoder_blocks.0.attn", "planning_decoder.q_proj"];
    let gradients = |patterns: &[&str]| {
        let mut session = Session::new(&case.model, &case.objectives, Scalar::F64, 1, 0).unwrap();
        session.freeze(&patterns.iter().map(|p| p.to_string()).collect::<Vec<_>>()).unwrap();
        let batch = batch(&case, &session);
        let losses = session.train(&batch, 0).unwrap();
        (losses.loss, session.read(Buffer::Gradients).unwrap(), session)
    };
    let (whole_loss, whole, _) = gradients(&[]);
    let (loss, part, mut session) = gradients(&patterns);
    assert_eq!(loss, whole_loss);
    let frozen = |name: &str| patterns.iter().any(|pattern| name.starts_with(pattern));
    let trained: Vec<_> = session.parameters().iter().filter(|p| !p.statistic && !frozen(&p.name)).cloned().collect();
    for p in &trained {
        assert!(part[p.range()] == whole[p.range()], "{}", p.name);
    }
    // The norm that is clipped is that of the trained ones alone.
    let norm = trained.iter().flat_map(|p| &whole[p.range()]).map(|g| g * g).sum::<f64>().sqrt();
    let updated = session.update(&update(0.0, None)).unwrap();
    assert!((updated.gradient_norm - norm).abs() <= 1e-12 * norm, "{} and {norm}", updated.gradient_norm);
}

#[test]
fn the_configuration_freezes_and_the_summary_counts() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), &["freeze=[map_encoder, '*.norm1.*']"]);
    assert!(engine.model().session().frozen_len() > 0);
    let summary = engine.summary();
    let line = summary.lines().find(|line| line.starts_with("non-trainable parameters")).unwrap();
    assert!(!line.trim_end().ends_with("| 0"), "{summary}");
    let error = Engine::build(config(folder.path(), &["freeze=[zebra]"]), None, Host::default()).err().unwrap().to_string();
    assert!(error.contains("freeze") && error.contains("'zebra' names no parameter"), "{error}");
    let error = Engine::build(config(folder.path(), &["freeze=['*']"]), None, Host::default()).err().unwrap().to_string();
    assert!(error.contains("nothing is left to train"), "{error}");
}
