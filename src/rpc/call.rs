//! A call on its way: on the server towards its method, on the client towards the connection.

use std::any::Any;
use std::fmt;
use std::io::Write;
use std::ops::Deref;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::compression::Packed;
use super::frame::Format;
use super::metadata::{Metadata, MetadataView, TraceContext};
use super::reply::Reply;
use super::status::Status;
use crate::LogLimit;
use crate::unwind::catch;

/// Runs calls: a method, a [`Router`](super::Router) of methods, or what stands behind a
/// [`Middleware`](super::Middleware).
///
/// On a server it runs on a reactor's thread, where each reactor has its own value, and it must not
/// block: what takes longer is answered [later](Call::answer_later).
pub trait Handler {
    /// Answers a call, or makes sure that it is answered.
    ///
    /// # Errors
    /// The status that the call ends with, unless it was answered already.
    fn handle(&mut self, call: &mut Call<'_>) -> Result<Answer, Status>;

    /// Whether it makes sure by itself that bodies are decompressed before a method runs.
    #[doc(hidden)]
    fn unpacks(&self) -> bool {
        false
    }
}

/// A handler to which no call comes whose body can't be decompressed.
pub(super) struct Unpacking<'h, H>(pub(super) &'h mut H);

impl<H: Handler> Handler for Unpacking<'_, H> {
    #[inline]
    fn handle(&mut self, call: &mut Call<'_>) -> Result<Answer, Status> {
        if !self.0.unpacks() {
            call.unpack()?;
        }
        self.0.handle(call)
    }
}

impl<F: FnMut(&mut Call<'_>) -> Result<Answer, Status>> Handler for F {
    fn handle(&mut self, call: &mut Call<'_>) -> Result<Answer, Status> {
        self(call)
    }
}

/// A call was answered, or there is a [`Reply`] to answer it with: what a [`Handler`] has to
/// show.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    is_later: bool,
}

impl Answer {
    pub(super) const NOW: Answer = Answer { is_later: false };
    pub(super) const LATER: Answer = Answer { is_later: true };

    /// Whether the answer is still to come.
    pub fn is_later(&self) -> bool {
        self.is_later
    }
}

/// What a call gets its answer by: the engine part of a server or a client.
pub(super) trait Exchange {
    /// Asks the clock.
    fn now(&self) -> Instant;

    /// Whether it is the caller's end.
    fn is_client(&self) -> bool;

    /// Answers with a body.
    fn answer(&mut self, metadata: &Metadata, format: Format, body: Body<'_>)
    -> Result<(), Status>;

    /// Answers with a body that is written in place.
    fn answer_with(
        &mut self,
        metadata: &Metadata,
        format: Format,
        fill: &mut Fill<'_>,
    ) -> Result<(), Status>;

    /// Makes the reply of a call that is answered later.
    fn answer_later(&mut self, deadline: Option<Instant>) -> Reply;
}

/// A body that is copied, or kept by reference.
pub(super) enum Body<'a> {
    Borrowed(&'a [u8]),
    Shared(Bytes),
}

impl Body<'_> {
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Body::Borrowed(body) => Bytes::copy_from_slice(body),
            Body::Shared(body) => body,
        }
    }
}

impl Deref for Body<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Body::Borrowed(body) => body,
            Body::Shared(body) => body,
        }
    }
}

/// Writes a body.
pub(super) type Fill<'a> = dyn FnMut(&mut dyn Write) -> Result<(), Status> + 'a;

/// Told how a call ended.
pub(super) type EndHook = Box<dyn FnOnce(&End<'_>) + Send>;

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Why it failed; `None` if it succeeded.
    pub status: Option<&'a Status>,
    /// What came along with the response; nothing on a server.
    pub metadata: MetadataView<'a>,
}

/// What a call consists of when it begins.
pub(super) struct Parts<'a> {
    /// Not checked to be UTF-8.
    pub(super) method: &'a [u8],
    pub(super) metadata: MetadataView<'a>,
    pub(super) format: Format,
    pub(super) body: &'a [u8],
    /// The body is compressed.
    pub(super) packed: Option<&'a Packed<'a>>,
    pub(super) one_way: bool,
    pub(super) is_retry: bool,
    pub(super) now: Instant,
    pub(super) deadline: Option<Instant>,
}

/// What layers have left for what is further inside; the one that was left last comes first.
#[derive(Default)]
struct Values(Option<Box<(Box<dyn Any>, Values)>>);

