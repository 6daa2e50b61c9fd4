//! One of the two handlers of an [`Either`](super::Either): its part of what the engine shows to
//! both, and of what it asks of the engine.
//!
//! A connection is the same for the engine and for the handler, but for the type of its state; so a
//! callback borrows it under its handler's type. What a handler asks for that has its type, such as
//! a closure, is wrapped into one that has the pair's.

use std::cell::OnceCell;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::rc::Rc;

use crate::base::Stopped;
use crate::config::{AdoptError, ConnectError};
use crate::handler::{
    Action, Change, Command, Conn, Control, DatagramOrder, DatagramSocket, Done, EventHandler,
    Input, NeighbourOrder, Neighbours, Opened, Order, Post, Reactor, Reactors, Status,
};
use crate::unwind::catch;

/// What tells the two sides apart.
pub(super) trait Side: 'static {
    /// The side's handler.
    type Handler: EventHandler;
    /// Both of them.
    type Pair: EventHandler;

    /// The number of its first handler, where the pair's first one has `base`.
    fn base(base: u32) -> u32;

    fn half(pair: &mut Self::Pair) -> &mut Half<Self::Handler>;

    /// The state of a connection, if it is this side's.
    fn state(state: &mut StateOf<Self::Pair>) -> Option<&mut StateOf<Self::Handler>>;

    /// Makes a connection this side's; returns whether the engine has begun to drain it before.
    fn begin(state: &mut StateOf<Self::Pair>) -> bool;
}

type StateOf<H> = <H as EventHandler>::State;

/// A handler, and what it is given in place of what the engine has for both.
pub(super) struct Half<H: EventHandler> {
    pub(super) handler: H,
    neighbours: OnceCell<Rc<Neighbours<H>>>,
    /// Its connections close when the engine stops, and the other handler's don't.
    pub(super) closes: bool,
}

impl<H: EventHandler> Half<H> {
    pub(super) fn new(handler: H) -> Self {
        Half { handler, neighbours: OnceCell::new(), closes: false }
    }

    /// The handler, and the neighbours that it sees.
    fn split<S: Side<Handler = H>>(
        &mut self,
        pair: &Neighbours<S::Pair>,
    ) -> (&mut H, &Rc<Neighbours<H>>) {
        let make = || {
            let reactors = Reactors::through(Through::<S>(pair.reactors().clone()));
            Rc::new(Neighbours::new(pair.reactor(), reactors))
        };
        (&mut self.handler, self.neighbours.get_or_init(make))
    }
}

/// Runs a callback with a connection; `None` if it is not this side's.
#[inline]
pub(super) fn with_conn<S: Side, T>(
    pair: &mut S::Pair,
    conn: &mut Conn<'_, S::Pair>,
    callback: impl FnOnce(&mut S::Handler, &mut Conn<'_, S::Handler>) -> T,
) -> Option<T> {
    with_conn_and_neighbours::<S, T>(pair, conn, |handler, conn, _| callback(handler, conn))
}

#[inline]
fn with_conn_and_neighbours<S: Side, T>(
    pair: &mut S::Pair,
    conn: &mut Conn<'_, S::Pair>,
    callback: impl FnOnce(&mut S::Handler, &mut Conn<'_, S::Handler>, &Rc<Neighbours<S::Handler>>) -> T,
) -> Option<T> {
    let of_pair = conn.control.neighbours;
    let (handler, neighbours) = S::half(pair).split::<S>(of_pair);
    let _passing = Passing::<S> { from: neighbours, to: of_pair };
    let mut shown = Shown {
        conn: Conn {
            state: S::state(conn.state)?,
            input: conn.input.clone(),
            output: conn.output.reborrow(),
            control: Control {
                token: conn.control.token,
                status: conn.control.status,
                common: conn.control.common,
                neighbours,
            },
        },
        input: &mut conn.input,
    };
    let outcome = callback(handler, &mut shown.conn, neighbours);
    drop(shown);
    pass_detach::<S>(conn.control.status);
    Some(outcome)
}

/// A connection as a side's handler sees it. What that has taken is taken, also after a panic.
struct Shown<'s, 'a, H: EventHandler> {
    conn: Conn<'s, H>,
    input: &'s mut Input<'a>,
}

impl<H: EventHandler> Drop for Shown<'_, '_, H> {
    #[inline]
    fn drop(&mut self) {
        self.input.skip(self.conn.input.taken().saturating_sub(self.input.taken()));
    }
}

/// Runs a callback with the reactor.
pub(super) fn with_reactor<S: Side, T>(
    pair: &mut S::Pair,
    reactor: &mut Reactor<'_, S::Pair>,
    callback: impl FnOnce(&mut S::Handler, &mut Reactor<'_, S::Handler>) -> T,
) -> T {
    let (handler, neighbours) = S::half(pair).split::<S>(reactor.neighbours);
    let _passing = Passing::<S> { from: neighbours, to: reactor.neighbours };
    callback(handler, &mut shown_reactor::<S>(reactor, neighbours))
}

/// Runs a callback with a socket for datagrams.
pub(super) fn with_socket<S: Side, T>(
    pair: &mut S::Pair,
    socket: &mut DatagramSocket<'_, S::Pair>,
    callback: impl FnOnce(&mut S::Handler, &mut DatagramSocket<'_, S::Handler>) -> T,
) -> T {
    let of_pair = socket.neighbours;
    let (handler, neighbours) = S::half(pair).split::<S>(of_pair);
    let _passing = Passing::<S> { from: neighbours, to: of_pair };
    callback(handler, &mut shown_socket::<S>(socket, neighbours))
}

fn shown_reactor<'s, S: Side>(
    reactor: &'s mut Reactor<'_, S::Pair>,
    neighbours: &'s Rc<Neighbours<S::Handler>>,
) -> Reactor<'s, S::Handler> {
    Reactor {
        index: reactor.index,
        connections: reactor.connections,
        now: reactor.now,
        neighbours,
        engine: reactor.engine,
        tick: reactor.tick,
        timers: reactor.timers,
        base: S::base(reactor.base),
        owner: reactor.owner,
        not_send: PhantomData,
    }
}

fn shown_socket<'s, S: Side>(
    socket: &'s mut DatagramSocket<'_, S::Pair>,
    neighbours: &'s Rc<Neighbours<S::Handler>>,
) -> DatagramSocket<'s, S::Handler> {
    DatagramSocket {
        token: socket.token,
        reactor: socket.reactor,
        entry: socket.entry,
        queues: socket.queues,
        link: socket.link,
        common: socket.common,
        neighbours,
        base: S::base(socket.base),
        engine: socket.engine,
        counters: socket.counters,
        cap: socket.cap,
    }
}

