//! Bad maps and scenarios: each gives a clear error or is left out by name; nothing panics or stops being finite.

mod common;

use std::sync::Arc;
use training_engine::error::{Error, Rejection};
use training_engine::features::FeatureBuilder;
use training_engine::scenario::{
    Agent, AgentKind, AgentState, Crosswalk, EgoState, Lane, LaneKind, LightState, Map, Scenario, StaticKind, StaticObject, TOTAL_STEPS,
    TrafficLight, Vehicle,
};

/// A lane along y from `from` to `to`.
fn lane(id: &str, roadblock: &str, from: [f64; 2], to: [f64; 2], successors: &[&str]) -> Lane {
    let beside = |offset: f64| vec![[from[0], from[1] + offset], [to[0], to[1] + offset]];
    Lane {
        id: id.into(),
        roadblock_id: roadblock.into(),
        kind: LaneKind::Lane,
        centerline: beside(0.0),
        left: beside(1.75),
        right: beside(-1.75),
        successors: successors.iter().map(|s| s.to_string()).collect(),
        speed_limit: None,
    }
}

/// Two lanes of 100 m, one after the other.
fn road() -> Vec<Lane> {
    vec![lane("a", "A", [-50.0, 0.0], [50.0, 0.0], &["b"]), lane("b", "B", [50.0, 0.0], [150.0, 0.0], &["nowhere"])]
}

fn ego() -> Vec<EgoState> {
    (0..TOTAL_STEPS).map(|i| EgoState { x: i as f64 - 20.0, vx: 10.0, ..Default::default() }).collect()
}

fn agent(id: &str, x: f64, y: f64) -> Agent {
    let states = (0..TOTAL_STEPS).map(|_| AgentState { x, y, width: 2.0, length: 4.5, valid: true, ..Default::default() });
    Agent { id: id.into(), kind: AgentKind::Vehicle, states: states.collect() }
}

fn scenario_on(lanes: Vec<Lane>) -> Scenario {
    Scenario {
        token: "t".into(),
        log_name: "log".into(),
        scenario_type: "test".into(),
        map: Arc::new(Map::new("m", lanes, Vec::new()).unwrap()),
        ego: ego(),
        vehicle: Vehicle::PACIFICA,
        agents: vec![agent("x", 20.0, 0.0)],
        static_objects: vec![StaticObject { kind: StaticKind::TrafficCone, x: 10.0, y: 1.0, heading: 0.0, width: 0.4, length: 0.4 }],
        route: vec!["A".into(), "B".into()],
        lights: vec![TrafficLight { lane_id: "b".into(), state: LightState::Red }],
    }
}

fn error_of(change: impl Fn(&mut Scenario)) -> (Rejection, String) {
    let mut scenario = scenario_on(road());
    change(&mut scenario);
    match FeatureBuilder::default().build(&scenario) {
        Err(Error::Scenario { token, rejection, reason }) => {
            assert_eq!(token, scenario.token);
            (rejection, reason)
        }
        other => panic!("{other:?}"),
    }
}

fn map_error(change: impl Fn(&mut Vec<Lane>, &mut Vec<Crosswalk>)) -> String {
    let (mut lanes, mut crosswalks) = (road(), vec![Crosswalk { id: "c".into(), polygon: vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]] }]);
    change(&mut lanes, &mut crosswalks);
    Map::new("the map", lanes, crosswalks).unwrap_err().to_string()
}

#[test]
fn a_good_scenario_builds() {
    let features = FeatureBuilder::default().build(&scenario_on(road())).unwrap();
    assert_eq!((features.agents.count, features.map.count, features.static_objects.count), (2, 2, 1));
    assert_eq!(features.reference_lines.count, 1);
    assert_eq!(features.causal.leading_agent, [false, true]);
    assert!((features.causal.leading_distance[1] - (20.0 - 2.25 - 4.049)).abs() < 1e-9);
    assert_eq!(features.causal.red_light, [false, true]);
    // the ego's centre enters lane b after 50 - 1.461 m at 1 m a step
    assert_eq!(features.causal.ego_future_valid.iter().position(|v| !v), Some(48));
    let cost = features.cost_map.unwrap();
    assert_eq!(cost.values.len(), 600 * 600);
}

