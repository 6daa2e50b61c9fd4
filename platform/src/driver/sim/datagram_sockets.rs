//! The driver's sockets for datagrams.

use std::io::{self, ErrorKind};

use socket2::SockRef;

use super::datagrams::SimDatagrams;
use super::network::SimNetwork;
use super::notice::{DATAGRAM_COST, Notice, on_the_network};
use super::peer::SimSocket;
use super::wire::Wire;
use crate::address::Address;
use crate::driver::slots::Slots;
use crate::driver::{DatagramLink, Event, Token};
use crate::memory::DatagramQueue;

/// The driver's sockets for datagrams: all that may be touched while a datagram is borrowed.
pub(super) struct DatagramSockets {
    pub(super) network: SimNetwork,
    pub(super) table: Slots<DatagramSocket>,
    pub(super) write_budget: usize,
}

pub(super) struct DatagramSocket {
    pub(super) socket: SimDatagrams,
    /// How many bytes it may receive in this turn, and how many it may send.
    pub(super) left: usize,
    pub(super) left_to_send: usize,
    /// A flush left something.
    pub(super) waits_to_send: bool,
    /// Receiving has failed, and waits to be told to go on.
    pub(super) halted: bool,
}

impl DatagramSockets {
    /// Gives all of them the turn's budget.
    pub(super) fn refill(&mut self, read_budget: usize) {
        let write_budget = self.write_budget;
        for socket in self.table.values_mut() {
            (socket.left, socket.left_to_send) = (read_budget, write_budget);
        }
    }

    /// Adds those that have something to do.
    pub(super) fn find_news(&self, wire: &mut Wire, news: &mut Vec<Notice>) {
        let now = wire.now();
        for (token, socket) in self.table.iter() {
            let address = socket.socket.address();
            if !socket.halted && wire.datagrams().has_arrived(&address) {
                news.push(Notice::Datagram(token));
            }
            if socket.waits_to_send && !wire.datagrams().is_blocked(&address, now) {
                news.push(Notice::SendDatagrams(token));
            }
        }
    }

    pub(super) fn sent(&mut self, token: Token) -> Option<Event<SimSocket>> {
        let socket = self.table.get_mut(token)?;
        let waited = std::mem::take(&mut socket.waits_to_send);
        waited.then_some(Event::DatagramsSent { token })
    }
}

impl DatagramLink for DatagramSockets {
    fn flush_datagrams(&mut self, token: Token, queue: &mut DatagramQueue) -> io::Result<()> {
        let network = self.network.clone();
        let Some(socket) = self.table.get_mut(token) else {
            queue.drop_all();
            return Ok(());
        };
        let address = socket.socket.address();
        let mut wire = network.lock();
        loop {
            let Some((route, bytes)) = queue.iter().next() else { break };
            let now = wire.now();
            if let Some(pause) = wire.pause() {
                let until = wire.later(pause);
                wire.datagrams().block(&address, until);
            }
            if socket.left_to_send == 0 || wire.datagrams().is_blocked(&address, now) {
                socket.waits_to_send = true;
                return Ok(());
            }
            socket.left_to_send = socket.left_to_send.saturating_sub(bytes.len() + DATAGRAM_COST);
            let to = route.to.as_ref().map(on_the_network).transpose();
            match to.and_then(|to| socket.socket.send(&mut wire, to, route.from, bytes)) {
                Ok(()) => queue.note_sent(1),
                Err(error) => {
                    queue.drop_one();
                    return Err(error);
                }
            }
        }
        socket.waits_to_send = false;
        Ok(())
    }

    fn local_addr(&self, token: Token) -> io::Result<Address> {
        let socket = self.table.get(token);
        let address = socket.map(|socket| socket.socket.address().into());
        address.ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn socket(&self, _token: Token) -> Option<SockRef<'_>> {
        None
    }
}
