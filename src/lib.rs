//! Trains the PLUTO motion planner inside the program that has the data.
//!
//! One scenario travels through the rooms (modules) in this order; a room may use those before it, and nothing else:
//!
//! | room | what it holds |
//! |---|---|
//! | [`config`] | text and overrides to one validated, immutable configuration |
//! | [`scenario`] | what a host supplies: ego, tracked agents, map, route, lights |
//! | [`features`] | scenario to the arrays that the network and the objectives read |
//! | [`augment`] | contrastive samples |
//! | [`data`] | splits, order, packing into batches, loading ahead |
//! | [`model`] | the network, forward only, recorded on a graph |
//! | [`objectives`], [`metrics`], [`optim`] | losses, metrics, parameter groups and schedules |
//! | [`trainer`] | loops, checkpoints, hooks; [`trainer::session`] alone runs a graph on a backend |
//! | [`engine`] | the built whole that the C ABI (`ffi`) exposes |
//!
//! Beside them: [`graph`] (what is computed), [`backend`] (how), [`logger`], [`distributed`], [`error`] and `files` (durable ones).

pub mod augment;
pub mod backend;
pub mod config;
pub mod data;
pub mod distributed;
pub mod engine;
pub mod error;
pub mod features;
mod files;
pub mod graph;
pub mod logger;
pub mod metrics;
pub mod model;
pub mod objectives;
pub mod optim;
pub mod scenario;
pub mod trainer;

#[allow(unsafe_code)]
mod ffi;
