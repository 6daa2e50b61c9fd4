//! Outgoing connections, until each is open or has failed.
//!
//! An attempt to connect is not a connection yet: it has its own table, a place among the engine's
//! connections, and the closure that is told what came of it. It looks its host up, if it is one by
//! name, and then races to the host's addresses, each by its own handshake, of which the driver
//! tells the outcome. It ends in one of two ways: `connected`, after which there is a connection
//! like all others, or `fail_attempt`.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millstream_platform::address::{Address, PeerAddress};
use millstream_platform::driver::{Driver, Token};
use millstream_platform::socket::SocketRole;

use super::{EventLoop, Served};
use crate::base::{CloseReason, Race, Step, Table, TimerKey};
use crate::config::{Connect, ConnectError, Layers, Target};
use crate::handler::{Action, Alarm, Command, Done, EventHandler, Origin};
use crate::shared::Admission;

/// What callbacks of this module are reported as.
const CALLBACK: &str = "Reactors::connect";

/// An attempt to connect.
pub(super) struct Attempt<H: EventHandler> {
    connect: Connect,
    done: Done<H, ConnectError>,
    /// `None` before it begins.
    begun: Option<Begun>,
    /// For its beginning, then for what comes first of its timeout and the next address.
    timer: TimerKey,
}

/// What an attempt has once it has begun.
struct Begun {
    admission: Admission,
    /// The tick of its timeout.
    deadline: u64,
    stage: Stage,
    /// The handshakes that are under way.
    handshakes: Vec<Token>,
}

enum Stage {
    /// The host is being looked up, for as long as this lives.
    LookUp(#[expect(dead_code, reason = "it is only kept")] Arc<()>),
    Race(Race),
}

/// A socket that connects, for an attempt.
pub(super) struct Handshake {
    attempt: Token,
    address: Address,
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Takes an attempt in, and begins it unless it is for later.
    pub(super) fn connect(&mut self, connect: Connect, done: Done<H, ConnectError>) {
        let to = connect.to.clone();
        let done = self.counting(done);
        if self.draining {
            return self.answer(CALLBACK, done, ConnectError::Stopped { to });
        }
        if self.attempts.len() == Table::<Attempt<H>>::MAX {
            return self.answer(CALLBACK, done, ConnectError::LimitReached { to });
        }
        let after = connect.after;
        let at = self.common.clock.tick_after(self.driver.now(), after);
        let timers = &mut self.common.timers;
        let inserted = self.attempts.insert_with(|token| {
            let timer = timers.arm(at, Alarm::Attempt(token));
            Attempt { connect, done, begun: None, timer }
        });
        let token = inserted.expect("the table is not full");
        if after.is_zero() {
            self.begin_attempt(token);
        }
    }

    /// The same, which counts what came of its attempt.
    fn counting(&self, done: Done<H, ConnectError>) -> Done<H, ConnectError> {
        let counters = Arc::clone(&self.counters);
        Box::new(move |handler, reactor, connected| {
            match &connected {
                Ok(_) => counters.connected.add(1),
                Err(_) => counters.connect_failures.add(1),
            }
            done(handler, reactor, connected)
        })
    }

    fn begin_attempt(&mut self, token: Token) {
        let Some(attempt) = self.attempts.get_mut(token) else { return };
        let Some(admission) = Admission::without_source(self.engine.limits(), &self.counters)
        else {
            return self.fail_attempt(token, |to| ConnectError::LimitReached { to });
        };
        let Connect { to, timeout, attempt_delay, options, .. } = &attempt.connect;
        if let Err(source) = options.check_for(to.transport(), SocketRole::Outgoing) {
            let source = Box::new(source);
            return self.fail_attempt(token, |to| ConnectError::Option { to, source });
        }
        let deadline = self.common.clock.tick_after(self.driver.now(), *timeout);
        let stage = match to {
            Target::Address(address) => Stage::Race(Race::new(vec![*address], *attempt_delay)),
            Target::Host { name, port } => {
                let mailbox = Arc::clone(&self.mailbox);
                let resolved = move |addresses| {
                    // An error says that the reactor has ended, and so has the attempt.
                    let _ = mailbox.post(Command::Resolved { attempt: token, addresses });
                };
                Stage::LookUp(self.engine.resolver().look_up(name, *port, resolved))
            }
        };
        attempt.begun = Some(Begun { admission, deadline, stage, handshakes: Vec::new() });
        self.go_on(token);
    }

