//! One connection's calls without an engine, for tests that pass bytes and time on by hand.

use std::time::{Duration, Instant};

use super::session::{Keepalive, Outcome, Session, SessionLimits};
use crate::codec::Codec;
use crate::rpc::frame::{FrameCodec, FrameError, FrameLimits, Request, Response};
use crate::rpc::status::Status;
use crate::{Input, Output};

/// The client's end of a connection that is made of memory: bytes come in, bytes go out, and the
/// output tells the time ([`OutputBuffer::set_now`](crate::OutputBuffer::set_now)). `T` is what
/// belongs to a call; it is given back when the call ends, with the response, or with why there is
/// none and whether the call may have been run all the same.
pub struct BareClient<T> {
    codec: FrameCodec,
    session: Session<T>,
}

impl<T> BareClient<T> {
    /// A connection that begins at `now`. At most this many calls are open at a time, and none
    /// begins while more bytes than `max_unsent` wait to be sent. With `keepalive`, a ping is sent
    /// after the first time without a frame, and its answer is awaited for the second.
    pub fn new(
        now: Instant,
        limits: FrameLimits,
        max_calls: usize,
        max_unsent: usize,
        keepalive: Option<(Duration, Duration)>,
    ) -> Self {
        let keepalive = keepalive.map(|(interval, timeout)| Keepalive { interval, timeout });
        let session = Session::new(now, SessionLimits { max_calls, max_unsent, keepalive });
        BareClient { codec: FrameCodec::new(limits), session }
    }

    /// Starts a call, whose request gets its id and its time here; returns the id, or gives back
    /// the value if it can't be started now.
    pub fn start(
        &mut self,
        deadline: Instant,
        request: Request<'_>,
        value: T,
        output: &mut Output<'_>,
    ) -> Result<u64, T> {
        let started = self.session.start(output.now(), deadline, request, value, output);
        started.map_err(|(_, value)| value)
    }

    /// Sends a request for which nothing comes back; returns whether it was sent.
    pub fn send(
        &mut self,
        deadline: Instant,
        request: Request<'_>,
        output: &mut Output<'_>,
    ) -> bool {
        self.session.send(output.now(), deadline, request, output).is_ok()
    }

    /// Ends a call without a response; `None` if it has ended.
    pub fn cancel(&mut self, id: u64, output: &mut Output<'_>) -> Option<T> {
        self.session.cancel(id, output)
    }

    /// Takes the whole frames out of `input`; returns whether the connection goes on.
    pub fn receive(
        &mut self,
        input: &mut Input<'_>,
        output: &mut Output<'_>,
        mut ended: impl FnMut(T, Result<Response<'_>, (Status, bool)>),
    ) -> bool {
        let ended = &mut |value, outcome: Outcome<'_>| ended(value, result(outcome));
        loop {
            let now = output.now();
            match self.codec.decode(input) {
                Ok(None) => {
                    let place = self.codec.place(input.len());
                    self.session.note_place(place, now);
                    return true;
                }
                Ok(Some(frame)) => self.session.on_frame(now, frame, output, ended),
                Err(FrameError::Refused { id, expects_response, is_response, why }) => {
                    if expects_response || is_response {
                        self.session.on_refused(now, id, expects_response, why, output, ended);
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Does what is due; returns whether the connection goes on.
    pub fn on_time(
        &mut self,
        output: &mut Output<'_>,
        mut ended: impl FnMut(T, Result<Response<'_>, (Status, bool)>),
    ) -> bool {
        let ended = &mut |value, outcome: Outcome<'_>| ended(value, result(outcome));
        self.session.on_time(output.now(), output, ended).is_ok()
    }

    /// When [`on_time`](Self::on_time) is to be called.
    pub fn next_time(&self) -> Option<Instant> {
        self.session.next_due()
    }

    /// The connection is gone: all calls end.
    pub fn close(&mut self, mut ended: impl FnMut(T, Result<Response<'_>, (Status, bool)>)) {
        let status = Status::unavailable("the connection is lost");
        self.session.close(&status, &mut |value, outcome| ended(value, result(outcome)));
    }

    /// How many calls are open.
    pub fn in_flight(&self) -> usize {
        self.session.len()
    }

    /// Whether the server takes no more requests.
    pub fn is_leaving(&self) -> bool {
        self.session.is_leaving()
    }
}

fn result(outcome: Outcome<'_>) -> Result<Response<'_>, (Status, bool)> {
    match outcome {
        Outcome::Response(response) => Ok(response),
        Outcome::Failed { status, may_have_run } => Err((status, may_have_run)),
    }
}
