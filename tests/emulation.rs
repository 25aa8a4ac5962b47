//! The emulated device runs correct kernels to the host's results in every order, with the same bits, and finds planted faults.

mod emulator;

use bytemuck::{Pod, Zeroable};
use emulator::{Emulator, Schedule};
use half::f16;
use training_engine::{
    backend::cuda::device::{Address, Device, Launch},
    error::Result,
    graph::{Step, random},
};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Add {
    x: Address,
    y: Address,
    sum: Address,
    count: i32,
    pad: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Sums {
    x: Address,
    sums: Address,
    count: i32,
    pad: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Words {
    step: Address,
    words: Address,
    symbol: i32,
    times: i32,
    stream: i32,
    pad: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Product {
    a: Address,
    b: Address,
    y: Address,
    m: i32,
    n: i32,
    k: i32,
    pad: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Transpose {
    x: Address,
    y: Address,
    matrices: i32,
    pad: i32,
}

/// Shared memory of the products: two stages of 64 rows of 20 floats.
const STAGES: u32 = 2 * 64 * 20 * 4;

fn upload<T: Pod>(device: &Emulator, values: &[T]) -> Address {
    let address = device.allocate(size_of_val(values)).unwrap();
    device.upload(address, bytemuck::cast_slice(values)).unwrap();
    address
}

fn download<T: Pod>(device: &Emulator, address: Address, count: usize) -> Vec<T> {
    let mut values = vec![T::zeroed(); count];
    device.download(address, bytemuck::cast_slice_mut(&mut values)).unwrap();
    values
}

fn launch<A: Pod>(device: &Emulator, kernel: &str, grid: [u32; 3], block: u32, shared: u32, arguments: &A) -> Result<()> {
    device.launch(&Launch::new(kernel, grid, block, shared, arguments))
}

/// Multiples of 1/64 in [-1, 1).
fn values(seed: u64, count: usize) -> Vec<f32> {
    let word = |i: usize| random::word(&Step { seed, step: 0 }, 0, i as u32, 0);
    (0..count).map(|i| (word(i) % 128) as f32 / 64.0 - 1.0).collect()
}

/// Devices of every schedule, with and without checker, and with the kernels as NVIDIA's compiler made them, if the build had it.
fn devices() -> Vec<Emulator> {
    let compiled = emulator::build::nvcc().map(|_| Emulator::compiled as fn() -> Emulator);
    let all = [Emulator::new as fn() -> Emulator, Emulator::checked].into_iter().chain(compiled);
    all.flat_map(|make| Schedule::ALL.map(|schedule| make().with_schedule(schedule))).collect()
}

/// Runs on every device: no reports, the same bits everywhere, which are given.
fn same_everywhere<T: Pod + PartialEq + std::fmt::Debug>(run: impl Fn(&Emulator) -> Vec<T>) -> Vec<T> {
    let results: Vec<Vec<T>> = devices()
        .iter()
        .map(|device| {
            let result = run(device);
            assert_eq!(device.reports(), Vec::<String>::new());
            result
        })
        .collect();
    results.iter().for_each(|other| assert!(bytemuck::cast_slice::<T, u8>(other) == bytemuck::cast_slice::<T, u8>(&results[0])));
    results.into_iter().next().unwrap()
}

#[test]
fn vectors_of_odd_sizes_add() {
    for count in [0, 1, 31, 33, 257, 1000] {
        let (x, y) = (values(1, count), values(2, count));
        let sum = same_everywhere(|device| {
            let (a, b, sum) = (upload(device, &x), upload(device, &y), device.allocate(count * 4).unwrap());
            launch(device, "sample_add", [3, 1, 1], 128, 0, &Add { x: a, y: b, sum, count: count as i32, pad: 0 }).unwrap();
            [a, b].iter().for_each(|&address| device.free(address));
            download::<f32>(device, sum, count)
        });
        assert_eq!(sum, x.iter().zip(&y).map(|(x, y)| x + y).collect::<Vec<f32>>());
    }
}

#[test]
fn blocks_sum() {
    for count in [1, 255, 256, 700] {
        let x = values(3, count);
        let blocks = count.div_ceil(256);
        let sums = same_everywhere(|device| {
            let (x, sums) = (upload(device, &x), device.allocate(blocks * 4).unwrap());
            launch(device, "sample_block_sum", [blocks as u32, 1, 1], 256, 0, &Sums { x, sums, count: count as i32, pad: 0 }).unwrap();
            download::<f32>(device, sums, blocks)
        });
        // Sums of multiples of 1/64 are exact.
        assert_eq!(sums, x.chunks(256).map(|x| x.iter().sum()).collect::<Vec<f32>>());
    }
}

#[test]
fn random_words_are_the_hosts() {
    let step = Step { seed: 0x1234_5678_9abc_def0, step: 77 };
    let mut block = vec![0u32; 6 + 16 + 64 + 128];
    (block[0], block[1], block[4]) = (step.seed as u32, (step.seed >> 32) as u32, 77);
    block[6 + 2] = 5; // counts[2]
    let words = same_everywhere(|device| {
        let (step, words) = (upload(device, &block), device.allocate(15 * 16).unwrap());
        launch(device, "sample_words", [1, 1, 1], 128, 0, &Words { step, words, symbol: 2, times: 3, stream: 9, pad: 0 }).unwrap();
        download::<u32>(device, words, 60)
    });
    assert_eq!(words, (0..15).flat_map(|row| random::words(&step, 9, row, 1)).collect::<Vec<u32>>());
}

#[test]
fn tiles_multiply() {
    for (m, n, k) in [(1, 1, 4), (31, 33, 20), (64, 40, 96)] {
        let (a, b) = (values(4, m * k), values(5, n * k));
        for kernel in ["sample_product_tf32", "sample_product_bf16", "sample_product_f16"] {
            let y = same_everywhere(|device| {
                let (a, b, y) = (upload(device, &a), upload(device, &b), device.allocate(m * n * 4).unwrap());
                let arguments = Product { a, b, y, m: m as i32, n: n as i32, k: k as i32, pad: 0 };
                let grid = [n.div_ceil(32) as u32, m.div_ceil(32) as u32, 1];
                launch(device, kernel, grid, 128, STAGES, &arguments).unwrap();
                download::<f32>(device, y, m * n)
            });
            for (i, y) in y.iter().enumerate() {
                let (a, b) = (&a[i / n * k..][..k], &b[i % n * k..][..k]);
                // Factors have 7 bits and sums fewer than 24: all of these precisions are exact.
                assert_eq!(*y, a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>(), "{kernel} {m} x {n} x {k}: element {i}");
            }
        }
    }
}

/// Factors of 16 bits: normal, subnormal, between two of them, too large.
#[test]
fn halves_round_as_the_host_does() {
    let mut a: Vec<f32> = (0..0x7f80)
        .map(|high| f32::from_bits(high << 16 | 0x1000))
        .chain((0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32()))
        .collect();
    const SMALLEST: f32 = 1.0 / 16_777_216.0;
    let ends = [65_504.0, 65_519.996, 65_520.0, 65_536.0, 3e38, SMALLEST, SMALLEST / 2.0, 1.000_001 * SMALLEST / 2.0];
    a.extend(ends.into_iter().chain([f32::INFINITY, f32::NAN]).flat_map(|x| [x, -x]));
    let rows: Vec<f32> = a.iter().flat_map(|&x| [x, 0.0, 0.0, 0.0]).collect();
    let device = Emulator::new();
    let (m, n, k) = (a.len(), 1, 4);
    let (left, right, y) = (upload(&device, &rows), upload(&device, &[1.0f32, 0.0, 0.0, 0.0]), device.allocate(m * 4).unwrap());
    let arguments = Product { a: left, b: right, y, m: m as i32, n, k, pad: 0 };
    launch(&device, "sample_product_f16", [1, m.div_ceil(32) as u32, 1], 128, STAGES, &arguments).unwrap();
    for (x, y) in a.iter().zip(download::<f32>(&device, y, m)) {
        let rounded = f16::from_f32(*x).to_f32();
        assert!(y == rounded || (y.is_nan() && rounded.is_nan()), "{x:e} is {y:e}, not {rounded:e}");
    }
}

/// Three quarters of a unit in the last place, added to 1, are lost; to the nearest they would make one.
#[test]
fn tensor_products_round_to_zero() {
    let small = 0.75 * f32::EPSILON;
    let rows = [[1.0, small, 0.0, 0.0], [-1.0, -small, 0.0, 0.0], [1.0, 2.0 * small, 0.0, 0.0], [0.0, small, small, 0.0]].concat();
    for kernel in ["sample_product_tf32", "sample_product_bf16"] {
        let device = Emulator::new();
        let (a, b, y) = (upload(&device, &rows), upload(&device, &[1.0f32; 4]), device.allocate(16).unwrap());
        launch(&device, kernel, [1; 3], 128, STAGES, &Product { a, b, y, m: 4, n: 1, k: 4, pad: 0 }).unwrap();
        assert_eq!(download::<f32>(&device, y, 4), [1.0, -1.0, 1.0 + f32::EPSILON, 2.0 * small], "{kernel}");
    }
}

#[test]
fn matrices_load_transposed() {
    let x: Vec<u16> = (0..3 * 64).map(|i| i * 7).collect();
    let y = same_everywhere(|device| {
        let (x, y) = (upload(device, &x), device.allocate(3 * 128).unwrap());
        launch(device, "sample_transpose", [2, 1, 1], 32, 0, &Transpose { x, y, matrices: 3, pad: 0 }).unwrap();
        download::<u16>(device, y, 3 * 64)
    });
    let expected = (0..3 * 64).map(|i| x[i / 64 * 64 + i % 8 * 8 + i / 8 % 8]).collect::<Vec<u16>>();
    assert_eq!(y, expected);
}

#[test]
fn wrong_launches_and_faults_are_errors_and_the_device_lives_on() {
    for device in devices() {
        let x = values(1, 256);
        let (a, b, sum) = (upload(&device, &x), upload(&device, &x), device.allocate(1024).unwrap());
        let good = Add { x: a, y: b, sum, count: 256, pad: 0 };
        let fails = |kernel: &str, grid: [u32; 3], block: u32, arguments: &Add, reason: &str| {
            let error = launch(&device, kernel, grid, block, 0, arguments).unwrap_err().to_string();
            assert!(error.contains(kernel) && error.contains(reason), "{error}");
            launch(&device, "sample_add", [1, 1, 1], 128, 0, &good).unwrap();
            assert_eq!(download::<f32>(&device, sum, 256)[255], 2.0 * x[255]);
        };
        fails("sample_subtract", [1; 3], 128, &good, "no kernel has this name");
        fails("sample_add", [1; 3], 1025, &good, "1025 threads");
        fails("sample_add", [1, 0, 1], 128, &good, "grid of 1 x 0 x 1");
        fails("sample_product_tf32", [1; 3], 128, &good, "bytes of arguments");
        fails("bug_half_warp", [1; 3], 64, &good, "deadlock");
        fails("bug_two_products", [1; 3], 32, &good, "different collectives");
        fails("bug_two_barriers", [1; 3], 128, &good, "different barriers");
        fails("bug_null", [1; 3], 128, &Add { x: 0, ..good }, "address");
        fails("bug_null", [1; 3], 128, &Add { x: a + 4096, ..good }, "address");
        assert!(device.upload(a + 4, &[0; 1024]).unwrap_err().to_string().contains("1024 bytes"));
        assert!(device.download(a + (1 << 20), &mut [0; 4]).is_err());
    }
}

#[test]
fn a_compiled_kernel_takes_no_more_threads_than_it_was_compiled_for() {
    if emulator::build::nvcc().is_none() {
        println!("skipped: no nvcc");
        return;
    }
    let device = Emulator::compiled();
    let (x, sum) = (upload(&device, &values(1, 256)), device.allocate(1024).unwrap());
    let add = |block| launch(&device, "sample_add", [2, 1, 1], block, 0, &Add { x, y: x, sum, count: 256, pad: 0 });
    add(128).unwrap();
    let error = add(160).unwrap_err().to_string();
    assert!(error.contains("sample_add") && error.contains("160 threads"), "{error}");
}

/// Launches a faulty kernel on checked devices of every schedule: each reports, and nothing but what is expected.
#[track_caller]
fn finds<A: Pod>(kernel: &str, grid: [u32; 3], block: u32, shared: u32, arguments: impl Fn(&Emulator) -> A, expected: &[&str]) {
    for schedule in Schedule::ALL {
        let device = Emulator::checked().with_schedule(schedule);
        // Some faults end the launch; they are reported before.
        _ = launch(&device, kernel, grid, block, shared, &arguments(&device));
        let reports = device.reports();
        let is_expected =
            |report: &String| report.starts_with(kernel) && report.contains(".cu") && expected.iter().any(|e| report.contains(e));
        assert!(!reports.is_empty() && reports.iter().all(is_expected), "{kernel}, {schedule:?}: {reports:#?}");
        assert_eq!(device.reports(), Vec::<String>::new(), "reports are given once");
    }
}

#[test]
fn planted_faults_are_found() {
    let product = |device: &Emulator| {
        let (a, b) = (upload(device, &values(4, 32 * 96)), upload(device, &values(5, 32 * 96)));
        Product { a, b, y: device.allocate(32 * 32 * 4).unwrap(), m: 32, n: 32, k: 96, pad: 0 }
    };
    let add = |device: &Emulator| {
        let x = values(1, 256);
        Add { x: upload(device, &x), y: upload(device, &x), sum: device.allocate(1024).unwrap(), count: 256, pad: 0 }
    };
    finds("bug_no_barrier_before_use", [1; 3], 128, STAGES, product, &["race: ", "uninitialised read"]);
    finds("bug_no_barrier_after_use", [1; 3], 128, STAGES, product, &["race: ", "uninitialised read"]);
    finds("bug_no_wait", [1; 3], 128, STAGES, product, &["race: ", "uninitialised read"]);
    finds("bug_overrun", [1; 3], 128, 0, add, &["out of bounds: 4 bytes of 0 bytes behind an allocation"]);
    finds("bug_uninitialised", [2, 1, 1], 128, 0, add, &["uninitialised read at byte"]);
    finds("bug_two_blocks", [2, 1, 1], 128, 0, add, &["race: write after write"]);
    finds("bug_no_syncwarp", [1; 3], 128, 0, add, &["race: ", "uninitialised read"]);
    finds("bug_only_a_shuffle", [1; 3], 128, 0, add, &["race: ", "uninitialised read"]);
    finds("bug_misaligned", [1; 3], 128, 0, add, &["misaligned"]);
}

#[test]
fn costs_of_accesses_are_counted() {
    let device = Emulator::measured();
    let x = upload(&device, &values(1, 1024));
    let sum = device.allocate(4096).unwrap();
    let arguments = Add { x, y: x, sum, count: 1024, pad: 0 };
    launch(&device, "sample_add", [2, 1, 1], 128, 0, &arguments).unwrap();
    let costs = device.costs();
    let line = "global, 4 bytes a lane, 32 requests, 4.00 sectors a request, 4.00 would do";
    assert!(costs.len() == 3 && costs.iter().all(|cost| cost.starts_with("sample_add (samples.cu:") && cost.ends_with(line)), "{costs:#?}");
    launch(&device, "sample_strided", [1; 3], 32, 0, &arguments).unwrap();
    let costs = device.costs();
    let counted = |what: &str| assert_eq!(costs.iter().filter(|cost| cost.ends_with(what)).count(), 1, "{what}: {costs:#?}");
    counted("global, 4 bytes a lane, 32 requests, 32.00 sectors a request, 4.00 would do, excess");
    counted("global, 4 bytes a lane, 32 requests, 4.00 sectors a request, 4.00 would do");
    counted("shared, 4 bytes a lane, 32 requests, 32.00 wavefronts a request, 1.00 would do, excess");
    counted("shared, 4 bytes a lane, 32 requests, 1.00 wavefronts a request, 1.00 would do");
    assert_eq!(device.reports(), Vec::<String>::new());
}
