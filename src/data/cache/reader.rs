//! Shards as they are read.

use super::{
    Check, Name,
    column::{Damaged, Read, Reader},
    entry,
    index::Index,
    polygons::{Frame, Pool},
    shard::{self, Kind},
    storage::{self, Storage, index_path},
};
use crate::{
    error::{Error, Rejection, Result},
    features::{FeatureBuilder, Features},
    scenario::PolygonSamples,
};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Once, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Most polygons of a shard, against memory taken for damaged counts.
const MOST_POLYGONS: usize = 1 << 22;

/// How often shards are listed if some vanish meanwhile.
const MOST_LISTINGS: usize = 8;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: u64,
    /// Position among the shards.
    pub(super) shard: u32,
    /// Bytes of the payload.
    pub(super) length: u32,
    /// Of the frame in its shard.
    pub(super) offset: u64,
}

/// What an entry says.
#[derive(Debug)]
pub(super) enum Entry {
    Features(Box<Features>),
    Rejected(Rejection, String),
}

/// A shard that is open for reading.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) file: File,
    /// Tells it from other shards of this process.
    number: u64,
    /// Offset and length of frames with polygons, as its index has them.
    indexed: Vec<(u64, u32)>,
    /// Set once the headers of these frames are read.
    headers: Once,
    /// Frames with polygons, by the number of the first.
    polygon_frames: RwLock<Vec<PolygonFrame>>,
}

/// Where polygons are.
#[derive(Debug, Clone, Copy)]
pub(super) struct PolygonFrame {
    /// Number of the first.
    pub(super) first: u32,
    /// Bytes of the payload.
    pub(super) length: u32,
    /// Of the frame in its shard.
    pub(super) offset: u64,
}

impl Shard {
    /// A shard that this process has begun.
    pub(super) fn begun(file: File) -> Self {
        Self::of(file, &Index::default())
    }

    /// Takes an open shard with its index, which is made anew where it is missing or damaged, and written unless another process is
    /// still adding to the shard.
    ///
    /// # Errors
    /// [`Error::File`] if the shard cannot be read.
    pub(super) fn open(file: File, path: &Path) -> Result<(Self, Index)> {
        let size = file.metadata().map_err(|e| Error::file(path, e))?.len();
        let index_path: PathBuf = index_path(path);
        let index = match Index::read(&index_path, size) {
            Some(index) => index,
            None => {
                // The lock is free if its writer is gone.
                let lock = storage::lock(path).ok().flatten();
                let index = Index::of(&file, path)?;
                if lock.is_some() {
                    // Without the right to write, the next one has to look as well.
                    let _ = index.write(&index_path);
                }
                index
            }
        };
        Ok((Self::of(file, &index), index))
    }

    /// A shard as its index describes it.
    pub(super) fn of(file: File, index: &Index) -> Self {
        static SHARDS: AtomicU64 = AtomicU64::new(0);
        let number = SHARDS.fetch_add(1, Ordering::Relaxed);
        Self { file, number, indexed: index.polygons.clone(), headers: Once::new(), polygon_frames: RwLock::default() }
    }

    /// The entry at a place, if it is whole and of this name.
    ///
    /// # Errors
    /// [`Damaged`].
    pub(super) fn entry(&self, place: &Place, name: &Name, builder: &FeatureBuilder, pool: &Pool) -> Read<Entry> {
        let mut payload = Vec::new();
        let (kind, mut reader) = self.begin(place, name, &mut payload)?;
        if kind == Kind::Rejected {
            let (rejection, reason) = rejected(&mut reader)?;
            return Ok(Entry::Rejected(rejection, reason));
        }
        let polygons = self.polygons(&mut reader, pool)?;
        Ok(Entry::Features(Box::new(entry::decode(name, reader.rest(), &polygons, builder)?)))
    }

    /// As [`Self::entry`], without making the features.
    ///
    /// # Errors
    /// [`Damaged`].
    pub(super) fn check(&self, place: &Place, name: &Name, pool: &Pool) -> Read<Check> {
        let mut payload = Vec::new();
        let (kind, mut reader) = self.begin(place, name, &mut payload)?;
        if kind == Kind::Rejected {
            let (rejection, reason) = rejected(&mut reader)?;
            return Ok(Check::Rejected(rejection, reason));
        }
        self.polygons(&mut reader, pool)?;
        Ok(Check::Whole)
    }

