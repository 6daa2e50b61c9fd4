//! Other connections of the same reactor, as callbacks reach them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::vec;

use bytes::Bytes;
use millstream_platform::driver::Token;

use super::conn::{Conn, OtherReactor};
use super::mailbox::Order;
use super::reactors::Reactors;
use super::{Action, EventHandler};
use crate::base::ConnId;

/// How many requests' places are kept when all are done.
const KEPT: usize = 1024;

/// The other connections of a reactor, reached from its callbacks by their [`ConnId`]s: without
/// [`Send`], without a handle for each, and without a copy of the bytes for each.
/// [`Conn::neighbours`], [`Reactor::neighbours`](crate::Reactor::neighbours) and
/// [`DatagramSocket::neighbours`](crate::DatagramSocket::neighbours) return it.
///
/// What a callback asks here is done after it returned and what it wrote itself was dealt with, in
/// the order in which it was asked, before the next event; what the callbacks ask that this calls
/// comes a round later, after a few events. If it takes longer than the
/// [`turn_time`](crate::Builder::turn_time), the rest comes with the next turns, and before it is
/// done nothing is received or accepted, inboxes and timers wait, and only what is there is sent.
/// It is done even if the callback panicked. Bytes that are written to a connection many times in a
/// turn leave together, at the end of the turn.
///
/// - For a connection that is **closing or gone** nothing is done, but that
///   [`close_now`](Self::close_now) ends one that is closing.
/// - The connection **of the callback itself** is one like the others.
/// - A connection of **another reactor** is asked as by a [`Remote`](crate::Remote), through that
///   reactor's inbox, but for [`run`](Self::run). Where many are there, one closure of
///   [`Reactors::run`] that asks the neighbours there costs less.
/// - What is asked by a `Remote` comes later: it waits in the inbox, even if the same callback
///   asked it before.
/// - The id must be of this engine. That of another one may name any connection, or none.
///
/// ```
/// use bytes::Bytes;
/// use millstream::{Action, CloseReason, Conn, ConnId, EventHandler};
///
/// /// What one says, all on the same reactor hear.
/// #[derive(Default)]
/// struct Room {
///     members: Vec<ConnId>,
/// }
///
/// impl EventHandler for Room {
///     type State = ();
///
///     fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
///         self.members.push(conn.id());
///         Action::Continue
///     }
///
///     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
///         let said = Bytes::copy_from_slice(conn.input.take_all());
///         conn.neighbours().write_to_all(self.members.iter().copied(), said);
///         Action::Continue
///     }
///
///     fn on_closing(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
///         self.members.retain(|member| *member != conn.id());
///     }
/// }
/// ```
#[doc(alias("broadcast", "neighbors", "publish"))]
pub struct Neighbours<H: EventHandler> {
    reactor: u32,
    reactors: Reactors<H>,
    /// What is to be done, in this order.
    requests: RefCell<VecDeque<NeighbourOrder<H>>>,
}

/// What is asked of connections of the own reactor.
pub(crate) enum NeighbourOrder<H: EventHandler> {
    Write { to: Token, others: vec::IntoIter<Token>, bytes: Bytes },
    Order(Token, Order<H>),
    Run(Token, NeighbourClosure<H>),
}

