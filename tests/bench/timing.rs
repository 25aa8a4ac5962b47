//! What programs that time steps share: options, clock, a scenario to predict.

use crate::synthetic::{SEEN, Uniform};
use std::{sync::Arc, time::Instant};
use training_engine::scenario::{
    Agent, AgentKind, AgentState, EgoState, HISTORY_STEPS, Lane, LaneKind, Map, Scenario, StaticKind, StaticObject, Vehicle,
};

/// Value after `--name`, or the default.
pub fn option(name: &str, default: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|a| a != name).skip(1);
    arguments.next().map_or(default, |v| v.parse().expect("a number"))
}

/// Seconds of each call, sorted, after three calls that do not count.
pub fn time(count: usize, mut body: impl FnMut()) -> Vec<f64> {
    (0..3).for_each(|_| body());
    let mut seconds: Vec<f64> = (0..count)
        .map(|_| {
            let start = Instant::now();
            body();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// A scenario as a host gives it: a road of four lanes with many more around it, 29 agents, 5 cones; history only.
pub fn scenario() -> Scenario {
    let u = &mut Uniform(1);
    let mut lanes = Vec::new();
    for row in 0..20 {
        for column in 0..8 {
            let (y, x) = (3.5 * f64::from(row) - 35.0, 28.0 * f64::from(column) - 112.0);
            let line = |dy: f64| (0..8).map(|k| [x + 4.0 * f64::from(k), y + dy]).collect::<Vec<_>>();
            lanes.push(Lane {
                id: format!("lane-{row}-{column}"),
                roadblock_id: format!("block-{}-{column}", row / 4),
                kind: LaneKind::Lane,
                centerline: line(0.0),
                left: line(1.75),
                right: line(-1.75),
                successors: if column < 7 { vec![format!("lane-{row}-{}", column + 1)] } else { Vec::new() },
                speed_limit: (row % 3 > 0).then_some(15.0),
            });
        }
    }
    let ego = |k: usize| EgoState { x: 0.8 * (k as f64 - 20.0), vx: 8.0, ..Default::default() };
    let agents = (1..SEEN).map(|i| {
        let (x, y, v) = (u.around(90.0), 3.5 * u.around(10.0).round(), 12.0 * u.next());
        let state = |k: usize| AgentState {
            x: x + 0.1 * v * (k as f64 - 20.0),
            y,
            vx: v,
            width: 2.0,
            length: 4.5,
            valid: true,
            ..Default::default()
        };
        Agent { id: i.to_string(), kind: AgentKind::Vehicle, states: (0..HISTORY_STEPS).map(state).collect() }
    });
    let agents = agents.collect();
    let cone = |k: u8| StaticObject { kind: StaticKind::TrafficCone, x: 5.0 + f64::from(k), y: 1.0, heading: 0.0, width: 0.4, length: 0.4 };
    Scenario {
        token: "scenario".into(),
        log_name: "log".into(),
        scenario_type: "cruising".into(),
        map: Arc::new(Map::new("town", lanes, Vec::new()).expect("a map")),
        ego: (0..HISTORY_STEPS).map(ego).collect(),
        vehicle: Vehicle::PACIFICA,
        agents,
        static_objects: (0..5).map(cone).collect(),
        route: (3..8).map(|column| format!("block-2-{column}")).collect(),
        lights: Vec::new(),
    }
}
