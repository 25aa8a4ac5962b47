//! The committed C header is what the sources say, both headers compile by themselves, and the README shows the first program.

use std::{path::Path, process::Command};

/// The files of the border in the order of the header.
const SOURCES: [&str; 10] = ["status", "types", "guard", "info", "map", "host", "engine", "weights", "run", "predict"];

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    config.after_includes =
        Some(format!("\n// Version of the library that this header belongs to.\n#define TE_VERSION \"{}\"", env!("CARGO_PKG_VERSION")));
    let sources = SOURCES.iter().map(|name| root.join(format!("src/ffi/{name}.rs")));
    let builder = sources.fold(cbindgen::Builder::new().with_config(config), |builder, source| builder.with_src(source));
    let mut bytes = Vec::new();
    builder.generate().unwrap().write(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn header_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/training_engine.h");
    let generated = generated();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "include/training_engine.h differs from the sources: BLESS=1 cargo test --test header rewrites it");
}

/// Compiles a file that includes nothing but the header.
fn compiles(compiler: &str, extension: &str, header: &str, standard: &str) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join(format!("alone.{extension}"));
    std::fs::write(&source, format!("#include \"{header}\"\n")).unwrap();
    let output = Command::new(compiler)
        .args([standard, "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror", "-fsyntax-only", "-I"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg(&source)
        .output()
        .unwrap_or_else(|e| panic!("{compiler}: {e}"));
    assert!(output.status.success(), "{header} {standard}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn headers_compile_alone() {
    for standard in ["-std=c99", "-std=c11", "-std=c2x"] {
        compiles("cc", "c", "training_engine.h", standard);
    }
    for standard in ["-std=c++17", "-std=c++20"] {
        compiles("c++", "cpp", "training_engine.h", standard);
        compiles("c++", "cpp", "training_engine.hpp", standard);
    }
}

#[test]
fn readme_shows_the_first_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let program = read("cpp-examples/quickstart.cpp");
    assert!(program.lines().count() < 40);
    assert!(read("README.md").contains(&program), "README.md shows another program than cpp-examples/quickstart.cpp");
}
