//! A checkpoint as PyTorch Lightning 2 writes it, of the published training module.

use super::{
    BATCH_COUNTER, LOSS_SCALE, MOMENTS, encode,
    groups::decays,
    pickle::{Pickler, Storage},
    zip::Writer,
};
use crate::{
    config::Config,
    optim::{self, schedule},
    trainer::{
        session::{Buffer, LossScale, Session},
        state::State,
    },
};
use std::ops::Range;

/// The release whose layout this is.
const LIGHTNING_VERSION: &str = "2.0.1";
/// Folder of everything in the archive.
const ROOT: &str = "archive";
/// Key of the configuration.
const CONFIG: &str = "training_engine_config";

/// Parameters in the order of the published optimiser: the group that decays, then the other, each sorted by name.
pub fn optimizer_order(session: &Session) -> Vec<&str> {
    let group = |decayed: bool| {
        let members = session.parameters().iter().filter(move |p| !p.statistic && decays(p) == decayed);
        let mut names: Vec<&str> = members.map(|p| p.name.as_str()).collect();
        names.sort_unstable();
        names
    };
    [group(true), group(false)].concat()
}

/// Data of one member of the archive.
enum Data {
    /// Numbers of a buffer.
    Part(Buffer, Range<usize>),
    /// One whole number.
    Int(u64),
    /// One number in single precision, as Adam counts its steps.
    Count(u64),
}

/// What a checkpoint is made of.
struct Contents<'a> {
    session: &'a Session,
    config: &'a Config,
    state: &'a State,
    storages: Vec<Data>,
}

/// The file's bytes. Names get the prefix; with `moments` the optimiser's state is there as well.
///
/// # Errors
/// What cannot be written.
pub fn write(session: &Session, config: &Config, state: &State, prefix: &str, moments: bool) -> Result<Vec<u8>, String> {
    let mut contents = Contents { session, config, state, storages: Vec::new() };
    let loss_scale = session.loss_scale().map_err(|e| e.to_string())?;
    let mut p = Pickler::new();
    contents.root(&mut p, prefix, moments, loss_scale);
    let pickle = p.finish();

    let scalar = session.batch_options(false).scalar;
    let buffers = [Buffer::Parameters, Buffer::Statistics, Buffer::FirstMoments, Buffer::SecondMoments];
    let used = if moments { 4 } else { 2 };
    let values = buffers[..used]
        .iter()
        .map(|buffer| Ok((*buffer, session.read(*buffer).map_err(|e| e.to_string())?)))
        .collect::<Result<Vec<_>, String>>()?;
    let numbers: usize = values.iter().map(|(_, values)| values.len() * 8).sum();
    let mut archive = Writer::with_capacity(numbers + contents.storages.len() * 256 + pickle.len());
    archive.add(&format!("{ROOT}/data.pkl"), |out| out.extend_from_slice(&pickle))?;
    archive.add(&format!("{ROOT}/byteorder"), |out| out.extend_from_slice(b"little"))?;
    for (i, data) in contents.storages.iter().enumerate() {
        archive.add(&format!("{ROOT}/data/{i}"), |out| match data {
            Data::Part(buffer, range) => {
                let (_, values) = values.iter().find(|(other, _)| other == buffer).expect("its numbers were read");
                encode(&values[range.clone()], scalar, out);
            }
            Data::Int(value) => out.extend(value.to_le_bytes()),
            Data::Count(value) => out.extend((*value as f32).to_le_bytes()),
        })?;
    }
    archive.add(&format!("{ROOT}/version"), |out| out.extend_from_slice(b"3\n"))?;
    archive.finish()
}

