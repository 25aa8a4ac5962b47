//! Files of `torch.save`: the archives of today and the plain pickles of before PyTorch 1.6, of which weights and the state of a
//! Lightning run are read.

use super::{
    LOSS_SCALE,
    tensor::{Element, Tensor},
    unpickle::{Object, Pickle, Value},
    zip::Archive,
};
use crate::trainer::{module::ModuleState, session::LossScale, state::State};
use std::collections::HashMap;

/// First bytes of a pickle of protocol 2.
const PICKLE: &[u8] = b"\x80\x02";
/// First value of a plain pickle, as it is written: a number of 10 bytes.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// What the structure of a small file may use.
const LEAST_LIMIT: usize = 64 * 1024;

/// A file in memory, of which nothing but the pickle's structure is copied.
pub struct Checkpoint<'a> {
    pickle: Pickle<'a>,
    storages: HashMap<&'a str, &'a [u8]>,
}

/// The moments of one parameter.
pub struct Moments<'a> {
    /// First moment.
    pub first: Tensor<'a>,
    /// Second moment.
    pub second: Tensor<'a>,
}

impl<'a> Checkpoint<'a> {
    /// True for what begins as `torch.save` does.
    pub fn is(content: &[u8]) -> bool {
        Archive::is(content) || content.starts_with(PICKLE)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong.
    pub fn read(content: &'a [u8]) -> Result<Self, String> {
        // With the content and the list of tensors that is at most four times the content.
        let limit = LEAST_LIMIT + content.len() / 2 * 5;
        if Archive::is(content) { Self::read_archive(content, limit) } else { Self::read_plain(content, limit) }
    }

    fn read_archive(content: &'a [u8], limit: usize) -> Result<Self, String> {
        let archive = Archive::read(content)?;
        let root = archive.names().find_map(|name| name.strip_suffix("/data.pkl")).ok_or("the archive has no 'data.pkl'")?;
        if archive.get(&format!("{root}/byteorder")).is_some_and(|order| order != b"little") {
            return Err("it was written on a machine whose byte order is not little-endian".into());
        }
        let pickle = Pickle::read(archive.get(&format!("{root}/data.pkl")).unwrap_or_default(), limit)?;
        let folder = format!("{root}/data/");
        let storages = archive.names().filter_map(|name| Some((name.strip_prefix(&folder)?, archive.get(name)?))).collect();
        Ok(Self { pickle, storages })
    }

    /// Five pickles (mark, version, machine, object, list of storages), then each storage: its number of elements and they.
    fn read_plain(content: &'a [u8], limit: usize) -> Result<Self, String> {
        let cut = "it is cut off";
        let mut rest = content.strip_prefix(MAGIC).ok_or("it is a pickle, but not one of torch.save")?;
        let mut next = || {
            let pickle = Pickle::read(rest, limit)?;
            rest = &rest[pickle.length..];
            Ok::<_, String>(pickle)
        };
        let (_, machine, pickle, keys) = (next()?, next()?, next()?, next()?);
        if machine.get(machine.root, "little_endian") == Some(Value::Bool(false)) {
            return Err("it was written on a machine whose byte order is not little-endian".into());
        }
        let sizes: HashMap<&str, usize> = (0..pickle.objects.len())
            .filter_map(|place| persistent(&pickle, Value::Object(place as u32)))
            .map(|(element, key)| (key, element.size()))
            .collect();
        let mut storages = HashMap::new();
        for key in keys.items(keys.root).ok_or("it has no list of storages")? {
            let key = keys.text(*key).ok_or("a storage has no name")?;
            let (count, numbers) = rest.split_first_chunk::<8>().ok_or(cut)?;
            let bytes = usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(*sizes.get(key)?));
            let (data, after) = bytes.and_then(|bytes| numbers.split_at_checked(bytes)).ok_or(cut)?;
            storages.insert(key, data);
            rest = after;
        }
        Ok(Self { pickle, storages })
    }

