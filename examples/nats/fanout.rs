//! From a publisher to its subscribers.
//!
//! A read brings many messages, often for the same subject. They are one [`Run`], and a subscriber
//! gets all of them in one piece. That piece depends on the subscriber only by its sid and by
//! whether it takes headers, and clients number their subscriptions alike. So most subscribers of a
//! subject get the same piece, which is made once and shared.

use std::rc::Rc;
use std::sync::Arc;

use millstream::{Action, Bytes, Conn, ConnId, Neighbours, Reactor};

use crate::broker::{Broker, Subscription};
use crate::interest::{Matched, Queue, Subscriber, SubscriptionKey};
use crate::protocol::Message;
use crate::reactors::Batch;

/// Messages for one subject, in order.
#[derive(Default)]
pub struct Run<'a> {
    pub subject: &'a [u8],
    pub messages: Vec<Message<'a>>,
}

/// What brings messages to the subscribers of a reactor: a callback of the publisher's connection,
/// or of a reactor that got them from another one.
pub trait Source {
    fn neighbours(&self) -> &Neighbours<Broker>;

    /// Whether a connection is the publisher.
    fn is(&self, conn: ConnId) -> bool;

    /// Whether the publisher wants its own messages.
    fn echoes(&self) -> bool;

    /// Writes to the publisher, at once.
    fn echo(&mut self, piece: Bytes);
}

/// Which members of a queue group a message may go to.
#[derive(Clone, Copy, PartialEq)]
pub enum Among {
    All,
    /// Those of this reactor.
    Local,
}

impl Source for Conn<'_, Broker> {
    fn neighbours(&self) -> &Neighbours<Broker> {
        self.neighbours()
    }

    fn is(&self, conn: ConnId) -> bool {
        self.id() == conn
    }

    fn echoes(&self) -> bool {
        self.state.wishes.echo
    }

    fn echo(&mut self, piece: Bytes) {
        self.output.write_bytes(piece);
    }
}

impl Source for Reactor<'_, Broker> {
    fn neighbours(&self) -> &Neighbours<Broker> {
        self.neighbours()
    }

    fn is(&self, _conn: ConnId) -> bool {
        false
    }

    fn echoes(&self) -> bool {
        false
    }

    fn echo(&mut self, _piece: Bytes) {}
}

impl Broker {
    /// Brings the messages of a publisher to all who want them.
    #[inline]
    pub fn deliver(&mut self, conn: &mut Conn<'_, Self>, run: &mut Run<'_>) {
        if !run.messages.is_empty() {
            self.deliver_some(conn, run);
            run.messages.clear();
        }
    }

    fn deliver_some(&mut self, conn: &mut Conn<'_, Self>, run: &Run<'_>) {
        let bytes: usize = run.messages.iter().map(|message| message.size).sum();
        self.stats().messages_in.add(run.messages.len() as u64);
        self.stats().bytes_in.add(bytes as u64);
        let matched = self.matched(run.subject);
        let mut reached = self.fan_out(conn, run, &matched);
        for queue in &matched.queues {
            reached = reached.max(self.fan_out_queue(conn, run, queue, Among::All));
        }
        if !matched.reactors.is_empty() {
            reached = run.messages.len();
            let batch = Arc::new(Batch::new(run.subject, None, &run.messages));
            let reactors = matched.reactors.iter();
            self.outgoing.extend(reactors.map(|reactor| (*reactor, Arc::clone(&batch))));
        }
        self.finish_delivery(conn);
        if conn.state.wishes.no_responders {
            for message in &run.messages[reached..] {
                self.tell_no_responders(conn, message.reply);
            }
        }
    }

    /// Those who want the messages of a subject.
    pub fn matched(&mut self, subject: &[u8]) -> Rc<Matched> {
        let Broker { interest, subscriptions, .. } = self;
        interest.of(subject, |key| {
            let subscription = &subscriptions[key];
            (subscription.headers, &*subscription.sid)
        })
    }

    /// Brings the messages of a run to this reactor's subscribers, but for queue groups. Returns
    /// how many of them, from the first on, somebody got.
    pub fn fan_out(&mut self, source: &mut impl Source, run: &Run<'_>, matched: &Matched) -> usize {
        let mut reached = 0;
        for group in &matched.groups {
            let mut any = None;
            for &key in group {
                let count = self.allot(source, key, run.messages.len());
                reached = reached.max(count);
                let conn = self.subscriptions[key].conn;
                if count == run.messages.len() && !source.is(conn) {
                    self.targets.push(conn);
                    any = Some(key);
                } else if count > 0 {
                    self.send(source, key, run.subject, run.messages[..count].iter());
                }
            }
            if let Some(key) = any {
                let piece = piece(run.subject, &self.subscriptions[key], run.messages.iter());
                self.stats().count_out(self.targets.len(), &run.messages);
                source.neighbours().write_to_all(self.targets.drain(..), piece);
            }
        }
        reached
    }

