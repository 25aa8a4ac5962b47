//! Whether the ego at another pose would touch an agent.

use crate::features::normalise::EgoFrame;
use crate::features::{AgentFeatures, Features, PRESENT};

/// Agents that are looked at: the nearest ones.
const CHECKED: usize = 10;

/// True if the ego's box, its rear axle at `pose` (x, y, heading), meets the present box of one of the nearest agents; boxes
/// that touch do meet.
pub(super) fn collides(features: &Features, pose: [f64; 3]) -> bool {
    let agents = &features.agents;
    let [x, y, heading] = pose;
    let (sin, cos) = heading.sin_cos();
    let offset = features.rear_axle_to_center;
    let frame = EgoFrame::new([x + cos * offset, y + sin * offset], heading);
    let ego_half = half_size(agents, 0);
    (1..agents.count.min(CHECKED + 1)).any(|row| meet(ego_half, agents, row, &frame))
}

/// Half the length, half the width.
fn half_size(agents: &AgentFeatures, row: usize) -> [f64; 2] {
    let at = 2 * (row * agents.steps + PRESENT);
    [agents.shape[at + 1] / 2.0, agents.shape[at] / 2.0]
}

/// By separating axes, in the frame of the ego's centre.
fn meet(ego_half: [f64; 2], agents: &AgentFeatures, row: usize, frame: &EgoFrame) -> bool {
    let at = row * agents.steps + PRESENT;
    let [x, y] = frame.position([agents.position[2 * at], agents.position[2 * at + 1]]);
    let (sin, cos) = frame.heading(agents.heading[at]).sin_cos();
    let [length, width] = half_size(agents, row);
    let along = [cos * length, sin * length];
    let across = [-sin * width, cos * width];
    let corner = |a: f64, b: f64| [x + a * along[0] + b * across[0], y + a * along[1] + b * across[1]];
    let corners = [corner(1.0, 1.0), corner(-1.0, 1.0), corner(-1.0, -1.0), corner(1.0, -1.0)];
    let span = |corners: &[[f64; 2]; 4], axis: [f64; 2]| {
        corners.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), corner| {
            let value = corner[0] * axis[0] + corner[1] * axis[1];
            (low.min(value), high.max(value))
        })
    };
    // the published check rounds the ego's corners to single precision, but not its half sizes
    let [ego_length, ego_width] = ego_half.map(|half| f64::from(half as f32));
    let ego_corners = [[ego_length, ego_width], [ego_length, -ego_width], [-ego_length, -ego_width], [-ego_length, ego_width]];
    let apart = |a: (f64, f64), b: (f64, f64)| a.1 < b.0 || a.0 > b.1;
    !(apart(span(&corners, [1.0, 0.0]), (-ego_half[0], ego_half[0]))
        || apart(span(&corners, [0.0, 1.0]), (-ego_half[1], ego_half[1]))
        || [along, across].into_iter().any(|axis| apart(span(&corners, axis), span(&ego_corners, axis))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ego at the origin, 2 m by 5 m, its centre 1.5 m ahead of the rear axle, and one agent of 2 m by 4 m.
    fn scene(x: f64, y: f64, heading: f64) -> Features {
        let steps = PRESENT + 1;
        let mut features = Features { rear_axle_to_center: 1.5, ..Default::default() };
        features.agents = AgentFeatures {
            count: 2,
            steps,
            position: [0.0, 0.0].repeat(steps).into_iter().chain([x, y].repeat(steps)).collect(),
            heading: [0.0].repeat(steps).into_iter().chain([heading].repeat(steps)).collect(),
            shape: [2.0, 5.0].repeat(steps).into_iter().chain([2.0, 4.0].repeat(steps)).collect(),
            ..Default::default()
        };
        features
    }

    #[test]
    fn boxes_that_touch_meet() {
        let hit = |x: f64, y: f64, heading: f64| collides(&scene(x, y, heading), [0.0; 3]);
        // ahead: 1.5 + 2.5 + 2
        assert!(hit(6.0, 0.0, 0.0));
        assert!(!hit(6.001, 0.0, 0.0));
        assert!(hit(1.5, 2.0, 0.0));
        assert!(!hit(1.5, 2.001, 0.0));
        // turned by 45 degrees only the agent's own axes separate: its corner is beside the ego's
        let corner = [4.0, 1.0];
        let diagonal = std::f64::consts::FRAC_1_SQRT_2;
        let beyond = |gap: f64| hit(corner[0] + (2.0 + gap) * diagonal, corner[1] + (2.0 + gap) * diagonal, std::f64::consts::FRAC_PI_4);
        assert!(beyond(-0.01));
        assert!(!beyond(0.01));
    }

    #[test]
    fn the_pose_is_that_of_the_rear_axle() {
        let scene = scene(0.0, 6.0, std::f64::consts::FRAC_PI_2);
        assert!(!collides(&scene, [0.0; 3]));
        assert!(collides(&scene, [0.0, 0.0, std::f64::consts::FRAC_PI_2]));
        assert!(!collides(&scene, [0.0, -0.01, std::f64::consts::FRAC_PI_2]));
    }

    #[test]
    fn only_the_nearest_agents_count() {
        let mut scene = scene(20.0, 0.0, 0.0);
        let agents = &mut scene.agents;
        let row = agents.steps..2 * agents.steps;
        for _ in 0..9 {
            agents.position.extend_from_within(2 * row.start..2 * row.end);
            agents.heading.extend_from_within(row.clone());
            agents.shape.extend_from_within(2 * row.start..2 * row.end);
        }
        // row 11 stands in the ego
        agents.position.extend([0.0, 0.0].repeat(agents.steps));
        agents.heading.extend([0.0].repeat(agents.steps));
        agents.shape.extend([2.0, 4.0].repeat(agents.steps));
        agents.count = 12;
        assert!(!collides(&scene, [0.0; 3]));
        scene.agents.position.rotate_right(2 * scene.agents.steps);
        scene.agents.position.rotate_right(2 * scene.agents.steps);
        assert!(collides(&scene, [0.0; 3]));
    }
}
