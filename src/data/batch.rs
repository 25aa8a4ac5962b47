//! A batch as the network reads it: only rows that exist, with index lists that say what belongs together.
//!
//! A mask never reaches the network. Agents that were not seen, invalid points, polygons and lines without a valid point,
//! and absent static objects are left out here; counts and index lists say what is left.

use crate::{
    config::{ModelConfig, ObjectiveConfig},
    graph::{Feed, Scalar, Symbol},
};
use std::ops::Range;

/// What the feed's counts mean.
pub mod symbol {
    use super::Symbol;
    /// B.
    pub const SCENARIOS: Symbol = Symbol(0);
    /// Scenarios that the imitation losses read, which come first: all, or anchors and positives of triplets; none without futures.
    pub const IMITATED: Symbol = Symbol(1);
    /// Agents whose history is encoded: AGENTS in their order; with `use_ego_history` the ego stands before those of its scenario.
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
    /// LIMITS and one more: the row of an unknown limit.
    pub const LIMIT_ROWS: Symbol = Symbol(12);
    /// How many there are.
    pub const COUNT: usize = 13;
}

/// Input slots of the feed. T history steps, F future steps, M modes; N(symbol) rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Input {
    /// `[HISTORIES * (T - 1), 9]`: differences of consecutive steps (position 2, velocity 2, cos and sin of the turn), width and
    /// length, 1 where both steps are valid; differences are 0 (cos 1) where not.
    History,
    /// `[SCENARIOS, state_channel]`: ego state.
    EgoState,
    /// `[POINTS, 10]`: centre point less the polygon's centre, vector, cos and sin of its orientation, left less
    /// centre, right less centre.
    MapPoints,
    /// `[LIMITS, 1]`: m/s.
    SpeedLimit,
    /// `[STATICS, 2]`: width, length.
    StaticShape,
    /// `[TOKENS, 3]`: x, y, wrapped heading.
    TokenPose,
    /// `[LINE_POINTS, 6]`: point less the line's first point, vector, cos and sin of the orientation.
    LinePoints,
    /// `[LINES, 3]`: x, y, orientation of the first point.
    LinePose,
    /// `[SCENARIOS, F * 6]`: x, y, cos, sin, vx, vy of the ego's future; empty without futures, as are the next three.
    EgoTarget,
    /// `[SCENARIOS, F]`: 1 where the ego's future is valid; 0 for scenarios that are not imitated.
    EgoValid,
    /// `[AGENTS, F * 6]`: as EgoTarget, relative to the agent's present pose as `agents.target` has it.
    AgentTarget,
    /// `[AGENTS, F]`.
    AgentValid,
    /// `[IMITATED, H * H]`: signed distance to the edge of the drivable area; empty without the collision loss.
    CostMap,
    /// `[IMITATED, 1]`: weight of the scenario's type / number of known steps of all imitated egos; empty unless the standard
    /// module trains, as is the next.
    ImitationWeight,
    /// `[AGENTS, 1]`: 1 / number of known steps of all agents of the scenario / number of scenarios with such a step.
    AgentWeight,
    /// `[SCENARIOS, 1]`: first channel of the ego state; the others follow in the slots behind, see [`ego_channel`].
    EgoChannels,
}

