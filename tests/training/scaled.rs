//! Runs in `16-mixed`: steps whose gradient overflows, and going on amid them.

use super::*;
use training_engine::{
    engine::StopHandle,
    trainer::{FitReport, Trainer, module::ModuleState, session::LossScale, state::State},
};

/// As large as overflows at first, and soon again as it grows.
const START: LossScale = LossScale { scale: 262_144.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2, growth_tracker: 0 };

/// What a run left.
struct Ended {
    report: FitReport,
    state: State,
    module: ModuleState,
    scale: LossScale,
    buffers: [Vec<f64>; 4],
}

/// Two epochs of four steps, or what is left of them in the folder.
fn run(folder: &Path, host: Host, more: &[&str]) -> Ended {
    let overrides = [
        "precision=16-mixed",
        "epochs=2",
        "lightning.trainer.params.limit_train_batches=4",
        "checkpoint=last",
        // One that has its fault in the step itself would end the run.
        "max_nonfinite_steps=1",
        "model.dim=8",
        "model.num_heads=1",
        "lightning.trainer.params.limit_val_batches=0",
        "lightning.trainer.checkpoint.monitor=null",
        "lightning.trainer.checkpoint.save_top_k=0",
        "lightning.trainer.params.num_sanity_val_steps=0",
    ];
    let config = config(folder, &[&overrides, more].concat());
    let (mut module, data) = module_on(device::open(), Multiply::F16, &config);
    module.session_mut().set_loss_scale(&START).unwrap();
    let mut trainer = Trainer::new(&config, host, StopHandle::default()).unwrap();
    trainer.resume(&mut module).unwrap();
    let report = trainer.fit(&mut module, &data).unwrap();
    let session = module.session();
    let buffers = [Buffer::Parameters, Buffer::FirstMoments, Buffer::SecondMoments, Buffer::Statistics].map(|b| session.read(b).unwrap());
    Ended { report, state: trainer.state().clone(), module: module.state(), scale: session.loss_scale().unwrap().unwrap(), buffers }
}

#[test]
fn steps_that_overflow_are_skipped_and_a_run_goes_on_amid_them() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let events = Events::default();
    let expected = run(whole.path(), events.host(|_| false), &[]);
    let applied: Vec<bool> = (events.0.lock().unwrap().iter())
        .filter_map(|event| match event {
            Event::Step { .. } => Some(true),
            Event::StepSkipped { .. } => Some(false),
            _ => None,
        })
        .collect();
    println!("steps applied: {applied:?}, {:?}", expected.scale);
    let (skipped, mut scale) = (applied.iter().filter(|applied| !**applied).count(), START);
    for &applied in &applied {
        scale.growth_tracker = if applied { scale.growth_tracker + 1 } else { 0 };
        if !applied || scale.growth_tracker == 2 {
            scale = LossScale { scale: scale.scale * if applied { 2.0 } else { 0.5 }, growth_tracker: 0, ..scale };
        }
    }
    assert!(skipped >= 2 && skipped < applied.len() && scale == expected.scale, "{scale:?}");
    // As in Lightning, a step that was skipped is a step; the optimiser does not know of it, the schedule does.
    assert_eq!((applied.len(), expected.report.steps, expected.report.skipped_steps), (8, 8, skipped));
    assert_eq!((expected.state.step, expected.module), (8, ModuleState { updates: (8 - skipped) as u64, schedule: 2 }));
    assert!(expected.buffers.iter().flatten().all(|x| x.is_finite()));

    let first = run(parts.path(), Events::default().host(|event| matches!(event, Event::Step { step, .. } if *step >= 3)), &[]);
    assert!(first.report.stopped && first.report.skipped_steps > 0);
    let second = run(parts.path(), Host::default(), &[]);
    assert!(!second.report.stopped && second.buffers == expected.buffers);
    assert_eq!((second.scale, second.module, second.state.step), (expected.scale, expected.module, expected.state.step));

    let folder = tempfile::tempdir().unwrap();
    let every = ["lightning.trainer.checkpoint.every_n_train_steps=1", "lightning.trainer.checkpoint.save_top_k=-1"];
    assert_eq!(run(folder.path(), Host::default(), &every).report.skipped_steps, skipped);
    assert_eq!(checkpoints(folder.path()).len(), 8 + 1, "one for each step, those that were skipped too, and the last");
}
