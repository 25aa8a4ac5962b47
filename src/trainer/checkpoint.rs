//! Checkpoints of runs: safetensors with parameters and running statistics by their published names.
//!
//! A checkpoint holds the optimiser's moments besides, as `optimizer.exp_avg.NAME` and `optimizer.exp_avg_sq.NAME`, and the
//! trainer's state as JSON in the metadata under `training_engine`. Numbers are stored in the precision of the run.

use super::{
    session::{Buffer, Session},
    state::State,
    weights::{self, GATHERED, MOMENTS, Missing},
};
use crate::error::{Error, Result};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, path::Path};

/// Extension of every file.
pub const EXTENSION: &str = "safetensors";
/// Key of the metadata.
const METADATA: &str = "training_engine";
/// Version of the metadata.
const VERSION: u32 = 2;

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

/// Writes a checkpoint.
///
/// # Errors
/// [`Error::File`].
pub fn save(path: &Path, session: &Session, config: &str, state: &State) -> Result<()> {
    weights::save_safetensors(path, session, &parts(state), metadata(path, config, Some(state))?)
}

/// Prefixes and buffers of a run's file.
fn parts(state: &State) -> Vec<(&'static str, Buffer)> {
    let mut parts = vec![("", Buffer::Parameters), ("", Buffer::Statistics)];
    parts.extend(MOMENTS);
    if state.gathered > 0 {
        parts.extend(GATHERED);
    }
    parts
}

/// Metadata of a file.
pub(super) fn metadata(path: &Path, config: &str, state: Option<&State>) -> Result<HashMap<String, String>> {
    let header = Header { version: VERSION, config: config.to_owned(), state: state.cloned() };
    let header = serde_json::to_string(&header).map_err(|e| Error::file(path, e))?;
    Ok(HashMap::from([(METADATA.to_owned(), header)]))
}

/// The trainer's state and the configuration of its run.
///
/// # Errors
/// [`Error::File`] if the file is no checkpoint, or of another version.
pub fn header(file: &weights::File) -> Result<Header> {
    let (_, metadata) = SafeTensors::read_metadata(file.content()).map_err(|e| file.fail(format!("is no safetensors file: {e}")))?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(METADATA));
    let text = text.ok_or_else(|| file.fail(format!("is no checkpoint of a run: its metadata has no '{METADATA}'")))?;
    let header: Header = serde_json::from_str(text).map_err(|e| file.fail(format!("metadata '{METADATA}': {e}")))?;
    if header.version != VERSION {
        return Err(file.fail(format!("metadata '{METADATA}': version {} is not {VERSION}", header.version)));
    }
    Ok(header)
}

/// Overwrites the session's weights, the optimiser's moments, and what was gathered for its next update. If anything is wrong,
/// nothing changes.
///
/// # Errors
/// [`Error::File`] that names the tensor that is missing, extra, misshapen, or not finite; if it is no checkpoint of a run.
pub fn restore(file: &weights::File, session: &mut Session) -> Result<()> {
    let tensors = file.tensors()?;
    file.refuse_extra(session, &tensors)?;
    let parts = parts(&header(file)?.state.ok_or_else(|| file.fail("holds weights alone and no state of a run"))?);
    file.write(session, &tensors, &parts, Missing::Error).map(drop)
}
