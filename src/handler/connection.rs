//! A connection as its reactor keeps it, and what of it a callback reaches.

use std::any::Any;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_platform::address::{Address, PeerAddress};
use millstream_platform::driver::Token;
use millstream_platform::memory::Ring;

use super::EventHandler;
use super::conn::{Change, Detach, Extra, Hold, Pending, Remote, RemoteState};
use super::layered::Layered;
use super::mailbox::{Done, Order};
use super::neighbours::Neighbours;
use crate::base::{
    Clock, CloseReason, Completion, ConnId, ListenerId, OwnedTimers, Share, TimerId, TimerKey,
    Timers, ticks,
};
use crate::config::{Layer, Preface, Terms};
use crate::shared::{Account, Counters};

/// A connection in the reactor's table. Its size is what an idle connection costs, so what is
/// seldom used is boxed, and buffers are leased only while there is something in them.
pub(crate) struct Connection<H: EventHandler> {
    pub(crate) state: H::State,
    /// Received and unread bytes; never empty.
    pub(crate) ring: Option<Box<Ring>>,
    pub(crate) pending: Pending,
    pub(crate) status: Status,
}

/// What [`Status::frame_by`] is while no frame has begun.
const NO_FRAME: u64 = u64::MAX;

/// Where a connection stands. Nothing here has the handler's type, so that what stands between the
/// engine and several handlers can show each its own connections: see `protocols`.
pub(crate) struct Status {
    pub(crate) peer: Peer,
    /// What its handles share; made when one is first asked for.
    pub(crate) remote: Option<Arc<RemoteState>>,
    /// The timers that the handler set.
    pub(crate) timers: OwnedTimers,
    /// The one timer for all of the connection's deadlines.
    pub(crate) deadline: Option<TimerKey>,
    /// The tick by which the frame that has begun must be whole; while reading is paused, how many
    /// ticks are left. [`NO_FRAME`] if none has begun.
    pub(crate) frame_by: u64,
    /// The tick of the last byte received, later by as much as reading was paused since.
    pub(crate) last_received: u64,
    /// The tick of the last byte sent, or when there began to be something to send; if nothing is
    /// stuck, it is later by as much as reading was paused since.
    pub(crate) last_sent: u64,
    /// Those of the engine hold, unless its handler has set others.
    pub(crate) terms: Option<Box<Terms>>,
    pub(crate) extras: Option<Box<Extras>>,
    pub(crate) phase: Phase,
    /// The handler was told of it.
    pub(crate) opened: bool,
    /// What its callback has asked for.
    pub(crate) change: Option<Change>,
    /// Its [`Origin`], in less room.
    pub(crate) listener: Option<ListenerId>,
    pub(crate) outgoing: bool,
    /// The handler paused reading.
    pub(crate) paused_by_handler: bool,
    /// The handler has input that it looks at later, by itself: reading pauses, and neither too
    /// much input nor the end of both sides ends the connection meanwhile.
    pub(crate) holds_input: bool,
    /// The driver was told to pause.
    pub(crate) paused: bool,
    /// Why, if not only because of the handler.
    pub(crate) held_by: Option<Hold>,
    /// The peer ended its side.
    pub(crate) peer_ended: bool,
    /// Both sides had ended when reading was paused, and nothing was left to be received.
    pub(crate) hung_up: bool,
    /// Our side's end was sent.
    pub(crate) end_sent: bool,
    /// The peer is to get a reset.
    pub(crate) reset: bool,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Accepted(ListenerId),
    /// This engine made it.
    Outgoing,
    /// It was made elsewhere.
    Adopted,
}

impl Origin {
    fn listener(self) -> Option<ListenerId> {
        match self {
            Origin::Accepted(listener) => Some(listener),
            Origin::Outgoing | Origin::Adopted => None,
        }
    }
}

