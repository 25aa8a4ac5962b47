//! Times the training step (forward, losses, backward, clipping, AdamW, dropout on) and `te_predict` on a GPU, with the network and the
//! batch of `tests/bench/step.rs`; prints a table of what the step consists of, and, with a Python that has PyTorch in
//! `TE_TORCH_PYTHON`, the step of `tests/peers/torch_step.py` beside it. Without a GPU it says so and measures nothing.
//!
//! `cargo bench --bench gpu -- [--batch 32] [--steps 200]`. With `TE_TEST_DEVICE=gpu` a missing GPU is an error; with
//! `TE_TEST_DEVICE=emulator` it runs, slowly, on the emulated device, whose times say nothing.

#[path = "../device/mod.rs"]
mod device;
#[path = "../common/plan.rs"]
mod plan;
#[path = "../common/synthetic.rs"]
mod synthetic;
mod timing;
mod work;

use device::Shared;
use std::{
    collections::VecDeque,
    process::{Command, ExitCode},
};
use timing::{option, scenario, time};
use training_engine::{
    backend::{
        Buffer,
        cuda::{self, Multiply, device::Device},
    },
    config::{Config, ModelConfig, ObjectiveConfig},
    data::{Batch, collate},
    engine::{Engine, Host},
    features::Features,
    graph::{Plan, Scalar, Step},
    trainer::session::{Clip, Rule, Session, Update},
};
use work::Row;

/// How products are computed, its name, and the engine's key.
const PRECISIONS: [(Multiply, &str, &str); 3] =
    [(Multiply::Tf32, "tf32", "high"), (Multiply::Bf16, "bf16", "medium"), (Multiply::Tf32x3, "tf32x3", "highest")];
/// The published network; a reduced one on the emulated device.
fn network(emulated: bool) -> ModelConfig {
    if emulated { ModelConfig { dim: 32, encoder_depth: 1, decoder_depth: 1, ..ModelConfig::default() } } else { ModelConfig::default() }
}

/// Runs of which the table has the medians.
const TIMED: usize = 11;

