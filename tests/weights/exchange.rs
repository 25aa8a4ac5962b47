//! With the real PyTorch and the real Lightning.

use super::*;
use training_engine::{
    engine::{LoadOptions, SaveOptions},
    trainer::weights,
};

#[test]
fn a_ckpt_written_here_works_in_pytorch() {
    let Some(python) = torch_python::find("a .ckpt in PyTorch", "torch, safetensors") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (case, file) = (case(), case_file(folder.path()));
    for overrides in [&["seed=3"][..], &["seed=4", "precision=64"]] {
        let engine = engine(folder.path(), overrides);
        let (ckpt, out) = (folder.path().join("weights.ckpt"), folder.path().join("out.safetensors"));
        engine.save_weights(&ckpt, &SaveOptions::default()).unwrap();
        torch_python::run(&python, "weights/exchange.py", &["read", ckpt.to_str().unwrap(), file.to_str().unwrap(), out.to_str().unwrap()]);
        let worst = difference(&case, engine.model().session(), &out);
        println!("written here, read by PyTorch, {overrides:?}: outputs differ by {worst:.1e}");
        assert!(worst <= 1e-5, "{worst}");
    }
}

#[test]
fn a_ckpt_written_here_is_gone_on_with_in_lightning() {
    let Some(python) = torch_python::find("a .ckpt in Lightning", "torch, safetensors, pytorch_lightning") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (case, file) = (case(), case_file(folder.path()));
    let (session, state) = trained(&case);
    let (ckpt, out) = (folder.path().join("run.ckpt"), folder.path().join("out.safetensors"));
    for optimizer in [false, true] {
        let options = SaveOptions { optimizer, ..SaveOptions::default() };
        weights::save(&ckpt, &session, &config(folder.path(), &[]), &state, &options).unwrap();
        let arguments = ["lightning", ckpt.to_str().unwrap(), file.to_str().unwrap(), out.to_str().unwrap()];
        torch_python::run(&python, "weights/exchange.py", &arguments);
        assert!(difference(&case, &session, &out) <= 1e-5);
    }
}

#[test]
fn files_of_pytorch_and_lightning_are_read() {
    let Some(python) = torch_python::find("files of PyTorch", "torch, safetensors, pytorch_lightning") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (case, file) = (case(), case_file(folder.path()));
    let answer = torch_python::run(&python, "weights/exchange.py", &["write", file.to_str().unwrap(), folder.path().to_str().unwrap()]);
    let answer: serde_json::Value = serde_json::from_str(answer.trim().lines().last().unwrap()).unwrap();
    let reference = folder.path().join("outputs.safetensors");
    for name in ["plain.pt", "legacy.pt", "ordered.pt", "parameters.pt", "transposed.pt", "views.pt", "prefixed.pt"] {
        let mut engine = engine(folder.path(), &[]);
        let strip_prefix = (name == "prefixed.pt").then(|| "backbone.".to_owned());
        let options = LoadOptions { strip_prefix, ..LoadOptions::default() };
        let report = engine.load_weights(&folder.path().join(name), &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(report.missing.is_empty() && report.extra.is_empty(), "{name}: {report:?}");
        let worst = difference(&case, engine.model().session(), &reference);
        println!("{name}: outputs differ by {worst:.1e}");
        assert!(worst <= 1e-5, "{name}: {worst}");
    }

    // A run of Lightning is gone on with: weights, statistics, moments, position.
    let ckpt = folder.path().join(answer["file"].as_str().unwrap());
    let engine = engine(folder.path(), &[&format!("checkpoint={}", ckpt.display())]);
    let state = engine.trainer().state();
    assert_eq!((state.epochs() as u64, state.step), (answer["epochs"].as_u64().unwrap(), answer["step"].as_u64().unwrap()));
    let expected = arrays(&folder.path().join("lightning.safetensors"));
    let [parameters, statistics, first, second] = buffers(&engine);
    for p in engine.model().session().parameters().iter() {
        let ours = if p.statistic { &statistics } else { &parameters };
        assert!(ours[p.range()] == expected[&p.name], "{}", p.name);
        if !p.statistic {
            assert!(first[p.range()] == expected[&format!("optimizer.exp_avg.{}", p.name)], "first moment of {}", p.name);
            assert!(second[p.range()] == expected[&format!("optimizer.exp_avg_sq.{}", p.name)], "second moment of {}", p.name);
        }
    }
}
