//! Losses. They are small, and are computed in double precision whatever the precision of the run.

use super::{
    call::{Call, block},
    math::Real,
};
use crate::graph::Op;

/// Writes a scalar result.
pub fn result<T: Real>(call: &Call<T>, value: f64) {
    let y = call.output(0);
    // SAFETY: no task runs.
    let y = unsafe { y.part(0..1) };
    y[0] = T::of(value);
}

/// Gradient of a scalar result.
pub fn scale<T: Real>(call: &Call<T>) -> f64 {
    call.dy().0[0].f64()
}

/// All of the gradient of operand 0, zeroed unless it is added to.
fn gradient<'a, T: Real>(call: &Call<'a, T>) -> Option<&'a mut [T]> {
    let (dx, accumulate) = call.dx(0)?;
    // SAFETY: no task runs while a loss writes its gradient.
    let dx = unsafe { dx.part(0..dx.len()) };
    if !accumulate {
        dx.fill(T::ZERO);
    }
    Some(dx)
}

/// y = Σ x.
pub fn sum_forward<T: Real>(call: &mut Call<T>) {
    // From 0, as `sum` of nothing is -0.
    let total = (0..call.node.inputs.len()).fold(T::ZERO, |total, i| total + call.input(i).0[0]);
    result(call, total.f64());
}

pub fn sum_backward<T: Real>(call: &mut Call<T>) {
    let (dy, _) = call.dy();
    for (dx, accumulate) in (0..call.node.outputs.len()).filter_map(|i| call.dx(i)) {
        // SAFETY: no task runs.
        super::math::put(unsafe { dx.part(0..1) }, dy, accumulate);
    }
}

/// Which of the first `count` operands is largest, the first of equals; one that is not a number is.
fn largest<T: Real>(call: &Call<T>, count: usize) -> usize {
    let value = |i: usize| call.input(i).0[0].f64();
    (1..count).fold(0, |most, i| if value(most) >= value(i) || value(most).is_nan() { most } else { i })
}

/// y = the largest x.
pub fn largest_forward<T: Real>(call: &mut Call<T>) {
    let most = largest(call, call.node.inputs.len());
    result(call, call.input(most).0[0].f64());
}

pub fn largest_backward<T: Real>(call: &mut Call<T>) {
    let (dy, _) = call.dy();
    let most = largest(call, call.node.outputs.len());
    for (i, (dx, accumulate)) in (0..call.node.outputs.len()).filter_map(|i| Some((i, call.dx(i)?))) {
        let dy = if i == most { dy } else { &[T::ZERO] };
        // SAFETY: no task runs.
        super::math::put(unsafe { dx.part(0..1) }, dy, accumulate);
    }
}

/// y = factor x.
pub fn scale_forward<T: Real>(call: &mut Call<T>, factor: f64) {
    result(call, factor * call.input(0).0[0].f64());
}

pub fn scale_backward<T: Real>(call: &mut Call<T>, factor: f64) {
    let dy = [T::of(factor * scale(call))];
    if let Some((dx, accumulate)) = call.dx(0) {
        // SAFETY: no task runs.
        super::math::put(unsafe { dx.part(0..1) }, &dy, accumulate);
    }
}

/// Sum over rows of what `f` gives, in their order; 0 of none, where `sum` is -0.
fn row_sum(rows: usize, f: impl Fn(usize) -> f64) -> f64 {
    (0..rows).map(f).fold(0.0, |total, value| total + value)
}

/// Mean over valid steps of Σ d² / 2 where |d| < 1, |d| - 1/2 elsewhere.
pub fn smooth_l1_forward<T: Real>(call: &mut Call<T>, steps: usize, channels: usize, target_channels: usize) {
    let ((x, _), (target, _), (valid, _)) = (call.input(0), call.input(1), call.input(2));
    let rows = call.input_rows(0) * steps;
    let total = row_sum(rows, |i| {
        if valid[i] == T::ZERO {
            return 0.0;
        }
        let (x, target) = (&x[i * channels..][..channels], &target[i * target_channels..][..channels]);
        let distance = |(&x, &t): (&T, &T)| {
            let d = (x - t).f64().abs();
            if d < 1.0 { 0.5 * d * d } else { d - 0.5 }
        };
        x.iter().zip(target).map(distance).sum()
    });
    let count = valid[..rows].iter().filter(|&&v| v != T::ZERO).count();
    result(call, total / count.max(1) as f64);
}