    /// Tensors by name: those of `state_dict`, or of the file itself where that is a dictionary of tensors.
    ///
    /// # Errors
    /// There is no such dictionary, or a tensor's description is wrong.
    pub fn tensors(&self) -> Result<Vec<(&'a str, Tensor<'a>)>, String> {
        let root = self.pickle.root;
        let dict = self.pickle.get(root, "state_dict").unwrap_or(root);
        let entries = self.pickle.dict(dict).ok_or("it holds no dictionary of tensors")?;
        let mut tensors = Vec::new();
        for (key, value) in entries {
            if let Some(name) = self.pickle.text(*key)
                && let Some(tensor) = self.tensor(*value).map_err(|reason| format!("tensor '{name}' {reason}"))?
            {
                tensors.push((name, tensor));
            }
        }
        Ok(tensors)
    }

    /// The tensor that a value is, if it is one.
    fn tensor(&self, value: Value) -> Result<Option<Tensor<'a>>, String> {
        let Some(((module, function), arguments)) = self.pickle.call(value) else { return Ok(None) };
        let (function, arguments) = match ((module, function), arguments) {
            // A parameter is a call with a tensor.
            (("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), [tensor, ..]) => {
                let Some(((_, function), arguments)) = self.pickle.call(*tensor) else { return Ok(None) };
                (function, arguments)
            }
            _ => (function, arguments),
        };
        if !matches!(function, "_rebuild_tensor_v2" | "_rebuild_tensor") {
            return Ok(None);
        }
        let [storage, Value::Int(offset), shape, strides, ..] = arguments else { return Err("is described in an unknown way".into()) };
        let (element, key) = persistent(&self.pickle, *storage).ok_or("has a storage of an unknown kind")?;
        let sizes = |value: Value| {
            let items = self.pickle.items(value)?.iter();
            items.map(|item| if let Value::Int(size) = item { usize::try_from(*size).ok() } else { None }).collect::<Option<Vec<_>>>()
        };
        let (Some(shape), Some(strides), Ok(offset)) = (sizes(*shape), sizes(*strides), usize::try_from(*offset)) else {
            return Err("has a shape or strides that are none".into());
        };
        if shape.len() != strides.len() {
            return Err(format!("has {} axes and {} strides", shape.len(), strides.len()));
        }
        let data = self.storages.get(key).copied().ok_or_else(|| format!("has no storage: '{key}' is missing"))?;
        Ok(Some(Tensor { element, data, offset, shape, strides }))
    }

    /// An entry of a Lightning checkpoint.
    fn path(&self, keys: &[&str]) -> Option<Value> {
        keys.iter().try_fold(self.pickle.root, |value, key| self.pickle.get(value, key))
    }

    fn count(&self, keys: &[&str]) -> Option<u64> {
        if let Value::Int(count) = self.path(keys)? { u64::try_from(count).ok() } else { None }
    }

    /// How far the Lightning run is, if this is a checkpoint of one.
    pub fn state(&self) -> Option<State> {
        let within = |keys: &[&str]| self.count(&[&["loops", "fit_loop"], keys].concat());
        let (last_epoch, step) = (self.count(&["epoch"])?, self.count(&["global_step"])?);
        self.path(&["pytorch-lightning_version"])?;
        let batches = "epoch_loop.batch_progress";
        let within_epoch = self.path(&["loops", "fit_loop", batches, "is_last_batch"]) == Some(Value::Bool(false));
        // Between its last batch and its end an epoch is begun, yet not counted as processed.
        let epochs = within(&["epoch_progress", "current", if within_epoch { "processed" } else { "ready" }]).unwrap_or(last_epoch + 1);
        let batch = if within_epoch { within(&[batches, "current", "processed"])? } else { 0 };
        Some(State {
            epoch: usize::try_from(epochs).ok()?,
            batch: usize::try_from(batch).ok()?,
            batches: within(&[batches, "total", "processed"]).unwrap_or(step),
            step,
            stepped: step,
            // Steps count that the scaling of the loss has skipped; the optimiser does not know of them.
            module: ModuleState { updates: self.updates().unwrap_or(step), schedule: self.schedule().unwrap_or(epochs) },
            ..State::default()
        })
    }

