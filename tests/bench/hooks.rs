//! What everything beside the loops costs: a run with every hook and logger on, without and with files of checkpoints, beside one with
//! none, as processor time of a step; and that of one file. The three take turns of a second; each turn gives a ratio, and of all
//! turns the median counts, with the ranks that hold the true median in 95 of 100 cases (a machine is noisier than the bar is high).
//! And what a row of ten values costs in all loggers. Prints one line of JSON.
//!
//! `cargo bench --bench hooks -- [--turns 60] [--seconds 1] [--dim 64]`

#[path = "../training/source.rs"]
mod source;

use source::Roads;
use std::{path::Path, sync::Arc, time::Duration};
use training_engine::{
    config::{Config, tree::Value},
    engine::{Engine, Flow, Host},
    logger::{Logger, Opening, Position, csv::Csv, tensorboard::TensorBoard, wandb::Wandb},
    scenario::Split,
};

const SCENARIOS: usize = 320;
const BATCH: usize = 4;

const OFF: [&str; 4] = [
    "logger.tensorboard=false",
    "lightning.trainer.params.enable_checkpointing=false",
    "lightning.trainer.params.enable_model_summary=false",
    "lightning.trainer.params.num_sanity_val_steps=0",
];

const ON: [&str; 9] = [
    "logger.tensorboard=true",
    "logger.csv=true",
    "wandb.mode=offline",
    "progress_bar=true",
    "callbacks.time_logging=true",
    "callbacks.learning_rate_monitor.logging_interval=step",
    "callbacks.model_summary.max_depth=-1",
    "callbacks.early_stopping.monitor=loss/train_loss",
    "callbacks.early_stopping.patience=1000",
];

const NO_FILES: [&str; 2] = ["lightning.trainer.checkpoint.save_top_k=0", "lightning.trainer.checkpoint.save_last=false"];
/// Files of an epoch: among the best, and the last.
const FILES: usize = 2;

/// Processor time of this thread, seconds: the network runs in it.
fn thread_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

/// A run without an end.
fn build(folder: &Path, dim: usize, mode: usize) -> Engine {
    let text = format!(
        "{{output_dir: '{}', epochs: 1000000, warmup_epochs: 0, threads: 1, model: {{dim: {dim}, encoder_depth: 2, decoder_depth: 2}}, \
         data_loader: {{params: {{batch_size: {BATCH}, num_workers: 0}}}}, \
         lightning: {{trainer: {{params: {{limit_val_batches: 0}}, checkpoint: {{monitor: loss/train_loss}}}}}}}}",
        folder.display()
    );
    let overrides = [OFF.to_vec(), [&ON[..], &NO_FILES].concat(), ON.to_vec()];
    let mut source = Roads::new(SCENARIOS);
    source.split = Some(Split::Train);
    let heard = Host { log: Some(Arc::new(|_, _| {})), event: Some(Arc::new(|_| Flow::Continue)) };
    let host = if mode == 0 { Host::default() } else { heard };
    Engine::build(Config::from_text(&text, &overrides[mode]).unwrap(), Some(Arc::new(source)), host).unwrap()
}

/// Milliseconds of a step, of a run that goes on for a while.
fn turn(engine: &mut Engine, time: Duration) -> f64 {
    let stop = engine.stop_handle();
    let (before, start) = (engine.trainer().state().step, thread_time());
    let timer = std::thread::spawn(move || {
        std::thread::sleep(time);
        stop.stop();
    });
    assert!(engine.fit().unwrap().stopped);
    let spent = thread_time() - start;
    timer.join().unwrap();
    1e3 * spent / (engine.trainer().state().step - before) as f64
}

/// Microseconds of a row of ten values in all loggers, the least of several turns.
fn row() -> f64 {
    const ROWS: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let config = Config::from_text("{wandb: {mode: offline}}", &[]).unwrap();
    let opening = Opening { config: &Value::Null, position: &Position::default(), fitting: true };
    let mut loggers: [Box<dyn Logger>; 3] = [
        Box::new(TensorBoard::open(folder.path(), &opening).unwrap()),
        Box::new(Csv::open(folder.path(), &opening).unwrap()),
        Box::new(Wandb::open(folder.path(), &config.logger.wandb, &opening).unwrap()),
    ];
    let values: Vec<(String, f64)> = (0..10).map(|i| (format!("metrics/value_{i}"), 1.0 / f64::from(i + 3))).collect();
    let mut turn = |turn: u64| {
        let start = thread_time();
        for step in 0..ROWS {
            loggers.iter_mut().for_each(|logger| logger.scalars(turn * ROWS + step, &values).unwrap());
        }
        1e6 * (thread_time() - start) / ROWS as f64
    };
    (0..5).map(&mut turn).fold(f64::INFINITY, f64::min)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: usize| {
        arguments.iter().position(|a| a == name).map_or(default, |i| arguments[i + 1].parse().expect("a number"))
    };
    let (turns, time, dim) = (number("--turns", 60), Duration::from_secs(number("--seconds", 1) as u64), number("--dim", 64));
    let folders = [0; 3].map(|_| tempfile::tempdir().unwrap());
    let mut engines: Vec<Engine> = folders.iter().enumerate().map(|(mode, folder)| build(folder.path(), dim, mode)).collect();
    let steps = SCENARIOS / BATCH;
    for engine in &mut engines {
        // The first epoch builds the features.
        while engine.trainer().state().step <= steps as u64 {
            turn(engine, time);
        }
    }
    let times: Vec<[f64; 3]> = (0..turns).map(|_| std::array::from_fn(|mode| turn(&mut engines[mode], time))).collect();
    let of = |f: &dyn Fn(&[f64; 3]) -> f64| median(times.iter().map(f).collect());
    let ([off, ..], more) = (of(&|t| t[0]), of(&|t| 100.0 * (t[1] / t[0] - 1.0)));
    let [file, ..] = of(&|t| (t[2] - t[1]) * (steps / FILES) as f64);
    println!(
        "{{\"off_ms\": {off:.3}, \"more_percent\": {:.2}, \"from_percent\": {:.2}, \"to_percent\": {:.2}, \"checkpoint_ms\": {file:.1}, \"row_us\": {:.1}}}",
        more[0],
        more[1],
        more[2],
        row()
    );
}

/// The median, and the values that have the true one between them in 95 of 100 cases (from the binomial distribution of ranks).
fn median(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let (middle, most) = (values.len() as f64 / 2.0, values.len() - 1);
    let reach = 0.98 * (values.len() as f64).sqrt();
    [middle, middle - reach, middle + reach].map(|rank| values[(rank.max(0.0) as usize).min(most)])
}
