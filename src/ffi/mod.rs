//! The C ABI: the only `extern "C"` of the crate, and the only room that knows C.
//!
//! | file | what it holds |
//! |---|---|
//! | `guard` | every entry runs inside it: panics are caught, the thread's last error is kept |
//! | `status` | codes |
//! | `handle` | ownership of what a host holds by pointer |
//! | `types` | structures that cross, with their layouts locked |
//! | `read` | checked reading of structures, arrays and strings |
//! | `map`, `scenario` | the host's description to [`crate::scenario`] |
//! | `source` | callbacks to [`crate::scenario::ScenarioSource`] |
//! | `host` | log and event callbacks, failures that callbacks report |
//! | `engine`, `weights`, `run`, `predict` | the entries |
//! | `info` | versions and the self test |

mod engine;
mod guard;
mod handle;
mod host;
mod info;
mod map;
mod predict;
mod read;
mod run;
mod scenario;
mod source;
mod status;
mod types;
mod weights;
