//! Agents taken out, their causal features with them.

use crate::features::Features;
use crate::scenario::FUTURE_STEPS;

/// Drops the rows of the mask `[A]`. The published generator leaves the causal features at their old length; here they fit.
pub fn drop_agents(features: &mut Features, dropped: &[bool]) {
    let Features { agents, causal, .. } = features;
    let steps = agents.steps;
    for (values, width) in [
        (&mut agents.position, 2 * steps),
        (&mut agents.heading, steps),
        (&mut agents.velocity, 2 * steps),
        (&mut agents.shape, 2 * steps),
        (&mut agents.target, 3 * FUTURE_STEPS),
        (&mut causal.leading_distance, 1),
        (&mut causal.interaction_label, 1),
    ] {
        retain(values, width, dropped);
    }
    retain(&mut agents.valid, steps, dropped);
    retain(&mut causal.leading_agent, 1, dropped);
    retain(&mut agents.category, 1, dropped);
    agents.count = agents.category.len();
}

fn retain<T: Copy>(values: &mut Vec<T>, width: usize, dropped: &[bool]) {
    let mut length = 0;
    for row in (0..dropped.len()).filter(|&row| !dropped[row]) {
        values.copy_within(row * width..(row + 1) * width, length);
        length += width;
    }
    values.truncate(length);
}
