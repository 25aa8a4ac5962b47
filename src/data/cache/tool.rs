//! Looking at a cache from outside: what it holds, whether it is whole, packing it anew, taking features out of it.

use super::{
    Name,
    column::{Damaged, Read, Reader},
    entry::{self, Encoded},
    index::Index,
    key,
    polygons::Pool,
    reader::{Place, Shard, open_all},
    shard::{self, Kind},
    storage::{self, Storage},
    writer::{Origin, SHARD_BYTES, ShardWriter},
};
use crate::{
    error::{Error, Result},
    features::{Array, FeatureBuilder, Features},
    files::write_atomically,
};
use safetensors::{Dtype, tensor::TensorView};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// A shard, as [`list`] shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardSummary {
    /// Name of its file.
    pub name: String,
    /// How its features were built; none if that is damaged or of another version of the library.
    pub builder: Option<FeatureBuilder>,
    /// Bytes of its file.
    pub bytes: u64,
    /// Entries, those of rejected scenarios among them.
    pub entries: usize,
    /// Stretches that are damaged.
    pub damaged: usize,
    /// Whether a process is writing to it.
    pub in_use: bool,
}

/// An entry, as [`entries`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntrySummary {
    /// Name of its shard.
    pub shard: String,
    /// Names the scenario.
    pub token: String,
    /// Recording that it was cut from.
    pub log_name: String,
    /// Its label.
    pub scenario_type: String,
    /// Bytes that it takes, without polygons.
    pub bytes: usize,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Entries that are whole and can be read.
    pub whole: usize,
    /// What is not, in words.
    pub faults: Vec<String>,
}

/// What [`compact`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Entries kept.
    pub kept: usize,
    /// Bytes of the shards before.
    pub before: u64,
    /// Bytes of the shards afterwards.
    pub after: u64,
    /// Shards left alone since a process is writing to them.
    pub in_use: usize,
    /// Shards left alone since it is damaged how their features were built.
    pub unknown: usize,
}

/// What [`features`] handed out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Scenarios whose features it handed out.
    pub count: usize,
    /// Entries left out since another version of the library wrote them.
    pub other: usize,
}

struct Open {
    name: String,
    path: PathBuf,
    shard: Shard,
    index: Index,
    origin: Option<Origin>,
    bytes: u64,
    in_use: bool,
}

impl Open {
    fn builder(&self) -> Option<FeatureBuilder> {
        self.origin.as_ref().and_then(Origin::builder)
    }

    fn payload(&self, i: usize, buffer: &mut Vec<u8>) -> Read<shard::Header> {
        let (key, offset, length) = self.index.places[i];
        shard::read_frame(&self.shard.file, offset, length as usize, buffer).and_then(|header| {
            let sound = header.number == key && matches!(header.kind, Kind::Entry | Kind::Rejected);
            if sound { Ok(header) } else { Err(Damaged) }
        })
    }
}

/// The storage of a cache that is there.
fn existing(cache: &str) -> Result<Box<dyn Storage>> {
    super::storage(cache, false)
}

fn open(storage: &dyn Storage) -> Result<Vec<Open>> {
    let open = |(name, path, file): (String, PathBuf, File)| {
        let in_use = storage::is_in_use(&path);
        read(name, path, file, in_use)
    };
    open_all(storage)?.into_iter().map(open).collect()
}

fn read(name: String, path: PathBuf, file: File, in_use: bool) -> Result<Open> {
    let (shard, index) = Shard::open(file, &path)?;
    let origin = Origin::read(&shard.file);
    let bytes = shard.file.metadata().map_err(|e| Error::file(&path, e))?.len();
    Ok(Open { name, path, shard, index, origin, bytes, in_use })
}

/// All shards.
///
/// # Errors
/// [`Error::File`] if the folder is no cache or cannot be read.
pub fn list(cache: &str) -> Result<Vec<ShardSummary>> {
    let summary = |open: Open| ShardSummary {
        builder: open.builder(),
        bytes: open.bytes,
        entries: open.index.places.len(),
        damaged: open.index.damaged,
        in_use: open.in_use,
        name: open.name,
    };
    Ok(open(&*existing(cache)?)?.into_iter().map(summary).collect())
}

/// All entries, in the order in which they were written.
///
/// # Errors
/// As [`list`].
pub fn entries(cache: &str) -> Result<Vec<EntrySummary>> {
    let mut entries = Vec::new();
    for open in open(&*existing(cache)?)? {
        let names = &open.index.names;
        entries.extend(open.index.places.iter().enumerate().map(|(i, place)| EntrySummary {
            shard: open.name.clone(),
            token: names.token(i).to_owned(),
            log_name: names.log_name(i).to_owned(),
            scenario_type: names.scenario_type(i).to_owned(),
            bytes: place.2 as usize,
        }));
    }
    Ok(entries)
}

