//! Codecs: the framings, the wrappers around them, and RESP; and `Framed`, which serves
//! them.

mod check;
#[path = "../common/mod.rs"]
mod common;

mod compat;
mod forwarding;
mod frame_timeout;
mod framed;
mod framings;
mod resp;
mod wrapping;
