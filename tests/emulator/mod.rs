//! A CUDA device that is none: `kernels/*.cu` compiled by the host's C++ compiler, their threads run as fibers.
//!
//! `emulator.h` is the language, `emulator.cpp` fibers, barriers and launches, `warp.cpp` collectives and tensor products, which round as tensor
//! cores do, `memory.cpp` the device's memory, `checker.cpp` what finds races, accesses out of bounds and reads of what no one has written,
//! `meter.cpp` what accesses to memory would cost, `driver.cpp` the NVIDIA driver's library on top of it all. `ptx.cpp` reads the same kernels as
//! NVIDIA's compiler makes them, and `instructions.cpp` runs those, with everything else as above.
//!
//! One core multiplies with about 1 GFLOP/s, and meets at barriers and shuffles in 10 to 25 ns a thread. Watched, products take 2 to 4
//! times as long, and kernels that only move memory 10 times. An instruction of PTX takes some 10 ns.

#![allow(dead_code, unsafe_code, reason = "calls a library that is loaded; every test uses a part of it")]

pub mod build;

use build::{Kind, Library, library};
use std::{
    collections::{HashMap, VecDeque},
    ffi::{CStr, CString, c_void},
    sync::{Arc, Mutex},
    time::Instant,
};
use training_engine::{
    backend::cuda::device::{Address, Captured, Device, Launch, Memory},
    error::{Error, Result},
};

/// In which order threads and blocks run, and when asynchronous copies happen between issue and wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Schedule {
    /// Lane by lane, warp by warp; copies happen at the wait.
    Forward,
    /// The last first.
    Reverse,
    /// As forward; copies happen when they are issued.
    EarlyCopies,
    /// By chance, the same at every run.
    Random,
}

impl Schedule {
    pub const ALL: [Self; 4] = [Self::Forward, Self::Reverse, Self::EarlyCopies, Self::Random];
}

/// An emulated device; clones are the same device. It is freed with the last.
#[derive(Clone)]
pub struct Emulator(Arc<Mutex<Inner>>);

struct Inner {
    device: *mut c_void,
    library: &'static Library,
    captured: HashMap<u64, Vec<Launch>>,
    captures: u64,
    /// Whether work waits until it must be done.
    late: bool,
    waiting: VecDeque<Task>,
    /// What was fetched, by place.
    fetched: HashMap<usize, Vec<u8>>,
    /// Work that was there at the last `receive` and still waits.
    received: usize,
}

/// Work in the order in which it was asked for.
enum Task {
    Upload(Address, Vec<u8>),
    Copy(Address, Address, usize),
    Clear(Address, usize),
    Fetch(Address, usize, usize),
    Launch(Launch),
    Replay(Captured),
}

// SAFETY: the device is used by one thread at a time, under the mutex, and has nothing that belongs to a thread.
unsafe impl Send for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: made by `create`, freed once.
        unsafe { (self.library.destroy)(self.device) }
    }
}