/// A call on its way through [middleware](super::Middleware): on a server from the connection to
/// its method, on a client from the caller to the connection.
///
/// ```
/// use millstream::rpc::{Answer, Call, Router, Status};
///
/// /// Adds up the numbers in a call's body.
/// fn add(call: &mut Call<'_>) -> Result<Answer, Status> {
///     let text = std::str::from_utf8(call.body())
///         .map_err(|error| Status::invalid_argument(error.to_string()))?;
///     let numbers = text.split(' ').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>();
///     let numbers = numbers.map_err(|error| Status::invalid_argument(error.to_string()))?;
///     let sum: u64 = numbers.into_iter().map(u64::from).sum();
///     call.answer(sum.to_string().as_bytes())
/// }
///
/// let router = Router::new().method("demo.Numbers/add", add);
/// ```
pub struct Call<'a> {
    parts: Parts<'a>,
    outgoing: Metadata,
    hooks: Hooks,
    values: Values,
    /// The error with which it came to no method. A layer may have it run elsewhere after that.
    not_run: Option<Box<Status>>,
    exchange: &'a mut dyn Exchange,
}

impl<'a> Call<'a> {
    pub(super) fn new(parts: Parts<'a>, exchange: &'a mut dyn Exchange) -> Self {
        Call {
            parts,
            outgoing: Metadata::new(),
            hooks: Hooks::default(),
            values: Values::default(),
            not_run: None,
            exchange,
        }
    }

    /// The method's name: service, `/`, method; `\u{fffd}` for one that is not UTF-8.
    pub fn method(&self) -> &'a str {
        std::str::from_utf8(self.parts.method).unwrap_or("\u{fffd}")
    }

    /// The method's name as it came, which is not checked.
    pub(super) fn method_bytes(&self) -> &'a [u8] {
        self.parts.method
    }

    /// The request's body, as [`format`](Self::format) says. One that came compressed is
    /// decompressed when it is asked for the first time, or when the call comes to its method. If
    /// that fails it is empty here, the call comes to no method, and ends with
    /// [`Code::InvalidArgument`](super::Code::InvalidArgument),
    /// [`Code::ResourceExhausted`](super::Code::ResourceExhausted) or, for a compression that is
    /// not built in, [`Code::Unimplemented`](super::Code::Unimplemented).
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        match self.parts.packed {
            None => self.parts.body,
            Some(packed) => packed.unpacked().as_deref().unwrap_or_default(),
        }
    }

    /// Decompresses the body: the call comes to its method.
    #[inline]
    pub(super) fn unpack(&mut self) -> Result<(), Status> {
        match self.parts.packed.map(Packed::unpacked) {
            Some(Err(status)) => Err(self.not_run(status.clone())),
            _ => Ok(()),
        }
    }

    /// Notes that the call came to no method, for this reason.
    #[cold]
    pub(super) fn not_run(&mut self, status: Status) -> Status {
        self.not_run = Some(Box::new(status.clone()));
        status
    }

    /// Whether the call came to no method if it ends like this.
    pub(super) fn is_not_run(&self, status: &Status) -> bool {
        self.not_run.as_deref() == Some(status)
    }

    /// How the request's [body](Self::body) is encoded. It is not compressed any more, or not yet.
    pub fn format(&self) -> Format {
        self.parts.format
    }

    /// What came along with the request; nothing on a client.
    pub fn metadata(&self) -> MetadataView<'a> {
        self.parts.metadata
    }

    /// What goes along to the other end: with the response on a server, with the request on a
    /// client. It has to be there before the call is answered or passed on.
    pub fn outgoing(&mut self) -> &mut Metadata {
        &mut self.outgoing
    }

    /// The trace that it belongs to: the one that came along, otherwise the one that goes along. A
    /// call that is made for this one goes along with a [child](TraceContext::child) of it.
    pub fn trace_context(&self) -> Option<TraceContext> {
        self.metadata().trace_context().or_else(|| self.outgoing.view().trace_context())
    }

    /// Leaves a value for the layers further inside, which find it by its type: for example, who
    /// the caller is. A later one of the same type hides it.
    pub fn insert(&mut self, value: impl Any) {
        let outer = std::mem::take(&mut self.values);
        self.values = Values(Some(Box::new((Box::new(value), outer))));
    }

    /// The value of this type that a layer further outside has left.
    pub fn value<T: Any>(&self) -> Option<&T> {
        let mut rest = &self.values;
        while let Some((value, outer)) = rest.0.as_deref() {
            if let Some(value) = value.downcast_ref() {
                return Some(value);
            }
            rest = outer;
        }
        None
    }

    /// Whether this is the caller's end, and not the server's.
    pub fn is_client(&self) -> bool {
        self.exchange.is_client()
    }

    /// Whether no one waits for an answer.
    pub fn is_one_way(&self) -> bool {
        self.parts.one_way
    }

    /// Whether it is tried again, and an earlier try may have been run.
    pub fn is_retry(&self) -> bool {
        self.parts.is_retry
    }

    /// When it came, by the clock of [`Conn::now`](crate::Conn::now).
    pub fn now(&self) -> Instant {
        self.parts.now
    }

    /// When it ends, if it isn't answered before: the earliest of the deadlines of the caller, of
    /// the server and of the method, as far as they are known here.
    pub fn deadline(&self) -> Option<Instant> {
        self.parts.deadline
    }

    /// The time that was left when it came; `None` without a deadline.
    pub fn timeout(&self) -> Option<Duration> {
        Some(self.parts.deadline?.saturating_duration_since(self.parts.now))
    }

    /// Ends it after this time at the latest, counted from [`now`](Self::now).
    pub fn limit_timeout(&mut self, timeout: Duration) {
        // Later than the clock can tell is never.
        let Some(limit) = self.parts.now.checked_add(timeout) else { return };
        self.parts.deadline =
            Some(self.parts.deadline.map_or(limit, |deadline| deadline.min(limit)));
    }

    /// Answers with raw bytes.
    ///
    /// # Errors
    /// It was answered already, its deadline has passed, or the answer is too long for a frame.
    #[inline]
    pub fn answer(&mut self, body: &[u8]) -> Result<Answer, Status> {
        self.check_deadline()?;
        self.exchange.answer(&self.outgoing, Format::RAW, Body::Borrowed(body))?;
        Ok(Answer::NOW)
    }

    /// Answers with raw bytes that are kept by reference until they are sent.
    ///
    /// # Errors
    /// As for [`answer`](Self::answer).
    pub fn answer_bytes(&mut self, body: impl Into<Bytes>) -> Result<Answer, Status> {
        self.check_deadline()?;
        self.exchange.answer(&self.outgoing, Format::RAW, Body::Shared(body.into()))?;
        Ok(Answer::NOW)
    }

    /// Answers with a body that `fill` writes in place, encoded as `format` says. The server
    /// compresses it.
    ///
    /// # Errors
    /// Those of `fill`, with which nothing was answered, and those of [`answer`](Self::answer).
    pub fn answer_with(
        &mut self,
        format: Format,
        mut fill: impl FnMut(&mut dyn Write) -> Result<(), Status>,
    ) -> Result<Answer, Status> {
        self.check_deadline()?;
        self.exchange.answer_with(&self.outgoing, format, &mut fill)?;
        Ok(Answer::NOW)
    }

    /// Nothing is answered too late, nor run.
    #[inline]
    pub(super) fn check_deadline(&self) -> Result<(), Status> {
        match self.parts.deadline {
            Some(deadline) if deadline <= self.exchange.now() => {
                Err(Status::deadline_exceeded("the deadline passed before the answer"))
            }
            _ => Ok(()),
        }
    }

    /// Takes what the call is answered with later, from any thread. If more than one is taken, the
    /// first that is used, or dropped, answers.
    pub fn answer_later(&mut self) -> (Answer, Reply) {
        let mut reply = self.exchange.answer_later(self.parts.deadline);
        reply.metadata().append(&self.outgoing);
        (Answer::LATER, reply)
    }

    /// Has `hook` called once when the call ends, however that comes: on a server on the reactor's
    /// thread, when the answer was written; on a client where the call completes. The one that was
    /// added last is called first. A panic in one is caught and logged.
    pub fn on_end(&mut self, hook: impl FnOnce(&End<'_>) + Send + 'static) {
        self.hooks.add(Box::new(hook));
    }

    /// What is to be told when it ends.
    #[inline]
    pub(super) fn into_hooks(mut self) -> Hooks {
        std::mem::take(&mut self.hooks)
    }
}

