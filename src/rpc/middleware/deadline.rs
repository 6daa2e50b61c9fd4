//! How long calls may take.

use std::time::Duration;

use super::Middleware;
use crate::rpc::call::{Answer, Call, Handler};
use crate::rpc::status::Status;

/// Gives calls without a deadline one, and limits those that have one.
///
/// ```
/// use std::time::Duration;
///
/// use millstream::rpc::Deadline;
///
/// let deadline = Deadline::new().or(Duration::from_secs(1)).at_most(Duration::from_secs(30));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline {
    default: Option<Duration>,
    most: Option<Duration>,
}

impl Deadline {
    /// Leaves all calls as they are.
    pub const fn new() -> Self {
        Deadline { default: None, most: None }
    }

    /// The time of a call that has no deadline.
    #[must_use]
    pub const fn or(self, timeout: Duration) -> Self {
        Deadline { default: Some(timeout), ..self }
    }

    /// The most time that any call has, whatever its caller wants.
    #[must_use]
    pub const fn at_most(self, timeout: Duration) -> Self {
        Deadline { most: Some(timeout), ..self }
    }
}

impl Middleware for Deadline {
    #[inline]
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        let default = self.default.filter(|_| call.deadline().is_none());
        for timeout in [default, self.most].into_iter().flatten() {
            call.limit_timeout(timeout);
        }
        next.handle(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::lone::LoneCall;

    /// The seconds that the handler sees.
    fn seen(deadline: Deadline, timeout: Option<u64>) -> Option<u64> {
        let mut call = LoneCall::new();
        call.timeout = timeout.map(Duration::from_secs);
        let mut seen = None;
        let mut handler = |call: &mut Call<'_>| {
            seen = call.timeout().map(|timeout| timeout.as_secs());
            call.answer(b"")
        };
        call.make(&deadline, &mut handler, || {}).result.unwrap();
        seen
    }

    #[test]
    fn calls_have_the_time_that_they_are_given() {
        let seconds = Duration::from_secs;
        let none = Deadline::new();
        assert_eq!([seen(none, None), seen(none, Some(5))], [None, Some(5)]);
        let default = none.or(seconds(3));
        assert_eq!([seen(default, None), seen(default, Some(5))], [Some(3), Some(5)]);
        let most = none.at_most(seconds(4));
        assert_eq!([seen(most, None), seen(most, Some(5))], [Some(4), Some(4)]);
        assert_eq!(seen(most, Some(2)), Some(2));
        let both = most.or(seconds(9));
        assert_eq!([seen(both, None), seen(both, Some(5))], [Some(4), Some(4)]);
        assert_eq!(seen(none.or(Duration::MAX), None), None, "later than the clock can tell");
        assert_eq!(seen(most, Some(u64::MAX)), Some(4), "later than the clock can tell");
    }
}
