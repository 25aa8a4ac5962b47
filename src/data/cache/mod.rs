//! Features on disk, for as many scenarios as there are: packed shards that are only ever appended to, each with an index.
//!
//! - `column`: numbers in few bytes; `entry`: what is stored of a scenario.
//! - `shard`: frames with checksums; `index`: what a shard holds; `writer` and `reader`: both ends of a shard; `polygons`: those
//!   that are in memory.
//! - `storage`: where shards are kept; `s3`: in a bucket (Cargo feature `s3`).
//! - [`fill`]: computing what is missing; [`tool`]: looking at a cache, checking it, packing it anew.
//!
//! Every process appends to a shard of its own, which it holds locked, and reads all. A frame is whole if its checksum is
//! right: what a crash left behind, or what was damaged since, is passed over and computed again. Files are read by position and
//! never mapped, so that one that is cut short gives an error and no signal. An entry that was written survives the end of its
//! process from then on; a loss of power, once its shard was ended.

mod column;
mod entry;
pub mod fill;
mod index;
mod polygons;
mod reader;
#[cfg(feature = "s3")]
mod s3;
mod shard;
mod storage;
pub mod tool;
mod writer;

pub use super::catalogue::Name;

use super::catalogue::Catalogue;
use crate::{
    error::{Error, Rejection, Result},
    features::{self, FeatureBuilder, Features},
    scenario::Scenario,
};
use polygons::Pool;
use reader::{Entry, Place, Shard};
use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};
use storage::{Local, Storage};
use writer::{Origin, ShardWriter};

/// Counts what an opened cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Scenarios with an entry.
    pub entries: usize,
    /// Shards of these features.
    pub shards: usize,
    /// Shards whose features were built in another way, or whose beginning is damaged; they are not used.
    pub other_shards: usize,
    /// Stretches of shards that are damaged.
    pub damaged: usize,
}

impl std::fmt::Display for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} entries in {} shards", self.entries, self.shards)?;
        if self.damaged > 0 {
            write!(f, "; {} stretches are damaged, what they held is computed anew", self.damaged)?;
        }
        if self.other_shards > 0 {
            write!(f, "; {} shards of other features are not used", self.other_shards)?;
        }
        Ok(())
    }
}

/// What became of a look-up.
#[derive(Debug)]
pub enum Lookup {
    /// The features, as the builder made them.
    Features(Box<Features>),
    /// The builder rejected the scenario, and why.
    Rejected(Rejection, String),
    /// There is no entry, or it is damaged.
    Missing,
}

/// What a look at an entry says without reading its features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// The features are there and whole.
    Whole,
    /// The builder rejected the scenario, and why.
    Rejected(Rejection, String),
    /// There is no entry, or it is damaged.
    Missing,
}

/// A cache that is open for reading and writing, by all threads.
#[derive(Debug)]
pub struct FeatureCache {
    storage: Box<dyn Storage>,
    builder: FeatureBuilder,
    fingerprint: u64,
    /// Entries that were there, by key.
    places: Vec<Place>,
    /// Entries that this process wrote, and none for those that it found damaged.
    recent: RwLock<HashMap<u64, Option<Place>>>,
    shards: RwLock<Vec<Arc<Shard>>>,
    pool: Pool,
    writer: Mutex<Option<ShardWriter>>,
    contents: Contents,
    damaged: AtomicUsize,
    shard_bytes: u64,
}

impl FeatureCache {
    /// Opens the cache in a folder, or with the Cargo feature `s3` at `s3://bucket/prefix`, for features as `builder` makes them;
    /// a missing folder is made.
    ///
    /// # Errors
    /// [`Error::Config`] for a path of object storage where this build has none; [`Error::File`] if the folder or bucket cannot
    /// be used.
    pub fn open(path: &str, builder: FeatureBuilder) -> Result<Self> {
        Self::load(storage(path, true)?, builder, None)
    }