    /// How the loss was scaled in a Lightning run, if it was; none if that is not understood.
    pub fn loss_scale(&self) -> Option<Option<LossScale>> {
        let Some(state) = self.path(&[LOSS_SCALE]) else { return Some(None) };
        let real = |key: &str| match self.pickle.get(state, key)? {
            Value::Float(x) => Some(x),
            Value::Int(n) => Some(n as f64),
            _ => None,
        };
        let count = |key| u32::try_from(self.count(&[LOSS_SCALE, key])?).ok();
        let scale = LossScale {
            scale: real("scale")?,
            growth_factor: real("growth_factor")?,
            backoff_factor: real("backoff_factor")?,
            growth_interval: count("growth_interval")?,
            growth_tracker: count("_growth_tracker")?,
        };
        scale.is_usable().then_some(Some(scale))
    }

    /// Steps that the one schedule of a Lightning run has taken, of epochs or of batches.
    fn schedule(&self) -> Option<u64> {
        let [schedule] = self.pickle.items(self.path(&["lr_schedulers"])?)? else { return None };
        if let Value::Int(steps) = self.pickle.get(*schedule, "last_epoch")? { u64::try_from(steps).ok() } else { None }
    }

    /// Updates that the one optimiser of a Lightning run has applied.
    fn updates(&self) -> Option<u64> {
        let [optimizer] = self.pickle.items(self.path(&["optimizer_states"])?)? else { return None };
        let (_, entry) = self.pickle.dict(self.pickle.get(*optimizer, "state")?)?.first()?;
        let step = self.tensor(self.pickle.get(*entry, "step")?).ok()??;
        step.check(&[]).ok()?;
        step.values().next().filter(|step| *step >= 0.0).map(|step| step as u64)
    }

    /// Adam's moments of the one optimiser of a Lightning checkpoint, for the names that its groups hold in this order; none
    /// of a parameter that has not been trained.
    ///
    /// # Errors
    /// Why there are none.
    pub fn moments(&self, names: &[&str]) -> Result<Vec<Option<Moments<'a>>>, String> {
        let optimizers = self.path(&["optimizer_states"]).and_then(|states| self.pickle.items(states)).unwrap_or_default();
        let [optimizer] = optimizers else { return Err(format!("it has the states of {} optimisers, not of one", optimizers.len())) };
        let groups = self.pickle.get(*optimizer, "param_groups").and_then(|groups| self.pickle.items(groups)).unwrap_or_default();
        let members = |group: &Value| self.pickle.get(*group, "params").and_then(|ids| self.pickle.items(ids)).unwrap_or_default();
        let ids = groups.iter().map(|group| members(group).len()).sum::<usize>();
        if ids != names.len() {
            return Err(format!("its optimiser has {ids} parameters, this model has {}", names.len()));
        }
        let state = self.pickle.get(*optimizer, "state").and_then(|state| self.pickle.dict(state)).unwrap_or_default();
        let state: HashMap<i64, Value> =
            state.iter().filter_map(|(id, entry)| if let Value::Int(id) = id { Some((*id, *entry)) } else { None }).collect();
        let ids = groups.iter().flat_map(members);
        let moments = ids.zip(names).map(|(id, name)| {
            let Value::Int(id) = id else { return Ok(None) };
            let Some(entry) = state.get(id) else { return Ok(None) };
            let moment = |key: &str| {
                let tensor = self.pickle.get(*entry, key).map(|value| self.tensor(value)).transpose()?.flatten();
                tensor.ok_or_else(|| format!("its optimiser has no '{key}' of '{name}'"))
            };
            Ok(Some(Moments { first: moment("exp_avg")?, second: moment("exp_avg_sq")? }))
        });
        moments.collect()
    }
}

/// Kind of the numbers and name of a storage: `('storage', class, name, device, count, ...)`.
fn persistent<'a>(pickle: &Pickle<'a>, value: Value) -> Option<(Element, &'a str)> {
    let Some(Object::Persistent(identification)) = pickle.object(value) else { return None };
    let [mark, class, key, ..] = pickle.items(*identification)? else { return None };
    let (_, class) = pickle.global(*class)?;
    (pickle.text(*mark) == Some("storage")).then_some((Element::of_storage(class)?, pickle.text(*key)?))
}
