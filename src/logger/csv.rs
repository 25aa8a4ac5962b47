//! A table in the layout of Lightning's CSV logger: `metrics.csv`, one row for each call, one column for each name, sorted, with
//! `step` among them; a cell is empty where a row lacks the value.
//!
//! A row is written by one call. A column that appears later makes the file new under a temporary name, which then takes its place.
//! Training that is gone on with cuts its table where the checkpoint was made, so that the whole is that of an uninterrupted run.
//! Evaluations by themselves have a table of their own, `evaluation.csv`, which only grows.

use super::{Logger, Opening, Status};
use crate::{
    error::{Error, Result},
    files::write_atomically,
};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

const STEP: &str = "step";

/// Writes one table.
pub struct Csv {
    path: PathBuf,
    /// Open for appending once there are columns.
    file: Option<File>,
    /// Sorted.
    columns: Vec<String>,
    cells: Vec<String>,
}

impl Csv {
    /// Starts the table in a folder, which is made, or goes on with it. Metrics of another run, or branch of this one, are kept as
    /// `metrics-v1.csv`, ...
    ///
    /// # Errors
    /// [`Error::File`], also if what is gone on with is no such table.
    pub fn open(folder: &Path, opening: &Opening) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let name = if opening.fitting { "metrics.csv" } else { "evaluation.csv" };
        let mut table = Self { path: folder.join(name), file: None, columns: Vec::new(), cells: Vec::new() };
        if table.path.exists() {
            match (opening.fitting, usize::try_from(opening.position.rows.saturating_sub(opening.position.rows_elsewhere))) {
                (false, _) => table.go_on(usize::MAX)?,
                (true, Ok(0) | Err(_)) => table.put_aside()?,
                (true, Ok(rows)) => {
                    if opening.position.branches {
                        table.copy_aside()?;
                    }
                    table.go_on(rows)?;
                }
            }
        }
        Ok(table)
    }

    fn fail(&self, reason: impl std::fmt::Display) -> Error {
        Error::file(&self.path, reason)
    }

    /// The first of `metrics-v1.csv`, ... that is not there.
    fn free_name(&self) -> PathBuf {
        let name = |version: usize| self.path.with_file_name(format!("metrics-v{version}.csv"));
        (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0))
    }

    fn put_aside(&self) -> Result<()> {
        fs::rename(&self.path, self.free_name()).map_err(|e| self.fail(e))
    }

    fn copy_aside(&self) -> Result<()> {
        write_atomically(&self.free_name(), &fs::read(&self.path).map_err(|e| self.fail(e))?)
    }

    /// Keeps the first `rows` rows and appends to them.
    fn go_on(&mut self, rows: usize) -> Result<()> {
        let (columns, mut table) = self.read()?;
        self.columns = columns;
        table.truncate(rows);
        self.write(&table)
    }

    /// Columns and whole rows of the file.
    fn read(&self) -> Result<(Vec<String>, Vec<csv::StringRecord>)> {
        let mut text = fs::read_to_string(&self.path).map_err(|e| self.fail(e))?;
        // What a failing machine left of a row.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let columns: Vec<String> = reader.headers().map_err(|e| self.fail(e))?.iter().map(str::to_owned).collect();
        if !columns.is_empty() && !columns.iter().any(|name| name == STEP) {
            return Err(self.fail("has no column 'step' and is no table of metrics"));
        }
        let rows: std::result::Result<Vec<_>, _> = reader.records().collect();
        Ok((columns, rows.map_err(|e| self.fail(e))?))
    }

    /// Makes the file new, with these rows, whose cells belong to the present columns.
    fn write<R: IntoIterator<Item: AsRef<[u8]>>>(&mut self, rows: impl IntoIterator<Item = R>) -> Result<()> {
        self.file = None;
        if self.columns.is_empty() {
            return Ok(());
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.columns).map_err(|e| self.fail(e))?;
        for row in rows {
            writer.write_record(row).map_err(|e| self.fail(e))?;
        }
        write_atomically(&self.path, &writer.into_inner().map_err(|e| self.fail(e))?)?;
        self.file = Some(File::options().append(true).open(&self.path).map_err(|e| self.fail(e))?);
        Ok(())
    }

    /// Adds columns for names that are new.
    fn add_columns(&mut self, values: &[(String, f64)]) -> Result<()> {
        let known = |name: &str| self.columns.binary_search_by(|column| column.as_str().cmp(name)).is_ok();
        let mut columns: Vec<String> = values.iter().filter(|(name, _)| !known(name)).map(|(name, _)| name.clone()).collect();
        if columns.is_empty() {
            return Ok(());
        }
        let (before, rows) = if self.file.is_some() { self.read()? } else { (vec![STEP.to_owned()], Vec::new()) };
        columns.extend_from_slice(&before);
        columns.sort();
        columns.dedup();
        let place: Vec<Option<usize>> = columns.iter().map(|name| before.iter().position(|column| column == name)).collect();
        self.columns = columns;
        self.write(rows.iter().map(|row| place.iter().map(|at| at.and_then(|at| row.get(at)).unwrap_or_default())))
    }
}

