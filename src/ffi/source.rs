//! The host's table of callbacks as a [`ScenarioSource`].

use super::{
    host::{Fault, callback_error, forget_callback_error},
    read::{blank, filled},
    scenario::{read_info, read_scenario},
    status::{Failure, Outcome},
    types::*,
};
use crate::{
    error::{Error, Rejection, Result},
    scenario::{Scenario, ScenarioInfo, ScenarioSource},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More scenarios than this are taken for a mistake.
const SCENARIO_LIMIT: usize = 1 << 32;

/// Owns the host's table from here on; dropping it calls `release`.
pub struct HostSource {
    table: TeSource,
    count: usize,
    turn: Mutex<()>,
    fault: Arc<Fault>,
}

// SAFETY: the loader calls a source that is not thread-safe on the calling thread alone, and `turn` sees to it that nobody can
// call it from two at once; a thread-safe one may be called from any.
unsafe impl Send for HostSource {}
// SAFETY: as above.
unsafe impl Sync for HostSource {}

impl HostSource {
    /// Takes the table over; [`HostSource::open`] then checks it and asks for the size.
    pub fn new(table: TeSource, fault: Arc<Fault>) -> Self {
        Self { table, count: 0, turn: Mutex::new(()), fault }
    }

    /// Checks the table and asks for the number of scenarios.
    pub fn open(&mut self) -> Outcome {
        let TeSource { size, info, load, .. } = self.table;
        let missing = |name| Failure::argument(format!("source.{name} is null"));
        let size = size.ok_or_else(|| missing("size"))?;
        info.ok_or_else(|| missing("info"))?;
        load.ok_or_else(|| missing("load"))?;
        // SAFETY: the host gave callback and data for each other.
        self.count = unsafe { size(self.table.user_data) };
        if self.count > SCENARIO_LIMIT {
            return Err(Failure::argument(format!("source.size returned {}, at most {SCENARIO_LIMIT} scenarios are allowed", self.count)));
        }
        Ok(())
    }

    fn begin(&self, index: usize) -> Result<Option<MutexGuard<'_, ()>>> {
        self.fault.check()?;
        if index >= self.count {
            return Err(Error::Argument(format!("scenario {index} of {}", self.count)));
        }
        let turn = (self.table.thread_safe == 0).then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        forget_callback_error();
        Ok(turn)
    }

    /// What a callback's code means: a positive one leaves the scenario out, a negative one ends the run.
    fn judge(&self, code: i32, callback: &str, name: &str) -> Result<()> {
        match code {
            0 => Ok(()),
            1.. => Err(Error::scenario(name, Rejection::LeftOutByHost, format!("left out by the host: {}", callback_error(code)))),
            _ => {
                let error = Error::Host { callback: callback.into(), token: name.into(), reason: callback_error(code) };
                self.fault.raise(error.clone());
                Err(error)
            }
        }
    }
}

impl ScenarioSource for HostSource {
    fn len(&self) -> usize {
        self.count
    }

    fn info(&self, index: usize) -> Result<ScenarioInfo> {
        let _turn = self.begin(index)?;
        let name = format!("scenario {index}");
        let mut raw: TeScenarioInfo = blank();
        let Some(info) = self.table.info else { return Err(Error::Argument("source.info is null".into())) };
        // SAFETY: the host gave callback and data for each other; what it filled in is checked as it is read.
        unsafe {
            self.judge(info(self.table.user_data, index, &mut raw), "info", &name)?;
            filled(&raw).map_err(|reason| Error::scenario(&name, Rejection::Unreadable, reason))?;
            read_info(&raw, &name)
        }
    }

    fn load(&self, index: usize) -> Result<Scenario> {
        let _turn = self.begin(index)?;
        let name = format!("scenario {index}");
        let mut raw: TeScenario = blank();
        let Some(load) = self.table.load else { return Err(Error::Argument("source.load is null".into())) };
        // SAFETY: the host gave callback and data for each other; what it filled in is checked as it is read.
        unsafe {
            self.judge(load(self.table.user_data, index, &mut raw), "load", &name)?;
            let checked = filled(&raw).map_err(|reason| Error::scenario(&name, Rejection::Unreadable, reason));
            let scenario = checked.and_then(|()| read_scenario(&raw, &name));
            if let Some(unload) = self.table.unload {
                unload(self.table.user_data, index, &mut raw);
            }
            scenario
        }
    }

    fn is_thread_safe(&self) -> bool {
        self.table.thread_safe != 0
    }
}

impl Drop for HostSource {
    fn drop(&mut self) {
        if let Some(release) = self.table.release {
            // SAFETY: the host gave callback and data for each other; this is the only call, since the table has one owner.
            unsafe { release(self.table.user_data) }
        }
    }
}
