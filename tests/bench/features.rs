//! Speed of the feature builder and of the contrastive generator on one core, beside the published ones'.
//!
//! `cargo bench --bench features -- [ROUNDS]` takes the scenarios of `tests/data`, and those of `TE_SHARED` if it is set. Maps
//! are at hand, as they were when the published builder was timed (one core of an AMD EPYC).

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;
use training_engine::augment::{AugmentRandom, Augmentor, ContrastiveGenerator};
use training_engine::features::{FeatureBuilder, Features};
use training_engine::scenario::Scenario;

/// Seconds a scenario of the published builder: mean of all, and of some sources.
const PUBLISHED: f64 = 0.294;
const PUBLISHED_BY_SOURCE: [(&str, f64); 3] = [("argoverse2_sensor", 0.37), ("ngsim_commonroad", 0.22), ("nuscenes_mini", 0.34)];
/// Seconds a scenario of the published contrastive generator.
const PUBLISHED_AUGMENTATION: f64 = 0.011;

fn main() {
    let rounds: u32 = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(3).max(1);
    let mut sources: BTreeMap<String, Vec<Scenario>> = BTreeMap::new();
    let folders = [Some(common::data()), common::shared().map(|folder| folder.join("data"))];
    for file in folders.into_iter().flatten().flat_map(|folder| common::files_below(&folder.join("scenarios"), ".json.gz")) {
        let source = file.parent().and_then(|folder| folder.file_name()).unwrap().to_string_lossy().into_owned();
        if let Ok(scenario) = common::read_scenario(&file) {
            sources.entry(source).or_default().push(scenario);
        }
    }
    println!("{:<30} {:>9} {:>9} {:>9} {:>13}", "", "scenarios", "ms each", "a second", "times as fast");
    let (mut recorded, mut total, mut samples) = (0, Duration::ZERO, Vec::new());
    for (source, scenarios) in &sources {
        let (time, built) = build(scenarios, rounds);
        let published = PUBLISHED_BY_SOURCE.iter().find(|(name, _)| name == source).map(|(_, seconds)| *seconds);
        print(source, scenarios.len(), time, published.unwrap_or(PUBLISHED));
        if published.is_some() {
            recorded += scenarios.len();
            total += time;
        }
        samples.extend(built.into_iter().step_by(4));
    }
    if recorded > 0 {
        print("recorded scenarios", recorded, total, PUBLISHED);
    }
    print("contrastive triplets", samples.len(), augment(&samples, rounds), PUBLISHED_AUGMENTATION);
}

fn print(name: &str, count: usize, time: Duration, published: f64) {
    let seconds = time.as_secs_f64() / count.max(1) as f64;
    println!("{name:<30} {count:>9} {:>9.3} {:>9.0} {:>13.0}", seconds * 1e3, 1.0 / seconds, published / seconds);
}

/// Computing time of one round, and the features of those that can be built.
fn build(scenarios: &[Scenario], rounds: u32) -> (Duration, Vec<Features>) {
    let builder = FeatureBuilder::default();
    // once before the clock starts
    let features = scenarios.iter().filter_map(|scenario| builder.build(scenario).ok()).collect();
    let started = common::thread_time();
    for scenario in (0..rounds).flat_map(|_| scenarios) {
        let _ = black_box(builder.build(scenario));
    }
    ((common::thread_time() - started) / rounds, features)
}

fn augment(anchors: &[Features], rounds: u32) -> Duration {
    let generator = ContrastiveGenerator::default();
    let started = common::thread_time();
    for epoch in 0..rounds {
        for anchor in anchors {
            let mut random = AugmentRandom::new(0, epoch.into(), &anchor.token);
            black_box(generator.augment(anchor, &mut random)).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    (common::thread_time() - started) / rounds
}
