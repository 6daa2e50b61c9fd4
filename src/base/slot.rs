//! A value on its way from one thread to another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// Where one value is put by one thread, and waited for by another: as a future does, or blocking.
/// It needs no runtime.
#[derive(Debug)]
pub struct Slot<T> {
    state: Mutex<Waited<T>>,
}

#[derive(Debug)]
struct Waited<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

impl<T> Slot<T> {
    /// Puts the value there.
    pub fn fill(&self, value: T) {
        let mut state = self.lock();
        state.value = Some(value);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the value, or has the waker called when it is there.
    pub fn take(&self, waker: &Waker) -> Option<T> {
        let mut state = self.lock();
        if state.value.is_some() {
            return state.value.take();
        }
        let before = match &state.waker {
            Some(before) if before.will_wake(waker) => None,
            _ => state.waker.replace(waker.clone()),
        };
        drop(state);
        drop(before); // This may run the user's code, without the lock.
        None
    }

    /// Blocks this thread until the value is there, or until then; `None` in that case.
    pub fn wait(&self, until: Instant) -> Option<T> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            if let Some(value) = self.take(&waker) {
                return Some(value);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waited<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot { state: Mutex::new(Waited { value: None, waker: None }) }
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
