//! One event loop: its stages, its connection table, its timers, its inbox.
//!
//! # One turn
//!
//! 1. **Wait** until something happens: I/O, a wake, the next timer. A turn that left work behind
//!    doesn't wait.
//! 2. **Reap**: the driver collects what happened. No callback runs.
//! 3. **Dispatch** the events to callbacks, each connection within its read budget. Every event is
//!    for a token; a token whose connection is gone finds nothing.
//! 4. **Run the inboxes**, within their budget: new connections, then what other threads ask.
//! 5. **Run what was left for later**, because a connection had its share.
//! 6. **Fire timers** that are due.
//! 7. **Flush** every connection that was written to, with one send each. What `on_traffic` wrote
//!    has been flushed already, right after it. Datagrams are sent here, many in a call.
//! 8. **Go on with handshakes** that were put off, within their budget.
//! 9. **Close** what is to be closed.
//!
//! After each event, and what it called, comes what the callbacks have asked of other connections
//! of the reactor; what the callbacks of that ask in turn comes a few events later.
//!
//! Work per turn is bounded: each of the stages 3 to 8 goes on until its share is used up, by the
//! clock or by the amount of work, whichever comes first, and has left the rest to the next turn,
//! which then doesn't wait. Only when the engine stops are all connections looked at in one turn.
//! Everything here runs on the reactor's own thread, but for `Mailbox::post`.
//!
//! - `turn` has the stages; `callback` runs one callback and acts on what it asked for; `incoming`
//!   says where the bytes for it are;
//! - `datagrams` has all that concerns sockets for datagrams;
//! - `lifecycle` takes connections in and closes them; `outgoing` makes some, by the order of
//!   `race`, and `adopting` takes others in; `opening` is what comes before `on_open`, `flights`
//!   how much of handshakes comes in a turn; `flush` sends; `deadline` watches the clock,
//!   `pressure` the memory; `fault` keeps a panic of the engine itself to what was being served;
//! - `share` is how much of its time a turn gives to each stage; `neighbours` does what callbacks
//!   ask of other connections.

mod adopting;
mod callback;
mod datagrams;
mod deadline;
mod fault;
mod flights;
mod flush;
mod incoming;
mod layered;
mod lifecycle;
mod neighbours;
mod opening;
mod outgoing;
mod pressure;
mod relay;
mod share;
mod turn;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use millstream_platform::driver::{Driver, Token};
use millstream_platform::memory::{OutputPool, RingPool};

use self::datagrams::Datagrams;
use self::flights::Flights;
use self::outgoing::{Attempt, Handshake};
use self::pressure::Pressure;
use crate::base::{Clock, CloseReason, Share, StallDetector, Table, TimerKey, Timers};
use crate::config::Config;
use crate::handler::{
    Common, Connection, EventHandler, Mailbox, Neighbours, Outputs, ReactorTimers, Reactors,
};
use crate::shared::{
    AcceptQueue, Acceptance, Arrival, Counters, Engine, Inbox, Notify, ReactorPort,
};

/// The size of the chunks that small writes are gathered in.
const OUTPUT_CHUNK: usize = 16 * 1024;
/// How many unused output chunks a reactor keeps, if it does not use more.
const OUTPUT_CHUNKS_KEPT: usize = 256;
/// How many bytes of unused rings a reactor keeps, if it does not use more.
const RING_BYTES_KEPT: usize = 4 * 1024 * 1024;

/// A reactor.
pub(crate) struct EventLoop<D: Driver, H: EventHandler> {
    index: usize,
    driver: D,
    handler: H,
    connections: Table<Connection<H>>,
    attempts: Table<Attempt<H>>,
    handshakes: Table<Handshake>,
    datagrams: Datagrams,
    common: Common,
    neighbours: Rc<Neighbours<H>>,
    rings: RingPool,
    /// What a layer makes of what was received; empty but for meanwhile.
    plain: Vec<u8>,
    outputs: Outputs,
    notify: Arc<Notify>,
    arrivals: Arc<Inbox<Arrival<D>>>,
    mailbox: Arc<Mailbox<H>>,
    engine: Engine,
    config: Arc<Config>,
    counters: Arc<Counters>,
    /// Its own listeners, if the system spreads connections over the reactors.
    acceptance: Acceptance,
    /// Those that were written to in this turn.
    dirty: VecDeque<Token>,
    /// Those that are closed at the end of this turn, and why.
    doomed: Vec<(Token, CloseReason)>,
    /// Those of the handshakes of layers.
    flights: Flights,
    pressure: Pressure,
    tick: Tick,
    own_timers: OwnTimers,
    stalls: StallDetector,
    /// When the engine stops: no new connections are taken.
    draining: bool,
    /// The tick in which that began.
    draining_since: u64,
    /// What is being served: see [`fault`].
    serving: Served,
}

