//! Files of weights, by the parameters' published names: safetensors, and the `.ckpt` of PyTorch and Lightning.
//!
//! - `zip`, `unpickle`, `torch`: what `torch.save` wrote, read without executing any of it.
//! - `tensor`: one tensor of a file. `pickle`, `lightning`: a `.ckpt` that Lightning reads.
//! - this file: from a file to the session and back, with every tensor checked first.

mod lightning;
mod pickle;
mod tensor;
mod torch;
mod unpickle;
mod zip;

use super::{
    checkpoint,
    session::{Buffer, Session},
    state::State,
};
use crate::{
    config::{Config, module::ModuleKind},
    error::{Error, Result},
    files::write_atomically,
    graph::{Parameter, Scalar},
    optim::groups,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::Path,
};
use tensor::{Element, Tensor};

/// Counter of PyTorch's batch norms, which serves nothing here.
const BATCH_COUNTER: &str = "num_batches_tracked";
/// What Lightning puts in front of every name: the network is the module's attribute `model`.
const LIGHTNING_PREFIX: &str = "model.";
/// Lightning's key of the state of its plugin for mixed precision, and what is wrong where it is not what it should be.
pub(super) const LOSS_SCALE: &str = "MixedPrecision";
pub(super) const BAD_LOSS_SCALE: &str = "its 'MixedPrecision' is no state of a scaled loss";
/// Numbers that are written at a time.
const PIECE: usize = 4096;
/// Prefixes of the optimiser's tensors.
pub(super) const MOMENTS: [(&str, Buffer); 2] =
    [("optimizer.exp_avg.", Buffer::FirstMoments), ("optimizer.exp_avg_sq.", Buffer::SecondMoments)];
/// Prefixes of what was gathered since the last update, where a run was left amid an accumulation.
pub(super) const GATHERED: [(&str, Buffer); 2] = [("gathered.gradient.", Buffer::Gradients), ("gathered.", Buffer::PendingStatistics)];

/// How names of a file become names of the model, and what may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Taken off the names that begin so. None takes off `model.`, the published module's name of its network.
    pub strip_prefix: Option<String>,
    /// Put in front of these names afterwards.
    pub add_prefix: String,
    /// A tensor that is missing or extra is an error. Otherwise it is reported, and what is missing stays as it was.
    pub strict: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { strip_prefix: None, add_prefix: String::new(), strict: true }
    }
}

/// What was not the same in a file and the model; both empty after a strict loading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Parameters and statistics of the model that the file does not have.
    pub missing: Vec<String>,
    /// Tensors of the file that the model does not have.
    pub extra: Vec<String>,
}

/// How weights are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveOptions {
    /// Put in front of names. None puts `model.` there in a `.ckpt`, as the published model has it, and nothing elsewhere.
    pub prefix: Option<String>,
    /// Write the optimiser's moments to a `.ckpt` as well, so that Lightning goes on with them.
    pub optimizer: bool,
}

/// Writes weights: a Lightning checkpoint to a name that ends in `.ckpt`, else safetensors.
///
/// # Errors
/// [`Error::File`].
pub fn save(path: &Path, session: &Session, config: &Config, state: &State, options: &SaveOptions) -> Result<()> {
    if options.optimizer && config.objectives.module != ModuleKind::Pluto {
        return Err(Error::Argument("the optimiser's state can be written for PLUTO's trainer alone".into()));
    }
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("ckpt")) {
        let prefix = options.prefix.as_deref().unwrap_or(LIGHTNING_PREFIX);
        let content = lightning::write(session, config, state, prefix, options.optimizer);
        return write_atomically(path, &content.map_err(|e| Error::file(path, e))?);
    }
    if options.optimizer {
        return Err(Error::Argument("the optimiser's state goes to a '.ckpt' alone".into()));
    }
    let prefix = options.prefix.as_deref().unwrap_or_default();
    let metadata = checkpoint::metadata(path, &config.to_text(), None)?;
    save_safetensors(path, session, &[(prefix, Buffer::Parameters), (prefix, Buffer::Statistics)], metadata)
}

