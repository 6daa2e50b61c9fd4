//! One connection's calls on the server: which of them are open, and what may come next.
//!
//! There is no socket here and no thread: frames come in, and what goes out is written to an
//! [`Output`], which tells the time, too. An immediate answer leaves no trace; only a call that is
//! answered later has an entry.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::backlog::{Backlog, Waiting, is_time_for, sendable};
use super::limits::Limits;
use super::stats::Counters;
use crate::rpc::call::{End, Handler, Hooks};
use crate::rpc::compression::compress;
use crate::rpc::frame::{self, Format, Frame, FrameError, Refusal, Request, Response};
use crate::rpc::metadata::MetadataView;
use crate::rpc::reply::{Body, Caller, Line, Place, Reply};
use crate::rpc::status::{Code, Status};
use crate::{CloseReason, Output};

/// After what time room is looked for if nobody tells.
const LOOK_AFTER: Duration = Duration::from_millis(10);

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Outlook {
    /// It goes on.
    Open,
    /// It closes once its output is flushed: all is done, or the peer broke the rules.
    Over,
}

/// The calls of one connection.
pub(super) struct Session {
    pub(super) limits: Limits,
    counters: Arc<Counters>,
    /// How replies come back.
    line: Arc<dyn Line>,
    open: HashMap<u64, Open>,
    /// How many calls somebody works on, whether they are open or not, or have an answer that
    /// waits.
    in_flight: Arc<AtomicUsize>,
    /// The deadlines of the open calls.
    deadlines: BTreeSet<(Instant, u64)>,
    /// The greatest id that came.
    last: u64,
    /// Nothing more is run.
    going_away: bool,
    /// The peer sends nothing more.
    peer_ended: bool,
    /// When something came or a call ended.
    active: Instant,
    /// When something came from the peer.
    heard: Instant,
    /// What the connection's place within a frame was.
    place: u64,
    /// How much waited to be sent.
    unsent: usize,
    /// Answers for which there was no room yet.
    backlog: Backlog,
    /// When to look for room, if nobody tells.
    look_at: Option<Instant>,
    /// A ping is out, and nothing came since.
    pinged: Option<Instant>,
}

/// A call that is answered later.
pub(super) struct Open {
    one_way: bool,
    /// How its request was compressed.
    compression: u8,
    deadline: Option<Instant>,
    /// Of a call that is or was somebody's to answer.
    caller: Option<Arc<Caller>>,
    hooks: Hooks,
    /// Its answer, which waits in the backlog.
    waiting: Option<Waiting>,
}

impl Open {
    fn new(one_way: bool, hooks: Hooks) -> Self {
        Open { one_way, compression: 0, deadline: None, caller: None, hooks, waiting: None }
    }
}

impl Session {
    /// A connection that begins at `now`.
    pub(super) fn new(
        now: Instant,
        limits: &Limits,
        counters: &Arc<Counters>,
        line: Arc<dyn Line>,
    ) -> Self {
        Session {
            limits: limits.clone(),
            counters: counters.clone(),
            line,
            open: HashMap::new(),
            in_flight: Arc::default(),
            deadlines: BTreeSet::new(),
            last: 0,
            going_away: false,
            peer_ended: false,
            active: now,
            heard: now,
            place: 0,
            unsent: 0,
            backlog: Backlog::new(),
            look_at: None,
            pinged: None,
        }
    }

    /// A frame arrived, at a time not later than the output's.
    #[inline]
    pub(super) fn receive(
        &mut self,
        arrived: Instant,
        frame: Frame<'_>,
        handler: &mut impl Handler,
        output: &mut Output<'_>,
    ) -> Outlook {
        self.hear(arrived);
        match frame {
            Frame::Request(request) => return self.request(arrived, &request, handler, output),
            Frame::Cancel { id } => self.cancel(id, arrived),
            Frame::Ping(id) => write(&Frame::Pong(id), output),
            // A server asks for nothing, so no response is of use, and a client that takes nothing
            // more simply ends.
            Frame::Pong(_) | Frame::Response(_) | Frame::GoAway { .. } => {}
        }
        self.outlook()
    }

