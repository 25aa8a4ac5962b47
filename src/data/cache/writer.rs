//! The shard that this process appends to.

use super::{
    Name,
    column::{Reader, Writer},
    entry::{Encoded, write_polygon},
    index::Index,
    reader::{Place, PolygonFrame, Shard},
    shard::{self, HEADER, Kind},
    storage::{Storage, index_path},
};
use crate::{
    error::{Error, Rejection, Result},
    features::{self, FeatureBuilder},
    files,
    scenario::PolygonSamples,
};
use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A shard that grew to this many bytes is closed, and another begun.
pub(super) const SHARD_BYTES: u64 = 512 << 20;

/// Of so many polygons a shard in the making remembers that it has them; they take some 300 MB. Others are written again.
const MOST_KNOWN: usize = 1 << 17;

/// What a shard's features were built by: in its first frame, for people; the fingerprint decides.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Origin {
    version: u64,
    radius: f64,
    max_agents: u64,
}

impl Origin {
    pub(super) fn of(builder: &FeatureBuilder) -> Self {
        Self { version: features::VERSION.into(), radius: builder.radius, max_agents: builder.max_agents as u64 }
    }

    fn payload(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(self.version);
        writer.doubles(&[self.radius]);
        writer.number(self.max_agents);
        writer.finish()
    }

    /// From the first frame of a shard; none if it is damaged.
    pub(super) fn read(file: &File) -> Option<Self> {
        let mut payload = Vec::new();
        let length = Origin { version: 1, radius: 1.0, max_agents: 1 }.payload().len();
        // Numbers may take some bytes more.
        let found = (length..length + 64).find_map(|length| shard::read_frame(file, 0, length, &mut payload).ok())?;
        let mut reader = Reader::new(&payload);
        let origin = (found.kind == Kind::Shard).then(|| {
            Some(Self { version: reader.number().ok()?, radius: *reader.doubles(1).ok()?.first()?, max_agents: reader.number().ok()? })
        });
        origin.flatten()
    }

    /// The builder, if it is of this version of the library.
    pub(super) fn builder(&self) -> Option<FeatureBuilder> {
        (self.version == u64::from(features::VERSION)).then_some(FeatureBuilder {
            radius: self.radius,
            max_agents: self.max_agents as usize,
            cost_map: true,
        })
    }
}

/// A shard in the making, locked against other processes as long as it is open.
#[derive(Debug)]
pub(super) struct ShardWriter {
    name: String,
    path: PathBuf,
    file: File,
    length: u64,
    index: Index,
    /// How many polygons are in it.
    polygons: u32,
    /// Numbers of the polygons that were last written, by hash.
    known: HashMap<u64, (u32, Arc<PolygonSamples>)>,
    /// The same shard for readers, and its position among theirs.
    pub(super) shard: Arc<Shard>,
    pub(super) position: u32,
    buffer: Vec<u8>,
}

