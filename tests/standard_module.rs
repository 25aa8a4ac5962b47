//! Objectives and metrics of the standard module against their formulas written out on the features, and the gradient of what it
//! minimises against differences, all in double precision.

mod golden_case;

use golden_case::Case;
use std::{f64::consts::PI, path::Path};
use training_engine::{
    config::{
        ModelConfig, ObjectiveConfig,
        module::{Aggregate, Metric, ModuleKind, Objective, Term},
    },
    data::{
        batch::{Batch, Index},
        collate,
    },
    features::Features,
    graph::Scalar,
    trainer::session::{Buffer, Outputs, Session},
};

const STEPS: usize = 80;

fn objectives(terms: &[(Objective, f64)], aggregate: Aggregate) -> ObjectiveConfig {
    ObjectiveConfig {
        use_collision_loss: terms.iter().any(|(objective, _)| *objective == Objective::Collision),
        use_contrast_loss: terms.iter().any(|(objective, _)| *objective == Objective::Contrastive),
        module: ModuleKind::Standard,
        terms: terms.iter().map(|&(objective, weight)| Term { objective, weight }).collect(),
        aggregate,
        metrics: Metric::ALL.to_vec(),
        type_weights: vec![("left".into(), 2.5), ("right".into(), 0.25)],
        ..ObjectiveConfig::default()
    }
}

/// The scenarios of a golden case with types, here and there a step that is not known or a heading beyond π, and a last step that is.
fn scenarios(model: &ModelConfig, case: &Case) -> Vec<Features> {
    let mut features = case.features();
    for (i, scenario) in features.iter_mut().enumerate() {
        scenario.scenario_type = ["left", "other", "right"][i % 3].into();
        let agents = &mut scenario.agents;
        for step in (i..STEPS).step_by(7 + i) {
            agents.valid[model.history_steps + step] = false;
        }
        if i != 1 {
            agents.valid.chunks_exact_mut(agents.steps).skip(1).for_each(|valid| valid[agents.steps - 1] = true);
        }
        for target in agents.target.chunks_exact_mut(3).skip(i).step_by(11) {
            target[2] += 2.0 * PI;
        }
    }
    features
}

/// A session with its batch.
fn session(case: &Case, objectives: &ObjectiveConfig) -> (Session, Batch, Vec<Features>) {
    let session = Session::new(&case.model, objectives, Scalar::F64, 2, 3).unwrap();
    let features = scenarios(&case.model, case);
    let batch = collate(&features.iter().collect::<Vec<&Features>>(), &[], &session.batch_options(false)).unwrap();
    (session, batch, features)
}

fn case() -> Case {
    Case::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/small.safetensors.gz"))
}

fn wrap(angle: f64) -> f64 {
    angle.sin().atan2(angle.cos())
}

/// x, y, heading of a step of the channels x, y, cos, sin, vx, vy.
fn pose(channels: &[f64], row: usize, step: usize) -> [f64; 3] {
    let c = &channels[(row * STEPS + step) * 6..];
    [c[0], c[1], c[3].atan2(c[2])]
}

