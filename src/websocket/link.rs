//! A WebSocket between its two handshakes: what is sent and what came, whether the peer lives, and
//! how it ends.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::backlog::{Backlog, Permit};
use super::carrier::SocketConn;
use super::close::CloseCode;
use super::codec::{WebSocketCodec, WebSocketRole};
use super::deflate::PerMessageDeflate;
use super::error::{EncodeError, ProtocolError};
use super::message::{Close, Message};
use super::prepared::PreparedMessage;
use super::settings::SocketSettings;
use crate::{Action, CloseReason, TimerId};

/// The longest reason of a close frame.
const LONGEST_REASON: usize = 123;

/// The protocols that a server speaks, and which of them was chosen.
pub(super) type Subprotocol = Option<(Arc<[String]>, usize)>;

/// What both ends have agreed on.
#[derive(Default)]
pub(super) struct Agreement {
    pub(super) subprotocol: Subprotocol,
    pub(super) deflate: Option<PerMessageDeflate>,
}

/// All of a WebSocket but its handler.
pub(super) struct Link {
    pub(super) codec: WebSocketCodec,
    pub(super) subprotocol: Subprotocol,
    role: WebSocketRole,
    settings: Arc<SocketSettings>,
    /// For the next look whether the peer lives, or for how long its close may take.
    timer: Option<TimerId>,
    /// When something came last.
    heard: Option<Instant>,
    /// A ping was sent, and nothing came since.
    pinged: bool,
    /// The handler has paused reading.
    pub(super) paused: bool,
    /// How it ends, if the peer has said so or done something.
    ending: Option<Ending>,
    /// What handles have sent, if there are any.
    backlog: Option<Arc<Backlog>>,
    /// Of that, what waits for the low-water mark.
    waiting: VecDeque<(PreparedMessage, Permit)>,
}

/// How a WebSocket ends.
pub(super) enum Ending {
    Closed { code: Option<CloseCode>, reason: Box<str> },
    Failed(ProtocolError),
    Silent,
}

