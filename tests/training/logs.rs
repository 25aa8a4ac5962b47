//! TensorBoard's own reader finds what was logged.

use super::*;
use std::{path::PathBuf, process::Command};

/// A Python with the package `tensorboard`: `TE_PYTHON`, or that of `.venv`.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("TE_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"));
    let ready = Command::new(&python).args(["-c", "import tensorboard"]).output().is_ok_and(|output| output.status.success());
    ready.then_some(python)
}

pub const READER: &str = "
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})
events.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()['scalars']}))
";

#[test]
fn tensorboard_reads_what_was_logged() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with tensorboard (set TE_PYTHON, or make .venv)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let events = Events::default();
    let overrides = ["epochs=2", "lightning.trainer.params.log_every_n_steps=3"];
    let mut engine = engine(config(folder.path(), &overrides), Roads::new(30), events.host(|_| false));
    let report = engine.fit().unwrap();
    let output = Command::new(python).args(["-c", READER]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (name, value) in &report.metrics.0 {
        let name = if name.starts_with("loss/") { &format!("{name}_epoch") } else { name };
        let rows = read[name].as_array().unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(rows.len(), 2, "{name}");
        assert_eq!(rows[1][0], 11, "{name}");
        assert_eq!(rows[1][1].as_f64().unwrap() as f32, *value as f32, "{name}");
    }
    let steps: Vec<_> = read["loss/train_loss_step"].as_array().unwrap().iter().map(|row| row[0].as_u64().unwrap()).collect();
    // Updates are counted from 0.
    assert_eq!(steps, [2, 5, 8, 11]);
    let losses = events.losses();
    assert_eq!(read["loss/train_loss_step"][1][1].as_f64().unwrap() as f32, losses[5] as f32);
    assert_eq!(read["lr-AdamW/pg1"].as_array().unwrap().len(), 2);
    assert_eq!(read["lr-AdamW/pg1"][0][1].as_f64().unwrap() as f32, 2e-3_f32);
}

#[test]
fn nothing_is_written_where_logging_is_off() {
    let folder = tempfile::tempdir().unwrap();
    let overrides = [
        "epochs=1",
        "logger.tensorboard=false",
        "lightning.trainer.checkpoint.save_top_k=0",
        "lightning.trainer.checkpoint.save_last=false",
    ];
    engine(config(folder.path(), &overrides), Roads::new(30), Host::default()).fit().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
