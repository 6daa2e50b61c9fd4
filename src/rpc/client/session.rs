//! One connection's calls, without a socket and without a clock: what arrives and the time come in,
//! what is to be sent goes into an output, and the calls that end come out.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::Output;
use crate::rpc::Format;
use crate::rpc::frame::{self, Frame, FrameError, Refusal, Request, Response};
use crate::rpc::metadata::MetadataView;
use crate::rpc::status::{Code, Status};

/// How much a session may have under way, and how it finds out that nobody is there any more.
#[derive(Clone, Debug)]
pub(super) struct SessionLimits {
    /// How many calls wait for their response at the same time.
    pub(super) max_calls: usize,
    /// From how many bytes on that wait to be sent no call is started.
    pub(super) max_unsent: usize,
    pub(super) keepalive: Option<Keepalive>,
}

/// When the server is asked whether it is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalive {
    /// After this long without anything from it while calls wait.
    pub(super) interval: Duration,
    /// Within this time something has to come.
    pub(super) timeout: Duration,
}

/// The calls of one connection. `T` is what belongs to a call; it comes back when the call ends.
pub(super) struct Session<T> {
    limits: SessionLimits,
    last_id: u64,
    calls: HashMap<u64, Open<T>>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// The server takes no more requests.
    is_leaving: bool,
    /// The server runs no request above this.
    last_to_run: u64,
    /// What the server said when it went away.
    farewell: String,
    /// It went away because it can't go on with this connection.
    is_broken_off: bool,
    /// When something came from the server, or a call began when there was none.
    heard_at: Instant,
    /// How much had come of a frame that was not whole yet.
    place: u64,
    /// How much waited to be sent.
    unsent: usize,
    /// When a ping was sent after which nothing came.
    pinged_at: Option<Instant>,
    pings: u64,
}

struct Open<T> {
    deadline: Instant,
    value: T,
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum Outcome<'a> {
    /// The server answered.
    Response(Response<'a>),
    /// It did not.
    Failed { status: Status, may_have_run: bool },
}

/// Why nothing was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotStarted {
    /// There is no room for it now, or never again on this connection.
    NoRoom,
    /// Its deadline has passed.
    Expired,
    /// It makes no frame.
    Invalid(FrameError),
}

/// The server did not answer to a ping.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Silent;

impl<T> Session<T> {
    pub(super) fn new(now: Instant, limits: SessionLimits) -> Self {
        Session {
            limits,
            last_id: 0,
            calls: HashMap::new(),
            deadlines: BTreeSet::new(),
            is_leaving: false,
            last_to_run: u64::MAX,
            farewell: String::new(),
            is_broken_off: false,
            heard_at: now,
            place: 0,
            unsent: 0,
            pinged_at: None,
            pings: 0,
        }
    }

    /// How many calls wait for their response.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether the server takes no more requests.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Whether the server said that it can't go on with this connection.
    pub(super) fn is_broken_off(&self) -> bool {
        self.is_broken_off
    }

    /// What the server said when it went away; it may be empty.
    pub(super) fn farewell(&self) -> &str {
        &self.farewell
    }

    /// Whether a call can be started now.
    pub(super) fn has_room(&self, output: &Output<'_>) -> bool {
        self.calls.len() < self.limits.max_calls && self.can_send(output)
    }

    fn can_send(&self, output: &Output<'_>) -> bool {
        let unsent = output.pending();
        !self.is_leaving && output.is_writable() && unsent <= self.limits.max_unsent
    }

    /// Starts a call, whose request gets its id and its time here; returns the id.
    ///
    /// # Errors
    /// Nothing was sent, and the call's value comes back.
    pub(super) fn start(
        &mut self,
        now: Instant,
        deadline: Instant,
        request: Request<'_>,
        value: T,
        output: &mut Output<'_>,
    ) -> Result<u64, (NotStarted, T)> {
        if !self.has_room(output) {
            return Err((NotStarted::NoRoom, value));
        }
        if let Err(error) = self.send(now, deadline, request, output) {
            return Err((error, value));
        }
        if self.calls.is_empty() {
            self.heard_at = now;
        }
        self.calls.insert(self.last_id, Open { deadline, value });
        self.deadlines.insert((deadline, self.last_id));
        Ok(self.last_id)
    }

