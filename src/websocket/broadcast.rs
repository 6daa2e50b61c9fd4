//! Sending to many.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::backlog::NotSent;
use super::handler::WebSocketHandler;
use super::prepared::PreparedMessage;
use super::remote::WebSocketRemote;
use crate::ConnId;

/// What becomes of a subscriber whose [backlog](super::WebSocketServer::backlog) is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowSubscriber {
    /// It misses the message.
    Skip,
    /// Its connection closes, with [`CloseCode::POLICY`](super::CloseCode::POLICY).
    Close,
    /// The sender waits for it this long, and then it misses the message. Never in a callback,
    /// whose reactor the sender would be waiting for.
    Wait(Duration),
}

/// WebSockets that are sent the same messages, from any thread: cheap to clone, `Send` and `Sync`.
/// A message is in memory once, and no subscriber holds up the others, unless by
/// [`SlowSubscriber::Wait`].
pub struct Broadcast<H: WebSocketHandler>(Arc<Subscribers<H>>);

struct Subscribers<H: WebSocketHandler> {
    slow: SlowSubscriber,
    remotes: Mutex<Arc<Vec<WebSocketRemote<H>>>>,
}

impl<H: WebSocketHandler> Broadcast<H> {
    /// Without subscribers.
    pub fn new(slow: SlowSubscriber) -> Self {
        Broadcast(Arc::new(Subscribers { slow, remotes: Mutex::default() }))
    }

    /// Adds a subscriber. One whose connection closes is taken out by itself.
    pub fn subscribe(&self, remote: WebSocketRemote<H>) {
        let mut remotes = self.lock();
        let remotes = Arc::make_mut(&mut remotes);
        remotes.retain(WebSocketRemote::is_open);
        remotes.push(remote);
    }

    /// Takes a subscriber out, if it is one.
    pub fn unsubscribe(&self, id: ConnId) {
        Arc::make_mut(&mut self.lock()).retain(|remote| remote.id() != id);
    }

    /// Sends a message to all subscribers. Returns how many of them are going to get it.
    pub fn send(&self, message: &PreparedMessage) -> usize {
        let remotes = Arc::clone(&self.lock());
        let (mut reached, mut closed) = (0, 0);
        for remote in remotes.iter() {
            let sent = match self.0.slow {
                SlowSubscriber::Skip => remote.send(message),
                SlowSubscriber::Close => remote.send_or_close(message),
                SlowSubscriber::Wait(timeout) => remote.send_within(message, timeout),
            };
            match sent {
                Ok(()) => reached += 1,
                Err(NotSent::Closed) => closed += 1,
                Err(NotSent::Full) => {}
            }
        }
        drop(remotes); // So that the list is not copied.
        if closed > 0 {
            Arc::make_mut(&mut self.lock()).retain(WebSocketRemote::is_open);
        }
        reached
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Vec<WebSocketRemote<H>>>> {
        self.0.remotes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: WebSocketHandler> Clone for Broadcast<H> {
    fn clone(&self) -> Self {
        Broadcast(Arc::clone(&self.0))
    }
}

impl<H: WebSocketHandler> fmt::Debug for Broadcast<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subscribers = self.lock().len();
        f.debug_struct("Broadcast").field("subscribers", &subscribers).finish_non_exhaustive()
    }
}