    /// As [`Self::open`], with the names of all entries.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_catalogue(path: &str, builder: FeatureBuilder) -> Result<(Self, Catalogue)> {
        let mut catalogue = Catalogue::default();
        let cache = Self::load(storage(path, true)?, builder, Some(&mut catalogue))?;
        Ok((cache, catalogue))
    }

    fn load(storage: Box<dyn Storage>, builder: FeatureBuilder, mut catalogue: Option<&mut Catalogue>) -> Result<Self> {
        let fingerprint = fingerprint(&builder);
        let (mut contents, mut shards, mut places) = (Contents::default(), Vec::new(), Vec::new());
        for (_, path, file) in reader::open_all(&*storage)? {
            let (shard, index) = Shard::open(file, &path)?;
            contents.damaged += index.damaged;
            if index.fingerprint != Some(fingerprint) {
                contents.other_shards += 1;
                continue;
            }
            let number = shards.len() as u32;
            places.reserve(index.places.len());
            for (i, &(key, offset, length)) in index.places.iter().enumerate() {
                places.push((Place { key, shard: number, length, offset }, places.len() as u32));
                if let Some(catalogue) = catalogue.as_deref_mut() {
                    catalogue.push(&index.names.name(i));
                }
            }
            shards.push(Arc::new(shard));
        }
        // Of entries with one key the latest counts.
        places.sort_unstable_by_key(|(place, order)| (place.key, std::cmp::Reverse(*order)));
        places.dedup_by(|(later, order), (kept, _)| {
            let repeated = later.key == kept.key;
            if repeated && let Some(catalogue) = catalogue.as_deref_mut() {
                catalogue.leave_out(*order as usize);
            }
            repeated
        });
        contents.entries = places.len();
        contents.shards = shards.len();
        Ok(Self {
            storage,
            builder,
            fingerprint,
            places: places.into_iter().map(|(place, _)| place).collect(),
            recent: RwLock::default(),
            shards: RwLock::new(shards),
            pool: Pool::default(),
            writer: Mutex::default(),
            contents,
            damaged: AtomicUsize::new(0),
            shard_bytes: writer::SHARD_BYTES,
        })
    }

    /// Ends shards once they have so many bytes.
    pub fn with_shard_bytes(mut self, bytes: u64) -> Self {
        self.shard_bytes = bytes;
        self
    }

    /// What it held when it was opened.
    pub fn contents(&self) -> Contents {
        self.contents
    }

    /// Entries that turned out to be damaged since.
    pub fn damaged(&self) -> usize {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Features with a cost map, as they are stored, and otherwise as the run wants them.
    pub fn builder(&self) -> FeatureBuilder {
        FeatureBuilder { cost_map: true, ..self.builder }
    }

    /// Looks at an entry: if it is whole now, [`Self::get`] will find it so.
    pub fn check(&self, name: &Name) -> Check {
        let key = self.key(name);
        let Some(place) = self.place(key, true) else { return Check::Missing };
        self.shard(&place).check(&place, name, &self.pool).unwrap_or_else(|_| self.drop_damaged(key))
    }

    /// True if this process wrote an entry.
    pub fn is_recent(&self, name: &Name) -> bool {
        self.place(self.key(name), false).is_some()
    }

    /// Reads an entry.
    pub fn get(&self, name: &Name) -> Lookup {
        let key = self.key(name);
        let Some(place) = self.place(key, true) else { return Lookup::Missing };
        match self.shard(&place).entry(&place, name, &self.builder, &self.pool) {
            Ok(Entry::Features(features)) => Lookup::Features(features),
            Ok(Entry::Rejected(rejection, reason)) => Lookup::Rejected(rejection, reason),
            Err(_) => {
                self.drop_damaged(key);
                Lookup::Missing
            }
        }
    }

    /// Writes features that [`Self::builder`] made of a scenario. Once this returns they survive the end of the process.
    ///
    /// # Errors
    /// [`Error::Data`] if they would not come back bit for bit; [`Error::File`].
    pub fn put(&self, name: &Name, scenario: &Scenario, features: &Features) -> Result<()> {
        let encoded = entry::encode(scenario, features, &self.builder())?;
        self.append(name, |writer, key| writer.put(key, name, &encoded))
    }

    /// Writes that the builder rejects a scenario, so that it need not be loaded again to know.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn put_rejected(&self, name: &Name, rejection: Rejection, reason: &str) -> Result<()> {
        self.append(name, |writer, key| writer.put_rejected(key, name, rejection, reason))
    }

    fn append(&self, name: &Name, put: impl FnOnce(&mut ShardWriter, u64) -> Result<Place>) -> Result<()> {
        let key = self.key(name);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.as_ref().is_some_and(|writer| writer.is_full(self.shard_bytes)) {
            self.end(&mut writer)?;
        }
        if writer.is_none() {
            let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
            let begun =
                ShardWriter::begin(&*self.storage, storage::new_name, self.fingerprint, &Origin::of(&self.builder), shards.len() as u32)?;
            shards.push(Arc::clone(&begun.shard));
            *writer = Some(begun);
        }
        let Some(open) = writer.as_mut() else { return Ok(()) };
        match put(open, key) {
            Ok(place) => {
                self.recent.write().unwrap_or_else(PoisonError::into_inner).insert(key, Some(place));
                Ok(())
            }
            Err(error) => {
                if matches!(error, Error::File { .. }) {
                    // What it says first is the cause.
                    let _ = self.end(&mut writer);
                }
                Err(error)
            }
        }
    }

    /// Ends the shard that is being written: it is on the disk with its index.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn finish(&self) -> Result<()> {
        self.end(&mut self.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&self, writer: &mut Option<ShardWriter>) -> Result<()> {
        writer.take().map_or(Ok(()), |writer| writer.end(&*self.storage).map(drop))
    }

    fn key(&self, name: &Name) -> u64 {
        key(self.fingerprint, name)
    }

    fn place(&self, key: u64, earlier: bool) -> Option<Place> {
        match self.recent.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            Some(place) => *place,
            None if earlier => self.places.binary_search_by_key(&key, |place| place.key).ok().map(|i| self.places[i]),
            None => None,
        }
    }

    fn shard(&self, place: &Place) -> Arc<Shard> {
        Arc::clone(&self.shards.read().unwrap_or_else(PoisonError::into_inner)[place.shard as usize])
    }

    /// Remembers that an entry is damaged.
    fn drop_damaged(&self, key: u64) -> Check {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        self.recent.write().unwrap_or_else(PoisonError::into_inner).insert(key, None);
        Check::Missing
    }
}

