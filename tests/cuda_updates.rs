//! Updates of the CUDA backend against those of the CPU backend in the same precision.

mod device;

use training_engine::{
    backend::{
        Backend, Buffer, Clip, Rule, Update, cpu,
        cuda::{self, device::Device},
    },
    graph::{Scalar, Vector},
};

const STATISTICS: usize = 7;

/// Numbers in (-1, 1) that depend on the seed alone.
fn numbers(seed: usize, count: usize) -> Vec<f64> {
    (0..count).map(|i| f64::from((1.7 * i as f32 + 3.1 * seed as f32).sin())).collect()
}

/// The backend of the CPU and one of a device, with these parameters.
fn pair(device: Box<dyn Device>, parameters: &[f64]) -> [Box<dyn Backend>; 2] {
    let len = parameters.len();
    let cuda = cuda::with_device(device, cuda::Multiply::default(), len, STATISTICS).unwrap();
    let mut backends = [cpu::new(Scalar::F32, 1, len, STATISTICS).unwrap(), cuda];
    for backend in &mut backends {
        backend.write(Buffer::Parameters, parameters).unwrap();
        backend.write(Buffer::Statistics, &[0.5; STATISTICS]).unwrap();
        backend.write(Buffer::PendingStatistics, &numbers(4, STATISTICS)).unwrap();
    }
    backends
}

/// Parts of `len` parameters with odd borders, some side by side.
fn parts(len: usize) -> Vec<Vector> {
    let borders = [1, 3, 4, 9, 9, 10, 16, 2000, 2049, 2051, 9000];
    let part = |pair: &[usize]| Vector { offset: pair[0].min(len), len: pair[1].min(len) - pair[0].min(len) };
    borders.chunks_exact(2).map(part).filter(|part| part.len > 0).collect()
}

fn close(ours: &[f64], theirs: &[f64], what: &str) {
    assert_eq!(ours.len(), theirs.len());
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        // Both round in single precision; the device may contract products with sums.
        assert!((a - b).abs() <= 2e-6 * b.abs().max(0.1), "{what}[{i}]: {a} and {b}");
    }
}

/// Some updates on both backends; gives the numbers that the device ends with.
fn updates(device: Box<dyn Device>, len: usize, rule: Rule, clip: Option<Clip>) -> Vec<Vec<f64>> {
    let mut backends = pair(device, &numbers(1, len));
    let buffers = [Buffer::Parameters, Buffer::FirstMoments, Buffer::SecondMoments, Buffer::Statistics];
    for count in 1..=3 {
        let update = Update { rule, learning_rate: 0.01, weight_decay: 0.1, count, scale: 0.5, clip };
        let done = backends.each_mut().map(|backend| {
            backend.write(Buffer::Gradients, &numbers(count as usize, len)).unwrap();
            backend.update(&update, &parts(len)).unwrap()
        });
        let what = format!("{rule:?}, {clip:?}, update {count} of {len}");
        assert!(done[0].applied && done[1].applied);
        assert!((done[1].gradient_norm / done[0].gradient_norm - 1.0).abs() <= 1e-12, "{what}: {done:?}");
        for buffer in buffers {
            let [theirs, ours] = backends.each_ref().map(|backend| backend.read(buffer).unwrap());
            close(&ours, &theirs, &format!("{what}: {buffer:?}"));
        }
        assert!(backends[1].read(Buffer::Gradients).unwrap().iter().all(|&g| g == 0.0), "{what}");
    }
    buffers.map(|buffer| backends[1].read(buffer).unwrap()).into()
}

const ADAM: ([f64; 2], f64) = ([0.9, 0.99], 1e-8);
const RULES: [Rule; 5] = [
    Rule::Adam { beta: ADAM.0, epsilon: ADAM.1 },
    Rule::AdamW { beta: ADAM.0, epsilon: ADAM.1 },
    Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false },
    Rule::Sgd { momentum: 0.9, dampening: 0.3, nesterov: false },
    Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: true },
];

#[test]
fn updates_are_those_of_the_cpu() {
    for len in [1, 3, 1026, 4099] {
        for rule in RULES {
            for clip in [None, Some(Clip::Norm(0.1)), Some(Clip::Norm(1e6)), Some(Clip::Value(0.2))] {
                updates(device::open(), len, rule, clip);
            }
        }
    }
}

#[test]
fn updates_have_the_same_bits_in_every_order_and_no_races() {
    for rule in RULES {
        let all: Vec<_> = device::orders().into_iter().map(|device| updates(device, 4099, rule, Some(Clip::Norm(0.1)))).collect();
        assert!(all.iter().all(|outcome| *outcome == all[0]), "{rule:?}");
        let (device, reports) = device::checked();
        updates(device, 1026, rule, Some(Clip::Norm(0.1)));
        assert_eq!(reports(), Vec::<String>::new());
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let len = 1026;
    let (device, reports) = device::checked();
    let [_, mut backend] = pair(device, &numbers(1, len));
    let update = |scale| Update { rule: RULES[1], learning_rate: 0.01, weight_decay: 0.1, count: 1, scale, clip: Some(Clip::Norm(1.0)) };
    let buffers = [Buffer::Parameters, Buffer::FirstMoments, Buffer::SecondMoments, Buffer::Statistics];
    let before = buffers.map(|buffer| backend.read(buffer).unwrap());
    for (place, wrong) in [(0, f64::NAN), (len - 1, f64::INFINITY)] {
        let mut gradient = numbers(2, len);
        gradient[place] = wrong;
        backend.write(Buffer::Gradients, &gradient).unwrap();
        backend.write(Buffer::PendingStatistics, &numbers(4, STATISTICS)).unwrap();
        let done = backend.update(&update(1.0), &parts(len)).unwrap();
        assert!(!done.applied && !done.gradient_norm.is_finite(), "{done:?}");
        assert_eq!(buffers.map(|buffer| backend.read(buffer).unwrap()), before);
        assert_eq!(backend.read(Buffer::PendingStatistics).unwrap(), before[3]);
        assert!(backend.read(Buffer::Gradients).unwrap().iter().all(|&g| g == 0.0));
    }
    // Squares that are too large for single precision are not.
    backend.write(Buffer::Gradients, &vec![1e30; len]).unwrap();
    let done = backend.update(&update(1.0), &parts(len)).unwrap();
    assert!(done.applied && (done.gradient_norm / (1e30 * (len as f64).sqrt()) - 1.0).abs() <= 1e-6, "{done:?}");
    assert_eq!(reports(), Vec::<String>::new());
}