impl Inner {
    /// An error from the result of a call.
    fn ok(&self, result: i32) -> Result<()> {
        if result == 0 {
            return Ok(());
        }
        // SAFETY: a string of the device, valid until the next call.
        let text = unsafe { CStr::from_ptr((self.library.error)(self.device)) };
        Err(Error::Backend(format!("emulated device: {}", text.to_string_lossy())))
    }
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the device checks its own range.
        self.ok(unsafe { (self.library.download)(self.device, bytes.as_mut_ptr().cast(), pointer(from), bytes.len()) })
    }
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        // SAFETY: the device checks its own range.
        self.ok(unsafe { (self.library.upload)(self.device, pointer(to), bytes.as_ptr().cast(), bytes.len()) })
    }
    /// Does a task, or lets it wait.
    fn take(&mut self, task: Task) -> Result<()> {
        self.waiting.push_back(task);
        if self.late { Ok(()) } else { self.work(usize::MAX) }
    }
    /// Does so many of the tasks that wait.
    fn work(&mut self, most: usize) -> Result<()> {
        for _ in 0..most {
            let Some(task) = self.waiting.pop_front() else { break };
            self.received = self.received.saturating_sub(1);
            self.run(&task)?;
        }
        Ok(())
    }
    fn run(&mut self, task: &Task) -> Result<()> {
        match task {
            Task::Fetch(from, bytes, place) => {
                let mut fetched = vec![0; *bytes];
                self.download(*from, &mut fetched)?;
                self.fetched.insert(*place, fetched);
                Ok(())
            }
            Task::Upload(to, bytes) => self.upload(*to, bytes),
            // SAFETY: the device checks both ranges.
            Task::Copy(from, to, bytes) => self.ok(unsafe { (self.library.copy)(self.device, pointer(*to), pointer(*from), *bytes) }),
            // SAFETY: the device checks the range.
            Task::Clear(address, bytes) => self.ok(unsafe { (self.library.clear)(self.device, pointer(*address), *bytes) }),
            Task::Launch(launch) => self.launch(launch),
            Task::Replay(captured) => {
                let launches = self.captured.get(&captured.0).ok_or_else(|| Error::Backend("no such captured launches".into()))?;
                launches.iter().try_for_each(|launch| self.launch(launch))
            }
        }
    }
    fn launch(&self, launch: &Launch) -> Result<()> {
        let name = CString::new(launch.kernel.as_str()).map_err(|e| Error::Backend(e.to_string()))?;
        let bytes = launch.arguments();
        // SAFETY: the pointers are of the sizes that are given; kernels are confined to the device's memory as far as the
        // emulator and its checker see to it.
        self.ok(unsafe {
            (self.library.launch)(
                self.device,
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.block,
                launch.shared,
                bytes.as_ptr().cast(),
                bytes.len(),
            )
        })
    }
}