impl Drop for FeatureCache {
    fn drop(&mut self) {
        // If that fails, the next one to open the cache makes the index.
        let _ = self.finish();
    }
}

/// Removes a cache of ours, see `cache.cleanup_cache`. A missing or empty folder is left.
///
/// # Errors
/// [`Error::File`] if the folder is no cache of this library, or a process is writing to it.
pub fn remove(path: &str) -> Result<()> {
    match path.starts_with(S3) {
        false => storage::remove(Path::new(path)),
        #[cfg(feature = "s3")]
        true => s3::Bucket::remove(path),
        #[cfg(not(feature = "s3"))]
        true => Err(no_s3(path)),
    }
}

/// How a path in object storage begins.
const S3: &str = "s3://";

/// The storage of a cache, which is made if it is not there and `make` says so.
fn storage(path: &str, make: bool) -> Result<Box<dyn Storage>> {
    match path.starts_with(S3) {
        false => Ok(Box::new(Local::open(Path::new(path), make)?)),
        #[cfg(feature = "s3")]
        true => Ok(Box::new(s3::Bucket::open(path, make)?)),
        #[cfg(not(feature = "s3"))]
        true => Err(no_s3(path)),
    }
}

#[cfg(not(feature = "s3"))]
fn no_s3(path: &str) -> Error {
    let reason = format!("'{path}': this build has no object storage; it is in one with the Cargo feature 's3'");
    Error::config("cache.cache_path", reason)
}

/// What features depend on besides their scenario.
fn fingerprint(builder: &FeatureBuilder) -> u64 {
    hash(&[&features::VERSION.to_string(), &builder.radius.to_string(), &builder.max_agents.to_string()])
}

/// The key of an entry: all that it depends on.
pub(super) fn key(fingerprint: u64, name: &Name) -> u64 {
    hash(&[&format!("{fingerprint:016x}"), name.token, name.log_name, name.scenario_type])
}

fn hash(texts: &[&str]) -> u64 {
    let mut bytes = Vec::with_capacity(128);
    for text in texts {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    xxhash_rust::xxh3::xxh3_64(&bytes)
}
