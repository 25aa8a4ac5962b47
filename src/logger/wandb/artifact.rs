//! Checkpoints as artifacts `model-ID` of type `model` with the file `model.ckpt`, as Lightning names them. The record in the log
//! points to a file beside it, which the client uploads.

use super::{super::message::Message, base64, hex};
use crate::{
    config::WandbConfig,
    error::{Error, Result},
    logger::SavedCheckpoint,
};
use md5::{Digest, Md5};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The one file of an artifact.
const FILE: &str = "model.ckpt";

/// Keeps what is to be uploaded.
pub(super) struct Artifacts {
    folder: PathBuf,
    run_id: String,
    project: Option<String>,
    entity: Option<String>,
    /// Ties the versions of the artifact together.
    sequence: String,
    count: usize,
}

impl Artifacts {
    pub fn new(run_folder: &Path, run_id: &str, config: &WandbConfig) -> Self {
        let (project, entity) = (config.project.clone(), config.entity.clone());
        Self { folder: run_folder.join("artifacts"), run_id: run_id.to_owned(), project, entity, sequence: client_id(), count: 0 }
    }

    /// Keeps a checkpoint beside those before it, and gives its record.
    pub fn keep(&mut self, saved: &SavedCheckpoint) -> Result<Message> {
        self.count += 1;
        self.record(saved, self.folder.join(format!("{}-{FILE}", self.count)))
    }

    /// Keeps a checkpoint in place of the last that came here, and gives its record.
    pub fn replace(&mut self, saved: &SavedCheckpoint) -> Result<Message> {
        let path = self.folder.join(FILE);
        if path.exists() {
            fs::remove_file(&path).map_err(|e| Error::file(&path, e))?;
        }
        self.record(saved, path)
    }

    fn record(&self, saved: &SavedCheckpoint, path: PathBuf) -> Result<Message> {
        let fail = |e: std::io::Error| Error::file(&path, e);
        fs::create_dir_all(&self.folder).map_err(fail)?;
        // Checkpoints are never written over, only replaced: a link keeps this one without a copy.
        fs::hard_link(saved.path, &path).or_else(|_| fs::copy(saved.path, &path).map(|_| ())).map_err(fail)?;
        let mut file = fs::File::open(&path).map_err(fail)?;
        let mut sum = Md5::new();
        let size = std::io::copy(&mut file, &mut HashWriter(&mut sum)).map_err(fail)?;
        let digest = base64(&sum.finalize());
        let manifest = hex(&Md5::digest(format!("wandb-artifact-manifest-v1\n{FILE}:{digest}\n")));
        let original = saved.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let metadata = json!({"score": saved.score, "original_filename": original, "ModelCheckpoint": saved.options});
        Ok(Message::new(|artifact| {
            artifact.text(1, &self.run_id);
            self.project.iter().for_each(|project| artifact.text(2, project));
            self.entity.iter().for_each(|entity| artifact.text(3, entity));
            artifact.text(4, "model");
            artifact.text(5, &format!("model-{}", self.run_id));
            artifact.text(6, &manifest);
            artifact.text(8, &metadata.to_string());
            artifact.text(11, "latest");
            if saved.is_best {
                artifact.text(11, "best");
            }
            artifact.message(12, |manifest| {
                manifest.integer(1, 1);
                manifest.text(2, "wandb-storage-policy-v1");
                manifest.message(3, |item| {
                    item.text(1, "storageLayout");
                    item.text(2, "\"V2\"");
                });
                manifest.message(4, |entry| {
                    entry.text(1, FILE);
                    entry.text(2, &digest);
                    entry.integer(4, size);
                    entry.text(6, &path.to_string_lossy());
                });
            });
            artifact.integer(14, 1);
            artifact.text(15, &client_id());
            artifact.text(16, &self.sequence);
        }))
    }
}

struct HashWriter<'a>(&'a mut Md5);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A name that no other artifact has: 128 letters and digits, as the service's clients draw them.
fn client_id() -> String {
    let mut random = fastrand::Rng::new();
    std::iter::repeat_with(|| char::from(random.choice(*b"abcdefghijklmnopqrstuvwxyz0123456789").unwrap_or(b'a'))).take(128).collect()
}