/// What a reactor serves.
#[derive(Clone, Copy)]
enum Served {
    /// Nothing that is to be given up: it is off its list already.
    Nothing,
    /// An event of the driver's, which knows whose.
    Event,
    Connection(Token),
    Datagrams(Token),
}

/// The handler's tick: how often, and the timer it is armed with.
#[derive(Default)]
struct Tick {
    interval: Option<Duration>,
    armed: Option<TimerKey>,
}

/// The timers that the handler set without a connection, and the one that looks after them.
#[derive(Default)]
struct OwnTimers {
    /// Shared with the callback that runs.
    shared: Rc<RefCell<ReactorTimers>>,
    armed: Option<TimerKey>,
}

/// What a reactor is reached by.
pub(crate) struct Channels<D: Driver, H: EventHandler> {
    pub(crate) notify: Arc<Notify>,
    pub(crate) arrivals: Arc<Inbox<Arrival<D>>>,
    pub(crate) mailbox: Arc<Mailbox<H>>,
    pub(crate) counters: Arc<Counters>,
}

impl<D: Driver, H: EventHandler> Channels<D, H> {
    pub(crate) fn new(driver: &D) -> Self {
        let notify = Arc::new(Notify::new(driver.waker()));
        Channels {
            arrivals: Arc::new(Inbox::new(Arc::clone(&notify))),
            mailbox: Arc::new(Inbox::new(Arc::clone(&notify))),
            counters: Arc::new(Counters::default()),
            notify,
        }
    }

    /// What the engine needs of the reactor.
    pub(crate) fn port(&self, driver: &D) -> ReactorPort {
        let (arrivals, mailbox) = (Arc::clone(&self.arrivals), Arc::clone(&self.mailbox));
        let notify = Arc::clone(&self.notify);
        let inbox = move || (arrivals.len() + mailbox.len(), notify.wakes() as u64);
        ReactorPort {
            waker: driver.waker(),
            counters: Arc::clone(&self.counters),
            inbox: Box::new(inbox),
        }
    }

    /// Where new connections come in.
    pub(crate) fn accept_queue(&self) -> AcceptQueue<D> {
        AcceptQueue { arrivals: Arc::clone(&self.arrivals), counters: Arc::clone(&self.counters) }
    }
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    pub(crate) fn new(
        index: usize,
        driver: D,
        handler: H,
        channels: Channels<D, H>,
        reactors: Reactors<H>,
        engine: Engine,
        config: Arc<Config>,
    ) -> Self {
        reactors.set(index, Arc::clone(&channels.mailbox));
        EventLoop {
            index,
            connections: Table::new(),
            attempts: Table::new(),
            handshakes: Table::new(),
            datagrams: Datagrams::default(),
            common: Common {
                reactor: index as u32,
                timers: Timers::new(),
                clock: Clock::new(driver.now()),
                terms: config.terms.clone(),
                later: VecDeque::new(),
                share: Share::new(config.turn_time),
            },
            neighbours: Rc::new(Neighbours::new(index as u32, reactors)),
            plain: Vec::new(),
            rings: RingPool::new(config.mirrored_rings, RING_BYTES_KEPT),
            outputs: Outputs {
                pool: OutputPool::mapped(OUTPUT_CHUNK, OUTPUT_CHUNKS_KEPT),
                limits: config.output.clone(),
                sent: 0,
            },
            notify: channels.notify,
            arrivals: channels.arrivals,
            mailbox: channels.mailbox,
            counters: channels.counters,
            acceptance: Acceptance::default(),
            dirty: VecDeque::new(),
            doomed: Vec::new(),
            flights: Flights::new(config.handshake_budget),
            pressure: Pressure::new(config.output.high_water),
            tick: Tick { interval: config.tick, armed: None },
            own_timers: OwnTimers::default(),
            stalls: StallDetector::new(config.stall_threshold),
            draining: false,
            draining_since: 0,
            serving: Served::Nothing,
            driver,
            handler,
            engine,
            config,
        }
    }
}
