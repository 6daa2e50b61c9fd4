//! Several protocols on one engine, each with its own handler.
//!
//! - This file has [`Either`], a handler that consists of two, and what it does with a connection
//!   of which it does not know yet whose it is;
//! - `opening` is what that is decided by;
//! - `side` shows each of the two handlers its part of the engine.

mod opening;
mod side;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

pub use self::opening::Opening;
use self::side::{
    Half, Side, both, drain, open, reactors_of, with_conn, with_reactor, with_socket,
};
use crate::base::{CloseReason, TimerId};
use crate::handler::{
    Action, Conn, Datagram, DatagramSocket, EventHandler, Reactor, ReactorAction, Reactors,
    ShutdownAction,
};

/// In what time it is known whose a connection is.
const DECISION_TIMEOUT: Duration = Duration::from_secs(10);
/// With this many bytes it is known whose a connection is.
const MOST_BYTES: usize = 64;

/// Decides whose a connection is.
type Rule = dyn Fn(&Opening<'_>) -> Option<bool>;

/// Two handlers on one engine, each with its own connections: by the listener that they came in on,
/// by the protocol that was agreed on in TLS (ALPN), or by the first bytes.
///
/// The rule is asked when a connection opens, and again with each part of its first bytes until it
/// knows:
///
/// - `Some(true)`: it is the first handler's.
/// - `Some(false)`: it is the second's.
/// - `None`: it depends on bytes that are still to come. When the peer has ended its side or sent
///   64 bytes, it is the second handler's all the same; so the second one is that which tells a
///   peer what it understands. A peer that sends nothing is nobody's.
///
/// From then on the connection is like one of an engine that has that handler alone: `on_open`
/// comes, then what was received. What the handler reaches from there has its own type: its
/// [`Remote`](crate::Remote)s, [`Reactors`], [`Neighbours`](crate::Neighbours) and timers.
///
/// ```
/// use millstream::codec::{FrameHandler, Framed, FramedConn, Lines};
/// use millstream::{Action, Conn, Either, Engine, EventHandler, Opening};
///
/// /// Replies to lines.
/// struct Greeter;
///
/// impl FrameHandler for Greeter {
///     type Codec = Lines;
///     type State = ();
///
///     fn codec(&self) -> Lines {
///         Lines::new()
///     }
///
///     fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, name: &[u8]) -> Action {
///         conn.send(&[b"hello, ", name].concat()).into()
///     }
/// }
///
/// /// Sends everything back.
/// struct Echo;
///
/// impl EventHandler for Echo {
///     type State = ();
///
///     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
///         conn.output.write(conn.input.take_all());
///         Action::Continue
///     }
/// }
///
/// let engine = Engine::builder().listen("127.0.0.1:0").listen("127.0.0.1:0").start(|_reactor| {
///     Either::new(Echo, Framed::new(Greeter), |opening: &Opening<'_>| {
///         match opening.listener()?.index() {
///             0 => Some(true),                     // There all is sent back,
///             _ => opening.begins_with(&[b"ECHO"]), // and here what begins like this.
///         }
///     })
/// })?;
/// # use std::io::{Read, Write};
/// # for (listener, says, hears) in
/// #     [(0, "Ada\n", "Ada\n"), (1, "Ada\n", "hello, Ada\n"), (1, "ECHO\n", "ECHO\n")]
/// # {
/// #     let mut client = std::net::TcpStream::connect(engine.local_addrs()[listener])?;
/// #     client.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
/// #     client.write_all(says.as_bytes())?;
/// #     client.shutdown(std::net::Shutdown::Write)?;
/// #     let mut reply = String::new();
/// #     client.read_to_string(&mut reply)?;
/// #     assert_eq!(reply, hears);
/// # }
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// For three protocols the second handler is itself an `Either`. A protocol whose server speaks
/// first needs a listener to itself, or its own name in ALPN: its clients send nothing by which it
/// could be known.
///
/// # What both have in common
/// - `on_boot`, `on_tick` and `on_shutdown` come to both. They have one tick: that which was set
///   last.
/// - If one returns [`ShutdownAction::Drain`] and the other doesn't, the connections of the other
///   one close.
/// - Connections and sockets for datagrams are that handler's whose [`Reactors`] made them or took
///   them in, so use those of a handler ([`first`](Reactors::first), [`second`](Reactors::second)).
/// - A socket that listens for datagrams is one handler's by its listener; if the rule does not
///   know, the second's.
/// - A connection's id names it for both: either can write to it and close it. A closure of
///   [`Neighbours::run`](crate::Neighbours::run) is dropped if it is the other one's.
#[doc(alias("multiplexing", "cmux", "sniffing", "protocol detection"))]
pub struct Either<A: EventHandler, B: EventHandler> {
    first: Half<A>,
    second: Half<B>,
    rule: Box<Rule>,
    decision_timeout: Duration,
}

/// A connection's state under [`Either`]: that of its handler, once there is one.
pub struct EitherState<A: EventHandler, B: EventHandler>(Whose<A, B>);

enum Whose<A: EventHandler, B: EventHandler> {
    /// It is not known yet.
    Open {
        /// The engine stops.
        drains: bool,
    },
    First(A::State),
    Second(B::State),
}

impl<A: EventHandler, B: EventHandler> Either<A, B> {
    /// Both handlers, and what says whether a connection is the first one's.
    pub fn new(first: A, second: B, rule: impl Fn(&Opening<'_>) -> Option<bool> + 'static) -> Self {
        Either {
            first: Half::new(first),
            second: Half::new(second),
            rule: Box::new(rule),
            decision_timeout: DECISION_TIMEOUT,
        }
    }

    /// How long a peer may take to send the bytes by which it is known whose its connection is: it
    /// closes then, with [`CloseReason::FrameTimeout`]. By default 10 seconds.
    pub fn decision_timeout(mut self, timeout: Duration) -> Self {
        self.decision_timeout = timeout;
        self
    }

    /// Runs a callback of the handler that has a connection.
    #[inline]
    fn call<T: Default>(
        &mut self,
        conn: &mut Conn<'_, Self>,
        first: impl FnOnce(&mut A, &mut Conn<'_, A>) -> T,
        second: impl FnOnce(&mut B, &mut Conn<'_, B>) -> T,
    ) -> T {
        let outcome = match &conn.state.0 {
            Whose::Open { .. } => None,
            Whose::First(_) => with_conn::<First<A, B>, _>(self, conn, first),
            Whose::Second(_) => with_conn::<Second<A, B>, _>(self, conn, second),
        };
        outcome.unwrap_or_default()
    }

    /// Runs a callback without a connection of each handler.
    fn call_both<T>(
        &mut self,
        reactor: &mut Reactor<'_, Self>,
        first: impl FnOnce(&mut A, &mut Reactor<'_, A>) -> T,
        second: impl FnOnce(&mut B, &mut Reactor<'_, B>) -> T,
    ) -> (T, T) {
        let first = with_reactor::<First<A, B>, _>(self, reactor, first);
        (first, with_reactor::<Second<A, B>, _>(self, reactor, second))
    }

    /// Runs a callback of the handler that has a socket for datagrams.
    fn call_with_socket<T>(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        first: impl FnOnce(&mut A, &mut DatagramSocket<'_, A>) -> T,
        second: impl FnOnce(&mut B, &mut DatagramSocket<'_, B>) -> T,
    ) -> T {
        let second_base = Second::<A, B>::base(socket.base);
        let is_first = match socket.entry.owner {
            Some(owner) => owner < second_base,
            None => (self.rule)(&Opening::of_socket(socket.listener())) == Some(true),
        };
        match is_first {
            true => with_socket::<First<A, B>, _>(self, socket, first),
            false => with_socket::<Second<A, B>, _>(self, socket, second),
        }
    }

    /// Decides whose a connection is, if that is known by now.
    fn decide(&mut self, conn: &mut Conn<'_, Self>, is_last: bool) -> Option<Action> {
        let is_first = (self.rule)(&Opening::of_conn(conn));
        let is_last = is_last || conn.input.len() >= MOST_BYTES;
        match is_first.or(is_last.then_some(false))? {
            true => Some(open::<First<A, B>>(self, conn)),
            false => Some(open::<Second<A, B>>(self, conn)),
        }
    }

    /// Bytes came of a connection of which it is not known whose it is.
    #[cold]
    fn look(&mut self, conn: &mut Conn<'_, Self>, is_last: bool) -> Action {
        let Some(opened) = self.decide(conn, is_last) else { return Action::Continue };
        if opened == Action::Close || conn.is_closing() || conn.input.is_empty() {
            return opened;
        }
        if conn.is_reading_paused() && !is_last {
            conn.hold_input(true); // For when it resumes.
            return opened;
        }
        let delivered = self.call(conn, A::on_traffic, B::on_traffic);
        both(conn, opened, delivered)
    }
}

/// What its handlers are reached by.
impl<A: EventHandler, B: EventHandler> Reactors<Either<A, B>> {
    /// The reactors as the first handler has them.
    pub fn first(&self) -> Reactors<A> {
        reactors_of::<First<A, B>>(self)
    }

    /// The reactors as the second handler has them.
    pub fn second(&self) -> Reactors<B> {
        reactors_of::<Second<A, B>>(self)
    }
}

impl<A: EventHandler, B: EventHandler> EventHandler for Either<A, B> {
    const TAKES_DATAGRAMS: bool = A::TAKES_DATAGRAMS || B::TAKES_DATAGRAMS;
    const HANDLERS: u32 = A::HANDLERS + B::HANDLERS;

    type State = EitherState<A, B>;

    #[inline]
    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        match &conn.state.0 {
            Whose::Open { .. } => self.look(conn, false),
            _ => self.call(conn, A::on_traffic, B::on_traffic),
        }
    }

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        either_action(self.call_both(reactor, A::on_boot, B::on_boot))
    }

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        // What was not accepted is for the handler that asked for it, which comes next.
        if conn.listener().is_some()
            && let Some(action) = self.decide(conn, false)
        {
            return action;
        }
        conn.control.begin_frame(self.decision_timeout);
        Action::Continue
    }

    fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if let Whose::Open { .. } = conn.state.0 {
            if conn.input.is_empty() {
                return Action::Close;
            }
            let delivered = self.look(conn, true);
            if delivered != Action::Continue || conn.is_closing() {
                return delivered;
            }
        }
        self.call(conn, A::on_end, B::on_end)
    }

    fn on_high_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.call(conn, A::on_high_water, B::on_high_water)
    }

    fn on_low_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.call(conn, A::on_low_water, B::on_low_water)
    }

    fn on_tls(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.call(conn, A::on_tls, B::on_tls)
    }

    fn on_timer(&mut self, conn: &mut Conn<'_, Self>, timer: TimerId, value: u64) -> Action {
        self.call(
            conn,
            |first, conn| first.on_timer(conn, timer, value),
            |second, conn| second.on_timer(conn, timer, value),
        )
    }

    fn on_closing(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.call(
            conn,
            |first, conn| first.on_closing(conn, reason),
            |second, conn| second.on_closing(conn, reason),
        );
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.call(
            conn,
            |first, conn| first.on_close(conn, reason),
            |second, conn| second.on_close(conn, reason),
        );
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        self.call_with_socket(
            socket,
            |first, socket| first.on_datagram(socket, datagram),
            |second, socket| second.on_datagram(socket, datagram),
        )
    }

    fn on_datagram_error(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        error: &io::Error,
    ) -> Action {
        self.call_with_socket(
            socket,
            |first, socket| first.on_datagram_error(socket, error),
            |second, socket| second.on_datagram_error(socket, error),
        )
    }

    fn on_datagram_closing(&mut self, socket: &mut DatagramSocket<'_, Self>, reason: &CloseReason) {
        self.call_with_socket(
            socket,
            |first, socket| first.on_datagram_closing(socket, reason),
            |second, socket| second.on_datagram_closing(socket, reason),
        );
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        either_action(self.call_both(reactor, A::on_tick, B::on_tick))
    }

    fn on_reactor_timer(
        &mut self,
        reactor: &mut Reactor<'_, Self>,
        timer: TimerId,
        value: u64,
    ) -> ReactorAction {
        match reactor.owner < Second::<A, B>::base(reactor.base) {
            true => with_reactor::<First<A, B>, _>(self, reactor, |first, reactor| {
                first.on_reactor_timer(reactor, timer, value)
            }),
            false => with_reactor::<Second<A, B>, _>(self, reactor, |second, reactor| {
                second.on_reactor_timer(reactor, timer, value)
            }),
        }
    }

    fn on_shutdown(&mut self, reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        let (first, second) = self.call_both(reactor, A::on_shutdown, B::on_shutdown);
        if first == ShutdownAction::Drain || second == ShutdownAction::Drain {
            self.first.closes = first == ShutdownAction::Close;
            self.second.closes = second == ShutdownAction::Close;
            return ShutdownAction::Drain;
        }
        ShutdownAction::Close
    }

    fn on_drain(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let is_silent = conn.listener().is_some() && conn.input.is_empty();
        match &mut conn.state.0 {
            Whose::Open { .. } if is_silent => Action::Close,
            Whose::Open { drains } => {
                *drains = true;
                Action::Continue
            }
            Whose::First(_) => drain::<First<A, B>>(self, conn),
            Whose::Second(_) => drain::<Second<A, B>>(self, conn),
        }
    }

    fn go_on(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.call(conn, A::go_on, B::go_on)
    }
}

/// What two handlers ask of the engine together.
fn either_action(actions: (ReactorAction, ReactorAction)) -> ReactorAction {
    match actions {
        (ReactorAction::Continue, second) => second,
        (first, _) => first,
    }
}

/// The side of the first handler.
struct First<A, B>(PhantomData<fn() -> (A, B)>);

/// The side of the second handler.
struct Second<A, B>(PhantomData<fn() -> (A, B)>);

impl<A: EventHandler, B: EventHandler> Side for First<A, B> {
    type Handler = A;
    type Pair = Either<A, B>;

    fn base(base: u32) -> u32 {
        base
    }

    fn half(pair: &mut Either<A, B>) -> &mut Half<A> {
        &mut pair.first
    }

    fn state(state: &mut EitherState<A, B>) -> Option<&mut A::State> {
        match &mut state.0 {
            Whose::First(state) => Some(state),
            _ => None,
        }
    }

    fn begin(state: &mut EitherState<A, B>) -> bool {
        state.settle(Whose::First(A::State::default()))
    }
}

impl<A: EventHandler, B: EventHandler> Side for Second<A, B> {
    type Handler = B;
    type Pair = Either<A, B>;

    fn base(base: u32) -> u32 {
        base + A::HANDLERS
    }

    fn half(pair: &mut Either<A, B>) -> &mut Half<B> {
        &mut pair.second
    }

    fn state(state: &mut EitherState<A, B>) -> Option<&mut B::State> {
        match &mut state.0 {
            Whose::Second(state) => Some(state),
            _ => None,
        }
    }

    fn begin(state: &mut EitherState<A, B>) -> bool {
        state.settle(Whose::Second(B::State::default()))
    }
}

impl<A: EventHandler, B: EventHandler> EitherState<A, B> {
    /// It is known whose it is; returns whether the engine drains the connection.
    fn settle(&mut self, whose: Whose<A, B>) -> bool {
        matches!(std::mem::replace(&mut self.0, whose), Whose::Open { drains: true })
    }
}

impl<A: EventHandler, B: EventHandler> Default for EitherState<A, B> {
    fn default() -> Self {
        EitherState(Whose::Open { drains: false })
    }
}

impl<A, B> fmt::Debug for Either<A, B>
where
    A: EventHandler + fmt::Debug,
    B: EventHandler + fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Either")
            .field("first", &self.first.handler)
            .field("second", &self.second.handler)
            .finish_non_exhaustive()
    }
}
