//! A device behind the NVIDIA driver, which is loaded when it is asked for: nothing of CUDA is needed to build or start.

use super::{
    device::{ALIGNMENT, Address, Captured, Device, Launch, Memory},
    kernels,
};
use crate::error::{Error, Result};
use cudarc::driver::{
    DriverError,
    result::{self, ctx, device, event, function, graph, module, primary_ctx, stream},
    sys,
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ffi::{CString, c_void},
};

/// Oldest driver interface that is used, and the kernels need: CUDA 12.0, and the major version of the compiler that made them.
fn oldest() -> i32 {
    1000 * kernels::compiler().max(12)
}
/// Lowest compute capability of the kernels.
const LOWEST: (i32, i32) = (8, 0);
/// Uploads of one stream that may be under way. What is sent for a batch, numbers and indexes, takes two: numbers always come to the same two
/// stages, and only these grow to their size.
const STAGES: usize = 4;

/// Why there is no device, or how many there are.
///
/// # Errors
/// There is no driver, it is too old or it fails, or the library holds no kernels.
pub fn count() -> Result<usize> {
    // SAFETY: it looks for a library and calls nothing in it.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::Backend("the NVIDIA driver's library (libcuda.so.1, nvcuda.dll) was not found".into()));
    }
    if kernels::images().is_empty() {
        return Err(Error::Backend("this library was built without nvcc and holds no kernels".into()));
    }
    result::init().map_err(|e| failed("the driver could not be started", &e))?;
    let mut version = 0;
    // SAFETY: the driver is there; it writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(|e| failed("the driver's version", &e))?;
    if version < oldest() {
        let [have, need] = [version, oldest()].map(|version| format!("{}.{}", version / 1000, version % 1000 / 10));
        return Err(Error::Backend(format!("the driver is for CUDA {have}, {need} is needed")));
    }
    let count = device::get_count().map_err(|e| failed("the number of devices", &e))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A page-locked piece of host memory from or to which copies are made, and the end of its last one.
struct Stage {
    pointer: *mut u8,
    len: usize,
    done: sys::CUevent,
}

/// Stages that a stream's uploads take by turns.
#[derive(Default)]
struct Ring {
    stages: Vec<Stage>,
    next: usize,
}

/// Events with times.
struct Marks(Vec<sys::CUevent>);

impl Drop for Marks {
    fn drop(&mut self) {
        // SAFETY: they were created, and are forgotten.
        self.0.iter().for_each(|&mark| _ = unsafe { event::destroy(mark) });
    }
}

/// A graph that is being made.
struct Graph(sys::CUgraph);

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it was created, and is used no more: what runs is a copy of its own.
        _ = unsafe { graph::destroy(self.0) };
    }
}

/// As long as it lives, what this thread does has no part in a graph that the host captures on another, nor that in this; else the driver
/// would refuse most of it.
struct Apart(sys::CUstreamCaptureMode);

impl Apart {
    fn new() -> std::result::Result<Self, DriverError> {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: it exchanges two values.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result()?;
        Ok(Self(mode))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // SAFETY: it exchanges two values.
        _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut self.0) };
    }
}

/// Gives a thread its context back, which may be one of the host's.
struct Entered {
    before: sys::CUcontext,
    own: sys::CUcontext,
    _apart: Apart,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.before != self.own {
            // SAFETY: it was this thread's, or is none.
            _ = unsafe { ctx::set_current(self.before) };
        }
    }
}

struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that was asked for; what there is without asking depends on what is static.
    shared: u32,
}

/// One NVIDIA device with the library's kernels.
pub struct Driver {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Of what is sent beside it.
    sender: sys::CUstream,
    /// The last thing that was sent, and the last place in `stream` where it was waited for.
    sent: sys::CUevent,
    received: sys::CUevent,
    describe: String,
    modules: Vec<sys::CUmodule>,
    functions: RefCell<HashMap<String, Function>>,
    /// Of `stream` and of `sender`.
    uploads: RefCell<Ring>,
    sends: RefCell<Ring>,
    /// Places to which numbers are fetched.
    fetched: RefCell<Vec<Stage>>,
    graphs: RefCell<HashMap<u64, sys::CUgraphExec>>,
    /// Graphs so far.
    captured: Cell<u64>,
}

// SAFETY: handles of the driver may be used by any thread whose current context is theirs, which every method sees to; the type is not
// `Sync`, so one thread at a time does.
unsafe impl Send for Driver {}