/// The other end of a connection.
pub(crate) enum Peer {
    Direct(PeerAddress),
    /// One that speaks for another client, which is at the first address and connected to the
    /// second.
    Proxy(Box<(PeerAddress, (PeerAddress, PeerAddress))>),
}

impl Peer {
    /// The other end of this very connection.
    pub(crate) fn direct(&self) -> &PeerAddress {
        match self {
            Peer::Direct(direct) => direct,
            Peer::Proxy(proxy) => &proxy.0,
        }
    }

    /// Where the client is for which the other end speaks, and where that one connected to.
    pub(crate) fn told(&self) -> Option<&(PeerAddress, PeerAddress)> {
        match self {
            Peer::Direct(_) => None,
            Peer::Proxy(proxy) => Some(&proxy.1),
        }
    }

    /// The other end speaks for somebody else.
    pub(crate) fn tell(&mut self, source: PeerAddress, destination: PeerAddress) {
        *self = Peer::Proxy(Box::new((self.direct().clone(), (source, destination))));
    }

    /// Where the peer is, as far as is known.
    pub(crate) fn address(&self) -> Address {
        self.told().map_or(self.direct(), |(source, _)| source).get()
    }
}

/// A connection's part in relaying.
#[derive(Default)]
pub(crate) struct Relay {
    /// Where what it receives goes.
    pub(crate) to: Option<Token>,
    /// Whose bytes it sends.
    pub(crate) from: Option<Token>,
    /// The other one has something to send, which comes first.
    pub(crate) waits: bool,
    /// Bytes came in large pieces.
    pub(crate) large: bool,
}

impl Relay {
    /// Whether reading waits until what was read is sent.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }
}

/// How far a connection is on its way to being closed. It only goes down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It was taken in, and no callback has run.
    Opening,
    /// Callbacks run.
    Open,
    /// Output is being flushed; what arrives is dropped.
    Flushing,
    /// Everything was sent, and our end; what arrives is dropped until the peer's end.
    Lingering,
    /// It is closed at the end of this turn.
    Doomed,
}

/// What few connections have, or have only at their end: what waits for what, and how it is closed.
#[derive(Default)]
pub(crate) struct Extras {
    /// For the output to be sent up to this position.
    pub(crate) writes: VecDeque<(u64, Completion)>,
    /// For the connection to be over.
    pub(crate) closes: Vec<Completion>,
    /// Its handles want to know how much waits to be sent.
    pub(crate) watched: bool,
    /// For the connection to leave the engine: a [`Detach`].
    detach: Option<Box<dyn Any>>,
    /// What was unread when a layer came in, and is the beginning of its handshake.
    pub(crate) upgrade: Option<Vec<u8>>,
    /// What is to come before it opens.
    pub(crate) preface: Option<Arc<dyn Preface>>,
    /// What waits for it to open, a [`Done`], and what that is reported as.
    awaited: Option<(&'static str, Box<dyn Any>)>,
    /// Why it closes once its output is flushed, or was refused before it opened.
    pub(crate) reason: Option<CloseReason>,
    /// The tick at which the patience with that, or with the preface or the handshake, ends.
    pub(crate) close_by: u64,
}

impl<H: EventHandler> Connection<H> {
    pub(crate) fn new(
        state: H::State,
        layer: Option<Box<dyn Layer>>,
        peer: PeerAddress,
        origin: Origin,
        now: u64,
    ) -> Self {
        let mut pending = Pending::default();
        if let Some(layer) = layer {
            pending.put_layer(Layered::new(layer));
        }
        let status = Status {
            peer: Peer::Direct(peer),
            remote: None,
            timers: OwnedTimers::default(),
            deadline: None,
            frame_by: NO_FRAME,
            last_received: now,
            last_sent: now,
            terms: None,
            extras: None,
            phase: Phase::Opening,
            opened: false,
            change: None,
            listener: origin.listener(),
            outgoing: origin == Origin::Outgoing,
            paused_by_handler: false,
            holds_input: false,
            paused: false,
            held_by: None,
            peer_ended: false,
            hung_up: false,
            end_sent: false,
            reset: false,
        };
        Connection { state, ring: None, pending, status }
    }

