//! The callbacks of a client's connections.

use std::time::Instant;

use super::job::Place;
use super::pool::Pool;
use super::request::Response;
use super::session::{NotStarted, Outcome, Session, Silent};
use crate::codec::{FrameHandler, FramedConn, FramedReactor};
use crate::rpc::Status;
use crate::rpc::frame::{Frame, FrameCodec, FrameError};
use crate::{Action, CloseReason, ConnectError, ReactorAction, ShutdownAction, TimerId};

/// What a connection keeps: nothing before it is known what for.
#[derive(Default)]
pub(super) struct State(Option<Connected>);

struct Connected {
    /// Its place among the pool's.
    link: usize,
    session: Session<u64>,
    timer: Option<(Instant, TimerId)>,
}

type Conn<'a> = FramedConn<'a, Pool>;

impl Pool {
    /// An attempt to connect has come to an end.
    pub(super) fn connected(
        &mut self,
        address: usize,
        connected: Result<&mut Conn<'_>, ConnectError>,
    ) -> Action {
        match connected {
            Ok(conn) => {
                let link = self.add_link(address, conn.remote());
                let session = Session::new(conn.now(), self.settings.session.clone());
                conn.state.0 = Some(Connected { link, session, timer: None });
                self.settle(conn)
            }
            Err(ConnectError::Stopped { .. }) => Action::Continue,
            Err(error) => {
                self.not_connected(Instant::now(), address, error.to_string());
                Action::Continue
            }
        }
    }

    /// Sends the calls that were given to a connection, as far as it has room.
    pub(super) fn write_queue(&mut self, conn: &mut Conn<'_>) -> Action {
        let now = conn.now();
        while let Some(Connected { link, session, .. }) = &mut conn.state.0 {
            let link = *link;
            let Some((number, job)) = self.queued(link) else { break };
            if !session.has_room(&conn.output) {
                conn.output.flush();
                if !session.has_room(&conn.output) {
                    break; // The low-water mark, or the connection's end, goes on.
                }
            }
            let (deadline, request) = (job.call.deadline, job.request());
            let sent = if job.call.one_way {
                session.send(now, deadline, request, &mut conn.output).map(|()| None)
            } else {
                let id = session.start(now, deadline, request, number, &mut conn.output);
                id.map(Some).map_err(|(error, _)| error)
            };
            self.sent(link, number, sent);
        }
        self.settle(conn)
    }

    /// A call was sent, and has an id if somebody waits for its response; or it can't be sent.
    fn sent(&mut self, link: usize, number: u64, sent: Result<Option<u64>, NotStarted>) {
        let Some(mut job) = self.take_queued(link) else { return };
        match sent {
            Ok(Some(id)) => {
                job.attempts += 1;
                self.put(number, job, Place::Sent { link, id });
            }
            Ok(None) => job.promise.complete(Ok(Response::default())),
            Err(NotStarted::Expired) => {
                let status = Status::deadline_exceeded("the call was not sent in time");
                job.promise.complete(Err(status));
            }
            Err(NotStarted::Invalid(error)) => {
                job.promise.complete(Err(Status::invalid_argument(error.to_string())));
            }
            Err(NotStarted::NoRoom) => {
                self.put(number, job, Place::Waiting);
                self.request_pump();
            }
        }
    }

    /// Tells the server that nobody waits for a response any more.
    pub(super) fn cancel_sent(&mut self, conn: &mut Conn<'_>, id: u64) -> Action {
        if let Some(connected) = &mut conn.state.0 {
            connected.session.cancel(id, &mut conn.output);
        }
        self.write_queue(conn)
    }

    /// After something has happened: closes a connection that has nothing more to do, and sets its
    /// timer.
    fn settle(&mut self, conn: &mut Conn<'_>) -> Action {
        let now = conn.now();
        let Some(Connected { link, session, timer }) = &mut conn.state.0 else {
            return Action::Close;
        };
        if session.is_leaving() {
            let is_broken = session.is_broken_off();
            self.retire(now, *link, is_broken);
        }
        let is_idle = session.len() == 0 && !self.has_queued(*link);
        if is_idle && (self.is_stopping || session.is_leaving()) {
            self.retire(now, *link, false);
            return Action::Close;
        }
        // The low-water mark, or the connection's end, comes here again.
        self.offer_room(*link, conn.output.pending() > self.settings.session.max_unsent);
        let Some(due) = session.next_due() else { return Action::Continue };
        if let Some((_, timer)) = timer.take_if(|(at, _)| *at > due) {
            conn.cancel_timer(timer);
        }
        Self::set_timer(conn, due);
        Action::Continue
    }

