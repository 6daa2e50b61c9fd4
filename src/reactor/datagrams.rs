//! The reactor's sockets for datagrams.
//!
//! What callbacks send waits in the socket's queue, which is leased while something waits, until
//! the flush stage or until [`FLUSH_AT`] bytes wait. A socket that closes is deaf from then on,
//! which the handler is told, and gone when its queue is.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use millstream_platform::address::Address;
use millstream_platform::driver::{Datagram, Driver, Token};
use millstream_platform::memory::DatagramQueue;
use millstream_platform::socket::DatagramSocket as SystemSocket;

use super::{EventLoop, Served};
use crate::base::{CloseReason, Table};
use crate::config::{OpenDatagram, OpenError};
use crate::handler::{
    Action, Alarm, Command, DatagramEntry, DatagramOrder, DatagramSocket, EventHandler, Opened,
};
use crate::shared::OpenSocket;
use crate::unwind::catch;

/// What waits is sent before the flush stage once it takes this many bytes: enough for few calls,
/// and little enough to be still in the processor's caches.
const FLUSH_AT: usize = 32 * 1024;
/// How many unused queues are kept.
const QUEUES_KEPT: usize = 64;
/// A socket whose receiving fails again and again tries again after this time, then after twice
/// that, and so on up to the longest: what stays costs next to nothing, and what passes is noticed
/// soon.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many errors of a socket the handler is told in a second.
const ERRORS_PER_SECOND: u32 = 100;
/// What callbacks of this module are reported as.
const OPENED: &str = "Reactors::open_datagram";
const ADOPTED: &str = "Reactors::adopt_datagram";

/// The sockets of a reactor.
#[derive(Default)]
pub(super) struct Datagrams {
    pub(super) table: Table<DatagramEntry>,
    /// Unused queues.
    queues: Vec<DatagramQueue>,
    /// How many bytes of memory the queues hold that are used.
    pub(super) held: usize,
    /// Which are to be flushed in this turn.
    dirty: VecDeque<Token>,
}

impl Datagrams {
    /// Counts what a queue holds now.
    fn count_held(&mut self, token: Token) {
        let Some(entry) = self.table.get_mut(token) else { return };
        let held = entry.queue.as_ref().map_or(0, DatagramQueue::held);
        self.held = self.held - std::mem::replace(&mut entry.held, held) + held;
    }

    /// Takes back a queue that is not used any more.
    fn give_back(&mut self, queue: DatagramQueue) {
        if self.queues.len() < QUEUES_KEPT {
            self.queues.push(queue);
        }
    }

    /// Whether there is something to flush.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }
}

/// What a callback of a socket left to be done.
struct Asked {
    closes: bool,
    /// It sent something, or that failed.
    has_news: bool,
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Makes a socket, and tells what came of it.
    pub(super) fn open_datagram(&mut self, how: &OpenDatagram, done: Opened<H>) {
        let address = how.address();
        let opened = if self.draining {
            Err(OpenError::Stopped { address })
        } else {
            let bound = self.driver.bind_datagrams(&how.0, &self.config.options);
            let added = bound.and_then(|socket| self.add_datagrams(socket, how.0.peer, None));
            added.map_err(|source| OpenError::Failed { address, source })
        };
        self.tell_opened(opened, OPENED, done);
    }

    /// Takes a socket in that was made elsewhere, and tells what came of it.
    pub(super) fn adopt_datagram(&mut self, socket: OwnedFd, done: Opened<H>) {
        let opened = SystemSocket::adopt(socket).map_err(OpenError::Unusable);
        let opened = opened.and_then(|(socket, local, peer)| {
            let address = peer.unwrap_or(local);
            if self.draining {
                return Err(OpenError::Stopped { address });
            }
            let adopted = self.driver.adopt_datagrams(socket);
            let added = adopted.and_then(|socket| self.add_datagrams(socket, peer, None));
            added.map_err(|source| OpenError::Failed { address, source })
        });
        self.tell_opened(opened, ADOPTED, done);
    }

    fn tell_opened(
        &mut self,
        opened: Result<Token, OpenError>,
        callback: &'static str,
        done: Opened<H>,
    ) {
        match opened {
            Ok(token) => {
                self.show_reactor(|event_loop, reactor| {
                    event_loop.call_datagrams(token, callback, |handler, socket, _| {
                        done(handler, reactor, Ok(socket))
                    });
                });
            }
            Err(error) => {
                let action = self.call_without_connection(callback, |handler, reactor| {
                    done(handler, reactor, Err(error))
                });
                self.obey_action(action.unwrap_or_default());
            }
        }
    }