    /// Whether a callback left nothing to look after but output to be sent, for which nobody waits.
    /// This is how almost all callbacks end; what it leaves out is looked at one by one. It is
    /// asked about each message, so it is stricter than [`is_calm`](Self::is_calm): of a quiet
    /// connection only the queue is left to be looked at.
    #[inline(always)]
    pub(crate) fn is_quiet(&self, high_water: usize) -> bool {
        let Connection { pending, status, .. } = self;
        // Not one by one, which would be a branch each.
        let marked = pending.ended
            | status.paused_by_handler
            | status.holds_input
            | status.paused
            | pending.above_high_water;
        !marked
            && pending.bytes <= high_water
            && status.change.is_none()
            && status.extras.is_none()
            && pending.extra.as_deref().is_none_or(Extra::is_at_rest)
    }

    /// Whether a callback left nothing to look after but output to be flushed. It is asked about
    /// those that are not quiet, and lets those pass of whose flush something follows: somebody
    /// waits for it, or the low-water mark comes. [`has_output_to_do`](Self::has_output_to_do)
    /// tells that.
    #[inline]
    pub(crate) fn is_calm(&self, high_water: usize) -> bool {
        let Connection { ring, pending, status, .. } = self;
        ring.is_none()
            && pending.extra.is_none()
            && !pending.ended
            && (pending.bytes <= high_water || pending.above_high_water)
            // Whether that pauses reading may have changed.
            && !(pending.above_high_water && status.terms.is_some())
            && status.change.is_none()
            && !status.paused_by_handler
            && !status.holds_input
            && !status.paused
    }

    /// Whether a flush has something to do: send, end our side, or tell those that wait for
    /// output that a callback has got rid of by itself.
    #[inline]
    pub(crate) fn has_output_to_do(&self) -> bool {
        let Connection { pending, status, .. } = self;
        pending.queue.is_some()
            || (pending.ended && !status.end_sent)
            || pending.above_high_water
            || status.extras.is_some()
    }

    /// Whether it is open, and what it receives goes to a layer.
    pub(crate) fn is_layered(&self) -> bool {
        self.status.phase == Phase::Open && self.pending.layer().is_some()
    }

    /// Whether it opens once its layer's handshake is over, and that is next.
    pub(crate) fn shakes_hands(&self) -> bool {
        let next = |extras: &Extras| extras.preface.is_none() && extras.reason.is_none();
        self.status.phase == Phase::Opening
            && self.pending.awaits_layer()
            && self.status.extras.as_deref().is_some_and(next)
    }

    /// Whether it is open, and the handshake of a layer that came in later is not over.
    pub(crate) fn is_upgrading(&self) -> bool {
        self.status.phase == Phase::Open && self.pending.awaits_layer()
    }

    /// Whether its handshake goes on in a later turn, since there are many.
    pub(crate) fn is_put_off(&self) -> bool {
        let kept = self.pending.layer().is_some_and(Layered::is_put_off);
        kept && (self.shakes_hands() || self.is_upgrading())
    }

    /// Whether only what its layer opens counts as received: the beginning of a frame, a little at
    /// a time, would put its deadlines off. A handshake has a deadline of its own.
    pub(crate) fn opens_in_layer(&self) -> bool {
        self.is_layered() && !self.is_upgrading()
    }

    /// Until when what it waits for must be there: its preface, its handshake, or its end. Nothing
    /// has to be while the handshake is put off.
    pub(crate) fn close_by(&self) -> Option<u64> {
        let waits = match self.status.phase {
            Phase::Opening | Phase::Flushing | Phase::Lingering => true,
            Phase::Open => self.is_upgrading(),
            Phase::Doomed => false,
        };
        let waits = waits && !self.is_put_off();
        self.status.extras.as_ref().filter(|_| waits).map(|extras| extras.close_by)
    }

