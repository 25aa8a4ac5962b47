//! What the backend needs of a device: memory, copies, launches, captured sequences of launches.

use crate::error::Result;
use bytemuck::Pod;

/// A place in the device's memory. 0 is none.
pub type Address = u64;

/// Addresses of allocations and of pieces of scratch are multiples of this many bytes.
pub const ALIGNMENT: usize = 256;

/// Multiprocessors of the large device that work is cut up for (H100 SXM).
pub const MULTIPROCESSORS: usize = 132;

/// A sequence of launches that the device keeps; see [`Device::capture`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Captured(pub u64);

/// Bytes of a device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Not in use by anyone.
    pub free: usize,
    /// All.
    pub total: usize,
}

/// A kernel with its grid and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Name of the kernel.
    pub kernel: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// The one argument, a structure; see [`Launch::arguments`].
    words: Vec<u64>,
}

impl Launch {
    /// A launch of `kernel` with the structure `arguments`.
    pub fn new<A: Pod>(kernel: &str, grid: [u32; 3], block: u32, shared: u32, arguments: &A) -> Self {
        let bytes = bytemuck::bytes_of(arguments);
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self { kernel: kernel.into(), grid, block, shared, words }
    }
    /// Bytes of the argument, filled up with zeros to a multiple of 8; their address is a multiple of 8.
    pub fn arguments(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }
}

/// A device that runs the kernels. But for [`Device::send`], copies, fills and launches take effect in the order of the calls; all but
/// downloads, [`Device::fetched`] and [`Device::synchronise`] may return before they have. Errors are [`crate::error::Error::Backend`] with what was done.
pub trait Device: Send {
    /// What it is, for people: model and compute capability.
    fn describe(&self) -> String;

    /// Its memory.
    ///
    /// # Errors
    /// The device failed.
    fn memory(&self) -> Result<Memory>;

    /// Memory of any content, aligned to [`ALIGNMENT`]. 0 bytes are allowed.
    ///
    /// # Errors
    /// There is not enough.
    fn allocate(&self, bytes: usize) -> Result<Address>;

    /// Gives memory of [`Device::allocate`] back, after all that was launched is done.
    fn free(&self, address: Address);

    /// Copies to the device. The bytes are read before it returns.
    ///
    /// # Errors
    /// The device failed.
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Copies to the device beside what has been launched since the last [`Device::receive`]; what was launched before it is done first. The
    /// bytes are read before it returns.
    ///
    /// # Errors
    /// The device failed.
    fn send(&self, to: Address, bytes: &[u8]) -> Result<()>;

    /// What is launched from now on begins once all is there that was sent.
    ///
    /// # Errors
    /// The device failed.
    fn receive(&self) -> Result<()>;

    /// Copies from the device and waits for it.
    ///
    /// # Errors
    /// The device failed, now or in a launch before.
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()>;

    /// Begins to copy from the device to a place of the host, of any number, that keeps the bytes until the next copy to it; for a few bytes.
    ///
    /// # Errors
    /// The device failed.
    fn fetch(&self, from: Address, bytes: usize, place: usize) -> Result<()>;

    /// Waits for the last copy to a place, of as many bytes, and gives them.
    ///
    /// # Errors
    /// There was none; the device failed, now or in a launch before.
    fn fetched(&self, place: usize, bytes: &mut [u8]) -> Result<()>;

    /// Copies within the device; the parts do not overlap.
    ///
    /// # Errors
    /// The device failed.
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()>;

    /// Sets bytes to zero.
    ///
    /// # Errors
    /// The device failed.
    fn clear(&self, address: Address, bytes: usize) -> Result<()>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// There is no such kernel, the grid is not possible, or the device failed.
    fn launch(&self, launch: &Launch) -> Result<()>;

    /// Runs kernels one after another, waits for them, and gives the seconds that each took on the device.
    ///
    /// # Errors
    /// As [`Device::launch`].
    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>>;

    /// Waits for all that was launched.
    ///
    /// # Errors
    /// The device failed, now or in a launch before.
    fn synchronise(&self) -> Result<()>;

    /// Keeps launches instead of running them.
    ///
    /// # Errors
    /// As [`Device::launch`].
    fn capture(&self, launches: &[Launch]) -> Result<Captured>;

    /// Runs captured launches.
    ///
    /// # Errors
    /// The device failed.
    fn replay(&self, captured: Captured) -> Result<()>;

    /// Forgets captured launches.
    fn release(&self, captured: Captured);
}
