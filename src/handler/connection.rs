//! A connection as its reactor keeps it, and what of it a callback reaches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_platform::address::{Address, PeerAddress};
use millstream_platform::driver::Token;
use millstream_platform::memory::Ring;

use super::conn::{CloseRequest, Conn, Detach, Pending, Remote};
use super::layered::Layered;
use super::mailbox::Order;
use super::reactors::Reactors;
use super::{Action, EventHandler};
use crate::base::{
    Clock, CloseReason, Completion, ConnId, ListenerId, OwnedTimers, Share, TimerId, TimerKey,
    Timers, ticks,
};
use crate::config::{Layer, Preface};
use crate::shared::{Account, Counters};

/// A connection in the reactor's table. Its size is what an idle connection costs, so what is
/// seldom used is boxed, and buffers are leased only while there is something in them.
pub(crate) struct Connection<H: EventHandler> {
    pub(crate) state: H::State,
    /// Received and unread bytes; never empty.
    pub(crate) ring: Option<Box<Ring>>,
    pub(crate) pending: Pending,
    pub(crate) status: Status<H>,
}

/// What [`Status::frame_by`] is while no frame has begun.
const NO_FRAME: u64 = u64::MAX;

/// Where a connection stands.
pub(crate) struct Status<H: EventHandler> {
    pub(crate) peer: Peer,
    /// Made when it is first asked for.
    pub(crate) remote: Option<Remote<H>>,
    /// The timers that the handler set.
    pub(crate) timers: OwnedTimers,
    /// The one timer for all of the connection's deadlines.
    pub(crate) deadline: Option<TimerKey>,
    /// The tick by which the frame that has begun must be whole; while reading is paused, how many
    /// ticks are left. [`NO_FRAME`] if none has begun.
    pub(crate) frame_by: u64,
    /// The tick of the last byte received, or when reading began again.
    pub(crate) last_received: u64,
    /// The tick of the last byte sent, or when there began to be something to send.
    pub(crate) last_sent: u64,
    pub(crate) extras: Option<Box<Extras<H>>>,
    pub(crate) phase: Phase,
    /// The handler was told of it.
    pub(crate) opened: bool,
    pub(crate) close_request: Option<CloseRequest>,
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
    /// The output is above the high-water mark and was not at the low one since.
    pub(crate) above_high_water: bool,
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
pub(crate) struct Extras<H> {
    /// For the output to be sent up to this position.
    pub(crate) writes: VecDeque<(u64, Completion)>,
    /// For the connection to be over.
    pub(crate) closes: Vec<Completion>,
    /// For the connection to leave the engine.
    pub(crate) detach: Option<Detach<H>>,
    /// What is to come before it opens.
    pub(crate) preface: Option<Arc<dyn Preface>>,
    /// Why it closes once its output is flushed, or was refused before it opened.
    pub(crate) reason: Option<CloseReason>,
    /// The tick at which the patience with that, or with the preface, ends.
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
        let status = Status {
            peer: Peer::Direct(peer),
            remote: None,
            timers: OwnedTimers::default(),
            deadline: None,
            frame_by: NO_FRAME,
            last_received: now,
            last_sent: now,
            extras: None,
            phase: Phase::Opening,
            opened: false,
            close_request: None,
            listener: origin.listener(),
            outgoing: origin == Origin::Outgoing,
            paused_by_handler: false,
            holds_input: false,
            paused: false,
            above_high_water: false,
            peer_ended: false,
            hung_up: false,
            end_sent: false,
            reset: false,
        };
        let mut pending = Pending::default();
        if let Some(layer) = layer {
            pending.put_layer(Layered::new(layer));
        }
        Connection { state, ring: None, pending, status }
    }

    /// Whether a callback left nothing to look after but output to be sent, for which nobody waits.
    /// This is how almost all callbacks end; what it leaves out is looked at one by one.
    #[inline(always)]
    pub(crate) fn is_quiet(&self, high_water: usize) -> bool {
        let Connection { pending, status, .. } = self;
        // Not one by one, which would be a branch each.
        let marked = pending.ended
            | status.paused_by_handler
            | status.holds_input
            | status.paused
            | status.above_high_water;
        !marked
            && pending.bytes <= high_water
            && status.close_request.is_none()
            && status.extras.is_none()
            && pending.extra.is_none()
    }

    /// Whether a callback left nothing to look after but output to be flushed.
    #[inline]
    pub(crate) fn is_calm(&self, high_water: usize) -> bool {
        let Connection { ring, pending, status, .. } = self;
        ring.is_none()
            && pending.extra.is_none()
            && !pending.ended
            && (pending.bytes <= high_water || status.above_high_water)
            && status.close_request.is_none()
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
            || status.above_high_water
            || status.extras.is_some()
    }

