//! The server's session in memory, behind two links.

use std::time::{Duration, Instant};

use fastrand::Rng;
use millstream::rpc::{BareServer, Router, Server, ServerStats};
use millstream::{Input, OutputBuffer};

use crate::bogus;
use crate::link::{Arrival, Link};
use crate::methods::Methods;
use crate::plan::{Bogus, Plan};
use crate::run::Side;

/// While more than this waits to be sent, nothing is received.
const HIGH_WATER: usize = 64 * 1024;

pub struct InMemory {
    rng: Rng,
    now: Instant,
    server: Server,
    max_in_flight: usize,
    methods: Methods,
    /// `None` once it is closed.
    session: Option<BareServer<Router>>,
    is_closing: bool,
    bogus: Option<Bogus>,
    from_client: Link,
    to_client: Link,
    /// What arrived at the server and is not read.
    unread: Vec<u8>,
    /// What the server wrote and the link did not take.
    unsent: Vec<u8>,
    /// What arrived at the client.
    received: Vec<u8>,
    is_over: bool,
}

impl InMemory {
    pub fn new(plan: &Plan, methods: &Methods) -> Self {
        let (now, server) = (Instant::now(), server(plan));
        let session = BareServer::new(now, &server, methods.router());
        InMemory {
            rng: Rng::with_seed(plan.seed),
            now,
            server,
            max_in_flight: plan.max_in_flight,
            methods: methods.clone(),
            session: Some(session),
            is_closing: false,
            bogus: plan.bogus[1],
            from_client: Link::new(plan, 0),
            to_client: Link::new(plan, 1),
            unread: Vec::new(),
            unsent: Vec::new(),
            received: Vec::new(),
            is_over: false,
        }
    }

    /// Makes the session do something; what it returns is whether the connection goes on.
    fn act(&mut self, act: impl FnOnce(&mut BareServer<Router>, &mut OutputBuffer) -> bool) {
        let Some(session) = self.session.as_mut().filter(|_| !self.is_closing) else { return };
        let mut buffer = OutputBuffer::new();
        buffer.set_now(self.now);
        self.is_closing = !act(session, &mut buffer);
        let in_flight = self.server.stats().in_flight;
        assert!(in_flight <= self.max_in_flight, "{in_flight} calls are in flight");
        let written = buffer.take();
        if !written.is_empty() {
            let more = bogus::frames(self.bogus, 1, &written, &mut self.rng);
            self.unsent.extend(written);
            self.unsent.extend(more);
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Bytes(bytes) => {
                self.unread.extend(bytes);
                let unread = std::mem::take(&mut self.unread);
                let mut input = Input::from(&unread[..]);
                self.act(|session, buffer| session.receive(&mut input, &mut buffer.output()));
                self.unread = input.peek().to_vec();
            }
            Arrival::End => self.act(|session, output| session.peer_ended(&mut output.output())),
            Arrival::Cut => self.cut(),
        }
    }

    /// The connection is gone for both ends.
    fn cut(&mut self) {
        self.session = None;
        self.is_over = true;
    }

    fn do_what_is_due(&mut self) {
        self.methods.reply(self.now);
        self.act(|session, buffer| session.write_replies(&mut buffer.output()));
        while self.unsent.len() <= HIGH_WATER
            && let Some(arrival) = self.from_client.receive(self.now)
        {
            self.arrive(arrival);
            // Replies that were dropped.
            self.act(|session, buffer| session.write_replies(&mut buffer.output()));
        }
        if self.next_of_session().is_some_and(|next| next <= self.now) {
            self.act(|session, buffer| session.on_time(&mut buffer.output()));
        }
        while self.carry() {}
        if self.is_closing && self.unsent.is_empty() {
            self.session = None;
            self.to_client.end_with(self.now, Arrival::End);
        }
    }

    /// Brings what was written towards the client; returns whether the link took anything.
    fn carry(&mut self) -> bool {
        let taken = self.to_client.send(self.now, &self.unsent);
        self.unsent.drain(..taken);
        while let Some(arrival) = self.to_client.receive(self.now) {
            match arrival {
                Arrival::Bytes(bytes) => self.received.extend(bytes),
                Arrival::End => self.is_over = true,
                Arrival::Cut => self.cut(),
            }
        }
        taken > 0
    }

    fn next_of_session(&self) -> Option<Instant> {
        self.session.as_ref().filter(|_| !self.is_closing)?.next_time()
    }

    fn next(&self) -> Option<Instant> {
        let arrival = self.from_client.next().filter(|_| self.unsent.len() <= HIGH_WATER);
        let times =
            [arrival, self.to_client.next(), self.next_of_session(), self.methods.next_reply()];
        times.into_iter().flatten().min()
    }
}

impl Side for InMemory {
    fn now(&self) -> Instant {
        self.now
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        self.from_client.send(self.now, bytes)
    }

    fn end_sending(&mut self) {
        self.from_client.end_with(self.now, Arrival::End);
    }

    fn receive(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn go_away(&mut self) {
        self.act(|session, buffer| session.go_away(&mut buffer.output()));
    }

    fn wait(&mut self, until: Instant) {
        self.now = self.next().map_or(until, |next| next.min(until)).max(self.now);
        self.do_what_is_due();
    }

    fn close(mut self) -> ServerStats {
        self.cut();
        self.server.stats()
    }
}

/// The server of a plan.
pub fn server(plan: &Plan) -> Server {
    let mut server = Server::new().max_in_flight(plan.max_in_flight);
    if let Some(timeout) = plan.server_timeout {
        server = server.timeout(timeout);
    }
    if plan.keepalive {
        server = server.keepalive(Duration::from_millis(50), Duration::from_millis(40));
    }
    server
}
