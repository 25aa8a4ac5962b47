//! Multi-head attention over segments of rows. Probabilities are computed again for the gradient.

use super::{
    call::{Call, Out},
    dropout::Mask,
    gemm::{View, gemm, gemm_at},
    math::{Real, dot, simd, sum},
};
use crate::graph::Attention;

/// Queries that a task takes at a time.
const QUERIES: usize = 64;
/// Set in the stream of the numbers that mask whole keys.
const KEYS: u32 = 0x8000_0000;

/// Rows of the queries and keys of a segment.
#[derive(Clone, Copy)]
struct Segment {
    /// Start, count, stride.
    query: [usize; 3],
    key: [usize; 3],
}

impl Segment {
    fn of(list: &[i32], s: usize) -> Self {
        let at = |i: usize| list[6 * s + i].max(0) as usize;
        Self { query: [at(0), at(1), at(2)], key: [at(3), at(4), at(5)] }
    }
}

/// True if no row is in two segments, in one pass: each starts behind all before it, or they interleave, with the stride of the
/// first of them and between its first two rows. Whatever else is not looked into counts as shared.
fn apart(list: &[i32], rows: impl Fn(Segment) -> [usize; 3]) -> bool {
    // The first of those that interleave, the start of the last one, and where all end.
    let (mut base, mut stride, mut last, mut end) = (0, 0, 0, 0);
    let mut segments = (0..list.len() / 6).map(|s| rows(Segment::of(list, s))).filter(|[_, count, _]| *count > 0);
    segments.all(|[start, count, step]| {
        let behind = start >= end;
        let beside = step == stride && start > last && start < base + stride;
        if behind {
            (base, stride) = (start, step);
        }
        (last, end) = (start, end.max(start + (count - 1) * step + 1));
        behind || beside
    })
}