    fn begin<'a>(&self, place: &Place, name: &Name, payload: &'a mut Vec<u8>) -> Read<(Kind, Reader<'a>)> {
        let header = shard::read_frame(&self.file, place.offset, place.length as usize, payload)?;
        let mut reader = Reader::new(payload);
        let found = Name::read(&mut reader)?;
        let same = found.token == name.token && found.log_name == name.log_name && found.scenario_type == name.scenario_type;
        if !same || header.number != place.key || !matches!(header.kind, Kind::Entry | Kind::Rejected) {
            return Err(Damaged);
        }
        Ok((header.kind, reader))
    }

    /// An entry's polygons.
    pub(super) fn polygons(&self, reader: &mut Reader, pool: &Pool) -> Read<Vec<Arc<PolygonSamples>>> {
        let count = reader.count(MOST_POLYGONS)?;
        let numbers: Vec<u32> = reader.small(count)?;
        self.headers.call_once(|| self.read_headers());
        let frames = self.polygon_frames.read().unwrap_or_else(PoisonError::into_inner);
        // Polygons of one frame mostly follow one another.
        let mut last: (u32, Frame) = (0, Frame::default());
        let polygon = |&number: &u32| {
            let of_last = number.checked_sub(last.0).and_then(|i| last.1.get(i as usize));
            if let Some((_, polygon)) = of_last {
                return Ok(Arc::clone(polygon));
            }
            let place = frames[..frames.partition_point(|frame| frame.first <= number)].last().ok_or(Damaged)?;
            last = (place.first, pool.frame(self.number, place.offset, || self.read_polygons(place))?);
            last.1.get((number - place.first) as usize).map(|(_, polygon)| Arc::clone(polygon)).ok_or(Damaged)
        };
        numbers.iter().map(polygon).collect()
    }

    /// Readers find the polygons of a frame that was appended.
    pub(super) fn add(&self, frame: PolygonFrame) {
        self.polygon_frames.write().unwrap_or_else(PoisonError::into_inner).push(frame);
    }

    fn read_headers(&self) {
        let mut frames = self.polygon_frames.write().unwrap_or_else(PoisonError::into_inner);
        frames.extend(self.indexed.iter().filter_map(|&(offset, length)| {
            let header = shard::read_header(&self.file, offset).ok()?;
            Some(PolygonFrame { first: u32::try_from(header.number).ok()?, length, offset })
        }));
        // They are, unless a header is damaged.
        frames.sort_by_key(|frame| frame.first);
    }

    fn read_polygons(&self, place: &PolygonFrame) -> Read<Vec<PolygonSamples>> {
        let mut payload = Vec::new();
        let header = shard::read_frame(&self.file, place.offset, place.length as usize, &mut payload)?;
        if header.kind != Kind::Polygons || header.number != u64::from(place.first) {
            return Err(Damaged);
        }
        let mut reader = Reader::new(&payload);
        let count = reader.count(MOST_POLYGONS)?;
        (0..count).map(|_| entry::read_polygon(&mut reader)).collect()
    }
}

/// Opens the files of all shards, oldest first, with names and paths. One that is gone since it was listed was packed into another:
/// all are then listed anew, at last without it.
///
/// # Errors
/// [`Error::File`] if the storage cannot be listed or a shard not be opened.
pub(super) fn open_all(storage: &dyn Storage) -> Result<Vec<(String, PathBuf, File)>> {
    let mut listings = 0;
    loop {
        let names = storage.list()?;
        let (listed, mut opened) = (names.len(), Vec::new());
        for name in names {
            let path = storage.fetch(&name)?;
            match File::open(&path) {
                Ok(file) => opened.push((name, path, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file(path, error)),
            }
        }
        listings += 1;
        if opened.len() == listed || listings == MOST_LISTINGS {
            return Ok(opened);
        }
    }
}

fn rejected(reader: &mut Reader) -> Read<(Rejection, String)> {
    Ok((Rejection::of_name(reader.text()?).ok_or(Damaged)?, reader.text()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::cache::{
        column,
        entry::Encoded,
        storage::{Local, new_name},
        writer::{Origin, ShardWriter},
    };

    fn polygon(number: usize) -> Arc<PolygonSamples> {
        let point = |i: usize| [number as f64, i as f64 / 3.0];
        Arc::new(PolygonSamples::new(&[0, 1, 2].map(|side| std::array::from_fn(|i| point(side + i)))))
    }

    #[test]
    fn polygons_in_memory_do_not_exceed_their_bytes() {
        const ENTRIES: usize = 300;
        const EACH: usize = 4;
        const BYTES: usize = 100_000;
        let folder = tempfile::tempdir().unwrap();
        let storage = Local::open(folder.path(), true).unwrap();
        let mut writer = ShardWriter::begin(&storage, new_name, 1, &Origin::default(), 0).unwrap();
        let tokens: Vec<String> = (0..ENTRIES).map(|i| i.to_string()).collect();
        let mut places = Vec::new();
        for (i, token) in tokens.iter().enumerate() {
            // One is on the map of all.
            let polygons = (i * EACH + 1..(i + 1) * EACH).chain([0]).map(polygon).collect();
            let name = Name { token, ..Default::default() };
            places.push(writer.put(i as u64, &name, &Encoded { polygons, body: column::Writer::default().finish() }).unwrap());
        }
        let written = Arc::clone(&writer.shard);
        writer.end(&storage).unwrap();
        let (_, path, file) = open_all(&storage).unwrap().pop().unwrap();
        let (opened, _) = Shard::open(file, &path).unwrap();
        let pool = Pool::new(BYTES);
        for shard in [&*written, &opened] {
            for i in (0..ENTRIES).chain((0..ENTRIES).rev()) {
                let mut payload = Vec::new();
                let name = Name { token: &tokens[i], ..Default::default() };
                let (_, mut reader) = shard.begin(&places[i], &name, &mut payload).unwrap();
                let found = shard.polygons(&mut reader, &pool).unwrap();
                let right = found.iter().map(|polygon| polygon.points[0][0][0] as usize).eq((i * EACH + 1..(i + 1) * EACH).chain([0]));
                assert!(right && found[0].points == polygon(i * EACH + 1).points, "entry {i}");
                // Of each half one frame may go beyond.
                assert!(pool.bytes() > 0 && pool.bytes() < BYTES + 2 * EACH * 3000, "{} bytes", pool.bytes());
            }
        }
    }
}