/// x, y, heading of an agent's step, unless it is not known.
fn truth(features: &Features, model: &ModelConfig, row: usize, step: usize) -> Option<[f64; 3]> {
    let agents = &features.agents;
    let t = &agents.target[(row * STEPS + step) * 3..];
    agents.valid[row * agents.steps + model.history_steps + step].then(|| [t[0], t[1], wrap(t[2])])
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Predicted and true poses of a scenario's agents at every known step.
fn agents(batch: &Batch, outputs: &Outputs, features: &Features, model: &ModelConfig, s: usize) -> Vec<(usize, [f64; 3], [f64; 3])> {
    let rows = batch.agents[s].clone();
    let pairs = rows.flat_map(|a| {
        (0..STEPS)
            .filter_map(move |step| Some((step, pose(&outputs.prediction, a, step), truth(features, model, batch.agent_rows[a], step)?)))
    });
    pairs.collect()
}

/// The three objectives.
fn expected_losses(batch: &Batch, outputs: &Outputs, features: &[Features], model: &ModelConfig) -> [f64; 3] {
    let choice = batch.feed.index(Index::Choice as usize);
    let (mut position, mut heading, mut near) = (Vec::new(), Vec::new(), Vec::new());
    let mut near_heading = Vec::new();
    for (s, features) in features.iter().enumerate() {
        let weight = match features.scenario_type.as_str() {
            "left" => 2.5,
            "right" => 0.25,
            _ => 1.0,
        };
        for step in 0..STEPS {
            let Some(truth) = truth(features, model, 0, step) else { continue };
            let guess = pose(&outputs.trajectory, choice[s] as usize, step);
            let d: Vec<f64> = guess.iter().zip(truth).map(|(a, b)| a - b).collect();
            let decay = (-(step as f64) / STEPS as f64).exp();
            position.extend([weight * d[0] * d[0], weight * d[1] * d[1]]);
            heading.push(weight * d[2].abs());
            near.extend([weight * decay * d[0].abs(), weight * decay * d[1].abs()]);
            near_heading.push(weight * decay * d[2].abs());
        }
    }
    let square = |(_, a, b): &(usize, [f64; 3], [f64; 3])| (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>() / 3.0;
    let per_scenario = features.iter().enumerate().map(|(s, f)| agents(batch, outputs, f, model, s)).filter(|list| !list.is_empty());
    [mean(position) + mean(heading), mean(per_scenario.map(|list| mean(list.iter().map(square)))), mean(near) + mean(near_heading)]
}

fn close(ours: f64, theirs: f64, what: &str) {
    assert!((ours - theirs).abs() <= 1e-12 * (1.0 + theirs.abs()), "{what}: {ours} instead of {theirs}");
}

const NUPLAN: [(Objective, f64); 3] = [(Objective::Imitation, 1.0), (Objective::AgentsImitation, 0.5), (Objective::DecayingImitation, 3.0)];

#[test]
fn objectives_follow_their_formulas_and_make_one_loss() {
    let case = case();
    for aggregate in [Aggregate::Mean, Aggregate::Sum, Aggregate::Max] {
        let (mut session, batch, features) = session(&case, &objectives(&NUPLAN, aggregate));
        let evaluated = session.evaluate(&batch).unwrap();
        let outputs = session.outputs(&batch).unwrap();
        let expected = expected_losses(&batch, &outputs, &features, &case.model);
        let expected: Vec<f64> = expected.iter().zip(NUPLAN).map(|(loss, (_, weight))| loss * weight).collect();
        assert!(expected.iter().all(|loss| *loss > 0.0));
        let names = ["imitation_objective", "agent_imitation_objective", "trajectory_weight_decay_imitation_objective", "loss"];
        assert!(evaluated.values.iter().map(|(name, _)| *name).eq(names));
        for ((name, ours), theirs) in evaluated.values.iter().zip(&expected) {
            close(*ours, *theirs, name);
        }
        let loss = match aggregate {
            Aggregate::Mean => mean(expected),
            Aggregate::Sum => expected.iter().sum(),
            Aggregate::Max => expected.into_iter().fold(0.0, f64::max),
        };
        close(evaluated.loss, loss, "loss");
        close(evaluated.values[3].1, loss, "loss");
    }
}

#[test]
fn the_trainers_own_losses_can_be_objectives() {
    let case = case();
    let pluto = ObjectiveConfig { use_collision_loss: true, ..ObjectiveConfig::default() };
    let terms = [(Objective::Collision, 2.0), (Objective::Regression, 0.5), (Objective::Classification, 1.0), (Objective::Prediction, 4.0)];
    let (mut theirs, batch, _) = session(&case, &pluto);
    let (mut ours, own_batch, _) = session(&case, &objectives(&terms, Aggregate::Sum));
    let (theirs, ours) = (theirs.train(&batch, 1).unwrap(), ours.train(&own_batch, 1).unwrap());
    let mut sum = 0.0;
    for (name, weight) in terms.map(|(objective, weight)| (objective.name(), weight)) {
        let value = |list: &[(&str, f64)]| list.iter().find(|(other, _)| *other == name).unwrap().1;
        close(value(&ours.values), weight * value(&theirs.values), name);
        sum += weight * value(&theirs.values);
    }
    close(ours.loss, sum, "sum");
}

/// Only training has triplets: elsewhere the contrastive loss is 0, and counts as such.
#[test]
fn the_contrastive_loss_is_0_in_evaluation() {
    let mut case = case();
    case.model.use_hidden_proj = true;
    let contrastive = (Objective::Contrastive, 1.0);
    for (aggregate, share) in [(Aggregate::Mean, 0.5), (Aggregate::Sum, 1.0), (Aggregate::Max, 1.0)] {
        let evaluate = |terms: &[(Objective, f64)]| {
            let (mut session, batch, _) = session(&case, &objectives(terms, aggregate));
            session.evaluate(&batch).unwrap()
        };
        let alone = evaluate(&[contrastive]);
        assert_eq!(alone.values[..], [("contrastive_loss", 0.0), ("loss", 0.0)], "{aggregate:?}");
        assert!(alone.loss.is_sign_positive());
        let both = evaluate(&[contrastive, NUPLAN[0]]);
        assert!(both.values[1].1 > 0.0);
        close(both.loss, share * both.values[1].1, "loss");
    }
}

#[test]
fn objectives_that_cannot_be_had_are_named() {
    let case = case();
    let fails = |objectives: ObjectiveConfig, key: &str| {
        let error = Session::new(&case.model, &objectives, Scalar::F64, 1, 0).err().map(|e| e.to_string());
        assert!(error.as_ref().is_some_and(|e| e.contains(key)), "{key}: {error:?}");
    };
    fails(objectives(&[], Aggregate::Sum), "objective");
    fails(objectives(&[NUPLAN[0], NUPLAN[0]], Aggregate::Sum), "objective");
    fails(objectives(&[(Objective::ReferenceFree, 1.0)], Aggregate::Sum), "model.ref_free_traj");
    fails(ObjectiveConfig { metrics: vec![Metric::MinAde; 2], ..objectives(&NUPLAN, Aggregate::Sum) }, "training_metric");
}

#[test]
fn gradients_follow_differences_and_parts_without_a_loss_stay() {
    let case = case();
    let heads = ["planning_decoder.loc_head.", "planning_decoder.pi_head.", "agent_predictor.", "planning_decoder."];
    for (terms, reached) in [
        (&NUPLAN[..1], [true, false, false, true]),
        (&NUPLAN[1..2], [false, false, true, false]),
        (&[(Objective::Classification, 1.0)], [false, true, false, true]),
        (&[NUPLAN[2], (Objective::Classification, 0.5), NUPLAN[1]], [true, true, true, true]),
    ] {
        let (mut session, batch, _) = session(&case, &objectives(terms, Aggregate::Mean));
        session.train(&batch, 0).unwrap();
        let gradient = session.read(Buffer::Gradients).unwrap();
        for (prefix, reached) in heads.into_iter().zip(reached) {
            let mut part = session.parameters().iter().filter(|p| !p.statistic && p.name.starts_with(prefix));
            assert_eq!(part.any(|p| gradient[p.range()].iter().any(|&g| g != 0.0)), reached, "{prefix} with {terms:?}");
        }
        let decays =
            |name: &str| session.decayed().iter().any(|part| part.range().contains(&session.parameters().get(name).unwrap().offset));
        assert!(decays("norm.bias") && decays("planning_decoder.pi_head.mlp.0.weight") == reached[1]);

        // Along a direction, as there are too many parameters for each of them.
        let start = session.read(Buffer::Parameters).unwrap();
        let direction: Vec<f64> = (0..start.len()).map(|i| ((i * i + 1) as f64).sin()).collect();
        let slope: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let mut at = |h: f64| {
            let moved: Vec<f64> = start.iter().zip(&direction).map(|(p, d)| p + h * d).collect();
            session.write(Buffer::Parameters, &moved).unwrap();
            session.discard().unwrap();
            session.train(&batch, 0).unwrap().loss
        };
        const H: f64 = 1e-7;
        let difference = (8.0 * (at(H) - at(-H)) - (at(2.0 * H) - at(-2.0 * H))) / (12.0 * H);
        // Every step passes kinks of the network and of the objectives, the fewer the shorter it is, and rounding of the loss counts
        // the more; each operation alone is held to 1e-7 in `op_gradients`.
        assert!((slope - difference).abs() <= 1e-5 * slope.abs().max(1.0), "{terms:?}: {slope} and {difference}");
    }
}

#[test]
fn metrics_follow_their_formulas() {
    let case = case();
    let (mut session, batch, features) = session(&case, &objectives(&NUPLAN, Aggregate::Mean));
    session.evaluate(&batch).unwrap();
    let (sums, outputs) = (session.metrics().clone(), session.outputs(&batch).unwrap());
    let value = |name: &str| {
        let (_, sum, count) = *sums.iter().find(|(other, ..)| *other == name).unwrap();
        (sum / count, count)
    };
    let turn = |a: [f64; 3], b: [f64; 3]| wrap((a[2] - b[2]).abs());
    let distance = |a: [f64; 3], b: [f64; 3]| (a[0] - b[0]).hypot(a[1] - b[1]);
    let mut ego: [Vec<f64>; 4] = Default::default();
    let mut others: [Vec<f64>; 4] = Default::default();
    for (s, features) in features.iter().enumerate() {
        // All steps of the ego, known or not.
        let truth = |step: usize| {
            let t = &features.agents.target[step * 3..];
            [t[0], t[1], wrap(t[2])]
        };
        let best = outputs.best_trajectory(&batch, s);
        ego[0].push(mean((0..STEPS).map(|i| distance(best[i], truth(i)))));
        ego[1].push(distance(best[STEPS - 1], truth(STEPS - 1)));
        ego[2].push(mean((0..STEPS).map(|i| turn(best[i], truth(i)))));
        ego[3].push(turn(best[STEPS - 1], truth(STEPS - 1)));
        let all = agents(&batch, &outputs, features, &case.model, s);
        let last: Vec<_> = all.iter().filter(|(step, ..)| *step == STEPS - 1).collect();
        if !all.is_empty() {
            others[0].push(mean(all.iter().map(|(_, a, b)| distance(*a, *b))));
            others[2].push(mean(all.iter().map(|(_, a, b)| turn(*a, *b))));
        }
        if !last.is_empty() {
            others[1].push(mean(last.iter().map(|(_, a, b)| distance(*a, *b))));
            others[3].push(mean(last.iter().map(|(_, a, b)| turn(*a, *b))));
        }
    }
    let names = ["avg_displacement_error", "final_displacement_error", "avg_heading_error", "final_heading_error"];
    for (name, (ego, others)) in names.into_iter().zip(ego.into_iter().zip(others)) {
        for (name, values) in [(name.to_owned(), ego), (format!("agents_{name}"), others)] {
            let (ours, count) = value(&name);
            assert_eq!(count, values.len() as f64, "{name}");
            close(ours, mean(values), &name);
        }
    }
    // The trainer's own are the same as there.
    let (mut pluto, plain, _) = self::session(&case, &ObjectiveConfig::default());
    pluto.evaluate(&plain).unwrap();
    assert_eq!(pluto.metrics().len(), 5);
    for (name, sum, count) in pluto.metrics().clone() {
        assert_eq!(value(name), (sum / count, count), "{name}");
    }
}