/// What all tasks of a call share.
struct Shared<'a, T> {
    spec: &'a Attention,
    list: &'a [i32],
    /// Data and width of queries, keys, values.
    operands: [(&'a [T], usize); 3],
    scale: T,
    dropout: Mask<'a, T>,
    key_dropout: Option<(usize, Mask<'a, T>)>,
}

impl<'a, T: Real> Shared<'a, T> {
    fn new(call: &Call<'a, T>, spec: &'a Attention) -> Self {
        Self {
            spec,
            list: call.index(spec.segments),
            operands: [call.input(0), call.input(1), call.input(2)],
            scale: T::of(1.0 / (spec.head_width as f64).sqrt()),
            dropout: Mask::new(call.step, call.node.stream, spec.dropout),
            key_dropout: spec.key_dropout.map(|(from, rate)| (from, Mask::new(call.step, call.node.stream | KEYS, rate))),
        }
    }
    fn segments(&self) -> usize {
        self.list.len() / 6
    }
    /// Most scores of a task: queries by keys.
    fn scores(&self) -> usize {
        (0..self.segments()).map(|s| Segment::of(self.list, s)).map(|s| s.query[1].min(QUERIES) * s.key[1]).max().unwrap_or(0)
    }
    /// First column of a head in an operand.
    fn column(&self, operand: usize, head: usize) -> usize {
        self.spec.offsets[operand] + head * self.spec.head_width
    }
    /// Rows `start, start + stride, ..` of a head in an operand.
    fn head(&self, operand: usize, head: usize, start: usize, stride: usize) -> View<'a, T> {
        let (data, width) = self.operands[operand];
        View::rows(data.get(start * width + self.column(operand, head)..).unwrap_or(&[]), stride * width)
    }
    /// Scaled scores `[queries, keys]`; keys that are masked get -∞.
    fn fill_scores(&self, s: usize, segment: Segment, first: usize, queries: usize, head: usize, scores: &mut [T]) {
        let (keys, width) = (segment.key[1], self.spec.head_width);
        let q = self.head(0, head, segment.query[0] + first * segment.query[2], segment.query[2]);
        let k = self.head(1, head, segment.key[0], segment.key[2]);
        gemm([queries, width, keys], self.scale, q, k.transposed(), T::ZERO, scores, keys);
        if let Some((from, mask)) = self.key_dropout {
            for key in from..keys {
                if mask.one(s, key) == T::ZERO {
                    (0..queries).for_each(|i| scores[i * keys + key] = T::LOWEST);
                }
            }
        }
    }
    /// Row of the random numbers of a query.
    fn counter(&self, head: usize, query: usize) -> usize {
        head + self.spec.heads * query
    }
}

pub fn forward<T: Real>(call: &mut Call<T>, spec: &Attention) {
    let shared = Shared::new(call, spec);
    let (y, lse) = (call.output(0), call.output(1));
    let (heads, width) = (spec.heads, spec.head_width);
    let scratch = shared.scores();
    let factors = (0..shared.segments()).map(|s| Segment::of(shared.list, s).key[1]).max().unwrap_or(0);
    let one = |s: usize, head: usize, scratch: &mut [T]| {
        let segment = Segment::of(shared.list, s);
        let ([start, count, stride], keys) = (segment.query, segment.key[1]);
        let (scores, factors) = scratch.split_at_mut(scratch.len() - factors);
        for first in (0..count).step_by(QUERIES) {
            let queries = QUERIES.min(count - first);
            let scores = &mut scores[..queries * keys];
            shared.fill_scores(s, segment, first, queries, head, scores);
            for i in 0..queries {
                let row = start + (first + i) * stride;
                let p = &mut scores[i * keys..(i + 1) * keys];
                // SAFETY: segments of different tasks have other queries, and heads other columns.
                let lse = unsafe { lse.part(row * heads + head..row * heads + head + 1) };
                lse[0] = softmax(p);
                if !shared.dropout.keeps_all() {
                    let factors = &mut factors[..keys];
                    shared.dropout.row(shared.counter(head, row), factors);
                    multiply(p, factors);
                }
            }
            let v = shared.head(2, head, segment.key[0], segment.key[2]);
            let place = (start + first * stride) * y.width + head * width;
            // SAFETY: as above.
            unsafe { gemm_at([queries, keys, width], T::ONE, View::rows(scores, keys), v, T::ZERO, y, place, stride * y.width) };
        }
    };
    let (segments, room) = (shared.segments(), scratch + factors);
    if (0..segments).map(|s| Segment::of(shared.list, s).query[1]).sum::<usize>() != call.input_rows(0) {
        call.zero(y);
        call.zero(lse);
    }
    if apart(shared.list, |s| s.query) {
        call.tasks(segments * heads, room, |task, scratch| one(task / heads, task % heads, scratch));
    } else {
        call.tasks(heads, room, |head, scratch| (0..segments).for_each(|s| one(s, head, scratch)));
    }
}

simd! {
    /// Turns scores into probabilities; gives the log of the denominator. Zeros if every key is masked, and a log from which zeros follow.
    fn softmax<T: Real>(p: &mut [T]) -> T {
        let mut lanes = [T::LOWEST; 8];
        let (head, tail) = p.as_chunks::<8>();
        for p in head {
            for (lane, &p) in lanes.iter_mut().zip(p) {
                *lane = if p > *lane { p } else { *lane };
            }
        }
        // What is not a number is seen in the sum below.
        let most = lanes.iter().chain(tail).fold(T::LOWEST, |most, &p| if p > most { p } else { most });
        if most == T::LOWEST && p.iter().all(|&p| p == T::LOWEST) {
            p.fill(T::ZERO);
            return T::of(f64::from(f32::MAX));
        }
        for p in p.iter_mut() {
            *p = (*p - most).exp();
        }
        let total = sum(p);
        let inverse = T::ONE / total;
        for p in p.iter_mut() {
            *p *= inverse;
        }
        most + total.ln()
    }
    /// p = exp(p - lse).
    fn probabilities<T: Real>(p: &mut [T], lse: T) {
        for p in p.iter_mut() {
            *p = (*p - lse).exp();
        }
    }
    /// ds = p (ds - d).
    fn slopes<T: Real>(ds: &mut [T], p: &[T], d: T) {
        for (ds, &p) in ds.iter_mut().zip(p) {
            *ds = p * (*ds - d);
        }
    }
    /// ds = p (ds f - d), p = p f.
    fn dropped_slopes<T: Real>(ds: &mut [T], p: &mut [T], f: &[T], d: T) {
        for ((ds, p), &f) in ds.iter_mut().zip(p).zip(f) {
            *ds = *p * (*ds * f - d);
            *p *= f;
        }
    }
    /// y *= f.
    fn multiply<T: Real>(y: &mut [T], f: &[T]) {
        for (y, &f) in y.iter_mut().zip(f) {
            *y *= f;
        }
    }
}

/// With P the probabilities, M the dropout factors and dO the gradient of the result: dV = (P M)ᵀ dO; dP = M (dO Vᵀ);
/// dS = P (dP - rowsum(P dP)), where the sum is dO · O; dQ = scale dS K; dK = scale dSᵀ Q.
pub fn backward<T: Real>(call: &mut Call<T>, spec: &Attention) {
    let shared = Shared::new(call, spec);
    let ((y, out), (lse, heads)) = (call.input(3), call.input(4));
    let (dy, _) = call.dy();
    let width = spec.head_width;
    let grads: [Option<Out<T>>; 3] = std::array::from_fn(|i| call.dx(i).map(|(dx, _)| dx));
    for i in 0..3 {
        if let Some((dx, false)) = call.dx(i) {
            call.zero(dx);
        }
    }
    let scores = shared.scores();
    let most_keys = (0..shared.segments()).map(|s| Segment::of(shared.list, s).key[1]).max().unwrap_or(0);
    let one = |s: usize, head: usize, scratch: &mut [T]| {
        let segment = Segment::of(shared.list, s);
        let ([start, count, stride], [key_start, keys, key_stride]) = (segment.query, segment.key);
        if keys == 0 {
            return;
        }
        let (p, rest) = scratch.split_at_mut(scores);
        let (ds, factors) = rest.split_at_mut(scores);
        let (k, v) = (shared.head(1, head, key_start, key_stride), shared.head(2, head, key_start, key_stride));
        for first in (0..count).step_by(QUERIES) {
            let queries = QUERIES.min(count - first);
            let (p, ds) = (&mut p[..queries * keys], &mut ds[..queries * keys]);
            let row = |i: usize| start + (first + i) * stride;
            shared.fill_scores(s, segment, first, queries, head, p);
            let d_out = View::rows(&dy[row(0) * out + head * width..], stride * out);
            gemm([queries, width, keys], T::ONE, d_out, v.transposed(), T::ZERO, ds, keys);
            for i in 0..queries {
                let (p, ds) = (&mut p[i * keys..(i + 1) * keys], &mut ds[i * keys..(i + 1) * keys]);
                let lse = lse[row(i) * heads + head];
                let place = row(i) * out + head * width..row(i) * out + (head + 1) * width;
                let d = dot(&y[place.clone()], &dy[place]);
                probabilities(p, lse);
                if shared.dropout.keeps_all() {
                    slopes(ds, p, d);
                } else {
                    let factors = &mut factors[..keys];
                    shared.dropout.row(shared.counter(head, row(i)), factors);
                    dropped_slopes(ds, p, factors, d);
                }
            }
            // Where a head's rows of an operand lie in its gradient.
            let place = |operand: usize, start: usize| start * shared.operands[operand].1 + shared.column(operand, head);
            let (ds, p) = (View::rows(&*ds, keys), View::rows(&*p, keys));
            let q = shared.head(0, head, row(0), stride);
            // SAFETY: tasks are cut so that no two of them write the same rows and columns.
            unsafe {
                if let Some(dq) = grads[0] {
                    gemm_at([queries, keys, width], shared.scale, ds, k, T::ONE, dq, place(0, row(0)), stride * dq.width);
                }
                if let Some(dk) = grads[1] {
                    gemm_at(
                        [keys, queries, width],
                        shared.scale,
                        ds.transposed(),
                        q,
                        T::ONE,
                        dk,
                        place(1, key_start),
                        key_stride * dk.width,
                    );
                }
                if let Some(dv) = grads[2] {
                    gemm_at([keys, queries, width], T::ONE, p.transposed(), d_out, T::ONE, dv, place(2, key_start), key_stride * dv.width);
                }
            }
        }
    };
    let room = 2 * scores + most_keys;
    let segments = shared.segments();
    match sharing(&shared, call, grads) {
        Sharing::Nothing => call.tasks(segments * heads, room, |task, scratch| one(task / heads, task % heads, scratch)),
        Sharing::Rows => call.tasks(heads, room, |head, scratch| (0..segments).for_each(|s| one(s, head, scratch))),
        Sharing::Columns => {
            call.tasks(1, room, |_, scratch| (0..segments * heads).for_each(|task| one(task / heads, task % heads, scratch)));
        }
    }
}

/// What segments write in common.
enum Sharing {
    /// Nothing: segments and heads are independent.
    Nothing,
    /// Rows: heads are independent.
    Rows,
    /// Columns of queries, keys or values that are one tensor.
    Columns,
}

fn sharing<T: Real>(shared: &Shared<T>, call: &Call<T>, grads: [Option<Out<T>>; 3]) -> Sharing {
    let total = shared.spec.heads * shared.spec.head_width;
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        let same = grads[a].is_some() && grads[b].is_some() && call.node.outputs[a] == call.node.outputs[b];
        if same && shared.spec.offsets[a].abs_diff(shared.spec.offsets[b]) < total {
            return Sharing::Columns;
        }
    }
    if apart(shared.list, |s| s.key) && apart(shared.list, |s| s.query) { Sharing::Nothing } else { Sharing::Rows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{ModelConfig, ObjectiveConfig},
        data::{
            batch::{BatchOptions, Index},
            collate,
        },
        features::{AgentFeatures, Features, ReferenceLineFeatures},
        graph::{Scalar, random::philox},
    };
    use std::collections::HashSet;

    fn query(s: Segment) -> [usize; 3] {
        s.query
    }

    /// Looks at every row.
    fn apart_by_rows(list: &[i32], rows: impl Fn(Segment) -> [usize; 3]) -> bool {
        let mut seen = HashSet::new();
        (0..list.len() / 6).map(|s| rows(Segment::of(list, s))).all(|[start, count, stride]| {
            let own: HashSet<usize> = (0..count).map(|i| start + i * stride).collect();
            own.into_iter().all(|row| seen.insert(row))
        })
    }

    #[test]
    fn segments_that_share_a_row_are_not_apart() {
        let mut found = [0; 3];
        for case in 0..200_000 {
            let [count, ..] = philox([case, 0, 0, 0], [1, 0]);
            let list: Vec<i32> = (0..2 + count % 3)
                .flat_map(|s| {
                    philox([case, s, 1, 0], [1, 0]).into_iter().zip([12, 4, 4]).map(|(word, below)| (word % below) as i32).chain([0; 3])
                })
                .collect();
            let (ours, exact) = (apart(&list, query), apart_by_rows(&list, query));
            assert!(exact || !ours, "{list:?}");
            found[usize::from(ours) + usize::from(exact)] += 1;
        }
        assert!(found.iter().all(|&n| n > 1000), "{found:?}");
    }

    #[test]
    fn segments_of_a_batch_are_apart() {
        let model = ModelConfig::default();
        let scenario = |agents: usize, lines: usize| {
            let rows = agents * model.history_steps;
            let pairs = |n: usize| vec![0.0; 2 * n];
            Features {
                agents: AgentFeatures {
                    count: agents,
                    steps: model.history_steps,
                    position: pairs(rows),
                    heading: vec![0.0; rows],
                    velocity: pairs(rows),
                    shape: pairs(rows),
                    category: vec![1; agents],
                    valid: vec![true; rows],
                    target: Vec::new(),
                },
                reference_lines: ReferenceLineFeatures {
                    count: lines,
                    points: 1,
                    position: pairs(lines),
                    vector: pairs(lines),
                    orientation: vec![0.0; lines],
                    valid: vec![true; lines],
                    future_projection: Vec::new(),
                },
                ..Features::default()
            }
        };
        let scenarios = [scenario(3, 1), scenario(1, 4), scenario(2, 1), scenario(5, 2)];
        let options = BatchOptions { model: model.clone(), objectives: ObjectiveConfig::default(), scalar: Scalar::F32, triplets: false };
        let batch = collate(&scenarios.each_ref(), &[], &options).unwrap();
        for slot in [Index::TokenSegments, Index::StateSegments, Index::LineSegments, Index::ModeSegments, Index::CrossSegments] {
            let list = batch.feed.index(slot as usize);
            assert!(list.len() >= 6 * scenarios.len() && apart(list, query) && apart(list, |s| s.key), "{slot:?}");
        }
    }
}
