//! A scenario of a batch as a picture: map, agents, what the ego did, what the network proposes.

use super::session::Outputs;
use crate::{
    data::{
        Batch,
        batch::{Index, Input, symbol},
    },
    graph::RealsRef,
    logger::picture::{Colour, Picture},
    scenario::Vehicle,
};
use std::ops::Range;

/// Pixels of each side.
const SIZE: usize = 400;
/// Metres from the middle to each side.
const RADIUS: f64 = 50.0;
/// The middle of the picture is that far ahead of the ego, metres.
const AHEAD: f64 = 20.0;

const BACKGROUND: Colour = [255, 255, 255];
const ROAD: Colour = [222, 222, 222];
const ROUTE: Colour = [205, 222, 240];
const CROSSWALK: Colour = [236, 228, 205];
const CENTERLINE: Colour = [190, 190, 190];
const OBJECT: Colour = [150, 120, 90];
const AGENT: Colour = [90, 130, 90];
const AGENT_FUTURE: Colour = [110, 175, 110];
const EGO: Colour = [200, 120, 30];
const CANDIDATE: Colour = [170, 150, 220];
const BEST: Colour = [110, 30, 200];
const TRUTH: Colour = [210, 40, 40];

/// Draws a scenario in the ego's frame: lanes (those of the route bluish), crosswalks, static objects, agents (green) with their
/// futures, all candidates (light violet), the future that was driven (red), the most probable candidate (violet).
pub fn draw(batch: &Batch, outputs: &Outputs, scenario: usize) -> Picture {
    let mut picture = Picture::new(SIZE, [AHEAD, 0.0], RADIUS, BACKGROUND);
    let scene = Scene { batch, tokens: Tokens::new(batch, scenario), scenario };
    scene.map(&mut picture);
    scene.objects(&mut picture);
    scene.agents(&mut picture);
    let ego = Vehicle::PACIFICA;
    picture.rectangle([ego.rear_axle_to_center(), 0.0, 0.0], ego.length(), ego.width, EGO);
    for row in outputs.rows(batch, scenario) {
        picture.line(line(&outputs.poses(row)), 1.0, CANDIDATE);
    }
    let truth = batch.ego_future.chunks_exact(3).map(|pose| [pose[0], pose[1]]).skip(scenario * outputs.steps).take(outputs.steps);
    picture.line(from_ego(truth), 2.0, TRUTH);
    picture.line(line(&outputs.best_trajectory(batch, scenario)), 3.0, BEST);
    picture
}

fn line(poses: &[[f64; 3]]) -> impl Iterator<Item = [f64; 2]> {
    from_ego(poses.iter().map(|pose| [pose[0], pose[1]]))
}

fn from_ego(points: impl Iterator<Item = [f64; 2]>) -> impl Iterator<Item = [f64; 2]> {
    std::iter::once([0.0; 2]).chain(points)
}

/// Tokens of a scenario: the ego's, those of agents, polygons, static objects.
struct Tokens {
    agents: Range<usize>,
    polygons: Range<usize>,
    objects: Range<usize>,
    /// Row of the first polygon and object among all of the batch.
    first: [usize; 2],
}

impl Tokens {
    fn new(batch: &Batch, scenario: usize) -> Self {
        let egos = batch.feed.index(Index::EgoToken as usize);
        let ego = egos[scenario] as usize;
        let end = egos.get(scenario + 1).map_or(batch.count(symbol::TOKENS), |next| *next as usize);
        let agents = ego + 1..ego + 1 + batch.agents[scenario].len();
        // Sources of tokens: egos unless they are among the histories, histories, polygons, objects.
        let histories = batch.count(symbol::HISTORIES);
        let own_egos = if histories == batch.count(symbol::AGENTS) { batch.count(symbol::SCENARIOS) } else { 0 };
        let (polygon, object) = (own_egos + histories, own_egos + histories + batch.count(symbol::POLYGONS));
        let source = batch.feed.index(Index::TokenSource as usize);
        let row = |token: usize| source[token] as usize;
        let split = (agents.end..end).find(|token| row(*token) >= object).unwrap_or(end);
        let first = [(agents.end, polygon), (split, object)].map(|(token, base)| if token < end { row(token) - base } else { 0 });
        Self { polygons: agents.end..split, objects: split..end, agents, first }
    }
}

