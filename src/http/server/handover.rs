//! The server's part in connections that were handed over to another protocol.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exchange::Handler;
use super::serving::HttpServing;
use super::upgrade::{AnyProtocol, Ending, Notice, Timeout, Visit, Wire};
use super::way_back::WayBack;
use crate::codec::FramedConn;
use crate::{Action, Address, ConnId, Input, Output, TimerId};

/// A connection's protocol, behind one pointer, since few connections have another one than HTTP.
pub(super) struct Handover(pub(super) Box<dyn AnyProtocol>);

/// The protocol goes on with the connection: the answer is written.
pub(super) fn begin<H: Handler>(
    conn: &mut FramedConn<'_, HttpServing<H>>,
    protocol: Box<dyn AnyProtocol>,
) -> Action {
    conn.state.protocol = Some(Box::new(Handover(protocol)));
    conn.state.queue = None;
    conn.state.is_full = false;
    conn.resume_reading();
    conn.set_idle_timeout(None);
    conn.set_read_timeout(None);
    conn.set_frame_timeout(None);
    if let Some(codec) = conn.split().0.codec {
        codec.switch(); // What is unread already is something new.
    }
    match tell(conn, Notice::Open) {
        Action::Continue if conn.state.is_last => tell(conn, Notice::Drain),
        action => action,
    }
}

/// Bytes are unread.
pub(super) fn offer<H: Handler>(conn: &mut FramedConn<'_, HttpServing<H>>) -> Action {
    let before = conn.input.len();
    let action = tell(conn, Notice::Bytes);
    if conn.input.len() != before
        && let Some(codec) = conn.split().0.codec
    {
        codec.switch();
    }
    action
}

/// Tells the protocol what happens.
pub(super) fn tell<H: Handler>(
    conn: &mut FramedConn<'_, HttpServing<H>>,
    event: Notice<'_>,
) -> Action {
    let mut lent = Lent { protocol: conn.state.protocol.take(), conn };
    let Lent { protocol: Some(protocol), conn } = &mut lent else { return Action::Continue };
    protocol.0.tell(event, &mut **conn)
}

/// Runs what comes from elsewhere.
pub(super) fn tell_closure<H: Handler>(
    conn: &mut FramedConn<'_, HttpServing<H>>,
    closure: Visit,
) -> Action {
    let mut lent = Lent { protocol: conn.state.protocol.take(), conn };
    let Lent { protocol: Some(protocol), conn } = &mut lent else { return Action::Continue };
    closure(&mut *protocol.0, &mut **conn)
}

/// A protocol on the way: it comes back even if it panics, since it is told the end.
struct Lent<'l, 'a, H: Handler> {
    conn: &'l mut FramedConn<'a, HttpServing<H>>,
    protocol: Option<Box<Handover>>,
}

impl<H: Handler> Drop for Lent<'_, '_, H> {
    fn drop(&mut self) {
        self.conn.state.protocol = self.protocol.take();
    }
}

impl<'a, H: Handler> Wire<'a> for FramedConn<'a, HttpServing<H>> {
    fn split(&mut self) -> (&mut Input<'a>, &mut Output<'a>) {
        (&mut self.input, &mut self.output)
    }

    fn id(&self) -> ConnId {
        self.id()
    }

    fn now(&self) -> Instant {
        self.now()
    }

    fn peer_addr(&self) -> Address {
        self.peer_addr()
    }

    fn end(&mut self, how: Ending) {
        match how {
            Ending::Flush => self.close(),
            Ending::Now => self.close_now(),
            Ending::Reset => self.reset(),
            Ending::OurSide => self.shutdown(),
        }
    }

    fn is_closing(&self) -> bool {
        self.is_closing()
    }

    fn pause_reading(&mut self, pause: bool) {
        match pause {
            true => self.pause_reading(),
            false => self.resume_reading(),
        }
    }

    fn set_timer(&mut self, after: Duration, value: u64) -> TimerId {
        self.set_timer(after, value)
    }

    fn reset_timer(&mut self, timer: TimerId, after: Duration) -> bool {
        self.reset_timer(timer, after)
    }

    fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.cancel_timer(timer)
    }

    fn set_timeout(&mut self, which: Timeout, timeout: Option<Duration>) {
        match which {
            Timeout::Idle => self.set_idle_timeout(timeout),
            Timeout::Read => self.set_read_timeout(timeout),
            Timeout::Write => self.set_write_timeout(timeout),
        }
    }

    fn way_back(&mut self) -> Arc<dyn WayBack> {
        Arc::new(self.remote())
    }
}
