//! Every trainer parameter and hook on small schedules: steps, epochs, validations, logged steps and rates, names of checkpoints. The
//! expected values follow from Lightning's rules; where a Python with Lightning is at hand, it runs the same schedules beside.

use super::{logged, *};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

/// A schedule on 8 training batches and 1 validation batch, for 3 epochs unless it says otherwise.
#[derive(Default)]
struct Case {
    name: &'static str,
    /// `lightning.trainer.params.*`.
    params: &'static [(&'static str, &'static str)],
    /// `lightning.trainer.checkpoint.*`.
    checkpoint: &'static [(&'static str, &'static str)],
    /// `callbacks.early_stopping.*`.
    stopping: &'static [(&'static str, &'static str)],
    /// `callbacks.learning_rate_monitor.logging_interval`.
    rates: &'static str,
    /// Checkpoints that are there before.
    present: &'static [&'static str],
    /// What is expected: updates and epochs.
    ends: (usize, usize),
    /// Epoch and updates of every validation.
    validations: &'static [(usize, usize)],
    /// Steps under which these are logged: training losses, their means, rates.
    step_losses: &'static [u64],
    epoch_losses: &'static [u64],
    rate_steps: &'static [u64],
    files: &'static [&'static str],
}

const ALL: (&str, &str) = ("save_top_k", "-1");

