//! Fills the slots of a feed. Every slot's contents are documented at [`Input`](super::batch::Input) and
//! [`Index`](super::batch::Index); the order of the tables here is that of those lists.

use super::{
    batch::{INDEXES, INPUTS, symbol},
    check::PROJECTIONS,
    collate::PackedRows,
};
use crate::{config::ModelConfig, features::Features, scenario::geometry::wrap_angle};
use std::ops::Range;

/// Precision of the inputs.
pub(super) trait Real: Copy {
    fn of(value: f64) -> Self;
    fn of_single(value: f32) -> Self;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
    fn of_single(value: f32) -> Self {
        value
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn of_single(value: f32) -> Self {
        value.into()
    }
}

/// Row of two numbers.
fn pair(values: &[f64], row: usize) -> [f64; 2] {
    [values[2 * row], values[2 * row + 1]]
}

/// Difference of two rows of two numbers.
fn difference(values: &[f64], row: usize, from: usize) -> [f64; 2] {
    [values[2 * row] - values[2 * from], values[2 * row + 1] - values[2 * from + 1]]
}

/// Appends the elements of an index slot.
type FillIndex<'a> = fn(&Pack<'a>, &mut dyn FnMut(usize));

/// Everything that the slots are filled from.
pub(super) struct Pack<'a> {
    pub scenarios: &'a [&'a Features],
    pub rows: &'a PackedRows,
    pub model: &'a ModelConfig,
    /// Number of imitated scenarios.
    pub imitated: usize,
    /// Whether futures are known.
    pub labelled: bool,
    /// Whether the cost maps are wanted.
    pub cost_maps: bool,
    /// Triplets that count.
    pub triplets: &'a [usize],
    /// Weights of scenario types; none unless the standard module trains.
    pub type_weights: Option<&'a [(String, f64)]>,
}

