//! What the gateway leads to: a typed service, which knows nothing of HTTP.

use std::thread;
use std::time::Duration;

use millstream::rpc::{Call, Status, TypedReply};

millstream::rpc::service! {
    /// Calculates.
    pub(crate) trait Calculator in "demo.Calculator" {
        /// What one number is, divided by the other, and what is left.
        idempotent fn divide(number: i64, by: i64) -> (i64, i64);
        /// Adds up, which takes this many milliseconds.
        later fn sum(numbers: Vec<i64>, millis: u64) -> i64;
    }

    /// Calls a [`Calculator`].
    pub(crate) struct CalculatorClient;
}

/// The service; each reactor has its own.
pub(crate) struct Worker;

impl Calculator for Worker {
    type Error = Status;

    fn divide(&mut self, _call: &mut Call<'_>, number: i64, by: i64) -> Result<(i64, i64), Status> {
        let quotient = number.checked_div(by).zip(number.checked_rem(by));
        quotient.ok_or_else(|| Status::invalid_argument(format!("{number} divided by {by}")))
    }

    /// A reactor must not wait, so a thread does.
    fn sum(
        &mut self,
        _call: &mut Call<'_>,
        numbers: Vec<i64>,
        millis: u64,
        reply: TypedReply<i64>,
    ) {
        let work = move || {
            thread::sleep(Duration::from_millis(millis));
            match numbers.into_iter().try_fold(0, i64::checked_add) {
                Some(sum) => reply.send(&sum),
                None => reply.fail(Status::out_of_range("the sum is too large")),
            }
        };
        // If there is no thread, the reply is dropped, and the caller is told.
        let _ = thread::Builder::new().spawn(work);
    }
}
