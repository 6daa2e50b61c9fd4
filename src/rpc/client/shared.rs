//! What the threads that call share with the reactors: the way in, the limits and the counters.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::job::Job;
use super::pool::Pool;
use super::request::Response;
use crate::Reactors;
use crate::codec::Framed;
use crate::rpc::Status;

/// What a reactor is told.
pub(super) enum Message {
    /// To run a call.
    Start { number: u64, job: Box<Job> },
    /// To end a call whose caller has no more interest in it.
    Cancel { number: u64 },
    /// To end a call that a layer answered later.
    Answer { number: u64, answer: Result<Response, Status> },
}

/// A reactor's messages.
#[derive(Default)]
struct Inbox {
    messages: VecDeque<Message>,
    /// The reactor knows that there is something.
    is_announced: bool,
    /// The client stops, and starts no more calls.
    is_closed: bool,
}

/// How many calls there may be at a time, and how many bytes they may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenLimits {
    pub(super) calls: usize,
    pub(super) bytes: usize,
}

/// What a client's threads share.
pub(super) struct Shared {
    inboxes: Box<[Mutex<Inbox>]>,
    reactors: OnceLock<Reactors<Framed<Pool>>>,
    open_limits: OpenLimits,
    open_calls: AtomicUsize,
    open_bytes: AtomicUsize,
    next_number: AtomicU64,
    pub(super) counters: Counters,
}

/// What was counted since the client was made, and what there is.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) started: AtomicU64,
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) connections: AtomicUsize,
    pub(super) connected: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The numbers of a client, as of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Calls and one-way requests that were begun, those that were refused at once included.
    pub started: u64,
    /// Those of them that ended well; a one-way request does when it was written to a connection.
    pub succeeded: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that are under way, and hold memory.
    pub in_flight: usize,
    /// How often a call was tried again.
    pub retried: u64,
    /// How often a callback, an end hook or a waker panicked.
    pub panics: u64,
    /// Connections that are open.
    pub connections: usize,
    /// Connections that were made.
    pub connected: u64,
    /// How often a connection could not be made.
    pub connect_failures: u64,
    /// Connections that broke, or were closed by the server without a word.
    pub lost: u64,
}

thread_local! {
    /// The client whose reactor this thread is, by the address of its shared part.
    static OWN_CLIENT: Cell<usize> = const { Cell::new(0) };
}

impl Shared {
    pub(super) fn new(reactors: usize, open_limits: OpenLimits) -> Self {
        Shared {
            inboxes: (0..reactors).map(|_| Mutex::default()).collect(),
            reactors: OnceLock::new(),
            open_limits,
            open_calls: AtomicUsize::new(0),
            open_bytes: AtomicUsize::new(0),
            next_number: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    /// Makes known how the reactors are asked.
    pub(super) fn set_reactors(&self, reactors: Reactors<Framed<Pool>>) {
        let _ = self.reactors.set(reactors); // They are the same each time.
    }

    /// `None` only while the client starts.
    pub(super) fn reactors(&self) -> Option<&Reactors<Framed<Pool>>> {
        self.reactors.get()
    }

    /// Notes that the calling thread is one of the client's reactors.
    pub(super) fn mark_own_thread(self: &Arc<Self>) {
        OWN_CLIENT.set(Arc::as_ptr(self).addr());
    }

    pub(super) fn is_own_thread(self: &Arc<Self>) -> bool {
        OWN_CLIENT.get() == Arc::as_ptr(self).addr()
    }

    /// The number of a new call, and the reactor that runs it: each in turn.
    pub(super) fn next_call(&self) -> (u64, usize) {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        (number, (number % self.inboxes.len() as u64) as usize)
    }

    /// Takes a call of this many bytes in, if there is room for it.
    pub(super) fn admit(&self, bytes: usize) -> Result<(), Status> {
        let calls = self.open_calls.fetch_add(1, Ordering::Relaxed);
        let others = self.open_bytes.fetch_add(bytes, Ordering::Relaxed);
        let OpenLimits { calls: most_calls, bytes: most_bytes } = self.open_limits;
        if calls < most_calls && others.saturating_add(bytes) <= most_bytes {
            return Ok(());
        }
        self.release(bytes);
        Err(Status::resource_exhausted(format!(
            "the client has {calls} calls of {others} bytes under way, at most {most_calls} of {most_bytes} may be"
        )))
    }

    /// A call that was admitted now holds this many bytes instead.
    pub(super) fn exchange(&self, before: usize, after: usize) {
        self.open_bytes.fetch_add(after, Ordering::Relaxed);
        self.open_bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// A call that was admitted has ended.
    pub(super) fn release(&self, bytes: usize) {
        self.open_calls.fetch_sub(1, Ordering::Relaxed);
        self.open_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Tells a reactor something. `false`: it comes too late and is dropped, and a call in it
    /// fails.
    pub(super) fn post(&self, reactor: usize, message: Message) -> bool {
        let mut inbox = self.inbox(reactor);
        if inbox.is_closed && !matches!(message, Message::Cancel { .. }) {
            drop(inbox);
            drop(message); // This may run the user's code, without the lock.
            return false;
        }
        inbox.messages.push_back(message);
        self.announce(reactor, inbox);
        true
    }

    /// Has a reactor look after its calls soon.
    pub(super) fn request_pump(&self, reactor: usize) {
        self.announce(reactor, self.inbox(reactor));
    }

    fn announce(&self, reactor: usize, mut inbox: MutexGuard<'_, Inbox>) {
        if std::mem::replace(&mut inbox.is_announced, true) {
            return;
        }
        drop(inbox);
        if let Some(reactors) = self.reactors() {
            // The closure owns nothing, and costs no memory. An error says that the reactor has
            // ended, and its handler has dropped the messages, or is going to.
            let _ = reactors.run(reactor, |pool, reactor| pool.pump(reactor));
        }
    }

    /// Takes all messages of a reactor, after those that it has; returns whether it has any. From
    /// here on it is called again when there are more.
    pub(super) fn take_messages(&self, reactor: usize, messages: &mut VecDeque<Message>) -> bool {
        let mut inbox = self.inbox(reactor);
        inbox.is_announced = false;
        if messages.is_empty() {
            std::mem::swap(&mut inbox.messages, messages);
        } else {
            messages.append(&mut inbox.messages);
        }
        !messages.is_empty()
    }

    /// Lets a reactor start no more calls.
    pub(super) fn close_inbox(&self, reactor: usize) {
        self.inbox(reactor).is_closed = true;
    }

    /// A panic under the lock is none of the user's code, and leaves nothing half done.
    fn inbox(&self, reactor: usize) -> MutexGuard<'_, Inbox> {
        self.inboxes[reactor].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stats(&self) -> ClientStats {
        let counters = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClientStats {
            started: read(&counters.started),
            succeeded: read(&counters.succeeded),
            failed: read(&counters.failed),
            in_flight: self.open_calls.load(Ordering::Relaxed),
            retried: read(&counters.retried),
            panics: read(&counters.panics),
            connections: counters.connections.load(Ordering::Relaxed),
            connected: read(&counters.connected),
            connect_failures: read(&counters.connect_failures),
            lost: read(&counters.lost),
        }
    }
}
