//! The handler of a reactor: from operations to what they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use millstream::codec::Codec;
use millstream::{
    Action, CloseReason, Conn, ConnId, EventHandler, Reactor, ReactorAction, ShutdownAction,
    TimerId,
};
use slab::Slab;

use crate::certificate::Encryption;
use crate::fanout::Run;
use crate::handshake::{Connect, Credentials, Info, Wishes};
use crate::held::Held;
use crate::interest::{Interest, Subscriber, SubscriptionKey};
use crate::protocol::{Op, Protocol, Reply};
use crate::reactors::{Batch, MOST_UNCONFIRMED, Peer};
use crate::stats::Stats;
use crate::subject::{is_filter, is_literal};

/// How often publishers that wait for a subscriber go on all the same.
pub const TICK: Duration = Duration::from_millis(100);
/// The values of a connection's timers: it must have said who it is by now; it is to be looked at
/// whether it is still there; the server ends, and it is its turn to leave.
const SIGN_IN: u64 = 0;
const KEEP_ALIVE: u64 = 1;
const LEAVE: u64 = 2;
/// A connection whose operations brought messages to this many subscribers makes room for others.
const MOST_DELIVERIES: usize = 16 * 1024;

/// What all reactors of the broker know.
pub struct Shared {
    pub limits: Limits,
    pub credentials: Credentials,
    pub encryption: Encryption,
    pub server_id: String,
    pub clients: AtomicU64,
    pub peers: Vec<Peer>,
    pub stats: Vec<Stats>,
}

pub struct Limits {
    pub max_payload: usize,
    /// Of a client.
    pub max_subscriptions: usize,
    pub ping_interval: Duration,
    /// A client that owes this many replies to PING is gone.
    pub max_pings: u32,
    /// How long a client may take to say who it is.
    pub auth_timeout: Duration,
    /// Over what time clients are asked to leave when the server ends.
    pub lame_duck: Duration,
}

/// The broker, as far as it is on one reactor.
pub struct Broker {
    pub reactor: usize,
    pub shared: Arc<Shared>,
    pub subscriptions: Slab<Subscription>,
    pub interest: Interest,
    /// Subscribers that have much to read still, and the publishers that wait for each.
    pub lagging: HashMap<ConnId, Vec<Arc<Held>>, RandomState>,
    /// Those of them that messages are being brought to.
    pub slow: Vec<ConnId>,
    /// Those that get the same piece.
    pub targets: Vec<ConnId>,
    /// How much others have told of their subscriptions.
    pub heard: u64,
    /// What is to go to other reactors.
    pub outgoing: Vec<(usize, Arc<Batch>)>,
    /// To how many subscribers messages of the connection went that is being served.
    pub deliveries: usize,
    protocol: Protocol,
    lame_duck: LameDuck,
}

/// A client's wish for messages.
pub struct Subscription {
    pub conn: ConnId,
    /// What the client calls it.
    pub sid: Box<[u8]>,
    pub filter: Arc<[u8]>,
    pub queue: Option<Arc<[u8]>>,
    /// How many messages it has got, and gets at most.
    pub delivered: u64,
    pub max: u64,
    pub headers: bool,
}

/// When the next client is asked to leave.
#[derive(Default)]
struct LameDuck {
    next: Duration,
    step: Duration,
}

/// The state of a connection.
#[derive(Default)]
pub struct Session {
    client_id: u64,
    pub wishes: Wishes,
    is_authorized: bool,
    subscriptions: HashMap<Box<[u8]>, SubscriptionKey, RandomState>,
    pub waits: Option<Wait>,
    /// How much other reactors were told for it, and may not have done yet.
    pub unconfirmed: usize,
    /// How many replies to PING it owes.
    pings: u32,
    /// It sent something since it was last looked at.
    was_heard: bool,
}

