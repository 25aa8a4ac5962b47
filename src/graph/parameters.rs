//! Names, shapes and places of parameters and running statistics in their flat buffers.

use crate::error::{Error, Result};
use std::{collections::HashMap, ops::Range};

/// A run of numbers in a flat buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vector {
    /// First element.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

impl Vector {
    /// Elements `range` of it.
    pub fn part(self, range: Range<usize>) -> Self {
        debug_assert!(range.end <= self.len);
        Self { offset: self.offset + range.start, len: range.len() }
    }
    /// Its place in the buffer.
    pub fn range(self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// A matrix in a flat buffer, possibly part of a larger one: element (r, c) lies at `offset + r * stride + c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrix {
    /// First element.
    pub offset: usize,
    /// Rows (outputs of a linear layer).
    pub rows: usize,
    /// Columns (inputs of a linear layer).
    pub columns: usize,
    /// Elements between two rows.
    pub stride: usize,
}

impl Matrix {
    /// Some of its rows.
    pub fn row_range(self, range: Range<usize>) -> Self {
        debug_assert!(range.end <= self.rows);
        Self { offset: self.offset + range.start * self.stride, rows: range.len(), ..self }
    }
    /// Some of its columns.
    pub fn column_range(self, range: Range<usize>) -> Self {
        debug_assert!(range.end <= self.columns);
        Self { offset: self.offset + range.start, columns: range.len(), ..self }
    }
    /// Its rows, or the whole as one where nothing lies between them.
    pub fn rows_as_vectors(self) -> impl Iterator<Item = Vector> {
        let (count, len) = if self.stride == self.columns { (1, self.rows * self.columns) } else { (self.rows, self.columns) };
        (0..count).map(move |r| Vector { offset: self.offset + r * self.stride, len })
    }
}

/// A named tensor in a flat buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Name in a checkpoint.
    pub name: String,
    /// Shape in a checkpoint.
    pub shape: Vec<usize>,
    /// First element in the buffer.
    pub offset: usize,
    /// In the buffer of running statistics, which have no gradient, instead of that of the parameters.
    pub statistic: bool,
}

impl Parameter {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Its place in its buffer.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// All parameters and running statistics of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    entries: Vec<Parameter>,
    by_name: HashMap<String, usize>,
    len: usize,
    statistics_len: usize,
}

impl Parameters {
    /// Appends a parameter or statistic.
    ///
    /// # Panics
    /// If the name is taken: the model's own mistake.
    pub fn push(&mut self, name: String, shape: &[usize], statistic: bool) {
        let end = if statistic { &mut self.statistics_len } else { &mut self.len };
        let entry = Parameter { name: name.clone(), shape: shape.to_vec(), offset: *end, statistic };
        *end += entry.len();
        assert!(self.by_name.insert(name, self.entries.len()).is_none(), "parameter '{}' twice", entry.name);
        self.entries.push(entry);
    }
    /// All entries in the order of their making.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.entries.iter()
    }
    /// Entry of a name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.by_name.get(name).map(|&i| &self.entries[i])
    }
    /// Elements of the parameter buffer.
    pub fn len(&self) -> usize {
        self.len
    }
    /// True without parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Elements of the statistics buffer.
    pub fn statistics_len(&self) -> usize {
        self.statistics_len
    }
    /// Name of the parameter that holds element `offset` of the parameter buffer.
    pub fn name_at(&self, offset: usize) -> Option<&str> {
        self.entries.iter().find(|p| !p.statistic && p.range().contains(&offset)).map(|p| p.name.as_str())
    }
    /// View below the empty prefix.
    pub fn root(&self) -> Scope<'_> {
        Scope { parameters: self, prefix: String::new() }
    }
}

/// View of the parameters below a dotted prefix.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    parameters: &'a Parameters,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// The view below `prefix.name`.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        let prefix = if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Self { parameters: self.parameters, prefix }
    }
    /// The dotted prefix.
    pub fn name(&self) -> &str {
        &self.prefix
    }
    /// True if `prefix.name` exists.
    pub fn has(&self, name: &str) -> bool {
        self.entry(name).is_ok()
    }
    /// The entry `prefix.name`.
    ///
    /// # Errors
    /// There is none.
    pub fn entry(&self, name: &str) -> Result<&'a Parameter> {
        let full = if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        self.parameters.get(&full).ok_or_else(|| Error::Graph(format!("no parameter '{full}'")))
    }
    /// All of `prefix.name` as one run of numbers.
    ///
    /// # Errors
    /// There is none.
    pub fn vector(&self, name: &str) -> Result<Vector> {
        let p = self.entry(name)?;
        Ok(Vector { offset: p.offset, len: p.len() })
    }
    /// `prefix.name` as a matrix: the first axis makes the rows, all others the columns.
    ///
    /// # Errors
    /// There is none.
    pub fn matrix(&self, name: &str) -> Result<Matrix> {
        let p = self.entry(name)?;
        let rows = p.shape[0];
        let columns = p.len() / rows.max(1);
        Ok(Matrix { offset: p.offset, rows, columns, stride: columns })
    }
}
