//! Sending what arrives on one connection straight on another, through a pipe (splice(2)), so that
//! the bytes never are in the memory of the process.
//!
//! splice(2) is believed where it moved bytes, and only there. Else it says other things than
//! recv(2) and send(2) do of the same sockets:
//!
//! | it | also where |
//! | --- | --- |
//! | moves 0 bytes, as at the end | the end is behind the mark of urgent data; no memory for a page |
//! | would block | bytes wait behind the mark of urgent data; no memory for a page |
//! | fails | a sandbox refuses it; sockets of this kind don't have it; no memory |
//! | takes the socket's error away | urgent data is between that and the bytes before |
//! | drops descriptors | they came along with the bytes (SCM_RIGHTS) |
//! | raises SIGPIPE | the peer is gone: it has no flag against that |
//!
//! So where it moved nothing, recv(2) is asked, and what it left in the pipe goes to send(2).

use std::io::{self, ErrorKind};

use super::pipe::{Pipe, is_of_splice};
use super::socket::{Incoming, Socket, Sockets, State};
use super::turn::{Turn, add, left};
use crate::driver::{Event, Received, Token};
use crate::socket::Stream;

/// What a pipe holds at least, if it holds bytes of a socket's buffers that are full.
const MOST: usize = 64 * 1024;

impl Sockets {
    /// Receives on one connection and sends on another. What that does not take is put into
    /// `buffer`. Without a pipe everything is.
    #[inline(never)]
    pub(super) fn relay(
        &mut self,
        token: Token,
        to: Token,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> Option<Event<Stream>> {
        let Some(pipe) = self.take_pipe(token) else {
            return self.receive_to_relay(token, None, buffer, turn);
        };
        let event = self.relay_through(&pipe, token, to, buffer, turn);
        // After a failure something may be left in it.
        self.relaying.pipe = Some(pipe).filter(|_| !matches!(event, Some(Event::Failed { .. })));
        event
    }

    /// The pipe, if bytes of a connection may go through it.
    fn take_pipe(&mut self, token: Token) -> Option<Pipe> {
        let keeps = self.passing.get(&token.index).is_some_and(|passing| passing.keeps());
        if self.relaying.refused || keeps || self.get(token)?.unspliceable {
            return None;
        }
        self.relaying.pipe.take().or_else(|| Pipe::new().ok())
    }

    fn relay_through(
        &mut self,
        pipe: &Pipe,
        token: Token,
        to: Token,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> Option<Event<Stream>> {
        let socket = self.get(token)?;
        let spent = socket.spent.in_turn(turn.number).incoming;
        let most = MOST.min(buffer.len()).min(left(turn.budget.read, spent));
        let len = match pipe.fill(&socket.stream, most) {
            Ok(0) => return self.receive_to_relay(token, None, buffer, turn),
            Ok(len) => len,
            Err(error) => {
                let error = self.error_of_socket(pipe, token, error);
                return self.receive_to_relay(token, error, buffer, turn);
            }
        };
        add(&mut socket.spent.incoming, len);
        turn.push_again(socket.queue(token));
        let sent = self.send_from(pipe, token, to, len);
        let rest = &mut buffer[..len - sent.as_ref().map_or(0, |sent| *sent)];
        // What a broken connection leaves is dropped with it.
        let taken = pipe.read(rest);
        match sent.and_then(|sent| taken.map(|()| sent)) {
            Ok(sent) => {
                let rest = (sent < len).then_some(Received::Lent { buffer: 0, len: len - sent });
                Some(Event::Relayed { token, sent, rest })
            }
            Err(error) => Some(Event::Failed { token: to, error }),
        }
    }

    /// Sends on a connection what it takes of what is in the pipe. Why it doesn't take the rest is
    /// found out by sending that, unless the connection is broken.
    fn send_from(&mut self, pipe: &Pipe, token: Token, to: Token, len: usize) -> io::Result<usize> {
        let (turn, budget) = (self.turn, self.write_budget);
        let sends = |socket: &&mut Socket| !socket.state.is(State::BLOCKED | State::FAILED);
        let Some(socket) = self.get(to).filter(sends) else {
            return Ok(0);
        };
        let most = len.min(left(budget, socket.spent.in_turn(turn).outgoing));
        match pipe.drain(&socket.stream, most) {
            Ok(sent) => {
                add(&mut socket.spent.outgoing, sent);
                Ok(sent)
            }
            Err(error) => match self.error_of_socket(pipe, token, error) {
                None => Ok(0),
                Some(error) => {
                    if let Some(socket) = self.get(to) {
                        socket.state.set(State::FAILED);
                    }
                    Err(error)
                }
            },
        }
    }

    /// The error of splice(2), if it is one of a socket and not its own, because of which bytes of
    /// this connection go another way from here on.
    fn error_of_socket(
        &mut self,
        pipe: &Pipe,
        token: Token,
        error: io::Error,
    ) -> Option<io::Error> {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            return None;
        }
        if pipe.is_refused() {
            tracing::debug!(%error, "splice(2) is refused: relays receive and send");
            self.relaying.refused = true;
            return None;
        }
        if is_of_splice(&error) {
            self.get(token)?.unspliceable = true;
            return None;
        }
        Some(error)
    }

    /// Receives into the buffer what is to be relayed. An error that splice(2) has taken off the
    /// socket comes behind the bytes.
    fn receive_to_relay(
        &mut self,
        token: Token,
        error: Option<io::Error>,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> Option<Event<Stream>> {
        let socket = self.slots.get_mut(token)?;
        let most = socket.share(turn);
        let mut incoming = socket.receive_within(token, buffer, false, most, &mut self.passing);
        if let Some(error) = error {
            match incoming {
                Incoming::Bytes(_) => socket.error_taken = true,
                Incoming::Failure(_) | Incoming::Untried => {}
                Incoming::Nothing | Incoming::End => {
                    socket.state.set(State::FAILED);
                    incoming = Incoming::Failure(error);
                }
            }
        }
        turn.push_again(socket.queue(token));
        incoming.event(token)
    }
}
