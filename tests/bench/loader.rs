//! Speed of the loader alone: batches of 32 from features that are in memory or in a cache on disk, without a network.
//!
//! `cargo bench --bench loader -- [ROUNDS]` takes the scenarios of `tests/data`, and those of `TE_SHARED` if it is set. One core:
//! time that the calling thread computes, batches made in it; of every epoch the best time counts. Two workers: elapsed time.

#[path = "../common/mod.rs"]
mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use training_engine::{
    config::Config,
    data::DataModule,
    engine::{Host, build_datamodule, build_model},
    error::Result,
    scenario::{Scenario, ScenarioInfo, ScenarioSource, Split},
};

/// Samples a second of a training step of the default network with two threads (`cargo bench --bench step`).
const STEP: f64 = 16.0;

/// Scenario files, all in memory.
struct Files(Vec<Scenario>);

impl ScenarioSource for Files {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn info(&self, index: usize) -> Result<ScenarioInfo> {
        let Scenario { token, log_name, scenario_type, .. } = self.0[index].clone();
        Ok(ScenarioInfo { token, log_name, scenario_type, split: Some(Split::Train), ..Default::default() })
    }
    fn load(&self, index: usize) -> Result<Scenario> {
        Ok(self.0[index].clone())
    }
    fn is_thread_safe(&self) -> bool {
        true
    }
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(5);
    let folders = [Some(common::data()), common::shared().map(|folder| folder.join("data"))];
    let files = folders.into_iter().flatten().flat_map(|folder| common::files_below(&folder.join("scenarios"), ".json.gz"));
    let source = Arc::new(Files(files.filter_map(|file| common::read_scenario(&file).ok()).collect()));
    println!("{:<44} {:>9} {:>9} {:>14}", "", "scenarios", "a second", "times the step");
    let folder = tempfile::tempdir().unwrap();
    let disk = format!("memory_mb: 0, cache_path: {:?}", folder.path().join("cache"));
    for (name, contrastive, from, cache) in [
        ("as they are", false, "memory", ""),
        ("as they are", false, "disk", &disk),
        ("contrastive triplets", true, "memory", ""),
        ("contrastive triplets", true, "disk", &disk),
    ] {
        for workers in [0, 2] {
            let text = format!(
                "{{custom_trainer: {{use_contrast_loss: {contrastive}}}, model: {{use_hidden_proj: true}}, cache: {{{cache}}}, \
                 data_loader: {{params: {{batch_size: 32, num_workers: {workers}, drop_last: false}}}}, output_dir: {:?}}}",
                folder.path()
            );
            let config = Config::from_text(&text, &[]).unwrap();
            let data = build_datamodule(&config, Some(source.clone()), &build_model(&config).unwrap(), &Host::default()).unwrap();
            let (samples, _) = pass(&data, 0, workers);
            let best = (1..=rounds).map(|epoch| pass(&data, epoch, workers).1).min().unwrap_or_default();
            let speed = samples as f64 / best.as_secs_f64();
            let cores = if workers == 0 { "one core".to_owned() } else { format!("{workers} workers, elapsed") };
            println!("{:<44} {samples:>9} {speed:>9.0} {:>14.0}", format!("{name}, from {from}, {cores}"), speed / STEP);
        }
    }
}

/// Loads an epoch; gives the number of scenarios and the time.
fn pass(data: &DataModule, epoch: usize, workers: usize) -> (usize, Duration) {
    let start = Instant::now();
    let time = || if workers == 0 { common::thread_time() } else { start.elapsed() };
    let started = time();
    let mut loader = data.training_pass(epoch, 0).unwrap();
    let mut samples = 0;
    while let Some(loaded) = loader.next() {
        if let Some(batch) = loaded.unwrap().batch {
            samples += batch.len();
            loader.recycle(batch);
        }
    }
    (samples, time() - started)
}
