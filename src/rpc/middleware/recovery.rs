//! Panics that become statuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Middleware;
use crate::LogLimit;
use crate::rpc::call::{Answer, Call, Handler};
use crate::rpc::status::Status;
use crate::unwind::catch;

/// A panic in what is behind this layer ends the call with
/// [`Code::Internal`](crate::rpc::Code::Internal), and nothing else.
///
/// Without it, a panic in a method of a server closes the connection, with all calls on it. The
/// panic's message is logged, by a `tracing` event of level ERROR; the other end is not told.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    panics: Arc<AtomicU64>,
}

impl Recovery {
    /// The layer, which has counted no panic yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many panics it has caught, all its clones together. Any thread may ask.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

impl Middleware for Recovery {
    #[inline]
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        catch(|| next.handle(call)).unwrap_or_else(|panic| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            let panic = panic.message();
            let panic = panic.as_deref().unwrap_or("not a text");
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::error!(left_out, method = call.method(), panic, "a call panicked");
            }
            Err(Status::internal("the call panicked"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::lone::LoneCall;

    #[test]
    fn a_panic_is_counted_and_ends_its_call_alone() {
        let recovery = Recovery::new();
        let mut handler = |call: &mut Call<'_>| match call.timeout() {
            None => call.answer(b"well"),
            Some(_) => panic!("a secret"),
        };
        let mut call = LoneCall::new();
        assert_eq!(call.make(&recovery, &mut handler, || {}).result.unwrap(), "well");
        call.timeout = Some(std::time::Duration::ZERO);
        let end = call.clone().make(&recovery.clone(), &mut handler, || {});
        assert_eq!(end.result, Err(Status::internal("the call panicked")));
        call.timeout = None;
        assert_eq!(call.make(&recovery, &mut handler, || {}).result.unwrap(), "well");
        assert_eq!(recovery.panics(), 1);
    }

    #[test]
    fn what_was_answered_before_a_panic_stays() {
        let mut handler = |call: &mut Call<'_>| {
            call.answer(b"well")?;
            panic!("{} late", "too")
        };
        let end = LoneCall::new().make(&Recovery::new(), &mut handler, || {});
        assert_eq!(end.result.unwrap(), "well");
    }
}
