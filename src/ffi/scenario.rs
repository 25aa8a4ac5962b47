//! A scenario as the host describes it, copied into [`crate::scenario::Scenario`]. Here pointers, counts, texts and kinds are
//! checked; the numbers are the business of `Scenario::validate`.

use super::{
    handle,
    read::{NAME_LIMIT, Reading, array, name, names, structures, text},
    types::*,
};
use crate::{
    error::{Error, Rejection, Result},
    scenario::{
        Agent, AgentKind, AgentState, EgoState, HISTORY_STEPS, LightState, Scenario, ScenarioInfo, Split, StaticKind, StaticObject,
        TOTAL_STEPS, TrafficLight, Vehicle,
    },
};

const AGENT_LIMIT: usize = 100_000;
const ROUTE_LIMIT: usize = 1_000_000;

/// Copies a scenario. `fallback` names it in errors where its token cannot be read.
///
/// # Safety
/// The structure's pointers are null or point to as much as the counts beside them say.
pub unsafe fn read_scenario(raw: &TeScenario, fallback: &str) -> Result<Scenario> {
    // SAFETY: passed on to the caller.
    unsafe {
        let token = name(raw.token, "token").map_err(|reason| Error::scenario(fallback, Rejection::Unreadable, reason))?;
        read_body(raw, &token).map_err(|reason| Error::scenario(token, Rejection::Unreadable, reason))
    }
}

/// Copies what is known of a scenario beforehand.
///
/// # Safety
/// As [`read_scenario`].
pub unsafe fn read_info(raw: &TeScenarioInfo, fallback: &str) -> Result<ScenarioInfo> {
    // SAFETY: passed on to the caller.
    unsafe {
        let token = name(raw.token, "token").map_err(|reason| Error::scenario(fallback, Rejection::Unreadable, reason))?;
        let body = || {
            let split = match raw.split {
                TE_SPLIT_UNSPECIFIED => None,
                TE_SPLIT_TRAIN => Some(Split::Train),
                TE_SPLIT_VALIDATION => Some(Split::Validation),
                TE_SPLIT_TEST => Some(Split::Test),
                other => return Err(format!("split is {other}, no TE_SPLIT value")),
            };
            let map_name = if raw.map_name.is_null() { None } else { Some(label(raw.map_name, "map_name")?) };
            Ok(ScenarioInfo {
                token: token.clone(),
                log_name: label(raw.log_name, "log_name")?,
                scenario_type: label(raw.scenario_type, "scenario_type")?,
                split,
                map_name,
                start_us: (raw.start_us != 0).then_some(raw.start_us),
            })
        };
        body().map_err(|reason| Error::scenario(&token, Rejection::Unreadable, reason))
    }
}

/// A text that may be empty.
unsafe fn label(pointer: *const std::ffi::c_char, field: &str) -> Reading<String> {
    // SAFETY: passed on to the caller.
    unsafe { text(pointer, NAME_LIMIT, field) }
}

unsafe fn read_body(raw: &TeScenario, token: &str) -> Reading<Scenario> {
    if raw.ego_count != TOTAL_STEPS && raw.ego_count != HISTORY_STEPS {
        return Err(format!("ego_count is {}, it must be {TOTAL_STEPS}, or {HISTORY_STEPS} without a future", raw.ego_count));
    }
    // SAFETY: passed on to the caller.
    unsafe {
        let map = handle::borrow(raw.map).map_err(|failure| failure.message)?.map.clone();
        let ego = array(raw.ego, raw.ego_count, TOTAL_STEPS, "ego")?;
        let agents = structures(raw.agents, raw.agent_count, AGENT_LIMIT, "agents")?;
        let static_objects = array(raw.static_objects, raw.static_object_count, AGENT_LIMIT, "static_objects")?;
        let lights = array(raw.lights, raw.light_count, ROUTE_LIMIT, "lights")?;
        Ok(Scenario {
            token: token.to_owned(),
            log_name: label(raw.log_name, "log_name")?,
            scenario_type: label(raw.scenario_type, "scenario_type")?,
            map,
            ego: ego.iter().map(read_ego).collect(),
            vehicle: read_vehicle(&raw.vehicle),
            agents: agents.iter().enumerate().map(|(i, agent)| read_agent(agent, i, raw.ego_count)).collect::<Reading<_>>()?,
            static_objects: static_objects.iter().enumerate().map(|(i, object)| read_static(object, i)).collect::<Reading<_>>()?,
            route: names(raw.route, raw.route_count, ROUTE_LIMIT, "route")?,
            lights: lights.iter().enumerate().map(|(i, light)| read_light(light, i)).collect::<Reading<_>>()?,
        })
    }
}

