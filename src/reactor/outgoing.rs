//! Outgoing connections, until each is open or has failed.
//!
//! An attempt to connect is no connection yet: it has a table of its own, a place among the engine's
//! connections, and the closure that is told what came of it. It ends in one of two ways:
//! `connected`, after which there is a connection like all others, or `fail_attempt`.

use std::io;
use std::time::Duration;

use millstream_platform::address::Address;
use millstream_platform::driver::{Driver, Token};

use super::EventLoop;
use super::connection::{Alarm, Origin};
use super::table::Table;
use super::timers::TimerKey;
use crate::conn::Conn;
use crate::engine::Admission;
use crate::handler::{Action, EventHandler};

/// How long an attempt may take by default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What [`Reactors::connect`](crate::Reactors::connect) is to connect to, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Connect {
    to: Address,
    from: Option<Address>,
    after: Duration,
    timeout: Duration,
}

impl Connect {
    /// Connects to an address, with a timeout of 10 seconds, and the socket options that
    /// [`Builder`](crate::Builder) sets for all connections.
    pub fn to(address: impl Into<Address>) -> Self {
        Connect { to: address.into(), from: None, after: Duration::ZERO, timeout: TIMEOUT }
    }

    /// Waits so long before it connects, for example for as long as a [`Backoff`](crate::Backoff) says. By
    /// default it doesn't wait.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// How long the attempt may take once it has begun, with a resolution of one millisecond.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects from this address of the machine; port 0 stands for a free one. By default the system
    /// chooses both.
    pub fn bind(mut self, address: impl Into<Address>) -> Self {
        self.from = Some(address.into());
        self
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The operating system says so: nobody listens there, there is no way there, …
    #[error("cannot connect to {address}")]
    Failed {
        /// Where to.
        address: Address,
        /// What the operating system says; [`io::ErrorKind::ConnectionRefused`] if nobody listens.
        #[source]
        source: io::Error,
    },
    /// No answer came in time.
    #[error("cannot connect to {address}: no answer within {timeout:?}")]
    TimedOut {
        /// Where to.
        address: Address,
        /// The time that [`Connect::timeout`] gave.
        timeout: Duration,
    },
    /// The engine has as many connections as
    /// [`max_connections`](crate::Builder::max_connections) allows.
    #[error("cannot connect to {address}: the limit of connections is reached")]
    LimitReached {
        /// Where to.
        address: Address,
    },
    /// The connection was made, but is not open any more, or never was: `on_open` closed it or panicked,
    /// or the reactor could not take it in.
    #[error("the connection to {address} was closed as it opened")]
    Closed {
        /// Where to.
        address: Address,
    },
    /// The engine stops, and connects no more.
    #[error("cannot connect to {address}: the engine stops")]
    Stopped {
        /// Where to.
        address: Address,
    },
}

impl ConnectError {
    /// The address that there is no connection to.
    pub fn address(&self) -> Address {
        match self {
            ConnectError::Failed { address, .. }
            | ConnectError::TimedOut { address, .. }
            | ConnectError::LimitReached { address }
            | ConnectError::Closed { address }
            | ConnectError::Stopped { address } => *address,
        }
    }
}

/// Who is told what came of an attempt.
pub(crate) type Done<H> =
    Box<dyn FnOnce(&mut H, Result<&mut Conn<'_, H>, ConnectError>) -> Action + Send>;

/// What callbacks of this module are reported as.
const CALLBACK: &str = "Reactors::connect";

/// An attempt to connect.
pub(super) struct Attempt<H: EventHandler> {
    connect: Connect,
    done: Done<H>,
    /// None before it begins.
    admission: Option<Admission>,
    /// For its beginning, and then for its timeout.
    timer: TimerKey,
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Takes an attempt in, and begins it unless it is for later.
    pub(super) fn connect(&mut self, connect: Connect, done: Done<H>) {
        let address = connect.to;
        if self.draining {
            return self.answer(done, ConnectError::Stopped { address });
        }
        if self.attempts.len() == Table::<Attempt<H>>::MAX {
            return self.answer(done, ConnectError::LimitReached { address });
        }
        let at = self.clock.tick_after(self.driver.now(), connect.after);
        let timers = &mut self.timers;
        let inserted = self.attempts.insert_with(|token| {
            let timer = timers.arm(at, Alarm::Attempt(token));
            Attempt { connect, done, admission: None, timer }
        });
        let token = inserted.expect("the table is not full");
        if connect.after.is_zero() {
            self.begin_attempt(token);
        }
    }

    fn begin_attempt(&mut self, token: Token) {
        let Some(attempt) = self.attempts.get_mut(token) else { return };
        let Connect { to, from, timeout, .. } = attempt.connect;
        attempt.admission = Admission::outgoing(&self.engine, &self.counters);
        if attempt.admission.is_none() {
            return self.fail_attempt(token, ConnectError::LimitReached { address: to });
        }
        self.timers.cancel(attempt.timer);
        let at = self.clock.tick_after(self.driver.now(), timeout);
        attempt.timer = self.timers.arm(at, Alarm::Attempt(token));
        if let Err(source) = self.driver.connect(token, &to, from.as_ref(), &self.config.options) {
            self.fail_attempt(token, ConnectError::Failed { address: to, source });
        }
    }

    /// An attempt has come to a connection.
    pub(super) fn connected(&mut self, attempt: Token, socket: D::Socket) {
        let Some(attempt) = self.attempts.remove(attempt) else { return };
        let address = attempt.connect.to;
        self.timers.cancel(attempt.timer);
        if let Some(admission) = attempt.admission {
            admission.keep();
        }
        let mut done = Some(attempt.done);
        if let Some(token) = self.open(socket, &address.into(), Origin::Outgoing) {
            self.call(token, CALLBACK, |handler, conn| match done.take() {
                Some(done) => done(handler, Ok(conn)),
                None => Action::Continue,
            });
        }
        if let Some(done) = done {
            self.answer(done, ConnectError::Closed { address });
        }
    }

    /// The operating system failed an attempt.
    pub(super) fn attempt_failed(&mut self, attempt: Token, source: io::Error) {
        let Some(address) = self.attempts.get(attempt).map(|attempt| attempt.connect.to) else {
            return;
        };
        self.fail_attempt(attempt, ConnectError::Failed { address, source });
    }

    /// The timer of an attempt has fired: it is time to begin, or it took too long.
    pub(super) fn attempt_due(&mut self, token: Token) {
        let Some(attempt) = self.attempts.get(token) else { return };
        let Connect { to: address, timeout, .. } = attempt.connect;
        if attempt.admission.is_none() {
            self.begin_attempt(token);
        } else {
            self.fail_attempt(token, ConnectError::TimedOut { address, timeout });
        }
    }

    /// The engine stops.
    pub(super) fn stop_attempts(&mut self) {
        let tokens: Vec<Token> = self.attempts.tokens().collect();
        for token in tokens {
            if let Some(address) = self.attempts.get(token).map(|attempt| attempt.connect.to) {
                self.fail_attempt(token, ConnectError::Stopped { address });
            }
        }
    }

    /// Ends an attempt without a connection. Its place is free before anybody is told.
    fn fail_attempt(&mut self, token: Token, error: ConnectError) {
        let Some(attempt) = self.attempts.remove(token) else { return };
        self.timers.cancel(attempt.timer);
        self.driver.give_up(token);
        tracing::debug!(reactor = self.index, %error, "not connected");
        drop(attempt.admission);
        self.answer(attempt.done, error);
    }

    /// Says that there is no connection.
    fn answer(&mut self, done: Done<H>, error: ConnectError) {
        let action =
            self.call_without_connection(CALLBACK, |handler, _reactor| done(handler, Err(error)));
        self.obey_action(action.unwrap_or_default());
    }
}
