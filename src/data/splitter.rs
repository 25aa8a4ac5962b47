//! Which scenario belongs to which split.
//!
//! In this order: the log lists of the configuration, if one is given (a log in none of them is left out); the split that
//! the source assigns to the scenario; the rank of its log's hash. By rank, validation and test get at least one log each
//! as soon as there are enough, and a log is never divided.

use crate::{
    config::SplitterConfig,
    scenario::{ScenarioInfo, Split},
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
}

/// Divides scenarios; those without a description are left out.
pub fn split(infos: &[Option<ScenarioInfo>], config: &SplitterConfig, seed: u64) -> Splits {
    let mut order: Vec<(&ScenarioInfo, usize)> = infos.iter().enumerate().filter_map(|(i, info)| Some((info.as_ref()?, i))).collect();
    order.sort_by(|(a, i), (b, j)| (&a.log_name, &a.scenario_type, &a.token, i).cmp(&(&b.log_name, &b.scenario_type, &b.token, j)));

    let listed = [(Split::Train, &config.train_logs), (Split::Validation, &config.val_logs), (Split::Test, &config.test_logs)];
    let by_list: HashMap<&str, Split> = listed.iter().flat_map(|(split, logs)| logs.iter().map(|log| (log.as_str(), *split))).collect();
    let by_rank = ranked(order.iter().filter(|(info, _)| info.split.is_none()).map(|(info, _)| info.log_name.as_str()), config, seed);

    let mut splits = Splits::default();
    for (info, index) in order {
        let split = if by_list.is_empty() {
            info.split.or_else(|| by_rank.get(info.log_name.as_str()).copied())
        } else {
            by_list.get(info.log_name.as_str()).copied()
        };
        match split {
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

/// FNV-1a, with the bits mixed at the end (the finaliser of SplitMix64): the same in every version and on every machine.
fn hash(text: &str, seed: u64) -> u64 {
    let mut h = text.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(log: &str, token: &str, split: Option<Split>) -> Option<ScenarioInfo> {
        Some(ScenarioInfo { token: token.into(), log_name: log.into(), scenario_type: "t".into(), split })
    }

    #[test]
    fn the_source_decides_unless_logs_are_listed() {
        let infos = [info("b", "3", Some(Split::Train)), info("a", "2", Some(Split::Test)), None, info("a", "1", Some(Split::Validation))];
        let splits = split(&infos, &SplitterConfig::default(), 0);
        assert_eq!((splits.train, splits.validation, splits.test), (vec![0], vec![3], vec![1]));
        let config = SplitterConfig { train_logs: vec!["a".into()], ..Default::default() };
        let splits = split(&infos, &config, 0);
        assert_eq!((splits.train, splits.validation.len(), splits.test.len()), (vec![3, 1], 0, 0), "ordered by token; log b is in no list");
    }

    #[test]
    fn logs_are_divided_whole_whatever_their_order() {
        let mut infos: Vec<_> = (0..60).map(|i| info(&format!("log{}", i % 20), &format!("{i:02}"), None)).collect();
        let splits = split(&infos, &SplitterConfig::default(), 7);
        assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (48, 6, 6));
        let tokens = |splits: &[usize], infos: &[Option<ScenarioInfo>]| {
            splits.iter().map(|&i| infos[i].as_ref().unwrap().token.clone()).collect::<Vec<_>>()
        };
        let logs: BTreeSet<_> = splits.validation.iter().map(|&i| infos[i].as_ref().unwrap().log_name.clone()).collect();
        assert_eq!(logs.len(), 2);
        let before = tokens(&splits.train, &infos);
        infos.reverse();
        assert_eq!(tokens(&split(&infos, &SplitterConfig::default(), 7).train, &infos), before);
        assert_ne!(tokens(&split(&infos, &SplitterConfig::default(), 8).train, &infos), before);
    }

    #[test]
    fn few_logs_serve_training_first() {
        for (logs, sizes) in [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (0, (0, 0, 0))] {
            let infos: Vec<_> = (0..logs).map(|i| info(&format!("{i}"), "x", None)).collect();
            let s = split(&infos, &SplitterConfig::default(), 0);
            assert_eq!((s.train.len(), s.validation.len(), s.test.len()), sizes);
        }
    }
}
