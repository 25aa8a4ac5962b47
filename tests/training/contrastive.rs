//! Training with contrastive samples.

use super::*;

pub const CONTRASTIVE: [&str; 2] = ["use_contrast_loss=true", "model.use_hidden_proj=true"];

#[test]
fn contrastive_samples_do_not_depend_on_who_makes_them() {
    let run = |overrides: &[&str], thread_safe: bool| {
        let folder = tempfile::tempdir().unwrap();
        let mut source = Roads::new(30);
        source.thread_safe = thread_safe;
        source.failing.insert(4);
        let events = Events::default();
        let overrides = [&CONTRASTIVE[..], &["epochs=2"], overrides].concat();
        let mut engine = engine(config(folder.path(), &overrides), source, events.host(|_| false));
        let report = engine.fit().unwrap();
        assert_eq!(report.skipped_steps, 0);
        (buffers(&engine), events.losses(), report.metrics)
    };
    let expected = run(&[], true);
    let metric = |name: &str| expected.2.get(name).unwrap();
    assert!(metric("objectives/train_contrastive_loss") > 0.0);
    assert_eq!(metric("objectives/val_contrastive_loss"), 0.0, "only training has contrastive samples");
    for (workers, thread_safe) in [("num_workers=1", true), ("num_workers=4", true), ("num_workers=4", false)] {
        assert!(run(&[workers], thread_safe) == expected, "{workers}, thread-safe: {thread_safe}");
    }
    assert!(run(&["cache.memory_mb=0", "num_workers=2"], true) == expected, "without a cache");
    let noise = "data_augmentation.contrastive_scenario_generator.low=[0, 0, 0, 0, 0, 0, 0]";
    assert!(run(&[noise], true).1 != expected.1, "other options of the generator");
}

#[test]
fn validation_sees_scenarios_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let scores = |overrides: &[&str]| {
        let mut engine = engine(config(folder.path(), overrides), Roads::new(30), Host::default());
        let report = engine.validate().unwrap();
        assert_eq!(report.scenarios, 3);
        (report.metrics.get("val/minFDE"), report.metrics.get("objectives/val_collision_loss"))
    };
    assert_eq!(scores(&["model.use_hidden_proj=true"]), scores(&CONTRASTIVE));
}

/// A loss of ln 2 says that positives and negatives look alike. The ego's state, which only the positive changes, tells them
/// apart at first, in the wrong direction; from the agents, which the negative lacks, the network learns only then. When it does
/// hangs on small things, in single precision on rounding (one of four seeds within 80 epochs): hence double precision and a seed
/// with which it also does at a learning rate that differs by 1e-10.
#[test]
fn the_contrastive_loss_falls() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["precision=64", "seed=1", "epochs=80", "lr=4e-3", "model.dim=32", "num_workers=2", "use_collision_loss=false"];
    let still = ["model.dropout=0", "model.drop_path=0", "model.state_dropout=0"];
    let overrides = [&CONTRASTIVE[..], &options, &still].concat();
    let events = Events::default();
    let mut engine = engine(config(folder.path(), &overrides), Roads::new(40), events.host(|_| false));
    let report = engine.fit().unwrap();
    assert_eq!((report.skipped_steps, report.skipped_scenarios), (0, 0));
    let losses: Vec<f64> = events.epochs("objectives/train_contrastive_loss");
    assert_eq!(losses.len(), 80);
    let last = losses[75..].iter().sum::<f64>() / 5.0;
    assert!(last <= 0.9 * std::f64::consts::LN_2 && last <= 0.9 * losses[0], "{losses:.3?}");
}

#[test]
fn the_contrastive_loss_needs_the_projection() {
    let error = Config::from_text("custom_trainer: {use_contrast_loss: true}", &[]).unwrap_err();
    assert!(error.to_string().contains("model.use_hidden_proj"), "{error}");
}