    /// Runs a request, or says why not.
    #[inline]
    fn request(
        &mut self,
        arrived: Instant,
        request: &Request<'_>,
        handler: &mut impl Handler,
        output: &mut Output<'_>,
    ) -> Outlook {
        if request.id <= self.last {
            return self.break_off(&self.out_of_order(request.id), output);
        }
        self.last = request.id;
        self.active = arrived;
        let deadline = earliest(arrived, [request.timeout, self.limits.timeout]);
        match self.refusal(deadline, output) {
            None => {
                self.counters.started.add(1);
                self.run(arrived, deadline, request, handler, output);
            }
            Some(status) => self.turn_away(request, &status, output),
        }
        Outlook::Open
    }

    /// Does not run a request.
    #[cold]
    pub(super) fn turn_away(
        &mut self,
        request: &Request<'_>,
        status: &Status,
        output: &mut Output<'_>,
    ) {
        self.counters.refused.add(1);
        if !request.one_way {
            write_failure(request.id, true, status, output);
        }
    }

    /// Why a request that came is not run.
    #[inline]
    fn refusal(&self, deadline: Option<Instant>, output: &Output<'_>) -> Option<Status> {
        if self.going_away {
            return Some(Status::unavailable("the server takes no more requests here"));
        }
        if deadline.is_some_and(|deadline| deadline <= output.now()) {
            return Some(Status::deadline_exceeded("the deadline passed before it was run"));
        }
        if self.in_flight.load(Ordering::Relaxed) >= self.limits.max_in_flight {
            let most = self.limits.max_in_flight;
            let message = format!("{most} requests of this connection are in flight already");
            return Some(Status::unavailable(message));
        }
        self.limits.refusal_in_total()
    }

    /// Makes a call wait for its reply, or its answer for room, until this deadline.
    pub(super) fn keep(&mut self, id: u64, hooks: Hooks, deadline: Option<Instant>) {
        let Some(open) = self.open.get_mut(&id) else { return };
        open.hooks = hooks;
        // That it failed is told whenever it can be.
        let fails = open.waiting.as_ref().is_some_and(|waiting| waiting.answer.is_err());
        if let Some(deadline) = deadline.filter(|_| !fails) {
            open.deadline = Some(deadline);
            self.deadlines.insert((deadline, id));
        }
    }

    #[cold]
    pub(super) fn fail(
        &mut self,
        request: &Request<'_>,
        hooks: Hooks,
        status: Status,
        output: &mut Output<'_>,
    ) {
        let open = Open::new(request.one_way, hooks);
        self.respond(request.id, open, Err(status), output);
    }

    #[cold]
    pub(super) fn count_a_panic(&self) {
        self.counters.failed.add(1);
        self.counters.ended.add(1);
    }

    /// A call has ended.
    #[inline]
    pub(super) fn end(&mut self, hooks: Hooks, status: Option<&Status>) {
        if status.is_some() {
            self.counters.failed.add(1);
        }
        self.counters.ended.add(1);
        if !hooks.is_empty() {
            hooks.tell(&End { status, metadata: MetadataView::default() });
        }
    }

    /// Makes an entry for a call that is answered later.
    pub(super) fn open(
        &mut self,
        id: u64,
        one_way: bool,
        compression: u8,
        deadline: Option<Instant>,
    ) -> (Arc<Caller>, Arc<dyn Line>) {
        let places = [Place::take(&self.in_flight), Place::take(&self.limits.total)];
        let caller = Arc::new(Caller::new(places));
        let known = Some(Arc::clone(&caller));
        let open =
            Open { compression, deadline, caller: known, ..Open::new(one_way, Hooks::default()) };
        if let Some(earlier) = self.open.insert(id, open) {
            self.forget(id, &earlier);
        }
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
        (caller, Arc::clone(&self.line))
    }

    /// The reply of a call that was answered already, for which nobody waits.
    #[cold]
    pub(super) fn late_reply(&self, id: u64, deadline: Option<Instant>) -> Reply {
        let caller = Arc::new(Caller::default());
        caller.leave();
        Reply::new(id, deadline, caller, Arc::clone(&self.line))
    }

