//! Training from the cache on disk.

use super::*;
use std::sync::atomic::Ordering;
use training_engine::{
    engine::CacheReport,
    scenario::{ScenarioSource, Split},
};

type Learnt = ([Vec<f64>; 4], Vec<f64>, training_engine::metrics::MetricTable, usize);

fn roads(thread_safe: bool) -> Roads {
    let mut source = Roads::new(30);
    source.thread_safe = thread_safe;
    source.invalid.extend([4, 17]);
    source
}

fn fit(source: Option<Roads>, overrides: &[&str]) -> (Learnt, usize) {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let mut all = vec!["epochs=2"];
    all.extend(overrides);
    let source = source.map(Arc::new);
    let dynamic = source.clone().map(|source| source as Arc<dyn ScenarioSource>);
    let mut engine = Engine::build(config(folder.path(), &all), dynamic, events.host(|_| false)).unwrap();
    let report = engine.fit().unwrap();
    let loads = source.map_or(0, |source| source.loads.load(Ordering::Relaxed));
    ((buffers(&engine), events.losses(), report.metrics, report.skipped_scenarios), loads)
}

#[test]
fn the_cache_alone_gives_the_same_bits_as_the_source() {
    let (expected, loads) = fit(Some(roads(true)), &[]);
    assert!(loads >= 27 && expected.3 == 2, "{loads} loads, {} skipped", expected.3);
    for (thread_safe, workers) in [(true, "num_workers=0"), (false, "num_workers=3")] {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("cache.cache_path={}", folder.path().join("features").display());
        for memory in ["cache.memory_mb=1024", "cache.memory_mb=0"] {
            let keys = [path.as_str(), workers, memory];
            let (filling, first) = fit(Some(roads(thread_safe)), &keys);
            assert!(filling == expected, "while the cache is filled, or from it: {keys:?}");
            assert_eq!(first > 0, memory == "cache.memory_mb=1024", "the second run finds everything: {first} loads");
            // Fitting reads no test scenario; without its log the others would be divided in another way.
            cache(folder.path(), roads(thread_safe), &[], Host::default()).0.unwrap();
            let (alone, _) = fit(None, &[&path, workers, memory, "cache.use_cache_without_dataset=true"]);
            assert!(alone == expected, "from the cache alone: {keys:?}");
        }
        let (forced, loads) = fit(Some(roads(thread_safe)), &[&path, workers, "cache.memory_mb=0", "cache.force_feature_computation=true"]);
        assert!(forced == expected && (27..=40).contains(&loads), "computed anew, but once: {loads} loads");
        let other = fit(Some(roads(thread_safe)), &[&path, workers, "model.feature_builder.max_agents=1"]);
        assert!(other.1 > 0, "features of another configuration are not used");
    }
}

#[test]
fn the_cache_alone_knows_maps_and_starts() {
    let placed = || {
        let mut source = roads(true);
        source.placed = true;
        source
    };
    let filters = ["scenario_filter.map_names=[north]", "scenario_filter.timestamp_threshold_s=13", "num_workers=0"];
    let (expected, loads) = fit(Some(placed()), &filters);
    assert!((3..=6).contains(&loads), "{loads} loads: of fifteen that take 4 s each every fourth, but for a few of the test split");
    let folder = tempfile::tempdir().unwrap();
    cache(folder.path(), placed(), &[], Host::default()).0.unwrap();
    let path = format!("cache.cache_path={}", folder.path().join("features").display());
    let alone = [&filters[..], &[&path, "cache.use_cache_without_dataset=true"]].concat();
    assert!(fit(None, &alone).0 == expected);
}

fn cache(folder: &Path, source: Roads, overrides: &[&str], host: Host) -> (training_engine::error::Result<CacheReport>, usize) {
    let path = format!("cache.cache_path={}", folder.join("features").display());
    let mut all = vec![path.as_str()];
    all.extend(overrides);
    let source = Arc::new(source);
    let dynamic = source.clone() as Arc<dyn ScenarioSource>;
    let caller = std::thread::current().id();
    let report = Engine::build(config(folder, &all), Some(dynamic), host).and_then(|mut engine| engine.cache());
    assert!(source.thread_safe || source.threads.lock().unwrap().iter().all(|thread| *thread == caller));
    let loads = source.loads.load(Ordering::Relaxed);
    (report, loads)
}

#[test]
fn features_are_cached_ahead_of_training() {
    for thread_safe in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut source = roads(thread_safe);
        source.failing.insert(9);
        let threads = ["threads=3"];
        let (report, loads) = cache(folder.path(), source, &threads, Host::default());
        let report = report.unwrap();
        let counts = |report: &CacheReport| (report.scenarios, report.computed, report.present, report.failed, report.damaged);
        assert_eq!((counts(&report), loads, report.stopped), ((30, 27, 0, 3, 0), 30, false));
        assert_eq!(report.failures, [("bad_route".into(), 2), ("left_out_by_host".into(), 1)].into());
        let (report, loads) = cache(folder.path(), roads(thread_safe), &threads, Host::default());
        assert_eq!((counts(&report.unwrap()), loads), ((30, 1, 27, 2, 0), 1), "only what the source left out is asked for again");
        let (report, loads) = cache(folder.path(), roads(thread_safe), &["cache.cleanup_cache=true"], Host::default());
        assert_eq!((counts(&report.unwrap()), loads), ((30, 28, 0, 2, 0), 30));
    }
}

