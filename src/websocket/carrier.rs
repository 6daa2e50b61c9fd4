//! What a WebSocket needs of its connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backlog::Permit;
use super::prepared::PreparedMessage;
use super::socket::WebSocket;
use crate::{Action, Address, Closed, ConnId, Output, TimerId};

/// A connection, for the time of a callback.
pub(super) trait SocketConn {
    fn id(&self) -> ConnId;
    fn now(&self) -> Instant;
    fn peer_addr(&self) -> Address;
    fn with_output(&mut self, write: &mut dyn FnMut(&mut Output<'_>));
    fn set_timer(&mut self, after: Duration, value: u64) -> TimerId;
    fn cancel_timer(&mut self, timer: TimerId);
    fn reset(&mut self);
    fn pause_reading(&mut self);
    fn resume_reading(&mut self);
}

impl dyn SocketConn + '_ {
    pub(super) fn is_above_high_water(&mut self) -> bool {
        let mut is_above = false;
        self.with_output(&mut |output| is_above = output.is_above_high_water());
        is_above
    }
}

/// A connection whose WebSocket has this handler.
pub(super) trait Carrier<H>: SocketConn {
    /// Makes a way to it for other threads.
    fn way(&mut self) -> Arc<dyn Way<H>>;

    fn plain(&mut self) -> &mut dyn SocketConn;
}

/// Runs with a WebSocket on its reactor.
pub(super) type Task<H> = Box<dyn FnOnce(&mut WebSocket<H>, &mut dyn Carrier<H>) -> Action + Send>;

/// The way to a WebSocket from any thread.
pub(super) trait Way<H>: Send + Sync {
    fn deliver(&self, message: PreparedMessage, permit: Permit) -> Result<(), Closed>;
    fn run(&self, task: Task<H>) -> Result<(), Closed>;
}
