//! Planning one scenario.

use super::{
    engine::TeEngine,
    guard::{c_string, guard},
    handle::{self, Opaque},
    read::{blank, structure, write},
    scenario::read_scenario,
    status::{Failure, TeStatus},
    types::*,
};
use crate::engine::Prediction;
use std::ffi::CString;

/// A plan: candidates of the ego and futures of the agents. It may be read from any thread and outlives its engine.
pub struct TePrediction {
    _private: (),
}

/// What a [`TePrediction`] holds.
pub struct Plan {
    prediction: Prediction,
    ids: Vec<CString>,
}

impl Opaque for TePrediction {
    type Inner = Plan;
    const MARK: u64 = u64::from_le_bytes(*b"te_predi");
    const NAME: &'static str = "prediction";
}

/// Plans one scenario from its history; its future may be left out and is not read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_predict(engine: *mut TeEngine, scenario: *const TeScenario, prediction: *mut *mut TePrediction) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe {
        let engine = handle::borrow(engine.cast_const())?;
        if prediction.is_null() {
            return Err(Failure::argument("prediction is null"));
        }
        let raw = structure(scenario, "scenario").map_err(Failure::argument)?;
        let answer = engine.call(|engine| engine.predict(&read_scenario(&raw, "to predict")?))?;
        let ids = answer.agents.iter().map(|agent| c_string(&agent.id)).collect();
        prediction.write(handle::create(Plan { prediction: answer, ids }));
        Ok(())
    })
}

/// Shows what a prediction holds: set `view->struct_size`, the rest is filled in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_prediction_view(prediction: *const TePrediction, view: *mut TePredictionView) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe {
        let Prediction { best, candidates, agents } = &handle::borrow(prediction)?.prediction;
        let shown = TePredictionView { best: *best, candidate_count: candidates.len(), agent_count: agents.len(), ..blank() };
        write(view, "view", &shown).map_err(Failure::argument)
    })
}

/// Shows candidate `index`: set `candidate->struct_size`, the rest is filled in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_prediction_candidate(prediction: *const TePrediction, index: usize, candidate: *mut TeCandidate) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe {
        let candidates = &handle::borrow(prediction)?.prediction.candidates;
        let found = candidates.get(index).ok_or_else(|| Failure::argument(format!("candidate {index} of {}", candidates.len())))?;
        let shown = TeCandidate {
            probability: found.probability,
            reference_line: found.reference_line as u64,
            mode: found.mode as u64,
            states: found.states.as_ptr().cast(),
            state_count: found.states.len(),
            ..blank()
        };
        write(candidate, "candidate", &shown).map_err(Failure::argument)
    })
}

/// Shows the predicted future of agent `index`, nearest first: set `agent->struct_size`, the rest is filled in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_prediction_agent(prediction: *const TePrediction, index: usize, agent: *mut TeAgentPrediction) -> TeStatus {
    // SAFETY: the host vouches for its pointers as the header asks.
    guard(|| unsafe {
        let Plan { prediction, ids } = handle::borrow(prediction)?;
        let (Some(found), Some(id)) = (prediction.agents.get(index), ids.get(index)) else {
            return Err(Failure::argument(format!("agent {index} of {}", prediction.agents.len())));
        };
        let shown = TeAgentPrediction { id: id.as_ptr(), states: found.states.as_ptr().cast(), state_count: found.states.len(), ..blank() };
        write(agent, "agent", &shown).map_err(Failure::argument)
    })
}

/// Frees a prediction; null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_prediction_free(prediction: *mut TePrediction) -> TeStatus {
    // SAFETY: the host vouches for its handle as the header asks.
    guard(|| unsafe { handle::take(prediction) }.map(drop))
}

// A state of the engine is laid out as C sees it.
const _: () = assert!(size_of::<[f64; 5]>() == size_of::<TeTrajectoryState>());

#[cfg(test)]
mod tests {
    use super::{super::read::own, *};
    use crate::engine::{AgentPrediction, Candidate};

    #[test]
    fn a_prediction_is_shown_part_by_part() {
        let states = vec![[1.0, 2.0, 3.0, 4.0, 5.0]; 80];
        let candidates = (0..2)
            .map(|mode| Candidate { probability: 0.25 + 0.5 * mode as f64, reference_line: 0, mode, states: states.clone() })
            .collect();
        let answer = Prediction { best: 1, candidates, agents: vec![AgentPrediction { id: "lorry".into(), states }] };
        let handle = handle::create::<TePrediction>(Plan { prediction: answer, ids: vec![c_string("lorry")] });
        let (mut view, mut candidate, mut agent): (TePredictionView, TeCandidate, TeAgentPrediction) = (blank(), blank(), blank());
        // SAFETY: handle and views are alive.
        unsafe {
            assert_eq!(te_prediction_view(handle, &mut view), 0);
            assert_eq!((view.best, view.candidate_count, view.agent_count), (1, 2, 1));
            assert_eq!(te_prediction_candidate(handle, 1, &mut candidate), 0);
            assert_eq!((candidate.probability, candidate.mode, candidate.state_count), (0.75, 1, 80));
            let TeTrajectoryState { x, vy, .. } = *candidate.states.add(79);
            assert_eq!((x, vy), (1.0, 5.0));
            assert_eq!(te_prediction_agent(handle, 0, &mut agent), 0);
            assert_eq!(own(agent.id), "lorry");
            assert_eq!(te_prediction_candidate(handle, 2, &mut candidate), 1);
            assert_eq!(te_prediction_agent(handle, 1, &mut agent), 1);
            assert_eq!(te_prediction_free(handle), 0);
        }
    }
}
