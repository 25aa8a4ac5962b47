//! What a run gives, and that it repeats.

use super::*;
use std::sync::atomic::Ordering;

#[test]
fn the_loss_falls_and_a_prediction_is_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let source = Roads::new(40);
    let mut scenario = source.scenario(3);
    let config = config(folder.path(), &["epochs=25", "lr=6e-3", "model.dim=32"]);
    let mut engine = engine(config, source, events.host(|_| false));
    let report = engine.fit().unwrap();
    let losses = events.losses();
    assert_eq!((report.epochs, report.steps, losses.len()), (25, 200, 200), "32 training scenarios in batches of 4");
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..8]), mean(&losses[192..]));
    assert!(last <= 0.5 * first, "loss {first} -> {last}");
    assert!(!report.stopped && report.skipped_steps == 0 && report.skipped_scenarios == 0);
    for name in
        ["loss/train_loss", "loss/val_loss", "objectives/train_reg_loss", "objectives/val_collision_loss", "val/minFDE", "train/minADE"]
    {
        assert!(report.metrics.get(name).is_some_and(f64::is_finite), "{name}: {:?}", report.metrics);
    }
    let test = engine.test().unwrap();
    assert_eq!(test.scenarios, 4);
    assert!(test.metrics.get("test/minFDE").is_some_and(f64::is_finite) && test.metrics.get("loss/test_loss").is_some());
    assert_eq!(engine.validate().unwrap().metrics.get("loss/val_loss"), report.metrics.get("loss/val_loss"));

    let prediction = engine.predict(&scenario).unwrap();
    let total: f64 = prediction.candidates.iter().map(|c| c.probability).sum();
    assert!((total - 1.0).abs() <= 1e-9, "{total}");
    let best = &prediction.candidates[prediction.best];
    assert!(prediction.candidates.iter().all(|c| c.probability <= best.probability && c.states.len() == 80));
    // After 25 epochs it drives along the road: at most 15 m off after one second, and roughly in its direction.
    let (ego, guess) = (scenario.ego[30], best.states[9]);
    assert!((guess[0] - ego.x).hypot(guess[1] - ego.y) <= 15.0, "{guess:?} {ego:?}");
    assert_eq!(prediction.agents.len(), 4);
    for agent in &prediction.agents {
        let truth = &scenario.agents.iter().find(|a| a.id == agent.id).unwrap().states[20];
        let guess = agent.states[0];
        assert!((guess[0] - truth.x).hypot(guess[1] - truth.y) <= 5.0, "{guess:?} {truth:?}");
    }
    // The future is not read.
    scenario.ego.truncate(21);
    scenario.agents.iter_mut().for_each(|agent| agent.states.truncate(21));
    assert_eq!(engine.predict(&scenario).unwrap(), prediction);
}

#[test]
fn workers_threads_of_the_source_and_the_cache_change_nothing() {
    let run = |overrides: &[&str], thread_safe: bool| {
        let folder = tempfile::tempdir().unwrap();
        let mut source = Roads::new(30);
        source.thread_safe = thread_safe;
        source.failing.insert(4);
        let events = Events::default();
        let mut all = vec!["epochs=2"];
        all.extend(overrides);
        let mut engine = engine(config(folder.path(), &all), source, events.host(|_| false));
        let report = engine.fit().unwrap();
        (buffers(&engine), events.losses(), report.metrics)
    };
    let expected = run(&[], true);
    assert!(run(&[], true) == expected, "again");
    for workers in ["num_workers=1", "num_workers=4"] {
        for thread_safe in [true, false] {
            assert!(run(&[workers], thread_safe) == expected, "{workers}, thread-safe: {thread_safe}");
        }
    }
    assert!(run(&["cache.memory_mb=0", "num_workers=2"], true) == expected, "without a cache");
    assert!(run(&["cache.memory_mb=4", "num_workers=2"], true) == expected, "with a cache that is soon full");
    assert!(run(&["seed=1"], true) != expected, "another seed");
}

#[test]
fn a_source_is_called_from_where_it_allows_and_once_with_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Roads::new(20);
    source.thread_safe = false;
    let source = Arc::new(source);
    let config = config(folder.path(), &["epochs=3", "num_workers=3"]);
    let mut engine = Engine::build(config, Some(source.clone()), Host::default()).unwrap();
    engine.fit().unwrap();
    assert_eq!(*source.threads.lock().unwrap(), [std::thread::current().id()].into());
    assert_eq!(source.loads.load(Ordering::Relaxed), 18, "16 for training and 2 for validation");
}

