//! The scale of the loss in checkpoints, ours and Lightning's.

use super::*;
use training_engine::{
    backend::cuda::{self, Multiply},
    engine::{SaveOptions, StopHandle},
    trainer::{Trainer, TrainingModule, checkpoint, session::LossScale, weights},
};

const SCALE: LossScale = LossScale { scale: 4096.0, growth_factor: 2.0, backoff_factor: 0.25, growth_interval: 7, growth_tracker: 5 };

/// A network in half precision.
fn session(case: &Case) -> Session {
    let open = |parameters, statistics| cuda::with_device(device::open(), Multiply::F16, parameters, statistics);
    Session::with_backend(&case.model, &case.objectives, 5, open).unwrap()
}

/// Such a network with state.
fn scaled(case: &Case) -> (Session, State) {
    let (mut session, (other, state)) = (session(case), trained(case));
    for buffer in [Buffer::Parameters, Buffer::Statistics, Buffer::FirstMoments, Buffer::SecondMoments] {
        session.write(buffer, &other.read(buffer).unwrap()).unwrap();
    }
    session.set_loss_scale(&SCALE).unwrap();
    // Two of the steps were skipped.
    let module = ModuleState { updates: 13, ..state.module };
    (session, State { module, ..state })
}

/// A run that goes on from a file.
fn resumed(case: &Case, folder: &Path, file: &Path) -> (Trainer, TrainingModule) {
    let config = config(folder, &["precision=16-mixed", &format!("checkpoint={}", file.display())]);
    let mut trainer = Trainer::new(&config, Host::default(), StopHandle::default()).unwrap();
    let mut module = TrainingModule::new(session(case), &config);
    trainer.resume(&mut module).unwrap();
    (trainer, module)
}

#[test]
fn checkpoints_keep_the_scale_of_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (case, path) = (case(), folder.path().join("run.safetensors"));
    let (session, state) = scaled(&case);
    checkpoint::save(&path, &session, &config(folder.path(), &["precision=16-mixed"]).to_text(), &state).unwrap();
    let (trainer, module) = resumed(&case, folder.path(), &path);
    assert_eq!(module.session().loss_scale().unwrap(), Some(SCALE));
    assert_eq!((trainer.state().step, module.state()), (15, state.module));

    // A gathered gradient may not be finite: its update is skipped.
    let mut gathered = scaled(&case).0;
    gathered.write_part(Buffer::Gradients, 0, &[f64::INFINITY]).unwrap();
    let (of_gathered, state) = (folder.path().join("gathered.safetensors"), State { gathered: 1, ..state });
    checkpoint::save(&of_gathered, &gathered, &config(folder.path(), &["precision=16-mixed"]).to_text(), &state).unwrap();
    let (_, module) = resumed(&case, folder.path(), &of_gathered);
    assert_eq!(module.session().read(Buffer::Gradients).unwrap()[0], f64::INFINITY);

    // A file whose scale is none changes nothing.
    let text = std::fs::read(&path).unwrap();
    let at = text.windows(6).position(|part| part == b"4096.0").unwrap();
    let mut other = self::session(&case);
    let before = (other.read(Buffer::Parameters).unwrap(), other.loss_scale().unwrap());
    let broken = [&text[..at], b"-496.0", &text[at + 6..]].concat();
    let error = checkpoint::restore(&weights::File::new("broken".into(), broken), &mut other).unwrap_err().to_string();
    assert!(error.contains("MixedPrecision"), "{error}");
    assert!((other.read(Buffer::Parameters).unwrap(), other.loss_scale().unwrap()) == before);
}

#[test]
fn lightning_checkpoints_keep_the_scale_of_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (case, path) = (case(), folder.path().join("run.ckpt"));
    let (session, state) = scaled(&case);
    let options = SaveOptions { optimizer: true, ..SaveOptions::default() };
    weights::save(&path, &session, &config(folder.path(), &[]), &state, &options).unwrap();
    let (trainer, module) = resumed(&case, folder.path(), &path);
    assert_eq!(module.session().loss_scale().unwrap(), Some(SCALE));
    assert_eq!((trainer.state().step, module.state().updates), (15, 13));

    let Some(python) = torch_python::find("16-mixed in Lightning", "torch, safetensors, pytorch_lightning") else { return };
    let arguments = ["scaled", path.to_str().unwrap(), folder.path().to_str().unwrap()];
    let answer = torch_python::run(&python, "weights/exchange.py", &arguments);
    let answer: serde_json::Value = serde_json::from_str(answer.trim().lines().last().unwrap()).unwrap();
    println!("{answer}");
    let theirs: LossScale = serde_json::from_value(answer["scaler"].clone()).unwrap();
    assert_eq!(theirs, LossScale { scale: 1024.0, growth_tracker: 2, ..SCALE }, "one step that overflows, then two");
    let count = |key: &str| answer[key].as_u64().unwrap();
    assert_eq!((count("step"), count("updates")), (18, 15));
    let (trainer, module) = resumed(&case, folder.path(), &folder.path().join("scaled.ckpt"));
    assert_eq!(module.session().loss_scale().unwrap(), Some(theirs));
    assert_eq!((trainer.state().step, module.state().updates), (18, 15));
}