    /// A host was looked up.
    pub(super) fn resolved(&mut self, token: Token, addresses: io::Result<Vec<SocketAddr>>) {
        let Some(attempt) = self.attempts.get_mut(token) else { return };
        let Some(begun) = &mut attempt.begun else { return };
        let Connect { from, attempt_delay, .. } = attempt.connect;
        let mut addresses = match addresses {
            Ok(addresses) => addresses,
            Err(source) => {
                return self.fail_attempt(token, |to| ConnectError::Unresolved { to, source });
            }
        };
        if let Some(from) = from {
            addresses.retain(|to| from.ip().is_some_and(|from| from.is_ipv4() == to.is_ipv4()));
        }
        if addresses.is_empty() {
            return self.fail_attempt(token, |to| ConnectError::NoAddress { to });
        }
        let addresses = addresses.into_iter().map(Address::from).collect();
        begun.stage = Stage::Race(Race::new(addresses, attempt_delay));
        self.go_on(token);
    }

    /// Connects to the addresses whose turn it is, and sets the timer for what comes then.
    fn go_on(&mut self, token: Token) {
        loop {
            let Some(attempt) = self.attempts.get_mut(token) else { return };
            let Some(begun) = &mut attempt.begun else { return };
            let mut at = begun.deadline;
            if let Stage::Race(race) = &mut begun.stage {
                match race.step(self.driver.now()) {
                    Step::Connect(address) => {
                        self.begin_handshake(token, address);
                        continue;
                    }
                    Step::WaitUntil(next) => {
                        at = at.min(self.common.clock.tick_after(next, Duration::ZERO));
                    }
                    Step::Wait => {}
                    Step::Lost => {
                        let failures = race.take_failures();
                        return self.fail_attempt(token, |to| lost(to, failures));
                    }
                }
            }
            self.common.timers.cancel(attempt.timer);
            attempt.timer = self.common.timers.arm(at, Alarm::Attempt(token));
            return;
        }
    }

    fn begin_handshake(&mut self, token: Token, address: Address) {
        let Some(attempt) = self.attempts.get_mut(token) else { return };
        let Some(begun) = &mut attempt.begun else { return };
        let new = self.handshakes.insert_with(|_| Handshake { attempt: token, address });
        let Some(handshake) = new else {
            let error = io::Error::new(ErrorKind::ResourceBusy, "too many are being made");
            return begun.failed(address, error);
        };
        begun.handshakes.push(handshake);
        let from = attempt.connect.from;
        let options = attempt.connect.options.clone().or(&self.config.options);
        match self.driver.connect(handshake, &address, from.as_ref(), &options) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.put_off(handshake),
            Err(error) => drop(self.note_failure(handshake, error)),
        }
    }

    /// A handshake could not begin, but may later, within the attempt's timeout.
    fn put_off(&mut self, handshake: Token) {
        let now = self.driver.now();
        let Some(Handshake { attempt, address }) = self.handshakes.remove(handshake) else {
            return;
        };
        let attempt = self.attempts.get_mut(attempt);
        let Some(begun) = attempt.and_then(|attempt| attempt.begun.as_mut()) else { return };
        begun.handshakes.retain(|other| *other != handshake);
        if let Stage::Race(race) = &mut begun.stage {
            race.put_off(address, now);
        }
    }

    /// A handshake has come to a connection: the others of its attempt are given up.
    pub(super) fn connected(&mut self, handshake: Token, socket: D::Socket) {
        let Some(Handshake { attempt, address }) = self.handshakes.remove(handshake) else {
            return;
        };
        let Some(Attempt { connect, done, begun: Some(begun), .. }) = self.end_attempt(attempt)
        else {
            return;
        };
        let connected = (socket, &address.into(), Origin::Outgoing, begun.admission);
        let Connect { to, layers, .. } = connect;
        let closed = move |reason| match reason {
            CloseReason::Handshake(source) => ConnectError::Handshake { to, source },
            CloseReason::Shutdown => ConnectError::Stopped { to },
            _ => ConnectError::Closed { to },
        };
        self.open_for(CALLBACK, connected, &layers, done, closed);
    }

