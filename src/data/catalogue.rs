//! What is known of all scenarios before any is loaded, kept small: a million entries take some tens of megabytes.

use crate::scenario::{ScenarioInfo, Split};
use std::collections::HashMap;

/// What is known of a scenario without its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Name<'a> {
    /// Names the scenario.
    pub token: &'a str,
    /// Recording that it was cut from.
    pub log_name: &'a str,
    /// Its label.
    pub scenario_type: &'a str,
    /// The split that the source assigns, if it does.
    pub split: Option<Split>,
    /// Name of its map; empty if not known.
    pub map_name: &'a str,
    /// When it starts, microseconds, if known.
    pub start_us: Option<i64>,
}

impl<'a> From<&'a ScenarioInfo> for Name<'a> {
    fn from(info: &'a ScenarioInfo) -> Self {
        let ScenarioInfo { token, log_name, scenario_type, split, map_name, start_us } = info;
        Self { token, log_name, scenario_type, split: *split, map_name: map_name.as_deref().unwrap_or_default(), start_us: *start_us }
    }
}

/// Descriptions of scenarios by position: tokens in one text, names of logs and types once each.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    tokens: String,
    /// Where each token ends in `tokens`.
    ends: Vec<usize>,
    logs: Names,
    types: Names,
    maps: Names,
    /// What else is known of each scenario.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    log: u32,
    scenario_type: u32,
    map: u32,
    state: State,
    start_us: i64,
}

/// A start that is not known.
const NO_START: i64 = i64::MIN;

/// What is known of a scenario's split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The source could not describe the scenario, or it is left out.
    Undescribed,
    /// It did, and assigned no split.
    Free,
    Assigned(Split),
}

impl Catalogue {
    /// Appends a scenario.
    pub fn push(&mut self, name: &Name) {
        self.add(name, name.split.map_or(State::Free, State::Assigned));
    }

    /// Appends a scenario that could not be described: it keeps its position and is in no list.
    pub fn push_undescribed(&mut self) {
        self.add(&Name::default(), State::Undescribed);
    }

    /// Takes a scenario out of all lists; it keeps its position and its name.
    pub fn leave_out(&mut self, i: usize) {
        self.entries[i].state = State::Undescribed;
    }

    fn add(&mut self, name: &Name, state: State) {
        self.tokens.push_str(name.token);
        self.ends.push(self.tokens.len());
        self.entries.push(Entry {
            log: self.logs.number(name.log_name),
            scenario_type: self.types.number(name.scenario_type),
            map: self.maps.number(name.map_name),
            state,
            start_us: name.start_us.unwrap_or(NO_START),
        });
    }

    /// All that is known of a scenario.
    pub fn name(&self, i: usize) -> Name<'_> {
        Name {
            token: self.token(i),
            log_name: self.log_name(i),
            scenario_type: self.scenario_type(i),
            split: self.split(i),
            map_name: self.map_name(i),
            start_us: self.start_us(i),
        }
    }

    /// Number of positions, those without a description among them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// False if the scenario could not be described, or was left out.
    pub fn is_described(&self, i: usize) -> bool {
        self.entries[i].state != State::Undescribed
    }

    /// Names the scenario; empty without a description.
    pub fn token(&self, i: usize) -> &str {
        &self.tokens[i.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[i]]
    }

    /// Recording that it was cut from.
    pub fn log_name(&self, i: usize) -> &str {
        &self.logs.names[self.log(i)]
    }

    /// Its label.
    pub fn scenario_type(&self, i: usize) -> &str {
        &self.types.names[self.type_number(i)]
    }

    /// The split that the source assigns, if it does.
    pub fn split(&self, i: usize) -> Option<Split> {
        if let State::Assigned(split) = self.entries[i].state { Some(split) } else { None }
    }

    /// Name of its map; empty if not known.
    pub fn map_name(&self, i: usize) -> &str {
        &self.maps.names[self.map(i)]
    }

    /// Position of its map among [`Self::maps`].
    pub fn map(&self, i: usize) -> usize {
        self.entries[i].map as usize
    }

    /// Names of all maps, in the order in which they came.
    pub fn maps(&self) -> &[String] {
        &self.maps.names
    }

    /// When it starts, microseconds, if known.
    pub fn start_us(&self, i: usize) -> Option<i64> {
        Some(self.entries[i].start_us).filter(|start| *start != NO_START)
    }

    /// Position of its log among [`Self::logs`].
    pub fn log(&self, i: usize) -> usize {
        self.entries[i].log as usize
    }

    /// Position of its label among [`Self::types`].
    pub fn type_number(&self, i: usize) -> usize {
        self.entries[i].scenario_type as usize
    }

    /// Names of all logs, in the order in which they came.
    pub fn logs(&self) -> &[String] {
        &self.logs.names
    }

    /// All labels, in the order in which they came.
    pub fn types(&self) -> &[String] {
        &self.types.names
    }

    /// Positions of the described scenarios, ordered by log, type, token and position.
    pub fn sorted(&self) -> Vec<usize> {
        let (logs, types) = (self.logs.ranks(), self.types.ranks());
        let mut keys: Vec<(u32, u32, u64, u32)> = (0..self.len())
            .filter(|&i| self.is_described(i))
            .map(|i| (logs[self.log(i)], types[self.type_number(i)], beginning(self.token(i)), i as u32))
            .collect();
        keys.sort_unstable_by(|a, b| {
            let token = |key: &(u32, u32, u64, u32)| self.token(key.3 as usize);
            (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)).then_with(|| token(a).cmp(token(b))).then(a.3.cmp(&b.3))
        });
        keys.into_iter().map(|key| key.3 as usize).collect()
    }
}

