//! Files of weights with faults of every kind: an error or a value each time, and never more memory than the file's size times four.

#![allow(unsafe_code, reason = "a global allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::Read,
    path::Path,
};
use training_engine::{
    config::Config,
    engine::{Engine, Host, LoadOptions},
    trainer::{
        session::{Buffer, Session},
        weights::File,
    },
};

/// Counts what each thread holds, and the most that it has held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may be there at once.
        count(size as isize);
        let new = unsafe { System.realloc(pointer, layout, size) };
        count(-(layout.size() as isize));
        new
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a small file may need besides: texts of errors, pieces that are written, the list of the model's names.
const CONSTANT: usize = 128 * 1024;

/// Random numbers of a counter.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Parts of pickles, archives and headers that do harm in the wrong place.
const SPLICES: [&[u8]; 22] = [
    b"(",
    b"t",
    b"u",
    b"0",
    b"1",
    b"2",
    b".",
    b"R",
    b"Q",
    b"]",
    b"}",
    b"e",
    b"a",
    b"\x94",
    b"r\xff\xff\xff\xff",
    b"h\x00",
    b"X\xff\xff\xff\x7f",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x8b\xff\xff\xff\x7f",
    b"cos\nsystem\n(U\x04trueR",
    b"J\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
];

/// Changes a file, mostly within `range`.
fn mutate(content: &mut Vec<u8>, range: std::ops::Range<usize>, numbers: &mut Numbers, keeps_length: bool) {
    for _ in 0..=numbers.below(3) {
        if content.is_empty() {
            return;
        }
        let at = if numbers.below(8) == 0 {
            numbers.below(content.len())
        } else {
            (range.start + numbers.below(range.len())).min(content.len() - 1)
        };
        match numbers.below(if keeps_length { 4 } else { 9 }) {
            0 => content[at] ^= 1 << numbers.below(8),
            1 => content[at] = numbers.next() as u8,
            2 => {
                let splice = SPLICES[numbers.below(SPLICES.len())];
                let end = (at + splice.len()).min(content.len());
                content[at..end].copy_from_slice(&splice[..end - at]);
            }
            3 => {
                let end = (at + 1 + numbers.below(16)).min(content.len());
                content[at..end].fill([0, 0xff, b'(', b'N', b']', b'9'][numbers.below(6)]);
            }
            4 => content.truncate(at),
            5 => {
                let splice = SPLICES[numbers.below(SPLICES.len())];
                content.splice(at..at, splice.iter().copied());
            }
            6 => {
                // Deep nesting, or many values of one kind.
                let bomb = [&b"("[..], b"]", b"N", b"2", b")", b"}", b"[", b"{\"a\":", b"[1,", b"\x85"][numbers.below(10)]
                    .repeat(1 + numbers.below(20_000));
                content.splice(at..at, bomb);
            }
            7 => {
                let end = (at + numbers.below(400)).min(content.len());
                content.drain(at..end);
            }
            _ => {
                let end = (at + numbers.below(4000)).min(content.len());
                let copy = content[at..end].to_vec();
                let to = numbers.below(content.len());
                content.splice(to..to, copy);
            }
        }
    }
}

/// Makes the checksum of an archive's first member, its pickle, right again.
fn mend_archive(content: &mut [u8], pickle: std::ops::Range<usize>) {
    let checksum = crc32fast::hash(&content[pickle]).to_le_bytes();
    content[14..18].copy_from_slice(&checksum);
    if let Some(central) = content.windows(4).position(|window| window == b"PK\x01\x02") {
        content[central + 16..central + 20].copy_from_slice(&checksum);
    }
}

/// Data of an archive's first member.
fn first_member(content: &[u8]) -> std::ops::Range<usize> {
    let half = |at: usize| usize::from(u16::from_le_bytes(*content[at..].first_chunk().unwrap()));
    let start = 30 + half(26) + half(28);
    let central = content.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let length = u32::from_le_bytes(*content[central + 24..].first_chunk().unwrap()) as usize;
    assert_eq!(content[start..start + 2], *b"\x80\x02", "a pickle");
    start..start + length
}

