//! Files of weights: those of PyTorch and Lightning are read, and what is written here works there.

#[path = "../device/mod.rs"]
mod device;
#[path = "../golden_case/mod.rs"]
mod golden_case;
#[path = "../torch_python/mod.rs"]
mod torch_python;

mod exchange;
mod freeze;
mod golden;
mod options;
mod scaled;

use golden_case::Case;
use safetensors::SafeTensors;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use training_engine::{
    config::Config,
    data::{Batch, collate},
    engine::{Engine, Host},
    features::Features,
    graph::Scalar,
    trainer::{
        module::ModuleState,
        session::{Buffer, Outputs, Session},
        state::State,
    },
};

/// The golden case whose batch and configuration all tests use.
fn case() -> Case {
    Case::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/small.safetensors.gz"))
}

/// A compressed file of `tests/data`, as it was before.
fn unpacked(name: &str, folder: &Path) -> PathBuf {
    let packed = std::fs::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap();
    let path = folder.join(Path::new(name).file_stem().unwrap());
    std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut std::fs::File::create(&path).unwrap()).unwrap();
    path
}

/// The case as a plain file, which Python reads.
fn case_file(folder: &Path) -> PathBuf {
    unpacked("golden/small.safetensors.gz", folder)
}

/// Arrays of a file by name, as numbers.
fn arrays(path: &Path) -> BTreeMap<String, Vec<f64>> {
    let content = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&content).unwrap();
    let numbers = |view: safetensors::tensor::TensorView| match view.dtype() {
        safetensors::Dtype::F64 => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        safetensors::Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
        other => panic!("{other:?}"),
    };
    file.iter().map(|(name, view)| (name.to_owned(), numbers(view))).collect()
}

/// An engine with the case's network and without data.
fn engine(folder: &Path, overrides: &[&str]) -> Engine {
    Engine::build(config(folder, overrides), None, Host::default()).unwrap()
}

fn config(folder: &Path, overrides: &[&str]) -> Config {
    let text = "{threads: 1, model: {dim: 32, encoder_depth: 1, decoder_depth: 1, num_modes: 6}}";
    let folder = format!("output_dir={}", folder.display());
    Config::from_text(text, &[&[folder.as_str()], overrides].concat()).unwrap()
}

/// The case's batch for a session.
fn batch(case: &Case, session: &Session) -> Batch {
    let features = case.features();
    collate(&features.iter().collect::<Vec<&Features>>(), &[], &session.batch_options(false)).unwrap()
}

/// Outputs of the network with the weights of a session, in double precision.
fn outputs(case: &Case, trained: &Session) -> (Batch, Outputs) {
    let mut session = Session::new(&case.model, &case.objectives, Scalar::F64, 1, 0).unwrap();
    for buffer in [Buffer::Parameters, Buffer::Statistics] {
        session.write(buffer, &trained.read(buffer).unwrap()).unwrap();
    }
    let batch = batch(case, &session);
    let outputs = session.predict(&batch).unwrap();
    (batch, outputs)
}

/// Largest difference of the session's outputs to those of the reference, relative to the largest output; rows that are padding
/// there do not exist here.
fn difference(case: &Case, session: &Session, reference: &Path) -> f64 {
    let theirs = arrays(reference);
    let (batch, ours) = outputs(case, session);
    let lines = theirs["probability"].len() / (batch.len() * ours.modes);
    let mut worst: f64 = 0.0;
    for (name, ours, width) in [("probability", &ours.logits, ours.modes), ("trajectory", &ours.trajectory, ours.modes * ours.steps * 6)] {
        let theirs = &theirs[name];
        let rows = batch.lines.iter().enumerate().flat_map(|(s, range)| range.clone().map(move |line| (s, line)));
        let kept: Vec<f64> = rows.flat_map(|(s, line)| &theirs[(s * lines + batch.line_rows[line]) * width..][..width]).copied().collect();
        assert_eq!(kept.len(), ours.len());
        let scale = kept.iter().fold(1e-3, |most: f64, x| most.max(x.abs()));
        worst = kept.iter().zip(ours).fold(worst, |worst, (a, b)| worst.max((a - b).abs() / scale));
    }
    worst
}

/// A session with moments, as after three epochs of five batches, and how far its run is.
fn trained(case: &Case) -> (Session, State) {
    let mut session = Session::new(&case.model, &case.objectives, Scalar::F32, 1, 5).unwrap();
    let count = session.parameters().len();
    let numbers = |scale: f64| (0..count).map(|i| scale * f64::from((i % 97) as u32 + 1)).collect::<Vec<f64>>();
    session.write(Buffer::FirstMoments, &numbers(1e-4)).unwrap();
    session.write(Buffer::SecondMoments, &numbers(1e-6)).unwrap();
    let state = State {
        epoch: 2,
        batch: 5,
        epoch_ended: true,
        batches: 15,
        step: 15,
        stepped: 15,
        module: ModuleState { updates: 15, schedule: 3 },
        ..State::default()
    };
    (session, state)
}

/// Everything that the engine has learnt.
fn buffers(engine: &Engine) -> [Vec<f64>; 4] {
    [Buffer::Parameters, Buffer::Statistics, Buffer::FirstMoments, Buffer::SecondMoments].map(|b| engine.model().session().read(b).unwrap())
}
