//! The feature cache: opening a large one, reading full-size entries, bytes a scenario.
//!
//! `cargo bench --bench cache -- [ENTRIES] [SECONDS]` takes the scenarios of `tests/data`, and those of `TE_SHARED` if it is set. ENTRIES are
//! opened that are small, those of rejected scenarios, and a 20th as many that are whole.
//!
//! The published cache is a file a scenario: gzip (level 1) of a pickle of all feature arrays. Here these arrays are made of our
//! own features, which are equal to the published ones: every array of the published table in its type (doubles, the cost map
//! of 600 x 600 in half precision), one after the other, through zlib at level 1. The pickle's frame, some 2 KB, is left out.

#[path = "../common/mod.rs"]
mod common;

use half::f16;
use std::{
    hint::black_box,
    io::Write,
    time::{Duration, Instant},
};
use training_engine::{
    data::{
        cache::{FeatureCache, Lookup, Name},
        sampler, splitter,
    },
    error::Rejection,
    features::{Array, FeatureBuilder, Features},
    scenario::{Scenario, Split},
};

fn main() {
    if let Ok(path) = std::env::var(OPEN) {
        return open(&path);
    }
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let (entries, seconds) = (numbers.first().copied().unwrap_or(1_000_000), numbers.get(1).copied().unwrap_or(2));
    real(Duration::from_secs(seconds as u64));
    large(entries, &[]);
    large(entries / 20, &whole());
}

/// Arrays that the published builder does not have.
const OURS: [&str; 1] = ["rear_axle_to_center"];

fn published_bytes(features: &Features) -> usize {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    for (name, _, array) in features.arrays() {
        if OURS.contains(&name) {
            continue;
        }
        let bytes = match (name, array) {
            ("cost_maps", Array::F32(values)) => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            ("static_objects/category", Array::I8(values)) => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
            _ => array.bytes(),
        };
        gzip.write_all(&bytes).unwrap();
    }
    gzip.finish().unwrap().len()
}

/// Recorded scenarios: bytes, and reads from the page cache.
fn real(time: Duration) {
    let folders = [Some(common::data()), common::shared().map(|folder| folder.join("data"))];
    let files: Vec<_> =
        folders.into_iter().flatten().flat_map(|folder| common::files_below(&folder.join("scenarios"), ".json.gz")).collect();
    let builder = FeatureBuilder::default();
    let folder = tempfile::tempdir().unwrap();
    let cache = FeatureCache::open(folder.path().to_str().unwrap(), builder).unwrap();
    let mut names: Vec<[String; 3]> = Vec::new();
    let mut sources: std::collections::BTreeMap<String, [usize; 3]> = Default::default();
    let (mut full, mut written) = (Vec::new(), Duration::ZERO);
    for file in files {
        let source = file.parent().and_then(|folder| folder.file_name()).unwrap().to_string_lossy().into_owned();
        let Ok(scenario) = common::read_scenario(&file) else { continue };
        let Ok(features) = builder.build(&scenario) else { continue };
        let name =
            Name { token: &scenario.token, log_name: &scenario.log_name, scenario_type: &scenario.scenario_type, ..Default::default() };
        let (before, started) = (folder_bytes(folder.path()), common::thread_time());
        cache.put(&name, &scenario, &features).unwrap();
        written += common::thread_time() - started;
        let counts = sources.entry(source).or_default();
        counts[0] += 1;
        counts[1] += folder_bytes(folder.path()) - before;
        counts[2] += published_bytes(&features);
        if features.agents.count > 40 && features.map.count > 90 {
            full.push(names.len());
        }
        names.push([scenario.token.clone(), scenario.log_name.clone(), scenario.scenario_type.clone()]);
    }
    cache.finish().unwrap();
    println!("{:<30} {:>9} {:>13} {:>13} {:>7}", "", "scenarios", "bytes each", "published", "ratio");
    let recorded = |name: &&String| !name.starts_with("synthetic");
    let sum = sources.iter().filter(|(name, _)| recorded(name)).fold([0; 3], |sum, (_, c)| [sum[0] + c[0], sum[1] + c[1], sum[2] + c[2]]);
    for (source, [count, ours, published]) in sources.iter().map(|(s, c)| (s.as_str(), *c)).chain([("all recorded", sum)]) {
        let each = |bytes: usize| bytes.checked_div(count).unwrap_or(0);
        println!("{source:<30} {count:>9} {:>13} {:>13} {:>7.1}", each(ours), each(published), published as f64 / ours as f64);
    }
    println!("writing: {:.2} ms an entry", written.as_secs_f64() * 1e3 / names.len().max(1) as f64);
    drop(cache);

    for (what, cost_map) in [("without the distance transform", false), ("with it", true)] {
        let builder = FeatureBuilder { cost_map, ..builder };
        let cache = FeatureCache::open(folder.path().to_str().unwrap(), builder).unwrap();
        let read = |i: usize| {
            let [token, log_name, scenario_type] = &names[i];
            let Lookup::Features(features) = cache.get(&Name { token, log_name, scenario_type, ..Default::default() }) else {
                panic!("{token} is lost")
            };
            features
        };
        let mut random = 1_usize;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            full[(random >> 33) % full.len()]
        };
        (0..names.len()).for_each(|i| drop(black_box(read(i))));
        // The best of short stretches, so that what else runs on the machine hardly counts.
        let (mut best, ends) = (0.0_f64, Instant::now() + time);
        while Instant::now() < ends {
            let (started, mut count) = (common::thread_time(), 0);
            while count < 100 {
                black_box(read(next()));
                count += 1;
            }
            best = best.max(f64::from(count) / (common::thread_time() - started).as_secs_f64());
        }
        println!("random reads of {} full-size entries, {what}: {best:.0} a second and core", full.len());
    }
}