/// Makes a connection this side's, and tells its handler.
pub(super) fn open<S: Side>(pair: &mut S::Pair, conn: &mut Conn<'_, S::Pair>) -> Action {
    let drains = S::begin(conn.state);
    conn.control.end_frame();
    let opened = with_conn::<S, _>(pair, conn, S::Handler::on_open);
    match opened.unwrap_or_default() {
        Action::Continue if drains && !conn.is_closing() => drain::<S>(pair, conn),
        action => action,
    }
}

/// Has a side's connection end because the engine stops.
pub(super) fn drain<S: Side>(pair: &mut S::Pair, conn: &mut Conn<'_, S::Pair>) -> Action {
    if S::half(pair).closes {
        return Action::Close;
    }
    with_conn::<S, _>(pair, conn, S::Handler::on_drain).unwrap_or_default()
}

/// What an earlier and a later callback of a connection ask for together.
pub(super) fn both<H: EventHandler>(
    conn: &mut Conn<'_, H>,
    earlier: Action,
    later: Action,
) -> Action {
    match (earlier, later) {
        (Action::Shutdown, Action::Close) => {
            conn.close();
            Action::Shutdown
        }
        (Action::Continue, later) => later,
        (earlier, _) => earlier,
    }
}

/// Passes on what a handler has asked of other connections, also after a panic.
struct Passing<'a, S: Side> {
    from: &'a Neighbours<S::Handler>,
    to: &'a Neighbours<S::Pair>,
}

impl<S: Side> Drop for Passing<'_, S> {
    #[inline]
    fn drop(&mut self) {
        if self.from.waiting() > 0 {
            pass_requests::<S>(self.from, self.to);
        }
    }
}

#[cold]
fn pass_requests<S: Side>(from: &Neighbours<S::Handler>, to: &Neighbours<S::Pair>) {
    while let Some(request) = from.next() {
        to.ask(match request {
            NeighbourOrder::Write { to, others, bytes } => {
                NeighbourOrder::Write { to, others, bytes }
            }
            NeighbourOrder::Order(token, order) => {
                NeighbourOrder::Order(token, of_pair::<S>(order))
            }
            NeighbourOrder::Run(token, closure) => NeighbourOrder::Run(
                token,
                Box::new(move |pair, conn| {
                    with_conn::<S, _>(pair, conn, closure).unwrap_or_default()
                }),
            ),
        });
    }
}

/// Has the pair asked to detach a connection if the handler was.
#[inline]
fn pass_detach<S: Side>(status: &mut Status) {
    if status.change != Some(Change::Detach) {
        return;
    }
    let extras = status.extras();
    if let Some(then) = extras.take_detach::<S::Handler>() {
        extras.set_detach::<S::Pair>(Box::new(move |pair, reactor, detached| {
            with_reactor::<S, _>(pair, reactor, |handler, reactor| then(handler, reactor, detached))
        }));
    }
}

/// The way from other threads to a side's handler.
struct Through<S: Side>(Reactors<S::Pair>);