/// Runs to the end; with `stop`, in two parts.
fn train(
    stop: Option<fn(&Event) -> bool>,
    folder: &Path,
    extra: &[&str],
) -> ([Vec<f64>; 4], Vec<f64>, training_engine::metrics::MetricTable, Vec<String>) {
    let events = Events::default();
    let checkpoints_of_all = "lightning.trainer.checkpoint.save_top_k=-1";
    let overrides = [&[checkpoints_of_all, "lightning.trainer.params.max_steps=24", "num_workers=2"], extra].concat();
    let mut losses = Vec::new();
    if let Some(stop) = stop {
        let mut first = engine(config(folder, &overrides), Roads::new(30), events.host(stop));
        let report = first.fit().unwrap();
        assert!(report.stopped);
        assert!(Path::new(&report.last_checkpoint).exists());
    }
    let mut all = overrides.to_vec();
    all.push("checkpoint=last");
    let mut engine = engine(config(folder, &all), Roads::new(30), events.host(|_| false));
    let report = engine.fit().unwrap();
    assert!(!report.stopped && report.epochs == 4 && report.steps == 24);
    losses.extend(events.losses());
    (buffers(&engine), losses, report.metrics, checkpoints(folder))
}

#[test]
fn a_run_that_was_stopped_and_resumed_equals_one_that_was_not() {
    stop_and_resume(&[]);
}

#[test]
fn so_does_one_with_contrastive_samples() {
    stop_and_resume(&contrastive::CONTRASTIVE);
}

fn stop_and_resume(extra: &[&str]) {
    let whole = tempfile::tempdir().unwrap();
    let expected = train(None, whole.path(), extra);
    assert_eq!(expected.3.len(), 5, "one for each epoch and the last: {:?}", expected.3);
    let stops: [fn(&Event) -> bool; 5] = [
        |event| matches!(event, Event::Epoch { epoch: 1, .. }),
        |event| matches!(event, Event::Step { step: 9, .. }),
        |event| matches!(event, Event::Step { step: 12, .. }),
        |event| matches!(event, Event::Validation { .. }),
        |event| matches!(event, Event::Step { step: 24, .. }),
    ];
    for (i, stop) in stops.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let parts = train(Some(stop), folder.path(), extra);
        assert!(parts.0 == expected.0, "stop {i}: parameters, moments, statistics");
        assert_eq!(parts.1, expected.1, "stop {i}: losses");
        assert_eq!(parts.2, expected.2, "stop {i}: metrics");
        assert_eq!(parts.3, expected.3, "stop {i}: checkpoints");
        for name in &parts.3 {
            let read = |folder: &Path| std::fs::read(folder.join("checkpoints").join(name)).unwrap();
            let weights = |bytes: Vec<u8>| bytes[u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8..].to_vec();
            assert!(weights(read(folder.path())) == weights(read(whole.path())), "stop {i}: {name}");
        }
    }
}

#[test]
fn a_run_that_goes_on_with_other_scenarios_or_with_nothing_to_do_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let said = |overrides: &[&str], scenarios: usize| {
        let said = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&said);
        let host = Host { log: Some(Arc::new(move |_, text: &str| sink.lock().unwrap().push_str(text))), ..Host::default() };
        let overrides = [&["checkpoint=last", "lightning.trainer.params.limit_train_batches=2"], overrides].concat();
        engine(config(folder.path(), &overrides), Roads::new(scenarios), host).fit().unwrap();
        let said = said.lock().unwrap();
        ["the training scenarios are not those", "nothing is left to train after 3 epochs and 6 steps"].map(|text| said.contains(text))
    };
    assert_eq!(said(&["epochs=1"], 30), [false, false]);
    assert_eq!(said(&["epochs=2"], 30), [false, false]);
    assert_eq!(said(&["epochs=3"], 20), [true, false]);
    assert_eq!(said(&["epochs=3"], 20), [false, true]);
}

