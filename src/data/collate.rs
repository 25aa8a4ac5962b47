//! Packs scenarios into a [`Batch`]: rows that a mask excludes are left out, derived inputs are computed in double precision.

use super::{
    batch::{Batch, BatchOptions, symbol},
    check::{check, ensure},
    pack::Pack,
};
use crate::{
    config::{ModelConfig, module::ModuleKind},
    error::{Error, Result},
    features::Features,
    graph::Reals,
};
use std::ops::Range;

/// Packs scenarios into a new batch; see [`collate_into`].
///
/// # Errors
/// As [`collate_into`].
pub fn collate(scenarios: &[&Features], negative_valid: &[bool], options: &BatchOptions) -> Result<Batch> {
    let mut batch = Batch::empty(options.scalar);
    collate_into(&mut batch, scenarios, negative_valid, options)?;
    Ok(batch)
}

/// Packs scenarios into `batch`, whose memory is used again. `negative_valid` says for each triplet whether its negative
/// counts (contrastive batches only). Scenarios without a future (prediction) get no targets.
///
/// # Errors
/// [`Error::Data`] if the arrays of a scenario contradict each other, the other scenarios or the options; the batch is then
/// of no use until it is filled again.
pub fn collate_into(batch: &mut Batch, scenarios: &[&Features], negative_valid: &[bool], options: &BatchOptions) -> Result<()> {
    let model = &options.model;
    for scenario in scenarios {
        check(scenario, model)?;
    }
    let has_future = |s: &Features| s.agents.steps > model.history_steps;
    let Some(first) = scenarios.first() else { return Err(Error::Data("a batch needs a scenario".into())) };
    let labelled = has_future(first);
    for scenario in scenarios {
        ensure(has_future(scenario) == labelled, scenario, "agents.steps", "a future is known for some scenarios of the batch alone")?;
    }
    if options.triplets && (!scenarios.len().is_multiple_of(3) || negative_valid.len() != scenarios.len() / 3 || !labelled) {
        let (n, flags) = (scenarios.len(), negative_valid.len());
        return Err(Error::Data(format!("{n} scenarios (future known: {labelled}) with {flags} flags do not make triplets")));
    }
    let imitated = match (labelled, options.triplets) {
        (false, _) => 0,
        (true, false) => scenarios.len(),
        (true, true) => scenarios.len() / 3 * 2,
    };
    let rows = PackedRows::new(scenarios, model);
    // The negatives of triplets alone do without: nothing is chosen among their lines.
    let choosing = if labelled { imitated } else { scenarios.len() };
    for (scenario, lines) in scenarios.iter().zip(&rows.lines.ranges).take(choosing) {
        ensure(!lines.is_empty(), scenario, "reference_lines.valid", "no line has a valid point")?;
    }

    batch.labelled = labelled;
    batch.cost_map_size = if options.objectives.use_collision_loss { cost_map_size(&scenarios[..imitated])? } else { 0 };
    let named = if options.triplets { &scenarios[..negative_valid.len()] } else { scenarios };
    batch.tokens.clear();
    batch.tokens.extend(named.iter().map(|s| s.token.clone()));
    batch.scenario_types.clear();
    batch.scenario_types.extend(named.iter().map(|s| s.scenario_type.clone()));
    batch.ego_future.clear();
    if labelled {
        scenarios.iter().for_each(|s| batch.ego_future.extend(&s.agents.target[..model.future_steps * 3]));
    }

    let triplets: Vec<usize> =
        if options.triplets { (0..negative_valid.len()).filter(|&i| negative_valid[i]).collect() } else { Vec::new() };
    let objectives = &options.objectives;
    let type_weights = (objectives.module == ModuleKind::Standard && labelled).then_some(&objectives.type_weights[..]);
    let cost_maps = batch.cost_map_size > 0;
    let pack = Pack { scenarios, rows: &rows, model, imitated, labelled, cost_maps, triplets: &triplets, type_weights };
    let feed = &mut batch.feed;
    pack.counts(&mut feed.counts);
    if feed.reals.scalar() != options.scalar {
        feed.reals = Reals::new(options.scalar);
    }
    match &mut feed.reals {
        Reals::F32(values) => pack.inputs(values, &mut feed.real_slots),
        Reals::F64(values) => pack.inputs(values, &mut feed.real_slots),
    }
    pack.indexes(&mut feed.indexes, &mut feed.index_slots);
    debug_assert_eq!(feed.counts.len(), symbol::COUNT);

    batch.lines = rows.lines.ranges;
    batch.line_rows = rows.lines.rows;
    batch.agents = rows.agents.ranges;
    batch.agent_rows = rows.agents.rows;
    Ok(())
}

/// The size that all cost maps share.
fn cost_map_size(scenarios: &[&Features]) -> Result<usize> {
    let mut common = 0;
    for scenario in scenarios {
        let size = scenario.cost_map.as_ref().map_or(0, |m| m.size);
        ensure(size > 0, scenario, "cost_map", "missing, but the collision loss needs it")?;
        ensure(common == 0 || common == size, scenario, "cost_map.size", format_args!("{size} instead of {common} as in the batch"))?;
        common = size;
    }
    Ok(common)
}

/// Rows of one kind that are kept, scenario by scenario.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Row in the features of each kept row.
    pub rows: Vec<usize>,
    /// Kept rows of each scenario.
    pub ranges: Vec<Range<usize>>,
}

impl Kept {
    fn add(&mut self, count: usize, keep: impl Fn(usize) -> bool) {
        let start = self.rows.len();
        self.rows.extend((0..count).filter(|&row| keep(row)));
        self.ranges.push(start..self.rows.len());
    }
    /// Number of kept rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    /// Kept rows of a scenario, as rows of its features.
    pub fn of(&self, scenario: usize) -> &[usize] {
        &self.rows[self.ranges[scenario].clone()]
    }
}

/// Which rows of the features exist for the network.
#[derive(Debug, Default)]
pub(super) struct PackedRows {
    /// Agents other than the ego that were seen in the history.
    pub agents: Kept,
    /// Polygons with a valid point.
    pub polygons: Kept,
    /// Static objects.
    pub statics: Kept,
    /// Lines with a valid point.
    pub lines: Kept,
    /// Valid points of kept polygons.
    pub points: usize,
    /// Kept polygons with a speed limit.
    pub limits: usize,
    /// Valid points of kept lines.
    pub line_points: usize,
}

impl PackedRows {
    fn new(scenarios: &[&Features], model: &ModelConfig) -> Self {
        let mut rows = Self::default();
        for s in scenarios {
            let (agents, map, lines) = (&s.agents, &s.map, &s.reference_lines);
            let seen = |row: usize| agents.valid[row * agents.steps..][..model.history_steps].contains(&true);
            rows.agents.add(agents.count, |row| row > 0 && seen(row));
            let points = map.valid.len() / map.count.max(1);
            rows.polygons.add(map.count, |row| map.valid[row * points..][..points].contains(&true));
            rows.statics.add(s.static_objects.count, |row| s.static_objects.valid[row]);
            rows.lines.add(lines.count, |row| lines.valid[row * lines.points..][..lines.points].contains(&true));
            rows.points += map.valid.iter().filter(|&&v| v).count();
            rows.line_points += lines.valid.iter().filter(|&&v| v).count();
            rows.limits += rows.polygons.rows[rows.polygons.ranges.last().expect("just added").clone()]
                .iter()
                .filter(|&&row| map.polygon_has_speed_limit[row])
                .count();
        }
        rows
    }
}
