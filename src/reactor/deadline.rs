//! The deadlines of a connection: idle, read, frame, write-stall, and flush on close.
//!
//! All of them share one timer. Receiving and sending only note the time; when the timer fires, the
//! deadlines are computed again, and if none has come, the timer is armed for the next one. So a
//! message costs no work on the wheel.

use std::time::Duration;

use millstream_platform::driver::{Driver, Token};

use super::EventLoop;
use crate::base::{CloseReason, HandshakeError, ticks};
use crate::config::Terms;
use crate::handler::{Connection, EventHandler, Phase, arm_by};

/// While the engine stops, a peer that has been sent everything and sends nothing itself is waited
/// for no longer than this: it may keep its end open for as long as it likes.
const SILENCE: Duration = Duration::from_millis(250);

/// A deadline: its tick, and what it means.
type Deadline = (u64, Missed);

#[derive(Clone, Copy)]
enum Missed {
    Idle,
    Read,
    Frame,
    Write,
    Close,
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Sees to it that the connection's timer fires no later than its next deadline.
    pub(super) fn arm_deadline(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let stop = self.draining.then_some(self.draining_since);
        let Some((next, _)) = next_deadline(connection, &self.common.terms, stop) else { return };
        arm_by(&mut self.common.timers, &mut connection.status.deadline, next, token);
    }

    /// The connection's timer has fired.
    pub(super) fn check_deadlines(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.status.deadline = None;
        let stop = self.draining.then_some(self.draining_since);
        match next_deadline(connection, &self.common.terms, stop) {
            Some((at, missed)) if at <= self.common.clock.tick() => self.miss(token, missed),
            _ => self.arm_deadline(token),
        }
    }

    fn miss(&mut self, token: Token, missed: Missed) {
        match missed {
            Missed::Idle => self.time_out(token, CloseReason::IdleTimeout),
            Missed::Read => self.time_out(token, CloseReason::ReadTimeout),
            Missed::Frame => self.time_out(token, CloseReason::FrameTimeout),
            Missed::Write => self.cut_off(token, CloseReason::WriteTimeout, true),
            Missed::Close => self.lose_patience(token),
        }
    }

    /// Nothing came for too long. In a relay that is not the end of what comes, and must not look
    /// like it on either side.
    fn time_out(&mut self, token: Token, reason: CloseReason) {
        match self.relays(token) {
            true => self.cut_off(token, reason, true),
            false => self.begin_close(token, reason),
        }
    }

    /// The peer of a closing connection took too long: with the output, which is cut off, or only
    /// with its own end. Or that of one that is not open yet, or shakes hands, did.
    fn lose_patience(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        match connection.status.phase {
            Phase::Opening => self.miss_preface(token),
            Phase::Open => {
                self.counters.handshakes_timed_out.add(1);
                self.cut_off(token, CloseReason::Handshake(HandshakeError::TimedOut), true);
            }
            Phase::Lingering => self.cut_off(token, CloseReason::FlushTimeout, false),
            Phase::Flushing | Phase::Doomed => {
                self.cut_off(token, CloseReason::FlushTimeout, true);
            }
        }
    }
}

/// The earliest deadline that applies to a connection as it stands; `stop` is the tick in which the
/// engine began to stop.
fn next_deadline<H: EventHandler>(
    connection: &Connection<H>,
    usual: &Terms,
    stop: Option<u64>,
) -> Option<Deadline> {
    let status = &connection.status;
    let terms = status.terms(usual);
    let lingers = stop.filter(|_| status.phase == Phase::Lingering);
    let open = status.phase == Phase::Open;
    let timed = terms.idle_timeout.or(terms.read_timeout).or(terms.write_timeout).is_some();
    let upgrading = connection.is_upgrading();
    if open && !timed && !upgrading && status.frame_deadline().is_none() {
        return None; // As most are.
    }
    let reading = open && !status.paused && !status.peer_ended;
    let free = open && status.held_by.is_none();
    let last = status.last_received.max(status.last_sent);
    let after = |since: u64, timeout: Option<Duration>, missed| {
        Some((since.saturating_add(ticks(timeout?)), missed))
    };
    let candidates = [
        after(last, terms.idle_timeout.filter(|_| free), Missed::Idle),
        after(status.last_received, terms.read_timeout.filter(|_| reading), Missed::Read),
        status.frame_deadline().filter(|_| reading).map(|at| (at, Missed::Frame)),
        after(
            status.last_sent,
            terms.write_timeout.filter(|_| !upgrading && connection.pending.waits_for_peer()),
            Missed::Write,
        ),
        after(last.max(lingers.unwrap_or(0)), lingers.map(|_| SILENCE), Missed::Close),
        connection.close_by().map(|at| (at, Missed::Close)),
    ];
    candidates.into_iter().flatten().min_by_key(|(at, _)| *at)
}
