//! The scale of the loss in half precision: overflows, and what `torch.amp.GradScaler` makes of them, whose results
//! `tests/reference/loss_scale.py` has put into `tests/data/loss_scale.json`.

mod device;
mod torch_python;

use serde_json::Value;
use training_engine::{
    backend::{
        Backend, Buffer, Clip, LossScale, Rule, Update, Updated, cpu,
        cuda::{self, Multiply, device::Device},
    },
    graph::{Activation, Builder, Feed, Mode, Op, Parameters, Plan, Reals, Rows, Scalar, Step, Vector, autodiff},
};

const ROWS: usize = 5;
const IN: usize = 4;
const OUT: usize = 3;

/// One layer and a loss.
struct Layer {
    plan: Plan,
    whole: Vector,
}

/// `[rows, columns]`.
fn numbers(rows: usize, columns: usize, step: usize) -> Vec<f64> {
    (0..rows * columns).map(|i| ((7 * i + 5 * step) % 13) as f64 / 16.0 - 6.0 / 16.0).collect()
}

impl Layer {
    fn new() -> Self {
        let mut parameters = Parameters::default();
        parameters.push("weight".into(), &[OUT, IN], false);
        let mut b = Builder::new(Mode::Train);
        let x = b.input("x", 0, Rows::fixed(ROWS), IN);
        let y = b.linear(x, &parameters.root(), Activation::None).unwrap();
        let target = b.input("target", 1, Rows::fixed(ROWS), OUT);
        let valid = b.input("valid", 2, Rows::fixed(ROWS), 1);
        let loss = b.loss(Op::SmoothL1 { steps: 1, channels: OUT, target_channels: OUT }, &[y, target, valid]);
        b.result("loss", loss);
        let mut graph = b.finish();
        autodiff::differentiate(&mut graph, loss, &parameters, &[]).unwrap();
        Self { plan: Plan::new(graph, Vec::new()), whole: Vector { offset: 0, len: parameters.len() } }
    }

    /// A backend before the first step.
    fn backend(&self, device: Box<dyn Device>) -> Box<dyn Backend> {
        let mut backend = cuda::with_device(device, Multiply::F16, self.whole.len, 1).unwrap();
        backend.write(Buffer::Parameters, &numbers(OUT, IN, 0)).unwrap();
        backend
    }

    /// Forward, backward and an update, which is number `count` if it is applied.
    fn step(&self, backend: &mut dyn Backend, step: usize, count: u64) -> Updated {
        self.run(backend, step);
        backend.update(&update(count), &[self.whole]).unwrap()
    }

    /// Two batches and an update.
    fn gather(&self, backend: &mut dyn Backend, update: &Update) -> Updated {
        (0..2).for_each(|step| self.run(backend, step));
        backend.update(update, &[self.whole]).unwrap()
    }

    fn run(&self, backend: &mut dyn Backend, step: usize) {
        let target = numbers(ROWS, OUT, step + 1).into_iter().map(|x| 100.0 * (x + 1.0 / 64.0).signum());
        let reals = Reals::new(Scalar::F32);
        let mut feed = Feed { counts: Vec::new(), reals, real_slots: Vec::new(), indexes: Vec::new(), index_slots: Vec::new() };
        for values in [numbers(ROWS, IN, step), target.collect(), vec![1.0; ROWS]] {
            let start = feed.reals.len();
            values.into_iter().for_each(|x| feed.reals.push(x));
            feed.real_slots.push(start..feed.reals.len());
        }
        backend.run(&self.plan, &feed, &Step { seed: 0, step: step as u64 }).unwrap();
    }
}

fn update(count: u64) -> Update {
    let rule = Rule::AdamW { beta: [0.9, 0.999], epsilon: 1e-8 };
    Update { rule, learning_rate: 0.01, weight_decay: 0.1, count, scale: 1.0, clip: Some(Clip::Norm(0.3)) }
}

fn expected() -> Value {
    serde_json::from_str(include_str!("data/loss_scale.json")).unwrap()
}

fn scale(state: &Value) -> LossScale {
    serde_json::from_value(state.clone()).unwrap()
}

fn everything(backend: &dyn Backend) -> [Vec<f64>; 4] {
    [Buffer::Parameters, Buffer::FirstMoments, Buffer::SecondMoments, Buffer::Gradients].map(|buffer| backend.read(buffer).unwrap())
}

#[test]
fn steps_and_scales_follow_pytorch() {
    let (layer, expected) = (Layer::new(), expected());
    let (checked, reports) = device::checked();
    for device in device::orders().into_iter().chain([checked]) {
        let mut backend = layer.backend(device);
        backend.set_loss_scale(&scale(&expected["scaler"])).unwrap();
        let (mut updates, mut skipped) = (0, 0);
        for (i, theirs) in expected["steps"].as_array().unwrap().iter().enumerate() {
            let before = everything(&*backend);
            let scale_before = backend.loss_scale().unwrap().unwrap().scale;
            let updated = layer.step(&mut *backend, i, updates + 1);
            updates += u64::from(updated.applied);
            assert_eq!(updates, theirs["updates"].as_u64().unwrap(), "step {i}");
            assert_eq!(backend.loss_scale().unwrap(), Some(scale(&theirs["scaler"])), "step {i}");
            assert_eq!(updated.loss_scale, Some(scale_before));
            match theirs["norm"].as_f64() {
                // Of gradients that are sums of few terms of few bits; the rest are roundings of the update in single precision.
                Some(norm) => assert!(updated.applied && (updated.gradient_norm / norm - 1.0).abs() <= 1e-6, "step {i}: {updated:?}"),
                None => {
                    skipped += 1;
                    assert!(!updated.applied && !updated.gradient_norm.is_finite(), "step {i}: {updated:?}");
                    assert_eq!(everything(&*backend), before, "step {i} changes something");
                }
            }
            for (ours, theirs) in backend.read(Buffer::Parameters).unwrap().iter().zip(theirs["parameters"].as_array().unwrap()) {
                let theirs = theirs.as_f64().unwrap();
                assert!((ours - theirs).abs() <= 1e-6, "step {i}: {ours} and {theirs}");
            }
        }
        assert!(skipped == 6 && updates == 10, "{skipped} skipped, {updates} applied");
        assert_eq!(reports(), Vec::<String>::new());
    }
}

