//! Weights & Biases: its transaction log, in the folder of an offline run, which `wandb sync` uploads at any time. With
//! `wandb.mode: online` the official client does so while the run goes on.
//!
//! - `log`: the file format; here: which records, in which order; `artifact`: checkpoints; `client`: the official client.
//!
//! Keys of the service are none of this library's business: the client finds them where it always does.

mod artifact;
mod client;
mod log;

use super::{Logger, Opening, SavedCheckpoint, Status, message::Message, now, picture::Image};
use crate::{
    config::{LogModel, WandbConfig, WandbMode, clock::Date, tree::Value},
    error::{Error, Result},
};
use artifact::Artifacts;
use base64::Engine as _;
use client::Uploader;
pub use client::{DOWNLOAD_TIMEOUT, Download, download};
use log::Log;
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Fields of `wandb_internal.Record`: kinds of records.
mod kind {
    pub const HISTORY: u64 = 2;
    pub const SUMMARY: u64 = 3;
    pub const FILES: u64 = 6;
    pub const ARTIFACT: u64 = 8;
    pub const METRIC: u64 = 12;
    pub const RUN: u64 = 17;
    pub const EXIT: u64 = 18;
    pub const HEADER: u64 = 21;
}

/// The horizontal axis of every chart, as Lightning names it.
const STEP: &str = "trainer/global_step";

/// Writes one run.
pub struct Wandb {
    config: WandbConfig,
    run_id: String,
    folder: PathBuf,
    log: Log,
    start: f64,
    rows: u64,
    /// Images since the last row, which go with the next: name and value.
    images: Vec<(String, String)>,
    artifacts: Artifacts,
    best: Option<Message>,
    uploader: Option<Uploader>,
    warning: Option<String>,
}

impl Wandb {
    /// Starts a run below `folder`, or another part of a run that is gone on with, and its client if that is wanted.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(folder: &Path, config: &WandbConfig, opening: &Opening) -> Result<Self> {
        let run_id = config.run_id.clone().or_else(|| opening.position.run_id.clone()).unwrap_or_else(new_id);
        let start = now();
        let folder = std::path::absolute(folder).map_err(|e| Error::file(folder, e))?;
        let folder = run_folder(&folder.join("wandb"), start, &run_id)?;
        let path = folder.join(format!("run-{run_id}.wandb"));
        let log = Log::create(&path)?;
        let mut run = Self {
            config: config.clone(),
            artifacts: Artifacts::new(&folder, &run_id, config),
            run_id,
            folder,
            log,
            start,
            rows: opening.position.rows,
            images: Vec::new(),
            best: None,
            uploader: None,
            warning: None,
        };
        run.begin(opening.config)?;
        if config.mode == WandbMode::Online {
            match Uploader::start(&config.command, &run.folder, &path) {
                Ok(uploader) => run.uploader = Some(uploader),
                Err(reason) => run.degrade(&reason),
            }
        }
        Ok(run)
    }

    fn begin(&mut self, config: &Value) -> Result<()> {
        self.log.record(kind::HEADER, |header| {
            header.message(1, |version| {
                version.text(1, concat!("training_engine ", env!("CARGO_PKG_VERSION")));
                // The oldest client that may read the log, as clients themselves write it.
                version.text(2, "0.70.0");
            });
        })?;
        let (options, run_id, start) = (&self.config, &self.run_id, self.start);
        let fill = |run: &mut Message| {
            run.text(1, run_id);
            let texts = [(2, &options.entity), (3, &options.project), (6, &options.group), (8, &options.name)];
            texts.iter().for_each(|(field, text)| text.iter().for_each(|text| run.text(*field, text)));
            run.message(4, |message| {
                if let Value::Map(entries) = config {
                    for (key, value) in entries {
                        message.message(1, |item| {
                            item.text(1, key);
                            item.text(16, &json(value));
                        });
                    }
                }
            });
            run.message(17, |time| {
                time.integer(1, start as u64);
                time.integer(2, (start.fract() * 1e9) as u64);
            });
            // A run with this name is gone on with.
            run.integer(24, 1);
        };
        // Without a mailbox slot the client waits forever.
        self.log.record_with(kind::RUN, fill, |record| record.message(16, |control| control.text(4, "training_engine")))?;
        let defined = |options: &mut Message| options.integer(3, 1);
        self.log.record(kind::METRIC, |metric| {
            metric.text(1, STEP);
            metric.message(6, defined);
        })?;
        self.log.record(kind::METRIC, |metric| {
            metric.text(2, "*");
            metric.text(4, STEP);
            metric.message(6, |options| {
                options.integer(1, 1);
                defined(options);
            });
        })
    }

    /// Folder of the run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn degrade(&mut self, reason: &str) {
        let folder = self.folder.display();
        self.warning = Some(format!("Weights & Biases goes on offline: {reason}; `wandb sync {folder}` uploads the run at any time"));
        self.uploader = None;
    }

    fn check_uploader(&mut self) {
        if let Some(reason) = self.uploader.as_mut().and_then(Uploader::failure) {
            self.degrade(&reason);
        }
    }
}