impl Driver {
    /// The device with this number, from 0, with all kernels loaded.
    ///
    /// # Errors
    /// As [`count`]; there is no such device; it is too old for the kernels.
    pub fn new(number: usize) -> Result<Self> {
        count()?;
        let device = device::get(number as i32).map_err(|e| failed("the device", &e))?;
        let name = device::get_name(device).map_err(|e| failed("the device's name", &e))?;
        use sys::CUdevice_attribute_enum::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        // SAFETY: the device is there.
        let [major, minor] = [MAJOR, MINOR].map(|attribute| unsafe { device::get_attribute(device, attribute) });
        let (major, minor) = (major.map_err(|e| failed(&name, &e))?, minor.map_err(|e| failed(&name, &e))?);
        if (major, minor) < LOWEST {
            let (need, point) = LOWEST;
            return Err(Error::Backend(format!("{name} has compute capability {major}.{minor}, {need}.{point} is needed")));
        }
        let _apart = Apart::new().map_err(|e| failed(&name, &e))?;
        // SAFETY: the device is there; the context is released when the driver is dropped.
        let context = unsafe { primary_ctx::retain(device) }.map_err(|e| failed(&name, &e))?;
        let mut driver = Self {
            device,
            context,
            stream: std::ptr::null_mut(),
            sender: std::ptr::null_mut(),
            sent: std::ptr::null_mut(),
            received: std::ptr::null_mut(),
            describe: format!("{name} (compute capability {major}.{minor})"),
            modules: Vec::new(),
            functions: RefCell::default(),
            uploads: RefCell::default(),
            sends: RefCell::default(),
            fetched: RefCell::default(),
            graphs: RefCell::default(),
            captured: Cell::new(0),
        };
        let _entered = driver.enter("begin")?;
        let stream = || stream::create(stream::StreamKind::NonBlocking).map_err(|e| driver.failed("a stream", &e));
        let event = || event::create(sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING).map_err(|e| driver.failed("an event", &e));
        let (streams, events) = ([stream()?, stream()?], [event()?, event()?]);
        ([driver.stream, driver.sender], [driver.sent, driver.received]) = (streams, events);
        for (family, image) in kernels::images() {
            // The driver wants it aligned.
            let mut words = vec![0u64; image.len().div_ceil(8)];
            bytemuck::cast_slice_mut(&mut words)[..image.len()].copy_from_slice(image);
            // SAFETY: it is what nvcc made.
            let module = unsafe { module::load_data(words.as_ptr().cast()) };
            driver.modules.push(module.map_err(|e| driver.failed(&format!("loading the kernels '{family}'"), &e))?);
        }
        Ok(driver)
    }

    /// Makes the device's context that of this thread, for as long as the result lives.
    fn enter(&self, what: &str) -> Result<Entered> {
        let before = ctx::get_current().map_err(|e| self.failed(what, &e))?;
        let before = before.unwrap_or(std::ptr::null_mut());
        let apart = Apart::new().map_err(|e| self.failed(what, &e))?;
        let entered = Entered { before, own: self.context, _apart: apart };
        if before != self.context {
            // SAFETY: the context lives as long as self.
            unsafe { ctx::set_current(self.context) }.map_err(|e| self.failed(what, &e))?;
        }
        Ok(entered)
    }

    fn failed(&self, what: &str, error: &DriverError) -> Error {
        failed(&format!("{}: {what}", self.describe), error)
    }

    /// The function of a launch, with leave for its shared memory.
    fn function(&self, launch: &Launch) -> Result<sys::CUfunction> {
        let mut functions = self.functions.borrow_mut();
        if !functions.contains_key(&launch.kernel) {
            let handle = self.find(&launch.kernel)?;
            functions.insert(launch.kernel.clone(), Function { handle, shared: 0 });
        }
        let function = functions.get_mut(&launch.kernel).expect("just inserted");
        if launch.shared > function.shared {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is there.
            unsafe { function::set_function_attribute(function.handle, attribute, launch.shared as i32) }
                .map_err(|e| self.failed(&format!("{} bytes of shared memory for '{}'", launch.shared, launch.kernel), &e))?;
            function.shared = launch.shared;
        }
        Ok(function.handle)
    }

