//! The engine's threads, which its end waits for.

use std::io;
use std::mem::take;
use std::thread;

use super::engine::{Engine, OWN_ENGINE};
use crate::unwind::{catch, drop_caught};

/// Starts a thread that [`Engine::wait`] waits for.
pub(crate) fn spawn(
    engine: &Engine,
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    engine.threads().running.push(name.clone());
    let running = Running { engine: engine.clone(), name: name.clone() };
    let spawned = thread::Builder::new().name(name).spawn(move || {
        let running = running.enter();
        if catch(body).is_err() {
            // A fault of the engine itself: callbacks' panics never get here.
            running.fail();
        }
        // The last thread drops what the user gave the engine.
        let _ = drop_caught(running);
    });
    // On failure the closure was dropped, and with it `running`, which takes the name off the list.
    spawned.map(drop)
}

/// Keeps a thread on the engine's list of those that run, until it is dropped.
struct Running {
    engine: Engine,
    name: String,
}

impl Running {
    /// Says that the calling thread is the one.
    fn enter(self) -> Self {
        OWN_ENGINE.set(self.engine.identity());
        self
    }

    /// The thread panicked.
    fn fail(&self) {
        self.engine.fail(io::Error::other(format!("the thread {} panicked", self.name)));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut threads = self.engine.threads();
        threads.running.retain(|name| *name != self.name);
        self.engine.shared.threads_changed.notify_all();
        let at_end =
            if threads.running.is_empty() { take(&mut threads.at_end) } else { Vec::new() };
        drop(threads);
        at_end.into_iter().for_each(|act| act());
    }
}