/// Writes buffers as safetensors, each with a prefix of its names.
pub(super) fn save_safetensors(path: &Path, session: &Session, parts: &[(&str, Buffer)], metadata: HashMap<String, String>) -> Result<()> {
    let scalar = session.batch_options(false).scalar;
    let mut blocks: Vec<(String, Dtype, &[usize], Vec<u8>)> = Vec::new();
    for (prefix, buffer) in parts {
        let values = session.read(*buffer)?;
        for p in members(session, *buffer) {
            let mut bytes = Vec::new();
            encode(&values[p.range()], scalar, &mut bytes);
            let dtype = match scalar {
                Scalar::F32 => Dtype::F32,
                Scalar::F64 => Dtype::F64,
            };
            blocks.push((format!("{prefix}{}", p.name), dtype, &p.shape, bytes));
        }
    }
    let views = blocks.iter().map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.to_vec(), bytes)?)));
    let views: std::result::Result<Vec<_>, safetensors::SafeTensorError> = views.collect();
    let content = views.and_then(|views| safetensors::serialize(views, Some(metadata)));
    write_atomically(path, &content.map_err(|e| Error::file(path, e))?)
}

/// Appends numbers in the precision of the run.
fn encode(values: &[f64], scalar: Scalar, out: &mut Vec<u8>) {
    match scalar {
        Scalar::F32 => out.extend(values.iter().flat_map(|x| (*x as f32).to_le_bytes())),
        Scalar::F64 => out.extend(values.iter().flat_map(|x| x.to_le_bytes())),
    }
}

/// Parameters that lie in a buffer.
fn members(session: &Session, buffer: Buffer) -> impl Iterator<Item = &Parameter> {
    let statistic = matches!(buffer, Buffer::Statistics | Buffer::PendingStatistics);
    session.parameters().iter().filter(move |p| p.statistic == statistic)
}

/// A file in memory, once.
pub struct File {
    path: String,
    content: Vec<u8>,
}

/// Tensors of a file by name.
type Tensors<'a> = BTreeMap<Cow<'a, str>, Tensor<'a>>;

