//! Event files of TensorBoard: records of protocol-buffer messages (`tensorflow.Event`), each with check sums.
//!
//! Record: length (u64), masked CRC-32C of the length, data, masked CRC-32C of the data; little endian. Records are only
//! ever appended whole, so a reader of a run that was killed finds every record that was flushed.

use super::Logger;
use crate::error::{Error, Result};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Writes one event file.
pub struct TensorBoard {
    path: PathBuf,
    file: BufWriter<File>,
}

/// Keeps apart the files of one process within one second.
static FILES: AtomicU32 = AtomicU32::new(0);

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

impl TensorBoard {
    /// Starts an event file in a folder, which is made.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("events.out.tfevents.{}.localhost.{}.{number}", now() as u64, std::process::id()));
        let file = File::options().write(true).create_new(true).open(&path).map_err(|e| Error::file(&path, e))?;
        let mut writer = Self { path, file: BufWriter::new(file) };
        let mut event = Message::default();
        event.double(1, now());
        event.bytes(3, b"brain.Event:2");
        writer.record(&event.0)?;
        writer.flush()?;
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let parts: [&[u8]; 4] = [&length, &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()];
        self.file.write_all(&parts.concat()).map_err(|e| Error::file(&self.path, e))
    }
}

impl Logger for TensorBoard {
    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            entry.float(2, *value as f32);
            summary.bytes(1, &entry.0);
        }
        let mut event = Message::default();
        event.double(1, now());
        event.integer(2, step);
        event.bytes(5, &summary.0);
        self.record(&event.0)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|e| Error::file(&self.path, e))
    }
}

/// The published way to keep a check sum of data with a check sum inside from being trivial.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol-buffer message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
    fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }
    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }
    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_framed_and_encoded() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TensorBoard::new(folder.path()).unwrap();
        writer.scalars(300, &[("loss/a".into(), 1.5)]).unwrap();
        writer.flush().unwrap();
        let data = fs::read(writer.path()).unwrap();
        let mut records = Vec::new();
        let mut rest = &data[..];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let sum = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            assert_eq!(sum(8), masked(&rest[..8]));
            assert_eq!(sum(12 + length), masked(&rest[12..12 + length]));
            records.push(&rest[12..12 + length]);
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 2);
        assert_eq!(&records[0][9..], b"\x1a\x0dbrain.Event:2");
        // step = 300, then the summary with one value.
        assert_eq!(&records[1][9..], b"\x10\xac\x02\x2a\x0f\x0a\x0d\x0a\x06loss/a\x15\x00\x00\xc0\x3f");
    }

    #[test]
    fn check_sums_are_those_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
