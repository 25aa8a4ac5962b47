//! What the CUDA backend asks of a device in a step of the full-size network, and what it does where the device has too little memory
//! or fails: on a device that keeps memory and count of calls, and runs nothing.

#[path = "common/plan.rs"]
mod plan;
#[path = "common/resources.rs"]
mod resources;
#[path = "common/synthetic.rs"]
mod synthetic;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use training_engine::{
    backend::cuda::{
        self, Multiply,
        device::{Address, Captured, Device, Launch, Memory},
    },
    config::{ModelConfig, ObjectiveConfig},
    data::{Batch, collate},
    error::{Error, Result},
    graph::{Builder, Mode, Parameters, Plan, Rows, Symbol},
    model::params,
    trainer::session::{Clip, Rule, Session, Update},
};

/// What a device was asked for.
#[derive(Debug, Default)]
struct Log {
    allocated: BTreeMap<Address, usize>,
    launches: Vec<Launch>,
    captured: Vec<Vec<Launch>>,
    uploads: usize,
    fetches: usize,
    waits: usize,
    /// Calls until everything fails.
    left: Option<usize>,
}

#[derive(Clone, Default)]
struct Recording {
    log: Arc<Mutex<Log>>,
    free: usize,
}

impl Recording {
    fn call<T>(&self, f: impl FnOnce(&mut Log) -> T) -> Result<T> {
        let mut log = self.log.lock().unwrap();
        match &mut log.left {
            Some(0) => return Err(Error::Backend("the device is lost".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(f(&mut log))
    }
}

impl Device for Recording {
    fn describe(&self) -> String {
        "a device that runs nothing".into()
    }
    fn memory(&self) -> Result<Memory> {
        self.call(|log| Memory { free: self.free.saturating_sub(log.allocated.values().sum()), total: self.free })
    }
    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.call(|log| {
            let end = log.allocated.last_key_value().map_or(1 << 20, |(start, bytes)| start + *bytes as Address);
            let start = end.next_multiple_of(256);
            log.allocated.insert(start, bytes.max(1));
            start
        })
    }
    fn free(&self, address: Address) {
        assert!(self.log.lock().unwrap().allocated.remove(&address).is_some(), "freed twice");
    }
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.call(|log| {
            let (start, room) = log.allocated.range(..=to).next_back().expect("an allocation");
            assert!(to as usize + bytes.len() <= *start as usize + room, "upload of {} bytes outside", bytes.len());
            log.uploads += 1;
        })
    }
    fn send(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.upload(to, bytes)
    }
    fn receive(&self) -> Result<()> {
        self.call(|_| ())
    }
    fn download(&self, _: Address, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        self.call(|log| log.waits += 1)
    }
    fn fetch(&self, _: Address, _: usize, _: usize) -> Result<()> {
        self.call(|log| log.fetches += 1)
    }
    fn fetched(&self, _: usize, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        self.call(|log| log.waits += 1)
    }
    fn copy(&self, _: Address, _: Address, _: usize) -> Result<()> {
        self.call(|_| ())
    }
    fn clear(&self, _: Address, _: usize) -> Result<()> {
        self.call(|_| ())
    }
    fn launch(&self, launch: &Launch) -> Result<()> {
        self.call(|log| log.launches.push(launch.clone()))
    }
    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>> {
        self.call(|log| log.launches.extend_from_slice(launches)).map(|()| vec![0.0; launches.len()])
    }
    fn synchronise(&self) -> Result<()> {
        self.call(|log| log.waits += 1)
    }
    fn capture(&self, launches: &[Launch]) -> Result<Captured> {
        self.call(|log| {
            log.captured.push(launches.to_vec());
            Captured(log.captured.len() as u64 - 1)
        })
    }
    fn replay(&self, captured: Captured) -> Result<()> {
        self.call(|log| {
            let launches = log.captured[captured.0 as usize].clone();
            log.launches.extend(launches);
        })
    }
    fn release(&self, _: Captured) {}
}

fn session(device: Recording, multiply: Multiply) -> Result<Session> {
    let (model, objectives) = (ModelConfig::default(), ObjectiveConfig::default());
    let open = |parameters, statistics| cuda::with_device(Box::new(device), multiply, parameters, statistics);
    Session::with_backend(&model, &objectives, 1, open)
}

fn batch(session: &Session, size: u32) -> Batch {
    let scenarios: Vec<_> = (0..size).map(synthetic::features).collect();
    collate(&scenarios.iter().collect::<Vec<_>>(), &[], &session.batch_options(false)).unwrap()
}

const UPDATE: Update = Update {
    rule: Rule::AdamW { beta: [0.9, 0.999], epsilon: 1e-8 },
    learning_rate: 1e-3,
    weight_decay: 1e-4,
    count: 1,
    scale: 1.0,
    clip: Some(Clip::Norm(5.0)),
};

/// Counts of one training step with batch 32, and of the update after it.
#[test]
fn launches_and_waits_of_a_step() {
    for multiply in [Multiply::Tf32x3, Multiply::Bf16] {
        check_launches_and_waits(multiply);
    }
}

fn check_launches_and_waits(multiply: Multiply) {
    let device = Recording { free: 1 << 34, ..Recording::default() };
    let mut session = session(device.clone(), multiply).unwrap();
    let batch = batch(&session, 32);
    session.train(&batch, 0).unwrap();
    let taken = std::mem::take(&mut device.log.lock().unwrap().launches);
    let mut kernels = BTreeMap::new();
    taken.iter().for_each(|launch| *kernels.entry(launch.kernel.as_str()).or_insert(0) += 1);
    println!("{kernels:?}");
    let counts = || {
        let mut log = device.log.lock().unwrap();
        let counts = (log.uploads, log.fetches, log.waits);
        (log.uploads, log.fetches, log.waits) = (0, 0, 0);
        (counts, std::mem::take(&mut log.launches))
    };
    counts();
    session.begin_training(&batch, 1).unwrap();
    let (copies, launches) = counts();
    println!("{multiply:?}: a step: {} launches, {copies:?} uploads, fetches, waits", launches.len());
    assert!(launches == taken && device.log.lock().unwrap().captured.len() == 1, "the second step replays the first");
    assert!(launches.len() <= 150, "{} launches", launches.len());
    assert_eq!(copies, (3, 0, 0), "the batch goes up in three copies");
    session.begin_update(&UPDATE).unwrap();
    let report = session.begin_report().unwrap();
    let (copies, launches) = counts();
    println!("{multiply:?}: an update and the report: {} launches, {copies:?} uploads, fetches, waits", launches.len());
    assert_eq!((launches.len(), copies), (2, (1, 1, 0)), "all that is asked of both comes in one copy");
    for step in 2..2 + session.lag() as u64 {
        session.begin_training(&batch, step).unwrap();
        session.begin_update(&UPDATE).unwrap();
        session.begin_report().unwrap();
    }
    assert_eq!(counts().0, (8, 2, 0), "nothing waits for the steps before");
    session.training_report(report).unwrap();
    assert_eq!(counts().0, (0, 0, 1));
    drop(session);
    assert!(device.log.lock().unwrap().allocated.is_empty(), "all memory is given back");
}

/// Calls `look` with what a training step with batch 32 asked of the device, in every precision.
fn each_precision(look: impl Fn(Multiply, &Log)) {
    for multiply in [Multiply::Tf32x3, Multiply::Tf32, Multiply::Bf16, Multiply::F16] {
        let device = Recording { free: 1 << 34, ..Recording::default() };
        let mut session = session(device.clone(), multiply).unwrap();
        let batch = batch(&session, 32);
        session.train(&batch, 0).unwrap();
        look(multiply, &device.log.lock().unwrap());
    }
}

#[test]
fn a_step_with_batch_32_takes_less_than_a_gigabyte() {
    each_precision(|multiply, log| {
        let memory: usize = log.allocated.values().sum();
        println!("{multiply:?}: {memory} bytes of the device's memory, by allocation {:?}", log.allocated.values().collect::<Vec<_>>());
        assert!(memory <= 1_000_000_000, "{memory} bytes of the device's memory");
    });
}

/// Every launch of a step finds the shared memory, static and dynamic, and the registers that a block needs, on the architectures that have
/// least.
#[test]
fn a_block_of_every_launch_fits_every_architecture() {
    const SHARED: u32 = 99 << 10;
    const REGISTERS: u32 = 64 << 10;
    let usages = resources::of_kernels();
    each_precision(|multiply, log| {
        let (mut most, mut known) = (0, 0);
        for launch in &log.launches {
            most = most.max(launch.shared);
            assert!(launch.shared <= SHARED, "{} asks for {} bytes", launch.kernel, launch.shared);
            for usage in usages.iter().filter(|usage| usage.kernel == launch.kernel) {
                let (all, architecture) = (usage.shared + launch.shared, &usage.architecture);
                assert!(all <= SHARED, "{} needs {all} bytes on {architecture}", launch.kernel);
                // A warp's come in units of 256.
                let registers = launch.block.next_multiple_of(32) * usage.registers.next_multiple_of(8);
                assert!(registers <= REGISTERS, "{} needs {registers} registers on {architecture}", launch.kernel);
                known += 1;
            }
        }
        assert!(most > 0 && (usages.is_empty() || known >= log.launches.len()), "{known} kernels are known");
        println!("{multiply:?}: at most {most} bytes of dynamic shared memory");
    });
}

/// The arena of a training step with batch 32 beside what is alive at once.
#[test]
fn places_in_the_arena_leave_little_unused() {
    let session = session(Recording { free: 1 << 34, ..Recording::default() }, Multiply::default()).unwrap();
    let (batch, parameters) = (batch(&session, 32), params::parameters(&params::specifications(session.model())));
    let graph = plan::training(session.model(), &ObjectiveConfig::default(), &parameters, batch.cost_map_size);
    // Of both points encoders: results of the first layer and of the pair, and their gradients (8). What only linear layers read of norms and GELU (75).
    for (multiply, count) in [(Multiply::Tf32, 0), (Multiply::Bf16, 83)] {
        let halves = cuda::halves(&graph, multiply);
        assert_eq!(halves.len(), count);
        let plan = Plan::grouped(graph.clone(), batch.feed.counts.clone(), cuda::runs_in_groups, &halves);
        let least = plan.alive().into_iter().max().unwrap();
        println!("{multiply:?}: {} bytes in the arena, {} alive at once", 4 * plan.real_len, 4 * least);
        assert!(plan.real_len <= least + least / 50);
    }
}

#[test]
fn a_sequence_too_large_for_shared_memory_is_an_error() {
    let launches = |length: usize| {
        let mut parameters = Parameters::default();
        parameters.push("rpb".into(), &[2, 5], false);
        let mut b = Builder::new(Mode::Evaluate);
        let x = b.input("x", 0, Rows { times: length, ..Rows::of(Symbol(0)) }, 3 * 64);
        let y = b.neighborhood(x, length, 2, 3, parameters.root().vector("rpb").unwrap()).unwrap();
        b.result("y", y);
        cuda::launches(&Plan::grouped(b.finish(), vec![4], cuda::runs_in_groups, &[]), Multiply::Tf32)
    };
    assert_eq!(launches(20).unwrap().1.len(), 1);
    let error = launches(500).unwrap_err().to_string();
    assert!(error.contains("500 rows") && error.contains("shared memory"), "{error}");
}

#[test]
fn too_little_memory_is_an_error_with_numbers() {
    let small = session(Recording { free: 10 << 20, ..Recording::default() }, Multiply::default()).err().expect("too small").to_string();
    assert!(small.contains("10 MiB free") && small.contains("parameters"), "{small}");
    let mut session = session(Recording { free: 100 << 20, ..Recording::default() }, Multiply::default()).unwrap();
    let batch = batch(&session, 8);
    let error = session.train(&batch, 0).unwrap_err().to_string();
    assert!(error.contains("MiB are needed") && error.contains("smaller batch"), "{error}");
}

#[test]
fn a_lost_device_is_an_error_every_time() {
    let device = Recording { free: 1 << 34, ..Recording::default() };
    let mut session = session(device.clone(), Multiply::default()).unwrap();
    let batch = batch(&session, 1);
    session.train(&batch, 0).unwrap();
    for left in 0..5 {
        device.log.lock().unwrap().left = Some(left);
        let lost = |error: Error| assert!(error.to_string().contains("the device is lost"), "{error}");
        lost(session.train(&batch, 1).unwrap_err());
        lost(session.update(&UPDATE).unwrap_err());
    }
    assert!(session.outputs(&batch).is_err());
}

/// The scale of the loss stays on the device: the host neither brings nor fetches more for it.
#[test]
fn half_precision_needs_no_more_copies() {
    let [single, half] = [Multiply::default(), Multiply::F16].map(|multiply| {
        let device = Recording { free: 1 << 34, ..Recording::default() };
        let mut session = session(device.clone(), multiply).unwrap();
        let batch = batch(&session, 1);
        session.train(&batch, 0).unwrap();
        let counts = || {
            let log = device.log.lock().unwrap();
            [log.launches.len(), log.uploads, log.waits]
        };
        let before = counts();
        _ = session.update(&UPDATE);
        let after = counts();
        [0, 1, 2].map(|i| after[i] - before[i])
    });
    assert_eq!(half, [single[0] + 1, single[1], single[2]]);
}
