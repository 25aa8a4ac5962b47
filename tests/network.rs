//! Properties of the network that hold for every option.

mod golden_case;

use golden_case::Case;
use std::path::Path;
use training_engine::{
    backend::{Backend, cpu},
    config::{ModelConfig, ObjectiveConfig},
    data::{Batch, collate, collate_into},
    error::Error,
    features::Features,
    graph::{Attention, Builder, Feed, Mode, Plan, Reals, Rows, Scalar, Step, Symbol, autodiff},
    model::{self, params},
    objectives,
    trainer::session::{Buffer, Clip, Rule, Session, Update},
};

/// Scenarios of a small case, and a network that fits them.
fn scenarios() -> (Vec<Features>, ModelConfig) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    let case = Case::read(&folder.join("small.safetensors.gz"));
    let model = ModelConfig { dropout: 0.1, drop_path: 0.2, state_dropout: 0.75, ..case.model.clone() };
    (case.features(), model)
}

fn references(features: &[Features]) -> Vec<&Features> {
    features.iter().collect()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn update(count: u64) -> Update {
    let rule = Rule::AdamW { beta: [0.9, 0.999], epsilon: 1e-8 };
    Update { rule, learning_rate: 5e-3, weight_decay: 1e-2, count, scale: 1.0, clip: Some(Clip::Norm(5.0)) }
}

#[test]
fn every_parameter_reaches_the_loss() {
    for choice in 0..256_u32 {
        let on = |bit: u32| choice >> bit & 1 == 1;
        let config = ModelConfig {
            dim: 32,
            encoder_depth: 1 + usize::from(on(0)),
            decoder_depth: 1,
            num_modes: 6,
            use_ego_history: on(1),
            state_attn_encoder: on(2),
            use_hidden_proj: on(3),
            cat_x: on(4),
            ref_free_traj: on(5),
            ..ModelConfig::default()
        };
        let options =
            ObjectiveConfig { use_collision_loss: on(6), use_contrast_loss: on(3), regulate_yaw: on(7), ..ObjectiveConfig::default() };
        let parameters = params::parameters(&params::specifications(&config));
        let mut b = Builder::new(Mode::Train);
        let outputs = model::record(&mut b, &parameters, &config).unwrap();
        let losses = objectives::record(&mut b, &outputs, &parameters, &config, &options, 60).unwrap();
        assert_eq!(losses[3].1.is_some(), on(6));
        autodiff::differentiate(&mut b.finish(), losses[6].1.unwrap(), &parameters, &[]).unwrap_or_else(|e| panic!("{config:?}: {e}"));
    }
}

#[test]
fn a_parameter_that_reaches_no_loss_is_named() {
    let config = ModelConfig { use_hidden_proj: true, ..ModelConfig::default() };
    let parameters = params::parameters(&params::specifications(&config));
    let mut b = Builder::new(Mode::Train);
    let outputs = model::record(&mut b, &parameters, &config).unwrap();
    let losses = objectives::record(&mut b, &outputs, &parameters, &config, &ObjectiveConfig::default(), 60).unwrap();
    let error = autodiff::differentiate(&mut b.finish(), losses[6].1.unwrap(), &parameters, &[]).unwrap_err().to_string();
    assert!(error.contains("'hidden_proj."), "{error}");
}

#[test]
fn the_projection_alone_may_be_idle() {
    let (features, model) = scenarios();
    let model = ModelConfig { use_hidden_proj: true, ..model };
    let mut session = Session::new(&model, &ObjectiveConfig::default(), Scalar::F32, 1, 1).unwrap();
    let batch = collate(&references(&features), &[], &session.batch_options(false)).unwrap();
    assert!(session.train(&batch, 0).unwrap().loss.is_finite());
    let range = session.parameters().get("hidden_proj.0.weight").unwrap().range();
    assert!(session.read(Buffer::Gradients).unwrap()[range].iter().all(|&g| g == 0.0));
}

#[test]
fn absent_rows_change_nothing() {
    let (features, model) = scenarios();
    let padded: Vec<Features> = features.iter().map(pad).collect();
    let mut session = Session::new(&model, &ObjectiveConfig::default(), Scalar::F32, 2, 1).unwrap();
    let options = session.batch_options(false);
    let (plain, wide) = (collate(&references(&features), &[], &options).unwrap(), collate(&references(&padded), &[], &options).unwrap());
    assert_eq!(plain, wide);
    let losses = session.train(&plain, 3).unwrap();
    let gradients = session.read(Buffer::Gradients).unwrap();
    session.discard().unwrap();
    assert_eq!(losses, session.train(&wide, 3).unwrap());
    assert_eq!(bits(&gradients), bits(&session.read(Buffer::Gradients).unwrap()));
}

/// The scenario with an agent, polygon, static object and line more, all invalid, at the end of each.
fn pad(scenario: &Features) -> Features {
    fn grow<T: Clone>(values: &mut Vec<T>, rows: &usize, fill: T) {
        let width = values.len() / rows;
        values.extend(vec![fill; width]);
    }
    let mut s = scenario.clone();
    let a = &mut s.agents;
    [&mut a.position, &mut a.heading, &mut a.velocity, &mut a.shape, &mut a.target].into_iter().for_each(|v| grow(v, &a.count, 7.0));
    grow(&mut a.category, &a.count, 1);
    grow(&mut a.valid, &a.count, false);
    a.count += 1;
    let m = &mut s.map;
    [&mut m.point_position, &mut m.point_vector, &mut m.point_orientation, &mut m.polygon_center, &mut m.polygon_speed_limit]
        .into_iter()
        .for_each(|v| grow(v, &m.count, 7.0));
    [&mut m.polygon_type, &mut m.polygon_light].into_iter().for_each(|v| grow(v, &m.count, 1));
    [&mut m.polygon_on_route, &mut m.polygon_has_speed_limit].into_iter().for_each(|v| grow(v, &m.count, true));
    grow(&mut m.valid, &m.count, false);
    m.count += 1;
    let o = &mut s.static_objects;
    [&mut o.position, &mut o.heading, &mut o.shape].into_iter().for_each(|v| grow(v, &o.count, 7.0));
    grow(&mut o.category, &o.count, 1);
    grow(&mut o.valid, &o.count, false);
    o.count += 1;
    let l = &mut s.reference_lines;
    // Its lateral distance would make it the nearest line, if it counted.
    [&mut l.position, &mut l.vector, &mut l.orientation, &mut l.future_projection].into_iter().for_each(|v| grow(v, &l.count, -7.0));
    grow(&mut l.valid, &l.count, false);
    l.count += 1;
    s
}

#[test]
fn prediction_does_without_a_future() {
    let (features, model) = scenarios();
    let history: Vec<Features> = features.iter().map(without_future).collect();
    let mut session = Session::new(&model, &ObjectiveConfig::default(), Scalar::F32, 2, 1).unwrap();
    let options = session.batch_options(false);
    let known = collate(&references(&features), &[], &options).unwrap();
    let unknown = collate(&references(&history), &[], &options).unwrap();
    assert!(known.labelled && !unknown.labelled);
    assert_eq!(session.predict(&known).unwrap(), session.predict(&unknown).unwrap());
    let outputs = session.predict(&unknown).unwrap();
    for s in 0..unknown.len() {
        let probabilities = outputs.probabilities(&unknown, s);
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let best = outputs.best_row(&unknown, s).unwrap() - outputs.rows(&unknown, s).start;
        assert!(probabilities.iter().all(|&p| p <= probabilities[best]));
        assert_eq!(outputs.best_trajectory(&unknown, s).len(), model.future_steps);
    }
    assert!(matches!(session.train(&unknown, 0), Err(Error::Data(_))));
    assert!(matches!(session.evaluate(&unknown), Err(Error::Data(_))));
    // One scenario alone gives what it gives among others, up to the order of sums.
    let alone = collate(&[&history[0]], &[], &options).unwrap();
    let own = session.predict(&alone).unwrap().best_trajectory(&alone, 0);
    for (a, b) in own.iter().flatten().zip(outputs.best_trajectory(&unknown, 0).iter().flatten()) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

/// The history alone.
fn without_future(scenario: &Features) -> Features {
    const HISTORY: usize = 21;
    let mut s = scenario.clone();
    let (a, steps) = (&mut s.agents, scenario.agents.steps);
    let cut = |values: &mut Vec<f64>, width: usize| {
        *values = values.chunks(steps * width).flat_map(|agent| agent[..HISTORY * width].to_vec()).collect();
    };
    [&mut a.position, &mut a.velocity, &mut a.shape].into_iter().for_each(|v| cut(v, 2));
    cut(&mut a.heading, 1);
    a.valid = a.valid.chunks(steps).flat_map(|agent| agent[..HISTORY].to_vec()).collect();
    a.target.clear();
    a.steps = HISTORY;
    s.reference_lines.future_projection.clear();
    s.cost_map = None;
    s
}

#[test]
fn contradictions_are_named() {
    let (features, model) = scenarios();
    let session = Session::new(&model, &ObjectiveConfig::default(), Scalar::F32, 1, 1).unwrap();
    let options = session.batch_options(false);
    type Break = fn(&mut Features);
    let cases: [(&str, Break); 9] = [
        ("agents.velocity", |f| _ = f.agents.velocity.pop()),
        ("agents.steps", |f| f.agents.steps = 50),
        ("agents.category", |f| f.agents.category[1] = 4),
        ("agents.valid", |f| f.agents.valid[..21].fill(false)),
        ("map.polygon_light", |f| f.map.polygon_light[0] = -1),
        ("map.point_vector", |f| f.map.point_vector.clear()),
        ("static_objects.shape", |f| _ = f.static_objects.shape.pop()),
        ("reference_lines.valid", |f| f.reference_lines.valid.fill(false)),
        ("cost_map", |f| f.cost_map = None),
    ];
    for (field, spoil) in cases {
        let mut bad = features.clone();
        spoil(&mut bad[1]);
        match collate(&references(&bad), &[], &options) {
            Err(Error::Data(text)) => assert!(text.contains(field) && text.contains("small-1"), "{field}: {text}"),
            other => panic!("{field}: {:?}", other.map(|b| b.tokens)),
        }
    }
    let mixed = [features[0].clone(), without_future(&features[1])];
    assert!(matches!(collate(&references(&mixed), &[], &options), Err(Error::Data(_))));
    assert!(matches!(collate(&[], &[], &options), Err(Error::Data(_))));
    assert!(matches!(collate(&references(&features), &[true, true], &session.batch_options(true)), Err(Error::Data(_))));
}

#[test]
fn options_that_do_not_fit_are_named() {
    type Break = fn(&mut ModelConfig);
    let cases: [(&str, Break); 7] = [
        ("model.dim", |c| c.dim = 36),
        ("model.num_heads", |c| c.num_heads = 3),
        ("model.history_steps", |c| c.history_steps = 10),
        ("model.num_modes", |c| c.num_modes = 0),
        ("model.radius", |c| c.radius = f64::NAN),
        ("model.dropout", |c| c.dropout = 1.0),
        ("model.state_channel", |c| c.state_channel = 9),
    ];
    for (key, spoil) in cases {
        let mut config = ModelConfig::default();
        spoil(&mut config);
        match model::validate(&config) {
            Err(Error::Config { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{key}: {other:?}"),
        }
    }
    model::validate(&ModelConfig::default()).unwrap();
    let contrast = ObjectiveConfig { use_contrast_loss: true, ..ObjectiveConfig::default() };
    assert!(objectives::validate(&contrast, &ModelConfig::default()).is_err());
}

/// Batches of changing size: plans grow, are used again, and leave no trace in the results.
#[test]
fn results_do_not_depend_on_what_was_run_before() {
    let (features, model) = scenarios();
    let new = || Session::new(&model, &ObjectiveConfig::default(), Scalar::F32, 2, 5).unwrap();
    let mut session = new();
    let options = session.batch_options(false);
    let batches: Vec<Batch> =
        [&features[..1], &features[..], &features[1..2]].iter().map(|f| collate(&references(f), &[], &options).unwrap()).collect();
    let run = |session: &mut Session, batch: &Batch| {
        let losses = session.train(batch, 9).unwrap();
        let gradients = bits(&session.read(Buffer::Gradients).unwrap());
        session.discard().unwrap();
        (losses, gradients)
    };
    let first: Vec<_> = batches.iter().map(|b| run(&mut session, b)).collect();
    for (i, batch) in batches.iter().enumerate().rev() {
        session.evaluate(&batches[(i + 1) % 3]).unwrap();
        assert!(run(&mut session, batch) == first[i], "batch {i} again");
        assert!(run(&mut new(), batch) == first[i], "batch {i} alone");
    }
    let mut used = collate(&references(&features), &[], &options).unwrap();
    collate_into(&mut used, &references(&features[..1]), &[], &options).unwrap();
    assert_eq!(used, batches[0]);
}

/// Steps with every kind of dropout lower the loss on one batch, and the same seed gives the same bits.
#[test]
fn learns_and_repeats() {
    let (features, model) = scenarios();
    let run = |threads: usize, seed: u64| {
        let mut session = Session::new(&model, &ObjectiveConfig::default(), Scalar::F32, threads, seed).unwrap();
        let batch = collate(&references(&features), &[], &session.batch_options(false)).unwrap();
        let before = session.evaluate(&batch).unwrap().loss;
        for step in 0..150 {
            session.train(&batch, step).unwrap();
            assert!(session.update(&update(step + 1)).unwrap().applied);
        }
        (before, session.evaluate(&batch).unwrap().loss, bits(&session.read(Buffer::Parameters).unwrap()))
    };
    let (before, after, parameters) = run(2, 1);
    assert!(after < 0.5 * before, "{before} {after}");
    assert!(parameters == run(1, 1).2, "the number of threads changes nothing");
    assert!(parameters != run(2, 2).2);
}

/// Runs a training graph whose only feed is `values` `[rows, width]`, and gives its result "y".
fn run_on(values: Vec<f64>, rows: usize, index: Vec<i32>, step: u64, record: impl Fn(&mut Builder)) -> Vec<f64> {
    let mut b = Builder::new(Mode::Train);
    record(&mut b);
    let plan = Plan::new(b.finish(), vec![rows]);
    let y = plan.graph.result("y").unwrap();
    let (reals, indexes) = (0..values.len(), 0..index.len());
    let feed = Feed { counts: vec![rows], reals: Reals::F64(values), real_slots: vec![reals], indexes: index, index_slots: vec![indexes] };
    let mut backend: Box<dyn Backend> = cpu::new(Scalar::F64, 1, 0, 0).unwrap();
    backend.run(&plan, &feed, &Step { seed: 3, step }).unwrap();
    backend.output(&plan, &feed, y).unwrap().to_vec()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn dropout_keeps_the_mean() {
    let (rows, width, rate) = (400, 50, 0.1);
    let all = Rows::of(Symbol(0));
    let y = run_on(vec![1.0; rows * width], rows, vec![], 1, |b| {
        let x = b.input("x", 0, all, width);
        let y = b.dropout(x, rate);
        b.result("y", y);
    });
    assert!(y.iter().all(|&v| v == 0.0 || (v - 1.0 / (1.0 - rate)).abs() < 1e-12));
    // One element deviates by sqrt(rate / (1 - rate)) = 1/3; five standard errors of 20000.
    assert!((mean(&y) - 1.0).abs() < 5.0 / 3.0 / 20000_f64.sqrt(), "{}", mean(&y));
    let other = run_on(vec![1.0; rows * width], rows, vec![], 2, |b| {
        let x = b.input("x", 0, all, width);
        let y = b.dropout(x, rate);
        b.result("y", y);
    });
    assert_ne!(y, other, "another step, another mask");
}

#[test]
fn drop_path_drops_whole_groups_and_keeps_the_mean() {
    let (groups, size, width, rate) = (2000, 3, 4, 0.2);
    let index: Vec<i32> = (0..groups * size).map(|row| (row / size) as i32).collect();
    for group_index in [None, Some(0)] {
        let y = run_on(vec![1.0; groups * size * width], groups, index.clone(), 1, |b| {
            let x = b.input("x", 0, Rows::of(Symbol(0)).times(size), width);
            let y = b.residual(x, x, 0.0, rate, size, group_index).unwrap();
            b.result("y", y);
        });
        let branch: Vec<f64> = y.iter().map(|v| v - 1.0).collect();
        for group in branch.chunks(size * width) {
            assert!(group.iter().all(|v| (v - group[0]).abs() < 1e-12), "a group stays together");
            assert!(group[0].abs() < 1e-12 || (group[0] - 1.0 / (1.0 - rate)).abs() < 1e-12);
        }
        // One group deviates by 1/2; five standard errors of 2000.
        assert!((mean(&branch) - 1.0).abs() < 2.5 / 2000_f64.sqrt(), "{}", mean(&branch));
    }
}

#[test]
fn attention_drops_weights_with_scaling_and_keys_without() {
    // Segments of one query and six keys; all values are 1, so a result is the sum of the weights.
    let (segments, keys) = (3000, 6);
    let index: Vec<i32> = (0..segments as i32).flat_map(|s| [s * 6, 1, 1, s * 6, 6, 1]).collect();
    let run = |dropout: f64, key_dropout: Option<(usize, f64)>| {
        let y = run_on(vec![1.0; segments * keys * 4], segments, index.clone(), 1, |b| {
            let x = b.input("x", 0, Rows::of(Symbol(0)).times(keys), 4);
            let spec = Attention { heads: 1, head_width: 4, offsets: [0; 3], segments: 0, dropout, key_dropout, group: None };
            let y = b.attention(x, x, x, spec).unwrap();
            b.result("y", y);
        });
        y.chunks(4 * keys).map(|query| query[0]).collect::<Vec<f64>>()
    };
    let dropped = run(0.1, None);
    // Equal weights of 1/6: a result deviates by sqrt(1/9 / 6) = 0.136.
    assert!((mean(&dropped) - 1.0).abs() < 5.0 * 0.137 / (segments as f64).sqrt(), "{}", mean(&dropped));
    assert!(dropped.iter().any(|&v| v < 0.99));
    let masked = run(0.0, Some((3, 0.75)));
    assert!(masked.iter().all(|&v| (v - 1.0).abs() < 1e-12), "the weights of what is left sum to 1");
}
