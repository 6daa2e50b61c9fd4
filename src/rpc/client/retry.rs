//! Which calls are tried again.

use std::time::Duration;

use crate::Backoff;
use crate::rpc::{Code, Status};

/// Which calls are tried again, how often, and after what time.
///
/// A call that failed is tried again if
///
/// - it was not run: the server says so, or took no more requests when it came. Whatever it does,
///   it is done once; or it is [idempotent](super::Request::idempotent), so that it does no harm to
///   run it twice;
/// - and its status is [`Code::Unavailable`]: another attempt may succeed;
/// - and there were fewer attempts than `max_attempts`;
/// - and the next one begins before its deadline, which is one for all attempts.
///
/// A call that was never sent, because its connection broke before, is sent on another one; that is
/// no attempt. One that ends because
/// [no server can be reached](super::ClientBuilder::wait_for_ready) is not tried again.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    max_attempts: u32,
    backoff: Backoff,
}

impl RetryPolicy {
    /// Up to this many attempts, the first one included, with the delays of `backoff`. Each call
    /// has its own delays.
    pub fn new(max_attempts: u32, backoff: Backoff) -> Self {
        RetryPolicy { max_attempts, backoff }
    }

    /// No call is tried again.
    pub fn never() -> Self {
        Self::new(1, Backoff::new(Duration::ZERO, Duration::ZERO))
    }

    /// Whether a call is retried after this many attempts, of which the last one ended with this
    /// status.
    pub(super) fn allows(
        &self,
        attempts: u32,
        idempotent: bool,
        status: &Status,
        may_have_run: bool,
    ) -> bool {
        let is_safe = idempotent || !may_have_run;
        let is_promising = status.code() == Code::Unavailable;
        attempts < self.max_attempts && is_safe && is_promising
    }

    /// The delays of one call.
    pub(super) fn backoff(&self, seed: u64) -> Backoff {
        self.backoff.clone().seed(seed)
    }
}

/// Up to three attempts, with delays of at most 50 and 100 milliseconds.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new(3, Backoff::new(Duration::from_millis(50), Duration::from_secs(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_safe_and_promising_is_tried_again() {
        let policy = RetryPolicy::default();
        let unavailable = Status::unavailable("");
        let exhausted = Status::resource_exhausted("");
        let not_found = Status::not_found("");
        for (attempts, idempotent, status, may_have_run, expected) in [
            (1, true, &unavailable, true, true),
            (1, true, &unavailable, false, true),
            (1, false, &unavailable, false, true),
            (1, false, &unavailable, true, false),
            (1, true, &exhausted, false, false),
            (1, true, &not_found, false, false),
            (2, true, &unavailable, true, true),
            (3, true, &unavailable, false, false),
        ] {
            let allowed = policy.allows(attempts, idempotent, status, may_have_run);
            assert_eq!(allowed, expected, "{attempts} {idempotent} {status} {may_have_run}");
        }
        assert!(!RetryPolicy::never().allows(1, true, &unavailable, false));
    }
}
