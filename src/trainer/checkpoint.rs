//! Files of weights and of whole runs: safetensors, parameters and running statistics by their published names.
//!
//! A checkpoint holds the optimiser's moments besides, as `optimizer.exp_avg.NAME` and `optimizer.exp_avg_sq.NAME`, and the
//! trainer's state as JSON in the metadata under `training_engine`. Numbers are stored in the precision of the run.

use super::{
    files::write_atomically,
    session::{Buffer, Session},
    state::State,
};
use crate::{
    error::{Error, Result},
    graph::{Parameter, Scalar},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

/// Extension of every file.
pub const EXTENSION: &str = "safetensors";
/// Key of the metadata.
const METADATA: &str = "training_engine";
/// Version of the metadata.
const VERSION: u32 = 2;
/// Prefixes of the optimiser's tensors.
const MOMENTS: [(&str, Buffer); 2] = [("optimizer.exp_avg.", Buffer::FirstMoments), ("optimizer.exp_avg_sq.", Buffer::SecondMoments)];
/// Counter of PyTorch's batch norms, which serves nothing here.
const BATCH_COUNTER: &str = ".num_batches_tracked";

/// What the metadata says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of this layout: 2.
    pub version: u32,
    /// Configuration of the run, as text.
    pub config: String,
    /// State of the trainer; none in files of weights alone.
    pub state: Option<State>,
}

/// Writes weights, and with a state the moments too.
///
/// # Errors
/// [`Error::File`].
pub fn save(path: &Path, session: &Session, config: &str, state: Option<&State>) -> Result<()> {
    let header = Header { version: VERSION, config: config.to_owned(), state: state.cloned() };
    let header = serde_json::to_string(&header).map_err(|e| Error::file(path, e))?;

    let scalar = session.batch_options(false).scalar;
    let mut blocks: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |prefix: &str, buffer: Buffer| {
        let (values, statistic) = (session.read(buffer), buffer == Buffer::Statistics);
        for p in session.parameters().iter().filter(|p| p.statistic == statistic) {
            let (dtype, bytes) = encode(&values[p.range()], scalar);
            blocks.push((format!("{prefix}{}", p.name), dtype, p.shape.clone(), bytes));
        }
    };
    add("", Buffer::Parameters);
    add("", Buffer::Statistics);
    if state.is_some() {
        MOMENTS.iter().for_each(|(prefix, buffer)| add(prefix, *buffer));
    }
    let views = blocks.iter().map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)));
    let views: std::result::Result<Vec<_>, safetensors::SafeTensorError> = views.collect();
    let content = views.and_then(|views| safetensors::serialize(views, Some(HashMap::from([(METADATA.to_owned(), header)]))));
    write_atomically(path, &content.map_err(|e| Error::file(path, e))?)
}

fn encode(values: &[f64], scalar: Scalar) -> (Dtype, Vec<u8>) {
    match scalar {
        Scalar::F32 => (Dtype::F32, values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect()),
        Scalar::F64 => (Dtype::F64, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
    }
}

/// A file that was read and found to be whole.
pub struct File {
    path: String,
    content: Vec<u8>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let content = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        Ok(Self { path: path.display().to_string(), content })
    }

    fn fail(&self, reason: impl std::fmt::Display) -> Error {
        Error::file(&self.path, reason)
    }

    /// The trainer's state and the configuration of its run.
    ///
    /// # Errors
    /// [`Error::File`] if it is no checkpoint, or of another version.
    pub fn header(&self) -> Result<Header> {
        let (_, metadata) = SafeTensors::read_metadata(&self.content).map_err(|e| self.fail(format!("is no safetensors file: {e}")))?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get(METADATA));
        let text = text.ok_or_else(|| self.fail(format!("is no checkpoint of a run: its metadata has no '{METADATA}'")))?;
        let header: Header = serde_json::from_str(text).map_err(|e| self.fail(format!("metadata '{METADATA}': {e}")))?;
        if header.version != VERSION {
            return Err(self.fail(format!("metadata '{METADATA}': version {} is not {VERSION}", header.version)));
        }
        Ok(header)
    }

    /// Overwrites the session's weights, and with `moments` the optimiser's moments too. If anything is wrong, nothing changes.
    ///
    /// # Errors
    /// [`Error::File`] that names the tensor that is missing, too much, misshapen, or not finite.
    pub fn restore(&self, session: &mut Session, moments: bool) -> Result<()> {
        let tensors = SafeTensors::deserialize(&self.content).map_err(|e| self.fail(format!("is no safetensors file: {e}")))?;
        let known: BTreeSet<&str> = session.parameters().iter().map(|p| p.name.as_str()).collect();
        let foreign = |name: &&str| {
            let of_optimizer = MOMENTS.iter().any(|(prefix, _)| name.strip_prefix(prefix).is_some_and(|rest| known.contains(rest)));
            !known.contains(*name) && !of_optimizer && !name.ends_with(BATCH_COUNTER)
        };
        if let Some(name) = tensors.names().into_iter().filter(foreign).min() {
            return Err(self.fail(format!("tensor '{name}' is none of this model")));
        }
        let mut values = vec![
            (Buffer::Parameters, "", vec![0.0; session.parameters().len()]),
            (Buffer::Statistics, "", vec![0.0; session.parameters().statistics_len()]),
        ];
        if moments {
            values.extend(MOMENTS.iter().map(|(prefix, buffer)| (*buffer, *prefix, vec![0.0; session.parameters().len()])));
        }
        for (buffer, prefix, values) in &mut values {
            for p in session.parameters().iter().filter(|p| p.statistic == (*buffer == Buffer::Statistics)) {
                self.decode(&tensors, &format!("{prefix}{}", p.name), p, &mut values[p.range()])?;
            }
        }
        for (buffer, _, values) in &values {
            session.write(*buffer, values)?;
        }
        session.discard();
        Ok(())
    }

    fn decode(&self, tensors: &SafeTensors, name: &str, parameter: &Parameter, into: &mut [f64]) -> Result<()> {
        let tensor = tensors.tensor(name).map_err(|_| self.fail(format!("tensor '{name}' is missing")))?;
        if tensor.shape() != parameter.shape {
            return Err(self.fail(format!("tensor '{name}' has shape {:?}, not {:?}", tensor.shape(), parameter.shape)));
        }
        let data = tensor.data();
        match tensor.dtype() {
            Dtype::F32 => read_into(into, data, |b: [u8; 4]| f64::from(f32::from_le_bytes(b))),
            Dtype::F64 => read_into(into, data, f64::from_le_bytes),
            Dtype::F16 => read_into(into, data, |b| half::f16::from_le_bytes(b).to_f64()),
            Dtype::BF16 => read_into(into, data, |b| half::bf16::from_le_bytes(b).to_f64()),
            other => return Err(self.fail(format!("tensor '{name}' has elements of type {other:?}, not floating point"))),
        }
        if into.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(self.fail(format!("tensor '{name}' has a value that is not finite"))) }
    }
}

fn read_into<const N: usize>(into: &mut [f64], data: &[u8], read: impl Fn([u8; N]) -> f64) {
    for (value, bytes) in into.iter_mut().zip(data.as_chunks::<N>().0) {
        *value = read(*bytes);
    }
}
