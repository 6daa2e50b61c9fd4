//! The running engine, as any thread may hold it.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use millstream_platform::address::{Address, PeerAddress};
use millstream_platform::driver::{DriverChoice, Wake};
use millstream_platform::time::after;

use super::counters::{Counters, ReactorStats};
use super::limits::{Account, Limits};
use super::listeners::{ListenerState, Listeners};
use super::memory::Memory;
use super::resolver::Resolver;
use crate::config::{AcceptFilter, Accepting, Config, Refusals};
use crate::log::limited;

/// How long after a stop's deadline [`Engine::wait`] waits for the threads to end, which by then
/// have nothing left to do but that.
const GRACE: Duration = Duration::from_millis(500);

/// A running engine, for any thread; clones are the same engine. Dropping the last one does not
/// stop it: [`stop`](Self::stop) does.
///
/// ```
/// use std::time::Duration;
/// use millstream::Engine;
/// # use millstream::{Action, Conn, EventHandler};
/// # struct Echo;
/// # impl EventHandler for Echo {
/// #     type State = ();
/// #     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
/// #         conn.output.write(conn.input.take_all());
/// #         Action::Continue
/// #     }
/// # }
///
/// let engine = Engine::builder().listen("127.0.0.1:0").start(|_reactor| Echo)?;
/// println!("listening on {}", engine.local_addrs()[0]);
/// let stopper = engine.clone(); // For another thread.
/// std::thread::spawn(move || stopper.stop(Duration::from_secs(5)));
/// engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("event loop", "server"))]
#[derive(Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    /// The name of the driver that is in force, and the choice that it came of.
    driver: &'static str,
    choice: DriverChoice,
    pub(super) listeners: Listeners,
    limits: Arc<Limits>,
    memory: Memory,
    resolver: Resolver,
    filter: AcceptFilter,
    refusals: Refusals,
    accept_errors: AtomicU64,
    faults: AtomicU64,
    /// When the stop's timeout ends. Set once, by the first stop.
    stop_deadline: OnceLock<Instant>,
    /// When what was left by then was cut off all the same.
    cut_off: OnceLock<Instant>,
    /// The threads, known once all of them are made.
    reactors: OnceLock<Vec<ReactorPort>>,
    /// What wakes the other threads, to be told of a stop.
    wakers: Mutex<Vec<Arc<dyn Wake>>>,
    /// The [`Reactors`] of the engine's handler, which the engine itself does not know.
    handle: OnceLock<Box<dyn Any + Send + Sync>>,
    threads: Mutex<Threads>,
    pub(super) threads_changed: Condvar,
}

/// What the engine knows of a reactor.
pub(crate) struct ReactorPort {
    pub(crate) waker: Arc<dyn Wake>,
    pub(crate) counters: Arc<Counters>,
    /// The inbox's depth, and how often it had to wake the reactor.
    pub(crate) inbox: Box<dyn Fn() -> (usize, u64) + Send + Sync>,
}

#[derive(Default)]
pub(super) struct Threads {
    /// The names of those that run.
    pub(super) running: Vec<String>,
    /// What is called when the last one has ended.
    pub(super) at_end: Vec<Box<dyn FnOnce() + Send>>,
    failure: Option<Arc<io::Error>>,
}

thread_local! {
    /// The engine whose thread this is, by the address of its shared part.
    pub(super) static OWN_ENGINE: Cell<usize> = const { Cell::new(0) };
}

/// The engine is stopping already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine is stopping already")]
pub struct AlreadyStopping;

/// Why [`Engine::wait`] did not see the engine end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// A callback still blocks these threads after the stop's deadline. They end when it returns.
    #[error("still running after the deadline: {}", threads.join(", "))]
    Blocked {
        /// The names of the threads.
        threads: Vec<String>,
    },
    /// The caller is one of the engine's threads, which can't wait for itself.
    #[error("an engine's own thread cannot wait for the engine")]
    OwnThread,
    /// The operating system failed a thread of the engine, and the engine stopped.
    #[error("a thread of the engine failed: {0}")]
    Failed(#[source] Arc<io::Error>),
}

