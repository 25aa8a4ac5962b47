//! Shards in an S3 bucket, read and written through a folder of this machine.
//!
//! A shard is uploaded whole once it is complete, its index before it, and downloaded whole before it is read. Shards that this
//! machine writes lie in the folder `writing` until they are in the bucket: what a crash or a lost connection left there is
//! uploaded when the cache is opened the next time. Nothing in a bucket is ever changed, so a file that is here in full is not
//! downloaded again.

use super::storage::{self, INDEX, SHARD, Storage, index_path};
use crate::{
    error::{Error, Result},
    files,
};
use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path as Key,
};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::runtime::Runtime;

/// Bytes that are transferred at a time.
const PART: usize = 8 << 20;
/// Parts of one upload that may be under way.
const PARTS_AT_ONCE: usize = 4;
/// Requests are repeated so often, after waiting 0.1 s, 0.2 s, and so on.
const RETRIES: usize = 7;
/// Longest time that one request and its repetitions may take.
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);
/// Folder of shards that are not in the bucket yet.
const WRITING: &str = "writing";

/// A place in a bucket, with the folder that holds what was downloaded of it.
#[derive(Debug)]
pub(super) struct Bucket {
    /// `s3://bucket/prefix`.
    url: String,
    prefix: Key,
    store: AmazonS3,
    runtime: Runtime,
    /// The folder of this machine.
    here: PathBuf,
    /// The folder in it of shards that are not in the bucket yet.
    writing: PathBuf,
    /// Bytes of every object at the last listing.
    sizes: Mutex<HashMap<String, u64>>,
}

impl Bucket {
    /// Connects to `s3://bucket/prefix`. Endpoint, region and credentials come from the usual variables (`AWS_ENDPOINT_URL`,
    /// `AWS_REGION`, `AWS_ACCESS_KEY_ID`, ...). Shards that an earlier process could not upload are uploaded now, and what is here of
    /// shards that are no longer in the bucket is removed. With `make` an empty prefix is made a cache.
    ///
    /// # Errors
    /// [`Error::Config`] for a URL or variables that cannot be used; [`Error::File`] if the bucket cannot be read, is no cache under
    /// the prefix and holds other things there or shall not be made one, or a folder cannot be made.
    pub(super) fn open(url: &str, make: bool) -> Result<Self> {
        let bucket = Self::connect(url)?;
        // Before the bucket is listed: what others bring here meanwhile is not outdated.
        let here = storage::names(&bucket.here).unwrap_or_default();
        let names = bucket.names()?;
        if !names.iter().any(|name| name == storage::MARK) {
            if !make {
                return Err(bucket.fail("", storage::NO_CACHE));
            }
            if let Some(name) = names.iter().find(|name| storage::kind_of(name).is_none()) {
                return Err(bucket.fail("", format!("{} and not empty (it holds '{name}')", storage::NO_CACHE)));
            }
            bucket.upload_bytes(storage::MARK, storage::MARK_TEXT.as_bytes().to_vec())?;
        }
        fs::create_dir_all(&bucket.writing).map_err(|e| Error::file(&bucket.writing, e))?;
        bucket.remove_outdated(&here, &names);
        bucket.upload_abandoned()?;
        Ok(bucket)
    }

    /// Removes the shards, indexes and mark of a cache, here and in the bucket. An empty prefix is left.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Error::File`] if what is there is no cache of ours, or a process of this machine is writing to it.
    pub(super) fn remove(url: &str) -> Result<()> {
        let bucket = Self::connect(url)?;
        let names = bucket.names()?;
        if !names.is_empty() && !names.iter().any(|name| name == storage::MARK) {
            return Err(bucket.fail("", "is not removed: it is no cache of this library"));
        }
        storage::remove_shards(&bucket.writing)?;
        storage::remove_shards(&bucket.here)?;
        // The mark goes last: a removal that was broken off can be repeated.
        let ours = names.iter().filter(|name| storage::kind_of(name).is_some()).map(String::as_str);
        let mark = names.iter().any(|name| name == storage::MARK).then_some(storage::MARK);
        ours.chain(mark).try_for_each(|name| bucket.delete(name))
    }