/// The first eight bytes as a number that orders as they do.
fn beginning(text: &str) -> u64 {
    let mut bytes = [0; 8];
    let len = text.len().min(8);
    bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
    u64::from_be_bytes(bytes)
}

/// Names, each once, by number.
#[derive(Debug, Clone, Default)]
struct Names {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    /// The number asked for last: neighbours mostly share a name.
    last: u32,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if self.names.get(self.last as usize).is_none_or(|last| last != name) {
            self.last = match self.numbers.get(name) {
                Some(number) => *number,
                None => {
                    let number = self.names.len() as u32;
                    self.names.push(name.to_owned());
                    self.numbers.insert(name.to_owned(), number);
                    number
                }
            };
        }
        self.last
    }

    /// Place of each name in their order.
    fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        order.sort_unstable_by_key(|&i| &self.names[i]);
        let mut ranks = vec![0; order.len()];
        order.into_iter().zip(0..).for_each(|(i, rank)| ranks[i] = rank);
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_put() {
        let mut catalogue = Catalogue::default();
        assert!(catalogue.is_empty() && catalogue.sorted().is_empty());
        let first = Name { token: "t", log_name: "log b", scenario_type: "turn", split: Some(Split::Test), ..Default::default() };
        catalogue.push(&first);
        catalogue.push_undescribed();
        let info = ScenarioInfo {
            token: "ü2".into(),
            log_name: "log a".into(),
            scenario_type: "turn".into(),
            split: None,
            map_name: Some("town".into()),
            start_us: Some(-7),
        };
        catalogue.push(&(&info).into());
        assert_eq!((catalogue.name(0), catalogue.name(2)), (first, Name::from(&info)));
        assert_eq!(catalogue.len(), 3);
        assert_eq!((catalogue.token(0), catalogue.log_name(0), catalogue.scenario_type(0)), ("t", "log b", "turn"));
        assert_eq!((catalogue.token(2), catalogue.log_name(2), catalogue.scenario_type(2)), ("ü2", "log a", "turn"));
        assert_eq!([0, 1, 2].map(|i| catalogue.split(i)), [Some(Split::Test), None, None]);
        assert_eq!([0, 1, 2].map(|i| catalogue.is_described(i)), [true, false, true]);
        assert_eq!((catalogue.token(1), catalogue.type_number(0)), ("", catalogue.type_number(2)));
        assert_eq!([0, 1, 2].map(|i| (catalogue.map_name(i), catalogue.start_us(i))), [("", None), ("", None), ("town", Some(-7))]);
        assert_eq!(catalogue.sorted(), [2, 0]);
    }

    #[test]
    fn orders_by_log_type_and_token() {
        let mut catalogue = Catalogue::default();
        let rows = [
            ("long token 2", "b", "x"),
            ("long token 1", "b", "x"),
            ("short", "b", "x"),
            ("z", "a", "y"),
            ("z", "a", "x"),
            ("a\0", "a", "x"),
            ("a", "a", "x"),
            ("", "a", "x"),
            ("z", "a", "x"),
        ];
        rows.iter().for_each(|&(token, log_name, scenario_type)| {
            catalogue.push(&Name { token, log_name, scenario_type, ..Default::default() });
        });
        let mut expected: Vec<usize> = (0..rows.len()).collect();
        expected.sort_by_key(|&i| (rows[i].1, rows[i].2, rows[i].0, i));
        assert_eq!(catalogue.sorted(), expected);
    }
}
