//! Scenarios that could not be used: counted by rule, and listed in a file.

use super::{catalogue::Catalogue, loader::Skipped, splitter::Splits};
use crate::{
    error::{Error, Rejection, Result},
    files::write_atomically,
    scenario::Split,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What was left out since the data were opened. A scenario that was left out once stays in it.
#[derive(Debug, Default)]
pub struct Rejections(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By position: whether it was loaded since.
    seen: Vec<bool>,
    /// By position.
    rejected: BTreeMap<usize, Skipped>,
}

/// A line of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    token: String,
    log_name: String,
    scenario_type: String,
    split: String,
    rule: String,
    reason: String,
}

impl Rejections {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of scenarios that were loaded, by position, and of those among them that were left out.
    pub fn note(&self, loaded: &[usize], skipped: &[Skipped]) {
        let mut state = self.lock();
        for &index in loaded {
            if state.seen.len() <= index {
                state.seen.resize(index + 1, false);
            }
            state.seen[index] = true;
        }
        for skipped in skipped {
            state.rejected.entry(skipped.index).or_insert_with(|| skipped.clone());
        }
    }

    /// How many were left out by each rule, in the order of the rules.
    pub fn counts(&self) -> BTreeMap<Rejection, usize> {
        let mut counts = BTreeMap::new();
        self.lock().rejected.values().for_each(|skipped| *counts.entry(skipped.rejection).or_default() += 1);
        counts
    }

    /// The counts in words; empty if nothing was left out.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (rule, count) in self.counts() {
            let _ = write!(text, "{}{} {count}", if text.is_empty() { "" } else { ", " }, rule.name());
        }
        text
    }

    /// Writes the list (CSV: token, log name, type, split, rule, reason; in the order of the catalogue), whole or not at all.
    /// Lines of an earlier list stay for scenarios of the catalogue that were not loaded since, but for those of repeated ones, which
    /// bear the token of another and are found anew each time. Without any line there is no
    /// file, unless there was one.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write(&self, path: &Path, catalogue: &Catalogue, splits: &Splits) -> Result<()> {
        let state = self.lock();
        let mut earlier: HashMap<String, Row> = read(path).into_iter().map(|row| (row.token.clone(), row)).collect();
        if earlier.is_empty() && state.rejected.is_empty() && !path.exists() {
            return Ok(());
        }
        let fail = |e: csv::Error| Error::file(path, e);
        let positions: Box<dyn Iterator<Item = usize>> =
            if earlier.is_empty() { Box::new(state.rejected.keys().copied()) } else { Box::new(0..catalogue.len()) };
        let mut split_of = HashMap::new();
        for split in [Split::Train, Split::Validation, Split::Test] {
            splits.of(split).iter().filter(|index| state.rejected.contains_key(index)).for_each(|&index| _ = split_of.insert(index, split));
        }
        let rows = positions.filter_map(|index| match state.rejected.get(&index) {
            Some(skipped) => Some(row(index, split_of.get(&index).copied(), skipped, catalogue)),
            None if state.seen.get(index) == Some(&true) => None,
            None => earlier.remove(catalogue.token(index)),
        });
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        writer.write_record(["token", "log_name", "scenario_type", "split", "rule", "reason"]).map_err(fail)?;
        for row in rows {
            writer.serialize(row).map_err(fail)?;
        }
        write_atomically(path, &writer.into_inner().map_err(|e| Error::file(path, e))?)
    }
}

fn row(index: usize, split: Option<Split>, skipped: &Skipped, catalogue: &Catalogue) -> Row {
    Row {
        token: skipped.token.clone(),
        log_name: catalogue.log_name(index).to_owned(),
        scenario_type: catalogue.scenario_type(index).to_owned(),
        split: split.map_or("", Split::name).to_owned(),
        rule: skipped.rejection.name().to_owned(),
        reason: skipped.reason.clone(),
    }
}

/// Lines of an earlier list but those of repeated scenarios; those that cannot be read are lost.
fn read(path: &Path) -> Vec<Row> {
    let stays = |row: &Row| row.rule != Rejection::Repeated.name();
    csv::Reader::from_path(path)
        .map(|mut reader| reader.deserialize().filter_map(|row| row.ok()).filter(stays).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::catalogue::Name;

    fn skipped(index: usize, rejection: Rejection, reason: &str) -> Skipped {
        Skipped { index, token: format!("t{index}"), rejection, reason: reason.into() }
    }

    #[test]
    fn lines_stay_until_their_scenario_is_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejected.csv");
        let mut catalogue = Catalogue::default();
        (0..5).for_each(|i| {
            catalogue.push(&Name { token: &format!("t{i}"), log_name: "log, \"a\"", scenario_type: "turn", ..Default::default() });
        });
        let splits = Splits { train: vec![0, 1], validation: Vec::new(), test: vec![4, 3] };
        let lines = || std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();

        Rejections::default().write(&path, &catalogue, &splits).unwrap();
        assert!(!path.exists(), "nothing to say");

        let first = Rejections::default();
        first.note(&[0, 1], &[skipped(1, Rejection::BadRoute, "no, \"route\"")]);
        first.note(&[4, 3], &[skipped(4, Rejection::NotFinite, "two\nlines"), skipped(3, Rejection::BadRoute, "x")]);
        first.note(&[1], &[skipped(1, Rejection::NotFinite, "only the first counts")]);
        first.note(&[3], &[]);
        assert_eq!(first.summary(), "not_finite 1, bad_route 2");
        first.write(&path, &catalogue, &splits).unwrap();
        let expected = [
            "token,log_name,scenario_type,split,rule,reason",
            "t1,\"log, \"\"a\"\"\",turn,training,bad_route,\"no, \"\"route\"\"\"",
            "t3,\"log, \"\"a\"\"\",turn,test,bad_route,x",
            "t4,\"log, \"\"a\"\"\",turn,test,not_finite,\"two",
            "lines\"",
        ];
        assert_eq!(lines(), expected);

        let second = Rejections::default();
        second.note(&[0, 1, 2], &[skipped(0, Rejection::LeftOutByHost, "busy")]);
        second.write(&path, &catalogue, &splits).unwrap();
        assert_eq!(lines()[1], "t0,\"log, \"\"a\"\"\",turn,training,left_out_by_host,busy");
        assert_eq!(lines()[2..], expected[2..], "those of the test stay");

        let third = Rejections::default();
        third.note(&[0, 1, 2, 3, 4], &[]);
        third.write(&path, &catalogue, &splits).unwrap();
        assert_eq!(lines(), expected[..1]);
    }
}