    fn connect(url: &str) -> Result<Self> {
        let complain = |reason: String| Error::config("cache.cache_path", format!("'{url}': {reason}"));
        let (name, prefix) = url.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))).unwrap_or_default();
        if name.is_empty() {
            return Err(complain("no bucket is named: it must be s3://bucket/prefix".into()));
        }
        let prefix = Key::parse(prefix.trim_matches('/')).map_err(|e| complain(e.to_string()))?;
        let backoff = BackoffConfig { init_backoff: Duration::from_millis(100), ..BackoffConfig::default() };
        let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT };
        let builder = AmazonS3Builder::from_env().with_bucket_name(name).with_retry(retry);
        // An endpoint in plain text was asked for by whoever set it.
        let plain = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];
        let plain = plain.iter().any(|name| std::env::var(name).is_ok_and(|url| url.starts_with("http://")));
        let builder = if plain { builder.with_allow_http(true) } else { builder };
        let store = builder.build().map_err(|e| complain(e.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| complain(e.to_string()))?;
        let here = local_folder(name, prefix.as_ref());
        let (url, writing) = (url.trim_end_matches('/').to_owned(), here.join(WRITING));
        Ok(Self { url, prefix, store, runtime, here, writing, sizes: Mutex::default() })
    }

    /// Names of all objects directly under the prefix.
    fn names(&self) -> Result<Vec<String>> {
        let prefix = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let listed = self.runtime.block_on(self.store.list_with_delimiter(prefix)).map_err(|e| self.fail("", e))?;
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.clear();
        sizes.extend(listed.objects.iter().filter_map(|object| Some((object.location.filename()?.to_owned(), object.size))));
        Ok(sizes.keys().cloned().collect())
    }

    fn size(&self, name: &str) -> Option<u64> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Downloads an object unless it is here. One that is gone since it was listed is left out.
    fn download(&self, name: &str, size: u64) -> Result<()> {
        let path = self.here.join(name);
        if fs::metadata(&path).is_ok_and(|file| file.len() == size) {
            return Ok(());
        }
        let here = |e: std::io::Error| Error::file(&path, e);
        let mut file = files::temporary(&self.here).map_err(here)?;
        let mut at = 0;
        while at < size {
            let part = at..size.min(at + PART as u64);
            let Some(bytes) = self.part(name, part.clone())? else { return Ok(()) };
            if bytes.len() as u64 != part.end - part.start {
                return Err(self.fail(name, format!("{} bytes came instead of {}", bytes.len(), part.end - part.start)));
            }
            file.write_all(&bytes).map_err(here)?;
            at = part.end;
        }
        files::keep(file, &path)
    }

    /// A part of an object; none if the object is gone.
    fn part(&self, name: &str, range: std::ops::Range<u64>) -> Result<Option<Vec<u8>>> {
        match self.runtime.block_on(self.store.get_range(&self.key(name), range)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fail(name, error)),
        }
    }

    /// Uploads a file of the folder `writing`; it appears whole or not at all.
    fn upload(&self, name: &str) -> Result<()> {
        let path = self.writing.join(name);
        let here = |e: std::io::Error| Error::file(&path, e);
        let mut file = File::open(&path).map_err(here)?;
        let size = file.metadata().map_err(here)?.len();
        if size <= PART as u64 {
            let mut bytes = Vec::with_capacity(size as usize);
            file.read_to_end(&mut bytes).map_err(here)?;
            return self.upload_bytes(name, bytes);
        }
        let upload = self.runtime.block_on(self.store.put_multipart(&self.key(name))).map_err(|e| self.fail(name, e))?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut buffer = vec![0; PART];
        loop {
            let count = file.read(&mut buffer).map_err(here)?;
            if count == 0 {
                break;
            }
            let sent: object_store::Result<()> = self.runtime.block_on(async {
                parts.wait_for_capacity(PARTS_AT_ONCE).await?;
                parts.write(&buffer[..count]);
                Ok(())
            });
            if let Err(error) = sent {
                // The error says more than that parts of the upload may be left.
                let _ = self.runtime.block_on(parts.abort());
                return Err(self.fail(name, error));
            }
        }
        self.runtime.block_on(parts.finish()).map(drop).map_err(|e: object_store::Error| self.fail(name, e))
    }

    fn upload_bytes(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.runtime.block_on(self.store.put(&self.key(name), bytes.into())).map(drop).map_err(|e| self.fail(name, e))
    }

    fn delete(&self, name: &str) -> Result<()> {
        match self.runtime.block_on(self.store.delete(&self.key(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fail(name, error)),
        }
    }

    /// Removes, as far as it can, what was downloaded of shards that were packed into others since, and what killed downloads left. Who reads
    /// one goes on.
    fn remove_outdated(&self, here: &[String], names: &[String]) {
        files::remove_abandoned(&self.here);
        let outdated = |name: &&String| storage::kind_of(name).is_some() && !names.contains(name);
        here.iter().filter(outdated).for_each(|name| _ = files::remove(&self.here.join(name)));
    }

    /// Uploads shards that no process of this machine is writing to.
    fn upload_abandoned(&self) -> Result<()> {
        for name in storage::names(&self.writing)?.iter().filter(|name| storage::kind_of(name) == Some(SHARD)) {
            // One that is still empty may be locked in a moment.
            if let Ok(Some(file)) = storage::lock(&self.writing.join(name))
                && file.metadata().is_ok_and(|file| file.len() > 0)
            {
                self.publish(name)?;
            }
        }
        Ok(())
    }

    fn key(&self, name: &str) -> Key {
        self.prefix.clone().join(name)
    }

    fn fail(&self, name: &str, reason: impl std::fmt::Display) -> Error {
        let separator = if name.is_empty() { "" } else { "/" };
        Error::file(format!("{}{separator}{name}", self.url), reason)
    }
}

