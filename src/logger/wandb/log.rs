//! The transaction log of Weights & Biases, `run-ID.wandb`: what its client reads, at once or later.
//!
//! Seven bytes of header, then records in blocks of 32 KiB as LevelDB's log has them. A chunk of a record: CRC-32 (IEEE) of type and
//! data, length (u16), type (1 whole, 2 first, 3 middle, 4 last), data; little endian. A record is a protocol-buffer message
//! (`wandb_internal.Record`).

use super::super::message::Message;
use crate::error::{Error, Result};
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

/// Mark, magic number 0xBEE1, version 0.
const HEADER: &[u8] = b":W&B\xe1\xbe\x00";
const BLOCK: usize = 32 * 1024;
/// Check sum, length and type of a chunk.
const CHUNK_HEADER: usize = 7;

/// Writes one log.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Bytes in the last block.
    block: usize,
    /// Records so far.
    count: u64,
    bytes: Vec<u8>,
}

impl Log {
    /// Starts a log.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::options().write(true).create_new(true).open(path).map_err(|e| Error::file(path, e))?;
        Ok(Self { path: path.to_owned(), file, block: HEADER.len(), count: 0, bytes: HEADER.to_vec() })
    }

    /// Appends a record whose kind is the number of a field of `Record`. All of it is written by one call.
    pub fn record(&mut self, kind: u64, fill: impl FnOnce(&mut Message)) -> Result<()> {
        self.record_with(kind, fill, |_| ())
    }

    /// The same, with further fields of `Record`.
    pub fn record_with(&mut self, kind: u64, fill: impl FnOnce(&mut Message), further: impl FnOnce(&mut Message)) -> Result<()> {
        self.count += 1;
        let record = Message::new(|record| {
            record.integer(1, self.count);
            record.message(kind, fill);
            further(record);
        });
        self.append(&record.0);
        let written = self.file.write_all(&self.bytes).map_err(|e| Error::file(&self.path, e));
        self.bytes.clear();
        written
    }

    fn append(&mut self, mut data: &[u8]) {
        let mut first = true;
        loop {
            let left = BLOCK - self.block;
            if left < CHUNK_HEADER {
                self.bytes.extend(std::iter::repeat_n(0, left));
                self.block = 0;
                continue;
            }
            let (chunk, rest) = data.split_at(data.len().min(left - CHUNK_HEADER));
            let kind = match (first, rest.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let mut sum = crc32fast::Hasher::new();
            sum.update(&[kind]);
            sum.update(chunk);
            self.bytes.extend(sum.finalize().to_le_bytes());
            self.bytes.extend((chunk.len() as u16).to_le_bytes());
            self.bytes.push(kind);
            self.bytes.extend(chunk);
            self.block += CHUNK_HEADER + chunk.len();
            (data, first) = (rest, false);
            if data.is_empty() {
                return;
            }
        }
    }

    /// Makes the log safe from a crash of the machine.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::file(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a log, read by the rules of the format.
    fn records(data: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(&data[..7], HEADER);
        let (mut at, mut records, mut record) = (7, Vec::new(), Vec::new());
        while at < data.len() {
            let left = BLOCK - at % BLOCK;
            if left < CHUNK_HEADER {
                assert!(data[at..at + left].iter().all(|byte| *byte == 0));
                at += left;
                continue;
            }
            let length = u16::from_le_bytes(data[at + 4..at + 6].try_into().unwrap()) as usize;
            let chunk = &data[at + 6..at + 7 + length];
            assert_eq!(u32::from_le_bytes(data[at..at + 4].try_into().unwrap()), crc32fast::hash(chunk));
            assert!(CHUNK_HEADER + length <= left);
            assert_eq!(record.is_empty(), matches!(chunk[0], 1 | 2));
            record.extend(&chunk[1..]);
            if matches!(chunk[0], 1 | 4) {
                records.push(std::mem::take(&mut record));
            }
            at += CHUNK_HEADER + length;
        }
        assert!(record.is_empty());
        records
    }

    #[test]
    fn records_of_every_size_are_framed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wandb");
        let mut log = Log::create(&path).unwrap();
        // Ends of blocks with 0 to 20 bytes left, and records over several blocks.
        let sizes: Vec<usize> = (0..21).map(|left| BLOCK - 7 - 20 - left).chain([0, 1, 100_000, BLOCK, 2 * BLOCK]).collect();
        for (i, size) in sizes.iter().enumerate() {
            log.record(2, |m| m.bytes(1, &vec![i as u8; *size])).unwrap();
        }
        let records = records(&std::fs::read(&path).unwrap());
        assert_eq!(records.len(), sizes.len());
        for (i, (record, size)) in records.iter().zip(&sizes).enumerate() {
            assert_eq!(record[..2], [8, i as u8 + 1]);
            assert!(record.ends_with(&vec![i as u8; *size]));
        }
    }
}
