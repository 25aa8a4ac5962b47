//! What each kernel needs on each architecture, as the compiler printed it at the build.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A kernel on an architecture.
pub struct Usage {
    pub kernel: String,
    /// Such as `sm_80`.
    pub architecture: String,
    pub registers: u32,
    /// Static shared memory, in bytes.
    pub shared: u32,
    /// Bytes of registers stored to and loaded from memory.
    pub spills: [u32; 2],
}

/// Of all kernels; nothing if the build had no nvcc, which it says.
pub fn of_kernels() -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    for line in files(Path::new(env!("OUT_DIR")), "resources").iter().flat_map(|file| lines(file)) {
        // ptxas info : Compiling entry function 'add_forward' for 'sm_80'
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let mut parts = rest.split('\'');
            let [kernel, architecture] = [0, 1].map(|skip| parts.nth(skip).unwrap().to_string());
            all.push(Usage { kernel, architecture, registers: 0, shared: 0, spills: [0; 2] });
        }
        let Some(last) = all.last_mut() else { continue };
        // 8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
        for (unit, value) in [("bytes spill stores", 0), ("bytes spill loads", 1)] {
            last.spills[value] += number(&line, unit);
        }
        // Used 122 registers, used 1 barriers, 3072 bytes smem, 488 bytes cmem[0]
        last.registers += number(&line, "registers");
        last.shared += number(&line, "bytes smem");
    }
    if all.is_empty() {
        println!("skipped: the build had no nvcc");
    }
    all
}

/// Files of a folder with an extension.
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}

/// Lines of a file.
pub fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap().lines().map(String::from).collect()
}

/// The number before `unit`; 0 if there is none.
fn number(line: &str, unit: &str) -> u32 {
    let before = line.find(unit).map(|at| line[..at].trim_end());
    before.and_then(|before| before.rsplit([' ', ',']).next()?.parse().ok()).unwrap_or(0)
}