/// Reads everything: every frame of every shard, whether each index says what its shard holds, every entry with its polygons.
///
/// # Errors
/// As [`list`].
pub fn verify(cache: &str) -> Result<Verification> {
    let mut found = Verification::default();
    for open in open(&*existing(cache)?)? {
        let fresh = Index::of(&open.shard.file, &open.path)?;
        let mut fault = |text: String| found.faults.push(format!("{}: {text}", open.name));
        if fresh.damaged > 0 {
            fault(format!("{} stretches are damaged", fresh.damaged));
        }
        if fresh.covered < fresh.bytes && !open.in_use && !storage::is_in_use(&open.path) {
            fault(format!("its last {} bytes are no whole frame", fresh.bytes - fresh.covered));
        }
        // Of a shard that has grown since the index tells nothing.
        if fresh.bytes == open.index.bytes && fresh.places != open.index.places {
            fault(format!("its index names {} entries, {} are whole", open.index.places.len(), fresh.places.len()));
        }
        let (pool, mut payload) = (Pool::default(), Vec::new());
        let open = Open { shard: Shard::of(open.shard.file, &fresh), index: fresh, ..open };
        for i in 0..open.index.places.len() {
            let sound = open.payload(i, &mut payload).and_then(|header| {
                let mut reader = Reader::new(&payload);
                let name = Name::read(&mut reader)?;
                if open.index.fingerprint.is_some_and(|fingerprint| key(fingerprint, &name) != header.number) {
                    return Err(Damaged);
                }
                if header.kind == Kind::Entry {
                    let polygons = open.shard.polygons(&mut reader, &pool)?;
                    entry::check(reader.rest(), &polygons)?;
                }
                Ok(())
            });
            match sound {
                Ok(()) => found.whole += 1,
                Err(Damaged) => found.faults.push(format!("{}: the entry of '{}' cannot be read", open.name, open.index.names.token(i))),
            }
        }
    }
    Ok(found)
}

/// Writes all entries that are whole to new shards, of those with one key the latest, and removes the old shards. Shards that a
/// process is writing to, and those that do not say how their features were built, are left alone. What is killed half-way has lost
/// nothing.
///
/// # Errors
/// As [`list`]; [`Error::File`] if a shard cannot be locked, or a new one cannot be written.
pub fn compact(cache: &str) -> Result<Compaction> {
    let storage = existing(cache)?;
    let storage = &*storage;
    let mut result = Compaction::default();
    // Shards on both sides of one that is being written are not packed together: which of two entries is the later one stays so.
    let mut groups: BTreeMap<(u64, usize), Vec<Open>> = BTreeMap::new();
    let mut empty = Vec::new();
    for (name, path, _) in open_all(storage)? {
        // Locked until the end, so that nobody else compacts the shards.
        let file = match storage::lock(&path) {
            Ok(Some(file)) => file,
            Ok(None) => {
                result.in_use += 1;
                continue;
            }
            // Another process has just packed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file(path, format!("cannot be locked: {error}"))),
        };
        // Only now: until it was locked it may have grown.
        let open = read(name, path, file, false)?;
        match open.index.fingerprint {
            Some(fingerprint) => groups.entry((fingerprint, result.in_use)).or_default().push(open),
            None if open.bytes == 0 => empty.push(open),
            None => result.unknown += 1,
        }
    }
    for (&(fingerprint, _), shards) in &groups {
        result.before += shards.iter().map(|open| open.bytes).sum::<u64>();
        pack(storage, fingerprint, shards, &mut result)?;
    }
    groups.values().flatten().chain(&empty).try_for_each(|open| storage.remove(&open.name))?;
    Ok(result)
}

/// Writes the latest whole entries of some shards to new ones, which come in their place in the order of time.
fn pack(storage: &dyn Storage, fingerprint: u64, shards: &[Open], result: &mut Compaction) -> Result<()> {
    let Some(newest) = shards.last() else { return Ok(()) };
    let origin = shards.iter().find_map(|open| open.origin.clone()).unwrap_or_default();
    let places = || shards.iter().enumerate().flat_map(|(s, open)| open.index.places.iter().enumerate().map(move |(i, p)| (p.0, (s, i))));
    let mut latest: HashMap<u64, (usize, usize)> = places().collect();
    let (pool, mut payload, mut writer) = (Pool::default(), Vec::new(), None);
    while !latest.is_empty() {
        let mut damaged = HashMap::new();
        for (key, (s, i)) in places().filter(|(key, at)| latest.get(key) == Some(at)) {
            if writer.as_ref().is_none_or(|writer: &ShardWriter| writer.is_full(SHARD_BYTES)) {
                if let Some(writer) = writer.take() {
                    result.after += writer.end(storage)?;
                }
                writer = Some(ShardWriter::begin(storage, || storage::name_after(&newest.name), fingerprint, &origin, 0)?);
            }
            let Some(writer) = &mut writer else { continue };
            let open = &shards[s];
            if let Ok(header) = open.payload(i, &mut payload)
                && copy(writer, &open.shard, &header, &payload, &pool)?
            {
                result.kept += 1;
            } else {
                damaged.insert(key, (s, i));
            }
        }
        // Instead of an entry that is damaged, the one before it.
        latest = places().filter(|(key, at)| damaged.get(key).is_some_and(|lost| at < lost)).collect();
    }
    result.after += writer.map_or(Ok(0), |writer| writer.end(storage))?;
    Ok(())
}

