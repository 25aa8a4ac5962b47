//! The standard module from end to end.

use super::*;

const STANDARD: &str = "
threads: 1
custom_trainer: null
objective_aggregate_mode: sum
objective:
  imitation_objective: {weight: 1.0}
  agents_imitation_objective: {weight: 0.5}
  cls_loss: {weight: 1.0}
training_metric:
  avg_displacement_error:
  agents_final_heading_error:
  minFDE:
scenario_type_weights: {scenario_type_loss_weights: {following: 0.5}}
lr_scheduler: {_target_: torch.optim.lr_scheduler.OneCycleLR}
warm_up_lr_scheduler: {lr_lambda: {warm_up_steps: 1, warm_up_strategy: constant}}
lightning: {trainer: {params: {max_epochs: 3}}}
model: {dim: 16, encoder_depth: 1, decoder_depth: 1, num_modes: 3}
data_loader: {params: {batch_size: 4, num_workers: 0}}
";

fn standard(folder: &Path, overrides: &[&str]) -> Config {
    let folder = format!("output_dir={}", folder.display());
    let mut all = vec![folder.as_str()];
    all.extend(overrides);
    Config::from_text(STANDARD, &all).unwrap()
}

const OPTIMIZERS: [&str; 3] = [
    "optimizer={_target_: torch.optim.SGD, lr: 2e-2, momentum: 0.9, nesterov: true}",
    "optimizer={_target_: torch.optim.Adam, lr: 3e-2}",
    "optimizer={_target_: torch.optim.AdamW, lr: 3e-2}",
];

#[test]
fn it_logs_under_the_published_names_and_follows_its_schedule() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let mut engine = engine(standard(folder.path(), &[OPTIMIZERS[1]]), Roads::new(40), events.host(|_| false));
    let report = engine.fit().unwrap();
    assert_eq!((report.epochs, report.steps, report.skipped_steps), (3, 24, 0));
    for split in ["train", "val"] {
        for name in [
            format!("loss/{split}_loss"),
            format!("objectives/{split}_imitation_objective"),
            format!("objectives/{split}_agent_imitation_objective"),
            format!("objectives/{split}_cls_loss"),
            format!("metrics/{split}_avg_displacement_error"),
            format!("metrics/{split}_agents_final_heading_error"),
            format!("{split}/minFDE"),
        ] {
            assert!(report.metrics.get(&name).is_some_and(f64::is_finite), "{name}: {:?}", report.metrics);
        }
    }
    assert!(report.metrics.get("objectives/val_reg_loss").is_none() && report.metrics.get("val/minADE").is_none());
    let rates: Vec<f64> = events.0.lock().unwrap().iter().filter_map(rate).collect();
    // A step of the schedule at every third of the eight batches of an epoch, six in all: one of warm-up, at a tenth of the rate.
    let changes: Vec<usize> = (1..24).filter(|&i| rates[i] != rates[i - 1]).map(|i| i % 8).collect();
    assert!((rates[0] - 3e-3).abs() <= 1e-16 && rates.iter().all(|rate| *rate <= 3e-2), "{rates:?}");
    assert_eq!(changes, [6, 3, 6, 3, 6], "{rates:?}");
}

#[test]
fn in_training_single_steps_are_logged_and_no_means() {
    let Some(python) = logs::python() else {
        eprintln!("skipped: no Python with tensorboard (set TE_PYTHON, or make .venv)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let overrides = ["max_epochs=1", "lightning.trainer.params.log_every_n_steps=3"];
    engine(standard(folder.path(), &overrides), Roads::new(40), events.host(|_| false)).fit().unwrap();
    let output = std::process::Command::new(python).args(["-c", logs::READER]).arg(folder.path()).output().unwrap();
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = |tag: &str| read[tag].as_array().map(|rows| rows.iter().map(|row| row[0].as_u64().unwrap()).collect::<Vec<_>>());
    let names = ["loss/train_loss", "objectives/train_cls_loss", "metrics/train_avg_displacement_error"];
    assert!(names.iter().all(|name| steps(name) == Some(vec![2, 5])), "{read}");
    assert_eq!(read["loss/train_loss"][1][1].as_f64().unwrap() as f32, events.losses()[5] as f32);
    assert_eq!((steps("loss/val_loss"), steps("metrics/val_avg_displacement_error")), (Some(vec![7]), Some(vec![7])));
    assert_eq!((steps("loss/train_loss_step"), steps("lr-Adam").map(|steps| steps.len())), (None, Some(1)));
}

#[test]
fn every_optimizer_learns() {
    for optimizer in OPTIMIZERS {
        let folder = tempfile::tempdir().unwrap();
        let events = Events::default();
        let overrides = [optimizer, "max_epochs=10", "lr_scheduler=null", "warm_up_lr_scheduler=null"];
        let mut engine = engine(standard(folder.path(), &overrides), Roads::new(40), events.host(|_| false));
        engine.fit().unwrap();
        let losses = events.losses();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&losses[..8]), mean(&losses[losses.len() - 8..]));
        assert!(last <= 0.85 * first, "{optimizer}: {first} -> {last}");
    }
}

