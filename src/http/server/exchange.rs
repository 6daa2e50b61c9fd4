//! What a handler is given, and how it answers.

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::fs::File;
use std::ops::{Deref, Range};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::draft::{Draft, End};
use super::events::EventStream;
use super::upgrade::{AnyProtocol, Protocol};
use super::{Failure, Responder};
use crate::Address;
use crate::http::body::{BodyReader, BodyWriter, Streamed};
use crate::http::fields::{FieldError, FieldLines, Fields};
use crate::http::head::RequestHead;
use crate::http::middleware::Next;
use crate::http::response::{Content, JSON, OwnedResponse, TEXT};
use crate::http::router::Matched;
use crate::http::status::StatusCode;

/// What serves requests. Each reactor has its own, which stays on the reactor's thread. A closure
/// that takes an [`Exchange`] is one.
///
/// ```
/// use millstream::http::{Answered, Exchange, Failure, Handler, StatusCode};
///
/// /// Counts the requests of each connection.
/// struct Counter;
///
/// impl Handler for Counter {
///     type State = u64;
///
///     fn handle(&mut self, mut exchange: Exchange<'_, u64>) -> Result<Answered, Failure> {
///         *exchange.state() += 1;
///         let count = *exchange.state();
///         let answer = exchange.respond(StatusCode::OK).field("X-Count", count.to_string())?;
///         Ok(answer.text("counted"))
///     }
/// }
/// ```
pub trait Handler: 'static {
    /// What is kept for each connection; it begins as its default.
    type State: Default + 'static;

    /// The head of a request came whose content is still to come. Returns how it is taken; by
    /// default whole, up to the limit of the server.
    ///
    /// A client that waits for `100 Continue` is told to send the content after this, or when a
    /// stream's reader first asks for something.
    ///
    /// # Errors
    /// The content is not wanted: the client is answered at once, and the connection closes. What
    /// is still being sent is dropped for a while, so that the client gets to read the response.
    fn on_head(
        &mut self,
        _head: &RequestHead<'_>,
        _state: &mut Self::State,
    ) -> Result<Intake, Failure> {
        Ok(Intake::Whole(u64::MAX))
    }

    /// Answers a request whose content is not taken: [`on_head`](Self::on_head) or a limit has
    /// refused it, with this failure. By default the client is told that. The connection closes.
    ///
    /// # Errors
    /// As for [`handle`](Self::handle).
    fn on_refused(
        &mut self,
        _exchange: Exchange<'_, Self::State>,
        failure: Failure,
    ) -> Result<Answered, Failure> {
        Err(failure)
    }

    /// Answers a request: now, by [`Exchange::respond`], or later, by [`Exchange::later`].
    ///
    /// # Errors
    /// The client is told the failure's status; the connection goes on.
    ///
    /// # Panics
    /// A panic closes the connection, and nothing else. If the request was not answered, the client
    /// is told 500.
    fn handle(&mut self, exchange: Exchange<'_, Self::State>) -> Result<Answered, Failure>;
}

impl<F> Handler for F
where
    F: FnMut(Exchange<'_>) -> Result<Answered, Failure> + 'static,
{
    type State = ();

    fn handle(&mut self, exchange: Exchange<'_>) -> Result<Answered, Failure> {
        self(exchange)
    }
}

/// How a content is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Whole, up to this many bytes, and up to [`RequestLimits::body`]: the request is handled when
    /// it is all there.
    ///
    /// [`RequestLimits::body`]: crate::http::RequestLimits::body
    Whole(u64),
    /// As it comes, up to this many bytes, whatever the limit of the server is: the request is
    /// handled now, and [`Exchange::reader`] reads the content.
    Stream(u64),
}

impl Intake {
    /// What does for both: the smaller limit, and a stream if one of them is.
    pub fn and(self, other: Intake) -> Intake {
        match (self, other) {
            (Intake::Whole(one), Intake::Whole(two)) => Intake::Whole(one.min(two)),
            (
                Intake::Whole(one) | Intake::Stream(one),
                Intake::Whole(two) | Intake::Stream(two),
            ) => Intake::Stream(one.min(two)),
        }
    }
}

/// A request, content and all.
pub(super) struct Whole<'e> {
    pub(super) head: RequestHead<'e>,
    pub(super) body: &'e [u8],
    pub(super) trailers: Fields<'e>,
    /// What reads the content, if it is a stream.
    pub(super) reader: Cell<Option<BodyReader>>,
    /// Its content was not taken.
    pub(super) is_refused: bool,
}

impl<'e> Whole<'e> {
    pub(super) fn new(head: RequestHead<'e>, body: &'e [u8], trailers: Fields<'e>) -> Self {
        Whole { head, body, trailers, reader: Cell::new(None), is_refused: false }
    }
}

