//! Runs on a device, which begin steps before the reports of those before them.

use super::*;
use training_engine::{
    engine::StopHandle,
    trainer::{Trainer, state::State},
};

/// Pictures in the event files of a folder.
fn pictures(folder: &Path) -> Vec<Vec<u8>> {
    let (begin, end) = (b"\x89PNG\r\n\x1a\n", b"IEND");
    let mut found = Vec::new();
    for path in logged::files(folder) {
        let bytes = std::fs::read(path).unwrap();
        let places = |mark: &'static [u8]| bytes.windows(mark.len()).enumerate().filter(move |(_, part)| *part == mark).map(|(at, _)| at);
        found.extend(places(begin).zip(places(end)).map(|(from, to)| bytes[from..to].to_vec()));
    }
    found
}

/// What a run leaves: events, buffers, state, the tensors of the last checkpoint, pictures.
type Left = (Vec<Event>, [Vec<f64>; 4], State, Vec<u8>, Vec<Vec<u8>>);

/// What the host is told of a run with gathered batches, validations within an epoch, checkpoints amid them and a last step, and what it
/// leaves, with its pictures; `alone`: each step and each batch of a validation ends before the next begins.
fn watched(folder: &Path, alone: bool) -> Left {
    let overrides = [
        "epochs=2",
        "lightning.trainer.params.limit_train_batches=5",
        "lightning.trainer.params.accumulate_grad_batches=2",
        "lightning.trainer.params.val_check_interval=3",
        "lightning.trainer.params.limit_val_batches=3",
        "data_loader.params.batch_size=1",
        "logger.images=2",
        "lightning.trainer.params.num_sanity_val_steps=0",
        "lightning.trainer.params.max_steps=5",
        "lightning.trainer.checkpoint.every_n_train_steps=2",
        "model.dim=8",
        "model.num_heads=1",
    ];
    let config = config(folder, &overrides);
    let (mut module, data) = module_on(device::late(), Multiply::Tf32, &config);
    if alone {
        module.session_mut().profile();
    }
    assert_eq!(module.session().lag(), if alone { 0 } else { 2 });
    // With larger weights, what is planned differs from scenario to scenario.
    let weights: Vec<f64> = module.session().read(Buffer::Parameters).unwrap().iter().map(|w| 3.0 * w).collect();
    module.session_mut().write(Buffer::Parameters, &weights).unwrap();
    let events = Events::default();
    let mut trainer = Trainer::new(&config, events.host(|_| false), StopHandle::default()).unwrap();
    let report = trainer.fit(&mut module, &data).unwrap();
    let session = module.session();
    if let Some(trace) = session.trace() {
        trace.end_steps();
        assert_eq!(session.lag(), 2, "once no step is timed any more");
    }
    let buffers = [Buffer::Parameters, Buffer::FirstMoments, Buffer::SecondMoments, Buffer::Statistics].map(|b| session.read(b).unwrap());
    let state = State { run: String::new(), seconds: 0.0, hooks: Default::default(), ..trainer.state().clone() };
    let weights = std::fs::read(&report.last_checkpoint).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let mut names = tensors.names();
    names.sort();
    let bytes = names.iter().flat_map(|name| tensors.tensor(name).unwrap().data().to_vec()).collect();
    let events = events.0.lock().unwrap().clone();
    (events, buffers, state, bytes, pictures(folder))
}

#[test]
fn steps_under_way_change_nothing_of_a_run() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [together, alone] = [(&folders[0], false), (&folders[1], true)].map(|(folder, alone)| watched(folder.path(), alone));
    let told = |events: &[Event], folder: &Path| format!("{events:?}").replace(&folder.display().to_string(), "");
    assert_eq!(told(&together.0, folders[0].path()), told(&alone.0, folders[1].path()));
    assert!(together.1 == alone.1, "buffers");
    assert_eq!(together.2, alone.2);
    assert!(together.3 == alone.3, "the last checkpoint");
    assert_eq!(together.4.len(), 4, "two in each validation");
    assert!(together.4 == alone.4, "pictures");
    assert_eq!(together.2.step, 5);
    let saved = together.0.iter().filter(|event| matches!(event, Event::Checkpoint { .. })).count();
    assert!(saved >= 2, "{saved}");
}
