//! What counts a connection in on its way to its reactor.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::counters::Counters;
use super::engine::Engine;
use super::limits::Account;

/// A connection's place in the counts while it is on its way to its reactor. Dropped on the way, it
/// is counted out.
pub(crate) struct Admission(Option<(Engine, Arc<Counters>, Account)>);

impl Admission {
    /// Counts a connection in that the limits have admitted.
    pub(crate) fn new(engine: &Engine, counters: &Arc<Counters>, account: Account) -> Self {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Admission::kept(engine, counters, account)
    }

    /// That of a connection that has kept its own.
    pub(crate) fn kept(engine: &Engine, counters: &Arc<Counters>, account: Account) -> Self {
        Admission(Some((engine.clone(), Arc::clone(counters), account)))
    }

    /// Counts a connection in that was not accepted, and so counts against no limit per source; `None` if a
    /// limit is reached.
    pub(crate) fn without_source(engine: &Engine, counters: &Arc<Counters>) -> Option<Self> {
        let account = Account::default();
        let admitted = engine.shared.limits.admit(account, None);
        admitted.then(|| Admission::new(engine, counters, account))
    }

    /// The connection has arrived: its reactor counts it out.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some((engine, counters, account)) = self.0.take() {
            engine.release(&counters, account);
        }
    }
}
