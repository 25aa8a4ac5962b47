//! One operation as a small training graph, run on the CPU backend.

#![allow(dead_code)]

#[path = "../device/mod.rs"]
pub mod device;

use device::emulator::{Emulator, Schedule};
use training_engine::{
    backend::{
        Backend, Buffer, LossScale, cpu,
        cuda::{self, Multiply, device::Device},
    },
    graph::{
        Activation, Builder, Feed, Graph, Mode, Node, Op, Parameters, Plan, Reals, Rows, Scalar, Scope, Step, Symbol, TensorId, autodiff,
    },
};

/// Numbers in (-1.5, 1.5) that depend on the seed alone.
pub fn random(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 24) as f64 * 3.0 - 1.5
    };
    (0..8).for_each(|_| _ = next());
    (0..count).map(|_| next()).collect()
}

/// Parameters, statistics, counts and inputs around an operation.
pub struct Case {
    parameters: Parameters,
    counts: Vec<usize>,
    inputs: Vec<Vec<f64>>,
    indexes: Vec<Vec<i32>>,
    many: bool,
}

/// What a run left.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub loss: f64,
    pub y: Vec<f64>,
    pub gradient: Vec<f64>,
    pub pending: Vec<f64>,
}

/// Rows of the table that operands are gathered from.
const TABLE: usize = 11;
const SEED: u64 = 4;
const STEP: Step = Step { seed: 5, step: 3 };

impl Case {
    /// A case with these counts by symbol.
    pub fn new(counts: &[usize]) -> Self {
        Self { parameters: Parameters::default(), counts: counts.to_vec(), inputs: Vec::new(), indexes: Vec::new(), many: false }
    }
    pub fn parameter(&mut self, name: &str, shape: &[usize]) -> &mut Self {
        self.parameters.push(name.into(), shape, false);
        self
    }
    pub fn statistic(&mut self, name: &str, len: usize) -> &mut Self {
        self.parameters.push(name.into(), &[len], true);
        self
    }
    /// Gives the slot.
    pub fn input(&mut self, values: Vec<f64>) -> usize {
        self.inputs.push(values);
        self.inputs.len() - 1
    }
    /// Gives the slot.
    pub fn index(&mut self, values: Vec<i32>) -> usize {
        self.indexes.push(values);
        self.indexes.len() - 1
    }

    /// Makes room for results of many rows, which are then checked without differences, and in less precision alone for races and order.
    pub fn many(&mut self) -> &mut Self {
        self.many = true;
        self
    }

    /// Checks an operation on an operand of `Symbol(0)` rows.
    pub fn check(&mut self, width: usize, build: impl Fn(&mut Builder, &Scope, TensorId) -> TensorId) {
        self.check_rows(Rows::of(Symbol(0)), width, build);
    }

    /// Checks an operation on an operand `[rows, width]`: its result, and the operand once more, go to a smooth loss.
    pub fn check_rows(&mut self, rows: Rows, width: usize, build: impl Fn(&mut Builder, &Scope, TensorId) -> TensorId) {
        let [rows_of_y, numbers] = if self.many { [20_000, 1_400_000] } else { [10_000, 100_000] };
        let target = self.input(random(99, numbers));
        let valid = self.input(vec![1.0; rows_of_y]);
        self.check_loss(rows, width, |b, p, x| {
            let y = build(b, p, x);
            b.result("y", y);
            let mut smooth = |y: TensorId| {
                let (rows, channels) = (b.rows(y), b.width(y));
                let target = b.input("target", target, rows, channels);
                let valid = b.input("valid", valid, rows, 1);
                b.loss(Op::SmoothL1 { steps: 1, channels, target_channels: channels }, &[y, target, valid])
            };
            let parts = [smooth(y), smooth(x), smooth(y)];
            b.loss(Op::Sum, &parts)
        });
    }

