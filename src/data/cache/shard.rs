//! A shard: a file that frames are appended to. A frame is whole if its checksum is right, wherever it stands; what a crash left
//! behind, and what was damaged since, is passed over.
//!
//! | bytes | frame header |
//! |---|---|
//! | 4 | [`MAGIC`] |
//! | 4 | kind |
//! | 4 | bytes of the payload |
//! | 4 | CRC-32C of kind, length, number and payload |
//! | 8 | number: key of an entry, position of the first of some polygons, fingerprint of a shard |

use super::column::{Damaged, Read};
use crate::error::{Error, Result};
use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

/// Begins every frame.
pub(super) const MAGIC: [u8; 4] = *b"TEf2";
/// Bytes of a frame header.
pub(super) const HEADER: usize = 24;
/// Most bytes of a payload; a full-size entry takes some tens of thousands.
pub(super) const MOST_BYTES: usize = 1 << 26;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// First in the file; its number is the fingerprint of what the shard's features depend on.
    Shard = 1,
    /// Polygons, from the one whose number it has.
    Polygons = 2,
    /// Features of a scenario.
    Entry = 3,
    /// Why a scenario has none.
    Rejected = 4,
}

impl Kind {
    fn of(number: u32) -> Read<Self> {
        [Self::Shard, Self::Polygons, Self::Entry, Self::Rejected].into_iter().find(|kind| *kind as u32 == number).ok_or(Damaged)
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) length: usize,
    pub(super) number: u64,
    crc: u32,
}

impl Header {
    /// The header at a position in whole frames; none behind the last.
    pub(super) fn at(frames: &[u8], position: usize) -> Option<Self> {
        frames.get(position..)?.first_chunk().and_then(|bytes| Self::parse(bytes).ok())
    }

    fn parse(bytes: &[u8; HEADER]) -> Read<Self> {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let number = u64::from_le_bytes(std::array::from_fn(|i| bytes[16 + i]));
        let length = word(8) as usize;
        if bytes[..4] != MAGIC || length > MOST_BYTES {
            return Err(Damaged);
        }
        Ok(Self { kind: Kind::of(word(4))?, length, number, crc: word(12) })
    }
}

fn checksum(kind: Kind, number: u64, payload: &[u8]) -> u32 {
    let mut start = [0; 16];
    start[..4].copy_from_slice(&(kind as u32).to_le_bytes());
    start[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    start[8..].copy_from_slice(&number.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&start), payload)
}

/// Appends a frame to a buffer.
pub(super) fn frame(buffer: &mut Vec<u8>, kind: Kind, number: u64, payload: &[u8]) {
    buffer.extend(MAGIC);
    buffer.extend((kind as u32).to_le_bytes());
    buffer.extend((payload.len() as u32).to_le_bytes());
    buffer.extend(checksum(kind, number, payload).to_le_bytes());
    buffer.extend(number.to_le_bytes());
    buffer.extend_from_slice(payload);
}

/// Reads the frame at `offset` and checks it; `buffer` then holds its payload.
///
/// # Errors
/// [`Damaged`], also where the file ends or cannot be read.
pub(super) fn read_frame(file: &File, offset: u64, length: usize, buffer: &mut Vec<u8>) -> Read<Header> {
    if length > MOST_BYTES {
        return Err(Damaged);
    }
    buffer.resize(HEADER + length, 0);
    file.read_exact_at(buffer, offset).map_err(|_| Damaged)?;
    let header = Header::parse(&std::array::from_fn(|i| buffer[i]))?;
    buffer.drain(..HEADER);
    if header.length != length || header.crc != checksum(header.kind, header.number, buffer) {
        return Err(Damaged);
    }
    Ok(header)
}

/// Reads the header of the frame at `offset`, whose checksum is not looked at.
///
/// # Errors
/// As [`read_frame`].
pub(super) fn read_header(file: &File, offset: u64) -> Read<Header> {
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, offset).map_err(|_| Damaged)?;
    Header::parse(&bytes)
}

/// What a walk over a shard found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk {
    /// Where the last whole frame ends.
    pub(super) end: u64,
    /// Stretches before `end` that are no whole frame.
    pub(super) damaged: usize,
    /// Bytes behind `end`: a frame that was being written, or damage.
    pub(super) torn: u64,
}

/// Calls `each` with offset, header and payload of every whole frame.
///
/// # Errors
/// [`Error::File`] if the file cannot be read.
pub(super) fn walk(file: &File, path: &Path, mut each: impl FnMut(u64, &Header, &[u8])) -> Result<Walk> {
    let size = file.metadata().map_err(|e| Error::file(path, e))?.len();
    let (mut walk, mut at, mut lost, mut buffer) = (Walk::default(), 0, false, Vec::new());
    while at + HEADER as u64 <= size {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, at).map_err(|e| Error::file(path, e))?;
        let frame = Header::parse(&header).and_then(|header| read_frame(file, at, header.length, &mut buffer));
        if let Ok(header) = frame {
            each(at, &header, &buffer);
            at += (HEADER + header.length) as u64;
            walk.end = at;
            walk.damaged += usize::from(lost);
            lost = false;
        } else {
            lost = true;
            at = next_magic(file, at + 1, size).map_err(|e| Error::file(path, e))?;
        }
    }
    // A frame that was being written may have become whole meanwhile.
    walk.torn = size.saturating_sub(walk.end);
    Ok(walk)
}

/// Where the next frame may begin; `size` if nowhere.
fn next_magic(file: &File, mut at: u64, size: u64) -> io::Result<u64> {
    let mut window = vec![0; 1 << 16];
    while at < size {
        let count = window.len().min((size - at) as usize);
        file.read_exact_at(&mut window[..count], at)?;
        if let Some(found) = window[..count].windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
            return Ok(at + found as u64);
        }
        at += count.saturating_sub(MAGIC.len() - 1).max(1) as u64;
    }
    Ok(size)
}

/// Appends bytes, or leaves the file as it was.
pub(super) fn append(file: &mut File, path: &Path, length: u64, bytes: &[u8]) -> Result<()> {
    file.write_all(bytes).map_err(|error| {
        // A part of a frame may stand there; frames that follow are found nevertheless.
        let _ = file.set_len(length);
        Error::file(path, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_grows_while_it_is_walked_over_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard");
        let mut frames = Vec::new();
        frame(&mut frames, Kind::Shard, 1, b"first");
        let first = frames.len();
        frame(&mut frames, Kind::Entry, 2, b"second");
        std::fs::write(&path, &frames[..first + HEADER + 2]).unwrap();
        let mut walked = 0;
        let walk = walk(&File::open(&path).unwrap(), &path, |_, _, _| {
            walked += 1;
            std::fs::write(&path, &frames).unwrap();
        });
        assert_eq!((walk.unwrap(), walked), (Walk { end: frames.len() as u64, damaged: 0, torn: 0 }, 2));
    }
}