pub fn smooth_l1_backward<T: Real>(call: &mut Call<T>, steps: usize, channels: usize, target_channels: usize) {
    let Some((dx, accumulate)) = call.dx(0) else { return };
    let ((x, width), (target, target_width), (valid, _)) = (call.input(0), call.input(1), call.input(2));
    let rows = dx.len() / width.max(1);
    let count = valid[..rows * steps].iter().filter(|&&v| v != T::ZERO).count();
    let scale = T::of(scale(call) / count.max(1) as f64);
    call.for_rows(rows, block(4 * width), [dx], 0, |range, [dx], _| {
        for (row, dx) in range.zip(dx.chunks_exact_mut(width)) {
            let (x, target) = (&x[row * width..][..width], &target[row * target_width..][..target_width]);
            for (step, &valid) in valid[row * steps..][..steps].iter().enumerate() {
                for c in 0..channels {
                    let i = step * channels + c;
                    let d = x[i] - target[step * target_channels + c];
                    let slope = if d > T::ONE {
                        T::ONE
                    } else if d < -T::ONE {
                        -T::ONE
                    } else {
                        d
                    };
                    let g = if valid == T::ZERO { T::ZERO } else { slope * scale };
                    dx[i] = if accumulate { dx[i] + g } else { g };
                }
            }
        }
    });
}

/// Mean of | ‖(c2, c3)‖ - 1 |.
pub fn unit_norm_forward<T: Real>(call: &mut Call<T>, steps: usize, channels: usize) {
    let (x, _) = call.input(0);
    let count = call.input_rows(0) * steps;
    let total = row_sum(count, |i| (x[i * channels + 2].f64().hypot(x[i * channels + 3].f64()) - 1.0).abs());
    result(call, total / count.max(1) as f64);
}

pub fn unit_norm_backward<T: Real>(call: &mut Call<T>, steps: usize, channels: usize) {
    let (x, _) = call.input(0);
    let count = call.input_rows(0) * steps;
    let scale = scale(call) / count.max(1) as f64;
    let Some(dx) = gradient(call) else { return };
    for (x, dx) in x.chunks_exact(channels).zip(dx.chunks_exact_mut(channels)) {
        let (a, b) = (x[2].f64(), x[3].f64());
        let norm = a.hypot(b);
        if norm == 0.0 || norm == 1.0 {
            continue;
        }
        let factor = scale * (norm - 1.0).signum() / norm;
        dx[2] += T::of(factor * a);
        dx[3] += T::of(factor * b);
    }
}

/// Rows of the logits of scenario `s`, their largest value and the sum of exp(logit - largest).
fn logits_of<T: Real>(x: &[T], list: &[i32], s: usize) -> (std::ops::Range<usize>, f64, f64) {
    let (start, count) = (list[2 * s].max(0) as usize, list[2 * s + 1].max(0) as usize);
    let logits = &x[start..start + count];
    let most = logits.iter().fold(f64::NEG_INFINITY, |m, x| if m > x.f64() || m.is_nan() { m } else { x.f64() });
    (start..start + count, most, logits.iter().map(|x| (x.f64() - most).exp()).sum())
}

/// Mean over scenarios of log Σ exp(logits) - logit[target].
pub fn cross_entropy_forward<T: Real>(call: &mut Call<T>, segments: usize, target: usize) {
    let (x, _) = call.input(0);
    let (list, target) = (call.index(segments), call.index(target));
    let total = row_sum(target.len(), |s| {
        let (range, most, sum) = logits_of(x, list, s);
        if range.is_empty() { 0.0 } else { most + sum.ln() - x[target[s] as usize].f64() }
    });
    result(call, total / target.len().max(1) as f64);
}