    /// Takes a socket in that is made already.
    pub(super) fn add_datagrams(
        &mut self,
        socket: D::DatagramSocket,
        peer: Option<Address>,
        open: Option<OpenSocket>,
    ) -> io::Result<Token> {
        let inserted = self.datagrams.table.insert_with(|_| DatagramEntry {
            local: peer.unwrap_or(([0, 0, 0, 0], 0).into()),
            peer,
            on_all_addresses: false,
            queue: None,
            remote: None,
            owner: None,
            closing: false,
            open,
            patience: None,
            resume: None,
            told: (0, 0),
            error: None,
            held: 0,
            dirty: false,
        });
        let token = inserted.expect("there are fewer sockets than descriptors");
        let opened = self.driver.open_datagrams(token, socket);
        let local = opened.and_then(|()| self.driver.datagram().1.local_addr(token));
        let entry = self.datagrams.table.get_mut(token).expect("it was just inserted");
        match local {
            Ok(local) => {
                entry.local = local;
                entry.on_all_addresses = local.ip().is_some_and(|ip| ip.is_unspecified());
                self.counters.datagram_sockets.set(self.datagrams.table.len() as u64);
                Ok(token)
            }
            Err(error) => {
                self.driver.close_datagrams(token);
                self.datagrams.table.remove(token);
                Err(error)
            }
        }
    }

    /// A datagram arrived.
    #[inline(never)]
    pub(super) fn receive_datagram(&mut self, token: Token) {
        self.call_datagrams(token, "on_datagram", |handler, socket, datagram| match datagram {
            Some(datagram) => {
                socket.counters.datagrams_in.add(1);
                socket.counters.bytes_in.add(datagram.bytes.len() as u64);
                socket.counters.datagrams_truncated.add(datagram.truncated.into());
                handler.on_datagram(socket, datagram)
            }
            None => Action::Continue,
        });
        let waiting = self.datagrams.table.get(token).and_then(|entry| entry.queue.as_ref());
        if waiting.is_some_and(|queue| queue.size() >= FLUSH_AT) {
            self.flush_datagrams(token);
        }
    }

    /// Receiving found an error.
    pub(super) fn datagram_failed(&mut self, token: Token, error: &io::Error, in_a_row: u32) {
        self.counters.datagram_errors.add(1);
        self.tell_datagram_error(token, error);
        // Usually one error is that of one datagram, and the others wait.
        let Some(doublings) = in_a_row.checked_sub(2) else {
            return self.driver.resume_datagrams(token);
        };
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        let at = self.common.clock.tick_after(self.driver.now(), pause.min(LONGEST_PAUSE));
        if let Some(entry) = self.datagrams.table.get_mut(token) {
            entry.resume = Some(self.common.timers.arm(at, Alarm::Receive(token)));
        }
    }

    /// Receives again where it has failed.
    pub(super) fn resume_datagrams(&mut self, token: Token) {
        if let Some(entry) = self.datagrams.table.get_mut(token) {
            entry.resume = None;
            self.driver.resume_datagrams(token);
        }
    }

    /// Tells the handler of an error, unless it was told of enough.
    fn tell_datagram_error(&mut self, token: Token, error: &io::Error) {
        let second = self.common.clock.tick() / 1000;
        let Some(entry) = self.datagrams.table.get_mut(token) else { return };
        if entry.told.0 != second {
            entry.told = (second, 0);
        }
        if entry.told.1 == ERRORS_PER_SECOND {
            return;
        }
        entry.told.1 += 1;
        self.call_datagrams(token, "on_datagram_error", |handler, socket, _| {
            handler.on_datagram_error(socket, error)
        });
    }

    /// Does what another thread asks of a socket.
    pub(super) fn obey_datagram_order(&mut self, token: Token, order: DatagramOrder<H>) {
        let open = self.datagrams.table.get(token).is_some_and(|entry| !entry.is_deaf());
        match order {
            _ if !open => self.discard(Command::Datagrams { token, order }),
            DatagramOrder::Close => self.begin_closing_datagrams(token),
            DatagramOrder::Run { closure, done } => {
                self.call_datagrams(token, "DatagramRemote::run", |handler, socket, _| {
                    closure(handler, socket)
                });
                if let Some(done) = done {
                    self.complete(done, Ok(()), token);
                }
            }
            DatagramOrder::Send { to, bytes } => {
                self.call_datagrams(token, "DatagramRemote::send", |_, socket, _| {
                    let sent = match to {
                        Some(to) => socket.send_to(&to, &bytes),
                        None => socket.send(&bytes),
                    };
                    if let Err(error) = sent {
                        tracing::debug!(%error, "a datagram was not sent");
                    }
                    Action::Continue
                });
            }
        }
    }

    /// Runs a callback of a socket and does what it asks for, but for sending. A panic is counted,
    /// and the socket stays in use: it serves other peers, too.
    fn call_datagrams(
        &mut self,
        token: Token,
        name: &'static str,
        callback: impl FnOnce(&mut H, &mut DatagramSocket<'_, H>, Option<Datagram<'_>>) -> Action,
    ) {
        match self.invoke_datagrams(token, false, name, callback) {
            Some(Asked { closes: true, .. }) => self.begin_closing_datagrams(token),
            Some(Asked { has_news: true, .. }) => self.mark_datagrams_dirty(token),
            _ => {}
        }
    }