    /// Brings each message of a run to one member of a queue group. Returns as
    /// [`fan_out`](Self::fan_out) does.
    pub fn fan_out_queue(
        &mut self,
        source: &mut impl Source,
        run: &Run<'_>,
        queue: &Queue,
        among: Among,
    ) -> usize {
        let picks = (0..run.messages.len()).map_while(|index| {
            let member = self.pick(source, &queue.members, among)?;
            Some((member, index))
        });
        let mut picks: Vec<(Subscriber, usize)> = picks.collect();
        let reached = picks.len();
        picks.sort_unstable(); // What one member gets stays in order.
        for picks in picks.chunk_by(|one, other| one.0 == other.0) {
            let messages = picks.iter().map(|(_, index)| &run.messages[*index]);
            match picks[0].0 {
                Subscriber::Local(key) => self.send(source, key, run.subject, messages),
                Subscriber::Elsewhere(reactor) => {
                    let batch = Batch::new(run.subject, Some(&queue.name), messages);
                    self.outgoing.push((reactor, Arc::new(batch)));
                }
            }
        }
        reached
    }

    /// Any member of a queue group that takes a message.
    fn pick(
        &mut self,
        source: &mut impl Source,
        members: &[Subscriber],
        among: Among,
    ) -> Option<Subscriber> {
        let (before, from) = members.split_at(fastrand::usize(..members.len()));
        from.iter().chain(before).copied().find(|member| match member {
            Subscriber::Local(key) => self.allot(source, *key, 1) == 1,
            Subscriber::Elsewhere(_) => among == Among::All,
        })
    }

    /// Counts messages for a subscription: returns how many of them it gets.
    fn allot(&mut self, source: &mut impl Source, key: SubscriptionKey, count: usize) -> usize {
        let Broker { subscriptions, lagging, slow, deliveries, .. } = self;
        let subscription = &mut subscriptions[key];
        let conn = subscription.conn;
        if source.is(conn) && !source.echoes() {
            return 0;
        }
        let count = subscription.left().min(count as u64);
        subscription.delivered += count;
        if subscription.left() == 0 {
            let end = move |broker: &mut Broker, conn: &mut Conn<'_, Broker>| {
                broker.end_if_sated(conn, key);
                Action::Continue
            };
            let _ = source.neighbours().run(conn, end); // It is on this reactor.
        }
        if !lagging.is_empty() && lagging.contains_key(&conn) && !source.is(conn) {
            slow.push(conn);
        }
        *deliveries += 1;
        count as usize
    }

    /// Sends messages to one subscriber.
    fn send<'m>(
        &self,
        source: &mut impl Source,
        key: SubscriptionKey,
        subject: &[u8],
        messages: impl Iterator<Item = &'m Message<'m>> + Clone,
    ) {
        let subscription = &self.subscriptions[key];
        self.stats().count_out(1, messages.clone());
        let piece = piece(subject, subscription, messages);
        if source.is(subscription.conn) {
            source.echo(piece); // In its order with other replies.
        } else {
            source.neighbours().write(subscription.conn, piece);
        }
    }

    /// Tells a client that nobody gets its request, if it has subscribed to replies.
    fn tell_no_responders(&mut self, conn: &mut Conn<'_, Self>, reply: &[u8]) {
        let matched = self.matched(reply);
        let mut keys = matched.groups.iter().flatten();
        let own = keys.find(|key| self.subscriptions[**key].conn == conn.id());
        if let Some(key) = own {
            let sid = &*self.subscriptions[*key].sid;
            let status = b" 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
            conn.output.write_parts([b"HMSG ", reply, b" ", sid, status]);
        }
    }
}

/// What a subscriber is sent.
fn piece<'m>(
    subject: &[u8],
    subscription: &Subscription,
    messages: impl Iterator<Item = &'m Message<'m>> + Clone,
) -> Bytes {
    let sid = &*subscription.sid;
    let head = b"HMSG ".len() + subject.len() + 1 + sid.len() + 1;
    let size: usize = messages.clone().map(|message| head + message.tail.len()).sum();
    let mut piece = Vec::with_capacity(size);
    for message in messages {
        let has_headers = message.headers > 0 && subscription.headers;
        piece.extend_from_slice(if has_headers { b"HMSG " } else { b"MSG " });
        for part in [subject, b" ", sid, b" "] {
            piece.extend_from_slice(part);
        }
        if message.headers > 0 && !subscription.headers {
            piece.extend_from_slice(&message.without_headers());
        } else {
            piece.extend_from_slice(&message.tail);
        }
    }
    piece.into()
}
