//! The handle of an engine's reactors.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use super::Reactor;
use super::mailbox::{Command, Mailbox, Order};
use crate::conn::ConnId;
use crate::handler::{Action, EventHandler};

/// The engine has stopped, so nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

/// All reactors of an engine, for any thread: how what one reactor keeps is reached from another, by
/// going there. [`Conn::reactors`](crate::Conn::reactors) has it. Cheap to clone, `Send` and `Sync`.
///
/// What one thread asks of a reactor is done in the order it asked, what it asks of the reactor's
/// connections by [`Remote`](crate::Remote) included.
pub struct Reactors<H: EventHandler>(Arc<[OnceLock<Arc<Mailbox<H>>>]>);

impl<H: EventHandler> Reactors<H> {
    /// A handle of reactors that are still to be made.
    pub(crate) fn new(count: usize) -> Self {
        Reactors((0..count).map(|_| OnceLock::new()).collect())
    }

    /// Makes a reactor known.
    pub(crate) fn set(&self, reactor: usize, mailbox: Arc<Mailbox<H>>) {
        let set = self.0[reactor].set(mailbox);
        debug_assert!(set.is_ok(), "reactor {reactor} is made twice");
    }

    /// Asks a connection. What can't be done any more comes back.
    pub(crate) fn ask(&self, id: ConnId, order: Order<H>) -> Result<(), Command<H>> {
        let command = Command::Connection { token: id.token, order };
        match self.mailbox(id.reactor()) {
            Some(mailbox) => mailbox.post(command),
            None => Err(command),
        }
    }

    /// `None` only while the engine starts.
    fn mailbox(&self, reactor: usize) -> Option<&Arc<Mailbox<H>>> {
        self.0[reactor].get()
    }

    /// How many reactors the engine has, of which each has a handler of its own.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Runs a closure with a reactor's handler on that reactor's thread, as a callback like all others.
    /// A closure that the reactor doesn't come to any more before it stops is dropped without being
    /// run.
    ///
    /// # Errors
    /// [`Stopped`] if the reactor has stopped.
    ///
    /// # Panics
    /// If there is no such reactor: `reactor` is an index below [`len`](Self::len).
    pub fn run(
        &self,
        reactor: usize,
        closure: impl FnOnce(&mut H, &mut Reactor<'_>) -> Action + Send + 'static,
    ) -> Result<(), Stopped> {
        let Some(mailbox) = self.mailbox(reactor) else { return Err(Stopped) };
        mailbox.post(Command::Reactor(Box::new(closure))).map_err(|command| {
            // What a closure owns may panic when it is dropped, which is not the caller's concern.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(command)));
            Stopped
        })
    }
}

impl<H: EventHandler> Clone for Reactors<H> {
    fn clone(&self) -> Self {
        Reactors(Arc::clone(&self.0))
    }
}

impl<H: EventHandler> fmt::Debug for Reactors<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactors").field("len", &self.len()).finish()
    }
}
