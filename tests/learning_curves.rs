//! The engine and PyTorch, trained from the same weights on the same batches of recorded scenarios: the same loss at every step.
//!
//! Needs `TE_SHARED` (recorded scenarios) and a Python with PyTorch. `TE_LEARNING_CURVES=full` takes the published network and batches
//! of 8 (hours on two cores) instead of a reduced one.

mod common;
mod torch_python;

use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};
use training_engine::{
    config::Config,
    data::collate,
    engine::build_model,
    features::{FeatureBuilder, Features},
    trainer::{
        TrainingModule,
        session::{Buffer, Session},
    },
};

const EPOCHS: usize = 10;
const STEPS_PER_EPOCH: usize = 20;
const STEPS: usize = EPOCHS * STEPS_PER_EPOCH;
/// Largest relative difference of a step's loss in double precision.
const DOUBLE: f64 = 1e-6;
/// In single precision, of the mean over ten steps.
const SINGLE: f64 = 0.01;
const SMOOTHING: usize = 10;

const REDUCED: &str = "model: {dim: 32, encoder_depth: 1, decoder_depth: 1, num_modes: 6, radius: 60}, max_agents: 16";

fn config(precision: &str) -> Config {
    let size = if is_full() { "" } else { REDUCED };
    let text = format!("{{lr: 1.0e-3, epochs: {EPOCHS}, warmup_epochs: 3, threads: 2, seed: 1, {size}}}");
    let fixed = [precision, "model.dropout=0", "model.drop_path=0", "model.state_dropout=0"];
    Config::from_text(&text, &fixed).unwrap()
}

fn is_full() -> bool {
    std::env::var("TE_LEARNING_CURVES").is_ok_and(|size| size == "full")
}

/// Scenarios of all recorded sources, evenly picked.
fn scenarios(folder: &Path, config: &Config, count: usize) -> Vec<Features> {
    let files = common::files_below(&folder.join("data/scenarios"), ".json.gz");
    assert!(files.len() >= 2 * count, "{} recorded scenarios", files.len());
    let builder = FeatureBuilder { radius: config.model.radius, max_agents: config.features.max_agents, cost_map: true };
    let picked = files.iter().step_by(files.len() / (2 * count));
    let built = picked.filter_map(|file| builder.build(&common::read_scenario(file).ok()?).ok());
    let built: Vec<Features> = built.take(count).collect();
    assert_eq!(built.len(), count);
    built
}

/// Losses of the engine.
fn train(config: &Config, features: &[Features], batches: &[Vec<usize>]) -> Vec<f64> {
    let mut module = TrainingModule::new(build_model(config).unwrap(), config);
    module.begin(STEPS_PER_EPOCH);
    let options = module.session().batch_options(false);
    let mut losses = Vec::new();
    for (step, batch) in batches.iter().enumerate() {
        let scenarios: Vec<&Features> = batch.iter().map(|&i| &features[i]).collect();
        let batch = collate(&scenarios, &[], &options).unwrap();
        losses.push(module.train_batch(&batch, step as u64).unwrap().losses.loss);
        assert!(module.update(1).unwrap().applied);
        if (step + 1).is_multiple_of(STEPS_PER_EPOCH) {
            module.end_epoch();
        }
    }
    losses
}

#[test]
fn losses_are_those_of_pytorch_at_every_step() {
    let Some(shared) = common::shared() else {
        println!("left out: learning curves need recorded scenarios; TE_SHARED names their folder");
        return;
    };
    let Some(python) = torch_python::find("learning curves", "torch, safetensors") else { return };
    let double = config("precision=64");
    let (count, batch) = if is_full() { (96, 8) } else { (40, 2) };
    let features = scenarios(&shared, &double, count);
    // Every scenario once an epoch, in an order that differs from epoch to epoch.
    let place = |step: usize, i: usize| (7 * (step * batch + i) + 3 * (step / STEPS_PER_EPOCH)) % count;
    let batches: Vec<Vec<usize>> = (0..STEPS).map(|step| (0..batch).map(|i| place(step, i)).collect()).collect();

    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), &double, &features, &batches);
    let printed = torch_python::run(&python, "reference/learning_curve.py", &[folder.path().to_str().unwrap()]);
    let theirs: Vec<f64> = serde_json::from_str(printed.trim()).unwrap();
    assert_eq!(theirs.len(), STEPS);

    let ours = train(&double, &features, &batches);
    let errors: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / b.abs()).collect();
    let worst = |errors: &[f64]| errors.iter().copied().fold(0.0, f64::max);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    println!(
        "loss {:.3} in the first epoch, {:.3} in the last",
        mean(&theirs[..STEPS_PER_EPOCH]),
        mean(&theirs[STEPS - STEPS_PER_EPOCH..])
    );
    let quarters: Vec<String> = errors.chunks(STEPS / 4).map(|part| format!("{:.1e}", worst(part))).collect();
    println!("double precision: largest relative difference of 50 steps each: {}", quarters.join(", "));

    let single = train(&config("precision=32"), &features, &batches);
    let smooth = |losses: &[f64]| losses.windows(SMOOTHING).map(mean).collect::<Vec<f64>>();
    let drift: Vec<f64> = smooth(&single).iter().zip(smooth(&theirs)).map(|(a, b)| (a - b).abs() / b.abs()).collect();
    println!("single precision: largest relative difference of means over {SMOOTHING} steps: {:.1e}", worst(&drift));

    // Small networks on few scenarios learn little in 200 steps: PyTorch's loss falls by a sixth, which shows that they do learn.
    assert!(mean(&theirs[STEPS - STEPS_PER_EPOCH..]) <= 0.9 * mean(&theirs[..STEPS_PER_EPOCH]), "something is learnt");
    assert!(errors.iter().all(|error| *error <= DOUBLE), "{errors:?}");
    assert!(drift.iter().all(|error| *error <= SINGLE), "{drift:?}");
}