    /// Checks a loss of an operand `[rows, width]`: gradients of all parameters against central differences, single against
    /// double precision, one against several threads, one run against two.
    pub fn check_loss(&mut self, rows: Rows, width: usize, build: impl Fn(&mut Builder, &Scope, TensorId) -> TensorId) {
        let count = rows.resolve(&self.counts);
        self.parameters.push("operand".into(), &[TABLE, width], false);
        let index = self.index((0..count).map(|i| (i * 7 % TABLE) as i32).collect());
        let shift = self.input(random(12, count * width));
        let mut b = Builder::new(Mode::Train);
        let root = self.parameters.root();
        let table = b.parameter(&root, "operand").unwrap();
        let x = b.gather(table, index, rows);
        let shift = b.input("shift", shift, rows, width);
        let x = b.add(x, shift, training_engine::graph::RowMap::Same).unwrap();
        let loss = build(&mut b, &root, x);
        b.result("loss", loss);
        let mut graph = b.finish();
        autodiff::differentiate(&mut graph, loss, &self.parameters, &[]).unwrap();
        let plan = Plan::new(graph, self.counts.clone());

        let values = random(SEED, self.parameters.len());
        let mut double = self.backend(Scalar::F64, 1);
        let exact = self.run(&mut *double, &plan, &values, 1);
        assert!(exact.loss.is_finite() && exact.gradient.iter().all(|g| g.is_finite()), "not finite: {exact:?}");
        for threads in [2, 3] {
            let mut other = self.backend(Scalar::F64, threads);
            assert!(self.run(&mut *other, &plan, &values, 1) == exact, "{threads} threads");
        }
        let twice = self.run(&mut *double, &plan, &values, 2);
        let most = exact.gradient.iter().fold(1e-3, |m: f64, g| m.max(g.abs()));
        for (twice, once) in twice.gradient.iter().zip(&exact.gradient) {
            assert!((twice - 2.0 * once).abs() <= 1e-13 * most, "two runs give {twice}, one {once}");
        }
        for i in sample(values.len()).filter(|_| !self.many) {
            const H: f64 = 1e-5;
            let mut at = |h: f64| {
                let mut values = values.clone();
                values[i] += h;
                self.run(&mut *double, &plan, &values, 1).loss
            };
            // Fourth order: the error of rounding, 1e-11, dominates.
            let slope = (8.0 * (at(H) - at(-H)) - (at(2.0 * H) - at(-2.0 * H))) / (12.0 * H);
            let name = self.parameters.name_at(i).unwrap();
            let error = (slope - exact.gradient[i]).abs();
            assert!(error <= 1e-7 * most.max(1e-2), "{name}[{i}]: {} and differences {slope}", exact.gradient[i]);
        }
        let mut single = self.backend(Scalar::F32, 2);
        let near = self.run(&mut *single, &plan, &values, 1);
        assert!((near.loss - exact.loss).abs() <= 1e-5 * exact.loss.abs().max(1.0), "{} and {}", near.loss, exact.loss);
        close(&near.y, &exact.y, 1e-5, "y");
        close(&near.gradient, &exact.gradient, 1e-4, "gradient");
        self.check_device(&plan, &values, &exact);
    }

    /// Checks the CUDA backend against the CPU in double precision: result and gradients, with products in less precision too; node by
    /// node against captured, one run against two, and on the emulated device all orders of threads, and for races.
    fn check_device(&self, plan: &Plan, values: &[f64], exact: &Outcome) {
        let has = |names: &[&str]| plan.graph.nodes.iter().any(|node| names.contains(&node.op.name()));
        // Products of numbers with 24, 11, 8 and 11 bits; gradients are of products of such products.
        let modes =
            [(Multiply::Tf32x3, 1e-5, 1e-4), (Multiply::Tf32, 3e-3, 1e-2), (Multiply::Bf16, 2e-2, 1e-1), (Multiply::F16, 3e-3, 1e-2)];
        let multiplies = has(&["linear", "linear_max", "linear_pair", "attention"]);
        for (multiply, bound, gradient_bound) in &modes[..if multiplies { 4 } else { 1 }] {
            // Every node by itself; many rows in chains, whose tiles and launches depend on them.
            let local = |graph: &Graph, node: &Node| self.many && cuda::runs_in_groups(graph, node);
            let plan = &Plan::grouped(plan.graph.clone(), plan.capacity.clone(), local, &cuda::halves(&plan.graph, *multiply));
            let open = |device: Box<dyn Device>| {
                cuda::with_device(device, *multiply, self.parameters.len(), self.parameters.statistics_len()).unwrap()
            };
            let mut backend = open(device::open());
            let ours = self.run(&mut *backend, plan, values, 1);
            let what = |name: &str| format!("{name} on the device with {multiply:?}");
            // About a square of y.
            near(&[ours.loss], &[exact.loss], 2.0 * bound, &what("loss"));
            // Terms of sums are larger than what is left of them.
            near_from(0.5, &ours.y, &exact.y, *bound, &what("y"));
            near(&ours.pending, &exact.pending, *bound, &what("statistics"));
            let relu = |op: &Op| matches!(op, Op::Linear { activation: Activation::Relu, .. });
            if *multiply == Multiply::Tf32x3 || !has(&["linear_max"]) && !plan.graph.nodes.iter().any(|node| relu(&node.op)) {
                near(&ours.gradient, &exact.gradient, *gradient_bound, &what("gradient"));
            } else if !has(&["linear_max"]) {
                // What is nearly zero may have the other sign: single elements jump.
                close(&ours.gradient, &exact.gradient, *gradient_bound, &what("gradient"));
            } // Another row may be the largest where two are nearly equal: nothing is left to compare.
            // Half precision runs the code of bfloat16, but for an instruction.
            if *multiply == Multiply::F16 && !device::is_gpu() || self.many && *multiply != Multiply::Bf16 {
                continue;
            }
            let twice = self.run(&mut *backend, plan, values, 2);
            let double: Vec<f64> = ours.gradient.iter().map(|g| 2.0 * g).collect();
            near(&twice.gradient, &double, 1e-6, &what("gradient of two runs"));
            assert!(self.run_node_by_node(&mut *backend, plan, values) == ours, "{}", what("node by node"));
            assert!(self.run(&mut *backend, plan, values, 1) == ours, "{}", what("once more"));
            if device::is_gpu() || device::is_compiled() {
                continue;
            }
            let schedules = if *multiply == Multiply::Tf32x3 { &Schedule::ALL[1..] } else { &[Schedule::Random][..] };
            for schedule in schedules {
                let mut backend = open(Box::new(Emulator::new().with_schedule(*schedule)));
                assert!(self.run(&mut *backend, plan, values, 1) == ours, "{}", what(&format!("{schedule:?}")));
            }
            // With TE_COSTS: prints what accesses to memory would cost.
            let device = if std::env::var_os("TE_COSTS").is_some() { Emulator::measured() } else { Emulator::checked() };
            // Compiled otherwise: another rounding here and there.
            near_from(0.5, &self.run(&mut *open(Box::new(device.clone())), plan, values, 1).y, &exact.y, *bound, &what("y, watched,"));
            assert_eq!(device.reports(), Vec::<String>::new(), "{}", what("races"));
            device.costs().iter().for_each(|cost| println!("{cost}"));
        }
    }

