//! Measures of predicted trajectories, in double precision whatever the precision of the run.

use super::{call::Call, math::Real};
use crate::graph::{Deviation, MOST_CANDIDATES, Measure, Op, Subject};
use std::ops::Range;

/// Sum and count of every measure.
pub fn forward<T: Real>(call: &mut Call<T>) {
    let Op::Metrics { steps, candidates, tokens, scenarios, measures } = &call.node.op else { unreachable!("metrics") };
    let reals = |i: usize| call.input(i).0;
    let ego = Futures { guess: reals(0), truth: reals(3), valid: None, steps: *steps };
    let agents = Futures { guess: reals(2), truth: reals(4), valid: Some(reals(5)), steps: *steps };
    let (candidates, tokens, scenarios) = (call.index(*candidates), call.index(*tokens), call.index(*scenarios));
    let of_scenario = |scenario: usize| {
        let before = |number: usize| tokens.partition_point(|&token| scenarios[token as usize] < number as i32);
        before(scenario)..before(scenario + 1)
    };
    let y = call.output(0);
    // SAFETY: no task runs.
    let y = unsafe { y.part(0..y.len()) };
    for (measure, y) in measures.iter().zip(y.chunks_exact_mut(2)) {
        let (mut sum, mut count) = (0.0, 0.0);
        let mut add = |value: Option<f64>| {
            sum += value.unwrap_or(0.0);
            count += if value.is_some() { 1.0 } else { 0.0 };
        };
        match measure.subject {
            Subject::Ego(most) => candidates.chunks_exact(2).enumerate().for_each(|(scenario, rows)| {
                let rows = rows[0] as usize..(rows[0] + rows[1]) as usize;
                add(Some(ego.best(measure, most_probable(reals(1), rows, most), scenario)));
            }),
            Subject::Agent => (0..call.input_rows(2)).for_each(|agent| add(agents.mean(measure, agent..agent + 1, 1e-6))),
            Subject::Agents => {
                (0..candidates.len() / 2).for_each(|scenario| add(agents.mean(measure, of_scenario(scenario), 0.0)));
            }
        }
        (y[0], y[1]) = (T::of(sum), T::of(count));
    }
}

/// The rows with the highest logits, best first, the first of equals; at most [`MOST_CANDIDATES`].
fn most_probable<T: Real>(logits: &[T], rows: Range<usize>, most: usize) -> impl Iterator<Item = usize> {
    let (mut best, mut count) = ([0; MOST_CANDIDATES], 0);
    for row in rows {
        let place = best[..count].iter().position(|&b| logits[row] > logits[b]).unwrap_or(count);
        if place < most {
            count = (count + 1).min(most);
            best.copy_within(place..count - 1, place + 1);
            best[place] = row;
        }
    }
    best.into_iter().take(count)
}

/// Predicted and true futures.
struct Futures<'a, T> {
    /// `[n, steps * 6]`: x, y, cos, sin, ..
    guess: &'a [T],
    /// `[n, steps * 6]`.
    truth: &'a [T],
    /// `[n, steps]`: where the truth is known; none: everywhere.
    valid: Option<&'a [T]>,
    steps: usize,
}

impl<T: Real> Futures<'_, T> {
    fn steps(&self, measure: &Measure) -> Range<usize> {
        if measure.last { self.steps - 1..self.steps } else { 0..self.steps }
    }

    /// Smallest mean over steps of several rows of the same truth.
    fn best(&self, measure: &Measure, rows: impl Iterator<Item = usize>, truth: usize) -> f64 {
        let mean = |row: usize| {
            let steps = self.steps(measure);
            let count = steps.len() as f64;
            steps.map(|step| self.deviation(measure.deviation, row, truth, step)).sum::<f64>() / count
        };
        let none = if let Deviation::Beyond(_) = measure.deviation { 1.0 } else { f64::INFINITY };
        // Not a number if either is none.
        rows.map(mean).fold(none, |a, b| if a.is_nan() || a < b { a } else { b })
    }

    /// Mean over rows and their known steps; none without any.
    fn mean(&self, measure: &Measure, rows: Range<usize>, extra: f64) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0.0);
        for row in rows {
            for step in self.steps(measure).filter(|step| self.valid.is_none_or(|valid| valid[row * self.steps + step] != T::ZERO)) {
                sum += self.deviation(measure.deviation, row, row, step);
                count += 1.0;
            }
        }
        // The small term stands in the published metric.
        (count > 0.0).then(|| sum / (count + if measure.last { 0.0 } else { extra }))
    }

    fn deviation(&self, deviation: Deviation, row: usize, truth: usize, step: usize) -> f64 {
        let pose = |of: &[T], row: usize| -> [f64; 4] { std::array::from_fn(|i| of[(row * self.steps + step) * 6 + i].f64()) };
        let (a, b) = (pose(self.guess, row), pose(self.truth, truth));
        let distance = || (a[0] - b[0]).hypot(a[1] - b[1]);
        match deviation {
            Deviation::Distance => distance(),
            // One that is no number is beyond it.
            Deviation::Beyond(limit) => {
                if distance() <= limit {
                    0.0
                } else {
                    1.0
                }
            }
            Deviation::Turn => {
                let (sin, cos) = (a[3].atan2(a[2]) - b[3].atan2(b[2])).abs().sin_cos();
                sin.atan2(cos)
            }
        }
    }
}