    /// Sends a request for which nothing comes back, or the one of a call.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(super) fn send(
        &mut self,
        now: Instant,
        deadline: Instant,
        request: Request<'_>,
        output: &mut Output<'_>,
    ) -> Result<(), NotStarted> {
        if !self.can_send(output) {
            return Err(NotStarted::NoRoom);
        }
        if deadline <= now {
            return Err(NotStarted::Expired);
        }
        let id = self.last_id + 1;
        let request =
            Request { id, timeout: Some(deadline.saturating_duration_since(now)), ..request };
        frame::write(&Frame::Request(request), output).map_err(NotStarted::Invalid)?;
        self.last_id = id;
        Ok(())
    }

    /// Ends a call without waiting for its response, and tells the server. `None` if it has ended.
    pub(super) fn cancel(&mut self, id: u64, output: &mut Output<'_>) -> Option<T> {
        let value = self.remove(id)?;
        send_always(&Frame::Cancel { id }, output);
        Some(value)
    }

    /// Takes a frame that arrived. Calls that end by it are given to `ended`.
    pub(super) fn on_frame(
        &mut self,
        now: Instant,
        frame: Frame<'_>,
        output: &mut Output<'_>,
        ended: &mut impl FnMut(T, Outcome<'_>),
    ) {
        self.heard(now);
        match frame {
            Frame::Response(response) => {
                if let Some(value) = self.remove(response.id) {
                    ended(value, Outcome::Response(response));
                }
            }
            Frame::Ping(id) => send_always(&Frame::Pong(id), output),
            Frame::GoAway { last, code, message } => self.go_away(last, code, message, ended),
            Frame::Request(Request { id, one_way: false, .. }) => {
                refuse(id, &Status::unimplemented("this end runs no requests"), output);
            }
            Frame::Request(_) | Frame::Cancel { .. } | Frame::Pong(_) => {}
        }
    }

    /// Takes note of a frame that can't be read. If it was the response of a call, that has failed.
    pub(super) fn on_refused(
        &mut self,
        now: Instant,
        id: u64,
        expects_response: bool,
        why: Refusal,
        output: &mut Output<'_>,
        ended: &mut impl FnMut(T, Outcome<'_>),
    ) {
        self.heard(now);
        if expects_response {
            return refuse(id, &why.status(), output);
        }
        let Some(value) = self.remove(id) else { return };
        let message = format!("the response can't be read: {why}");
        let status = match why {
            Refusal::Malformed => Status::internal(message),
            why => Status::new(why.status().code(), message),
        };
        ended(value, Outcome::Failed { status, may_have_run: true });
    }

    /// Where in a frame the connection is, according to the codec: a peer that sends slowly is not
    /// silent.
    pub(super) fn note_place(&mut self, place: u64, now: Instant) {
        if std::mem::replace(&mut self.place, place) != place {
            self.heard(now);
        }
    }

    /// A peer that takes what is sent is not silent either: a ping waits behind it.
    fn note_unsent(&mut self, now: Instant, output: &Output<'_>) {
        let unsent = output.pending();
        if unsent < std::mem::replace(&mut self.unsent, unsent) {
            self.heard(now);
        }
    }

    /// Ends the calls whose deadline has come, and looks after a server that is silent.
    ///
    /// # Errors
    /// The server is [`Silent`]: the connection is of no use any more.
    pub(super) fn on_time(
        &mut self,
        now: Instant,
        output: &mut Output<'_>,
        ended: &mut impl FnMut(T, Outcome<'_>),
    ) -> Result<(), Silent> {
        self.note_unsent(now, output);
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            let Some(value) = self.cancel(id, output) else { break };
            let status = Status::deadline_exceeded("no response came in time");
            ended(value, Outcome::Failed { status, may_have_run: true });
        }
        let Some(keepalive) = self.limits.keepalive.filter(|_| !self.calls.is_empty()) else {
            self.pinged_at = None;
            return Ok(());
        };
        match self.pinged_at {
            Some(pinged_at) if now.saturating_duration_since(pinged_at) >= keepalive.timeout => {
                return Err(Silent);
            }
            None if now.saturating_duration_since(self.heard_at) >= keepalive.interval => {
                self.pings += 1;
                self.pinged_at = Some(now);
                send_always(&Frame::Ping(self.pings), output);
            }
            _ => {}
        }
        Ok(())
    }

    /// When [`on_time`](Self::on_time) has something to do next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let &(deadline, _) = self.deadlines.first()?;
        let look = self.limits.keepalive.and_then(|keepalive| match self.pinged_at {
            Some(pinged_at) => pinged_at.checked_add(keepalive.timeout),
            None => self.heard_at.checked_add(keepalive.interval),
        });
        Some(look.map_or(deadline, |look| look.min(deadline)))
    }

    /// The connection is over: ends all calls, the oldest first.
    pub(super) fn close(&mut self, status: &Status, ended: &mut impl FnMut(T, Outcome<'_>)) {
        self.is_leaving = true;
        self.end_above(0, status, true, ended);
    }

    fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.pinged_at = None;
    }

    /// The server takes no more requests: those that it did not see have failed. With a code it
    /// takes nothing any more, and all have failed.
    fn go_away(
        &mut self,
        last: u64,
        code: Code,
        message: &str,
        ended: &mut impl FnMut(T, Outcome<'_>),
    ) {
        self.is_leaving = true;
        let farewell = || if message.is_empty() { String::new() } else { format!(": {message}") };
        if code != Code::Ok && !self.is_broken_off {
            self.is_broken_off = true;
            let message = format!("the server breaks the connection off{}", farewell());
            let status = Status::new(code, message);
            self.end_above(last.min(self.last_to_run), &status, false, ended);
            return self.end_above(0, &status, true, ended);
        }
        if last >= self.last_to_run {
            return; // It says nothing new.
        }
        self.last_to_run = last;
        message.clone_into(&mut self.farewell);
        let message = format!("the server takes no more requests{}", farewell());
        self.end_above(last, &Status::unavailable(message), false, ended);
    }

    fn end_above(
        &mut self,
        last: u64,
        status: &Status,
        may_have_run: bool,
        ended: &mut impl FnMut(T, Outcome<'_>),
    ) {
        let mut ids: Vec<u64> = self.calls.keys().copied().filter(|id| *id > last).collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(value) = self.remove(id) {
                ended(value, Outcome::Failed { status: status.clone(), may_have_run });
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<T> {
        let Open { deadline, value } = self.calls.remove(&id)?;
        self.deadlines.remove(&(deadline, id));
        Some(value)
    }
}

/// Sends a frame that has nothing in it which could be too long.
fn send_always(frame: &Frame<'_>, output: &mut Output<'_>) {
    let written = frame::write(frame, output);
    debug_assert!(written.is_ok(), "{written:?}");
}

/// Returns what a client does not serve.
fn refuse(id: u64, status: &Status, output: &mut Output<'_>) {
    let response = Response {
        id,
        not_run: true,
        code: status.code(),
        message: status.message(),
        metadata: MetadataView::default(),
        format: Format::RAW,
        body: &[],
    };
    send_always(&Frame::Response(response), output);
}

#[cfg(test)]
mod tests;
