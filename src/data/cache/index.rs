//! What a shard holds and where: a small file beside it, which can always be made again from the shard.

use super::{
    column::{Damaged, Read, Reader, Writer},
    entry::{split_number, split_of},
    shard::{self, Kind},
};
use crate::{
    data::catalogue::{Catalogue, Name},
    error::Result,
    files::write_atomically,
};
use std::{fs::File, path::Path};

/// Begins every index; the checksum of the rest follows.
const MAGIC: [u8; 4] = *b"TEi2";
/// Most entries of a shard, against memory taken for damaged counts.
const MOST: usize = 1 << 27;

/// Entries of a shard, in the order in which they were written.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// What the features depend on besides the scenario; none if that is damaged.
    pub(super) fingerprint: Option<u64>,
    /// Bytes of the shard: of a longer or shorter one this is no index.
    pub(super) bytes: u64,
    /// Where its last whole frame ends.
    pub(super) covered: u64,
    /// Stretches of the shard that are no whole frame.
    pub(super) damaged: usize,
    /// Offset and length of the payload of frames with polygons.
    pub(super) polygons: Vec<(u64, u32)>,
    /// Key, offset, and length of the payload of each entry.
    pub(super) places: Vec<(u64, u64, u32)>,
    /// Names of the entries.
    pub(super) names: Catalogue,
}

impl Index {
    /// Adds a whole frame.
    pub(super) fn add(&mut self, offset: u64, kind: Kind, number: u64, payload: &[u8]) {
        let length = payload.len() as u32;
        match kind {
            Kind::Shard => self.fingerprint = Some(number),
            Kind::Polygons => self.polygons.push((offset, length)),
            Kind::Entry | Kind::Rejected => match Name::read(&mut Reader::new(payload)) {
                Ok(name) => {
                    self.places.push((number, offset, length));
                    self.names.push(&name);
                }
                Err(Damaged) => self.damaged += 1,
            },
        }
    }

    /// Looks at a whole shard.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read.
    pub(super) fn of(file: &File, path: &Path) -> Result<Self> {
        let mut index = Self::default();
        let walk = shard::walk(file, path, |offset, header, payload| index.add(offset, header.kind, header.number, payload))?;
        (index.covered, index.bytes) = (walk.end, walk.end + walk.torn);
        index.damaged += walk.damaged;
        Ok(index)
    }

