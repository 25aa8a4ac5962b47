//! Clipping by the norm of the whole gradient and AdamW, in two passes over the parameters.

use super::{
    CpuBackend,
    call::Out,
    math::{Real, simd},
};
use crate::{
    backend::{Update, Updated},
    graph::Vector,
};

/// Elements of a task.
const BLOCK: usize = 16 * 1024;

pub fn update<T: Real>(backend: &mut CpuBackend<T>, update: &Update, decayed: &[Vector]) -> Updated {
    let norm = gradient_norm(backend);
    if !norm.is_finite() {
        return Updated { gradient_norm: norm, applied: false };
    }
    let clip = update.clip_norm.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
    let count = update.count as i32;
    let [b1, b2] = update.beta;
    let (fix1, fix2) = (1.0 - b1.powi(count), (1.0 - b2.powi(count)).sqrt());
    let rate = update.learning_rate;
    let [clip, b1, b2, c1, c2] = [clip, b1, b2, 1.0 - b1, 1.0 - b2].map(T::of);
    let [size, fix2, epsilon, keep] = [rate / fix1, fix2, update.epsilon, 1.0 - rate * update.weight_decay].map(T::of);

    let len = backend.parameters.len();
    let all = [&mut backend.parameters, &mut backend.gradients].map(|v| Out::of(v));
    let moments = {
        let [m, v] = &mut backend.moments;
        [Out::of(m), Out::of(v)]
    };
    backend.pool.run(len.div_ceil(BLOCK), &|_, i| {
        let range = i * BLOCK..len.min((i + 1) * BLOCK);
        // SAFETY: the blocks of tasks do not overlap.
        let [p, g, m, v] = [all[0], all[1], moments[0], moments[1]].map(|out| unsafe { out.part(range.clone()) });
        for vector in decayed {
            let (start, end) = (vector.offset.max(range.start), (vector.offset + vector.len).min(range.end));
            if start < end {
                p[start - range.start..end - range.start].iter_mut().for_each(|p| *p *= keep);
            }
        }
        adam(p, g, m, v, [clip, b1, b2, c1, c2, size, fix2, epsilon]);
    });
    Updated { gradient_norm: norm, applied: true }
}

simd! {
    /// Moments and parameters of a block; ends with gradients of zero.
    fn adam<T: Real>(p: &mut [T], g: &mut [T], m: &mut [T], v: &mut [T], factors: [T; 8]) {
        let [clip, b1, b2, c1, c2, size, fix2, epsilon] = factors;
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let d = *g * clip;
            *g = T::ZERO;
            *m = b1 * *m + c1 * d;
            *v = b2 * *v + c2 * d * d;
            *p -= size * *m / (v.sqrt() / fix2 + epsilon);
        }
    }
    /// Sum of squares in double precision, in lanes.
    fn squares<T: Real>(x: &[T]) -> f64 {
        let mut lanes = [0.0; 8];
        let (head, tail) = x.as_chunks::<8>();
        for x in head {
            for (lane, x) in lanes.iter_mut().zip(x) {
                *lane += x.f64() * x.f64();
            }
        }
        lanes.iter().sum::<f64>() + tail.iter().map(|x| x.f64() * x.f64()).sum::<f64>()
    }
}

/// √ of the sum of squares: blocks in double precision, added in order.
fn gradient_norm<T: Real>(backend: &mut CpuBackend<T>) -> f64 {
    let blocks = backend.gradients.len().div_ceil(BLOCK);
    backend.norms.resize(blocks, 0.0);
    let (norms, gradients) = (Out::of(&mut backend.norms), &backend.gradients);
    backend.pool.run(blocks, &|_, i| {
        let block = &gradients[i * BLOCK..gradients.len().min((i + 1) * BLOCK)];
        // SAFETY: each task writes its own element.
        unsafe { norms.part(i..i + 1) }.fill(squares(block));
    });
    backend.norms.iter().sum::<f64>().sqrt()
}