pub fn cross_entropy_backward<T: Real>(call: &mut Call<T>, segments: usize, target: usize) {
    let (x, _) = call.input(0);
    let (list, target) = (call.index(segments), call.index(target));
    let scale = scale(call) / target.len().max(1) as f64;
    let Some(dx) = gradient(call) else { return };
    for (s, &target) in target.iter().enumerate() {
        let (range, most, sum) = logits_of(x, list, s);
        if range.is_empty() {
            continue;
        }
        for i in range {
            dx[i] += T::of(scale * (x[i].f64() - most).exp() / sum);
        }
        dx[target as usize] -= T::of(scale);
    }
}

/// What the collision loss is made of; see [`Op::Collision`].
struct Collision<'a, T> {
    x: &'a [T],
    map: &'a [T],
    rows: usize,
    steps: usize,
    channels: usize,
    size: usize,
    discs: &'a [f64],
    radius: f64,
    resolution: f64,
}

/// A disc that the hinge holds: element of the trajectory, its offset, cost, and d cost / d(x, y).
struct Hit {
    element: usize,
    offset: f64,
    cost: f64,
    slope: [f64; 2],
}

impl<'a, T: Real> Collision<'a, T> {
    fn of(call: &Call<'a, T>) -> Self {
        let Op::Collision { steps, channels, size, discs, radius, resolution } = &call.node.op else { unreachable!("collision") };
        Self {
            x: call.input(0).0,
            map: call.input(1).0,
            rows: call.input_rows(0),
            steps: *steps,
            channels: *channels,
            size: *size,
            discs,
            radius: *radius,
            resolution: *resolution,
        }
    }

    /// Calls `f` for every disc that is inside the map, nearer to the edge than the radius, and whose scenario is on the road.
    fn hits(&self, mut f: impl FnMut(Hit)) {
        let (size, half) = (self.size, (self.size / 2) as f64);
        for row in 0..self.rows {
            let map = &self.map[row * size * size..][..size * size];
            if map[size / 2 * size + size / 2] <= T::ZERO {
                continue;
            }
            for step in 0..self.steps {
                let element = (row * self.steps + step) * self.channels;
                let [x, y, cos, sin] = std::array::from_fn(|i| self.x[element + i].f64());
                for &offset in self.discs {
                    let grid = [(x + offset * cos) / self.resolution / half, -(y + offset * sin) / self.resolution / half];
                    if !grid.iter().all(|g| g.abs() < 0.95) {
                        continue;
                    }
                    let (distance, [du, dv]) = self.sample(map, grid);
                    let cost = self.radius - distance;
                    if cost > 0.0 {
                        let unit = size as f64 / 2.0 / self.resolution / half;
                        f(Hit { element, offset, cost, slope: [-du * unit, dv * unit] });
                    }
                }
            }
        }
    }

    /// Bilinear value at (u, v) in [-1, 1] and its slopes by pixel; corners are those of pixels, zeros lie outside.
    fn sample(&self, map: &[T], [u, v]: [f64; 2]) -> (f64, [f64; 2]) {
        let size = self.size as f64;
        let [px, py] = [u, v].map(|g| ((g + 1.0) * size - 1.0) / 2.0);
        let (x0, y0) = (px.floor(), py.floor());
        let (fx, fy) = (px - x0, py - y0);
        let at = |x: f64, y: f64| {
            let inside = x >= 0.0 && y >= 0.0 && x < size && y < size;
            if inside { map[y as usize * self.size + x as usize].f64() } else { 0.0 }
        };
        let [a, b, c, d] = [at(x0, y0), at(x0 + 1.0, y0), at(x0, y0 + 1.0), at(x0 + 1.0, y0 + 1.0)];
        let value = (a * (1.0 - fx) + b * fx) * (1.0 - fy) + (c * (1.0 - fx) + d * fx) * fy;
        (value, [(b - a) * (1.0 - fy) + (d - c) * fy, (c - a) * (1.0 - fx) + (d - b) * fx])
    }
}

