//! What an evaluation says beyond its means, on request: tables by scenario and by scenario type, and the scenes of the best and
//! the worst scenarios. It is a pass of its own, over one scenario at a time, so that every value is that of one scenario.

use super::{evaluate::prefix, hooks::Stage, host::TypeReport, module::TrainingModule, scene::Scene, state::State, tally::Tally};
use crate::{
    config::Config,
    data::{Batch, DataModule, collate_into, sampler},
    error::{Error, Result},
    files::write_atomically,
    metrics::MetricTable,
    scenario::Split,
};
use std::{collections::BTreeMap, path::Path};

/// By scenario type.
pub(super) type Types = BTreeMap<String, TypeReport>;

/// One scenario that was evaluated.
struct Row {
    /// Its position in the source.
    index: usize,
    scenario_type: String,
    loss: f64,
    values: MetricTable,
}

/// Makes the tables and scenes that the configuration asks for, and gives the table by type.
///
/// # Errors
/// [`Error::Stopped`] if the host ended the run; [`Error::File`] if a file cannot be written.
pub(super) fn report(stage: &Stage, state: &State, module: &mut TrainingModule, data: &DataModule, split: Split) -> Result<Types> {
    let config = stage.config;
    let by_scenario = config.evaluation.per_scenario_csv || config.callbacks.scored_scenarios > 0;
    if !by_scenario && !config.evaluation.by_type {
        return Ok(Types::new());
    }
    let options = module.session().batch_options(false);
    let mut batch = Batch::empty(options.scalar);
    let (mut rows, mut tallies) = (Vec::new(), BTreeMap::<String, Tally>::new());
    for index in data.evaluated(split)? {
        if stage.run.is_interrupted() {
            return Err(Error::Stopped);
        }
        let Some(features) = data.features(index)? else { continue };
        collate_into(&mut batch, &[&features], &[], &options)?;
        let (losses, metrics) = module.evaluate(&batch)?;
        tallies.entry(features.scenario_type.clone()).or_default().add(1, &losses, &metrics);
        if by_scenario {
            let mut tally = Tally::default();
            tally.add(1, &losses, &metrics);
            rows.push(Row { index, scenario_type: features.scenario_type, loss: losses.loss, values: tally.known(prefix(split)) });
        }
    }
    let name = |table: &str| config.run.output_dir.join("evaluation").join(format!("{}_{table}.csv", prefix(split)));
    if config.evaluation.per_scenario_csv {
        let names = &data.supply().catalogue;
        let start = |row: &Row| vec![names.token(row.index).into(), names.log_name(row.index).into(), row.scenario_type.clone()];
        let lines = rows.iter().map(|row| (start(row), &row.values));
        write_table(&name("scenarios"), &["token", "log_name", "scenario_type"], lines)?;
    }
    let mut types = Types::new();
    if config.evaluation.by_type {
        let report = |tally: Tally| TypeReport { scenarios: tally.scenarios, metrics: tally.known(prefix(split)) };
        types = tallies.into_iter().map(|(name, tally)| (name, report(tally))).collect();
        let lines = types.iter().map(|(name, one)| (vec![name.clone(), one.scenarios.to_string()], &one.metrics));
        write_table(&name("by_type"), &["scenario_type", "scenarios"], lines)?;
    }
    let folder = config.run.output_dir.join("scenes").join(format!("epoch={}", state.epoch));
    for (kind, rows) in chosen(&mut rows, config) {
        for row in rows {
            let Some(features) = data.features(row.index)? else { continue };
            collate_into(&mut batch, &[&features], &[], &options)?;
            let outputs = module.session_mut().predict(&batch)?;
            let log_name = data.supply().catalogue.log_name(row.index);
            Scene::new(&features, &batch, &outputs, split, log_name, row.loss).write(&folder.join(kind))?;
        }
    }
    Ok(types)
}

/// The scenarios with the lowest and the highest loss, and some drawn from the seed. A loss that is not a number is the highest.
fn chosen<'a>(rows: &'a mut [Row], config: &Config) -> [(&'static str, Vec<&'a Row>); 3] {
    rows.sort_by(|a, b| a.loss.is_nan().cmp(&b.loss.is_nan()).then(a.loss.total_cmp(&b.loss)));
    let (rows, count) = (&*rows, config.callbacks.scored_scenarios.min(rows.len()));
    let all: Vec<usize> = (0..rows.len()).collect();
    let random = sampler::sampled(&all, count, config.run.seed, "scenes").into_iter().map(|i| &rows[i]);
    [("best", rows[..count].iter().collect()), ("worst", rows[rows.len() - count..].iter().rev().collect()), ("random", random.collect())]
}

/// Writes lines of texts and values, with the values' names in the head; what is not known is empty.
fn write_table<'a>(path: &Path, head: &[&str], lines: impl Iterator<Item = (Vec<String>, &'a MetricTable)> + Clone) -> Result<()> {
    let fail = |e: csv::Error| Error::file(path, e);
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = lines.clone().next().map(|(_, values)| values.0.iter().map(|(name, _)| name.as_str())).into_iter().flatten();
    writer.write_record(head.iter().copied().chain(names)).map_err(fail)?;
    for (texts, values) in lines {
        let values = values.0.iter().map(|(_, value)| if value.is_finite() { value.to_string() } else { String::new() });
        writer.write_record(texts.into_iter().chain(values)).map_err(fail)?;
    }
    write_atomically(path, &writer.into_inner().map_err(|e| Error::file(path, e))?)
}
