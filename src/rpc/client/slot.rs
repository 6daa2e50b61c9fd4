//! Where a call's end is put.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::request::Response;
use crate::rpc::Status;

/// Where the end of a call is put, and where it is waited for.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<Waited>,
}

#[derive(Default)]
struct Waited {
    result: Option<Result<Response, Status>>,
    waker: Option<Waker>,
}

impl Slot {
    /// The call has ended.
    pub(super) fn fill(&self, result: Result<Response, Status>) {
        let mut state = self.lock();
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the result, or has the waker called when it is there.
    pub(super) fn take(&self, waker: &Waker) -> Option<Result<Response, Status>> {
        let mut state = self.lock();
        if state.result.is_some() {
            return state.result.take();
        }
        let before = match &state.waker {
            Some(before) if before.will_wake(waker) => None,
            _ => state.waker.replace(waker.clone()),
        };
        drop(state);
        drop(before); // This may run the user's code, without the lock.
        None
    }

    fn lock(&self) -> MutexGuard<'_, Waited> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
