//! Whole training steps of the CUDA backend beside the CPU's: every value of every node, captured against single launches, and the
//! losses of a run.

mod device;
mod golden_case;
#[path = "common/plan.rs"]
mod plan;
#[path = "common/synthetic.rs"]
mod synthetic;

use golden_case::Case;
use std::collections::{HashSet, VecDeque};
use training_engine::{
    backend::{
        Buffer, cpu,
        cuda::{self, Multiply, kernels},
    },
    config::{ModelConfig, ObjectiveConfig},
    data::{Batch, batch::Input, collate},
    features::Features,
    graph::{Element, Op, Pass, Place, Plan, Reals, Scalar, Step, TensorId},
    optim::{self, schedule::warmup_cosine},
    trainer::session::{Clip, LossScale, Rule, Session, Update},
};

/// Of half precision; the first of a run is too much for these gradients.
const SCALE: LossScale = LossScale { scale: 1024.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000, growth_tracker: 0 };

/// A network, and scenarios to train it on.
struct Toy {
    model: ModelConfig,
    objectives: ObjectiveConfig,
    features: Vec<Features>,
}

/// A reduced network with all that is random, which both backends draw alike.
fn small() -> Toy {
    let case = Case::read(&device::repository().join("tests/data/golden/small.safetensors.gz"));
    let features = case.features();
    let model = ModelConfig { dropout: 0.1, drop_path: 0.2, state_dropout: 0.75, ..case.model };
    Toy { model, objectives: case.objectives, features }
}

/// The published network with scenarios of full size, for which the emulated device is too slow.
fn full() -> Toy {
    let features = (0..3).map(synthetic::features).collect();
    Toy { model: ModelConfig::default(), objectives: ObjectiveConfig::default(), features }
}

fn toys() -> Vec<Toy> {
    if device::is_gpu() { vec![small(), full()] } else { vec![small()] }
}

impl Toy {
    fn batch(&self, scalar: Scalar) -> Batch {
        let session = Session::new(&self.model, &self.objectives, scalar, 1, 0).unwrap();
        collate(&self.features.iter().collect::<Vec<_>>(), &[], &session.batch_options(false)).unwrap()
    }
    fn on_device(&self, multiply: Multiply) -> Session {
        let open = |parameters, statistics| cuda::with_device(device::open(), multiply, parameters, statistics);
        let mut session = Session::with_backend(&self.model, &self.objectives, 1, open).unwrap();
        session.set_loss_scale(&SCALE).unwrap();
        session
    }
    fn on_cpu(&self, scalar: Scalar) -> Session {
        Session::new(&self.model, &self.objectives, scalar, 2, 1).unwrap()
    }
}

