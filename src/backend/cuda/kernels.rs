//! The compiled kernels that the library holds; `build.rs` puts them there.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// A file of kernels for all architectures: its name and what the driver loads.
pub fn images() -> &'static [(&'static str, &'static [u8])] {
    IMAGES
}

/// Major version of the compiler that made them: a driver has to be as new.
pub fn compiler() -> i32 {
    COMPILER
}

/// Compute capabilities that have their own code, such as `80,90`; empty without kernels.
pub fn architectures() -> &'static str {
    ARCHITECTURES
}
