//! The memory that a connection's bytes pass through, and the pools it comes from.
//!
//! Received bytes that the handler leaves unread wait in a [`Ring`], which always shows them as one
//! slice. Bytes to be sent wait in an [`OutputQueue`], which gathers small writes and keeps large
//! ones by reference. Both are leased while a connection needs them and given back to a
//! [`RingPool`] or an [`OutputPool`], so that an idle connection holds neither and the steady state
//! allocates nothing.
//!
//! Datagrams to be sent wait in a [`DatagramQueue`], which keeps them apart.
//!
//! [`available`] tells how much memory there is. Nothing else here does I/O, and nothing reads a
//! clock. Each pool belongs to one reactor's thread, and what it leases stays there.

mod available;
mod block;
mod datagrams;
mod fence;
mod mapping;
mod mirror;
mod output;
mod page_buffer;
mod ring;
mod ring_pool;
mod views_elsewhere;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod views_linux;

pub use available::available;
pub use datagrams::{DatagramQueue, Route, Sent};
pub use output::{OutputPool, OutputQueue};
pub(crate) use page_buffer::PageBuffer;
pub use ring::Ring;
pub use ring_pool::RingPool;
