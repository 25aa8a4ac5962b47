//! The readers that people use find what was logged: TensorBoard's, pandas, the records of Weights & Biases.

use super::*;
use serde_json::Value;
use std::{path::PathBuf, process::Command};

pub const ALL: [&str; 7] = [
    "epochs=2",
    "lightning.trainer.params.log_every_n_steps=1",
    "logger.csv=true",
    "logger.images=2",
    "wandb.mode=offline",
    "wandb.project=plans",
    "wandb.log_model=all",
];

/// A Python with all readers: `TE_PYTHON`, or that of `.venv`.
pub fn python() -> Option<PathBuf> {
    let python = logs::python()?;
    let ready = Command::new(&python).args(["-c", "import pandas, wandb"]).output().is_ok_and(|output| output.status.success());
    ready.then_some(python)
}

/// What the readers find, where their Python is there (`TE_PYTHON`).
pub fn read(folder: &Path) -> Option<Value> {
    let python = python()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training/readers.py");
    let output = Command::new(python).arg(script).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn every_reader_finds_what_was_logged() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let mut engine = engine(config(folder.path(), &ALL), Roads::new(30), events.host(|_| false));
    engine.fit().unwrap();
    let Some(read) = read(folder.path()) else {
        eprintln!("skipped: no Python with tensorboard, pandas and wandb (set TE_PYTHON)");
        return;
    };
    let board = &read["tensorboard"];
    let losses = events.losses();
    let scalars: Vec<f32> =
        board["scalars"]["loss/train_loss_step"].as_array().unwrap().iter().map(|row| row[1].as_f64().unwrap() as f32).collect();
    assert_eq!(scalars, losses.iter().map(|loss| *loss as f32).collect::<Vec<_>>());
    assert_eq!(board["hparams"]["lr"], 2e-3);
    assert_eq!(board["hparams"]["wandb.project"], "plans");
    assert_eq!(board["status"], 1);
    assert_eq!(board["scalars"]["hp_metric"][0][1], -1.0);
    for name in ["val_visualization_0", "val_visualization_1"] {
        let images = board["images"][name].as_array().unwrap();
        assert_eq!(images.len(), 2, "{name}");
        assert_eq!(images[0][3], "89504e470d0a1a0a", "{name}");
        // What is planned has changed in between.
        assert_ne!(images[0][4], images[1][4], "{name}");
    }
    let column = |rows: &Value, name: &str| -> Vec<f64> { rows.as_array().unwrap().iter().filter_map(|row| row[name].as_f64()).collect() };
    assert_eq!(column(&read["table"], "loss/train_loss_step"), losses);
    let run = &read["wandb"][0];
    assert_eq!(read["wandb"].as_array().unwrap().len(), 1);
    assert_eq!((&run["project"], &run["exit"]), (&"plans".into(), &0.into()));
    assert!(!run["slot"].as_str().unwrap().is_empty());
    assert_eq!(run["config"]["lr"], 2e-3);
    assert_eq!(column(&run["history"], "loss/train_loss_step"), losses);
    let kinds: Vec<&str> = run["kinds"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!((&kinds[..2], kinds.last()), (&["header", "run"][..], Some(&"exit")));
    assert!(kinds.contains(&"artifact") && kinds.contains(&"files"));
}

#[test]
fn the_table_of_a_run_that_was_stopped_and_gone_on_with_is_that_of_the_whole_run() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let table = |folder: &Path| std::fs::read_to_string(folder.join("metrics.csv")).unwrap();
    engine(config(whole.path(), &ALL), Roads::new(30), Host::default()).fit().unwrap();
    let stop = |event: &Event| matches!(event, Event::Step { step: 4, .. });
    let report = engine(config(parts.path(), &ALL), Roads::new(30), Events::default().host(stop)).fit().unwrap();
    assert!(report.stopped);
    assert!(table(parts.path()).lines().count() < table(whole.path()).lines().count());
    let overrides: Vec<&str> = ALL.iter().copied().chain(["checkpoint=last"]).collect();
    engine(config(parts.path(), &overrides), Roads::new(30), Host::default()).fit().unwrap();
    assert_eq!(table(parts.path()), table(whole.path()));
}

