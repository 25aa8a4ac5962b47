//! Times one training step (forward, losses, backward, clipping, AdamW, dropout on), or one prediction, of the default network on
//! the batch that `tests/peers/torch_step.py` uses: 49 agents of which 30 are there, 160 polygons of 20 points, 4 reference
//! lines of 100 points, 5 static objects. `--te-predict` times the whole call from a host's scenario (features included). Prints one
//! line of JSON.
//!
//! `cargo bench --bench step -- [--batch 8] [--threads 2] [--steps 20] [--predict | --te-predict]`; `tests/bench/run` sets it beside the peer.

#[path = "../common/synthetic.rs"]
mod synthetic;

use std::{sync::Arc, time::Instant};
use synthetic::{SEEN, Uniform, features};
use training_engine::{
    config::{Config, ModelConfig, ObjectiveConfig},
    data::collate,
    engine::{Engine, Host},
    features::Features,
    graph::Scalar,
    scenario::{Agent, AgentKind, AgentState, EgoState, HISTORY_STEPS, Lane, LaneKind, Map, Scenario, StaticKind, StaticObject, Vehicle},
    trainer::session::{Clip, Rule, Session, Update},
};

/// Value after `--name`, or the default.
fn option(name: &str, default: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|a| a != name).skip(1);
    arguments.next().map_or(default, |v| v.parse().expect("a number"))
}

/// A scenario as a host gives it: a road of four lanes with many more around it, 29 agents, 5 cones; history only.
fn scenario() -> Scenario {
    let u = &mut Uniform(1);
    let mut lanes = Vec::new();
    for row in 0..20 {
        for column in 0..8 {
            let (y, x) = (3.5 * f64::from(row) - 35.0, 28.0 * f64::from(column) - 112.0);
            let line = |dy: f64| (0..8).map(|k| [x + 4.0 * f64::from(k), y + dy]).collect::<Vec<_>>();
            lanes.push(Lane {
                id: format!("lane-{row}-{column}"),
                roadblock_id: format!("block-{}-{column}", row / 4),
                kind: LaneKind::Lane,
                centerline: line(0.0),
                left: line(1.75),
                right: line(-1.75),
                successors: if column < 7 { vec![format!("lane-{row}-{}", column + 1)] } else { Vec::new() },
                speed_limit: (row % 3 > 0).then_some(15.0),
            });
        }
    }
    let ego = |k: usize| EgoState { x: 0.8 * (k as f64 - 20.0), vx: 8.0, ..Default::default() };
    let agents = (1..SEEN).map(|i| {
        let (x, y, v) = (u.around(90.0), 3.5 * u.around(10.0).round(), 12.0 * u.next());
        let state = |k: usize| AgentState {
            x: x + 0.1 * v * (k as f64 - 20.0),
            y,
            vx: v,
            width: 2.0,
            length: 4.5,
            valid: true,
            ..Default::default()
        };
        Agent { id: i.to_string(), kind: AgentKind::Vehicle, states: (0..HISTORY_STEPS).map(state).collect() }
    });
    let agents = agents.collect();
    let cone = |k: u8| StaticObject { kind: StaticKind::TrafficCone, x: 5.0 + f64::from(k), y: 1.0, heading: 0.0, width: 0.4, length: 0.4 };
    Scenario {
        token: "scenario".into(),
        log_name: "log".into(),
        scenario_type: "cruising".into(),
        map: Arc::new(Map::new("town", lanes, Vec::new()).expect("a map")),
        ego: (0..HISTORY_STEPS).map(ego).collect(),
        vehicle: Vehicle::PACIFICA,
        agents,
        static_objects: (0..5).map(cone).collect(),
        route: (3..8).map(|column| format!("block-2-{column}")).collect(),
        lights: Vec::new(),
    }
}

/// Seconds of each call, sorted, after three calls that do not count.
fn time(count: usize, mut body: impl FnMut()) -> Vec<f64> {
    (0..3).for_each(|_| body());
    let mut seconds: Vec<f64> = (0..count)
        .map(|_| {
            let start = Instant::now();
            body();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

fn main() {
    let (steps, threads) = (option("--steps", 20), option("--threads", 2));
    let given = |name: &str| std::env::args().any(|a| a == name);
    let (predict, engine) = (given("--predict") || given("--te-predict"), given("--te-predict"));
    let size = if predict { 1 } else { option("--batch", 8) };
    let (model, objectives) = (ModelConfig::default(), ObjectiveConfig::default());
    let mut session = Session::new(&model, &objectives, Scalar::F32, threads, 1).expect("a session");
    let scenarios: Vec<Features> = (0..size as u32).map(features).collect();
    let batch = collate(&scenarios.iter().collect::<Vec<_>>(), &[], &session.batch_options(false)).expect("a batch");

    let times = if engine {
        let config = Config::from_text("", &[&format!("threads={threads}")]).expect("a configuration");
        let mut engine = Engine::build(config, None, Host::default()).expect("an engine");
        let scenario = scenario();
        time(steps, || assert!(!engine.predict(&scenario).expect("a prediction").candidates.is_empty()))
    } else if predict {
        time(steps, || assert_eq!(session.predict(&batch).expect("a prediction").logits.len(), 48))
    } else {
        let mut step = 0;
        time(steps, || {
            let losses = session.train(&batch, step).expect("a step");
            assert!(losses.loss.is_finite());
            step += 1;
            let beta = [0.9, 0.999];
            let rule = Rule::AdamW { beta, epsilon: 1e-8 };
            let update = Update { rule, learning_rate: 1e-3, weight_decay: 1e-4, count: step, scale: 1.0, clip: Some(Clip::Norm(5.0)) };
            assert!(session.update(&update).expect("an update").applied);
        })
    };
    let median = times[times.len() / 2];
    println!(
        "{}",
        serde_json::json!({
            "mode": if engine { "te_predict" } else { "engine" }, "precision": "32", "device": format!("cpu x{threads}"), "batch": size,
            "predict": predict, "median_s": median, "min_s": times[0], "max_s": times[times.len() - 1], "samples_per_s": size as f64 / median,
        })
    );
}