#[test]
fn the_device_is_there() {
    let device = device::open();
    let memory = device.memory().unwrap();
    println!("{}, {} of {} MiB free; kernels for {}", device.describe(), memory.free >> 20, memory.total >> 20, kernels::architectures());
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// ‖a - b‖ / ‖b‖; where b is zero, ‖a‖.
fn relative(ours: &[f64], theirs: &[f64]) -> f64 {
    let difference: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
    let scale = norm(theirs);
    if ours.len() == theirs.len() { norm(&difference) / if scale == 0.0 { 1.0 } else { scale } } else { f64::INFINITY }
}

/// Tensors of reals in the arena with the node that writes each last, in the order of the nodes.
fn written(plan: &Plan) -> Vec<(usize, TensorId)> {
    let mut last = vec![None; plan.graph.tensors.len()];
    for (n, node) in plan.graph.nodes.iter().enumerate() {
        node.outputs.iter().flatten().for_each(|id| last[id.0] = Some(n));
    }
    let all = last.iter().enumerate().filter_map(|(tensor, node)| Some(((*node)?, TensorId(tensor))));
    let is_real = |id: TensorId| plan.graph.tensor(id).element != Element::Index && plan.graph.tensor(id).place == Place::Arena;
    let mut all: Vec<_> = all.filter(|(_, id)| is_real(*id)).collect();
    all.sort_by_key(|&(node, id)| (node, id));
    all
}

/// Gradients that went through a maximum over rows: to another row where two are nearly equal.
fn behind_maxima(plan: &Plan) -> HashSet<TensorId> {
    let mut behind = HashSet::new();
    for node in plan.graph.nodes.iter().filter(|node| node.pass == Pass::Backward) {
        let is_maximum = matches!(node.op, Op::LinearMax { .. } | Op::NormLinearMax { .. });
        if is_maximum || node.inputs.iter().flatten().any(|id| behind.contains(id)) {
            behind.extend(node.outputs.iter().flatten().filter(|id| plan.graph.tensor(**id).place == Place::Arena));
        }
    }
    behind
}

/// Largest errors against the CPU in double precision, each at least twice what the emulated device has on either network.
struct Bounds {
    /// Of half of all tensors.
    median: f64,
    value: f64,
    /// Of what went through a maximum, where single precision on the CPU has 1e-2; none for bfloat16, with which most go elsewhere.
    behind_maxima: f64,
    /// Of a parameter, on the scale of the whole gradient.
    gradient: f64,
}

const TF32X3: Bounds = Bounds { median: 2e-6, value: 2e-5, behind_maxima: 3e-2, gradient: 2e-4 };
const TF32: Bounds = Bounds { median: 3e-3, value: 6e-2, behind_maxima: 4e-1, gradient: 6.5e-2 };
/// The largest error of bfloat16, 3e-1, is in the attention of an encoder block of the published network, where tf32 has less than 1e-2. PyTorch so
/// rounded has up to 1.6e-1 in the whole gradient of this network (`tests/reference/rounded.py`).
const BF16: Bounds = Bounds { median: 3e-2, value: 6e-1, behind_maxima: f64::INFINITY, gradient: 2.3e-1 };

/// What was compared, its error and its bound.
type Compared = (String, f64, f64);

/// One training step on both backends, by one plan that keeps every tensor to the end: tensors in the order in which nodes wrote them,
/// then gradients of parameters.
fn compare(toy: &Toy, multiply: Multiply, bounds: &Bounds) -> Vec<Compared> {
    let session = Session::new(&toy.model, &toy.objectives, Scalar::F64, 1, 1).unwrap();
    let parameters = session.parameters();
    let (len, statistics_len) = (parameters.len(), parameters.statistics_len());
    let mut ours = cuda::with_device(device::open(), multiply, len, statistics_len).unwrap();
    ours.set_loss_scale(&SCALE).unwrap();
    let scale = ours.loss_scale().unwrap().map_or(1.0, |scale| scale.scale);
    let mut theirs = cpu::new(Scalar::F64, 2, len, statistics_len).unwrap();
    let [single, double] = [Scalar::F32, Scalar::F64].map(|scalar| toy.batch(scalar));
    let mut graph = plan::training(&toy.model, &toy.objectives, parameters, single.cost_map_size);
    let arena = (0..graph.tensors.len()).map(TensorId).filter(|id| graph.tensor(*id).place == Place::Arena);
    let kept: Vec<_> = arena.map(|id| (format!("tensor {}", id.0), id)).collect();
    graph.results.extend(kept);
    // The same order of nodes; the CPU has no tensors in 16 bits.
    let planned = |halves: &[TensorId]| {
        Plan::grouped(graph.clone(), single.feed.counts.clone(), |graph, node| ours.runs_in_groups(graph, node), halves)
    };
    let (plan, reference) = (planned(&ours.halves(&graph)), planned(&[]));
    for (backend, plan, batch) in [(&mut ours, &plan, &single), (&mut theirs, &reference, &double)] {
        for buffer in [Buffer::Parameters, Buffer::Statistics] {
            backend.write(buffer, &session.read(buffer).unwrap()).unwrap();
        }
        backend.run(plan, &batch.feed, &Step { seed: 3, step: 7 }).unwrap();
    }
    let behind = behind_maxima(&plan);
    let mut compared: Vec<Compared> = Vec::new();
    for (n, id) in written(&plan) {
        let (node, tensor) = (&plan.graph.nodes[n], plan.graph.tensor(id));
        let name = format!("node {n}, {} {:?} of '{}': {}", node.op.name(), node.pass, node.name, tensor.name);
        let a = ours.output(&plan, &single.feed, id).unwrap().to_vec();
        let mut b = theirs.output(&reference, &double.feed, id).unwrap().to_vec();
        if node.pass == Pass::Backward {
            b.iter_mut().for_each(|b| *b *= scale);
        }
        compared.push((name, relative(&a, &b), if behind.contains(&id) { bounds.behind_maxima } else { bounds.value }));
    }
    let [a, mut b] = [&ours, &theirs].map(|backend| backend.read(Buffer::Gradients).unwrap());
    b.iter_mut().for_each(|b| *b *= scale);
    let whole = norm(&b);
    for p in parameters.iter().filter(|p| !p.statistic) {
        let (a, b) = (&a[p.range()], &b[p.range()]);
        let scale = if norm(b) == 0.0 { 1.0 } else { norm(b) };
        compared.push((format!("gradient of '{}'", p.name), relative(a, b) * scale / whole, bounds.gradient));
    }
    compared
}

#[test]
fn every_node_agrees_with_the_cpu() {
    for toy in toys() {
        // Half precision has as many bits as tf32.
        for (multiply, bounds) in [(Multiply::Tf32x3, TF32X3), (Multiply::Tf32, TF32), (Multiply::Bf16, BF16), (Multiply::F16, TF32)] {
            let compared = compare(&toy, multiply, &bounds);
            let mut all: Vec<f64> = compared.iter().map(|(_, error, _)| *error).collect();
            all.sort_by(f64::total_cmp);
            let median = all[all.len() / 2];
            let worst = compared.iter().max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2))).unwrap();
            println!(
                "{}, {multiply:?}, {} tensors: median {median:.1e}, worst {:.1e} of {:.0e}, {}",
                device::name(),
                compared.len(),
                worst.1,
                worst.2,
                worst.0
            );
            let is_wrong = |(_, error, bound): &&Compared| error > bound || !error.is_finite();
            let wrong: Vec<_> = compared.iter().filter(is_wrong).collect();
            assert!(median <= bounds.median, "{multiply:?}: half of all tensors differ by {median} and more");
            assert!(wrong.is_empty(), "{multiply:?}: {} of {} differ, first {:?}", wrong.len(), compared.len(), wrong[0]);
        }
    }
}

