//! Sending.

use std::io::{self, IoSlice};

use mio::net::TcpStream;
use mio::{Interest, Registry};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, send, sendmsg};

use super::{Passings, SHORT_MEANS_DRAINED, Socket, Sockets, State, interest};
use crate::driver::Token;
use crate::driver::readiness::name::Name;
use crate::driver::readiness::retry::{none_if_blocked, retry_unblocked};
use crate::driver::readiness::slices::{Rest, cut, gather};
use crate::driver::readiness::turn::{add, left};
use crate::memory::{OutputPool, OutputQueue};
use crate::socket::NO_SIGNAL;

/// How many slices go into one system call; the queue's others follow in the next one.
const SLICES_PER_SEND: usize = 64;

impl Socket {
    /// Sends once from the queue and, behind it, from `more`, at most this many bytes. Returns how
    /// many were offered and how many of them were taken.
    #[inline(always)]
    fn send(
        &mut self,
        queue: &OutputQueue,
        more: &Rest<'_>,
        most: usize,
    ) -> io::Result<(usize, usize)> {
        let alone = match more.slices {
            [] if queue.segments() == 1 => Some(queue.front()),
            [one] if queue.is_empty() => Some(&one[more.skip..]),
            _ => None,
        };
        if let Some(bytes) = alone {
            let bytes = &bytes[..bytes.len().min(most)];
            return Ok((bytes.len(), self.send_bytes(bytes)?));
        }
        self.send_gathered(queue, more, most)
    }

    /// Sends, until no signal interrupts it; 0 if that would block.
    fn send_bytes(&self, bytes: &[u8]) -> io::Result<usize> {
        self.note_sending(bytes, send(&self.stream, bytes, NO_SIGNAL))
    }

    /// Goes on behind a call that was tried, which a signal may have interrupted.
    fn note_sending(&self, bytes: &[u8], tried: rustix::io::Result<usize>) -> io::Result<usize> {
        let again = || Ok(send(&self.stream, bytes, NO_SIGNAL)?);
        tried.or_else(|error| self.failed_to(error, again).or_else(none_if_blocked))
    }

    /// As [`send`](Self::send), with what goes along with the bytes.
    #[inline(never)]
    fn send_unix(
        &mut self,
        token: Token,
        queue: &OutputQueue,
        more: &Rest<'_>,
        most: usize,
        passing: &mut Passings,
    ) -> io::Result<(usize, usize)> {
        let Some(passing) = passing.get_mut(&token.index) else {
            return self.send(queue, more, most);
        };
        let (most, with_descriptors) = passing.next(most);
        let (offered, sent) = if with_descriptors {
            self.send_slices(queue, more, most, |stream, slices| {
                passing.send(stream, slices, NO_SIGNAL)
            })?
        } else {
            self.send(queue, more, most)?
        };
        passing.note_sent(sent);
        Ok((offered, sent))
    }

    fn send_gathered(
        &mut self,
        queue: &OutputQueue,
        more: &Rest<'_>,
        most: usize,
    ) -> io::Result<(usize, usize)> {
        self.send_slices(queue, more, most, |stream, slices| {
            let mut nothing = SendAncillaryBuffer::default();
            Ok(sendmsg(stream, slices, &mut nothing, NO_SIGNAL)?)
        })
    }

    /// Sends as many slices as go at once, by a system call that takes slices.
    fn send_slices(
        &mut self,
        queue: &OutputQueue,
        more: &Rest<'_>,
        most: usize,
        send: impl Fn(&TcpStream, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); SLICES_PER_SEND];
        let count = gather(queue, more, &mut slices);
        let slices = &slices[..count];
        let mut offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut shorter;
        let slices = if offered <= most {
            slices
        } else {
            offered = most;
            shorter = [IoSlice::new(&[]); SLICES_PER_SEND];
            let count = cut(slices, most, &mut shorter);
            &shorter[..count]
        };
        let send = || self.stream.try_io(|| send(&self.stream, slices));
        Ok((offered, retry_unblocked(send)?))
    }

    /// Waits for the socket to take more.
    #[inline(never)]
    fn block(&mut self, token: Token, registry: &Registry) -> io::Result<()> {
        self.state.set(State::BLOCKED);
        if !self.watches_sending {
            self.watches_sending = true;
            let name = Name::Connection(token).pack();
            registry.reregister(&mut self.stream, name, interest() | Interest::WRITABLE)?;
        }
        Ok(())
    }
}