    /// Whether it hung up while the handler pauses reading, and nothing is left to be looked at.
    /// A handler that reads on is told the end.
    pub(crate) fn is_gone(&self) -> bool {
        let Connection { ring, pending, status, .. } = self;
        status.hung_up
            && status.paused_by_handler
            && ring.is_none()
            && !status.holds_input
            && !pending.relay().is_some_and(Relay::waits)
            && !self.is_put_off()
    }

    /// Books bytes that the operating system took, wherever they were.
    #[inline]
    pub(crate) fn book_sent(&mut self, bytes: u64, clock: &Clock, counters: &Counters) {
        if bytes == 0 {
            return;
        }
        self.status.last_sent = clock.tick();
        self.pending.stuck = false;
        counters.bytes_out.add(bytes);
        counters.messages_out.add(1);
    }

    /// Reading pauses or goes on, or something else than before holds it: the time in which it was
    /// paused is not the peer's.
    pub(crate) fn note_paused(&mut self, paused: bool, held_by: Option<Hold>, now: u64) {
        let Connection { pending, status, .. } = self;
        if status.paused {
            // It wraps after 49 days, and then something of the time counts.
            let passed = u64::from((now as u32).wrapping_sub(pending.paused_since));
            status.last_received = status.last_received.saturating_add(passed).min(now);
            if !pending.stuck {
                status.last_sent = status.last_sent.saturating_add(passed).min(now);
            }
            if status.held_by == Some(Hold::Handshake)
                && let Some(extras) = &mut status.extras
            {
                extras.close_by = extras.close_by.saturating_add(passed);
            }
        }
        pending.paused_since = now as u32;
        status.held_by = held_by;
        if paused != status.paused {
            status.flip_paused(now);
        }
    }

    /// How many bytes are received and unread.
    pub(crate) fn unread(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.len())
    }
}

impl Status {
    /// Notes how the handler wants the connection to close; the more urgent change counts.
    pub(crate) fn ask_for(&mut self, change: Change) {
        self.change = self.change.max(Some(change));
        self.note_closing();
    }

    /// Its handles take no more requests.
    pub(crate) fn note_closing(&self) {
        if let Some(remote) = &self.remote {
            remote.note_closing();
        }
    }

    /// Tells its handles how much waits to be sent, if they want to know.
    pub(crate) fn tell_pending(&self, bytes: usize) {
        let watched = self.extras.as_ref().is_some_and(|extras| extras.watched);
        if let Some(remote) = self.remote.as_ref().filter(|_| watched) {
            remote.note_pending(bytes);
        }
    }

    /// Its handles take no requests at all.
    pub(crate) fn note_over(&self) {
        if let Some(remote) = &self.remote {
            remote.note_over();
        }
    }

    /// What it counts against.
    pub(crate) fn account(&self) -> Account {
        Account::new(self.peer.direct(), self.listener)
    }

    /// The handler is told of it.
    pub(crate) fn open(&mut self) {
        self.phase = Phase::Open;
        self.opened = true;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.phase != Phase::Open || !matches!(self.change, None | Some(Change::Upgrade))
    }

    /// Whether it is open, and this callback has not asked for anything that comes first.
    #[inline]
    pub(crate) fn goes_on(&self) -> bool {
        self.phase == Phase::Open && self.change.is_none()
    }

    /// No frame has begun, or the next one begins.
    #[inline]
    pub(crate) fn end_frame(&mut self) {
        self.frame_by = NO_FRAME;
    }

    /// The tick by which a frame must be whole, if one has begun and the peer is heard.
    pub(crate) fn frame_deadline(&self) -> Option<u64> {
        (self.frame_by != NO_FRAME && !self.paused).then_some(self.frame_by)
    }