    /// As [`Case::run`], but not captured.
    fn run_node_by_node(&self, backend: &mut dyn Backend, plan: &Plan, values: &[f64]) -> Outcome {
        self.start(backend, values);
        let feed = self.feed(backend.scalar());
        assert_eq!(backend.run_watched(plan, &feed, &STEP).unwrap(), None, "not finite");
        self.outcome(backend, plan, &feed)
    }

    fn backend(&self, scalar: Scalar, threads: usize) -> Box<dyn Backend> {
        cpu::new(scalar, threads, self.parameters.len(), self.parameters.statistics_len()).unwrap()
    }

    fn feed(&self, scalar: Scalar) -> Feed {
        let mut feed = Feed {
            counts: self.counts.clone(),
            reals: Reals::new(scalar),
            real_slots: Vec::new(),
            indexes: Vec::new(),
            index_slots: Vec::new(),
        };
        for values in &self.inputs {
            let start = feed.reals.len();
            values.iter().for_each(|&v| feed.reals.push(v));
            feed.real_slots.push(start..feed.reals.len());
        }
        for values in &self.indexes {
            let start = feed.indexes.len();
            feed.indexes.extend(values);
            feed.index_slots.push(start..feed.indexes.len());
        }
        feed
    }

    fn run(&self, backend: &mut dyn Backend, plan: &Plan, values: &[f64], times: usize) -> Outcome {
        self.start(backend, values);
        let feed = self.feed(backend.scalar());
        for _ in 0..times {
            backend.run(plan, &feed, &STEP).unwrap();
        }
        self.outcome(backend, plan, &feed)
    }

    fn start(&self, backend: &mut dyn Backend, values: &[f64]) {
        backend.write(Buffer::Parameters, values).unwrap();
        backend.write(Buffer::Statistics, &vec![0.5; self.parameters.statistics_len()]).unwrap();
        backend.discard().unwrap();
        // Lifts gradients above the smallest numbers of half precision, and none above the largest.
        backend.set_loss_scale(&LossScale { scale: 1024.0, ..LossScale::default() }).unwrap();
    }

    fn outcome(&self, backend: &dyn Backend, plan: &Plan, feed: &Feed) -> Outcome {
        let scale = backend.loss_scale().unwrap().map_or(1.0, |scale| scale.scale);
        let read = |name: &str| plan.graph.result(name).map_or(Vec::new(), |id| backend.output(plan, feed, id).unwrap().to_vec());
        Outcome {
            loss: read("loss")[0],
            y: read("y"),
            gradient: backend.read(Buffer::Gradients).unwrap().iter().map(|g| g / scale).collect(),
            pending: backend.read(Buffer::PendingStatistics).unwrap(),
        }
    }
}

/// Elements whose gradient is checked: all of few, some of many.
fn sample(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by((len / 40).max(1))
}

/// Every element within a share of the largest.
fn near(a: &[f64], b: &[f64], bound: f64, what: &str) {
    near_from(1e-3, a, b, bound, what);
}

/// Every element within a share of the largest, or of `most` if none is as large.
fn near_from(most: f64, a: &[f64], b: &[f64], bound: f64, what: &str) {
    let most = b.iter().fold(most, |most: f64, b| most.max(b.abs()));
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let ok = (a - b).abs() <= bound * most;
        assert!(ok, "{what}: element {i} is {a}, not {b}; the largest is {most}");
    }
}

fn close(a: &[f64], b: &[f64], bound: f64, what: &str) {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    let size = norm(&mut b.iter().copied()).max(1e-3);
    assert!(a.len() == b.len() && error <= bound * size, "{what}: error {error} of {size}");
}

/// Formulas written out.
pub mod naive {
    /// x Wᵀ + b.
    pub fn linear(x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
        let k = w.len() / b.len();
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        x.chunks(k).flat_map(|x| w.chunks(k).zip(b).map(move |(w, b)| dot(x, w) + b)).collect()
    }

    /// (x - mean) / sqrt(var + 1e-5).
    pub fn normalised(x: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        x.iter().map(|v| (v - mean) / (variance + 1e-5).sqrt()).collect()
    }
}
