//! Event files of TensorBoard: records of protocol-buffer messages (`tensorflow.Event`), each with check sums.
//!
//! Record: length (u64), masked CRC-32C of the length, data, masked CRC-32C of the data; little endian. Records are only
//! ever appended whole, so a reader of a run that was killed finds every record that was written.

mod hyperparameters;

use super::{Logger, Opening, Status, message::Message, now, picture::Image};
use crate::error::{Error, Result};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Writes one event file.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
    record: Vec<u8>,
}

/// Keeps apart the files of one process within one second.
static FILES: AtomicU32 = AtomicU32::new(0);

impl TensorBoard {
    /// Starts an event file in a folder, which is made.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(folder: &Path, opening: &Opening) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("events.out.tfevents.{}.localhost.{}.{number}", now() as u64, std::process::id()));
        let file = File::options().write(true).create_new(true).open(&path).map_err(|e| Error::file(&path, e))?;
        let mut writer = Self { path, file, record: Vec::new() };
        writer.event(|event| event.text(3, "brain.Event:2"))?;
        for summary in hyperparameters::start(opening.config) {
            writer.summary(0, &summary)?;
        }
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn event(&mut self, fill: impl FnOnce(&mut Message)) -> Result<()> {
        let event = Message::new(|event| {
            event.double(1, now());
            fill(event);
        });
        let length = (event.0.len() as u64).to_le_bytes();
        self.record.clear();
        self.record.extend(length);
        self.record.extend(masked(&length).to_le_bytes());
        self.record.extend(&event.0);
        self.record.extend(masked(&event.0).to_le_bytes());
        self.file.write_all(&self.record).map_err(|e| Error::file(&self.path, e))
    }

    fn summary(&mut self, step: u64, summary: &Message) -> Result<()> {
        self.event(|event| {
            event.integer(2, step);
            event.bytes(5, &summary.0);
        })
    }
}

impl Logger for TensorBoard {
    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let summary = Message::new(|summary| {
            for (tag, value) in values {
                summary.message(1, |entry| {
                    entry.text(1, tag);
                    entry.float(2, *value as f32);
                });
            }
        });
        self.summary(step, &summary)
    }

    fn takes_images(&self) -> bool {
        true
    }

    fn image(&mut self, step: u64, name: &str, image: &Image) -> Result<()> {
        const RGB: u64 = 3;
        let summary = Message::new(|summary| {
            summary.message(1, |entry| {
                entry.text(1, name);
                entry.message(4, |m| {
                    m.integer(1, image.height as u64);
                    m.integer(2, image.width as u64);
                    m.integer(3, RGB);
                    m.bytes(4, &image.png);
                });
            });
        });
        self.summary(step, &summary)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::file(&self.path, e))
    }

    fn finish(&mut self, status: Status) -> Result<()> {
        self.summary(0, &hyperparameters::end(status))?;
        self.flush()
    }
}

/// The published way to keep a check sum of data with a check sum inside from being trivial.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::tree::Value, logger::Position};

    #[test]
    fn records_are_framed_and_encoded() {
        let folder = tempfile::tempdir().unwrap();
        let opening = Opening { config: &Value::Null, position: &Position::default(), fitting: true };
        let mut writer = TensorBoard::open(folder.path(), &opening).unwrap();
        writer.scalars(300, &[("loss/a".into(), 1.5)]).unwrap();
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
        // The version, hyper-parameters with their metric, the value.
        assert_eq!(records.len(), 5);
        assert_eq!(&records[0][9..], b"\x1a\x0dbrain.Event:2");
        // step = 300, then the summary with one value.
        assert_eq!(&records[4][9..], b"\x10\xac\x02\x2a\x0f\x0a\x0d\x0a\x06loss/a\x15\x00\x00\xc0\x3f");
    }

    #[test]
    fn check_sums_are_those_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
