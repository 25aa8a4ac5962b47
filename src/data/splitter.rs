//! Which scenario belongs to which split.
//!
//! In this order: the log lists of the configuration, if one is given (a log in none of them is left out); the split that
//! the source assigns to the scenario; the rank of its log's hash. By rank, validation and test get at least one log each
//! as soon as there are enough, and a log is never divided.

use super::{
    catalogue::Catalogue,
    sampler::{self, hash},
};
use crate::{
    config::{SplitterConfig, selection::SelectionConfig},
    scenario::Split,
};
use std::collections::{BTreeSet, HashMap};

/// Positions in the source's list, ordered by log, type and token, whatever the order of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Splits {
    /// For fitting.
    pub train: Vec<usize>,
    /// For choosing the best checkpoint.
    pub validation: Vec<usize>,
    /// For the final figures.
    pub test: Vec<usize>,
}

impl Splits {
    /// Positions of a split.
    pub fn of(&self, split: Split) -> &[usize] {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
            Split::Test => &self.test,
        }
    }

    /// Keeps of each split the fraction that is used, rounded down: drawn from the seed, fewer always among more.
    pub fn sample(&mut self, config: &SelectionConfig, seed: u64) {
        for (scenarios, fraction, name) in [
            (&mut self.train, config.train_fraction, "training fraction"),
            (&mut self.validation, config.val_fraction, "validation fraction"),
            (&mut self.test, config.test_fraction, "test fraction"),
        ] {
            let count = (scenarios.len() as f64 * fraction) as usize;
            if count < scenarios.len() {
                *scenarios = sampler::sampled(scenarios, count, seed, name);
            }
        }
    }
}

/// Divides some scenarios, given in order.
pub fn split(catalogue: &Catalogue, order: &[usize], config: &SplitterConfig, seed: u64) -> Splits {
    let listed = [(Split::Train, &config.train_logs), (Split::Validation, &config.val_logs), (Split::Test, &config.test_logs)];
    let by_list: HashMap<&str, Split> = listed.iter().flat_map(|(split, logs)| logs.iter().map(|log| (log.as_str(), *split))).collect();
    let mut free = vec![false; catalogue.logs().len()];
    order.iter().filter(|&&i| catalogue.split(i).is_none()).for_each(|&i| free[catalogue.log(i)] = true);
    let names = || catalogue.logs().iter().map(String::as_str);
    let by_rank = ranked(names().zip(&free).filter(|(_, free)| **free).map(|(log, _)| log), config, seed);
    let by_log: Vec<Option<Split>> =
        names().map(|log| if by_list.is_empty() { by_rank.get(log) } else { by_list.get(log) }.copied()).collect();

    let mut splits = Splits::default();
    for &index in order {
        let by_log = by_log[catalogue.log(index)];
        match if by_list.is_empty() { catalogue.split(index).or(by_log) } else { by_log } {
            Some(Split::Train) => splits.train.push(index),
            Some(Split::Validation) => splits.validation.push(index),
            Some(Split::Test) => splits.test.push(index),
            None => {}
        }
    }
    splits
}

/// Divides logs by the rank of their hash.
fn ranked<'a>(logs: impl Iterator<Item = &'a str>, config: &SplitterConfig, seed: u64) -> HashMap<&'a str, Split> {
    let mut logs: Vec<&str> = logs.collect::<BTreeSet<_>>().into_iter().collect();
    logs.sort_by_cached_key(|log| hash(log, seed));
    let share = |fraction: f64, left: usize| {
        if fraction > 0.0 { ((logs.len() as f64 * fraction).round() as usize).max(1).min(left.saturating_sub(1)) } else { 0 }
    };
    let validation = share(config.val_fraction, logs.len());
    let test = share(config.test_fraction, logs.len() - validation);
    let split = |rank: usize| match rank {
        rank if rank < validation => Split::Validation,
        rank if rank < validation + test => Split::Test,
        _ => Split::Train,
    };
    logs.iter().enumerate().map(|(rank, log)| (*log, split(rank))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::catalogue::Name;

    fn catalogue(rows: &[(&str, &str, Option<Split>)]) -> Catalogue {
        let mut catalogue = Catalogue::default();
        rows.iter().for_each(|&(log_name, token, split)| {
            catalogue.push(&Name { token, log_name, scenario_type: "t", split, ..Default::default() });
        });
        catalogue
    }

    fn split(catalogue: &Catalogue, config: &SplitterConfig, seed: u64) -> Splits {
        super::split(catalogue, &catalogue.sorted(), config, seed)
    }

    #[test]
    fn fractions_are_rounded_down_and_nested() {
        let mut splits = Splits { train: (0..10).collect(), validation: (10..20).collect(), test: (20..25).collect() };
        let sampled = |fraction: f64| {
            let mut splits = splits.clone();
            splits.sample(&SelectionConfig { train_fraction: fraction, test_fraction: 0.5, ..Default::default() }, 3);
            assert_eq!((splits.validation.len(), splits.test.len()), (10, 2));
            splits.train
        };
        let (few, more) = (sampled(0.39), sampled(0.7));
        assert_eq!((few.len(), more.len()), (3, 7));
        assert!(few.is_sorted() && few.iter().all(|i| more.contains(i)));
        splits.sample(&SelectionConfig::default(), 3);
        assert_eq!(splits.train.len(), 10);
    }

    #[test]
    fn the_source_decides_unless_logs_are_listed() {
        let mut infos = catalogue(&[("b", "3", Some(Split::Train)), ("a", "2", Some(Split::Test)), ("a", "1", Some(Split::Validation))]);
        infos.push_undescribed();
        let splits = split(&infos, &SplitterConfig::default(), 0);
        assert_eq!((splits.train, splits.validation, splits.test), (vec![0], vec![2], vec![1]));
        let config = SplitterConfig { train_logs: vec!["a".into()], ..Default::default() };
        let splits = split(&infos, &config, 0);
        assert_eq!((splits.train, splits.validation.len(), splits.test.len()), (vec![2, 1], 0, 0), "ordered by token; log b is in no list");
    }

    #[test]
    fn logs_are_divided_whole_whatever_their_order() {
        let names: Vec<_> = (0..60).map(|i| (format!("log{}", i % 20), format!("{i:02}"))).collect();
        let mut rows: Vec<_> = names.iter().map(|(log, token)| (log.as_str(), token.as_str(), None)).collect();
        let infos = catalogue(&rows);
        let splits = split(&infos, &SplitterConfig::default(), 7);
        assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (48, 6, 6));
        let tokens = |splits: &[usize], infos: &Catalogue| splits.iter().map(|&i| infos.token(i).to_owned()).collect::<Vec<_>>();
        let logs: BTreeSet<_> = splits.validation.iter().map(|&i| infos.log_name(i)).collect();
        assert_eq!(logs.len(), 2);
        let before = tokens(&splits.train, &infos);
        rows.reverse();
        let infos = catalogue(&rows);
        assert_eq!(tokens(&split(&infos, &SplitterConfig::default(), 7).train, &infos), before);
        assert_ne!(tokens(&split(&infos, &SplitterConfig::default(), 8).train, &infos), before);
    }

    #[test]
    fn few_logs_serve_training_first() {
        for (logs, sizes) in [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (0, (0, 0, 0))] {
            let rows = [("0", "x", None), ("1", "x", None), ("2", "x", None)];
            let s = split(&catalogue(&rows[..logs]), &SplitterConfig::default(), 0);
            assert_eq!((s.train.len(), s.validation.len(), s.test.len()), sizes);
        }
    }
}