#[test]
fn map_errors_name_object_field_and_index() {
    let cases: Vec<(String, &str)> = vec![
        (map_error(|lanes, _| lanes[1].left[1][0] = f64::NAN), "lane 'b': left[1].x is not finite"),
        (map_error(|lanes, _| lanes[0].centerline[0][1] = f64::INFINITY), "lane 'a': centerline[0].y is not finite"),
        (map_error(|lanes, _| lanes[0].right[1][1] = -1e12), "lane 'a': right[1].y"),
        (map_error(|_, crosswalks| crosswalks[0].polygon[2][1] = f64::NAN), "crosswalk 'c': polygon[2].y is not finite"),
        (map_error(|lanes, _| lanes[1].id = "a".into()), "lanes[1].id 'a' is used twice"),
        (map_error(|_, crosswalks| crosswalks[0].id = "a".into()), "crosswalks[0].id 'a' is used twice"),
        (map_error(|lanes, _| lanes[1].id.clear()), "lanes[1].id is empty"),
        (map_error(|lanes, _| lanes[1].roadblock_id.clear()), "lane 'b': roadblock_id is empty"),
        (map_error(|lanes, _| lanes[0].speed_limit = Some(f64::NAN)), "lane 'a': speed_limit"),
    ];
    for (error, want) in cases {
        assert!(error.contains(want) && error.contains("the map"), "{error}");
    }
}

#[test]
fn degenerate_lanes_and_crosswalks_are_left_out_by_name() {
    let mut lanes = road();
    for (id, change) in [
        ("one point", (|lane: &mut Lane| lane.centerline.truncate(1)) as fn(&mut Lane)),
        ("no points", |lane| lane.left.clear()),
        ("no length", |lane| lane.right[1] = lane.right[0]),
        ("nearly no length", |lane| lane.centerline[1] = [lane.centerline[0][0] + 1e-9, lane.centerline[0][1]]),
        ("far too long", |lane| lane.centerline[1][0] = 1e7),
    ] {
        let mut bad = lane(id, "BAD", [0.0, 0.0], [10.0, 0.0], &["a"]);
        change(&mut bad);
        lanes.push(bad);
    }
    lanes[0].successors.push("no length".into());
    let line = Crosswalk { id: "a line".into(), polygon: vec![[20.0, 0.0], [24.0, 0.0], [28.0, 0.0], [22.0, 0.0]] };
    let empty = Crosswalk { id: "empty".into(), polygon: Vec::new() };
    let map = Map::new("m", lanes.clone(), vec![line, empty]).unwrap();
    let skipped: Vec<&str> = map.skipped().iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(skipped, ["one point", "no points", "no length", "nearly no length", "far too long", "a line", "empty"]);
    assert!(map.skipped().iter().all(|(_, reason)| !reason.is_empty()));
    assert!(map.has_lane("a") && !map.has_lane("no length") && map.has_road_block("B") && !map.has_road_block("BAD"));
    assert!(FeatureBuilder::default().build(&scenario_on(lanes)).is_ok());
    assert!(Map::new("empty", Vec::new(), Vec::new()).is_ok());
}

#[test]
fn scenario_errors_name_the_field() {
    use Rejection::*;
    let cases: Vec<((Rejection, String), Rejection, &str)> = vec![
        (error_of(|s| s.token.clear()), Unreadable, "token is empty"),
        (error_of(|s| s.ego.truncate(50)), StepCount, "ego has 50 states"),
        (error_of(|s| s.ego.clear()), StepCount, "ego has 0 states"),
        (error_of(|s| s.ego[3].vx = f64::NAN), NotFinite, "ego[3].vx is not finite"),
        (error_of(|s| s.ego[100].y = f64::INFINITY), NotFinite, "ego[100].y is not finite"),
        (error_of(|s| s.ego[0].x = 1e300), OutOfRange, "ego[0].x"),
        (error_of(|s| s.vehicle.width = 0.0), OutOfRange, "vehicle.width"),
        (error_of(|s| s.vehicle.rear_length = f64::NAN), NotFinite, "vehicle.length"),
        (error_of(|s| s.vehicle.wheel_base = -1.0), OutOfRange, "vehicle.wheel_base"),
        (error_of(|s| s.agents[0].states.truncate(21)), StepCount, "agents[0] 'x' has 21 states, the ego 101"),
        (error_of(|s| s.agents[0].states[7].heading = f64::NAN), NotFinite, "agents[0] 'x' states[7].heading is not finite"),
        (error_of(|s| s.agents[0].states[7].length = -1.0), OutOfRange, "agents[0] 'x' states[7].length"),
        (error_of(|s| s.agents[0].states[7].width = 1e9), OutOfRange, "agents[0] 'x' states[7].width"),
        (error_of(|s| s.agents[0].states[7].vy = 1e9), OutOfRange, "feature agents.velocity"),
        (error_of(|s| s.static_objects[0].y = f64::NAN), NotFinite, "static_objects[0].y is not finite"),
        (error_of(|s| s.static_objects[0].width = 0.0), OutOfRange, "static_objects[0].width"),
        (error_of(|s| s.route.clear()), BadRoute, "route is empty"),
        (error_of(|s| s.route = vec!["unknown".into()]), BadRoute, "route[0] 'unknown'"),
        (error_of(|s| s.ego.iter_mut().for_each(|e| e.y += 500.0)), NoReferenceLine, "no reference line"),
        (error_of(|s| s.ego.iter_mut().for_each(|e| e.heading = 3.0)), NoReferenceLine, "no reference line"),
        (error_of(|s| s.map = Arc::new(Map::new("m", Vec::new(), Vec::new()).unwrap())), BadRoute, "route[0] 'A'"),
    ];
    for ((rejection, error), category, want) in cases {
        assert!(error.contains(want), "'{error}' does not contain '{want}'");
        assert_eq!(rejection, category, "{error}");
    }
    let builder = FeatureBuilder { radius: f64::NAN, ..Default::default() };
    assert!(matches!(builder.build(&scenario_on(road())), Err(Error::Argument(_))));
}