/// A request that is to be answered, for the time of [`Handler::handle`]. It dereferences to the
/// request's head.
pub struct Exchange<'e, S = ()> {
    request: &'e Whole<'e>,
    /// What a router found.
    matched: Option<&'e Matched<'e>>,
    values: Values<'e>,
    desk: &'e mut (dyn Desk<S> + 'e),
}

/// What layers have left for what is further inside; each is in its layer's function.
#[derive(Clone, Copy, Default)]
struct Values<'e>(Option<&'e (&'e dyn Any, Values<'e>)>);

/// The server's side of an exchange.
pub(super) trait Desk<S> {
    fn state(&mut self) -> &mut S;

    fn now(&self) -> Instant;

    fn peer_addr(&self) -> Address;

    /// The response to come.
    fn draft(&mut self) -> &mut Draft;

    /// Answers with the fields of the draft.
    fn answer(&mut self, status: StatusCode, content: Content<'_>, close: bool);

    fn later(&mut self) -> Responder;

    /// Answers with those fields, and what comes behind a head.
    fn answer_with(&mut self, status: StatusCode, tail: Tail, close: bool);
}

/// What comes behind the head of an answer that is not whole.
pub(super) enum Tail {
    Stream(Streamed),
    /// Another protocol, which goes on with the connection.
    Protocol(Box<dyn AnyProtocol>),
}

impl<'e, S> Exchange<'e, S> {
    pub(super) fn new(request: &'e Whole<'e>, desk: &'e mut (dyn Desk<S> + 'e)) -> Self {
        Exchange { request, matched: None, values: Values::default(), desk }
    }

    /// Whether the request is refused because of its content, of which nothing is here then: see
    /// [`Handler::on_refused`].
    pub fn is_refused(&self) -> bool {
        self.request.is_refused
    }

    /// The request's content.
    pub fn body(&self) -> &'e [u8] {
        self.request.body
    }

    /// What reads a content that [`Handler::on_head`] wanted as a [stream](Intake::Stream); `None`
    /// if it did not, if there is no content, or the second time. Unless it is taken, the content
    /// is not read, and the connection closes after the answer.
    pub fn reader(&mut self) -> Option<BodyReader> {
        self.request.reader.take()
    }

    /// The fields that came behind a content in chunks. They are no part of the head, so that
    /// nothing there is overruled.
    pub fn trailers(&self) -> Fields<'e> {
        self.request.trailers
    }

    /// What is kept for the connection.
    pub fn state(&mut self) -> &mut S {
        self.desk.state()
    }

    /// When this turn of the reactor began: see [`Conn::now`](crate::Conn::now).
    pub fn now(&self) -> Instant {
        self.desk.now()
    }

    /// The address of the client: see [`Conn::peer_addr`](crate::Conn::peer_addr).
    pub fn peer_addr(&self) -> Address {
        self.desk.peer_addr()
    }

    /// A parameter of the route, by its name in the [pattern](Self::pattern), decoded; `None` if
    /// the pattern has no such parameter.
    ///
    /// It was decoded once: `%252F` is `%2F` here. A path that can't be decoded comes to no route.
    pub fn param(&self, name: &str) -> Option<Cow<'e, str>> {
        self.matched?.param(name)
    }

    /// A parameter of the route as it came, not decoded.
    pub(in crate::http) fn raw_param(&self, name: &str) -> Option<&'e str> {
        self.matched?.raw_param(name)
    }

    /// The names and values of the parameters of the path, decoded.
    #[cfg(feature = "http-json")]
    pub(in crate::http) fn params(&self) -> impl Iterator<Item = (&'e str, Cow<'e, str>)> {
        self.matched.into_iter().flat_map(Matched::params)
    }

    /// The pattern of the route that the request came to, such as `/users/{id}`; `None` without a
    /// [`Router`](crate::http::Router), and for a path that none of its routes has.
    pub fn pattern(&self) -> Option<&'e str> {
        Some(self.matched?.pattern())
    }

    /// The methods that the path has, as the field Allow lists them; `None` as for the pattern.
    pub fn allowed(&self) -> Option<&'e str> {
        Some(self.matched?.allowed())
    }

    /// The value of this type that a layer further outside has [left](Self::with_value).
    pub fn value<T: Any>(&self) -> Option<&'e T> {
        let mut values = self.values;
        while let Some((value, outer)) = values.0 {
            if let Some(value) = value.downcast_ref() {
                return Some(value);
            }
            values = *outer;
        }
        None
    }

    /// The fields that go along with every kind of response: what is added here comes before the
    /// handler's own fields, also if it answers later, and along with a [`Failure`], too.
    pub fn outgoing(&mut self) -> &mut FieldLines {
        &mut self.desk.draft().fields
    }

    /// Has `hook` called once when the response is about to be written, or when the connection is
    /// gone before there is one, on the reactor's thread. The one that was added last is called
    /// first. A panic in one is caught and logged.
    pub fn on_end(&mut self, hook: impl FnOnce(&mut End<'_>) + 'static) {
        self.desk.draft().hooks.add(Box::new(hook));
    }

    /// Has an answer that comes [later](Self::later) come within this time: otherwise the client is
    /// told 503. An answer at once is not meant.
    pub fn limit_timeout(&mut self, timeout: Duration) {
        let limit = &mut self.desk.draft().timeout;
        *limit = Some(limit.map_or(timeout, |earlier| earlier.min(timeout)));
    }

    /// Has the content of the response changed.
    #[cfg(feature = "deflate")]
    pub(in crate::http) fn recode_with(
        &mut self,
        recoding: std::sync::Arc<dyn crate::http::body::Recoding>,
    ) {
        self.desk.draft().recoding = Some(recoding);
    }

    /// Answers now.
    pub fn respond(self, status: StatusCode) -> Answer<'e, S> {
        drop(self.request.reader.take());
        self.desk.draft().begin_answer();
        Answer { desk: self.desk, status, close: false }
    }

    /// Answers later, from any thread. Meanwhile the connection's next requests are handled; their
    /// answers wait for this one.
    ///
    /// ```
    /// use millstream::http::{Answered, Exchange, Failure, OwnedResponse, StatusCode};
    ///
    /// fn slow(exchange: Exchange<'_>) -> Result<Answered, Failure> {
    ///     let question = exchange.body().to_vec();
    ///     let (responder, answered) = exchange.later();
    ///     // In earnest a pool with a bound, and not a thread for each.
    ///     std::thread::spawn(move || {
    ///         let reply = question.to_ascii_uppercase(); // Which takes long.
    ///         responder.send(OwnedResponse::new(StatusCode::OK).body(reply));
    ///     });
    ///     Ok(answered)
    /// }
    /// ```
    pub fn later(self) -> (Responder, Answered) {
        drop(self.request.reader.take());
        (self.desk.later(), Answered(()))
    }

    /// Goes on with another protocol on this connection: see [`Protocol`].
    ///
    /// # Errors
    /// The client [does not offer](RequestHead::upgrades_to) it: 426, which asks for it.
    pub fn upgrade(self, protocol: &str) -> Result<Upgrade<'e, S>, Failure> {
        if !self.upgrades_to(protocol) {
            return Err(OwnedResponse::upgrade_required(protocol)?.into());
        }
        let draft = self.desk.draft();
        draft.begin_answer();
        draft.fields.push_valid("Upgrade", protocol.as_bytes());
        Ok(Upgrade { desk: self.desk })
    }
}