/// Scenarios of the repository with their features.
fn whole() -> Vec<(Scenario, Features)> {
    let files = common::files_below(&common::data().join("scenarios/synthetic"), ".json.gz");
    let scenarios = files.iter().filter_map(|file| common::read_scenario(file).ok());
    scenarios.filter_map(|scenario| FeatureBuilder::default().build(&scenario).ok().map(|features| (scenario, features))).collect()
}

/// A cache of many entries, whole ones of these scenarios by turns or, without any, small ones: opening it, and an order of an epoch.
fn large(entries: usize, scenarios: &[(Scenario, Features)]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let cache = FeatureCache::open(path, FeatureBuilder::default()).unwrap();
    for i in 0..entries {
        let (token, log_name, scenario_type) =
            (format!("{:016x}", (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)), format!("log {}", i / 600), format!("type {}", i % 70));
        let name =
            Name { token: &token, log_name: &log_name, scenario_type: &scenario_type, split: Some(Split::Train), ..Default::default() };
        match scenarios.get(i % scenarios.len().max(1)) {
            Some((scenario, features)) => cache.put(&name, scenario, features),
            None => cache.put_rejected(&name, Rejection::NoReferenceLine, ""),
        }
        .unwrap();
    }
    drop(cache);
    println!("{} entries, {} MB on disk", if scenarios.is_empty() { "small" } else { "whole" }, folder_bytes(folder.path()) >> 20);
    // In a process of its own, so that its peak is its own.
    for _ in 0..3 {
        let status = std::process::Command::new(std::env::current_exe().unwrap()).env(OPEN, path).status().unwrap();
        assert!(status.success());
    }
}

/// Names a cache that this program, started again by itself, opens.
const OPEN: &str = "TE_BENCH_OPEN";

fn open(path: &str) {
    let started = Instant::now();
    let (cache, catalogue) = FeatureCache::open_with_catalogue(path, FeatureBuilder::default()).unwrap();
    let opened = started.elapsed();
    let splits = splitter::split(&catalogue, &catalogue.sorted(), &Default::default(), 0);
    let order = sampler::shuffled(&splits.train, 0, 0);
    let (entries, opened, elapsed) = (cache.contents().entries, opened.as_secs_f64(), started.elapsed().as_secs_f64());
    let (count, peak) = (order.len(), peak_memory() >> 20);
    println!("opening {entries} entries: {opened:.3} s; with a shuffled order of {count}: {elapsed:.3} s; peak memory {peak} MB");
}

fn folder_bytes(folder: &std::path::Path) -> usize {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len() as usize).sum()
}

/// Most memory that this process has had, bytes; 0 where the system does not tell.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<usize>().ok()).unwrap_or(0) << 10
}