/// What becomes of parameters that a file does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// They are an error.
    Error,
    /// They stay.
    Stay,
    /// They become zero.
    Zero,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let content = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        Ok(Self::new(path.display().to_string(), content))
    }

    /// A file whose content is there already; the path is for errors.
    pub fn new(path: String, content: Vec<u8>) -> Self {
        Self { path, content }
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(super) fn fail(&self, reason: impl std::fmt::Display) -> Error {
        Error::file(&self.path, reason)
    }

    /// All tensors, as the file names them.
    pub(super) fn tensors(&self) -> Result<Tensors<'_>> {
        if torch::Checkpoint::is(&self.content) {
            let tensors = self.torch()?.tensors().map_err(|e| self.fail(e))?;
            return Ok(tensors.into_iter().map(|(name, tensor)| (Cow::Borrowed(name), tensor)).collect());
        }
        let file = SafeTensors::deserialize(&self.content)
            .map_err(|e| self.fail(format!("is neither a safetensors file ({e}) nor one of PyTorch")))?;
        let tensor = |view: &TensorView<'_>, data| Tensor::contiguous(Element::of(view.dtype()), data, view.shape().to_vec());
        Ok(file.iter().map(|(name, view)| (Cow::Owned(name.to_owned()), tensor(&view, self.data(&view)))).collect())
    }

    /// The part of the content that a view shows, for as long as the content lives.
    fn data(&self, view: &TensorView<'_>) -> &[u8] {
        let start = view.data().as_ptr() as usize - self.content.as_ptr() as usize;
        &self.content[start..start + view.data().len()]
    }

    fn torch(&self) -> Result<torch::Checkpoint<'_>> {
        torch::Checkpoint::read(&self.content).map_err(|e| self.fail(e))
    }

    /// Overwrites the session's weights. If anything is wrong, nothing changes.
    ///
    /// # Errors
    /// [`Error::File`] that names the tensor that is missing, extra, misshapen, or not finite.
    pub fn load(&self, session: &mut Session, options: &LoadOptions) -> Result<LoadReport> {
        let tensors = self.renamed(options)?;
        if options.strict {
            self.refuse_extra(session, &tensors)?;
        } else if !tensors.keys().any(|name| session.parameters().get(name).is_some()) {
            return Err(self.fail("has no tensor of this model"));
        }
        let missing = if options.strict { Missing::Error } else { Missing::Stay };
        let missing = self.write(session, &tensors, &[("", Buffer::Parameters), ("", Buffer::Statistics)], missing)?;
        Ok(LoadReport { missing, extra: extra(session, &tensors).map(str::to_owned).collect() })
    }

    /// Fails if there is a tensor that the model does not have.
    pub(super) fn refuse_extra(&self, session: &Session, tensors: &Tensors) -> Result<()> {
        let mut extra = extra(session, tensors);
        match extra.next() {
            Some(name) => Err(self.fail(format!("tensor '{name}' is none of this model{}", more(extra.count())))),
            None => Ok(()),
        }
    }

    /// Tensors under the model's names.
    fn renamed(&self, options: &LoadOptions) -> Result<Tensors<'_>> {
        let tensors = self.tensors()?;
        let lightning = || tensors.keys().any(|name| name.starts_with(LIGHTNING_PREFIX)).then_some(LIGHTNING_PREFIX);
        let strip = options.strip_prefix.as_deref().or_else(lightning).unwrap_or_default();
        if strip.is_empty() && options.add_prefix.is_empty() {
            return Ok(tensors);
        }
        let count = tensors.len();
        let rename = |name: Cow<'_, str>| match name.strip_prefix(strip) {
            Some(rest) => Cow::Owned(format!("{}{rest}", options.add_prefix)),
            None => Cow::Owned(name.into_owned()),
        };
        let renamed: Tensors = tensors.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect();
        if renamed.len() == count { Ok(renamed) } else { Err(self.fail("has tensors that would get the same name")) }
    }

    /// Overwrites buffers with the tensors of prefixed names, once every one has been found right; gives the missing ones.
    pub(super) fn write(
        &self,
        session: &mut Session,
        tensors: &Tensors,
        parts: &[(&str, Buffer)],
        if_missing: Missing,
    ) -> Result<Vec<String>> {
        let get = |prefix: &str, p: &Parameter| match prefix {
            "" => tensors.get(p.name.as_str()),
            _ => tensors.get(format!("{prefix}{}", p.name).as_str()),
        };
        let mut missing = Vec::new();
        for (prefix, buffer) in parts {
            for p in members(session, *buffer) {
                match get(prefix, p) {
                    Some(tensor) => {
                        // A gathered gradient that is not finite is dropped by its update.
                        let checked = if *buffer == Buffer::Gradients { tensor.check_layout(&p.shape) } else { tensor.check(&p.shape) };
                        checked.map_err(|reason| self.fail(format!("tensor '{prefix}{}' {reason}", p.name)))?;
                    }
                    None => missing.push(format!("{prefix}{}", p.name)),
                }
            }
        }
        if if_missing == Missing::Error
            && let Some(name) = missing.first()
        {
            return Err(self.fail(format!("tensor '{name}' is missing{}", more(missing.len() - 1))));
        }
        // Sets gradients and pending statistics back, which must come before what was gathered.
        session.discard()?;
        // In pieces: no copy of a whole buffer.
        let mut piece = Vec::with_capacity(PIECE);
        let parameters: Vec<(Parameter, &str, Buffer)> =
            parts.iter().flat_map(|(prefix, buffer)| members(session, *buffer).map(|p| (p.clone(), *prefix, *buffer))).collect();
        for (p, prefix, buffer) in &parameters {
            // Moments or a gathered gradient would move a parameter that stays.
            let moves = matches!(buffer, Buffer::FirstMoments | Buffer::SecondMoments | Buffer::Gradients);
            let still = moves && session.stays(&p.name);
            let mut values: Box<dyn Iterator<Item = f64>> = match get(prefix, p) {
                Some(_) if still => Box::new(std::iter::repeat_n(0.0, p.len())),
                Some(tensor) => Box::new(tensor.values()),
                None if if_missing == Missing::Zero => Box::new(std::iter::repeat_n(0.0, p.len())),
                None => continue,
            };
            for start in p.range().step_by(PIECE) {
                piece.clear();
                piece.extend(values.by_ref().take(PIECE));
                session.write_part(*buffer, start, &piece)?;
            }
        }
        if !parts.iter().any(|(_, buffer)| *buffer == Buffer::PendingStatistics) {
            // From the statistics that have just been written.
            session.discard()?;
        }
        Ok(missing)
    }

    /// How far the Lightning run is that wrote this file; none for every other file.
    ///
    /// # Errors
    /// [`Error::File`] if it is a file of PyTorch, but broken or without such a state.
    pub fn lightning_state(&self) -> Result<Option<State>> {
        if !torch::Checkpoint::is(&self.content) {
            return Ok(None);
        }
        let state = self.torch()?.state();
        state.map(Some).ok_or_else(|| self.fail("holds weights alone and no state of a run; start from them with 'pretrained.path'"))
    }

    /// Overwrites the session's weights with those of a Lightning checkpoint, the scale of the loss where the file has one, and the
    /// optimiser's moments where it has them for this model and this is `pluto`'s trainer; says why not.
    ///
    /// # Errors
    /// See [`File::load`].
    pub fn restore_lightning(&self, session: &mut Session, pluto: bool) -> Result<std::result::Result<(), String>> {
        let torch = self.torch()?;
        let loss_scale = torch.loss_scale().ok_or_else(|| self.fail(BAD_LOSS_SCALE))?;
        self.load(session, &LoadOptions::default())?;
        loss_scale.map_or(Ok(()), |scale| session.set_loss_scale(&scale))?;
        let names = lightning::optimizer_order(session);
        let moments = match if pluto { torch.moments(&names) } else { Err("it is that of PLUTO's trainer".into()) } {
            Ok(moments) => moments,
            Err(reason) => {
                self.write(session, &Tensors::new(), &MOMENTS, Missing::Zero)?;
                return Ok(Err(reason));
            }
        };
        let mut tensors = Tensors::new();
        for (name, moments) in names.iter().zip(moments) {
            if let Some(moments) = moments {
                tensors.insert(format!("{}{name}", MOMENTS[0].0).into(), moments.first);
                tensors.insert(format!("{}{name}", MOMENTS[1].0).into(), moments.second);
            }
        }
        Ok(self.write(session, &tensors, &MOMENTS, Missing::Zero).map(drop).map_err(|e| e.to_string()))
    }
}

/// Names that the model does not have; what serves nothing here is no matter.
fn extra<'t>(session: &'t Session, tensors: &'t Tensors) -> impl Iterator<Item = &'t str> {
    let known = |name: &str| session.parameters().get(name).is_some();
    tensors.keys().map(|name| &**name).filter(move |name| {
        let of_optimizer = MOMENTS.iter().chain(&GATHERED).any(|(prefix, _)| name.strip_prefix(prefix).is_some_and(known));
        !known(name) && !of_optimizer && name.rsplit('.').next() != Some(BATCH_COUNTER)
    })
}

/// How many others there are, in words.
fn more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" (and {count} more)") }
}