/// Σ cost / (number + 1e-6) over the discs that the hinge holds.
pub fn collision_forward<T: Real>(call: &mut Call<T>) {
    let (mut total, mut count) = (0.0, 0.0);
    Collision::of(call).hits(|hit| {
        total += hit.cost;
        count += 1.0;
    });
    result(call, total / (count + 1e-6));
}

pub fn collision_backward<T: Real>(call: &mut Call<T>) {
    let collision = Collision::of(call);
    let mut count = 0.0;
    collision.hits(|_| count += 1.0);
    let scale = scale(call) / (count + 1e-6);
    let Some(dx) = gradient(call) else { return };
    collision.hits(|hit| {
        for (axis, slope) in hit.slope.into_iter().enumerate() {
            dx[hit.element + axis] += T::of(scale * slope);
            dx[hit.element + 2 + axis] += T::of(scale * slope * hit.offset);
        }
    });
}

/// Anchor, positive and negative of a triplet: rows, norms, and the two similarities over the temperature.
struct Triplet {
    rows: [usize; 3],
    norms: [f64; 3],
    logits: [f64; 2],
}

impl Triplet {
    fn of<T: Real>(x: &[T], width: usize, list: &[i32], t: usize, temperature: f64) -> Self {
        let rows = std::array::from_fn(|i| list[3 * t + i] as usize);
        let row = |i: usize| x[rows[i] * width..][..width].iter().map(|x| x.f64());
        // As F.normalize.
        let norms = std::array::from_fn(|i| row(i).map(|x| x * x).sum::<f64>().sqrt().max(1e-12));
        let cosine = |i: usize| row(0).zip(row(i)).map(|(a, b)| a * b).sum::<f64>() / (norms[0] * norms[i]);
        Self { rows, norms, logits: [cosine(1) / temperature, cosine(2) / temperature] }
    }
    /// Softmax weight of the negative.
    fn wrong(&self) -> f64 {
        1.0 / (1.0 + (self.logits[0] - self.logits[1]).exp())
    }
}

/// Mean of log(1 + exp(negative - positive)).
pub fn triplet_forward<T: Real>(call: &mut Call<T>, triplets: usize, temperature: f64) {
    let (x, width) = call.input(0);
    let list = call.index(triplets);
    let count = list.len() / 3;
    let total = row_sum(count, |t| {
        let d = Triplet::of(x, width, list, t, temperature);
        let d = d.logits[1] - d.logits[0];
        d.max(0.0) + (-d.abs()).exp().ln_1p() + if d.is_nan() { d } else { 0.0 }
    });
    result(call, total / count.max(1) as f64);
}

pub fn triplet_backward<T: Real>(call: &mut Call<T>, triplets: usize, temperature: f64) {
    let (x, width) = call.input(0);
    let list = call.index(triplets);
    let count = list.len() / 3;
    let scale = scale(call) / count.max(1) as f64;
    let Some(dx) = gradient(call) else { return };
    for t in 0..count {
        let triplet = Triplet::of(x, width, list, t, temperature);
        let weight = scale * triplet.wrong() / temperature;
        // d cos(a, b) / da = (b' - a' cos) / ‖a‖ with a', b' of unit length.
        for (other, weight, cosine) in [(1, -weight, triplet.logits[0] * temperature), (2, weight, triplet.logits[1] * temperature)] {
            let at = |i: usize| triplet.rows[i] * width;
            for c in 0..width {
                let (a, b) = (x[at(0) + c].f64() / triplet.norms[0], x[at(other) + c].f64() / triplet.norms[other]);
                dx[at(0) + c] += T::of(weight * (b - a * cosine) / triplet.norms[0]);
                dx[at(other) + c] += T::of(weight * (a - b * cosine) / triplet.norms[other]);
            }
        }
    }
}
