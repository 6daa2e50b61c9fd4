//! Restarting without a refused connection: listening sockets that a service manager or the process
//! before this one has opened.
//!
//! - [`Handover`] takes over from the process before this one, and later hands on to the next;
//! - [`Inherited`] are listening sockets that are there already, from either source.
//!
//! The [guide](crate::guide::restarting) tells how a program restarts, and what its protocol should
//! do so that no reply is lost.

mod handover;
mod inherited;
mod message;
mod server;

pub use millstream_platform::socket::{ActivationError, InheritError};

pub use self::handover::{Handover, HandoverError};
pub use self::inherited::Inherited;
pub use self::message::MessageError;
