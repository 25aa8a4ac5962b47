//! Shards as they are read.

use super::{
    Check, Name,
    column::{Damaged, Read, Reader},
    entry,
    index::Index,
    shard::{self, Kind},
    storage::{self, Storage, index_path},
    writer::{equal, hash},
};
use crate::{
    error::{Error, Rejection, Result},
    features::{FeatureBuilder, Features},
    scenario::PolygonSamples,
};
use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
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
    /// Offset and length of frames with polygons.
    polygon_frames: Vec<(u64, u32)>,
    /// Its polygons by number, those that are damaged left out; none until they are read.
    pub(super) polygons: RwLock<Option<Vec<Option<Arc<PolygonSamples>>>>>,
}

/// Polygons that several shards hold, in memory once.
pub(super) type Pool = Mutex<HashMap<u64, Arc<PolygonSamples>>>;

impl Shard {
    /// A shard that this process has begun.
    pub(super) fn begun(file: File) -> Self {
        Self { file, polygon_frames: Vec::new(), polygons: RwLock::new(Some(Vec::new())) }
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
        Self { file, polygon_frames: index.polygons.clone(), polygons: RwLock::new(None) }
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
        let numbers: Vec<usize> = reader.small(count)?;
        let table = self.polygons.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = &*table {
            return pick(table, &numbers);
        }
        drop(table);
        let mut table = self.polygons.write().unwrap_or_else(PoisonError::into_inner);
        pick(table.get_or_insert_with(|| self.read_polygons(pool)), &numbers)
    }

    fn read_polygons(&self, pool: &Pool) -> Vec<Option<Arc<PolygonSamples>>> {
        let (mut table, mut payload) = (Vec::new(), Vec::new());
        for &(offset, length) in &self.polygon_frames {
            if let Ok(header) = shard::read_frame(&self.file, offset, length as usize, &mut payload)
                && header.kind == Kind::Polygons
            {
                // What is damaged stays empty.
                let _ = read_polygons(&mut Reader::new(&payload), header.number, &mut table, pool);
            }
        }
        table
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

fn pick(table: &[Option<Arc<PolygonSamples>>], numbers: &[usize]) -> Read<Vec<Arc<PolygonSamples>>> {
    numbers.iter().map(|&number| table.get(number).and_then(Clone::clone).ok_or(Damaged)).collect()
}

/// Reads the polygons of a frame into a shard's table.
fn read_polygons(reader: &mut Reader, first: u64, table: &mut Vec<Option<Arc<PolygonSamples>>>, pool: &Pool) -> Read<()> {
    let first = usize::try_from(first).ok().filter(|first| *first <= MOST_POLYGONS).ok_or(Damaged)?;
    let count = reader.count(MOST_POLYGONS - first)?;
    for number in first..first + count {
        let polygon = Arc::new(entry::read_polygon(reader)?);
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        let pooled = Arc::clone(pool.entry(hash(&polygon)).or_insert_with(|| Arc::clone(&polygon)));
        if table.len() <= number {
            table.resize(number + 1, None);
        }
        table[number] = Some(if equal(&pooled, &polygon) { pooled } else { polygon });
    }
    Ok(())
}
