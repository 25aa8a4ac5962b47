//! What the kernels need on each architecture, as the compiler printed it at the build: every kernel is there, no register is spilled.
//! Without nvcc at the build there is nothing to look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}

/// Names in `KERNEL(name, Arguments)` of the sources; some more are made by macros.
fn kernels() -> BTreeSet<String> {
    let sources = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels"), "cu");
    let name = |line: &str| Some(line.strip_prefix("KERNEL(")?.split_once(',')?.0.to_string());
    sources.iter().flat_map(|file| fs::read_to_string(file).unwrap().lines().filter_map(name).collect::<Vec<_>>()).collect()
}

/// The number before `unit` in a line such as "8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads".
fn number(line: &str, unit: &str) -> Option<u32> {
    line[..line.find(unit)?].trim_end().rsplit([' ', ',']).next()?.parse().ok()
}

#[test]
fn no_kernel_spills() {
    let printed = files(Path::new(env!("OUT_DIR")), "resources");
    if printed.is_empty() {
        return println!("skipped: the build had no nvcc");
    }
    let (mut seen, mut spills): (BTreeMap<String, BTreeSet<String>>, Vec<String>) = Default::default();
    let (mut kernel, mut architecture, mut most) = (String::new(), String::new(), 0);
    for line in printed.iter().flat_map(|file| fs::read_to_string(file).unwrap().lines().map(String::from).collect::<Vec<_>>()) {
        // ptxas info : Compiling entry function 'add_forward' for 'sm_80'
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let mut parts = rest.split('\'');
            (kernel, architecture) = (parts.next().unwrap().into(), parts.nth(1).unwrap().into());
            seen.entry(architecture.clone()).or_default().insert(kernel.clone());
        }
        let spilled = ["bytes spill stores", "bytes spill loads"].map(|unit| number(&line, unit).unwrap_or(0));
        if spilled != [0, 0] {
            spills.push(format!("{kernel} on {architecture}: {}", line.trim()));
        }
        most = most.max(number(&line, "registers").unwrap_or(0));
    }
    assert_eq!(spills, Vec::<String>::new());
    assert!(!seen.is_empty() && most > 0, "the compiler's lines are not understood");
    let all = seen.values().next().unwrap();
    assert!(all.is_superset(&kernels()), "{:?} are not compiled", kernels().difference(all));
    seen.iter().for_each(|(architecture, seen)| assert_eq!(seen, all, "kernels of {architecture}"));
    println!("{} kernels for {:?}: no spills, at most {most} registers", all.len(), seen.keys().collect::<Vec<_>>());
}
