//! Speed of the feature builder and of the contrastive generator on one core, beside the published ones'.
//!
//! `cargo bench --bench features -- [ROUNDS]` takes the scenarios of `tests/data`, and those of `TE_SHARED` if it is set; of
//! every scenario the best time counts. Maps are at hand, as they were when the published builder was timed (one core of an AMD
//! EPYC); what it takes to make them, once for all scenarios on a map, stands in a line of its own.

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};
use training_engine::augment::{AugmentRandom, Augmentor, ContrastiveGenerator};
use training_engine::features::{FeatureBuilder, Features};
use training_engine::scenario::{Crosswalk, Lane, Map, Scenario};

/// Seconds a scenario of the published builder: mean of all, and of some sources.
const PUBLISHED: f64 = 0.294;
const PUBLISHED_BY_SOURCE: [(&str, f64); 3] = [("argoverse2_sensor", 0.37), ("ngsim_commonroad", 0.22), ("nuscenes_mini", 0.34)];
/// Seconds a scenario of the published contrastive generator.
const PUBLISHED_AUGMENTATION: f64 = 0.011;

fn main() {
    let rounds = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(5);
    let mut sources: BTreeMap<String, Vec<Scenario>> = BTreeMap::new();
    let mut maps = Vec::new();
    let folders = [Some(common::data()), common::shared().map(|folder| folder.join("data"))];
    for file in folders.into_iter().flatten().flat_map(|folder| common::files_below(&folder.join("scenarios"), ".json.gz")) {
        let source = file.parent().and_then(|folder| folder.file_name()).unwrap().to_string_lossy().into_owned();
        let json = common::read_json(&file);
        if json["source"].as_str().is_some_and(|name| PUBLISHED_BY_SOURCE.iter().any(|(source, _)| *source == name)) {
            maps.push(common::map_description(&json));
        }
        if let Ok(scenario) = common::scenario(&json) {
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
        let time = map_time(&maps, rounds);
        println!("{:<30} {:>9} {:>9.3}", "map handles, once a map", maps.len(), time.as_secs_f64() * 1e3 / maps.len() as f64);
    }
    print("contrastive triplets", samples.len(), augment(&samples, rounds), PUBLISHED_AUGMENTATION);
}

fn print(name: &str, count: usize, time: Duration, published: f64) {
    let seconds = time.as_secs_f64() / count.max(1) as f64;
    println!("{name:<30} {count:>9} {:>9.3} {:>9.0} {:>13.0}", seconds * 1e3, 1.0 / seconds, published / seconds);
}

/// Sum of the scenarios' best times, and the features of those that can be built.
fn build(scenarios: &[Scenario], rounds: usize) -> (Duration, Vec<Features>) {
    let builder = FeatureBuilder::default();
    let time = best(scenarios, rounds, |scenario| builder.build(scenario));
    (time, scenarios.iter().filter_map(|scenario| builder.build(scenario).ok()).collect())
}

/// Sum of the maps' best times; their descriptions are copied outside of it.
fn map_time(maps: &[(Vec<Lane>, Vec<Crosswalk>)], rounds: usize) -> Duration {
    let best = maps.iter().map(|(lanes, crosswalks)| {
        let once = |_| {
            let (lanes, crosswalks) = (lanes.clone(), crosswalks.clone());
            let started = Instant::now();
            black_box(Map::new("map", lanes, crosswalks).is_ok());
            started.elapsed()
        };
        (0..rounds.max(1)).map(once).min().unwrap_or_default()
    });
    best.sum()
}

fn augment(anchors: &[Features], rounds: usize) -> Duration {
    let generator = ContrastiveGenerator::default();
    best(anchors, rounds, |anchor| generator.augment(anchor, &mut AugmentRandom::new(0, 0, &anchor.token, 0)).unwrap())
}

/// Sum over the items of the shortest time in several rounds, so that what else runs on the machine hardly counts.
fn best<T, U>(items: &[T], rounds: usize, work: impl Fn(&T) -> U) -> Duration {
    let mut times = vec![Duration::MAX; items.len()];
    for _ in 0..rounds.max(1) {
        for (item, time) in items.iter().zip(&mut times) {
            let started = Instant::now();
            black_box(work(item));
            *time = started.elapsed().min(*time);
        }
    }
    times.into_iter().sum()
}