    /// Takes a call out; nobody waits for its reply from here on.
    pub(super) fn take(&mut self, id: u64) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.forget(id, &open);
        Some(open)
    }

    fn forget(&mut self, id: u64, open: &Open) {
        if let Some(deadline) = open.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        if let Some(caller) = &open.caller {
            caller.leave();
        }
    }

    /// A reply came. It is for nobody if the call has ended meanwhile.
    pub(super) fn answer(
        &mut self,
        id: u64,
        answer: Result<Body, Status>,
        output: &mut Output<'_>,
    ) -> Outlook {
        self.expire(output);
        // One that was answered already waits.
        let is_open = self.open.get(&id).is_some_and(|open| open.waiting.is_none());
        let Some(open) = is_open.then(|| self.take(id)).flatten() else { return self.outlook() };
        self.active = output.now();
        let answer = answer.map(|body| self.packed(open.compression, body));
        self.respond(id, open, answer, output);
        self.outlook()
    }

    fn packed(&self, compression: u8, body: Body) -> Body {
        match self.compressed(compression, body.format, &body.bytes) {
            Some((format, bytes)) => Body { format, bytes, ..body },
            None => body,
        }
    }

    /// Ends a call that was taken out: writes its answer, or has it wait for its turn.
    fn respond(
        &mut self,
        id: u64,
        open: Open,
        answer: Result<Body, Status>,
        output: &mut Output<'_>,
    ) {
        if open.one_way {
            return self.end(open.hooks, answer.err().as_ref());
        }
        let answer = sendable(answer, output);
        if !self.backlog.is_empty() || !is_time_for(&answer, output) {
            return self.put_off(id, open, answer);
        }
        self.write_answer(id, open.hooks, answer, output);
    }

    /// Makes an answer wait for its turn, until its call's deadline.
    fn put_off(&mut self, id: u64, open: Open, answer: Result<Body, Status>) {
        let place = Place::take(&self.in_flight);
        let waiting = self.backlog.push(id, answer, place, &self.limits);
        // That it failed is told whenever it can be.
        let deadline = open.deadline.filter(|_| waiting.answer.is_ok());
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
        let caller = None; // Nobody works on it any more.
        self.open.insert(id, Open { deadline, caller, waiting: Some(waiting), ..open });
        let open = &self.open;
        let waits = |id| open.get(&id).is_some_and(|open| open.waiting.is_some());
        self.backlog.tidy(open.len(), waits);
    }

    /// Makes the answer of a call that is run at this moment wait for room.
    ///
    /// # Errors
    /// There is never room for it.
    #[cold]
    pub(super) fn wait(&mut self, id: u64, body: Body, output: &Output<'_>) -> Result<(), Status> {
        let body = sendable(Ok(body), output)?;
        self.take(id); // The holder of the reply comes too late.
        self.put_off(id, Open::new(false, Hooks::default()), Ok(body));
        Ok(())
    }

    /// Writes the answers that wait, as long as it is their turn.
    pub(super) fn catch_up(&mut self, output: &mut Output<'_>) -> Outlook {
        self.expire(output);
        while let Some(id) = self.backlog.front() {
            let waiting = self.open.get(&id).and_then(|open| open.waiting.as_ref());
            if waiting.is_some_and(|waiting| !is_time_for(&waiting.answer, output)) {
                break;
            }
            self.backlog.pop_front();
            let open = waiting.is_some().then(|| self.take(id)).flatten(); // Else it has ended.
            if let Some(Open { hooks, waiting: Some(waiting), .. }) = open {
                self.write_answer(id, hooks, waiting.answer, output);
            }
        }
        self.outlook()
    }

    fn write_answer(
        &mut self,
        id: u64,
        hooks: Hooks,
        answer: Result<Body, Status>,
        output: &mut Output<'_>,
    ) {
        let status = match answer {
            Ok(body) => write_reply(id, body, output).err(),
            Err(status) => Some(status),
        };
        if let Some(status) = &status {
            write_failure(id, false, status, output);
        }
        self.end(hooks, status.as_ref());
    }

    /// The body of an answer, compressed as its request was, if that is worth it and was not done
    /// already.
    #[inline]
    pub(super) fn compressed(
        &self,
        compression: u8,
        format: Format,
        body: &[u8],
    ) -> Option<(Format, Bytes)> {
        if compression == 0 || format.compression != 0 || body.len() < self.limits.compress_from {
            return None;
        }
        let format = Format { compression, ..format };
        let packed = compress(format, body).filter(|packed| packed.len() < body.len())?;
        Some((format, packed))
    }

    /// The caller has no more interest.
    fn cancel(&mut self, id: u64, now: Instant) {
        if let Some(open) = self.take(id) {
            self.active = now;
            self.counters.cancelled.add(1);
            self.end(open.hooks, Some(&Status::cancelled("the caller cancelled it")));
        }
    }

    /// Ends the calls whose deadline has passed.
    fn expire(&mut self, output: &mut Output<'_>) {
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= output.now()
        {
            let Some(open) = self.take(id) else { return };
            self.counters.expired.add(1);
            self.active = output.now();
            let status = Status::deadline_exceeded("the deadline passed");
            self.respond(id, open, Err(status), output);
        }
    }

    /// Where in a frame the connection is, according to the codec: a peer that sends slowly is not
    /// silent.
    pub(super) fn note_place(&mut self, place: u64, now: Instant) {
        if std::mem::replace(&mut self.place, place) != place {
            self.hear(now);
        }
    }

    /// A peer that takes what is sent is not silent either: a ping waits behind it, and its pong
    /// may not be read yet.
    fn note_unsent(&mut self, output: &Output<'_>) {
        let unsent = output.pending();
        if unsent < std::mem::replace(&mut self.unsent, unsent) {
            self.hear(output.now());
        }
    }

    fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// Does what is due: deadlines, keep-alive, idleness.
    pub(super) fn on_time(&mut self, output: &mut Output<'_>) -> Outlook {
        let _ = self.catch_up(output);
        self.note_unsent(output);
        let now = output.now();
        if self.ping_time().is_some_and(|time| time <= now) {
            if self.pinged.is_some() {
                return self.lose(output);
            }
            self.ping(now, output);
        }
        if self.idle_since().is_some_and(|end| end <= now) {
            return self.go_away(output);
        }
        self.outlook()
    }

    /// When the next ping is sent, or the last one has waited for too long. Later than the clock
    /// can tell is never.
    fn ping_time(&self) -> Option<Instant> {
        let (interval, patience) = self.limits.keepalive?;
        match self.pinged {
            Some(pinged) => pinged.checked_add(patience),
            None => self.heard.checked_add(interval),
        }
    }

    /// A peer that has ended its side can't answer; but if it is gone, its system resets the
    /// connection.
    fn ping(&mut self, now: Instant, output: &mut Output<'_>) {
        write(&Frame::Ping(0), output);
        if self.peer_ended {
            self.heard = now;
        } else {
            self.pinged = Some(now);
        }
    }

    /// Whether there may be a [`next_time`](Self::next_time).
    #[inline]
    pub(super) fn is_timed(&self) -> bool {
        let Limits { keepalive, idle_timeout, .. } = &self.limits;
        !self.deadlines.is_empty()
            || keepalive.is_some()
            || idle_timeout.is_some()
            || !self.backlog.is_empty()
    }

    /// Makes sure that answers that wait are looked at: the low-water mark says when it is their
    /// turn, unless only the cap keeps them.
    pub(super) fn plan(&mut self, output: &Output<'_>) {
        let is_told = self.backlog.is_empty() || output.is_above_high_water();
        self.look_at = if is_told { None } else { output.now().checked_add(LOOK_AFTER) };
    }

    /// When [`on_time`](Self::on_time) is to be called.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        [deadline, self.look_at, self.ping_time(), self.idle_since()].into_iter().flatten().min()
    }

    /// When the connection has been idle for too long.
    fn idle_since(&self) -> Option<Instant> {
        let may_idle = self.open.is_empty() && !self.going_away;
        self.active.checked_add(self.limits.idle_timeout.filter(|_| may_idle)?)
    }

    /// Nobody answered a ping.
    fn lose(&mut self, output: &mut Output<'_>) -> Outlook {
        self.break_off(&Status::unavailable("no answer to a ping"), output)
    }

    /// What came can't be read as a frame.
    pub(super) fn on_error(&mut self, error: &FrameError, output: &mut Output<'_>) -> Outlook {
        match error {
            FrameError::Refused { id, expects_response: true, why, .. } => {
                self.refuse(*id, why, output)
            }
            FrameError::Refused { .. } => {
                self.counters.refused.add(1);
                self.outlook()
            }
            FrameError::Version(_) => {
                self.break_off(&Status::unimplemented(error.to_string()), output)
            }
            _ => self.break_off(&Status::invalid_argument(error.to_string()), output),
        }
    }

    /// Refuses what expects a response: a request, or something of which only a newer peer knows
    /// what its id means.
    fn refuse(&mut self, id: u64, why: &Refusal, output: &mut Output<'_>) -> Outlook {
        if !matches!(why, Refusal::Kind(_)) {
            if id <= self.last {
                return self.break_off(&self.out_of_order(id), output);
            }
            self.last = id;
        }
        self.counters.refused.add(1);
        write_failure(id, true, &why.status(), output);
        self.outlook()
    }

    fn out_of_order(&self, id: u64) -> Status {
        let last = self.last;
        Status::invalid_argument(format!("request {id} came after request {last}"))
    }

    /// The peer broke the rules, or is lost.
    pub(super) fn break_off(&mut self, status: &Status, output: &mut Output<'_>) -> Outlook {
        tracing::debug!(%status, "a connection is broken off");
        self.going_away = true;
        self.abandon();
        let (code, message) = (status.code(), status.message());
        write(&Frame::GoAway { last: self.last, code, message }, output);
        Outlook::Over
    }

    /// The connection begins to close: methods that work for its calls learn of it at once, and so
    /// does the peer, where it may not know why.
    pub(super) fn closing(&mut self, reason: &CloseReason, output: &mut Output<'_>) {
        if let CloseReason::FrameTimeout = reason {
            let _ = self.break_off(&Status::unavailable(reason.to_string()), output);
        }
        self.going_away = true;
        self.abandon();
    }

    /// Takes no more requests; the connection is over when the open ones have ended.
    pub(super) fn go_away(&mut self, output: &mut Output<'_>) -> Outlook {
        if !std::mem::replace(&mut self.going_away, true) {
            write(&Frame::GoAway { last: self.last, code: Code::Ok, message: "" }, output);
        }
        self.outlook()
    }

    /// The peer sends nothing more; it may still wait for answers.
    pub(super) fn peer_ended(&mut self, output: &mut Output<'_>) -> Outlook {
        self.peer_ended = true;
        self.pinged = None;
        if !self.open.is_empty() {
            // A process that is gone looks the same; but then its system answers with a reset.
            write(&Frame::Ping(0), output);
        }
        self.outlook()
    }

    /// Ends all calls that are open, of whose replies nobody will hear.
    fn abandon(&mut self) {
        let status = Status::cancelled("the connection is closed");
        for (id, open) in std::mem::take(&mut self.open) {
            self.forget(id, &open);
            self.counters.cancelled.add(1);
            self.end(open.hooks, Some(&status));
        }
    }

    fn outlook(&self) -> Outlook {
        let is_done = self.open.is_empty() && (self.going_away || self.peer_ended);
        if is_done { Outlook::Over } else { Outlook::Open }
    }
}