#[test]
fn a_scale_that_is_gone_on_with_gives_the_same_bits() {
    let layer = Layer::new();
    let mut whole = layer.backend(device::open());
    whole.set_loss_scale(&scale(&expected()["scaler"])).unwrap();
    let mut updates = 0;
    (0..8).for_each(|step| updates += u64::from(layer.step(&mut *whole, step, updates + 1).applied));
    let state = whole.loss_scale().unwrap().unwrap();
    assert_eq!(state.growth_tracker, 1, "in the middle of what is counted");
    let mut next = layer.backend(device::open());
    for buffer in [Buffer::Parameters, Buffer::FirstMoments, Buffer::SecondMoments] {
        next.write(buffer, &whole.read(buffer).unwrap()).unwrap();
    }
    next.set_loss_scale(&serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap()).unwrap();
    for step in 8..16 {
        let applied = [&mut whole, &mut next].map(|backend| layer.step(&mut **backend, step, updates + 1).applied);
        assert_eq!((everything(&*next), next.loss_scale().unwrap()), (everything(&*whole), whole.loss_scale().unwrap()));
        assert_eq!(applied[0], applied[1]);
        updates += u64::from(applied[0]);
    }
}

/// Batches that are gathered for one update have one scale.
#[test]
fn gathered_batches_are_unscaled_together() {
    let layer = Layer::new();
    let mut gathered = layer.backend(device::open());
    gathered.set_loss_scale(&LossScale { scale: 1024.0, growth_interval: 1, ..LossScale::default() }).unwrap();
    let mut single = layer.backend(device::open());
    single.set_loss_scale(&LossScale { scale: 1.0, ..LossScale::default() }).unwrap();
    for backend in [&mut gathered, &mut single] {
        for update in [Update { scale: f64::NAN, ..update(1) }, Update { scale: 0.5, ..update(1) }] {
            let dropped = update.scale.is_nan();
            let updated = layer.gather(&mut **backend, &update);
            assert_eq!(updated.applied, !dropped, "a factor that is no number drops the gradient");
        }
    }
    assert_eq!(gathered.read(Buffer::Parameters).unwrap(), single.read(Buffer::Parameters).unwrap());
    assert_eq!(gathered.loss_scale().unwrap().unwrap().scale, 1024.0, "halved, then doubled");
    assert_eq!(single.loss_scale().unwrap().unwrap().scale, 0.5);
}

#[test]
fn a_scale_never_becomes_infinite() {
    let layer = Layer::new();
    let mut backend = layer.backend(device::open());
    let most = 2.0_f64.powi(127);
    backend.set_loss_scale(&LossScale { scale: most, growth_interval: 1, ..LossScale::default() }).unwrap();
    assert!(backend.update(&update(1), &[]).unwrap().applied, "a gradient of zero");
    assert_eq!(backend.loss_scale().unwrap().unwrap(), LossScale { scale: most, growth_interval: 1, ..LossScale::default() });
}

#[test]
fn only_half_precision_has_a_scale() {
    let mut backends = [Multiply::Tf32x3, Multiply::Tf32, Multiply::Bf16]
        .map(|multiply| cuda::with_device(device::open(), multiply, 3, 1).unwrap())
        .into_iter()
        .chain([cpu::new(Scalar::F32, 1, 3, 1).unwrap()]);
    assert!(backends.all(|mut backend| {
        backend.set_loss_scale(&LossScale::default()).unwrap();
        backend.loss_scale().unwrap().is_none() && backend.update(&update(1), &[]).unwrap().loss_scale.is_none()
    }));
    let start = Layer::new().backend(device::open()).loss_scale().unwrap();
    assert_eq!(
        start,
        Some(LossScale { scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000, growth_tracker: 0 })
    );
}

#[test]
fn the_expected_numbers_are_those_of_pytorch() {
    let Some(python) = torch_python::find("the stored scales of the loss", "torch") else { return };
    let new: Value = serde_json::from_str(&torch_python::run(&python, "reference/loss_scale.py", &[])).unwrap();
    let stored = expected();
    assert_eq!((&new["scaler"], new["steps"].as_array().unwrap().len()), (&stored["scaler"], stored["steps"].as_array().unwrap().len()));
    for (new, stored) in new["steps"].as_array().unwrap().iter().zip(stored["steps"].as_array().unwrap()) {
        assert_eq!((&new["scaler"], &new["updates"]), (&stored["scaler"], &stored["updates"]));
        for (a, b) in new["parameters"].as_array().unwrap().iter().zip(stored["parameters"].as_array().unwrap()) {
            assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= 1e-6);
        }
    }
}
