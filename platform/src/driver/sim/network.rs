//! The handle to a network.

use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Faults;
use super::wire::Wire;
use crate::time::after;

/// A network in memory. Clones are handles to the same one.
#[derive(Clone)]
pub struct SimNetwork {
    wire: Arc<Mutex<Wire>>,
    base: Instant,
}

impl SimNetwork {
    /// Makes a network whose chances are drawn from `seed`.
    ///
    /// # Panics
    /// If the faults' window is 0.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        SimNetwork { wire: Arc::new(Mutex::new(Wire::new(seed, faults))), base: Instant::now() }
    }

    /// Changes what goes wrong from here on. What is on its way already is not touched.
    ///
    /// # Panics
    /// If the faults' window is 0.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().set_faults(faults);
    }

    /// From here on no driver's attempt to connect to this address is answered.
    pub fn silence(&self, address: SocketAddr) {
        self.lock().silence(address);
    }

    /// How many sockets for datagrams are open that a driver was given.
    #[must_use]
    pub fn open_datagram_sockets(&self) -> usize {
        self.lock().datagrams().open_at_drivers()
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        after(self.base, self.lock().now())
    }

    /// Moves the virtual time on, and everything that is due in between.
    pub fn advance(&self, by: Duration) {
        let mut wire = self.lock();
        let time = wire.later(by);
        wire.advance_to(time);
    }

    /// Moves the virtual time on to the next thing that is due, but by no more than `limit`.
    pub fn advance_to_next(&self, limit: Duration) {
        let mut wire = self.lock();
        let limit = wire.later(limit);
        let next = wire.next_due().map_or(limit, |next| next.min(limit));
        wire.advance_to(next);
    }

    /// Draws one of this many loops, of which there is at least one, to take the next turn.
    #[must_use]
    pub fn choose(&self, count: usize) -> usize {
        self.lock().choose(count)
    }

    /// Draws how late a loop is: see [`Faults::lag`].
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.lock().lag()
    }

    /// Notes in the history that something happens now which is not seen on the network.
    pub fn note(&self, what: impl Hash) {
        self.lock().note(&what);
    }

    /// A number that stands for all that has happened so far: what was sent, to whom and when, and
    /// what was [noted](Self::note).
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.lock().digest()
    }

    /// Whether nothing is on its way: without anybody's doing, nothing will change any more.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.lock().next_due().is_none()
    }

    /// How many ends of connections drivers have made or accepted, and are not closed. After the
    /// engine has closed everything it is 0, or something leaked.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.lock().open_at_drivers()
    }

    /// A panic of one test thread must not hide behind panics of the others.
    pub(super) fn lock(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