/// The numbers of an engine, as of one moment.
///
/// ```
/// # use millstream::Engine;
/// /// A line for the log.
/// fn summary(engine: &Engine) -> String {
///     let stats = engine.stats();
///     let connections: usize = stats.reactors.iter().map(|reactor| reactor.connections).sum();
///     let received: u64 = stats.reactors.iter().map(|reactor| reactor.bytes_in).sum();
///     format!("{connections} connections, {} refused, {received} bytes received", stats.refused)
/// }
/// # use millstream::{Action, Conn, EventHandler};
/// # struct Echo;
/// # impl EventHandler for Echo {
/// #     type State = ();
/// #     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
/// #         conn.output.write(conn.input.take_all());
/// #         Action::Continue
/// #     }
/// # }
/// # let engine = Engine::builder().listen("127.0.0.1:0").start(|_reactor| Echo)?;
/// # assert_eq!(summary(&engine), "0 connections, 0 refused, 0 bytes received");
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("metrics", "monitoring"))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The name of the driver that is in force: `readiness`, or `simulated`. See
    /// [`Builder::driver`](crate::Builder::driver).
    pub driver: &'static str,
    /// Each reactor's.
    pub reactors: Vec<ReactorStats>,
    /// Sockets that listen at this moment. Where each reactor accepts for itself, a listener has
    /// one for each.
    pub listening_sockets: usize,
    /// Connections that a limit refused, or the
    /// [`Builder::memory_budget`](crate::Builder::memory_budget).
    pub refused: u64,
    /// How many bytes of memory unread input and unsent output hold at this moment.
    pub memory_held: usize,
    /// How many they may: the [`Builder::memory_budget`](crate::Builder::memory_budget).
    pub memory_budget: Option<usize>,
    /// Connections that the [`Builder::accept_filter`](crate::Builder::accept_filter) did not let
    /// in.
    pub filtered: u64,
    /// How often the [`Builder::accept_filter`](crate::Builder::accept_filter) panicked.
    pub filter_panics: u64,
    /// How often a listener could not accept.
    pub accept_errors: u64,
    /// How often the engine itself, or a library under it, panicked while it served a connection, a
    /// listener, an attempt to connect or a socket for datagrams. Only that one has failed, as
    /// after an error of the operating system. This is a bug: please report it.
    pub faults: u64,
}

impl Engine {
    pub(crate) fn new(config: &Config, resolver: Resolver, driver: &'static str) -> Self {
        let Config { max_connections, max_connections_per_source, ipv6_source_prefix, .. } = config;
        let limits =
            Limits::new(*max_connections, *max_connections_per_source, *ipv6_source_prefix);
        let shared = Shared {
            driver,
            choice: config.driver,
            listeners: Listeners::default(),
            limits: Arc::new(limits),
            memory: Memory::new(config.memory_budget.flatten()),
            resolver,
            filter: config.accept_filter.clone(),
            refusals: Refusals::default(),
            accept_errors: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            stop_deadline: OnceLock::new(),
            cut_off: OnceLock::new(),
            reactors: OnceLock::new(),
            wakers: Mutex::default(),
            handle: OnceLock::new(),
            threads: Mutex::default(),
            threads_changed: Condvar::new(),
        };
        Engine { shared: Arc::new(shared) }
    }

    /// What its driver was chosen by.
    pub(crate) fn driver_choice(&self) -> DriverChoice {
        self.shared.choice
    }

    /// The addresses it listens on, in the order they were given, each with its real port.
    pub fn local_addrs(&self) -> Vec<Address> {
        self.shared.listeners.addresses()
    }

    /// Where what knows the type of the engine's handler keeps how its reactors are asked.
    pub(crate) fn handle(&self) -> &OnceLock<Box<dyn Any + Send + Sync>> {
        &self.shared.handle
    }

    /// How many connections there are, those that are being made included.
    pub fn connections(&self) -> usize {
        let of = |reactor: &ReactorPort| reactor.counters.connections.load(Ordering::Acquire);
        self.ports().iter().map(of).sum()
    }