impl Emulator {
    /// A device that runs the kernels as they are.
    pub fn new() -> Self {
        Self::load(Kind::Plain)
    }
    /// A device that watches every access to memory; see [`Self::reports`].
    pub fn checked() -> Self {
        Self::load(Kind::Checked)
    }
    /// A device that runs the kernels as NVIDIA's compiler made them.
    pub fn compiled() -> Self {
        Self::load(Kind::Compiled)
    }
    fn load(kind: Kind) -> Self {
        let library = library(kind);
        // SAFETY: no precondition.
        let device = unsafe { (library.create)(kind as i32) };
        assert!(!device.is_null(), "no address space for an emulated device");
        Self(Arc::new(Mutex::new(Inner {
            device,
            library,
            captured: HashMap::new(),
            captures: 0,
            late: false,
            waiting: VecDeque::new(),
            fetched: HashMap::new(),
            received: 0,
        })))
    }
    /// The same device with launches in another order.
    pub fn with_schedule(self, schedule: Schedule) -> Self {
        {
            let inner = self.inner();
            // SAFETY: a live device.
            unsafe { (inner.library.schedule)(inner.device, schedule as i32) };
        }
        self
    }
    /// The same device, but it works only when it is waited for, or before it overwrites what is sent beside it.
    pub fn late(self) -> Self {
        self.inner().late = true;
        self
    }
    /// What the checker has found since the last call, with kernel, source line and threads. Empty without checker.
    pub fn reports(&self) -> Vec<String> {
        let inner = self.inner();
        // SAFETY: a string that is valid until the next call.
        let text = unsafe { CStr::from_ptr((inner.library.reports)(inner.device)) };
        text.to_string_lossy().lines().map(String::from).collect()
    }
    /// A device that watches, and counts what accesses cost; see [`Self::costs`].
    pub fn measured() -> Self {
        let emulator = Self::checked();
        {
            let inner = emulator.inner();
            // SAFETY: a live device.
            unsafe { (inner.library.measure)(inner.device) };
        }
        emulator
    }
    /// What each instruction that accesses memory has cost since the last call: sectors of 32 bytes or wavefronts of shared memory
    /// for a request of a warp, and how few would do; "excess" where half more than these are needed.
    pub fn costs(&self) -> Vec<String> {
        let inner = self.inner();
        // SAFETY: a string that is valid until the next call.
        let text = unsafe { CStr::from_ptr((inner.library.costs)(inner.device)) };
        text.to_string_lossy().lines().map(String::from).collect()
    }
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

fn pointer(address: Address) -> *mut c_void {
    address as *mut c_void
}

impl Device for Emulator {
    fn describe(&self) -> String {
        "emulated device".into()
    }
    fn memory(&self) -> Result<Memory> {
        Ok(Memory { free: 4 << 30, total: 4 << 30 })
    }
    fn allocate(&self, bytes: usize) -> Result<Address> {
        let inner = self.inner();
        // SAFETY: a live device.
        let address = unsafe { (inner.library.allocate)(inner.device, bytes) };
        inner.ok(i32::from(address.is_null()))?;
        Ok(address as Address)
    }
    fn free(&self, address: Address) {
        let mut inner = self.inner();
        _ = inner.work(usize::MAX);
        // SAFETY: a live device; addresses that are not its own are refused.
        unsafe { (inner.library.free)(inner.device, pointer(address)) };
    }
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.inner().take(Task::Upload(to, bytes.to_vec()))
    }
    fn send(&self, to: Address, bytes: &[u8]) -> Result<()> {
        let mut inner = self.inner();
        let before = inner.received;
        inner.work(before)?;
        inner.upload(to, bytes)
    }
    fn receive(&self) -> Result<()> {
        let mut inner = self.inner();
        inner.received = inner.waiting.len();
        Ok(())
    }
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        let mut inner = self.inner();
        inner.work(usize::MAX)?;
        inner.download(from, bytes)
    }
    fn fetch(&self, from: Address, bytes: usize, place: usize) -> Result<()> {
        let mut inner = self.inner();
        inner.fetched.remove(&place);
        inner.take(Task::Fetch(from, bytes, place))
    }
    fn fetched(&self, place: usize, bytes: &mut [u8]) -> Result<()> {
        let mut inner = self.inner();
        // No further than needed.
        while !inner.fetched.contains_key(&place) && !inner.waiting.is_empty() {
            inner.work(1)?;
        }
        let fetched = inner.fetched.get(&place).filter(|fetched| fetched.len() == bytes.len());
        bytes.copy_from_slice(fetched.ok_or_else(|| Error::Backend("nothing was fetched there".into()))?);
        Ok(())
    }
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.inner().take(Task::Copy(from, to, bytes))
    }
    fn clear(&self, address: Address, bytes: usize) -> Result<()> {
        self.inner().take(Task::Clear(address, bytes))
    }
    fn launch(&self, launch: &Launch) -> Result<()> {
        self.inner().take(Task::Launch(launch.clone()))
    }
    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>> {
        self.synchronise()?;
        let inner = self.inner();
        let seconds = |launch| {
            let start = Instant::now();
            inner.launch(launch).map(|()| start.elapsed().as_secs_f64())
        };
        launches.iter().map(seconds).collect()
    }
    fn synchronise(&self) -> Result<()> {
        self.inner().work(usize::MAX)
    }
    fn capture(&self, launches: &[Launch]) -> Result<Captured> {
        let mut inner = self.inner();
        inner.captures += 1;
        let number = inner.captures;
        inner.captured.insert(number, launches.to_vec());
        Ok(Captured(number))
    }
    fn replay(&self, captured: Captured) -> Result<()> {
        self.inner().take(Task::Replay(captured))
    }
    fn release(&self, captured: Captured) {
        let mut inner = self.inner();
        _ = inner.work(usize::MAX);
        inner.captured.remove(&captured.0);
    }
}
