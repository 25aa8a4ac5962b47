//! Who passes first where the ego's and an agent's futures cross.

use super::CausalInput;
use crate::scenario::geometry::{self, Point, distance};
use crate::scenario::{AgentState, HISTORY_STEPS};
use geo::Intersects;

/// Futures that stay farther apart than this, metres, do not interact.
const CLOSE: f64 = 4.0;
/// From the rear axle to the box centre as the published labels assume it; elsewhere the vehicle's own figure is used.
const LABEL_REAR_AXLE_TO_CENTER: f64 = 1.67;

/// `[A]`: where the boxes touch at the futures' nearest points, the ego's step less the agent's (positive: the agent passes
/// first), else 0. Distances are exact, unlike the published matrix product of global coordinates.
pub(crate) fn labels(input: &CausalInput) -> Vec<f64> {
    let ego = Future::new(&input.ego.rear_axle[HISTORY_STEPS..]);
    let mut labels = vec![0.0];
    labels.extend(input.selected.iter().map(|&agent| {
        let states = &input.scenario.agents[agent].states[HISTORY_STEPS..];
        match ego.nearest_steps(states) {
            Some((agent_step, ego_step)) if touch(input, &states[agent_step], HISTORY_STEPS + ego_step) => {
                ego_step as f64 - agent_step as f64
            }
            _ => 0.0,
        }
    }));
    labels
}

/// The ego's future positions.
struct Future {
    x: Vec<f64>,
    y: Vec<f64>,
    /// Around all of them.
    low: Point,
    high: Point,
}

impl Future {
    fn new(positions: &[Point]) -> Self {
        let (x, y): (Vec<f64>, Vec<f64>) = positions.iter().map(|p| (p[0], p[1])).unzip();
        let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = ([least(&x), least(&y)], [most(&x), most(&y)]);
        Self { x, y, low, high }
    }

    /// The agent's and the ego's step between which the distance is least, the first of equals; `None` if that is not close.
    fn nearest_steps(&self, states: &[AgentState]) -> Option<(usize, usize)> {
        let (mut best, mut steps) = (CLOSE * CLOSE, None);
        let is_near = |v: f64, axis: usize| self.low[axis] - CLOSE < v && v < self.high[axis] + CLOSE;
        for (a, state) in states.iter().enumerate().filter(|(_, s)| s.valid && is_near(s.x, 0) && is_near(s.y, 1)) {
            let squared = |x: f64, y: f64| (state.x - x) * (state.x - x) + (state.y - y) * (state.y - y);
            // four minima side by side, which is quicker than one
            let mut least = [f64::INFINITY; 4];
            let ((x, x_rest), (y, y_rest)) = (self.x.as_chunks::<4>(), self.y.as_chunks::<4>());
            for (x, y) in x.iter().zip(y) {
                least = std::array::from_fn(|i| if squared(x[i], y[i]) < least[i] { squared(x[i], y[i]) } else { least[i] });
            }
            let rest = x_rest.iter().zip(y_rest).map(|(&x, &y)| squared(x, y));
            let least = rest.chain(least).fold(f64::INFINITY, f64::min);
            if least < best {
                best = least;
                steps = self.x.iter().zip(&self.y).position(|(&x, &y)| squared(x, y) == least).map(|e| (a, e));
            }
        }
        steps
    }
}

fn touch(input: &CausalInput, agent: &AgentState, step: usize) -> bool {
    let heading = input.ego.heading[step];
    let (sin, cos) = heading.sin_cos();
    let rear_axle = input.ego.rear_axle[step];
    let center = [rear_axle[0] + LABEL_REAR_AXLE_TO_CENTER * cos, rear_axle[1] + LABEL_REAR_AXLE_TO_CENTER * sin];
    let (width, length) = (input.scenario.vehicle.width, input.scenario.vehicle.length());
    let reach = (agent.width.hypot(agent.length) + width.hypot(length)) / 2.0;
    distance([agent.x, agent.y], center) < reach
        && geometry::polygon(&geometry::box_corners([agent.x, agent.y], agent.heading, agent.width, agent.length))
            .intersects(&geometry::polygon(&geometry::box_corners(center, heading, width, length)))
}