#[test]
fn what_can_be_ignored_is_ignored() {
    let build = |change: &dyn Fn(&mut Scenario)| {
        let mut scenario = scenario_on(road());
        change(&mut scenario);
        FeatureBuilder::default().build(&scenario).unwrap()
    };
    // fields of states that are not valid
    let features = build(&|s| s.agents[0].states[0] = AgentState { x: f64::NAN, width: -1.0, ..Default::default() });
    assert!(!features.agents.valid[101] && features.agents.position[202] == 0.0 && features.agents.heading[101] == 0.0);
    // unknown road-blocks and lights, no agents
    let features = build(&|s| {
        s.route.insert(1, "unknown".into());
        s.lights.push(TrafficLight { lane_id: "unknown".into(), state: LightState::Red });
        s.agents.clear();
    });
    assert_eq!((features.agents.count, features.map.count), (1, 2));
    // an agent that comes later, and more agents than asked for
    let features = build(&|s| {
        s.agents[0].states[20].valid = false;
        s.agents.extend((0..60).map(|i| agent(&format!("n{i}"), f64::from(60 - i), 3.0)));
    });
    assert_eq!(features.agents.count, 49);
    assert!(features.agents.position[(101 + 20) * 2] <= 2.0, "the nearest first");
}

#[test]
fn prediction_needs_no_future() {
    let mut scenario = scenario_on(road());
    scenario.ego.truncate(21);
    scenario.agents[0].states.truncate(21);
    let features = FeatureBuilder::default().build(&scenario).unwrap();
    assert_eq!(features.agents.steps, 21);
    assert!(features.agents.target.is_empty() && features.cost_map.is_none());
    assert!(features.reference_lines.future_projection.is_empty() && features.causal.interaction_label.is_empty());
}

/// Every lane of 2.5 m leads to four others, and back: exponentially many branches, and rings.
#[test]
fn dense_graphs_and_rings_end() {
    let mut lanes = Vec::new();
    for column in 0..40 {
        for row in 0..4 {
            let x = f64::from(column) * 2.5 - 10.0;
            let next: Vec<String> = (0..4).map(|r| format!("{}:{r}", (column + 1) % 40)).collect();
            let next: Vec<&str> = next.iter().map(String::as_str).collect();
            let (id, roadblock) = (format!("{column}:{row}"), format!("{column}:{}", row / 2));
            let y = f64::from(row) * 0.6;
            lanes.push(lane(&id, &roadblock, [x, y], [x + 2.5, y], &next));
        }
    }
    let started = std::time::Instant::now();
    let mut scenario = scenario_on(lanes);
    scenario.route = (0..40).flat_map(|c| [format!("{c}:0"), format!("{c}:1")]).collect();
    let features = FeatureBuilder::default().build(&scenario).unwrap();
    assert!(features.reference_lines.count >= 1 && features.reference_lines.count <= 1024);
    scenario.route = vec!["30:1".into(), "2:0".into(), "17:0".into()];
    let _ = FeatureBuilder::default().build(&scenario);
    // a lane that leads to itself
    let ring = scenario_on(vec![lane("a", "A", [-50.0, 0.0], [50.0, 0.0], &["a"])]);
    assert_eq!(FeatureBuilder::default().build(&ring).unwrap().reference_lines.count, 1);
    assert!(started.elapsed().as_secs() < 20);
}