/// The connection is gone.
impl Drop for Session {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn write_reply(id: u64, body: Body, output: &mut Output<'_>) -> Result<(), Status> {
    let response = Response::ok(id, body.metadata.view(), body.format);
    frame::write_with_bytes(&response, body.bytes, output).map_err(|error| unsendable(&error))
}

/// The earliest of some deadlines, told as the time that is left.
#[inline]
fn earliest(now: Instant, timeouts: [Option<Duration>; 2]) -> Option<Instant> {
    // Later than the clock can tell is never.
    timeouts.into_iter().flatten().min().and_then(|timeout| now.checked_add(timeout))
}

/// Writes a frame that has no part of a user's and so is never too long.
fn write(frame: &Frame<'_>, output: &mut Output<'_>) {
    let written = frame::write(frame, output);
    debug_assert!(written.is_ok(), "{written:?}");
}

#[cold]
fn write_failure(id: u64, not_run: bool, status: &Status, output: &mut Output<'_>) {
    write(
        &Frame::Response(Response {
            id,
            not_run,
            code: status.code(),
            message: status.message(),
            metadata: MetadataView::default(),
            format: Format::RAW,
            body: &[],
        }),
        output,
    );
}

/// What the caller is told when an answer can't be sent.
pub(super) fn unsendable(error: &FrameError) -> Status {
    Status::internal(format!("the answer can't be sent: {error}"))
}