fn unpacked(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/weights").join(name);
    let mut content = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut content).unwrap();
    content
}

/// Loads a content in every way there is; true if that gave a value.
fn load(content: &[u8], session: &mut Session, most: &mut f64) -> bool {
    let before = HELD.get();
    MOST.set(before);
    let file = File::new("mutated".into(), content.to_vec());
    let partial = file.load(session, &LoadOptions { strict: false, ..LoadOptions::default() });
    let strict = file.load(session, &LoadOptions::default());
    let state = file.lightning_state();
    let used = (MOST.get() - before) as usize;
    assert!(used <= 4 * content.len() + CONSTANT, "{used} bytes for a file of {}", content.len());
    *most = most.max(used as f64 / content.len().max(100_000) as f64);
    for error in [partial.as_ref().err(), strict.as_ref().err(), state.as_ref().err()].into_iter().flatten() {
        assert!(error.to_string().contains("mutated"), "{error}");
    }
    partial.is_ok()
}

#[test]
fn mutated_files_are_errors_or_values() {
    let config = Config::from_text("{threads: 1, model: {dim: 32, encoder_depth: 1, decoder_depth: 1, num_modes: 6}}", &[]).unwrap();
    let engine = Engine::build(config.clone(), None, Host::default()).unwrap();
    let mut session = Session::new(&config.model, &config.objectives, engine.model().session().batch_options(false).scalar, 1, 0).unwrap();
    let archive = unpacked("part.ckpt.gz");
    let pickle = first_member(&archive);
    let plain = unpacked("part_legacy.ckpt.gz");
    let safetensors = {
        let values = session.read(Buffer::Parameters).unwrap();
        let small = session.parameters().iter().filter(|p| !p.statistic && p.len() <= 64);
        let blocks: Vec<(String, Vec<usize>, Vec<u8>)> = small
            .map(|p| (p.name.clone(), p.shape.clone(), values[p.range()].iter().flat_map(|x| (*x as f32).to_le_bytes()).collect()))
            .collect();
        let views =
            blocks.iter().map(|(n, s, b)| (n, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, s.clone(), b).unwrap()));
        safetensors::serialize(views, None).unwrap()
    };
    let header = 0..8 + u64::from_le_bytes(*safetensors.first_chunk().unwrap()) as usize;
    let run = unpacked("lightning.ckpt.gz");
    let pickle_of_run = first_member(&run);
    let whole: [(&str, &[u8], std::ops::Range<usize>, u64); 5] = [
        ("archive, any byte", &archive, 0..archive.len(), 2500),
        ("archive, its pickle with a right checksum", &archive, pickle, 2500),
        ("plain pickle", &plain, 0..plain.len() / 2, 2500),
        ("safetensors", &safetensors, header, 2500),
        ("archive of a whole run, its pickle with a right checksum", &run, pickle_of_run, 100),
    ];
    for (kind, content, range, count) in whole {
        let mut most = 0.0;
        assert!(load(content, &mut session, &mut most), "{kind}: the file itself");
        let mut values = 0;
        for seed in 0..count {
            let mut numbers = Numbers(seed);
            let mut mutated = content.to_vec();
            let mends = kind.contains("checksum");
            mutate(&mut mutated, range.clone(), &mut numbers, mends);
            if mends {
                mend_archive(&mut mutated, range.clone());
            }
            values += u64::from(load(&mutated, &mut session, &mut most));
        }
        println!(
            "{kind}: {count} files of {} bytes, {values} loaded all the same, memory at most {most:.2} times the size (of 100 kB at least)",
            content.len()
        );
        assert!(values < count, "{kind}: nothing was broken");
    }
}