/// Why no operation of a connection is served.
#[derive(Clone, Copy, PartialEq)]
pub enum Wait {
    /// Others have their turn.
    Turn,
    /// A [`Held`] is not dropped yet. Then it is sent this reply.
    Held { reply: Option<Reply<'static>> },
}

impl Broker {
    pub fn new(reactor: usize, shared: Arc<Shared>) -> Self {
        Broker {
            reactor,
            protocol: Protocol { max_payload: shared.limits.max_payload },
            shared,
            subscriptions: Slab::new(),
            interest: Interest::default(),
            lagging: HashMap::default(),
            slow: Vec::new(),
            targets: Vec::new(),
            heard: 0,
            outgoing: Vec::new(),
            deliveries: 0,
            lame_duck: LameDuck::default(),
        }
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats[self.reactor]
    }

    /// Serves the operations that are there, until one has to wait. Messages for the same subject
    /// that come together go out together.
    fn serve(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let mut run = Run::default();
        self.deliveries = 0;
        while conn.state.waits.is_none() {
            let op = match self.protocol.decode(&mut conn.input) {
                Ok(Some(op)) => op,
                Ok(None) => break,
                Err(error) => {
                    self.deliver(conn, &mut run);
                    return self.refuse(conn, &error.to_string());
                }
            };
            if !conn.state.is_authorized && !matches!(op, Op::Connect(_)) {
                return self.refuse(conn, "Authorization Violation");
            }
            if let Op::Publish { subject, message } = op {
                if message.headers > 0 && !conn.state.wishes.headers {
                    self.deliver(conn, &mut run);
                    return self.refuse(conn, "message headers not supported");
                }
                if run.subject != subject {
                    self.deliver(conn, &mut run);
                    run.subject = subject;
                }
                run.messages.push(message);
                if conn.state.wishes.verbose || conn.state.wishes.pedantic {
                    self.comment(conn, subject);
                    self.deliver(conn, &mut run);
                }
            } else {
                self.deliver(conn, &mut run);
                if let Err(told) = self.obey(conn, &op) {
                    return self.refuse(conn, told);
                }
            }
            if self.deliveries > MOST_DELIVERIES {
                conn.state.waits = Some(Wait::Turn);
                conn.pause_reading();
                conn.wake();
            } else if conn.state.unconfirmed > MOST_UNCONFIRMED {
                self.confirm(conn, None);
            }
        }
        self.deliver(conn, &mut run);
        Action::Continue
    }

    /// Does what is asked, but for publishing.
    ///
    /// # Errors
    /// The connection ends; the client is told this.
    fn obey(&mut self, conn: &mut Conn<'_, Self>, op: &Op<'_>) -> Result<(), &'static str> {
        match *op {
            Op::Connect(options) => {
                self.connect(conn, options)?;
                self.acknowledge(conn);
            }
            Op::Subscribe { subject, queue, sid } => self.subscribe(conn, subject, queue, sid),
            Op::Unsubscribe { sid, max } => {
                self.unsubscribe(conn, sid, max);
                self.acknowledge(conn);
            }
            Op::Ping => self.confirm(conn, Some(Reply::Pong)),
            Op::Pong => conn.state.pings = 0,
            Op::Nothing | Op::Publish { .. } => {}
        }
        Ok(())
    }

    /// Tells a client that wants to know that an operation was right.
    fn acknowledge(&self, conn: &mut Conn<'_, Self>) {
        if conn.state.wishes.verbose {
            self.reply(conn, Reply::Ok);
        }
    }

