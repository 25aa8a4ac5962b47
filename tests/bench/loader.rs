//! Speed of the loader alone: batches of 32 from features that are in memory or in a cache on disk, beside the training steps of the
//! default network on the same batches.
//!
//! `cargo bench --bench loader -- [ROUNDS]` takes the scenarios of `tests/data`, and those of `TE_SHARED` if it is set. The loader has
//! as many workers as the step has threads; epochs and steps take turns, and of each the best elapsed time counts. A triplet is one
//! scenario for both.

#[path = "../common/mod.rs"]
mod common;

use std::{sync::Arc, time::Instant};
use training_engine::{
    config::Config,
    data::{DataModule, StopHandle},
    engine::{Host, build_datamodule, build_model},
    error::Result,
    scenario::{Scenario, ScenarioInfo, ScenarioSource, Split},
    trainer::session::{Clip, Rule, Session, Update},
};

const BATCH: usize = 32;

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
    println!("{:<42} {:>9} {:>12} {:>12} {:>8}", "scenarios a second", "scenarios", "the loader", "the step", "times");
    let folder = tempfile::tempdir().unwrap();
    let disk = format!("memory_mb: 0, cache_path: {:?}", folder.path().join("cache"));
    for cores in [1, 2] {
        for (name, contrastive, from, cache) in [
            ("as they are", false, "memory", ""),
            ("as they are", false, "disk", &disk),
            ("contrastive triplets", true, "memory", ""),
            ("contrastive triplets", true, "disk", &disk),
        ] {
            // Without workers the calling thread makes the batches, which is one core just as well.
            let workers = if cores == 1 { 0 } else { cores };
            let text = format!(
                "{{custom_trainer: {{use_contrast_loss: {contrastive}}}, model: {{use_hidden_proj: true}}, cache: {{{cache}}}, threads: {cores}, \
                 data_loader: {{params: {{batch_size: {BATCH}, num_workers: {workers}, drop_last: false}}}}, output_dir: {:?}}}",
                folder.path()
            );
            let config = Config::from_text(&text, &[]).unwrap();
            let mut model = build_model(&config).unwrap();
            let data = build_datamodule(&config, Some(source.clone()), &model, &Host::default()).unwrap();
            let (samples, _) = pass(&data, 0);
            let [mut loading, mut stepping] = [f64::INFINITY; 2];
            for epoch in 1..=rounds {
                loading = loading.min(pass(&data, epoch).1 / samples as f64);
                stepping = stepping.min(step(&data, &mut model, epoch));
            }
            let name = format!("{name}, from {from}, cores: {cores}");
            println!("{name:<42} {samples:>9} {:>12.0} {:>12.1} {:>8.0}", 1.0 / loading, 1.0 / stepping, stepping / loading);
        }
    }
}

/// Loads an epoch; gives the number of scenarios and the seconds.
fn pass(data: &DataModule, epoch: usize) -> (usize, f64) {
    let start = Instant::now();
    let mut loader = data.training_pass(epoch, 0, &StopHandle::default()).unwrap();
    let mut samples = 0;
    while let Some(loaded) = loader.next() {
        if let Some(batch) = loaded.unwrap().batch {
            samples += batch.len();
            loader.recycle(batch);
        }
    }
    (samples, start.elapsed().as_secs_f64())
}

/// Seconds that a training step on an epoch's first batch takes for each of its scenarios.
fn step(data: &DataModule, model: &mut Session, epoch: usize) -> f64 {
    let batch = data.training_pass(epoch, 0, &StopHandle::default()).unwrap().next().unwrap().unwrap().batch.unwrap();
    let start = Instant::now();
    assert!(model.train(&batch, epoch as u64).unwrap().loss.is_finite());
    let rule = Rule::AdamW { beta: [0.9, 0.999], epsilon: 1e-8 };
    let clip = Some(Clip::Norm(5.0));
    let update = Update { rule, learning_rate: 1e-3, weight_decay: 1e-4, count: epoch as u64, scale: 1.0, clip };
    assert!(model.update(&update).unwrap().applied);
    start.elapsed().as_secs_f64() / batch.len() as f64
}