    /// Takes in a connection that somebody waits for. They are shown it when it opens, or told why
    /// it was `closed`, if it doesn't open, or not for long.
    pub(super) fn open_for<E: 'static>(
        &mut self,
        name: &'static str,
        (socket, peer, origin, admission): (D::Socket, &PeerAddress, Origin, Admission),
        layers: &Layers,
        done: Done<H, E>,
        closed: impl FnOnce(CloseReason) -> E + Send + 'static,
    ) {
        let taken = self.take(socket, peer, origin, layers, admission);
        let Some(token) = taken else {
            return self.answer(name, done, closed(CloseReason::Local));
        };
        let served = mem::replace(&mut self.serving, Served::Connection(token));
        match self.connections.get_mut(token) {
            Some(connection) if connection.pending.layer().is_some() => {
                let done: Done<H, CloseReason> = Box::new(move |handler, reactor, opened| {
                    done(handler, reactor, opened.map_err(closed))
                });
                connection.status.extras().set_awaited(name, done);
                self.begin(token);
            }
            _ => {
                self.begin(token);
                self.show(name, token, done, closed);
            }
        }
        self.serving = served;
    }

    /// Shows a connection that has opened to those who wait for it, who are told that it is
    /// `closed` if it isn't open any more.
    pub(super) fn show<E>(
        &mut self,
        name: &'static str,
        token: Token,
        done: Done<H, E>,
        closed: impl FnOnce(CloseReason) -> E,
    ) {
        let mut done = Some(done);
        self.show_reactor(|event_loop, reactor| {
            event_loop.call(token, name, |handler, conn| match done.take() {
                Some(done) => done(handler, reactor, Ok(conn)),
                None => Action::Continue,
            });
        });
        if let Some(done) = done {
            self.answer(name, done, closed(CloseReason::Local));
        }
    }

    /// The operating system failed a handshake.
    pub(super) fn handshake_failed(&mut self, handshake: Token, error: io::Error) {
        if let Some(attempt) = self.note_failure(handshake, error) {
            self.go_on(attempt);
        }
    }

    /// Ends a handshake that has failed, and returns whose it was.
    fn note_failure(&mut self, handshake: Token, error: io::Error) -> Option<Token> {
        let Handshake { attempt, address } = self.handshakes.remove(handshake)?;
        let begun = self.attempts.get_mut(attempt)?.begun.as_mut()?;
        begun.handshakes.retain(|other| *other != handshake);
        begun.failed(address, error);
        Some(attempt)
    }

    /// The timer of an attempt has fired: it is time to begin, it took too long, or it is the next
    /// address's turn.
    pub(super) fn attempt_due(&mut self, token: Token) {
        let Some(attempt) = self.attempts.get(token) else { return };
        match &attempt.begun {
            None => self.begin_attempt(token),
            Some(begun) if begun.deadline <= self.common.clock.tick() => {
                let timeout = attempt.connect.timeout;
                self.fail_attempt(token, |to| ConnectError::TimedOut { to, timeout });
            }
            Some(_) => self.go_on(token),
        }
    }

    /// The engine stops.
    pub(super) fn stop_attempts(&mut self) {
        let tokens: Vec<Token> = self.attempts.tokens().collect();
        for token in tokens {
            self.fail_attempt(token, |to| ConnectError::Stopped { to });
        }
    }

    /// Ends an attempt without a connection. Its place is free before anybody is told.
    fn fail_attempt(&mut self, token: Token, why: impl FnOnce(Target) -> ConnectError) {
        let Some(Attempt { connect, done, begun, .. }) = self.end_attempt(token) else { return };
        let error = why(connect.to);
        tracing::debug!(reactor = self.index, %error, "not connected");
        drop(begun);
        self.answer(CALLBACK, done, error);
    }

    /// Takes an attempt out, with its timer and its handshakes.
    fn end_attempt(&mut self, token: Token) -> Option<Attempt<H>> {
        let attempt = self.attempts.remove(token)?;
        self.common.timers.cancel(attempt.timer);
        for &handshake in attempt.begun.iter().flat_map(|begun| &begun.handshakes) {
            if self.handshakes.remove(handshake).is_some() {
                self.driver.give_up(handshake);
            }
        }
        Some(attempt)
    }

    /// Says that there is no connection.
    pub(super) fn answer<E>(&mut self, name: &'static str, done: Done<H, E>, error: E) {
        let outcome = self
            .call_without_connection(name, |handler, reactor| done(handler, reactor, Err(error)));
        self.obey_action(outcome.unwrap_or_default());
    }
}

impl Begun {
    fn failed(&mut self, address: Address, error: io::Error) {
        if let Stage::Race(race) = &mut self.stage {
            race.failed(address, error);
        }
    }
}

/// No address of a target answered.
fn lost(to: Target, mut failures: Vec<(Address, io::Error)>) -> ConnectError {
    match (&to, failures.pop()) {
        (Target::Address(_), Some((_, source))) => match source.downcast() {
            Ok(source) => ConnectError::Option { to, source: Box::new(source) },
            Err(source) => ConnectError::Failed { to, source },
        },
        (_, last) => {
            let all = failures.into_iter().chain(last);
            let of_ip = |(address, error): (Address, _)| Some((address.socket_addr()?, error));
            ConnectError::AllFailed { to, failures: all.filter_map(of_ip).collect() }
        }
    }
}