impl Sockets {
    #[inline(always)]
    pub(in super::super) fn flush(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<usize> {
        let Some(socket) = self.slots.get_mut(token) else { return Ok(0) };
        // Almost every queue is in one piece and goes at once.
        let left = left(self.write_budget, socket.spent.in_turn(self.turn).outgoing);
        if let Some(bytes) = queue.alone()
            && (1..=left).contains(&bytes.len())
            && !socket.state.is(State::BLOCKED | State::UNIX)
        {
            return match send(&socket.stream, bytes, NO_SIGNAL) {
                Ok(sent) if sent == bytes.len() => {
                    add(&mut socket.spent.outgoing, sent);
                    queue.clear_alone(pool);
                    // Nothing is left that the engine would be told for.
                    socket.state.clear(State::SENDABLE);
                    Ok(sent)
                }
                Ok(sent) => self.send_behind(token, queue, pool, sent, None),
                Err(error) => self.send_behind(token, queue, pool, 0, Some(error)),
            };
        }
        let before = queue.len();
        self.send(token, queue, pool, &[])?;
        Ok(before - queue.len())
    }

    /// Goes on behind a call that was tried to send the queue's only piece, and did not send all:
    /// this many bytes, or none because it failed.
    #[inline(never)]
    fn send_behind(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
        sent: usize,
        error: Option<Errno>,
    ) -> io::Result<usize> {
        let Some(socket) = self.slots.get_mut(token) else { return Ok(0) };
        let before = queue.len();
        let sent = socket.note_sending(queue.front(), error.map_or(Ok(sent), Err));
        let sent = sent.inspect_err(|_| socket.state.set(State::FAILED))?;
        add(&mut socket.spent.outgoing, sent);
        queue.advance(sent, pool);
        if queue.is_empty() {
            socket.state.clear(State::SENDABLE);
        } else if sent == 0 || SHORT_MEANS_DRAINED {
            socket.block(token, &self.registry)?;
        } else {
            self.send(token, queue, pool, &[])?;
        }
        Ok(before - queue.len())
    }

    /// Sends from the queue and, behind it, from `more`, within the turn's budget; returns how much
    /// of `more` was taken.
    #[inline(never)]
    pub(super) fn send(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
        more: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let Some(socket) = self.slots.get_mut(token) else { return Ok(0) };
        if socket.state.is(State::BLOCKED) {
            return Ok(0);
        }
        let mut more = Rest::new(more);
        let mut taken = 0;
        while !queue.is_empty() || !more.slices.is_empty() {
            let left = left(self.write_budget, socket.spent.in_turn(self.turn).outgoing);
            if left == 0 {
                socket.state.set(State::SENDABLE);
                self.deferred.extend(socket.queue(token));
                return Ok(taken);
            }
            let sent = if socket.state.is(State::UNIX) {
                socket.send_unix(token, queue, &more, left, &mut self.passing)
            } else {
                socket.send(queue, &more, left)
            };
            let (offered, sent) = sent.inspect_err(|_| socket.state.set(State::FAILED))?;
            add(&mut socket.spent.outgoing, sent);
            let from_queue = sent.min(queue.len());
            queue.advance(from_queue, pool);
            taken += sent - from_queue;
            more.advance(sent - from_queue);
            if sent == 0 || (sent < offered && SHORT_MEANS_DRAINED) {
                socket.block(token, &self.registry)?;
                return Ok(taken);
            }
        }
        // Nothing is left that the engine would be told for.
        socket.state.clear(State::SENDABLE);
        Ok(taken)
    }
}
