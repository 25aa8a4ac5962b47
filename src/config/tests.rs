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
    let config = Config::from_text(text, &["lr=1e-4", "batch_size=8", "custom_trainer.lr=0.25", "model.cat_x=true"]).unwrap();
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
        ("precision: bf16-mixed\naccelerator: cpu", "lightning.trainer.params.precision", "GPU"),
        ("precision: 8", "lightning.trainer.params.precision", "8 is not 32 or 64"),
        ("precision: 64\naccelerator: gpu", "lightning.trainer.params.precision", "CPU"),
        ("precision: 16-mixed\naccelerator: cpu", "lightning.trainer.params.precision", "GPU"),
        ("precision: 16-true", "lightning.trainer.params.precision", "16-true"),
        ("accelerator: tpu", "lightning.trainer.params.accelerator", "auto, cpu or gpu"),
        ("devices: 2", "lightning.trainer.params.devices", "one device"),
        ("devices: [0, 1]", "lightning.trainer.params.devices", "one device"),
        ("devices: many", "lightning.trainer.params.devices", "a number of devices"),
        ("float32_matmul_precision: low", "float32_matmul_precision", "highest"),
        ("use_contrast_loss: true", "custom_trainer.use_contrast_loss", "use_hidden_proj"),
        (
            "data_augmentation: {contrastive_augmentation: {low: [1, 2]}}",
            "data_augmentation.contrastive_scenario_generator.low",
            "7 numbers",
        ),
        (
            "data_augmentation: {contrastive_scenario_generator: {low: [0, 0, 0, 0, 0, 0.3, 0]}}",
            "data_augmentation.contrastive_scenario_generator.low",
            "component 5",
        ),
        ("lightning: {trainer: {params: {limit_val_batches: 1.5}}}", "lightning.trainer.params.limit_val_batches", "1.5 is not"),
        ("splitter: {log_splits: {train: [a], test: [a]}}", "splitter.log_splits.test", "'a'"),
        ("scenario_filter: {limit_total_scenarios: 0}", "scenario_filter.limit_total_scenarios", "above 0"),
        ("scenario_filter: {limit_total_scenarios: 1.5}", "scenario_filter.limit_total_scenarios", "1.5 is not"),
        ("scenario_filter: {token_set_path: x}", "scenario_filter.token_set_path", "cannot be looked up"),
        ("scenario_filter: {scenario_tokens: [[a, b, c]]}", "scenario_filter.scenario_tokens", "pairs"),
        ("scenario_filter: {scenario_typs: []}", "scenario_filter.scenario_typs", "scenario_types'"),
        (
            "scenario_type_weights: {scenario_type_sampling_weights: {scenario_type_weights: {a: -1}}}",
            "scenario_type_weights.scenario_type_sampling_weights.scenario_type_weights",
            "at least 0",
        ),
        ("data_loader: {datamodule: {train_fraction: 1.5}}", "data_loader.datamodule.train_fraction", "from 0 to 1"),
        ("splitter: {val_fraction: 0.5, test_fraction: 0.5}", "splitter.val_fraction", "train on"),
        ("custom_trainer: {_target_: a.Other}", "custom_trainer._target_", "LightningTrainer"),
        ("objective: {wrong: {weight: 1}}", "objective", "imitation_objective"),
        ("objective: {cls_loss: {wieght: 1}}", "objective", "cls_loss"),
        ("objective: {cls_loss: {weight: 0}}", "objective", "above 0"),
        ("objective: {cls_loss: , a: {_target_: cls_loss}}", "objective", "each once"),
        ("objective: 3", "objective", "a group"),
        ("training_metric: {minADE: {name: x}}", "training_metric", "minADE"),
        ("objective_aggregate_mode: median", "objective_aggregate_mode", "mean, sum or max"),
        ("optimizer: {_target_: torch.optim.Adagrad}", "optimizer._target_", "SGD"),
        ("optimizer: {betas: [0.9]}", "optimizer.betas", "two numbers"),
        ("optimizer: {eps: 0}", "optimizer.eps", "above 0"),
        ("optimizer: {eps: 1e-50}", "optimizer.eps", "above 0"),
        ("optimizer: {amsgrad: true}", "optimizer.amsgrad", "unknown"),
        ("lr_scheduler: {_target_: a.CosineAnnealingLR}", "lr_scheduler._target_", "OneCycleLR"),
        ("lr_scheduler: {pct_start: 2}", "lr_scheduler.pct_start", "from 0 to 1"),
        ("warm_up_lr_scheduler: {lr_lambda: {warm_up_strategy: cosine}}", "warm_up_lr_scheduler.lr_lambda.warm_up_strategy", "constant"),
        ("scenario_type_weights: {scenario_type_loss_weights: {a: -1}}", "scenario_type_weights.scenario_type_loss_weights", "at least 0"),
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