    /// Sets the connection's timer, if it has none.
    fn set_timer(conn: &mut Conn<'_>, due: Instant) {
        let is_set = conn.state.0.as_ref().is_some_and(|connected| connected.timer.is_some());
        if is_set {
            return;
        }
        let timer = conn.set_timer(due.saturating_duration_since(conn.now()), 0);
        if let Some(connected) = &mut conn.state.0 {
            connected.timer = Some((due, timer));
        }
    }

    /// A connection is of no use any more: its calls end.
    fn lose(&mut self, conn: &mut Conn<'_>, why: &str) {
        let now = conn.now();
        let Some(Connected { link, session, .. }) = &mut conn.state.0 else { return };
        let link = *link;
        let is_broken = !session.is_leaving() && !self.is_stopping;
        self.retire(now, link, is_broken);
        let said = match session.farewell() {
            "" => String::new(),
            farewell => format!(", after it had said: {farewell}"),
        };
        let status = format!("the connection to {} is lost: {why}{said}", self.name_of(link));
        let status = Status::unavailable(status);
        session.close(&status, &mut |number, outcome| self.ended(now, number, outcome));
    }
}

impl FrameHandler for Pool {
    type Codec = FrameCodec;
    type State = State;

    fn codec(&self) -> FrameCodec {
        FrameCodec::new(self.settings.frame)
    }

    fn on_frame(&mut self, conn: &mut Conn<'_>, frame: Frame<'_>) -> Action {
        let now = conn.now();
        if let Some(connected) = &mut conn.state.0 {
            let ended = &mut |number, outcome: Outcome<'_>| self.ended(now, number, outcome);
            connected.session.on_frame(now, frame, &mut conn.output, ended);
        }
        self.settle(conn)
    }

    fn on_error(&mut self, conn: &mut Conn<'_>, error: FrameError) -> Action {
        let now = conn.now();
        let FrameError::Refused { id, expects_response, is_response, why } = error else {
            self.lose(conn, &error.to_string());
            return Action::Close;
        };
        // The ids of other frames are none of calls.
        if let Some(connected) = &mut conn.state.0
            && (expects_response || is_response)
        {
            let (session, output) = (&mut connected.session, &mut conn.output);
            let ended = &mut |number, outcome: Outcome<'_>| self.ended(now, number, outcome);
            session.on_refused(now, id, expects_response, why, output, ended);
        }
        self.settle(conn)
    }

    fn on_boot(&mut self, reactor: &mut FramedReactor<'_, Self>) -> ReactorAction {
        self.shared.set_reactors(reactor.reactors().clone());
        ReactorAction::Continue
    }

    fn on_end(&mut self, conn: &mut Conn<'_>) -> Action {
        self.lose(conn, "the server ended it");
        Action::Close
    }

    fn on_low_water(&mut self, conn: &mut Conn<'_>) -> Action {
        self.write_queue(conn)
    }

    fn on_timer(&mut self, conn: &mut Conn<'_>, _timer: TimerId, _value: u64) -> Action {
        let now = conn.now();
        let unread = conn.input.len();
        let place = conn.split().0.codec.map_or(0, |codec| codec.place(unread));
        let Some(connected) = &mut conn.state.0 else { return Action::Close };
        connected.timer = None;
        connected.session.note_place(place, now);
        let ended = &mut |number, outcome: Outcome<'_>| self.ended(now, number, outcome);
        if connected.session.on_time(now, &mut conn.output, ended) == Err(Silent) {
            self.lose(conn, "the server does not answer to a ping");
            conn.close_now();
        }
        self.settle(conn)
    }

    /// No call is given to it from here on, and those that it has are not kept until it is closed.
    fn on_closing(&mut self, conn: &mut Conn<'_>, reason: &CloseReason) {
        self.lose(conn, &reason.to_string());
    }

    fn on_close(&mut self, conn: &mut Conn<'_>, reason: &CloseReason) {
        self.lose(conn, &reason.to_string());
        if let Some(Connected { link, .. }) = conn.state.0.take() {
            self.remove_link(link);
        }
    }

    fn on_tick(&mut self, reactor: &mut FramedReactor<'_, Self>) -> ReactorAction {
        self.tick(reactor)
    }

    fn on_shutdown(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ShutdownAction {
        self.stop();
        ShutdownAction::Drain
    }

    fn on_drain(&mut self, conn: &mut Conn<'_>) -> Action {
        self.settle(conn)
    }
}