    /// The engine's numbers. It reads counters and disturbs no reactor.
    #[doc(alias("metrics", "monitoring"))]
    pub fn stats(&self) -> Stats {
        let snapshot = |reactor: &ReactorPort| {
            let (inbox_depth, wakeups) = (reactor.inbox)();
            reactor.counters.snapshot(inbox_depth, wakeups)
        };
        Stats {
            driver: self.shared.driver,
            reactors: self.ports().iter().map(snapshot).collect(),
            listening_sockets: self.shared.listeners.sockets(),
            refused: self.shared.limits.refused(),
            memory_held: self.shared.memory.held(),
            memory_budget: self.shared.memory.budget(),
            filtered: self.shared.refusals.filtered.load(Ordering::Relaxed),
            filter_panics: self.shared.refusals.panics.load(Ordering::Relaxed),
            accept_errors: self.shared.accept_errors.load(Ordering::Relaxed),
            faults: self.shared.faults.load(Ordering::Relaxed),
        }
    }

    /// Begins to stop the engine, and returns at once; [`wait`](Self::wait) waits for the end. Any
    /// thread may call it, a callback included.
    ///
    /// No connection is accepted from here on. Each reactor calls
    /// [`EventHandler::on_shutdown`](crate::EventHandler::on_shutdown), flushes and closes its
    /// connections, and ends. What is left after `timeout` is cut off.
    ///
    /// # Errors
    /// [`AlreadyStopping`] from the second call on; the first one's deadline stands.
    #[doc(alias("drain", "graceful shutdown"))]
    pub fn stop(&self, timeout: Duration) -> Result<(), AlreadyStopping> {
        self.stop_by(after(Instant::now(), timeout))
    }

    /// Begins to stop the engine with this deadline.
    pub(crate) fn stop_by(&self, deadline: Instant) -> Result<(), AlreadyStopping> {
        self.shared.stop_deadline.set(deadline).map_err(|_| AlreadyStopping)?;
        tracing::info!("the engine stops");
        self.shared.listeners.abandon();
        self.shared.resolver.stop();
        self.tell_deadline();
        Ok(())
    }

    /// Makes all threads, and those that wait for them, look at the stop's deadline.
    fn tell_deadline(&self) {
        // Under the lock, so that neither a thread that is just being made known is passed by, nor
        // a waiter that has just seen no deadline.
        let _threads = self.threads();
        for reactor in self.ports() {
            reactor.waker.wake();
        }
        self.wakers().iter().for_each(|waker| waker.wake());
        self.shared.threads_changed.notify_all();
    }

    /// Brings the deadline of a stop forward to this moment.
    #[cfg(feature = "signals")]
    pub(crate) fn cut_off(&self) {
        let _ = self.shared.cut_off.set(Instant::now());
        self.tell_deadline();
    }

    /// Waits until the engine has stopped and all its threads have ended. Once it is stopping, this
    /// returns a moment after the deadline at the latest. A thread on which a host name is being
    /// looked up is not waited for: it ends by itself as soon as the resolver returns.
    ///
    /// When this returned `Ok`, the handlers are dropped and everything that the engine had opened
    /// is closed, although there may still be handles of the engine and of its connections. Only
    /// the pipe that signals come by closes a moment later, with its thread.
    ///
    /// # Errors
    /// [`WaitError::Blocked`] if a callback didn't return by then, [`WaitError::OwnThread`] at once
    /// in a callback, [`WaitError::Failed`] if the engine ended because the operating system failed
    /// it.
    #[doc(alias = "join")]
    pub fn wait(&self) -> Result<(), WaitError> {
        if self.is_own_thread() {
            return Err(WaitError::OwnThread);
        }
        let mut threads = self.threads();
        while !threads.running.is_empty() {
            let Some(deadline) = self.stop_deadline() else {
                let changed = self.shared.threads_changed.wait(threads);
                threads = changed.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = after(deadline, GRACE).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(WaitError::Blocked { threads: threads.running.clone() });
            }
            let changed = self.shared.threads_changed.wait_timeout(threads, left);
            threads = changed.unwrap_or_else(PoisonError::into_inner).0;
        }
        threads.failure.clone().map_or(Ok(()), |error| Err(WaitError::Failed(error)))
    }

    /// Whether the calling thread is one of the engine's.
    pub(super) fn is_own_thread(&self) -> bool {
        OWN_ENGINE.get() == self.identity()
    }

    /// Has something done when all threads have ended; at once if that is so.
    #[cfg(feature = "signals")]
    pub(crate) fn at_end(&self, act: impl FnOnce() + Send + 'static) {
        let mut threads = self.threads();
        if !threads.running.is_empty() {
            return threads.at_end.push(Box::new(act));
        }
        drop(threads);
        act();
    }