/// As published groups look once they are composed.
const STANDARD: &str = "
custom_trainer: null
objective_aggregate_mode: max
objective:
  imitation_objective: {_target_: nuplan.planning.training.modeling.objectives.imitation_objective.ImitationObjective, _convert_: all, weight: 2}
  agents_imitation_objective: {weight: 0.5}
  other: {_target_: a.b.TrajectoryWeightDecayImitationObjective}
  cls_loss:
training_metric:
  avg_displacement_error: {_target_: a.planning_metrics.AverageDisplacementError, _convert_: all}
  some: {_target_: a.AgentsFinalHeadingError}
  MR:
scenario_type_weights:
  scenario_type_loss_weights: {starting_left_turn: 2, unknown: 0.5}
optimizer: {_target_: torch.optim.SGD, _convert_: all, lr: 1e-2, momentum: 0.9, weight_decay: 0, dampening: 0.0, nesterov: true}
lr_scheduler:
  _target_: torch.optim.lr_scheduler.OneCycleLR
  _convert_: all
  optimizer: null
  max_lr: 1e-4
  epochs: 3
  steps_per_epoch: null
  pct_start: 0.25
  anneal_strategy: linear
  cycle_momentum: true
  last_epoch: -1
warm_up_lr_scheduler:
  _target_: torch.optim.lr_scheduler.LambdaLR
  optimizer: null
  lr_lambda: {_target_: a.get_warm_up_lr_scheduler_func, warm_up_steps: 5, warm_up_strategy: constant}
";

#[test]
fn the_standard_module_is_read_from_its_groups() {
    use module::{Anneal, Objective, OptimizerKind, ScheduleKind, WarmUp, WarmUpStrategy};
    let config = Config::from_text(STANDARD, &["optimizer.betas=[0.8, 0.99]", "objective.imitation_objective.weight=3"]).unwrap();
    let (o, optimizer) = (&config.objectives, &config.optimizer);
    assert_eq!((o.module, o.aggregate), (ModuleKind::Standard, Aggregate::Max));
    let terms: Vec<_> = o.terms.iter().map(|term| (term.objective, term.weight)).collect();
    use Objective::{AgentsImitation, Classification, DecayingImitation, Imitation};
    assert_eq!(terms, [(Imitation, 3.0), (AgentsImitation, 0.5), (DecayingImitation, 1.0), (Classification, 1.0)]);
    assert_eq!(o.metrics, [Metric::AverageDisplacement, Metric::AgentsFinalHeading, Metric::MissRate]);
    assert_eq!(o.type_weights, [("starting_left_turn".to_owned(), 2.0), ("unknown".to_owned(), 0.5)]);
    // No objective reads a cost map or triplets.
    assert_eq!((o.use_collision_loss, o.use_contrast_loss), (false, false));
    let standard = &optimizer.standard;
    assert_eq!((standard.kind, standard.lr, standard.decay(), standard.momentum), (OptimizerKind::Sgd, 1e-2, 0.0, 0.9));
    assert_eq!(standard.betas, [0.8, 0.99]);
    let schedule = &optimizer.schedule;
    assert_eq!((schedule.kind, schedule.one_cycle.epochs), (ScheduleKind::OneCycle, Some(3)));
    assert_eq!((schedule.one_cycle.steps_per_epoch, schedule.one_cycle.anneal_strategy), (None, Anneal::Linear));
    assert_eq!(schedule.warm_up, WarmUp { steps: 5, strategy: WarmUpStrategy::Constant });
    assert_eq!(Config::from_text(&config.to_text(), &[]).unwrap(), config);
}