fn cases() -> Vec<Case> {
    let plain = || Case { rates: "epoch", checkpoint: &[ALL], ..Case::default() };
    vec![
        Case {
            name: "max_epochs, log_every_n_steps",
            params: &[("max_epochs", "3"), ("log_every_n_steps", "5")],
            ends: (24, 3),
            validations: &[(0, 8), (1, 16), (2, 24)],
            step_losses: &[4, 9, 14, 19],
            epoch_losses: &[7, 15, 23],
            rate_steps: &[0, 8, 16],
            files: &["epoch=0-step=8", "epoch=1-step=16", "epoch=2-step=24", "last"],
            ..plain()
        },
        Case {
            name: "max_steps amid an epoch",
            params: &[("max_epochs", "-1"), ("max_steps", "13"), ("log_every_n_steps", "4")],
            ends: (13, 2),
            validations: &[(0, 8)],
            step_losses: &[3, 7, 11],
            epoch_losses: &[7, 12],
            rate_steps: &[0, 8],
            files: &["epoch=0-step=8", "epoch=1-step=13", "last"],
            ..plain()
        },
        Case {
            name: "max_steps at the end of an epoch",
            params: &[("max_epochs", "5"), ("max_steps", "16")],
            ends: (16, 2),
            validations: &[(0, 8), (1, 16)],
            epoch_losses: &[7, 15],
            rate_steps: &[0, 8],
            files: &["epoch=0-step=8", "epoch=1-step=16", "last"],
            ..plain()
        },
        Case {
            name: "accumulate_grad_batches",
            params: &[("max_epochs", "3"), ("accumulate_grad_batches", "3"), ("log_every_n_steps", "2")],
            ends: (9, 3),
            validations: &[(0, 3), (1, 6), (2, 9)],
            step_losses: &[1, 3, 5, 7],
            epoch_losses: &[2, 5, 8],
            rate_steps: &[0, 3, 6],
            files: &["epoch=0-step=3", "epoch=1-step=6", "epoch=2-step=9", "last"],
            ..plain()
        },
        Case {
            name: "val_check_interval as a number",
            params: &[("max_epochs", "3"), ("val_check_interval", "3")],
            ends: (24, 3),
            validations: &[(0, 3), (0, 6), (1, 11), (1, 14), (2, 19), (2, 22)],
            epoch_losses: &[7, 15, 23],
            rate_steps: &[0, 8, 16],
            files: &[
                "epoch=0-step=3",
                "epoch=0-step=6",
                "epoch=1-step=11",
                "epoch=1-step=14",
                "epoch=2-step=19",
                "epoch=2-step=22",
                "last",
            ],
            ..plain()
        },
        Case {
            name: "val_check_interval as a share",
            params: &[("max_epochs", "1"), ("val_check_interval", "0.3")],
            ends: (8, 1),
            validations: &[(0, 2), (0, 4), (0, 6), (0, 8)],
            epoch_losses: &[7],
            rate_steps: &[0],
            files: &["epoch=0-step=2", "epoch=0-step=4", "epoch=0-step=6", "epoch=0-step=8", "last"],
            ..plain()
        },
        Case {
            name: "val_check_interval of 1 is every batch",
            params: &[("max_epochs", "1"), ("val_check_interval", "1"), ("limit_train_batches", "3")],
            ends: (3, 1),
            validations: &[(0, 1), (0, 2), (0, 3)],
            epoch_losses: &[2],
            rate_steps: &[0],
            files: &["epoch=0-step=3", "last"],
            ..plain()
        },
        Case {
            name: "val_check_interval across epochs",
            params: &[("max_epochs", "3"), ("val_check_interval", "5"), ("check_val_every_n_epoch", "null")],
            ends: (24, 3),
            validations: &[(0, 5), (1, 10), (1, 15), (2, 20)],
            epoch_losses: &[7, 15, 23],
            rate_steps: &[0, 8, 16],
            files: &["epoch=0-step=5", "epoch=1-step=10", "epoch=1-step=15", "epoch=2-step=20", "last"],
            ..plain()
        },
        Case {
            name: "validations within an accumulation",
            params: &[("max_epochs", "2"), ("val_check_interval", "4"), ("accumulate_grad_batches", "3")],
            ends: (6, 2),
            validations: &[(0, 1), (0, 3), (1, 4), (1, 6)],
            epoch_losses: &[2, 5],
            rate_steps: &[0, 3],
            files: &["epoch=0-step=1", "epoch=0-step=3", "epoch=1-step=4", "epoch=1-step=6", "last"],
            ..plain()
        },
        Case {
            name: "check_val_every_n_epoch",
            params: &[("max_epochs", "3"), ("check_val_every_n_epoch", "2")],
            ends: (24, 3),
            validations: &[(1, 16)],
            epoch_losses: &[7, 15, 23],
            rate_steps: &[0, 8, 16],
            files: &["epoch=1-step=16", "last"],
            ..plain()
        },
        Case {
            name: "limits, no validation, no monitor",
            params: &[("max_epochs", "3"), ("limit_train_batches", "0.5"), ("limit_val_batches", "0")],
            checkpoint: &[("monitor", "null"), ("save_top_k", "1")],
            ends: (12, 3),
            epoch_losses: &[3, 7, 11],
            rate_steps: &[0, 4, 8],
            files: &["epoch=2-step=12", "last"],
            ..plain()
        },
        Case {
            name: "a float above 1 is a number",
            params: &[("max_epochs", "2"), ("limit_train_batches", "2.0")],
            ends: (4, 2),
            validations: &[(0, 2), (1, 4)],
            epoch_losses: &[1, 3],
            rate_steps: &[0, 2],
            files: &["epoch=0-step=2", "epoch=1-step=4", "last"],
            ..plain()
        },
        Case {
            name: "overfit_batches",
            params: &[("max_epochs", "3"), ("overfit_batches", "2")],
            ends: (6, 3),
            validations: &[(0, 2), (1, 4), (2, 6)],
            epoch_losses: &[1, 3, 5],
            rate_steps: &[0, 2, 4],
            files: &["epoch=0-step=2", "epoch=1-step=4", "epoch=2-step=6", "last"],
            ..plain()
        },
        Case {
            name: "fast_dev_run",
            params: &[("max_epochs", "3"), ("fast_dev_run", "3"), ("check_val_every_n_epoch", "5")],
            ends: (3, 1),
            validations: &[(0, 3)],
            ..plain()
        },
        Case {
            name: "early stopping",
            params: &[("max_epochs", "6")],
            stopping: &[("monitor", "loss/val_loss"), ("patience", "2"), ("min_delta", "1000.0")],
            ends: (24, 3),
            validations: &[(0, 8), (1, 16), (2, 24)],
            epoch_losses: &[7, 15, 23],
            rate_steps: &[0, 8, 16],
            files: &["epoch=0-step=8", "epoch=1-step=16", "epoch=2-step=24", "last"],
            ..plain()
        },
        Case {
            name: "early stopping waits for min_epochs",
            params: &[("max_epochs", "6"), ("min_epochs", "5"), ("limit_train_batches", "2")],
            stopping: &[("monitor", "loss/val_loss"), ("patience", "1"), ("min_delta", "1000.0")],
            ends: (10, 5),
            validations: &[(0, 2), (1, 4), (2, 6), (3, 8), (4, 10)],
            step_losses: &[4, 5, 6, 7, 8, 9],
            epoch_losses: &[1, 3, 5, 7, 9],
            rate_steps: &[0, 2, 4, 6, 8],
            files: &["epoch=0-step=2", "epoch=1-step=4", "epoch=2-step=6", "epoch=3-step=8", "epoch=4-step=10", "last"],
            ..plain()
        },
        Case {
            name: "early stopping waits for min_steps",
            params: &[("max_epochs", "6"), ("min_steps", "21")],
            stopping: &[("monitor", "loss/val_loss"), ("patience", "1"), ("min_delta", "1000.0")],
            ends: (21, 3),
            validations: &[(0, 8), (1, 16), (2, 21)],
            step_losses: &[16, 17, 18, 19, 20],
            epoch_losses: &[7, 15, 20],
            rate_steps: &[0, 8, 16],
            files: &["epoch=0-step=8", "epoch=1-step=16", "epoch=2-step=21", "last"],
            ..plain()
        },
        Case {
            name: "early stopping at a threshold, amid an epoch",
            params: &[("max_epochs", "6"), ("val_check_interval", "3")],
            stopping: &[("monitor", "loss/val_loss"), ("stopping_threshold", "1000000.0")],
            ends: (3, 1),
            validations: &[(0, 3)],
            epoch_losses: &[2],
            rate_steps: &[0],
            files: &["epoch=0-step=3", "last"],
            ..plain()
        },
        Case {
            name: "early stopping at divergence",
            params: &[("max_epochs", "6")],
            stopping: &[("monitor", "loss/val_loss"), ("divergence_threshold", "0.001")],
            ends: (8, 1),
            validations: &[(0, 8)],
            epoch_losses: &[7],
            rate_steps: &[0],
            files: &["epoch=0-step=8", "last"],
            ..plain()
        },
        Case {
            name: "learning rates by step",
            params: &[("max_epochs", "2"), ("log_every_n_steps", "3")],
            rates: "step",
            ends: (16, 2),
            validations: &[(0, 8), (1, 16)],
            step_losses: &[2, 5, 8, 11, 14],
            epoch_losses: &[7, 15],
            rate_steps: &[2, 5, 8, 11, 14],
            files: &["epoch=0-step=8", "epoch=1-step=16", "last"],
            ..plain()
        },
        Case {
            name: "checkpoints every n steps",
            params: &[("max_epochs", "3")],
            checkpoint: &[ALL, ("monitor", "null"), ("every_n_train_steps", "5")],
            ends: (24, 3),
            validations: &[(0, 8), (1, 16), (2, 24)],
            epoch_losses: &[7, 15, 23],
            rate_steps: &[0, 8, 16],
            files: &["epoch=0-step=5", "epoch=1-step=10", "epoch=1-step=15", "epoch=2-step=20", "last"],
            ..plain()
        },
        Case {
            name: "checkpoints every n epochs",
            params: &[("max_epochs", "5"), ("limit_train_batches", "2")],
            checkpoint: &[ALL, ("every_n_epochs", "2")],
            ends: (10, 5),
            validations: &[(0, 2), (1, 4), (2, 6), (3, 8), (4, 10)],
            epoch_losses: &[1, 3, 5, 7, 9],
            rate_steps: &[0, 2, 4, 6, 8],
            files: &["epoch=1-step=4", "epoch=3-step=8", "last"],
            ..plain()
        },
        Case {
            name: "the highest two of a monitor",
            params: &[("max_epochs", "4"), ("limit_train_batches", "2")],
            checkpoint: &[("save_top_k", "2"), ("monitor", "step"), ("mode", "max")],
            ends: (8, 4),
            validations: &[(0, 2), (1, 4), (2, 6), (3, 8)],
            epoch_losses: &[1, 3, 5, 7],
            rate_steps: &[0, 2, 4, 6],
            files: &["epoch=2-step=6", "epoch=3-step=8", "last"],
            ..plain()
        },
        Case {
            name: "the lowest two of a monitor",
            params: &[("max_epochs", "4"), ("limit_train_batches", "2")],
            checkpoint: &[("save_top_k", "2"), ("monitor", "epoch")],
            ends: (8, 4),
            validations: &[(0, 2), (1, 4), (2, 6), (3, 8)],
            epoch_losses: &[1, 3, 5, 7],
            rate_steps: &[0, 2, 4, 6],
            files: &["epoch=0-step=2", "epoch=1-step=4", "last"],
            ..plain()
        },
        Case {
            name: "templates without names, nothing kept as last",
            params: &[("max_epochs", "2"), ("limit_train_batches", "2")],
            checkpoint: &[
                ALL,
                ("filename", "'e{epoch:03d}_s{step}_{nothing:.2f}'"),
                ("auto_insert_metric_name", "false"),
                ("save_last", "false"),
            ],
            ends: (4, 2),
            validations: &[(0, 2), (1, 4)],
            epoch_losses: &[1, 3],
            rate_steps: &[0, 2],
            files: &["e000_s2_0.00", "e001_s4_0.00"],
            ..plain()
        },
        Case {
            name: "names that are taken",
            params: &[("max_epochs", "2"), ("limit_train_batches", "2")],
            checkpoint: &[ALL],
            present: &["epoch=0-step=2", "epoch=1-step=4", "epoch=1-step=4-v1", "last"],
            ends: (4, 2),
            validations: &[(0, 2), (1, 4)],
            epoch_losses: &[1, 3],
            rate_steps: &[0, 2],
            files: &["epoch=0-step=2", "epoch=0-step=2-v1", "epoch=1-step=4", "epoch=1-step=4-v1", "epoch=1-step=4-v2", "last", "last-v1"],
            ..plain()
        },
        Case {
            name: "after validations although each epoch has one",
            params: &[("max_epochs", "2"), ("limit_train_batches", "2")],
            checkpoint: &[ALL, ("save_on_train_epoch_end", "false")],
            ends: (4, 2),
            validations: &[(0, 2), (1, 4)],
            epoch_losses: &[1, 3],
            rate_steps: &[0, 2],
            files: &["epoch=0-step=2", "epoch=1-step=4", "last"],
            ..plain()
        },
    ]
}

