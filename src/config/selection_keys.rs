//! The keys that choose scenarios.

use super::{
    Limit,
    keys::{Rule, SWITCH, Visitor, any},
    selection::SelectionConfig,
};
use crate::error::Result;

const SHARE: Rule<f64> = Rule(|x| (0.0..=1.0).contains(x), "from 0 to 1");
const LENGTH: Rule<Option<f64>> = Rule(|x| x.is_none_or(|x| x >= 0.0), "at least 0");
const FRAMES: &str =
    "null: a source does not name the frames of its scenarios, so they cannot be looked up (scenario_tokens chooses scenarios)";

/// Shows every key to the visitor, in the order of the echo.
#[rustfmt::skip]
pub(super) fn visit(selection: &mut SelectionConfig, v: &mut impl Visitor) -> Result<()> {
    v.key("data_loader.datamodule.train_fraction", &[], &mut selection.train_fraction, SHARE)?;
    v.key("data_loader.datamodule.val_fraction", &[], &mut selection.val_fraction, SHARE)?;
    v.key("data_loader.datamodule.test_fraction", &[], &mut selection.test_fraction, SHARE)?;

    let filter = &mut selection.filter;
    v.key("scenario_filter.scenario_types", &[], &mut filter.scenario_types, any())?;
    v.key("scenario_filter.scenario_tokens", &[], &mut filter.scenario_tokens, any())?;
    v.key("scenario_filter.log_names", &[], &mut filter.log_names, any())?;
    v.key("scenario_filter.map_names", &[], &mut filter.map_names, any())?;
    v.key("scenario_filter.num_scenarios_per_type", &[], &mut filter.num_scenarios_per_type,
        Rule(|x| x.is_none_or(|x| x > 0), "above 0"))?;
    v.key("scenario_filter.limit_total_scenarios", &[], &mut filter.limit_total_scenarios,
        Rule(|x| !matches!(x, Limit::Count(0)) && *x != Limit::Share(0.0), "above 0"))?;
    v.key("scenario_filter.timestamp_threshold_s", &[], &mut filter.timestamp_threshold_s, LENGTH)?;
    v.key("scenario_filter.ego_displacement_minimum_m", &[], &mut filter.ego_displacement_minimum_m, LENGTH)?;
    v.key("scenario_filter.ego_start_speed_threshold", &[], &mut filter.ego_start_speed_threshold, LENGTH)?;
    v.key("scenario_filter.ego_stop_speed_threshold", &[], &mut filter.ego_stop_speed_threshold, LENGTH)?;
    v.key("scenario_filter.speed_noise_tolerance", &[], &mut filter.speed_noise_tolerance, LENGTH)?;
    v.key("scenario_filter.ego_route_radius", &[], &mut filter.ego_route_radius, LENGTH)?;
    v.key("scenario_filter.shuffle", &[], &mut filter.shuffle, any())?;
    // A scenario is one sample with a route here, so these two have nothing to choose.
    v.key("scenario_filter.expand_scenarios", &[], &mut None::<bool>, any())?;
    v.key("scenario_filter.remove_invalid_goals", &[], &mut None::<bool>, any())?;
    v.key("scenario_filter.token_set_path", &[], &mut None::<String>, Rule(Option::is_none, FRAMES))?;
    v.key("scenario_filter.fraction_in_token_set_threshold", &[], &mut None::<f64>, Rule(Option::is_none, FRAMES))?;

    v.key("scenario_type_weights.scenario_type_sampling_weights.enable", &[], &mut selection.weighted_sampling, SWITCH)?;
    v.key("scenario_type_weights.scenario_type_sampling_weights.scenario_type_weights", &[], &mut selection.sampling_weights,
        Rule(|x| x.iter().all(|(_, weight)| *weight >= 0.0), "numbers of at least 0"))
}