#[test]
fn which_module_a_configuration_means() {
    let kind = |text: &str| Config::from_text(text, &[]).unwrap().objectives.module;
    let (pluto, objective) =
        ("custom_trainer: {_target_: src.models.pluto.pluto_trainer.LightningTrainer}", "objective: {imitation_objective: }");
    assert_eq!(kind(""), ModuleKind::Pluto);
    assert_eq!(kind("objective:\ntraining_metric:\nlr_scheduler: null\noptimizer: {_target_: torch.optim.Adam}"), ModuleKind::Pluto);
    assert_eq!(kind(objective), ModuleKind::Standard);
    assert_eq!(kind(&format!("custom_trainer:\n{objective}")), ModuleKind::Standard);
    assert_eq!(kind(&format!("{pluto}\n{objective}")), ModuleKind::Pluto);
    assert_eq!(kind(&format!("custom_trainer: {{lr: 1e-3}}\n{objective}")), ModuleKind::Standard);
}

#[test]
fn selection_reads_back() {
    let text = "
scenario_filter:
  scenario_types: [left_turn]
  scenario_tokens: [[log, 0f], '1e5']
  num_scenarios_per_type: 4000
  limit_total_scenarios: 0.5
  remove_invalid_goals: true
  expand_scenarios:
  token_set_path:
  shuffle: true
data_loader: {datamodule: {train_fraction: 0.25}}
scenario_type_weights:
  scenario_type_sampling_weights: {enable: true, scenario_type_weights: {left_turn: 2, unknown: 0.5}}
data_augmentation: {contrastive_scenario_generator: {high: [1, 1, 1, 1, 1, 1, 1]}}
";
    let config =
        Config::from_text(text, &["scenario_type_weights.scenario_type_sampling_weights.scenario_type_weights.unknown=0"]).unwrap();
    let (selection, filter) = (&config.selection, &config.selection.filter);
    assert_eq!(selection.sampling_weights, [("left_turn".to_owned(), 2.0), ("unknown".to_owned(), 0.0)]);
    assert_eq!((selection.weighted_sampling, selection.train_fraction, selection.val_fraction), (true, 0.25, 1.0));
    let tokens: Vec<_> = filter.scenario_tokens.iter().map(|t| (t.log_name.as_deref(), t.token.as_str())).collect();
    assert_eq!(tokens, [(Some("log"), "0f"), (None, "1e5")]);
    assert_eq!((filter.num_scenarios_per_type, filter.limit_total_scenarios, filter.shuffle), (Some(4000), Limit::Share(0.5), true));
    assert_eq!((config.contrastive.high, config.contrastive.low[2]), ([1.0; 7], -0.35));
    assert_eq!(Config::from_text(&config.to_text(), &[]).unwrap(), config);
}

#[test]
fn limits_tell_counts_from_shares() {
    assert_eq!(Limit::Count(1).apply(10), 1);
    assert_eq!(Limit::Share(1.0).apply(10), 10);
    assert_eq!(Limit::Share(0.25).apply(10), 2);
    assert_eq!(Limit::Share(0.01).apply(10), 0);
    assert_eq!(Limit::Share(0.0).apply(10), 0);
    assert_eq!(Limit::Count(0).apply(10), 0);
}