const EXTENSION: &str = ".safetensors";

/// What a run did.
struct Done {
    losses: Vec<f64>,
    scores: Vec<f64>,
    logged: logged::Logged,
    files: Vec<String>,
    validations: Vec<(usize, usize)>,
    ends: (usize, usize),
}

fn run(case: &Case) -> Done {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let mut overrides = vec!["epochs=6".to_owned(), "lightning.trainer.checkpoint.filename='{epoch}-{step}'".to_owned()];
    for (prefix, values) in [
        ("lightning.trainer.params", case.params),
        ("lightning.trainer.checkpoint", case.checkpoint),
        ("callbacks.early_stopping", case.stopping),
    ] {
        overrides.extend(values.iter().map(|(key, value)| format!("{prefix}.{key}={value}")));
    }
    overrides.push(format!("callbacks.learning_rate_monitor.logging_interval={}", case.rates));
    std::fs::create_dir(folder.path().join("checkpoints")).unwrap();
    for name in case.present {
        std::fs::write(folder.path().join("checkpoints").join(format!("{name}{EXTENSION}")), "another's").unwrap();
    }
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    let mut engine = engine(config(folder.path(), &overrides), Roads::new(40), events.host(|_| false));
    let report = engine.fit().unwrap();
    assert!(!report.stopped, "{}", case.name);
    for name in case.present {
        let content = std::fs::read(folder.path().join("checkpoints").join(format!("{name}{EXTENSION}"))).unwrap();
        assert_eq!(content, b"another's", "{}", case.name);
    }
    let mut done = Done {
        losses: events.losses(),
        scores: Vec::new(),
        logged: logged::read(folder.path()),
        files: checkpoints(folder.path()).iter().map(|name| name.trim_end_matches(EXTENSION).to_owned()).collect(),
        validations: Vec::new(),
        ends: (report.steps, report.epochs),
    };
    for event in events.0.lock().unwrap().iter() {
        if let Event::Validation { epoch, step, metrics } = event {
            done.validations.push((*epoch, *step));
            done.scores.push(metrics.get("loss/val_loss").unwrap());
        }
    }
    done.files.sort();
    done
}

