//! A synthetic source of scenarios: a straight road of three lanes, turned at will, with traffic that follows the lanes.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::ThreadId,
};
use training_engine::{
    engine::StopHandle,
    error::{Error, Rejection, Result},
    scenario::{
        Agent, AgentKind, AgentState, EgoState, Lane, LaneKind, Map, Scenario, ScenarioInfo, ScenarioSource, Split, StaticKind,
        StaticObject, TOTAL_STEPS, Vehicle,
    },
};

/// Road, and what goes wrong.
pub struct Roads {
    pub scenarios: usize,
    pub thread_safe: bool,
    /// The source leaves these out.
    pub failing: HashSet<usize>,
    /// The source itself fails at these.
    pub broken: HashSet<usize>,
    /// These come without a route.
    pub invalid: HashSet<usize>,
    /// Loading these panics.
    pub panicking: HashSet<usize>,
    /// These come with more cones than an entry of the cache holds.
    pub crowded: HashSet<usize>,
    /// Describing these fails.
    pub undescribed: HashSet<usize>,
    /// These are described as the one before.
    pub repeated: HashSet<usize>,
    /// Every third scenario has another label.
    pub labelled: bool,
    /// Everything is in this split.
    pub split: Option<Split>,
    /// Descriptions name a map, north and south by turns, and a start, one every 2 s.
    pub placed: bool,
    pub loads: AtomicUsize,
    /// With so many loads this is told to stop.
    pub stop_at: Mutex<Option<(usize, StopHandle)>>,
    pub threads: Mutex<HashSet<ThreadId>>,
    map: Arc<Map>,
}

const HEADING: f64 = 0.5;
const LENGTH: f64 = 500.0;
const WIDTH: f64 = 3.6;

/// From (along, across) the road to the global frame.
fn place(along: f64, across: f64) -> [f64; 2] {
    let (sin, cos) = HEADING.sin_cos();
    [1000.0 + along * cos - across * sin, -200.0 + along * sin + across * cos]
}

fn map() -> Map {
    let line =
        |across: f64, from: f64| -> Vec<[f64; 2]> { (0..=50).map(|i| place(from + LENGTH / 100.0 * f64::from(i), across)).collect() };
    let mut lanes = Vec::new();
    for block in 0..2 {
        for lane in 0..3 {
            let (y, from) = (WIDTH * f64::from(lane), LENGTH / 2.0 * f64::from(block));
            lanes.push(Lane {
                id: format!("lane {block} {lane}"),
                roadblock_id: format!("block {block}"),
                kind: LaneKind::Lane,
                centerline: line(y, from),
                left: line(y + WIDTH / 2.0, from),
                right: line(y - WIDTH / 2.0, from),
                successors: if block == 0 { vec![format!("lane 1 {lane}")] } else { Vec::new() },
                speed_limit: Some(13.0),
            });
        }
    }
    Map::new("road", lanes, Vec::new()).unwrap()
}

impl Roads {
    pub fn new(scenarios: usize) -> Self {
        Self {
            scenarios,
            thread_safe: true,
            failing: HashSet::new(),
            broken: HashSet::new(),
            invalid: HashSet::new(),
            panicking: HashSet::new(),
            crowded: HashSet::new(),
            undescribed: HashSet::new(),
            repeated: HashSet::new(),
            labelled: false,
            placed: false,
            split: None,
            loads: AtomicUsize::new(0),
            stop_at: Mutex::default(),
            threads: Mutex::default(),
            map: Arc::new(map()),
        }
    }

    fn label(&self, index: usize) -> &'static str {
        if self.labelled && index.is_multiple_of(3) { "waiting" } else { "following" }
    }

    pub fn scenario(&self, index: usize) -> Scenario {
        // Speeds, lanes and gaps from the index alone.
        let draw = |k: usize| f64::from((((index + 1) * 2_654_435_761 + k * 40_503) % 1_000_003 % 1000) as u32) / 1000.0;
        let speed = 4.0 + 8.0 * draw(0);
        let lane = (3.0 * draw(1)).floor();
        let (sin, cos) = HEADING.sin_cos();
        let state = |along: f64, across: f64, speed: f64| {
            let [x, y] = place(along, across);
            (x, y, speed * cos, speed * sin)
        };
        let ego = (0..TOTAL_STEPS).map(|i| {
            let (x, y, vx, vy) = state(120.0 + speed * 0.1 * i as f64, WIDTH * lane, speed);
            EgoState { x, y, heading: HEADING, vx, vy, ax: 0.0, ay: 0.0 }
        });
        let agents = (0..4).map(|a| {
            let (speed, lane, start) = (3.0 + 9.0 * draw(2 + a), (a % 3) as f64, 90.0 + 25.0 * a as f64 + 10.0 * draw(9 + a));
            let states = (0..TOTAL_STEPS).map(|i| {
                let (x, y, vx, vy) = state(start + speed * 0.1 * i as f64, WIDTH * lane, speed);
                AgentState { x, y, heading: HEADING, vx, vy, width: 2.0, length: 4.5, valid: i >= a * 3 }
            });
            let kind = if a == 3 { AgentKind::Bicycle } else { AgentKind::Vehicle };
            Agent { id: format!("agent {a}"), kind, states: states.collect() }
        });
        let [x, y] = place(160.0, -1.7);
        let cone = StaticObject { kind: StaticKind::TrafficCone, x, y, heading: 0.0, width: 0.4, length: 0.4 };
        Scenario {
            token: format!("scenario {index}"),
            log_name: format!("log {}", index % 10),
            scenario_type: self.label(index).into(),
            map: Arc::clone(&self.map),
            ego: ego.collect(),
            vehicle: Vehicle::PACIFICA,
            agents: agents.collect(),
            static_objects: vec![cone; if self.crowded.contains(&index) { 40_000 } else { 1 }],
            route: if self.invalid.contains(&index) { Vec::new() } else { vec!["block 0".into(), "block 1".into()] },
            lights: Vec::new(),
        }
    }
}

impl ScenarioSource for Roads {
    fn len(&self) -> usize {
        self.scenarios
    }
    fn info(&self, index: usize) -> Result<ScenarioInfo> {
        if self.undescribed.contains(&index) {
            return Err(Error::scenario(format!("scenario {index}"), Rejection::Unreadable, "no idea"));
        }
        let index = index - usize::from(self.repeated.contains(&index));
        Ok(ScenarioInfo {
            token: format!("scenario {index}"),
            log_name: format!("log {}", index % 10),
            scenario_type: self.label(index).into(),
            split: self.split,
            map_name: self.placed.then(|| ["north", "south"][index % 2].into()),
            start_us: self.placed.then_some(2_000_000 * index as i64),
        })
    }
    fn load(&self, index: usize) -> Result<Scenario> {
        let loads = self.loads.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some((_, handle)) = self.stop_at.lock().unwrap().as_ref().filter(|(at, _)| *at == loads) {
            handle.stop();
        }
        self.threads.lock().unwrap().insert(std::thread::current().id());
        assert!(!self.panicking.contains(&index), "scenario {index} panics");
        if self.failing.contains(&index) {
            return Err(Error::scenario("without a name", Rejection::LeftOutByHost, "left out by the host"));
        }
        if self.broken.contains(&index) {
            return Err(Error::Host { callback: "load".into(), token: format!("scenario {index}"), reason: "disk on fire".into() });
        }
        Ok(self.scenario(index))
    }
    fn is_thread_safe(&self) -> bool {
        self.thread_safe
    }
}
