//! Which room may use which: the paths `crate::room` in the sources are compared with the table below.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Rooms on the way of the data: each may use those before it.
const CHAIN: [&str; 10] = ["config", "scenario", "features", "augment", "data", "model", "objectives", "metrics", "optim", "trainer"];

/// May a file of `room` (and there of `file`, relative to `src`) use `used`?
fn allowed(room: &str, file: &str, used: &str) -> bool {
    let place = |name: &str| CHAIN.iter().position(|other| *other == name);
    if room == used || used == "error" || (used == "files" && room != "error") {
        return true;
    }
    match (room, used) {
        ("error" | "graph", _) => false,
        ("backend", "graph") => true,
        ("ffi", "config" | "scenario" | "trainer" | "engine") => true,
        // The metric table and the recording of models, losses and metrics on a graph are shared vocabulary.
        ("ffi" | "engine", "metrics") => true,
        // Loggers write the configuration down.
        ("logger", "config") => true,
        // Of the graph, contrastive samples use the random numbers alone.
        ("augment" | "data" | "model" | "objectives" | "metrics" | "optim" | "trainer", "graph") => true,
        ("trainer", "backend") => file == "trainer/session.rs" || file.starts_with("trainer/session/"),
        ("trainer", "logger" | "distributed") => true,
        ("engine", _) => place(used).is_some(),
        _ => matches!((place(room), place(used)), (Some(a), Some(b)) if b < a),
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The text without comments, strings and test modules: what is compiled into the library.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Rooms that a text names: after `crate::`, also in `use crate::{a, b::{c, d}}`.
fn used_rooms(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (start, _) in code.match_indices("crate::") {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[start + "crate::".len()..];
        let name = |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
        let Some(list) = rest.strip_prefix('{') else {
            rooms.insert(name(rest));
            continue;
        };
        let (mut depth, mut item_starts) = (0, true);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => item_starts = true,
                _ if item_starts && !c.is_whitespace() => {
                    rooms.insert(name(&list[i..]));
                    item_starts = false;
                }
                _ => {}
            }
        }
    }
    rooms
}

#[test]
fn rooms_use_only_what_they_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 10, "the sources were not found");
    let rooms: BTreeSet<String> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let mut breaches = Vec::new();
    for path in files {
        let file = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        let room = file.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        if room == "lib" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for used in used_rooms(&code(&text)).iter().filter(|used| rooms.contains(*used)) {
            if !allowed(&room, &file, used) {
                breaches.push(format!("src/{file} uses crate::{used}"));
            }
        }
        if room != "ffi" && room != "backend" && (code(&text).contains("unsafe ") || text.contains("allow(unsafe_code)")) {
            breaches.push(format!("src/{file} is unsafe"));
        }
        if room != "ffi" && code(&text).contains("extern \"C\"") {
            breaches.push(format!("src/{file} speaks C"));
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_reader_of_paths_reads_lists() {
    let text = "use crate::{\n    config::{A, B},\n    error::Result, data,\n};\nfn f() -> crate::graph::Op { my_crate::other::x() } // crate::backend";
    let rooms: Vec<String> = used_rooms(&code(text)).into_iter().collect();
    assert_eq!(rooms, ["config", "data", "error", "graph"]);
}

#[test]
fn the_table_forbids() {
    assert!(!allowed("model", "model/mod.rs", "trainer"));
    assert!(!allowed("graph", "graph/plan.rs", "config"));
    assert!(!allowed("backend", "backend/cpu/mod.rs", "model"));
    assert!(!allowed("trainer", "trainer/mod.rs", "backend"));
    assert!(allowed("trainer", "trainer/session.rs", "backend"));
    assert!(!allowed("ffi", "ffi/run.rs", "data"));
    assert!(!allowed("engine", "engine.rs", "ffi"));
    assert!(allowed("trainer", "trainer/mod.rs", "error"));
}