    fn find(&self, kernel: &str) -> Result<sys::CUfunction> {
        let missing = || Error::Backend(format!("there is no kernel '{kernel}'"));
        let name = CString::new(kernel).map_err(|_| missing())?;
        for module in &self.modules {
            // SAFETY: the module is loaded.
            match unsafe { module::get_function(*module, name.clone()) } {
                Ok(handle) => return Ok(handle),
                Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND)) => {}
                Err(e) => return Err(self.failed(&format!("the kernel '{kernel}'"), &e)),
            }
        }
        Err(missing())
    }

    fn start(&self, function: sys::CUfunction, launch: &Launch) -> Result<()> {
        let mut arguments = [launch.arguments().as_ptr().cast::<c_void>().cast_mut()];
        let [x, y, z] = launch.grid;
        // SAFETY: the kernel takes one structure, which the driver copies; its addresses are those of the backend's allocations.
        unsafe { result::launch_kernel(function, (x, y, z), (launch.block, 1, 1), launch.shared, self.stream, &mut arguments) }
            .map_err(|e| self.failed(&format!("launching '{}' with {:?} blocks", launch.kernel, launch.grid), &e))
    }

    /// Appends a launch to a graph behind another; gives its node.
    fn append(&self, graph: &Graph, behind: Option<sys::CUgraphNode>, launch: &Launch) -> Result<sys::CUgraphNode> {
        let mut arguments = [launch.arguments().as_ptr().cast::<c_void>().cast_mut()];
        let [x, y, z] = launch.grid;
        let parameters = sys::CUDA_KERNEL_NODE_PARAMS_v2_st {
            func: self.function(launch)?,
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: launch.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared,
            kernelParams: arguments.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kern: std::ptr::null_mut(),
            ctx: std::ptr::null_mut(),
        };
        let mut node = std::ptr::null_mut();
        // SAFETY: graph and node are there; the kernel takes one structure, which the driver copies; its addresses are those of the backend's
        // allocations.
        unsafe { sys::cuGraphAddKernelNode_v2(&mut node, graph.0, behind.as_slice().as_ptr(), behind.as_slice().len(), &parameters) }
            .result()
            .map_err(|e| self.failed(&format!("a node for '{}' with {:?} blocks", launch.kernel, launch.grid), &e))?;
        Ok(node)
    }

    /// One of the stages, with page-locked memory for `bytes`, once no copy is under way there any more.
    fn stage<'a>(&self, stages: &'a mut Vec<Stage>, index: usize, bytes: usize) -> Result<&'a Stage> {
        while stages.len() <= index {
            let done = event::create(sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING).map_err(|e| self.failed("an event", &e))?;
            stages.push(Stage { pointer: std::ptr::null_mut(), len: 0, done });
        }
        let stage = &mut stages[index];
        // SAFETY: the event is there; without a copy before it is over at once.
        unsafe { event::synchronize(stage.done) }.map_err(|e| self.failed("a copy", &e))?;
        if stage.len < bytes {
            // Batches differ a little.
            let room = bytes + bytes / 16;
            if !stage.pointer.is_null() {
                // SAFETY: it was allocated so, and the last copy is over.
                unsafe { result::free_host(stage.pointer.cast()) }.map_err(|e| self.failed("page-locked memory", &e))?;
                (stage.pointer, stage.len) = (std::ptr::null_mut(), 0);
            }
            // SAFETY: flags of 0 ask for nothing special.
            let pointer = unsafe { result::malloc_host(room, 0) }
                .map_err(|e| self.failed(&format!("{room} bytes of page-locked memory of the host"), &e))?;
            (stage.pointer, stage.len) = (pointer.cast(), room);
        }
        Ok(stage)
    }
}

impl Driver {
    /// Copies to the device in a stream, by way of the next of its stages.
    fn stage_to(&self, stream: sys::CUstream, ring: &RefCell<Ring>, to: Address, bytes: &[u8]) -> Result<()> {
        let Ring { stages, next } = &mut *ring.borrow_mut();
        let index = std::mem::replace(next, (*next + 1) % STAGES);
        if bytes.is_empty() {
            return Ok(());
        }
        let stage = self.stage(stages, index, bytes.len())?;
        // SAFETY: the stage has room, and nothing else reads or writes it until its event.
        let staged = unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), stage.pointer, bytes.len());
            std::slice::from_raw_parts(stage.pointer, bytes.len())
        };
        // SAFETY: the target is in an allocation of the backend.
        unsafe { result::memcpy_htod_async(to, staged, stream).and_then(|()| event::record(stage.done, stream)) }
            .map_err(|e| self.failed(&format!("uploading {} bytes", bytes.len()), &e))
    }
}

impl Device for Driver {
    fn describe(&self) -> String {
        self.describe.clone()
    }