struct Scene<'a> {
    batch: &'a Batch,
    tokens: Tokens,
    scenario: usize,
}

impl Scene<'_> {
    fn input(&self, input: Input) -> RealsRef<'_> {
        let slot = self.batch.feed.real_slots[input as usize].clone();
        match self.batch.feed.reals.view() {
            RealsRef::F32(values) => RealsRef::F32(&values[slot]),
            RealsRef::F64(values) => RealsRef::F64(&values[slot]),
        }
    }

    /// x, y, heading of a token.
    fn pose(&self, token: usize) -> [f64; 3] {
        let poses = self.input(Input::TokenPose);
        [0, 1, 2].map(|i| poses.get(3 * token + i))
    }

    fn map(&self, picture: &mut Picture) {
        const CROSSWALK_TYPE: i32 = 2;
        let feed = &self.batch.feed;
        let [points, types, on_route] =
            [Index::PolygonPoints, Index::PolygonType, Index::PolygonOnRoute].map(|index| feed.index(index as usize));
        let values = self.input(Input::MapPoints);
        // Points of a side, in order; the columns of a side are relative to the centre line, and that to the polygon's centre.
        let side = |polygon: usize, token: usize, column: Option<usize>| {
            let [x, y, _] = self.pose(token);
            let (first, count) = (points[3 * polygon] as usize, points[3 * polygon + 1] as usize);
            let values = &values;
            (first..first + count).map(move |point| {
                let at = |column: usize| values.get(10 * point + column);
                let [dx, dy] = column.map_or([0.0; 2], |column| [at(column), at(column + 1)]);
                [x + at(0) + dx, y + at(1) + dy]
            })
        };
        let polygons = || self.tokens.polygons.clone().enumerate().map(|(i, token)| (self.tokens.first[0] + i, token));
        for (polygon, token) in polygons() {
            let colour = match (types[polygon], on_route[polygon]) {
                (CROSSWALK_TYPE, _) => CROSSWALK,
                (_, 1) => ROUTE,
                _ => ROAD,
            };
            let right: Vec<_> = side(polygon, token, Some(8)).collect();
            picture.area(side(polygon, token, Some(6)).chain(right.into_iter().rev()), colour);
        }
        for (polygon, token) in polygons().filter(|(polygon, _)| types[*polygon] != CROSSWALK_TYPE) {
            picture.line(side(polygon, token, None), 1.0, CENTERLINE);
        }
    }

    fn objects(&self, picture: &mut Picture) {
        let shapes = self.input(Input::StaticShape);
        for (i, token) in self.tokens.objects.clone().enumerate() {
            let row = self.tokens.first[1] + i;
            picture.rectangle(self.pose(token), shapes.get(2 * row + 1), shapes.get(2 * row), OBJECT);
        }
    }

    fn agents(&self, picture: &mut Picture) {
        let (history, targets, valid) = (self.input(Input::History), self.input(Input::AgentTarget), self.input(Input::AgentValid));
        let agents = self.batch.agents[self.scenario].clone();
        let all = self.batch.count(symbol::AGENTS).max(1);
        let (steps, past) = (valid.len() / all, history.len() / 9 / self.batch.count(symbol::HISTORIES).max(1));
        // With the ego among the histories, it stands before the agents of each scenario.
        let egos = if self.batch.count(symbol::HISTORIES) == self.batch.count(symbol::AGENTS) { 0 } else { self.scenario + 1 };
        for (agent, token) in agents.zip(self.tokens.agents.clone()) {
            let pose = self.pose(token);
            let known = (0..steps).filter(|step| valid.get(agent * steps + step) != 0.0);
            let future = known.map(|step| {
                let at = (agent * steps + step) * 6;
                [pose[0] + targets.get(at), pose[1] + targets.get(at + 1)]
            });
            picture.line(std::iter::once([pose[0], pose[1]]).chain(future), 1.0, AGENT_FUTURE);
            let last = ((egos + agent) * past + past - 1) * 9;
            picture.rectangle(pose, history.get(last + 7), history.get(last + 6), AGENT);
        }
    }
}
