//! What the threads that call share with the reactors: the way in, and the ledger.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::job::Job;
use super::ledger::{Ledger, OpenLimits};
use super::pool::Pool;
use super::request::Response;
use crate::codec::FramedReactors;
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

/// What a client's threads share.
pub(super) struct Shared {
    inboxes: Box<[Mutex<Inbox>]>,
    reactors: OnceLock<FramedReactors<Pool>>,
    next_number: AtomicU64,
    pub(super) ledger: Arc<Ledger>,
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
            next_number: AtomicU64::new(0),
            ledger: Arc::new(Ledger::new(open_limits)),
        }
    }

    /// Makes known how the reactors are asked.
    pub(super) fn set_reactors(&self, reactors: FramedReactors<Pool>) {
        let _ = self.reactors.set(reactors); // They are the same each time.
    }

    /// `None` only while the client starts.
    pub(super) fn reactors(&self) -> Option<&FramedReactors<Pool>> {
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

    /// Makes a reactor look after its calls soon.
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
}