impl Pack<'_> {
    /// Counts by symbol.
    pub fn counts(&self, out: &mut Vec<usize>) {
        let (rows, scenarios) = (self.rows, self.scenarios.len());
        out.clear();
        out.resize(symbol::COUNT, 0);
        let egos = if self.model.use_ego_history { scenarios } else { 0 };
        for (symbol, n) in [
            (symbol::SCENARIOS, scenarios),
            (symbol::IMITATED, self.imitated),
            (symbol::HISTORIES, rows.agents.len() + egos),
            (symbol::AGENTS, rows.agents.len()),
            (symbol::POINTS, rows.points),
            (symbol::POLYGONS, rows.polygons.len()),
            (symbol::LIMITS, rows.limits),
            (symbol::LIMIT_ROWS, rows.limits + 1),
            (symbol::STATICS, rows.statics.len()),
            (symbol::TOKENS, scenarios + rows.agents.len() + rows.polygons.len() + rows.statics.len()),
            (symbol::LINES, rows.lines.len()),
            (symbol::LINE_POINTS, rows.line_points),
            (symbol::TRIPLETS, self.triplets.len()),
        ] {
            out[symbol.0] = n;
        }
    }

    /// All input slots.
    pub fn inputs<T: Real>(&self, values: &mut Vec<T>, slots: &mut Vec<Range<usize>>) {
        const BEFORE_CHANNELS: usize = INPUTS - 1;
        let fills: [fn(&Self, &mut Vec<T>); BEFORE_CHANNELS] = [
            Self::history,
            Self::ego_state,
            Self::map_points,
            Self::speed_limit,
            Self::static_shape,
            Self::token_pose,
            Self::line_points,
            Self::line_pose,
            Self::ego_target,
            Self::ego_valid,
            Self::agent_target,
            Self::agent_valid,
            Self::cost_map,
            Self::imitation_weight,
            Self::agent_weight,
        ];
        values.clear();
        slots.clear();
        for fill in fills {
            let start = values.len();
            fill(self, values);
            slots.push(start..values.len());
        }
        for channel in 0..self.model.state_channel {
            let start = values.len();
            values.extend(self.scenarios.iter().map(|s| T::of(s.current_state[channel])));
            slots.push(start..values.len());
        }
    }

    /// Scenario and feature row of every encoded history.
    fn histories(&self) -> impl Iterator<Item = (&Features, usize)> {
        let ego = self.model.use_ego_history.then_some(0);
        let of = move |s| ego.into_iter().chain(self.rows.agents.of(s).iter().copied());
        self.scenarios.iter().enumerate().flat_map(move |(s, features)| of(s).map(move |row| (*features, row)))
    }

    /// Scenario number, features and row of every kept row of a kind.
    fn each<'b>(&'b self, kept: &'b super::collate::Kept) -> impl Iterator<Item = (usize, &'b Features, usize)> {
        self.scenarios.iter().enumerate().flat_map(move |(s, features)| kept.of(s).iter().map(move |&row| (s, *features, row)))
    }

    fn history<T: Real>(&self, out: &mut Vec<T>) {
        for (features, row) in self.histories() {
            let agents = &features.agents;
            for step in 1..self.model.history_steps {
                let now = row * agents.steps + step;
                let both = agents.valid[now] && agents.valid[now - 1];
                let [x, y] = if both { difference(&agents.position, now, now - 1) } else { [0.0; 2] };
                let [vx, vy] = if both { difference(&agents.velocity, now, now - 1) } else { [0.0; 2] };
                let turn: f64 = if both { agents.heading[now] - agents.heading[now - 1] } else { 0.0 };
                let [width, length] = pair(&agents.shape, now);
                let known = if both { 1.0 } else { 0.0 };
                out.extend([x, y, vx, vy, turn.cos(), turn.sin(), width, length, known].map(T::of));
            }
        }
    }

    fn ego_state<T: Real>(&self, out: &mut Vec<T>) {
        for s in self.scenarios {
            out.extend(s.current_state[..self.model.state_channel].iter().map(|&x| T::of(x)));
        }
    }

    fn map_points<T: Real>(&self, out: &mut Vec<T>) {
        for (_, features, row) in self.each(&self.rows.polygons) {
            let map = &features.map;
            let points = map.valid.len() / map.count;
            let center = &map.polygon_center[3 * row..3 * row + 2];
            // Rows of the three sides: centre, left, right.
            let side = |k: usize, point: usize| (3 * row + k) * points + point;
            for point in (0..points).filter(|point| map.valid[row * points + point]) {
                let middle = side(0, point);
                let [x, y] = pair(&map.point_position, middle);
                let [vx, vy] = pair(&map.point_vector, middle);
                let (sin, cos) = map.point_orientation[middle].sin_cos();
                let left = difference(&map.point_position, side(1, point), middle);
                let right = difference(&map.point_position, side(2, point), middle);
                out.extend([x - center[0], y - center[1], vx, vy, cos, sin, left[0], left[1], right[0], right[1]].map(T::of));
            }
        }
    }

    fn speed_limit<T: Real>(&self, out: &mut Vec<T>) {
        let limited = self.each(&self.rows.polygons).filter(|(_, f, row)| f.map.polygon_has_speed_limit[*row]);
        out.extend(limited.map(|(_, f, row)| T::of(f.map.polygon_speed_limit[row])));
    }

    fn static_shape<T: Real>(&self, out: &mut Vec<T>) {
        for (_, f, row) in self.each(&self.rows.statics) {
            out.extend(pair(&f.static_objects.shape, row).map(T::of));
        }
    }

    fn token_pose<T: Real>(&self, out: &mut Vec<T>) {
        let mut put = |[x, y]: [f64; 2], heading: f64| out.extend([x, y, wrap_angle(heading)].map(T::of));
        for (s, features) in self.scenarios.iter().enumerate() {
            let (agents, map, objects) = (&features.agents, &features.map, &features.static_objects);
            for row in [0].into_iter().chain(self.rows.agents.of(s).iter().copied()) {
                let present = row * agents.steps + self.model.history_steps - 1;
                put(pair(&agents.position, present), agents.heading[present]);
            }
            for &row in self.rows.polygons.of(s) {
                let center = &map.polygon_center[3 * row..3 * row + 3];
                put([center[0], center[1]], center[2]);
            }
            for &row in self.rows.statics.of(s) {
                put(pair(&objects.position, row), objects.heading[row]);
            }
        }
    }

    fn line_points<T: Real>(&self, out: &mut Vec<T>) {
        for (_, features, row) in self.each(&self.rows.lines) {
            let lines = &features.reference_lines;
            let first = row * lines.points;
            for point in (first..first + lines.points).filter(|&point| lines.valid[point]) {
                let [x, y] = difference(&lines.position, point, first);
                let [vx, vy] = pair(&lines.vector, point);
                let (sin, cos) = lines.orientation[point].sin_cos();
                out.extend([x, y, vx, vy, cos, sin].map(T::of));
            }
        }
    }

    fn line_pose<T: Real>(&self, out: &mut Vec<T>) {
        for (_, features, row) in self.each(&self.rows.lines) {
            let lines = &features.reference_lines;
            let first = row * lines.points;
            let [x, y] = pair(&lines.position, first);
            out.extend([x, y, lines.orientation[first]].map(T::of));
        }
    }

    /// Target of one agent: `[F, 6]`.
    fn target<T: Real>(&self, features: &Features, row: usize, out: &mut Vec<T>) {
        let (agents, future) = (&features.agents, self.model.future_steps);
        for step in 0..future {
            let goal = &agents.target[(row * future + step) * 3..][..3];
            let (sin, cos) = goal[2].sin_cos();
            let [vx, vy] = pair(&agents.velocity, row * agents.steps + self.model.history_steps + step);
            out.extend([goal[0], goal[1], cos, sin, vx, vy].map(T::of));
        }
    }

    /// Validity of one agent's future: `[F]`; 0 where the scenario is not imitated.
    fn future_valid<T: Real>(&self, scenario: usize, features: &Features, row: usize, out: &mut Vec<T>) {
        let imitated = scenario < self.imitated;
        let future = &features.agents.valid[row * features.agents.steps + self.model.history_steps..][..self.model.future_steps];
        out.extend(future.iter().map(|&valid| T::of(if valid && imitated { 1.0 } else { 0.0 })));
    }

    fn ego_target<T: Real>(&self, out: &mut Vec<T>) {
        if self.labelled {
            self.scenarios.iter().for_each(|features| self.target(features, 0, out));
        }
    }

    fn ego_valid<T: Real>(&self, out: &mut Vec<T>) {
        if self.labelled {
            self.scenarios.iter().enumerate().for_each(|(s, features)| self.future_valid(s, features, 0, out));
        }
    }

    fn agent_target<T: Real>(&self, out: &mut Vec<T>) {
        if self.labelled {
            self.each(&self.rows.agents).for_each(|(_, features, row)| self.target(features, row, out));
        }
    }

    fn agent_valid<T: Real>(&self, out: &mut Vec<T>) {
        if self.labelled {
            self.each(&self.rows.agents).for_each(|(s, features, row)| self.future_valid(s, features, row, out));
        }
    }

    fn cost_map<T: Real>(&self, out: &mut Vec<T>) {
        if self.cost_maps {
            for map in self.scenarios[..self.imitated].iter().filter_map(|s| s.cost_map.as_ref()) {
                out.extend(map.values.iter().map(|&x| T::of_single(x)));
            }
        }
    }

    /// Known steps of one agent's future.
    fn known(&self, scenario: usize, row: usize) -> usize {
        let agents = &self.scenarios[scenario].agents;
        let future = &agents.valid[row * agents.steps + self.model.history_steps..][..self.model.future_steps];
        if scenario < self.imitated { future.iter().filter(|&&valid| valid).count() } else { 0 }
    }

    fn imitation_weight<T: Real>(&self, out: &mut Vec<T>) {
        let Some(weights) = self.type_weights else { return };
        let known: usize = (0..self.imitated).map(|s| self.known(s, 0)).sum();
        for scenario in &self.scenarios[..self.imitated] {
            let weight = weights.iter().find(|(name, _)| *name == scenario.scenario_type).map_or(1.0, |(_, weight)| *weight);
            out.push(T::of(weight / known.max(1) as f64));
        }
    }

    fn agent_weight<T: Real>(&self, out: &mut Vec<T>) {
        if self.type_weights.is_none() {
            return;
        }
        let known = |s: usize| self.rows.agents.of(s).iter().map(|&row| self.known(s, row)).sum::<usize>();
        let scenarios = self.each_scenario().filter(|&s| known(s) > 0).count();
        for s in self.each_scenario() {
            let weight = T::of(1.0 / (known(s).max(1) * scenarios.max(1)) as f64);
            out.extend(self.rows.agents.of(s).iter().map(|_| weight));
        }
    }

    /// All index slots.
    pub fn indexes(&self, values: &mut Vec<i32>, slots: &mut Vec<Range<usize>>) {
        let fills: [FillIndex<'_>; INDEXES] = [
            |p, put| p.histories().for_each(|(f, row)| put(f.agents.category[row] as usize)),
            |p, put| p.scenarios.iter().for_each(|s| put(s.agents.category[0] as usize)),
            Self::polygon_points,
            Self::point_polygon,
            |p, put| p.each(&p.rows.polygons).for_each(|(_, f, row)| put(f.map.polygon_type[row] as usize)),
            |p, put| p.each(&p.rows.polygons).for_each(|(_, f, row)| put(f.map.polygon_on_route[row].into())),
            |p, put| p.each(&p.rows.polygons).for_each(|(_, f, row)| put(f.map.polygon_light[row] as usize)),
            Self::polygon_limit,
            |p, put| p.each(&p.rows.statics).for_each(|(_, f, row)| put(f.static_objects.category[row] as usize)),
            Self::token_source,
            |p, put| p.each_scenario().for_each(|s| p.tokens(s).for_each(|_| put(s))),
            |p, put| p.each_scenario().for_each(|s| segment(put, p.tokens(s), p.tokens(s), 1)),
            |p, put| p.each_scenario().for_each(|s| put(p.tokens(s).start)),
            |p, put| p.each_scenario().for_each(|s| (1..=p.rows.agents.of(s).len()).for_each(|a| put(p.tokens(s).start + a))),
            |p, put| p.each_scenario().for_each(|s| segment(put, s..s + 1, p.channels(s), 1)),
            |p, put| p.each_scenario().for_each(|_| put(0)),
            Self::line_point_segments,
            Self::point_line,
            |p, put| p.each(&p.rows.lines).for_each(|(s, _, _)| put(s)),
            Self::line_segments,
            |p, put| (0..p.rows.lines.len()).for_each(|line| segment(put, p.modes(line..line + 1), p.modes(line..line + 1), 1)),
            |p, put| p.each_scenario().for_each(|s| segment(put, p.queries(s), p.tokens(s), 1)),
            |p, put| (0..p.imitated).for_each(|s| put(p.choice(s))),
            |p, put| (0..p.imitated).for_each(|s| [p.queries(s).start, p.queries(s).len()].into_iter().for_each(&mut *put)),
            |p, put| p.triplets.iter().for_each(|&t| (0..3).for_each(|part| put(t + part * (p.scenarios.len() / 3)))),
        ];
        values.clear();
        slots.clear();
        for fill in fills {
            let start = values.len();
            fill(self, &mut |row| values.push(row as i32));
            slots.push(start..values.len());
        }
    }

    /// Tokens of a scenario: ego, agents, polygons, statics.
    fn tokens(&self, s: usize) -> Range<usize> {
        let (agents, polygons, statics) = (&self.rows.agents.ranges[s], &self.rows.polygons.ranges[s], &self.rows.statics.ranges[s]);
        s + agents.start + polygons.start + statics.start..s + 1 + agents.end + polygons.end + statics.end
    }

    fn each_scenario(&self) -> Range<usize> {
        0..self.scenarios.len()
    }

    /// Rows of the ego state's tokens of a scenario.
    fn channels(&self, s: usize) -> Range<usize> {
        s * self.model.state_channel..(s + 1) * self.model.state_channel
    }

    /// Rows (line * M + mode) of some lines.
    fn modes(&self, lines: Range<usize>) -> Range<usize> {
        lines.start * self.model.num_modes..lines.end * self.model.num_modes
    }

    /// Rows (line * M + mode) of a scenario.
    fn queries(&self, s: usize) -> Range<usize> {
        self.modes(self.rows.lines.ranges[s].clone())
    }

    fn token_source(&self, put: &mut dyn FnMut(usize)) {
        let scenarios = self.scenarios.len();
        // Egos and histories make the first `scenarios + agents` rows, in either order of stacking.
        let polygons = scenarios + self.rows.agents.len();
        let statics = polygons + self.rows.polygons.len();
        for s in 0..scenarios {
            let agents = self.rows.agents.ranges[s].clone();
            if self.model.use_ego_history {
                (agents.start + s..agents.end + s + 1).for_each(&mut *put);
            } else {
                put(s);
                agents.for_each(|a| put(scenarios + a));
            }
            self.rows.polygons.ranges[s].clone().for_each(|row| put(polygons + row));
            self.rows.statics.ranges[s].clone().for_each(|row| put(statics + row));
        }
    }

    fn polygon_points(&self, put: &mut dyn FnMut(usize)) {
        let masks = self.each(&self.rows.polygons).map(|(_, f, row)| {
            let points = f.map.valid.len() / f.map.count;
            &f.map.valid[row * points..][..points]
        });
        pooling_segments(masks, put);
    }

    fn line_point_segments(&self, put: &mut dyn FnMut(usize)) {
        let masks = self.each(&self.rows.lines).map(|(_, f, row)| {
            let points = f.reference_lines.points;
            &f.reference_lines.valid[row * points..][..points]
        });
        pooling_segments(masks, put);
    }

    fn point_polygon(&self, put: &mut dyn FnMut(usize)) {
        for (polygon, (_, f, row)) in self.each(&self.rows.polygons).enumerate() {
            let points = f.map.valid.len() / f.map.count;
            f.map.valid[row * points..][..points].iter().filter(|&&v| v).for_each(|_| put(polygon));
        }
    }

    fn point_line(&self, put: &mut dyn FnMut(usize)) {
        for (line, (_, f, row)) in self.each(&self.rows.lines).enumerate() {
            let points = f.reference_lines.points;
            f.reference_lines.valid[row * points..][..points].iter().filter(|&&v| v).for_each(|_| put(line));
        }
    }

    fn polygon_limit(&self, put: &mut dyn FnMut(usize)) {
        let mut next = 0;
        for (_, f, row) in self.each(&self.rows.polygons) {
            if f.map.polygon_has_speed_limit[row] {
                put(next);
                next += 1;
            } else {
                put(self.rows.limits);
            }
        }
    }

    fn line_segments(&self, put: &mut dyn FnMut(usize)) {
        let modes = self.model.num_modes;
        for queries in self.each_scenario().map(|s| self.queries(s)) {
            // Every M-th row, from each mode on.
            (0..modes).for_each(|m| segment(put, queries.start + m..queries.end + m, queries.start + m..queries.end + m, modes));
        }
    }

    /// The row that is right: the line nearest to where the ego's known future ends, and the mode, a bin of the arc length
    /// that the ego reaches on it.
    fn choice(&self, s: usize) -> usize {
        let (features, modes) = (self.scenarios[s], self.model.num_modes);
        let (agents, lines) = (&features.agents, &features.reference_lines);
        let known = agents.valid[self.model.history_steps..][..self.model.future_steps].iter().filter(|&&v| v).count();
        let second = (known / 10).min(PROJECTIONS - 1);
        let projection = |row: usize| pair(&lines.future_projection, row * PROJECTIONS + second);
        let (line, &row) = (self.rows.lines.of(s).iter().enumerate())
            .min_by(|a, b| projection(*a.1)[1].total_cmp(&projection(*b.1)[1]))
            .expect("imitated scenarios have a line");
        // A negative or undefined quotient becomes 0.
        let mode = (projection(row)[0] / (self.model.radius / modes as f64)) as usize;
        (self.rows.lines.ranges[s].start + line) * modes + mode.min(modes - 1)
    }
}

/// One attention segment: start, count, stride of the queries, then of the keys, which take every `stride`-th row.
fn segment(put: &mut dyn FnMut(usize), queries: Range<usize>, keys: Range<usize>, stride: usize) {
    for rows in [queries, keys] {
        [rows.start, rows.len() / stride, stride].into_iter().for_each(&mut *put);
    }
}

/// First row, number of rows, and whether a row is missing, of consecutive groups of valid points.
fn pooling_segments<'a>(masks: impl Iterator<Item = &'a [bool]>, put: &mut dyn FnMut(usize)) {
    let mut start = 0;
    for mask in masks {
        let valid = mask.iter().filter(|&&v| v).count();
        [start, valid, usize::from(valid < mask.len())].into_iter().for_each(&mut *put);
        start += valid;
    }
}
