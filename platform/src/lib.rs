//! What [millstream] asks of the operating system.
//!
//! This is the only crate of the project with `unsafe` code; each block names the invariant that
//! makes it sound. It holds seven things:
//!
//! - [`address`]: the addresses of sockets;
//! - [`driver`]: the contract between the engine and the operating system, and its drivers;
//! - [`memory`]: mirrored ring memory for input, the segmented queue for output, and their pools;
//! - [`socket`]: how listening sockets are made and which options they carry;
//! - [`cpu`]: which cores the process may use, pinning a thread to one, and for how long it did not
//!   run;
//! - [`log`]: how often a line is logged that others can cause;
//! - [`time`]: sums of times and durations that stay within the clock's range.
//!
//! It is published because millstream needs it. Its API follows the engine's needs, so depend on
//! `millstream`, not on this crate.
//!
//! [millstream]: https://docs.rs/millstream

// Sums of times: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
// All of it is for Unix, so no page says so.
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(unix))))]

#[cfg(not(unix))]
compile_error!("millstream needs a Unix system: Linux, macOS or one of the BSDs");

// Elsewhere there is nothing, so that no other error hides that one.
#[cfg(unix)]
pub mod address;
#[cfg(unix)]
pub mod cpu;
#[cfg(unix)]
pub mod driver;
#[cfg(unix)]
pub mod log;
#[cfg(unix)]
pub mod memory;
#[cfg(unix)]
pub mod socket;
#[cfg(unix)]
pub mod time;
