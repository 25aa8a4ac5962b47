//! The step loop allocates nothing once it is warm, but for what the crate of the matrix products packs its operands into.

#![allow(unsafe_code, reason = "a global allocator that counts")]

mod golden_case;

use golden_case::Case;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};
use training_engine::{
    backend::cuda::{
        self, Multiply,
        device::{Address, Captured, Device, Launch, Memory},
    },
    config::{
        Config, ObjectiveConfig,
        module::{Aggregate, Metric, ModuleKind, Objective, Term},
    },
    data::collate,
    error::Result,
    features::Features,
    graph::Scalar,
    trainer::{Session, TrainingModule},
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // The products' packing memory is aligned to vector registers; nothing of ours is.
        ALLOCATIONS.fetch_add(usize::from(layout.align() < 32), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A CUDA device that does nothing and gives zeros.
struct Idle;

impl Device for Idle {
    fn describe(&self) -> String {
        String::new()
    }
    fn memory(&self) -> Result<Memory> {
        Ok(Memory { free: 1 << 40, total: 1 << 40 })
    }
    fn allocate(&self, _: usize) -> Result<Address> {
        Ok(1 << 20)
    }
    fn free(&self, _: Address) {}
    fn upload(&self, _: Address, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn send(&self, _: Address, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn receive(&self) -> Result<()> {
        Ok(())
    }
    fn download(&self, _: Address, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }
    fn copy(&self, _: Address, _: Address, _: usize) -> Result<()> {
        Ok(())
    }
    fn clear(&self, _: Address, _: usize) -> Result<()> {
        Ok(())
    }
    fn launch(&self, _: &Launch) -> Result<()> {
        Ok(())
    }
    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>> {
        Ok(vec![0.0; launches.len()])
    }
    fn synchronise(&self) -> Result<()> {
        Ok(())
    }
    fn capture(&self, _: &[Launch]) -> Result<Captured> {
        Ok(Captured(0))
    }
    fn replay(&self, _: Captured) -> Result<()> {
        Ok(())
    }
    fn release(&self, _: Captured) {}
    fn fetch(&self, _: Address, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    fn fetched(&self, _: usize, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }
}

#[test]
fn warm_steps_allocate_nothing() {
    let case = Case::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/small.safetensors.gz"));
    let features = case.features();
    let standard = ObjectiveConfig {
        module: ModuleKind::Standard,
        terms: Objective::ALL[..3].iter().map(|&objective| Term { objective, weight: 0.5 }).collect(),
        metrics: Metric::ALL.to_vec(),
        aggregate: Aggregate::Max,
        ..ObjectiveConfig::default()
    };
    for (objectives, on_device) in [(case.objectives.clone(), false), (standard, false), (case.objectives, true)] {
        let config = Config { model: case.model.clone(), objectives, ..Config::default() };
        let session = if on_device {
            let open = |parameters, statistics| cuda::with_device(Box::new(Idle), Multiply::default(), parameters, statistics);
            Session::with_backend(&config.model, &config.objectives, 1, open).unwrap()
        } else {
            Session::new(&config.model, &config.objectives, Scalar::F32, 2, 1).unwrap()
        };
        let batch = collate(&features.iter().collect::<Vec<&Features>>(), &[], &session.batch_options(false)).unwrap();
        let mut module = TrainingModule::new(session, &config);
        module.begin(10);
        let mut step = |number: usize| {
            let trained = module.train_batch(&batch, number as u64).unwrap();
            assert!(trained.finite && trained.metrics[0].1.is_finite());
            assert!(module.update(1, false).unwrap().applied != on_device);
            module.end_batch(number);
        };
        (1..=3).for_each(&mut step);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (4..=8).for_each(&mut step);
        let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(made, 0, "allocations in five steps of {:?}, {}", config.objectives.module, module.session().backend());
    }
}