/// Shortest text that reads back as the same number; without a point if it is whole, as a step and an epoch are.
fn cell(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:?}") }
}

impl Logger for Csv {
    fn keeps_table(&self) -> bool {
        true
    }

    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        self.add_columns(values)?;
        self.cells.resize(self.columns.len(), String::new());
        self.cells.iter_mut().for_each(String::clear);
        let place = |name: &str| self.columns.binary_search_by(|column| column.as_str().cmp(name));
        if let Ok(at) = place(STEP) {
            self.cells[at] = step.to_string();
        }
        for (name, value) in values {
            if let Ok(at) = place(name) {
                self.cells[at] = cell(*value);
            }
        }
        // Numbers need no quotes.
        let row = self.cells.join(",") + "\n";
        match &mut self.file {
            Some(file) => file.write_all(row.as_bytes()).map_err(|e| Error::file(&self.path, e)),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data).map_err(|e| self.fail(e))
    }

    fn finish(&mut self, _: Status) -> Result<()> {
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::tree::Value, logger::Position};

    fn open(folder: &Path, rows: u64) -> Result<Csv> {
        Csv::open(folder, &Opening { config: &Value::Null, position: &Position { rows, ..Position::default() }, fitting: true })
    }

    fn row(values: &[(&str, f64)]) -> Vec<(String, f64)> {
        values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn columns_may_appear_later_and_rows_are_always_whole() {
        let folder = tempfile::tempdir().unwrap();
        let text = || fs::read_to_string(folder.path().join("metrics.csv")).unwrap();
        let mut table = open(folder.path(), 0).unwrap();
        table.scalars(0, &row(&[("b", 0.1), ("epoch", 0.0)])).unwrap();
        assert_eq!(text(), "b,epoch,step\n0.1,0,0\n");
        table.scalars(1, &row(&[("a, with a comma", f64::NAN), ("z", f64::INFINITY)])).unwrap();
        assert_eq!(text(), "\"a, with a comma\",b,epoch,step,z\n,0.1,0,0,\nNaN,,,1,inf\n");
        table.scalars(2, &row(&[("b", -1e-300)])).unwrap();
        table.finish(Status::Finished).unwrap();
        assert_eq!(text().lines().nth(3), Some(",-1e-300,,2,"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_run_goes_on_where_its_checkpoint_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let log = |table: &mut Csv, steps: std::ops::Range<u64>| {
            for step in steps {
                table.scalars(step, &row(&[("a", step as f64 + 0.5)])).unwrap();
            }
        };
        log(&mut open(folder.path(), 0).unwrap(), 0..5);
        let whole = fs::read_to_string(&path).unwrap();
        // Three rows were there when the checkpoint was written; the machine failed in the middle of the last one.
        fs::write(&path, &whole[..whole.len() - 2]).unwrap();
        log(&mut open(folder.path(), 3).unwrap(), 3..5);
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        // A new run leaves the old table alone.
        log(&mut open(folder.path(), 0).unwrap(), 0..1);
        assert_eq!(fs::read_to_string(folder.path().join("metrics-v1.csv")).unwrap(), whole);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a,step\n0.5,0\n");
        fs::write(&path, "something,else\n1,2\n").unwrap();
        assert!(open(folder.path(), 1).is_err());
    }

    #[test]
    fn evaluations_leave_the_table_of_training_alone() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 0).unwrap().scalars(4, &row(&[("a", 1.5)])).unwrap();
        for value in [2.5, 3.5] {
            let opening = Opening { config: &Value::Null, position: &Position { rows: 1, ..Position::default() }, fitting: false };
            Csv::open(folder.path(), &opening).unwrap().scalars(4, &row(&[("b", value)])).unwrap();
        }
        let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(text("metrics.csv"), "a,step\n1.5,4\n");
        assert_eq!(text("evaluation.csv"), "b,step\n2.5,4\n3.5,4\n");
    }
}