/// The free scenarios with numbers replaced at random: built or rejected, never a panic.
#[test]
fn random_changes_never_panic() {
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    const ODD: [f64; 12] = [0.0, -0.0, 1e-300, 1e-9, -1.0, 1e4, -1e8, 1e8, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let (mut built, mut rejected) = (0, 0);
    for file in common::files_below(&common::data().join("scenarios"), ".json.gz") {
        let Ok(good) = common::read_scenario(&file) else { continue };
        for _ in 0..8 {
            let mut scenario = good.clone();
            for _ in 0..1 + random(3) {
                let odd = ODD[random(ODD.len())];
                let step = random(TOTAL_STEPS);
                match random(12) {
                    0 => scenario.ego[step].x = odd,
                    1 => scenario.ego[step].heading = odd,
                    2 => scenario.ego[20].vx = odd,
                    3 => scenario.ego.iter_mut().for_each(|e| e.y = odd),
                    4 => scenario.route.reverse(),
                    5 => scenario.route.truncate(1),
                    6 => scenario.vehicle.front_length = odd,
                    7 => scenario.static_objects.iter_mut().for_each(|s| s.x = odd),
                    8 => scenario.agents.iter_mut().for_each(|a| a.states[step].y = odd),
                    9 => scenario.agents.iter_mut().for_each(|a| a.states[20].length = odd.abs()),
                    10 => scenario.agents.iter_mut().for_each(|a| a.states[step].valid ^= true),
                    _ => scenario.ego.iter_mut().for_each(|e| e.heading += odd),
                }
            }
            match FeatureBuilder::default().build(&scenario) {
                Ok(features) => {
                    built += 1;
                    assert!(features.agents.position.iter().chain(&features.reference_lines.position).all(|v| v.is_finite()));
                }
                Err(Error::Scenario { reason, .. }) => {
                    rejected += 1;
                    assert!(!reason.is_empty());
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(built > 10 && rejected > 10, "{built} built, {rejected} rejected");
}

/// One map serves many threads.
#[test]
fn maps_are_shared_by_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let scenario = scenario_on(road());
    shared(&*scenario.map);
    let build = || FeatureBuilder::default().build(&scenario).unwrap().cost_map.unwrap().values;
    let alone = build();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(build)).collect();
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), alone));
    });
}

/// Equal distances, loops of connectors and limits of 0, which the published builder leaves to chance or to a class's name.
#[test]
fn choices_that_the_published_builder_leaves_open() {
    let builder = FeatureBuilder::default();
    // the ego stands on a red lane and in an agent: both are 0 m away, and the agent counts first
    let mut scenario = scenario_on(road());
    scenario.lights = vec![TrafficLight { lane_id: "a".into(), state: LightState::Red }];
    scenario.agents = vec![agent("x", 1.0, 0.0)];
    let causal = builder.build(&scenario).unwrap().causal;
    assert!(!causal.waiting_for_red_light && causal.leading_agent[1] && causal.red_light.contains(&true));
    scenario.agents.clear();
    assert!(builder.build(&scenario).unwrap().causal.waiting_for_red_light);

    // a route that comes back over a connector ends before it, whatever the connector's class is called
    let on_route = |kind: LaneKind| {
        let mut lanes = road();
        lanes[1] = Lane { kind, speed_limit: Some(0.0), ..lane("b", "B", [50.0, 0.0], [90.0, 0.0], &["c"]) };
        lanes.push(Lane { kind, ..lane("c", "C", [90.0, 0.0], [60.0, 1.0], &[]) });
        let mut scenario = scenario_on(lanes);
        scenario.route.push("C".into());
        builder.build(&scenario).unwrap().map
    };
    assert_eq!(on_route(LaneKind::Connector).polygon_on_route, [true, true, false]);
    assert_eq!(on_route(LaneKind::Lane).polygon_on_route, [true, true, true]);
    // a limit of 0 is a limit
    let map = on_route(LaneKind::Lane);
    assert_eq!((&map.polygon_has_speed_limit[..], map.polygon_speed_limit[1]), (&[false, true, false][..], 0.0));

    // static objects come by kind, then in the order given
    let object = |kind, x| StaticObject { kind, x, y: 0.0, heading: 0.0, width: 0.5, length: 0.5 };
    let mut scenario = scenario_on(road());
    scenario.static_objects = vec![object(StaticKind::Generic, 5.0), object(StaticKind::Barrier, 7.0), object(StaticKind::Generic, 3.0)];
    let objects = builder.build(&scenario).unwrap().static_objects;
    assert_eq!((&objects.category[..], objects.position[2], objects.position[4]), (&[1, 3, 3][..], 5.0, 3.0));
}