    /// Waits until all threads have ended, however long that takes.
    pub(crate) fn join(&self) {
        let mut threads = self.threads();
        while !threads.running.is_empty() {
            let changed = self.shared.threads_changed.wait(threads);
            threads = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the engine stops, or for this long. Returns whether it stops.
    #[cfg(feature = "sd-notify")]
    pub(crate) fn wait_for_stop(&self, limit: Option<Duration>) -> bool {
        let end = limit.map(|limit| after(Instant::now(), limit));
        let mut threads = self.threads();
        while !self.is_stopping() {
            let changed = &self.shared.threads_changed;
            let Some(end) = end else {
                threads = changed.wait(threads).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = changed.wait_timeout(threads, left);
            threads = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Whether a thread of this name runs.
    #[cfg(all(feature = "sd-notify", feature = "signals"))]
    pub(crate) fn has_thread(&self, name: &str) -> bool {
        self.threads().running.iter().any(|running| running == name)
    }

    /// Whether the engine is stopping or has stopped.
    pub fn is_stopping(&self) -> bool {
        self.stop_deadline().is_some()
    }

    pub(crate) fn stop_deadline(&self) -> Option<Instant> {
        let deadline = self.shared.stop_deadline.get()?;
        Some(*self.shared.cut_off.get().unwrap_or(deadline).min(deadline))
    }

    /// Stops at once, because the operating system failed one of the threads.
    pub(crate) fn fail(&self, error: io::Error) {
        self.threads().failure.get_or_insert(Arc::new(error));
        let _ = self.stop(Duration::ZERO);
    }

    /// Whether the operating system has failed it.
    pub(crate) fn has_failed(&self) -> bool {
        self.threads().failure.is_some()
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        &self.shared.resolver
    }

    /// Whether a connection may come in, by the filter and by the limits, against which it counts
    /// from here on.
    pub(crate) fn admit(
        &self,
        peer: &PeerAddress,
        account: Account,
        listener: &ListenerState,
    ) -> bool {
        let Shared { filter, refusals, limits, memory, .. } = &*self.shared;
        let accepting = || Accepting {
            peer: peer.get(),
            listener: listener.id(),
            connections: limits.admitted(),
        };
        let fits = || memory.excess().is_none() || limits.refuse();
        filter.lets_in(accepting, refusals)
            && fits()
            && limits.admit(account, listener.rules().most)
    }

    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.shared.limits
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Makes all reactors run a turn.
    pub(crate) fn wake_reactors(&self) {
        self.ports().iter().for_each(|reactor| reactor.waker.wake());
    }

    pub(crate) fn note_accept_error(&self) {
        self.shared.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a panic of the engine itself.
    #[cold]
    pub(crate) fn note_fault(&self) {
        self.shared.faults.fetch_add(1, Ordering::Relaxed);
        limited!(error, "the engine panicked; what it served has failed");
    }

    /// Makes the reactors known, to be woken by a stop; also by one that came before this.
    pub(crate) fn set_reactors(&self, reactors: Vec<ReactorPort>) {
        let _threads = self.threads();
        let _ = self.shared.reactors.set(reactors);
        if self.is_stopping() {
            self.ports().iter().for_each(|reactor| reactor.waker.wake());
        }
    }

    /// Makes a thread known that is not a reactor, as [`set_reactors`](Self::set_reactors) does.
    pub(crate) fn wake_on_stop(&self, waker: Arc<dyn Wake>) {
        let _threads = self.threads();
        if self.is_stopping() {
            waker.wake();
        }
        self.wakers().push(waker);
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<Arc<dyn Wake>>> {
        self.shared.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn known_listeners(&self) -> &Listeners {
        &self.shared.listeners
    }

    pub(crate) fn ports(&self) -> &[ReactorPort] {
        self.shared.reactors.get().map_or(&[], Vec::as_slice)
    }

    pub(super) fn threads(&self) -> MutexGuard<'_, Threads> {
        self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn identity(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("addresses", &self.local_addrs())
            .field("reactors", &self.ports().len())
            .field("connections", &self.connections())
            .field("stopping", &self.is_stopping())
            .finish()
    }
}
