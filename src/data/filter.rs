//! The published scenario filter, on descriptions, and where they do not suffice on the scenarios themselves.
//!
//! The order that numbers are taken from, at even distances or at random, is that of [`Catalogue::sorted`], whatever the order
//! of the source. Random choices depend on the seed and the label alone.

use super::{catalogue::Catalogue, sampler};
use crate::{
    config::{Limit, selection::FilterConfig},
    error::{Error, Result},
    scenario::{HISTORY_STEPS, Scenario},
};
use std::collections::HashSet;

/// Label of scenarios without one: the first to go.
const UNKNOWN: &str = "unknown";
/// Change of speed that is noise unless the configuration says otherwise, metres a second.
const SPEED_NOISE: f64 = 0.1;
/// Microseconds.
const SECOND: f64 = 1e6;

/// Positions of the scenarios that the filter leaves, ordered by log, type and token. `survey` says of some scenarios whether
/// they pass a [`Survey`]; those that cannot be used pass, so that they are named when they are to be.
///
/// # Errors
/// [`Error::Config`] if a key needs what a description lacks; [`Error::Data`] if nothing is left; what `survey` fails with.
pub fn filter(
    catalogue: &Catalogue,
    config: &FilterConfig,
    seed: u64,
    survey: impl FnOnce(&[usize], &Survey) -> Result<Vec<bool>>,
) -> Result<Vec<usize>> {
    let mut left = Left { catalogue, all: catalogue.sorted(), config, seed };
    let described = left.all.len();
    left.by_name()?;
    if let Some(count) = config.num_scenarios_per_type {
        left.each_type(|left, scenarios, name| left.choose(scenarios, count, name));
    }
    left.total();
    if let Some(seconds) = config.timestamp_threshold_s {
        left.by_start(seconds * SECOND)?;
    }
    let wanted = Survey { config };
    if wanted.key().is_some() && !left.all.is_empty() {
        let mut passed = survey(&left.all, &wanted)?.into_iter();
        left.all.retain(|_| passed.next().unwrap_or(true));
    }
    if left.all.is_empty() && described > 0 {
        return Err(Error::Data(format!("scenario_filter leaves none of {described} scenarios")));
    }
    Ok(left.all)
}

/// What the filter has left so far, in order.
struct Left<'a> {
    catalogue: &'a Catalogue,
    all: Vec<usize>,
    config: &'a FilterConfig,
    seed: u64,
}