impl<S: Side> Post<S::Handler> for Through<S> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn engine(&self) -> *const () {
        self.0.engine()
    }

    fn post(&self, reactor: usize, command: Command<S::Handler>) -> Result<(), Stopped> {
        self.0.post(reactor, command_of_pair::<S>(command))
    }
}

/// The reactors as a side's handler knows them.
pub(super) fn reactors_of<S: Side>(pair: &Reactors<S::Pair>) -> Reactors<S::Handler> {
    Reactors::through(Through::<S>(pair.clone()))
}

fn command_of_pair<S: Side>(command: Command<S::Handler>) -> Command<S::Pair> {
    match command {
        Command::Connection { token, order } => {
            Command::Connection { token, order: of_pair::<S>(order) }
        }
        Command::Reactor(closure) => Command::Reactor(Box::new(move |pair, reactor| {
            with_reactor::<S, _>(pair, reactor, closure)
        })),
        Command::Connect { connect, done } => {
            let to = connect.to.clone();
            let done = done_of_pair::<S, _>(done, || ConnectError::Closed { to });
            Command::Connect { connect, done }
        }
        Command::Resolved { attempt, addresses } => Command::Resolved { attempt, addresses },
        Command::Adopt { socket, done } => {
            Command::Adopt { socket, done: done_of_pair::<S, _>(done, || AdoptError::Closed) }
        }
        Command::Datagrams { token, order } => {
            Command::Datagrams { token, order: datagrams_of_pair::<S>(order) }
        }
        Command::OpenDatagram { how, done } => {
            Command::OpenDatagram { how, done: opened_of_pair::<S>(done) }
        }
        Command::AdoptDatagram { socket, done } => {
            Command::AdoptDatagram { socket, done: opened_of_pair::<S>(done) }
        }
    }
}

fn of_pair<S: Side>(order: Order<S::Handler>) -> Order<S::Pair> {
    match order {
        Order::Write { bytes, done } => Order::Write { bytes, done },
        Order::Wake => Order::Wake,
        Order::Watch => Order::Watch,
        Order::Relay { to } => Order::Relay { to },
        Order::Close { done } => Order::Close { done },
        Order::CloseNow => Order::CloseNow,
        Order::Run { closure, done } => Order::Run {
            closure: Box::new(move |pair, conn| {
                with_conn::<S, _>(pair, conn, closure).unwrap_or_default()
            }),
            done,
        },
    }
}

fn datagrams_of_pair<S: Side>(order: DatagramOrder<S::Handler>) -> DatagramOrder<S::Pair> {
    match order {
        DatagramOrder::Send { to, bytes } => DatagramOrder::Send { to, bytes },
        DatagramOrder::Close => DatagramOrder::Close,
        DatagramOrder::Run { closure, done } => DatagramOrder::Run {
            closure: Box::new(move |pair, socket| with_socket::<S, _>(pair, socket, closure)),
            done,
        },
    }
}

/// A socket for datagrams that a side opens is its own.
fn opened_of_pair<S: Side>(done: Opened<S::Handler>) -> Opened<S::Pair> {
    Box::new(move |pair, reactor, opened| {
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                return with_reactor::<S, _>(pair, reactor, |handler, reactor| {
                    done(handler, reactor, Err(error))
                });
            }
        };
        socket.entry.owner = Some(S::base(socket.base));
        let (handler, neighbours) = S::half(pair).split::<S>(reactor.neighbours);
        let _passing = Passing::<S> { from: neighbours, to: reactor.neighbours };
        let mut reactor = shown_reactor::<S>(reactor, neighbours);
        done(handler, &mut reactor, Ok(&mut shown_socket::<S>(socket, neighbours)))
    })
}

/// A connection that a side makes or takes in is its own: it is told of it when `done` would be,
/// and the pair has waited for that.
fn done_of_pair<S: Side, E: 'static>(
    done: Done<S::Handler, E>,
    closed: impl FnOnce() -> E + Send + 'static,
) -> Done<S::Pair, E> {
    Box::new(move |pair, reactor, outcome| {
        let mut fail = |pair, done: Done<S::Handler, E>, error| {
            with_reactor::<S, _>(pair, reactor, |handler, reactor| {
                done(handler, reactor, Err(error))
            })
        };
        let conn = match outcome {
            Ok(conn) => conn,
            Err(error) => return fail(pair, done, error),
        };
        let Ok(opened) = catch(|| open::<S>(pair, conn)) else {
            let _ = fail(pair, done, closed());
            resume_unwind(Box::new("a callback panicked"));
        };
        if opened == Action::Close || conn.is_closing() {
            let later = fail(pair, done, closed());
            let action = both(conn, opened, later);
            return both(conn, action, Action::Close);
        }
        let shown = with_conn_and_neighbours::<S, _>(pair, conn, |handler, conn, neighbours| {
            done(handler, &mut shown_reactor::<S>(reactor, neighbours), Ok(conn))
        });
        both(conn, opened, shown.unwrap_or_default())
    })
}