    /// Reading pauses or goes on: the time in between does not count for a frame.
    fn flip_paused(&mut self, now: u64) {
        self.paused = !self.paused;
        if self.frame_by != NO_FRAME {
            self.frame_by = match self.paused {
                true => self.frame_by.saturating_sub(now),
                false => self.frame_by.saturating_add(now).min(NO_FRAME - 1),
            };
        }
    }

    /// Whether both sides have ended, and nothing is left to be said or looked at.
    pub(crate) fn is_over(&self) -> bool {
        let holds_input = self.holds_input && self.phase == Phase::Open;
        self.peer_ended && self.end_sent && !holds_input
    }

    /// What is expected of its peer; `usual` are the engine's terms.
    pub(crate) fn terms<'a>(&'a self, usual: &'a Terms) -> &'a Terms {
        self.terms.as_deref().unwrap_or(usual)
    }

    pub(crate) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }
}

/// What has the handler's type: it is put in and taken out by the same one.
impl Extras {
    pub(crate) fn set_detach<H: EventHandler>(&mut self, detach: Detach<H>) {
        self.detach = Some(Box::new(detach));
    }

    pub(crate) fn take_detach<H: EventHandler>(&mut self) -> Option<Detach<H>> {
        Some(*self.detach.take()?.downcast().ok()?)
    }

    pub(crate) fn set_awaited<H: EventHandler>(
        &mut self,
        name: &'static str,
        done: Done<H, CloseReason>,
    ) {
        self.awaited = Some((name, Box::new(done)));
    }

    pub(crate) fn take_awaited<H: EventHandler>(
        &mut self,
    ) -> Option<(&'static str, Done<H, CloseReason>)> {
        let (name, done) = self.awaited.take()?;
        Some((name, *done.downcast().ok()?))
    }
}

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Alarm {
    /// One of the connection's deadlines may have come.
    Deadline(Token),
    /// A timer that a connection's handler set, with its value: as bytes, which need no alignment,
    /// it makes no timer larger.
    Timer([u8; 8]),
    /// Not a timer: the connection whose handler's timers these are.
    Owner(Token),
    /// An attempt to connect begins, or took too long.
    Attempt(Token),
    /// A socket for datagrams has waited long enough to close.
    Datagrams(Token),
    /// A socket for datagrams whose receiving has failed tries again.
    Receive(Token),
    /// The handler's tick.
    Tick,
    /// There is something to do about the timers that the handler set without a connection.
    Reactor,
}

/// Sees to it that a connection's timer fires at this tick at the latest.
pub(crate) fn arm_by(
    timers: &mut Timers<Alarm>,
    deadline: &mut Option<TimerKey>,
    tick: u64,
    token: Token,
) {
    if let Some(key) = *deadline {
        if timers.at(key).is_some_and(|at| at <= tick) {
            return;
        }
        timers.cancel(key);
    }
    *deadline = Some(timers.arm(tick, Alarm::Deadline(token)));
}

/// Takes back a connection's deadline, if one is armed.
pub(crate) fn disarm(timers: &mut Timers<Alarm>, deadline: &mut Option<TimerKey>) {
    if let Some(key) = deadline.take() {
        timers.cancel(key);
    }
}

/// What a callback reaches of its connection besides input, output and state.
pub(crate) struct Control<'a, H: EventHandler> {
    pub(crate) token: Token,
    pub(crate) status: &'a mut Status,
    pub(crate) common: &'a mut Common,
    pub(crate) neighbours: &'a Rc<Neighbours<H>>,
}

/// What the connections of a reactor share, as far as callbacks reach it.
pub(crate) struct Common {
    /// The reactor's index.
    pub(crate) reactor: u32,
    pub(crate) timers: Timers<Alarm>,
    pub(crate) clock: Clock,
    /// The engine's.
    pub(crate) terms: Terms,
    /// Those that left something for later, when others had their turn.
    pub(crate) later: VecDeque<Token>,
    pub(crate) share: Share,
}

