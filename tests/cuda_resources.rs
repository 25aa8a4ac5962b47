//! What the kernels need on each architecture, as the compiler printed it at the build: every kernel is there, no register is spilled.
//! Without nvcc at the build there is nothing to look at.

#[path = "common/resources.rs"]
mod resources;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Names in `KERNEL(name, Arguments)` of the sources; some more are made by macros.
fn kernels() -> BTreeSet<String> {
    let sources = resources::files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels"), "cu");
    let name = |line: String| Some(line.strip_prefix("KERNEL(")?.split_once(',')?.0.to_string());
    sources.iter().flat_map(|file| resources::lines(file)).filter_map(name).collect()
}

#[test]
fn no_kernel_spills() {
    let usages = resources::of_kernels();
    if usages.is_empty() {
        return;
    }
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut spills = Vec::new();
    for usage in &usages {
        let (kernel, architecture) = (&usage.kernel, &usage.architecture);
        seen.entry(architecture).or_default().insert(kernel.clone());
        assert!(usage.registers > 0, "{kernel} on {architecture}: the compiler's lines are not understood");
        if usage.spills != [0, 0] {
            spills.push(format!("{kernel} on {architecture}: {:?} bytes stored and loaded", usage.spills));
        }
    }
    assert_eq!(spills, Vec::<String>::new());
    let all = seen.values().next().unwrap();
    assert!(all.is_superset(&kernels()), "{:?} are not compiled", kernels().difference(all));
    seen.iter().for_each(|(architecture, seen)| assert_eq!(seen, all, "kernels of {architecture}"));
    let most = usages.iter().map(|usage| usage.registers).max().unwrap_or(0);
    println!("{} kernels for {:?}: no spills, at most {most} registers", all.len(), seen.keys().collect::<Vec<_>>());
}
