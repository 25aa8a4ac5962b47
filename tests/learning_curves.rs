//! The engine and PyTorch, trained from the same weights on the same batches of recorded scenarios: the same loss at every step.
//!
//! Needs `TE_SHARED` (recorded scenarios) and a Python with PyTorch. `TE_LEARNING_CURVES=full` takes the published network and batches
//! of 7 (hours on two cores) instead of a reduced one.

mod common;
mod torch_python;

use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use training_engine::{
    augment::{self, AugmentRandom, CROPPED_SIZE, Triplet},
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
/// Largest relative difference of a step's loss in double precision.
const DOUBLE: f64 = 1e-6;
/// In single precision, of the mean over ten steps. Rounding grows while small batches are learnt: PyTorch's own single precision was
/// 0.6 % from its double precision after 100 steps of two scenarios.
const SINGLE: f64 = 0.01;
const SMOOTHING: usize = 10;

const REDUCED: &str = "model: {dim: 32, encoder_depth: 1, decoder_depth: 1, num_modes: 6, radius: 60}, max_agents: 16";

fn config(overrides: &[&str]) -> Config {
    let size = if is_full() { "" } else { REDUCED };
    let text = format!("{{lr: 1.0e-3, epochs: {EPOCHS}, warmup_epochs: 3, threads: 2, seed: 1, {size}}}");
    let fixed = ["model.dropout=0", "model.drop_path=0", "model.state_dropout=0"];
    Config::from_text(&text, &[overrides, &fixed].concat()).unwrap()
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

/// What is trained on.
struct Lesson {
    features: Vec<Features>,
    steps_per_epoch: usize,
    /// Of every step; of triplets the anchors, then the positives, then the negatives.
    batches: Vec<Vec<usize>>,
    /// Of every step, of its triplets: whether the negative counts.
    negative_valid: Option<Vec<Vec<bool>>>,
}

impl Lesson {
    /// Every scenario once an epoch, in an order that differs from epoch to epoch.
    fn new(features: Vec<Features>, size: usize) -> Self {
        let (count, steps_per_epoch) = (features.len(), features.len() / size);
        let place = |step: usize, i: usize| (7 * (step * size + i) + 3 * (step / steps_per_epoch)) % count;
        let batches = (0..EPOCHS * steps_per_epoch).map(|step| (0..size).map(|i| place(step, i)).collect()).collect();
        Self { features, steps_per_epoch, batches, negative_valid: None }
    }

    /// The same with contrastive samples of every scenario.
    fn contrastive(self, config: &Config) -> Self {
        let augmentor = augment::from_config(config).unwrap();
        let triplet = |anchor: &Features| augmentor.augment(anchor, &mut AugmentRandom::new(1, 0, &anchor.token, 0)).unwrap();
        let triplets: Vec<Triplet> = self.features.iter().map(triplet).collect();
        let (features, valid) = augment::batch_order(&triplets);
        let third = |part: usize, batch: &[usize]| batch.iter().map(|i| part * triplets.len() + i).collect::<Vec<_>>();
        Self {
            features: features.into_iter().cloned().collect(),
            steps_per_epoch: self.steps_per_epoch,
            negative_valid: Some(self.batches.iter().map(|batch| batch.iter().map(|i| valid[*i]).collect()).collect()),
            batches: self.batches.iter().map(|batch| (0..3).flat_map(|part| third(part, batch)).collect()).collect(),
        }
    }
}

/// A loss at every step.
type Curve = Vec<f64>;

/// The losses of these names with the engine.
fn train<const N: usize>(config: &Config, lesson: &Lesson, names: [&str; N]) -> [Curve; N] {
    let mut module = TrainingModule::new(build_model(config).unwrap(), config);
    module.begin(lesson.steps_per_epoch);
    let options = module.session().batch_options(lesson.negative_valid.is_some());
    let mut curves = names.map(|_| Vec::new());
    for (step, batch) in lesson.batches.iter().enumerate() {
        let scenarios: Vec<&Features> = batch.iter().map(|&i| &lesson.features[i]).collect();
        let valid = lesson.negative_valid.as_ref().map_or(&[][..], |valid| &valid[step]);
        let batch = collate(&scenarios, valid, &options).unwrap();
        let losses = module.train_batch(&batch, step as u64).unwrap().losses;
        for (curve, name) in curves.iter_mut().zip(names) {
            curve.push(losses.values.iter().find(|(n, _)| *n == name).unwrap().1);
        }
        assert!(module.update(1, false).unwrap().applied);
        if (step + 1).is_multiple_of(lesson.steps_per_epoch) {
            module.end_epoch();
        }
    }
    curves
}

/// The losses of these names with PyTorch.
fn train_pytorch<const N: usize>(python: &str, config: &Config, lesson: &Lesson, names: [&str; N]) -> [Curve; N] {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), config, lesson);
    let printed = torch_python::run(python, "reference/learning_curve.py", &[folder.path().to_str().unwrap(), "--threads", "1"]);
    let curves: BTreeMap<String, Curve> = serde_json::from_str(printed.trim()).unwrap();
    names.map(|name| {
        assert_eq!(curves[name].len(), lesson.batches.len());
        curves[name].clone()
    })
}