impl<'a, H: EventHandler> Control<'a, H> {
    pub(crate) fn id(&self) -> ConnId {
        ConnId { reactor: self.common.reactor, token: self.token }
    }

    /// What a callback may ask of other connections, which is done when it is over.
    pub(crate) fn neighbours(&self) -> &'a Neighbours<H> {
        self.common.share.interrupt();
        self.neighbours
    }

    pub(crate) fn remote(&mut self) -> Remote<H> {
        let state = match &self.status.remote {
            Some(state) => Arc::clone(state),
            None => self.make_remote(),
        };
        Remote::new(state, self.neighbours.reactors().clone())
    }

    fn make_remote(&mut self) -> Arc<RemoteState> {
        let state = Arc::new(RemoteState::new(self.id()));
        self.status.remote = Some(Arc::clone(&state));
        match self.status.phase {
            Phase::Doomed => state.note_over(),
            _ if self.status.is_closing() => state.note_closing(),
            _ => {}
        }
        state
    }

    /// Posts to the connection's own reactor, which is awake.
    pub(crate) fn wake(&self) {
        let _ = self.neighbours.reactors().ask(self.id(), Order::Wake);
    }

    /// Calls [`EventHandler::go_on`] after this callback, in a later turn if there is much else to
    /// do.
    pub(crate) fn go_on_later(&mut self) {
        self.common.later.push_back(self.token);
    }

    /// No frame has begun, or the next one begins.
    #[inline]
    pub(crate) fn end_frame(&mut self) {
        self.status.end_frame();
    }

    /// A frame has begun, now or before: it must be complete this long after its beginning.
    pub(crate) fn begin_frame(&mut self, timeout: Duration) {
        let status = &mut *self.status;
        if status.frame_by != NO_FRAME {
            return;
        }
        let now = if status.paused { 0 } else { self.common.clock.tick() };
        status.frame_by = now.saturating_add(ticks(timeout)).min(NO_FRAME - 1);
        if let Some(at) = status.frame_deadline() {
            arm_by(&mut self.common.timers, &mut status.deadline, at, self.token);
        }
    }

    /// What is expected of the peer.
    #[inline]
    pub(crate) fn terms(&self) -> &Terms {
        self.status.terms(&self.common.terms)
    }

    /// What is expected of the peer, to be changed for this connection; `None` if it is closing.
    pub(crate) fn own_terms(&mut self) -> Option<&mut Terms> {
        let Control { status, common, .. } = self;
        let own = || Box::new(common.terms.clone());
        (!status.is_closing()).then(|| &mut **status.terms.get_or_insert_with(own))
    }

    /// Sees to it that the deadlines are looked at when `timeout` has passed `since` a tick.
    pub(crate) fn watch(&mut self, timeout: Option<Duration>, since: u64) {
        if let Some(timeout) = timeout {
            let at = since.saturating_add(ticks(timeout));
            arm_by(&mut self.common.timers, &mut self.status.deadline, at, self.token);
        }
    }

    pub(crate) fn set_timer(&mut self, now: Instant, after: Duration, value: u64) -> TimerId {
        let Common { clock, timers, .. } = &mut *self.common;
        let (owner, at) = (Alarm::Owner(self.token), clock.tick_after(now, after));
        let alarm = Alarm::Timer(value.to_ne_bytes());
        TimerId(timers.arm_owned(&mut self.status.timers, owner, at, alarm))
    }

    pub(crate) fn reset_timer(&mut self, now: Instant, timer: TimerId, after: Duration) -> bool {
        let at = self.common.clock.tick_after(now, after);
        self.common.timers.rearm_owned(&self.status.timers, timer.0, at)
    }

    pub(crate) fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.common.timers.cancel_owned(&self.status.timers, timer.0).is_some()
    }
}
