//! What a run wrote to its TensorBoard file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Values by name, each with its step, in the order in which they were logged.
pub type Logged = BTreeMap<String, Vec<(u64, f32)>>;

/// Event files of a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().contains("tfevents")).collect();
    files.sort();
    files
}

/// Reads the event files of a folder.
pub fn read(folder: &Path) -> Logged {
    let mut logged = Logged::new();
    for file in files(folder) {
        let data = std::fs::read(file).unwrap();
        let mut rest = &data[..];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            event(&rest[12..12 + length], &mut logged);
            rest = &rest[16 + length..];
        }
    }
    logged
}

/// The steps under which a name was logged.
pub fn steps(logged: &Logged, name: &str) -> Vec<u64> {
    logged.get(name).into_iter().flatten().map(|(step, _)| *step).collect()
}

/// A field of a protocol-buffer message: number, value of a number, bytes of anything longer.
fn fields(mut data: &[u8]) -> Vec<(u64, u64, &[u8])> {
    fn varint(data: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = data[0];
            *data = &data[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !data.is_empty() {
        let key = varint(&mut data);
        let length = match key & 7 {
            0 => {
                found.push((key >> 3, varint(&mut data), &[][..]));
                continue;
            }
            1 => 8,
            2 => varint(&mut data) as usize,
            5 => 4,
            kind => panic!("wire type {kind}"),
        };
        found.push((key >> 3, 0, &data[..length]));
        data = &data[length..];
    }
    found
}

fn event(data: &[u8], logged: &mut Logged) {
    let event = fields(data);
    let step = event.iter().find(|(field, ..)| *field == 2).map_or(0, |(_, step, _)| *step);
    for (_, _, summary) in event.iter().filter(|(field, ..)| *field == 5) {
        for (_, _, value) in fields(summary) {
            let value = fields(value);
            let of = |number| value.iter().find(|(field, ..)| *field == number).map(|(_, _, bytes)| *bytes);
            if let (Some(tag), Some(simple)) = (of(1), of(2)) {
                let value = f32::from_le_bytes(simple.try_into().unwrap());
                logged.entry(String::from_utf8(tag.to_vec()).unwrap()).or_default().push((step, value));
            }
        }
    }
}