    /// The bytes of its file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.flags(&[self.fingerprint.is_some()]);
        [self.fingerprint.unwrap_or(0), self.bytes, self.covered, self.damaged as u64].into_iter().for_each(|number| w.number(number));
        w.number(self.polygons.len() as u64);
        w.small(self.polygons.iter().map(|place| place.0 as i64));
        w.small(self.polygons.iter().map(|place| place.1.into()));
        let names = &self.names;
        w.number(names.len() as u64);
        w.small(self.places.iter().map(|place| place.0 as i64));
        w.small(self.places.iter().map(|place| place.1 as i64));
        w.small(self.places.iter().map(|place| place.2.into()));
        for texts in [names.logs(), names.types(), names.maps()] {
            w.number(texts.len() as u64);
            texts.iter().for_each(|text| w.bytes(text.as_bytes()));
        }
        let each = || 0..names.len();
        w.small(each().map(|i| names.log(i) as i64));
        w.small(each().map(|i| names.type_number(i) as i64));
        w.small(each().map(|i| names.map(i) as i64));
        w.small(each().map(|i| split_number(names.split(i)).into()));
        w.flags(&each().map(|i| names.start_us(i).is_some()).collect::<Vec<_>>());
        w.small(each().filter_map(|i| names.start_us(i)));
        w.small(each().map(|i| names.token(i).len() as i64));
        w.bytes(each().map(|i| names.token(i)).collect::<String>().as_bytes());
        let rest = w.finish();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(crc32c::crc32c(&rest).to_le_bytes());
        bytes.extend(rest);
        bytes
    }

    /// The reverse of [`Self::to_bytes`].
    pub(super) fn parse(bytes: &[u8]) -> Read<Self> {
        let (start, rest) = bytes.split_at_checked(8).ok_or(Damaged)?;
        if start[..4] != MAGIC || start[4..] != crc32c::crc32c(rest).to_le_bytes() {
            return Err(Damaged);
        }
        let mut r = Reader::new(rest);
        let known = r.flags(1)?[0];
        let fingerprint = r.number()?;
        let (bytes, covered, damaged) = (r.number()?, r.number()?, r.count(usize::MAX)?);
        let count = r.count(MOST.min(rest.len() * 16))?;
        let offsets: Vec<u64> = r.small(count)?;
        let lengths: Vec<u32> = r.small(count)?;
        let polygons = offsets.into_iter().zip(lengths).collect();
        // Every entry has a key, which takes bytes.
        let count = r.count(MOST.min(rest.len()))?;
        let keys: Vec<i64> = r.small(count)?;
        let offsets: Vec<u64> = r.small(count)?;
        let lengths: Vec<u32> = r.small(count)?;
        let places = keys.into_iter().zip(offsets).zip(lengths).map(|((key, offset), length)| (key as u64, offset, length)).collect();
        let [logs, types, maps] = [texts(&mut r)?, texts(&mut r)?, texts(&mut r)?];
        let log_numbers: Vec<u32> = r.small(count)?;
        let type_numbers: Vec<u32> = r.small(count)?;
        let map_numbers: Vec<u32> = r.small(count)?;
        let splits: Vec<u8> = r.small(count)?;
        let started = r.flags(count)?;
        let mut starts = r.small(started.iter().filter(|known| **known).count())?.into_iter();
        let lengths: Vec<u32> = r.small(count)?;
        let mut tokens = r.text()?;
        let mut names = Catalogue::default();
        for i in 0..count {
            let (token, others) = tokens.split_at_checked(lengths[i] as usize).ok_or(Damaged)?;
            tokens = others;
            names.push(&Name {
                token,
                log_name: logs.get(log_numbers[i] as usize).ok_or(Damaged)?,
                scenario_type: types.get(type_numbers[i] as usize).ok_or(Damaged)?,
                split: split_of(splits[i]),
                map_name: maps.get(map_numbers[i] as usize).ok_or(Damaged)?,
                start_us: if started[i] { starts.next() } else { None },
            });
        }
        Ok(Self { fingerprint: known.then_some(fingerprint), bytes, covered, damaged, polygons, places, names })
    }

    /// Reads the file of an index; none if there is none, it is damaged, or the shard has another length.
    pub(super) fn read(path: &Path, shard_bytes: u64) -> Option<Self> {
        Self::parse(&std::fs::read(path).ok()?).ok().filter(|index| index.bytes == shard_bytes)
    }

    /// Writes the file of an index, whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, &self.to_bytes())
    }
}

fn texts<'a>(r: &mut Reader<'a>) -> Read<Vec<&'a str>> {
    let count = r.count(MOST)?;
    (0..count).map(|_| r.text()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Split;

    fn index(count: usize) -> Index {
        let mut index = Index { fingerprint: Some(u64::MAX - 3), bytes: 80, covered: 77, damaged: 2, ..Default::default() };
        index.polygons.push((24, 900));
        for i in 0..count {
            index.places.push((i as u64 * 0x9E37_79B9_7F4A_7C15, 24 + 100 * i as u64, 76));
            index.names.push(&Name {
                token: &format!("token {i}"),
                log_name: &format!("log {}", i / 3),
                scenario_type: "turn",
                split: [None, Some(Split::Train)][i % 2],
                map_name: ["", "town"][i % 2],
                start_us: [None, Some(-7 * i as i64), Some(i64::MAX)][i % 3],
            });
        }
        index
    }

    #[test]
    fn comes_back_whole_or_not_at_all() {
        for count in [0, 1, 50] {
            let written = index(count);
            let bytes = written.to_bytes();
            let back = Index::parse(&bytes).unwrap();
            assert_eq!((back.fingerprint, back.covered, back.damaged, &back.polygons), (written.fingerprint, 77, 2, &written.polygons));
            assert_eq!(back.places, written.places);
            assert_eq!(back.to_bytes(), bytes);
            assert!((0..count).all(|i| back.names.name(i) == written.names.name(i)));
            for i in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[i] ^= 1 << (i % 8);
                assert!(Index::parse(&flipped).is_err() && Index::parse(&bytes[..i]).is_err());
            }
        }
    }
}