    fn memory(&self) -> Result<Memory> {
        let _entered = self.enter("memory")?;
        let (free, total) = result::mem_get_info().map_err(|e| self.failed("memory", &e))?;
        Ok(Memory { free, total })
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        let _entered = self.enter("allocating")?;
        // SAFETY: nothing is read from it before it is written.
        let address = unsafe { result::malloc_sync(bytes.max(1)) };
        let address = address.map_err(|e| self.failed(&format!("allocating {bytes} bytes"), &e))?;
        debug_assert!(address.is_multiple_of(ALIGNMENT as Address));
        Ok(address)
    }

    fn free(&self, address: Address) {
        if let Ok(_entered) = self.enter("freeing") {
            // Nothing says that the driver waits for what uses it.
            _ = self.synchronise();
            // SAFETY: it was allocated so; a lost device has nothing to free.
            _ = unsafe { result::free_sync(address) };
        }
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        let _entered = self.enter("uploading")?;
        self.stage_to(self.stream, &self.uploads, to, bytes)
    }

    fn send(&self, to: Address, bytes: &[u8]) -> Result<()> {
        let _entered = self.enter("sending")?;
        // SAFETY: stream and event are there.
        unsafe { stream::wait_event(self.sender, self.received, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }
            .map_err(|e| self.failed("waiting to send", &e))?;
        self.stage_to(self.sender, &self.sends, to, bytes)
    }

    fn receive(&self) -> Result<()> {
        let _entered = self.enter("receiving")?;
        // SAFETY: streams and events are there.
        unsafe {
            event::record(self.received, self.stream)
                .and_then(|()| event::record(self.sent, self.sender))
                .and_then(|()| stream::wait_event(self.stream, self.sent, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT))
        }
        .map_err(|e| self.failed("waiting for what was sent", &e))
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        let _entered = self.enter("downloading")?;
        if !bytes.is_empty() {
            let len = bytes.len();
            // SAFETY: the source is in an allocation of the backend; the copy is waited for below.
            unsafe { result::memcpy_dtoh_async(bytes, from, self.stream) }
                .map_err(|e| self.failed(&format!("downloading {len} bytes"), &e))?;
        }
        self.synchronise()
    }

    fn fetch(&self, from: Address, bytes: usize, place: usize) -> Result<()> {
        let _entered = self.enter("fetching")?;
        let mut stages = self.fetched.borrow_mut();
        let stage = self.stage(&mut stages, place, bytes)?;
        // SAFETY: the stage has room, and nothing else reads or writes it until its event.
        let to = unsafe { std::slice::from_raw_parts_mut(stage.pointer, bytes) };
        // SAFETY: the source is in an allocation of the backend.
        unsafe { result::memcpy_dtoh_async(to, from, self.stream).and_then(|()| event::record(stage.done, self.stream)) }
            .map_err(|e| self.failed(&format!("fetching {bytes} bytes"), &e))
    }

    fn fetched(&self, place: usize, bytes: &mut [u8]) -> Result<()> {
        let _entered = self.enter("fetching")?;
        let stages = self.fetched.borrow();
        let stage = stages.get(place).filter(|stage| stage.len >= bytes.len());
        let stage = stage.ok_or_else(|| Error::Backend(format!("{} bytes were not fetched", bytes.len())))?;
        // SAFETY: the event is there.
        unsafe { event::synchronize(stage.done) }.map_err(|e| self.failed("a kernel or copy before", &e))?;
        // SAFETY: the stage has as many bytes, and the copy to it is over.
        bytes.copy_from_slice(unsafe { std::slice::from_raw_parts(stage.pointer, bytes.len()) });
        Ok(())
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        let _entered = self.enter("copying")?;
        // SAFETY: both are in allocations of the backend.
        let done = if bytes == 0 { Ok(()) } else { unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) } };
        done.map_err(|e| self.failed(&format!("copying {bytes} bytes"), &e))
    }

    fn clear(&self, address: Address, bytes: usize) -> Result<()> {
        let _entered = self.enter("clearing")?;
        // SAFETY: it is in an allocation of the backend.
        let done = if bytes == 0 { Ok(()) } else { unsafe { result::memset_d8_async(address, 0, bytes, self.stream) } };
        done.map_err(|e| self.failed(&format!("clearing {bytes} bytes"), &e))
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        let _entered = self.enter("launching")?;
        self.start(self.function(launch)?, launch)
    }

    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>> {
        let _entered = self.enter("timing")?;
        let functions = launches.iter().map(|launch| self.function(launch)).collect::<Result<Vec<_>>>()?;
        let mut marks = Marks(Vec::with_capacity(launches.len() + 1));
        for _ in 0..=launches.len() {
            marks.0.push(event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT).map_err(|e| self.failed("an event", &e))?);
        }
        // SAFETY: event and stream are there.
        let mark = |i: usize| unsafe { event::record(marks.0[i], self.stream) }.map_err(|e| self.failed("recording an event", &e));
        mark(0)?;
        for (i, (function, launch)) in functions.into_iter().zip(launches).enumerate() {
            self.start(function, launch)?;
            mark(i + 1)?;
        }
        self.synchronise()?;
        // SAFETY: both are there and have happened.
        let between = |pair: &[sys::CUevent]| unsafe { event::elapsed(pair[0], pair[1]) }.map(|milliseconds| f64::from(milliseconds) / 1e3);
        marks.0.windows(2).map(|pair| between(pair).map_err(|e| self.failed("the time between two events", &e))).collect()
    }

    fn synchronise(&self) -> Result<()> {
        let _entered = self.enter("waiting")?;
        // SAFETY: the stream is there.
        unsafe { stream::synchronize(self.stream) }.map_err(|e| self.failed("a kernel or copy before", &e))
    }

    fn capture(&self, launches: &[Launch]) -> Result<Captured> {
        let _entered = self.enter("making a graph")?;
        // Node by node: while a stream is captured, any thread of the host that waits for the device spoils the capture, and fails itself.
        let mut made = std::ptr::null_mut();
        // SAFETY: it writes one handle.
        unsafe { sys::cuGraphCreate(&mut made, 0) }.result().map_err(|e| self.failed("a graph", &e))?;
        let made = Graph(made);
        let mut last = None;
        for launch in launches {
            last = Some(self.append(&made, last, launch)?);
        }
        // SAFETY: the graph is whole.
        let executable = unsafe { graph::instantiate(made.0, sys::CUgraphInstantiate_flags(0)) }
            .map_err(|e| self.failed(&format!("making a graph of {} launches", launches.len()), &e))?;
        let id = self.captured.replace(self.captured.get() + 1);
        self.graphs.borrow_mut().insert(id, executable);
        Ok(Captured(id))
    }

    fn replay(&self, captured: Captured) -> Result<()> {
        let _entered = self.enter("replaying")?;
        let graphs = self.graphs.borrow();
        let executable = graphs.get(&captured.0).ok_or_else(|| Error::Backend("the captured launches were released".into()))?;
        // SAFETY: graph and stream are there.
        unsafe { graph::launch(*executable, self.stream) }.map_err(|e| self.failed("replaying a graph", &e))
    }

    fn release(&self, captured: Captured) {
        if let Some(executable) = self.graphs.borrow_mut().remove(&captured.0)
            && let Ok(_entered) = self.enter("releasing")
        {
            // SAFETY: it was instantiated, and is forgotten. The driver keeps it while it runs.
            _ = unsafe { graph::exec_destroy(executable) };
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A lost device fails in each; there is nothing left to do about it.
        if let Ok(_entered) = self.enter("ending") {
            _ = self.synchronise();
            // SAFETY: all of these are there, and are used no more.
            unsafe {
                if !self.sender.is_null() {
                    _ = stream::synchronize(self.sender);
                }
                self.graphs.borrow_mut().drain().for_each(|(_, executable)| _ = graph::exec_destroy(executable));
                let stages = [&mut self.uploads.get_mut().stages, &mut self.sends.get_mut().stages, self.fetched.get_mut()];
                for stage in stages.into_iter().flat_map(|stages| stages.drain(..)) {
                    _ = event::destroy(stage.done);
                    if !stage.pointer.is_null() {
                        _ = result::free_host(stage.pointer.cast());
                    }
                }
                self.modules.drain(..).for_each(|module| _ = module::unload(module));
                [self.stream, self.sender].into_iter().filter(|stream| !stream.is_null()).for_each(|stream| _ = stream::destroy(stream));
                [self.sent, self.received].into_iter().filter(|event| !event.is_null()).for_each(|event| _ = event::destroy(event));
            }
        }
        let _apart = Apart::new();
        // SAFETY: it was retained.
        _ = unsafe { primary_ctx::release(self.device) };
    }
}

/// The driver's error in words.
fn failed(what: &str, error: &DriverError) -> Error {
    let name = error.error_string().ok().and_then(|text| text.to_str().ok()).unwrap_or("unknown error");
    // As a number: drivers may know errors that have no name here.
    Error::Backend(format!("{what}: {name} (error {})", error.0 as u32))
}