#[test]
fn a_stop_from_another_thread_ends_the_run_and_a_second_call_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let handle: Arc<Mutex<Option<training_engine::engine::StopHandle>>> = Arc::default();
    let seen = Arc::clone(&handle);
    let events = Events::default();
    let host = events.host(move |event| {
        if matches!(event, Event::Step { step: 3, .. }) {
            let handle = seen.lock().unwrap().clone().unwrap();
            std::thread::spawn(move || handle.stop()).join().unwrap();
        }
        false
    });
    let mut engine = engine(config(folder.path(), &["epochs=2", "num_workers=2"]), Roads::new(30), host);
    *handle.lock().unwrap() = Some(engine.stop_handle());
    let report = engine.fit().unwrap();
    assert!(report.stopped && report.steps == 3 && report.epochs == 0);
    assert_eq!(checkpoints(folder.path()), ["last.safetensors"]);
    let report = engine.fit().unwrap();
    assert!(!report.stopped && report.steps == 12 && report.epochs == 2);
    assert_eq!(engine.fit().unwrap().steps, 12, "nothing is left to do");
}

/// A host whose scenarios take long to come by does not wait for a whole batch.
#[test]
fn a_stop_takes_effect_between_two_scenarios() {
    for (thread_safe, workers, most) in [(true, "num_workers=0", 2), (true, "num_workers=2", 2 + 1), (false, "num_workers=2", 2)] {
        let folder = tempfile::tempdir().unwrap();
        let mut source = Roads::new(30);
        source.thread_safe = thread_safe;
        let source = Arc::new(source);
        let options = [workers, "epochs=1", "lightning.trainer.params.num_sanity_val_steps=0", "cache.memory_mb=0"];
        let dynamic = Arc::clone(&source) as Arc<dyn ScenarioSource>;
        let mut engine = Engine::build(config(folder.path(), &options), Some(dynamic), Host::default()).unwrap();
        let mut stopped = |call: &mut dyn FnMut(&mut Engine)| {
            let loads = source.loads.load(Ordering::Relaxed);
            *source.stop_at.lock().unwrap() = Some((loads + 2, engine.stop_handle()));
            call(&mut engine);
            let loads = source.loads.load(Ordering::Relaxed) - loads;
            assert!((2..=most).contains(&loads), "{loads} loads, {workers}, thread-safe: {thread_safe}");
        };
        stopped(&mut |engine| {
            let report = engine.fit().unwrap();
            assert!(report.stopped && report.steps == 0);
        });
        stopped(&mut |engine| assert!(matches!(engine.validate(), Err(training_engine::error::Error::Stopped))));
        let report = engine.fit().unwrap();
        assert!(!report.stopped && report.steps == 6);
    }
}

#[test]
fn the_best_checkpoints_stay() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let overrides = ["epochs=5", "lightning.trainer.checkpoint.save_top_k=2", "lightning.trainer.checkpoint.filename='{epoch}'"];
    let mut engine = engine(config(folder.path(), &overrides), Roads::new(30), events.host(|_| false));
    let report = engine.fit().unwrap();
    let mut scores: Vec<(f64, String)> = Vec::new();
    for event in events.0.lock().unwrap().iter() {
        if let Event::Epoch { epoch, metrics, .. } = event {
            scores.push((metrics.get("loss/val_loss").unwrap(), format!("epoch={epoch}.safetensors")));
        }
    }
    assert_eq!(scores.len(), 5);
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut expected = vec![scores[0].1.clone(), scores[1].1.clone(), "last.safetensors".into()];
    expected.sort();
    assert_eq!(checkpoints(folder.path()), expected);
    assert_eq!(report.best_score, Some(scores[0].0));
    assert!(report.best_checkpoint.ends_with(&scores[0].1));
    // The best one can be gone on from, and holds what it scored.
    let best = config(folder.path(), &["epochs=5", "checkpoint=best"]);
    let mut again = super::engine(best, Roads::new(30), Host::default());
    assert_eq!(again.validate().unwrap().metrics.get("loss/val_loss"), Some(scores[0].0));
}

#[test]
fn limits_validation_interval_and_sanity_steps() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let overrides = [
        "epochs=3",
        "lightning.trainer.params.limit_train_batches=2",
        "lightning.trainer.params.check_val_every_n_epoch=2",
        "lightning.trainer.params.limit_test_batches=0",
        "lightning.trainer.params.precision=64",
    ];
    let mut engine = engine(config(folder.path(), &overrides), Roads::new(30), events.host(|_| false));
    let report = engine.fit().unwrap();
    assert_eq!(report.steps, 6);
    let validated = events.count(|e| matches!(e, Event::Epoch { metrics, .. } if metrics.get("loss/val_loss").is_some()));
    assert_eq!(validated, 1);
    assert_eq!(engine.test().unwrap().scenarios, 0);
    assert!(engine.summary().contains("trainable parameters"));
}
