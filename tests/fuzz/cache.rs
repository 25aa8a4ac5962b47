//! Whatever the bytes of a shard and its index are, opening, reading, checking and packing the cache ends with a result.
//!
//! An input is a list of frames without checksums, then an index without one: they are put in here, so that mutations get
//! behind them. `run` writes the first inputs from a real cache.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::{fs, path::PathBuf, sync::OnceLock};
use training_engine::{
    data::cache::{FeatureCache, Name, tool},
    features::FeatureBuilder,
};

const PLAIN: FeatureBuilder = FeatureBuilder { radius: 120.0, max_agents: 48, cost_map: false };

/// The folder of the cache, which `run` names.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let parent = std::env::var_os("TE_FUZZ_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = parent.join(format!("cache-{}", std::process::id()));
        drop(FeatureCache::open(folder.to_str().unwrap(), PLAIN).unwrap());
        folder
    })
}

/// Bytes from the front of the input.
fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(taken)
}

/// Frames: kind (0 ends them), number, length of the payload, payload.
fn shard(input: &mut &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(&[kind]) = take(input, 1).and_then(|b| b.first_chunk()) {
        let (Some(number), Some(length)) = (take(input, 8), take(input, 2)) else { break };
        if kind == 0 {
            break;
        }
        let length = usize::from(u16::from_le_bytes([length[0], length[1]])).min(input.len());
        let payload = take(input, length).unwrap_or_default();
        let kind = u32::from(kind).to_le_bytes();
        let length = (length as u32).to_le_bytes();
        let checksum = crc32c::crc32c(&[&kind[..], &length, number, payload].concat());
        bytes.extend([&b"TEf2"[..], &kind, &length, &checksum.to_le_bytes(), number, payload].concat());
    }
    bytes
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let folder = folder();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_name() != "te-cache.json" {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let shard = shard(&mut input);
    fs::write(folder.join("0000000000000001-00000001.shard"), shard).unwrap();
    if !input.is_empty() {
        let index = [&b"TEi2"[..], &crc32c::crc32c(input).to_le_bytes(), input].concat();
        fs::write(folder.join("0000000000000001-00000001.index"), index).unwrap();
    }
    let path = folder.to_str().unwrap();
    let (cache, names) = FeatureCache::open_with_catalogue(path, PLAIN).unwrap();
    for i in 0..names.len().min(100) {
        let name = names.name(i);
        cache.check(&name);
        cache.get(&name);
    }
    drop(cache);
    tool::verify(path).unwrap();
    tool::compact(path).unwrap();
});