#[test]
fn schedules_are_those_of_lightning() {
    let cases = cases();
    let done: Vec<Done> = cases.iter().map(run).collect();
    for (case, done) in cases.iter().zip(&done) {
        let name = case.name;
        assert_eq!(done.ends, case.ends, "{name}: updates and epochs");
        assert_eq!(done.validations, case.validations, "{name}: validations");
        assert_eq!(done.files, case.files, "{name}: checkpoints");
        assert_eq!(logged::steps(&done.logged, "loss/train_loss_step"), case.step_losses, "{name}: training losses");
        assert_eq!(logged::steps(&done.logged, "loss/train_loss_epoch"), case.epoch_losses, "{name}: their means");
        assert_eq!(logged::steps(&done.logged, "lr-AdamW/pg1"), case.rate_steps, "{name}: learning rates");
        assert_eq!(done.logged.get("lr-AdamW/pg1"), done.logged.get("lr-AdamW/pg2"), "{name}");
        assert_eq!(done.losses.len(), case.ends.0, "{name}: events");
    }
    let Some(python) = torch_python::find("schedules beside Lightning", "yaml, pytorch_lightning") else { return };
    let values = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| (key.to_string(), json!(value))).collect::<BTreeMap<_, _>>();
    let input: Vec<Value> = cases
        .iter()
        .zip(&done)
        .map(|(case, done)| {
            let mut params = values(&[("log_every_n_steps", "50"), ("num_sanity_val_steps", "1"), ("gradient_clip_val", "5.0")]);
            params.extend(values(case.params));
            let mut checkpoint = values(&[("monitor", "loss/val_loss"), ("save_last", "true"), ("filename", "'{epoch}-{step}'")]);
            checkpoint.extend(values(case.checkpoint));
            json!({
                "params": params, "checkpoint": checkpoint, "stopping": values(case.stopping), "rates": case.rates, "present": case.present,
                "losses": done.losses, "scores": done.scores, "train_batches": 8, "val_batches": 1,
                "lr": 2e-3, "epochs": 6, "warmup_epochs": 1,
            })
        })
        .collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lightning/schedules.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(json!(input).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let peers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(peers.len(), cases.len());
    for ((case, done), peer) in cases.iter().zip(&done).zip(&peers) {
        let name = case.name;
        assert_eq!(json!([done.ends.0, done.ends.1]), json!([peer["steps"], peer["epochs"]]), "{name}: updates and epochs");
        assert_eq!(json!(done.validations), peer["validations"], "{name}: validations");
        // Since 2.6 Lightning writes `last` at the end of a trial run as well; before, as here, a trial run left nothing.
        if name != "fast_dev_run" {
            assert_eq!(json!(done.files), peer["files"], "{name}: checkpoints");
        }
        let peer = peer["logged"].as_object().unwrap();
        for key in ["loss/train_loss_step", "lr-AdamW/pg1", "lr-AdamW/pg2", "epoch"] {
            let theirs = peer.get(key).map_or(Vec::new(), |rows| rows.as_array().unwrap().clone());
            let ours = done.logged.get(key).cloned().unwrap_or_default();
            let theirs: Vec<(u64, f32)> = theirs.iter().map(|row| (row[0].as_u64().unwrap(), row[1].as_f64().unwrap() as f32)).collect();
            assert_eq!(ours.len(), theirs.len(), "{name}: {key}: {ours:?} {theirs:?}");
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let ok = ours.0 == theirs.0 && (ours.1 - theirs.1).abs() <= 1e-6 * theirs.1.abs();
                assert!(ok, "{name}: {key}: {ours:?} {theirs:?}");
            }
        }
        // The values of epochs differ by how a mean is taken; the steps do not.
        for (ours, theirs) in [("loss/train_loss_epoch", "loss/train_loss_epoch"), ("loss/val_loss_epoch", "loss/val_loss")] {
            let theirs: Vec<u64> =
                peer.get(theirs).into_iter().flat_map(|rows| rows.as_array().unwrap()).map(|row| row[0].as_u64().unwrap()).collect();
            assert_eq!(logged::steps(&done.logged, ours), theirs, "{name}: {ours}");
        }
    }
}

