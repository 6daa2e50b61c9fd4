//! What counts a connection in on its way to its reactor.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::counters::Counters;
use super::limits::{Account, Limits};

/// A connection's place in the counts while it is on its way to its reactor. Dropped on the way, it
/// is counted out.
pub(crate) struct Admission(Option<(Arc<Limits>, Arc<Counters>, Account)>);

impl Admission {
    /// Counts a connection in that the limits have admitted.
    pub(crate) fn new(limits: &Arc<Limits>, counters: &Arc<Counters>, account: Account) -> Self {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Admission::kept(limits, counters, account)
    }

    /// That of a connection that has kept its own.
    pub(crate) fn kept(limits: &Arc<Limits>, counters: &Arc<Counters>, account: Account) -> Self {
        Admission(Some((Arc::clone(limits), Arc::clone(counters), account)))
    }

    /// Counts a connection in that was not accepted, and so counts against no limit per source;
    /// `None` if a limit is reached.
    pub(crate) fn without_source(limits: &Arc<Limits>, counters: &Arc<Counters>) -> Option<Self> {
        let account = Account::default();
        let admitted = limits.admit(account, None);
        admitted.then(|| Admission::new(limits, counters, account))
    }

    /// The connection has arrived: its reactor counts it out.
    #[inline]
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Admission {
    #[inline]
    fn drop(&mut self) {
        if let Some((limits, counters, account)) = self.0.take() {
            // In this order: code that sees that a connection is gone may count on its place.
            limits.release(account);
            counters.connections.fetch_sub(1, Ordering::Release);
        }
    }
}