impl Logger for Wandb {
    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let time = now();
        let runtime = number((time - self.start).max(0.0));
        let own = [(STEP, step.to_string()), ("_timestamp", number(time)), ("_runtime", runtime), ("_step", self.rows.to_string())];
        let images = std::mem::take(&mut self.images);
        let fill = |message: &mut Message| {
            let mut item = |name: &str, value: &str| {
                message.message(1, |item| {
                    item.text(2, name);
                    item.text(16, value);
                });
            };
            values.iter().for_each(|(name, value)| item(name, &number(*value)));
            images.iter().for_each(|(name, value)| item(name, value));
            own.iter().for_each(|(name, value)| item(name, value));
        };
        self.log.record(kind::SUMMARY, fill)?;
        let rows = self.rows;
        self.log.record(kind::HISTORY, |history| {
            fill(history);
            history.message(2, |step| step.integer(1, rows));
        })?;
        self.rows += 1;
        self.check_uploader();
        Ok(())
    }

    fn takes_images(&self) -> bool {
        true
    }

    fn image(&mut self, _: u64, name: &str, image: &Image) -> Result<()> {
        let sum = hex(&Sha256::digest(&image.png));
        let file = format!("media/images/{}_{}_{}.png", name.replace(['/', '\\'], "_"), self.rows, &sum[..20]);
        let path = self.folder.join("files").join(&file);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, &image.png));
        written.map_err(|e| Error::file(&path, e))?;
        self.log.record(kind::FILES, |files| {
            files.message(1, |item| {
                const MEDIA: u64 = 2;
                item.text(1, &file);
                item.integer(3, MEDIA);
            });
        })?;
        let value = serde_json::json!({
            "_type": "image-file", "path": file, "sha256": sum, "size": image.png.len(),
            "format": "png", "width": image.width, "height": image.height,
        });
        self.images.push((name.to_owned(), value.to_string()));
        Ok(())
    }

    fn checkpoint(&mut self, saved: &SavedCheckpoint) -> Result<()> {
        match self.config.log_model {
            LogModel::All if !saved.is_earlier => {
                let artifact = self.artifacts.keep(saved)?;
                self.log.record(kind::ARTIFACT, |m| m.0.extend(&artifact.0))
            }
            LogModel::Best if saved.is_best => {
                self.best = Some(self.artifacts.replace(saved)?);
                Ok(())
            }
            LogModel::All | LogModel::Best | LogModel::None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.check_uploader();
        self.log.sync()
    }

    fn finish(&mut self, status: Status) -> Result<()> {
        if let Some(best) = self.best.take() {
            self.log.record(kind::ARTIFACT, |m| m.0.extend(&best.0))?;
        }
        self.log.record(kind::EXIT, |exit| {
            exit.integer(1, u64::from(status == Status::Failed));
            exit.integer(2, (now() - self.start).max(0.0) as u64);
        })?;
        self.log.sync()?;
        self.check_uploader();
        if let Some(Err(reason)) = self.uploader.take().map(|uploader| uploader.finish(self.config.finish_timeout)) {
            self.degrade(&reason);
        }
        Ok(())
    }

    fn warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    fn run_id(&self) -> Option<&str> {
        Some(&self.run_id)
    }
}

/// A new name of eight letters and digits, as the service's clients draw them.
fn new_id() -> String {
    let mut random = fastrand::Rng::new();
    std::iter::repeat_with(|| random.char('a'..='z')).take(8).collect()
}

/// Makes the folder of a run, named by the start of the run (UTC).
fn run_folder(parent: &Path, start: f64, run_id: &str) -> Result<PathBuf> {
    // A run that is gone on with within the same second takes the next.
    let name = |seconds: u64| {
        let Date { year, month, day, hour, minute, second, .. } = Date::at(start as u64 + seconds);
        parent.join(format!("offline-run-{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}-{run_id}"))
    };
    let folder = (0..).map(name).find(|folder| !folder.exists()).unwrap_or_else(|| name(0));
    for part in ["files", "logs"] {
        fs::create_dir_all(folder.join(part)).map_err(|e| Error::file(&folder, e))?;
    }
    Ok(folder)
}

/// A number as the service's JSON has it, which knows those that are not finite.
fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else {
        format!("{value:?}")
    }
}

/// A setting as JSON.
fn json(value: &Value) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => number(*value),
        Value::Text(value) => quoted(value),
        Value::List(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{}:{}", quoted(key), json(value))).collect();
            format!("{{{}}}", entries.join(","))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_json() {
        let value = crate::config::text::parse("{a: 1, b: [1.5, x\"y, null], c: {d: true, e: .inf}}").unwrap();
        assert_eq!(json(&value), r#"{"a":1,"b":[1.5,"x\"y",null],"c":{"d":true,"e":Infinity}}"#);
        assert_eq!(number(1e-7), "1e-7");
        assert_eq!(new_id().len(), 8);
    }
}
