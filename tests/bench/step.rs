//! Times one training step (forward, losses, backward, clipping, AdamW, dropout on), or one prediction, of the default network on
//! the batch that `tests/peers/torch_step.py` uses: 49 agents of which 30 are there, 160 polygons of 20 points, 4 reference
//! lines of 100 points, 5 static objects. `--te-predict` times the whole call from a host's scenario (features included). Prints one
//! line of JSON.
//!
//! `cargo bench --bench step -- [--batch 8] [--threads 2] [--steps 20] [--predict | --te-predict]`; `tests/bench/run` sets it beside the peer.

#[path = "../common/synthetic.rs"]
mod synthetic;
mod timing;

use synthetic::features;
use timing::{option, scenario, time};
use training_engine::{
    config::{Config, ModelConfig, ObjectiveConfig},
    data::collate,
    engine::{Engine, Host},
    features::Features,
    graph::Scalar,
    trainer::session::{Clip, Rule, Session, Update},
};

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
