use super::*;
use crate::error::Error;

fn fault(text: &str, overrides: &[&str]) -> (String, String) {
    match Config::from_text(text, overrides) {
        Err(Error::Config { key, reason }) => (key, reason),
        other => panic!("{text} {overrides:?}: {other:?}"),
    }
}

#[test]
fn an_empty_text_gives_the_defaults_and_the_echo_reads_back() {
    let config = Config::from_text("", &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(Config::from_text(&config.to_text(), &[]).unwrap(), config);
    assert!(config.to_text().contains("lightning:\n  trainer:\n    params:\n      max_epochs: null\n"));
}

#[test]
fn nested_and_flat_names_and_overrides_in_order() {
    let text = "
lr: 5e-4
custom_trainer: {weight_decay: 0.01, use_collision_loss: no}
model:
  dim: 32
  feature_builder: {radius: 100}
data_loader:
  params: {batch_size: 4, num_workers: 0}
lightning:
  trainer:
    params: {max_epochs: 2, gradient_clip_val: null, limit_train_batches: 1, limit_val_batches: 1.0, precision: 64}
    checkpoint: {save_top_k: -1, mode: max}
splitter:
  log_splits: {train: [a, 7], val: [b]}
checkpoint: last
";
    let config = Config::from_text(text, &["lr=1e-4", "batch_size=8", "custom_trainer.lr=0.25", "model.cat_x=on"]).unwrap();
    assert_eq!((config.optimizer.lr, config.optimizer.weight_decay), (0.25, 0.01));
    assert_eq!((config.model.dim, config.model.radius, config.model.cat_x), (32, 100.0, true));
    assert_eq!((config.loader.batch_size, config.loader.num_workers), (8, 0));
    assert_eq!((config.max_epochs(), config.optimizer.epochs, config.optimizer.gradient_clip_val), (Some(2), 25, None));
    assert_eq!((config.trainer.limit_train_batches, config.trainer.limit_val_batches), (Limit::Count(1), Limit::Share(1.0)));
    assert_eq!((config.run.precision, config.checkpoint.mode), (Precision::Double, Mode::Max));
    assert_eq!(config.splitter.train_logs, ["a", "7"]);
    assert_eq!(config.run.checkpoint, CheckpointSource::Last);
    assert!(!config.objectives.use_collision_loss);
    assert_eq!(Config::from_text(&config.to_text(), &[]).unwrap(), config);
    let json = Config::from_text(r#"{"lr": 0.5, "model": {"dim": 64}, "epochs": 3}"#, &[]).unwrap();
    assert_eq!((json.optimizer.lr, json.model.dim, json.max_epochs()), (0.5, 64, Some(3)));
}

#[test]
fn faults_name_key_value_and_expectation() {
    for (text, key, part) in [
        ("lrr: 1", "lrr", "'lr'"),
        ("batchsize: 1", "batchsize", "batch_size'"),
        ("modell: {dim: 32}", "modell.dim", "'model.dim'"),
        ("model: {dims: 32}", "model.dims", "'model.dim'"),
        ("data_loader: {batch_size: 3}", "data_loader.batch_size", "batch_size'"),
        ("model: 3", "model", "group of keys"),
        ("lr: fast", "lr", "\"fast\" is not a number"),
        ("lr: 0", "lr", "0 must be above 0"),
        ("lr: .nan", "lr", "is not a number"),
        ("lr: -1e-3", "lr", "above 0"),
        ("epochs: 2.0", "epochs", "2.0 is not a whole number"),
        ("epochs: 0", "epochs", "from 1"),
        ("batch_size: -1", "data_loader.params.batch_size", "-1 is not"),
        ("batch_size: 0", "data_loader.params.batch_size", "from 1"),
        ("model: {dim: 30, num_heads: 4}", "model.dim", "multiple of model.num_heads"),
        ("model: {dim: 30, num_heads: 1}", "model.dim", "multiple of 8"),
        ("model: {dropout: 1.0}", "model.dropout", "below 1"),
        ("model: {history_steps: 20}", "model.history_steps", "21"),
        ("lr: 1\ncustom_trainer: {lr: 2}", "custom_trainer.lr", "differ"),
        ("precision: bf16-mixed", "lightning.trainer.params.precision", "GPU"),
        ("precision: 8", "lightning.trainer.params.precision", "8 is not 32 or 64"),
        ("accelerator: gpu", "lightning.trainer.params.accelerator", "GPU"),
        ("use_contrast_loss: true", "custom_trainer.use_contrast_loss", "not available"),
        ("lightning: {trainer: {params: {limit_val_batches: 1.5}}}", "lightning.trainer.params.limit_val_batches", "1.5 is not"),
        ("splitter: {log_splits: {train: [a], test: [a]}}", "splitter.log_splits.test", "'a'"),
        ("splitter: {val_fraction: 0.5, test_fraction: 0.5}", "splitter.val_fraction", "train on"),
        ("[1]", "", "mapping"),
        ("a: [", "", "line"),
    ] {
        let (found, reason) = fault(text, &[]);
        assert_eq!(found, key, "{text}: {reason}");
        assert!(reason.contains(part), "{text}: {reason}");
    }
    assert!(fault("", &["nonsense"]).1.contains("key=value"));
    assert_eq!(fault("", &["lr=0"]).0, "lr");
    assert!(fault("", &["epoch=3"]).1.contains("'epochs'"));
}

#[test]
fn limits_tell_counts_from_shares() {
    assert_eq!(Limit::Count(1).apply(10), 1);
    assert_eq!(Limit::Share(1.0).apply(10), 10);
    assert_eq!(Limit::Share(0.25).apply(10), 2);
    assert_eq!(Limit::Share(0.01).apply(10), 1);
    assert_eq!(Limit::Share(0.0).apply(10), 0);
    assert_eq!(Limit::Count(0).apply(10), 0);
}
