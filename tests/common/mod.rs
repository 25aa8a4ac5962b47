//! Reads recorded scenarios (`*.json.gz`) and finds the folders of reference data.
#![allow(dead_code)]

pub mod golden;

use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use training_engine::scenario::{
    Agent, AgentKind, AgentState, Crosswalk, EgoState, Lane, LaneKind, LightState, Map, Scenario, StaticKind, StaticObject, TrafficLight,
    Vehicle,
};

/// Folder of reference data outside the repository, if `TE_SHARED` names one.
pub fn shared() -> Option<PathBuf> {
    std::env::var_os("TE_SHARED").map(PathBuf::from)
}

/// Folder of the data in the repository.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// All files below a folder whose name ends so, sorted.
pub fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Time that this thread has computed, so that a busy machine does not count; elapsed time where the system does not tell.
pub fn thread_time() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    match text.split_whitespace().next().and_then(|nanoseconds| nanoseconds.parse().ok()) {
        Some(nanoseconds) => Duration::from_nanos(nanoseconds),
        None => start.elapsed(),
    }
}

/// A scenario file with its map. The ego has the Pacifica's dimensions, whatever the file says.
pub fn read_scenario(path: &Path) -> training_engine::error::Result<Scenario> {
    scenario(&read_json(path))
}

/// The value in a file of compressed JSON.
pub fn read_json(path: &Path) -> Value {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The lanes and crosswalks of a scenario's JSON value.
pub fn map_description(json: &Value) -> (Vec<Lane>, Vec<Crosswalk>) {
    let map = &json["map"];
    (list(&map["lanes"]).iter().map(lane).collect(), list(&map["crosswalks"]).iter().map(crosswalk).collect())
}

/// A scenario from its JSON value.
pub fn scenario(json: &Value) -> training_engine::error::Result<Scenario> {
    let token = text(&json["token"]);
    let lanes = list(&json["map"]["lanes"]);
    let (map_lanes, crosswalks) = map_description(json);
    let map = Map::new(&token, map_lanes, crosswalks)?;
    let ego = &json["ego"];
    let series = |json: &Value, key: &str| -> Vec<f64> { list(&json[key]).iter().map(number).collect() };
    let [x, y, heading, vx, vy, ax, ay] = ["x", "y", "heading", "vx", "vy", "ax", "ay"].map(|key| series(ego, key));
    let agents = list(&json["agents"]).iter().map(|agent| {
        let [x, y, heading, vx, vy, width, length] = ["x", "y", "heading", "vx", "vy", "width", "length"].map(|key| series(agent, key));
        let valid = list(&agent["valid"]);
        Agent {
            id: text(&agent["id"]),
            kind: match agent["type"].as_str() {
                Some("vehicle") => AgentKind::Vehicle,
                Some("pedestrian") => AgentKind::Pedestrian,
                _ => AgentKind::Bicycle,
            },
            states: (0..valid.len())
                .map(|i| AgentState {
                    x: x[i],
                    y: y[i],
                    heading: heading[i],
                    vx: vx[i],
                    vy: vy[i],
                    width: width[i],
                    length: length[i],
                    valid: valid[i].as_bool().unwrap(),
                })
                .collect(),
        }
    });
    let lights = lanes.iter().filter_map(|lane| {
        let state = match lane["traffic_light"].as_str()? {
            "green" => LightState::Green,
            "yellow" => LightState::Yellow,
            "red" => LightState::Red,
            _ => return None,
        };
        Some(TrafficLight { lane_id: text(&lane["id"]), state })
    });
    Ok(Scenario {
        log_name: text(&json["log_name"]),
        scenario_type: text(&json["scenario_type"]),
        map: Arc::new(map),
        ego: (0..x.len()).map(|i| EgoState { x: x[i], y: y[i], heading: heading[i], vx: vx[i], vy: vy[i], ax: ax[i], ay: ay[i] }).collect(),
        vehicle: Vehicle::PACIFICA,
        agents: agents.collect(),
        static_objects: list(&json["static_objects"]).iter().map(static_object).collect(),
        route: list(&json["route_roadblock_ids"]).iter().map(text).collect(),
        lights: lights.collect(),
        token,
    })
}

fn lane(json: &Value) -> Lane {
    Lane {
        id: text(&json["id"]),
        roadblock_id: text(&json["roadblock_id"]),
        kind: if json["type"] == "lane_connector" { LaneKind::Connector } else { LaneKind::Lane },
        centerline: points(&json["centerline"]),
        left: points(&json["left"]),
        right: points(&json["right"]),
        successors: list(&json["successors"]).iter().map(text).collect(),
        speed_limit: json["speed_limit_mps"].as_f64(),
    }
}

fn crosswalk(json: &Value) -> Crosswalk {
    Crosswalk { id: text(&json["id"]), polygon: points(&json["polygon"]) }
}

fn static_object(json: &Value) -> StaticObject {
    StaticObject {
        kind: match json["type"].as_str() {
            Some("czone_sign") => StaticKind::ConstructionSign,
            Some("barrier") => StaticKind::Barrier,
            Some("traffic_cone") => StaticKind::TrafficCone,
            _ => StaticKind::Generic,
        },
        x: number(&json["x"]),
        y: number(&json["y"]),
        heading: number(&json["heading"]),
        width: number(&json["width"]),
        length: number(&json["length"]),
    }
}

fn list(json: &Value) -> &[Value] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn text(json: &Value) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_string)
}

fn number(json: &Value) -> f64 {
    json.as_f64().unwrap_or(f64::NAN)
}

fn points(json: &Value) -> Vec<[f64; 2]> {
    list(json).iter().map(|point| [number(&point[0]), number(&point[1])]).collect()
}
