//! Subscribers on other reactors.
//!
//! Each reactor knows which filters the others have subscribers of: a reactor tells all others when
//! a subscription begins and ends. So a message goes once to each reactor that wants it, and there
//! to the subscribers. Messages of a publisher stay in order, because what one thread asks of a
//! reactor is done in order.
//!
//! A subscription must count for all that is published after it, on whatever reactor. So a reactor
//! counts in [`Peer::told`] what it tells another one, and that one serves no publisher before it
//! has caught up.
//!
//! **What is bounded**: of what is on its way to a reactor, and of the subscriptions it is told of.
//! Beyond that a connection is [held](Held) until all others have done what it asked before.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use millstream::{Conn, Reactor, ReactorAction};

use crate::broker::Broker;
use crate::fanout::{Among, Run};
use crate::held::Held;
use crate::interest::{Subscriber, SubscriptionKey};
use crate::protocol::{Message, Reply};

/// With this many bytes on their way to a reactor, publishers wait until theirs have come there.
const MOST_ON_THE_WAY: usize = 1024 * 1024;
/// After having told others this many things, a client waits until they have done them.
pub const MOST_UNCONFIRMED: usize = 1024;

/// What all reactors know of one of them.
#[derive(Default)]
pub struct Peer {
    /// The bytes of messages that it has not brought to its subscribers yet.
    on_the_way: AtomicUsize,
    /// It has subscribers with much to read still.
    lags: AtomicBool,
    /// How many beginnings and ends of subscriptions it was told of.
    told: AtomicU64,
}

/// Messages for the subscribers of other reactors.
pub struct Batch {
    subject: Box<[u8]>,
    /// The queue group one of whose members there gets each of them; otherwise all others do.
    queue: Option<Box<[u8]>>,
    /// The tails of the messages, one behind the other.
    tails: Vec<u8>,
    messages: Vec<Part>,
}

/// What makes a message of its tail.
struct Part {
    tail: usize,
    reply: usize,
    size: usize,
    headers: usize,
}

impl Batch {
    pub fn new<'m>(
        subject: &[u8],
        queue: Option<&[u8]>,
        messages: impl IntoIterator<Item = &'m Message<'m>>,
    ) -> Self {
        let (subject, queue) = (subject.into(), queue.map(Box::from));
        let mut batch = Batch { subject, queue, tails: Vec::new(), messages: Vec::new() };
        for Message { reply, size, headers, tail } in messages {
            batch.tails.extend_from_slice(tail);
            let (tail, reply) = (tail.len(), reply.len());
            batch.messages.push(Part { tail, reply, size: *size, headers: *headers });
        }
        batch
    }

    fn run(&self) -> Run<'_> {
        let mut rest = &self.tails[..];
        let messages = self.messages.iter().map(|part| {
            let tail;
            (tail, rest) = rest.split_at(part.tail);
            let (reply, size, headers) = (&tail[..part.reply], part.size, part.headers);
            Message { reply, size, headers, tail: Cow::Borrowed(tail) }
        });
        Run { subject: &self.subject, messages: messages.collect() }
    }
}

impl Broker {
    /// Sends what other reactors are to get, and holds the publisher if there is too much of it, or
    /// if subscribers of its messages lag.
    pub fn finish_delivery(&mut self, conn: &mut Conn<'_, Self>) {
        if self.outgoing.is_empty() && self.slow.is_empty() {
            return;
        }
        let is_busy = |reactor: usize| self.shared.peers[reactor].is_busy();
        let holds = !self.slow.is_empty() || self.outgoing.iter().any(|(to, _)| is_busy(*to));
        let hold = holds.then(|| Held::of(conn, None));
        for subscriber in self.slow.drain(..) {
            if let Some(holds) = self.lagging.get_mut(&subscriber) {
                holds.extend(hold.clone());
            }
        }
        for (to, batch) in self.outgoing.drain(..) {
            let hold = hold.clone();
            self.shared.peers[to].on_the_way.fetch_add(batch.tails.len(), Ordering::Relaxed);
            conn.state.unconfirmed += 1;
            // One that has stopped has nobody left to get it.
            let _ = conn.reactors().run(to, move |broker, reactor| {
                broker.receive(reactor, &batch, hold.as_ref());
                ReactorAction::Continue
            });
        }
    }

