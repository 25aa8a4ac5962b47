//! Hooks, limits of time, anomalies, and what is evaluated, by themselves.

use super::{logged, *};
use training_engine::{config::CheckpointSource, error::Error, scenario::Split};

fn bits(engine: &Engine) -> Vec<u64> {
    buffers(engine).iter().flatten().map(|x| x.to_bits()).collect()
}

/// Trains to the end, from the last checkpoint if there is one.
fn train(folder: &Path, overrides: &[&str]) -> Engine {
    let mut all = overrides.to_vec();
    all.push("checkpoint=last");
    let mut engine = engine(config(folder, &all), Roads::new(30), Host::default());
    assert!(!engine.fit().unwrap().stopped);
    engine
}

#[test]
fn a_stop_amid_an_accumulation_is_gone_on_with() {
    let overrides = ["epochs=2", "lightning.trainer.params.accumulate_grad_batches=3"];
    let [whole, parts] = [0; 2].map(|_| tempfile::tempdir().unwrap());
    let expected = train(whole.path(), &overrides);
    let source = Arc::new(Roads::new(30));
    // After the sanity check's 3 scenarios and four batches, of which the last is the first of the second update: amid loading the fifth.
    let mut first = Engine::build(config(parts.path(), &overrides), Some(source.clone()), Host::default()).unwrap();
    *source.stop_at.lock().unwrap() = Some((3 + 4 * 4 + 1, first.stop_handle()));
    let report = first.fit().unwrap();
    assert!(report.stopped && report.steps == 1);
    assert_eq!((first.trainer().state().batch, first.trainer().state().gathered), (4, 1));
    drop(first);
    let resumed = train(parts.path(), &overrides);
    assert_eq!(resumed.trainer().state().step, 4, "two updates in each epoch of 6 batches");
    assert!(bits(&resumed) == bits(&expected));
    assert_eq!(resumed.trainer().state().metrics, expected.trainer().state().metrics);
}

#[test]
fn time_is_counted_across_calls_and_ends_them() {
    let [whole, parts] = [0; 2].map(|_| tempfile::tempdir().unwrap());
    let overrides = ["epochs=2"];
    let expected = train(whole.path(), &overrides);
    let seconds = expected.trainer().state().seconds;
    assert!(seconds > 0.0);
    let no_time = config(parts.path(), &["epochs=2", "max_time='00:00:00:00'"]);
    let report = engine(no_time, Roads::new(30), Host::default()).fit().unwrap();
    assert!(report.stopped && report.steps == 0 && Path::new(&report.last_checkpoint).exists());
    let resumed = train(parts.path(), &overrides);
    assert!(bits(&resumed) == bits(&expected));
    // The same folder again: what it took before is not forgotten.
    let again = config(parts.path(), &["epochs=3", "checkpoint=last", "max_time='00:00:00:00'"]);
    let mut again = engine(again, Roads::new(30), Host::default());
    let before = again.trainer().state().seconds;
    assert!(before > 0.0);
    assert!(again.fit().unwrap().stopped && again.trainer().state().step == 12 && again.trainer().state().seconds >= before);
}

#[test]
fn anomalies_are_named_and_looking_for_them_changes_nothing() {
    let watch = "lightning.trainer.params.detect_anomaly=true";
    let [plain, watched, broken] = [0; 3].map(|_| tempfile::tempdir().unwrap());
    let expected = train(plain.path(), &["epochs=1"]);
    assert!(bits(&train(watched.path(), &["epochs=1", watch])) == bits(&expected));
    let overrides = ["lr=1e30", "warmup_epochs=0", "gradient_clip_val=null", watch];
    let error = engine(config(broken.path(), &overrides), Roads::new(30), Host::default()).fit().unwrap_err();
    let Error::NotFinite(text) = &error else { panic!("{error}") };
    // The first that overflows is in an encoder of the input, not the loss at the end.
    assert!(text.starts_with("the value of '") && text.contains("encoder") && text.contains("scenario "), "{text}");
}

#[test]
fn a_run_that_was_stopped_early_stays_so_until_it_gets_more_patience() {
    let folder = tempfile::tempdir().unwrap();
    let stopping = ["epochs=6", "callbacks.early_stopping.monitor=loss/val_loss", "callbacks.early_stopping.min_delta=1000.0"];
    let with = |patience| {
        let mut all = stopping.to_vec();
        all.push(patience);
        train(folder.path(), &all).trainer().state().step
    };
    assert_eq!(with("callbacks.early_stopping.patience=1"), 12, "an improvement, and a check without one");
    assert_eq!(with("callbacks.early_stopping.patience=1"), 12);
    assert_eq!(with("callbacks.early_stopping.patience=3"), 24, "two more checks");
}

#[test]
fn any_split_of_any_checkpoint_is_evaluated_to_its_last_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let mut trained = train(folder.path(), &["epochs=3", "batch_size=5", "lr=0.5", "warmup_epochs=0"]);
    let present = bits(&trained);
    let at_hand = trained.evaluate(Split::Train, &CheckpointSource::None).unwrap();
    assert_eq!(at_hand.scenarios, 24, "four full batches and a rest");
    let of_last = trained.evaluate(Split::Train, &CheckpointSource::Last).unwrap();
    assert_eq!(of_last.metrics, at_hand.metrics);
    let of_best = trained.evaluate(Split::Test, &CheckpointSource::Best).unwrap();
    assert!(bits(&trained) == present, "the weights stay");
    let best = config(folder.path(), &["epochs=3", "batch_size=5", "lr=0.5", "warmup_epochs=0", "checkpoint=best"]);
    let mut again = engine(best, Roads::new(30), Host::default());
    assert_eq!(again.test().unwrap(), of_best);
    let missing = CheckpointSource::Path(folder.path().join("nothing"));
    assert!(matches!(trained.evaluate(Split::Test, &missing), Err(Error::File { .. })));
}

#[test]
fn times_are_logged_and_the_model_is_shown_to_a_depth() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &["epochs=2", "callbacks.time_logging=true", "callbacks.model_summary.max_depth=2"]);
    let mut engine = engine(config, Roads::new(30), Host::default());
    let rows: Vec<usize> =
        [1, 2, -1].iter().map(|depth| training_engine::trainer::summary::table(engine.model().session(), *depth).lines().count()).collect();
    assert!(rows[0] < rows[1] && rows[1] < rows[2], "{rows:?}");
    assert!(engine.summary().lines().any(|line| line.starts_with("agent_encoder.")), "{}", engine.summary());
    engine.fit().unwrap();
    engine.test().unwrap();
    let logged = logged::read(folder.path());
    for (name, steps) in [("time_epoch", &[0, 1][..]), ("time_eval", &[0, 1]), ("time_test", &[1])] {
        assert_eq!(logged::steps(&logged, name), steps, "{name}");
        assert!(logged[name].iter().all(|(_, seconds)| *seconds > 0.0), "{name}");
    }
    assert_eq!(logged::steps(&logged, "test/minFDE"), [11]);
}