fn rate(event: &Event) -> Option<f64> {
    if let Event::Step { learning_rate, .. } = event { Some(*learning_rate) } else { None }
}

#[test]
fn a_resumed_run_equals_one_that_was_not_interrupted() {
    for optimizer in OPTIMIZERS {
        let train = |stop: Option<usize>| {
            let folder = tempfile::tempdir().unwrap();
            let events = Events::default();
            for stop in [stop, None].into_iter().skip(usize::from(stop.is_none())) {
                let config = standard(folder.path(), &[optimizer, "checkpoint=last"]);
                let host = events.host(move |event| matches!(event, Event::Step { step, .. } if Some(*step) == stop));
                let mut engine = engine(config, Roads::new(40), host);
                engine.fit().unwrap();
                if stop.is_none() {
                    let rates: Vec<f64> = events.0.lock().unwrap().iter().filter_map(rate).collect();
                    return (buffers(&engine), events.losses(), rates, engine.model().state());
                }
            }
            unreachable!("the last run has no stop")
        };
        let whole = train(None);
        for stop in [1, 5, 14] {
            assert!(train(Some(stop)) == whole, "{optimizer}, stopped after {stop}");
        }
    }
}

/// Neither its moments nor what was gathered for it move a head whose objective has been taken away.
#[test]
fn a_head_without_its_objective_stays_after_resuming() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Roads::new(30));
    let overrides = ["checkpoint=last", "max_epochs=2", "lightning.trainer.params.accumulate_grad_batches=3"];
    let mut first = Engine::build(standard(folder.path(), &overrides), Some(source.clone()), Host::default()).unwrap();
    // After the sanity check's 3 scenarios and four batches: amid the second accumulation.
    *source.stop_at.lock().unwrap() = Some((3 + 4 * 4 + 1, first.stop_handle()));
    first.fit().unwrap();
    assert_eq!((first.trainer().state().step, first.trainer().state().gathered), (1, 1));
    let parameters = |engine: &Engine, head: bool| -> Vec<f64> {
        let (session, values) = (engine.model().session(), buffers(engine)[0].clone());
        let chosen = session.parameters().iter().filter(|p| !p.statistic && p.name.starts_with("planning_decoder.pi_head.") == head);
        chosen.flat_map(|p| values[p.range()].to_vec()).collect()
    };
    let mut fewer = engine(standard(folder.path(), &[&overrides[..], &["~objective.cls_loss"]].concat()), Roads::new(30), Host::default());
    fewer.fit().unwrap();
    assert!(parameters(&fewer, false) != parameters(&first, false));
    assert!(parameters(&fewer, true) == parameters(&first, true));
}

#[test]
fn moments_of_another_optimizer_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    engine(standard(folder.path(), &["max_epochs=1"]), Roads::new(20), Host::default()).fit().unwrap();
    let resume = |config: Config| {
        let source = Arc::new(Roads::new(20)) as Arc<dyn ScenarioSource>;
        Engine::build(config, Some(source), Host::default()).map(|_| ()).map_err(|error| error.to_string())
    };
    let sgd = resume(standard(folder.path(), &["checkpoint=last", OPTIMIZERS[0]])).unwrap_err();
    assert!(sgd.contains("optimizer._target_ was \"torch.optim.Adam\""), "{sgd}");
    let pluto = "custom_trainer._target_=src.models.pluto.pluto_trainer.LightningTrainer";
    let pluto = resume(standard(folder.path(), &["checkpoint=last", pluto])).unwrap_err();
    assert!(pluto.contains("custom_trainer._target_ was null"), "{pluto}");
    assert_eq!(resume(standard(folder.path(), &["checkpoint=last", "optimizer.lr=1e-4"])), Ok(()));
}
