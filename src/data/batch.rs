//! A batch as the network reads it: only rows that exist, with index lists that say what belongs together.
//!
//! A mask never reaches the network. Agents that were not seen, invalid points, polygons and lines without a valid point,
//! and absent static objects are left out here; counts and index lists say what is left.

use crate::{
    config::{ModelConfig, ObjectiveConfig},
    error::{Error, Result},
    features::Features,
    graph::{Feed, Scalar, Symbol},
};

/// What the feed's counts mean.
pub mod symbol {
    use super::Symbol;
    /// B.
    pub const SCENARIOS: Symbol = Symbol(0);
    /// Scenarios that the imitation losses read: all, or anchors and positives of triplets.
    pub const IMITATED: Symbol = Symbol(1);
    /// Agents whose history is encoded (the egos, first in their scenario, only with `use_ego_history`).
    pub const HISTORIES: Symbol = Symbol(2);
    /// Agents other than the ego that were seen: their future is predicted.
    pub const AGENTS: Symbol = Symbol(3);
    /// Valid points of map polygons.
    pub const POINTS: Symbol = Symbol(4);
    /// Map polygons with a valid point.
    pub const POLYGONS: Symbol = Symbol(5);
    /// Of these, those with a speed limit.
    pub const LIMITS: Symbol = Symbol(6);
    /// Static objects.
    pub const STATICS: Symbol = Symbol(7);
    /// Egos, agents, polygons and static objects together.
    pub const TOKENS: Symbol = Symbol(8);
    /// Reference lines.
    pub const LINES: Symbol = Symbol(9);
    /// Their valid points.
    pub const LINE_POINTS: Symbol = Symbol(10);
    /// Valid triplets of the contrastive loss.
    pub const TRIPLETS: Symbol = Symbol(11);
    /// How many there are.
    pub const COUNT: usize = 12;
}

/// Input slots of the feed. T history steps, F future steps, M modes; N(symbol) rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Input {
    /// [HISTORIES * (T - 1), 9]: differences of consecutive steps (position 2, velocity 2, cos and sin of the turn), width and
    /// length, 1 where both steps are valid; differences are 0 (cos 1) where not.
    History,
    /// [SCENARIOS, state_channel]: ego state.
    EgoState,
    /// [POINTS, 10]: centre point less the polygon's centre, vector, cos and sin of its orientation, left less centre, right less centre.
    MapPoints,
    /// [LIMITS, 1]: m/s.
    SpeedLimit,
    /// [STATICS, 2]: width, length.
    StaticShape,
    /// [TOKENS, 3]: x, y, wrapped heading.
    TokenPose,
    /// [LINE_POINTS, 6]: point less the line's first point, vector, cos and sin of the orientation.
    LinePoints,
    /// [LINES, 3]: x, y, orientation of the first point.
    LinePose,
    /// [SCENARIOS, F * 6]: x, y, cos, sin, vx, vy of the ego's future.
    EgoTarget,
    /// [SCENARIOS, F]: 1 where the ego's future is valid; 0 for scenarios that are not imitated.
    EgoValid,
    /// [AGENTS, F * 6]: as EgoTarget, relative to the agent's present pose as `agents.target` has it.
    AgentTarget,
    /// [AGENTS, F].
    AgentValid,
    /// [IMITATED, H * H]: signed distance to the edge of the drivable area; empty without the collision loss.
    CostMap,
}

/// Index slots of the feed. "Row" is a row of the named tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Index {
    /// [HISTORIES]: category.
    HistoryCategory,
    /// [SCENARIOS]: category of the ego (0); only read without `use_ego_history`.
    EgoCategory,
    /// [POLYGONS * 3]: first point, number of points, 1 if a point is missing.
    PolygonPoints,
    /// [POINTS]: polygon of each point.
    PointPolygon,
    /// [POLYGONS].
    PolygonType,
    /// [POLYGONS].
    PolygonOnRoute,
    /// [POLYGONS].
    PolygonLight,
    /// [POLYGONS]: row among LIMITS, or the number of LIMITS where there is none.
    PolygonLimit,
    /// [STATICS].
    StaticCategory,
    /// [TOKENS]: row in (egos unless encoded from history; histories; polygons; statics) stacked. Tokens of a scenario lie together:
    /// ego, agents, polygons, statics.
    TokenSource,
    /// [TOKENS]: scenario of each token.
    TokenScenario,
    /// [SCENARIOS * 6]: attention among the tokens of a scenario.
    TokenSegments,
    /// [SCENARIOS]: token of each ego.
    EgoToken,
    /// [AGENTS]: token of each agent.
    AgentToken,
    /// [SCENARIOS * 6]: attention of one query to the K tokens of the ego state.
    StateSegments,
    /// [SCENARIOS]: zeros; repeats the ego query.
    StateQuery,
    /// [LINES * 3]: first point, number of points, 1 if a point is missing.
    LinePointSegments,
    /// [LINE_POINTS]: line of each point.
    PointLine,
    /// [LINES]: scenario of each line.
    LineScenario,
    /// [SCENARIOS * M * 6]: attention over the lines of a scenario for each mode; rows of queries are line * M + mode.
    LineSegments,
    /// [LINES * 6]: attention over the modes of a line.
    ModeSegments,
    /// [SCENARIOS * 6]: attention of a scenario's queries to its tokens.
    CrossSegments,
    /// [IMITATED]: row (line * M + mode) that is right.
    Choice,
    /// [IMITATED * 2]: first row and number of rows of each scenario's queries.
    ChoiceSegments,
    /// [TRIPLETS * 3]: scenarios of anchor, positive, negative.
    Triplets,
}

/// Number of input slots.
pub const INPUTS: usize = Input::CostMap as usize + 1;
/// Number of index slots.
pub const INDEXES: usize = Index::Triplets as usize + 1;

/// What a batch depends on besides the scenarios.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOptions {
    /// The network's options.
    pub model: ModelConfig,
    /// The losses' options.
    pub objectives: ObjectiveConfig,
    /// Precision of the inputs.
    pub scalar: Scalar,
    /// True if the batch is (anchors, positives, negatives) of a training step with the contrastive loss.
    pub triplets: bool,
}

/// Scenarios packed for one step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What the graph reads.
    pub feed: Feed,
    /// Token of each scenario.
    pub tokens: Vec<String>,
    /// Label of each scenario.
    pub scenario_types: Vec<String>,
    /// Lines of each scenario, as ranges of LINES.
    pub lines: Vec<std::ops::Range<usize>>,
    /// Agents (without ego) of each scenario, as ranges of AGENTS.
    pub agents: Vec<std::ops::Range<usize>>,
    /// Original row (1-based: row 0 is the ego) in the features of each of AGENTS.
    pub agent_rows: Vec<usize>,
    /// [SCENARIOS, F, 3]: x, y, heading of the ego's future, unmasked, for the metrics.
    pub ego_future: Vec<f64>,
}

impl Batch {
    /// Number of scenarios.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }
    /// True without scenarios.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// Packs scenarios. `negative_valid` says for each triplet whether its negative counts (contrastive batches only).
/// Scenarios without a future (prediction) get empty targets.
///
/// # Errors
/// [`Error::Data`] if the arrays of a scenario contradict each other or the options.
pub fn collate(scenarios: &[&Features], negative_valid: &[bool], options: &BatchOptions) -> Result<Batch> {
    let _ = (scenarios, negative_valid, options);
    Err(Error::Data("unfinished".into()))
}