#[test]
fn a_branch_of_a_run_leaves_the_table_of_the_first() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let csv = ["epochs=3", "logger.csv=true", "logger.tensorboard=false", "lightning.trainer.checkpoint.filename='{epoch}'"];
    let fit = |folder: &Path, more: &[&str]| {
        let overrides = [&csv, more].concat();
        engine(
            config(folder, &[&overrides[..], &["lightning.trainer.checkpoint.save_top_k=-1"]].concat()),
            Roads::new(30),
            Host::default(),
        )
        .fit()
        .unwrap();
        std::fs::read_to_string(folder.join("metrics.csv")).unwrap()
    };
    let first = fit(folder.path(), &[]);
    let from = format!("checkpoint={}", folder.path().join("checkpoints/epoch=0.safetensors").display());
    let branch = fit(folder.path(), &[&from, "epochs=2"]);
    assert!(branch.lines().count() < first.lines().count() && first.lines().zip(branch.lines()).take(3).all(|(a, b)| a == b), "{branch}");
    assert_eq!(std::fs::read_to_string(folder.path().join("metrics-v1.csv")).unwrap(), first);
    // What lies in the folder of a run from elsewhere has nothing to do with it.
    std::fs::write(elsewhere.path().join("metrics.csv"), &first).unwrap();
    let other = fit(elsewhere.path(), &[&from, "epochs=2"]);
    assert!(other.lines().count() < branch.lines().count(), "{other}");
    assert_eq!(std::fs::read_to_string(elsewhere.path().join("metrics-v1.csv")).unwrap(), first);
}

#[test]
fn a_table_is_cut_only_where_it_is_what_the_run_has_written() {
    let folders = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [whole, first, second, silent] = folders.each_ref().map(|folder| folder.path());
    let fit = |folder: &Path, more: &[&str]| {
        let overrides = [&["logger.csv=true", "logger.tensorboard=false"], more].concat();
        engine(config(folder, &overrides), Roads::new(30), Host::default()).fit().unwrap();
    };
    let text = |folder: &Path, name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let lines = |folder: &Path| text(folder, "metrics.csv").lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    fit(whole, &["epochs=3"]);
    let expected = lines(whole);
    let rows = expected.len() / 3;

    // The folder of checkpoints stays and the other changes; the table is wanted from the second part on.
    let fixed = format!("lightning.trainer.checkpoint.dirpath={}", first.join("checkpoints").display());
    fit(first, &["epochs=1", &fixed]);
    fit(silent, &["epochs=1", "logger.csv=false"]);
    let foreign = format!("step\n{}", "7\n".repeat(5 * rows));
    for (folder, options) in [(second, &["checkpoint=last", &fixed][..]), (silent, &["checkpoint=last"])] {
        std::fs::write(folder.join("metrics.csv"), &foreign).unwrap();
        fit(folder, &[options, &["epochs=2"]].concat());
        assert_eq!(text(folder, "metrics-v1.csv"), foreign);
        assert_eq!(lines(folder), expected[rows..2 * rows]);
        // What a process logs after its last checkpoint, before it is killed.
        let more = format!("{}{}\n", text(folder, "metrics.csv"), expected[0]);
        std::fs::write(folder.join("metrics.csv"), more).unwrap();
        fit(folder, &[options, &["epochs=3"]].concat());
        assert_eq!(lines(folder), expected[rows..]);
    }

    // Both are moved.
    let moved = silent.join("moved");
    std::fs::rename(whole, &moved).unwrap();
    fit(&moved, &["checkpoint=last", "epochs=4"]);
    assert!(lines(&moved).len() == 4 * rows && lines(&moved).starts_with(&expected) && !moved.join("metrics-v1.csv").exists());
}