/// Number `step` of 300 steps.
fn update(step: usize) -> Update {
    Update {
        learning_rate: warmup_cosine(step, 3e-4, 300, 30),
        rule: Rule::AdamW { beta: optim::BETA, epsilon: optim::EPSILON },
        weight_decay: 1e-4,
        count: step as u64 + 1,
        scale: 1.0,
        clip: Some(Clip::Norm(5.0)),
    }
}

#[test]
fn captured_steps_have_the_bits_of_single_launches() {
    for toy in toys() {
        let batch = toy.batch(Scalar::F32);
        for multiply in [Multiply::Tf32x3, Multiply::Tf32, Multiply::Bf16, Multiply::F16] {
            let mut captured = toy.on_device(multiply);
            let mut single = toy.on_device(multiply);
            single.detect_anomaly();
            for step in 0..2 {
                let losses = [&mut captured, &mut single].map(|session| session.train(&batch, step).unwrap());
                assert_eq!(losses[0], losses[1], "{multiply:?}, step {step}");
                let same = |captured: &Session, single: &Session, buffer| {
                    let [a, b] = [captured, single].map(|session| session.read(buffer).unwrap());
                    assert!(a == b, "{multiply:?}, step {step}: {buffer:?}");
                };
                [Buffer::Gradients, Buffer::PendingStatistics].into_iter().for_each(|buffer| same(&captured, &single, buffer));
                let updated = [&mut captured, &mut single].map(|session| session.update(&update(step as usize)).unwrap());
                assert!(updated[0] == updated[1] && updated[0].applied, "{multiply:?}, step {step}: {updated:?}");
                [Buffer::Parameters, Buffer::Statistics].into_iter().for_each(|buffer| same(&captured, &single, buffer));
            }
        }
    }
}

