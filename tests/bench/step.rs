//! Time of a training step and of a prediction with the default configuration: 49 agents of which 30 are present, 160
//! polygons, 4 reference lines, 5 static objects in each scenario.
//!
//! `cargo bench --bench step -- [--batch 8] [--threads 2] [--steps 10]`

use std::time::Instant;
use training_engine::{
    config::{ModelConfig, ObjectiveConfig},
    data::collate,
    features::{AgentFeatures, CostMap, Features, MapFeatures, ReferenceLineFeatures, StaticFeatures},
    graph::Scalar,
    trainer::session::{Session, Update},
};

const AGENTS: usize = 49;
const PRESENT: usize = 30;
const STEPS: usize = 101;
const POLYGONS: usize = 160;
const POINTS: usize = 20;
const LINES: usize = 4;
const LINE_POINTS: usize = 120;
const STATICS: usize = 5;
const MAP: usize = 500;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str, default: usize| {
        let place = arguments.iter().position(|a| a == name);
        place.and_then(|i| arguments.get(i + 1)).map_or(default, |v| v.parse().expect("a number"))
    };
    let (batch_size, threads, steps) = (option("--batch", 8), option("--threads", 2), option("--steps", 10));
    let mut session = Session::new(&ModelConfig::default(), &ObjectiveConfig::default(), Scalar::F32, threads, 1).expect("session");
    let mut random = Random(7);
    let scenarios: Vec<Features> = (0..batch_size).map(|_| scenario(&mut random)).collect();
    let pack = |n: usize| {
        let all: Vec<&Features> = scenarios[..n].iter().collect();
        collate(&all, &[], &session.batch_options(false)).expect("batch")
    };
    let (batch, one) = (pack(batch_size), pack(1));

    let mut step = 0;
    let update = Update { learning_rate: 1e-3, beta: [0.9, 0.999], epsilon: 1e-8, weight_decay: 1e-4, count: 1, clip_norm: Some(5.0) };
    let trained = time(steps, || {
        step += 1;
        let loss = session.train(&batch, step).expect("step").loss;
        assert!(loss.is_finite(), "loss {loss}");
        assert!(session.update(&Update { count: step, ..update.clone() }).expect("update").applied);
    });
    let predicted = time(steps * 5, || drop(session.predict(&one).expect("prediction")));
    println!(
        "{{\"batch\": {batch_size}, \"threads\": {threads}, \"step_median_s\": {:.4}, \"step_min_s\": {:.4}, \"samples_per_s\": {:.1}, \
         \"predict_median_s\": {:.4}, \"predict_min_s\": {:.4}}}",
        trained[trained.len() / 2],
        trained[0],
        batch_size as f64 / trained[trained.len() / 2],
        predicted[predicted.len() / 2],
        predicted[0],
    );
}

/// Seconds of each call, sorted, after two calls that do not count.
fn time(count: usize, mut f: impl FnMut()) -> Vec<f64> {
    (0..2).for_each(|_| f());
    let mut seconds: Vec<f64> = (0..count.max(1))
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// Uniform numbers: xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
    /// Numbers in (-size, size).
    fn many(&mut self, count: usize, size: f64) -> Vec<f64> {
        (0..count).map(|_| (2.0 * self.next() - 1.0) * size).collect()
    }
    fn kinds(&mut self, count: usize, kinds: usize) -> Vec<i8> {
        (0..count).map(|_| (self.next() * kinds as f64) as i8).collect()
    }
}

/// A scenario of random numbers: only its shapes matter.
fn scenario(r: &mut Random) -> Features {
    let mut category = r.kinds(AGENTS, 3);
    category.iter_mut().for_each(|c| *c += 1);
    category[0] = 0;
    Features {
        token: "random".into(),
        current_state: [0.0, 0.0, 0.0, 5.0, 0.1, 0.0, 0.01],
        agents: AgentFeatures {
            count: AGENTS,
            steps: STEPS,
            position: r.many(AGENTS * STEPS * 2, 50.0),
            heading: r.many(AGENTS * STEPS, 3.0),
            velocity: r.many(AGENTS * STEPS * 2, 10.0),
            shape: r.many(AGENTS * STEPS * 2, 2.0),
            category,
            valid: (0..AGENTS * STEPS).map(|i| i < PRESENT * STEPS).collect(),
            target: r.many(AGENTS * (STEPS - 21) * 3, 10.0),
        },
        map: MapFeatures {
            count: POLYGONS,
            point_position: r.many(POLYGONS * 3 * POINTS * 2, 100.0),
            point_vector: r.many(POLYGONS * 3 * POINTS * 2, 1.0),
            point_orientation: r.many(POLYGONS * 3 * POINTS, 3.0),
            polygon_center: r.many(POLYGONS * 3, 3.0),
            polygon_position: Vec::new(),
            polygon_orientation: Vec::new(),
            polygon_type: r.kinds(POLYGONS, 3),
            polygon_on_route: (0..POLYGONS).map(|i| i % 3 == 0).collect(),
            polygon_light: r.kinds(POLYGONS, 4),
            polygon_has_speed_limit: (0..POLYGONS).map(|i| i % 2 == 0).collect(),
            polygon_speed_limit: r.many(POLYGONS, 10.0),
            valid: vec![true; POLYGONS * POINTS],
        },
        static_objects: StaticFeatures {
            count: STATICS,
            position: r.many(STATICS * 2, 50.0),
            heading: r.many(STATICS, 3.0),
            shape: r.many(STATICS * 2, 2.0),
            category: r.kinds(STATICS, 4),
            valid: vec![true; STATICS],
        },
        reference_lines: ReferenceLineFeatures {
            count: LINES,
            points: LINE_POINTS,
            position: r.many(LINES * LINE_POINTS * 2, 100.0),
            vector: r.many(LINES * LINE_POINTS * 2, 1.0),
            orientation: r.many(LINES * LINE_POINTS, 3.0),
            valid: vec![true; LINES * LINE_POINTS],
            future_projection: r.many(LINES * 8 * 2, 50.0),
        },
        cost_map: Some(CostMap { size: MAP, values: r.many(MAP * MAP, 5.0).into_iter().map(|v| v as f32).collect() }),
        ..Features::default()
    }
}
