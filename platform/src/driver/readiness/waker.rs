//! Ending a wait from other threads.

use std::io;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Waker};

use crate::driver::Wake;
use crate::time::after;

/// mio's poll back end takes a wake's token and then empties the pipe that wakes come by. A wake
/// between the two is not told until something else happens.
const LOSES_WAKES: bool = cfg!(mio_unsupported_force_poll_poll);
/// How often it is looked, where wakes get lost, whether there was one.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct ReadinessWaker {
    waker: Waker,
    /// Where wakes get lost: there was one since the last wait.
    woken: AtomicBool,
}

impl ReadinessWaker {
    pub(super) fn new(waker: Waker) -> Self {
        ReadinessWaker { waker, woken: AtomicBool::new(false) }
    }

    /// Polls. Returns whether there was a wake that the events may not tell of.
    #[inline]
    pub(super) fn poll(
        &self,
        poll: &mut Poll,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        if LOSES_WAKES {
            return self.poll_and_look(poll, events, timeout);
        }
        poll.poll(events, timeout)?;
        Ok(false)
    }

    fn poll_and_look(
        &self,
        poll: &mut Poll,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        let end = timeout.map(|timeout| after(Instant::now(), timeout));
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let slice = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
            poll.poll(events, Some(slice))?;
            let woken = self.woken.swap(false, Ordering::Relaxed);
            if woken || !events.is_empty() || left == Some(slice) {
                return Ok(woken);
            }
        }
    }
}

/// The waker as others have it: its descriptor closes with the driver, although they still have
/// this.
pub(super) struct WakerHandle(pub(super) Weak<ReadinessWaker>);

impl Wake for WakerHandle {
    fn wake(&self) {
        let Some(own) = self.0.upgrade() else { return };
        if LOSES_WAKES {
            own.woken.store(true, Ordering::Relaxed);
        }
        // It can fail only with a full pipe or counter, and then a wake is pending already.
        let _ = own.waker.wake();
    }
}
