//! The positive sample: the same scene from a slightly different state of the ego, some bystanders left out.

use super::collision;
use crate::features::normalise::EgoFrame;
use crate::features::{Features, PRESENT, agent_target};

/// How often noise is tried, half as strong each time.
pub const TRIES: usize = 5;

/// The ego's state moved by noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perturbation {
    /// x, y, heading, velocity, acceleration, steering angle, yaw rate, in the anchor's frame.
    pub state: [f64; 7],
    /// What was added, velocity before it was raised to 0.
    pub noise: [f64; 7],
    /// Tries after which the ego touched an agent; if all, it still does.
    pub failed: usize,
}

/// Adds noise to the present state, halved up to four times until the ego touches none of the nearest agents. As in the
/// published generator the last try stands even if it does not help: such scenarios mostly touch before anything is moved, and
/// a sixteenth of the noise changes little.
pub fn perturb(anchor: &Features, noise: &[f64; 7]) -> Perturbation {
    let mut tried = Perturbation { state: anchor.current_state, noise: *noise, failed: 0 };
    loop {
        tried.state = std::array::from_fn(|i| anchor.current_state[i] + tried.noise[i]);
        tried.state[3] = tried.state[3].max(0.0);
        let [x, y, heading, ..] = tried.state;
        if !collision::collides(anchor, [x, y, heading]) {
            return tried;
        }
        tried.failed += 1;
        if tried.failed == TRIES {
            return tried;
        }
        tried.noise = tried.noise.map(|n| n / 2.0);
    }
}

/// Moves the ego's present to a state and everything into its frame. Which map polygons and points are valid stays as it was, as
/// do origin and angle of the anchor.
pub fn move_ego(features: &mut Features, state: &[f64; 7]) {
    let [x, y, heading, ..] = *state;
    let frame = EgoFrame::new([x, y], heading);
    let Features { agents, map, static_objects, reference_lines, causal, current_state, .. } = features;

    agents.position[2 * PRESENT..2 * PRESENT + 2].copy_from_slice(&[x, y]);
    agents.heading[PRESENT] = heading;
    // absent steps hold 0
    for (at, _) in agents.valid.iter().enumerate().filter(|(_, valid)| **valid) {
        pose(&frame, &mut agents.position[2 * at..2 * at + 2], &mut agents.heading[at]);
    }
    vectors(&frame, &mut agents.velocity);
    if !agents.target.is_empty() {
        agents.target = agent_target(agents);
    }

    positions(&frame, &mut map.point_position);
    vectors(&frame, &mut map.point_vector);
    headings(&frame, &mut map.point_orientation);
    for center in map.polygon_center.as_chunks_mut::<3>().0 {
        let [x, y, heading] = center;
        [*x, *y] = frame.position([*x, *y]);
        *heading = frame.heading(*heading);
    }
    positions(&frame, &mut map.polygon_position);
    headings(&frame, &mut map.polygon_orientation);

    positions(&frame, &mut static_objects.position);
    headings(&frame, &mut static_objects.heading);

    for (at, _) in reference_lines.valid.iter().enumerate().filter(|(_, valid)| **valid) {
        pose(&frame, &mut reference_lines.position[2 * at..2 * at + 2], &mut reference_lines.orientation[at]);
    }
    vectors(&frame, &mut reference_lines.vector);

    for point in causal.free_path.as_chunks_mut::<3>().0 {
        let [x, y, heading] = point;
        [*x, *y] = frame.position([*x, *y]);
        *heading = frame.heading(*heading);
    }
    *current_state = *state;
    current_state[..3].fill(0.0);
}

/// `[A]`: bystanders to leave out: agents that give way to the ego or never meet it, do not lead it, and whose draw is at most
/// `portion`. `draws` `[A]` are numbers of `[0, 1)`.
pub fn bystanders(anchor: &Features, portion: f64, draws: &[f64]) -> Vec<bool> {
    let causal = &anchor.causal;
    let passive: Vec<bool> = causal.interaction_label.iter().map(|&label| label <= 0.0).collect();
    let enough = passive.iter().filter(|&&p| p).count() > 1;
    (0..anchor.agents.count).map(|row| enough && row > 0 && passive[row] && !causal.leading_agent[row] && draws[row] <= portion).collect()
}

fn pose(frame: &EgoFrame, position: &mut [f64], heading: &mut f64) {
    let moved = frame.position([position[0], position[1]]);
    position.copy_from_slice(&moved);
    *heading = frame.heading(*heading);
}

fn positions(frame: &EgoFrame, values: &mut [f64]) {
    values.as_chunks_mut().0.iter_mut().for_each(|point| *point = frame.position(*point));
}

fn vectors(frame: &EgoFrame, values: &mut [f64]) {
    values.as_chunks_mut().0.iter_mut().for_each(|vector| *vector = frame.vector(*vector));
}

fn headings(frame: &EgoFrame, values: &mut [f64]) {
    values.iter_mut().for_each(|heading| *heading = frame.heading(*heading));
}
