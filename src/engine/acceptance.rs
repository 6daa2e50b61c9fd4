//! Listening, for whoever does it: the acceptor, or each reactor for itself.

use std::io;
use std::time::{Duration, Instant};

use millstream_platform::driver::{Driver, Token};

use super::Engine;

/// A listener that could not accept tries again after this time. It is long enough not to burn the
/// processor while the process is out of descriptors, and short enough to go unnoticed after.
const RETRY: Duration = Duration::from_millis(100);
/// Failures to accept are logged once in this time; the others are counted.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The listeners of one thread, and those of them that could not accept.
#[derive(Default)]
pub(crate) struct Acceptance {
    listeners: Vec<Token>,
    halted: Vec<Token>,
    retry_at: Option<Instant>,
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl Acceptance {
    pub(crate) fn listen<D: Driver>(
        &mut self,
        listeners: Vec<D::Listener>,
        driver: &mut D,
    ) -> io::Result<()> {
        for listener in listeners {
            let token = Token { index: self.listeners.len() as u32, generation: 0 };
            driver.listen(token, listener)?;
            self.listeners.push(token);
        }
        Ok(())
    }

    /// A listener could not accept. That never ends it: it tries again later.
    pub(crate) fn failed(
        &mut self,
        listener: Token,
        error: &io::Error,
        now: Instant,
        engine: &Engine,
    ) {
        engine.note_accept_error();
        self.halted.push(listener);
        self.retry_at.get_or_insert(now + RETRY);
        let quiet = self.logged_at.is_some_and(|at| now.duration_since(at) < LOG_INTERVAL);
        if quiet {
            self.unlogged += 1;
        } else {
            let unlogged = std::mem::take(&mut self.unlogged);
            self.logged_at = Some(now);
            tracing::warn!(%error, unlogged, retry = ?RETRY, "a connection could not be accepted");
        }
    }

    /// How long until a listener tries again.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Duration> {
        self.retry_at.map(|at| at.saturating_duration_since(now))
    }

    /// Lets listeners try again whose time has come.
    pub(crate) fn resume_due<D: Driver>(&mut self, now: Instant, driver: &mut D) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for listener in self.halted.drain(..) {
                driver.resume_accepting(listener);
            }
        }
    }

    /// Closes all listeners.
    pub(crate) fn close<D: Driver>(&mut self, driver: &mut D) {
        self.retry_at = None;
        for listener in self.listeners.drain(..) {
            driver.unlisten(listener);
        }
    }
}
