//! Training from end to end on a synthetic source: loops, checkpoints, resuming, faults.

mod cached;
mod contrastive;
mod data;
#[path = "../device/mod.rs"]
mod device;
mod faults;
mod hooks;
mod killed;
mod logged;
mod loggers;
mod logs;
mod reports;
mod runs;
mod scaled;
mod schedules;
mod source;
mod standard;
#[path = "../torch_python/mod.rs"]
mod torch_python;
mod under_way;
mod wandb;

use source::Roads;
use std::{
    path::Path,
    sync::{Arc, Mutex},
};
use training_engine::{
    backend::cuda::{self, Multiply, device::Device},
    config::Config,
    data::DataModule,
    engine::{Engine, Event, Flow, Host},
    scenario::ScenarioSource,
    trainer::{Session, TrainingModule, session::Buffer},
};

/// A small network on few scenarios.
const SMALL: &str = "
lr: 2e-3
epochs: 4
warmup_epochs: 1
threads: 1
model: {dim: 16, encoder_depth: 1, decoder_depth: 1, num_modes: 3}
data_loader: {params: {batch_size: 4, num_workers: 0}}
";

/// The small configuration, writing to `folder`, with overrides.
fn config(folder: &Path, overrides: &[&str]) -> Config {
    let folder = format!("output_dir={}", folder.display());
    let mut all = vec![folder.as_str()];
    all.extend(overrides);
    Config::from_text(SMALL, &all).unwrap()
}

/// A module of a configuration on a device, with the data of its run.
fn module_on(device: Box<dyn Device>, multiply: Multiply, config: &Config) -> (TrainingModule, DataModule) {
    let open = |parameters, statistics| cuda::with_device(device, multiply, parameters, statistics);
    let session = Session::with_backend(&config.model, &config.objectives, config.run.seed, open).unwrap();
    let data = DataModule::new(config, Some(Arc::new(Roads::new(30))), session.batch_options(false)).unwrap();
    (TrainingModule::new(session, config), data)
}

/// Events as they came.
#[derive(Default, Clone)]
struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    /// A host that keeps events and log records, and ends the run where `stop` says so.
    fn host(&self, stop: impl Fn(&Event) -> bool + Send + Sync + 'static) -> Host {
        let events = Arc::clone(&self.0);
        let event = move |event: &Event| {
            events.lock().unwrap().push(event.clone());
            if stop(event) { Flow::Stop } else { Flow::Continue }
        };
        Host { log: None, event: Some(Arc::new(event)) }
    }
    fn count(&self, kind: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| kind(event)).count()
    }
    /// A logged value of every epoch.
    fn epochs(&self, name: &str) -> Vec<f64> {
        let events = self.0.lock().unwrap();
        let of = |event: &Event| if let Event::Epoch { metrics, .. } = event { metrics.get(name) } else { None };
        events.iter().filter_map(of).collect()
    }
    fn losses(&self) -> Vec<f64> {
        self.0.lock().unwrap().iter().filter_map(|event| if let Event::Step { loss, .. } = event { Some(*loss) } else { None }).collect()
    }
}

fn engine(config: Config, source: Roads, host: Host) -> Engine {
    Engine::build(config, Some(Arc::new(source) as Arc<dyn ScenarioSource>), host).unwrap()
}

/// Everything that a run has learnt.
fn buffers(engine: &Engine) -> [Vec<f64>; 4] {
    [Buffer::Parameters, Buffer::FirstMoments, Buffer::SecondMoments, Buffer::Statistics].map(|b| engine.model().session().read(b).unwrap())
}

/// Names of the files in the checkpoint folder, sorted.
fn checkpoints(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("checkpoints")).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    // What a killed process was writing.
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}