impl Exchange<'_> {
    /// Passes it on with a value for what is further inside, which finds it by its type: for
    /// example, who the user is. A later one of the same type hides it. It costs no memory, and
    /// stays where it is, in the layer's function.
    ///
    /// # Errors
    /// Those of `next`.
    #[inline]
    pub fn with_value<T: Any>(self, value: &T, next: impl Next) -> Result<Answered, Failure> {
        let values = (value as &dyn Any, self.values);
        next.handle(Exchange {
            request: self.request,
            matched: self.matched,
            values: Values(Some(&values)),
            desk: self.desk,
        })
    }

    /// Passes it on with what a router found.
    #[inline]
    pub(in crate::http) fn with_matched(
        self,
        matched: &Matched<'_>,
        next: impl Next,
    ) -> Result<Answered, Failure> {
        let Exchange { request, values, desk, .. } = self;
        next.handle(Exchange { request, matched: Some(matched), values, desk })
    }
}

impl<'e, S> Deref for Exchange<'e, S> {
    type Target = RequestHead<'e>;

    fn deref(&self) -> &RequestHead<'e> {
        &self.request.head
    }
}

/// A response that is being made. Its last method sends it; one that is dropped before is not sent,
/// and the request fails with 500 unless the handler returns another failure.
#[must_use = "the last method sends it"]
pub struct Answer<'e, S = ()> {
    desk: &'e mut (dyn Desk<S> + 'e),
    status: StatusCode,
    close: bool,
}

