//! One call of the host, such as `fit`: what it is told, and whether it wants to go on.

use super::host::{Event, Flow, Host, LogLevel, StopHandle};
use crate::{data::Skipped, error::Rejection};
use std::collections::{BTreeMap, HashMap};

/// The host's side of a run.
pub struct Run<'a> {
    host: &'a Host,
    stop: &'a StopHandle,
    asked: bool,
    ending: Option<String>,
    skipped: HashMap<usize, Rejection>,
    first_reason: Option<String>,
}

impl<'a> Run<'a> {
    /// Starts a run.
    pub fn new(host: &'a Host, stop: &'a StopHandle) -> Self {
        Self { host, stop, asked: false, ending: None, skipped: HashMap::new(), first_reason: None }
    }

    /// A log record.
    pub fn log(&self, level: LogLevel, message: &str) {
        self.host.log(level, message);
    }

    /// An event, to which the host may answer that the run shall end.
    pub fn event(&mut self, event: &Event) {
        if self.host.event(event) == Flow::Stop {
            self.asked = true;
        }
    }

    /// True if the host wants the run to end now; it can be gone on with.
    pub fn is_interrupted(&self) -> bool {
        self.asked || self.stop.is_stopped()
    }

    /// What other threads stop the run by.
    pub fn stop(&self) -> &StopHandle {
        self.stop
    }

    /// Interrupts the run as the host would.
    pub fn interrupt(&mut self, reason: &str) {
        if !self.asked {
            self.log(LogLevel::Info, &format!("training is interrupted: {reason}"));
            self.asked = true;
        }
    }

    /// Ends training as soon as its minima allow it.
    pub fn end(&mut self, reason: &str) {
        if self.ending.is_none() {
            self.log(LogLevel::Info, reason);
            self.ending = Some(reason.to_owned());
        }
    }

    /// True if a hook wants training to end.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Reports scenarios that were left out, each once.
    pub fn skip(&mut self, skipped: &[Skipped]) {
        for Skipped { index, token, rejection, reason } in skipped {
            self.first_reason.get_or_insert_with(|| format!("'{token}': {reason}"));
            if self.skipped.insert(*index, *rejection).is_none() {
                self.log(LogLevel::Warning, &format!("scenario '{token}' is skipped: {reason}"));
                self.event(&Event::ScenarioSkipped { token: token.clone(), reason: reason.clone() });
            }
        }
    }

    /// Number of scenarios that were left out.
    pub fn skipped(&self) -> usize {
        self.skipped.len()
    }

    /// How many of them each rule left out, by its name.
    pub fn skipped_by_rule(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        self.skipped.values().for_each(|rejection| *counts.entry(rejection.name()).or_default() += 1);
        counts
    }

    /// Why the first of them was left out.
    pub fn first_reason(&self) -> &str {
        self.first_reason.as_deref().unwrap_or("none was left out")
    }
}
