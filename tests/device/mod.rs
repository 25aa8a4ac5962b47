//! The device that the CUDA backend is tested on: the emulated one; with `TE_TEST_DEVICE=compiled` the same, but with the kernels as NVIDIA's
//! compiler made them; with `TE_TEST_DEVICE=gpu` the first GPU of the machine, which then must be there.

#![allow(dead_code, reason = "every test program uses a part")]

#[path = "../emulator/mod.rs"]
pub mod emulator;

use emulator::{Emulator, Schedule};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use training_engine::{
    backend::cuda::{
        self,
        device::{Address, Captured, Device, Launch, Memory},
    },
    error::Result,
};

/// Its name in what tests print: `emulated`, `compiled` or `GPU`.
///
/// # Panics
/// `TE_TEST_DEVICE` names none.
pub fn name() -> &'static str {
    match std::env::var("TE_TEST_DEVICE").as_deref() {
        Ok("gpu") => "GPU",
        Ok("compiled") => "compiled",
        Ok("emulator" | "") | Err(_) => "emulated",
        Ok(other) => panic!("TE_TEST_DEVICE is '{other}', not 'gpu', 'compiled' or 'emulator'"),
    }
}

/// Whether a GPU was asked for.
pub fn is_gpu() -> bool {
    name() == "GPU"
}

/// Whether the emulated device shall run the kernels as NVIDIA's compiler made them.
pub fn is_compiled() -> bool {
    name() == "compiled"
}

/// The device to test on.
///
/// # Panics
/// A GPU was asked for and cannot be had: with the reason.
pub fn open() -> Box<dyn Device> {
    if is_gpu() { Box::new(gpu().unwrap_or_else(|e| panic!("TE_TEST_DEVICE=gpu, but {e}"))) } else { Box::new(emulator()) }
}

fn emulator() -> Emulator {
    if is_compiled() { Emulator::compiled() } else { Emulator::new() }
}

/// The device to test on, the emulated one working as late as it may.
pub fn late() -> Box<dyn Device> {
    if is_gpu() { open() } else { Box::new(emulator().late()) }
}

/// What a checker has found since the last call.
pub type Reports = Box<dyn Fn() -> Vec<String>>;

/// The device to test on, the emulated one with its checker.
pub fn checked() -> (Box<dyn Device>, Reports) {
    if is_gpu() {
        return (open(), Box::new(Vec::new));
    }
    let device = Emulator::checked();
    (Box::new(device.clone()), Box::new(move || device.reports()))
}

/// The device to test on several times: the emulated one with threads in every order.
pub fn orders() -> Vec<Box<dyn Device>> {
    if is_gpu() {
        return vec![open(), open()];
    }
    Schedule::ALL.iter().map(|&schedule| Box::new(emulator().with_schedule(schedule)) as Box<dyn Device>).collect()
}

/// The folder of the repository, or what takes its place where a test program was carried to another machine.
pub fn repository() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

/// The first GPU, with its kernels loaded once for all backends of the process; or why there is none.
pub fn gpu() -> std::result::Result<Shared, String> {
    static GPU: OnceLock<std::result::Result<Shared, String>> = OnceLock::new();
    let open = || cuda::available().and_then(|_| cuda::device(0)).map(Shared::new).map_err(|e| e.to_string());
    GPU.get_or_init(open).clone()
}

/// One device for several backends, and what it was asked for; clones are the same.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Inner>>);

struct Inner {
    device: Box<dyn Device>,
    captured: Option<Captured>,
    timed: Vec<(Launch, f64)>,
}

impl Shared {
    pub fn new(device: Box<dyn Device>) -> Self {
        Self(Arc::new(Mutex::new(Inner { device, captured: None, timed: Vec::new() })))
    }
    /// What was captured last.
    pub fn captured(&self) -> Option<Captured> {
        self.inner().captured
    }
    /// The launches that were timed last, with the seconds of each.
    pub fn timed(&self) -> Vec<(Launch, f64)> {
        self.inner().timed.clone()
    }
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Shared {
    fn describe(&self) -> String {
        self.inner().device.describe()
    }
    fn memory(&self) -> Result<Memory> {
        self.inner().device.memory()
    }
    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.inner().device.allocate(bytes)
    }
    fn free(&self, address: Address) {
        self.inner().device.free(address);
    }
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.inner().device.upload(to, bytes)
    }
    fn send(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.inner().device.send(to, bytes)
    }
    fn receive(&self) -> Result<()> {
        self.inner().device.receive()
    }
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.inner().device.download(from, bytes)
    }
    fn fetch(&self, from: Address, bytes: usize, place: usize) -> Result<()> {
        self.inner().device.fetch(from, bytes, place)
    }
    fn fetched(&self, place: usize, bytes: &mut [u8]) -> Result<()> {
        self.inner().device.fetched(place, bytes)
    }
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.inner().device.copy(from, to, bytes)
    }
    fn clear(&self, address: Address, bytes: usize) -> Result<()> {
        self.inner().device.clear(address, bytes)
    }
    fn launch(&self, launch: &Launch) -> Result<()> {
        self.inner().device.launch(launch)
    }
    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>> {
        let mut inner = self.inner();
        let seconds = inner.device.time(launches)?;
        inner.timed = launches.iter().cloned().zip(seconds.iter().copied()).collect();
        Ok(seconds)
    }
    fn synchronise(&self) -> Result<()> {
        self.inner().device.synchronise()
    }
    fn capture(&self, launches: &[Launch]) -> Result<Captured> {
        let mut inner = self.inner();
        let captured = inner.device.capture(launches)?;
        inner.captured = Some(captured);
        Ok(captured)
    }
    fn replay(&self, captured: Captured) -> Result<()> {
        self.inner().device.replay(captured)
    }
    fn release(&self, captured: Captured) {
        self.inner().device.release(captured);
    }
}
