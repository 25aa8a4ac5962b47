//! Whatever a configuration text says: a value or an error, in bounded time and memory.

#![allow(unsafe_code, reason = "a global allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};
use training_engine::config::Config;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What any text may need: the table of keys, the defaults, the echo.
const CONSTANT: usize = 1 << 20;

/// Reads a text; an accepted one must read back from its echo. True if it is accepted.
fn read(text: &str, folder: Option<&Path>, overrides: &[&str]) -> bool {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    LARGEST.store(0, Relaxed);
    let start = Instant::now();
    let config = Config::compose(text, folder, overrides);
    let (size, took) = (text.len() + overrides.iter().map(|x| x.len()).sum::<usize>(), start.elapsed());
    let (peak, largest) = (PEAK.load(Relaxed) - before, LARGEST.load(Relaxed));
    let shown = text.get(..200).unwrap_or_default();
    assert!(largest <= 4 * size + CONSTANT / 4, "one allocation of {largest} bytes for {size}: {shown}");
    // The tree, its resolved copy and the read values are there at once.
    assert!(peak <= 12 * size + CONSTANT, "{peak} bytes for {size}: {shown}");
    assert!(took < Duration::from_secs(5), "{took:?}: {shown}");
    if let Ok(config) = &config {
        let echo = config.to_text();
        assert!(Config::from_text(&echo, &[]).is_ok_and(|again| again == *config), "{echo}");
    }
    config.is_ok()
}

/// A small generator of numbers (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

#[test]
fn ten_thousand_mutated_texts_and_texts_that_would_grow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config");
    let file = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let whole = ["epochs: 3\nlr: ${oc.select:rate,1e-3}\n", "model:\n  dim: 64\n  num_heads: 4\nseed: ${epochs}\nepochs: 7\n"];
    let group = |name: &str, path: &str| format!("{name}:\n{}", file(path).lines().map(|line| format!("  {line}\n")).collect::<String>());
    let seeds: Vec<String> =
        [file("default_training.yaml"), group("model", "model/pluto_model.yaml"), group("optimizer", "optimizer/adam.yaml")]
            .into_iter()
            .chain([group("splitter", "splitter/nuplan.yaml"), Config::default().to_text()])
            .chain(whole.map(str::to_owned))
            .collect();
    let published = ["+training=train_pluto", "group=/tmp", "lightning.trainer.params.accelerator=cpu", "lr=1e-4"];
    let pieces = [
        "${",
        "}",
        "${epochs}",
        "${.a}",
        "${..b}",
        "${oc.env:HOME}",
        "???",
        "&a ",
        "*a",
        "<<: *a",
        ": ",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "'",
        "\"",
        "|\n",
        "!!int ",
        "#",
        "1e999",
        "-",
        "0x",
        "null",
        "\u{0}",
        "\u{feff}",
        "é",
        "defaults:\n  - model: pluto_model\n",
        "\t",
        "~",
        "%YAML 9\n",
        "---\n",
        "1_0",
        "\\",
        "epochs",
        "lr: 1\n",
    ];
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let mut accepted = 0;
    for i in 0..10_000 {
        let mut text: Vec<char> = seeds[i % seeds.len()].chars().collect();
        for _ in 0..1 + numbers.below(4) {
            let at = numbers.below(text.len() + 1);
            let end = (at + numbers.below(12)).min(text.len());
            match numbers.below(4) {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, pieces[numbers.below(pieces.len())].chars())),
                2 => drop(text.splice(at..end, pieces[numbers.below(pieces.len())].chars())),
                _ => {
                    let copy = text[at..end].to_vec();
                    let to = numbers.below(text.len() + 1);
                    drop(text.splice(to..to, copy));
                }
            }
        }
        let text: String = text.into_iter().collect();
        let overrides: &[&str] = if i % seeds.len() == 0 { &published } else { &[] };
        accepted += usize::from(read(&text, Some(&folder), overrides));
    }
    // Neither all nor none: the texts reach what lies behind the parser.
    assert!((100..9_000).contains(&accepted), "{accepted}");

    let rising = |first: &str, line: &dyn Fn(usize) -> String| (1..60).fold(first.to_owned(), |text, i| text + &line(i));
    for text in [
        rising("k0: &a0 [1]\n", &|i| format!("k{i}: &a{i} [*a{p}, *a{p}]\n", p = i - 1)),
        rising("k0: &a0 {x: 1}\n", &|i| format!("k{i}: &a{i} {{p: *a{p}, q: *a{p}}}\n", p = i - 1)),
        rising("k0: lol\n", &|i| format!("k{i}: \"${{k{p}}}${{k{p}}}\"\n", p = i - 1)),
        rising("k0: ''\n", &|i| format!("k{i}: \"${{k{p}}}${{k{p}}}\"\n", p = i - 1)),
        rising("k0: {x: 1}\n", &|i| format!("k{i}: {{p: \"${{k{p}}}\", q: \"${{k{p}}}\"}}\n", p = i - 1)),
        (1..5000).fold("k0: 1\n".to_owned(), |text, i| text + &format!("k{i}: ${{k{}}}\n", i - 1)),
        format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000)),
        format!("a: {}1{}", "${".repeat(10_000), "}".repeat(10_000)),
        (0..500).map(|i| format!("{}a:\n", " ".repeat(i))).collect(),
        format!("{}: 1", vec!["a"; 50_000].join(".")),
        format!("{}: {{{}}}", "k".repeat(50_000), (0..5000).map(|i| format!("a{i}: 1")).collect::<Vec<_>>().join(", ")),
        format!("seed: [{}]", "1,".repeat(200_000)),
        format!("seed: {}", "\\".repeat(100_000) + "${x}"),
    ] {
        assert!(!read(&text, None, &[]));
    }
    let long = format!("a={}1{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(!read("", None, &[&long]) && !read("", None, &[&format!("a={}", "${".repeat(5_000))]));
    let logs = (0..16_000).map(|i| format!("    - 2021.07.16.20.45.29_veh-35_{i:05}_01486\n")).collect::<String>();
    assert!(read(&format!("splitter:\n  log_splits:\n    train:\n{logs}"), None, &[]));
}