impl Contents<'_> {
    fn root(&mut self, p: &mut Pickler, prefix: &str, moments: bool, loss_scale: Option<LossScale>) {
        let (config, state) = (self.config, self.state);
        p.dict(|p| {
            p.text("epoch");
            p.int(if batch(state) > 0 { state.epochs() } else { state.epochs().saturating_sub(1) } as u64);
            p.text("global_step");
            p.int(state.step);
            p.text("pytorch-lightning_version");
            p.text(LIGHTNING_VERSION);
            p.text("state_dict");
            p.ordered_dict(|p| self.state_dict(p, prefix));
            p.text("loops");
            p.dict(|p| {
                p.text("fit_loop");
                p.dict(|p| fit_loop(p, state));
            });
            p.text("callbacks");
            p.dict(|_| {});
            p.text("optimizer_states");
            p.list(|p| {
                if moments {
                    self.optimizer(p);
                }
            });
            p.text("lr_schedulers");
            p.list(|p| {
                if moments {
                    scheduler(p, config, state);
                }
            });
            if let Some(scale) = loss_scale.filter(|_| moments) {
                p.text(LOSS_SCALE);
                p.dict(|p| scaler(p, &scale));
            }
            p.text("hparams_name");
            p.text("kwargs");
            p.text("hyper_parameters");
            p.dict(|p| hyper_parameters(p, config));
            p.text(CONFIG);
            p.text(&config.to_text());
        });
    }

    fn tensor(&mut self, p: &mut Pickler, kind: Storage, shape: &[usize], data: Data) {
        p.tensor(self.storages.len(), kind, shape);
        self.storages.push(data);
    }

    fn real(&self) -> Storage {
        Storage::Real(self.session.batch_options(false).scalar)
    }

    fn state_dict(&mut self, p: &mut Pickler, prefix: &str) {
        for parameter in self.session.parameters().iter() {
            let buffer = if parameter.statistic { Buffer::Statistics } else { Buffer::Parameters };
            p.text(&format!("{prefix}{}", parameter.name));
            self.tensor(p, self.real(), &parameter.shape, Data::Part(buffer, parameter.range()));
            if let Some(norm) = parameter.name.strip_suffix("running_var") {
                p.text(&format!("{prefix}{norm}{BATCH_COUNTER}"));
                self.tensor(p, Storage::Int, &[], Data::Int(self.state.batches));
            }
        }
    }

    /// State of `torch.optim.AdamW` with the two groups of the published module.
    fn optimizer(&mut self, p: &mut Pickler) {
        let session = self.session;
        let order = optimizer_order(session);
        let decayed = order.iter().filter(|name| session.parameters().get(name).is_some_and(decays)).count();
        let lr = learning_rate(self.config, self.state);
        p.dict(|p| {
            p.text("state");
            p.dict(|p| {
                for (id, parameter) in order.iter().filter_map(|name| session.parameters().get(name)).enumerate() {
                    p.int(id as u64);
                    p.dict(|p| {
                        p.text("step");
                        self.tensor(p, Storage::Real(crate::graph::Scalar::F32), &[], Data::Count(self.state.module.updates));
                        for (key, (_, buffer)) in ["exp_avg", "exp_avg_sq"].iter().zip(MOMENTS) {
                            p.text(key);
                            self.tensor(p, self.real(), &parameter.shape, Data::Part(buffer, parameter.range()));
                        }
                    });
                }
            });
            p.text("param_groups");
            p.list(|p| {
                group(p, 0..decayed, self.config.optimizer.weight_decay, [lr, self.config.optimizer.lr]);
                group(p, decayed..order.len(), 0.0, [lr, self.config.optimizer.lr]);
            });
        });
    }
}

/// Batches of the present epoch that are done; 0 between two epochs.
fn batch(state: &State) -> usize {
    if state.epoch_ended { 0 } else { state.batch }
}

/// Learning rate of the updates that come next.
fn learning_rate(config: &Config, state: &State) -> f64 {
    schedule::warmup_cosine(state.module.schedule as usize, config.optimizer.lr, config.optimizer.epochs, config.optimizer.warmup_epochs)
}

fn group(p: &mut Pickler, ids: Range<usize>, weight_decay: f64, [lr, initial_lr]: [f64; 2]) {
    p.dict(|p| {
        for (key, value) in [("lr", lr), ("initial_lr", initial_lr), ("eps", optim::EPSILON), ("weight_decay", weight_decay)] {
            p.text(key);
            p.float(value);
        }
        p.text("betas");
        p.tuple(|p| optim::BETA.iter().for_each(|beta| p.float(*beta)));
        for key in ["amsgrad", "maximize", "capturable", "differentiable"] {
            p.text(key);
            p.bool(false);
        }
        for key in ["foreach", "fused"] {
            p.text(key);
            p.none();
        }
        p.text("params");
        p.list(|p| ids.for_each(|id| p.int(id as u64)));
    });
}

/// State of `torch.amp.GradScaler`.
fn scaler(p: &mut Pickler, scale: &LossScale) {
    for (key, value) in [("scale", scale.scale), ("growth_factor", scale.growth_factor), ("backoff_factor", scale.backoff_factor)] {
        p.text(key);
        p.float(value);
    }
    for (key, value) in [("growth_interval", scale.growth_interval), ("_growth_tracker", scale.growth_tracker)] {
        p.text(key);
        p.int(value.into());
    }
}