impl Left<'_> {
    fn by_name(&mut self) -> Result<()> {
        let (catalogue, config) = (self.catalogue, self.config);
        let chosen = |names: &[String], list: &[String]| -> Vec<bool> {
            let list: HashSet<&String> = list.iter().collect();
            names.iter().map(|name| list.is_empty() || list.contains(name)).collect()
        };
        let types = chosen(catalogue.types(), &config.scenario_types);
        let logs = chosen(catalogue.logs(), &config.log_names);
        self.all.retain(|&i| types[catalogue.type_number(i)] && logs[catalogue.log(i)]);
        if !config.scenario_tokens.is_empty() {
            let tokens: HashSet<(Option<&str>, &str)> =
                config.scenario_tokens.iter().map(|t| (t.log_name.as_deref(), t.token.as_str())).collect();
            self.all.retain(|&i| {
                let token = catalogue.token(i);
                tokens.contains(&(None, token)) || tokens.contains(&(Some(catalogue.log_name(i)), token))
            });
        }
        if !config.map_names.is_empty() {
            if let Some(i) = self.all.iter().find(|&&i| catalogue.map_name(i).is_empty()) {
                return Err(self.lacks(*i, "map_names", "name no map"));
            }
            self.all.retain(|&i| config.map_names.iter().any(|name| name == catalogue.map_name(i)));
        }
        Ok(())
    }

    fn lacks(&self, index: usize, key: &str, what: &str) -> Error {
        let token = self.catalogue.token(index);
        Error::config(
            format!("scenario_filter.{key}"),
            format!("cannot be applied: the descriptions {what}, that of scenario '{token}' for one"),
        )
    }

    /// Lets `choose` pick from the scenarios of every label.
    fn each_type(&mut self, choose: impl Fn(&Self, &[usize], &str) -> Vec<usize>) {
        let mut by_type: Vec<Vec<usize>> = vec![Vec::new(); self.catalogue.types().len()];
        self.all.iter().for_each(|&i| by_type[self.catalogue.type_number(i)].push(i));
        let names = self.catalogue.types();
        let kept: Vec<usize> = by_type.iter().zip(names).flat_map(|(scenarios, name)| choose(self, scenarios, name)).collect();
        self.keep(kept);
    }

    /// Keeps these, in order.
    fn keep(&mut self, kept: impl IntoIterator<Item = usize>) {
        let mut wanted = vec![false; self.catalogue.len()];
        kept.into_iter().for_each(|i| wanted[i] = true);
        self.all.retain(|&i| wanted[i]);
    }

    /// So many of them: at random, or every n-th from the first on.
    fn choose(&self, scenarios: &[usize], count: usize, name: &str) -> Vec<usize> {
        if self.config.shuffle && count < scenarios.len() {
            return sampler::sampled(scenarios, count, self.seed, name);
        }
        let step = (scenarios.len() / count.max(1)).max(1);
        scenarios.iter().step_by(step).take(count).copied().collect()
    }

    fn total(&mut self) {
        let total = self.all.len();
        let count = match self.config.limit_total_scenarios {
            Limit::Count(count) => count,
            Limit::Share(share) => (share * total as f64).ceil() as usize,
        };
        if count >= total {
            return;
        }
        let is_unknown = |i: &usize| matches!(self.catalogue.scenario_type(*i), UNKNOWN | "");
        let (unknown, mut known): (Vec<usize>, Vec<usize>) = self.all.iter().partition(|i| is_unknown(i));
        if let Some(count) = count.checked_sub(known.len()).filter(|count| *count > 0) {
            known.extend(self.choose(&unknown, count, UNKNOWN));
        } else {
            // All labels together are taken from in the order of their tokens.
            known.sort_by(|a, b| self.catalogue.token(*a).cmp(self.catalogue.token(*b)));
            known = self.choose(&known, count, "");
        }
        self.keep(known);
    }

    /// Of every label, those that start `distance` microseconds or more after the last that was kept.
    fn by_start(&mut self, distance: f64) -> Result<()> {
        let catalogue = self.catalogue;
        if let Some(i) = self.all.iter().find(|&&i| catalogue.start_us(i).is_none()) {
            return Err(self.lacks(*i, "timestamp_threshold_s", "give no start"));
        }
        self.each_type(|_, scenarios, _| {
            let mut starts: Vec<(i64, usize)> = scenarios.iter().filter_map(|&i| Some((catalogue.start_us(i)?, i))).collect();
            starts.sort_by_key(|(start, _)| *start);
            let mut next = f64::NEG_INFINITY;
            starts.retain(|(start, _)| {
                let kept = *start as f64 >= next;
                if kept {
                    next = *start as f64 + distance;
                }
                kept
            });
            starts.into_iter().map(|(_, i)| i).collect()
        });
        Ok(())
    }
}

/// The filters that look at a scenario itself.
pub struct Survey<'a> {
    config: &'a FilterConfig,
}

impl Survey<'_> {
    /// The first key that makes it necessary; none if nothing does.
    pub fn key(&self) -> Option<&'static str> {
        let c = self.config;
        [
            ("scenario_filter.ego_displacement_minimum_m", c.ego_displacement_minimum_m),
            ("scenario_filter.ego_start_speed_threshold", c.ego_start_speed_threshold),
            ("scenario_filter.ego_stop_speed_threshold", c.ego_stop_speed_threshold),
            ("scenario_filter.ego_route_radius", c.ego_route_radius),
        ]
        .into_iter()
        .find_map(|(key, value)| value.map(|_| key))
    }

    /// True if a scenario passes all of them. Motion is that from the present on.
    pub fn passes(&self, scenario: &Scenario) -> bool {
        let (c, future) = (self.config, &scenario.ego[(HISTORY_STEPS - 1).min(scenario.ego.len())..]);
        let offset = scenario.vehicle.rear_axle_to_center();
        let center = |i: usize| {
            let (ego, (sin, cos)) = (&future[i], future[i].heading.sin_cos());
            [ego.x + offset * cos, ego.y + offset * sin]
        };
        let driven =
            || -> f64 { (1..future.len()).map(|i| (center(i)[0] - center(i - 1)[0]).hypot(center(i)[1] - center(i - 1)[1])).sum() };
        let speeds = || future.iter().map(|ego| ego.vx.hypot(ego.vy));
        let noise = c.speed_noise_tolerance.unwrap_or(SPEED_NOISE);
        let on_route = |radius: f64| {
            let (Some(ego), map) = (future.first(), &scenario.map) else { return true };
            let near = map.road_blocks_in_square([ego.x, ego.y], radius);
            scenario.route.iter().filter_map(|id| map.road_block(id)).any(|block| near.contains(&block))
        };
        c.ego_displacement_minimum_m.is_none_or(|least| driven() >= least)
            && c.ego_start_speed_threshold.is_none_or(|threshold| edges(speeds(), threshold, noise).rising)
            && c.ego_stop_speed_threshold.is_none_or(|threshold| edges(speeds(), threshold, noise).falling)
            && c.ego_route_radius.is_none_or(on_route)
    }
}