fn read_ego(state: &TeEgoState) -> EgoState {
    let TeEgoState { x, y, heading, vx, vy, ax, ay } = *state;
    EgoState { x, y, heading, vx, vy, ax, ay }
}

fn read_vehicle(vehicle: &TeVehicle) -> Vehicle {
    let TeVehicle { width, front_length, rear_length, wheel_base } = *vehicle;
    match [width, front_length, rear_length, wheel_base] == [0.0; 4] {
        true => Vehicle::PACIFICA,
        false => Vehicle { width, front_length, rear_length, wheel_base },
    }
}

unsafe fn read_agent(agent: &TeAgent, index: usize, steps: usize) -> Reading<Agent> {
    let field = format!("agents[{index}]");
    let kind = match agent.kind {
        TE_AGENT_VEHICLE => AgentKind::Vehicle,
        TE_AGENT_PEDESTRIAN => AgentKind::Pedestrian,
        TE_AGENT_BICYCLE => AgentKind::Bicycle,
        other => return Err(format!("{field}.kind is {other}, no TE_AGENT value")),
    };
    if agent.state_count != steps {
        return Err(format!("{field}.state_count is {}, the ego has {steps} states", agent.state_count));
    }
    // SAFETY: passed on to the caller.
    let (id, states) = unsafe {
        (name(agent.id, &format!("{field}.id"))?, array(agent.states, agent.state_count, TOTAL_STEPS, &format!("{field}.states"))?)
    };
    Ok(Agent { id, kind, states: states.iter().map(read_agent_state).collect() })
}

fn read_agent_state(state: &TeAgentState) -> AgentState {
    let TeAgentState { x, y, heading, vx, vy, width, length, valid, .. } = *state;
    match valid == 0 {
        true => AgentState::default(),
        false => AgentState { x, y, heading, vx, vy, width, length, valid: true },
    }
}

fn read_static(object: &TeStaticObject, index: usize) -> Reading<StaticObject> {
    let kind = match object.kind {
        TE_STATIC_CONSTRUCTION_SIGN => StaticKind::ConstructionSign,
        TE_STATIC_BARRIER => StaticKind::Barrier,
        TE_STATIC_TRAFFIC_CONE => StaticKind::TrafficCone,
        TE_STATIC_GENERIC => StaticKind::Generic,
        other => return Err(format!("static_objects[{index}].kind is {other}, no TE_STATIC value")),
    };
    let TeStaticObject { x, y, heading, width, length, .. } = *object;
    Ok(StaticObject { kind, x, y, heading, width, length })
}

unsafe fn read_light(light: &TeTrafficLight, index: usize) -> Reading<TrafficLight> {
    let state = match light.state {
        TE_LIGHT_GREEN => LightState::Green,
        TE_LIGHT_YELLOW => LightState::Yellow,
        TE_LIGHT_RED => LightState::Red,
        TE_LIGHT_UNKNOWN => LightState::Unknown,
        other => return Err(format!("lights[{index}].state is {other}, no TE_LIGHT value")),
    };
    // SAFETY: passed on to the caller.
    Ok(TrafficLight { lane_id: unsafe { name(light.lane_id, &format!("lights[{index}].lane_id")) }?, state })
}