/// State of the published schedule, which takes on what it finds here.
fn scheduler(p: &mut Pickler, config: &Config, state: &State) {
    let (optimizer, steps) = (&config.optimizer, state.module.schedule as usize);
    p.dict(|p| {
        for (key, value) in [("min_lr", schedule::LOWEST), ("lr", optimizer.lr)] {
            p.text(key);
            p.float(value);
        }
        let counts = [("epochs", optimizer.epochs), ("warmup_epochs", optimizer.warmup_epochs), ("last_epoch", steps)];
        for (key, value) in counts.into_iter().chain([("_step_count", steps + 1)]) {
            p.text(key);
            p.int(value as u64);
        }
        for (key, value) in [("base_lrs", optimizer.lr), ("_last_lr", learning_rate(config, state))] {
            p.text(key);
            p.list(|p| (0..2).for_each(|_| p.float(value)));
        }
        for key in ["verbose", "_get_lr_called_within_step"] {
            p.text(key);
            p.bool(false);
        }
    });
}

/// Arguments of the published training module.
fn hyper_parameters(p: &mut Pickler, config: &Config) {
    let (optimizer, objectives) = (&config.optimizer, &config.objectives);
    for (key, value) in [("lr", optimizer.lr), ("weight_decay", optimizer.weight_decay)] {
        p.text(key);
        p.float(value);
    }
    for (key, value) in [("epochs", optimizer.epochs), ("warmup_epochs", optimizer.warmup_epochs)] {
        p.text(key);
        p.int(value as u64);
    }
    let switches = [
        ("use_collision_loss", objectives.use_collision_loss),
        ("use_contrast_loss", objectives.use_contrast_loss),
        ("regulate_yaw", objectives.regulate_yaw),
    ];
    for (key, value) in switches {
        p.text(key);
        p.bool(value);
    }
}

/// Progress of Lightning's loops: every counter has a total and one since its loop began.
fn fit_loop(p: &mut Pickler, state: &State) {
    const EVERY: [&str; 4] = ["ready", "started", "processed", "completed"];
    let counter = |p: &mut Pickler, name: &str, keys: &[&str], [total, current]: [u64; 2], more: &dyn Fn(&mut Pickler)| {
        p.text(name);
        p.dict(|p| {
            for (scope, value) in [("total", total), ("current", current)] {
                p.text(scope);
                p.dict(|p| {
                    for key in keys {
                        p.text(key);
                        p.int(value);
                    }
                });
            }
            more(p);
        });
    };
    let nothing = |_: &mut Pickler| {};
    let (epoch, batch) = (state.epochs() as u64, batch(state) as u64);
    let between = batch == 0;
    for (name, stepped) in [
        ("state_dict", None),
        ("epoch_loop.state_dict", Some(state.step)),
        ("epoch_loop.automatic_optimization.state_dict", None),
        ("epoch_loop.manual_optimization.state_dict", None),
        ("epoch_loop.val_loop.state_dict", None),
    ] {
        p.text(name);
        p.dict(|p| {
            if let Some(steps) = stepped {
                p.text("_batches_that_stepped");
                p.int(steps);
            }
        });
    }
    let last = |is_last: bool| {
        move |p: &mut Pickler| {
            p.text("is_last_batch");
            p.bool(is_last);
        }
    };
    counter(p, "epoch_loop.batch_progress", &EVERY, [state.batches, batch], &last(between));
    counter(p, "epoch_loop.val_loop.batch_progress", &EVERY, [0, 0], &last(false));
    counter(p, "epoch_loop.scheduler_progress", &["ready", "completed"], [epoch, 0], &nothing);
    counter(p, "epoch_loop.manual_optimization.optim_step_progress", &["ready", "completed"], [0, 0], &nothing);
    p.text("epoch_loop.automatic_optimization.optim_progress");
    p.dict(|p| {
        p.text("optimizer");
        p.dict(|p| {
            counter(p, "step", &["ready", "completed"], [state.step, batch], &nothing);
            counter(p, "zero_grad", &["ready", "started", "completed"], [state.step, batch], &nothing);
        });
    });
    // Within an epoch it is begun and not yet processed.
    p.text("epoch_progress");
    p.dict(|p| {
        for scope in ["total", "current"] {
            p.text(scope);
            p.dict(|p| {
                for key in EVERY {
                    p.text(key);
                    p.int(epoch + u64::from(!between && matches!(key, "ready" | "started")));
                }
            });
        }
    });
}