/// Whether a speed crosses a threshold.
#[derive(Debug, Default, PartialEq)]
struct Edges {
    /// From the threshold or below to above.
    rising: bool,
    /// From above to the threshold or below.
    falling: bool,
}

/// Crossings by more than `noise` from the extreme before.
fn edges(mut speeds: impl Iterator<Item = f64>, threshold: f64, noise: f64) -> Edges {
    let mut edges = Edges::default();
    let Some(first) = speeds.next() else { return edges };
    let (mut high, mut low) = (first, first);
    for speed in speeds {
        let crossed = |high: f64, low: f64| high > threshold && threshold >= low && high - low > noise;
        if speed > high {
            high = speed;
            if crossed(high, low) {
                edges.rising = true;
                low = high;
            }
        }
        if speed < low {
            low = speed;
            if crossed(high, low) {
                edges.falling = true;
                high = low;
            }
        }
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::selection::LogToken, data::catalogue::Name};

    /// Scenarios of 20 logs, in another order than that of their names: every third is a left turn, every fourth of the others
    /// unknown; one starts every 2 s.
    fn catalogue() -> Catalogue {
        let mut catalogue = Catalogue::default();
        for i in (0..120).rev() {
            let label = if i % 3 == 0 { "left_turn" } else { [UNKNOWN, "stopping", "stopping", "stopping"][i % 4] };
            catalogue.push(&Name {
                token: &format!("t{i:03}"),
                log_name: &format!("log {:02}", i % 20),
                scenario_type: label,
                split: None,
                map_name: ["north", "south"][i % 2],
                start_us: Some(2_000_000 * i as i64),
            });
        }
        catalogue
    }

    fn tokens(config: FilterConfig) -> Vec<String> {
        let catalogue = catalogue();
        let left = filter(&catalogue, &config, 1, |_, _| panic!("nothing to look at")).unwrap();
        assert!(left.is_sorted_by_key(|&i| (catalogue.log_name(i), catalogue.scenario_type(i), catalogue.token(i))));
        left.into_iter().map(|i| catalogue.token(i).to_owned()).collect()
    }

    fn count(config: FilterConfig) -> (usize, usize, usize) {
        let left = tokens(config);
        let number = |token: &String| token[1..].parse::<usize>().unwrap();
        let turns = left.iter().filter(|t| number(t).is_multiple_of(3)).count();
        let unknown = left.iter().filter(|t| !number(t).is_multiple_of(3) && number(t).is_multiple_of(4)).count();
        (left.len(), turns, unknown)
    }

    #[test]
    fn lists_choose() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let none = FilterConfig::default;
        assert_eq!(count(none()), (120, 40, 20));
        assert_eq!(count(FilterConfig { scenario_types: names(&["left_turn", "no such type"]), ..none() }), (40, 40, 0));
        assert_eq!(tokens(FilterConfig { log_names: names(&["log 03"]), ..none() }).len(), 6);
        assert_eq!(tokens(FilterConfig { map_names: names(&["south"]), log_names: names(&["log 03", "log 04"]), ..none() }).len(), 6);
        let token = |log: Option<&str>, token: &str| LogToken { log_name: log.map(str::to_owned), token: token.into() };
        let scenario_tokens = vec![token(None, "t007"), token(Some("log 03"), "t023"), token(Some("log 03"), "t024")];
        assert_eq!(tokens(FilterConfig { scenario_tokens, ..none() }), ["t023", "t007"]);
        let fault = filter(&catalogue(), &FilterConfig { log_names: names(&["x"]), ..none() }, 1, |_, _| Ok(Vec::new())).unwrap_err();
        assert!(fault.to_string().contains("none of 120 scenarios"), "{fault}");
    }

    #[test]
    fn numbers_are_taken_at_even_distances() {
        let none = FilterConfig::default;
        assert_eq!(count(FilterConfig { num_scenarios_per_type: Some(15), ..none() }), (45, 15, 15));
        assert_eq!(count(FilterConfig { num_scenarios_per_type: Some(30), ..none() }), (80, 30, 20));
        let turns: Vec<String> = tokens(FilterConfig { scenario_types: vec!["left_turn".into()], ..none() });
        let some = tokens(FilterConfig { scenario_types: vec!["left_turn".into()], num_scenarios_per_type: Some(15), ..none() });
        assert_eq!(some, turns.iter().step_by(2).take(15).cloned().collect::<Vec<_>>(), "40 / 15 = 2");
        // The unknown go first; then all together, every n-th by token.
        assert_eq!(count(FilterConfig { limit_total_scenarios: Limit::Count(110), ..none() }), (110, 40, 10));
        assert_eq!(count(FilterConfig { limit_total_scenarios: Limit::Share(0.845), ..none() }), (102, 40, 2), "101.4 rounded up");
        assert_eq!(count(FilterConfig { limit_total_scenarios: Limit::Count(100), ..none() }), (100, 40, 0));
        let mut few = tokens(FilterConfig { limit_total_scenarios: Limit::Count(10), ..none() });
        few.sort();
        let mut known: Vec<String> = tokens(FilterConfig { scenario_types: vec!["left_turn".into(), "stopping".into()], ..none() });
        known.sort();
        assert_eq!(few, known.iter().step_by(10).cloned().collect::<Vec<_>>());
        assert_eq!(count(FilterConfig { limit_total_scenarios: Limit::Count(500), ..none() }), (120, 40, 20));
        assert_eq!(count(FilterConfig { limit_total_scenarios: Limit::Share(1.0), ..none() }), (120, 40, 20));
        assert_eq!(count(FilterConfig { num_scenarios_per_type: Some(15), limit_total_scenarios: Limit::Share(0.5), ..none() }).0, 23);
    }

    #[test]
    fn random_choices_repeat_and_differ() {
        let config = FilterConfig { num_scenarios_per_type: Some(10), shuffle: true, ..FilterConfig::default() };
        let first = tokens(config.clone());
        assert_eq!((first.len(), tokens(config.clone())), (30, first.clone()));
        assert_ne!(first, tokens(FilterConfig { shuffle: false, ..config.clone() }));
        let other = catalogue();
        let left = filter(&other, &config, 2, |_, _| Ok(Vec::new())).unwrap();
        assert_ne!(left.iter().map(|&i| other.token(i).to_owned()).collect::<Vec<_>>(), first, "another seed");
    }

    #[test]
    fn scenarios_of_a_type_start_apart() {
        let config =
            FilterConfig { scenario_types: vec!["left_turn".into()], timestamp_threshold_s: Some(13.0), ..FilterConfig::default() };
        let mut left = tokens(config.clone());
        left.sort();
        // One starts every 6 s.
        assert_eq!(left, (0..120).step_by(9).map(|i| format!("t{i:03}")).collect::<Vec<_>>());
        let mut bare = Catalogue::default();
        bare.push(&Name { token: "t", log_name: "log", scenario_type: "left_turn", ..Default::default() });
        for (key, config) in [
            ("scenario_filter.timestamp_threshold_s", config),
            ("scenario_filter.map_names", FilterConfig { map_names: vec!["x".into()], ..FilterConfig::default() }),
        ] {
            let fault = filter(&bare, &config, 1, |_, _| Ok(Vec::new())).unwrap_err().to_string();
            assert!(fault.contains(key) && fault.contains("'t'"), "{fault}");
        }
    }

    #[test]
    fn speeds_cross_a_threshold() {
        let of = |speeds: &[f64]| edges(speeds.iter().copied(), 1.0, 0.1);
        assert_eq!(of(&[0.0, 0.5, 2.0]), Edges { rising: true, falling: false });
        assert_eq!(of(&[2.0, 0.5, 0.0]), Edges { rising: false, falling: true });
        assert_eq!(of(&[0.0, 2.0, 1.0, 3.0]), Edges { rising: true, falling: true }, "the threshold itself is below");
        assert_eq!(of(&[1.0, 1.05, 1.0, 0.96, 1.04]), Edges::default(), "noise");
        assert_eq!(of(&[2.0, 3.0, 1.5]), Edges::default());
        assert_eq!(of(&[]), Edges::default());
    }
}