impl<S> Answer<'_, S> {
    /// Adds a field.
    ///
    /// # Errors
    /// It can't be sent: see [`FieldLines::push`].
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, FieldError> {
        self.desk.draft().fields.push(name, value)?;
        Ok(self)
    }

    /// Closes the connection after it.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Sends it without a content.
    pub fn empty(self) -> Answered {
        self.body(b"")
    }

    /// Sends it with this content. Where none may be sent, as with 204, none is.
    pub fn body(self, body: &[u8]) -> Answered {
        self.desk.answer(self.status, Content::Borrowed(body), self.close);
        Answered(())
    }

    /// Sends it with a content that is kept by reference until it is sent, if it is not small.
    pub fn bytes(self, body: impl Into<Bytes>) -> Answered {
        self.desk.answer(self.status, Content::Shared(&body.into()), self.close);
        Answered(())
    }

    /// Sends it with this text, as `text/plain`.
    pub fn text(self, text: &str) -> Answered {
        self.desk.draft().fields.push_valid("Content-Type", TEXT.as_bytes());
        self.body(text.as_bytes())
    }

    /// Sends it with the JSON that is written to memory that is used again.
    #[cfg(feature = "http-json")]
    pub(in crate::http) fn json_written<E>(
        self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Answered, E> {
        let Answer { desk, status, close } = self;
        let mut buffer = std::mem::take(&mut desk.draft().scratch);
        let written = write(&mut buffer);
        let answered = written.map(|()| Answer { desk: &mut *desk, status, close }.json(&buffer));
        desk.draft().keep_scratch(buffer);
        answered
    }

    /// Sends it with a content that comes in pieces: in chunks, or with HTTP/1.0 up to the
    /// connection's end. The connection's next requests are handled meanwhile; their answers wait.
    pub fn stream(self) -> (BodyWriter, Answered) {
        self.send_stream(Streamed::new(None))
    }

    /// Sends it with a content that comes in pieces, and has this many bytes.
    pub fn stream_of(self, length: u64) -> (BodyWriter, Answered) {
        self.send_stream(Streamed::new(Some(length)))
    }

    /// Sends it with this part of a file, counted in bytes, which is read as the client takes it:
    /// 64 KiB at a time, on the reactor, so a slow disk holds up its other connections. While a
    /// file is being sent, the connection's next requests wait. If the file turns out to be
    /// shorter, the connection closes, and the client sees that the content is not complete.
    ///
    /// [`Files`](crate::http::Files) finds a file for a request, and does much more.
    pub fn file(self, file: File, part: Range<u64>) -> Answered {
        let tail = Tail::Stream(Streamed::of_file(file, part));
        self.desk.answer_with(self.status, tail, self.close);
        Answered(())
    }

    /// Sends it as a stream of events for browsers. After `pulse` without one, but not before a
    /// second, a comment is sent; 15 seconds suit what is on most ways.
    pub fn events(self, pulse: Duration) -> (EventStream, Answered) {
        let fields = &mut self.desk.draft().fields;
        fields.push_valid("Content-Type", b"text/event-stream");
        fields.push_valid("Cache-Control", b"no-cache");
        let (mut streamed, writer) = Streamed::new(None);
        streamed.pulse = Some(pulse.max(Duration::from_secs(1)));
        let (writer, answered) = self.send_stream((streamed, writer));
        (EventStream::new(writer), answered)
    }

    fn send_stream(self, stream: (Streamed, BodyWriter)) -> (BodyWriter, Answered) {
        let (streamed, writer) = stream;
        self.desk.answer_with(self.status, Tail::Stream(streamed), self.close);
        (writer, Answered(()))
    }

    /// Sends it with this JSON, as `application/json`.
    pub fn json(self, json: &[u8]) -> Answered {
        self.desk.draft().fields.push_valid("Content-Type", JSON.as_bytes());
        self.body(json)
    }
}

impl<S> Answer<'_, S> {
    /// Sends the head alone, with `Connection: close` and no length, and goes on with another
    /// protocol on this connection: for clients that know that it follows. Where they offer it,
    /// [`Exchange::upgrade`] is what to use.
    pub fn hand_over(self, protocol: impl Protocol) -> Answered {
        self.desk.answer_with(self.status, Tail::Protocol(Box::new(protocol)), false);
        Answered(())
    }
}

/// An answer with 101 (Switching Protocols) that is being made, by [`Exchange::upgrade`].
#[must_use = "its last method sends it"]
pub struct Upgrade<'e, S = ()> {
    desk: &'e mut (dyn Desk<S> + 'e),
}

impl<S> Upgrade<'_, S> {
    /// Adds a field.
    ///
    /// # Errors
    /// It can't be sent: see [`FieldLines::push`].
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, FieldError> {
        self.desk.draft().fields.push(name, value)?;
        Ok(self)
    }

    /// Sends it, behind the answers to earlier requests, and hands the connection over: what came
    /// behind the request is the first that the protocol is given. While the request's content is
    /// still [coming](Intake::Stream) that can't be, and the request fails with 500.
    pub fn to(self, protocol: impl Protocol) -> Answered {
        let status = StatusCode::SWITCHING_PROTOCOLS;
        self.desk.answer_with(status, Tail::Protocol(Box::new(protocol)), false);
        Answered(())
    }
}

/// Says that a request is answered, or will be.
#[derive(Debug)]
#[must_use = "a handler returns it"]
pub struct Answered(());
