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
    data::collate,
    features::Features,
    graph::Scalar,
    trainer::session::{Clip, Rule, Session, Update},
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

#[test]
fn warm_steps_allocate_nothing() {
    let case = Case::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/small.safetensors.gz"));
    let features = case.features();
    let mut session = Session::new(&case.model, &case.objectives, Scalar::F32, 2, 1).unwrap();
    let batch = collate(&features.iter().collect::<Vec<&Features>>(), &[], &session.batch_options(false)).unwrap();
    let mut step = |count: u64| {
        let losses = session.train(&batch, count).unwrap();
        let metrics = session.metrics(&batch);
        assert!(losses.loss.is_finite() && metrics[0].1.is_finite());
        let rule = Rule::AdamW { beta: [0.9, 0.999], epsilon: 1e-8 };
        let update = Update { rule, learning_rate: 1e-3, weight_decay: 1e-2, count, scale: 1.0, clip: Some(Clip::Norm(5.0)) };
        assert!(session.update(&update).unwrap().applied);
    };
    (1..=3).for_each(&mut step);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (4..=8).for_each(&mut step);
    let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(made, 0, "allocations in five steps");
}