impl Storage for Bucket {
    fn list(&self) -> Result<Vec<String>> {
        let mut shards = self.names()?;
        shards.retain(|name| storage::kind_of(name) == Some(SHARD));
        shards.sort_unstable();
        Ok(shards)
    }

    fn fetch(&self, name: &str) -> Result<PathBuf> {
        let size = self.size(name).ok_or_else(|| self.fail(name, "is not there"))?;
        let index = index_path(Path::new(name)).display().to_string();
        if let Some(size) = self.size(&index) {
            self.download(&index, size)?;
        }
        self.download(name, size)?;
        Ok(self.here.join(name))
    }

    fn publish(&self, name: &str) -> Result<()> {
        let index = Path::new(name).with_extension(INDEX).display().to_string();
        for name in [&*index, name] {
            let (from, to) = (self.writing.join(name), self.here.join(name));
            if from.exists() {
                self.upload(name)?;
                fs::rename(&from, &to).map_err(|e| Error::file(&to, e))?;
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let index = Path::new(name).with_extension(INDEX).display().to_string();
        for name in [name, &*index] {
            self.delete(name)?;
            files::remove(&self.here.join(name))?;
        }
        Ok(())
    }

    fn folder(&self) -> &Path {
        &self.writing
    }
}

/// Where objects of a bucket are kept on this machine: below `TE_S3_CACHE`, or `XDG_CACHE_HOME`, or `~/.cache`.
fn local_folder(bucket: &str, prefix: &str) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = variable("TE_S3_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("training_engine")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/training_engine")))
        .unwrap_or_else(|| std::env::temp_dir().join("training_engine"));
    let folder = root.join("s3").join(bucket);
    if prefix.is_empty() { folder } else { folder.join(prefix) }
}
