//! Which scenarios are used.

use super::{Limit, setting::Setting, tree::Value};

/// What is chosen of all scenarios of a source or cache. First `filter`; then the splits; of each split a fraction.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectionConfig {
    /// `scenario_filter.*`.
    pub filter: FilterConfig,
    /// Share of the training split that is used.
    pub train_fraction: f64,
    /// Share of the validation split that is used.
    pub val_fraction: f64,
    /// Share of the test split that is used.
    pub test_fraction: f64,
    /// Draw the scenarios of an epoch with replacement, by the weights of their types.
    pub weighted_sampling: bool,
    /// Weights of scenario types; 1 for others.
    pub sampling_weights: Vec<(String, f64)>,
}

impl Default for SelectionConfig {
    fn default() -> Self {
        Self {
            filter: FilterConfig::default(),
            train_fraction: 1.0,
            val_fraction: 1.0,
            test_fraction: 1.0,
            weighted_sampling: false,
            sampling_weights: Vec::new(),
        }
    }
}

/// The published scenario filter. Its fields apply in this order; an empty list or none leaves all.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterConfig {
    /// Labels.
    pub scenario_types: Vec<String>,
    /// Scenarios, of a log or of any.
    pub scenario_tokens: Vec<LogToken>,
    /// Recordings.
    pub log_names: Vec<String>,
    /// Maps, by the names that the source's descriptions give.
    pub map_names: Vec<String>,
    /// At most so many of each label.
    pub num_scenarios_per_type: Option<usize>,
    /// At most so many, or this share rounded up. Those with label `unknown` go first.
    pub limit_total_scenarios: Limit,
    /// Seconds from the start of one to that of the next with the same label, at least.
    pub timestamp_threshold_s: Option<f64>,
    /// Metres that the ego drives after the present, at least.
    pub ego_displacement_minimum_m: Option<f64>,
    /// The ego gets faster than this after having been slower, metres a second.
    pub ego_start_speed_threshold: Option<f64>,
    /// The ego gets slower than this after having been faster, metres a second.
    pub ego_stop_speed_threshold: Option<f64>,
    /// Change of speed that is taken for noise by these two, metres a second; none takes 0.1.
    pub speed_noise_tolerance: Option<f64>,
    /// Half the side of the square around the ego in which a lane of the route must lie, metres.
    pub ego_route_radius: Option<f64>,
    /// Choose at random, from the seed, where a number is chosen; otherwise at even distances in the order.
    pub shuffle: bool,
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self {
            scenario_types: Vec::new(),
            scenario_tokens: Vec::new(),
            log_names: Vec::new(),
            map_names: Vec::new(),
            num_scenarios_per_type: None,
            limit_total_scenarios: Limit::Share(1.0),
            timestamp_threshold_s: None,
            ego_displacement_minimum_m: None,
            ego_start_speed_threshold: None,
            ego_stop_speed_threshold: None,
            speed_noise_tolerance: None,
            ego_route_radius: None,
            shuffle: false,
        }
    }
}

/// A scenario by its token, of one log or of any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogToken {
    /// None for any.
    pub log_name: Option<String>,
    /// Its token.
    pub token: String,
}

impl Setting for LogToken {
    const EXPECTED: &'static str = "a token, or a log name and a token";
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::List(pair) => match &pair[..] {
                [log, token] => Some(Self { log_name: Some(String::read(log)?), token: String::read(token)? }),
                _ => None,
            },
            token => Some(Self { log_name: None, token: String::read(token)? }),
        }
    }
    fn write(&self) -> Value {
        match &self.log_name {
            Some(log) => Value::List(vec![log.write(), self.token.write()]),
            None => self.token.write(),
        }
    }
}

impl Setting for Vec<LogToken> {
    const EXPECTED: &'static str = "a list of tokens, or of pairs of log name and token";
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::Null => Some(Vec::new()),
            Value::List(items) => items.iter().map(LogToken::read).collect(),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        Value::List(self.iter().map(Setting::write).collect())
    }
}
