//! The engine's part of a server: it gives the sessions their frames, replies and time.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::limits::Limits;
use super::session::{Outlook, Session};
use super::stats::Counters;
use crate::codec::{FrameHandler, FramedConn, FramedReactor, FramedRemote};
use crate::rpc::call::{Handler, Unpacking};
use crate::rpc::frame::{Frame, FrameCodec, FrameError, FrameLimits};
use crate::rpc::middleware::{Behind, Middleware};
use crate::rpc::reply::{Body, Line};
use crate::rpc::status::Status;
use crate::{Action, CloseReason, Output, ShutdownAction, TimerId};

/// Serves the connections of one reactor; [`Server::serve`](super::Server::serve) makes it.
pub struct Serving<M, H> {
    middleware: M,
    handler: H,
    frame_limits: FrameLimits,
    limits: Limits,
    counters: Arc<Counters>,
}

/// What a server keeps of a connection: nothing before the first frame, unless something is to
/// happen without one.
#[derive(Default)]
pub struct ConnectionState {
    session: Option<Box<Session>>,
    /// The one that was set last, and when it fires, if it is armed.
    timer: Option<(TimerId, Option<Instant>)>,
}

impl<M: Middleware + 'static, H: Handler + 'static> Serving<M, H> {
    pub(super) fn new(
        middleware: M,
        handler: H,
        frame_limits: FrameLimits,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> Self {
        Serving { middleware, handler, frame_limits, limits, counters }
    }

    /// Makes a connection's session do something, and then what follows from that.
    #[inline]
    fn with_session(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        act: impl FnOnce(&mut Session, &mut Behind<'_, M, Unpacking<'_, H>>, &mut Output<'_>) -> Outlook,
    ) -> Action {
        if conn.state.session.is_none() {
            let line = Arc::new(ToConnection(conn.remote()));
            let session = Session::new(conn.now(), &self.limits, &self.counters, line);
            conn.state.session = Some(Box::new(session));
        }
        let Some(session) = &mut conn.state.session else { return Action::Continue };
        let mut handler =
            Behind { middleware: &self.middleware, handler: &mut Unpacking(&mut self.handler) };
        match act(session, &mut handler, &mut conn.output) {
            Outlook::Over => Action::Close,
            Outlook::Open if session.is_timed() => {
                session.plan(&conn.output);
                arm_timer(conn);
                Action::Continue
            }
            Outlook::Open => Action::Continue,
        }
    }
}

/// Makes sure that the session is asked when something is due. A timer that is too early is left:
/// when it runs out, it is set again.
fn arm_timer<F: FrameHandler<State = ConnectionState>>(conn: &mut FramedConn<'_, F>) {
    let next = conn.state.session.as_ref().and_then(|session| session.next_time());
    let Some(next) = next else { return };
    let armed = conn.state.timer;
    if armed.and_then(|(_, at)| at).is_some_and(|at| at <= next) {
        return;
    }
    let after = next.saturating_duration_since(conn.output.now());
    let reset = armed.map(|(timer, _)| timer).filter(|timer| conn.reset_timer(*timer, after));
    let timer = reset.unwrap_or_else(|| conn.set_timer(after, 0));
    conn.state.timer = Some((timer, Some(next)));
}

impl<M: Middleware + 'static, H: Handler + 'static> FrameHandler for Serving<M, H> {
    type Codec = FrameCodec;
    type State = ConnectionState;

    fn codec(&self) -> FrameCodec {
        FrameCodec::new(self.frame_limits)
    }

    fn on_open(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        if self.limits.keepalive.is_none() && self.limits.idle_timeout.is_none() {
            return Action::Continue;
        }
        self.with_session(conn, |_, _, _| Outlook::Open)
    }

    #[inline]
    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: Frame<'_>) -> Action {
        let arrived = conn.now();
        self.with_session(conn, |session, handler, output| {
            session.receive(arrived, frame, handler, output)
        })
    }

    fn on_error(&mut self, conn: &mut FramedConn<'_, Self>, error: FrameError) -> Action {
        self.with_session(conn, |session, _, output| session.on_error(&error, output))
    }

    fn on_timer(&mut self, conn: &mut FramedConn<'_, Self>, timer: TimerId, _value: u64) -> Action {
        conn.state.timer = Some((timer, None));
        let unread = conn.input.len();
        let place = conn.split().0.codec.map_or(0, |codec| codec.place(unread));
        let now = conn.now();
        self.with_session(conn, |session, _, output| {
            session.note_place(place, now);
            session.on_time(output)
        })
    }

    fn on_end(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        match &mut conn.state.session {
            None => Action::Close,
            Some(_) => self.with_session(conn, |session, _, output| session.peer_ended(output)),
        }
    }

    fn on_low_water(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        match &mut conn.state.session {
            None => Action::Continue,
            Some(_) => self.with_session(conn, |session, _, output| session.catch_up(output)),
        }
    }

    fn on_closing(&mut self, conn: &mut FramedConn<'_, Self>, reason: &CloseReason) {
        if let Some(session) = &mut conn.state.session {
            session.closing(reason, &mut conn.output);
        }
    }

    fn on_shutdown(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ShutdownAction {
        ShutdownAction::Drain // Each connection is told.
    }

    fn on_drain(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.with_session(conn, |session, _, output| session.go_away(output))
    }
}

/// How a reply comes back to its connection's reactor.
struct ToConnection<M: Middleware + 'static, H: Handler + 'static>(FramedRemote<Serving<M, H>>);

impl<M: Middleware + 'static, H: Handler + 'static> Line for ToConnection<M, H> {
    fn answer(&self, id: u64, answer: Result<Body, Status>) {
        // If the connection is closed, nobody waits.
        let _ = self.0.run(move |framed, conn| {
            framed.with_session(conn, |session, _, output| session.answer(id, answer, output))
        });
    }
}

impl<M, H> fmt::Debug for Serving<M, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}
