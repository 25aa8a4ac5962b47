//! A Python that has PyTorch, for tests that set the library beside it.

#![allow(dead_code, reason = "each test program uses a part")]

use std::{path::Path, process::Command};

/// Runs a program of this folder's neighbours, with `tests/reference` on Python's path; what it prints.
pub fn run(python: &str, program: &str, arguments: &[&str]) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let output = Command::new(python)
        .arg(tests.join(program))
        .args(arguments)
        .env("PYTHONPATH", tests.join("reference"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap_or_else(|e| panic!("{python}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A Python that can import the modules: `TE_TORCH_PYTHON`, or `TE_PYTHON`; else none, and it is said that `test` is left out.
pub fn find(test: &str, modules: &str) -> Option<String> {
    let can = |python: &String| {
        let import = Command::new(python).args(["-c", &format!("import {modules}")]).output();
        import.is_ok_and(|output| output.status.success())
    };
    let found = ["TE_TORCH_PYTHON", "TE_PYTHON"].iter().filter_map(|name| std::env::var(name).ok()).find(can);
    if found.is_none() {
        println!("left out: {test} needs a Python with {modules}; TE_TORCH_PYTHON names one");
    }
    found
}