    fn connect(&mut self, conn: &mut Conn<'_, Self>, options: &[u8]) -> Result<(), &'static str> {
        let connect = Connect::parse(options)?;
        if !self.shared.credentials.admit(&connect) {
            return Err("Authorization Violation");
        }
        conn.state.wishes = connect.wishes()?;
        if !std::mem::replace(&mut conn.state.is_authorized, true) {
            conn.set_timer(self.shared.limits.ping_interval, KEEP_ALIVE);
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        conn: &mut Conn<'_, Self>,
        filter: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
    ) {
        // One that has got all it wanted may not be off the list yet.
        let known = conn.state.subscriptions.get(sid).copied();
        let known = known.filter(|key| !self.end_if_sated(conn, *key));
        if known.is_none() {
            if !is_filter(filter) {
                return self.reply(conn, Reply::Error("Invalid Subject"));
            }
            if conn.state.subscriptions.len() >= self.shared.limits.max_subscriptions {
                return self.reply(conn, Reply::Error("maximum subscriptions exceeded"));
            }
            self.begin_subscription(conn, filter, queue, sid);
        }
        self.acknowledge(conn);
    }

    fn begin_subscription(
        &mut self,
        conn: &mut Conn<'_, Self>,
        filter: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
    ) {
        let key = self.subscriptions.insert(Subscription {
            conn: conn.id(),
            sid: sid.into(),
            filter: filter.into(),
            queue: queue.map(Arc::from),
            delivered: 0,
            max: u64::MAX,
            headers: conn.state.wishes.headers,
        });
        conn.state.subscriptions.insert(sid.into(), key);
        self.interest.add(filter, queue, Subscriber::Local(key));
        self.tell_others(conn, key, true);
        self.stats().subscriptions.add(1);
    }

    fn unsubscribe(&mut self, conn: &mut Conn<'_, Self>, sid: &[u8], max: Option<u64>) {
        let Some(&key) = conn.state.subscriptions.get(sid) else { return };
        self.subscriptions[key].max = max.unwrap_or(0);
        self.end_if_sated(conn, key);
    }

    /// Ends a subscription of this connection.
    fn end_subscription(&mut self, conn: &mut Conn<'_, Self>, key: SubscriptionKey) {
        self.tell_others(conn, key, false);
        self.stats().subscriptions_ended.add(1);
        let subscription = self.subscriptions.remove(key);
        conn.state.subscriptions.remove(&subscription.sid);
        self.interest.remove(
            &subscription.filter,
            subscription.queue.as_deref(),
            Subscriber::Local(key),
        );
    }

    /// Ends a subscription of this connection if it has got all that it wants; returns whether it
    /// had.
    pub fn end_if_sated(&mut self, conn: &mut Conn<'_, Self>, key: SubscriptionKey) -> bool {
        let subscription = self.subscriptions.get(key);
        let is_sated = subscription.is_some_and(|one| one.conn == conn.id() && one.left() == 0);
        if is_sated {
            self.end_subscription(conn, key);
        }
        is_sated
    }

    /// What a client that wants to be told is told of a message.
    fn comment(&self, conn: &mut Conn<'_, Self>, subject: &[u8]) {
        if conn.state.wishes.pedantic && !is_literal(subject) {
            self.reply(conn, Reply::Error("Invalid Publish Subject"));
        }
        if conn.state.wishes.verbose {
            self.reply(conn, Reply::Ok);
        }
    }

    pub fn reply(&self, conn: &mut Conn<'_, Self>, reply: Reply<'_>) {
        reply.write(&mut conn.output);
    }

    /// Tells a client why its connection ends.
    fn refuse(&self, conn: &mut Conn<'_, Self>, why: &str) -> Action {
        tracing::debug!(conn = %conn.id(), peer = %conn.peer_addr(), why, "refused");
        self.reply(conn, Reply::Error(why));
        Action::Close
    }

    /// Goes on with a connection whose [`Held`] is gone.
    pub fn go_on(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if let Some(Wait::Held { reply }) = conn.state.waits.take() {
            if let Some(reply) = reply {
                self.reply(conn, reply);
            }
            conn.resume_reading();
            return self.serve(conn);
        }
        Action::Continue
    }

    /// Asks a client that has been silent whether it is still there, and does so again and again.
    fn keep_alive(&self, conn: &mut Conn<'_, Self>, timer: TimerId) -> Action {
        let limits = &self.shared.limits;
        if !std::mem::take(&mut conn.state.was_heard) {
            if conn.state.pings >= limits.max_pings {
                return self.refuse(conn, "Stale Connection");
            }
            conn.state.pings += 1;
            self.reply(conn, Reply::Ping);
        }
        conn.reset_timer(timer, limits.ping_interval);
        Action::Continue
    }

    /// From now on a client is heard, after the handshake of TLS, if there is one.
    fn begin(&self, conn: &mut Conn<'_, Self>) -> Action {
        let Shared { limits, credentials, .. } = &*self.shared;
        conn.state.is_authorized = !credentials.are_needed();
        if conn.state.is_authorized {
            conn.set_timer(limits.ping_interval, KEEP_ALIVE);
        } else {
            conn.set_timer(limits.auth_timeout, SIGN_IN);
        }
        Action::Continue
    }

    fn greet(&self, conn: &mut Conn<'_, Self>, is_lame_duck: bool) {
        let Shared { limits, credentials, encryption, server_id, .. } = &*self.shared;
        let address = conn.peer_addr();
        let client_ip = address.ip().map_or(String::new(), |ip| ip.to_string());
        let mut info = Info::new(server_id, limits.max_payload, credentials);
        (info.client_id, info.client_ip) = (conn.state.client_id, &client_ip);
        info.tls_required = encryption.tls.is_some();
        info.is_lame_duck = is_lame_duck;
        self.reply(conn, Reply::Info(&info.to_json()));
    }
}

impl Subscription {
    /// How many more messages it gets.
    pub fn left(&self) -> u64 {
        self.max.saturating_sub(self.delivered)
    }
}

impl EventHandler for Broker {
    type State = Session;

    #[inline]
    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.state.was_heard = true;
        if conn.state.waits == Some(Wait::Turn) {
            conn.state.waits = None;
            conn.resume_reading();
        }
        if conn.state.waits.is_none() {
            self.catch_up(conn);
        }
        self.serve(conn)
    }

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.stats().connections.add(1);
        conn.state.client_id = self.shared.clients.fetch_add(1, Ordering::Relaxed) + 1;
        self.greet(conn, false);
        match &self.shared.encryption.tls {
            Some(tls) => conn.start_tls(tls).into(),
            None => self.begin(conn),
        }
    }

