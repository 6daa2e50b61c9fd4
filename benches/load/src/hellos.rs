//! Handshakes that are begun, at a rate, and go no further: what a server can be made to do by
//! whom it costs next to nothing.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::clock::Clock;
use super::tally::Tally;
use super::tls::TlsClient;
use super::{Load, LoadError, Tls};

/// How many may wait for an answer: those beyond it are not begun.
const MOST_WAITING: usize = 1_024;
const SECOND: u128 = 1_000_000_000;
const MILLISECOND: Duration = Duration::from_millis(1);

/// The thread that begins handshakes.
pub(super) struct Hellos {
    address: SocketAddr,
    clock: Clock,
    per_second: u64,
    /// What each connection says.
    hello: Vec<u8>,
    poll: Poll,
    waiting: BTreeMap<usize, TcpStream>,
    begun: u64,
    answered: u64,
}

impl Hellos {
    /// `None` if there are to be none.
    pub(super) fn of(load: &Load, clock: Clock) -> Result<Option<Self>, LoadError> {
        let (address, per_second) = (load.address, load.crowd.handshakes as u64);
        let client = TlsClient::of(if per_second > 0 { Tls::Full } else { Tls::Off })?;
        let Some(client) = client else { return Ok(None) };
        let (hello, poll, waiting) = (client.hello()?, Poll::new()?, BTreeMap::new());
        let (begun, answered) = (0, 0);
        Ok(Some(Self { address, clock, per_second, hello, poll, waiting, begun, answered }))
    }

    /// Runs until `stop` is set, or the clock says `end`.
    pub(super) fn run(mut self, end: u64, stop: &AtomicBool) -> Result<Tally, LoadError> {
        let (mut events, first) = (Events::with_capacity(MOST_WAITING), self.clock.now());
        let mut now = first;
        while now < end && !stop.load(Ordering::Relaxed) {
            let due = u128::from(now - first) * u128::from(self.per_second) / SECOND;
            for _ in self.begun..due as u64 {
                self.begun += 1;
                if self.waiting.len() < MOST_WAITING {
                    self.begin()?;
                }
            }
            match self.poll.poll(&mut events, Some(MILLISECOND)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => other?,
            }
            for event in &events {
                self.go_on(event.token(), event.is_writable());
            }
            now = self.clock.now();
        }
        Ok(Tally { shaken: self.answered, ..Tally::new() })
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut socket = TcpStream::connect(self.address)?;
        // Reset, or each would take a port for a while.
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        let token = Token(self.begun as usize);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, token, interest)?;
        self.waiting.insert(token.0, socket);
        Ok(())
    }

    /// Says hello, or is answered. Whatever fails is the end of that one.
    fn go_on(&mut self, token: Token, writable: bool) {
        let Some(socket) = self.waiting.get_mut(&token.0) else { return };
        let over = match socket.read(&mut [0; 1]) {
            Ok(count) => {
                self.answered += count as u64;
                true
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => true,
            // It fits into any socket. There is one event that it can be written to.
            Err(_) => writable && !socket.write(&self.hello).is_ok_and(|n| n == self.hello.len()),
        };
        if over {
            self.waiting.remove(&token.0);
        }
    }
}
