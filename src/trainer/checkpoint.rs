//! Checkpoints of runs: safetensors with parameters and running statistics by their published names.
//!
//! A checkpoint holds the optimiser's moments besides, as `optimizer.exp_avg.NAME` and `optimizer.exp_avg_sq.NAME`, and the
//! trainer's state as JSON in the metadata under `training_engine`, with the scale of the loss under Lightning's key, where it is scaled.
//! Numbers are stored in the precision of the run.

use super::{
    session::{Buffer, LossScale, Room, Session},
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
/// Most that a batch can have of anything: devices count in 32 bits.
const MOST_ROOM: usize = i32::MAX as usize;

/// What the metadata says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of this layout: 2.
    pub version: u32,
    /// Configuration of the run, as text.
    pub config: String,
    /// State of the trainer; none in files of weights alone.
    pub state: Option<State>,
    /// How the loss was scaled, if it was.
    #[serde(default, rename = "MixedPrecision", skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// Room of the plans.
    #[serde(default)]
    pub room: Room,
}

/// Writes a checkpoint.
///
/// # Errors
/// [`Error::File`].
pub fn save(path: &Path, session: &Session, config: &str, state: &State) -> Result<()> {
    weights::save_safetensors(path, session, &parts(state), metadata(path, config, Some((session, state)))?)
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

/// Metadata of a file, of a run or of weights alone.
pub(super) fn metadata(path: &Path, config: &str, run: Option<(&Session, &State)>) -> Result<HashMap<String, String>> {
    let mut header = Header { version: VERSION, config: config.to_owned(), state: None, loss_scale: None, room: Room::default() };
    if let Some((session, state)) = run {
        header = Header { state: Some(state.clone()), loss_scale: session.loss_scale()?, room: session.room().clone(), ..header };
    }
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
    if let Some(room) = header.room.iter().flatten().find(|room| **room > MOST_ROOM) {
        return Err(file.fail(format!("metadata '{METADATA}': room for {room} is more than {MOST_ROOM}")));
    }
    Ok(header)
}

/// Overwrites the session's weights, the optimiser's moments, the scale of the loss, and what was gathered for the next update. If
/// anything is wrong, nothing changes.
///
/// # Errors
/// [`Error::File`] that names the tensor that is missing, extra, misshapen, or not finite; if it is no checkpoint of a run.
pub fn restore(file: &weights::File, session: &mut Session) -> Result<()> {
    let tensors = file.tensors()?;
    file.refuse_extra(session, &tensors)?;
    let header = header(file)?;
    let parts = parts(&header.state.ok_or_else(|| file.fail("holds weights alone and no state of a run"))?);
    let loss_scale = header.loss_scale;
    if loss_scale.is_some_and(|scale| !scale.is_usable()) {
        return Err(file.fail(weights::BAD_LOSS_SCALE));
    }
    file.write(session, &tensors, &parts, Missing::Error)?;
    loss_scale.map_or(Ok(()), |scale| session.set_loss_scale(&scale))
}
