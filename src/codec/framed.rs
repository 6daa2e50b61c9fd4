//! Serving a connection frame by frame.

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::Codec;
use crate::base::{CloseReason, TimerId};
use crate::handler::{
    Action, Conn, Datagram, DatagramSocket, EventHandler, Output, Reactor, ReactorAction, Reactors,
    Remote, ShutdownAction,
};

/// How many frames of a connection are served before others have their turn.
const FRAMES_PER_TURN: usize = 1024;
/// In what time a frame is whole.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection whose bytes are frames.
pub type FramedConn<'a, F> = Conn<'a, Framed<F>>;

/// The handle of a connection whose bytes are frames.
pub type FramedRemote<F> = Remote<Framed<F>>;

/// What a callback without a connection is given, where frames are served.
pub type FramedReactor<'a, F> = Reactor<'a, Framed<F>>;

/// The reactors of an engine that serves frames.
pub type FramedReactors<F> = Reactors<Framed<F>>;

type ErrorOf<F> = <<F as FrameHandler>::Codec as Codec>::Error;

/// The callbacks of a server whose protocol has frames. [`Framed`] makes an [`EventHandler`] of it,
/// and all that is said there about threads, order and panics holds here.
///
/// ```
/// use millstream::codec::{FrameHandler, Framed, FramedConn, Lines};
/// use millstream::{Action, Engine};
///
/// /// Sends every line back.
/// struct Echo;
///
/// impl FrameHandler for Echo {
///     type Codec = Lines;
///     type State = ();
///
///     fn codec(&self) -> Lines {
///         Lines::new()
///     }
///
///     fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: &[u8]) -> Action {
///         conn.send(line).into()
///     }
/// }
///
/// let engine = Engine::builder().listen("127.0.0.1:0").start(|_reactor| Framed::new(Echo))?;
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait FrameHandler: Sized + 'static {
    /// The protocol.
    type Codec: Codec + 'static;

    /// Whether the engine may listen for datagrams; see [`EventHandler::TAKES_DATAGRAMS`].
    const TAKES_DATAGRAMS: bool = false;

    /// What the handler keeps for each connection; see [`EventHandler::State`].
    type State: Default + 'static;

    /// The codec for a new connection.
    fn codec(&self) -> Self::Codec;

    /// A frame arrived. It is gone after the callback; [`FramedConn::send`](Conn::send) replies.
    ///
    /// Frames that have arrived wait while the connection is [paused](Conn::pause_reading), and
    /// while more output waits than the [high-water mark](crate::Builder::water_marks) says, unless
    /// that [doesn't pause reading](crate::Builder::pause_reading_at_high_water).
    fn on_frame(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        frame: <Self::Codec as Codec>::Frame<'_>,
    ) -> Action;

    /// What arrived is not a frame. By default the connection closes once its output is flushed;
    /// what is written here is a part of that. [`Action::Continue`] goes on behind the bad frame,
    /// if the codec can; otherwise the connection closes all the same.
    fn on_error(&mut self, _conn: &mut FramedConn<'_, Self>, _error: ErrorOf<Self>) -> Action {
        Action::Close
    }

    /// See [`EventHandler::on_boot`].
    fn on_boot(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ReactorAction {
        ReactorAction::Continue
    }

    /// See [`EventHandler::on_open`].
    fn on_open(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        Action::Continue
    }

    /// The peer ended its side, and all whole frames were served; see [`EventHandler::on_end`].
    fn on_end(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        Action::Close
    }

    /// See [`EventHandler::on_high_water`].
    fn on_high_water(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        Action::Continue
    }

    /// See [`EventHandler::on_low_water`].
    fn on_low_water(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        Action::Continue
    }

    /// See [`EventHandler::on_tls`]. What is read and sent from here on goes through a new
    /// [codec](Self::codec).
    fn on_tls(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        Action::Continue
    }

    /// See [`EventHandler::on_timer`].
    fn on_timer(
        &mut self,
        _conn: &mut FramedConn<'_, Self>,
        _timer: TimerId,
        _value: u64,
    ) -> Action {
        Action::Continue
    }

    /// See [`EventHandler::on_closing`]. Frames that were not served before it are not served any
    /// more; where the close flushes, [`FramedConn::send`](Conn::send) sends a last one.
    fn on_closing(&mut self, _conn: &mut FramedConn<'_, Self>, _reason: &CloseReason) {}

    /// See [`EventHandler::on_close`].
    fn on_close(&mut self, _conn: &mut FramedConn<'_, Self>, _reason: &CloseReason) {}

    /// See [`EventHandler::on_datagram`].
    fn on_datagram(
        &mut self,
        _socket: &mut DatagramSocket<'_, Framed<Self>>,
        _datagram: Datagram<'_>,
    ) -> Action {
        Action::Continue
    }

    /// See [`EventHandler::on_datagram_error`].
    fn on_datagram_error(
        &mut self,
        _socket: &mut DatagramSocket<'_, Framed<Self>>,
        _error: &io::Error,
    ) -> Action {
        Action::Continue
    }

    /// See [`EventHandler::on_datagram_closing`].
    fn on_datagram_closing(
        &mut self,
        _socket: &mut DatagramSocket<'_, Framed<Self>>,
        _reason: &CloseReason,
    ) {
    }

    /// See [`EventHandler::on_tick`].
    fn on_tick(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ReactorAction {
        ReactorAction::Continue
    }

    /// See [`EventHandler::on_reactor_timer`].
    fn on_reactor_timer(
        &mut self,
        _reactor: &mut FramedReactor<'_, Self>,
        _timer: TimerId,
        _value: u64,
    ) -> ReactorAction {
        ReactorAction::Continue
    }

    /// See [`EventHandler::on_shutdown`].
    fn on_shutdown(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ShutdownAction {
        ShutdownAction::Close
    }

    /// See [`EventHandler::on_drain`].
    fn on_drain(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        Action::Continue
    }
}

/// An [`EventHandler`] that decodes, and calls a [`FrameHandler`] frame by frame.
///
/// What a read brought is served at once, up to [`frames_per_turn`](Self::frames_per_turn); the
/// rest comes in the next turn, without a new read. It dereferences to the frame handler, which is
/// what [`Remote::run`](crate::Remote::run) is for.
///
/// ```
/// use millstream::codec::{FrameHandler, Framed, FramedConn, Lines};
/// use millstream::{Action, Engine};
/// use std::time::Duration;
///
/// struct Echo;
///
/// impl FrameHandler for Echo {
///     type Codec = Lines;
///     type State = ();
///
///     fn codec(&self) -> Lines {
///         Lines::new()
///     }
///
///     fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: &[u8]) -> Action {
///         conn.send(line).into()
///     }
/// }
///
/// let echo = |_reactor| Framed::new(Echo).frame_timeout(Duration::from_secs(10));
/// let engine = Engine::builder().listen("127.0.0.1:0").start(echo)?;
/// # engine.stop(Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "framing")]
pub struct Framed<F> {
    handler: F,
    frames_per_turn: usize,
    frame_timeout: Option<Duration>,
}

/// A connection's state under [`Framed`]. It dereferences to the frame handler's own state.
pub struct FramedState<F: FrameHandler> {
    /// Made when the connection opens.
    codec: Option<F::Codec>,
    /// The peer ended, and the frame handler does not know yet.
    ended: bool,
    /// A part of a frame was taken, and not the whole.
    part_taken: bool,
    /// The frames that are left are going to be served when others had their turn.
    is_due: bool,
    state: F::State,
}

impl<F: FrameHandler> Framed<F> {
    /// Serves frames with `handler`.
    pub fn new(handler: F) -> Self {
        let frame_timeout = Some(FRAME_TIMEOUT);
        Framed { handler, frames_per_turn: FRAMES_PER_TURN, frame_timeout }
    }

    /// How long after its first byte a frame must be whole: otherwise the connection closes with
    /// [`CloseReason::FrameTimeout`]. By default a minute; `None` for no limit, with which a peer
    /// that sends a byte now and then holds its connection for ever, as no
    /// [`idle_timeout`](crate::Builder::idle_timeout) and no
    /// [`read_timeout`](crate::Builder::read_timeout) comes.
    ///
    /// What counts is time in which the engine reads. While reading is
    /// [paused](Conn::pause_reading) or the output is above the high-water mark, and while frames
    /// wait for their turn, the peer can do nothing. A frame that comes whole costs nothing, one
    /// that comes in parts a timer once in this time.
    pub fn frame_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.frame_timeout = timeout.into();
        self
    }

    /// How many frames one connection is served before others have their turn; at least one, by
    /// default 1,024.
    pub fn frames_per_turn(mut self, frames: usize) -> Self {
        self.frames_per_turn = frames.max(1);
        self
    }

    /// Serves the frames that are there. While some may be left, the connection holds its input: it
    /// reads no more, and no end of either side ends it.
    #[inline]
    fn serve(&mut self, conn: &mut FramedConn<'_, F>) -> Action {
        if conn.output.pending.awaits_layer() {
            conn.hold_input(true); // What the codec has kept came before the handshake.
            return Action::Continue;
        }
        for _ in 0..conn.share_of(self.frames_per_turn) {
            if !conn.takes_frames() {
                conn.hold_input(true); // A close, a resumption or the low-water mark goes on.
                return Action::Continue;
            }
            let taken = conn.input.taken();
            let action = match conn.decode() {
                Ok(Some(frame)) => {
                    conn.control.end_frame();
                    self.handler.on_frame(conn, frame)
                }
                Ok(None) => return self.end(conn),
                Err(error) => {
                    if !conn.codec_is_within_frame() {
                        conn.control.end_frame();
                    }
                    tracing::debug!(conn = %conn.id(), %error, "not a frame");
                    match self.handler.on_error(conn, error) {
                        Action::Continue if conn.input.taken() == taken => Action::Close,
                        action => action,
                    }
                }
            };
            match action {
                Action::Continue => {}
                Action::Close => return Action::Close,
                Action::Shutdown => {
                    Self::serve_later(conn);
                    return Action::Shutdown;
                }
            }
        }
        Self::serve_later(conn);
        Action::Continue
    }

    /// Serves the frames that are left when others had their turn.
    fn serve_later(conn: &mut FramedConn<'_, F>) {
        conn.hold_input(true);
        conn.state.is_due = true;
        conn.go_on_later();
    }

    /// No whole frame is left. If none will come either, the handler is told.
    #[inline]
    fn end(&mut self, conn: &mut FramedConn<'_, F>) -> Action {
        conn.hold_input(false);
        if std::mem::take(&mut conn.state.ended) {
            return self.handler.on_end(conn);
        }
        self.time_frame(conn);
        Action::Continue
    }

    /// Starts the timeout of a frame that has begun, unless it runs.
    #[inline]
    fn time_frame(&self, conn: &mut FramedConn<'_, F>) {
        let taken = conn.codec_is_within_frame();
        if std::mem::replace(&mut conn.state.part_taken, taken) && !taken {
            conn.control.end_frame(); // What is unread begins another one.
        }
        if !taken && conn.input.is_empty() {
            return conn.control.end_frame();
        }
        match conn.control.terms().frame_timeout.unwrap_or(self.frame_timeout) {
            Some(timeout) => conn.control.begin_frame(timeout),
            None => conn.control.end_frame(),
        }
    }

    /// Serves, unless that is going to be done anyway.
    #[inline]
    fn serve_now(&mut self, conn: &mut FramedConn<'_, F>) -> Action {
        if conn.state.is_due {
            conn.hold_input(true);
            return Action::Continue;
        }
        self.serve(conn)
    }
}

/// What sends the frames of a connection, made by [`FramedConn::split`](Conn::split).
#[non_exhaustive]
pub struct Encoder<'c, 'a, C> {
    /// The connection's codec, to ask it, to set it, or to write a frame piece by piece; `None`
    /// only if [`FrameHandler::codec`] panicked, and the connection closes.
    pub codec: Option<&'c mut C>,
    /// What is to be sent.
    pub output: &'c mut Output<'a>,
}

impl<C: Codec> Encoder<'_, '_, C> {
    /// Sends a frame, as [`FramedConn::send`](Conn::send) does.
    ///
    /// # Errors
    /// The codec can't make a frame of it. Nothing was written.
    #[inline]
    pub fn send(&mut self, item: C::Item<'_>) -> Result<(), C::Error> {
        match &mut self.codec {
            Some(codec) => codec.encode(item, self.output),
            None => Ok(()), // It is closing before it was open.
        }
    }
}

impl<'a, F: FrameHandler> FramedConn<'a, F> {
    /// Sends a frame. Like all output, it leaves when the callback is over.
    ///
    /// `Ok` says that the codec made a frame, and not that there was room for it: what goes beyond
    /// the [`output_cap`](crate::Builder::output_cap) is dropped and closes the connection. Where
    /// frames are long or many, look at [`Output::room`] or [`Output::pending`] first, and go on in
    /// [`FrameHandler::on_low_water`].
    ///
    /// # Errors
    /// The codec can't make a frame of it. Nothing was written.
    #[inline]
    pub fn send(
        &mut self,
        item: <F::Codec as Codec>::Item<'_>,
    ) -> Result<(), <F::Codec as Codec>::Error> {
        self.split().0.send(item)
    }

    /// The connection's codec with its output, and the handler's state: they borrow separately, so
    /// that what is in the state can be sent.
    ///
    /// ```
    /// use millstream::codec::{FrameHandler, FramedConn, Lines};
    /// use millstream::Action;
    ///
    /// /// Replies to a line with the line before it.
    /// struct Previous;
    ///
    /// impl FrameHandler for Previous {
    ///     type Codec = Lines;
    ///     type State = Vec<u8>;
    ///
    ///     fn codec(&self) -> Lines {
    ///         Lines::new()
    ///     }
    ///
    ///     fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: &[u8]) -> Action {
    ///         let (mut encoder, previous) = conn.split();
    ///         let sent = encoder.send(previous);
    ///         previous.clear();
    ///         previous.extend_from_slice(line);
    ///         sent.into()
    ///     }
    /// }
    /// ```
    #[inline]
    pub fn split(&mut self) -> (Encoder<'_, 'a, F::Codec>, &mut F::State) {
        let FramedState { codec, state, .. } = &mut *self.state;
        (Encoder { codec: codec.as_mut(), output: &mut self.output }, state)
    }

    /// How long a frame of this connection may take, from now on: see [`Framed::frame_timeout`],
    /// which sets it for all connections. One that has begun has that time from now on. The first
    /// call allocates; a connection that is closing is not changed.
    pub fn set_frame_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        let timeout = timeout.into();
        let Some(terms) = self.control.own_terms() else { return };
        terms.frame_timeout = Some(timeout);
        self.control.end_frame();
        if let Some(timeout) = timeout
            && (self.codec_is_within_frame() || !self.input.is_empty())
        {
            self.control.begin_frame(timeout);
        }
    }

    #[inline]
    fn decode(&mut self) -> Result<Option<<F::Codec as Codec>::Frame<'a>>, ErrorOf<F>> {
        let Some(codec) = &mut self.state.codec else { return Ok(None) };
        match codec.decode(&mut self.input) {
            Ok(None) if self.state.ended => codec.decode_end(&mut self.input),
            decoded => decoded,
        }
    }

    /// Whether a part of a frame is neither unread nor served.
    #[inline]
    fn codec_is_within_frame(&self) -> bool {
        self.state.codec.as_ref().is_some_and(Codec::is_within_frame)
    }

    /// Whether a frame may be served now.
    #[inline]
    fn takes_frames(&self) -> bool {
        self.control.status.goes_on() && !self.is_reading_paused() && !self.is_flooded()
    }
}

impl<F: FrameHandler> EventHandler for Framed<F> {
    type State = FramedState<F>;

    const TAKES_DATAGRAMS: bool = F::TAKES_DATAGRAMS;

    #[inline]
    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.serve_now(conn)
    }

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.state.codec = Some(self.handler.codec());
        self.handler.on_open(conn)
    }

    fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.state.ended = true;
        self.serve_now(conn)
    }

    fn on_low_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        match self.handler.on_low_water(conn) {
            Action::Continue => self.serve_now(conn),
            action => action,
        }
    }

    fn on_high_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.handler.on_high_water(conn)
    }

    fn on_tls(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        // A part of a frame that came without TLS is no part of one that comes with it.
        conn.state.codec = Some(self.handler.codec());
        match self.handler.on_tls(conn) {
            Action::Continue => self.serve_now(conn),
            action => action,
        }
    }

    fn on_timer(&mut self, conn: &mut Conn<'_, Self>, timer: TimerId, value: u64) -> Action {
        self.handler.on_timer(conn, timer, value)
    }

    fn on_closing(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.handler.on_closing(conn, reason);
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.handler.on_close(conn, reason);
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        self.handler.on_datagram(socket, datagram)
    }

    fn on_datagram_error(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        error: &io::Error,
    ) -> Action {
        self.handler.on_datagram_error(socket, error)
    }

    fn on_datagram_closing(&mut self, socket: &mut DatagramSocket<'_, Self>, reason: &CloseReason) {
        self.handler.on_datagram_closing(socket, reason);
    }

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        self.handler.on_boot(reactor)
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        self.handler.on_tick(reactor)
    }

    fn on_reactor_timer(
        &mut self,
        reactor: &mut Reactor<'_, Self>,
        timer: TimerId,
        value: u64,
    ) -> ReactorAction {
        self.handler.on_reactor_timer(reactor, timer, value)
    }

    fn on_shutdown(&mut self, reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        self.handler.on_shutdown(reactor)
    }

    fn on_drain(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.handler.on_drain(conn)
    }

    fn go_on(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.state.is_due = false;
        self.serve(conn)
    }
}

impl<F> Deref for Framed<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.handler
    }
}

impl<F> DerefMut for Framed<F> {
    fn deref_mut(&mut self) -> &mut F {
        &mut self.handler
    }
}

impl<F: FrameHandler> Default for FramedState<F> {
    fn default() -> Self {
        let (ended, part_taken, is_due) = (false, false, false);
        FramedState { codec: None, ended, part_taken, is_due, state: F::State::default() }
    }
}

impl<F: FrameHandler> Deref for FramedState<F> {
    type Target = F::State;

    fn deref(&self) -> &F::State {
        &self.state
    }
}

impl<F: FrameHandler> DerefMut for FramedState<F> {
    fn deref_mut(&mut self) -> &mut F::State {
        &mut self.state
    }
}