/// Arrays of a safetensors file in the making.
#[derive(Default)]
struct Arrays(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Arrays {
    fn reals(&mut self, name: String, shape: &[usize], values: &[f64]) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        self.0.insert(name, (Dtype::F64, shape.to_vec(), values.iter().flat_map(|x| x.to_le_bytes()).collect()));
    }
    fn flags(&mut self, name: String, shape: &[usize], values: &[bool]) {
        self.0.insert(name, (Dtype::U8, shape.to_vec(), values.iter().map(|x| u8::from(*x)).collect()));
    }
    fn kinds(&mut self, name: String, values: &[i8]) {
        self.0.insert(name, (Dtype::I8, vec![values.len()], values.iter().map(|x| *x as u8).collect()));
    }
    fn write(&self, path: &Path) {
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }
}

/// Writes what the reference reads.
fn export(folder: &Path, config: &Config, features: &[Features], batches: &[Vec<usize>]) {
    let (model, optimizer) = (&config.model, &config.optimizer);
    let settings = json!({
        "model": {
            "dim": model.dim, "encoder_depth": model.encoder_depth, "decoder_depth": model.decoder_depth,
            "num_heads": model.num_heads, "num_modes": model.num_modes, "radius": model.radius,
        },
        "lr": optimizer.lr, "weight_decay": optimizer.weight_decay, "epochs": optimizer.epochs,
        "warmup_epochs": optimizer.warmup_epochs, "gradient_clip_val": optimizer.gradient_clip_val,
        "steps_per_epoch": STEPS_PER_EPOCH, "batches": batches,
    });
    std::fs::write(folder.join("settings.json"), settings.to_string()).unwrap();

    let session: Session = build_model(config).unwrap();
    let (parameters, statistics) = (session.read(Buffer::Parameters).unwrap(), session.read(Buffer::Statistics).unwrap());
    let mut initial = Arrays::default();
    for p in session.parameters().iter() {
        let values = if p.statistic { &statistics } else { &parameters };
        initial.reals(p.name.clone(), &p.shape, &values[p.range()]);
    }
    initial.write(&folder.join("initial.safetensors"));

    let mut arrays = Arrays::default();
    for (i, f) in features.iter().enumerate() {
        let name = |rest: &str| format!("{i}/{rest}");
        arrays.reals(name("current_state"), &[7], &f.current_state);
        let (a, n, t) = (&f.agents, f.agents.count, f.agents.steps);
        arrays.reals(name("agent/position"), &[n, t, 2], &a.position);
        arrays.reals(name("agent/heading"), &[n, t], &a.heading);
        arrays.reals(name("agent/velocity"), &[n, t, 2], &a.velocity);
        arrays.reals(name("agent/shape"), &[n, t, 2], &a.shape);
        arrays.reals(name("agent/target"), &[n, model.future_steps, 3], &a.target);
        arrays.kinds(name("agent/category"), &a.category);
        arrays.flags(name("agent/valid_mask"), &[n, t], &a.valid);
        let (m, n, points) = (&f.map, f.map.count, f.map.valid.len() / f.map.count.max(1));
        arrays.reals(name("map/point_position"), &[n, 3, points, 2], &m.point_position);
        arrays.reals(name("map/point_vector"), &[n, 3, points, 2], &m.point_vector);
        arrays.reals(name("map/point_orientation"), &[n, 3, points], &m.point_orientation);
        arrays.reals(name("map/polygon_center"), &[n, 3], &m.polygon_center);
        arrays.kinds(name("map/polygon_type"), &m.polygon_type);
        arrays.flags(name("map/polygon_on_route"), &[n], &m.polygon_on_route);
        arrays.kinds(name("map/polygon_tl_status"), &m.polygon_light);
        arrays.flags(name("map/polygon_has_speed_limit"), &[n], &m.polygon_has_speed_limit);
        arrays.reals(name("map/polygon_speed_limit"), &[n], &m.polygon_speed_limit);
        arrays.flags(name("map/valid_mask"), &[n, points], &m.valid);
        let (s, n) = (&f.static_objects, f.static_objects.count);
        arrays.reals(name("static_objects/position"), &[n, 2], &s.position);
        arrays.reals(name("static_objects/heading"), &[n], &s.heading);
        arrays.reals(name("static_objects/shape"), &[n, 2], &s.shape);
        arrays.kinds(name("static_objects/category"), &s.category);
        arrays.flags(name("static_objects/valid_mask"), &[n], &s.valid);
        let (r, n, q) = (&f.reference_lines, f.reference_lines.count, f.reference_lines.points);
        arrays.reals(name("reference_line/position"), &[n, q, 2], &r.position);
        arrays.reals(name("reference_line/vector"), &[n, q, 2], &r.vector);
        arrays.reals(name("reference_line/orientation"), &[n, q], &r.orientation);
        arrays.flags(name("reference_line/valid_mask"), &[n, q], &r.valid);
        arrays.reals(name("reference_line/future_projection"), &[n, 8, 2], &r.future_projection);
        let map = f.cost_map.as_ref().unwrap();
        let values: Vec<f64> = map.values.iter().map(|x| f64::from(*x)).collect();
        arrays.reals(name("cost_maps"), &[map.size, map.size, 1], &values);
    }
    arrays.write(&folder.join("scenarios.safetensors"));
}