fn main() -> ExitCode {
    let emulated = std::env::var("TE_TEST_DEVICE").is_ok_and(|device| device == "emulator");
    let opened = if emulated { Ok(Shared::new(device::open())) } else { device::gpu() };
    let device = match opened {
        Ok(device) => device,
        Err(reason) => {
            println!("no GPU, nothing is measured: {reason}");
            return if device::is_gpu() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let model = network(emulated);
    let (size, steps) = (option("--batch", 32), option("--steps", 200));
    println!("{}{}", device.describe(), if emulated { ": times say nothing" } else { "" });
    println!("batch {size}, medians of {steps} steps");
    let scenarios: Vec<Features> = (0..size as u32).map(synthetic::features).collect();
    let mut ours = Vec::new();
    for (multiply, name, key) in PRECISIONS {
        let median = whole_step(&device, &model, multiply, name, &scenarios, steps);
        ours.push((name, median));
        if !emulated {
            predict(name, key, steps);
        }
    }
    for (multiply, name, _) in PRECISIONS {
        table(&device, &model, multiply, name, &scenarios);
    }
    match std::env::var("TE_TORCH_PYTHON") {
        Ok(python) if python != "none" && !emulated => peers(&python, &ours, size, steps),
        _ => println!("\nno step of PyTorch beside it: TE_TORCH_PYTHON names no Python that has it"),
    }
    ExitCode::SUCCESS
}

fn batch(scenarios: &[Features], session: &Session) -> Batch {
    collate(&scenarios.iter().collect::<Vec<_>>(), &[], &session.batch_options(false)).expect("a batch")
}

fn update(step: u64) -> Update {
    let rule = Rule::AdamW { beta: [0.9, 0.999], epsilon: 1e-8 };
    Update { rule, learning_rate: 1e-3, weight_decay: 1e-4, count: step + 1, scale: 1.0, clip: Some(Clip::Norm(5.0)) }
}

/// Milliseconds: median, smallest and largest of sorted seconds.
fn milliseconds(seconds: &[f64]) -> String {
    let [median, least, most] = [seconds[seconds.len() / 2], seconds[0], seconds[seconds.len() - 1]].map(|s| 1e3 * s);
    format!("{median:8.3} ms ({least:.3} to {most:.3})")
}

/// Prints the time of a step with its batch on the device, with the batch from the host, and the memory that it takes; gives the first.
fn whole_step(device: &Shared, model: &ModelConfig, multiply: Multiply, name: &str, scenarios: &[Features], steps: usize) -> f64 {
    let free = |device: &Shared| device.memory().expect("its memory").free;
    let before = free(device);
    let open = |parameters, statistics| cuda::with_device(Box::new(device.clone()), multiply, parameters, statistics);
    let objectives = ObjectiveConfig::default();
    let mut session = Session::with_backend(model, &objectives, 1, open).expect("a session");
    let batch = batch(scenarios, &session);
    let mut step = 0;
    let mut reports = VecDeque::new();
    let from_host = time(steps, || {
        session.begin_training(&batch, step).expect("a step");
        session.begin_update(&update(step)).expect("an update");
        reports.push_back(session.begin_report().expect("a report"));
        step += 1;
        // As a run does it.
        if reports.len() > session.lag() {
            let report = session.training_report(reports.pop_front().expect("a report")).expect("a step");
            assert!(report.losses.loss.is_finite() && report.updated.applied);
        }
    });
    let captured = device.captured().expect("a captured step");
    let resident = time(steps, || {
        device.replay(captured).expect("a step");
        assert!(session.update(&update(step)).expect("an update").applied);
        step += 1;
    });
    let alone = time(steps, || {
        device.replay(captured).expect("a step");
        device.synchronise().expect("a step");
    });
    let memory = before.saturating_sub(free(device)) >> 20;
    println!("\n{name}: step, batch on the device   {}; {memory} MiB of device memory", milliseconds(&resident));
    println!("{name}: the same without its update {}", milliseconds(&alone));
    println!("{name}: step, batch from the host   {}", milliseconds(&from_host));
    resident[resident.len() / 2]
}

/// Prints the time of `te_predict` for one scenario, features included.
fn predict(name: &str, key: &str, steps: usize) {
    let overrides = ["accelerator=gpu", &format!("float32_matmul_precision={key}")];
    let config = Config::from_text("", &overrides).expect("a configuration");
    let mut engine = Engine::build(config, None, Host::default()).expect("an engine");
    let scenario = scenario();
    let seconds = time(steps, || assert!(!engine.predict(&scenario).expect("a prediction").candidates.is_empty()));
    println!("{name}: te_predict, one scenario    {}", milliseconds(&seconds));
}

/// Prints what the step consists of, launched one by one.
fn table(device: &Shared, model: &ModelConfig, multiply: Multiply, name: &str, scenarios: &[Features]) {
    let objectives = ObjectiveConfig::default();
    let session = Session::new(model, &objectives, Scalar::F32, 1, 1).expect("a session");
    let batch = batch(scenarios, &session);
    let parameters = session.parameters();
    let (len, statistics_len) = (parameters.len(), parameters.statistics_len());
    let mut backend = cuda::with_device(Box::new(device.clone()), multiply, len, statistics_len).expect("a backend");
    for buffer in [Buffer::Parameters, Buffer::Statistics] {
        backend.write(buffer, &session.read(buffer).expect("initial values")).expect("initial values");
    }
    let graph = plan::training(model, &objectives, parameters, batch.cost_map_size);
    // As a session plans it.
    let capacity = batch.feed.counts.iter().map(|n| n + n.div_ceil(16)).collect();
    let halves = backend.halves(&graph);
    let plan = Plan::grouped(graph, capacity, |graph, node| backend.runs_in_groups(graph, node), &halves);
    let (ends, launches) = cuda::launches(&plan, multiply).expect("launches");
    let mut timed: Vec<Vec<f64>> = vec![Vec::new(); launches.len()];
    let repeats = if scenarios.len() < 8 { 1 } else { TIMED };
    for step in 0..repeats as u64 {
        // The device is busy until all of the second is launched, so that no kernel waits for the host.
        backend.run(&plan, &batch.feed, &Step { seed: 1, step }).expect("a step");
        backend.run_timed(&plan, &batch.feed, &Step { seed: 1, step }).expect("a step");
        let seconds = device.timed();
        assert_eq!(seconds.len(), timed.len(), "launches of the plan");
        timed.iter_mut().zip(&seconds).for_each(|(all, (_, seconds))| all.push(*seconds));
    }
    let median = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let timed: Vec<_> = launches.into_iter().zip(timed.into_iter().map(median)).collect();
    let rows = work::rows(&plan, &batch.feed, &ends, &timed);
    let total: f64 = rows.values().map(|row| row.seconds).sum();
    let launches: usize = rows.values().map(|row| row.launches).sum();
    let flops: f64 = rows.values().map(|row| row.work.flops).sum();
    println!(
        "\n{name}: forward and backward one by one, {launches} launches, {:.3} ms, {:.1} GFLOP, {:.1} TFLOP/s",
        1e3 * total,
        flops / 1e9,
        flops / total / 1e12
    );
    println!("GFLOP are those of products, MB what must be read or written at least");
    println!("      us share  launches blocks    GFLOP       MB FLOP/byte TFLOP/s    GB/s");
    let mut rows: Vec<(String, Row)> = rows.into_iter().filter(|(_, row)| row.launches > 0).collect();
    rows.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    for (what, row) in rows {
        let (s, work) = (row.seconds.max(1e-12), row.work);
        let kernels = row.kernels.into_iter().collect::<Vec<_>>().join(" ");
        println!(
            "{:8.1} {:4.1}% {:9} {:6} {:8.3} {:8.1} {:9.1} {:7.1} {:7.0}  {what}, {} of these [{kernels}]",
            1e6 * s,
            100.0 * s / total,
            row.launches,
            row.blocks,
            work.flops / 1e9,
            work.bytes / 1e6,
            work.flops / work.bytes.max(1.0),
            work.flops / s / 1e12,
            work.bytes / s / 1e9,
            row.groups
        );
    }
}

/// Prints the step of PyTorch beside ours.
fn peers(python: &str, ours: &[(&str, f64)], size: usize, steps: usize) {
    let program = device::repository().join("tests/peers/torch_step.py");
    println!();
    for precision in ["tf32", "bf16"] {
        for mode in ["eager", "compile", "static"] {
            let sizes = [size, steps].map(|n| n.to_string());
            let arguments = ["--device", "cuda", "--mode", mode, "--precision", precision, "--batch", &sizes[0], "--steps", &sizes[1]];
            let output = Command::new(python).arg(&program).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").output();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let answer = output.map(|output| (text(&output.stdout), text(&output.stderr)));
            let (printed, errors) = answer.unwrap_or_else(|e| (String::new(), e.to_string()));
            let json = printed.lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let Some(median) = json.as_ref().and_then(|json| json["median_s"].as_f64()) else {
                println!("PyTorch, {mode}, {precision}: failed: {}", errors.lines().last().unwrap_or("no word"));
                continue;
            };
            let ratio = ours.iter().find(|(name, _)| *name == precision).map_or(f64::NAN, |(_, ours)| median / ours);
            println!("PyTorch, {mode}, {precision}: {:8.3} ms, {ratio:.2} times ours", 1e3 * median);
        }
    }
}