    /// Runs a callback of a socket that is deaf or not, as it says, if there is one.
    #[inline(always)]
    fn invoke_datagrams(
        &mut self,
        token: Token,
        deaf: bool,
        name: &'static str,
        callback: impl FnOnce(&mut H, &mut DatagramSocket<'_, H>, Option<Datagram<'_>>) -> Action,
    ) -> Option<Asked> {
        let entry = self.datagrams.table.get_mut(token)?;
        if entry.is_deaf() != deaf {
            return None;
        }
        let (datagram, link) = self.driver.datagram();
        let mut socket = DatagramSocket {
            token,
            reactor: self.index as u32,
            entry,
            queues: &mut self.datagrams.queues,
            link,
            common: &self.common,
            neighbours: &self.neighbours,
            base: 0,
            engine: &self.engine,
            counters: &self.counters,
            cap: self.config.datagram_queue,
        };
        self.stalls.begin();
        let outcome = catch(|| callback(&mut self.handler, &mut socket, datagram));
        let stalled = self.stalls.end();
        let closes = entry.closing || matches!(outcome, Ok(Action::Close));
        let has_news = entry.queue.is_some() || entry.error.is_some();
        self.datagrams.count_held(token);
        if stalled {
            self.report_stall(name, Some(token));
        }
        match outcome {
            Ok(action) => self.obey_action(action),
            Err(_) => self.note_panic(name, Some(token)),
        }
        Some(Asked { closes, has_news })
    }

    pub(super) fn mark_datagrams_dirty(&mut self, token: Token) {
        let Some(entry) = self.datagrams.table.get_mut(token) else { return };
        if !entry.dirty {
            entry.dirty = true;
            self.datagrams.dirty.push_back(token);
        }
    }

    /// Stage 7, for datagrams.
    pub(super) fn flush_dirty_datagrams(&mut self) {
        // What callbacks of errors send is for the next turn.
        for _ in 0..self.datagrams.dirty.len() {
            let Some(token) = self.datagrams.dirty.pop_front() else { return };
            if let Some(entry) = self.datagrams.table.get_mut(token) {
                entry.dirty = false;
            }
            self.serving = Served::Datagrams(token);
            self.flush_datagrams(token);
        }
    }

    /// Sends what a socket can send now, and tells what went wrong.
    pub(super) fn flush_datagrams(&mut self, token: Token) {
        let Some(entry) = self.datagrams.table.get_mut(token) else { return };
        entry.flush(token, self.driver.datagram().1, &self.counters);
        let (unused, error) = (entry.queue.take_if(|queue| queue.is_empty()), entry.error.take());
        let (sent, deaf) = (entry.queue.is_none(), entry.is_deaf());
        self.datagrams.count_held(token);
        if let Some(queue) = unused {
            self.datagrams.give_back(queue);
        }
        if let Some(error) = error {
            self.tell_datagram_error(token, &error);
        }
        if deaf && sent {
            self.close_datagrams(token);
        }
    }

    /// Closes a socket once its queue is sent, and what the handler sends when it is told.
    pub(super) fn begin_closing_datagrams(&mut self, token: Token) {
        let at = self.common.clock.tick_after(self.driver.now(), self.config.close_timeout);
        let Some(entry) = self.datagrams.table.get_mut(token) else { return };
        if entry.is_deaf() {
            return;
        }
        entry.patience = Some(self.common.timers.arm(at, Alarm::Datagrams(token)));
        entry.note_closing();
        let reason = if self.draining { CloseReason::Shutdown } else { CloseReason::Local };
        self.invoke_datagrams(token, true, "on_datagram_closing", |handler, socket, _| {
            handler.on_datagram_closing(socket, &reason);
            Action::Continue
        });
        self.flush_datagrams(token);
    }

    /// Closes all sockets that a condition holds for.
    pub(super) fn close_datagrams_of(&mut self, which: impl Fn(&DatagramEntry) -> bool) {
        let tokens: Vec<Token> = self.datagrams.table.tokens().collect();
        for token in tokens {
            if self.datagrams.table.get(token).is_some_and(&which) {
                self.begin_closing_datagrams(token);
            }
        }
    }

    /// Closes all sockets, whatever waits.
    pub(super) fn cut_datagrams(&mut self) {
        let tokens: Vec<Token> = self.datagrams.table.tokens().collect();
        for token in tokens {
            self.begin_closing_datagrams(token);
            self.close_datagrams(token);
        }
    }

    /// Closes a socket, and drops what waits.
    pub(super) fn close_datagrams(&mut self, token: Token) {
        let Some(mut entry) = self.datagrams.table.remove(token) else { return };
        self.driver.close_datagrams(token);
        for timer in [entry.patience, entry.resume].into_iter().flatten() {
            self.common.timers.cancel(timer);
        }
        if let Some(mut queue) = entry.queue.take() {
            queue.drop_all();
            self.counters.datagrams_dropped.add(queue.take_sent().dropped);
            self.datagrams.give_back(queue);
        }
        self.datagrams.held -= entry.held;
        self.counters.datagram_sockets.set(self.datagrams.table.len() as u64);
    }
}