    /// Whether it is open, and what it receives goes to a layer.
    pub(crate) fn is_layered(&self) -> bool {
        self.status.phase == Phase::Open && self.pending.layer().is_some()
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

    /// How many bytes are received and unread.
    pub(crate) fn unread(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.len())
    }
}

impl<H: EventHandler> Status<H> {
    /// Notes how the handler wants the connection to close; the more urgent request counts.
    pub(crate) fn request_close(&mut self, request: CloseRequest) {
        self.close_request = self.close_request.max(Some(request));
        self.note_closing();
    }

    /// Its handles take no more requests.
    pub(crate) fn note_closing(&self) {
        if let Some(remote) = &self.remote {
            remote.note_closing();
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
        self.phase != Phase::Open || self.close_request.is_some()
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

    /// Reading pauses or goes on: the time in between is not the peer's.
    pub(crate) fn note_paused(&mut self, paused: bool, now: u64) {
        self.paused = paused;
        if self.frame_by != NO_FRAME {
            self.frame_by = match paused {
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

    pub(crate) fn extras(&mut self) -> &mut Extras<H> {
        self.extras.get_or_insert_default()
    }

    /// Until when what it waits for must be there, if it isn't open.
    pub(crate) fn close_by(&self) -> Option<u64> {
        match self.phase {
            Phase::Opening | Phase::Flushing | Phase::Lingering => {
                Some(self.extras.as_ref()?.close_by)
            }
            Phase::Open | Phase::Doomed => None,
        }
    }
}

impl<H> Default for Extras<H> {
    fn default() -> Self {
        let (writes, closes) = (VecDeque::new(), Vec::new());
        Extras { writes, closes, detach: None, preface: None, reason: None, close_by: 0 }
    }
}

/// What a connection left for later: who, and what is called then.
pub(crate) type Later<H> = (Token, fn(&mut H, &mut Conn<'_, H>) -> Action);

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Alarm {
    /// One of the connection's deadlines may have come.
    Deadline(Token),
    /// A timer that the connection's handler set.
    Timer(Token),
    /// An attempt to connect begins, or took too long.
    Attempt(Token),
    /// A socket for datagrams has waited long enough to close.
    Datagrams(Token),
    /// A socket for datagrams whose receiving has failed tries again.
    Receive(Token),
    /// The handler's tick.
    Tick,
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

/// What a callback reaches of its connection besides input, output and state.
pub(crate) struct Control<'a, H: EventHandler> {
    pub(crate) token: Token,
    pub(crate) status: &'a mut Status<H>,
    pub(crate) common: &'a mut Common<H>,
}

/// What the connections of a reactor share, as far as callbacks reach it.
pub(crate) struct Common<H: EventHandler> {
    /// The reactor's index.
    pub(crate) reactor: u32,
    pub(crate) timers: Timers<Alarm>,
    pub(crate) reactors: Reactors<H>,
    pub(crate) clock: Clock,
    /// What connections left for later, when others had their turn.
    pub(crate) later: VecDeque<Later<H>>,
    pub(crate) share: Share,
}

impl<H: EventHandler> Control<'_, H> {
    pub(crate) fn id(&self) -> ConnId {
        ConnId { reactor: self.common.reactor, token: self.token }
    }

    pub(crate) fn remote(&mut self) -> Remote<H> {
        if let Some(remote) = &self.status.remote {
            return remote.clone();
        }
        let remote = Remote::new(self.id(), self.common.reactors.clone());
        self.status.remote = Some(remote.clone());
        match self.status.phase {
            Phase::Doomed => remote.note_over(),
            _ if self.status.is_closing() => remote.note_closing(),
            _ => {}
        }
        remote
    }

    /// Posts to the connection's own reactor, which is awake.
    pub(crate) fn wake(&self) {
        let _ = self.common.reactors.ask(self.id(), Order::Wake);
    }

    /// Runs a function as a callback after this one, in a later turn if there is much else to
    /// do.
    pub(crate) fn run_later(&mut self, then: fn(&mut H, &mut Conn<'_, H>) -> Action) {
        self.common.later.push_back((self.token, then));
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

    pub(crate) fn set_timer(&mut self, now: Instant, after: Duration) -> TimerId {
        let at = self.common.clock.tick_after(now, after);
        TimerId(self.common.timers.arm_owned(&mut self.status.timers, at, Alarm::Timer(self.token)))
    }

    pub(crate) fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.common.timers.cancel_owned(&self.status.timers, timer.0).is_some()
    }
}
