//! How the one that asked for something learns the outcome.

use crate::unwind::catch;

/// The connection is closing or closed, so nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct Closed;

/// The engine has stopped, so nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

/// Calls a closure exactly once: with what [`complete`](Self::complete) is given, or with
/// [`Closed`] when it is dropped before.
pub(crate) struct Completion(Option<Done>);

type Done = Box<dyn FnOnce(Result<(), Closed>) + Send>;

impl Completion {
    pub(crate) fn new(done: impl FnOnce(Result<(), Closed>) + Send + 'static) -> Self {
        Completion(Some(Box::new(done)))
    }

    /// Completes; returns whether the closure panicked.
    pub(crate) fn complete(mut self, result: Result<(), Closed>) -> bool {
        self.call(result)
    }

    fn call(&mut self, result: Result<(), Closed>) -> bool {
        let Some(done) = self.0.take() else { return false };
        catch(|| done(result)).is_err()
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.call(Err(Closed));
    }
}