/// Some are left only after a panic, which ends the call, too.
impl Drop for Call<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.hooks.is_empty() {
            self.tell_of_a_panic();
        }
    }
}

impl Call<'_> {
    #[cold]
    fn tell_of_a_panic(&mut self) {
        let (hooks, status) = (std::mem::take(&mut self.hooks), Status::internal("a panic"));
        let end = End { status: Some(&status), metadata: MetadataView::default() };
        hooks.tell(&end);
    }
}

/// What learns how a call ended; the one that was added last comes first.
#[derive(Default)]
pub(super) struct Hooks(Option<Box<(EndHook, Hooks)>>);

impl Hooks {
    fn add(&mut self, hook: EndHook) {
        let earlier = std::mem::take(self);
        self.0 = Some(Box::new((hook, earlier)));
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Tells all of them, even if one panics: calls end one after the other, and each must.
    pub(super) fn tell(self, end: &End<'_>) {
        let mut rest = self;
        while let Some(first) = rest.0 {
            let (hook, earlier) = *first;
            if catch(|| hook(end)).is_err() {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    tracing::error!(left_out, "a hook panicked at the end of a call");
                }
            }
            rest = earlier;
        }
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method())
            .field("metadata", &self.parts.metadata)
            .field("deadline", &self.parts.deadline)
            .field("body", &self.parts.body.len())
            .finish_non_exhaustive()
    }
}