/// Index slots of the feed. "Row" is a row of the named tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Index {
    /// `[HISTORIES]`: category.
    HistoryCategory,
    /// `[SCENARIOS]`: category of the ego (0); read without `use_ego_history`.
    EgoCategory,
    /// `[POLYGONS * 3]`: first point, number of points, 1 if a point is missing.
    PolygonPoints,
    /// `[POINTS]`: polygon of each point.
    PointPolygon,
    /// `[POLYGONS]`.
    PolygonType,
    /// `[POLYGONS]`.
    PolygonOnRoute,
    /// `[POLYGONS]`.
    PolygonLight,
    /// `[POLYGONS]`: row among LIMITS, or the number of LIMITS where there is none.
    PolygonLimit,
    /// `[STATICS]`.
    StaticCategory,
    /// `[TOKENS]`: row in (egos unless they are among the histories; histories; polygons; statics) stacked.
    /// Tokens of a scenario lie together: ego, agents, polygons, statics.
    TokenSource,
    /// `[TOKENS]`: scenario of each token.
    TokenScenario,
    /// `[SCENARIOS * 6]`: attention among the tokens of a scenario.
    TokenSegments,
    /// `[SCENARIOS]`: token of each ego.
    EgoToken,
    /// `[AGENTS]`: token of each agent.
    AgentToken,
    /// `[SCENARIOS * 6]`: attention of one query to the K tokens of the ego state.
    StateSegments,
    /// `[SCENARIOS]`: zeros; repeats the ego query.
    StateQuery,
    /// `[LINES * 3]`: first point, number of points, 1 if a point is missing.
    LinePointSegments,
    /// `[LINE_POINTS]`: line of each point.
    PointLine,
    /// `[LINES]`: scenario of each line.
    LineScenario,
    /// `[SCENARIOS * M * 6]`: attention over the lines of a scenario for each mode; rows of queries are line * M + mode.
    LineSegments,
    /// `[LINES * 6]`: attention over the modes of a line.
    ModeSegments,
    /// `[SCENARIOS * 6]`: attention of a scenario's queries to its tokens.
    CrossSegments,
    /// `[IMITATED]`: row (line * M + mode) that is right.
    Choice,
    /// `[IMITATED * 2]`: first row and number of rows of each scenario's queries.
    ChoiceSegments,
    /// `[TRIPLETS * 3]`: scenarios of anchor, positive, negative.
    Triplets,
}

/// Number of input slots, of which the last stands for all channels of the ego state.
pub const INPUTS: usize = Input::EgoChannels as usize + 1;
/// Number of index slots.
pub const INDEXES: usize = Index::Triplets as usize + 1;

/// Input slot of one channel of the ego state, a column of its own: `[SCENARIOS, 1]`.
pub const fn ego_channel(channel: usize) -> usize {
    Input::EgoChannels as usize + channel
}

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
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// What the graph reads.
    pub feed: Feed,
    /// Token of each scenario; where they come in triplets, of each triplet.
    pub tokens: Vec<String>,
    /// Its label.
    pub scenario_types: Vec<String>,
    /// Lines of each scenario, as ranges of LINES.
    pub lines: Vec<Range<usize>>,
    /// Original row in the features of each of LINES.
    pub line_rows: Vec<usize>,
    /// Agents (without ego) of each scenario, as ranges of AGENTS.
    pub agents: Vec<Range<usize>>,
    /// Original row (1-based: row 0 is the ego) in the features of each of AGENTS.
    pub agent_rows: Vec<usize>,
    /// `[SCENARIOS, F, 3]`: x, y, heading of the ego's future, unmasked, for pictures and scenes; empty without futures.
    pub ego_future: Vec<f64>,
    /// H, rows and columns of the cost maps; 0 without.
    pub cost_map_size: usize,
    /// Whether the scenarios have a future, so that losses and metrics exist.
    pub labelled: bool,
}

impl Batch {
    /// A batch without scenarios, to be filled by [`super::collate_into`].
    pub fn empty(scalar: Scalar) -> Self {
        let feed = Feed {
            counts: Vec::new(),
            reals: crate::graph::Reals::new(scalar),
            real_slots: Vec::new(),
            indexes: Vec::new(),
            index_slots: Vec::new(),
        };
        Self {
            feed,
            tokens: Vec::new(),
            scenario_types: Vec::new(),
            lines: Vec::new(),
            line_rows: Vec::new(),
            agents: Vec::new(),
            agent_rows: Vec::new(),
            ego_future: Vec::new(),
            cost_map_size: 0,
            labelled: false,
        }
    }
    /// Number of scenarios of the source: that of triplets, where scenarios come in triplets.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }
    /// True without scenarios.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
    /// A count of the feed; 0 before the batch is filled.
    pub fn count(&self, symbol: Symbol) -> usize {
        self.feed.counts.get(symbol.0).copied().unwrap_or(0)
    }
}