    /// Brings messages of another reactor to the subscribers here.
    fn receive(
        &mut self,
        reactor: &mut Reactor<'_, Self>,
        batch: &Batch,
        hold: Option<&Arc<Held>>,
    ) {
        let run = batch.run();
        let matched = self.matched(run.subject);
        match &batch.queue {
            None => {
                self.fan_out(reactor, &run, &matched);
            }
            Some(name) => {
                if let Some(queue) = matched.queues.iter().find(|queue| queue.name == *name) {
                    self.fan_out_queue(reactor, &run, queue, Among::Local);
                }
            }
        }
        for subscriber in self.slow.drain(..) {
            if let Some(holds) = self.lagging.get_mut(&subscriber) {
                holds.extend(hold.cloned());
            }
        }
        let peer = &self.shared.peers[self.reactor];
        peer.on_the_way.fetch_sub(batch.tails.len(), Ordering::Relaxed);
    }

    /// Tells the other reactors that a subscription begins or ends.
    pub fn tell_others(&self, conn: &mut Conn<'_, Self>, key: SubscriptionKey, begins: bool) {
        let subscription = &self.subscriptions[key];
        for other in self.others() {
            conn.state.unconfirmed += 1;
            self.shared.peers[other].told.fetch_add(1, Ordering::Release);
            let filter = Arc::clone(&subscription.filter);
            let (queue, here) = (subscription.queue.clone(), Subscriber::Elsewhere(self.reactor));
            // One that has stopped has no publishers.
            let _ = conn.reactors().run(other, move |broker, _| {
                broker.heard += 1;
                match begins {
                    true => broker.interest.add(&filter, queue.as_deref(), here),
                    false => broker.interest.remove(&filter, queue.as_deref(), here),
                }
                ReactorAction::Continue
            });
        }
    }

    /// Replies when all reactors have done what the connection caused: its messages are with their
    /// subscribers.
    pub fn confirm(&self, conn: &mut Conn<'_, Self>, reply: Option<Reply<'static>>) {
        if std::mem::take(&mut conn.state.unconfirmed) == 0 {
            if let Some(reply) = reply {
                reply.write(&mut conn.output);
            }
            return;
        }
        let hold = Held::of(conn, reply);
        for other in self.others() {
            let hold = Arc::clone(&hold);
            let _ = conn.reactors().run(other, move |_, _| {
                drop(hold);
                ReactorAction::Continue
            });
        }
    }

    /// Holds a connection if other reactors have told of subscriptions that are not known here yet.
    /// They are noted before what is asked now.
    pub fn catch_up(&self, conn: &mut Conn<'_, Self>) {
        if self.shared.peers[self.reactor].told.load(Ordering::Acquire) != self.heard {
            let held = Held::of(conn, None);
            let _ = conn.reactors().run(self.reactor, move |_, _| {
                drop(held);
                ReactorAction::Continue
            });
        }
    }

    /// Tells whether there are subscribers here that lag.
    pub fn tell_lagging(&self) {
        let peer = &self.shared.peers[self.reactor];
        peer.lags.store(!self.lagging.is_empty(), Ordering::Relaxed);
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.reactor;
        (0..self.shared.peers.len()).filter(move |reactor| *reactor != own)
    }
}

impl Peer {
    fn is_busy(&self) -> bool {
        let on_the_way = self.on_the_way.load(Ordering::Relaxed);
        on_the_way > MOST_ON_THE_WAY || self.lags.load(Ordering::Relaxed)
    }
}