    fn on_tls(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.begin(conn)
    }

    fn on_timer(&mut self, conn: &mut Conn<'_, Self>, timer: TimerId, value: u64) -> Action {
        match value {
            KEEP_ALIVE => self.keep_alive(conn, timer),
            SIGN_IN if !conn.state.is_authorized => self.refuse(conn, "Authentication Timeout"),
            LEAVE => Action::Close,
            _ => Action::Continue,
        }
    }

    /// It has much to read: those who publish more for it wait.
    fn on_high_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.lagging.insert(conn.id(), Vec::new());
        self.tell_lagging();
        Action::Continue
    }

    fn on_low_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.lagging.remove(&conn.id());
        self.tell_lagging();
        Action::Continue
    }

    fn on_closing(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        if matches!(reason, CloseReason::OutputOverflow | CloseReason::WriteTimeout) {
            self.stats().slow_consumers.add(1);
            tracing::warn!(conn = %conn.id(), peer = %conn.peer_addr(), %reason, "slow consumer");
        }
        self.stats().connections_ended.add(1);
        let keys: Vec<SubscriptionKey> = conn.state.subscriptions.values().copied().collect();
        for key in keys {
            self.end_subscription(conn, key);
        }
        self.lagging.remove(&conn.id());
        self.tell_lagging();
    }

    /// Who waits for subscribers that lag goes on all the same: sooner or later these are cut off.
    fn on_tick(&mut self, _reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        self.lagging.values_mut().for_each(Vec::clear);
        ReactorAction::Continue
    }

    fn on_shutdown(&mut self, reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        let time = self.shared.limits.lame_duck;
        let clients = u32::try_from(reactor.connections()).unwrap_or(u32::MAX);
        // The first part of the time is for clients that leave by themselves.
        self.lame_duck = LameDuck { next: time / 5, step: time * 4 / 5 / clients.max(1) };
        ShutdownAction::Drain
    }

    /// Asks the client to go elsewhere, and closes the connection after a while: one connection
    /// after the other, so that not all clients come to another server at once.
    fn on_drain(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.greet(conn, true);
        conn.set_timer(self.lame_duck.next, LEAVE);
        self.lame_duck.next += self.lame_duck.step;
        Action::Continue
    }
}