pub(crate) type NeighbourClosure<H> = Box<dyn FnOnce(&mut H, &mut Conn<'_, H>) -> Action>;

impl<H: EventHandler> Neighbours<H> {
    pub(crate) fn new(reactor: u32, reactors: Reactors<H>) -> Self {
        Neighbours { reactor, reactors, requests: RefCell::default() }
    }

    /// The reactor's index.
    pub(crate) fn reactor(&self) -> u32 {
        self.reactor
    }

    /// The reactors of the engine.
    pub(crate) fn reactors(&self) -> &Reactors<H> {
        &self.reactors
    }

    /// Writes bytes to a connection, as [`Output::write_bytes`](crate::Output::write_bytes) does:
    /// [`on_high_water`](EventHandler::on_high_water) runs if that is too much for it, and what is
    /// beyond its [`output_cap`](crate::Builder::output_cap) closes it.
    pub fn write(&self, id: ConnId, bytes: impl Into<Bytes>) {
        self.write_to_all([id], bytes);
    }

    /// Writes the same bytes to all of these connections, as [`write`](Self::write) does to one.
    /// That costs little more for each than finding it and copying small bytes; larger ones are
    /// shared.
    #[doc(alias = "broadcast")]
    pub fn write_to_all(&self, ids: impl IntoIterator<Item = ConnId>, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let ids = ids.into_iter();
        let mut first = None;
        let mut others = Vec::with_capacity(ids.size_hint().0.saturating_sub(1));
        for id in ids {
            if !self.is_here(id) {
                self.ask_elsewhere(id, Order::Write { bytes: bytes.clone(), done: None });
            } else if first.is_none() {
                first = Some(id.token);
            } else {
                others.push(id.token);
            }
        }
        if let Some(to) = first {
            self.ask(NeighbourOrder::Write { to, others: others.into_iter(), bytes });
        }
    }

    /// Closes a connection once its output is flushed, as [`Conn::close`] does.
    pub fn close(&self, id: ConnId) {
        self.order(id, Order::Close { done: None });
    }

    /// Closes a connection at the end of this turn, as [`Conn::close_now`] does: if something waits
    /// to be sent, the peer gets a reset. That goes for one that is closing already, too.
    pub fn close_now(&self, id: ConnId) {
        self.order(id, Order::CloseNow);
    }

    /// Calls [`EventHandler::on_traffic`] of a connection, with whatever is unread.
    pub fn wake(&self, id: ConnId) {
        self.order(id, Order::Wake);
    }

    /// Runs a closure with the handler and a connection, as a callback like all others. A panic in
    /// it closes that connection.
    ///
    /// # Errors
    /// The connection is another reactor's, where only what is [`Send`] can run:
    /// [`Remote::run`](crate::Remote::run) does that. The closure is dropped.
    pub fn run(
        &self,
        id: ConnId,
        closure: impl FnOnce(&mut H, &mut Conn<'_, H>) -> Action + 'static,
    ) -> Result<(), OtherReactor> {
        if !self.is_here(id) {
            return Err(OtherReactor { reactor: self.reactor as usize, connection: id });
        }
        self.ask(NeighbourOrder::Run(id.token, Box::new(closure)));
        Ok(())
    }

    fn order(&self, id: ConnId, order: Order<H>) {
        if self.is_here(id) {
            self.ask(NeighbourOrder::Order(id.token, order));
        } else {
            self.ask_elsewhere(id, order);
        }
    }

    fn is_here(&self, id: ConnId) -> bool {
        id.reactor == self.reactor
    }

    pub(crate) fn ask(&self, request: NeighbourOrder<H>) {
        self.requests.borrow_mut().push_back(request);
    }

    /// Asks by the inbox. What can't be done any more is dropped there or here.
    fn ask_elsewhere(&self, id: ConnId, order: Order<H>) {
        if id.reactor() < self.reactors.len() {
            let _ = self.reactors.ask(id, order);
        }
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.requests.borrow().len()
    }

    /// Takes the next request.
    pub(crate) fn next(&self) -> Option<NeighbourOrder<H>> {
        let mut requests = self.requests.borrow_mut();
        let next = requests.pop_front();
        if requests.is_empty() {
            requests.shrink_to(KEPT);
        }
        next
    }

    /// Puts back what is left of a request: it is the next one.
    pub(crate) fn put_back(&self, request: NeighbourOrder<H>) {
        self.requests.borrow_mut().push_front(request);
    }
}

impl<H: EventHandler> fmt::Debug for Neighbours<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbours").field("reactor", &self.reactor).finish()
    }
}
