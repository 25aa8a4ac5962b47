//! Scaling and clipping of the whole gradient and the optimiser's step, in two passes over the parameters.

use super::{
    CpuBackend,
    call::Out,
    math::{Real, simd},
};
use crate::{
    backend::{Clip, Rule, Update, Updated},
    graph::Vector,
};

/// Elements of a task.
const BLOCK: usize = 16 * 1024;

pub fn update<T: Real>(backend: &mut CpuBackend<T>, update: &Update, decayed: &[Vector]) -> Updated {
    let norm = update.scale * gradient_norm(backend);
    if !norm.is_finite() {
        return Updated { gradient_norm: norm, applied: false, loss_scale: None };
    }
    let mut scale = update.scale;
    let mut bound = f64::INFINITY;
    match update.clip {
        Some(Clip::Norm(most)) => scale *= (most / (norm + 1e-6)).min(1.0),
        Some(Clip::Value(most)) => bound = most,
        None => {}
    }
    let len = backend.parameters.len();
    let [p, g] = [&mut backend.parameters, &mut backend.gradients].map(|v| Out::of(v));
    let [m, v] = backend.moments.each_mut().map(|v| Out::of(v));
    backend.pool.run(len.div_ceil(BLOCK), &|_, i| {
        let range = i * BLOCK..len.min((i + 1) * BLOCK);
        // SAFETY: the blocks of tasks do not overlap.
        let [p, g, m, v] = [p, g, m, v].map(|out| unsafe { out.part(range.clone()) });
        scale_and_clip(g, T::of(scale), T::of(bound));
        let decayed = decayed.iter().filter_map(|vector| {
            let (start, end) = (vector.offset.max(range.start), (vector.offset + vector.len).min(range.end));
            (start < end).then(|| start - range.start..end - range.start)
        });
        if let Rule::AdamW { .. } = update.rule {
            let keep = T::of(1.0 - update.learning_rate * update.weight_decay);
            decayed.for_each(|part| p[part].iter_mut().for_each(|p| *p *= keep));
        } else if update.weight_decay != 0.0 {
            let decay = T::of(update.weight_decay);
            decayed.for_each(|part| g[part.clone()].iter_mut().zip(&p[part]).for_each(|(g, p)| *g += decay * *p));
        }
        match update.rule {
            Rule::Adam { beta, epsilon } | Rule::AdamW { beta, epsilon } => adam(p, g, m, v, adam_factors(update, beta, epsilon)),
            Rule::Sgd { momentum, dampening, nesterov } => {
                // The first step takes the gradient as it is, and so does every one without momentum.
                let (keep, take) = if update.count == 1 || momentum == 0.0 { (0.0, 1.0) } else { (momentum, 1.0 - dampening) };
                let [direct, moment] = if nesterov { [1.0, momentum] } else { [0.0, 1.0] };
                sgd(p, g, m, [keep, take, direct, moment, update.learning_rate].map(T::of));
            }
        }
    });
    Updated { gradient_norm: norm, applied: true, loss_scale: None }
}

/// b₁, b₂, 1 - b₁, 1 - b₂, rate / (1 - b₁ᶜ), √(1 - b₂ᶜ), epsilon.
fn adam_factors<T: Real>(update: &Update, [b1, b2]: [f64; 2], epsilon: f64) -> [T; 7] {
    let count = i32::try_from(update.count).unwrap_or(i32::MAX);
    let (fix1, fix2) = (1.0 - b1.powi(count), (1.0 - b2.powi(count)).sqrt());
    [b1, b2, 1.0 - b1, 1.0 - b2, update.learning_rate / fix1, fix2, epsilon].map(T::of)
}

simd! {
    /// Gradient times `scale`, within ±`bound`.
    fn scale_and_clip<T: Real>(g: &mut [T], scale: T, bound: T) {
        for g in g {
            let scaled = *g * scale;
            *g = if scaled > bound { bound } else if scaled < -bound { -bound } else { scaled };
        }
    }
    /// Moments and parameters of a block; ends with gradients of zero.
    fn adam<T: Real>(p: &mut [T], g: &mut [T], m: &mut [T], v: &mut [T], factors: [T; 7]) {
        let [b1, b2, c1, c2, size, fix2, epsilon] = factors;
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let d = *g;
            *g = T::ZERO;
            *m = b1 * *m + c1 * d;
            *v = b2 * *v + c2 * d * d;
            *p -= size * *m / (v.sqrt() / fix2 + epsilon);
        }
    }
    /// Momentum and parameters of a block; ends with gradients of zero.
    fn sgd<T: Real>(p: &mut [T], g: &mut [T], m: &mut [T], factors: [T; 5]) {
        let [keep, take, direct, moment, rate] = factors;
        for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
            let d = *g;
            *g = T::ZERO;
            *m = keep * *m + take * d;
            *p -= rate * (direct * d + moment * *m);
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
