//! What a service manager is told of an engine, in the protocol of sd_notify(3).

use std::env;
use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::log::limited;
use crate::shared::{Engine, spawn};

/// The thread that tells the service manager; it runs until the engine begins to stop.
const THREAD: &str = "millstream-service";
/// How often in the watchdog's time the reactors are looked at.
const LOOKS: u32 = 4;

#[cfg_attr(docsrs, doc(cfg(feature = "sd-notify")))]
impl Engine {
    /// Tells the service manager that the engine runs, and then that it stops (feature
    /// `sd-notify`): `READY=1` at once, `STOPPING=1` when it begins to stop. It is for services of
    /// systemd with `Type=notify` or `Type=notify-reload`, and for other managers with its
    /// protocol, sd_notify(3). Without one (the environment variable `NOTIFY_SOCKET` is not set) it
    /// does nothing.
    ///
    /// If the manager has a watchdog for the process (`WatchdogSec=`), it is fed as long as every
    /// reactor keeps turning: each is woken four times in that time, and if one has not finished a
    /// turn since the last time, because a callback blocks it, `WATCHDOG=1` is not sent.
    ///
    /// Any thread may call it, once for a process; it starts a thread that ends with the engine.
    ///
    /// # Errors
    /// The manager can't be reached, or there is no thread.
    pub fn notify_service_manager(&self) -> io::Result<()> {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(());
        }
        sd_notify::notify(&[NotifyState::Ready])?;
        let (engine, watchdog) = (self.clone(), sd_notify::watchdog_enabled());
        spawn(self, THREAD.to_owned(), move || engine.attend(watchdog))
    }

    /// The life of the thread that feeds the watchdog and waits for the stop.
    fn attend(&self, watchdog: Option<Duration>) {
        let pause = watchdog.map(|time| (time / LOOKS).max(Duration::from_millis(1)));
        let mut before = self.begin_look();
        while !self.wait_for_stop(pause) {
            let now = self.begin_look();
            let stuck = now.iter().zip(&before).position(|(now, before)| now == before);
            match stuck {
                None => tell(&[NotifyState::Watchdog]),
                Some(reactor) => limited!(warn, reactor, "a reactor does not come round"),
            }
            before = now;
        }
        tell(&[NotifyState::Stopping]);
    }

    /// How many turns each reactor has finished. Each is woken for one more.
    fn begin_look(&self) -> Vec<u64> {
        let ports = self.ports().iter();
        let turns = ports.clone().map(|reactor| reactor.counters.turns.get()).collect();
        ports.for_each(|reactor| reactor.waker.wake());
        turns
    }

    #[cfg(feature = "signals")]
    fn has_manager(&self) -> bool {
        self.has_thread(THREAD)
    }

    /// Tells that a reload begins, and, when the answer is dropped, that it has ended.
    #[cfg(feature = "signals")]
    pub(super) fn tell_reload(&self) -> Option<Reload<'_>> {
        self.has_manager().then(|| {
            match NotifyState::monotonic_usec_now() {
                Ok(now) => tell(&[NotifyState::Reloading, now]),
                Err(error) => tracing::warn!(%error, "the clock cannot be read"),
            }
            Reload(self)
        })
    }
}

/// A reload that the service manager was told of.
#[cfg(feature = "signals")]
pub(super) struct Reload<'a>(&'a Engine);

#[cfg(feature = "signals")]
impl Drop for Reload<'_> {
    fn drop(&mut self) {
        if self.0.has_manager() {
            tell(&[NotifyState::Ready]);
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