impl Link {
    pub(super) fn new(
        role: WebSocketRole,
        settings: Arc<SocketSettings>,
        agreement: Agreement,
    ) -> Self {
        Link {
            codec: WebSocketCodec::new(role, settings.limits).extended(agreement.deflate),
            subprotocol: agreement.subprotocol,
            role,
            settings,
            timer: None,
            heard: None,
            pinged: false,
            paused: false,
            ending: None,
            backlog: None,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn open(&mut self, conn: &mut dyn SocketConn) {
        self.heard = Some(conn.now());
        self.timer = self.settings.ping_interval.map(|interval| conn.set_timer(interval, 0));
    }

    pub(super) fn send(
        &mut self,
        conn: &mut dyn SocketConn,
        message: Message<'_>,
    ) -> Result<(), EncodeError> {
        let mut sent = Ok(());
        conn.with_output(&mut |output| sent = self.codec.encode(message, output));
        sent
    }

    /// Begins to close, unless that has begun.
    pub(super) fn close(&mut self, conn: &mut dyn SocketConn, code: CloseCode, reason: &str) {
        self.write_waiting(conn, true);
        let reason = shortened(reason);
        let close = Message::Close(Some(Close { code, reason }));
        if self.send(conn, close).is_ok() {
            self.end_backlog();
            self.arm_for_close(conn);
        }
    }

    fn arm_for_close(&mut self, conn: &mut dyn SocketConn) {
        if let Some(timer) = self.timer.take() {
            conn.cancel_timer(timer);
        }
        self.timer = Some(conn.set_timer(self.settings.close_timeout, 0));
    }

    /// Something came.
    #[inline]
    pub(super) fn note_heard(&mut self, now: Instant) {
        self.heard = Some(now);
        self.pinged = false;
    }

    pub(super) fn answer_ping(&mut self, conn: &mut dyn SocketConn, payload: &[u8]) {
        // After our own close no one waits for it.
        let _ = self.send(conn, Message::Pong(payload));
    }

    /// The peer sent its close.
    pub(super) fn end_by_peer(
        &mut self,
        conn: &mut dyn SocketConn,
        close: Option<Close<'_>>,
    ) -> Action {
        let (code, reason) = (close.map(|close| close.code), close.map_or("", |it| it.reason));
        self.ending = Some(Ending::Closed { code, reason: reason.into() });
        self.end_backlog();
        let reply = code.map(|code| Close { code, reason: "" });
        let _ = self.send(conn, Message::Close(reply)); // Unless ours was the first.
        match self.role {
            WebSocketRole::Server => Action::Close,
            WebSocketRole::Client => {
                self.arm_for_close(conn);
                Action::Continue // The server ends the connection.
            }
        }
    }

    /// The peer sent what it may not.
    #[cold]
    pub(super) fn fail(&mut self, conn: &mut dyn SocketConn, error: ProtocolError) -> Action {
        tracing::debug!(conn = %conn.id(), %error, "a WebSocket breaks the protocol");
        self.ending = Some(Ending::Failed(error));
        self.end_backlog();
        let reason = error.to_string();
        let close = Close { code: error.close_code(), reason: shortened(&reason) };
        let _ = self.send(conn, Message::Close(Some(close)));
        Action::Close
    }

    pub(super) fn is_own_timer(&self, timer: TimerId) -> bool {
        self.timer == Some(timer)
    }

    /// The timer has fired: the peer is too late with its close, or it is time to see whether it
    /// lives.
    pub(super) fn look(&mut self, conn: &mut dyn SocketConn) -> Action {
        self.timer = None;
        let (false, Some(interval)) = (self.codec.is_closed(), self.settings.ping_interval) else {
            return Action::Close;
        };
        let now = conn.now();
        if self.paused || conn.is_above_high_water() {
            self.note_heard(now); // It can't be heard.
        }
        let silence = self.heard.map_or(interval, |heard| now.saturating_duration_since(heard));
        let next = if self.pinged {
            tracing::debug!(conn = %conn.id(), ?silence, "a WebSocket's peer is silent");
            self.ending = Some(Ending::Silent);
            conn.reset();
            return Action::Continue;
        } else if silence < interval {
            interval.saturating_sub(silence)
        } else {
            self.pinged = self.send(conn, Message::Ping(b"")).is_ok();
            self.settings.pong_timeout
        };
        self.timer = Some(conn.set_timer(next, 0));
        Action::Continue
    }

    /// What handles have sent, and is counted for them.
    pub(super) fn backlog(&mut self) -> Arc<Backlog> {
        let limit = self.settings.backlog;
        let backlog = self.backlog.get_or_insert_with(|| Arc::new(Backlog::new(limit)));
        if self.codec.is_closed() || self.ending.is_some() {
            backlog.end();
        }
        Arc::clone(backlog)
    }

    fn end_backlog(&mut self) {
        self.waiting.clear();
        if let Some(backlog) = &self.backlog {
            backlog.end();
        }
    }

    /// Sends what a handle has sent, or lets it wait.
    pub(super) fn deliver(
        &mut self,
        conn: &mut dyn SocketConn,
        message: PreparedMessage,
        permit: Permit,
    ) {
        if self.codec.is_closed() {
            return;
        }
        self.waiting.push_back((message, permit));
        self.write_waiting(conn, false);
    }

    /// Sends what waits: all of it, or until the output is above the high-water mark.
    pub(super) fn write_waiting(&mut self, conn: &mut dyn SocketConn, all: bool) {
        while !self.waiting.is_empty() && (all || !conn.is_above_high_water()) {
            let Some((message, _permit)) = self.waiting.pop_front() else { break };
            // A client that has no key to mask with could not send anything either.
            conn.with_output(&mut |output| {
                let _ = self.codec.encode_prepared(&message, output);
            });
        }
    }

    /// The connection closes. Returns how the WebSocket ends, if that is known from the peer.
    pub(super) fn end(
        &mut self,
        conn: &mut dyn SocketConn,
        reason: &CloseReason,
    ) -> Option<Ending> {
        self.end_backlog();
        if matches!(reason, CloseReason::Shutdown) {
            let close = Close { code: CloseCode::GOING_AWAY, reason: "" };
            let _ = self.send(conn, Message::Close(Some(close))); // Unless one was sent.
        }
        self.codec.end();
        mem::take(&mut self.ending)
    }
}

/// As much of a reason as a close frame holds.
fn shortened(reason: &str) -> &str {
    let mut end = reason.len().min(LONGEST_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