impl ShardWriter {
    /// Begins a shard that readers know at `position`. `name` makes names for it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn begin(
        storage: &dyn Storage,
        name: impl Fn() -> String,
        fingerprint: u64,
        origin: &Origin,
        position: u32,
    ) -> Result<Self> {
        let (name, path, file) = loop {
            let name = name();
            let path = storage.folder().join(&name);
            let file = create_locked(&path)?;
            // Before it was locked, somebody may have removed it as abandoned.
            if path.exists() {
                break (name, path, file);
            }
        };
        let fail = |e: std::io::Error| Error::file(&path, e);
        let shard = Arc::new(Shard::begun(file.try_clone().map_err(fail)?));
        let (index, known, buffer) = (Index::default(), HashMap::new(), Vec::new());
        let mut writer = Self { name, path, file, length: 0, index, polygons: 0, known, shard, position, buffer };
        writer.frame(Kind::Shard, fingerprint, &origin.payload());
        writer.flush()?;
        Ok(writer)
    }

    /// Appends an entry and those of its polygons that are new. Once this returns the entry survives the end of the process.
    ///
    /// # Errors
    /// [`Error::Data`] for an entry beyond all sizes; [`Error::File`], after which the shard must be ended.
    pub(super) fn put(&mut self, key: u64, name: &Name, encoded: &Encoded) -> Result<Place> {
        if encoded.body.len() + 8 * encoded.polygons.len() > shard::MOST_BYTES / 2 {
            return Err(Error::Data(format!("scenario '{}' is not cached: it takes {} bytes", name.token, encoded.body.len())));
        }
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let (first, mut added, mut numbers) = (self.polygons, Vec::new(), Vec::with_capacity(encoded.polygons.len()));
        for polygon in &encoded.polygons {
            let hash = hash(polygon);
            let known = self.known.get(&hash).filter(|(_, other)| equal(other, polygon));
            let number = known.map_or(first + added.len() as u32, |(number, _)| *number);
            if known.is_none() {
                added.push(polygon);
                self.known.insert(hash, (number, Arc::clone(polygon)));
            }
            numbers.push(number);
        }
        self.polygons += added.len() as u32;

        let mut payload = Writer::default();
        name.write(&mut payload);
        payload.number(numbers.len() as u64);
        payload.small(numbers.iter().map(|&number| number.into()));
        let mut payload = payload.open();
        payload.extend_from_slice(&encoded.body);
        if added.is_empty() {
            return self.entry(Kind::Entry, key, &payload);
        }
        let mut new = Writer::default();
        new.number(added.len() as u64);
        added.iter().for_each(|polygon| write_polygon(&mut new, polygon));
        let new = new.finish();
        let offset = self.frame(Kind::Polygons, first.into(), &new);
        let place = self.entry(Kind::Entry, key, &payload)?;
        self.shard.add(PolygonFrame { first, length: new.len() as u32, offset });
        Ok(place)
    }

    /// Appends that a scenario has no features, and why.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(super) fn put_rejected(&mut self, key: u64, name: &Name, rejection: Rejection, reason: &str) -> Result<Place> {
        let mut payload = Writer::default();
        name.write(&mut payload);
        payload.bytes(rejection.name().as_bytes());
        payload.bytes(reason.as_bytes());
        self.entry(Kind::Rejected, key, &payload.finish())
    }

    fn entry(&mut self, kind: Kind, key: u64, payload: &[u8]) -> Result<Place> {
        let offset = self.frame(kind, key, payload);
        self.flush()?;
        Ok(Place { key, shard: self.position, length: payload.len() as u32, offset })
    }

    /// Puts a frame into the buffer; gives its offset in the file.
    fn frame(&mut self, kind: Kind, number: u64, payload: &[u8]) -> u64 {
        let offset = self.length + self.buffer.len() as u64;
        shard::frame(&mut self.buffer, kind, number, payload);
        offset
    }

    /// Appends the buffer; the index learns of it only then.
    fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        shard::append(&mut self.file, &self.path, self.length, &buffer)?;
        let mut at = 0;
        while let Some(header) = shard::Header::at(&buffer, at) {
            let payload = &buffer[at + HEADER..at + HEADER + header.length];
            self.index.add(self.length + at as u64, header.kind, header.number, payload);
            at += HEADER + header.length;
        }
        self.length += buffer.len() as u64;
        (self.index.covered, self.index.bytes) = (self.length, self.length);
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    /// True once it is as long as a shard should be.
    pub(super) fn is_full(&self, limit: u64) -> bool {
        self.length >= limit
    }

    /// Appends the payload of a rejection.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(super) fn copy_rejected(&mut self, key: u64, payload: &[u8]) -> Result<Place> {
        self.entry(Kind::Rejected, key, payload)
    }

    /// Ends the shard: what was written is on the disk, its index beside it, and the storage has it. One without an entry is
    /// removed. Gives its bytes.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn end(self, storage: &dyn Storage) -> Result<u64> {
        let fail = |e: std::io::Error| Error::file(&self.path, e);
        if self.index.places.is_empty() {
            return std::fs::remove_file(&self.path).map_err(fail).map(|()| 0);
        }
        self.file.sync_all().map_err(fail)?;
        self.index.write(&index_path(&self.path))?;
        storage.publish(&self.name)?;
        Ok(self.length)
    }
}

fn create_locked(path: &Path) -> Result<File> {
    let file = File::options().read(true).append(true).create_new(true).open(path).map_err(|e| Error::file(path, e))?;
    // One who opens the cache just now may hold it for a moment.
    if let Err(error) = file.lock() {
        files::remove(path)?;
        return Err(Error::file(path, format!("cannot be locked: {error}")));
    }
    Ok(file)
}

/// By which equal polygons are found.
pub(super) fn hash(polygon: &PolygonSamples) -> u64 {
    let bytes: Vec<u8> = polygon.points.as_flattened().as_flattened().iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// True if both have the same bits.
pub(super) fn equal(a: &Arc<PolygonSamples>, b: &Arc<PolygonSamples>) -> bool {
    let numbers = |polygon: &PolygonSamples| polygon.points.map(|side| side.map(|point| point.map(f64::to_bits)));
    Arc::ptr_eq(a, b) || numbers(a) == numbers(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::cache::storage;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_shard_that_is_removed_before_it_is_locked_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let storage = storage::Local::open(folder.path(), true).unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    // It fails where one is in use.
                    let _ = storage::remove_shards(folder.path());
                }
            });
            let lost = (0..1000).filter(|_| {
                let writer = ShardWriter::begin(&storage, storage::new_name, 1, &Origin::default(), 0).unwrap();
                !writer.path.exists()
            });
            let lost = lost.count();
            ended.store(true, Ordering::Relaxed);
            assert_eq!(lost, 0);
        });
    }
}