/// Recorded scenarios and a Python with PyTorch, or it is said what is left out.
fn given(test: &str) -> Option<(PathBuf, String)> {
    let shared = common::shared();
    if shared.is_none() {
        println!("left out: {test} needs recorded scenarios; TE_SHARED names their folder");
    }
    Some((shared?, torch_python::find(test, "torch, safetensors")?))
}

fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

fn worst(errors: &[f64]) -> f64 {
    errors.iter().copied().fold(0.0, f64::max)
}

/// Means of the first and of the last epoch.
fn ends(curve: &[f64]) -> [f64; 2] {
    let epoch = curve.len() / EPOCHS;
    [mean(&curve[..epoch]), mean(&curve[curve.len() - epoch..])]
}

/// Asserts that every step's loss is that of PyTorch, in double precision.
fn same(name: &str, ours: &[f64], theirs: &[f64]) {
    let errors: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs() / b.abs().max(f64::MIN_POSITIVE)).collect();
    let [first, last] = ends(theirs);
    let quarters: Vec<String> = errors.chunks(errors.len() / 4).map(|part| format!("{:.1e}", worst(part))).collect();
    println!("{name}: {first:.4} in the first epoch, {last:.4} in the last");
    println!("{name}, double precision: largest relative difference in each quarter of the steps: {}", quarters.join(", "));
    assert!(errors.iter().all(|error| *error <= DOUBLE), "{name}: {errors:?}");
}

#[test]
fn losses_are_those_of_pytorch_at_every_step() {
    let Some((shared, python)) = given("learning curves") else { return };
    let double = config(&["precision=64"]);
    let (count, batch) = if is_full() { (140, 7) } else { (80, 4) };
    let lesson = Lesson::new(scenarios(&shared, &double, count), batch);
    let [theirs] = train_pytorch(&python, &double, &lesson, ["loss"]);
    let [ours] = train(&double, &lesson, ["loss"]);
    same("loss", &ours, &theirs);

    let [single] = train(&config(&["precision=32"]), &lesson, ["loss"]);
    let smooth = |losses: &[f64]| losses.windows(SMOOTHING).map(mean).collect::<Vec<f64>>();
    let drift: Vec<f64> = smooth(&single).iter().zip(smooth(&theirs)).map(|(a, b)| (a - b).abs() / b.abs()).collect();
    println!("single precision: largest relative difference of means over {SMOOTHING} steps: {:.1e}", worst(&drift));
    assert!(drift.iter().all(|error| *error <= SINGLE), "{drift:?}");

    // Small networks on few scenarios learn little in 200 steps: PyTorch's loss falls by a sixth, which shows that they do learn.
    let [first, last] = ends(&theirs);
    assert!(last <= 0.9 * first, "something is learnt");
}

/// Ten epochs on few scenarios bring the contrastive loss down to ln 2 with PyTorch as well: what tells the positive apart, the
/// noise of the ego's state, is unlearnt before what tells the negative apart, its agents, is learnt.
#[test]
fn contrastive_losses_are_those_of_pytorch_at_every_step() {
    let Some((shared, python)) = given("contrastive learning curves") else { return };
    let double = config(&["precision=64", "use_contrast_loss=true", "model.use_hidden_proj=true"]);
    let lesson = Lesson::new(scenarios(&shared, &double, 20), 2).contrastive(&double);
    let names = ["loss", "contrastive_loss"];
    let theirs = train_pytorch(&python, &double, &lesson, names);
    let ours = train(&double, &lesson, names);
    for ((name, ours), theirs) in names.iter().zip(&ours).zip(&theirs) {
        same(name, ours, theirs);
        let [first, last] = ends(ours);
        assert!(last < first, "{name}: {ours:.4?}");
    }
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
fn export(folder: &Path, config: &Config, lesson: &Lesson) {
    let (model, optimizer) = (&config.model, &config.optimizer);
    let mut settings = json!({
        "model": {
            "dim": model.dim, "encoder_depth": model.encoder_depth, "decoder_depth": model.decoder_depth,
            "num_heads": model.num_heads, "num_modes": model.num_modes, "radius": model.radius, "use_hidden_proj": model.use_hidden_proj,
        },
        "lr": optimizer.lr, "weight_decay": optimizer.weight_decay, "epochs": optimizer.epochs,
        "warmup_epochs": optimizer.warmup_epochs, "gradient_clip_val": optimizer.gradient_clip_val,
        "steps_per_epoch": lesson.steps_per_epoch, "batches": lesson.batches,
    });
    if let Some(valid) = &lesson.negative_valid {
        settings["negative_valid"] = json!(valid);
    }
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
    for (i, f) in lesson.features.iter().enumerate() {
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
        // The reference wants one of negatives, too, and does not read it.
        let (size, values) = f.cost_map.as_ref().map_or((CROPPED_SIZE, &[][..]), |map| (map.size, &map.values));
        let mut values: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        values.resize(size * size, 0.0);
        arrays.reals(name("cost_maps"), &[size, size, 1], &values);
    }
    arrays.write(&folder.join("scenarios.safetensors"));
}