/// Writes an entry once more; false if it cannot be read.
fn copy(writer: &mut ShardWriter, shard: &Shard, header: &shard::Header, payload: &[u8], pool: &Pool) -> Result<bool> {
    let mut reader = Reader::new(payload);
    let Ok(name) = Name::read(&mut reader) else { return Ok(false) };
    if header.kind == Kind::Rejected {
        writer.copy_rejected(header.number, payload)?;
        return Ok(true);
    }
    let Ok(polygons) = shard.polygons(&mut reader, pool) else { return Ok(false) };
    if entry::check(reader.rest(), &polygons).is_err() {
        return Ok(false);
    }
    writer.put(header.number, &name, &Encoded { polygons, body: reader.rest().to_vec() })?;
    Ok(true)
}

/// Hands out the features of scenarios, all or those with these tokens, with the name of each. Several have one token if their logs
/// or types differ, or their features were built in different ways. What another version of the library wrote is left out.
///
/// # Errors
/// As [`list`]; [`Error::Data`] if a token has no entry, or one that cannot be read; what `each` fails with.
pub fn features(cache: &str, tokens: &[String], mut each: impl FnMut(&Name, &Features) -> Result<()>) -> Result<Taken> {
    let mut latest: BTreeMap<(String, u64), (usize, usize)> = BTreeMap::new();
    let shards = open(&*existing(cache)?)?;
    for (s, open) in shards.iter().enumerate() {
        for (i, place) in open.index.places.iter().enumerate() {
            let token = open.index.names.token(i);
            if tokens.is_empty() || tokens.iter().any(|t| t == token) {
                latest.insert((token.to_owned(), place.0), (s, i));
            }
        }
    }
    if let Some(missing) = tokens.iter().find(|token| !latest.keys().any(|(found, _)| found == *token)) {
        return Err(Error::Data(format!("the cache has no entry of '{missing}'")));
    }
    let pool = Pool::default();
    let mut taken = Taken::default();
    for (s, i) in latest.into_values() {
        let open = &shards[s];
        let name = open.index.names.name(i);
        let (key, offset, length) = open.index.places[i];
        let unreadable = || Error::Data(format!("the entry of '{}' in {} cannot be read", name.token, open.name));
        let Some(builder) = open.builder() else {
            taken.other += 1;
            continue;
        };
        match open.shard.entry(&Place { key, shard: 0, length, offset }, &name, &builder, &pool).map_err(|_| unreadable())? {
            super::Entry::Features(features) => each(&name, &features)?,
            super::Entry::Rejected(..) => continue,
        }
        taken.count += 1;
    }
    Ok(taken)
}

/// Writes features as safetensors, every array by its published name.
///
/// # Errors
/// [`Error::File`].
pub fn export(path: &Path, name: &Name, features: &Features) -> Result<()> {
    let arrays: Vec<_> = features.arrays().into_iter().map(|(name, shape, array)| (name, shape, kind(&array), array.bytes())).collect();
    let view = |(name, shape, kind, bytes)| Ok((name, TensorView::new(kind, shape, bytes)?));
    let fail = |e: safetensors::SafeTensorError| Error::file(path, e);
    let views: Vec<(&str, TensorView)> = arrays
        .iter()
        .map(|(name, shape, kind, bytes)| view((*name, shape.clone(), *kind, &bytes[..])))
        .collect::<std::result::Result<_, _>>()
        .map_err(fail)?;
    let texts = [("token", name.token), ("log_name", name.log_name), ("scenario_type", name.scenario_type)];
    let texts = texts.into_iter().map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
    let bytes = safetensors::serialize(views, Some(texts)).map_err(fail)?;
    write_atomically(path, &bytes)
}

fn kind(array: &Array) -> Dtype {
    match array {
        Array::F64(_) => Dtype::F64,
        Array::F32(_) => Dtype::F32,
        Array::I32(_) => Dtype::I32,
        Array::I8(_) => Dtype::I8,
        Array::Bool(_) => Dtype::BOOL,
    }
}
