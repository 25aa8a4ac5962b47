//! What the library is, and a test of its own border.

use super::{
    engine::TeEngine,
    guard::{c_string, guard},
    handle,
    status::{Failure, TeStatus},
    types::{TE_ABI_VERSION, TE_SELF_TEST_PANIC},
};
use std::{
    ffi::{CString, c_char},
    sync::OnceLock,
};

/// Version of the library, for instance `0.1.0`.
#[unsafe(no_mangle)]
pub extern "C" fn te_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Version of the interface that the library has; compare with `TE_ABI_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn te_abi_version() -> u32 {
    TE_ABI_VERSION
}

/// How the library was built, as JSON; `cuda`: the compute capabilities of GPUs that it holds kernels for, none if there was no nvcc.
#[unsafe(no_mangle)]
pub extern "C" fn te_build_info() -> *const c_char {
    static INFO: OnceLock<CString> = OnceLock::new();
    let info = || {
        let info = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "abi_version": TE_ABI_VERSION,
            "architecture": std::env::consts::ARCH,
            "system": std::env::consts::OS,
            "optimised": !cfg!(debug_assertions),
            "cuda": crate::trainer::session::cuda_architectures(),
        });
        c_string(&info.to_string())
    };
    INFO.get_or_init(info).as_ptr()
}

/// Provokes a fault inside the library, so that a host can test how it copes: `test` is a `TE_SELF_TEST_...`. With
/// `TE_SELF_TEST_PANIC` it returns `TE_PANIC`, and the engine, if one is given, can afterwards only be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn te_self_test(engine: *mut TeEngine, test: i32) -> TeStatus {
    // SAFETY: the host vouches for its handle as the header asks.
    guard(|| unsafe {
        let provoke = || match test {
            TE_SELF_TEST_PANIC => panic!("provoked by te_self_test"),
            other => Err(Failure::argument(format!("no self test {other}"))),
        };
        match engine.is_null() {
            true => provoke(),
            false => handle::borrow(engine.cast_const())?.call(|_| Ok(provoke()))?,
        }
    })
}
