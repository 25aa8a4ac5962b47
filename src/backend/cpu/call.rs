//! One node's execution: its operands, outputs and parameters, and how its rows are shared out among threads.

use super::{
    math::{Real, add_to},
    pool::Pool,
};
use crate::graph::{Feed, Node, Place, Plan, Step, TensorId, Vector};
use std::ops::Range;

/// Memory that several threads write, each its own part.
#[derive(Debug)]
pub struct Out<T> {
    pointer: *mut T,
    len: usize,
    /// Columns, where it is a matrix.
    pub width: usize,
}

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}
// SAFETY: it gives access through `unsafe` methods only, whose callers keep the parts of threads apart.
unsafe impl<T: Send> Send for Out<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Out<T> {}

impl<T> Out<T> {
    /// All of a slice.
    pub fn of(slice: &mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), width: 1 }
    }
    /// Nothing.
    pub fn none() -> Self {
        Self { pointer: std::ptr::NonNull::dangling().as_ptr(), len: 0, width: 0 }
    }
    /// As a matrix of other rows.
    pub fn with_width(self, width: usize) -> Self {
        Self { width, ..self }
    }
    /// Number of elements.
    pub fn len(self) -> usize {
        self.len
    }
    /// First element.
    pub fn pointer(self) -> *mut T {
        self.pointer
    }
    /// A part of it.
    ///
    /// # Safety
    /// While the result lives, nothing else touches these elements.
    pub unsafe fn part<'a>(self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: inside, by the check above; alone, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }
    /// Some of its rows.
    ///
    /// # Safety
    /// As [`Out::part`].
    pub unsafe fn rows<'a>(self, range: Range<usize>) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { self.part(range.start * self.width..range.end * self.width) }
    }
    fn sub(self, start: usize, len: usize, width: usize) -> Self {
        assert!(start + len <= self.len, "tensor at {start}+{len} of {}", self.len);
        // SAFETY: inside, by the check above.
        Self { pointer: unsafe { self.pointer.add(start) }, len, width }
    }
}

/// The gradient buffer.
#[derive(Clone, Copy)]
pub struct Gradients<T>(Out<T>);

impl<T: Real> Gradients<T> {
    /// Adds to the gradient of a parameter; only outside of tasks.
    pub fn add(self, to: Vector, values: &[T]) {
        // SAFETY: the caller's thread alone touches gradients outside of tasks.
        add_to(unsafe { self.0.part(to.range()) }, values);
    }
    /// The gradient of a parameter.
    pub fn of(self, vector: Vector) -> Out<T> {
        self.0.sub(vector.offset, vector.len, vector.len)
    }
}

/// A node that is being computed.
pub struct Call<'a, T> {
    pub pool: &'a Pool,
    pub plan: &'a Plan,
    pub node: &'a Node,
    pub feed: &'a Feed,
    pub step: &'a Step,
    pub reals: &'a [T],
    pub arena: Out<T>,
    pub index_arena: Out<i32>,
    pub parameters: &'a [T],
    pub gradients: Out<T>,
    pub statistics: &'a [T],
    pub pending: Out<T>,
    pub scratch: &'a mut Vec<T>,
    pub partials: &'a mut Vec<T>,
}

/// Elements that a task should work on, so that they stay in the cache.
const TASK_ELEMENTS: usize = 32 * 1024;
/// Most tasks that sum up: each has its own partial sums.
const MOST_PARTIALS: usize = 16;

impl<'a, T: Real> Call<'a, T> {
    /// Rows of a tensor in this batch.
    pub fn rows(&self, id: TensorId) -> usize {
        self.plan.graph.tensor(id).rows.resolve(&self.feed.counts)
    }

