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

/// What a run leaves: events, buffers, state, the tensors of each checkpoint as it is written, pictures.
type Left = (Vec<Event>, [Vec<f64>; 4], State, Vec<Vec<u8>>, Vec<Vec<u8>>);

/// What all runs here have in common.
const COMMON: [&str; 6] = [
    "lightning.trainer.params.accumulate_grad_batches=2",
    "data_loader.params.batch_size=1",
    "lightning.trainer.params.num_sanity_val_steps=0",
    "lightning.trainer.checkpoint.every_n_train_steps=2",
    "model.dim=8",
    "model.num_heads=1",
];

/// What the host is told of a run, and what it leaves; `alone`: each step and each batch of a validation ends before the next begins.
/// The training batch `missing` of the first epoch, from 0, has no usable scenario.
fn watched(folder: &Path, overrides: &[&str], missing: Option<usize>, alone: bool) -> Left {
    let config = config(folder, &[&COMMON, overrides].concat());
    let (mut module, mut data) = module_on(device::late(), Multiply::Tf32, &config);
    if let Some(missing) = missing {
        let mut pass = data.training_pass(0, missing, &StopHandle::default()).unwrap();
        let token = pass.next().unwrap().unwrap().batch.unwrap().tokens.remove(0);
        let mut source = Roads::new(30);
        source.failing.insert(token["scenario ".len()..].parse().unwrap());
        data = DataModule::new(&config, Some(Arc::new(source)), module.session().batch_options(false)).unwrap();
    }
    if alone {
        module.session_mut().profile();
    }
    assert_eq!(module.session().lag(), if alone { 0 } else { 2 });
    // With larger weights, what is planned differs from scenario to scenario.
    let weights: Vec<f64> = module.session().read(Buffer::Parameters).unwrap().iter().map(|w| 3.0 * w).collect();
    module.session_mut().write(Buffer::Parameters, &weights).unwrap();
    let (events, saved) = (Events::default(), Arc::new(Mutex::new(Vec::new())));
    let written = Arc::clone(&saved);
    let host = events.host(move |event| {
        if let Event::Checkpoint { path } = event {
            written.lock().unwrap().push(tensors(Path::new(path)));
        }
        false
    });
    let mut trainer = Trainer::new(&config, host, StopHandle::default()).unwrap();
    trainer.fit(&mut module, &data).unwrap();
    let session = module.session();
    if let Some(trace) = session.trace() {
        trace.end_steps();
        assert_eq!(session.lag(), 2, "once no step is timed any more");
    }
    let buffers = [Buffer::Parameters, Buffer::FirstMoments, Buffer::SecondMoments, Buffer::Statistics].map(|b| session.read(b).unwrap());
    let state = State { run: String::new(), seconds: 0.0, hooks: Default::default(), ..trainer.state().clone() };
    let (events, saved) = (events.0.lock().unwrap().clone(), saved.lock().unwrap().clone());
    (events, buffers, state, saved, pictures(folder))
}

/// The tensors of a checkpoint, by name.
fn tensors(path: &Path) -> Vec<u8> {
    let content = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&content).unwrap();
    let mut names = tensors.names();
    names.sort();
    names.iter().flat_map(|name| tensors.tensor(name).unwrap().data().to_vec()).collect()
}

/// A run with steps under way and the same run without, which leave the same.
fn watched_both(overrides: &[&str], missing: Option<usize>) -> Left {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [together, alone] =
        [(&folders[0], false), (&folders[1], true)].map(|(folder, alone)| watched(folder.path(), overrides, missing, alone));
    let told = |events: &[Event], folder: &Path| {
        // Of scenarios that are left out is told when they are loaded.
        let events: Vec<_> = events.iter().filter(|event| !matches!(event, Event::ScenarioSkipped { .. })).collect();
        format!("{events:?}").replace(&folder.display().to_string(), "")
    };
    assert_eq!(told(&together.0, folders[0].path()), told(&alone.0, folders[1].path()));
    assert!(together.1 == alone.1, "buffers");
    assert_eq!(together.2, alone.2);
    assert_eq!(together.3.len(), alone.3.len());
    assert!(together.3 == alone.3, "checkpoints");
    assert!(together.4 == alone.4, "pictures");
    together
}

/// With gathered batches, validations within an epoch, checkpoints amid them and a last step.
#[test]
fn steps_under_way_change_nothing_of_a_run() {
    let overrides = [
        "epochs=2",
        "lightning.trainer.params.limit_train_batches=5",
        "lightning.trainer.params.val_check_interval=3",
        "lightning.trainer.params.limit_val_batches=3",
        "logger.images=2",
        "lightning.trainer.params.max_steps=5",
    ];
    let left = watched_both(&overrides, None);
    assert_eq!((left.4.len(), left.2.step), (4, 5), "two pictures in each validation");
    assert!(left.3.len() >= 2, "{}", left.3.len());
}

/// A checkpoint is due after an update that falls on a batch without a usable scenario.
#[test]
fn an_update_without_a_batch_is_saved_before_the_next_is_begun() {
    let overrides = ["epochs=1", "lightning.trainer.params.limit_train_batches=7", "lightning.trainer.params.limit_val_batches=0"];
    let left = watched_both(&overrides, Some(3));
    let steps: Vec<usize> =
        left.0.iter().filter_map(|event| if let Event::Step { step, .. } = event { Some(*step) } else { None }).collect();
    assert_eq!((steps, left.2.step), (vec![1, 2, 3, 4], 4));
}