/// Folder of the node that this process is.
const NODE: &str = "TE_TEST_NODE_FOLDER";

#[test]
fn nodes_share_the_work_and_none_removes_what_others_wrote() {
    if let Ok(folder) = std::env::var(NODE) {
        let report = cache(Path::new(&folder), roads(true), &[], Host::default()).0.unwrap();
        assert_eq!((report.scenarios, report.computed, report.failed), (15, 14, 1));
        let (refused, _) = cache(Path::new(&folder), roads(true), &["cache.cleanup_cache=true"], Host::default());
        assert!(refused.unwrap_err().to_string().contains("NUM_NODES"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for rank in ["0", "1"] {
        let mut node = std::process::Command::new(std::env::current_exe().unwrap());
        node.args(["--exact", "cached::nodes_share_the_work_and_none_removes_what_others_wrote"]).env(NODE, folder.path());
        let output = node.env("NUM_NODES", "2").env("NODE_RANK", rank).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let report = cache(folder.path(), roads(true), &[], Host::default()).0.unwrap();
    assert_eq!((report.scenarios, report.present, report.failed), (30, 28, 2));
}

#[test]
fn a_scenario_that_no_entry_can_hold_is_counted_and_the_others_are_cached() {
    let folder = tempfile::tempdir().unwrap();
    let crowded = || {
        let mut source = roads(true);
        source.crowded.insert(11);
        source
    };
    let (report, _) = cache(folder.path(), crowded(), &[], Host::default());
    let report = report.unwrap();
    assert_eq!((report.computed, report.failed), (27, 3));
    assert_eq!(report.failures, [("bad_route".into(), 2), ("not_cacheable".into(), 1)].into());
    let listed = std::fs::read_to_string(folder.path().join("rejected_scenarios.csv")).unwrap();
    assert!(listed.contains("scenario 'scenario 11' is not cached: its size would be lost"), "{listed}");
    // A later call does not tell of it once more.
    let logged = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&logged);
    let host = Host { log: Some(Arc::new(move |_, text| *log.lock().unwrap() += text)), event: None };
    let path = format!("cache.cache_path={}", folder.path().join("other").display());
    let mut source = crowded();
    source.split = Some(Split::Train);
    let mut engine = engine(config(folder.path(), &[&path]), source, host);
    assert_eq!(engine.cache().unwrap().failures["not_cacheable"], 1);
    assert!(engine.validate().unwrap_err().to_string().contains("validation split is empty"));
    assert!(!logged.lock().unwrap().contains("could not be written"));
    // Training uses it nevertheless.
    let path = format!("cache.cache_path={}", folder.path().join("features").display());
    let config = config(folder.path(), &[&path]);
    let model = training_engine::engine::build_model(&config).unwrap();
    let data = training_engine::engine::build_datamodule(&config, Some(Arc::new(crowded())), &model, &Host::default()).unwrap();
    assert_eq!(data.features(11).unwrap().map(|features| features.static_objects.count), Some(40_000));
    assert!(data.features(11).is_ok());
    let unwritten = data.supply().take_unwritten();
    assert!(unwritten.cache.is_none() && unwritten.scenarios == [11].into() && unwritten.reason.contains("size"), "{unwritten:?}");
    assert!(data.supply().take_unwritten().scenarios.is_empty());
}

#[test]
fn caching_stops_when_asked_and_fails_with_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Roads::new(200);
    source.invalid.insert(0);
    let events = Events::default();
    let (report, loads) = cache(folder.path(), source, &["threads=1"], events.host(|event| matches!(event, Event::ScenarioSkipped { .. })));
    let report = report.unwrap();
    assert!(report.stopped && report.failed == 1 && report.computed < 199 && loads < 200, "{report:?}");
    let mut source = Roads::new(30);
    source.broken.insert(20);
    let (report, _) = cache(folder.path(), source, &["threads=2"], Host::default());
    assert!(report.unwrap_err().to_string().contains("disk on fire"));
    let mut source = Roads::new(30);
    source.panicking.insert(25);
    let (report, _) = cache(folder.path(), source, &["threads=2", "cache.force_feature_computation=true"], Host::default());
    assert!(report.unwrap_err().to_string().contains("scenario 25 panics"));
    // A folder of somebody else is neither used nor emptied.
    std::fs::create_dir_all(folder.path().join("other/features")).unwrap();
    std::fs::write(folder.path().join("other/features/thesis.txt"), "x").unwrap();
    for key in ["seed=0", "cache.cleanup_cache=true"] {
        let (report, _) = cache(&folder.path().join("other"), Roads::new(30), &[key], Host::default());
        assert!(report.unwrap_err().to_string().contains("no cache of this library"));
    }
    assert!(folder.path().join("other/features/thesis.txt").exists());
}