    fn read(&self, id: TensorId) -> &'a [T] {
        let tensor = self.plan.graph.tensor(id);
        let len = self.rows(id) * tensor.width;
        match tensor.place {
            Place::Input(slot) => &self.reals[self.feed.real_slots[slot].clone()][..len],
            Place::Parameter(offset) => &self.parameters[offset..offset + len],
            // SAFETY: the plan gives tensors that live at the same node places that do not overlap, a node's outputs are no
            // operands of it, and parameter gradients are never operands.
            Place::Gradient(offset) => unsafe { self.gradients.part(offset..offset + len) },
            // SAFETY: as above.
            Place::Arena => unsafe { self.arena.part(self.plan.offset(id)..self.plan.offset(id) + len) },
        }
    }

    fn write(&self, id: TensorId) -> Out<T> {
        let tensor = self.plan.graph.tensor(id);
        let len = self.rows(id) * tensor.width;
        match tensor.place {
            Place::Arena => self.arena.sub(self.plan.offset(id), len, tensor.width),
            Place::Gradient(offset) => self.gradients.sub(offset, len, tensor.width),
            place => unreachable!("output '{}' in {place:?}", tensor.name),
        }
    }

    /// Operand `i` and its width. Backward: operands, then outputs of the forward node.
    pub fn input(&self, i: usize) -> (&'a [T], usize) {
        let id = self.node.input(i);
        (self.read(id), self.plan.graph.tensor(id).width)
    }
    /// Number of rows of operand `i`.
    pub fn input_rows(&self, i: usize) -> usize {
        self.rows(self.node.input(i))
    }
    /// Operand `i`, which holds indexes.
    pub fn index_input(&self, i: usize) -> &'a [i32] {
        let id = self.node.input(i);
        let len = self.rows(id) * self.plan.graph.tensor(id).width;
        // SAFETY: as in `read`.
        unsafe { self.index_arena.part(self.plan.offset(id)..self.plan.offset(id) + len) }
    }
    /// Forward: output `i`.
    pub fn output(&self, i: usize) -> Out<T> {
        self.write(self.node.output(i))
    }
    /// Forward: output `i`, which holds indexes.
    pub fn index_output(&self, i: usize) -> Out<i32> {
        let id = self.node.output(i);
        let width = self.plan.graph.tensor(id).width;
        self.index_arena.sub(self.plan.offset(id), self.rows(id) * width, width)
    }
    /// Backward: gradient of the result and its width.
    pub fn dy(&self) -> (&'a [T], usize) {
        self.input(self.node.inputs.len() - 1)
    }
    /// Backward: rows of the result.
    pub fn dy_rows(&self) -> usize {
        self.input_rows(self.node.inputs.len() - 1)
    }
    /// Backward: gradient of operand `i`, if it has one, and whether to add to it.
    pub fn dx(&self, i: usize) -> Option<(Out<T>, bool)> {
        self.node.outputs[i].map(|id| (self.write(id), self.node.accumulate[i]))
    }
    /// A parameter.
    pub fn parameter(&self, vector: Vector) -> &'a [T] {
        &self.parameters[vector.range()]
    }
    /// The gradient buffer.
    pub fn parameter_gradients(&self) -> Gradients<T> {
        Gradients(self.gradients)
    }
    /// An index list.
    pub fn index(&self, slot: usize) -> &'a [i32] {
        self.feed.index(slot)
    }

    /// Calls `f` for every number below `count` with `scratch` elements of any content.
    pub fn tasks(&mut self, count: usize, scratch: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let room = scratch.next_multiple_of(64);
        grow(self.scratch, room * self.pool.threads());
        let all = Out::of(self.scratch);
        // SAFETY: a thread has one task at a time, and its own part.
        self.pool.run(count, &|thread, i| f(i, unsafe { all.part(thread * room..thread * room + scratch) }));
    }

    /// Calls `f` for blocks of `block` rows with the block's rows of every output, and scratch of any content.
    pub fn for_rows<const N: usize>(
        &mut self,
        rows: usize,
        block: usize,
        outs: [Out<T>; N],
        scratch: usize,
        f: impl Fn(Range<usize>, [&mut [T]; N], &mut [T]) + Sync,
    ) {
        let block = block.max(1);
        self.tasks(rows.div_ceil(block), scratch, |i, scratch| {
            let range = i * block..rows.min((i + 1) * block);
            // SAFETY: the blocks of tasks do not overlap.
            f(range.clone(), outs.map(|out| unsafe { out.rows(range.clone()) }), scratch);
        });
    }

    /// As [`Call::for_rows`] with `partial` elements, 0 at first, in which each task sums up; gives their sum over tasks.
    pub fn sum_rows<const N: usize>(
        &mut self,
        rows: usize,
        block: usize,
        outs: [Out<T>; N],
        [partial, scratch]: [usize; 2],
        f: impl Fn(Range<usize>, [&mut [T]; N], &mut [T], &mut [T]) + Sync,
    ) -> &mut [T] {
        let block = block.max(1);
        let tasks = rows.div_ceil(block).max(1);
        let room = partial.next_multiple_of(16);
        grow(self.partials, tasks * room);
        let all = Out::of(self.partials);
        self.tasks(tasks, scratch, |i, scratch| {
            let range = i * block..rows.min((i + 1) * block);
            // SAFETY: the blocks and partial sums of tasks do not overlap.
            let (blocks, sums) = unsafe { (outs.map(|out| out.rows(range.clone())), all.part(i * room..i * room + partial)) };
            sums.fill(T::ZERO);
            f(range, blocks, sums, scratch);
        });
        self.join_partials(tasks, partial, room, all);
        &mut self.partials[..partial]
    }

    /// As [`Call::sum_rows`] without outputs, but gives what each task summed up, one after the other.
    pub fn each_rows(&mut self, rows: usize, block: usize, partial: usize, f: impl Fn(Range<usize>, &mut [T]) + Sync) -> &mut [T] {
        let tasks = rows.div_ceil(block);
        grow(self.partials, tasks * partial);
        let all = Out::of(self.partials);
        self.tasks(tasks, 0, |i, _| {
            // SAFETY: the partial sums of tasks do not overlap.
            let sums = unsafe { all.part(i * partial..(i + 1) * partial) };
            sums.fill(T::ZERO);
            f(i * block..rows.min((i + 1) * block), sums);
        });
        &mut self.partials[..tasks * partial]
    }

    /// Sets all of an output to 0.
    pub fn zero(&mut self, out: Out<T>) {
        self.for_rows(out.len.div_ceil(TASK_ELEMENTS), 1, [], 0, |i, [], _| {
            // SAFETY: the parts of tasks do not overlap.
            unsafe { out.part(i.start * TASK_ELEMENTS..out.len.min(i.end * TASK_ELEMENTS)) }.fill(T::ZERO);
        });
    }

    /// Adds the partial sums of all tasks to those of the first.
    fn join_partials(&mut self, tasks: usize, partial: usize, room: usize, all: Out<T>) {
        const STRIP: usize = 4096;
        self.tasks(if tasks > 1 { partial.div_ceil(STRIP) } else { 0 }, 0, |i, _| {
            let strip = i * STRIP..partial.min((i + 1) * STRIP);
            // SAFETY: the strips of tasks do not overlap.
            let total = unsafe { all.part(strip.clone()) };
            for task in 1..tasks {
                // SAFETY: only read here, and by this task alone.
                add_to(total, unsafe { all.part(task * room + strip.start..task * room + strip.end) });
            }
        });
    }
}

/// Rows of a task that works on `width` elements a row.
pub fn block(width: usize) -> usize {
    (TASK_ELEMENTS / width.max(1)).max(1)
}

/// Rows of a task that works on `width` elements a row and sums up.
pub fn sum_block(rows: usize, width: usize) -> usize {
    block(width).max(rows.div_ceil(MOST_PARTIALS))
}

fn grow<T: Real>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len.next_power_of_two(), T::ZERO);
    }
}