/// Steps that begin before the reports of those before them, on a device that works as late as it may. Updates do not know when they begin
/// whether those before them are applied, some of which have a gradient or a loss that is not finite.
#[test]
fn steps_under_way_have_the_bits_of_single_ones() {
    let toy = small();
    let options = toy.on_device(Multiply::Tf32).batch_options(false);
    let mut batches: Vec<Batch> =
        [0..1, 0..2, 1..2, 0..1].map(|part| collate(&toy.features[part].iter().collect::<Vec<_>>(), &[], &options).unwrap()).into();
    let largest = collate(&toy.features.iter().collect::<Vec<_>>(), &[], &options).unwrap();
    batches.push(batches[0].clone());
    let slot = batches[4].feed.real_slots[Input::EgoTarget as usize].clone();
    let Reals::F32(reals) = &mut batches[4].feed.reals else { panic!("single precision") };
    reals[slot].fill(f32::NAN);
    let run = |late: bool, lag: usize| {
        let device = if late { device::late() } else { device::open() };
        let open = |parameters, statistics| cuda::with_device(device, Multiply::Tf32, parameters, statistics);
        let mut session = Session::with_backend(&toy.model, &toy.objectives, 1, open).unwrap();
        assert!(session.evaluate(&largest).unwrap().loss.is_finite() && session.lag() == 2);
        let (mut reports, mut told, mut applied) = (VecDeque::new(), Vec::new(), 0);
        let mut settle = |session: &mut Session, reports: &mut VecDeque<_>| {
            let report = session.training_report(reports.pop_front().unwrap()).unwrap();
            applied += u64::from(report.updated.applied);
            told.push(format!("{report:?} {:?}", session.metrics()));
            applied
        };
        let mut known = 0;
        for step in 0..9 {
            // Two batches make an update at times.
            if step == 3 {
                session.begin_training(&batches[step % 4], 77).unwrap();
            }
            session.begin_training(&batches[if step == 5 { 4 } else { step % 4 }], step as u64).unwrap();
            if step == 5 {
                session.begin_training(&batches[1], 78).unwrap();
            }
            let scale = if [1, 2, 7].contains(&step) { f64::NAN } else { 0.5 };
            let update = Update { count: known + reports.len() as u64 + 1, scale, ..update(step) };
            session.begin_update(&update).unwrap();
            reports.push_back(session.begin_report().unwrap());
            while reports.len() > lag {
                known = settle(&mut session, &mut reports);
            }
        }
        while !reports.is_empty() {
            known = settle(&mut session, &mut reports);
        }
        assert_eq!((known, told.len()), (5, 9), "four updates are not applied");
        let buffers = [Buffer::Parameters, Buffer::FirstMoments, Buffer::SecondMoments, Buffer::Statistics, Buffer::Gradients];
        (told, buffers.map(|buffer| session.read(buffer).unwrap()))
    };
    let single = run(false, 0);
    assert!(single.1.iter().flatten().all(|x| x.is_finite()));
    for (late, lag) in [(false, 1), (true, 0), (true, 2)] {
        assert!(run(late, lag) == single, "late: {late}, {lag} steps under way");
    }
}

/// Losses of training steps, each on its scenarios.
fn train(mut session: Session, toy: &Toy, steps: usize) -> Vec<f64> {
    let options = session.batch_options(false);
    let one_left_out = |out: usize| toy.features.iter().enumerate().filter(move |(i, _)| *i != out).map(|(_, features)| features);
    let batches: Vec<Batch> =
        (0..toy.features.len()).map(|i| collate(&one_left_out(i).collect::<Vec<_>>(), &[], &options).unwrap()).collect();
    (0..steps)
        .map(|step| {
            let loss = session.train(&batches[step % batches.len()], step as u64).unwrap().loss;
            assert!(session.update(&update(step)).unwrap().applied);
            loss
        })
        .collect()
}

/// Largest relative difference of means over ten steps.
fn deviation(ours: &[f64], theirs: &[f64]) -> f64 {
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    ours.chunks(10).zip(theirs.chunks(10)).map(|(a, b)| (mean(a) / mean(b) - 1.0).abs()).fold(0.0, f64::max)
}

#[test]
fn training_follows_the_cpu() {
    let toy = small();
    let steps = std::env::var("TE_TEST_STEPS").map_or(if device::is_gpu() { 300 } else { 5 }, |steps| steps.parse().unwrap());
    let double = train(toy.on_cpu(Scalar::F64), &toy, steps);
    let single = deviation(&train(toy.on_cpu(Scalar::F32), &toy, steps), &double);
    println!("{steps} steps from loss {:.3} to {:.3}; the CPU in single precision deviates by {single:.1e}", double[0], double[steps - 1]);
    // A run in single precision leaves another one by as much as both leave the exact one; products of fewer bits begin further away, and
    // over few steps have the bounds of the golden cases.
    for (multiply, least) in [(Multiply::Tf32x3, 1e-3), (Multiply::Tf32, 1e-2), (Multiply::Bf16, 3e-2)] {
        let (deviation, bound) = (deviation(&train(toy.on_device(multiply), &toy, steps), &double), (4.0 * single).max(least));
        println!("{}, {multiply:?}: deviates by {deviation:.1e} of {bound:.1e}", device::name());
        assert!(deviation <= bound, "{multiply:?}: losses deviate by {deviation}");
    }
}