#[test]
fn limits_that_do_not_go_with_the_data_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let fit = |overrides: &[&str]| engine(config(folder.path(), overrides), Roads::new(40), Host::default()).fit().unwrap_err().to_string();
    let error = fit(&["lightning.trainer.params.limit_train_batches=0.1"]);
    assert!(error.contains("limit_train_batches") && error.contains("0.125"), "the smallest share of 8 that gives one: {error}");
    let error = fit(&["lightning.trainer.params.val_check_interval=9"]);
    assert!(error.contains("val_check_interval") && error.contains('8'), "{error}");
    let error = fit(&["callbacks.early_stopping.monitor=val/nothing"]);
    assert!(error.contains("val/nothing") && error.contains("val/minFDE"), "{error}");
    for (text, part) in [
        ("lightning.trainer.params.val_check_interval=1.5", "val_check_interval"),
        ("lightning.trainer.params.check_val_every_n_epoch=null", "val_check_interval"),
        ("lightning.trainer.params.max_time='1:00'", "DD:HH:MM:SS"),
        ("lightning.trainer.checkpoint.monitor=null", "save_top_k"),
        ("lightning.trainer.params.precision=16-true", "16-mixed"),
        ("lightning.trainer.params.precision=8", "precision"),
    ] {
        let error = Config::from_text(SMALL, &[text]).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}
