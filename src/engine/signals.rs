//! What the process's signals do to an engine.
//!
//! A handler of a signal is the whole process's, and can't be taken back safely. So a signal gets
//! one that stays, by signal-hook. It tells the engines that listen; when there is none any more,
//! it does what the signal does by default.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_default;
use signal_hook::iterator::Signals;

use crate::shared::Engine;
#[cfg(any(feature = "tls", feature = "tls-ring"))]
use crate::tls::TlsServer;
use crate::unwind::{Shielded, catch};

static STOP: [Handled; 2] = [Handled::new(SIGINT), Handled::new(SIGTERM)];
static HANGUP: [Handled; 1] = [Handled::new(SIGHUP)];

/// A signal, and how many engines listen for it.
struct Handled {
    signal: i32,
    /// `None` as long as its handler is not there.
    listeners: Mutex<Option<usize>>,
    /// Whether none listens, for the handler to see.
    unheard: AtomicBool,
}

/// An engine that listens for a signal, until it is dropped.
struct Listening(&'static Handled);

impl Handled {
    const fn new(signal: i32) -> Self {
        Handled { signal, listeners: Mutex::new(None), unheard: AtomicBool::new(false) }
    }

    fn listen(&'static self) -> io::Result<Listening> {
        let mut listeners = self.listeners();
        if listeners.is_none() {
            register_conditional_default(self.signal, &self.unheard)?;
        }
        *listeners = Some(listeners.unwrap_or(0) + 1);
        self.unheard.store(false, Ordering::SeqCst);
        Ok(Listening(self))
    }

    fn listeners(&self) -> MutexGuard<'_, Option<usize>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = self.0.listeners();
        *listeners = listeners.map(|count| count - 1);
        self.0.unheard.store(*listeners == Some(0), Ordering::SeqCst);
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "signals")))]
impl Engine {
    /// Stops the engine on SIGTERM or SIGINT (feature `signals`): the first one begins to drain it,
    /// as [`stop`](Self::stop) does with this timeout, and a second one cuts off at once what is
    /// left. In either case [`wait`](Self::wait) returns, and the process goes on after it.
    ///
    /// From here on the process has a handler for these signals, which stays, and along with which
    /// handlers that signal-hook knows of or that were there before are called, too. With several
    /// engines each of them is stopped. Once all that listened have ended, the signals end the
    /// process, as by default.
    ///
    /// Any thread may call it; it starts a thread that ends with the engine. On an engine that has
    /// ended, or in a simulation, it does nothing.
    ///
    /// # Errors
    /// The operating system refused a handler or a thread.
    #[doc(alias("ctrl-c", "graceful shutdown", "SIGINT", "SIGTERM"))]
    pub fn stop_on_signals(&self, timeout: Duration) -> io::Result<()> {
        let mut stopped = false;
        self.on_signals(&STOP, move |engine| {
            tracing::info!("a signal stops the engine");
            if stopped {
                engine.cut_off();
            }
            stopped = true;
            // That it is stopping already is as good.
            let _ = engine.stop(timeout);
        })
    }

    /// Runs a closure on each SIGHUP (feature `signals`), by convention the sign to read the
    /// configuration again. It runs on its own thread, never twice at a time, and signals that come
    /// meanwhile count as one. A panic in it is logged, and the next signal runs it again.
    ///
    /// With `notify_service_manager` (feature `sd-notify`) the service manager is told when it
    /// begins and when it has ended.
    ///
    /// What [`stop_on_signals`](Self::stop_on_signals) says about the process, the thread and the
    /// engine's end holds here as well.
    ///
    /// # Errors
    /// The operating system refused a handler or a thread.
    #[doc(alias("reload", "SIGHUP"))]
    pub fn on_hangup(&self, reload: impl FnMut() + Send + 'static) -> io::Result<()> {
        let mut reload = Shielded::new(reload);
        self.on_signals(&HANGUP, move |engine| {
            #[cfg(feature = "sd-notify")]
            let _told = engine.tell_reload();
            if catch(|| (*reload)()).is_err() {
                tracing::error!(?engine, "the closure for SIGHUP panicked");
            }
        })
    }

    /// Lets a thread act on signals until the engine ends.
    fn on_signals(
        &self,
        handled: &'static [Handled],
        mut act: impl FnMut(&Engine) + Send + 'static,
    ) -> io::Result<()> {
        let listening = handled.iter().map(Handled::listen).collect::<io::Result<Vec<_>>>()?;
        let mut signals = Signals::new(handled.iter().map(|handled| handled.signal))?;
        let (handle, engine) = (signals.handle(), self.clone());
        let body = move || signals.forever().for_each(|_| act(&engine));
        thread::Builder::new().name("millstream-signals".to_owned()).spawn(body)?;
        self.at_end(move || {
            drop(listening);
            handle.close();
        });
        Ok(())
    }
}

#[cfg(any(feature = "tls", feature = "tls-ring"))]
#[cfg_attr(docsrs, doc(cfg(feature = "signals")))]
impl TlsServer {
    /// [Reloads](Self::reload) the files on each SIGHUP (feature `signals`), until the engine ends.
    /// Files that can't be used are reported by a `tracing` event; those before stay in force.
    ///
    /// What [`Engine::on_hangup`] says about the process and the thread holds here as well. The
    /// two go together, in any order.
    ///
    /// # Errors
    /// The operating system refused a handler or a thread.
    pub fn reload_on_hangup(&self, engine: &Engine) -> io::Result<()> {
        let server = self.clone();
        engine.on_hangup(move || server.reload_and_tell())
    }
}
